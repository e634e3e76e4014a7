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
| … and reading pauses for them alone   | settles them as at the end of the   | send, or stop  | moves, or stays   |
|                                       | input: no other line would follow   | with it        |                   |
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
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from iggyflux.runner.clock import Clock, first_of
from iggyflux.runner.ledger import Job, Share
from iggyflux.runner.places import Place, Places
from iggyflux.runner.request_sender import RequestSender
from iggyflux.runner.requests import Request, RequestBuilder

MOST_WAITING: Final = 4
"""So many full requests in the queue of a lane make reading pause."""
MOST_UNSETTLED_BYTES: Final = 64_000_000
"""So many bytes of payloads that are read and not settled make reading pause."""
UNUSED_SECONDS: Final = 60.0
"""A lane without a line for so long is closed."""

Settle = Callable[[Job], Awaitable[None]]


class Outlet(ABC):
    """Where a transfer sends the lines of its batches: one way, or a lane for each bucket."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    @abstractmethod
    async def add(self, job: Job, tasks: asyncio.TaskGroup) -> None:
        """Send the lines of a batch as requests become full; wait while too much is under way."""

    @abstractmethod
    async def flush(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers."""

    async def until_answered(self) -> None:
        """Return when no request waits or is under way in any lane: each is settled or held.

        A held request may be sent again while another lane is waited for.
        """
        while self.is_sending:
            for lane in list(self._lanes.values()):  # one may be closed meanwhile
                await lane.until_answered()

    @property
    def is_sending(self) -> bool:
        """Whether a request waits or is under way in a lane."""
        return any(lane.is_sending for lane in self._lanes.values())

    async def settle_held(self) -> None:
        """Settle the requests that are held: no line will follow before that.  Raise `Stopped`."""
        for lane in list(self._lanes.values()):
            await lane.sender.settle_held()

    async def finish(self) -> None:
        """Wait until everything is settled: no batch will follow."""
        for lane in list(self._lanes.values()):
            await lane.finish()

    @property
    def in_flight(self) -> int:
        """The number of requests that wait or are under way."""
        return sum(len(lane.waiting) + lane.sender.in_flight for lane in self._lanes.values())

    @property
    def is_holding(self) -> bool:
        """Whether requests are held."""
        return any(lane.sender.is_holding for lane in self._lanes.values())

    @property
    def lingering(self) -> int:
        """The number of lines that wait for a full request."""
        return sum(len(lane.builder) for lane in self._lanes.values())


class Lane:
    """The requests for one place over one connection of the source."""

    def __init__(self, place: Place, builder: RequestBuilder, sender: RequestSender) -> None:
        self.place = place
        self.builder = builder
        self.sender = sender
        self.waiting: deque[Request] = deque()
        self.moved = asyncio.Event()
        """Set when its queue became shorter."""
        self._pump: asyncio.Task[None] | None = None
        self._is_flushing = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing lingers, waits, is under way or is held."""
        return not (len(self.builder) or self.waiting or self.sender.in_flight or self.sender.is_holding)

    @property
    def is_sending(self) -> bool:
        """Whether a request waits or is under way."""
        return self.sender.is_sending or (self._pump is not None and not self._pump.done())

    async def until_answered(self) -> None:
        """Return when no request waits or is under way: each is settled or held."""
        if self._pump is not None:
            await asyncio.wait([self._pump])
        await self.sender.until_answered()

    async def finish(self) -> None:
        """Wait until everything is settled: no request will follow."""
        if self._pump is not None:
            await asyncio.wait([self._pump])
        await self.sender.finish()

    def add(self, share: Share, tasks: asyncio.TaskGroup) -> None:
        """Add the lines of a batch that are for this place to its queue."""
        self.waiting.extend(self.builder.add(share))
        self.place.state.queued = len(self.waiting)
        self._send_on(tasks)

    def flush(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers, after what waits: a queue of small requests would be full too soon."""
        self._is_flushing = True
        self._send_on(tasks)

    def _send_on(self, tasks: asyncio.TaskGroup) -> None:
        has_work = self.waiting or self._is_flushing
        if has_work and (self._pump is None or self._pump.done()):
            self._pump = tasks.create_task(self._send(tasks))

    async def _send(self, tasks: asyncio.TaskGroup) -> None:
        """Send what waits, in its order, as the pace of this place allows."""
        while (request := self._next()) is not None:
            await self.sender.send(request, tasks)

    def _next(self) -> Request | None:
        """Return the next request of the queue; after the last one, what lingers and is to be flushed."""
        found = self.waiting.popleft() if self.waiting else None
        if found is None and self._is_flushing:
            self._is_flushing = False
            found = self.builder.take() if len(self.builder) else None
        self.place.state.queued = len(self.waiting)
        self.moved.set()
        return found


