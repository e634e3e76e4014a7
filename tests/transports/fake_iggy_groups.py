"""Topics, groups and single consumers of Iggy in memory, as the client of the SDK shows them; ghosts and other faults.

The rules are those of server 0.9 (`core/metadata/src/stm/consumer_group.rs`), the answers those of a real one:

| what happens              | what the server does                                                                     |
|---------------------------|------------------------------------------------------------------------------------------|
| a client joins            | it gets the lowest free number; partitions without an owner go to members with none,     |
|                           | then what is more than a fair share moves: at once if all that was polled is stored,     |
|                           | else when it is stored, or after 30 s                                                    |
| a client leaves or dies   | all partitions are assigned again, in turn                                               |
| the server is killed      | every connection ends; its members stay in their groups as ghosts, with their partitions |
| the server is stopped     | every connection ends; its members are gone at the next start                            |
| the server hangs          | no call is answered; those that wait are made when it goes on, also by who gave up       |
| the tail of a log is lost | new messages get the offsets of the lost ones; stored offsets stay, or become 0          |
| a topic is purged         | its messages and stored offsets are gone, connections stay; offsets begin at 0           |
| a topic is deleted        | the same; calls fail until it is created again, and its groups are gone                  |
| a group is deleted        | members and offsets are gone; a former member polls nothing, without an error            |
| a non-member polls        | an empty list where the client was a member, an error where it never was                 |
| a non-member stores       | "Resource with key:  was not found."                                                     |
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import apache_iggy as sdk

from iggyflux.pipeline import IggySettings, Secret
from iggyflux.transports.iggy.connection import Connection
from tests.transports.fake_iggy import Partition

STREAM, TOPIC = "s", "t"
_HANDOVER_SECONDS = 30.0


@dataclass
class Member:
    client: int
    partitions: list[int] = field(default_factory=list)
    leaving: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Partitions that are to go to another member, and since when."""


@dataclass
class Group:
    number: int
    members: dict[int, Member] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    polled: dict[int, int] = field(default_factory=dict)
    generation: int = 0

    def number_of(self, client: int) -> int | None:
        return next((number for number, member in self.members.items() if member.client == client), None)

    def deal(self, partitions: range) -> None:
        self.generation += 1
        numbers = sorted(self.members)
        for number in numbers:
            self.members[number].partitions = list(partitions)[numbers.index(number) :: len(numbers)]
            self.members[number].leaving.clear()

    def join(self, client: int, partitions: range, now: float) -> None:
        if self.number_of(client) is not None:
            return
        self.generation += 1
        number = next(each for each in range(len(self.members) + 1) if each not in self.members)
        self.members[number] = Member(client)
        self.members = dict(sorted(self.members.items()))
        owned = {each for member in self.members.values() for each in member.partitions}
        idle = [each for each in self.members.values() if not each.partitions]
        for index, partition in enumerate(each for each in partitions if each not in owned):
            idle[index % len(idle)].partitions.append(partition)
        self._shed(partitions, now)

    def _shed(self, partitions: range, now: float) -> None:
        targets = {target for member in self.members.values() for target, _ in member.leaving.values()}
        idle = [each for each, member in self.members.items() if not member.partitions and each not in targets]
        if not idle:
            return
        fair, more = divmod(len(partitions), len(self.members))
        excess: list[tuple[int, int]] = []
        for number, member in self.members.items():
            kept = [each for each in member.partitions if each not in member.leaving]
            allowed = fair + (more > 0)
            more -= more > 0 and len(kept) > fair
            excess += [(each, number) for each in kept[allowed:][::-1]]
        for index, (partition, source) in enumerate(excess):
            target = idle[index % len(idle)]
            if self.polled.get(partition, -1) > self.stored.get(partition, -1):
                self.members[source].leaving[partition] = (target, now)
            else:
                self.members[source].partitions.remove(partition)
                self.members[target].partitions.append(partition)

    def hand_over(self, partitions: range, now: float) -> None:
        """Move partitions that are drained, or waited too long."""
        for member in list(self.members.values()):
            for partition, (target, since) in list(member.leaving.items()):
                drained = self.polled.get(partition, -1) <= self.stored.get(partition, -1)
                if not drained and now < since + _HANDOVER_SECONDS:
                    continue
                del member.leaving[partition]
                member.partitions.remove(partition)
                self.generation += 1
                if target in self.members:
                    self.members[target].partitions.append(partition)
                else:
                    self.deal(partitions)


@dataclass
class Topic:
    """A topic: `Partition.offsets` has what single consumers stored, a group what its members stored."""

    number: int
    partitions: list[Partition]
    groups: dict[str, Group] = field(default_factory=dict)

    @property
    def numbers(self) -> range:
        return range(len(self.partitions))


