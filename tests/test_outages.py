"""Servers that are away, hang, or come back: what routes that share them do, say and show meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iggyflux.cli.output import unstyled
from iggyflux.cli.progress import summary_lines
from iggyflux.delivery.backoff import MAX_RETRY_AFTER_SECONDS, backoff_seconds
from iggyflux.delivery.machine import Machine, Send, Wait
from iggyflux.delivery.outage import Outage
from iggyflux.delivery.retention import Retention
from iggyflux.delivery.retry import Policy, Retry
from iggyflux.delivery.verdicts import Accepted, Refusal, Refused, SchemaConflict, Unavailable, Verdict
from iggyflux.errors import NotConnected, Stopped
from iggyflux.records import Batch, Message, Partition, Position, Rendered
from iggyflux.runner import Route, RouteStatus, Status, Stop, Summary, run_routes
from iggyflux.runner.clock import SystemClock
from iggyflux.runner.deliver import SinkState, deliver
from iggyflux.runner.route import WriterPlan
from iggyflux.runner.server_state import ServerState
from iggyflux.runner.unanswered import Unanswered
from iggyflux.runner.writer_run import _ACK_INTERVAL_SECONDS
from iggyflux.transports.local.memory import CollectingDeadLetters, ImmediateClock, ScriptedSource, batch

URL = "http://global:8086"


class Lines(WriterPlan):
    """A plan that makes one line of each payload."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        lines = [f"for,p={each.partition} if={each.offset} {each.offset}" for each in messages]
        return Rendered(lines, list(range(len(lines))))


@dataclass
class Server:
    """A server that is away at times; `answer` says what it answers, and when the request arrived."""

    clock: ImmediateClock
    away: Sequence[tuple[float, float]] = ()
    latency: float = 0.01
    server: str = URL
    dialect: str = "v2"
    in_flight: None = None
    attempts: list[tuple[float, bool]] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Unavailable("connection refused"))

    async def connect(self) -> None:
        """It is there when the run begins."""

    async def write(self, lines: Sequence[str]) -> Verdict:
        now = self.clock.monotonic()
        is_away = any(begin <= now < end for begin, end in self.away)
        self.attempts.append((now, is_away))
        await self.clock.sleep(self.latency)
        return self.verdict if is_away else Accepted()

    async def close(self) -> None:
        """Nothing is kept open."""


def route(name: str, sink: object, *, batches: int = 8, partition: int = 0, **more: object) -> Route:
    script = [batch([b"x"], partition=partition, offset=number) for number in range(batches)]
    values: dict[str, object] = {
        "name": name,
        "source": ScriptedSource(script),
        "plan": Lines(),
        "sink": sink,
        "dead_letters": CollectingDeadLetters(),
        "policy": Policy(retry_backoff_seconds=1.0, max_backoff_seconds=30.0),
        "batch_size": 1,
        "max_in_flight": 8,
    }
    return Route(**{**values, **more})  # type: ignore[arg-type]


def run(
    clock: ImmediateClock,
    *routes: Route,
    stop: Callable[[Stop], Awaitable[None]] | None = None,
    status: Status | None = None,
    tick: float | None = None,
) -> Summary:
    async def main() -> Summary:
        asked = Stop()
        stopping = asyncio.ensure_future(stop(asked)) if stop else None
        try:
            return await run_routes(routes, stop=asked, clock=clock, tick_seconds=tick, status=status)
        finally:
            if stopping:
                stopping.cancel()

    return asyncio.run(asyncio.wait_for(main(), 20))


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    return [record.fields for record in caplog.records if getattr(record, "event", "") == name]  # type: ignore[attr-defined]


# --- one backoff a server ---


@settings(max_examples=20, deadline=None)
@given(
    outages=st.lists(st.tuples(st.floats(0.0, 60.0), st.floats(1.0, 300.0)), min_size=1, max_size=3),
    routes=st.integers(1, 3),
    in_flight=st.integers(1, 8),
)
def test_the_first_success_wakes_all_who_wait(outages: list[tuple[float, float]], routes: int, in_flight: int) -> None:
    """After each answer the rest is sent at once, however long the backoff had become."""
    clock, away, at = ImmediateClock(), [], 0.0
    for quiet, seconds in outages:
        away.append((at + quiet, at + quiet + seconds))
        at += quiet + seconds
    server = Server(clock, away)
    run(clock, *(route(f"r{each}", server, partition=each, max_in_flight=in_flight) for each in range(routes)))

    answered = [now for now, is_away in server.attempts if not is_away]
    gaps = [later - now for now, later in pairwise(answered)]
    failed = [now for now, is_away in server.attempts if is_away]
    for gap, now in zip(gaps, answered, strict=False):
        assert gap < 0.2 or any(now <= each <= now + gap for each in failed)


