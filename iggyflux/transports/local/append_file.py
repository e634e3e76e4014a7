"""A file for appending, and whether its path still leads to what was appended.

An open file stays writable after it was removed, renamed, replaced or truncated, so a successful write proves nothing.
A caller that promises durability appends, syncs, and then checks `is_at`.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

from iggyflux.disk import make_folder, sync_folder, write_whole

ATTEMPTS = 3
"""How often a writer reopens the file for the same data before it gives up."""


class AppendFile:
    """An open file.  Every method raises `OSError` if the system rejects the call.

    One thread may sync while another appends or closes.
    """

    def __init__(self, path: Path, *, private: bool = False) -> None:
        """Open the file at `path`; a missing one is created, with its folders, which may be removed meanwhile.

        If it is `private`, only the owner can read what is created.
        """
        self.path = path
        self._open = threading.Lock()
        for left in reversed(range(ATTEMPTS)):
            try:
                self.descriptor = _opened(path, private=private)
            except FileNotFoundError:
                if not left:
                    raise
            else:
                break
        self._is_open = True

    @property
    def size(self) -> int:
        """The current size in bytes."""
        return os.fstat(self.descriptor).st_size

    def append(self, data: bytes) -> int:
        """Append `data` whole or not at all; return the offset after it."""
        before = self.size
        try:
            write_whole(self.descriptor, data)
        except OSError:
            os.ftruncate(self.descriptor, before)
            raise
        return os.lseek(self.descriptor, 0, os.SEEK_CUR)

    def sync(self) -> None:
        """Make appended data durable; ignore a closed file, since `is_at` is false for it."""
        with self._open:  # after a close the descriptor's number may be another file's
            if self._is_open:
                os.fsync(self.descriptor)

    def is_at(self, size: int) -> bool:
        """Return whether the path leads to this file, and to at least `size` bytes of it."""
        return self._is_open and leads_to(self.path, self.descriptor) and self.size >= size

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._open:
            if self._is_open:
                self._is_open = False
                os.close(self.descriptor)


def _opened(path: Path, *, private: bool) -> int:
    """Return the descriptor of the file; its name is durable.  Raise `FileNotFoundError` if the folder was removed."""
    make_folder(path.parent, 0o700 if private else 0o777)
    mode = 0o600 if private else 0o644
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        sync_folder(path.parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def leads_to(path: Path, descriptor: int) -> bool:
    """Return whether `path` leads to the file that is open as `descriptor`.  Raise `OSError`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
