"""`log:DIR`: a partitioned, append-only message log on local disk, with Iggy's coordinates and no server.

    DIR/log.sqlite3                         the messages: `log_store`
    DIR/.consumers/NAME.sqlite, NAME.lock   settled positions, and the lock of the consumer
    DIR/.consumers/NAME+1.sqlite, …         the same of the second worker of a run, and so on

A position of a partition is the highest one in the files of its consumer, so another number of workers goes on there.

Any number of processes may append and read at once.  A damaged message stops its reader, with its place, after the
intact messages before it were returned.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from iggyflux.disk import make_folder, remedy, short_name
from iggyflux.errors import EndOfInput, Stopped, closest, listed
from iggyflux.pipeline import Start
from iggyflux.records import Batch, LazyMessages, Message, OutgoingMessage, Partition, Position
from iggyflux.state.sqlite import SUFFIX as _STATE_SUFFIX
from iggyflux.state.sqlite import SqliteState
from iggyflux.state.store import UPGRADE_HINT, StateStore
from iggyflux.transports.base import Worker
from iggyflux.transports.local.log_batches import Coordinates, OpenBatch
from iggyflux.transports.local.log_store import LogStore
from iggyflux.transports.share import ALONE, Share

BATCH_BYTES = 4 * 10**6
_CHECKED_AT_ONCE = 10_000
_CONSUMERS = ".consumers"
_KIND = "log-positions"
_WORKER = "+"
"""Before the number of a worker in the name of its file; quoted names do not have it."""
_PREVIOUS_SUFFIX = ".json"

log = logging.getLogger("iggyflux.log")


@dataclass(frozen=True, slots=True)
class LogPartitionInfo:
    """The size of a partition: offsets `[first, end)`, `size` bytes in `batches`, and each consumer's next offset."""

    partition: Partition
    first: int
    end: int
    size: int
    batches: int
    consumers: Mapping[str, int]


