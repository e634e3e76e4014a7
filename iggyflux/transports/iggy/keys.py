"""The partition of a key, chosen as every Iggy client does, so that all producers agree.

The SDK's `messages_key` applies to a whole batch.  So messages are sorted into partitions here and sent by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from iggyflux.records import OutgoingMessage

_MASK: Final = 0xFFFFFFFF
_P1, _P2, _P3, _P4, _P5 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1


def xxhash32(data: bytes) -> int:
    """Return XXH32 of `data` with seed 0 (the specification's reference algorithm)."""
    size, at = len(data), 0
    if size >= 16:
        lanes = [(_P1 + _P2) & _MASK, _P2, 0, (-_P1) & _MASK]
        while at <= size - 16:
            for lane in range(4):
                word = int.from_bytes(data[at : at + 4], "little")
                lanes[lane] = (_rotated((lanes[lane] + word * _P2) & _MASK, 13) * _P1) & _MASK
                at += 4
        found = sum(_rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
    else:
        found = _P5
    found = (found + size) & _MASK
    while at <= size - 4:
        word = int.from_bytes(data[at : at + 4], "little")
        found = (_rotated((found + word * _P3) & _MASK, 17) * _P4) & _MASK
        at += 4
    for byte in data[at:]:
        found = (_rotated((found + byte * _P5) & _MASK, 11) * _P1) & _MASK
    found = ((found ^ found >> 15) * _P2) & _MASK
    found = ((found ^ found >> 13) * _P3) & _MASK
    return found ^ found >> 16


@lru_cache(maxsize=16384)
def partition_of(key: str, partitions: int) -> int:
    """Return the partition, from 0, of messages with this key."""
    return xxhash32(key.encode("utf-8", "surrogatepass")) % partitions


def by_partition(messages: Sequence[OutgoingMessage], partitions: int, turn: int) -> dict[int, list[OutgoingMessage]]:
    """Return `messages` by partition, in order; those without a key go to the partition of `turn`."""
    sorted_in: dict[int, list[OutgoingMessage]] = {}
    for message in messages:
        number = turn % partitions if message.key is None else partition_of(message.key, partitions)
        sorted_in.setdefault(number, []).append(message)
    return sorted_in


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & _MASK