@pytest.mark.parametrize("routes", [1, 3])
def test_deliveries_to_a_server_that_is_away_share_one_backoff(routes: int) -> None:
    """Each request in flight fails once; after that there is one attempt for each step of the backoff."""
    clock = ImmediateClock()
    server = Server(clock, [(0.0, 100.0)])
    run(clock, *(route(f"r{each}", server, partition=each) for each in range(routes)))

    failed = [now for now, is_away in server.attempts if is_away]
    assert len(failed) <= routes * 8 + 30
    later = sorted(now for now in failed if now > 0.02)
    assert all(b - a >= server.latency for a, b in pairwise(later))


def test_an_answer_to_a_request_that_began_before_a_failure_ends_no_outage() -> None:
    outage = Outage()
    outage.failed("refused", 10.0, 1.0, first=1.0, cap=30.0)

    assert not outage.answered(9.9)
    assert outage.not_before == 11.0
    assert outage.answered(10.0)
    assert outage.not_before == 0.0


def test_one_outage_row_by_row() -> None:
    outage = Outage()

    def fail(now: float) -> tuple[int, float]:
        outage.failed("refused", now, 1.0, first=1.0, cap=30.0)
        return outage.steps, outage.not_before

    def ask(until: float, jitter_seconds: float) -> tuple[float, float]:
        outage.asked(until, jitter_seconds, "busy")
        return outage.asked_until, outage.not_before

    assert (outage.is_on, outage.episode, outage.steps, outage.not_before) == (False, 0, 0, 0.0)
    assert fail(10.0) == (1, 11.0)
    assert fail(10.5) == (1, 11.0)  # it joins the wait
    assert fail(11.0) == (2, 13.0)
    assert ask(12.0, 0.5) == (12.0, 13.0)
    assert ask(20.0, 0.5) == (20.0, 20.5)
    assert ask(15.0, 9.0) == (20.0, 24.0)
    assert (outage.answered(10.9), outage.is_on, outage.episode) == (False, True, 0)
    assert (outage.answered(11.0), outage.is_on, outage.episode) == (True, False, 1)
    assert (outage.asked_until, outage.not_before) == (20.0, 0.0)
    assert (outage.answered(12.0), outage.episode) == (False, 1)
    assert fail(30.0) == (3, 31.0)  # the first backoff again
    assert fail(31.0) == (4, 33.0)
    outage.suspect_a_line()
    assert fail(31.5) == (5, 32.5)  # also during a wait
    outage.blame_server(4)
    assert fail(40.0) == (6, 56.0)  # the fifth backoff
    outage.blame_server(2)
    assert fail(60.0) == (7, 90.0)  # the largest one
    outage.hurry()
    assert (outage.asked_until, outage.not_before, outage.is_on) == (0.0, 0.0, True)


def test_equal_failures_and_deaths_in_a_row_are_counted_until_an_answer() -> None:
    retry = Retry(Policy(), Outage())
    died = Unavailable("reset", connection_died=True)
    rows = [
        (Unavailable("fault 17", 500, suspicious=True), (1, 0, False)),
        (Unavailable("fault 18", 500, suspicious=True), (2, 0, False)),  # numbers are ignored
        (Unavailable("busy", 503), (2, 0, False)),  # no line can be the cause
        (Unavailable("fault 19", 501, suspicious=True), (1, 0, False)),
        (died, (1, 1, True)),
        (died, (2, 2, True)),
        (Unavailable("fault 17", 500, suspicious=True), (1, 2, True)),
    ]
    for verdict, counts in rows:
        retry.failed(verdict)

        assert (retry.repeats, retry.deaths, retry.must_probe) == counts
    retry.answered(0.0)
    assert (retry.repeats, retry.deaths) == (0, 0)
    retry.failed(Unavailable("fault 17", 500, suspicious=True))
    assert retry.repeats == 1


