"""SHOW of InfluxQL: databases, retention policies, and the schemas of measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from iggyflux.sim.queries.influxql_conditions import compile_condition, split_time
from iggyflux.sim.queries.influxql_rows import database_of, find_measurements
from iggyflux.sim.queries.influxql_statements import Frame, Show
from iggyflux.sim.queries.points import PRECEDENCE, look_up, tag_names, to_text
from iggyflux.sim.store import KIND_NAMES, Database, Measurement, Store, StoredPoint, Tags
from iggyflux.sim.texts import go_duration

POLICY_COLUMNS = ["name", "duration", "shardGroupDuration", "replicaN", "default"]
_MeasurementsByName: TypeAlias = dict[bytes, list[Measurement]]
"""Measurements by name: one from each retention policy that has it."""


def run_show(store: Store, show: Show, database: str) -> list[Frame]:
    """Return the frames of a SHOW statement.  Raise `QueryError`."""
    if show.what == "DATABASES":
        return [Frame("databases", ["name"], [[name] for name in store.databases])]
    if show.what == "MEASUREMENTS" and (show.database or database) not in store.databases:
        return []  # this statement accepts a missing database
    owner = database_of(store, show.database or database)
    if show.what == "RETENTION POLICIES":
        return [_policies(owner)]
    found: _MeasurementsByName = {}
    for policy in owner.policies.values():
        for measurement in find_measurements(policy, show.source):
            found.setdefault(measurement.name, []).append(measurement)
    frames = _LISTINGS[show.what](show, dict(sorted(found.items())))
    if not (show.limit or show.offset):
        return frames
    stop = show.offset + show.limit if show.limit else None
    return [Frame(frame.name, frame.columns, list(frame.rows)[show.offset : stop], frame.tags) for frame in frames]


def _policies(database: Database) -> Frame:
    rows = [
        [each.name, go_duration(each.duration_ns), go_duration(each.shard_ns), 1, each.name == database.default]
        for each in database.policies.values()
    ]
    return Frame("", POLICY_COLUMNS, rows)


def _measurements(show: Show, found: _MeasurementsByName) -> list[Frame]:
    rows = [
        [to_text(name)]
        for name, measurements in found.items()
        if any(_series_of(show, measurements)) or (show.condition is None and any(map(_is_table, measurements)))
    ]
    return [Frame("measurements", ["name"], rows)] if rows else []


def _is_table(measurement: Measurement) -> bool:
    """Return whether this is a table of 3.x, which has columns of its own even without a row."""
    return 0 in measurement.columns


def _field_keys(show: Show, found: _MeasurementsByName) -> list[Frame]:
    frames = []
    for name, measurements in found.items():
        seen = [each for each in measurements if not show.hides_unreadable or _is_readable(each)]
        pairs = {(key, kind) for each in seen for key, kinds in each.kinds().items() for kind in kinds}
        ordered = sorted(pairs, key=lambda pair: (pair[0], PRECEDENCE.index(pair[1])))
        if ordered:
            rows = [[to_text(key), KIND_NAMES[kind]] for key, kind in ordered]
            frames.append(Frame(to_text(name), ["fieldKey", "fieldType"], rows))
    return frames


def _is_readable(measurement: Measurement) -> bool:
    return any(series.readable for series in measurement.series.values())


def _tag_keys(show: Show, found: _MeasurementsByName) -> list[Frame]:
    frames = []
    for name, measurements in found.items():
        keys = {key for _, tags in _series_of(show, measurements) for key, _ in tags}
        if show.condition is None:
            keys |= {key for each in measurements if _is_table(each) for key in each.tag_keys()}
        if keys:
            frames.append(Frame(to_text(name), ["tagKey"], [[to_text(key)] for key in sorted(keys)]))
    return frames


def _series(show: Show, found: _MeasurementsByName) -> list[Frame]:
    keys = sorted({series for measurements in found.values() for series in _series_of(show, measurements)})
    rows = [[to_text(_series_key(name, tags))] for name, tags in keys]
    return [Frame("", ["key"], rows)] if rows else []


def _series_key(name: bytes, tags: Tags) -> bytes:
    plain_name = name.replace(b"\\,", b",").replace(b"\\ ", b" ")
    pairs = (_escape(key, b",= ") + b"=" + _escape(value, b",= ") for key, value in tags)
    return b",".join((_escape(plain_name, b", "), *pairs))


def _escape(text: bytes, characters: bytes) -> bytes:
    for byte in characters:
        text = text.replace(bytes((byte,)), b"\\" + bytes((byte,)))
    return text


_LISTINGS: dict[str, Callable[[Show, _MeasurementsByName], list[Frame]]] = {
    "MEASUREMENTS": _measurements,
    "FIELD KEYS": _field_keys,
    "TAG KEYS": _tag_keys,
    "SERIES": _series,
}


def _series_of(show: Show, measurements: list[Measurement]) -> Iterator[tuple[bytes, Tags]]:
    """Return the series that meet the condition, each with the name of its measurement."""
    _, _, rest = split_time(show.condition)
    for measurement in measurements:
        is_wanted = compile_condition(rest, tag_names(measurement))
        for series in list(measurement.series.values()):
            if is_wanted(look_up(StoredPoint(0, series, {}))):
                yield measurement.name, series.tags
