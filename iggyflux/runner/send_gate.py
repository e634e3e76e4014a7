"""Which deliveries may send: usually side by side, but a request is sent alone after its connection broke.

A line that crashes the server breaks all requests in flight.  Only a request that was sent alone can be the cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SendGate:
    """Admits the requests to one sink."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._is_alone = False
        self._waiting_alone = 0
        self._waiters: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def turn(self, *, alone: bool) -> AsyncIterator[None]:
        """Wait until this request may be sent; one that is sent alone goes before all that arrive later."""
        self._waiting_alone += alone
        try:
            while self._is_alone or (self._in_flight if alone else self._waiting_alone):
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter
        except BaseException:
            self._waiting_alone -= alone
            self._wake()
            raise
        self._waiting_alone -= alone
        self._is_alone = alone
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._is_alone = False
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for each in waiters:
            if not each.done():
                each.set_result(None)
