"""A strict parser: servers of the dialect store unchanged what it accepts; everything else is an error with its place.

It is stricter than servers where they garble, drop or lose data silently: text after a closing quote, duplicate keys,
names that `checks` rejects, carriage returns.  One regular expression parses simple lines; the careful path decides all
others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from iggyflux.errors import LineProtocolError, PointError
from iggyflux.lineprotocol.checks import (
    MAX_BYTES,
    MAX_NS,
    MIN_NS,
    RESERVED_TAG_KEYS,
    LinePart,
    check_integer,
    check_part,
    check_string,
    check_unsigned,
    shorten,
)
from iggyflux.lineprotocol.encode import Dialect, Precision
from iggyflux.lineprotocol.point import FieldValue, Point, Unsigned, trusted_point

_BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}

# Outside of strings, 1.x and 2.x read a backslash as an escape only before a special character, 3.x also before a
# backslash.
_UNESCAPE_MEASUREMENT = {
    dialect: re.compile(r"\\([, \\])" if dialect.doubles_backslash else r"\\([, ])") for dialect in Dialect
}
_UNESCAPE_KEY = {
    dialect: re.compile(r"\\([,= \\])" if dialect.doubles_backslash else r"\\([,= ])") for dialect in Dialect
}
_UNESCAPE_STRING = re.compile(r'\\(["\\])')

# The extent of each unquoted part, escapes included; its content is checked after unescaping.
_MEASUREMENT = {
    dialect: re.compile(r"(?:\\[, \\]|[^, ])*+" if dialect.doubles_backslash else r"(?:\\[, ]|[^, ])*+", re.DOTALL)
    for dialect in Dialect
}
_KEY = {
    dialect: re.compile(r"(?:\\[,= \\]|[^,= ])*+" if dialect.doubles_backslash else r"(?:\\[,= ]|[^,= ])*+", re.DOTALL)
    for dialect in Dialect
}
_SPACES = re.compile(" *")
_BARE = re.compile("[^, ]*")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_INTEGER = re.compile(r"-?[0-9]+i")
_UNSIGNED = re.compile(r"[0-9]+u")
_FLOAT = {
    dialect: re.compile(
        r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
        if dialect is Dialect.V3
        else r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    )
    for dialect in Dialect
}
_TIMESTAMP = re.compile(r"-?[0-9]+")

# A whole line without escapes, with numbers that cannot leave their ranges: it means the same in every dialect.
# No group is possessive: before Python 3.11.4 such a group lets pass what is not whole.
_NAME = r'[^\\"#,= \x00-\x1f\x7f-\x9f\ud800-\udfff]++'
_PLAIN_VALUE = (
    r"-?[0-9]{1,17}(?:\.[0-9]{1,17}(?:e[+-]?[0-9]{1,2})?|i)?"
    r'|"[^"\\\ud800-\udfff]*+"'
    r"|[tT](?:rue)?|[fF](?:alse)?"
)
_PLAIN_LINE = re.compile(
    rf"({_NAME})((?:,{_NAME}={_NAME})*)"
    rf" ({_NAME}=(?:{_PLAIN_VALUE})(?:,{_NAME}=(?:{_PLAIN_VALUE}))*)"
    r"(?: (-?[0-9]{1,19}))?"
)
_PLAIN_FIELD = re.compile(rf'{_NAME}=(?:"[^"]*+"|[^,]++)')
_LONGEST_PLAIN = MAX_BYTES // 8  # shorter ones cannot break a limit of size

# The extent of a line: strings of fields may contain line feeds, names may contain quotes.
_LOGICAL_LINE = re.compile(
    r"""
    \ *+(?:\#[^\n]*+|                       # a comment
    (?:\\[^\n]|[^\n ])*+                    # measurement and tags: a quote is a character like others
    (?:\\[^\n]|="(?:[^"\\]|\\.)*+(?:"|\Z)|[^\n])*+
    )
    """,
    re.VERBOSE | re.DOTALL,
)


def parse_lines(
    data: bytes | str, dialect: Dialect | str = Dialect.V2, precision: Precision | str = Precision.NS
) -> list[Point]:
    """Return the points of `data`, in order; blank lines and comments are skipped.

    The point of a line without a time has `timestamp_ns` None.  Raise `LineProtocolError` at the first line that a
    server of `dialect` would not store unchanged, or that is invalid UTF-8.
    """
    dialect, precision = Dialect(dialect), Precision(precision)
    divisor = precision.divisor
    return [
        _parse_plain(text, divisor) or _parse_carefully(text, dialect, precision, number)
        for number, text in split_lines(data)
    ]


def split_lines(data: bytes | str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number (from 1, counting every line feed), without blank lines and comments.

    A string with line feeds remains in one line, as does everything after an unclosed string.  Invalid UTF-8
    affects only its own line: it becomes unpaired surrogates, which `parse_line` rejects.  Never raises.
    """
    text = data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")
    if '"' not in text:
        for number, line in enumerate(text.split("\n"), 1):
            if line and (line[0] not in " #" or not _is_empty(line)):
                yield number, line
        return
    number, position = 1, 0
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        if text.find('"', position, end) >= 0:
            found = _LOGICAL_LINE.match(text, position)
            end = found.end() if found is not None else end
        line = text[position:end]
        if not _is_empty(line):
            yield number, line
        number += 1 + line.count("\n")
        position = end + 1


