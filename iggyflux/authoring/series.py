"""How many series lines make, and which tags cause them.  Pure; within a bound of memory."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from iggyflux.delivery.series import BEYOND_LIMIT, LIMIT_POINTER
from iggyflux.errors import Problem
from iggyflux.mapping import WriterMapping

MOST_SERIES: Final = 1_000_000
"""With more series, the counts are lower bounds; only a limit of series makes it necessary to count on."""

_MOST_TAGS: Final = 6
_COMMA = re.compile(r"(?<!\\),")
_EQUALS = re.compile(r"(?<!\\)=")


class SeriesCount:
    """The series of lines that were added, by measurement, and the values of their tags."""

    def __init__(self, series: Iterable[str] = (), *, limit: int = 0, most: int = MOST_SERIES) -> None:
        """`series` are keys as they are written: a measurement with its tags.

        At most `most` series are counted, but one more than `limit` in any case; values of tags of the first `most`.
        """
        self.is_exact = True
        self.total = 0
        self._most = most
        self._most_of_all = max(most, limit + 1)
        self._series: dict[str, set[int]] = {}
        self._values: dict[str, dict[str, set[int]]] = {}
        for each in series:
            self.add(each)

    def add(self, series: str) -> None:
        """Count a series, unless it is known."""
        measurement = measurement_of(series)
        known = self._series.setdefault(measurement, set())
        key = hash(series)
        if key in known:
            return
        self.is_exact = self.total < self._most
        if self.total >= self._most_of_all:
            return
        known.add(key)
        self.total += 1
        if not self.is_exact:
            return
        values = self._values.setdefault(measurement, {})
        for name, value in tags_of(series):
            values.setdefault(name, set()).add(hash(value))

    @property
    def measurements(self) -> Collection[str]:
        """The measurements, as they are written."""
        return self._series.keys()

    def of(self, measurement: str) -> int:
        """Return the number of series of a measurement, as it is written."""
        return len(self._series.get(measurement, ()))

    def tags(self, measurement: str) -> list[tuple[str, int]]:
        """Return the tags of a measurement with the numbers of their values, the most first."""
        counts = {tag: len(values) for tag, values in self._values.get(measurement, {}).items()}
        return sorted(counts.items(), key=lambda each: (-each[1], each[0]))

    def described(self, measurement: str) -> str:
        """Return `4 series, by device (3), site (2)`: those of a measurement, and the tags that cause them."""
        tags = ", ".join(f"{tag} ({values:,})" for tag, values in self.tags(measurement)[:_MOST_TAGS])
        about = "" if self.is_exact else "at least "
        return f"{about}{self.of(measurement):,} series" + (f", by {tags}" if tags else "")


def series_lines(count: SeriesCount) -> Iterator[str]:
    """Yield a line for each measurement: its series, and the tags that cause them."""
    width = max(map(len, count.measurements), default=0)
    for measurement in sorted(count.measurements):
        yield f"{measurement:<{width}}  in {count.described(measurement)}"


def count_series(mapping: WriterMapping, series: Iterable[str] = ()) -> SeriesCount:
    """Return the count of `series`, which tells whether they are more than `limits.series` of `mapping`."""
    limits = mapping.writer.limits
    return SeriesCount(series, limit=0 if limits is None else limits.series)


def beyond_limit(mapping: WriterMapping, count: SeriesCount) -> Problem | None:
    """Return the problem of a mapping whose samples make more series than `limits.series`; None if they do not."""
    limits = mapping.writer.limits
    if limits is None or count.total <= limits.series:
        return None
    about = "" if count.is_exact else "at least "
    message = f"the samples make {about}{count.total:,} series, and `limits.series` is {limits.series:,}"
    worst = max(count.measurements, key=count.of)
    hint = f"{worst} has {count.described(worst)}: omit a tag, or raise the limit"
    return mapping.document.problem(BEYOND_LIMIT, LIMIT_POINTER, message, hint=hint)


def measurement_of(series: str) -> str:
    """Return the measurement of a series key, with its escapes."""
    return _COMMA.split(series, maxsplit=1)[0]


def tags_of(series: str) -> Iterator[tuple[str, str]]:
    """Yield the tags of a series key with their values, with their escapes."""
    for tag in _COMMA.split(series)[1:]:
        name, *values = _EQUALS.split(tag, maxsplit=1)
        yield name, "".join(values)
