"""Find the numeric type in which each value of a field is stored, where shards store it in several types.

A select casts such a field to one type.  That rounds integers beyond 2^53, makes 7.0 of 7 and -1 of 2^64 - 1.  The
width of shards is not queried: 2.x answers 168h to SHOW RETENTION POLICIES for every bucket, a mapping may name another
bucket, a token may not see it, and existing shards keep their width.  The values show their type, because of two facts:

- One nanosecond lies in one shard, so a select of it returns the stored type.  A select of a longer span returns
  the strongest type of its shards: float before integer before unsigned.
- Servers make no shard group narrower than an hour.  So an hour contains at most one edge.  Where its first and last
  value have one type, all values between them have it too.

Only existing values are queried: an empty span costs one query, a span of integers one more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from iggyflux.records import JSON
from iggyflux.transports.influxdb.query.rows import Spans

NARROWEST_SHARD_NS: Final = 3600 * 10**9

Ask: TypeAlias = Callable[[int, int, bool], "tuple[int, JSON] | None"]
"""A query for the first value of a field in `[start, stop)`, or the last one, with its time; None if there is none."""


class _Find(Protocol):
    """As `Ask`, with the type in place of the value."""

    def __call__(self, start: int, stop: int, *, last: bool = False) -> tuple[int, str] | None: ...


def find_spans(ask: Ask, start: int, stop: int, *, signed: bool) -> Spans:
    """Return the types of a field over `[start, stop)`: `float` and `whole`.

    With `signed` they are `float`, `integer` and `unsigned`.  Then `ask` must return only values that are negative as
    an integer: these differ between the two types.
    """
    spans: list[tuple[int, str]] = []
    weakest = "unsigned" if signed else "whole"

    def find(start: int, stop: int, *, last: bool = False) -> tuple[int, str] | None:
        found = ask(start, stop, last)
        return None if found is None else (found[0], _kind_of(found[1], signed=signed))

    while (found := find(start, stop)) is not None:
        first, strongest = found
        if strongest == weakest:
            spans.append((stop, weakest))
            break
        start = min(first + NARROWEST_SHARD_NS, stop)
        kind = _kind_there(find, first)
        last = find(first, start, last=True)
        if last is not None and _kind_there(find, last[0]) != kind:
            start = _find_edge(find, first, last[0], kind)
        spans.append((start, kind))
    return spans


def _find_edge(find: _Find, low: int, high: int, kind: str) -> int:
    """Return a time after the last value of `kind`, and not after the first one of another kind.

    The value at `low` has that kind, the one at `high` has not, and there is one edge between them.
    """
    while high - low > 1:
        middle = (low + high) // 2
        found = find(low + 1, middle + 1, last=True)
        if found is None or _kind_there(find, found[0]) == kind:
            low = middle
        else:
            high = found[0]
    return high


def _kind_there(find: _Find, time: int) -> str:
    found = find(time, time + 1)
    return found[1] if found is not None else ""


def _kind_of(value: JSON, *, signed: bool) -> str:
    if isinstance(value, float):
        return "float"
    if isinstance(value, bool) or not isinstance(value, int):
        return ""
    if not signed:
        return "whole"
    return "integer" if value < 0 else "unsigned"
