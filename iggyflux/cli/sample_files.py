"""Samples of files for a mapping: messages for a writer, rows for a reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from iggyflux.cli.inputs import open_input
from iggyflux.editor.evidence import Samples
from iggyflux.editor.sample_text import is_envelope, plain, read_for
from iggyflux.errors import IggyfluxError
from iggyflux.mapping import ReaderMapping, WriterMapping

_NAMED: Final = re.compile(r"^#[ \t]*samples:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_ENDINGS: Final = (".ndjson", ".jsonl", ".json", ".csv", ".txt", ".lp")


def samples_of_file(
    mapping: WriterMapping | ReaderMapping, path: Path, *, envelope: bool = False, whole: bool = False
) -> Samples:
    """Return the first samples of a file.  Raise UsageError or DocumentError if they cannot be read."""
    with open_input(path) as lines:
        is_csv = path.suffix.lower() == ".csv"
        return plain(read_for(mapping, lines, envelope=envelope, whole=whole, rows="csv" if is_csv else "jsonl"))


def find_samples(path: Path, text: str) -> Path | None:
    """Return the file of samples that belongs to the mapping file at `path` with the content `text`.

    It is named by a comment (`# samples: FILE`), or is beside the mapping: `NAME.ndjson`, `samples/NAME.ndjson`, also
    `.jsonl`, `.json`, `.csv`, `.txt` and `.lp`.
    """
    named = _NAMED.search(text)
    if named is not None:
        file = path.parent / named[1]
        return file if file.is_file() else None
    return next((file for file in _beside(path) if file.is_file()), None)


def _beside(path: Path) -> Iterator[Path]:
    for folder in (path.parent, path.parent / "samples"):
        for ending in _ENDINGS:
            yield folder / f"{path.stem}{ending}"


def samples_beside(mapping: WriterMapping | ReaderMapping, path: Path) -> Samples:
    """Return the samples of a file that was found; none if it cannot be read.

    Lines that are messages with coordinates are taken as such.  A csv file is one payload.
    """
    try:
        whole = path.suffix.lower() in (".csv", ".lp") and mapping.kind == "writer"
        return samples_of_file(mapping, path, envelope=not whole and has_envelopes(path), whole=whole)
    except (IggyfluxError, OSError, ValueError):
        return ()


def has_envelopes(path: Path) -> bool:
    """Return whether the first line of a file is a message with coordinates."""
    with path.open("rb") as file:
        return is_envelope(file.readline(1 << 20))
