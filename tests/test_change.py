"""How a route takes a changed mapping: after what is in flight, in the middle of faults, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from iggyflux.delivery.verdicts import Accepted, Refusal, Refused, RefusedSome, Unavailable, Verdict
from iggyflux.errors import NotConnected
from iggyflux.mapping import OnError
from iggyflux.records import Message, Partition, Rendered
from iggyflux.runner.clock import Clock
from iggyflux.runner.route import ReaderRoute, Route, WriterPlan
from iggyflux.runner.status import RouteStatus
from iggyflux.runner.stop import Stop
from iggyflux.runner.writer_run import WriterRun, _Transfer
from iggyflux.transports.local.memory import (
    CollectingDeadLetters,
    ImmediateClock,
    ScriptedSink,
    ScriptedSource,
    batch,
)
from tests.test_reader_route import BASE, Database, S, World, points
from tests.test_reader_route import MAPPING as READER

HERE = Partition("s", "t", 0)
BATCHES = [batch([b"%d" % number], offset=number) for number in range(6)]
Step = Callable[[Sequence[str]], Awaitable[Verdict]]


@dataclasses.dataclass(frozen=True)
class Named(WriterPlan):
    """A plan that writes its name and the payload; in parts of one message if it `is_slow`."""

    name: str
    is_slow: bool = False

    @property
    def identity(self) -> str:
        return self.name

    def render(self, messages: Sequence[Message]) -> Rendered:
        lines = [f"{self.name} n={each.payload.decode()} {each.offset}" for each in messages]
        return Rendered(lines, range(len(lines)))

    def render_parts(self, messages: Sequence[Message]) -> Iterator[tuple[int, Rendered]]:
        for part in [[each] for each in messages] if self.is_slow else [messages]:
            yield len(part), self.render(part)


class Tried:
    """One run of a route, and what is changed in the middle of it."""

    def __init__(self, source: ScriptedSource, steps: Sequence[Any], *, plan: Named | None = None) -> None:
        self.source = source
        self.sink = ScriptedSink(steps)
        self.letters = CollectingDeadLetters()
        self.status, self.stop = RouteStatus("r"), Stop()
        self.clock: Clock = ImmediateClock()
        self.route = Route(
            name="r",
            source=source,
            plan=plan or Named("old"),
            sink=self.sink,
            dead_letters=self.letters,
            batch_size=1,
            linger_seconds=0.0,
            max_in_flight=1,
        )
        self.writer = WriterRun(self.route, self.status, self.stop, self.clock)

    def offer(self, name: str = "new", **more: Any) -> None:
        self.writer.change.offer(dataclasses.replace(self.route, plan=Named(name), **more))

    def run(self) -> Tried:
        asyncio.run(asyncio.wait_for(self.writer.run(), 20))
        return self

    @property
    def plans(self) -> list[str]:
        """The name of the plan of each stored line, in the order of offsets."""
        return [line.split(" ")[0] for line in sorted(self.sink.stored, key=lambda line: int(line.split(" ")[2]))]


def test_what_is_in_flight_is_settled_by_the_old_plan_and_what_follows_is_rendered_by_the_new_one() -> None:
    async def answer(lines: Sequence[str]) -> Verdict:
        tried.offer()
        for _ in range(5):
            await asyncio.sleep(0)
        assert tried.status.about.plan == "old"
        assert tried.status.is_changing
        return Accepted()

    tried = Tried(ScriptedSource(list(BATCHES)), [answer])
    tried.run()

    first, *others = tried.plans
    assert first == "old"
    assert others[-1] == "new"
    assert sorted(others, reverse=True) == others  # never back to the old one
    assert tried.source.settled == {HERE: 5}
    assert (tried.status.about.plan, tried.status.is_changing) == ("new", False)


def test_a_large_batch_is_changed_between_two_of_its_parts() -> None:
    async def answer(lines: Sequence[str]) -> Verdict:
        if len(tried.sink.writes) == 2:
            tried.offer()
        return Accepted()

    whole = batch([b"%d" % number for number in range(6)])
    tried = Tried(ScriptedSource([whole]), [answer] * 6, plan=Named("old", is_slow=True))
    tried.run()

    assert tried.plans[:2] == ["old", "old"]
    assert tried.plans[-1] == "new"
    assert len(tried.plans) == 6
    assert tried.source.settled == {HERE: 5}


def test_a_change_between_two_parts_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is settled for a change that was taken before, and so nothing is abandoned for it."""
    taken: list[bool] = []
    take = _Transfer._take_change

    async def noting(self: _Transfer, *given: Any) -> None:
        taken.append(self._run.change.is_offered.is_set())
        await take(self, *given)

    async def answer(lines: Sequence[str]) -> Verdict:
        if len(tried.sink.writes) == 1:
            tried.offer()
        for _ in range(20):
            await asyncio.sleep(0)
        return Accepted()

    monkeypatch.setattr(_Transfer, "_take_change", noting)
    parts = [batch([b"%d" % number for number in range(4)]), batch([b"4"], offset=4)]
    tried = Tried(ScriptedSource(parts), [answer] * 5, plan=Named("old", is_slow=True))
    tried.run()

    assert taken == [True]
    assert len(tried.plans) == 5
    assert tried.status.reconnects == 0