def test_attempts_are_counted_from_the_first_failure_of_a_delivery() -> None:
    outage = Outage()
    early, late, other = (Retry(Policy(max_retries=2, max_retry_after_seconds=60.0), outage) for _ in range(3))
    busy = Unavailable("busy", 503)

    def attempts() -> tuple[int, int, int]:
        return early.attempts, late.attempts, other.attempts

    for now in (10.0, 11.0):
        early.pause(busy, now, 1.0)
    late.pause(busy, 12.0, 1.0)
    assert attempts() == (2, 1, 0)
    assert (early.is_used_up, early.is_retrying, other.is_retrying) == (False, True, False)
    assert (late.seconds_to_wait(12.0), other.seconds_to_wait(12.0)) == (1.0, -12.0)
    late.pause(busy, 13.0, 1.0)
    assert attempts() == (3, 2, 0)
    assert (early.is_used_up, late.is_used_up) == (True, False)
    early.suspect_a_line()
    assert attempts() == (0, 2, 0)
    early.blame_server()
    assert attempts() == (2, 2, 0)
    late.pause(Unavailable("slow down", 429, 100.0), 20.0, 0.5)
    assert (late.seconds_to_wait(20.0), other.seconds_to_wait(20.0)) == (60.5, 60.0)
    late.answered(19.0)  # it began before the last failure
    assert (attempts(), outage.is_on) == ((3, 0, 0), True)
    assert late.seconds_to_wait(20.0) == 60.0
    early.answered(20.0)
    assert (attempts(), outage.is_on) == ((0, 0, 0), False)


def test_the_backoff_is_short_while_a_line_is_suspected_and_long_where_none_is_at_fault() -> None:
    outage = Outage()
    retry = Retry(Policy(max_retries=4, retry_backoff_seconds=1.0, max_backoff_seconds=100.0), outage)
    busy = Unavailable("fault 7", 500, suspicious=True)

    def wait(now: float) -> float:
        retry.pause(busy, now, 1.0)
        return retry.seconds_to_wait(now)

    assert [wait(now) for now in (100.0, 200.0, 300.0)] == [1.0, 2.0, 4.0]
    retry.suspect_a_line()
    assert [wait(now) for now in (400.0, 500.0)] == [1.0, 2.0]
    retry.blame_server()
    assert wait(600.0) == 16.0


def test_the_time_that_a_server_asked_for_holds_for_all_and_no_answer_shortens_it() -> None:
    outage = Outage()
    first, second = (Machine(["m f=1 1"], Policy(), outage=outage) for _ in range(2))
    assert isinstance(first.next(0.0), Send)
    first.receive(Unavailable("busy", 429, 20.0), 1.0, 0.5, began=0.0)
    outage.answered(2.0)

    waits = [machine.next(5.0) for machine in (first, second)]
    assert [isinstance(wait, Wait) and wait.seconds >= 16.0 for wait in waits] == [True, True]


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_a_server_that_stays_away_is_asked_by_the_backoff(jitters: list[float]) -> None:
    outage, now = Outage(), 0.0
    for attempt, jitter in enumerate(jitters, 1):
        outage.failed("refused", now, jitter, first=1.0, cap=30.0)

        assert outage.not_before - now == pytest.approx(backoff_seconds(attempt, jitter, first=1.0, cap=30.0))
        now = outage.not_before


class Asking(Server):
    """A server that follows a script in the order in which requests end, whatever is asked; then all is well.

    A step is how long the answer takes, whether the request fails, and how long the server then asks to wait; 0 for a
    connection that breaks.
    """

    script: list[tuple[float, bool, float]]
    until = 0.0
    told_at = -1.0

    async def _fails(self) -> Unavailable | None:
        seconds, fails, asks = self.script.pop(0) if self.script else (0.01, False, 0.0)
        await self.clock.sleep(seconds)
        if not fails:
            return None
        if not asks:
            return Unavailable("reset", connection_died=True)
        self.until, self.told_at = max(self.until, self.clock.monotonic() + asks), self.clock.monotonic()
        return Unavailable("slow down", 429, asks)

    async def connect(self) -> None:
        if failure := await self._fails():
            raise NotConnected(failure.reason, retry_after_seconds=failure.retry_after_seconds)

    async def retention(self) -> Retention:
        failure = await self._fails()
        return Retention(0) if failure is None else Retention(None, "x", 0.0, failure.retry_after_seconds)

    async def write(self, lines: Sequence[str]) -> Verdict:
        now = self.clock.monotonic()
        self.attempts.append((now, self.told_at < now < self.until))
        return await self._fails() or Accepted()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.01, 0.5, 3.0]), st.booleans(), st.sampled_from([0.0, 5.0, 90.0])), max_size=9
    ),
    st.integers(1, 3),
    st.integers(1, 8),
)
def test_no_write_is_made_before_the_time_that_a_server_asked_for_in_any_answer(
    script: list[tuple[float, bool, float]], routes: int, in_flight: int
) -> None:
    clock = ImmediateClock()
    server = Asking(clock)
    server.script = list(script)
    run(clock, *(route(f"r{each}", server, partition=each, max_in_flight=in_flight) for each in range(routes)))

    assert [now for now, is_early in server.attempts if is_early] == []
    assert len(server.attempts) >= 8 * routes


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.01, 0.5, 3.0]), st.booleans(), st.sampled_from([0.0, 5.0, 90.0])), max_size=9
    ),
    st.integers(1, 5),
)
@example([(0.01, True, 0.0), (3.0, True, 5.0)], 2)  # the first may send alone when the second is answered
def test_a_write_that_another_one_delayed_waits_as_the_server_asked_meanwhile(
    script: list[tuple[float, bool, float]], deliveries: int
) -> None:
    """After a connection broke, requests are made one at a time: an answer comes while others wait for it."""
    state, early = SinkState(), []

    class Knowing(Asking):
        async def write(self, lines: Sequence[str]) -> Verdict:
            early.extend([lines] if self.clock.monotonic() < state.shared.outage.asked_until else [])
            return await super().write(lines)

    server = Knowing(ImmediateClock())

    async def main() -> None:
        server.script = list(script)
        lines = [[f"for if={number} {number}"] for number in range(deliveries)]
        await asyncio.gather(*(deliver(server, each, Policy(), server.clock, state=state) for each in lines))

    asyncio.run(asyncio.wait_for(main(), 20))
    assert early == []
    assert [now for now, is_early in server.attempts if is_early] == []


