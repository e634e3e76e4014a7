"""What the deliveries to one server share, those of several routes too: its outage, and who tries next.

| while the server is away            | this happens            | then                                              |
|-------------------------------------|-------------------------|---------------------------------------------------|
| a delivery waits for the backoff    | the backoff has passed  | tries again, if no other delivery is trying       |
| … or for the attempt of another one | an answer to any one    | all of them send at once                          |
|                                     | the attempt failed      | all of them wait for the next backoff             |
|                                     | a stop is requested     | one of them tries at once; if that fails, none of |
|                                     |                         | them tries again                                  |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from iggyflux.delivery.backoff import MAX_RETRY_AFTER_SECONDS
from iggyflux.delivery.outage import Asked, Outage
from iggyflux.errors import NotConnected


class ServerState:
    """One server, as the deliveries to it know it."""

    def __init__(self, asked: Asked | None = None) -> None:
        """`asked` is what the buckets of one server share."""
        self.outage = Outage(asked)
        self.failure = ""
        """Why the last request failed, as `retry_reason` names it."""
        self.has_given_up = False
        """Whether an attempt failed that was made after a stop was requested."""
        self.is_trying = False
        """Whether a delivery that had failed tries again now."""
        self._change = asyncio.Event()

    def asked(self, seconds: float | None, now: float, reason: str) -> None:
        """Let all deliveries wait for `seconds`, if the server asks for it in an answer to something else than a write.

        `reason` is what it said, for people.
        """
        if seconds:
            self.outage.asked(now + min(seconds, MAX_RETRY_AFTER_SECONDS), 0.0, reason)
            self.failure = "it asked to wait"

    def still_asked(self, now: float) -> NotConnected | None:
        """Return why no route connects yet: the server asked for no requests; None if it did not."""
        seconds = self.outage.asked_until - now
        return NotConnected(self.outage.reason, retry_after_seconds=seconds) if seconds > 0 else None

    @contextmanager
    def attempt(self, *, is_retry: bool) -> Iterator[None]:
        """Make an attempt inside the block; other deliveries that failed wait until it ends."""
        self.is_trying = self.is_trying or is_retry
        try:
            yield
        finally:
            if is_retry:
                self.is_trying = False
            self.changed()

    def changed(self) -> None:
        """Wake all deliveries that wait: an attempt ended, or the server answered."""
        self._change.set()
        self._change = asyncio.Event()

    def change(self) -> Awaitable[bool]:
        """Wait for the end of an attempt that ends after this call."""
        return self._change.wait()
