"""Payloads in line protocol as they are found: line ends of Windows, byte order marks, and lines that are not valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux import MappingError, Message, Point, Unsigned, parse_mapping
from iggyflux.plan.compiled import CompiledPlan

DOCUMENT = """
iggyflux: 1
kind: writer
name: n
from: {stream: s, topic: t, payload: influx}
for_each: "@"
WHERE
points:
  measurement: "measurement"
  tags: {"*": tags}
  fields: {"*": fields}
  timestamp: {expr: "time", format: unix_ns}
"""
GOOD = {
    "lambda f=1.0 5": "lambda f=1.0 5",
    'm,def=\\"x f="a\nb" 6': 'm,def=\\"x f="a\nb" 6',
    "über,x\\ y=z f=2.5,g=t 7": "über,x\\ y=z f=2.5,g=true 7",
    "\ufeffm f=1 9": "m f=1.0 9",
    'm f="# not a comment" 8': 'm f="# not a comment" 8',
}
BAD = ["m f=NaN 6", "m f=1 x", "m", "m f=", 'm f="a"b 1', "m,=x f=1", "m f=1\r1 5", 'm f="a\nb"c', "="]
BETWEEN = ["", " ", "# comment", "\ufeff", "\ufeff# comment", "# it's \"quoted"]


def render(payload: bytes, plan: Any = "compiled", where: str = "") -> Any:
    return parse_mapping(DOCUMENT.replace("WHERE", where)).plan(plan).render([Message(payload)])


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.one_of(st.sampled_from(list(GOOD)), st.sampled_from(BAD), st.sampled_from(BETWEEN)), max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    first=st.sampled_from(["", "\ufeff"]),
    last=st.booleans(),
)
def test_each_line_stands_for_itself(lines: list[str], end: str, first: str, last: bool) -> None:
    """Valid lines are written, in order; each other line is a failure of its own, with its number."""
    payload = (first + end.join(lines) + end * last).encode()
    good = [GOOD[line] for line in lines if line in GOOD]
    bad = [line for line in lines if line in BAD]
    for plan in ("compiled", "reference"):
        rendered = render(payload, plan)

        assert list(rendered.lines) == good or len(set(good)) < len(good)
        collisions = [failure for failure in rendered.failures if failure.code == "IFX351"]
        assert len(rendered.failures) - len(collisions) == len(bad)
        assert {failure.code for failure in rendered.failures} <= {"IFX404", "IFX351"}
        assert list(rendered.empty) == ([] if good or bad else [0])


def test_a_bad_line_is_named_by_its_number() -> None:
    rendered = render(b"\xef\xbb\xbfm f=1 5\r\nm f=NaN 6\r\n\r\nm f=3 7\r\nm g=\r\n")

    assert list(rendered.lines) == ["m f=1.0 5", "m f=3.0 7"]
    assert [failure.location for failure in rendered.failures] == ["/from/payload"] * 2
    assert ["line 2" in rendered.failures[0].reason, "line 5" in rendered.failures[1].reason] == [True, True]


@pytest.mark.parametrize("plan", ["compiled", "reference"])
def test_a_bad_line_is_a_failure_also_where_nothing_else_is_written(plan: str) -> None:
    """A message with a failure is neither skipped nor empty."""
    for where in ("", "where: '`false`'"):
        rendered = render(b"m f=NaN 6\nm f=1 5" if where else b"m f=NaN 6", plan, where)

        assert (list(rendered.lines), list(rendered.skipped), list(rendered.empty)) == ([], [], [])
        assert [failure.code for failure in rendered.failures] == ["IFX404"]


@pytest.mark.parametrize("plan", ["compiled", "reference"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (('for_each: "@"', 'for_each: "[0].fields"'), "IFX343"),
        (('for_each: "@"', 'for_each: "keys(@)"'), "IFX300"),
        (("WHERE", "where: length([0].nothing)"), "IFX300"),
    ],
)
def test_a_bad_line_is_a_failure_also_where_the_whole_message_fails(
    change: tuple[str, str], code: str, plan: str
) -> None:
    document = DOCUMENT.replace(*change).replace("WHERE", "")
    rendered = parse_mapping(document).plan(plan).render([Message(b"m f=NaN 6\nm f=1 5")])

    assert [failure.code for failure in rendered.failures] == ["IFX404", code]


def test_bytes_that_are_not_utf_8_fail_the_message() -> None:
    assert [failure.code for failure in render(b"m f=1 5\n\xff f=1").failures] == ["IFX402"]


@pytest.mark.parametrize("plan", ["compiled", "reference"])
def test_many_bad_lines_are_all_counted_and_cost_no_other_line(plan: str) -> None:
    """Only the first reasons are kept one by one; the message becomes one dead letter, whole."""
    lines = [f"yield f={'NaN' if number % 3 == 0 else number} {number}" for number in range(3000)]
    rendered = render("\n".join(lines).encode(), plan)

    assert list(rendered.lines) == [f"yield f={number}.0 {number}" for number in range(3000) if number % 3]
    assert sum(failure.count for failure in rendered.failures) == 1000
    assert len(rendered.failures) == 101
    assert {failure.index for failure in rendered.failures} == {0}


MIRROR = """iggyflux: 1
kind: writer
from: {stream: s, topic: t, payload: influx}
for_each: '@'
points:
  measurement: measurement
  tags: {"*": tags}
  fields: {"*": {expr: fields, type: payload}}
  timestamp: {expr: time, format: unix_ns}
