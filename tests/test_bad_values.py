"""`on_bad_value: omit`: a value that its field cannot hold is left out and counted, and nothing else changes."""

from __future__ import annotations

import json
import math
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux import Mapping, Message, parse_mapping
from iggyflux.records import Rendered
from tests.test_law import outcome

VALUES: list[Any] = [
    *("n/a", "", "NaN", "-", "21.5", "true", " 7", "Zürich"),
    *(True, None, 0, 7, -1, 2.5, 2**53 + 1, 2**70, math.nan, math.inf, -math.inf),
    *([], [1], {}, {"def": 1}),
]
KINDS = ["float", "integer", "unsigned", "string", "boolean", "auto", "payload"]
NAMES = ["def", "x y", "lambda", "ünder", "Größe", "0"]
SOURCES = ["{}", "multiply({}, `2`)", "length({})", "parse_number({})"]
ENCODE = {"json": lambda tree: json.dumps(tree).encode(), "msgpack": msgspec.msgpack.encode, "cbor": cbor2.dumps}


def mapping(fields: dict[str, Any], form: str, for_each: str | None = None, **source: Any) -> Mapping:
    document = {
        **({"for_each": for_each} if for_each else {}),
        "iggyflux": 1,
        "kind": "writer",
        "from": {"stream": "s", "topic": "t", "payload": form, **source},
        "points": {
            "measurement": {"const": "m"},
            "fields": {"always": {"const": 1}, **fields},
            "timestamp": {"const": 0, "format": "unix_s"},
        },
    }
    return parse_mapping(json.dumps(document), format="yaml")


def render(made: Mapping, payload: bytes) -> Rendered:
    compiled, reference = (made.plan(kind).render([Message(payload)]) for kind in ("compiled", "reference"))
    assert outcome(compiled) == outcome(reference)
    return compiled


def fields_of(rendered: Rendered) -> str:
    (line,) = rendered.lines
    return line.removeprefix("m ").removesuffix(" 0")


@st.composite
def trees(draw: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Members with values of any type, and fields that may not be able to hold them."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    fields: dict[str, Any] = {}
    for name in names:
        source = draw(st.sampled_from(SOURCES))
        item: dict[str, Any] = {"expr": source.format(json.dumps(name)), "type": draw(st.sampled_from(KINDS))}
        if source != "{}" and item["type"] in ("string", "boolean"):  # what can never be is an error of the document
            item["type"] = "float"
        casts = {"auto": [False, True, "numbers"], "payload": [False]}
        item["cast"] = draw(st.sampled_from(casts.get(item["type"], [False, True])))
        fields[name] = item
    return {name: draw(st.sampled_from(VALUES)) for name in names}, fields


@pytest.mark.parametrize("form", ENCODE)
@given(drawn=trees())
def test_each_field_is_what_it_is_alone_or_is_omitted(form: str, drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    tree, fields = drawn
    if form != "json":  # they have no integers of more than 64 bits
        tree = {name: None if value == 2**70 else value for name, value in tree.items()}
    payload = ENCODE[form](tree)
    together = render(mapping(fields, form, on_bad_value="omit"), payload)
    kept, omitted = ["always=1.0"], 0
    for name, field in fields.items():
        is_seen = field["expr"] == json.dumps(name) or not isinstance(tree[name], float) or math.isfinite(tree[name])
        text = ENCODE[form]({name: tree[name] if is_seen else None})
        alone = render(mapping({name: field}, form), text)
        if alone.failures:
            omitted += 1
        else:
            kept += [each for each in [fields_of(alone).replace("always=1.0", "").strip(",")] if each]

    assert sorted(fields_of(together).split(",")) == sorted(kept)
    assert len(together.omitted) == omitted
    assert list(together.failures) == []


def test_a_bad_value_counts_as_null() -> None:
    fields = {
        "class": {"expr": "a", "default": 7, "on_bad_value": "omit"},
        "is": {"expr": "b", "on_bad_value": "omit"},
    }
    rendered = render(mapping(fields, "json"), b'{"a": "n/a", "b": NaN}')

    assert fields_of(rendered) == "always=1.0,class=7.0"
    assert [(value.code, value.location) for value in rendered.omitted] == [
        ("IFX340", "/points/fields/class"),
        ("IFX341", "/points/fields/is"),
    ]


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"on_bad_value": "omit"}, {"expr": "a", "on_bad_value": "fail"}),
        ({"on_bad_value": "omit"}, {"expr": "a", "required": True}),
        ({"on_bad_value": "fail"}, "a"),
        ({}, "a"),
    ],
)
def test_what_is_required_or_may_fail_fails(source: dict[str, Any], field: Any) -> None:
    rendered = render(mapping({"pass": field}, "json", **source), b'{"a": "n/a"}')

    assert [failure.code for failure in rendered.failures] == ["IFX340"]
    assert not rendered.lines
    assert not rendered.omitted


