"""Mapping documents: what they mean as types, and every problem that they can have."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.codes import CODES
from iggyflux.documents import load_schema, parse_document
from iggyflux.errors import MappingError, Problem
from iggyflux.expressions import Expression
from iggyflux.mapping import (
    Collisions,
    Const,
    CursorSpec,
    Field,
    FieldType,
    Mapping,
    MessageSpec,
    OnError,
    PointSpec,
    Reader,
    ReaderMapping,
    Star,
    Tag,
    Target,
    Timestamp,
    TimestampFormat,
    Writer,
    WriterMapping,
    load_mapping,
    parse_mapping,
)
from iggyflux.transports.influxdb.query.statements import texts_of

CASES = Path(__file__).parent / "cases"
PROBLEMS = sorted(path for path in (CASES / "problems").iterdir() if path.is_dir())
DESIGN = (CASES / "design.yaml").read_text()
HEAD = "iggyflux: 1\nkind: writer\nfrom: {stream: plant, topic: readings}\n"
READER = "iggyflux: 1\nkind: reader\nfrom: {measurement: env}\nto: {stream: plant, topic: history}\n"


def writer(text: str) -> Writer:
    mapping = parse_mapping(text)
    assert isinstance(mapping, WriterMapping)
    return mapping.writer


def point(text: str) -> PointSpec:
    """Return the point of a writer document whose `points` is `text`, in flow style."""
    return writer(HEAD + "points: " + text).points[0]


def fields(text: str) -> dict[str, Field]:
    spec = point("{measurement: {const: m}, fields: %s, timestamp: {spread: offset}}" % text)  # noqa: UP031
    return {field.key: field for field in spec.fields}


def star_used(point_text: str, key: str = "*", for_each: bool = False) -> set[str]:
    head = HEAD + ("for_each: xs\n" if for_each else "")
    spec = writer(head + "points: " + point_text).points[0]
    stars = {star.prefix + "*": star for star in (*spec.tag_stars, *spec.field_stars)}
    return {".".join(map(str, path)) for path in stars[key].used}


def problems(text: str | bytes, **options: Any) -> tuple[Problem, ...]:
    with pytest.raises(MappingError) as caught:
        parse_mapping(text, **options)
    return caught.value.problems


def codes(text: str, **options: Any) -> list[str]:
    return [problem.code for problem in problems(text, **options) if problem.severity == "error"]


# --- golden: what a person reads ---


@pytest.mark.parametrize("case", PROBLEMS, ids=lambda path: path.name)
def test_an_invalid_document_has_these_messages(case: Path, update_cases: bool) -> None:
    """The text of every problem, byte for byte: `--update-cases` rewrites it, and the difference is reviewed."""
    [file] = case.glob("mapping.*")
    golden = case / "expected.txt"
    try:
        found = parse_mapping(file.read_bytes(), file=file.name).warnings
    except MappingError as error:
        found = error.problems
    text = "".join(problem.render() + "\n" for problem in found)
    if update_cases:
        golden.write_text(text)

    assert golden.read_text() == text


@pytest.mark.parametrize("case", PROBLEMS, ids=lambda path: path.name)
def test_every_problem_has_a_place_a_source_line_and_a_registered_code(case: Path) -> None:
    [file] = case.glob("mapping.*")
    try:
        found = parse_mapping(file.read_bytes(), file=file.name).warnings
    except MappingError as error:
        found = error.problems

    assert found
    for problem in found:
        assert problem.code in CODES
        assert problem.location.line > 0
        assert problem.location.column > 0
        assert problem.source is not None
        assert problem.location.column - 1 + problem.length <= max(len(problem.source), problem.location.column)


def test_the_problems_of_a_document_are_in_the_order_of_its_text() -> None:
    for case in PROBLEMS:
        [file] = case.glob("mapping.*")
        if case.name != "warnings":
            places = [(p.location.line, p.location.column) for p in problems(file.read_bytes(), file=file.name)]
            assert places == sorted(places)


# --- rules ---


def test_the_name_is_that_of_the_file_unless_the_document_has_one(tmp_path: Path) -> None:
    """Rule 1."""
    text = HEAD + "points: {measurement: {const: m}}\n"
    path = tmp_path / "factory-env.yaml"
    path.write_text(text)

    assert load_mapping(path).name == "factory-env"
    assert parse_mapping(text, file="a/b.yaml").name == "b"
    assert parse_mapping(text, file="a/b.yaml", name="c").name == "c"
    assert parse_mapping("name: d\n" + text, file="a/b.yaml", name="c").name == "d"
    assert parse_mapping(text).name == "mapping"
    assert parse_mapping(text, file="<stdin>").name == "mapping"
    assert codes(text, file="a/so so.yaml") == ["IFX114"]
    assert codes('name: "a\\n"\n' + text) == ["IFX114"]


def test_the_smallest_useful_writer_has_at_most_8_lines() -> None:
    """Rule 1.  Tags are named; every other member that the time does not use becomes a field."""
    text = """\
iggyflux: 1
kind: writer
from: {stream: plant, topic: readings}
points:
  measurement: {const: env}
  tags: [device, site]
  timestamp: {expr: ts, format: unix_ms}
