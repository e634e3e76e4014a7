"""Line protocol as InfluxDB 3 parses it, with its error messages.

Lines are numbered as that server numbers them: blank lines and comments do not count.  The text that it shows beside a
number comes from a second pass over all lines.  Nothing is stored here.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple, TypeAlias

from iggyflux.sim.classic import scan_line
from iggyflux.sim.plain import LINE, Fields, Value, plain_fields, plain_tags

STRING_LIMIT = 65_536
SHOWN = 20
"""The bytes of a line that a response shows."""


class SentSeries(NamedTuple):
    """A measurement and its tags as sent, in order; a tag key may be duplicate."""

    measurement: bytes
    tags: tuple[tuple[bytes, bytes], ...]


class Line(NamedTuple):
    """A parsed line with its number; `fields` may have a duplicate key."""

    number: int
    series: SentSeries
    fields: list[tuple[bytes, Value]]
    time: int | None


class NumberedRejection(NamedTuple):
    """A rejected line: number, reason, and the text that the server shows; None if it fails to show it."""

    number: int
    reason: str
    shown: str | None


Plain: TypeAlias = "tuple[int, bytes, Fields, int | None]"
"""A line in the plain form: number, text of the series, fields, time."""


class LineError(Exception):
    """Why the server cannot parse a line; `older` is the message of versions before 3.10, if that differs."""

    def __init__(self, words: str, older: str | None = None) -> None:
        self.older = words if older is None else older
        super().__init__(words)


_GENERIC = "A generic parsing error occurred: TakeWhile1"
_MALFORMED = "Tag Set Malformed"


class _NoMatch(Exception):
    """The expected element does not begin here; the caller decides what that means."""


def parse(text: bytes, *, older: bool) -> tuple[list[Plain | Line], list[NumberedRejection]]:
    """Return the lines of a body that is valid UTF-8, accepted and rejected; `older` uses the messages before 3.10."""
    good: list[Plain | Line] = []
    bad: list[NumberedRejection] = []
    shown = _Shown(text)
    position, end, number = 0, len(text), 0
    match = LINE.match
    while position < end:
        found = match(text, position)
        if found is not None:
            series, fields_text, time = found.groups()
            fields = plain_fields(fields_text)
            stamp = None if time is None else int(time)
            in_range = stamp is None or -(2**63) <= stamp < 2**63
            if fields is not None and in_range and len(series) < STRING_LIMIT:
                number += 1
                good.append((number, series, fields, stamp))
                position = found.end()
                continue
        position, block = scan_line(text, position)
        position += 1
        line = _trim(block.decode())
        if not line:
            continue
        number += 1
        try:
            series_read, fields_read, timestamp = parse_line(line)
        except LineError as reason:
            bad.append(NumberedRejection(number, reason.older if older else str(reason), shown.line(number)))
        else:
            good.append(Line(number, series_read, fields_read, timestamp))
    return good, bad


class _Shown:
    """The lines of a body as the server's second pass splits them, made on first use."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._lines: list[str] | None = None

    def line(self, number: int) -> str | None:
        if self._lines is None:
            self._lines = [line.removesuffix("\r") for line in self._text.decode().split("\n")]
        return cut(self._lines[min(number, len(self._lines)) - 1])


def cut(line: str) -> str | None:
    """Return the first bytes of a line, as responses show them.

    None if that splits a character: there the server breaks the connection.
    """
    try:
        return line.encode()[:SHOWN].decode()
    except UnicodeDecodeError:
        return None


def read_series(text: bytes) -> SentSeries:
    """Return measurement and tags of a line in the plain form."""
    return SentSeries(*plain_tags(text))


def parse_line(line: str) -> tuple[SentSeries, list[tuple[bytes, Value]], int | None]:
    """Return one parsed line without leading space.  Raise `LineError`."""
    measurement, rest = _measurement(line)
    tags, rest = _tags(rest) if rest.startswith(",") else ((), rest)
    spaces = _SPACES.match(rest)
    if spaces is None:
        raise LineError(f"Expected at least one space character, got {_got(rest, shorten=False)}", _GENERIC)
    fields, rest = _fields(rest[spaces.end() :])
    timestamp = _TIMESTAMP.match(rest)
    time = None
    if timestamp is not None:
        time = int(timestamp[1])
        if not -(2**63) <= time < 2**63:
            raise _unreadable("timestamp", timestamp[1])
        rest = rest[timestamp.end() :]
    if rest:
        words = "Could not parse entire line. Found trailing content: "
        raise LineError(f"{words}`{_shorten(rest)}`", f"{words}'{rest}'")
    return SentSeries(measurement.encode(), tags), fields, time


_SPACES = re.compile(r" +")
_TIMESTAMP = re.compile(r" +(-?[0-9]+) *")
_MEASUREMENT = re.compile(r"[^ \t\n\x00,\\]+")
_KEY = re.compile(r"[^ \t\n=\\]+")
_TAG_VALUE = re.compile(r"[^ \t\n,\\]+")
_STRING = re.compile(r'"((?:\\"|\\\\|\\|[^\\"]+)*+)"')
_ESCAPED_IN_STRING = re.compile(r'\\([\\"])')
_INTEGER = re.compile(r"(-?[0-9]+)i")
_UNSIGNED = re.compile(r"([0-9]+)u")
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+[eE][+-]?[0-9]+|-?[0-9]+[eE][+-]?[0-9]+|-?[0-9]+\.[0-9]+|-?[0-9]+")
_BOOLEAN = re.compile(r"true|True|TRUE|t|T|false|False|FALSE|f|F")


def _trim(line: str) -> str:
    while True:
        line = line.lstrip(" \t\n")
        if not line.startswith("#"):
            return line
        line = line.partition("\n")[2]


