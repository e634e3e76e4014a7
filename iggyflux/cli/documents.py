"""The documents of a command: the files it names, and the iggyflux documents in the folders it names."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from iggyflux.documents import may_be_document
from iggyflux.errors import Location, Problem

skip_others = click.option(
    "--skip-others",
    is_flag=True,
    help="Leave named files alone that have no key `iggyflux`, as those in directories: for hooks.",
)
ENDINGS: Final = (".yaml", ".yml", ".toml")
DOCUMENTS = click.Path(exists=True, path_type=Path)
DOCUMENTS_OR_STDIN = click.Path(exists=True, allow_dash=True, path_type=Path)
UNREADABLE: Final = "IFX521"


def find_documents(paths: Sequence[Path], *, named_too: bool = False) -> tuple[list[Path], list[Path]]:
    """Return the documents, and the files in folders that are none (without the key `iggyflux`).

    A named file is always a document, but with `named_too` only if it has the key. Folders are searched in the order of
    names, without hidden ones.
    """
    chosen: dict[Path, None] = {}
    others: list[Path] = []
    for path in paths:
        if not path.is_dir():
            if named_too and path.is_file() and not _may_be_document(path):  # a pipe is what was meant
                others.append(path)
            else:
                chosen[path] = None
            continue
        for file in _walk(path):
            if _may_be_document(file):
                chosen[file] = None
            else:
                others.append(file)
    return list(chosen), others


def _may_be_document(file: Path) -> bool:
    """Return whether a file has the mark, or cannot be read, which its check reports, as of a folder."""
    try:
        return file.is_dir() or may_be_document(file)
    except OSError:
        return True


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the files in a folder that may be documents, and what cannot be read, which its check reports."""
    here = folder.resolve()
    if here in above:  # a link that leads back
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            mode = entry.stat().st_mode
        except PermissionError:
            yield entry
        except OSError:  # a link to nothing
            continue
        else:
            if stat.S_ISDIR(mode):
                yield from _walk(entry, (*above, here))
            elif entry.suffix in ENDINGS and stat.S_ISREG(mode):
                yield entry


def unreadable(file: Path, error: OSError) -> Problem:
    """Return the problem of a file that cannot be read."""
    return Problem(UNREADABLE, f"cannot read the file: {error.strerror}", Location(str(file)))
