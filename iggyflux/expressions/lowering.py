"""The forms of expressions that a code generator may write as plain Python; all others it leaves to `evaluate`.

Each function returns None for an expression that is not of its form, and never guesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeGuard, cast

from iggyflux.expressions.evaluation import Evaluation, Run, build, slot
from iggyflux.expressions.syntax import Node, children_in_order, nodes_in
from iggyflux.functions.table import Budget
from iggyflux.records import JSON, Row

if TYPE_CHECKING:
    from iggyflux.expressions import Expression

Start: TypeAlias = Literal["@", "root"] | int
"""Where a path starts; a number is the level of `parent()`."""
Steps: TypeAlias = tuple[str | int | None, ...]


def static_path(expression: Expression) -> tuple[Start, tuple[str, ...]] | None:
    """Return where a plain chain of members starts, and the members.

    `a.b` and `@.a.b` give `("@", ("a", "b"))`, `root().a` gives `("root", ("a",))`, `parent().a` gives `(1, ("a",))`,
    `@` gives `("@", ())`.  The value is null as soon as a value on the way is not an object or has no such member.
    """
    return path_of(expression.node)


def literal_value(expression: Expression) -> tuple[JSON] | None:
    """Return `(value,)` of an expression that is one literal, such as `'env'` or `` `5` ``."""
    return (expression.node["value"],) if expression.node["type"] == "literal" else None


def scope_call(expression: Expression) -> tuple[str, str | None] | None:
    """Return the name and the argument of `meta('topic')`, `header('k')` or `index()`.

    These give `("meta", "topic")`, `("header", "k")` and `("index", None)`.  The value of a header is
    `functions.header_value(message.headers.get("k"))`.
    """
    return _scope_call(expression.node)


def _scope_call(node: Node) -> tuple[str, str | None] | None:
    if node["type"] != "function_expression" or node["value"] not in ("meta", "header", "index"):
        return None
    return node["value"], node["children"][0]["value"] if node["children"] else None


def path_of(node: Node) -> tuple[Start, tuple[str, ...]] | None:
    """Return `static_path` of a part of a tree."""
    found = steps_of(node)
    if found is None:
        return None
    start, steps = found
    names = tuple(step for step in steps if isinstance(step, str))
    return (start, names) if len(names) == len(steps) else None


def steps_of(node: Node) -> tuple[Start, Steps] | None:
    """Return where a chain of members and elements starts, and its steps.

    A step is a name, an index, or None for an element at an index that depends on the length of the list.
    """
    kind = node["type"]
    if kind in ("current", "identity"):
        return "@", ()
    if kind == "field":
        return "@", (node["value"],)
    if kind == "index":
        return "@", (node["value"] if node["value"] >= 0 else None,)
    if kind == "function_expression" and node["value"] == "root":
        return "root", ()
    if kind == "function_expression" and node["value"] == "parent":
        return node["constants"][0], ()
    if kind not in ("subexpression", "index_expression", "pipe"):
        return None
    first, *rest = [steps_of(child) for child in node["children"]]
    if first is None:
        return None
    start, path = first
    for step in rest:
        if step is None:
            return None
        start, path = (start, path + step[1]) if step[0] == "@" else step
    return start, path


# --- writers: an expression as a function of values that are columns ---


Path: TypeAlias = tuple[Start, tuple[str, ...]]
ScopeCall: TypeAlias = tuple[str, str | None]
Input: TypeAlias = Path | ScopeCall
"""What `static_path` or `scope_call` returns."""


@dataclass(frozen=True, slots=True)
class Interpreted:
    """An expression that is evaluated for each record, by `run(scope, value)`.

    `value` is what `@` is, if `inputs` is None.  Else nothing of the payload is read but these: `value` is the only one
    of them if it `takes_one`, else a tuple of all.
    """

    run: Run
    spends: bool
    """Whether it needs a budget."""
    uses: frozenset[str]
    """Which of meta, header, index, root and parent it calls."""
    inputs: tuple[Input, ...] | None = None
    takes_one: bool = False
    null_for_null: bool = False
    """Whether it may be null where `@` is null, which its inputs do not tell."""


def interpreted(expression: Expression) -> Interpreted:
    """Return an expression that is evaluated on whole values."""
    return Interpreted(build(expression.node), expression.spends, _used(expression.node))


def on_inputs(expression: Expression) -> Interpreted | None:
    """Return an expression as a function of values at plain paths and of the message, or None if it reads more.

    `not_null(a.b, upper(header('c')))` is one of the value at `a.b` and of a header.
    """
    found: dict[Input, int] = {}
    node = _with_slots(expression.node, found)
    if node is None:
        return None
    null_for_null = bool(found) and any(each["type"] in _NULL_FOR_NULL for each in nodes_in(node))
    takes_one = len(found) == 1 and not null_for_null
    if takes_one:
        node = cast(Node, _with_slots(expression.node, found, _CURRENT))
    return Interpreted(build(node), expression.spends, _used(node), tuple(found), takes_one, null_for_null)


def is_path(each: Input) -> TypeGuard[Path]:
    """Return whether an input is a path."""
    return isinstance(each[1], tuple)


def _used(node: Node) -> frozenset[str]:
    calls = (each["value"] for each in nodes_in(node) if each["type"] == "function_expression")
    return _OF_SCOPE.intersection(calls)


_OF_SCOPE: Final = frozenset(("meta", "header", "index", "root", "parent"))
_CURRENT: Final[Node] = {"type": "current", "children": []}
_NULL_FOR_NULL: Final = frozenset(("multi_select_list", "multi_select_dict"))
_ON_ONE_VALUE: Final = _NULL_FOR_NULL | {
    "function_expression",
    "comparator",
    "or_expression",
    "and_expression",
    "not_expression",
    "key_val_pair",
}
"""The forms that are evaluated on the same value as all of their children."""
_FIRST_ON_IT: Final = frozenset(
    ("subexpression", "index_expression", "pipe", "projection", "value_projection", "filter_projection", "flatten")
)
"""The forms that are evaluated on the same value as the first of their children alone."""


def _with_slots(node: Node, found: dict[Input, int], one: Node | None = None) -> Node | None:
    """Return a tree with slots in place of inputs, or with `one`; None if it reads more.  Add them to `found`."""
    path, call = path_of(node), _scope_call(node)
    if call is not None or (path is not None and path[1]):
        return one or slot(found.setdefault(cast(Input, call or path), len(found)))
    if path is not None:
        return None
    kind, children = node["type"], node["children"]
    count = len(children) if kind in _ON_ONE_VALUE else int(kind in _FIRST_ON_IT)
    inner = [_with_slots(child, found, one) for child in children[:count]]
    if None in inner or not (count or kind in ("literal", "expref") or (not children and kind in _ON_ONE_VALUE)):
        return None
    if any(not _used(child).isdisjoint(("root", "parent")) for child in children[count:] if isinstance(child, dict)):
        return None
    return {**node, "children": [*inner, *children[count:]]}


# --- readers: forms of an expression on a row, whose `@` and `root()` are the object of its columns ---


@dataclass(frozen=True, slots=True)
class ColumnRead:
    """The value of a column, null if it is missing; without a name, the row itself."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that does not depend on the row."""

    value: JSON


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """An object with these members, in this order; of duplicate names the last one wins."""

    parts: tuple[tuple[str, Lowered], ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of these elements."""

    parts: tuple[Lowered, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """Any other expression: `run(row, columns)` returns its value, and may raise what a function body may raise."""

    run: Callable[[Row, Any], JSON]


Lowered: TypeAlias = ColumnRead | Constant | ObjectOf | ListOf | Call


def lower(expression: Expression) -> Lowered:
    """Return an expression on a row, taken apart as far as plain Python can express it."""
    return _lower(expression.node)


def _lower(node: Node) -> Lowered:
    path = path_of(node)
    if path is not None and len(path[1]) <= 1:
        return ColumnRead(path[1][0] if path[1] else None)
    kind = node["type"]
    if kind == "literal":
        return Constant(node["value"])
    if kind == "multi_select_dict":
        return ObjectOf(tuple((child["value"], _lower(child["children"][0])) for child in node["children"]))
    if kind == "multi_select_list":
        return ListOf(tuple(map(_lower, node["children"])))
    run = build(node)
    if not _is_scoped(node):
        return Call(lambda _, columns: cast(JSON, run(None, columns)))
    return Call(lambda row, columns: cast(JSON, run(Evaluation(row, columns, None, Budget()), columns)))


def _is_scoped(node: Node) -> bool:
    if node["type"] == "function_expression" and node["function"].scoped:
        return True
    return any(map(_is_scoped, children_in_order(node)))
