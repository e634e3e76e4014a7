"""The content of a store, as points and as canonical lines: tags and fields sorted by key, nanoseconds, fixed order.

The strict parser of `iggyflux.lineprotocol` reads the lines back.  Names and values that no dialect can represent
(accepted because of a quirk) are written with the same escapes all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from iggyflux.lineprotocol import Point, Unsigned
from iggyflux.sim.plain import Value
from iggyflux.sim.store import Measurement, Store, StoredPoint


def measurements(store: Store, database: str | None = None) -> Iterator[Measurement]:
    """Return the measurements of one database, or of all."""
    for name, owner in list(store.databases.items()):
        if database is None or name == database:
            for policy in list(owner.policies.values()):
                yield from list(policy.measurements.values())


def points(store: Store, database: str | None = None) -> list[Point]:
    """Return all points in the order of `dump`.  Raise `PointError` for one that no dialect can represent."""
    return [_point(stored) for stored in _sorted(store, database)]


def dump(store: Store, database: str | None = None) -> list[str]:
    """Return all points as lines, sorted by measurement, tags and time."""
    return [_line(stored) for stored in _sorted(store, database)]


def _sorted(store: Store, database: str | None) -> list[StoredPoint]:
    found = [point for each in measurements(store, database) for point in store.scan(each, -(2**63), 2**63 - 1)]
    found.sort(key=lambda point: (point.series.measurement.name, point.series.tags, point.time))
    return found


def _point(stored: StoredPoint) -> Point:
    fields = {_text(key): _value(value) for key, value in sorted(stored.fields.items())}
    tags = {_text(key): _text(value) for key, value in stored.series.tags}
    return Point(_text(stored.series.measurement.name), tags, fields, stored.time)


def _value(value: Value) -> str | int | float | bool | Unsigned:
    if isinstance(value, bytes):
        return _text(value)
    return Unsigned(value[0]) if isinstance(value, list) else value


def _line(stored: StoredPoint) -> str:
    name = _escape(stored.series.measurement.name, ", ")
    tags = "".join(f",{_escape(key, ',= ')}={_escape(value, ',= ')}" for key, value in stored.series.tags)
    fields = ",".join(f"{_escape(key, ',= ')}={_format(value)}" for key, value in sorted(stored.fields.items()))
    return f"{name}{tags} {fields} {stored.time}"


def _format(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value}i"
        case list():
            return f"{value[0]}u"
        case bytes():
            return '"' + _text(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        case _:
            return repr(value)


def _escape(text: bytes, characters: str) -> str:
    return "".join("\\" + character if character in characters else character for character in _text(text))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
