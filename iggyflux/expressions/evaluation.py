"""Tree to value: each node becomes a function of (scope, value), built once and kept by the expression.

The rules are those of jmespath's TreeInterpreter, oddities included; tests/test_expressions.py compares the two on
random expressions and documents.  Built functions are some three times as fast as visiting the tree.  They keep no
state, so threads may share them.  Values are plain: exactly dict, list, str, int, float, bool or None.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeAlias

from iggyflux.errors import EvaluationError
from iggyflux.expressions.syntax import Node
from iggyflux.functions.table import (
    STEPS_OF_A_CALL,
    Budget,
    Function,
    Reference,
    check_size,
    in_words,
    make_checks,
    type_of,
)
from iggyflux.lineprotocol import Unsigned
from iggyflux.records import JSON, Message, Row

Run: TypeAlias = Callable[[Any, Any], Any]

RAISED: Final = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError, MemoryError)
"""The exceptions that the body of a function, of jmespath.py or of iggyflux, may raise for a value that does not fit.
"""


class Evaluation:
    """The scope of one evaluation: what is known besides `@`, and the budget of the message if it takes steps."""

    __slots__ = ("budget", "index", "message", "parents", "root")

    def __init__(
        self,
        message: Message | Row | None,
        root: JSON,
        index: int | None,
        budget: Budget | None,
        parents: Sequence[JSON] = (),
    ) -> None:
        self.budget = budget
        self.message = message
        self.root = root
        self.index = index
        self.parents = parents


_NUMBERS: Final = (int, float, Unsigned)
"""An unsigned integer is what an expression that calls no function may meet."""


def truth(value: object) -> bool:
    """Return whether `value` is true in JMESPath: null, false and empty strings, lists and objects are not; 0 is."""
    return bool(value) or type(value) in _NUMBERS


def equal(left: Any, right: Any) -> bool:
    """Return whether two values are equal in JMESPath.

    As in Python, but 1 is not true, nor 0 false (inside a list they are, as in jmespath.py).
    """
    return bool(left == right and (type(left) is bool) is (type(right) is bool))


def build(node: Node) -> Run:
    """Return the function that evaluates `node`."""
    return _BUILDERS[node["type"]](node)


def _children(node: Node) -> list[Run]:
    return [build(child) for child in node["children"]]


def _field(node: Node) -> Run:
    name = node["value"]

    def run(_: Any, value: Any) -> Any:
        return value.get(name) if isinstance(value, dict) else None

    return run


def _literal(node: Node) -> Run:
    return _constant(node["value"])


def _current(_: Node) -> Run:
    return lambda _, value: value


def slot(number: int) -> Node:
    """Return the node of the element `number` of the tuple that the tree is evaluated on."""
    return {"type": "slot", "value": number, "children": []}


def _slot(node: Node) -> Run:
    number = node["value"]
    return lambda _, value: value[number]


def _chain(node: Node) -> Run:
    first, *rest = _children(node)
    if len(rest) == 1:
        second = rest[0]
        return lambda scope, value: second(scope, first(scope, value))

    def run(scope: Any, value: Any) -> Any:
        value = first(scope, value)
        for step in rest:
            value = step(scope, value)
        return value

    return run


def _steps_of_an_element(*nodes: Node) -> int:
    """Return the steps of an element of a list for which these nodes are evaluated.

    What is evaluated once is bounded by the text, whatever the message: it takes no steps.
    """
    return 1 + sum(map(_steps, nodes))


def _steps(node: Node) -> int:
    """Return the steps of what `node` calls and makes, without those for each element of a list."""
    kind, children = node["type"], [child for child in node["children"] if isinstance(child, dict)]
    if kind == "expref":
        return 0
    if kind in _ITERATING:
        return _steps(children[0])
    own = STEPS_OF_A_CALL if kind == "function_expression" else len(children) if kind in _MAKING else 0
    return own + sum(map(_steps, children))


def _index(node: Node) -> Run:
    position = node["value"]

    def run(_: Any, value: Any) -> Any:
        if not isinstance(value, list):
            return None
        try:
            return value[position]
        except IndexError:
            return None

    return run


def _slice(node: Node) -> Run:
    part = slice(*node["children"])

    def run(scope: Any, value: Any) -> Any:
        if not isinstance(value, list):
            return None
        scope.budget.spend(len(value))
        try:
            return value[part]
        except ValueError as error:
            raise EvaluationError("IFX302", "the step of a slice cannot be 0") from error

    return run


def _projection(node: Node) -> Run:
    left, right = _children(node)
    steps = _steps_of_an_element(node["children"][1])
    whole = node["children"][1]["type"] == "identity"

    def run(scope: Any, value: Any) -> Any:
        base = left(scope, value)
        if not isinstance(base, list):
            return None
        scope.budget.spend(len(base) * steps)
        if whole:
            return [element for element in base if element is not None]
        return [found for element in base if (found := right(scope, element)) is not None]

    return run


def _value_projection(node: Node) -> Run:
    left, right = _children(node)
    steps = _steps_of_an_element(node["children"][1])

    def run(scope: Any, value: Any) -> Any:
        base = left(scope, value)
        if not isinstance(base, dict):
            return None
        scope.budget.spend(len(base) * steps)
        return [found for element in base.values() if (found := right(scope, element)) is not None]

    return run


def _filter_projection(node: Node) -> Run:
    left, right, condition = _children(node)
    steps = _steps_of_an_element(*node["children"][1:])

    def run(scope: Any, value: Any) -> Any:
        base = left(scope, value)
        if not isinstance(base, list):
            return None
        scope.budget.spend(len(base) * steps)
        return [
            found
            for element in base
            if truth(condition(scope, element)) and (found := right(scope, element)) is not None
        ]

    return run


def _flatten(node: Node) -> Run:
    (inner,) = _children(node)

    def run(scope: Any, value: Any) -> Any:
        base = inner(scope, value)
        if not isinstance(base, list):
            return None
        merged: list[Any] = []
        scope.budget.spend(len(base))
        for element in base:
            if isinstance(element, list):
                scope.budget.spend(len(element))
                merged.extend(element)
            else:
                merged.append(element)
        return merged

    return run


def _multi_select_list(node: Node) -> Run:
    parts = _children(node)
    return lambda scope, value: None if value is None else [part(scope, value) for part in parts]


def _multi_select_dict(node: Node) -> Run:
    parts = [(child["value"], build(child["children"][0])) for child in node["children"]]
    return lambda scope, value: None if value is None else {name: part(scope, value) for name, part in parts}


def _or(node: Node) -> Run:
    left, right = _children(node)

    def run(scope: Any, value: Any) -> Any:
        found = left(scope, value)
        return found if truth(found) else right(scope, value)

    return run


def _and(node: Node) -> Run:
    left, right = _children(node)

    def run(scope: Any, value: Any) -> Any:
        found = left(scope, value)
        return right(scope, value) if truth(found) else found

    return run


def _not(node: Node) -> Run:
    (inner,) = _children(node)
    return lambda scope, value: not truth(inner(scope, value))


_ITERATING: Final = ("projection", "value_projection", "filter_projection")
_MAKING: Final = ("multi_select_list", "multi_select_dict")
_SIGNS: Final = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
_ORDERED: Final = (*_NUMBERS, str)


def _comparator(node: Node) -> Run:
    left, right = _children(node)
    name = node["value"]
    if name in ("eq", "ne"):
        is_equal = _equal_to_scalar if any(map(is_scalar, node["children"])) else _equal
        if name == "eq":
            return lambda scope, value: is_equal(scope, left(scope, value), right(scope, value))
        return lambda scope, value: not is_equal(scope, left(scope, value), right(scope, value))
    compare = _ORDER[name]

    def run(scope: Any, value: Any) -> Any:
        a, b = left(scope, value), right(scope, value)
        if type(a) not in _ORDERED or type(b) not in _ORDERED:
            return None
        try:
            return compare(a, b)
        except TypeError as error:
            words = f"cannot compare {type_of(a)} {_SIGNS[name]} {type_of(b)}"
            hint = (
                "parse_number(x) reads a number in a string"
                if {type_of(a), type_of(b)} == {"string", "number"}
                else None
            )
            raise EvaluationError("IFX301", words, hint=hint) from error

    return run


def is_scalar(node: Node) -> bool:
    """Return whether `node` is a literal that is neither a list nor an object."""
    return node["type"] == "literal" and not isinstance(node["value"], list | dict)


def _equal_to_scalar(_: Any, left: Any, right: Any) -> bool:
    return equal(left, right)


def _equal(scope: Any, left: Any, right: Any) -> bool:
    if type(left) is type(right):
        scope.budget.spend_on(left, deep=True)
    return equal(left, right)


def _expref(node: Node) -> Run:
    (inner,) = _children(node)
    steps = _steps_of_an_element(node["children"][0])
    return lambda scope, _: Reference(inner, scope, steps)


def _if(node: Node) -> Run:
    condition, then, *rest = _children(node)
    otherwise = rest[0] if rest else lambda _, __: None
    return lambda scope, value: then(scope, value) if truth(condition(scope, value)) else otherwise(scope, value)


def _coalesce(node: Node) -> Run:
    parts = _children(node)

    def run(scope: Any, value: Any) -> Any:
        for part in parts:
            found = part(scope, value)
            if found is not None:
                return found
        return None

    return run


_LAZY: Final = {"if": _if, "coalesce": _coalesce}


def _call(node: Node) -> Run:
    """Build a call: evaluate the arguments in order, check their types, return null for a null, run the body."""
    function: Function = node["function"]
    if function.lazy:
        return _LAZY[function.name](node)
    if function.name in _FREE_OF_STEPS:
        return _FREE_OF_STEPS[function.name](node)
    count = len(node["children"])
    constants: dict[int, Any] = {  # literals too: their types are checked already
        position: child["value"]
        for position, child in enumerate(node["children"])
        if child["type"] == "literal" and child["value"] is not None
    } | node["constants"]
    plain = [position for position in range(count) if position not in constants]
    if len(plain) == 1 and not function.scoped:
        return _call_of_one(function, constants, plain[0], build(node["children"][plain[0]]))
    body, scoped = function.call, function.scoped
    arguments = [
        _constant(constants[position]) if position in constants else build(child)
        for position, child in enumerate(node["children"])
    ]
    added = tuple(constants[position] for position in sorted(constants) if position >= count)
    checks = make_checks(function, count, skip=constants)
    nullable = plain if function.propagates_null else []
    deep, counted = not function.shallow, frozenset() if function.direct else _GROWING

    def run(scope: Any, value: Any) -> Any:
        given = [argument(scope, value) for argument in arguments]
        for position, check in checks:
            check(given[position])
        for position in nullable:
            if given[position] is None:
                return None
        for position in plain:
            argument = given[position]
            if type(argument) in counted and (type(argument) is not str or len(argument) > _SHORT):
                scope.budget.spend_on(argument, deep=deep)
        try:
            found = body(scope, *given, *added) if scoped else body(*given, *added)
            if type(found) in counted and (type(found) is not str or len(found) > _SHORT):
                _spend_on_result(function, scope, found)
            return found
        except EvaluationError:
            raise
        except RAISED as error:
            _failed(function, [given[position] for position in plain], error)

    return run


def _call_of_one(function: Function, constants: dict[int, Any], position: int, argument: Run) -> Run:
    """Build a call like `_call`, for one argument that is not constant: most calls have one."""
    body, propagates = function.call, function.propagates_null
    before = tuple(constants[place] for place in sorted(constants) if place < position)
    after = tuple(constants[place] for place in sorted(constants) if place > position)
    checks = make_checks(function, position + 1, skip=constants)
    check = checks[0][1] if checks else None
    deep, counted = not function.shallow, frozenset() if function.direct else _GROWING

    def run(scope: Any, value: Any) -> Any:
        given = argument(scope, value)
        if given is None and propagates:
            return None
        if check is not None:
            check(given)
        if type(given) in counted and (type(given) is not str or len(given) > _SHORT):
            scope.budget.spend_on(given, deep=deep)
        try:
            found = body(*before, given, *after)
            if type(found) in counted and (type(found) is not str or len(found) > _SHORT):
                _spend_on_result(function, scope, found)
            return found
        except EvaluationError:
            raise
        except RAISED as error:
            _failed(function, [given], error)

    return run


_GROWING: Final = frozenset((str, list, dict))
_SHORT: Final = 15
"""A string of so many characters takes no step."""


def _root(_: Node) -> Run:
    return lambda scope, _: scope.root


def _parent(node: Node) -> Run:
    position = -node["constants"][0]
    return lambda scope, _: scope.parents[position] if len(scope.parents) >= -position else None


_FREE_OF_STEPS: Final = {"root": _root, "parent": _parent}


def _spend_on_result(function: Function, scope: Any, found: str | list[JSON] | dict[str, JSON]) -> None:
    if type(found) is str:
        check_size(function.name, len(found))
    scope.budget.spend_on(found, deep=False)


def _constant(value: Any) -> Run:
    return lambda _, __: value


def _failed(function: Function, arguments: list[Any], error: BaseException) -> NoReturn:
    """Raise an exception of a function body as an EvaluationError.

    The text shows types and never a value: values may be large, or secret.
    """
    name = f"{function.name}()"
    types = ", ".join(type_of(argument) for argument in arguments)
    expected = getattr(error, "expected_types", None)
    if expected is not None:  # JMESPathTypeError, for a key that an expression gave
        found = str(getattr(error, "actual_type", ""))
        raise EvaluationError("IFX300", f"{name} expected {in_words(expected)}, found {found}") from error
    if isinstance(error, RecursionError | MemoryError):
        raise EvaluationError("IFX303", f"{name}: the value is too large, or nested too deeply") from error
    if isinstance(error, ArithmeticError):
        raise EvaluationError("IFX302", f"{name}: the result is not a number that can be represented") from error
    if isinstance(error, TypeError | AttributeError):
        raise EvaluationError("IFX300", f"{name} does not accept {types}") from error
    raise EvaluationError("IFX304", f"{name} does not accept this value ({types})") from error


_BUILDERS: Final[dict[str, Callable[[Node], Run]]] = {
    "field": _field,
    "literal": _literal,
    "current": _current,
    "identity": _current,
    "slot": _slot,
    "subexpression": _chain,
    "index_expression": _chain,
    "pipe": _chain,
    "index": _index,
    "slice": _slice,
    "projection": _projection,
    "value_projection": _value_projection,
    "filter_projection": _filter_projection,
    "flatten": _flatten,
    "multi_select_list": _multi_select_list,
    "multi_select_dict": _multi_select_dict,
    "or_expression": _or,
    "and_expression": _and,
    "not_expression": _not,
    "comparator": _comparator,
    "expref": _expref,
    "function_expression": _call,
}


_FREE: Final = frozenset(
    ("field", "literal", "current", "identity", "subexpression", "index_expression", "pipe", "index")
) | {"or_expression", "and_expression", "not_expression"}


def spends(node: Node) -> bool:
    """Return whether evaluating `node` needs a budget: it may visit or make more than one value."""
    kind = node["type"]
    if kind == "comparator":
        is_free = node["value"] not in ("eq", "ne") or any(map(is_scalar, node["children"]))
    elif kind == "function_expression":
        is_free = node["function"].lazy or node["function"].is_scalar
    else:
        is_free = kind in _FREE
    return not is_free or any(spends(child) for child in node["children"] if isinstance(child, dict))