# --- events and status ---


def test_events_of_a_delivery_name_route_server_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    clock = ImmediateClock()
    with caplog.at_level(logging.INFO, "iggyflux.delivery"):
        run(clock, route("lambda", Server(clock, [(0.0, 60.0)])), route("None", Server(clock), partition=1))

    waits, away, back = (events(caplog, f"delivery.{each}") for each in ("waiting", "away", "back"))
    assert len(away) == len(back) == 1
    for fields in (*waits, *away):
        assert (fields["route"], fields["server"], fields["reason"]) == ("lambda", URL, "connection refused")
    assert (back[0]["route"], back[0]["server"]) == ("lambda", URL)


def test_a_route_is_away_until_an_answer_and_then_no_delivery_waits(caplog: pytest.LogCaptureFixture) -> None:
    clock = ImmediateClock()
    with caplog.at_level(logging.INFO, "iggyflux.delivery"):
        run(clock, route("r", Server(clock, [(0.0, 60.0)])))

    names = [record.event for record in caplog.records if hasattr(record, "event")]
    assert "delivery.waiting" not in names[names.index("delivery.back") :]


def test_a_schema_conflict_names_route_and_server(caplog: pytest.LogCaptureFixture) -> None:
    class Conflicting(Server):
        async def write(self, lines: Sequence[str]) -> Verdict:
            return Refused((Refusal(0, "conflict"),), True, (SchemaConflict("for", "if", "string", "float"),))

    clock = ImmediateClock()
    with caplog.at_level(logging.INFO, "iggyflux.delivery"):
        run(clock, route("del", Conflicting(clock), batches=3))

    (fields,) = events(caplog, "delivery.schema_conflict")
    assert (fields["route"], fields["server"]) == ("del", URL)


def test_the_status_names_server_and_reason_while_a_request_waits() -> None:
    status, seen = Status(), set()

    class Watched(ImmediateClock):
        async def sleep(self, seconds: float) -> None:
            seen.update((each.waiting_for, each.waiting_briefly) for each in status.routes)
            await super().sleep(seconds)

    clock = Watched()
    run(clock, route("r", Server(clock, [(0.0, 20.0)]), batches=2), status=status, tick=1.0)

    assert seen == {(None, None), (f"{URL}: connection refused", f"{URL}: unreachable")}


def test_the_status_shows_an_outage_and_when_the_next_attempt_is_made() -> None:
    clock, status, shown = ImmediateClock(), Status(), []
    server = Server(clock, [(0.0, 10.0)], latency=0.0)

    async def stop(_: Stop) -> None:
        while True:  # half a second after each tick
            await clock.sleep(0.5 if not shown else 1.0)
            shown.append((clock.monotonic(), status.routes[0].is_away, status.routes[0].backoff_seconds))

    run(
        clock,
        route("r", server, source=ScriptedSource([batch([b"x"]), *[None] * 80])),
        stop=stop,
        status=status,
        tick=1.0,
    )

    back_at = next(now for now, is_away in server.attempts if not is_away)
    assert len(shown) > 10
    for now, is_away, seconds in shown[1:]:
        ticked = now - 0.5
        assert is_away is (ticked < back_at)
        assert (seconds is not None) is is_away
        if seconds:
            assert any(each == pytest.approx(ticked + seconds) for each, _ in server.attempts)


