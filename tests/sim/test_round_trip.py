"""What the encoder writes is read back exactly, by each language that can represent it."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.errors import PointError
from iggyflux.lineprotocol import MAX_INTEGER, MAX_NS, MAX_UNSIGNED, MIN_INTEGER, MIN_NS, Point, Unsigned
from iggyflux.lineprotocol.point import FieldValue
from iggyflux.sim import SimServer
from tests.sim.client import call, flux, needs_datafusion, sql, write

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=6
) | st.sampled_from(["a b", "a,b", "a=b", 'a"b', "ü", "\U0001f600", "a\\b", "/x/", "Select"])
STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8) | st.sampled_from(
    ["", '"', "\\", "\\\\", '\\"', "\n", "\r\n", " ", "\\n"]
)
INTEGERS = st.integers(MIN_INTEGER, MAX_INTEGER)
VALUES: dict[str, st.SearchStrategy[FieldValue]] = {
    "d": st.floats(allow_nan=False, allow_infinity=False),
    "i": INTEGERS,
    "u": st.integers(0, MAX_UNSIGNED).map(Unsigned),
    "s": STRINGS,
    "t": st.booleans(),
}
"""A field for each type, so that no two points of a measurement contradict each other."""
TIMES = st.integers(MIN_NS, MAX_NS) | st.integers(0, 50)


@st.composite
def points(draw: st.DrawFn, dialect: str) -> list[Point]:
    kinds = [kind for kind in VALUES if not (kind == "u" and dialect == "v1")]
    tags, found = draw(st.lists(NAMES.filter(lambda name: name not in VALUES), max_size=3, unique=True)), {}
    for _ in range(draw(st.integers(1, 4))):
        chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, unique=True))
        pairs = {name: draw(NAMES) for name in draw(st.lists(st.sampled_from(tags), unique=True))} if tags else {}
        try:
            point = Point("m", pairs, {kind: draw(VALUES[kind]) for kind in chosen}, draw(TIMES))
            point.encode(dialect)
        except PointError:
            continue
        found[tuple(sorted(pairs.items())), point.timestamp_ns] = point
    return list(found.values())


def bits(points: Iterable[Point]) -> list[tuple[object, ...]]:
    """Return points in one order, with floats as bits, so that -0.0 is not 0.0."""
    made = []
    for point in points:
        fields = {
            key: struct.pack(">d", value) if isinstance(value, float) else (type(value).__name__, value)
            for key, value in point.fields.items()
        }
        made.append((sorted(point.tags.items()), point.timestamp_ns, sorted(fields.items())))
    return sorted(made, key=repr)


def store(server: SimServer, sent: list[Point], dialect: str) -> None:
    server.reset()
    reply = write(server, "\n".join(point.encode(dialect) for point in sent))
    assert reply.status == 204, reply


@pytest.fixture(scope="module", params=[1, 2, 3], ids=["1.x", "2.x", "3.x"])
def server(request: pytest.FixtureRequest) -> Iterator[SimServer]:
    with SimServer(request.param) as started:
        yield started


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_store_holds_what_was_encoded(server: SimServer, data: st.DataObject) -> None:
    dialect = f"v{server.dialect}"
    sent = data.draw(points(dialect).filter(bool))

    store(server, sent, dialect)

    assert bits(server.points()) == bits(sent)


def typed(kind: str, value: object) -> FieldValue:
    if kind == "d":
        assert isinstance(value, str | int | float)
        return float(value)
    if kind in "iu":
        assert isinstance(value, str | int)
        return (Unsigned if kind == "u" else int)(value)
    assert isinstance(value, str | bool)
    return value if kind == "s" else value in (True, "true")


def number(digits: str) -> int | float:
    """Go writes the float -0.0 as `-0`."""
    return -0.0 if digits == "-0" else int(digits)


def point_of(values: Mapping[str, object], time: int) -> Point:
    """Return a point from the columns of a row: fields by the names of their types, the others are tags."""
    known = {key: value for key, value in values.items() if value is not None}
    fields = {key: typed(key, value) for key, value in known.items() if key in VALUES}
    return Point("m", {key: str(value) for key, value in known.items() if key not in VALUES}, fields, time)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_influxql_reads_back_exactly(server: SimServer, data: st.DataObject) -> None:
    dialect = f"v{server.dialect}"
    sent = data.draw(points(dialect).filter(bool))
    store(server, sent, dialect)

    query = urlencode({"q": "SELECT *::field FROM m GROUP BY *", "db": "test", "epoch": "ns", "chunked": "true"})
    found = []
    for line in call(server, "GET", f"/query?{query}").body.splitlines():
        for series in json.loads(line, parse_int=number)["results"][0].get("series", []):
            tags = {key: value for key, value in series.get("tags", {}).items() if value}
            for time, *values in series["values"]:
                found.append(point_of({**tags, **dict(zip(series["columns"][1:], values, strict=True))}, time))

    assert bits(found) == bits(sent)


@needs_datafusion
@given(st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_sql_reads_back_exactly(sql_server: SimServer, data: st.DataObject) -> None:
    sent = data.draw(points("v3").filter(bool))
    store(sql_server, sent, "v3")

    found = []
    for row in sql(sql_server, "SELECT *, cast(time as bigint) AS nanoseconds FROM m ORDER BY time"):
        time = row.pop("nanoseconds")
        row.pop("time")
        found.append(point_of(row, time))

    assert bits(found) == bits(sent)


def without_breaks(point: Point) -> bool:
    """Flux cannot distinguish line breaks, nor an empty string from null, nor names that are columns of its own."""
    texts = [*point.tags, *point.tags.values(), *(value for value in point.fields.values() if isinstance(value, str))]
    return not any("\r" in text or "\n" in text for text in texts) and "" not in point.fields.values()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_flux_reads_back_what_it_can_represent(flux_server: SimServer, data: st.DataObject) -> None:
    sent = [point for point in data.draw(points("v2")) if without_breaks(point)]
    if not sent:
        return
    store(flux_server, sent, "v2")

    script = 'from(bucket: "test") |> range(start: time(v: -9223372036854775806), stop: time(v: 9223372036854775807))'
    merged: dict[tuple[tuple[tuple[str, str], ...], str], dict[str, FieldValue]] = {}
    columns: list[str] = []
    for row in csv.reader(io.StringIO(flux(flux_server, script), newline="")):
        if row[1:3] == ["result", "table"]:
            columns = row
        elif row and not row[0]:
            record = dict(zip(columns, row, strict=True))
            kind, value, time = record["_field"], record["_value"], record["_time"]
            own = {"", "result", "table", "_start", "_stop", "_time", "_value", "_field", "_measurement"}
            tags = tuple(sorted((key, each) for key, each in record.items() if key not in own))
            merged.setdefault((tags, time), {})[kind] = typed(kind, value)
    from iggyflux.timestamps import parse_rfc3339

    found = [Point("m", dict(tags), fields, parse_rfc3339(time)) for (tags, time), fields in merged.items()]
    assert bits(found) == bits(sent)


@pytest.fixture(scope="module")
def sql_server() -> Iterator[SimServer]:
    with SimServer(3) as started:
        yield started


@pytest.fixture(scope="module")
def flux_server() -> Iterator[SimServer]:
    with SimServer(2) as started:
        yield started
