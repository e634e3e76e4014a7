"""Durable writes: whole buffers, new folders, and the fsync of a folder; waiting for input; what errors ask for."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import select
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The errors of a disk or a quota without room."""
LOST_FOUND = "lost+found"
"""The folder that a file system makes at its root; only the superuser can read it."""
_REMEDIES = {
    **dict.fromkeys(FULL, "free space on its disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "correct the permissions"),
    errno.EROFS: "its disk is mounted read-only: mount it to be written",
    errno.EEXIST: "remove it, or choose another name",
    errno.EFBIG: "raise the limit of the size of a file (`ulimit -f`)",
    errno.EIO: "its disk failed: check the system log",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (`ulimit -n`)"),
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP), "correct the path"),
}


def remedy(error: OSError) -> str | None:
    """Return what a person does about an error of the system at a path; None if that is unknown."""
    return _REMEDIES.get(error.errno or 0)


@contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give an `OSError` that names no file the name `path`: that of a write has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = os.fspath(path)
        raise


def write_whole(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, also if the system writes only a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def has_input(descriptor: int, seconds: float | None) -> bool:
    """Return whether a read from `descriptor` would not block, after at most `seconds`; None waits without limit.

    The end of input, and an error, do not block.  Raise `OSError`.
    """
    poll = select.poll()  # `select.select` refuses the descriptors from 1024 on
    poll.register(descriptor, select.POLLIN)
    events = poll.poll(None if seconds is None else seconds * 1000)
    if events and events[0][1] & select.POLLNVAL:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return bool(events)


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
    prefix = f".{short_name(target.name)[:100]}-"
    with named(path), NamedTemporaryFile(prefix=prefix, dir=target.parent, delete=False) as file:
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
