"""Rendering never holds up signals, the status and other routes, whatever a batch holds."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.settled import Interval
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.plan import bounds, columns
from iggyflux.plan.reference import joined
from iggyflux.records import Batch, Message, Partition, Rendered
from iggyflux.runner import Route, Stop, run_routes
from iggyflux.runner.build import SinkPlan
from iggyflux.runner.ledger import Job, Ledger, Settled
from iggyflux.transports.local.memory import CollectingDeadLetters, ScriptedSink, ScriptedSource, batch
from tests.test_bounds import CASES, EACH, THOUSAND, writer

LONGEST_GAP_SECONDS = 3.0
"""Of CPU of the process, which no other process changes.  A single message took six to thirteen on the event loop."""

HUNDRED = json.dumps({"yield": list(range(100))})

HOSTILE: dict[str, tuple[str, str, int]] = {
    "steps": (*CASES["items"][:2], 2),
    "texts": (*CASES["doubled_object"][:2], 2),
    "lines": (*CASES["measurement_in_each"][:2], 2),
    "failures": (writer({"x": "@"}, for_each="yield"), '{"yield":[' + ",".join(["[]"] * 200_000) + "]}", 2),
    "many": (
        writer({"x": f"length(map(&length(to_string(map(&to_string(@), {EACH}))), {EACH}))"}),
        HUNDRED,
        300,
    ),
}
ORDINARY = '{"x":1.5}'


class Trickling(ScriptedSource):
    """A source with a message every few milliseconds."""

    async def read(self) -> Batch | None:
        await asyncio.sleep(0.02)
        return await super().read()


@asynccontextmanager
async def watched() -> AsyncIterator[list[float]]:
    """Measure how long the event loop does nothing else: the list has the longest time of CPU in the end."""
    longest = [0.0]

    async def tick() -> None:
        while True:
            began = time.process_time()
            await asyncio.sleep(0.01)
            longest[0] = max(longest[0], time.process_time() - began)

    ticking = asyncio.create_task(tick())
    yield longest
    ticking.cancel()


def route(name: str, mapping: str, source: ScriptedSource) -> Route:
    sink, parsed = ScriptedSink(), parse_mapping(mapping, format="yaml")
    assert isinstance(parsed, WriterMapping)
    plan = SinkPlan(parsed, sink, "ns", {})
    return Route(name=name, plan=plan, source=source, sink=sink, dead_letters=CollectingDeadLetters())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("texts", "lines") else pytest.mark.slow) for name in HOSTILE]
)
def test_a_hostile_batch_holds_up_nobody(name: str, tmp_path: Path) -> None:
    """A signal is heard, another route goes on and the status is written while it is rendered."""
    mapping, payload, count = HOSTILE[name]
    hostile = batch([payload.encode()] * count)
    other = Trickling([batch([ORDINARY.encode()], offset=offset) for offset in range(10_000)])
    sent, heard = [0.0], [float("inf")]

    async def main() -> tuple[float, int, float]:
        stop = Stop()

        def hear() -> None:
            heard[0] = time.process_time()
            stop.request()

        def send() -> None:
            time.sleep(1.0)
            while other.reads <= 10 and time.monotonic() - began < 120:
                time.sleep(0.1)
            sent[0] = time.process_time()
            os.kill(os.getpid(), signal.SIGTERM)

        began, used = time.monotonic(), time.process_time()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, hear)
        threading.Thread(target=send).start()
        routes = [route("hostile", mapping, ScriptedSource([hostile])), route("other", writer({"x": "x"}), other)]
        async with watched() as longest:
            running = asyncio.create_task(run_routes(routes, stop=stop, status_file=tmp_path / "status.json"))
            while heard[0] == float("inf"):
                await asyncio.sleep(0.01)
            read = other.reads
            await running
        return longest[0], read, time.process_time() - used

    gap, read, seconds = asyncio.run(main())

    assert gap < LONGEST_GAP_SECONDS
    assert heard[0] - sent[0] < LONGEST_GAP_SECONDS
    assert read > 10, "the other route stood still"
    assert seconds < 60
    assert (tmp_path / "status.json").exists()


def test_a_batch_that_takes_long_is_acknowledged_part_by_part() -> None:
    """What was rendered of it is sent and settled, and a stop leaves only the rest."""
    mapping, payload, _ = HOSTILE["texts"]
    source = ScriptedSource([batch([payload.encode()] * 8)])
    stop = Stop()

    async def main() -> None:
        running = asyncio.create_task(run_routes([route("hostile", mapping, source)], stop=stop))
        while not source.settled:
            await asyncio.sleep(0.01)
        stop.request()
        await running

    asyncio.run(main())

    assert 0 <= source.settled[Partition("s", "t", 0)] < 7


@pytest.mark.parametrize("end", [None, 5_000])
def test_parts_of_a_batch_move_the_position_only_where_the_source_has_one(end: int | None) -> None:
    """A file counts bytes: it has a position after the whole batch only."""
    here = Partition("s", "t", 0)
    whole = Batch(here, [Message(b"", offset=offset) for offset in range(10, 20)], end)
    ledger = Ledger()
    jobs = [Job(whole.part(start, stop), Rendered(), 0) for start, stop in ((0, 3), (3, 4), (4, 10))]
    taken = []
    for job in jobs:
        ledger.begin(job)
    for job in jobs:
        ledger.settle(job)
        taken.append(ledger.take())

    positions = [[position.offset for position in each.positions] for each in taken]
    assert positions == ([[12], [13], [19]] if end is None else [[], [], [end]])
    assert [each.messages for each in taken] == ([3, 1, 6] if end is None else [0, 0, 10])


class _Lines(list[str]):
    """Lines that can be looked for."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_what_is_settled_is_not_kept_until_it_is_acknowledged() -> None:
    """A source that acknowledges slowly is read on, however much that is."""
    here, ledger, kept = Partition("s", "t", 0), Ledger(), weakref.WeakSet[_Lines]()
    ledger.begin(Job(Batch(here, [Message(b"", offset=0)]), Rendered(), 0))
    for offset in range(1, 9):
        job = Job(Batch(here, [Message(b"", offset=offset)]), Rendered(_Lines(["m n=1"])), 1)
        kept.add(job.rendered.lines)
        ledger.begin(job)
        ledger.settle(job)
    del job
    gc.collect()

    assert len(kept) == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans(), st.booleans())), st.data())
