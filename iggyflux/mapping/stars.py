"""The members that a `"*"` omits: those that other parts of its point use by name (LANGUAGE 16)."""

from __future__ import annotations

from collections.abc import Iterator

from iggyflux.expressions import Expression, Reads
from iggyflux.expressions.lowering import static_path
from iggyflux.spec import PointSpec, Star


def used_keys(spec: PointSpec, star: Star, in_elements: bool) -> frozenset[str]:
    """Return the top-level keys of the star's object that measurement, tags, named fields and timestamp read.

    Another star uses the keys on its own path: with `"*": "@"` and `"extra_*": extra`, the first omits `extra`.
    `in_elements` says that `@` is an element of `for_each`, and root() another value.
    """
    if not isinstance(star.source, Expression):
        return frozenset()
    place = static_path(star.source)
    if place is None:
        return frozenset()
    start, path = place
    used: set[str] = set()
    for expression in (*_named(spec), *_other_stars(spec, star)):
        for reads in _reads_of(expression, start, in_elements):
            used |= set(reads.at(*path).keys)
    return frozenset(used)


def _reads_of(expression: Expression, start: str, in_elements: bool) -> Iterator[Reads]:
    if not in_elements:
        yield expression.reads
        yield expression.root_reads
    else:
        yield expression.reads if start == "@" else expression.root_reads


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
