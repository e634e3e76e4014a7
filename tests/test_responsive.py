"""Rendering never holds up signals, the status and other routes, whatever a batch holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.plan import bounds, columns
from iggyflux.plan.reference import joined
from iggyflux.records import Batch, Message, Partition
from iggyflux.runner import Route, Stop, run_routes
from iggyflux.runner.build import SinkPlan
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


@pytest.mark.slow
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


@pytest.mark.slow
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
