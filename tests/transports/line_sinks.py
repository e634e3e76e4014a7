"""A line sink of InfluxDB that is connected or checked once, and closed."""

from __future__ import annotations

import asyncio

from iggyflux.pipeline import InfluxSettings
from iggyflux.transports.influxdb.admin import CheckReport
from iggyflux.transports.influxdb.write.sink import InfluxLineSink

_SECONDS = 120.0
"""The longest time of a call: none may hang."""


def connect(given: InfluxSettings, *, times: int = 1) -> None:
    """Connect, more than once as after a lost connection.  Raise what `connect` raises."""

    async def main() -> None:
        sink = InfluxLineSink(given)
        try:
            for _ in range(times):
                await sink.connect()
        finally:
            await sink.close()

    asyncio.run(asyncio.wait_for(main(), _SECONDS))


def check(given: InfluxSettings) -> CheckReport:
    """Return the report for `iggyflux check`."""

    async def main() -> CheckReport:
        sink = InfluxLineSink(given)
        try:
            return await sink.check()
        finally:
            await sink.close()

    return asyncio.run(asyncio.wait_for(main(), _SECONDS))
