"""Dead letters as commands read them: which are meant, where they are, what replays made of them, how many of a route.

Letters are read one at a time, once; a command that needs them again holds them while they are few, else it reads them
again.  They are never all in memory.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import wraps
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import click

from iggyflux.cli.iggy import TOPIC_PREFIX, LettersPlace, TopicMarks, iggy_settings, save_topic_letters
from iggyflux.cli.inputs import MAPPING_FILE, open_pipeline
from iggyflux.cli.output import note, plural, warn
from iggyflux.mapping import load_mapping
from iggyflux.records import DeadLetter, Reason
from iggyflux.timestamps import TimestampError, parse_rfc3339
from iggyflux.transports.local.deadletters import LONGEST_LINE, dead_letter_files, read_kept
from iggyflux.transports.local.letter_marks import Fate, Marks

_F = TypeVar("_F", bound=Callable[..., Any])
Origin: TypeAlias = tuple[str, str, str]
"""The names of a letter's mapping, route and pipeline file; the last two are empty in letters of older versions."""
_MOST_HELD_BYTES: Final = 64_000_000
_LETTER_BYTES: Final = 2_000
"""About what a letter takes in memory, without its payload and its lines."""


@dataclasses.dataclass(frozen=True, slots=True)
class KeptLetter:
    """A letter of a path, what identifies it there, and what became of it.

    Its reasons are those of the newest failure.
    """

    letter: DeadLetter
    digest: bytes
    fate: Fate
    rejected: Sequence[Reason] = ()
    """The reasons with the lines that were rejected last: older ones where the newest failure rejected none."""

    @classmethod
    def of(cls, letter: DeadLetter, digest: bytes, marks: Marks) -> KeptLetter:
        """Return a letter that was read, with what is known of its replays."""
        fate, rejected = marks.fate(digest, letter.kept_us), _with_lines(letter.reasons)
        if fate.failed_us is None:
            return cls(letter, digest, fate, rejected)
        rejected = _with_lines(fate.reasons) or rejected  # a replay that failed to render rejected none
        return cls(dataclasses.replace(letter, reasons=fate.reasons), digest, fate, rejected)

    @property
    def is_replayed(self) -> bool:
        """Whether all its points were accepted since it was kept, and failed again last."""
        return self.fate.replayed_us is not None

    @property
    def chosen_us(self) -> int:
        """The time by which a letter is chosen: when its message arrived, else, as of a file, when it was kept."""
        return self.letter.message.timestamp_us or self.letter.kept_us

    @property
    def lines(self) -> list[tuple[str | None, str]]:
        """The lines that were rejected last, each with its bucket."""
        return [(reason.bucket, reason.line) for reason in self.rejected if reason.line is not None]

    def exported(self) -> DeadLetter:
        """Return the letter for another place: with its newest reasons, and with the lines that were rejected last."""
        reasons = self.letter.reasons
        return dataclasses.replace(self.letter, reasons=(*reasons, *(r for r in self.rejected if r not in reasons)))


def _with_lines(reasons: Sequence[Reason]) -> Sequence[Reason]:
    return [reason for reason in reasons if reason.line is not None]


@dataclasses.dataclass(frozen=True, slots=True)
class LetterFilter:
    """A condition for letters; None sets no limit.  Times are in microseconds, `until` is exclusive.

    `route` is the route to which `mapping` belongs, if the command line named one; letters of the `other_routes` of the
    pipeline are then not meant.
    """

    reasons: frozenset[str] = frozenset()
    since_us: int | None = None
    until_us: int | None = None
    mapping: str | None = None
    is_replayed: bool | None = None
    route: str | None = None
    other_routes: frozenset[str] = frozenset()

    def takes(self, kept: KeptLetter) -> bool:
        """Return whether a letter meets the condition."""
        letter, time_us = kept.letter, kept.chosen_us
        return (
            (not self.reasons or any(reason.code in self.reasons for reason in letter.reasons))
            and (self.since_us is None or time_us >= self.since_us)
            and (self.until_us is None or 0 < time_us < self.until_us)
            and (self.mapping is None or letter.mapping == self.mapping)
            and letter.route not in self.other_routes
            and (self.is_replayed is None or kept.is_replayed == self.is_replayed)
        )


