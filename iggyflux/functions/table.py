"""The form of a function: one entry of a table that checks, calls, tests and documents it.

Types have the names of JMESPath: null, boolean, number, string, array, object, expref; `array-number` is an array of
numbers.  A function is pure, gives the same result on every machine, and is bounded: its result for one payload fits in
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
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
"""The most characters of a string that a function makes."""

MAX_ITEMS: Final = 2**20
"""The most elements of a list that an added function makes, and the most matches that it finds."""

MAX_DEPTH: Final = 128
"""The deepest nesting of a value that a function makes; a payload has the same limit."""

MAX_DIGITS: Final = 400
"""About the most digits of an integer that a function reads or makes."""


MAX_STEPS: Final = 2**23
"""The most steps that the expressions of one message take together: elements that they visit or make, calls for each
of them, and characters of strings that they read or make.  It bounds time and memory where an expression multiplies its
input; what does not depend on the message is not counted.
"""

STEPS_OF_A_CALL: Final = 8
"""A call takes about eight times as long as an element of a list."""

_CHARACTERS_A_STEP: Final = 16
_WITH_PARTS: Final = frozenset((str, list, dict))


class Budget:
    """The steps that are left to the expressions of one message."""

    __slots__ = ("left", "steps")

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = self.steps = steps

    @property
    def spent(self) -> int:
        """The steps that were taken away."""
        return self.steps - self.left

    def spend(self, steps: int) -> None:
        """Take `steps` away.  Raise EvaluationError if that is more than is left."""
        self.left -= steps
        if self.left < 0:
            raise EvaluationError("IFX303", f"the expressions of this message take more than {MAX_STEPS} steps")

    def spend_on(self, value: JSON, *, deep: bool) -> None:
        """Take the steps away that it takes to read `value`; with `deep`, all of it, else only its elements."""
        if type(value) is str:
            if len(value) >= _CHARACTERS_A_STEP:
                self.spend(len(value) // _CHARACTERS_A_STEP)
        elif type(value) is list:
            self.spend(len(value))
            if deep and any(type(part) in _WITH_PARTS for part in value):
                self._spend_on_parts(value)
        elif type(value) is dict:
            self.spend(len(value))
            if deep:
                self._spend_on_parts(value)

    def _spend_on_parts(self, whole: list[JSON] | dict[str, JSON]) -> None:
        """Take the steps of all parts of `whole` away; a part that is in it twice counts twice."""
        level: list[list[JSON] | dict[str, JSON]] = [whole]
        while level:
            deeper: list[list[JSON] | dict[str, JSON]] = []
            for each in level:
                if type(each) is dict:
                    self.spend(sum(map(len, each)) // _CHARACTERS_A_STEP)
                for part in each.values() if type(each) is dict else each:
                    if type(part) is str:
                        self.spend(len(part) // _CHARACTERS_A_STEP)
                    elif type(part) is list or type(part) is dict:
                        self.spend(len(part) + 1)
                        deeper.append(part)
            level = deeper


class Reference:
    """The argument that `&expression` gives: bodies of jmespath.py call `visit(expression, element)` on it.

    `steps` is what it takes for an element, without what its expression makes.
    """

    __slots__ = ("expression", "scope", "steps")

    def __init__(self, expression: Callable[[Any, Any], Any], scope: Any, steps: int) -> None:
        self.expression = expression
        self.scope = scope
        self.steps = steps

    def visit(self, expression: Callable[[Any, Any], Any], value: Any) -> Any:
        """Return the value of the expression on `value`, in the scope of its `&`."""
        self.scope.budget.spend(self.steps)
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
_SCALARS: Final = frozenset(("null", "boolean", "number"))
_TYPES: Final = {kind: word for word, kinds in CLASSES.items() for kind in kinds}


def type_of(value: object) -> str:
    """Return the JMESPath type of a value."""
    return _TYPES.get(type(value), "unknown")


class Scope(Protocol):
    """What an evaluation knows besides `@`.

    `index` is None outside `for_each`; `message` is None if none was given.  `parents` are the elements around that of
    a nested `for_each`, the outermost first.
    """

    message: Message | Row | None
    root: JSON
    index: int | None
    parents: Sequence[JSON]
    budget: Budget


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function.

    No `types` means any value.  A `constant` argument must be a literal, and is checked when the expression is
    compiled.
    """

    name: str
    types: Types = ANY
    description: str = ""
    optional: bool = False
    variadic: bool = False
    constant: bool = False

    @property
    def words(self) -> str:
        """The types as a signature shows them."""
        return _signed(self.types)


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    `call` gets the arguments, checked against `parameters`; with `scoped`, the `Scope` of the evaluation comes first.
    It may raise `EvaluationError`, and any exception that Python raises for a value that does not fit.

    `prepare` is called when an expression is compiled, with the constant arguments by name (absent if not given) and
    the number of all arguments.  It returns what replaces one or more of them; it may raise `ConstantError`.  With
    `lazy`, an argument is evaluated only if it is needed: `evaluation` knows these functions by name.

    `shallow` says that only the elements of an array, or the members of an object, are visited, and not what they
    contain; `direct`, that the time does not depend on their number either.

    Functions of jmespath.py fail on null.  Added functions give null if any argument is null, as a plain path does,
    unless they have `accepts_null`.
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
    shallow: bool = False
    direct: bool = False

    @property
    def propagates_null(self) -> bool:
        """Whether a null argument makes the result null: so for added functions without `accepts_null`."""
        return not (self.builtin or self.accepts_null)

    @property
    def is_scalar(self) -> bool:
        """Whether it reads and makes only numbers and booleans, or only says where the message is from."""
        if self.name in ("root", "parent"):
            return True
        types = [self.result, *(parameter.types for parameter in self.parameters if not parameter.constant)]
        return all(each and _SCALARS.issuperset(each) for each in types)

    @property
    def least(self) -> int:
        """The smallest number of arguments."""
        return sum(not parameter.optional for parameter in self.parameters)

    @property
    def most(self) -> int | None:
        """The largest number of arguments; None if there is no limit."""
        return None if any(parameter.variadic for parameter in self.parameters) else len(self.parameters)

    @property
    def signature(self) -> str:
        """How to call it: `replace(text: string, old: string, new: string) -> string`."""
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


