"""One run of a reader's route: fetch a window, omit what was sent before, render, send, then store the position.

Which window is next is decided by `delivery.windows`, what was sent before by `cursors`.  Everything that can happen,
and what the reader then does:

| while        | this happens                       | the reader                                                      |
|--------------|------------------------------------|-----------------------------------------------------------------|
| opening      | the cursor is locked by another    | stops (IFX702, IFX701, IFX640)                                  |
|              | process, damaged, or of another    |                                                                 |
|              | query                              |                                                                 |
|              | NotConnected (a topic)             | waits, opens again, without a limit                             |
| connecting   | InfluxDB or sink: NotConnected     | tries the other one too, waits (backoff with jitter, capped),   |
|              |                                    | connects again, without a limit                                 |
|              | … with `until_end`, at the start   | … `max_retries` times, then stops                               |
|              | Stopped                            | stops                                                           |
| asking, time | NotConnected                       | connects again and asks again: nothing was sent                 |
| or rows      | TooMuch                            | asks for a smaller window; at one nanosecond stops (IFX642)     |
|              | Stopped                            | stops                                                           |
|              | rows outside of the window         | stops (IFX644): the statement does not bound the time           |
| rendering    | rows fail, on_error dead_letter    | sends the others; the rows become dead letters                  |
|              | … skip                             | sends the others; counts                                        |
|              | … fail                             | stops (IFX620)                                                  |
| sending      | confirmed                          | goes on with the window; after its last message stores          |
|              | NotConnected                       | connects again and sends the same messages again, same ids      |
|              | Stopped                            | stops                                                           |
| dead letters | NotConnected (a topic)             | as sending                                                      |
|              | Stopped (full, unwritable)         | stops                                                           |
| storing      | stored                             | the window is settled                                           |
|              | NotConnected (a topic)             | connects again and stores the same again                        |
|              | Stopped (full, unwritable; another | stops                                                           |
|              | run has stored to the topic)       |                                                                 |
| any time     | a stop is requested                | cancels a query, finishes a window that is being sent, ends     |
|              | … and the sink is unavailable, or  | abandons the window                                             |
|              | the deadline passes                |                                                                 |
|              | … with `until_end`, before the end | ends as above, and is interrupted (exit 3)                      |
| any time     | a changed mapping is offered       | finishes the window, takes the new plan, connects again         |
| any time     | no answer for 5 s, for 15 s        | the status shows it; `server.no_answer` is logged               |
| any time     | the process dies                   | the next run reads the window again, and sends it again, with   |
|              |                                    | the same ids; one that needs several sends, in halves           |

*Stops* and *abandons* mean: the window is not stored, so the next run reads all of it.  A failed send is repeated, and
never skipped.

Opening and connecting, waiting and connecting again are the session's (`session`), sending of a window the publisher's
(`publish`), failures the handler's (`failures`).
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, closing
from functools import partial

from iggyflux.cursors import Deduplicator
from iggyflux.delivery.windows import (
    LIGHT_ROWS,
    Action,
    AskFirst,
    AskTime,
    Finished,
    GiveUp,
    Read,
    ReadPosition,
    Wait,
    Windows,
)
from iggyflux.errors import Stopped, TooMuch
from iggyflux.plan.digests import digest_rows
from iggyflux.runner.change import Change
from iggyflux.runner.clock import Clock
from iggyflux.runner.events import emit
from iggyflux.runner.prefetch import Fetch, Prefetcher
from iggyflux.runner.publish import MessageSender, Publisher
from iggyflux.runner.reader_events import ReaderEvents
from iggyflux.runner.route import ReaderRoute
from iggyflux.runner.session import Session, closing_all, connect_all
from iggyflux.runner.status import ReaderStatus, RouteStatus
from iggyflux.runner.stop import Stop, StopRequested
from iggyflux.runner.unanswered import Unanswered
from iggyflux.telemetry.tracing import Trace, Traces
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.base import Window, Worker, server_of

log = logging.getLogger("iggyflux.runner")

_EMPTY_STORE_SECONDS = 1.0
"""How often to store after empty windows; after other windows the position is stored at once."""
_WAITING_FOR = {"empty": "the first point", "rate": "the limit `backfill_rate`"}


class ReaderRun:
    """One run of a reader's route.  `run` returns when the route is done and raises `Stopped` when it stops."""

    def __init__(
        self, route: ReaderRoute, status: RouteStatus, stop: Stop, clock: Clock, *, traces: Traces | None = None
    ) -> None:
        self.route = route
        self._traces = traces = traces or Traces()
        self.status = status
        self._progress = status.reader = ReaderStatus()
        self.change: Change[ReaderRoute] = Change(status)
        self._stop = stop
        self._clock = clock
        max_retries = route.max_retries if route.rules.until_end else None
        self._session = Session(route.name, status, stop, clock, max_retries=max_retries)
        self._unanswered = Unanswered(route.name)
        self._events = ReaderEvents(route, status, self._progress, clock)
        self._sender = MessageSender(
            route, status, self._session, partial(self._asking, route.sink), clock.monotonic, traces
        )
        self._renderer = Worker("render")
        self._publisher = Publisher(route, status, self._progress, self._session, self._sender, self._renderer, traces)
        self._prefetcher = Prefetcher(route.source, clock.monotonic, status.query_seconds.observe, traces.now)
        self._worker = Worker("cursor")
        self._windows = Windows(route.rules)
        self._is_open = False
        self._has_finished = False
        self._stored: ReadPosition | None = None
        self._stored_at = float("-inf")

    async def run(self) -> None:
        """Connect, read and send everything, reconnect as often as needed; close the transports in any case."""
        route = self.route
        async with closing_all(
            self._prefetcher.cancel,
            self._renderer.abandon,
            partial(self._worker.finish, route.store.close),
            self._close_source,
            route.sink.close,
            route.dead_letters.close,
        ):
            try:
                await self._session.run(self._connect, self._read_windows, lambda: self._progress.windows)
                await self._store_last()
                is_unfinished = route.rules.until_end and not self._has_finished
                self.status.state = "interrupted" if is_unfinished else "done"
            finally:
                self.refresh()

    def refresh(self) -> None:
        """Copy the position of the reader to the status."""
        windows, progress, now = self._windows, self._progress, self._clock.monotonic()
        self._unanswered.show(self.status, now)
        self._unanswered.warn(now)
        progress.position, progress.live_to = windows.position, windows.live_to
        progress.measure(now)
        self._publisher.failures.refresh()
        self.status.show_backoff(now)

    def _asking(self, transport: object, what: str) -> AbstractContextManager[None]:
        """Wait for an answer of `transport` inside the block."""
        return self._unanswered.request(self._clock.monotonic(), what, server_of(transport))

    async def _connect(self) -> None:
        await self._prefetcher.cancel()
        await self._take_change()
        if not self._is_open:
            await self._open()
        await connect_all(self.route.dead_letters.connect, self._sender.connect, self._connect_source)
        self.status.show_plan(self.route.plan_identity)

    async def _take_change(self) -> None:
        """Take a changed route if one is offered, between two windows."""
        if (route := self.change.take()) is None:
            return
        await self._close_source()
        self.route = route
        self._prefetcher.use(route.source)
        self._publisher.use(route)
        fields = {"route": route.name, "plan": route.plan_identity, "before": self.status.about.plan or None}
        emit(log, logging.INFO, "plan.changed", **fields)

    async def _close_source(self) -> None:
        await self.route.source.close()

    async def _connect_source(self) -> None:
        with self._asking(self.route.source, "connecting"):
            await self.route.source.connect()

    async def _open(self) -> None:
        """Open the cursor; it stays open until the end of the run."""
        self._stored = await self._worker.call(self.route.store.open)
        self._windows = Windows(self.route.rules, self._stored, unfinished=self.route.store.unfinished_window)
        self._is_open = True
        self._events.opened(self._stored)

    # Windows

    async def _read_windows(self) -> None:
        """Do what `delivery.windows` decides, until everything is read or a stop is requested."""
        while not self._stop.requested.is_set():
            if self.change.is_offered.is_set():
                await self._session.unless_stopped(self._connect())
            action = self._windows.next(self._clock.monotonic())
            if isinstance(action, Finished):
                self._has_finished = True
                return
            await self._do(action)

    async def _do(self, action: Action) -> None:
        windows, source = self._windows, self.route.source
        match action:
            case AskTime():
                with self._asking(source, "a query for the time"):
                    now = await self._session.unless_stopped(source.now())
                self._events.asked_time(now)
                windows.set_server_time(now, self._clock.monotonic())
                await self._store_position()
            case AskFirst():
                with self._asking(source, "a query for the first row"):
                    first = await self._session.unless_stopped(source.first())
                if first is None:
                    self._events.no_rows()
                windows.set_first_time(first, self._clock.monotonic())
                await self._store_position()
            case Read() as read:
                await self._read(read)
            case Wait(seconds, reason):
                self.status.state = "running" if reason == "rate" else "idle"
                waiting_for = _WAITING_FOR.get(reason)
                self.status.wait_for(waiting_for, briefly=waiting_for)
                await self._session.sleep(seconds)
            case GiveUp(start, stop):
                raise _too_many_rows(start, stop, is_grid=self.route.rules.grid)

    async def _read(self, read: Read) -> None:
        """Fetch a window, send what is new of it, store."""
        self.status.state = "running"
        self.status.wait_for(None)
        fetch = await self._prefetcher.fetch(read)
        try:
            with self._traces.window(read.start, read.stop, fetch.began) as trace:
                await self._read_window(read, fetch, trace)
        except TooMuch as error:
            self._windows.too_much()
            self._events.too_much(read, error)

    async def _read_window(self, read: Read, fetch: Fetch, trace: Trace) -> None:
        """Wait for the rows of a window, send what is new of them, store.  Raise `TooMuch`."""
        with self._asking(self.route.source, "a query"), trace.step("query", fetch.began) as answer:
            window = await self._session.unless_stopped(fetch.task)
            answer.ended(fetch.ended)
        with closing(window):
            self.status.read_bytes += window.read_bytes
            rows = LIGHT_ROWS if window.rows is None else window.rows
            if rows > self.route.page_size:
                await self._store(window=read.stop - read.start)
            self._prefetcher.prefetch(self._windows.foresee(rows, self._clock.monotonic()))
            whole = self.route.plan.whole_windows
            with closing(
                await self._worker.call(self.route.store.deduplicator, read, self.route.column, whole=whole)
            ) as deduplicator:
                count = await self._publish(read, window, deduplicator)
        self.status.acknowledged += count
        self._progress.windows += 1
        self._events.window(read, count)

    async def _publish(self, read: Read, window: Window, deduplicator: Deduplicator) -> int:
        """Send what is new of a window and store the position; return the number of rows."""
        if deduplicator.needs_survey:
            async for rows in window.chunks():
                deduplicator.survey(rows, digest_rows(rows))
            await self._worker.call(deduplicator.compare)
        count = await self._publisher.publish(read, window, deduplicator)
        self._windows.read(count, self._clock.monotonic())
        if count or self._clock.monotonic() - self._stored_at >= _EMPTY_STORE_SECONDS:
            await self._store(deduplicator)
        return count

    # Positions

    async def _store(self, deduplicator: Deduplicator | None = None, *, window: int | None = None) -> None:
        """Store the position, and the span of a large window that begins now."""
        position = self._windows.position
        assert position is not None  # noqa: S101  # a window has one
        await self._session.until_confirmed(partial(self._commit, position, deduplicator, window))
        self._stored, self._stored_at = position, self._clock.monotonic()
        self.refresh()

    async def _commit(self, position: ReadPosition, deduplicator: Deduplicator | None, window: int | None) -> None:
        with self._asking(self.route.store, "a commit of the position"), self._traces.current.step("store"):
            await self._worker.call(self.route.store.commit, position, deduplicator, window=window)

    async def _store_position(self) -> None:
        """Store a position that moved without a window: at the first start, or where the tail jumped."""
        if self._windows.position is not None and self._windows.position != self._stored:
            await self._store()

    async def _store_last(self) -> None:
        """Store the position at the end; if it cannot be stored, the next run repeats what was sent since."""
        if not self._is_open:
            return
        try:
            await self._store_position()
        except StopRequested as error:
            self._events.not_stored(error)


def _too_many_rows(start: int, stop: int, *, is_grid: bool) -> Stopped:
    if is_grid:
        hint = "use a smaller `cursor.window`: each message is made of all rows of its series or window"
    else:
        hint = "read less: filter by tag with `where`, or select fewer `fields`"
    what = "one nanosecond" if stop - start == 1 else "one window"
    return Stopped(f"{what} has more rows than can be read at once: {format_rfc3339(start)}", hint, "IFX642")
