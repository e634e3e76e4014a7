"""Which points a request writes: to count those that overwrite each other, and to keep their order.

A set of its times takes half a megabyte, so it is made where it is needed and not kept.

Two requests in flight may be stored in either order, and the value of a point that both write would depend on chance.
So a request that writes a point of a request in flight waits for it.  Most requests have no time in common; then only
the times are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from iggyflux.delivery.lines import count_overwriting, point_key
from iggyflux.timestamps import PLAUSIBLE_NS

T = TypeVar("T")


class Footprint:
    """The points of one request.

    `times` are those of `lines`, in their unit, if the plan kept them: else they are read from the lines.  A line to
    which the server gives its time has none.
    """

    __slots__ = ("_first", "_last", "_lines", "_points", "_times")

    def __init__(self, lines: Sequence[str], times: Sequence[int] | None = None) -> None:
        self._lines = lines
        self._times = _times_of(lines) if times is None else times
        self._first, self._last = (min(self._times), max(self._times)) if self._times else (0, 0)
        self._points: set[tuple[str, str]] | None = None

    def implausible_times(self, unit_ns: int) -> Sequence[int]:
        """Return the times, one for each line, that are before 1990 or after 2099 in units of `unit_ns`."""
        first, last = PLAUSIBLE_NS.start // unit_ns, (PLAUSIBLE_NS.stop - 1) // unit_ns
        if first <= self._first and self._last <= last:
            return ()
        return [time for time in self._times if not first <= time <= last]

    def times_before(self, first: int) -> Sequence[int]:
        """Return the times, one for each line, that are before `first` in the unit of the lines."""
        return [time for time in self._times if time < first] if self._first < first else ()

    def collisions(self) -> int:
        """Return the number of lines that overwrite a field of an earlier, different line."""
        if len(frozenset(self._times)) == len(self._lines) or len(self._known_points()) == len(self._lines):
            return 0
        return count_overwriting(self._lines)

    def overlapping(self, others: Mapping[T, Footprint]) -> list[T]:
        """Return the keys of the requests that write a point of this one."""
        near = [key for key, other in others.items() if self._first <= other._last and other._first <= self._last]  # noqa: SLF001
        times = frozenset(self._times) if near else frozenset()
        return [key for key in near if self._shares_a_point(others[key], times)]

    def _shares_a_point(self, other: Footprint, times: frozenset[int]) -> bool:
        return not times.isdisjoint(other._times) and not self._known_points().isdisjoint(other._known_points())

    def _known_points(self) -> set[tuple[str, str]]:
        if self._points is None:
            self._points = {
                (line[: line.index(" ")], line[line.rindex(" ") + 1 :]) if "\\" not in line else point_key(line)
                for line in self._lines
            }
        return self._points


def _times_of(lines: Sequence[str]) -> list[int]:
    times = []
    for line in lines:
        with suppress(ValueError):
            times.append(int(line[line.rfind(" ") :]))
    return times
