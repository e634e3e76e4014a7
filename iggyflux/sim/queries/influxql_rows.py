"""SELECT of InfluxQL: the measurements that a statement reads, and their stored rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple, TypeAlias, cast

from iggyflux.sim.queries import NotFound, QueryError
from iggyflux.sim.queries.influxql_aggregates import aggregate, check_items
from iggyflux.sim.queries.influxql_conditions import compile_condition, split_time
from iggyflux.sim.queries.influxql_statements import Frame, MeasurementSource, Select, SelectItem
from iggyflux.sim.queries.points import (
    cast_value,
    group_of,
    read_points,
    strongest_kind,
    tag_names,
    to_key,
    to_text,
    unique_names,
)
from iggyflux.sim.queries.tokens import compile_pattern
from iggyflux.sim.shards import ZERO_TIME_NS
from iggyflux.sim.store import Database, Measurement, RetentionPolicy, Store, StoredPoint

_CAST_KINDS = {"float": float, "integer": int, "unsigned": list, "string": bytes, "boolean": bool}
_Rows: TypeAlias = Iterator[tuple[StoredPoint, Sequence[object]]]


def run_select(store: Store, select: Select, database: str, policy: str) -> Iterator[Frame]:
    """Return the frames of a select.  Raise `QueryError`, before the first frame if possible."""
    if isinstance(select.source, Select):
        return _in_order_of_time(select, list(run_select(store, select.source, database, policy)))
    owner = database_of(store, select.source.database or database)
    place = owner.policy(select.source.policy or policy)
    if place is None:
        raise QueryError(f"retention policy not found: {select.source.policy or policy}")
    check_items(select.items)
    measurements = sorted(find_measurements(place, select.source), key=lambda each: each.name)
    frames = (frame for measurement in measurements for frame in _select_from(store, select, measurement))
    first = next(frames, None)  # faults of a statement are found here, before anything was sent
    return iter(()) if first is None else chain((first,), frames)


def _in_order_of_time(select: Select, frames: list[Frame]) -> Iterator[Frame]:
    """Return all rows of another select as one frame."""
    if not frames:
        return iter(())
    rows = sorted((row for frame in frames for row in frame.rows), key=lambda row: cast("int", row[0]))
    return iter((Frame(frames[0].name, frames[0].columns, list(_cut(iter(rows), select))),))


def database_of(store: Store, name: str) -> Database:
    """Return a database by its name.  Raise `QueryError`."""
    if not name:
        raise QueryError("database name required")
    if name not in store.databases:
        raise NotFound(f"database not found: {name}", name)
    return store.databases[name]


def find_measurements(policy: RetentionPolicy, source: MeasurementSource | None) -> list[Measurement]:
    """Return the measurements of a policy that a source names; without a source all of them."""
    if source is None:
        return list(policy.measurements.values())
    if not source.is_pattern:
        found = policy.measurements.get(to_key(source.name))
        return [found] if found is not None else []
    has_match = compile_pattern(source.name)
    return [measurement for name, measurement in policy.measurements.items() if has_match(to_text(name))]


def _select_from(store: Store, select: Select, measurement: Measurement) -> Iterator[Frame]:
    tags = tag_names(measurement)
    start, stop, rest = split_time(select.condition)
    grouped = tuple(sorted(tags)) if select.group == ("*",) else select.group
    is_wanted = compile_condition(rest, tags)
    points = read_points(store, measurement, (start, stop), is_wanted, descending=select.descending)
    name = to_text(measurement.name)
    if any(item.function for item in select.items):
        yield from aggregate(name, select.items, measurement.kinds(), points, grouped or (), start)
        return
    kinds = measurement.kinds(_shards(measurement, start, stop))
    columns = [column for item in select.items for column in _columns(item, tags, grouped or (), kinds)]
    if not any(column.is_field for column in columns):
        return
    heads = ["time", *unique_names([column.name for column in columns])]
    rows = _rows(points, columns)
    if grouped is not None:
        yield from _grouped(name, heads, rows, grouped, select)
        return
    cut = _cut((row for _, row in rows), select)
    first = next(cut, None)
    if first is not None:
        yield Frame(name, heads, chain((first,), cut))


def _grouped(name: str, heads: list[str], rows: _Rows, keys: tuple[str, ...], select: Select) -> Iterator[Frame]:
    groups: dict[tuple[str, ...], list[Sequence[object]]] = {}
    for point, row in rows:
        groups.setdefault(group_of(point, keys), []).append(row)
    for group in sorted(groups):
        kept = list(_cut(iter(groups[group]), select))
        if kept:
            yield Frame(name, heads, kept, dict(zip(keys, group, strict=True)))


def _cut(rows: Iterator[Sequence[object]], select: Select) -> Iterator[Sequence[object]]:
    return islice(rows, select.offset, select.offset + select.limit if select.limit else None)


def _shards(measurement: Measurement, start: int, stop: int) -> range:
    """Return the shard groups that `[start, stop)` touches."""
    width = measurement.policy.shard_ns
    return range((start + ZERO_TIME_NS) // width, (stop - 1 + ZERO_TIME_NS) // width + 1)


class _SelectColumn(NamedTuple):
    """A column of a select: its name, how to read it, and whether it is a field."""

    name: str
    read: Callable[[StoredPoint], object]
    is_field: bool


def _columns(
    item: SelectItem, tags: frozenset[str], grouped: tuple[str, ...], kinds: Mapping[bytes, set[type]]
) -> list[_SelectColumn]:
    if item.name == "time":
        return []
    if item.name != "*":
        is_field = item.cast != "tag" and (to_key(item.name) in kinds or item.name not in tags)
        return [_column(item.name, item.cast, is_field, kinds)._replace(name=item.alias or item.name)]
    named = [(to_text(key), True) for key in kinds if item.cast != "tag"]
    named += [(key, False) for key in tags if item.cast != "field" and key not in grouped]
    named.sort(key=lambda pair: (pair[0], not pair[1]))
    return [_column(name, None, is_field, kinds) for name, is_field in named]


def _column(name: str, cast: str | None, is_field: bool, kinds: Mapping[bytes, set[type]]) -> _SelectColumn:
    key = to_key(name)
    if not is_field:
        return _SelectColumn(
            name, lambda point: next((value for tag, value in point.series.tags if tag == key), None), False
        )
    kind = _CAST_KINDS.get(cast or "") or strongest_kind(kinds, key)
    return _SelectColumn(name, lambda point: cast_value(point.fields.get(key), kind), True)


def _rows(points: Iterator[StoredPoint], columns: Sequence[_SelectColumn]) -> _Rows:
    """Return the rows that have a value in some field."""
    fields = [index for index, column in enumerate(columns, 1) if column.is_field]
    readers = [column.read for column in columns]
    for point in points:
        row = [point.time, *(read(point) for read in readers)]
        if any(row[index] is not None for index in fields):
            yield point, row
