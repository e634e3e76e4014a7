"""A `Source` of the records of archives, one file after another, which goes on where a run ended.

A file is a partition of offsets: the offset of a message is the number of its record in the file, from 0.  So a record
has the same coordinates in each run, also if files are added or left out.  It has no time of arrival, unless the caller
gives that of the first record.  Two headers name its place: `iggyflux-file`, and of a part of it `iggyflux-line`.

| of a file                              | the source                                                           |
|----------------------------------------|----------------------------------------------------------------------|
| nothing is stored                      | reads it from its beginning                                          |
| a position is stored                   | seeks the last batch before it, and skips records up to it; where    |
|                                        | that cannot be sought (compressed, UTF-16) it begins at the beginning |
| … and it is read to its end            | leaves it out                                                        |
| … and the plan has changed             | says so, and goes on by the new plan                                 |
| … and it is another file now           | stops (IFX712), before anything is read                              |
| its content is damaged (IFX504), a     | returns all records before that, logs `archive.left`, and goes on    |
| record does not end (IFX503), a line   | with the other files; stops when they are read                       |
| is not an envelope (IFX711)            |                                                                      |
| … it cannot be read (IFX710), or       |                                                                      |
| changed while it was read (IFX712)     |                                                                      |

A file keeps a lock until all its records are settled: with a position stored meanwhile, two descriptors.  As many files
wait for that as may have half of the descriptors of the process, at most 1,000; then no other one is begun.

The position of a file is stored with its identity, in a state of its own: so runs can share the files of an archive.
"""

from __future__ import annotations

import asyncio
import io
import logging
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from iggyflux.archives.avro import ContainerRecords
from iggyflux.archives.extent import Extent, FileExtent
from iggyflux.archives.files import Archive, ArchiveFile, Identity
from iggyflux.archives.parquet import ParquetRows, is_parquet
from iggyflux.archives.records import ArchiveLines, Content, Record, WholeFile, has_documents, header_of, splitter_of
from iggyflux.authoring.sample_bytes import DAMAGED, NoZstd, SampleError, expanded
from iggyflux.disk import file_name
from iggyflux.errors import EndOfInput, NotConnected, Stopped, counted
from iggyflux.payloads import Options
from iggyflux.records import FILE_HEADER, LINE_HEADER, Batch, LazyMessages, Message, Partition, Position, Scalar
from iggyflux.runner.events import emit
from iggyflux.state.sqlite import SUFFIX, SqliteState
from iggyflux.state.store import StateStore
from iggyflux.transports.base import Progress, Worker
from iggyflux.transports.local.envelopes import EnvelopeError, decode_envelope, default_timestamp_us

KIND: Final = "archive-position"
_CHANGED: Final = "IFX712"
_NOT_AN_ENVELOPE: Final = "IFX711"
_OF_THE_FILE: Final = frozenset({"IFX503", "IFX504", "IFX710", _NOT_AN_ENVELOPE, _CHANGED})
"""What stops the file that it is about, and not the others."""
_BUFFER_BYTES: Final = 1 << 20
_MOST_BATCH_BYTES: Final = 8_000_000
_MOST_OPEN: Final = 1000
"""How many files may be begun and not settled: each commits its position, which takes about a millisecond."""
_RECORDS_BEFORE: Final = (
    "records before that place may be damaged too; copy the file again, and load it with --verify, which checks the "
    "files before anything is sent"
)
_RATE_SECONDS: Final = 0.1
"""How much of a second's records a batch has at most where the rate is limited."""


log = logging.getLogger("iggyflux.archives")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files are read: the format of payloads and its options, and what messages they become.

    `envelope` says that each line is a message with coordinates, `whole` that each file is one payload, which is text
    if `is_text`.  `first_us` is the time of arrival of the first
    record, in microseconds since the epoch; each later record arrives a microsecond after the one before.  None if
    records have none.  `needs_time` says that the mapping reads it.
    """

    form: str = "json"
    options: Options = field(default_factory=dict)
    stream: str = ""
    topic: str = ""
    envelope: bool = False
    whole: bool = False
    is_text: bool = True
    first_us: int | None = None
    needs_time: bool = False

    def message(self, archive: Archive, offset: int, record: Record) -> Message:
        """Return the message of a record.  Raise EnvelopeError."""
        line, payload = record
        place: dict[str, Scalar | bytes] = {FILE_HEADER: archive.name}
        if not self.whole:
            place[LINE_HEADER] = line
        if self.envelope:
            message = decode_envelope(payload, offset, stream=self.stream, topic=self.topic)
            if self.needs_time and message.timestamp_us == default_timestamp_us(message.offset):
                raise EnvelopeError("the mapping reads the time of the message, and the envelope has no `timestamp_us`")
            return msgspec.structs.replace(message, headers={**message.headers, **place})
        arrival = 0 if self.first_us is None else self.first_us + offset
        return Message(payload, self.stream, self.topic, 0, offset, arrival, arrival, 0, place)


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The position in a file: `records` are settled.

    `sought` is a place before that can be sought: a byte, and the lines and records before it.
    """

    file: str
    size: int
    written: str
    begin: int
    records: int = 0
    sought: tuple[int, int, int] = (0, 0, 0)
    is_complete: bool = False
    plan: str = ""
    """The identity of the plan that rendered the last of them."""
    whole: bool = False
    """Whether the file is one record."""
    left: str = ""
    """The code of what kept the last load from reading on, if that lies in the file."""

    @property
    def identity(self) -> Identity:
        """What the file was."""
        return Identity(self.size, self.written, self.begin)


