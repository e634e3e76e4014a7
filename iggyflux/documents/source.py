"""Reads the bytes of a document's file: never more than a document may have, and never without a time limit.

A path can name a device that gives zeros without end, a pipe without a writer, or a file of any size.  So the limits
apply while reading.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from iggyflux.disk import has_input
from iggyflux.documents.text import MAX_BYTES, has_version, refuse, too_large
from iggyflux.errors import DocumentError, Location, Problem

_CHUNK_BYTES = 1 << 16
PIPE_SECONDS = 10.0
"""How long a pipe may give no data; a program that generates a document is done by then."""


def read_source(
    path: Path, *, limit: int = MAX_BYTES, pipe_seconds: float = PIPE_SECONDS, needs_writer: bool = False
) -> bytes:
    """Return the content of the file at `path`.

    Raise OSError if it cannot be read.  Raise DocumentError if it has more than `limit` bytes, or is a pipe that gives
    no data for `pipe_seconds`, or that `needs_writer` now.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else opening a pipe waits for its writer
    try:
        mode = os.fstat(descriptor).st_mode
        waits = stat.S_ISFIFO(mode) or os.isatty(descriptor)
        data = bytearray(_written(descriptor, path) if needs_writer and stat.S_ISFIFO(mode) else b"")
        while len(data) <= limit:
            if waits and not has_input(descriptor, pipe_seconds if stat.S_ISFIFO(mode) else None):
                raise _no_data(path, pipe_seconds)
            chunk = os.read(descriptor, _CHUNK_BYTES)
            if not chunk:
                return bytes(data)
            data += chunk
    finally:
        os.close(descriptor)
    raise too_large(f"more than {limit:,} bytes", limit, str(path))


def _written(descriptor: int, path: Path) -> bytes:
    """Return what a pipe holds.  Raise DocumentError if no program writes to it."""
    try:
        data = os.read(descriptor, _CHUNK_BYTES)
    except BlockingIOError:
        return b""
    if not data:
        raise _no_data(path, 0.0)
    return data


def open_source(path: Path, *, pipe_seconds: float = PIPE_SECONDS) -> BinaryIO:
    """Return the file at `path`, open for reading; the caller limits what is read.

    Raise OSError if it cannot be opened.  Raise DocumentError if it is a pipe that nothing writes to after
    `pipe_seconds`.
    """
    raw = _Input(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC | os.O_NONBLOCK))
    file = io.BufferedReader(raw)
    try:
        if stat.S_ISFIFO(os.fstat(raw.fileno()).st_mode) and not has_input(raw.fileno(), pipe_seconds):
            file.peek(1)
            if not raw.has_writer:
                raise _no_data(path, pipe_seconds)
        os.set_blocking(raw.fileno(), True)
    except BaseException:
        file.close()
        raise
    return file


class _Input(io.FileIO):
    """A file that knows whether its last reading was the end: a pipe with a writer would wait instead."""

    has_writer = True

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self.has_writer = count != 0
        return count


def _no_data(path: Path, seconds: float) -> DocumentError:
    message = f"no data from this pipe in {seconds:g} s"
    return refuse(Problem("IFX100", message, Location(str(path)), hint="check that a program writes to the pipe"))


def may_be_document(path: Path) -> bool:
    """Return whether a regular file has the key `iggyflux`, within the size of a document.  Raise OSError."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe waits for its writer
        return False
    with path.open("rb") as file:
        return has_version(file.read(MAX_BYTES + 1))
