"""Topics of Apache Iggy without a consumer: send to one, and read one without changing any offset."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from iggyflux.errors import EndOfInput, NotConnected, Stopped, listed
from iggyflux.pipeline import IggySettings
from iggyflux.records import Batch, Message, OutgoingMessage, Partition, Position
from iggyflux.transports.iggy.connection import At, Connection, ConsumerId, PartitionInfo, address_of
from iggyflux.transports.iggy.keys import by_partition
from iggyflux.transports.ranges import Bound, check_partition

_SEND_COUNT = 1000
_LOOKING = ConsumerId("single", "iggyflux-look")  # stores nothing


async def made_partitions(
    connection: Connection, settings: IggySettings, stream: str, topic: str, partitions: int = 1
) -> list[PartitionInfo]:
    """Return the partitions of a topic to send to; with `create`, make it.  Raise `Stopped` (IFX766, IFX767)."""
    infos = await connection.partitions(stream, topic)
    if infos is None and settings.create:
        await connection.create(stream, topic, partitions)
        infos = await connection.partitions(stream, topic)
    if not infos:
        hint = f"add `create: true` to the `iggy` section, or run: iggy topic create {stream} {topic} 1 none"
        raise Stopped(f"Iggy has no topic {stream}/{topic} to send to", hint, "IFX766")
    return infos


class IggySink:
    """A `MessageSink` on a topic: dead letters, or a reader's messages.

    Messages with a key go to the partition that every Iggy client chooses for it; those without go to the partitions in
    turn, batch by batch.
    """

    def __init__(
        self,
        settings: IggySettings,
        stream: str,
        topic: str,
        *,
        partitions: int = 1,
        connection: Callable[[IggySettings], Connection] = Connection,
    ) -> None:
        self._settings = settings
        self._new_connection = connection
        self._address = (stream, topic)
        self._new_partitions = partitions
        self._connection: Connection | None = None
        self._numbers: list[int] = []
        self._turn = 0

    @property
    def server(self) -> str:
        """The address of the server, without credentials."""
        return address_of(self._settings)

    @property
    def about(self) -> str:
        """A description for people."""
        return f"{'/'.join(self._address)} of {address_of(self._settings)}"

    async def connect(self) -> None:
        """As `MessageSink.connect`; with `create`, make a missing topic.  Raise `Stopped` (IFX766, IFX767)."""
        await self.close()
        connection = self._new_connection(self._settings)
        await connection.open()
        self._connection = connection
        infos = await made_partitions(connection, self._settings, *self._address, self._new_partitions)
        self._numbers = [info.number for info in infos]

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        """As `MessageSink.send`.  Raise `Stopped` (IFX775) for messages that Iggy cannot store."""
        if self._connection is None:
            raise NotConnected("not connected to Iggy")
        for message in messages:
            if message.timestamp_ns is not None:
                hint = (
                    "put the time into a header or the payload; the timestamp of a message is the time of its arrival"
                )
                raise Stopped("a message cannot be sent to Iggy with a timestamp of its own", hint, "IFX776")
        parts = by_partition(messages, len(self._numbers), self._turn)
        self._turn += 1
        try:
            for slot, part in sorted(parts.items()):
                for chunk in _chunks(part, self._settings.batch_bytes):
                    await self._connection.send(*self._address, self._numbers[slot], chunk)
        except NotConnected:
            await self.close()
            raise

    async def close(self) -> None:
        """As `MessageSink.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class IggyRange:
    """A `Source` of the messages between two bounds of a topic, the second one exclusive; it acknowledges nothing.

    It does not disturb consumers of the topic: it joins no group and stores no offset.  Reading ends at the end that
    the topic had at `connect`.  `total`, and `unsettled` of messages that `ends` leaves out, are upper bounds, known
    then.
    """

    waiting_for: str | None = None

    def __init__(
        self,
        settings: IggySettings,
        places: Sequence[tuple[str, str]],
        *,
        since: Bound | None = None,
        until: Bound | None = None,
        partition: int | None = None,
        ends: Mapping[Partition, int] | None = None,
    ) -> None:
        """`ends` are the offsets at which partitions end earlier; one that is not in it has no messages."""
        self._settings = settings
        self._places = tuple(places)
        self._ends = ends
        self._since = since
        self._until = until
        self._partition = partition
        self._connection: Connection | None = None
        self._left: list[tuple[Partition, At, int]] = []
        self.total = self.unsettled = 0

    async def connect(self) -> None:
        """As `Source.connect`: begin, or begin again."""
        await self.close()
        self._connection = Connection(self._settings)
        await self._connection.open()
        self._left.clear()
        self.total = self.unsettled = 0
        numbers: set[int] = set()
        for stream, topic in self._places:
            infos = await self._connection.partitions(stream, topic)
            if infos is None:
                raise Stopped(f"Iggy has no topic {stream}/{topic}", code="IFX766")
            for info in infos:
                place = Partition(stream, topic, info.number)
                numbers.add(info.number)
                if self._partition not in (None, info.number):
                    continue
                end = info.end if self._ends is None else min(info.end, self._ends.get(place, 0))
                self.unsettled += await self._count_between(place, end, info.end)
                if end:
                    begin = self._begin()
                    self.total += max(min(info.messages, end - (begin[1] if begin[0] == "offset" else 0)), 0)
                    self._left.append((place, begin, end))
        check_partition(self._partition, numbers)

    async def read(self) -> Batch | None:
        """Return the next messages.  Raise `EndOfInput`."""
        if self._connection is None:
            raise NotConnected("not connected to Iggy")
        while self._left:
            place, at, end = self._left[0]
            messages = await self._connection.poll(_LOOKING, place, at, self._settings.batch_size)
            within = [message for message in messages if message.offset < end and not self._is_behind(message)]
            if len(within) < len(messages) or not messages or messages[-1].offset + 1 >= end:
                self._left.pop(0)
            else:
                self._left[0] = (place, ("offset", messages[-1].offset + 1), end)
            if within:
                return Batch(place, within)
        raise EndOfInput("the end of the range is reached")

    async def ack(self, positions: Sequence[Position]) -> None:
        """Do nothing: no offset is stored."""

    async def lag(self) -> dict[Partition, int]:
        """Return how many messages are not read yet, as far as offsets show."""
        return {place: max(end - (at[1] if at[0] == "offset" else 0), 0) for place, at, end in self._left}

    async def close(self) -> None:
        """As `Source.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _count_between(self, place: Partition, first: int, end: int) -> int:
        """Return how many of the messages `first` … `end` are in the range, at most."""
        since, until = self._since, self._until
        if since is not None and since.kind == "offset":
            first = max(first, since.value)
        if until is not None and until.kind == "offset":
            end = min(end, until.value)
        if first >= end:
            return 0
        if until is not None and until.kind == "timestamp":
            assert self._connection is not None  # noqa: S101
            if any(map(until.takes, await self._connection.poll(_LOOKING, place, ("offset", first), 1))):
                return 0  # later ones arrived later
        return end - first

    def _begin(self) -> At:
        return ("first", 0) if self._since is None else (self._since.kind, self._since.value)

    def _is_behind(self, message: Message) -> bool:
        return self._until is not None and self._until.takes(message)


