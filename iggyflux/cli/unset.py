"""Which named tags and fields no line of a dry run had: a path that is misspelt, or a fixed value that was meant.

Pure; fed with lines.  What is missing in every sample is no failure, and so nothing else would tell of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from iggyflux.lineprotocol import Dialect, Precision, parse_lines
from iggyflux.mapping import Field, PointSpec, Tag, WriterMapping

MOST_LINES: Final = 10_000
"""So many lines are looked at; what none of them has is told."""


class Unset:
    """The named tags and fields that were not seen yet, and the measurements that were."""

    def __init__(self, mapping: WriterMapping, dialect: Dialect, precision: Precision) -> None:
        self._mapping = mapping
        self._dialect = dialect
        self._precision = precision
        self._points = mapping.writer.points
        self._measurements: set[str] = set()
        self._seen: set[tuple[str, str]] = set()
        self._wanted = {(kind, part.key) for point in self._points for kind, part in _parts(point)}
        self._lines = 0

    def add(self, lines: Iterable[str]) -> None:
        """Look at lines, as long as something is not seen."""
        for line in lines:
            if self._lines >= MOST_LINES or (self._wanted <= self._seen and self._lines):
                return
            self._lines += 1
            for point in parse_lines(line, self._dialect.value, self._precision.value):
                self._measurements.add(point.measurement)
                self._seen.update(("tag", key) for key in point.tags)
                self._seen.update(("field", key) for key in point.fields)

    def told(self) -> Iterator[str]:
        """A line for each part that no point had, of the points that were made."""
        for point in self._points:
            name = getattr(point.measurement, "value", None)
            if not self._lines or (name is not None and name not in self._measurements):
                continue
            for kind, part in _parts(point):
                if (kind, part.key) not in self._seen:
                    yield f"{kind} {part.key} at {self._mapping.locate(part.pointer)}{_advice(part)}"


def _parts(point: PointSpec) -> Iterator[tuple[str, Tag | Field]]:
    for tag in point.tags:
        yield "tag", tag
    for field in point.fields:
        yield "field", field


def _advice(part: Tag | Field) -> str:
    text = getattr(part.source, "text", "")
    return f": no sample has a member `{text}`; for literal text write {{const: {text}}}" if text.isidentifier() else ""
