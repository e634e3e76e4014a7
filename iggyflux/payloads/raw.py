"""raw: bytes of any form, as a base64 string."""

from __future__ import annotations

import base64
import binascii

from iggyflux.payloads.format import Format, Options, check_size, not_encodable
from iggyflux.reads import Reads
from iggyflux.records import JSON


def decode(payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False) -> JSON:  # noqa: ARG001
    """Return the payload in base64 (RFC 4648, with padding)."""
    check_size(payload)
    return base64.b64encode(payload).decode("ascii")


def encode(value: JSON, options: Options | None = None) -> bytes:  # noqa: ARG001
    """Return the bytes of a base64 string."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            pass
    raise not_encodable("raw", "a string of base64", value)


FORMAT = Format(decode, encode, binary=True)
