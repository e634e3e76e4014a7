"""The plan of a reader: rows to messages, the same every time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.mapping import parse_mapping
from iggyflux.records import RenderedMessages, Row

HEAD = "iggyflux: 1\nkind: reader\nfrom: {measurement: env}\nto: {stream: s, topic: t}\n"


def render(
    messages: str, *rows: dict[str, object], measurement: str = "env", window: tuple[int, int] | None = None
) -> RenderedMessages:
    plan = parse_mapping(f"{HEAD}messages: {messages}\n", name="history").plan()
    return plan.render([Row(columns, measurement, window) for columns in rows])  # type: ignore[arg-type, return-value]


def payloads(rendered: RenderedMessages) -> list[object]:
    return [json.loads(message.payload) for message in rendered.messages]


def test_rule_29_the_row_is_columns_with_typed_values() -> None:
    """`@` is the row; `meta` knows measurement and window."""
    rendered = render(
        "{payload: \"{t: time, c: celsius, m: meta('measurement'), w: meta('window')}\"}",
        {"time": 7, "celsius": 21.5},
        window=(0, 10),
    )

    assert payloads(rendered) == [{"t": 7, "c": 21.5, "m": "env", "w": {"start": 0, "stop": 10}}]
    assert list(rendered.origins) == [0]


def test_without_messages_the_whole_row_is_sent() -> None:
    """The smallest reader."""
    plan = parse_mapping(HEAD, name="history").plan()

    rendered = plan.render([Row({"time": 1, "a": 2})])  # type: ignore[list-item]

    assert [json.loads(message.payload) for message in rendered.messages] == [{"time": 1, "a": 2}]  # type: ignore[attr-defined]


def test_key_headers_and_timestamp_are_taken_from_the_row() -> None:
    """Nulls are left out."""
    rendered = render(
        "{payload: a, key: d, headers: {h: h, k: {const: 1}}, timestamp: time}",
        {"time": 5, "a": 1, "d": 7, "h": None},
        {"time": 6, "a": 1, "h": True},
    )

    first, second = rendered.messages
    assert (first.key, dict(first.headers), first.timestamp_ns) == ("7", {"k": 1}, 5)
    assert (second.key, dict(second.headers), second.timestamp_ns) == (None, {"h": True, "k": 1}, 6)


@pytest.mark.parametrize(
    ("messages", "row", "code", "pointer"),
    [
        ("{payload: a, key: d}", {"d": [1]}, "IFX340", "/messages/key"),
        ("{payload: a, headers: {h: h}}", {"h": {"x": 1}}, "IFX340", "/messages/headers/h"),
        ("{payload: a, timestamp: time}", {"time": "now"}, "IFX340", "/messages/timestamp"),
        ("{payload: 'add(a, b)'}", {"a": 1, "b": "x"}, "IFX300", "/messages/payload"),
    ],
)
def test_a_row_that_fails_says_where(messages: str, row: dict[str, object], code: str, pointer: str) -> None:
    """Its siblings are sent."""
    rendered = render(messages, row, {"a": 1, "b": 2})

    assert [(failure.index, failure.code, failure.location) for failure in rendered.failures] == [(0, code, pointer)]
    assert list(rendered.origins) == [1]


def test_several_messages_a_row_stand_in_the_order_of_rows() -> None:
    """First every message of the first row."""
    rendered = render("[{payload: a}, {payload: b}]", {"a": 1, "b": 2}, {"a": 3, "b": 4})

    assert payloads(rendered) == [1, 2, 3, 4]
    assert list(rendered.origins) == [0, 0, 1, 1]


def test_a_message_of_a_series_holds_its_rows() -> None:
    """`@` is the list of them; the origin is the first."""
    rows: tuple[dict[str, object], ...] = ({"d": "x", "a": 1}, {"d": "y", "a": 2}, {"d": "x", "a": 3})

    assert payloads(render("{payload: '[].a', for_each: series}", *rows)) == [[1, 3], [2]]
    assert payloads(render("{payload: '[].a', for_each: window}", *rows)) == [[1, 2, 3]]


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5))
def test_the_same_row_has_the_same_id(time: int, value: float, name: str) -> None:
    """What is read again can be told from what is new; the order of columns does not matter."""
    first = render("{payload: a}", {"time": time, "a": value, "d": name}).messages[0]
    again = render("{payload: a}", {"d": name, "a": value, "time": time}).messages[0]
    other = render("{payload: a}", {"time": time + 1, "a": value, "d": name}).messages[0]

    assert first.id == again.id
    assert first.id != other.id
    assert 0 <= first.id < 2**128
