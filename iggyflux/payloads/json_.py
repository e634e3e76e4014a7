"""json: read by msgspec, and only as far as the mapping reads.

The rules for both plans (LANGUAGE 25, 26): UTF-8, size and depth are checked on the bytes.  Of a value that is not read
only the syntax is checked.  A value that is read must be exact.  Of duplicate keys of an object the last wins; `strict`
rejects them.  This file specifies the rules; the compiled plan sends it every payload that it does not decode itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from math import isinf
from typing import Final

import msgspec

from iggyflux.errors import DecodeError
from iggyflux.payloads.format import (
    BAD_NUMBER,
    MALFORMED,
    MAX_DEPTH,
    MAX_PAYLOAD_BYTES,
    Format,
    Options,
    check_size,
    duplicate_key,
    not_encodable,
    not_utf8,
    too_deep,
)
from iggyflux.reads import Reads
from iggyflux.records import JSON

_any = msgspec.json.Decoder()
_raw = msgspec.json.Decoder(msgspec.Raw)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_encoder = msgspec.json.Encoder()

_FIRST = re.compile(rb"[ \t\r\n]*(.)", re.DOTALL)
# An unclosed string ends with the text: the syntax is checked elsewhere, here only linear time matters.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS = bytes(byte for byte in range(256) if byte not in _BRACKETS)


def decode(
    payload: bytes,
    options: Options,  # noqa: ARG001
    reads: Reads | None = None,
    strict: bool = False,
    *,
    non_finite: bool = False,
) -> JSON:
    """Return the part of a JSON text that `reads` names (None: all of it).

    With `non_finite`, the words NaN, Infinity and -Infinity, which some encoders write, are numbers, and so is 1e400.
    """
    reads = Reads.WHOLE if reads is None else reads
    check_json_bytes(payload)
    tree: object = None
    try:
        _raw.decode(payload)
    except msgspec.DecodeError as exc:
        tree = _parse_leniently(payload, non_finite)
        if tree is None or isinstance(tree, float):  # a mapping cannot omit the whole payload
            raise DecodeError(MALFORMED, _syntax_reason(payload, exc)) from None
    if strict and (key := find_duplicate_key(payload)) is not None:
        raise duplicate_key(key)
    if tree is None and non_finite:
        with suppress(DecodeError):  # a number of all that are read is too large for a double
            return _read(payload, reads, "$")
        tree = _parse_leniently(payload, non_finite)
    return _read(payload, reads, "$") if tree is None else _take(tree, reads, "$")


def check_json_bytes(payload: bytes) -> None:
    """Raise `DecodeError` for the size, the encoding or the depth of a payload; the syntax is not checked."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        check_size(payload)
    if not payload.isascii():
        try:
            payload.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise not_utf8(exc) from None
    if may_be_deep(payload):
        brackets = _STRING.sub(b"", payload).translate(None, _OTHERS)
        if max(accumulate(map(_BRACKETS.__getitem__, brackets)), default=0) > MAX_DEPTH:
            raise too_deep()


def find_duplicate_key(payload: bytes) -> str | None:
    """Return a duplicate key of an object, compared after unescaping; None if there is none.

    The payload is in UTF-8 and not nested too deeply.  If it is not JSON, the result has no meaning.
    """
    if not may_repeat_a_key(payload):
        return None
    found: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        found.extend(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]

    with suppress(ValueError):
        json.loads(payload.decode(), object_pairs_hook=note, parse_int=str, parse_float=str)
    return found[0] if found else None


_AS_ARRAYS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_OF_SHAPE: Final = bytes(sorted(set(range(256)) - set(b'[]{}"')))
_MOST_PASSES: Final = 8
"""How often as many brackets are looked at as a payload has."""


def may_be_deep(payload: bytes) -> bool:
    """Return whether only counting says that arrays and objects are not nested too deeply."""
    return payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and not is_shallow(payload, MAX_DEPTH)


def is_shallow(payload: bytes, depth: int) -> bool:
    """Return whether arrays and objects of JSON are nested at most `depth` levels deep; False if that is not sure.

    A bracket in a string follows an odd number of quotes, so one of them is left when pairs without a bracket between
    them are removed: then it is not sure.  It is not sure either where each level holds little: to look at all of
    them in turn would take longer than to count.
    """
    if b"\\" in payload:
        payload = payload.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = payload.translate(_AS_ARRAYS, _NOT_OF_SHAPE).replace(b'""', b"")
    most = _MOST_PASSES * len(left)
    for _ in range(depth):
        if not left:
            return True
        most -= len(left)
        if most < 0:
            return False
        left = left.replace(b"[]", b"")  # the innermost level
    return not left


def may_repeat_a_key(payload: bytes) -> bool:
    """Return whether only `find_duplicate_key` can tell: some key occurs twice in the text, or is escaped."""
    if b"\\" in payload:
        return True
    parts = payload.split(b'"')
    keys = [text for text, after in zip(parts[1::2], parts[2::2], strict=False) if after.lstrip()[:1] == b":"]
    return len(set(keys)) != len(keys)


