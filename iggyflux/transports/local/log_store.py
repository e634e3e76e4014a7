"""The SQLite database of a message log: partitions, and a row for each appended batch.

A commit is durable; `state.sqlite` has the settings and their reasons.  Any number of processes may append and read at
once: SQLite's locks order them, and a crash of one leaves no partial change.
| SQLite answers                     | while reading                       | while appending                     |
|------------------------------------|-------------------------------------|-------------------------------------|
| BUSY for `_BUSY_SECONDS`           | `Stopped` IFX704                    | `Stopped` IFX704                    |
| FULL, IOERR, READONLY, CANTOPEN    | `Stopped` IFX704                    | rolled back, `Stopped` IFX704       |
| CORRUPT, NOTADB                    | `Stopped` IFX705                    | rolled back, `Stopped` IFX705       |
| a database of another format       | `Stopped` IFX708                    | `Stopped` IFX708                    |
| a file that was moved or replaced  | reopened                            | `Stopped` IFX704, then reopened     |
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from iggyflux.errors import Stopped
from iggyflux.records import Message, Partition
from iggyflux.state.sqlite import connect, format_of, reason_of
from iggyflux.transports.local.log_batches import StoredBatch, encode_batch

FILE = "log.sqlite3"
_FORMAT = 1
_APPLICATION = 0x4946_5831  # "IFX1"
_SMALLEST_DATABASE = 512
_BUSY_SECONDS = 30.0
_BATCH_BYTES = 4_000_000
_SCHEMA = """
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, stream TEXT, topic TEXT, number INTEGER, UNIQUE (stream, topic, number)
);
CREATE TABLE batches (
    partition INTEGER NOT NULL, first_offset INTEGER NOT NULL, messages INTEGER NOT NULL,
    latest_us INTEGER NOT NULL, crc INTEGER NOT NULL, columns BLOB NOT NULL, payloads BLOB NOT NULL
);
CREATE UNIQUE INDEX batches_by_offset ON batches (partition, first_offset, messages, latest_us);
"""


class LogStore:
    """The database in a folder.  Not for several threads at once; opened on first use."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._ids: dict[Partition, int] = {}

    def exists(self) -> bool:
        """Return whether there is a database.

        Raise `Stopped`: IFX704 if that cannot be seen, IFX708 for a log of an earlier version.
        """
        with self._translated("read"):
            if self._is_there():
                return True
        if next(self.path.parent.glob("*/*/*/*.log"), None) is not None:
            raise _other_format(self.path.parent, "has the format of iggyflux 0.1.0 (segment files)")
        return False

    def _is_there(self) -> bool:
        try:
            self.path.stat()
        except FileNotFoundError:
            return False
        return True

    def partitions(self) -> list[Partition]:
        """Return every partition, sorted."""
        with self._reading() as connection:
            rows = connection.execute("SELECT stream, topic, number, id FROM partitions ORDER BY 1, 2, 3").fetchall()
        self._ids = {Partition(stream, topic, number): key for stream, topic, number, key in rows}
        return list(self._ids)

    def add_partitions(self, partitions: Sequence[Partition]) -> None:
        """Make the missing ones of these partitions."""
        with self._writing() as connection:
            self._add(connection, partitions)

    def append(self, parts: Mapping[Partition, Sequence[Message]], now_us: int) -> dict[Partition, int]:
        """Append messages to each partition, all or none; return the end of each."""
        ends = {}
        with self._writing() as connection:
            self._add(connection, list(parts))
            for partition, messages in parts.items():
                end = self._end(connection, partition)
                for batch in _split(messages):
                    made = encode_batch(batch, end, now_us)
                    row = (self._ids[partition], end, len(batch), made.latest_us, made.crc, made.columns, made.payloads)
                    connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                    end = made.end
                ends[partition] = end
        return ends

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """Return the lowest existing offset and the offset of the next message."""
        with self._reading() as connection:
            key = self._id(connection, partition)
            first = connection.execute("SELECT min(first_offset) FROM batches WHERE partition = ?", (key,)).fetchone()
            return first[0] or 0, self._end(connection, partition)

    def size(self, partition: Partition) -> tuple[int, int]:
        """Return how many batches and bytes the partition has."""
        with self._reading() as connection:
            key = self._id(connection, partition)
            query = (
                "SELECT count(*), coalesce(sum(length(columns) + length(payloads)), 0) FROM batches WHERE partition = ?"
            )
            batches, size = connection.execute(query, (key,)).fetchone()
        return batches, size

    def batch_at(self, partition: Partition, offset: int) -> StoredBatch | None:
        """Return the batch that holds `offset`, or the last one before it; None if there is none."""
        return self._batch(partition, "first_offset <= ? ORDER BY first_offset DESC LIMIT 1", offset)

    def first_since(self, partition: Partition, timestamp_us: int) -> StoredBatch | None:
        """Return the first batch with a message that arrived at `timestamp_us` or later."""
        return self._batch(partition, "latest_us >= ? ORDER BY first_offset LIMIT 1", timestamp_us)

    def around(self, partition: Partition, offset: int) -> tuple[int | None, int | None]:
        """Return the end of the last batch that begins at or before `offset`, and the first offset of the next one.

        Both are of one moment, whatever other processes append meanwhile.
        """
        query = (
            "SELECT (SELECT first_offset + messages FROM batches WHERE partition = ?1 AND first_offset <= ?2"
            " ORDER BY first_offset DESC LIMIT 1),"
            " (SELECT min(first_offset) FROM batches WHERE partition = ?1 AND first_offset > ?2)"
        )
        with self._reading() as connection:
            end, following = connection.execute(query, (self._id(connection, partition), offset)).fetchone()
        return end, following

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._ids.clear()

    # The database

    def _batch(self, partition: Partition, condition: str, value: int) -> StoredBatch | None:
        columns = "first_offset, first_offset + messages, latest_us, crc, columns, payloads"
        query = f"SELECT {columns} FROM batches WHERE partition = ? AND {condition}"  # noqa: S608  (both are our own)
        with self._reading() as connection:
            row = connection.execute(query, (self._id(connection, partition), value)).fetchone()
        return None if row is None else StoredBatch(*row)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._translated("read"):
            yield self._open()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Run one transaction, which is durable, and in the file at the path, when this returns."""
        with self._translated("append to"):
            connection = self._open()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                ((size,),) = connection.execute(
                    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
                )
                connection.execute("COMMIT")
            except BaseException:
                self._ids.clear()  # added partitions may be rolled back
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if self._is_replaced() or self.path.stat().st_size < size:
                self.close()
                raise Stopped(
                    f"cannot append to {self.path}: the file was removed, replaced or truncated", _HINT, "IFX704"
                )

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.close()
            raise _translate(error, what, self.path) from error
        except OSError as error:
            raise Stopped(f"cannot {what} {self.path}: {error.strerror}", _HINT, "IFX704") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_replaced():
            self.close()
        if self._connection is None:
            self.exists()
            with suppress(FileExistsError):  # never opened otherwise: closing it would drop SQLite's locks
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            found = self._stat()
            connection = connect(self.path, _BUSY_SECONDS)
            connection.text_factory = str
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection, self._inode = connection, (found.st_dev, found.st_ino)
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables of a new database; reject one of another format."""
        if format_of(connection) == (0, 0):
            connection.execute("PRAGMA page_size = 16384")
            connection.execute("BEGIN IMMEDIATE")
            if format_of(connection) == (0, 0):  # no other process has made them meanwhile
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
            connection.execute("COMMIT")
        application, version = format_of(connection)
        if application != _APPLICATION:
            raise _other_format(self.path, "is a database of another program")
        if version != _FORMAT:
            raise _other_format(self.path, f"has format {version}; this release reads format {_FORMAT}")

    def _stat(self) -> os.stat_result:
        """Return the file's status.  Raise `Stopped` (IFX705) if it is truncated: SQLite would see a new database."""
        found = self.path.stat()
        if 0 < found.st_size < _SMALLEST_DATABASE:
            raise Stopped(f"{self.path} is damaged: it has {found.st_size} bytes", _RESTORE, "IFX705")
        return found

    def _is_replaced(self) -> bool:
        try:
            found = self._stat()
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._inode

    def _add(self, connection: sqlite3.Connection, partitions: Sequence[Partition]) -> None:
        for place in partitions:
            if place not in self._ids:
                values = (place.stream, place.topic, place.partition)
                connection.execute("INSERT OR IGNORE INTO partitions (stream, topic, number) VALUES (?, ?, ?)", values)
                self._id(connection, place)

    def _id(self, connection: sqlite3.Connection, partition: Partition) -> int | None:
        """Return the key of a partition; None, which no row has, if it does not exist."""
        if partition not in self._ids:
            values = (partition.stream, partition.topic, partition.partition)
            row = connection.execute(
                "SELECT id FROM partitions WHERE stream = ? AND topic = ? AND number = ?", values
            ).fetchone()
            if row is None:
                return None
            self._ids[partition] = row[0]
        return self._ids[partition]

    def _end(self, connection: sqlite3.Connection, partition: Partition) -> int:
        query = "SELECT first_offset + messages FROM batches WHERE partition = ? ORDER BY first_offset DESC LIMIT 1"
        row = connection.execute(query, (self._id(connection, partition),)).fetchone()
        return row[0] if row else 0


_HINT = "free space, correct the permissions or stop the other program; earlier messages are intact"
_RESTORE = "restore a backup of the file"


def _translate(error: sqlite3.Error, what: str, path: Path) -> Stopped:
    reason, is_damaged = reason_of(error)
    if is_damaged:
        return Stopped(f"the log {path} is damaged: {reason}", _RESTORE, "IFX705")
    return Stopped(f"cannot {what} {path}: {reason}", _HINT, "IFX704")


def _other_format(path: Path, reason: str) -> Stopped:
    hint = (
        "copy it with the version that wrote it: iggyflux log tail DIR STREAM/TOPIC -n 1000000000 --envelope, "
        "then iggyflux log append NEW STREAM/TOPIC --envelope with this one"
    )
    return Stopped(f"the log {path} {reason}", hint, "IFX708")


def _split(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Return `messages` in parts of bounded size: a row must fit into memory."""
    start = size = 0
    for index, message in enumerate(messages):
        size += len(message.payload)
        if size > _BATCH_BYTES and index > start:
            yield messages[start:index]
            start, size = index, len(message.payload)
    if start < len(messages):
        yield messages[start:]
