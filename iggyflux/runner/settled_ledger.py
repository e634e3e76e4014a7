"""The ledger of a route on disk: what `delivery.settled` knows, written at most once a second.

The guarantee does not depend on it, so a ledger that cannot be written stops nothing: `ledger.unusable` is logged once,
and the route goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from iggyflux.delivery.settled import PlanInterval, SettledBatch, SettledOffsets
from iggyflux.disk import file_name
from iggyflux.errors import NotConnected, Stopped
from iggyflux.mapping import OnError
from iggyflux.records import Partition
from iggyflux.runner.events import emit
from iggyflux.runner.ledger import Job
from iggyflux.state.sqlite import SUFFIX, SqliteState
from iggyflux.state.store import StateStore
from iggyflux.transports.base import Worker

KIND: Final = "ledger"
EVERY_SECONDS: Final = 1.0

log = logging.getLogger("iggyflux.runner")


def ledger_state(folder: Path, name: str) -> SqliteState:
    """Return the state of the ledger of the writer `name`, on disk in `folder`."""
    return SqliteState(folder / f"{file_name(name)}.ledger{SUFFIX}", KIND, name, f"the ledger of {name!r}")


class SettledLedger:
    """The ledger of one route."""

    def __init__(self, route: str, on_error: OnError, store: StateStore) -> None:
        self._route = route
        self.on_error = on_error
        self._store = store
        self._worker = Worker("ledger")
        self._settled: SettledOffsets | None = None
        self._is_unusable = self._is_changed = False
        self._due = 0.0

    async def connect(self) -> None:
        """Read what is stored; idempotent."""
        if self._settled is None and not self._is_unusable:
            try:
                self._settled = await self._worker.call(self._read)
            except (Stopped, NotConnected) as error:
                self._give_up(error)

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

    @property
    def is_changed(self) -> bool:
        """Whether something was added that is not written."""
        return self._settled is not None and self._is_changed

    async def write(self, now: float, *, at_once: bool = False) -> None:
        """Store what was added, if a second has passed since the last time; `now` is the time of the clock."""
        if self._settled is None or not self._is_changed or (now < self._due and not at_once):
            return
        self._due, self._is_changed = now + EVERY_SECONDS, False
        try:
            await self._worker.call(self._store.commit, self._settled.record())
        except (Stopped, NotConnected) as error:
            self._give_up(error)

    async def close(self) -> None:
        """Store what was added and release the state; idempotent."""
        await self._worker.finish(self._close)

    def _close(self) -> None:
        try:
            if self._settled is not None and self._is_changed:
                self._store.commit(self._settled.record())
        except (Stopped, NotConnected) as error:
            self._give_up(error)
        finally:
            self._store.close()

    def _read(self) -> SettledOffsets:
        self._store.take()
        return SettledOffsets.of(self._store.read())

    def _give_up(self, error: Stopped | NotConnected) -> None:
        self._settled, self._is_unusable = None, True
        emit(log, logging.WARNING, "ledger.unusable", route=self._route, reason=str(error))


def _settled_batch(job: Job, *, drops: bool) -> SettledBatch:
    rendered, origins = job.rendered, job.rendered.origins
    failed = {failure.index for failure in rendered.failures}
    if job.refusals:
        failed.update(map(job.message_of, job.refusals))
        refused = {refusal.line for refusal in job.refusals}
        origins = [origin for line, origin in enumerate(origins) if line not in refused]
    skipped = [*rendered.skipped, *rendered.empty]
    return SettledBatch(job.messages, origins, () if drops else failed, failed if drops else (), skipped)
