"""csv: rows of strings (RFC 4180), always a list of objects; the document or the first row names their keys.

A regular expression reads it, not the csv module: that module has a process-wide limit on the length of a cell, and
accepts malformed text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from iggyflux.errors import DecodeError, counted
from iggyflux.payloads.format import (
    BAD_TABLE,
    Format,
    OptionError,
    Options,
    decode_utf8,
    duplicate_key,
    encode_utf8,
    not_encodable,
)
from iggyflux.reads import Reads
from iggyflux.records import JSON


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:
    """Return an object of strings for each row; blank lines are omitted.

    Without the option `header` the first row has the names, and a byte order mark before it is ignored.
    """
    text = decode_utf8(payload)
    header = _header(options)
    rows = _rows(text.removeprefix("\ufeff") if header is None else text, _delimiter(options), _quote(options))
    if header is None:
        header = next(rows, (0, []))[1]
        if not header:
            raise DecodeError(BAD_TABLE, "missing header row")
    rows_read = Reads.WHOLE if strict or reads is None or reads.whole else reads.items
    seen: set[str] = set()
    for name in header:
        is_duplicate = name in seen
        seen.add(name)
        if is_duplicate and rows_read is not None and (rows_read.whole or name in rows_read.keys):
            raise duplicate_key(name)
    table: list[JSON] = []
    for line, cells in rows:
        if len(cells) != len(header):
            reason = (
                f"line {line} has {counted(len(cells), 'cell')}, but the header has {counted(len(header), 'column')}"
            )
            raise DecodeError(BAD_TABLE, reason)
        row: dict[str, JSON] = dict(zip(header, cells, strict=True))
        table.append(row)
    return table


def encode(value: JSON, options: Options | None = None) -> bytes:
    """Return the text of rows of scalars, or of the one row `value`.

    The names come first unless the option `header` gives them.
    """
    options = options or {}
    rows = value if isinstance(value, list) else [value]
    header = _header(options)
    lines: list[list[JSON]] = []
    for row in rows:
        if not isinstance(row, dict):
            raise not_encodable("csv", "an object, or a list of objects", row)
        if header is None:
            header = list(row)
            lines.append(list(header))
        if not row.keys() <= set(header):
            raise not_encodable("csv", f"rows with the columns {', '.join(header)}", row)
        lines.append([row.get(name) for name in header])
    delimiter, quote = _delimiter(options), _quote(options)
    text = "".join(_line([_cell(cell, delimiter, quote) for cell in line], delimiter, quote) for line in lines)
    return encode_utf8(text, "csv")


def check(options: Options) -> None:
    """Raise OptionError unless delimiter and quote are two different characters, and the names in the header differ."""
    delimiter, quote = _delimiter(options), _quote(options)
    if len(delimiter) != 1 or delimiter in "\r\n":
        raise OptionError(f"expected one character as delimiter, found {delimiter!r}", "delimiter")
    if len(quote) > 1 or quote in ("\r", "\n"):
        raise OptionError(f"expected one character or none as quote, found {quote!r}", "quote")
    if delimiter == quote:
        raise OptionError("delimiter and quote are the same", "quote")
    header = _header(options)
    if header is not None and (not header or len(set(header)) != len(header)):
        raise OptionError("expected at least one column in the header, and no duplicates", "header")


def _header(options: Options) -> list[str] | None:
    header = options.get("header")
    return [str(name) for name in header] if isinstance(header, list) else None


def _delimiter(options: Options) -> str:
    return str(options.get("delimiter", ","))


def _quote(options: Options) -> str:
    return str(options.get("quote", '"'))


@lru_cache(maxsize=32)
def _cell_pattern(delimiter: str, quote: str) -> re.Pattern[str]:
    """Return the pattern of one cell, quoted (group 1) or bare (group 2), and of what ends it (group 3)."""
    d, q = re.escape(delimiter), re.escape(quote)
    quoted = f"{q}([^{q}]*+(?:{q}{q}[^{q}]*+)*+){q}" if quote else "(?!)()"
    return re.compile(rf"(?:{quoted}|([^{q}{d}\r\n]*+))({d}|\r\n|\n|\r|\Z)")


def _rows(text: str, delimiter: str, quote: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of its first line."""
    match = _cell_pattern(delimiter, quote).match
    line, position, length = 1, 0, len(text)
    while position < length:
        start = position
        cells: list[str] = []
        while True:
            found = match(text, position)
            if found is None:
                line += text.count("\n", start, position)
                raise DecodeError(BAD_TABLE, f"line {line} has a misplaced or unclosed quote")
            quoted, bare, end = found.groups()
            cells.append(bare if quoted is None else quoted.replace(quote * 2, quote))
            position = found.end()
            if end != delimiter:
                break
        if position - start > len(end):
            yield line, cells
        line += text.count("\n", start, position) or 1


def _line(cells: list[str], delimiter: str, quote: str) -> str:
    """Return a row; if it would be a blank line, its empty cell is in quotes."""
    return (delimiter.join(cells) or quote * 2) + "\n"


def _cell(value: JSON, delimiter: str, quote: str) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        raise not_encodable("csv", "scalars in its cells", value)
    text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
    if text and not any(special in text for special in (delimiter, quote or delimiter, "\r", "\n")):
        return text
    if not quote:
        raise not_encodable("csv", "a quote for such a cell", value)
    return quote + text.replace(quote, quote * 2) + quote


FORMAT = Format(decode, encode, check=check)
