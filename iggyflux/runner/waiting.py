"""How a route connects and waits: for the first of several things, and before it connects again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable

from iggyflux.delivery.backoff import backoff_seconds
from iggyflux.errors import NotConnected
from iggyflux.runner.deliver import Clock
from iggyflux.runner.events import emit
from iggyflux.runner.status import RouteStatus
from iggyflux.runner.stop import Stop

_BACKOFF_SECONDS = (0.5, 30.0)  # first, cap
_HINT = "the route retries until it succeeds; run `iggyflux check` for details"
_HINT_AT = 3
"""With which attempt in a row the hint is given: earlier ones may be a restart."""

log = logging.getLogger("iggyflux.runner")


async def connect_ends(route: str, status: RouteStatus, connecting: Awaitable[None], stop: Stop) -> bool:
    """Return True when `connecting` is done, False if the wish to stop comes first: then it is cancelled.

    Raise what `connecting` raises.
    """
    status.state = "connecting"
    task = asyncio.ensure_future(connecting)
    await first_of(task, stop.requested.wait())
    if task.cancelled():
        return False
    task.result()
    status.waiting_for = None
    emit(log, logging.INFO, "route.connected", route=route)
    return True


async def wait_to_connect(
    route: str, status: RouteStatus, attempt: int, error: NotConnected, clock: Clock, stop: Stop
) -> None:
    """Tell that a connection is gone, or never was, and wait before the next attempt; not longer than nobody stops us.

    As long as the server asked for, else by backoff with jitter.
    """
    first, cap = _BACKOFF_SECONDS
    asked = error.retry_after_seconds
    seconds = asked or backoff_seconds(attempt, random.random(), first=first, cap=cap)  # noqa: S311  # jitter
    status.reconnects += 1
    status.waiting_for = str(error)
    emit(
        log,
        logging.WARNING,
        "route.not_connected",
        route=route,
        seconds=round(seconds, 2),
        reason=error,
        hint=_HINT if attempt == _HINT_AT else None,
    )
    await first_of(clock.sleep(seconds), stop.requested.wait())


async def first_of(*waits: Awaitable[object]) -> None:
    """Return when one of `waits` does, whatever it comes to; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
