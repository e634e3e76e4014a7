"""Topics of Apache Iggy as a source, for groups and single consumers; offsets are stored only by `ack`.

How it keeps the guarantee:

- It polls by offset, from its own position in memory.  In a group, once everything read of a partition is settled, it
  polls by `next` instead.  Then a partition that was away and came back continues where the other members stopped.
- The server assigns a partition of a group to one member at a time.  A poll of another member's partition is empty, and
  storing an offset there is rejected.  Then the source forgets the partition, never acknowledges its work in flight,
  and starts again at the stored offset.  The server hands a partition over when all polled messages are stored.
- A server that lost messages, or a topic that was purged or created again, gives their offsets to other messages.  So
  the last message that was read of a partition is looked up after connecting.  If another one has its offset, or none
  has, everything is read again.  A log that ends before what was read ends the connection.
- A stored offset 0 is trusted only where this process acknowledged it, since a server that lost its log reports 0 for
  every stored offset: else message 0 is read again.  After a stored offset beyond the end of a log, all of it is.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from iggyflux.errors import EndOfInput, NotConnected, Stopped, closest, listed
from iggyflux.pipeline import IggySettings, Start
from iggyflux.records import Batch, Message, Partition, Position, payload_bytes
from iggyflux.transports.base import GroupState
from iggyflux.transports.iggy.connection import At, Connection, ConsumerId, PartitionInfo, address_of
from iggyflux.transports.iggy.errors import CallFailed, Meaning
from iggyflux.transports.iggy.member import GroupMember, ReadProgress
from iggyflux.transports.share import ALONE, Share

_DISCOVER_SECONDS = 5.0
_MOST_REST_SECONDS = 1.0  # a longer `read` would look like a server that does not answer
_FIRST_COUNT = 1000  # messages in a poll until their size is known
_POLLS_OF_OTHERS = 20.0  # a second, of partitions that other members hold: in case the last look is old
_MOST_PARTITIONS_ASKED = 32  # for the lag of a group, whose other members store offsets too

log = logging.getLogger("iggyflux.iggy")


@dataclass(slots=True)
class _Cursor:
    """The read state of a partition."""

    place: Partition
    end: int
    average_bytes: float = 0.0
    at: At | None = None
    """Where the next poll begins; None if that is unknown: then ask for the stored offset."""
    position: int = 0
    """The next expected offset."""
    begin: int = 0
    """The first expected offset, if nothing was stored."""
    settled: int = -1
    """The stored offset, as far as known."""
    stop: int | None = None
    """The offset to stop before."""
    not_before: float = 0.0
    came_empty: bool = False
    """Whether the last poll returned nothing."""
    most: int | None = None
    """The limit for polls after one that failed."""

    @property
    def is_at_stop(self) -> bool:
        return self.stop is not None and self.position >= self.stop

    def until_stop(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return those of `messages` that are before the stop."""
        if self.stop is None or not messages or messages[-1].offset < self.stop:
            return messages
        return [message for message in messages if message.offset < self.stop]

    def advance(self, messages: Sequence[Message]) -> None:
        """Move behind `messages`."""
        if self.at is not None and self.at[0] != "offset":
            self.begin = messages[0].offset
        self.position = messages[-1].offset + 1
        self.at = ("offset", self.position)
        self.average_bytes = max(payload_bytes(messages) / len(messages), self.average_bytes * 0.9)