def test_what_is_offered_to_a_run_that_has_ended_does_not_wait() -> None:
    """Nor what was offered before it ended and not taken."""

    async def answer(lines: Sequence[str]) -> Verdict:
        tried.offer()
        tried.stop.request()
        return Accepted()

    tried = Tried(ScriptedSource(list(BATCHES)), [answer])
    tried.run()
    tried.offer()

    assert (tried.writer.change.is_over, tried.status.is_changing) == (True, False)


def test_a_dead_letter_has_the_plan_of_its_lines() -> None:
    """Also when the change was offered before the server refused them; `on_error` changes with the plan."""

    async def answer(lines: Sequence[str]) -> Verdict:
        tried.offer(on_error=OnError.SKIP)
        await asyncio.sleep(0)
        return Refused((Refusal(0, "no", 400),), rest_stored=True)

    refuse = Refused((Refusal(0, "no", 400),), rest_stored=True)
    tried = Tried(ScriptedSource(list(BATCHES)), [answer, Accepted(), Accepted(), Accepted(), refuse])
    tried.run()

    assert [(letter.plan, letter.reasons[0].line) for letter in tried.letters.letters] == [("old", "old n=0 0")]
    assert tried.status.dropped == 1


def test_what_is_not_settled_in_time_is_abandoned_and_read_again(caplog: pytest.LogCaptureFixture) -> None:
    """It is said what is waited for, and the new plan writes all that is not acknowledged."""
    forever = asyncio.Event()

    async def hang(lines: Sequence[str]) -> Verdict:
        tried.offer()
        await forever.wait()
        return Accepted()

    tried = Tried(ScriptedSource(list(BATCHES)), [hang])
    with caplog.at_level(logging.INFO):
        tried.run()
    events = [record.getMessage().split()[0] for record in caplog.records]

    assert tried.plans == ["new"] * 6
    assert tried.source.settled == {HERE: 5}
    assert [event for event in events if event.startswith("plan.")] == ["plan.waiting", "plan.changed"]
    assert "seconds=25" in caplog.text


def test_each_change_has_its_own_time_to_wait(caplog: pytest.LogCaptureFixture) -> None:
    """One is offered right after another one was taken: nothing is abandoned 30 s after the first one."""

    async def answer(lines: Sequence[str]) -> Verdict:
        tried.offer(f"new{len(tried.sink.writes)}")
        await tried.clock.sleep(19.0)
        return Accepted()

    tried = Tried(ScriptedSource(list(BATCHES)), [answer] * 3)
    tried.run()

    lines = [line for write in tried.sink.writes for line in write]
    assert len(lines) == len({line.split(" ")[2] for line in lines}) == 6
    assert tried.plans[1:] == ["new1", "new2", "new3", "new3", "new3"]


