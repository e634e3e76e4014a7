"""One reader: fetch a window, leave out what was seen, render, send, and only then store how far it is.

Which window is next is `delivery.windows`' business, what was seen is `cursors`'.  Everything that can happen, and what
the reader then does:

| while        | this happens                       | the reader                                                      |
|--------------|------------------------------------|-----------------------------------------------------------------|
| opening      | another process has the cursor; it | stops (IFX702, IFX701, IFX640)                                  |
|              | is damaged, or of another query    |                                                                 |
|              | NotConnected (a topic)             | waits, opens again, for ever                                    |
| connecting   | InfluxDB or sink: NotConnected     | waits (backoff with jitter, capped), connects again, for ever   |
|              | Stopped                            | stops                                                           |
| asking, time | NotConnected                       | connects again and asks again: nothing was sent                 |
| or rows      | TooMuch                            | asks for a smaller window; at one nanosecond stops (IFX642)     |
|              | Stopped                            | stops                                                           |
|              | rows that were not asked for       | stops (IFX644): the statement does not keep to its window       |
| rendering    | rows fail, on_error dead_letter    | sends the others; the rows become dead letters                  |
|              | … skip                             | sends the others; counts                                        |
|              | … fail                             | stops (IFX620)                                                  |
| sending      | confirmed                          | goes on with the window; after its last message stores          |
|              | NotConnected                       | connects again and sends the same messages again, same ids      |
|              | Stopped                            | stops                                                           |
| dead letters | NotConnected (a topic)             | as sending                                                      |
|              | Stopped (full, unwritable)         | stops                                                           |
| storing      | stored                             | the window is settled                                           |
|              | NotConnected (a topic)             | connects again and sends the same again                         |
|              | Stopped (full, unwritable; another | stops                                                           |
|              | run has stored to the topic)       |                                                                 |
| any time     | told to stop                       | leaves a query, finishes a window that is being sent, ends      |
|              | … and the sink is away, or the     | abandons the window                                             |
|              | deadline passes                    |                                                                 |
| any time     | the process dies                   | the next one reads the window again, and sends it again, with   |
|              |                                    | the same ids                                                    |

*Stops* and *abandons* mean: the window is not stored, so all of it comes again.  Nothing is ever left out because a
send failed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Protocol, TypeVar

import msgspec

from iggyflux.cursors import CursorStore, Deduplicator, Mark
from iggyflux.delivery.windows import (
    LIGHT_ROWS,
    AskFirst,
    AskTime,
    Finished,
    GiveUp,
    Position,
    Read,
    Rules,
    Wait,
    Windows,
)
from iggyflux.errors import NotConnected, Stopped, TooMuch
from iggyflux.mapping import OnError
from iggyflux.plan.digests import digest_rows
from iggyflux.records import (
    DeadLetter,
    Failure,
    Message,
    OutgoingMessage,
    Reason,
    RenderedMessages,
    Row,
)
from iggyflux.runner.deliver import Clock
from iggyflux.runner.events import emit
from iggyflux.runner.status import ReaderStatus, RouteStatus
from iggyflux.runner.stop import Stop
from iggyflux.runner.waiting import connect_ends, first_of, wait_to_connect
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.base import DeadLetterSink, MessageSink, RowSource, Worker
from iggyflux.transports.base import Window as Rows

_EMPTY_STORE_SECONDS = 1.0
"""Empty windows are stored so often, and with the next one that is not empty."""
_WAITS = {"empty": "the first point", "rate": "its turn: backfill_rate"}
_AHEAD_SECONDS = 60.0
_TELL_SECONDS = 10.0
_TOLD_FAILURES = 20

T = TypeVar("T")
log = logging.getLogger("iggyflux.runner")


class RowPlan(Protocol):
    """What a reader needs of a plan."""

    whole_windows: bool

    def render(self, rows: Sequence[Row], digests: Sequence[bytes] | None = None) -> RenderedMessages:
        """The messages of `rows`; pure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRoute:
    """Everything that one reader is made of.

    `mark` is the header that says of a message that it is `late` or `changed`; None asks for none.  `page_size` bounds
    the messages of one send.
    """

    name: str
    source: RowSource
    plan: RowPlan
    sink: MessageSink
    store: CursorStore
    dead_letters: DeadLetterSink
    rules: Rules
    page_size: int = 5000
    column: str = "time"
    mark: str | None = None
    mapping: str = ""
    mapping_hash: str = ""
    stream: str = ""
    topic: str = ""
    on_error: OnError = OnError.DEAD_LETTER


