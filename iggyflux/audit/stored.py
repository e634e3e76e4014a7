"""Ask the store for the points of a window, with the queries of readers.

One measurement is asked at a time.  A query that fails is repeated as often as `max_retries` says; one that is too much
for the server is split.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeVar

from iggyflux.audit.points import Entry
from iggyflux.errors import NotConnected, Stopped, TooMuch
from iggyflux.pipeline import InfluxSettings
from iggyflux.spec import Query
from iggyflux.transports.influxdb.query.source import InfluxRows, InfluxWindow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What is known of a store: the dialect of its lines, its product, and how long it keeps points.

    `oldest_ns` is the time before which points are expired; None if that is not known, or never.
    """

    dialect: str
    keeps_seconds: int | None
    oldest_ns: int | None


class StoredPoints:
    """The points of a store, window by window."""

    def __init__(self, settings: InfluxSettings, unit_ns: int) -> None:
        self._settings = settings
        self._unit_ns = unit_ns
        self._rows: InfluxRows | None = None
        self._measurement = ""

    async def facts(self) -> StoreFacts:
        """Connect.  Raise `NotConnected` or `Stopped`."""
        rows = await self._of("iggyflux")
        seconds = (await self._repeated(rows.retention)).seconds
        oldest = None if not seconds else await self._repeated(rows.now) - seconds * 10**9
        return StoreFacts(rows.flavor.dialect.value, seconds, oldest)

    async def of(self, measurement: str, entries: list[Entry]) -> AsyncIterator[tuple[list[Entry], InfluxWindow]]:
        """Yield the entries of a window in one part or several, each with what the store has of that time.

        The caller closes what it gets.  Raise `NotConnected` or `Stopped`.
        """
        rows = await self._of(measurement)
        start, stop = entries[0][0] * self._unit_ns, entries[-1][0] * self._unit_ns + 1
        try:
            window = await self._repeated(lambda: rows.fetch(start, stop))
        except TooMuch as error:
            if stop - start == 1:
                raise Stopped(f"one time has too many points for one answer: {error}", code="IFX642") from error
            middle = _middle(entries)
            for part in (entries[:middle], entries[middle:]):
                async for found in self.of(measurement, part):
                    yield found
            return
        yield entries, window

    async def close(self) -> None:
        """Release everything; idempotent."""
        rows, self._rows = self._rows, None
        if rows is not None:
            await rows.close()

    async def _of(self, measurement: str) -> InfluxRows:
        if self._rows is None or self._measurement != measurement:
            await self.close()
            query = Query(measurement, None, "auto", (), (), ())
            self._rows, self._measurement = InfluxRows(self._settings, query), measurement
            await self._repeated(self._rows.connect)
        return self._rows

    async def _repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a call that is repeated while the server is not reachable."""
        settings = self._settings
        seconds = settings.retry_backoff_seconds
        for _ in range(settings.max_retries):
            try:
                return await call()
            except NotConnected as error:
                await asyncio.sleep(max(seconds, error.retry_after_seconds or 0.0))
                seconds = min(seconds * 2, settings.max_retry_backoff_seconds)
        return await call()


def _middle(entries: Sequence[Entry]) -> int:
    """Return the index at which the second half of the times begins."""
    low, high = entries[0][0], entries[-1][0]
    return bisect_left(entries, low + (high - low + 1) // 2, key=itemgetter(0))
