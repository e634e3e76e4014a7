"""One session of a route: connect, work, connect again after a lost connection, stop, close.

Writers and readers run on this skeleton.  They say how to connect, what to do while connected, and how to measure
progress:

| while            | this happens         | the session                                                           |
|------------------|----------------------|-----------------------------------------------------------------------|
| connecting       | connected            | does the work                                                         |
|                  | NotConnected         | waits (backoff with jitter, capped), connects again, without a limit  |
|                  | … and all but one of | connects the others too: what needs a person is found at once         |
|                  | the ends are there   |                                                                       |
|                  | … `max_retries` times| stops (IFX606) if there is such a limit, and nothing was connected    |
|                  | in a row             | before                                                                |
|                  | … for one reason     | logs the first three failures, the fourth, the eighth and so on       |
|                  | no answer for 5 s,   | the status shows it; `server.no_answer` is logged                     |
|                  | for 15 s             |                                                                       |
|                  | a stop is requested  | cancels the attempt and ends                                          |
| working          | the work returns     | ends                                                                  |
|                  | NotConnected         | waits and connects again; the backoff starts anew after progress, and |
|                  |                      | after a connection that was longer than its cap                       |
|                  | … and the attempt    | the backoff starts anew once, until it starts anew for one of those   |
|                  | before could not     | reasons: one end may have been connected long before the other, and   |
|                  | connect              | be gone since; not again for a server that resets and refuses in turn |
|                  | a stop is requested  | leaves it to the work, which returns or raises `StopRequested`        |
| waiting          | a stop is requested  | ends                                                                  |
| any time         | Stopped, or a bug    | ends and raises it                                                    |
"""

from __future__ import annotations

import asyncio
import logging
import random as _random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar

from iggyflux.delivery.backoff import MAX_RETRY_AFTER_SECONDS, backoff_seconds
from iggyflux.delivery.retry import still_away
from iggyflux.errors import NotConnected, Stopped, counted
from iggyflux.runner.clock import Clock, first_of
from iggyflux.runner.events import emit
from iggyflux.runner.status import RouteStatus
from iggyflux.runner.stop import Stop, StopRequested

_BACKOFF_SECONDS = (0.5, 30.0)  # first, cap
_HINT_AT = 3
"""Number of failed attempts in a row at which the hint is logged: the first ones may be a restart of the server."""

T = TypeVar("T")
log = logging.getLogger("iggyflux.runner")


