"""What one message may become is bounded: memory, time, the failures that are kept, and the size of its dead letter."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iggyflux import Message, parse_mapping
from iggyflux.records import DeadLetter, Reason
from iggyflux.runner.failures import bounded
from iggyflux.transports.local import deadletters
from iggyflux.transports.local.deadletters import encode_letter

MEMORY_BYTES = 1 << 30
"""The address space of a child process: the interpreter and its libraries take about a third of it."""

TOO_LARGE = "IFX303"
TOO_MANY = "IFX354"


def nested(depth, leaf, key="k" * 1000):
    return "".join(f'{{"{key}":' for _ in range(depth)) + leaf + "}" * depth


def piped(step, count, first="@"):
    return " | ".join([first, *[step] * count])


def writer(fields, for_each=None, tags=None, more=""):
    return json.dumps(
        {
            "iggyflux": 1,
            "kind": "writer",
            "from": {"stream": "s", "topic": "t"},
            **({"for_each": for_each} if for_each else {}),
            "points": {"measurement": {"const": "m"}, "tags": tags or {}, "fields": fields},
            **(json.loads(more) if more else {}),
        }
    )


LEAVES = "[" + ",".join(["0"] * 10_000) + "]"
THOUSAND = json.dumps({"yield": list(range(1000)), "class": "x" * 1000, "quotes": '"' * 1000})
MANY = '{"yield":[' + ",".join(["{}"] * 90_000) + '],"class":"' + "x" * 30_000 + '"}'

FLAT = MANY.replace("{}", "0")
"""The same without an object in an array: of many brackets only an exact check could say how deep they are."""

DOUBLED = piped("[@, @]", 40)
DOUBLED_TOO = piped("[@, @]", 40, "[@]")
EACH = "root().yield"

EXPRESSIONS = {
    "doubled": f"length(({piped('[@, @][]', 40)}))",
    "doubled_text": f"length(to_string(({DOUBLED})))",
    "doubled_object": f"length(to_string(({piped('{a: @, b: @}', 40)})))",
    "equal": f"if(({DOUBLED}) == ({DOUBLED_TOO}), `1`)",
    "contains": f"if(contains([({DOUBLED})], ({DOUBLED_TOO})), `1`)",
    "nested_map": f"length(map(&map(&map(&length(to_string(@)), {EACH}), {EACH}), yield))",
    "nested_projection": f"length(yield[*].[{EACH}[*].[{EACH}[*].[{EACH}]]][][][])",
    "nested_filter": f"length(yield[?length({EACH}[?length({EACH}[?@ > `-1`]) > `0`]) > `0`])",
    "slices": f"length(map(&map(&{EACH}[:], {EACH}), yield))",
    "items": f"length(map(&map(&items(root()), {EACH}), yield))",
    "base64": "length(" + "base64_encode(" * 60 + "class" + ")" * 61,
    "hexadecimal": "length(" + "hex_encode(" * 40 + "class" + ")" * 41,
    "escapes": "length(" + "to_string([" * 40 + "quotes" + "])" * 40 + ")",
}
WHOLE = '{"expr": "{c: root().class}", "type": "string"}'

# name: mapping, payload, code of every failure
CASES = {
    **{name: (writer({"x": text}), THOUSAND, TOO_LARGE) for name, text in EXPRESSIONS.items()},
    "flatten": (writer({"*": {"expr": "@", "flatten": "_"}}), nested(60, LEAVES), TOO_MANY),
    "flatten_tags": (
        writer({"x": {"const": 1}}, tags={"*": {"expr": "@", "flatten": "_"}}),
        nested(60, LEAVES),
        TOO_MANY,
    ),
    "flatten_shared": (writer({"*": {"expr": piped("{a: @, b: @}", 40), "flatten": "."}}), "{}", TOO_LARGE),
    "elements": (writer({"x": "@"}, for_each="yield"), '{"yield":[' + ",".join("0" * 500_000) + "]}", TOO_MANY),
    "elements_of_points": (
        json.dumps(
            json.loads(writer({"x": "@"}, for_each="yield"))
            | {"points": [{"measurement": {"const": f"m{number}"}, "fields": {"x": "@"}} for number in range(50)]}
        ),
        '{"yield":[' + ",".join("0" * 6_000) + "]}",
        TOO_MANY,
    ),
    "nested_elements": (writer({"x": "@"}, for_each=["yield", "root().yield"]), THOUSAND, TOO_MANY),
    "parent_in_each": (
        writer({"y": "index()"}, for_each=["[@]", "yield"], tags={"lambda": "parent().class"}).replace("[@]", "in"),
        f'{{"in":[{MANY}]}}',
        TOO_MANY,
    ),
    "elements_made": (writer({"x": {"const": 1}}, for_each=f"{piped('[@, @][]', 40)}"), "[1]", TOO_LARGE),
    "whole_in_each": (
        writer({"x": {"expr": "root().class", "type": "string"}, "y": "index()"}, for_each="yield"),
        MANY,
        TOO_MANY,
    ),
    "tag_in_each": (writer({"y": "index()"}, for_each="yield", tags={"lambda": "root().class"}), MANY, TOO_MANY),
    "measurement_in_each": (
        writer({"y": "index()"}, for_each="yield").replace('{"const": "m"}', '"root().class"'),
        MANY,
        TOO_MANY,
    ),
    "constant_in_each": (
        writer({"y": "index()", "z": {"const": "x" * 30_000, "type": "string"}}, for_each="yield"),
        MANY,
        TOO_MANY,
    ),
    "star_in_each": (
        writer({"*": "root()"}, for_each="yield", tags={"n": "index()"}).replace('"root()"', WHOLE),
        MANY,
        TOO_MANY,
    ),
    "tag_of_numbers_in_each": (
        writer({"x": "@", "y": "index()"}, for_each="yield", tags={"lambda": "root().class"}),
        FLAT,
        TOO_MANY,
    ),
    "text_of_numbers_in_each": (
        writer({"*": "root()"}, for_each="yield", tags={"n": "index()"}).replace('"root()"', WHOLE),
        FLAT,
        TOO_MANY,
    ),
    "expression_in_each": (
        writer({"x": "sum(root().yield[*].n)"}, for_each="yield", tags={"n": "index()"}),
        '{"yield":[' + ",".join(['{"n":1}'] * 20_000) + "]}",
        TOO_LARGE,
    ),
}

OF_EACH_KIND = {
    "doubled_text",
    "hexadecimal",
    "flatten",
    "elements",
    "elements_of_points",
    "star_in_each",
    "text_of_numbers_in_each",
    "equal",
}
"""What is tried in each run of the tests; a case takes a process and some seconds."""


def child(name):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    mapping, payload, _ = CASES[name]
    made = {}
    for kind in ("reference", "compiled"):
        plan = parse_mapping(mapping, format="yaml").plan(kind)
        began = time.process_time()
        rendered = plan.render([Message(payload.encode(), timestamp_us=1)])
        made[kind] = {
            "seconds": time.process_time() - began,
            "lines": len(rendered.lines),
            "fallback": rendered.fallback,
            "failures": [[each.code, each.location, each.element, each.reason[:300]] for each in rendered.failures],
        }
    print(json.dumps(made))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OF_EACH_KIND else pytest.mark.long) for name in CASES]
)
def test_what_a_message_becomes_is_bounded(name):
    """However a document multiplies a message, it fails in bounded memory and time, in both plans alike."""
    made = subprocess.run(
        [sys.executable, "-c", f"from tests.test_bounds import child; child({name!r})"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},
    )

    assert made.returncode == 0, made.stderr[-2000:]
    plans = json.loads(made.stdout)
    reference, compiled = plans["reference"], plans["compiled"]
    assert reference["failures"]
    assert {failure[0] for failure in reference["failures"]} == {CASES[name][2]}
    assert len(made.stdout) < 200_000
    assert compiled["fallback"] is None
    assert reference["failures"] == compiled["failures"]
    assert reference["lines"] == compiled["lines"]
    assert max(reference["seconds"], compiled["seconds"]) < 20


def seconds(call: Callable[[], object]) -> float:
    """Return the shortest of three times of `call`."""
    found = []
    for _ in range(3):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return min(found)


def merging(count):
    mapping = writer({"*": "@"}, for_each="yield").replace('"points"', '"collisions": "merge", "points"')
    return mapping, json.dumps({"yield": [{f"f{number}": 1} for number in range(count)]})


def table(count):
    mapping = writer({"x": {"expr": "a", "cast": True}}, for_each="@").replace(
        '"topic": "t"', '"topic": "t", "payload": "csv"'
    )
    return mapping, "a," + ",".join(f"c{number}" for number in range(count)) + "\n1" + "," * count + "\n"


@pytest.mark.parametrize("make", [merging, table], ids=["merge", "columns"])
@pytest.mark.parametrize("kind", ["reference", "compiled"])
def test_time_grows_with_the_message_and_no_faster(make, kind):
    """Eight times as much takes at most twenty times as long; quadratic time would take 64 times."""
    times = []
    for count in (2_000, 16_000):
        mapping, payload = make(count)
        plan = parse_mapping(mapping, format="yaml").plan(kind)
        times.append(seconds(lambda: plan.render([Message(payload.encode(), timestamp_us=1)])))  # noqa: B023

    assert times[1] < 20 * times[0] + 0.1


def test_a_dead_letter_is_never_larger_than_its_message_and_a_constant():
    """However many reasons there are, and however long the refused lines."""
    reasons = [Reason("IFX600", "no", line="x" * 10_000)] * 5_000
    letter = DeadLetter(Message(b"{}"), "m", "h", bounded(reasons))

    assert len(encode_letter(letter)) < 1_200_000
    assert "4,901 more reasons" in letter.reasons[-1].reason
    assert len(bounded([Reason("IFX340", "no")] * 10**5)) == 201


def test_a_message_of_failures_counts_them_all_and_keeps_the_first():
    """A hundred one by one, and one for each other kind."""
    plan = parse_mapping(writer({"x": "@"}, for_each="yield"), format="yaml").plan()
    rendered = plan.render([Message(b'{"yield":[' + b",".join([b'"q"'] * 5_000) + b"]}", timestamp_us=1)])

    assert sum(failure.count for failure in rendered.failures) == 5_000
    assert len(rendered.failures) == 101
    assert "4,899 more of this kind" in rendered.failures[-1].reason


def test_a_too_large_letter_does_not_bar_those_behind_it(tmp_path, monkeypatch):
    """It is skipped and reported by its place."""
    monkeypatch.setattr(deadletters, "LONGEST_LINE", 1000)
    letters = [DeadLetter(Message(payload), "m", "h") for payload in (b"{}", b"x" * 5_000, b"[]")]
    path = tmp_path / "00000001.ndjson"
    path.write_bytes(b"".join(encode_letter(letter) + b"\n" for letter in letters))
    found = []
    kept = list(deadletters.read_dead_letters(path, too_large=lambda file, line: found.append((file, line))))

    assert [letter.message.payload for letter in kept] == [b"{}", b"[]"]
    assert found == [(path, 2)]
