"""Line protocol as InfluxDB 1.x and 2.x parse it, with their error messages and their quirks.

This is not the strict parser of `iggyflux.lineprotocol`: it accepts what those servers accept (text after a closing
quote, names with control characters, backslashes that lose a point), because a simulator that is stricter than the
server hides faults of the writer.  Order of scanning and messages are those of the servers.  Nothing is stored here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from math import isinf
from typing import NamedTuple

from iggyflux.sim.plain import LINE, BrokenValue, Fields, Parsed, RawFields, TwoTypes, Value, plain_fields, plain_tags

MAX_KEY_LENGTH = 65_535
MIN_TIME, MAX_TIME = -(2**63) + 2, 2**63 - 2
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
RESERVED_TAG_KEYS = (b"\xff", b"\x00", b"_field", b"_measurement", b"time")

_SPACE, _COMMA, _EQUALS, _QUOTE, _BACKSLASH, _NEWLINE, _HASH = 0x20, 0x2C, 0x3D, 0x22, 0x5C, 0x0A, 0x23
_UNESCAPE_NAME = re.compile(rb"\\([,\" =])")
_BOOLEANS = {
    **dict.fromkeys((b"t", b"T", b"true", b"TRUE", b"True"), True),
    **dict.fromkeys((b"f", b"F", b"false", b"FALSE", b"False"), False),
}


class ServerKilled(Exception):
    """The line ends the process of a real server; the simulator must drop the connection without a response."""


class LineError(Exception):
    """Why the server cannot parse a line; the text is the server's."""


class RejectedLine(NamedTuple):
    """A rejected line and the server's reason."""

    line: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class ParseRules:
    """The differences between versions: unsigned integers and reserved tag keys."""

    unsigned: bool
    reserved_tags: bool


