"""The language, rule by rule, through the public interface: the docstring of a test begins with its rule.

The rules are those of docs/language.md.  Whatever is rendered is rendered by both plans, which must agree.
"""

from __future__ import annotations

import base64
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux import (
    EvaluationError,
    ExpressionError,
    Failure,
    LineProtocolError,
    MappingError,
    Message,
    Point,
    PointError,
    Rendered,
    Row,
    Unsigned,
    compile_expression,
    load_mapping,
    parse_lines,
    parse_mapping,
)
from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.samples import Coordinates, SampleError, read_samples
from tests.test_law import outcome

HEAD = "iggyflux: 1\nkind: writer\nname: m\nfrom: {stream: s, topic: t}\n"
TIME = "timestamp: {expr: ts, format: unix_s, default: message}"


def document(fields: str, *, tags: str = "{}", rest: str = "", top: str = "", head: str = HEAD) -> str:
    """Return a writer of one point `m` with these fields; `rest` goes into the point, `top` to the document."""
    lines = [head.rstrip("\n"), *filter(None, [top]), "points:", "  measurement: {const: m}"]
    lines += [f"  tags: {tags}", f"  fields: {fields}", *filter(None, [f"  {rest}" if rest else f"  {TIME}"])]
    return "\n".join(lines) + "\n"


def with_payload(payload: str) -> str:
    return HEAD.replace("topic: t", f"topic: t, payload: {payload}")


def render(text: str, *payloads: Any, dialect: str = "v2", precision: str = "ns", **message: Any) -> Rendered:
    """Return what both plans make of the payloads (bytes as they are, anything else as JSON); they must agree."""
    mapping = parse_mapping(text)
    batch = [
        Message(payload if isinstance(payload, bytes) else json.dumps(payload).encode(), "s", "t", **message)
        for payload in payloads
    ]
    compiled, reference = (
        mapping.plan(kind, dialect=dialect, precision=precision).render(batch) for kind in ("compiled", "reference")
    )

    assert outcome(compiled) == outcome(reference)
    return compiled


def line(text: str, payload: Any, **options: Any) -> str:
    """Return the one line of a message that has nothing else."""
    rendered = render(text, payload, **options)

    assert list(rendered.failures) == []
    [only] = rendered.lines
    return only


def fields(text: str, payload: Any, **options: Any) -> str:
    """Return the fields of the one line, as they are written."""
    return line(text, payload, **options).partition(" ")[2].rpartition(" ")[0]


def failure(text: str, payload: Any, **options: Any) -> Failure:
    """Return the one failure of a message that has nothing else."""
    rendered = render(text, payload, **options)

    assert list(rendered.lines) == []
    [only] = rendered.failures
    return only


def codes(text: str) -> list[str]:
    """Return the codes of the errors of a document."""
    with pytest.raises(MappingError) as caught:
        parse_mapping(text)
    return [problem.code for problem in caught.value.problems if problem.severity == "error"]


def codes_or_none(text: str) -> list[str]:
    try:
        parse_mapping(text)
    except MappingError as error:
        return [problem.code for problem in error.problems]
    return []


def hints(text: str) -> str:
    with pytest.raises(MappingError) as caught:
        parse_mapping(text)
    return "\n".join(filter(None, (problem.hint for problem in caught.value.problems)))


def evaluate(expression: str, value: Any = None, message: Message | None = None) -> Any:
    return compile_expression(expression).evaluate(value, message)


# --- documents ---

SMALLEST = """\
iggyflux: 1
kind: writer
from: {stream: plant, topic: readings}
points:
  measurement: {const: env}
  tags: [device]
"""


def test_the_smallest_writer_has_6_lines_and_the_name_of_its_file(tmp_path: Path) -> None:
    """Rule 1.  Tags are named, and all other members become fields."""
    path = tmp_path / "factory-env.yaml"
    path.write_text(SMALLEST)

    assert load_mapping(path).name == "factory-env"
    assert len(SMALLEST.splitlines()) <= 8
    assert line(SMALLEST, {"device": "d1", "celsius": 21.5, "ok": True, "note": "x"}, timestamp_us=1) == (
        'env,device=d1 celsius=21.5,note="x",ok=true 1000'
    )
    for topic in ("t", "[t, u]", "'t*'"):
        assert parse_mapping(SMALLEST.replace("readings", topic)).writer


@pytest.mark.parametrize("value", ["xs[0]", "xs[?a]", "@", "`1`", "*", "@.x"])
def test_an_unquoted_expression_that_yaml_cannot_read_gets_a_hint(value: str) -> None:
    """Rule 2."""
    text = document("{a: a}", tags=f"{{x: {value}}}")

    assert "quote the value" in hints(text)
    assert "IFX109" not in codes_or_none(text.replace(f"x: {value}", f"x: '{value}'"))


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        ("2026-01-01T00:00:00Z", '"2026-01-01T00:00:00Z"'),
        ("2026-01-01", '"2026-01-01"'),
        ("1_000", '"1_000"'),
        ("no", '"no"'),
        ("on", '"on"'),
        ("12:30:45", '"12:30:45"'),
        ("0b11", '"0b11"'),
        ("0x1F", "31"),
        ("0o17", "15"),
        ("017", "17"),
        ("1e3", "1000.0"),
        ("true", "true"),
        ("'7'", '"7"'),
    ],
)
def test_yaml_scalars_follow_the_core_schema(scalar: str, expected: str) -> None:
    """Rule 3."""
    kind = "string" if expected.startswith('"') else "boolean" if expected == "true" else "float"
    written = expected if kind != "float" else f"{float(expected)}"

    assert fields(document(f"{{a: {{const: {scalar}, type: {kind}}}}}"), {}) == f"a={written}"


def test_a_toml_datetime_is_its_source_text_and_toml_errors_have_places() -> None:
    """Rule 3."""
    text = (
        'iggyflux = 1\nkind = "writer"\nname = "m"\nfrom = {stream = "s", topic = "t"}\n[points]\n'
        'measurement = {const = "m"}\n'
        '[points.fields]\na = {const = 2026-01-01T00:00:00Z, type = "string"}\n'
    )
    mapping = parse_mapping(text, format="toml")

    assert list(mapping.plan().render([Message(b"{}")]).lines) == ['m a="2026-01-01T00:00:00Z" 0']
    with pytest.raises(MappingError) as caught:
        parse_mapping(text.replace("type =", "tpye ="), format="toml")
    problem = caught.value.problems[-1]
    assert (problem.code, problem.location.line, problem.location.column) == ("IFX110", 8, 36)
    assert "type" in (problem.hint or "")


def test_a_constant_is_accepted_in_place_of_an_expression() -> None:
    """Rule 4."""
    text = document(
        "{a: {const: 1}, b: {const: 1, type: integer}, c: {const: x}, d: {const: true}}",
        tags="{u: {const: 7}, v: {const: a b}}",
        rest="timestamp: {const: 5, format: unix_s}",
    )

    assert line(text, {}) == 'm,u=7,v=a\\ b a=1.0,b=1i,c="x",d=true 5000000000'


