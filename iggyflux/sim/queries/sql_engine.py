"""A user's SQL by DataFusion, the engine of InfluxDB 3 (extra `sim`), in a process with limits.

The engine gets the tables that a statement may name as Arrow, and may only read them: `sql_worker` has the limits.  The
time is limited here: a process that takes too long is killed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iggyflux.sim.queries import QueryError, Unsupported
from iggyflux.sim.queries.points import look_up
from iggyflux.sim.queries.scalars import MAX_TIME, MIN_TIME
from iggyflux.sim.queries.sql_tables import POISONED, Columns, SqlRows, columns_of, tables_of
from iggyflux.sim.store import TAG, TIME, Database, Measurement, Store

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SECONDS = 10.0
MAX_ROWS = 1_000_000
"""The most rows of a table that are sent to the engine."""

_WORKER = Path(__file__).with_name("sql_worker.py")
_MISSING = "a SQL statement of your own needs DataFusion: pip install 'iggyflux[sim]'"
_FUNCTION = re.compile(r"Invalid function '([^']*)'")
_ADDED = re.compile(r"date_bin_(wallclock|gapfill|wallclock_gapfill)|interpolate|locf|tz|selector_(first|last|min|max)")
"""Functions that InfluxDB 3 adds to DataFusion."""


def run_statement(store: Store, database: Database, text: str, parameters: Mapping[str, object]) -> SqlRows:
    """Return the columns and rows of a statement.  Raise `QueryError`."""
    if importlib.util.find_spec("datafusion") is None:
        raise QueryError(_MISSING)
    import pyarrow as pa

    named = {name: table for name, table in tables_of(database).items() if _may_name(text, name) and not table.poisoned}
    out = pa.BufferOutputStream()
    out.write(json.dumps({"statement": text, "parameters": parameters, "tables": list(named)}).encode() + b"\n")
    for table in named.values():
        batch = _as_arrow(store, table)
        with pa.ipc.new_stream(out, batch.schema) as stream:
            stream.write_batch(batch)
    answer = _run_worker(out.getvalue())
    if answer[:1] == b"{":
        raise _as_error(json.loads(answer)["error"], database)
    with pa.ipc.open_stream(answer) as reader:
        return _as_rows(reader.read_all())


def _may_name(text: str, table: str) -> bool:
    """Return whether a statement may name a table: bare, in any case, or quoted."""
    return table in text.lower() or table.replace('"', '""') in text


def _run_worker(given: pa.Buffer) -> bytes:
    command = [sys.executable, "-P", str(_WORKER)]
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=MAX_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise QueryError(f"the simulator gives a statement {MAX_SECONDS:g} seconds, and this one took longer") from None
    if done.returncode < 0:  # the allocator of the engine aborts
        raise QueryError("Resources exhausted: the statement needs more memory than the simulator gives")
    if done.returncode:
        raise QueryError(f"the engine failed: {done.stderr.decode('utf-8', 'replace').strip().rpartition(chr(10))[2]}")
    return bytes(done.stdout)


def _as_error(message: str, database: Database) -> QueryError:
    """Return the error for the engine's message."""
    function = _FUNCTION.search(message)
    if function is not None and _ADDED.fullmatch(function[1]):
        return Unsupported(f"Error during planning: the function {function[1]}()")
    table = message.partition("table 'public.iox.")[2].rpartition("' not found")[0]
    if table and (found := tables_of(database).get(table)) is not None and found.poisoned:
        return QueryError(POISONED)
    if "information_schema" in message:
        return Unsupported("Error during planning: information_schema, but for the columns of one table,")
    return QueryError(message.removeprefix("DataFusion error: "))


def _as_arrow(store: Store, table: Measurement) -> pa.RecordBatch:
    """Return a table whose rows are not in the order of time."""
    import pyarrow as pa

    kinds: dict[type | str, Any] = {
        float: pa.float64(),
        int: pa.int64(),
        list: pa.uint64(),
        bytes: pa.string(),
        bool: pa.bool_(),
        TAG: pa.dictionary(pa.int32(), pa.string()),
        TIME: pa.timestamp("ns"),
    }
    columns = columns_of(table)
    cells: dict[str, list[object]] = {name: [] for name in columns}
    for number, point in enumerate(store.scan(table, MIN_TIME, MAX_TIME)):
        if number == MAX_ROWS:
            raise Unsupported(f"a statement of your own on a table of more than {MAX_ROWS:,} rows")
        row = look_up(point)
        for name, column in cells.items():
            column.append(row(name))
    arrays = [pa.array(_rotated(cells[name]), kinds[kind]) for name, kind in columns.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _rotated(cells: list[object]) -> list[object]:
    middle = len(cells) // 2
    return cells[middle:] + cells[:middle]


def _as_rows(table: pa.Table) -> SqlRows:
    import pyarrow as pa

    columns: Columns = []
    cells: list[list[object]] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        is_time = pa.types.is_timestamp(column.type)
        columns.append((name, "time" if is_time else "other"))
        cells.append(_cells(column.cast(pa.timestamp("ns")).cast(pa.int64()) if is_time else column))
    return columns, zip(*cells, strict=True)


def _cells(column: pa.ChunkedArray) -> list[object]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _cells(column.cast(kind.value_type))
    if pa.types.is_date(kind):
        return _cells(column.cast(pa.string()))
    if pa.types.is_decimal(kind) and kind.scale == 0:  # the result of arithmetic with UInt64
        return [value if value is None else int(value) for value in column.to_pylist()]
    if not _is_plain(kind):
        raise Unsupported(f"a column of the type {kind}")
    cells: list[object] = column.to_pylist()
    return cells


def _is_plain(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(kind) for is_kind in (*tests, *texts))
