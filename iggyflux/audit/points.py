"""Lines as parts that can be sorted and compared: series, time and fields, read only as far as needed.

Most lines of a mapping have the same fields in the same types, so their fields are read by one pattern, column by
column; every other line is parsed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from iggyflux.delivery.lines import point_key
from iggyflux.lineprotocol import Dialect, FieldValue, Point, Unsigned, escape_key, parse_line
from iggyflux.records import LazyMessages, Message, Partition

Entry: TypeAlias = tuple[int, str, int, str]
"""A point as it is sorted: time in the unit of lines, series, number of the message, fields; texts as in the line."""

_MOST_SERIES: Final = 100_000
_MOST_SHAPES: Final = 8


class Numbers:
    """The messages of a range, numbered as they were read, and their coordinates: one entry a run of offsets."""

    def __init__(self) -> None:
        self.count = 0
        self._starts: list[int] = []
        self._runs: list[tuple[Partition, int]] = []

    def add(self, messages: Sequence[Message]) -> int:
        """Number a batch; return the number of its first message."""
        start = self.count
        first, last = messages[0], messages[-1]
        if isinstance(messages, LazyMessages) and last.offset - first.offset + 1 == len(messages):
            self._add(first)
            self.count += len(messages)
            return start
        for message in messages:
            self._add(message)
            self.count += 1
        return start

    def place(self, number: int) -> tuple[Partition, int]:
        """Return partition and offset of the message with this number."""
        at = bisect_right(self._starts, number) - 1
        partition, shift = self._runs[at]
        return partition, number + shift

    def runs(self) -> Iterator[tuple[Partition, int, int]]:
        """Yield partition, first and last offset of each run of messages."""
        ends = [*self._starts[1:], self.count][: len(self._starts)]
        for (partition, shift), start, end in zip(self._runs, self._starts, ends, strict=True):
            yield partition, start + shift, end - 1 + shift

    def _add(self, message: Message) -> None:
        run = Partition(message.stream, message.topic, message.partition), message.offset - self.count
        if not self._runs or self._runs[-1] != run:
            self._starts.append(self.count)
            self._runs.append(run)


class SeriesReader:
    """Measurement and tags of series as written in lines of a dialect, remembered for the latest ones."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: dict[str, tuple[str, Mapping[str, str]]] = {}

    def read(self, series: str) -> tuple[str, Mapping[str, str]]:
        """Return measurement and tags."""
        found = self._known.get(series)
        if found is None:
            if len(self._known) >= _MOST_SERIES:
                self._known.clear()
            point = parse_line(f"{series} f=1", self._dialect)
            found = self._known[series] = point.measurement, dict(point.tags)
        return found

    def by_measurement(self, lines: Sequence[str], origins: Sequence[int], first: int) -> dict[str, list[Entry]]:
        """Return the entries of lines by measurement; `first` is the number of the message with index 0."""
        found: dict[str, list[Entry]] = {}
        known: dict[str, list[Entry]] = {}
        for line, origin in zip(lines, origins, strict=True):
            series, _, rest = line.partition(" ")
            if series[-1] == "\\":
                series = point_key(line)[0]
                rest = line[len(series) + 1 :]
            fields, _, time = rest.rpartition(" ")
            entries = known.get(series)
            if entries is None:
                entries = known[series] = found.setdefault(self.read(series)[0], [])
            entries.append((int(time), series, first + origin, fields))
        return found


@dataclass(frozen=True, slots=True)
class _Shape:
    """Fields with fixed names and types: the pattern of their text, and how to convert each group."""

    names: tuple[str, ...]
    pattern: re.Pattern[str]
    conversions: tuple[Callable[[Sequence[str]], Sequence[FieldValue]], ...]

    def values(self, groups: Sequence[Sequence[str]]) -> list[dict[str, FieldValue]]:
        """Return the fields of each text whose groups are given."""
        columns = [convert(column) for convert, column in zip(self.conversions, zip(*groups, strict=True), strict=True)]
        names = self.names
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


_UNESCAPE: Final = re.compile(r'\\(["\\])')
_KINDS: Final[Mapping[type, tuple[str, Callable[[Sequence[str]], Sequence[Any]]]]] = {
    float: ("(-?[0-9][0-9.e+-]*+)", lambda texts: list(map(float, texts))),
    int: ("(-?[0-9]++)i", lambda texts: list(map(int, texts))),
    Unsigned: ("([0-9]++)u", lambda texts: list(map(int, texts))),
    bool: ("(true|false)", lambda texts: [text == "true" for text in texts]),
    str: (
        r'"((?:[^"\\]|\\.)*+)"',
        lambda texts: [_UNESCAPE.sub(r"\1", text) if "\\" in text else text for text in texts],
    ),
}


class FieldReader:
    """Reads the fields of lines of a dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._shapes: list[_Shape] = []
        self.booleans: set[str] = set()
        """The fields that were boolean so far."""

    def read(self, texts: Sequence[str]) -> list[dict[str, FieldValue]]:
        """Return the fields of each text."""
        for shape in self._shapes[:1]:
            matches = list(map(shape.pattern.fullmatch, texts))
            if all(matches):
                return shape.values([found.groups() for found in matches if found is not None]) if texts else []
        return [self._read_one(text) for text in texts]

    def only(self, text: str, names: Collection[str]) -> str:
        """Return the text of the fields with these names."""
        fields = parse_line(f"m {text} 0", self._dialect).fields
        kept = Point("m", {}, {name: value for name, value in fields.items() if name in names})
        return kept.encode(self._dialect).removeprefix("m ")

    def _read_one(self, text: str) -> dict[str, FieldValue]:
        for number, shape in enumerate(self._shapes):
            if found := shape.pattern.fullmatch(text):
                if number:
                    self._shapes.insert(0, self._shapes.pop(number))
                return shape.values([found.groups()])[0]
        fields = dict(parse_line(f"m {text} 0", self._dialect).fields)
        self.booleans.update(name for name, value in fields.items() if isinstance(value, bool))
        self._learn(fields, text)
        return fields

    def _learn(self, fields: Mapping[str, FieldValue], text: str) -> None:
        parts = [
            f"{re.escape(escape_key(name, self._dialect))}={_KINDS[type(value)][0]}" for name, value in fields.items()
        ]
        pattern = re.compile(",".join(parts), re.DOTALL)
        if pattern.fullmatch(text):
            conversions = tuple(_KINDS[type(value)][1] for value in fields.values())
            self._shapes = [_Shape(tuple(fields), pattern, conversions), *self._shapes][:_MOST_SHAPES]
