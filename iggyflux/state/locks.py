"""Lock files: at most one process owns a name, and its death releases it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from iggyflux.disk import make_folder, remedy
from iggyflux.errors import Stopped


class Lock:
    """A lock file that one process holds; the system frees it when the holder dies, also by `kill -9`."""

    def __init__(self, path: Path, owner: str) -> None:
        """Take the lock at `path`.

        Raise `Stopped`: IFX702 with the holder's process if another process has it, IFX701 if the file cannot be made
        or written.
        """
        self.path = path
        self._owner = owner
        self._descriptor: int | None = None
        try:
            make_folder(path.parent, 0o700)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take(self._descriptor)
        except OSError as error:
            self.release()
            hint = f"{remedy(error) or 'check the system log'}, or set `state` to another folder"
            raise Stopped(f"cannot keep positions in {path.parent}: {error.strerror}", hint, "IFX701") from error

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            self.release()
            raise Stopped(
                f"{self._owner} is in use by process {holder or '(unknown)'}",
                "stop that process, or use another consumer name",
                "IFX702",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def check(self) -> None:
        """Raise `Stopped` (IFX702) if the lock file was removed or replaced: another process may hold a new one."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            found = None
        held = None if self._descriptor is None else os.fstat(self._descriptor)
        if found is None or held is None or (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
            raise Stopped(
                f"the lock file {self.path} was removed or replaced, so another process may use {self._owner}",
                "do not remove lock files: they are released when their process ends",
                "IFX702",
            )

    def release(self) -> None:
        """Release the lock; idempotent.  The file stays: without it two processes could lock two files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(path: Path) -> bool:
    """Return whether a process has the lock at `path`; one that takes it just now may be refused.  Raise `OSError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
