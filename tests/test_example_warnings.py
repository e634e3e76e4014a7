"""Warnings from the document's own examples, and of formats whose values are texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import Message, load_mapping, parse_mapping
from iggyflux.editor.sample_checks import check_samples
from tests.test_mapping_warnings import MAPPINGS

NEW = {"IFX157", "IFX158", "IFX159", "IFX160"}


def document(examples: list[Any], *, for_each: str | None = None, **point: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "iggyflux": 1,
        "kind": "writer",
        "name": "n",
        "from": {"stream": "s", "topic": "t"},
        "points": {"measurement": {"const": "m"}, "fields": {"class": {"const": 1}}, "timestamp": {"spread": "offset"}}
        | point,
        "examples": [example | {"points": ["m class=1.0 1"]} for example in examples],
    }
    return tree | ({"for_each": for_each} if for_each else {})


def warnings(tree: dict[str, Any]) -> list[tuple[str, str]]:
    mapping = parse_mapping(json.dumps(tree, ensure_ascii=False), format="yaml")
    found = [*mapping.warnings, *check_samples(mapping)]
    return [(each.code, f"{each.message}; {each.hint}") for each in found if each.code in NEW]


@pytest.mark.parametrize("file", MAPPINGS, ids=lambda file: file.stem)
def test_the_ready_mappings_have_no_such_warnings(file: Any) -> None:
    assert check_samples(load_mapping(file)) == []


# --- members ---


@pytest.mark.parametrize("place", ["measurement", "tag"])
@pytest.mark.parametrize("name", ["env", "lambda", "über"])
def test_a_member_that_no_example_has_is_hardly_meant(name: str, place: str) -> None:
    quoted = name if name.isascii() else f'"{name}"'
    point = {"measurement": quoted} if place == "measurement" else {"tags": {"k": quoted}}
    [(code, text)] = warnings(document([{"message": {"a": 1}}, {"message": {"b": {name: 1}}}], **point))

    assert code == "IFX157"
    assert f"{{const: {name}}}" in text or not name.isascii()
    for example in ({"message": {name: "x"}}, {"message": {name: None}}, {"message_json": json.dumps({name: "x"})}):
        assert warnings(document([{"message": {"a": 1}}, example], **point)) == []


def test_a_member_of_an_element_or_of_the_payload_is_looked_for_there() -> None:
    examples = [{"message": {"site": "b", "self": [{"def": 1}]}}]

    assert warnings(document(examples, for_each="self", tags={"a": "def", "b": "root().site"})) == []
    assert [
        code for code, _ in warnings(document(examples, for_each="self", tags={"a": "site", "b": "root().def"}))
    ] == [
        "IFX157",
        "IFX157",
    ]


def test_without_examples_or_with_a_default_nothing_is_said() -> None:
    assert warnings(document([], tags={"k": "berlin"})) == []
    assert warnings(document([{"message": {"a": 1}}], tags={"k": {"expr": "berlin", "default": "x"}})) == []
    assert warnings(document([{"message_json": "{"}], tags={"k": "berlin"})) == []


# --- times ---

UNITS = {"unix_s": 10**9, "unix_ms": 10**6, "unix_us": 10**3, "unix_ns": 1}


@settings(max_examples=120, deadline=None)
@given(
    seconds=st.integers(700_000_000, 4_000_000_000),
    sent=st.sampled_from(list(UNITS)),
    said=st.sampled_from(list(UNITS)),
)
def test_a_time_in_another_unit_is_reported_with_that_unit(seconds: int, sent: str, said: str) -> None:
    value = seconds * 10**9 // UNITS[sent]
    tree = document([{"message": {"at": [value]}}], for_each="at", timestamp={"expr": "@", "format": said})
    found = warnings(tree)
    if sent == said:
        assert found == []
    else:
        assert [code for code, _ in found] == ["IFX158"]
        assert f"set format: {sent}" in found[0][1]


@pytest.mark.parametrize("value", [0, 1, -5, True, "1598846404", None, 10**30, 1.5])
def test_a_time_that_is_plausible_in_no_unit_is_not_reported(value: Any) -> None:
    """Examples have small numbers for times, and that is fine."""
    assert warnings(document([{"message": {"at": value}}], timestamp={"expr": "at", "format": "unix_s"})) == []


@pytest.mark.parametrize("form", ["message", "message_json"])
@pytest.mark.parametrize(
    ("token", "format", "is_lost"),
    [
        ("1700000000.123456789", "unix_s", True),
        ("1700000000.123456", "unix_s", False),
        ("1700000000123.456789", "unix_ms", True),
        ("1700000000123.4", "unix_ms", False),
        ("1.123456789", "unix_s", False),
        ("1700000000.500000000", "unix_s", False),
    ],
)
def test_nanoseconds_that_a_double_cannot_hold_are_reported(token: str, format: str, is_lost: bool, form: str) -> None:  # noqa: A002
    tree = document([{form: "MESSAGE"}], timestamp={"expr": "at", "format": format})
    message = f'{{"at": {token}}}'
    text = json.dumps(tree).replace('"MESSAGE"', message if form == "message" else json.dumps(message))
    found = [warning.code for warning in check_samples(parse_mapping(text, format="yaml")) if warning.code in NEW]

    assert found == (["IFX159"] if is_lost else [])


# --- texts that are numbers ---


@pytest.mark.parametrize("payload", ["csv", "text"])
def test_a_star_over_texts_without_type_is_reported(payload: str) -> None:
    head = (
        {"from": {"stream": "s", "topic": "t", "payload": payload}, "for_each": "@"}
        if payload == "csv"
        else {"from": {"stream": "s", "topic": "t", "payload": {"format": "text", "pattern": "(?P<def>.*)"}}}
    )
    for star, expected in (
        ("@", ["IFX160"]),
        ({"expr": "@", "exclude": "a"}, ["IFX160"]),
        ("@ | [0]", ["IFX160"]),
        ({"expr": "@", "cast": True}, []),
        ({"expr": "@", "type": "string"}, []),
        ({"expr": "@", "type": "auto"}, []),
    ):
        assert [code for code, _ in warnings(document([], fields={"*": star}) | head)] == expected
    assert warnings(document([], fields={"*": "@"})) == []


@pytest.mark.parametrize("plan", ["compiled", "reference"])
@pytest.mark.parametrize("options", [{}, {"type": "auto"}])
def test_with_a_cast_numbers_in_texts_are_numbers(options: dict[str, str], plan: Any) -> None:
    fields = {"*": {"expr": "@", "cast": True, **options}}
    tree = document([], fields=fields, for_each="@", timestamp={"spread": "index"}) | {
        "from": {"stream": "s", "topic": "t", "payload": "csv"},
        "for_each": "@",
    }
    mapping = parse_mapping(json.dumps(tree), format="yaml")
    rendered = mapping.plan(plan).render([Message(b"hum,state,ok,id,none\n40,on,true,007,\n-1.5e3,,false,x1,7\n")])

    assert [line.split(" ")[1] for line in rendered.lines] == [
        'hum=40.0,id="007",none="",ok=true,state="on"',
        'hum=-1500.0,id="x1",none=7.0,ok=false,state=""',
    ]
