"""Plain values of the query languages: times as text, numbers between types, sort keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from iggyflux.sim.queries import QueryError

MIN_TIME, MAX_TIME = -(2**63), 2**63 - 1
Scalar: TypeAlias = "str | int | float | bool | None"
Row: TypeAlias = Callable[[str], Scalar]
"""A function that returns the value of a column by name, or None if the row lacks it."""

_TIME = re.compile(
    r"(\d{4,5})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d\d:?\d\d)?", re.ASCII
)


def parse_time(text: str) -> int:
    """Return the nanoseconds of a date and time.  Raise `QueryError`."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        if re.fullmatch(r"-?[0-9]{1,19}", text):
            return int(text)
        raise QueryError(
            f"invalid operation: time and *influxql.StringLiteral are not compatible: {text!r} is not a time"
        )
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError as exc:
        raise QueryError(f"{text!r} is not a time: {exc}") from exc
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since.days * 86_400 + since.seconds
    if zone and zone != "Z":
        sign = 1 if zone[0] == "+" else -1
        seconds -= sign * (int(zone[1:3]) * 3_600 + int(zone[-2:]) * 60)
    return seconds * 10**9 + int((fraction or "").ljust(9, "0"))


NUMBERS = ("float", "integer", "unsigned")


def cast_number(value: Scalar, kind: str | None) -> Scalar:
    """Return a number as a cursor of another numeric type returns it (measured on amd64); None for other values."""
    if value is None or isinstance(value, bool | str):
        return None
    if kind == "float":
        return float(value)
    if isinstance(value, float):
        top = 2**64 if kind == "unsigned" else 2**63
        value = int(value) if -(2**63) <= value < top else -(2**63)
    value %= 2**64
    return value if kind == "unsigned" or value < 2**63 else value - 2**64


def order_key(value: object, *, nulls_last: bool = True) -> tuple[int, float, str]:
    """Return the sort key of a value: numbers before text, null at the end or at the beginning."""
    if value is None:
        return (2 if nulls_last else 0, 0, "")
    return (1, 0, value) if isinstance(value, str) else (1, value if isinstance(value, int | float) else 0, "")
