"""Aggregates and selectors of InfluxQL over all rows of a group: without `GROUP BY time`, one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, cast

from iggyflux.sim.plain import Value as Stored
from iggyflux.sim.queries import QueryError, Unsupported
from iggyflux.sim.queries.influxql_statements import Frame, SelectItem
from iggyflux.sim.queries.points import (
    cast_value,
    group_of,
    plain,
    strongest_kind,
    to_key,
    to_text,
    unique_names,
)
from iggyflux.sim.queries.scalars import cast_number, order_key
from iggyflux.sim.store import KIND_NAMES, StoredPoint

SELECTORS = ("min", "max", "first", "last")
_NUMBERS = (float, int, list)
_TAKES: dict[str, tuple[type, ...]] = {
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "min": (*_NUMBERS, bool),
    "max": (*_NUMBERS, bool),
    **dict.fromkeys(("count", "first", "last"), (*_NUMBERS, bool, bytes)),
}
"""The types of fields that each function accepts."""
_Values: TypeAlias = list[tuple[int, Stored]]
"""The values of a field in a group, each with its time."""


class _Aggregate(NamedTuple):
    """A function over one field: the name of its column, the field, and the type to read it as."""

    head: str
    function: str
    key: bytes
    kind: type


def check_items(items: Sequence[SelectItem]) -> None:
    """Raise `QueryError` if fields are selected beside functions."""
    functions = {item.function for item in items}
    if None not in functions or len(functions) == 1:
        return
    if functions <= {None, *SELECTORS}:
        raise Unsupported("a field beside a selector")
    raise QueryError("mixing aggregate and non-aggregate queries is not supported")


def aggregate(
    name: str,
    items: Iterable[SelectItem],
    kinds: Mapping[bytes, set[type]],
    points: Iterable[StoredPoint],
    keys: tuple[str, ...],
    start: int,
) -> Iterator[Frame]:
    """Return a frame of one row for each group.  Raise `QueryError`.

    The time of a row is `start`, or that of the point if one selector is the only item.
    """
    aggregates = [each for item in items for each in _aggregates(item, kinds)]
    heads = ["time", *unique_names([each.head for each in aggregates])]
    is_selector = len(aggregates) == 1 and aggregates[0].function in SELECTORS
    for group, columns in sorted(_collect(aggregates, points, keys).items()):
        results = [_REDUCERS[each.function](column) for each, column in zip(aggregates, columns, strict=True) if column]
        if not results:
            continue
        values = iter(results)
        cells = [next(values)[1] if column else None for column in columns]
        time = results[0][0] if is_selector else max(start, 0)
        yield Frame(name, heads, [[time, *cells]], dict(zip(keys, group, strict=True)))


def _aggregates(item: SelectItem, kinds: Mapping[bytes, set[type]]) -> Iterator[_Aggregate]:
    """Return the functions of an item: `*` means each field that the function accepts."""
    assert item.function is not None  # noqa: S101 (`check_items`)
    if item.name == "*":
        for key in sorted(kinds):
            if (kind := strongest_kind(kinds, key)) in _TAKES[item.function]:
                yield _Aggregate(item.alias or f"{item.function}_{to_text(key)}", item.function, key, kind)
        return
    key = to_key(item.name)
    kind = strongest_kind(kinds, key)
    if kind not in _TAKES[item.function]:
        raise QueryError(f"unsupported {item.function} iterator type: *query.{KIND_NAMES[kind]}InterruptIterator")
    yield _Aggregate(item.alias or item.function, item.function, key, kind)


def _collect(
    aggregates: list[_Aggregate], points: Iterable[StoredPoint], keys: tuple[str, ...]
) -> dict[tuple[str, ...], list[_Values]]:
    """Return the values of each aggregate, group by group."""
    groups: dict[tuple[str, ...], list[_Values]] = {}
    for point in points:
        columns = groups.setdefault(group_of(point, keys), [[] for _ in aggregates])
        for column, each in zip(columns, aggregates, strict=True):
            value = cast_value(point.fields.get(each.key), each.kind)
            if value is not None:
                column.append((point.time, value))
    return groups


def _least(values: _Values) -> tuple[int, Stored]:
    return min(values, key=lambda pair: (order_key(plain(pair[1])), pair[0]))


def _greatest(values: _Values) -> tuple[int, Stored]:
    """Return the greatest value; the earliest of equal ones."""
    return max(values, key=lambda pair: (order_key(plain(pair[1])), -pair[0]))


def _by_time(pair: tuple[int, Stored]) -> int:
    return pair[0]


def _total(values: _Values) -> float | int:
    """Return the sum; integers overflow at 64 bits."""
    total = sum(value[0] if isinstance(value, list) else value for _, value in values)  # type: ignore[misc]
    kind = KIND_NAMES[type(values[0][1])]
    return total if kind == "float" else cast("int", cast_number(total, kind))


def _sum(values: _Values) -> tuple[int, Stored]:
    total = _total(values)
    return 0, [cast("int", total)] if isinstance(values[0][1], list) else total


def _mean(values: _Values) -> tuple[int, Stored]:
    return 0, float(_total(values)) / len(values)


_REDUCERS: dict[str, Callable[[_Values], tuple[int, Stored]]] = {
    "count": lambda values: (0, len(values)),
    "sum": _sum,
    "mean": _mean,
    "min": _least,
    "max": _greatest,
    "first": lambda values: min(values, key=_by_time),
    "last": lambda values: max(values, key=_by_time),
}
