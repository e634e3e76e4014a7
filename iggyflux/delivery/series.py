"""The limit of series that a writer may write: which lines are of a known series, of a new one, or of one too many.

| the series of a line      | fewer series known than the limit | as many as the limit |
|---------------------------|-----------------------------------|----------------------|
| known                     | send it                           | send it              |
| new                       | send it; the series becomes known | the line is over it  |

Known series stay known, and are stored before a line of theirs is sent.  So a message that is read again is judged as
before.  A series is known by 64 bits of a hash of its key; at most as many as the limit are kept.

Pure: no I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from iggyflux.delivery.lines import point_key

BEYOND_LIMIT: Final = "IFX622"
LIMIT_POINTER: Final = "/limits/series"
"""The place of the limit in a mapping document."""

_NEAR = 0.8


@dataclass(frozen=True, slots=True)
class Judged:
    """The hashes of series that are new in some lines, and the lines (indices) of series beyond the limit."""

    new: tuple[int, ...] = ()
    over: tuple[int, ...] = ()


class SeriesLimit:
    """The known series of one writer: at most `most`."""

    def __init__(self, most: int, known: Iterable[int] = ()) -> None:
        self.most = most
        self._known = set(known)

    @property
    def known(self) -> Collection[int]:
        """The hashes of the known series."""
        return self._known

    @property
    def count(self) -> int:
        """The number of known series."""
        return len(self._known)

    @property
    def is_near(self) -> bool:
        """Whether 80 % of the limit are used."""
        return len(self._known) >= _NEAR * self.most

    def judge(self, lines: Sequence[str]) -> Judged:
        """Return what is new, or too much, in `lines`; changes nothing."""
        new: dict[int, None] = {}
        over = []
        for index, line in enumerate(lines):
            key = hash_of(point_key(line)[0])
            if key in self._known or key in new:
                continue
            if len(self._known) + len(new) < self.most:
                new[key] = None
            else:
                over.append(index)
        return Judged(tuple(new), tuple(over))

    def add(self, new: Iterable[int]) -> None:
        """Make series known, after they are stored."""
        self._known.update(new)


def hash_of(series: str) -> int:
    """Return 64 bits of a hash of a series, the same in each process."""
    return int.from_bytes(blake2b(series.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def pack(hashes: Sequence[int]) -> bytes:
    """Return hashes as they are stored."""
    return struct.pack(f"<{len(hashes)}Q", *hashes)


def unpack(pieces: Iterable[bytes]) -> Iterator[int]:
    """Yield the hashes in the pieces of a stored blob."""
    rest = b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) - len(data) % 8
        yield from (number for (number,) in struct.iter_unpack("<Q", data[:whole]))
        rest = data[whole:]
