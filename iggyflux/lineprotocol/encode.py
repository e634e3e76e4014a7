"""How each part of a line is written in each dialect: escapes, numbers, times.

Only this module writes line protocol; the compiled plan calls it, or uses its results, at compile time.  Values must be
checked already (`checks`): an escape never alters what a server of the dialect reads back.
"""

from __future__ import annotations

from enum import Enum


class Precision(Enum):
    """The unit of the time of a line."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"

    __hash__ = object.__hash__  # members are unique, and Enum's own hash is slow where lines are made

    @property
    def divisor(self) -> int:
        """The number of nanoseconds in a unit."""
        return _DIVISORS[self]


_DIVISORS = {Precision.S: 1_000_000_000, Precision.MS: 1_000_000, Precision.US: 1_000, Precision.NS: 1}


class Dialect(Enum):
    """The servers that read lines alike: InfluxDB 1.x, 2.x (and Cloud TSM), 3.x.

    Dialects differ in the backslash outside of strings, in unsigned integers and in the spelling of floats.
    """

    V1 = "v1"
    V2 = "v2"
    V3 = "v3"

    __hash__ = object.__hash__

    @property
    def doubles_backslash(self) -> bool:
        """Whether `\\\\` outside of strings means one backslash (3.x) or two (1.x, 2.x)."""
        return self is Dialect.V3

    @property
    def has_unsigned(self) -> bool:
        """Whether `1u` is a value; stock 1.x rejects it."""
        return self is not Dialect.V1


def escape_measurement(text: str, dialect: Dialect) -> str:
    """Return a measurement as it is written in a line."""
    if dialect.doubles_backslash:
        text = text.replace("\\", "\\\\")
    return text.replace(",", "\\,").replace(" ", "\\ ")


def escape_key(text: str, dialect: Dialect) -> str:
    """Return the key of a tag or field as it is written in a line."""
    return escape_measurement(text, dialect).replace("=", "\\=")


def escape_tag_value(text: str, dialect: Dialect) -> str:
    """Return the value of a tag as it is written in a line."""
    return escape_measurement(text, dialect).replace("=", "\\=")


def escape_string(text: str) -> str:
    """Return a string field as it is written between its quotes: the same in every dialect, line feeds raw."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def format_string(text: str) -> str:
    """Return a string field with its quotes."""
    return f'"{escape_string(text)}"'


def format_float(value: float) -> str:
    """Return the shortest text that reads back as `value`; every dialect accepts Python's `repr`."""
    return repr(value)


def format_integer(value: int) -> str:
    """Return an integer field: `7i`."""
    return f"{value:d}i"


def format_unsigned(value: int) -> str:
    """Return an unsigned field: `7u`; dialect v1 has none."""
    return f"{value:d}u"


def format_boolean(value: bool) -> str:
    """Return a boolean field: `true` or `false`."""
    return "true" if value else "false"


def format_timestamp(timestamp_ns: int, precision: Precision) -> str:
    """Return the time in units of `precision`, rounded down (below zero too)."""
    return str(timestamp_ns // _DIVISORS[precision])
