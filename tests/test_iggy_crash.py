"""From Apache Iggy to a simulated InfluxDB under faults: real processes, a real Iggy, kill -9.

At the end of each: every message's point is stored, or its dead letter is kept, and the stored offsets are the ends of
the partitions.  A few seeds by default, the full numbers with `--long`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from iggy_server import IggyServer
from live_iggy import killable_server  # noqa: F401  (the fixture `server`)
from shell import process as run_command

from iggyflux.records import OutgoingMessage, Partition
from iggyflux.sim import Fault, SimServer
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from iggyflux.transports.local.deadletters import read_dead_letters

PARTITIONS = 2
BAD_EVERY = 400

MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {{stream: {stream}, topic: t}}
points:
  - measurement: {{const: env}}
    tags: {{device: device}}
    fields: {{n: {{expr: n, type: integer}}}}
    timestamp: {{expr: ts, format: unix_us}}
"""

PIPELINE = """\
iggyflux: 1
iggy: {{address: "{tcp}", username: iggy, password: "${{IGGY_PASSWORD}}", timeout: 3s, batch_size: 1000}}
influxdb: {{url: "{url}", org: org, bucket: test, batch_size: 100, linger: 50ms, retry_backoff: 100ms}}
consumer: {consumer}
run:
  - mapping: env.yaml
"""


