"""A file that is appended to, and whether its path still leads to what was appended.

An open file stays writable after it was removed, renamed, replaced or cut, so a write that succeeds proves nothing.
Whoever promises that data is kept appends, syncs, and then asks `is_at`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from iggyflux.disk import make_folder, sync_folder, write_whole

ATTEMPTS = 3
"""How often a writer opens the file anew for the same data before it gives up."""


class AppendFile:
    """An open file.  Every method raises `OSError` where the system refuses.

    One thread may sync while another appends or closes.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at `path`; a missing one is created, with its folders."""
        make_folder(path.parent)
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._open = threading.Lock()
        self._is_open = True
        try:
            sync_folder(path.parent)
        except OSError:
            self.close()
            raise

    @property
    def size(self) -> int:
        """The present size in bytes."""
        return os.fstat(self.descriptor).st_size

    def append(self, data: bytes) -> int:
        """Append `data` whole or not at all; return the offset behind it."""
        before = self.size
        try:
            write_whole(self.descriptor, data)
        except OSError:
            os.ftruncate(self.descriptor, before)
            raise
        return os.lseek(self.descriptor, 0, os.SEEK_CUR)

    def sync(self) -> None:
        """Make durable what was appended; a closed file is left alone, since `is_at` is false for it."""
        with self._open:  # the number of a closed descriptor may be another file's by now
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


def leads_to(path: Path, descriptor: int) -> bool:
    """Return whether `path` leads to the file that is open as `descriptor`.  Raises `OSError`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
