"""Disks that a crash of the machine may leave, made from a record of what the product did to its files.

`RecordedDisk.recording` replaces `sqlite3.connect` by a thin connection over apsw, whose VFS records each write, sync,
truncation and deletion, and the functions of `os` that create, rename, remove and sync names.  The SQL, the pragmas and
their order are the product's own.  SQLite is the one that apsw brings, which may be another version than that of the
`sqlite3` module; the disks are opened again without any of this, by `sqlite3` itself.  The record is made in one
process, and syncs are only recorded.

The model, which is harsher than most file systems:
- What was synced is there.  Of what was written to a file since, any subset is, in any order, and of a torn write any
  subset of its sectors of 512 bytes.  Bytes that a write did not touch stay as they were.
- A new name, a rename and a removal are durable when the folder is synced.  Before, each happened or not.
- As in SQLite's os_unix.c, the first sync of a new journal syncs its folder, and so does a deletion that asks for it.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

SECTOR = 512
_JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_VFS = "recorded"


class Call(NamedTuple):
    """One call that changes the disk, or, as `begin` and `end`, a mark of the test with its `value`."""

    kind: str
    path: str = ""
    value: Any = None
    data: bytes = b""


@dataclass
class _File:
    """Contents of a file: what is durable, and the writes and truncations since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for at, data in self.pending:
            _apply(self.durable, at, data)
        self.pending.clear()


class CrashModel:
    """What is durable, and what is pending, after some calls of a record."""

    def __init__(self, folders: set[str], files: dict[str, bytes]) -> None:
        self.folders = folders
        self.names = {path: _File(bytearray(data)) for path, data in files.items()}
        self._durable = dict(self.names)
        self._pending: list[tuple[str, _File | None, str]] = []

    def apply(self, call: Call) -> None:
        """Take over one call."""
        match call.kind:
            case "mkdir":
                self.folders.add(call.path)
            case "create":
                self._rename(call.path, _File(), "")
            case "write" | "truncate":
                self.names[call.path].pending.append((call.value, call.data if call.kind == "write" else None))
            case "sync":
                self.names[call.path].sync()
            case "remove":
                self.names.pop(call.path)
                self._pending.append((call.path, None, ""))
            case "rename":
                self._rename(call.value, self.names.pop(call.path), call.path)
            case "sync folder":
                within = [each for each in self._pending if os.path.dirname(each[0]) == call.path]  # noqa: PTH120
                _name(self._durable, within)
                self._pending = [each for each in self._pending if each not in within]

    def disk(self, draw: random.Random, kept: float) -> dict[str, bytes]:
        """Return the files after a crash now; each pending change was kept with the probability `kept`."""
        names = dict(self._durable)
        _name(names, [each for each in self._pending if draw.random() < kept])
        return {path: _contents(file, draw, kept) for path, file in names.items()}

    def _rename(self, path: str, file: _File, old: str) -> None:
        self.names[path] = file
        self._pending.append((path, file, old))


def _name(names: dict[str, _File], changes: list[tuple[str, _File | None, str]]) -> None:
    for path, file, old in changes:
        names.pop(old, None)
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def _contents(file: _File, draw: random.Random, kept: float) -> bytes:
    data = bytearray(file.durable)
    pieces: list[tuple[int, bytes | None]] = []
    for at, written in file.pending:
        if written is None or draw.random() < 0.5:
            pieces += [(at, written)] if draw.random() < kept else []
        else:
            pieces += [each for each in _sectors(at, written) if draw.random() < kept]
    if kept < 1:
        draw.shuffle(pieces)
    for at, written in pieces:
        _apply(data, at, written)
    return bytes(data)


