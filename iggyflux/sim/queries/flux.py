"""Flux, as far as reading back needs it: `from |> range |> filter |> pivot |> keep …` and aggregates of whole tables.

Functions work on tables in memory.  An unknown argument of a function is rejected, not ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import NamedTuple, TypeAlias

from iggyflux.lineprotocol import Unsigned
from iggyflux.sim.queries import NotFound, QueryError, Unsupported
from iggyflux.sim.queries.flux_script import evaluate
from iggyflux.sim.queries.flux_storage import read_tables
from iggyflux.sim.queries.flux_values import (
    KINDS,
    Arguments,
    Duration,
    FluxResult,
    Function,
    Record,
    RuntimeFault,
    Stream,
    Table,
    Time,
)
from iggyflux.sim.queries.scalars import cast_number, order_key, parse_time
from iggyflux.sim.store import Store


@dataclass(slots=True)
class Context:
    """The environment of a script: the readable buckets, and the time."""

    store: Store
    now_ns: int
    results: list[FluxResult] = field(default_factory=list)


def run(context: Context, script: str) -> list[FluxResult]:
    """Return the results of a script.  Raise `QueryError`."""
    functions = {name: _bind(context, name, builtin) for name, builtin in _BUILTINS.items()}
    for value in evaluate(script, functions):
        if isinstance(value, Stream):
            tables = _bounded(value)
            if not any(result.tables is tables for result in context.results):
                context.results.append(FluxResult("_result", tables))
    if not context.results:
        raise QueryError("error in building plan while starting program: this Flux script returns no streaming data")
    return context.results


_Apply: TypeAlias = Callable[[Context, Arguments], object]


class _Builtin(NamedTuple):
    """A function of the language: its implementation, and its arguments by name with the classes that each accepts.

    With `piped`, `tables` must come through a pipe; arguments in `needed` are required.
    """

    apply: _Apply
    takes: Mapping[str, tuple[type, ...]] = {}
    piped: bool = True
    needed: tuple[str, ...] = ()


def _bind(context: Context, name: str, builtin: _Builtin) -> Function:
    def call(arguments: Arguments) -> object:
        for key, value in arguments.items():
            if key == "tables" and isinstance(value, Stream):
                continue
            if key not in builtin.takes:
                raise Unsupported(f"the argument {key} of {name}()")
            if not isinstance(value, builtin.takes[key]):
                raise QueryError(f'error calling function "{name}": argument "{key}" is of the wrong type')
        for key in (*(("tables",) if builtin.piped else ()), *builtin.needed):
            if key not in arguments:
                raise QueryError(f'error calling function "{name}": missing required keyword argument "{key}"')
        return builtin.apply(context, arguments)

    return call


# --- from, range ---


def _from(context: Context, arguments: Arguments) -> Stream:
    name = str(arguments["bucket"])
    database = context.store.databases.get(name)
    policy = database.policy() if database is not None else None
    if policy is None:
        raise NotFound(f'failed to initialize execute state: could not find bucket "{name}"', name)
    return Stream(source=policy, bucket=name)


def _range(context: Context, arguments: Arguments) -> Stream:
    stream = _stream(arguments)
    start, stop = _bound(context, arguments["start"]), _bound(context, arguments.get("stop"))
    if start >= stop:
        raise QueryError("error in building plan while starting program: cannot query an empty range")
    if stream.source is None:
        raise Unsupported("range() of what range() gave")
    return Stream(list(read_tables(context.store, stream.source, start, stop)))


def _bound(context: Context, value: object) -> int:
    if isinstance(value, Duration):
        return context.now_ns + value
    if isinstance(value, Time):
        return int(value)
    return value * 10**9 if isinstance(value, int) else context.now_ns  # bare integers are seconds


def _stream(arguments: Arguments) -> Stream:
    stream = arguments["tables"]
    assert isinstance(stream, Stream)  # noqa: S101 (nothing else is bound to `tables`)
    return stream


def _tables(arguments: Arguments) -> list[Table]:
    return _bounded(_stream(arguments))


def _bounded(stream: Stream) -> list[Table]:
    if stream.source is not None:
        words = f"cannot submit unbounded read to \"{stream.bucket}\"; try bounding 'from' with a call to 'range'"
        raise QueryError(f"error in building plan while starting program: {words}")
    return stream.tables


# --- rows and columns ---


def _with_rows(table: Table, rows: list[Record]) -> Table:
    return Table(table.columns, table.group, rows, table.stored)


def _filter(_context: Context, arguments: Arguments) -> Stream:
    is_wanted = arguments["fn"]
    assert callable(is_wanted)  # noqa: S101 (checked by `_bind`)
    found = []
    for table in _tables(arguments):
        rows = [row for row in table.rows if is_wanted(row)]
        if rows:
            found.append(_with_rows(table, rows))
    return Stream(found)


def _names(arguments: Arguments, key: str = "columns") -> list[str]:
    value = arguments.get(key)
    return [str(each) for each in value] if isinstance(value, list) else []


def _keep(_context: Context, arguments: Arguments) -> Stream:
    names = _names(arguments)
    return _select(arguments, "keep", lambda name: name in names)


def _drop(_context: Context, arguments: Arguments) -> Stream:
    names = _names(arguments)
    return _select(arguments, "drop", lambda name: name not in names)


def _select(arguments: Arguments, function: str, is_wanted: Callable[[str], bool]) -> Stream:
    made = []
    for table in _tables(arguments):
        columns = {name: kind for name, kind in table.columns.items() if is_wanted(name)}
        rows = [{name: row.get(name) for name in columns} for row in table.rows]
        made.append(Table(columns, tuple(name for name in table.group if name in columns), rows))
    return Stream(_regroup(made, function))


def _sort(_context: Context, arguments: Arguments) -> Stream:
    made = []
    for table in _tables(arguments):
        rows = list(table.rows)
        for name in reversed(_names(arguments) or ["_value"]):
            rows.sort(key=_key_of(name), reverse=arguments.get("desc") is True)
        made.append(_with_rows(table, rows))
    return Stream(made)


def _key_of(name: str) -> Callable[[Record], tuple[int, float, str]]:
    return lambda row: order_key(row.get(name), nulls_last=False)


def _limit(_context: Context, arguments: Arguments) -> Stream:
    number, offset = (max(int(str(arguments.get(key, 0))), 0) for key in ("n", "offset"))
    return Stream([_with_rows(table, table.rows[offset : offset + number]) for table in _tables(arguments)])


def _yield(context: Context, arguments: Arguments) -> Stream:
    tables = _tables(arguments)
    name = str(arguments.get("name", "_result"))
    if any(result.name == name for result in context.results):
        words = f'tried to produce more than one result named "{name}"'
        raise QueryError(f"error in building plan while starting program: {words}")
    context.results.append(FluxResult(name, tables))
    return Stream(tables)


# --- groups ---


def _group(_context: Context, arguments: Arguments) -> Stream:
    names = _names(arguments)
    by = arguments.get("mode", "by") == "by"
    made = []
    for table in _tables(arguments):
        chosen = [name for name in table.columns if (name in names) is by]
        if table.stored and by:  # the storage groups them, and keeps the bounds in the key
            chosen = [name for name in table.columns if name in names or name in ("_start", "_stop")]
        made.append(Table(table.columns, tuple(chosen), table.rows, table.stored))
    return Stream(_regroup(made, "group"))


def _regroup(tables: Sequence[Table], function: str) -> list[Table]:
    """Join tables whose group keys have become equal; columns of one name must have one type."""
    joined: dict[tuple[tuple[str, object], ...], Table] = {}
    for table in tables:
        for row in table.rows or [{}]:
            key = tuple((name, row.get(name)) for name in table.group)
            target = joined.get(key)
            if target is None:
                target = joined[key] = Table({}, table.group, [], table.stored)
            _add_columns(target, table, function)
            if table.rows:
                target.rows.append(row)
    for target in joined.values():
        if target.stored:
            target.columns = _in_order(target.columns)
    return _by_key(joined.values())


def _add_columns(target: Table, table: Table, function: str) -> None:
    for name, kind in table.columns.items():
        if target.columns.setdefault(name, kind) is not kind:
            kinds = " and ".join(_KIND_NAMES[each] for each in (kind, target.columns[name]))
            words = f'schema collision detected: column "{name}" is both of type {kinds}'
            raise RuntimeFault(f"{function}: {words}")


_KIND_NAMES: dict[type, str] = {float: "float", int: "int", Unsigned: "uint", str: "string", bool: "bool", Time: "time"}
_LEADING = ("_start", "_stop", "_time", "_value")


def _in_order(columns: dict[str, type]) -> dict[str, type]:
    names = [name for name in _LEADING if name in columns]
    names += sorted(name for name in columns if name not in _LEADING)
    return {name: columns[name] for name in names}


def _by_key(tables: Iterable[Table]) -> list[Table]:
    """Return tables in the order of their group keys; a key without a column comes first."""
    found = list(tables)
    names = sorted({name for table in found for name in table.group})

    def key(table: Table) -> list[tuple[bool, object]]:
        row = table.rows[0] if table.rows else {}
        values = (row.get(name) if name in table.group else None for name in names)
        return [(value is not None, order_key(value)) for value in values]

    return sorted(found, key=key)


def _pivot(_context: Context, arguments: Arguments) -> Stream:
    row_key, column_key = _names(arguments, "rowKey"), _names(arguments, "columnKey")
    value_column = str(arguments["valueColumn"])
    made: dict[tuple[object, ...], tuple[Table, dict[tuple[object, ...], Record]]] = {}
    for table in _tables(arguments):
        if value_column not in table.columns:
            raise RuntimeFault(f"pivot: specified value column does not exist in table: {value_column}")
        group = tuple(name for name in table.group if name not in (*column_key, value_column))
        kept = [name for name in table.columns if name in group or name in row_key]
        for row in table.rows:
            key = tuple((name, row.get(name)) for name in group)
            target, records = made.setdefault(key, (Table({name: table.columns[name] for name in kept}, group, []), {}))
            place = tuple(row.get(name) for name in row_key)
            record = records.get(place)
            if record is None:
                record = records[place] = {name: row.get(name) for name in kept}
                target.rows.append(record)
            name = "_".join(str(row.get(column)) for column in column_key)
            _add_pivoted(target, name, table.columns[value_column], kept)
            record[name] = row.get(value_column)
    return Stream(_by_key(target for target, _ in made.values()))


def _add_pivoted(target: Table, name: str, kind: type, kept: Sequence[str]) -> None:
    if name in kept:
        words = f'value "{name}" appears in a column key column, but a column named "{name}" already exists'
        raise RuntimeFault(f'pivot: {words}; consider renaming "{name}" to something else before pivoting')
    if target.columns.setdefault(name, kind) is not kind:
        raise RuntimeFault(f'pivot: schema collision detected: column "{name}"')


# --- aggregates and selectors ---


_Key: TypeAlias = Callable[[Record], tuple[int, float, str]]


def _selector(pick: Callable[[list[Record], _Key], Record]) -> _Apply:
    """Return a function that keeps one row of each table."""

    def apply(_context: Context, arguments: Arguments) -> Stream:
        column = str(arguments.get("column", "_value"))
        made = []
        for table in _tables(arguments):
            rows = [row for row in table.rows if row.get(column) is not None]
            if rows:
                made.append(_with_rows(table, [pick(rows, _key_of(column))]))
        return Stream(made)

    return apply


def _aggregate(name: str, reduce: Callable[[list[object]], object]) -> _Apply:
    """Return a function that makes one row of each table."""

    def apply(_context: Context, arguments: Arguments) -> Stream:
        column = str(arguments.get("column", "_value"))
        made = []
        for table in _tables(arguments):
            kind = table.columns.get(column)
            if kind is None:
                raise RuntimeFault(f'{name}: column "{column}" does not exist')
            if name != "count" and kind not in (int, float, Unsigned):
                raise QueryError(f"unsupported input type for {name} aggregate: {KINDS[kind]}")
            value = reduce([row[column] for row in table.rows if row.get(column) is not None])
            key = {each: table.rows[0].get(each) for each in table.group} if table.rows else {}
            columns = {each: kind for each, kind in table.columns.items() if each in table.group or each == column}
            columns[column] = type(value)
            made.append(Table(columns, table.group, [{**key, column: value}]))
        return Stream(made)

    return apply


def _sum(values: list[object]) -> object:
    """Return the sum; integers overflow at 64 bits."""
    total: int | float = sum(values)  # type: ignore[arg-type]  # numbers, by `_aggregate`
    if isinstance(total, float) or not values:
        return total
    if isinstance(values[0], Unsigned):
        return Unsigned(total % 2**64)
    return cast_number(total, "integer")


def _mean(values: list[object]) -> object:
    return float(sum(values)) / len(values) if values else None  # type: ignore[arg-type]  # numbers, by `_aggregate`


def _to_time(_context: Context, arguments: Arguments) -> Time:
    value = arguments["v"]
    return Time(parse_time(value) if isinstance(value, str) else int(str(value)))


_COLUMN = {"column": (str,)}
_COLUMNS = {"columns": (list,)}
_BUILTINS: dict[str, _Builtin] = {
    "from": _Builtin(_from, {"bucket": (str,)}, piped=False, needed=("bucket",)),
    "range": _Builtin(_range, {"start": (int,), "stop": (int,)}, needed=("start",)),
    "filter": _Builtin(_filter, {"fn": (FunctionType,)}, needed=("fn",)),
    "keep": _Builtin(_keep, _COLUMNS, needed=("columns",)),
    "drop": _Builtin(_drop, _COLUMNS, needed=("columns",)),
    "group": _Builtin(_group, {**_COLUMNS, "mode": (str,)}),
    "pivot": _Builtin(
        _pivot,
        {"rowKey": (list,), "columnKey": (list,), "valueColumn": (str,)},
        needed=("rowKey", "columnKey", "valueColumn"),
    ),
    "sort": _Builtin(_sort, {**_COLUMNS, "desc": (bool,)}),
    "limit": _Builtin(_limit, {"n": (int,), "offset": (int,)}, needed=("n",)),
    "yield": _Builtin(_yield, {"name": (str,)}),
    "first": _Builtin(_selector(lambda rows, _key: rows[0]), _COLUMN),
    "last": _Builtin(_selector(lambda rows, _key: rows[-1]), _COLUMN),
    "min": _Builtin(_selector(lambda rows, key: min(rows, key=key)), _COLUMN),
    "max": _Builtin(_selector(lambda rows, key: max(rows, key=key)), _COLUMN),
    "count": _Builtin(_aggregate("count", len), _COLUMN),
    "sum": _Builtin(_aggregate("sum", _sum), _COLUMN),
    "mean": _Builtin(_aggregate("mean", _mean), _COLUMN),
    "now": _Builtin(lambda context, _arguments: Time(context.now_ns), piped=False),
    "time": _Builtin(_to_time, {"v": (str, int)}, piped=False, needed=("v",)),
}
