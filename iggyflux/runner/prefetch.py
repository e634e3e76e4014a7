"""Fetch the windows of a reader: the server answers for the next window while the present one is being sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from iggyflux.delivery.windows import Read
from iggyflux.transports.base import RowSource, Window


@dataclass(slots=True, eq=False)
class Fetch:
    """A window that is being fetched, and when that began and ended; 0 is not yet."""

    task: asyncio.Task[Window]
    began: int
    ended: int = 0


class Prefetcher:
    """Fetches windows, at most one of them ahead."""

    def __init__(
        self,
        source: RowSource,
        seconds: Callable[[], float],
        observe: Callable[[float], None],
        now: Callable[[], int],
    ) -> None:
        """`seconds` is the time of the clock; `observe` gets how long each query took; `now` is what fetches tell."""
        self._source = source
        self._seconds = seconds
        self._observe = observe
        self._now = now
        self._ahead: tuple[Read, Fetch] | None = None

    def use(self, source: RowSource) -> None:
        """Fetch from another source from now on; nothing may be fetched ahead."""
        self._source = source

    def prefetch(self, read: Read | None) -> None:
        """Begin to fetch a window that will be asked for later, unless another one is already fetched ahead."""
        if read is not None and self._ahead is None:
            self._ahead = read, self._begin(read)

    async def fetch(self, read: Read) -> Fetch:
        """Return what fetches this window: the one of `prefetch`, or a new one."""
        if self._ahead is not None:
            ahead, fetch = self._ahead
            if (ahead.start, ahead.stop) == (read.start, read.stop):
                self._ahead = None
                return fetch
            if ahead.lane == read.lane:
                await self.cancel()
        return self._begin(read)

    async def cancel(self) -> None:
        """Cancel what was fetched ahead; idempotent."""
        if self._ahead is None:
            return
        (_, fetch), self._ahead = self._ahead, None
        fetch.task.cancel()
        (found,) = await asyncio.gather(fetch.task, return_exceptions=True)
        if not isinstance(found, BaseException):
            found.close()

    def _begin(self, read: Read) -> Fetch:
        fetch = Fetch(asyncio.ensure_future(self._fetch(read)), self._now())

        def end(_task: object) -> None:
            fetch.ended = self._now()

        fetch.task.add_done_callback(end)
        return fetch

    async def _fetch(self, read: Read) -> Window:
        began = self._seconds()
        try:
            window = await self._source.fetch(read.start, read.stop)
        except Exception:  # a query that is cancelled says nothing
            self._observe(self._seconds() - began)
            raise
        self._observe(self._seconds() - began)
        return window
