"""Hashes, and strings in base64 and hexadecimal digits; a string means its UTF-8 bytes."""

from __future__ import annotations

import zlib
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from typing import Any

from iggyflux.errors import closest
from iggyflux.functions.table import ConstantError, Function, Parameter, cannot, check_count
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
)
