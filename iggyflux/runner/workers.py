"""A run in several processes: what `supervisor` does for the routes of a pipeline.

Routes whose partitions can be shared run in every worker, each with its share of them: members of one group of Iggy, or
the rule of `transports.share`.  All others run in the first worker, which also keeps its state where a run alone would.
The run has one status: `merging` makes it of the last report of each worker, once a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Final

from iggyflux.errors import PipelineError, Problem
from iggyflux.pipeline import Pipeline
from iggyflux.records import Partition
from iggyflux.runner.configuration import Configuration
from iggyflux.runner.documents import fixed_identity
from iggyflux.runner.events import emit
from iggyflux.runner.exporting import exporting
from iggyflux.runner.listening import listening, public_tree
from iggyflux.runner.merging import Part, after_end, merged_configuration, merged_route, summary_of_workers
from iggyflux.runner.open import PreparedRoute, prepare_routes
from iggyflux.runner.partitions import count_partitions
from iggyflux.runner.run import about_route
from iggyflux.runner.service_manager import ServiceManager, notifying
from iggyflux.runner.status import RouteStatus, Status, Summary, WorkerStatus
from iggyflux.runner.status_file import StatusFile
from iggyflux.runner.stop import Stop, calling_on_hangup
from iggyflux.runner.supervisor import Supervisor, WorkerProcess
from iggyflux.transports.share import Share

MOST_WORKERS: Final = 256
_TICK_SECONDS: Final = 1.0
_MOST_RELOAD_SECONDS: Final = 60.0
_NO_METRICS: Final = {"OTEL_METRICS_EXPORTER": "none"}
_NO_TRACES: Final = {"OTEL_TRACES_EXPORTER": "none"}

log = logging.getLogger("iggyflux.runner")


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use; a limit of CPU time (of a container) is not known here."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def encoded(status: Status) -> bytes:
    """Return the report of a worker.  It never leaves this machine, and only our own workers write it."""
    return pickle.dumps(status)


async def run_workers(
    pipeline: Pipeline,
    command: Callable[[Share, str], Sequence[str]],
    workers: int | None,
    *,
    until_end: bool = False,
    only: Sequence[str] = (),
    stop: Stop,
    status: Status,
    status_file: Path | None = None,
    listen: str | None = None,
    manager: ServiceManager,
) -> Summary:
    """Run so many workers as `run_pipeline` does in one process, each by the `command` for its share; return a summary.

    `workers` None is one for each CPU that this process may use, but not more than there are partitions to share.
    A worker is given the identity of what must be as it was when the run began.  Raise `DocumentError` for problems
    found before the start: IFX831 if nothing can be shared.
    """
    prepared = prepare_routes(pipeline, until_end=until_end, only=only)
    _check(prepared)
    if workers is None:
        workers = max(min(usable_cpus(), await count_partitions(prepared) or MOST_WORKERS, MOST_WORKERS), 1)
    shares = [Share(number, workers) for number in range(workers)]
    fixed = fixed_identity(pipeline, prepared)
    begin = time.monotonic()
    merging = _Merging(prepared, shares, status, lambda: time.monotonic() - begin)
    supervisor = Supervisor(
        [command(share, fixed) for share in shares],
        reported=merging.reported,
        ended=merging.ended,
        stop=stop,
        has_end=until_end,
        shutdown_seconds=pipeline.shutdown_timeout_seconds,
        environ={**os.environ, **_NO_METRICS},
    )
    status.started_unix = status.configuration.since_unix = time.time()
    merging.update(supervisor.workers)
    file = (
        None if status_file is None else StatusFile(status, status_file, merging.seconds, every_seconds=_TICK_SECONDS)
    )
    with (
        listening(pipeline.telemetry, status, listen),
        exporting(
            partial(public_tree, status),
            propagates=False,
            shutdown_seconds=pipeline.shutdown_timeout_seconds,
            environ={**os.environ, **_NO_TRACES},
        ),
        calling_on_hangup(lambda: merging.reload(supervisor, manager), for_good=True),
    ):
        async with notifying(manager, status, stop):
            for route in prepared:
                if (reason := route.alone_because) is not None:
                    emit(log, logging.INFO, "route.not_shared", route=route.setup.name, worker=0, reason=reason)
            idle = asyncio.create_task(_warn_of_idle(prepared, workers), name="partitions of workers")
            ticking = asyncio.create_task(merging.follow(supervisor.workers), name="status of workers")
            if file:
                file.start()
            try:
                await supervisor.run()
            finally:
                ticking.cancel()
                idle.cancel()
                ends = await asyncio.gather(ticking, idle, return_exceptions=True)
                merging.update(supervisor.workers)
                if file:
                    file.close()
            for end in ends:
                if isinstance(end, Exception):  # a bug, and not the cancellation
                    raise end
    return summary_of_workers(status, status.seconds, supervisor.workers)


def _partitions_of(routes: Sequence[RouteStatus]) -> list[str]:
    """Return the partitions that a process reads: those of its groups, else those that it has settled something of."""
    groups = {
        Partition(group.stream, group.topic, number)
        for route in routes
        for group in route.groups
        for number in group.partitions
    }
    settled = {place for route in routes if not route.groups for place in route.offsets.copy()}
    return [str(place) for place in sorted(groups | settled, key=attrgetter("stream", "topic", "partition"))]


async def _warn_of_idle(prepared: Sequence[PreparedRoute], workers: int) -> None:
    """Warn where there are more workers than partitions now; more partitions may come."""
    count = await count_partitions(prepared)
    if count and workers > count:
        fields = {"workers": workers, "partitions": count, "idle": workers - count}
        emit(log, logging.WARNING, "workers.idle", **fields, hint=f"--workers {count} does the same, or add partitions")


def _check(prepared: Sequence[PreparedRoute]) -> None:
    """Raise `PipelineError` for routes that workers cannot run."""
    alone = [(route, reason) for route in prepared if (reason := route.alone_because) is not None]
    problems = [
        _problem(
            route, f"{route.setup.name!r} reads standard input: after a crash of its worker, messages would be missing"
        )
        for route, _ in alone
        if route.source.kind == "stdin"
    ]
    if not problems and len(alone) == len(prepared):
        problems = [_problem(route, f"workers cannot share {route.setup.name!r}: {reason}") for route, reason in alone]
    if problems:
        raise PipelineError(problems)


def _problem(route: PreparedRoute, message: str) -> Problem:
    setup = route.setup
    return setup.pipeline.problem("IFX831", setup.item, message, hint="run it without --workers")


class _Merging:
    """The status of a run, made of what its workers report."""

    def __init__(
        self, prepared: Sequence[PreparedRoute], shares: Sequence[Share], status: Status, seconds: Callable[[], float]
    ) -> None:
        self.seconds = seconds
        self._status = status
        self._names = [route.setup.name for route in prepared]
        about = {each.setup.name: about_route(each.build()) for each in prepared}
        self._parts = [
            {
                name: Part(number, RouteStatus(name, about[name]))
                for route in prepared
                if route.of(share)
                for name in [route.setup.name]
            }
            for number, share in enumerate(shares)
        ]
        self._configurations = [Configuration() for _ in shares]
        self._changes = [Configuration().changes for _ in shares]
        """Those that the ended processes of each worker counted."""
        self._reloading: asyncio.Task[None] | None = None

    def reported(self, worker: WorkerProcess, report: bytes) -> int:
        """Take the report of a worker; return the messages that its process has acknowledged."""
        found: Status = pickle.loads(report)  # noqa: S301  # written by `encoded`, in a process that this one started
        parts = self._parts[worker.number]
        for route in (each for each in found.routes if each.name in parts):
            parts[route.name] = replace(parts[route.name], now=route)
        before, now = self._changes[worker.number], found.configuration
        changes = {key: number + before[key] for key, number in now.changes.items()}
        self._configurations[worker.number] = replace(now, changes=changes)
        return sum(route.acknowledged for route in found.routes)

    def ended(self, worker: WorkerProcess) -> None:
        """Take over the counters of a process that has ended."""
        parts = self._parts[worker.number]
        self._changes[worker.number] = self._configurations[worker.number].changes
        for name, part in parts.items():
            parts[name] = after_end(part, again=worker.state == "waiting", failed=worker.failed)

    async def follow(self, workers: Sequence[WorkerProcess]) -> None:
        """Update the status once a second, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.update(workers)

    def update(self, workers: Sequence[WorkerProcess]) -> None:
        """Make the status of what is known."""
        status = self._status
        status.routes[:] = [
            merged_route([parts[name] for parts in self._parts if name in parts]) for name in self._names
        ]
        found = [each for each in self._configurations if each.since_unix]
        if found:
            status.configuration = merged_configuration(found)
        status.workers = [self._status_of(worker) for worker in workers]
        status.seconds = self.seconds()

    def _status_of(self, worker: WorkerProcess) -> WorkerStatus:
        return WorkerStatus(
            worker.number,
            worker.state,
            worker.pid,
            max(worker.starts - 1, 0),
            worker.code,
            worker.resident_bytes,
            worker.past_cpu_seconds + worker.cpu_seconds,
            {name: part.now.state for name, part in self._parts[worker.number].items()},
            sum(life.read for part in self._parts[worker.number].values() for life in (part.now, part.past) if life),
            _partitions_of([part.now for part in self._parts[worker.number].values()]),
        )

    def reload(self, supervisor: Supervisor, manager: ServiceManager) -> None:
        """Let each worker read its documents again."""
        before = {
            worker.number: self._configurations[worker.number].reads
            for worker in supervisor.workers
            if worker.has_reported
        }
        manager.reloading()
        supervisor.pass_on(signal.SIGHUP)
        self._reloading = asyncio.create_task(self._until_read(before, supervisor, manager), name="reload of workers")

    async def _until_read(self, before: Mapping[int, int], supervisor: Supervisor, manager: ServiceManager) -> None:
        until = time.monotonic() + _MOST_RELOAD_SECONDS
        while time.monotonic() < until and any(
            worker.has_reported and self._configurations[worker.number].reads == before.get(worker.number)
            for worker in supervisor.workers
            if worker.pid is not None
        ):
            await asyncio.sleep(_TICK_SECONDS)
        manager.ready()
