"""Requests of Iggy's binary protocol that the SDK has no call for: ask and store the offset of a consumer, ask which
partitions of a group are ours, and which clients are connected.

The bytes are those of protocol 0.11, which the SDK 0.9 and servers 0.9 speak, and the SDK checks at log-in that the
server speaks it.  With any other SDK they are not used: there are slower ways with public calls.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

SDK_VERSIONS = ("0.9.",)
GET_CLIENT = 21
GET_CLIENTS = 22
GET_OFFSET = 120
STORE_OFFSET = 121
SYNC_GROUP = 606
_KINDS = {"single": 1, "group": 2}
_CONFIRMED = 1  # the answer comes when the offset is replicated
_ANSWER = struct.Struct("<IQQ")
_ASSIGNMENT = struct.Struct("<QI")  # the group's generation, how many partitions
_CLIENT = struct.Struct("<IIBI")  # client, user, transport, length of the address
_COUNT = struct.Struct("<I")
_GROUP = struct.Struct("<III")  # stream, topic, group


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


def group_request(stream: str, topic: str, group: str) -> bytes:
    """The body of `SYNC_GROUP`."""
    return _named(stream) + _named(topic) + _named(group)


def parse_assignment(answer: bytes) -> frozenset[int] | None:
    """The partitions that the client may poll; None where it is no member.  Raises `ValueError`."""
    if not answer:
        return None
    with _understanding(answer):
        _, count = _ASSIGNMENT.unpack_from(answer)
        return frozenset(struct.unpack_from(f"<{count}I", answer, _ASSIGNMENT.size))


def client_request(client: int) -> bytes:
    """The body of `GET_CLIENT`."""
    return _COUNT.pack(client)


def parse_clients(answer: bytes) -> dict[int, int]:
    """The clients that are connected, and in how many groups each is a member.  Raises `ValueError`."""
    found, at = {}, 0
    while at < len(answer):
        client, groups, at = _parse_client(answer, at)
        found[client] = groups
    return found


def parse_client_groups(answer: bytes) -> set[tuple[int, int, int]]:
    """The groups of a client, each by the numbers of stream, topic and group.  Raises `ValueError`."""
    if not answer:  # it left
        return set()
    _, _, at = _parse_client(answer, 0)
    with _understanding(answer):
        return set(_GROUP.iter_unpack(answer[at:]))


def _parse_client(answer: bytes, at: int) -> tuple[int, int, int]:
    with _understanding(answer):
        client, _, _, size = _CLIENT.unpack_from(answer, at)
        at += _CLIENT.size + size
        (groups,) = _COUNT.unpack_from(answer, at)
        return client, groups, at + _COUNT.size


@contextmanager
def _understanding(answer: bytes) -> Iterator[None]:
    try:
        yield
    except struct.error as error:
        raise ValueError(f"an answer of {len(answer)} bytes") from error


def _named(name: str) -> bytes:
    data = name.encode("utf-8")
    return bytes([2, len(data)]) + data
