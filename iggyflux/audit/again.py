"""Send what is missing, and only that: the store is asked again right before each request.

A `Source` whose messages are lines, with the coordinates of the messages that make them, and the plan that reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from iggyflux.audit.check import Audit
from iggyflux.audit.points import Entry
from iggyflux.errors import EndOfInput
from iggyflux.records import Batch, Message, Partition, Position, Rendered
from iggyflux.runner.route import WriterPlan

_HERE = Partition("audit", "missing", 0)


class StillMissing:
    """A `Source` of what an audit found missing; what is there now is left out, and counted in `healed`."""

    waiting_for: str | None = None

    def __init__(self, audit: Audit, lines_at_once: int, unit_ns: int) -> None:
        self._audit = audit
        self._most = lines_at_once
        self._unit_ns = unit_ns
        self._parts: Iterator[tuple[str, list[Entry]]] = iter(())
        self._read: list[tuple[str, list[Entry]]] = []
        self._acknowledged = 0
        self.healed = 0

    async def connect(self) -> None:
        """Begin, or go on with what is not sent yet."""
        if not self._read:
            self._parts = self._all_parts()
        else:
            self._parts = _chained(self._read[self._acknowledged :], self._parts)
            del self._read[self._acknowledged :]

    async def read(self) -> Batch | None:
        """Return the next points that are missing still.  Raise `EndOfInput`."""
        for measurement, entries in self._parts:
            self._read.append((measurement, entries))
            missing = await self._audit.still_missing(measurement, entries)
            self.healed += len(entries) - len(missing)
            if missing:
                return Batch(_HERE, [self._message(entry) for entry in missing], len(self._read))
        raise EndOfInput("all missing points were sent")

    async def ack(self, positions: Sequence[Position]) -> None:
        """Count what was sent."""
        self._acknowledged = max(self._acknowledged, *(position.offset for position in positions))

    async def lag(self) -> Mapping[Partition, int]:
        """Return nothing: it is not counted."""
        return {}

    async def close(self) -> None:
        """Do nothing: the audit owns the store."""

    def _all_parts(self) -> Iterator[tuple[str, list[Entry]]]:
        missing = self._audit.missing
        for measurement in missing.measurements():
            for entries in missing.windows(measurement, self._most, self._unit_ns):
                yield measurement, entries

    def _message(self, entry: Entry) -> Message:
        time, series, number, fields = entry
        place, offset = self._audit.numbers.place(number)
        line = f"{series} {fields} {time}".encode("utf-8", "surrogatepass")
        return Message(line, place.stream, place.topic, place.partition, offset)


def _chained(
    first: list[tuple[str, list[Entry]]], rest: Iterator[tuple[str, list[Entry]]]
) -> Iterator[tuple[str, list[Entry]]]:
    yield from first
    yield from rest


class LinesPlan(WriterPlan):
    """A plan that returns the payloads, which are lines."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return one line for each message."""
        return Rendered(
            [message.payload.decode("utf-8", "surrogatepass") for message in messages], range(len(messages))
        )
