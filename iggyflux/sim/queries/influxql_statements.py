"""Statements of InfluxQL: what they are made of, and how their text is read.  What they give is `influxql`'s."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from iggyflux.sim.queries import ParseError
from iggyflux.sim.queries.conditions import Node, Parameters, Reader
from iggyflux.sim.queries.tokens import Cursor, duration_ns

STATEMENTS = ("SELECT", "DELETE", "SHOW", "CREATE", "DROP")
AGGREGATES = ("count", "sum", "mean", "min", "max", "first", "last")


class Item(NamedTuple):
    """One item of a select list: a name or `*`, what stands after `::`, the function round it, its alias."""

    name: str
    cast: str | None = None
    function: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a select reads: a measurement by name or by pattern, with database and policy where they are named."""

    name: str
    is_pattern: bool = False
    database: str | None = None
    policy: str | None = None
    inner: Select | None = None
    """What stands in parentheses instead of a name."""


@dataclass(frozen=True, slots=True)
class Select:
    """A select statement; `group` is None without GROUP BY, `("*",)` for all tags."""

    items: tuple[Item, ...]
    sources: tuple[Source, ...]
    condition: Node | None = None
    group: tuple[str, ...] | None = None
    descending: bool = False
    limit: int = 0
    offset: int = 0
    series_limit: int = 0
    series_offset: int = 0


@dataclass(frozen=True, slots=True)
class Show:
    """A SHOW statement: `what` such as `FIELD KEYS`; `keys` are those of SHOW TAG VALUES.

    `hides_unreadable` leaves out the fields of measurements that cannot be read (1.x); `since_ns` leaves out series
    without newer points (3.x), by the ids in `only`."""

    what: str
    database: str | None = None
    sources: tuple[Source, ...] = ()
    condition: Node | None = None
    keys: Callable[[str], bool] | None = None
    limit: int = 0
    offset: int = 0
    hides_unreadable: bool = False
    since_ns: int | None = None
    only: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A statement that changes the store: `what` such as `CREATE DATABASE`."""

    what: str
    name: str = ""
    database: str | None = None
    duration_ns: int | None = None
    is_default: bool = False
    sources: tuple[Source, ...] = ()
    condition: Node | None = None
    shard_ns: int | None = None


Statement: TypeAlias = Select | Show | Change


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows of one series of a result; the first column of a select is `time`.  Values are as stored, strings bytes."""

    name: str
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]
    tags: Mapping[str, str] = field(default_factory=dict)


def parse(text: str, parameters: Parameters, now_ns: int) -> list[Statement]:
    """The statements of a query.  Raises `ParseError`."""
    cursor = Cursor(text)
    statements: list[Statement] = []
    while True:
        while cursor.accept(";"):
            pass
        if cursor.peek().kind == "end":
            break
        statements.append(_statement(cursor, Reader(cursor, parameters, now_ns)))
        if not cursor.ended():
            raise cursor.unexpected(";")
    if not statements:
        raise cursor.unexpected(", ".join((*STATEMENTS, "EXPLAIN", "GRANT", "REVOKE", "ALTER", "SET", "KILL")))
    return statements


def _statement(cursor: Cursor, reader: Reader) -> Statement:
    for word, read in (("SELECT", _select), ("SHOW", _show), ("CREATE", _create), ("DROP", _drop), ("DELETE", _delete)):
        if cursor.accept(word):
            return read(cursor, reader)
    raise cursor.unexpected(", ".join((*STATEMENTS, "EXPLAIN", "GRANT", "REVOKE", "ALTER", "SET", "KILL")))


