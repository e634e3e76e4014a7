"""Which parts of a mapping its examples exercise: values, defaults, conditions both ways, branches of expressions.

A part that no example exercises can be wrong, and `iggyflux test` passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from iggyflux.editor.evidence import Use, messages_of, reader_uses, writer_uses
from iggyflux.errors import Problem
from iggyflux.expressions import Part, truth
from iggyflux.mapping import PointSpec, ReaderMapping, WriterMapping

UNTESTED = "IFX515"
_FALLBACKS = ("coalesce", "not_null")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many parts there are, and a problem for each that no example exercises."""

    parts: int
    missing: tuple[Problem, ...]

    @property
    def exercised(self) -> int:
        """The number of parts that some example exercises."""
        return self.parts - len(self.missing)

    @property
    def percent(self) -> float:
        """The part that is exercised, in percent; 100 where there is nothing to exercise."""
        return 100.0 if not self.parts else 100.0 * self.exercised / self.parts


@dataclass(frozen=True, slots=True)
class _Part:
    """One part, and what is missing if the examples do not exercise it."""

    pointer: str
    missing: str | None
    start: int | None = None
    stop: int = 0


def cover(mapping: WriterMapping | ReaderMapping) -> Coverage:
    """Return what the examples of a mapping exercise."""
    if isinstance(mapping, ReaderMapping):
        uses = list(reader_uses(mapping, ()))
        parts = [part for use in uses for part in _parts_of(use)]
    else:
        uses = list(writer_uses(mapping, messages_of(mapping, ())))
        parts = [part for use in uses for part in _parts_of(use)]
        parts += [_point(point, uses) for point in mapping.writer.points]
    missing = [
        mapping.document.problem(
            UNTESTED,
            part.pointer,
            part.missing,
            offset=part.start,
            length=None if part.start is None else max(part.stop - part.start, 1),
            severity="warning",
        )
        for part in parts
        if part.missing is not None
    ]
    return Coverage(len(parts), tuple(sorted(missing, key=lambda each: (each.location.line, each.location.column))))


def _point(point: PointSpec, uses: list[Use]) -> _Part:
    made = any(use.places for use in uses if use.spec is point and use.role != "where")
    has_uses = any(use.spec is point and use.role != "where" for use in uses)
    return _Part(point.pointer, None if made or not has_uses else "no example makes this point")


def _parts_of(use: Use) -> Iterator[_Part]:
    pointer = use.expression.location
    traced = use.expression.trace(use.places)
    whole = traced[0]
    if use.role == "where":
        truths = {truth(found) for found in whole.found}
        yield _Part(pointer, None if True in truths else "no example passes this condition")
        yield _Part(pointer, None if False in truths else "no example is skipped by this condition")
    else:
        yield _Part(pointer, None if any(found is not None for found in whole.found) else "no example has this value")
    if use.default:
        missing = None if any(found is None for found in whole.found) else "no example takes the default"
        yield _Part(pointer, missing)
    by_node = {id(part.node): part for part in traced}
    for part in traced:
        yield from _branches(pointer, part, by_node)


def _branches(pointer: str, part: Part, by_node: dict[int, Part]) -> Iterator[_Part]:
    """Yield the branches of `if`, and what follows in `||`, `&&`, `coalesce` and `not_null`."""
    children = part.node["children"]
    name = part.node.get("value") if part.kind == "function_expression" else None
    if name == "if":
        chosen = [(children[1], "no example takes this branch")]
        chosen += [(children[2], "no example takes this branch")] if len(children) > 2 else []
    elif name in _FALLBACKS:
        chosen = [(child, "no example comes to this alternative") for child in children[1:]]
    elif part.kind in ("or_expression", "and_expression"):
        chosen = [(children[1], "no example comes to this side")]
    else:
        return
    for child, missing in chosen:
        found = by_node.get(id(child))
        if found is None:
            continue
        reached = bool(found.given)
        if name == "not_null":  # it evaluates all of its arguments, and takes the first that is not null
            position = children.index(child)
            before = [by_node[id(each)] for each in children[:position]]
            reached = any(
                all(index >= len(each.found) or each.found[index] is None for each in before)
                for index in range(len(part.given))
            )
        yield _Part(pointer, None if reached else missing, found.start, found.stop)