def _time_us(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text) // 1000
    except TimestampError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def letter_options(command: _F) -> _F:
    """Add the path of letters and the options that choose some of them: `path`, `pipeline` and `chosen`."""

    @wraps(command)
    def choosing(
        *args: Any,
        reasons: tuple[str, ...],
        since: str | None,
        until: str | None,
        mapping_name: str | None,
        route: str | None,
        replayed: bool | None,
        pipeline: Path | None,
        **given: Any,
    ) -> Any:
        codes = frozenset(code.upper() for code in reasons)
        others: frozenset[str] = frozenset()
        if route is not None:
            if mapping_name is not None:
                raise click.UsageError("--route and --mapping-name are mutually exclusive")
            mapping_name, others = _mapping_and_others(route, pipeline)
        times = _time_us(since, "--since"), _time_us(until, "--until")
        chosen = LetterFilter(codes, *times, mapping_name, replayed, route, others)
        return command(*args, chosen=chosen, pipeline=pipeline, **given)

    for option in (
        click.option("--replayed/--not-replayed", default=None, help="Only letters that were replayed, or were not."),
        click.option(
            "--route",
            metavar="NAME",
            help="Only letters that this route of --pipeline kept, or none of its other routes.",
        ),
        click.option("--mapping-name", metavar="NAME", help="Only letters of the mapping of this name."),
        click.option("--until", metavar="TIME", help="Only those before this time (RFC 3339); see --since."),
        click.option(
            "--since",
            metavar="TIME",
            help="Only messages that arrived at or after this time (RFC 3339); of files, letters kept then.",
        ),
        click.option(
            "--reason", "reasons", multiple=True, metavar="CODE", help="Only letters with this code; can be repeated."
        ),
        click.option(
            "--pipeline", type=MAPPING_FILE, help="The pipeline file: its routes, and the connection to a topic."
        ),
        click.argument("path", type=LettersPlace()),
    ):
        choosing = option(choosing)
    return choosing  # type: ignore[return-value]


def _mapping_and_others(route: str, pipeline: Path | None) -> tuple[str, frozenset[str]]:
    """Return the name of the mapping of a route, and the names of the other routes."""
    if pipeline is None:
        raise click.UsageError("--route needs --pipeline FILE")
    names = {}
    for item in open_pipeline(pipeline).routes:
        mapping = load_mapping(item.mapping).name
        names[item.name or mapping] = mapping
    if route not in names:
        raise click.UsageError(f"{pipeline} has no route {route!r} (its routes: {', '.join(sorted(names))})")
    return names[route], frozenset(names.keys() - {route})


def name_of_place(path: Path | tuple[str, str]) -> str:
    """Return a path of letters as the command line has it."""
    return str(path) if isinstance(path, Path) else f"{TOPIC_PREFIX}{'/'.join(path)}"


class Marking(Protocol):
    """Where it is kept what replays made of letters."""

    async def connect(self) -> None:
        """Begin a replay: make sure that marks can be kept.  Raise `NotConnected` or `Stopped`."""

    async def add(self, digests: Sequence[bytes], at_us: int, failed: Mapping[bytes, Sequence[Reason]]) -> None:
        """Mark letters as replayed then, and keep why others `failed` again then; durable when it returns.

        Raise `NotConnected` or `Stopped`.
        """

    async def close(self) -> None:
        """Release everything; idempotent."""


class FolderMarks:
    """A `Marking` in the folder of the letters."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    async def connect(self) -> None:
        """As `Marking.connect`."""
        await asyncio.to_thread(self._marks.begin)

    async def add(self, digests: Sequence[bytes], at_us: int, failed: Mapping[bytes, Sequence[Reason]]) -> None:
        """As `Marking.add`."""
        await asyncio.to_thread(self._marks.add, digests, at_us, failed)

    async def close(self) -> None:
        """As `Marking.close`: `opened_letters` closes the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class LettersOnDisk:
    """A path where letters can be read repeatedly, which of them were replayed, and where marks of more are kept."""

    path: Path
    marks: Marks
    marking: Callable[[], Marking]


@contextmanager
def selected_letters(path: Path | tuple[str, str], pipeline: Path | None, chosen: LetterFilter) -> Iterator[Letters]:
    """Yield the letters of a path that are `chosen`, as `letter_options` gives all three."""
    with _opened(path, pipeline) as place:
        yield Letters(place, chosen, name_of_place(path))


@contextmanager
def _opened(path: Path | tuple[str, str], pipeline: Path | None) -> Iterator[LettersOnDisk]:
    """Yield the letters of a path; those of a topic, with their marks, are saved to a temporary folder."""
    if isinstance(path, Path):
        with closing(Marks(path if path.is_dir() else path.parent)) as marks:
            yield LettersOnDisk(path, marks, lambda: FolderMarks(marks))
        return
    settings = iggy_settings(pipeline)
    with TemporaryDirectory(prefix="iggyflux-") as folder, closing(Marks(Path(folder))) as marks:
        file = Path(folder) / "letters.ndjson"
        save_topic_letters(settings, *path, file, marks)
        yield LettersOnDisk(file, marks, lambda: TopicMarks(settings, *path))


