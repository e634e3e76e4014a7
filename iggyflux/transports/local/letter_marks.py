"""What replays made of dead letters: `replayed.sqlite` in their folder.

A mark says that all points of a letter were accepted, and is made only then; a crash between costs one more send of the
same points.  Of a letter that failed again the reasons of its newest failure are kept, which replace those in its line.
Both name the letter by its digest, so they hold wherever in the folder the line is, and are on disk when `add` returns.
What is newest decides, as a message that fails once more is kept with the same words:

| newest of a letter        | is replayed | its reasons                                                             |
|---------------------------|-------------|-------------------------------------------------------------------------|
| it was kept               | no          | those in its line                                                       |
| a replay had it accepted  | yes         | those of the last replay that failed since it was kept; else in its line |
| a replay failed           | no          | those of that replay                                                    |

Marks outlive their letters until `forget_others`; one without a letter means nothing.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from iggyflux.disk import open_private
from iggyflux.errors import Stopped
from iggyflux.records import Reason
from iggyflux.state.sqlite import BUSY_SECONDS, connect
from iggyflux.transports.local.deadletters import dead_letter_files, kept_us, letter_digest, letter_lines

FILE: Final = "replayed.sqlite"
_APPLICATION: Final = 0x49465852  # "IFXR", in the header of the file
_FORMAT: Final = 1
_NO_REPLAY: Final = 1 << 62
_FAILED: Final = """
CREATE TABLE IF NOT EXISTS failed (letter BLOB PRIMARY KEY, at_us INTEGER NOT NULL, reasons BLOB NOT NULL) WITHOUT ROWID
"""
"""Files of older versions do not have it."""
_FORGET_OLDER_REPLAY: Final = """
DELETE FROM replayed WHERE letter = ? AND at_us <= (SELECT at_us FROM failed WHERE failed.letter = replayed.letter)
"""
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS replayed (letter BLOB PRIMARY KEY, at_us INTEGER NOT NULL, replay INTEGER NOT NULL)
    WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a letter since it was kept, by the table above.  Times are in microseconds since the epoch."""

    newest_us: int
    """When the newest of it was."""
    replayed_us: int | None = None
    """None if the letter does not count as replayed."""
    failed_us: int | None = None
    reasons: tuple[Reason, ...] = ()
    """Why it failed again last; empty if it did not."""


def fate(kept_us: int, replayed_us: int | None, failed: tuple[int, tuple[Reason, ...]] | None) -> Fate:
    """Return what became of a letter that was kept then (0: not known), replayed last then, and failed again last.

    Of one time, a replay is later than a letter, and a failure than a replay: so a letter is rather sent once more.
    """
    replayed = -1 if replayed_us is None or replayed_us < kept_us else replayed_us
    failed_us, reasons = (-1, ()) if failed is None or failed[0] < kept_us else failed
    return Fate(
        max(kept_us, replayed_us or 0, failed[0] if failed is not None else 0),
        replayed if replayed > failed_us else None,
        None if failed_us < 0 else failed_us,
        reasons,
    )


def count_letters(folder: Path) -> tuple[int, int]:
    """Return how many letters a folder has, and how many of them were replayed.

    Raise `OSError` if it cannot be read, and `Stopped` (IFX719).
    """
    count = replayed = 0
    with closing(Marks(folder)) as marks:
        replays = marks.replays()
    for file in dead_letter_files(folder):
        with file.open("rb") as data:
            if not replays:
                count += sum(block.count(b"\n") for block in iter(lambda: data.read(2**20), b""))
                continue
            for line, place in letter_lines(data.readline, file):
                if place:
                    count += 1
                    when, failed_us = replays.get(letter_digest(line), (None, None))
                    failed = None if failed_us is None else (failed_us, ())
                    replayed += fate(kept_us(line), when, failed).replayed_us is not None
    return count, replayed


