"""Decode rows of an answer, format by format, at the speed of C: typed lists, made into dicts by generated code.

Pure: each decoder is a function from blocks of bytes, cut anywhere, to lists of `Row`.  Unreadable bytes raise
`UnreadableAnswer`; the answer is known to be complete before it is decoded.  Times are always integer nanoseconds.  A
column without a value is not in a row.  Flux writes the empty string and null alike, so neither is in a row.
"""

from __future__ import annotations

import csv
import io
import json
from bisect import bisect_right
from calendar import timegm
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

import msgspec

from iggyflux.records import JSON, Row
from iggyflux.timestamps import TimestampError, parse_rfc3339

CHUNK_ROWS: Final = 5000
"""The approximate number of rows in a chunk."""

_MOST_LINE_BYTES: Final = 256 << 20
"""The longest line: 5,000 rows with a string of 50 KB."""

Maker: TypeAlias = Callable[..., list[dict[str, JSON]]]


NUMBERS: Final = ("float", "integer", "unsigned")
"""The numeric types.  A select of several returns the first of them that any shard of its span has."""


class UnreadableAnswer(Exception):
    """A complete answer that does not follow its format."""


class TypeUnknown(Exception):
    """A number returned in several types, whose stored type cannot be determined.

    `is_gone` says that the server no longer has the row, so that another query helps.
    """

    def __init__(self, message: str, *, is_gone: bool) -> None:
        self.is_gone = is_gone
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class AnswerColumn:
    """A column of an answer, by position: its name in a row, and the type to read it as (`any`: as it comes).

    Several columns of one name are one field in several types.  Each row has a value in one of them, or one number in
    each numeric type, truncated or rounded in all but the stored one; `Layout.kinds` says which that is.
    """

    name: str
    kind: str = "any"


