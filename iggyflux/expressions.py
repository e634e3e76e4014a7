"""Expressions: JMESPath as jmespath.py 1.1 has it, checked when it is compiled, with the functions of `functions`.

This file and `functions` are the only ones that know jmespath.  Its lexer and parser read the text and its interpreter
runs the tree; nothing of either is changed.  What is added: every call is checked when an expression is compiled, every
failure is ours, and `Reads` says what an expression can see of a document.  Evaluation changes nothing and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, cast

from jmespath import exceptions as jmespath_errors
from jmespath import lexer, parser, visitor

from iggyflux.errors import EvaluationError, ExpressionError, closest
from iggyflux.functions import FUNCTIONS, META_NAMES, ConstantError, Function, Parameter
from iggyflux.functions.table import make_check
from iggyflux.reads import Reads
from iggyflux.records import JSON, Message, Row

__all__ = ["Expression", "Reads", "compile_expression", "truth"]

Node: TypeAlias = dict[str, Any]
Tables: TypeAlias = Mapping[str, Mapping[str, JSON]]

MAX_LENGTH: Final = 16_384
MAX_DEPTH: Final = 100


def truth(value: object) -> bool:
    """JMESPath's truth: null, false, and what is empty (string, list, object) are not true; 0 is."""
    return not (value is None or value is False or value == "" or value == [] or value == {})


class _Document:
    """Stands for "the document itself" as the default of `root`."""


_DOCUMENT: Final = _Document()


class Expression:
    """A compiled expression; made by `compile_expression`, never changed after, shared by threads.

    `text` as it was written · `location` the JSON pointer of its place in a document · `reads` what it can read of `@`
    · `root_reads` what it can read of `root()` · `uses` which of meta, header, index, root and lookup it calls · `node`
    the tree of jmespath, for a code generator.  Pickles as its text, tables and place.
    """

    __slots__ = ("_path", "_scoped", "kind", "location", "node", "reads", "root_reads", "tables", "text", "uses")

    def __init__(self, text: str, node: Node, tables: Tables | None, kind: str | None, location: str) -> None:
        self.text = text
        self.node = node
        self.tables = tables
        self.kind = kind
        self.location = location
        self.uses = frozenset(_scope_calls(node))
        self.reads, self.root_reads = _find_reads(node, Reads.WHOLE)
        self._scoped = bool(self.uses - {"lookup"})
        path = static_path(self)
        self._path = path[1] if path is not None and path[0] == "@" else None

    def evaluate(
        self, document: JSON, message: Message | Row | None = None, *, root: Any = _DOCUMENT, index: int | None = None
    ) -> JSON:
        """The value of the expression on `document`; `root` is the whole payload where `document` is an element of it.

        Raises EvaluationError, and nothing else.
        """
        if self._path is not None:
            value: Any = document
            for key in self._path:
                if not isinstance(value, dict):
                    return None
                value = value.get(key)
            return cast(JSON, value)
        interpreter = _PLAIN
        if self._scoped:
            interpreter = _Interpreter(message, document if root is _DOCUMENT else root, index)
        try:
            return cast(JSON, interpreter.visit(self.node, document))
        except EvaluationError as error:
            raise error.at(self.location) from error.__cause__
        except _RAISED as error:
            raise _translate(error).at(self.location) from error

    def reads_for(self, result: Reads) -> tuple[Reads, Reads]:
        """What is read of `@` and of `root()` where only `result` is read of the value: a `for_each` and its elements."""
        return _find_reads(self.node, result)

    def at(self, location: str) -> Expression:
        """The same expression at another place of a document."""
        return Expression(self.text, self.node, self.tables, self.kind, location)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expression):
            return NotImplemented
        return (self.text, self.location, self.tables) == (other.text, other.location, other.tables)

    def __hash__(self) -> int:
        return hash((self.text, self.location))

    def __reduce__(self) -> tuple[Callable[..., Expression], tuple[Any, ...]]:
        return _restore, (self.text, self.tables, self.kind, self.location)


def _restore(text: str, tables: Tables | None, kind: str | None, location: str) -> Expression:
    return compile_expression(text, tables=tables, kind=kind, location=location)


