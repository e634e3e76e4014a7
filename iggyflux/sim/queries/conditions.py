"""Conditions of InfluxQL and SQL: a tree, the bounds of time that follow from it, and its truth for a row.

`time` is an integer of nanoseconds everywhere.  A row is asked for a column by name and gives None where it has none.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from iggyflux.sim.queries import ParseError, QueryError
from iggyflux.sim.queries.tokens import Cursor, compile_pattern, duration_ns

MIN_TIME, MAX_TIME = -(2**63), 2**63 - 1
Scalar: TypeAlias = "str | int | float | bool | None"
Row: TypeAlias = Callable[[str], Scalar]


@dataclass(frozen=True, slots=True)
class Name:
    """A column, with the type after `::` where one is given."""

    name: str
    cast: str | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A constant; `is_duration` marks a number of nanoseconds that came as one, `is_pattern` a regular expression."""

    value: Scalar
    is_duration: bool = False
    is_pattern: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator between two nodes."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Junction:
    """Conditions joined by AND or OR: a list, since a reader asks for thousands of values of a tag."""

    operator: str
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments."""

    function: str
    arguments: tuple[Node, ...]


Node: TypeAlias = Name | Value | Operation | Junction | Call
Parameters: TypeAlias = Mapping[str, Scalar]

_COMPARE: dict[str, Callable[[Scalar, Scalar], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,  # type: ignore[dict-item]  # mixed types are kept apart by `_compare`
    "<=": operator.le,  # type: ignore[dict-item]
    ">": operator.gt,  # type: ignore[dict-item]
    ">=": operator.ge,  # type: ignore[dict-item]
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!=", "<>": "<>"}


@dataclass(slots=True)
class Reader:
    """Reads conditions from a cursor.  `now_ns` is the time of the server."""

    cursor: Cursor
    parameters: Parameters
    now_ns: int

    def condition(self) -> Node:
        """`a OR b AND NOT c`."""
        return self._junction("OR", self._conjunction)

    def _conjunction(self) -> Node:
        return self._junction("AND", self._negation)

    def _junction(self, word: str, read: Callable[[], Node]) -> Node:
        parts = [read()]
        while self.cursor.accept(word):
            parts.append(read())
        return parts[0] if len(parts) == 1 else Junction(word, tuple(parts))

    def _negation(self) -> Node:
        if self.cursor.sql and self.cursor.accept("NOT"):
            return Operation("NOT", self._negation(), Value(None))
        return self._comparison()

    def _comparison(self) -> Node:
        left = self.value()
        token = self.cursor.peek()
        if token.kind == "symbol" and token.value in ("=~", "!~"):
            self.cursor.next()
            pattern = self.cursor.pattern()
            if pattern is None:
                raise self.cursor.unexpected("regex")
            return Operation(token.value, left, Value(pattern, is_pattern=True))
        if token.kind == "symbol" and token.value in _COMPARE:
            self.cursor.next()
            return Operation(token.value, left, self.value())
        if self.cursor.sql:
            return self._sql_comparison(left)
        return left

    def _sql_comparison(self, left: Node) -> Node:
        if self.cursor.accept("IS"):
            negated = self.cursor.accept("NOT")
            self.cursor.expect("NULL")
            return Operation("IS NOT NULL" if negated else "IS NULL", left, Value(None))
        if self.cursor.accept("BETWEEN"):
            low = self.value()
            self.cursor.expect("AND")
            return Junction("AND", (Operation(">=", left, low), Operation("<=", left, self.value())))
        negated = self.cursor.accept("NOT")
        if self.cursor.accept("IN"):
            self.cursor.expect("(")
            parts = [Operation("=", left, self.value())]
            while self.cursor.accept(","):
                parts.append(Operation("=", left, self.value()))
            self.cursor.expect(")")
            found = Junction("OR", tuple(parts))
            return Operation("NOT", found, Value(None)) if negated else found
        return left

    def value(self) -> Node:
        """Terms joined by + and -, as in `now() - 1h`."""
        left = self._term()
        while True:
            token = self.cursor.peek()
            if token.kind != "symbol" or token.value not in "+-":
                return left
            self.cursor.next()
            left = self._fold(token.value, left, self._term())

    def _fold(self, sign: str, left: Node, right: Node) -> Node:
        if isinstance(left, Value) and isinstance(right, Value):
            first, second = self._number(left), self._number(right)
            if first is not None and second is not None:
                return Value(first + second if sign == "+" else first - second, is_duration=left.is_duration)
        raise ParseError("the simulator adds and subtracts times and durations only")

    def _number(self, value: Value) -> int | None:
        if isinstance(value.value, str):
            return parse_time(value.value)
        return int(value.value) if value.value is not None else None

    def _term(self) -> Node:
        cursor = self.cursor
        token = cursor.next()
        if token.value == "(" and token.kind == "symbol":
            inner = self.condition()
            cursor.expect(")")
            return inner
        if token.value == "-" and token.kind == "symbol":
            inner = self._term()
            if isinstance(inner, Value) and isinstance(inner.value, int | float):
                return Value(-inner.value, is_duration=inner.is_duration)
            raise cursor.unexpected("number")
        if token.kind == "duration":
            return Value(duration_ns(token.value), is_duration=True)
        if token.kind == "number":
            is_integer = token.value.isdigit()
            return Value(int(token.value) if is_integer else float(token.value))
        if token.kind == "string":
            return Value(token.value)
        if token.kind == "parameter":
            return self._parameter(token.value[1:].strip('"'))
        if token.kind == "quoted":
            return self._name(token.value)
        if token.kind == "word":
            return self._word(token.value)
        raise cursor.unexpected("identifier, string, number, bool", token)

    def _parameter(self, name: str) -> Node:
        if name not in self.parameters:
            raise ParseError(
                f"missing parameter: {name}" if not self.cursor.sql else f"No value found for placeholder ${name}"
            )
        return Value(self.parameters[name])

    def _name(self, name: str) -> Node:
        cast = self.cursor.name() if self.cursor.accept("::") else None
        if self.cursor.sql and cast is not None:
            return Call("cast", (Name(name), Value(cast.lower())))
        return Name(name, cast.lower() if cast else None)

    def _word(self, word: str) -> Node:
        lower, cursor = word.lower(), self.cursor
        if lower in ("true", "false"):
            return Value(lower == "true")
        if cursor.sql and lower == "null":
            return Value(None)
        if cursor.sql and lower in ("timestamp", "interval") and cursor.peek().kind == "string":
            text = cursor.next().value
            return Value(parse_time(text)) if lower == "timestamp" else Value(parse_interval(text), is_duration=True)
        if not cursor.accept("("):
            return self._name(lower if cursor.sql else word)
        return self._call(lower)

    def _call(self, function: str) -> Node:
        cursor = self.cursor
        if function == "now":
            cursor.expect(")")
            return Value(self.now_ns)
        if function in ("cast", "try_cast"):
            inner = self.value()
            cursor.expect("AS")
            kind = cursor.name().lower()
            if cursor.accept("("):
                while not cursor.accept(")"):
                    cursor.next()
            cursor.expect(")")
            return self._constant_cast(inner, kind)
        arguments: list[Node] = []
        while not cursor.accept(")"):
            if cursor.accept("*"):
                arguments.append(Name("*"))
            elif cursor.accept("DISTINCT"):
                raise ParseError("the simulator does not know DISTINCT inside a function")
            else:
                arguments.append(self.value())
            cursor.accept(",")
        if function in _TIME_FUNCTIONS and arguments and isinstance(arguments[0], Value):
            value = arguments[0].value
            if isinstance(value, str):
                return Value(parse_time(value))
            if isinstance(value, int):
                return Value(value * _TIME_FUNCTIONS[function])
        if function == "arrow_cast" and len(arguments) == 2 and isinstance(arguments[1], Value):
            return self._constant_cast(arguments[0], str(arguments[1].value).lower())
        return Call(function, tuple(arguments))

    def _constant_cast(self, inner: Node, kind: str) -> Node:
        if not isinstance(inner, Value):
            return Call("cast", (inner, Value(kind)))
        if kind.startswith("timestamp") and isinstance(inner.value, str):
            return Value(parse_time(inner.value))
        return inner


_TIME_FUNCTIONS = {
    "to_timestamp": 10**9,
    "to_timestamp_nanos": 1,
    "to_timestamp_micros": 10**3,
    "to_timestamp_millis": 10**6,
    "to_timestamp_seconds": 10**9,
}
_TIME = re.compile(
    r"(\d{4,5})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d\d:?\d\d)?", re.ASCII
)


def parse_time(text: str) -> int:
    """Nanoseconds of a date and time; raises `QueryError`."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        if re.fullmatch(r"-?[0-9]{1,19}", text):
            return int(text)
        raise QueryError(f"invalid operation: time and *influxql.StringLiteral are not compatible: {text!r} is no time")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError as exc:
        raise QueryError(f"{text!r} is no time: {exc}") from exc
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400
    seconds += int(hour or 0) * 3_600 + int(minute or 0) * 60 + int(second or 0)
    if zone and zone != "Z":
        sign = 1 if zone[0] == "+" else -1
        seconds -= sign * (int(zone[1:3]) * 3_600 + int(zone[-2:]) * 60)
    return seconds * 10**9 + int((fraction or "").ljust(9, "0"))


