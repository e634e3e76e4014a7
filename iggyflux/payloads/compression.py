"""Compressed payloads: what they expand to, within the bound of a payload; and back.

zlib reads gzip and zlib, in a third of cramjam's time for small payloads, and it tells what follows a stream.  cramjam
(the extra `compression`) reads zstd, lz4 and snappy.  Nothing is expanded beyond the bound: zlib is given what is left
of it, cramjam a buffer, unless a payload is so short that its format cannot make so much of it.  A payload that is cut,
damaged, or followed by anything that is not of its kind fails.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from itertools import islice
from typing import Any, Final, TypeAlias
from zlib import decompressobj

from iggyflux.errors import DecodeError
from iggyflux.payloads.format import MAX_PAYLOAD_BYTES, TOO_LARGE

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
_MOST_OF_A_BYTE: Final = {"gzip": 1032, "zlib": 1032, "zstd": 1 << 15, "lz4": 256, "snappy": 32, "auto": 1 << 15}
"""What a byte becomes at most.

Two bits of deflate are a copy of 258 bytes, 4 bytes of zstd a block of 128 KiB, 3 bytes of snappy a copy of 64, and a
byte of lz4 makes a copy longer by 255.
"""
_SNAPPY_FRAMES: Final = b"\xff\x06\x00\x00sNaPpY"


def expand(payload: bytes, compression: str) -> bytes:
    """Return what `payload` expands to; `auto` returns a payload that is not recognized as it is.

    Raise DecodeError if it is damaged, or larger than a payload can be.
    """
    return EXPANDED_BY[compression](payload)


def expand_all(payloads: Sequence[bytes], compression: str, most: int) -> tuple[list[bytes], list[int]] | None:
    """Return what each of `payloads` expands to, nothing for one that is damaged, and the indices of these.

    Return None for several that are more than `most` bytes together, and of which there may be one of the largest size
    more for a while.  It is quicker than `expand` of each.
    """
    expanded: list[bytes] = []
    damaged: list[int] = []
    making, largest = _making(payloads, compression, most)
    step, size = MAX_PAYLOAD_BYTES // largest, 0
    while len(expanded) < len(payloads):
        done = len(expanded)
        try:
            expanded.extend(
                islice(making, step)
            )  # what comes before a failure is added, and what comes after it follows
        except DecodeError:
            damaged.append(len(expanded))
            expanded.append(b"")
        except _cramjam(compression).DecompressionError:
            try:
                expanded.append(expand(payloads[len(expanded)], compression))
            except DecodeError:
                damaged.append(len(expanded))
                expanded.append(b"")
        size += sum(map(len, islice(expanded, done, None)))
        if size > most and len(payloads) > 1:
            return None
    return expanded, damaged


def _making(payloads: Sequence[bytes], compression: str, most: int) -> tuple[Iterator[bytes], int]:
    """Return what expands payloads one by one, and the size of the largest at most.

    Where none can be too large, it is the library alone: it may fail where `expand` does not, never the other way.
    """
    lengths = list(map(len, payloads))
    largest = min(MAX_PAYLOAD_BYTES, 1 + max(lengths) * _MOST_OF_A_BYTE[compression])
    if compression in _NEED_CRAMJAM and largest < MAX_PAYLOAD_BYTES and min(lengths) and _is_there(compression):
        if compression != "snappy" or payloads[0].startswith(_SNAPPY_FRAMES):
            return map(bytes, map(_function(compression, "decompress"), payloads)), largest
        with suppress(_cramjam(compression).DecompressionError):
            sizes = list(map(_function("snappy", "decompress_raw_len"), payloads))  # as much memory is asked for
            if sum(sizes) <= most:
                return map(bytes, map(_function("snappy", "decompress_raw"), payloads)), largest
    return map(EXPANDED_BY[compression], payloads), largest


def compress(payload: bytes, compression: str) -> bytes:
    """Return `payload` compressed; as it is for `auto`.  Equal payloads give equal bytes.  Raise DecodeError."""
    return payload if compression in ("none", "auto") else _COMPRESSED_BY[compression](payload)


def recognized(payload: bytes) -> str:
    """Return the compression that the first bytes of `payload` tell; `none` if they tell none."""
    found = _BEGINNINGS.get(payload[:2])
    return found[1] if found is not None and payload.startswith(found[0]) else "none"


def is_missing(compression: str) -> bool:
    """Return whether `compression` needs the package that is not installed."""
    return compression in _NEED_CRAMJAM and find_spec("cramjam") is None


def _unpacked(payload: bytes) -> bytes:
    """Return what a payload expands to by its first bytes, or the payload."""
    found = _BEGINNINGS.get(payload[:2])
    return EXPANDED_BY[found[1]](payload) if found is not None and payload.startswith(found[0]) else payload


def _ungzipped(payload: bytes) -> bytes:
    stream = decompressobj(31)
    try:
        whole = stream.decompress(payload, MAX_PAYLOAD_BYTES)
    except zlib.error as error:
        raise DecodeError(DAMAGED, _reason("gzip", payload, _words(error))) from None
    return whole if stream.eof and not stream.unused_data else _members(payload)


def _members(payload: bytes) -> bytes:
    """Return what one or more members of gzip expand to, one after the other."""
    view = memoryview(payload)
    at, left, parts = 0, MAX_PAYLOAD_BYTES, []
    for _ in range(_MOST_MEMBERS):
        stream = decompressobj(31)
        while not stream.eof:
            piece = view[at : at + _STEP]
            if not piece:
                raise DecodeError(DAMAGED, "damaged gzip: it ends early")
            try:
                part = stream.decompress(piece, left + 1)
            except zlib.error as error:
                raise DecodeError(DAMAGED, _reason("gzip", payload, _words(error))) from None
            at += len(piece) - len(stream.unused_data) - len(stream.unconsumed_tail)
            left -= len(part)
            if left < 0:
                raise _too_large()
            parts.append(part)
        if at == len(payload):
            return b"".join(parts)
    raise DecodeError(DAMAGED, f"damaged gzip: more than {_MOST_MEMBERS:,} members")


def _inflated(payload: bytes) -> bytes:
    stream = decompressobj()
    try:
        whole = stream.decompress(payload, MAX_PAYLOAD_BYTES + 1)
    except zlib.error as error:
        raise DecodeError(DAMAGED, _reason("zlib", payload, _words(error))) from None
    if len(whole) > MAX_PAYLOAD_BYTES:
        raise _too_large()
    if not stream.eof or stream.unused_data:
        what = "data after the stream" if stream.eof else "it ends early"
        raise DecodeError(DAMAGED, f"damaged zlib: {what}")
    return whole


def _buffered(name: str, payload: bytes) -> bytes:
    """Return what cramjam makes of frames, in a buffer that grows up to the bound."""
    into = _function(name, "decompress_into")
    size = _FIRST_BUFFER + _GROWTH * len(payload)
    if size > MAX_PAYLOAD_BYTES:
        size = MAX_PAYLOAD_BYTES
    while True:
        buffer = bytearray(size)
        try:
            count = into(payload, buffer)
        except _cramjam(name).DecompressionError as error:
            if _IS_FULL not in str(error):
                raise DecodeError(DAMAGED, _reason(name, payload, str(error))) from None
            if size == MAX_PAYLOAD_BYTES:
                raise _too_large() from None
            size = min(MAX_PAYLOAD_BYTES, _GROWTH * size)
        else:
            return bytes(memoryview(buffer)[:count])


def _frames(name: str) -> Conversion:
    """Return what expands frames of a format of cramjam."""
    most = _MOST_OF_A_BYTE[name]

    def expanded(payload: bytes) -> bytes:
        if len(payload) * most > MAX_PAYLOAD_BYTES:
            return _buffered(name, payload)
        decompress = _function(name, "decompress")
        try:
            return bytes(decompress(payload))
        except _cramjam(name).DecompressionError as error:
            raise DecodeError(DAMAGED, _reason(name, payload, str(error))) from None

    return expanded


_unsnapped_frames: Final = _frames("snappy")


def _unsnapped(payload: bytes) -> bytes:
    """Return what frames of snappy expand to, or without their mark one block, which begins with its size."""
    if payload.startswith(_SNAPPY_FRAMES):
        return _unsnapped_frames(payload)
    size_of, decompress = _function("snappy", "decompress_raw_len"), _function("snappy", "decompress_raw")
    try:
        size = size_of(payload)
        if size > _MOST_OF_A_BYTE["snappy"] * len(payload):
            raise DecodeError(DAMAGED, "damaged snappy: the size in front of it cannot be true")
        if size > MAX_PAYLOAD_BYTES:
            raise _too_large()
        return bytes(decompress(payload))
    except _cramjam("snappy").DecompressionError as error:
        raise DecodeError(DAMAGED, _reason("snappy", payload, str(error))) from None


@cache
def _cramjam(name: str) -> Any:
    """Return the package, which reads `name`; it is loaded when it is first needed."""
    try:
        import cramjam
    except ImportError:
        raise DecodeError(NO_PACKAGE, f"the package that expands {name} is not installed", hint=INSTALL) from None
    return cramjam


def _is_there(name: str) -> bool:
    """Return whether the package is installed; quickly if it is."""
    try:
        return _cramjam(name) is not None
    except DecodeError:
        return False


@cache
def _function(name: str, function: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(getattr(_cramjam(name), name), function)
    return found


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
    packed = bytes(getattr(_cramjam(name), name).compress(payload))
    return packed or _SNAPPY_FRAMES  # of an empty text, snappy makes nothing


_MAGIC: Final = {
    b"\x1f\x8b\x08": "gzip",
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    _SNAPPY_FRAMES: "snappy",
}
_BEGINNINGS: Final = {magic[:2]: (magic, name) for magic, name in _MAGIC.items()}
_NEED_CRAMJAM: Final = ("zstd", "lz4", "snappy")
EXPANDED_BY: Final[dict[str, Conversion]] = {
    "none": lambda payload: payload,
    "auto": _unpacked,
    "gzip": _ungzipped,
    "zlib": _inflated,
    "zstd": _frames("zstd"),
    "lz4": _frames("lz4"),
    "snappy": _unsnapped,
}
"""What expands a payload, as `expand`, by what `from.compression` can be."""
COMPRESSIONS: Final = tuple(EXPANDED_BY)[2:]
_COMPRESSED_BY: Final[dict[str, Conversion]] = {
    "gzip": partial(_deflated, wbits=31),
    "zlib": partial(_deflated, wbits=15),
    **{name: partial(_packed, name=name) for name in _NEED_CRAMJAM},
}
