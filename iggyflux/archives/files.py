"""The files of an archive: found, opened, and known again, by path on this machine or by URL in an object store.

A URL may hold a login or a signature: an archive has a `name` without them, and errors of libraries are scrubbed.
Object stores are reached by fsspec, which is imported for URLs only.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from iggyflux.archives.extent import EXPANDS
from iggyflux.authoring.sample_bytes import plain_name
from iggyflux.disk import LOST_FOUND, remedy
from iggyflux.errors import IggyfluxError, NotConnected, Stopped
from iggyflux.secrets import Scrubber, Secret

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MAGIC: Final = re.compile(r"[*?\[]")
_MANY_LINKS: Final = 30
"""Not more than any system follows in a path."""
_BEGIN_BYTES: Final = 4096
_BLOCK_BYTES: Final = 4 << 20
"""How much is read of a store at once; s3fs reads, and keeps in memory, 50 MB by itself."""
_UNREADABLE: Final = "IFX710"
_ENVIRONMENT: Final = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class NotFound(IggyfluxError):
    """A name without a file, or of something else, such as a folder; the text says which."""


class NoFsspec(IggyfluxError):
    """The package for this kind of URL is not installed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells whether a file is still the one that was read: its size, when it was written, and its first bytes."""

    size: int
    written: str
    begin: int


@dataclass(frozen=True, slots=True)
class Archive:
    """One file; `name` is its absolute path or its URL, without secrets.

    A path that is not UTF-8 has escapes in the name (`caf\\xe9`): it is stored, and sent, as text.
    """

    name: str
    size: int
    written: str
    url: Secret | None = None
    """The URL that it was found by; None on this machine."""
    path: Secret | None = None
    """Its path in the file system of the URL."""
    file: tuple[object, ...] | None = None
    """What is the same for all names of a file on this machine: device and inode, and size and time beside those."""
    local: str = ""
    """Its absolute path on this machine, as the system has it; empty for a URL."""

    @property
    def is_compressed(self) -> bool:
        """Whether its content has to be expanded, so that no place in it can be sought."""
        return plain_name(self.name) != self.name

    @property
    def weight(self) -> int:
        """About how many bytes its content has."""
        return self.size * (EXPANDS if self.is_compressed else 1)

    @property
    def key(self) -> str:
        """The name of its position among those of other files."""
        return hashlib.sha256((self.local or self.name).encode("utf-8", "surrogateescape")).hexdigest()[:24]

    def open(self) -> ArchiveFile:
        """Return the file, as it is, for reading from its beginning.  Raise `Stopped` or `NotConnected`."""
        with reading(self.name, self.url):
            if self.url is None or self.path is None:
                return ArchiveFile(self, Path(self.local or self.name).open("rb", buffering=0))
            filesystem, _ = _filesystem(self.url.reveal())
            return ArchiveFile(self, filesystem.open(self.path.reveal(), "rb", block_size=_BLOCK_BYTES))


class ArchiveFile(io.RawIOBase):
    """An open archive; what reading raises is translated here, so that it is not taken for damage of its content."""

    def __init__(self, archive: Archive, file: Any) -> None:
        self._archive = archive
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with self._reading():
            return int(self._file.readinto(buffer))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with self._reading():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the place in the file; 0 once it is closed, which another thread may do meanwhile."""
        try:
            return int(self._file.tell())
        except ValueError:
            return 0

    def close(self) -> None:
        """Do nothing: a buffer that is not used any more would close the file."""

    def release(self) -> None:
        """Close the file; idempotent."""
        self._file.close()

    def identity(self) -> Identity:
        """Return what the file is now; reading goes on where it is.  Raise `Stopped` or `NotConnected`."""
        written, size = self._archive.written, self._archive.size
        with self._reading():
            if self._archive.url is None:
                found = os.fstat(self._file.fileno())
                written, size = str(found.st_mtime_ns), found.st_size
            place = self._file.tell()
            self._file.seek(0)
            begin = zlib.crc32(self._file.read(_BEGIN_BYTES))
            self._file.seek(place)
        return Identity(size, written, begin)

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self._archive.name, self._archive.url)


