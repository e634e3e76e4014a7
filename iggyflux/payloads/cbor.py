"""cbor: integer keys become text, byte strings come as base64, tags of times and decimals become numbers or text.

Other tags, undefined, other simple values and NaN fail where they are read.

The tag 55799, which says no more than "this is CBOR", may stand before the payload (RFC 8949, 3.4.6).
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Never

from iggyflux.errors import DecodeError
from iggyflux.payloads.binary import Cursor, deeper, is_plain, object_key, time_text, to_base64
from iggyflux.payloads.format import (
    BAD_NUMBER,
    MAX_DEPTH,
    Format,
    Options,
    check_size,
    item_reads,
    member_reads,
    not_encodable,
)
from iggyflux.reads import Reads
from iggyflux.records import JSON

_SELF_DESCRIBED = b"\xd9\xd9\xf7"


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:  # noqa: ARG001
    """The one value that the payload is."""
    import cbor2

    check_size(payload)
    try:
        value: JSON = cbor2.loads(
            payload,
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=not strict,
            semantic_decoders=_REFUSED_TAGS,
            tag_hook=_refuse_tag,
        )
        # cbor2 takes no notice of what stands after the value: written back byte for byte, there was nothing.
        if is_plain(value) and cbor2.dumps(value) == payload:
            return value
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        pass
    return decode_carefully(payload, Reads.WHOLE if reads is None else reads, strict)


def _refuse_tag(*_: object) -> Never:
    """Tags can share, repeat and build without bound: none is followed."""
    raise ValueError("a tag")


# Every tag that cbor2 knows; others go to its tag_hook.
_REFUSED_TAGS = dict.fromkeys((*range(1101), 43000, 55799), _refuse_tag)


def decode_carefully(payload: bytes, reads: Reads, strict: bool = False) -> JSON:
    """The specification of `decode`."""
    cursor = Cursor(payload, "CBOR")
    if payload.startswith(_SELF_DESCRIBED):
        cursor.take(len(_SELF_DESCRIBED))
    value = _value(cursor, reads, 0, strict)
    cursor.at_end()
    return value


_ARGUMENT_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
_INDEFINITE = 31
_BREAK = 0xFF
_CONSTANTS = {20: False, 21: True, 22: None}
_FLOATS = {25: 2, 26: 4, 27: 8}


def _value(cursor: Cursor, reads: Reads | None, depth: int, strict: bool) -> JSON:
    return _typed(cursor, cursor.byte(), reads, depth, strict)


def _typed(cursor: Cursor, first: int, reads: Reads | None, depth: int, strict: bool) -> JSON:
    """The value that begins with the byte `first`, which was taken already."""
    major, minor = first >> 5, first & 0x1F
    if major == 7:
        return _simple(cursor, minor, reads)
    if major == 6:
        tag = _argument(cursor, minor, indefinite=False)
        if reads is not None:
            return _tagged(cursor, tag, deeper(depth), strict)
        _value(cursor, None, deeper(depth), strict)
        return None
    count = _argument(cursor, minor, indefinite=major >= 2)
    if major <= 1 and count is not None:
        return count if major == 0 else -1 - count
    if major == 2:
        if count is not None:
            return cursor.raw(count)
        return to_base64(b"".join(cursor.take(size) for size in _chunk_sizes(cursor, major)))
    if major == 3:
        if count is not None:
            return cursor.text(count)
        return "".join(cursor.text(size) for size in _chunk_sizes(cursor, major))
    return _list(cursor, count, reads, depth, strict) if major == 4 else _object(cursor, count, reads, depth, strict)


# The first bytes of what each tag can hold: text, numbers, a list, a map.
_CONTENTS = {
    0: range(0x60, 0x80),
    1: (*range(0x40), 0xF9, 0xFA, 0xFB),
    4: range(0x80, 0xA0),
    1001: range(0xA0, 0xC0),
}
_FRACTIONS = {"-3": 1_000_000, "-6": 1000, "-9": 1}


def _tagged(cursor: Cursor, tag: int | None, depth: int, strict: bool) -> JSON:
    """The text of tag 0, the number of tag 1, the decimal of tag 4, the time of tag 1001 (RFC 8949, RFC 9581)."""
    first = cursor.byte()
    if tag is None or first not in _CONTENTS.get(tag, ()):
        raise cursor.foreign("tag")
    content = _typed(cursor, first, Reads.WHOLE, depth, strict)
    if tag == 4:
        return _decimal(cursor, content)
    return _time(cursor, content) if tag == 1001 else content


def _decimal(cursor: Cursor, content: JSON) -> str:
    match content:
        case [int(exponent), int(digits)] if type(exponent) is type(digits) is int:
            if abs(exponent) > _MAX_EXPONENT:
                raise DecodeError(BAD_NUMBER, f"a decimal with the exponent {exponent} is out of range")
            return f"{Decimal(f'{digits}E{exponent}'):f}"
    raise cursor.foreign("tag 4 without two integers")


_MAX_EXPONENT = 1000  # the text stays short


def _time(cursor: Cursor, content: JSON) -> str:
    match content:
        case {"1": int(seconds), **fraction} if type(seconds) is int and len(fraction) <= 1:
            unit, count = next(iter(fraction.items()), ("-9", 0))
            scale = _FRACTIONS.get(str(unit))
            if scale is not None and type(count) is int:
                text = time_text(seconds, count * scale)
                if text is not None:
                    return text
    raise cursor.foreign("tag 1001 with more than seconds and one of -3, -6, -9, or out of range")


def _argument(cursor: Cursor, minor: int, *, indefinite: bool) -> int | None:
    """The number in or after a first byte; None for an indefinite length."""
    if minor < 24:
        return minor
    if minor in _ARGUMENT_SIZES:
        return cursor.unsigned(_ARGUMENT_SIZES[minor])
    if minor == _INDEFINITE and indefinite:
        return None
    raise cursor.malformed(f"reserved length {minor}")


def _simple(cursor: Cursor, minor: int, reads: Reads | None) -> JSON:
    if minor in _CONSTANTS:
        return _CONSTANTS[minor]
    if minor in _FLOATS:
        return cursor.float(_FLOATS[minor], reads)
    if minor == _INDEFINITE:
        raise cursor.malformed("a break where none can be")
    if minor != 23:
        _argument(cursor, minor, indefinite=False)
    if reads is None:
        return None
    raise cursor.foreign("undefined" if minor == 23 else "simple value")


def _chunk_sizes(cursor: Cursor, major: int) -> Iterator[int]:
    """The sizes of the parts of a string of indefinite length, each of which is then to be taken."""
    while (first := cursor.byte()) != _BREAK:
        size = _argument(cursor, first & 0x1F, indefinite=False)
        if first >> 5 != major or size is None:
            raise cursor.malformed("a string of indefinite length has another type in it")
        yield size


def _list(cursor: Cursor, count: int | None, reads: Reads | None, depth: int, strict: bool) -> list[JSON]:
    inner = deeper(depth)
    elements = item_reads(reads)
    if count is not None:
        return [_value(cursor, elements, inner, strict) for _ in range(count)]
    values: list[JSON] = []
    while (first := cursor.byte()) != _BREAK:
        values.append(_typed(cursor, first, elements, inner, strict))
    return values


def _object(cursor: Cursor, count: int | None, reads: Reads | None, depth: int, strict: bool) -> dict[str, JSON]:
    inner = deeper(depth)
    members: dict[str, JSON] = {}
    while count is None or count > 0:
        first = cursor.byte()
        if count is None and first == _BREAK:
            break
        count = count if count is None else count - 1
        is_foreign = first >> 5 in (2, 6)
        if is_foreign and reads is not None:
            raise cursor.foreign("byte string or tag as a key")
        found = _typed(cursor, first, None if reads is None else Reads.BARE, inner, strict)
        key = object_key(None if is_foreign else found, members, reads, strict)
        value = _value(cursor, None if key is None else member_reads(reads, key), inner, strict)
        if key is not None:
            members[key] = value
    return members


def encode(value: JSON, options: Options | None = None) -> bytes:  # noqa: ARG001
    """`value` as CBOR; integers beyond 64 bits, NaN and half surrogates raise `RecordError`."""
    import cbor2

    try:
        if not is_plain(value):
            reason = "NaN, an infinity or another type is in it"
        elif _has_large_integer(value):  # cbor2 would tag it, which is not JSON: our own `decode` refuses tags
            reason = "an integer beyond 64 bits is in it"
        else:
            encoded: bytes = cbor2.dumps(value)
            return encoded
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError) as exc:
        reason = str(exc)
    raise not_encodable("cbor", f"a JSON value that it can hold ({reason})", value)


def _has_large_integer(value: JSON) -> bool:
    if isinstance(value, dict):
        return any(map(_has_large_integer, value.values()))
    if isinstance(value, list):
        return any(map(_has_large_integer, value))
    return isinstance(value, int) and not -(2**64) <= value < 2**64


FORMAT = Format(
    name="cbor",
    description=(
        "CBOR (RFC 8949): integer keys become text, byte strings come as base64; tag 0 is its text, tag 1 its number, "
        "tag 4 the exact decimal as text, tag 1001 RFC 3339 text; other tags and NaN fail where they are read."
    ),
    decode=decode,
    encode=encode,
    binary=True,
)
