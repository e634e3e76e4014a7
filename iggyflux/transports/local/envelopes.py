"""A message with its coordinates as a JSON object: the form of samples, message files and dead letters.

The payload is `payload` (any JSON value, kept byte for byte), `payload_text` or `payload_base64`.  Everything else is
optional and named as in `Message`.  A header of raw bytes is `{"base64": "…"}`.
"""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping

import msgspec

from iggyflux.errors import closest
from iggyflux.records import JSON, Message, Scalar

MAX_LINE_BYTES = 96 << 20
"""The longest envelope: one with a payload of 64 MB in base64.  The limit also ends a file without line ends."""

# Messages of samples and files without times get these, the same in every run: a plan never reads a clock.
_FIRST_TIMESTAMP_US = 946_684_800_000_000  # 2000-01-01T00:00:00Z
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class EnvelopeError(ValueError):
    """A line that is not an envelope; the text says why."""


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    payload_text: str | None = None
    payload_base64: str | None = None
    stream: str | None = None
    topic: str | None = None
    key: str | None = None  # ignored here: a message that is read has its partition already
    partition: int = 0
    offset: int | None = None
    timestamp_us: int | None = None
    origin_timestamp_us: int | None = None
    id: int | str = 0
    headers: dict[str, bool | int | float | str | dict[str, str] | None] = {}


_DECODER = msgspec.json.Decoder(_Envelope)


def default_timestamp_us(offset: int) -> int:
    """Return the time of arrival for a message without one."""
    return _FIRST_TIMESTAMP_US + offset


def bare_message(payload: bytes, offset: int, *, stream: str = "", topic: str = "") -> Message:
    """Return a message with only a payload and the coordinates of line number `offset` (from 0)."""
    timestamp = default_timestamp_us(offset)
    return Message(payload, stream, topic, 0, offset, timestamp, timestamp)


def decode_envelope(line: bytes | str, offset: int, *, stream: str = "", topic: str = "") -> Message:
    """Return the message in `line`, number `offset` (from 0); `stream` and `topic` are defaults.

    Raise `EnvelopeError`.
    """
    try:
        envelope = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"invalid envelope: {_plain(str(error))}") from error
    except RecursionError as error:
        raise EnvelopeError("invalid envelope: it is nested too deeply") from error
    place = offset if envelope.offset is None else envelope.offset
    arrival = default_timestamp_us(place) if envelope.timestamp_us is None else envelope.timestamp_us
    return Message(
        _payload(envelope),
        stream if envelope.stream is None else envelope.stream,
        topic if envelope.topic is None else envelope.topic,
        envelope.partition,
        place,
        arrival,
        arrival if envelope.origin_timestamp_us is None else envelope.origin_timestamp_us,
        _id(envelope.id),
        {key: _header(value) for key, value in envelope.headers.items() if value is not None},
    )


def has_coordinates(line: bytes) -> bool:
    """Return whether `line` is an envelope that no plain payload looks like: more than a member `payload`."""
    try:
        decode_envelope(line, 0)
        members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (EnvelopeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return members.keys() != {"payload"}


_INSTEAD = {"timestamp": "timestamp_us", "time": "timestamp_us", "ts": "timestamp_us", "created_at": "timestamp_us"}


def _plain(error: str) -> str:
    """Return what msgspec says of an envelope, in the words of other messages."""
    text = error.removeprefix("Object contains ").replace("unknown field", "unknown key")
    return f"{text[:1].lower()}{text[1:]}{_meant(error)}"


def _meant(error: str) -> str:
    """Return a hint at the member that an unknown one was probably meant to be."""
    found = re.search(r"unknown field `([^`]*)`", error)
    if found is None:
        return ""
    near = _INSTEAD.get(found[1].lower()) or closest(found[1], _Envelope.__struct_fields__)
    unit = ", an integer of microseconds" if near in ("timestamp_us", "origin_timestamp_us") else ""
    return f" (did you mean `{near}`{unit}?)" if near else f" (known: {', '.join(_Envelope.__struct_fields__)})"


def envelope_of(message: Message) -> dict[str, JSON]:
    """Return the envelope of a message, for `msgspec.json.encode`; `decode_envelope` reverses it."""
    return {
        "stream": message.stream,
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp_us": message.timestamp_us,
        "origin_timestamp_us": message.origin_timestamp_us,
        "id": str(message.id),
        "headers": {key: plain_header(value) for key, value in message.headers.items()},
        "payload_base64": b64encode(message.payload).decode("ascii"),
    }


def _payload(envelope: _Envelope) -> bytes:
    given = [
        form
        for form, value in (
            ("payload", envelope.payload),
            ("payload_text", envelope.payload_text),
            ("payload_base64", envelope.payload_base64),
        )
        if value is not None and value is not msgspec.UNSET
    ]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise EnvelopeError(f"expected one of payload, payload_text and payload_base64, found {found}")
    if envelope.payload is not msgspec.UNSET:
        return bytes(envelope.payload)
    if envelope.payload_text is not None:
        return envelope.payload_text.encode("utf-8")
    return _decode_base64(envelope.payload_base64 or "", "payload_base64")


def _decode_base64(text: str, name: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeError(f"{name} is not base64: {error}") from error


def _id(value: int | str) -> int:
    try:
        number = int(value)
    except ValueError as error:
        raise EnvelopeError(f"expected a number as id, found {value!r}") from error
    if not 0 <= number < 2**128:
        raise EnvelopeError(f"id does not fit 128 bits: {number}")
    return number


def _header(value: Scalar | Mapping[str, str]) -> Scalar | bytes:
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"base64"}:
        return _decode_base64(value["base64"], "a header")
    if set(value) == {"float"} and value["float"] in _NOT_FINITE:
        return _NOT_FINITE[value["float"]]
    raise EnvelopeError('expected a string, a number, true, false, or {"base64": "…"} as header')


def plain_header(value: Scalar | bytes) -> JSON:
    """Return a header as it is in an envelope."""
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode("ascii")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value
