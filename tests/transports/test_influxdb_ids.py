"""Organization and bucket by name or by id, present or missing: `check`, `create`, writes and queries agree."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from iggyflux.errors import Stopped
from iggyflux.pipeline import InfluxSettings
from iggyflux.sim import SimServer
from iggyflux.sim.dialects.v2 import identifier
from iggyflux.spec import Query
from iggyflux.transports.influxdb.admin import CheckReport
from iggyflux.transports.influxdb.query.source import InfluxRows
from iggyflux.transports.influxdb.write.sink import InfluxLineSink

NOBODY = "ffffffffffffffff"
ORGS = {"name": "class", "id": identifier("class"), "wrong name": "global", "wrong id": NOBODY}
BUCKETS = {"name": "lambda", "id": identifier("lambda"), "missing": "yield", "missing id": NOBODY}
START = 1_700_000_000_000_000_000


def settings(url: str, org: str | None, bucket: str, create: bool) -> InfluxSettings:
    return InfluxSettings(url=url, org=org, bucket=bucket, create=create, timeout_seconds=5.0)


async def checked(given: InfluxSettings) -> CheckReport:
    sink = InfluxLineSink(given)
    try:
        return await sink.check()
    finally:
        await sink.close()


async def connected(given: InfluxSettings) -> bool:
    """Return whether a run could begin."""
    sink = InfluxLineSink(given)
    try:
        await sink.connect()
    except Stopped:
        return False
    else:
        return True
    finally:
        await sink.close()


CASES = list(product(ORGS, BUCKETS, (False, True)))


@pytest.mark.parametrize(("org", "bucket", "create"), CASES, ids=lambda each: str(each).replace(" ", "_"))
def test_check_says_whether_a_run_can_begin(org: str, bucket: str, create: bool) -> None:
    """In each spelling; with `create` a missing bucket is not a problem."""
    with SimServer(2, database="lambda", org="class") as server:
        given = settings(server.url, ORGS[org], BUCKETS[bucket], create)
        report = asyncio.run(checked(given))
        can_begin = asyncio.run(connected(given))

    expected = org in ("name", "id") and (bucket in ("name", "id") or (bucket == "missing" and create))
    assert (report.ok, can_begin) == (expected, expected)
    if bucket == "missing" and expected:
        assert any("`run` creates it" in finding.text and finding.ok for finding in report.findings)


@pytest.mark.parametrize("create", [False, True])
def test_check_says_whether_a_run_can_begin_on_1x_too(create: bool) -> None:
    with SimServer(1, database="lambda") as server:
        given = settings(server.url, None, "yield", create)
        report = asyncio.run(checked(given))
        can_begin = asyncio.run(connected(given))

    assert (report.ok, can_begin) == (create, create)


@pytest.mark.parametrize("language", ["influxql", "flux", "auto"])
@pytest.mark.parametrize("bucket", ["name", "id"])
@pytest.mark.parametrize("org", ["name", "id"])
def test_rows_are_written_and_read_in_each_spelling(org: str, bucket: str, language: str) -> None:
    async def main(url: str) -> list[object]:
        given = settings(url, ORGS[org], BUCKETS[bucket], create=False)
        sink = InfluxLineSink(given)
        await sink.connect()
        await sink.write([f"for if=1 {START}"])
        await sink.close()
        asked = Query(measurement="for", statement=None, where=(), fields=(), tags=(), language=language)  # type: ignore[arg-type]
        source = InfluxRows(given, asked)
        try:
            await source.connect()
            window = await source.fetch(START, START + 1)
            rows = [row.columns["if"] async for chunk in window.chunks() for row in chunk]
            window.close()
        finally:
            await source.close()
        return rows

    with SimServer(2, database="lambda", org="class") as server:
        assert asyncio.run(main(server.url)) == [1.0]
