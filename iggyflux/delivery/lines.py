"""Sizes and point keys of lines, read without parsing.

Enough to decide which lines are sent together; `lineprotocol` parses.
"""

from __future__ import annotations


def line_bytes(line: str) -> int:
    """Return the size of `line` in UTF-8."""
    return len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))


def point_key(line: str) -> tuple[str, str]:
    """Return what identifies a point on the server, as written: measurement with tags, and time."""
    end = line.find(" ")
    while end > 0 and line[end - 1] == "\\":  # in every dialect a space after a backslash belongs to the name
        end = line.find(" ", end + 1)
    return line[:end], line[line.rfind(" ") + 1 :]


def is_ignored(line: str) -> bool:
    """Whether servers skip this line without counting it: it is blank or a comment."""
    start = line.lstrip(" ")
    return not start or start[0] in "#\n"
