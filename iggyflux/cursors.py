"""How far readers have come, durably: positions in the time line, and digests of what may have to be looked at again.

    STATE/NAME.cursor.json        the position, whose query it is, and which files of digests belong to it
    STATE/NAME.cursor.lock        who reads under this name
    STATE/NAME.seen/00000042      digests of the rows of a slice of time, 16 bytes each (32 with keys, for marks)

The position and the list of digest files are replaced at once, as one checkpoint; files of digests are written and
fsynced before, and removed after.  A file that the checkpoint does not name is what a crash left over.

A *sieve* tells, row by row, what of a window is new or changed.  What was seen in a slice of time is what was there
when it was read last: a value that goes and comes back is published again.  Memory is bounded whatever a window holds:
where the digests of a window are too many to be held at once, the rows are gone through twice, and compared part by
part.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import msgspec

from iggyflux.checkpoints import read_checkpoint, write_checkpoint
from iggyflux.delivery.windows import Position, Read
from iggyflux.disk import sync_folder
from iggyflux.errors import Stopped
from iggyflux.records import JSON, Row
from iggyflux.state.locks import Lock

_KIND = "cursor"
_DIGEST_BYTES = 16
_IN_MEMORY_BYTES = 200_000 * _DIGEST_BYTES
"""How many bytes of digests are held at once: in sets they take some seven times as much."""
_MOST_PARTS = 256
_CHUNK_ENTRIES = 50_000

Mark: TypeAlias = Literal["", "late", "changed"]

_pack = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Slice:
    """Digests of the rows of `[start, stop)`, in a file that may hold some of other times too."""

    start: int
    stop: int
    file: str
    count: int
    crc32: int
    is_cut: bool = False
    """Whether times beside `[start, stop)` in the file are out of date."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is stored: whose query, how far, and what was seen of what may be looked at again.

    `width` is the number of bytes of an entry: a digest, or a key and a digest.
    """

    query: Mapping[str, JSON]
    position: Position
    slices: tuple[Slice, ...] = ()
    width: int = _DIGEST_BYTES


def cursor_path(folder: Path, name: str) -> Path:
    """Where the cursor of the reader `name` is."""
    return folder / f"{name}.cursor.json"


def read_cursor(folder: Path, name: str) -> Cursor | None:
    """The stored cursor, or None where there is none.  Takes no lock.  Raises `Stopped` (IFX701) at damage."""
    path = cursor_path(folder, name)
    content = read_checkpoint(path, _KIND)
    if content is None:
        return None
    try:
        gap = content["gap"]
        return Cursor(
            content["query"],
            Position(content["checked"], content["done"], None if gap is None else (gap[0], gap[1])),
            tuple(Slice(**each) for each in content["slices"]),
            content["width"],
        )
    except (KeyError, TypeError, ValueError) as error:
        hint = "put back a copy, or `iggyflux cursor reset`: what was sent is then sent again"
        raise Stopped(f"cannot use the positions in {path}: {error}", hint, "IFX701") from error


def write_cursor(folder: Path, name: str, cursor: Cursor) -> None:
    """Store the cursor; returns when it would survive a crash.  The caller holds the lock."""
    position = cursor.position
    content = {
        "reader": name,
        "query": cursor.query,
        "checked": position.checked,
        "done": position.done,
        "gap": position.gap,
        "width": cursor.width,
        "slices": [
            {
                "start": each.start,
                "stop": each.stop,
                "file": each.file,
                "count": each.count,
                "crc32": each.crc32,
                "is_cut": each.is_cut,
            }
            for each in cursor.slices
        ],
    }
    write_checkpoint(cursor_path(folder, name), _KIND, content)


def remove_cursor(folder: Path, name: str) -> None:
    """Forget the cursor and what was seen.  The caller holds the lock."""
    cursor_path(folder, name).unlink(missing_ok=True)
    seen = _seen_folder(folder, name)
    if seen.is_dir():
        for file in seen.iterdir():
            file.unlink(missing_ok=True)
        seen.rmdir()


def lock_cursor(folder: Path, name: str) -> Lock:
    """Be the one who reads under this name.  Raises `Stopped` (IFX702) naming who does already."""
    return Lock(folder / f"{name}.cursor.lock", f"the cursor {name!r}")


def _seen_folder(folder: Path, name: str) -> Path:
    return folder / f"{name}.seen"


class CursorStore:
    """The cursor of one reader, for one run.  Everything blocks."""

    is_remote = False
    """Whether what is committed has to be published before it would survive this machine."""

    def __init__(self, folder: Path, name: str, query: Mapping[str, JSON], *, marks: bool = False) -> None:
        self.folder = folder
        self.name = name
        self.query = dict(query)
        self._width = 2 * _DIGEST_BYTES if marks else _DIGEST_BYTES
        self._lock: Lock | None = None
        self._slices: tuple[Slice, ...] = ()
        self._number = 0

    @property
    def place(self) -> str:
        """Where the cursor is, for people."""
        return str(cursor_path(self.folder, self.name))

    def read(self) -> Cursor | None:
        """What is stored, whoever has it; None where nothing is.  Raises `Stopped` (IFX701) at damage."""
        return read_cursor(self.folder, self.name)

    def take(self) -> None:
        """Be the one who reads under this name.  Raises `Stopped` (IFX702)."""
        if self._lock is None:
            self._lock = lock_cursor(self.folder, self.name)

    def replace(self, cursor: Cursor | None) -> None:
        """Store another cursor, which remembers nothing of what was seen; None forgets it.  The caller has taken it."""
        remove_cursor(self.folder, self.name)
        if cursor is not None:
            write_cursor(self.folder, self.name, cursor)

    def open(self) -> Position | None:
        """Take the cursor, and say where it is; None where this reader never ran.

        Raises `Stopped`: IFX702 in use, IFX701 damaged, IFX640 of another query.
        """
        self.take()
        cursor = read_cursor(self.folder, self.name)
        self._slices = ()
        if cursor is not None:
            if cursor.query != self.query:
                raise _other_query(self.place, cursor.query, self.query)
            # Digests of another width cannot be compared: what is looked at again is then published again.
            self._slices = cursor.slices if cursor.width == self._width else ()
        self._remove_unknown()
        return None if cursor is None else cursor.position

    def sieve(self, read: Read, column: str, *, whole: bool = False) -> Sieve:
        """What tells the new and the changed rows of a span from those that were seen; close it or commit it.

        With `whole` it is asked once, for what was made of all rows of the span (`sift_messages`).
        """
        return Sieve(self, read, column, whole=whole)

    def commit(self, position: Position, sieve: Sieve | None = None) -> None:
        """Store the position, and with it what `sieve` saw; returns when both would survive a crash."""
        slices: list[Slice] = []
        if sieve is not None:
            slices += sieve.finish()
            for old in self._slices:
                slices += _without(old, sieve.start, sieve.stop)
        else:
            slices += self._slices
        kept = tuple(sorted((each for each in slices if each.stop > position.checked), key=lambda each: each.start))
        write_cursor(self.folder, self.name, Cursor(self.query, position, kept, self._width))
        dropped = {each.file for each in self._slices} - {each.file for each in kept}
        self._slices = kept
        for file in dropped:
            (self.seen_folder / file).unlink(missing_ok=True)

    def publish(self) -> None:
        """Bring what was committed to where it survives; returns when it would.

        Raises `NotConnected`, and is then called again, or `Stopped`.  Nothing to do on a disk.
        """

    def close(self) -> None:
        """Let others take the cursor; idempotent."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # For sieves

    @property
    def seen_folder(self) -> Path:
        """Where the files of digests are."""
        return _seen_folder(self.folder, self.name)

    @property
    def width(self) -> int:
        """Bytes of an entry."""
        return self._width

    def slices(self, start: int, stop: int) -> list[Slice]:
        """What was seen of `[start, stop)`."""
        return [each for each in self._slices if each.start < stop and start < each.stop]

    def new_file(self) -> Path:
        """A name that is not in use."""
        self._number += 1
        return self.seen_folder / f"{self._number:08d}"

    def _remove_unknown(self) -> None:
        known = {each.file for each in self._slices}
        try:
            files = list(self.seen_folder.iterdir())
        except FileNotFoundError:
            return
        for file in files:
            if file.name not in known:
                file.unlink(missing_ok=True)
        self._number = max((int(name) for name in known if name.isdigit()), default=0)