@pytest.mark.parametrize("bare", ["7", "true", "1.5", "false"])
def test_a_bare_number_or_boolean_gets_a_hint_to_write_a_constant(bare: str) -> None:
    """Rule 4."""
    for text in (document(f"{{a: {bare}}}"), document("{a: a}", tags=f"{{u: {bare}}}")):
        assert codes(text) == ["IFX115"]
        assert f"{{const: {bare}}}" in hints(text)


@pytest.mark.parametrize("word", ["null", "true", "false"])
def test_a_literal_without_backticks_is_an_error(word: str) -> None:
    """Rule 5.  In JMESPath it would be the name of a member; in double quotes it is one."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(f"readings != {word}")

    assert caught.value.position == 12
    assert f"`{word}`" in str(caught.value.hint)
    assert evaluate(f'"{word}"', {word: 5}) == 5
    assert evaluate(f"readings != `{word}`", {"readings": "x"}) is True
    assert codes(document("{a: a}", top=f"where: 'a == {word}'")) == ["IFX206"]


# --- evaluation ---


def test_an_element_is_evaluated_with_root_index_meta_and_header() -> None:
    """Rule 6."""
    text = document(
        "{v: v}",
        tags="{a: root().unit, b: index(), c: \"meta('topic')\", d: \"meta('offset')\", "
        "e: \"header('k')\", f: \"meta('timestamp')\"}",
        rest="timestamp: {spread: offset}",
        top='for_each: "items"',
    )
    rendered = render(
        text, {"unit": "C", "items": [{"v": 1}, {"v": 2}]}, offset=7, timestamp_us=5, headers={"k": b"\x00\xff"}
    )

    assert list(rendered.lines) == [
        "m,a=C,b=0,c=t,d=7,e=AP8\\=,f=5 v=1.0 5007",
        "m,a=C,b=1,c=t,d=7,e=AP8\\=,f=5 v=2.0 5007",
    ]


def test_an_expression_alone_has_its_document_as_root() -> None:
    """Rule 6.  Coordinates and headers are null unless a message is given."""
    message = Message(b"", topic="t", origin_timestamp_us=9, id=2**100, headers={"n": 7, "f": 1.5, "b": True})

    assert evaluate("[root().a, meta('topic'), header('n')]", {"a": 1}) == [1, None, None]
    assert evaluate("[meta('topic'), meta('origin_timestamp'), meta('id')]", {}, message) == ["t", 9, 2**100]
    kept = evaluate("[header('n'), header('f'), header('b'), header('none')]", {}, message)
    assert [(type(value), value) for value in kept] == [(int, 7), (float, 1.5), (bool, True), (type(None), None)]


def test_null_and_missing_are_the_same() -> None:
    """Rule 7."""
    text = document("{a: a, b: b}")

    assert fields(text, {"a": 1, "b": None}) == fields(text, {"a": 1}) == "a=1.0"


def test_an_error_of_jmespath_fails_the_record() -> None:
    """Rule 7."""
    text = document("{a: a}", top="where: 'a < b'")
    found = failure(text, {"a": "1", "b": 2})

    assert (found.code, found.location) == ("IFX301", "/where")
    assert failure(document("{a: length(a)}"), {"a": 7}).code == "IFX300"
    with pytest.raises(EvaluationError):
        evaluate("a < b", {"a": "1", "b": 2})


def test_an_unknown_function_is_an_error_even_if_it_is_never_called() -> None:
    """Rule 7."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression("missing && lenght(@)")

    assert (caught.value.code, caught.value.position) == ("IFX203", 11)
    assert "length" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("multiply(a, b)", 23.5),
        ("add(b, `0.2`)", 0.3),
        ("subtract(big, `1`)", 2**63),
        ("divide(a, `2`)", 117.5),
        ("modulo(a, `60`)", 55),
        ("items({x: a})", [{"key": "x", "value": 235}]),
        ("zip(xs, ys)", [[1, "p"], [2, "q"]]),
        ("format_time(`0`, '%Y-%m-%dT%H')", "1970-01-01T00"),
        ("index()", None),
    ],
)
def test_arithmetic_is_decimal_and_objects_and_lists_can_be_traversed(expression: str, expected: Any) -> None:
    """Rule 8."""
    document = {"a": 235, "b": 0.1, "big": 2**63 + 1, "xs": [1, 2], "ys": ["p", "q"]}

    assert evaluate(expression, document) == expected


def test_a_regular_expression_takes_linear_time() -> None:
    """Rule 8.  No payload can stop a partition: a pattern that RE2 does not support does not compile."""
    assert evaluate("regex_match(@, '^(a+)+$')", "a" * 100_000 + "b") is False
    with pytest.raises(ExpressionError):
        compile_expression("regex_match(@, '(a)\\1')")


@pytest.mark.parametrize(
    ("value", "taken"),
    [(0, True), (False, False), ("", False), ([], False), ({}, False), (None, False), ("0", True), ([None], True)],
)
def test_where_uses_the_truth_of_jmespath(value: Any, taken: bool) -> None:
    """Rule 9."""
    for text in (document("{a: a}", top="where: w"), document("{a: a}", rest="where: w")):
        rendered = render(text, {"a": 1, "w": value})

        assert (len(rendered.lines), list(rendered.skipped)) == ((1, []) if taken else (0, [0]))


def test_where_of_a_point_reads_the_element_and_its_error_is_a_failure() -> None:
    """Rule 9."""
    text = document("{v: v}", top="for_each: xs", rest="where: 'v > `1`'")
    rendered = render(text, {"xs": [{"v": 1}, {"v": 2}, {"v": "3"}]})

    assert list(rendered.lines) == ["m v=2.0 0"]
    assert [(each.element, each.location) for each in rendered.failures] == [(2, "/points/where")]


def test_for_each_accepts_a_list_or_null() -> None:
    """Rule 10."""
    text = document("{v: v}", top="for_each: xs")

    assert list(render(text, {"xs": None}, {}, {"xs": []}).empty) == [0, 1, 2]
    for other in ({"v": 1}, "x", 7, False):
        assert failure(text, {"xs": other}).code == "IFX343"


def test_the_position_of_an_element_is_that_in_the_result() -> None:
    """Rule 10.  `[]` flattens and drops nulls."""
    text = document("{v: v}", tags="{i: index()}", top="for_each: 'xs[]'")

    assert list(render(text, {"xs": [None, {"v": 1}, [{"v": 2}]]}).lines) == ["m,i=0 v=1.0 0", "m,i=1 v=2.0 0"]


# --- values ---


def test_a_field_without_a_type_is_a_float() -> None:
    """Rule 11."""
    text = document("{a: a}")

    assert fields(text, {"a": 7}) == "a=7.0"
    for other in ("7", True):
        found = failure(text, {"a": other})
        assert (found.code, found.location) == ("IFX340", "/points/fields/a")
        assert ("type: string" if other == "7" else "type: boolean") in (found.hint or "")


