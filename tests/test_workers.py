"""`run --workers`: the shares of partitions, one status of many, workers that crash, stop, hang and are orphaned."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from shell import iggyflux

from iggyflux.delivery.settled import Interval, SettledOffsets
from iggyflux.errors import EndOfInput, Stopped
from iggyflux.pipeline import load_pipeline
from iggyflux.records import JSON, Message, Partition, Position
from iggyflux.runner import RouteStatus, Status, Stop, Summary, merging, supervisor
from iggyflux.runner.clock import Clock
from iggyflux.runner.merging import Part, merged_route, past_of
from iggyflux.runner.service_manager import ServiceManager
from iggyflux.runner.settled_ledger import ledger_state, read_ledgers
from iggyflux.runner.status import State
from iggyflux.runner.supervisor import Supervisor, WorkerProcess
from iggyflux.runner.workers import run_workers, usable_cpus
from iggyflux.sim import SimServer
from iggyflux.transports.base import GroupState
from iggyflux.transports.local.deadletters import read_dead_letters
from iggyflux.transports.local.log import Consumption, Log, LogSource
from iggyflux.transports.share import Share
from tests.metrics_watch import Watch

SECONDS = 90.0
"""The time after which something that must happen has not happened."""

# --- who reads what ---


@given(
    places=st.lists(st.tuples(st.sampled_from(["gärten", "hall", "x"]), st.integers(0, 40)), unique=True),
    workers=st.integers(1, 9),
    listed=st.none() | st.sets(st.integers(0, 40)),
)
def test_each_partition_is_read_by_one_worker_and_those_of_a_topic_evenly(
    places: list[tuple[str, int]], workers: int, listed: set[int] | None
) -> None:
    found = [Partition("s", topic, number) for topic, number in places]
    shares = [[place for place in found if Share(at, workers).has(place, listed)] for at in range(workers)]

    assert Counter(place for share in shares for place in share) == Counter(
        place for place in found if listed is None or place.partition in listed
    )
    numbers = range(40) if listed is None else sorted(listed)
    sizes = [sum(Share(at, workers).has(Partition("s", "hall", n), listed) for n in numbers) for at in range(workers)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(1, 5), st.lists(st.integers(1, 30), min_size=1, max_size=4)), max_size=5))
def test_another_number_of_workers_goes_on_where_the_ones_before_have_stopped(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[int, list[int]]]
) -> None:
    """Each round is a run with so many workers, which settle the next messages of some partitions."""
    folder = tmp_path_factory.mktemp("log")
    places = [Partition("s", "t", number) for number in range(4)]
    ends = dict.fromkeys(places, -1)
    for workers, steps in rounds:
        for worker in range(workers):
            consumption = Consumption(folder, "größe/1+2", worker)
            consumption.acquire()
            known = consumption.load()
            mine = [place for place in places if Share(worker, workers).has(place)]
            assert {place: known.get(place, -1) for place in mine} == {place: ends[place] for place in mine}
            for place, step in zip(mine, steps, strict=False):
                ends[place] += step
                consumption.store([Position(place, ends[place])])
            consumption.release()

    settled = {place: end for place, end in ends.items() if end >= 0}
    assert Consumption(folder, "größe/1+2").load() == settled
    assert Log(folder).consumers() == ({"größe/1+2": settled} if settled else {})


def test_a_worker_without_partitions_has_read_everything(tmp_path: Path) -> None:
    log = Log.open(tmp_path, create=True)
    log.append("s", "t", [Message(b"1")])
    log.close()

    async def read(worker: int) -> int:
        source = LogSource(tmp_path, "s", ["t"], consumer="c", until_end=True, share=Share(worker, 2))
        await source.connect()
        try:
            found = await source.read()
            return 0 if found is None else len(found.messages)
        except EndOfInput:
            return 0
        finally:
            await source.close()

    assert sorted(asyncio.run(read(worker)) for worker in range(2)) == [0, 1]


# --- the ledger of each worker ---


@st.composite
def ledgers(draw: st.DrawFn) -> list[SettledOffsets]:
    made = []
    for _ in range(draw(st.integers(1, 3))):
        one = SettledOffsets()
        for plan, first, size in draw(
            st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 9)), max_size=6)
        ):
            one.add(
                Partition("s", "t", 0), plan, Interval(first, first + size - 1, points=3 * size, last_us=first + size)
            )
        made.append(one)
    return made


@given(ledgers())
def test_ledgers_of_several_workers_claim_together_what_one_of_them_claims_and_nothing_twice(
    found: list[SettledOffsets],
) -> None:
    whole = found[0]
    for other in found[1:]:
        whole = whole.joined(other)

    def offsets(settled: SettledOffsets, plan: str) -> list[int]:
        intervals = settled.intervals().get((Partition("s", "t", 0), plan), ())
        return [offset for each in intervals for offset in range(each.first, each.last + 1)]

    for plan in "ab":
        assert offsets(whole, plan) == sorted({offset for each in found for offset in offsets(each, plan)})
        intervals = whole.intervals().get((Partition("s", "t", 0), plan), ())
        assert all(each.points == 3 * each.messages and each.last_us == each.last + 1 for each in intervals)
        assert all(a.last + 1 < b.first for a, b in itertools.pairwise(intervals))
    assert SettledOffsets.of(whole.record()).record() == whole.record()


# --- one status of many ---

PLACES = [Partition("s", "t", number) for number in range(3)]
STATES: tuple[State, ...] = ("starting", "connecting", "running", "idle", "finishing", "done", "interrupted", "stopped")


def test_every_state_has_its_rank() -> None:
    assert set(merging._STATES) == set(STATES)


class Life:
    """A process of a worker: what it counts, and the same counted by hand."""

    def __init__(self) -> None:
        self.status = RouteStatus("r", state="running")

    def work(self, number: int, place: Partition, offset: int) -> None:
        status = self.status
        status.read += number
        status.count("failed", f"IFX3{number % 3}0", number)
        status.request_seconds.observe(number / 10)
        status.lag = {place: number}
        status.acknowledge([Position(place, offset)], number, [1.0], 2.0)
        failure = "http_404" if number > 5 else None
        bucket: dict[str, JSON] = {"delivered": status.read, "refused": 1, "waiting": 2, "is_away": number > 5}
        status.buckets = {"größe": {**bucket, "failure": failure, "retention_seconds": None}}


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 9)), max_size=25))
def test_counters_are_the_sums_of_all_processes_and_never_fall(steps: list[tuple[int, bool, int]]) -> None:
    """Each step is a worker that counts something, or that crashes and is started again."""
    now = [Life() for _ in range(3)]
    past: list[RouteStatus | None] = [None] * 3
    all_lives, watch, ends = [*now], Watch(), Counter[Partition]()
    for worker, crashes, number in steps:
        if crashes:
            past[worker] = past_of(now[worker].status, past[worker])
            now[worker] = Life()
            all_lives.append(now[worker])
        else:
            ends[PLACES[worker]] += number
            now[worker].work(number, PLACES[worker], ends[PLACES[worker]])
        whole = merged_route([Part(at, now[at].status, past[at]) for at in range(3)])
        watch.look(Status([whole]))

        assert whole.read == whole.acknowledged == sum(life.status.read for life in all_lives)
        assert sum(whole.reasons["failed"].values()) == whole.failed == whole.read
        assert sum(whole.request_seconds.counts) == sum(sum(life.status.request_seconds.counts) for life in all_lives)
        assert whole.request_seconds.sum == pytest.approx(whole.read / 10)
        assert whole.offsets == dict(ends)
    assert watch.wrong == []


@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=4))
def test_a_route_is_in_the_state_that_needs_to_be_seen_most(states: list[State]) -> None:
    whole = merged_route([Part(at, RouteStatus("r", state=state)) for at, state in enumerate(states)])

    assert whole.state in states
    assert ("stopped" in states) == (whole.state == "stopped")
    assert (set(states) == {"done"}) == (whole.state == "done")


def test_what_is_known_by_partition_is_that_of_the_worker_that_has_it_and_words_name_the_worker() -> None:
    group = GroupState("g", "s", "t", 1, (0, 1))
    first = RouteStatus("r", lag={PLACES[0]: 1, PLACES[1]: 2, PLACES[2]: 99}, groups=[group], is_away=True)
    first.offsets = {PLACES[0]: 1, PLACES[2]: 5_000}  # of a topic that was made again while the other one had it
    second = RouteStatus("r", lag={PLACES[0]: 98, PLACES[1]: 97, PLACES[2]: 3}, offsets={PLACES[2]: 3})
    second.groups = [GroupState("g", "s", "t", 2, (2,))]
    second.wait_for("the words of a server", briefly="an answer")
    second.error = Stopped("no", "do this", "IFX644")
    for parts in ([Part(0, first), Part(1, second)], [Part(1, second), Part(0, first)]):
        whole = merged_route(parts)

        assert whole.lag == {PLACES[0]: 1, PLACES[1]: 2, PLACES[2]: 3}
        assert whole.offsets == {PLACES[0]: 1, PLACES[2]: 3}
        assert [each.partitions for each in whole.groups] == [(0, 1, 2)]
        assert whole.is_away
        assert whole.waiting_for == "worker 1: the words of a server"
        assert whole.as_public()["waiting_for"] == "worker 1: an answer"
        assert whole.error is not None
        assert (whole.error.reason, whole.error.hint, whole.error.code) == ("worker 1: no", "do this", "IFX644")


# --- the supervisor, with workers of a few lines ---

WORKER = """\
import os, signal, struct, sys, time
pipe = int(os.environ["IGGYFLUX_REPORTS"])
def report(number):
    os.write(pipe, struct.pack("!I", 1) + bytes([number]))
