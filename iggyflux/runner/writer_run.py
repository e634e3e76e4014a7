"""One run of a writer's route: read, render, deliver, keep dead letters, acknowledge.  The page to read first.

Everything that can happen, and what the route then does:

| while        | this happens                        | the route                                                      |
|--------------|-------------------------------------|----------------------------------------------------------------|
| connecting   | source or sink: NotConnected        | tries the other one too, waits (backoff with jitter, capped),  |
|              |                                     | connects again, without a limit                                |
|              | … with `until_end`, at the start    | … `max_retries` times, then stops                              |
|              | … the sink, on_unavailable: stop    | … `max_retries` times, then stops                              |
|              | Stopped                             | stops                                                          |
| reading      | a batch                             | renders it; the next read is already in flight                 |
|              | no messages                         | is idle: sends what lingers, then polls again, ever less often |
|              | … before others are acknowledged    | sends what lingers; settles what is held as at the end of the  |
|              |                                     | input: no other line would follow                              |
|              | EndOfInput                          | finishes what is in flight, acknowledges, is done              |
|              | NotConnected                        | abandons what is in flight, connects again                     |
|              | Stopped                             | says so, finishes what is in flight, acknowledges, stops       |
| rendering    | it takes long                       | goes on beside it: a plan runs in a thread, part by part       |
|              | records fail, on_error dead_letter  | sends the other lines; the messages become dead letters        |
|              | … skip                              | sends the other lines; counts the messages as dropped          |
|              | … fail                              | stops                                                          |
| rendering    | a schema is not known, the registry | abandons what is in flight, and connects again, which asks the |
|              | does not answer: NotConnected       | registry first: nothing is read before it answers              |
|              | … refuses: Stopped                  | stops                                                          |
| delivering   | every line accepted                 | settles the batches whose lines are all settled                |
|              | lines refused                       | treats them as failed records: `on_error` decides              |
|              | … every line, none of them named    | holds them until another line is accepted (`delivery.held`),   |
|              |                                     | or stops                                                       |
|              | sink unavailable, overloaded, lines | `deliver` waits, repeats, splits; reading pauses when          |
|              | too large                           | `max_in_flight` requests are in flight                         |
|              | a request writes a point of another | waits until the other one is settled: order is kept            |
|              | request in flight                   |                                                                |
|              | Stopped                             | stops                                                          |
| dead letters | kept                                | settles the batch                                              |
|              | NotConnected (a topic)              | abandons what is in flight, connects again                     |
|              | Stopped (full, unwritable)          | stops                                                          |
| acking       | stored                              | counts, and notes the batches in the ledger, if there is one   |
|              | NotConnected                        | abandons what is in flight, connects again                     |
| any time     | a stop is requested                 | reads no more, finishes what is in flight, acknowledges, ends  |
|              | … and the sink is unavailable       | one last attempt; then abandons what is in flight, ends, and   |
|              |                                     | is interrupted (exit 3)                                        |
|              | … and the deadline passes, or again | abandons what is in flight, and is interrupted                 |
|              | … with `until_end`, before the end  | ends as above, and is interrupted: what is left is counted     |
| any time     | a changed mapping is offered        | renders no more, sends what lingers, waits until everything in |
|              |                                     | flight is settled, takes the new plan, goes on                 |
|              | … and that takes 5 s                | says what it waits for (`plan.waiting`)                        |
|              | … and it takes 30 s, or requests    | abandons what is in flight, takes the new plan, connects again |
|              | are held                            |                                                                |
|              | no answer for 5 s, for 15 s         | the status shows it; `server.no_answer` is logged              |

*Stops*: nothing that is in flight is acknowledged, and the status keeps the reason.  *Abandons*: nothing that is in
flight is acknowledged, and the route goes on.  In both cases those messages are read again and make the same bytes, so
nothing is lost and nothing is stored twice.  A batch is *settled* when each of its lines was accepted, and each message
with a failure or a refused line was kept (or counted, under `skip`).  A partition's position moves only over settled
batches without a gap.

Connecting, waiting and connecting again are the session's (`session`), failures the handler's (`failures`), requests in
flight the sender's (`request_sender`).  Memory is bounded: at most `max_in_flight` requests are in flight, or as many
as the pace allows and 64 MB hold, with the payloads of their messages; one is being filled, one batch is read ahead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from iggyflux.delivery.settled import PlanInterval
from iggyflux.errors import EndOfInput, NotConnected, Stopped
from iggyflux.records import Batch, Reason
from iggyflux.runner.bucket_guard import BucketGuard
from iggyflux.runner.change import SETTLE_SECONDS, Change
from iggyflux.runner.clock import Clock, first_of
from iggyflux.runner.deliver import SinkState
from iggyflux.runner.events import emit
from iggyflux.runner.failures import FailureHandler, reasons_by_record
from iggyflux.runner.lanes import Lane, Lanes, OneWay, Outlet, Settle
from iggyflux.runner.ledger import Job, Ledger
from iggyflux.runner.places import Place, Places, read_retention
from iggyflux.runner.rendering import rendered_parts
from iggyflux.runner.request_sender import RequestSender
from iggyflux.runner.requests import RequestBuilder
from iggyflux.runner.route import Route
from iggyflux.runner.server_state import ServerState
from iggyflux.runner.session import Session, closing_all, connect_all
from iggyflux.runner.settled_ledger import EVERY_SECONDS
from iggyflux.runner.status import InputStatus, RouteStatus
from iggyflux.runner.stop import Stop, StopRequested
from iggyflux.runner.unanswered import Unanswered
from iggyflux.telemetry.tracing import NO_TRACE, Trace, Traces, acknowledging
from iggyflux.transports.base import Bounded, Comparing, Grouped, Lagging, Measured, Worker, server_of

_IDLE_SECONDS = (0.005, 0.25)  # first, cap
_ACK_INTERVAL_SECONDS = 0.1
_SAY_SECONDS = 5.0
_HELD = "an accepted line: the server rejected every line of the last request"

log = logging.getLogger("iggyflux.runner")


class _NotSettled(Exception):
    """What is in flight was not settled in time for a changed plan: it is abandoned, and read again."""


class WriterRun:
    """One run of a writer's route.  `run` returns when the route is done and raises `Stopped` when it stops."""

    def __init__(
        self,
        route: Route,
        status: RouteStatus,
        stop: Stop,
        clock: Clock,
        *,
        server: ServerState | None = None,
        traces: Traces | None = None,
    ) -> None:
        """`server` is what the routes that write to one server know of it."""
        self.route = route
        self.status = status
        self._stop = stop
        self._clock = clock
        max_retries, is_patient = route.policy.max_retries, route.policy.on_unavailable != "stop"
        self._session = Session(
            route.name, status, stop, clock, max_retries=max_retries if route.until_end else None, is_patient=is_patient
        )
        self.change: Change[Route] = Change(status)
        self._failures = FailureHandler(route, status, route.dead_letters.put, record="message")
        self._unanswered = Unanswered(route.name)
        self._sink_state = SinkState(
            route.name, server_of(route.sink), shared=server or ServerState(), unanswered=self._unanswered
        )
        self._places = Places(route, self._sink_state)
        self._is_source_connected = False
        self._has_reached_end = False
        self._has_abandoned = False
        self._guard = BucketGuard(route.buckets)
        self._sink_failures = 0
        self._renderer = Worker("render")
        self._traces = traces or Traces()

    async def run(self) -> None:
        """Connect and transfer everything, reconnect as often as needed; close the transports in any case."""
        route = self.route
        closes = [self._renderer.abandon, self._close_registry, route.source.close, self._places.close]
        closes += [route.dead_letters.close]
        closes += [each.close for each in (route.series, route.ledger) if each is not None]
        async with closing_all(*closes):
            try:
                await self._session.run(self._connect, self._transfer, lambda: self.status.acknowledged)
                await self._end()
            finally:
                self.change.end()
                self.refresh()

    def refresh(self) -> None:
        """Copy what source and sink report about themselves to the status, also while a request waits for the sink."""
        status = self.status
        if isinstance(self.route.source, Grouped):
            status.groups = self.route.source.groups
        if isinstance(self.route.source, Measured):
            status.input = status.input or InputStatus()
            status.input.measure(self.route.source.progress, self._clock.monotonic())
        if self.route.series is not None:
            status.series, status.series_limit = self.route.series.count, self.route.series.most
        status.buckets = {name: place.as_dict() for name, place in self._places.buckets.copy().items()}
        now = self._clock.monotonic()
        outages = [place.state.shared.outage for place in self._places]
        until = [outage.not_before for outage in outages if outage.is_on]
        self._failures.refresh()
        status.is_away = bool(until) or self._sink_failures > 0
        status.show_backoff(now, min(until, default=None))
        self._unanswered.warn(now)
        if status.state == "connecting":
            self._unanswered.show(status, now)
        elif status.state != "starting":
            states = [place.state for place in self._places]
            words = next((place.held.words for place in self._places if place.held.words), None)
            held = f"{_HELD}: {words}" if words else None
            source = self.route.source.waiting_for
            waiting = next((text for each in states if (text := each.waiting_for(now))), None)
            briefly = next((text for each in states if (text := each.waiting_briefly())), None)
            status.wait_for(
                waiting or held or source,
                briefly=briefly or self._unanswered.waiting_for(now) or (held and _HELD) or source,
            )

    async def _connect(self) -> None:
        own = [each.connect for each in (self.route.series, self.route.ledger, self.route.registry) if each is not None]
        await connect_all(*own, self.route.dead_letters.connect, self._connect_sink, self._connect_source)
        self.take_change()  # nothing is in flight
        self.status.show_plan(self.route.plan_identity)

    async def _close_registry(self) -> None:
        if self.route.registry is not None:  # a changed mapping may have brought it
            self.route.registry.close()

    async def _connect_source(self) -> None:
        """Connect the source, unless it was connected while the sink was unavailable."""
        if not self._is_source_connected:
            source = self.route.source
            with self._unanswered.request(self._clock.monotonic(), "connecting", server_of(source)):
                await source.connect()
                if self.route.ledger is not None and isinstance(source, Comparing):
                    await self.route.ledger.compare(source)
            self._is_source_connected = True

    async def _connect_sink(self) -> None:
        policy, shared = self.route.policy, self._sink_state.shared
        if error := shared.still_asked(self._clock.monotonic()):
            error.server = self._sink_state.server
            raise error
        began = self._clock.monotonic()
        try:
            with self._unanswered.request(began, "connecting", self._sink_state.server):
                await self.route.sink.connect()
        except NotConnected as error:
            shared.asked(error.retry_after_seconds, self._clock.monotonic(), str(error))
            self._sink_failures += 1
            if policy.on_unavailable == "stop" and self._sink_failures > policy.max_retries:
                end = policy.still_away(error.named)
                raise Stopped(end.reason, end.hint, end.code) from error
            raise
        self._sink_failures = 0
        if shared.outage.answered(began):  # else the next failure would be one of the outage before
            shared.changed()
        await self._read_retention()

    async def _read_retention(self) -> None:
        """Ask once how long the server keeps points."""
        with self._unanswered.request(self._clock.monotonic(), "asking for the retention", self._sink_state.server):
            found = await read_retention(self.route.sink, self._sink_state)
        if found is not None:
            self._sink_state.shared.asked(found.retry_after_seconds, self._clock.monotonic(), found.why)
            self.status.retention_seconds = found.seconds

    def take_change(self) -> Route:
        """Take a changed route if one is offered, now that nothing is in flight; return the route."""
        if (route := self.change.take()) is not None:
            self.route = self._failures.route = route
            if route.ledger is not None:
                route.ledger.on_error = route.on_error
            before = self.status.about.plan
            self.status.show_plan(route.plan_identity)
            fields = {"route": route.name, "plan": route.plan_identity, "before": before or None}
            emit(log, logging.INFO, "plan.changed", **fields)
        return self.route

    async def _transfer(self) -> None:
        """Transfer until the end of the input, a requested stop or the end of the connection."""
        while True:
            try:
                return await self._transfer_once()
            except _NotSettled:
                self._has_abandoned = self._stop.requested.is_set()
                self.take_change()  # nothing is in flight; a sink that is away may be so for long
                await self._session.unless_stopped(self._connect())

    async def _transfer_once(self) -> None:
        for place in self._places:
            place.forget()
        self._is_source_connected = False  # it has to be connected again whatever ends the transfer
        transfer = _Transfer(
            self,
            self._stop,
            self._clock,
            self._failures,
            self._unanswered,
            self._renderer,
            self._guard,
            self._traces,
        )
        try:
            await transfer.run(self._outlet(transfer))
        except StopRequested:
            self._has_abandoned = True
            raise
        self._has_reached_end = transfer.has_reached_end

    def _outlet(self, transfer: _Transfer) -> Outlet:
        """Return where the lines of one transfer go."""
        route = self.route

        def lane(place: Place, settle: Settle) -> Lane:
            sender = RequestSender(route, self.status, self._clock, self._stop.requested, place, settle)
            return Lane(place, RequestBuilder(route.batch_size, route.batch_bytes), sender)

        if route.bucket_sink is None:
            return OneWay(lane(self._places.default, transfer.settle))
        return Lanes(self._places, lane, transfer.settle, transfer.unsettled_bytes, self._clock)

    async def _end(self) -> None:
        """Set the last state: a run that was stopped before its end is interrupted."""
        status, source = self.status, self.route.source
        is_unfinished = self.route.until_end and not self._has_reached_end
        status.state = "interrupted" if is_unfinished or self._has_abandoned else "done"
        if is_unfinished and isinstance(source, Lagging):
            with suppress(NotConnected, Stopped):
                status.lag = await source.lag()
                status.state = "interrupted" if self._has_abandoned or any(status.lag.values()) else "done"


