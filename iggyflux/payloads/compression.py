"""Compressed payloads: what they expand to, within the bound of a payload; and back.

zlib reads gzip and zlib, in a third of cramjam's time for small payloads, and it tells what follows a stream.  cramjam
(the extra `compression`) reads zstd, lz4 and snappy.  Nothing is expanded beyond the bound: zlib is given what is left
of it, cramjam a buffer.  A payload that is cut, damaged, or followed by anything that is not of its kind fails.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

from iggyflux.errors import DecodeError
from iggyflux.payloads.format import MAX_PAYLOAD_BYTES, TOO_LARGE, check_size

DAMAGED: Final = "IFX450"
NO_PACKAGE: Final = "IFX451"
INSTALL: Final = "pip install 'iggyflux[compression]'"

Conversion: TypeAlias = Callable[[bytes], bytes]

_STEP: Final = 1 << 14
"""What zlib reads at once: it copies what follows a member of gzip, so not all of the rest for each of many."""
_MOST_MEMBERS: Final = 10_000
_FIRST_BUFFER: Final = 1024
_GROWTH: Final = 8
_IS_FULL: Final = "failed to write whole buffer"
"""What cramjam says when a buffer is too small."""
_MOST_OF_SNAPPY: Final = 32
"""A byte of a snappy block becomes at most 22 bytes."""
_SNAPPY_FRAMES: Final = b"\xff\x06\x00\x00sNaPpY"


def expand(payload: bytes, compression: str) -> bytes:
    """Return what `payload` expands to; `auto` returns a payload that is not recognized as it is.

    Raise DecodeError if it is damaged, or larger than a payload can be.
    """
    if compression == "auto":
        compression = recognized(payload)
    if compression == "none":
        return payload
    check_size(payload)
    return _EXPANDED_BY[compression](payload)


def compress(payload: bytes, compression: str) -> bytes:
    """Return `payload` compressed; as it is for `auto`.  Equal payloads give equal bytes.  Raise DecodeError."""
    return payload if compression in ("none", "auto") else _COMPRESSED_BY[compression](payload)


def recognized(payload: bytes) -> str:
    """Return the compression that the first bytes of `payload` tell; `none` if they tell none."""
    if payload[:1] == b"x":
        return "zlib" if payload[:2] in _ZLIB else "none"
    return next((name for magic, name in _MAGIC.items() if payload.startswith(magic)), "none")


def is_missing(compression: str) -> bool:
    """Return whether `compression` needs the package that is not installed."""
    return compression in _NEED_CRAMJAM and find_spec("cramjam") is None


def _inflated(payload: bytes, *, wbits: int, name: str) -> bytes:
    """Return what zlib makes of one stream of zlib, or of one or more members of gzip."""
    view = memoryview(payload)
    at, left, parts, members = 0, MAX_PAYLOAD_BYTES, [], 0
    while at < len(payload) or not members:
        if members == (_MOST_MEMBERS if name == "gzip" else 1):
            reason = f"more than {_MOST_MEMBERS:,} members of gzip" if name == "gzip" else "data after the stream"
            raise DecodeError(DAMAGED, f"damaged {name}: {reason}")
        members += 1
        stream = zlib.decompressobj(wbits)
        while not stream.eof:
            piece = view[at : at + _STEP]
            if not piece:
                raise DecodeError(DAMAGED, f"damaged {name}: it ends early")
            try:
                part = stream.decompress(piece, left + 1)
            except zlib.error as error:
                raise DecodeError(DAMAGED, _reason(name, payload, _words(error))) from None
            at += len(piece) - len(stream.unused_data) - len(stream.unconsumed_tail)
            left -= len(part)
            if left < 0:
                raise _too_large()
            parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _buffered(payload: bytes, *, name: str) -> bytes:
    """Return what cramjam makes of frames, in a buffer that grows up to the bound."""
    cramjam = _cramjam(name)
    into = getattr(cramjam, name).decompress_into
    size = min(MAX_PAYLOAD_BYTES, max(_FIRST_BUFFER, _GROWTH * len(payload)))
    while True:
        buffer = bytearray(size)
        try:
            count = into(payload, buffer)
        except cramjam.DecompressionError as error:
            if _IS_FULL not in str(error):
                raise DecodeError(DAMAGED, _reason(name, payload, str(error))) from None
            if size == MAX_PAYLOAD_BYTES:
                raise _too_large() from None
            size = min(MAX_PAYLOAD_BYTES, _GROWTH * size)
        else:
            return bytes(memoryview(buffer)[:count])


def _unsnapped(payload: bytes) -> bytes:
    """Return what frames of snappy expand to, or without their mark one block, which begins with its size."""
    if payload.startswith(_SNAPPY_FRAMES):
        return _buffered(payload, name="snappy")
    cramjam = _cramjam("snappy")
    snappy = cramjam.snappy
    try:
        size = snappy.decompress_raw_len(payload)
        if size > _MOST_OF_SNAPPY * len(payload):
            raise DecodeError(DAMAGED, "damaged snappy: the size in front of it cannot be true")
        if size > MAX_PAYLOAD_BYTES:
            raise _too_large()
        buffer = bytearray(size)
        snappy.decompress_raw_into(payload, buffer)
    except cramjam.DecompressionError as error:
        raise DecodeError(DAMAGED, _reason("snappy", payload, str(error))) from None
    return bytes(buffer)


@cache
def _cramjam(name: str) -> Any:
    """Return the package, which reads `name`; it is loaded when it is first needed."""
    try:
        import cramjam
    except ImportError:
        raise DecodeError(NO_PACKAGE, f"the package that expands {name} is not installed", hint=INSTALL) from None
    return cramjam


def _reason(name: str, payload: bytes, words: str) -> str:
    found = recognized(payload)
    if found == "none" and name != "snappy":
        return f"not {name}: the payload does not begin as {name} does"
    return f"damaged {name}: {words}" if found in (name, "none") else f"not {name}: it looks like {found}"


def _words(error: zlib.error) -> str:
    return str(error).rpartition(": ")[2]


def _too_large() -> DecodeError:
    return DecodeError(TOO_LARGE, f"the payload expands to more than {MAX_PAYLOAD_BYTES:,} bytes")


def _deflated(payload: bytes, *, wbits: int) -> bytes:
    stream = zlib.compressobj(wbits=wbits)
    return stream.compress(payload) + stream.flush()


def _packed(payload: bytes, *, name: str) -> bytes:
    return bytes(getattr(_cramjam(name), name).compress(payload))


_ZLIB: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_MAGIC: Final = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    _SNAPPY_FRAMES: "snappy",
}
_NEED_CRAMJAM: Final = ("zstd", "lz4", "snappy")
_EXPANDED_BY: Final[dict[str, Conversion]] = {
    "gzip": partial(_inflated, wbits=31, name="gzip"),
    "zlib": partial(_inflated, wbits=15, name="zlib"),
    "zstd": partial(_buffered, name="zstd"),
    "lz4": partial(_buffered, name="lz4"),
    "snappy": _unsnapped,
}
_COMPRESSED_BY: Final[dict[str, Conversion]] = {
    "gzip": partial(_deflated, wbits=31),
    "zlib": partial(_deflated, wbits=15),
    **{name: partial(_packed, name=name) for name in _NEED_CRAMJAM},
}
COMPRESSIONS: Final = tuple(_EXPANDED_BY)