"""


def supervise(
    *scripts: str,
    has_end: bool = True,
    during: Callable[[Supervisor, Stop, list[int]], Any] | None = None,
    clock: Clock | None = None,
) -> tuple[list[WorkerProcess], list[int]]:
    """Run workers until they have ended; return them, and their reports.  `during` is awaited meanwhile."""
    found: list[int] = []

    def reported(_worker: WorkerProcess, report: bytes) -> int:
        found.append(report[0])
        return report[0]

    async def run() -> list[WorkerProcess]:
        stop = Stop()
        commands = [[sys.executable, "-S", "-c", WORKER + script] for script in scripts]
        running = Supervisor(
            commands,
            reported=reported,
            stop=stop,
            has_end=has_end,
            shutdown_seconds=1.0,
            clock=clock,
            random=lambda: 0.01,
        )
        other = asyncio.create_task(during(running, stop, found)) if during else None
        await asyncio.wait_for(running.run(), SECONDS)
        if other:
            await other
        return running.workers

    return asyncio.run(run()), found


async def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


class TestClock:
    """A time that passes only where a test says so: how long a process takes to start, and to run, changes nothing."""

    __test__ = False

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            await asyncio.sleep(0.01)


def test_a_worker_that_is_killed_is_started_again_and_one_that_stopped_is_not(tmp_path: Path) -> None:
    again = f"""
