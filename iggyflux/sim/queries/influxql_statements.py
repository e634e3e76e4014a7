"""The InfluxQL statements that the simulator supports, and their parser.

Statements that only a real server supports are `Unsupported`; invalid ones raise `ParseError` in the server's words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from iggyflux.sim.queries import ParseError, Unsupported
from iggyflux.sim.queries.influxql_conditions import ConditionParser, Node, Parameters
from iggyflux.sim.queries.tokens import TokenCursor, duration_ns

STATEMENTS = ("SELECT", "DELETE", "SHOW", "CREATE", "DROP", "EXPLAIN", "GRANT", "REVOKE", "ALTER", "SET", "KILL")
AGGREGATES = ("count", "sum", "mean", "min", "max", "first", "last")
LISTINGS = ("MEASUREMENTS", "FIELD KEYS", "TAG KEYS", "SERIES")
"""The schema listings of `SHOW`, beside databases and retention policies."""
_UNSUPPORTED_CLAUSES = ("INTO", "FILL", "SLIMIT", "SOFFSET", "TZ")


class SelectItem(NamedTuple):
    """One item of a select list: a name or `*`, the type after `::`, the function around it, its alias."""

    name: str
    cast: str | None = None
    function: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class MeasurementSource:
    """A measurement by name or by pattern, with database and policy if given."""

    name: str
    is_pattern: bool = False
    database: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """A select statement.

    `source` is a measurement or, for `SELECT * FROM (…)`, another select.  `group` is None without GROUP BY, `("*",)`
    for all tags.
    """

    items: tuple[SelectItem, ...]
    source: MeasurementSource | Select
    condition: Node | None = None
    group: tuple[str, ...] | None = None
    descending: bool = False
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Show:
    """A SHOW statement: `what` such as `FIELD KEYS`.

    `hides_unreadable` omits the fields of measurements that cannot be read (1.x).
    """

    what: str
    database: str | None = None
    source: MeasurementSource | None = None
    condition: Node | None = None
    limit: int = 0
    offset: int = 0
    hides_unreadable: bool = False


@dataclass(frozen=True, slots=True)
class ChangeStatement:
    """A statement that changes the store: `what` such as `CREATE DATABASE`."""

    what: str
    name: str = ""
    database: str | None = None
    policy: str = ""
    duration_ns: int | None = None
    shard_ns: int | None = None
    is_default: bool = False
    source: MeasurementSource | None = None
    condition: Node | None = None


Statement: TypeAlias = Select | Show | ChangeStatement


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows of one series of a result; the first column of a select is `time`.  Values are as stored, strings bytes."""

    name: str
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]
    tags: Mapping[str, str] = field(default_factory=dict)


def parse(text: str, parameters: Parameters, now_ns: int) -> list[Statement]:
    """Return the statements of a query.  Raise `ParseError`."""
    try:
        return _parse_statements(text, parameters, now_ns)
    except RecursionError:
        raise ParseError("the query is nested too deep") from None


def _parse_statements(text: str, parameters: Parameters, now_ns: int) -> list[Statement]:
    cursor = TokenCursor(text)
    statements: list[Statement] = []
    while True:
        while cursor.accept(";"):
            pass
        if cursor.peek().kind == "end" and statements:
            return statements
        statements.append(_parse_statement(cursor, ConditionParser(cursor, parameters, now_ns)))
        if not cursor.ended():
            raise cursor.unexpected(";")


def _parse_statement(cursor: TokenCursor, conditions: ConditionParser) -> Statement:
    token = cursor.peek()
    word = token.value.upper() if token.kind == "word" else ""
    if word not in STATEMENTS:
        raise cursor.unexpected(", ".join(STATEMENTS))
    cursor.next()
    if word not in _PARSERS:
        raise Unsupported(word)
    return _PARSERS[word](cursor, conditions)


# --- SELECT ---


