"""`log:DIR`: a partitioned, append-only message log on local disk, with Iggy's coordinates and no server.

    DIR/STREAM/TOPIC/PARTITION/00000000000000000000.log    segments, named by their first offset
    DIR/.consumers/NAME.sqlite, NAME.lock                  settled positions, and who holds the consumer

Any number of processes may append and read at once: an append takes the partition's lock for its duration, readers
take none.  A torn end, left by a crash, is cut off by the next append; damage in the middle stops whoever meets it,
with its place.  The bytes are `segments`' business.
"""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from iggyflux.disk import sync_folder, write_whole
from iggyflux.errors import EndOfInput, Stopped, closest
from iggyflux.pipeline import Start
from iggyflux.records import Batch, LazyMessages, Message, OutgoingMessage, Partition, Position
from iggyflux.state.sqlite import SUFFIX as _STATE_SUFFIX
from iggyflux.state.sqlite import SqliteState
from iggyflux.state.store import GO_ON, StateStore
from iggyflux.transports import segments
from iggyflux.transports.append_file import leads_to
from iggyflux.transports.base import Worker

SEGMENT_BYTES = 32 * 2**20
BATCH_BYTES = 8 * 10**6
_CHUNK_BYTES = 2**20
_SUFFIX = ".log"
_CONSUMERS = ".consumers"
_KIND = "log-positions"
_PREVIOUS_SUFFIX = ".json"

log = logging.getLogger("iggyflux.log")


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """What a partition holds: offsets `[first, end)`, `size` bytes, and each consumer's next offset."""

    partition: Partition
    first: int
    end: int
    size: int
    segments: int
    consumers: Mapping[str, int]


