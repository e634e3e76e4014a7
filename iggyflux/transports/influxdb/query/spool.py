"""A received answer, kept until it is complete: in memory if small, else in an unlinked temporary file.

It can be read any number of times, by several readers at once, a block at a time.  Its content has no meaning here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_IN_MEMORY_BYTES = 4 * 1024 * 1024
BLOCK_BYTES = 256 * 1024


class SpoolError(Exception):
    """The disk rejects a write; the text says why."""


class SpoolFull(Exception):
    """The answer is larger than allowed."""


class Spool:
    """Bytes that are appended once and read often."""

    def __init__(self, folder: Path | None, most_bytes: int, mark: bytes = b"") -> None:
        """`mark` is a byte string whose presence in the answer is recorded."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0
        self.tail = b""
        """The last bytes, which hold the marks that end an answer."""
        self.newlines = 0
        self.is_marked = False
        self.is_nothing = False
        """Whether the server has nothing of the queried name, so that there was no answer to keep."""
        self._mark = mark

    def append(self, piece: bytes) -> None:
        """Keep a piece.  Raise `SpoolFull`, `SpoolError`."""
        self.size += len(piece)
        if self.size > self._most_bytes:
            raise SpoolFull
        self.newlines += piece.count(b"\n")
        if self._mark and not self.is_marked:
            self.is_marked = self._mark in piece or self._mark in self.tail + piece[:64]
        self.tail = piece[-64:] if len(piece) >= 64 else (self.tail + piece)[-64:]
        if self._file is None:
            self._memory += piece
            if len(self._memory) <= _IN_MEMORY_BYTES:
                return
            piece = bytes(self._memory)
            self._memory = bytearray()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  `close` closes it
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise SpoolError(error.strerror or str(error)) from None

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[bytes]:
        """Return everything that was kept, in order.  Raise `SpoolError`."""
        position = 0
        while position < self.size:
            block = self.read(position, size)
            if not block:
                raise SpoolError("the file of an answer is shorter than it was")
            yield block
            position += len(block)

    def last_line(self) -> bytes:
        """Return the last line that is not empty, without its end.  Raise `SpoolError`."""
        length = 4096
        while True:
            data = self.read(max(self.size - length, 0), length).rstrip(b"\r\n")
            line = data.rpartition(b"\n")[2]
            if len(line) < len(data) or length >= self.size:
                return line
            length *= 4

    def read(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position`.  Raise `SpoolError`."""
        if self._file is None:
            return bytes(self._memory[position : position + size])
        try:
            return os.pread(self._file.fileno(), size, position)
        except (OSError, ValueError) as error:
            raise SpoolError(str(error)) from None

    def close(self) -> None:
        """Release everything; idempotent."""
        if self._file is not None:
            self._file.close()
        self._memory = bytearray()
        self.size = 0