def _measurement(line: str) -> tuple[str, str]:
    try:
        return _escaped(line, _MEASUREMENT, ", \\")
    except _NoMatch:
        raise LineError("Invalid measurement was provided") from None


def _tags(rest: str) -> tuple[tuple[tuple[bytes, bytes], ...], str]:
    """Return the tags after the measurement; `rest` begins with the comma."""
    first = rest[1:]
    tags: list[tuple[bytes, bytes]] = []
    while rest.startswith(","):
        rest = rest[1:]
        older = _GENERIC if tags else _MALFORMED  # after one valid tag the server expected a space instead of the comma
        try:
            key, after = _escaped(rest, _KEY, "\\,= ")
        except _NoMatch:
            raise LineError(f"Expected tag key, got {_got(rest)}", older) from None
        if not after.startswith("="):
            raise LineError(f"Tag set malformed: could not find equals sign in `{_shorten(first)}`", older)
        rest = after[1:]
        try:
            value, rest = _escaped(rest, _TAG_VALUE, "\\,= ")
        except _NoMatch:
            raise LineError(f"Expected tag value, got {_got(rest)}", older) from None
        tags.append((key.encode(), value.encode()))
    return tuple(tags), rest


def _fields(rest: str) -> tuple[list[tuple[bytes, Value]], str]:
    try:
        field, rest = _field(rest)
    except _NoMatch:
        raise LineError("No fields were provided") from None
    fields = [field]
    while rest.startswith(","):
        try:
            field, after = _field(rest[1:])
        except _NoMatch:  # the server skips the first comma, not a later one
            return fields, rest[1:] if len(fields) == 1 else rest
        fields.append(field)
        rest = after
    return fields, rest


def _field(rest: str) -> tuple[tuple[bytes, Value], str]:
    key, rest = _escaped(rest, _KEY, "\\,= ")
    if not rest.startswith("="):
        raise _NoMatch
    value, rest = _value(rest[1:])
    return (key.encode(), value), rest


def _value(rest: str) -> tuple[Value, str]:
    if found := _INTEGER.match(rest):
        number = int(found[1])
        if not -(2**63) <= number < 2**63:
            raise _unreadable("integer", found[1])
        return number, rest[found.end() :]
    if found := _UNSIGNED.match(rest):
        number = int(found[1])
        if number >= 2**64:
            raise _unreadable("unsigned integer", found[1])
        return [number], rest[found.end() :]
    if found := _FLOAT.match(rest):
        return float(found[0]), rest[found.end() :]
    if found := _STRING.match(rest):
        text = _ESCAPED_IN_STRING.sub(r"\1", found[1]).encode()
        if len(text) > STRING_LIMIT:
            raise LineError("String is greater than 64KB")
        return text, rest[found.end() :]
    if found := _BOOLEAN.match(rest):
        return found[0] in ("true", "True", "TRUE", "t", "T"), rest[found.end() :]
    raise _NoMatch


def _escaped(text: str, normal: re.Pattern[str], escapable: str) -> tuple[str, str]:
    """Return a name without escapes, and what follows it."""
    parts: list[str] = []
    position = 0
    while position < len(text):
        if found := normal.match(text, position):
            parts.append(found[0])
            position = found.end()
        elif text[position] != "\\":
            break
        elif text[position + 1 : position + 2] and text[position + 1] in escapable:
            parts.append(text[position + 1])
            position += 2
        else:
            parts.append(text[position : position + 2])
            position += 2
    if not parts:
        raise _NoMatch
    name = "".join(parts)
    if name.endswith("\\"):
        raise LineError("Measurements, tag keys and values, and field keys may not end with a backslash")
    if len(name.encode()) > STRING_LIMIT:
        raise LineError("String is greater than 64KB")
    return name, text[position:]


def _unreadable(kind: str, digits: str) -> LineError:
    return LineError(f"Unable to parse {kind} value `{digits}`", f"Unable to parse {kind} value '{digits}'")


def _got(rest: str, *, shorten: bool = True) -> str:
    if not rest:
        return "end of input"
    return f"`{_shorten(rest) if shorten else rest}`"


def _shorten(text: str) -> str:
    return f"{text[:10]}..." if len(text.encode()) > 10 else text


def format_plain(series: bytes, fields: Fields, time: int | None) -> bytes:
    """Return a line in the plain form, written so that it reads the same."""
    out = []
    for key, value in fields.items():
        name = re.sub(rb"([, =])", rb"\\\1", key)
        text = _format(value).encode()
        if isinstance(value, bytes):
            text = b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
        out.append(name + b"=" + text)
    return series + b" " + b",".join(out) + (b"" if time is None else b" %d" % time)


def format_line(series: SentSeries, fields: list[tuple[bytes, Value]], time: int | None) -> str:
    """Return a line as the server writes it when a schema rejects it: strings unquoted, floats without exponent."""
    out = [_escape(series.measurement, ", ")]
    out += [f",{_escape(key, ',= ')}={_escape(value, ',= ')}" for key, value in series.tags]
    out.append(" ")
    out.append(",".join(f"{_escape(key, ',= ')}={_format(value)}" for key, value in fields))
    if time is not None:
        out.append(f" {time}")
    return "".join(out)


def _escape(text: bytes, characters: str) -> str:
    return "".join("\\" + character if character in characters else character for character in text.decode())


def _format(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value}i"
        case list():
            return f"{value[0]}u"
        case bytes():
            return _escape(value, '"')
        case _:
            return format_rust_float(value)


def format_rust_float(value: float) -> str:
    """Return the shortest digits that give the value back, never with an exponent."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"inf": "inf", "-inf": "-inf"}.get(repr(value), "NaN")
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")
