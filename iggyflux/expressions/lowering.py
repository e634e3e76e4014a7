"""What a code generator may write out in the place of an expression; all else it leaves to `evaluate`.

Each function says None where the expression is not of its form, and never guesses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from iggyflux.expressions.syntax import Node
from iggyflux.records import JSON

if TYPE_CHECKING:
    from iggyflux.expressions import Expression

Start: TypeAlias = Literal["@", "root"]


def static_path(expression: Expression) -> tuple[Start, tuple[str, ...]] | None:
    """Where a plain chain of members starts, and the members.

    `a.b` and `@.a.b` give `("@", ("a", "b"))`, `root().a` gives `("root", ("a",))`, `@` gives `("@", ())`.  The value
    is null as soon as one of the values on the way is not an object or has no such member.
    """
    return path_of(expression.node)


def literal_value(expression: Expression) -> tuple[JSON] | None:
    """`(value,)` of an expression that is one literal, such as `'env'` or `` `5` ``."""
    return (expression.node["value"],) if expression.node["type"] == "literal" else None


def scope_call(expression: Expression) -> tuple[str, str | None] | None:
    """`("meta", "topic")` for `meta('topic')`, `("header", "k")` for `header('k')`, `("index", None)` for `index()`.

    A header's value is `functions.header_value(message.headers.get("k"))`.
    """
    node = expression.node
    if node["type"] != "function_expression" or node["value"] not in ("meta", "header", "index"):
        return None
    return node["value"], node["children"][0]["value"] if node["children"] else None


def path_of(node: Node) -> tuple[Start, tuple[str, ...]] | None:
    """`static_path` of a part of a tree."""
    kind = node["type"]
    if kind in ("current", "identity"):
        return "@", ()
    if kind == "field":
        return "@", (node["value"],)
    if kind == "function_expression" and node["value"] == "root":
        return "root", ()
    if kind not in ("subexpression", "pipe"):
        return None
    first, *rest = [path_of(child) for child in node["children"]]
    if first is None:
        return None
    start, path = first
    for step in rest:
        if step is None:
            return None
        start, path = (start, path + step[1]) if step[0] == "@" else step
    return start, path
