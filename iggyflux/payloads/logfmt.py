"""logfmt: one line of `key=value`, as an object of strings; a key alone is true.

There is no grammar that all programs keep: a value is what is between quotes, with the escapes of JSON, or what comes
before the next blank.
"""

from __future__ import annotations

import json
import re
from typing import Final

from iggyflux.errors import DecodeError
from iggyflux.lineprotocol.checks import shorten
from iggyflux.payloads.format import MALFORMED, Format, Options, decode_text, duplicate_key, encode_text, not_encodable
from iggyflux.reads import Reads
from iggyflux.records import JSON

_PAIR: Final = re.compile(r'([^\s="]++)(?:=(?:("(?:[^"\\]++|\\.)*+")|([^\s"]*+)))?(?=\s|\Z)')
_BLANKS: Final = re.compile(r"[^\S\r\n]*+")
_BARE: Final = re.compile(r'[^\s"\x00-\x1f\x7f]++')


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:  # noqa: ARG001
    """Return an object of the pairs; of a key that is there twice the last one wins."""
    text = decode_text(payload, options).removesuffix("\n").removesuffix("\r")
    found: dict[str, JSON] = {}
    position = _end_of_blanks(text, 0)
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise DecodeError(MALFORMED, f"not logfmt: {_fault(text, position)}")
        key, quoted, bare = pair.groups()
        if strict and key in found:
            raise duplicate_key(key)
        found[key] = _unquoted(quoted) if quoted is not None else True if bare is None else bare
        position = _end_of_blanks(text, pair.end())
    if not found:
        raise DecodeError(MALFORMED, "not logfmt: the payload is empty")
    return found


def encode(value: JSON, options: Options | None = None) -> bytes:
    """Return an object of scalars as a line; null is omitted, true is its key alone."""
    if not isinstance(value, dict) or all(each is None for each in value.values()):
        raise not_encodable("logfmt", "an object with a value", value)
    pairs = []
    for key, each in value.items():
        if not _BARE.fullmatch(key) or "=" in key:
            raise not_encodable("logfmt", "keys without blanks, quotes and equals signs", key)
        if isinstance(each, dict | list):
            raise not_encodable("logfmt", f"scalars as values ({shorten(key)})", each)
        if each is not None:
            pairs.append(key if each is True else f"{key}={_value(each)}")
    return encode_text(" ".join(pairs), "logfmt", options or {})


def _value(value: str | float | bool) -> str:
    if not isinstance(value, str):
        return "false" if value is False else repr(value)
    return value if not value or _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def _unquoted(text: str) -> str:
    try:
        plain: str = json.loads(text, strict=False)
        plain.encode()
    except ValueError:
        raise DecodeError(MALFORMED, f"not logfmt: invalid escape in {shorten(text)}") from None
    return plain


def _end_of_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def _fault(text: str, position: int) -> str:
    if text[position] in "\r\n":
        return "the payload has several lines"
    return f"a misplaced or unclosed quote, or a value without a key, at {shorten(text[position : position + 100])}"


FORMAT = Format(decode, encode)
