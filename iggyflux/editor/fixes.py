"""Applies the fixes of problems to the text of a document, and keeps only those that make it better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from iggyflux.errors import Edit, Fix, Problem

_MOST_ROUNDS = 200


def apply_fixes(text: str, fixes: Iterable[Fix]) -> str:
    """Return `text` with the edits of `fixes`; of fixes that overlap only the first is applied."""
    edits: list[Edit] = []
    taken: list[tuple[int, int]] = []
    for fix in fixes:
        spans = [(edit.start, edit.end) for edit in fix.edits]
        if all(end <= begun or stop <= start for start, end in spans for begun, stop in taken):
            taken += spans
            edits += fix.edits
    for edit in sorted(edits, key=lambda each: each.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def fix_all(text: str, check: Callable[[str], Sequence[Problem]]) -> tuple[str, int]:
    """Return `text` with all safe fixes, and how many were applied; `check` returns the problems of a text.

    A fix is kept only if its problem ends, and the text then has no more errors than before, and after that of a
    warning no more problems.  An error may hide others, and all warnings.
    """
    count = 0
    for _ in range(_MOST_ROUNDS):
        problems = check(text)
        kept = False
        for problem in problems:
            if problem.fix is None or not problem.fix.safe:
                continue
            changed = apply_fixes(text, [problem.fix])
            remaining = check(changed)
            if _key(problem) not in map(_key, remaining) and _is_better(problem, problems, remaining):
                text, count, kept = changed, count + 1, True
                break
        if not kept:
            break
    return text, count


def _is_better(fixed: Problem, before: Sequence[Problem], after: Sequence[Problem]) -> bool:
    errors = [sum(each.severity == "error" for each in problems) for problems in (before, after)]
    return errors[1] <= errors[0] and (fixed.severity == "error" or len(after) <= len(before))


def _key(problem: Problem) -> tuple[str, str, str]:
    return problem.code, problem.location.pointer, problem.message
