"""The plan of a reader: rows to messages, the same every time."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.mapping import parse_mapping
from iggyflux.payloads import FORMATS
from iggyflux.plan.digests import digest_rows
from iggyflux.records import RenderedMessages, Row

HEAD = "iggyflux: 1\nkind: reader\nfrom: {measurement: env}\nto: {stream: s, topic: t}\n"

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=3)
cells = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=2), scalars, max_size=2)


def render(
    messages: str, *rows: dict[str, object], measurement: str = "env", window: tuple[int, int] | None = None
) -> RenderedMessages:
    plan = parse_mapping(f"{HEAD}messages: {messages}\n", name="history").plan()
    return plan.render([Row(columns, measurement, window) for columns in rows])  # type: ignore[arg-type, return-value]


def payloads(rendered: RenderedMessages) -> list[object]:
    return [json.loads(message.payload) for message in rendered.messages]


def test_a_row_is_an_object_of_typed_columns() -> None:
    """Rule 29.  `@` is the row; `meta` knows measurement and window."""
    rendered = render(
        "{payload: \"{t: time, c: celsius, m: meta('measurement'), w: meta('window')}\"}",
        {"time": 7, "celsius": 21.5},
        window=(0, 10),
    )

    assert payloads(rendered) == [{"t": 7, "c": 21.5, "m": "env", "w": {"start": 0, "stop": 10}}]
    assert list(rendered.origins) == [0]


def test_without_messages_the_whole_row_is_sent() -> None:
    """This is the smallest reader."""
    plan = parse_mapping(HEAD, name="history").plan()

    rendered = plan.render([Row({"time": 1, "a": 2})])

    assert [json.loads(message.payload) for message in rendered.messages] == [{"time": 1, "a": 2}]  # type: ignore[attr-defined]


def test_key_headers_and_timestamp_are_taken_from_the_row() -> None:
    """Nulls are omitted."""
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
def test_a_failed_row_has_the_place_of_its_failure(
    messages: str, row: dict[str, object], code: str, pointer: str
) -> None:
    """The other rows are sent."""
    rendered = render(messages, row, {"a": 1, "b": 2})

    assert [(failure.index, failure.code, failure.location) for failure in rendered.failures] == [(0, code, pointer)]
    assert list(rendered.origins) == [1]


def test_several_messages_per_row_are_in_the_order_of_rows() -> None:
    """All messages of the first row come first."""
    rendered = render("[{payload: a}, {payload: b}]", {"a": 1, "b": 2}, {"a": 3, "b": 4})

    assert payloads(rendered) == [1, 2, 3, 4]
    assert list(rendered.origins) == [0, 0, 1, 1]


def test_a_message_of_a_series_contains_its_rows() -> None:
    """`@` is their list; the origin is the first row."""
    rows: tuple[dict[str, object], ...] = ({"d": "x", "a": 1}, {"d": "y", "a": 2}, {"d": "x", "a": 3})

    assert payloads(render("{payload: '[].a', for_each: series}", *rows)) == [[1, 3], [2]]
    assert payloads(render("{payload: '[].a', for_each: window}", *rows)) == [[1, 2, 3]]


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5))
def test_the_same_row_has_the_same_id(time: int, value: float, name: str) -> None:
    """A repeated message can be recognised; the order of columns does not matter."""
    first = render("{payload: a}", {"time": time, "a": value, "d": name}).messages[0]
    again = render("{payload: a}", {"d": name, "a": value, "time": time}).messages[0]
    other = render("{payload: a}", {"time": time + 1, "a": value, "d": name}).messages[0]

    assert first.id == again.id
    assert first.id != other.id
    assert 0 <= first.id < 2**128


def test_a_digest_depends_on_the_content_of_a_row_only() -> None:
    """Every type counts; the order of columns, the window and the names of tags do not."""
    row = Row({"time": 5, "a": 1, "b": "x"}, "m")
    same = [
        Row({"b": "x", "time": 5, "a": 1}, "m"),
        Row({"b": "x", "time": 5, "a": 1}, "m", (0, 10), ("b",)),
    ]
    others = [
        Row({"time": 5, "a": 1, "b": "x"}, "n"),
        Row({"time": 5, "a": 1.0, "b": "x"}, "m"),
        Row({"time": 5, "a": True, "b": "x"}, "m"),
        Row({"time": 5, "a": "1", "b": "x"}, "m"),
        Row({"time": 5, "a": 2**53 + 1, "b": "x"}, "m"),
        Row({"time": 5, "a": 2**53, "b": "x"}, "m"),
        Row({"time": 5, "a": 2**70, "b": "x"}, "m"),
        Row({"time": 5, "a": 0.0, "b": "x"}, "m"),
        Row({"time": 5, "a": -0.0, "b": "x"}, "m"),
        Row({"time": 5, "a": 1}, "m"),
        Row({}, "m"),
    ]

    assert digest_rows(same) == digest_rows([row]) * 2
    assert len({*digest_rows([row, *others])}) == len(others) + 1


def test_ids_are_made_as_documented() -> None:
    """They outlive a release: a message that is sent again next year has the id of today."""
    rows = [Row({"time": 1700000000000000000, "device": "d1", "celsius": 21.5, "n": 2**63}, "env")]
    head = hashlib.blake2b(b"\xa3env" + b"\x94\xa7celsius\xa6device\xa1n\xa4time").digest()[:16]
    packed = b"\x94\xcb\x40\x35\x80\0\0\0\0\0\xa2d1\xcf\x80" + bytes(7) + b"\xcf\x17\x97\x9c\xfe\x36\x2a\0\0"
    digest = hashlib.blake2b(head + packed).digest()[:16]
    salt = hashlib.blake2b(b"\xa7history\x01").digest()[:16]

    assert digest_rows(rows) == [digest]
    plan = parse_mapping(f"{HEAD}messages: [{{payload: a}}, {{payload: b}}]\n", name="history").plan()
    message = plan.render(rows).messages[1]  # type: ignore[attr-defined, arg-type]
    assert message.id.to_bytes(16, "big") == bytes(a ^ b for a, b in zip(digest, salt, strict=True))


@given(st.lists(st.builds(Row, st.dictionaries(st.text(max_size=3), cells), st.sampled_from(["m", "n", "\ud800"]))))
def test_every_row_has_a_digest(rows: list[Row]) -> None:
    """Whatever rows are digested with it, and whatever it contains."""
    assert digest_rows(rows) == [digest for row in rows for digest in digest_rows([row])]


@pytest.mark.parametrize(
    ("tags", "row_tags", "payload"),
    [
        ("", None, [[1, 3], [2], [4]]),  # the server names no tags: every column of strings
        ("tags: [d]", None, [[1, 3], [2, 4]]),
        ("", ("d",), [[1, 3], [2, 4]]),
        ("", ("e", "d"), [[1, 3], [2], [4]]),
        ("", (), [[1, 2, 3, 4]]),
    ],
)
def test_a_series_has_the_tags_that_the_server_names(
    tags: str, row_tags: tuple[str, ...] | None, payload: list[object]
) -> None:
    """Else the tags that the document names, else all columns of strings."""
    text = HEAD.replace("measurement: env", f"measurement: env, {tags}" if tags else "measurement: env")
    plan = parse_mapping(f"{text}messages: {{payload: '[].a', for_each: series}}\n", name="n").plan()
    rows = [
        Row({"d": "x", "e": "p", "a": 1}, "m", None, row_tags),
        Row({"d": "y", "e": "p", "a": 2}, "m", None, row_tags),
        Row({"d": "x", "e": "p", "a": 3}, "m", None, row_tags),
        Row({"d": "y", "e": "q", "a": 4}, "m", None, row_tags),
    ]

    assert payloads(plan.render(rows)) == payload  # type: ignore[arg-type]


def test_a_plan_says_whether_it_needs_whole_windows() -> None:
    """If not, the run renders chunks separately."""

    def needs(messages: str) -> bool:
        return parse_mapping(f"{HEAD}messages: {messages}\n", name="n").plan().whole_windows  # type: ignore[attr-defined, no-any-return]

    assert not needs("{payload: a}")
    assert needs("[{payload: a}, {payload: a, for_each: window}]")
    assert needs("{payload: a, for_each: series}")


def test_given_digests_are_used() -> None:
    """The overlap needs them before the plan does."""
    plan = parse_mapping(HEAD, name="history").plan()
    rows = [Row({"time": 1, "a": 2}), Row({"time": 2, "a": 2})]

    assert plan.render(rows, digest_rows(rows)) == plan.render(rows)


@pytest.mark.parametrize(
    ("tags", "line"),
    [
        (("device", "site"), b'env,device=d\\ 1,site=b ok=true,state="a\nb",total=9007199254740993i,x=1.5 5'),
        (("device",), b'env,device=d\\ 1 ok=true,site="b",state="a\nb",total=9007199254740993i,x=1.5 5'),
        (None, None),
    ],
)
def test_a_row_is_a_line_of_line_protocol(tags: tuple[str, ...] | None, line: bytes | None) -> None:
    """Tags are those that the server names; else string columns are tags, which may not contain a line feed."""
    text = HEAD.replace("topic: t}", "topic: t, payload: influx}")
    columns = {"time": 5, "device": "d 1", "site": "b", "total": 2**53 + 1, "x": 1.5, "ok": True, "state": "a\nb"}
    rendered = parse_mapping(text, name="n").plan().render([Row(columns, "env", None, tags)])

    assert [message.payload for message in rendered.messages] == ([line] if line else [])
    assert [failure.location for failure in rendered.failures] == ([] if line else ["/payload"])


def test_a_series_is_many_lines_and_a_template_is_one() -> None:
    """The whole list as lines, or an object made by a template."""
    text = HEAD.replace("topic: t}", "topic: t, payload: influx}")
    series = parse_mapping(f"{text}messages: {{for_each: series}}\n", name="n").plan()
    template = parse_mapping(
        f"{text}messages: {{payload: {{measurement: \"'m'\", tags: '{{d: d}}', fields: '{{a: a}}', time: time}}}}\n",
        name="n",
    ).plan()
    rows = [
        Row({"time": 1, "d": "x", "a": 1}, "env", None, ("d",)),
        Row({"time": 2, "d": "x", "a": 2.5}, "env", None, ("d",)),
    ]

    assert [message.payload for message in series.render(rows).messages] == [b"env,d=x a=1i 1\nenv,d=x a=2.5 2"]
    assert [message.payload for message in template.render(rows).messages] == [b"m,d=x a=1i 1", b"m,d=x a=2.5 2"]


@pytest.mark.parametrize("form", ["json", "msgpack", "cbor", "csv"])
def test_each_format_preserves_the_content_of_a_row(form: str) -> None:
    """Integers beyond 2**53, unsigned ones, line ends in strings, booleans, small and large floats; csv has strings."""
    columns = {
        "time": 2**62 + 1,
        "u": 2**64 - 1,
        "s": 'a\n"b",\r\nc',
        "b": False,
        "x": -0.0,
        "y": 5e-324,
        "z": 1.7e308,
        "e": "",
    }
    text = HEAD.replace("topic: t}", f"topic: t, payload: {form}}}")
    rendered = parse_mapping(text, name="n").plan().render([Row(columns)])
    found = FORMATS[form].decode(rendered.messages[0].payload, {}, None, True)

    if form == "csv":
        texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in columns.items()}
        assert found == [texts]
    else:
        assert found == columns
        assert math.copysign(1, found["x"]) == -1


@pytest.mark.parametrize(
    ("form", "columns", "code"),
    [
        ("influx", {"time": 1, "a": 2**63}, "IFX"),
        ("influx", {"time": 1}, "IFX"),
        ("influx", {"time": 1, "a": float("nan")}, "IFX"),
        ("csv", {"time": 1, "a": [1]}, "IFX420"),
    ],
)
def test_a_value_that_a_format_cannot_hold_fails_with_its_place(
    form: str, columns: dict[str, object], code: str
) -> None:
    """The other rows are sent."""
    text = HEAD.replace("topic: t}", f"topic: t, payload: {form}}}")
    good = Row({"time": 1, "a": 1}, "env")
    rendered = parse_mapping(text, name="n").plan().render([good, Row(columns, "env"), good])

    assert list(rendered.origins) == [0, 2]
    [failure] = rendered.failures
    assert (failure.index, failure.location) == (1, "/payload")
    assert failure.code.startswith(code)


@pytest.mark.parametrize(
    ("messages", "columns", "pointer"),
    [
        ("{payload: '@'}", {"a": "x" * 64_000_001}, "/messages/payload"),
        ("{payload: b, key: a}", {"a": "x" * 256}, "/messages/key"),
        ("{payload: b, key: a}", {"a": "ü" * 128}, "/messages/key"),
        ("{payload: b, headers: {h: a}}", {"a": "ü" * 128}, "/messages/headers/h"),
    ],
)
def test_a_message_that_iggy_rejects_fails_with_the_place_of_its_row(
    messages: str, columns: dict[str, object], pointer: str
) -> None:
    """The other rows are sent."""
    rendered = render(messages, {"b": 1}, columns, {"b": 2, "a": "ü" * 127})

    assert [(failure.index, failure.code, failure.location) for failure in rendered.failures] == [
        (1, "IFX352", pointer)
    ]
    assert list(rendered.origins) == [0, 2]
