"""The values of a Flux script: times, tables, streams of tables, and the faults of functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from iggyflux.lineprotocol import Unsigned
from iggyflux.sim.queries import QueryError
from iggyflux.sim.store import RetentionPolicy


class Time(int):
    """Nanoseconds since the epoch."""


class Duration(int):
    """Nanoseconds."""


KINDS: dict[type, str] = {
    float: "double",
    int: "long",
    Unsigned: "unsignedLong",
    str: "string",
    bool: "boolean",
    Time: "dateTime:RFC3339",
}
"""The annotation of a column by the class of its values."""

Record: TypeAlias = dict[str, object]


@dataclass(slots=True)
class Table:
    """Rows with one group key: `columns` has the class of each column's values, in order; `group` the key's columns."""

    columns: dict[str, type]
    group: tuple[str, ...]
    rows: list[Record]
    stored: bool = False


@dataclass(slots=True)
class Stream:
    """Tables in a pipeline.  `source` is a bucket whose range is not known yet."""

    tables: list[Table] = field(default_factory=list)
    source: RetentionPolicy | None = None
    bucket: str = ""


class RuntimeFault(QueryError):
    """A fault inside a function; the call adds its place."""


class FluxResult(NamedTuple):
    """A named result of a script."""

    name: str
    tables: list[Table]


Predicate: TypeAlias = Callable[[Mapping[str, object]], object]
"""The expression after `(r) =>`, as a function of a row."""
Arguments: TypeAlias = dict[str, object]
Function: TypeAlias = Callable[[Arguments], object]
