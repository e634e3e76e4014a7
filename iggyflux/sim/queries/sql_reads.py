"""The SQL that iggyflux itself sends: rows of a span, the first time, the columns of a table.

The forms are those of `transports.influxdb.query.statements`; other statements are not parsed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from iggyflux.sim.queries import ParseError, QueryError
from iggyflux.sim.queries.points import look_up, read_points
from iggyflux.sim.queries.scalars import MAX_TIME, MIN_TIME, Row
from iggyflux.sim.queries.sql_tables import DATA_TYPES, SqlRows, columns_of, find_table, tables_of, valid_fields
from iggyflux.sim.queries.tokens import TokenCursor
from iggyflux.sim.store import TIME, Database, Measurement, Store


@dataclass(slots=True)
class ReadStatement:
    """A statement: what it selects (`rows`, `first` or `columns`) from which table, with the conditions.

    `items` are names of columns, `start` and `stop` bound `time`, `equal` are the allowed strings of a column,
    `present` names columns of which one must have a value.
    """

    what: str
    table: str = ""
    items: list[str] = field(default_factory=list)
    start: int = MIN_TIME
    stop: int = MAX_TIME
    equal: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    present: list[str] = field(default_factory=list)


def parse_read(text: str) -> ReadStatement | None:
    """Return the statement, or None if it is not one of iggyflux."""
    cursor = TokenCursor(text, sql=True)
    try:
        cursor.expect("SELECT")
        read = _parse_items(cursor)
        cursor.expect("FROM")
        source = _parse_path(cursor)
        cursor.expect("WHERE")
        _parse_condition(cursor, read)
        while cursor.accept("AND"):
            _parse_condition(cursor, read)
        order = _parse_path(cursor) if cursor.accept("ORDER", "BY") else None
        if cursor.peek().kind != "end":
            return None
    except ParseError:
        return None
    return _checked(read, source, order)


def _checked(read: ReadStatement, source: tuple[str, ...], order: tuple[str, ...] | None) -> ReadStatement | None:
    """Return the statement with its table if its parts belong together."""
    if source == ("information_schema", "columns") and read.items == ["column_name", "data_type"]:
        named = dict(read.equal)
        is_known = set(named) in ({"table_name"}, {"table_name", "table_schema"}) and len(named["table_name"]) == 1
        if not is_known or named.get("table_schema", {"iox"}) != {"iox"} or order not in (None, ("column_name",)):
            return None
        (read.table,) = named["table_name"]
        read.what = "columns"
        return read
    if (
        source == ("system", "parquet_files")
        and read.what == "first_file"
        and [len(values) for _, values in read.equal] == [1]
    ):
        (read.table,) = read.equal[0][1]
        return read
    if len(source) != 1 or read.what == "first_file" or order != (("time",) if read.what == "rows" else None):
        return None
    read.table = source[0]
    return read


def _parse_items(cursor: TokenCursor) -> ReadStatement:
    """Parse `cast("time" AS bigint) AS "time", names …`, `cast(min(…) AS bigint) AS first`, or names alone."""
    read = ReadStatement("names")
    if cursor.accept("cast", "("):
        is_least = cursor.accept("min", "(")
        name = cursor.name()
        if is_least:
            cursor.expect(")")
        cursor.expect("AS", "bigint", ")", "AS")
        alias = cursor.name()
        forms = {(True, "time", "first"): "first", (True, "min_time", "first"): "first_file"}
        forms[False, "time", "time"] = "rows"
        read.what = forms.get((is_least, name, alias), "unknown")
        if read.what == "unknown" or not (read.what == "rows" and cursor.accept(",")):
            return read
    read.items.append(cursor.name())
    while cursor.accept(","):
        read.items.append(cursor.name())
    return read


def _parse_path(cursor: TokenCursor) -> tuple[str, ...]:
    names = [cursor.name()]
    while cursor.accept("."):
        names.append(cursor.name())
    return tuple(names)


def _parse_condition(cursor: TokenCursor, read: ReadStatement) -> None:
    if cursor.accept("("):
        read.present.append(_parse_present(cursor))
        while cursor.accept("OR"):
            read.present.append(_parse_present(cursor))
        cursor.expect(")")
        return
    name = cursor.name()
    if cursor.accept("IN", "("):
        values = [_parse_text(cursor)]
        while cursor.accept(","):
            values.append(_parse_text(cursor))
        cursor.expect(")")
        read.equal.append((name, frozenset(values)))
    elif cursor.accept("="):
        read.equal.append((name, frozenset((_parse_text(cursor),))))
    elif name == "time" and cursor.accept(">="):
        read.start = _parse_time(cursor)
    elif name == "time" and cursor.accept("<"):
        read.stop = _parse_time(cursor)
    else:
        raise cursor.unexpected("a condition")


def _parse_present(cursor: TokenCursor) -> str:
    name = cursor.name()
    cursor.expect("IS", "NOT", "NULL")
    return name


def _parse_text(cursor: TokenCursor) -> str:
    token = cursor.next()
    if token.kind != "string":
        raise cursor.unexpected("a text", token)
    return token.value


def _parse_time(cursor: TokenCursor) -> int:
    cursor.expect("to_timestamp_nanos", "(")
    sign = -1 if cursor.accept("-") else 1
    token = cursor.next()
    if token.kind != "number" or not token.value.isdigit():
        raise cursor.unexpected("a time", token)
    cursor.expect(")")
    return sign * int(token.value)


def run_read(store: Store, database: Database, read: ReadStatement) -> SqlRows:
    """Return the columns and rows of a statement.  Raise `QueryError`."""
    if read.what == "columns":
        found = tables_of(database).get(read.table)
        rows = [[name, DATA_TYPES[kind]] for name, kind in columns_of(found).items()] if found is not None else []
        return [("column_name", "other"), ("data_type", "other")], rows
    if read.what == "first_file":
        found = tables_of(database).get(read.table)
        first = next(store.scan(found, MIN_TIME, MAX_TIME), None) if found is not None else None
        return [("first", "other")], [[first and first.time]]
    table = find_table(database, read.table)
    _check_names(table, read)
    points = read_points(store, table, (read.start, read.stop), _condition(read), descending=False)
    if read.what == "first":
        first = next(points, None)
        return [("first", "other")], [[first and first.time]]
    columns = [("time", "other"), *((name, "other") for name in read.items)]
    return columns, ([point.time, *map(look_up(point), read.items)] for point in points)


def _check_names(table: Measurement, read: ReadStatement) -> None:
    known = columns_of(table)
    if known.get("time") is not TIME:
        raise QueryError(f"Schema error: No field named time. Valid fields are {valid_fields(table)}.")
    for name in (*read.items, *read.present, *(name for name, _ in read.equal)):
        if name not in known:
            raise QueryError(f"Schema error: No field named {name}. Valid fields are {valid_fields(table)}.")


def _condition(read: ReadStatement) -> Callable[[Row], bool]:
    def is_wanted(row: Row) -> bool:
        if not all(row(name) in values for name, values in read.equal):
            return False
        return not read.present or any(row(name) is not None for name in read.present)

    return is_wanted
