"""msgpack: integer keys become strings, `bin` base64, a timestamp an RFC 3339 string.

Other extension types and NaN fail where they are read.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from iggyflux.errors import DecodeError
from iggyflux.payloads.binary import Members, check_keys, foreign, is_plain, plain, time_text
from iggyflux.payloads.format import (
    MALFORMED,
    MAX_DEPTH,
    Format,
    Options,
    check_size,
    not_encodable,
    not_utf8,
    too_deep,
)
from iggyflux.reads import Reads
from iggyflux.records import JSON

_any = msgspec.msgpack.Decoder()
_raw = msgspec.msgpack.Decoder(msgspec.Raw)
_list = msgspec.msgpack.Decoder(list[msgspec.Raw])
_scalars = msgspec.msgpack.Decoder(list[int | float | str | bool | None])
_extension = msgspec.msgpack.Decoder(Ext)
_encoder = msgspec.msgpack.Encoder()


def decode(
    payload: bytes,
    options: Options,  # noqa: ARG001
    reads: Reads | None = None,
    strict: bool = False,
    *,
    non_finite: bool = False,
) -> JSON:
    """Return the value of the payload."""
    check_size(payload)
    try:
        value: JSON = _any.decode(payload)
        # A payload that is written back byte for byte has no duplicate keys.
        if is_plain(value) and (not strict or _encoder.encode(value) == payload):
            return value
    except (ValueError, TypeError, RecursionError):
        pass  # it may be a fault of a value that is not read
    try:
        _raw.decode(payload)
        tree = _tree(payload)
    except UnicodeDecodeError as exc:
        raise not_utf8(exc, "a string") from None
    except msgspec.DecodeError as exc:
        text = str(exc).removeprefix("MessagePack data is malformed: ")
        raise DecodeError(MALFORMED, f"not msgpack: {text[:1].lower()}{text[1:]}") from None
    except RecursionError:
        raise too_deep() from None
    if strict:
        check_keys(tree)
    return plain(tree, Reads.WHOLE if reads is None else reads, _time, non_finite)


_LENGTHS = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_EXTENSIONS = frozenset({*range(0xC7, 0xCA), *range(0xD4, 0xD9)})
_CONTAINERS = frozenset({*range(0x80, 0xA0), *_LENGTHS})


def _tree(payload: bytes) -> object:
    """Return what msgspec would, but with times kept, and with all members of objects; the syntax is checked already.

    It works level by level: a list of bytes becomes a list of values, and the lists of bytes in it are the next level.
    """
    root: list[Any] = [payload]
    level = [root]
    depth = 0
    while level:
        deeper: list[list[Any]] = []
        for parts in level:
            for index, part in enumerate(parts):
                if part[0] in _EXTENSIONS:
                    parts[index] = _extension.decode(part)
                elif part[0] not in _CONTAINERS:
                    parts[index] = _any.decode(part)
                elif depth == MAX_DEPTH:
                    raise too_deep()
                else:
                    parts[index] = _open(part, deeper)
        level = deeper
        depth += 1
    return root[0]


def _open(payload: bytes, deeper: list[list[Any]]) -> list[Any]:
    """Return the parts of a list or an object; if they are bytes to decode, add them to `deeper` too."""
    first = payload[0]
    size = _LENGTHS.get(first, 0)
    count = int.from_bytes(payload[1 : 1 + size], "big") if size else first & 0x0F
    is_object = first < 0x90 or first >= 0xDE
    # An object is read as the list of its keys and values.
    items = b"\xdd" + (2 * count if is_object else count).to_bytes(4, "big") + payload[1 + size :]
    kind = Members if is_object else list
    try:
        return kind(_scalars.decode(items))
    except msgspec.ValidationError:
        parts = kind(map(bytes, _list.decode(items)))
        deeper.append(parts)
        return parts


def _time(value: object) -> str:
    """Return the time of an extension type; raise DecodeError for any other type."""
    if isinstance(value, Ext) and value.code == -1:
        data = bytes(value.data)
        if len(data) == 4:
            return time_text(int.from_bytes(data, "big"), 0)
        if len(data) == 8:
            packed = int.from_bytes(data, "big")
            return time_text(packed & 0x3_FFFF_FFFF, packed >> 34)
        if len(data) == 12:
            nanoseconds, seconds = struct.unpack(">Iq", data)
            return time_text(seconds, nanoseconds)
    raise foreign("an extension type")


def encode(value: JSON, options: Options | None = None) -> bytes:  # noqa: ARG001
    """Return `value` as msgpack.

    Raise `RecordError` for integers beyond 64 bits, NaN and unpaired surrogates.
    """
    try:
        if is_plain(value):
            return _encoder.encode(value)
        reason = "it contains NaN, an infinity or an unsupported type"
    except (ValueError, OverflowError, RecursionError) as exc:
        reason = str(exc)
    raise not_encodable("msgpack", f"a JSON value that it can hold ({reason})", value)


FORMAT = Format(decode, encode, binary=True, decode_non_finite=partial(decode, non_finite=True))
