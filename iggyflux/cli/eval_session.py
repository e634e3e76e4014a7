"""`iggyflux eval` without an expression: one expression after another on a sample, until Ctrl-D.

Nothing that a line does wrong ends it.  What was typed is kept while it runs, and not in a file: it may hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from iggyflux.cli.output import ExitCode, Styled, note, read_line, result, talk
from iggyflux.functions import FUNCTIONS
from iggyflux.records import JSON

MOST_SAMPLES: Final = 1_000
_CHOICE: Final = re.compile(r":(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Document:
    """A sample as expressions see it: `evaluate` returns the text of an expression's value, or None if it reported why
    there is none."""

    place: str
    tree: JSON
    evaluate: Callable[[str], str | None]


def run_session(documents: Sequence[Document]) -> int:
    """Read expressions from the terminal; print their values on the first document, or on the one that `:N` chooses."""
    chosen = 0
    _complete(lambda: documents[chosen].tree)
    note(f"{documents[0].place}: type an expression; {_help(documents)}Ctrl-D ends it")
    while (line := _next_line()) is not None:
        line = line.strip()
        if choice := _CHOICE.fullmatch(line):
            if 1 <= int(choice[1]) <= len(documents):
                chosen = int(choice[1]) - 1
                note(documents[chosen].place)
            else:
                talk(
                    Styled("error", "red", bold=True),
                    f": no sample {int(choice[1]):,}; the last one is :{len(documents)}",
                )
        elif line and (text := documents[chosen].evaluate(line)) is not None:
            result(text)
    talk()
    return ExitCode.OK


def _help(documents: Sequence[Document]) -> str:
    return "" if len(documents) == 1 else f":2 takes the second of {len(documents):,} samples, "


def _next_line() -> str | None:
    """Return the next line; an interrupt leaves the line that is being typed."""
    while True:
        try:
            return read_line("> ")
        except KeyboardInterrupt:
            talk()


def _complete(tree: Callable[[], JSON]) -> None:
    """Give lines a history, and complete words by functions and by members of the document, where readline is there."""
    with suppress(ImportError):
        import readline  # writes to the terminal when it is imported

        def propose(word: str, number: int) -> str | None:
            found = sorted({name for name in (*FUNCTIONS, *_members(tree())) if name.startswith(word)})
            return found[number] if number < len(found) else None

        readline.set_completer(propose)
        readline.set_completer_delims(" \t\n.,()[]{}|&@`'\"=<>!+*/?:-")
        readline.parse_and_bind("tab: complete")


def _members(tree: JSON) -> Iterator[str]:
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
