"""Points, and what makes two of them equal.

A `Point` is valid by construction; nothing checks it again.  The types of fields count: 1, 1.0 and 1u differ, as they
do for a server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias

from iggyflux.errors import PointError
from iggyflux.lineprotocol.checks import (
    MAX_BYTES,
    MIN_NS,
    check_field_key,
    check_float,
    check_integer,
    check_measurement,
    check_series_key,
    check_string,
    check_tag_key,
    check_tag_value,
    check_timestamp,
    check_unsigned,
    shorten,
)
from iggyflux.lineprotocol.encode import (
    Dialect,
    Precision,
    escape_key,
    escape_measurement,
    escape_tag_value,
    format_boolean,
    format_float,
    format_integer,
    format_string,
    format_timestamp,
    format_unsigned,
)


class Unsigned(int):
    """An integer that is written `7u`.

    As a number it equals the int; as a field it is another value.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}u"

    __str__ = __repr__


FieldValue: TypeAlias = float | int | Unsigned | str | bool

_CHECKS: dict[type, Callable[[Any], object]] = {
    float: check_float,
    int: check_integer,
    Unsigned: check_unsigned,
    str: check_string,
    bool: bool,
}
_FORMATS: dict[type, Callable[[Any], str]] = {
    float: format_float,
    int: format_integer,
    Unsigned: format_unsigned,
    str: format_string,
    bool: format_boolean,
}


class Point:
    """A measurement at a time; `tags` and `fields` are read-only and in the byte order of their keys.

    The constructor raises `PointError` if a server would lose or change something.  With `timestamp_ns` None the server
    chooses the time; plans never do that.
    """

    __slots__ = ("_fields", "_tags", "measurement", "timestamp_ns")
    __match_args__ = ("measurement", "tags", "fields", "timestamp_ns")

    measurement: str
    timestamp_ns: int | None
    # Plain dicts: proxies would double the objects that the garbage collector has to visit.
    _tags: dict[str, str]
    _fields: dict[str, FieldValue]

    def __init__(
        self,
        measurement: str,
        tags: Mapping[str, str],
        fields: Mapping[str, FieldValue],
        timestamp_ns: int | None = None,
    ) -> None:
        check_measurement(measurement)
        for key, text in tags.items():
            check_tag_key(key)
            check_tag_value(text)
        if not fields:
            raise PointError("IFX319", "the point has no fields")
        for key, value in fields.items():
            check_field_key(key)
            _check_field_value(key, value)
            if key in tags:
                raise PointError("IFX317", f"{shorten(key)} is a tag and a field")
        if timestamp_ns is not None:
            if type(timestamp_ns) is not int:
                raise PointError(
                    "IFX324", f"expected an integer of nanoseconds as the time, found {shorten(timestamp_ns)}"
                )
            check_timestamp(timestamp_ns)
        # A character takes at most 4 bytes, an escaped one 2: most points need no exact measure.
        if sum(map(len, (*tags, *tags.values()))) + len(measurement) + sum(map(len, fields)) > MAX_BYTES // 8:
            check_series_key(measurement, tags.items(), fields)
        _set_measurement(self, measurement)
        _set_tags(self, dict(sorted(tags.items())))
        _set_fields(self, dict(sorted(fields.items())))
        _set_timestamp(self, timestamp_ns)

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags, in order."""
        return MappingProxyType(self._tags)

    @property
    def fields(self) -> Mapping[str, FieldValue]:
        """The fields, in order; never empty."""
        return MappingProxyType(self._fields)

    def encode(self, dialect: Dialect | str = Dialect.V2, precision: Precision | str = Precision.NS) -> str:
        """Return the line, without a line feed at its end.

        Raise `PointError` if the dialect has no such value, or if the time rounded down to `precision` is out of range.
        """
        dialect, precision = Dialect(dialect), Precision(precision)
        head = [escape_measurement(self.measurement, dialect)]
        for key, text in self._tags.items():
            head.append(f"{escape_key(key, dialect)}={escape_tag_value(text, dialect)}")
        body = [f"{escape_key(key, dialect)}={_format(key, value, dialect)}" for key, value in self._fields.items()]
        line = f"{','.join(head)} {','.join(body)}"
        if self.timestamp_ns is None:
            return line
        if self.timestamp_ns - self.timestamp_ns % precision.divisor < MIN_NS:
            raise PointError("IFX322", f"time {self.timestamp_ns} ns, floored to {precision.value}, is below {MIN_NS}")
        return f"{line} {format_timestamp(self.timestamp_ns, precision)}"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a point cannot be changed: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a point cannot be changed: {name}")

    def __repr__(self) -> str:
        return f"Point({self.measurement!r}, {self._tags!r}, {self._fields!r}, {self.timestamp_ns!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Point):
            return NotImplemented
        return (
            self.measurement == other.measurement
            and self.timestamp_ns == other.timestamp_ns
            and self._tags == other._tags
            and self._fields == other._fields
            and all(_same(value, other._fields[key]) for key, value in self._fields.items())
        )

    def __hash__(self) -> int:
        return hash((self.measurement, self.timestamp_ns, *self._tags.items(), *self._fields.items()))

    def __reduce__(self) -> tuple[type[Point], tuple[object, ...]]:
        return Point, (self.measurement, self._tags, self._fields, self.timestamp_ns)


_set_measurement = Point.__dict__["measurement"].__set__
_set_tags = Point.__dict__["_tags"].__set__
_set_fields = Point.__dict__["_fields"].__set__
_set_timestamp = Point.__dict__["timestamp_ns"].__set__
_new = object.__new__


def trusted_point(
    measurement: str, tags: dict[str, str], fields: dict[str, FieldValue], timestamp_ns: int | None
) -> Point:
    """Return a point of parts that are checked already and in order; only for the parser's fast path."""
    point = _new(Point)
    _set_measurement(point, measurement)
    _set_tags(point, tags)
    _set_fields(point, fields)
    _set_timestamp(point, timestamp_ns)
    return point


def _format(key: str, value: FieldValue, dialect: Dialect) -> str:
    if type(value) is Unsigned and not dialect.has_unsigned:
        raise PointError(
            "IFX323", f"field {shorten(key)} is unsigned, and dialect {dialect.value} has no unsigned integers"
        )
    return _FORMATS[type(value)](value)


def _check_field_value(key: str, value: FieldValue) -> None:
    check = _CHECKS.get(type(value))
    if check is None:
        expected = "a float, an integer, an unsigned integer, a string or a boolean"
        raise PointError("IFX324", f"expected {expected} as field {shorten(key)}, found {shorten(value)}")
    check(value)


def _same(one: FieldValue, other: FieldValue) -> bool:
    """Return whether two values are equal and of one type; -0.0 is not 0.0."""
    return type(one) is type(other) and (one != 0 or repr(one) == repr(other))
