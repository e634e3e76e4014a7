"""Two requests of Iggy's binary protocol that the SDK has no call for: ask and store the offset of a consumer.

The bytes are those of protocol 0.11, which the SDK 0.9 and servers 0.9 speak, and the SDK checks at log-in that the
server speaks it.  With any other SDK they are not used: there are slower ways with public calls.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

SDK_VERSIONS = ("0.9.",)
GET_OFFSET = 120
STORE_OFFSET = 121
_KINDS = {"single": 1, "group": 2}
_CONFIRMED = 1  # the answer comes when the offset is replicated
_ANSWER = struct.Struct("<IQQ")


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """What the server knows of a consumer in a partition: the last offset of the partition, and the stored one."""

    last: int
    stored: int


def is_known(sdk_version: str) -> bool:
    """Whether this version of the SDK speaks the protocol that is written down here."""
    return sdk_version.startswith(SDK_VERSIONS)


def offset_request(kind: Literal["single", "group"], name: str, stream: str, topic: str, partition: int) -> bytes:
    """The body of `GET_OFFSET`."""
    consumer = bytes([_KINDS[kind]]) + _named(name)
    return consumer + _named(stream) + _named(topic) + b"\x01" + struct.pack("<I", partition)


def store_request(name: str, stream: str, topic: str, partition: int, offset: int) -> bytes:
    """The body of `STORE_OFFSET` for a consumer that stands alone."""
    return offset_request("single", name, stream, topic, partition) + struct.pack("<QB", offset, _CONFIRMED)


def parse_offset(answer: bytes, partition: int) -> StoredOffset | None:
    """The answer to `GET_OFFSET`; None where nothing is stored.  Raises `ValueError` where it is not understood."""
    if not answer:
        return None
    if len(answer) != _ANSWER.size:
        raise ValueError(f"an answer of {len(answer)} bytes")
    number, last, stored = _ANSWER.unpack(answer)
    if number != partition:
        raise ValueError(f"an answer for partition {number}")
    return StoredOffset(last, stored)


def _named(name: str) -> bytes:
    data = name.encode("utf-8")
    return bytes([2, len(data)]) + data
