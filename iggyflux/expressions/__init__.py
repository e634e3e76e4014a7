"""Expressions: JMESPath as in jmespath.py 1.1, checked when they are compiled, with the functions of `functions`.

Only this package and `functions` use jmespath.  `syntax` parses the text with its lexer and parser, `operators`
rewrites conditions of other languages for a hint, `checks` finds what can only fail, `evaluation` runs the tree,
`reading` finds what it can read of a document, `tracing` what its parts give for samples, `lowering` finds what a code
generator may write in its place.
Evaluation changes nothing and keeps no state.

It differs from jmespath.py only in two points.  A call that can only fail (unknown function, wrong number or types of
arguments), a bare `null`, `true` or `false`, `&` outside a call, and a part of a value that never has it are errors of
the text, even where they would never be evaluated.  The text is limited in length and depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from iggyflux.errors import EvaluationError, ExpressionError
from iggyflux.expressions.checks import Checker, Kinds, Tables, known_meta
from iggyflux.expressions.evaluation import RAISED, Evaluation, Run, build, spends, truth
from iggyflux.expressions.lowering import literal_value, path_of, scope_call, static_path
from iggyflux.expressions.reading import find_reads
from iggyflux.expressions.syntax import Node, children_in_order, parse, tokenize
from iggyflux.expressions.tracing import Part, Place, Tracer
from iggyflux.functions.table import Budget
from iggyflux.reads import Reads
from iggyflux.records import JSON, Message, Row

__all__ = [
    "RAISED",
    "Budget",
    "Expression",
    "Part",
    "Place",
    "Reads",
    "compile_expression",
    "literal_value",
    "scope_call",
    "static_path",
    "truth",
]

_SCOPE: Final = frozenset(("meta", "header", "index", "root", "parent", "lookup"))
_DOCUMENT: Final = cast(JSON, object())
"""The default of `root`: the document itself."""


class Expression:
    """A compiled expression, made by `compile_expression`; immutable, so threads may share it.

    `text` is as written, `location` the JSON pointer of its place in a document, `tables` and `kind` as they were
    given.  `reads` is what it can read of `@`, `root_reads` of `root()`, `parent_reads` of `parent()` by its
    level.  `uses` names which of meta, header, index, root, parent and lookup it calls, and `selects` says that it
    calls none at all: it gives parts of its document, truth values and literals.  `spends` says whether it needs a
    budget.  `types` are the JMESPath types that its value can have.  `warnings` are its doubtful parts, in the form
    of errors.  `node` is jmespath's tree.  It pickles as the arguments it was made of.
    """

    __slots__ = (
        "_path",
        "_run",
        "_scoped",
        "kind",
        "location",
        "node",
        "parent_reads",
        "reads",
        "root_reads",
        "selects",
        "spends",
        "tables",
        "text",
        "types",
        "uses",
        "warnings",
    )

    def __init__(
        self,
        text: str,
        tables: Tables | None = None,
        kind: str | None = None,
        location: str = "",
        parents: int | None = None,
    ) -> None:
        tokens = tokenize(text)
        node = parse(text, tokens)
        checker = Checker(text, tokens, tables or {}, known_meta(kind), parents)
        self.text = text
        self.tables = tables
        self.kind = kind
        self.location = location
        self.types: Kinds = checker.check(node)
        self.warnings: tuple[ExpressionError, ...] = tuple(checker.warnings)
        self.node: Node = node
        calls = _calls(node)
        self.uses = frozenset(calls) & _SCOPE
        self.selects = not calls
        self.reads, self.root_reads, self.parent_reads = find_reads(node, Reads.WHOLE)
        self._run: Run = build(node)
        self.spends = spends(node)
        self._scoped = self.spends or bool(self.uses - {"lookup"})
        path = path_of(node)
        self._path = path[1] if path is not None and path[0] == "@" else None

    def evaluate(
        self,
        document: JSON,
        message: Message | Row | None = None,
        *,
        root: JSON = _DOCUMENT,
        index: int | None = None,
        budget: Budget | None = None,
        parents: Sequence[JSON] = (),
    ) -> JSON:
        """Return the value of the expression on `document`.

        `meta` and `header` read `message`; without one they give null.  `root` is the whole payload if `document` is an
        element of it, `index` the position of the element, and `parents` are the elements around it, the outermost
        first.  `budget` is that of the message; without one the
        evaluation has its own.  The result may share parts with `document`, which is
        not changed.  Raise EvaluationError, and nothing else, where jmespath.py would raise anything.
        """
        if self._path is not None:
            value = document
            for key in self._path:
                if not isinstance(value, dict):
                    return None
                value = value.get(key)
            return value
        scope = None
        if self._scoped:
            if budget is None and self.spends:
                budget = Budget()
            scope = Evaluation(message, document if root is _DOCUMENT else root, index, budget, parents)
        try:
            return cast(JSON, self._run(scope, document))
        except EvaluationError as error:
            error.at(self.location)
            raise
        except RAISED as error:  # outside any function: comparing values nested thousands of levels deep
            raise EvaluationError("IFX303", "the value is nested too deeply", self.location) from error

    def reads_for(self, result: Reads) -> tuple[Reads, Reads, dict[int, Reads]]:
        """Return what is read of `@`, of `root()` and of `parent()` if only `result` is read of the value.

        So it is for `for_each`.
        """
        return find_reads(self.node, result)

    def trace(self, places: Iterable[Place]) -> list[Part]:
        """Return what each part of the expression gets and gives on `places`, in the order of the tree."""
        spans = Checker(self.text, tokenize(self.text), {}, ()).spans(self.node)
        return Tracer(spans).trace(self.node, places)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expression):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash((self.text, self.location))

    @property
    def _key(self) -> tuple[Any, ...]:
        return self.text, self.tables, self.kind, self.location

    def __reduce__(self) -> tuple[Callable[..., Expression], tuple[Any, ...]]:
        return Expression, self._key


def compile_expression(
    text: str,
    *,
    tables: Tables | None = None,
    kind: str | None = None,
    location: str = "",
    parents: int | None = 0,
) -> Expression:
    """Compile `text`.

    `lookup` may name `tables`; `kind` ("writer" or "reader") restricts the names that `meta` knows; `location` is the
    JSON pointer that failures will have; `parents` is how many elements are around `@` for `parent` to know (None:
    any number).  Raise ExpressionError, which says what is wrong and where in the text.
    """
    return Expression(text, tables, kind, location, parents)


def _calls(node: Node) -> set[str]:
    found = {node["value"]} if node["type"] == "function_expression" else set()
    return found.union(*(_calls(child) for child in children_in_order(node)))
