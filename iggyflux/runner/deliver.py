"""Deliver lines to a sink: the driver of `delivery.machine`.

The machine decides what to send, how long to wait and when to give up; this file sends, waits and logs.  No other code
repeats a request to a line sink.  Clock and randomness are arguments, so that tests need not wait.

| the machine says | meanwhile                        | the delivery                                                   |
|------------------|----------------------------------|----------------------------------------------------------------|
| Send             | no failure is known              | sends, beside the others                                       |
|                  | it failed, and another delivery  | waits for the end of that attempt                              |
|                  | that failed tries again          |                                                                |
|                  | requests are sent one at a time, | waits so long, then as before                                  |
|                  | and the server asks for none     |                                                                |
|                  | no answer for 5 s, for 15 s      | the status shows it; `server.no_answer` is logged              |
| Probe            | as Send                          | asks whether the server is there                               |
| Wait             | the backoff passes, or another   | asks the machine again                                         |
|                  | attempt ends                     |                                                                |
|                  | a stop is requested              | makes one last attempt for all deliveries to the server; if    |
|                  |                                  | that fails, raises `StopRequested`, and so do the others       |
| Done, Stop       |                                  | returns, raises `Stopped`                                      |
"""

from __future__ import annotations

import asyncio
import logging
import random as _random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from iggyflux.delivery.limit import ByteLimit
from iggyflux.delivery.machine import Done, Machine, Probe, Send, Wait
from iggyflux.delivery.pace import Pace
from iggyflux.delivery.retention import Retention
from iggyflux.delivery.retry import Policy, Stop
from iggyflux.delivery.verdicts import (
    Refusal,
    Refused,
    RefusedSome,
    SchemaConflict,
    TooLarge,
    Unavailable,
    Verdict,
    retry_reason,
)
from iggyflux.errors import NotConnected, Stopped
from iggyflux.runner.clock import Clock, first_of
from iggyflux.runner.events import emit
from iggyflux.runner.send_gate import SendGate
from iggyflux.runner.server_state import ServerState
from iggyflux.runner.statistics import DeliveryStatistics
from iggyflux.runner.stop import StopRequested
from iggyflux.runner.unanswered import Unanswered
from iggyflux.telemetry.tracing import NO_REQUESTS, Requests
from iggyflux.transports.base import Counting, LineSink

log = logging.getLogger("iggyflux.delivery")


@dataclass(slots=True)
class SinkState:
    """What the deliveries of one route to its sink share."""

    route: str | None = None
    server: str | None = None
    """The address of the server, for people; None for a file."""
    bucket: str | None = None
    """The bucket, of a route whose points choose theirs."""
    conflicts: set[SchemaConflict] = field(default_factory=set)
    """The schema conflicts that were logged; each is logged once."""
    limit: ByteLimit | None = None
    """The largest request that the server accepts, as far as it is known."""
    shared: ServerState = field(default_factory=ServerState)
    """What the deliveries of all routes to this server share."""
    is_away: bool = False
    """Whether `delivery.away` was logged, and the server has not answered since."""
    waiting: int = 0
    """Deliveries that wait for the server."""
    deliveries: set[Machine] = field(default_factory=set)
    """The deliveries in progress."""
    gate: SendGate = field(default_factory=SendGate)
    retention: Retention | None = None
    """How long the server keeps points; None before it was asked."""
    pace: Pace | None = None
    """How many requests may be in flight."""
    unanswered: Unanswered = field(default_factory=Unanswered)
    delivered: int = 0
    """Lines that were accepted."""
    refused: int = 0
    """Lines that were refused."""
    sent_bytes: int = 0
    """What the sink had sent when that was counted last."""
    queued: int = 0
    """Requests that wait in the queue of a bucket."""
    logged_step: int = 0
    """The step of the backoff that was logged last."""

    def waiting_for(self, now: float) -> str | None:
        """Return what deliveries wait for, for people: the server with the reason, or an answer that is late."""
        if self.waiting or any(each.is_retrying for each in self.deliveries):
            return f"{self._where}: {self.shared.outage.reason}"
        return self.unanswered.waiting_for(now)

    def waiting_briefly(self) -> str | None:
        """Return the same without the words of the server; None if it is not the server that failed."""
        if self.waiting or any(each.is_retrying for each in self.deliveries):
            return f"{self._where}: {self.shared.failure}"
        return None

    @property
    def _where(self) -> str:
        where = self.server or "the sink"
        return where if self.bucket is None else f"{where}, bucket {self.bucket!r}"

    @contextmanager
    def delivery(self, machine: Machine) -> Iterator[None]:
        """Deliver what `machine` decides inside the block."""
        self.deliveries.add(machine)
        try:
            yield
        finally:
            self.deliveries.discard(machine)

    def fields(self) -> dict[str, object]:
        """Return the fields of each event."""
        place = {} if self.bucket is None else {"bucket": self.bucket}
        return {"route": self.route, "server": self.server, **place}


