"""The bytes of a batch of messages in a log, and which of its messages are intact.

A batch is two byte strings of MessagePack.  `columns` begins with a CRC-32 of its own and contains times, ids, headers
and a CRC-32 of each payload; `payloads` contains the payloads.  `crc` covers both, so one call verifies an intact
batch.  If it does not match, the CRCs of the payloads show which are intact; with damaged columns all count as damaged.
Both CRCs begin with the first offset, so a batch at another place is damaged too.
Only this file knows the bytes; `log_store` stores them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from iggyflux.deflate import crc32
from iggyflux.records import Message, Partition


class _Columns(msgspec.Struct, array_like=True, gc=False):
    timestamps_us: Sequence[int]
    origin_timestamps_us: Sequence[int]
    ids: list[bytes] | None
    headers: list[dict[str, Any]] | None  # of scalars and bytes, which one msgspec union cannot name
    crcs: Sequence[int]


_encode = msgspec.msgpack.Encoder().encode
_decode_columns = msgspec.msgpack.Decoder(_Columns).decode
_decode_payloads = msgspec.msgpack.Decoder(list[bytes]).decode
_ID_BYTES = 16
_CRC_BYTES = 4


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """Messages appended together: offsets `[first, end)`, the latest of which arrived at `latest_us`."""

    first: int
    end: int
    latest_us: int
    crc: int
    columns: bytes
    payloads: bytes


class Coordinates:
    """All of the messages of a batch but their payloads."""

    def __init__(self, first: int, columns: bytes) -> None:
        self._first = first
        self._columns = columns
        self._decoded: _Columns | None = None

    def message(self, index: int, partition: Partition, payload: bytes) -> Message:
        """Return the message with this index."""
        columns = self._opened()
        return Message(
            payload,
            partition.stream,
            partition.topic,
            partition.partition,
            self._first + index,
            columns.timestamps_us[index],
            columns.origin_timestamps_us[index],
            int.from_bytes(columns.ids[index], "big") if columns.ids else 0,
            columns.headers[index] if columns.headers else {},
        )

    def index_since(self, timestamp_us: int) -> int:
        """Return the first index of a message that arrived at `timestamp_us` or later; 0 if there is none."""
        return next((index for index, time in enumerate(self._opened().timestamps_us) if time >= timestamp_us), 0)

    def _opened(self) -> _Columns:
        columns = self._columns  # before the question: another thread may open the batch meanwhile
        if self._decoded is None:
            found = _decode_columns(columns[_CRC_BYTES:])
            found.timestamps_us = _packed(found.timestamps_us)
            found.origin_timestamps_us = _packed(found.origin_timestamps_us)
            self._decoded, self._columns, found.crcs = found, b"", ()  # one batch is there for each request in flight
        return self._decoded


class OpenBatch:
    """A decoded batch: `damaged` has the indices of messages that are not as written, in order."""

    def __init__(self, stored: StoredBatch) -> None:
        self.first = stored.first
        self.end = stored.end
        self.payloads: list[bytes] = []
        self.damaged: Sequence[int] = range(stored.end - stored.first)
        self.coordinates = Coordinates(stored.first, stored.columns)
        with suppress(msgspec.MsgspecError):
            self._verify(stored)

    def sound(self, at: int, limit: int) -> list[bytes]:
        """Return at most `limit` payloads from index `at` on, up to the first damaged one."""
        stop = next((index for index in self.damaged if index >= at), self.end - self.first)
        return self.payloads[at : min(stop, at + limit)]

    def next_sound(self, at: int) -> int | None:
        """Return the first index from `at` on that is not damaged."""
        damaged = set(self.damaged)
        return next((index for index in range(at, self.end - self.first) if index not in damaged), None)

    def index_since(self, timestamp_us: int) -> int:
        """Return the first index of a message that arrived at `timestamp_us` or later; 0 if that is unknown."""
        return 0 if self.damaged else self.coordinates.index_since(timestamp_us)

    def _verify(self, stored: StoredBatch) -> None:
        """Find the damaged messages.  Raise `MsgspecError` if the batch cannot be decoded: then all are damaged."""
        payloads = _decode_payloads(stored.payloads)
        count = stored.end - stored.first
        if _crc_of(stored.first, stored.columns, stored.payloads) == stored.crc and len(payloads) == count:
            self.payloads, self.damaged = payloads, ()
            return
        if _crc_of(stored.first, stored.columns[_CRC_BYTES:]) != int.from_bytes(stored.columns[:_CRC_BYTES], "big"):
            return
        crcs = _decode_columns(stored.columns[_CRC_BYTES:]).crcs
        if len(crcs) != count:
            return
        self.payloads = payloads
        found = [crc32(payload) for payload in payloads]
        found += [-1] * (count - len(found))
        self.damaged = [index for index, crc in enumerate(crcs) if crc != found[index]]


def _packed(numbers: Sequence[int]) -> Sequence[int]:
    """Return the same in a fifth of the space, if they are of the size that times have."""
    try:
        return array("q", numbers)
    except OverflowError:
        return numbers


def encode_batch(messages: Sequence[Message], first: int, now_us: int) -> StoredBatch:
    """Return one or more messages as the batch at offset `first`; one without a timestamp arrived at `now_us`."""
    payloads = [message.payload for message in messages]
    times = [message.timestamp_us or now_us for message in messages]
    origins = [message.origin_timestamp_us or time for message, time in zip(messages, times, strict=True)]
    ids = [message.id for message in messages]
    headers = [message.headers for message in messages]
    body = _encode(
        _Columns(
            times,
            origins,
            [each.to_bytes(_ID_BYTES, "big") for each in ids] if any(ids) else None,
            [dict(each) for each in headers] if any(headers) else None,
            list(map(crc32, payloads)),
        )
    )
    columns = _crc_of(first, body).to_bytes(_CRC_BYTES, "big") + body
    data = _encode(payloads)
    return StoredBatch(first, first + len(messages), max(times), _crc_of(first, columns, data), columns, data)


def _crc_of(first: int, *parts: bytes) -> int:
    crc = first & 0xFFFF_FFFF
    for part in parts:
        crc = crc32(part, crc)
    return crc