def compile_expression(
    text: str, *, tables: Tables | None = None, kind: str | None = None, location: str = ""
) -> Expression:
    """Compile `text`, or raise ExpressionError with the place of what is wrong inside it.

    `tables` are the tables that `lookup` may name; `kind` ("writer" or "reader") narrows what `meta` knows.
    """
    tokens = _tokenize(text)
    node = _parse(text, tokens)
    _Checker(text, tokens, tables or {}, kind).check(node)
    return Expression(text, node, tables, kind, location)


# --- text to tree ---

_Token: TypeAlias = dict[str, Any]


class _Lexer(lexer.Lexer):  # type: ignore[misc]  # jmespath has no types
    """jmespath's lexer."""


class _Parser(parser.Parser):  # type: ignore[misc]
    """jmespath's parser, fed with tokens, so that the text is read once and the shared cache of trees is not used."""

    def parse_tokens(self, tokens: list[_Token]) -> Node:
        self._tokens = tokens
        self._index = 0
        node = self._expression(binding_power=0)
        if self._current_token() != "eof":
            self._raise_parse_error_for_token(self._lookahead_token(0), "unexpected")
        return cast(Node, node)


def _tokenize(text: str) -> list[_Token]:
    import warnings

    if not text.strip():
        raise ExpressionError("the expression is empty", code="IFX214", text=text, hint="@ is the whole message")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression is longer than {MAX_LENGTH} characters", code="IFX211", text=text[:80])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(_Lexer().tokenize(text))
    except jmespath_errors.LexerError as error:
        raise ExpressionError(str(error.message), code="IFX200", text=text, position=error.lexer_position) from error
    except (ValueError, RecursionError) as error:
        raise ExpressionError("this is not an expression", code="IFX200", text=text) from error


def _parse(text: str, tokens: list[_Token]) -> Node:
    try:
        return _Parser().parse_tokens(tokens)
    except jmespath_errors.ParseError as error:
        raise ExpressionError(
            f"this is not an expression: {error.msg}", code="IFX200", text=text, position=error.lex_position
        ) from error
    except RecursionError as error:
        raise ExpressionError("the expression is nested too deeply", code="IFX211", text=text) from error
    except IndexError as error:  # the parser looks past the end of an unfinished call
        raise ExpressionError("the expression is not finished", code="IFX200", text=text, position=len(text)) from error


# --- checks ---


def children_in_order(node: Node) -> list[Node]:
    """The children of a node in the order of the text (a filter stands before what is taken of its elements)."""
    children: list[Node] = [child for child in node["children"] if isinstance(child, dict)]
    if node["type"] == "filter_projection":
        left, right, condition = children
        return [left, condition, right]
    return children


