"""Points for the query languages: columns by name, values by type, the order of points with the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import cast

from iggyflux.sim.plain import Value as Stored
from iggyflux.sim.queries.scalars import Row, Scalar, cast_number
from iggyflux.sim.store import KIND_NAMES, Measurement, Store, StoredPoint

PRECEDENCE = (float, int, list, bytes, bool)
"""If a field has several types in several shards, the first of these is the one to read it as."""


def to_text(data: bytes) -> str:
    """Return stored bytes as text; bytes that are not UTF-8 become lone surrogates, which writers replace."""
    return data.decode("utf-8", "surrogateescape")


def to_key(name: str) -> bytes:
    """Return the stored bytes of a name."""
    return name.encode("utf-8", "surrogateescape")


def plain(value: Stored) -> Scalar:
    """Return a stored value as conditions use it."""
    if isinstance(value, list):
        return value[0]
    return to_text(value) if isinstance(value, bytes) else value


def tag_names(measurement: Measurement) -> frozenset[str]:
    """Return the tag keys of a measurement as text."""
    return frozenset(to_text(key) for key in measurement.tag_keys())


def look_up(point: StoredPoint) -> Row:
    """Return a function that looks up columns of a point: a field before a tag of the same name."""

    def read(name: str) -> Scalar:
        key = to_key(name)
        value = point.fields.get(key)
        if value is not None:
            return plain(value)
        if name == "time":
            return point.time
        return next((to_text(text) for tag, text in point.series.tags if tag == key), None)

    return read


def read_points(
    store: Store, measurement: Measurement, span: tuple[int, int], is_wanted: Callable[[Row], bool], *, descending: bool
) -> Iterator[StoredPoint]:
    """Return the readable points of a span by time; the order of points with the same time depends on the span."""
    start, stop = span
    salt = (start * 40_503 + stop * 9_973) & 0xFFFFFFFF
    found = store.scan(measurement, start, stop, descending=descending)
    for _, ties in groupby(found, key=lambda point: point.time):
        points = list(ties)
        if len(points) > 1:
            points.sort(key=lambda point: ((point.series.id ^ salt) * 2_654_435_761) & 0xFFFFFFFF)
        for point in points:
            if point.series.readable and is_wanted(look_up(point)):
                yield point


def group_of(point: StoredPoint, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of the tags by which a point is grouped."""
    tags = {to_text(key): to_text(value) for key, value in point.series.tags}
    return tuple(tags.get(key, "") for key in keys)


def strongest_kind(kinds: Mapping[bytes, set[type]], key: bytes) -> type:
    """Return the type to read a field as; float if it does not exist."""
    return next((kind for kind in PRECEDENCE if kind in kinds.get(key, ())), float)


def cast_value(value: Stored | None, kind: type) -> Stored | None:
    """Return a value as a select of this type shows it: numbers are converted, other values must have the type."""
    if value is None or type(value) is kind:
        return value
    number = value[0] if isinstance(value, list) else value
    if isinstance(number, bool | bytes) or kind in (bytes, bool):
        return None
    found = cast("int | float", cast_number(number, KIND_NAMES[kind]))
    return [cast("int", found)] if kind is list else found


def unique_names(names: list[str]) -> list[str]:
    """Return names with `_1`, `_2` after those that occurred before; `time` counts as used."""
    seen: dict[str, int] = {"time": 1}
    result = []
    for name in names:
        number = seen.get(name, 0)
        seen[name] = number + 1
        result.append(f"{name}_{number}" if number else name)
    return result
