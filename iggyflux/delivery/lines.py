"""The lines of a request; sizes and point keys of lines, read without parsing.

Enough to decide which lines are sent together; `lineprotocol` parses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from iggyflux import deflate

_FIELD = re.compile(r'((?:\\.|[^\\=])*)=(?:"(?:\\.|[^\\"])*"|[^,]*),?', re.DOTALL)
"""A field of a line, and the comma behind it: a name ends at the first `=` that is not escaped."""


class RequestLines(Sequence[str]):
    """The lines of a request, which may be kept as the compressed body that was sent of them, until they are read.

    A server that takes seconds for a request has many of them in flight, and few lines are read again.
    """

    __slots__ = ("_body", "_count", "_lines")

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines: Sequence[str] | None = lines
        self._count = len(lines)
        self._body = b""

    @property
    def body(self) -> bytes | None:
        """The body of all lines, as gzip, if it was kept."""
        return self._body or None

    @property
    def kept_bytes(self) -> int | None:
        """The size of the body, if it is all that is in memory."""
        return len(self._body) if self._lines is None else None

    def keep(self, body: bytes) -> None:
        """Keep the lines as `body`, the gzip of their text, in which only what is between two is a line feed.

        Any thread may call it.
        """
        self._body = body
        self.drop()

    def drop(self) -> None:
        """Let the lines go again, of which the body is kept."""
        self._lines = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._read()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def _read(self) -> Sequence[str]:
        """Return the lines; they stay in memory until they are kept again."""
        lines = self._lines
        if lines is None:
            lines = self._lines = deflate.decompress(self._body, deflate.GZIP).decode().split("\n")
        return lines


def line_bytes(line: str) -> int:
    """Return the size of `line` in UTF-8."""
    return len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))


def point_key(line: str) -> tuple[str, str]:
    """Return what identifies a point on the server, as written: measurement with tags, and time."""
    end = line.find(" ")
    while end > 0 and line[end - 1] == "\\":  # in every dialect a space after a backslash belongs to the name
        end = line.find(" ", end + 1)
    return line[:end], line[line.rfind(" ") + 1 :]


def field_names(line: str) -> tuple[str, ...]:
    """Return the names of the fields of a line, as written; none if its time is left to the server."""
    start, end = len(point_key(line)[0]) + 1, line.rfind(" ")
    if '"' not in line and "\\" not in line:
        return tuple(field[: field.find("=")] for field in line[start:end].split(",")) if start < end else ()
    names = []
    while start < end and (field := _FIELD.match(line, start, end)):
        names.append(field[1])
        start = field.end()
    return tuple(names)


def count_overwriting(lines: Iterable[str]) -> int:
    """Return how many lines overwrite a field of an earlier, different line of the same point.

    Lines of one point without a field in common do not: the server keeps the fields of both.
    """
    count = 0
    points: dict[tuple[str, str], str | frozenset[str]] = {}
    for line in dict.fromkeys(lines):
        key = point_key(line)
        earlier = points.setdefault(key, line)
        if earlier is not line:
            known = frozenset(field_names(earlier)) if isinstance(earlier, str) else earlier
            names = field_names(line)
            count += not known.isdisjoint(names)
            points[key] = known.union(names)
    return count


def is_ignored(line: str) -> bool:
    """Whether servers skip this line without counting it: it is blank or a comment."""
    start = line.lstrip(" ")
    return not start or start[0] in "#\n"
