"""How far the loads are that run now, for `iggyflux status`: each stores it every two seconds, any process reads it.

Nothing depends on it: a load goes on where it cannot be stored.  Each load has a state of its own, the first one that
no other load has locked, so its lock says whether it runs.  A reader leaves out members that it does not know.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

from iggyflux.archives.source import archive_positions
from iggyflux.errors import Stopped
from iggyflux.runner.events import emit
from iggyflux.runner.status import InputStatus
from iggyflux.state.copies import read_state
from iggyflux.state.locks import is_held
from iggyflux.state.sqlite import SUFFIX, SqliteState, damaged, translate_errors
from iggyflux.transports.base import Worker

KIND: Final = "load-progress"
_EVERY_SECONDS: Final = 2.0

log = logging.getLogger("iggyflux.archives")


class LoadProgress(msgspec.Struct, frozen=True):
    """How much of its files the load of a process had read at a time, all its workers together."""

    pid: int
    unix: float
    """When, in seconds since the epoch."""
    bytes: int = 0
    bytes_total: int = 0
    seconds_left: float | None = None
    """The time for the rest, at the rate of this load so far; None if it is not known."""
    waiting_for: str | None = None
    """The server that is unavailable or has not answered, with the reason; None if it waits for nothing."""

    @property
    def end_unix(self) -> float | None:
        """When the load ends at that rate, in seconds since the epoch."""
        return None if self.seconds_left is None else self.unix + self.seconds_left


def running_loads(folder: Path, route: str, failed: Callable[[Stopped], None]) -> Iterator[LoadProgress]:
    """Yield the progress of each load of `route` that runs; call `failed` for a state that cannot be used (IFX701)."""
    for path in sorted(_running(folder, route).glob(f"*{SUFFIX}")):
        try:
            with translate_errors(path, "use"):
                if is_held(path.with_suffix(".lock")):
                    yield msgspec.convert(read_state(path).record, LoadProgress)
        except Stopped as error:
            failed(error)
        except msgspec.ValidationError as error:
            failed(damaged(path, str(error)))


@asynccontextmanager
async def storing_progress(
    folder: Path, route: str, read: Callable[[], InputStatus | None], waits: Callable[[], str | None] = lambda: None
) -> AsyncIterator[None]:
    """Store from time to time, inside the block, how much `read` says that the load has read, and what it waits for."""
    place, worker = _Place(folder, route), Worker("progress")

    async def always() -> None:
        while True:
            await worker.call(place.put, read() or InputStatus(), waits())
            await asyncio.sleep(_EVERY_SECONDS)

    task = asyncio.create_task(always(), name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await worker.finish(place.close)


class _Place:
    """The state of one load."""

    def __init__(self, folder: Path, route: str) -> None:
        self._folder = _running(folder, route)
        self._route = route
        self._state: SqliteState | None = None
        self._told = ""

    def put(self, read: InputStatus, waiting_for: str | None = None) -> None:
        """Store it; log why it cannot be stored, once."""
        now = round(time.time(), 3)
        found = LoadProgress(os.getpid(), now, read.done, read.total, read.seconds_left, waiting_for)
        try:
            if self._state is None:
                self._state = self._take()
                self._state.replace(found)  # whatever a load that was killed has left
            else:
                self._state.commit(found)
        except Stopped as error:
            self.close()
            if error.reason != self._told:
                self._told = error.reason
                emit(log, logging.WARNING, "status.not_written", file=self._folder, reason=error.reason)

    def close(self) -> None:
        """Let it go; idempotent."""
        if self._state is not None:
            self._state.close()
            self._state = None

    def _take(self) -> SqliteState:
        """Return the first state that no other load has."""
        for number in count():
            owner = f"the progress of a load of {self._route!r}"
            state = SqliteState(self._folder / f"{number}{SUFFIX}", KIND, self._route, owner)
            try:
                state.take()
            except Stopped as error:
                if error.code != "IFX702":
                    raise
            else:
                return state
        raise AssertionError("numbers do not end")


def _running(folder: Path, route: str) -> Path:
    return archive_positions(folder, route) / "running"