Spans: TypeAlias = Sequence[tuple[int, str]]
"""The numeric type of a field over time: pairs of an end, exclusive, and the type up to there, in order.

`whole` is integer or unsigned, where every value is the same in both.
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """The content of an answer: the columns after the time, and the names of tags in rows, by key.

    `tags` None takes every tag under its own name.  `kinds` are the types of fields that have several numeric ones.
    `signs` are the types of values that are negative as an integer, where such a value may be unsigned.
    """

    columns: tuple[AnswerColumn, ...] | None = None
    tags: Mapping[str, str] | None = None
    kinds: Mapping[str, Spans] = field(default_factory=dict)
    signs: Mapping[str, Spans] = field(default_factory=dict)


# --- dicts ---


@lru_cache(maxsize=4096)
def _maker(names: tuple[str, ...], constants: int, width: int) -> Maker:
    """Return a function from rows of values (and constants) to dicts.

    The first value has the first name; then come the constants, then the other values.
    """
    values = [f"v{number}" for number in range(width)]
    fixed = [f"t{number}" for number in range(constants)]
    ordered = [*values[:1], *fixed, *values[1:]]
    members = ", ".join(f"{name!r}: {value}" for name, value in zip(names, ordered, strict=True))
    target = ", ".join(values) + ","
    source = f"lambda rows, {''.join(f'{name}, ' for name in fixed)}: [{{{members}}} for {target} in rows]"
    # The source contains only numbered names and the `repr` of `names`.
    return cast("Maker", eval(source, {"__builtins__": {}}))  # noqa: S307


_MOST_GENERATED = 200
_FEW = 4


def _dicts(names: Sequence[str], rows: Iterable[Sequence[JSON]], tags: Mapping[str, JSON]) -> list[dict[str, JSON]]:
    """Return a dict for each row: the first column, the tags, the other columns."""
    if len(names) + len(tags) > _MOST_GENERATED:
        return [{names[0]: row[0], **tags, **dict(zip(names[1:], row[1:], strict=True))} for row in rows]
    return _maker((names[0], *tags, *names[1:]), len(tags), len(names))(rows, *tags.values())


def _sparse_dicts(
    names: Sequence[str], rows: Sequence[Sequence[JSON]], tags: Mapping[str, JSON]
) -> list[dict[str, JSON]]:
    """As `_dicts`, without nulls: first drop columns without any value, then single values."""
    if len(rows) < _FEW:
        return [_without_nulls(made) for made in _dicts(names, rows, tags)]
    columns = list(zip(*rows, strict=True))
    kept, sparse = [], []
    for number, column in enumerate(columns):
        if None in column:
            if column.count(None) == len(column):
                continue
            sparse.append(names[number])
        kept.append(number)
    if len(kept) < len(names):
        names = [names[number] for number in kept]
        rows = list(zip(*(columns[number] for number in kept), strict=True))
    made = _dicts(names, rows, tags)
    if len(sparse) * 4 > len(names):
        return list(map(_without_nulls, made))
    for name in sparse:
        for each in made:
            if each[name] is None:
                del each[name]
    return made


def _without_nulls(row: dict[str, JSON]) -> dict[str, JSON]:
    return {name: value for name, value in row.items() if value is not None}


def _gathered(pieces: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """Return the same rows in chunks of a good size: many series have few rows each."""
    chunk: list[Row] = []
    for piece in pieces:
        if not chunk and len(piece) >= CHUNK_ROWS // 2:
            yield piece
            continue
        chunk += piece
        if len(chunk) >= CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _bounded(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the blocks.  Raise `UnreadableAnswer` at a line that is too long to be one of an InfluxDB."""
    size = 0
    for block in blocks:
        end = block.rfind(b"\n") + 1
        size = len(block) - end if end else size + len(block)
        if size > _MOST_LINE_BYTES:
            raise UnreadableAnswer(f"a line of more than {_MOST_LINE_BYTES >> 20} MiB")
        yield block


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Return whole lines, without their ends; a line may span many blocks."""
    parts: list[bytes] = []
    for block in blocks:
        first, newline, rest = block.partition(b"\n")
        parts.append(first)
        if not newline:
            continue
        yield b"".join(parts)
        *whole, last = rest.split(b"\n")
        yield from whole
        parts = [last]
    if last := b"".join(parts):
        yield last


# --- InfluxQL: JSON documents of series ---


class _Series(msgspec.Struct, gc=False):
    name: str = ""
    tags: dict[str, str] | None = None
    columns: list[str] = []
    values: list[Any] = []


class _Result(msgspec.Struct, gc=False):
    series: list[_Series] = []
    error: str | None = None
    partial: bool = False


class InfluxqlDocument(msgspec.Struct, gc=False):
    """One JSON document of an InfluxQL answer, untyped."""

    results: list[_Result] = []
    error: str | None = None

    @classmethod
    def of(cls, series: list[_Series]) -> InfluxqlDocument:
        """Return one document with the series of several."""
        return cls([_Result(series)])

    @property
    def failure(self) -> str | None:
        """The server's error message."""
        return self.error or next((result.error for result in self.results if result.error), None)

    @property
    def is_partial(self) -> bool:
        """Whether more documents follow."""
        return any(result.partial for result in self.results)

    @property
    def series(self) -> list[_Series]:
        """The series of all results."""
        return [series for result in self.results for series in result.series]


_document = msgspec.json.Decoder(InfluxqlDocument)
_KINDS: Mapping[str, Any] = {
    "float": float | None,
    "integer": int | None,
    "unsigned": int | None,
    "string": str | None,
    "boolean": bool | None,
    "any": Any,
}


def read_document(line: bytes) -> InfluxqlDocument:
    """Return the document in a line.  Raise `UnreadableAnswer`."""
    try:
        return _document.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableAnswer(f"not an answer to InfluxQL: {error}") from None


def read_documents(blocks: Iterable[bytes]) -> Iterator[InfluxqlDocument]:
    """Return all documents of an answer, untyped.  Raise `UnreadableAnswer`."""
    return (read_document(line) for line in _lines(_bounded(blocks)) if line.strip())


@lru_cache(maxsize=64)
def _typed_document(kinds: tuple[str, ...]) -> msgspec.json.Decoder[InfluxqlDocument]:
    """Return a decoder that makes floats of the numbers in float columns: JSON writes 1.0 as 1."""
    row: Any = tuple.__class_getitem__((int, *(_KINDS[kind] for kind in kinds)))
    series: Any = msgspec.defstruct(
        "TypedSeries",
        [
            ("name", str, ""),
            ("tags", dict[str, str] | None, None),
            ("columns", list[str], []),
            ("values", list[row], []),
        ],
        gc=False,
    )
    result: Any = msgspec.defstruct(
        "TypedResult", [("series", list[series], []), ("error", str | None, None)], gc=False
    )
    document: Any = msgspec.defstruct(
        "TypedDocument",
        [("results", list[result], []), ("error", str | None, None)],
        bases=(InfluxqlDocument,),
        gc=False,
    )
    return msgspec.json.Decoder(document)


