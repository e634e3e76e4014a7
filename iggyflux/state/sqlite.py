"""States on disk: one SQLite database for each owner, FOLDER/NAME.sqlite, with the lock NAME.lock beside it.

One process writes, the holder of the lock; any may read meanwhile.  The journal is a file that a commit deletes
(`journal_mode=DELETE`: a WAL needs memory shared by processes, which network volumes lack).  `synchronous=EXTRA` is
FULL with an fsync of the folder after the journal is deleted: otherwise a power failure may bring the journal back, and
undo what was committed.  SQLite has no checksums of pages, so the record and each blob carry their own.

| at the path there is                     | reading gives                | the next commit                           |
|------------------------------------------|------------------------------|-------------------------------------------|
| nothing                                  | None                         | makes the database, whole, by a rename    |
| nothing, and a file of format 1 beside   | IFX701, version and way on   | as reading                                |
| a database of this format                | its record                   | replaces it                               |
| … with a journal: a commit was cut off   | the record before the commit | replaces it                               |
| … of another format                      | IFX701, version and way on   | as reading                                |
| … of another owner, or another program   | IFX701                       | as reading                                |
| anything else, an empty file too         | IFX701                       | as reading                                |
| NAME.sqlite.new: a first commit cut off  | as if it were not there      | replaces it                               |

Faults, by SQLite's codes.  All are `Stopped` (IFX701): what was committed stays, and what was not comes again.

| code     | comes of                                        | what to do                                          |
|----------|-------------------------------------------------|-----------------------------------------------------|
| BUSY     | another program has held the database so long   | close it; copy with `sqlite3 .backup`, not by hand  |
| FULL     | the disk or a quota is full                     | free space, run again                               |
| IOERR    | the disk, a network volume or a limit of size   | look at the system's log; run again                 |
| READONLY | permissions; the file was removed or replaced   | correct them; run again                             |
| CANTOPEN | permissions, a folder of that name              | correct them; run again                             |
| CORRUPT  | a damaged page                                  | put back a copy, or begin anew                      |
| NOTADB   | the file is no database                         | put back a copy, or begin anew                      |
| others   | tables that are not ours, a blob beyond 1 GB, … | as SQLite says                                      |
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec

from iggyflux.disk import make_folder, sync_folder
from iggyflux.errors import Stopped
from iggyflux.state.locks import Lock
from iggyflux.state.store import CHUNK_BYTES, FORMAT, NOTHING, check_no_event_loop

SUFFIX = ".sqlite"
BUSY_SECONDS = 30.0
_APPLICATION = 0x49465853  # "IFXS", in the header of the file
_BEGIN_ANEW = "restore a backup, or remove the file to begin at `start`; messages are then sent again"
_AGAIN = "nothing is lost: unstored positions only mean that messages are read again"
_SCHEMA = f"""
BEGIN;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {FORMAT};
CREATE TABLE record (id INTEGER PRIMARY KEY, kind TEXT, name TEXT, content TEXT, crc32 INTEGER);
CREATE TABLE seen (number INTEGER PRIMARY KEY, crc32 INTEGER, digests BLOB);
COMMIT;
"""

FAULTS: dict[int, str] = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_READONLY: "it cannot be written, or was removed or replaced",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_NOTADB: "it is not a database",
}
"""What a primary code of SQLite means for an operator."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_HINTS = {
    sqlite3.SQLITE_BUSY: f"close that program, and run again: {_AGAIN}",
    sqlite3.SQLITE_FULL: f"free space, and run again: {_AGAIN}",
    sqlite3.SQLITE_IOERR: f"check the system log, and run again: {_AGAIN}",
    sqlite3.SQLITE_READONLY: f"correct the permissions, and run again: {_AGAIN}",
    sqlite3.SQLITE_CANTOPEN: f"correct the permissions, and run again: {_AGAIN}",
}


