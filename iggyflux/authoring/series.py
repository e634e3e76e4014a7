"""How many series lines make, and which tags cause them.  Pure; within a bound of memory."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from iggyflux.errors import Problem, counted
from iggyflux.mapping import WriterMapping

BEYOND_LIMIT: Final = "IFX622"

MOST_SERIES: Final = 1_000_000
"""With more series, the counts are lower bounds."""

_COMMA = re.compile(r"(?<!\\),")
_EQUALS = re.compile(r"(?<!\\)=")


class SeriesCount:
    """The series of lines that were added, by measurement, and the values of their tags."""

    def __init__(self, series: Iterable[str] = ()) -> None:
        """`series` are keys as they are written: a measurement with its tags."""
        self.is_exact = True
        self.total = 0
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
        if self.total >= MOST_SERIES:
            self.is_exact = False
            return
        known.add(key)
        self.total += 1
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


def beyond_limit(mapping: WriterMapping, count: SeriesCount) -> Problem | None:
    """Return the problem of a mapping whose samples make more series than `limits.series`; None if they do not."""
    limits = mapping.writer.limits
    if limits is None or count.total <= limits.series:
        return None
    message = f"the samples make {count.total:,} series, and `limits.series` is {limits.series:,}"
    worst = max(count.measurements, key=count.of)
    tags = ", ".join(f"{tag} ({values:,})" for tag, values in count.tags(worst)[:6])
    most = counted(count.of(worst), "series", "series")
    hint = f"{worst} has {most}, by {tags or 'no tags'}: omit a tag, or raise the limit"
    return mapping.document.problem(BEYOND_LIMIT, "/limits/series", message, hint=hint)


def measurement_of(series: str) -> str:
    """Return the measurement of a series key, with its escapes."""
    return _COMMA.split(series, maxsplit=1)[0]


def tags_of(series: str) -> Iterator[tuple[str, str]]:
    """Yield the tags of a series key with their values, with their escapes."""
    for tag in _COMMA.split(series)[1:]:
        name, *values = _EQUALS.split(tag, maxsplit=1)
        yield name, "".join(values)
