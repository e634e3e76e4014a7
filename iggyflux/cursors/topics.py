"""Cursors in a topic of Iggy, for readers that run where no disk survives.

A commit is one message to the first partition of the topic, with the complete state: record and blobs.  The newest
message of a reader counts.  Headers name the reader, so that readers can share a topic; the payload has the format and
a checksum.  During a run the state is in memory.

A topic has no lock.  Every message carries the random id of the run that sent it.  Before each commit a run reads the
messages since its own last one: if the newest is another run's, it stops (IFX702).  So one of two runs goes on.  The
other sends at most what it sent before its next commit: messages with the same ids.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import zlib
from collections.abc import Collection, Coroutine, Iterator, Mapping
from hashlib import blake2b
from typing import IO, Any, TypeVar

import msgspec

from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import IggySettings, TopicAddress
from iggyflux.records import Message, OutgoingMessage, Partition
from iggyflux.state.store import CHUNK_BYTES, FORMAT, NOTHING, check_no_event_loop
from iggyflux.transports.iggy.connection import Connection, ConsumerId, PartitionInfo, address_of, speaks_http
from iggyflux.transports.iggy.topics import made_partitions

MOST_BYTES = 8_000_000
MOST_HTTP_BYTES = 1_400_000
"""An HTTP request has at most 2 MB, and base64 makes a payload a third larger."""
MOST_BACK = 200_000
"""How many messages of a topic are searched for the newest of a reader."""
_STEP_BYTES = 16_000_000
_STEP_COUNT = 1000
_NEW_COUNT = 20
_LONGEST_NAME = 255
_READER, _OWNER, _SEQUENCE, _BY = "iggyflux.reader", "iggyflux.owner", "iggyflux.sequence", "iggyflux.by"
_LOOKING = ConsumerId("single", "iggyflux-look")  # stores nothing
_RESET_HINT = (
    "run `iggyflux cursor set` to continue from a time, or `cursor reset` to begin at `start`; rows are then sent again"
)

T = TypeVar("T")
log = logging.getLogger("iggyflux.cursors")


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a message: the record, or None after a reset, and the blobs by number."""

    reader: str
    record: Any
    blobs: dict[int, bytes]


class _CursorEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    iggyflux: str
    version: int
    crc32: int
    content: bytes


