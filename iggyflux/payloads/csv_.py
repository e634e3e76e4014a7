"""csv: rows of strings (RFC 4180), always a list of objects; the document or the first row names their keys.

A regular expression reads it, not the csv module: that module has a process-wide limit on the length of a cell, and
accepts malformed text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from iggyflux.errors import DecodeError, PartlyDecoded, counted
from iggyflux.payloads.format import (
    BAD_TABLE,
    Format,
    OptionError,
    Options,
    decode_text,
    duplicate_key,
    encode_text,
    line_counter,
    not_encodable,
    text_encoding,
)
from iggyflux.reads import Reads
from iggyflux.records import JSON

_MOST_ERRORS = 100
"""The most rows with a wrong number of cells that have an error of their own."""


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:
    """Return an object of strings for each row; blank lines are omitted.

    Without the option `header` the first row has the names, and a byte order mark before it is ignored.  Raise
    PartlyDecoded for rows that do not have as many cells as names, and for a misplaced quote, after which no row is
    read.
    """
    text = decode_text(payload, options)
    errors: list[DecodeError] = []
    header, rows = _header_and_rows(text, options, errors)
    _check_names(header, Reads.WHOLE if strict or reads is None or reads.whole else reads.items)
    table: list[JSON] = []
    width, ragged = len(header), 0
    line_at = line_counter(text)
    for start, cells in rows:
        if len(cells) == width:
            table.append(dict(zip(header, cells, strict=True)))
            continue
        ragged += 1
        if ragged <= _MOST_ERRORS:
            has, expected = counted(len(cells), "cell"), counted(width, "column")
            reason = f"the row has {has}, but the header has {expected}"
            errors.append(DecodeError(BAD_TABLE, reason, payload_line=line_at(start)))
    if ragged > _MOST_ERRORS:
        more = counted(ragged - _MOST_ERRORS, "more row")
        errors.append(DecodeError(BAD_TABLE, f"{more} without a cell for each column"))
    if errors:
        raise PartlyDecoded(table, errors)
    return table


def row_lines(payload: bytes, options: Options) -> list[int]:
    """Return the line of the payload at which each row begins that `decode` returns."""
    text = decode_text(payload, options)
    header, rows = _header_and_rows(text, options, [])
    line_at = line_counter(text)
    return [line_at(start) for start, cells in rows if len(cells) == len(header)]


def _header_and_rows(
    text: str, options: Options, errors: list[DecodeError]
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the names of the columns, and the rows below as `_rows` yields them.  Raise DecodeError without names."""
    header = _header(options)
    rows = _rows(text, options, errors)
    if header is None:
        header = next(rows, (0, []))[1]
        if errors:
            raise errors[0]
        if not header:
            raise DecodeError(BAD_TABLE, "missing header row")
    if options.get("units_row"):
        next(rows, None)
    return header, rows


def _check_names(header: Iterable[str], read: Reads | None) -> None:
    """Raise DecodeError for a name that is there twice, and that `read` has."""
    seen: set[str] = set()
    for name in header:
        is_duplicate = name in seen
        seen.add(name)
        if is_duplicate and read is not None and (read.whole or name in read.keys):
            raise duplicate_key(name)


def encode(value: JSON, options: Options | None = None) -> bytes:
    """Return the text of rows of scalars, or of the one row `value`.

    The names come first unless the option `header` gives them.
    """
    options = options or {}
    rows = value if isinstance(value, list) else [value]
    header = _header(options)
    skip = options.get("skip", 0)
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
    if header is None:
        raise not_encodable("csv", "at least one row, or the option header", value)
    if options.get("units_row"):
        lines.insert(0 if "header" in options else 1, [None] * len(header))
    text = "\n" * (skip if isinstance(skip, int) else 0) + "".join(_line(line, options) for line in lines)
    return encode_text(text, "csv", options)


