"""Requests of Iggy's binary protocol for which the SDK has no call.

They read and store the offset of a consumer, read the partitions of this member of a group, and list the connected
clients.  The bytes are those of protocol 0.11, of the SDK 0.9 and servers 0.9; the SDK checks at login that the server
uses it.  With any other SDK they are not used: slower public calls replace them.
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
_CONFIRMED = 1  # the server answers when the offset is replicated
_ANSWER = struct.Struct("<IQQ")
_ASSIGNMENT = struct.Struct("<QI")  # the group's generation, how many partitions
_CLIENT = struct.Struct("<IIBI")  # client, user, transport, length of the address
_COUNT = struct.Struct("<I")
_GROUP = struct.Struct("<III")  # stream, topic, group


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """The state of a consumer in a partition: the last offset of the partition, and the stored one."""

    last: int
    stored: int


def is_known(sdk_version: str) -> bool:
    """Whether this version of the SDK speaks the protocol of this file."""
    return sdk_version.startswith(SDK_VERSIONS)


def offset_request(kind: Literal["single", "group"], name: str, stream: str, topic: str, partition: int) -> bytes:
    """Return the body of `GET_OFFSET`."""
    consumer = bytes([_KINDS[kind]]) + _named(name)
    return consumer + _named(stream) + _named(topic) + b"\x01" + struct.pack("<I", partition)


def store_request(name: str, stream: str, topic: str, partition: int, offset: int) -> bytes:
    """Return the body of `STORE_OFFSET` for a single consumer."""
    return offset_request("single", name, stream, topic, partition) + struct.pack("<QB", offset, _CONFIRMED)


def parse_offset(answer: bytes, partition: int) -> StoredOffset | None:
    """Return the answer to `GET_OFFSET`; None if nothing is stored.  Raise `ValueError` if it is not understood."""
    if not answer:
        return None
    if len(answer) != _ANSWER.size:
        raise ValueError(f"an answer of {len(answer)} bytes")
    number, last, stored = _ANSWER.unpack(answer)
    if number != partition:
        raise ValueError(f"an answer for partition {number}")
    return StoredOffset(last, stored)


def group_request(stream: str, topic: str, group: str) -> bytes:
    """Return the body of `SYNC_GROUP`."""
    return _named(stream) + _named(topic) + _named(group)


def parse_assignment(answer: bytes) -> frozenset[int] | None:
    """Return the partitions that the client may poll; None if it is not a member.  Raise `ValueError`."""
    if not answer:
        return None
    with _understanding(answer):
        _, count = _ASSIGNMENT.unpack_from(answer)
        return frozenset(struct.unpack_from(f"<{count}I", answer, _ASSIGNMENT.size))


def client_request(client: int) -> bytes:
    """Return the body of `GET_CLIENT`."""
    return _COUNT.pack(client)


def parse_clients(answer: bytes) -> dict[int, int]:
    """Return the connected clients, each with the number of its groups.  Raise `ValueError`."""
    found, at = {}, 0
    while at < len(answer):
        client, groups, at = _parse_client(answer, at)
        found[client] = groups
    return found


def parse_client_groups(answer: bytes) -> set[tuple[int, int, int]]:
    """Return the groups of a client, each by the numbers of stream, topic and group.  Raise `ValueError`."""
    if not answer:  # the client has disconnected
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
