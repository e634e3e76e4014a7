"""Which documents a command is about: files that are named, and those of folders that are ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from iggyflux.documents import has_mark

ENDINGS: Final = (".yaml", ".yml", ".toml")
DOCUMENTS = click.Path(exists=True, path_type=Path)
_MARK = b"iggyflux"


def find_documents(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The documents to look at, and the files of folders that are none (nothing in them says `iggyflux`).

    A file that is named is always looked at; folders are walked in the order of names, hidden ones left out.
    """
    chosen: dict[Path, None] = {}
    others: list[Path] = []
    for path in paths:
        if not path.is_dir():
            chosen[path] = None
            continue
        for file in _walk(path):
            if has_mark(file, _MARK):
                chosen[file] = None
            else:
                others.append(file)
    return list(chosen), others


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:  # a link that leads back
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, (*above, here))
        elif entry.suffix in ENDINGS and entry.is_file():
            yield entry


def kind_of(tree: object) -> str:
    """Whether a document's tree is a `mapping` or a `pipeline`, by its keys; empty where it is neither."""
    if not isinstance(tree, dict):
        return ""
    if {"run", "iggy", "influxdb"} & set(tree) and "points" not in tree:
        return "pipeline"
    return "mapping" if {"kind", "points", "messages", "from", "examples"} & set(tree) else ""
