"""Durable writes: whole buffers, new folders, and the fsync of a folder."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, also if the system writes only a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Create `folder` with `mode`, and its missing parents, durably.

    Raise `OSError`.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Sync `folder`, so that the names in it survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
