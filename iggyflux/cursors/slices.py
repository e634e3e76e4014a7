"""Slices of time whose digests are kept, and marks of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

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
