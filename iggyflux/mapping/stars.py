"""What a `"*"` omits: the places that other parts of its point read (LANGUAGE 16)."""

from __future__ import annotations

from collections.abc import Iterator

from iggyflux.expressions import Expression, Reads
from iggyflux.expressions.lowering import Start, Steps, steps_of
from iggyflux.spec import PointSpec, Star


def used_paths(spec: PointSpec, star: Star, in_elements: bool) -> frozenset[Steps]:
    """Return the paths in the star's object that measurement, tags, named fields and timestamp read.

    Without `flatten` they are cut to the members of the object: the rest of such a member could not be written.
    Another star uses what is on its own path: with `"*": "@"` and `"extra_*": extra`, the first omits `extra`.
    `in_elements` says that `@` is an element of `for_each`, and root() and parent() are other values.
    """
    if not isinstance(star.source, Expression):
        return frozenset()
    place = steps_of(star.source.node)
    if place is None:
        return frozenset()
    start, base = place
    found = (
        path[len(base) :]
        for expression in (*_named(spec), *_other_stars(spec, star))
        for path in _paths(expression, start, in_elements)
        if len(path) > len(base) and all(map(_includes, path, base))
    )
    return frozenset(path if star.flatten is not None else path[:1] for path in found)


def _includes(used: str | int | None, step: str | int | None) -> bool:
    """Return whether a step of a path that is read includes a step to the star's object."""
    return used == step or (used is None and isinstance(step, int))


def _paths(expression: Expression, start: Start, in_elements: bool) -> Iterator[Steps]:
    """Yield the paths that an expression reads of the value that `start` names: exact ones where it is one chain."""
    chain = steps_of(expression.node)
    if chain is not None:
        if chain[0] == start or not in_elements:
            yield chain[1]
        return
    read: list[tuple[Start, Reads]] = [("@", expression.reads), ("root", expression.root_reads)]
    for each, reads in (*read, *expression.parent_reads.items()):
        if each == start or not in_elements:
            yield from _ends(reads)


def _ends(reads: Reads, path: Steps = ()) -> Iterator[Steps]:
    """Yield the paths at which reading ends."""
    inner: list[tuple[str | None, Reads]] = [*reads.keys.items()]
    if reads.items is not None:
        inner.append((None, reads.items))
    for step, child in inner:
        yield from _ends(child, (*path, step))
    if not inner:
        yield path


def _named(spec: PointSpec) -> Iterator[Expression]:
    sources = [spec.measurement, spec.timestamp.source]
    sources += [tag.source for tag in spec.tags] + [field.source for field in spec.fields]
    for source in sources:
        if isinstance(source, Expression):
            yield source


def _other_stars(spec: PointSpec, star: Star) -> Iterator[Expression]:
    for other in (*spec.tag_stars, *spec.field_stars):
        if other.pointer != star.pointer and isinstance(other.source, Expression):
            yield other.source
