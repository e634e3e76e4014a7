"""Rows of InfluxDB, a span of time at a time: the `RowSource` of a query.

It holds no position and retries nothing: what an answer means stands in `influxdb_query_answers`, how a statement is
written in `influxdb_query_statements`, how rows are read off an answer in `influxdb_query_rows`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from iggyflux.mapping import Query
from iggyflux.pipeline import InfluxSettings
from iggyflux.records import Row

MOST_BYTES = 4 * 1024**3
"""How large an answer may be; one that is larger is `TooMuch`."""


class InfluxRows:
    """A `RowSource`.  `language`, `dialect` and what the server is are known after `connect`."""

    def __init__(
        self,
        settings: InfluxSettings,
        query: Query,
        *,
        column: str = "time",
        folder: Path | None = None,
        most_bytes: int = MOST_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Opens nothing.  `column` is the cursor's, `folder` where answers are kept while they are read.

        Raises `PipelineError` where the settings cannot be used.
        """
        self._settings = settings
        self._query = query
        self._column = column
        self._folder = folder
        self._most_bytes = most_bytes
        self._now = now

    @property
    def language(self) -> str:
        """What is spoken: `sql`, `influxql` or `flux`; `auto` before it is known."""
        return self._query.language

    async def connect(self) -> None:
        """As `RowSource.connect`."""
        raise NotImplementedError

    async def now(self) -> int:
        """As `RowSource.now`; raises `NotConnected` or `Stopped`."""
        raise NotImplementedError

    async def first(self) -> int | None:
        """As `RowSource.first`."""
        raise NotImplementedError

    async def fetch(self, start: int, stop: int) -> InfluxWindow:
        """As `RowSource.fetch`."""
        raise NotImplementedError

    async def close(self) -> None:
        """As `RowSource.close`."""


class InfluxWindow:
    """A `Window`: the answers of one span on disk, complete, decoded in a thread as they are asked for."""

    @property
    def rows(self) -> int | None:
        """How many, where that is known."""
        return None

    def chunks(self) -> AsyncIterator[Sequence[Row]]:
        """As `Window.chunks`; time is integer nanoseconds in the cursor's column."""
        raise NotImplementedError

    def close(self) -> None:
        """As `Window.close`."""
