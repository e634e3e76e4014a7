"""The statistics of a simulator: each request, and the sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class RecordedRequest(NamedTuple):
    """A received request: `status` is None if no complete response was sent."""

    method: str
    target: str
    status: int | None
    lines: int
    stored: int
    refused: int
    bytes: int
    faults: tuple[str, ...]


@dataclass(slots=True)
class Stats:
    """The counts so far.  `lines` counts parsed and rejected lines, `stored` the stored ones."""

    requests: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    lines: int = 0
    stored: int = 0
    refused: int = 0
    points: int = 0
    series: int = 0
    overwritten: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return {
            "requests": {str(status): number for status, number in sorted(self.requests.items())},
            "broken": self.broken,
            "lines": self.lines,
            "stored": self.stored,
            "refused": self.refused,
            "points": self.points,
            "series": self.series,
            "overwritten": self.overwritten,
            "faults": dict(sorted(self.faults.items())),
        }