def _parse_leniently(payload: bytes, non_finite: bool) -> object:
    """Return text that msgspec rejects as the standard library reads it; None if it is not JSON.

    Numbers remain as they are written.  An unpaired surrogate is JSON (RFC 8259, 8.2).
    """
    if b"\\u" not in payload and not non_finite:
        return None
    number = _number if non_finite else _Number
    constant = float if non_finite else _refuse_constant
    with suppress(ValueError):
        return json.loads(payload.decode(), parse_constant=constant, parse_int=_Number, parse_float=number)
    return None


class _Number(str):
    """A number as it is written; it is decoded if it is read."""

    __slots__ = ()


def _number(text: str) -> float | _Number:
    """Return a number beyond the range of doubles as an infinity."""
    return float(text) if isinf(float(text)) else _Number(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _take(value: object, reads: Reads, path: str) -> JSON:
    if isinstance(value, dict):
        if reads.whole:
            return {_encodable(key, path): _take(member, reads, f"{path}.{key}") for key, member in value.items()}
        return {
            key: _take(member, reads.keys[key], f"{path}.{key}") for key, member in value.items() if key in reads.keys
        }
    if isinstance(value, list):
        elements = reads if reads.whole else reads.items
        return [] if elements is None else [_take(each, elements, f"{path}[{n}]") for n, each in enumerate(value)]
    if isinstance(value, _Number):
        return _read(value.encode(), reads, path)
    return _encodable(value, path) if isinstance(value, str) else value  # type: ignore[return-value]  # true, false, null


def _encodable(text: str, path: str) -> str:
    """Return `text`; raise DecodeError for an unpaired surrogate in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        reason = f"a string has an unpaired surrogate, which UTF-8 cannot encode (in {path})"
        raise DecodeError(MALFORMED, reason.encode("utf-8", "backslashreplace").decode()) from None
    return text


def _read(text: bytes | msgspec.Raw, reads: Reads, path: str) -> JSON:
    """Return what `reads` names of a text whose syntax is checked already."""
    first = _FIRST.match(text)
    kind = first.group(1) if first is not None and not reads.whole else b""
    if kind == b"{":
        return _read_object(text, reads, path) if reads.keys else {}
    try:
        if kind == b"[":
            elements = [] if reads.items is None else _list.decode(text)
            return [_read(element, reads.items or reads, f"{path}[{index}]") for index, element in enumerate(elements)]
        value: JSON = _any.decode(text)
    except msgspec.DecodeError as exc:
        raise DecodeError(BAD_NUMBER, f"{_lower(exc).partition(' - at ')[0]} (in {path})") from None
    return value


def _read_object(text: bytes | msgspec.Raw, reads: Reads, path: str) -> JSON:
    members = _object.decode(text)
    return {
        key: _read(member, reads.keys[key], f"{path}.{key}") for key, member in members.items() if key in reads.keys
    }


def _syntax_reason(payload: bytes, exc: msgspec.DecodeError) -> str:
    if payload.startswith(b"\xef\xbb\xbf"):
        return "the payload begins with a byte order mark, which JSON does not allow"
    if not payload.strip():
        return "the payload is empty"
    if (word := payload.strip()) in (b"NaN", b"Infinity", b"-Infinity"):
        return f"the payload is {word.decode()}, which JSON does not allow"
    return f"not JSON: {_lower(exc).removeprefix('JSON is malformed: ')}"


def _lower(exc: Exception) -> str:
    text = str(exc)
    return text if text.startswith("JSON") else text[:1].lower() + text[1:]


def encode(value: JSON, options: Options | None = None) -> bytes:  # noqa: ARG001
    """Return `value` as compact JSON.

    Raise `RecordError` for NaN, infinities and unpaired surrogates.
    """
    try:
        text = _encoder.encode(value)
        if b"null" in text:
            json.dumps(value, allow_nan=False)  # msgspec writes null for what JSON does not have
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise not_encodable("json", f"a JSON value ({exc})", value) from None
    return text


def encode_many(values: Sequence[JSON | msgspec.Struct]) -> list[bytes]:
    """Return `encode` of each value, faster: msgspec never writes a line feed inside JSON.

    An object may also be a struct of its members, which is faster still.
    """
    try:
        text = _encoder.encode_lines(values)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return [encode(_plain(value)) for value in values]
    lines = text.split(b"\n")
    lines.pop()
    if b"null" in text:
        for line, value in zip(lines, values, strict=True):
            if b"null" in line and not _is_flat_and_finite(value):
                encode(_plain(value))
    return lines


def _plain(value: JSON | msgspec.Struct) -> JSON:
    if isinstance(value, msgspec.Struct):
        return dict(zip(value.__struct_encode_fields__, msgspec.structs.astuple(value), strict=True))
    return value


def _is_flat_and_finite(value: JSON | msgspec.Struct) -> bool:
    """Return whether `value` is an object of scalars, without NaN and infinities."""
    if isinstance(value, msgspec.Struct):
        members: Iterable[object] = msgspec.structs.astuple(value)
    elif isinstance(value, dict):
        members = value.values()
    else:
        return False
    for member in members:
        if isinstance(member, float):
            if member - member != 0.0:
                return False
        elif isinstance(member, (dict, list)):
            return False
    return True


FORMAT = Format(decode, encode, decode_non_finite=partial(decode, non_finite=True))
