"""The bytes of a file of samples as they are meant: expanded by the ending of its name, UTF-16 by its first two bytes.

The ending decides and not the content, since a payload can itself be compressed.  What is expanded is never held whole,
and ends at a limit: a file of some kilobytes can hold terabytes.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    try:
        from backports import zstd
    except ImportError:  # the extra `zstd`
        zstd = cast(Any, None)

from iggyflux.errors import IggyfluxError

DAMAGED: Final = "IFX504"
EXPANDS_TOO_FAR: Final = "IFX505"
MOST_EXPANDED: Final = 1 << 30
"""A gigabyte of messages shows what the others are like."""
COMPRESSED: Final = (".gz", ".zst", ".bz2")
_CHUNK: Final = 1 << 16
_MARKS: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class SampleError(IggyfluxError):
    """A sample that cannot become a message; `line` counts from 1 and is 0 if the error is not in one line."""

    def __init__(self, code: str, reason: str, line: int = 0, hint: str | None = None) -> None:
        self.code = code
        self.reason = reason
        self.line = line
        self.hint = hint
        super().__init__(reason)


class NoZstd(IggyfluxError):
    """The package that expands zstd is not installed."""


def plain_name(name: str) -> str:
    """Return the name of a file without the ending that says how it is compressed."""
    return next((name[: -len(ending)] for ending in COMPRESSED if name.lower().endswith(ending)), name)


def expanded(file: IO[bytes], name: str, *, limit: int | None = MOST_EXPANDED) -> IO[bytes]:
    """Return the content of the file `name`, which `file` reads: expanded if its name ends in one of `COMPRESSED`.

    Reading raises SampleError if it is damaged, or has more than `limit` bytes when expanded.  Raise NoZstd.
    """
    match name.lower().rpartition(".")[2]:
        case "gz":
            return _reader(_chunks_of(gzip.GzipFile(fileobj=file, mode="rb"), "gzip", limit))
        case "bz2":
            return _reader(_chunks_of(bz2.BZ2File(file), "bzip2", limit))
        case "zst":
            if zstd is None:
                raise NoZstd("zstd")
            return _reader(_chunks_of(zstd.ZstdFile(file), "zstd", limit))
    return file


def _chunks_of(source: Any, kind: str, limit: int | None) -> Iterator[bytes]:
    """Yield what `source` expands."""
    size = 0
    while True:
        try:
            chunk = source.read1(_CHUNK)
        except _FAULTS as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the file itself
                raise
            what = (
                f"the {kind} file ends early" if isinstance(error, EOFError) else f"the file is not {kind}, or damaged"
            )
            hint = "copy it again, or rename it if it is not compressed"
            raise SampleError(DAMAGED, what, hint=hint) from error
        if not chunk:
            return
        size += len(chunk)
        if limit is not None and size > limit:
            hint = "expand a part of it, and name `-` for stdin"
            raise SampleError(EXPANDS_TOO_FAR, f"the file expands to more than {limit:,} bytes", hint=hint)
        yield chunk


_FAULTS: Final[tuple[type[Exception], ...]] = (
    *(EOFError, OSError, zlib.error),  # gzip and bz2 raise an OSError without a number
    *(() if zstd is None else (zstd.ZstdError,)),
)


def is_utf16(begin: bytes) -> bool:
    """Return whether text that begins so is UTF-16: it has the mark that says so.

    A document with an XML declaration is left as it is: the declaration names the encoding of its bytes.
    """
    return begin[:2] in _MARKS and not begin[:12].replace(b"\0", b"").startswith(b"<?xml", 2)


def utf8_of(begin: bytes, file: IO[bytes]) -> IO[bytes]:
    """Return the UTF-16 text `begin`, which has its mark, and the rest of `file`, as UTF-8 without a mark.

    Reading raises SampleError if it cannot be decoded.
    """
    return _reader(_utf8_chunks(begin, cast(Any, getattr(file, "read1", file.read))))


def _utf8_chunks(begin: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(_MARKS[begin[:2]])()
    chunk = begin[2:]
    try:
        while chunk:
            if text := decoder.decode(chunk):
                yield text.encode()
            chunk = read(_CHUNK)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        reason = f"the file begins as UTF-16, and is not: {error.reason}"
        raise SampleError(DAMAGED, reason, hint="save it as UTF-8") from error


class _Chunks(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        chunk = self._rest or next(self._chunks, b"")
        size = min(len(chunk), len(buffer))
        buffer[:size] = chunk[:size]
        self._rest = chunk[size:]
        return size


def _reader(chunks: Iterator[bytes]) -> IO[bytes]:
    return io.BufferedReader(_Chunks(chunks), _CHUNK)