def cannot(function: str, reason: str, hint: str | None = None) -> EvaluationError:
    """Return the error for an argument of the right type that a function cannot use."""
    return EvaluationError("IFX304", f"{function}(): {reason}", hint=hint)


def check_size(function: str, characters: int) -> None:
    """Raise EvaluationError if a function is about to make too long a string."""
    if characters > MAX_TEXT:
        raise EvaluationError("IFX303", f"{function}(): the result would be longer than {MAX_TEXT} characters")


def _signed(types: Types) -> str:
    """Return the types as a signature shows them: `number[]|string`."""
    return "|".join(f"{word.partition('-')[2]}[]" if "-" in word else word for word in types) or "any"


def in_words(types: Iterable[str]) -> str:
    """Return the types as a sentence names them: `array of numbers or string`."""
    words = [f"array of {word.partition('-')[2]}s" if "-" in word else word for word in types]
    return " or ".join("an expression (&…)" if word == "expref" else word for word in words)


def check_count(function: str, items: int) -> None:
    """Raise EvaluationError if a function is about to make too long a list."""
    if items > MAX_ITEMS:
        raise EvaluationError("IFX303", f"{function}(): the result would have more than {MAX_ITEMS} elements")


def wrong_type(function: str, types: Types, found: str) -> EvaluationError:
    """Return the error for an argument whose type does not fit; it never shows the value."""
    reason = f"{function}() expected {in_words(types)}, found {found}"
    return EvaluationError("IFX300", reason, hint=_conversion(types, found))


def _conversion(types: Types, found: str) -> str | None:
    """Return what makes one of `types` of an argument of the type `found`."""
    if found == "null":
        return "null is a missing member, too: use coalesce(x, …) for another value in its place"
    if found == "string" and "number" in types:
        return "parse_number(x) reads a number in a string"
    return "to_string(x) makes a string of it" if "string" in types else None


Check: TypeAlias = Callable[[Any], None]


def make_checks(function: Function, count: int, skip: Container[int] = ()) -> tuple[tuple[int, Check], ...]:
    """Return the checks for a call with `count` arguments: for each checked position, the check.

    jmespath checks only the first arguments of its own functions, so `merge(a, b)` fails in the body for `b`.
    """
    last = len(function.parameters) - 1
    positions = range(min(count, last + 1) if function.builtin else count)
    return tuple(
        (position, make_check(function, function.parameters[min(position, last)]))
        for position in positions
        if function.parameters[min(position, last)].types and position not in skip
    )


def make_check(function: Function, parameter: Parameter) -> Check:
    """Return a check that raises EvaluationError for an argument of another type, by exact class."""
    types = parameter.types
    classes = tuple(kind for word in types for kind in CLASSES[word.partition("-")[0]])
    if function.propagates_null:
        classes += CLASSES["null"]
    elements = tuple(CLASSES[word.partition("-")[2]] for word in types if "-" in word)

    def check(argument: Any) -> None:
        if type(argument) not in classes:
            raise wrong_type(function.name, types, type_of(argument))

    def check_elements(argument: Any) -> None:
        """Check that all elements are of one allowed type, the same for all: the first element decides."""
        check(argument)
        if argument and type(argument) is list:
            first = type(argument[0])
            allowed = next((kinds for kinds in elements if first in kinds), ())
            for element in argument:
                if type(element) not in allowed:
                    raise wrong_type(function.name, types, f"an array that contains {type_of(element)}")

    return check_elements if elements else check