_INTERVALS = {"nanosecond": 1, "microsecond": 10**3, "millisecond": 10**6, "second": 10**9, "minute": 60 * 10**9}
_INTERVALS |= {"hour": 3_600 * 10**9, "day": 86_400 * 10**9, "week": 7 * 86_400 * 10**9}


def parse_interval(text: str) -> int:
    """Nanoseconds of an SQL interval such as `1 hour 5 minutes`."""
    total = 0
    for number, unit in re.findall(r"(-?[0-9]+)\s*([a-z]+?)s?\b", text.lower()):
        if unit not in _INTERVALS:
            raise QueryError(f"the simulator does not know the interval unit {unit!r}")
        total += int(number) * _INTERVALS[unit]
    return total


def split_time(node: Node | None) -> tuple[int, int, Node | None]:
    """The bounds `[start, stop)` that a condition puts on time, and what is left of it."""
    if node is None:
        return MIN_TIME, MAX_TIME, None
    if isinstance(node, Junction) and node.operator == "AND":
        start, stop, rest = MIN_TIME, MAX_TIME, []
        for part in node.parts:
            part_start, part_stop, left = split_time(part)
            start, stop = max(start, part_start), min(stop, part_stop)
            rest += [left] if left is not None else []
        return start, stop, Junction("AND", tuple(rest)) if rest else None
    bound = _time_bound(node)
    if bound is None:
        return MIN_TIME, MAX_TIME, node
    return *bound, None


