"""The driver of delivery: it does what the machine decides, and logs what happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.machine import Wait
from iggyflux.delivery.pace import Bounds, Pace
from iggyflux.delivery.retry import Policy
from iggyflux.delivery.verdicts import (
    Accepted,
    Impossible,
    Refusal,
    Refused,
    RefusedSome,
    SchemaConflict,
    TooLarge,
    Unavailable,
    Verdict,
)
from iggyflux.errors import NotConnected, Stopped
from iggyflux.runner.deliver import SinkState, _log_wait, deliver
from iggyflux.runner.send_gate import SendGate
from iggyflux.runner.statistics import DeliveryStatistics
from iggyflux.runner.stop import StopRequested

T = TypeVar("T")

LINES = [f"m f={number} {number}" for number in range(4)]


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, 60)

    return asyncio.run(bounded())


@dataclass
class Clock:
    """A clock that jumps; `slept` are the waits."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@dataclass
class Sink:
    """A sink that follows a script of verdicts, then accepts; `connects` are what `connect` raises."""

    script: list[Verdict]
    connects: list[Exception] = field(default_factory=list)
    sent: list[list[str]] = field(default_factory=list)
    probes: int = 0

    async def connect(self) -> None:
        self.probes += 1
        if self.connects:
            raise self.connects.pop(0)

    async def write(self, lines: Sequence[str]) -> Verdict:
        self.sent.append(list(lines))
        return self.script.pop(0) if self.script else Accepted()

    async def close(self) -> None:
        pass


def delivering(
    sink: Sink,
    lines: Sequence[str] = LINES,
    *,
    clock: Clock | None = None,
    state: SinkState | None = None,
    statistics: DeliveryStatistics | None = None,
    **policy: Any,
) -> tuple[Refusal, ...]:
    return drive(
        deliver(sink, lines, Policy(**policy), clock or Clock(), state=state, statistics=statistics, random=lambda: 0.5)
    )


def test_accepted_lines_are_sent_once_and_not_copied() -> None:
    sink, statistics = Sink([]), DeliveryStatistics()

    assert delivering(sink, statistics=statistics) == ()
    assert sink.sent == [LINES]
    assert (statistics.requests, statistics.retries) == (1, 0)


def test_nothing_to_deliver_sends_nothing() -> None:
    sink = Sink([])

    assert delivering(sink, []) == ()
    assert sink.sent == []


def test_refusals_come_back_by_their_index() -> None:
    sink = Sink([RefusedSome("bad"), Accepted(), RefusedSome("bad", 400)])

    assert delivering(sink) == (Refusal(2, "bad", 400, vague="bad"),)
    assert sink.sent == [LINES, LINES[:2], LINES[2:3], LINES[3:]]


def test_waits_are_those_of_the_policy() -> None:
    clock, statistics = Clock(), DeliveryStatistics()

    delivering(
        Sink([Unavailable("away")] * 4),
        clock=clock,
        statistics=statistics,
        retry_backoff_seconds=2.0,
        max_backoff_seconds=6.0,
    )

    assert clock.slept == [1.0, 2.0, 3.0, 3.0]
    assert statistics.retries == 4


def test_a_retry_after_for_one_delivery_holds_for_all() -> None:
    clock, state = Clock(), SinkState()
    delivering(Sink([Unavailable("slow down", 429, 30.0)]), clock=clock, state=state)
    before = clock.now

    clock.now -= 20.0  # another one was in flight meanwhile
    clock.slept.clear()
    delivering(Sink([]), clock=clock, state=state)

    assert clock.now >= before - 0.5
    assert len(clock.slept) == 1


def test_an_answer_that_needs_a_person_stops() -> None:
    with pytest.raises(Stopped) as stopped:
        delivering(Sink([Impossible("no such bucket", "create it", 404, "IFX723")]))

    assert (stopped.value.reason, stopped.value.hint, stopped.value.code) == ("no such bucket", "create it", "IFX723")


def test_after_a_broken_connection_the_sink_is_probed_until_it_answers() -> None:
    sink = Sink([Unavailable("reset", connection_died=True)], [NotConnected("refused")] * 3)

    assert delivering(sink) == ()
    assert sink.probes == 4
    assert sink.sent == [LINES, LINES]


def test_a_sink_that_is_another_product_after_a_broken_connection_stops() -> None:
    sink = Sink([Unavailable("reset", connection_died=True)], [Stopped("not InfluxDB", None, "IFX729")])

    with pytest.raises(Stopped, match="not InfluxDB"):
        delivering(sink)