class Marks:
    """The marks of a folder, for several threads.

    Calls block.  They raise `Stopped` (IFX719) if the file cannot be used.
    """

    def __init__(self, folder: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        """`busy_seconds` is how long a call waits for another process that has locked the file."""
        self.path = folder / FILE
        self._busy_seconds = busy_seconds
        self._connection: sqlite3.Connection | None = None
        self._replay: int | None = None
        self._has_failed = False
        """Whether the file is known to have that table."""
        self._one_thread = threading.RLock()

    def when(self, digest: bytes) -> int | None:
        """Return when the letter was replayed, in microseconds since the epoch; None if it was not.

        After `begin`, marks made since then are not seen.
        """
        connection = self._open(create=False)
        if connection is None:
            return None
        with self._errors():
            found = connection.execute(
                "SELECT at_us FROM replayed WHERE letter = ? AND replay < ?", (digest, self._replay or _NO_REPLAY)
            ).fetchone()
        return None if found is None else int(found[0])

    def failed(self, digest: bytes) -> tuple[int, tuple[Reason, ...]] | None:
        """Return when the letter failed again last, in microseconds since the epoch, and why; None if it did not."""
        connection = self._open(create=False)
        if connection is None:
            return None
        with self._errors():
            if not self._knows_failures(connection):
                return None
            found = connection.execute("SELECT at_us, reasons FROM failed WHERE letter = ?", (digest,)).fetchone()
        return None if found is None else (int(found[0]), msgspec.json.decode(found[1], type=tuple[Reason, ...]))

    def fate(self, digest: bytes, kept_us: int) -> Fate:
        """Return what became of the letter with this digest that was kept then."""
        return fate(kept_us, self.when(digest), self.failed(digest))

    def replays(self) -> dict[bytes, tuple[int, int | None]]:
        """Return when each letter was replayed, and failed again last: a look for each takes ten times as long."""
        connection = self._open(create=False)
        if connection is None:
            return {}
        with self._errors():
            if self._knows_failures(connection):
                query = "SELECT letter, replayed.at_us, failed.at_us FROM replayed LEFT JOIN failed USING (letter)"
            else:
                query = "SELECT letter, at_us, NULL FROM replayed"
            return {letter: (replayed, failed) for letter, replayed, failed in connection.execute(query)}

    def begin(self) -> None:
        """Begin a replay: make the file, so that nothing is sent where marks cannot be kept; idempotent."""
        if self._replay is not None:
            return
        connection = self._open(create=True)
        assert connection is not None  # noqa: S101
        with self._errors():
            (last,) = connection.execute("SELECT coalesce(max(replay), 0) FROM replayed").fetchone()
        self._replay = last + 1

    def add(self, digests: Iterable[bytes], at_us: int, failed: Mapping[bytes, Sequence[Reason]] | None = None) -> None:
        """Mark letters as replayed by the replay that has begun, if one has, and keep why others `failed` again then.

        What a later replay made of them stays.  All is durable when it returns.
        """
        connection = self._open(create=True)
        assert connection is not None  # noqa: S101
        rows = [(digest, at_us, self._replay or 0) for digest in digests]
        reasons = [(digest, at_us, msgspec.json.encode(given)) for digest, given in (failed or {}).items()]
        with self._errors(), _transaction(connection):
            connection.executemany(
                "INSERT INTO replayed VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at_us = excluded.at_us, "
                "replay = excluded.replay WHERE excluded.at_us >= at_us",
                rows,
            )
            connection.execute(_FAILED)
            connection.executemany(
                "INSERT INTO failed VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at_us = excluded.at_us, "
                "reasons = excluded.reasons WHERE excluded.at_us >= at_us",
                reasons,
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make what is added inside durable together, at the end: each commit waits for the disk."""
        connection = self._open(create=True)
        assert connection is not None  # noqa: S101
        with self._errors():
            connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.rollback()
            raise
        with self._errors():
            connection.execute("COMMIT")

    def forget(self, digests: Iterable[bytes], *, only_reasons: bool = False) -> None:
        """Remove what is known of these letters, or only why they failed again; durable when it returns.

        Then a replay before the failure is forgotten too: an equal letter that waits would count as replayed.
        """
        connection = self._open(create=False)
        if connection is None:
            return
        with self._errors(), _transaction(connection):
            connection.execute(_FAILED)
            rows = [(each,) for each in digests]
            forget_replay = _FORGET_OLDER_REPLAY if only_reasons else "DELETE FROM replayed WHERE letter = ?"
            for statement in (forget_replay, "DELETE FROM failed WHERE letter = ?"):
                connection.executemany(statement, rows)

    def forget_others(self, digests: Iterable[bytes]) -> None:
        """Remove what is known of all other letters than these: they are not there any more."""
        connection = self._open(create=False)
        if connection is None:
            return
        with self._errors():
            connection.execute("CREATE TEMP TABLE present (letter BLOB PRIMARY KEY) WITHOUT ROWID")
            connection.executemany("INSERT OR IGNORE INTO present VALUES (?)", ((each,) for each in digests))
            with _transaction(connection):
                connection.execute(_FAILED)
                for table in ("replayed", "failed"):
                    connection.execute(f"DELETE FROM {table} WHERE letter NOT IN (SELECT letter FROM present)")  # noqa: S608
            connection.execute("DROP TABLE present")

    def _knows_failures(self, connection: sqlite3.Connection) -> bool:
        if not self._has_failed:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'failed'").fetchone()
            self._has_failed = found is not None
        return self._has_failed

    def close(self) -> None:
        """Close the file; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is not None:
            return self._connection
        with self._errors():
            if create:
                os.close(open_private(self.path))
            elif not self.path.exists():
                return None
            connection = connect(self.path, self._busy_seconds)
            try:
                if create:
                    connection.executescript(_SCHEMA)
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if (application, version) not in ((_APPLICATION, _FORMAT), (0, 0)):
                    raise self._unusable("it is of another program or release")
                if not application:  # a replay was ended while it made the file
                    connection.close()
                    return None
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._one_thread:
                yield
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from error
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error

    def _unusable(self, reason: str) -> Stopped:
        hint = (
            f"correct its permissions or restore it; if you remove it, `replay` sends all letters of {self.path.parent}"
        )
        return Stopped(f"cannot use {self.path}, which says what was replayed: {reason}", hint, "IFX719")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    if connection.in_transaction:  # of `together`
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
