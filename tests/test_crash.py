"""kill -9 at random moments of a real run: no point is missing, and duplicates have the same bytes.

A process runs `log:` → file over many messages.  It is killed and started again at moments that a seed chooses, until a
run ends by itself.  A few seeds by default, over a hundred kills with `--long`.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from iggyflux.records import Message, Partition
from iggyflux.transports.local.deadletters import read_dead_letters
from iggyflux.transports.local.log import Consumption, Log

pytestmark = pytest.mark.slow

MESSAGES = 200_000
PARTITIONS = 2
BAD_EVERY = 5_000
SEEDS = range(1)
LONG_SEEDS = range(100, 125)

MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {stream: factory, topic: readings, payload: json}
points:
  - measurement: {const: env}
    tags: {device: device}
    fields: {n: {expr: n, type: integer}, celsius: celsius}
    timestamp: {expr: ts, format: unix_ms}
"""

PIPELINE = """\
iggyflux: 1
from: log:data
to: file:out.lp
influxdb: {batch_size: 1000, linger: 20ms}
run:
  - mapping: env.yaml
"""

RUN = """\
import asyncio, dataclasses, random, sys
from iggyflux.pipeline import load_pipeline
from iggyflux.runner import run_routes
from iggyflux.runner.open import open_routes

class Late:
    "A sink that answers out of order, so that much is in flight when the process dies."
    def __init__(self, sink, seed):
        self.sink, self.chance = sink, random.Random(seed)
        self.connect, self.close = sink.connect, sink.close
    async def write(self, lines):
        await asyncio.sleep(self.chance.uniform(0, 0.15))
        return await self.sink.write(lines)

routes = [
    dataclasses.replace(route, sink=Late(route.sink, sys.argv[2]), max_in_flight=8)
    for route in open_routes(load_pipeline(sys.argv[1]), until_end=True)
]
print("started", flush=True)
sys.exit(asyncio.run(run_routes(routes)).exit_code)
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a mapping, a pipeline and a log of messages, some of which are bad."""
    folder = tmp_path_factory.mktemp("crash")
    (folder / "env.yaml").write_text(MAPPING)
    (folder / "p.yaml").write_text(PIPELINE)
    log = Log.open(folder / "data", create=True)
    log.create_topic("factory", "readings", PARTITIONS)
    for first in range(0, MESSAGES, 1000):
        messages = [Message(payload(number)) for number in range(first, first + 1000)]
        log.append("factory", "readings", messages, partition=first // 1000 % PARTITIONS)
    log.close()
    return folder


def payload(number: int) -> bytes:
    celsius = b'"warm"' if number % BAD_EVERY == 7 else b"%d.5" % (number % 40)
    return b'{"device": "d%d", "n": %d, "celsius": %b, "ts": %d}' % (
        number % 50,
        number,
        celsius,
        1_700_000_000_000 + number,
    )


def clear(folder: Path) -> None:
    """Delete the traces of every earlier run."""
    (folder / "out.lp").unlink(missing_ok=True)
    for kept in ("data/.consumers", "dead-letters/env"):
        for file in (folder / kept).glob("*"):
            file.unlink()


def run_for(folder: Path, seconds: float | None, seed: int = 0) -> int | None:
    """Run the pipeline; kill -9 it after `seconds`.  Return the exit code, or None if it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder / "p.yaml"), str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"started\n"
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    assert process.returncode == 0, errors.decode()
    return process.returncode


def check(folder: Path) -> Counter[str]:
    """Compare the output with what it must be; return the lines with their counts."""
    lines = Counter((folder / "out.lp").read_text().splitlines())
    bad = {number for number in range(MESSAGES) if number % BAD_EVERY == 7}
    numbers = {int(match[1]) for line in lines if (match := re.search(r"[ ,]n=(\d+)i[ ,]", line))}

    assert len(numbers) == len(lines), "two different lines of one message, or a torn one"
    assert set(range(MESSAGES)) - numbers == bad
    letters = {
        (letter.message.partition, letter.message.offset) for letter in read_dead_letters(folder / "dead-letters/env")
    }
    assert letters == {
        (number // 1000 % PARTITIONS, number // 1000 // PARTITIONS * 1000 + number % 1000) for number in bad
    }
    settled = Consumption(folder / "data", "env").load()
    assert settled == {
        Partition("factory", "readings", number): MESSAGES // PARTITIONS - 1 for number in range(PARTITIONS)
    }
    return lines


def check_positions(folder: Path) -> int:
    """Check that each message up to its position is a line or a dead letter; return the number of these messages."""
    settled = Consumption(folder / "data", "env").load()
    if not settled:
        return 0
    out = (folder / "out.lp").read_text()
    numbers = {int(number) for number in re.findall(r"[ ,]n=(\d+)i[ ,].*\n", out)}
    dead = folder / "dead-letters/env"
    kept = read_dead_letters(dead) if dead.exists() else ()
    letters = {(letter.message.partition, letter.message.offset) for letter in kept}
    for place, offset in settled.items():
        for number in range(MESSAGES):
            block, rest = divmod(number, 1000)
            if block % PARTITIONS == place.partition and block // PARTITIONS * 1000 + rest <= offset:
                assert number in numbers or (place.partition, block // PARTITIONS * 1000 + rest) in letters, (
                    place,
                    number,
                )
    return sum(offset + 1 for offset in settled.values())


def crash_and_resume(folder: Path, seed: int) -> int:
    """Kill and restart until a run ends by itself; then once more, which must find nothing new.  Return the kills."""
    clear(folder)
    chance = random.Random(seed)
    kills = moved = 0
    for _ in range(60):
        if run_for(folder, chance.uniform(0.1, 0.9) if kills < 6 else None, chance.randrange(1000)) == 0:
            break
        kills += 1
        after = check_positions(folder)
        assert after >= moved
        moved = after
    lines = check(folder)
    print(f"seed {seed}: {kills} kills, {sum(lines.values()) - len(lines)} lines twice")
    assert run_for(folder, None) == 0
    assert check(folder) == lines
    return kills


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_that_is_killed_at_random_moments_loses_nothing(filled: Path, seed: int) -> None:
    crash_and_resume(filled, seed)


@pytest.mark.long
def test_a_run_that_is_killed_at_a_hundred_random_moments_loses_nothing(filled: Path) -> None:
    kills = 0
    for seed in LONG_SEEDS:
        kills += crash_and_resume(filled, seed)

    assert kills >= 100
