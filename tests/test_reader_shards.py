"""A field with different types in different shards: every window returns the written values, in their types.

This holds for any width of the shards and any bounds of a window.  A row in two windows is the same in both, with the
same digest, from which ids and the memory of the overlap are made.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from iggyflux.lineprotocol import Dialect, FieldValue, Point, Unsigned
from iggyflux.mapping import Query
from iggyflux.pipeline import InfluxSettings
from iggyflux.plan.digests import digest_rows
from iggyflux.records import Row
from iggyflux.sim import SimServer
from iggyflux.transports.influxdb.query.source import InfluxRows
from tests.sim.client import call, influxql

SECOND, HOUR = 10**9, 3600 * 10**9
YEAR_ONE = 62_135_596_800 * SECOND
NOW = 1_700_000_000 * SECOND
FIELD, TAG = 'lambda "ü"', "None"
DIALECTS = {1: Dialect.V1, 2: Dialect.V2, 3: Dialect.V3}
_numbers = itertools.count()

VALUES: dict[str, st.SearchStrategy[FieldValue]] = {
    "integer": st.sampled_from([7, 0, -1, -7, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 9_007_199_254_740_993])
    | st.integers(-(2**63), 2**63 - 1),
    "float": st.sampled_from([0.5, 7.0, 0.0, -0.0, -1.0, 2.0**53, 2.0**63, -(2.0**63), 2.0**64, 1e300, -1.5])
    | st.floats(allow_nan=False, allow_infinity=False),
    "unsigned": st.sampled_from([7, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]).map(Unsigned)
    | st.integers(0, 2**64 - 1).map(Unsigned),
    "string": st.sampled_from(["7", "", "class"]),
    "boolean": st.booleans(),
}
WIDTHS = [HOUR, 5400 * SECOND, 7 * HOUR, 24 * HOUR, 25 * HOUR, 168 * HOUR]
OFFSETS = st.sampled_from([0, 1, 1000, SECOND, 59 * SECOND, 1800 * SECOND]) | st.integers(0, HOUR - 1)


@pytest.fixture(scope="module", params=[1, 2, 3])
def server(request: pytest.FixtureRequest) -> Iterator[SimServer]:
    with SimServer(request.param) as running:
        yield running


def make_place(server: SimServer, width: int) -> str:
    """Make a new database, or bucket, with shards of this width."""
    name = f"from{next(_numbers)}"
    seconds = width // SECOND
    if server.dialect == 2:
        org = call(server, "GET", "/api/v2/orgs").json["orgs"][0]["id"]
        rule = {"type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": seconds}
        body = json.dumps({"orgID": org, "name": name, "retentionRules": [rule]})
        assert call(server, "POST", "/api/v2/buckets", body).status == 201
    elif server.dialect == 1:
        assert "error" not in influxql(server, f'CREATE DATABASE "{name}"')[0]
        policy = (
            f'CREATE RETENTION POLICY "in" ON "{name}" DURATION INF REPLICATION 1 SHARD DURATION {seconds}s DEFAULT'
        )
        assert "error" not in influxql(server, policy)[0]
    return name


def send(server: SimServer, place: str, points: list[Point]) -> None:
    lines = "\n".join(point.encode(DIALECTS[server.dialect], "ns") for point in points)
    targets = {1: f"/write?db={place}", 2: f"/api/v2/write?org=org&bucket={place}", 3: f"/api/v3/write_lp?db={place}"}
    answer = call(server, "POST", targets[server.dialect], lines)
    assert answer.status == 204, answer


async def fetch(source: InfluxRows, window: tuple[int, int]) -> list[Row]:
    taken = await source.fetch(*window)
    try:
        return [row async for chunk in taken.chunks() for row in chunk]
    finally:
        taken.close()


def text_of(columns: Any) -> str:
    return repr(sorted(columns.items()))


def expected(points: list[Point], window: tuple[int, int]) -> list[str]:
    return sorted(
        text_of(
            {"time": point.timestamp_ns, **point.tags, **{name: plain(value) for name, value in point.fields.items()}}
        )
        for point in points
        if window[0] <= (point.timestamp_ns or 0) < window[1]
    )


def plain(value: FieldValue) -> object:
    return int(value) if isinstance(value, Unsigned) else value


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.slow
def test_every_window_holds_what_was_written_whatever_the_shards(server: SimServer, data: st.DataObject) -> None:
    width = data.draw(st.sampled_from(WIDTHS), "width")
    kinds = ["integer", "float", "string", "boolean"] + (["unsigned"] if server.dialect != 1 else [])
    shards = data.draw(st.lists(st.sampled_from([*["integer", "float"] * 2, *kinds]), min_size=2, max_size=4), "types")
    if server.dialect == 3:
        shards = shards[:1] * len(shards)  # the type of a table's column never changes
    place, name = make_place(server, width), f"class {next(_numbers)}"
    begin = (NOW + YEAR_ONE) // width * width - YEAR_ONE
    points: dict[tuple[int, str], Point] = {}
    for number, kind in enumerate(shards):
        start = begin + number * width
        for offset, at_end, tag in data.draw(
            st.lists(st.tuples(OFFSETS, st.booleans(), st.sampled_from(["a", "import"])), min_size=1, max_size=5)
        ):
            time = start + width - 1 - offset if at_end else start + offset
            points[time, tag] = Point(name, {TAG: tag}, {FIELD: data.draw(VALUES[kind])}, time)
    written = list(points.values())
    end = begin + len(shards) * width
    edges = st.sampled_from([begin + number * width for number in range(len(shards) + 1)])
    bounds = st.builds(lambda edge, by: edge + by, edges, st.integers(-2 * HOUR, 2 * HOUR) | st.integers(-1, 1))
    times = bounds | st.sampled_from([begin, end, *(time for time, _ in points)])
    windows = [(min(pair), max(pair)) for pair in data.draw(st.lists(st.tuples(times, times), max_size=4), "windows")]
    windows += [(begin, end), (begin, end)]
    first, rest = written[:1], written[1:]

    async def main() -> list[list[Row]]:
        settings = InfluxSettings(url=server.url, database=place, org="org" if server.dialect == 2 else None)
        source = InfluxRows(settings, Query(name, None, "auto", (), (), ()))
        send(server, place, first)
        await source.connect()
        try:
            before = await fetch(source, (begin, end))  # a reader that began when there was one type
            send(server, place, rest or written)
            return [before, *[await fetch(source, window) for window in windows]]
        finally:
            await source.close()

    event(f"{len(set(shards))} types")
    before, *found = asyncio.run(main())

    assert sorted(text_of(row.columns) for row in before) == expected(first, (begin, end))
    for window, rows in zip(windows, found, strict=True):
        assert sorted(text_of(row.columns) for row in rows) == expected(written, window), window
    digests: dict[tuple[object, object], bytes] = {}
    for rows in (before, *found):
        for row, digest in zip(rows, digest_rows(rows), strict=True):
            assert digests.setdefault((row.columns["time"], row.columns[TAG]), digest) == digest


def test_a_bucket_of_narrow_shards_keeps_a_large_integer_beside_a_float() -> None:
    """The case in which 2.9.1 reports a width of 168h, and the bucket has one of 24h."""
    midnight = (NOW + YEAR_ONE) // (24 * HOUR) * 24 * HOUR - YEAR_ONE
    with SimServer(2) as server:
        place = make_place(server, 24 * HOUR)
        points = [
            Point("n", {}, {"f": 9_007_199_254_740_993}, midnight - 60 * SECOND),
            Point("n", {}, {"f": 0.5}, midnight + 60 * SECOND),
        ]
        send(server, place, points)

        async def main() -> list[Row]:
            source = InfluxRows(
                InfluxSettings(url=server.url, bucket=place, org="org"), Query("n", None, "auto", (), (), ())
            )
            await source.connect()
            try:
                return await fetch(source, (midnight - HOUR, midnight + HOUR))
            finally:
                await source.close()

        rows = asyncio.run(main())

    assert sorted(text_of(row.columns) for row in rows) == expected(points, (midnight - HOUR, midnight + HOUR))
