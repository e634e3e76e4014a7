"""A disk on which only what was synced is durable: the real files of a folder, and what a crash leaves of them.

| what happens                     | afterwards                                                                  |
|----------------------------------|-----------------------------------------------------------------------------|
| the process is killed            | everything that was written is there                                        |
| the machine crashes              | of each file what was synced, and any part of the rest; a new name in a     |
|                                  | folder that was not synced since may be gone                                |
| the disk is full                 | writes fail with ENOSPC                                                     |
| it becomes read-only             | opening for writing and writing fail with EROFS                             |
| a file is synced in a thread     | time passes; what is written meanwhile is not durable yet                   |
| an operator removes a folder     | files in it go on as open files, unreachable                                |
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.simulation.loop import Process, current_process, is_in_thread, pause, vanish

_SYNC_SECONDS = 0.1


class Disk:
    """The disk under `folder`.  Inside the block the functions of `os` that change files go through it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_full = self.is_read_only = False
        self.calls: Counter[str] = Counter()
        self.on_sync: Callable[[Path], None] = lambda _: None
        """Called with a file that was synced, and whose name is durable."""
        self.on_new: Callable[[int], None] = lambda _: None
        """Called with the inode of a new file: it may have been another one's."""
        self._real: dict[str, Any] = {}
        self._durable: dict[int, int] = {}
        self._names: dict[int, set[str]] = {}
        self._open: dict[int, Process] = {}
        self._dies_at: dict[Process, int] = {}
        self._removed_at: dict[Path, int] = {}

    def __enter__(self) -> Self:
        for name in ("open", "close", "write", "fsync", "replace"):
            self._real[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"_{name}_file"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)
        for descriptor in list(self._open):
            self._real["close"](descriptor)

    def kill_at(self, process: Process, call: int) -> None:
        """Kill `process` before (even) or after (odd) one of its next calls."""
        self._dies_at[process] = call

    def forget_kills(self) -> None:
        """Cancel what `kill_at` has planned."""
        self._dies_at.clear()

    def died(self, process: Process) -> None:
        """Close the files of a process that vanished."""
        for descriptor, owner in list(self._open.items()):
            if owner is process:
                self._real["close"](descriptor)
                del self._open[descriptor]

    def crash(self, chance: random.Random) -> None:
        """Lose what was not synced, or any part of it."""
        for folder, _, files in sorted(os.walk(self.folder)):
            names = self._names.get(Path(folder).stat().st_ino, set())
            for file in sorted(files):
                path = Path(folder) / file
                found = path.stat()
                durable = self._durable.get(found.st_ino, 0)
                if file not in names and chance.random() < 0.5:
                    path.unlink()
                elif found.st_size > durable:
                    os.truncate(path, chance.randint(durable, found.st_size))

    def remove(self, folder: Path, calls: int) -> None:
        """Remove a folder, as a person does, before the next call for one of its files but `calls`."""
        self._removed_at[folder] = calls

    # The calls

    def _is_ours(self, descriptor: int) -> bool:
        return descriptor in self._open

    def _step(self, name: str, path: Path) -> None:
        """Count a call for a file, at which the process may vanish, or the folder be removed."""
        self.calls[name] += 1
        for folder in [each for each in self._removed_at if path == each or each in path.parents]:
            self._removed_at[folder] -= 1
            if self._removed_at[folder] < 0:
                del self._removed_at[folder]
                shutil.rmtree(folder, ignore_errors=True)
        process = current_process()
        if process is None or process not in self._dies_at:
            return
        self._dies_at[process] -= 1
        if self._dies_at[process] < 0:
            vanish()

    def _open_file(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        process = current_process()
        inside = process is not None and str(path).startswith(str(self.folder))
        if inside:
            self._step("open", Path(path))
            if self.is_read_only and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        is_new = inside and flags & os.O_CREAT and not Path(path).exists()
        descriptor: int = self._real["open"](path, flags, mode, **more)
        if inside and process is not None:
            self._open[descriptor] = process
        if is_new:
            inode = os.fstat(descriptor).st_ino
            self._durable.pop(inode, None)
            self.on_new(inode)
        return descriptor

    def _close_file(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        self._real["close"](descriptor)

    def _write_file(self, descriptor: int, data: Any) -> int:
        if not self._is_ours(descriptor):
            return int(self._real["write"](descriptor, data))
        path = _path_of(descriptor)
        self._step("write", path)
        if self.is_full or self.is_read_only:
            number = errno.ENOSPC if self.is_full else errno.EROFS
            raise OSError(number, os.strerror(number))
        written = int(self._real["write"](descriptor, data))
        self._step("written", path)
        return written

    def _fsync_file(self, descriptor: int) -> None:
        if not self._is_ours(descriptor):
            self._real["fsync"](descriptor)
            return
        path = _path_of(descriptor)
        self._step("fsync", path)
        found = os.fstat(descriptor)
        if is_in_thread() and not path.is_dir():
            pause(_SYNC_SECONDS)
        if path.is_dir():
            self._names[found.st_ino] = {each.name for each in path.iterdir()}
        else:
            self._durable[found.st_ino] = found.st_size
            if path.exists() and path.name in self._names.get(path.parent.stat().st_ino, ()):
                self.on_sync(path)
        self._step("fsynced", path)

    def _replace_file(self, source: Any, target: Any, **more: Any) -> None:
        inside = current_process() is not None and str(target).startswith(str(self.folder))
        if inside:
            self._step("replace", Path(target))
        self._real["replace"](source, target, **more)
        if inside:
            self._step("replaced", Path(target))


def _path_of(descriptor: int) -> Path:
    """Return the path of an open file; it ends with " (deleted)" where there is none any more."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()
