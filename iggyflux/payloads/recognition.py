"""What a payload looks like that is not in its declared format: compressed, in another encoding, in another format.

Only for reasons of failures: nothing is decoded by it.  It takes linear time and opens nothing that
is compressed.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from iggyflux.errors import DecodeError, LineProtocolError
from iggyflux.lineprotocol import parse_line
from iggyflux.payloads import cbor, json_, msgpack
from iggyflux.payloads.avro.container import is_container
from iggyflux.payloads.compression import recognized
from iggyflux.payloads.format import MALFORMED, NOT_UTF8, NOTHING_KNOWN, ONE_BYTE, Options, single_byte_encoding
from iggyflux.payloads.places import with_place
from iggyflux.reads import Reads
from iggyflux.records import JSON

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "a zip archive",
}
_UTF_32 = re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|[ -~]\0\0\0|\0\0\0[ -~]")
_UTF_16 = re.compile(rb"\xff\xfe|\xfe\xff|(?:[ -~]\0){2}|(?:\0[ -~]){2}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{8,}+={0,2}\s*")
_NOT_A_NUMBER = re.compile(rb"[:,\[]\s*+([-+]?(?:NaN|nan|Infinity|Inf|inf))\b")
_WORDS_OF_PYTHON = (b"NaN", b"Infinity", b"-Infinity")
"""What encoders write that follow Python or JavaScript; `on_bad_value: omit` takes these."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_PYTHON = re.compile(rb"\s*+[\[{]\s*+(?:\{\s*+)?'")
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*+<[!?A-Za-z]")
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*+[\[{]")
_MSGPACK = re.compile(rb"[\x80-\x9f\xdc-\xdf]")
_CBOR = re.compile(rb"[\x80-\xbf]|\xd9\xd9\xf7")
_OF_TREES = ("msgpack", "cbor", "protobuf", "avro")
"""Formats in bytes, for which the examples of a mapping have JSON."""
_MARK = b"\xef\xbb\xbf"
_MOST_BYTES = 1_000_000
"""The largest payload that is tried in other formats."""

Look: TypeAlias = tuple[str, str | None]
"""What to add to the reason, and the hint."""


def explained(error: DecodeError, payload: bytes, declared: str) -> DecodeError:
    """Return the failure to decode `payload` in the format `declared`, with what the payload looks like, or where."""
    if error.code not in (MALFORMED, NOT_UTF8, NOTHING_KNOWN) or (error.code == NOT_UTF8 and error.hint):
        return with_place(error)  # with a hint it is about the encoding that is declared
    found = next(_looks(payload, declared), None)
    if found is None and error.code == NOT_UTF8:
        found = _looks_of_one_byte_a_character(payload, declared)
    if found is None:
        return with_place(error)
    what, hint = found
    return DecodeError(error.code, f"{error.reason}; {what}", error.location, hint, payload_line=error.payload_line)


def _looks(payload: bytes, declared: str) -> Iterator[Look]:
    """Yield what the payload looks like, the most certain first."""
    if compression := _compression(payload):
        is_known = recognized(payload) != "none"
        hint = f"set `compression: {compression}`" if is_known else "let the producer send it uncompressed"
        yield f"it looks like {compression}", hint
    for encoding, pattern in (("UTF-32", _UTF_32), ("UTF-16", _UTF_16)):
        if pattern.match(payload) and (encoding, declared) != ("UTF-16", "xml"):  # XML is read in it
            yield (
                f"it looks like {encoding}",
                _encoding_hint(declared, _utf_16(payload)) if encoding == "UTF-16" else _UTF_8,
            )
    if payload[:1] == b"\0" and _JSON.match(payload, 5):
        yield "it looks like JSON after the 5 bytes of a schema registry", "let the producer send plain JSON"
    if is_container(payload) and declared != "avro":
        yield "it looks like an Avro container", "declare `payload: avro`, and `for_each: '@'`"
    if payload[:2] == b"\xc3\x01" and declared != "avro":
        yield "it looks like a single object of Avro", "declare `payload: {format: avro, encoding: single_object, …}`"
    if len(payload) > _MOST_BYTES:
        return
    if _BASE64.fullmatch(payload):
        yield from _looks_of_base64(payload, declared)
    if declared == "json":
        yield from _looks_of_broken_json(payload)
    if declared != "xml" and _XML.match(payload):
        yield "it looks like XML", "declare `payload: xml`"
    for name, (words, is_it) in _FORMATS.items():
        if name != declared and is_it(payload):
            is_tree = name == "json" and declared in _OF_TREES
            instead = "; to try a JSON tree, make it the `message` of an example" if is_tree else ""
            yield f"it looks like {words}", f"declare `payload: {name}`{instead}"


_UTF_8 = "let the producer send UTF-8"
WITH_ENCODING = ("csv", "text", "logfmt")
"""The formats that have the option `encoding`."""


def _utf_16(payload: bytes) -> str:
    """Return which of the encodings of UTF-16 a payload looks like that matches `_UTF_16`."""
    if payload[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return "utf-16le" if payload[1:2] == b"\0" else "utf-16be"


def _encoding_hint(declared: str, encoding: str, otherwise: str = _UTF_8) -> str:
    """Return the hint to declare an encoding, where the format has one."""
    if declared not in WITH_ENCODING:
        return otherwise
    return f"set `encoding: {encoding}` in `payload`"


def _looks_of_one_byte_a_character(payload: bytes, declared: str) -> Look | None:
    """Return the encoding of text that is not UTF-8; None if it is too large to look at, or not text."""
    if len(payload) > _MOST_BYTES:
        return None
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        found = single_byte_encoding(payload, error.start)
        if found is not None:
            encoding, character = found
            hint = _encoding_hint(declared, ONE_BYTE, f"{_UTF_8}; iconv converts a file")
            return f"in {encoding} it is {character}", hint
    return None


def _compression(payload: bytes) -> str | None:
    return next((name for magic, name in _COMPRESSED.items() if payload.startswith(magic)), None)


def _looks_of_base64(payload: bytes, declared: str) -> Iterator[Look]:
    text = payload.strip().translate(bytes.maketrans(b"-_", b"+/"))
    try:
        inner = b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        return
    if _is_json(inner):
        hint = "declare `payload: text`, and read members of parse_json(base64_decode(@))"
        yield "it looks like base64 of JSON", hint if declared == "json" else None
    elif compression := _compression(inner):
        yield f"it looks like base64 of {compression}", "let the producer send it uncompressed"


def _looks_of_broken_json(payload: bytes) -> Iterator[Look]:
    if payload.startswith(_MARK):
        if _is_json(payload.removeprefix(_MARK)):
            yield "the rest is JSON", "let the producer send UTF-8 without the mark"
        return
    words = _NOT_A_NUMBER.findall(_STRING.sub(b'""', payload)) if _JSON.match(payload) else []
    if words:
        word = next((each for each in words if each not in _WORDS_OF_PYTHON), words[0])
        if word not in _WORDS_OF_PYTHON:
            yield f"JSON has no {word.decode()}", "let the producer send null"
        elif _decodes(partial(json_.decode, non_finite=True), payload):
            yield f"JSON has no {word.decode()}", "let the producer send null, or set `on_bad_value: omit`"
        else:  # `on_bad_value` may be set
            yield (
                f"JSON has no {word.decode()}, and that is not all that is wrong with it",
                "let the producer send null",
            )
    if _PYTHON.match(payload):
        yield "JSON has strings in double quotes only", "let the producer send JSON, not the text of a Python object"
    lines = payload.splitlines()
    if len(lines) > 1 and all(not line.strip() or _is_json(line) for line in lines):
        yield "it looks like several JSON documents, one on each line", "let the producer send a message for each"


def _is_json(payload: bytes) -> bool:
    return _JSON.match(payload) is not None and _decodes(json_.decode, payload)


def _is_msgpack(payload: bytes) -> bool:
    return _MSGPACK.match(payload) is not None and _decodes(msgpack.decode, payload)


def _is_cbor(payload: bytes) -> bool:
    return _CBOR.match(payload) is not None and _decodes(cbor.decode, payload)


def _decodes(decode: Callable[[bytes, Options, Reads | None, bool], JSON], payload: bytes) -> bool:
    try:
        decode(payload, {}, Reads.BARE, False)
    except DecodeError:
        return False
    return True


def _is_line_protocol(payload: bytes) -> bool:
    try:
        parse_line(payload.lstrip(b"\r\n").partition(b"\n")[0].rstrip(b"\r").decode())
    except (LineProtocolError, UnicodeDecodeError):
        return False
    return True


def _is_csv(payload: bytes) -> bool:
    commas = {line.count(b",") for line in payload.splitlines()}
    return len(commas) == 1 and commas != {0} and payload.strip().count(b"\n") > 0


_FORMATS: dict[str, tuple[str, Callable[[bytes], bool]]] = {
    "json": ("JSON", _is_json),
    "msgpack": ("MessagePack", _is_msgpack),
    "cbor": ("CBOR", _is_cbor),
    "influx": ("line protocol", _is_line_protocol),
    "csv": ("CSV", _is_csv),
}
"""The formats that can be recognized: their names in texts, and the test."""
