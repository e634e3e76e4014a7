"""SQL as InfluxDB 3 speaks it, as far as reading back needs: one table, conditions, casts, order, limit, aggregates.

Without ORDER BY rows come in no useful order, and among rows of one time in none at all: nobody may rely on either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeAlias, cast

from iggyflux.sim.plain import Value as Stored
from iggyflux.sim.queries import QueryError
from iggyflux.sim.queries.conditions import (
    MAX_TIME,
    MIN_TIME,
    Call,
    Junction,
    Name,
    Node,
    Reader,
    Row,
    Scalar,
    Value,
    compile_condition,
    compile_value,
    order_key,
    split_time,
)
from iggyflux.sim.queries.tokens import Cursor
from iggyflux.sim.store import TAG, TIME, Database, Measurement, Point, Store

POISONED = (
    "Execution error: error getting batches Error creating record batch: Invalid argument error: "
    "all columns in a record batch must have the same length"
)
AGGREGATES = ("count", "min", "max", "sum", "avg", "mean")
_DATA_TYPES: dict[type | str, str] = {
    float: "Float64",
    int: "Int64",
    list: "UInt64",
    bytes: "Utf8",
    bool: "Boolean",
    TAG: "Dictionary(Int32, Utf8)",
    TIME: "Timestamp(Nanosecond, None)",
}
Columns: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a select list: `*`, or a node with its name in the result.

    `replaced` are the columns of `*` that are something else, by name.
    """

    node: Node | None
    name: str = ""
    is_named: bool = False
    replaced: tuple[tuple[str, Node], ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """An item of ORDER BY."""

    node: Node
    descending: bool


@dataclass(frozen=True, slots=True)
class Select:
    """A select from one table."""

    items: tuple[Item, ...]
    table: tuple[str, ...]
    distinct: bool = False
    condition: Node | None = None
    group: tuple[Node, ...] = ()
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    inner: Select | None = None
    """What stands in parentheses instead of a table."""


@dataclass(slots=True)
class _Table:
    """Rows with their columns; `scan` gives those of a span of time in the order of time."""

    columns: Columns
    scan: Callable[[int, int, bool], Iterator[Row]]


def run(
    store: Store, database: Database, text: str, parameters: Mapping[str, Scalar], now_ns: int
) -> tuple[Columns, Iterable[Sequence[object]]]:
    """The columns and rows of a statement.  Raises `QueryError`, before the first row where it can."""
    cursor = Cursor(text, sql=True)
    if cursor.accept("SHOW"):
        return _show(database, cursor)
    if not cursor.accept("SELECT"):
        raise QueryError(f"SQL error: ParserError: the simulator knows SELECT and SHOW, found {cursor.peek().value!r}")
    select = _select(cursor, Reader(cursor, parameters, now_ns))
    _end(cursor)
    if select.inner is not None:
        return _run(select, _table_of(*_run(select.inner, _table(store, database, select.inner.table))))
    if not select.table:
        row = [
            compile_value(item.node, frozenset(), sql=True)(lambda _name: None) for item in select.items if item.node
        ]
        return [(item.name, "other") for item in select.items], [row]
    return _run(select, _table(store, database, select.table))


# --- reading ---


def _select(cursor: Cursor, reader: Reader) -> Select:
    distinct = cursor.accept("DISTINCT")
    items = [_item(cursor, reader)]
    while cursor.accept(","):
        items.append(_item(cursor, reader))
    if not cursor.accept("FROM"):
        return Select(tuple(items), ())
    inner = None
    table: list[str] = []
    if cursor.accept("("):
        cursor.expect("SELECT")
        inner = _select(cursor, reader)
        cursor.expect(")")
        cursor.expect("AS")
    table.append(_identifier(cursor))
    while cursor.accept("."):
        table.append(_identifier(cursor))
    condition = reader.condition() if cursor.accept("WHERE") else None
    group: list[Node] = []
    if cursor.accept("GROUP", "BY"):
        group.append(reader.value())
        while cursor.accept(","):
            group.append(reader.value())
    order: list[Order] = []
    if cursor.accept("ORDER", "BY"):
        order.append(_order(cursor, reader))
        while cursor.accept(","):
            order.append(_order(cursor, reader))
    limit = _number(cursor) if cursor.accept("LIMIT") else None
    offset = _number(cursor) if cursor.accept("OFFSET") else 0
    if limit is None and cursor.accept("LIMIT"):
        limit = _number(cursor)
    return Select(tuple(items), tuple(table), distinct, condition, tuple(group), tuple(order), limit, offset, inner)


def _end(cursor: Cursor) -> None:
    cursor.accept(";")
    if not cursor.ended():
        raise cursor.unexpected("end of statement (the simulator knows one table and no joins)")


def _item(cursor: Cursor, reader: Reader) -> Item:
    if cursor.accept("*"):
        replaced = []
        if cursor.accept("REPLACE", "("):
            node = reader.value()
            cursor.expect("AS")
            replaced.append((_identifier(cursor), node))
            cursor.expect(")")
        return Item(None, replaced=tuple(replaced))
    node = reader.value()
    if cursor.accept("AS"):
        return Item(node, _identifier(cursor), is_named=True)
    token = cursor.peek()
    if token.kind == "quoted" or (token.kind == "word" and token.value.upper() not in _AFTER_ITEM):
        return Item(node, cursor.name(), is_named=True)
    return Item(node, _name_of(node))


_AFTER_ITEM = frozenset(("FROM", "WHERE", "GROUP", "ORDER", "LIMIT", "OFFSET", "AS"))


def _identifier(cursor: Cursor) -> str:
    bare = cursor.peek().kind == "word"
    name = cursor.name()
    return name.lower() if bare else name


def _order(cursor: Cursor, reader: Reader) -> Order:
    node = reader.value()
    descending = cursor.accept("DESC")
    cursor.accept("ASC")
    if cursor.accept("NULLS"):
        cursor.name()
    return Order(node, descending)


def _number(cursor: Cursor) -> int:
    token = cursor.next()
    if token.kind != "number" or not token.value.isdigit():
        raise cursor.unexpected("number", token)
    return int(token.value)


def _name_of(node: Node) -> str:
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Call):
        if node.function == "cast":
            return _name_of(node.arguments[0])
        return f"{node.function}({', '.join(_name_of(each) for each in node.arguments)})"
    return str(node.value) if isinstance(node, Value) else "expression"