# --- a stop while a server is away ---


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_stop_while_the_server_is_away_makes_one_last_attempt_and_ends(comes_back: bool) -> None:
    """The shutdown timeout is not waited for: an attempt later than that would never be made."""
    clock, asked_at = ImmediateClock(), []
    server = Server(clock, [(0.0, 1e9)])

    async def stop(asked: Stop) -> None:
        await clock.sleep(200.0)
        if comes_back:
            server.away = ()
        asked_at.append(clock.monotonic())
        asked.request()

    summary = run(clock, route("r", server), stop=stop)

    last = [now for now, _ in server.attempts if now >= asked_at[0]]
    assert clock.monotonic() - asked_at[0] < 1.0
    assert len(last) == (8 if comes_back else 1)
    assert summary.interrupted is not comes_back
    assert summary.exit_code == (0 if comes_back else 3)


# --- a server that never answers ---


@pytest.mark.parametrize("ticks", [4, 6, 16, 40])
def test_a_late_answer_shows_in_the_status_and_is_warned_of_once(ticks: int, caplog: pytest.LogCaptureFixture) -> None:
    clock, status = ImmediateClock(), Status()
    shown: list[str | None] = []

    async def stop(asked: Stop) -> None:
        await clock.sleep(ticks + 0.5)
        shown.extend([status.routes[0].waiting_for, status.routes[0].waiting_briefly])
        asked.request()
        asked.request()

    with caplog.at_level(logging.INFO):
        run(clock, route("yield", Server(clock, latency=1e9), batches=3), stop=stop, status=status, tick=1.0)

    assert (shown[0] is not None) is (ticks > 5)
    assert shown[1] == shown[0]
    assert shown[0] is None or shown[0].startswith(f"{URL}: no answer to a write of 1 lines for ")
    warned = events(caplog, "server.no_answer")
    assert [(each["route"], each["server"], each["requests"]) for each in warned] == [("yield", URL, 3)] * (ticks > 15)


def test_the_oldest_late_answer_is_shown_as_long_as_it_is_late_and_other_words_stay() -> None:
    unanswered, status = Unanswered("lambda"), RouteStatus("lambda")

    def shown(now: float) -> str | None:
        unanswered.show(status, now)
        return status.waiting_for

    with unanswered.request(1.0, "a poll", "tcp://from:8090"), unanswered.request(2.0, "a write of 3 lines"):
        assert shown(5.9) is None
        assert shown(6.0) == "tcp://from:8090: no answer to a poll for 5 s"
        assert shown(9.0) == "tcp://from:8090: no answer to a poll for 8 s"
    assert shown(10.0) is None
    with unanswered.request(2.0, "a write of 3 lines"):
        assert shown(10.0) == "the server: no answer to a write of 3 lines for 8 s"
        status.waiting_for = "the first point"
        assert shown(11.0) == "the server: no answer to a write of 3 lines for 9 s"
        status.waiting_for = "the first point"
    assert shown(12.0) == "the first point"


