"""Fetch the windows of a reader: the server answers for the next window while the present one is being sent."""

from __future__ import annotations

import asyncio

from iggyflux.delivery.windows import Read
from iggyflux.transports.base import RowSource, Window


class Prefetcher:
    """Fetches windows, at most one of them ahead."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._ahead: tuple[Read, asyncio.Task[Window]] | None = None

    def use(self, source: RowSource) -> None:
        """Fetch from another source from now on; nothing may be fetched ahead."""
        self._source = source

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
        return asyncio.ensure_future(self._source.fetch(read.start, read.stop))
