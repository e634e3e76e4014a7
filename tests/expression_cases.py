"""Random expressions and documents that fit together: few names, few scalars, lists of objects, nested lists.

A case is made from a seed, so that it can be made again.  Thousands take seconds, which finds more than shrinking
would.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from iggyflux.functions import FUNCTIONS, Function

STANDARD = [function for function in FUNCTIONS.values() if function.builtin]
ALL = list(FUNCTIONS.values())

_NAMES = ["a", "a", "b", "b", "c"]
_SCALARS = [None, True, True, False, 0, 1, 1, 2, -1, 0.0, 1.0, 1.5, -0.0, "", "a", "b", "1", "x,y"]
_RARE: list[Any] = [2**53 + 1, -(2**63), 10**30, 1e308, 5e-324, 0.1]
_RARE += ["é", '{"a": 1}', "2024-01-01T00:00:00Z", "1e400", "YQ==", "\ud800"]
_LISTS = ["`[1, 2]`", "`[]`", "`{}`", '`["a", "b"]`', '`{"a": 1}`', "`[[1], 2]`"]
_CONSTANTS = {
    "pattern": ["'a'", "'(?P<x>.)'", "''", "'{}'", "'{}{}'", "'x*'", "'[^a]+'"],
    "replacement": [r"'\0'", "'-'", "''"],
    "group": ["`0`", "`1`", "'x'"],
    "format": ["'rfc3339'", "'%Y-%m-%d'", "'unix_ms'", "'%H'", "'flexible'"],
    "timezone": ["'Europe/Berlin'", "'UTC'"],
    "part": ["'hour'", "'iso_week'"],
    "algorithm": ["'sha256'", "'crc32'"],
    "encoding": ["'hex'", "'base64'"],
    "layout": ["'>h'", "'B'", "'<2s'", "'>2Hf'"],
    "syntax": ["'json'", "'lenient'"],
    "table": ["'sites'"],
    "level": ["`1`", "`2`", "`3`"],
    "name": ["'topic'", "'offset'", "'tenant'", "'none'"],
}


class Maker:
    """Makes texts and documents; `functions` are those that the texts call."""

    def __init__(self, seed: object, functions: list[Function]) -> None:
        self.random = random.Random(str(seed))
        self.functions = functions

    # --- documents ---

    def document(self) -> dict[str, Any]:
        shapes = self.random.choices((self.rows, lambda: self.value(3), lambda: self.value(0)), (3, 3, 1), k=3)
        return {name: made() for name, made in zip("abc", shapes, strict=True) if self.random.random() < 0.9}

    def rows(self) -> list[dict[str, Any]]:
        """Return what most payloads with a list are: objects of the same few scalars."""
        return [{name: self.value(0) for name in "abc"} for _ in range(self.random.randrange(1, 5))]

    def value(self, depth: int) -> Any:
        kind = self.random.random()
        if depth == 0 or kind < 0.3:
            return self.random.choice(_RARE if self.random.random() < 0.1 else _SCALARS)
        if kind < 0.55:
            return {name: self.value(depth - 1) for name in ("a", "b", "c") if self.random.random() < 0.7}
        if kind < 0.75:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        if kind < 0.9:
            return [
                {"a": self.value(depth - 1), "b": self.value(depth - 1)} for _ in range(self.random.randrange(1, 4))
            ]
        pool = self.random.choice([[0, 1, 2, 1.5, -1], ["", "a", "b", "1"], [[1], [2, None], []]])
        return [self.random.choice(pool) for _ in range(self.random.randrange(4))]

    # --- expressions ---

    def expression(self, depth: int = 3) -> str:
        made = self.random.choices(
            (self.chain, self.filtered, self.atom, self.binary, self.unary, self.many, self.call, self.stepped),
            (3, 3, 1, 2, 1, 1, 2, 1) if depth else (4, 1, 1, 0, 0, 0, 0, 0),
        )[0]
        return made(depth)

    def name(self) -> str:
        return self.random.choice(_NAMES)

    def atom(self, _: int = 0) -> str:
        if self.random.random() < 0.3:
            return self.random.choice(["@", "@", "root()" if "root" in {f.name for f in self.functions} else "@"])
        if self.random.random() < 0.2:
            return self.random.choice(_LISTS)
        value = self.random.choice(_SCALARS)
        if isinstance(value, str) and self.random.random() < 0.7:
            return f"'{value}'"
        return f"`{json.dumps(value)}`"

    def chain(self, depth: int = 0) -> str:
        return self.name() + "".join(self.step(depth) for _ in range(self.random.choice([0, 0, 1, 1, 2, 3])))

    def filtered(self, depth: int = 0) -> str:
        return f"{self.name()}[?{self.condition(depth)}]" + self.random.choice(["", ".a", ".b", "[].a", " | [0]"])

    def step(self, depth: int) -> str:
        kind = self.random.randrange(14)
        if kind < 4:
            return f".{self.name()}"
        if kind < 6:
            return "[*]"
        if kind < 8:
            return "[]"
        if kind == 8:
            return self.random.choice(["[0]", "[-1]", "[1]", "[::-1]", "[1:]", "[:1]", "[::2]", ".*", "[::0]"])
        if kind == 9:
            return f".[{self.chain()}, {self.chain()}]"
        if kind == 10:
            return f".{{a: {self.chain()}, {self.name()}: {self.chain()}}}"
        if kind == 11:
            return f" | {self.random.choice(['@', self.name(), '[0]', '[*]', '[]'])}"
        return f"[?{self.condition(depth)}]"

    def condition(self, depth: int) -> str:
        kind = self.random.randrange(5)
        if kind == 0:
            return self.name()
        if kind == 1:
            return f"!{self.name()}"
        if kind == 2:
            return f"{self.name()} {self.comparator()} {self.atom()}"
        if kind == 3:
            return f"{self.name()} {self.comparator()} {self.name()}"
        return self.expression(max(depth - 1, 0))

    def comparator(self) -> str:
        return self.random.choice(["==", "==", "!=", "<", "<=", ">", ">="])

    def binary(self, depth: int) -> str:
        sign = self.random.choice(["|", "||", "&&", "||", "&&", self.comparator(), self.comparator()])
        text = f"{self.expression(depth - 1)} {sign} {self.expression(depth - 1)}"
        return f"({text})" if self.random.random() < 0.5 else text

    def unary(self, depth: int) -> str:
        return f"!{self.expression(depth - 1)}" if self.random.random() < 0.7 else f"({self.expression(depth - 1)})"

    def many(self, depth: int) -> str:
        left, right = self.expression(depth - 1), self.expression(depth - 1)
        return f"[{left}, {right}]" if self.random.random() < 0.5 else f"{{a: {left}, b: {right}}}"

    def stepped(self, depth: int) -> str:
        return f"({self.expression(depth - 1)}){self.step(depth - 1)}"

    def call(self, depth: int) -> str:
        function = self.random.choice(self.functions)
        count = len(function.parameters) if self.random.random() < 0.95 else self.random.randrange(4)
        arguments: list[str] = []
        for position in range(count):
            parameter = (
                function.parameters[min(position, len(function.parameters) - 1)] if function.parameters else None
            )
            if parameter is not None and parameter.optional and self.random.random() < 0.5:
                break
            if parameter is not None and parameter.constant:
                arguments.append(self.random.choice(_CONSTANTS[parameter.name]))
                continue
            argument = self.chain() if self.random.random() < 0.7 else self.expression(depth - 1)
            arguments.append(f"&{argument}" if parameter and parameter.types == ("expref",) else argument)
        text = f"{function.name}({', '.join(arguments)})"
        return f"{self.chain()}[*].{text}" if self.random.random() < 0.2 else text


def check_all(count: int, functions: list[Function], check: Callable[[Maker, str, dict[str, Any]], None]) -> None:
    """Run `check` on this many cases, and name the one that failed."""
    for number in range(count):
        maker = Maker(number, functions)
        text, document = maker.expression(), maker.document()
        try:
            check(maker, text, document)
        except Exception as error:
            error.add_note(f"case {number}: {text!r} on {document!r}")
            raise