class OneWay(Outlet):
    """The requests of a route that writes to one place; without a queue, its pace holds up reading."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self._lanes[""] = self._lane = lane

    async def add(self, job: Job, tasks: asyncio.TaskGroup) -> None:
        """Send the requests that are full."""
        lines = job.rendered.lines
        for request in self._lane.builder.add(Share(job, lines, range(len(lines)), job.rendered.times)):
            await self._lane.sender.send(request, tasks)

    async def flush(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers."""
        if len(self._lane.builder):
            await self._lane.sender.send(self._lane.builder.take(), tasks)


class Lanes(Outlet):
    """A lane for each bucket; one that is held up holds up no other, until one of the two bounds is reached."""

    def __init__(
        self,
        places: Places,
        make: Callable[[Place, Settle], Lane],
        settle: Settle,
        unsettled_bytes: Callable[[], int],
        clock: Clock,
    ) -> None:
        """`make` returns a lane to a place that settles batches by what it is given."""
        super().__init__()
        self._places = places
        self._make = make
        self._settle = settle
        self._unsettled_bytes = unsettled_bytes
        self._clock = clock
        self._used: set[str] = set()
        self._closing: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()  # a queue is shorter, or a batch is settled

    async def add(self, job: Job, tasks: asyncio.TaskGroup) -> None:
        """Add the lines of a batch to the lanes of their buckets."""
        if self._closing is None:
            self._closing = tasks.create_task(self._close_unused())
        for bucket, share in shares_of(job, self._places.usual_bucket):
            self._used.add(bucket)
            lane = self._lanes.get(bucket)
            if lane is None:
                lane = self._lanes[bucket] = self._make(self._places.of(bucket), self._settle_one)
                lane.moved = self._moved
            lane.add(share, tasks)
        await asyncio.sleep(0)
        if self._is_full:
            await self.flush(tasks)
        while self._is_full:
            self._moved.clear()
            await first_of(self._moved.wait(), self.until_answered())
            if not self._moved.is_set():  # what is held waits for lines that are not read before it is settled
                await self.settle_held()

    async def flush(self, tasks: asyncio.TaskGroup) -> None:
        """Send what lingers."""
        for lane in self._lanes.values():
            if len(lane.builder):
                lane.flush(tasks)
        await asyncio.sleep(0)

    async def finish(self) -> None:
        """Wait until everything is settled."""
        if self._closing is not None:
            self._closing.cancel()
        await super().finish()

    @property
    def _is_full(self) -> bool:
        full = any(len(lane.waiting) >= MOST_WAITING for lane in self._lanes.values())
        return full or self._unsettled_bytes() > MOST_UNSETTLED_BYTES

    async def _settle_one(self, job: Job) -> None:
        await self._settle(job)
        self._moved.set()

    async def _close_unused(self) -> None:
        """Close the lanes and sinks that had no line for a minute or two."""
        while True:
            await self._clock.sleep(UNUSED_SECONDS)
            used, self._used = self._used, set()
            for bucket, place in self._places.buckets.copy().items():
                lane = self._lanes.get(bucket)
                if bucket not in used and (lane is None or lane.is_idle):
                    self._lanes.pop(bucket, None)
                    await place.sink.close()


def shares_of(job: Job, usual_bucket: str) -> Iterator[tuple[str, Share]]:
    """Yield the buckets of a batch with their lines, in their order; "" is the one of the pipeline, by any name."""
    lines, times, found = job.rendered.lines, job.rendered.times, dict[str, list[int]]()
    for index, bucket in enumerate(job.rendered.buckets or [""] * len(lines)):
        found.setdefault("" if bucket == usual_bucket else bucket, []).append(index)
    for bucket, indices in found.items():
        times_of = None if times is None else [times[index] for index in indices]
        yield bucket, Share(job, [lines[index] for index in indices], indices, times_of)
