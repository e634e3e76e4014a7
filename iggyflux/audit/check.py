"""One audit, from the first message to the report: read, render, sort; then ask the store, compare, and count.

Memory is bounded by a window, by the points that are sorted at once, and by what `letters` and `Numbers` keep.  While a
window is compared, the next one is asked for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from iggyflux.audit.letters import LetterIndex
from iggyflux.audit.points import Entry, FieldReader, Numbers, SeriesReader
from iggyflux.audit.sorting import PointSorter
from iggyflux.audit.stored import StoredPoints, StoreFacts
from iggyflux.audit.window import Class, Suspect, Window, class_of
from iggyflux.errors import EndOfInput, Stopped
from iggyflux.lineprotocol import Dialect, FieldValue
from iggyflux.records import JSON, Batch, Message, Partition, Rendered
from iggyflux.transports.base import Worker
from iggyflux.transports.influxdb.query.source import InfluxWindow

WINDOW_POINTS: Final = 20_000
NAMED: Final = (Class.MISSING, Class.DIFFERENT)
"""The classes whose points are named."""


class RangePlan(Protocol):
    """What renders messages."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return the lines of `messages`; pure."""


class Range(Protocol):
    """Messages to audit: as a source, without positions."""

    total: int
    unsettled: int

    async def connect(self) -> None:
        """As `Source.connect`."""

    async def read(self) -> Batch | None:
        """As `Source.read`; it always ends."""

    async def close(self) -> None:
        """As `Source.close`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A missing or different point: the message that makes it, the point, and the fields that are not as rendered."""

    kind: Class
    partition: Partition
    offset: int
    measurement: str
    tags: Mapping[str, str]
    time_ns: int
    fields: Mapping[str, tuple[FieldValue, JSON]]
    """By name: the value of the message, and the stored one or None."""


@dataclass(slots=True)
class Report:
    """What an audit found so far."""

    total: int = 0
    """The messages of the range, at most."""
    unsettled: int = 0
    """The messages that the route had not settled, and that were left out."""
    messages: int = 0
    rendered: int = 0
    """The points that were made of them."""
    skipped: int = 0
    """Messages of which `where` and `for_each` made no record."""
    failed: int = 0
    """Records that fail to render and have no dead letter."""
    points: Counter[Class] = field(default_factory=Counter)
    compared: int = 0
    findings: list[Finding] = field(default_factory=list)
    facts: StoreFacts | None = None

    @property
    def is_clean(self) -> bool:
        """Whether nothing is missing or different."""
        return not any(self.points[each] for each in NAMED)


