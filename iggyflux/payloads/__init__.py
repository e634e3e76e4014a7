"""Payload formats: bytes to plain JSON values and back.

A new format is a file with a `FORMAT`, and a line here.  It gets the tests of tests/test_payloads.py: any bytes give a
value or a `DecodeError`, and no value is changed.
"""

from __future__ import annotations

from iggyflux.payloads import cbor, csv_, influx, json_, msgpack, protobuf, raw, text
from iggyflux.payloads.format import MAX_DEPTH, MAX_PAYLOAD_BYTES, Format, OptionError, Options
from iggyflux.payloads.json_ import check_json_bytes

FORMATS: dict[str, Format] = {
    "json": json_.FORMAT,
    "msgpack": msgpack.FORMAT,
    "cbor": cbor.FORMAT,
    "protobuf": protobuf.FORMAT,
    "csv": csv_.FORMAT,
    "text": text.FORMAT,
    "raw": raw.FORMAT,
    "influx": influx.FORMAT,
}

__all__ = [
    "FORMATS",
    "MAX_DEPTH",
    "MAX_PAYLOAD_BYTES",
    "Format",
    "OptionError",
    "Options",
    "check_json_bytes",
]