class _Transfer:
    """Reads, renders and acknowledges over one connection; what was in flight ends with it."""

    def __init__(
        self,
        run: WriterRun,
        stop: Stop,
        clock: Clock,
        failures: FailureHandler,
        unanswered: Unanswered,
        renderer: Worker,
        buckets: BucketGuard,
        traces: Traces,
    ) -> None:
        route = self._route = run.route
        self._run = run
        self._renderer = renderer
        self._traces = traces
        self._arrived = NO_TRACE  # of the batch that was read last
        self._server = server_of(route.source)
        self._unanswered = unanswered
        self._status = run.status
        self._stop = stop
        self._clock = clock
        self._failures = failures
        self._ledger = Ledger()
        self._buckets = buckets
        self._may_acknowledge = asyncio.Event()  # a batch was settled, or all of them
        self._is_over = False
        self.has_reached_end = False
        self._fault: Stopped | None = None

    async def run(self, outlet: Outlet) -> None:
        """Transfer until the end of the input or a requested stop; leave no task behind.

        Raise `NotConnected` or `Stopped`.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                acknowledging = tasks.create_task(self._acknowledge())
                limiting = tasks.create_task(self._limit_changes(outlet))
                await self._read_all(outlet, tasks)
                limiting.cancel()
                self._status.state = "finishing"
                await outlet.finish()
                self._is_over = True
                self._may_acknowledge.set()
                await acknowledging
            if self._fault is not None:
                raise self._fault
        except BaseExceptionGroup as errors:
            worst = _worst(errors)
            if self._fault is not None and isinstance(worst, StopRequested):
                raise self._fault from errors
            self._status.error = None  # the fault of the source may be over when it is connected again
            raise worst from errors
        finally:
            self._status.in_flight = 0
            self._traces.abandon()

    async def settle(self, job: Job) -> None:
        """Keep what could not be delivered of a batch whose lines are all accepted or refused; the batch is settled."""
        self._failures.report_refusals(job.refusals, lambda refusal: job.place_of(job.message_of(refusal)))
        await self._failures.keep(_reasons(job), job.messages.__getitem__, job.trace)
        self._ledger.settle(job, self._intervals(job))
        self._may_acknowledge.set()

    def unsettled_bytes(self) -> int:
        """Return the bytes of payloads that are read and not settled."""
        return self._ledger.unsettled_bytes

    def _intervals(self, job: Job) -> Sequence[PlanInterval]:
        ledger = self._route.ledger
        return () if ledger is None else ledger.intervals_of(job, self._status.about.plan)

    # Reading and rendering

    async def _read_all(self, outlet: Outlet, tasks: asyncio.TaskGroup) -> None:
        """Read, render and send until there is no more; what lingers is sent in the end."""
        stopping = tasks.create_task(self._stop.requested.wait())
        changing = tasks.create_task(self._run.change.is_offered.wait())
        reading = tasks.create_task(self._read())
        idle = _IDLE_SECONDS[0]
        flush_at: float | None = None
        self._status.state = "running"
        while True:
            seconds = None if flush_at is None else flush_at - self._clock.monotonic()
            if seconds is not None and not await self._arrives(seconds, reading, stopping, changing):
                await outlet.flush(tasks)
                flush_at = None
                continue
            if seconds is None:
                await asyncio.wait({reading, stopping, changing}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                reading.cancel()
                break
            if changing.done():
                await self._take_change(outlet, tasks, stopping)
                flush_at, changing = None, tasks.create_task(self._run.change.is_offered.wait())
                continue
            batch = reading.result()
            if isinstance(batch, EndOfInput | Stopped):
                self.has_reached_end = isinstance(batch, EndOfInput)
                if isinstance(batch, Stopped):
                    self._fault = self._status.error = batch
                    fields = {"route": self._route.name, "code": batch.code, "reason": batch.reason}
                    emit(log, logging.ERROR, "source.stopped", **fields)  # what is in flight may take long
                break
            if batch is None:
                await self._make_room(outlet, tasks)
                self._status.state = "running" if outlet.in_flight else "idle"
                reading = tasks.create_task(self._read(after_seconds=idle))
                idle = min(idle * 2, _IDLE_SECONDS[1])
                continue
            reading = tasks.create_task(self._read())
            idle, self._status.state = _IDLE_SECONDS[0], "running"
            trace = self._arrived
            left = await self._render(batch, trace, outlet, tasks)
            while left is not None and not self._stop.requested.is_set():
                await self._take_change(outlet, tasks, stopping)
                changing = tasks.create_task(self._run.change.is_offered.wait())
                left = await self._render(left, trace, outlet, tasks)
            if self._stop.requested.is_set():  # parts of the batch may be left: nothing after them is acknowledged
                reading.cancel()
                break
            if not outlet.lingering:
                flush_at = None
            elif flush_at is None:
                flush_at = self._clock.monotonic() + self._route.linger_seconds
        stopping.cancel()
        changing.cancel()
        await outlet.flush(tasks)

    async def _make_room(self, outlet: Outlet, tasks: asyncio.TaskGroup) -> None:
        """Settle what is read if the source waits for that.  Raise `Stopped`."""
        source = self._route.source
        if isinstance(source, Bounded) and source.is_full:
            await outlet.flush(tasks)
            if not outlet.is_sending:  # what is held waits for lines that are not read before it is settled
                await outlet.settle_held()

    async def _take_change(self, outlet: Outlet, tasks: asyncio.TaskGroup, stopping: asyncio.Task[bool]) -> None:
        """Settle what is in flight and take the changed route; what was read ahead is then rendered by its plan.

        Return without it if a stop is requested.  Raise `_NotSettled` if requests are held.
        """
        await outlet.flush(tasks)
        while outlet.is_sending:  # a held request may be sent again before this task goes on
            answering = tasks.create_task(outlet.until_answered())
            await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
            answering.cancel()
            if stopping.done():
                return
        if outlet.is_holding:
            raise _NotSettled
        self._route = self._run.take_change()

    async def _limit_changes(self, outlet: Outlet) -> None:
        """Say that a changed route waits, and for what, wherever the transfer is.  Raise `_NotSettled` in the end."""
        change = self._run.change
        while True:
            await change.is_offered.wait()
            taken, say = change.taken, min(_SAY_SECONDS, SETTLE_SECONDS)
            await self._clock.sleep(say)
            if not change.is_offered.is_set() or change.taken != taken:
                continue
            fields = {
                "route": self._route.name,
                "requests": outlet.in_flight,
                "reason": self._status.waiting_for or "the answers to the requests in flight",
                "seconds": round(SETTLE_SECONDS - say, 1),
            }
            emit(log, logging.WARNING, "plan.waiting", **fields)
            await self._clock.sleep(SETTLE_SECONDS - say)
            if change.is_offered.is_set() and change.taken == taken and not self._stop.requested.is_set():
                raise _NotSettled

    async def _arrives(self, seconds: float, *tasks: asyncio.Task[Any]) -> bool:
        """Return whether one of the tasks is done within `seconds`."""
        if seconds <= 0:
            return False
        if not any(task.done() for task in tasks):
            lingering = asyncio.ensure_future(self._clock.sleep(seconds))
            try:
                await asyncio.wait({*tasks, lingering}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                lingering.cancel()
        return any(task.done() for task in tasks)

    async def _read(self, after_seconds: float = 0.0) -> Batch | EndOfInput | Stopped | None:
        if after_seconds:
            await self._clock.sleep(after_seconds)
        began = self._traces.now()
        try:
            with self._asking("a poll"):
                batch = await self._route.source.read()
        except (EndOfInput, Stopped) as end:
            return end
        if batch is not None:
            self._arrived = self._traces.batch(batch, began)
            if self._route.ledger is not None:
                self._route.ledger.cut({batch.partition: batch.messages[0].offset})
        return batch

    def _asking(self, what: str) -> AbstractContextManager[None]:
        """Wait for an answer of the source inside the block; files may wait for input as long as they like."""
        if self._server is None:
            return nullcontext()
        return self._unanswered.request(self._clock.monotonic(), what, self._server)

    async def _render(self, batch: Batch, trace: Trace, outlet: Outlet, tasks: asyncio.TaskGroup) -> Batch | None:
        """Render a batch and send the requests that are full.

        Return the parts that are left when a stop is requested or a change is offered.
        """
        done, began = 0, self._traces.now()
        async for part, made in rendered_parts(self._route.plan, batch, self._renderer):
            allowed = self._buckets.admit(made)
            rendered = allowed if self._route.series is None else await self._route.series.admit(allowed)
            job = Job(part, rendered, len(rendered.lines), trace=trace)
            self._count(job)
            trace.rendered(began, part, rendered)
            self._failures.report_failures(rendered.failures, job.place_of)
            self._failures.report_omitted(rendered.omitted, job.place_of)
            self._ledger.begin(job)
            if not rendered.lines:
                await self.settle(job)
            await outlet.add(job, tasks)
            job.drop_lines()
            done += len(part.messages)
            if done < len(batch.messages) and (self._stop.requested.is_set() or self._run.change.is_offered.is_set()):
                return batch.part(done, len(batch.messages))
            began = self._traces.now()
        trace.end()
        return None

    def _count(self, job: Job) -> None:
        status, rendered = self._status, job.rendered
        status.read += len(job.messages)
        status.read_bytes += job.payload_bytes
        status.points += len(rendered.lines)
        status.skipped += len(rendered.skipped)
        status.empty += len(rendered.empty)
        status.undeclared += len(rendered.undeclared)
        status.count_fallback(self._route.mapping, rendered.fallback)

    # Acknowledging

    async def _acknowledge(self) -> None:
        """Acknowledge settled batches, all of them at once and not too often, until the transfer is over."""
        while True:
            await self._until_settled()
            self._may_acknowledge.clear()
            settled, written_down = self._ledger.take(), self._route.ledger
            if settled.positions:
                with self._asking("an acknowledgement"), acknowledging(settled.traces):
                    await self._route.source.ack(settled.positions)
                self._status.acknowledge(settled.positions, settled.messages, settled.arrivals, time.time())
            if written_down is not None:
                written_down.note(settled.intervals)
                written_down.write(self._clock.monotonic())
            if self._is_over and not self._may_acknowledge.is_set():
                return
            if not self._is_over:
                await self._clock.sleep(_ACK_INTERVAL_SECONDS)

    async def _until_settled(self) -> None:
        """Wait until a batch is settled; write down meanwhile what was acknowledged last."""
        ledger = self._route.ledger
        while ledger is not None and ledger.is_unwritten and not self._may_acknowledge.is_set():
            await first_of(self._may_acknowledge.wait(), self._clock.sleep(EVERY_SECONDS))
            ledger.write(self._clock.monotonic())
        await self._may_acknowledge.wait()


def _reasons(job: Job) -> dict[int, list[Reason]]:
    """Return why messages of a batch could not be delivered whole, by their index."""
    reasons, buckets = reasons_by_record(job.rendered.failures), job.rendered.buckets
    for refusal in job.refusals:
        line, bucket = job.refused_lines[refusal.line], None if buckets is None else buckets[refusal.line] or None
        reason = Reason(refusal.code, refusal.reason, line=line, status=refusal.status, bucket=bucket)
        reasons.setdefault(job.message_of(refusal), []).append(reason)
    return reasons


def _worst(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that decides: a bug, else one that stops the route, a requested stop, a lost connection."""
    flat = [_worst(error) if isinstance(error, BaseExceptionGroup) else error for error in errors.exceptions]
    order = (Stopped, StopRequested, NotConnected, _NotSettled)
    return min(flat, key=lambda error: next((at for at, kind in enumerate(order, 1) if isinstance(error, kind)), 0))
