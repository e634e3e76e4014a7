"""raw: bytes of no known form, as a string of base64."""

from __future__ import annotations

import base64
import binascii

from iggyflux.payloads.format import Format, Options, check_size, not_encodable
from iggyflux.reads import Reads
from iggyflux.records import JSON


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:  # noqa: ARG001
    """The payload in base64 (RFC 4648, with padding)."""
    check_size(payload)
    return base64.b64encode(payload).decode("ascii")


def encode(value: JSON, options: Options | None = None) -> bytes:  # noqa: ARG001
    """The bytes that a string of base64 stands for."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            pass
    raise not_encodable("raw", "a string of base64", value)


FORMAT = Format(
    name="raw",
    description="Bytes of any form, as a string of base64.",
    decode=decode,
    encode=encode,
    binary=True,
)