"""


@pytest.mark.parametrize("kind", ["compiled", "reference"])
@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.integers(-(2**63), 2**63 - 1)
        | st.integers(0, 2**64 - 1).map(Unsigned)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.booleans()
        | st.sampled_from(["", "7u", '"x"']),
        min_size=1,
    )
)
def test_values_keep_the_types_of_the_payload(kind: Literal["compiled", "reference"], fields: dict[str, Any]) -> None:
    """Rule 11."""
    line = Point("m", {"t": "x"}, fields, 7).encode()

    assert parse_mapping(MIRROR).plan(kind=kind).render([Message(line.encode())]).lines == [line]


@pytest.mark.parametrize("kind", ["compiled", "reference"])
def test_an_unsigned_integer_is_a_number_everywhere_else(kind: Literal["compiled", "reference"]) -> None:
    text = MIRROR.replace("tags: {", "where: 'fields.n'\n  tags: {n: fields.n, ").replace(
        'fields: {"*"',
        "fields: {i: {expr: fields.n, type: integer}, x: 'add(fields.n, `1`)', f: fields.n,"
        " s: {expr: fields.n, type: string, cast: true}, k: {expr: fields.n, type: payload},"
        " j: {expr: 'to_string(fields)', type: string}, \"*\"",
    )
    rendered = parse_mapping(text).plan(kind=kind).render([Message(b"m n=0u,w=2u 5\nm n=7i,w=2i 6")])

    assert list(rendered.lines) == [
        r'm,n=0 f=0.0,i=0i,j="{\"n\":0,\"w\":2}",k=0u,s="0",w=2u,x=1.0 5',
        r'm,n=7 f=7.0,i=7i,j="{\"n\":7,\"w\":2}",k=7i,s="7",w=2i,x=8.0 6',
    ]


def test_a_value_that_keeps_its_type_is_not_cast() -> None:
    with pytest.raises(MappingError) as refused:
        parse_mapping(MIRROR.replace("payload}", "payload, cast: true}"))
    assert [(each.code, each.location.pointer) for each in refused.value.problems] == [
        ("IFX181", "/points/fields/*/cast")
    ]


@pytest.mark.parametrize("kind", ["compiled", "reference"])
@pytest.mark.parametrize("lists", ["'@[]'", "'@[?fields.n > `0` && time]'", "['@[0:]', '[@]']"])
def test_an_expression_that_calls_no_function_keeps_unsigned_integers(
    kind: Literal["compiled", "reference"], lists: str
) -> None:
    """A function gives a plain integer."""
    text = MIRROR.replace("for_each: '@'", f"for_each: {lists}").replace(
        'fields: {"*"',
        "fields: {a: {expr: 'fields.no || fields.n', type: payload}, b: {expr: '[fields.n][0]', type: payload},"
        " c: {expr: 'not_null(fields.n)', type: payload}, \"*\"",
    )
    rendered = parse_mapping(text).plan(kind=kind).render([Message(b"m n=3u,w=18446744073709551615u 5")])

    assert list(rendered.lines) == ["m a=3u,b=3u,c=3i,w=18446744073709551615u 5"]


@pytest.mark.parametrize("kind", ["compiled", "reference"])
@pytest.mark.parametrize("of", ["string", "boolean"])
def test_an_unsigned_integer_of_another_type_fails_as_one_message(
    kind: Literal["compiled", "reference"], of: str
) -> None:
    fields = f'fields: {{k: {{expr: fields.k, type: payload}}, "*": {{expr: fields, type: {of}}}}}'
    text = MIRROR.replace('fields: {"*": {expr: fields, type: payload}}', fields)
    (failure,) = parse_mapping(text).plan(kind=kind).render([Message(b"m k=1i,n=3u 5")]).failures

    assert failure.code == "IFX340"
    assert "found number 3" in failure.reason


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ('{"*": {expr: fields, type: payload}}', "m n=3u,w=5u 7"),
        (
            "{n: {expr: fields.n, type: payload}, x: 'add(fields.n, `1`)', i: {expr: fields.w, type: integer}}",
            "m i=5i,n=3u,x=4.0 7",
        ),
        (
            "{n: {expr: '[fields][0].n', type: payload}, s: {expr: 'to_string(fields)', type: string}}",
            r'm n=3u,s="{\"n\":3,\"w\":5}" 7',
        ),
        (
            "{n: {expr: fields.n, type: payload, default: 2}, a: {expr: fields.a, type: payload, default: 2}}",
            "m a=2i,n=3u 7",
        ),
    ],
)
def test_generated_code_renders_unsigned_integers(fields: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference plan takes twenty times as long."""
    plan = parse_mapping(MIRROR.replace('fields: {"*": {expr: fields, type: payload}}', f"fields: {fields}")).plan()
    assert isinstance(plan, CompiledPlan)
    assert not plan.refuses_unsigned
    monkeypatch.setattr(plan.reference, "render_message", lambda *_: pytest.fail("the reference plan is asked"))

    assert plan.render([Message(b"m n=3u,w=5u 7")] * 2).lines == [line] * 2


