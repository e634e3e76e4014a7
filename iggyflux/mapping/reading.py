"""What every part of reading a document needs: typed access to a tree that may be wrong, and problems with places.

A problem never stops the reading: it is reported, and a placeholder takes the place of the value, so that one pass
finds everything.  A problem that the schema has reported is not reported again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from iggyflux.documents import Document, check_schema, join_pointer, parent_of
from iggyflux.documents.offsets import Style
from iggyflux.documents.schema import LITERAL
from iggyflux.errors import ExpressionError, Problem
from iggyflux.expressions import Expression, compile_expression
from iggyflux.mapping.files import Unreadable, read_named
from iggyflux.records import JSON, Scalar
from iggyflux.spec import Const, Source

NOTHING = Const("")
"""The placeholder for a value that has a problem."""

NO_PARENT = "IFX216"
_FLATTENED = re.compile(r"\[\*?\]\.")
_PATH = re.compile(r"[A-Za-z0-9_.]+")
_SCALAR = frozenset({"string", "number", "boolean"})
_FITTING = {
    "a list": frozenset({"array"}),
    "a string": frozenset({"string"}),
    "a number": frozenset({"number"}),
    "a boolean": frozenset({"boolean"}),
    "a string or a number": frozenset({"string", "number"}),
    "a string, a number or a boolean": _SCALAR,
    "an object": frozenset({"object"}),
}

_KINDS = {
    "array": "a list",
    "boolean": "a boolean",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}
"""What messages call the types of JMESPath."""

# The problem is about a key, and the value under it is still worth reading.
_ABOUT_KEYS = frozenset({"IFX110", "IFX111"})


class Reading:
    """A document that is being read: its problems so far, and what every part of it needs to know.

    `lists` is how many lists lead to the elements on which the next expressions are evaluated.
    """

    def __init__(self, document: Document, kind: str) -> None:
        self.document = document
        self.kind = kind
        found = check_schema(document, "mapping")
        self.problems: list[Problem] = [*document.faults, *found]
        self.warnings: list[Problem] = []
        # Values and objects with a reported problem; what follows from it is not reported.
        self.reported = {problem.location.pointer for problem in found if problem.code not in _ABOUT_KEYS}
        self.reported |= document.broken
        self.misspelt = {parent_of(problem.location.pointer) for problem in self.problems if problem.code == "IFX110"}
        self.tree = object_of(document.tree)
        self.tables = {
            name: table for name, table in object_of(self.tree.get("tables")).items() if isinstance(table, dict)
        }
        self.named: set[str] = set()
        """The names of files, also of those that cannot be read."""
        self.files: dict[str, bytes] = {}
        self.expressions: list[Expression] = []
        self.lists = 0

    # problems

    def report(self, code: str, pointer: str, message: str, *, key: bool = False, **more: Any) -> None:
        """Report an error, unless the schema has reported one of this very node."""
        if pointer not in self.reported or key:
            self.problems.append(self.document.problem(code, pointer, message, key=key, **more))

    def warn(self, code: str, pointer: str, message: str, **more: Any) -> None:
        """Report a warning."""
        self.warnings.append(self.document.problem(code, pointer, message, severity="warning", **more))

    # values

    def file(self, name: JSON, pointer: str | None) -> bytes | None:
        """Return the content of the file that the document names at `pointer`; None if there is none: reported.

        Without a pointer it is one of several places where a file may be, and nothing is reported.
        """
        if not isinstance(name, str) or not name:
            return None
        self.named.add(name)
        if pointer is None and self.document.files and name not in self.document.files:
            return None  # it was not there when the document was read, and what is there now is not a part of it
        try:
            content = self.files.get(name, self.document.files.get(name)) or read_named(self.document, name)
        except Unreadable as error:
            if pointer is None:
                return None
            self.report("IFX100", pointer, error.reason, hint=error.hint)
            return None
        self.files[name] = content
        return content

    def expression(self, value: JSON, pointer: str, fitting: str | None = None) -> Expression | None:
        """Return the expression in `value`; None if it is not one, which is reported.

        `fitting` names the types that its place accepts.
        """
        if not isinstance(value, str) or not value:
            return None
        try:
            parents = max(self.lists - 1, 0)  # around the outermost element is the message, which is root()
            expression = compile_expression(
                value, tables=self.tables, kind=self.kind, location=pointer, parents=parents
            )
        except ExpressionError as error:
            hint = self.literal_hint(value) or self.split_hint(value, pointer) or self.quotes_hint(error.hint, pointer)
            if error.code == NO_PARENT:
                hint = self.parent_hint(pointer) or hint
            self.report(
                error.code,
                pointer,
                error.message,
                offset=error.position,
                length=max(error.length, 1),
                hint=hint,
                instead=error.instead,
            )
            return None
        for doubt in expression.warnings:
            self.warnings.append(
                self.document.problem(
                    doubt.code,
                    pointer,
                    doubt.message,
                    offset=doubt.position,
                    length=max(doubt.length, 1),
                    hint=doubt.hint,
                    severity="warning",
                    instead=doubt.instead,
                )
            )
        self.check_types(expression, fitting, pointer)
        self.expressions.append(expression)
        return expression

    def for_each(self, value: JSON, pointer: str) -> tuple[Expression, ...]:
        """Return the expressions of a `for_each`; what is read next is evaluated on the elements of the last one."""
        found = []
        items = enumerate(value) if isinstance(value, list) else [] if value is None else [(None, value)]
        for index, item in items:
            place = pointer if index is None else join_pointer(pointer, index)
            expression = self.expression(item, place, "a list")
            found += [] if expression is None else [expression]
            self.lists += 1
        return tuple(found)

    def check_types(self, expression: Expression, fitting: str | None, pointer: str) -> None:
        """Report an expression that can never return a type that its place accepts."""
        if fitting is None or expression.types & _FITTING[fitting]:
            return
        found = " or ".join(_KINDS[kind] for kind in sorted(expression.types - {"null"})) or "null"
        declared = {"string", "boolean"} & expression.types
        hint = None
        if fitting == "a number" and len(declared) == 1:
            hint = f"declare its type: type: {(given := declared.pop())}"
            hint += ", or cast: true for a number in a string" if given == "string" else ""
        elif fitting != "an object" and "array" in expression.types and expression.types <= {"array", "null"}:
            hint = f"select the first element: {expression.text} | [0]"
        elif fitting == "an object" and expression.text.endswith((".*", "[*]", "[]")):
            end = "." if expression.text.endswith(".*") else "["
            hint = f"select the object itself: {expression.text.rpartition(end)[0]}"
        message = f"this expression never returns {fitting}"
        self.report("IFX132", pointer, message, expected=fitting, found=f"always {found}", hint=hint)

    def literal_hint(self, value: str) -> str | None:
        """Return a hint for a date, a time or a number with a unit: a string in YAML, but not an expression."""
        if LITERAL.fullmatch(value) is None:
            return None
        sign = "=" if self.document.format == "toml" else ":"
        constant = f"write a constant as {{const{' ' * (sign == '=')}{sign} '{value}'}}"
        if ":" in value or "-" in value:
            return constant
        return f"{constant}; quote a member of this name: '\"{value}\"'"

    def split_hint(self, value: str, pointer: str) -> str | None:
        """Return a hint for `{x: f(a, b)}` without quotes, which is the string `f(a` in YAML."""
        node = self.document.node(pointer)
        if node is None or not node.in_flow or node.style is not Style.PLAIN:
            return None
        if value.count("(") > value.count(")"):
            return "inside { … } a comma ends the value: quote the whole expression"
        return None

    def parent_hint(self, pointer: str) -> str | None:
        """Return a hint for `parent()` where there is none: in a `for_each`, and of lists that are flattened."""
        if "for_each" in pointer.split("/"):
            what = "the element of the list before" if self.lists else "the message"
            return f"in this `for_each` `@` is {what}: write the path from there"
        lists = self.tree.get("for_each")
        parts = _FLATTENED.split(lists.removesuffix("[]")) if isinstance(lists, str) and self.lists == 1 else []
        if all(_PATH.fullmatch(part) for part in parts) and len(parts) > 1:
            return f"root() is the whole message; for parent() write for_each: {json.dumps(parts)}"
        return None

    def quotes_hint(self, hint: str | None, pointer: str) -> str | None:
        """Return `hint` with the advice that a quoted name needs other quotes around it in YAML."""
        node = self.document.node(pointer)
        if hint is None or node is None or 'quote it: "' not in hint:
            return hint
        if node.style not in (Style.PLAIN, Style.DOUBLE) or self.document.format != "yaml":
            return hint
        return hint + "; in YAML put the whole in single quotes: '\"…\"'"

    def source(self, value: JSON, pointer: str, fitting: str | None = None) -> Source:
        """Return an expression, or the value of `{const: …}` or `{expr: …}`."""
        if isinstance(value, dict):
            if "const" in value:
                constant = scalar_of(value["const"])
                return NOTHING if constant is None else Const(constant)
            return self.expression(value.get("expr"), join_pointer(pointer, "expr"), fitting) or NOTHING
        return self.expression(value, pointer, fitting) or NOTHING

    def choice(self, tree: Mapping[str, JSON], key: str, allowed: tuple[str, ...]) -> Any:
        """Return the word under `key`; the first of `allowed` if it is missing or wrong."""
        value = tree.get(key, allowed[0])
        return value if value in allowed else allowed[0]


def check_length(reading: Reading, name: JSON, pointer: str) -> None:
    """Report a name of a stream or topic of more than 255 bytes, the limit of Iggy."""
    if isinstance(name, str) and len(name) <= 255 < len(name.encode()):
        reading.report("IFX114", pointer, f"the name has {len(name.encode())} bytes", expected="at most 255")


def object_of(value: JSON) -> Mapping[str, JSON]:
    """Return `value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def scalar_of(value: JSON) -> Scalar | None:
    """Return `value` if it is a scalar, else None."""
    return value if isinstance(value, (str, int, float, bool)) else None


def texts_of(value: JSON) -> tuple[str, ...]:
    """Return a string as a tuple, or the strings of a list."""
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def items_of(value: JSON, pointer: str) -> Iterator[tuple[Mapping[str, JSON], str]]:
    """Yield the objects of a value that is one or a list of them, each with its pointer."""
    if isinstance(value, dict):
        yield value, pointer
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield item, join_pointer(pointer, index)
