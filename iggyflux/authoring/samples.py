"""Sample messages from a file or a pipe: payloads line by line, envelopes line by line, or JSON documents over lines.

The caller says what a line is; it is never guessed from keys (LANGUAGE 28).  A payload is passed on unchanged, also an
invalid one, since the plan reports it.  The one exception: a JSON document that spans lines is one message, also if
others follow it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import IO, TypeAlias

import msgspec

from iggyflux.authoring.sample_bytes import SampleError as SampleError
from iggyflux.authoring.sample_bytes import is_utf16, utf8_of
from iggyflux.errors import DecodeError, counted
from iggyflux.mapping import From
from iggyflux.payloads import FORMATS, Declared, Options, check_json_bytes, is_text, is_wide, text_encoding
from iggyflux.records import JSON, Message, Row
from iggyflux.timestamps import TimestampError, parse_rfc3339
from iggyflux.transports.influxdb.query.rows import UnreadableAnswer, decode_flux
from iggyflux.transports.local.envelopes import (
    MAX_LINE_BYTES,
    EnvelopeError,
    bare_message,
    decode_envelope,
    has_coordinates,
)

NOT_AN_ENVELOPE = "IFX500"
NEEDS_ENVELOPE = "IFX501"
NOT_A_ROW = "IFX502"
TOO_LONG = "IFX503"

_NOT_LINES = 'use --whole if the file is one payload, or --envelope with lines such as {"payload_base64": "…"}'
_NOT_JSON = f"{_NOT_LINES}; a JSON tree can be the `message` of an example"
_BOM = b"\xef\xbb\xbf"
Lines: TypeAlias = Iterable[bytes]


class SampleFile:
    """A file that is read line by line or whole, within a limit of memory; UTF-16 becomes UTF-8."""

    def __init__(self, file: IO[bytes], *, limit: int = MAX_LINE_BYTES) -> None:
        self._file = file
        self._limit = limit
        self._begin: bytes | None = None

    def begins_with_message(self) -> bool:
        """Return whether the first line is a message with coordinates.  Raise SampleError if it is too long."""
        self._begin = self._first_line()
        return has_coordinates(self._begin.removeprefix(_BOM))

    def __iter__(self) -> Iterator[bytes]:
        number = 1
        line = self._first_line() if self._begin is None else self._begin
        while line:
            yield line
            number += 1
            line = self._line(number)

    def _first_line(self) -> bytes:
        line = self._line(1)
        if is_utf16(line):
            self._file = utf8_of(line, self._file)
            line = self._line(1)
        return line

    def _line(self, number: int) -> bytes:
        return self._checked(self._file.readline(self._limit + 1), number, "a line")

    def read(self, *, is_text: bool = True) -> bytes:
        """Return the whole content; that of a text is UTF-8 without a mark.  Raise SampleError if it is too long."""
        begin = self._begin or b""
        data = self._checked(begin + self._file.read(self._limit + 1 - len(begin)), 0, "the file")
        if is_text and is_utf16(data):
            data = self._checked(utf8_of(data, BytesIO()).read(), 0, "the file")
        return data.removeprefix(_BOM) if is_text else data

    def _checked(self, data: bytes, line: int, what: str) -> bytes:
        if len(data) > self._limit:
            hint = "use one message per line (NDJSON), or --whole for one payload"
            raise SampleError(TOO_LONG, f"{what} has more than {self._limit:,} bytes", line, hint)
        return data


@dataclass(frozen=True, slots=True)
class Sample:
    """A message with its place: `line` is its position in the source, `name` its name in reports."""

    line: int
    message: Message
    name: str = ""

    @classmethod
    def stored(cls, message: Message) -> Sample:
        """Return a message of a server or log, named by its coordinates."""
        place = f"{message.topic}/{message.partition}"
        return cls(message.offset, message, f"message {place} at offset {message.offset}")

    def __str__(self) -> str:
        return self.name or f"sample {self.line}"


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row with its line."""

    line: int
    row: Row


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The default stream and topic of messages."""

    stream: str = ""
    topic: str = ""

    @classmethod
    def of(cls, source: From) -> Coordinates:
        """Return the stream of `from` and its first topic without wildcards; else the first glob with `1` for `*`."""
        names = [topic for topic in source.topics if not set("*?[") & set(topic)]
        return cls(source.stream, names[0] if names else source.topics[0].replace("*", "1").replace("?", "1"))


def read_samples(
    lines: Lines,
    coordinates: Coordinates,
    *,
    form: str = "json",
    options: Options | None = None,
    compression: str = "none",
    envelope: bool = False,
) -> Iterator[Sample]:
    """Yield the messages of `lines`; `form` is the format of payloads (a name of `payloads.FORMATS`).

    Raise SampleError if a line is not an envelope, or if payloads of the format cannot be written as lines.
    """
    stream, topic = coordinates.stream, coordinates.topic
    if envelope:
        for number, line in _numbered(lines):
            try:
                message = decode_envelope(line, number - 1, stream=stream, topic=topic)
            except EnvelopeError as error:
                hint = 'write {"payload": …, "offset": 0, "headers": {…}}, or omit --envelope for plain payloads'
                raise SampleError(NOT_AN_ENVELOPE, str(error), number, hint) from error
            yield Sample(number, message)
        return
    check_lines_can_hold(form, options or {}, compression)
    pieces = _documents(lines) if form == "json" else _numbered(lines)
    for number, payload in pieces:
        yield Sample(number, bare_message(payload, number - 1, stream=stream, topic=topic))


def whole_sample(payload: bytes, coordinates: Coordinates) -> Iterator[Sample]:
    """Yield one message with `payload`, of any format."""
    yield Sample(1, bare_message(payload, 0, stream=coordinates.stream, topic=coordinates.topic))


def samples_for(
    lines: SampleFile, payload: Declared, coordinates: Coordinates, *, envelope: bool = False, whole: bool = False
) -> Iterator[Sample]:
    """Return the messages of a file whose payloads are declared so: one if `whole`, else as `read_samples`."""
    if whole:
        return whole_sample(lines.read(is_text=is_text(payload)), coordinates)
    form, options, compression = payload.format, payload.options, payload.compression
    return read_samples(lines, coordinates, form=form, options=options, compression=compression, envelope=envelope)


def check_is_text(sample: Sample) -> None:
    """Raise SampleError for a line that is not text: the file has binary payloads, which lines would cut in pieces."""
    payload = sample.message.payload
    what = "a NUL byte" if b"\0" in payload else "" if _is_utf8(payload) else "bytes that are not UTF-8"
    if what:
        raise SampleError(
            NEEDS_ENVELOPE, f"the line has {what}: binary payloads have no lines", sample.line, _NOT_LINES
        )


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_lines_can_hold(form: str, options: Options, compression: str = "none") -> None:
    """Raise SampleError if payloads of this format are binary, or always compressed: those need envelopes.

    UTF-16 counts as binary, since a file of lines with its mark is read as UTF-8.
    """
    is_compressed = compression not in ("none", "auto")
    if FORMATS[form].binary or is_compressed or is_wide(options):
        what = compression if is_compressed else form if FORMATS[form].binary else text_encoding(options)
        raise SampleError(NEEDS_ENVELOPE, f"{what} payloads are binary and cannot be written as lines", 0, _NOT_JSON)


def _numbered(lines: Lines) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, without line ends, with numbers from 1."""
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(_BOM)
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if line.strip():
            yield number, line


