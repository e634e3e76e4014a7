"""Samples: what a line is, the defaults of a message, and invalid samples."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.authoring.samples import Coordinates, Sample, SampleError, read_rows, read_samples
from iggyflux.mapping import parse_mapping

FIRST_US = 946_684_800_000_000
PLACE = Coordinates("factory", "readings")


def payloads(text: bytes, **options: object) -> list[tuple[int, bytes]]:
    samples = read_samples(text.splitlines(keepends=True), PLACE, **options)  # type: ignore[arg-type]
    return [(sample.line, sample.message.payload) for sample in samples]


def coordinates(topic: str) -> Coordinates:
    text = f"iggyflux: 1\nkind: writer\nfrom: {{stream: s, topic: {topic}}}\npoints: {{measurement: m, tags: [a]}}\n"
    writer = parse_mapping(text).writer
    assert writer is not None
    return Coordinates.of(writer.source)


def test_rule_28_a_payload_gets_the_coordinates_that_the_rule_names() -> None:
    """Stream and topic of `from`, partition 0, offset = line number from 0, time 2000-01-01 + offset µs."""
    samples = list(read_samples([b"1\n", b"\n", b"2\n"], PLACE))

    assert [sample.line for sample in samples] == [1, 3]
    message = samples[1].message
    assert (message.stream, message.topic, message.partition, message.offset) == ("factory", "readings", 0, 2)
    assert (message.timestamp_us, message.origin_timestamp_us) == (FIRST_US + 2, FIRST_US + 2)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [("readings", "readings"), ("[a, b]", "a"), ("['x-*', b]", "b"), ("'line-*'", "line-1")],
)
def test_rule_28_the_topic_is_the_first_name_of_from(topic: str, expected: str) -> None:
    """Of globs alone, one of the topics that they mean."""
    assert coordinates(topic) == Coordinates("s", expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":1}\n{"a":2}\n', [(1, b'{"a":1}'), (2, b'{"a":2}')]),
        (b'{"a":1}\r\n{"a":2}', [(1, b'{"a":1}'), (2, b'{"a":2}')]),
        (b'\xef\xbb\xbf{"a":1}', [(1, b'{"a":1}')]),
        (b'{\n"a":1\n}\n', [(1, b'{\n"a":1\n}')]),
        (b"\n[\n1]\n", [(2, b"[\n1]")]),
        (b'{"a":\n{"a":2}\n', [(1, b'{"a":'), (2, b'{"a":2}')]),
        (b'{\n"b": "}{"\n}\n\n[\n1]\n{"b": 2}\n', [(1, b'{\n"b": "}{"\n}'), (5, b"[\n1]"), (7, b'{"b": 2}')]),
        (b'{\n"b": "\\"}"\n}\n{\n', [(1, b"{"), (2, b'"b": "\\"}"'), (3, b"}"), (4, b"{")]),
        (b'{"payload":1}\n', [(1, b'{"payload":1}')]),
        (b" 1 \n", [(1, b" 1 ")]),
        (b"", []),
        (b"\n \n", []),
    ],
    ids=[
        "ndjson",
        "crlf",
        "bom",
        "one-document",
        "blank-first",
        "broken-line",
        "several-over-lines",
        "broken-at-the-end",
        "not-guessed",
        "spaces",
        "empty",
        "blank",
    ],
)
def test_rule_28_lines_are_payloads_unless_they_are_one_document(
    text: bytes, expected: list[tuple[int, bytes]]
) -> None:
    """A broken line stays a payload: it is for the plan to say what is wrong with it."""
    assert payloads(text) == expected


def test_other_formats_of_text_are_lines_and_nothing_else() -> None:
    """Only JSON spans lines."""
    assert payloads(b"env a=1\n{\n}\n", form="influx") == [(1, b"env a=1"), (2, b"{"), (3, b"}")]


@pytest.mark.parametrize("form", ["msgpack", "cbor"])
def test_rule_28_binary_payloads_come_in_envelopes(form: str) -> None:
    """Bytes that may hold a line end cannot be lines."""
    with pytest.raises(SampleError) as caught:
        payloads(b"\x81\xa1a\x01\n", form=form)

    assert caught.value.code == "IFX501"
    line = b'{"payload_base64": "' + b64encode(b"\x81\xa1a\x0a") + b'"}'
    assert payloads(line, form=form, envelope=True) == [(1, b"\x81\xa1a\x0a")]


def test_an_envelope_has_all_parts_of_a_message() -> None:
    """Coordinates and headers that are given hold, the others are filled in; the payload is kept byte for byte."""
    line = b'{"payload": {"a":  1.0}, "topic": "t", "offset": 9, "timestamp_us": 5, "headers": {"k": 1}}'

    message = next(read_samples([line], PLACE, envelope=True)).message

    assert message.payload == b'{"a":  1.0}'
    assert (message.stream, message.topic, message.offset, message.timestamp_us) == ("factory", "t", 9, 5)
    assert dict(message.headers) == {"k": 1}
    bare = next(read_samples([b"\n", b'{"payload": 1}\n'], PLACE, envelope=True)).message
    assert (bare.topic, bare.partition, bare.offset, bare.timestamp_us) == ("readings", 0, 1, FIRST_US + 1)


@pytest.mark.parametrize("line", [b"{}", b"[]", b"x", b'{"payload":1,"ofset":1}', b'{"payload":1,"payload_text":"1"}'])
def test_a_line_that_is_not_an_envelope_is_reported(line: bytes) -> None:
    """With its number, and a hint."""
    with pytest.raises(SampleError) as caught:
        list(read_samples([b'{"payload":1}\n', line], PLACE, envelope=True))

    assert (caught.value.code, caught.value.line) == ("IFX500", 2)
    assert caught.value.hint


@given(st.lists(st.binary(max_size=20), max_size=5), st.booleans())
def test_any_bytes_are_samples_or_a_sample_error(lines: list[bytes], envelope: bool) -> None:
    """Reading works or raises ours, never anything else."""
    try:
        samples = list(read_samples(lines, PLACE, envelope=envelope))
    except SampleError:
        return

    assert all(isinstance(sample, Sample) for sample in samples)


def test_rule_29_rows_are_typed_columns_with_time_in_nanoseconds() -> None:
    """RFC 3339 is taken too; a CSV's cells are numbers and booleans by JSON's syntax, empty ones are not there."""
    text = b'time,a,b,c,d\r\n2026-01-01T00:00:00Z,1,x,,true\n5,1.50,007,"a,b",null\n'

    rows = list(read_rows(text.splitlines(keepends=True), form="csv", measurement="env"))

    assert [row.line for row in rows] == [2, 3]
    assert rows[0].row.columns == {"time": 1767225600 * 10**9, "a": 1, "b": "x", "d": True}
    assert rows[1].row.columns == {"time": 5, "a": 1.5, "b": "007", "c": "a,b", "d": "null"}
    assert rows[0].row.measurement == "env"


@pytest.mark.parametrize(
    ("form", "text", "line"),
    [
        ("jsonl", b'{"time":1}\n[]\n', 2),
        ("jsonl", b"{\n", 1),
        ("jsonl", b'{"time":1.5}\n', 1),
        ("jsonl", b'{"time":true}\n', 1),
        ("jsonl", b'{"time":"now"}\n', 1),
        ("csv", b"time,a\n1\n", 2),
        ("csv", b'time,a\n1,"x\n', 2),
    ],
)
def test_a_line_that_is_not_a_row_is_reported(form: str, text: bytes, line: int) -> None:
    """With the number of its line."""
    with pytest.raises(SampleError) as caught:
        list(read_rows(text.splitlines(keepends=True), form=form))

    assert (caught.value.code, caught.value.line) == ("IFX502", line)


@given(st.sampled_from(["jsonl", "csv"]), st.lists(st.binary(max_size=20), max_size=5))
def test_any_bytes_are_rows_or_a_sample_error(form: str, lines: list[bytes]) -> None:
    """Reading works or raises ours, never anything else."""
    with suppress(SampleError):
        list(read_rows(lines, form=form))


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("timestamp", "did you mean `timestamp_us`, an integer of microseconds?"),
        ("ofset", "did you mean `offset`?"),
        ("zzz", "known: payload, "),
    ],
)
def test_an_unknown_member_of_an_envelope_is_reported_with_a_suggestion(member: str, said: str) -> None:
    line = f'{{"payload": {{}}, "{member}": 5}}'.encode()

    with pytest.raises(SampleError) as caught:
        list(read_samples([line], Coordinates("s", "t"), envelope=True))

    assert said in caught.value.reason


ANNOTATED = (
    b"#datatype,string,long,dateTime:RFC3339,string,string,double,long,unsignedLong,boolean,string\r\n"
    b"#group,false,false,false,true,true,false,false,false,false,false\r\n"
    b"#default,_result,,,,,,,,,\r\n"
    b",result,table,_time,_measurement,device,x,n,u,ok,note\r\n"
    b",,0,2026-01-01T00:00:00.123456789Z,env,d1,7,9007199254740993,18446744073709551615,true,007\r\n"
    b',,0,2026-01-01T00:00:01Z,env,d1,,3,,false,"a,""b"""\r\n'
    b"\r\n"
)