"""

    mapping = parse_mapping(text)

    assert len(text.splitlines()) <= 8
    assert mapping.warnings == ()
    assert isinstance(mapping, WriterMapping)
    [spec] = mapping.writer.points
    assert [tag.key for tag in spec.tags] == ["device", "site"]
    assert spec.fields == ()
    [star] = spec.field_stars
    assert star.source == Expression("@", location="/points")
    assert star.used == {("device",), ("site",), ("ts",)}
    assert star.type is FieldType.AUTO


def test_topics_are_a_name_a_list_or_a_glob() -> None:
    """Rule 1."""
    rest = "points: {measurement: {const: m}}\n"
    for topic, expected in (("a", ("a",)), ("[a, b]", ("a", "b")), ("'a-*'", ("a-*",))):
        text = f"iggyflux: 1\nkind: writer\nfrom: {{stream: s, topic: {topic}}}\n{rest}"

        assert writer(text).source.topics == expected


@pytest.mark.parametrize("value", ["xs[0]", "xs[?a]", "@", "*", "`1`", "a[*].b", "'a' == b"])
def test_an_unquoted_expression_in_braces_gets_a_hint(value: str) -> None:
    """Rule 2."""
    found = problems(HEAD + f"points:\n  measurement: {{const: m}}\n  fields: {{a: {value}}}\n")

    assert any("quote the value" in (problem.hint or "") for problem in found)
    assert {problem.location.line for problem in found if problem.severity == "error"} == {6}


@pytest.mark.parametrize("value", ["`x`", "@.a", "*.a", "&a", "!a", "!a && b", "*a", "%a", "'a' == b", "[a].b"])
def test_an_unquoted_value_that_begins_like_yaml_gets_a_hint(value: str) -> None:
    """Rule 2."""
    found = problems(HEAD + f"where: {value}\npoints: {{measurement: {{const: m}}}}\n")

    assert any("quote" in (problem.hint or "") or "write an expression" in (problem.hint or "") for problem in found)
    assert {problem.location.line for problem in found if problem.severity == "error"} == {4}


def test_constants_are_accepted_in_place_of_expressions() -> None:
    """Rule 4."""
    spec = point(
        "{measurement: {const: m}, tags: {a: {const: 1}, b: {const: true}, c: {const: x}}, "
        "fields: {d: {const: 2}, e: {const: y}, f: {const: false}, g: {const: 3, type: integer}}, "
        "timestamp: {const: 1700000000, format: unix_s}}"
    )

    assert spec.measurement == Const("m")
    assert [tag.source for tag in spec.tags] == [Const(1), Const(True), Const("x")]
    assert [(field.source, field.type) for field in spec.fields] == [
        (Const(2.0), FieldType.FLOAT),
        (Const("y"), FieldType.STRING),
        (Const(False), FieldType.BOOLEAN),
        (Const(3), FieldType.INTEGER),
    ]
    assert spec.timestamp.source == Const(1700000000)


@pytest.mark.parametrize("value", ["5", "1.5", "true", "-1"])
def test_a_bare_number_or_boolean_gets_a_hint_to_write_a_constant(value: str) -> None:
    """Rule 4."""
    text = f"points: {{measurement: {{const: m}}, tags: {{a: {value}}}, fields: {{b: {value}}}}}\n"

    found = [problem for problem in problems(HEAD + text) if problem.severity == "error"]

    assert [problem.code for problem in found] == ["IFX115", "IFX115"]
    assert {problem.hint for problem in found} == {f"write a constant as {{const: {value}}}"}


def test_a_null_without_backticks_is_reported_at_its_place() -> None:
    """Rule 5."""
    [problem] = [
        p for p in problems(HEAD + "where: 'a != null'\npoints: {measurement: {const: m}}\n") if p.severity == "error"
    ]

    assert (problem.location.line, problem.location.column, problem.length) == (4, 14, 4)


def test_meta_knows_the_names_of_its_kind_of_document() -> None:
    """Rule 6."""
    assert parse_mapping(HEAD + "points: {measurement: meta('topic')}\n")
    assert "IFX207" in codes(READER + "messages: {key: meta('topic')}\n")
    assert parse_mapping(READER + "messages: {key: meta('measurement')}\n")


def test_a_field_is_float_and_a_star_is_auto_by_default() -> None:
    """Rule 11."""
    spec = point(
        "{measurement: {const: m}, fields: {a: x, b: {expr: y}, c: {expr: z, type: string, cast: true}, "
        '"*": "@", "p_*": {expr: q, type: integer, cast: true}}, timestamp: {spread: offset}}'
    )

    assert [(field.type, field.cast) for field in spec.fields] == [
        (FieldType.FLOAT, False),
        (FieldType.FLOAT, False),
        (FieldType.STRING, True),
    ]
    assert [(star.prefix, star.type, star.cast) for star in spec.field_stars] == [
        ("", FieldType.AUTO, False),
        ("p_", FieldType.INTEGER, True),
    ]


def test_tags_accept_default_required_and_stars() -> None:
    """Rule 14."""
    spec = point(
        "{measurement: {const: m}, timestamp: {spread: offset}, "
        "tags: {a: {expr: x, default: 5}, b: {expr: y, required: true}, 'l_*': {expr: labels, exclude: tmp}}}"
    )

    assert [(tag.key, tag.default, tag.required) for tag in spec.tags] == [("a", 5, False), ("b", None, True)]
    [star] = spec.tag_stars
    assert (star.prefix, star.exclude, star.include, star.flatten) == ("l_", ("tmp",), (), None)


def test_tags_and_fields_are_in_the_order_of_their_bytes() -> None:
    """Rule 15."""
    spec = point(
        "{measurement: {const: m}, timestamp: {spread: offset}, "
        'tags: {b: x, a: x, B: x, "\\u00e9": x}, fields: {"\\U0001f600": x, z: x, "\\uffee": x, Z: x}}'
    )

    assert [tag.key for tag in spec.tags] == ["B", "a", "b", "\u00e9"]
    assert [field.key for field in spec.fields] == ["Z", "z", "\uffee", "\U0001f600"]


def test_a_key_that_is_a_tag_and_a_field_is_an_error() -> None:
    """Rule 15."""
    assert codes(HEAD + "points: {measurement: {const: m}, tags: [a], fields: {a: b}}\n") == ["IFX120"]


USED = [
    ("{measurement: {const: m}, tags: [a]}", "*", {"a"}),
    (
        "{measurement: kind, tags: {x: a.b, y: 'c[0].d'}, timestamp: {expr: when.at, format: unix_s}}",
        "*",
        {"kind", "a", "c", "when"},
    ),
    ("{measurement: {const: m}, fields: {x: 'add(p, q.r)', '*': '@'}}", "*", {"p", "q"}),
    ("{measurement: {const: m}, where: flag, fields: {x: y, '*': '@'}}", "*", {"y"}),
    ("{measurement: {const: m}, tags: {x: extra.kind}, fields: {'*': extra}}", "*", {"kind"}),
    ("{measurement: {const: m}, tags: {x: root().extra.kind}, fields: {'*': extra}}", "*", {"kind"}),
    ("{measurement: {const: m}, tags: {x: kind}, fields: {'*': extra}}", "*", set()),
    (
        "{measurement: {const: m}, tags: {'*': labels}, fields: {'*': '@', 'extra_*': extra.deep}}",
        "*",
        {"labels", "extra"},
    ),
    ("{measurement: {const: m}, tags: {x: 'length(@)', y: meta('topic')}}", "*", set()),
    ("{measurement: {const: m}, tags: [a], fields: {'*': 'merge(@, b)'}}", "*", set()),
]


@pytest.mark.parametrize(("text", "key", "expected"), USED, ids=[text for text, _, _ in USED])
def test_a_star_omits_the_keys_that_other_parts_use(text: str, key: str, expected: set[str]) -> None:
    """Rule 16."""
    assert star_used(text, key) == expected


def test_under_for_each_element_and_message_are_two_objects() -> None:
    """Rule 16."""
    inner = "{measurement: {const: m}, tags: {x: a, y: root().b}, fields: {'*': '@', 'm_*': root()}}"

    assert star_used(inner, "*", for_each=True) == {"a"}
    assert star_used(inner, "m_*", for_each=True) == {"b"}
    assert star_used(inner, "*") == {"a", "b"}


def test_a_star_accepts_flatten_include_and_exclude() -> None:
    """Rule 16."""
    spec = point("{measurement: {const: m}, fields: {'*': {expr: x, flatten: _, include: [a_*, b], exclude: c?}}}")

    [star] = spec.field_stars
    assert (star.flatten, star.include, star.exclude) == ("_", ("a_*", "b"), ("c?",))


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("{a: {expr: x, default: 0}}", 0.0),
        ("{a: {expr: x, default: 7, type: integer}}", 7),
        ("{a: {expr: x, default: '', type: string}}", ""),
        ("{a: {expr: x, default: false, type: boolean}}", False),
        ("{a: {expr: x, default: 18446744073709551615, type: unsigned}}", 2**64 - 1),
    ],
)
def test_a_default_has_the_type_of_the_field(text: str, default: object) -> None:
    """Rule 17."""
    field = fields(text)["a"]

    assert field.default == default
    assert isinstance(field.default, type(default))


@pytest.mark.parametrize(
    "options",
    [
        "default: x",
        "default: true",
        "default: '5', type: integer, cast: true",
        "default: 1.0, type: integer",
        "default: -1, type: unsigned",
        "default: 9223372036854775808, type: integer",
        "default: 1, type: boolean",
        "default: 5, type: string",
    ],
)
def test_a_default_of_another_type_is_an_error(options: str) -> None:
    """Rule 17."""
    assert codes(HEAD + f"points: {{measurement: {{const: m}}, fields: {{a: {{expr: x, {options}}}}}}}\n") == ["IFX123"]


TIMES = [
    (
        "{expr: t, format: unix_ms}",
        Timestamp(
            Expression("t", {}, "writer", "/points/timestamp/expr"),
            TimestampFormat.UNIX_MS,
            None,
            None,
            False,
            None,
            "/points/timestamp",
        ),
    ),
    ("{spread: offset}", Timestamp(None, TimestampFormat.UNIX_US, None, None, False, "offset", "/points/timestamp")),
    (
        "{const: '2026-01-01T00:00:00Z', format: rfc3339}",
        Timestamp(Const("2026-01-01T00:00:00Z"), TimestampFormat.RFC3339, None, None, False, None, "/points/timestamp"),
    ),
    (
        "{expr: t, format: '%Y-%m-%d', timezone: Europe/Berlin, default: message}",
        Timestamp(
            Expression("t", {}, "writer", "/points/timestamp/expr"),
            TimestampFormat.PATTERN,
            "%Y-%m-%d",
            "Europe/Berlin",
            True,
            None,
            "/points/timestamp",
        ),
    ),
    (
        "{expr: t, format: flexible}",
        Timestamp(
            Expression("t", {}, "writer", "/points/timestamp/expr"),
            TimestampFormat.FLEXIBLE,
            None,
            None,
            False,
            None,
            "/points/timestamp",
        ),
    ),
]


@pytest.mark.parametrize(("text", "expected"), TIMES, ids=[text for text, _ in TIMES])
def test_a_timestamp_has_a_format(text: str, expected: Timestamp) -> None:
    """Rule 18."""
    mapping = parse_mapping(HEAD + f"points: {{measurement: {{const: m}}, timestamp: {text}}}\n")

    assert isinstance(mapping, WriterMapping)
    assert mapping.writer.points[0].timestamp == expected
    assert mapping.warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t", ["IFX112"]),
        ("{expr: t}", ["IFX111"]),
        ("{}", ["IFX114"]),
        ("{expr: t, format: epoch_ms}", ["IFX113"]),
        ("{expr: t, format: '%Y-%m-%d'}", ["IFX125"]),
        ("{expr: t, format: '%Y-%m-%d %Z', timezone: UTC}", ["IFX125"]),
        ("{expr: t, format: '%H:%M', timezone: UTC}", ["IFX125"]),
        ("{expr: t, format: '%Q', timezone: UTC}", ["IFX125"]),
        ("{expr: t, format: '%Y-%m-%dT%H:%M:%S%z', timezone: UTC}", ["IFX126"]),
        ("{expr: t, format: flexible, timezone: Mars/Olympus}", ["IFX125"]),
        ("{expr: t, format: unix_s, timezone: UTC}", ["IFX126"]),
        ("{expr: t, format: flexible, timezone: ''}", ["IFX114"]),
        ("{expr: t, const: 1, format: unix_s}", ["IFX117"]),
        ("{format: unix_s}", ["IFX126"]),
        ("{const: x, format: unix_s}", ["IFX125"]),
        ("{const: 1, format: rfc3339}", ["IFX125"]),
        ("{const: 2026-02-30, format: '%Y-%m-%d', timezone: UTC}", ["IFX125"]),
        ("{const: 1, format: unix_s, default: message}", ["IFX126"]),
        ("{expr: t, format: unix_s, dayfirst: true}", ["IFX126"]),
        ("{expr: t, format: '%d.%m.%Y', timezone: UTC, dayfirst: true}", ["IFX126"]),
        ("{dayfirst: true, spread: offset}", ["IFX126"]),
        ("{const: 05.08.2018, format: flexible, timezone: UTC}", ["IFX125"]),
        ("{const: 15.08.2018, format: flexible}", ["IFX125"]),
        ("{spread: index}", ["IFX126"]),
        ("{spread: element}", ["IFX113"]),
        ("{expr: t, format: unix_ns, spread: offset}", ["IFX125"]),
        ("{expr: t, format: unix_s, partitions: 4}", ["IFX126"]),
        ("{spread: offset, partitions: 0}", ["IFX114"]),
        ("{spread: offset, partitions: 1001}", ["IFX114"]),
    ],
)
def test_an_impossible_timestamp_is_an_error(text: str, expected: list[str]) -> None:
    """Rule 18."""
    assert codes(HEAD + f"points: {{measurement: {{const: m}}, timestamp: {text}}}\n") == expected


def test_points_without_a_timestamp_are_a_warning() -> None:
    """Rule 18."""
    [warning] = parse_mapping(HEAD + "points: {measurement: {const: m}}\n").warnings

    assert (warning.code, warning.severity, warning.location.line) == ("IFX150", "warning", 4)


@pytest.mark.parametrize(
    ("part", "name", "code"),
    [
        *(
            ("tags", name, "IFX121")
            for name in ("time", "_field", "_measurement", "_time", "_value", "_start", "_stop", "table", "result")
        ),
        ("fields", "time", "IFX121"),
        *(("tags", name, "IFX122") for name in ("", "a\\", "a\nb", "a\x7f")),
        *(("fields", name, "IFX122") for name in ("", "a\\b", "a\tb")),
    ],
)
def test_names_that_servers_lose_are_errors(part: str, name: str, code: str) -> None:
    """Rule 19."""
    tree = {"measurement": {"const": "m"}, part: {name: "x"}}

    assert codes(HEAD + "points: " + json.dumps(tree)) == [code]


@pytest.mark.parametrize("name", ["a=b", "a\\b", "#a", "a\nb"])
def test_a_constant_measurement_is_checked_unless_names_are_replaced(name: str) -> None:
    """Rule 19."""
    text = HEAD + "points: " + json.dumps({"measurement": {"const": name}})

    assert codes(text) == ["IFX122"]
    assert parse_mapping(text + "\ninvalid_names: replace\n").kind == "writer"


def test_names_that_are_valid_as_fields_are_accepted() -> None:
    """Rule 19."""
    assert set(fields("{_value: a, table: b, result: c, 'a b,c=d': e}")) == {"_value", "table", "result", "a b,c=d"}


def test_several_points_may_be_made_of_one_message() -> None:
    """Rule 20."""
    found = writer(HEAD + "for_each: xs\npoints:\n- {measurement: {const: a}, where: b}\n- {measurement: {const: c}}\n")

    assert [spec.pointer for spec in found.points] == ["/points/0", "/points/1"]
    assert found.points[0].where is not None
    assert [each.location for each in found.for_each] == ["/for_each"]


def test_policies_have_defaults() -> None:
    """Rules 21 and 22."""
    plain = writer(HEAD + "points: {measurement: {const: m}}\n")
    said = writer(
        HEAD + "points: {measurement: {const: m}}\non_error: skip\ncollisions: keep_last\ninvalid_names: replace\n"
    )

    assert (plain.on_error, plain.collisions, plain.invalid_names) == (OnError.DEAD_LETTER, Collisions.ERROR, "fail")
    assert (said.on_error, said.collisions, said.invalid_names) == (OnError.SKIP, Collisions.KEEP_LAST, "replace")


def test_a_payload_is_a_name_or_an_object_with_options() -> None:
    """Rules 26 and 27."""
    for payload, name, options in (
        ("msgpack", "msgpack", {}),
        ("{format: json}", "json", {}),
        ("{format: csv, header: [a, b], delimiter: ;}", "csv", {"header": ["a", "b"], "delimiter": ";"}),
    ):
        text = f"iggyflux: 1\nkind: writer\nfrom: {{stream: s, topic: t, payload: {payload}, strict: true}}\n"
        source = writer(text + "points: {measurement: {const: m}}\n").source

        assert (source.payload.format, source.payload.options, source.strict) == (name, options, True)


EXAMPLES = [
    ("{message: {a: 1}, points: ['m a=1 1']}", []),
    ("{message: null, skipped: true}", []),
    ("{message_json: '{', fails: IFX404}", []),
    ("{message_json: '{', fails: [IFX404], points: []}", []),
    ("{payload_base64: e30=, points: [], meta: {offset: 5}, headers: {a: 1}}", []),
    ("{points: []}", ["IFX129"]),
    ("{message: 1}", ["IFX129"]),
    ("{message: 1, message_json: '1', points: []}", ["IFX129"]),
    ("{message: 1, skipped: true, points: ['m a=1']}", ["IFX129"]),
    ("{message: 1, fails: IFX000}", ["IFX129"]),
    ("{message: 1, fails: oops}", ["IFX114"]),
    ("{message: 1, points: ['m']}", ["IFX129"]),
    ("{payload_base64: '%', points: []}", ["IFX129"]),
    ("{message: 1, points: [], meta: {offset: -1}}", ["IFX114"]),
]


@pytest.mark.parametrize(("example", "expected"), EXAMPLES, ids=[example for example, _ in EXAMPLES])
def test_an_example_has_a_message_and_its_result(example: str, expected: list[str]) -> None:
    """Rule 28."""
    text = HEAD + f"points: {{measurement: {{const: m}}}}\nexamples: [{example}]\n"

    if expected:
        assert codes(text) == expected
    else:
        assert len(parse_mapping(text).examples) == 1


def test_text_is_not_a_payload_of_a_binary_format() -> None:
    """Rule 28."""
    text = (
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t, payload: msgpack}\npoints: {measurement: {const: m}}\n"
    )

    assert codes(text + "examples: [{message_json: '{}', points: []}]\n") == ["IFX129"]


@pytest.mark.parametrize(
    ("condition", "pointer"),
    [
        ('{lambda: ""}', "/from/where/lambda"),
        ('{lambda: [kiln, ""]}', "/from/where/lambda/1"),
        ('{"": kiln}', "/from/where/"),
    ],
    ids=["empty", "one of two", "name"],
)
def test_a_condition_that_no_tag_can_meet_is_an_error(condition: str, pointer: str) -> None:
    """A server stores no empty tag, so the condition would be left out of the query, or match nothing."""
    with pytest.raises(MappingError) as caught:
        parse_mapping(
            f"iggyflux: 1\nkind: reader\nfrom: {{measurement: m, where: {condition}}}\nto: {{stream: s, topic: t}}\n"
        )

    assert [(problem.code, problem.location.pointer) for problem in caught.value.problems] == [("IFX114", pointer)]


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), FINITE, st.text())


@given(st.dictionaries(st.text(), st.one_of(SCALARS, st.lists(SCALARS, max_size=4)), max_size=3))
def test_every_condition_of_a_valid_reader_reaches_the_query(where: dict[str, object]) -> None:
    """None is dropped on the way: a query without it would read other rows."""
    tree = {
        "iggyflux": 1,
        "kind": "reader",
        "from": {"measurement": "m", "where": where},
        "to": {"stream": "s", "topic": "t"},
    }
    try:
        mapping = parse_mapping(json.dumps(tree))
    except MappingError:
        return

    assert isinstance(mapping, ReaderMapping)
    wanted = [(tag, len(value) if isinstance(value, list) else 1) for tag, value in where.items()]
    assert [(tag, len(texts_of(values))) for tag, values in mapping.reader.source.where] == wanted


def test_a_reader_has_a_query_a_cursor_messages_and_a_target() -> None:
    """Rule 29."""
    mapping = parse_mapping(
        """\