def find_archives(patterns: Sequence[str], again: list[str] | None = None) -> list[Archive]:
    """Return the files that paths, globs and URLs name, in their order, those of a glob sorted, each once.

    What names a file once more, also by another path or a link, is appended to `again`.

    Raise `NotFound` or `NoFsspec` with the pattern, `Stopped` or `NotConnected`.
    """
    found: dict[object, Archive] = {}
    for pattern in patterns:
        each = _remote(pattern) if _URL.match(pattern) else _local(pattern)
        for archive in each:
            if found.setdefault(archive.file or archive.name, archive) is not archive and again is not None:
                again.append(archive.name)
    return list(found.values())


def _local(pattern: str) -> Iterator[Archive]:
    paths = [pattern]
    if _MAGIC.search(pattern) and not os.path.exists(pattern):  # noqa: PTH110  # which says no where it may not look
        paths = _matches(pattern)
        if not paths:
            raise NotFound(f"no file matches {pattern!r}")
    for path in paths:
        local = os.path.abspath(path)  # noqa: PTH100  # a link stays the name that was given
        try:
            found = Path(local).stat()
        except OSError as error:
            raise NotFound(f"cannot read {path}: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            hint = f"name its files: '{path.rstrip('/')}/*'" if stat.S_ISDIR(found.st_mode) else "expected a file"
            raise NotFound(f"{path} is not a file ({hint})")
        written = str(found.st_mtime_ns)
        same = (found.st_dev, found.st_ino, found.st_size, written) if found.st_ino else None
        name = os.fsencode(local).decode("utf-8", "backslashreplace")
        yield Archive(name, found.st_size, written, file=same, local=local)


def _matches(pattern: str) -> list[str]:
    """Return the files that match a glob, also links without a target.  Raise `NotFound`.

    `glob` leaves out what it may not list or look at, and the files there would not be loaded, without a word.
    """
    rest = pattern
    while rest:
        rest, name = os.path.split(rest.rstrip("/"))
        is_listed = _MAGIC.search(name) is not None
        above = os.path.join(rest, name) if name == "**" else rest  # noqa: PTH118
        if is_listed or _MAGIC.search(rest):
            shown = f"{above}/" if os.path.basename(above) == "**" else above  # noqa: PTH119  # else each file as well
            folders = glob.glob(shown, recursive=True) if _MAGIC.search(above) else [rest or "."]  # noqa: PTH207
            for folder in sorted(folders):
                _look_into(folder.rstrip("/") or folder, is_listed=is_listed)
        if not name:
            break
    return sorted(path for path in glob.glob(pattern, recursive=True) if _is_loaded(path))  # noqa: PTH207


def _look_into(folder: str, *, is_listed: bool) -> None:
    """Raise `NotFound` if files of a folder, or their names, may not be looked at; or if it is a link to nothing."""
    try:
        os.stat(os.path.join(folder, "."))  # noqa: PTH116, PTH118
        if is_listed:
            os.scandir(folder).close()
    except NotADirectoryError:
        pass
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError) and not os.path.islink(folder)  # noqa: PTH114
        if not is_gone and not _is_around(folder, error) and os.path.basename(folder) != LOST_FOUND:  # noqa: PTH119
            raise NotFound(f"cannot look into {folder}: {error.strerror}") from error


