"""How many requests to have in flight at once: as many as raise the throughput, no more.

Pure: times are arguments.  By Little's law the throughput in lines a second is `requests in flight * lines / latency`.
The best number is not known beforehand and changes, so other numbers are tried: in the beginning, when the throughput
of the kept number changed, and now and then.

| a trial of         | is kept if the throughput is      | then                                       |
|--------------------|-----------------------------------|--------------------------------------------|
| twice as many      | at least a twentieth higher       | twice as many again                        |
| 1.4 times as many  | at least a twentieth higher       | 1.4 times as many again                    |
| as many by 1.4     | at most a thirtieth below the     | as many by 1.4 again                       |
|                    | highest of those that were kept   |                                            |

Else the number before it is kept, and the next kind of trial follows.  A failing server gets half as many.
"""

from __future__ import annotations

from dataclasses import dataclass

_DOUBLE, _MORE, _FEWER = 2.0, 1.4, 1 / 1.4
# More requests must gain at least this to be kept, fewer may lose at most this: measured rates vary by a few percent.
_WORTH = 1.05
_AS_GOOD = 0.97
# The kept number has another throughput than when it was found: the server changed.
_CHANGED = (0.8, 1.25)
# A trial of fewer that loses so much ends after few requests.
_HOPELESS = 0.85
# Where a request takes longer, fewer are tried first: a trial of more would last long, and may gain nothing.
_LONG_SECONDS = 2.0
_NEWEST_PART = 0.25  # of the known throughput of the kept number
# Measurements for which a number is kept before others are tried; doubled each time they gained nothing.
_PATIENCE = (16, 128)
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
    seconds: float
    """How long a request took."""


class Pace:
    """The number for one sink, adapted from reported waits and ended requests."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.limit = bounds.first
        """How many requests may be in flight now."""
        self._kept: _Measurement | None = None
        """The number that is kept, with its throughput; None before the first measurement."""
        self._trials: tuple[float, ...] = ()
        """The kinds of trials that are left, the present one first."""
        self._rest = 0
        self._patience = _PATIENCE[0]
        self._failing: tuple[int, float] | None = None  # the number before the failures, and when they began
        self._unsteady = bounds.first
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
        self._count += 1
        self._lines += lines
        self._seconds += max(now - began, 1e-6)
        passed = self._seconds / self.limit
        found = _Measurement(self.limit, self._lines / passed, self._seconds / self._count)
        is_over = self._is_hopeless(found)
        if self._unsteady:
            self._unsteady -= 1
            if not (self._unsteady or is_over):
                self._forget()
        else:
            is_over = is_over or (passed >= _SHORTEST_SECONDS and self._count >= self._needed)
        if is_over:
            # Where the source was the bottleneck, the measurement says nothing about the number.
            is_full = self._held_up >= passed / 2
            self._forget()
            if is_full:
                self._judge(found, now)

    @property
    def _needed(self) -> int:
        """How many requests a measurement needs; a trial of fewer must not end by a mistake, which would cost most."""
        is_fewer = self._kept is not None and self.limit < self._kept.limit
        return max((1 + is_fewer) * self.limit, _FEWEST)

    def _is_hopeless(self, found: _Measurement) -> bool:
        """Whether a trial can end early: fewer lose much, or more gain nothing even at first.

        The first requests of more find the server less busy than it will be.
        """
        kept = self._kept
        if kept is None or found.limit == kept.limit or self._count < _FEWEST:
            return False
        return found.rate < kept.rate * (1 if found.limit > kept.limit else _HOPELESS)

    def _fail(self, now: float) -> None:
        """Halve the number once: repeated failures do not lower it further."""
        self._kept, self._trials = None, ()
        if self._failing is None:
            self._failing = (self.limit, now)
            self._set(self.limit // 2, now)

    def _recover(self, failing: tuple[int, float], now: float) -> None:
        """Go on after failures; a server that was unreachable gets the number it had before."""
        before, since = failing
        self._failing = None
        self._set(before if now - since >= _AWAY_SECONDS else self.limit, now)
        self._unsteady = self.limit  # nothing is in flight

    def _judge(self, found: _Measurement, now: float) -> None:
        kept = self._kept
        if kept is None:
            self._explore(found, now, fewer_first=False)
        elif self._trials:
            self._judge_trial(found, kept, now)
        elif not _CHANGED[0] <= found.rate / kept.rate <= _CHANGED[1]:
            self._patience = _PATIENCE[0]
            self._explore(found, now, fewer_first=found.rate < kept.rate)
        else:
            rate = kept.rate + _NEWEST_PART * (found.rate - kept.rate)
            self._kept = _Measurement(kept.limit, rate, found.seconds)
            self._rest -= 1
            if self._rest <= 0:
                self._try(self._kept, (_MORE, _FEWER), now)

    def _explore(self, found: _Measurement, now: float, *, fewer_first: bool) -> None:
        """Keep the present number, whatever was known before, and begin all kinds of trials."""
        fewer_first = fewer_first or found.seconds > _LONG_SECONDS
        self._try(found, (_FEWER, _DOUBLE, _MORE) if fewer_first else (_DOUBLE, _FEWER, _MORE), now)

    def _judge_trial(self, found: _Measurement, kept: _Measurement, now: float) -> None:
        """Keep the number of the trial, and go on in its direction; or try what is left."""
        is_more = found.limit > kept.limit
        if found.rate < (_WORTH if is_more else _AS_GOOD) * kept.rate:
            self._try(kept, self._trials[1:], now)
        else:
            self._patience = _PATIENCE[0]
            better = _Measurement(found.limit, max(found.rate, kept.rate), found.seconds)
            self._try(better, self._trials if is_more else (_FEWER,), now)

    def _try(self, kept: _Measurement, trials: tuple[float, ...], now: float) -> None:
        """Begin the first of `trials` that the bounds allow; if there is none, keep the number for a while."""
        self._kept = kept
        for at, factor in enumerate(trials):
            wanted = round(kept.limit * factor)
            limit = self._within_bounds(max(wanted, kept.limit + 1) if factor > 1 else min(wanted, kept.limit - 1))
            if limit != kept.limit:
                self._trials = trials[at:]
                self._set(limit, now)
                return
        self._trials = ()
        self._rest = self._patience
        self._patience = min(2 * self._patience, _PATIENCE[1])
        self._set(kept.limit, now)

    def _within_bounds(self, limit: int) -> int:
        return min(max(limit, self._bounds.least), self._bounds.most)

    def _set(self, limit: int, now: float) -> None:
        before, self.limit = self.limit, self._within_bounds(limit)
        self._changed = now
        # The requests that are added find the server less busy than it will be.
        self._unsteady = max(self.limit - before, 0)
        self._forget()

    def _forget(self) -> None:
        self._count = self._lines = 0
        self._seconds = self._held_up = 0.0
