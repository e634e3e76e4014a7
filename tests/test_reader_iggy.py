"""A reader into a real Apache Iggy that is killed and restarted, while the reader's process is killed too."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from iggy_server import IggyServer
from live_iggy import killable_server  # noqa: F401  (the fixture `server`)
from shell import process
from test_reader_crash import LIVE_SECONDS, NS, OVERLAP_SECONDS, World, check, iso

from iggyflux.records import Message
from iggyflux.sim import SimServer
from iggyflux.transports.iggy.topics import IggyRange, read_range

PARTITIONS = 3
SEEDS = range(1)
LONG_SEEDS = range(100, 110)

MAPPING = """\
iggyflux: 1
kind: reader
name: back
from: {{measurement: env, language: sql}}
cursor: {{start: {start}, end: {end}, settle: 200ms, overlap: {overlap}s, mark: why}}
messages: {{payload: "{{t: time, d: device, v: value}}", key: device}}
to: {{stream: {stream}, topic: back}}
"""

PIPELINE = """\
iggyflux: 1
iggy: {{address: "{tcp}", username: iggy, password: "${{IGGY_PASSWORD}}", timeout: 3s}}
influxdb: {{url: "{url}", database: test, poll_interval: 100ms}}
run: [{{mapping: back.yaml}}]
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "iggyflux", "run", "p.yaml", "--log-format", "text"],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "IGGY_PASSWORD": "iggy"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def sent(server: IggyServer, stream: str) -> list[Message]:
    async def main() -> list[Message]:
        return [message async for message in read_range(IggyRange(server.settings(), [(stream, "back")]))]

    return asyncio.run(main())


def run_through_kills(server: IggyServer, folder: Path, seed: int, *, in_topic: bool = False) -> None:
    chance = random.Random(seed)
    stream = server.unique("reader")
    server.create_topic(stream, "back", PARTITIONS, messages_required_to_save="1", enforce_fsync="true")
    with SimServer(3) as sim:
        begin = time.time_ns() - 30 * NS
        world = World(sim, chance, begin, time.time_ns() + LIVE_SECONDS * NS)
        world.put(*[(begin + number * NS // 10, f"d{number % 5}") for number in range(250)])
        (folder / "back.yaml").write_text(
            MAPPING.format(start=iso(begin), end=iso(world.end), overlap=OVERLAP_SECONDS, stream=stream)
        )
        text = PIPELINE.format(tcp=server.tcp, url=sim.url)
        if in_topic:
            server.create_topic(stream, "cursors", messages_required_to_save="1", enforce_fsync="true")
            text += f"state: {{stream: {stream}, topic: cursors}}\n"
        (folder / "p.yaml").write_text(text)
        living = threading.Thread(target=world.live)
        living.start()
        running = start(folder)
        try:
            while living.is_alive():
                time.sleep(chance.uniform(0.6, 1.5))
                if chance.random() < 0.5:
                    running.kill()
                    running.wait()
                    running = start(folder)
                elif server.is_ours:
                    server.kill()
                    time.sleep(0.2)
                    server.start()
            assert running.wait(90) == 0, (folder / "run.log").read_text()[-4000:]
        finally:
            living.join()
            running.kill()
            running.wait()
    assert (folder / ".iggyflux" / "back.cursor.sqlite").exists() is not in_topic
    found = sent(server, stream)
    check(found, world, 1)
    of_device: dict[bytes, set[int]] = {}
    for message in found:
        of_device.setdefault(message.payload.split(b'"d":"')[1].split(b'"')[0], set()).add(message.partition)
    assert all(len(numbers) == 1 for numbers in of_device.values()), "a key has one partition"
    assert len({message.partition for message in found}) == PARTITIONS


def test_check_reports_a_readers_missing_topic_and_run_creates_it(
    server: IggyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing topic is reported before the run; with `create` it is not a fault."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IGGY_PASSWORD", "iggy")
    stream = server.unique("made")
    with SimServer(3) as sim:
        World(sim, random.Random(1), 0, 0).put((1_767_225_600 * NS, "d1"))
        mapping = MAPPING.format(start="beginning", end="2026-06-01T00:00:00Z", overlap=1, stream=stream)
        (tmp_path / "back.yaml").write_text(mapping)
        text = PIPELINE.format(tcp=server.tcp, url=sim.url)
        (tmp_path / "p.yaml").write_text(text)
        missing, refused = (process(command, "p.yaml") for command in ("check", "run"))
        (tmp_path / "p.yaml").write_text(text.replace("iggy: {", "iggy: {create: true, "))
        may = process("check", "p.yaml")
        server.create_topic(stream, "back", PARTITIONS)  # as `run` does, where the server is as old as the client
        checked, ran, again = (process(command, "p.yaml") for command in ("check", "run", "run"))

    assert (missing.code, f"topic {stream}/back for messages not found" in missing.out) == (1, True)
    assert (refused.code, "IFX766" in refused.err) == (3, True)
    assert (may.code, "`run` creates it" in may.out) == (0, True)
    assert (checked.code, f"topic {stream}/back for messages exists" in checked.out) == (0, True)
    assert (ran.code, again.code) == (0, 0), ran.err + again.err
    assert len(sent(server, stream)) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reader_and_its_iggy_killed_at_random_moments_lose_nothing(
    server: IggyServer, tmp_path: Path, seed: int
) -> None:
    run_through_kills(server, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reader_without_a_disk_and_its_iggy_lose_nothing_when_killed(
    server: IggyServer, tmp_path: Path, seed: int
) -> None:
    run_through_kills(server, tmp_path, seed, in_topic=True)


@pytest.mark.long
@pytest.mark.parametrize("in_topic", [False, True], ids=["disk", "topic"])
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_many_kills_of_a_reader_and_its_iggy_lose_nothing(
    server: IggyServer, tmp_path: Path, seed: int, in_topic: bool
) -> None:
    run_through_kills(server, tmp_path, seed, in_topic=in_topic)