def archive_positions(folder: Path, route: str) -> Path:
    """Return the folder with the positions of a route in files."""
    return folder / "archives" / file_name(route)


def position_state(folder: Path, route: str, archive: Archive) -> SqliteState:
    """Return the state of the position of a route in a file."""
    path = archive_positions(folder, route) / f"{archive.key}{SUFFIX}"
    return SqliteState(path, KIND, route, f"the position of {route!r} in {archive.name}")


def stored_position(archive: Archive, state: StateStore, *, whole: bool = False) -> Stored | None:
    """Return the stored position in a file; close the state.

    Of a file that was left before its first record nothing is kept but why, so it may be another one now.
    Raise `Stopped` (IFX712) if the file is another one now, or counted its records otherwise: as one if `whole`.
    """
    try:
        found = state.read()
    finally:
        state.close()
    if found is None:
        return None
    stored = msgspec.convert(found, Stored)
    if stored.left and not stored.records:
        return None
    if identity_of(archive) != stored.identity:
        raise _changed(archive, "it is not the file that was read before")
    if whole != stored.whole:
        before, now = ("without", "with") if whole else ("with", "without")
        raise _changed(archive, f"it was loaded {before} --whole before, and is now to be loaded {now} it")
    return stored


def stored_positions(
    archives: Sequence[Archive], states: Sequence[StateStore], *, whole: bool = False
) -> list[Stored | None]:
    """Return the stored position in each file.  Raise `Stopped` (IFX712) for all files that are others now."""
    found: list[Stored | None] = []
    changed: list[Stopped] = []
    for archive, state in zip(archives, states, strict=True):
        try:
            found.append(stored_position(archive, state, whole=whole))
        except Stopped as error:
            if error.code != _CHANGED:
                raise
            changed.append(error)
    if changed:
        raise _first_of(changed)
    return found


def identity_of(archive: Archive) -> Identity:
    """Return what a file is now.  Raise `Stopped` or `NotConnected`."""
    file = archive.open()
    try:
        return file.identity()
    finally:
        file.release()