@dataclasses.dataclass(slots=True)
class LetterCounts:
    """The numbers of letters of one route: all, with rejected lines, without a time of arrival, by identity of plan."""

    count: int = 0
    with_lines: int = 0
    without_arrival: int = 0
    plans: Counter[str] = dataclasses.field(default_factory=Counter)


class Letters:
    """The selected letters of a path."""

    def __init__(self, place: LettersOnDisk, chosen: LetterFilter, name: str) -> None:
        """`name` is that of the path on the command line."""
        self.place = place
        self.chosen = chosen
        self.name = name
        self._held: list[KeptLetter] | None = []
        self.counts_by_origin: dict[Origin, LetterCounts] = {}
        self.count = 0
        self.replayed = 0
        """How many of the selected letters were replayed."""
        self.excluded_replayed = 0
        """How many letters were replayed and are excluded for that alone."""
        self.excluded = 0
        """How many others are excluded, with these mappings and codes."""
        self.other_mappings: set[str] = set()
        self.other_codes: set[str] = set()
        self.too_large = 0

    def scan(self) -> Iterator[KeptLetter]:
        """Yield the letters, and count them; call it once."""
        anyhow = dataclasses.replace(self.chosen, is_replayed=None)
        for kept in self._read(_warn_of_torn_line, self._skip_too_large):
            letter = kept.letter
            if not self.chosen.takes(kept):
                if kept.is_replayed and anyhow.takes(kept):
                    self.excluded_replayed += 1
                    continue
                self.excluded += 1
                self.other_mappings.add(letter.mapping)
                self.other_codes.update(reason.code for reason in letter.reasons)
                continue
            self.count += 1
            self.replayed += kept.is_replayed
            counts = self.counts_by_origin.setdefault(_origin(letter), LetterCounts())
            counts.count += 1
            counts.with_lines += bool(kept.lines)
            counts.without_arrival += not letter.message.timestamp_us
            counts.plans[letter.plan] += 1
            yield kept

    def count_all(self) -> None:
        """Count the letters; hold them if they are few."""
        held, size = [], 0
        for kept in self.scan():
            size += _LETTER_BYTES + len(kept.letter.message.payload) + sum(len(line) for _, line in kept.lines)
            if size <= _MOST_HELD_BYTES:
                held.append(kept)
            else:
                held.clear()
        self._held = held if size <= _MOST_HELD_BYTES else None

    def of(self, origins: Collection[Origin] | None = None) -> Iterator[KeptLetter]:
        """Return the counted letters of these origins, or all; without letters added after the count."""
        counted = self.count if origins is None else sum(self.counts_by_origin[each].count for each in origins)
        chosen = self._held if self._held is not None else filter(self.chosen.takes, self._read(_ignore, _ignore))
        return islice((kept for kept in chosen if origins is None or _origin(kept.letter) in origins), counted)

    def report_replayed(self, hint: str = "") -> None:
        """Report the dead letters that are excluded because they were replayed."""
        if self.excluded_replayed:
            note(f"{plural(self.excluded_replayed, 'letter was', 'letters were')} replayed before{hint}")

    def report_others(self) -> None:
        """Report the other dead letters that the options exclude; without any, the folders below that hold some."""
        if self.excluded:
            codes, mappings = ", ".join(sorted(self.other_codes)), ", ".join(sorted(self.other_mappings))
            note(f"it has {plural(self.excluded, 'other dead letter')}: mapping {mappings}; codes {codes}")
        if self.excluded or self.excluded_replayed:
            return
        below = [str(entry) for entry in sorted(self.place.path.glob("*/")) if _holds_letters(entry)]
        if below:
            note(f"dead letters are in its folders: {', '.join(below)}")

    def _read(self, torn: Callable[[Path, int], None], too_large: Callable[[Path, int], None]) -> Iterator[KeptLetter]:
        for letter, digest in read_kept(self.place.path, torn=torn, too_large=too_large):
            yield KeptLetter.of(letter, digest, self.place.marks)

    def _skip_too_large(self, file: Path, line: int) -> None:
        self.too_large += 1
        warn(f"{file}:{line} has more than {LONGEST_LINE:,} bytes and is skipped: its message is not sent again")


def _origin(letter: DeadLetter) -> Origin:
    return letter.mapping, letter.route, letter.pipeline


def _holds_letters(folder: Path) -> bool:
    try:
        return bool(dead_letter_files(folder))
    except OSError:
        return False


def _warn_of_torn_line(file: Path, line: int) -> None:
    warn(f"{file}:{line} is incomplete; its message was not acknowledged and is delivered again")


def _ignore(_file: Path, _line: int) -> None:
    pass
