"""msgpack: integer keys become text, `bin` comes as base64, a timestamp is RFC 3339 text.

Other extension types and NaN fail where they are read.
"""

from __future__ import annotations

import struct

import msgspec

from iggyflux.payloads.binary import Cursor, deeper, is_plain, object_key, time_text
from iggyflux.payloads.format import Format, Options, check_size, item_reads, member_reads, not_encodable
from iggyflux.reads import Reads
from iggyflux.records import JSON

_fast = msgspec.msgpack.Decoder()
_encoder = msgspec.msgpack.Encoder()


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:  # noqa: ARG001
    """The one value that the payload is."""
    check_size(payload)
    try:
        value: JSON = _fast.decode(payload)
        # What is written back byte for byte had no duplicate keys.
        if is_plain(value) and (not strict or _encoder.encode(value) == payload):
            return value
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError, RecursionError):
        pass
    return decode_carefully(payload, Reads.WHOLE if reads is None else reads, strict)


def decode_carefully(payload: bytes, reads: Reads, strict: bool = False) -> JSON:
    """The specification of `decode`."""
    cursor = Cursor(payload, "msgpack")
    value = _value(cursor, reads, 0, strict)
    cursor.at_end()
    return value


# By first byte: what follows, and the size of its length or of itself.
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_RAWS = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_FLOATS = {0xCA: 4, 0xCB: 8}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_OBJECTS = {0xDE: 2, 0xDF: 4}
_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # the size of the data
_LONG_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}


def _value(cursor: Cursor, reads: Reads | None, depth: int, strict: bool) -> JSON:
    return _typed(cursor, cursor.byte(), reads, depth, strict)


def _typed(cursor: Cursor, first: int, reads: Reads | None, depth: int, strict: bool) -> JSON:  # noqa: C901  (a branch each type)
    """The value that begins with the byte `first`, which was taken already."""
    if first <= 0x7F:
        return first
    if first >= 0xE0:
        return first - 0x100
    if first <= 0x8F:
        return _object(cursor, first & 0x0F, reads, depth, strict)
    if first <= 0x9F:
        return _list(cursor, first & 0x0F, reads, depth, strict)
    if first <= 0xBF:
        return cursor.text(first & 0x1F)
    if first in _CONSTANTS:
        return _CONSTANTS[first]
    if first in _UNSIGNED:
        return cursor.unsigned(_UNSIGNED[first])
    if first in _SIGNED:
        return cursor.signed(_SIGNED[first])
    if first in _FLOATS:
        return cursor.float(_FLOATS[first], reads)
    if first in _TEXTS:
        return cursor.text(cursor.unsigned(_TEXTS[first]))
    if first in _RAWS:
        return cursor.raw(cursor.unsigned(_RAWS[first]))
    if first in _LISTS:
        return _list(cursor, cursor.unsigned(_LISTS[first]), reads, depth, strict)
    if first in _OBJECTS:
        return _object(cursor, cursor.unsigned(_OBJECTS[first]), reads, depth, strict)
    if first == 0xC1:
        raise cursor.malformed("the byte 0xc1 begins nothing")
    size = _EXTENSIONS[first] if first in _EXTENSIONS else cursor.unsigned(_LONG_EXTENSIONS[first])
    code, data = cursor.signed(1), cursor.take(size)
    return None if reads is None else _time(cursor, code, data)


def _time(cursor: Cursor, code: int, data: bytes) -> str:
    """The time that an extension type holds; any other type has no JSON form."""
    if code != -1 or len(data) not in (4, 8, 12):
        raise cursor.foreign("extension type")
    if len(data) == 12:
        nanoseconds, seconds = struct.unpack(">Iq", data)
    else:
        packed = int.from_bytes(data, "big")
        nanoseconds, seconds = (0, packed) if len(data) == 4 else (packed >> 34, packed & 0x3_FFFF_FFFF)
    text = time_text(seconds, nanoseconds)
    if text is None:
        raise cursor.foreign("timestamp out of range")
    return text


def _list(cursor: Cursor, count: int, reads: Reads | None, depth: int, strict: bool) -> list[JSON]:
    inner = deeper(depth)
    elements = item_reads(reads)
    return [_value(cursor, elements, inner, strict) for _ in range(count)]


def _object(cursor: Cursor, count: int, reads: Reads | None, depth: int, strict: bool) -> dict[str, JSON]:
    inner = deeper(depth)
    members: dict[str, JSON] = {}
    for _ in range(count):
        first = cursor.byte()
        is_foreign = first in _RAWS or first in _EXTENSIONS or first in _LONG_EXTENSIONS
        if is_foreign and reads is not None:
            raise cursor.foreign("bin or extension type as a key")
        found = _typed(cursor, first, None if reads is None else Reads.BARE, inner, strict)
        key = object_key(None if is_foreign else found, members, reads, strict)
        value = _value(cursor, None if key is None else member_reads(reads, key), inner, strict)
        if key is not None:
            members[key] = value
    return members


def encode(value: JSON, options: Options | None = None) -> bytes:  # noqa: ARG001
    """`value` as msgpack; integers beyond 64 bits, NaN and half surrogates raise `RecordError`."""
    try:
        if is_plain(value):
            return _encoder.encode(value)
        reason = "NaN, an infinity or another type is in it"
    except (ValueError, OverflowError, RecursionError) as exc:
        reason = str(exc)
    raise not_encodable("msgpack", f"a JSON value that it can hold ({reason})", value)


FORMAT = Format(
    name="msgpack",
    description=(
        "MessagePack: integer keys become text, `bin` comes as base64, a timestamp is RFC 3339 text with nine digits; "
        "other extension types and NaN fail where they are read."
    ),
    decode=decode,
    encode=encode,
    binary=True,
)
