"""A run: every route of a pipeline in one process, independent of each other, until the end or a requested stop.

A route that stops leaves the others running; the exit code is then 3.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from iggyflux.errors import IggyfluxError, NotConnected, Stopped
from iggyflux.pipeline import Pipeline
from iggyflux.runner.clock import Clock, SystemClock, first_of
from iggyflux.runner.events import emit
from iggyflux.runner.reader_run import ReaderRun
from iggyflux.runner.reload import Documents, Reload
from iggyflux.runner.route import AnyRoute, Route
from iggyflux.runner.server_state import ServerState
from iggyflux.runner.service_manager import ServiceManager, notifying
from iggyflux.runner.status import About, RouteStatus, Status, Summary
from iggyflux.runner.status_file import StatusFile
from iggyflux.runner.stop import Stop
from iggyflux.runner.writer_run import WriterRun
from iggyflux.telemetry.tracing import NO_TRACING, Tracing
from iggyflux.transports.base import Lagging, server_of
from iggyflux.transports.share import ALONE, Share

_TICK_SECONDS = 1.0

if TYPE_CHECKING:
    from iggyflux.runner.documents import Check

log = logging.getLogger("iggyflux.runner")


async def run_pipeline(
    pipeline: Pipeline,
    *,
    until_end: bool = False,
    only: Sequence[str] = (),
    stop: Stop | None = None,
    status: Status | None = None,
    status_file: Path | None = None,
    listen: str | None = None,
    manager: ServiceManager | None = None,
    reloading: Callable[[Documents], Reload] | None = None,
    check: Check | None = None,
    share: Share = ALONE,
) -> Summary:
    """Run `pipeline`, or the routes that `only` names, and return the summary.

    With `until_end` the run ends when everything that was there at the start is settled, else when `stop` is requested.
    `status` is kept up to date during the run; `status_file` holds it as JSON, new every second.  `listen` is an
    address for metrics and health, instead of that of the pipeline.  `manager` learns when the run is ready, that it
    lives and that it stops.  `reloading` returns what follows changes of the documents; `check` says what is wrong with
    changed ones that compile.  Of routes whose partitions processes can share, `share` is what this one reads; its
    first one runs the others.  Raise `DocumentError` for problems found before the start; a route that stops later is
    in the summary.
    """
    from iggyflux.runner.documents import PipelineDocuments
    from iggyflux.runner.exporting import exporting
    from iggyflux.runner.listening import listening, public_tree
    from iggyflux.runner.open import prepare_routes  # imports the mapping language, which `run_routes` does not need

    prepared, status = prepare_routes(pipeline, until_end=until_end, only=only, share=share), status or Status()
    routes = [each.build() for each in prepared]
    reload = None if reloading is None else reloading(PipelineDocuments(pipeline, prepared, check))
    stop = stop or Stop()
    with (
        listening(pipeline.telemetry, status, listen),
        exporting(
            partial(public_tree, status),
            propagates=pipeline.telemetry.propagate,
            shutdown_seconds=pipeline.shutdown_timeout_seconds,
        ) as tracing,
    ):
        async with notifying(manager, status, stop) if manager else nullcontext():
            return await run_routes(
                routes,
                tracing=tracing,
                stop=stop,
                status=status,
                status_file=status_file,
                reload=reload,
                shutdown_timeout_seconds=pipeline.shutdown_timeout_seconds,
            )


async def run_routes(
    routes: Sequence[AnyRoute],
    *,
    stop: Stop | None = None,
    status: Status | None = None,
    status_file: Path | None = None,
    reload: Reload | None = None,
    shutdown_timeout_seconds: float = 30.0,
    clock: Clock | None = None,
    tick_seconds: float | None = _TICK_SECONDS,
    tracing: Tracing = NO_TRACING,
) -> Summary:
    """Run `routes` side by side; `reload` changes them, `tracing` is informed of what they do."""
    stop, status, clock = stop or Stop(), status or Status(), clock or SystemClock()
    status.routes[:] = [RouteStatus(route.name, about_route(route)) for route in routes]
    started, status.started_unix = clock.monotonic(), time.time()
    status.configuration.since_unix = status.started_unix

    def seconds() -> float:
        return clock.monotonic() - started

    servers: dict[str, ServerState] = {}
    runs = [
        _make_run(route, counters, stop, clock, servers, tracing)
        for route, counters in zip(routes, status.routes, strict=True)
    ]
    tasks = [asyncio.create_task(_run_one(each), name=f"route {each.route.name}") for each in runs]
    ticking = [] if reload is None else [asyncio.create_task(reload.follow(runs, status.configuration, clock))]
    if tick_seconds is not None:
        lags = (_follow_lag(each, clock, tick_seconds) for each in runs)
        ticking += [asyncio.create_task(each) for each in (_tick(runs, status, seconds, clock, tick_seconds), *lags)]
    file = (
        StatusFile(status, status_file, seconds, every_seconds=tick_seconds or _TICK_SECONDS) if status_file else None
    )
    if file and tick_seconds is not None:
        file.start()
    try:
        in_time = await _until_done(tasks, stop, clock, shutdown_timeout_seconds)
    finally:
        for task in (*tasks, *ticking):
            task.cancel()
        await asyncio.gather(*tasks, *ticking, return_exceptions=True)
        status.seconds = seconds()
        if file:
            file.close()
    interrupted = not in_time or any(each.state == "interrupted" for each in status.routes)
    return Summary(tuple(status.routes), status.seconds, interrupted=interrupted)


def about_route(route: AnyRoute) -> About:
    """Return what a route is; its plan is known when it is connected."""
    kind: Literal["writer", "reader"] = "writer" if isinstance(route, Route) else "reader"
    ends = server_of(route.source), server_of(route.sink)
    return About(kind, route.mapping, "", *ends)


def _make_run(
    route: AnyRoute,
    status: RouteStatus,
    stop: Stop,
    clock: Clock,
    servers: dict[str, ServerState],
    tracing: Tracing,
) -> WriterRun | ReaderRun:
    """Return the run of a route; routes that write to one server share what is known of it."""
    topic = None if isinstance(route, Route) else f"{route.stream}/{route.topic}"
    traces = tracing.route(route.name, status.about.source, status.about.sink, topic)
    if not isinstance(route, Route):
        return ReaderRun(route, status, stop, clock, traces=traces)
    server = server_of(route.sink)
    shared = None if server is None else servers.setdefault(server, ServerState())
    return WriterRun(route, status, stop, clock, server=shared, traces=traces)


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
    if status.error is None and status.state == "interrupted":
        left = sum(status.lag.values()) if status.lag else None
        emit(log, logging.WARNING, "route.interrupted", route=route.name, left=left, **status.counters())
        return
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
    seconds_of_run: Callable[[], float],
    clock: Clock,
    seconds: float,
) -> None:
    """Update what the routes do not update themselves, but the lag; never wait for a server."""
    while True:
        await clock.sleep(seconds)
        status.seconds = seconds_of_run()
        for run in runs:
            run.refresh()


async def _follow_lag(run: WriterRun | ReaderRun, clock: Clock, seconds: float) -> None:
    """Update the lag of a route whose source knows it; a server that hangs delays this route's lag only."""
    while isinstance(run.route.source, Lagging):
        await clock.sleep(seconds)
        if run.status.state in ("running", "idle", "finishing"):
            with suppress(NotConnected, Stopped, RuntimeError):  # the route itself reports what is wrong
                run.status.lag = await run.route.source.lag()
