"""Which rows of a span are new, late or changed, and which digests to keep.

The digests of a slice of time are those of its last read.  So a value that changes and changes back is published again.
Memory is bounded for every span: where its digests do not fit into memory, the rows are read twice and compared part by
part.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import IO, Any

import msgspec

from iggyflux.cursors.slices import DIGEST_BYTES, Mark, Slice, SliceStore
from iggyflux.delivery.windows import Read
from iggyflux.errors import Stopped
from iggyflux.records import JSON, Row

MEMORY_BYTES = 200_000 * DIGEST_BYTES
"""The most bytes of digests in memory: as a set they take about seven times as much."""
_MOST_PARTS = 256
_CHUNK_ENTRIES = 50_000

_pack = msgspec.msgpack.Encoder(order="deterministic").encode


class Deduplicator:
    """The rows of one span of time: which of them to publish, and which digests to keep.

    If `needs_survey`, pass all rows to `survey`, call `compare`, then pass the rows to `select` in the same order.
    The constructor and `compare` read the state, so do not call them in an event loop.
    """

    def __init__(self, store: SliceStore, read: Read, column: str, *, whole: bool = False) -> None:
        self.start, self.stop = read.start, read.stop
        self._store = store
        self._read = read
        self._column = column
        self._has_keys = store.width > DIGEST_BYTES
        self._old = store.slices(read.start, min(read.stop, read.known)) if read.start < read.known else []
        # A slice with outdated times must not be searched for them.  Then every entry carries the number of its slice.
        self._starts = [each.start for each in self._old] if any(each.is_cut for each in self._old) else []
        size = sum(each.count for each in self._old) * store.width
        self.needs_survey = size > store.memory_bytes and not whole
        self._known: set[bytes] | dict[bytes, bytes] = set()
        self._survey: _Survey | None = None
        if self.needs_survey:
            self._survey = _Survey(min(size // store.memory_bytes + 1, _MOST_PARTS), self._key_bytes)
        elif self._has_keys:
            self._known = {entry[: self._key_bytes]: entry[self._key_bytes :] for entry in self._old_entries()}
        else:
            self._known = set(self._old_entries())
        self._file: IO[bytes] | None = None
        self._count = 0
        self._number: int | None = None
        self._selected = 0

    def survey(self, rows: Sequence[Row], digests: Sequence[bytes]) -> None:
        """Take rows that will be selected later."""
        if self._survey is not None:
            self._survey.add(self._labelled(rows, self._entries(rows, digests)))

    def compare(self) -> None:
        """Find out which rows of the survey to publish."""
        if self._survey is not None:
            self._survey.compare(self._old_entries())

    def select(self, rows: Sequence[Row], digests: Sequence[bytes]) -> list[tuple[int, Mark]]:
        """Return the indices of the rows to publish, each with its mark: new (""), late or changed."""
        read = self._read
        if read.keep >= read.stop and not self._old and read.known <= read.start:
            return [(index, "") for index in range(len(rows))]
        entries = self._entries(rows, digests)
        self._remember(rows, entries)
        if self._survey is None and isinstance(self._known, set):  # the usual case, faster
            known, until, column = self._known, read.known, self._column
            fresh = [index for index, entry in enumerate(self._labelled(rows, entries)) if entry not in known]
            if until <= self.start:
                return [(index, "") for index in fresh]
            return [(index, "late" if rows[index].columns[column] < until else "") for index in fresh]  # type: ignore[operator]
        return [(index, self._mark(rows[index], changed)) for index, changed in self._fresh(rows, entries)]

    def select_messages(self, digests: Sequence[bytes]) -> tuple[list[int], Mark]:
        """Return the indices of the messages that were not sent for this span before, and the mark of all of them.

        For a span that is sent as a whole and never cut: `digests` are those of its messages.
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
        """Return the slice that was seen and its entries; None if it is empty.  May be called again."""
        if self._file is None:
            return None
        if self._number is None:
            self._number = self._store.new_number()
        start = max(self._read.keep, self.start)
        return Slice(start, self.stop, self._number, self._count), self._file

    def close(self) -> None:
        """Drop what was seen and not committed; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._survey is not None:
            self._survey.close()

    # --- entries: a digest, after a key where changed rows are distinguished from late ones ---

    @property
    def _key_bytes(self) -> int:
        """The length of the key in an entry, with the number of its slice; 0 if there is no key."""
        return (DIGEST_BYTES + 2 * bool(self._starts)) if self._has_keys else 0

    def _entries(self, rows: Sequence[Row], digests: Sequence[bytes]) -> Sequence[bytes]:
        if not self._has_keys:
            return digests
        return [key + digest for key, digest in zip(key_rows(rows, self._column), digests, strict=True)]

    def _labelled(self, rows: Sequence[Row], entries: Sequence[bytes]) -> Sequence[bytes]:
        """Return the entries as they are searched for, with the numbers of their slices if needed."""
        if not self._starts:
            return entries
        starts, column = self._starts, self._column
        return [
            max(bisect_right(starts, row.columns[column]) - 1, 0).to_bytes(2, "big") + entry  # type: ignore[type-var]
            for row, entry in zip(rows, entries, strict=True)
        ]

    def _old_entries(self) -> Iterator[bytes]:
        """Return the entries seen before, as they are searched for."""
        for number, each in enumerate(self._old):
            label = number.to_bytes(2, "big") if self._starts else b""
            for entry in self._store.entries(each):
                yield label + entry if label else entry

    def _fresh(self, rows: Sequence[Row], entries: Sequence[bytes]) -> Iterator[tuple[int, bool]]:
        """Return the indices of the rows not seen before, and whether another value of the point was seen."""
        if self._survey is not None:
            yield from self._survey.fresh(self._selected, len(rows))
            self._selected += len(rows)
            return
        known, size = self._known, self._key_bytes
        assert isinstance(known, dict)  # noqa: S101  # `select` has handled the other case
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
                self._file = tempfile.SpooledTemporaryFile(self._store.memory_bytes)  # noqa: SIM115  # `close`
            self._file.write(b"".join(entries))
        self._count += len(entries)


class _Survey:
    """Entries that do not fit into memory: distributed over parts by one byte, and compared part by part."""

    def __init__(self, parts: int, key_bytes: int) -> None:
        self._parts = parts
        self._key_bytes = key_bytes
        with _spooling():
            self._new: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(parts)]  # noqa: SIM115  # `close`
        self._width = 0
        self._total = 0
        self._bits = bytearray()

    def add(self, entries: Sequence[bytes]) -> None:
        """Add the entries of rows, in their order."""
        with _spooling():
            for number, entry in enumerate(entries, self._total):
                self._new[self._part(entry)].write(entry + number.to_bytes(8, "big"))
        self._total += len(entries)
        if entries:
            self._width = len(entries[0])

    def compare(self, old: Iterator[bytes]) -> None:
        """Find out which of the added entries are not among `old`."""
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
        """Return those that are not, of the `count` rows from `first` on, and whether another value was seen."""
        bits = self._bits[first : first + count]
        if any(bits):
            yield from ((index, bit == 2) for index, bit in enumerate(bits) if bit)

    def close(self) -> None:
        for spool in self._new:
            spool.close()

    def _part(self, entry: bytes) -> int:
        # From the end of what is searched for: its beginning may be the number of a slice.
        return entry[self._key_bytes - 1 if self._key_bytes else -1] % self._parts


def _pieces(file: IO[bytes], width: int) -> Iterator[bytes]:
    """Return the content of a file in pieces of `width` bytes."""
    file.seek(0)
    while width and (data := file.read(width * _CHUNK_ENTRIES)):
        yield from (data[start : start + width] for start in range(0, len(data), width))


@contextmanager
def _spooling() -> Iterator[None]:
    """Translate the system's errors about temporary files."""
    try:
        yield
    except OSError as error:
        hint = "free space in the temporary directory (TMPDIR), and run again; nothing is lost"
        raise Stopped(f"cannot write temporary files: {error.strerror}", hint, "IFX701") from error


def key_rows(rows: Sequence[Row], column: str) -> list[bytes]:
    """Return 16 bytes for each row that identify its point: measurement, tags, time.

    A tag that the row lacks does not count: the server names those of all series.  Where it does not say which columns
    are tags, every string column counts as one.
    """
    found = []
    for row in rows:
        columns = row.columns
        if row.tags is not None:
            pairs = [(name, columns[name]) for name in sorted(row.tags) if columns.get(name) is not None]
        else:
            pairs = [pair for pair in sorted(columns.items()) if isinstance(pair[1], str)]
        named: list[JSON] = [name_or_value for pair in pairs for name_or_value in pair]
        found.append(blake2b(_pack([row.measurement, columns[column], named]), digest_size=DIGEST_BYTES).digest())
    return found
