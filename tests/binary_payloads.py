"""MessagePack and CBOR as another producer may write it, and the result by the rules, without code of iggyflux.

The writers draw an encoding for every value: sizes wider than needed, indefinite lengths, integers for keys that are
decimal text, types that JSON does not have.  `TREES` reads byte by byte, without the libraries that the product uses.
`evaluate` gives the plain value that the rules 26 and 27 of docs/language.md require for such a tree.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import cbor2

from iggyflux.payloads import MAX_DEPTH
from iggyflux.reads import Reads


class Pairs(list[tuple[Any, Any]]):
    """The members of an object in their order, duplicate keys included."""


@dataclass(frozen=True, eq=False)
class Tag:
    """A tag of CBOR."""

    number: int
    content: Any


@dataclass(frozen=True)
class Extension:
    """An extension type of MessagePack."""

    code: int
    data: bytes


@dataclass(frozen=True)
class Simple:
    """A simple value of CBOR without a meaning in JSON."""

    number: int


MSGPACK_ODDITIES = """
    d6ff00000001 d7ff0000000400000001 c70cff3b9ac9ff0000000000000001 c70cff3b9aca000000000000000001
    c70cff000000007fffffffffffffff d5ff0001 d60000000001 c70305010203 c70001 c403000102 c400 cb7ff8000000000000
    caff800000 a2ffff a3eda080 81c001 81900101 81c4016101 81ca3f80000001 8201a161a131a162 8301a161a131a16201a163
    820101c302 82c3010102 82a17a01a17a02 81d6ff0000000101 8180c0 8182a16101a1610201 8192d6ff000000010101
""".split()  # noqa: SIM905  (a list of them would be a line each)
CBOR_ODDITIES = """
    c074323031332d30332d32315432303a30343a30305a c001 c11a514b67b0 c1fb41d452d9ec200000 c1f97e00 c1f5 c1c101
    c48221196ab3 c482200a c4821a7fffffff01 c48101 c6a2617a01617a02
    c482f501 c4c48221196ab3 d903e9a20101220c d903e9a2012028190fff
    d903e9a10120 d903e9a0 d903e9a201012b01 d903e9a1011b7fffffffffffffff c249010000000000000000 c34101 c6f5
    d81c81d81d00 d9d9f701 d90100820101 f7 e0 f3 f820 f8ff f93e00 f97c00 fa7fc00000 fb7ff0000000000000
    7f61616162ff 5f41004101ff 62ffff 7f61c361a9ff 63eda080 a1f601 a1416101 a1f93c0001 a1c10101 a20101613102
    a301016131020103 a20101f502 a2617a01617a02 a1810101 a182f7c60101 a1a0f6 a1a261610161610201 a10102 1bffffffffffffffff
    3bffffffffffffffff
