"""Paths of GJSON as expressions: keys, positions, `#`, `#(…)`, `#(…)#` and `@this`.

Lists of lists come out flat, as Telegraf expands them.  Wildcards, other modifiers and multipaths are not expressed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from iggyflux.importing.names import literal, member

_QUERY: Final = re.compile(r"(?P<path>[^=!<>%]*)(?P<operator>==|!=|<=|>=|<|>|%|!%)(?P<value>.*)", re.DOTALL)
_INDEX: Final = re.compile(r"[0-9]{1,6}")


class NotExpressed(ValueError):
    """A path has a part that no expression has; the text says which."""


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a path: a key, an index, `each` element of a list, or those for which a condition is true."""

    kind: str
    text: str = ""
    """The key, the position, or the condition as an expression."""

    @property
    def expression(self) -> str:
        if self.kind == "key":
            return f".{member(self.text)}"
        return {"index": f"[{self.text}]", "each": "[]", "all": f"[?{self.text}]"}[self.kind]


def steps(path: str, *, is_inside: bool = False) -> list[Step]:
    """Return the parts of a path, or of one inside a query.  Raise NotExpressed."""
    made: list[Step] = []
    for part in _split(path):
        if part in ("", "@this"):
            continue
        if part == "#":
            made.append(Step("each"))
        elif part.startswith(("#(", "#[")):
            if is_inside:
                raise NotExpressed("a query in a query")
            made += _query(part)
        elif part[0] in "@!{[" or re.search(r"(?<!\\)[*?]", part):
            raise NotExpressed(f"{part[0]!r} in a path")
        elif _INDEX.fullmatch(part):
            made.append(Step("index", part))
        else:
            made.append(Step("key", re.sub(r"\\(.)", r"\1", part)))
    if made and made[-1].kind == "each":
        raise NotExpressed("a path that ends in #, the length of a list")
    return made


def expression(parts: list[Step], start: str = "") -> str:
    """Return the expression of parts, from `start`; `@` for none."""
    made = start
    for step in parts:
        if step.kind == "first":
            made = f"({made.removeprefix('.')}[?{step.text}] | [0])"
        else:
            made += step.expression
    return made.removeprefix(".") or "@"


def _split(path: str) -> list[str]:
    """Return a path's parts: separated by dots and bars that are not in brackets or quotes, nor escaped."""
    parts, depth, quote, at = [""], 0, "", 0
    while at < len(path):
        char = path[at]
        if char == "\\" and at + 1 < len(path):
            parts[-1] += path[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char == '"' and depth:
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char in ".|" and depth <= 0:
            parts.append("")
            at += 1
            continue
        parts[-1] += char
        at += 1
    return parts


def _query(part: str) -> list[Step]:
    """Return the steps of `#(key=="value")`, the first element that matches, and with `#` after it all of them."""
    is_all = part.endswith("#")
    inside = part.removesuffix("#")[2:-1].strip()
    match = _QUERY.fullmatch(inside)
    if match is None:
        raise NotExpressed("a query without a comparison")
    left = expression(steps(match["path"].strip(), is_inside=True))
    text = match["value"].strip()
    operator = match["operator"]
    if operator in ("%", "!%"):
        raise NotExpressed("a query with %")
    if re.fullmatch(r'"[^"\\]*"', text):
        right = literal(text[1:-1])
        if operator not in ("==", "!="):
            raise NotExpressed("a query that orders texts")
    elif re.fullmatch(r"true|false|-?[0-9]{1,15}(?:\.[0-9]{1,15})?", text):
        right = f"`{text}`"
    else:
        raise NotExpressed("a query with this value")
    condition = f"{left} {operator} {right}"
    return [Step("all" if is_all else "first", condition)]