class _Checker:
    """Walks the tree in the order of the text, with the tokens beside it: the n-th name, literal or `@` of the one is
    the n-th of the other, and that is how a node has a place although jmespath's trees have none."""

    def __init__(self, text: str, tokens: list[_Token], tables: Tables, kind: str | None) -> None:
        self.text = text
        self.tables = tables
        self.names = [
            name for group in (META_NAMES if kind is None else {kind: META_NAMES[kind]}).values() for name in group
        ]
        self.tokens = tokens
        leaves = {"unquoted_identifier", "quoted_identifier", "literal", "current"}
        self.leaves: Iterator[int] = iter([i for i, token in enumerate(tokens) if token["type"] in leaves])

    def fail(self, code: str, message: str, token: int, hint: str | None = None) -> ExpressionError:
        start = self.tokens[token]["start"]
        value = self.tokens[token]["value"]
        length = len(value) if isinstance(value, str) else 1
        return ExpressionError(message, code=code, text=self.text, position=start, length=length, hint=hint)

    def check(self, node: Node, depth: int = 0) -> int:
        """Check a node; the index of its first token."""
        if depth > MAX_DEPTH:
            raise ExpressionError("the expression is nested too deeply", code="IFX211", text=self.text)
        kind = node["type"]
        token = -1
        if kind in ("field", "literal", "current", "function_expression", "key_val_pair"):
            token = next(self.leaves)
        if kind == "field":
            self.check_field(node, token)
        first = [self.check(child, depth + 1) for child in children_in_order(node)]
        if kind == "function_expression":
            self.check_call(node, token, first)
        return token if token >= 0 else min((t for t in first if t >= 0), default=0)

    def check_field(self, node: Node, token: int) -> None:
        word = node["value"]
        if word not in ("null", "true", "false") or self.tokens[token]["type"] != "unquoted_identifier":
            return
        if token and self.tokens[token - 1]["type"] == "dot":
            return
        hint = f'write `{word}` with backticks for the literal, "{word}" in quotes for the field'
        raise self.fail("IFX206", f"{word} without quotes is the name of a field", token, hint)

    def check_call(self, node: Node, token: int, arguments: list[int]) -> None:
        name, children = node["value"], node["children"]
        function = FUNCTIONS.get(name)
        if function is None:
            close = closest(name, list(FUNCTIONS))
            hint = f"did you mean {close}()?" if close else "the functions are listed in docs/functions.md"
            raise self.fail("IFX203", f"unknown function {name}()", token, hint)
        count = len(children)
        if count < function.least or (function.most is not None and count > function.most):
            raise self.fail("IFX204", f"{name}() takes {_arity(function)}, got {count}", token, function.signature)
        constants = self.constants(function, children, arguments)
        replaced: dict[str, Any] = constants
        if function.prepare is not None:
            try:
                replaced = {**constants, **function.prepare(constants)}
            except ConstantError as error:
                position = next(i for i, p in enumerate(function.parameters) if p.name == error.parameter)
                raise self.fail("IFX212", f"{name}(): {error.reason}", arguments[position], error.hint) from error
        node["call"] = _Call(function, children, replaced)

    def constants(self, function: Function, children: list[Node], arguments: list[int]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for parameter, child, token in zip(function.parameters, children, arguments, strict=False):
            if not parameter.constant:
                continue
            if child["type"] != "literal":
                hint = f"write '{child['value']}'" if child["type"] == "field" else None
                raise self.fail("IFX209", f"{parameter.name} of {function.name}() must be a literal", token, hint)
            found[parameter.name] = self.known(function, parameter, child["value"], token)
        return found

    def known(self, function: Function, parameter: Parameter, value: Any, token: int) -> Any:
        if (function.name, parameter.name) == ("meta", "name") and value not in self.names:
            hint = closest(str(value), self.names)
            names = ", ".join(self.names)
            raise self.fail("IFX207", f"meta has no {value!r}", token, f"did you mean {hint!r}?" if hint else names)
        if (function.name, parameter.name) == ("lookup", "table"):
            if value not in self.tables:
                hint = closest(str(value), list(self.tables))
                raise self.fail(
                    "IFX208", f"unknown table {value!r}", token, f"did you mean {hint!r}?" if hint else None
                )
            return self.tables[value]
        return value


def _arity(function: Function) -> str:
    least, most = function.least, function.most
    if most is None:
        return f"at least {least} argument{'' if least == 1 else 's'}"
    if least != most:
        return f"{least} to {most} arguments"
    return f"{least} argument{'' if least == 1 else 's'}" if least else "no arguments"


# --- evaluation ---


class _Call:
    """A call with everything that is known when it is compiled: the check, the body, the constants in place."""

    __slots__ = ("body", "check", "constants", "function", "nodes", "scoped")

    def __init__(self, function: Function, children: list[Node], constants: Mapping[str, Any]) -> None:
        names = [parameter.name for parameter in function.parameters]
        self.function = function
        self.check = make_check(function)
        self.body = function.call
        self.scoped = function.scoped
        self.constants = {names.index(name): value for name, value in constants.items()}
        self.nodes = list(enumerate(children))

    def __call__(self, interpreter: _Interpreter, value: Any) -> Any:
        constants = self.constants
        arguments = [constants[i] if i in constants else interpreter.visit(child, value) for i, child in self.nodes]
        self.check(arguments)
        return self.body(interpreter, *arguments) if self.scoped else self.body(*arguments)


class _Interpreter(visitor.TreeInterpreter):  # type: ignore[misc]
    """jmespath's interpreter, with the scope of one evaluation."""

    _dict_cls = dict

    def __init__(self, message: Message | Row | None = None, root: JSON = None, index: int | None = None) -> None:
        self.message = message
        self.root = root
        self.index = index

    def visit(self, node: Node, value: Any) -> Any:
        return _VISIT[node["type"]](self, node, value)

    def visit_function_expression(self, node: Node, value: Any) -> Any:
        return node["call"](self, value)


_VISIT: Final[dict[str, Callable[..., Any]]] = {
    name.removeprefix("visit_"): getattr(_Interpreter, name) for name in dir(_Interpreter) if name.startswith("visit_")
}
_PLAIN: Final = _Interpreter()

_RAISED: Final = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError, MemoryError)


