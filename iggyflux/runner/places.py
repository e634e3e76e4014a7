"""The places that a route writes to: the one that the pipeline names, and each bucket that points chose.

What is known of a place outlives a connection of the source: its sink, its outage and pace, its held requests and its
counts.  The sink of a bucket connects for its first line, and again after `close`, which an unused one gets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from iggyflux.delivery.held import HeldRequests
from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.retention import Retention
from iggyflux.delivery.verdicts import Impossible, Unavailable, Verdict
from iggyflux.errors import NotConnected, Stopped
from iggyflux.records import JSON
from iggyflux.runner.deliver import SinkState
from iggyflux.runner.events import emit
from iggyflux.runner.requests import Request
from iggyflux.runner.route import Route
from iggyflux.runner.server_state import ServerState
from iggyflux.runner.session import closing_all
from iggyflux.transports.base import Counting, LineSink, Retaining

log = logging.getLogger("iggyflux.runner")


@dataclass(frozen=True, slots=True)
class Place:
    """One place: its sink, and what is known of it for the whole run."""

    sink: LineSink
    state: SinkState
    held: HeldRequests[Request] = field(default_factory=HeldRequests)

    def forget(self) -> None:
        """Forget what waited for this place: it is read again."""
        self.held.forget()
        self.state.queued = 0

    def as_dict(self) -> dict[str, JSON]:
        """Return the part of the status that is about this bucket, without words of a server."""
        state, retention = self.state, self.state.retention
        is_away = state.shared.outage.is_on
        return {
            "delivered": state.delivered,
            "refused": state.refused,
            "waiting": state.queued,
            "is_away": is_away,
            "failure": state.shared.failure if is_away else None,
            "retention_seconds": None if retention is None else retention.seconds,
        }


class Places:
    """The places of one route; `default` is the one that the pipeline names."""

    def __init__(self, route: Route, default: SinkState) -> None:
        self.default = Place(route.sink, default)
        self.buckets: dict[str, Place] = {}
        self.usual_bucket = route.usual_bucket
        self._make = route.bucket_sink

    def __iter__(self) -> Iterator[Place]:
        yield self.default
        yield from self.buckets.copy().values()

    def of(self, bucket: str) -> Place:
        """Return the place of a bucket; "" is the one of the pipeline."""
        if not bucket or self._make is None:
            return self.default
        found = self.buckets.get(bucket)
        if found is None:
            default, make = self.default, self._make
            known = default.state
            shared = ServerState(known.shared.outage.shared)
            state = SinkState(known.route, known.server, bucket, shared=shared, unanswered=known.unanswered)
            sink = BucketSink(lambda: make(bucket), default.sink, state)
            found = self.buckets[bucket] = Place(sink, state)
        return found

    async def close(self) -> None:
        """Close all sinks."""
        async with closing_all(*(place.sink.close for place in self)):
            pass


class BucketSink(LineSink):
    """The sink of one bucket: what only a person can correct counts as a bucket that is away, until it is corrected."""

    def __init__(self, make: Callable[[], LineSink], like: LineSink, state: SinkState) -> None:
        """`make` returns a new sink, and `like` is a connected sink to the same server."""
        self._make = make
        self._like = like
        self._state = state
        self._sink: LineSink | None = None
        self._sent_before = 0
        self._connecting: asyncio.Task[None] | None = None
        self.is_connected = False

    @property
    def dialect(self) -> str:
        """The dialect of the server."""
        return self._like.dialect

    @property
    def in_flight(self) -> Bounds | None:
        """The bounds of the server."""
        return self._like.in_flight

    @property
    def sent_bytes(self) -> int:
        """The bytes of request bodies that were sent."""
        return self._sent_before + (self._sink.sent_bytes if isinstance(self._sink, Counting) else 0)

    async def connect(self) -> None:
        """Connect, once for all who ask meanwhile.  Raise `NotConnected`, also where a person must act."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        await asyncio.shield(self._connecting)

    async def _connect(self) -> None:
        sink = self._opened()
        try:
            await sink.connect()
        except Stopped as error:
            raise NotConnected(error.reason) from error
        found = await read_retention(sink, self._state)
        self.is_connected = True
        if found is not None and found.retry_after_seconds:
            raise NotConnected(found.why, retry_after_seconds=found.retry_after_seconds)

    async def write(self, lines: Sequence[str]) -> Verdict:
        """Return the verdict of the sink; it is connected first where it is not."""
        if not self.is_connected:
            try:
                await self.connect()
            except NotConnected as error:
                return Unavailable(str(error), retry_after_seconds=error.retry_after_seconds)
        verdict = await self._opened().write(lines)
        return Unavailable(verdict.reason, verdict.status) if isinstance(verdict, Impossible) else verdict

    async def close(self) -> None:
        """Close the sink; the next line connects a new one."""
        self._sent_before, sink = self.sent_bytes, self._sink
        self._sink, self.is_connected = None, False
        if self._connecting is not None:
            self._connecting.cancel()
        if sink is not None:
            await sink.close()

    def _opened(self) -> LineSink:
        if self._sink is None:
            self._sink = self._make()
        return self._sink


async def read_retention(sink: LineSink, state: SinkState) -> Retention | None:
    """Ask once how long a place keeps points, and return the answer; a run does not depend on it."""
    if state.retention is not None or not isinstance(sink, Retaining):
        return None
    state.retention = found = await sink.retention()
    why = {"reason": found.why} if found.seconds is None else {}
    emit(log, logging.INFO, "server.retention", **state.fields(), kept=str(found), **why)
    return found
