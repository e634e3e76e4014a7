"""What happened in a simulator: each request, and the sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """A request as it was: `status` is None where no answer went out whole."""

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
    """What happened so far.  `lines` counts lines that were parsed or refused, `stored` those that were stored."""

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
        """For JSON."""
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
