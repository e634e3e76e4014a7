"""Cursors of readers: the position on the time line, and digests of the rows that may be read again.

Both are in one `StateStore`.  The record is the cursor, which names the *slices* of time whose digests are kept.  A
blob holds the digests of a slice, 16 bytes a row (32 with keys, for marks).  So one commit stores position and digests.

A *deduplicator* (see `deduplicator`) selects which rows of a window are new or changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iggyflux.cursors.deduplicator import MEMORY_BYTES, Deduplicator
from iggyflux.cursors.slices import DIGEST_BYTES, Slice
from iggyflux.delivery.windows import Read, ReadPosition
from iggyflux.disk import file_name
from iggyflux.errors import Stopped
from iggyflux.records import JSON
from iggyflux.state.sqlite import SUFFIX, SqliteState
from iggyflux.state.store import StateStore

_UPGRADE_HINT = (
    "`iggyflux cursor set` continues with this release from a time, such as `done` in the file (nanoseconds); "
    "`cursor reset` begins at `start`; rows are then sent again, with the same ids"
)


@dataclass(frozen=True, slots=True)
class StoredCursor:
    """What is stored: the query, the position, and the slices whose digests are kept.

    `width` is the number of bytes of an entry: a digest, or a key and a digest.  `window` is the span of a large window
    that is being sent: if a process finds it, the one before died in that window.
    """

    query: Mapping[str, JSON]
    position: ReadPosition
    slices: tuple[Slice, ...] = ()
    width: int = DIGEST_BYTES
    window: int | None = None


def cursor_state(folder: Path, name: str) -> SqliteState:
    """Return the state of the reader `name`, on disk in `folder`."""
    path = folder / f"{file_name(name)}.cursor{SUFFIX}"
    previous = folder / f"{file_name(name)}.cursor.json"
    return SqliteState(path, "cursor", name, f"the cursor {name!r}", previous=previous, upgrade_hint=_UPGRADE_HINT)


class CursorStore:
    """The cursor of one reader, for one run.

    Every call blocks, and may raise what the state raises.  After a `NotConnected` the call is repeated.  At most
    `memory_bytes` of digests are in memory.
    """

    def __init__(
        self,
        state: StateStore,
        name: str,
        query: Mapping[str, JSON],
        *,
        marks: bool = False,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.name = name
        self.query = dict(query)
        self.memory_bytes = memory_bytes
        self._state = state
        self._width = 2 * DIGEST_BYTES if marks else DIGEST_BYTES
        self._slices: tuple[Slice, ...] = ()
        self._blobs: frozenset[int] = frozenset()
        self._number = 0
        self.unfinished_window: int | None = None
        """The span of the window in which the process before this one died; known after `open`."""

    @property
    def place(self) -> str:
        """Where the cursor is, for people."""
        return self._state.place

    def read(self) -> StoredCursor | None:
        """Return the stored cursor, or None; needs no `take`.  Raise `Stopped` (IFX701) if it is damaged."""
        record = self._state.read()
        if record is None:
            return None
        try:
            return _cursor_of(record)
        except (KeyError, TypeError, ValueError) as error:
            hint = "restore a backup, or run `iggyflux cursor reset`; rows are then sent again"
            raise Stopped(f"cannot use the positions in {self.place}: {error!r}", hint, "IFX701") from error

    def take(self) -> None:
        """Lock the cursor for this process.  Raise `Stopped` (IFX702), naming the owner, if another process reads."""
        self._state.take()

    def replace(self, cursor: StoredCursor | None) -> None:
        """Store a cursor without digests in place of any other; None removes it.  Call `take` first."""
        self._state.replace(None if cursor is None else _record_of(self.name, cursor))

    def open(self) -> ReadPosition | None:
        """Take the cursor and return its position; None if this reader never ran.

        Raise `Stopped`: IFX702 in use, IFX701 damaged, IFX640 of another query.
        """
        self.take()
        cursor = self.read()
        self._slices, self._blobs, self._number = (), frozenset(), 0
        if cursor is None:
            return None
        if cursor.query != self.query:
            raise _other_query(self.place, cursor.query, self.query)
        # Digests of another width cannot be compared: rows that are read again are then published again.
        self._slices = cursor.slices if cursor.width == self._width else ()
        self._blobs = frozenset(each.number for each in cursor.slices)
        self._number = max(self._blobs, default=0)
        self.unfinished_window = cursor.window
        return cursor.position

    def deduplicator(self, read: Read, column: str, *, whole: bool = False) -> Deduplicator:
        """Return what finds the new and changed rows of a span; always close it.

        With `whole` it is asked once, about the messages made of all rows of the span (`select_messages`).
        """
        return Deduplicator(self, read, column, whole=whole)

    def commit(
        self, position: ReadPosition, deduplicator: Deduplicator | None = None, *, window: int | None = None
    ) -> None:
        """Store the position and what `deduplicator` saw; return when both would survive a crash.

        `window` is the span of a large window that begins now.
        """
        slices, added = list(self._slices), {}
        if deduplicator is not None:
            slices = [left for old in self._slices for left in _without(old, deduplicator.start, deduplicator.stop)]
            if (seen := deduplicator.finish()) is not None:
                slices.append(seen[0])
                added = {seen[0].number: seen[1]}
        kept = tuple(sorted((each for each in slices if each.stop > position.checked), key=lambda each: each.start))
        numbers = frozenset(each.number for each in kept)
        self._state.commit(
            _record_of(self.name, StoredCursor(self.query, position, kept, self._width, window)),
            added={number: file for number, file in added.items() if number in numbers},
            dropped=self._blobs - numbers,
        )
        self._slices, self._blobs = kept, numbers

    def close(self) -> None:
        """Release the cursor; idempotent.  Another process may take it then."""
        self._state.close()

    # As a `SliceStore`, for deduplicators

    @property
    def width(self) -> int:
        """The number of bytes of an entry."""
        return self._width

    def slices(self, start: int, stop: int) -> list[Slice]:
        """Return the stored slices that overlap `[start, stop)`."""
        return [each for each in self._slices if each.start < stop and start < each.stop]

    def entries(self, of: Slice) -> Iterator[bytes]:
        """Return the entries of a blob.  Raise `Stopped` (IFX641) if they are not what was stored."""
        width, count = self._width, 0
        for data in self._state.blob(of.number):
            count += len(data) // width
            yield from (data[start : start + width] for start in range(0, len(data), width))
        if count != of.count:
            hint = "restore a backup, or run `iggyflux cursor set`; rows of the overlap are then sent again"
            raise Stopped(
                f"cannot use the digests in {self.place}, number {of.number}: some are missing", hint, "IFX641"
            )

    def new_number(self) -> int:
        """Return a number that no blob has."""
        self._number += 1
        return self._number


def _record_of(name: str, cursor: StoredCursor) -> dict[str, Any]:
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
        **({} if cursor.window is None else {"window": cursor.window}),
    }


def _cursor_of(record: Any) -> StoredCursor:
    gap = record["gap"]
    return StoredCursor(
        record["query"],
        ReadPosition(record["checked"], record["done"], None if gap is None else (gap[0], gap[1])),
        tuple(Slice(**each) for each in record["slices"]),
        record["width"],
        record.get("window"),
    )


def _without(old: Slice, start: int, stop: int) -> list[Slice]:
    """Return what remains valid of a slice after `[start, stop)` was read again."""
    if old.stop <= start or stop <= old.start:
        return [old]
    left = [replace(old, stop=start, is_cut=True)] if old.start < start else []
    right = [replace(old, start=stop, is_cut=True)] if stop < old.stop else []
    return left + right


def _other_query(place: str, stored: Mapping[str, JSON], now: Mapping[str, JSON]) -> Stopped:
    keys = [key for key in {**stored, **now} if stored.get(key) != now.get(key)]
    changes = ", ".join(f"{key} was {stored.get(key)!r} and is {now.get(key)!r}" for key in keys)
    hint = "run `iggyflux cursor set` to continue from there with this query, or `cursor reset` to begin at `start`"
    return Stopped(f"the cursor {place} belongs to another query: {changes}", hint, "IFX640")