class Session:
    """Connects, reconnects and waits for one route."""

    def __init__(
        self,
        route: str,
        status: RouteStatus,
        stop: Stop,
        clock: Clock,
        *,
        max_retries: int | None = None,
        is_patient: bool = True,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """With `max_retries`, `run` ends if the first connection needs more retries.

        `is_patient` says that nothing else ends it because a server is away.
        """
        self._route = route
        self._status = status
        self._stop = stop
        self._clock = clock
        self._random = random
        self._max_retries = max_retries
        self._is_patient = is_patient
        self._was_connected = False
        self._is_away = False
        """Whether the last attempt to connect failed."""
        self._has_returned = False
        """Whether the backoff started anew because it was connected after such an attempt, and nothing came of it."""
        self._reason = ""
        """Why it could not connect last."""
        self._new_starts = 0
        """How often the backoff started anew without progress."""

    async def run(
        self,
        connect: Callable[[], Awaitable[None]],
        work: Callable[[], Awaitable[None]],
        progress: Callable[[], int],
    ) -> None:
        """Connect and do the work, again after each `NotConnected`, until the work returns or a stop is requested.

        The backoff starts anew when `progress` has grown since the last failure, when the connection lasted longer than
        the cap, and once when it is connected after an attempt that could not connect.
        """

        async def attempt() -> None:
            if self._stop.requested.is_set():
                raise StopRequested
            self._status.state = "connecting"
            was_away, self._is_away = self._is_away, True
            await self.unless_stopped(connect())
            self._was_connected, self._is_away = True, False
            if was_away and not self._has_returned:
                self._has_returned = True
                self._new_starts += 1
            self._status.wait_for(None)
            emit(log, logging.INFO, "route.connected", route=self._route, plan=self._status.about.plan or None)
            before, since = progress(), self._clock.monotonic()
            try:
                await work()
            except NotConnected:
                self._status.state = "connecting"  # else what it waits for is overwritten during the backoff
                has_lasted = self._clock.monotonic() - since > _BACKOFF_SECONDS[1]
                self._new_starts += has_lasted
                if has_lasted or progress() > before:
                    self._has_returned = False
                raise

        with suppress(StopRequested):
            await self._retry(attempt, lambda: progress() + self._new_starts, gives_up=True)

    async def until_confirmed(self, send: Callable[[], Awaitable[None]]) -> None:
        """Call `send` until it raises no `NotConnected`.

        Raise `StopRequested` if it fails after a stop was requested: one attempt is made in any case.
        """
        attempts = 0

        async def attempt() -> None:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                self._status.count("retries", "unreachable")
            await send()

        await self._retry(attempt, lambda: 0)
        if attempts > 1:
            self._status.is_away = False
            self._status.wait_for(None)
            emit(log, logging.INFO, "delivery.back", route=self._route)

    async def unless_stopped(self, work: Awaitable[T]) -> T:
        """Return the result of `work`.  If a stop is requested first, cancel it and raise `StopRequested`."""
        task = asyncio.ensure_future(work)
        await first_of(task, self._stop.requested.wait())
        if task.cancelled():
            raise StopRequested
        return task.result()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or when a stop is requested."""
        await first_of(self._clock.sleep(seconds), self._stop.requested.wait())

    async def _retry(
        self, attempt: Callable[[], Awaitable[None]], progress: Callable[[], int], *, gives_up: bool = False
    ) -> None:
        failures, before = 0, progress()
        while True:
            try:
                return await attempt()
            except NotConnected as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from error  # a task group raises its error alone
                now = progress()
                failures = 1 if now > before else failures + 1
                before = now
                most = self._max_retries if gives_up and not self._was_connected else None
                if most is not None and failures > most:
                    end = still_away(most, error.named)
                    raise Stopped(end.reason, end.hint, end.code) from error
                seconds = self._report(failures, error, most)
                self._status.is_away = self._status.is_away or not gives_up
                if self._stop.requested.is_set():
                    raise StopRequested from error
                self._status.retry_at = self._clock.monotonic() + seconds
                try:
                    await self.sleep(seconds)
                finally:
                    self._status.retry_at = None

    def _report(self, failures: int, error: NotConnected, most: int | None) -> float:
        """Log a failed attempt; return how long to wait: as the server asked, up to a bound, else by backoff.

        `most` is the most retries, None without a limit.
        """
        first, cap = _BACKOFF_SECONDS
        if error.retry_after_seconds:  # not all clients at the same moment
            seconds = min(error.retry_after_seconds, MAX_RETRY_AFTER_SECONDS) + self._random() * first
        else:
            seconds = backoff_seconds(failures, self._random(), first=first, cap=cap)
        self._status.reconnects += 1
        self._status.wait_for(error.named, briefly=error.briefly)
        is_new, self._reason = str(error) != self._reason, str(error)
        if is_new or failures <= _HINT_AT or failures.bit_count() == 1:  # 4, 8, 16, …: an outage may take days
            emit(
                log,
                logging.WARNING,
                "route.not_connected",
                route=self._route,
                server=error.server,
                attempt=failures,
                seconds=round(seconds, 2),
                reason=error,
                hint=self._hint(most) if failures == _HINT_AT else None,
            )
        return seconds

    def _hint(self, most: int | None) -> str:
        """Return what helps, and how long the route retries where the session knows it."""
        details = "run `iggyflux check` for details"
        if most is not None:
            return f"the route stops after {counted(most, 'retry', 'retries')}; {details}"
        return f"the route retries until it succeeds; {details}" if self._is_patient else details


async def connect_all(*connects: Callable[[], Awaitable[None]]) -> None:
    """Call each of `connects`, also after one that fails: what needs a person is found although another end is away.

    Raise the first `Stopped`, else one `NotConnected` for all that failed.
    """
    away: list[NotConnected] = []
    for connect in connects:
        try:
            await connect()
        except NotConnected as error:
            away.append(error)
    if len(away) > 1:
        seconds = max(error.retry_after_seconds or 0.0 for error in away) or None
        raise NotConnected("; ".join(error.named for error in away), retry_after_seconds=seconds)
    if away:
        raise away[0]


@asynccontextmanager
async def closing_all(*closes: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Call each of `closes` in this order when the block ends; one that raises does not keep the others from it."""
    async with AsyncExitStack() as stack:
        for close in reversed(closes):
            stack.push_async_callback(close)
        yield
