"""Flux scripts as text: each expression becomes a closure that is evaluated in a scope.

No arithmetic, no records and no packages: they are `Unsupported`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from iggyflux.sim.queries import ParseError, QueryError, Unsupported
from iggyflux.sim.queries.flux_values import KINDS, Duration, Expression, RuntimeFault, Scope, Time
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
_PATTERN = re.compile(r"\s*/((?:[^/\\\n]|\\.)+)/")

_PARAMETERS = re.compile(r"\s*([A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*)?\s*\)\s*=>")


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def parse(text: str) -> list[tuple[str | None, Expression]]:
    """Return the statements of a script: the name that is assigned, if any, and the value.  Raises `QueryError`."""
    try:
        return _Parser(text).statements()
    except RecursionError:
        raise ParseError("compilation failed: error @1:1-1:1: nested too deep") from None


class _Parser:
    """Recursive descent; every method gives a closure that is evaluated in a scope."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def statements(self) -> list[tuple[str | None, Expression]]:
        found: list[tuple[str | None, Expression]] = []
        while (token := self.peek()).kind != "end":
            if token.text in ("import", "option", "package"):
                raise self.unsupported(token, token.text)
            before = self.position
            token = self.next()
            if token.kind == "word" and self.accept("="):
                found.append((token.text, self.expression()))
            else:
                self.position = before
                found.append((None, self.expression()))
        return found

    def peek(self) -> _Token:
        before = self.position
        token = self.next()
        self.position = before
        return token

    def next(self) -> _Token:
        while True:
            found = _TOKEN.match(self.text, self.position)
            if found is None:
                if self.position >= len(self.text.rstrip()):
                    return _Token("end", "EOF", len(self.text), len(self.text))
                raise self.error(
                    _Token("strange", self.text[self.position], self.position, self.position + 1), "invalid statement"
                )
            self.position = found.end()
            if found.lastgroup != "space":
                return _Token(found.lastgroup or "", found[0], found.start(), found.end())

    def accept(self, text: str) -> bool:
        before = self.position
        token = self.next()
        if token.kind in ("word", "symbol") and token.text == text:
            return True
        self.position = before
        return False

    def expect(self, text: str) -> None:
        token = self.peek()
        if not self.accept(text):
            raise self.error(token, f"expected {text}, got {token.text}")

    def error(self, token: _Token, words: str) -> ParseError:
        return ParseError(f"compilation failed: error {self.place(token)}: {words}")

    def unsupported(self, token: _Token, what: str) -> Unsupported:
        return Unsupported(f"error {self.place(token)}: {what}")

    def place(self, token: _Token) -> str:
        return f"@{self._point(token.start)}-{self._point(token.end)}"

    def _point(self, position: int) -> str:
        before = self.text[:position]
        return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"

    def expression(self) -> Expression:
        return self._either()

    def _either(self) -> Expression:
        parts = [self._both()]
        while self.accept("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda scope: any(part(scope) for part in parts)

    def _both(self) -> Expression:
        parts = [self._not()]
        while self.accept("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) for part in parts)

    def _not(self) -> Expression:
        if self.accept("not"):
            inner = self._not()
            return lambda scope: not inner(scope)
        if self.accept("exists"):
            inner = self._not()
            return lambda scope: inner(scope) is not None
        return self._comparison()

    def _comparison(self) -> Expression:
        left = self._unary()
        token = self.peek()
        if token.kind != "symbol":
            return left
        if token.text in ("=~", "!~"):
            self.next()
            return _match(left, self._pattern(), wanted=token.text == "=~")
        if token.text in _COMPARISONS:
            self.next()
            return _compare(_COMPARISONS[token.text], left, self._unary())
        if token.text in "+-*/%":
            raise self.unsupported(token, "arithmetic")
        return left

    def _pattern(self) -> Callable[[str], bool]:
        found = _PATTERN.match(self.text, self.position)
        if found is None:
            raise self.error(self.peek(), "expected a regular expression")
        self.position = found.end()
        return compile_pattern(found[1].replace("\\/", "/"))

    def _unary(self) -> Expression:
        if self.accept("-"):
            inner = self._unary()
            return lambda scope: _negate(inner(scope))
        left = self._postfix()
        while self.accept("|>"):
            if self.peek().kind == "end":
                raise self.error(self.peek(), "pipe destination must be a function call")
            left = self._postfix(piped=left)
        return left

    def _postfix(self, piped: Expression | None = None) -> Expression:
        token = self.peek()
        value = self._primary()
        name = token.text
        while True:
            if self.accept("("):
                value, piped = self._call(value, piped, name, token), None
            elif self.accept("."):
                part = self.next().text
                name = f"{name}.{part}"
                value = _member(value, part)
            elif self.accept("["):
                index = self.expression()
                self.expect("]")
                value = _index(value, index)
            else:
                if piped is not None:
                    raise self.error(token, "pipe destination must be a function call")
                return value

    def _call(self, value: Expression, piped: Expression | None, name: str, token: _Token) -> Expression:
        arguments = self._arguments()
        whole = self.place(token._replace(end=self.position))
        return _call(value, arguments, piped, name, whole)

    def _arguments(self) -> dict[str, Expression]:
        found: dict[str, Expression] = {}
        while not self.accept(")"):
            token = self.next()
            self.expect(":")
            found[token.text] = self.expression()
            self.accept(",")
        return found

    def _primary(self) -> Expression:
        token = self.next()
        if token.kind == "word":
            return self._word(token)
        if token.kind == "string":
            return _constant(_unquote(token.text))
        if token.kind == "time":
            return _constant(Time(parse_time(token.text)))
        if token.kind == "duration":
            parts = re.findall(r"([0-9]+)(ns|us|µs|ms|mo|s|m|h|d|w|y)", token.text)
            return _constant(Duration(sum(int(number) * _UNITS[unit] for number, unit in parts)))
        if token.kind == "number":
            return _constant(float(token.text) if "." in token.text else int(token.text))
        if token.text == "(":
            return self._parenthesis()
        if token.text == "[":
            return self._list()
        if token.text == "{":
            raise self.unsupported(token, "a record")
        raise self.error(token, f"invalid expression: invalid token for primary expression: {token.text}")

    def _word(self, token: _Token) -> Expression:
        name, place = token.text, self.place(token)
        if name in ("true", "false"):
            return _constant(name == "true")

        def look(scope: Scope) -> object:
            if name not in scope:
                raise QueryError(f"error {place}: undefined identifier {name}, or not supported by the simulator")
            return scope[name]

        return look

    def _parenthesis(self) -> Expression:
        """`(r) => …` or an expression in parentheses."""
        found = _PARAMETERS.match(self.text, self.position)
        if found is None:
            inner = self.expression()
            self.expect(")")
            return inner
        names = [name.strip() for name in (found[1] or "").split(",")]
        self.position = found.end()
        body = self.expression()

        def make(scope: Scope) -> object:
            def call(arguments: dict[str, object]) -> object:
                return body({**scope, **{name: arguments.get(name) for name in names}})

            return call

        return make

    def _list(self) -> Expression:
        items: list[Expression] = []
        while not self.accept("]"):
            items.append(self.expression())
            self.accept(",")
        return lambda scope: [item(scope) for item in items]


_COMPARISONS: dict[str, Callable[[object, object], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": lambda left, right: order_key(left) < order_key(right),
    "<=": lambda left, right: order_key(left) <= order_key(right),
    ">": lambda left, right: order_key(left) > order_key(right),
    ">=": lambda left, right: order_key(left) >= order_key(right),
}


def _constant(value: object) -> Expression:
    return lambda _scope: value


def _unquote(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        if found[1]:
            return chr(int(found[1], 16))
        return {"n": "\n", "t": "\t", "r": "\r"}.get(found[2], found[2])

    return re.sub(r"\\(?:x([0-9a-fA-F]{2})|(.))", plain, text[1:-1], flags=re.DOTALL)


def _compare(compare: Callable[[object, object], bool], left: Expression, right: Expression) -> Expression:
    def truth(scope: Scope) -> object:
        first, second = left(scope), right(scope)
        if first is None or second is None:
            return None
        if isinstance(first, str) != isinstance(second, str):
            raise QueryError(f"error: type conflict: {KINDS.get(type(first))} != {KINDS.get(type(second))}")
        return compare(first, second)

    return truth


def _match(left: Expression, has_match: Callable[[str], bool], *, wanted: bool) -> Expression:
    def truth(scope: Scope) -> object:
        value = left(scope)
        return None if value is None else has_match(str(value)) is wanted

    return truth


def _negate(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Duration(-value) if isinstance(value, Duration) else -value
    raise QueryError(f"error: the operator - takes a number, not {KINDS.get(type(value), 'an object')}")


def _member(value: Expression, name: str) -> Expression:
    def read(scope: Scope) -> object:
        found = value(scope)
        return found.get(name) if isinstance(found, Mapping) else None

    return read


def _index(value: Expression, index: Expression) -> Expression:
    def read(scope: Scope) -> object:
        found, key = value(scope), index(scope)
        if isinstance(found, Mapping):
            return found.get(key)
        return found[key] if isinstance(found, Sequence) and isinstance(key, int) else None

    return read


def _call(
    value: Expression, arguments: dict[str, Expression], piped: Expression | None, name: str, place: str
) -> Expression:
    def call(scope: Scope) -> object:
        found = {key: each(scope) for key, each in arguments.items()}
        if piped is not None:
            found["tables"] = piped(scope)
        function = value(scope)
        if not callable(function):
            raise Unsupported(f"error {place}: the function {name}()")
        try:
            return function(found)
        except RuntimeFault as exc:
            raise QueryError(f"runtime error {place}: {exc}") from exc

    return call