class Log:
    """A message log in a folder; `open` it, then append, look, or make readers."""

    def __init__(
        self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._appenders: dict[Partition, _Appender] = {}
        self._turn = 0

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        create: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], int] = time.time_ns,
    ) -> Log:
        """The log in `folder`.  Raises `Stopped` (IFX703) where there is none and `create` is false."""
        path = Path(folder)
        if create:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Stopped(f"cannot make the log {path}: {error.strerror}", code="IFX703") from error
        if not path.is_dir():
            hint = "fill it first: iggyflux log append, or iggyflux log generate"
            raise Stopped(f"there is no log in {path}", hint, "IFX703")
        return cls(path, segment_bytes=segment_bytes, clock=clock)

    # What is there

    def topics(self) -> list[tuple[str, str]]:
        """Every (stream, topic), sorted."""
        return sorted(
            (unquote(stream.name), unquote(topic.name))
            for stream in _folders(self.folder)
            if stream.name != _CONSUMERS
            for topic in _folders(stream)
        )

    def partitions(self, stream: str, topics: Sequence[str] = ("*",)) -> list[Partition]:
        """The partitions of the topics of `stream` whose names are, or match by glob, one of `topics`; sorted."""
        return [
            Partition(stream, topic, number)
            for known, topic in self.topics()
            if known == stream and any(fnmatch.fnmatchcase(topic, pattern) for pattern in topics)
            for number in sorted(
                int(entry.name) for entry in _folders(self._topic(stream, topic)) if entry.name.isdigit()
            )
        ]

    def info(self) -> list[PartitionInfo]:
        """Every partition, with its offsets, size and consumers."""
        consumers = self.consumers()
        return [
            self._info(partition, consumers)
            for stream in sorted({stream for stream, _ in self.topics()})
            for partition in self.partitions(stream)
        ]

    def consumers(self) -> dict[str, dict[Partition, int]]:
        """The settled positions of every consumer: its name → the offset it settled last, by partition."""
        folder = self.folder / _CONSUMERS
        files = [path for suffix in (_STATE_SUFFIX, _PREVIOUS_SUFFIX) for path in folder.glob(f"*{suffix}")]
        return {name: _settled_by(self.folder, name) for name in sorted({unquote(path.stem) for path in files})}

    def first(self, partition: Partition) -> int:
        """The lowest offset that is still there; where nothing is, the one that comes."""
        bases = _bases(self._path(partition))
        return bases[0] if bases else 0

    def end(self, partition: Partition) -> int:
        """The offset that the next message will get."""
        return _End(self._path(partition)).offset()

    def offset_at(self, partition: Partition, timestamp_us: int) -> int:
        """The offset of the first message that arrived at `timestamp_us` or later; the end where none did."""
        folder = self._path(partition)
        for base in _bases(folder):
            data = _segment(folder, base).read_bytes()
            for place in segments.sound_records(data):
                if place.timestamp_us >= timestamp_us:
                    return place.offset
        return self.end(partition)

    def reader(self, partition: Partition, offset: int) -> PartitionReader:
        """A reader that begins with the message at `offset`."""
        return PartitionReader(self._path(partition), partition, offset)

    def tail(self, stream: str, topic: str, count: int = 10, partition: int | None = None) -> list[Message]:
        """The last `count` messages of each partition, in the order of partition and offset."""
        found: list[Message] = []
        for place in self.partitions(stream, [_literal(topic)]):
            if partition is None or place.partition == partition:
                end = self.end(place)
                reader = self.reader(place, max(end - count, self.first(place)))
                while (left := end - reader.offset) > 0 and (part := reader.read(left)):
                    found += part
                reader.close()
        return found

    # Appending

    def create_topic(self, stream: str, topic: str, partitions: int = 1) -> None:
        """Make a topic of so many partitions; one that exists keeps its own and gets what is missing."""
        for number in range(partitions):
            self._path(Partition(stream, topic, number)).mkdir(parents=True, exist_ok=True)
        sync_folder(self._topic(stream, topic))
        sync_folder(self._topic(stream, topic).parent)
        sync_folder(self.folder)

    def append(
        self,
        stream: str,
        topic: str,
        messages: Sequence[Message],
        *,
        partition: int | None = None,
        keys: Sequence[str | None] | None = None,
        sync: bool = True,
    ) -> dict[Partition, int]:
        """Append `messages`; the end of each partition that got some.  With `sync` they then survive a crash.

        They go to `partition`; or, by `keys`, messages of one key to one partition; the rest takes turns.  A topic that
        is missing is made, with one partition.  Of a message, payload, headers, id and timestamps are kept; without a
        timestamp it arrived now.  Raises `Stopped`: IFX704 where the disk takes no more, IFX705 for a damaged segment.
        """
        known = self.partitions(stream, [_literal(topic)])
        if partition is not None:
            parts = {partition: list(messages)}
        else:
            parts = self._spread([place.partition for place in known] or [0], messages, keys)
        ends = {}
        now_us = self._clock() // 1000
        for number, part in parts.items():
            place = Partition(stream, topic, number)
            if place not in self._appenders:
                if place not in known:
                    self._path(place).mkdir(parents=True, exist_ok=True)
                    for folder in (self._path(place).parent, self._topic(stream, topic).parent, self.folder):
                        sync_folder(folder)
                self._appenders[place] = _Appender(self._path(place), place, self._segment_bytes)
            ends[place] = self._appenders[place].append(part, now_us, sync=sync)
        return ends

    def close(self) -> None:
        """Let go of the files; idempotent."""
        for appender in self._appenders.values():
            appender.close()
        self._appenders.clear()

    def _spread(
        self, numbers: Sequence[int], messages: Sequence[Message], keys: Sequence[str | None] | None
    ) -> dict[int, list[Message]]:
        parts: dict[int, list[Message]] = {}
        for index, message in enumerate(messages):
            key = keys[index] if keys else None
            if key is None:
                slot = self._turn % len(numbers)
                self._turn += 1
            else:
                slot = zlib.crc32(key.encode("utf-8", "surrogatepass")) % len(numbers)
            parts.setdefault(numbers[slot], []).append(message)
        return parts

    def _info(self, partition: Partition, consumers: Mapping[str, Mapping[Partition, int]]) -> PartitionInfo:
        folder = self._path(partition)
        bases = _bases(folder)
        return PartitionInfo(
            partition,
            first=self.first(partition),
            end=self.end(partition),
            size=sum(_segment(folder, base).stat().st_size for base in bases),
            segments=len(bases),
            consumers={name: places[partition] + 1 for name, places in consumers.items() if partition in places},
        )

    def _topic(self, stream: str, topic: str) -> Path:
        return self.folder / _quoted(stream) / _quoted(topic)

    def _path(self, partition: Partition) -> Path:
        return self._topic(partition.stream, partition.topic) / str(partition.partition)