def _translate(error: BaseException) -> EvaluationError:
    """What jmespath or Python raised, as ours.  The text never shows a value: values may be large, and secret."""
    if isinstance(error, jmespath_errors.JMESPathTypeError):
        expected = " or ".join(error.expected_types)
        return EvaluationError("IFX300", f"{error.function_name}() expected {expected}, got {error.actual_type}")
    if isinstance(error, RecursionError):
        return EvaluationError("IFX303", "the value is nested too deeply")
    if isinstance(error, TypeError):
        return EvaluationError("IFX301", "values of different types cannot be compared")
    return EvaluationError("IFX305", f"the expression failed: {type(error).__name__}")


# --- what is read ---


def _scope_calls(node: Node) -> Iterator[str]:
    if node["type"] == "function_expression" and node["value"] in ("meta", "header", "index", "root", "lookup"):
        yield node["value"]
    for child in children_in_order(node):
        yield from _scope_calls(child)


class _Place:
    """A place in a document, and what is read there so far."""

    __slots__ = ("items", "keys", "whole")

    def __init__(self) -> None:
        self.whole = False
        self.keys: dict[str, _Place] = {}
        self.items: _Place | None = None

    def key(self, name: str) -> _Place:
        return self.keys.setdefault(name, _Place())

    def item(self) -> _Place:
        if self.items is None:
            self.items = _Place()
        return self.items

    def read(self, reads: Reads) -> None:
        self.whole = self.whole or reads.whole
        for name, inner in reads.keys.items():
            self.key(name).read(inner)
        if reads.items is not None:
            self.item().read(reads.items)

    def freeze(self) -> Reads:
        if self.whole:
            return Reads.WHOLE
        keys = {name: place.freeze() for name, place in self.keys.items()}
        return Reads(keys=keys, items=None if self.items is None else self.items.freeze())


class _Seen:
    """What a value may be: any of these places, or a list of these elements, or an object of these members.

    What is none of the three was made of places that were read whole, or is a scalar.
    """

    __slots__ = ("elements", "members", "places")

    def __init__(
        self, places: tuple[_Place, ...] = (), elements: _Seen | None = None, members: dict[str, _Seen] | None = None
    ) -> None:
        self.places = places
        self.elements = elements
        self.members = members or {}

    def key(self, name: str) -> _Seen:
        found = _Seen(tuple(place.key(name) for place in self.places))
        return found.either(self.members[name]) if name in self.members else found

    def item(self) -> _Seen:
        found = _Seen(tuple(place.item() for place in self.places))
        return found.either(self.elements) if self.elements is not None else found

    def either(self, other: _Seen) -> _Seen:
        places = self.places + tuple(place for place in other.places if place not in self.places)
        members = dict(self.members)
        for name, seen in other.members.items():
            members[name] = members[name].either(seen) if name in members else seen
        if self.elements is None or other.elements is None:
            return _Seen(places, other.elements if self.elements is None else self.elements, members)
        return _Seen(places, self.elements.either(other.elements), members)

    def read(self, reads: Reads = Reads.WHOLE) -> _Seen:
        """Note that `reads` is read of it; what then comes of it needs nothing more."""
        for place in self.places:
            place.read(reads)
        if self.elements is not None and (reads.whole or reads.items is not None):
            self.elements.read(Reads.WHOLE if reads.whole else cast(Reads, reads.items))
        for name, seen in self.members.items():
            if reads.whole or name in reads.keys:
                seen.read(Reads.WHOLE if reads.whole else reads.keys[name])
        return _NOTHING


_NOTHING: Final = _Seen()


def _find_reads(node: Node, result: Reads) -> tuple[Reads, Reads]:
    here, root = _Place(), _Place()
    _Tracer(_Seen((root,))).trace(node, _Seen((here,))).read(result)
    return here.freeze(), root.freeze()


