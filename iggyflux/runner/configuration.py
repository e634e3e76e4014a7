"""Whether a run uses the documents on disk, for people and machines: `reload` writes it, the status shows it.

| state    | the documents on disk                                            |
|----------|------------------------------------------------------------------|
| current  | are those of the run                                             |
| checking | are being read                                                   |
| waiting  | are good; a route has not taken its own yet                      |
| refused  | are not good: the run goes on with those that it has             |
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from iggyflux.codes import CODES
from iggyflux.errors import Problem
from iggyflux.records import JSON
from iggyflux.runner.newest import Show


@dataclass(slots=True)
class Configuration:
    """The documents of a run: whether they are those on disk, and why not.

    `refused` is the first problem of a change that was refused, None after a good one.
    """

    since_unix: float = 0.0
    """When the state began: the start of the run, or the last change that was accepted or refused."""
    is_checking: bool = False
    refused: Problem | None = None
    changes: dict[str, int] = field(default_factory=lambda: {"accepted": 0, "refused": 0})
    """How many changes were accepted and refused."""
    reads: int = 0
    """How often the documents were read again to the end, changed or not."""

    def as_dict(self, *, is_changing: bool, public: Show | None = None) -> dict[str, JSON]:
        """Return the JSON form; `public` says what others than who reads the log are shown, None is all."""
        states = {"checking": self.is_checking, "waiting": is_changing, "refused": self.refused is not None}
        return {
            "state": next((name for name, is_so in states.items() if is_so), "current"),
            "since_unix": round(self.since_unix, 3),
            "refused": None if self.refused is None else _refusal(self.refused, public),
            "changes": {**self.changes},
        }


def _refusal(problem: Problem, public: Show | None) -> dict[str, JSON]:
    """Return the JSON form of a problem: its place is always shown, its words may quote a message."""
    place, entry = problem.location, CODES.get(problem.code)
    if public is not None and place.file is not None:
        place = dataclasses.replace(place, file=Path(place.file).name)
    has_words = public != "codes"
    return {
        "code": problem.code,
        "reason": problem.message if has_words else entry.title if entry else "",
        "place": str(place),
        "hint": problem.hint if has_words else None,
    }