class PartitionReader:
    """Reads one partition forwards, also while another process appends; `offset` is that of the next message."""

    def __init__(self, folder: Path, partition: Partition, offset: int) -> None:
        self.partition = partition
        self.offset = offset
        self._folder = folder
        self._base = -1
        self._file: int | None = None
        self._start = 0  # the place in the file of chunk[0]
        self._chunk = b""
        self._at = 0
        self._read_bytes = 0
        self._searched = (-1, -1)

    def read(self, limit: int, max_bytes: int = BATCH_BYTES) -> LazyMessages:
        """The next messages, at most `limit` and about `max_bytes`; empty where nothing whole is there yet.

        Raises `Stopped`: IFX705 at a damaged record that others follow, IFX706 where the offset is beyond the end.
        """
        payloads: list[bytes] = []
        places: list[int] = []
        chunks: list[bytes] = []
        self._read_bytes = 0
        while len(payloads) < limit and self._read_bytes < max_bytes:
            if self._file is None and not self._open():
                break
            try:
                if not self._decode(limit, payloads, places) and not self._fill():
                    break
            except Stopped:
                if not payloads:
                    raise
                break  # what stands before the damage is given first
            chunks += [self._chunk] * (len(payloads) - len(chunks))
        partition = self.partition
        return LazyMessages(payloads, lambda index: segments.message_at(chunks[index], places[index], partition))

    def close(self) -> None:
        """Let go of the file; idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _decode(self, limit: int, payloads: list[bytes], places: list[int]) -> bool:
        """Take payloads from the chunk; whether there were any."""
        before, count = self._at, len(payloads)
        end = segments.find_records(self._chunk, before, limit - count, payloads, places)
        if end > before and not self._is_sound(before, end, places[count:]):
            del payloads[count:], places[count:]
            end = before
            for place in segments.sound_records(self._chunk, before):
                if place.offset != self.offset + (len(payloads) - count) or len(payloads) == limit:
                    break
                end = segments.find_records(self._chunk, end, 1, payloads, places)
            if end == before:
                self._chunk = self._chunk[:before]
        self._at = end
        self._read_bytes += end - before
        self.offset += len(payloads) - count
        return end > before

    def _is_sound(self, start: int, end: int, places: Sequence[int]) -> bool:
        """Whether what was found is what was written, and the offsets go on without a gap."""
        first, last = (segments.offset_at(self._chunk, place) for place in (places[0], places[-1]))
        follow = first == self.offset and last == self.offset + len(places) - 1
        return follow and segments.is_sound(self._chunk, start, end)

    def _open(self) -> bool:
        bases = _bases(self._folder)
        if not bases:
            return False
        if bases[0] > self.offset:
            log.warning("log.messages_gone partition=%s from=%d to=%d", self.partition, self.offset, bases[0] - 1)
            self.offset = bases[0]
        self._base = max(base for base in bases if base <= self.offset)
        path = _segment(self._folder, self._base)
        data = path.read_bytes() if self.offset > self._base else b""
        self._start, found = segments.pass_over(data, 0, self._base, self.offset)
        if found < self.offset:
            raise _beyond_the_end(self.partition, self.offset, found)
        self.offset = found
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._chunk, self._at = b"", 0
        return True

    def _fill(self) -> bool:
        """Get more bytes, from this segment or the next; whether there were any."""
        if self._take_chunk():
            return True
        following = [base for base in _bases(self._folder) if base > self._base]
        if following and self._take_chunk():  # a segment that others follow has got its last bytes before
            return True
        if self._file is None:
            return False
        position = self._start + self._at
        size = os.fstat(self._file).st_size
        if position == size and following[:1] == [self.offset]:
            self.close()
            return True
        if following or (position < size and self._searched != (position, size)):
            self._look_behind(position, size, is_last=not following)
            self._searched = (position, size)
        return False

    def _take_chunk(self) -> bool:
        """Take the bytes from here on, where a sound record begins here."""
        if self._file is None:
            return False
        position = self._start + self._at
        data = self._bytes(position, os.fstat(self._file).st_size)
        place = segments.sound_record(data, 0)
        if place is None:
            return False
        if place.offset != self.offset:
            raise _damage(_segment(self._folder, self._base), position, self.partition, self.offset, place)
        self._start, self._chunk, self._at = position, data, 0
        return True

    def _bytes(self, position: int, size: int) -> bytes:
        """A chunk of the file from `position` on that holds a whole record, where there is one."""
        if self._file is None:
            return b""
        data = os.pread(self._file, min(_CHUNK_BYTES, max(size - position, 0)), position)
        need = min(segments.record_size(data, 0), size - position)
        return data if need <= len(data) else os.pread(self._file, need, position)

    def _look_behind(self, position: int, size: int, *, is_last: bool) -> None:
        """What begins at `position` is no sound record: a torn end, or one being written, unless sound ones follow."""
        if self._file is None:
            return
        data = os.pread(self._file, size - position, position)
        if segments.sound_record(data, 0):
            return
        follower = segments.next_sound_record(data, 1)
        if follower or not is_last:
            raise _damage(_segment(self._folder, self._base), position, self.partition, self.offset, follower)
        log.info("log.torn_end partition=%s offset=%d bytes=%d", self.partition, self.offset, len(data))


class _Appender:
    """The writing end of one partition, in one process among several."""

    def __init__(self, folder: Path, partition: Partition, segment_bytes: int) -> None:
        self._folder = folder
        self._partition = partition
        self._segment_bytes = segment_bytes
        self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._file: int | None = None
        self._base = 0
        self._size = 0
        self._end = 0

    def append(self, messages: Sequence[Message], now_us: int, *, sync: bool) -> int:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._catch_up()
            data = segments.encode_records(messages, self._end, now_us)
            self._write(data, sync=sync)
            self._end += len(messages)
            self._see_that_it_is_kept()
        except OSError as error:
            self._forget()
            raise Stopped(
                f"cannot append to {self._folder}: {error.strerror}",
                "free space or correct the permissions: what was appended before is whole",
                "IFX704",
            ) from error
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        return self._end

    def close(self) -> None:
        self._forget()
        os.close(self._lock)

    def _see_that_it_is_kept(self) -> None:
        """Raise `OSError` unless lock and segment are still those at their paths, with all that was written."""
        is_there = self._file is not None and leads_to(_segment(self._folder, self._base), self._file)
        if not is_there or not leads_to(self._folder / ".lock", self._lock):
            raise OSError(errno.ENOENT, "it was removed or replaced")
        if self._file is not None and os.fstat(self._file).st_size < self._size:
            raise OSError(errno.EIO, "it was cut")

    def _catch_up(self) -> None:
        """See what others appended since, and cut off a torn end; the lock is held."""
        if self._file is not None:
            path = _segment(self._folder, self._base)
            changed = os.fstat(self._file).st_size != self._size or not leads_to(path, self._file)
            if not changed and (self._end == self._base or not _segment(self._folder, self._end).exists()):
                return
            self._forget()
        bases = _bases(self._folder)
        self._base = bases[-1] if bases else 0
        path = _segment(self._folder, self._base)
        if bases and not path.is_file():
            raise OSError(errno.EINVAL, f"{path.name} is no file")
        data = path.read_bytes() if bases else b""
        self._size, self._end = 0, self._base
        for place in segments.sound_records(data):
            self._size, self._end = place.end, place.offset + 1
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if not bases:
            sync_folder(self._folder)
        if self._size < len(data):
            if follower := segments.next_sound_record(data, self._size + 1):
                raise _damage(path, self._size, self._partition, self._end, follower)
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
            log.warning("log.repaired file=%s offset=%d cut_bytes=%d", path, self._end, len(data) - self._size)

    def _write(self, data: bytes, *, sync: bool) -> None:
        if self._size and self._size + len(data) > self._segment_bytes:
            self._rotate()
        file = self._file
        if file is None:
            raise OSError(9, "the segment is closed")
        try:
            write_whole(file, data)
            if sync:
                os.fsync(file)
        except OSError:
            os.ftruncate(file, self._size)
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        """The old segment is made durable before the next one exists: only a last segment may be torn."""
        if self._file is not None:
            os.fsync(self._file)
        self._forget()
        self._base, self._size = self._end, 0
        path = _segment(self._folder, self._base)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        sync_folder(self._folder)

    def _forget(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _End:
    """The end of a partition, found again and again by looking only at what is new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._base = -1
        self._at = 0
        self._offset = 0

    def offset(self) -> int:
        bases = _bases(self._folder)
        if bases and bases[-1] != self._base:
            self._base = self._offset = bases[-1]
            self._at = 0
        if bases:
            with _segment(self._folder, self._base).open("rb") as file:
                file.seek(self._at)
                data = file.read()
            passed, self._offset = segments.pass_over(data, 0, self._offset)
            self._at += passed
        return self._offset