def test_generated_code_takes_an_unsigned_integer_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = parse_mapping(MIRROR.replace("expr: time, format: unix_ns", "expr: fields.at, format: unix_ms")).plan()
    assert isinstance(plan, CompiledPlan)
    monkeypatch.setattr(plan.reference, "render_message", lambda *_: pytest.fail("the reference plan is asked"))

    assert plan.render([Message(b"m n=3u,at=5u")] * 2).lines == ["m n=3u 5000000"] * 2
    assert plan.render([Message(b"m n=3u,at=5u\nm n=3i,at=6i")]).lines == ["m n=3u 5000000", "m n=3i 6000000"]


def test_what_only_the_reference_plan_does_with_unsigned_integers_is_named(tmp_path: Path) -> None:
    text = MIRROR.replace("fields: {", "fields: {x: 'sum(root()[*].fields.n)', ")
    plan = parse_mapping(text).plan()
    assert isinstance(plan, CompiledPlan)
    (tmp_path / "mirror.yaml").write_text(text)

    assert plan.render([Message(b"m n=3u 7")]).lines == ["m n=3u,x=3.0 7"]
    assert "all of a message with an unsigned integer" in iggyflux("explain", tmp_path / "mirror.yaml").out
    assert "unsigned" not in iggyflux("explain", tmp_path / "mirror.yaml", "--dialect", "v1").out
