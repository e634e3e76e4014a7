"""`iggyflux dead-letters prune`: removes the letters that are chosen, also while a run keeps others there.

What is removed is counted first and asked for.  A letter that is kept meanwhile stays.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path

import click

from iggyflux.cli.letters import (
    KeptLetter,
    LetterFilter,
    LettersOnDisk,
    letter_options,
    name_of_place,
    selected_letters,
)
from iggyflux.cli.output import ExitCode, Styled, ask, plural, result_line, talk
from iggyflux.transports.local.deadletters import dead_letter_files, kept_us, letter_digest, read_kept
from iggyflux.transports.local.letter_removal import rewrite


@click.command(name="prune")
@letter_options
@click.option("--keep", type=click.IntRange(0), default=0, metavar="N", help="Keep the newest N of the chosen letters.")
@click.option("--all", "everything", is_flag=True, help="Choose all letters, where no other option chooses.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    path: Path | tuple[str, str],
    pipeline: Path | None,
    chosen: LetterFilter,
    keep: int,
    everything: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Remove dead letters of a directory.

    The options choose which; it prints how many of which mapping and code, and asks. Routes may run meanwhile: a
    letter that they keep is not lost. A topic cannot delete single messages.

    \b
    Example:
      iggyflux dead-letters prune dead-letters/factory-env --replayed --yes
      iggyflux dead-letters prune dead-letters/factory-env --reason IFX340 --keep 100
      iggyflux dead-letters prune dead-letters/factory-env --until 2026-01-01T00:00:00Z --dry-run
    """
    if not isinstance(path, Path):
        name = name_of_place(path)
        raise click.UsageError(
            f"{name}: a topic cannot delete single messages. Letters that were replayed are left out by `replay` "
            f"anyway. Message expiry of the topic removes old ones; to remove all, save those that are needed with "
            f"`iggyflux dead-letters export {name} FILE --as letters`, then purge the topic"
        )
    if chosen == LetterFilter() and not keep and not everything:
        raise click.UsageError("which letters? Choose by --replayed, --reason, … or --keep N, or remove --all")
    with selected_letters(path, pipeline, chosen) as letters:
        counted: Counter[tuple[str, str]] = Counter()
        selected = Counter[bool]()
        newest: deque[tuple[bool, list[tuple[str, str]]]] = deque()
        for kept in letters.scan():
            newest.append((kept.is_replayed, _kinds(kept)))
            if len(newest) > keep:
                is_replayed, kinds = newest.popleft()
                selected[is_replayed] += 1
                counted.update(kinds)
        count = selected.total()
        if not count:
            talk(f"no dead letters to remove in {letters.name}")
            if not letters.count:
                letters.report_replayed()
                letters.report_others()
            return ExitCode.OK
        _print(counted)
        others = f", {selected[False]:,} of them not replayed" if selected[False] else ""
        if dry_run:
            talk(f"would remove {plural(count, 'dead letter')} of {letters.name}{others}")
            return ExitCode.OK
        if not yes:
            ask(f"Remove {plural(count, 'dead letter')} of {letters.name}{others}?")
        removed, size = _remove(letters.place, chosen, count)
        talk(f"removed {plural(removed, 'dead letter')} ({size:,} bytes) of {letters.name}{others}")
    return ExitCode.OK


def _kinds(kept: KeptLetter) -> list[tuple[str, str]]:
    """Return the mapping with each of the codes."""
    return [(kept.letter.mapping, code) for code in dict.fromkeys(reason.code for reason in kept.letter.reasons)]


def _print(counted: Counter[tuple[str, str]]) -> None:
    width = max((len(f"{count:,}") for count in counted.values()), default=0)
    for mapping, kinds in groupby(sorted(counted.items()), key=lambda item: item[0][0]):
        result_line(Styled(mapping, bold=True))
        for (_, code), count in kinds:
            result_line(f"  {count:>{width},}  {code}")


def _remove(place: LettersOnDisk, chosen: LetterFilter, count: int) -> tuple[int, int]:
    """Remove the oldest `count` of the chosen letters; return their number and their bytes.

    Each file is read before the folder is locked: the marks may be locked for long, and routes wait for the folder.
    """
    removed = size = 0
    going: Counter[tuple[bytes, int]] = Counter()

    def goes(line: bytes, _where: str) -> bool:
        nonlocal removed, size
        which = letter_digest(line), kept_us(line)
        if not going[which]:
            return False
        going[which] -= 1
        removed, size = removed + 1, size + len(line)
        return True

    folder = place.path if place.path.is_dir() else place.path.parent
    for file in dead_letter_files(place.path):
        going = Counter(islice(_chosen(place, file, chosen), count - removed))
        if going:
            with suppress(FileNotFoundError):  # retention removed it
                rewrite(folder, file, goes)
    if dead_letter_files(folder):
        place.marks.forget_others(digest for _, digest in read_kept(folder, torn=_ignore, too_large=_ignore))
    return removed, size


def _chosen(place: LettersOnDisk, file: Path, chosen: LetterFilter) -> Iterator[tuple[bytes, int]]:
    """Yield the digests of the chosen letters of a file, and when they were kept: equal ones differ in that alone."""
    for letter, digest in read_kept(file, torn=_ignore, too_large=_ignore):
        if chosen.takes(KeptLetter.of(letter, digest, place.marks)):
            yield digest, letter.kept_us


def _ignore(_file: Path, _line: int) -> None:
    """Such a line was reported when letters were counted."""