def test_a_star_has_the_type_auto_by_default() -> None:
    """Rule 11."""
    assert fields(document("{a: {expr: a, type: auto}}"), {"a": "x"}) == 'a="x"'
    assert fields(document('{"*": "@"}'), {"a": 7, "b": "x", "c": False}) == 'a=7.0,b="x",c=false'


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("7", "7i"),
        ("-0", "0i"),
        (str(10**18), f"{10**18}i"),
        (str(2**63 - 1), f"{2**63 - 1}i"),
        (str(-(2**63)), f"{-(2**63)}i"),
    ],
)
def test_integers_are_exact(token: str, expected: str) -> None:
    """Rule 12."""
    assert fields(document("{a: {expr: a, type: integer}}"), f'{{"a":{token}}}'.encode()) == f"a={expected}"


@pytest.mark.parametrize("token", ["7.0", "1e3", "3.7", "true", '"7"', "[]", str(2**63), str(-(2**63) - 1)])
def test_a_number_is_an_integer_if_it_is_written_as_one(token: str) -> None:
    """Rule 12."""
    payload = f'{{"a":{token}}}'.encode()

    assert failure(document("{a: {expr: a, type: integer}}"), payload).code in ("IFX340", "IFX341", "IFX342")
    if token in ("7.0", "1e3"):
        assert fields(document("{a: {expr: a, type: integer, cast: true}}"), payload) == f"a={int(float(token))}i"


def test_unsigned_is_checked_against_its_range_and_the_dialect() -> None:
    """Rule 12."""
    text = document("{a: {expr: a, type: unsigned}}")

    assert fields(text, {"a": 2**64 - 1}) == f"a={2**64 - 1}u"
    assert failure(text, {"a": -1}).code == failure(text, {"a": 2**64}).code == "IFX341"
    assert failure(text, {"a": 1}, dialect="v1").code == "IFX323"


@pytest.mark.parametrize(
    ("token", "expected"),
    [("7", "7.0"), ("21.50", "21.5"), (str(2**53), "9007199254740992.0"), ("0.1", "0.1"), ("-0.0", "-0.0"),
     ("1e-7", "1e-07"), (str(2**54), str(float(2**54)))],
)  # fmt: skip
def test_floats_keep_their_shortest_form(token: str, expected: str) -> None:
    """Rule 13."""
    written = fields(document("{a: a}"), f'{{"a":{token}}}'.encode())

    assert written == f"a={expected}"
    assert float(written[2:]) == float(token)


@pytest.mark.parametrize("token", [str(2**53 + 1), str(2**63 + 1), "true", "1e400", "NaN", "Infinity", "-1e999"])
def test_a_float_is_never_rounded_silently(token: str) -> None:
    """Rule 13."""
    assert failure(document("{a: a}"), f'{{"a":{token}}}'.encode()).code in ("IFX340", "IFX342", "IFX404", "IFX406")


def test_large_floats_are_written_as_every_dialect_accepts_them() -> None:
    """Rule 13."""
    for dialect in ("v1", "v2", "v3"):
        written = fields(document("{a: a}"), b'{"a":1e16}', dialect=dialect)
        assert parse_lines(f"m {written} 0", dialect=dialect)[0].fields == {"a": 1e16}


@pytest.mark.parametrize(
    ("value", "expected"),
    [("x", ",a=x"), (7, ",a=7"), (True, ",a=true"), (False, ",a=false"), (1.5, ",a=1.5"),
     (7.0, ",a=7.0"), (None, ""), ("", ""), (0, ",a=0")],
)  # fmt: skip
def test_tags_are_strings(value: Any, expected: str) -> None:
    """Rule 14."""
    assert line(document("{v: v}", tags="{a: a}"), {"a": value, "v": 1}) == f"m{expected} v=1.0 0"


def test_tags_have_default_required_and_stars() -> None:
    """Rule 14."""
    for empty in ({}, {"a": None}, {"a": ""}):
        assert line(document("{v: v}", tags="{a: {expr: a, default: d}}"), {**empty, "v": 1}) == "m,a=d v=1.0 0"
        assert failure(document("{v: v}", tags="{a: {expr: a, required: true}}"), {**empty, "v": 1}).code == "IFX345"
    for nested in ({}, []):
        assert failure(document("{v: v}", tags="{a: a}"), {"a": nested, "v": 1}).code == "IFX340"
    assert (
        line(document("{v: v}", tags='{"*": l}'), {"l": {"y": 1, "x": "a", "z": None}, "v": 1}) == "m,x=a,y=1 v=1.0 0"
    )


def test_tags_and_fields_are_in_the_order_of_their_bytes() -> None:
    """Rule 15."""
    written = line(document('{b: v, B: v, "\\uFFEE": v, "\\U0001F600": v}', tags="{z: v, Z: v, é: v}"), {"v": 1})

    assert written == "m,Z=1,z=1,é=1 B=1.0,b=1.0,\uffee=1.0,\U0001f600=1.0 0"


def test_a_duplicate_key_from_two_sources_is_an_error_or_a_failure() -> None:
    """Rule 15."""
    assert codes(document("{a: b}", tags="{a: c}")) == ["IFX120"]
    two = document('{"*": a, "x_*": b}')
    assert failure(two, {"a": {"x_y": 1}, "b": {"y": 2}}).code == "IFX347"
    assert failure(document('{"*": f}', tags='{"*": t}'), {"t": {"k": "x"}, "f": {"k": 1}}).code == "IFX317"


def test_a_star_takes_the_members_that_nothing_else_uses() -> None:
    """Rule 16."""
    text = (
        HEAD + "points: {measurement: kind, tags: {d: dev.id}, "
        "fields: {sum: 'add(p, q)', '*': '@'}, timestamp: {expr: ts, format: unix_s}}\n"
    )

    assert line(text, {"kind": "m", "dev": {"id": "x"}, "p": 1, "q": 2, "ts": 3, "r": 4, "n": None}) == (
        "m,d=x r=4.0,sum=3.0 3000000000"
    )


def test_a_nested_value_fails_without_flatten() -> None:
    """Rule 16."""
    payload = {"a": {"b": 1, "c": [5, {"d": 6}]}, "n": None}

    assert failure(document('{"*": "@"}'), payload).code == "IFX340"
    assert fields(document('{"*": {expr: "@", flatten: "_"}}'), payload) == "a_b=1.0,a_c_0=5.0,a_c_1_d=6.0"


def test_globs_match_the_resulting_name_and_a_named_field_wins() -> None:
    """Rule 16."""
    payload = {"x": {"a": 1, "b": 2, "bb": 3}, "y": {"a": 9}}

    assert fields(document('{"x_*": {expr: x, include: "x_b*", exclude: ["x_bb"]}}'), payload) == "x_b=2.0"
    assert fields(document('{b: y.a, "*": x, "y_*": y}'), payload) == "a=1.0,b=9.0,bb=3.0"
    assert failure(document('{"*": x}'), {"x": [1]}).code == "IFX348"


