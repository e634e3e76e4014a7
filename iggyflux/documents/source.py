"""Reads the bytes of a document's file: never more than a document may have, and never without a time limit.

A path can name a device that gives zeros without end, a pipe without a writer, or a file of any size.  So the limits
apply while reading.
"""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

from iggyflux.documents.text import MAX_BYTES, refuse, too_large
from iggyflux.errors import Location, Problem

_CHUNK_BYTES = 1 << 16
PIPE_SECONDS = 10.0
"""How long a pipe may give no data; a program that generates a document is done by then."""


def read_source(path: Path, *, limit: int = MAX_BYTES, pipe_seconds: float = PIPE_SECONDS) -> bytes:
    """Return the content of the file at `path`.

    Raise OSError if it cannot be read.  Raise DocumentError if it has more than `limit` bytes, or is a pipe that gives
    no data for `pipe_seconds`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else opening a pipe waits for its writer
    try:
        mode = os.fstat(descriptor).st_mode
        waits = stat.S_ISFIFO(mode) or os.isatty(descriptor)
        data = bytearray()
        while len(data) <= limit:
            if waits and not select.select([descriptor], [], [], pipe_seconds if stat.S_ISFIFO(mode) else None)[0]:
                message = f"no data from this pipe in {pipe_seconds:g} s"
                raise refuse(
                    Problem("IFX100", message, Location(str(path)), hint="check that a program writes to the pipe")
                )
            chunk = os.read(descriptor, _CHUNK_BYTES)
            if not chunk:
                return bytes(data)
            data += chunk
    finally:
        os.close(descriptor)
    raise too_large(f"more than {limit:,} bytes", limit, str(path))


def has_mark(path: Path, mark: bytes) -> bool:
    """Return whether `mark` is in the file, within the size that a document may have."""
    with path.open("rb") as file:
        return mark in file.read(MAX_BYTES + 1)