def parse_line(
    text: str, dialect: Dialect | str = Dialect.V2, precision: Precision | str = Precision.NS, *, line: int = 1
) -> Point:
    """Return the point of one line, which is neither blank nor a comment.

    Raise `LineProtocolError` with `line` (of the text's first character) and a column in bytes.
    """
    dialect, precision = Dialect(dialect), Precision(precision)
    return _parse_plain(text, precision.divisor) or _parse_carefully(text, dialect, precision, line)


def _parse_carefully(text: str, dialect: Dialect, precision: Precision, line: int) -> Point:
    parser = _LineParser(text, dialect, precision)
    try:
        return parser.point()
    except _Refused as refused:
        raise _located(refused.reason, text, refused.position, line) from None
    except PointError as exc:
        raise _located(exc.reason, text, parser.start, line) from exc


def _parse_plain(text: str, divisor: int) -> Point | None:
    """Return the point of a simple line, or None if the careful path must decide."""
    found = _PLAIN_LINE.fullmatch(text)
    if found is None or len(text) > _LONGEST_PLAIN:
        return None
    measurement, tag_section, field_section, time = found.groups()
    tags: dict[str, str] = {}
    if tag_section:
        last = ""
        for pair in tag_section[1:].split(","):
            key, _, tags[key] = pair.partition("=")
            if key <= last or not tags[key]:  # possessive quantifiers of Python before 3.11.4 let an empty one pass
                return None
            last = key
        if not RESERVED_TAG_KEYS.isdisjoint(tags):
            return None
    fields: dict[str, FieldValue] = {}
    last = ""
    strings = '"' in field_section
    for pair in _PLAIN_FIELD.findall(field_section) if strings else field_section.split(","):
        key, _, value = pair.partition("=")
        if key <= last or key in tags or not value:
            return None
        last = key
        final = value[-1]
        if final <= "9":
            fields[key] = value[1:-1] if final == '"' else float(value)
        else:
            fields[key] = int(value[:-1]) if final == "i" else _BOOLEANS[value]
    if "time" in fields:
        return None
    timestamp_ns = None if time is None else int(time) * divisor
    if timestamp_ns is not None and not MIN_NS <= timestamp_ns <= MAX_NS:
        return None
    return trusted_point(measurement, tags, fields, timestamp_ns)


class _Refused(Exception):
    """A fault: `reason` at the character `position`."""

    def __init__(self, reason: str, position: int) -> None:
        self.reason = reason
        self.position = position