class Consumption:
    """The settled positions of one consumer of a log, and the lock that keeps others from being that consumer."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._state: StateStore = consumer_state(folder, name)
        self._settled: dict[Partition, int] = {}

    def acquire(self) -> None:
        """Be the consumer.  Raises `Stopped` (IFX702) where another process is."""
        self._state.take()

    def load(self) -> dict[Partition, int]:
        """The offset that was settled last, by partition."""
        self._settled = {
            Partition(entry["stream"], entry["topic"], entry["partition"]): entry["offset"]
            for entry in self._state.read() or ()
        }
        return dict(self._settled)

    def store(self, positions: Sequence[Position]) -> None:
        """Settle; never backwards; returns when it would survive a crash."""
        for position in positions:
            self._settled[position.partition] = max(position.offset, self._settled.get(position.partition, -1))
        content = [
            {"stream": place.stream, "topic": place.topic, "partition": place.partition, "offset": offset}
            for place, offset in sorted(self._settled.items(), key=lambda item: str(item[0]))
        ]
        self._state.commit(content)

    def release(self) -> None:
        """Let another be the consumer; idempotent."""
        self._state.close()


def consumer_state(folder: Path, name: str) -> SqliteState:
    """The state of a consumer of the log in `folder`."""
    path = folder / _CONSUMERS / f"{_quoted(name)}{_STATE_SUFFIX}"
    previous = path.with_suffix(_PREVIOUS_SUFFIX)
    return SqliteState(
        path,
        _KIND,
        name,
        f"consumer {name!r} of this log",
        previous=previous,
        way_on=f"{GO_ON} (`offset` in it tells how far that is)",
    )


def _settled_by(folder: Path, name: str) -> dict[Partition, int]:
    consumption = Consumption(folder, name)
    try:
        return consumption.load()
    finally:
        consumption.release()


class LogSource:
    """A `Source` on a log: the topics of a stream, by name or glob, read in turn, partition by partition.

    Without `until_end` new messages, partitions and topics are found as they come; with it, `EndOfInput` comes when
    what was there at `connect` is read.
    """

    def __init__(
        self,
        folder: Path,
        stream: str,
        topics: Sequence[str],
        *,
        consumer: str,
        partitions: Sequence[int] | None = None,
        start: Start = Start(),  # noqa: B008  # frozen
        batch_size: int = 5000,
        until_end: bool = False,
    ) -> None:
        self._log = Log(folder)
        self._stream = stream
        self._topics = tuple(topics)
        self._only = None if partitions is None else frozenset(partitions)
        self._start = start
        self._batch_size = batch_size
        self._until_end = until_end
        self._consumption = Consumption(folder, consumer)
        self._settled: dict[Partition, int] = {}
        self._readers: dict[Partition, PartitionReader] = {}
        self._stops: dict[Partition, int] = {}
        self._ends: dict[Partition, _End] = {}
        self._turns: list[PartitionReader] = []
        self._worker = Worker("log-source")
        self._keeper = Worker("log-positions")  # an fsync must not hold up reading

    async def connect(self) -> None:
        """As `Source.connect`; raises `Stopped` where there is no such log or stream, or the consumer is taken."""
        await self._worker.call(self._connect)

    async def read(self) -> Batch | None:
        """As `Source.read`."""
        return await self._worker.call(self._read)

    async def ack(self, positions: Sequence[Position]) -> None:
        """As `Source.ack`: one durable commit a call."""
        await self._keeper.call(self._consumption.store, positions)

    async def lag(self) -> dict[Partition, int]:
        """How many messages of each partition are not settled yet."""
        return await self._worker.call(self._lag)

    async def close(self) -> None:
        """As `Source.close`."""
        await self._keeper.finish()
        await self._worker.finish(self._close)

    def _connect(self) -> None:
        Log.open(self._log.folder)
        self._consumption.acquire()
        self._settled = self._consumption.load()
        self._drop_readers()
        self._discover()
        if self._until_end:
            if not self._readers:
                raise self._nothing_matches()
            self._stops = {place: self._log.end(place) for place in self._readers}
            for place, end in self._stops.items():
                if end < self._readers[place].offset:  # "nothing to do" would be said of a log that was replaced
                    raise _beyond_the_end(place, self._readers[place].offset, end)

    def _read(self) -> Batch | None:
        for _ in range(len(self._turns)):
            reader = self._turns.pop(0)
            self._turns.append(reader)
            limit = self._batch_size
            if self._until_end:
                limit = min(limit, self._stops[reader.partition] - reader.offset)
            if messages := reader.read(limit):
                return Batch(reader.partition, messages)
        if self._until_end:
            raise EndOfInput("the end of the log is reached")
        self._discover()
        return None

    def _discover(self) -> None:
        for place in self._log.partitions(self._stream, self._topics):
            if place not in self._readers and (self._only is None or place.partition in self._only):
                reader = self._log.reader(place, self._begin(place))
                self._readers[place] = reader
                self._turns.append(reader)

    def _begin(self, place: Partition) -> int:
        if place in self._settled:
            return self._settled[place] + 1
        return _STARTS[self._start.kind](self._log, place, self._start.value)

    def _nothing_matches(self) -> Stopped:
        known = [f"{stream}/{topic}" for stream, topic in self._log.topics()]
        wanted = f"{self._stream}/{','.join(self._topics)}"
        near = closest(wanted, known)
        hint = f"did you mean {near}?" if near else f"there is: {', '.join(known[:10]) or 'nothing yet'}"
        return Stopped(f"no topic of the log matches {wanted}", hint, "IFX707")

    def _lag(self) -> dict[Partition, int]:
        found = {}
        settled = self._consumption._settled  # noqa: SLF001  # its own file
        for place, reader in self._readers.items():
            end = self._ends.setdefault(place, _End(self._log._path(place))).offset()  # noqa: SLF001
            behind = settled[place] + 1 if place in settled else min(self._begin(place), reader.offset)
            found[place] = max(end - behind, 0)
        return found

    def _drop_readers(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._turns.clear()

    def _close(self) -> None:
        self._drop_readers()
        self._consumption.release()


class LogSink:
    """A `MessageSink` on a topic of a log: dead letters, or a reader's messages."""

    def __init__(self, folder: Path, stream: str, topic: str) -> None:
        self._log = Log(folder)
        self._address = (stream, topic)
        self._worker = Worker("log-sink")

    async def connect(self) -> None:
        """As `MessageSink.connect`; a log that is missing is made."""
        await self._worker.call(self._connect)

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        """As `MessageSink.send`: appended and fsynced when it returns."""
        await self._worker.call(self._send, messages)

    async def close(self) -> None:
        """As `MessageSink.close`."""
        await self._worker.finish(self._log.close)

    def _connect(self) -> None:
        Log.open(self._log.folder, create=True)

    def _send(self, messages: Sequence[OutgoingMessage]) -> None:
        records = [
            Message(
                message.payload,
                timestamp_us=0 if message.timestamp_ns is None else message.timestamp_ns // 1000,
                id=message.id,
                headers=message.headers,
            )
            for message in messages
        ]
        self._log.append(*self._address, records, keys=[message.key for message in messages])


