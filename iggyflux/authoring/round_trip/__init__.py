"""The round trip: messages to points, into a simulated InfluxDB, and by the reader's own query back to messages.

The lines are sent, rejected, stored and overwritten as on a real server, and the reader reads them in the windows of
its document.  Every message that the reader makes is traced to the messages of its points, and all differences between
the two are reported.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from iggyflux.authoring.round_trip.changes import Change, applied, changes
from iggyflux.authoring.round_trip.losses import Loss, explain, explain_split
from iggyflux.authoring.round_trip.trace import Trace
from iggyflux.delivery.retry import Policy
from iggyflux.errors import RecordError
from iggyflux.lineprotocol import Point, parse_lines
from iggyflux.mapping import ReaderMapping, WriterMapping
from iggyflux.payloads import FORMATS, decode_payload
from iggyflux.pipeline import InfluxSettings
from iggyflux.records import JSON, Failure, Message, Row
from iggyflux.runner.clock import SystemClock
from iggyflux.runner.deliver import deliver
from iggyflux.sim import SimServer
from iggyflux.transports.influxdb.query.source import InfluxRows
from iggyflux.transports.influxdb.write.sink import InfluxLineSink

__all__ = ["Change", "Loss", "Return", "RoundTrip", "applied", "round_trip"]

_ENDS: dict[int, dict[str, Any]] = {
    1: {"database": "test"},
    2: {"org": "org", "bucket": "test"},
    3: {"database": "test"},
}
_DIALECTS = {"sql": 3, "influxql": 1, "flux": 2, "auto": 2}


@dataclass(frozen=True, slots=True)
class Return:
    """One message as it was `sent` and as it came `back`, decoded, with all differences.

    If exactly one message was returned, `changes` turn `sent` into it.
    """

    index: int
    sent: JSON
    back: tuple[JSON, ...] = ()
    changes: tuple[Change, ...] = ()
    losses: tuple[Loss, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Return whether the message was returned without loss."""
        return bool(self.back) and not any(loss.is_lossy for loss in self.losses)


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """The result: a `Return` for each message, and notes that concern no single message."""

    returns: tuple[Return, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Return whether no message has a loss."""
        return all(each.is_whole for each in self.returns)


def round_trip(writer: WriterMapping, reader: ReaderMapping, messages: Sequence[Message]) -> RoundTrip:
    """Write `messages` to a simulated server on loopback, read them back, and return the comparison."""
    return asyncio.run(_RoundTrip(writer, reader).run(messages))


Key = tuple[str, frozenset[tuple[str, str]], int | None]


@dataclass(slots=True)
class _Trip:
    """The lines, outputs and losses of one message so far."""

    sent: JSON
    lines: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    shares_points: bool = False


class _RoundTrip:
    def __init__(self, writer: WriterMapping, reader: ReaderMapping) -> None:
        self._writer, self._reader = writer.writer, reader.reader
        self._dialect = _DIALECTS[reader.reader.source.language]
        self._plan = writer.plan(dialect=f"v{self._dialect}")
        self._reader_plan = reader.plan("reference")
        self._trace = Trace(self._writer, self._reader)

    async def run(self, messages: Sequence[Message]) -> RoundTrip:
        rendered = self._plan.render(messages)
        trips = [_Trip(self._decoded(message)) for message in messages]
        points = [parse_lines(line, f"v{self._dialect}")[0] for line in rendered.lines]
        for number, index in enumerate(rendered.origins):
            trips[index].lines.append(number)
        for failure in rendered.failures:
            trips[failure.index].losses.append(Loss("", _failed(failure, "the writer"), trips[failure.index].sent))
        for index in rendered.skipped:
            trips[index].losses.append(Loss("", "skipped: `where` is not true", trips[index].sent))
        for index in rendered.empty:
            trips[index].losses.append(Loss("", "`for_each` gives no elements", trips[index].sent))
        refused, rows = await self._stored(list(rendered.lines), points)
        for number, reason in refused.items():
            trips[rendered.origins[number]].losses.append(
                Loss("", f"rejected by the server: {reason}", rendered.lines[number])
            )
        makers = self._makers(rows, points, rendered.origins, refused)
        outputs, failures = self._outputs(rows)
        for row, reason in failures:
            for index in makers[row]:
                trips[index].losses.append(Loss("", reason, trips[index].sent))
        made_of = [sorted({index for row in indices for index in makers[row]}) for _, indices in outputs]
        for number, indices in enumerate(made_of):
            for index in indices:
                trips[index].outputs.append(number)
        self._name_overwriting(trips, points, rendered.origins, refused)
        backs = [back for back, _ in outputs]
        return RoundTrip(
            tuple(self._returned(index, trip, backs, made_of) for index, trip in enumerate(trips)),
            tuple(self._notes(points, refused)),
        )

    # --- there ---

    def _decoded(self, message: Message) -> JSON:
        try:
            return decode_payload(message.payload, self._writer.source.payload)
        except RecordError:
            return message.payload.decode("utf-8", "backslashreplace")

    async def _stored(self, lines: list[str], points: Sequence[Point]) -> tuple[dict[int, str], list[Row]]:
        """Return the lines that the server rejected, and the rows of the reader's query."""
        if not lines:
            return {}, []
        with SimServer(self._dialect) as server:
            settings = InfluxSettings(url=server.url, gzip="off", **_ENDS[self._dialect])
            sink = InfluxLineSink(settings)
            source = InfluxRows(settings, self._reader.source, column=self._reader.cursor.column)
            try:
                await sink.connect()
                refusals = await deliver(sink, lines, Policy(max_lines=100), SystemClock())
                refused = {refusal.line: refusal.reason for refusal in refusals}
                await source.connect()
                rows: list[Row] = []
                for start, stop in _windows(points, self._reader.cursor.window_ns):
                    window = await source.fetch(start, stop)
                    try:
                        async for chunk in window.chunks():
                            rows += chunk
                    finally:
                        window.close()
                return refused, rows
            finally:
                await sink.close()
                await source.close()

    # --- back ---

    def _makers(
        self, rows: Sequence[Row], points: Sequence[Point], origins: Sequence[int], refused: Mapping[int, str]
    ) -> list[list[int]]:
        """Return for each row the messages of its points."""
        by_time: dict[int | None, list[int]] = defaultdict(list)
        for number, point in enumerate(points):
            if number not in refused:
                by_time[point.timestamp_ns].append(number)
        column = self._reader.cursor.column
        return [
            sorted(
                {
                    origins[number]
                    for number in by_time.get(row.columns.get(column), ())  # type: ignore[arg-type]
                    if _is_of(row, points[number])
                }
            )
            for row in rows
        ]

    def _outputs(self, rows: Sequence[Row]) -> tuple[list[tuple[JSON, Sequence[int]]], list[tuple[int, str]]]:
        """Return the decoded messages of the reader with their rows, and the rows that fail."""
        rendered = self._reader_plan.render(rows)
        failures = [(failure.index, _failed(failure, "the reader")) for failure in rendered.failures]
        decode = FORMATS[self._reader.target.payload].decode
        members = self._reader_plan.members(rows, rendered)
        backs = [decode(message.payload, {}, None, False) for message in rendered.messages]
        return list(zip(backs, members, strict=True)), failures

    def _name_overwriting(
        self, trips: list[_Trip], points: Sequence[Point], origins: Sequence[int], refused: Mapping[int, str]
    ) -> None:
        owners: dict[Key, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for number, point in enumerate(points):
            if number not in refused:
                owners[_key(point)][origins[number]].update(point.fields)
        for (measurement, tags, time), indices in owners.items():
            if len(indices) < 2:
                continue
            differ = len(set().union(*indices.values())) == sum(map(len, indices.values()))
            what = "are stored as" if differ else "overwrite each other:"
            names = ", ".join(f"{name}={value}" for name, value in sorted(tags)) or "no tags"
            others = " and ".join(str(index + 1) for index in sorted(indices))
            for index in indices:
                reason = f"messages {others} {what} one point of {measurement} ({names}) at {time}"
                trips[index].losses.append(Loss("", reason, trips[index].sent))
                trips[index].shares_points = True

    def _returned(self, index: int, trip: _Trip, backs: Sequence[JSON], made_of: Sequence[Sequence[int]]) -> Return:
        back = tuple(backs[number] for number in trip.outputs)
        losses = list(trip.losses)
        found: list[Change] = []
        if not back:
            if not losses:
                losses.append(Loss("", "stored, but not returned by the query", trip.sent))
        elif len(back) > 1:
            losses += explain_split(trip.sent, list(back), self._trace)
        else:
            found = list(changes(trip.sent, back[0]))
            others = len(made_of[trip.outputs[0]])
            if others > 1 and not losses:
                losses.append(Loss("", f"{others} messages are returned as one", trip.sent, is_lossy=False))
                losses += explain_split(trip.sent, [back[0]], self._trace)
            else:
                words = explain(found, back[0], self._trace)
                losses += map(_of_another, words) if trip.shares_points else words
        return Return(index, trip.sent, back, tuple(found), tuple(losses))

    def _notes(self, points: Sequence[Point], refused: Mapping[int, str]) -> list[str]:
        wanted = self._reader.source.measurement
        stored = {point.measurement for number, point in enumerate(points) if number not in refused}
        if wanted is None or not stored or wanted in stored:
            return []
        return [f"the reader reads {wanted}, but the writer stores {', '.join(sorted(stored))}"]


def _windows(points: Sequence[Point], size: int) -> list[tuple[int, int]]:
    """Yield the windows of the document that contain points."""
    numbers = {point.timestamp_ns // size for point in points if point.timestamp_ns is not None}
    return [(max(number * size, -(2**63) + 2), min((number + 1) * size, 2**63 - 1)) for number in sorted(numbers)]


def _is_of(row: Row, point: Point) -> bool:
    """Return whether the row's measurement and tags, if present, are those of the point."""
    if row.measurement and row.measurement != point.measurement:
        return False
    if row.tags is None:
        return all(row.columns.get(name, value) == value for name, value in point.tags.items())
    return all(row.columns.get(name) == point.tags.get(name) for name in row.tags)


def _of_another(loss: Loss) -> Loss:
    """Return the loss for a value of another message, which overwrote the point or was merged into it."""
    if loss.reason.startswith(("changed", "added: column")):
        return replace(loss, reason=f"{loss.reason}, by another message")
    return loss


def _key(point: Point) -> Key:
    return point.measurement, frozenset(point.tags.items()), point.timestamp_ns


def _failed(failure: Failure, who: Literal["the writer", "the reader"]) -> str:
    where = f" at {failure.location}" if failure.location else ""
    return f"{who} fails: {failure.code}: {failure.reason_and_hint}{where}"
