"""How far readers have come: positions in the time line, and digests of what may have to be looked at again.

Both are in one `StateStore`: the record is the cursor, which names the *slices* of time whose digests are kept, and a
blob holds the digests of a slice, 16 bytes a row (32 with keys, for marks).  So one commit moves position and memory.

A *sieve* tells, row by row, what of a window is new or changed.  What was seen in a slice of time is what was there
when it was read last: a value that goes and comes back is published again.  Memory is bounded whatever a window holds:
where the digests of a window are too many to be held at once, the rows are gone through twice, and compared part by
part.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import msgspec

from iggyflux.delivery.windows import Position, Read
from iggyflux.errors import Stopped
from iggyflux.records import JSON, Row
from iggyflux.state.sqlite import SUFFIX, SqliteState
from iggyflux.state.store import StateStore

_DIGEST_BYTES = 16
_IN_MEMORY_BYTES = 200_000 * _DIGEST_BYTES
"""How many bytes of digests are held at once: in sets they take some seven times as much."""
_MOST_PARTS = 256
_CHUNK_ENTRIES = 50_000
_WAY_ON = (
    "`iggyflux cursor set` goes on with this release from a time, such as `done` in the file (nanoseconds), and "
    "`cursor reset` begins anew: what was sent is then sent again, with the same ids"
)

Mark: TypeAlias = Literal["", "late", "changed"]

_pack = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Slice:
    """Digests of the rows of `[start, stop)`, in the blob `number`, which may hold some of other times too."""

    start: int
    stop: int
    number: int
    count: int
    is_cut: bool = False
    """Whether times beside `[start, stop)` in the blob are out of date."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is stored: whose query, how far, and what was seen of what may be looked at again.

    `width` is the number of bytes of an entry: a digest, or a key and a digest.
    """

    query: Mapping[str, JSON]
    position: Position
    slices: tuple[Slice, ...] = ()
    width: int = _DIGEST_BYTES


def cursor_state(folder: Path, name: str) -> SqliteState:
    """The state of the reader `name`, on disk in `folder`."""
    path = folder / f"{name}.cursor{SUFFIX}"
    previous = folder / f"{name}.cursor.json"
    return SqliteState(path, "cursor", name, f"the cursor {name!r}", previous=previous, way_on=_WAY_ON)


class CursorStore:
    """The cursor of one reader, for one run.

    Everything blocks, and may raise what the state raises: where that is a `NotConnected`, the call is repeated.
    """

    def __init__(self, state: StateStore, name: str, query: Mapping[str, JSON], *, marks: bool = False) -> None:
        self.name = name
        self.query = dict(query)
        self._state = state
        self._width = 2 * _DIGEST_BYTES if marks else _DIGEST_BYTES
        self._slices: tuple[Slice, ...] = ()
        self._blobs: frozenset[int] = frozenset()
        self._number = 0

    @property
    def place(self) -> str:
        """Where the cursor is, for people."""
        return self._state.place

    def read(self) -> Cursor | None:
        """Return what is stored, whoever has it; None where nothing is.  Raise `Stopped` (IFX701) at damage."""
        record = self._state.read()
        if record is None:
            return None
        try:
            return _cursor_of(record)
        except (KeyError, TypeError, ValueError) as error:
            hint = "put back a copy, or `iggyflux cursor reset`: what was sent is then sent again"
            raise Stopped(f"cannot use the positions in {self.place}: {error!r}", hint, "IFX701") from error

    def take(self) -> None:
        """Become the one who reads under this name.  Raise `Stopped` (IFX702) naming who does already."""
        self._state.take()

    def replace(self, cursor: Cursor | None) -> None:
        """Store a cursor that remembers nothing, whatever is there; None forgets it.  The caller has taken it."""
        self._state.replace(None if cursor is None else _record_of(self.name, cursor))

    def open(self) -> Position | None:
        """Take the cursor and return where it is; None where this reader never ran.

        Raise `Stopped`: IFX702 in use, IFX701 damaged, IFX640 of another query.
        """
        self.take()
        cursor = self.read()
        self._slices, self._blobs, self._number = (), frozenset(), 0
        if cursor is None:
            return None
        if cursor.query != self.query:
            raise _other_query(self.place, cursor.query, self.query)
        # Digests of another width cannot be compared: what is looked at again is then published again.
        self._slices = cursor.slices if cursor.width == self._width else ()
        self._blobs = frozenset(each.number for each in cursor.slices)
        self._number = max(self._blobs, default=0)
        return cursor.position

    def sieve(self, read: Read, column: str, *, whole: bool = False) -> Sieve:
        """What tells the new and the changed rows of a span from those that were seen; close it in any case.

        With `whole` it is asked once, for what was made of all rows of the span (`sift_messages`).
        """
        return Sieve(self, read, column, whole=whole)

    def commit(self, position: Position, sieve: Sieve | None = None) -> None:
        """Store the position, and with it what `sieve` saw; return when both would survive a crash."""
        slices, added = list(self._slices), {}
        if sieve is not None:
            slices = [left for old in self._slices for left in _without(old, sieve.start, sieve.stop)]
            if (seen := sieve.finish()) is not None:
                slices.append(seen[0])
                added = {seen[0].number: seen[1]}
        kept = tuple(sorted((each for each in slices if each.stop > position.checked), key=lambda each: each.start))
        numbers = frozenset(each.number for each in kept)
        self._state.commit(
            _record_of(self.name, Cursor(self.query, position, kept, self._width)),
            added={number: file for number, file in added.items() if number in numbers},
            dropped=self._blobs - numbers,
        )
        self._slices, self._blobs = kept, numbers

    def close(self) -> None:
        """Let others take the cursor; idempotent."""
        self._state.close()

    # For sieves

    @property
    def width(self) -> int:
        """Bytes of an entry."""
        return self._width

    def slices(self, start: int, stop: int) -> list[Slice]:
        """What was seen of `[start, stop)`."""
        return [each for each in self._slices if each.start < stop and start < each.stop]

    def entries(self, of: Slice) -> Iterator[bytes]:
        """Return the entries of a blob.  Raise `Stopped` (IFX641) where they are not what was stored."""
        width, count = self._width, 0
        for data in self._state.blob(of.number):
            count += len(data) // width
            yield from (data[start : start + width] for start in range(0, len(data), width))
        if count != of.count:
            hint = "put back a copy, or `iggyflux cursor set`: what lies in the overlap is then sent again"
            raise Stopped(
                f"cannot use the digests in {self.place}, number {of.number}: some are missing", hint, "IFX641"
            )

    def new_number(self) -> int:
        """A number of a blob that is not in use."""
        self._number += 1
        return self._number


def _record_of(name: str, cursor: Cursor) -> dict[str, Any]:
    position = cursor.position
    return {
        "reader": name,
        "query": cursor.query,
        "checked": position.checked,
        "done": position.done,
        "gap": position.gap,
        "width": cursor.width,
        "slices": [
            {"start": each.start, "stop": each.stop, "number": each.number, "count": each.count, "is_cut": each.is_cut}
            for each in cursor.slices
        ],
    }


def _cursor_of(record: Any) -> Cursor:
    gap = record["gap"]
    return Cursor(
        record["query"],
        Position(record["checked"], record["done"], None if gap is None else (gap[0], gap[1])),
        tuple(Slice(**each) for each in record["slices"]),
        record["width"],
    )


class Sieve:
    """The rows of one span of time: which are to be published, and what has to be remembered of them.

    Where `needs_survey`, all rows are shown to `survey`, then `compare` is called, and then the rows go through `sift`,
    in the same order.  Making a sieve and `compare` read the state: not in an event loop.
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
            self._survey = _Survey(min(size // _IN_MEMORY_BYTES + 1, _MOST_PARTS), self._key_bytes)
        elif self._has_keys:
            self._known = {entry[: self._key_bytes]: entry[self._key_bytes :] for entry in self._old_entries()}
        else:
            self._known = set(self._old_entries())
        self._file: IO[bytes] | None = None
        self._count = 0
        self._number: int | None = None
        self._sifted = 0

    def survey(self, rows: Sequence[Row], digests: Sequence[bytes]) -> None:
        """Look at rows that will be sifted later."""
        if self._survey is not None:
            self._survey.add(self._labelled(rows, self._entries(rows, digests)))

    def compare(self) -> None:
        """Find out which rows of the survey are to be published."""
        if self._survey is not None:
            self._survey.compare(self._old_entries())

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

    def finish(self) -> tuple[Slice, IO[bytes]] | None:
        """Return what was seen and its entries; None where nothing was.  May be called again."""
        if self._file is None:
            return None
        if self._number is None:
            self._number = self._store.new_number()
        start = max(self._read.keep, self.start)
        return Slice(start, self.stop, self._number, self._count), self._file

    def close(self) -> None:
        """Forget what was seen, where it was not committed; idempotent."""
        if self._file is not None:
            self._file.close()
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
            for entry in self._store.entries(each):
                yield label + entry if label else entry

    def _fresh(self, rows: Sequence[Row], entries: Sequence[bytes]) -> Iterator[tuple[int, bool]]:
        """The indices of what was not seen, and whether another value was."""
        if self._survey is not None:
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
        with _spooling():
            if self._file is None:
                self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  # `close`
            self._file.write(b"".join(entries))
        self._count += len(entries)


class _Survey:
    """Entries that are too many to be held at once: split by their first bytes into parts that are compared in turn."""

    def __init__(self, parts: int, key_bytes: int) -> None:
        self._parts = parts
        self._key_bytes = key_bytes
        with _spooling():
            self._new: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(parts)]  # noqa: SIM115  # `close`
        self._width = 0
        self._total = 0
        self._bits = bytearray()

    def add(self, entries: Sequence[bytes]) -> None:
        """The entries of rows, in their order."""
        with _spooling():
            for number, entry in enumerate(entries, self._total):
                self._new[self._part(entry)].write(entry + number.to_bytes(8, "big"))
        self._total += len(entries)
        if entries:
            self._width = len(entries[0])

    def compare(self, old: Iterator[bytes]) -> None:
        """Find out which of them are not among `old`."""
        self._bits = bytearray(self._total)
        with _spooling():
            spools: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(self._parts)]  # noqa: SIM115  # below
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


def _pieces(file: IO[bytes], width: int) -> Iterator[bytes]:
    """What stands in a file, `width` bytes each."""
    file.seek(0)
    while width and (data := file.read(width * _CHUNK_ENTRIES)):
        yield from (data[start : start + width] for start in range(0, len(data), width))


@contextmanager
def _spooling() -> Iterator[None]:
    """Translate what the system raises about temporary files."""
    try:
        yield
    except OSError as error:
        hint = "free space in the temporary directory (TMPDIR), and run again: nothing is lost"
        raise Stopped(f"cannot write temporary files: {error.strerror}", hint, "IFX701") from error


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


def _other_query(place: str, stored: Mapping[str, JSON], now: Mapping[str, JSON]) -> Stopped:
    keys = [key for key in {**stored, **now} if stored.get(key) != now.get(key)]
    told = ", ".join(f"{key} was {stored.get(key)!r} and is {now.get(key)!r}" for key in keys)
    hint = "`iggyflux cursor set` goes on from there with this query, `cursor reset` begins anew"
    return Stopped(f"the cursor {place} is of another query: {told}", hint, "IFX640")
