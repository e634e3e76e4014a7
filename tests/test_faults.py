"""Random faults in a whole run, over real HTTP: everything is stored or dead-lettered, once as data.

Two processes, `iggyflux run` from a log and a simulated InfluxDB on disk, meet what a seed draws: every row of the
answer table, resets, waits, servers that are down, a line that kills the server, a type conflict, and kill -9 of either
side.  A few seeds with few messages by default; with `--long` a hundred, with 300,000 messages each.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from iggy_server import free_ports

from iggyflux.records import Message, Partition
from iggyflux.transports.local.deadletters import read_dead_letters
from iggyflux.transports.local.log import Consumption, Log
from tests.fault_rows import PASSING

pytestmark = pytest.mark.slow

FEW, MANY = 20_000, 300_000
SEEDS = range(2)
LONG_SEEDS = range(int(os.environ.get("IGGYFLUX_TEST_FIRST_SEED", "100")), 200)
AWAY_SECONDS, LONG_AWAY_SECONDS = 3.0, 60.0
PARTITIONS = 2
FIRST_MS = 1_700_000_000_000
DATABASE = "plant"

MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {stream: factory, topic: readings, payload: json}
points:
  - measurement: kind
    tags: {device: device}
    fields: {n: {expr: n, type: integer}, celsius: celsius, note: {expr: note, type: string}}
    timestamp: {expr: ts, format: unix_ms}
"""
PIPELINE = """\
iggyflux: 1
from: log:data
influxdb:
  url: http://127.0.0.1:{port}
  bucket: plant
  {org}
  batch_size: 1000
  linger: 20ms
  timeout: 2s
  retry_backoff: 5ms
  max_retry_backoff: 100ms
run:
  - mapping: env.yaml
"""

# Rows after which the operator must act: exit code 3, and nothing that was in flight is acknowledged.
STOPPING: list[dict[str, Any]] = [
    *({"kind": "status", "status": status} for status in (401, 403, 404, 405, 407)),
    {"kind": "status", "status": 302, "headers": {"Location": "http://127.0.0.1:1/x"}},
    {"kind": "status", "status": 200, "body": "html"},
    {"kind": "status", "status": 404, "body": "html"},
]
RANDOM = ("status", "reset", "latency", "truncate", "duplicate", "drip", "down", "too_large")


# --- the messages, and what must become of them ---


def is_warm(number: int) -> bool:
    """The mapping cannot read its temperature."""
    return number % 997 == 7


def is_odd(number: int) -> bool:
    """The server has the field with another type."""
    return number % 4999 == 11


def is_poison(number: int) -> bool:
    """It kills the server."""
    return number % 150_000 == 9_777


def payload(number: int) -> bytes:
    return b'{"kind": "%b", "device": "d%d", "n": %d, "celsius": %b, "note": "%b", "ts": %d}' % (
        b"odd" if is_odd(number) else b"env",
        number % 50,
        number,
        b'"warm"' if is_warm(number) else b"%d.5" % (number % 40),
        b"poison" if is_poison(number) else b"ok",
        FIRST_MS + number,
    )


def line(number: int) -> str:
    """Return the point as the simulator dumps it."""
    place = f"env,device=d{number % 50}"
    return f'{place} celsius={number % 40}.5,n={number}i,note="ok" {FIRST_MS + number}000000'


def place_of(number: int) -> tuple[int, int]:
    """Partition and offset."""
    block, rest = divmod(number, 1000)
    return block % PARTITIONS, block // PARTITIONS * 1000 + rest


def is_bad(number: int) -> bool:
    return is_warm(number) or is_odd(number) or is_poison(number)


