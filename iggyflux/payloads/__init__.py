"""Payload formats: bytes to plain JSON values and back.

A new format is a file with a `FORMAT`, and a line here.  It gets the tests of tests/test_payloads.py: any bytes give a
value or a `DecodeError`, and no value is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from iggyflux.payloads import avro, cbor, csv_, influx, json_, logfmt, msgpack, protobuf, raw, text, xml_
from iggyflux.payloads.compression import compress, expand
from iggyflux.payloads.format import MAX_DEPTH, MAX_PAYLOAD_BYTES, Format, OptionError, Options, is_wide, text_encoding
from iggyflux.payloads.json_ import check_json_bytes
from iggyflux.records import JSON

FORMATS: dict[str, Format] = {
    "json": json_.FORMAT,
    "msgpack": msgpack.FORMAT,
    "cbor": cbor.FORMAT,
    "protobuf": protobuf.FORMAT,
    "csv": csv_.FORMAT,
    "text": text.FORMAT,
    "raw": raw.FORMAT,
    "influx": influx.FORMAT,
    "xml": xml_.FORMAT,
    "logfmt": logfmt.FORMAT,
    "avro": avro.FORMAT,
}


class Declared(Protocol):
    """What a document says of its payloads."""

    @property
    def format(self) -> str:
        """A name of `FORMATS`."""

    @property
    def options(self) -> Options:
        """The format's own."""

    @property
    def compression(self) -> str:
        """How payloads are compressed."""


def decode_payload(payload: bytes, declared: Declared) -> JSON:
    """Return the whole value of a payload.  Raise DecodeError."""
    return FORMATS[declared.format].decode(expand(payload, declared.compression), declared.options, None, False)


def undeclared_fields(payload: bytes, declared: Declared) -> Mapping[str, Collection[int]]:
    """Return the numbers of the fields of a payload that its schema does not declare, by the type that lacks them."""
    find = FORMATS[declared.format].undeclared_fields
    return {} if find is None else find(expand(payload, declared.compression), declared.options)


def encode_payload(value: JSON, declared: Declared) -> bytes:
    """Return the payload that `decode_payload` makes `value` of.  Raise RecordError if the format cannot hold it."""
    return compress(FORMATS[declared.format].encode(value, declared.options), declared.compression)


def is_text(declared: Declared) -> bool:
    """Whether payloads are text for people, of which the encoding can be changed to UTF-8."""
    return not FORMATS[declared.format].binary and declared.compression == "none" and not is_wide(declared.options)


__all__ = [
    "FORMATS",
    "MAX_DEPTH",
    "MAX_PAYLOAD_BYTES",
    "Declared",
    "Format",
    "OptionError",
    "Options",
    "check_json_bytes",
    "compress",
    "decode_payload",
    "encode_payload",
    "expand",
    "is_text",
    "is_wide",
    "text_encoding",
    "undeclared_fields",
]