# --- tables ---


def _table(store: Store, database: Database, path: tuple[str, ...]) -> _Table:
    if path[0] == "information_schema":
        return _information_schema(database, path[-1])
    policy = database.policy()
    found = policy.measurements.get(path[-1].encode("utf-8", "surrogateescape")) if policy is not None else None
    if found is None:
        schema = path[-2] if len(path) > 1 else "iox"
        raise QueryError(f"Error during planning: table 'public.{schema}.{path[-1]}' not found")
    if found.poisoned:
        raise QueryError(POISONED)
    return _Table(_columns(found), lambda start, stop, descending: _rows(store, found, start, stop, descending))


def _table_of(columns: Columns, rows: Iterable[Sequence[object]]) -> _Table:
    """What another select gave."""
    names = [name for name, _ in columns]

    def scan(start: int, stop: int, descending: bool) -> Iterator[Row]:
        found = [dict(zip(names, row, strict=True)) for row in rows]
        if "time" in names:
            found = [row for row in found if start <= cast("int", row["time"]) < stop]
            found.sort(key=lambda row: cast("int", row["time"]), reverse=descending)
        return (cast("Row", row.get) for row in found)

    return _Table(columns, scan)


def _columns(measurement: Measurement) -> Columns:
    kinds = measurement.columns.get(0, {})
    return [(_text(name), "time" if kinds[name] is TIME else "other") for name in sorted(kinds)]


def valid_fields(measurement: Measurement) -> str:
    """The columns of a table as errors list them."""
    return ", ".join(_qualified(_text(measurement.name), name) for name, _ in _columns(measurement))