def _select(cursor: Cursor, reader: Reader) -> Select:
    items = [_item(cursor)]
    while cursor.accept(","):
        items.append(_item(cursor))
    cursor.expect("FROM")
    sources = _sources(cursor, reader)
    condition = reader.condition() if cursor.accept("WHERE") else None
    group = _group(cursor) if cursor.accept("GROUP", "BY") else None
    descending = False
    if cursor.accept("ORDER", "BY"):
        cursor.accept("time")
        descending = cursor.accept("DESC")
        cursor.accept("ASC")
    numbers = _numbers(cursor)
    if cursor.accept("tz", "("):
        raise ParseError("the simulator does not know tz()")
    if any(source.inner for source in sources) and (items != [Item("*")] or condition or group or descending):
        raise ParseError("the simulator does not know subqueries but SELECT * FROM (…) ORDER BY time")
    return Select(tuple(items), sources, condition, group, descending, *numbers)


def _item(cursor: Cursor) -> Item:
    if cursor.accept("*"):
        return Item("*", cursor.name().lower() if cursor.accept("::") else None)
    quoted = cursor.peek().kind == "quoted"
    name = cursor.name()
    if not quoted and cursor.accept("("):
        if name.lower() not in AGGREGATES:
            raise ParseError(f"the simulator does not know the function {name}(): only {', '.join(AGGREGATES)}")
        inner = (
            Item("*")
            if cursor.accept("*")
            else Item(cursor.name(), cursor.name().lower() if cursor.accept("::") else None)
        )
        cursor.expect(")")
        return Item(inner.name, inner.cast, name.lower(), cursor.name() if cursor.accept("AS") else None)
    cast = cursor.name().lower() if cursor.accept("::") else None
    return Item(name, cast, None, cursor.name() if cursor.accept("AS") else None)


def _sources(cursor: Cursor, reader: Reader | None = None) -> tuple[Source, ...]:
    sources = [_source(cursor, reader)]
    while cursor.accept(","):
        sources.append(_source(cursor, reader))
    return tuple(sources)


def _source(cursor: Cursor, reader: Reader | None) -> Source:
    pattern = cursor.pattern()
    if pattern is not None:
        return Source(pattern, is_pattern=True)
    if reader is not None and cursor.accept("("):
        cursor.expect("SELECT")
        inner = _select(cursor, reader)
        cursor.expect(")")
        return Source("", inner=inner)
    names: list[str] = [cursor.name()]
    while cursor.accept("."):
        names.append("" if cursor.peek().value == "." else cursor.name())
    if len(names) == 1:
        return Source(names[0])
    if len(names) == 2:
        return Source(names[1], policy=names[0])
    return Source(names[2], database=names[0], policy=names[1] or None)


def _group(cursor: Cursor) -> tuple[str, ...]:
    names = []
    while True:
        if cursor.accept("*"):
            names.append("*")
        elif cursor.accept("time", "("):
            raise ParseError("the simulator does not know GROUP BY time()")
        else:
            names.append(cursor.name())
            if cursor.accept("::"):
                cursor.name()
        if not cursor.accept(","):
            return ("*",) if "*" in names else tuple(names)


def _numbers(cursor: Cursor) -> tuple[int, int, int, int]:
    words = ("LIMIT", "OFFSET", "SLIMIT", "SOFFSET")
    limit, offset, series_limit, series_offset = (_number(cursor) if cursor.accept(word) else 0 for word in words)
    return limit, offset, series_limit, series_offset


def _number(cursor: Cursor) -> int:
    token = cursor.next()
    if token.kind != "number" or not token.value.isdigit():
        raise cursor.unexpected("integer", token)
    return int(token.value)


def _show(cursor: Cursor, reader: Reader) -> Show:
    if cursor.accept("DATABASES"):
        return Show("DATABASES")
    if cursor.accept("RETENTION", "POLICIES"):
        return Show("RETENTION POLICIES", cursor.name() if cursor.accept("ON") else None)
    for what in ("MEASUREMENTS", "FIELD KEYS", "TAG KEYS", "TAG VALUES", "SERIES"):
        if cursor.accept(*what.split()):
            return _show_names(cursor, reader, what)
    known = "DATABASES, RETENTION POLICIES, MEASUREMENTS, FIELD KEYS, TAG KEYS, TAG VALUES, SERIES"
    raise cursor.unexpected(f"{known} (the simulator knows no more)")


