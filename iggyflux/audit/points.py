"""Lines as parts that can be sorted and compared: series, time and fields, read only as far as needed.

Most lines of a mapping have the same fields in the same types: their values are read as one JSON document, or each by
one pattern.  Every other line is parsed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

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
class _Kind:
    """A type of field as lines write it: the pattern of a value, what follows it, its type in JSON."""

    pattern: str
    suffix: str
    json: Any
    read: Callable[[str], FieldValue]


_UNESCAPE: Final = re.compile(r'\\(["\\])')
_KINDS: Final[Mapping[type, _Kind]] = {
    float: _Kind("-?[0-9][0-9.e+-]*+", "", float, float),
    int: _Kind("-?[0-9]++", "i", int, int),
    Unsigned: _Kind("[0-9]++", "u", int, int),
    bool: _Kind("true|false", "", bool, lambda text: text == "true"),
    str: _Kind(r'"(?:[^"\\]|\\.)*+"', "", str, lambda text: _UNESCAPE.sub(r"\1", text[1:-1])),
}


class _Shape:
    """Fields with fixed names and types, in the order of their texts."""

    def __init__(self, names: Sequence[str], keys: Sequence[str], kinds: Sequence[_Kind]) -> None:
        self.names = tuple(names)
        self._kinds = tuple(kinds)
        parts = [f"{re.escape(key)}=({kind.pattern}){kind.suffix}" for key, kind in zip(keys, kinds, strict=True)]
        self._pattern = re.compile(",".join(parts), re.DOTALL)
        self._first, self._last = f"{keys[0]}=", kinds[-1].suffix
        self._between = [f"{kind.suffix},{key}=" for kind, key in zip(kinds, keys[1:], strict=False)]
        self._row = f"{self._last}\n{self._first}"
        values: Any = tuple.__class_getitem__(tuple(kind.json for kind in kinds))
        self._decoder: msgspec.json.Decoder[list[tuple[FieldValue, ...]]] = msgspec.json.Decoder(list[values])

    def read(self, text: str) -> tuple[FieldValue, ...] | None:
        """Return the values in one text; None if it has another shape."""
        found = self._pattern.fullmatch(text)
        if found is None:
            return None
        return tuple([kind.read(part) for kind, part in zip(self._kinds, found.groups(), strict=True)])

    def read_all(self, texts: Sequence[str]) -> list[tuple[FieldValue, ...]] | None:
        """Return the values in each text; None if they cannot be read all at once.

        The texts become one JSON document, by replacing what is between two values.  Where each of these pieces occurs
        as often as there are texts, and each row of the document has the values of the shape, no string has one.
        Lines escape quotes and backslashes in strings as JSON does.
        """
        joined = "\n".join(texts)
        if not joined.startswith(self._first) or not joined.endswith(self._last):
            return None
        if joined.count(self._row) != len(texts) - 1:
            return None
        if any(joined.count(piece) != len(texts) for piece in self._between):
            return None
        body = joined[len(self._first) : len(joined) - len(self._last)].replace(self._row, "],[")
        for piece in self._between:
            body = body.replace(piece, ",")
        try:
            return self._decoder.decode(f"[[{body}]]")
        except (msgspec.DecodeError, UnicodeEncodeError):
            return None


@dataclass(frozen=True, slots=True)
class FieldTable:
    """The fields of many points: of one shape, or of several."""

    names: tuple[str, ...]
    """The names of the fields; empty if the points have different ones."""
    rows: Sequence[tuple[FieldValue, ...]]
    """The values, if `names` is not empty."""
    fields: Sequence[Mapping[str, FieldValue]]

    def at(self, index: int) -> Mapping[str, FieldValue]:
        """Return the fields of one point."""
        return dict(zip(self.names, self.rows[index], strict=True)) if self.names else self.fields[index]


class FieldReader:
    """Reads the fields of lines of a dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._shapes: list[_Shape] = []
        self.booleans: set[str] = set()
        """The fields that were boolean so far."""
        self.others: set[str] = set()
        """The fields that were not boolean."""

    def read(self, texts: Sequence[str]) -> FieldTable:
        """Return the fields of each text."""
        if texts:
            self._read_one(texts[0])  # so its shape is the first one, if it has one
        for shape in self._shapes[:1]:
            if (rows := shape.read_all(texts)) is not None:
                return FieldTable(shape.names, rows, ())
        return FieldTable((), (), [self._read_one(text) for text in texts])

    def only(self, text: str, names: Collection[str]) -> str:
        """Return the text of the fields with these names."""
        fields = parse_line(f"m {text} 0", self._dialect).fields
        kept = Point("m", {}, {name: value for name, value in fields.items() if name in names})
        return kept.encode(self._dialect).removeprefix("m ")

    def _read_one(self, text: str) -> dict[str, FieldValue]:
        for number, shape in enumerate(self._shapes):
            if (values := shape.read(text)) is not None:
                if number:
                    self._shapes.insert(0, self._shapes.pop(number))
                return dict(zip(shape.names, values, strict=True))
        fields = dict(parse_line(f"m {text} 0", self._dialect).fields)
        for name, value in fields.items():
            (self.booleans if isinstance(value, bool) else self.others).add(name)
        keys = [escape_key(name, self._dialect) for name in fields]
        shape = _Shape(tuple(fields), keys, [_KINDS[type(value)] for value in fields.values()])
        if shape.read(text) is not None:
            self._shapes = [shape, *self._shapes][:_MOST_SHAPES]
        return fields
