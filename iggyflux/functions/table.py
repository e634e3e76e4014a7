"""The form in which a function is told: one entry of a table that checks, calls, tests and documents it.

Types are JMESPath's words: null, boolean, number, string, array, object, expref; `array-number` is an array of numbers.
A function is pure, deterministic on every machine, and bounded: what it makes of one payload fits in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from iggyflux.errors import EvaluationError
from iggyflux.records import JSON

if TYPE_CHECKING:
    from iggyflux.records import Message, Row

Types: TypeAlias = tuple[str, ...]
Example: TypeAlias = tuple[str, str, str]
"""An expression, a document as JSON text, the result as JSON text (or the code of the failure)."""

ANY: Types = ()

MAX_TEXT: Final = 16 * 2**20
"""No function makes a text of more characters than this."""

MAX_ITEMS: Final = 2**20
"""No function that is not JMESPath's own makes a list of more elements than this, or finds more matches."""

MAX_DEPTH: Final = 128
"""No function makes a value that is nested deeper than a payload may be."""

MAX_DIGITS: Final = 400
"""No function reads or makes an integer of more digits than about this."""


class Reference:
    """What `&expression` gives a function: jmespath.py's bodies call `visit(expression, element)` on it."""

    __slots__ = ("expression", "scope")

    def __init__(self, expression: Callable[[Any, Any], Any], scope: Any) -> None:
        self.expression = expression
        self.scope = scope

    def visit(self, expression: Callable[[Any, Any], Any], value: Any) -> Any:
        """The expression's value on `value`, in the scope where `&` stands."""
        return expression(self.scope, value)


CLASSES: Final[dict[str, tuple[type, ...]]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "number": (float, int),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
    "expref": (Reference,),
}
_TYPES: Final = {kind: word for word, kinds in CLASSES.items() for kind in kinds}


def type_of(value: object) -> str:
    """The JMESPath type of a value, in one word."""
    return _TYPES.get(type(value), "unknown")


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
        return _signed(self.types)


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    `call` gets the arguments, checked against `parameters`; with `scoped` the evaluation's `Scope` comes first; it may
    raise `EvaluationError`, and whatever Python raises for a value that does not fit.  `prepare` is called when an
    expression is compiled, with the constant arguments by name (absent where they are not given) and the number of all
    arguments, and returns what takes the place of one or more of them; it may raise `ConstantError`.  With `lazy` an
    argument is evaluated only where it is needed: `evaluation` knows these functions by name.

    Null: jmespath.py's own functions fail on it.  Ours give null when any argument is null, as a plain path would,
    unless `accepts_null` says that they know what to do with it.
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
    prepare: Callable[[Mapping[str, Any], int], Mapping[str, Any]] | None = None
    accepts_null: bool = False
    lazy: bool = False

    @property
    def propagates_null(self) -> bool:
        """Whether a null among the arguments makes the result null: so for added functions that don't say otherwise."""
        return not (self.builtin or self.accepts_null)

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
        return f"{self.name}({', '.join(words)}) -> {_signed(self.result)}"


class ConstantError(ValueError):
    """A constant argument that can never work: `parameter` names it, `reason` says why."""

    def __init__(self, parameter: str, reason: str, hint: str | None = None) -> None:
        self.parameter = parameter
        self.reason = reason
        self.hint = hint
        super().__init__(f"{parameter}: {reason}")


def cannot(function: str, reason: str) -> EvaluationError:
    """The failure of an argument of the right type that a function cannot work with."""
    return EvaluationError("IFX304", f"{function}(): {reason}")


def check_size(function: str, characters: int) -> None:
    """Raise where a function is about to make too long a text."""
    if characters > MAX_TEXT:
        raise EvaluationError("IFX303", f"{function}(): the result would be longer than {MAX_TEXT} characters")


def _signed(types: Types) -> str:
    """`number[]|string`: the types as a signature shows them."""
    return "|".join(f"{word.partition('-')[2]}[]" if "-" in word else word for word in types) or "any"


def in_words(types: Iterable[str]) -> str:
    """`array of numbers or string`: the types as a sentence has them."""
    words = [f"array of {word.partition('-')[2]}s" if "-" in word else word for word in types]
    return " or ".join("an expression (&…)" if word == "expref" else word for word in words)


def check_count(function: str, items: int) -> None:
    """Raise where a function is about to make too long a list."""
    if items > MAX_ITEMS:
        raise EvaluationError("IFX303", f"{function}(): the result would have more than {MAX_ITEMS} elements")


def wrong_type(function: str, types: Types, found: str) -> EvaluationError:
    """The failure of an argument whose type does not fit; it never shows the value, which may be anything."""
    return EvaluationError("IFX300", f"{function}() expected {in_words(types)}, found {found}")


Check: TypeAlias = Callable[[Any], None]


def make_checks(function: Function, count: int, skip: Container[int] = ()) -> tuple[tuple[int, Check], ...]:
    """What looks at the arguments of a call of `count` arguments before the body: a position and its check.

    jmespath looks at the first arguments of its own functions only, so `merge(a, b)` fails in the body for `b`.
    """
    last = len(function.parameters) - 1
    positions = range(min(count, last + 1) if function.builtin else count)
    return tuple(
        (position, make_check(function, function.parameters[min(position, last)]))
        for position in positions
        if function.parameters[min(position, last)].types and position not in skip
    )


def make_check(function: Function, parameter: Parameter) -> Check:
    """What raises EvaluationError for an argument that is not of the parameter's types, told apart by exact class."""
    types = parameter.types
    classes = tuple(kind for word in types for kind in CLASSES[word.partition("-")[0]])
    if function.propagates_null:
        classes += CLASSES["null"]
    elements = tuple(CLASSES[word.partition("-")[2]] for word in types if "-" in word)

    def check(argument: Any) -> None:
        if type(argument) not in classes:
            raise wrong_type(function.name, types, type_of(argument))

    def check_elements(argument: Any) -> None:
        """All elements are of one allowed kind, and all of the same one: the first element decides."""
        check(argument)
        if argument and type(argument) is list:
            first = type(argument[0])
            allowed = next((kinds for kinds in elements if first in kinds), ())
            for element in argument:
                if type(element) not in allowed:
                    raise wrong_type(function.name, types, f"an array with {type_of(element)} in it")

    return check_elements if elements else check
