"""Decoded rows: the same wherever the bytes are cut, typed, exact, without columns that have no value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.mapping import Query
from iggyflux.records import Row
from iggyflux.transports.influxdb.query.rows import (
    CHUNK_ROWS,
    AnswerColumn,
    Layout,
    Spans,
    TypeUnknown,
    UnreadableAnswer,
    decode_flux,
    decode_influxql,
    decode_jsonl,
)
from iggyflux.transports.influxdb.query.schema import (
    NamesClash,
    Schema,
    choose,
    read_columns,
    read_field_keys,
    unfaithful,
)
from iggyflux.transports.influxdb.query.spool import Spool, SpoolFull

WINDOW = (0, 10)
START = 1_700_000_000_000_000_000
LAYOUT = Layout((AnswerColumn("f", "float"), AnswerColumn("i", "integer"), AnswerColumn("s", "string")), {"t": "t"})


def document(*series: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"results": [{"statement_id": 0, "series": list(series), **more}]}).encode() + b"\n"


def series(values: list[Any], tags: dict[str, str] | None = None) -> dict[str, Any]:
    return {"name": "m", "tags": tags or {}, "columns": ["time", "c0", "c1", "c2"], "values": values}


def influxql(data: bytes, layout: Layout = LAYOUT) -> list[Row]:
    return [row for chunk in decode_influxql([data], layout, "time", WINDOW) for row in chunk]


def shown(rows: list[Row]) -> list[str]:
    return [repr(row) for row in rows]


INFLUXQL = document(
    series(
        [[1, 1, 2**53 + 1, "ä\n€"], [2, None, None, ""], [3, 7.5, None, None], [4, -0.0, -(2**63), "x"]], {"t": "a"}
    ),
    partial=True,
) + document(series([[5, 2, None, None]], {"t": ""}))
JSONL = b"".join(
    json.dumps({"time": n, "t": "a", "f": n + 0.5, "u": 2**64 - 1, "s": "ä\n€", "b": True}).encode() + b"\n"
    for n in range(5)
)
CSV = (
    "#datatype,string,long,dateTime:RFC3339,string,string,double,long,unsignedLong,boolean,string\r\n"
    "#group,false,false,false,true,true,false,false,false,false,false\r\n"
    "#default,_result,,,,,,,,,\r\n"
    ",result,table,_time,_measurement,t,f,i,u,b,s\r\n"
    f",,0,2023-11-14T22:13:20.000000001Z,m,a,1,{2**53 + 1},{2**64 - 1},true,x\r\n"
    ",,0,1969-12-31T23:59:59.5Z,m,a,,,,,\r\n"
    ',,0,2023-11-14T22:13:20Z,m,a,-0.5,-1,0,false,"q""uo,te\r\n\r\n#datatype"\r\n'
    "\r\n#datatype,string,long,dateTime:RFC3339,string,long\r\n#group,false,false,false,true,false\r\n"
    "#default,_result,,,,7\r\n,result,table,_time,_measurement,i\r\n,,1,1677-09-21T00:12:43.145224194Z,n,8\r\n"
    ",,1,2262-04-11T23:47:16.854775806Z,n,\r\n\r\n"
).encode()
HEAD = (
    b"#datatype,string,long,dateTime:RFC3339,string,long,long\r\n#group,false,false,false,true,false,false\r\n"
    b"#default,_result,,,,,\r\n,result,table,_time,_measurement,i,j\r\n"
)
DECODERS: dict[str, tuple[bytes, Callable[[Any], Iterator[list[Row]]]]] = {
    "influxql": (INFLUXQL, lambda blocks: decode_influxql(blocks, LAYOUT, "time", WINDOW)),
    "jsonl": (JSONL, lambda blocks: decode_jsonl(blocks, "m", WINDOW, ("t",))),
    "flux": (CSV, lambda blocks: decode_flux(blocks, "time", WINDOW, {"t": "t"})),
}


@pytest.mark.parametrize("name", DECODERS)
def test_it_does_not_matter_where_the_bytes_are_cut(name: str) -> None:
    data, decode = DECODERS[name]
    whole = [row for chunk in decode([data]) for row in chunk]

    for size in range(1, 80):
        blocks = [data[start : start + size] for start in range(0, len(data), size)]
        assert shown([row for chunk in decode(blocks) for row in chunk]) == shown(whole), size
    for cut in range(len(data)):
        assert shown([row for chunk in decode([data[:cut], data[cut:]]) for row in chunk]) == shown(whole), cut


def test_influxql_gives_types_and_no_nulls() -> None:
    assert [repr(dict(row.columns)) for row in influxql(INFLUXQL)] == [
        repr(columns)
        for columns in (
            {"time": 1, "t": "a", "f": 1.0, "i": 2**53 + 1, "s": "ä\n€"},
            {"time": 2, "t": "a", "s": ""},
            {"time": 3, "t": "a", "f": 7.5},
            {"time": 4, "t": "a", "f": -0.0, "i": -(2**63), "s": "x"},
            {"time": 5, "f": 2.0},
        )
    ]


def test_influxql_gives_a_field_of_several_types_the_type_of_each_point() -> None:
    kinds = ("integer", "float", "unsigned", "string", "boolean")
    values = [
        [1, 7, 7, 7, None, None],
        [2, 7, 7.5, 7, None, None],
        [3, -(2**63), 1e300, 2**63, None, None],
        [4, 2**53 + 1, 2**53, 2**53 + 1, None, None],
        [5, -1, -1, 2**64 - 1, None, None],
        [6, -1, 2**64, 2**64 - 1, None, None],
        [7, None, None, None, "x", None],
        [8, None, None, None, None, False],
    ]
    columns = ["time", *(f"c{number}" for number in range(len(kinds)))]

    def of(rows: list[list[Any]], types: Spans, signs: Spans) -> list[object]:
        layout = Layout(tuple(AnswerColumn("f", kind) for kind in kinds), {}, {"f": types}, {"f": signs})
        data = document({"name": "m", "columns": columns, "values": rows})
        return [row.columns["f"] for row in influxql(data, layout)]

    types = [(4, "float"), (9, "whole")]
    signs = [(4, "float"), (6, "integer"), (9, "unsigned")]
    assert repr(of(values, types, signs)) == repr([7.0, 7.5, 1e300, 2**53 + 1, -1, 2**64 - 1, "x", False])
    wrong: list[tuple[int, Spans, Spans, bool]] = [
        (1, [(9, "whole")], [], False),  # 7.5 is not 7
        (3, [(9, "float")], [], False),  # a float cannot hold 2**53 + 1
        (4, [], [(9, "unsigned")], False),  # -1.0 is not 2**64 - 1
        (5, [], [(9, "integer")], False),
        (0, [(1, "float")], [], True),  # the type at that time is unknown
    ]
    for row, kinds_of, signs_of, is_gone in wrong:
        with pytest.raises(TypeUnknown) as unknown:
            of([values[row]], kinds_of, signs_of)
        assert unknown.value.is_gone is is_gone, row


def test_a_zero_keeps_its_sign() -> None:
    """Servers write it as -0."""
    text = INFLUXQL.replace(b"7.5", b"-0").replace(b"[5, 2,", b"[5, -0,")
    assert [repr(row.columns.get("f")) for row in influxql(text)] == ["1.0", "None", "-0.0", "-0.0", "-0.0"]
    rows = [row for chunk in decode_flux([CSV.replace(b",m,a,1,", b",m,a,-0,")], "time", WINDOW, None) for row in chunk]
    assert repr(rows[0].columns["f"]) == "-0.0"


def test_floats_that_are_no_json_are_read() -> None:
    for text, value in (("NaN", "nan"), ("+Inf", "inf"), ("-Inf", "-inf")):
        data = CSV.replace(b",m,a,1,", f",m,a,{text},".encode())
        rows = [row for chunk in decode_flux([data], "time", WINDOW, None) for row in chunk]
        assert repr(rows[0].columns["f"]) == value


def test_flux_gives_types_and_times_to_the_nanosecond() -> None:
    rows = [row for chunk in decode_flux([CSV], "time", WINDOW, {"t": "t"}) for row in chunk]

    assert [repr(dict(row.columns)) for row in rows] == [
        repr(columns)
        for columns in (
            {"time": START + 1, "t": "a", "f": 1.0, "i": 2**53 + 1, "u": 2**64 - 1, "b": True, "s": "x"},
            {"time": -500_000_000, "t": "a"},
            {"time": START, "t": "a", "f": -0.5, "i": -1, "u": 0, "b": False, "s": 'q"uo,te\n\n#datatype'},
            {"time": -9223372036854775806, "i": 8},
            {"time": 9223372036854775806, "i": 7},
        )
    ]
    assert [row.measurement for row in rows] == ["m", "m", "m", "n", "n"]


def test_flux_leaves_out_tags_that_are_not_asked_for() -> None:
    rows = [row for chunk in decode_flux([CSV], "time", WINDOW, {}) for row in chunk]

    assert all("t" not in row.columns for row in rows)
    assert {row.tags for row in rows} == {()}


@given(st.lists(st.integers(min_value=-(2**63) + 2, max_value=2**63 - 2), min_size=1, max_size=30), st.booleans())
def test_any_time_of_flux_is_read_exactly(times: list[int], repeated: bool) -> None:
    times = times * 5 if repeated else times
    head = "#datatype,string,long,dateTime:RFC3339\r\n#group,false,false,false\r\n#default,_result,,\r\n"
    head += ",result,table,_time\r\n"
    lines = "".join(f",,0,{_go_time(time)}\r\n" for time in times)

    rows = [row for chunk in decode_flux([f"{head}{lines}\r\n".encode()], "time", WINDOW, None) for row in chunk]

    assert [row.columns["time"] for row in rows] == times


def _go_time(time: int) -> str:
    fraction = f"{time % 10**9:09d}".rstrip("0")
    whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time // 10**9)
    return whole.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}" if fraction else "") + "Z"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("influxql", b"<html>"),
        ("influxql", document({"name": "m", "columns": ["c0"], "values": [[1]]})),
        ("influxql", document({"name": "m", "columns": ["time", "c0"], "values": [[1, 2]]})),
        ("influxql", b'{"results":[{"error":"timeout"}]}\n'),
        ("jsonl", b"[1]\n"),
        ("jsonl", b'{"a":\n'),
        ("flux", b",result,table,_time\r\n,,0,2023-11-14T22:13:20Z\r\n"),
        ("flux", CSV[:-30]),
        ("flux", CSV.replace(b",-1,", b",x,")),
        ("flux", CSV.replace(b"_time", b"time_")),
        ("flux", CSV.replace(b",true,x\r\n", b",true\r\n")),
        ("flux", CSV.replace(b",f,i,u", b",f,i,i")),
        ("flux", HEAD + b",,0,1970-01-01T00:00:00Z,m,1\r\n,,0,1970-01-01T00:00:00Z,m,1,2,\r\n\r\n"),
    ],
)
def test_what_cannot_be_read_is_never_rows(name: str, data: bytes) -> None:
    _, decode = DECODERS[name]

    with pytest.raises(UnreadableAnswer):
        list(decode([data]))


@pytest.mark.parametrize("name", DECODERS)
def test_a_line_without_an_end_is_not_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, decode = DECODERS[name]
    monkeypatch.setattr("iggyflux.transports.influxdb.query.rows._MOST_LINE_BYTES", 10_000)
    given = []

    def blocks() -> Iterator[bytes]:
        for _ in range(100):
            given.append(1)
            yield b"x" * 1000

    with pytest.raises(UnreadableAnswer, match="a line of more than"):
        list(decode(blocks()))
    assert len(given) == 11


@settings(derandomize=True, max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(DECODERS)), data=st.data())
def test_any_bytes_are_rows_or_unreadable(name: str, data: st.DataObject) -> None:
    """A good answer with pieces removed, repeated, moved from the others, or any bytes between."""
    good, decode = DECODERS[name]
    pieces = []
    for _ in range(data.draw(st.integers(1, 6))):
        other = data.draw(st.sampled_from([good, good, good, *(each for each, _ in DECODERS.values())]))
        start = data.draw(st.integers(0, len(other)))
        pieces.append(other[start : data.draw(st.integers(start, len(other)))])
        between = st.sampled_from([b"", b"", b"null", b"[", b"{", b"\n", b",", b"-1e400"])
        pieces.append(data.draw(between | st.binary(max_size=4)))
    with suppress(UnreadableAnswer, TypeUnknown):
        list(decode([b"".join(pieces)]))


def test_rows_come_some_thousands_at_a_time_however_small_the_series_are() -> None:
    one = document(series([[1, 1, 1, "x"]], {"t": "a"}), partial=True)
    large = document(series([[n, 1, 1, "x"] for n in range(3 * CHUNK_ROWS)], {"t": "a"}))

    sizes = [len(chunk) for chunk in decode_influxql([one * 12_000, large], LAYOUT, "time", WINDOW)]

    assert sum(sizes) == 12_000 + 3 * CHUNK_ROWS
    assert len(sizes) <= 5


def test_a_row_may_have_a_thousand_columns() -> None:
    names = [f"c{number}" for number in range(1000)]
    layout = Layout(tuple(AnswerColumn(f"f'{name}\"\\", "float") for name in names), {})
    data = document(
        {"name": "m", "columns": ["time", *names], "values": [[1, *range(1000)], [2, *[None] * 999, 5]] * 4}
    )

    rows = influxql(data, layout)

    assert len(rows[0].columns) == 1001
    assert dict(rows[1].columns) == {"time": 2, "f'c999\"\\": 5.0}


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6, unique=True))
def test_any_name_can_be_that_of_a_column(names: list[str]) -> None:
    """The code that makes rows is generated, and names are written into it."""
    names = [name for name in names if name != "time"] or ["f"]
    layout = Layout(tuple(AnswerColumn(name, "integer") for name in names), {})
    data = document({"name": "m", "columns": ["time", *names], "values": [[n, *range(len(names))] for n in range(5)]})

    assert [dict(row.columns) for row in influxql(data, layout)] == [
        {"time": n, **{name: number for number, name in enumerate(names)}} for n in range(5)
    ]


# --- schema ---


def query(**more: Any) -> Query:
    given: dict[str, Any] = {
        "measurement": "m",
        "statement": None,
        "language": "auto",
        "where": (),
        "fields": (),
        "tags": (),
    }
    return Query(**{**given, **more})


def test_a_schema_is_read_from_what_servers_list() -> None:
    assert read_field_keys([["f", "float"], ["f", "integer"], ["a", "string"]]) == {
        "a": ("string",),
        "f": ("float", "integer"),
    }
    columns = [("time", "Timestamp(Nanosecond, None)"), ("t", "Dictionary(Int32, Utf8)"), ("u", "UInt64"), ("z", "Odd")]
    found = read_columns({"column_name": name, "data_type": kind} for name, kind in columns)
    assert found == Schema({"u": ("unsigned",), "z": ("any",)}, ("t",))


def test_a_tag_with_the_name_of_a_field_gets_another_name_or_fails() -> None:
    schema = Schema({"x": ("float",), "y": ("float",)}, ("x", "z"))

    assert choose(schema, query()).tags == {"x": "x_tag", "z": "z"}
    assert choose(schema, query(fields=("y",))).tags == {"x": "x", "z": "z"}
    assert choose(schema, query(tags=("z",))).tags == {"z": "z"}
    for taken in (Schema({"x": ("float",), "x_tag": ("float",)}, ("x",)), Schema({"x": ("float",)}, ("x", "x_tag"))):
        with pytest.raises(NamesClash):
            choose(taken, query())


UNFAITHFUL = {
    "several types": Schema({"f": ("float", "integer")}),
    "is a string": Schema({"f": ("string",)}),
    "is reserved in Flux": Schema({"f": ("float",)}, ("_value",)),
    "a tag and a field": Schema({"f": ("float",)}, ("f",)),
}


@pytest.mark.parametrize(("why", "schema"), UNFAITHFUL.items())
def test_flux_is_not_used_where_it_would_change_rows(why: str, schema: Schema) -> None:
    reason = unfaithful(schema, query())
    assert reason is not None
    assert why in reason
    assert unfaithful(Schema({"f": ("float",), "i": ("integer",)}, ("t",)), query()) is None


# --- the spool ---


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(min_value=1, max_value=40))
def test_what_is_kept_is_given_back_as_often_as_asked(pieces: list[bytes], size: int) -> None:
    spool = Spool(None, 10_000, mark=b"ab")
    for piece in pieces:
        spool.append(piece)
    data = b"".join(pieces)

    assert b"".join(spool.blocks(size)) == data
    assert b"".join(spool.blocks()) == data
    assert (spool.size, spool.newlines, spool.tail) == (len(data), data.count(b"\n"), data[-64:])
    assert spool.is_marked == (b"ab" in data)
    assert spool.last_line() == data.rstrip(b"\r\n").rpartition(b"\n")[2]
    spool.close()


@pytest.mark.parametrize("cut", range(9))
def test_a_mark_is_found_wherever_the_pieces_are_cut(cut: int) -> None:
    spool = Spool(None, 1000, mark=b'"error":')
    for piece in (b"x" * 100 + b'"error":'[:cut], b'"error":'[cut:] + b"y" * 100):
        spool.append(piece)

    assert spool.is_marked


def test_more_than_may_be_kept_is_refused() -> None:
    spool = Spool(None, 10)
    spool.append(b"x" * 10)
    with pytest.raises(SpoolFull):
        spool.append(b"x")
    spool.close()
