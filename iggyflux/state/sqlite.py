"""States on disk: one SQLite database for each owner, FOLDER/NAME.sqlite, with the lock NAME.lock beside it.

One process writes, the holder of the lock; any process may read meanwhile.  The journal is a file that a commit deletes
(`journal_mode=DELETE`: a WAL needs memory shared by processes, which network volumes lack).  `synchronous=EXTRA` is
FULL plus an fsync of the folder after the journal is deleted: otherwise a power failure may restore the journal, and
undo the commit.  A database that is created has no journal: it gets its name when it is complete.  SQLite has no
checksums of pages, so the record and each blob carry their own.

| at the path there is                     | reading gives                | the next commit                           |
|------------------------------------------|------------------------------|-------------------------------------------|
| nothing                                  | None                         | creates the database, whole, by a rename  |
| nothing, but a file of format 1 beside   | IFX701, version and hint     | as reading                                |
| a database of this format                | its record                   | replaces it                               |
| … with a journal: an interrupted commit  | the record before the commit | replaces it                               |
| … of another format                      | IFX701, version and hint     | as reading                                |
| … of another owner, or another program   | IFX701                       | as reading                                |
| anything else, also an empty file        | IFX701                       | as reading                                |
| NAME.sqlite.new: interrupted first commit| as if it were not there      | replaces it                               |

Errors, by SQLite's codes.  All are `Stopped` (IFX701): what was committed is kept; the other messages are read again.

| code     | cause                                           | what to do                                          |
|----------|-------------------------------------------------|-----------------------------------------------------|
| BUSY     | another program has locked the database too long| close it; copy with `sqlite3 .backup`, not by hand  |
| FULL     | the disk or a quota is full                     | free space, run again                               |
| IOERR    | the disk, a network volume or a limit of size   | check the system log; run again                     |
| READONLY | permissions; the file was removed or replaced   | correct them; run again                             |
| CANTOPEN | permissions, a folder of that name              | correct them; run again                             |
| CORRUPT  | a damaged page                                  | restore a backup, or begin again                    |
| NOTADB   | the file is not a database                      | restore a backup, or begin again                    |
| others   | foreign tables, a blob beyond 1 GB, …           | see SQLite's message                                |
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec

from iggyflux.disk import make_folder, remedy, sync_folder
from iggyflux.errors import Stopped
from iggyflux.state.locks import Lock
from iggyflux.state.store import CHUNK_BYTES, FORMAT, NOTHING, check_no_event_loop

SUFFIX = ".sqlite"
BUSY_SECONDS = 30.0
_APPLICATION = 0x49465853  # "IFXS", in the header of the file
_BEGIN_ANEW = "restore a backup, or remove the file to begin at `start`; messages are then sent again"
_AGAIN = "nothing is lost: unstored positions only mean that messages are read again"
_SCHEMA = (
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
    "CREATE TABLE record (id INTEGER PRIMARY KEY, kind TEXT, name TEXT, content TEXT, crc32 INTEGER)",
    "CREATE TABLE seen (number INTEGER PRIMARY KEY, crc32 INTEGER, digests BLOB)",
)

_PERMISSIONS = f"correct the permissions, and run again: {_AGAIN}"
FAULTS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: ("another program keeps it locked", f"close that program, and run again: {_AGAIN}"),
    sqlite3.SQLITE_FULL: ("the disk is full", f"free space, and run again: {_AGAIN}"),
    sqlite3.SQLITE_IOERR: ("the disk failed", f"check the system log, and run again: {_AGAIN}"),
    sqlite3.SQLITE_READONLY: ("it cannot be written, or was removed or replaced", _PERMISSIONS),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", _PERMISSIONS),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", _BEGIN_ANEW),
    sqlite3.SQLITE_NOTADB: ("it is not a database", _BEGIN_ANEW),
}
"""What each primary error code of SQLite means for an operator, and the hint."""
_OTHER_FAULT = ("SQLite refuses", _BEGIN_ANEW)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SqliteState:
    """A `StateStore` in the database at `path`.

    `kind` and `name` identify the owner, `owner` names it for people.  `previous` is the path that format 1 used, and
    `upgrade_hint` the hint for a state found there.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        name: str,
        owner: str,
        *,
        previous: Path | None = None,
        upgrade_hint: str = "",
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self.path = path
        self._kind = kind
        self._name = name
        self._owner = owner
        self._previous = previous
        self._upgrade_hint = upgrade_hint
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
        with self._translate_errors("use"):
            connection = self._opened()
            return None if connection is None else self._record(connection)

    def blob(self, number: int) -> Iterator[bytes]:
        """As of `StateStore`."""
        with self._translate_errors("use"):
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
        with self._translate_errors("store"):
            connection = self._opened()
            if connection is None:
                self._create(content, added)
            else:
                self._write(connection, content, added, dropped)

    def replace(self, record: object | None) -> None:
        """As of `StateStore`; with None the file of format 1 is removed too."""
        self._check_lock()
        self._disconnect()
        with self._translate_errors("store"):
            self._roll_back()
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
        """Return the connection; None if there is no database."""
        check_no_event_loop()
        if self._connection is None:
            if not self.path.exists():
                if self._previous is not None and self._previous.exists():
                    raise other_format(self._previous, 1, self._upgrade_hint)
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
        """Make the database in a file beside its path, and rename it when it is complete."""
        beside = self.path.with_name(f"{self.path.name}.new")
        make_folder(self.path.parent, 0o700)
        left_over = [path for path in (beside, _journal(beside), _journal(self.path)) if path.exists()]
        for path in left_over:
            path.unlink()
        if left_over or self.path.exists():  # a journal that returned in a crash would be played into the new database
            sync_folder(self.path.parent)
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(connect(beside, self._busy_seconds)) as connection:
            connection.execute("PRAGMA journal_mode=OFF")  # it has no reader before its rename
            self._write(connection, content, added, (), schema=_SCHEMA)
        beside.replace(self.path)
        sync_folder(self.path.parent)

    def _roll_back(self) -> None:
        """Undo an interrupted commit: without its journal, the database would be damaged until it is replaced."""
        if not self.path.is_file():
            return
        try:
            with closing(connect(self.path, self._busy_seconds)) as connection:
                format_of(connection)
        except sqlite3.Error as error:
            _, is_damaged = reason_of(error)
            if not is_damaged:
                raise

    def _write(
        self,
        connection: sqlite3.Connection,
        content: bytes,
        added: Mapping[int, IO[bytes]],
        dropped: Collection[int],
        schema: Sequence[str] = (),
    ) -> None:
        kind, name = self._kind.encode(), self._name.encode("utf-8", "surrogateescape")
        connection.execute("BEGIN IMMEDIATE")
        for statement in schema:
            connection.execute(statement)
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
    def _translate_errors(self, verb: str) -> Iterator[None]:
        """Translate errors of SQLite and the system; close the connection, which rolls back what was not committed."""
        try:
            with translate_errors(self.path, verb):
                yield
        except BaseException:
            self._disconnect()
            raise

    def _damaged_blob(self, number: int, reason: str) -> Stopped:
        hint = "restore a backup, or run `iggyflux cursor set`; rows of the overlap are then sent again"
        return Stopped(f"cannot use the digests in {self.path}, number {number}: {reason}", hint, "IFX641")


