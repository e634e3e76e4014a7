"""The content of an archive as records, each of which is the payload of a message.

| format        | a record is                                                                                  |
|---------------|----------------------------------------------------------------------------------------------|
| json          | a line; where the first lines are one document, each document that begins and ends with a line |
| csv           | a row, with the header row of the file before it unless the mapping names the columns         |
| influx        | a line; line feeds in a string are part of it                                                |
| text, others  | a line                                                                                       |
| envelope      | a line                                                                                       |
| any, whole    | the file                                                                                     |

Blank lines are left out.  A splitter reads no further than the end of the record that it yields, and holds no more
than one.  It never drops a line: what it cannot split is a record too, which the plan reports.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Final, Protocol, TypeAlias

from iggyflux.authoring.sample_bytes import SampleError, is_utf16, utf8_of
from iggyflux.authoring.samples import BRACKETS, TOO_LONG, is_json
from iggyflux.lineprotocol import split_lines
from iggyflux.payloads import MAX_PAYLOAD_BYTES, Options, text_encoding

Record: TypeAlias = tuple[int, bytes]
"""The number of its first line, from 1, and its bytes."""

_Held: TypeAlias = tuple[bytes, int, bytes]
"""A line that was taken, its size and its end."""
_BOM: Final = b"\xef\xbb\xbf"
_CHUNK: Final = 1 << 20
_MOST_JOINED: Final = 1 << 20
"""A quote that is open for longer is a fault of its line: that line is then a record, and so is each after it."""


class Content(Protocol):
    """What records are taken of."""

    number: int
    """How many lines, rows or records were taken: what errors count."""

    @property
    def position(self) -> int:
        """The byte after the last one."""

    def sought(self, taken: int) -> tuple[int, int, int]:
        """Return a byte, and the lines and records before it, where reading can begin again; `taken`: records.

        Zeros if it cannot.
        """


class ArchiveLines:
    """The lines of a file without their ends; UTF-16 becomes UTF-8, and a line is never in memory whole if it is long.

    Of a line with more than `limit` bytes, `limit + 1` are kept: enough to see that it is too long.
    """

    def __init__(self, file: IO[bytes], *, limit: int = MAX_PAYLOAD_BYTES, position: int = 0, number: int = 0) -> None:
        """`file` is at byte `position`, after `number` lines."""
        self.position = position
        """The byte after the last line, in the content as it is expanded."""
        self.number = number
        """How many lines were taken."""
        self.is_utf16 = False
        self._file = file
        self._limit = limit
        self.end = b""
        """What ended the last line."""
        self._again: deque[_Held] = deque()
        self._size = 0
        self._unread = b""
        """What was read of a line that is not taken yet."""

    def take(self) -> bytes | None:
        """Return the next line; None at the end."""
        if self._again:
            line, size, self.end = self._again.popleft()
        else:
            line, size = self._read()
            if not size:
                return None
            if not self.position:
                line = line.removeprefix(_BOM)
        self.position += size
        self.number += 1
        self._size = size
        return line

    def sought(self, taken: int) -> tuple[int, int, int]:
        """As of `Content`."""
        return (0, 0, 0) if self.is_utf16 else (self.position, self.number, taken)

    def records(self) -> Iterator[Record]:
        """Yield the lines that are not blank with their numbers: as `take`, at half of the cost."""
        while (line := self.take()) is not None:  # the first one, and each that is long
            if line.strip():
                yield self.number, line
            readline, most = self._file.readline, self._limit + 2
            while line := readline(most):
                if not line.endswith(b"\n"):
                    self._unread = line
                    break
                self.position += len(line)
                self.number += 1
                line = line[: -2 if line.endswith(b"\r\n") else -1]
                if line and not line.isspace():
                    yield self.number, line

    def take_more(self, held: list[_Held]) -> bytes | None:
        """Return the next line and keep it in `held`, for `give_back`; None at the end."""
        line = self.take()
        if line is not None:
            held.append((line, self._size, self.end))
        return line

    def give_back(self, held: list[_Held]) -> None:
        """Take these lines, the last ones that were taken, once more."""
        self._again.extendleft(reversed(held))
        self.position -= sum(size for _, size, _ in held)
        self.number -= len(held)

    def _read(self) -> tuple[bytes, int]:
        """Return a line and the number of bytes that it takes."""
        line, self._unread = self._unread or self._file.readline(self._limit + 2), b""
        if not self.position and is_utf16(line):
            self.is_utf16 = True
            self._file = utf8_of(line, self._file)
            line = self._file.readline(self._limit + 2)
        size = len(line)
        self.end = b"\r\n" if line.endswith(b"\r\n") else b"\n" if line.endswith(b"\n") else b""
        if self.end:
            return line[: -len(self.end)], size
        if size < self._limit + 2:
            return line, size
        while rest := self._file.readline(_CHUNK):  # it may have gigabytes
            size += len(rest)
            if rest.endswith(b"\n"):
                break
        return line[: self._limit + 1], size


class WholeFile:
    """A file as its one record; text is UTF-8 without a mark, as a sample is that is read whole."""

    def __init__(self, file: IO[bytes], *, is_text: bool, limit: int = MAX_PAYLOAD_BYTES) -> None:
        self.position = 0
        self.number = 0
        self._file = file
        self._is_text = is_text
        self._most = limit + 1
        """Of a larger file so much is kept: enough to see that it is too large."""

    def sought(self, _taken: int) -> tuple[int, int, int]:
        """As of `Content`: it is read from its beginning, or not at all."""
        return (0, 0, 0)

    def records(self) -> Iterator[Record]:
        """Yield the file, also an empty one, once it is read to its end.  Raise SampleError if it is damaged."""
        data = self._file.read(self._most)
        self.position = len(data)
        if self._is_text:
            data = utf8_of(data, io.BytesIO()).read(self._most) if is_utf16(data) else data
            data = data.removeprefix(_BOM)
        self.number = 1
        yield 1, data


# --- splitters ---

Splitter: TypeAlias = Callable[[ArchiveLines, Options, bytes], Iterator[Record]]


def _lines(lines: ArchiveLines, _options: Options, _header: bytes) -> Iterator[Record]:
    return lines.records()


def _documents(lines: ArchiveLines, _options: Options, _header: bytes) -> Iterator[Record]:
    """Yield documents that begin and end with a line.  Raise SampleError (IFX503) for one that does not end."""
    while (line := lines.take()) is not None:
        if not line.strip():
            continue
        first, document, depth = lines.number, bytearray(line), _depth(line)
        while depth > 0 and (line := lines.take()) is not None:
            depth += _depth(line)
            document += b"\n" + line
            if len(document) > MAX_PAYLOAD_BYTES:
                hint = "`jq -c '.[]' FILE` writes each element of an array as a line"
                reason = f"the JSON document that begins here does not end within {MAX_PAYLOAD_BYTES:,} bytes"
                raise SampleError(TOO_LONG, reason, first, hint)
        yield first, bytes(document)


def _depth(line: bytes) -> int:
    tokens = BRACKETS.findall(line)
    return sum(token in b"[{" for token in tokens) - sum(token in b"]}" for token in tokens)


def has_documents(lines: ArchiveLines) -> bool:
    """Return whether the first lines are one JSON document, so that the others form documents too.

    Raise SampleError (IFX503) if that does not end.
    """
    while (line := lines.take()) is not None:
        if line.strip():
            if is_json(line) or _depth(line) <= 0:
                return False
            lines.give_back([(line, lines.position, lines.end)])
            return is_json(next(_documents(lines, {}, b""))[1])
    return False


def _rows(lines: ArchiveLines, options: Options, header: bytes) -> Iterator[Record]:
    before = header + b"\n" if header or options.get("skip") else b""
    for number, row in _bare_rows(lines, options):
        yield number, before + row


def _bare_rows(lines: ArchiveLines, options: Options) -> Iterator[Record]:
    encoding = text_encoding(options)
    quote, comment = (
        str(options.get(name, usual)).encode(encoding) for name, usual in (("quote", '"'), ("comment", ""))
    )
    blanks = b" \t" if options.get("trim") is True else b""

    def is_comment(line: bytes) -> bool:
        return bool(comment) and line.lstrip(blanks).startswith(comment)

    def is_odd(line: bytes) -> bool:
        return line.count(quote) % 2 == 1

    rows = _joined(lines, lambda line: is_odd(line) and not is_comment(line), is_odd) if quote else lines.records()
    return rows if not comment else (each for each in rows if not is_comment(each[1]))


def header_of(lines: ArchiveLines, form: str, options: Options) -> bytes:
    """Take what is before the data of a csv file, and return what each row needs before it to be read alone.

    That is the header row, if the mapping does not name the columns, after as many empty lines as the mapping skips,
    and before the row of units.
    """
    if form != "csv":
        return b""
    skip = options.get("skip", 0)
    before = [b""] * (skip if isinstance(skip, int) else 0)
    for _ in before:
        lines.take()
    rows = _bare_rows(lines, options)
    if not isinstance(options.get("header"), list):
        before.append(next(rows, (0, b""))[1])
    if options.get("units_row") is True:
        before.append(next(rows, (0, b""))[1])
    return b"\n".join(before)


_QUOTE_THEN: Final = re.compile(rb'(?:[^"\\]|\\.)*+"', re.DOTALL)
_OPENING: Final = re.compile(rb'="(?:[^"\\]|\\.)*+\\?\Z', re.DOTALL)


def _points(lines: ArchiveLines, _options: Options, _header: bytes) -> Iterator[Record]:
    yield from _joined(lines, _opens_string, _ends_string)


def _opens_string(line: bytes) -> bool:
    """Return whether a string of line protocol goes on in the next line."""
    return b'="' in line and any("\n" in each for _, each in split_lines(line + b"\n"))


def _ends_string(line: bytes) -> bool:
    """Return whether a line that begins in a string does not end in one."""
    closing = _QUOTE_THEN.match(line)
    if closing is None:
        return False
    rest = re.sub(rb'="(?:[^"\\]|\\.)*+"', b"=0", line[closing.end() :])
    return _OPENING.search(rest) is None


def _joined(lines: ArchiveLines, opens: Callable[[bytes], bool], closes: Callable[[bytes], bool]) -> Iterator[Record]:
    """Yield lines, joined while `opens` says that what a line opens is not closed, until `closes` says that it is."""
    while (line := lines.take()) is not None:
        if not line.strip():
            continue
        number = lines.number
        if not opens(line):
            yield number, line
            continue
        held: list[_Held] = []
        size, end = len(line), lines.end
        while (more := lines.take_more(held)) is not None and not closes(more) and size <= _MOST_JOINED:
            size += len(more)
        if more is not None and closes(more):
            *inner, (last, _, _) = held
            yield number, b"".join([line, end, *(part for each, _, after in inner for part in (each, after)), last])
        else:
            lines.give_back(held)
            yield number, line


SPLITTERS: Final[dict[str, Splitter]] = {"csv": _rows, "influx": _points}


def splitter_of(form: str, *, documents: bool) -> Splitter:
    """Return what splits files of payloads of a format; `documents` says that these are over several lines."""
    return _documents if documents else SPLITTERS.get(form, _lines)