def _time_bound(node: Node) -> tuple[int, int] | None:
    if not isinstance(node, Operation) or node.operator not in _MIRRORED:
        return None
    sign, left, right = node.operator, node.left, node.right
    if _is_time(right):
        sign, left, right = _MIRRORED[sign], right, left
    if not _is_time(left) or not isinstance(right, Value) or sign in ("!=", "<>"):
        return None
    if right.value is None or isinstance(right.value, bool):
        raise QueryError("invalid operation: time is compared with what is no time")
    at = parse_time(right.value) if isinstance(right.value, str) else int(right.value)
    return {
        ">=": (at, MAX_TIME),
        ">": (at + 1, MAX_TIME),
        "<": (MIN_TIME, at),
        "<=": (MIN_TIME, at + 1),
        "=": (at, at + 1),
    }[sign]


def _is_time(node: Node) -> bool:
    if isinstance(node, Call) and node.function == "cast":
        node = node.arguments[0]
    return isinstance(node, Name) and node.name.lower() == "time"


def compile_condition(node: Node | None, tags: frozenset[str], *, sql: bool = False) -> Callable[[Row], bool]:
    """The truth of a condition for a row.  In InfluxQL a missing tag is the empty string, in SQL it is null."""
    if node is None:
        return lambda _row: True
    if isinstance(node, Value):
        truth = bool(node.value)
        return lambda _row: truth
    if isinstance(node, Junction):
        parts = [compile_condition(part, tags, sql=sql) for part in node.parts]
        if node.operator == "AND":
            return lambda row: all(part(row) for part in parts)
        return lambda row: any(part(row) for part in parts)
    if not isinstance(node, Operation):
        value = compile_value(node, tags, sql=sql)
        return lambda row: value(row) is True
    if node.operator == "NOT":
        inner = compile_condition(node.left, tags, sql=sql)
        return lambda row: not inner(row)
    first = compile_value(node.left, tags, sql=sql)
    if node.operator in ("IS NULL", "IS NOT NULL"):
        wanted = node.operator == "IS NULL"
        return lambda row: (first(row) is None) is wanted
    if node.operator in ("=~", "!~"):
        return _compile_match(node, first)
    second = compile_value(node.right, tags, sql=sql)
    compare = _COMPARE[node.operator]
    return lambda row: _compare(compare, first(row), second(row))


