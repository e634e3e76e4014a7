"""How much of an archive is read and left, in bytes of content: what a compressed file expands to counts.

How far those expand that are not read yet is taken from the others: before that, ten times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from iggyflux.transports.base import Progress

EXPANDS: Final = 10
"""How many bytes a byte of a compressed file is taken for: text shrinks to a tenth."""
_SOME: Final = 1 << 20
"""So many bytes weigh as much as that guess."""


@dataclass(slots=True)
class FileExtent:
    """A file, or what is left of it: its bytes as they are stored, and as far as they are read `seen` and `content`."""

    size: int
    is_compressed: bool
    seen: int = 0
    content: int = 0


@dataclass(slots=True)
class Extent:
    """What was read of files (`done`), and what is stored of those that are not begun: `plain` and `packed`."""

    done: int = 0
    plain: int = 0
    packed: int = 0
    _seen: int = _SOME
    _content: int = _SOME * EXPANDS

    def add(self, size: int, sign: int = 1, *, is_compressed: bool) -> None:
        """Count a file that is to be read; with -1 no more, as it is begun."""
        if is_compressed:
            self.packed += sign * size
        else:
            self.plain += sign * size

    def end(self, file: FileExtent) -> None:
        """Count a file that was begun as read."""
        self.done += file.content
        if file.is_compressed:
            self._seen += file.seen
            self._content += file.content

    def progress(self, now: FileExtent | None) -> Progress:
        """Return how much is read, with the file `now`, which is begun."""
        now = now or FileExtent(0, is_compressed=False)
        done, plain, packed, seen, content = self.done + now.content, self.plain, self.packed, self._seen, self._content
        if now.is_compressed:
            packed, seen, content = packed + now.size, seen + now.seen, content + now.content
        else:
            plain += now.size
        return Progress(done, max(self.done + plain + packed * content // seen, done))
