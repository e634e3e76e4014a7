"""`test --coverage`: what no example exercises."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import MappingError, load_mapping, parse_mapping
from iggyflux.authoring.examples import run_examples
from iggyflux.documents import split_pointer
from iggyflux.editor.coverage import Coverage, cover
from tests.shell import iggyflux
from tests.strategies import as_yaml
from tests.test_mapping_warnings import MAPPINGS

WITH_EXAMPLES = [file for file in MAPPINGS if load_mapping(file).examples]


def _at(tree: Any, parts: list[str]) -> Any:
    for part in parts:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


def covered(point: dict[str, Any], messages: list[Any], **more: Any) -> Coverage:
    tree = {
        "iggyflux": 1,
        "kind": "writer",
        "name": "n",
        "from": {"stream": "s", "topic": "t"},
        "points": {"measurement": {"const": "m"}, "fields": {"n": {"const": 1}}, "timestamp": {"spread": "offset"}}
        | point,
        "examples": [{"message": message, "points": []} for message in messages],
    } | more
    return cover(parse_mapping(json.dumps(tree), format="yaml"))


def missing(point: dict[str, Any], messages: list[Any], **more: Any) -> list[str]:
    return [problem.message for problem in covered(point, messages, **more).missing]


@pytest.mark.parametrize(
    ("expression", "messages", "expected"),
    [
        ("lambda", [{"lambda": 1}], []),
        ("lambda", [{"lambda": None}], ["no example has this value"]),
        ({"expr": "lambda", "default": 1}, [{"lambda": 1}], ["no example takes the default"]),
        ({"expr": "lambda", "default": 1}, [{"lambda": 1}, {}], []),
        ("if(def, a, b)", [{"def": True, "a": 1}], ["no example takes this branch"]),
        ("if(def, a, b)", [{"def": True, "a": 1}, {"b": 1}], []),
        ("a || b", [{"a": 1, "b": 2}], ["no example comes to this side"]),
        ("a || b", [{"a": None, "b": 2}], []),
        ("coalesce(a, b, c)", [{"a": None, "b": 1, "c": 2}], ["no example comes to this alternative"]),
        ("not_null(a, b, c)", [{"a": None, "b": 1, "c": 2}], ["no example comes to this alternative"]),
        ("not_null(a, b)", [{"a": 1, "b": 2}, {"b": 1}], []),
        ("sum(map(&if(self, a, b), items))", [{"items": [{"self": 1, "a": 2}, {"b": 3}]}], []),
        ("sum(map(&if(self, a, b), items))", [{"items": [{"self": 1, "a": 2}]}], ["no example takes this branch"]),
    ],
)
def test_what_is_missing(expression: Any, messages: list[Any], expected: list[str]) -> None:
    assert missing({"fields": {"while": expression, "n": {"const": 1}}}, messages) == expected


def test_conditions_are_wanted_both_ways() -> None:
    assert missing({"where": "yield"}, [{"yield": 1}]) == ["no example is skipped by this condition"]
    assert missing({"where": "yield", "tags": {"t": "x"}}, [{"x": 1}]) == [
        "no example makes this point",
        "no example passes this condition",
        "no example has this value",
    ]
    assert missing({}, [{"a": 1}, {}], where="a") == []


def test_without_examples_nothing_is_covered() -> None:
    found = covered({"tags": {"t": "x"}}, [])

    assert (found.percent, len(found.missing)) == (0.0, found.parts)
    assert covered({}, []).percent == 100.0


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(WITH_EXAMPLES), st.sets(st.integers(0, 5)))
def test_more_examples_never_cover_less_and_what_is_missing_can_be_removed(file: Path, left_out: set[int]) -> None:
    """A tag or a field without a value in any example may be dropped, and the examples still pass."""
    tree: Any = json.loads(json.dumps(load_mapping(file).document.tree))  # what an alias shares is copied
    few = copy.deepcopy(tree)
    few["examples"] = [each for number, each in enumerate(tree["examples"]) if number not in left_out]
    mapping = parse_mapping(as_yaml(few), format="yaml", file=str(file))
    found, whole = cover(mapping), cover(load_mapping(file))

    assert found.parts == whole.parts
    assert {(p.location.pointer, p.message) for p in whole.missing} <= {
        (p.location.pointer, p.message) for p in found.missing
    }
    for problem in found.missing:
        parts = list(split_pointer(problem.location.pointer.removesuffix("/expr")))
        if problem.message != "no example has this value" or parts[-2:-1] not in (["tags"], ["fields"]):
            continue
        if isinstance(spec := _at(few, parts), dict) and {"default", "required"} & set(spec):
            continue  # without a value there is a default, or a failure
        changed = copy.deepcopy(few)
        holder = _at(changed, parts[:-1])
        holder.pop(int(parts[-1]) if isinstance(holder, list) else parts[-1])
        try:
            smaller = parse_mapping(as_yaml(changed), format="yaml", file=str(file))
        except MappingError:
            continue  # the last field
        assert all(result.passed for result in run_examples(smaller)), parts


def test_the_command_shows_it_and_fails_under_a_limit(tmp_path: Path) -> None:
    file, other = tmp_path / "m.yaml", tmp_path / "n.yaml"
    head = "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\n"
    point = "points: {measurement: {const: m}, fields: {a: a, b: b}, timestamp: {expr: at, format: unix_s}}\n"
    file.write_text(head + point + "examples:\n  - message: {a: 1, at: 1}\n    points: [m a=1.0 1000000000]\n")
    other.write_text(head + point)

    outcome = iggyflux("test", file, "--coverage")
    assert outcome.code == 0
    assert "no example has this value" in outcome.out
    assert "3 of 4 parts exercised (75 %)" in outcome.err
    assert iggyflux("test", file, "--coverage", "--fail-under", "99").code == 1
    assert iggyflux("test", file, "--coverage", "--fail-under", "50").code == 0
    assert iggyflux("test", file, "--fail-under", "50").code == 2
    found = json.loads(iggyflux("test", file, "--coverage", "--format", "json").out)["documents"][0]["coverage"]
    assert [each["code"] for each in found["missing"]] == ["IFX515"]
    assert iggyflux("test", file, other).code == 0
    assert iggyflux("test", file, other, "--strict").code == 1
    assert 'failures="1"' in iggyflux("test", other, "--strict", "--format", "junit").out


def test_totals_stand_below_several_documents(tmp_path: Path) -> None:
    """They are the sums of what the documents have, in text and in JSON; of one document there is no total."""
    for number, values in enumerate(("1", "'n/a'", "2")):
        (tmp_path / f"kelter{number}.yaml").write_text(
            "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\n"
            "points: {measurement: {const: m}, fields: {oechsle: {expr: must, default: 7}}, "
            "timestamp: {expr: at, format: unix_s}}\n"
            f"examples:\n  - {{message: {{must: {values}, at: 1}}}}\n"
        )
    assert iggyflux("test", tmp_path, "--update").code == 0

    lines = iggyflux("test", tmp_path, "--coverage", "--mutate").err.splitlines()
    for words in (r"parts exercised", r"changes noticed"):
        found = [tuple(map(int, re.findall(r"(\d+) of (\d+)", each)[0])) for each in lines if words in each]
        *single, total = found
        assert len(single) == 3
        assert total == (sum(each[0] for each in single), sum(each[1] for each in single))
    report = json.loads(iggyflux("test", tmp_path, "--format", "json").out)
    documents = [each["coverage"] for each in report["documents"]]
    for key in ("parts", "exercised"):
        assert report["coverage"][key] == sum(each[key] for each in documents)
    assert "document: " not in iggyflux("test", tmp_path / "kelter0.yaml", "--coverage", "--mutate").err