def _qualified(table: str, name: str) -> str:
    return ".".join(part if re.fullmatch(r"[a-z_][a-z0-9_]*", part) else f'"{part}"' for part in (table, name))


def _rows(store: Store, measurement: Measurement, start: int, stop: int, descending: bool) -> Iterator[Row]:
    salt = (start * 40_503 + stop * 9_973) & 0xFFFFFFFF
    for _, ties in groupby(store.scan(measurement, start, stop, descending=descending), key=lambda point: point.time):
        points = list(ties)
        points.sort(key=lambda point: ((point.series.id ^ salt) * 2_654_435_761) & 0xFFFFFFFF)
        yield from map(_lookup, points)


def _lookup(point: Point) -> Row:
    def read(name: str) -> Scalar:
        if name == "time":
            return point.time
        key = name.encode("utf-8", "surrogateescape")
        value = point.fields.get(key)
        if value is None:
            return next((_text(text) for tag, text in point.series.tags if tag == key), None)
        return _scalar(value)

    return read


def _information_schema(database: Database, view: str) -> _Table:
    policy = database.policy()
    measurements = sorted(policy.measurements.values(), key=lambda each: each.name) if policy is not None else []
    if view == "columns":
        heads = ["table_catalog", "table_schema", "table_name", "column_name", "ordinal_position", "column_default"]
        heads += ["is_nullable", "data_type"]
        rows: list[list[object]] = [
            [
                "public",
                "iox",
                _text(each.name),
                name,
                index,
                None,
                "NO" if name == "time" else "YES",
                _data_type(each, name),
            ]
            for each in measurements
            for index, (name, _) in enumerate(_columns(each))
        ]
    elif view == "tables":
        heads, rows = _TABLE_HEADS, _table_rows(measurements)
    else:
        raise QueryError(f"Error during planning: table 'public.information_schema.{view}' not found")
    return _Table(
        [(head, "other") for head in heads],
        lambda _start, _stop, _descending: (_of(dict(zip(heads, row, strict=True))) for row in rows),
    )


def _of(values: dict[str, object]) -> Row:
    def read(name: str) -> Scalar:
        value = values.get(name)
        assert value is None or isinstance(value, str | int)  # noqa: S101 (what the views hold)
        return value

    return read


_TABLE_HEADS = ["table_catalog", "table_schema", "table_name", "table_type"]


def _table_rows(measurements: Iterable[Measurement]) -> list[list[object]]:
    views = ("columns", "df_settings", "parameters", "routines", "schemata", "tables", "views")
    rows: list[list[object]] = [["public", "iox", _text(each.name), "BASE TABLE"] for each in measurements]
    return rows + [["public", "information_schema", view, "VIEW"] for view in views]


def _data_type(measurement: Measurement, name: str) -> str:
    return _DATA_TYPES[measurement.columns[0][name.encode("utf-8", "surrogateescape")]]


def _show(database: Database, cursor: Cursor) -> tuple[Columns, Iterable[Sequence[object]]]:
    policy = database.policy()
    measurements = sorted(policy.measurements.values(), key=lambda each: each.name) if policy is not None else []
    if cursor.accept("TABLES"):
        return [(head, "other") for head in _TABLE_HEADS], _table_rows(measurements)
    if cursor.accept("COLUMNS"):
        if not (cursor.accept("FROM") or cursor.accept("IN")):
            raise cursor.unexpected("FROM or IN")
        name = _identifier(cursor)
        table = _information_schema(database, "columns")
        heads = ["table_catalog", "table_schema", "table_name", "column_name", "data_type", "is_nullable"]
        rows: list[list[object]] = [
            [row(head) for head in heads] for row in table.scan(MIN_TIME, MAX_TIME, False) if row("table_name") == name
        ]
        return [(head, "other") for head in heads], rows
    raise cursor.unexpected("TABLES or COLUMNS (the simulator knows no more)")


# --- running ---