class RecordFile:
    """One open file, split into records."""

    def __init__(self, archive: Archive, reading: Reading) -> None:
        """Raise `Stopped` or `NotConnected`."""
        self.archive = archive
        self._reading = reading
        self.raw: ArchiveFile = archive.open()
        self.taken = 0
        """How many records were taken, those that were skipped included."""
        self._content: Content = ArchiveLines(io.BytesIO())
        self._records: Iterator[Record] = iter(())

    def begin(self, stored: Stored | None) -> None:
        """Go to the record after `stored`.  Raise `SampleError`, `Stopped` or `NotConnected`."""
        byte, number, self.taken = (0, 0, 0) if stored is None else stored.sought
        if self._reading.whole:
            file = WholeFile(self._expanded(), is_text=self._reading.is_text)
            self._content, self._records = file, file.records()
        elif is_parquet(self.archive.name):
            self.raw.seek(0)
            self.taken = 0 if stored is None else stored.records
            rows = ParquetRows(io.BufferedReader(self.raw, _BUFFER_BYTES), self.archive.name, self.archive.size)
            self._content, self._records = rows, rows.records(self.taken)
        elif self._reading.form == "avro" and not self._reading.envelope:
            container = ContainerRecords(self._expanded())
            self._content, self._records = container, container.records(byte, number)
        else:
            self._begin_lines(byte, number)
        for _ in range(0 if stored is None else stored.records - self.taken):
            next(self._records, None)
            self.taken += 1

    def _begin_lines(self, byte: int, number: int) -> None:
        form, options = "text" if self._reading.envelope else self._reading.form, self._reading.options
        documents = form == "json" and has_documents(ArchiveLines(self._expanded()))
        content = self._expanded()
        lines = ArchiveLines(content)
        header = header_of(lines, form, options)
        if byte:
            content.seek(byte)
            lines = ArchiveLines(content, position=byte, number=number)
        self._content = lines
        self._records = splitter_of(form, documents=documents)(lines, options, header)

    def _expanded(self) -> Any:
        """Return the content from the beginning, expanded."""
        self.raw.seek(0)
        try:
            return expanded(io.BufferedReader(self.raw, _BUFFER_BYTES), self.archive.name, limit=None)
        except NoZstd as error:
            hint = "pip install 'iggyflux[zstd]'"
            raise Stopped(f"{self.archive.name} needs a package to be expanded", hint, "IFX710") from error

    @property
    def position(self) -> int:
        """The byte after the last record that was taken, in the content; of rows their share of the file."""
        return self._content.position

    @property
    def place(self) -> tuple[int, int, int]:
        """A byte, and the lines and records before it, where reading can begin again; zeros if it cannot be sought."""
        return (0, 0, 0) if self.archive.is_compressed else self._content.sought(self.taken)

    def take(self, most: int) -> Iterator[Record]:
        """Yield records: at most `most`, and not many bytes.  Raise as `begin`."""
        size = 0
        for record in self._records:
            self.taken += 1
            yield record
            most -= 1
            size += len(record[1])
            if most <= 0 or size >= _MOST_BATCH_BYTES:
                return

    def release(self) -> None:
        """Close the file and let go what was read of it; idempotent."""
        self.raw.release()
        self._content, self._records = ArchiveLines(io.BytesIO()), iter(())

    def fault(self, error: SampleError) -> Stopped:
        """Return why the file cannot be read on, with the place."""
        line = error.line or self._content.number + 1
        reason = f"{self.archive.name}:{line}: {error.reason}; {counted(self.taken, 'record')} before it"
        hint = _RECORDS_BEFORE if error.code == DAMAGED and self.archive.is_compressed and self.taken else error.hint
        return Stopped(reason, hint, error.code)

    def verify(self) -> None:
        """Read the content to its end.  Raise `Stopped` (IFX504) if it is damaged, or `NotConnected`."""
        content = self._expanded()
        try:
            while content.read(_BUFFER_BYTES):
                pass
        except SampleError as error:
            raise Stopped(f"{self.archive.name}: {error.reason}; nothing is loaded", error.hint, error.code) from error


@dataclass(slots=True)
class _Opened:
    """A file whose records are not all settled."""

    index: int
    file: RecordFile
    state: StateStore
    identity: Identity | None = None
    settled: int = 0
    skipped: int = 0
    """The byte at which it is begun."""
    places: deque[tuple[int, int, int]] = field(default_factory=deque)
    """Where batches that are not settled begin and end."""
    is_read: bool = False
    left: str = ""
    """The code of the reason why it is not read on, which lies in the file; empty if it is."""

    def stored(self, records: int, plan: str, *, is_complete: bool, whole: bool) -> Stored:
        """Return what is stored when so many records are settled."""
        while len(self.places) > 1 and self.places[1][2] <= records:
            self.places.popleft()
        name, who = self.file.archive.name, self.identity
        assert who is not None  # noqa: S101  # it is known before the first record
        sought = self.places[0] if self.places else (0, 0, 0)
        return Stored(name, who.size, who.written, who.begin, records, sought, is_complete, plan, whole, self.left)

    def extent(self) -> FileExtent:
        """Return how much of it is read."""
        archive = self.file.archive
        return FileExtent(
            archive.size - self.skipped,
            archive.is_compressed,
            self.file.raw.tell(),
            max(self.file.position - self.skipped, 0),
        )

    def release(self) -> None:
        """Close the file and its state; idempotent."""
        self.file.release()
        self.state.close()


