"""json: read by msgspec, and only as far as the mapping reads.

The law for both plans (LANGUAGE 25, 26): UTF-8, size and depth are checked on the bytes; a value that is not read is
checked for syntax alone; what is read must be exact, and its keys must not stand twice.  This file specifies
it; the compiled plan uses `check_json_bytes` and `DuplicateCheck` and sends what they suspect here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

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
    checks_key,
    duplicate_key,
    item_reads,
    member_reads,
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
# An unclosed string ends with the text: the syntax is somebody else's care, linear time is ours.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_BRACKETS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS = bytes(byte for byte in range(256) if byte not in _BRACKETS)


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:  # noqa: ARG001
    """The part of a JSON text that `reads` names (None: all of it)."""
    reads = Reads.WHOLE if reads is None else reads
    check_json_bytes(payload)
    try:
        _raw.decode(payload)
    except msgspec.DecodeError as exc:
        raise DecodeError(MALFORMED, _syntax_reason(payload, exc)) from None
    duplicates = _duplicate_check(reads, strict)
    if duplicates.suspects(payload):
        duplicates.check(payload)
    return _read(payload, reads, "$")


def check_json_bytes(payload: bytes) -> None:
    """Size, UTF-8 and depth of a payload; raises `DecodeError`.  Says nothing about syntax."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        check_size(payload)
    if not payload.isascii():
        try:
            payload.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise not_utf8(exc) from None
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH:
        brackets = _STRING.sub(b"", payload).translate(None, _OTHERS)
        if max(accumulate(map(_BRACKETS.__getitem__, brackets)), default=0) > MAX_DEPTH:
            raise too_deep()


def has_duplicate_keys(payload: bytes, reads: Reads, strict: bool = False) -> bool:
    """Whether a key that `reads` names (any key, if `strict`) stands twice in one object of a valid JSON text."""
    duplicates = _duplicate_check(reads, strict)
    return duplicates.suspects(payload) and duplicates.find(payload) is not None


class DuplicateCheck:
    """Finds keys that stand twice: a quick `suspects`, which is never wrong when it says no, and an exact `find`."""

    __slots__ = ("_needles", "_reads")

    def __init__(self, reads: Reads, strict: bool = False) -> None:
        self._reads = Reads.WHOLE if strict else reads
        names = None if self._reads.whole else _names(self._reads)
        self._needles = (
            None if names is None else tuple(json.dumps(name, ensure_ascii=False).encode() for name in names)
        )

    def suspects(self, payload: bytes) -> bool:
        """Whether it takes `find` to know.  About 60 ns a key that is read."""
        if self._needles is None:
            return _repeats_a_key(payload)
        count = payload.count
        for needle in self._needles:
            if count(needle) > 1:
                return True
        # A key can hide behind an escape; only these two spell what could be written plainly.
        return b"\\" in payload and bool(self._needles) and (b"\\u" in payload or b"\\/" in payload)

    def find(self, payload: bytes) -> str | None:
        """A key that stands twice where it is read, in a payload of valid syntax; None if there is none."""
        tree = json.loads(payload.decode("utf-8"), object_pairs_hook=_Object, parse_int=str, parse_float=str)
        return next(_duplicates(tree, self._reads), None)

    def check(self, payload: bytes) -> None:
        """Raises `DecodeError` where `find` finds one."""
        key = self.find(payload)
        if key is not None:
            raise duplicate_key(key)


# By identity: a `Reads` has no hash, and a plan uses one and the same for every payload.
_checks: dict[tuple[int, bool], tuple[Reads, DuplicateCheck]] = {}
_MOST_CHECKS = 64


def _duplicate_check(reads: Reads, strict: bool) -> DuplicateCheck:
    """The check for `reads`, made once."""
    kept, check = _checks.get((id(reads), strict), (None, None))
    if kept is not reads or check is None:
        check = DuplicateCheck(reads, strict)
        if len(_checks) >= _MOST_CHECKS:
            _checks.clear()
        _checks[id(reads), strict] = (reads, check)
    return check


class _Object(list[tuple[str, object]]):
    """The members of an object in order, each as often as it stands."""


def _duplicates(value: object, reads: Reads | None) -> Iterator[str]:
    if reads is None:
        return
    if isinstance(value, _Object):
        seen: set[str] = set()
        for key, member in value:
            if key in seen and checks_key(reads, key):
                yield key
            seen.add(key)
            yield from _duplicates(member, member_reads(reads, key))
    elif isinstance(value, list):
        elements = item_reads(reads)
        if elements is not None:
            for element in value:
                yield from _duplicates(element, elements)


def _names(reads: Reads) -> frozenset[str] | None:
    """Every key that is read anywhere; None where that is any key."""
    if reads.whole:
        return None
    names = set(reads.keys)
    for child in (*reads.keys.values(), *(() if reads.items is None else (reads.items,))):
        found = _names(child)
        if found is None:
            return None
        names |= found
    return frozenset(names)


def _repeats_a_key(payload: bytes) -> bool:
    """Whether some key stands twice anywhere, or an escape makes that hard to see."""
    if b"\\" in payload:
        return True
    parts = payload.split(b'"')
    keys = [text for text, after in zip(parts[1::2], parts[2::2], strict=False) if after.lstrip()[:1] == b":"]
    return len(set(keys)) != len(keys)


def _read(text: bytes | msgspec.Raw, reads: Reads, path: str) -> JSON:
    """What `reads` names of a text whose syntax was checked."""
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
    return f"not JSON: {_lower(exc).removeprefix('JSON is malformed: ')}"


def _lower(exc: Exception) -> str:
    text = str(exc)
    return text if text.startswith("JSON") else text[:1].lower() + text[1:]


def encode(value: JSON, options: Options | None = None) -> bytes:  # noqa: ARG001
    """`value` as compact JSON; raises `RecordError` for NaN, infinities and half surrogates."""
    try:
        text = _encoder.encode(value)
        if b"null" in text:
            json.dumps(value, allow_nan=False)  # msgspec writes null for what JSON does not have
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise not_encodable("json", f"a JSON value ({exc})", value) from None
    return text


def encode_many(values: Sequence[JSON | msgspec.Struct]) -> list[bytes]:
    """`encode` of each value, sooner: a line feed never stands in JSON as msgspec writes it.

    An object may also be a struct of its members, which is sooner still.
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
    """Whether `value` is an object of scalars, without NaN and infinities."""
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


FORMAT = Format(
    name="json",
    description="JSON (RFC 8259) in UTF-8. Integers of any size stay exact.",
    decode=decode,
    encode=encode,
)