class IggySource:
    """A `Source` on topics of one stream, by names and globs.

    `partitions` selects the partitions of a single consumer, and `share` those of them that this process reads.
    Without `until_end` new topics and partitions are found as they appear.  With it, `read` raises `EndOfInput` when
    this or another member has read all messages that existed at `connect`.
    """

    def __init__(
        self,
        settings: IggySettings,
        stream: str,
        topics: Sequence[str],
        *,
        consumer: ConsumerId,
        partitions: Sequence[int] | None = None,
        start: Start = Start(),  # noqa: B008  # frozen
        until_end: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        connection: Callable[[IggySettings], Connection] = Connection,
        exclusive: bool = False,
        remedy: str = "iggyflux regroup PIPELINE --mapping NAME",
        share: Share = ALONE,
    ) -> None:
        self.settings = settings
        self._stream = stream
        self._wanted = tuple(topics)
        self.consumer = consumer
        self._only = None if partitions is None else frozenset(partitions)
        self._share = share
        self._start = start
        self._until_end = until_end
        self._now = monotonic
        self._new_connection = connection
        self._connection: Connection | None = None
        self._cursors: dict[Partition, _Cursor] = {}
        self._ends: dict[Partition, int] = {}  # of all partitions, also of those that this process does not read
        self._turns: list[_Cursor] = []
        self._discover_at = 0.0
        is_member = consumer.kind == "group"
        member = GroupMember(stream, consumer.name, exclusive=exclusive, evens=not until_end, remedy=remedy)
        self._member = member if is_member else None
        self._was_connected = False
        self._knows_topics = False
        self._largest_polls: dict[Partition, int] = {}
        self._begins: dict[Partition, tuple[At, int]] = {}  # without a stored offset: the same after reconnecting
        self._last_read: dict[Partition, tuple[int, int]] = {}  # offset and time of arrival, of earlier connections too
        self._acknowledged: dict[Partition, int] = {}  # of earlier connections too
        self._distrusted: set[Partition] = set()  # the log changed: the stored offset is old until another is stored

    @property
    def server(self) -> str:
        """The address of the server, without credentials."""
        return address_of(self.settings)

    @property
    def about(self) -> str:
        """A description for people."""
        who = f"{self.consumer.kind} {self.consumer.name}"
        return f"{self._stream}/{','.join(self._wanted)} of {address_of(self.settings)}, {who}"

    @property
    def waiting_for(self) -> str | None:
        """Why no messages come though some wait, if that is so."""
        return self._member.waiting_for if self._member else None

    @property
    def groups(self) -> Sequence[GroupState]:
        """As `Grouped.groups`."""
        return self._member.states if self._member else ()

    async def connect(self) -> None:
        """As `Source.connect`.  Raise `Stopped` (IFX766) if a named stream or topic does not exist."""
        await self._let_go()
        self._connection = self._new_connection(self.settings)
        await self._connection.open()
        await self._discover()
        if self._until_end:
            for cursor in self._cursors.values():
                cursor.stop = cursor.end
        self._was_connected = True

    async def read(self) -> Batch | None:
        """As `Source.read`.  If there are no messages, it waits up to `poll_interval`."""
        connection = self._connected
        await self._look_around(connection)
        now = self._now()
        for _ in range(len(self._turns)):
            cursor = self._turns.pop(0)
            self._turns.append(cursor)
            if now < cursor.not_before or cursor.is_at_stop:
                continue
            if messages := await self._poll(connection, cursor):
                return Batch(cursor.place, messages)
            cursor.not_before = self._now() + self._pause(cursor)
        if self._until_end and all(cursor.is_at_stop for cursor in self._turns):
            raise EndOfInput("the end of the topics is reached")
        await self._rest()
        return None

    async def ack(self, positions: Sequence[Position]) -> None:
        """As `Source.ack`.  Drop a partition that was reassigned: another member reads its messages."""
        connection = self._connected
        for position in positions:
            cursor = self._cursors.get(position.partition)
            if cursor is None:
                continue
            if position.offset <= cursor.settled:  # message 0, read again
                self._acknowledged[position.partition] = cursor.settled
                continue
            try:
                async with self._member.storing if self._member else nullcontext():
                    await connection.store(self.consumer, position.partition, position.offset)
            except CallFailed as failure:
                if failure.meaning is not Meaning.NOT_OWNER:
                    raise
                log.info("iggy.partition_lost partition=%s offset=%d", position.partition, position.offset)
                cursor.at = None
            else:
                cursor.settled = self._acknowledged[position.partition] = position.offset
                self._distrusted.discard(position.partition)

    async def lag(self) -> dict[Partition, int]:
        """Return how many messages of each partition are not settled yet; with `until_end`, of those before the end."""
        connection, found = self._connected, {}
        shared = self.consumer.kind == "group" and len(self._cursors) <= _MOST_PARTITIONS_ASKED
        for topic in dict.fromkeys(cursor.place.topic for cursor in self._turns):
            for info in await connection.partitions(self._stream, topic) or []:
                cursor = self._cursors.get(Partition(self._stream, topic, info.number))
                if cursor is None:
                    continue
                cursor.end = info.end
                end = info.end if cursor.stop is None else min(info.end, cursor.stop)
                settled = cursor.settled
                asks = shared and end and cursor.place not in self._distrusted
                if asks and (stored := await connection.stored(self.consumer, cursor.place)):
                    settled = stored.stored
                begin = settled + 1 if settled >= 0 else min(cursor.begin, end)
                found[cursor.place] = max(min(end - begin, info.messages), 0)
        return found

    async def replaced(self, read: Mapping[Partition, tuple[int, int]]) -> list[Partition]:
        """As `Comparing.replaced`: one request for each partition of `read` that is one of the source."""
        connection = self._connected
        ends = self._ends | {place: cursor.end for place, cursor in self._cursors.items()}
        known = {place: each for place, each in read.items() if place in ends}
        return [place for place, each in known.items() if not await self._has(connection, place, ends[place], *each)]

    async def close(self) -> None:
        """As `Source.close`: this member leaves its groups at once."""
        await self._let_go()

    async def places(self) -> list[tuple[str, str]]:
        """Return the selected topics, without joining a group."""
        connection = self._new_connection(self.settings)
        self._connection = connection
        try:
            await connection.open()
            return [(self._stream, topic) for topic in await self._matching(connection)]
        finally:
            await self._let_go()

    # Topics and partitions

    @property
    def _connected(self) -> Connection:
        if self._connection is None:
            raise NotConnected("not connected to Iggy")
        return self._connection

    async def _let_go(self) -> None:
        if self._member:
            await self._member.finish()
            self._member.begin(self._now())
        connection, self._connection = self._connection, None
        self._cursors.clear()
        self._turns.clear()
        self._ends.clear()
        if connection is not None:
            await connection.close()

    async def _discover(self) -> None:
        """Find topics and partitions that are not known yet."""
        connection = self._connected
        for topic in await self._matching(connection):
            infos = await connection.partitions(self._stream, topic)
            if infos is None:
                raise self._missing("topic", f"{self._stream}/{topic}", [])
            self._ends.update((Partition(self._stream, topic, info.number), info.end) for info in infos)
            new = [info for info in infos if Partition(self._stream, topic, info.number) not in self._cursors]
            if new and len(new) == len(infos) and self.consumer.kind == "group":
                await connection.join(self._stream, topic, self.consumer.name)
            for info in infos:
                cursor = self._cursors.get(Partition(self._stream, topic, info.number))
                if cursor is not None and info.end <= max(
                    cursor.settled, self._last_read.get(cursor.place, (-1, 0))[0]
                ):
                    raise NotConnected(f"{cursor.place} ends at {info.end}, before what was read: it was emptied")
            for info in new:
                place = Partition(self._stream, topic, info.number)
                if self._share.has(place, self._only):
                    self._take_up(place, info)
        self._knows_topics = True
        self._discover_at = self._now() + _DISCOVER_SECONDS  # after the end: a slow server must have time for polls

    async def _matching(self, connection: Connection) -> list[str]:
        known = await connection.topics(self._stream)
        if known is None:
            raise self._missing("stream", self._stream, await connection.streams())
        for wanted in self._wanted:
            if not any(character in wanted for character in "*?[") and wanted not in known:
                others = [f"{self._stream}/{topic}" for topic in known]
                raise self._missing("topic", f"{self._stream}/{wanted}", others)
        return [topic for topic in known if any(fnmatch.fnmatchcase(topic, wanted) for wanted in self._wanted)]

    def _missing(self, kind: str, name: str, known: Sequence[str]) -> Exception:
        """Return `Stopped` for a name that never existed, which may be misspelt; `NotConnected` for one that did."""
        if self._was_connected:
            return NotConnected(f"the {kind} {name} was deleted from Iggy")
        near = closest(name, known)
        hint = f"did you mean {near}?" if near else f"create it, or correct `from.{kind}` in the mapping"
        if known and [near] != list(known):
            hint += f"; existing: {listed(known, name)}"
        return Stopped(f"Iggy has no {kind} {name}", hint, "IFX766")

    def _take_up(self, place: Partition, info: PartitionInfo) -> None:
        average = info.size / info.messages if info.messages else 0.0
        cursor = _Cursor(place, info.end, average, most=self._largest_polls.get(place))
        if place not in self._begins:  # a partition that appears during the run is read from its first message
            start = Start() if self._knows_topics else self._start
            self._begins[place] = _STARTS[start.kind](info.end, start.value)
        self._cursors[place] = cursor
        self._turns.append(cursor)

    # Reading

    async def _poll(self, connection: Connection, cursor: _Cursor) -> Sequence[Message]:
        """Return the next messages of a partition and advance its cursor."""
        try:
            if cursor.at is None:
                await self._begin(connection, cursor)
            if cursor.at is None or cursor.is_at_stop:
                return []
            at = self._where(cursor)
            messages = await connection.poll(self.consumer, cursor.place, at, self._count(cursor))
        except CallFailed:
            self._largest_polls[cursor.place] = max((cursor.most or self._count(cursor)) // 2, 1)
            raise
        messages = cursor.until_stop(messages)
        cursor.came_empty = not messages
        if not messages:
            await self._handle_empty_poll(connection, cursor)
            return messages
        first = messages[0].offset
        if at[0] == "next" and first < cursor.position:
            raise NotConnected(f"{cursor.place} continues at {first}, before {cursor.position}")
        if at[0] == "offset" and first > cursor.position:
            log.warning("iggy.messages_gone partition=%s from=%d to=%d", cursor.place, cursor.position, first - 1)
        cursor.advance(messages)
        self._last_read[cursor.place] = (messages[-1].offset, messages[-1].timestamp_us)
        if cursor.most is not None:
            cursor.most = None if cursor.most >= self.settings.batch_size else cursor.most * 2
            self._largest_polls.pop(cursor.place, None)
        return messages

    async def _handle_empty_poll(self, connection: Connection, cursor: _Cursor) -> None:
        if self._until_end:
            await self._judge_emptiness(connection, cursor)
        is_settled = cursor.position in (cursor.begin, self._acknowledged.get(cursor.place, -1) + 1)
        if self.consumer.kind == "group" and cursor.settled < 1 and is_settled:
            cursor.at = None  # another member may have it; ask for the stored offset when it is assigned again

    async def _begin(self, connection: Connection, cursor: _Cursor) -> None:
        """Find where to begin in a partition: after the stored offset, else where the pipeline says."""
        try:
            stored = await connection.stored(self.consumer, cursor.place)
        except CallFailed as failure:
            if failure.meaning is Meaning.NOT_OWNER:
                return
            raise
        if stored is not None and stored.last:
            cursor.end = stored.last + 1
        elif cursor.place in self._last_read:  # 0 is the last offset of an empty partition too
            infos = await connection.partitions(self._stream, cursor.place.topic) or []
            cursor.end = next((info.end for info in infos if info.number == cursor.place.partition), 0)
        if not await self._is_same_log(connection, cursor):
            offset, _ = self._last_read.pop(cursor.place)
            log.warning("iggy.log_replaced partition=%s last_read=%d", cursor.place, offset)
            self._distrusted.add(cursor.place)
        elif stored is not None and stored.stored > stored.last and cursor.place not in self._distrusted:
            log.warning("iggy.log_shrunk partition=%s stored=%d last=%d", cursor.place, stored.stored, stored.last)
            self._distrusted.add(cursor.place)
        if cursor.place in self._distrusted:
            self._acknowledged.pop(cursor.place, None)
            cursor.settled, cursor.at, cursor.position = -1, ("first", 0), 0
        elif stored is None:
            cursor.settled = -1
            cursor.at, cursor.position = self._begins[cursor.place]
        else:
            is_trusted = stored.stored > 0 or self._acknowledged.get(cursor.place) == stored.stored
            cursor.settled = stored.stored if is_trusted else -1
            begin = stored.stored + 1 if is_trusted else 0
            cursor.at, cursor.position = ("offset", begin), begin
        cursor.begin = cursor.position

    async def _is_same_log(self, connection: Connection, cursor: _Cursor) -> bool:
        """Return whether the last message that was read has its offset still."""
        read = self._last_read.get(cursor.place)
        return read is None or await self._has(connection, cursor.place, cursor.end, *read)

    async def _has(self, connection: Connection, place: Partition, end: int, offset: int, timestamp_us: int) -> bool:
        """Return whether the message that arrived at `timestamp_us` has its offset still, or has expired.

        Asked as a single consumer: a member of a group that does not hold the partition is shown no message of it.
        """
        if end <= offset:
            return False
        reader = ConsumerId("single", self.consumer.name)
        for message in await connection.poll(reader, place, ("offset", offset), 1):
            return message.offset > offset or message.timestamp_us == timestamp_us  # else it has expired
        return False  # there is nothing at the offset, nor after it

    def _where(self, cursor: _Cursor) -> At:
        """Return `next` if the server's offset is ours, so that a hand-over in between is noticed; else an offset."""
        at = cursor.at or ("next", 0)
        if self.consumer.kind == "group" and at[0] == "offset" and 0 < cursor.settled == at[1] - 1:
            return ("next", 0)
        return at

    def _count(self, cursor: _Cursor) -> int:
        settings = self.settings
        fitting = int(settings.batch_bytes / cursor.average_bytes) if cursor.average_bytes else _FIRST_COUNT
        count = max(min(settings.batch_size, fitting, cursor.most or settings.batch_size), 1)
        if cursor.stop is not None and cursor.at is not None and cursor.at[0] == "offset":
            count = max(min(count, cursor.stop - cursor.position), 1)
        return count

    async def _judge_emptiness(self, connection: Connection, cursor: _Cursor) -> None:
        """Handle an empty poll before the end: other members read the messages, or they are gone."""
        if self.consumer.kind == "group":
            place = cursor.place
            members = await connection.members(place.stream, place.topic, self.consumer.name)
            if len(members) > 1:
                stored = await connection.stored(self.consumer, place)
                if cursor.stop and (stored is None or stored.stored + 1 < cursor.stop):
                    return
        cursor.position = max(cursor.position, cursor.stop or 0)

    # While there is nothing to read

    def _pause(self, cursor: _Cursor) -> float:
        """Return the seconds until a partition that was empty is polled again.

        A hundred members that poll all of each other's partitions would be all that the server does.
        """
        seconds = self.settings.poll_interval_seconds
        if self._member and self._member.is_of_others(cursor.place):
            return max(seconds, len(self._turns) / _POLLS_OF_OTHERS)
        return seconds

    async def _rest(self) -> None:
        """Wait until the first partition may be polled again."""
        due = [cursor.not_before for cursor in self._turns if not cursor.is_at_stop]
        seconds = min(due, default=self._now() + self.settings.poll_interval_seconds) - self._now()
        if seconds > 0:
            await asyncio.sleep(min(seconds, self.settings.poll_interval_seconds, _MOST_REST_SECONDS))

    async def _look_around(self, connection: Connection) -> None:
        """Do what is due, even while messages come: they may come from some of the partitions only."""
        now = self._now()
        if now >= self._discover_at and not self._until_end:
            await self._discover()
        if self._member and self._member.is_due(now):
            readings = [self._reading(cursor) for cursor in self._turns]
            if await self._member.look(connection, self._now, readings, self._keep):
                for cursor in self._turns:
                    if cursor.position == cursor.begin or cursor.settled == cursor.position - 1:
                        cursor.at = None
            for cursor in self._turns:
                if not self._member.is_of_others(cursor.place):
                    cursor.not_before = min(cursor.not_before, now + self.settings.poll_interval_seconds)

    def _reading(self, cursor: _Cursor) -> ReadProgress:
        came_empty, cursor.came_empty = cursor.came_empty, False
        counts_from = 0 if self._start.kind == "first" else None
        trusts_stored = cursor.place not in self._distrusted
        return ReadProgress(cursor.place, cursor.position, came_empty, counts_from, trusts_stored)

    def _keep(self, offsets: Mapping[Partition, int]) -> None:
        """Begin at these offsets if nothing is stored: an interrupted rebuild loses the stored offsets."""
        for place, offset in offsets.items():
            begin = offset + 1 if offset else 0
            self._begins[place] = (("offset", begin), begin)


_STARTS: dict[str, Callable[[int, int], tuple[At, int]]] = {
    "first": lambda _end, _value: (("first", 0), 0),
    "last": lambda end, _value: (("offset", end), end),
    "offset": lambda _end, value: (("offset", value), value),
    "timestamp": lambda _end, value: (("timestamp", value), 0),
}