CAST = [
    ("integer", '"7"', "7i"), ("integer", "7.0", "7i"), ("integer", '"-0"', "0i"), ("integer", '"7.0"', "7i"),
    ("float", '"7"', "7.0"), ("float", '"1e2"', "100.0"),
    ("boolean", '"true"', "true"), ("boolean", '"false"', "false"),
    ("string", "7", '"7"'), ("string", "7.0", '"7.0"'), ("string", "true", '"true"'),
]  # fmt: skip
NO_CAST = [
    ("integer", '" 7"'), ("integer", '"7 "'), ("integer", '"+7"'), ("integer", '"07"'), ("integer", '"7.5"'),
    ("integer", "3.7"), ("integer", '"0x1"'), ("integer", '""'), ("float", '"NaN"'),
    ("float", '".5"'), ("float", '"1_0"'),
    ("float", '"\\u0667"'), ("float", "true"), ("boolean", "1"), ("boolean", "0"),
    ("boolean", '"True"'), ("boolean", '"1"'),
    ("string", "{}"), ("integer", "true"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "token", "expected"), CAST)
def test_cast_converts_without_loss(kind: str, token: str, expected: str) -> None:
    """Rule 17."""
    payload = f'{{"a":{token}}}'.encode()

    assert fields(document(f"{{a: {{expr: a, type: {kind}, cast: true}}}}"), payload) == f"a={expected}"
    assert failure(document(f"{{a: {{expr: a, type: {kind}}}}}"), payload).code in ("IFX340", "IFX342")


@pytest.mark.parametrize(("kind", "token"), NO_CAST)
def test_cast_rejects_conversions_that_lose_something(kind: str, token: str) -> None:
    """Rule 17."""
    payload = f'{{"a":{token}}}'.encode()

    assert failure(document(f"{{a: {{expr: a, type: {kind}, cast: true}}}}"), payload).code in ("IFX340", "IFX342")


def test_a_default_replaces_null_only_and_has_the_type_of_the_field() -> None:
    """Rule 17."""
    text = document("{a: {expr: a, default: 5}}")

    assert fields(text, {}) == fields(text, {"a": None}) == "a=5.0"
    assert failure(text, {"a": "x"}).code == "IFX340"
    assert codes(document("{a: {expr: a, default: x}}")) == ["IFX123"]


def timed(value: Any, how: str, **options: Any) -> int:
    written = line(document("{v: v}", rest=f"timestamp: {{expr: ts, {how}}}"), {"ts": value, "v": 1}, **options)
    return int(written.rsplit(" ", 1)[1])


@pytest.mark.parametrize(
    ("value", "how", "expected"),
    [
        (1700000000000, "format: unix_ms", 1700000000000000000),
        ("1700000000.123456789", "format: unix_s", 1700000000123456789),
        (1700000000.1, "format: unix_s", 1700000000100000000),
        (1699999999.999999, "format: unix_s", 1699999999999999000),
        (0.5, "format: unix_ns", 0),
        (1.5, "format: unix_ns", 2),
        (-1, "format: unix_ns", -1),
        ("2026-01-01T00:00:00.123456789+02:00", "format: rfc3339", 1767218400123456789),
        ("2026-01-01t00:00:00z", "format: rfc3339", 1767225600000000000),
        ("31.01.2026 12:00", "format: '%d.%m.%Y %H:%M', timezone: Europe/Berlin", 1769857200000000000),
        ("31 Jan 2026 12:00:00 +0000", "format: flexible", 1769860800000000000),
    ],
)
def test_timestamps_are_exact(value: Any, how: str, expected: int) -> None:
    """Rule 18."""
    assert timed(value, how) == expected


@pytest.mark.parametrize(
    ("value", "how"),
    [
        ("12:00", "format: flexible, timezone: UTC"),
        ("31 Jan 2026 12:00 CET", "format: flexible"),
        ("2026-10-25 02:30", "format: '%Y-%m-%d %H:%M', timezone: Europe/Berlin"),
        ("2026-03-29 02:30", "format: '%Y-%m-%d %H:%M', timezone: Europe/Berlin"),
        ("2026-01-01T00:00:00", "format: rfc3339"),
        (10**19, "format: unix_s"),
        (True, "format: unix_s"),
        ("x", "format: unix_s"),
    ],
)
def test_a_value_that_is_not_an_instant_fails(value: Any, how: str) -> None:
    """Rule 18."""
    text = document("{v: v}", rest=f"timestamp: {{expr: ts, {how}}}")

    assert failure(text, {"ts": value, "v": 1}).code == "IFX349"


def test_a_number_in_another_unit_gets_a_hint() -> None:
    """Rule 18.  Only if it is not a time in the declared unit; a time that is merely unlikely does not fail."""
    text = document("{v: v}", rest="timestamp: {expr: ts, format: unix_s}")

    assert failure(text, {"v": 1, "ts": 1700000000123}).hint == "declare `format: unix_ms`, in which it is 2023-11-14"
    assert timed(1700000000123, "format: unix_ns") == 1700000000123


def test_a_null_timestamp_fails_unless_the_message_time_is_the_default() -> None:
    """Rule 18."""
    text = document("{v: v}", rest="timestamp: {expr: ts, format: unix_s}")

    assert failure(text, {"ts": None, "v": 1}).code == failure(text, {"v": 1}).code == "IFX350"
    assert line(text.replace("unix_s", "unix_s, default: message"), {"v": 1}, timestamp_us=7) == "m v=1.0 7000"
    assert failure(text.replace("unix_s", "unix_s, default: message"), {"v": 1, "ts": "x"}).code == "IFX349"


def test_a_zone_name_in_a_pattern_is_rejected() -> None:
    """Rule 18."""
    assert codes(document("{v: v}", rest="timestamp: {expr: ts, format: '%Y-%m-%d %Z'}")) == ["IFX125"]


def test_times_are_rounded_down_before_collisions_are_searched() -> None:
    """Rule 18."""
    assert timed(-1, "format: unix_ns", precision="s") == -1
    text = document("{v: v}", top="for_each: xs\ncollisions: keep_last", rest="timestamp: {expr: ts, format: unix_ms}")
    payload = {"xs": [{"v": 1, "ts": 1000}, {"v": 2, "ts": 1999}]}
    assert list(render(text, payload, precision="s").lines) == ["m v=2.0 1"]
    assert len(render(text, payload, precision="ms").lines) == 2


