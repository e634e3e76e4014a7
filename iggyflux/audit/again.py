"""Send what is missing, and only that: the store is asked again right before each request, also one that is repeated.

A `Source` whose messages are lines, with the coordinates of the messages that make them; the plan that reads them; and
a sink that leaves out what is there by now.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeAlias

from iggyflux.audit.check import Audit
from iggyflux.audit.points import Entry
from iggyflux.audit.sorting import PointSorter
from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.verdicts import Accepted, Refused, RefusedSome, Unavailable, Verdict
from iggyflux.errors import EndOfInput, NotConnected
from iggyflux.records import Batch, Message, Partition, Position, Rendered
from iggyflux.runner.route import WriterPlan
from iggyflux.transports.base import LineSink, server_of

_HERE = Partition("audit", "missing", 0)
_Part: TypeAlias = tuple[str, list[Entry]]
"""Points of a measurement."""


class StillMissing:
    """A `Source` of what an audit found missing; its lines go to a `sink` that leaves out what is there."""

    waiting_for: str | None = None

    def __init__(self, audit: Audit, lines_at_once: int, unit_ns: int) -> None:
        self._audit = audit
        self._most = lines_at_once
        self._unit_ns = unit_ns
        self._parts: Iterator[_Part] | None = None
        self._read: deque[_Part] = deque()
        """The parts that are not acknowledged."""
        self._acknowledged = 0
        """How many parts are; a part has its number as its offset."""
        self._points: dict[str, tuple[str, Entry]] = {}
        """The points of these parts, by their lines."""
        self._there: set[str] = set()
        """The lines of them that were left out."""
        self._asking = asyncio.Lock()
        self.healed = 0
        """How many points were there by now."""

    async def connect(self) -> None:
        """Begin, or go on with what is not acknowledged yet."""
        rest = self._all_parts() if self._parts is None else self._parts
        self._parts = chain(tuple(self._read), rest)
        self._read.clear()

    async def read(self) -> Batch | None:
        """Return the next points.  Raise `EndOfInput`."""
        measurement, entries = next(self._parts or iter(()), (None, []))
        if measurement is None:
            raise EndOfInput("all missing points were sent")
        self._read.append((measurement, entries))
        self._points.update((_line(entry), (measurement, entry)) for entry in entries)
        return Batch(_HERE, [self._message(entry) for entry in entries], self._acknowledged + len(self._read))

    async def ack(self, positions: Sequence[Position]) -> None:
        """Forget what was sent."""
        until = max(position.offset for position in positions)
        while self._read and self._acknowledged < until:
            self._acknowledged += 1
            for line in map(_line, self._read.popleft()[1]):
                self._points.pop(line, None)
                self._there.discard(line)

    def sink(self, sink: LineSink) -> LineSink:
        """Return a sink that sends to `sink` what is missing when it is sent."""
        return _MissingOnly(sink, self)

    async def lacking(self, lines: Sequence[str]) -> dict[int, str]:
        """Return, by index, those of `lines` that the store lacks now, each with the fields that it lacks.

        Raise `NotConnected` or `Stopped`.
        """
        asked = PointSorter(len(lines) + 1)
        for measurement, entry in (self._points[line] for line in dict.fromkeys(lines)):
            asked.add(measurement, [entry])
        found: dict[tuple[int, str, int], str] = {}
        async with self._asking:  # one measurement is asked at a time
            for measurement in asked.measurements():
                for entries in asked.windows(measurement, self._most, self._unit_ns):
                    for entry in await self._audit.still_missing(measurement, entries):
                        found[entry[:3]] = _line(entry)
        places = (self._points[line][1][:3] for line in lines)
        return {index: found[place] for index, place in enumerate(places) if place in found}

    def left_out(self, lines: Sequence[str]) -> None:
        """Count lines whose points are there by now, each once."""
        self.healed -= len(self._there)
        self._there.update(lines)
        self.healed += len(self._there)

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
        place, offset = self._audit.numbers.place(entry[2])
        line = _line(entry).encode("utf-8", "surrogatepass")
        return Message(line, place.stream, place.topic, place.partition, offset)


class _MissingOnly:
    """A `LineSink` that asks the store before each attempt."""

    def __init__(self, sink: LineSink, source: StillMissing) -> None:
        self._sink = sink
        self._source = source

    @property
    def dialect(self) -> str:
        """As of `LineSink`."""
        return self._sink.dialect

    @property
    def in_flight(self) -> Bounds | None:
        """As of `LineSink`."""
        return self._sink.in_flight

    @property
    def server(self) -> str:
        """The address of the server, for people."""
        return server_of(self._sink) or ""

    async def connect(self) -> None:
        """As of `LineSink`."""
        await self._sink.connect()

    async def write(self, lines: Sequence[str]) -> Verdict:
        """As of `LineSink`; what is there by now counts as stored.  Raise `Stopped` if the store cannot be asked."""
        try:
            lacking = await self._source.lacking(lines)
        except NotConnected as error:
            return Unavailable(error.named, retry_after_seconds=error.retry_after_seconds)
        self._source.left_out([line for index, line in enumerate(lines) if index not in lacking])
        if not lacking:
            return Accepted()
        return _of_all(await self._sink.write(list(lacking.values())), list(lacking))

    async def close(self) -> None:
        """As of `LineSink`."""
        await self._sink.close()


def _of_all(verdict: Verdict, sent: Sequence[int]) -> Verdict:
    """Return the verdict on lines of which those with the indices `sent` were sent."""
    match verdict:
        case Refused(refusals):
            return replace(verdict, refusals=tuple(replace(each, line=sent[each.line]) for each in refusals))
        case RefusedSome(suspects=suspects):
            return replace(verdict, suspects=tuple(sent[each] for each in suspects))
        case _:
            return verdict


def _line(entry: Entry) -> str:
    time, series, _, fields = entry
    return f"{series} {fields} {time}"


class LinesPlan(WriterPlan):
    """A plan that returns the payloads, which are lines."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return one line for each message."""
        return Rendered(
            [message.payload.decode("utf-8", "surrogatepass") for message in messages], range(len(messages))
        )
