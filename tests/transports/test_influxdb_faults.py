"""Delivery over HTTP to the simulator, with faults: good lines are stored, bad ones rejected."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

import pytest

from iggyflux.delivery.retry import Policy
from iggyflux.delivery.verdicts import Refusal, Verdict
from iggyflux.lineprotocol import Point, parse_lines
from iggyflux.pipeline import InfluxSettings
from iggyflux.records import Message, Rendered
from iggyflux.runner import Route, Stop, run_routes
from iggyflux.runner.clock import SystemClock
from iggyflux.runner.deliver import SinkState, deliver
from iggyflux.runner.route import WriterPlan
from iggyflux.sim import SimServer
from iggyflux.sim.faults import Chaos, Fault
from iggyflux.transports.influxdb.admin import CheckReport
from iggyflux.transports.influxdb.flavors import FLAVORS
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
from iggyflux.transports.local.memory import CollectingDeadLetters, ScriptedSource
from iggyflux.transports.local.memory import batch as batch_of

T = TypeVar("T")

START = 1_700_000_000_000_000_000
POLICY = Policy(retry_backoff_seconds=0.002, max_backoff_seconds=0.02, max_retry_after_seconds=0.02)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, 60)

    return asyncio.run(bounded())


def settings(server: SimServer, **given: Any) -> InfluxSettings:
    org = "org" if server.dialect == 2 else None
    return InfluxSettings(
        url=server.url, database="plant", org=org, timeout_seconds=2.0, **{"max_in_flight": 4, **given}
    )


def delivered(server: SimServer, batches: Sequence[Sequence[str]], *faults: Fault | Chaos) -> list[tuple[Refusal, ...]]:
    """Return the refusals of each batch; all are in flight at once, and `faults` apply from the first one on."""

    async def main() -> list[tuple[Refusal, ...]]:
        sink = InfluxLineSink(settings(server))
        await sink.connect()
        server.inject(*faults)
        state, clock = SinkState(), SystemClock()
        try:
            deliveries = [deliver(sink, lines, POLICY, clock, state=state) for lines in batches]
            return list(await asyncio.gather(*deliveries))
        finally:
            await sink.close()

    return drive(main())


def batch(number: int, count: int = 120) -> list[str]:
    return [f"m,t=a{number},u=ü\\ b f={index}.5,i={index}i {START + number * 1000 + index}" for index in range(count)]


Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...], int | None]


def values(points: Sequence[Point]) -> dict[Key, dict[str, Any]]:
    """Return points by what identifies them."""
    return {
        (point.measurement, tuple(sorted(point.tags.items())), point.timestamp_ns): dict(point.fields)
        for point in points
    }


def of(lines: Sequence[str]) -> dict[Key, dict[str, Any]]:
    return values([point for line in lines for point in parse_lines(line)])


@pytest.mark.parametrize("dialect", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_under_random_faults_good_lines_are_stored_and_bad_ones_rejected(dialect: int, seed: int) -> None:
    draw = random.Random(seed)
    batches = [batch(number) for number in range(6)]
    bad = [sorted(draw.sample(range(120), draw.choice([0, 1, 3]))) for _ in batches]
    for lines, indices in zip(batches, bad, strict=True):
        for index in indices:
            lines[index] = draw.choice(["m,t=a f=1x 5", "m,t= f=1 7", "m", "m f=1 2 3", "m f=NaN 1"])
    with SimServer(dialect, database="plant") as server:
        refusals = delivered(server, batches, Chaos(seed=seed, rate=0.4, times=40))
        stored = values(server.points("plant"))

    assert [[refusal.line for refusal in found] for found in refusals] == bad
    good = [
        line
        for lines, indices in zip(batches, bad, strict=True)
        for index, line in enumerate(lines)
        if index not in indices
    ]
    assert stored == of(good)


@pytest.mark.long
@pytest.mark.parametrize("dialect", [1, 2, 3])
def test_the_same_with_a_hundred_seeds(dialect: int) -> None:
    for seed in range(3, 100):
        test_under_random_faults_good_lines_are_stored_and_bad_ones_rejected(dialect, seed)


@pytest.mark.parametrize("dialect", [1, 2, 3])
def test_a_field_of_another_type_is_refused_alone(dialect: int) -> None:
    with SimServer(dialect, database="plant") as server:
        delivered(server, [batch(0)])
        lines = batch(1)
        lines[50] = f'm,t=a1 f="text" {START + 5}'
        (refusals,) = delivered(server, [lines])
        stored = values(server.points("plant"))

    assert [(refusal.line, refusal.code) for refusal in refusals] == [(50, "IFX609")]
    assert stored == of([*batch(0), *lines[:50], *lines[51:]])


FAULTS = {
    "429 with seconds": Fault("status", times=3, status=429, retry_after=0),
    "429 with a date": Fault("status", times=3, status=429, retry_after=0, retry_after_form="date"),
    "503 page": Fault("status", times=5, status=503, body="html"),
    "500 stored all the same": Fault("status", times=3, status=500, stored=True),
    "reset before": Fault("reset", times=1, when="before"),
    "reset during": Fault("reset", times=1, when="during"),
    "reset after it was stored": Fault("reset", times=1, when="after", stored=True),
    "truncated": Fault("truncate", times=1, bytes=5),
    "too large": Fault("too_large", times=None, bytes=1500),
    "taken twice": Fault("duplicate", times=None),
    "down": Fault("down", seconds=0.2),
    "dripping": Fault("drip", times=2, bytes=7, seconds=0.001),
}


@pytest.mark.parametrize("dialect", [1, 2, 3])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_survived_and_blames_no_line(dialect: int, fault: Fault) -> None:
    with SimServer(dialect, database="plant") as server:
        refusals = delivered(server, [batch(0), batch(1)], fault)
        stored = values(server.points("plant"))

    assert refusals == [(), ()]
    assert stored == of([*batch(0), *batch(1)])


@pytest.mark.parametrize("dialect", [1, 2, 3])
def test_a_line_that_kills_the_server_is_quarantined_alone(dialect: int) -> None:
    lines = batch(0)
    lines[77] = f'm,t=a0 f="kill me" {START}'
    with SimServer(dialect, database="plant") as server:
        (refusals,) = delivered(server, [lines], Fault("killer", times=None, text="kill me"))
        stored = values(server.points("plant"))

    assert [(refusal.line, refusal.code) for refusal in refusals] == [(77, "IFX603")]
    assert stored == of([*lines[:77], *lines[78:]])


def test_more_requests_are_under_way_where_a_server_takes_its_time() -> None:
    """As with 3.x: the number begins at that of the flavor and grows, since more in flight raise the throughput."""

    first, most = FLAVORS["v3"].in_flight.first, FLAVORS["v3"].in_flight.most
    stop = Stop()

    class Counted(InfluxLineSink):
        under_way = most = 0

        async def write(self, lines: Sequence[str]) -> Verdict:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            if self.most > first and not stop.requested.is_set():
                stop.request()
            try:
                return await super().write(lines)
            finally:
                self.under_way -= 1

    class Line(WriterPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            return Rendered([f"m f=1 {message.offset}" for message in messages], range(len(messages)))

    messages = [batch_of([b""] * 2, offset=2 * number) for number in range(20_000)]  # more than a slow machine needs
    with SimServer(3, database="plant") as server:
        sink = Counted(settings(server, max_in_flight=None))
        source = ScriptedSource(messages)
        server.inject(Fault("latency", times=None, seconds=0.1))
        route = Route(
            name="r", source=source, plan=Line(), sink=sink, dead_letters=CollectingDeadLetters(), batch_size=2
        )
        summary = drive(run_routes([route], stop=stop))
        stored = server.points("plant")

    assert summary.routes[0].acknowledged == len(stored)
    assert first < sink.most <= most


@pytest.mark.parametrize(("dialect", "flavor"), [(1, "v1"), (2, "v2"), (3, "v3")])
def test_check_finds_the_simulator_in_order(dialect: int, flavor: str) -> None:
    with SimServer(dialect, database="plant") as server:
        delivered(server, [["m f=1 1"]])

        async def main() -> CheckReport:
            sink = InfluxLineSink(settings(server))
            try:
                return await sink.check()
            finally:
                await sink.close()

        report = drive(main())

    assert report.flavor == flavor
    assert [(finding.topic, finding.ok) for finding in report.findings] == [
        ("server", True),
        ("database", True),
        ("write", True),
    ]
