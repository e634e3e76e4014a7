"""A failed record, for people: what `dry-run` and `replay` print of it."""

from __future__ import annotations

from iggyflux.cli.output import Styled, show_problem
from iggyflux.mapping import Mapping
from iggyflux.records import Failure


def show_failure(mapping: Mapping, record: str | Styled, failure: Failure) -> None:
    """Print a failure on stderr: which record, the place in the document, and its hint."""
    hint = failure.hint or f"`iggyflux codes {failure.code}` explains it"
    problem = mapping.document.problem(failure.code, failure.location, failure.reason, hint=hint)
    show_problem(problem, record, ": ")
