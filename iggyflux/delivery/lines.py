"""Lines as delivery sees them: sizes and keys, read without parsing.

Good enough to decide what is sent together; what a line means is the business of `lineprotocol`.
"""

from __future__ import annotations

from collections.abc import Iterable


def line_bytes(line: str) -> int:
    """The size of `line` in UTF-8."""
    return len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))


def point_key(line: str) -> tuple[str, str]:
    """What the server tells points apart by, as it is written: measurement and tags, and the time."""
    end = line.find(" ")
    while end > 0 and line[end - 1] == "\\":  # in every dialect a space after a backslash belongs to the name
        end = line.find(" ", end + 1)
    return line[:end], line[line.rfind(" ") + 1 :]


def is_ignored(line: str) -> bool:
    """Whether servers skip this line without counting it: blank, or a comment."""
    start = line.lstrip(" ")
    return not start or start[0] in "#\n"


def count_collisions(lines: Iterable[str]) -> int:
    """How many of `lines` have the key of an earlier one, and so change its point on the server."""
    seen: set[tuple[str, str]] = set()
    count = 0
    for line in lines:
        key = point_key(line)
        count += key in seen
        seen.add(key)
    return count