class SqliteState:
    """A `StateStore` in the database at `path`.

    `kind` and `name` say whose state it is, `owner` the same for people.  `previous` is where format 1 had it, and
    `way_on` what helps whoever finds it there.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        name: str,
        owner: str,
        *,
        previous: Path | None = None,
        way_on: str = "",
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self.path = path
        self._kind = kind
        self._name = name
        self._owner = owner
        self._previous = previous
        self._way_on = way_on
        self._busy_seconds = busy_seconds
        self._lock: Lock | None = None
        self._connection: sqlite3.Connection | None = None

    @property
    def place(self) -> str:
        """As of `StateStore`."""
        return str(self.path)

    def take(self) -> None:
        """As of `StateStore`."""
        if self._lock is None:
            self._lock = Lock(self.path.with_suffix(".lock"), self._owner)

    def read(self) -> Any:
        """As of `StateStore`."""
        with self._faults("use"):
            connection = self._opened()
            return None if connection is None else self._record(connection)

    def blob(self, number: int) -> Iterator[bytes]:
        """As of `StateStore`."""
        with self._faults("use"):
            connection = self._opened()
            found = connection and connection.execute("SELECT crc32 FROM seen WHERE number = ?", (number,)).fetchone()
            if connection is None or not found:
                raise self._damaged_blob(number, "it is missing")
            crc32 = 0
            with connection.blobopen("seen", "digests", number, readonly=True) as blob:
                while data := blob.read(CHUNK_BYTES):
                    crc32 = zlib.crc32(data, crc32)
                    yield data
            if crc32 != found[0]:
                raise self._damaged_blob(number, "its checksum does not match")

    def commit(
        self, record: object, *, added: Mapping[int, IO[bytes]] = NOTHING, dropped: Collection[int] = ()
    ) -> None:
        """As of `StateStore`."""
        self._check_lock()
        content = msgspec.json.encode(record, order="sorted")
        with self._faults("store"):
            connection = self._opened()
            if connection is None:
                self._create(content, added)
            else:
                self._write(connection, content, added, dropped)

    def replace(self, record: object | None) -> None:
        """As of `StateStore`; with None the file of format 1 is removed, too."""
        self._check_lock()
        self._disconnect()
        with self._faults("store"):
            if record is not None:
                self._create(msgspec.json.encode(record, order="sorted"), NOTHING)
                return
            for path in (_journal(self.path), self.path, self._previous):
                if path is not None:
                    path.unlink(missing_ok=True)
            sync_folder(self.path.parent)

    def close(self) -> None:
        """As of `StateStore`."""
        self._disconnect()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _check_lock(self) -> None:
        if self._lock is None:
            raise RuntimeError("a state is taken before it is changed")
        self._lock.check()

    # --- reading ---

    def _opened(self) -> sqlite3.Connection | None:
        """The connection; None where there is nothing to connect to."""
        check_no_event_loop()
        if self._connection is None:
            if not self.path.exists():
                if self._previous is not None and self._previous.exists():
                    raise other_format(self._previous, 1, self._way_on)
                return None
            connection = connect(self.path, self._busy_seconds)
            try:
                check_format(connection, self.path)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _record(self, connection: sqlite3.Connection) -> Any:
        kind, name, content = read_record(connection, self.path)
        if (kind, name) != (self._kind, self._name):
            raise damaged(self.path, f"it is of {kind} {name!r}, not of {self._kind} {self._name!r}")
        return content

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- writing ---

    def _create(self, content: bytes, added: Mapping[int, IO[bytes]]) -> None:
        """Make the database beside its place, and put it there when it is whole."""
        beside = self.path.with_name(f"{self.path.name}.new")
        make_folder(self.path.parent, 0o700)
        for left_over in (beside, _journal(beside), _journal(self.path)):
            left_over.unlink(missing_ok=True)
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(connect(beside, self._busy_seconds)) as connection:
            connection.executescript(_SCHEMA)
            self._write(connection, content, added, ())
        beside.replace(self.path)
        sync_folder(self.path.parent)

    def _write(
        self, connection: sqlite3.Connection, content: bytes, added: Mapping[int, IO[bytes]], dropped: Collection[int]
    ) -> None:
        kind, name = self._kind.encode(), self._name.encode("utf-8", "surrogateescape")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM seen WHERE number = ?", [(number,) for number in dropped])
        for number, file in added.items():
            _insert(connection, number, file)
        row = (kind, name, content, _checksum(kind, name, content))
        connection.execute(
            "INSERT OR REPLACE INTO record VALUES (1, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), ?)", row
        )
        connection.execute("COMMIT")

    # --- faults ---

    @contextmanager
    def _faults(self, verb: str) -> Iterator[None]:
        """Translate what SQLite and the system raise; the connection goes, and with it what was not committed."""
        try:
            with faults(self.path, verb):
                yield
        except BaseException:
            self._disconnect()
            raise

    def _damaged_blob(self, number: int, reason: str) -> Stopped:
        hint = "restore a backup, or run `iggyflux cursor set`; rows of the overlap are then sent again"
        return Stopped(f"cannot use the digests in {self.path}, number {number}: {reason}", hint, "IFX641")


def connect(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Return a connection to the database at `path`, which has to be there.  Raise `sqlite3.Error`."""
    # A database is never opened by other means: closing such a file would drop SQLite's locks on it.
    uri = f"file:{quote(os.fsencode(path))}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = bytes  # damaged text is for the checksum to find
        for setting in ("trusted_schema=OFF", "cell_size_check=ON", "journal_mode=DELETE", "synchronous=EXTRA"):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def format_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return which program wrote the database, and in which version of its format; zeros for a new one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `Stopped` (IFX701) unless the database is a state of this format."""
    application, version = format_of(connection)
    if application != _APPLICATION:
        raise damaged(path, "it is not a state of iggyflux")
    if version != FORMAT:
        raise other_format(path, version)


def read_record(connection: sqlite3.Connection, path: Path) -> tuple[str, str, Any]:
    """Return kind, name and record.  Raise `Stopped` (IFX701) where the checksum does not fit."""
    rows = connection.execute("SELECT kind, name, content, crc32 FROM record").fetchall()
    if len(rows) != 1:
        raise damaged(path, "its record is missing")
    kind, name, content, crc32 = rows[0]
    if not all(isinstance(each, bytes) for each in rows[0][:3]) or _checksum(kind, name, content) != crc32:
        raise damaged(path, "its checksum does not match")
    return kind.decode(), name.decode("utf-8", "surrogateescape"), msgspec.json.decode(content)


def reason_of(error: sqlite3.Error) -> tuple[str, bool]:
    """Return what SQLite's error means, with its own words, and whether the file is damaged.

    Raise the error itself where it has no code: then it is a mistake in our own calls.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        raise error
    name = getattr(error, "sqlite_errorname", code)
    return f"{FAULTS.get(code & 0xFF, 'SQLite refuses')} ({error}, {name})", code & 0xFF in _DAMAGE


