"""One lane for each bucket of a route: its own requests, queue, pace, backoff and held requests.

A mapping that chooses the bucket of each point has one lane a bucket; the machine that delivers knows none of them.
What can happen to a bucket, and what follows:

| a bucket                              | its lane                            | the others     | the stored offset |
|---------------------------------------|-------------------------------------|----------------|-------------------|
| accepts                               | sends what it has                   | send           | moves             |
| is not there (404), full, forbidden   | waits and tries again, with its own | send; reading  | stays before the  |
| (401, 403), or its server is away     | backoff, until it is corrected      | goes on        | first of its lines|
| … with on_unavailable: dead_letter    | after `max_retries` its messages    | send           | moves             |
|                                       | become dead letters                 |                |                   |
| … with on_unavailable: stop           | after `max_retries` stops the route | stop with it   | stays             |
| … and its queue is full               | takes no more                       | send what they | stays             |
|                                       |                                     | have; reading  |                   |
|                                       |                                     | pauses         |                   |
| … and too much is not settled         | as it is                            | as above       | stays             |
| refuses lines                         | `on_error`, as for any refusal      | send           | moves             |
| refuses every line, and names none    | holds them (`delivery.held`); the   | send; then     | stays             |
|                                       | third request in a row stops the    | stop with it   |                   |
|                                       | route                               |                |                   |
| is not in `buckets` of the pipeline   | there is none: the point fails, and | send           | moves             |
|                                       | `on_error` decides                  |                |                   |
| … after a stop was requested          | one last attempt, then the route is | end with it    | stays             |
|                                       | interrupted                         |                |                   |

Two requests of one lane that write one point keep their order; points of different buckets are different points.
Memory: a lane has at most `max_in_flight` requests under way, `MOST_WAITING` in its queue and one being filled.  The
messages that are read and not settled have at most `MOST_UNSETTLED_BYTES`; beyond either bound reading pauses.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.verdicts import Impossible, Unavailable, Verdict
from iggyflux.errors import NotConnected, Stopped
from iggyflux.runner.deliver import SinkState
from iggyflux.runner.ledger import Job, Share
from iggyflux.runner.request_sender import RequestSender
from iggyflux.runner.requests import Request, RequestBuilder
from iggyflux.transports.base import LineSink

MOST_WAITING: Final = 4
"""The most full requests in the queue of a lane."""
MOST_UNSETTLED_BYTES: Final = 64_000_000
"""The most bytes of payloads that are read and not settled."""


class BucketSink(LineSink):
    """The sink of one bucket: what only a person can correct counts as a bucket that is away, until it is corrected."""

    def __init__(self, sink: LineSink, like: LineSink) -> None:
        """`like` is a connected sink to the same server."""
        self._sink = sink
        self._like = like
        self._is_connected = False

    @property
    def dialect(self) -> str:
        """The dialect of the server."""
        return self._like.dialect

    @property
    def in_flight(self) -> Bounds | None:
        """The bounds of the server."""
        return self._like.in_flight

    async def connect(self) -> None:
        """Connect.  Raise `NotConnected`, also where a person must act."""
        try:
            await self._sink.connect()
        except Stopped as error:
            raise NotConnected(error.reason) from error
        self._is_connected = True

    async def write(self, lines: Sequence[str]) -> Verdict:
        """Return the verdict of the sink; it is connected first where it is not."""
        if not self._is_connected:
            try:
                await self.connect()
            except NotConnected as error:
                return Unavailable(str(error), retry_after_seconds=error.retry_after_seconds)
        verdict = await self._sink.write(lines)
        return Unavailable(verdict.reason, verdict.status) if isinstance(verdict, Impossible) else verdict

    async def close(self) -> None:
        """Close the sink."""
        await self._sink.close()


class Lane:
    """The requests of one bucket over one connection of the source."""

    def __init__(self, builder: RequestBuilder, sender: RequestSender, state: SinkState) -> None:
        self._builder = builder
        self._sender = sender
        self._state = state
        self._waiting: deque[Request] = deque()
        self._change = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._is_flushing = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return not self._waiting and self._sender.is_idle

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return len(self._waiting)

    @property
    def lingering(self) -> int:
        """The number of lines that wait for a full request."""
        return len(self._builder)

    @property
    def in_flight(self) -> int:
        """The number of requests that wait or are under way."""
        return len(self._waiting) + self._sender.in_flight

    @property
    def is_holding(self) -> bool:
        """Whether requests are held."""
        return self._sender.is_holding

    async def until_answered(self) -> None:
        """Return when no request waits or is under way: each is settled or held."""
        while self._pump is not None and not self._pump.done():
            await asyncio.wait([self._pump])
        await self._sender.until_answered()

    async def add(self, share: Share, tasks: asyncio.TaskGroup) -> None:
        """Add the lines of a batch that are for this bucket; wait while the queue is full."""
        for request in self._builder.add(share):
            await self._put(request, tasks)

    async def flush(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers, after what waits: a queue of small requests would be full too soon."""
        if self._waiting:
            self._is_flushing = True
        elif len(self._builder):
            await self._put(self._builder.take(), tasks)

    async def finish(self) -> None:
        """Wait until everything is settled: no request will follow."""
        if self._pump is not None:
            await asyncio.wait([self._pump])
        await self._sender.finish()

    async def _put(self, request: Request, tasks: asyncio.TaskGroup) -> None:
        while len(self._waiting) >= MOST_WAITING:
            self._change.clear()
            await self._change.wait()
        self._waiting.append(request)
        self._state.queued = len(self._waiting)
        if self._pump is None or self._pump.done():
            self._pump = tasks.create_task(self._send(tasks))
        await asyncio.sleep(0)

    async def _send(self, tasks: asyncio.TaskGroup) -> None:
        """Send what waits, in its order, as the pace of this bucket allows."""
        while self._waiting:
            request = self._waiting.popleft()
            self._state.queued = len(self._waiting)
            self._change.set()
            await self._sender.send(request, tasks)
            if self._is_flushing and not self._waiting and len(self._builder):
                self._waiting.append(self._builder.take())
                self._is_flushing = False


