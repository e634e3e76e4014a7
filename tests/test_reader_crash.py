"""kill -9 at random moments of a real reader, while points arrive late, are overwritten and share their times.

Every final value is published, nothing that never existed is, and duplicates have the same id.  A simulator replaces
InfluxDB, a process reads it into a log.  A few kills by default, over a hundred with `--long`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from iggyflux.lineprotocol import Point
from iggyflux.records import Message
from iggyflux.sim import SimServer
from iggyflux.sim.faults import Fault
from iggyflux.transports.local.log import Log

pytestmark = pytest.mark.slow

NS = 1_000_000_000
OVERLAP_SECONDS = 4
LIVE_SECONDS = 5
TIES = 1_500
SEEDS = range(1)
LONG_SEEDS = range(100, 130)

MAPPING = """\
iggyflux: 1
kind: reader
name: back
from: {{measurement: env, language: {language}}}
cursor: {{start: {start}, end: {end}, settle: 200ms, overlap: {overlap}s, window: {window}, mark: why}}
messages:
  payload: "{{t: time, d: device, v: value}}"
  key: device
to: {{stream: s, topic: back}}
"""

PIPELINE = """\
iggyflux: 1
influxdb: {{url: "{url}", {place}, poll_interval: 100ms}}
to: log:data
run: [{{mapping: back.yaml}}]
"""

RUN = """\
import asyncio, dataclasses, random, sys
from iggyflux.pipeline import load_pipeline
from iggyflux.runner import run_routes
from iggyflux.runner.open import open_routes

class Slow:
    "A sink that takes its time before and after, so that the process often dies between sending and storing."
    def __init__(self, sink, seed):
        self.sink, self.chance = sink, random.Random(seed)
        self.connect, self.close = sink.connect, sink.close
    async def send(self, messages):
        await asyncio.sleep(self.chance.uniform(0, 0.05))
        await self.sink.send(messages)
        await asyncio.sleep(self.chance.uniform(0, 0.15))