def _documents(lines: Lines) -> Iterator[tuple[int, bytes]]:
    """Yield one JSON document per line; if the first line is not one, each document that begins and ends with a line.

    Lines that are not documents either way are yielded one by one.
    """
    pieces = _numbered(lines)
    first = next(pieces, None)
    if first is None:
        return
    if not is_json(first[1]):
        held, size = [first], len(first[1])
        for piece in pieces:
            held.append(piece)
            size += len(piece[1])
            if size > MAX_LINE_BYTES:  # these are not documents over several lines
                break
        else:
            held = _joined_documents(held) or held
        yield from held
    else:
        yield first
    yield from pieces


BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]')
"""The strings and brackets of a line of JSON."""


def _joined_documents(pieces: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]] | None:
    """Return the JSON documents that these lines form, each with the number of its first line; None if they do not."""
    documents: list[tuple[int, bytes]] = []
    held: list[bytes] = []
    first = depth = 0
    for number, line in pieces:
        first = first if held else number
        held.append(line)
        tokens = BRACKETS.findall(line)
        depth += sum(token in b"[{" for token in tokens) - sum(token in b"]}" for token in tokens)
        if depth <= 0:
            documents.append((first, b"\n".join(held)))
            held, depth = [], 0
    if held or not all(is_json(document) for _, document in documents):
        return None
    return documents


