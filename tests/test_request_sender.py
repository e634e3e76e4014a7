"""Requests side by side: how many, none beside one of the same point, and what is settled when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iggyflux.delivery.lines import RequestLines
from iggyflux.delivery.pace import Bounds, Pace
from iggyflux.delivery.verdicts import Accepted, Refusal, Refused, RefusedSome, Verdict
from iggyflux.records import Rendered
from iggyflux.runner.deliver import SinkState
from iggyflux.runner.footprint import Footprint
from iggyflux.runner.ledger import Job, Share
from iggyflux.runner.places import Place
from iggyflux.runner.request_sender import RequestSender
from iggyflux.runner.requests import RequestBuilder
from iggyflux.runner.status import RouteStatus
from iggyflux.transports.local.memory import ImmediateClock, ScriptedSource, batch
from tests.test_runner import route


class Sink:
    """A sink whose requests take so many turns of the loop and seconds each; it refuses lines of the series `bad`."""

    dialect, in_flight = "v2", None

    def __init__(self, turns: list[int], clock: ImmediateClock) -> None:
        self.turns, self.clock = turns, clock
        self.running: list[Sequence[str]] = []
        self.most = 0
        self.sent: list[str] = []

    async def connect(self) -> None: ...

    async def write(self, lines: Sequence[str]) -> Verdict:
        points = {line.split(" ")[0] for line in lines}
        assert not any(line.split(" ")[0] in points for other in self.running for line in other)
        self.sent += lines
        self.running.append(lines)
        self.most = max(self.most, len(self.running))
        for _ in range(self.turns.pop() if self.turns else 1):
            await asyncio.sleep(0)
        self.running.remove(lines)
        self.clock.now += 1.0
        bad = [Refusal(at, "no", 400) for at, line in enumerate(lines) if line.startswith("bad")]
        return Refused(tuple(bad), rest_stored=True) if bad else Accepted()

    async def close(self) -> None: ...


class HeldUp(Pace):
    """A pace that keeps how long requests waited."""

    def __init__(self, number: int) -> None:
        super().__init__(Bounds.exactly(number))
        self.waits: list[float] = []

    def held_up(self, seconds: float) -> None:
        self.waits.append(seconds)


def job_of(points: list[str]) -> Job:
    lines = [f"{point} v={number} 1600000000000000000" for number, point in enumerate(points)]
    return Job(batch([b""] * len(lines)), Rendered(lines, range(len(lines))), len(lines))


def share_of(job: Job) -> Share:
    return Share(job, job.rendered.lines, range(len(job.rendered.lines)))


JOBS = st.lists(st.lists(st.sampled_from(["bad", *"abcdefghijk"]), min_size=1, max_size=4), max_size=8)


@given(JOBS, st.lists(st.integers(0, 9), max_size=9), st.integers(1, 4), st.booleans())
@example([["a", "a"]], [], 1, True)
def test_requests_overlap_within_the_limit_and_each_batch_is_settled_once(
    points: list[list[str]], turns: list[int], limit: int, counts: bool
) -> None:
    clock, status, state = ImmediateClock(), RouteStatus("r"), SinkState()
    sink, jobs, settled = Sink(turns, clock), [job_of(each) for each in points], list[Job]()
    state.pace = pace = HeldUp(limit)
    builder = RequestBuilder(3, 10**6)
    requests = [request for job in jobs for request in builder.add(share_of(job))]
    if len(builder):
        requests.append(builder.take())

    async def settle(job: Job) -> None:
        assert job.unsettled_lines == 0
        settled.append(job)

    async def main() -> None:
        made: Any = route(ScriptedSource([]), sink, count_collisions=counts)  # type: ignore[arg-type]
        sender = RequestSender(made, status, clock, asyncio.Event(), Place(made.sink, state), settle)
        async with asyncio.TaskGroup() as tasks:
            for request in requests:
                await sender.send(request, tasks)
                assert sender.in_flight >= status.in_flight >= len(sink.running)
            await sender.until_answered()
            assert (sender.in_flight, sender.is_holding, status.in_flight) == (0, False, 0)
            await sender.finish()

    asyncio.run(asyncio.wait_for(main(), 30))
    lines = [line for job in jobs for line in job.rendered.lines]
    bad = sum(line.startswith("bad") for line in lines)
    assert sorted(sink.sent) == sorted(lines)
    assert sink.most <= limit
    assert len(settled) == len(jobs) == len(set(map(id, settled)))
    assert (status.delivered, status.refused) == (state.delivered, state.refused) == (len(lines) - bad, bad)
    for job in jobs:
        refused = {at for at, line in enumerate(job.rendered.lines) if line.startswith("bad")}
        assert {refusal.line for refusal in job.refusals} == refused
    collisions = sum(Footprint(request.lines).collisions() for request in requests)
    assert status.collisions == (collisions if counts else 0)
    assert len(pace.waits) == len(requests)
    assert sum(pace.waits) <= len(requests)
    assert any(pace.waits) or sink.most < limit or len(requests) <= limit


@pytest.mark.parametrize(
    ("configured", "of_sink", "first"), [(2, Bounds(3, 1, 9), 2), (None, Bounds(3, 1, 9), 3), (None, None, 4)]
)
def test_the_pipeline_decides_how_many_requests_are_in_flight_else_the_sink(
    configured: int | None, of_sink: Bounds | None, first: int
) -> None:
    clock, state = ImmediateClock(), SinkState()
    sink = Sink([], clock)
    sink.in_flight = of_sink  # type: ignore[assignment]
    made: Any = route(ScriptedSource([]), sink, max_in_flight=configured)  # type: ignore[arg-type]

    async def main() -> None:
        place = Place(sink, state)
        sender = RequestSender(made, RouteStatus("r"), clock, asyncio.Event(), place, lambda _: asyncio.sleep(0))
        (request,) = RequestBuilder(1, 10**6).add(share_of(job_of(["a"])))
        async with asyncio.TaskGroup() as tasks:
            await sender.send(request, tasks)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert state.pace is not None
    assert state.pace.limit == first


def test_requests_follow_when_the_lines_of_those_in_flight_became_bodies() -> None:
    """Before any of them is answered."""
    clock, number = ImmediateClock(), 10

    class Hanging(Sink):
        async def write(self, lines: Sequence[str]) -> Verdict:
            assert isinstance(lines, RequestLines)
            self.running.append(lines)
            await asyncio.sleep(0.01)
            lines.keep(b"a body")
            while len(self.running) < number:
                await asyncio.sleep(0.01)
            return Accepted()

    sink = Hanging([], clock)
    sink.in_flight = Bounds.exactly(number)  # type: ignore[assignment]
    made: Any = route(ScriptedSource([]), sink)  # type: ignore[arg-type]

    async def main() -> None:
        place = Place(sink, SinkState())
        sender = RequestSender(made, RouteStatus("r"), clock, asyncio.Event(), place, lambda _: asyncio.sleep(0))
        async with asyncio.TaskGroup() as tasks:
            for each in range(number):
                job = Job(batch([b""]), Rendered([f"m,n={each} v={'1' * 10_000_000} 1600000000000000000"], [0]), 1)
                for request in RequestBuilder(1, 10**8).add(share_of(job)):
                    await sender.send(request, tasks)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert len(sink.running) == number


@given(st.lists(st.tuples(st.integers(1, 80), st.integers(1, 5)), min_size=1, max_size=12))
@example([(20, 3)] * 5)
def test_an_adapted_number_of_requests_holds_no_more_than_64_mb_in_memory(sizes: list[tuple[int, int]]) -> None:
    """Twice their lines, and the payloads of their messages: a request alone may be larger."""
    clock, running, most = ImmediateClock(), list[int](), [0]
    megabyte = b"x" * 1_000_000

    class Slow(Sink):
        async def write(self, lines: Sequence[str]) -> Verdict:
            number = int(lines[0].split(" ")[1].removeprefix("v="))
            running.append(sizes[number][0] * 1_000_000 + 2 * (len(lines[0]) + 1))
            if len(running) > 1:
                most.append(sum(running))
            for _ in range(sizes[number][1]):
                await asyncio.sleep(0)
            running.remove(sizes[number][0] * 1_000_000 + 2 * (len(lines[0]) + 1))
            return Accepted()

    sink = Slow([], clock)
    sink.in_flight = Bounds.exactly(8)  # type: ignore[assignment]
    made: Any = route(ScriptedSource([]), sink)  # type: ignore[arg-type]

    async def main() -> None:
        place = Place(sink, SinkState())
        sender = RequestSender(made, RouteStatus("r"), clock, asyncio.Event(), place, lambda _: asyncio.sleep(0))
        async with asyncio.TaskGroup() as tasks:
            for number, (size, _) in enumerate(sizes):
                line = f"m,n={number} v={number} 1600000000000000000"
                job = Job(batch([megabyte] * size), Rendered([line], [0] * size), 1)
                for request in RequestBuilder(1, 10**6).add(share_of(job)):
                    await sender.send(request, tasks)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert max(most) <= 64_000_000
    can_be_together = any(turns > 2 and before + after <= 60 for (before, turns), (after, _) in pairwise(sizes))
    assert len(most) > 1 or not can_be_together


def test_what_is_held_is_sent_again_by_one_task_and_never_after_the_end() -> None:
    class Vague(Sink):
        async def write(self, lines: Sequence[str]) -> Verdict:
            verdict = await super().write(lines)
            return RefusedSome("no", 400) if lines[0].startswith("vague") else verdict

    clock, settled = ImmediateClock(), list[Job]()
    sink = Vague([], clock)
    made: Any = route(ScriptedSource([]), sink)  # type: ignore[arg-type]

    async def settle(job: Job) -> None:
        settled.append(job)

    def trying() -> int:
        names = [each.get_coro().__qualname__ for each in asyncio.all_tasks()]  # type: ignore[union-attr]
        return names.count("RequestSender._try_again")

    async def main() -> None:
        sender = RequestSender(made, RouteStatus("r"), clock, asyncio.Event(), Place(sink, SinkState()), settle)
        async with asyncio.TaskGroup() as tasks:
            for point in ("a", "vague1", "vague2"):
                (request,) = RequestBuilder(1, 10**6).add(share_of(job_of([point])))
                await sender.send(request, tasks)
                await sender.until_answered()
            assert (sender.is_holding, trying(), len(settled)) == (True, 1, 1)
            await sender.finish()
            await asyncio.sleep(0)
            assert trying() == 0
            sent = len(sink.sent)
            clock.now += 10_000.0
            for _ in range(50):
                await asyncio.sleep(0)
            assert (sender.is_holding, trying(), len(settled), len(sink.sent)) == (False, 0, 3, sent)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_nothing_that_is_held_is_sent_again_beside_another_request() -> None:
    """Also if that takes longer than the largest backoff."""
    clock, settled = ImmediateClock(), list[Job]()
    sink = Sink([], clock)
    write = sink.write

    async def vaguely(lines: Sequence[str]) -> Verdict:
        verdict = await write(lines)
        return RefusedSome("no", 400) if lines[0].startswith("vague") else verdict

    sink.write = vaguely  # type: ignore[method-assign]
    made: Any = route(ScriptedSource([]), sink)  # type: ignore[arg-type]

    async def settle(job: Job) -> None:
        settled.append(job)

    async def main() -> None:
        sender = RequestSender(made, RouteStatus("r"), clock, asyncio.Event(), Place(sink, SinkState()), settle)
        async with asyncio.TaskGroup() as tasks:
            for point in ("a", "vague", "b"):
                (request,) = RequestBuilder(1, 10**6).add(share_of(job_of([point])))
                await sender.until_answered()
                sink.turns = [400] if point == "b" else []
                await sender.send(request, tasks)
            sent = len(sink.sent)
            clock.now += 10_000.0
            for _ in range(100):
                await asyncio.sleep(0)
            assert (sender.is_holding, sender.in_flight, len(sink.sent)) == (True, 1, sent)
            await sender.finish()
        assert len(settled) == 3

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(("unit_ns", "at"), [(1, "1970-01-01T00:00:00.000000005Z"), (10**9, "1970-01-01T00:00:05Z")])
def test_times_that_are_hardly_meant_are_logged_in_the_unit_of_the_lines(
    unit_ns: int, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, status = ImmediateClock(), RouteStatus("r")
    made: Any = route(ScriptedSource([]), Sink([], clock), unit_ns=unit_ns)  # type: ignore[arg-type]

    async def main() -> None:
        place = Place(made.sink, SinkState())
        sender = RequestSender(made, status, clock, asyncio.Event(), place, lambda _: asyncio.sleep(0))
        job = Job(batch([b""]), Rendered(["m v=1 5"], [0]), 1)
        async with asyncio.TaskGroup() as tasks:
            for request in RequestBuilder(1, 10**6).add(share_of(job)):
                await sender.send(request, tasks)

    asyncio.run(asyncio.wait_for(main(), 30))
    (event,) = [each.getMessage() for each in caplog.records if "times.implausible" in each.getMessage()]
    assert f"example={at}" in event
    assert status.implausible == 1
