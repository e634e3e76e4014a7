"""`test --mutate`: changes of a mapping that no example notices."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from iggyflux import load_mapping, parse_mapping
from iggyflux.authoring.examples import actual_result, run_examples
from iggyflux.authoring.mutations import mutate, mutations
from tests.shell import iggyflux
from tests.test_mapping_warnings import MAPPINGS

POINT: dict[str, Any] = {
    "measurement": {"const": "m"},
    "tags": {"class": "a", "def": {"expr": "b", "default": "x"}},
    "fields": {"while": {"expr": "v", "required": True}, "yield": {"expr": "w", "type": "integer"}},
    "timestamp": {"expr": "at", "format": "unix_s"},
    "where": "v != `7`",
}
THOROUGH = [
    {"a": "p", "b": "q", "v": 1, "w": 2, "at": 1_700_000_000},
    {"a": "p", "v": 1, "w": 3, "at": 1_700_000_000},
    {"a": "p", "b": "q", "w": 2, "at": 1_700_000_000},
    {"a": "p", "b": "q", "v": 7, "w": 2, "at": 1_700_000_000},
]


def unnoticed(point: dict[str, Any], messages: list[Any]) -> list[str]:
    tree = {
        "iggyflux": 1,
        "kind": "writer",
        "name": "n",
        "from": {"stream": "s", "topic": "t"},
        "points": point,
        "examples": [{"message": message, "points": []} for message in messages],
    }
    mapping = parse_mapping(json.dumps(tree), format="yaml")
    for number, example in enumerate(tree["examples"]):  # type: ignore[arg-type]
        del example["points"]
        example |= actual_result(mapping, number) or {}
    found = mutate(parse_mapping(json.dumps(tree), format="yaml"))
    return [
        f"{problem.location.pointer} {problem.message.removeprefix('no example fails when this ')}"
        for problem in found.unnoticed
    ]


def test_a_thorough_document_has_no_survivors() -> None:
    assert unnoticed(POINT, THOROUGH) == []


@pytest.mark.parametrize(
    ("left_out", "survivor"),
    [
        (1, "/points/tags/def/default is dropped"),
        (2, "/points/fields/while/required is dropped"),
        (3, "/points/where is dropped"),
    ],
)
def test_what_no_example_shows_survives(left_out: int, survivor: str) -> None:
    assert survivor in unnoticed(POINT, [message for number, message in enumerate(THOROUGH) if number != left_out])


def test_members_with_equal_values_survive_a_swap() -> None:
    messages = [message | {"b": "p"} for message in THOROUGH]

    point = POINT | {"tags": {"class": "a", "def": "b"}}
    assert unnoticed(point, messages) == ["/points/tags/class is swapped with def"]


@pytest.mark.parametrize("file", MAPPINGS, ids=lambda file: file.stem)
def test_a_change_is_one_change_and_the_document_stays(file: Path) -> None:
    mapping = load_mapping(file)
    before = copy.deepcopy(mapping.document.tree)
    for mutation in mutations(mapping.document.tree):
        assert mutation.tree != before
        assert mapping.document.node(mutation.pointer) is not None
    assert mapping.document.tree == before
    assert all(result.passed for result in run_examples(mapping))


def test_the_command_lists_survivors_and_is_strict_if_asked(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\n"
        "points: {measurement: {const: m}, fields: {a: {expr: a, required: true}}, timestamp: {expr: at, format: unix_s}}\n"
        "examples:\n  - message: {a: 1, at: 1}\n    points: [m a=1.0 1000000000]\n"
    )

    outcome = iggyflux("test", file, "--mutate")

    assert (outcome.code, "IFX516" in outcome.out, "changes noticed" in outcome.err) == (0, True, True)
    assert iggyflux("test", file, "--mutate", "--strict").code == 1


def test_literals_and_comparisons_of_expressions_are_changed() -> None:
    point = {
        "measurement": {"const": "m"},
        "fields": {"x": "if(v > `0`, v, w)"},
        "timestamp": {"expr": "at", "format": "unix_s"},
    }
    place = "/points/fields/x has"

    few, enough = [{"v": 5, "w": 1, "at": 1}], [{"v": n, "w": 7, "at": 1} for n in (1, 0, -1)]
    assert unnoticed(point, few) == [f"{place} >= for >", f"{place} `1` for `0`"]
    assert unnoticed(point, enough) == []
