"""Cursors in a topic of Iggy, for readers that run where no disk survives.

The cursor lives in a private folder as any other does, and after every commit the whole of it (position and digests)
is sent as one message to the first partition of the topic; the newest message of a reader is what counts.  Headers say
whose it is, so that readers share a topic; version and checksum are inside.

A topic has no lock.  Every message carries the random id of the run that sent it, and before each commit a run looks at
what came since its own last one: where the newest of that is another run's, it stops (IFX702).  So of two runs one
goes on, and the other sends no more than what it sent until its next commit: messages with the same ids.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
import tempfile
import zlib
from collections.abc import Coroutine, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from iggyflux.cursors import Cursor, CursorStore, Sieve, cursor_path, remove_cursor
from iggyflux.delivery.windows import Position
from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import IggySettings, TopicAddress
from iggyflux.records import JSON, Message, OutgoingMessage, Partition
from iggyflux.transports.iggy import Connection, PartitionInfo, Reader, address_of, speaks_http
from iggyflux.transports.iggy_topics import made_partitions

VERSION = 1
MOST_BYTES = 8_000_000
MOST_HTTP_BYTES = 1_400_000
"""Over http a request has 2 MB at the most, and a payload takes a third more there."""
MOST_BACK = 200_000
"""How many messages of a topic are looked at for the newest of a reader."""
_STEP_BYTES = 16_000_000
_STEP_COUNT = 1000
_NEW_COUNT = 20
_LONGEST_NAME = 255
_READER, _OWNER, _SEQUENCE, _BY = "iggyflux.reader", "iggyflux.owner", "iggyflux.sequence", "iggyflux.by"
_LOOKING = Reader("single", "iggyflux-look")  # stores nothing

T = TypeVar("T")
log = logging.getLogger("iggyflux.cursors")


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    """What a message holds: the cursor's file, or None where it was forgotten, and the files of digests."""

    reader: str
    cursor: bytes | None
    seen: dict[str, bytes]


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    iggyflux: str
    version: int
    crc32: int
    content: bytes