def _compile_match(node: Operation, value: Callable[[Row], Scalar]) -> Callable[[Row], bool]:
    assert isinstance(node.right, Value)  # noqa: S101 (the reader takes nothing else after =~)
    has_match = compile_pattern(str(node.right.value))
    wanted = node.operator == "=~"

    def matches(row: Row) -> bool:
        text = value(row)
        return isinstance(text, str) and has_match(text) is wanted

    return matches


def compile_value(node: Node, tags: frozenset[str], *, sql: bool = False) -> Callable[[Row], Scalar]:
    """The value of a node for a row."""
    if isinstance(node, Value):
        constant = node.value
        return lambda _row: constant
    if isinstance(node, Name):
        name = node.name
        if not sql and name in tags and node.cast != "field":
            return lambda row: row(name) or ""
        if not sql and (cast := node.cast) in NUMBERS:
            return lambda row: cast_number(row(name), cast)
        return lambda row: row(name)
    if isinstance(node, Call) and node.function == "cast":
        inner = compile_value(node.arguments[0], tags, sql=sql)
        kind = node.arguments[1]
        assert isinstance(kind, Value)  # noqa: S101 (the reader makes no other)
        convert = _CASTS.get(str(kind.value).split("(")[0].strip())
        if convert is None:
            raise QueryError(f"the simulator does not know the type {kind.value!r}")
        return lambda row: None if (value := inner(row)) is None else convert(value)
    raise QueryError(f"the simulator does not know {node}")


NUMBERS = ("float", "integer", "unsigned")


def cast_number(value: Scalar, kind: str | None) -> Scalar:
    """A number as a cursor of another numeric type gives it (measured on amd64); None for what is no number."""
    if value is None or isinstance(value, bool | str):
        return None
    if kind == "float":
        return float(value)
    if isinstance(value, float):
        top = 2**64 if kind == "unsigned" else 2**63
        value = int(value) if -(2**63) <= value < top else -(2**63)
    value %= 2**64
    return value if kind == "unsigned" or value < 2**63 else value - 2**64


_CASTS: dict[str, Callable[[Scalar], Scalar]] = {
    **dict.fromkeys(("bigint", "int", "integer", "int64", "long", "uint64"), lambda value: int(value or 0)),
    **dict.fromkeys(("double", "float", "real", "float64"), lambda value: float(value or 0)),
    **dict.fromkeys(("varchar", "text", "string", "utf8"), lambda value: str(value)),
    **dict.fromkeys(("timestamp",), lambda value: value),
    **dict.fromkeys(("boolean",), lambda value: bool(value)),
}


def order_key(value: object, *, nulls_last: bool = True) -> tuple[int, float, str]:
    """What a value is sorted by: numbers before text, null at the end or at the beginning."""
    if value is None:
        return (2 if nulls_last else 0, 0, "")
    return (1, 0, value) if isinstance(value, str) else (1, value if isinstance(value, int | float) else 0, "")


def _compare(compare: Callable[[Scalar, Scalar], bool], left: Scalar, right: Scalar) -> bool:
    if left is None or right is None:
        return False
    if isinstance(left, bool) != isinstance(right, bool) or isinstance(left, str) != isinstance(right, str):
        return False
    return compare(left, right)
