"""Which points a request writes: to count those that overwrite each other, and to keep their order.

Two requests in flight may be stored in either order, and the value of a point that both write would depend on chance.
So a request that writes a point of a request in flight waits for it.  Most requests have no time in common; then only
the times are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from iggyflux.delivery.lines import point_key
from iggyflux.timestamps import PLAUSIBLE_NS


def _times(lines: Sequence[str]) -> tuple[set[str], str]:
    """Return the times of `lines` as they are written, with the space before them; and their first characters.

    The first characters are "" if the times differ in length.
    """
    if not lines:
        return set(), ""
    # Usually all of them have one length: then they are cut off without a search for their beginnings.
    width = len(lines[0]) - lines[0].rfind(" ")
    ends = set(map(itemgetter(slice(-width, None)), lines))
    joined, spaces = "".join(ends), " " * len(ends)
    if len(joined) == width * len(ends) and joined[::width] == spaces and joined.count(" ") == len(ends):
        return ends, joined[1::width]
    return {line[line.rfind(" ") :] for line in lines}, ""


class Footprint:
    """The points of one request."""

    __slots__ = ("_first_digits", "_lines", "_points", "_times", "_width")

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._times, self._first_digits = _times(lines)
        self._width = len(lines[0]) - lines[0].rfind(" ") if self._first_digits else 0
        self._points: set[tuple[str, str]] | None = None

    def implausible_times(self, unit_ns: int) -> Sequence[str]:
        """Return the times, one for each line, that are before 1990 or after 2099 in units of `unit_ns`."""
        first, last = (PLAUSIBLE_NS.start // unit_ns, (PLAUSIBLE_NS.stop - 1) // unit_ns)
        digits = self._first_digits
        is_long = digits and self._width == len(str(last)) + 1
        if is_long and digits.count("1") == len(digits):  # 2001 to 2033: nearly always
            return ()
        return self._lines_at({time for time in self._times if not first <= int(time) <= last})

    def times_before(self, first: int) -> Sequence[str]:
        """Return the times, one for each line, that are before `first` in the unit of the lines."""
        text = f" {first}"
        if first > 0 and self._width == len(text) and "-" not in self._first_digits and min(self._times) >= text:
            return ()  # numbers of one length, in the order of their texts: nearly always
        return self._lines_at({time for time in self._times if int(time) < first})

    def _lines_at(self, times: set[str]) -> Sequence[str]:
        """Return the times of the lines that have one of `times`."""
        return [time for line in self._lines if (time := line[line.rfind(" ") :]) in times] if times else ()

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
