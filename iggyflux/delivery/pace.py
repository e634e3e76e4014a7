"""How many requests should be under way at once: as many as make it faster, no more.

Pure: times are arguments.  By Little's law the lines a second are `requests at once * lines / latency`; so the number
grows while that grows, and falls back where only the latency did.  What a server wants is not known beforehand, and
changes: one that was settled on is tried again now and then, and a server that fails gets half.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

# More at once must bring so much to be kept, fewer may cost so little: measured rates waver by a few percent.
_WORTH = 1.1
_AS_GOOD = 0.95
# So much slower than it was: perhaps it is us.
_SLOWED = 0.7
_GROWTH = 1.5
# Judgements for which a number is kept before the next one is tried; doubled each time that it brought nothing.
_PATIENCE = (8, 128)
# Who answers nothing for so long was away, not overloaded.
_AWAY_SECONDS = 5.0
# Requests, and seconds, that a judgement needs at least.
_FEWEST = 6
_SHORTEST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The number to begin with, and what it stays between."""

    first: int
    least: int
    most: int

    @classmethod
    def exactly(cls, number: int) -> Bounds:
        """A number that somebody chose."""
        return cls(number, number, number)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a number of requests at once was worth, in lines a second."""

    limit: int
    rate: float


class Pace:
    """The number for one sink; tell it of each wait and of each request that ended."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.limit = bounds.first
        """How many may be under way now."""
        self._trying: _Known | None = None
        """What was left for the present number, while that is judged."""
        self._settled = False
        self._rate = 0.0
        self._rest = 0
        self._patience = _PATIENCE[0]
        self._failing: tuple[int, float] | None = None  # the number before, and since when nothing was answered
        self._unsteady = 0
        self._changed = float("-inf")
        self._forget()

    def held_up(self, seconds: float) -> None:
        """A request was ready and had to wait so long, since so many were under way."""
        self._held_up += seconds

    def ended(self, lines: int, began: float, now: float, *, is_answered: bool) -> None:
        """A request came back; `is_answered` is false where the server was away, overloaded or failed."""
        if began < self._changed:
            return  # it ran beside another number of requests
        if not is_answered:
            self._fail(now)
            return
        if self._failing is not None:
            self._recover(self._failing, now)
            return
        if self._unsteady:
            self._unsteady -= 1
            return
        self._count += 1
        self._lines += lines
        self._seconds += max(now - began, 1e-6)
        passed = self._seconds / self.limit
        if passed >= _SHORTEST_SECONDS and self._count >= max(2 * self.limit, _FEWEST):
            # Where the source was the slower one, the number was not what mattered.
            if self._held_up >= passed / 2:
                self._judge(_Known(self.limit, self._lines / passed), now)
            self._forget()

    def _fail(self, now: float) -> None:
        """Half, once: a server that fails again and again is not slower for that."""
        self._trying, self._settled = None, False
        if self._failing is None:
            self._failing = (self.limit, now)
            self._set(self.limit // 2, now)

    def _recover(self, failing: tuple[int, float], now: float) -> None:
        """It answers again: one that was away takes what it took before."""
        before, since = failing
        self._failing = None
        self._set(before if now - since >= _AWAY_SECONDS else self.limit, now)

    def _judge(self, found: _Known, now: float) -> None:
        before = self._trying
        if self._settled:
            self._rest -= 1
            if found.rate < _SLOWED * self._rate and found.limit > self._bounds.least:
                self._try(found, ceil(found.limit / _GROWTH), now)
            elif self._rest <= 0 and found.limit < self._bounds.most:
                self._try(found, ceil(found.limit * _GROWTH), now)
        elif before is None:
            self._try(found, ceil(found.limit * _GROWTH), now)
        elif found.limit > before.limit:
            if found.rate >= _WORTH * before.rate:
                self._patience = _PATIENCE[0]
                self._try(found, ceil(found.limit * _GROWTH), now)
            else:
                self._settle(before, now)
        elif found.rate >= _AS_GOOD * before.rate:
            self._try(found, ceil(found.limit / _GROWTH), now)
        else:
            self._settle(before, now)

    def _try(self, found: _Known, limit: int, now: float) -> None:
        """See what another number is worth; stay where there is none."""
        limit = min(max(limit, self._bounds.least), self._bounds.most)
        if limit == found.limit:
            self._settle(found, now)
            return
        self._trying, self._settled = found, False
        self._set(limit, now)

    def _settle(self, known: _Known, now: float) -> None:
        """Stay with a number for a while."""
        self._trying, self._settled, self._rate = None, True, known.rate
        self._rest = self._patience
        self._patience = min(2 * self._patience, _PATIENCE[1])
        self._set(known.limit, now)

    def _set(self, limit: int, now: float) -> None:
        self.limit = min(max(limit, self._bounds.least), self._bounds.most)
        self._changed = now
        self._unsteady = self.limit  # the first of them find the server less busy than it will be
        self._forget()

    def _forget(self) -> None:
        self._count = self._lines = 0
        self._seconds = self._held_up = 0.0