def test_a_change_does_not_wait_for_a_sink_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """Also where the route waits for a place for the next request, and not for the answers to those in flight."""
    seen: list[tuple[float, str]] = []
    offered: list[float] = []

    async def away(lines: Sequence[str]) -> Verdict:
        if len(seen) == 3:
            offered.append(tried.clock.monotonic())
            tried.offer()
        seen.append((tried.clock.monotonic(), tried.status.about.plan))
        return Unavailable("away")

    tried = Tried(ScriptedSource(list(BATCHES)), [away] * 200)
    with caplog.at_level(logging.INFO):
        tried.run()
    events = [record.getMessage().split()[0] for record in caplog.records]

    assert seen[-1][0] > 120
    assert {plan for at, plan in seen if at < offered[0] + 29} == {"old"}
    assert {plan for at, plan in seen if at > offered[0] + 31} == {"new"}
    assert [event for event in events if event.startswith("plan.")] == ["plan.waiting", "plan.changed"]
    assert tried.plans == ["new"] * 6


def test_held_requests_are_read_again_by_the_new_plan() -> None:
    """They wait for a witness that may never come, and the change may be what mends them."""
    vague = RefusedSome("not found", 404)

    async def refuse(lines: Sequence[str]) -> Verdict:
        tried.offer()
        return vague

    tried = Tried(ScriptedSource(list(BATCHES)), [refuse])
    tried.run()

    assert tried.plans == ["new"] * 6
    assert tried.letters.letters == []


def test_a_change_is_taken_before_the_next_connection() -> None:
    async def answer(lines: Sequence[str]) -> Verdict:
        tried.offer("newer")
        return Accepted()

    lost = [BATCHES[0], NotConnected("gone"), *BATCHES[1:]]
    tried = Tried(ScriptedSource(lost), [answer] * 2)
    tried.offer()
    tried.run()

    assert set(tried.plans) <= {"new", "newer"}
    assert tried.plans[-1] == "newer"
    assert tried.source.settled == {HERE: 5}


def test_a_stop_ends_the_wait() -> None:
    """What is in flight is finished as always, and the change is dropped."""

    async def answer(lines: Sequence[str]) -> Verdict:
        tried.offer()
        await asyncio.sleep(0)
        tried.stop.request()
        for _ in range(20):
            await asyncio.sleep(0)
        return Accepted()

    tried = Tried(ScriptedSource(list(BATCHES)), [answer])
    tried.run()

    assert set(tried.plans) == {"old"}
    assert tried.status.about.plan == "old"
    assert tried.source.settled[HERE] == len(tried.plans) - 1


def test_a_stop_while_the_sink_is_away_abandons_what_is_in_flight() -> None:
    async def away(lines: Sequence[str]) -> Verdict:
        tried.offer()
        tried.stop.request()
        return Unavailable("away")

    tried = Tried(ScriptedSource(list(BATCHES)), [away, *[Unavailable("away")] * 20])
    tried.run()

    assert tried.sink.stored == []
    assert tried.source.settled == {}
    assert tried.status.state == "interrupted"


def test_a_reader_takes_a_change_between_two_windows(tmp_path: Path) -> None:
    """Each message is of one plan, none is sent twice, and the position goes on; the changed source is read."""
    world = World(tmp_path, points(50), until_end=True, window=10 * S, start=BASE - 100 * S)
    other = Database(points(50), world.clock)
    plan = READER.plan()
    seen: list[str] = []
    fetched: list[int] = []

    def changed(name: str) -> ReaderRoute:
        assert world.reader is not None
        return dataclasses.replace(world.reader.route, plan=Telling(name), plan_identity=name, source=other)

    class Telling:
        whole_windows = False

        def __init__(self, name: str) -> None:
            self.name = name

        def render(self, rows: Any, digests: Any = None) -> Any:
            seen.append(self.name)
            if len(seen) == 2:
                assert world.reader is not None
                world.reader.change.offer(changed("new"))
                fetched.append(len(world.database.fetched))
            return plan.render(rows, digests)

    world.plan = Telling("old")
    world.run()

    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {"old", "new"}
    assert len(world.sink.values) == len(set(world.sink.values)) == 50
    assert world.status.about.plan == "new"
    assert world.database.closed
    assert other.closed
    assert other.fetched
    assert len(world.database.fetched) <= fetched[0] + 1  # the one that was fetched ahead
    assert world.reader is not None
    world.reader.change.offer(changed("newer"))
    assert (world.reader.change.is_over, world.status.is_changing) == (True, False)