def _show_names(cursor: Cursor, reader: Reader, what: str) -> Show:
    database = cursor.name() if cursor.accept("ON") else None
    sources: tuple[Source, ...] = ()
    keys: Callable[[str], bool] | None = None
    if cursor.accept("WITH", "MEASUREMENT"):
        if cursor.accept("=~"):
            sources = (Source(cursor.pattern() or "", is_pattern=True),)
        else:
            cursor.expect("=")
            sources = (Source(cursor.name()),)
    if cursor.accept("FROM"):
        sources = _sources(cursor)
    if what == "TAG VALUES":
        cursor.expect("WITH", "KEY")
        keys = _keys(cursor)
    condition = reader.condition() if cursor.accept("WHERE") else None
    if cursor.accept("ORDER", "BY"):
        cursor.name()
        _ = cursor.accept("ASC") or cursor.accept("DESC")
    limit, offset, _, _ = _numbers(cursor)
    return Show(what, database, sources, condition, keys, limit, offset)


def _keys(cursor: Cursor) -> Callable[[str], bool]:
    if cursor.accept("IN", "("):
        names = [cursor.name()]
        while cursor.accept(","):
            names.append(cursor.name())
        cursor.expect(")")
        return lambda key: key in names
    if cursor.accept("=~"):
        pattern = re.compile(cursor.pattern() or "")
        return lambda key: pattern.search(key) is not None
    cursor.expect("=")
    name = cursor.name()
    return lambda key: key == name


def _create(cursor: Cursor, _reader: Reader) -> Change:
    if cursor.accept("DATABASE"):
        name = cursor.name()
        duration, shard, policy = None, None, ""
        if cursor.accept("WITH"):
            duration, shard, policy, _ = _policy_options(cursor)
        return Change("CREATE DATABASE", name, policy or None, duration, shard_ns=shard)
    cursor.expect("RETENTION", "POLICY")
    name = cursor.name()
    cursor.expect("ON")
    database = cursor.name()
    duration, shard, _, is_default = _policy_options(cursor)
    return Change("CREATE RETENTION POLICY", name, database, duration, is_default, shard_ns=shard)


def _policy_options(cursor: Cursor) -> tuple[int | None, int | None, str, bool]:
    duration: int | None = None
    shard: int | None = None
    policy, is_default = "", False
    while True:
        if cursor.accept("DURATION"):
            token = cursor.next()
            duration = 0 if token.value.upper() == "INF" else duration_ns(token.value)
        elif cursor.accept("REPLICATION"):
            _number(cursor)
        elif cursor.accept("SHARD", "DURATION"):
            shard = duration_ns(cursor.next().value)
        elif cursor.accept("NAME"):
            policy = cursor.name()
        elif cursor.accept("DEFAULT"):
            is_default = True
        else:
            return duration, shard, policy, is_default


def _drop(cursor: Cursor, reader: Reader) -> Change:
    if cursor.accept("DATABASE"):
        return Change("DROP DATABASE", cursor.name())
    if cursor.accept("MEASUREMENT"):
        return Change("DROP MEASUREMENT", cursor.name())
    if cursor.accept("RETENTION", "POLICY"):
        name = cursor.name()
        cursor.expect("ON")
        return Change("DROP RETENTION POLICY", name, cursor.name())
    cursor.expect("SERIES")
    sources = _sources(cursor) if cursor.accept("FROM") else ()
    return Change("DROP SERIES", sources=sources, condition=reader.condition() if cursor.accept("WHERE") else None)


def _delete(cursor: Cursor, reader: Reader) -> Change:
    sources = _sources(cursor) if cursor.accept("FROM") else ()
    return Change("DELETE", sources=sources, condition=reader.condition() if cursor.accept("WHERE") else None)