class TopicState:
    """A `StateStore` in a topic.  Use it from one thread, without an event loop."""

    def __init__(self, settings: IggySettings, address: TopicAddress, name: str, *, most_back: int = MOST_BACK) -> None:
        self.name = name
        self.owner = secrets.token_hex(16)
        self._settings = settings
        self._address = address
        self._most_back = most_back
        self._most_bytes = MOST_HTTP_BYTES if speaks_http(settings) else MOST_BYTES
        self._is_taken = False
        self._blobs: dict[int, bytes] | None = None  # not read yet
        self._runner: asyncio.Runner | None = None
        self._connection: Connection | None = None
        self._partition = Partition(address.stream, address.topic, 0)
        self._looked_to: int | None = None
        self._sequence = 0
        self._unsent: OutgoingMessage | None = None

    @property
    def place(self) -> str:
        """As of `StateStore`."""
        address = self._address
        return f"{self.name!r} in {address.stream}/{address.topic} of {address_of(self._settings)}"

    def take(self) -> None:
        """As of `StateStore`, but without a lock: `commit` finds out whether another run exists.

        Raise `Stopped` (IFX643) for a name that does not fit into a header.
        """
        if len(self.name.encode()) > _LONGEST_NAME:
            hint = "choose a shorter `name` of the route"
            raise Stopped("the name of a reader with positions in a topic is limited to 255 bytes", hint, "IFX643")
        self._is_taken = True

    def read(self) -> Any:
        """As of `StateStore`.  After `take`, a missing topic is created where that is allowed."""
        content = self._content_of(self._run(self._load(may_create=self._is_taken)))
        self._blobs = content.blobs
        return content.record

    def blob(self, number: int) -> Iterator[bytes]:
        """As of `StateStore`."""
        blobs = self._stored_blobs()
        if number not in blobs:
            hint = "run `iggyflux cursor set`; rows of the overlap are then sent again"
            raise Stopped(f"cannot use the digests of {self.place}, number {number}: they are missing", hint, "IFX641")
        data = blobs[number]
        yield from (data[first : first + CHUNK_BYTES] for first in range(0, len(data), CHUNK_BYTES))

    def commit(
        self, record: object, *, added: Mapping[int, IO[bytes]] = NOTHING, dropped: Collection[int] = ()
    ) -> None:
        """As of `StateStore`.  Raise `Stopped`: IFX702 if another run has committed since, IFX643 if too large."""
        self._check_taken()
        blobs = {number: data for number, data in self._stored_blobs().items() if number not in dropped}
        for number, file in added.items():
            file.seek(0)
            blobs[number] = file.read()
        self._send(_Content(self.name, record, blobs))
        self._blobs = blobs

    def replace(self, record: object | None) -> None:
        """As of `StateStore`.  A run of this reader stops at its next commit."""
        self._check_taken()
        self._send(_Content(self.name, record, {}))
        self._blobs = {}

    def close(self) -> None:
        """As of `StateStore`."""
        if self._runner is not None:
            self._run(self._disconnect())
            self._runner.close()
            self._runner = None

    def _stored_blobs(self) -> dict[int, bytes]:
        if self._blobs is None:
            self.read()
        return self._blobs or {}

    def _check_taken(self) -> None:
        if not self._is_taken:
            raise RuntimeError("a state is taken before it is changed")

    # --- to and from messages ---

    def _send(self, content: _Content) -> None:
        """Send a message until it is confirmed; the same content after a `NotConnected` is sent as the same message."""
        size = sum(map(len, content.blobs.values()))
        if size > self._most_bytes:
            raise self._too_large(size)
        packed = msgspec.msgpack.encode(content)
        payload = msgspec.msgpack.encode(_CursorEnvelope("cursor", FORMAT, zlib.crc32(packed), packed))
        if len(payload) > self._most_bytes:
            raise self._too_large(len(payload))
        if self._unsent is None or self._unsent.payload != payload:
            self._unsent = self._message(payload)
        self._run(self._publish(self._unsent))
        self._unsent = None

    def _message(self, payload: bytes) -> OutgoingMessage:
        self._sequence += 1
        headers = {
            _READER: self.name,
            _OWNER: self.owner,
            _SEQUENCE: str(self._sequence),
            _BY: f"process {os.getpid()} of {socket.gethostname()}"[:_LONGEST_NAME] or "-",
        }
        number = blake2b(f"{self.owner} {self._sequence}".encode(), digest_size=16).digest()
        return OutgoingMessage(payload, None, headers, None, int.from_bytes(number, "big"))

    def _content_of(self, message: Message | None) -> _Content:
        """Return the content of a message.  Raise `Stopped` (IFX701) if it is damaged or of another format."""
        if message is None:
            return _Content(self.name, None, {})
        try:
            envelope = msgspec.msgpack.decode(message.payload, type=_CursorEnvelope)
            if envelope.iggyflux != "cursor":
                raise self._damaged(message, "it is not a cursor")
            if envelope.version != FORMAT:
                reason = f"it has format {envelope.version}; this release reads format {FORMAT}"
                raise self._damaged(message, reason, "continue with the release that wrote it; or ")
            if zlib.crc32(envelope.content) != envelope.crc32:
                raise self._damaged(message, "its checksum does not match")
            content = msgspec.msgpack.decode(envelope.content, type=_Content)
        except msgspec.MsgspecError as error:
            raise self._damaged(message, f"it is not a cursor ({error})") from error
        if content.reader != self.name:
            raise self._damaged(message, "it is not a cursor")
        return content

    def _damaged(self, message: Message, reason: str, before: str = "") -> Stopped:
        text = f"cannot use the positions of {self.place}, offset {message.offset}: {reason}"
        return Stopped(text, before + _RESET_HINT, "IFX701")

    def _too_large(self, size: int) -> Stopped:
        message = f"the cursor of {self.name!r} and its digests have {size:,} bytes"
        hint = "use a directory as `state`, or a smaller `cursor.overlap`"
        return Stopped(f"{message}, more than the {self._most_bytes:,} of a topic", hint, "IFX643")

    # --- Iggy ---

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            check_no_event_loop()
        except RuntimeError:
            work.close()
            raise
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(work)

    async def _load(self, *, may_create: bool) -> Message | None:
        """Return the newest message of this reader."""
        self._looked_to = None
        info = await self._connected(may_create=may_create)
        try:
            return None if info is None else await self._newest(info)
        except NotConnected:
            await self._disconnect()
            raise

    async def _publish(self, message: OutgoingMessage) -> None:
        if self._connection is None:
            await self._connected(may_create=True)
        connection = self._connection
        assert connection is not None  # noqa: S101  # `_connected` returned, so the topic exists
        try:
            if not await self._is_there(connection):
                place = self._partition
                await connection.send(place.stream, place.topic, place.partition, [message])
        except NotConnected:
            await self._disconnect()
            raise

    async def _connected(self, *, may_create: bool) -> PartitionInfo | None:
        """Return the partition, on a new connection; None if the topic is missing and may not be created yet."""
        await self._disconnect()
        stream, topic = self._address.stream, self._address.topic
        self._connection = connection = Connection(self._settings)
        try:
            await connection.open()
            if not may_create and self._settings.create and await connection.partitions(stream, topic) is None:
                await self._disconnect()
                return None
            info = (await made_partitions(connection, self._settings, stream, topic))[0]
        except (NotConnected, Stopped):
            await self._disconnect()
            raise
        self._partition = Partition(stream, topic, info.number)
        # A killed server may have lost its newest messages, and uses their offsets again.
        self._looked_to = info.end if self._looked_to is None else min(self._looked_to, info.end)
        return info

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _newest(self, info: PartitionInfo) -> Message | None:
        """Return the newest message of this reader, searched from the end in steps; None if there is none."""
        first = max(info.end - info.messages, 0)
        most_step = max(1, min(_STEP_COUNT, _STEP_BYTES * info.messages // max(info.size, 1)))
        stop, step, last = info.end, 1, max(first, info.end - self._most_back)
        while stop > last:
            start = max(stop - step, last)
            for message in reversed(await self._between(start, stop)):
                if message.headers.get(_READER) == self.name:
                    return message
            stop, step = start, min(step * 4, most_step)
        if last > first:
            hint = "run `iggyflux cursor set` to continue from a time; use a topic with fewer readers"
            raise Stopped(
                f"{self.place}: none of the newest {self._most_back:,} messages is its cursor", hint, "IFX701"
            )
        if first:
            log.warning(
                "reader.no_cursor reader=%r topic=%r hint=%r",
                self.name,
                f"{self._address.stream}/{self._address.topic}",
                "older messages were removed from the topic; if this reader has run before, all rows are sent again",
            )
        return None

    async def _between(self, start: int, stop: int) -> list[Message]:
        assert self._connection is not None  # noqa: S101
        found: list[Message] = []
        while start < stop:
            polled = await self._connection.poll(_LOOKING, self._partition, ("offset", start), stop - start)
            if not polled:
                break
            found += [message for message in polled if message.offset < stop]
            start = polled[-1].offset + 1
        return found

    async def _end(self, connection: Connection) -> int:
        """Return the offset of the next message: lower than before if the topic was emptied."""
        place = self._partition
        infos = await connection.partitions(place.stream, place.topic) or []
        return next((info.end for info in infos if info.number == place.partition), 0)

    async def _is_there(self, connection: Connection) -> bool:
        """Whether the message to send has arrived already.

        Raise `Stopped` (IFX702) if the newest message since the last commit is another run's.
        """
        is_there, other, at = False, None, self._looked_to or 0
        while True:
            polled = await connection.poll(_LOOKING, self._partition, ("offset", at), _NEW_COUNT)
            if not polled and at:  # our own last message was there, unless the topic lost its messages
                at = min(at, await self._end(connection))
            for message in polled:
                at = message.offset + 1
                if message.headers.get(_READER) != self.name:
                    continue
                if message.headers.get(_OWNER) == self.owner:
                    other, is_there = None, message.headers.get(_SEQUENCE) == str(self._sequence)
                else:
                    other = message
            if len(polled) < _NEW_COUNT:
                break
        if other is not None:
            who = str(other.headers.get(_BY, "another run"))
            hint = "stop the other process and run again, or rename this route; rows that both sent have the same ids"
            raise Stopped(f"another process reads as {self.place}: {who}, at offset {other.offset}", hint, "IFX702")
        self._looked_to = at
        return is_there