def decode_influxql(
    blocks: Iterable[bytes], layout: Layout, column: str, window: tuple[int, int]
) -> Iterator[list[Row]]:
    """Return the rows of an answer to `/query` with `chunked=true&epoch=ns`.  Raise `UnreadableAnswer`."""
    reader = _InfluxqlReader(layout, column, window)
    return _gathered(rows for line in _lines(_bounded(blocks)) if line.strip() for rows in reader.rows(line))


class _InfluxqlReader:
    """What all documents of an answer share, made once, since a series may have only one row."""

    def __init__(self, layout: Layout, column: str, window: tuple[int, int]) -> None:
        self._layout = layout
        self._column = column
        self._window = window
        self._decoder: msgspec.json.Decoder[InfluxqlDocument] | None = None
        self._names: list[str] | None = None
        self._tag_names: tuple[str, ...] | None = None
        if layout.columns is not None:
            self._decoder = _typed_document(tuple(each.kind for each in layout.columns))
            self._names = [column, *(each.name for each in layout.columns)]
        if layout.tags is not None:
            self._tag_names = tuple(sorted(layout.tags.values()))
        self._is_merged = self._names is not None and len(set(self._names)) < len(self._names)

    def rows(self, line: bytes) -> Iterator[list[Row]]:
        """Return the rows of a document, by series."""
        has_nulls = b"null" in line
        document = self._read(line)
        if document.failure:
            raise UnreadableAnswer(f"the answer contains an error: {document.failure}")
        for series in document.series:
            values: Sequence[Sequence[JSON]] = series.values
            if not values:
                continue
            names = self._names_of(series.columns)
            if self._is_merged:
                names, values = _merged(names, self._layout, values)
            yield list(
                map(
                    Row,
                    (_sparse_dicts if has_nulls else _dicts)(names, values, self._tags_of(series.tags)),
                    repeat(series.name),
                    repeat(self._window),
                    repeat(self._tag_names),
                )
            )

    def _read(self, line: bytes) -> InfluxqlDocument:
        if self._decoder is not None and (b"-0," in line or b"-0]" in line):
            # Servers write -0.0 as -0, which is an integer in JSON: the slow decoder keeps the sign.
            with suppress(ValueError, msgspec.ValidationError, RecursionError):
                return msgspec.convert(json.loads(line, parse_int=_signed), self._decoder.type)
        if self._decoder is not None:
            # Where a type differs from the schema's, decode the line without types.
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return self._decoder.decode(line)
        return read_document(line)

    def _names_of(self, columns: list[str]) -> list[str]:
        if not columns or columns[0] != "time":
            raise UnreadableAnswer("a series without the column `time`")
        if self._names is None:
            return [self._column, *columns[1:]]
        if len(columns) != len(self._names):
            raise UnreadableAnswer(f"expected {len(self._names) - 1} columns, found {len(columns) - 1}")
        return self._names

    def _tags_of(self, tags: dict[str, str] | None) -> dict[str, JSON]:
        """Return the tags of a series that have a value; the server sends a missing one as the empty string."""
        if not tags:
            return {}
        if self._layout.tags is None:
            return {key: value for key, value in tags.items() if value}
        return {name: tags[key] for key, name in self._layout.tags.items() if tags.get(key)}


def _signed(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)


def _merged(names: list[str], layout: Layout, rows: Sequence[Sequence[JSON]]) -> tuple[list[str], list[list[JSON]]]:
    """Merge the columns of one name: each point keeps its value in its stored type."""
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(number)
    kinds = ["integer", *(column.kind for column in layout.columns or ())]
    pickers: list[Callable[[Sequence[JSON]], JSON]] = []
    for name, numbers in places.items():
        if len(numbers) == 1:
            pickers.append(itemgetter(numbers[0]))
        else:
            pickers.append(_picker(name, {kinds[number]: number for number in numbers}, layout))
    return list(places), [[pick(row) for pick in pickers] for row in rows]


