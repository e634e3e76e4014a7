"""Requests of one route that wait for an answer: what the status shows of them, and what is logged.

| event              | when                                                                                    |
|--------------------|-----------------------------------------------------------------------------------------|
| `server.no_answer` | a request waits for 15 s, once for each; one event for those that began within a second |
| `server.answered`  | the server answered a request after that, and none of which this was logged still waits |

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
class Request:
    """A request to a server: what it asks for, when it began, and what came of it."""

    server: str | None
    what: str
    began: float
    is_answered: bool = True
    """A failure that raises no exception sets it to false."""
    is_warned: bool = False


class Unanswered:
    """The requests in flight to the servers of one route."""

    def __init__(self, route: str | None = None) -> None:
        self._route = route
        self._requests: dict[Request, None] = {}
        self._late: dict[str | None, float] = {}
        """The servers with a logged request, and when it began, until the end of that is logged."""
        self._back: set[str | None] = set()
        """Those whose last request was answered."""
        self._shown: str | None = None

    @contextmanager
    def request(self, began: float, what: str, server: str | None = None) -> Iterator[None]:
        """As `attempt`, where every failure is an exception."""
        with self.attempt(began, what, server):
            yield

    @contextmanager
    def attempt(self, began: float, what: str, server: str | None = None) -> Iterator[Request]:
        """Wait for an answer of `server` to `what` inside the block; a `NotConnected` names the server."""
        request = Request(server, what, began)
        self._requests[request] = None
        try:
            yield request
        except BaseException as error:
            request.is_answered = False
            if isinstance(error, NotConnected):
                error.server = error.server or server
            raise
        finally:
            del self._requests[request]
            (self._back.add if request.is_answered else self._back.discard)(server)

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
        """Log the requests whose answers are very late, each once, those of a server together; and the end of that."""
        newly_late: dict[str | None, list[Request]] = {}
        for request in self._requests:
            if now - request.began < WARNED_AFTER_SECONDS:
                break
            if not request.is_warned:
                request.is_warned = True
                newly_late.setdefault(request.server, []).append(request)
        for server, (oldest, *others) in newly_late.items():
            self._late.setdefault(server, oldest.began)
            fields = {"route": self._route, "server": server, "request": oldest.what, "requests": 1 + len(others)}
            emit(log, logging.WARNING, "server.no_answer", **fields, seconds=round(now - oldest.began))
        for server in self._back & self._late.keys() - {each.server for each in self._requests if each.is_warned}:
            seconds = now - self._late.pop(server)
            emit(log, logging.INFO, "server.answered", route=self._route, server=server, seconds=round(seconds))
