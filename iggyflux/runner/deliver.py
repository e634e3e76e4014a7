"""Deliver lines to a sink: the driver of `delivery.machine`.

The machine decides what to send, how long to wait and when to give up; this file sends, waits and logs.  No other code
repeats a request to a line sink.  Clock and randomness are arguments, so that tests need not wait.
"""

from __future__ import annotations

import asyncio
import logging
import random as _random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from iggyflux.delivery.limit import ByteLimit
from iggyflux.delivery.machine import Done, Machine, Probe, Send, Wait
from iggyflux.delivery.pace import Pace
from iggyflux.delivery.retry import Policy, Stop
from iggyflux.delivery.verdicts import (
    Accepted,
    Refusal,
    Refused,
    RefusedSome,
    SchemaConflict,
    TooLarge,
    Unavailable,
    Verdict,
)
from iggyflux.errors import NotConnected, Stopped
from iggyflux.runner.events import emit
from iggyflux.runner.send_gate import SendGate
from iggyflux.runner.statistics import DeliveryStatistics
from iggyflux.transports.base import LineSink

log = logging.getLogger("iggyflux.delivery")


class Clock(Protocol):
    """The time that the runner uses."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; cancellable."""


class SystemClock:
    """The time of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class SinkState:
    """What the deliveries to one sink share."""

    conflicts: set[SchemaConflict] = field(default_factory=set)
    """The schema conflicts that were logged; each is logged once."""
    limit: ByteLimit | None = None
    """The largest request that the server accepts, as far as it is known."""
    not_before: float = 0.0
    """The time before which the server asked for no requests; it holds for all deliveries."""
    away: bool = False
    gate: SendGate = field(default_factory=SendGate)
    pace: Pace | None = None
    """How many requests may be in flight."""


async def deliver(
    sink: LineSink,
    lines: Sequence[str],
    policy: Policy,
    clock: Clock,
    *,
    size: int | None = None,
    state: SinkState | None = None,
    statistics: DeliveryStatistics | None = None,
    random: Callable[[], float] = _random.random,
) -> tuple[Refusal, ...]:
    """Send `lines` (of `size` characters) until each is stored or refused, and return the refused ones, by index.

    Return only when everything is settled, however long the server is unavailable.  Raise `Stopped` if a person must
    act, or if the policy stops; then nothing of `lines` may be acknowledged, though some may be stored.  The same holds
    after a cancellation.  Requests and retries are counted in `statistics`; deliveries to one sink share its `state`.
    """
    state = state or SinkState()
    statistics = statistics or DeliveryStatistics()
    state.limit = state.limit or ByteLimit(policy.max_bytes)
    machine = Machine(lines, policy, size=size, limit=state.limit)
    while True:
        action = machine.next(clock.monotonic())
        match action:
            case Send(indices):
                await _wait_for_server(state, clock)
                async with state.gate.turn(alone=machine.wants_to_be_alone):
                    began = clock.monotonic()
                    verdict = await sink.write(_selected(lines, indices))
                now = clock.monotonic()
                machine.receive(verdict, now, random())
                if state.pace is not None:
                    answered = not isinstance(verdict, Unavailable)
                    state.pace.ended(len(indices), began, now, is_answered=answered)
                _record(state, statistics, policy, verdict, now)
            case Wait(seconds, attempt, reason, away):
                _log_wait(state, seconds, attempt, reason, away)
                await clock.sleep(seconds)
            case Probe():
                machine.probed(await _probe(sink), clock.monotonic(), random())
            case Done(refusals):
                return refusals
            case Stop(reason, hint, code):
                raise Stopped(reason, hint, code)


def _selected(lines: Sequence[str], indices: Sequence[int]) -> Sequence[str]:
    if isinstance(indices, range):
        return lines if len(indices) == len(lines) else lines[indices.start : indices.stop]
    return [lines[index] for index in indices]


async def _wait_for_server(state: SinkState, clock: Clock) -> None:
    """Wait as long as the server asked for, in its answer to any delivery."""
    seconds = state.not_before - clock.monotonic()
    if seconds > 0:
        await clock.sleep(seconds)


async def _probe(sink: LineSink) -> str | None:
    """Return why the sink is unavailable, or None."""
    try:
        await sink.connect()
    except NotConnected as error:
        return str(error)
    return None


def _record(state: SinkState, statistics: DeliveryStatistics, policy: Policy, verdict: Verdict, now: float) -> None:
    statistics.requests += 1
    match verdict:
        case Accepted():
            _log_back(state)
        case Unavailable():
            statistics.retries += 1
            if verdict.retry_after_seconds is not None:
                asked = min(verdict.retry_after_seconds, policy.max_retry_after_seconds)
                state.not_before = max(state.not_before, now + asked)
        case TooLarge():
            statistics.retries += 1
            max_bytes = state.limit.bytes if state.limit else None
            emit(log, logging.INFO, "delivery.too_large", max_bytes=max_bytes, reason=verdict.reason)
        case Refused(conflicts=conflicts) | RefusedSome(conflicts=conflicts):
            _log_back(state)
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
                measurement=conflict.measurement,
                field=conflict.field,
                sent=conflict.sent,
                stored=conflict.stored,
                hint="a field keeps its first type: change `type` in the mapping, or write to another field",
            )


def _log_wait(state: SinkState, seconds: float, attempt: int, reason: str, away: bool) -> None:
    is_new = away and not state.away
    state.away = state.away or away
    level, event = (logging.WARNING, "delivery.away") if is_new else (logging.INFO, "delivery.waiting")
    emit(log, level, event, attempt=attempt, seconds=round(seconds, 2), reason=reason)


def _log_back(state: SinkState) -> None:
    if state.away:
        state.away = False
        emit(log, logging.INFO, "delivery.back")
