"""Whose turn it is to send: side by side as a rule, but a request after a death goes alone.

A line that kills the server breaks every request that is under way.  Only what dies alone can be told to be the cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SendGate:
    """The turns of all deliveries to one sink."""

    def __init__(self) -> None:
        self._under_way = 0
        self._is_alone = False
        self._wishes = 0
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def turn(self, *, alone: bool) -> AsyncIterator[None]:
        """Wait for a turn and hold it; who wants to be alone goes before whoever comes later."""
        self._wishes += alone
        try:
            while self._is_alone or (self._under_way if alone else self._wishes):
                waiting = asyncio.get_running_loop().create_future()
                self._waiting.append(waiting)
                await waiting
        except BaseException:
            self._wishes -= alone
            self._wake()
            raise
        self._wishes -= alone
        self._is_alone = alone
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._is_alone = False
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)
