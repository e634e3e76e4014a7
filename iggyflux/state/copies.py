"""Read, check and copy databases without owning them: any process may, even while a run has them open."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from iggyflux.disk import LOST_FOUND, make_folder, sync_folder
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
_MARK = ".unfinished"
"""A file that is locked while a backup is made; it names the entries that are moved in, and is removed last."""
_COPIES = ".unfinished-copies"


@dataclass(frozen=True, slots=True)
class StoredState:
    """A state on disk: its owner (`kind` and `name`), the version of its format, and its record."""

    kind: str
    name: str
    format: int
    record: Any


def find_files(place: Path, failed: Callable[[Stopped], None]) -> list[Path]:
    """Return the files in the folder `place`, or `place` itself if it is a file.

    `failed` is called with the error of each folder that cannot be read, or that is an unfinished backup.
    """
    if place.is_file():
        return [place]
    found: list[Path] = []
    folders = [place]
    while folders:
        folder = folders.pop()
        try:
            with translate_errors(folder, "use"), os.scandir(folder) as listing:
                entries = list(listing)
                if any(entry.name == _MARK for entry in entries):
                    raise Stopped(
                        f"cannot use the positions in {folder}: it is an unfinished backup",
                        "make the backup again, to the same directory",
                        "IFX701",
                    )
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.is_file():
                        found.append(Path(entry.path))
        except Stopped as error:
            if folder == place or not (folder.name == LOST_FOUND or _is_beside(folder)):
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
    """Copy each database to its name in the folder `target`, durably: all of them, or none.

    A new `target` appears with all copies.  One that exists is filled, since it can be a mount point; until all copies
    are in it, it is known to be unfinished, and the next call replaces what a killed one left.

    Raise `Stopped` (IFX701); IFX709 if `target` is not empty, or another backup to it is being made.
    """
    target = Path(os.path.realpath(target))  # `resolve` raises for a link to itself
    with translate_errors(target, "write"):
        folder = target if target.exists() else target.with_name(f".{target.name}{_MARK}")
        make_folder(folder, 0o700)
        if not is_free(folder):
            raise _not_empty(folder)
        mark = _claim(folder)
    with mark:
        try:
            with translate_errors(target, "write"):
                _clear(folder)
                mark.truncate(0)
            for path, name in names.items():
                _copy(path, folder / _COPIES / name, target / name)
            with translate_errors(target, "write"):
                _move(folder, mark)
                if folder != target:
                    _rename(folder, target)
                (target / _MARK).unlink()
                sync_folder(target)
        except BaseException:
            with suppress(OSError):
                _clear(folder)
                (folder / _MARK).unlink()
                if folder != target:
                    folder.rmdir()
            raise


def is_free(folder: Path) -> bool:
    """Return whether `folder` is empty, apart from what a backup that was killed left in it."""
    return _names(folder) <= _moved(folder) | {_MARK, _COPIES, LOST_FOUND}


def _is_beside(folder: Path) -> bool:
    """Return whether `folder` has the name of one that a backup to a new folder is made in."""
    return folder.name.startswith(".") and folder.name.endswith(_MARK)


def _claim(folder: Path) -> BinaryIO:
    """Return the locked mark of `folder`."""
    refusal = Stopped(f"another backup is being made in {folder}", "wait for it, or use another directory", "IFX709")
    try:
        mark = (folder / _MARK).open("a+b")
    except FileNotFoundError as error:  # the other one has renamed the folder
        raise refusal from error
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(mark.fileno()), (folder / _MARK).stat()):
            return mark
    except (BlockingIOError, FileNotFoundError):
        pass
    mark.close()
    raise refusal


def _moved(folder: Path) -> set[str]:
    """Return the entries that an unfinished backup has moved into `folder`."""
    try:
        return _names(folder).intersection(json.loads((folder / _MARK).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):  # none yet: their names are durable before they are moved
        return set()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _clear(folder: Path) -> None:
    """Remove what an unfinished backup has left in `folder`."""
    for name in (_moved(folder) | {_COPIES}) & _names(folder):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _move(folder: Path, mark: BinaryIO) -> None:
    """Move the copies into `folder`, durably; `mark` names them first."""
    entries = sorted(_names(folder / _COPIES))
    if not is_free(folder) or _names(folder).intersection(entries):
        raise _not_empty(folder)
    mark.write(json.dumps(entries).encode())
    mark.flush()
    os.fsync(mark.fileno())
    for name in entries:
        (folder / _COPIES / name).rename(folder / name)
    (folder / _COPIES).rmdir()
    sync_folder(folder)


_OF_WRITES = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE)


def _copy(path: Path, copied: Path, target: Path) -> None:
    """Copy the database at `path` to `copied`, as it is at one moment; errors of writing are those of `target`."""
    with translate_errors(target, "write"):
        make_folder(copied.parent, 0o700)
        descriptor = os.open(copied, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with (
            translate_errors(path, "copy"),
            closing(connect(path)) as source,
            closing(sqlite3.connect(copied)) as copy,
        ):
            try:
                source.backup(copy)
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0)
                if code & 0xFF == sqlite3.SQLITE_FULL or code in _OF_WRITES:  # nothing of the source is written
                    with translate_errors(target, "write"):
                        raise
                raise
        with translate_errors(target, "write"):
            os.fsync(descriptor)
            sync_folder(copied.parent)
    finally:
        os.close(descriptor)


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise _not_empty(target) from error
    sync_folder(target.parent)


def _not_empty(target: Path) -> Stopped:
    return Stopped(f"{target} is not empty", "use a new or empty directory", "IFX709")