class Log:
    """A message log in a folder: `open` it, then append, inspect, or make readers."""

    def __init__(self, folder: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.folder = folder
        self._clock = clock
        self._store = LogStore(folder)
        self._turn = 0

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], *, create: bool = False, clock: Callable[[], int] = time.time_ns
    ) -> Log:
        """Return the log in `folder`.

        Raise `Stopped`: IFX703 if there is none and `create` is false, IFX708 for a log of another format.
        """
        path = Path(folder)
        if create:
            try:
                make_folder(path, 0o700)
            except OSError as error:
                raise Stopped(f"cannot create the log {path}: {error.strerror}", remedy(error), "IFX703") from error
        if not os.path.isdir(path):  # noqa: PTH112  # False also for a name that is too long
            hint = "create it with iggyflux log append, or iggyflux log generate"
            raise Stopped(f"no log in {path}", hint, "IFX703")
        opened = cls(path, clock=clock)
        opened._store.exists()
        return opened

    # Topics, partitions and consumers

    def topics(self) -> list[tuple[str, str]]:
        """Return every (stream, topic), sorted."""
        return sorted({(place.stream, place.topic) for place in self.all_partitions()})

    def all_partitions(self) -> list[Partition]:
        """Return every partition, sorted."""
        return self._store.partitions() if self._store.exists() else []

    def partitions(self, stream: str, topics: Sequence[str] = ("*",)) -> list[Partition]:
        """Return the partitions of the topics of `stream` with one of the names or globs `topics`; sorted."""
        return [
            place
            for place in self.all_partitions()
            if place.stream == stream and any(fnmatch.fnmatchcase(place.topic, pattern) for pattern in topics)
        ]

    def info(self) -> list[LogPartitionInfo]:
        """Return every partition, with its offsets, size and consumers."""
        consumers = self.consumers()
        return [self._info(place, consumers) for place in self.all_partitions()]

    def consumers(self) -> dict[str, dict[Partition, int]]:
        """Return the settled positions of every consumer: its name → the last settled offset, by partition."""
        folder = self.folder / _CONSUMERS
        files = [path for suffix in (_STATE_SUFFIX, _PREVIOUS_SUFFIX) for path in folder.glob(f"*{suffix}")]
        names = {unquote(path.stem.partition(_WORKER)[0]) for path in files}
        return {name: _settled_by(self.folder, name) for name in sorted(names)}

    def first(self, partition: Partition) -> int:
        """Return the lowest offset that still exists, or the next one if there is no message."""
        return self._store.bounds(partition)[0] if self._store.exists() else 0

    def end(self, partition: Partition) -> int:
        """Return the offset of the next message."""
        return self._store.bounds(partition)[1] if self._store.exists() else 0

    def offset_at(self, partition: Partition, timestamp_us: int) -> int:
        """Return the offset of the first message that arrived at `timestamp_us` or later; the end if there is none."""
        batch = self._store.first_since(partition, timestamp_us) if self._store.exists() else None
        if batch is None:
            return self.end(partition)
        return batch.first + OpenBatch(batch).index_since(timestamp_us)

    def reader(self, partition: Partition, offset: int) -> PartitionReader:
        """Return a reader that begins with the message at `offset`."""
        return PartitionReader(self._store, partition, offset)

    def tail(self, stream: str, topic: str, count: int = 10, partition: int | None = None) -> list[Message]:
        """Return the last `count` messages of each partition, in the order of partition and offset."""
        found: list[Message] = []
        for place in self.partitions(stream, [_literal(topic)]):
            if partition is None or place.partition == partition:
                end = self.end(place)
                reader = self.reader(place, max(end - count, self.first(place)))
                while (left := end - reader.offset) > 0 and (part := reader.read(left)):
                    found += part
        return found

    def check(self) -> None:
        """Read everything.  Raise `Stopped` (IFX705) at the first damage, in a page or a message."""
        for place in self.all_partitions():
            reader = self.reader(place, self.first(place))
            while reader.read(_CHECKED_AT_ONCE):
                pass

    # Appending

    def create_topic(self, stream: str, topic: str, partitions: int = 1) -> None:
        """Make a topic of so many partitions; an existing topic keeps its partitions and gets the missing ones."""
        self._store.add_partitions([Partition(stream, topic, number) for number in range(partitions)])

    def append(
        self,
        stream: str,
        topic: str,
        messages: Sequence[Message],
        *,
        partition: int | None = None,
        keys: Sequence[str | None] | None = None,
    ) -> dict[Partition, int]:
        """Append `messages`, all or none; return the new end of each changed partition.  They then survive a crash.

        All go to `partition`; or, by `keys`, messages of one key go to one partition, and the others to the partitions
        in turn.  A missing topic is made, with one partition.  Payload, headers, id and timestamps of a message are
        kept; a missing timestamp is now.  Raise `Stopped`: IFX704 if the disk rejects it, IFX705 for a damaged log.
        """
        if partition is not None:
            parts = {partition: list(messages)}
        else:
            numbers = [place.partition for place in self.partitions(stream, [_literal(topic)])] or [0]
            parts = self._spread(numbers, messages, keys)
        places = {Partition(stream, topic, number): part for number, part in parts.items()}
        return self._store.append(places, self._clock() // 1000)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._store.close()

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

    def _info(self, partition: Partition, consumers: Mapping[str, Mapping[Partition, int]]) -> LogPartitionInfo:
        first, end = self._store.bounds(partition)
        batches, size = self._store.size(partition)
        return LogPartitionInfo(
            partition,
            first=first,
            end=end,
            size=size,
            batches=batches,
            consumers={name: places[partition] + 1 for name, places in consumers.items() if partition in places},
        )


class PartitionReader:
    """Reads one partition forwards, even while another process appends; `offset` is that of the next message."""

    def __init__(self, store: LogStore, partition: Partition, offset: int) -> None:
        self.partition = partition
        self.offset = offset
        self._store = store
        self._batch: OpenBatch | None = None

    def read(self, limit: int, max_bytes: int = BATCH_BYTES) -> LazyMessages:
        """Return the next messages, at most `limit` and about `max_bytes`; empty if there are none yet.

        Raise `Stopped`: IFX705 at a damaged message, IFX706 if the offset is beyond the end.
        """
        payloads: list[bytes] = []
        sources: list[tuple[Coordinates, int]] = []
        ends: list[int] = []
        read_bytes = 0
        while len(payloads) < limit and read_bytes < max_bytes:
            try:
                batch = self._find_batch()
                if batch is None:
                    break
                at = self.offset - batch.first
                part = batch.sound(at, limit - len(payloads))
                if not part:
                    raise self._damage()
            except Stopped:
                if not payloads:
                    raise
                break  # first return what is before the damage
            sources.append((batch.coordinates, at - len(payloads)))
            payloads += part
            ends.append(len(payloads))
            read_bytes += sum(map(len, part))
            self.offset += len(part)
        partition = self.partition

        def message(index: int, payload: bytes) -> Message:
            coordinates, shift = sources[bisect_right(ends, index)]
            return coordinates.message(index + shift, partition, payload)

        return LazyMessages(payloads, message)

    def _find_batch(self) -> OpenBatch | None:
        """Return the batch with the next message; None if there is none yet."""
        while self._batch is None or not self._batch.first <= self.offset < self._batch.end:
            self._batch = None
            if not self._store.exists():
                return None
            stored = self._store.batch_at(self.partition, self.offset)
            if stored is not None and self.offset < stored.end:
                self._batch = OpenBatch(stored)
                break
            end, following = self._store.around(self.partition, self.offset)
            if end is not None and end > self.offset:
                continue  # it was appended just now
            if following is None and end is not None and end < self.offset:
                raise _beyond_the_end(self.partition, self.offset, end)
            if following is None:
                return None
            if end is not None:
                raise self._damage()
            log.warning("log.messages_gone partition=%s from=%d to=%d", self.partition, self.offset, following - 1)
            self.offset = following
        return self._batch

    def _damage(self) -> Stopped:
        """Return the error for a message at `offset` that is not as written."""
        hint = "restore a backup of the file"
        at = self.offset - self._batch.first if self._batch else 0
        index = self._batch.next_sound(at) if self._batch else None
        _, behind = self._store.around(self.partition, self.offset)
        if self._batch and index is not None:
            behind = self._batch.first + index
        if behind is not None:
            hint += f", or continue after the damage with a new consumer and start: {{offset: {behind}}}"
        return Stopped(f"{self._store.path} is damaged at {self.partition}@{self.offset}", hint, "IFX705")


class Consumption:
    """The settled positions of one consumer of a log, and the lock that makes it, or a worker of it, the only one."""

    def __init__(self, folder: Path, name: str, worker: int = 0) -> None:
        self.name = name
        self._folder = folder
        self._worker = worker
        self._state: StateStore = consumer_state(folder, name, worker)
        self._settled: dict[Partition, int] = {}

    def acquire(self) -> None:
        """Lock the consumer for this process.  Raise `Stopped` (IFX702) if another process has it."""
        self._state.take()

    def load(self) -> dict[Partition, int]:
        """Return the last settled offset, by partition, of all workers."""
        self._settled = {}
        self._add(self._state)
        for worker in _workers_of(self._folder, self.name) - {self._worker}:
            other = consumer_state(self._folder, self.name, worker)
            try:
                self._add(other)
            finally:
                other.close()
        return dict(self._settled)

    def _add(self, state: StateStore) -> None:
        for entry in state.read() or ():
            place = Partition(entry["stream"], entry["topic"], entry["partition"])
            self._settled[place] = max(entry["offset"], self._settled.get(place, -1))

    def store(self, positions: Sequence[Position]) -> None:
        """Settle positions, never backwards; return when they would survive a crash."""
        for position in positions:
            self._settled[position.partition] = max(position.offset, self._settled.get(position.partition, -1))
        content = [
            {"stream": place.stream, "topic": place.topic, "partition": place.partition, "offset": offset}
            for place, offset in sorted(self._settled.items(), key=lambda item: str(item[0]))
        ]
        self._state.commit(content)

    def release(self) -> None:
        """Release the consumer; idempotent."""
        self._state.close()


def consumer_state(folder: Path, name: str, worker: int = 0) -> SqliteState:
    """Return the state of a consumer of the log in `folder`, as one of its workers keeps it."""
    path = folder / _CONSUMERS / f"{_quoted(name)}{_WORKER * bool(worker)}{worker or ''}{_STATE_SUFFIX}"
    previous = path.with_suffix(_PREVIOUS_SUFFIX)
    return SqliteState(
        path,
        _KIND,
        name,
        f"consumer {name!r} of this log",
        previous=previous,
        upgrade_hint=f"{UPGRADE_HINT} (the file has its position in `offset`)",
    )


def _workers_of(folder: Path, name: str) -> set[int]:
    """Return the workers of a consumer that have a file; the first one keeps that of a run alone."""
    ends = (
        path.stem.rpartition(_WORKER)[2]
        for path in (folder / _CONSUMERS).glob(f"{_quoted(name)}{_WORKER}*{_STATE_SUFFIX}")
    )
    return {0, *(int(end) for end in ends if end.isdecimal())}


def _settled_by(folder: Path, name: str) -> dict[Partition, int]:
    consumption = Consumption(folder, name)
    try:
        return consumption.load()
    finally:
        consumption.release()


class LogSource:
    """A `Source` on a log: the topics of a stream, by name or glob, read in turn, partition by partition.

    Without `until_end` new messages, partitions and topics are found as they appear.  With it, `read` raises
    `EndOfInput` when everything that existed at `connect` is read.
    """

    waiting_for: str | None = None

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
        share: Share = ALONE,
    ) -> None:
        self._log = Log(folder)
        self._share = share
        self._stream = stream
        self._topics = tuple(topics)
        self._only = None if partitions is None else frozenset(partitions)
        self._start = start
        self._batch_size = batch_size
        self._until_end = until_end
        self._consumption = Consumption(folder, consumer, share.worker)
        self._settled: dict[Partition, int] = {}
        self._readers: dict[Partition, PartitionReader] = {}
        self._stops: dict[Partition, int] = {}
        self._turns: list[PartitionReader] = []
        self._worker = Worker("log-source")
        self._keeper = Worker("log-positions")  # an fsync must not delay reading

    async def connect(self) -> None:
        """As `Source.connect`; raise `Stopped` if the log or stream is missing, or the consumer is in use."""
        await self._worker.call(self._connect)

    async def read(self) -> Batch | None:
        """As `Source.read`."""
        return await self._worker.call(self._read)

    async def ack(self, positions: Sequence[Position]) -> None:
        """As `Source.ack`: one durable commit for each call."""
        await self._keeper.call(self._consumption.store, positions)

    async def lag(self) -> dict[Partition, int]:
        """Return how many messages of each partition are not settled yet; with `until_end`, of those before the end."""
        return await self._worker.call(self._lag)

    async def replaced(self, read: Mapping[Partition, tuple[int, int]]) -> list[Partition]:
        """As `Comparing.replaced`; a message that cannot be read counts as another one."""
        return await self._worker.call(
            lambda: [place for place in self._partitions() if place in read and not self._has(place, *read[place])]
        )

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
            if not any(ALONE.has(place, self._only) for place in self._partitions()):
                raise self._nothing_matches()
            self._stops = {place: self._log.end(place) for place in self._readers}
            for place, end in self._stops.items():
                if end < self._readers[place].offset:  # the log was replaced; without this error it would seem read
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
        for place in self._partitions():
            if place not in self._readers and self._share.has(place, self._only):
                reader = self._log.reader(place, self._begin(place))
                self._readers[place] = reader
                self._turns.append(reader)

    def _partitions(self) -> list[Partition]:
        return self._log.partitions(self._stream, self._topics)

    def _begin(self, place: Partition) -> int:
        if place in self._settled:
            return self._settled[place] + 1
        return _STARTS[self._start.kind](self._log, place, self._start.value)

    def _has(self, place: Partition, offset: int, timestamp_us: int) -> bool:
        if self._log.end(place) <= offset:
            return False
        try:
            return any(each.timestamp_us == timestamp_us for each in self._log.reader(place, offset).read(1))
        except Stopped:
            return False

    def _nothing_matches(self) -> Stopped:
        known = [f"{stream}/{topic}" for stream, topic in self._log.topics()]
        wanted = f"{self._stream}/{','.join(self._topics)}"
        near = closest(wanted, known)
        hint = f"did you mean {near}?" if near else f"the topics are: {listed(known, wanted) or 'none'}"
        return Stopped(f"no topic of the log matches {wanted}", hint, "IFX707")

    def _lag(self) -> dict[Partition, int]:
        found = {}
        settled = self._consumption._settled  # noqa: SLF001  # its own file
        for place, reader in self._readers.items():
            end = self._stops[place] if self._until_end else self._log.end(place)
            behind = settled[place] + 1 if place in settled else min(self._begin(place), reader.offset)
            found[place] = max(end - behind, 0)
        return found

    def _drop_readers(self) -> None:
        self._log.close()
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
        """As `MessageSink.connect`; a missing log is made."""
        await self._worker.call(self._connect)

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        """As `MessageSink.send`: appended and synced when it returns."""
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
        "use a new consumer name, or set `start`: the log was truncated or replaced",
        "IFX706",
    )


def _quoted(name: str) -> str:
    """Return a name as a file name, without characters that have a meaning in paths."""
    quoted = quote(name, safe=" ") or "%"
    return short_name("%2E" + quoted[1:] if quoted.startswith(".") else quoted)


def _literal(topic: str) -> str:
    """Return a glob that matches `topic` only."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in topic)