_STARTS: dict[str, Callable[[Log, Partition, int], int]] = {
    "first": lambda log, place, _: log.first(place),
    "last": lambda log, place, _: log.end(place),
    "offset": lambda log, place, value: max(value, log.first(place)),
    "timestamp": lambda log, place, value: log.offset_at(place, value),
}


def _beyond_the_end(partition: Partition, offset: int, end: int) -> Stopped:
    return Stopped(
        f"offset {offset} of {partition} is beyond the end of the log ({end})",
        "the log was cut or replaced: give the consumer a new name, or set `start`",
        "IFX706",
    )


def _damage(path: Path, position: int, partition: Partition, offset: int, follower: segments.Place | None) -> Stopped:
    hint = "put back a copy of the file"
    if follower:
        hint += f", or begin behind the damage: a new consumer with start: {{offset: {follower.offset}}}"
    return Stopped(f"{path} is damaged at byte {position}, in {partition}@{offset}", hint, "IFX705")


def _bases(folder: Path) -> list[int]:
    """The first offsets of the segments in `folder`, sorted."""
    try:
        return sorted(int(entry.stem) for entry in folder.iterdir() if entry.suffix == _SUFFIX)
    except FileNotFoundError:
        return []


def _segment(folder: Path, base: int) -> Path:
    return folder / f"{base:020d}{_SUFFIX}"


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from (entry for entry in folder.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return


def _quoted(name: str) -> str:
    """A name as a file's name: nothing that a path could mean is left in it."""
    quoted = quote(name, safe=" ") or "%"
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def _literal(topic: str) -> str:
    """A glob that matches `topic` only."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in topic)
