"""Conditions of InfluxQL: a tree, the bounds of time that follow from it, and a predicate for rows.

`time` is integer nanoseconds everywhere.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from iggyflux.sim.queries import ParseError, QueryError, Unsupported
from iggyflux.sim.queries.scalars import MAX_TIME, MIN_TIME, NUMBERS, Row, Scalar, cast_number, parse_time
from iggyflux.sim.queries.tokens import Token, TokenCursor, compile_pattern, duration_ns

Parameters: TypeAlias = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Name:
    """A column, with the type after `::` if one is given."""

    name: str
    cast: str | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A constant; times and durations are integers of nanoseconds."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Comparison:
    """An operator of `_COMPARE` between two operands."""

    operator: str
    left: Name | Value
    right: Name | Value


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a column matches a regular expression, or with `wanted` False does not."""

    operand: Name | Value
    has_match: Callable[[str], bool]
    wanted: bool


@dataclass(frozen=True, slots=True)
class Junction:
    """Conditions joined by AND or OR.  They are a list, since a reader may ask for thousands of values of a tag."""

    operator: str
    parts: tuple[Node, ...]


Node: TypeAlias = Name | Value | Comparison | Match | Junction

_COMPARE: dict[str, Callable[[Scalar, Scalar], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,  # type: ignore[dict-item]  # mixed types are kept apart by `_compare`
    "<=": operator.le,  # type: ignore[dict-item]
    ">": operator.gt,  # type: ignore[dict-item]
    ">=": operator.ge,  # type: ignore[dict-item]
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}


@dataclass(slots=True)
class ConditionParser:
    """Parses a condition from a cursor.  `now_ns` is the time of the server."""

    cursor: TokenCursor
    parameters: Parameters
    now_ns: int

    def parse(self) -> Node:
        """Return the tree of `a OR b AND c`.  Raise `QueryError`."""
        return self._junction("OR", lambda: self._junction("AND", self._comparison))

    def _junction(self, word: str, read: Callable[[], Node]) -> Node:
        parts = [read()]
        while self.cursor.accept(word):
            parts.append(read())
        return parts[0] if len(parts) == 1 else Junction(word, tuple(parts))

    def _comparison(self) -> Node:
        left = self._sum()
        token = self.cursor.peek()
        if token.kind != "symbol" or not isinstance(left, Name | Value):
            return left
        if token.value in ("=~", "!~"):
            self.cursor.next()
            pattern = self.cursor.pattern()
            if pattern is None:
                raise self.cursor.unexpected("regex")
            return Match(left, compile_pattern(pattern), token.value == "=~")
        if token.value not in _COMPARE:
            return left
        self.cursor.next()
        right = self._sum()
        if not isinstance(right, Name | Value):
            raise Unsupported("a comparison with a condition")
        return Comparison(token.value, left, right)

    def _sum(self) -> Node:
        """Return terms joined by + and -, as in `now() - 1h`."""
        left = self._term()
        while (token := self.cursor.peek()).kind == "symbol" and token.value in "+-*/%&|^":
            self.cursor.next()
            right = self._term()
            first, second = _nanoseconds(left), _nanoseconds(right)
            if first is None or second is None or token.value not in "+-":
                raise Unsupported("arithmetic, but for + and - with times and durations,")
            left = Value(first + second if token.value == "+" else first - second)
        return left

    def _term(self) -> Node:
        cursor = self.cursor
        token = cursor.next()
        if token.kind == "symbol" and token.value == "(":
            inner = self.parse()
            cursor.expect(")")
            return inner
        if token.kind == "symbol" and token.value == "-":
            inner = self._term()
            if isinstance(inner, Value) and isinstance(inner.value, int | float):
                return Value(-inner.value)
            raise cursor.unexpected("number")
        if token.kind == "quoted" or (token.kind == "word" and token.value.lower() not in ("true", "false", "now")):
            return self._name(token.value)
        return Value(self._constant(token))

    def _name(self, name: str) -> Node:
        if self.cursor.accept("("):
            raise Unsupported(f"the function {name}() in a condition")
        return Name(name, self.cursor.name().lower() if self.cursor.accept("::") else None)

    def _constant(self, token: Token) -> Scalar:
        match token.kind:
            case "duration":
                return duration_ns(token.value)
            case "number":
                return int(token.value) if token.value.isdigit() else float(token.value)
            case "string":
                return token.value
            case "parameter":
                name = token.value[1:].strip('"')
                if name not in self.parameters:
                    raise ParseError(f"missing parameter: {name}")
                return self.parameters[name]
            case "word" if token.value.lower() == "now":
                self.cursor.expect("(", ")")
                return self.now_ns
            case "word":
                return token.value.lower() == "true"
            case _:
                raise self.cursor.unexpected("identifier, string, number, bool", token)


def _nanoseconds(node: Node) -> int | None:
    if not isinstance(node, Value) or node.value is None:
        return None
    return parse_time(node.value) if isinstance(node.value, str) else int(node.value)


def split_time(node: Node | None) -> tuple[int, int, Node | None]:
    """Return the bounds `[start, stop)` that a condition puts on time, and the rest of the condition."""
    if isinstance(node, Junction) and node.operator == "AND":
        start, stop, rest = MIN_TIME, MAX_TIME, []
        for part in node.parts:
            part_start, part_stop, left = split_time(part)
            start, stop = max(start, part_start), min(stop, part_stop)
            rest += [left] if left is not None else []
        return start, stop, Junction("AND", tuple(rest)) if rest else None
    bound = _time_bound(node) if isinstance(node, Comparison) else None
    return (*bound, None) if bound is not None else (MIN_TIME, MAX_TIME, node)


def _time_bound(node: Comparison) -> tuple[int, int] | None:
    sign, left, right = node.operator, node.left, node.right
    if sign not in _MIRRORED:
        return None
    if _is_time(right):
        sign, left, right = _MIRRORED[sign], right, left
    if not _is_time(left) or not isinstance(right, Value):
        return None
    at = _nanoseconds(right)
    if at is None or isinstance(right.value, bool):
        raise QueryError("invalid operation: time is compared with a value that is not a time")
    return {
        ">=": (at, MAX_TIME),
        ">": (at + 1, MAX_TIME),
        "<": (MIN_TIME, at),
        "<=": (MIN_TIME, at + 1),
        "=": (at, at + 1),
    }[sign]


def _is_time(node: Node) -> bool:
    return isinstance(node, Name) and node.name.lower() == "time"


def compile_condition(node: Node | None, tags: frozenset[str]) -> Callable[[Row], bool]:
    """Return a condition as a predicate for rows; a missing tag is the empty string."""
    if node is None:
        return lambda _row: True
    if isinstance(node, Junction):
        parts = [compile_condition(part, tags) for part in node.parts]
        if node.operator == "AND":
            return lambda row: all(part(row) for part in parts)
        return lambda row: any(part(row) for part in parts)
    if isinstance(node, Comparison):
        left, right = _compile_operand(node.left, tags), _compile_operand(node.right, tags)
        compare = _COMPARE[node.operator]
        return lambda row: _compare(compare, left(row), right(row))
    if isinstance(node, Match):
        operand, has_match, wanted = _compile_operand(node.operand, tags), node.has_match, node.wanted
        return lambda row: isinstance(text := operand(row), str) and has_match(text) is wanted
    value = _compile_operand(node, tags)
    return lambda row: value(row) is True


def _compile_operand(node: Name | Value, tags: frozenset[str]) -> Callable[[Row], Scalar]:
    if isinstance(node, Value):
        constant = node.value
        return lambda _row: constant
    name, cast = node.name, node.cast
    if name in tags and cast != "field":
        return lambda row: row(name) or ""
    if cast in NUMBERS:
        return lambda row: cast_number(row(name), cast)
    return lambda row: row(name)


def _compare(compare: Callable[[Scalar, Scalar], bool], left: Scalar, right: Scalar) -> bool:
    if left is None or right is None:
        return False
    if isinstance(left, bool) != isinstance(right, bool) or isinstance(left, str) != isinstance(right, str):
        return False
    return compare(left, right)