class Sieve:
    """The rows of one span of time: which are to be published, and what has to be remembered of them.

    Where `needs_survey`, all rows are shown to `survey` before the first goes through `sift`, in the same order.
    """

    def __init__(self, store: CursorStore, read: Read, column: str, *, whole: bool = False) -> None:
        self.start, self.stop = read.start, read.stop
        self._store = store
        self._read = read
        self._column = column
        self._has_keys = store.width > _DIGEST_BYTES
        self._old = store.slices(read.start, min(read.stop, read.known)) if read.start < read.known else []
        # A slice with times that are out of date must not be asked for them: entries then carry their slice's number.
        self._starts = [each.start for each in self._old] if any(each.is_cut for each in self._old) else []
        size = sum(each.count for each in self._old) * store.width
        self.needs_survey = size > _IN_MEMORY_BYTES and not whole
        self._known: set[bytes] | dict[bytes, bytes] = set()
        self._survey: _Survey | None = None
        if self.needs_survey:
            self._survey = _Survey(store.seen_folder, min(size // _IN_MEMORY_BYTES + 1, _MOST_PARTS), self._key_bytes)
        elif self._has_keys:
            self._known = {entry[: self._key_bytes]: entry[self._key_bytes :] for entry in self._old_entries()}
        else:
            self._known = set(self._old_entries())
        self._file: IO[bytes] | None = None
        self._count = 0
        self._crc32 = 0
        self._sifted = 0

    def survey(self, rows: Sequence[Row], digests: Sequence[bytes]) -> None:
        """Look at rows that will be sifted later."""
        if self._survey is not None:
            self._survey.add(self._labelled(rows, self._entries(rows, digests)))

    def sift(self, rows: Sequence[Row], digests: Sequence[bytes]) -> list[tuple[int, Mark]]:
        """The indices of the rows that are to be published, each with what it is: new (""), late or changed."""
        read = self._read
        if read.keep >= read.stop and not self._old and read.known <= read.start:
            return [(index, "") for index in range(len(rows))]
        entries = self._entries(rows, digests)
        self._remember(rows, entries)
        if self._survey is None and isinstance(self._known, set):  # the usual case, sooner
            known, until, column = self._known, read.known, self._column
            fresh = [index for index, entry in enumerate(self._labelled(rows, entries)) if entry not in known]
            if until <= self.start:
                return [(index, "") for index in fresh]
            return [(index, "late" if rows[index].columns[column] < until else "") for index in fresh]  # type: ignore[operator]
        return [(index, self._mark(rows[index], changed)) for index, changed in self._fresh(rows, entries)]

    def sift_messages(self, digests: Sequence[bytes]) -> tuple[list[int], Mark]:
        """The indices of what was not sent of this span before, and what all of that is.

        Of a span that is sent as a whole, of which nobody cuts a part: the digests are those of its messages.
        """
        if self._read.keep < self.stop:
            self._write(digests)
        is_new = self._read.known <= self.start
        mark: Mark = "" if is_new else "changed" if self._known else "late"
        return [index for index, digest in enumerate(digests) if digest not in self._known], mark

    def _mark(self, row: Row, changed: bool) -> Mark:
        if changed:
            return "changed"
        return "late" if row.columns[self._column] < self._read.known else ""  # type: ignore[operator]  # an integer

    def finish(self) -> list[Slice]:
        """What was seen, on the disk."""
        file, self._file = self._file, None
        if file is None:
            return []
        file.flush()
        os.fsync(file.fileno())
        file.close()
        sync_folder(self._store.seen_folder)
        start = max(self._read.keep, self.start)
        return [Slice(start, self.stop, Path(file.name).name, self._count, self._crc32)]

    def close(self) -> None:
        """Forget what was seen, where it was not committed; idempotent."""
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
            self._file = None
        if self._survey is not None:
            self._survey.close()

    # --- entries: a digest, with a key before it where changes are told from late points ---

    @property
    def _key_bytes(self) -> int:
        """How much of an entry is the key, its slice's number included; 0 where there is none."""
        return (_DIGEST_BYTES + 2 * bool(self._starts)) if self._has_keys else 0

    def _entries(self, rows: Sequence[Row], digests: Sequence[bytes]) -> Sequence[bytes]:
        if not self._has_keys:
            return digests
        return [key + digest for key, digest in zip(key_rows(rows, self._column), digests, strict=True)]

    def _labelled(self, rows: Sequence[Row], entries: Sequence[bytes]) -> Sequence[bytes]:
        """The entries as they are looked for."""
        if not self._starts:
            return entries
        starts, column = self._starts, self._column
        return [
            max(bisect_right(starts, row.columns[column]) - 1, 0).to_bytes(2, "big") + entry  # type: ignore[type-var]
            for row, entry in zip(rows, entries, strict=True)
        ]

    def _old_entries(self) -> Iterator[bytes]:
        """What was seen, as it is looked for."""
        for number, each in enumerate(self._old):
            label = number.to_bytes(2, "big") if self._starts else b""
            for entry in _entries_of(self._store.seen_folder / each.file, each, self._store.width):
                yield label + entry if label else entry

    def _fresh(self, rows: Sequence[Row], entries: Sequence[bytes]) -> Iterator[tuple[int, bool]]:
        """The indices of what was not seen, and whether another value was."""
        if self._survey is not None:
            if not self._sifted:
                self._survey.compare(self._old_entries())
            yield from self._survey.fresh(self._sifted, len(rows))
            self._sifted += len(rows)
            return
        known, size = self._known, self._key_bytes
        assert isinstance(known, dict)  # noqa: S101  # `sift` has seen to the other case
        for index, entry in enumerate(self._labelled(rows, entries)):
            before = known.get(entry[:size])
            if before != entry[size:]:
                yield index, before is not None

    def _remember(self, rows: Sequence[Row], entries: Sequence[bytes]) -> None:
        keep, column = self._read.keep, self._column
        if keep > self.start:
            entries = [
                entry
                for entry, row in zip(entries, rows, strict=True)
                if row.columns[column] >= keep  # type: ignore[operator]
            ]
        self._write(entries)

    def _write(self, entries: Sequence[bytes]) -> None:
        if not entries:
            return
        if self._file is None:
            self._store.seen_folder.mkdir(parents=True, exist_ok=True)
            self._file = self._store.new_file().open("wb")
        data = b"".join(entries)
        self._file.write(data)
        self._count += len(entries)
        self._crc32 = zlib.crc32(data, self._crc32)


class _Survey:
    """Entries that are too many to be held at once: split by their first bytes into parts that are compared in turn."""

    def __init__(self, folder: Path, parts: int, key_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._parts = parts
        self._key_bytes = key_bytes
        self._folder = folder
        self._new = [self._spool() for _ in range(parts)]
        self._width = 0
        self._total = 0
        self._bits = bytearray()

    def add(self, entries: Sequence[bytes]) -> None:
        """The entries of rows, in their order."""
        for number, entry in enumerate(entries, self._total):
            self._new[self._part(entry)].write(entry + number.to_bytes(8, "big"))
        self._total += len(entries)
        if entries:
            self._width = len(entries[0])

    def compare(self, old: Iterator[bytes]) -> None:
        """Find out which of them are not among `old`."""
        self._bits = bytearray(self._total)
        spools = [self._spool() for _ in range(self._parts)]
        for entry in old:
            spools[self._part(entry)].write(entry)
        size = self._key_bytes
        for new, before in zip(self._new, spools, strict=True):
            width = self._width
            known: Any = (
                {entry[:size]: entry[size:] for entry in _pieces(before, width)}
                if size
                else dict.fromkeys(_pieces(before, width), b"")
            )
            for piece in _pieces(new, width + 8):
                entry = piece[:width]
                found = known.get(entry[:size] if size else entry)
                if found != entry[size:] if size else found is None:
                    self._bits[int.from_bytes(piece[width:], "big")] = 2 if found is not None else 1
            before.close()

    def fresh(self, first: int, count: int) -> Iterator[tuple[int, bool]]:
        """Those that are not, among `count` rows from the `first` on."""
        bits = self._bits[first : first + count]
        if any(bits):
            yield from ((index, bit == 2) for index, bit in enumerate(bits) if bit)

    def close(self) -> None:
        for spool in self._new:
            spool.close()

    def _part(self, entry: bytes) -> int:
        # From the end of what is looked for: the beginning may be a number.
        return entry[self._key_bytes - 1 if self._key_bytes else -1] % self._parts

    def _spool(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._folder)


def _pieces(file: IO[bytes], width: int) -> Iterator[bytes]:
    """What stands in a file, `width` bytes each."""
    file.seek(0)
    while width and (data := file.read(width * _CHUNK_ENTRIES)):
        yield from (data[start : start + width] for start in range(0, len(data), width))


def _entries_of(path: Path, expected: Slice, width: int) -> Iterator[bytes]:
    """The entries in a file.  Raises `Stopped` (IFX641) where it is not what was stored."""
    crc32 = count = 0
    try:
        with path.open("rb") as file:
            while data := file.read(width * _CHUNK_ENTRIES):
                crc32 = zlib.crc32(data, crc32)
                count += len(data) // width
                yield from (data[start : start + width] for start in range(0, len(data), width))
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if count != expected.count or crc32 != expected.crc32:
        raise _damaged(path, "its checksum does not fit")


def _without(old: Slice, start: int, stop: int) -> list[Slice]:
    """What is left of a slice when `[start, stop)` was read again."""
    if old.stop <= start or stop <= old.start:
        return [old]
    left = [replace(old, stop=start, is_cut=True)] if old.start < start else []
    right = [replace(old, start=stop, is_cut=True)] if stop < old.stop else []
    return left + right


def key_rows(rows: Sequence[Row], column: str) -> list[bytes]:
    """16 bytes for each row that say which point it is: measurement, tags, time.

    Where the server does not tell what is a tag, every column of text counts as one.
    """
    found = []
    for row in rows:
        columns = row.columns
        if row.tags is not None:
            named: list[JSON] = [columns.get(name) for name in row.tags]
        else:
            named = [
                name_or_value for pair in sorted(columns.items()) if isinstance(pair[1], str) for name_or_value in pair
            ]
        found.append(blake2b(_pack([row.measurement, columns[column], named]), digest_size=_DIGEST_BYTES).digest())
    return found


def _damaged(path: Path, reason: str) -> Stopped:
    hint = "put back a copy, or `iggyflux cursor set`: what lies in the overlap is then sent again"
    return Stopped(f"cannot use the digests in {path}: {reason}", hint, "IFX641")


def _other_query(place: str, stored: Mapping[str, JSON], now: Mapping[str, JSON]) -> Stopped:
    keys = [key for key in {**stored, **now} if stored.get(key) != now.get(key)]
    told = ", ".join(f"{key} was {stored.get(key)!r} and is {now.get(key)!r}" for key in keys)
    hint = "`iggyflux cursor set` goes on from there with this query, `cursor reset` begins anew"
    return Stopped(f"the cursor {place} is of another query: {told}", hint, "IFX640")
