"""Requests in flight over one connection: how many at once, in which order, and what follows from their ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from iggyflux.delivery.held import EndedRequest
from iggyflux.delivery.pace import Bounds, Pace
from iggyflux.delivery.retry import Stop as MustStop
from iggyflux.errors import Stopped
from iggyflux.records import LazyMessages
from iggyflux.runner.clock import Clock
from iggyflux.runner.deliver import deliver
from iggyflux.runner.events import emit
from iggyflux.runner.footprint import Footprint
from iggyflux.runner.ledger import Job
from iggyflux.runner.places import Place
from iggyflux.runner.requests import Request, jobs_of, memory_of
from iggyflux.runner.route import Route
from iggyflux.runner.status import RouteStatus
from iggyflux.timestamps import format_rfc3339

_DEFAULT_IN_FLIGHT = Bounds.exactly(4)
_LEAST_PAUSE_SECONDS = 1.0
_HELD_HINT = "the batch is neither acknowledged nor kept as dead letters until the server accepts a line"

_TIMES_HINT = "check `format` of the timestamp in the mapping: unix_s, unix_ms, unix_us or unix_ns"

_NOT_PACKED_HINT = "nothing is lost; messages in flight take more memory, so there are fewer: give the process more"

_TOO_OLD_HINT = "the server refuses them, or deletes them soon: raise its retention, or omit them by `where`"

_MOST_BYTES = 64_000_000
"""The most memory of several requests in flight, as they count it, where their number is not given but adapted."""

_PACKED_ABOVE_BYTES = 16_000_000
"""From so much memory of requests in flight on, their messages are packed: the server takes its time."""

_ONE_PACKED_ABOVE_BYTES = 32_000_000
"""The same for one: its lines are of many batches, of which each bucket has a few lines."""

_LESS_SECONDS = 0.05
"""How soon to look again whether a request in flight takes less memory: its lines as a body, its messages packed."""

log = logging.getLogger("iggyflux.runner")


class RequestSender:
    """Delivers requests side by side; calls `settle` for each batch whose lines are all accepted or refused.

    `place` is where they go; it outlives the connection.
    """

    def __init__(
        self,
        route: Route,
        status: RouteStatus,
        clock: Clock,
        stop: asyncio.Event,
        place: Place,
        settle: Callable[[Job], Awaitable[None]],
    ) -> None:
        self._route = route
        self._status = status
        self._clock = clock
        self._stop = stop
        self._sink, self._state, self._held = place.sink, place.state, place.held
        self._settle = settle
        self._in_flight: dict[asyncio.Task[None], tuple[Request, Footprint]] = {}
        self._sending = asyncio.Lock()
        self._began_at = 0.0  # when the last request began
        self._trying_again: asyncio.Task[None] | None = None
        self._packing: asyncio.Future[None] | None = None
        self._can_pack = True
        self._is_finishing = False

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return len(self._in_flight)

    @property
    def _requests(self) -> list[Request]:
        return [request for request, _ in self._in_flight.values()]

    @property
    def is_holding(self) -> bool:
        """Whether requests are held."""
        return self._held.words is not None

    @property
    def is_sending(self) -> bool:
        """Whether a request is in flight, or is about to be: one that was held is neither held nor in flight then."""
        return bool(self._in_flight) or self._sending.locked()

    async def until_answered(self) -> None:
        """Return when no request is in flight, or is about to be: each is settled or held."""
        while self.is_sending:
            if self._in_flight:
                await asyncio.wait(self._in_flight)
            else:
                async with self._sending:
                    pass

    async def send(self, request: Request, tasks: asyncio.TaskGroup) -> None:
        """Start a delivery when the number in flight allows it, and none in flight writes a point of this one.

        This is where a slow sink slows reading.
        """
        footprint = Footprint(request.lines, request.times)
        if self._route.count_collisions:
            self._status.collisions += footprint.collisions()
        if wrong := footprint.implausible_times(self._route.unit_ns):
            self._report_implausible(wrong)
        is_counted = self._count_too_old(footprint)
        async with self._sending:
            await self._start(request, footprint, tasks, is_counted=is_counted)

    async def finish(self) -> None:
        """Wait for the requests in flight, then settle those that are held: no request will follow."""
        async with self._sending:  # not between two requests that are sent again
            self._is_finishing = True
            if self._trying_again is not None:
                self._trying_again.cancel()
        await self.until_answered()
        await self.settle_held()

    async def settle_held(self) -> None:
        """Settle the requests that are held: no request will follow before that.  Raise `Stopped`."""
        async with self._sending:
            await self._settle_all(self._held.finished())

    async def _start(
        self,
        request: Request,
        footprint: Footprint,
        tasks: asyncio.TaskGroup,
        *,
        again: int | None = None,
        is_counted: bool = True,
    ) -> None:
        pace = self._pace()
        while self._in_flight and self._is_full(request):
            self._pack()
            is_body_soon = any(each.lines.kept_bytes is None for each in self._requests)
            seconds = _LESS_SECONDS if is_body_soon or self._packing is not None else None
            await asyncio.wait(self._in_flight, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        ready = self._clock.monotonic()
        while len(self._in_flight) >= pace.limit:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        pace.held_up(self._clock.monotonic() - ready)
        if before := footprint.overlapping({other: written for other, (_, written) in self._in_flight.items()}):
            await asyncio.wait(before)
        delivery = tasks.create_task(self._deliver(request, tasks, again, None if is_counted else footprint))
        self._in_flight[delivery] = request, footprint
        delivery.add_done_callback(self._in_flight.pop)
        self._pack()
        await asyncio.sleep(0)

    def _is_full(self, request: Request) -> bool:
        """Whether `request` would take too much memory beside those in flight."""
        if self._route.max_in_flight is not None:
            return False
        return memory_of((request, *self._requests)) > _MOST_BYTES

    def _pack(self) -> None:
        """Pack the messages of the requests in flight, in a thread, if they take much memory: few are used again."""
        if self._packing is not None or not self._can_pack:
            return
        above = _PACKED_ABOVE_BYTES if self.in_flight > 1 else _ONE_PACKED_ABOVE_BYTES
        if memory_of(self._requests) <= above:
            return
        found = (job.messages for job in jobs_of(self._requests))
        messages = [each for each in found if isinstance(each, LazyMessages) and not each.is_packed]
        if messages:
            self._packing = asyncio.get_running_loop().run_in_executor(None, _pack_all, messages)
            self._packing.add_done_callback(self._has_packed)

    def _has_packed(self, packing: asyncio.Future[None]) -> None:
        self._packing = None
        if packing.cancelled():
            self._can_pack = False
        elif (error := packing.exception()) is not None:  # such as a lack of memory: what is not packed stays
            self._can_pack = False
            fields = {"route": self._route.name, "reason": repr(error), "hint": _NOT_PACKED_HINT}
            emit(log, logging.WARNING, "messages.not_packed", **fields)

    def _pace(self) -> Pace:
        """Return how many requests may be in flight: the bounds are known when the sink is connected."""
        if self._state.pace is None:
            number = self._route.max_in_flight
            bounds = Bounds.exactly(number) if number else self._sink.in_flight or _DEFAULT_IN_FLIGHT
            self._state.pace = Pace(bounds)
        return self._state.pace

    def _report_implausible(self, times: Sequence[int]) -> None:
        """Count times that are hardly meant, and log the first ones."""
        if not self._status.implausible:
            example = format_rfc3339(times[0] * self._route.unit_ns)
            fields = {"route": self._route.name, "lines": len(times), "example": example, "hint": _TIMES_HINT}
            emit(log, logging.WARNING, "times.implausible", **fields)
        self._status.implausible += len(times)

    def _count_too_old(self, footprint: Footprint) -> bool:
        """Count the times that are beyond the retention, and log the first one; the server decides what it refuses.

        Return whether the retention is known: a bucket is connected, and asked, by its first request.
        """
        retention, unit = self._state.retention, self._route.unit_ns
        if retention is None:
            return False
        oldest = retention.oldest_ns(time.time())
        if oldest is None or not (times := footprint.times_before(oldest // unit)):
            return True
        if not self._status.too_old:
            example = format_rfc3339(times[0] * unit)
            fields = {"route": self._route.name, "lines": len(times), "example": example, "kept": str(retention)}
            emit(log, logging.WARNING, "times.too_old", **fields, hint=_TOO_OLD_HINT)
        self._status.too_old += len(times)
        return True

    async def _try_again(self, tasks: asyncio.TaskGroup) -> None:
        """Send the held requests again whenever no request began for the largest backoff, until none is held."""
        pause = max(self._route.policy.max_backoff_seconds, _LEAST_PAUSE_SECONDS)
        while self._held.words is not None:
            seconds = self._began_at + pause - self._clock.monotonic()
            if seconds > 0:
                await self._clock.sleep(seconds)
            elif self._in_flight:
                await asyncio.wait(self._in_flight)
            else:
                async with self._sending:
                    for number, request in self._held.again():
                        await self._start(request, Footprint(request.lines, request.times), tasks, again=number)

    async def _deliver(
        self, request: Request, tasks: asyncio.TaskGroup, again: int | None, uncounted: Footprint | None
    ) -> None:
        """Deliver a request, and settle what its end settles; `again` is the number of one that was held.

        The times in `uncounted` are compared with the retention afterwards.
        """
        self._status.in_flight += 1
        self._began_at = self._clock.monotonic()
        route, number = self._route, self._held.begin() if again is None else again
        refusals = await deliver(
            self._sink,
            request.lines,
            route.policy,
            self._clock,
            size=request.size,
            state=self._state,
            statistics=self._status,
            stop=self._stop,
            traced=request.traced,
        )
        self._status.in_flight -= 1
        if uncounted is not None:
            self._count_too_old(uncounted)
        ended = self._held.ended(number, request, len(request.lines), refusals)
        if not ended and again is None:
            lines, words = len(request.lines), self._held.words
            emit(log, logging.WARNING, "request.held", route=route.name, lines=lines, reason=words, hint=_HELD_HINT)
        if not ended and not self._is_finishing and (self._trying_again is None or self._trying_again.done()):
            self._trying_again = tasks.create_task(self._try_again(tasks))
        await self._settle_all(ended)

    async def _settle_all(self, ended: Sequence[EndedRequest[Request]] | MustStop) -> None:
        """Settle the batches of these requests.  Raise `Stopped` if the server refuses everything."""
        if isinstance(ended, MustStop):
            raise Stopped(ended.reason, ended.hint, ended.code)
        for each in ended:
            for refusal in each.refusals:
                self._status.count("refused", refusal.code)
            accepted = len(each.request.lines) - len(each.refusals)
            self._status.delivered += accepted
            self._state.delivered += accepted
            self._state.refused += len(each.refusals)
            for lines, refused in each.request.refusals_by_range(each.refusals):
                lines.share.answered(lines.start, lines.stop, refused)
                if not lines.share.job.unsettled_lines:
                    await self._settle(lines.share.job)


def _pack_all(messages: Sequence[LazyMessages]) -> None:
    for each in messages:
        each.pack()
