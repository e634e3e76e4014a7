"""The documents of a command: the files it names, and the iggyflux documents in the folders it names."""

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
    """Return the documents, and the files in folders that are none (without the key `iggyflux`).

    A named file is always a document. Folders are searched in the order of names, without hidden ones.
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
    """Return `mapping` or `pipeline` by the keys of a document's tree; an empty string if it is neither."""
    if not isinstance(tree, dict):
        return ""
    if {"run", "iggy", "influxdb"} & set(tree) and "points" not in tree:
        return "pipeline"
    return "mapping" if {"kind", "points", "messages", "from", "examples"} & set(tree) else ""
