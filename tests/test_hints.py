"""Hints of failed records: they belong to the reason, they help, and none tells what the document has already."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from iggyflux import Message, parse_mapping
from iggyflux.records import Failure

VALUES = st.sampled_from(
    [
        *(None, True, False, 0, -1, 7, 2**53 + 1, 2**63, 2**64, 1.5, 7.0, 1e300),
        *(
            "",
            "true",
            "-3",
            "21.5",
            "1e2",
            "0x10",
            " 4",
            "läuft",
            "n/a",
            "--",
            "9007199254740993",
            "9007199254740993.0",
        ),
        *([], ["a"], [1], {}, {"lambda": 1}, {"time": "x"}, '{"lambda": 1}'),
    ]
)
TIMES = st.sampled_from(
    [
        *(1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000_000, 1_700_000_000.25),
        *("2026-01-31T12:00:00Z", "2026-01-31 12:00", "1700000000", "1700000000000", "soon", None, True, {}),
    ]
)
TYPES = ["float", "integer", "unsigned", "string", "boolean", "auto"]
TYPE = st.sampled_from(TYPES)
NAMES = st.sampled_from(["class", "a\tb", "time", "back\\slash", "straße", "_field", "x" * 70_000, ""])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return a writer whose keys are those that hints name, each there or not."""
    options: dict[str, Any] = {"expr": "import"}
    common = {"type": TYPE, "cast": st.just(True), "on_bad_value": st.just("omit")}
    options |= draw(st.fixed_dictionaries({}, optional={**common, "required": st.just(True)}))
    star: dict[str, Any] = {"expr": "yield"}
    star |= draw(st.fixed_dictionaries({}, optional={**common, "flatten": st.just("_")}))
    timestamp: dict[str, Any] = {"expr": "from"}
    timestamp["format"] = draw(st.sampled_from(["unix_s", "unix_ms", "unix_us", "unix_ns", "rfc3339", "%Y-%m-%d"]))
    if timestamp["format"].startswith("%"):
        timestamp["timezone"] = "UTC"
    timestamp |= draw(st.fixed_dictionaries({}, optional={"default": st.just("message")}))
    point: dict[str, Any] = {
        "measurement": draw(st.sampled_from(["with", {"const": "with"}])),
        "tags": {"raise": "import", "*": "global"},
        "fields": {"import": options, "*": star},
        "timestamp": timestamp,
    }
    for kind, keys in (("tags", ["raise", "*"]), ("fields", ["import", "*"])):
        for key in keys:
            if draw(st.booleans()) and len(point[kind]) > 1:
                del point[kind][key]
    document: dict[str, Any] = {"iggyflux": 1, "kind": "writer", "from": {"stream": "s", "topic": "t"}}
    document |= draw(st.fixed_dictionaries({}, optional={"for_each": st.sampled_from(["[@]", "assert"])}))
    document |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "invalid_names": st.just("replace"),
                "collisions": st.sampled_from(["merge", "keep_last"]),
            },
        )
    )
    return document | {"points": [point]}


MEMBERS = st.fixed_dictionaries(
    {
        "import": VALUES,
        "with": VALUES,
        "from": TIMES,
        "yield": st.dictionaries(NAMES, VALUES, max_size=2) | VALUES,
        "global": st.dictionaries(NAMES, VALUES, max_size=2) | VALUES,
    }
)
SOME = st.one_of([MEMBERS] * 5)
PAYLOADS = SOME | SOME | st.lists(MEMBERS, max_size=2) | st.fixed_dictionaries({"assert": st.lists(MEMBERS)}) | VALUES


