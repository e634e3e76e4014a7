"""Send what is new or changed of a window: render rows, mark messages, send them until they are confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from hashlib import blake2b

import msgspec

from iggyflux.cursors import Deduplicator, Mark
from iggyflux.delivery.windows import Read
from iggyflux.errors import NotConnected, Stopped
from iggyflux.plan.digests import digest_rows
from iggyflux.records import DeadLetter, Failure, Message, OutgoingMessage, Row
from iggyflux.runner.failures import FailureHandler, reasons_by_record
from iggyflux.runner.route import ReaderRoute
from iggyflux.runner.session import Session
from iggyflux.runner.status import ReaderStatus, RouteStatus
from iggyflux.telemetry.tracing import Requests, Traces
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.base import Window, Worker


class MessageSender:
    """Sends messages in pages, and each page again until it is confirmed."""

    def __init__(
        self,
        route: ReaderRoute,
        status: RouteStatus,
        session: Session,
        asking: Callable[[str], AbstractContextManager[None]],
        seconds: Callable[[], float],
        traces: Traces,
    ) -> None:
        """`asking` returns a context in which an answer of the sink is waited for, `seconds` the time of the clock."""
        self._seconds = seconds
        self._traces = traces
        self._asking = asking
        self._sink = route.sink
        self._page_size = route.page_size
        self._status = status
        self._session = session
        self._is_connected = False
        self._is_unreachable = False

    async def connect(self) -> None:
        """Connect the sink, unless it is connected."""
        if not self._is_connected:
            try:
                with self._asking("connecting"):
                    await self._sink.connect()
            except NotConnected:
                self._is_unreachable = self._status.is_away = True
                raise
            self._is_connected = True
            if self._is_unreachable:
                self._is_unreachable = self._status.is_away = False

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        """Return when all `messages` are confirmed."""
        if headers := self._traces.current.headers:
            messages = [msgspec.structs.replace(each, headers={**headers, **each.headers}) for each in messages]
        for first in range(0, len(messages), self._page_size):
            page = messages[first : first + self._page_size]
            self._status.in_flight += 1
            requests = self._traces.current.requests()
            try:
                await self._session.until_confirmed(partial(self._send_page, page, requests))
            finally:
                self._status.in_flight -= 1
            self._status.delivered += len(page)

    async def _send_page(self, page: Sequence[OutgoingMessage], requests: Requests) -> None:
        await self.connect()
        status = self._status
        status.requests += 1
        status.request_size.observe(len(page))
        status.sent_bytes += sum(len(message.payload) for message in page)
        began = self._seconds()
        try:
            with self._asking(f"{len(page)} messages"), requests.attempt(len(page)):
                await self._sink.send(page)
        except NotConnected:
            self._is_connected = False
            raise
        finally:
            status.request_seconds.observe(self._seconds() - began)


class Publisher:
    """Sends the windows of one run."""

    def __init__(
        self,
        route: ReaderRoute,
        status: RouteStatus,
        progress: ReaderStatus,
        session: Session,
        sender: MessageSender,
        worker: Worker,
        traces: Traces,
    ) -> None:
        """`worker` renders rows."""
        self._traces = traces
        self._worker = worker
        self._route = route
        self._status = status
        self._progress = progress
        self._session = session
        self._sender = sender
        self.failures = FailureHandler(route, status, self._put, record="row")

    def use(self, route: ReaderRoute) -> None:
        """Publish by the plan of a changed route from the next window on."""
        self._route = self.failures.route = route

    async def publish(self, read: Read, window: Window, deduplicator: Deduplicator) -> int:
        """Send what is new or changed of a window; return the number of its rows when everything is confirmed."""
        if self._route.plan.whole_windows:
            return await self._publish_whole(read, window, deduplicator)
        return await self._publish_rows(read, window, deduplicator)

    async def _publish_rows(self, read: Read, window: Window, deduplicator: Deduplicator) -> int:
        """Render one chunk while the one before it is being sent."""
        count = 0
        sending: asyncio.Task[None] | None = None
        try:
            async for rows in window.chunks():
                _check_times(rows, read, self._route.column)
                count += len(rows)
                self._status.read += len(rows)
                digests = digest_rows(rows)
                selected = deduplicator.select(rows, digests)
                self._count(len(rows), selected)
                if fresh := [(rows[index], digests[index], mark) for index, mark in selected]:
                    messages = await self._render(fresh)
                    if sending is not None:
                        await sending
                    sending = asyncio.create_task(self._sender.send(messages))
                    await asyncio.sleep(0)  # starts the send before the next chunk occupies the event loop
            if sending is not None:
                await sending
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        return count

    async def _publish_whole(self, read: Read, window: Window, deduplicator: Deduplicator) -> int:
        """Render all rows of a window at once: a message may be made of many rows, and is sent again as a whole."""
        column = self._route.column
        entries: list[tuple[int, bytes, Row]] = []
        async for chunk in window.chunks():
            _check_times(chunk, read, column)
            self._status.read += len(chunk)
            entries += zip((row.columns[column] for row in chunk), digest_rows(chunk), chunk, strict=True)  # type: ignore[misc]
        entries.sort(key=lambda entry: entry[:2])  # the ids depend on the order, and servers order ties at will
        rows, digests = [row for *_, row in entries], [digest for _, digest, _ in entries]
        with self._traces.current.step("render"):
            rendered = await self._worker.call(self._route.plan.render, rows, digests)
        self._status.count_fallback(self._route.mapping, rendered.fallback)
        sent = [message.id.to_bytes(16, "big") for message in rendered.messages]
        failed = [_failure_digest(failure, digests) for failure in rendered.failures]
        fresh, mark = deduplicator.select_messages([*sent, *failed])
        messages = [self._marked(rendered.messages[index], mark) for index in fresh if index < len(sent)]
        failures = [rendered.failures[index - len(sent)] for index in fresh if index >= len(sent)]
        self._progress.seen_again += len(sent) + len(failed) - len(fresh)
        self._progress.changed += len(messages) if mark else 0
        self._status.points += len(messages)
        await self._handle(failures, rows, digests)
        await self._sender.send(messages)
        return len(rows)

    def _count(self, rows: int, selected: Sequence[tuple[int, Mark]]) -> None:
        progress = self._progress
        progress.seen_again += rows - len(selected)
        for _, mark in selected:
            if mark:
                if mark == "late":
                    progress.late += 1
                else:
                    progress.changed += 1

    # Rendering

    async def _render(self, fresh: Sequence[tuple[Row, bytes, Mark]]) -> list[OutgoingMessage]:
        """Return the messages of rows; handle the rows that fail."""
        route = self._route
        rows, digests = [row for row, *_ in fresh], [digest for _, digest, _ in fresh]
        with self._traces.current.step("render"):
            rendered = await self._worker.call(route.plan.render, rows, digests)
        self._status.count_fallback(route.mapping, rendered.fallback)
        messages = list(rendered.messages)
        if route.mark is not None:
            messages = [
                self._marked(message, fresh[origin][2])
                for message, origin in zip(messages, rendered.origins, strict=True)
            ]
        self._status.points += len(messages)
        await self._handle(rendered.failures, rows, digests)
        return messages

    def _marked(self, message: OutgoingMessage, mark: Mark) -> OutgoingMessage:
        if not mark or self._route.mark is None:
            return message
        return msgspec.structs.replace(message, headers={**message.headers, self._route.mark: mark})

    # Failures

    async def _handle(self, failures: Sequence[Failure], rows: Sequence[Row], digests: Sequence[bytes]) -> None:
        column = self._route.column
        self.failures.report_failures(failures, lambda index: _place_of(rows[index], column))
        reasons, trace = reasons_by_record(failures), self._traces.current
        await self.failures.keep(reasons, lambda index: self._letter(rows[index], digests[index]), trace)

    async def _put(self, letters: Sequence[DeadLetter]) -> str | None:
        file: str | None = None

        async def put() -> None:
            nonlocal file
            file = await self._route.dead_letters.put(letters)

        await self._session.until_confirmed(put)
        return file

    def _letter(self, row: Row, digest: bytes) -> Message:
        """Return the message that a dead letter keeps for a row: its columns, as `dry-run` reads rows."""
        time_ns = row.columns[self._route.column]
        timestamp_us = max(time_ns // 1000, 0) if isinstance(time_ns, int) else 0
        payload = msgspec.json.encode(row.columns)
        number = int.from_bytes(digest, "big")
        return Message(payload, self._route.stream, self._route.topic, 0, 0, timestamp_us, timestamp_us, number)


def _check_times(rows: Sequence[Row], read: Read, column: str) -> None:
    """Raise `Stopped` if a row is not of the window."""
    hint = "select the time in the statement, and bound it: … WHERE time >= $start AND time < $stop"
    try:
        times = [row.columns[column] for row in rows]
        if not times or (read.start <= min(times) and max(times) < read.stop):  # type: ignore[type-var, operator]
            return
        found = f"rows of {format_rfc3339(min(times))} to {format_rfc3339(max(times))}"  # type: ignore[arg-type, type-var]
    except KeyError:
        found = f"a row without the column {column!r}"
        hint = (
            "select the time in the statement, or name its column in `cursor.column`; in Flux it is _time, which map() "
            "without `with`, and aggregates, drop"
        )
    except TypeError:
        found = f"a row whose column {column!r} is not a time"
    span = f"{format_rfc3339(read.start)} to {format_rfc3339(read.stop)}"
    raise Stopped(f"the answer for {span} has {found}", hint, "IFX644")


def _failure_digest(failure: Failure, digests: Sequence[bytes]) -> bytes:
    """Return what identifies a failure of a whole window, so that it is kept once."""
    text = f"{failure.code} {failure.location} {failure.point}".encode()
    return blake2b(digests[failure.index] + text, digest_size=16).digest()


def _place_of(row: Row, column: str) -> str:
    """Return measurement, tags and time of a row."""
    tags = row.tags if row.tags is not None else [name for name, value in row.columns.items() if isinstance(value, str)]
    named = "".join(f",{name}={row.columns[name]}" for name in sorted(tags) if name in row.columns)
    found = row.columns.get(column)
    when = format_rfc3339(found) if isinstance(found, int) else repr(found)
    return f"{row.measurement}{named[:200]}@{when}"
