"""cbor: integer keys become strings, byte strings base64, tags of times and decimals become numbers or strings.

Other tags, undefined, other simple values and NaN fail where they are read.

The tag 55799, which only says "this is CBOR", may precede the payload (RFC 8949, 3.4.6).
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from iggyflux.errors import DecodeError
from iggyflux.payloads.binary import Members, TaggedValue, check_keys, foreign, is_plain, plain, time_text
from iggyflux.payloads.format import (
    BAD_NUMBER,
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

if TYPE_CHECKING:
    from cbor2 import CBORTag

_SELF_DESCRIBED = b"\xd9\xd9\xf7"


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
    tree = _tree(payload.removeprefix(_SELF_DESCRIBED))
    if is_plain(tree):
        return tree  # type: ignore[return-value]
    if strict:
        check_keys(tree)
    return plain(tree, Reads.WHOLE if reads is None else reads, _special, non_finite)


def _tree(payload: bytes) -> object:
    """Return what cbor2 makes of a payload, but with tags kept, and with all members of an object if it hides one."""
    import cbor2

    def load(*, allow_duplicate_keys: bool) -> object:
        decoder = cbor2.CBORDecoder(
            BytesIO(payload),
            tag_hook=_other_tag,
            semantic_decoders=_TAGS,
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=allow_duplicate_keys,
        )
        value: object = decoder.decode()
        try:
            decoder.read(1)
        except cbor2.CBORDecodeEOF:
            return value
        raise DecodeError(MALFORMED, "not CBOR: bytes are left after the value")

    try:
        return load(allow_duplicate_keys=False)
    except cbor2.CBORError:
        pass
    try:
        load(allow_duplicate_keys=True)
    except cbor2.CBORError as exc:
        if isinstance(exc.__cause__, UnicodeDecodeError):
            raise not_utf8(exc.__cause__, "a string") from None
        if "nesting depth" in str(exc):
            raise too_deep() from None
        raise DecodeError(MALFORMED, f"not CBOR: {exc}") from None
    return _all_members(payload, 0)[0]


def _other_tag(tag: CBORTag, _: bool) -> TaggedValue:
    return TaggedValue(tag.tag, tag.value)


def _known_tag(number: int) -> Callable[[object, bool], TaggedValue]:
    return lambda content, _: TaggedValue(number, content)


# Tags can share, repeat and build values without limit, so no tag that cbor2 knows is followed.
_TAGS = {number: _known_tag(number) for number in (*range(1101), 43000, 55799)}


def _all_members(payload: bytes, start: int) -> tuple[object, int]:
    """Return the value at `start`, objects with all members, and where it ends; the syntax is checked already."""
    import cbor2

    major, minor = payload[start] >> 5, payload[start] & 0x1F
    size = 1 << minor - 24 if 24 <= minor < 28 else 0
    at = start + 1 + size
    count = int.from_bytes(payload[start + 1 : at], "big") if size else minor
    is_indefinite = minor == 31
    if major == 6:
        content, at = _all_members(payload, at)
        return TaggedValue(count, content), at
    if major in (2, 3) and not is_indefinite:
        at += count
    elif 2 <= major <= 5:
        parts: list[object] = []
        wanted = 2 * count if major == 5 else count
        while payload[at] != 0xFF if is_indefinite else len(parts) < wanted:
            part, at = _all_members(payload, at)
            parts.append(part)
        at += is_indefinite
        if major >= 4:
            return Members(parts) if major == 5 else parts, at
    return cbor2.loads(payload[start:at]), at


def _special(value: object) -> JSON:
    """Return the string of tag 0, number of tag 1, decimal of tag 4 or time of tag 1001 (RFC 8949, RFC 9581)."""
    match value:
        case TaggedValue(0, str(text)):
            return text
        case TaggedValue(1, int(number) | float(number)) if not isinstance(number, bool):
            return plain(number, Reads.WHOLE, _special)
        case TaggedValue(4, list(content)):
            return _decimal(plain(content, Reads.WHOLE, _special))
        case TaggedValue(1001, content):
            return _time(plain(content, Reads.WHOLE, _special))
        case TaggedValue():
            raise foreign(f"the tag {value.number}, or what is in it,")
    raise foreign("undefined or a simple value")


def _decimal(content: JSON) -> str:
    match content:
        case [int(exponent), int(digits)] if type(exponent) is type(digits) is int:
            if abs(exponent) > _MAX_EXPONENT:
                raise DecodeError(BAD_NUMBER, f"a decimal with the exponent {exponent} is out of range")
            return f"{Decimal(f'{digits}E{exponent}'):f}"
    raise foreign("tag 4 without two integers")


_MAX_EXPONENT = 1000  # the text stays short
_FRACTIONS = {"-3": 1_000_000, "-6": 1000, "-9": 1}


def _time(content: JSON) -> str:
    match content:
        case {"1": int(seconds), **fraction} if type(seconds) is int and len(fraction) <= 1:
            unit, count = next(iter(fraction.items()), ("-9", 0))
            scale = _FRACTIONS.get(str(unit))
            if scale is not None and type(count) is int:
                return time_text(seconds, count * scale)
    raise foreign("tag 1001 with more than seconds and one of -3, -6, -9")


def encode(value: JSON, options: Options | None = None) -> bytes:  # noqa: ARG001
    """Return `value` as CBOR.

    Raise `RecordError` for integers beyond 64 bits, NaN and unpaired surrogates.
    """
    import cbor2

    try:
        if not is_plain(value):
            reason = "it contains NaN, an infinity or an unsupported type"
        elif _has_large_integer(value):  # cbor2 would write a tag, which `decode` rejects
            reason = "it contains an integer beyond 64 bits"
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


FORMAT = Format(decode, encode, binary=True, decode_non_finite=partial(decode, non_finite=True))
