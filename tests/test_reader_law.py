"""The law for readers: the compiled plan equals the reference plan, in messages, ids, origins, failures and order."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from iggyflux import MappingError, parse_mapping
from iggyflux.plan import digest_rows
from iggyflux.plan.reader import ReferenceReaderPlan
from iggyflux.records import RenderedMessages, Row

NAMES = ["a", "b", "c", "time", "über", "a b"]
PLAIN = ["@", "a", "b", "time", "nothing", "{x: a, y: b}", "[a, b]"]
EXPRESSIONS = [
    "c", "a.b", '"a b"', "root()", "root().a", "@.a", "add(a, `1`)", "upper(b)", "a || b", "not_null(a, c)", "index()",
    "meta('measurement')", "meta('window')", "header('k')", "`null`", "`5`", "'x'", "''", "[]", "[].a", "keys(@)",
    "{x: a, y: {z: b, a: @}}", "{a: a, l: [b, `null`, 'x']}", "join('', [b, b, b])", "[?a].b", "type(a)", "items(@)",
    "{w: meta('window'), x: divide(a, c)}", "multiply(a, a)", "length(b)", "`[1, null]`", "`[]`", "values(@)",
]  # fmt: skip
CONSTANTS: list[Any] = [True, False, 0, -1, 2**63, 2**64, -0.0, 1e300, "", "x", "x" * 256, "ü" * 100, "ü" * 200, "lf\n"]
SCALARS: list[Any] = [
    *CONSTANTS, None, 2**53 + 1, -(2**63), 5e-324, "null", 'say "hi"', "\x00", "x" * 255, math.nan, math.nan, math.inf,
    "\ud800", [1], {"b": None}, {"b": math.nan},
]  # fmt: skip


@st.composite
def readers(draw: Any) -> dict[str, Any]:
    """Return a reader document as a tree; not every one compiles."""
    source = st.sampled_from(PLAIN) | st.sampled_from(PLAIN) | st.sampled_from(EXPRESSIONS)
    any_source = source | st.fixed_dictionaries({"const": st.sampled_from(CONSTANTS)})
    template = st.dictionaries(st.sampled_from(["x", "y", "{}", "a'b"]), any_source, max_size=3)
    item = st.fixed_dictionaries(
        {"payload": source | template},
        optional={
            "key": any_source,
            "headers": st.dictionaries(st.sampled_from(["k", "a b", "~/"]), any_source, max_size=2),
            "timestamp": source,
            "for_each": st.sampled_from(["row", "row", "row", "row", "series", "window"]),
        },
    )
    return {
        "iggyflux": 1,
        "kind": "reader",
        "name": "law",
        "from": {"measurement": "m", **draw(st.sampled_from([{}, {"tags": ["b"]}]))},
        "messages": draw(st.lists(item, min_size=1, max_size=2)),
        "to": {
            "stream": "s",
            "topic": "t",
            "payload": draw(st.sampled_from([*["json"] * 5, "msgpack", "cbor", "csv", "influx", "influx"])),
        },
    }


USUAL = st.fixed_dictionaries(
    {"time": st.integers(0, 2**62)},
    optional={"a": st.sampled_from([1, 2.5, 7]), "b": st.sampled_from(["x", "d1"]), "c": st.sampled_from([1.5, 2])},
)
UNUSUAL = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(SCALARS), min_size=1)


@st.composite
def rows(draw: Any) -> list[Row]:
    """Return rows of which most are as the document expects."""
    tags = draw(st.sampled_from([None, (), ("b",), ("a", "b")]))
    made = draw(st.lists(st.one_of(USUAL, USUAL, USUAL, UNUSUAL, UNUSUAL.map(MappingProxyType)), max_size=6))
    windows = st.sampled_from([None, (0, 10)])
    return [Row(columns, draw(st.sampled_from(["m", "m", "n"])), draw(windows), tags) for columns in made]


def outcome(rendered: RenderedMessages) -> tuple[list[Any], ...]:
    return list(rendered.messages), list(rendered.origins), list(rendered.failures)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("examples", [200, pytest.param(100_000, marks=pytest.mark.long, id="long")])
def test_the_compiled_reader_equals_the_reference(examples: int) -> None:
    """For every document, and rows of every kind; also if the caller has the digests."""

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(readers(), rows(), st.sampled_from([1, 1, 40]))
    def law(document: dict[str, Any], batch: list[Row], times: int) -> None:
        try:
            mapping = parse_mapping(json.dumps(document), format="yaml")
        except MappingError:
            event("document refused")
            assume(False)
        compiled: Any = mapping.plan("compiled")
        reference: Any = mapping.plan("reference")
        assert type(reference) is ReferenceReaderPlan
        assert type(compiled) is not ReferenceReaderPlan
        batch = batch * times
        expected = outcome(reference.render(batch))
        event("compiled" if compiled.source else "not compiled")
        event("fails" if expected[2] else "all is well")

        assert outcome(compiled.render(batch)) == expected
        assert outcome(compiled.render(batch, digest_rows(batch))) == expected
        settled = {*expected[1], *(failure.index for failure in expected[2])}
        assert settled == set(range(len(batch))) or compiled.whole_windows

    law()


@pytest.mark.parametrize(
    ("payload", "form", "columns", "code"),
    [
        ("@", "json", {"a": math.nan}, "IFX420"),
        ("{x: a, y: b}", "json", {"a": -math.inf, "b": 1}, "IFX420"),
        ("[a]", "json", {"a": math.nan}, "IFX420"),
        ("{x: {y: a, z: b}}", "json", {"a": math.nan}, "IFX420"),
        ("@", "msgpack", {"a": 2**64}, "IFX420"),
        ("@", "json", {"a": "\ud800"}, "IFX420"),
        ("@", "msgpack", {"a": math.nan}, "IFX420"),
        ("@", "csv", {"a": [1]}, "IFX420"),
        ("`[]`", "csv", {"a": 1}, "IFX420"),
    ],
)
def test_a_value_that_a_format_cannot_hold_fails_with_its_row(
    payload: str, form: str, columns: dict[str, Any], code: str
) -> None:
    """Also if other rows have nulls, and in both plans."""
    document = {
        "iggyflux": 1, "kind": "reader", "from": {"measurement": "m"},
        "messages": {"payload": payload}, "to": {"stream": "s", "topic": "t", "payload": form},
    }  # fmt: skip
    mapping = parse_mapping(json.dumps(document), name="n")
    batch = [Row({"b": 1}), Row(columns), Row({"b": 2})]
    for kind in ("compiled", "reference"):
        plan: Any = mapping.plan(kind)  # type: ignore[arg-type]
        failures = plan.render(batch).failures

        assert (failures[1] if len(failures) == 3 else failures[0]).index == 1
        assert {(failure.code, failure.location) for failure in failures} == {(code, "/messages/payload")}


def test_a_failed_row_does_not_slow_down_the_others() -> None:
    """The reference plan renders only a few rows around it."""
    mapping = parse_mapping(
        "iggyflux: 1\nkind: reader\nfrom: {measurement: m}\nto: {stream: s, topic: t}\nmessages: {payload: 'abs(a)'}\n",
        name="n",
    )
    plan: Any = mapping.plan()
    batch = [Row({"a": -index}) for index in range(1000)]
    batch[500] = Row({"a": "x"})

    rendered = plan.render(batch)

    assert [failure.index for failure in rendered.failures] == [500]
    assert [int(message.payload) for message in rendered.messages] == [i for i in range(1000) if i != 500]
    assert list(rendered.origins) == [i for i in range(1000) if i != 500]