def test_a_point_without_timestamp_has_the_message_time_and_a_warning() -> None:
    """Rule 18."""
    text = HEAD + "points: {measurement: {const: m}, fields: [v]}\n"

    assert [warning.code for warning in parse_mapping(text).warnings] == ["IFX150"]
    assert list(render(text, {"v": 1}, timestamp_us=3).lines) == ["m v=1.0 3000"]
    spread = text.replace("[v]", "[v], timestamp: {spread: offset}")
    assert parse_mapping(spread).warnings == ()
    assert list(render(spread, {"v": 1}, timestamp_us=3, offset=4321).lines) == ["m v=1.0 3321"]


RESERVED_TAGS = ["_field", "_measurement", "_time", "_value", "_start", "_stop", "table", "result", "time"]


@pytest.mark.parametrize("name", RESERVED_TAGS)
def test_reserved_names_are_rejected_as_tag_keys(name: str) -> None:
    """Rule 19."""
    assert codes(document("{v: v}", tags=f"{{{name}: a}}")) == ["IFX121"]
    assert failure(document("{v: v}", tags='{"*": l}'), {"v": 1, "l": {name: "x"}}).code == "IFX314"
    if name == "time":
        assert codes(document("{time: v}")) == ["IFX121"]
    else:
        assert parse_mapping(document(f"{{{name}: v}}"))


@pytest.mark.parametrize(
    ("measurement", "tag", "field", "replaced"),
    [
        ("a=b", "t", "f", "a_b,t=t f=1.0 0"),
        ("a\\b", "t", "f", "a_b,t=t f=1.0 0"),
        ("#a", "t", "f", "_a,t=t f=1.0 0"),
        ("a", "t\\", "f", "a,t=t_ f=1.0 0"),
        ("a", "t\n", "f", "a,t=t_ f=1.0 0"),
        ("a", "t", "f\\g", "a,t=t f_g=1.0 0"),
        ("a\x00", "t", "f", "a_,t=t f=1.0 0"),
    ],
)
def test_a_name_that_servers_lose_fails_or_is_replaced(measurement: str, tag: str, field: str, replaced: str) -> None:
    """Rule 19."""
    text = HEAD + f"points: {{measurement: a, tags: {{t: b}}, fields: {{'*': c}}, {TIME}}}\n"
    payload = {"a": measurement, "b": tag, "c": {field: 1}}

    assert failure(text, payload).code in ("IFX311", "IFX312", "IFX313")
    assert line(text + "invalid_names: replace\n", payload) == replaced


# --- records, failures, collisions ---


def test_the_other_records_of_a_failed_message_are_written() -> None:
    """Rule 20."""
    text = (
        HEAD + "for_each: xs\npoints:\n- "
        "{measurement: {const: a}, fields: {v: v}, timestamp: {expr: v, format: unix_ns, default: message}}\n"
        "- {measurement: {const: b}, fields: {w: w}, timestamp: {spread: offset}}\n"
    )
    rendered = render(text, {"xs": [{"v": 1, "w": "x"}, {"w": 2}, {}]})

    assert list(rendered.lines) == ["a v=1.0 1", "b w=2.0 0"]
    assert [(each.index, each.element, each.point, each.code) for each in rendered.failures] == [
        (0, 0, 1, "IFX340"),
        (0, 1, 0, "IFX346"),
        (0, 2, 0, "IFX346"),
        (0, 2, 1, "IFX346"),
    ]


def test_a_payload_that_is_a_list_is_named_without_its_length() -> None:
    """Elements that no path reads are not decoded, so their number is unknown."""
    found = failure(document("[v]"), [{"v": 1}])

    assert found.code == "IFX346"
    assert found.reason.endswith(" (the payload is a list)")
    assert found.hint == 'add `for_each: "@"` for points of its elements'


@pytest.mark.parametrize("payload", [[{"v": 1}], 5, "v", True])
def test_a_payload_without_members_is_named_where_the_measurement_is_missing(payload: Any) -> None:
    """The cause is the payload, not the name in the mapping."""
    found = failure(HEAD + "points: {measurement: v, fields: [v], timestamp: {spread: offset}}", payload)

    assert found.code == "IFX345"
    assert "the payload is " in found.reason
    assert "const" not in found.reason


@pytest.mark.parametrize("payload", [{"for": {"if": 1, "Ω": {"x": 2}}}, {"for": {}}])
def test_an_object_that_is_decoded_in_part_is_not_counted(payload: Any) -> None:
    """Members that no path reads are not decoded: their number is not known."""
    found = failure(
        HEAD + "for_each: for\npoints: {measurement: {const: a}, fields: [v], timestamp: {spread: offset}}", payload
    )

    assert (found.code, found.reason.endswith("found an object")) == ("IFX343", True)


@pytest.mark.parametrize("kind", ["integer", "unsigned"])
@pytest.mark.parametrize("cast", [False, True])
def test_the_hint_for_a_fraction_is_not_one_that_fails_again(kind: str, cast: bool) -> None:
    """`cast: true` accepts 3.0, and not 3.7."""
    fields = f"{{while: {{expr: n, type: {kind}, cast: {str(cast).lower()}}}}}"

    assert "cast" not in (failure(document(fields), {"n": 3.7}).hint or "")
    assert cast or "cast: true" in (failure(document(fields), {"n": 3.0}).hint or "")


@pytest.mark.parametrize("constant", ["5", "1.5", "true"])
def test_the_hint_for_a_constant_measurement_is_accepted(constant: str) -> None:
    """A measurement is a string, so the hint quotes the constant."""
    with pytest.raises(MappingError) as caught:
        parse_mapping(document("[v]").replace("{const: m}", constant))
    hint = caught.value.problems[0].hint or ""

    assert hint.startswith("write a constant as ")
    assert parse_mapping(document("[v]").replace("{const: m}", hint.removeprefix("write a constant as ")))


def test_a_record_stops_at_its_first_failure() -> None:
    """Rule 20.  Measurement, tags, fields, time; tags and fields in the order of their keys."""
    text = (
        HEAD + "points: {measurement: m, tags: {t: t}, fields: {b: b, a: a}, timestamp: {expr: ts, format: unix_s}}\n"
    )
    bad = {"m": 1, "t": {}, "a": "x", "b": "x", "ts": "x"}
    good = {"m": "m", "t": "t", "b": 1, "a": 1, "ts": 1}

    found = []
    for key in bad:
        found += [each.location for each in render(text, bad).failures]
        bad[key] = good[key]

    assert found == [
        "/points/measurement",
        "/points/tags/t",
        "/points/fields/a",
        "/points/fields/b",
        "/points/timestamp",
    ]


def test_dead_letter_is_the_default_of_on_error() -> None:
    """Rule 21. test_runner and test_run check what each policy does to a run."""
    for policy in ("dead_letter", "fail", "skip"):
        writer = parse_mapping(document("{v: v}", top=f"on_error: {policy}")).writer
        assert writer is not None
        assert writer.on_error.value == policy
    default = parse_mapping(document("{v: v}")).writer
    assert default is not None
    assert default.on_error.value == "dead_letter"