def _is_loaded(path: str) -> bool:
    """Whether a match is a file, or something that cannot be read, but not a folder or a file that is gone by now."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except FileNotFoundError:
        return os.path.islink(path)  # noqa: PTH114
    except OSError as error:
        return not _is_around(path, error)


def _is_around(path: str, error: OSError) -> bool:
    """Whether `**` came here by a link to a folder above, again and again: shorter names lead here too."""
    return error.errno == errno.ELOOP and path.count(os.sep) >= _MANY_LINKS


def _remote(pattern: str) -> Iterator[Archive]:
    name = name_of(pattern)
    with reading(name, Secret(pattern)):
        filesystem, path = _filesystem(pattern)
        paths = [path]
        if _MAGIC.search(path) and "?" not in pattern:
            paths = sorted(filesystem.glob(path))
            if not paths:
                raise NotFound(f"no file matches {name!r}")
        for each in paths:
            info, found = filesystem.info(each), _name_in(pattern, each)
            if info.get("type") == "directory":
                raise NotFound(f"{found} is not a file (name its files: '{found.rstrip('/')}/*')")
            written = next((str(info[key]) for key in _WRITTEN if info.get(key)), "")
            yield Archive(found, int(info.get("size") or 0), written, Secret(pattern), Secret(each))


_WRITTEN: Final = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created", "last_modified")
"""What stores call the version or the time of a file."""


_EXTRAS: Final = {"s3": "iggyflux[s3]", "s3a": "iggyflux[s3]"}


def _filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.  Raise `NoFsspec`."""
    scheme = url.partition(":")[0].lower()
    try:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # fsspec says which package the kind of URL needs
        package = _EXTRAS.get(scheme, "fsspec" if error.name == "fsspec" else "")
        needed = f"pip install '{package}'" if package else str(error)
        raise NoFsspec(f"{scheme}:// needs a package: {needed}") from error
    except ValueError as error:
        raise NotFound(f"unknown kind of URL: {name_of(url)}") from error
    return filesystem, path


def name_of(url: str) -> str:
    """Return a URL without its login, query and fragment."""
    scheme, _, rest = url.partition("://")
    place = rest.split("?", 1)[0].split("#", 1)[0]
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _name_in(url: str, path: str) -> str:
    """Return the name of a path in the file system of `url`; most such paths begin with the host or bucket."""
    if _URL.match(path):
        return name_of(path)
    scheme, _, rest = name_of(url).partition("://")
    host, path = rest.partition("/")[0], path.lstrip("/")
    return f"{scheme}://{path}" if path.partition("/")[0] == host else f"{scheme}://{host}/{path}"


_LEFT_OUT: Final = {FileNotFoundError: "No such file", PermissionError: "Permission denied"}
"""What libraries leave out of such an error."""


@contextmanager
def reading(name: str, url: Secret | None) -> Iterator[None]:
    """Translate what reading the file raises, without its secrets."""
    try:
        yield
    except IggyfluxError:
        raise
    except OSError as error:
        if url is None or isinstance(error, FileNotFoundError | PermissionError):
            named = next((words for kind, words in _LEFT_OUT.items() if isinstance(error, kind)), type(error).__name__)
            reason = error.strerror or named
            raise Stopped(f"cannot read {name}: {reason}", remedy(error), _UNREADABLE) from error
        raise NotConnected(f"cannot read {name}: {_scrubbed(error, url)}") from error
    except Exception as error:  # libraries of object stores raise what they like
        if url is None:
            raise
        raise NotConnected(f"cannot read {name}: {_scrubbed(error, url)}") from error


def _scrubbed(error: Exception, url: Secret) -> str:
    """Return what an error says, in one line, without what is secret in the URL or in the environment."""
    text = url.reveal()
    secrets = [os.environ.get(name, "") for name in _ENVIRONMENT]
    try:
        parts = urlsplit(text)
        login = text.partition("://")[2].partition("/")[0].rpartition("@")[0]
        secrets += [login, *(unquote(each) for each in login.split(":")), *login.split(":"), parts.query]
        secrets += [value for _, value in parse_qsl(parts.query)]
    except ValueError:
        secrets.append(text)
    words = Scrubber(secrets)(" ".join(str(error).split()))[:500]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