def _run(select: Select, table: _Table) -> tuple[Columns, Iterable[Sequence[object]]]:
    known = {name for name, _ in table.columns}
    _check_names(select, known, table)
    start, stop, rest = split_time(select.condition) if "time" in known else (MIN_TIME, MAX_TIME, select.condition)
    truth = compile_condition(rest, frozenset(), sql=True)
    by_time = bool(select.order) and _is_time(select.order[0].node)
    rows: Iterator[Row] = (
        row for row in table.scan(start, stop, by_time and select.order[0].descending) if rest is None or truth(row)
    )
    if select.group or any(_is_aggregate(item.node) for item in select.items):
        columns, found = _aggregate(select, rows, table)
        return columns, _cut(found, select)
    _check_unique(select)
    columns = [
        pair
        for item in select.items
        for pair in (_all_of(item, table) if item.node is None else [(item.name, _kind(item.node, table))])
    ]
    readers: list[Callable[[Row], object]] = []
    for item in select.items:
        readers += (
            [_reader(name, item) for name, _ in table.columns]
            if item.node is None
            else [compile_value(item.node, frozenset(), sql=True)]
        )
    if not select.order:
        ordered = _scrambled(rows)
    elif by_time and len(select.order) == 1:
        ordered = rows
    else:
        ordered = iter(_sorted(list(rows), select.order))
    made: Iterator[Sequence[object]] = ([read(row) for read in readers] for row in ordered)
    if select.distinct:
        made = iter(list(dict.fromkeys(tuple(row) for row in made)))
    return columns, _cut(made, select)


def _scrambled(rows: Iterator[Row]) -> Iterator[Row]:
    """Rows in an order that is surely not that of time: blocks, the later half of each first."""
    while block := list(islice(rows, 1_000)):
        middle = len(block) // 2
        yield from block[middle:]
        yield from block[:middle]


def _sorted(rows: list[Row], order: Sequence[Order]) -> list[Row]:
    for item in reversed(order):
        value = compile_value(item.node, frozenset(), sql=True)
        rows.sort(key=lambda row: order_key(value(row)), reverse=item.descending)
    return rows


def _cut(rows: Iterable[Sequence[object]], select: Select) -> Iterable[Sequence[object]]:
    if select.limit is None and not select.offset:
        return rows
    return islice(rows, select.offset, None if select.limit is None else select.offset + select.limit)


def _all_of(item: Item, table: _Table) -> Columns:
    replaced = dict(item.replaced)
    return [(name, _kind(replaced[name], table) if name in replaced else kind) for name, kind in table.columns]


def _reader(name: str, item: Item) -> Callable[[Row], object]:
    replaced = dict(item.replaced)
    if name in replaced:
        return compile_value(replaced[name], frozenset(), sql=True)
    return lambda row: row(name)


def _is_time(node: Node) -> bool:
    return isinstance(node, Name) and node.name == "time"


def _kind(node: Node, table: _Table) -> str:
    if isinstance(node, Name):
        return dict(table.columns).get(node.name, "other")
    if isinstance(node, Call) and node.function in ("min", "max"):
        return _kind(node.arguments[0], table)
    if isinstance(node, Call) and node.function == "cast" and isinstance(node.arguments[1], Value):
        return "time" if str(node.arguments[1].value).startswith("timestamp") else "other"
    return "other"


def _is_aggregate(node: Node | None) -> bool:
    if isinstance(node, Call) and node.function == "cast":
        return _is_aggregate(node.arguments[0])
    return isinstance(node, Call) and node.function in AGGREGATES


def _check_names(select: Select, known: set[str], table: _Table) -> None:
    nodes = [item.node for item in select.items if item.node is not None] + [*select.group]
    nodes += [select.condition] if select.condition is not None else []
    aliases = {item.name for item in select.items if item.node is not None}
    later = [name for each in select.order for name in _names(each.node) if name not in aliases]
    for name in (*(name for node in nodes for name in _names(node)), *later):
        if name not in known and name != "*":
            valid = ", ".join(_qualified(select.table[-1], each) for each, _ in table.columns)
            raise QueryError(f"Schema error: No field named {name}." + (f" Valid fields are {valid}." if valid else ""))


