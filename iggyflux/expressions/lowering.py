"""What a code generator may write out in the place of an expression; all else it leaves to `evaluate`.

Each function says None where the expression is not of its form, and never guesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from iggyflux.expressions.evaluation import Evaluation, build
from iggyflux.expressions.syntax import Node, children_in_order
from iggyflux.records import JSON, Row

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


# --- readers: what stands in the place of an expression on a row, whose `@` and `root()` are an object of columns ---


@dataclass(frozen=True, slots=True)
class Column:
    """The value of a column, null where there is none; the row itself with no name."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Fixed:
    """A value that needs no row."""

    value: JSON


@dataclass(frozen=True, slots=True)
class Members:
    """An object with these members, in this order; the last of one name counts."""

    parts: tuple[tuple[str, Lowered], ...]


@dataclass(frozen=True, slots=True)
class Elements:
    """A list of these elements."""

    parts: tuple[Lowered, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """All else: what gives the value for (row, columns), and raises what the body of a function may raise."""

    run: Callable[[Row, Any], JSON]


Lowered: TypeAlias = Column | Fixed | Members | Elements | Call


def lower(expression: Expression) -> Lowered:
    """An expression on a row, taken apart as far as plain Python can say it."""
    return _lower(expression.node)


def _lower(node: Node) -> Lowered:
    path = path_of(node)
    if path is not None and len(path[1]) <= 1:
        return Column(path[1][0] if path[1] else None)
    kind = node["type"]
    if kind == "literal":
        return Fixed(node["value"])
    if kind == "multi_select_dict":
        return Members(tuple((child["value"], _lower(child["children"][0])) for child in node["children"]))
    if kind == "multi_select_list":
        return Elements(tuple(map(_lower, node["children"])))
    run = build(node)
    if not _is_scoped(node):
        return Call(lambda _, columns: cast(JSON, run(None, columns)))
    return Call(lambda row, columns: cast(JSON, run(Evaluation(row, columns, None), columns)))


def _is_scoped(node: Node) -> bool:
    if node["type"] == "function_expression" and node["function"].scoped:
        return True
    return any(map(_is_scoped, children_in_order(node)))