async def read_range(source: IggyRange) -> AsyncIterator[Message]:
    """Return every message of a range; close it."""
    try:
        await source.connect()
        while batch := await source.read():
            for message in batch.messages:
                yield message
    except EndOfInput:
        pass
    finally:
        await source.close()


async def last_messages(settings: IggySettings, stream: str, topics: Sequence[str], count: int) -> list[Message]:
    """Return the last `count` messages of the topics with one of the names or globs `topics`, oldest first.

    No offset is stored.  Raise `NotConnected` or `Stopped`.
    """
    import fnmatch

    connection = Connection(settings)
    await connection.open()
    found: list[Message] = []
    try:
        known = await connection.topics(stream)
        chosen = [t for t in known or [] if any(fnmatch.fnmatchcase(t, pattern) for pattern in topics)]
        if not chosen:
            hint = "the stream has no topics"
            if known:
                hint = f"the topics are: {listed(known, topics[0])}"
            elif known is None:
                hint = (
                    f"there is no stream {stream}; the streams are: {listed(await connection.streams(), stream) or '?'}"
                )
            raise Stopped(f"Iggy has no topic {stream}/{','.join(topics)}", hint, "IFX766")
        for topic in chosen:
            for info in await connection.partitions(stream, topic) or []:
                place, position = Partition(stream, topic, info.number), max(info.end - count, 0)
                while info.end and position < info.end:
                    polled = await connection.poll(_LOOKING, place, ("offset", position), min(count, 1000))
                    if not polled:
                        break
                    found += polled
                    position = polled[-1].offset + 1
    finally:
        await connection.close()
    found.sort(key=lambda message: (message.timestamp_us, message.topic, message.partition, message.offset))
    return found[-count:]


def _chunks(messages: Sequence[OutgoingMessage], most_bytes: int) -> list[list[OutgoingMessage]]:
    """Return `messages` in requests of a size that the server accepts."""
    chunks: list[list[OutgoingMessage]] = [[]]
    size = 0
    for message in messages:
        if chunks[-1] and (len(chunks[-1]) >= _SEND_COUNT or size + len(message.payload) > most_bytes):
            chunks.append([])
            size = 0
        chunks[-1].append(message)
        size += len(message.payload)
    return chunks
