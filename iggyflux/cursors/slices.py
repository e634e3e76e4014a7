"""Slices of time whose digests are kept, and marks of rows: what `store` and `deduplicator` both know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

DIGEST_BYTES = 16

Mark: TypeAlias = Literal["", "late", "changed"]


@dataclass(frozen=True, slots=True)
class Slice:
    """Digests of the rows of `[start, stop)`, in the blob `number`, which may contain digests of other times too."""

    start: int
    stop: int
    number: int
    count: int
    is_cut: bool = False
    """Whether digests of times outside `[start, stop)` in the blob are outdated."""


class SliceStore(Protocol):
    """What a deduplicator needs of the store of a cursor."""

    memory_bytes: int
    """The most bytes of digests in memory."""

    @property
    def width(self) -> int:
        """The number of bytes of an entry."""

    def slices(self, start: int, stop: int) -> list[Slice]:
        """Return the stored slices that overlap `[start, stop)`."""

    def entries(self, of: Slice) -> Iterator[bytes]:
        """Return the entries of a blob.  Raise `Stopped` (IFX641) if they are not what was stored."""

    def new_number(self) -> int:
        """Return a number that no blob has."""