@pytest.mark.parametrize(
    ("policy", "lines", "failed"),
    [("error", ["m a=1.0 0"], ["IFX351"]), ("merge", ["m a=2.0,b=3.0 0"], []), ("keep_last", ["m a=2.0,b=3.0 0"], [])],
)
def test_collisions_are_settled_within_one_message(policy: str, lines: list[str], failed: list[str]) -> None:
    """Rule 22."""
    text = document("[a, b]", top=f"for_each: xs\ncollisions: {policy}")
    payload = {"xs": [{"a": 1}, {"a": 2, "b": 3}]}
    rendered = render(text, payload)

    assert (list(rendered.lines), [each.code for each in rendered.failures]) == (lines, failed)
    across = render(text, {"xs": [{"a": 1}]}, {"xs": [{"a": 2}]})
    assert list(across.lines) == ["m a=1.0 0", "m a=2.0 0"]


def test_merge_keeps_the_fields_of_all_points_keep_last_of_the_last() -> None:
    """Rule 22."""
    payload = {"xs": [{"a": 1, "c": 4}, {"a": 2, "b": 3}]}

    merged = render(document("[a, b, c]", top="for_each: xs\ncollisions: merge"), payload)
    kept = render(document("[a, b, c]", top="for_each: xs\ncollisions: keep_last"), payload)
    assert [*merged.lines, *kept.lines] == ["m a=2.0,b=3.0,c=4.0 0", "m a=2.0,b=3.0 0"]


def test_dialect_and_precision_belong_to_the_plan() -> None:
    """Rule 23."""
    mapping = parse_mapping(document("{v: v}", rest="timestamp: {expr: ts, format: unix_ms}"))
    message = Message(b'{"v":1,"ts":1500}')

    actual = [
        list(mapping.plan(dialect="v2", precision=unit).render([message]).lines) for unit in ("ns", "us", "ms", "s")
    ]
    assert actual == [["m v=1.0 1500000000"], ["m v=1.0 1500000"], ["m v=1.0 1500"], ["m v=1.0 1"]]
    with pytest.raises(ValueError):
        mapping.plan(dialect="v9")


# --- payloads ---


def test_payloads_are_never_joined() -> None:
    """Rule 24.  These three, joined by commas in brackets, would decode into three clean records."""
    rendered = render(document("{a: a}"), b'{"a":1,"x":[{}', b"{}]}", b'{"a":8},{"a":9}')

    assert list(rendered.lines) == []
    assert [(each.index, each.code) for each in rendered.failures] == [(0, "IFX404"), (1, "IFX404"), (2, "IFX404")]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b'{"v":1,"x":"\xff"}', "IFX402"),
        (b'{"v":1,"x":' + b"[" * 200 + b"]" * 200 + b"}", "IFX403"),
        (b'{"v":NaN}', "IFX404"),
        (b'{"v":1', "IFX404"),
        (b"", "IFX404"),
        (b'{"v":1}x', "IFX404"),
        (b'\xef\xbb\xbf{"v":1}', "IFX404"),
        (b'{"v":1,}', "IFX404"),
        (b'{"v":01}', "IFX404"),
    ],
)
def test_bytes_are_checked_before_they_are_decoded(payload: bytes, code: str) -> None:
    """Rule 25."""
    assert failure(document("{v: v}"), payload).code == code


def test_a_value_that_is_not_read_is_checked_for_syntax_only() -> None:
    """Rule 25."""
    text = document("{v: v}")

    assert fields(text, b'{"v":1,"x":1e400,"y":{"z":1,"z":2}}') == "v=1.0"
    assert failure(text, b'{"v":1e400}').code == "IFX406"
    assert failure(text, b'{"v":1,"x":tru}').code == "IFX404"
    brackets = json.dumps("[" * 300)
    assert fields(text, f'{{"v":1,"x":{brackets}}}'.encode()) == "v=1.0"


def test_of_duplicate_keys_the_last_wins() -> None:
    """Rule 26."""
    text = document("{v: a.v}")
    strict = text.replace("topic: t", "topic: t, strict: true")

    assert fields(text, b'{"a":{"v":1,"v":2}}') == fields(text, b'{"a":{"v":"x"},"a":{"v":2}}') == "v=2.0"
    assert fields(text, b'{"a":{"v":1,"\\u0076":2}}') == "v=2.0"
    assert failure(text, b'{"a":{"v":1},"a":{}}').code == "IFX346"
    assert fields(strict, b'{"a":{"v":1},"b":":::"}') == "v=1.0"
    for payload in (b'{"a":{"v":1},"b":1,"b":2}', b'{"a":{"v":1,"\\u0076":2}}', b'{"a":{"v":1},"b":[{"c":1,"c":1}]}'):
        assert failure(strict, payload).code == "IFX405"


def test_each_format_gives_rows_or_strings() -> None:
    """Rule 27."""
    one = "{v: {expr: v, cast: true}}"
    rows = document(one, top="for_each: '@'", tags="{d: d}", head=with_payload("csv"))
    assert list(render(rows, b"d,v\na,1\nb,2\n").lines) == ["m,d=a v=1.0 0", "m,d=b v=2.0 0"]
    text = document(one, head=with_payload("{format: text, pattern: 'v=(?P<v>[0-9.]+)'}"))
    assert fields(text, b"x v=7.5") == "v=7.5"
    whole = document('{a: {expr: "@", type: string}}', head=with_payload("text"))
    assert fields(whole, "grüß".encode()) == 'a="grüß"'
    raw = document('{a: {expr: "@", type: string}}', head=with_payload("raw"))
    assert fields(raw, b"\x00\xff") == f'a="{base64.b64encode(bytes([0, 255])).decode()}"'
    influx = document(
        '{"*": fields}', top="for_each: '@'", tags='{"*": tags}', head=with_payload("influx"),
        rest="timestamp: {expr: time, format: unix_ns}",
    )  # fmt: skip
    assert list(render(influx, b'x,a=b v=1i,s="t" 5\ny v=2 6').lines) == ['m,a=b s="t",v=1.0 5', "m v=2.0 6"]


@pytest.mark.parametrize("plan", ["compiled", "reference"])
def test_a_decimal_comma_is_read_where_a_field_casts(plan: str) -> None:
    """Rule 27.  Texts keep theirs; a point is then no part of a number, so that 1.234 is not taken for 1,234."""
    text = document(
        "{v: {expr: v, cast: true}, n: {expr: n, type: integer, cast: true},"
        " a: {expr: a, type: auto, cast: true}, t: {expr: t, type: string}}",
        top="for_each: '@'",
        tags="{t: t}",
        head=with_payload("{format: csv, delimiter: ;, decimal: ','}"),
    ).replace("t: {expr: t, type: string}", "s: {expr: t, type: string}")
    rendered = parse_mapping(text).plan(kind=plan).render  # type: ignore[arg-type]
    found = rendered([Message(b"v;n;a;t\n1,5;7,0;2,5;3,5\n-1,5e1;7;1.5;1.5\n")])
    assert list(found.lines) == ['m,t=3\\,5 a=2.5,n=7i,s="3,5",v=1.5 0', 'm,t=1.5 a="1.5",n=7i,s="1.5",v=-15.0 0']
    for value in (b"1.234", b"1.234,5", b"1,234,5", b"1,"):
        failed = rendered([Message(b"v;n;a;t\n" + value + b";7;1;x\n")]).failures[0]
        assert (failed.code, "with a decimal comma" in failed.reason) == ("IFX340", True)


