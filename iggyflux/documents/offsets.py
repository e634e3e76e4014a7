"""The map from a character of a scalar's value to the character of the source that it was written with.

A problem of an expression has an offset inside the expression; the author needs a column of the file.  Between the two
are quotes, escapes, folded lines and indentation.  A value is aligned with its source character by character; if they
do not match, no offset is claimed.
"""

from __future__ import annotations

import re
from enum import Enum


class Style(Enum):
    """How a value is written."""

    COLLECTION = "collection"
    PLAIN = "plain"
    SINGLE = "single"
    DOUBLE = "double"
    BLOCK = "block"
    BASIC = "basic"
    LITERAL = "literal"
    MULTILINE_BASIC = "multiline basic"
    MULTILINE_LITERAL = "multiline literal"


_NAMED_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "\t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b",
    " ": " ", '"': '"', "/": "/", "\\": "\\", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_QUOTES = {
    Style.PLAIN: 0,
    Style.SINGLE: 1,
    Style.DOUBLE: 1,
    Style.BASIC: 1,
    Style.LITERAL: 1,
    Style.MULTILINE_BASIC: 3,
    Style.MULTILINE_LITERAL: 3,
}
_MULTILINE = {Style.MULTILINE_BASIC, Style.MULTILINE_LITERAL}
_CONTINUED = {Style.DOUBLE: " \t", Style.MULTILINE_BASIC: " \t\n"}
"""Characters that mean nothing after a backslash at the end of a line."""
_ESCAPING = {Style.DOUBLE, Style.BASIC, Style.MULTILINE_BASIC}

# A character of the source: its offset, what it means, and whether it was escaped (and so never folded).
_Unit = tuple[int, str, bool]


def source_offsets(source: str, style: Style, value: str) -> list[int] | None:
    """Return the offset in `source` of each character of `value`; None if the two cannot be aligned."""
    if style is Style.COLLECTION:
        return None
    if style is Style.BLOCK:
        first = source.find("\n") + 1
        units = [(offset, source[offset], False) for offset in range(first, len(source))] if first else []
    else:
        quotes = _QUOTES[style]
        trimmed = style in _MULTILINE and source.startswith("\n", quotes)  # TOML ignores a line break after the quotes
        units = _units(source, quotes + trimmed, len(source) - quotes, style)
    return _align(value, units)


def escape_length(source: str, at: int, style: Style) -> int:
    """Return the number of characters in `source` that write the character at `at`, in a scalar of `style`."""
    if style is Style.SINGLE and source.startswith("''", at):
        return 2
    return _escape(source, at)[1] if style in _ESCAPING and source[at] == "\\" else 1


def _units(source: str, start: int, end: int, style: Style) -> list[_Unit]:
    units: list[_Unit] = []
    at = start
    while at < end:
        character = source[at]
        if character == "\\" and style in _ESCAPING:
            text, length = _escape(source, at)
            if text is not None:
                units.append((at, text, True))
            at += length
            while text is None and at < end and source[at] in _CONTINUED.get(style, ""):
                at += 1
        elif character == "'" and style is Style.SINGLE:
            units.append((at, "'", False))
            at += 2
        else:
            units.append((at, character, False))
            at += 1
    return units


def _escape(source: str, at: int) -> tuple[str | None, int]:
    """Return what the escape at `at` means, and its length; None for a continued line, which means nothing."""
    pair = _PAIR.match(source, at)
    if pair is not None:  # as JSON writes characters beyond U+FFFF
        return (chr(int(pair[1], 16)) + chr(int(pair[2], 16))).encode("utf-16", "surrogatepass").decode("utf-16"), 12
    name = source[at + 1 : at + 2]
    digits = _HEX_DIGITS.get(name)
    if digits:
        text = source[at + 2 : at + 2 + digits]
        if _HEX.fullmatch(text) and int(text, 16) < 0x110000:
            return chr(int(text, 16)), 2 + digits
    return _NAMED_ESCAPES.get(name), 2


def _align(value: str, units: list[_Unit]) -> list[int] | None:
    """Return the offsets of the units for the characters of `value`; folded space is skipped."""
    offsets: list[int] = []
    index = 0
    for character in value:
        folded = character in " \n"  # what folding makes of line breaks and the space around them
        while index < len(units) and units[index][1] != character and _is_loose(units[index]) and not folded:
            index += 1
        if index >= len(units):
            if not folded or not offsets:
                return None
            offsets.append(offsets[-1])  # the line break at the end of a block scalar
            continue
        offset, text, _ = units[index]
        if text == character or (folded and _is_loose(units[index])):
            index += 1
        elif not folded:
            return None
        offsets.append(offset)
    return offsets


def _is_loose(unit: _Unit) -> bool:
    return unit[1].isspace() and not unit[2]
