"""Flux, as far as reading back needs: `from |> range |> filter |> pivot |> keep …`, with the traps of real servers.

A script is read into a tree, the tree is evaluated over tables that are held in memory.  A field with several types in
several shards ends at the first shard of another type, without a word; a tag key `_time` or `_value` is a panic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from iggyflux.lineprotocol import Unsigned
from iggyflux.sim.plain import Value as Stored
from iggyflux.sim.queries import NotFound, QueryError
from iggyflux.sim.queries.conditions import order_key, parse_time
from iggyflux.sim.queries.flux_script import Parser
from iggyflux.sim.queries.flux_values import (
    Duration,
    Function,
    Record,
    Result,
    RuntimeFault,
    Scope,
    Stream,
    Table,
    Time,
)
from iggyflux.sim.shards import ZERO_TIME_NS
from iggyflux.sim.store import Measurement, Policy, Store


@dataclass(slots=True)
class Context:
    """What a script runs in: the buckets that may be read, and the time."""

    store: Store
    now_ns: int
    organization: str = ""
    bucket_ids: Mapping[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)


def run(context: Context, script: str) -> list[Result]:
    """The results of a script.  Raises `QueryError`."""
    parser = Parser(script)
    scope: Scope = _builtins(context)
    for name, expression in parser.statements():
        value = expression(scope)
        if name is not None:
            scope[name] = value
        elif isinstance(value, Stream):
            if value.source is not None:
                words = (
                    f"cannot submit unbounded read to \"{value.bucket}\"; try bounding 'from' with a call to 'range'"
                )
                raise QueryError(f"error in building plan while starting program: {words}")
            if not any(result.tables is value.tables for result in context.results):
                context.results.append(Result("_result", value.tables))
    if not context.results:
        raise QueryError("error in building plan while starting program: this Flux script returns no streaming data")
    return context.results


def _builtins(context: Context) -> Scope:
    def bind(function: Callable[[Context, dict[str, object]], object]) -> Function:
        return lambda arguments: function(context, arguments)

    names = {name: bind(function) for name, function in _FUNCTIONS.items()}
    schema = {name: bind(function) for name, function in _SCHEMA.items()}
    return {**names, "v1": schema, "schema": schema, "influxdb": {"cardinality": None}, "inf": float("inf")}


def _from(context: Context, arguments: dict[str, object]) -> Stream:
    name = str(arguments.get("bucket", ""))
    names = {number: bucket for bucket, number in context.bucket_ids.items()}
    if "bucketID" in arguments:
        name = names.get(str(arguments["bucketID"]), "")
    database = context.store.databases.get(name)
    policy = database.policy() if database is not None else None
    if policy is None:
        raise NotFound(f'failed to initialize execute state: could not find bucket "{name}"', name)
    return Stream(source=policy, bucket=name)


def _range(context: Context, arguments: dict[str, object]) -> Stream:
    stream = _stream(arguments)
    start, stop = _bound(context, arguments.get("start")), _bound(context, arguments.get("stop"))
    if start >= stop:
        raise QueryError("error in building plan while starting program: cannot query an empty range")
    if stream.source is None:
        return Stream(
            [_with_rows(table, [row for row in table.rows if start <= _time(row) < stop]) for table in stream.tables]
        )
    return Stream(list(_read(context.store, stream.source, start, stop)))


def _bound(context: Context, value: object) -> int:
    if value is None:
        return context.now_ns
    if isinstance(value, Duration):
        return context.now_ns + value
    return int(value) if isinstance(value, Time) else int(value) * 10**9  # type: ignore[call-overload]  # bare integers are seconds


def _time(row: Record) -> int:
    value = row.get("_time")
    return value if isinstance(value, int) else 0


def _read(store: Store, policy: Policy, start: int, stop: int) -> Iterator[Table]:
    for _, measurement in sorted(policy.measurements.items(), key=lambda item: item[0]):
        for key in measurement.tag_keys():
            if key in (b"_time", b"_value"):
                words = "interface conversion: array.Array is *array.String, not *array.Int64"
                raise QueryError(f"a panic has occurred: /api/v2/query: {words}")
        yield from _read_measurement(store, measurement, start, stop)


def _read_measurement(store: Store, measurement: Measurement, start: int, stop: int) -> Iterator[Table]:
    ends = _ends(measurement, start, stop)
    found: dict[tuple[tuple[tuple[bytes, bytes], ...], bytes], list[Record]] = {}
    bases: dict[int, Record] = {}
    kinds: dict[tuple[tuple[tuple[bytes, bytes], ...], bytes], type] = {}
    for point in store.scan(measurement, start, stop):
        series = point.series
        if not series.readable:
            continue
        base = bases.get(series.id)
        if base is None:
            tags = {_text(key): _text(value) for key, value in series.tags}
            base = bases[series.id] = {
                "_start": Time(start),
                "_stop": Time(stop),
                "_measurement": _text(measurement.name),
                **tags,
            }
        for key, stored in point.fields.items():
            if point.time >= ends[key]:
                continue
            value = _value(stored)
            place = (series.tags, key)
            kinds[place] = type(value)
            found.setdefault(place, []).append(
                {**base, "_time": Time(point.time), "_value": value, "_field": _text(key)}
            )
    for place in sorted(found):
        names = sorted(("_field", "_measurement", *(_text(key) for key, _ in place[0])))
        columns: dict[str, type] = {"_start": Time, "_stop": Time, "_time": Time, "_value": kinds[place]}
        columns.update(dict.fromkeys(names, str))
        yield Table(columns, ("_start", "_stop", *names), found[place], stored=True)


def _ends(measurement: Measurement, start: int, stop: int) -> dict[bytes, int]:
    """Where each field ends for a reader of the span: at the first shard that has it in another type."""
    width = measurement.policy.shard_ns
    first, last = (start + ZERO_TIME_NS) // width, (stop - 1 + ZERO_TIME_NS) // width
    ends: dict[bytes, int] = {}
    kinds: dict[bytes, type | str] = {}
    for shard in sorted(measurement.columns):
        for name, kind in list(measurement.columns[shard].items()):
            ends.setdefault(name, 2**63)
            if first <= shard <= last and kinds.setdefault(name, kind) is not kind:
                ends[name] = min(ends[name], shard * width - ZERO_TIME_NS)
    return ends


def _value(stored: Stored) -> object:
    if isinstance(stored, list):
        return Unsigned(stored[0])
    return _text(stored) if isinstance(stored, bytes) else stored


def _stream(arguments: dict[str, object]) -> Stream:
    stream = arguments.get("tables")
    if not isinstance(stream, Stream):
        raise QueryError("error: missing required argument tables")
    return stream


def _tables(arguments: dict[str, object]) -> list[Table]:
    stream = _stream(arguments)
    if stream.source is not None:
        words = f"cannot submit unbounded read to \"{stream.bucket}\"; try bounding 'from' with a call to 'range'"
        raise QueryError(f"error in building plan while starting program: {words}")
    return stream.tables


def _with_rows(table: Table, rows: list[Record]) -> Table:
    return Table(table.columns, table.group, rows, table.stored)


def _filter(_context: Context, arguments: dict[str, object]) -> Stream:
    function = arguments.get("fn")
    assert callable(function)  # noqa: S101 (the language demands it)
    keep_empty = arguments.get("onEmpty") == "keep"
    found = []
    for table in _tables(arguments):
        rows = [row for row in table.rows if function({"r": row})]
        if rows or keep_empty:
            found.append(_with_rows(table, rows))
    return Stream(found)


def _names(arguments: dict[str, object], key: str = "columns") -> list[str]:
    value = arguments.get(key)
    return [str(each) for each in value] if isinstance(value, list) else []


def _keep(_context: Context, arguments: dict[str, object]) -> Stream:
    return _select(arguments, "keep", set(_names(arguments)), kept=True)


def _drop(_context: Context, arguments: dict[str, object]) -> Stream:
    return _select(arguments, "drop", set(_names(arguments)), kept=False)


def _select(arguments: dict[str, object], function: str, names: set[str], *, kept: bool) -> Stream:
    predicate = arguments.get("fn")
    made = []
    for table in _tables(arguments):
        wanted = [
            name
            for name in table.columns
            if (bool(predicate({"column": name})) if callable(predicate) else name in names) is kept
        ]
        columns = {name: table.columns[name] for name in wanted}
        rows = [{name: row.get(name) for name in wanted} for row in table.rows]
        made.append(Table(columns, tuple(name for name in table.group if name in columns), rows))
    return Stream(_regroup(made, function))


def _regroup(tables: Sequence[Table], function: str) -> list[Table]:
    """Tables that have become one by their group keys, joined; columns of one name must have one type."""
    joined: dict[tuple[tuple[str, object], ...], Table] = {}
    for table in tables:
        for row in table.rows or [{}]:
            key = tuple((name, row.get(name)) for name in table.group)
            target = joined.get(key)
            if target is None:
                target = joined[key] = Table({}, table.group, [], table.stored)
            for name, kind in table.columns.items():
                if target.columns.setdefault(name, kind) is not kind:
                    kinds = " and ".join(_FLUX_NAMES[each] for each in (kind, target.columns[name]))
                    words = f'schema collision detected: column "{name}" is both of type {kinds}'
                    raise RuntimeFault(f"{function}: {words}")
            if table.rows:
                target.rows.append(row)
    for target in joined.values():
        if target.stored:
            target.columns = _in_order(target.columns)
    return _by_key(list(joined.values()))


def _by_key(tables: list[Table]) -> list[Table]:
    """Tables in the order of their group keys; where a key lacks a column, it comes first."""
    names = sorted({name for table in tables for name in table.group})

    def key(table: Table) -> list[tuple[int, object]]:
        row = table.rows[0] if table.rows else {}
        return [(1, row[name]) if name in table.group and row.get(name) is not None else (0, 0) for name in names]

    return sorted(tables, key=key)


_FLUX_NAMES: dict[type, str] = {float: "float", int: "int", Unsigned: "uint", str: "string", bool: "bool", Time: "time"}
_LEADING = ("_start", "_stop", "_time", "_value")


def _in_order(columns: dict[str, type]) -> dict[str, type]:
    names = [name for name in _LEADING if name in columns]
    names += sorted(name for name in columns if name not in _LEADING)
    return {name: columns[name] for name in names}


def _group(_context: Context, arguments: dict[str, object]) -> Stream:
    names = _names(arguments)
    mode = arguments.get("mode", "by")
    made = []
    for table in _tables(arguments):
        chosen = [name for name in table.columns if (name in names) is (mode == "by")]
        if table.stored and mode == "by":  # done by the storage, which keeps the bounds in the key
            chosen = [name for name in table.columns if name in names or name in ("_start", "_stop")]
        made.append(Table(table.columns, tuple(chosen), table.rows, table.stored))
    return Stream(_regroup(made, "group"))


def _pivot(_context: Context, arguments: dict[str, object]) -> Stream:
    row_key, column_key = _names(arguments, "rowKey"), _names(arguments, "columnKey")
    value_column = str(arguments.get("valueColumn", "_value"))
    made: dict[tuple[tuple[str, object], ...], tuple[Table, dict[tuple[object, ...], Record]]] = {}
    for table in _tables(arguments):
        group = tuple(name for name in table.group if name not in (*column_key, value_column))
        kept = [name for name in table.columns if name in group or name in row_key]
        for row in table.rows:
            key = tuple((name, row.get(name)) for name in group)
            target, rows = made.setdefault(key, (Table({name: table.columns[name] for name in kept}, group, []), {}))
            place = tuple(row.get(name) for name in row_key)
            record = rows.get(place)
            if record is None:
                record = rows[place] = {name: row.get(name) for name in kept}
                target.rows.append(record)
            name = "_".join(str(row.get(column)) for column in column_key)
            if name in kept:
                words = f'value "{name}" appears in a column key column, but a column named "{name}" already exists'
                raise RuntimeFault(f'pivot: {words}; consider renaming "{name}" to something else before pivoting')
            if target.columns.setdefault(name, table.columns[value_column]) is not table.columns[value_column]:
                raise RuntimeFault(f'pivot: schema collision detected: column "{name}"')
            record[name] = row.get(value_column)
    return Stream(_by_key([target for target, _ in made.values()]))


def _sort(_context: Context, arguments: dict[str, object]) -> Stream:
    names = _names(arguments) or ["_value"]
    made = []
    for table in _tables(arguments):
        rows = list(table.rows)
        for name in reversed(names):
            descending = arguments.get("desc") is True
            rows.sort(key=lambda row: order_key(row.get(name), nulls_last=False), reverse=descending)
        made.append(_with_rows(table, rows))
    return Stream(made)


def _limit(_context: Context, arguments: dict[str, object]) -> Stream:
    number, offset = int(str(arguments.get("n", 0))), int(str(arguments.get("offset", 0)))
    return Stream([_with_rows(table, table.rows[offset : offset + number]) for table in _tables(arguments)])


def _tail(_context: Context, arguments: dict[str, object]) -> Stream:
    number = int(str(arguments.get("n", 0)))
    return Stream([_with_rows(table, table.rows[-number:]) for table in _tables(arguments)])


def _yield(context: Context, arguments: dict[str, object]) -> Stream:
    tables = _tables(arguments)
    name = str(arguments.get("name", "_result"))
    if any(result.name == name for result in context.results):
        raise QueryError(
            f'error in building plan while starting program: tried to produce more than one result named "{name}"'
        )
    context.results.append(Result(name, tables))
    return Stream(tables)


def _map(_context: Context, arguments: dict[str, object]) -> Stream:
    function = arguments.get("fn")
    assert callable(function)  # noqa: S101 (the language demands it)
    made = []
    for table in _tables(arguments):
        rows = [function({"r": row}) for row in table.rows]
        kinds: dict[str, type] = {}
        for row in rows:
            for name, value in row.items():
                if value is not None:
                    kinds.setdefault(name, type(value))
        columns = {name: kinds[name] for name in sorted(kinds)}
        made.append(Table(columns, tuple(name for name in table.group if name in columns), rows))
    return Stream(_regroup(made, "map"))


def _rename(_context: Context, arguments: dict[str, object]) -> Stream:
    given = arguments.get("columns")
    names = {str(old): str(new) for old, new in given.items()} if isinstance(given, Mapping) else {}
    made = []
    for table in _tables(arguments):
        columns = {names.get(name, name): kind for name, kind in table.columns.items()}
        rows = [{names.get(name, name): value for name, value in row.items()} for row in table.rows]
        made.append(Table(columns, tuple(names.get(name, name) for name in table.group), rows))
    return Stream(made)


def _one_row(pick: Callable[[list[Record], str], Record]) -> Callable[[Context, dict[str, object]], Stream]:
    def apply(_context: Context, arguments: dict[str, object]) -> Stream:
        column = str(arguments.get("column", "_value"))
        made = []
        for table in _tables(arguments):
            rows = [row for row in table.rows if row.get(column) is not None]
            if rows:
                made.append(_with_rows(table, [pick(rows, column)]))
        return Stream(made)

    return apply


def _reduced(reduce: Callable[[list[object]], object]) -> Callable[[Context, dict[str, object]], Stream]:
    def apply(_context: Context, arguments: dict[str, object]) -> Stream:
        column = str(arguments.get("column", "_value"))
        made = []
        for table in _tables(arguments):
            values = [row[column] for row in table.rows if row.get(column) is not None]
            value = reduce(values)
            key = {name: table.rows[0].get(name) for name in table.group} if table.rows else {}
            columns = {name: kind for name, kind in table.columns.items() if name in table.group or name == column}
            columns[column] = type(value)
            made.append(Table(columns, table.group, [{**key, column: value}]))
        return Stream(made)

    return apply


def _convert(kind: Callable[[object], object]) -> Callable[[Context, dict[str, object]], object]:
    return lambda _context, arguments: None if arguments.get("v") is None else kind(arguments["v"])


def _to_time(value: object) -> Time:
    return Time(parse_time(value) if isinstance(value, str) else int(value))  # type: ignore[call-overload]


def _buckets(context: Context, _arguments: dict[str, object]) -> Stream:
    columns = {"name": str, "id": str, "organizationID": str, "retentionPolicy": str, "retentionPeriod": int}
    rows: list[Record] = []
    for name, database in sorted(context.store.databases.items()):
        policy = database.policy()
        period = policy.duration_ns if policy is not None else 0
        row: Record = {"name": name, "id": context.bucket_ids.get(name, ""), "organizationID": context.organization}
        rows.append({**row, "retentionPolicy": "", "retentionPeriod": period})
    return Stream([Table(columns, ("organizationID",), rows)])


def _schema(names: Callable[[Measurement], Sequence[str]]) -> Callable[[Context, dict[str, object]], Stream]:
    def apply(context: Context, arguments: dict[str, object]) -> Stream:
        policy = _from(context, arguments).source
        assert policy is not None  # noqa: S101 (`_from` raises)
        wanted = arguments.get("measurement")
        found = [each for name, each in policy.measurements.items() if wanted is None or _text(name) == wanted]
        values = sorted({name for each in found for name in names(each)})
        return Stream([Table({"_value": str}, (), [{"_value": value} for value in values])])

    return apply


def _tag_keys(measurement: Measurement) -> list[str]:
    return [*map(_text, measurement.tag_keys()), "_start", "_stop", "_field", "_measurement"]


_SCHEMA: dict[str, Callable[[Context, dict[str, object]], object]] = {
    "measurements": _schema(lambda measurement: [_text(measurement.name)]),
    "fieldKeys": _schema(lambda measurement: [*map(_text, measurement.kinds())]),
    "measurementFieldKeys": _schema(lambda measurement: [*map(_text, measurement.kinds())]),
    "tagKeys": _schema(_tag_keys),
    "measurementTagKeys": _schema(_tag_keys),
    "fieldsAsCols": lambda context, arguments: _pivot(
        context, {**arguments, "rowKey": ["_time"], "columnKey": ["_field"], "valueColumn": "_value"}
    ),
}
_FUNCTIONS: dict[str, Callable[[Context, dict[str, object]], object]] = {
    "from": _from,
    "range": _range,
    "filter": _filter,
    "keep": _keep,
    "drop": _drop,
    "group": _group,
    "pivot": _pivot,
    "sort": _sort,
    "limit": _limit,
    "tail": _tail,
    "yield": _yield,
    "map": _map,
    "rename": _rename,
    "buckets": _buckets,
    "first": _one_row(lambda rows, _column: rows[0]),
    "last": _one_row(lambda rows, _column: rows[-1]),
    "min": _one_row(lambda rows, column: min(rows, key=lambda row: order_key(row[column]))),
    "max": _one_row(lambda rows, column: max(rows, key=lambda row: order_key(row[column]))),
    "count": _reduced(len),
    "sum": _reduced(lambda values: sum(values)),  # type: ignore[arg-type]
    "mean": _reduced(lambda values: float(sum(values)) / len(values)),  # type: ignore[arg-type]
    "now": lambda context, _arguments: Time(context.now_ns),
    "time": _convert(_to_time),
    "int": _convert(lambda value: int(value)),  # type: ignore[call-overload]
    "uint": _convert(lambda value: Unsigned(int(value))),  # type: ignore[call-overload]
    "float": _convert(lambda value: float(value)),  # type: ignore[arg-type]
    "string": _convert(str),
    "bool": _convert(bool),
}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