@pytest.mark.parametrize("plan", ["compiled", "reference"])
@pytest.mark.parametrize("star", [False, True])
def test_a_decimal_comma_that_is_not_declared_is_hinted_at(plan: str, star: bool) -> None:
    """Rule 27.  The hint works; `1,234` may be a thousand, and a text has any comma."""

    def found(cell: bytes, options: str = "", cast: str = "cast: true") -> Any:
        fields = f'{{"*": {{expr: "@", type: float, {cast}}}}}' if star else f"{{v: {{expr: v, type: float, {cast}}}}}"
        text = document(fields, top="for_each: '@'", head=with_payload(f"{{format: csv, delimiter: ;{options}}}"))
        return parse_mapping(text).plan(kind=plan).render([Message(b"v\n" + cell + b"\n")])  # type: ignore[arg-type]

    for cell in (b"4,25", b"-0,5", b"1234,567"):
        hint = found(cell).failures[0].hint
        assert hint == "set `decimal: ','` of the payload"
        assert found(cell, cast="cast: false").failures[0].hint == f"{hint}, and add `cast: true`"
        assert list(found(cell, ", decimal: ','").failures) == []
    for cell in (b"1,234", b"1,2,3", b"04,25", b"peat, wet"):
        assert "decimal" not in (found(cell).failures[0].hint or "")


def test_rows_without_for_each_are_a_warning() -> None:
    """Rule 27.  Without `for_each` an expression gets the list, in which a member is always null."""
    for payload in ("csv", "{format: csv, header: [v]}", "influx"):
        text = document("{v: v}", head=with_payload(payload))
        assert [warning.code for warning in parse_mapping(text).warnings] == ["IFX153"]
        assert parse_mapping(text.replace("points:", "for_each: '@'\npoints:")).warnings == ()
        assert (
            parse_mapping(text.replace("{v: v}", "{v: 'length(@)'}").replace("expr: ts", "expr: '[0].t'")).warnings
            == ()
        )
    assert "`for_each: " in (failure(text, b"x v=1 5").hint or "")


def test_binary_formats_accept_only_values_of_json() -> None:
    """Rule 27."""
    for name, encode in (("msgpack", msgspec.msgpack.encode), ("cbor", cbor2.dumps)):
        text = document("{v: v}", head=with_payload(name))
        assert fields(text, encode({"v": 1.5})) == "v=1.5"
        assert failure(text, encode({"v": 1, 7.5: 2})).code == "IFX407"
        assert failure(text, encode({"v": float("nan")})).code == "IFX406"
        assert failure(text, encode({"v": 1})[:-1]).code == "IFX404"
    extension = b"\x82\xa1v\x01\xa1x\xd4\x05\x00"
    assert failure(document("{v: v, x: x}", head=with_payload("msgpack")), extension).code == "IFX408"
    assert struct.pack(">B", 0xD4) == b"\xd4"


def test_samples_are_payloads_unless_envelope_is_given() -> None:
    """Rule 28.  An object with the keys of an envelope is an ordinary payload."""
    place = Coordinates("factory", "readings")
    [sample] = read_samples([b'{"payload":{"a":1},"offset":7}\n'], place)
    [whole] = read_samples([b'{"payload":{"a":1},"offset":7}\n'], place, envelope=True)

    assert (sample.message.payload, sample.message.offset) == (b'{"payload":{"a":1},"offset":7}', 0)
    assert (json.loads(whole.message.payload), whole.message.offset) == ({"a": 1}, 7)
    assert (sample.message.stream, sample.message.partition, sample.message.timestamp_us) == (
        "factory",
        0,
        946_684_800_000_000,
    )
    with pytest.raises(SampleError):
        list(read_samples([b"\x00\n"], place, form="msgpack"))


def test_an_example_has_a_message_and_its_result() -> None:
    """Rule 28."""
    examples = """
examples:
- {message: {v: 1}, points: ["m v=1.0 946684800000000000"]}
- {message_json: '{"v":', fails: IFX404}
- {message: {v: 0}, meta: {offset: 3, timestamp: 5}, headers: {k: x}, points: ["m,k=x v=0.0 5000"]}
- {message: {}, skipped: true}
"""
    mapping = parse_mapping(document("{v: v}", tags="{k: \"header('k')\"}", top="where: 'v != `null`'") + examples)

    for kind in ("compiled", "reference"):
        assert [list(result.differences) for result in run_examples(mapping, kind)] == [[], [], [], []]


def test_a_message_in_quotes_is_a_string_and_a_warning() -> None:
    """Rule 28."""
    quoted = document("{v: v}") + "examples: [{message: '{\"v\": 1}', fails: IFX346}]\n"

    assert [warning.code for warning in parse_mapping(quoted).warnings] == ["IFX154"]
    assert [list(result.differences) for result in run_examples(parse_mapping(quoted), "compiled")] == [[]]
    assert (
        parse_mapping(quoted.replace("message:", "message_json:").replace("fails: IFX346", "points: []")).warnings == ()
    )


# --- readers ---

READER = """\
iggyflux: 1
kind: reader
name: history
from: {measurement: env}
cursor: {start: 2026-01-01T00:00:00Z}
messages:
  payload: "{d: device, at: time, n: n, m: meta('measurement'), w: meta('window').start}"
  key: device
  timestamp: time
  headers: {n: n}
to: {stream: s, topic: t}
"""


def test_a_row_has_typed_columns_and_a_time_in_nanoseconds() -> None:
    """Rule 29."""
    rendered = parse_mapping(READER).plan().render([Row({"time": 5, "device": "d1", "n": 2**60}, "env", (0, 9))])

    [message] = rendered.messages
    assert json.loads(message.payload) == {"d": "d1", "at": 5, "n": 2**60, "m": "env", "w": 0}
    assert (message.key, message.timestamp_ns, dict(message.headers)) == ("d1", 5, {"n": 2**60})
    assert codes(READER.replace("meta('measurement')", "meta('topic')")) == ["IFX207"]


def test_docs_have_the_promise_of_a_reader_word_for_word() -> None:
    """Rule 30."""
    pages = "".join(path.read_text() for path in Path(__file__).parent.parent.joinpath("docs").glob("*.md"))

    assert "every final value is published" in " ".join(pages.lower().split())
    assert "within `overlap` of their time" in " ".join(pages.split())


# --- plans and their results ---


