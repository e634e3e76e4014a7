"""Every problem of a mapping document: those of its text, and those that samples and its own examples show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iggyflux.documents import Document
from iggyflux.editor.evidence import Samples
from iggyflux.editor.sample_checks import NO_MEMBER, NUMBERS_AS_TEXTS, check_samples
from iggyflux.errors import DocumentError, Problem
from iggyflux.mapping import ReaderMapping, WriterMapping, compile_document, in_order
from iggyflux.mapping.members import UNKNOWN_MEMBER

_SAME: Final = {NUMBERS_AS_TEXTS: NUMBERS_AS_TEXTS, UNKNOWN_MEMBER: NO_MEMBER}
"""What examples show that the text shows already."""


def check_mapping(
    document: Document,
    samples: Callable[[WriterMapping | ReaderMapping], Samples] | None = None,
    *,
    now_ns: int | None = None,
) -> list[Problem]:
    """Return the problems of a mapping document, in the order of the text.

    `samples` returns the messages, or for a reader the rows, that a mapping is checked against: what they are
    may depend on its payload format.  `now_ns` is the time that their times are compared with.
    """
    return check_compiled(document, samples, now_ns=now_ns)[0]


def check_compiled(
    document: Document,
    samples: Callable[[WriterMapping | ReaderMapping], Samples] | None = None,
    *,
    now_ns: int | None = None,
) -> tuple[list[Problem], WriterMapping | ReaderMapping | None]:
    """Return the problems as `check_mapping`, and the mapping if the document compiles."""
    try:
        mapping = compile_document(document)
    except DocumentError as error:
        return list(error.problems), None
    shown = check_samples(mapping, () if samples is None else samples(mapping), now_ns=now_ns)
    known = {(_SAME.get(problem.code), problem.location.pointer) for problem in mapping.warnings}
    shown = [problem for problem in shown if (problem.code, problem.location.pointer) not in known]
    return in_order([*mapping.warnings, *shown]), mapping
