"""Lines of input that is read in pieces, with the position of each line, and without long lines in memory."""

from __future__ import annotations

import logging
import os
from collections import deque

CHUNK_BYTES = 2**20
_BOM = b"\xef\xbb\xbf"

log = logging.getLogger("iggyflux.files")


class InputLines:
    """Lines of an open file descriptor, with the byte and line number after each piece that was taken.

    Of a line longer than `limit`, `limit + 1` bytes are kept: enough to see that it is too long.
    """

    def __init__(self, descriptor: int, name: str, limit: int, *, position: int = 0, number: int = 0) -> None:
        self.descriptor = descriptor
        self.name = name
        self.position = position
        self.number = number
        self.end = position
        """The position after the bytes that were fed."""
        self._limit = limit
        self._whole: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self._room = limit + 1
        self._dropped = 0
        self._dropped_of: dict[int, int] = {}

    def feed(self, data: bytes) -> None:
        """Take at most `limit` more bytes."""
        self.end += len(data)
        first, *more = data.split(b"\n")
        self._extend(first)
        if more:
            last = more.pop()
            self._end_line()
            self._whole.extend(more)
            self._extend(last)

    def finish(self) -> None:
        """Take the end of the input: a last line without a line end is a line too."""
        if any(self._rest):
            self._end_line()
            self.end += 1

    def __len__(self) -> int:
        return len(self._whole)

    def take(self, limit: int) -> list[tuple[int, bytes]]:
        """Return at most `limit` lines with their numbers (from 0), without empty ones; move `position` after them."""
        taken = []
        for _ in range(min(limit, len(self._whole))):
            line = self._whole.popleft()
            self.position += len(line) + 1
            if self._dropped_of and (dropped := self._dropped_of.pop(self.number, 0)):
                self.position += dropped
                log.warning(
                    "files.line_too_long path=%s line=%d bytes=%d kept=%d",
                    self.name,
                    self.number + 1,
                    len(line) + dropped,
                    len(line),
                )
            if self.number == 0:
                line = line.removeprefix(_BOM)
            # A truncated line keeps its length: without its blanks it might pass for a complete one.
            if content := line if len(line) > self._limit else line.strip():
                taken.append((self.number, content))
            self.number += 1
        return taken

    def _extend(self, piece: bytes) -> None:
        if self._room:
            self._rest.append(piece[: self._room])
        self._dropped += max(len(piece) - self._room, 0)
        self._room -= min(len(piece), self._room)

    def _end_line(self) -> None:
        if self._dropped:
            self._dropped_of[self.number + len(self._whole)] = self._dropped
        self._whole.append(b"".join(self._rest))
        self._rest, self._room, self._dropped = [], self._limit + 1, 0


def after_last_line(descriptor: int, size: int, chunk: int = CHUNK_BYTES) -> tuple[int, int]:
    """Return the byte after the last line end in the first `size` bytes, and the number of line ends."""
    position = number = at = 0
    while data := os.pread(descriptor, min(chunk, size - at), at):
        if ends := data.count(b"\n"):
            position = at + data.rfind(b"\n") + 1
            number += ends
        at += len(data)
    return position, number
