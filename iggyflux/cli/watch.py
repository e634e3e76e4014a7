"""Runs a step again whenever one of its files was saved.

Files are looked at by their names four times a second: editors write a file in place, or replace it by another, or
remove it first.  The step runs when all files are there and two looks have found the same.  What was printed stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

import click

from iggyflux.cli.output import ExitCode, exit_code_of, flush_results, note
from iggyflux.disk import seen_from_outside

POLL_SECONDS: Final = 0.25
Look: TypeAlias = tuple[tuple[int, int, int] | None, ...]
"""For each file the time of its change, its size and its inode; None if it is not there."""


def run_on_save(files: Sequence[Path], step: Callable[[], int]) -> NoReturn:
    """Run `step` now and after each change of a file, until KeyboardInterrupt.

    What a step raises is reported, and the next save runs it again; but raise its UsageError of the first time.  A step
    may append to `files`.
    """
    is_first = True
    while True:
        before = look(files)  # a save while the step runs is a change
        try:
            step()
        except Exception as error:
            if is_first and isinstance(error, click.UsageError):
                raise
            if exit_code_of(error) == ExitCode.CLOSED_PIPE:
                raise
        flush_results()
        before += look(files[len(before) :])
        if is_first:
            note(f"watching {', '.join(map(str, files))}; Ctrl-C ends it")
        is_first = False
        now = wait_for_change(files, before)
        changed = [str(file) for file, was, is_now in zip(files, before, now, strict=True) if was != is_now]
        note(f"{', '.join(changed)}: saved")


def look(files: Sequence[Path]) -> Look:
    """Return what is seen of files from outside."""
    return tuple(map(seen_from_outside, files))


def wait_for_change(files: Sequence[Path], before: Look, sleep: Callable[[float], None] = time.sleep) -> Look:
    """Return the look when all files are there, at least one is not as `before`, and none changes any more."""
    last = before
    while True:
        sleep(POLL_SECONDS)
        now = look(files)
        if now == last and now != before and None not in now:
            return now
        last = now