class _LineParser:
    """Parses one line from left to right; `position` is the next character, `start` where the current part began."""

    def __init__(self, text: str, dialect: Dialect, precision: Precision) -> None:
        self.text = text
        self.dialect = dialect
        self.precision = precision
        self.position = 0
        self.start = 0

    def point(self) -> Point:
        self._skip_spaces()
        beginning = self.position
        self._refuse_line_feed()
        measurement = self._unquoted(LinePart.MEASUREMENT, _MEASUREMENT, _UNESCAPE_MEASUREMENT)
        tags = self._tags()
        if not self._skip_spaces():
            self._refuse("expected ' ' before the fields", self.position)
        fields = self._fields(tags)
        timestamp_ns = self._timestamp()
        self.start = beginning
        return Point(measurement, tags, fields, timestamp_ns)

    def _tags(self) -> dict[str, str]:
        tags: dict[str, str] = {}
        while self._take(","):
            key = self._unquoted(LinePart.TAG_KEY, _KEY, _UNESCAPE_KEY)
            if key in tags:
                self._refuse(f"duplicate tag {shorten(key)}")
            if not self._take("="):
                self._refuse(f"expected '=' after the tag key {shorten(key)}", self.position)
            tags[key] = self._unquoted(LinePart.TAG_VALUE, _KEY, _UNESCAPE_KEY)
            if self._peek() == "=":
                self._refuse("unescaped '=' in a tag value", self.position)
        return tags

    def _fields(self, tags: dict[str, str]) -> dict[str, FieldValue]:
        fields: dict[str, FieldValue] = {}
        while True:
            key = self._unquoted(LinePart.FIELD_KEY, _KEY, _UNESCAPE_KEY)
            if key in fields:
                self._refuse(f"duplicate field {shorten(key)}")
            if key in tags:
                self._refuse(f"{shorten(key)} is a tag and a field")
            if not self._take("="):
                self._refuse(f"expected '=' after the field key {shorten(key)}", self.position)
            self.start = self.position
            fields[key] = self._string() if self._peek() == '"' else self._bare_value()
            if not self._take(","):
                return fields

    def _unquoted(
        self, part: LinePart, extents: dict[Dialect, re.Pattern[str]], escapes: dict[Dialect, re.Pattern[str]]
    ) -> str:
        self.start = self.position
        raw = self._match(extents[self.dialect])
        line_feed = raw.find("\n")
        if line_feed >= 0:
            self._refuse(f"the line ends inside a {part.value}", self.start + line_feed)
        return check_part(escapes[self.dialect].sub(r"\1", raw) if "\\" in raw else raw, part)

    def _string(self) -> str:
        found = _STRING.match(self.text, self.position)
        if found is None:
            self._refuse("the string is not closed")
        text = check_string(_UNESCAPE_STRING.sub(r"\1", found.group(1)))
        self.position = found.end()
        if self._peek() not in ("", ",", " "):
            self._refuse(f"expected ',' or ' ' after the closing quote, found {self._peek()!r}", self.position)
        return text

    def _bare_value(self) -> FieldValue:
        raw = self._match(_BARE)
        if raw in _BOOLEANS:
            return _BOOLEANS[raw]
        if _INTEGER.fullmatch(raw):
            return check_integer(self._integer(raw[:-1]))
        if _UNSIGNED.fullmatch(raw) and self.dialect.has_unsigned:
            return Unsigned(check_unsigned(self._integer(raw[:-1])))
        if _FLOAT[self.dialect].fullmatch(raw):
            value = float(raw)
            if value - value != 0.0:
                self._refuse(f"{shorten(raw)} is larger than the largest float")
            return value
        return self._refuse(_value_reason(raw, self.dialect))

    def _integer(self, digits: str) -> int:
        significant = digits.lstrip("-").lstrip("0")
        if len(significant) > 20:
            self._refuse(f"{shorten(digits)} is outside every integer type")
        return int(digits)

    def _timestamp(self) -> int | None:
        self._skip_spaces()
        self.start = self.position
        raw = self.text[self.position :].rstrip(" ")
        if not raw:
            return None
        if not _TIMESTAMP.fullmatch(raw):
            self._refuse(f"expected an integer as the time, found {shorten(raw)}")
        value = self._integer(raw) * self.precision.divisor
        if not MIN_NS <= value <= MAX_NS:
            self._refuse(f"time {shorten(raw)} in {self.precision.value} is outside {MIN_NS} … {MAX_NS} ns")
        return value

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.position)
        if found is None:
            return ""
        self.position = found.end()
        return found.group()

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self.position += 1
        return True

    def _skip_spaces(self) -> bool:
        return bool(self._match(_SPACES))

    def _refuse_line_feed(self) -> None:
        if self._peek() in ("", "\n", "#"):
            self._refuse("expected a point, found a blank line or a comment", self.position)

    def _refuse(self, reason: str, position: int | None = None) -> NoReturn:
        raise _Refused(reason, self.start if position is None else position)


def _is_empty(line: str) -> bool:
    """Return whether `line` is blank or a comment."""
    stripped = line.lstrip(" ")
    return not stripped or stripped[0] == "#"


def _value_reason(raw: str, dialect: Dialect) -> str:
    if not raw:
        return "the field has no value"
    if _UNSIGNED.fullmatch(raw):
        return f"dialect {dialect.value} has no unsigned integers, found {shorten(raw)}"
    if "\r" in raw:
        return f"{shorten(raw)} contains a carriage return: lines end with a line feed only"
    return f"expected a number, a boolean or a string, found {shorten(raw)}"


def _located(reason: str, text: str, position: int, line: int) -> LineProtocolError:
    """Return the error at `position` of `text`, whose first character is in `line`."""
    start = text.rfind("\n", 0, position) + 1
    column = len(text[start:position].encode("utf-8", "surrogatepass")) + 1
    return LineProtocolError(reason, line + text.count("\n", 0, position), column)
