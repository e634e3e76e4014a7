"""InfluxQL: statements that read a store back, list what is in it, and make or drop databases.

Raw selects, with wildcards, casts, conditions and groups, and a handful of aggregates without `GROUP BY time`.
Rows of one time come in an order that depends on the query, as on real servers: nobody may rely on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import NamedTuple, TypeAlias, cast

from iggyflux.sim.plain import Value as Stored
from iggyflux.sim.queries import NotFound, QueryError
from iggyflux.sim.queries.conditions import (
    MAX_TIME,
    MIN_TIME,
    Row,
    Scalar,
    cast_number,
    compile_condition,
    order_key,
    split_time,
)
from iggyflux.sim.queries.influxql_statements import Change, Frame, Select, Show, Source, Statement, parse
from iggyflux.sim.shards import ZERO_TIME_NS
from iggyflux.sim.store import KIND_NAMES, NARROWEST_SHARD_NS, Database, Measurement, Point, Policy, Store
from iggyflux.sim.texts import go_duration

__all__ = ["Change", "Frame", "Select", "Show", "Source", "Statement", "parse", "plain", "run", "to_text"]

POLICY_COLUMNS = ["name", "duration", "shardGroupDuration", "replicaN", "default"]
SELECTORS = ("min", "max", "first", "last")
_PRECEDENCE = (float, int, list, bytes, bool)
_CAST_KINDS = {"float": float, "integer": int, "unsigned": list, "string": bytes, "boolean": bool}


def run(store: Store, statement: Statement, database: str, policy: str = "") -> Iterator[Frame]:
    """What a statement gives, series by series.  Raises `QueryError`, before the first frame where it can."""
    if isinstance(statement, Select):
        return _run_select(store, statement, database, policy)
    if isinstance(statement, Show):
        return iter(_run_show(store, statement, database))
    _change(store, statement, database)
    return iter(())


def database_of(store: Store, name: str) -> Database:
    """Raises `QueryError`."""
    if not name:
        raise QueryError("database name required")
    if name not in store.databases:
        raise NotFound(f"database not found: {name}", name)
    return store.databases[name]


def _run_select(store: Store, select: Select, database: str, policy: str) -> Iterator[Frame]:
    pairs = []
    for source in select.sources:
        if source.inner is not None:
            return _run_around(select, _run_select(store, source.inner, database, policy))
        owner = database_of(store, source.database or database)
        place = owner.policy(source.policy or policy)
        if place is None:
            raise QueryError(f"retention policy not found: {source.policy or policy}")
        pairs += _matching(place, source)
    pairs.sort(key=lambda measurement: measurement.name)
    frames = (frame for measurement in pairs for frame in _select_from(store, select, measurement))
    if select.series_limit or select.series_offset:
        kept = list(frames)[select.series_offset :]
        return iter(kept[: select.series_limit] if select.series_limit else kept)
    first = next(frames, None)  # what is wrong with a statement is found here, before anything was sent
    return iter(()) if first is None else chain((first,), frames)


def _run_around(select: Select, inner: Iterator[Frame]) -> Iterator[Frame]:
    """A select of everything that another one gives, in the order of time."""
    frames = list(inner)
    if not frames:
        return iter(())
    rows = sorted((row for frame in frames for row in frame.rows), key=lambda row: cast("int", row[0]))
    return iter((Frame(frames[0].name, frames[0].columns, list(_cut(iter(rows), select.limit, select.offset))),))


def _matching(policy: Policy, source: Source) -> list[Measurement]:
    if not source.is_pattern:
        found = policy.measurements.get(source.name.encode("utf-8", "surrogateescape"))
        return [found] if found is not None else []
    pattern = re.compile(source.name)
    return [measurement for name, measurement in policy.measurements.items() if pattern.search(to_text(name))]


class _Column(NamedTuple):
    """A column of a raw select: its name, what it reads, and whether that is a field."""

    name: str
    read: Callable[[Point], object]
    is_field: bool


def _select_from(store: Store, select: Select, measurement: Measurement) -> Iterator[Frame]:
    tag_keys = frozenset(to_text(key) for key in measurement.tag_keys())
    start, stop, rest = split_time(select.condition)
    truth = compile_condition(rest, tag_keys)
    grouped = _group_keys(select, tag_keys)
    points = _points(store, measurement, start, stop, select.descending, truth if rest is not None else None)
    name = to_text(measurement.name)
    if any(item.function for item in select.items):
        yield from _aggregate(select, measurement, points, grouped, start, name)
        return
    columns = _columns(select, measurement, tag_keys, grouped or (), _shards(measurement, start, stop))
    if not any(column.is_field for column in columns):
        return
    heads = ["time", *_unique([column.name for column in columns])]
    rows = _rows(points, columns)
    if grouped is None:
        cut = _cut((row for _, row in rows), select.limit, select.offset)
        first = next(cut, None)
        if first is not None:
            yield Frame(name, heads, chain((first,), cut))
        return
    groups: dict[tuple[str, ...], list[Sequence[object]]] = {}
    for point, row in rows:
        groups.setdefault(_group_of(point, grouped), []).append(row)
    for key in sorted(groups):
        kept = list(_cut(iter(groups[key]), select.limit, select.offset))
        if kept:
            yield Frame(name, heads, kept, dict(zip(grouped, key, strict=True)))


def _points(
    store: Store, measurement: Measurement, start: int, stop: int, descending: bool, truth: Callable[[Row], bool] | None
) -> Iterator[Point]:
    """Readable points of a span, by time; the order of those that share a time depends on the span."""
    found = store.scan(measurement, start, stop, descending=descending)
    salt = (start * 40_503 + stop * 9_973) & 0xFFFFFFFF
    for _, ties in groupby(found, key=lambda point: point.time):
        points = list(ties)
        if len(points) > 1:
            points.sort(key=lambda point: ((point.series.id ^ salt) * 2_654_435_761) & 0xFFFFFFFF)
        for point in points:
            if point.series.readable and (truth is None or truth(_lookup(point))):
                yield point


def _lookup(point: Point) -> Row:
    def read(name: str) -> Scalar:
        key = name.encode("utf-8", "surrogateescape")
        value = point.fields.get(key)
        if value is not None:
            return plain(value)
        if name == "time":
            return point.time
        return next((to_text(text) for tag, text in point.series.tags if tag == key), None)

    return read


def _group_keys(select: Select, tag_keys: frozenset[str]) -> tuple[str, ...] | None:
    if select.group is None:
        return None
    return tuple(sorted(tag_keys)) if select.group == ("*",) else select.group


def _group_of(point: Point, keys: tuple[str, ...]) -> tuple[str, ...]:
    tags = {to_text(key): to_text(value) for key, value in point.series.tags}
    return tuple(tags.get(key, "") for key in keys)


def _shards(measurement: Measurement, start: int, stop: int) -> range:
    """The shard groups that `[start, stop)` touches."""
    width = measurement.policy.shard_ns
    return range((start + ZERO_TIME_NS) // width, (stop - 1 + ZERO_TIME_NS) // width + 1)


def _columns(
    select: Select, measurement: Measurement, tag_keys: frozenset[str], grouped: tuple[str, ...], shards: range
) -> list[_Column]:
    kinds = measurement.kinds(shards)
    columns: list[_Column] = []
    for item in select.items:
        if item.name == "*":
            named = [(to_text(key), True) for key in kinds if item.cast != "tag"]
            named += [(key, False) for key in tag_keys if item.cast != "field" and key not in grouped]
            for name, is_field in sorted(named, key=lambda pair: (pair[0], not pair[1])):
                columns.append(_column(name, None, is_field, kinds))
        elif item.name != "time":
            is_field = item.cast != "tag" and (
                item.name.encode("utf-8", "surrogateescape") in kinds or item.name not in tag_keys
            )
            column = _column(item.name, item.cast, is_field, kinds)
            columns.append(column._replace(name=item.alias or item.name))
    return columns


def _column(name: str, cast: str | None, is_field: bool, kinds: Mapping[bytes, set[type]]) -> _Column:
    key = name.encode("utf-8", "surrogateescape")
    if not is_field:
        return _Column(name, lambda point: next((value for tag, value in point.series.tags if tag == key), None), False)
    kind = _CAST_KINDS.get(cast or "") or next((kind for kind in _PRECEDENCE if kind in kinds.get(key, ())), float)
    return _Column(name, lambda point: cast_value(point.fields.get(key), kind), True)


def cast_value(value: Stored | None, kind: type) -> Stored | None:
    """A value as a select of this type shows it: numbers are converted, all else must be of the type."""
    if value is None or type(value) is kind:
        return value
    number = value[0] if isinstance(value, list) else value
    if isinstance(number, bool | bytes) or kind in (bytes, bool):
        return None
    found = cast("int | float", cast_number(number, KIND_NAMES[kind]))
    return [cast("int", found)] if kind is list else found


def _rows(points: Iterator[Point], columns: Sequence[_Column]) -> Iterator[tuple[Point, Sequence[object]]]:
    fields = [index for index, column in enumerate(columns, 1) if column.is_field]
    readers = [column.read for column in columns]
    for point in points:
        row = [point.time, *(read(point) for read in readers)]
        if any(row[index] is not None for index in fields):
            yield point, row


def _cut(rows: Iterator[Sequence[object]], limit: int, offset: int) -> Iterator[Sequence[object]]:
    for index, row in enumerate(rows):
        if limit and index >= offset + limit:
            return
        if index >= offset:
            yield row


def _unique(names: Sequence[str]) -> list[str]:
    """Names with `_1`, `_2` behind those that came before."""
    seen: dict[str, int] = {"time": 1}
    result = []
    for name in names:
        number = seen.get(name, 0)
        seen[name] = number + 1
        result.append(f"{name}_{number}" if number else name)
    return result


def _aggregate(
    select: Select,
    measurement: Measurement,
    points: Iterator[Point],
    grouped: tuple[str, ...] | None,
    start: int,
    name: str,
) -> Iterator[Frame]:
    kinds = measurement.kinds()
    wanted: list[tuple[str, str, bytes, type]] = []
    for item in select.items:
        if item.function is None:
            raise QueryError("mixing aggregate and non-aggregate queries is not supported")
        keys = sorted(kinds) if item.name == "*" else [item.name.encode("utf-8", "surrogateescape")]
        for key in keys:
            kind = next((kind for kind in _PRECEDENCE if kind in kinds.get(key, ())), float)
            if item.name == "*" and item.function in ("sum", "mean", "min", "max") and kind in (bytes, bool):
                continue
            head = item.alias or (f"{item.function}_{to_text(key)}" if item.name == "*" else item.function)
            wanted.append((head, item.function, key, kind))
    groups: dict[tuple[str, ...], list[list[tuple[int, Stored]]]] = {}
    for point in points:
        columns = groups.setdefault(_group_of(point, grouped or ()), [[] for _ in wanted])
        for column, (_, _, key, wanted_kind) in zip(columns, wanted, strict=True):
            value = cast_value(point.fields.get(key), wanted_kind)
            if value is not None:
                column.append((point.time, value))
    heads = ["time", *_unique([head for head, *_ in wanted])]
    for group in sorted(groups):
        columns = groups[group]
        if not any(columns):
            continue
        results = [
            _AGGREGATES[function](values) if values else None
            for values, (_, function, _, _) in zip(columns, wanted, strict=True)
        ]
        alone = len(wanted) == 1 and wanted[0][1] in SELECTORS
        time = results[0][0] if alone and results[0] is not None else max(start, 0)
        row = [time, *(result and result[1] for result in results)]
        yield Frame(name, heads, [row], dict(zip(grouped or (), group, strict=True)))


def _order(pair: tuple[int, Stored]) -> tuple[tuple[int, float, str], int]:
    return order_key(plain(pair[1])), pair[0]


def _sum(values: list[tuple[int, Stored]]) -> tuple[int, Stored]:
    total = sum(value[0] if isinstance(value, list) else value for _, value in values)  # type: ignore[misc]
    return 0, total


def _mean(values: list[tuple[int, Stored]]) -> tuple[int, Stored]:
    return 0, float(_sum(values)[1]) / len(values)  # type: ignore[arg-type]


_AGGREGATES: dict[str, Callable[[list[tuple[int, Stored]]], tuple[int, Stored]]] = {
    "count": lambda values: (0, len(values)),
    "sum": _sum,
    "mean": _mean,
    "min": lambda values: min(values, key=_order),
    "max": lambda values: max(values, key=_order),
    "first": lambda values: min(values, key=lambda pair: pair[0]),
    "last": lambda values: max(values, key=lambda pair: pair[0]),
}


def _run_show(store: Store, show: Show, database: str) -> list[Frame]:
    if show.what == "DATABASES":
        return [Frame("databases", ["name"], [[name] for name in store.databases])]
    if show.what == "MEASUREMENTS" and (show.database or database) not in store.databases:
        return []  # this one does not mind
    owner = database_of(store, show.database or database)
    if show.what == "RETENTION POLICIES":
        rows = [
            [
                policy.name,
                go_duration(policy.duration_ns),
                go_duration(policy.shard_ns),
                1,
                policy.name == owner.default,
            ]
            for policy in owner.policies.values()
        ]
        return [Frame("", POLICY_COLUMNS, rows)]
    measurements: dict[bytes, list[Measurement]] = {}
    for policy in owner.policies.values():
        for found in [*policy.measurements.values()]:
            if not show.sources or any(found in _matching(policy, source) for source in show.sources):
                measurements.setdefault(found.name, []).append(found)
    if show.since_ns is not None:
        listed = [each for several in measurements.values() for each in several]
        recent = {point.series.id for each in listed for point in store.scan(each, show.since_ns, MAX_TIME)}
        show = replace(show, only=frozenset(recent))
    frames = _SHOWS[show.what](show, dict(sorted(measurements.items())))
    if not (show.limit or show.offset):
        return frames
    stop = show.offset + show.limit if show.limit else None
    return [Frame(frame.name, frame.columns, list(frame.rows)[show.offset : stop], frame.tags) for frame in frames]


_Found: TypeAlias = dict[bytes, list[Measurement]]


def _show_measurements(show: Show, found: _Found) -> list[Frame]:
    rows = [
        [to_text(name)]
        for name, measurements in found.items()
        if any(_series_of(show, measurements)) or (show.condition is None and any(map(_is_table, measurements)))
    ]
    return [Frame("measurements", ["name"], rows)] if rows else []


def _show_field_keys(show: Show, found: _Found) -> list[Frame]:
    frames = []
    for name, measurements in found.items():
        seen = [each for each in measurements if not show.hides_unreadable or _is_readable(each)]
        pairs = {(key, kind) for each in seen for key, kinds in each.kinds().items() for kind in kinds}
        rows = [
            [to_text(key), KIND_NAMES[kind]]
            for key, kind in sorted(pairs, key=lambda pair: (pair[0], _PRECEDENCE.index(pair[1])))
        ]
        if rows:
            frames.append(Frame(to_text(name), ["fieldKey", "fieldType"], rows))
    return frames


def _is_table(measurement: Measurement) -> bool:
    """Whether this is a table of 3.x, which has columns of its own, also without a row."""
    return 0 in measurement.columns


def _is_readable(measurement: Measurement) -> bool:
    return any(series.readable for series in measurement.series.values())


def _show_tag_keys(show: Show, found: _Found) -> list[Frame]:
    frames = []
    for name, measurements in found.items():
        found_keys = {key for _, tags in _series_of(show, measurements) for key, _ in tags}
        if show.condition is None:
            found_keys |= {key for each in measurements if _is_table(each) for key in each.tag_keys()}
        keys = sorted(found_keys)
        if keys:
            frames.append(Frame(to_text(name), ["tagKey"], [[to_text(key)] for key in keys]))
    return frames


def _show_tag_values(show: Show, found: _Found) -> list[Frame]:
    frames = []
    for name, measurements in found.items():
        pairs = {
            pair
            for _, tags in _series_of(show, measurements)
            for pair in tags
            if show.keys and show.keys(to_text(pair[0]))
        }
        if pairs:
            frames.append(
                Frame(to_text(name), ["key", "value"], [[to_text(key), to_text(value)] for key, value in sorted(pairs)])
            )
    return frames


def _show_series(show: Show, found: _Found) -> list[Frame]:
    keys = sorted({series for measurements in found.values() for series in _series_of(show, measurements)})
    rows = [[to_text(b",".join((_escape(_unescape(name), b", "), *map(_escape_tag, tags))))] for name, tags in keys]
    return [Frame("", ["key"], rows)] if rows else []


def _unescape(name: bytes) -> bytes:
    return name.replace(b"\\,", b",").replace(b"\\ ", b" ")


def _escape_tag(tag: tuple[bytes, bytes]) -> bytes:
    return b"=".join(map(_escape, tag))


_SHOWS: dict[str, Callable[[Show, _Found], list[Frame]]] = {
    "MEASUREMENTS": _show_measurements,
    "FIELD KEYS": _show_field_keys,
    "TAG KEYS": _show_tag_keys,
    "TAG VALUES": _show_tag_values,
    "SERIES": _show_series,
}


def _series_of(show: Show, measurements: list[Measurement]) -> Iterator[tuple[bytes, tuple[tuple[bytes, bytes], ...]]]:
    for measurement in measurements:
        tag_keys = frozenset(to_text(key) for key in measurement.tag_keys())
        _, _, rest = split_time(show.condition)
        truth = compile_condition(rest, tag_keys)
        for series in list(measurement.series.values()):
            if (show.only is None or series.id in show.only) and truth(_lookup(Point(0, series, {}))):
                yield measurement.name, series.tags


def _escape(text: bytes, characters: bytes = b",= ") -> bytes:
    for byte in characters:
        text = text.replace(bytes((byte,)), b"\\" + bytes((byte,)))
    return text


def _change(store: Store, change: Change, database: str) -> None:
    shard_ns = change.shard_ns and max(change.shard_ns, NARROWEST_SHARD_NS)
    match change.what:
        case "CREATE DATABASE":
            first = change.database or "autogen"
            store.create_database(change.name, policy=first, duration_ns=change.duration_ns or 0, shard_ns=shard_ns)
        case "CREATE RETENTION POLICY":
            owner = database_of(store, change.database or "")
            if change.duration_ns is not None and 0 < change.duration_ns < NARROWEST_SHARD_NS:
                raise QueryError("retention policy duration must be at least 1h0m0s")
            store.create_policy(owner, change.name, change.duration_ns or 0, shard_ns)
            if change.is_default:
                store.set_default_policy(owner, change.name)
        case "DROP DATABASE":
            store.drop_database(change.name)
        case "DROP RETENTION POLICY":
            holder = store.databases.get(change.database or "")
            if holder is not None:
                store.drop_policy(holder, change.name)
        case "DROP MEASUREMENT":
            for policy in database_of(store, database).policies.values():
                found = policy.measurements.get(change.name.encode("utf-8", "surrogateescape"))
                if found is None:
                    continue
                store.drop_measurement(found)
        case _:
            _remove(store, change, database)


def _remove(store: Store, change: Change, database: str) -> None:
    start, stop, rest = split_time(change.condition)
    if change.what == "DROP SERIES" and (start, stop) != (MIN_TIME, MAX_TIME):
        raise QueryError("DROP SERIES doesn't support time in WHERE clause")
    for policy in database_of(store, database).policies.values():
        for measurement in list(policy.measurements.values()):
            if change.sources and not any(measurement in _matching(policy, source) for source in change.sources):
                continue
            truth = compile_condition(rest, frozenset(to_text(key) for key in measurement.tag_keys()))
            series = [each for each in list(measurement.series.values()) if truth(_lookup(Point(0, each, {})))]
            if change.what == "DROP SERIES":
                for each in series:
                    store.drop_series(measurement, each)
                continue
            chosen = {each.id for each in series}
            found = [point for point in store.scan(measurement, start, stop) if point.series.id in chosen]
            store.delete(measurement, [(point.time, point.series) for point in found])


def to_text(data: bytes) -> str:
    """Stored bytes as text; bytes that are not UTF-8 become lone surrogates, which writers replace."""
    return data.decode("utf-8", "surrogateescape")


def plain(value: Stored) -> Scalar:
    """A stored value as conditions see it."""
    if isinstance(value, list):
        return value[0]
    return to_text(value) if isinstance(value, bytes) else value
