"""Requests of one route that wait for an answer: what the status shows of them, and when to warn.

A request is made inside `request`; `show` and `warn` are called every second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from iggyflux.errors import NotConnected
from iggyflux.runner.events import emit
from iggyflux.runner.status import RouteStatus

SHOWN_AFTER_SECONDS = 5.0
WARNED_AFTER_SECONDS = 15.0

log = logging.getLogger("iggyflux.runner")


@dataclass(slots=True, eq=False)
class _Request:
    server: str | None
    what: str
    began: float
    is_warned: bool = False


class Unanswered:
    """The requests in flight to the servers of one route."""

    def __init__(self, route: str | None = None) -> None:
        self._route = route
        self._requests: dict[_Request, None] = {}
        self._shown: str | None = None

    @contextmanager
    def request(self, began: float, what: str, server: str | None = None) -> Iterator[None]:
        """Wait for an answer of `server` to `what` inside the block; a `NotConnected` names the server."""
        request = _Request(server, what, began)
        self._requests[request] = None
        try:
            yield
        except NotConnected as error:
            error.server = error.server or server
            raise
        finally:
            del self._requests[request]

    def waiting_for(self, now: float) -> str | None:
        """Return which answer is late, for people; None if none is."""
        for request in self._requests:  # the oldest one is the first
            if now - request.began >= SHOWN_AFTER_SECONDS:
                server = request.server or "the server"
                return f"{server}: no answer to {request.what} for {now - request.began:.0f} s"
            return None
        return None

    def show(self, status: RouteStatus, now: float) -> None:
        """Show a late answer as what the route waits for, as long as it is late."""
        late = self.waiting_for(now)
        if late is not None or status.waiting_for == self._shown:
            status.wait_for(late, briefly=late)
        self._shown = late

    def warn(self, now: float) -> None:
        """Log a request whose answer is very late, each once."""
        for request in self._requests:
            seconds = now - request.began
            if seconds < WARNED_AFTER_SECONDS:
                return
            if not request.is_warned:
                request.is_warned = True
                fields = {"route": self._route, "server": request.server, "request": request.what}
                emit(log, logging.WARNING, "server.no_answer", **fields, seconds=round(seconds))
