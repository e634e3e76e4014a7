"""Read, check and copy databases without owning them: any process may, even while a run has them open."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iggyflux.disk import make_folder, sync_folder
from iggyflux.errors import Stopped
from iggyflux.state.sqlite import (
    SUFFIX,
    check_format,
    connect,
    damaged,
    format_of,
    other_format,
    read_record,
    translate_errors,
)

_FORMAT_1 = b'{"iggyflux":"'


@dataclass(frozen=True, slots=True)
class StoredState:
    """A state on disk: its owner (`kind` and `name`), the version of its format, and its record."""

    kind: str
    name: str
    format: int
    record: Any


def find_databases(place: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """Return the states in the folder `place` and the files with one of `names`, or `place` itself if it is a file."""
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.is_file() and (path.suffix == SUFFIX or path.name in names))


def find_format_1(place: Path) -> list[Stopped]:
    """Return the error of each state of format 1 (`NAME.json`) in the folder `place` that no database replaced."""
    return [
        other_format(path, 1)
        for path in sorted(place.rglob("*.json"))
        if path.is_file() and not path.with_suffix(SUFFIX).exists() and _begins_with(path, _FORMAT_1)
    ]


def _begins_with(path: Path, data: bytes) -> bool:
    with translate_errors(path, "use"), path.open("rb") as file:
        return file.read(len(data)) == data


def read_state(path: Path) -> StoredState:
    """Return the state at `path`.  Raise `Stopped` (IFX701) if it cannot be used."""
    with translate_errors(path, "use"), closing(connect(path)) as connection:
        check_format(connection, path)
        kind, name, record = read_record(connection, path)
        return StoredState(kind, name, format_of(connection)[1], record)


def check_state(path: Path) -> StoredState:
    """Return the state at `path` if every page, the record and every blob is intact.  Raise `Stopped`."""
    found = read_state(path)
    check_pages(path)
    with translate_errors(path, "use"), closing(connect(path)) as connection:
        for number, crc32, digests in connection.execute("SELECT number, crc32, digests FROM seen"):
            if zlib.crc32(digests) != crc32:
                raise damaged(path, f"the checksum of its digests, number {number}, does not match")
    return found


def check_pages(path: Path) -> None:
    """Raise `Stopped` (IFX701) with the fault that SQLite finds in the structure of the database at `path`."""
    with translate_errors(path, "use"), closing(connect(path)) as connection:
        (first, *more) = [bytes(row[0]).decode(errors="replace") for row in _integrity(connection)]
        if first != "ok":
            rest = f" (and {len(more)} more)" if more else ""
            raise damaged(path, first.splitlines()[0] + rest)


def _integrity(connection: sqlite3.Connection) -> Iterator[tuple[bytes]]:
    return connection.execute("PRAGMA integrity_check")


def copy_database(path: Path, target: Path) -> None:
    """Copy the database at `path` to `target`, durably, as it is at one moment.

    Raise `Stopped` (IFX701); IFX709 if `target` exists.
    """
    beside = target.with_name(f"{target.name}.new")
    with translate_errors(target, "copy"):
        make_folder(target.parent, 0o700)
        beside.unlink(missing_ok=True)
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with translate_errors(path, "copy"), closing(connect(path)) as source, closing(sqlite3.connect(beside)) as copy:
            source.backup(copy)
        with translate_errors(target, "copy"):
            descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                target.hardlink_to(beside)
            except FileExistsError as error:
                hint = "use a new or empty directory"
                raise Stopped(f"{target} already exists", hint, "IFX709") from error
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(target.parent)