@contextmanager
def faults(path: Path, verb: str) -> Iterator[None]:
    """Translate what SQLite and the system raise about the database at `path` into `Stopped` (IFX701)."""
    try:
        yield
    except sqlite3.Error as error:
        reason, _ = reason_of(error)
        hint = _HINTS.get(error.sqlite_errorcode & 0xFF, _BEGIN_ANEW)
        raise Stopped(f"cannot {verb} the positions in {path}: {reason}", hint, "IFX701") from error
    except UnicodeDecodeError as error:  # SQLite quotes the bytes of a damaged schema
        raise damaged(path, "its tables are damaged") from error
    except OSError as error:
        hint = f"free space or correct the permissions, and run again: {_AGAIN}"
        raise Stopped(f"cannot {verb} the positions in {path}: {error.strerror}", hint, "IFX701") from error


def damaged(path: Path, reason: str) -> Stopped:
    """Return what stops a run whose state cannot be used."""
    return Stopped(f"cannot use the positions in {path}: {reason}", _BEGIN_ANEW, "IFX701")


def other_format(path: Path, version: int, way_on: str = "") -> Stopped:
    """Return what stops whoever finds a state of another format."""
    hint = way_on or "run the release that wrote it, or restore the backup from before the upgrade"
    reason = f"they have format {version}; this release reads format {FORMAT}"
    return Stopped(f"cannot use the positions in {path}: {reason}", hint, "IFX701")


def _insert(connection: sqlite3.Connection, number: int, file: IO[bytes]) -> None:
    """Store a blob, piece by piece: it may be larger than what fits into memory."""
    size = crc32 = 0
    file.seek(0)
    while data := file.read(CHUNK_BYTES):
        size, crc32 = size + len(data), zlib.crc32(data, crc32)
    connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, zeroblob(?))", (number, crc32, size))
    file.seek(0)
    with connection.blobopen("seen", "digests", number) as blob:
        while data := file.read(CHUNK_BYTES):
            blob.write(data)


def _checksum(kind: bytes, name: bytes, content: bytes) -> int:
    return zlib.crc32(b"\0".join((kind, name, content)))


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")