class FakeGroups:
    """A server with the stream `s`; `connection` makes connections to it.

    `partitions`, `groups`, `numbers` and the methods without `topic` are those of the first topic.
    """

    def __init__(self, partitions: int, *, topics: Sequence[str] = (TOPIC,), tells_clients: bool = True) -> None:
        self.ids = iter(range(1, 1_000_000))
        self.topics: dict[str, Topic] = {}
        self.first = topics[0]
        for topic in topics:
            self.create(topic, partitions)
        self.clients: dict[int, FakeClient] = {}
        self.now = 0.0
        self.clock_us = 1_700_000_000_000_000
        self.tells_clients = tells_clients
        self.fail_next: str | None = None
        """The name of a call that ends the connection when it is made next."""
        self.lose_next: str | None = None
        """The name of a call that is made, and whose answer is lost with the connection."""
        self.broken: list[FakeClient] = []
        """The clients whose connection ended by one of these."""
        self.is_up = True
        self.awake = asyncio.Event()
        """Clear it to make the server hang."""
        self.awake.set()
        self.on_poll: Callable[[str, str, int, Sequence[Polled]], None] = lambda *_: None
        """Called with a consumer, topic, partition and what it polled."""
        self.on_store: Callable[[str, str, int, int], None] = lambda *_: None
        """Called with a consumer, topic, partition and the offset that it stored."""

    @property
    def partitions(self) -> list[Partition]:
        return self.topics[self.first].partitions

    @property
    def groups(self) -> dict[str, Group]:
        return self.topics[self.first].groups

    @property
    def numbers(self) -> range:
        return self.topics[self.first].numbers

    def create(self, topic: str, partitions: int) -> None:
        self.topics[topic] = Topic(7 + next(self.ids), [Partition() for _ in range(partitions)])

    def settings(self, **more: Any) -> IggySettings:
        given = {"username": "iggy", "password": Secret("x"), "poll_interval_seconds": 0.0}
        return IggySettings(**{**given, **more})

    def connection(self, settings: IggySettings) -> Connection:
        return Connection(settings, client=lambda _: FakeClient(self))

    def monotonic(self) -> float:
        return self.now

    def send(self, partition: int, count: int = 1) -> None:
        end = self.partitions[partition].end
        self.append(self.first, partition, [b"%d" % offset for offset in range(end, end + count)])

    def append(self, topic: str, partition: int, payloads: Sequence[bytes]) -> None:
        place = self.topics[topic].partitions[partition]
        for payload in payloads:
            self.clock_us += 1
            place.messages.append({"offset": place.end, "payload": payload, "timestamp": self.clock_us})

    def kill(self) -> None:
        """As kill -9 and a start: all connections end, and no member leaves a group."""
        for client in self.clients.values():
            client.is_alive = False
        self.clients.clear()

    def stop(self) -> None:
        """As an orderly stop and a start: all connections end, and all members are gone."""
        self.kill()
        self.bury_ghosts()

    def bury_ghosts(self) -> None:
        """Remove the members without a connection, and assign their partitions again."""
        for topic in self.topics.values():
            for group in topic.groups.values():
                ghosts = [number for number, each in group.members.items() if each.client not in self.clients]
                for number in ghosts:
                    del group.members[number]
                if ghosts:
                    group.deal(topic.numbers)

    def lose_tail(self, topic: str, partition: int, count: int, *, zero: bool = False) -> None:
        """Lose the last messages, as a server that is killed before they were flushed."""
        found = self.topics[topic]
        place = found.partitions[partition]
        del place.messages[max(len(place.messages) - count, 0) :]
        for group in found.groups.values():
            group.polled.pop(partition, None)
            if zero and partition in group.stored:
                group.stored[partition] = 0
        if zero:
            place.offsets = dict.fromkeys(place.offsets, 0)

    def purge(self, topic: str) -> None:
        found = self.topics[topic]
        found.partitions[:] = [Partition() for _ in found.partitions]
        for group in found.groups.values():
            group.stored.clear()
            group.polled.clear()

    def make_ghost(self, client: FakeClient) -> None:
        """End a connection without the server noticing: its member stays."""
        client.is_alive = False
        self.clients.pop(client.number)

    def disconnect(self, client: FakeClient) -> None:
        """End a client: the server notices, and assigns its partitions again."""
        client.is_alive = False
        self.clients.pop(client.number, None)
        for topic in self.topics.values():
            for group in topic.groups.values():
                number = group.number_of(client.number)
                if number is not None:
                    del group.members[number]
                    group.deal(topic.numbers)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for topic in self.topics.values():
            for group in topic.groups.values():
                group.hand_over(topic.numbers, self.now)

    def live(self, group: str) -> set[int]:
        """Return the numbers of the connected members."""
        found = self.groups.get(group)
        return {number for number, each in found.members.items() if each.client in self.clients} if found else set()

    def holder(self, group: str, partition: int) -> int | None:
        found = self.groups.get(group)
        if found is None:
            return None
        return next((number for number, each in found.members.items() if partition in each.partitions), None)

    def waiting(self, group: str, partition: int) -> int:
        """Return how many messages are not settled."""
        found = self.groups.get(group)
        stored = found.stored.get(partition, -1) if found else -1
        return self.partitions[partition].end - 1 - stored