def _sectors(at: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        stop = start + SECTOR - (at + start) % SECTOR
        yield at + start, data[start:stop]
        start = stop


def _apply(contents: bytearray, at: int, data: bytes | None) -> None:
    contents.extend(bytes(max(0, at - len(contents))))
    if data is None:
        del contents[at:]
    else:
        contents[at : at + len(data)] = data


class RecordedDisk:
    """The record of what happened to the files in the folder `root`.

    `fail`, given each call before it is made, may return an `errno` with which it fails; `rewrite` may change a
    statement, which is how faults are planted.
    """

    def __init__(self, root: Path, *, rewrite: Callable[[str], str] = str) -> None:
        self.root = root
        self.calls: list[Call] = []
        self.fail: Callable[[Call], int | None] = lambda call: None
        self.read_only = False
        self.rewrite = rewrite
        self._folders, self._files = {str(root)}, {}
        for path in sorted(root.rglob("*")):
            if path.is_dir():
                self._folders.add(str(path))
            else:
                self._files[str(path)] = path.read_bytes()

    def made(self, call: Call) -> None:
        """Record a call, which is about to be made.  Raise `OSError` if it is to fail."""
        number = self.fail(call)
        if number is not None:
            raise OSError(number, os.strerror(number))
        self.calls.append(call)

    @contextmanager
    def step(self, after: Any) -> Iterator[None]:
        """Mark a step that makes the stored value `after`; it counts as returned only if it does not raise."""
        self.calls.append(Call("begin", value=after))
        yield
        self.calls.append(Call("end", value=after))

    def crashes(self, seed: int, draws: int, before: Any = None) -> Iterator[tuple[int, dict[str, bytes], list[Any]]]:
        """Yield a number of the call, a disk after a crash there, and the values that may be stored then."""
        model = CrashModel(set(self._folders), dict(self._files))
        possible = [before]
        for number, call in enumerate(self.calls):
            if call.kind == "begin":
                possible = [*possible, call.value]
            elif call.kind == "end":
                possible = [call.value]
            model.apply(call)
            for index in range(draws):
                draw = random.Random(f"{seed} {number} {index}")
                kept = (0.0, 1.0)[index] if index < 2 else draw.choice((0.1, 0.5, 0.9))
                yield number, model.disk(draw, kept), possible

    def put(self, disk: dict[str, bytes], target: Path) -> None:
        """Write a disk into the folder `target`."""
        target.mkdir(exist_ok=True)
        for path, data in disk.items():
            place = target / Path(path).relative_to(self.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record all that this process does to files in the folder."""
        vfs = _RecordedVfs(self)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sqlite3, "connect", self._connect)
                for name in ("open", "fsync", "unlink", "replace", "mkdir"):
                    patch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
                yield
        finally:
            vfs.unregister()

    def _connect(self, database: str | Path, *, timeout: float = 5.0, **_: Any) -> Connection:
        with _as_sqlite3():
            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
            return Connection(apsw.Connection(str(database), flags=flags, vfs=_VFS), timeout, self.rewrite)

    def _is_ours(self, path: Any) -> bool:
        return not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(self.root)

    def _open(self, real: Any) -> Any:
        def opened(path: Any, flags: int, *more: Any, **options: Any) -> int:
            if self._is_ours(path) and flags & os.O_CREAT and not os.path.lexists(path):
                self.made(Call("create", str(path)))
            return int(real(path, flags, *more, **options))

        return opened

    def _fsync(self, real: Any) -> Any:
        def synced(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
            if self._is_ours(path):
                self.made(Call("sync folder" if Path(path).is_dir() else "sync", path))
            else:
                real(descriptor)

        return synced

    def _unlink(self, real: Any) -> Any:
        def removed(path: Any, **options: Any) -> None:
            if self._is_ours(path) and os.path.lexists(path):
                self.made(Call("remove", str(path)))
            real(path, **options)

        return removed

    def _replace(self, real: Any) -> Any:
        def renamed(old: Any, new: Any, **options: Any) -> None:
            if self._is_ours(old):
                self.made(Call("rename", str(old), str(new)))
            real(old, new, **options)

        return renamed

    def _mkdir(self, real: Any) -> Any:
        def made(path: Any, *more: Any, **options: Any) -> None:
            if self._is_ours(path) and not os.path.lexists(path):
                self.made(Call("mkdir", str(path)))
            real(path, *more, **options)

        return made


class Connection:
    """What the product uses of `sqlite3.Connection`, over apsw.  Texts must be UTF-8."""

    def __init__(self, real: apsw.Connection, timeout: float, rewrite: Callable[[str], str]) -> None:
        self._real = real
        self._rewrite = rewrite
        self.text_factory: type[str | bytes] = str
        real.set_busy_timeout(int(timeout * 1000))
        real.execute("PRAGMA cache_size=8")  # so that small transactions spill pages before their commit

    @property
    def in_transaction(self) -> bool:
        return self._real.in_transaction

    def execute(self, statement: str, values: Any = ()) -> _Rows:
        with _as_sqlite3():
            found = self._real.execute(self._rewrite(statement), tuple(values)).fetchall()
        if self.text_factory is bytes:
            found = [tuple(each.encode() if isinstance(each, str) else each for each in row) for row in found]
        return _Rows(found)

    def executemany(self, statement: str, rows: Any) -> None:
        with _as_sqlite3():
            self._real.executemany(self._rewrite(statement), rows)

    executescript = execute

    @contextmanager
    def blobopen(self, table: str, column: str, row: int, *, readonly: bool = False) -> Iterator[_Blob]:
        with _as_sqlite3(), self._real.blob_open("main", table, column, row, not readonly) as blob:
            yield _Blob(blob)

    def close(self) -> None:
        with _as_sqlite3():
            self._real.close()


class _Blob(NamedTuple):
    real: apsw.Blob

    def read(self, size: int) -> bytes:
        return self.real.read(size)

    def write(self, data: bytes) -> None:
        self.real.write(data)


class _Rows(list[Any]):
    def fetchall(self) -> list[Any]:
        return self

    def fetchone(self) -> Any:
        return self[0] if self else None


@contextmanager
def _as_sqlite3() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        found = sqlite3.OperationalError(str(error))
        found.sqlite_errorcode = error.extendedresult
        found.sqlite_errorname = type(error).__name__
        raise found from error


class _RecordedVfs(apsw.VFS):
    def __init__(self, disk: RecordedDisk) -> None:
        self._disk = disk
        super().__init__(_VFS, "unix")

    def excepthook(self, *_: Any) -> None:
        """Keep silent: faults are made on purpose, and SQLite reports their codes."""

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = None if name is None else name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        if path is None or not self._disk._is_ours(path):
            return apsw.VFSFile("unix", name, flags)
        is_new = not os.path.lexists(path)
        if is_new:
            with _as_apsw(apsw.SQLITE_CANTOPEN):
                self._disk.made(Call("create", path))
        if self._disk.read_only and not is_new:
            writable = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
            flags = [flags[0] & ~writable | apsw.SQLITE_OPEN_READONLY, 0]
        return _RecordedFile(self._disk, path, name, flags, is_new and bool(flags[0] & _JOURNALS))

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        if os.path.lexists(filename):
            with _as_apsw(apsw.SQLITE_IOERR_DELETE):
                self._disk.made(Call("remove", filename))
        super().xDelete(filename, False)
        if syncdir:
            with _as_apsw(apsw.SQLITE_IOERR_DIR_FSYNC):
                self._disk.made(Call("sync folder", os.path.dirname(filename)))  # noqa: PTH120


class _RecordedFile(apsw.VFSFile):
    def __init__(self, disk: RecordedDisk, path: str, name: Any, flags: list[int], is_new_journal: bool) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._path = path
        self._is_new_journal = is_new_journal

    def excepthook(self, *_: Any) -> None:
        """Keep silent, as the VFS does."""

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        with _as_apsw(apsw.SQLITE_IOERR_WRITE):
            self._disk.made(Call("write", self._path, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        with _as_apsw(apsw.SQLITE_IOERR_TRUNCATE):
            self._disk.made(Call("truncate", self._path, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        with _as_apsw(apsw.SQLITE_IOERR_FSYNC):
            self._disk.made(Call("sync", self._path))
            if self._is_new_journal:
                self._is_new_journal = False
                self._disk.made(Call("sync folder", os.path.dirname(self._path)))  # noqa: PTH120


@contextmanager
def _as_apsw(code: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise apsw.exception_for(apsw.SQLITE_FULL if error.errno == errno.ENOSPC else code) from error
