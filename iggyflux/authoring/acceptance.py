"""Whether documents that compile may take over from those that run: their examples pass, and no two contradict.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from iggyflux.authoring.contract import Route, find_conflicts
from iggyflux.authoring.examples import run_examples
from iggyflux.errors import Problem
from iggyflux.mapping import ReaderMapping, WriterMapping


def acceptance_problems(
    mappings: Sequence[WriterMapping | ReaderMapping], routes: Sequence[Route]
) -> Iterator[Problem]:
    """Yield the failed examples of mappings, and what writers of one database write in two ways."""
    for mapping in mappings:
        for result in run_examples(mapping):
            for difference in result.differences[:1]:
                message = f"{result.title}: {difference.title}"
                hint = f"`iggyflux test {result.location.file}` shows it"
                yield Problem(difference.code, message, result.location, hint=hint)
    yield from (problem for _, problem in find_conflicts(routes))
