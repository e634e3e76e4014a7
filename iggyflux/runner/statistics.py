"""What a route counts.

Each counter is kept only here: routes and deliveries increment it, status, logs and metrics read it.  Nothing here
knows of Prometheus: a histogram is a list of numbers, so that an event costs a fraction of a microsecond.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from iggyflux.records import JSON

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
REQUEST_SIZES = (1.0, 10.0, 100.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0)
AGE_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0)

REASONS: Final = ("failed", "refused", "dead_letters", "dropped", "retries")
"""The counters that are also kept by reason."""


class Histogram:
    """Counts of values by upper bounds, which are inclusive; the last count is of the values above all bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def as_dict(self) -> dict[str, JSON]:
        """Return the JSON form; `counts` are not cumulative."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": round(self.sum, 6)}


@dataclass(slots=True, kw_only=True)
class DeliveryStatistics:
    """The counters of one route since the start of the run.  Repeated work is counted each time.

    A reader counts rows instead of messages, and messages instead of lines.
    """

    read: int = 0
    """Messages read."""
    points: int = 0
    """Lines made of them."""
    delivered: int = 0
    """Lines that the sink accepted."""
    skipped: int = 0
    """Messages that `where` omitted."""
    empty: int = 0
    """Messages whose `for_each` had no element."""
    omitted: int = 0
    """Values that `on_bad_value: omit` left out of their points."""
    undeclared: int = 0
    """Messages with fields that their schema does not declare."""
    failed: int = 0
    """Records that could not be mapped."""
    refused: int = 0
    """Lines that the server refused."""
    dead_letters: int = 0
    """Messages kept as dead letters."""
    removed_replayed: int = 0
    """Dead letters that retention removed, and that had been replayed."""
    removed_letters: int = 0
    """Dead letters that retention removed, and that had not been replayed."""
    dropped: int = 0
    """Messages with failed records or refused lines that `on_error: skip` acknowledged."""
    collisions: int = 0
    """Points that overwrote one of another message in the same request."""
    implausible: int = 0
    """Lines whose time is before 1990 or after 2099: the declared format may be wrong."""
    too_old: int = 0
    """Lines whose time was beyond the retention of the server before they were sent."""
    fallbacks: int = 0
    """Batches that the reference plan rendered because generated code failed: a bug that costs time but no data."""
    acknowledged: int = 0
    """Messages settled, durably."""
    requests: int = 0
    """Requests sent."""
    retries: int = 0
    """Requests that had to be sent again."""
    reconnects: int = 0
    """Failed attempts to connect, and connections that were lost."""
    read_bytes: int = 0
    """Bytes of the payloads read; a reader: of the answers to its queries, expanded."""
    sent_bytes: int = 0
    """Bytes of the bodies sent, compressed if they were; a reader: of its payloads."""
    reasons: dict[str, dict[str, int]] = field(default_factory=lambda: {counter: {} for counter in REASONS})
    """For each counter of `REASONS`, its number by reason: a code, or of retries what `retry_reason` says."""
    request_seconds: Histogram = field(default_factory=lambda: Histogram(REQUEST_SECONDS))
    """How long requests took until their answer, or until there was none."""
    query_seconds: Histogram = field(default_factory=lambda: Histogram(REQUEST_SECONDS))
    """How long a reader waited for all rows of a window, or until there was no answer."""
    request_size: Histogram = field(default_factory=lambda: Histogram(REQUEST_SIZES))
    """Lines of a request."""
    age_seconds: Histogram = field(default_factory=lambda: Histogram(AGE_SECONDS))
    """How old the first message of a batch was when the batch was acknowledged, by the server's time of arrival."""

    def counters(self) -> dict[str, int]:
        """Return every counter by name."""
        return {name: getattr(self, name) for name in _COUNTERS}

    def count(self, counter: str, reason: str, number: int = 1) -> None:
        """Add to the counter `counter`, and to its number for this reason."""
        setattr(self, counter, getattr(self, counter) + number)
        by_reason = self.reasons[counter]
        by_reason[reason] = by_reason.get(reason, 0) + number

    def details(self) -> dict[str, JSON]:
        """Return the JSON form of reasons and histograms; another thread may count meanwhile."""
        return {
            "reasons": {counter: dict(sorted(found.copy().items())) for counter, found in self.reasons.items()},
            "histograms": {name: getattr(self, name).as_dict() for name in HISTOGRAMS},
        }


HISTOGRAMS = ("request_seconds", "query_seconds", "request_size", "age_seconds")
_COUNTERS = tuple(
    each.name for each in dataclasses.fields(DeliveryStatistics) if each.name not in ("reasons", *HISTOGRAMS)
)