""".split()  # noqa: SIM905  (a list of them would be a line each)


def from_json(text: str) -> Any:
    """Return the tree of a JSON text, duplicate keys, NaN and unpaired surrogates included, or the text itself."""
    try:
        return json.loads(text, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return text


# --- writers ---


def write_msgpack(value: Any, spell: Random) -> bytes:
    """Return `value` as MessagePack."""
    if spell.random() < 0.05 and not isinstance(value, Pairs):
        return bytes.fromhex(spell.choice(MSGPACK_ODDITIES))
    match value:
        case None | bool():
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case int():
            return _msgpack_integer(value, spell)
        case float():
            single = struct.pack(">f", value) if abs(value) < 1e38 else b""
            exact = single and struct.unpack(">f", single)[0] == value
            return b"\xca" + single if exact and spell.random() < 0.5 else b"\xcb" + struct.pack(">d", value)
        case str():
            text = value.encode("utf-8", "surrogatepass")
            return _msgpack_head(len(text), 0xA0, 32, {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}, spell) + text
        case bytes():
            return _msgpack_head(len(value), 0, 0, {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}, spell) + value
        case Pairs():
            head = _msgpack_head(len(value), 0x80, 16, {0xDE: ">H", 0xDF: ">I"}, spell)
            return head + b"".join(write_msgpack(part, spell) for part in _spelled(value, spell))
        case list():
            head = _msgpack_head(len(value), 0x90, 16, {0xDC: ">H", 0xDD: ">I"}, spell)
            return head + b"".join(write_msgpack(element, spell) for element in value)
    raise TypeError(type(value))


def _msgpack_integer(value: int, spell: Random) -> bytes:
    forms = [bytes([value & 0xFF])] if -32 <= value < 128 else []
    codes = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    for code, form in codes.items():
        try:
            forms.append(bytes([code]) + struct.pack(form, value))
        except struct.error:
            continue
    return spell.choice(forms) if forms else b"\xcb" + struct.pack(">d", _as_float(value))


def _msgpack_head(count: int, base: int, below: int, codes: dict[int, str], spell: Random) -> bytes:
    forms = [bytes([base + count])] if count < below else []
    forms.extend(
        bytes([code]) + struct.pack(f, count) for code, f in codes.items() if count < 256 ** struct.calcsize(f)
    )
    return forms[0] if spell.random() < 0.7 else spell.choice(forms)


def write_cbor(value: Any, spell: Random) -> bytes:
    """Return `value` as CBOR."""
    if spell.random() < 0.05 and not isinstance(value, Pairs):
        return bytes.fromhex(spell.choice(CBOR_ODDITIES))
    match value:
        case None | bool():
            return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
        case int():
            if -(2**64) <= value < 2**64:
                return _cbor_head(0, value, spell) if value >= 0 else _cbor_head(1, -1 - value, spell)
            return cbor2.dumps(value)
        case float():
            return cbor2.dumps(value, canonical=spell.random() < 0.5)
        case str() | bytes():
            text = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
            return _cbor_text(2 if isinstance(value, bytes) else 3, text, spell)
        case Pairs():
            parts = [write_cbor(part, spell) for part in _spelled(value, spell)]
            return _cbor_list(5, len(value), parts, spell)
        case list():
            return _cbor_list(4, len(value), [write_cbor(element, spell) for element in value], spell)
        case Tag():
            return _cbor_head(6, value.number, spell) + write_cbor(value.content, spell)
    raise TypeError(type(value))


def _cbor_head(major: int, argument: int, spell: Random) -> bytes:
    forms = [bytes([major << 5 | argument])] if argument < 24 else []
    for minor, form in ((24, ">B"), (25, ">H"), (26, ">I"), (27, ">Q")):
        if argument < 256 ** struct.calcsize(form):
            forms.append(bytes([major << 5 | minor]) + struct.pack(form, argument))
    return forms[0] if spell.random() < 0.7 else spell.choice(forms)


def _cbor_text(major: int, text: bytes, spell: Random) -> bytes:
    if spell.random() < 0.9:
        return _cbor_head(major, len(text), spell) + text
    place = spell.randint(0, len(text))
    chunks = (_cbor_head(major, len(part), spell) + part for part in (text[:place], text[place:]))
    return bytes([major << 5 | 31]) + b"".join(chunks) + b"\xff"


def _cbor_list(major: int, count: int, parts: list[bytes], spell: Random) -> bytes:
    if spell.random() < 0.2:
        return bytes([major << 5 | 31]) + b"".join(parts) + b"\xff"
    return _cbor_head(major, count, spell) + b"".join(parts)


def _spelled(pairs: Pairs, spell: Random) -> Iterator[Any]:
    """Return keys and values, with keys of decimal text sometimes as the integer."""
    for key, value in pairs:
        is_decimal = isinstance(key, str) and key.removeprefix("-").isdecimal() and key == str(int(key))
        yield int(key) if is_decimal and spell.random() < 0.6 else key
        yield value


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


WRITERS = {"msgpack": write_msgpack, "cbor": write_cbor}

# --- trees ---


class Malformed(ValueError):
    """Bytes that are not of the format."""


class Source:
    """Bytes, read from the front, with the depth of the reading."""

    def __init__(self, payload: bytes, *, ignores_empty: bool = False) -> None:
        self.payload = payload
        self.depth = 0
        self.ignores_empty = ignores_empty

    def take(self, count: int) -> bytes:
        if count > len(self.payload):
            raise Malformed
        taken, self.payload = self.payload[:count], self.payload[count:]
        return taken

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "big", signed=signed)

    def inner(self, read: Callable[[], Any]) -> Any:
        self.depth += 1
        value = read() if self.depth <= MAX_DEPTH + 1 else None
        # cbor2 does not count the depth of empty values.
        if self.depth > MAX_DEPTH and (value or not self.ignores_empty):
            raise Malformed
        self.depth -= 1
        return value

    def whole(self, read: Callable[[Source], Any]) -> Any:
        value = read(self)
        if self.payload:
            raise Malformed
        return value


def msgpack_tree(payload: bytes) -> Any:
    """Return the tree of a MessagePack payload; raise `ValueError`."""
    return Source(payload).whole(_msgpack)


def _msgpack(source: Source) -> Any:
    first = source.number(1)
    if first < 0x80 or first >= 0xE0:
        return first if first < 0x80 else first - 256
    for start, end, read in ((0x80, 0x90, _msgpack_map), (0x90, 0xA0, _msgpack_list), (0xA0, 0xC0, _text)):
        if start <= first < end:
            return read(source, first - start)
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first]
    if 0xCC <= first <= 0xD3:
        return source.number(1 << (first - 0xCC) % 4, signed=first >= 0xD0)
    if first in (0xCA, 0xCB):
        return struct.unpack(">f" if first == 0xCA else ">d", source.take(4 if first == 0xCA else 8))[0]
    if 0xD4 <= first <= 0xD8:
        return Extension(source.number(1), source.take(1 << first - 0xD4))
    for start, end, read in ((0xC4, 0xC7, Source.take), (0xC7, 0xCA, _extension), (0xD9, 0xDC, _text)):
        if start <= first < end:
            return read(source, source.number(1 << first - start))
    for start, read in ((0xDC, _msgpack_list), (0xDE, _msgpack_map)):
        if start <= first < start + 2:
            return read(source, source.number(2 << first - start))
    raise Malformed


def _msgpack_list(source: Source, count: int) -> list[Any]:
    return source.inner(lambda: [_msgpack(source) for _ in range(count)])


def _msgpack_map(source: Source, count: int) -> Pairs:
    return source.inner(lambda: Pairs((_msgpack(source), _msgpack(source)) for _ in range(count)))


def _extension(source: Source, count: int) -> Extension:
    return Extension(source.number(1), source.take(count))


def _text(source: Source, count: int) -> str:
    return source.take(count).decode()


def cbor_tree(payload: bytes) -> Any:
    """Return the tree of a CBOR payload; raise `ValueError`."""
    return Source(payload.removeprefix(b"\xd9\xd9\xf7"), ignores_empty=True).whole(_cbor)


_BREAK = object()


def _cbor(source: Source, breaks: bool = False) -> Any:
    first = source.number(1)
    major, minor = first >> 5, first & 31
    if breaks and first == 0xFF:
        return _BREAK
    is_indefinite = minor == 31 and 2 <= major <= 5
    if minor >= 28 and not is_indefinite:
        raise Malformed
    data = source.take(1 << minor - 24) if 24 <= minor < 28 else bytes([minor])
    count = int.from_bytes(data, "big")
    if major in (2, 3):
        chunks = _chunks(source, major) if is_indefinite else [source.take(count)]
        return b"".join(chunks) if major == 2 else "".join(chunk.decode() for chunk in chunks)
    if major in (4, 5):
        length = None if is_indefinite else count
        return source.inner(lambda: _cbor_pairs(source, length) if major == 5 else _cbor_items(source, length))
    if major == 6:
        return Tag(count, source.inner(lambda: _cbor(source)))
    if major < 2:
        return count if major == 0 else -1 - count
    if 20 <= minor <= 22:
        return {20: False, 21: True, 22: None}[minor]
    if 25 <= minor <= 27:
        return struct.unpack({25: ">e", 26: ">f", 27: ">d"}[minor], data)[0]
    if minor == 24 and count < 32:
        raise Malformed
    return Simple(count)


def _chunks(source: Source, major: int) -> list[bytes]:
    chunks = []
    while source.payload[:1] != b"\xff":
        if not source.payload or source.payload[0] >> 5 != major or source.payload[0] & 31 == 31:
            raise Malformed
        chunk = _cbor(source)
        chunks.append(chunk.encode() if isinstance(chunk, str) else chunk)
    source.take(1)
    return chunks


def _cbor_items(source: Source, count: int | None) -> list[Any]:
    if count is not None:
        return [_cbor(source) for _ in range(count)]
    return list(iter(lambda: _cbor(source, breaks=True), _BREAK))


def _cbor_pairs(source: Source, count: int | None) -> Pairs:
    if count is not None:
        return Pairs((_cbor(source), _cbor(source)) for _ in range(count))
    return Pairs((key, _cbor(source)) for key in iter(lambda: _cbor(source, breaks=True), _BREAK))


TREES = {"msgpack": msgpack_tree, "cbor": cbor_tree}

# --- rules ---


class Refused(ValueError):
    """The rules reject the tree."""


def evaluate(tree: Any, reads: Reads, strict: bool) -> Any:
    """Return the plain value of `tree` as far as `reads` names it; raise `Refused`."""
    if strict and _repeats_a_key(tree):
        raise Refused("a duplicate key")
    return _plain(tree, reads)


def _plain(tree: Any, reads: Reads) -> Any:
    match tree:
        case None | bool() | int() | str():
            return tree
        case float():
            if tree - tree != 0:
                raise Refused("no number of JSON")
            return tree
        case bytes():
            return base64.b64encode(tree).decode()
        case Extension():
            return _timestamp(tree)
        case Tag():
            return _tagged(tree, lambda: _plain(tree.content, Reads.WHOLE))
        case Pairs():
            if {type(key) for key, _ in tree} - {int, str}:
                raise Refused("a key of another type")
            # Of duplicate keys the last wins: a replaced value is not read.
            last = {str(key): value for key, value in tree}
            read = last if reads.whole else [key for key in last if key in reads.keys]
            return {key: _plain(last[key], reads if reads.whole else reads.keys[key]) for key in read}
        case list():
            inner = reads if reads.whole else reads.items
            return [] if inner is None else [_plain(element, inner) for element in tree]
    raise Refused(f"a {type(tree).__name__}")


def _repeats_a_key(tree: Any) -> bool:
    if isinstance(tree, Pairs):
        keys = [str(key) for key, _ in tree if type(key) in (int, str)]
        return len(set(keys)) < len(keys) or any(_repeats_a_key(part) for pair in tree for part in pair)
    if isinstance(tree, list):
        return any(map(_repeats_a_key, tree))
    return isinstance(tree, Tag) and _repeats_a_key(tree.content)


def _timestamp(extension: Extension) -> str:
    data = extension.data
    if extension.code == 255 and len(data) in (4, 8, 12):
        if len(data) == 4:
            return _time(int.from_bytes(data, "big"), 0)
        if len(data) == 8:
            return _time(int.from_bytes(data, "big") % 2**34, int.from_bytes(data, "big") // 2**34)
        return _time(int.from_bytes(data[4:], "big", signed=True), int.from_bytes(data[:4], "big"))
    raise Refused("an extension type")


def _tagged(tag: Tag, read: Callable[[], Any]) -> Any:
    if tag.number == 0 and isinstance(tag.content, str):
        return tag.content
    if tag.number == 1 and type(tag.content) in (int, float):
        return read()
    content = read()
    if tag.number == 4 and isinstance(tag.content, list) and [type(part) for part in content] == [int, int]:
        if abs(content[0]) > 1000:
            raise Refused("an exponent out of range")
        return format(Decimal(content[1]).scaleb(content[0]), "f")
    if tag.number == 1001 and isinstance(tag.content, Pairs) and type(content.get("1")) is int:
        rest = {key: value for key, value in content.items() if key != "1"}
        scale = {"-3": 10**6, "-6": 10**3, "-9": 1}.get(next(iter(rest), "-9"))
        if len(rest) <= 1 and scale is not None and all(type(value) is int for value in rest.values()):
            return _time(content["1"], scale * next(iter(rest.values()), 0))
    raise Refused(f"the tag {tag.number}")


def _time(seconds: int, nanoseconds: int) -> str:
    try:
        second = datetime(1970, 1, 1) + timedelta(seconds=seconds)  # noqa: DTZ001
    except OverflowError:
        raise Refused("a time out of range") from None
    if not 0 <= nanoseconds < 10**9:
        raise Refused("too many nanoseconds")
    return f"{second.isoformat()}.{nanoseconds:09}Z"


def lines_run(function: Any) -> int:
    """Return how many lines of Python a call runs."""
    number = 0

    def count(_frame: Any, _event: str, _argument: Any) -> Any:
        nonlocal number
        number += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        function()
    finally:
        sys.settrace(before)
    return number