def check(options: Options) -> None:
    """Raise OptionError unless delimiter and quote are two different characters, and the names in the header differ."""
    delimiter, quote = _delimiter(options), _quote(options)
    if len(delimiter) != 1 or delimiter in "\r\n":
        raise OptionError(f"expected one character as delimiter, found {delimiter!r}", "delimiter")
    if len(quote) > 1 or quote in ("\r", "\n"):
        raise OptionError(f"expected one character or none as quote, found {quote!r}", "quote")
    if delimiter == quote:
        raise OptionError("delimiter and quote are the same", "quote")
    comment = str(options.get("comment", ""))
    if comment and (comment[0] in (delimiter, quote) or set(comment) & set("\r\n")):
        raise OptionError("a comment cannot begin with the delimiter or the quote, or have a line end", "comment")
    encoding = text_encoding(options)
    for name, text in (("delimiter", delimiter), ("quote", quote), ("comment", comment)):
        if text != text.encode(encoding, "replace").decode(encoding):
            raise OptionError(f"{encoding} has no {text!r}", name)
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
def _patterns(delimiter: str, quote: str, comment: str, trim: bool) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    """Return the pattern of one cell, quoted (group 1) or bare (group 2), and of what ends it (group 3), and the
    pattern of a line that is omitted.
    """
    d, q, c = re.escape(delimiter), re.escape(quote), re.escape(comment)
    blank = "".join(each for each in _BLANKS if each not in (delimiter, quote)) if trim else ""
    blank = f"[{blank}]*+" if blank else ""
    quoted = f"{q}([^{q}]*+(?:{q}{q}[^{q}]*+)*+){q}" if quote else "(?!)()"
    end = r"\r\n|\n|\r|\Z"
    cell = re.compile(rf"(?:{blank}{quoted}{blank}|([^{q}{d}\r\n]*+))({d}|{end})")
    omitted = [rf"{c}[^\r\n]*+"] * bool(comment) + [r"(?=[\r\n]|\Z)"] * trim
    return cell, re.compile(rf"{blank}(?:{'|'.join(omitted)})(?:{end})") if omitted else None


_LINE = re.compile(r"[^\r\n]*+(?:\r\n|\n|\r|\Z)")


def _rows(text: str, options: Options, errors: list[DecodeError]) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with its place in the text; after a misplaced quote add to `errors`, and end."""
    delimiter, quote, trim = _delimiter(options), _quote(options), options.get("trim") is True
    cell, omitted = _patterns(delimiter, quote, str(options.get("comment", "")), trim)
    blanks = _BLANKS.replace(delimiter, "")
    match = cell.match
    has_mark = _header(options) is None and text.startswith("\ufeff")
    position, length = int(has_mark), len(text)
    skip = options.get("skip", 0)
    for _ in range(skip if isinstance(skip, int) else 0):
        position = _end_of(_LINE, text, position)
    while position < length:
        start = position
        if omitted is not None and (found := omitted.match(text, position)):
            position = found.end()
            continue
        cells: list[str] = []
        while True:
            found = match(text, position)
            if found is None:
                line = line_counter(text)(position)
                errors.append(
                    DecodeError(
                        BAD_TABLE, "a misplaced or unclosed quote, after which no row is read", payload_line=line
                    )
                )
                return
            quoted, bare, end = found.groups()
            if quoted is not None:
                cells.append(quoted.replace(quote * 2, quote))
            else:
                cells.append(bare.strip(blanks) if trim else bare)
            position = found.end()
            if end != delimiter:
                break
        if position - start > len(end):
            yield start, cells


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return len(text) if found is None else found.end()


def _line(cells: list[JSON], options: Options) -> str:
    """Return a row; if it would be a blank line, its empty cell is in quotes."""
    comment = str(options.get("comment", ""))
    texts = [_cell(cell, comment if number == 0 else "", options) for number, cell in enumerate(cells)]
    return (_delimiter(options).join(texts) or _quote(options) * 2) + "\n"


def _cell(value: JSON, comment: str, options: Options) -> str:
    """Return a cell, in quotes where it must; `comment` is what it must not begin with."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        raise not_encodable("csv", "scalars in its cells", value)
    text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
    if isinstance(value, float) and options.get("decimal") == ",":
        text = text.replace(".", ",")
    delimiter, quote = _delimiter(options), _quote(options)
    is_special = any(special in text for special in (delimiter, quote or delimiter, "\r", "\n"))
    is_trimmed = options.get("trim") is True and text != text.strip(_BLANKS)
    if text and not is_special and not is_trimmed and not (comment and text.startswith(comment)):
        return text
    if not quote:
        raise not_encodable("csv", "a quote for such a cell", value)
    return quote + text.replace(quote, quote * 2) + quote


_BLANKS = " \t"

FORMAT = Format(decode, encode, check=check, row_lines=row_lines)
