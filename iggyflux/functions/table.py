"""The form in which a function is told: one entry of a table that checks, calls, tests and documents it.

Types are JMESPath's words: null, boolean, number, string, array, object, expref; `array-number` is an array of numbers.
A function is pure, deterministic on every machine, and bounded: what it makes of one payload fits in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from iggyflux.errors import EvaluationError
from iggyflux.records import JSON

if TYPE_CHECKING:
    from iggyflux.records import Message, Row

Types: TypeAlias = tuple[str, ...]
Example: TypeAlias = tuple[str, str, str]
"""An expression, a document as JSON text, the result as JSON text (or the code of the failure)."""

ANY: Types = ()

TYPE_OF: dict[str, str] = {
    "NoneType": "null",
    "bool": "boolean",
    "int": "number",
    "float": "number",
    "str": "string",
    "list": "array",
    "dict": "object",
    "_Expression": "expref",
}


def type_of(value: object) -> str:
    """The JMESPath type of a value, in one word."""
    return TYPE_OF.get(type(value).__name__, "unknown")


class Scope(Protocol):
    """What an evaluation knows beside `@`.  `index` is None outside `for_each`, `message` None where none was given."""

    message: Message | Row | None
    root: JSON
    index: int | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """`types` empty: any value.  `constant`: the argument must be a literal, and is looked at when it is compiled."""

    name: str
    types: Types = ANY
    description: str = ""
    optional: bool = False
    variadic: bool = False
    constant: bool = False

    @property
    def words(self) -> str:
        """The types as a reader of the signature sees them."""
        return "|".join(self.types) or "any"


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    `call` gets the arguments, checked against `parameters`; with `scoped` the evaluation's `Scope` comes first; it may
    raise `EvaluationError`, and whatever Python raises for a value that does not fit.  `prepare` is called when an
    expression is compiled, with the constant arguments by name (absent where they are not given), and returns what
    takes the place of one or more of them; it may raise `ConstantError`.
    """

    name: str
    group: str
    description: str
    parameters: tuple[Parameter, ...]
    result: Types
    call: Callable[..., Any]
    examples: tuple[Example, ...] = ()
    builtin: bool = False
    scoped: bool = False
    prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    @property
    def least(self) -> int:
        """The smallest number of arguments."""
        return sum(not parameter.optional for parameter in self.parameters)

    @property
    def most(self) -> int | None:
        """The largest number of arguments; None where there is none."""
        return None if any(parameter.variadic for parameter in self.parameters) else len(self.parameters)

    @property
    def signature(self) -> str:
        """How it is called: `replace(text: string, old: string, new: string) -> string`."""
        words = []
        for parameter in self.parameters:
            word = f"{parameter.name}{'...' if parameter.variadic else ''}: {parameter.words}"
            words.append(f"[{word}]" if parameter.optional else word)
        return f"{self.name}({', '.join(words)}) -> {'|'.join(self.result) or 'any'}"


class ConstantError(ValueError):
    """A constant argument that can never work: `parameter` names it, `reason` says why."""

    def __init__(self, parameter: str, reason: str, hint: str | None = None) -> None:
        self.parameter = parameter
        self.reason = reason
        self.hint = hint
        super().__init__(f"{parameter}: {reason}")


def wrong_type(function: str, types: Types, found: str) -> EvaluationError:
    """The failure of an argument whose type does not fit; it never shows the value, which may be anything."""
    return EvaluationError("IFX300", f"{function}() expected {' or '.join(types)}, got {found}")


def make_check(function: Function) -> Callable[[list[Any]], None]:
    """What compares the arguments of a call with the parameters, as jmespath does: by exact class, in order."""
    fixed = tuple(
        (position, _names(parameter.types), _element_names(parameter.types), parameter.types)
        for position, parameter in enumerate(function.parameters)
        if parameter.types and not parameter.constant
    )
    rest: tuple[int, Parameter] | None = None
    if not function.builtin and function.parameters and function.parameters[-1].variadic:
        rest = (len(function.parameters), function.parameters[-1])

    def check(arguments: list[Any]) -> None:
        for position, names, elements, types in fixed:
            if position >= len(arguments):
                break
            argument = arguments[position]
            if type(argument).__name__ not in names:
                raise wrong_type(function.name, types, type_of(argument))
            if elements:
                _check_elements(function.name, argument, elements, types)
        if rest is not None and rest[1].types:
            names = _names(rest[1].types)
            for argument in arguments[rest[0] :]:
                if type(argument).__name__ not in names:
                    raise wrong_type(function.name, rest[1].types, type_of(argument))

    return check


_CLASSES: dict[str, tuple[str, ...]] = {
    "null": ("NoneType",),
    "boolean": ("bool",),
    "number": ("float", "int"),
    "string": ("str",),
    "array": ("list",),
    "object": ("dict", "OrderedDict"),
    "expref": ("_Expression",),
}


def _names(types: Types) -> frozenset[str]:
    return frozenset(name for word in types for name in _CLASSES[word.partition("-")[0]])


def _element_names(types: Types) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(_CLASSES[word.partition("-")[2]]) for word in types if "-" in word)


def _check_elements(function: str, values: list[Any], allowed: tuple[frozenset[str], ...], types: Types) -> None:
    """All elements are of one of the `allowed` kinds, and all of the same one: the first element decides."""
    if not values:
        return
    first = type(values[0]).__name__
    names = next((names for names in allowed if first in names), frozenset[str]())
    for value in values:
        if type(value).__name__ not in names:
            raise wrong_type(function, types, f"an array with {type_of(value)} in it")