@pytest.mark.parametrize(
    "text", [ANNOTATED, ANNOTATED.replace(b"\r\n", b"\n"), ANNOTATED.rstrip(), b"\xef\xbb\xbf" + ANNOTATED]
)
def test_annotated_csv_has_the_annotated_types(text: bytes) -> None:
    """Nothing is guessed: 7 is a float, 007 a text, integers are exact; line ends may have been changed."""
    rows = [sample.row for sample in read_rows(text.splitlines(keepends=True), form="csv", measurement="other")]

    assert [row.measurement for row in rows] == ["env", "env"]
    first, second = (row.columns for row in rows)
    time = 1767225600 * 10**9
    assert first == {
        "time": time + 123456789, "device": "d1", "x": 7.0, "n": 2**53 + 1, "u": 2**64 - 1, "ok": True, "note": "007",
    }  # fmt: skip
    assert type(first["x"]) is float
    assert second == {"time": time + 10**9, "device": "d1", "n": 3, "ok": False, "note": 'a,"b"'}


@pytest.mark.parametrize("text", [b"#group,false\n,a\n,b\n", ANNOTATED.replace(b",3,", b",x,")])
def test_annotated_csv_that_is_none_is_named(text: bytes) -> None:
    """As any file that holds no rows."""
    with pytest.raises(SampleError) as caught:
        list(read_rows(text.splitlines(keepends=True), form="csv", measurement=""))

    assert caught.value.code == "IFX502"