class Plant:
    """A topic, a store, a pipeline between them, and its processes."""

    def __init__(
        self,
        server: IggyServer,
        sim: SimServer,
        folder: Path,
        stream: str,
        consumer: str = "{}",
        partitions: int = PARTITIONS,
    ) -> None:
        self.partitions = partitions
        self.server, self.sim, self.folder, self.stream = server, sim, folder, server.unique(stream)
        self.sent = 0
        self.kind = "single" if "single" in consumer else "group"
        # what the server confirmed is on its disk: else a killed server loses messages
        server.create_topic(self.stream, "t", partitions, messages_required_to_save="1", enforce_fsync="true")
        (folder / "env.yaml").write_text(MAPPING.format(stream=self.stream))
        (folder / "p.yaml").write_text(PIPELINE.format(tcp=server.tcp, url=sim.url, consumer=consumer))

    def send(self, count: int) -> None:
        """Return messages that make one point each, except one in `BAD_EVERY`."""

        async def main() -> None:
            connection = Connection(self.server.settings())
            await connection.open()
            for first in range(self.sent, self.sent + count, 250):
                messages = [OutgoingMessage(payload(number)) for number in range(first, first + 250)]
                await connection.send(self.stream, "t", first // 250 % self.partitions, messages)
            await connection.close()

        asyncio.run(main())
        self.sent += count

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        log = (self.folder / "run.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "iggyflux", "run", "p.yaml", "--log-format", "text", *args],
                cwd=self.folder,
                env={"PATH": "/usr/bin:/bin", "IGGY_PASSWORD": "iggy"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def finish(self, *args: str) -> None:
        """Run to the end."""
        process = self.start("--until-end", *args)
        assert process.wait(120) == 0, self.log

    @property
    def log(self) -> str:
        return (self.folder / "run.log").read_text()[-6000:]

    def stored(self, name: str = "c") -> dict[int, tuple[int, int]]:
        """Return for each partition the stored offset and the last one."""

        async def main() -> dict[int, tuple[int, int]]:
            connection = Connection(self.server.settings())
            await connection.open()
            reader, found = ConsumerId(self.kind, name), {}  # type: ignore[arg-type]
            for number in range(self.partitions):
                stored = await connection.stored(reader, Partition(self.stream, "t", number))
                found[number] = (stored.stored, stored.last) if stored else (-1, -1)
            await connection.close()
            return found

        return asyncio.run(main())

    def wait_until_settled(self, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not all(stored == last >= 0 for stored, last in self.stored().values()):
            assert time.monotonic() < until, (self.stored(), self.log)
            time.sleep(0.1)

    def check(self) -> None:
        """Check that no message is missing, no other is there, and all are settled."""
        numbers = {int(dict(point.fields)["n"]) for point in self.sim.points()}
        bad = {number for number in range(self.sent) if is_bad(number)}
        kept = set()
        for folder in sorted((self.folder / "dead-letters").glob("*")):
            kept |= {int(letter.message.payload.split(b'"ts": ')[1][:-1]) for letter in read_dead_letters(folder)}
        assert numbers == set(range(self.sent)) - bad
        assert {each - 1_700_000_000_000_000 for each in kept} == bad
        assert len(self.sim.points()) == len(numbers)
        for stored, last in self.stored().values():
            assert stored == last


def payload(number: int) -> bytes:
    n = b'"many"' if is_bad(number) else b"%d" % number
    return b'{"device": "d%d", "n": %b, "ts": %d}' % (number % 7, n, 1_700_000_000_000_000 + number)


def is_bad(number: int) -> bool:
    return number % BAD_EVERY == 13


@pytest.fixture
def sim() -> Iterator[SimServer]:
    with SimServer(2) as running:
        running.inject(Fault("latency", seconds=0.05, times=None))
        yield running


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    return folder


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(("seed", "kills"), [(1, 3), pytest.param(2, 100, marks=pytest.mark.long)])
@pytest.mark.parametrize("consumer", ["{group: c}", "{single: c}"])
def test_our_process_killed_at_random_moments_loses_nothing(
    server: IggyServer, sim: SimServer, tmp_path: Path, consumer: str, seed: int, kills: int
) -> None:
    chance = random.Random(seed)
    sim.inject(Fault("latency", seconds=0.15, times=None))  # so that much is in flight at every kill
    plant = Plant(server, sim, folder_of(tmp_path), "crash", consumer)
    for _ in range(kills):
        plant.send(10_000 if kills < 10 else 4_000)
        process = plant.start()
        time.sleep(chance.uniform(0.7, 2.2))
        process.kill()
        process.wait()
    sim.faults.clear()
    plant.finish()
    plant.check()


@pytest.mark.parametrize("consumer", ["{group: c}", "{single: c}"])
def test_two_workers_share_a_topic_and_one_that_is_killed_loses_nothing(
    server: IggyServer, sim: SimServer, tmp_path: Path, processes: list[subprocess.Popen[bytes]], consumer: str
) -> None:
    """Members of one group, or a split of the partitions of a single consumer; one status shows both."""
    plant = Plant(server, sim, folder_of(tmp_path), "workers", consumer, partitions=4)
    processes.append(process := plant.start("--workers", "2", "--status-file", "s.json"))

    def status() -> Any:
        return json.loads((plant.folder / "s.json").read_text())

    def route() -> Any:
        return status()["routes"][0]

    def wait_for(is_so: Callable[[], object]) -> None:
        until = time.monotonic() + 90
        while not is_so():
            assert time.monotonic() < until, (status(), plant.log)
            time.sleep(0.1)

    wait_for(lambda: plant.log.count("route.connected") == 2)
    plant.send(8_000)
    plant.wait_until_settled()
    wait_for(lambda: route()["acknowledged"] >= 8_000)
    if "group" in consumer:
        wait_for(lambda: len(members(plant)) == 2 and route()["groups"][0]["partitions"] == [0, 1, 2, 3])
    wait_for(lambda: set(route()["lag"].values()) == {0})
    plant.send(4_000)
    os.kill(status()["workers"][1]["pid"], signal.SIGKILL)
    plant.send(4_000)
    wait_for(lambda: plant.log.count("worker.started worker=1") == 2)
    plant.wait_until_settled(90)
    wait_for(lambda: plant.log.count("route.connected") == 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, plant.log
    plant.check()
    assert [each["restarts"] for each in status()["workers"]] == [0, 1]


@pytest.mark.parametrize(("seed", "kills"), [(1, 2), pytest.param(2, 10, marks=pytest.mark.long)])
def test_the_server_killed_at_random_moments_loses_nothing(
    server: IggyServer,
    sim: SimServer,
    tmp_path: Path,
    processes: list[subprocess.Popen[bytes]],
    seed: int,
    kills: int,
) -> None:
    """With a single consumer: this server keeps dead members of groups as owners of their partitions."""
    if not server.is_ours:
        pytest.skip("this server is not ours to kill")
    chance = random.Random(seed)
    plant = Plant(server, sim, folder_of(tmp_path), "crash", "{single: c}")
    processes.append(process := plant.start())
    for _ in range(kills):
        plant.send(6000)
        time.sleep(chance.uniform(0.0, 1.0))
        server.kill()
        server.start()
    plant.wait_until_settled()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, plant.log
    plant.check()


def test_a_server_that_hangs_for_a_while_is_left_and_joined_again(
    server: IggyServer, sim: SimServer, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    """The call that took too long must not leave a member behind that holds partitions."""
    if server.process is None:
        pytest.skip("this server is not ours to stop")
    plant = Plant(server, sim, folder_of(tmp_path), "hang", "{group: c}")
    plant.send(4000)
    processes.append(process := plant.start())
    while b"route.connected" not in (plant.folder / "run.log").read_bytes():
        time.sleep(0.02)
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(6)
    server.process.send_signal(signal.SIGCONT)
    plant.send(2000)
    plant.wait_until_settled()
    assert "no answer in 3 s" in (plant.folder / "run.log").read_text()
    assert len(members(plant)) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, plant.log
    plant.check()


@pytest.mark.parametrize("how", ["kill", pytest.param("stop", marks=pytest.mark.long)])
def test_a_group_goes_on_after_the_server_was_started_again(
    server: IggyServer, sim: SimServer, tmp_path: Path, processes: list[subprocess.Popen[bytes]], how: str
) -> None:
    """Where the server keeps dead members as owners of their partitions, the run reports it, and `regroup` helps."""
    if server.process is None:
        pytest.skip("this server is not ours to stop")
    plant = Plant(server, sim, folder_of(tmp_path), "again", "{group: c}")
    plant.send(2000)
    processes.append(process := plant.start())
    plant.wait_until_settled()
    getattr(server, how)()
    server.start()
    plant.send(2000)
    while "iggy.starving group=c" not in (plant.folder / "run.log").read_text():
        if all(stored == last for stored, last in plant.stored().values()):
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, plant.log
    regrouped = run_command("regroup", plant.folder / "p.yaml", "--mapping", "env", env={"IGGY_PASSWORD": "iggy"})
    assert (regrouped.code, "with 2 offsets" in regrouped.err) == (0, True), regrouped.err
    plant.finish()
    plant.check()
    done = [line for line in plant.log.splitlines() if "route.done" in line]
    assert int(done[-1].partition(" read=")[2].split()[0]) <= 2000  # messages that were settled are not read again


def starving(plant: Plant) -> dict[int, int]:
    """Return from the status file the partitions that starve, and their holders."""
    (route,) = json.loads((plant.folder / "status.json").read_bytes())["routes"]
    return {each["partition"]: each["held_by"] for group in route.get("groups", ()) for each in group["starving"]}


def send_until(plant: Plant, happened: Callable[[], bool], seconds: float) -> float:
    """Send about 1,000 messages a second until a condition holds; return the seconds."""
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() < begun + seconds, plant.log
        plant.send(250)
        time.sleep(0.2)
    return time.monotonic() - begun


def kill_under_load(plant: Plant, server: IggyServer) -> None:
    """Restart the server and wait until the run is connected again."""
    enough, log = plant.sent + 2000, plant.folder / "run.log"
    connected = log.read_text().count("route.connected")
    send_until(plant, lambda: plant.sent >= enough, 60)
    server.kill()
    server.start()
    send_until(plant, lambda: log.read_text().count("route.connected") > connected, 30)


def test_partitions_of_dead_members_are_reported_within_seconds(
    server: IggyServer, sim: SimServer, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    """Log, status and `check` name partition and member; `regroup` requires that none is connected; nothing is lost."""
    if server.process is None:
        pytest.skip("this server is not ours to kill")
    plant = Plant(server, sim, folder_of(tmp_path), "ghosts", "{group: c}", partitions=4)
    processes.append(process := plant.start("--status-file", "status.json"))
    plant.send(1000)
    plant.wait_until_settled()
    kill_under_load(plant, server)
    if len(members(plant)) < 2:
        pytest.skip("this server keeps no dead members")
    ghost, (mine, _) = min(members(plant).items()), max(members(plant).items())
    expected = dict.fromkeys(ghost[1], ghost[0])
    seconds = send_until(plant, lambda: starving(plant) == expected, 30)
    assert seconds < 20

    reported, log = starving(plant), (plant.folder / "run.log").read_text()
    events = [line for line in log.splitlines() if "iggy.starving group=c" in line and f" self={mine} " in line]
    named = {number for line in events for number in line.partition("partitions=")[2].split()[0].split(",")}
    assert named == {str(partition) for partition in reported}
    arguments = (plant.folder / "p.yaml", "--mapping", "env")
    checked = run_command("check", *arguments, env={"IGGY_PASSWORD": "iggy"})
    refused = run_command("regroup", *arguments, env={"IGGY_PASSWORD": "iggy"})
    assert all(
        f"/t/{partition} starves: member {holder} holds it" in checked.out for partition, holder in reported.items()
    )
    assert (checked.code, refused.code, "IFX769" in refused.err) == (1, 3, True), refused.err

    regrouped = run_command("regroup", *arguments, "--yes", env={"IGGY_PASSWORD": "iggy"})
    assert regrouped.code == 0, regrouped.err
    plant.wait_until_settled()
    assert (starving(plant), list(members(plant).values())) == ({}, [(0, 1, 2, 3)])
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, plant.log
    plant.check()


def test_a_run_rebuilds_an_exclusive_group_after_a_server_restart(
    server: IggyServer, sim: SimServer, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    if server.process is None:
        pytest.skip("this server is not ours to kill")
    plant = Plant(server, sim, folder_of(tmp_path), "alone", "{group: c, exclusive: true}", partitions=4)
    processes.append(process := plant.start("--status-file", "status.json"))
    plant.send(1000)
    plant.wait_until_settled()
    for _ in range(2):
        kill_under_load(plant, server)
        send_until(plant, lambda: list(members(plant).values()) == [(0, 1, 2, 3)], 20)
        plant.wait_until_settled(20)
    rebuilt = (plant.folder / "run.log").read_text().count("iggy.regrouped group=c")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, plant.log
    plant.check()
    if not rebuilt:
        pytest.skip("this server keeps no dead members")


@pytest.mark.parametrize(("seed", "rounds"), [(1, 4), pytest.param(2, 40, marks=pytest.mark.long)])
def test_members_that_join_leave_and_die_lose_nothing(
    server: IggyServer,
    sim: SimServer,
    tmp_path: Path,
    processes: list[subprocess.Popen[bytes]],
    seed: int,
    rounds: int,
) -> None:
    chance = random.Random(seed)
    plant = Plant(server, sim, folder_of(tmp_path), "crash", "{group: c}")
    for _ in range(rounds):
        living = [process for process in processes if process.poll() is None]
        if len(living) < 3:
            processes.append(plant.start())
        if len(living) > 1:
            leaving = chance.choice(living)
            if chance.random() < 0.5:
                leaving.kill()
            else:
                leaving.send_signal(signal.SIGTERM)
        plant.send(3000)
        time.sleep(chance.uniform(0.4, 1.8))
    if all(process.poll() is not None for process in processes):
        processes.append(plant.start())
    plant.wait_until_settled()
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    early = -signal.SIGTERM  # stopped before it could handle the signal
    assert {process.wait(60) for process in processes} <= {0, -signal.SIGKILL, early}, plant.log
    plant.check()


@pytest.mark.parametrize("runs", [3, pytest.param(50, marks=pytest.mark.long)])
def test_the_exit_code_of_a_run_can_be_trusted(server: IggyServer, sim: SimServer, tmp_path: Path, runs: int) -> None:
    """The SDK's threads sometimes abort a process that ends: it must still exit cleanly."""
    plant = Plant(server, sim, folder_of(tmp_path), "codes", "{group: c}")
    for _ in range(runs):
        plant.send(500)
        plant.finish()
    plant.check()


def test_a_stopped_run_finishes_its_requests_and_leaves_the_group(
    server: IggyServer, sim: SimServer, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    plant = Plant(server, sim, folder_of(tmp_path), "stop", "{group: c}")
    plant.send(4000)
    processes.append(process := plant.start())
    while b"route.connected" not in (plant.folder / "run.log").read_bytes():
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, plant.log

    delivered = {int(dict(point.fields)["n"]) for point in sim.points()}
    settled = sum(stored + 1 for stored, _ in plant.stored().values())
    bad = sum(is_bad(number) for number in range(plant.sent))
    assert len(delivered) <= settled <= len(delivered) + bad
    assert members(plant) == {}
    plant.finish()
    plant.check()


def test_a_route_without_its_server_stalls_no_other_and_acknowledges_none(
    server: IggyServer, sim: SimServer, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    plant = Plant(server, sim, folder_of(tmp_path), "two", "{group: c}")
    path = plant.folder / "p.yaml"
    dead = (
        '  - {mapping: env.yaml, name: dead, consumer: {group: d}, influxdb: {url: "http://127.0.0.1:1", flavor: v2}}\n'
    )
    path.write_text(path.read_text() + dead)
    plant.send(2000)
    processes.append(process := plant.start("--status-file", "status.json"))
    plant.wait_until_settled()
    while not (status := plant.folder / "status.json").exists():
        time.sleep(0.1)
    routes = {route["name"]: route for route in json.loads(status.read_bytes())["routes"]}
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) in (0, 3), plant.log

    plant.check()
    assert set(routes) == {"env", "dead"}
    assert routes["dead"]["acknowledged"] == 0
    assert plant.stored("d") == {0: (-1, -1), 1: (-1, -1)}


def members(plant: Plant) -> dict[int, Sequence[int]]:
    async def main() -> dict[int, Sequence[int]]:
        connection = Connection(plant.server.settings())
        await connection.open()
        found = await connection.members(plant.stream, "t", "c")
        await connection.close()
        return dict(found)

    return asyncio.run(main())
