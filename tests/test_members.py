"""Member names are compared with the schema of payloads: what it cannot have is warned of, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from iggyflux.documents import read_document
from iggyflux.editor.diagnostics import check_compiled
from iggyflux.errors import ExpressionError
from iggyflux.expressions import Place, compile_expression
from iggyflux.mapping import parse_mapping
from iggyflux.mapping.members import _flat, _Walker
from iggyflux.structure import Structure

TAG = {"type": "record", "name": "Tag", "fields": [{"name": "text", "type": "string"}]}
PART = {"type": "record", "name": "Part", "fields": [{"name": "salt", "type": "double"}]}
SCHEMA = {
    "type": "record",
    "name": "lab.Probe",
    "fields": [
        {"name": "depth", "type": "double", "aliases": ["tiefe"]},
        {"name": "at", "type": "long"},
        {"name": "tags", "type": {"type": "map", "values": TAG}},
        {"name": "parts", "type": {"type": "array", "items": PART}},
        {"name": "next", "type": ["null", "Probe", "Part"]},
        {"name": "span", "type": {"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"}},
    ],
}


def warned(expression: str, payload: Any = None, for_each: str | None = None) -> list[tuple[str, str | None]]:
    document = {
        "iggyflux": 1,
        "kind": "writer",
        "from": {"stream": "s", "topic": "t", "payload": payload or {"format": "avro", "schema": SCHEMA}},
        **({} if for_each is None else {"for_each": for_each}),
        "points": {
            "measurement": {"const": "m"},
            "fields": {"f": {"expr": expression, "type": "auto"}},
            "timestamp": {"expr": "root().at", "format": "unix_ms"},
        },
    }
    mapping = parse_mapping(json.dumps(document))
    return [(each.message, each.hint) for each in mapping.warnings if each.code == "IFX173"]


@pytest.mark.parametrize(
    ("expression", "message", "hint"),
    [
        ("dept", "record lab.Probe has no member 'dept'", "did you mean depth?"),
        ("tiefe", "record lab.Probe has no member 'tiefe'", "did you mean depth?"),
        ("parts[0].sallt", "record lab.Part has no member 'sallt'", "did you mean salt?"),
        ("parts[].{a: sallt} | [0].a", "record lab.Part has no member 'sallt'", "did you mean salt?"),
        ("parts[?sallt > `1`].salt | [0]", "record lab.Part has no member 'sallt'", "did you mean salt?"),
        ("max_by(parts, &sallt).salt", "record lab.Part has no member 'sallt'", "did you mean salt?"),
        ("tags.any.x", "record lab.Tag has no member 'x'", "it has text"),
        ("next.next.next.nothing", "record lab.P", "it has "),
        ("depth || dpeth", "record lab.Probe has no member 'dpeth'", "did you mean depth?"),
        ("span.day", "lab.Span has no member 'day'", "did you mean days?"),
    ],
)
def test_a_member_that_the_schema_lacks_is_warned_of(expression: str, message: str, hint: str) -> None:
    ((said, advice),) = warned(expression)

    assert message in said or said.startswith(message)
    assert hint in str(advice)


@pytest.mark.parametrize(
    "expression",
    [
        *("depth", "tags.any.text", "tags.*.text | [0]", "parts[*].salt | [0]", "next.salt", "next.depth"),
        *("next.next.parts[-1].salt", "span.days", "root().depth", "to_string(@)", "parts[].salt | [0]", "@.depth"),
        *("parse_json(tags.any.text).whatever", "{a: depth}.a", "[depth, at][0]", "parts[:1] | [0].salt"),
        *("not_null(depth, at)", "parts[?salt > `1`] | [0].salt", "*.text | [0]"),
    ],
)
def test_a_member_that_may_be_there_is_not_warned_of(expression: str) -> None:
    assert warned(expression) == []


def test_elements_of_lists_are_known() -> None:
    assert warned("salt", for_each="parts") == []
    assert warned("depth", for_each="parts") == [("record lab.Part has no member 'depth'", "it has salt")]


def test_what_the_mapping_does_not_know_is_not_warned_of() -> None:
    """Schemas of a registry and of containers; a reader's schema is what expressions see."""
    assert warned("x", {"format": "avro", "schema_registry": True, "schemas": {"7": SCHEMA}}) == []
    assert warned("x", {"format": "avro"}, for_each="@") == []
    assert len(warned("x", {"format": "avro", "reader_schema": SCHEMA}, for_each="@")) == 1
    assert len(warned("x", {"format": "avro", "schema_registry": True, "reader_schema": SCHEMA})) == 1
    other = {"type": "record", "name": "Other", "fields": [{"name": "x", "type": "int"}]}
    assert warned("x", {"format": "avro", "encoding": "single_object", "schemas": [SCHEMA, other]}) == []


# --- no false alarm, whatever the expression ---

_NAMES = ["a", "b", "c"]
_VALUES = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from(_NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3),
    max_leaves=8,
)
_STEPS = ["a", "b", "c", "@", "[0]", "[]", "[*]", "*", "[?a]", "[1:]", "{a: b}", "[a, b]", "max_by(@, &a)"]


def structure_of(value: Any) -> Structure:
    """Return what is exactly this value."""
    if isinstance(value, dict):
        return Structure(members={key: structure_of(each) for key, each in value.items()})
    if isinstance(value, list):
        return Structure(items=Structure(branches=tuple(map(structure_of, value))))
    return Structure()


@settings(max_examples=300)
@given(value=_VALUES, steps=st.lists(st.sampled_from(_STEPS), min_size=1, max_size=5), either=st.booleans())
def test_a_member_that_is_warned_of_is_never_there(value: Any, steps: list[str], either: bool) -> None:
    """Of a schema that allows just one value: no part of the expression that is named has a value for it."""
    try:
        expression = compile_expression(" | ".join(steps) if not either else " || ".join(steps))
    except ExpressionError:
        reject()
    walker = _Walker((structure_of(value),))
    walker.visit(expression.node, (structure_of(value),))
    parts = {id(part.node): part for part in expression.trace([Place(value, value)])}

    for node, _ in walker.missing:
        assert all(found is None for found in parts[id(node)].found)


def test_many_alternatives_may_be_anything() -> None:
    deep: tuple[Structure, ...] = (Structure(members={}),)
    for _ in range(2000):
        deep = (Structure(branches=(*deep, Structure(members={}))),)

    assert any(each.is_open for each in _flat(deep))


def test_examples_do_not_say_it_again() -> None:
    fields = [{"name": "depth", "type": "double"}, {"name": "at", "type": "long"}]
    points = {
        "measurement": {"const": "m"},
        "fields": {"d": "depth", "f": "dept"},
        "timestamp": {"expr": "at", "format": "unix_ms"},
    }
    payload = {"format": "avro", "schema": {"type": "record", "name": "R", "fields": fields}}
    document = {"iggyflux": 1, "kind": "writer", "from": {"stream": "s", "topic": "t", "payload": payload}}
    example = {"message": {"depth": 1.5, "at": 1700000000000}, "points": ["m d=1.5 1700000000000000000"]}
    text = json.dumps({**document, "points": points, "examples": [example]})
    problems, _ = check_compiled(read_document(text))

    assert [each.code for each in problems if each.location.pointer == "/points/fields/f"] == ["IFX173"]
