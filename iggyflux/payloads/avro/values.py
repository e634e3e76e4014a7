"""The JSON form of Avro's own types, and back: bytes are base64, times and decimals are exact texts."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, Final

from iggyflux.errors import DecodeError
from iggyflux.payloads.avro.schema import Node
from iggyflux.payloads.binary import foreign, time_text
from iggyflux.payloads.format import BAD_NUMBER, MALFORMED, not_finite
from iggyflux.records import JSON

UNITS: Final = {"millis": 1_000_000, "micros": 1000, "nanos": 1}
_DAY_ZERO: Final = date(1970, 1, 1).toordinal()
_MOST_EXACT: Final = 2**53


def converter(node: Node, *, numbers: bool = False) -> Callable[[Any], JSON] | None:
    """Return what makes the JSON form of a value of `node`: of an integer or of bytes; None where it is the value.

    With `numbers`, a decimal is the nearest double, or an integer if its scale is 0.
    """
    logical = node.logical
    if logical is None or (logical == "uuid" and node.kind == "string"):
        return base64_text if node.kind in ("bytes", "fixed") else None
    kind, _, unit = logical.rpartition("-")
    if kind == "timestamp":
        return lambda value: time_text(*divmod(value * UNITS[unit], 1_000_000_000))
    if kind == "local-timestamp":
        return lambda value: time_text(*divmod(value * UNITS[unit], 1_000_000_000))[:-1]
    if kind == "time":
        return lambda value: _clock(value * UNITS[unit])
    if logical == "decimal":
        return _decimal_number(node) if numbers else _decimal_text(node)
    return _CONVERTERS[logical]


def base64_text(value: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(value).decode("ascii")


def _date(value: int) -> str:
    try:
        return date.fromordinal(_DAY_ZERO + value).isoformat()
    except (ValueError, OverflowError):
        raise foreign("a date outside the years 1 to 9999") from None


def _clock(nanoseconds: int) -> str:
    if not 0 <= nanoseconds < 86_400_000_000_000:
        raise foreign("a time of day outside 00:00 to 24:00")
    return time_text(nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)[11:-1]


def _uuid(value: bytes) -> str:
    return str(uuid.UUID(bytes=value))


def _duration(value: bytes) -> JSON:
    months, days, milliseconds = (int.from_bytes(value[at : at + 4], "little") for at in (0, 4, 8))
    return {"months": months, "days": days, "milliseconds": milliseconds}


_CONVERTERS: Final[Mapping[str, Callable[[Any], JSON]]] = {"date": _date, "uuid": _uuid, "duration": _duration}


def _unscaled(node: Node) -> Callable[[bytes], int]:
    most = 10**node.precision

    def read(value: bytes) -> int:
        unscaled = int.from_bytes(value, "big", signed=True)
        if not -most < unscaled < most:
            raise DecodeError(BAD_NUMBER, f"a decimal has more than {node.precision} digits")
        return unscaled

    return read


def _decimal_text(node: Node) -> Callable[[bytes], str]:
    unscaled, scale = _unscaled(node), node.scale

    def text(value: bytes) -> str:
        number = unscaled(value)
        if not scale:
            return str(number)
        digits = str(abs(number)).rjust(scale + 1, "0")
        return f"{'-' if number < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"

    return text


def _decimal_number(node: Node) -> Callable[[bytes], int | float]:
    text, is_integer = _decimal_text(node), not node.scale

    def number(value: bytes) -> int | float:
        found = int(text(value)) if is_integer else float(text(value))
        if not is_integer and not isfinite(found):
            raise not_finite(found)
        return found

    return number


def as_double(value: int) -> float:
    """Return an integer that the schema of the reader wants as a double; raise DecodeError if it would change."""
    if -_MOST_EXACT <= value <= _MOST_EXACT:
        return float(value)
    raise DecodeError(BAD_NUMBER, f"{value} is not exact as a double, which the reader's schema wants")


def bad_union(index: int, count: int) -> DecodeError:
    """Return the failure for a branch that a union does not have."""
    return DecodeError(MALFORMED, f"a union has {count} branches, and the payload names number {index}")


def bad_symbol(index: int, count: int) -> DecodeError:
    """Return the failure for a symbol that an enum does not have."""
    return DecodeError(MALFORMED, f"an enum has {count} symbols, and the payload names number {index}")


# back: for examples and generated messages


def unconverted(node: Node, value: Any) -> Any:
    """Return the integer or the bytes whose JSON form is `value`.  Raise ValueError, TypeError or OverflowError."""
    logical = node.logical
    if logical is None or (logical == "uuid" and node.kind == "string"):
        return base64.b64decode(value.encode("ascii"), validate=True) if node.kind in ("bytes", "fixed") else value
    kind, _, unit = logical.rpartition("-")
    if kind in ("timestamp", "local-timestamp", "time"):
        if type(value) is int:
            return value
        whole, fraction = _split(f"1970-01-01T{value}" if kind == "time" else value)
        return (whole * 1_000_000_000 + fraction) // UNITS[unit]
    if logical == "date":
        return value if type(value) is int else date.fromisoformat(value).toordinal() - _DAY_ZERO
    if logical == "uuid":
        return uuid.UUID(value).bytes
    if logical == "duration":
        return b"".join(int(value[key]).to_bytes(4, "little") for key in ("months", "days", "milliseconds"))
    return _decimal_bytes(node, value)


def _decimal_bytes(node: Node, value: Any) -> bytes:
    match = _DECIMAL.fullmatch(str(value))
    if match is None or len(match[3] or "") > node.scale or isinstance(value, bool):
        raise ValueError(f"expected a decimal with {node.scale} digits after the point")
    unscaled = int(match[2] + (match[3] or "").ljust(node.scale, "0")) * (-1 if match[1] else 1)
    if len(str(abs(unscaled))) > node.precision:
        raise ValueError(f"expected a decimal of {node.precision} digits")
    size = node.size if node.kind == "fixed" else (8 + (unscaled + (unscaled < 0)).bit_length()) // 8
    return unscaled.to_bytes(size, "big", signed=True)


_DECIMAL: Final = re.compile(r"(-)?([0-9]+)(?:\.([0-9]+))?", re.ASCII)


def _split(text: str) -> tuple[int, int]:
    """Return the seconds since 1970, and the nanoseconds, of a time with at most nine digits and an optional Z."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("expected a time such as 2026-03-01T12:00:00.5Z")
    second = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return second // timedelta(seconds=1), int((match[2] or "").ljust(9, "0"))


_TIME: Final = re.compile(r"([0-9-]{10}T[0-9:]{8})(?:\.([0-9]{1,9}))?Z?", re.ASCII)