def test_a_size_that_was_refused_is_not_tried_again_by_the_next_delivery(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iggyflux.delivery")
    state, statistics = SinkState(), DeliveryStatistics()
    sink = Sink([TooLarge("413")])
    delivering(sink, state=state, statistics=statistics)
    delivering(sink, state=state, statistics=statistics)

    assert [len(lines) for lines in sink.sent] == [4, 2, 2, 2, 2]
    assert (statistics.requests, statistics.retries) == (5, 1)
    assert state.limit is not None
    assert state.limit.bytes == sum(len(line) + 1 for line in LINES) // 2
    (record,) = caplog.records
    assert record.getMessage() == f"delivery.too_large max_bytes={state.limit.bytes} reason=413"


def test_a_size_that_was_refused_is_tried_again_after_a_while() -> None:
    """The limit may have been temporary: one refusal does not make all later requests small."""
    state = SinkState()
    sink = Sink([TooLarge("413")])
    for _ in range(20):
        delivering(sink, state=state)

    assert [len(lines) for lines in sink.sent][:17] == [4, *[2] * 16]
    assert {len(lines) for lines in sink.sent[17:]} == {4}


@pytest.mark.parametrize(("verdict", "limit"), [(Unavailable("busy", 503), 4), (TooLarge("413"), 8)])
def test_a_server_that_fails_gets_half_as_many_requests_at_once(verdict: Verdict, limit: int) -> None:
    state = SinkState(pace=Pace(Bounds(8, 1, 16)))

    delivering(Sink([verdict]), state=state)

    assert state.pace is not None
    assert state.pace.limit == limit


def test_a_schema_conflict_is_logged_once_with_both_types(caplog: pytest.LogCaptureFixture) -> None:
    conflict = SchemaConflict("m", "f", "string", "float")
    verdict = Refused((Refusal(0, "conflict"),), True, (conflict,))
    state = SinkState()
    with caplog.at_level(logging.INFO, "iggyflux.delivery"):
        for _ in range(3):
            delivering(Sink([verdict]), state=state)

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(
        "delivery.schema_conflict measurement=m field=f sent=string stored=float hint="
    )


def test_an_outage_is_logged_when_it_begins_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "iggyflux.delivery"):
        delivering(Sink([Unavailable("away")] * 6), max_retries=2)

    events = [(record.levelname, record.getMessage().split()[0]) for record in caplog.records]
    assert events == [
        *[("INFO", "delivery.waiting")] * 2,
        ("WARNING", "delivery.away"),
        *[("INFO", "delivery.waiting")] * 3,
        ("INFO", "delivery.back"),
    ]


def test_each_step_of_a_backoff_is_logged_once_and_the_outage_once(caplog: pytest.LogCaptureFixture) -> None:
    """Deliveries that failed at different times wait for one backoff: some of them still have retries."""
    state = SinkState()
    waits = [(1, False), (1, False), (1, True), (1, False), (2, False), (2, True)]
    with caplog.at_level(logging.INFO, "iggyflux.delivery"):
        for state.shared.outage.steps, away in waits:
            _log_wait(state, Wait(1.0, 1, "away", away))

    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events == ["delivery.waiting", "delivery.away", "delivery.waiting"]


def test_deliveries_look_for_a_dead_server_one_after_the_other() -> None:
    class Probed(Sink):
        under_way = most = 0

        async def connect(self) -> None:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            for _ in range(5):
                await asyncio.sleep(0)
            self.under_way -= 1
            await super().connect()

    sink, clock, state = Probed([Unavailable("reset", connection_died=True)] * 2), Clock(), SinkState()

    async def main() -> None:
        lines = (LINES[:1], LINES[1:])
        await asyncio.gather(*(deliver(sink, each, Policy(), clock, state=state, random=lambda: 0.5) for each in lines))

    drive(main())

    assert (sink.probes, sink.most) == (2, 1)
    assert sorted(line for lines in sink.sent[2:] for line in lines) == LINES


# --- a requested stop, and deliveries beside one that tries again ---