class FakeClient:
    """The part of `sdk.IggyClient` that `Connection` uses."""

    def __init__(self, server: FakeGroups) -> None:
        self.server = server
        self.number = 0
        self.is_alive = True

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(_call, self, name, found) if name in _CALLS else found

    async def connect(self) -> None:
        if not self.server.is_up:
            raise RuntimeError("Cannot establish connection")
        self.number = next(self.server.ids)
        self.server.clients[self.number] = self

    async def logout_user(self) -> None:
        self.server.disconnect(self)

    async def get_stream(self, _stream: str) -> Any:
        return SimpleNamespace(id=7)

    async def get_topics(self, _stream: str) -> Any:
        return [SimpleNamespace(name=topic) for topic in self.server.topics]

    async def get_topic(self, _stream: str, topic: str) -> Any:
        found = self.server.topics.get(topic)
        if found is None:
            return None
        partitions = [
            SimpleNamespace(id=number, current_offset=max(each.end - 1, 0), messages_count=len(each.messages), size=100)
            for number, each in enumerate(found.partitions)
        ]
        return SimpleNamespace(id=found.number, partitions=partitions)

    async def consumer_group(self, name: str, _stream: str, topic: str, **_: Any) -> Any:
        found = self._topic(topic)
        number = len(found.groups) + next(self.server.ids)
        group = found.groups.setdefault(name, Group(number))
        group.join(self.number, found.numbers, self.server.now)
        return SimpleNamespace(store_offset=lambda offset, partition: self.store_offset(name, topic, offset, partition))

    async def leave_consumer_group(self, _stream: str, topic: str, name: str) -> None:
        found = self._topic(topic)
        group = found.groups.get(name)
        number = group.number_of(self.number) if group else None
        if group is None or number is None:
            raise RuntimeError("Consumer group member with client ID: 0 for group with ID: 0 was not found.")
        del group.members[number]
        group.deal(found.numbers)

    async def get_consumer_group(self, _stream: str, topic: str, name: str) -> Any:
        found = self.server.topics.get(topic)
        group = found.groups.get(name) if found else None
        if group is None:
            return None
        members = [SimpleNamespace(id=number, partitions=each.partitions) for number, each in group.members.items()]
        return SimpleNamespace(id=group.number, members=members)

    async def delete_consumer_group(self, _stream: str, topic: str, name: str) -> None:
        if self._topic(topic).groups.pop(name, None) is None:
            raise RuntimeError("Consumer group was not found.")

    async def store_offset(self, name: str, topic: str, offset: int, partition: int) -> None:
        group = self._topic(topic).groups.get(name)
        number = group.number_of(self.number) if group else None
        if group is None or number is None or partition not in group.members[number].partitions:
            raise RuntimeError("Resource with key:  was not found.")
        self._check_offset(topic, partition, offset)
        group.stored[partition] = offset
        self.server.on_store(name, topic, partition, offset)

    async def poll_messages(
        self,
        _stream: str,
        topic: str,
        *,
        consumer: Any,
        partition_id: int,
        polling_strategy: Any,
        count: int,
        auto_commit: bool = False,
    ) -> Sequence[Any]:
        name, found = consumer.id, self._topic(topic)
        place, kinds = found.partitions[partition_id], sdk.PollingStrategy
        group = found.groups.get(name) if isinstance(consumer, sdk.Consumer.Group) else None
        if isinstance(consumer, sdk.Consumer.Group):
            number = group.number_of(self.number) if group else None
            if group is None or number is None:
                return []
            member = group.members[number]
            if partition_id not in member.partitions or partition_id in member.leaving:
                return []
        if isinstance(polling_strategy, kinds.Offset):
            begin = polling_strategy.value
        elif isinstance(polling_strategy, kinds.Next):
            begin = (group.stored.get(partition_id, -1) if group else place.offsets.get(name, -1)) + 1
        else:
            begin = 0
        chosen = place.messages[begin : begin + count]
        if chosen and group:
            group.polled[partition_id] = max(chosen[-1]["offset"], group.polled.get(partition_id, -1))
        polled = [Polled(each["offset"], each["payload"], each["timestamp"]) for each in chosen]
        if group or name not in found.groups:  # else a member looks a message up
            self.server.on_poll(name, topic, partition_id, polled)
        if auto_commit and chosen and not group:
            place.offsets[name] = chosen[-1]["offset"]
            self.server.on_store(name, topic, partition_id, chosen[-1]["offset"])
        return polled

    async def send_binary_request(self, code: int, body: bytes) -> bytes:
        return _BINARY[code](self, body)

    def _check_offset(self, topic: str, partition: int, offset: int) -> None:
        if offset >= self._topic(topic).partitions[partition].end:
            raise RuntimeError("Invalid offset: 0")

    def _topic(self, name: str) -> Topic:
        if name not in self.server.topics:
            raise RuntimeError("Topic with ID: 0 for stream with ID: 0 was not found.")
        return self.server.topics[name]

    # The binary protocol

    def _offset(self, body: bytes) -> bytes:
        name, _, topic = _names(body[1:])
        partition = struct.unpack_from("<I", body, len(body) - 4)[0]
        found = self._topic(topic)
        place = found.partitions[partition]
        if body[0] == 1:
            stored = place.offsets.get(name)
        else:
            stored = found.groups[name].stored.get(partition) if name in found.groups else None
        return b"" if stored is None else struct.pack("<IQQ", partition, max(place.end - 1, 0), stored)

    def _store(self, body: bytes) -> bytes:
        name, _, topic = _names(body[1:])
        partition, offset, _ = struct.unpack_from("<IQB", body, len(body) - 13)
        self._check_offset(topic, partition, offset)
        self._topic(topic).partitions[partition].offsets[name] = offset
        self.server.on_store(name, topic, partition, offset)
        return b""

    def _assignment(self, body: bytes) -> bytes:
        _, topic, name = _names(body)
        group = self._topic(topic).groups.get(name)
        number = group.number_of(self.number) if group else None
        if group is None or number is None:
            return b""
        held = [each for each in group.members[number].partitions if each not in group.members[number].leaving]
        return struct.pack(f"<QI{len(held)}I", group.generation, len(held), *held)

    def _clients(self, _body: bytes) -> bytes:
        if not self.server.tells_clients:
            raise RuntimeError("Unauthorized")
        return b"".join(self._client(number) for number in self.server.clients)

    def _one_client(self, body: bytes) -> bytes:
        (number,) = struct.unpack("<I", body)
        if number not in self.server.clients:
            return b""
        found = self._groups_of(number)
        return self._client(number) + b"".join(struct.pack("<III", 7, topic, group) for topic, group in found)

    def _client(self, number: int) -> bytes:
        address, groups = b"127.0.0.1:5", len(self._groups_of(number))
        return struct.pack("<IIBI", number, 0, 1, len(address)) + address + struct.pack("<I", groups)

    def _groups_of(self, client: int) -> list[tuple[int, int]]:
        """Return the numbers of the topic and the group, for each group of a client."""
        return [
            (topic.number, group.number)
            for topic in self.server.topics.values()
            for group in topic.groups.values()
            if group.number_of(client) is not None
        ]


