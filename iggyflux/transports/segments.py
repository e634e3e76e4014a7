"""The format of a message log's segment files, and how one is scanned, verified and repaired.

A record is a header, the payload, the headers (msgpack) and a CRC-32 of all of it.  The CRC starts from the residue
that a CRC-32 leaves after its own checksum, so over any run of whole, sound records it comes back to that residue:
every record has its own checksum, and a reader verifies thousands of them in one call.
Only this file knows the bytes; who reads and who appends is decided in `log`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from iggyflux.records import Message, Partition, Scalar

try:  # six times as fast as zlib's
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

MAGIC = 0x3158_4649  # "IFX1"
RESIDUE = 0x2144_DF1C

# magic, payload size, headers size, offset, timestamp, origin timestamp, id (low and high half)
_HEADER = struct.Struct("<IIIQqqQQ")
_FIELDS = struct.Struct("<4xIIQqqQQ")
_PLACE = struct.Struct("<IIIQq")
_SIZES = struct.Struct("<III")
_PAIR = struct.Struct("<4xII")
_CRC = struct.Struct("<I")
_OVERHEAD = _HEADER.size + _CRC.size
_MAGIC_BYTES = MAGIC.to_bytes(4, "little")
_NO_HEADERS: Mapping[str, Scalar | bytes] = MappingProxyType({})
_ID_HALF = 2**64 - 1


def encode_records(messages: Sequence[Message], offset: int, now_us: int) -> bytes:
    """The records of `messages` at `offset` and after; a message without a timestamp arrived at `now_us`."""
    pieces: list[bytes] = []
    for message in messages:
        headers = msgspec.msgpack.encode(dict(message.headers)) if message.headers else b""
        arrival = message.timestamp_us or now_us
        body = (
            _HEADER.pack(
                MAGIC,
                len(message.payload),
                len(headers),
                offset,
                arrival,
                message.origin_timestamp_us or arrival,
                message.id & _ID_HALF,
                message.id >> 64,
            )
            + message.payload
            + headers
        )
        pieces += (body, _CRC.pack(crc32(body, RESIDUE)))
        offset += 1
    return b"".join(pieces)


def find_records(chunk: bytes, at: int, limit: int, payloads: list[bytes], places: list[int]) -> int:
    """Append the payloads of the whole records of `chunk` from `at` on, and where each record begins; where it stopped.

    At most `limit`.  Nothing is verified here: the caller checks what was passed over with `is_sound`, and throws it
    away if it is not.
    """
    sizes_at, size_of_chunk, header_size, crc_size = _PAIR.unpack_from, len(chunk), _HEADER.size, _CRC.size
    last_start = size_of_chunk - _OVERHEAD
    for _ in range(limit):
        if at > last_start:
            break
        size, headers_size = sizes_at(chunk, at)
        body = at + header_size
        end = body + size
        after = end + headers_size + crc_size
        if after > size_of_chunk:
            break
        payloads.append(chunk[body:end])
        places.append(at)
        at = after
    return at


def offset_at(chunk: bytes, at: int) -> int:
    """The offset of the record at `chunk[at]`."""
    return int(_PLACE.unpack_from(chunk, at)[3])


def message_at(chunk: bytes, at: int, partition: Partition) -> Message:
    """The message of the whole, sound record at `chunk[at]`."""
    size, headers_size, offset, timestamp, origin, low, high = _FIELDS.unpack_from(chunk, at)
    body = at + _HEADER.size
    end = body + size
    headers = _decode_headers(chunk[end : end + headers_size]) if headers_size else _NO_HEADERS
    return Message(
        chunk[body:end],
        partition.stream,
        partition.topic,
        partition.partition,
        offset,
        timestamp,
        origin,
        low | high << 64,
        headers,
    )


def is_sound(chunk: bytes, start: int, end: int) -> bool:
    """Whether `chunk[start:end]` is a run of whole records, each with its right checksum."""
    return crc32(memoryview(chunk)[start:end], RESIDUE) == RESIDUE


def _decode_headers(data: bytes) -> Mapping[str, Scalar | bytes]:
    """The headers of a record; empty where the bytes are damaged, which the checksum then tells."""
    try:
        decoded: Mapping[str, Scalar | bytes] = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _NO_HEADERS
    return decoded


@dataclass(frozen=True, slots=True)
class Place:
    """One record of a segment: where it begins and ends, and what its header says."""

    position: int
    end: int
    offset: int
    timestamp_us: int


def sound_record(data: bytes, at: int) -> Place | None:
    """The whole, sound record at `data[at]`, or None."""
    if len(data) - at < _OVERHEAD:
        return None
    magic, size, headers_size, offset, timestamp = _PLACE.unpack_from(data, at)
    end = at + _OVERHEAD + size + headers_size
    if magic != MAGIC or end > len(data) or not is_sound(data, at, end):
        return None
    return Place(at, end, offset, timestamp)


def sound_records(data: bytes, at: int = 0) -> Iterator[Place]:
    """The sound records from `data[at]` on, up to the first that is not."""
    while place := sound_record(data, at):
        yield place
        at = place.end


def next_sound_record(data: bytes, at: int) -> Place | None:
    """The first sound record that begins at `data[at]` or later."""
    while (at := data.find(_MAGIC_BYTES, at)) >= 0:
        if place := sound_record(data, at):
            return place
        at += 1
    return None


def pass_over(data: bytes, at: int, offset: int, stop: int = 2**63) -> tuple[int, int]:
    """Go on from the record `offset` at `data[at]` to the record `stop`, or to the end of the whole records.

    Gives the place and the offset that come next.  Only headers are looked at; where one is damaged, the search goes
    on behind it, so that a reader can begin there.
    """
    unpack, overhead, size_of_data = _SIZES.unpack_from, _OVERHEAD, len(data)
    while size_of_data - at >= overhead and offset < stop:
        magic, size, headers_size = unpack(data, at)
        end = at + overhead + size + headers_size
        if magic == MAGIC and end <= size_of_data:
            at = end
            offset += 1
        elif place := next_sound_record(data, at + 1):
            at, offset = place.position, place.offset
        else:
            break
    return at, offset


def record_size(data: bytes, at: int) -> int:
    """How many bytes the record at `data[at]` says it has; the size of the smallest where that is not to be seen."""
    if len(data) - at < _SIZES.size:
        return _OVERHEAD
    magic, size, headers_size = _SIZES.unpack_from(data, at)
    return _OVERHEAD + size + headers_size if magic == MAGIC else _OVERHEAD
