"""Object container files: a header with the schema, and blocks of records that may be compressed.

What a block expands to is bounded, and what all of them expand to: a bomb is a failure of its message.
"""

from __future__ import annotations

import bz2
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from iggyflux.errors import DecodeError
from iggyflux.payloads.avro.reading import read_long, truncated
from iggyflux.payloads.avro.writing import long
from iggyflux.payloads.format import MALFORMED, MAX_PAYLOAD_BYTES, TOO_LARGE
from iggyflux.payloads.places import within

MAGIC: Final = b"Obj\x01"
BAD_CODEC: Final = "IFX433"
MAX_SCHEMA_BYTES: Final = 1_000_000


def is_container(payload: bytes) -> bool:
    """Return whether a payload begins as a container does."""
    return payload.startswith(MAGIC)


def read_header(payload: bytes) -> tuple[str, str, bytes, int]:
    """Return the text of the schema, the codec, the sync marker and where the first block begins.

    Raise DecodeError.
    """
    if not is_container(payload):
        raise DecodeError(MALFORMED, "not an Avro container: it does not begin with 'Obj' and 1")
    found: dict[bytes, bytes] = {}
    at = len(MAGIC)
    try:
        while True:
            number, at = read_long(payload, at)
            if number < 0:
                number, (_, at) = -number, read_long(payload, at)
            if not number:
                break
            if number > len(payload) - at:
                raise truncated()
            for _ in range(number):
                key, at = _bytes(payload, at)
                found[key], at = _bytes(payload, at)
    except (IndexError, DecodeError) as error:
        raise within(error if isinstance(error, DecodeError) else truncated(), (), at) from None
    sync = payload[at : at + 16]
    if len(sync) < 16:
        raise within(truncated(), (), at)
    schema = found.get(b"avro.schema", b"")
    if not schema or len(schema) > MAX_SCHEMA_BYTES:
        raise DecodeError(MALFORMED, "the header of the container has no schema, or one of more than 1 MB")
    try:
        return schema.decode(), found.get(b"avro.codec", b"null").decode("ascii", "replace"), sync, at + 16
    except UnicodeDecodeError:
        raise DecodeError(MALFORMED, "the schema in the container is not UTF-8") from None


Expand: TypeAlias = Callable[[bytes, int], bytes]
"""Returns what the bytes of a block expand to, or at most one byte more than there is room for."""


def expander(codec: str) -> Expand:
    """Return what expands blocks.  Raise DecodeError for an unknown codec."""
    expand = _CODECS.get(codec)
    if expand is None:
        known = ", ".join(_CODECS)
        raise DecodeError(BAD_CODEC, f"the container is compressed by {codec[:40]!r}; one of {known} can be read")
    return expand


def blocks(payload: bytes, codec: str, sync: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield the number of records of each block, and their bytes.  Raise DecodeError."""
    expand = expander(codec)
    room = MAX_PAYLOAD_BYTES
    while at < len(payload):
        try:
            begin = at
            count, at = read_long(payload, at)
            data, at = _bytes(payload, at)
            if payload[at : at + 16] != sync:
                raise DecodeError(MALFORMED, "a block of the container does not end with its sync marker")
            data = content_of(count, data, expand, room)
        except (IndexError, DecodeError) as error:
            raise within(error if isinstance(error, DecodeError) else truncated(), (), begin) from None
        at += 16
        room -= len(data)
        yield count, data


def content_of(count: int, data: bytes, expand: Expand, room: int = MAX_PAYLOAD_BYTES) -> bytes:
    """Return what a block of `count` records expands to.  Raise DecodeError."""
    data = expand(data, room)
    if len(data) > room:
        raise _too_large()
    if not 0 <= count <= max(len(data), 1):
        raise DecodeError(MALFORMED, f"a block of the container cannot hold {count:,} records")
    return data


def _bytes(payload: bytes, at: int) -> tuple[bytes, int]:
    length, at = read_long(payload, at)
    if not 0 <= length <= len(payload) - at:
        raise truncated()
    return payload[at : at + length], at + length


def _expand(codec: str, stream: Any, data: bytes, room: int) -> bytes:
    """Return what a block expands to, or at most one byte more than there is room for."""
    try:
        expanded: bytes = stream.decompress(data, room + 1)
        while not stream.eof and len(expanded) <= room and not getattr(stream, "needs_input", True):
            expanded += stream.decompress(b"", room + 1 - len(expanded))
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError, MemoryError):
        raise DecodeError(BAD_CODEC, f"a block of the container is not what {codec} writes") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise DecodeError(BAD_CODEC, f"a block of the container is not what {codec} writes") from None
    if len(expanded) <= room and not stream.eof:
        raise DecodeError(BAD_CODEC, f"a block of the container, compressed by {codec}, ends too early")
    return expanded


def _snappy(data: bytes, room: int) -> bytes:
    """Expand a block of snappy: its length as a varint, the content, and four bytes of CRC-32."""
    try:
        import cramjam
    except ImportError:
        raise _no_package("snappy") from None
    size = 0
    for place, byte in enumerate(data[:5]):
        size |= (byte & 127) << 7 * place
        if byte < 128:
            break
    if size > room:
        raise _too_large()
    try:
        expanded = bytes(cramjam.snappy.decompress_raw(data[:-4]))
    except cramjam.DecompressionError:
        raise DecodeError(BAD_CODEC, "a block of the container is not what snappy writes") from None
    if zlib.crc32(expanded).to_bytes(4, "big") != data[-4:]:
        raise DecodeError(BAD_CODEC, "a block of the container has a wrong checksum")
    return expanded


def _zstandard(data: bytes, room: int) -> bytes:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise _no_package("zstandard") from None
    return _expand("zstandard", zstd.ZstdDecompressor(), data, room)


def _no_package(codec: str) -> DecodeError:
    reason = f"the container is compressed by {codec}, and the package that reads it is not installed"
    return DecodeError(BAD_CODEC, reason, hint="install iggyflux[avro]")


def _too_large() -> DecodeError:
    return DecodeError(TOO_LARGE, f"the container expands to more than {MAX_PAYLOAD_BYTES:,} bytes")


_CODECS: Final[dict[str, Expand]] = {
    "null": lambda data, _: data,
    "deflate": lambda data, room: _expand("deflate", zlib.decompressobj(-15), data, room),
    "snappy": _snappy,
    "bzip2": lambda data, room: _expand("bzip2", bz2.BZ2Decompressor(), data, room),
    "xz": lambda data, room: _expand("xz", lzma.LZMADecompressor(memlimit=256 << 20), data, room),
    "zstandard": _zstandard,
}


def write_header(schema: str, sync: bytes, codec: str = "null") -> bytes:
    """Return a header, always the same bytes."""
    pairs = [(b"avro.codec", codec.encode()), (b"avro.schema", schema.encode())]
    written = b"".join(long(len(part)) + part for pair in pairs for part in pair)
    return MAGIC + long(len(pairs)) + written + b"\0" + sync


def write_block(count: int, data: bytes, sync: bytes) -> bytes:
    """Return a block of `count` records, which are in `data` as the codec has them."""
    return long(count) + long(len(data)) + data + sync


def write_container(schema: str, records: list[bytes]) -> bytes:
    """Return a container of records that are not compressed, always the same bytes."""
    text = json.dumps(json.loads(schema), separators=(",", ":"), ensure_ascii=False)
    sync = b"iggyflux-example"
    return write_header(text, sync) + (write_block(len(records), b"".join(records), sync) if records else b"")