def _picker(name: str, places: Mapping[str, int], layout: Layout) -> Callable[[Sequence[JSON]], JSON]:
    """Return a function that picks the value of a field from its columns; `places` gives them by type."""
    numeric = [(kind, places[kind]) for kind in NUMBERS if kind in places]
    rest = [place for kind, place in places.items() if kind not in NUMBERS]
    kinds, signs = layout.kinds.get(name), layout.signs.get(name)

    def pick(row: Sequence[JSON]) -> JSON:
        found = {kind: cast("int | float", row[place]) for kind, place in numeric if row[place] is not None}
        if not found:
            return next((row[place] for place in rest if row[place] is not None), None)
        if "float" in found:
            found["float"] = float(found["float"])
        spans = signs if signs is not None and found.get("integer", 0) < 0 else kinds
        if spans is None:  # integers that are not negative are the same in both of their types
            return next(iter(found.values()))
        time = cast("int", row[0])
        kind = _kind_at(spans, time)
        if kind == "whole":
            kind = "integer" if "integer" in found else "unsigned"
        if kind is None or kind not in found:
            raise TypeUnknown(f"the type of {name!r} at {time} is unknown", is_gone=True)
        if any(_cast(found[kind], other) not in (None, value) for other, value in found.items()):
            raise TypeUnknown(f"{name!r} at {time} is not of the type {kind} of its shard", is_gone=False)
        return found[kind]

    return pick


def _kind_at(spans: Spans, time: int) -> str | None:
    place = bisect_right(spans, time, key=itemgetter(0))
    return spans[place][1] if place < len(spans) else None


def _cast(value: float, kind: str) -> float | None:
    """Return `value` as a server shows it in a column of this type; None if that depends on the machine."""
    if kind == "float":
        return float(value)
    if isinstance(value, float) and not -(2**63) <= value < 2**63:
        return None
    whole = int(value) % 2**64
    if kind == "unsigned":
        return None if isinstance(value, float) and value < 0 else whole
    return whole if whole < 2**63 else whole - 2**64


# --- SQL: a JSON object a line ---

_objects = msgspec.json.Decoder(dict[str, Any])


def decode_jsonl(
    blocks: Iterable[bytes], measurement: str, window: tuple[int, int], tags: tuple[str, ...] | None
) -> Iterator[list[Row]]:
    """Return the rows of an answer in the format `jsonl`.  Raise `UnreadableAnswer`."""
    return _gathered(
        list(map(Row, _objects_of(piece), repeat(measurement), repeat(window), repeat(tags)))
        for piece in _whole_lines(_bounded(blocks))
        if piece.strip()
    )


