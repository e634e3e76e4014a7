"""Plans: what a mapping document compiles to.  A plan does no I/O, sees no clock and keeps no state between calls."""

from __future__ import annotations

from typing import Literal

from iggyflux.lineprotocol import Dialect, Precision
from iggyflux.mapping import Mapping
from iggyflux.plan.compiled import CompiledPlan
from iggyflux.plan.digests import digest_rows
from iggyflux.plan.reader import ReaderPlan
from iggyflux.plan.reader_compiled import CompiledReaderPlan
from iggyflux.plan.reference import ReferencePlan

__all__ = ["CompiledPlan", "CompiledReaderPlan", "ReaderPlan", "ReferencePlan", "compile_plan", "digest_rows"]


def compile_plan(
    mapping: Mapping,
    kind: Literal["compiled", "reference"] = "compiled",
    dialect: Dialect | str = Dialect.V2,
    precision: Precision | str = Precision.NS,
) -> CompiledPlan | ReferencePlan:
    """The plan of a document; of a reader it is a `ReaderPlan`.

    Raises ValueError for an unknown kind, dialect or precision.
    """
    plans: dict[str, type[CompiledPlan | ReferencePlan]] = {"compiled": CompiledPlan, "reference": ReferencePlan}
    if kind not in plans:
        raise ValueError(f"a plan is 'compiled' or 'reference', not {kind!r}")
    if mapping.kind == "reader":
        plan = CompiledReaderPlan if kind == "compiled" else ReaderPlan
        return plan(mapping)  # type: ignore[return-value]  # typed for writers, which nearly all callers have
    return plans[kind](mapping, Dialect(dialect), Precision(precision))