@dataclass
class Stopping(Clock):
    """A clock during whose first wait a stop is requested."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def sleep(self, seconds: float) -> None:
        self.stop.set()
        await super().sleep(seconds)


def until_stopped(sink: Sink, clock: Stopping, lines: Sequence[str] = LINES, state: SinkState | None = None) -> Any:
    return deliver(sink, lines, Policy(), clock, stop=clock.stop, state=state, random=lambda: 0.5)


def test_after_a_stop_one_probe_decides_whether_the_lines_are_sent() -> None:
    died = Unavailable("reset", connection_died=True)
    back, away = Sink([died]), Sink([died], [NotConnected("refused")] * 9)

    assert drive(until_stopped(back, Stopping())) == ()
    with pytest.raises(StopRequested):
        drive(until_stopped(away, Stopping()))

    assert (back.sent, back.probes) == ([LINES, LINES], 1)
    assert (away.sent, away.probes) == ([LINES], 1)


class Holding(Sink):
    """A sink that answers `lines` when `answers` is set: with the last verdict of the script, and others at once."""

    def __init__(self, script: list[Verdict], lines: Sequence[str]) -> None:
        super().__init__(script)
        self.lines, self.answers = list(lines), asyncio.Event()

    async def write(self, lines: Sequence[str]) -> Verdict:
        if list(lines) != self.lines or self.answers.is_set():
            return await super().write(lines)
        self.sent.append(list(lines))
        await self.answers.wait()
        return self.script.pop()


def test_after_the_last_attempt_a_request_that_fails_late_is_not_sent_again() -> None:
    async def main() -> list[list[str]]:
        sink, clock, state = Holding([Unavailable("refused")] * 3, LINES[:1]), Stopping(), SinkState()
        late = asyncio.create_task(until_stopped(sink, clock, LINES[:1], state))
        await asyncio.sleep(0)
        with pytest.raises(StopRequested):
            await until_stopped(sink, clock, LINES[1:], state)
        sink.answers.set()
        with pytest.raises(StopRequested):
            await late
        return sink.sent

    assert drive(main()) == [LINES[:1], LINES[1:], LINES[1:]]


def test_a_request_that_fails_after_a_stop_is_sent_once_more_although_another_one_was_answered() -> None:
    async def main() -> list[list[str]]:
        sink, clock, state = Holding([Accepted(), Unavailable("refused")], LINES[:1]), Stopping(), SinkState()
        late = asyncio.create_task(until_stopped(sink, clock, LINES[:1], state))
        await asyncio.sleep(0)
        clock.stop.set()
        assert await until_stopped(sink, clock, LINES[1:], state) == ()
        sink.answers.set()
        assert await late == ()
        return sink.sent

    assert drive(main()) == [LINES[:1], LINES[1:], LINES[:1]]


def test_after_the_last_attempt_nothing_is_sent_however_short_the_backoff() -> None:
    async def main() -> tuple[list[object], int]:
        sink, clock, state = Sink([Unavailable("refused")] * 9), Stopping(), SinkState()
        jitters = iter([0.5, 0.5])
        deliveries = (
            deliver(sink, lines, Policy(), clock, state=state, stop=clock.stop, random=lambda: next(jitters, 0.0))
            for lines in (LINES[:1], LINES[1:])
        )
        return await asyncio.gather(*deliveries, return_exceptions=True), len(sink.sent)

    ends, sent = drive(main())

    assert [type(each) for each in ends] == [StopRequested, StopRequested]
    assert sent == 3


def test_a_delivery_that_did_not_fail_is_sent_beside_one_that_tries_again() -> None:
    async def main() -> tuple[Refusal, ...]:
        sink, clock, state = Sink([]), Clock(), SinkState()
        state.shared.outage.failed("refused", clock.now, 0.5, first=1.0, cap=1.0)
        with state.shared.attempt(is_retry=True):
            return await deliver(sink, LINES[1:], Policy(), clock, state=state)

    assert drive(main()) == ()


# --- what the status says ---

SERVER = "http://lager:8086"


@dataclass
class Watched(Clock):
    """A clock that keeps what the status says during each wait."""

    state: SinkState = field(default_factory=lambda: SinkState(server=SERVER))
    shown: list[str | None] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)  # the wait has begun
        self.shown.append(self.state.waiting_for(self.now))
        await super().sleep(seconds)


def test_the_status_names_the_server_while_a_delivery_waits_and_no_longer() -> None:
    clock = Watched()
    delivering(Sink([Unavailable("slow down", 429, 30.0)]), clock=clock, state=clock.state)
    after = clock.state.waiting_for(clock.now)
    clock.now -= 20.0  # another one was in flight meanwhile: it has not failed, and may not send yet
    delivering(Sink([]), clock=clock, state=clock.state)

    assert clock.shown == [f"{SERVER}: slow down"] * 2
    assert (after, clock.state.waiting_for(clock.now)) == (None, None)


def test_the_status_names_the_server_while_a_delivery_tries_again() -> None:
    clock, shown = Watched(), []

    class Watching(Sink):
        async def write(self, lines: Sequence[str]) -> Verdict:
            shown.append(clock.state.waiting_for(clock.now))
            return await super().write(lines)

    delivering(Watching([Unavailable("refused")] * 2), clock=clock, state=clock.state)

    assert shown == [None, f"{SERVER}: refused", f"{SERVER}: refused"]


def test_a_delivery_that_is_cancelled_ends_and_waits_for_nothing() -> None:
    state = SinkState(server=SERVER)

    class Patient(Clock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.Event().wait()

    async def main() -> str | None:
        task = asyncio.create_task(deliver(Sink([Unavailable("away")]), LINES, Policy(), Patient(), state=state))
        await asyncio.sleep(0.01)
        shown = state.waiting_for(100.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return shown

    assert drive(main()) == f"{SERVER}: away"
    assert state.waiting_for(100.0) is None


@dataclass
class Fragile:
    """A server that crashes on a line, and breaks every request in flight."""

    deadly: str
    generation: int = 0
    under_way: int = 0
    most: int = 0
    stored: set[str] = field(default_factory=set)

    async def connect(self) -> None:
        pass

    async def write(self, lines: Sequence[str]) -> Verdict:
        generation = self.generation
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        for _ in range(3):
            await asyncio.sleep(0)
        self.under_way -= 1
        if self.deadly in lines:
            self.generation += 1
        if generation != self.generation:
            return Unavailable("the connection broke", connection_died=True)
        self.stored |= set(lines)
        return Accepted()

    async def close(self) -> None:
        pass


def test_only_the_line_that_crashes_the_server_is_refused() -> None:
    """Deliveries overlap, but a request whose connection broke is sent alone: only then is the cause known."""
    batches = [[f"m,b={batch} f={number} {number}" for number in range(40)] for batch in range(6)]
    sink, clock, state = Fragile(batches[2][17]), Clock(), SinkState()

    async def main() -> list[tuple[Refusal, ...]]:
        deliveries = [deliver(sink, lines, Policy(), clock, state=state, random=lambda: 0.5) for lines in batches]
        return list(await asyncio.gather(*deliveries))

    refused = drive(main())

    assert [[refusal.line for refusal in found] for found in refused] == [[], [], [17], [], [], []]
    assert sink.stored == {line for lines in batches for line in lines} - {sink.deadly}
    assert sink.most == len(batches)


def test_a_delivery_that_is_cancelled_while_it_waits_does_not_block_others() -> None:
    async def main() -> bool:
        gate = SendGate()

        async def hold(alone: bool, until: asyncio.Event) -> None:
            async with gate.turn(alone=alone):
                await until.wait()

        first, never, now = asyncio.Event(), asyncio.Event(), asyncio.Event()
        now.set()
        holding = asyncio.create_task(hold(False, first))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(hold(True, never))
        await asyncio.sleep(0)
        behind = asyncio.create_task(hold(False, now))
        await asyncio.sleep(0)
        was_behind = not behind.done()
        waiting.cancel()
        await behind
        first.set()
        await holding
        return was_behind

    assert drive(main())


ARRIVAL = st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3), st.none() | st.integers(0, 5))
"""Whether a request is sent alone; when it arrives, how long it takes, and when it is cancelled."""


@given(st.lists(ARRIVAL, min_size=2, max_size=8))
def test_nothing_is_sent_beside_a_request_that_is_sent_alone(
    requests: list[tuple[bool, int, int, int | None]],
) -> None:
    """Every request is sent once, whenever it arrives and however long it takes; a cancelled one never."""
    gate, sent, beside, late = SendGate(), [], [], []
    under_way: set[int] = set()
    cancelled: set[int] = set()

    async def send(number: int, alone: bool, arrives: int, takes: int) -> None:
        for _ in range(arrives):
            await asyncio.sleep(0)
        async with gate.turn(alone=alone):
            late.extend({number} & cancelled)
            under_way.add(number)
            try:
                for _ in range(takes + 1):
                    if len(under_way) > 1 and any(requests[each][0] for each in under_way):
                        beside.append(set(under_way))
                    await asyncio.sleep(0)
            finally:
                under_way.remove(number)
        sent.append(number)

    async def main() -> None:
        tasks = [asyncio.create_task(send(number, *request[:3])) for number, request in enumerate(requests)]
        for tick in range(100):  # more than all of them need, one after the other
            await asyncio.sleep(0)
            for number, (*_, at) in enumerate(requests):
                if at == tick and tasks[number].cancel():
                    cancelled.add(number)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    drive(main())

    assert beside == []
    assert late == []
    assert sorted(sent) == [number for number in range(len(requests)) if number not in cancelled]
