"""One route: read, render, deliver, keep dead letters, acknowledge.  The page to read first.

Everything that can happen, and what the route then does:

| while        | this happens                        | the route                                                     |
|--------------|-------------------------------------|---------------------------------------------------------------|
| connecting   | source or sink: NotConnected        | waits (backoff with jitter, capped), connects again, for ever |
|              | … the sink, on_unavailable: stop    | … `max_retries` times, then stops                             |
|              | Stopped                             | stops                                                         |
| reading      | a batch                             | renders it; the next read is already under way                |
|              | nothing there                       | is idle: sends what lingers, then asks again, ever less often |
|              | EndOfInput                          | finishes what is in flight, acknowledges, is done             |
|              | NotConnected                        | abandons what is in flight, connects again: it comes again    |
|              | Stopped                             | stops                                                         |
| rendering    | records fail, on_error dead_letter  | sends the other lines; the messages become dead letters       |
|              | … skip                              | sends the other lines; counts the messages as dropped         |
|              | … fail                              | stops                                                         |
| delivering   | every line accepted                 | settles the batches whose lines are all settled               |
|              | lines refused                       | as failed records: on_error says                              |
|              | … every line, none of them named    | holds them until another line is accepted (`delivery.held`), |
|              |                                     | or stops                                                      |
|              | sink away, overloaded, too large    | `deliver` waits, repeats, splits; reading stops when          |
|              |                                     | `max_in_flight` requests are under way                        |
|              | a request writes a point of another | waits until that one, under way, is settled: order is kept    |
|              | Stopped                             | stops                                                         |
| dead letters | kept                                | settles the batch                                             |
|              | NotConnected (a topic)              | abandons what is in flight, connects again: it comes again    |
|              | Stopped (full, unwritable)          | stops                                                         |
| acking       | stored                              | counts                                                        |
|              | NotConnected                        | abandons what is in flight, connects again: it comes again    |
| any time     | told to stop                        | reads no more, finishes what is in flight, acknowledges, ends |
|              | … and the deadline passes, or again | abandons what is in flight                                    |

*Stops* means: nothing that is in flight is acknowledged, and the reason is kept in the status.  *Abandons* means the
same and goes on.  Either way it comes again and makes the same bytes, so nothing is lost and nothing is stored twice.
A batch is *settled* when each of its lines was accepted, and each message with a failure or a refused line was kept (or
counted, under `skip`).  A partition's position moves over settled batches only, and only without a gap.

Memory is bounded: at most `max_in_flight` requests are under way, one is being filled, one batch is read ahead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from iggyflux.delivery.held import EndedRequest, HeldRequests
from iggyflux.delivery.pace import Bounds, Pace
from iggyflux.delivery.retry import Policy
from iggyflux.delivery.retry import Stop as MustStop
from iggyflux.errors import EndOfInput, NotConnected, Stopped
from iggyflux.mapping import OnError
from iggyflux.records import Batch, DeadLetter, Failure, Message, Position, Reason, Rendered
from iggyflux.runner.deliver import Clock, SinkState, deliver
from iggyflux.runner.events import emit
from iggyflux.runner.footprint import Footprint
from iggyflux.runner.ledger import Job, Ledger
from iggyflux.runner.requests import Request, RequestBuilder
from iggyflux.runner.status import RouteStatus
from iggyflux.runner.stop import Stop
from iggyflux.runner.waiting import connect_ends, wait_to_connect
from iggyflux.transports.base import DeadLetterSink, Grouped, LineSink, Source

_IDLE_SECONDS = (0.005, 0.25)  # first, cap
_ACK_INTERVAL_SECONDS = 0.1
_DEFAULT_IN_FLIGHT = Bounds.exactly(4)
_TOLD_FAILURES = 20
_HELD_HINT = "the batch is neither acknowledged nor kept as dead letters until the server accepts a line"

log = logging.getLogger("iggyflux.runner")


class WriterPlan(Protocol):
    """What a route needs of a plan."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The lines of `messages`; pure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Everything that one route is made of.

    `max_in_flight` None finds out how many pay, between the bounds that the sink gives (its attribute `in_flight`).
    """

    name: str
    source: Source
    plan: WriterPlan
    sink: LineSink
    dead_letters: DeadLetterSink
    mapping: str = ""
    mapping_hash: str = ""
    on_error: OnError = OnError.DEAD_LETTER
    policy: Policy = field(default_factory=Policy)
    batch_size: int = 5000
    batch_bytes: int = 5_000_000
    linger_seconds: float = 1.0
    max_in_flight: int | None = None
    count_collisions: bool = True


class RouteRun:
    """One run of one route.  `run` returns when the route is done and raises `Stopped` when it stops."""

    def __init__(self, route: Route, status: RouteStatus, stop: Stop, clock: Clock) -> None:
        self.route = route
        self.status = status
        self._stop = stop
        self._clock = clock
        self._sink_state = SinkState()
        self._held: HeldRequests[Request] = HeldRequests()
        self._told: set[tuple[str, str]] = set()
        self._sink_failures = 0

    async def run(self) -> None:
        """Connect, move everything, reconnect as often as needed; closes the transports in any case."""
        route = self.route
        attempt = 0
        try:
            while not self._stop.requested.is_set():
                self._held.forget()
                session = _Session(
                    route, self.status, self._stop, self._clock, self._sink_state, self._held, self._told
                )
                try:
                    if await connect_ends(route.name, self.status, self._connect_both(), self._stop):
                        await session.run()
                except NotConnected as error:
                    attempt = 1 if session.has_settled else attempt + 1
                    await self._wait(attempt, error)
                else:
                    break
            self.status.state = "done"
        finally:
            self.refresh()
            for transport in (route.source, route.sink, route.dead_letters):
                await transport.close()

    def refresh(self) -> None:
        """Say in the status what source and sink say of themselves: also while a request waits for the sink."""
        status = self.status
        if isinstance(self.route.source, Grouped):
            status.groups = self.route.source.groups
        if status.state not in ("starting", "connecting"):
            words = self._held.words
            held = f"another request: the server rejected every line of the last one: {words}" if words else None
            status.waiting_for = (
                "the sink is unavailable" if self._sink_state.away else held or self.route.source.waiting_for
            )

    async def _connect_both(self) -> None:
        await self.route.dead_letters.connect()
        await self._connect_sink()
        await self.route.source.connect()

    async def _connect_sink(self) -> None:
        policy = self.route.policy
        try:
            await self.route.sink.connect()
        except NotConnected as error:
            self._sink_failures += 1
            if policy.on_unavailable == "stop" and self._sink_failures > policy.max_retries:
                end = policy.still_away(str(error))
                raise Stopped(end.reason, end.hint, end.code) from error
            raise
        self._sink_failures = 0

    async def _wait(self, attempt: int, error: NotConnected) -> None:
        await wait_to_connect(self.route.name, self.status, attempt, error, self._clock, self._stop)


class _Session:
    """From a connection to its end."""

    def __init__(
        self,
        route: Route,
        status: RouteStatus,
        stop: Stop,
        clock: Clock,
        sink_state: SinkState,
        held: HeldRequests[Request],
        told: set[tuple[str, str]],
    ) -> None:
        self._route = route
        self._status = status
        self._stop = stop
        self._clock = clock
        self._sink_state = sink_state
        self._held = held
        self._told = told
        self._ledger = Ledger()
        self._builder = RequestBuilder(route.batch_size, route.batch_bytes)
        self._deliveries: dict[asyncio.Task[None], Footprint] = {}
        self._news = asyncio.Event()  # something was settled, or the end is near
        self._is_over = False
        self.has_settled = False

    async def run(self) -> None:
        """Until the end of the input or the wish to stop; nothing is left running.

        Raises `NotConnected` or `Stopped`.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                acknowledging = tasks.create_task(self._acknowledge())
                await self._read_all(tasks)
                self._status.state = "finishing"
                while self._deliveries:
                    await asyncio.wait(self._deliveries)
                await self._settle_all(self._held.finished())
                self._is_over = True
                self._news.set()
                await acknowledging
        except BaseExceptionGroup as errors:
            raise _worst(errors) from errors
        finally:
            self._status.in_flight = 0

    # Reading and rendering

    async def _read_all(self, tasks: asyncio.TaskGroup) -> None:
        """Read, render and send until there is no more; what lingers is sent in the end."""
        stopping = tasks.create_task(self._stop.requested.wait())
        reading = tasks.create_task(self._read())
        idle = _IDLE_SECONDS[0]
        flush_at: float | None = None
        self._status.state = "running"
        while True:
            patience = None if flush_at is None else flush_at - self._clock.monotonic()
            if patience is not None and (patience <= 0 or not await self._arrived(reading, stopping, patience)):
                await self._send(tasks)
                flush_at = None
                continue
            if patience is None:
                await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                reading.cancel()
                break
            batch = reading.result()
            if isinstance(batch, EndOfInput):
                break
            if batch is None:
                self._status.state = "idle" if not self._deliveries else "running"
                reading = tasks.create_task(self._read(after_seconds=idle))
                idle = min(idle * 2, _IDLE_SECONDS[1])
                continue
            reading = tasks.create_task(self._read())
            await asyncio.sleep(0)  # the read is under way before the rendering takes the loop
            idle, self._status.state = _IDLE_SECONDS[0], "running"
            await self._take(batch, tasks)
            if not len(self._builder):
                flush_at = None
            elif flush_at is None:
                flush_at = self._clock.monotonic() + self._route.linger_seconds
        stopping.cancel()
        await self._send(tasks)

    async def _arrived(
        self, reading: asyncio.Task[Batch | EndOfInput | None], stopping: asyncio.Task[bool], patience: float
    ) -> bool:
        """Wait for a batch or the wish to stop; False where the patience ends first."""
        if not reading.done():
            lingering = asyncio.ensure_future(self._clock.sleep(patience))
            try:
                await asyncio.wait({reading, stopping, lingering}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                lingering.cancel()
        return reading.done() or stopping.done()

    async def _read(self, after_seconds: float = 0.0) -> Batch | EndOfInput | None:
        if after_seconds:
            await self._clock.sleep(after_seconds)
        try:
            return await self._route.source.read()
        except EndOfInput as end:
            return end

    async def _take(self, batch: Batch, tasks: asyncio.TaskGroup) -> None:
        rendered = self._route.plan.render(batch.messages)
        self._count(batch, rendered)
        job = Job(batch, rendered, len(rendered.lines))
        if rendered.failures:
            self._judge(batch, rendered.failures)
        self._ledger.begin(job)
        if not rendered.lines:
            await self._settle(job)
        for request in self._builder.add(job):
            await self._dispatch(request, tasks)

    def _count(self, batch: Batch, rendered: Rendered) -> None:
        status = self._status
        status.read += len(batch.messages)
        status.points += len(rendered.lines)
        status.skipped += len(rendered.skipped)
        status.empty += len(rendered.empty)
        status.failed += len(rendered.failures)
        status.count_fallback(self._route.mapping, rendered.fallback)

    def _judge(self, batch: Batch, failures: Sequence[Failure]) -> None:
        """Tell each kind of failure once; stop where the mapping says so."""
        for failure in failures:
            kind = (failure.code, failure.location)
            if self._route.on_error is OnError.FAIL:
                place = Position(batch.partition, batch.messages[failure.index].offset)
                raise _failed(place, failure.code, failure.reason, failure.location)
            if kind not in self._told and len(self._told) < _TOLD_FAILURES:
                self._told.add(kind)
                place = Position(batch.partition, batch.messages[failure.index].offset)
                self._tell("record.failed", place, failure.code, failure.reason, failure.location)

    def _tell(self, event: str, place: Position, code: str, reason: str, location: str | None = None) -> None:
        name = self._route.name
        emit(log, logging.WARNING, event, route=name, at=place, code=code, reason=reason, location=location or None)

    # Delivering

    async def _send(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers."""
        if len(self._builder):
            await self._dispatch(self._builder.take(), tasks)

    async def _dispatch(self, request: Request, tasks: asyncio.TaskGroup) -> None:
        """Start a delivery, as soon as not too many are under way, and none that writes a point of this one.

        This is where a slow sink slows reading.
        """
        footprint = Footprint(request.lines)
        if self._route.count_collisions:
            self._status.collisions += footprint.collisions()
        pace, ready = self._pace(), self._clock.monotonic()
        while len(self._deliveries) >= pace.limit:
            await asyncio.wait(self._deliveries, return_when=asyncio.FIRST_COMPLETED)
        pace.held_up(self._clock.monotonic() - ready)
        if before := [task for task, other in self._deliveries.items() if footprint.overlaps(other)]:
            await asyncio.wait(before)
        delivery = tasks.create_task(self._deliver(request))
        self._deliveries[delivery] = footprint
        delivery.add_done_callback(self._deliveries.pop)
        await asyncio.sleep(0)

    def _pace(self) -> Pace:
        """How many may be under way: known for good once the sink is connected."""
        if self._sink_state.pace is None:
            chosen = self._route.max_in_flight
            bounds = Bounds.exactly(chosen) if chosen else self._route.sink.in_flight or _DEFAULT_IN_FLIGHT
            self._sink_state.pace = Pace(bounds)
        return self._sink_state.pace

    async def _deliver(self, request: Request) -> None:
        self._status.in_flight += 1
        route, number = self._route, self._held.begin()
        refusals = await deliver(
            route.sink,
            request.lines,
            route.policy,
            self._clock,
            size=request.size,
            state=self._sink_state,
            statistics=self._status,
        )
        self._status.in_flight -= 1
        ended = self._held.ended(number, request, len(request.lines), refusals)
        if not ended:
            name, count, words = route.name, len(request.lines), self._held.words
            emit(log, logging.WARNING, "request.held", route=name, lines=count, reason=words, hint=_HELD_HINT)
        await self._settle_all(ended)

    async def _settle_all(self, ended: Sequence[EndedRequest[Request]] | MustStop) -> None:
        """Settle batches by what their requests ended with; stop where the server refuses everything."""
        if isinstance(ended, MustStop):
            raise Stopped(ended.reason, ended.hint, ended.code)
        for each in ended:
            self._status.refused += len(each.refusals)
            self._status.delivered += len(each.request.lines) - len(each.refusals)
            for part, refused in each.request.shares(each.refusals):
                part.job.refused(part.start, refused)
                part.job.unsettled_lines -= part.stop - part.start
                if not part.job.unsettled_lines:
                    await self._settle(part.job)

    async def _settle(self, job: Job) -> None:
        """Every line is accepted or refused: keep what could not be delivered, then the batch is settled."""
        reasons = _reasons(job)
        for refusal in job.refusals:
            place = Position(job.batch.partition, job.messages[job.message_of(refusal)].offset)
            if self._route.on_error is OnError.FAIL:
                raise _failed(place, refusal.code, refusal.reason, "")
            if len(self._told) < _TOLD_FAILURES:
                self._told.add((refusal.code, f"{place}"))
                self._tell("line.refused", place, refusal.code, refusal.reason)
        if reasons and self._route.on_error is OnError.SKIP:
            self._status.dropped += len(reasons)
        elif reasons:
            route = self._route
            await route.dead_letters.put(
                [
                    DeadLetter(job.messages[index], route.mapping, route.mapping_hash, tuple(found))
                    for index, found in sorted(reasons.items())
                ]
            )
            self._status.dead_letters += len(reasons)
        self._ledger.settle(job)
        self._news.set()

    # Acknowledging

    async def _acknowledge(self) -> None:
        """Acknowledge what is settled, all of it at once and not too often, until the session is over."""
        while True:
            await self._news.wait()
            self._news.clear()
            positions, messages = self._ledger.take()
            if positions:
                await self._route.source.ack(positions)
                self._status.acknowledged += messages
                self.has_settled = True
            if self._is_over and not self._news.is_set():
                return
            if not self._is_over:
                await self._clock.sleep(_ACK_INTERVAL_SECONDS)


def _reasons(job: Job) -> dict[int, list[Reason]]:
    """Why messages of a batch could not be delivered whole, by their index."""
    reasons: dict[int, list[Reason]] = {}
    for failure in job.rendered.failures:
        reason = Reason(failure.code, failure.reason, failure.location, failure.element, failure.point)
        reasons.setdefault(failure.index, []).append(reason)
    for refusal in job.refusals:
        line = job.rendered.lines[refusal.line]
        reason = Reason(refusal.code, refusal.reason, line=line, status=refusal.status)
        reasons.setdefault(job.message_of(refusal), []).append(reason)
    return reasons


def _failed(place: Position, code: str, reason: str, location: str) -> Stopped:
    where = f" at {location}" if location else ""
    hint = "correct the mapping, or set `on_error: dead_letter`; the message is read again"
    return Stopped(f"{place}: {code}: {reason}{where}, and on_error is fail", hint, "IFX620")


def _worst(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that decides: what must stop comes before what may be tried again."""
    flat = [_worst(error) if isinstance(error, BaseExceptionGroup) else error for error in errors.exceptions]
    return min(flat, key=lambda error: 2 if isinstance(error, NotConnected) else int(isinstance(error, Stopped)))
