"""Comparisons of a condition that cannot be true for a document: of a missing member, or of two types."""

from __future__ import annotations

from collections.abc import Iterator

from iggyflux.expressions import Expression
from iggyflux.expressions.lowering import path_of
from iggyflux.expressions.syntax import Node
from iggyflux.records import JSON
from iggyflux.values import describe


def hopeless_comparisons(condition: Expression, document: JSON, root: JSON) -> Iterator[str]:
    """Yield a text for each comparison of a path with a literal whose types differ, with what both sides are."""
    for node in _comparators(condition.node):
        for one, other in (node["children"], node["children"][::-1]):
            path = path_of(one)
            if path is None or other["type"] != "literal":
                continue
            start, names = path
            value, literal = _member(document if start == "@" else root, names), other["value"]
            if _kind(value) != _kind(literal):
                shown = ".".join(("root()",) * (start == "root") + names) or "@"
                yield f"{shown} is {describe(value)}, and is compared with {describe(literal)}"


def _comparators(node: Node) -> Iterator[Node]:
    """Yield the comparisons on the whole document: not those inside of projections, filters and calls."""
    if node["type"] == "comparator":
        yield node
    if node["type"] in ("and_expression", "or_expression", "not_expression"):
        for child in node["children"]:
            yield from _comparators(child)


def _member(value: JSON, names: tuple[str, ...]) -> JSON:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _kind(value: JSON) -> object:
    return (int, float) if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)
