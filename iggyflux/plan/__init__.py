"""Plans: what a mapping document compiles to.

A plan does no I/O, reads no clock and keeps no state between calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, overload

from iggyflux.errors import MappingError, Problem
from iggyflux.lineprotocol import Dialect, Precision
from iggyflux.plan.digests import digest_rows
from iggyflux.plan.reader import ReferenceReaderPlan
from iggyflux.plan.reference import NO_TAGS, ReferencePlan
from iggyflux.plan.tags import checked_tags
from iggyflux.spec import Reader, Writer

if TYPE_CHECKING:
    from iggyflux.plan.compiled import CompiledPlan
    from iggyflux.plan.reader_compiled import CompiledReaderPlan

__all__ = [
    "ReferencePlan",
    "ReferenceReaderPlan",
    "compile_plan",
    "digest_rows",
    "precision_problems",
]

Kind = Literal["compiled", "reference"]


@overload
def compile_plan(
    spec: Writer,
    kind: Kind = "compiled",
    *,
    dialect: Dialect | str = ...,
    precision: Precision | str = ...,
    tags: Mapping[str, str] = ...,
) -> CompiledPlan | ReferencePlan: ...
@overload
def compile_plan(
    spec: Reader, kind: Kind = "compiled", *, dialect: Dialect | str = ..., precision: Precision | str = ...
) -> CompiledReaderPlan | ReferenceReaderPlan: ...
def compile_plan(
    spec: Writer | Reader,
    kind: Kind = "compiled",
    *,
    dialect: Dialect | str = Dialect.V2,
    precision: Precision | str = Precision.NS,
    tags: Mapping[str, str] = NO_TAGS,
) -> CompiledPlan | ReferencePlan | CompiledReaderPlan | ReferenceReaderPlan:
    """Return the plan of a document; `dialect` and `precision` are those of a writer's lines.

    Each point gets those of `tags` that it does not have.  Raise ValueError for an unknown kind, dialect or precision,
    PointError for a tag that no server keeps, and MappingError for a precision in which the mapping would lose what
    keeps its points apart.
    """
    if kind not in ("compiled", "reference"):
        raise ValueError(f"expected 'compiled' or 'reference' as the kind of plan, found {kind!r}")
    if isinstance(spec, Writer) and (problems := precision_problems(spec, Precision(precision))):
        raise MappingError(problems)
    if kind == "reference":
        if isinstance(spec, Reader):
            return ReferenceReaderPlan(spec)
        return ReferencePlan(spec, Dialect(dialect), Precision(precision), checked_tags(tags))
    # Commands that only check a document do not need the code generators, which take 60 ms to import.
    from iggyflux.plan.compiled import CompiledPlan
    from iggyflux.plan.reader_compiled import CompiledReaderPlan

    if isinstance(spec, Reader):
        return CompiledReaderPlan(spec)
    return CompiledPlan(spec, Dialect(dialect), Precision(precision), checked_tags(tags))


def precision_problems(writer: Writer, precision: Precision | str) -> list[Problem]:
    """Return the problems of a precision in which points would lose the nanoseconds that `spread` adds."""
    if Precision(precision) is Precision.NS:
        return []
    message = f"`spread` adds nanoseconds, which precision {Precision(precision).value} would cut off"
    return [
        writer.document.problem("IFX133", f"{point.timestamp.pointer}/spread", message, hint="use precision ns")
        for point in writer.points
        if point.timestamp.spread is not None
    ]