class TopicCursorStore(CursorStore):
    """As `CursorStore`, with the cursor in a topic: `commit` makes it ready, `publish` sends it.

    Everything but what a sieve does is called from one thread, in which no loop runs.
    """

    is_remote = True

    def __init__(
        self,
        settings: IggySettings,
        address: TopicAddress,
        name: str,
        query: Mapping[str, JSON],
        *,
        marks: bool = False,
        most_back: int = MOST_BACK,
    ) -> None:
        super().__init__(Path(), name, query, marks=marks)
        self.owner = secrets.token_hex(16)
        self._settings = settings
        self._address = address
        self._most_back = most_back
        self._most_bytes = MOST_HTTP_BYTES if speaks_http(settings) else MOST_BYTES
        self._runner: asyncio.Runner | None = None
        self._connection: Connection | None = None
        self._partition = Partition(address.stream, address.topic, 0)
        self._looked_to: int | None = None
        self._sequence = 0
        self._unsent: OutgoingMessage | None = None
        self._has_folder = False

    @property
    def place(self) -> str:
        """As of `CursorStore`."""
        address = self._address
        return f"{self.name!r} in {address.stream}/{address.topic} of {address_of(self._settings)}"

    def read(self) -> Cursor | None:
        """As of `CursorStore`; raises `NotConnected`, too."""
        self._run(self._load(may_create=False))
        return self._read()

    def take(self) -> None:
        """Nothing: there is no lock."""

    def replace(self, cursor: Cursor | None) -> None:
        """As of `CursorStore`; raises `NotConnected`, too.

        A run that reads under this name stops at its next commit.
        """
        self._make_folder()
        super().replace(cursor)
        self._pack()
        self.publish()

    def open(self) -> Position | None:
        """As of `CursorStore`; raises `NotConnected`, too, and is then called again."""
        if len(self.name.encode()) > _LONGEST_NAME:
            hint = "give the route a shorter `name`"
            raise Stopped("a reader with positions in a topic has a name of at most 255 bytes", hint, "IFX643")
        self._run(self._load(may_create=True))
        self._read()
        return super().open()

    def commit(self, position: Position, sieve: Sieve | None = None) -> None:
        """As of `CursorStore`; it survives when it was published.  Raises `Stopped` (IFX643) where it is too large."""
        super().commit(position, sieve)
        self._pack()

    def publish(self) -> None:
        """As of `CursorStore`.  Raises `Stopped` (IFX702) where another run has published since."""
        if self._unsent is not None:
            self._run(self._publish(self._unsent))
            self._unsent = None

    def close(self) -> None:
        """As of `CursorStore`; the private folder goes."""
        super().close()
        if self._runner is not None:
            self._run(self._disconnect())
            self._runner.close()
            self._runner = None
        if self._has_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._has_folder = False

    # --- to and from messages ---

    def _pack(self) -> None:
        """What is in the folder, as the message that is to be sent."""
        path = cursor_path(self.folder, self.name)
        seen = sorted(self.seen_folder.iterdir()) if self.seen_folder.is_dir() else []
        size = sum(file.stat().st_size for file in seen)
        if size > self._most_bytes:
            raise self._too_large(size)
        content = msgspec.msgpack.encode(
            _Content(
                self.name,
                path.read_bytes() if path.exists() else None,
                {file.name: file.read_bytes() for file in seen},
            )
        )
        payload = msgspec.msgpack.encode(_Envelope("cursor", VERSION, zlib.crc32(content), content))
        if len(payload) > self._most_bytes:
            raise self._too_large(len(payload))
        self._sequence += 1
        headers = {
            _READER: self.name,
            _OWNER: self.owner,
            _SEQUENCE: str(self._sequence),
            _BY: f"process {os.getpid()} of {socket.gethostname()}"[:_LONGEST_NAME] or "-",
        }
        number = blake2b(f"{self.owner} {self._sequence}".encode(), digest_size=16).digest()
        self._unsent = OutgoingMessage(payload, None, headers, None, int.from_bytes(number, "big"))

    def _unpack(self, message: Message | None) -> None:
        """Put what a message holds into the folder, instead of what is there.  Raises `Stopped` (IFX701)."""
        self._make_folder()
        remove_cursor(self.folder, self.name)
        if message is None:
            return
        try:
            envelope = msgspec.msgpack.decode(message.payload, type=_Envelope)
            if envelope.iggyflux != "cursor" or envelope.version != VERSION:
                raise self._damaged(message, f"it has version {envelope.version}, and this program knows {VERSION}")
            if zlib.crc32(envelope.content) != envelope.crc32:
                raise self._damaged(message, "its checksum does not fit")
            content = msgspec.msgpack.decode(envelope.content, type=_Content)
        except msgspec.MsgspecError as error:
            raise self._damaged(message, f"it holds no cursor ({error})") from error
        if content.reader != self.name or not all(name.isdigit() for name in content.seen):
            raise self._damaged(message, "it holds something else")
        if content.cursor is None:
            return
        self.seen_folder.mkdir(parents=True)
        for name, data in content.seen.items():
            (self.seen_folder / name).write_bytes(data)
        cursor_path(self.folder, self.name).write_bytes(content.cursor)

    def _read(self) -> Cursor | None:
        path = str(cursor_path(self.folder, self.name))
        try:
            return super().read()
        except Stopped as error:
            hint = "begin anew with `iggyflux cursor reset`, or at a time with `cursor set`"
            raise Stopped(error.reason.replace(path, self.place), hint, error.code) from error

    def _make_folder(self) -> None:
        if not self._has_folder:
            try:
                self.folder = Path(tempfile.mkdtemp(prefix="iggyflux-cursor-"))
            except OSError as error:
                raise Stopped(f"cannot make a temporary folder: {error.strerror}", code="IFX701") from error
            self._has_folder = True

    def _damaged(self, message: Message, reason: str) -> Stopped:
        hint = "`iggyflux cursor set` goes on from a time, `cursor reset` begins anew: what was sent is then sent again"
        return Stopped(f"cannot use the positions of {self.place}, offset {message.offset}: {reason}", hint, "IFX701")

    def _too_large(self, size: int) -> Stopped:
        message = f"the positions of {self.name!r} and what they remember have {size:,} bytes"
        hint = "name a directory as `state`, or make `cursor.overlap` smaller"
        return Stopped(f"{message}, and a topic takes {self._most_bytes:,}", hint, "IFX643")

    # --- Iggy ---

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(work)

    async def _load(self, *, may_create: bool) -> None:
        """Bring the newest message of this reader to the folder."""
        self._looked_to = None
        info = await self._connected(may_create=may_create)
        try:
            self._unpack(None if info is None else await self._newest(info))
        except NotConnected:
            await self._disconnect()
            raise

    async def _publish(self, message: OutgoingMessage) -> None:
        if self._connection is None:
            await self._connected(may_create=True)
        connection = self._connection
        assert connection is not None  # noqa: S101  # else the topic is made, or it stopped
        try:
            if not await self._is_there(connection):
                place = self._partition
                await connection.send(place.stream, place.topic, place.partition, [message])
        except NotConnected:
            await self._disconnect()
            raise

    async def _connected(self, *, may_create: bool) -> PartitionInfo | None:
        """The partition, on a connection made anew; None where the topic is missing and may be made later."""
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
        # A server that was killed may have lost its newest messages, and gives their offsets to others.
        self._looked_to = info.end if self._looked_to is None else min(self._looked_to, info.end)
        return info

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _newest(self, info: PartitionInfo) -> Message | None:
        """The newest message of this reader, looked for from the end in steps; None where there is none."""
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
            hint = "`iggyflux cursor set` says where to go on; give the reader a topic that fewer share"
            raise Stopped(f"{self.place}: none of the newest {self._most_back:,} messages is of it", hint, "IFX701")
        if first:
            log.warning(
                "reader.no_cursor reader=%r topic=%r hint=%r",
                self.name,
                f"{self._address.stream}/{self._address.topic}",
                "older messages were removed from the topic; where this reader has run before, all is sent again",
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
        """The offset that the next message will get: less than it was where the topic was emptied."""
        place = self._partition
        infos = await connection.partitions(place.stream, place.topic) or []
        return next((info.end for info in infos if info.number == place.partition), 0)

    async def _is_there(self, connection: Connection) -> bool:
        """Whether what is to be sent has arrived already.

        Raises `Stopped` (IFX702) where the newest that came since is another run's.
        """
        is_there, other, at = False, None, self._looked_to or 0
        while True:
            polled = await connection.poll(_LOOKING, self._partition, ("offset", at), _NEW_COUNT)
            if not polled and at:  # at least our own last one was there, if the topic still has its messages
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
            hint = (
                "stop the other one and run again, or give this route another `name`; what both sent has the same ids"
            )
            raise Stopped(f"somebody else reads as {self.place}: {who}, at offset {other.offset}", hint, "IFX702")
        self._looked_to = at
        return is_there
