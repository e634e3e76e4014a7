"""`iggyflux run` on many hosts: an Iggy, a simulated InfluxDB, and hosts whose runs are members of one group.

A host is a network namespace (`tests/network.py`).  Iggy has a host of its own, and InfluxDB is in this process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.records import Message, OutgoingMessage, Partition
from iggyflux.sim import SimServer
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from iggyflux.transports.local.deadletters import read_dead_letters
from tests.iggy_server import IggyServer
from tests.network import Host, Network

STREAM: Final = "plant"
PLACE: Final = (STREAM, "lots")
GROUP: Final = "readers"
MAPPING: Final = """\
iggyflux: 1
kind: writer
name: kilns
from: {stream: plant, topic: lots}
points:
  - measurement: {const: kiln}
    tags: {oven: oven}
    fields: {lot: {expr: lot, type: integer}}
    timestamp: {expr: at, format: unix_us}
"""
_PIPELINE: Final = """\
iggyflux: 1
iggy: {{address: "{tcp}", username: iggy, password: "${{IGGY_PASSWORD}}", timeout: 3s, allow_unencrypted: true}}
influxdb: {{url: "{url}", org: org, bucket: test, batch_size: 100, linger: 50ms, timeout: 3s, retry_backoff: 100ms}}
consumer: {{group: readers}}
run: [{{mapping: kilns.yaml}}]
"""
_OPTIONS: Final = ("--log-format", "text", "--status-file", "status.json")
BAD_EVERY: Final = 500
_AT_ONCE: Final = 20


def payload(number: int) -> bytes:
    """A message of one point, except one in `BAD_EVERY`."""
    lot = b'"none"' if number % BAD_EVERY == 7 else b"%d" % number
    return b'{"oven": "o%d", "lot": %b, "at": %d}' % (number % 5, lot, 1_700_000_000_000_000 + number)


@dataclass(frozen=True)
class Look:
    """The group at one moment: partitions by member, and the stored and the last offset by partition."""

    held: Mapping[int, tuple[int, ...]]
    offsets: Mapping[int, tuple[int, int]]

    def is_balanced(self, members: int) -> bool:
        """Whether so many members hold all partitions, none more than one partition more than another."""
        sizes = [len(each) for each in self.held.values()]
        owned = sorted(partition for each in self.held.values() for partition in each)
        return len(sizes) == members and max(sizes) - min(sizes) <= 1 and owned == sorted(self.offsets)

    @property
    def is_settled(self) -> bool:
        return all(stored == last for stored, last in self.offsets.values())


@dataclass
class Member:
    """A host with its folder, and the run on it."""

    host: Host
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = self.host.command(sys.executable, "-m", "iggyflux", "run", "p.yaml", *_OPTIONS)
        with (self.folder / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "IGGY_PASSWORD": "iggy",
                },  # `ip netns exec` becomes the run
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def power_off(self) -> None:
        self.host.power_off()
        self.wait()

    def wait(self, seconds: float = 60) -> int | None:
        """Return the exit code of the run, once it has ended."""
        return None if self.process is None else self.process.wait(seconds)

    @property
    def partitions(self) -> set[int]:
        """The partitions of this host, as its status says."""
        (route,) = json.loads((self.folder / "status.json").read_bytes())["routes"]
        return {partition for group in route["groups"] for partition in group["partitions"]}

    @property
    def log(self) -> str:
        return (self.folder / "run.log").read_text()[-3000:] if (self.folder / "run.log").exists() else ""


@dataclass
class Site:
    """Everything that runs."""

    network: Network
    server: IggyServer
    sim: SimServer
    folder: Path
    partitions: int
    members: list[Member] = field(default_factory=list)
    sent: int = 0

    def add(self) -> Member:
        """Return a new host, whose run is not started."""
        name = f"h{len(self.members)}"
        member = Member(self.network.host(name), self.folder / name)
        member.folder.mkdir()
        (member.folder / "kilns.yaml").write_text(MAPPING)
        (member.folder / "p.yaml").write_text(_PIPELINE.format(tcp=self.server.tcp, url=self.sim.url))
        self.members.append(member)
        return member

    def look(self) -> Look:
        return asyncio.run(self._look())

    async def _look(self) -> Look:
        connection = Connection(self.server.settings())
        await connection.open()
        try:
            held = await connection.members(*PLACE, GROUP)
            offsets = {}
            for number in range(self.partitions):
                stored = await connection.stored(ConsumerId("group", GROUP), Partition(*PLACE, number))
                offsets[number] = (stored.stored, stored.last) if stored else (-1, -1)
            return Look(held, offsets)
        finally:
            await connection.close()

    def until(self, holds: Callable[[Look], bool], what: str, seconds: float = 120) -> float:
        """Wait for a condition; return the seconds that it took."""
        begun = time.monotonic()
        while not holds(look := self.look()):
            if time.monotonic() - begun > seconds:
                logs = "\n\n".join(f"{member.host.name}: {member.log}" for member in self.members)
                raise AssertionError(f"{what}: not within {seconds:.0f} s: {look}\n{logs}")
            time.sleep(0.2)
        return time.monotonic() - begun

    def takeover(self, fault: Callable[[], object], members: int, seconds: float = 120) -> float:
        """Return the seconds from a fault until `members` share the partitions and have settled messages of each."""
        before = self.look()
        ends = {number: last for number, (_, last) in before.offsets.items()}
        begun = time.monotonic()
        fault()
        self.until(
            lambda look: (
                look.is_balanced(members) and all(stored > ends[at] for at, (stored, _) in look.offsets.items())
            ),
            f"{members} members hold {self.partitions} partitions and settle messages of each",
            seconds,
        )
        return time.monotonic() - begun

    @contextmanager
    def sending(self, rate: int = 400) -> Iterator[None]:
        """Send about so many messages a second meanwhile."""
        over, failures = threading.Event(), list[BaseException]()

        async def send() -> None:
            connection = Connection(self.server.settings())
            await connection.open()
            while not over.is_set():
                numbers = range(self.sent, self.sent + _AT_ONCE)
                partition = self.sent // _AT_ONCE % self.partitions
                await connection.send(*PLACE, partition, [OutgoingMessage(payload(number)) for number in numbers])
                self.sent += _AT_ONCE
                await asyncio.sleep(_AT_ONCE / rate)
            await connection.close()

        def run() -> None:
            try:
                asyncio.run(send())
            except BaseException as error:  # it is raised where the test sees it
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failures:
            raise failures[0]

    def missing_and_strange(self) -> tuple[set[object], set[object]]:
        """Compare the store and the dead letters with what the mapping makes of the whole log."""
        mapping = parse_mapping(MAPPING)
        assert isinstance(mapping, WriterMapping)
        messages = [message for number in range(self.partitions) for message in self._read(number)]
        assert len(messages) == self.sent
        made = mapping.plan(dialect="v2", precision="ns").render(messages)
        expected: set[object] = {*made.lines, *(messages[each.index].payload for each in made.failures)}
        kept = {
            letter.message.payload
            for member in self.members
            if (place := member.folder / "dead-letters" / "kilns").exists()
            for letter in read_dead_letters(place)
        }
        found: set[object] = {*self.sim.dump(), *kept}
        return expected - found, found - expected

    def _read(self, number: int) -> Sequence[Message]:
        async def read() -> list[Message]:
            connection, found = Connection(self.server.settings()), list[Message]()
            await connection.open()
            reader = ConsumerId("single", "witness")
            while batch := await connection.poll(reader, Partition(*PLACE, number), ("offset", len(found)), 1000):
                found += batch
            await connection.close()
            return found

        return asyncio.run(read())


@contextmanager
def site(folder: Path, *, partitions: int, **variables: str) -> Iterator[Site]:
    """Make a network with Iggy and InfluxDB; remove it in any case.  `variables` are those of iggy-server."""
    with Network() as network, SimServer(2, host=network.here) as sim:
        iggy = network.host("iggy")
        tcp, http = f"{iggy.address}:8090", f"http://{iggy.address}:3000"
        server = IggyServer(tcp, http, folder, extra=variables, inside=iggy.command())
        try:
            server.start()
            server.create_topic(*PLACE, partitions)
            made = Site(network, server, sim, folder, partitions)
            try:
                yield made
            finally:
                for member in made.members:
                    member.power_off()
        finally:
            server.close()
