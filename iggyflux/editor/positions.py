"""Offsets in the text of a document, and lines and columns as editors count them."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final, Literal

Encoding = Literal["utf-8", "utf-16", "utf-32"]
"""What a column counts: bytes, UTF-16 code units, or characters."""

_BREAK: Final = re.compile("\r\n|\n|\r")
_UNIT_BYTES: Final = {"utf-8": 1, "utf-16": 2, "utf-32": 4}


class Positions:
    """The places of one text; `plain` is the text with a line feed for each line break, which offsets count."""

    def __init__(self, text: str, encoding: Encoding = "utf-16") -> None:
        self.plain = _BREAK.sub("\n", text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"))
        self._encoding: Encoding = encoding
        self._is_ascii = self.plain.isascii()
        self._starts = [0, *(match.end() for match in re.finditer("\n", self.plain))]

    def offset(self, line: int, column: int) -> int:
        """Return the offset of a line and a column, both from 0; a column beyond the line is its end."""
        if line >= len(self._starts):
            return len(self.plain)
        start = self._starts[line]
        content = self.plain[start : self._end(line)]
        if content.isascii():
            return start + min(column, len(content))
        size = _UNIT_BYTES[self._encoding]
        units = content.encode(self._codec, "surrogatepass")[: column * size]
        return start + len(units.decode(self._codec, "ignore"))

    def position(self, offset: int) -> tuple[int, int]:
        """Return the line and the column of an offset, both from 0."""
        offset = min(max(offset, 0), len(self.plain))
        line = bisect_right(self._starts, offset) - 1
        before = self.plain[self._starts[line] : offset]
        if before.isascii():
            return line, len(before)
        return line, len(before.encode(self._codec, "surrogatepass")) // _UNIT_BYTES[self._encoding]

    def units(self, offset: int) -> int:
        """Return an offset as a number of units of the encoding from the start of the text."""
        before = self.plain[:offset]
        if self._is_ascii:
            return len(before)
        return len(before.encode(self._codec, "surrogatepass")) // _UNIT_BYTES[self._encoding]

    def offset_of_units(self, units: int) -> int:
        """Return the offset of a number of units; beyond the text it is its end, inside a character its start."""
        if self._is_ascii:
            return min(max(units, 0), len(self.plain))
        data = self.plain.encode(self._codec, "surrogatepass")[: max(units, 0) * _UNIT_BYTES[self._encoding]]
        return len(data.decode(self._codec, "ignore"))

    def span(self, line: int, column: int, length: int) -> tuple[int, int]:
        """Return the offsets of `length` characters from a place that counts from 1, as places of problems do.

        At least one character, and none beyond the text; a place of line 0 is unknown, and the start of the text.
        """
        if not line:
            return 0, 0
        start = min(self.start_of_line(line - 1) + column - 1, len(self.plain))
        return start, min(start + max(length, 1), len(self.plain))

    def start_of_line(self, line: int) -> int:
        """Return the offset of the first character of a line, from 0."""
        return self._starts[min(line, len(self._starts) - 1)]

    @property
    def _codec(self) -> str:
        return "utf-8" if self._encoding == "utf-8" else f"{self._encoding}-le"

    def _end(self, line: int) -> int:
        return self._starts[line + 1] - 1 if line + 1 < len(self._starts) else len(self.plain)