try:
    open({str(tmp_path / "first")!r}, "x")
except FileExistsError:
    report(7)
    sys.exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    workers, reports = supervise(again, "sys.exit(3)", "report(1)")

    assert [(each.state, each.starts, each.code, each.failed) for each in workers] == [
        ("ended", 2, 0, False),
        ("ended", 1, 3, False),
        ("ended", 1, 0, False),
    ]
    assert sorted(reports) == [1, 7]


def test_work_with_an_end_is_given_up_after_crashes_in_a_row_without_progress(tmp_path: Path) -> None:
    """Progress between two crashes counts anew."""
    counting = f"""
n = len(os.listdir({str(tmp_path)!r}))
open({str(tmp_path)!r} + "/" + str(n), "x")
report(1)
if n == 3: report(2)
sys.exit(77)
"""
    workers, _ = supervise(counting)

    assert [(each.state, each.starts, each.code, each.failed) for each in workers] == [("ended", 8, 77, True)]


def test_work_without_an_end_is_tried_until_it_is_stopped() -> None:
    async def stop_later(running: Supervisor, stop: Stop, _: list[int]) -> None:
        await until(
            lambda: (
                running.workers[0].starts > supervisor._MOST_CRASHES + 1
                and running.workers[0].state == "waiting"  # a crash during a stop is a failure
            )
        )
        stop.request()

    (worker,), _ = supervise("sys.exit(1)", has_end=False, during=stop_later)

    assert worker.state == "ended"
    assert not worker.failed


def test_a_worker_that_says_nothing_is_killed_and_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A second passes with each report of another worker, until the silent one is started again."""
    clock, first, second = TestClock(), str(tmp_path / "first"), str(tmp_path / "second")
    hangs = f"""
try:
    open({first!r}, "x")
except FileExistsError:
    open({second!r}, "x")
    sys.exit(0)
report(1)
time.sleep(1000)
"""
    speaks = f"""
while not os.path.exists({second!r}):
    report(2)
    time.sleep(0.01)