def changes(failure: Failure, document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each change that a hint proposes in words of the language, and the changed document."""
    for key, written in re.findall(r"`(\w+): ([^`]+)`", failure.hint or ""):
        value: Any = {"true": True}.get(written, written.strip("\"'"))
        changed = deepcopy(document)
        place: dict[str, Any] = changed
        if key not in ("for_each", "invalid_names", "collisions"):
            place = changed["points"][0]
            for step in failure.location.split("/")[3:]:
                place[step] = place[step] if isinstance(place[step], dict) else {"expr": place[step]}
                place = place[step]
        assert place.get(key) != value, f"the document has {key}: {value} already"
        place[key] = value
        if "without `timezone`" in (failure.hint or ""):
            del place["timezone"]
        yield f"{key}: {value}", changed


def failures_of(document: dict[str, Any], payload: Any) -> list[Failure]:
    text = json.dumps(document)
    return list(parse_mapping(text, format="yaml").plan().render([Message(json.dumps(payload).encode())]).failures)


@settings(max_examples=400)
@given(documents(), PAYLOADS)
def test_a_hinted_change_of_the_document_changes_what_comes_of_the_message(
    document: dict[str, Any], payload: Any
) -> None:
    """Where a hint is a change in the words of the language, that failure is gone after it."""
    for failure in failures_of(document, payload):
        for name, changed in changes(failure, document):
            event(f"{failure.code} {name.partition(' ')[0]}")
            after = failures_of(changed, payload)

            same = [(each.code, each.location, each.reason) for each in after]
            assert (failure.code, failure.location, failure.reason) not in same, name


@given(documents(), PAYLOADS)
def test_a_reason_holds_no_advice(document: dict[str, Any], payload: Any) -> None:
    """Advice is in the hint alone."""
    for failure in failures_of(document, payload):
        assert not re.search(r"\((?:add|use|set|send|write)\b|cast: true|type: \w|collisions:", failure.reason)
        assert not failure.hint or failure.hint not in failure.reason


def hint_of(field: str, payload: Any) -> str | None:
    text = "{iggyflux: 1, kind: writer, from: {stream: s, topic: t}, points: {measurement: {const: m}, fields: "
    text += f"{{class: {field}}}, timestamp: {{const: 0, format: unix_s}}}}}}"
    results = [
        parse_mapping(text, format="yaml").plan(kind).render([Message(json.dumps({"yield": payload}).encode())])
        for kind in ("reference", "compiled")
    ]
    first, second = [[*each.omitted, *each.failures] for each in results]
    assert first == second
    return first[0].hint


OMIT = "set `on_bad_value: omit`"
STRING = "declare `type: string`"
SKIP = "put `where:` in the point (points: - where: …) to skip it"


@pytest.mark.parametrize(
    ("field", "payload", "hint"),
    [
        ("yield", "n/a", f"{OMIT} (with `cast: true` where numbers are in strings), or {STRING}"),
        ("yield", "--", f"{OMIT} (with `cast: true` where numbers are in strings), or {STRING}"),
        ("yield", "open", STRING),
        ("yield", "21.5", f"add `cast: true`, or {STRING}"),
        ("{expr: yield, cast: true}", "n/a", f"{OMIT}, or {STRING}"),
        ("{expr: yield, cast: true, type: integer}", "", f"{OMIT}, or {STRING}"),
        ("{expr: yield, cast: true, required: true}", "n/a", STRING),
        ("{expr: yield, on_bad_value: omit}", "n/a", SKIP),
        ("{expr: yield, on_bad_value: omit}", "21.5", f"add `cast: true`, or {SKIP}"),
        ("{expr: yield, on_bad_value: omit, cast: true}", "n/a", SKIP),
        ("{expr: yield, on_bad_value: omit, cast: true, default: 0}", "n/a", None),
    ],
)
def test_a_text_that_stands_for_no_number_is_to_be_omitted(field: str, payload: str, hint: str | None) -> None:
    assert hint_of(field, payload) == hint


CSV = """
iggyflux: 1
kind: writer
from: {stream: s, topic: t, payload: {format: csv%s}}
for_each: "@"
points:
  measurement: {const: class}
  fields: {a: {expr: 'lambda', cast: true}}
  timestamp: {expr: 'from', format: unix_s}
"""


@pytest.mark.parametrize(
    ("header", "more", "hint"),
    [
        ("lambda ,from", "", 'write "lambda " in the expression'),
        ("lambda, from", "", 'write " from" in the expression'),
        ("lambda;from", "", "`delimiter` of the payload to ';'"),
        ("lambda\tfrom", "", "`delimiter` of the payload to '\\t'"),
        ("lambda,from", ", delimiter: ';'", None),
    ],
)
def test_a_header_of_csv_that_is_read_in_another_way_than_meant_is_named(
    header: str, more: str, hint: str | None
) -> None:
    """Blanks around a name, and another delimiter, make all paths null."""
    row = re.sub(r"[^,;\t]+", "7", header)
    [failure] = (
        parse_mapping(CSV % more, format="yaml").plan().render([Message(f"{header}\n{row}\n".encode())]).failures
    )

    assert hint is None or hint in (failure.hint or "")