class _Tracer:
    """Runs the tree on places in the stead of values, and notes which of them are looked into."""

    def __init__(self, root: _Seen) -> None:
        self.root = root

    def trace(self, node: Node, seen: _Seen) -> _Seen:
        step: Callable[[Node, _Seen], _Seen] = getattr(self, f"trace_{node['type']}")
        return step(node, seen)

    def trace_current(self, node: Node, seen: _Seen) -> _Seen:
        return seen

    trace_identity = trace_current

    def trace_field(self, node: Node, seen: _Seen) -> _Seen:
        return seen.key(node["value"])

    def trace_literal(self, node: Node, seen: _Seen) -> _Seen:
        return _NOTHING

    def trace_index(self, node: Node, seen: _Seen) -> _Seen:
        return seen.item()

    def trace_slice(self, node: Node, seen: _Seen) -> _Seen:
        return _Seen(elements=seen.item())

    def trace_subexpression(self, node: Node, seen: _Seen) -> _Seen:
        for child in node["children"]:
            seen = self.trace(child, seen)
        return seen

    trace_index_expression = trace_subexpression
    trace_pipe = trace_subexpression

    def trace_projection(self, node: Node, seen: _Seen) -> _Seen:
        left, right = node["children"]
        return _Seen(elements=self.trace(right, self.trace(left, seen).item()))

    def trace_filter_projection(self, node: Node, seen: _Seen) -> _Seen:
        left, right, condition = node["children"]
        element = self.trace(left, seen).item()
        self.truth(condition, element)
        return _Seen(elements=self.trace(right, element))

    def trace_value_projection(self, node: Node, seen: _Seen) -> _Seen:
        left, right = node["children"]
        self.trace(left, seen).read()
        self.trace(right, _NOTHING).read()
        return _NOTHING

    def trace_flatten(self, node: Node, seen: _Seen) -> _Seen:
        element = self.trace(node["children"][0], seen).item()
        return _Seen(elements=element.either(element.item()))

    def trace_multi_select_list(self, node: Node, seen: _Seen) -> _Seen:
        element = _NOTHING
        for child in node["children"]:
            element = element.either(self.trace(child, seen))
        return _Seen(elements=element)

    def trace_multi_select_dict(self, node: Node, seen: _Seen) -> _Seen:
        return _Seen(members={child["value"]: self.trace(child["children"][0], seen) for child in node["children"]})

    def trace_comparator(self, node: Node, seen: _Seen) -> _Seen:
        left, right = (self.trace(child, seen) for child in node["children"])
        scalar = any(_is_scalar_literal(child) for child in node["children"])
        if node["value"] in ("eq", "ne") and not scalar:
            left.read()
            right.read()
        # else: what is not a scalar is unequal to one, and not ordered, whatever is in it
        return _NOTHING

    def truth(self, node: Node, seen: _Seen) -> _Seen:
        result = self.trace(node, seen)
        result.read()
        return result

    def trace_not_expression(self, node: Node, seen: _Seen) -> _Seen:
        self.truth(node["children"][0], seen)
        return _NOTHING

    def trace_or_expression(self, node: Node, seen: _Seen) -> _Seen:
        left, right = node["children"]
        return self.truth(left, seen).either(self.trace(right, seen))

    trace_and_expression = trace_or_expression

    def trace_function_expression(self, node: Node, seen: _Seen) -> _Seen:
        name, children = node["value"], node["children"]
        if name == "root":
            return self.root
        plain = [self.trace(child, seen) for child in children if child["type"] != "expref"]
        elements = [argument.item() for argument in plain]
        for child in children:
            if child["type"] == "expref":
                for element in elements:
                    self.trace(child["children"][0], element).read()
        for argument in plain:
            argument.read()
        return _NOTHING


def _is_scalar_literal(node: Node) -> bool:
    return node["type"] == "literal" and not isinstance(node["value"], (list, dict))


# --- for a code generator ---


def static_path(expression: Expression) -> tuple[str, tuple[str, ...]] | None:
    """`("@", ("a", "b"))` for `a.b` and `@.a.b`, `("root", …)` for `root().a.b`; None for anything else."""
    return _static_path(expression.node)


def _static_path(node: Node) -> tuple[str, tuple[str, ...]] | None:
    kind = node["type"]
    if kind == "current":
        return "@", ()
    if kind == "field":
        return "@", (node["value"],)
    if kind == "function_expression" and node["value"] == "root":
        return "root", ()
    if kind != "subexpression":
        return None
    base = _static_path(node["children"][0])
    rest = [_static_path(child) for child in node["children"][1:]]
    if base is None or any(step is None or step[0] != "@" for step in rest):
        return None
    return base[0], base[1] + tuple(key for step in rest if step is not None for key in step[1])