def test_each_late_answer_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    unanswered = Unanswered("lambda")
    with unanswered.request(0.0, "a poll"), unanswered.request(1.0, "a write"), unanswered.request(9.0, "a probe"):
        for now, known in [(14.9, 0), (15.0, 1), (15.5, 1), (16.0, 2), (20.0, 2), (24.0, 3)]:
            unanswered.warn(now)

            assert len(events(caplog, "server.no_answer")) == known


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["tcp://from", "http://to"]),
            st.tuples(st.integers(0, 5), st.sampled_from(["answer", "refusal", "silence"])),
            st.sampled_from([1.0, 7.0, 16.0]),
        ),
        max_size=30,
    )
)
@example(["http://to", 16.0, "http://to", (1, "answer"), 1.0, (0, "silence"), 1.0, "http://to", (0, "answer"), 1.0])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_late_answer_that_was_logged_has_an_end(
    caplog: pytest.LogCaptureFixture, steps: list[str | tuple[int, str] | float]
) -> None:
    """A server is back when its last request was answered, and none of which a warning was logged still waits."""
    unanswered, now = Unanswered("lambda"), 0.0
    open_requests: list[tuple[str, float, ExitStack, Any]] = []
    late: set[str] = set()
    last: dict[str, bool] = {}
    caplog.clear()
    expected: list[tuple[str, str, int | None]] = []
    with caplog.at_level(logging.INFO):
        for step in steps:
            if isinstance(step, str):
                stack = ExitStack()
                open_requests.append((step, now, stack, stack.enter_context(unanswered.attempt(now, "a poll", step))))
            elif isinstance(step, tuple) and open_requests:
                server, _, stack, request = open_requests.pop(step[0] % len(open_requests))
                request.is_answered = step[1] != "refusal"
                with suppress(TimeoutError), stack:
                    if step[1] == "silence":
                        raise TimeoutError
                last[server] = step[1] == "answer"
            elif isinstance(step, float):
                now += step
                newly_late = [server for server, began, *_ in open_requests if now - began >= 15 > now - step - began]
                expected += [("server.no_answer", server, count) for server, count in Counter(newly_late).items()]
                late |= set(newly_late)
                last |= dict.fromkeys(newly_late, False)
                known = {server for server, began, *_ in open_requests if now - began >= 15}
                back = {server for server in late - known if last.get(server)}
                expected += [("server.answered", server, None) for server in sorted(back)]
                late -= back
                unanswered.warn(now)
        logged: list[tuple[str, str, int | None]] = [
            (record.event, record.fields["server"], record.fields.get("requests"))  # type: ignore[attr-defined]
            for record in caplog.records
        ]
        for *_, stack, _ in open_requests:
            stack.close()

    assert sorted(logged, key=repr) == sorted(expected, key=repr)
    assert [each for each in logged if each[0] == "server.no_answer"] == [
        each for each in expected if each[0] == "server.no_answer"
    ]


@pytest.mark.parametrize(("own", "named"), [(None, "tcp://from:8090"), ("tcp://other:8090", "tcp://other:8090")])
def test_a_connection_that_is_lost_names_the_server_that_was_asked(own: str | None, named: str) -> None:
    error = NotConnected("refused")
    error.server = own
    with pytest.raises(NotConnected), Unanswered().request(0.0, "a poll", "tcp://from:8090"):
        raise error

    assert error.server == named


class Hanging(ScriptedSource):
    """A source on a server that hangs in one kind of call."""

    server = "tcp://from:8090"

    def __init__(self, where: str) -> None:
        super().__init__([batch([b"x"])])
        self.where = where

    async def connect(self) -> None:
        if self.where == "connect":
            await asyncio.Event().wait()
        await super().connect()

    async def read(self) -> Batch | None:
        if self.where == "read":
            await asyncio.Event().wait()
        return await super().read()

    async def ack(self, positions: Sequence[Position]) -> None:
        if self.where == "ack":
            await asyncio.Event().wait()
        await super().ack(positions)

    async def lag(self) -> dict[Partition, int]:
        await asyncio.Event().wait()
        return {}


@pytest.mark.parametrize("where", ["connect", "read", "ack"])
def test_whatever_call_hangs_the_status_names_the_server(where: str) -> None:
    clock, status, shown = ImmediateClock(), Status(), []

    async def stop(asked: Stop) -> None:
        await clock.sleep(8.5)
        shown.append(status.routes[0].waiting_for or "")
        asked.request()
        asked.request()

    run(clock, route("r", Server(clock), source=Hanging(where)), stop=stop, status=status, tick=1.0)

    assert shown[0].startswith("tcp://from:8090: no answer to ")


# --- the status file ---


def written_again(file: Path) -> bool:
    """Wait until the file is written anew; return whether it was."""
    file.unlink(missing_ok=True)
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return file.exists()


