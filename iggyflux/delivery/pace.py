"""How many requests to have in flight at once: as many as raise the throughput, no more.

Pure: times are arguments.  By Little's law the throughput in lines a second is `requests in flight * lines / latency`.
The number grows while the throughput grows, and falls back where only the latency grew.  The best number is not known
beforehand and changes.  So another number is tried now and then, and a failing server gets half as many.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

# More requests must gain at least this to be kept, fewer may lose at most this: measured rates vary by a few percent.
_WORTH = 1.1
_AS_GOOD = 0.95
# A throughput that fell below this part of the known one: perhaps the number is too high now.
_SLOWED = 0.7
_GROWTH = 1.5
# Measurements for which a number is kept before the next one is tried; doubled each time the trial gained nothing.
_PATIENCE = (8, 128)
# A server that answers nothing for so long was unreachable, not overloaded.
_AWAY_SECONDS = 5.0
# The minimum of requests, and of seconds, for a measurement.
_FEWEST = 6
_SHORTEST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The number to begin with, and its minimum and maximum."""

    first: int
    least: int
    most: int

    @classmethod
    def exactly(cls, number: int) -> Bounds:
        """Return bounds that allow only `number`."""
        return cls(number, number, number)


@dataclass(frozen=True, slots=True)
class _Measurement:
    """The measured throughput of a number of requests in flight, in lines a second."""

    limit: int
    rate: float


class Pace:
    """The number for one sink, adapted from reported waits and ended requests."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.limit = bounds.first
        """How many requests may be in flight now."""
        self._trying: _Measurement | None = None
        """The number and throughput before the current trial; None if nothing is tried."""
        self._settled = False
        self._rate = 0.0
        self._rest = 0
        self._patience = _PATIENCE[0]
        self._failing: tuple[int, float] | None = None  # the number before the failures, and when they began
        self._unsteady = 0
        self._changed = float("-inf")
        self._forget()

    def held_up(self, seconds: float) -> None:
        """Count the seconds that a ready request had to wait because too many were in flight."""
        self._held_up += seconds

    def ended(self, lines: int, began: float, now: float, *, is_answered: bool) -> None:
        """Count a request that ended; `is_answered` is false if the server was unreachable, overloaded or failed."""
        if began < self._changed:
            return  # it ran beside a different number of requests
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
            # Where the source was the bottleneck, the measurement says nothing about the number.
            if self._held_up >= passed / 2:
                self._judge(_Measurement(self.limit, self._lines / passed), now)
            self._forget()

    def _fail(self, now: float) -> None:
        """Halve the number once: repeated failures do not lower it further."""
        self._trying, self._settled = None, False
        if self._failing is None:
            self._failing = (self.limit, now)
            self._set(self.limit // 2, now)

    def _recover(self, failing: tuple[int, float], now: float) -> None:
        """Go on after failures; a server that was unreachable gets the number it had before."""
        before, since = failing
        self._failing = None
        self._set(before if now - since >= _AWAY_SECONDS else self.limit, now)

    def _judge(self, found: _Measurement, now: float) -> None:
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

    def _try(self, found: _Measurement, limit: int, now: float) -> None:
        """Try `limit`, within the bounds; stay with `found` if that is the same number."""
        limit = min(max(limit, self._bounds.least), self._bounds.most)
        if limit == found.limit:
            self._settle(found, now)
            return
        self._trying, self._settled = found, False
        self._set(limit, now)

    def _settle(self, known: _Measurement, now: float) -> None:
        """Keep a number for a while."""
        self._trying, self._settled, self._rate = None, True, known.rate
        self._rest = self._patience
        self._patience = min(2 * self._patience, _PATIENCE[1])
        self._set(known.limit, now)

    def _set(self, limit: int, now: float) -> None:
        self.limit = min(max(limit, self._bounds.least), self._bounds.most)
        self._changed = now
        self._unsteady = self.limit  # the first requests find the server less busy than it will be
        self._forget()

    def _forget(self) -> None:
        self._count = self._lines = 0
        self._seconds = self._held_up = 0.0
