"""The plain form of line protocol, parsed fast; other lines go to the dialect's own parser.

Only text that every server reads in the same way has the plain form: no backslash in a measurement, no control
character outside strings, numbers whose length keeps them in range.  So both parsers agree on a line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "float | int | bool | bytes | list[int]"
"""A stored field value: `bytes` is a string, `[n]` an unsigned integer (so that the class of a value is its type)."""

Fields: TypeAlias = dict[bytes, Value]


@dataclass(frozen=True, slots=True)
class BrokenValue:
    """A field value that passes a server's parser and always fails in its storage engine, with a 500."""

    kind: type
    reason: str


@dataclass(frozen=True, slots=True)
class TwoTypes:
    """A field that one line has in two types, in this order."""

    first: type
    second: type


RawFields: TypeAlias = "Mapping[bytes, Value | BrokenValue | TwoTypes]"
"""Fields as a parser of 1.x and 2.x returns them; only plain values are stored."""

Parsed: TypeAlias = tuple[bytes, RawFields, int | None]
"""One line: the text of its series as sent, its fields, its time in units of the request's precision."""

LONGEST = 65_000
"""Bytes of fields above which a limit of some dialect may apply: then the dialect's own parser decides."""

_REST = rb"[^\x00-\x20,=\\\"\x7f]"
_KEY = rb"%s++(?:\\[, =]%s*+)*+" % (_REST, _REST)
_NUMBER = rb"-?[0-9]++(?:[iu]|(?:\.[0-9]++)?(?:[eE][+-]?[0-9]{1,2}+)?)"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_BOOLEAN = rb"(?:t(?:rue)?|T(?:rue|RUE)?|f(?:alse)?|F(?:alse|ALSE)?)"
_FIELD = rb"%s=(?:%s|%s|%s)" % (_KEY, _NUMBER, _STRING, _BOOLEAN)
# A possessive group lets pass what is not whole before Python 3.11.4: no group of several parts is possessive.
LINE = re.compile(
    rb"([^\x00-\x20,=\\\"#\x7f]%s*+(?:,%s=%s)*) (%s(?:,%s)*)(?: (-?[0-9]{1,19}+))?(?:\n|\Z)"
    % (_REST, _KEY, _KEY, _FIELD, _FIELD),
    re.DOTALL,
)
_ONE_FIELD = re.compile(
    rb"(%s)=(?:(-?[0-9][0-9.eE+-]*+)([iu])?+|\"((?:[^\"\\]++|\\.)*+)\"|([a-zA-Z]++))" % _KEY, re.DOTALL
)
_ESCAPED = re.compile(rb"\\([, =])")
_ESCAPED_IN_STRING = re.compile(rb'\\([\\"])')
_INFINITE = (float("inf"), float("-inf"))
_MINIMA = {b"i": -(2**63), b"u": 0}
_MAXIMA = {b"i": 2**63 - 1, b"u": 2**64 - 1}
_TRUE = frozenset((b"t", b"T", b"true", b"True", b"TRUE"))


def unescape_key(text: bytes) -> bytes:
    """Return a tag key, tag value or field key of the plain form without escapes."""
    return _ESCAPED.sub(rb"\1", text) if b"\\" in text else text


def unescape_string(text: bytes) -> bytes:
    """Return the content of a quoted string: only `\\"` and `\\\\` are escapes, in every dialect."""
    return _ESCAPED_IN_STRING.sub(rb"\1", text) if b"\\" in text else text


def plain_fields(text: bytes) -> Fields | None:
    """Return the fields of a line that `LINE` matched; None at an overflow, a duplicate key or near a limit."""
    if len(text) > LONGEST:
        return None
    fields: Fields = {}
    found = _ONE_FIELD.findall(text)
    for key, number, suffix, string, boolean in found:
        if b"\\" in key:
            key = unescape_key(key)
        if number:
            if not suffix:
                fields[key] = value = float(number)
                if value in _INFINITE:
                    return None
            elif not _MINIMA[suffix] <= (integer := int(number)) <= _MAXIMA[suffix]:
                return None
            else:
                fields[key] = integer if suffix == b"i" else [integer]
        elif boolean:
            fields[key] = boolean in _TRUE
        else:
            fields[key] = unescape_string(string)
    return fields if len(fields) == len(found) else None


def plain_tags(series: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return measurement and tags, unchanged, of a series that `LINE` matched."""
    if b"\\" not in series:
        measurement, *tags = series.split(b",")
        pairs = tuple(tuple(tag.split(b"=")) for tag in tags)
        return measurement, pairs  # type: ignore[return-value]  # LINE ensures that each has two parts
    measurement, _, rest = series.partition(b",")
    found = re.findall(rb"(%s)=(%s)(?:,|\Z)" % (_KEY, _KEY), rest)
    return measurement, tuple((unescape_key(key), unescape_key(value)) for key, value in found)
