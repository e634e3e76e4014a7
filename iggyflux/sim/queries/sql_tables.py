"""The tables of a database of InfluxDB 3: their columns, the column types, and the errors for missing ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from iggyflux.sim.queries import QueryError
from iggyflux.sim.queries.points import to_text
from iggyflux.sim.store import TAG, TIME, Database, Measurement

POISONED = (
    "Execution error: error getting batches Error creating record batch: Invalid argument error: "
    "all columns in a record batch must have the same length"
)
DATA_TYPES: dict[type | str, str] = {
    float: "Float64",
    int: "Int64",
    list: "UInt64",
    bytes: "Utf8",
    bool: "Boolean",
    TAG: "Dictionary(Int32, Utf8)",
    TIME: "Timestamp(Nanosecond, None)",
}
Columns: TypeAlias = list[tuple[str, str]]
"""Names and kinds of columns; a value of kind `time` is integer nanoseconds, written as a time."""
SqlRows: TypeAlias = tuple[Columns, Iterable[Sequence[object]]]


def find_table(database: Database, name: str) -> Measurement:
    """Return a table.  Raise `QueryError`."""
    found = tables_of(database).get(name)
    if found is None:
        raise QueryError(f"Error during planning: table 'public.iox.{name}' not found")
    if found.poisoned:
        raise QueryError(POISONED)
    return found


def tables_of(database: Database) -> dict[str, Measurement]:
    """Return the tables of a database by name."""
    policy = database.policy()
    return {to_text(name): found for name, found in policy.measurements.items()} if policy is not None else {}


def columns_of(table: Measurement) -> dict[str, type | str]:
    """Return the types of a table's columns, in the order of their names."""
    return {to_text(name): kind for name, kind in sorted(table.columns.get(0, {}).items())}


def valid_fields(table: Measurement) -> str:
    """Return the columns of a table as errors list them."""
    return ", ".join(f"{_identifier(to_text(table.name))}.{_identifier(name)}" for name in columns_of(table))


def _identifier(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else f'"{name}"'
