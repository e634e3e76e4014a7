"""How each part of a line is written, dialect by dialect: escapes, numbers, times.

These are the only spellings of line protocol in the package; the compiled plan calls or copies them at compile time.
They assume checked values (`checks`): an escape never alters what a server of that dialect reads back.
"""

from __future__ import annotations

from enum import Enum


class Precision(Enum):
    """The unit of a line's time."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"

    __hash__ = object.__hash__  # members are single, and Enum's own is Python: it shows where lines are made

    @property
    def divisor(self) -> int:
        """Nanoseconds per unit."""
        return _DIVISORS[self]


_DIVISORS = {Precision.S: 1_000_000_000, Precision.MS: 1_000_000, Precision.US: 1_000, Precision.NS: 1}


class Dialect(Enum):
    """What servers read alike: InfluxDB 1.x, 2.x (and Cloud TSM), 3.x.

    They differ in the backslash outside of strings, in unsigned integers and in the spelling of floats.
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
        """Whether `1u` is a value; stock 1.x refuses it."""
        return self is not Dialect.V1


def escape_measurement(text: str, dialect: Dialect) -> str:
    """A measurement as it stands in a line."""
    if dialect.doubles_backslash:
        text = text.replace("\\", "\\\\")
    return text.replace(",", "\\,").replace(" ", "\\ ")


def escape_key(text: str, dialect: Dialect) -> str:
    """A tag's or field's key as it stands in a line."""
    return escape_measurement(text, dialect).replace("=", "\\=")


def escape_tag_value(text: str, dialect: Dialect) -> str:
    """A tag's value as it stands in a line."""
    return escape_measurement(text, dialect).replace("=", "\\=")


def escape_string(text: str, dialect: Dialect | None = None) -> str:  # noqa: ARG001  (one signature for all escapes)
    """A string field as it stands between its quotes: the same in every dialect, line feeds raw."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def format_string(text: str) -> str:
    """A string field with its quotes."""
    return f'"{escape_string(text)}"'


def format_float(value: float) -> str:
    """The shortest text that reads back as `value`; every dialect takes Python's `repr`."""
    return repr(value)


def format_integer(value: int) -> str:
    """`7i`."""
    return f"{value:d}i"


def format_unsigned(value: int) -> str:
    """`7u`; dialect v1 has none."""
    return f"{value:d}u"


def format_boolean(value: bool) -> str:
    """`true` or `false`."""
    return "true" if value else "false"


def format_timestamp(timestamp_ns: int, precision: Precision) -> str:
    """The time in units of `precision`, floored (below zero too)."""
    return str(timestamp_ns // _DIVISORS[precision])