class ReaderRun:
    """One run of one reader.  `run` returns when it is done and raises `Stopped` when it stops."""

    def __init__(self, route: ReaderRoute, status: RouteStatus, stop: Stop, clock: Clock) -> None:
        self.route = route
        self.status = status
        self._progress = status.reader = ReaderStatus()
        self._stop = stop
        self._clock = clock
        self._worker = Worker("cursor")
        self._machine = Windows(route.rules)
        self._stored: Position | None = None
        self._stored_at = float("-inf")
        self._sink_is_connected = False
        self._told: set[tuple[str, str]] = set()
        self._told_at = float("-inf")
        self._ahead: tuple[Read, asyncio.Task[Rows]] | None = None
        self._told_empty = False
        self._told_ahead = False

    async def run(self) -> None:
        """Connect, read and send everything, reconnect as often as needed; closes the transports in any case."""
        route, attempt, connected, windows = self.route, 0, False, 0
        try:
            if not await self._open():
                self.status.state = "done"
                return
            self._machine = Windows(route.rules, self._stored)
            self._tell_opened()
            while not self._stop.requested.is_set():
                try:
                    if not connected:
                        await self._forget_ahead()
                        connected = await connect_ends(route.name, self.status, self._connect_both(), self._stop)
                    elif await self._step():
                        break
                except NotConnected as error:
                    attempt = 1 if self._progress.windows > windows else attempt + 1
                    connected, windows = False, self._progress.windows
                    await self._wait(attempt, error)
                except _Abandoned:
                    break
            await self._store_last()
            self.status.state = "done"
        finally:
            self.refresh()
            await self._forget_ahead()
            await self._worker.finish(route.store.close)
            for transport in (route.source, route.sink, route.dead_letters):
                await transport.close()

    def refresh(self) -> None:
        """Bring what only the machine knows to the status."""
        machine, progress = self._machine, self._progress
        progress.position, progress.live_to = machine.position, machine.live_to
        progress.measure(self._clock.monotonic())

    # --- steps ---

    async def _open(self) -> bool:
        """Take the cursor, however long its server is away; False where we are told to stop meanwhile."""
        attempt = 0
        while True:
            try:
                self._stored = await self._worker.call(self.route.store.open)
            except NotConnected as error:
                if self._stop.requested.is_set():
                    return False
                attempt += 1
                self.status.state = "connecting"
                await self._wait(attempt, error)
            else:
                return True

    async def _step(self) -> bool:
        """Do what the machine says; True at the end."""
        machine, source = self._machine, self.route.source
        match machine.next(self._clock.monotonic()):
            case AskTime():
                now = await self._unless_stopped(source.now())
                if now is not None:
                    self._look_at_clock(now)
                    machine.told_time(now, self._clock.monotonic())
                    await self._store_position()
            case AskFirst():
                found = await self._unless_stopped(_boxed(source.first()))
                if found == (None,) and not self._told_empty:
                    self._told_empty = True
                    emit(log, logging.WARNING, "reader.empty", route=self.route.name, reason="no rows yet")
                if found is not None:
                    machine.told_first(found[0], self._clock.monotonic())
                    await self._store_position()
            case Read() as read:
                await self._read(read)
            case Wait(seconds, reason):
                self.status.state = "running" if reason == "rate" else "idle"
                self.status.waiting_for = _WAITS.get(reason)
                await first_of(self._clock.sleep(seconds), self._stop.requested.wait())
            case GiveUp(start, stop):
                raise _hopeless(start, stop, self.route)
            case Finished():
                return True
        return False

    def _look_at_clock(self, now: int) -> None:
        """A server whose clock is ahead lets us read what is not written yet, and call it read."""
        ahead = now / 1e9 - time.time()
        if ahead > _AHEAD_SECONDS and not self._told_ahead:
            self._told_ahead = True
            hint = "correct one of the clocks: points of the time between may be missed"
            emit(log, logging.WARNING, "reader.clock", route=self.route.name, ahead_seconds=round(ahead), hint=hint)

    async def _store_position(self) -> None:
        """Store a position that moved without a window: a reader that opened, or a tail that jumped."""
        if self._machine.position is not None and self._machine.position != self._stored:
            await self._commit(None)

    async def _store_last(self) -> None:
        """As `_store_position`, at the end: where it cannot be stored, what was sent since comes again."""
        try:
            await self._store_position()
        except _Abandoned as error:
            emit(log, logging.WARNING, "reader.not_stored", route=self.route.name, reason=error.__cause__)

    async def _commit(self, deduplicator: Deduplicator | None) -> None:
        position, store = self._machine.position, self.route.store
        assert position is not None  # noqa: S101  # a window has one
        await self._until_confirmed(
            partial(self._worker.call, store.commit, position, deduplicator), None, is_request=False
        )
        self._stored, self._stored_at = position, self._clock.monotonic()
        self.refresh()

    async def _read(self, read: Read) -> None:
        """Fetch a window, send what is new of it, store."""
        self.status.state = "running"
        self.status.waiting_for = None
        try:
            window = await self._unless_stopped(await self._fetching(read))
        except TooMuch as error:
            self._machine.too_much()
            emit(log, logging.INFO, "reader.too_much", **self._span(read), reason=error)
            return
        if window is None:
            return
        deduplicator = None
        try:
            self._fetch_ahead(window)
            whole = self.route.plan.whole_windows
            deduplicator = await self._worker.call(self.route.store.deduplicator, read, self.route.column, whole=whole)
            if deduplicator.needs_survey:
                async for rows in window.chunks():
                    deduplicator.survey(rows, digest_rows(rows))
                await self._worker.call(deduplicator.compare)
            count = await (self._publish_whole if whole else self._publish)(read, window, deduplicator)
            self._machine.read(count, self._clock.monotonic())
            if count or self._clock.monotonic() - self._stored_at >= _EMPTY_STORE_SECONDS:
                await self._commit(deduplicator)
        finally:
            if deduplicator is not None:
                deduplicator.close()
            window.close()
        self.status.acknowledged += count
        self._progress.windows += 1
        self._tell_progress(read, count)

    async def _fetching(self, read: Read) -> asyncio.Task[Rows]:
        """The fetch of a window, which may be under way already."""
        ahead = self._ahead
        if ahead is not None and (ahead[0].start, ahead[0].stop) == (read.start, read.stop):
            self._ahead = None
            return ahead[1]
        if ahead is not None and ahead[0].lane == read.lane:
            await self._forget_ahead()
        return asyncio.ensure_future(self.route.source.fetch(read.start, read.stop))

    def _fetch_ahead(self, window: Rows) -> None:
        """Let the server answer for the next window of the past while this one is being sent."""
        read = self._machine.foresee(LIGHT_ROWS if window.rows is None else window.rows, self._clock.monotonic())
        if read is not None and self._ahead is None:
            self._ahead = read, asyncio.ensure_future(self.route.source.fetch(read.start, read.stop))

    async def _forget_ahead(self) -> None:
        if self._ahead is None:
            return
        (_, task), self._ahead = self._ahead, None
        task.cancel()
        (found,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(found, BaseException):
            found.close()

    async def _publish(self, read: Read, window: Rows, deduplicator: Deduplicator) -> int:
        """Send what is new or changed; everything is confirmed when it returns.  Gives the number of rows.

        While a chunk is being sent the next one is rendered.
        """
        count = 0
        sending: asyncio.Task[None] | None = None
        try:
            async for rows in window.chunks():
                self._check_times(rows, read)
                count += len(rows)
                self.status.read += len(rows)
                digests = digest_rows(rows)
                chosen = deduplicator.select(rows, digests)
                self._count(len(rows), chosen)
                if fresh := [(rows[index], digests[index], mark) for index, mark in chosen]:
                    messages = await self._render(fresh)
                    if sending is not None:
                        await sending
                    sending = asyncio.create_task(self._send(messages))
                    await asyncio.sleep(0)  # it is under way before the next chunk takes the loop
            if sending is not None:
                await sending
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        return count

    async def _publish_whole(self, read: Read, window: Rows, deduplicator: Deduplicator) -> int:
        """As `_publish`, where messages are made of many rows: those that are not what was sent are sent whole."""
        column = self.route.column
        found: list[tuple[int, bytes, Row]] = []
        async for chunk in window.chunks():
            self._check_times(chunk, read)
            self.status.read += len(chunk)
            found += zip((row.columns[column] for row in chunk), digest_rows(chunk), chunk, strict=True)  # type: ignore[misc]
        found.sort(key=lambda each: each[:2])  # rows of one time come in any order, and the ids are of the order
        rows, digests = [row for *_, row in found], [digest for _, digest, _ in found]
        rendered = self.route.plan.render(rows, digests)
        self.status.count_fallback(self.route.mapping, rendered.fallback)
        made = [message.id.to_bytes(16, "big") for message in rendered.messages]
        failed = [_failure_digest(failure, digests) for failure in rendered.failures]
        fresh, mark = deduplicator.select_messages([*made, *failed])
        messages = [self._marked(rendered.messages[index], mark) for index in fresh if index < len(made)]
        failures = [rendered.failures[index - len(made)] for index in fresh if index >= len(made)]
        self._progress.seen_again += len(made) + len(failed) - len(fresh)
        self._progress.changed += len(messages) if mark else 0
        self.status.points += len(messages)
        if failures:
            await self._judge(rows, digests, failures)
        await self._send(messages)
        return len(rows)

    def _check_times(self, rows: Sequence[Row], read: Read) -> None:
        column = self.route.column
        try:
            times = [row.columns[column] for row in rows]
            if not times or (read.start <= min(times) and max(times) < read.stop):  # type: ignore[type-var, operator]
                return
            found = f"rows of {_text(min(times))} to {_text(max(times))}"  # type: ignore[arg-type, type-var]
        except KeyError:
            found = f"a row without the column {column!r}"
        except TypeError:
            found = f"a row whose column {column!r} is not a time"
        hint = "select the time in the statement, and bound it: … WHERE time >= $start AND time < $stop"
        raise Stopped(f"the answer for {_text(read.start)} to {_text(read.stop)} has {found}", hint, "IFX644")

    def _count(self, rows: int, chosen: Sequence[tuple[int, Mark]]) -> None:
        progress = self._progress
        progress.seen_again += rows - len(chosen)
        for _, mark in chosen:
            if mark:
                if mark == "late":
                    progress.late += 1
                else:
                    progress.changed += 1

    # --- rendering ---

    async def _render(self, fresh: Sequence[tuple[Row, bytes, Mark]]) -> list[OutgoingMessage]:
        """The messages of rows; what fails is judged."""
        route = self.route
        rows = [row for row, *_ in fresh]
        rendered = route.plan.render(rows, [digest for _, digest, _ in fresh])
        self.status.count_fallback(route.mapping, rendered.fallback)
        messages = list(rendered.messages)
        if route.mark is not None:
            messages = [
                self._marked(message, fresh[origin][2])
                for message, origin in zip(messages, rendered.origins, strict=True)
            ]
        self.status.points += len(messages)
        if rendered.failures:
            await self._judge(rows, [digest for _, digest, _ in fresh], rendered.failures)
        return messages

    def _marked(self, message: OutgoingMessage, mark: Mark) -> OutgoingMessage:
        if not mark or self.route.mark is None:
            return message
        return msgspec.structs.replace(message, headers={**message.headers, self.route.mark: mark})

    async def _judge(self, rows: Sequence[Row], digests: Sequence[bytes], failures: Sequence[Failure]) -> None:
        """Tell each kind of failure once; keep the rows, or stop where the mapping says so."""
        route, status = self.route, self.status
        status.failed += len(failures)
        by_row: dict[int, list[Reason]] = {}
        for failure in failures:
            place = row_place(rows[failure.index], route.column)
            if route.on_error is OnError.FAIL:
                hint = "correct the mapping, or set `on_error: dead_letter`; the row is read again"
                where = f" at {failure.location}" if failure.location else ""
                message = f"{place}: {failure.code}: {failure.reason}{where}, and on_error is fail"
                raise Stopped(message, hint, "IFX620")
            kind = (failure.code, failure.location)
            if kind not in self._told and len(self._told) < _TOLD_FAILURES:
                self._told.add(kind)
                emit(
                    log,
                    logging.WARNING,
                    "record.failed",
                    route=route.name,
                    at=place,
                    code=failure.code,
                    reason=failure.reason,
                    location=failure.location or None,
                )
            reason = Reason(failure.code, failure.reason, failure.location, failure.element, failure.point)
            by_row.setdefault(failure.index, []).append(reason)
        if route.on_error is OnError.SKIP:
            status.dropped += len(by_row)
            return
        letters = [
            DeadLetter(self._kept(rows[index], digests[index]), route.mapping, route.mapping_hash, tuple(reasons))
            for index, reasons in sorted(by_row.items())
        ]
        await self._until_confirmed(lambda: route.dead_letters.put(letters), None)
        status.dead_letters += len(letters)

    def _kept(self, row: Row, digest: bytes) -> Message:
        """A row as a message of its columns: what `dry-run` reads as a row again."""
        time_ns = row.columns[self.route.column]
        timestamp_us = max(time_ns // 1000, 0) if isinstance(time_ns, int) else 0
        payload = msgspec.json.encode(row.columns)
        number = int.from_bytes(digest, "big")
        return Message(payload, self.route.stream, self.route.topic, 0, 0, timestamp_us, timestamp_us, number)

    # --- sending ---

    async def _send(self, messages: Sequence[OutgoingMessage]) -> None:
        sink, size = self.route.sink, self.route.page_size
        for first in range(0, len(messages), size):
            page = messages[first : first + size]
            self.status.in_flight += 1
            try:
                await self._until_confirmed(partial(sink.send, page), sink)
            finally:
                self.status.in_flight -= 1
            self.status.delivered += len(page)

    async def _until_confirmed(
        self, send: Callable[[], Awaitable[None]], sink: MessageSink | None, *, is_request: bool = True
    ) -> None:
        """Send until it is confirmed, however long the other side is away; `_Abandoned` where we are told to stop."""
        attempt = 0
        while True:
            try:
                if sink is not None and not self._sink_is_connected:
                    await sink.connect()
                    self._sink_is_connected = True
                self.status.requests += is_request
                await send()
            except NotConnected as error:
                attempt += 1
                if sink is not None:
                    self._sink_is_connected = False
                if self._stop.requested.is_set():
                    raise _Abandoned from error
                self.status.retries += 1
                await self._wait(attempt, error)
            else:
                if attempt:
                    self.status.waiting_for = None
                    emit(log, logging.INFO, "delivery.back", route=self.route.name)
                return

    # --- connecting and waiting ---

    async def _connect_both(self) -> None:
        await self.route.dead_letters.connect()
        if not self._sink_is_connected:
            await self.route.sink.connect()
            self._sink_is_connected = True
        await self.route.source.connect()

    async def _wait(self, attempt: int, error: NotConnected) -> None:
        await wait_to_connect(self.route.name, self.status, attempt, error, self._clock, self._stop)

    async def _unless_stopped(self, work: Awaitable[T]) -> T | None:
        """What `work` gives; None where the wish to stop comes first: then it is cancelled."""
        task = asyncio.ensure_future(work)
        await first_of(task, self._stop.requested.wait())
        return None if task.cancelled() else task.result()

    # --- telling ---

    def _span(self, read: Read) -> dict[str, object]:
        return {
            "route": self.route.name,
            "lane": read.lane,
            "start": _text(read.start),
            "stop": _text(read.stop),
        }

    def _tell_opened(self) -> None:
        position, self._told_at = self._stored, self._clock.monotonic()
        if position is None:
            emit(log, logging.INFO, "reader.begins", route=self.route.name, start=_shown(self.route.rules.start))
            return
        gap = None if position.gap is None else f"{_text(position.gap[0])}/{_text(position.gap[1])}"
        emit(log, logging.INFO, "reader.resumes", route=self.route.name, at=_text(position.done), backfill=gap)

    def _tell_progress(self, read: Read, rows: int) -> None:
        emit(log, logging.DEBUG, "reader.window", **self._span(read), rows=rows)
        now, progress = self._clock.monotonic(), self._progress
        if read.lane == "backfill" and progress.position is not None and progress.position.gap is None:
            emit(log, logging.INFO, "reader.backfilled", route=self.route.name, until=_text(read.stop))
        elif progress.share is not None and now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            emit(
                log,
                logging.INFO,
                "reader.progress",
                **self._span(read),
                done=f"{progress.share:.1%}",
                left=None if progress.seconds_left is None else f"{progress.seconds_left:.0f}s",
                messages=self.status.delivered,
            )


class _Abandoned(Exception):  # not a fault
    """Told to stop while the other side is away: the window comes again."""


def _failure_digest(failure: Failure, digests: Sequence[bytes]) -> bytes:
    """What tells a failure from others, so that it is told once."""
    text = f"{failure.code} {failure.location} {failure.point}".encode()
    return blake2b(digests[failure.index] + text, digest_size=16).digest()


def row_place(row: Row, column: str) -> str:
    """Which row it is, for people: measurement, tags, time."""
    tags = row.tags if row.tags is not None else [name for name, value in row.columns.items() if isinstance(value, str)]
    named = "".join(f",{name}={row.columns[name]}" for name in sorted(tags) if name in row.columns)
    found = row.columns.get(column)
    when = _text(found) if isinstance(found, int) else repr(found)
    return f"{row.measurement}{named[:200]}@{when}"


def _hopeless(start: int, stop: int, route: ReaderRoute) -> Stopped:
    if route.rules.grid:
        hint = "use a smaller `cursor.window`: each message is made of all rows of its series or window"
    else:
        hint = "read less: filter by tag with `where`, or select fewer `fields`"
    what = "one nanosecond" if stop - start == 1 else "one window"
    return Stopped(f"{what} has more rows than can be read at once: {_text(start)}", hint, "IFX642")


def _text(time_ns: int) -> str:
    return format_rfc3339(time_ns)


def _shown(start: int | str) -> str:
    return start if isinstance(start, str) else _text(start)


async def _boxed(work: Awaitable[T]) -> tuple[T]:
    """The result in a box, so that None is a result too."""
    return (await work,)
