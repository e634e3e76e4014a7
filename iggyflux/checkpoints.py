"""Positions that survive a crash.

A checkpoint is replaced whole: written beside, fsynced, renamed, and its folder fsynced, so a reader sees the old one
or the new one and nothing else.  It carries its kind, a version and a checksum; one that does not fit stops the run,
since guessing a position loses messages or repeats years of them.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import msgspec

from iggyflux.disk import make_folder, sync_folder, write_whole
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