class Blocking(Lines):
    """A plan that occupies the event loop until the status file is written anew."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.was_written: list[bool] = []

    def render(self, messages: Sequence[Message]) -> Rendered:
        self.was_written.append(written_again(self.file))
        return super().render(messages)


def test_the_status_file_is_written_while_a_plan_renders(tmp_path: Path) -> None:
    file = tmp_path / "global.json"
    plan = Blocking(file)
    routes = [route("r", Server(ImmediateClock(), latency=0.0), batches=1, plan=plan)]
    asyncio.run(run_routes(routes, status_file=file, tick_seconds=0.01))

    assert plan.was_written == [True]


def test_the_status_file_is_written_for_all_routes_while_the_lag_of_one_is_asked_for(tmp_path: Path) -> None:
    """A server that hangs must not freeze what is known of the other routes."""
    file, seen = tmp_path / "global.json", []

    async def stop(asked: Stop) -> None:
        seen.extend([await asyncio.to_thread(written_again, file) for _ in range(3)])
        asked.request()
        asked.request()

    async def main() -> None:
        asked, clock = Stop(), SystemClock()
        source = ScriptedSource([batch([b"x"]), *[None] * 1_000_000])
        routes = [
            route("hangs", Server(ImmediateClock(), latency=0.0), source=Hanging("ack")),
            route("r", Server(ImmediateClock(), latency=0.0), source=source),
        ]
        stopping = asyncio.ensure_future(stop(asked))
        await run_routes(routes, stop=asked, clock=clock, status_file=file, tick_seconds=0.01)
        await stopping

    asyncio.run(asyncio.wait_for(main(), 20))

    assert seen == [True] * 3
    assert [each["name"] for each in json.loads(file.read_text())["routes"]] == ["hangs", "r"]


# --- connecting ---


@dataclass
class Unreachable(Server):
    """A sink, or a source, that cannot be connected."""

    error: Exception = field(default_factory=lambda: NotConnected("connection refused"))
    connects: int = 0

    async def connect(self) -> None:
        self.connects += 1
        raise self.error


class UnreachableSource(ScriptedSource):
    """A source on a server that cannot be connected."""

    server = "tcp://from:8090"

    def __init__(self, error: Exception) -> None:
        super().__init__([batch([b"x"])])
        self.error = error
        self.tries = 0

    async def connect(self) -> None:
        self.tries += 1
        raise self.error


@pytest.mark.parametrize("max_retries", [0, 1, 4])
@pytest.mark.parametrize("away", ["source", "sink", "both"])
def test_a_run_until_the_end_gives_up_a_server_that_it_never_reached(away: str, max_retries: int) -> None:
    clock = ImmediateClock()
    sink = Server(clock) if away == "source" else Unreachable(clock)
    source = (
        ScriptedSource([batch([b"x"])]) if away == "sink" else UnreachableSource(NotConnected("connection refused"))
    )
    summary = run(
        clock, route("r", sink, source=source, until_end=True, policy=Policy(max_retries=max_retries)), status=Status()
    )

    (error,) = summary.errors
    server = "tcp://from:8090" if away == "source" else URL
    assert (summary.exit_code, error.code) == (3, "IFX606")
    assert f"{server}: connection refused" in error.reason
    assert summary.routes[0].reconnects == max_retries
    assert summary.routes[0].is_away is (away != "source")


def test_a_continuous_run_waits_for_its_servers_without_end() -> None:
    clock = ImmediateClock()

    async def stop(asked: Stop) -> None:
        await clock.sleep(3600.0)
        asked.request()

    summary = run(clock, route("r", Unreachable(clock)), stop=stop)

    assert summary.errors == ()
    assert summary.routes[0].reconnects > 50


@pytest.mark.parametrize("wrong", ["source", "sink"])
def test_what_needs_a_person_stops_although_the_other_end_is_away(wrong: str) -> None:
    clock, fault = ImmediateClock(), Stopped("invalid credentials", None, "IFX763")
    sink = Unreachable(clock, error=fault if wrong == "sink" else NotConnected("connection refused"))
    source = UnreachableSource(fault if wrong == "source" else NotConnected("connection refused"))

    summary = run(clock, route("r", sink, source=source))

    assert [error.code for error in summary.errors] == ["IFX763"]
    assert clock.monotonic() == 0.0


def test_a_source_that_is_there_is_connected_once_while_the_sink_is_away() -> None:
    """Connecting again would join its group anew each time."""

    class Counted(ScriptedSource):
        connected = 0

        async def connect(self) -> None:
            self.connected += 1
            await super().connect()

    class Late(Server):
        tries = 0

        async def connect(self) -> None:
            self.tries += 1
            if self.tries < 6:
                raise NotConnected("connection refused")

    clock, source = ImmediateClock(), Counted([batch([b"x"])])
    summary = run(clock, route("r", Late(clock), source=source))

    assert summary.exit_code == 0
    assert source.connected == 1


# --- a stop before the end ---


class Long(ScriptedSource):
    """A source that knows how much is left."""

    async def lag(self) -> dict[Partition, int]:
        return {Partition("s", "t", 0): 100 - max(self.settled.values(), default=-1) - 1}


@pytest.mark.parametrize(("until_end", "exit_code", "state"), [(True, 3, "interrupted"), (False, 0, "done")])
def test_a_run_until_the_end_that_is_stopped_before_it_is_interrupted(
    until_end: bool, exit_code: int, state: str
) -> None:
    clock = ImmediateClock()
    source = Long([batch([b"x"] * 10), batch([b"x"] * 10, offset=10), *[None] * 1_000_000])

    async def stop(asked: Stop) -> None:
        await clock.sleep(2.0)
        asked.request()

    summary = run(clock, route("r", Server(clock), source=source, until_end=until_end), stop=stop)

    (found,) = summary.routes
    assert (summary.exit_code, found.state, found.acknowledged) == (exit_code, state, 20)
    assert not until_end or sum(found.lag.values()) == 80
    assert any("interrupted: 20 of 100 messages" in unstyled(line) for line in summary_lines(summary)) is until_end


@pytest.mark.parametrize(
    ("left", "away", "state"),
    [
        ({Partition("s", "t", 0): 0}, False, "done"),
        ({Partition("s", "t", 0): 0, Partition("s", "t", 1): 3}, False, "interrupted"),
        (NotConnected("gone"), False, "interrupted"),
        (Stopped("no such topic", None, "IFX763"), False, "interrupted"),
        ({}, True, "interrupted"),
    ],
)
def test_a_stopped_run_until_the_end_is_done_only_if_nothing_is_left(
    left: dict[Partition, int] | Exception, away: bool, state: str
) -> None:
    class Knowing(ScriptedSource):
        async def lag(self) -> dict[Partition, int]:
            if isinstance(left, Exception):
                raise left
            return left

    async def stop(asked: Stop) -> None:
        await clock.sleep(20.0)
        asked.request()

    clock = ImmediateClock()
    source = Knowing([batch([b"x"]), *[None] * 1_000_000])
    server = Server(clock, [(0.0, 1e9)] if away else [])
    summary = run(clock, route("r", server, source=source, until_end=True), stop=stop)

    assert summary.routes[0].state == state
    assert summary.exit_code == (0 if state == "done" else 3)


def test_a_run_until_the_end_that_reaches_it_is_done() -> None:
    clock = ImmediateClock()
    summary = run(clock, route("r", Server(clock), until_end=True))

    assert (summary.exit_code, summary.routes[0].state) == (0, "done")


# --- a route whose source has nothing now ---


def test_a_route_is_idle_when_nothing_is_read_and_nothing_is_in_flight() -> None:
    clock, status, seen = ImmediateClock(), Status(), []

    class Timed(ScriptedSource):
        """A source with a message at the start, and one after a minute."""

        async def read(self) -> Batch | None:
            offset = len(self._given)
            if offset < 2 and clock.monotonic() >= 60.0 * offset:
                self._script.append(batch([b"x"], offset=offset))
            else:
                self._script.append(None)
            return await super().read()

    async def stop(asked: Stop) -> None:
        for _ in range(6):
            await clock.sleep(15.0)
            seen.append(status.routes[0].state)
        asked.request()

    source = Timed([])
    summary = run(clock, route("r", Server(clock, latency=20.0), source=source), stop=stop, status=status)

    assert seen == ["running", "idle", "idle", "idle", "running", "idle"]
    assert (summary.routes[0].acknowledged, summary.routes[0].reconnects) == (2, 0)


def test_nothing_is_acknowledged_again_and_again_while_a_server_is_slow() -> None:
    class Counted(ImmediateClock):
        pauses = 0

        async def sleep(self, seconds: float) -> None:
            self.pauses += seconds == _ACK_INTERVAL_SECONDS
            await super().sleep(seconds)

    clock = Counted()
    summary = run(clock, route("r", Server(clock, latency=200.0), batches=2))

    assert summary.routes[0].acknowledged == 2
    assert clock.pauses <= 4


def test_what_a_server_asks_for_holds_for_all_up_to_a_bound() -> None:
    state = ServerState()
    for nothing in (None, 0.0):
        state.asked(nothing, 100.0, "busy")
    assert (state.outage.not_before, state.failure) == (0.0, "")
    state.asked(7.0, 100.0, "busy")
    assert (state.outage.not_before, state.outage.reason, state.failure) == (107.0, "busy", "it asked to wait")
    state.asked(1e9, 100.0, "busy")
    assert state.outage.not_before == 100.0 + MAX_RETRY_AFTER_SECONDS


def test_a_first_attempt_beside_one_that_tries_again_leaves_it_the_only_one() -> None:
    state = ServerState()
    with state.attempt(is_retry=True):
        with state.attempt(is_retry=False):
            assert state.is_trying
        assert state.is_trying
    assert not state.is_trying


def test_an_outage_that_did_not_fail_has_the_reason_of_what_the_server_asked_for() -> None:
    """Buckets of one server share it."""
    one = Outage()
    other = Outage(one.shared)
    assert other.reason == ""
    one.asked(5.0, 0.0, "busy")
    assert (one.reason, other.reason) == ("busy", "busy")