iggyflux: 1
kind: reader
name: env-history
from: {measurement: env, where: {site: [a, b], rack: 7}, fields: [t], tags: [site], language: sql}
cursor: {start: 1970-01-01T00:00:01Z, end: 1970-01-02T00:00:00Z, settle: 10s, overlap: 1m, window: 500ms}
messages:
  - payload: "{device: device, celsius: temperature, at: time}"
    key: device
    headers: {source: {const: influxdb}, kind: meta('measurement')}
    timestamp: time
  - for_each: window
to: {stream: factory, topic: env-history, payload: msgpack}
examples:
  - {row: {time: 1, device: d}, messages: [{payload: {device: d}, key: d}]}
"""
    )

    assert isinstance(mapping, ReaderMapping)
    reader = mapping.reader
    assert (mapping.kind, mapping.warnings) == ("reader", ())
    assert reader.source.where == (("site", ("a", "b")), ("rack", (7,)))
    assert (reader.source.measurement, reader.source.language) == ("env", "sql")
    assert reader.cursor == CursorSpec("time", 10**9, 86_400 * 10**9, 10 * 10**9, 60 * 10**9, 500 * 10**6)
    assert reader.target == Target("factory", "env-history", "msgpack")
    first, second = reader.messages
    assert isinstance(first.payload, Expression)
    assert first.key == Expression("device", {}, "reader", "/messages/0/key")
    assert [name for name, _ in first.headers] == ["source", "kind"]
    assert (first.for_each, second.for_each) == ("row", "window")


def test_a_template_of_a_payload_is_one_expression() -> None:
    """Rule 29."""
    text = READER + 'messages: {payload: {"a \\" b": x.y, c: {const: "it`s"}, d: {const: 5}, e: "x || z"}}\n'
    mapping = parse_mapping(text)

    assert isinstance(mapping, ReaderMapping)
    payload = mapping.reader.messages[0].payload
    assert isinstance(payload, Expression)
    assert payload.evaluate({"x": {"y": 1}, "z": 2}) == {'a " b': 1, "c": "it`s", "d": 5, "e": {"y": 1}}


def test_without_messages_each_row_is_a_message() -> None:
    """Rule 29."""
    mapping = parse_mapping(READER)

    assert isinstance(mapping, ReaderMapping)
    [message] = mapping.reader.messages
    assert (message.payload, message.for_each) == (Expression("@"), "row")
    assert mapping.reader.cursor == CursorSpec()


ENV = "from: {measurement: env}\nto: {stream: s, topic: t}\n"
STATEMENT = "iggyflux: 1\nkind: reader\nto: {stream: s, topic: t}\nfrom: {statement: '%s', language: sql}\n"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT * FROM env WHERE time >= $start AND time < $stop", []),
        ("SELECT * FROM env WHERE time >= $start", ["IFX131"]),
        ("SELECT * FROM env", ["IFX131", "IFX131"]),
        ("SELECT * FROM env WHERE time >= $started AND time < $stop", ["IFX131"]),
        ("SELECT * FROM env WHERE time >= $start AND time < $stop AND time < now()", ["IFX131"]),
    ],
)
def test_a_statement_depends_only_on_its_window(statement: str, expected: list[str]) -> None:
    text = STATEMENT % statement

    if expected:
        assert codes(text) == expected
    else:
        assert parse_mapping(text).kind == "reader"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from: {}\nto: {stream: s, topic: t}", ["IFX111"]),
        ("from: {measurement: a, statement: 'x $start $stop', language: sql}\nto: {stream: s, topic: t}", ["IFX117"]),
        ("from: {statement: 'x $start $stop'}\nto: {stream: s, topic: t}", ["IFX131"]),
        ("from: {statement: 'x $start $stop', language: sql, tags: [a]}\nto: {stream: s, topic: t}", ["IFX126"]),
        (ENV + "cursor: {start: tomorrow}", ["IFX125"]),
        (ENV + "cursor: {start: 1970-01-01T00:00:00Z, end: 1970-01-01T00:00:00Z}", ["IFX125"]),
        (ENV + "cursor: {window: 0s}", ["IFX125"]),
        (ENV + "cursor: {settle: 10}", ["IFX112"]),
        (ENV + "cursor: {settle: 10 s}", ["IFX114"]),
        ("from: {measurement: a}", ["IFX111"]),
    ],
)
def test_an_unusable_reader_is_an_error(text: str, expected: list[str]) -> None:
    assert codes("iggyflux: 1\nkind: reader\n" + text + "\n") == expected


# --- constructs ---


def test_names_in_a_list_are_tags_or_fields_of_these_members() -> None:
    spec = point("{measurement: {const: m}, tags: [b, a], fields: [d, c]}")

    assert [(tag.key, tag.pointer) for tag in spec.tags] == [("a", "/points/tags/1"), ("b", "/points/tags/0")]
    assert [(field.key, field.type) for field in spec.fields] == [("c", FieldType.FLOAT), ("d", FieldType.FLOAT)]
    assert spec.fields[0].source == Expression("c", {}, "writer", "/points/fields/1")
    assert spec.field_stars == ()


def test_a_value_may_be_an_object_with_only_an_expression() -> None:
    spec = point("{measurement: {expr: a}, tags: {b: {expr: c}}, fields: {d: {expr: e}}}")

    assert spec.measurement == Expression("a", {}, "writer", "/points/measurement/expr")
    assert spec.tags[0].source == Expression("c", {}, "writer", "/points/tags/b/expr")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{measurement: {const: 5}}", ["IFX123"]),
        ("{measurement: {const: ''}}", ["IFX122"]),
        ("{measurement: \"'a=b'\"}", ["IFX122"]),
        ("{measurement: '`5`'}", ["IFX132"]),
        ("{measurement: {const: m}, fields: {}}", ["IFX128"]),
        ("{measurement: {const: m}, fields: []}", ["IFX128"]),
        ("{measurement: {const: m}, tags: {a: {const: ''}}}", ["IFX123"]),
        ("{measurement: {const: m}, tags: {a: {expr: b, default: ''}}}", ["IFX123"]),
        ("{measurement: {const: m}, tags: {a: {expr: b, default: 1, required: true}}}", ["IFX124"]),
        ("{measurement: {const: m}, tags: {a: {expr: b, type: string}}}", ["IFX110"]),
        ("{measurement: {const: m}, fields: {a: {const: 1, default: 2}}}", ["IFX110"]),
        ("{measurement: {const: m}, fields: {a: {const: null}}}", ["IFX112"]),
        ("{measurement: {const: m}, fields: {'*': {expr: '@', required: true}}}", ["IFX110"]),
        ("{measurement: {const: m}, fields: {'a*b': c}}", ["IFX110"]),
        ("{measurement: {const: m}, fields: {'*': {expr: '@', include: '[a'}}}", ["IFX127"]),
        ("{measurement: {const: m}, fields: {a: upper(b)}}", ["IFX132"]),
        ("{measurement: {const: m}, fields: {'*': '[a]'}}", ["IFX132"]),
        ("{measurement: length(a)}", ["IFX132"]),
        ("{measurement: {const: m}, tags: [a b]}", ["IFX114"]),
        ("{measurement: {const: m}, tags: [a, a]}", ["IFX114"]),
        ("{measurement: {const: m}, tags: {a: b c}, fields: {d: e f}}", ["IFX200", "IFX200"]),
    ],
)
def test_an_impossible_point_is_an_error(text: str, expected: list[str]) -> None:
    assert codes(HEAD + f"points: {text}\n") == expected


@pytest.mark.parametrize("text", ["upper(b)", "'a'"])
def test_an_expression_that_fits_after_a_cast_is_accepted(text: str) -> None:
    assert "a" in fields('{a: {expr: "%s", type: integer, cast: true}}' % text)  # noqa: UP031


def test_names_of_streams_and_topics_are_counted_in_bytes() -> None:
    long = "\u00e9" * 200
    rest = "points: {measurement: {const: m}}\n"

    assert codes(f"iggyflux: 1\nkind: writer\nfrom: {{stream: {long}, topic: [a, {long}]}}\n{rest}") == ["IFX114"] * 2
    assert codes(f"iggyflux: 1\nkind: reader\nfrom: {{measurement: m}}\nto: {{stream: a, topic: {long}}}") == ["IFX114"]


def test_a_field_that_reads_a_member_named_like_a_type_is_a_warning() -> None:
    text = HEAD + "points: {measurement: {const: m}, timestamp: {spread: offset}, fields: {a: float, string: string}}\n"

    [warning] = parse_mapping(text).warnings

    assert (warning.code, warning.location.pointer) == ("IFX152", "/points/fields/a")


def test_problems_of_every_layer_are_reported_together() -> None:
    text = (
        HEAD
        + "wher: a\npoints: {measurement: {const: m}, tags: {time: a}, "
        + "fields: {b: 'c d', e: 5, a: {expr: x, default: y}}}\n"
    )

    assert sorted(codes(text)) == ["IFX110", "IFX115", "IFX121", "IFX123", "IFX200"]


def test_an_unused_table_is_a_warning_and_a_used_one_is_not() -> None:
    text = (
        HEAD
        + "tables: {a: {x: 1}, b: {y: 2}}\n"
        + "points: {measurement: {const: m}, tags: {c: 'lookup(''a'', d)'}, timestamp: {spread: offset}}\n"
    )

    [warning] = parse_mapping(text).warnings

    assert (warning.code, warning.location.pointer) == ("IFX151", "/tables/b")


def test_a_doubtful_part_of_an_expression_is_a_warning_at_that_part() -> None:
    text = HEAD + "where: 'state == `on`'\npoints: {measurement: {const: m}, timestamp: {spread: offset}}\n"

    [warning] = parse_mapping(text).warnings

    assert (warning.code, warning.location.line, warning.location.column) == ("IFX221", 4, 18)


@pytest.mark.parametrize("kind", ["wrter", "sink", 5, None])
def test_a_wrong_kind_is_reported_once_and_the_rest_is_checked(kind: object) -> None:
    tree = {"iggyflux": 1, "kind": kind, "from": {"stream": "s"}, "points": {"measurement": {"const": "m"}, "x": 1}}

    assert sorted(codes(json.dumps(tree))) == ["IFX110", "IFX111", "IFX113"]


# --- the mapping itself ---

TOML = """\
iggyflux = 1
kind = "writer"
name = "factory-env"
where = 'readings != `null`'
for_each = 'readings[]'
[from]
stream = "factory"
topic = "readings"
payload = "json"
[[points]]
measurement.const = "env"
timestamp = {expr = "ts", format = "unix_ms"}
[points.tags]
device = "root().device.id"
topic = "meta('topic')"
tenant = "header('tenant')"
[points.fields]
temperature = "celsius"
count = {expr = "count", type = "integer", default = 0}
state = {expr = "state", type = "string", required = true}
"*" = {expr = "extra", flatten = "_", include = ["v_*"]}
[[examples]]
points = ['env,device=d1,topic=readings count=3i,state="ok",temperature=21.5 1700000000000000000']
[examples.message]
device = {id = "d1"}
readings = [{celsius = 21.5, count = 3, state = "ok", ts = 1700000000000}]
"""


def test_toml_and_yaml_of_one_tree_are_one_mapping() -> None:
    yaml, toml = parse_mapping(DESIGN), parse_mapping(TOML, format="toml")

    assert yaml.document.tree == toml.document.tree
    assert yaml.hash == toml.hash
    assert yaml.writer == toml.writer
    assert yaml == toml


def test_toml_and_yaml_have_the_same_problems() -> None:
    for old, new in (("celsius", "lenght(celsius)"), ("unix_ms", "epoch"), ("default", "defalt"), ("[]", "[")):
        yaml = problems(DESIGN.replace(old, new, 1))
        toml = problems(TOML.replace(old, new, 1), format="toml")

        reported = [[(p.code, p.message, p.location.pointer, p.hint, p.found) for p in found] for found in (yaml, toml)]
        assert sorted(reported[0]) == sorted(reported[1])


def test_the_hash_is_that_of_the_tree_and_not_of_the_text() -> None:
    base = parse_mapping(DESIGN)

    assert len(base.hash) == 16
    assert parse_mapping("# a comment\n" + DESIGN, name="other").hash == base.hash
    assert parse_mapping(json.dumps(base.document.tree)).hash == base.hash
    assert parse_mapping(DESIGN.replace("celsius ", "kelvin  ", 1)).hash != base.hash


@pytest.mark.parametrize(("text", "form"), [(DESIGN, "yaml"), (TOML, "toml"), (READER, "yaml")])
def test_a_mapping_pickles_as_its_document(text: str, form: str) -> None:
    mapping = parse_mapping(text, format=form, file="x.yaml", name="given")

    again = pickle.loads(pickle.dumps(mapping))

    assert again == mapping
    assert (again.name, again.hash, again.document.file, again.document.format) == (
        mapping.name,
        mapping.hash,
        "x.yaml",
        form,
    )
    assert getattr(again, again.kind) == getattr(mapping, mapping.kind)
    assert len(pickle.dumps(mapping)) < len(text.encode()) + 300


def test_a_mapping_locates_the_pointer_of_a_failure() -> None:
    mapping = parse_mapping(DESIGN, file="m.yaml")
    assert isinstance(mapping, WriterMapping)
    [spec] = mapping.writer.points

    for node in (*spec.tags, *spec.fields, *spec.field_stars, spec.timestamp):
        assert mapping.locate(node.pointer).line > 8
    assert str(mapping.locate(spec.fields[0].pointer)).startswith("m.yaml:16:")


def test_a_mapping_is_immutable() -> None:
    mapping = parse_mapping(DESIGN)
    assert isinstance(mapping, WriterMapping)

    with pytest.raises(dataclasses.FrozenInstanceError):
        mapping.name = "x"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        mapping.writer.points[0].tags[0].key = "x"  # type: ignore[misc]


def test_threads_may_parse_at_the_same_time() -> None:
    results: list[Mapping] = []
    threads = [threading.Thread(target=lambda: results.append(parse_mapping(DESIGN))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 8
    assert {mapping.hash for mapping in results} == {results[0].hash}
    assert all(mapping.writer == results[0].writer for mapping in results)


def test_a_mapping_gives_its_plans() -> None:
    mapping = parse_mapping(DESIGN)

    assert type(mapping.plan("reference")).__name__ == "ReferencePlan"
    assert type(mapping.plan()).__name__ == "CompiledPlan"


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(MappingError) as caught:
            load_mapping(path)

        [problem] = caught.value.problems
        assert problem.code == "IFX100"
        assert problem.location.file == str(path)


def test_bytes_and_text_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_bytes(TOML.encode())

    assert load_mapping(path) == parse_mapping(TOML, format="toml")


def test_the_keys_of_the_schema_are_those_of_the_types() -> None:
    """A key without a type would be accepted and ignored."""
    defs = load_schema("mapping")["$defs"]

    def keys(name: str) -> set[str]:
        return set(defs[name]["properties"])

    def names(kind: type, *others: str, **renamed: str) -> set[str]:
        found = {field.name for field in dataclasses.fields(kind)} - {"pointer"}
        return ({renamed.get(name, name) for name in found} | set(others)) - {""}

    about = {"iggyflux", "kind", "name", "description", "examples"}
    assert keys("writer") == names(Writer, *about, "to", source="from", document="")
    assert keys("reader") == names(Reader, *about, source="from", target="to", document="")
    assert keys("point") == names(PointSpec, tag_stars="", field_stars="")
    assert keys("tag_object") == names(Tag, key="", source="expr")
    assert keys("field_object") == names(Field, key="", source="expr")
    assert keys("field_star_object") == names(Star, prefix="", used="", source="expr")
    assert keys("timestamp") == names(Timestamp, "const", source="expr", pattern="", default_message="default")
    assert keys("cursor") == names(
        CursorSpec, end_ns="end", settle_ns="settle", overlap_ns="overlap", window_ns="window"
    )
    assert keys("reader_message") == names(MessageSpec)
    assert keys("to") == names(Target)


@pytest.mark.parametrize(
    ("kind", "key", "text", "read"),
    [
        ("writer", "collisions", "collisions: WORD", lambda spec: spec.collisions.value),
        ("writer", "on_error", "on_error: WORD", lambda spec: spec.on_error.value),
        ("writer", "invalid_names", "invalid_names: WORD", lambda spec: spec.invalid_names),
        ("reader", "on_error", "on_error: WORD", lambda spec: spec.on_error.value),
        ("reader_message", "for_each", "messages: {for_each: WORD}", lambda spec: spec.messages[0].for_each),
        ("to", "payload", "", lambda spec: spec.target.payload),
    ],
)
def test_a_word_of_the_schema_is_read_as_itself(
    kind: str, key: str, text: str, read: Callable[[Writer | Reader], str]
) -> None:
    """A word that only the schema knows would be read as the default."""
    if kind == "writer":
        text = f"{HEAD}points: {{measurement: {{const: m}}, timestamp: {{spread: offset}}}}\n{text}"
    elif kind == "to":
        text = READER.replace("history}", "history, payload: WORD}")
    else:
        text = READER + text
    for word in load_schema("mapping")["$defs"][kind]["properties"][key]["enum"]:
        mapping = parse_mapping(text.replace("WORD", word))

        assert read(mapping.writer if mapping.kind == "writer" else mapping.reader) == word


# --- any text ---

WORDS = st.sampled_from(
    [
        "iggyflux",
        "kind",
        "writer",
        "reader",
        "from",
        "stream",
        "topic",
        "payload",
        "points",
        "measurement",
        "tags",
        "fields",
        "*",
        "a_*",
        "timestamp",
        "expr",
        "const",
        "format",
        "unix_ms",
        "%Y",
        "timezone",
        "default",
        "message",
        "spread",
        "offset",
        "where",
        "for_each",
        "tables",
        "examples",
        "fails",
        "IFX404",
        "skipped",
        "messages",
        "headers",
        "key",
        "to",
        "cursor",
        "start",
        "10s",
        "statement",
        "lookup('a', b)",
        "a.b[0]",
        "upper(",
        "time",
        "type",
        "integer",
        "include",
        "x[",
        "csv",
        "header",
    ]
)
LEAVES = st.one_of(
    WORDS,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
WILD = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(WORDS, st.text(max_size=3)), inner, max_size=5)
    ),
    max_leaves=20,
)


def works_or_has_problems(text: str | bytes, **options: Any) -> None:
    reported: tuple[Problem, ...] = ()
    try:
        mapping = parse_mapping(text, **options)
        worked = bool(mapping.hash) and isinstance(mapping, WriterMapping | ReaderMapping)
    except MappingError as error:
        worked, reported = False, error.problems

    assert worked or reported
    for problem in reported:
        assert problem.location.line > 0
        assert problem.location.column > 0
        assert problem.code in CODES
        assert problem.render()


@st.composite
def spoiled(draw: Any, trees: list[Any]) -> Any:
    """Return a valid document in which some nodes are replaced."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, 4))):
        parent, key = draw(st.sampled_from(list(edges(tree))))
        if draw(st.booleans()):
            parent[key] = draw(WILD)
        elif isinstance(parent, dict):
            parent[draw(WORDS)] = parent[key] if draw(st.booleans()) else draw(WILD)
        else:
            parent.append(draw(WILD))
    return tree