routes = [dataclasses.replace(r, sink=Slow(r.sink, sys.argv[1])) for r in open_routes(load_pipeline("p.yaml"))]
print("started", flush=True)
summary = asyncio.run(run_routes(routes))
print(summary)
sys.exit(summary.exit_code)
"""
ROUGH = (
    Fault("status", on="query", status=503, retry_after=0.1),
    Fault("status", on="query", status=429),
    Fault("reset", on="query", when="before"),
    Fault("truncate", on="query", bytes=300),
    Fault("truncate", on="query", bytes=5_000),
    Fault("down", on="query", seconds=0.2),
)
PLACES = {1: "database: test", 2: "org: org, bucket: test", 3: "database: test"}
LANGUAGES = {1: ["influxql"], 2: ["influxql", "flux"], 3: ["sql", "influxql"]}


@dataclass
class World:
    """What is written while the reader is killed: every value of every point, in order; values are never repeated."""

    server: SimServer
    chance: random.Random
    start: int
    end: int
    history: dict[tuple[int, str], list[float]] = field(default_factory=dict)
    begun: int = field(default_factory=time.time_ns)
    too_late: set[tuple[int, str]] = field(default_factory=set)
    """Points that a busy machine brought later than the reader looks back."""
    number: int = 0
    is_rough: bool = False

    def put(self, *points: tuple[int, str]) -> None:
        lines = []
        for when, device in points:
            self.number += 1
            self.history.setdefault((when, device), []).append(float(self.number))
            lines.append(Point("env", {"device": device}, {"value": float(self.number)}, when))
        body = "\n".join(line.encode(dialect="v2", precision="ns") for line in lines).encode()
        path = {1: "/write?db=test", 2: "/api/v2/write?org=org&bucket=test", 3: "/api/v3/write_lp?db=test"}
        while True:
            try:
                with urllib.request.urlopen(f"{self.server.url}{path[self.server.dialect]}", data=body) as answer:
                    assert answer.status == 204
                    break
            except OSError:  # it is down
                time.sleep(0.05)
        oldest = time.time_ns() - OVERLAP_SECONDS * NS
        self.too_late |= {key for key in points if self.begun - OVERLAP_SECONDS * NS < key[0] < oldest}

    def live(self) -> None:
        """Write for some seconds: points on time, late ones, new values of old points, many of one time."""
        while (now := time.time()) < self.end / NS + 0.2:
            moment = int(now * NS)
            late = moment - int(self.chance.uniform(0, OVERLAP_SECONDS * 0.85) * NS)
            self.put((moment, f"d{self.chance.randrange(5)}"), (late, "late"))
            if self.chance.random() < 0.3:
                recent = [key for key in self.history if key[0] > moment - OVERLAP_SECONDS * NS * 85 // 100]
                self.put(self.chance.choice(recent))
            if self.is_rough and self.chance.random() < 0.05:
                self.server.faults.add(self.chance.choice(ROUGH))
            if self.chance.random() < 0.02:
                self.put(*[(moment, f"tie{number}") for number in range(TIES)])
            time.sleep(0.02)


def iso(when: int) -> str:
    seconds, rest = divmod(when, NS)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def run_for(folder: Path, seconds: float | None, seed: int = 0) -> int | None:
    """Run the reader; kill -9 it `seconds` after it has begun.  Return its exit code, or None if it was killed."""
    command = [sys.executable, "-c", RUN, str(seed)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        assert process.stdout.readline() == b"started\n"
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return None
    assert process.returncode == 0, out.decode()
    return process.returncode


def crash_and_resume(
    folder: Path, seed: int, *, least_kills: int = 2, most_kills: int = 50, is_rough: bool = False
) -> int:
    """Kill and restart as long as points arrive, then let it end.  Return the number of kills."""
    chance = random.Random(seed)
    dialect = chance.choice([1, 2, 3])
    kills = 0
    with SimServer(dialect, wal_flush_seconds=0) as server:
        start = time.time_ns() - 30 * NS
        world = World(server, chance, start, time.time_ns() + LIVE_SECONDS * NS, is_rough=is_rough)
        world.put(*[(start + number * NS // 10, f"d{number % 5}") for number in range(250)])
        mapping = MAPPING.format(
            language=chance.choice(LANGUAGES[dialect]),
            start=iso(start),
            end=iso(world.end),
            overlap=OVERLAP_SECONDS,
            window=chance.choice(["300ms", "7s", "5m"]),
        )
        (folder / "back.yaml").write_text(mapping)
        (folder / "p.yaml").write_text(PIPELINE.format(url=server.url, place=PLACES[dialect]))
        living = threading.Thread(target=world.live)
        living.start()
        try:
            while kills < most_kills and (living.is_alive() or kills < least_kills):
                longest = 0.2 if kills < least_kills else 1.2  # soon at first: a busy machine has time for few
                outcome = run_for(folder, chance.uniform(0.02, longest), chance.randrange(1000))
                kills += outcome is None
                if outcome is not None and not living.is_alive():
                    break
            assert run_for(folder, 240) == 0
        finally:
            living.join()
        messages = sent(folder)
        marks = check(messages, world, kills)
    # On a busy machine the reader may start after all writes; then nothing is late and nothing changed.
    half = world.end - LIVE_SECONDS * NS // 2
    saw_life = sum(
        half - 2 * NS < json.loads(each.payload)["t"] and each.timestamp_us * 1000 < half for each in messages
    )
    assert kills or not saw_life or (marks["late"] and marks["changed"])
    return kills


def sent(folder: Path) -> list[Message]:
    """Return everything in the log, in order."""
    log = Log.open(folder / "data")
    return [
        message
        for place in log.partitions("s", ["back"])
        for message in log.tail("s", "back", log.end(place), place.partition)
    ]


def check(messages: Sequence[Message], world: World, kills: int) -> Counter[str]:
    """Compare what was sent with what was written; return the marks."""
    found = [(json.loads(message.payload), message) for message in messages]
    last = {(each["t"], each["d"]): float(each["v"]) for each, _ in found}
    final = {key: values[-1] for key, values in world.history.items() if key[0] < world.end}
    missing = {key: value for key, value in final.items() if last.get(key) != value and key not in world.too_late}
    assert not missing, f"{len(missing)} of {len(final)} final values are missing, such as {next(iter(missing))}"
    for each, _ in found:
        assert float(each["v"]) in world.history.get((each["t"], each["d"]), []), f"never there: {each}"
    ids: dict[float, int] = {}
    for each, message in found:
        assert ids.setdefault(float(each["v"]), message.id) == message.id
    assert len(set(ids.values())) == len(ids)
    repeats = sum(Counter(float(each["v"]) for each, _ in found).values()) - len(ids)
    marks = Counter(str(message.headers.get("why")) for _, message in found)
    print(f"{kills} kills, {len(found)} messages, {repeats} twice, marks {dict(marks)}")
    assert kills or not repeats, "repeats without a crash"
    return marks


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reader_that_is_killed_at_random_moments_loses_nothing(tmp_path: Path, seed: int) -> None:
    assert crash_and_resume(tmp_path, seed) >= 2


def test_a_reader_that_is_not_killed_repeats_nothing(tmp_path: Path) -> None:
    assert crash_and_resume(tmp_path, 7, most_kills=0) == 0


def test_a_server_that_refuses_breaks_off_and_goes_down_costs_nothing(tmp_path: Path) -> None:
    """Faults in the middle of answers: only a complete answer counts."""
    assert crash_and_resume(tmp_path, 11, most_kills=0, is_rough=True) == 0


@pytest.mark.long
def test_a_reader_that_is_killed_at_a_hundred_random_moments_loses_nothing(tmp_path: Path) -> None:
    kills = 0
    for seed in LONG_SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        kills += crash_and_resume(folder, seed, is_rough=seed % 2 == 0)

    assert kills >= 100
