"""A run: every route of a pipeline in one process, independent of each other, until the end or a requested stop.

A route that stops leaves the others running; the exit code is then 3.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from iggyflux.errors import IggyfluxError, NotConnected, Stopped
from iggyflux.pipeline import Pipeline
from iggyflux.runner.deliver import Clock, SystemClock
from iggyflux.runner.events import emit
from iggyflux.runner.reader_run import ReaderRun
from iggyflux.runner.route import AnyRoute, Route
from iggyflux.runner.session import first_of
from iggyflux.runner.status import RouteStatus, Status, Summary
from iggyflux.runner.stop import Stop
from iggyflux.runner.writer_run import WriterRun
from iggyflux.transports.base import Lagging

_TICK_SECONDS = 1.0

log = logging.getLogger("iggyflux.runner")


async def run_pipeline(
    pipeline: Pipeline,
    *,
    until_end: bool = False,
    only: Sequence[str] = (),
    stop: Stop | None = None,
    status: Status | None = None,
    status_file: Path | None = None,
) -> Summary:
    """Run `pipeline`, or the routes that `only` names, and return the summary.

    With `until_end` the run ends when everything that was there at the start is settled, else when `stop` is requested.
    `status` is kept up to date during the run; `status_file` holds it as JSON, new every second.  Raise `DocumentError`
    for problems found before the start; a route that stops later is in the summary.
    """
    from iggyflux.runner.open import open_routes  # imports the mapping language, which `run_routes` does not need

    routes = open_routes(pipeline, until_end=until_end, only=only)
    return await run_routes(
        routes,
        stop=stop,
        status=status,
        status_file=status_file,
        shutdown_timeout_seconds=pipeline.shutdown_timeout_seconds,
    )


async def run_routes(
    routes: Sequence[AnyRoute],
    *,
    stop: Stop | None = None,
    status: Status | None = None,
    status_file: Path | None = None,
    shutdown_timeout_seconds: float = 30.0,
    clock: Clock | None = None,
    tick_seconds: float | None = _TICK_SECONDS,
) -> Summary:
    """Run `routes` side by side."""
    stop, status, clock = stop or Stop(), status or Status(), clock or SystemClock()
    status.routes[:] = [RouteStatus(route.name) for route in routes]
    started = clock.monotonic()
    runs = [
        WriterRun(route, counters, stop, clock) if isinstance(route, Route) else ReaderRun(route, counters, stop, clock)
        for route, counters in zip(routes, status.routes, strict=True)
    ]
    tasks = [asyncio.create_task(_run_one(each), name=f"route {each.route.name}") for each in runs]
    ticking = None
    if tick_seconds is not None:
        ticking = asyncio.create_task(_tick(runs, status, status_file, started, clock, tick_seconds))
    try:
        in_time = await _until_done(tasks, stop, clock, shutdown_timeout_seconds)
    finally:
        for task in (*tasks, *([ticking] if ticking else [])):
            task.cancel()
        await asyncio.gather(*tasks, *([ticking] if ticking else []), return_exceptions=True)
    status.seconds = clock.monotonic() - started
    if status_file:
        _write_status(status, status_file)
    return Summary(tuple(status.routes), status.seconds, interrupted=not in_time)


async def _run_one(run: WriterRun | ReaderRun) -> None:
    """Run one route; its status keeps the error that ends it, and the other routes go on."""
    route, status = run.route, run.status
    try:
        await run.run()
    except Stopped as error:
        status.error = error
    except IggyfluxError as error:
        status.error = Stopped(str(error), code="IFX690")
    except asyncio.CancelledError:
        status.state = "stopped"
        raise
    except Exception as error:  # a bug, or the machine's limits: the other routes go on
        log.exception("route.broken")
        status.error = Stopped(f"internal error: {error!r}", "report it, with the log of the run", "IFX699")
    if status.error is None:
        emit(log, logging.INFO, "route.done", route=route.name, **status.counters())
        return
    status.state = "stopped"
    why = status.error
    emit(log, logging.ERROR, "route.stopped", route=route.name, code=why.code, reason=why.reason, hint=why.hint)


async def _until_done(
    tasks: Sequence[asyncio.Task[None]], stop: Stop, clock: Clock, shutdown_timeout_seconds: float
) -> bool:
    """Wait until all routes are done, after a requested stop no longer than the timeout; return whether they are."""
    await first_of(asyncio.wait(tasks), stop.requested.wait())
    if _are_done(tasks):
        return True
    emit(log, logging.INFO, "run.stopping", seconds=shutdown_timeout_seconds)
    await first_of(asyncio.wait(tasks), stop.at_once.wait(), clock.sleep(shutdown_timeout_seconds))
    if _are_done(tasks):
        return True
    reason = "some messages were not finished in time; the next run reads them again"
    emit(log, logging.WARNING, "run.interrupted", reason=reason)
    return False


def _are_done(tasks: Sequence[asyncio.Task[None]]) -> bool:
    return all(task.done() for task in tasks)


async def _tick(
    runs: Sequence[WriterRun | ReaderRun],
    status: Status,
    file: Path | None,
    started: float,
    clock: Clock,
    seconds: float,
) -> None:
    """Update what the routes do not update themselves: lag, positions, the status file."""
    while True:
        await clock.sleep(seconds)
        status.seconds = clock.monotonic() - started
        for run in runs:
            run.refresh()
            if isinstance(run.route.source, Lagging) and run.status.state in ("running", "idle", "finishing"):
                with suppress(NotConnected, Stopped, RuntimeError):  # the route itself reports what is wrong
                    run.status.lag = await run.route.source.lag()
        if file:
            _write_status(status, file)


def _write_status(status: Status, file: Path) -> None:
    """Replace the status file; a full disk does not stop the run."""
    beside = file.with_name(f"{file.name}.new")
    tree = {"time_unix": round(time.time(), 3), **status.as_dict()}
    try:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(tree)) + b"\n")
        beside.replace(file)
    except OSError as error:
        emit(log, logging.WARNING, "status.not_written", file=file, reason=error.strerror)
