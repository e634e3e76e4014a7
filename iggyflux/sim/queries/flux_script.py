"""Parse Flux scripts and evaluate them as they are read; only the text after `(r) =>` becomes a function of a row.

Arithmetic, records, packages and user-defined functions other than predicates are `Unsupported`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from iggyflux.sim.queries import ParseError, QueryError, Unsupported
from iggyflux.sim.queries.flux_values import KINDS, Arguments, Duration, Function, Predicate, RuntimeFault, Time
from iggyflux.sim.queries.scalars import order_key, parse_time
from iggyflux.sim.queries.tokens import compile_pattern

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}
_UNITS |= {"d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9, "mo": 30 * 86_400 * 10**9, "y": 365 * 86_400 * 10**9}
_DURATION = r"(?:[0-9]+(?:ns|us|µs|ms|mo|s|m|h|d|w|y))+"
_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n]*)"
    r"|(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9:.]+(?:Z|[+-][0-9]{2}:[0-9]{2}))?)"
    rf"|(?P<duration>{_DURATION})(?![A-Za-z0-9_])"
    r"|(?P<number>[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)"
    r'|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<symbol>\|>|=>|==|!=|=~|!~|<=|>=|[<>=+\-*/%(){}\[\],:.?])",
    re.DOTALL,
)
_MOST_DIGITS = 30
_PATTERN = re.compile(r"\s*/((?:[^/\\\n]|\\.)+)/")
_PREDICATE = re.compile(r"\s*\(\s*([A-Za-z_]\w*)\s*\)\s*=>")
_COMPARISONS: dict[str, Callable[[object, object], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": lambda left, right: order_key(left) < order_key(right),
    "<=": lambda left, right: order_key(left) <= order_key(right),
    ">": lambda left, right: order_key(left) > order_key(right),
    ">=": lambda left, right: order_key(left) >= order_key(right),
}


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def evaluate(text: str, functions: Mapping[str, Function]) -> Iterator[object]:
    """Return the value of each statement that is not an assignment.  Raise `QueryError`."""
    script = _Script(text, functions)
    while script.peek().kind != "end":
        try:
            is_assigned, value = script.statement()
        except RecursionError:
            raise ParseError("compilation failed: error @1:1-1:1: nested too deep") from None
        if not is_assigned:
            yield value


class _Script:
    """A position in a script.  `parameter` is the name of the row within a predicate."""

    def __init__(self, text: str, functions: Mapping[str, Function]) -> None:
        self.text = text
        self.position = 0
        self.functions = functions
        self.variables: dict[str, object] = {}
        self.parameter = ""

    def statement(self) -> tuple[bool, object]:
        """Return whether the next statement assigns its value to a variable, and the value."""
        before, token = self.position, self.next()
        if token.text in ("import", "option", "package"):
            raise self._unsupported(token, token.text)
        if token.kind == "word" and self._accept("="):
            value = self.variables[token.text] = self._pipeline()
            return True, value
        self.position = before
        return False, self._pipeline()

    # --- tokens ---

    def peek(self) -> _Token:
        before = self.position
        token = self.next()
        self.position = before
        return token

    def next(self) -> _Token:
        found = _TOKEN.match(self.text, self.position)
        while found is not None and found.lastgroup == "space":
            self.position = found.end()
            found = _TOKEN.match(self.text, self.position)
        if found is not None:
            self.position = found.end()
            return _Token(found.lastgroup or "", found[0], found.start(), found.end())
        if self.position == len(self.text):
            return _Token("end", "EOF", self.position, self.position)
        strange = _Token("strange", self.text[self.position], self.position, self.position + 1)
        raise self._error(strange, "invalid statement")

    def _accept(self, text: str) -> bool:
        before, token = self.position, self.next()
        if token.kind in ("word", "symbol") and token.text == text:
            return True
        self.position = before
        return False

    def _expect(self, text: str) -> None:
        token = self.peek()
        if not self._accept(text):
            raise self._error(token, f"expected {text}, got {token.text}")

    def _error(self, token: _Token, words: str) -> ParseError:
        return ParseError(f"compilation failed: error {self._place(token)}: {words}")

    def _unsupported(self, token: _Token, what: str) -> Unsupported:
        return Unsupported(f"error {self._place(token)}: {what}")

    def _place(self, token: _Token) -> str:
        return f"@{self._point(token.start)}-{self._point(token.end)}"

    def _point(self, position: int) -> str:
        before = self.text[:position]
        return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"

    # --- values ---

    def _pipeline(self) -> object:
        value = self._value()
        while self._accept("|>"):
            token = self.next()
            if token.kind != "word" or not self._accept("("):
                raise self._error(token, "pipe destination must be a function call")
            value = self._call(token, {"tables": value})
        token = self.peek()
        if token.kind == "symbol" and (token.text in "+-*/%." or token.text in _COMPARISONS):
            raise self._unsupported(token, "an expression outside of a predicate")
        return value

    def _call(self, name: _Token, arguments: Arguments) -> object:
        """Parse the arguments of a function and return its result."""
        function = self.functions.get(name.text)
        if function is None:
            raise self._undefined(name)
        while not self._accept(")"):
            token = self.next()
            self._expect(":")
            arguments[token.text] = self._predicate() or self._pipeline()
            self._accept(",")
        try:
            return function(arguments)
        except RuntimeFault as exc:
            raise QueryError(f"runtime error {self._place(name._replace(end=self.position))}: {exc}") from exc

    def _undefined(self, token: _Token) -> QueryError:
        words = f"undefined identifier {token.text}, or not supported by the simulator"
        return QueryError(f"error {self._place(token)}: {words}")

    def _value(self) -> object:
        token = self.next()
        if token.kind in _LITERALS:
            return _LITERALS[token.kind](token.text)
        if token.kind == "word":
            return self._named(token)
        if token.text == "-":
            value = self._value()
            if isinstance(value, int | float) and not isinstance(value, bool):
                return Duration(-value) if isinstance(value, Duration) else -value
            raise self._error(token, "the operator - takes a number")
        if token.text == "[":
            return self._list()
        if token.text == "(":
            value = self._pipeline()
            self._expect(")")
            return value
        if token.text == "{":
            raise self._unsupported(token, "a record")
        raise self._error(token, f"invalid expression: invalid token for primary expression: {token.text}")

    def _named(self, token: _Token) -> object:
        if token.text in ("true", "false"):
            return token.text == "true"
        if self._accept("("):
            return self._call(token, {})
        if token.text not in self.variables:
            raise self._undefined(token)
        return self.variables[token.text]

    def _list(self) -> list[object]:
        items: list[object] = []
        while not self._accept("]"):
            items.append(self._value())
            self._accept(",")
        return items

    # --- predicates ---

    def _predicate(self) -> Predicate | None:
        """Return `(r) => …` as a function of a row; None if none comes next."""
        found = _PREDICATE.match(self.text, self.position)
        if found is None:
            return None
        self.position, self.parameter = found.end(), found[1]
        return self._either()

    def _either(self) -> Predicate:
        parts = [self._both()]
        while self._accept("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda row: any(part(row) for part in parts)

    def _both(self) -> Predicate:
        parts = [self._not()]
        while self._accept("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda row: all(part(row) for part in parts)

    def _not(self) -> Predicate:
        if self._accept("not"):
            inner = self._not()
            return lambda row: not inner(row)
        if self._accept("exists"):
            inner = self._operand()
            return lambda row: inner(row) is not None
        return self._comparison()

    def _comparison(self) -> Predicate:
        left = self._operand()
        token = self.peek()
        if token.text in ("=~", "!~"):
            self.next()
            return _match(left, self._pattern(), wanted=token.text == "=~")
        if token.text in _COMPARISONS:
            self.next()
            return _compare(_COMPARISONS[token.text], left, self._operand())
        if token.kind == "symbol" and token.text in "+-*/%":
            raise self._unsupported(token, "arithmetic")
        return left

    def _operand(self) -> Predicate:
        before, token = self.position, self.next()
        if token.text == "(":
            inner = self._either()
            self._expect(")")
            return inner
        if token.kind == "word" and token.text == self.parameter:
            name = self._member(token)
            return lambda row: row.get(name)
        self.position = before
        value = self._value()
        return lambda _row: value

    def _member(self, token: _Token) -> str:
        """Return the name of `.name` or `["name"]`."""
        if self._accept("."):
            return self.next().text
        if self._accept("["):
            name = self._value()
            self._expect("]")
            return str(name)
        raise self._unsupported(token, "a row as a value")

    def _pattern(self) -> Callable[[str], bool]:
        found = _PATTERN.match(self.text, self.position)
        if found is None:
            raise self._error(self.peek(), "expected a regular expression")
        self.position = found.end()
        return compile_pattern(found[1].replace("\\/", "/"))


def _compare(compare: Callable[[object, object], bool], left: Predicate, right: Predicate) -> Predicate:
    def truth(row: Mapping[str, object]) -> object:
        first, second = left(row), right(row)
        if first is None or second is None:
            return None
        if isinstance(first, str) != isinstance(second, str):
            raise QueryError(f"error: type conflict: {KINDS.get(type(first))} != {KINDS.get(type(second))}")
        return compare(first, second)

    return truth


def _match(left: Predicate, has_match: Callable[[str], bool], *, wanted: bool) -> Predicate:
    def truth(row: Mapping[str, object]) -> object:
        value = left(row)
        return None if value is None else has_match(str(value)) is wanted

    return truth


def _unquote(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        if found[1]:
            return chr(int(found[1], 16))
        return {"n": "\n", "t": "\t", "r": "\r"}.get(found[2], found[2])

    return re.sub(r"\\(?:x([0-9a-fA-F]{2})|(.))", plain, text[1:-1], flags=re.DOTALL)


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ParseError(f"compilation failed: error: invalid integer literal of {len(text)} digits")
    return int(text)


def _duration(text: str) -> Duration:
    parts = re.findall(r"([0-9]+)(ns|us|µs|ms|mo|s|m|h|d|w|y)", text)
    return Duration(sum(_integer(number) * _UNITS[unit] for number, unit in parts))


_LITERALS: dict[str, Callable[[str], object]] = {
    "string": _unquote,
    "time": lambda text: Time(parse_time(text)),
    "duration": _duration,
    "number": lambda text: float(text) if "." in text else _integer(text),
}
