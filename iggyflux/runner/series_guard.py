"""`limits.series` of a writer while it runs: it keeps the known series, and does what `on_limit` says of the others.

| `on_limit`  | a line of a series beyond the limit                                                         |
|-------------|---------------------------------------------------------------------------------------------|
| warn        | is sent; `series.limit` is logged once                                                      |
| stop        | stops the route (IFX622); nothing of its part of a batch is sent                            |
| dead_letter | is not sent; its message fails (IFX622) as `on_error` says, and its other lines are sent    |

New series are stored before their lines are sent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from iggyflux.delivery.lines import point_key
from iggyflux.delivery.series import BEYOND_LIMIT, LIMIT_POINTER, SeriesLimit, pack, unpack
from iggyflux.disk import file_name
from iggyflux.errors import Stopped
from iggyflux.records import Failure, Rendered
from iggyflux.runner.events import emit
from iggyflux.spec import OnLimit
from iggyflux.state.sqlite import SUFFIX, SqliteState
from iggyflux.state.store import StateStore
from iggyflux.transports.base import Worker


def series_state(folder: Path, name: str) -> SqliteState:
    """Return the state of the writer `name`, on disk in `folder`."""
    return SqliteState(folder / f"{file_name(name)}.series{SUFFIX}", "series", name, f"the series of {name!r}")


_MOST_BLOBS = 64
_HINT = "remove the tag that makes them, or raise `limits.series`; `iggyflux dry-run` shows the values of each tag"

log = logging.getLogger("iggyflux.runner")


class SeriesGuard:
    """The limit of one route; `store` keeps its series."""

    def __init__(self, route: str, most: int, on_limit: OnLimit, store: StateStore) -> None:
        self._route = route
        self._most = most
        self._on_limit = on_limit
        self._store = store
        self._worker = Worker("series")
        self._limit: SeriesLimit | None = None
        self._blobs: list[int] = []
        self._has_warned = self._was_near = False

    @property
    def most(self) -> int:
        """The most series that are written."""
        return self._most

    @property
    def count(self) -> int | None:
        """The number of known series; None before `connect`."""
        return None if self._limit is None else self._limit.count

    async def connect(self) -> None:
        """Read what is stored; idempotent.  Raise `Stopped`."""
        if self._limit is None:
            self._limit = await self._worker.call(self._read)

    async def admit(self, rendered: Rendered) -> Rendered:
        """Return what may be sent of `rendered`: all of it, or without the lines of series beyond the limit.

        Raise `Stopped`.
        """
        limit = self._limit
        assert limit is not None, "connect first"  # noqa: S101
        judged = limit.judge(rendered.lines)
        if judged.over and self._on_limit == "stop":
            raise Stopped(self._words(rendered.lines[judged.over[0]]), _HINT, BEYOND_LIMIT)
        if judged.new:
            await self._worker.call(self._commit, judged.new, limit)
            limit.add(judged.new)
            self._warn_near(limit)
        if not judged.over:
            return rendered
        self._warn(rendered.lines[judged.over[0]])
        return rendered if self._on_limit == "warn" else self._without(rendered, judged.over)

    async def close(self) -> None:
        """Release the state; idempotent."""
        await self._worker.finish(self._store.close)

    # --- in the thread ---

    def _read(self) -> SeriesLimit:
        self._store.take()
        record = self._store.read()
        self._blobs = [] if record is None else [int(number) for number in record["blobs"]]
        known = {each for number in self._blobs for each in unpack(self._store.blob(number))}
        return SeriesLimit(self._most, known)

    def _commit(self, new: Sequence[int], limit: SeriesLimit) -> None:
        """Store new series: in a blob of their own, or with all others where there are many blobs."""
        number = max(self._blobs, default=0) + 1
        dropped, kept = (self._blobs, []) if len(self._blobs) >= _MOST_BLOBS else ([], self._blobs)
        content = pack([*limit.known, *new] if dropped else new)
        record = {"blobs": [*kept, number], "series": limit.count + len(new)}
        self._store.commit(record, added={number: BytesIO(content)}, dropped=dropped)
        self._blobs = [*kept, number]

    # --- lines beyond the limit ---

    def _without(self, rendered: Rendered, over: Sequence[int]) -> Rendered:
        """Return `rendered` without the lines `over`, and with a failure for each."""
        failures = [
            Failure(
                rendered.origins[index],
                None,
                None,
                BEYOND_LIMIT,
                LIMIT_POINTER,
                self._words(rendered.lines[index]),
                hint=_HINT,
            )
            for index in over
        ]
        return rendered.without(over, failures)

    def _words(self, line: str) -> str:
        return f"a new series beyond the {self._most:,} of `limits.series`: {point_key(line)[0]}"

    def _warn(self, line: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            fields = {"route": self._route, "limit": self._most, "series": point_key(line)[0], "hint": _HINT}
            emit(log, logging.WARNING, "series.limit", **fields)

    def _warn_near(self, limit: SeriesLimit) -> None:
        if limit.is_near and not self._was_near:
            self._was_near = True
            fields = {"route": self._route, "known": limit.count, "limit": limit.most, "hint": _HINT}
            emit(log, logging.WARNING, "series.near_limit", **fields)
