"""Hashes, and strings in base64 and hexadecimal digits; a string means its UTF-8 bytes."""

from __future__ import annotations

import re
import struct
import zlib
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from typing import Any

from iggyflux.errors import closest, counted
from iggyflux.functions.table import ANY, ConstantError, Function, Parameter, cannot, check_count
from iggyflux.records import JSON

_TEXT = Parameter("text", ("string",))


def _hexdigest(name: str) -> Callable[[bytes], str]:
    import hashlib

    return lambda data: hashlib.new(name, data, usedforsecurity=False).hexdigest()


_ALGORITHMS: dict[str, Callable[[], Callable[[bytes], str]]] = {
    "sha256": lambda: _hexdigest("sha256"),
    "sha512": lambda: _hexdigest("sha512"),
    "sha1": lambda: _hexdigest("sha1"),
    "md5": lambda: _hexdigest("md5"),
    "crc32": lambda: lambda data: f"{zlib.crc32(data):08x}",
}


def _algorithm(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    name = constants.get("algorithm", "sha256")
    if name not in _ALGORITHMS:
        close = closest(name, list(_ALGORITHMS))
        hint = f"did you mean '{close}'?" if close else "known: " + ", ".join(_ALGORITHMS)
        raise ConstantError("algorithm", f"unknown value {name!r}", hint)
    return {"algorithm": _ALGORITHMS[name]()}


def _hash(text: str, algorithm: Callable[[bytes], str]) -> str:
    return algorithm(text.encode())


def _base64_bytes(name: str, text: str) -> bytes:
    try:
        return a2b_base64(text.encode("ascii"), strict_mode=True)
    except (Error, ValueError) as error:
        raise cannot(name, "the string is not base64") from error


def _hex_bytes(name: str, text: str) -> bytes:
    try:
        if " " in text:
            raise ValueError
        return bytes.fromhex(text)
    except ValueError as error:
        raise cannot(name, "the string does not consist of pairs of hexadecimal digits") from error


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise cannot(name, "the bytes are not UTF-8 (see bytes())") from error


_BYTES = {"base64": _base64_bytes, "hex": _hex_bytes}


def _encoding(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    name = constants.get("encoding", "base64")
    if name not in _BYTES:
        raise ConstantError("encoding", f"unknown value {name!r}", "known: " + ", ".join(_BYTES))
    return {"encoding": _BYTES[name]}


def _bytes(text: str, read: Callable[[str, str], bytes]) -> JSON:
    data = read("bytes", text)
    check_count("bytes", len(data))
    return list(data)


def _words(data: list[Any]) -> bytes:
    return struct.pack(f">{len(data)}H", *data)


_READERS: dict[str, tuple[type, Callable[[Any], bytes], str]] = {
    "base64": (str, lambda data: _base64_bytes("unpack", data), "a base64 string"),
    "hex": (str, lambda data: _hex_bytes("unpack", data), "a string of hexadecimal digits"),
    "bytes": (list, bytes, "an array of numbers from 0 to 255"),
    "registers": (list, _words, "an array of numbers from 0 to 65535"),
}
_FORMAT = re.compile(r"(?P<order>[<>]?)(?:[0-9]{0,4}[xbB?hHiIlLqQefds])+")
_OF_ONE_BYTE = frozenset("xbB?s0123456789")
_MOST_VALUES = 10_000


def _layout(constants: Mapping[str, Any], _: int) -> dict[str, Any]:
    text, encoding = constants["layout"], constants.get("encoding")
    found = _FORMAT.fullmatch(text)
    if found is None:
        hint = "> or <, and codes such as b B h H i I q Q e f d, with counts: '>hB2H'"
        raise ConstantError("layout", f"{text!r} is not a layout of Python's struct module", hint)
    if not found["order"] and not _OF_ONE_BYTE.issuperset(text):
        hint = f"'>{text}' for the high byte first (Modbus, LoRaWAN), '<{text}' for the low byte first"
        raise ConstantError("layout", f"{text!r} does not say which byte is first", hint)
    parsed = struct.Struct(text if found["order"] else f">{text}")
    if parsed.size > _MOST_VALUES:
        raise ConstantError("layout", f"{text!r} is of {parsed.size} bytes, more than {_MOST_VALUES}")
    if encoding is not None and encoding not in _READERS:
        raise ConstantError("encoding", f"unknown value {encoding!r}", "known: " + ", ".join(_READERS))
    return {"layout": parsed} | ({} if encoding is None else {"encoding": encoding})


def _unpack(data: Any, layout: struct.Struct, offset: Any = 0, encoding: str | None = None) -> JSON:
    if type(offset) is not int:
        raise cannot("unpack", "the offset is not an integer")
    kind, read, what = _READERS[encoding or ("base64" if type(data) is str else "bytes")]
    try:
        if type(data) is not kind or (type(data) is list and any(type(each) is not int for each in data)):
            raise ValueError
        found = read(data)
    except (ValueError, TypeError, struct.error):
        raise cannot("unpack", f"the value is not {what}") from None
    start = offset + len(found) if offset < 0 else offset
    if not 0 <= start <= len(found) - layout.size:
        needed, given = counted(layout.size, "byte"), counted(len(found), "byte")
        raise cannot("unpack", f"the layout needs {needed} at offset {offset}, the value has {given}")
    values = [_value(each) for each in layout.unpack_from(found, start)]
    return values[0] if len(values) == 1 else values


def _value(unpacked: Any) -> JSON:
    if type(unpacked) is bytes:
        return _decoded("unpack", unpacked.rstrip(b"\0"))
    if unpacked - unpacked != 0:
        raise cannot("unpack", f"the number is {unpacked!r}", "null instead: on_bad_value: omit, of the field")
    return unpacked  # type: ignore[no-any-return]


ENCODINGS: tuple[Function, ...] = (
    Function(
        "hash",
        "encoding",
        f"The hash of a string in hexadecimal digits: {', '.join(_ALGORITHMS)} (default sha256).",
        (_TEXT, Parameter("algorithm", ("string",), optional=True, constant=True)),
        ("string",),
        _hash,
        (
            ("hash(a, 'crc32')", '{"a": "x"}', '"8cdc1683"'),
            ("hash(a)", '{"a": "x"}', '"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"'),
        ),
        prepare=_algorithm,
    ),
    Function(
        "base64_encode",
        "encoding",
        "The string encoded in base64.",
        (_TEXT,),
        ("string",),
        lambda text: b2a_base64(text.encode(), newline=False).decode("ascii"),
        (("base64_encode(a)", '{"a": "hé"}', '"aMOp"'),),
    ),
    Function(
        "base64_decode",
        "encoding",
        "The string decoded from base64.",
        (_TEXT,),
        ("string",),
        lambda text: _decoded("base64_decode", _base64_bytes("base64_decode", text)),
        (("base64_decode(a)", '{"a": "aMOp"}', '"hé"'), ("base64_decode(a)", '{"a": "a"}', "IFX304")),
    ),
    Function(
        "hex_encode",
        "encoding",
        "The string encoded in hexadecimal digits.",
        (_TEXT,),
        ("string",),
        lambda text: text.encode().hex(),
        (("hex_encode(a)", '{"a": "hé"}', '"68c3a9"'),),
    ),
    Function(
        "hex_decode",
        "encoding",
        "The string decoded from hexadecimal digits.",
        (_TEXT,),
        ("string",),
        lambda text: _decoded("hex_decode", _hex_bytes("hex_decode", text)),
        (("hex_decode(a)", '{"a": "68c3a9"}', '"hé"'), ("hex_decode(a)", '{"a": "6"}', "IFX304")),
    ),
    Function(
        "bytes",
        "encoding",
        "The bytes of a base64 (or hex) string, as numbers from 0 to 255.",
        (_TEXT, Parameter("encoding", ("string",), "base64 or hex", optional=True, constant=True)),
        ("array",),
        _bytes,
        (("bytes(a)", '{"a": "Af8="}', "[1, 255]"), ("bytes(a, 'hex')", '{"a": "01ff"}', "[1, 255]")),
        prepare=_encoding,
    ),
    Function(
        "unpack",
        "encoding",
        "The numbers at `offset` (default 0; from the end if negative) of bytes, by a layout of Python's "
        "[struct](https://docs.python.org/3/library/struct.html#format-characters): `>` or `<` for the high or the low "
        "byte first, and codes with counts. One number, or a list of several; `s` is text in UTF-8 without zero bytes "
        "at its end.",
        (
            Parameter("data", ("string", "array")),
            Parameter("layout", ("string",), "such as `>hB`", constant=True),
            Parameter("offset", ("number",), optional=True),
            Parameter(
                "encoding",
                ("string",),
                "base64 (the default for a string), hex, bytes (the default for an array) or registers, which are "
                "numbers of 16 bits",
                optional=True,
                constant=True,
            ),
        ),
        ANY,
        _unpack,
        (
            ("unpack(a, '>hB')", '{"a": "/zhk"}', "[-200, 100]"),
            ("unpack(a, '<f', `1`, 'hex')", '{"a": "010000ac41"}', "21.5"),
            ("unpack([a[1], a[0]], '>f', `0`, 'registers')", '{"a": [0, 16812]}', "21.5"),
            ("unpack(a, '>H')", '{"a": "AQ=="}', "IFX304"),
        ),
        prepare=_layout,
    ),
)
