"""Which points a request writes: to count those that overwrite each other, and to keep their order.

Two requests in flight may be stored in either order, and the value of a point that both write would depend on chance.
So a request that writes a point of a request in flight waits for it.  Most requests have no time in common; then only
the times are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from iggyflux.delivery.lines import point_key


def _times(lines: Sequence[str]) -> set[str]:
    """Return the times of `lines` as they are written, with the space before them."""
    if not lines:
        return set()
    # Usually all of them have one length: then they are cut off without a search for their beginnings.
    width = len(lines[0]) - lines[0].rfind(" ")
    ends = set(map(itemgetter(slice(-width, None)), lines))
    joined, spaces = "".join(ends), " " * len(ends)
    if len(joined) == width * len(ends) and joined[::width] == spaces and joined.count(" ") == len(ends):
        return ends
    return {line[line.rfind(" ") :] for line in lines}


class Footprint:
    """The points of one request."""

    __slots__ = ("_lines", "_points", "_times")

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._times = _times(lines)
        self._points: set[tuple[str, str]] | None = None

    def collisions(self) -> int:
        """Return the number of lines that overwrite the point of an earlier, different line."""
        if len(self._times) == len(self._lines):
            return 0
        points = self._known_points()
        return 0 if len(points) == len(self._lines) else len(set(self._lines)) - len(points)

    def overlaps(self, other: Footprint) -> bool:
        """Return whether both requests write the same point."""
        if self._times.isdisjoint(other._times):
            return False
        return not self._known_points().isdisjoint(other._known_points())

    def _known_points(self) -> set[tuple[str, str]]:
        if self._points is None:
            self._points = {
                (line[: line.index(" ")], line[line.rindex(" ") + 1 :]) if "\\" not in line else point_key(line)
                for line in self._lines
            }
        return self._points
