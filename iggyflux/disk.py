"""Durable writes: whole buffers, new folders, and the fsync of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_whole(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, also if the system writes only a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Create `folder` and its missing parents with `mode`, durably.

    Raise `OSError`.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing or [folder]):  # `mkdir` itself raises if the folder is a file
        each.mkdir(mode, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def try_writing(folder: Path) -> None:
    """Write a file in `folder`, or where it would be made, and remove it.

    Raise `OSError`.
    """
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    with NamedTemporaryFile(prefix=".iggyflux-check-", dir=existing) as file:
        file.write(b"\n")
        file.flush()


def sync_folder(folder: Path) -> None:
    """Sync `folder`, so that the names in it survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
