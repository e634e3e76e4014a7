"""Durable writes: whole buffers, new folders, and the fsync of a folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
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


def seen_from_outside(file: Path) -> tuple[int, int, int] | None:
    """Return time of change, size and inode, one of which a write or a replacement changes; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


_MOST_BYTES = 200
"""A name has at most 255 bytes on most file systems, with the endings of its files."""
_UNSAFE = re.compile(r"[%/\\\x00-\x1f\x7f]|^\.")


def file_name(name: str) -> str:
    """Return a name as that of one file: without separators of paths, and short.

    Different names have different ones; those of ordinary names are the same.
    """
    return short_name(_UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name))


def short_name(text: str) -> str:
    """Return `text`, or its beginning and a hash of it if it is too long for a file's name."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= _MOST_BYTES:
        return text
    return f"{data[: _MOST_BYTES // 2].decode('utf-8', 'ignore')}~{hashlib.sha256(data).hexdigest()[:32]}"


def try_writing(folder: Path) -> None:
    """Write a file in `folder`, or where it would be made, and remove it.

    Raise `OSError`.
    """
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    with NamedTemporaryFile(prefix=".iggyflux-check-", dir=existing) as file:
        file.write(b"\n")
        file.flush()


def replace_file(path: Path, data: bytes) -> None:
    """Give the file at `path` another content, whole or not at all; its permissions stay.

    Raise `OSError`.
    """
    target = path.resolve()
    with NamedTemporaryFile(prefix=f".{short_name(target.name)[:100]}-", dir=target.parent, delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            shutil.copymode(target, file.name)
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def open_private(path: Path, flags: int = 0) -> int:
    """Return the descriptor of the file at `path`, to read and write; a new one is its owner's alone (0600).

    What root makes belongs to the owner of the folder, whose processes go on with it.  Raise `OSError`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    try:
        owner = path.parent.stat()
        if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sync_folder(folder: Path) -> None:
    """Sync `folder`, so that the names in it survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