async def deliver(
    sink: LineSink,
    lines: Sequence[str],
    policy: Policy,
    clock: Clock,
    *,
    size: int | None = None,
    state: SinkState | None = None,
    statistics: DeliveryStatistics | None = None,
    stop: asyncio.Event | None = None,
    traced: Requests = NO_REQUESTS,
    random: Callable[[], float] = _random.random,
) -> tuple[Refusal, ...]:
    """Send `lines` (of `size` characters) until each is stored or refused, and return the refused ones, by index.

    Return only when everything is settled, however long the server is unavailable.  Raise `Stopped` if a person must
    act, or if the policy stops, and `StopRequested` if `stop` is set and the server is unavailable; then nothing of
    `lines` may be acknowledged, though some may be stored.  The same holds after a cancellation.  Requests and retries
    are counted in `statistics` and reported to `traced`; deliveries to one sink share its `state`.
    """
    state, statistics, stop = state or SinkState(), statistics or DeliveryStatistics(), stop or asyncio.Event()
    state.limit = state.limit or ByteLimit(policy.max_bytes)
    machine = Machine(lines, policy, size=size, limit=state.limit, outage=state.shared.outage)
    with state.delivery(machine):
        return await _deliver(sink, lines, machine, clock, state, statistics, stop, traced, random)


async def _deliver(
    sink: LineSink,
    lines: Sequence[str],
    machine: Machine,
    clock: Clock,
    state: SinkState,
    statistics: DeliveryStatistics,
    stop: asyncio.Event,
    traced: Requests,
    random: Callable[[], float],
) -> tuple[Refusal, ...]:
    """Do what `machine` says until it is done."""
    shared = state.shared
    while True:
        _log_back(state)
        action = machine.next(clock.monotonic())
        match action:
            case Send() | Probe() if machine.is_retrying and (shared.is_trying or shared.has_given_up):
                await _wait(state, clock, stop, None)
            case Send(indices):
                is_last = stop.is_set()
                with shared.attempt(is_retry=machine.is_retrying):
                    async with state.gate.turn(alone=machine.wants_to_be_alone):
                        began = clock.monotonic()
                        if not isinstance(machine.next(began), Send):
                            continue  # the server asked for no requests while another one was sent alone
                        what = f"a write of {len(indices)} lines"
                        with (
                            state.unanswered.attempt(began, what, state.server) as request,
                            traced.attempt(len(indices)) as answer,
                        ):
                            verdict = await sink.write(_selected(lines, indices))
                            answer.received(verdict)
                            request.is_answered = is_answered = not isinstance(verdict, Unavailable)
                    now = clock.monotonic()
                    machine.receive(verdict, now, random(), began=began)
                    shared.has_given_up = not is_answered and (is_last or shared.has_given_up)
                if state.pace is not None:
                    state.pace.ended(len(indices), began, now, is_answered=is_answered)
                if isinstance(sink, Counting):
                    statistics.sent_bytes += sink.sent_bytes - state.sent_bytes
                    state.sent_bytes = sink.sent_bytes
                _record(state, statistics, verdict, len(indices), now - began)
            case Probe():
                is_last = stop.is_set()
                with shared.attempt(is_retry=True):
                    with state.unanswered.attempt(clock.monotonic(), "a probe", state.server) as request:
                        failure = await _probe(sink)
                        request.is_answered = failure is None
                    machine.probed(failure, clock.monotonic(), random())
                    if is_last and failure is not None:
                        shared.has_given_up = True
            case Wait() as wait:
                _log_wait(state, wait)
                await _wait(state, clock, stop, wait.seconds)
            case Done(refusals):
                return refusals
            case Stop(reason, hint, code):
                raise Stopped(reason, hint, code)