def edges(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from edges(item)


READER_TREE = {
    "iggyflux": 1,
    "kind": "reader",
    "from": {"measurement": "env"},
    "to": {"stream": "s", "topic": "t"},
    "cursor": {"start": "now", "settle": "10s"},
    "messages": [{"payload": {"a": "b", "c": {"const": 1}}, "key": "d", "headers": {"e": "f"}, "timestamp": "time"}],
    "examples": [{"row": {"time": 1}, "messages": [{"payload": {}}]}],
}


@settings(max_examples=200, deadline=None)
@given(spoiled([parse_document(DESIGN).tree, READER_TREE]))
def test_a_damaged_document_works_or_has_problems_with_places(tree: Any) -> None:
    works_or_has_problems(json.dumps(tree))


@settings(max_examples=150, deadline=None)
@given(st.one_of(WILD, st.dictionaries(WORDS, WILD)))
def test_any_tree_works_or_has_problems_with_places(tree: Any) -> None:
    works_or_has_problems(json.dumps(tree))


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=100), st.binary(max_size=100)), st.sampled_from(["yaml", "toml"]))
def test_any_text_works_or_has_problems_with_places(text: str | bytes, form: str) -> None:
    works_or_has_problems(text, format=form)


@pytest.mark.long
@settings(max_examples=20_000, deadline=None)
@given(st.one_of(spoiled([parse_document(DESIGN).tree, READER_TREE]), WILD))
def test_many_damaged_documents_work_or_have_problems_with_places(tree: Any) -> None:
    works_or_has_problems(json.dumps(tree))