"""

    async def pass_time(running: Supervisor, _: Stop, found: list[int]) -> None:
        await until(lambda: 1 in found)
        while running.workers[0].starts == 1:
            clock.now = float(found.count(2))
            await asyncio.sleep(0.01)

    with caplog.at_level("INFO", "iggyflux"):
        (worker, other), _ = supervise(hangs, speaks, during=pass_time, clock=clock)

    assert (worker.starts, worker.code) == (2, 0)
    assert (other.starts, other.code) == (1, 0)
    assert clock.now > supervisor._SILENT_SECONDS
    assert [each.getMessage().split()[:2] for each in caplog.records if "silent" in each.getMessage()] == [
        ["worker.silent", "worker=0"]
    ]
    assert any("signal=SIGKILL" in each.getMessage() for each in caplog.records)


def test_a_second_stop_ends_a_worker_that_takes_long_and_then_kills_it() -> None:
    clock = TestClock()
    deaf = """
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: report(number))
report(1)
while True: time.sleep(1)
"""

    async def stop_twice(running: Supervisor, stop: Stop, found: list[int]) -> None:
        await until(lambda: found == [1])
        stop.request()
        await until(lambda: found == [1, signal.SIGTERM])
        stop.request()
        await until(lambda: found == [1, signal.SIGTERM, signal.SIGINT])
        clock.now += supervisor._AT_ONCE_SECONDS - 1.0
        await asyncio.sleep(0.1)
        assert running.workers[0].state == "running"
        clock.now += 1.0

    (worker,), reports = supervise(deaf, has_end=False, during=stop_twice, clock=clock)

    assert (worker.code, worker.failed, worker.starts) == (-signal.SIGKILL, True, 1)
    assert reports == [1, signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_worker_that_ends_with_3_is_an_error_only_where_no_stop_was_requested(
    caplog: pytest.LogCaptureFixture, is_stopped: bool
) -> None:
    caplog.set_level(logging.INFO)

    async def stop_it(_: Supervisor, stop: Stop, found: list[int]) -> None:
        await until(lambda: found == [1])
        if is_stopped:
            stop.request()

    wait = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nreport(1)\n"
    supervise(wait + ("time.sleep(60)" if is_stopped else "sys.exit(3)"), has_end=True, during=stop_it)

    (level,) = [each.levelname for each in caplog.records if "worker.ended" in each.getMessage()]
    assert level == ("INFO" if is_stopped else "ERROR")


def test_what_workers_write_is_logged_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    event = json.dumps({"time": "t", "level": "warning", "logger": "iggyflux.x", "event": "a.b", "größe": 1, "n": None})
    text = json.dumps({"time": "t", "level": "info", "logger": "iggyflux.y", "event": "c.d", "message": "k=1 l=2"})
    said = "thread 'tokio' panicked at 'größe'"
    lines = [event, text, said, "[1]", "", '{"level": 3}', "x" * 3_000_000]
    with caplog.at_level("INFO", "iggyflux"):
        supervise(f"sys.stderr.write({chr(10).join(lines[:-1])!r} + '\\n' + 'x' * 3_000_000)\nsys.stderr.flush()")

    found = [(each.name, each.levelname, each.getMessage()) for each in caplog.records]
    assert ("iggyflux.x", "WARNING", "a.b größe=1 worker=0") in found
    assert ("iggyflux.y", "INFO", "c.d k=1 l=2 worker=0") in found
    others = [message for _, _, message in found if message.startswith("worker.said")]
    assert others[:3] == [
        f'worker.said worker=0 line="{said}"',
        "worker.said worker=0 line=[1]",
        'worker.said worker=0 line="{\\"level\\": 3}"',
    ]
    assert 3 < len(others) < 10
    assert all(len(each) < 1200 for each in others)


# --- real runs ---

PARTITIONS = 4
BAD_EVERY = 1_000
DOCUMENT = """\
iggyflux: 1
kind: writer
name: quay
from: {stream: port, topic: quays}
points:
  measurement: {const: berth}
  tags: {quay: "q"}
  fields: {n: {expr: n, type: integer}, draught: draught}
  timestamp: {expr: at, format: unix_ms}
examples:
  - {message: {q: north, n: 1, draught: 7.5, at: 1}, points: ['berth,quay=north draught=7.5,n=1i 1000000']}
"""
PIPELINE = """\
iggyflux: 1
from: log:data
influxdb: {{url: "{url}", flavor: v1, database: port, batch_size: 500, linger: 20ms}}
state: kept
dead_letters: {{path: dead, keep: 30d}}
run:
  - mapping: quay.yaml