def _objects_of(piece: bytes) -> list[dict[str, JSON]]:
    try:
        found = _objects.decode_lines(piece)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableAnswer(f"not a line of JSON: {error}") from None
    if b":null" in piece:
        return [{name: value for name, value in each.items() if value is not None} for each in found]
    return found


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the same bytes, cut at line ends."""
    parts: list[bytes] = []
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if not cut:
            parts.append(block)
            continue
        yield b"".join([*parts, block[:cut]])
        parts = [block[cut:]]
    if last := b"".join(parts):
        yield last


# --- Flux: annotated CSV ---

_NO_COLUMNS = frozenset({"", "result", "table", "_measurement", "_start", "_stop"})
csv.field_size_limit(2**31 - 1)  # a string may have a megabyte, the limit of the module is 128 KiB


def decode_flux(
    blocks: Iterable[bytes],
    column: str,
    window: tuple[int, int],
    tags: Mapping[str, str] | None,
) -> Iterator[list[Row]]:
    """Return the rows of an answer in annotated CSV, with times in `column`.  Raise `UnreadableAnswer`.

    `tags` are the names of tags in rows, by key; None if it is not known which columns are tags.
    """
    reader = _FluxReader(column, window, tags)
    return _gathered(rows for piece in _whole_records(_bounded(blocks)) for rows in reader.rows(piece))


def _whole_records(blocks: Iterable[bytes]) -> Iterator[str]:
    """Return the same text, cut after records: a quoted string may contain line ends."""
    pending = b""
    for block in blocks:
        data = pending + block
        cut = data.rfind(b"\r\n") + 2
        while cut > 1 and data.count(b'"', 0, cut) % 2:
            cut = data.rfind(b"\r\n", 0, cut - 2) + 2
        if cut < 2:
            pending = data
            continue
        yield data[:cut].decode("utf-8", "replace")
        pending = data[cut:]
    if pending:
        raise UnreadableAnswer("the CSV does not end with a line break")


class _FluxReader:
    """Decodes pieces in order; keeps the annotations between them."""

    def __init__(self, column: str, window: tuple[int, int], tags: Mapping[str, str] | None) -> None:
        self._column = column
        self._window = window
        self._tags = tags
        self._tag_names = None if tags is None else tuple(sorted(tags.values()))
        self._annotations: dict[str, list[str]] = {}
        self._awaits_header = True
        self._header: list[str] = []
        self._minutes: dict[str, int] = {}
        self._times_known: dict[str, int] = {}
        self._texts: dict[str, str] = {}
        self._texts_length = 0

    def rows(self, piece: str) -> Iterator[list[Row]]:
        """Return the rows of a piece that consists of whole records."""
        if '"' in piece:
            try:
                records = list(csv.reader(io.StringIO(piece, newline=""), strict=True))
            except csv.Error as error:
                raise UnreadableAnswer(f"not CSV: {error}") from None
            yield from self._rows_of_records(records)
            return
        position, size = 0, len(piece)
        while position < size:
            if piece.startswith("\r\n", position):
                position += 2
            elif self._awaits_header or piece[position] == "#":
                end = piece.index("\r\n", position)
                self._head(piece[position:end].split(","))
                position = end + 2
            else:
                end = piece.find("\r\n#", position)
                end = size if end < 0 else end + 2
                yield self._made(self._plain_columns(piece[position:end].rstrip("\r\n")))
                position = end

    def _rows_of_records(self, records: list[list[str]]) -> Iterator[list[Row]]:
        data: list[list[str]] = []
        for record in records:
            if record and not self._awaits_header and record[0] == "":
                data.append(record)
                continue
            if data:
                yield self._made(self._quoted_columns(data))
                data = []
            if record:
                self._head(record)
        if data:
            yield self._made(self._quoted_columns(data))

    def _head(self, record: list[str]) -> None:
        """Take an annotation or the row of names."""
        if record[0].startswith("#"):
            if not self._awaits_header:
                self._annotations = {}
            self._annotations[record[0]] = record
            self._awaits_header = True
            return
        types = self._annotations.get("#datatype")
        if record[1:] == ["error", "reference"]:
            raise UnreadableAnswer("expected rows, found an error")
        if types is None or len(types) != len(record):
            raise UnreadableAnswer(f"columns without their types: {','.join(record)!r}")
        self._header = record
        self._awaits_header = False

    def _plain_columns(self, text: str) -> list[list[str]]:
        """Return the cells of many lines by column, where nothing is quoted: at most a split and some slices."""
        cells = text.replace("\r\n", ",").split(",")
        width = len(self._header)
        if len(cells) % width or any(cells[::width]):
            raise UnreadableAnswer("lines of different lengths")
        return [cells[number::width] for number in range(width)]

    def _quoted_columns(self, records: list[list[str]]) -> list[list[str]]:
        try:
            columns = [list(column) for column in zip(*records, strict=True)]
        except ValueError:
            raise UnreadableAnswer("lines of different lengths") from None
        if len(columns) != len(self._header):
            raise UnreadableAnswer("lines of another length than their header")
        # Flux writes each line feed of a string as carriage return and line feed, and drops lone carriage returns.
        return [
            [cell.replace("\r\n", "\n") for cell in column] if any("\r" in cell for cell in column) else column
            for column in columns
        ]

    def _made(self, cells: list[list[str]]) -> list[Row]:
        types = self._annotations["#datatype"]
        defaults = self._annotations.get("#default") or [""] * len(types)
        time_name = self._column if self._column in self._header else "_time"
        found: dict[str, list[Any]] = {}
        has_nulls = False
        measurements: Iterable[str] = repeat("")
        for name, kind, default, column in zip(self._header, types, defaults, cells, strict=True):
            if name == "_measurement":
                measurements = column
                continue
            if name in _NO_COLUMNS and name != time_name:
                continue
            if name in found:
                raise UnreadableAnswer(f"two columns of the name {name!r}")
            if default:
                column = [cell or default for cell in column]
            is_sparse = "" in column
            has_nulls = has_nulls or is_sparse
            found[name] = self._converted(kind, column, is_sparse)
        if time_name not in found:
            raise UnreadableAnswer(f"no column {time_name!r}")
        times = found.pop(time_name)
        names = [self._column, *(self._name(name) for name in found)]
        kept = [column for column, name in zip(found.values(), names[1:], strict=True) if name]
        # Without an intermediate list, zip uses one tuple for all rows.
        rows = zip(times, *kept, strict=True)
        names = [name for name in names if name]
        dicts = _sparse_dicts(names, list(rows), {}) if has_nulls else _dicts(names, rows, {})
        return list(map(Row, dicts, measurements, repeat(self._window), repeat(self._tag_names)))

    def _name(self, name: str) -> str:
        """Return the name in a row; empty for a tag that is not selected."""
        if self._tags is None or not self._is_key(name):
            return name
        return self._tags.get(name, "")

    def _is_key(self, name: str) -> bool:
        groups = self._annotations.get("#group")
        return groups is not None and groups[self._header.index(name)] == "true"

    def _converted(self, kind: str, cells: list[str], is_sparse: bool) -> list[Any]:
        is_time = kind.startswith("dateTime")
        if not is_time and kind not in _CONVERSIONS:
            texts = self._shared(cells)
            return [text or None for text in texts] if is_sparse else texts
        convert = parse_rfc3339 if is_time else _CONVERSIONS[kind]
        try:
            if is_time and not is_sparse:
                return self._times(cells)
            if is_sparse:
                return [convert(cell) if cell else None for cell in cells]
            if kind in _NUMBERS and "-0" not in cells:  # which JSON reads as 0
                with suppress(msgspec.DecodeError):  # NaN and infinities are not JSON
                    return _NUMBERS[kind].decode(f"[{','.join(cells)}]")
            return list(map(convert, cells))
        except (ValueError, KeyError, TimestampError) as error:
            raise UnreadableAnswer(f"not of the type {kind}: {error}") from None

    def _shared(self, cells: list[str]) -> list[str]:
        """Return the same strings, equal ones as one object: later code then hashes and compares each once."""
        length = sum(map(len, cells))
        if length > _SHORT * len(cells):
            return cells
        self._texts_length += length
        if self._texts_length > _MOST_LENGTH:
            self._texts.clear()
            self._texts_length = length
        return list(map(self._texts.setdefault, cells, cells))

    def _times(self, cells: list[str]) -> list[int]:
        """Return nanoseconds.  Many series report at the same times, and few minutes are new, so both are cached."""
        known = self._times_known
        new = set(cells).difference(known)
        if len(new) * 2 > len(cells):
            return self._new_times(cells)
        if len(known) + len(new) > _MOST_KNOWN:
            known.clear()
            new = set(cells)
        fresh = list(new)
        known.update(zip(fresh, self._new_times(fresh), strict=True))
        return list(map(known.__getitem__, cells))

    def _new_times(self, cells: list[str]) -> list[int]:
        minutes = self._minutes
        if len(minutes) > _MOST_KNOWN:
            minutes.clear()
        try:
            for minute in {text[:16] for text in cells}.difference(minutes):
                # By the calendar, since the first and last minute of the range are incomplete.
                date = int(minute[:4]), int(minute[5:7]), int(minute[8:10]), int(minute[11:13]), int(minute[14:])
                minutes[minute] = timegm((*date, 0)) * 10**9
            return [minutes[text[:16]] + int((text[17:19] + text[20:-1]).ljust(11, "0")) for text in cells]
        except ValueError:  # not in UTC
            return list(map(parse_rfc3339, cells))


_MOST_KNOWN = 50_000
_SHORT = 40
_MOST_LENGTH = 8_000_000
_NUMBERS: Mapping[str, msgspec.json.Decoder[list[Any]]] = {
    "long": msgspec.json.Decoder(list[int]),
    "unsignedLong": msgspec.json.Decoder(list[int]),
    "double": msgspec.json.Decoder(list[float]),
}
"""The decoders of numeric columns, each decoded as one JSON list: twice as fast as cell by cell."""
_CONVERSIONS: Mapping[str, Callable[[str], Any]] = {
    "long": int,
    "unsignedLong": int,
    "double": float,
    "boolean": {"true": True, "false": False}.__getitem__,
}