def test_what_is_settled_behind_a_batch_that_is_not_takes_no_more_room(drawn: Any, data: Any) -> None:
    """Settled entries are joined, and what may be acknowledged, when and with which counts, does not depend on that."""
    here, plain, joining = Partition("s", "t", 0), Ledger(), Ledger()
    open_jobs: list[Job] = []
    offset = 0
    for size, has_end, settles, takes in drawn:
        batch = Batch(here, [Message(b"", offset=offset + at, timestamp_us=offset + 1) for at in range(size + 1)])
        open_jobs.append(Job(dataclasses.replace(batch, has_position=has_end), Rendered(), 0))
        offset += size + 1
        for ledger in (plain, joining):
            ledger.begin(open_jobs[-1])
        if settles:
            job = open_jobs.pop(data.draw(st.integers(0, len(open_jobs) - 1)))
            interval = Interval(job.messages[0].offset, job.messages[-1].offset, len(job.messages))
            for ledger in (plain, joining):
                ledger.settle(job, [("p", interval)])
        if takes:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("iggyflux.runner.ledger._FEWEST_JOINED", 1)
                found = joining.take()
            expected = plain.take()
            assert (found.positions, found.messages, found.arrivals) == (
                expected.positions,
                expected.messages,
                expected.arrivals,
            )
            assert _noted(found) == _noted(expected)


def _noted(settled: Settled) -> list[Interval]:
    """Return the intervals of settled batches, neighbours as one."""
    found: list[Interval] = []
    for _, (_, each) in settled.intervals:
        if found and found[-1].last + 1 == each.first:
            each = found.pop().joined(each)
        found.append(each)
    return found


def test_a_dead_bucket_for_a_day_does_not_fill_the_memory() -> None:
    """One batch is not settled; of all after it there is one entry, with a number for each batch."""
    here, ledger = Partition("s", "t", 0), Ledger()
    ledger.begin(Job(Batch(here, [Message(b"", offset=0)]), Rendered(), 1))
    for offset in range(1, 20_000):
        job = Job(Batch(here, [Message(b"", offset=offset)]), Rendered(), 0)
        ledger.begin(job)
        ledger.settle(job, [("p", Interval(offset, offset))])
        assert ledger.take().messages == 0

    (queue,) = ledger._queues.values()
    assert len(queue) <= 1001
    assert sum(len(entry.intervals) for entry in queue) <= 1001


@pytest.mark.parametrize("kind", ["compiled", "reference"])
@pytest.mark.parametrize("for_each", [None, "yield[:40]"])
def test_the_parts_of_a_batch_are_what_it_becomes_as_a_whole(
    kind: Any, for_each: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing depends on where a batch is cut: lines, origins, failures and their order."""
    heavy = json.loads(THOUSAND)
    payloads = [json.dumps({"x": "odd" if number % 5 == 1 else 1, **heavy}).encode() for number in range(40)]
    mapping = writer({"x": f"sum(map(&length([`1`]), {EACH}))", "y": "root().x"}, for_each, {"n": "index()"})
    plan: Any = parse_mapping(mapping).plan(kind)
    messages = [Message(payload, timestamp_us=1) for payload in payloads[: 5 if for_each else None]]
    one = plan.render(messages)
    monkeypatch.setattr(bounds, "MAX_STEPS", 20_000)
    monkeypatch.setattr(columns, "MAX_STEPS", 20_000)
    parts = list(plan.render_parts(messages))

    assert one.lines
    assert one.failures
    assert plan.render(messages) == one
    assert joined(parts) == one
    assert len(parts) > 1
    assert sum(count for count, _ in parts) == len(messages)