class _Connection(sqlite3.Connection):
    """One that is closed when it is forgotten: Python 3.13 warns of those that are not."""

    def __del__(self) -> None:
        with suppress(sqlite3.Error):  # what could not be opened cannot be closed
            self.close()


def connect(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Return a connection to the existing database at `path`.  Raise `sqlite3.Error`."""
    # Never open the file by other means: closing such a file would drop SQLite's locks on it.
    uri = f"file:{quote(os.fsencode(path))}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    try:
        connection.text_factory = bytes  # the checksum finds damaged text
        for setting in ("trusted_schema=OFF", "cell_size_check=ON", "journal_mode=DELETE", "synchronous=EXTRA"):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def format_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the id of the program that wrote the database, and the version of its format; zeros for a new one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `Stopped` (IFX701) unless the database is a state of this format."""
    application, version = format_of(connection)
    if application != _APPLICATION:
        raise damaged(path, "it is not a state file of iggyflux")
    if version != FORMAT:
        raise other_format(path, version)


def read_record(connection: sqlite3.Connection, path: Path) -> tuple[str, str, Any]:
    """Return kind, name and record.  Raise `Stopped` (IFX701) if the checksum does not match."""
    rows = connection.execute("SELECT kind, name, content, crc32 FROM record").fetchall()
    if len(rows) != 1:
        raise damaged(path, "its record is missing")
    kind, name, content, crc32 = rows[0]
    if not all(isinstance(each, bytes) for each in rows[0][:3]) or _checksum(kind, name, content) != crc32:
        raise damaged(path, "its checksum does not match")
    return kind.decode(), name.decode("utf-8", "surrogateescape"), msgspec.json.decode(content)


def reason_of(error: sqlite3.Error) -> tuple[str, bool]:
    """Return what SQLite's error means, with its own words, and whether the file is damaged.

    Raise the error itself if it has no code: then it is a mistake in our own calls.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        raise error
    name = getattr(error, "sqlite_errorname", code)
    meaning, _ = FAULTS.get(code & 0xFF, _OTHER_FAULT)
    return f"{meaning} ({error}, {name})", code & 0xFF in _DAMAGE


@contextmanager
def translate_errors(path: Path, verb: str) -> Iterator[None]:
    """Translate errors of SQLite and the system about the database at `path` into `Stopped` (IFX701)."""
    try:
        yield
    except sqlite3.Error as error:
        reason, _ = reason_of(error)
        _, hint = FAULTS.get(error.sqlite_errorcode & 0xFF, _OTHER_FAULT)
        raise Stopped(f"cannot {verb} the positions in {path}: {reason}", hint, "IFX701") from error
    except UnicodeDecodeError as error:  # SQLite quotes the bytes of a damaged schema
        raise damaged(path, "its tables are damaged") from error
    except OSError as error:
        hint = f"{remedy(error) or 'check the system log'}, and run again: {_AGAIN}"
        raise Stopped(f"cannot {verb} the positions in {path}: {error.strerror}", hint, "IFX701") from error


def damaged(path: Path, reason: str) -> Stopped:
    """Return the error of a state that cannot be used."""
    return Stopped(f"cannot use the positions in {path}: {reason}", _BEGIN_ANEW, "IFX701")


def other_format(path: Path, version: int, upgrade_hint: str = "") -> Stopped:
    """Return the error of a state in another format."""
    hint = upgrade_hint or "run the release that wrote it, or restore the backup from before the upgrade"
    reason = f"they have format {version}; this release reads format {FORMAT}"
    return Stopped(f"cannot use the positions in {path}: {reason}", hint, "IFX701")


def _insert(connection: sqlite3.Connection, number: int, file: IO[bytes]) -> None:
    """Store a blob piece by piece: it may not fit into memory."""
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