_CALLS = frozenset(
    {
        "connect",
        "get_stream",
        "get_topics",
        "get_topic",
        "consumer_group",
        "leave_consumer_group",
        "logout_user",
        "get_consumer_group",
        "delete_consumer_group",
        "poll_messages",
        "send_binary_request",
        "store_offset",
    }
)
_BINARY: dict[int, Callable[[FakeClient, bytes], bytes]] = {
    21: FakeClient._one_client,
    22: FakeClient._clients,
    120: FakeClient._offset,
    121: FakeClient._store,
    606: FakeClient._assignment,
}


@dataclass(frozen=True)
class Polled:
    """A message as the SDK returns it."""

    number: int
    content: bytes
    time_us: int

    def payload(self) -> bytes:
        return self.content

    def offset(self) -> int:
        return self.number

    def timestamp(self) -> int:
        return self.time_us

    origin_timestamp = timestamp

    def id(self) -> int:
        return self.number + 1

    def user_headers(self) -> None:
        return None


def _names(body: bytes) -> Iterator[str]:
    while body[:1] == b"\x02":
        size = body[1]
        yield body[2 : 2 + size].decode()
        body = body[2 + size :]


async def _call(client: FakeClient, name: str, method: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
    """Make a call, or fail, as the state of the server demands."""
    server = client.server
    if server.fail_next == name:
        server.fail_next = None
        server.broken.append(client)
        server.disconnect(client)
    await server.awake.wait()
    if not client.is_alive:
        raise RuntimeError("Disconnected")
    answer = await method(*args, **named)
    if server.lose_next == name:
        server.lose_next = None
        server.broken.append(client)
        server.disconnect(client)
        raise RuntimeError("Disconnected")
    return answer
