"""The mapping's plan as a test: which points does a message with this payload make?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec.structs import replace

from iggyflux.authoring.samples import Coordinates
from iggyflux.errors import LineProtocolError
from iggyflux.lineprotocol import Point, parse_lines
from iggyflux.mapping import WriterMapping
from iggyflux.payloads import decode_payload, encode_payload
from iggyflux.records import JSON, Message

Base: TypeAlias = "tuple[Message, JSON]"
"""A message with its decoded payload; None if that cannot be encoded again without a change."""


class PlanTrial:
    """The plan of a mapping, with the codec of its payloads."""

    def __init__(self, mapping: WriterMapping) -> None:
        self.mapping = mapping
        self.writer = mapping.writer
        self.coordinates = Coordinates.of(self.writer.source)
        self._plan: Any = mapping.plan()
        self._payload = self.writer.source.payload

    def render(self, messages: Sequence[Message]) -> Any:
        """Return what the plan renders from messages."""
        return self._plan.render(messages)

    def encode(self, tree: JSON) -> bytes:
        """Return the payload of a tree.  Raise RecordError if the format cannot encode it."""
        return encode_payload(tree, self._payload)

    def decode(self, payload: bytes) -> JSON:
        """Return the tree of a payload.  Raise RecordError if it is invalid."""
        return decode_payload(payload, self._payload)

    def points(self, messages: Sequence[Message]) -> list[list[Point] | None]:
        """Return the points of each message; None if a record of it fails, or if it makes none."""
        rendered = self.render(messages)
        bad = {failure.index for failure in rendered.failures}
        found: list[list[Point]] = [[] for _ in messages]
        for origin, line in zip(rendered.origins, rendered.lines, strict=True):
            try:
                found[origin] += parse_lines(line)
            except LineProtocolError:
                bad.add(origin)
        return [None if index in bad or not points else points for index, points in enumerate(found)]


def replace_payload(message: Message, payload: bytes) -> Message:
    """Return the message with another payload."""
    return message_at(message, payload, message.offset, message.timestamp_us)


def message_at(message: Message, payload: bytes, offset: int, timestamp_us: int) -> Message:
    """Return the message with another payload, offset and time, in partition 0."""
    return replace(
        message,
        payload=payload,
        partition=0,
        offset=offset,
        timestamp_us=timestamp_us,
        origin_timestamp_us=timestamp_us,
    )
