"""Messages as lines, to a file or to standard output: a reader's target without a server.

A line is a payload or, if configured, an envelope with everything that a message has.  The line sink confirms: a file
is synced, and an incomplete last line is truncated.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence

import msgspec

from iggyflux.delivery.verdicts import Accepted, Impossible
from iggyflux.errors import NotConnected, Stopped
from iggyflux.records import OutgoingMessage
from iggyflux.transports.base import LineSink
from iggyflux.transports.local.envelopes import plain_header


class MessageLines:
    """A `MessageSink` that makes lines of messages for a `LineSink` (`LineFileSink`, `StdoutSink`)."""

    def __init__(self, lines: LineSink, stream: str, topic: str, *, payload: str, envelope: bool) -> None:
        self._lines = lines
        self._address: Mapping[str, str] = {"stream": stream, "topic": topic}
        self._is_json = payload == "json"
        self._envelope = envelope

    async def connect(self) -> None:
        """As `MessageSink.connect`."""
        await self._lines.connect()

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        """As `MessageSink.send`: on disk when it returns.  Raise `Stopped` (IFX710)."""
        if not messages:
            return
        line_of = self._enveloped if self._envelope else _payload_line
        verdict = await self._lines.write([line_of(message) for message in messages])
        match verdict:
            case Accepted():
                return
            case Impossible(reason=reason, hint=hint):
                raise Stopped(reason, hint, "IFX710")
            case _:
                raise NotConnected(str(verdict))

    async def close(self) -> None:
        """As `MessageSink.close`."""
        await self._lines.close()

    def _enveloped(self, message: OutgoingMessage) -> str:
        tree: dict[str, object] = {**self._address, "id": str(message.id)}
        if message.key is not None:
            tree["key"] = message.key
        if message.timestamp_ns is not None:
            tree["timestamp_us"] = message.timestamp_ns // 1000
        if message.headers:
            tree["headers"] = {name: plain_header(value) for name, value in message.headers.items()}
        if self._is_json:
            tree["payload"] = msgspec.Raw(message.payload)
        else:
            tree["payload_base64"] = b64encode(message.payload).decode("ascii")
        return msgspec.json.encode(tree).decode()


def _payload_line(message: OutgoingMessage) -> str:
    return message.payload.decode().rstrip("\n")
