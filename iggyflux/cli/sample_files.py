"""Samples of files for a mapping: messages for a writer, rows for a reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import click

from iggyflux.authoring.sample_bytes import COMPRESSED, plain_name
from iggyflux.cli.envelopes import Envelope, are_messages
from iggyflux.cli.inputs import open_input
from iggyflux.editor.evidence import Samples
from iggyflux.editor.sample_text import plain, read_for
from iggyflux.errors import IggyfluxError
from iggyflux.mapping import ReaderMapping, WriterMapping

_NAMED: Final = re.compile(r"^#[ \t]*samples:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_ENDINGS: Final = (".ndjson", ".jsonl", ".json", ".csv", ".txt", ".lp")


def samples_of_file(
    mapping: WriterMapping | ReaderMapping, path: Path, *, envelope: Envelope = False, whole: bool = False
) -> Samples:
    """Return the first samples of a file.  Raise UsageError or DocumentError if they cannot be read."""
    with open_input(path) as lines:
        rows: Literal["csv", "jsonl"] = "csv" if is_csv(path) else "jsonl"
        is_message = mapping.kind == "writer" and not whole and are_messages(lines, envelope)
        return plain(read_for(mapping, lines, envelope=is_message, whole=whole, rows=rows))


def is_csv(path: Path) -> bool:
    """Return whether a file is CSV by its name, compressed or not."""
    return plain_name(path.name).lower().endswith(".csv")


def find_samples(path: Path, text: str) -> Path | None:
    """Return the file of samples that belongs to the mapping file at `path` with the content `text`.

    It is named by a comment (`# samples: FILE`), or is beside the mapping: `NAME.ndjson`, `samples/NAME.ndjson`, also
    `.jsonl`, `.json`, `.csv`, `.txt` and `.lp`, each also with `.gz`, `.zst` or `.bz2` behind it.
    """
    named = _NAMED.search(text)
    if named is not None:
        file = path.parent / named[1]
        return file if file.is_file() else None
    return next((file for file in _beside(path) if file.is_file()), None)


def _beside(path: Path) -> Iterator[Path]:
    for folder in (path.parent, path.parent / "samples"):
        for ending in _ENDINGS:
            for compression in ("", *COMPRESSED):
                yield folder / f"{path.stem}{ending}{compression}"


def samples_beside(mapping: WriterMapping | ReaderMapping, path: Path) -> Samples:
    """Return the samples of a file that was found; none if it cannot be read.

    Lines that are messages with coordinates are taken as such.  A csv file is one payload.
    """
    try:
        whole = plain_name(path.name).lower().endswith((".csv", ".lp")) and mapping.kind == "writer"
        return samples_of_file(mapping, path, envelope=not whole and has_envelopes(path), whole=whole)
    except (IggyfluxError, OSError, ValueError, click.UsageError):
        return ()


def has_envelopes(path: Path) -> bool:
    """Return whether the first line of a file is a message with coordinates."""
    with open_input(path) as lines:
        return lines.begins_with_message()
