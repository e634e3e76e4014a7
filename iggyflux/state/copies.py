"""Read, check and copy databases without owning them: any process may, even while a run has them open."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
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
_UNFINISHED = ".unfinished"
"""The end of the name of a folder that a backup is made in; one that was killed leaves it."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """A state on disk: its owner (`kind` and `name`), the version of its format, and its record."""

    kind: str
    name: str
    format: int
    record: Any


def find_files(place: Path, failed: Callable[[Stopped], None]) -> list[Path]:
    """Return the files in the folder `place`, or `place` itself if it is a file.

    `failed` is called with the error of each folder that cannot be read.
    """
    if place.is_file():
        return [place]
    found: list[Path] = []
    folders = [place]
    while folders:
        folder = folders.pop()
        try:
            with translate_errors(folder, "use"), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders += [Path(entry.path)] * (not entry.name.endswith(_UNFINISHED))
                    elif entry.is_file():
                        found.append(Path(entry.path))
        except Stopped as error:
            failed(error)
    return sorted(found)


def format_1_of(path: Path) -> Stopped | None:
    """Return the error of a file that is a state of format 1 (`NAME.json`) and that no database replaced."""
    if path.suffix != ".json" or path.with_suffix(SUFFIX).exists():
        return None
    try:
        with translate_errors(path, "use"), path.open("rb") as file:
            return other_format(path, 1) if file.read(len(_FORMAT_1)) == _FORMAT_1 else None
    except Stopped as error:
        return error


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


def copy_databases(names: Mapping[Path, Path], target: Path) -> None:
    """Copy each database to its name in the new or empty folder `target`, durably: all of them, or none.

    Raise `Stopped` (IFX701); IFX709 if `target` is not empty.
    """
    target = Path(os.path.realpath(target))  # `resolve` raises for a link to itself
    beside = target.with_name(f".{target.name}{_UNFINISHED}")
    with translate_errors(target, "copy"):
        if beside.exists():  # of a backup that was killed
            shutil.rmtree(beside)
        make_folder(beside, 0o700)
    try:
        for path, name in names.items():
            _copy(path, beside / name)
        with translate_errors(target, "copy"):
            _rename(beside, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _copy(path: Path, target: Path) -> None:
    """Copy the database at `path`, as it is at one moment."""
    with translate_errors(target, "copy"):
        make_folder(target.parent, 0o700)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with translate_errors(path, "copy"), closing(connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
        with translate_errors(target, "copy"):
            os.fsync(descriptor)
            sync_folder(target.parent)
    finally:
        os.close(descriptor)


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)  # replaces an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise Stopped(f"{target} is not empty", "use a new or empty directory", "IFX709") from error
