"""Named tags and fields that no line of a dry run has: the path is misspelt, or a constant was meant.

Pure: the caller passes lines.  A missing value is not a failure, so no other report shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from iggyflux.lineprotocol import Dialect, Precision, parse_lines
from iggyflux.mapping import Field, PointSpec, Tag, WriterMapping
from iggyflux.records import Failure

MOST_LINES: Final = 10_000
"""The maximum number of lines that are examined."""


class UnmatchedKeys:
    """Collects the tags, fields and measurements of lines, and reports the named keys without a value."""

    def __init__(self, mapping: WriterMapping, dialect: Dialect, precision: Precision) -> None:
        self._mapping = mapping
        self._dialect = dialect
        self._precision = precision
        self._points = mapping.writer.points
        self._measurements: set[str] = set()
        self._seen: set[tuple[str, str]] = set()
        self._wanted = {(kind, spec.key) for point in self._points for kind, spec in _specs(point)}
        self._lines = 0
        self._failed: set[str] = set()

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Record where values failed: such a key has a value, and the failure is reported."""
        self._failed.update(failure.location.removesuffix("/expr") for failure in failures)

    def add(self, lines: Iterable[str]) -> None:
        """Examine lines until every named key has a value."""
        for line in lines:
            if self._lines >= MOST_LINES or (self._wanted <= self._seen and self._lines):
                return
            self._lines += 1
            for point in parse_lines(line, self._dialect.value, self._precision.value):
                self._measurements.add(point.measurement)
                self._seen.update(("tag", key) for key in point.tags)
                self._seen.update(("field", key) for key in point.fields)

    def lines(self) -> Iterator[str]:
        """Yield a line for each key without a value, for points of which at least one was made."""
        for point in self._points:
            name = getattr(point.measurement, "value", None)
            if not self._lines or (name is not None and name not in self._measurements):
                continue
            for kind, spec in _specs(point):
                if (kind, spec.key) not in self._seen and spec.pointer not in self._failed:
                    advice = "" if self._failed else _advice(spec)  # a record that failed may have the member
                    yield f"{kind} {spec.key} at {self._mapping.locate(spec.pointer)}{advice}"


def _specs(point: PointSpec) -> Iterator[tuple[str, Tag | Field]]:
    for tag in point.tags:
        yield "tag", tag
    for field in point.fields:
        yield "field", field


def _advice(spec: Tag | Field) -> str:
    text = getattr(spec.source, "text", "")
    if text.isidentifier():
        return f": no sample has a member `{text}`; for literal text write {{const: {text}}}"
    if text.startswith("root."):
        return ": root is a member; root() is the whole message"
    first, dot, rest = text.partition(".")
    if dot and first.isidentifier():
        return f": where `{first}` is a list, write {first}[0].{rest}"
    return ""