def _parse_select(cursor: TokenCursor, conditions: ConditionParser) -> Select:
    items = [_parse_item(cursor)]
    while cursor.accept(","):
        items.append(_parse_item(cursor))
    _refuse_clauses(cursor)
    cursor.expect("FROM")
    if cursor.accept("("):
        return _parse_outer_select(cursor, conditions, items)
    source = _parse_source(cursor)
    condition = conditions.parse() if cursor.accept("WHERE") else None
    group = _parse_group(cursor) if cursor.accept("GROUP", "BY") else None
    descending = _parse_order(cursor)
    limit, offset = _parse_limits(cursor)
    return Select(tuple(items), source, condition, group, descending, limit, offset)


def _parse_outer_select(cursor: TokenCursor, conditions: ConditionParser, items: list[SelectItem]) -> Select:
    """Parse what follows `SELECT … FROM (`: only the form that finds the first row of a statement."""
    cursor.expect("SELECT")
    inner = _parse_select(cursor, conditions)
    cursor.expect(")")
    if items != [SelectItem("*")] or _parse_order(cursor):
        raise Unsupported("a subquery other than SELECT * FROM (…) ORDER BY time")
    limit, offset = _parse_limits(cursor)
    if not cursor.ended():
        raise Unsupported("a subquery other than SELECT * FROM (…) ORDER BY time")
    return Select(tuple(items), inner, limit=limit, offset=offset)


def _parse_item(cursor: TokenCursor) -> SelectItem:
    if cursor.accept("*"):
        return SelectItem("*", _parse_cast(cursor))
    is_quoted = cursor.peek().kind == "quoted"
    if cursor.peek().kind not in ("word", "quoted"):
        raise Unsupported("an expression in the select list")
    name = cursor.name()
    item = (
        SelectItem(name, _parse_cast(cursor)) if is_quoted or not cursor.accept("(") else _parse_aggregate(cursor, name)
    )
    token = cursor.peek()
    if token.kind == "symbol" and token.value in "+-*/%&|^":
        raise Unsupported("an expression in the select list")
    return item._replace(alias=cursor.name()) if cursor.accept("AS") else item


def _parse_aggregate(cursor: TokenCursor, name: str) -> SelectItem:
    function = name.lower()
    if function not in AGGREGATES:
        raise Unsupported(f"the function {name}()")
    argument = "*" if cursor.accept("*") else cursor.name()
    if not cursor.accept(")"):
        raise Unsupported(f"an expression in {name}()")
    return SelectItem(argument, function=function)


def _parse_cast(cursor: TokenCursor) -> str | None:
    return cursor.name().lower() if cursor.accept("::") else None


def _parse_source(cursor: TokenCursor) -> MeasurementSource:
    pattern = cursor.pattern()
    if pattern is not None:
        return MeasurementSource(pattern, is_pattern=True)
    names: list[str] = [cursor.name()]
    while cursor.accept("."):
        names.append("" if cursor.peek().value == "." else cursor.name())
    if cursor.accept(","):
        raise Unsupported("a select from several measurements by name")
    *before, name = names
    policy = before[-1] if before else ""
    return MeasurementSource(name, database=before[0] if len(before) > 1 else None, policy=policy or None)


def _parse_group(cursor: TokenCursor) -> tuple[str, ...]:
    names = []
    while True:
        if cursor.accept("*"):
            names.append("*")
        elif cursor.accept("time", "("):
            raise Unsupported("GROUP BY time()")
        elif cursor.pattern() is not None:
            raise Unsupported("GROUP BY a regular expression")
        else:
            names.append(cursor.name())
            _parse_cast(cursor)
        if not cursor.accept(","):
            return ("*",) if "*" in names else tuple(names)


def _parse_order(cursor: TokenCursor) -> bool:
    """Return whether the statement orders rows by descending time."""
    _refuse_clauses(cursor)
    if not cursor.accept("ORDER", "BY"):
        return False
    cursor.accept("time")
    descending = cursor.accept("DESC")
    cursor.accept("ASC")
    return descending


def _parse_limits(cursor: TokenCursor) -> tuple[int, int]:
    limit = _parse_number(cursor) if cursor.accept("LIMIT") else 0
    offset = _parse_number(cursor) if cursor.accept("OFFSET") else 0
    _refuse_clauses(cursor)
    return limit, offset