def _check_unique(select: Select) -> None:
    """A cast keeps the name of its column, so ordering by the column itself needs an alias."""
    plain = {item.name for item in select.items if isinstance(item.node, Name)}
    for position, item in enumerate(select.items):
        if not isinstance(item.node, Call) or item.is_named or item.name in plain:
            continue
        if any(isinstance(each.node, Name) and each.node.name == item.name for each in select.order):
            whole = _qualified(select.table[-1], item.name)
            words = f'the expression "CAST({whole} AS Int64)" at position {position} and "{whole}" at position'
            raise QueryError(
                f"Error during planning: Projections require unique expression names but {words} {len(select.items)} "
                'have the same name. Consider aliasing ("AS") one of them.'
            )


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, Name):
        yield node.name
    elif isinstance(node, Call):
        for each in node.arguments:
            yield from _names(each)
    elif isinstance(node, Junction):
        for each in node.parts:
            yield from _names(each)
    elif not isinstance(node, Value):
        yield from _names(node.left)
        yield from _names(node.right)


def _aggregate(select: Select, rows: Iterable[Row], table: _Table) -> tuple[Columns, list[Sequence[object]]]:
    keys = [compile_value(node, frozenset(), sql=True) for node in select.group]
    groups: dict[tuple[Scalar, ...], list[Row]] = {} if keys else {(): []}
    for row in rows:
        groups.setdefault(tuple(key(row) for key in keys), []).append(row)
    columns: Columns = []
    makers: list[Callable[[list[Row]], object]] = []
    for item in select.items:
        if item.node is None:
            raise QueryError("Error during planning: the simulator does not know * beside an aggregate")
        columns.append((item.name if item.is_named else _aggregate_name(item.node, select), _kind(item.node, table)))
        makers.append(_maker(item.node))
    found: list[Sequence[object]] = [[make(members) for make in makers] for members in groups.values()]
    names = [name for name, _ in columns]
    for order in reversed(select.order):
        name = _name_of(order.node)
        if name not in names:
            raise QueryError(f"Schema error: No field named {name}.")
        index = names.index(name)
        found.sort(key=lambda row: order_key(row[index]), reverse=order.descending)
    return columns, found


def _aggregate_name(node: Node, select: Select) -> str:
    if isinstance(node, Call) and node.function in AGGREGATES:
        parts = (
            _qualified(select.table[-1], each.name) if isinstance(each, Name) and each.name != "*" else _name_of(each)
            for each in node.arguments
        )
        return f"{node.function}({', '.join(parts)})"
    return _name_of(node)


def _maker(node: Node) -> Callable[[list[Row]], object]:
    if isinstance(node, Call) and node.function == "cast" and _is_aggregate(node.arguments[0]):
        inner = _maker(node.arguments[0])
        convert = compile_value(Call("cast", (Name("value"), node.arguments[1])), frozenset(), sql=True)
        return lambda members: convert(lambda _name: inner(members))  # type: ignore[arg-type,return-value]
    if not (isinstance(node, Call) and node.function in AGGREGATES):
        value = compile_value(node, frozenset(), sql=True)
        return lambda members: value(members[0]) if members else None
    argument = node.arguments[0] if node.arguments else Value(1)
    if node.function == "count" and (isinstance(argument, Value) or argument == Name("*")):
        return len
    read = compile_value(argument, frozenset(), sql=True)
    reduce = _REDUCERS[node.function]

    def make(members: list[Row]) -> object:
        values: list[Scalar] = [value for row in members if (value := read(row)) is not None]
        return reduce(values) if values or node.function == "count" else None

    return make


_REDUCERS: dict[str, Callable[[list[Scalar]], object]] = {
    "count": len,
    "min": min,  # type: ignore[dict-item]  # one column has one type
    "max": max,  # type: ignore[dict-item]
    "sum": sum,  # type: ignore[dict-item]
    "avg": lambda values: sum(values) / len(values),  # type: ignore[arg-type]
    "mean": lambda values: sum(values) / len(values),  # type: ignore[arg-type]
}


def _scalar(value: Stored) -> Scalar:
    if isinstance(value, list):
        return value[0]
    return _text(value) if isinstance(value, bytes) else value


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