"""


def payload(number: int) -> bytes:
    draught = b'"deep"' if number % BAD_EVERY == 7 else b"%d.25" % (number % 30)
    return b'{"q": "q%d", "n": %d, "draught": %b, "at": %d}' % (number % 9, number, draught, 1_700_000_000_000 + number)


def append(first: int, count: int) -> None:
    """Append messages to the partitions in turn, 500 at once."""
    log = Log.open(Path("data"), create=True)
    log.create_topic("port", "quays", PARTITIONS)
    for at in range(first, first + count, 500):
        messages = [Message(payload(number)) for number in range(at, min(at + 500, first + count))]
        log.append("port", "quays", messages, partition=at // 500 % PARTITIONS)
    log.close()


def last(count: int, partition: int) -> int:
    """Return the last offset of a partition after so many messages."""
    return sum(number // 500 % PARTITIONS == partition for number in range(count)) - 1


def expected(count: int) -> set[str]:
    good = (number for number in range(count) if number % BAD_EVERY != 7)
    return {f"berth,quay=q{n % 9} draught={n % 30}.25,n={n}i {(1_700_000_000_000 + n) * 1_000_000}" for n in good}


def letters() -> set[int]:
    """Return the messages with dead letters."""
    found = (json.loads(letter.message.payload) for letter in read_dead_letters(Path("dead")))
    return {each["n"] for each in found}


@pytest.fixture(name="sim")
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimServer]:
    """An InfluxDB, and a folder with a mapping and a pipeline that writes to it."""
    monkeypatch.chdir(tmp_path)
    with SimServer(1, database="port") as server:
        Path("quay.yaml").write_text(DOCUMENT, "utf-8")
        Path("p.yaml").write_text(PIPELINE.format(url=server.url), "utf-8")
        yield server


class Running:
    """A run with workers, as a process; `events` are what it has said so far."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "iggyflux", "run", "p.yaml", "--log-format", "json", "--workers", *options]
        self._out = Path("events.ndjson")
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(command, stderr=out)

    @property
    def said(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said.splitlines() if line.startswith("{") and line.endswith("}")]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    def wait_for(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not is_so():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def pids(self) -> dict[int, int]:
        """Return the process of each worker that was started last."""
        return {each["worker"]: each["pid"] for each in self.named("worker.started")}


@contextmanager
def running(*options: str) -> Iterator[Running]:
    run = Running(*options)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()
        for each in run.named("worker.started"):
            with suppress(ProcessLookupError):
                os.kill(each["pid"], signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_workers_write_what_one_run_would_and_show_one_status(sim: SimServer) -> None:
    """Then one process goes on where they stopped, and takes over what they knew."""
    append(0, 6_000)
    outcome = iggyflux(
        "run", "p.yaml", "--until-end", "--workers", "2", "--status-file", "s.json", "--fail-on", "failures"
    )

    assert outcome.code == 1, outcome.err
    assert "failed by --fail-on failures: 6 messages" in outcome.err
    assert set(sim.dump()) == expected(6_000)
    assert letters() == {number for number in range(6_000) if number % BAD_EVERY == 7}
    status = json.loads(Path("s.json").read_text("utf-8"))
    (route,) = status["routes"]
    assert (route["state"], route["acknowledged"], route["dead_letters"]) == ("done", 6_000, 6)
    assert sum(route["histograms"]["request_size"]["counts"]) == route["requests"]
    assert [(each["worker"], each["state"], each["restarts"]) for each in status["workers"]] == [
        (0, "ended", 0),
        (1, "ended", 0),
    ]
    assert "quay  done: 6,000 messages, 5,994 points written, 6,000 acknowledged" in outcome.err
    both = json.loads(iggyflux("status", "p.yaml", "--format", "json").out)[0]["ledger"]["intervals"]
    assert [(each["partition"], each["first"], each["last"]) for each in both] == [
        (number, 0, 1_499) for number in range(PARTITIONS)
    ]
    assert iggyflux("audit", "p.yaml", "--mapping", "quay").code == 0

    append(6_000, 1_000)
    alone = iggyflux("run", "p.yaml", "--until-end")

    assert "quay  done: 1,000 messages" in alone.err
    assert set(sim.dump()) == expected(7_000)
    assert not ledger_state(Path("kept"), "quay", 1).path.exists()
    ledger = read_ledgers(Path("kept"), "quay")
    assert ledger is not None
    assert sum(each.messages for found in ledger.intervals().values() for each in found) == 7_000


@pytest.mark.parametrize(("partitions", "workers"), [(1, 1), (3, min(usable_cpus(), 3))])
def test_no_more_workers_are_started_by_themselves_than_there_are_partitions(
    sim: SimServer, partitions: int, workers: int
) -> None:
    log = Log.open(Path("data"), create=True)
    log.create_topic("port", "quays", partitions)
    log.append("port", "quays", [Message(payload(1))], partition=0)
    log.close()
    outcome = iggyflux("run", "p.yaml", "--until-end", "--workers", "auto", "--status-file", "s.json")

    assert outcome.code == 0, outcome.err
    assert len(json.loads(Path("s.json").read_text("utf-8"))["workers"]) == workers
    assert len(sim.dump()) == 1


@pytest.mark.parametrize(("workers", "idle"), [(PARTITIONS + 2, 2), (PARTITIONS, 0)])
def test_workers_without_partitions_are_told(sim: SimServer, workers: int, idle: int) -> None:
    append(0, 40)
    outcome = iggyflux("run", "p.yaml", "--until-end", "--workers", str(workers))

    told = f"workers.idle workers={workers} partitions={PARTITIONS} idle={idle}"
    assert (told in outcome.err) == (idle > 0), outcome.err


def test_a_supervisor_keeps_the_sdk_on_one_thread_and_hides_no_bug(
    sim: SimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for partitions itself, beside its workers."""
    found = []

    async def count(_: object) -> int:
        found.append(os.environ.get("TOKIO_WORKER_THREADS"))
        raise ZeroDivisionError

    monkeypatch.setattr("iggyflux.runner.workers.count_partitions", count)
    monkeypatch.setenv("TOKIO_WORKER_THREADS", "")
    monkeypatch.delenv("TOKIO_WORKER_THREADS")

    append(0, 40)
    outcome = iggyflux("run", "p.yaml", "--until-end", "--workers", "2")

    assert found == ["1"]
    assert (outcome.code, "ZeroDivisionError" in outcome.err) == (3, True), outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_workers_that_are_killed_at_random_lose_nothing_and_no_counter_falls(sim: SimServer, seed: int) -> None:
    chance, written, kills, watch = random.Random(seed), 0, 0, []
    with running("3", "--listen", "127.0.0.1:0") as run:
        append(0, 500)
        written = 500
        run.wait_for(lambda: run.named("telemetry.listening"))
        url = run.named("telemetry.listening")[0]["url"]
        while kills < 6:
            append(written, 2_000)
            written += 2_000
            run.wait_for(lambda: len(run.named("worker.started")) == 3 + len(watch))
            time.sleep(chance.uniform(0.0, 3.0))
            os.kill(run.pids()[chance.randrange(3)], signal.SIGKILL)
            kills += 1
            watch.append(metrics_of(url))
            run.wait_for(lambda: len(run.named("worker.ended")) == len(watch))
        run.wait_for(lambda: set(sim.dump()) >= expected(written))
        ends = sorted(last(written, place) for place in range(PARTITIONS))
        run.wait_for(lambda: sorted(Consumption(Path("data"), "quay").load().values()) == ends)
        run.wait_for(lambda: sum(labelled(metrics_of(url), "iggyflux_worker_restarts_total").values()) == len(watch))
        watch.append(metrics_of(url))
        run.process.send_signal(signal.SIGTERM)
        code = run.process.wait(SECONDS)

    assert code == 0, run.said
    assert set(sim.dump()) == expected(written)
    assert letters() == {number for number in range(written) if number % BAD_EVERY == 7}
    assert [each["signal"] for each in run.named("worker.ended")[:kills]] == ["SIGKILL"] * kills
    for before, after in itertools.pairwise(watch):
        assert all(
            after[key] >= value for key, value in before.items() if key[0].endswith(("_total", "_bucket", "_sum"))
        )


@contextmanager
def listening_at(path: str) -> Iterator[Callable[[], list[bytes]]]:
    """Yield a function for the states that a service manager has heard up to now."""
    told: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(path)
        notified.setblocking(False)

        def said() -> list[bytes]:
            with suppress(BlockingIOError):
                while True:
                    told.append(notified.recv(4096).split(b"\n")[0])
            return [each for each in told if not each.startswith((b"STATUS", b"WATCHDOG"))]

        yield said


def labelled(metrics: dict[tuple[str, ...], float], name: str) -> dict[str, float]:
    """Return the samples of a metric by the first of its labels, in the order of their names."""
    return {key[1]: value for key, value in metrics.items() if key[0] == name}


def metrics_of(url: str) -> dict[tuple[str, ...], float]:
    """Return the metrics of a run by name and labels, without those of the supervisor's own process."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text = opener.open(f"{url}metrics", timeout=SECONDS).read().decode()
    found = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return {key: value for key, value in found.items() if key[0].startswith("iggyflux_")}


@pytest.mark.slow
def test_signals_reach_the_workers_and_one_telemetry_answers_for_all(
    sim: SimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP changes the mapping in each worker; SIGTERM ends all of them, with 0.  The service manager learns it."""
    append(0, 1_000)
    monkeypatch.setenv("NOTIFY_SOCKET", str(Path("notify").absolute()))
    with listening_at("notify") as said, running("2", "--listen", "127.0.0.1:0") as run:
        run.wait_for(lambda: len(run.named("worker.started")) == 2)
        run.process.send_signal(signal.SIGHUP)  # before they can handle it
        run.wait_for(lambda: said() == [b"READY=1", b"RELOADING=1", b"READY=1"])
        run.wait_for(lambda: set(sim.dump()) == expected(1_000))
        url = run.named("telemetry.listening")[0]["url"]
        run.wait_for(lambda: metrics_of(url).get(("iggyflux_messages_acknowledged_total", "quay")) == 1_000)
        found = metrics_of(url)
        assert len(run.named("telemetry.listening")) == 1
        lags = {str(number): 0 for number in range(PARTITIONS)}
        run.wait_for(lambda: labelled(metrics_of(url), "iggyflux_lag_messages") == lags)
        assert [found["iggyflux_worker_up", str(worker)] for worker in range(2)] == [1, 1]
        assert all(found["iggyflux_worker_resident_memory_bytes", str(worker)] > 2**20 for worker in range(2))

        Path("quay.yaml").write_text(DOCUMENT.replace("berth", "pier"), "utf-8")
        run.process.send_signal(signal.SIGHUP)
        run.wait_for(lambda: len(run.named("plan.changed")) == 2)
        append(1_000, 1_000)
        run.wait_for(lambda: sum(line.startswith("pier,") for line in sim.dump()) == 999)
        run.wait_for(lambda: metrics_of(url)["iggyflux_configuration_changes_total", "accepted"] == 1)
        os.kill(run.pids()[0], signal.SIGKILL)
        os.kill(run.pids()[1], signal.SIGKILL)
        run.wait_for(lambda: len(run.named("route.connected")) == 4)
        run.wait_for(lambda: labelled(metrics_of(url), "iggyflux_worker_restarts_total") == {"0": 1, "1": 1})
        assert metrics_of(url)["iggyflux_configuration_changes_total", "accepted"] == 1
        pids = run.pids()
        for pid in (*pids.values(), run.process.pid):  # as a service manager does: a worker counts them as one
            os.kill(pid, signal.SIGTERM)
        code = run.process.wait(SECONDS)
        told = said()

    assert code == 0, run.said
    assert told == [b"READY=1", *(2 * [b"RELOADING=1", b"READY=1"]), b"STOPPING=1"]
    assert sorted((each["worker"], each["code"]) for each in run.named("worker.ended")[2:]) == [(0, 0), (1, 0)]
    assert not any(map(is_alive, pids.values()))
    assert set(sim.dump()) >= expected(1_000)


@pytest.mark.slow
def test_workers_whose_supervisor_is_killed_end_by_themselves_in_order(sim: SimServer) -> None:
    append(0, 1_000)
    with running("2") as run:
        run.wait_for(lambda: set(sim.dump()) == expected(1_000))
        run.wait_for(lambda: len(run.named("route.connected")) == 2)
        pids = run.pids()
        run.process.kill()
        run.process.wait()
        deadline = time.monotonic() + SECONDS
        while any(map(is_alive, pids.values())) and time.monotonic() < deadline:
            time.sleep(0.05)

        assert not any(map(is_alive, pids.values()))
    assert list(Consumption(Path("data"), "quay").load().values()) == [499, 499]


@pytest.mark.slow
def test_a_route_that_must_stop_in_one_worker_leaves_the_other_running_and_exits_3(sim: SimServer) -> None:
    append(0, 1_500)  # of messages 7 and 1007 each is bad: partitions 0 and 2, of one worker
    Path("quay.yaml").write_text(DOCUMENT + "on_error: fail\n", "utf-8")
    outcome = iggyflux("run", "p.yaml", "--until-end", "--workers", "2")

    assert outcome.code == 3
    assert re.search(r"quay  stopped: 1,\d00 messages", outcome.err)
    assert re.search(r"error\[IFX\d+\]: worker \d: ", outcome.err)
    assert "interrupted" not in outcome.err
    assert set(range(500, 1_000)) == {
        int(match[1])
        for line in sim.dump()
        if (match := re.search(r"[ ,]n=(\d+)i", line)) and 500 <= int(match[1]) < 1000
    }


@pytest.mark.usefixtures("sim")
@pytest.mark.parametrize(("script", "code"), [("sys.exit(9)", 3), ("sys.exit(3)", 3), ("sys.exit(0)", 0)])
def test_a_run_is_interrupted_where_a_worker_is_given_up_or_stops_without_a_reason(
    script: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_BACKOFF_SECONDS", (0.001, 0.001))
    append(0, 500)

    async def run() -> Summary:
        def command(share: Share, _: str) -> list[str]:
            return [sys.executable, "-S", "-c", WORKER + (script if share.worker else "sys.exit(0)")]

        pipeline, manager = load_pipeline("p.yaml"), ServiceManager({})
        return await run_workers(pipeline, command, 2, until_end=True, stop=Stop(), status=Status(), manager=manager)

    summary = asyncio.run(run())

    assert (summary.exit_code, summary.interrupted) == (code, code != 0)
    assert summary.routes[0].state == ("interrupted" if script == "sys.exit(9)" else "done")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("{mapping: quay.yaml, from: 'file:in.ndjson'}", "its source has no partitions"),
        ("{mapping: quay.yaml, to: 'file:out.lp'}", "one process writes to its sink"),
        ("{mapping: limited.yaml}", "`limits` counts the series of all messages"),
        ("{mapping: quay.yaml, consumer: {group: g, exclusive: true}}", "`exclusive` says"),
        ("{mapping: quay.yaml, from: stdin}", "reads standard input"),
    ],
)
def test_what_workers_cannot_share_is_refused_alone_and_run_by_the_first_one_beside_others(
    sim: SimServer, item: str, reason: str
) -> None:
    append(0, 1_000)
    Path("in.ndjson").write_bytes(payload(1) + b"\n")
    Path("limited.yaml").write_text(DOCUMENT + "limits: {series: 100}\n", "utf-8")
    head = PIPELINE.format(url=sim.url).partition("run:")[0]
    Path("p.yaml").write_text(f"{head}run:\n  - {item}\n", "utf-8")
    alone = iggyflux("run", "p.yaml", "--until-end", "--workers", "2")

    assert alone.code == 1
    assert "error[IFX831]" in alone.err
    assert reason in alone.err
    assert sim.dump() == []
    if "stdin" in item:
        return

    named = item.replace("{mapping", "{name: other, mapping", 1)
    Path("p.yaml").write_text(f"{head}run:\n  - {named}\n  - mapping: quay.yaml\n", "utf-8")
    both = iggyflux("run", "p.yaml", "--until-end", "--workers", "2", "--status-file", "s.json")

    status = json.loads(Path("s.json").read_text("utf-8"))
    assert [[*each["routes"]] for each in status["workers"]] == [["other", "quay"], ["quay"]]
    assert "route.not_shared route=other worker=0 reason=" in both.err
    assert status["routes"][1]["acknowledged"] == 1_000
    assert status["routes"][0]["acknowledged"] == (1 if "file:in" in item else 1_000)


@pytest.mark.parametrize("given", ["0", "-1", "257", "many", "1.5", ""])
def test_a_number_of_workers_is_checked(sim: SimServer, given: str) -> None:
    outcome = iggyflux("run", "p.yaml", "--workers", given)

    assert outcome.code == 2
    assert "expected auto, or a number from 1 to 256" in outcome.err


def test_a_worker_of_another_version_does_not_start(sim: SimServer) -> None:
    outcome = iggyflux("run", "p.yaml", "--worker", "0/2@0.0.1")

    assert outcome.code == 2
    assert "restart the run" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("change", ["limits", "tags"])
def test_a_worker_that_begins_again_does_not_run_other_files_than_the_run(sim: SimServer, change: str) -> None:
    """It would have other routes or connections than those beside it; when the files are as before, it goes on."""
    append(0, 2_000)
    file = Path("quay.yaml" if change == "limits" else "p.yaml")
    before = file.read_text("utf-8")
    with running("2") as run:
        run.wait_for(lambda: set(sim.dump()) == expected(2_000))
        added = "limits: {series: 100000}\n" if change == "limits" else "tags: {site: x}\n"
        file.write_text(before + added, "utf-8")
        os.kill(run.pids()[1], signal.SIGKILL)
        run.wait_for(lambda: any("IFX830" in each["line"] for each in run.named("worker.said")))
        assert all("internal error" not in each["line"] for each in run.named("worker.said"))
        append(2_000, 2_000)
        file.write_text(before, "utf-8")
        run.wait_for(lambda: set(sim.dump()) == expected(4_000))


def test_only_a_supervisor_starts_workers(sim: SimServer) -> None:
    for words in ("5/2@0", "a/b@0", "1/2"):
        refused = iggyflux("run", "p.yaml", "--worker", words)
        assert refused.code == 2, refused.err
