"""From a character of a scalar's value to the character of the source that it was written with.

An expression's problem has an offset inside the expression; the author needs the column in his file.  Between the two
stand quotes, escapes, folded lines and indentation.  A value is laid over its source character by character; where
that does not come out even, nothing is claimed.
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
_ESCAPING = {Style.DOUBLE, Style.BASIC, Style.MULTILINE_BASIC}

# A character of the source: where it stands, what it means, and whether it was escaped (and so never folded away).
_Unit = tuple[int, str, bool]


def source_offsets(source: str, style: Style, value: str) -> list[int] | None:
    """For each character of `value` its offset in `source`; None where they can't be laid over each other."""
    if style is Style.COLLECTION:
        return None
    if style is Style.BLOCK:
        first = source.find("\n") + 1
        units = [(offset, source[offset], False) for offset in range(first, len(source))] if first else []
    else:
        quotes = _QUOTES[style]
        units = _units(source, quotes, len(source) - quotes, style)
    return _lay(value, units)


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
        elif character == "'" and style is Style.SINGLE:
            units.append((at, "'", False))
            at += 2
        else:
            units.append((at, character, False))
            at += 1
    return units


def _escape(source: str, at: int) -> tuple[str | None, int]:
    """What the escape at `at` means and its length; None for a continued line, which means nothing."""
    name = source[at + 1 : at + 2]
    digits = _HEX_DIGITS.get(name)
    if digits:
        text = source[at + 2 : at + 2 + digits]
        if _HEX.fullmatch(text) and int(text, 16) < 0x110000:
            return chr(int(text, 16)), 2 + digits
    return _NAMED_ESCAPES.get(name), 2


def _lay(value: str, units: list[_Unit]) -> list[int] | None:
    offsets: list[int] = []
    index = 0
    for character in value:
        if not character.isspace():
            while index < len(units) and not units[index][2] and units[index][1].isspace():
                index += 1
        if index >= len(units):
            if not character.isspace() or not offsets:
                return None
            offsets.append(offsets[-1])  # the line break that a block scalar ends with
            continue
        offset, text, escaped = units[index]
        if text == character:
            index += 1
        elif escaped or not (character.isspace() and (text.isspace() or character in " \n")):
            return None
        offsets.append(offset)
        if text != character and text.isspace():
            index += 1
    return offsets