class Audit:
    """An audit of one range.  `most_named` bounds the findings; `plan` makes a plan of a dialect."""

    def __init__(
        self,
        source: Range,
        plan: Callable[[str], RangePlan],
        store: StoredPoints,
        letters: LetterIndex,
        *,
        unit_ns: int,
        most_named: int,
        window_points: int = WINDOW_POINTS,
        sorter: PointSorter | None = None,
    ) -> None:
        self.report = Report()
        self.missing = PointSorter()
        """What is missing: each point with the fields that the store lacks."""
        self.numbers = Numbers()
        self._source = source
        self._plan = plan
        self._store = store
        self._letters = letters
        self._unit_ns = unit_ns
        self._most_named = most_named
        self._window_points = window_points
        self._sorter = sorter or PointSorter()
        self._renderer = Worker("audit")

    async def run(self) -> Report:
        """Do it.  Raise `NotConnected` or `Stopped`."""
        try:
            facts = self.report.facts = await self._store.facts()
            self._dialect = Dialect(facts.dialect)
            self._series, self._fields = SeriesReader(self._dialect), FieldReader(self._dialect)
            await self._source.connect()
            self.report.total, self.report.unsettled = self._source.total, self._source.unsettled
            await self._render_all(self._plan(facts.dialect))
            for measurement in self._sorter.measurements():
                await self._compare(measurement)
        finally:
            self._sorter.close()
            await self._source.close()
            await self._renderer.finish()
        return self.report

    async def still_missing(self, measurement: str, entries: list[Entry]) -> list[Entry]:
        """Return what the store lacks now of points that it lacked, each with the fields that it lacks."""
        found: list[Entry] = []
        async for part, answer in self._store.of(measurement, entries):
            window = await self._filled(part, answer)
            found += [
                self._lacking(each)
                for each in window.suspects(self._partition_of, lambda _: False)
                if Class.MISSING in each.states.values()
            ]
        return found

    # --- the range ---

    async def _render_all(self, plan: RangePlan) -> None:
        while True:
            try:
                batch = await self._source.read()
            except EndOfInput:
                return
            if batch is not None:
                await self._renderer.call(self._render, plan, batch.messages)

    def _render(self, plan: RangePlan, messages: Sequence[Message]) -> None:
        rendered: Rendered = plan.render(messages)
        report, first = self.report, self.numbers.add(messages)
        report.messages += len(messages)
        report.rendered += len(rendered.lines)
        report.skipped += len(rendered.skipped) + len(rendered.empty)
        for failure in rendered.failures:
            if self._letters.has_message(self.numbers.place(first + failure.index)):
                report.points[Class.DEAD_LETTERED] += failure.count
            else:
                report.failed += failure.count
        try:
            for name, entries in self._series.by_measurement(rendered.lines, rendered.origins, first).items():
                self._sorter.add(name, entries)
        except OSError as error:
            hint = "free space in the directory for temporary files (TMPDIR), or audit a smaller range"
            raise Stopped(f"cannot sort the points: {error.strerror}", hint, "IFX746") from error

    # --- the store ---

    async def _compare(self, measurement: str) -> None:
        windows = self._sorter.windows(measurement, self._window_points, self._unit_ns)
        answers = self._answers(measurement, windows)
        following = asyncio.ensure_future(_next(answers))
        try:
            while (found := await following) is not None:
                following = asyncio.ensure_future(_next(answers))
                entries, answer = found
                self._count(measurement, await self._filled(entries, answer), len(entries))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _answers(
        self, measurement: str, windows: Iterable[list[Entry]]
    ) -> AsyncIterator[tuple[list[Entry], InfluxWindow]]:
        for entries in windows:
            async for found in self._store.of(measurement, entries):
                yield found

    async def _filled(self, entries: list[Entry], answer: InfluxWindow) -> Window:
        try:
            window = Window(entries, answer.selection, unit_ns=self._unit_ns, series=self._series, fields=self._fields)
            async for rows in answer.chunks():
                window.take(rows)
        finally:
            answer.close()
        return window

    def _count(self, measurement: str, window: Window, number: int) -> None:
        report = self.report
        report.compared += number
        report.points[Class.THERE] += window.there()
        for suspect in window.suspects(self._partition_of, self._is_refused):
            found = self._class_of(suspect)
            report.points[found] += 1
            if found not in NAMED:
                continue
            if Class.MISSING in suspect.states.values():
                self.missing.add(measurement, [self._lacking(suspect)])
            if len(report.findings) < self._most_named:
                report.findings.append(self._finding(found, suspect))

    def _class_of(self, suspect: Suspect) -> Class:
        found = class_of(suspect.states)
        if found not in NAMED:
            return found
        oldest = self.report.facts.oldest_ns if self.report.facts else None
        if found is Class.MISSING and oldest is not None and suspect.entry[0] * self._unit_ns < oldest:
            return Class.EXPIRED
        return found

    def _is_refused(self, entry: Entry) -> bool:
        return self._letters.has_line(self.numbers.place(entry[2]), entry[1], entry[0])

    def _finding(self, kind: Class, suspect: Suspect) -> Finding:
        time, series, number, _ = suspect.entry
        measurement, tags = self._series.read(series)
        wrong = {
            name: (suspect.fields[name], suspect.stored.get(name))
            for name, state in suspect.states.items()
            if state in NAMED
        }
        return Finding(kind, *self.numbers.place(number), measurement, tags, time * self._unit_ns, wrong)

    def _lacking(self, suspect: Suspect) -> Entry:
        """Return the entry of a point with the fields that the store lacks."""
        lacking = {name for name, state in suspect.states.items() if state is Class.MISSING}
        if len(lacking) == len(suspect.fields):
            return suspect.entry
        time, series, number, text = suspect.entry
        return time, series, number, self._fields.only(text, lacking)

    def _partition_of(self, number: int) -> Partition:
        return self.numbers.place(number)[0]


async def _next(answers: AsyncIterator[tuple[list[Entry], InfluxWindow]]) -> tuple[list[Entry], InfluxWindow] | None:
    return await anext(answers, None)
