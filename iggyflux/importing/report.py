"""What became of each construct of a configuration: a list of lines, each with a verdict.

A report names keys and what was made of them.  It never has a value of a key that may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from iggyflux.escapes import escaped


class Verdict(StrEnum):
    """What was done with a construct."""

    TAKEN = "taken"
    APPROXIMATED = "approximated"
    NOT_TAKEN = "not taken"


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """What became of one construct: `became` says it, or what to do.  `number` is its line, from 1, or 0."""

    number: int
    construct: str
    verdict: Verdict
    became: str


class Report:
    """The lines of one conversion, without duplicates."""

    def __init__(self) -> None:
        self._lines: dict[Line, None] = {}

    def add(self, number: int, construct: str, verdict: Verdict, became: str) -> None:
        self._lines[Line(number, escaped(construct), verdict, escaped(became))] = None

    def withdraw(self, number: int, construct: str) -> None:
        """Remove what was said of a construct, which another one makes void."""
        said = (number, escaped(construct))
        self._lines = {line: None for line in self._lines if (line.number, line.construct) != said}

    @property
    def lines(self) -> list[Line]:
        """The lines in the order of the file."""
        return sorted(self._lines, key=lambda line: line.number)

    def count(self, verdict: Verdict) -> int:
        return sum(line.verdict is verdict for line in self._lines)

    def text(self, file: str) -> Iterator[str]:
        """Yield the report as people read it: place, verdict, construct, and what it became."""
        lines = self.lines
        for line in lines:
            place = f"{escaped(file)}:{line.number}" if line.number else escaped(file)
            yield f"{place}: {line.verdict}: {line.construct}: {line.became}"
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in Verdict)
        yield f"{len(lines)} constructs: {counts}"