async def _wait(state: SinkState, clock: Clock, stop: asyncio.Event, seconds: float | None) -> None:
    """Wait for the backoff (`seconds`), or until another attempt ends.

    After a requested stop, wait only for an attempt in progress.  Raise `StopRequested` after the last attempt.
    """
    shared = state.shared
    state.waiting += 1
    try:
        if not stop.is_set():
            backoff = [] if seconds is None else [clock.sleep(seconds)]
            await first_of(*backoff, shared.change(), stop.wait())
        elif shared.has_given_up:
            raise StopRequested from NotConnected(shared.outage.reason)
        elif shared.is_trying:
            await shared.change()
        else:
            shared.outage.hurry()
    finally:
        state.waiting -= 1


def _selected(lines: Sequence[str], indices: Sequence[int]) -> Sequence[str]:
    if isinstance(indices, range):
        return lines if len(indices) == len(lines) else lines[indices.start : indices.stop]
    read = list(lines)
    return [read[index] for index in indices]


async def _probe(sink: LineSink) -> Unavailable | None:
    """Return why the sink is unavailable, and how long it asks to wait; None if it is there."""
    try:
        await sink.connect()
    except NotConnected as error:
        return Unavailable(str(error), retry_after_seconds=error.retry_after_seconds)
    return None


def _record(state: SinkState, statistics: DeliveryStatistics, verdict: Verdict, lines: int, seconds: float) -> None:
    statistics.requests += 1
    statistics.request_seconds.observe(seconds)
    statistics.request_size.observe(lines)
    match verdict:
        case Unavailable():
            state.shared.failure = retry_reason(verdict)
            statistics.count("retries", state.shared.failure)
        case TooLarge():
            statistics.count("retries", retry_reason(verdict))
            max_bytes = state.limit.bytes if state.limit else None
            fields = {**state.fields(), "max_bytes": max_bytes, "reason": verdict.reason}
            emit(log, logging.INFO, "delivery.too_large", **fields)
        case Refused(conflicts=conflicts) | RefusedSome(conflicts=conflicts):
            _log_conflicts(state, conflicts)
        case _:
            pass


def _log_conflicts(state: SinkState, conflicts: Sequence[SchemaConflict]) -> None:
    for conflict in conflicts:
        if conflict not in state.conflicts:
            state.conflicts.add(conflict)
            emit(
                log,
                logging.ERROR,
                "delivery.schema_conflict",
                **state.fields(),
                measurement=conflict.measurement,
                field=conflict.field,
                sent=conflict.sent,
                stored=conflict.stored,
                hint="a field keeps its first type: change `type` in the mapping, or write to another field",
            )


def _log_wait(state: SinkState, wait: Wait) -> None:
    """Log each step of the backoff once, whichever delivery waits for it first."""
    is_new = wait.away and not state.is_away
    if state.logged_step == state.shared.outage.steps and not is_new:
        return
    state.logged_step = state.shared.outage.steps
    state.is_away = state.is_away or wait.away
    level, event = (logging.WARNING, "delivery.away") if is_new else (logging.INFO, "delivery.waiting")
    fields = {"attempt": wait.attempt, "seconds": round(wait.seconds, 2), "reason": wait.reason}
    emit(log, level, event, **state.fields(), **fields)


def _log_back(state: SinkState) -> None:
    if state.is_away and not state.shared.outage.is_on:
        state.is_away = False
        emit(log, logging.INFO, "delivery.back", **state.fields())
