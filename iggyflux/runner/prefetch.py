"""Fetch the windows of a reader: the server answers for the next window while the present one is being sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from iggyflux.delivery.windows import Read
from iggyflux.transports.base import RowSource, Window


class Prefetcher:
    """Fetches windows, at most one of them ahead."""

    def __init__(self, source: RowSource, seconds: Callable[[], float], observe: Callable[[float], None]) -> None:
        """`seconds` is the time of the clock; `observe` gets how long each query took, answered or not."""
        self._source = source
        self._seconds = seconds
        self._observe = observe
        self._ahead: tuple[Read, asyncio.Task[Window]] | None = None

    def prefetch(self, read: Read | None) -> None:
        """Begin to fetch a window that will be asked for later, unless another one is already fetched ahead."""
        if read is not None and self._ahead is None:
            self._ahead = read, self._begin(read)

    async def fetch(self, read: Read) -> asyncio.Task[Window]:
        """Return the task that fetches this window: the one of `prefetch`, or a new one."""
        if self._ahead is not None:
            ahead, task = self._ahead
            if (ahead.start, ahead.stop) == (read.start, read.stop):
                self._ahead = None
                return task
            if ahead.lane == read.lane:
                await self.cancel()
        return self._begin(read)

    async def cancel(self) -> None:
        """Cancel what was fetched ahead; idempotent."""
        if self._ahead is None:
            return
        (_, task), self._ahead = self._ahead, None
        task.cancel()
        (found,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(found, BaseException):
            found.close()

    def _begin(self, read: Read) -> asyncio.Task[Window]:
        return asyncio.ensure_future(self._fetch(read))

    async def _fetch(self, read: Read) -> Window:
        began = self._seconds()
        try:
            window = await self._source.fetch(read.start, read.stop)
        except Exception:  # a query that is cancelled says nothing
            self._observe(self._seconds() - began)
            raise
        self._observe(self._seconds() - began)
        return window