def parse(data: bytes, rules: ParseRules, unit: int, now_ns: int) -> tuple[list[Parsed], list[RejectedLine]]:
    """Return the accepted lines of a request body, with times in nanoseconds, and the rejected ones.

    `unit` is the precision in nanoseconds; a line without a time gets `now_ns`, truncated to the unit.
    Raise `ServerKilled`.
    """
    now_ns = now_ns // unit * unit
    low, high = -(-MIN_TIME // unit), MAX_TIME // unit
    good: list[Parsed] = []
    bad: list[RejectedLine] = []
    position, end = 0, len(data)
    match = LINE.match
    seen: set[bytes] = set()
    unsigned = _anything if rules.unsigned else _no_unsigned
    while position < end:
        found = match(data, position)
        if found is not None:
            series, text, time = found.groups()
            fields = plain_fields(text)
            if fields is not None and (series in seen or _is_plain_series(series, rules)) and unsigned(fields):
                stamp = now_ns if time is None else int(time)
                if time is None or low <= stamp <= high:
                    seen.add(series)
                    good.append((series, fields, stamp if time is None else stamp * unit))
                    position = found.end()
                    continue
        position, block = scan_line(data, position)
        position += 1
        line = block.lstrip(b" \t\x00")
        if not line or line[0] == _HASH:
            continue
        try:
            key, values, parsed_time = parse_line(line, rules)
            good.append((key, values, now_ns if parsed_time is None else scale_time(parsed_time, unit)))
        except LineError as reason:
            bad.append(RejectedLine(line, str(reason)))
    return good, bad


def _anything(_: Fields) -> bool:
    return True


def _no_unsigned(fields: Fields) -> bool:
    return list not in map(type, fields.values())


def _is_plain_series(series: bytes, rules: ParseRules) -> bool:
    """Return whether a series in the plain form can be used as it is: sorted, without reserved keys, short."""
    if len(series) > MAX_KEY_LENGTH - 4096:
        return False
    keys = [part.split(b"=")[0] for part in series.split(b",")[1:]] if b"\\" not in series else None
    if keys is None:
        return False
    if any(left >= right for left, right in pairwise(keys)):
        return False
    return not (rules.reserved_tags and any(key in RESERVED_TAG_KEYS for key in keys))


def parse_line(line: bytes, rules: ParseRules) -> Parsed:
    """Return one parsed line without its newline.  Raise `LineError`, `ServerKilled`."""
    position, key = _scan_key(line, rules)
    if len(key) > MAX_KEY_LENGTH:
        raise LineError(f"max key length exceeded: {len(key)} > {MAX_KEY_LENGTH}")
    position, text = _scan_fields(line, position, rules)
    if not text:
        raise LineError("missing fields")
    for name, _ in _walk_fields(text):
        size = len(key) + 4 + len(name)
        if size > MAX_KEY_LENGTH:
            raise LineError(f"max key length exceeded: {size} > {MAX_KEY_LENGTH}")
    position, digits = _scan_time(line, position)
    if not digits:
        return key, read_fields(text), None
    time = _parse_int(digits)
    if line[position:].strip(b" "):
        raise LineError("point is invalid")
    return key, read_fields(text), time


def scale_time(time: int, unit: int) -> int:
    """Return nanoseconds.  Raise `LineError` outside the range that the servers store."""
    nanoseconds = time * unit
    if not MIN_TIME <= nanoseconds <= MAX_TIME:
        raise LineError(f"time outside range {MIN_TIME} - {MAX_TIME}")
    return nanoseconds


# --- where a line ends ---


def scan_line(data: bytes, position: int) -> tuple[int, bytes]:
    """Return the end of the line that starts at `position`, and the line: a newline inside quotes belongs to it."""
    start, end = position, len(data)
    quoted = fields = False
    equals = commas = 0
    while position < end:
        byte = data[position]
        if byte == _BACKSLASH:
            position += 2
            continue
        if byte == _SPACE:
            fields = True
        if fields:
            if not quoted and byte == _EQUALS:
                equals += 1
            elif not quoted and byte == _COMMA:
                commas += 1
            elif byte == _QUOTE and equals > commas:
                quoted = not quoted
        if byte == _NEWLINE and not quoted:
            break
        position += 1
    return position, data[start : min(position, end)]


# --- measurement and tags ---


def _scan_key(line: bytes, rules: ParseRules) -> tuple[int, bytes]:
    position, has_tags = _scan_measurement(line)
    if not has_tags:
        return position, line[:position]
    measurement = line[: position - 1]
    tags: list[tuple[bytes, bytes]] = []
    while True:
        start = position
        position = _scan_tag_key(line, position)
        key = line[start : position - 1]
        position, more = _scan_tag_value(line, position)
        tags.append((key, line[start : position - 1] if more else line[start:position]))
        if not more:
            break
    keys = [key for key, _ in tags]
    if rules.reserved_tags:
        for key in keys:
            if key in RESERVED_TAG_KEYS:
                raise LineError(f"cannot use reserved tag key {go_quote(key)}")
    if any(left >= right for left, right in pairwise(keys)):
        tags.sort(key=lambda tag: tag[0])
        if len(set(keys)) != len(keys):
            raise LineError("duplicate tags")
    return position, b",".join((measurement, *(text for _, text in tags)))


def _scan_measurement(line: bytes) -> tuple[int, bool]:
    if not line or line[0] == _COMMA:
        raise LineError("missing measurement")
    position = 0
    while True:
        position += 1
        if position >= len(line):
            raise LineError("missing fields")
        if line[position - 1] == _BACKSLASH:
            continue
        if line[position] == _COMMA:
            return position + 1, True
        if line[position] == _SPACE:
            return position, False


def _scan_tag_key(line: bytes, position: int) -> int:
    if position >= len(line) or line[position] in b" ,=":
        raise LineError("missing tag key")
    while True:
        position += 1
        if position >= len(line) or (line[position] in b" ," and line[position - 1] != _BACKSLASH):
            raise LineError("missing tag value")
        if line[position] == _EQUALS and line[position - 1] != _BACKSLASH:
            return position + 1


def _scan_tag_value(line: bytes, position: int) -> tuple[int, bool]:
    if position >= len(line) or line[position] in b", ":
        raise LineError("missing tag value")
    while True:
        position += 1
        if position >= len(line):
            raise LineError("missing fields")
        if line[position - 1] == _BACKSLASH:
            continue
        if line[position] == _EQUALS:
            raise LineError("invalid tag format")
        if line[position] == _COMMA:
            return position + 1, True
        if line[position] == _SPACE:
            return position, False


# --- fields ---


def _scan_fields(line: bytes, position: int, rules: ParseRules) -> tuple[int, bytes]:
    while position < len(line) and line[position] in b" \t\x00":
        position += 1
    start, end = position, len(line)
    quoted = False
    equals = commas = 0
    while position < end:
        byte = line[position]
        if byte == _BACKSLASH and position + 1 < end:
            position += 2
            continue
        if byte == _QUOTE and equals > commas:
            quoted = not quoted
            position += 1
            continue
        if byte == _EQUALS and not quoted:
            equals += 1
            after = _scan_value(line, position, rules)
            if after is not None:
                position = after
                continue
        if byte == _COMMA and not quoted:
            commas += 1
        if byte == _SPACE and not quoted:
            break
        position += 1
    position = min(position, end)
    if quoted:
        raise LineError("unbalanced quotes")
    if equals == 0 or commas != equals - 1:
        raise LineError("invalid field format")
    return position, line[start:position]


def _scan_value(line: bytes, position: int, rules: ParseRules) -> int | None:
    """Return what follows the `=` at `position`: the end of a number or boolean, None for a quoted string."""
    if line[position - 1] in b" ," and line[position - 2] != _BACKSLASH:
        raise LineError("missing field key")
    if position + 1 >= len(line) or line[position + 1] in b", ":
        raise LineError("missing field value")
    first = line[position + 1]
    if first in b"0123456789.-Nn":
        return _scan_number(line, position + 1, rules)
    if first != _QUOTE:
        return _scan_boolean(line, position + 1)
    return None


def _scan_number(line: bytes, start: int, rules: ParseRules) -> int:
    invalid = LineError("invalid number")
    end = start
    while end < len(line) and line[end] not in b", ":
        end += 1
    text = line[start:end]
    sign = text[:1] == b"-"
    if _NUMBER_BYTES.fullmatch(text) is None or text == b"-" or text.count(b".") > 1:
        raise invalid
    suffixes = [byte for byte in text if byte in b"iu"]
    integer, unsigned = suffixes[:1] == [0x69], suffixes[:1] == [0x75]
    decimal, scientific = b"." in text, any(byte in b"eE" for byte in text)
    if len(suffixes) > 1 or ((integer or unsigned) and (decimal or scientific)):
        raise invalid
    if len(text) - integer - decimal - sign == 0 or (unsigned and not rules.unsigned):
        raise invalid
    if integer or unsigned:
        if text[-1:] not in b"iu" or (unsigned and sign):
            raise invalid
        _check_range(text[:-1], unsigned)
    elif (scientific or len(text) >= 25) and not _is_finite(text):
        raise LineError("invalid float")
    return end


_NUMBER_BYTES = re.compile(rb"-?(?:[0-9.]|(?<=[0-9.eEiu+-])[eEiu]|(?<=[eE])[+-])*")


def _is_finite(text: bytes) -> bool:
    try:
        return not isinf(float(text))
    except ValueError:
        return False


def _check_range(digits: bytes, unsigned: bool) -> None:
    number = int(digits or b"0")
    if unsigned and number > 2**64 - 1:
        words = "value out of range"
        raise LineError(
            f'unable to parse unsigned {_text(digits)}: strconv.ParseUint: parsing "{_text(digits)}": {words}'
        )
    if not unsigned and not INT64_MIN <= number <= INT64_MAX:
        words = "value out of range"
        raise LineError(
            f'unable to parse integer {_text(digits)}: strconv.ParseInt: parsing "{_text(digits)}": {words}'
        )


def _scan_boolean(line: bytes, start: int) -> int:
    position = start + 1
    while position < len(line) and line[position] not in b", ":
        position += 1
    if line[start:position] not in _BOOLEANS:
        raise LineError("invalid boolean")
    return position


def _scan_time(line: bytes, position: int) -> tuple[int, bytes]:
    while position < len(line) and line[position] in b" \t\x00":
        position += 1
    start = position
    while position < len(line) and line[position] not in b"\n ":
        if not (position == start and line[position] == 0x2D) and not 48 <= line[position] <= 57:
            raise LineError("bad timestamp")
        position += 1
    return position, line[start:position]


def _parse_int(digits: bytes) -> int:
    text = _text(digits)
    if text == "-":
        raise LineError('strconv.ParseInt: parsing "-": invalid syntax')
    number = int(text)
    if not INT64_MIN <= number <= INT64_MAX:
        raise LineError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


# --- how the storage engine reads the text ---


def _scan_to(text: bytes, position: int, stop: int) -> int:
    while position < len(text) and not (text[position] == stop and (position == 0 or text[position - 1] != _BACKSLASH)):
        position += 1
    return position


def _scan_field_value(text: bytes, position: int) -> int:
    quoted = False
    while position < len(text):
        byte = text[position]
        if byte == _BACKSLASH and position + 1 < len(text) and text[position + 1] in b'"\\':
            position += 2
            continue
        if byte == _QUOTE:
            quoted = not quoted
        elif byte == _COMMA and not quoted:
            break
        position += 1
    return position


def _walk_fields(text: bytes) -> list[tuple[bytes, bytes]]:
    fields = []
    while text:
        end = _scan_to(text, 0, _EQUALS)
        if end > len(text) - 2:
            raise LineError(f"invalid value: field-key={_text(text[:end])}")
        name, text = text[:end], text[end + 1 :]
        end = _scan_field_value(text, 0)
        fields.append((name, text[:end]))
        text = text[end + 1 :]
    return fields


def read_fields(text: bytes) -> RawFields:
    """Return keys and values of a field set as the storage engine reads them.

    A duplicate key keeps its last value.  With two types it has a `TwoTypes`, which conflicts with every stored type.
    """
    fields: dict[bytes, Value | BrokenValue | TwoTypes] = {}
    position = 0
    while position < len(text):
        end = _scan_to(text, position, _EQUALS)
        key = unescape_name(text[position:end])
        position = _scan_field_value(text, end + 1)
        value = _read_value(text[end + 1 : position])
        position += 1
        if value is None:
            continue
        before = fields.get(key)
        if isinstance(before, TwoTypes):
            continue
        if before is not None and kind_of(before) is not kind_of(value):
            fields[key] = TwoTypes(kind_of(before), kind_of(value))
        else:
            fields[key] = value
    return fields


def kind_of(value: Value | BrokenValue | TwoTypes) -> type:
    """Return the class that represents the type of a value."""
    return value.kind if isinstance(value, BrokenValue) else type(value)


def _read_value(text: bytes) -> Value | BrokenValue | None:
    if not text:
        return None
    if text[:1] == b'"':
        if len(text) < 2:
            raise ServerKilled("slice bounds out of range")
        return unescape_string(text[1:-1])
    if text[:1] in b"0123456789-.nNiIu":
        return _read_number(text)
    boolean = _BOOLEANS.get(text)
    if boolean is None:
        return BrokenValue(
            bool,
            f"unable to parse bool value {go_quote(text)}: strconv.ParseBool: parsing {go_quote(text)}: invalid syntax",
        )
    return boolean


def _read_number(text: bytes) -> Value | BrokenValue:
    try:
        if text[-1:] == b"i":
            return int(text[:-1])
        if text[-1:] == b"u":
            return [int(text[:-1])]
        return float(text)
    except ValueError:
        kind = {b"i": int, b"u": list}.get(text[-1:], float)
        name = {int: "integer", list: "unsigned", float: "float"}[kind]
        call = {int: "ParseInt", list: "ParseUint", float: "ParseFloat"}[kind]
        shown = go_quote(text if kind is float else text[:-1])
        return BrokenValue(
            kind, f"unable to parse {name} value {shown}: strconv.{call}: parsing {shown}: invalid syntax"
        )


def unescape_name(text: bytes) -> bytes:
    """Return a measurement or field key without escapes."""
    return _UNESCAPE_NAME.sub(rb"\1", text) if b"\\" in text else text


def unescape_string(text: bytes) -> bytes:
    """Return the content of a quoted string without escapes."""
    if b"\\" not in text:
        return text
    return re.sub(rb'\\([\\"])', rb"\1", text)


def _unescape_tag(text: bytes) -> bytes:
    for byte in (b",", b" ", b"="):
        text = text.replace(b"\\" + byte, byte)
    return text


def _escape_tag(text: bytes) -> bytes:
    for byte in (b",", b" ", b"="):
        text = text.replace(byte, b"\\" + byte)
    return text


class IndexedSeries(NamedTuple):
    """A series as the index has it.

    `readable` is false if points are stored under another name or key than the index derives: such points are listed
    and never found (a backslash in a measurement).
    """

    measurement: bytes
    tags: tuple[tuple[bytes, bytes], ...]
    readable: bool


def read_series(key: bytes, *, in_memory: bool) -> IndexedSeries:
    """Return measurement and tags of a series key, as the index in memory (1.x) or on disk (2.x) has them."""
    if b"\\" not in key:
        measurement, tags = plain_tags(key) if b"=" in key else (key, ())
        return IndexedSeries(measurement, tags, True)
    end = _scan_to(key, 0, _COMMA)
    measurement = unescape_name(key[:end])
    pairs = _read_tags(key, end + 1)
    if in_memory:
        name = unescape_name(measurement)  # this index unescapes twice, the points only once
        return IndexedSeries(name, pairs, name == measurement)
    made = measurement.replace(b"\\,", b",").replace(b"\\ ", b" ").replace(b",", b"\\,").replace(b" ", b"\\ ")
    made += b"".join(b",%s=%s" % (_escape_tag(name), _escape_tag(value)) for name, value in pairs)
    return IndexedSeries(measurement, pairs, made == key)


def _read_tags(key: bytes, position: int) -> tuple[tuple[bytes, bytes], ...]:
    tags = []
    while position < len(key):
        stop = _scan_to(key, position, _EQUALS)
        name = key[position:stop]
        position = stop + 1
        while position < len(key) and not (key[position] == _COMMA and key[position - 1] != _BACKSLASH):
            position += 1
        tags.append((_unescape_tag(name), _unescape_tag(key[stop + 1 : position])))
        position += 1
    return tuple(tags)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def go_quote(data: bytes) -> str:
    """Return text in double quotes with the escapes of Go's %q."""
    out = ['"']
    for character in data.decode("utf-8", "surrogateescape"):
        point = ord(character)
        if character in '"\\':
            out.append("\\" + character)
        elif character in _GO_ESCAPES:
            out.append(_GO_ESCAPES[character])
        elif 0xDC80 <= point <= 0xDCFF:
            out.append(f"\\x{point - 0xDC00:02x}")
        elif character.isprintable():
            out.append(character)
        elif point < 0x80:
            out.append(f"\\x{point:02x}")
        else:
            out.append(f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}")
    out.append('"')
    return "".join(out)


_GO_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