class Outlet(Protocol):
    """Where a transfer sends the lines of its batches."""

    async def add(self, job: Job, tasks: asyncio.TaskGroup) -> None:
        """Send the lines of a batch as requests become full; wait while too much is under way."""

    async def flush(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers."""

    async def until_answered(self) -> None:
        """Wait until each request is settled or held."""

    async def finish(self) -> None:
        """Wait until everything is settled: no batch will follow."""

    @property
    def in_flight(self) -> int:
        """The number of requests that wait or are under way."""

    @property
    def is_holding(self) -> bool:
        """Whether requests are held."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is under way."""

    @property
    def lingering(self) -> int:
        """The number of lines that wait for a full request."""


class OneOutlet(Outlet):
    """The requests of a route that writes to one place."""

    def __init__(self, builder: RequestBuilder, sender: RequestSender) -> None:
        self._builder = builder
        self._sender = sender

    async def add(self, job: Job, tasks: asyncio.TaskGroup) -> None:
        """Send the requests that are full."""
        for request in self._builder.add(Share(job, job.rendered.lines, range(len(job.rendered.lines)))):
            await self._sender.send(request, tasks)

    async def flush(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers."""
        if len(self._builder):
            await self._sender.send(self._builder.take(), tasks)

    async def until_answered(self) -> None:
        """Wait until each request is settled or held."""
        await self._sender.until_answered()

    async def finish(self) -> None:
        """Wait for the requests in flight."""
        await self._sender.finish()

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return self._sender.in_flight

    @property
    def is_holding(self) -> bool:
        """Whether requests are held."""
        return self._sender.is_holding

    @property
    def is_idle(self) -> bool:
        """Whether no request is in flight."""
        return self._sender.is_idle

    @property
    def lingering(self) -> int:
        """The number of lines that wait for a full request."""
        return len(self._builder)


class Lanes(Outlet):
    """The lanes of a route over one connection of its source; `make` returns that of a bucket."""

    def __init__(self, make: Callable[[str], Lane]) -> None:
        self._make = make
        self._lanes: dict[str, Lane] = {}

    async def add(self, job: Job, tasks: asyncio.TaskGroup) -> None:
        """Add the lines of a batch to the lanes of their buckets."""
        for bucket, share in shares_of(job):
            lane = self._lanes.get(bucket)
            if lane is None:
                lane = self._lanes[bucket] = self._make(bucket)
            await lane.add(share, tasks)

    async def flush(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers, of those first whose queue has room: a full one holds up no other."""
        for lane in sorted(self._lanes.values(), key=lambda lane: lane.waiting):
            await lane.flush(tasks)

    async def until_answered(self) -> None:
        """Wait until each request of each lane is settled or held."""
        for lane in self._lanes.values():
            await lane.until_answered()

    @property
    def in_flight(self) -> int:
        """The number of requests that wait or are under way."""
        return sum(lane.in_flight for lane in self._lanes.values())

    @property
    def is_holding(self) -> bool:
        """Whether a lane holds requests."""
        return any(lane.is_holding for lane in self._lanes.values())

    async def finish(self) -> None:
        """Wait until everything is settled."""
        await asyncio.gather(*(lane.finish() for lane in self._lanes.values()))

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return all(lane.is_idle for lane in self._lanes.values())

    @property
    def lingering(self) -> int:
        """The number of lines that wait for a full request."""
        return sum(lane.lingering for lane in self._lanes.values())


def shares_of(job: Job) -> Iterator[tuple[str, Share]]:
    """Yield the buckets of a batch with their lines, in their order."""
    rendered = job.rendered
    if rendered.buckets is None:
        yield "", Share(job, rendered.lines, range(len(rendered.lines)))
        return
    found: dict[str, list[int]] = {}
    for index, bucket in enumerate(rendered.buckets):
        found.setdefault(bucket, []).append(index)
    for bucket, indices in found.items():
        yield bucket, Share(job, [rendered.lines[index] for index in indices], indices)
