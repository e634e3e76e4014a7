"""Consumer groups of Iggy in memory, as the client of the SDK shows them: members, rebalances, and ghosts.

The rules are those of server 0.9 (`core/metadata/src/stm/consumer_group.rs`), the answers those of a real one:

| what happens              | what the server does                                                                     |
|---------------------------|------------------------------------------------------------------------------------------|
| a client joins            | it gets the lowest free number; partitions without an owner go to members with none,     |
|                           | then what is more than a fair share moves: at once if all that was polled is stored,     |
|                           | else when it is stored, or after 30 s                                                    |
| a client leaves or dies   | all partitions are assigned again, in turn                                               |
| the server is killed      | every connection ends; its members stay in their groups as ghosts, with their partitions |
| a group is deleted        | members and offsets are gone; a former member polls nothing, without an error            |
| a non-member polls        | an empty list where the client was a member, an error where it never was                 |
| a non-member stores       | "Resource with key:  was not found."                                                     |
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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


class FakeGroups:
    """A server with one topic, `s/t`; `connection` makes connections to it."""

    def __init__(self, partitions: int, *, tells_clients: bool = True) -> None:
        self.partitions = [Partition() for _ in range(partitions)]
        self.groups: dict[str, Group] = {}
        self.clients: dict[int, FakeClient] = {}
        self.now = 0.0
        self.tells_clients = tells_clients
        self.ids = iter(range(1, 1_000_000))
        self.fail_next: str | None = None
        """The name of a call that ends the connection when it is made next."""

    @property
    def numbers(self) -> range:
        return range(len(self.partitions))

    def settings(self, **more: Any) -> IggySettings:
        given = {"username": "iggy", "password": Secret("x"), "poll_interval_seconds": 0.0}
        return IggySettings(**{**given, **more})

    def connection(self, settings: IggySettings) -> Connection:
        return Connection(settings, client=lambda _: FakeClient(self))

    def monotonic(self) -> float:
        return self.now

    def send(self, partition: int, count: int = 1) -> None:
        place = self.partitions[partition]
        for _ in range(count):
            payload = b64encode(b"%d" % place.end).decode()
            place.messages.append({"offset": place.end, "payload": payload})

    def kill(self) -> None:
        """As kill -9 and a start: all connections end, and no member leaves a group."""
        for client in self.clients.values():
            client.is_alive = False
        self.clients.clear()

    def make_ghost(self, client: FakeClient) -> None:
        """End a connection without the server noticing: its member stays."""
        client.is_alive = False
        self.clients.pop(client.number)

    def disconnect(self, client: FakeClient) -> None:
        """End a client: the server notices, and assigns its partitions again."""
        client.is_alive = False
        self.clients.pop(client.number, None)
        for group in self.groups.values():
            number = group.number_of(client.number)
            if number is not None:
                del group.members[number]
                group.deal(self.numbers)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for group in self.groups.values():
            group.hand_over(self.numbers, self.now)

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
        self.was_member: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in _CALLS:
            server: FakeGroups = self.server
            if server.fail_next == name:
                server.fail_next = None
                server.disconnect(self)
            if not self.is_alive:
                return _fail_with("Disconnected")
        return super().__getattribute__(name)

    async def connect(self) -> None:
        self.number = next(self.server.ids)
        self.server.clients[self.number] = self

    async def logout_user(self) -> None:
        self.server.disconnect(self)

    async def get_stream(self, _stream: str) -> Any:
        return SimpleNamespace(id=7)

    async def get_topics(self, _stream: str) -> Any:
        return [SimpleNamespace(name=TOPIC)]

    async def get_topic(self, _stream: str, _topic: str) -> Any:
        partitions = [
            SimpleNamespace(id=number, current_offset=max(each.end - 1, 0), messages_count=len(each.messages), size=100)
            for number, each in enumerate(self.server.partitions)
        ]
        return SimpleNamespace(id=8, partitions=partitions)

    async def consumer_group(self, name: str, _stream: str, _topic: str, **_: Any) -> Any:
        number = len(self.server.groups) + next(self.server.ids)
        group = self.server.groups.setdefault(name, Group(number))
        group.join(self.number, self.server.numbers, self.server.now)
        self.was_member.add(name)
        return SimpleNamespace(store_offset=lambda offset, partition: self.store_offset(name, offset, partition))

    async def leave_consumer_group(self, _stream: str, _topic: str, name: str) -> None:
        group = self.server.groups.get(name)
        number = group.number_of(self.number) if group else None
        if group is None or number is None:
            raise RuntimeError("Consumer group member with client ID: 0 for group with ID: 0 was not found.")
        del group.members[number]
        group.deal(self.server.numbers)

    async def get_consumer_group(self, _stream: str, _topic: str, name: str) -> Any:
        group = self.server.groups.get(name)
        if group is None:
            return None
        members = [SimpleNamespace(id=number, partitions=each.partitions) for number, each in group.members.items()]
        return SimpleNamespace(id=group.number, members=members)

    async def delete_consumer_group(self, _stream: str, _topic: str, name: str) -> None:
        if self.server.groups.pop(name, None) is None:
            raise RuntimeError("Consumer group was not found.")

    async def store_offset(self, name: str, offset: int, partition: int) -> None:
        if not self.is_alive:
            raise RuntimeError("Disconnected")
        group = self.server.groups.get(name)
        number = group.number_of(self.number) if group else None
        if group is None or number is None or partition not in group.members[number].partitions:
            raise RuntimeError("Resource with key:  was not found.")
        group.stored[partition] = offset

    async def poll_messages(
        self, _stream: str, _topic: str, *, partition_id: int, polling_strategy: Any, count: int, **_: Any
    ) -> Sequence[Any]:
        (name,) = self.was_member
        group, place = self.server.groups.get(name), self.server.partitions[partition_id]
        number = group.number_of(self.number) if group else None
        if group is None or number is None:
            return []
        member = group.members[number]
        if partition_id not in member.partitions or partition_id in member.leaving:
            return []
        kinds = sdk.PollingStrategy
        if isinstance(polling_strategy, kinds.Offset):
            begin = polling_strategy.value
        else:
            begin = group.stored.get(partition_id, -1) + 1 if isinstance(polling_strategy, kinds.Next) else 0
        found = place.messages[begin : begin + count]
        if found:
            group.polled[partition_id] = max(found[-1]["offset"], group.polled.get(partition_id, -1))
        return [Polled(each["offset"]) for each in found]

    async def send_binary_request(self, code: int, body: bytes) -> bytes:
        return _BINARY[code](self, body)

    # The binary protocol

    def _offset(self, body: bytes) -> bytes:
        name = next(_names(body[1:]))
        partition = struct.unpack_from("<I", body, len(body) - 4)[0]
        group = self.server.groups.get(name)
        if group is None or partition not in group.stored:
            return b""
        return struct.pack("<IQQ", partition, self.server.partitions[partition].end - 1, group.stored[partition])

    def _assignment(self, body: bytes) -> bytes:
        group = self.server.groups.get(list(_names(body))[2])
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
        groups = [each for each in self.server.groups.values() if each.number_of(number) is not None]
        return self._client(number) + b"".join(struct.pack("<III", 7, 8, each.number) for each in groups)

    def _client(self, number: int) -> bytes:
        groups = sum(each.number_of(number) is not None for each in self.server.groups.values())
        address = b"127.0.0.1:5"
        return struct.pack("<IIBI", number, 0, 1, len(address)) + address + struct.pack("<I", groups)


_CALLS = frozenset(
    {
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
    }
)
_BINARY: dict[int, Callable[[FakeClient, bytes], bytes]] = {
    21: FakeClient._one_client,
    22: FakeClient._clients,
    120: FakeClient._offset,
    606: FakeClient._assignment,
}


@dataclass(frozen=True)
class Polled:
    """A message as the SDK returns it."""

    number: int

    def payload(self) -> bytes:
        return b"%d" % self.number

    def offset(self) -> int:
        return self.number

    def timestamp(self) -> int:
        return 1_700_000_000_000_000 + self.number

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


def _fail_with(text: str) -> Callable[..., Any]:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(text)

    return fail