def filled(folder: Path, count: int) -> Path:
    (folder / "env.yaml").write_text(MAPPING)
    log = Log.open(folder / "data", create=True)
    log.create_topic("factory", "readings", PARTITIONS)
    for first in range(0, count, 1000):
        messages = [Message(payload(number)) for number in range(first, first + 1000)]
        log.append("factory", "readings", messages, partition=first // 1000 % PARTITIONS)
    log.close()
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of some messages, and a mapping."""
    return filled(tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of many messages, and a mapping."""
    return filled(tmp_path_factory.mktemp("many"), MANY)


# --- the two processes ---


@dataclass
class Server:
    """The simulator as a process with its points on disk: killed and started again on the same port."""

    folder: Path
    dialect: int
    faults: list[dict[str, Any]] = field(default_factory=list)
    chance: random.Random | None = None
    """Draw random faults; None for a server without faults."""
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        (self.port,) = free_ports(1)
        self.file = self.folder / "points.sqlite"
        for old in self.folder.glob("points.sqlite*"):
            old.unlink()

    def start(self) -> None:
        scenario: dict[str, Any] = {"faults": self.faults}
        if self.chance:
            scenario["random"] = {"seed": self.chance.randrange(10**6), "rate": 0.1, "kinds": list(RANDOM)}
        (self.folder / "scenario.yaml").write_text(json.dumps(scenario))
        given = {"dialect": self.dialect, "port": self.port, "database": DATABASE, "db-file": self.file}
        options = [f"--{key}={value}" for key, value in {**given, "scenario": self.folder / "scenario.yaml"}.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "iggyflux", "sim", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout
        assert self.process.stdout.readline()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def admin(self, method: str, name: str, tree: object = None) -> bytes:
        """Call the admin endpoint."""
        data = None if tree is None else json.dumps(tree).encode()
        return self.send(method, f"/__sim__/{name}", data)

    def send(self, method: str, target: str, data: bytes | None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{target}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=150) as answer:
            return bytes(answer.read())

    def disarm(self) -> None:
        """From here on only the deadly line causes a fault."""
        self.chance = None
        self.faults = [fault for fault in self.faults if fault["kind"] == "killer"]
        for _ in range(100):
            try:
                self.admin("DELETE", "faults")
                self.admin("POST", "faults", self.faults)
                return
            except OSError:  # it is down for a moment
                time.sleep(0.05)

    def numbers(self) -> set[int]:
        """Return the stored messages, from the file: even while no server runs."""
        with closing(sqlite3.connect(self.file, timeout=30)) as connection:
            rows = connection.execute("SELECT time FROM points").fetchall()
        return {time // 10**6 - FIRST_MS for (time,) in rows}


@contextmanager
def serving(folder: Path, dialect: int, seed: int | None = None) -> Iterator[Server]:
    """A server with the faults of a seed, and a pipeline to it; it has the type that `odd` points contradict."""
    for old in ("data/.consumers", "dead-letters/env"):
        for file in (folder / old).glob("*"):
            file.unlink()
    server = Server(folder, dialect)
    (folder / "p.yaml").write_text(PIPELINE.format(port=server.port, org="org: org" if dialect == 2 else ""))
    server.start()
    try:
        target = {1: f"/write?db={DATABASE}", 2: f"/api/v2/write?org=org&bucket={DATABASE}"}
        server.send(
            "POST",
            target.get(dialect, f"/api/v3/write_lp?db={DATABASE}"),
            f'odd,device=first celsius="text" {FIRST_MS - 1}000000'.encode(),
        )
        server.faults = [{"kind": "killer", "text": "poison", "times": None}]
        if seed is not None:
            server.chance = random.Random(seed)
            drawn = server.chance.sample(PASSING, len(PASSING))
            server.faults += [{**fault, "skip": server.chance.randrange(4)} for fault in drawn]
        server.admin("POST", "faults", {"faults": server.faults})
        yield server
    finally:
        server.kill()


def start_run(folder: Path) -> subprocess.Popen[bytes]:
    """Return the tested command."""
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "iggyflux", "run", str(folder / "p.yaml"), "--until-end", "--log-format", "text"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


# --- what must hold ---


def settled(folder: Path) -> Mapping[Partition, int]:
    return Consumption(folder / "data", "env").load()


def dead(folder: Path) -> dict[tuple[int, int], str]:
    """Return the dead letters by partition and offset, with their first reason."""
    if not (folder / "dead-letters/env").exists():
        return {}
    letters = read_dead_letters(folder / "dead-letters/env", torn=lambda _file, _line: None)
    return {(letter.message.partition, letter.message.offset): letter.reasons[0].reason for letter in letters}


def check_positions(folder: Path, server: Server, count: int) -> int:
    """Check that everything up to each position is stored or a dead letter; return the number of these messages."""
    positions = {place.partition: offset for place, offset in settled(folder).items()}
    stored, letters = server.numbers(), dead(folder)
    for number in range(count):
        partition, offset = place_of(number)
        if offset <= positions.get(partition, -1):
            assert number in stored or (partition, offset) in letters, (number, partition, offset, positions)
    return sum(offset + 1 for offset in positions.values())


def check_end(folder: Path, server: Server, count: int) -> None:
    """Everything is stored with its values or a dead letter, and nothing is both."""
    found = [text for text in server.admin("GET", f"dump?db={DATABASE}").decode().splitlines() if "=first" not in text]
    letters = dead(folder)
    stored = {int(match[1]) for text in found if (match := re.search(r",n=(\d+)i,", text))}
    bad = {number for number in range(count) if is_bad(number)}
    kept = {number for number in range(count) if place_of(number) in letters}
    # A single line that gets "400" by a fault is rejected like any other; no other good line may be kept.
    blamed = {number for number in kept - bad if "on purpose" in letters[place_of(number)]}

    assert {number: letters[place_of(number)] for number in kept - bad - blamed} == {}
    assert bad - kept == set()
    assert stored == set(range(count)) - bad - (blamed - stored)
    assert sorted(found) == sorted(line(number) for number in stored)
    assert {place.partition: offset + 1 for place, offset in settled(folder).items()} == dict.fromkeys(
        range(PARTITIONS), count // PARTITIONS
    )


def survive(folder: Path, seed: int, count: int, *, moments: int) -> dict[str, int]:
    """Run to the end under the faults of a seed, with kills and stops as drawn; return the counts."""
    chance = random.Random(f"moments {seed}")
    (folder / "run.log").unlink(missing_ok=True)
    happened = {"killed": 0, "server killed": 0, "stopped": 0}
    moved = 0
    with serving(folder, 1 + seed % 3, seed) as server:
        run = start_run(folder)
        try:
            for _ in range(moments):
                run = _moment(folder, server, chance, run, happened)
                after = check_positions(folder, server, count)
                assert after >= moved
                moved = after
            server.disarm()
            for _ in range(5):  # a stop that arrived late
                if run.wait(240) == 0:
                    break
                assert run.returncode == 3, (folder / "run.log").read_text()[-3000:]
                happened["stopped"] += 1
                run = start_run(folder)
            assert run.returncode == 0
        finally:
            run.kill()
            run.wait()
        check_end(folder, server, count)
        assert start_run(folder).wait(60) == 0
        check_end(folder, server, count)
    return happened


def _moment(
    folder: Path, server: Server, chance: random.Random, run: subprocess.Popen[bytes], happened: dict[str, int]
) -> subprocess.Popen[bytes]:
    """Let it run for a while, then disturb it; return the process that runs afterwards."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(chance.uniform(0.5, 1.5))
    harm = chance.choice(("kill", "kill server", "stop"))
    if harm == "kill server":
        server.kill()
        happened["server killed"] += 1
        time.sleep(chance.uniform(0, 0.5))
        server.start()
    elif harm == "stop":
        with suppress(OSError):  # it is down for a moment
            server.admin("POST", "faults", {"faults": [chance.choice(STOPPING)]})
    elif run.poll() is None:
        run.kill()
        run.wait()
        happened["killed"] += 1
        return start_run(folder)
    if run.poll() is not None:
        assert run.returncode in (0, 3), (folder / "run.log").read_text()[-3000:]
        happened["stopped"] += run.returncode == 3
        return start_run(folder)
    return run


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_every_point_is_stored_or_dead_lettered(few: Path, seed: int) -> None:
    happened = survive(few, seed, FEW, moments=3)

    print(f"seed {seed}: {happened}")


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_under_random_faults_every_point_is_stored_or_dead_lettered(many: Path, seed: int) -> None:
    happened = survive(many, seed, MANY, moments=12)

    print(f"seed {seed}: {happened}")


# --- a server that is away ---


def resident_megabytes(process: subprocess.Popen[bytes]) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def stored_in(server: Server, seconds: float) -> float:
    """Return points a second that arrive."""
    before, start = len(server.numbers()), time.monotonic()
    time.sleep(seconds)
    return (len(server.numbers()) - before) / (time.monotonic() - start)


def check_away(folder: Path, seconds: float) -> None:
    with serving(folder, 2) as server:
        server.admin("DELETE", "faults")  # without a deadly line, which would slow the run
        run = start_run(folder)
        try:
            until = time.monotonic() + 30
            while not server.numbers() - {-1} and time.monotonic() < until:
                time.sleep(0.05)
            pace = stored_in(server, 1.0)
            server.kill()
            time.sleep(0.5)  # requests in flight fail, and the route waits
            acknowledged, looks = sum(settled(folder).values()), list[float]()
            for _ in range(round(seconds / 0.1)):
                looks.append(resident_megabytes(run))
                time.sleep(0.1)
            before, largest = max(looks[: len(looks) // 3]), max(looks)
            assert sum(settled(folder).values()) == acknowledged
            server.start()
            server.admin("DELETE", "faults")
            recovered, tries = 0.0, 0
            while recovered <= pace / 3 and tries < 10:  # a busy machine may stand still, too
                recovered, tries = max(recovered, stored_in(server, 1.0)), tries + 1
            assert run.poll() is None, "too few messages to admin"
        finally:
            run.kill()
            run.wait()

    print(f"pace {pace:,.0f}/s, then {recovered:,.0f}/s; resident {before:.0f} MB, at most {largest:.0f} MB")
    assert largest < before + 16
    assert largest < 160
    assert recovered > pace / 3


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_is_bounded_and_the_pace_returns_after_an_outage(many: Path) -> None:
    check_away(many, AWAY_SECONDS)


@pytest.mark.long
def test_memory_does_not_grow_while_the_server_is_away_for_a_minute(many: Path) -> None:
    check_away(many, LONG_AWAY_SECONDS)
