"""Positions that survive a crash, and locks that keep their owner alone.

A checkpoint is replaced whole: written beside, fsynced, renamed, and its folder fsynced, so a reader sees the old one
or the new one and nothing else.  It carries its kind, a version and a checksum; one that does not fit stops the run,
since guessing a position loses messages or repeats years of them.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from pathlib import Path
from typing import Any

import msgspec

from iggyflux.errors import Stopped

VERSION = 1


def write_checkpoint(path: Path, kind: str, content: object) -> None:
    """Replace the checkpoint at `path` by `content` (plain JSON values); returns when it would survive a crash.

    Raises `Stopped` (IFX701) where it cannot be written; the old one is then untouched.
    """
    body = msgspec.json.encode(content, order="sorted")
    data = b'{"iggyflux":"%s","version":%d,"crc32":%d,"content":%s}\n' % (
        kind.encode(),
        VERSION,
        zlib.crc32(body),
        body,
    )
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        make_folder(path.parent)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_whole(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise Stopped(
            f"cannot store the positions in {path}: {error.strerror}",
            "free space or correct the permissions, and run again: nothing is lost",
            "IFX701",
        ) from error


def read_checkpoint(path: Path, kind: str) -> Any:
    """What was last written at `path`, or None where nothing was.

    Raises `Stopped` (IFX701) for a file that is damaged, of another kind or of a newer version.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Stopped(f"cannot read the positions in {path}: {error.strerror}", code="IFX701") from error
    try:
        tree = msgspec.json.decode(data, type=_Checkpoint)
    except msgspec.MsgspecError as error:
        raise _damaged(path, f"it is not a checkpoint ({error})") from error
    if tree.iggyflux != kind:
        raise _damaged(path, f"it holds {tree.iggyflux!r}, not {kind!r}")
    if tree.version != VERSION:
        raise _damaged(path, f"it has version {tree.version}, and this program knows {VERSION}")
    if zlib.crc32(tree.content) != tree.crc32:
        raise _damaged(path, "its checksum does not fit")
    return msgspec.json.decode(tree.content)


class _Checkpoint(msgspec.Struct, forbid_unknown_fields=True):
    iggyflux: str
    version: int
    crc32: int
    content: msgspec.Raw


def _damaged(path: Path, reason: str) -> Stopped:
    hint = "put back a copy, or remove the file to begin where `start` says: what was sent is then sent again"
    return Stopped(f"cannot use the positions in {path}: {reason}", hint, "IFX701")


class Lock:
    """A lock file that one process holds; it is free again when the holder dies."""

    def __init__(self, path: Path, owner: str) -> None:
        """Take the lock at `path`.  Raises `Stopped` (IFX702) naming the holder's process where another has it."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            self.release()
            raise Stopped(
                f"{owner} is in use by process {holder or '(unknown)'}",
                "stop that process, or give this run another consumer name",
                "IFX702",
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let go; idempotent.  The file stays: removing it would let two processes hold two files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def write_whole(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however often the system takes a part only."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents where they are missing, durably.  Raises `OSError`."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
