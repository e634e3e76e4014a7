"""Tokens of InfluxQL or SQL, and a cursor over them; the two differ in quoting, durations and patterns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import re2

from iggyflux.sim.queries import ParseError

UNITS = {
    "ns": 1,
    "u": 10**3,
    "µ": 10**3,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
    "d": 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
}
_DURATION = r"(?:[0-9]{1,30}(?:ns|us|ms|u|µ|s|m|h|d|w))+"
_INFLUXQL = re.compile(
    r"(?P<space>\s+|--[^\n]*|/\*.*?\*/)"
    rf"|(?P<duration>{_DURATION})(?![A-Za-z0-9_])"
    r"|(?P<number>[0-9]{1,30}\.[0-9]*|\.[0-9]+|[0-9]{1,30})"
    r"|(?P<string>'(?:[^'\\]|\\.)*')"
    r'|(?P<quoted>"(?:[^"\\]|\\.)*")'
    r'|(?P<parameter>\$(?:[A-Za-z_0-9]+|"(?:[^"\\]|\\.)*"))'
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<symbol>::|=~|!~|!=|<>|<=|>=|/(?!\*)|[=<>+\-*%(),;.:&|^])",
    re.DOTALL,
)
_SQL = re.compile(
    r"(?P<space>\s+|--[^\n]*|/\*.*?\*/)"
    r"|(?P<number>[0-9]{1,30}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<string>'(?:[^']|'')*')"
    r'|(?P<quoted>"(?:[^"]|"")*")'
    r"|(?P<parameter>\$[A-Za-z_0-9]+)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<symbol>::|!=|<>|<=|>=|/(?!\*)|[=<>+\-*%(),;.])",
    re.DOTALL,
)
_PATTERN = re.compile(r"\s*/((?:[^/\\\n]|\\.)*)/")


class Token(NamedTuple):
    """`kind` is the name of a group above or `end`; `value` is without quotes and escapes."""

    kind: str
    value: str
    position: int


def compile_pattern(text: str) -> Callable[[str], bool]:
    """Return a function that searches a text for a regular expression of RE2.  Raise `ParseError`."""
    quiet = re2.Options()
    quiet.log_errors = False
    try:
        pattern = re2.compile(text.encode("utf-8", "surrogateescape"), quiet)
    except re2.error as exc:
        raise ParseError(f"error parsing regexp: {exc}") from exc
    return lambda subject: pattern.search(subject.encode("utf-8", "surrogateescape")) is not None


def duration_ns(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h30m`."""
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"([0-9]+)(ns|us|ms|u|µ|s|m|h|d|w)", text))


@dataclass(slots=True)
class TokenCursor:
    """A position in a statement.  Words are compared without regard to case."""

    text: str
    sql: bool = False
    position: int = 0

    def peek(self) -> Token:
        """Return the next token without taking it."""
        return self._read()[0]

    def next(self) -> Token:
        """Take and return the next token."""
        token, self.position = self._read()
        return token

    def accept(self, *words: str) -> bool:
        """Take these words or symbols if they come next, all of them; return whether they did."""
        before = self.position
        for word in words:
            token = self.next()
            if token.kind not in ("word", "symbol") or token.value.upper() != word.upper():
                self.position = before
                return False
        return True

    def expect(self, *words: str) -> None:
        """Take these words or symbols.  Raise `ParseError`."""
        for word in words:
            if not self.accept(word):
                raise self.unexpected(word)

    def name(self) -> str:
        """Take and return an identifier, bare or quoted."""
        token = self.next()
        if token.kind not in ("word", "quoted"):
            raise self.unexpected("identifier", token)
        return token.value

    def pattern(self) -> str | None:
        """Take and return a regular expression between slashes; None if none comes next."""
        found = _PATTERN.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found[1].replace("\\/", "/")

    def ended(self) -> bool:
        """Return whether the statement has ended."""
        token = self.peek()
        return token.kind == "end" or (token.value == ";" and token.kind == "symbol")

    def unexpected(self, expected: str, token: Token | None = None) -> ParseError:
        """Return the error for an unexpected token."""
        token = token or self.peek()
        before = self.text[: token.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        found = "EOF" if token.kind == "end" else token.value
        return ParseError(f"found {found}, expected {expected} at line {line}, char {column}")

    def _read(self) -> tuple[Token, int]:
        position = self.position
        rules = _SQL if self.sql else _INFLUXQL
        while True:
            found = rules.match(self.text, position)
            if found is None:
                kind = "end" if position >= len(self.text) else "strange"
                return Token(kind, self.text[position : position + 1], position), min(position + 1, len(self.text))
            if found.lastgroup != "space":
                break
            position = found.end()
        kind, text = found.lastgroup or "", found[0]
        return Token(kind, self._value(kind, text), position), found.end()

    def _value(self, kind: str, text: str) -> str:
        if kind not in ("string", "quoted"):
            return text
        inside = text[1:-1]
        if self.sql:
            return inside.replace(text[0] * 2, text[0])
        return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), inside, flags=re.DOTALL)
