"""The ledger of a route on disk: what `delivery.settled` knows, written at most once a second, beside the route.

The guarantee does not depend on it, so a ledger that cannot be read or written stops nothing and delays nothing.

| this happens                            | the ledger                                                           |
|-----------------------------------------|----------------------------------------------------------------------|
| batches were acknowledged               | notes them in memory; a thread makes and writes the record, also     |
|                                         | where no batch follows                                               |
| the file is locked, the disk is full, … | logs `ledger.unusable` once, and tries again later                   |
| … when it is read                       | as before; what is settled until then is not noted                   |
| offsets are read again                  | cuts them: they may belong to other messages now                     |
| the route is connected, and the last    | forgets the partition: its log was replaced                          |
| message of a partition is another one   |                                                                      |
| … the ledger is read later              | the same, before it notes anything                                   |
| a run has fewer workers than before     | the first one takes over the ledgers of those that are gone          |
| the end of the run                      | one last write; the file is waited for no longer than `BUSY_SECONDS` |
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from iggyflux.delivery.settled import PlanInterval, SettledBatch, SettledOffsets
from iggyflux.disk import file_name
from iggyflux.errors import NotConnected, Stopped
from iggyflux.mapping import OnError
from iggyflux.records import Partition
from iggyflux.runner.events import emit
from iggyflux.runner.ledger import Job
from iggyflux.state import sqlite
from iggyflux.state.sqlite import SUFFIX, SqliteState
from iggyflux.state.store import StateStore
from iggyflux.transports.base import Comparing, Worker

KIND: Final = "ledger"
_WORKERS: Final = "workers"
BUSY_SECONDS: Final = 0.2
"""How long a route waits for a locked ledger: less than any stop may take."""
EVERY_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 5.0

log = logging.getLogger("iggyflux.runner")


def ledger_state(folder: Path, name: str, worker: int = 0, *, busy_seconds: float = sqlite.BUSY_SECONDS) -> SqliteState:
    """Return the state of the ledger of the writer `name` in `folder`, as one of the workers of a run keeps it.

    The first worker keeps that of a run alone, each other one its own in a folder beneath it.
    """
    place = folder / _WORKERS / str(worker) if worker else folder
    path, owner = place / f"{file_name(name)}.ledger{SUFFIX}", f"the ledger of {name!r}"
    return SqliteState(path, KIND, name, owner, busy_seconds=busy_seconds)


def read_ledgers(folder: Path, name: str) -> SettledOffsets | None:
    """Return what the ledgers of all workers of the writer `name` have together; None if there is none.

    Raise `Stopped` if one cannot be read.
    """
    found = None
    for worker in _workers(folder, name):
        state = ledger_state(folder, name, worker)
        try:
            record = state.read()
        finally:
            state.close()
        if record is not None:
            found = SettledOffsets.of(record) if found is None else found.joined(SettledOffsets.of(record))
    return found


def left_ledgers(folder: Path, name: str, workers: int) -> list[SqliteState]:
    """Return the ledgers of the writer `name` that workers kept which a run of so many `workers` does not have.

    Raise `Stopped`.
    """
    return [ledger_state(folder, name, worker) for worker in _workers(folder, name) if worker >= workers]


def _workers(folder: Path, name: str) -> list[int]:
    """Return the workers that may have a ledger, the first one always."""
    place = folder / _WORKERS
    with sqlite.translate_errors(place, "use"):
        try:
            numbers = sorted(int(each) for each in os.listdir(place) if each.isdecimal())  # noqa: PTH208  # names only
        except (FileNotFoundError, NotADirectoryError):
            return [0]
        return [0, *(worker for worker in numbers if worker and ledger_state(folder, name, worker).path.exists())]


class SettledLedger:
    """The ledger of one route."""

    def __init__(
        self,
        route: str,
        on_error: OnError,
        store: StateStore,
        left: Callable[[], Sequence[StateStore]] = lambda: (),
    ) -> None:
        """`left` returns the ledgers of the route that no process keeps any more; it may block, and raise `Stopped`."""
        self._route = route
        self._left = left
        self.on_error = on_error
        self._store = store
        self._worker = Worker("ledger")
        self._settled: SettledOffsets | None = None
        self._source: Comparing | None = None
        """What it is compared with when it is read."""
        self._cuts: dict[Partition, int] = {}
        """The offsets to cut at when it is read."""
        self._is_changed = self._is_reported = False
        self._due = 0.0
        self._writing: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Read what is stored, before the source is connected for the first time; idempotent.  Call `compare` then."""
        if self._settled is None and self._writing is None and self._source is None:
            await self._read_or_write(None)

    def intervals_of(self, job: Job, plan: str) -> Sequence[PlanInterval]:
        """Return what is to be noted of a settled batch when it is acknowledged; `plan` is the identity of its plan."""
        if self._settled is None:
            return ()
        found = self._settled.new(job.batch.partition, plan, _settled_batch(job, drops=self.on_error is OnError.SKIP))
        return [(plan, each) for each in found]

    def note(self, intervals: Iterable[tuple[Partition, PlanInterval]]) -> None:
        """Add what was acknowledged, in memory."""
        if self._settled is None:
            return
        for partition, (plan, interval) in intervals:
            self._settled.add(partition, plan, interval)
            self._is_changed = True

    async def compare(self, source: Comparing) -> None:
        """Forget the partitions whose log was replaced.  Raise `NotConnected`."""
        self._source = source
        if self._settled is not None:
            await self._forget_replaced(self._settled)

    async def _forget_replaced(self, settled: SettledOffsets) -> None:
        lasts = settled.lasts()
        if self._source is None or not lasts:
            return
        for place in await self._source.replaced(lasts):
            self._is_changed |= settled.cut(place, 0)

    def cut(self, ends: Mapping[Partition, int]) -> None:
        """Forget these offsets and all after them: they are read again."""
        for partition, offset in ends.items():
            if self._settled is None:
                self._cuts[partition] = min(offset, self._cuts.get(partition, offset))
            elif self._settled.cut(partition, offset):
                self._is_changed = True

    @property
    def is_unwritten(self) -> bool:
        """Whether something is to be stored, or to be read: call `write` again soon."""
        return self._is_changed or self._settled is None

    def write(self, now: float) -> None:
        """Begin to store what was added, if a second has passed since the last time; `now` is the time of the clock."""
        if self._writing is not None:
            if not self._writing.done():
                return
            self._writing.result()  # a mistake of ours stops the route
            self._writing = None
        if now >= self._due and self.is_unwritten:
            self._due = now + EVERY_SECONDS
            self._writing = asyncio.create_task(self._read_or_write(now))

    async def close(self) -> None:
        """Store what was added and release the state; idempotent."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await self._worker.finish(self._close)

    async def _read_or_write(self, now: float | None) -> None:
        try:
            if self._settled is None:
                settled = await self._worker.call(self._read)
                with suppress(NotConnected):  # the route connects again
                    await self._forget_replaced(settled)
                    self._settled = settled
                    self.cut(self._cuts)
            else:
                self._is_changed = False
                await self._worker.call(self._commit, self._settled.copy())
            self._is_reported = False
        except (Stopped, NotConnected) as error:
            self._is_changed = True
            self._due = 0.0 if now is None else now + _AGAIN_SECONDS
            self._report(error)

    def _commit(self, settled: SettledOffsets) -> None:
        self._store.commit(settled.record())

    def _close(self) -> None:
        try:
            if self._settled is not None and self._is_changed:
                self._commit(self._settled)
        except (Stopped, NotConnected) as error:
            self._report(error)
        finally:
            self._store.close()

    def _read(self) -> SettledOffsets:
        self._store.take()
        found = SettledOffsets.of(self._store.read())
        for store in self._left():
            found = self._taken_over(store, found)
        return found

    def _taken_over(self, store: StateStore, found: SettledOffsets) -> SettledOffsets:
        """Return `found` with the claims of a ledger that is left: from now on they are compared with the log here."""
        try:
            store.take()
            found = found.joined(SettledOffsets.of(store.read()))
            self._commit(found)
            store.replace(None)
        except Stopped as error:  # another run has it, or it cannot be read
            self._report(error)
        finally:
            store.close()
        return found

    def _report(self, error: Stopped | NotConnected) -> None:
        if not self._is_reported:
            self._is_reported = True
            emit(log, logging.WARNING, "ledger.unusable", route=self._route, reason=str(error))


def _settled_batch(job: Job, *, drops: bool) -> SettledBatch:
    rendered, origins = job.rendered, job.rendered.origins
    failed = {failure.index for failure in rendered.failures}
    if job.refusals:
        failed.update(map(job.message_of, job.refusals))
        refused = {refusal.line for refusal in job.refusals}
        origins = [origin for line, origin in enumerate(origins) if line not in refused]
    skipped = [*rendered.skipped, *rendered.empty]
    letters, dropped = ((), failed) if drops else (failed, ())
    return SettledBatch(job.messages, origins, letters, dropped, skipped, rendered.undeclared)