def is_json(text: bytes) -> bool:
    """Return whether `text` is one JSON document."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):  # deeper than any payload may be
        return False
    return True


# --- rows, for readers ---


def read_rows(lines: Lines, *, form: str, measurement: str = "") -> Iterator[SampleRow]:
    """Yield the rows of `lines`; `form` is `jsonl` (an object of columns a line) or `csv` (with a header line).

    `time` is integer nanoseconds or RFC 3339.  A cell of a CSV is a number, true or false where it is one by JSON's
    syntax, null where it is empty, else a string.  A CSV that begins with an annotation (`#datatype`) is
    Flux's: its columns have the annotated types, and `_time` becomes `time`.  Raise SampleError.
    """
    if form == "csv":
        first, lines = _peeked(lines)
        if first.removeprefix(_BOM).startswith(_ANNOTATIONS):
            yield from _annotated_rows(lines, measurement)
            return
    for number, columns in _ROW_FORMS[form](lines):
        yield SampleRow(number, Row(_with_time(columns, number), measurement))


def _json_rows(lines: Lines) -> Iterator[tuple[int, dict[str, JSON]]]:
    for number, line in _numbered(lines):
        try:
            check_json_bytes(line)
            columns = msgspec.json.decode(line)
        except (DecodeError, msgspec.MsgspecError) as error:
            raise SampleError(NOT_A_ROW, f"invalid row: {error}", number) from error
        if not isinstance(columns, dict):
            raise SampleError(NOT_A_ROW, "expected an object of columns", number)
        yield number, columns


def _csv_rows(lines: Lines) -> Iterator[tuple[int, dict[str, JSON]]]:
    texts = (line.decode("utf-8-sig" if first else "utf-8", "surrogateescape") for first, line in _marked_first(lines))
    reader = csv.reader(texts, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = cells
                continue
            if len(cells) != len(header):
                reason = f"{counted(len(cells), 'cell')}, but the header has {len(header):,}"
                raise SampleError(NOT_A_ROW, reason, reader.line_num)
            yield reader.line_num, {name: _cell(text) for name, text in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise SampleError(NOT_A_ROW, f"not CSV: {error}", reader.line_num) from error


_ANNOTATIONS = (b"#datatype,", b"#group,", b"#default,")


def _annotated_rows(lines: Lines, measurement: str) -> Iterator[SampleRow]:
    """Yield rows of Flux with numbers from 1; line ends can be LF, as some editors write them."""
    text = _joined(lines).removeprefix(_BOM)
    if b"\r\n" not in text:
        text = text.replace(b"\n", b"\r\n")
    text = text if text.endswith(b"\r\n") else text + b"\r\n"
    try:
        rows = [row for chunk in decode_flux([text], "time", (0, 0), None) for row in chunk]
    except (UnreadableAnswer, ValueError) as error:
        raise SampleError(NOT_A_ROW, f"not annotated CSV: {error}") from error
    for number, row in enumerate(rows, 1):
        yield SampleRow(number, Row(row.columns, row.measurement or measurement))


def _joined(lines: Lines) -> bytes:
    pieces, size = [], 0
    for line in lines:
        pieces.append(line)
        size += len(line)
        if size > MAX_LINE_BYTES:
            raise SampleError(TOO_LONG, f"annotated CSV has more than {MAX_LINE_BYTES:,} bytes")
    return b"".join(pieces)


def _peeked(lines: Lines) -> tuple[bytes, Lines]:
    """Return the first line, and an iterator over all lines."""
    waiting = iter(lines)
    first = next(waiting, b"")
    return first, chain([first] if first else [], waiting)


_ROW_FORMS = {"jsonl": _json_rows, "csv": _csv_rows}


def _marked_first(lines: Lines) -> Iterator[tuple[bool, bytes]]:
    for index, line in enumerate(lines):
        yield index == 0, line


def _cell(text: str) -> JSON:
    if text == "":
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float)) else text


def _with_time(columns: Mapping[str, JSON], line: int) -> dict[str, JSON]:
    """Return the columns that have a value, with `time` in integer nanoseconds."""
    columns = {name: value for name, value in columns.items() if value is not None}
    found = columns.get("time")
    if isinstance(found, str):
        try:
            return {**columns, "time": parse_rfc3339(found)}
        except TimestampError as error:
            raise SampleError(NOT_A_ROW, f"time: {error}", line, "nanoseconds as an integer, or RFC 3339") from error
    if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
        raise SampleError(NOT_A_ROW, f"time is {found!r}", line, "nanoseconds as an integer, or RFC 3339")
    return columns
