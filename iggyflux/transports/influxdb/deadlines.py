"""The deadlines of exchanges: one thread for each client cuts what takes too long, whatever it waits for.

A timeout of a socket bounds each step only, so a server that sends a byte a second would be waited for without end.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Expiring(Protocol):
    """What has a deadline, in seconds of `time.monotonic`."""

    deadline: float

    def expire(self) -> None:
        """End now."""


class Deadlines:
    """Watches exchanges; each may move its own deadline later."""

    def __init__(self) -> None:
        self._watched: set[Expiring] = set()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def watch(self, exchange: Expiring) -> None:
        """Expire `exchange` at its deadline, until it is forgotten."""
        with self._change:
            self._watched.add(exchange)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="iggyflux-deadlines", daemon=True)
                self._thread.start()
            elif exchange.deadline < self._wakes_at:
                self._change.notify()

    def forget(self, exchange: Expiring) -> None:
        """Expire `exchange` no more."""
        with self._change:
            self._watched.discard(exchange)

    def close(self) -> None:
        """End the thread; the next `watch` starts another."""
        with self._change:
            self._watched.clear()
            self._thread = None
            self._change.notify()

    def _run(self) -> None:
        with self._change:
            while self._thread is threading.current_thread():
                now = time.monotonic()
                for exchange in [each for each in self._watched if each.deadline <= now]:
                    self._watched.discard(exchange)
                    exchange.expire()
                self._wakes_at = min((each.deadline for each in self._watched), default=float("inf"))
                self._change.wait(None if self._wakes_at == float("inf") else self._wakes_at - now)
