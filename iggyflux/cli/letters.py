"""Dead letters as commands read them: which are meant, where they are, how many of each mapping.

Letters are read as often as needed, one at a time, and are never all in memory.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click

from iggyflux.cli.iggy import TOPIC_PREFIX, iggy_settings, save_topic_letters
from iggyflux.cli.output import note, plural, warn
from iggyflux.records import DeadLetter
from iggyflux.timestamps import TimestampError, parse_rfc3339
from iggyflux.transports.local.deadletters import LONGEST_LINE, dead_letter_files, read_dead_letters

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class LetterFilter:
    """A condition for letters; None sets no limit.  Times are in microseconds, `until` is exclusive."""

    reasons: frozenset[str] = frozenset()
    since_us: int | None = None
    until_us: int | None = None
    mapping: str | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Return whether `letter` meets the condition."""
        time_us = letter.message.timestamp_us
        return (
            (not self.reasons or any(reason.code in self.reasons for reason in letter.reasons))
            and (self.since_us is None or time_us >= self.since_us)
            and (self.until_us is None or time_us < self.until_us)
            and (self.mapping is None or letter.mapping == self.mapping)
        )


def _time_us(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text) // 1000
    except TimestampError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def filter_options(command: _F) -> _F:
    """Add the options that choose letters to a command, which gets them as `chosen`."""

    @wraps(command)
    def choosing(
        *args: Any,
        reasons: tuple[str, ...],
        since: str | None,
        until: str | None,
        mapping_name: str | None,
        **given: Any,
    ) -> Any:
        codes = frozenset(code.upper() for code in reasons)
        chosen = LetterFilter(codes, _time_us(since, "--since"), _time_us(until, "--until"), mapping_name)
        return command(*args, chosen=chosen, **given)

    for option in (
        click.option("--mapping-name", metavar="NAME", help="Only letters of the mapping of this name."),
        click.option("--until", metavar="TIME", help="Only messages that arrived before this time (RFC 3339)."),
        click.option("--since", metavar="TIME", help="Only messages that arrived at or after this time (RFC 3339)."),
        click.option(
            "--reason", "reasons", multiple=True, metavar="CODE", help="Only letters with this code; can be repeated."
        ),
    ):
        choosing = option(choosing)
    return choosing  # type: ignore[return-value]


def name_of_place(path: Path | tuple[str, str]) -> str:
    """Return a path of letters as the command line has it."""
    return str(path) if isinstance(path, Path) else f"{TOPIC_PREFIX}{'/'.join(path)}"


@contextmanager
def letters_on_disk(path: Path | tuple[str, str], pipeline: Path | None) -> Iterator[Path]:
    """Yield a path where the letters can be read repeatedly; those of a topic are saved to a temporary file."""
    if isinstance(path, Path):
        yield path
        return
    with TemporaryDirectory(prefix="iggyflux-") as folder:
        file = Path(folder) / "letters.ndjson"
        save_topic_letters(iggy_settings(pipeline), *path, file)
        yield file


@dataclasses.dataclass(slots=True)
class LetterCounts:
    """The numbers of letters of one mapping: all, those with rejected lines, and by the identity of the plan."""

    count: int = 0
    with_lines: int = 0
    plans: Counter[str] = dataclasses.field(default_factory=Counter)


class Letters:
    """The selected letters of a path: counted once, read one at a time as often as needed."""

    def __init__(self, path: Path, chosen: LetterFilter) -> None:
        self._path = path
        self._chosen = chosen
        self.counts_by_mapping: dict[str, LetterCounts] = {}
        self.excluded = 0
        self.too_large = 0
        self.known_mappings: set[str] = set()
        self.known_codes: set[str] = set()
        for letter in read_dead_letters(path, torn=_warn_of_torn_line, too_large=self._skip_too_large):
            self.known_mappings.add(letter.mapping)
            self.known_codes.update(reason.code for reason in letter.reasons)
            if not chosen.takes(letter):
                self.excluded += 1
                continue
            counts = self.counts_by_mapping.setdefault(letter.mapping, LetterCounts())
            counts.count += 1
            counts.with_lines += bool(kept_lines(letter))
            counts.plans[letter.plan] += 1
        self.count = sum(counts.count for counts in self.counts_by_mapping.values())

    def of(self, mapping: str | None = None) -> Iterator[DeadLetter]:
        """Return the letters of one mapping, or all; without letters added after the count."""
        counted = self.count if mapping is None else self.counts_by_mapping[mapping].count
        return islice((letter for letter in self._read() if mapping in (None, letter.mapping)), counted)

    def _read(self) -> Iterator[DeadLetter]:
        return filter(self._chosen.takes, read_dead_letters(self._path, torn=_ignore, too_large=_ignore))

    def _skip_too_large(self, file: Path, line: int) -> None:
        self.too_large += 1
        warn(f"{file}:{line} has more than {LONGEST_LINE:,} bytes and is skipped: its message is not sent again")


def report_others(letters: Letters, path: Path) -> None:
    """Report the dead letters that the options exclude, or the folders in `path` that hold dead letters."""
    if letters.excluded:
        codes, mappings = ", ".join(sorted(letters.known_codes)), ", ".join(sorted(letters.known_mappings))
        note(f"it has {plural(letters.excluded, 'other dead letter')}: mapping {mappings}; codes {codes}")
        return
    below = [str(entry) for entry in sorted(path.glob("*/")) if _holds_letters(entry)]
    if below:
        note(f"dead letters are in its folders: {', '.join(below)}")


def _holds_letters(folder: Path) -> bool:
    try:
        return bool(dead_letter_files(folder))
    except OSError:
        return False


def _warn_of_torn_line(file: Path, line: int) -> None:
    warn(f"{file}:{line} is incomplete; its message was not acknowledged and is delivered again")


def _ignore(_file: Path, _line: int) -> None:
    pass


def kept_lines(letter: DeadLetter) -> list[str]:
    return [reason.line for reason in letter.reasons if reason.line is not None]
