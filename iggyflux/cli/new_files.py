"""Files that a command writes where its user says: no file is replaced unasked, and a wrong name is wrong usage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from iggyflux.disk import named


@contextmanager
def new_files(path: Path, *, has_force: bool = False) -> Iterator[None]:
    """Make `path`, or files in it, inside the block.

    Raise UsageError if there is one already, and if its folder does not exist; `has_force` says that `--force` replaces
    a file.
    """
    try:
        with named(path):
            yield
    except FileExistsError as error:
        remedy = "choose another name" + (", or replace it with --force" if has_force else "")
        raise click.UsageError(f"{error.filename} already exists: {remedy}") from error
    except FileNotFoundError as error:
        if path.parent.is_dir():
            raise
        raise click.UsageError(f"directory {path.parent} does not exist") from error


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write a file for a command with the option `--force`.  Raise UsageError, and `OSError`."""
    with (
        new_files(path, has_force=True),
        path.open("w" if force else "x", encoding="utf-8", newline="\n") as file,
    ):
        file.write(text)