def _refuse_clauses(cursor: TokenCursor) -> None:
    token = cursor.peek()
    if token.kind == "word" and token.value.upper() in _UNSUPPORTED_CLAUSES:
        raise Unsupported(token.value.upper())


def _parse_number(cursor: TokenCursor) -> int:
    token = cursor.next()
    if token.kind != "number" or not token.value.isdigit():
        raise cursor.unexpected("integer", token)
    return int(token.value)


# --- SHOW ---


def _parse_show(cursor: TokenCursor, conditions: ConditionParser) -> Show:
    if cursor.accept("DATABASES"):
        return Show("DATABASES")
    if cursor.accept("RETENTION", "POLICIES"):
        return Show("RETENTION POLICIES", cursor.name() if cursor.accept("ON") else None)
    for what in LISTINGS:
        if cursor.accept(*what.split()):
            return _parse_listing(cursor, conditions, what)
    if cursor.peek().kind == "word":
        raise Unsupported(f"SHOW {cursor.next().value.upper()} {cursor.peek().value.upper()}".rstrip())
    raise cursor.unexpected(", ".join(("DATABASES", "RETENTION POLICIES", *LISTINGS)))


def _parse_listing(cursor: TokenCursor, conditions: ConditionParser, what: str) -> Show:
    database = cursor.name() if cursor.accept("ON") else None
    if cursor.accept("WITH"):
        raise Unsupported(f"SHOW {what} WITH")
    source = _parse_source(cursor) if cursor.accept("FROM") else None
    condition = conditions.parse() if cursor.accept("WHERE") else None
    limit, offset = _parse_limits(cursor)
    return Show(what, database, source, condition, limit, offset)


# --- CREATE, DROP, DELETE ---


def _parse_create(cursor: TokenCursor, _conditions: ConditionParser) -> ChangeStatement:
    if cursor.accept("DATABASE"):
        change = ChangeStatement("CREATE DATABASE", cursor.name())
        return _parse_policy_options(cursor, change) if cursor.accept("WITH") else change
    if not cursor.accept("RETENTION", "POLICY"):
        raise Unsupported(f"CREATE {cursor.peek().value.upper()}")
    name = cursor.name()
    cursor.expect("ON")
    return _parse_policy_options(cursor, ChangeStatement("CREATE RETENTION POLICY", name, cursor.name()))


def _parse_policy_options(cursor: TokenCursor, change: ChangeStatement) -> ChangeStatement:
    options: dict[str, Any] = {}
    while True:
        if cursor.accept("DURATION"):
            token = cursor.next()
            options["duration_ns"] = 0 if token.value.upper() == "INF" else duration_ns(token.value)
        elif cursor.accept("REPLICATION"):
            _parse_number(cursor)
        elif cursor.accept("SHARD", "DURATION"):
            options["shard_ns"] = duration_ns(cursor.next().value)
        elif cursor.accept("NAME"):
            options["policy"] = cursor.name()
        elif cursor.accept("DEFAULT"):
            options["is_default"] = True
        else:
            return replace(change, **options)


def _parse_drop(cursor: TokenCursor, _conditions: ConditionParser) -> ChangeStatement:
    if not cursor.accept("DATABASE"):
        raise Unsupported(f"DROP {cursor.peek().value.upper()}")
    return ChangeStatement("DROP DATABASE", cursor.name())


def _parse_delete(cursor: TokenCursor, conditions: ConditionParser) -> ChangeStatement:
    source = _parse_source(cursor) if cursor.accept("FROM") else None
    condition = conditions.parse() if cursor.accept("WHERE") else None
    return ChangeStatement("DELETE", source=source, condition=condition)


_PARSERS: dict[str, Callable[[TokenCursor, ConditionParser], Statement]] = {
    "SELECT": _parse_select,
    "SHOW": _parse_show,
    "CREATE": _parse_create,
    "DROP": _parse_drop,
    "DELETE": _parse_delete,
}
