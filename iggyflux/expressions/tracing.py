"""What every part of an expression was given and gave, for a list of values: for checks against samples, and coverage.

Parts are evaluated only on values that reach them: the right side of `||` where the left one is not true, an element's
path for each element.  A part that fails gives nothing, and neither do the parts after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from iggyflux.errors import EvaluationError
from iggyflux.expressions.evaluation import RAISED, Evaluation, build, truth
from iggyflux.expressions.syntax import Node
from iggyflux.functions.table import Budget
from iggyflux.records import JSON, Message, Row

_MOST_VALUES: Final = 20_000
"""The most values that one part is evaluated on; a check needs some of them, not all."""

_MOST_STEPS: Final = 200_000
"""The most steps of one evaluation of a part; what takes more counts as failed."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an expression is evaluated on: the value of `@`, the whole payload, the element's position, the message.

    `parents` are the elements around it, the outermost first.
    """

    value: JSON
    root: JSON
    index: int | None = None
    message: Message | Row | None = None
    parents: tuple[JSON, ...] = ()


@dataclass(slots=True)
class Part:
    """A part of an expression: its node, its first name or literal in the text, the values that it got and gave.

    `found` lacks the results of evaluations that failed.
    """

    node: Node
    start: int
    stop: int
    given: list[JSON] = field(default_factory=list)
    found: list[JSON] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The type of the node, such as `field` or `comparator`."""
        return str(self.node["type"])


_Pair = tuple[Evaluation, JSON]


class Tracer:
    """Evaluates the parts of one tree; `spans` are the places of nodes in the text, by id."""

    def __init__(self, spans: dict[int, tuple[int, int]]) -> None:
        self._spans = spans
        self.parts: dict[int, Part] = {}

    def trace(self, node: Node, places: Iterable[Place]) -> list[Part]:
        """Return the parts of `node` in the order of the tree, the whole first."""
        pairs = [(Evaluation(at.message, at.root, at.index, None, at.parents), at.value) for at in places]
        self.visit(node, pairs)
        return list(self.parts.values())

    def visit(self, node: Node, pairs: Sequence[_Pair]) -> list[tuple[Evaluation, JSON, JSON]]:
        """Evaluate `node` on each value; return scope, value and result where it does not fail."""
        if id(node) not in self.parts:
            self.parts[id(node)] = Part(node, *self._spans.get(id(node), (0, 0)))
        part = self.parts[id(node)]
        pairs = pairs[: _MOST_VALUES - len(part.given)]
        run, budget = build(node), Budget(_MOST_STEPS)
        results = []
        for scope, value in pairs:
            part.given.append(value)
            scope.budget = budget
            budget.left = _MOST_STEPS
            try:
                results.append((scope, value, run(scope, value)))
            except (EvaluationError, *RAISED):
                continue
        part.found += [found for _, _, found in results]
        _STEPS.get(node["type"], _each_child)(self, node, pairs)
        return results

    def outcomes(self, node: Node, pairs: Sequence[_Pair]) -> list[_Pair]:
        """Evaluate `node` and return its results with their scopes."""
        return [(scope, found) for scope, _, found in self.visit(node, pairs)]

    def chosen(self, node: Node, pairs: Sequence[_Pair], wanted: Callable[[JSON], bool]) -> list[_Pair]:
        """Evaluate `node` and return the values for which its result is wanted."""
        return [(scope, value) for scope, value, found in self.visit(node, pairs) if wanted(found)]


def _each_child(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    for child in node["children"]:
        if isinstance(child, dict):
            tracer.outcomes(child, pairs)


def _chain(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    for child in node["children"]:
        pairs = tracer.outcomes(child, pairs)


def _elements(pairs: Iterable[_Pair]) -> list[_Pair]:
    return [(scope, element) for scope, base in pairs if isinstance(base, list) for element in base]


def _projection(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    left, right = node["children"]
    tracer.outcomes(right, _elements(tracer.outcomes(left, pairs)))


def _filter_projection(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    left, right, condition = node["children"]
    elements = _elements(tracer.outcomes(left, pairs))
    tracer.outcomes(right, tracer.chosen(condition, elements, truth))


def _value_projection(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    left, right = node["children"]
    bases = tracer.outcomes(left, pairs)
    tracer.outcomes(right, [(s, inner) for s, base in bases if isinstance(base, dict) for inner in base.values()])


def _multi_select_dict(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    given = [(scope, value) for scope, value in pairs if value is not None]
    for child in node["children"]:
        tracer.outcomes(child["children"][0], given)


def _multi_select_list(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    _each_child(tracer, node, [(scope, value) for scope, value in pairs if value is not None])


def _or(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    left, right = node["children"]
    tracer.outcomes(right, tracer.chosen(left, pairs, lambda found: not truth(found)))


def _and(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    left, right = node["children"]
    tracer.outcomes(right, tracer.chosen(left, pairs, truth))


def _call(tracer: Tracer, node: Node, pairs: Sequence[_Pair]) -> None:
    name, children = node["value"], node["children"]
    if name == "if":
        condition, then, *rest = children
        results = tracer.visit(condition, pairs)
        tracer.outcomes(then, [(scope, value) for scope, value, found in results if truth(found)])
        for otherwise in rest:
            tracer.outcomes(otherwise, [(scope, value) for scope, value, found in results if not truth(found)])
        return
    if name == "coalesce":
        for child in children:
            pairs = tracer.chosen(child, pairs, lambda found: found is None)
        return
    lists = [tracer.outcomes(child, pairs) for child in children if child["type"] != "expref"]
    for child in children:
        if child["type"] == "expref":
            tracer.outcomes(child["children"][0], _elements(pair for results in lists for pair in results))


_STEPS: Final[dict[str, Callable[[Tracer, Node, Sequence[_Pair]], None]]] = {
    **dict.fromkeys(("subexpression", "index_expression", "pipe"), _chain),
    "projection": _projection,
    "filter_projection": _filter_projection,
    "value_projection": _value_projection,
    "multi_select_dict": _multi_select_dict,
    "multi_select_list": _multi_select_list,
    "or_expression": _or,
    "and_expression": _and,
    "function_expression": _call,
}