@pytest.mark.parametrize("payload", [b'{"a": NaN}', b'{"a": 1e999}', b'{"a": -Infinity, "b": "\\u00e9"}'])
def test_without_it_numbers_that_json_does_not_have_fail(payload: bytes) -> None:
    assert render(mapping({"a": "a"}, "json"), payload).failures


@pytest.mark.parametrize("payload", [b'{"a": NaN, }', b'{"a": nan}', b'{"a": 1', b"", b'{"a": +1}', b'\xff{"a": 1}'])
def test_what_is_not_json_is_none_with_it_either(payload: bytes) -> None:
    rendered = render(mapping({"a": "a"}, "json", on_bad_value="omit"), payload)

    assert [failure.location for failure in rendered.failures] == ["/from/payload"]


@given(
    st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 1, 2, -3.5]), min_size=1),
    st.sampled_from(
        ["max({})", "min({})", "sort({})[0]", "sum({})", "to_string({}[0])", "{}[0] == {}[0]", "reverse({})[0]"]
    ),
    st.sampled_from([None, "while"]),
)
def test_expressions_see_null_for_what_is_not_finite(numbers: list[float], text: str, each: str | None) -> None:
    """So no order of NaN decides what is stored."""
    field = {"if": {"expr": text.format("def", "def"), "type": "auto"}}
    tree: dict[str, Any] = {"while": [{"def": numbers}]} if each else {"def": numbers}
    nulls = [number if math.isfinite(number) else None for number in numbers]
    other: dict[str, Any] = {"while": [{"def": nulls}]} if each else {"def": nulls}
    made = mapping(field, "json", for_each=each, on_bad_value="omit")

    assert list(render(made, json.dumps(tree).encode()).lines) == list(render(made, json.dumps(other).encode()).lines)


def test_a_point_of_bad_values_only_fails_with_their_reason() -> None:
    made = parse_mapping(
        "{iggyflux: 1, kind: writer, from: {stream: s, topic: t, on_bad_value: omit}, "
        "points: {measurement: {const: m}, fields: {class: a}, timestamp: {const: 0, format: unix_s}}}",
        format="yaml",
    )
    (failure,) = render(made, b'{"a": "n/a"}').failures

    assert (failure.code, failure.location) == ("IFX346", "/points/fields/class")
    assert "found string 'n/a'" in failure.reason


@pytest.mark.parametrize(("word", "helps"), [("NaN", True), ("-Infinity", True), ("nan", False), ("+Infinity", False)])
def test_the_hint_names_the_option_where_it_helps(word: str, helps: bool) -> None:
    (failure,) = render(mapping({"a": "a"}, "json"), f'{{"a": {word}}}'.encode()).failures

    assert ("on_bad_value" in (failure.hint or "")) is helps


def test_a_star_keeps_its_good_members() -> None:
    star = {"*": {"expr": "@", "cast": "numbers", "on_bad_value": "omit"}}
    rendered = render(mapping(star, "json"), b'{"while": "21.5", "try": "true", "for": [1], "if": Infinity, "is": "-"}')

    assert fields_of(rendered) == 'always=1.0,is="-",try="true",while=21.5'
    assert [value.location for value in rendered.omitted] == ["/points/fields/*"] * 2


def test_values_of_points_that_fail_are_not_counted() -> None:
    """They are in the dead letter."""
    fields = {"a": {"expr": "a", "on_bad_value": "omit"}, "b": "b"}
    rendered = render(mapping(fields, "json"), b'{"a": "x", "b": "y"}')

    assert len(rendered.failures) == 1
    assert not rendered.omitted
