"""The tables that `from |> range` reads: one for each series and field of a bucket, with the traps of real servers.

A field with several types silently ends at the first shard with another type.  A tag key `_time` or `_value` causes a
panic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from iggyflux.lineprotocol import Unsigned
from iggyflux.sim.plain import Value as Stored
from iggyflux.sim.queries import QueryError
from iggyflux.sim.queries.flux_values import Record, Table, Time
from iggyflux.sim.queries.points import to_text
from iggyflux.sim.shards import ZERO_TIME_NS
from iggyflux.sim.store import Measurement, RetentionPolicy, Series, Store, Tags

_Place: TypeAlias = tuple[Tags, bytes]
"""A series and one of its fields."""


def read_tables(store: Store, policy: RetentionPolicy, start: int, stop: int) -> Iterator[Table]:
    """Return the tables of `[start, stop)`.  Raise `QueryError`."""
    for _, measurement in sorted(policy.measurements.items(), key=lambda item: item[0]):
        for key in measurement.tag_keys():
            if key in (b"_time", b"_value"):
                words = "interface conversion: array.Array is *array.String, not *array.Int64"
                raise QueryError(f"a panic has occurred: /api/v2/query: {words}")
        yield from _read_measurement(store, measurement, start, stop)


def _read_measurement(store: Store, measurement: Measurement, start: int, stop: int) -> Iterator[Table]:
    ends = _ends(measurement, start, stop)
    found: dict[_Place, list[Record]] = {}
    bases: dict[int, Record] = {}
    kinds: dict[_Place, type] = {}
    for point in store.scan(measurement, start, stop):
        series = point.series
        if not series.readable:
            continue
        base = bases.get(series.id)
        if base is None:
            base = bases[series.id] = _base(series, start, stop)
        for key, stored in point.fields.items():
            if point.time >= ends[key]:
                continue
            value = _value(stored)
            place = (series.tags, key)
            kinds[place] = type(value)
            row = {**base, "_time": Time(point.time), "_value": value, "_field": to_text(key)}
            found.setdefault(place, []).append(row)
    for place in sorted(found):
        names = sorted(("_field", "_measurement", *(to_text(key) for key, _ in place[0])))
        columns: dict[str, type] = {"_start": Time, "_stop": Time, "_time": Time, "_value": kinds[place]}
        columns.update(dict.fromkeys(names, str))
        yield Table(columns, ("_start", "_stop", *names), found[place], stored=True)


def _base(series: Series, start: int, stop: int) -> Record:
    """Return the columns that all rows of a series share."""
    tags = {to_text(key): to_text(value) for key, value in series.tags}
    return {"_start": Time(start), "_stop": Time(stop), "_measurement": to_text(series.measurement.name), **tags}


def _ends(measurement: Measurement, start: int, stop: int) -> dict[bytes, int]:
    """Return where each field ends for a reader of the span: at the first shard that has it in another type."""
    width = measurement.policy.shard_ns
    first, last = (start + ZERO_TIME_NS) // width, (stop - 1 + ZERO_TIME_NS) // width
    ends: dict[bytes, int] = {}
    kinds: dict[bytes, type | str] = {}
    for shard in sorted(measurement.columns):
        for name, kind in list(measurement.columns[shard].items()):
            ends.setdefault(name, 2**63)
            if first <= shard <= last and kinds.setdefault(name, kind) is not kind:
                ends[name] = min(ends[name], shard * width - ZERO_TIME_NS)
    return ends


def _value(stored: Stored) -> object:
    if isinstance(stored, list):
        return Unsigned(stored[0])
    return to_text(stored) if isinstance(stored, bytes) else stored