@given(
    st.lists(
        st.sampled_from(['{"v":1}', '{"v":"x"}', '{"v":', "{}", '{"v":9007199254740993}', '{"v":1,"v":2}']), max_size=6
    )
)
def test_both_plans_agree_in_lines_origins_reasons_and_order(payloads: list[str]) -> None:
    """Rule 31. test_law checks it for every document."""
    rendered = render(document("{v: v}"), *(payload.encode() for payload in payloads))

    assert all(each.reason and each.location.startswith("/") for each in rendered.failures)
    assert list(rendered.origins) == sorted(rendered.origins)


def test_results_name_the_message_of_every_line_failure_and_skip() -> None:
    """Rule 32."""
    rendered = render(document("{v: v}", top="where: 'v != `0`'"), {"v": 0}, {"v": 1}, {"v": "x"}, {"v": 2})

    assert (list(rendered.lines), list(rendered.origins)) == (["m v=1.0 0", "m v=2.0 0"], [1, 3])
    assert list(rendered.skipped) == [0]
    [found] = rendered.failures
    assert (found.index, found.element, found.point, found.code, found.location) == (
        2,
        None,
        0,
        "IFX340",
        "/points/fields/v",
    )
    made = parse_mapping(READER).plan().render([Row({"time": 5, "n": 1}), Row({"time": "x", "n": [1]})])
    assert (len(made.messages), list(made.origins), [each.index for each in made.failures]) == (1, [0], [1])


def test_a_mapping_pickles_as_its_document() -> None:
    """Rule 33."""
    mapping = parse_mapping(document("{v: v}"))
    again = pickle.loads(pickle.dumps(mapping))

    assert (again.name, again.hash) == (mapping.name, mapping.hash)
    assert list(again.plan().render([Message(b'{"v":1}')]).lines) == ["m v=1.0 0"]


def test_every_problem_of_a_document_is_reported_at_once() -> None:
    """Rule 33."""
    text = document("{v: 'lenght(v)', w: 7}", top="where: 'a =='\ncolisions: merge")

    assert sorted(codes(text)) == ["IFX110", "IFX115", "IFX200", "IFX203"]


def test_lines_parse_to_points_that_encode_to_themselves() -> None:
    """Rule 33."""
    [point] = parse_lines(b'm,b=1,a=x\\ y f=1,i=1i,u=1u,s="a\\"b",t=T 5')

    assert point == Point("m", {"a": "x y", "b": "1"}, {"f": 1.0, "i": 1, "u": Unsigned(1), "s": 'a"b', "t": True}, 5)
    assert parse_lines(point.encode()) == [point]
    assert parse_lines(point.encode())[0].encode() == point.encode()
    assert Point("m", {}, {"f": 1}, 0) != Point("m", {}, {"f": 1.0}, 0)
    assert Point("m", {}, {"f": 1}, 0) != Point("m", {}, {"f": Unsigned(1)}, 0)
    assert Point("m", {}, {"f": 0.0}, 0) != Point("m", {}, {"f": -0.0}, 0)
    with pytest.raises(LineProtocolError) as caught:
        parse_lines("m v=1 5\nm v=x 5")
    assert (caught.value.line, caught.value.column) == (2, 5)
    with pytest.raises(PointError):
        Point("m", {}, {}, 0)


# --- the scenarios of the first request ---


def scenario(measurement: str, **options: str) -> str:
    rest = "".join(f"  {key}: {value}\n" for key, value in options.items())
    return HEAD + f"points:\n  measurement: {measurement}\n{rest}"


def test_given_json_message_with_all_fields_should_build_correct_line_protocol() -> None:
    text = scenario(
        "{const: env}",
        tags="{device: device, site: site}",
        fields="{celsius: celsius, count: {expr: count, type: integer}, total: {expr: total, type: unsigned}, "
        "state: {expr: state, type: string}, ok: {expr: ok, type: boolean}}",
        timestamp="{expr: ts, format: unix_ms}",
    )
    message = {
        "device": "d1",
        "site": "b1",
        "celsius": 21.5,
        "count": -3,
        "total": 2**64 - 1,
        "state": "on",
        "ok": True,
    }

    assert line(text, {**message, "ts": 1700000000000}) == (
        'env,device=d1,site=b1 celsius=21.5,count=-3i,ok=true,state="on",'
        "total=18446744073709551615u 1700000000000000000"
    )


def test_given_message_with_special_chars_should_escape_tags_and_fields() -> None:
    text = scenario("m", tags="{'a b': t}", fields="{'x,y=z': {expr: f, type: string}}", timestamp="{spread: offset}")
    message = {"m": "m 1,2", "t": "a=b, c", "f": 'say "hi" \\ bye'}
    written = line(text, message)

    assert written == 'm\\ 1\\,2,a\\ b=a\\=b\\,\\ c x\\,y\\=z="say \\"hi\\" \\\\ bye" 0'
    assert parse_lines(written) == [Point("m 1,2", {"a b": "a=b, c"}, {"x,y=z": message["f"]}, 0)]


def test_given_measurement_from_topic_should_use_topic_name() -> None:
    assert line(scenario("\"meta('topic')\"", fields="[v]"), {"v": 1}) == "t v=1.0 0"


def test_given_measurement_from_field_should_extract_field_value() -> None:
    assert line(scenario("kind.name", fields="[v]"), {"v": 1, "kind": {"name": "pump"}}) == "pump v=1.0 0"


def test_given_static_measurement_should_use_config_name() -> None:
    assert line(scenario("{const: pump}", fields="[v]"), {"v": 1}) == "pump v=1.0 0"


def test_given_timestamp_as_epoch_ms_should_convert_to_precision() -> None:
    text = scenario("{const: m}", fields="[v]", timestamp="{expr: ts, format: unix_ms}")

    actual = [line(text, {"v": 1, "ts": 1700000000123}, precision=unit).split()[-1] for unit in ("ns", "us", "ms", "s")]
    assert actual == ["1700000000123000000", "1700000000123000", "1700000000123", "1700000000"]


def test_given_timestamp_as_rfc3339_should_parse_correctly() -> None:
    text = scenario("{const: m}", fields="[v]", timestamp="{expr: ts, format: rfc3339}")

    assert line(text, {"v": 1, "ts": "2023-11-14T23:13:20.000000001+01:00"}) == "m v=1.0 1700000000000000001"


def test_given_missing_fields_should_return_error() -> None:
    assert failure(scenario("{const: m}", fields="[v, w]"), {"x": 1}).code == "IFX346"
    required = scenario("{const: m}", fields="{v: {expr: v, required: true}, w: w}")
    assert failure(required, {"w": 1}).code == "IFX345"


def test_given_tag_fields_config_should_extract_only_configured_tags() -> None:
    text = scenario("{const: m}", tags="[device, site]")

    assert line(text, {"device": "d1", "site": "b", "room": "7", "v": 1}) == 'm,device=d1,site=b room="7",v=1.0 0'
