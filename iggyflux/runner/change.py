"""A changed route that waits until its run takes it: the newest one counts.

The run takes it when nothing is in flight (`writer_run`), or between two windows (`reader_run`).
"""

from __future__ import annotations

import asyncio
from typing import Final, Generic, TypeVar

from iggyflux.runner.status import RouteStatus

SETTLE_SECONDS: Final = 30.0
"""How long a writer waits for what is in flight before it abandons that, which is then read again."""

R = TypeVar("R")


class Change(Generic[R]):
    """What a run of a route has to become, if anything."""

    def __init__(self, status: RouteStatus) -> None:
        self._status = status
        self._route: R | None = None
        self.is_offered = asyncio.Event()

    def offer(self, route: R) -> None:
        """Replace what was offered before, if it was not taken."""
        self._route = route
        self.is_offered.set()
        self._status.is_changing = True

    def take(self) -> R | None:
        """Return what is offered, which is then not offered any more."""
        route, self._route = self._route, None
        self.is_offered.clear()
        self._status.is_changing = False
        return route