class ArchiveSource:
    """A `Source` of the records of `archives`; `state` returns the state of the position in one of them.

    `plan` returns the identity of the plan, which is known when the sink is connected.  `rate` bounds the records a
    second.  `is_checked` says that they were those that were read before when the load began: one that is another file
    now does not stop the others.
    """

    waiting_for: str | None = None

    def __init__(
        self,
        archives: Sequence[Archive],
        reading: Reading,
        state: Callable[[Archive], StateStore],
        *,
        plan: Callable[[], str] = str,
        batch_size: int = 5000,
        rate: float | None = None,
        is_checked: bool = False,
    ) -> None:
        self._archives = archives
        self._reading = reading
        self._state = state
        self._plan = plan
        self._batch_size = batch_size if rate is None else max(1, min(batch_size, int(rate * _RATE_SECONDS)))
        self._rate = rate
        self._is_checked = is_checked
        self._due = 0.0
        self._todo: deque[tuple[int, Stored | None]] = deque()
        self._current: _Opened | None = None
        self._opened: dict[int, _Opened] = {}
        self._fault: Exception | None = None
        """Why the current file is not read on."""
        self._left: list[Stopped] = []
        """Why files were not read to their ends."""
        self._extent = Extent()
        self._most_open = _most_open()
        self.complete = 0
        """How many files were complete when the source was connected last."""
        self._worker = Worker("archives")

    @property
    def progress(self) -> Progress:
        """How much of the files is read, in bytes of their content."""
        current = self._current
        return self._extent.progress(None if current is None else current.extent())

    @property
    def is_full(self) -> bool:
        """As of `Bounded`."""
        return self._current is None and bool(self._todo) and len(self._opened) >= self._most_open

    async def connect(self) -> None:
        """As `Source.connect`; raise `Stopped` (IFX712) if a file is another one than before the load began."""
        await self._worker.call(self._connect)

    async def read(self) -> Batch | None:
        """As `Source.read`."""
        batch = await self._worker.call(self._read)
        if batch is not None and self._rate is not None:
            now = time.monotonic()
            self._due = max(self._due, now) + len(batch.messages) / self._rate
            await asyncio.sleep(self._due - now)
        return batch

    async def ack(self, positions: Sequence[Position]) -> None:
        """As `Source.ack`."""
        await self._worker.call(self._ack, positions)

    async def close(self) -> None:
        """As `Source.close`."""
        await self._worker.finish(self._release)

    def _connect(self) -> None:
        self._release()
        self._fault = None
        self._left.clear()
        self._todo.clear()
        self._extent, self.complete = Extent(), 0
        changed: list[Stopped] = []
        of_another_plan: list[tuple[Archive, Stored]] = []
        for index, archive in enumerate(self._archives):
            try:
                stored = stored_position(archive, self._state(archive), whole=self._reading.whole)
            except Stopped as error:
                if error.code not in _OF_THE_FILE:
                    raise
                if error.code == _CHANGED and not self._is_checked:
                    changed.append(error)
                else:
                    self._leave(error)
                continue
            if stored is not None and stored.plan != self._plan():
                of_another_plan.append((archive, stored))
            if stored is not None and stored.is_complete:
                self.complete += 1
                self._extent.done += archive.weight
            else:
                self._todo.append((index, stored))
                skipped = 0 if stored is None else stored.sought[0]
                self._extent.done += skipped
                self._extent.add(archive.size - skipped, is_compressed=archive.is_compressed)
        if changed:
            raise _first_of(changed)
        if of_another_plan and not self._is_checked:
            self._warn_of_change(of_another_plan)
        self._is_checked = True

    def _warn_of_change(self, found: Sequence[tuple[Archive, Stored]]) -> None:
        archive, stored = found[0]
        more = {"files": len(found)} if len(found) > 1 else {}
        records = sum(each.records for _, each in found)
        fields = {"file": archive.name, **more, "records": records, "plan": self._plan(), "before": stored.plan}
        hint = f"--restart loads the whole {'files' if more else 'file'} by the new plan"
        emit(log, logging.WARNING, "archive.plan_changed", **fields, hint=hint)

    def _read(self) -> Batch | None:
        while self._current or self._todo:
            if self.is_full:
                return None
            try:
                if self._fault is not None:
                    raise self._fault
                current = self._current or self._open_next()
                if batch := self._batch(current):
                    return batch
                if self._fault is None:
                    self._end(current)
            except Stopped as error:
                if error.code not in _OF_THE_FILE:
                    raise
                self._leave(error)
        raise self._end_of_all()

    def _leave(self, error: Stopped) -> None:
        """Go on with the next file; the position in this one stays after what is settled."""
        emit(log, logging.ERROR, "archive.left", code=error.code, reason=error.reason, hint=error.hint)
        self._left.append(error)
        if (opened := self._current) is not None:
            self._extent.end(opened.extent())
            opened.file.release()
            opened.left = error.code
            if opened.identity is not None:
                opened.state.commit(self._stored(opened, is_complete=False))
            self._release_left(opened)
        self._fault = self._current = None

    def _release_left(self, opened: _Opened) -> None:
        if opened.left and opened.settled >= opened.file.taken:
            del self._opened[opened.index]
            opened.release()

    def _open_next(self) -> _Opened:
        index, stored = self._todo.popleft()
        archive = self._archives[index]
        skipped = 0 if stored is None else stored.sought[0]
        self._extent.add(archive.size - skipped, -1, is_compressed=archive.is_compressed)
        file = RecordFile(archive, self._reading)
        opened = self._opened[index] = self._current = _Opened(index, file, self._state(archive))
        opened.state.take()
        opened.skipped = skipped
        identity = file.raw.identity()
        if stored is not None and identity != stored.identity:
            raise _changed(archive, "it is not the file that was read before")
        opened.identity = identity
        if stored is not None:
            opened.settled = stored.records
            opened.places.append(stored.sought)
        try:
            file.begin(stored)
        except SampleError as error:
            raise file.fault(error) from error
        if stored is None:
            opened.places.append(file.place)
        return opened

    def _end_of_all(self) -> EndOfInput | Stopped:
        """Return why there is nothing more to read."""
        if not self._left:
            return EndOfInput("all files were read")
        first = self._left[0]
        if len(self._left) == 1:
            return first
        reason = (
            f"{len(self._left):,} of {counted(len(self._archives), 'file')} were not read to their ends; the first: "
        )
        return Stopped(reason + first.reason, first.hint, first.code)

    def _batch(self, opened: _Opened) -> Batch | None:
        """Return the next records of a file, None if there are none; what ends them is raised by the next read."""
        file, reading, archive = opened.file, self._reading, opened.file.archive
        first, records = file.taken, []
        messages: list[Message] = []
        try:
            for record in file.take(self._batch_size):
                if reading.envelope:
                    messages.append(reading.message(archive, file.taken - 1, record))
                records.append(record)
        except SampleError as error:
            self._fault = file.fault(error)
        except EnvelopeError as error:
            hint = "correct the line, or remove --envelope if lines are plain payloads"
            self._fault = Stopped(f"{archive.name}:{record[0]}: {error}", hint, _NOT_AN_ENVELOPE)
            file.taken -= 1
        except (Stopped, NotConnected) as error:
            self._fault = error
        if not records:
            return None
        if self._fault is None:  # else the file is beyond the last of them
            opened.places.append(file.place)
        place = Partition(reading.stream, reading.topic, opened.index)
        end = first + len(records) - 1
        if reading.envelope:
            return Batch(place, messages, end)

        lines = [line for line, _ in records]

        def make(index: int, payload: bytes) -> Message:
            return reading.message(archive, first + index, (lines[index], payload))

        return Batch(place, LazyMessages([payload for _, payload in records], make))

    def _end(self, opened: _Opened) -> None:
        """End a file that is read to its end.  Raise `Stopped` if it is another one now."""
        archive, extent = opened.file.archive, opened.extent()
        if opened.file.raw.identity() != opened.identity:
            raise _changed(archive, "it was changed while it was read")
        opened.is_read, self._current = True, None
        opened.file.release()
        self._extent.end(extent)
        if opened.settled >= opened.file.taken:
            self._complete(opened)

    def _ack(self, positions: Sequence[Position]) -> None:
        for position in positions:
            opened = self._opened[position.partition.partition]
            opened.settled = position.offset + 1
            if opened.is_read and opened.settled >= opened.file.taken:
                self._complete(opened)
            else:
                opened.state.commit(self._stored(opened, is_complete=False))
                self._release_left(opened)

    def _stored(self, opened: _Opened, *, is_complete: bool) -> Stored:
        return opened.stored(opened.settled, self._plan(), is_complete=is_complete, whole=self._reading.whole)

    def _complete(self, opened: _Opened) -> None:
        opened.state.commit(self._stored(opened, is_complete=True))
        del self._opened[opened.index]
        opened.release()

    def _release(self) -> None:
        for opened in self._opened.values():
            opened.release()
        self._opened.clear()
        self._current = None


def _most_open() -> int:
    """Return how many files may be begun and not settled: each keeps up to two descriptors."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN if allowed == resource.RLIM_INFINITY else max(1, min(allowed // 4, _MOST_OPEN))


def _changed(archive: Archive, reason: str) -> Stopped:
    hint = "load it alone with --restart: it is read from its beginning, and its points overwrite themselves"
    return Stopped(f"{archive.name}: {reason}", hint, _CHANGED)


def _first_of(changed: Sequence[Stopped]) -> Stopped:
    """Return one stop for all files that are others than before, or are to be loaded otherwise."""
    first, *others = changed
    if not others:
        return first
    hint = "load these alone with --restart: they are read from their beginnings, and their points overwrite themselves"
    return Stopped(f"{first.reason}; the same holds for {counted(len(others), 'other file')}", hint, first.code)
