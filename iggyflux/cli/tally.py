"""Counters of a dry run: points, series, failures, and points that overwrite a field of those of other messages.

Pure: the caller passes lines and failures in the order of messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final

from iggyflux.authoring.series import SeriesCount, measurement_of
from iggyflux.delivery.lines import field_names, point_key
from iggyflux.records import Failure

MOST_KEYS: Final = 1_000_000
"""With more keys, collisions are not counted exactly: their number is then a lower bound."""


@dataclass(slots=True)
class Tally:
    """The counters so far."""

    messages: int = 0
    lines: int = 0
    skipped: int = 0
    empty: int = 0
    omitted: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The values that `on_bad_value: omit` left out, by code and pointer."""
    undeclared: int = 0
    """Messages with fields that their schema does not declare."""
    undeclared_fields: dict[str, set[int]] = field(default_factory=dict)
    """The numbers of these fields, by the type that does not declare them."""
    failed: int = 0
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By code and pointer."""
    points: Counter[str] = field(default_factory=Counter)
    """By measurement, as it is written."""
    collisions: int = 0
    first_collision: tuple[str, str] | None = None
    """The first two samples of which one overwrites a field of the other."""
    is_exact: bool = True
    times: tuple[int, int] | None = None
    """The first and the last time, in the precision of the lines."""
    series: SeriesCount = field(default_factory=SeriesCount)
    most_keys: int = MOST_KEYS
    _keys: dict[int, tuple[str, tuple[str, ...]] | dict[str, str]] = field(default_factory=dict)
    """By point, the sample that made it and its fields; of several samples, that which wrote each field last."""
    _shapes: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    """The fields of lines, each once."""

    def add_message(
        self, sample: str, lines: Sequence[str], failures: Sequence[Failure], buckets: Sequence[str] = ()
    ) -> None:
        """Count one message; `sample` is its name in reports, `buckets` those of its lines, if points choose theirs."""
        self.messages += 1
        self.lines += len(lines)
        self.failed += bool(failures)
        self.failures.update((failure.code, failure.location) for failure in failures)
        for line, bucket in zip(lines, buckets or repeat(""), strict=False):
            self._add_line(sample, line, bucket)

    def _add_line(self, sample: str, line: str, bucket: str) -> None:
        series, time = point_key(line)
        number = int(time)
        first, last = self.times or (number, number)
        self.times = min(first, number), max(last, number)
        measurement = measurement_of(series)
        self.points[measurement] += 1
        self.series.add(series)
        self.is_exact &= self.series.is_exact
        if len(self._keys) >= self.most_keys:
            self.is_exact = False
            return
        names = field_names(line)
        names = self._shapes.setdefault(names, names)
        key = hash((bucket, series, time))
        known = self._keys.setdefault(key, (sample, names))
        writers = known if isinstance(known, dict) else dict.fromkeys(known[1], known[0])
        other = next((writers[name] for name in names if writers.get(name, sample) != sample), None)
        if other is not None:
            self.collisions += 1
            self.first_collision = self.first_collision or (other, sample)
        if isinstance(known, dict) or known[0] != sample:
            self._keys[key] = writers | dict.fromkeys(names, sample)

    def as_dict(self) -> dict[str, object]:
        """Return the counters for `--format json`."""
        return {
            "messages": self.messages,
            "lines": self.lines,
            "skipped": self.skipped,
            "empty": self.empty,
            "omitted": _by_place(self.omitted, "values"),
            "undeclared": self.undeclared,
            "undeclared_fields": {name: sorted(found) for name, found in sorted(self.undeclared_fields.items())},
            "failed": self.failed,
            "failures": _by_place(self.failures, "records"),
            "measurements": {
                name: {"points": count, "series": self.series.of(name), "tags": dict(self.series.tags(name))}
                for name, count in sorted(self.points.items())
            },
            "collisions": self.collisions,
            "exact": self.is_exact,
        }


def _by_place(counts: Counter[tuple[str, str]], what: str) -> list[dict[str, object]]:
    return [{"code": code, "pointer": pointer, what: count} for (code, pointer), count in sorted(counts.items())]
