"""A small HTTP server in a thread of its own, with its own event loop: the only file of telemetry that owns sockets.

h11 reads requests, which are hostile until they are read.  What a client can take is bounded:

| a client                                    | the server                                                  |
|---------------------------------------------|-------------------------------------------------------------|
| opens more connections than there are places| closes the oldest one whose request is not complete         |
| opens many in a short time                  | accepts 20 a second after the first 40; others wait in the  |
|                                             | backlog of the system                                       |
| sends its request slowly, or not at all     | closes after 5 s                                            |
| sends a large head, or garbage              | answers 431 or 400, closes                                  |
| sends a body                                | answers 413, reads none of it                               |
| does not read the answer                    | closes after 5 s                                            |
| asks again and again                        | a connection has one request; the same text for a while    |

A fault of this file is logged, and ends neither the server nor the run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

from iggyflux.errors import PipelineError, Problem
from iggyflux.telemetry.answers import Answer, Request, Site, answer, asks_for_life, key_of, refusal

MOST_CONNECTIONS: Final = 16
MOST_HEAD_BYTES: Final = 8 << 10
_LINGER_SECONDS: Final = 0.5
_JOIN_SECONDS: Final = 5.0
_KEPT_SECONDS: Final = 0.2
_KEPT_TIMES: Final = 10
"""A text is kept for as many times as long as it took: of many routes and partitions one may take a second."""
_BURST, _PER_SECOND = 40, 20
_PIECE: Final = 4096
_HEADERS: Final = {
    "cache-control": "no-store",
    "connection": "close",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}

log = logging.getLogger("iggyflux.telemetry")


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.  Raise `PipelineError` (IFX821)."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=MOST_CONNECTIONS)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number is not None and number > 0 else str(error)
        hint = "is another run listening there? use another port, or 0 for a free one"
        message = f"cannot listen on {_shown(host, port)}: {reason}"
        raise PipelineError([Problem("IFX821", message, hint=hint)]) from error


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a client may take, and the run; in seconds."""

    request: float = 5.0
    """For a whole request to arrive."""
    answer: float = 5.0
    """For an answer to be taken."""
    alive: float = 5.0
    """For the event loop of the run to answer."""


class TelemetryServer:
    """Answers requests for `site` on `listener` from `start` to `close`."""

    def __init__(
        self,
        site: Site,
        listener: socket.socket,
        run: asyncio.AbstractEventLoop,
        deadlines: Deadlines = Deadlines(),
    ) -> None:
        """`run` is the event loop of the run; only whether it answers is asked of it."""
        self._site = site
        self._deadlines = deadlines
        self._listener = listener
        self._run = run
        self._thread = threading.Thread(target=self._serve, name="iggyflux-telemetry", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._connections: dict[asyncio.Task[None], bool] = {}  # whether the request is complete, the oldest first
        self._kept: dict[tuple[str, bool], tuple[float, Answer]] = {}

    @property
    def url(self) -> str:
        """The address that the server listens on."""
        host, port, *_ = self._listener.getsockname()
        return f"http://{_shown(host, port)}/"

    def start(self) -> None:
        """Begin to answer."""
        self._listener.setblocking(False)
        self._thread.start()

    def close(self) -> None:
        """End all connections; idempotent."""
        if self._thread.ident is None:
            self._loop.close()
        elif self._thread.is_alive():
            with suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(_JOIN_SECONDS)
        self._listener.close()

    # --- in the thread ---

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._accepting = self._loop.create_task(self._accept_all())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._accepting)
        self._loop.close()

    def _stop(self) -> None:
        self._accepting.cancel()

    async def _accept_all(self) -> None:
        bucket = _Bucket(time.monotonic())
        try:
            while True:
                await asyncio.sleep(bucket.take(time.monotonic()))
                try:
                    client, _ = await self._loop.sock_accept(self._listener)
                except OSError as error:  # too many open files: the run needs them more
                    log.warning("telemetry.not_accepted reason=%r", error.strerror)
                    await asyncio.sleep(1.0)
                    continue
                self._make_room()
                task = self._loop.create_task(self._connection(client))
                self._connections[task] = False
                task.add_done_callback(self._connections.pop)
        finally:
            for task in (tasks := list(self._connections)):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _make_room(self) -> None:
        """End the oldest connection whose request is not complete, or else the oldest one, where there are too many."""
        if len(self._connections) >= MOST_CONNECTIONS:
            oldest = next((task for task, complete in self._connections.items() if not complete), None)
            (oldest or next(iter(self._connections))).cancel()

    async def _connection(self, client: socket.socket) -> None:
        """Read one request, answer it, close."""
        client.setblocking(False)
        with client, suppress(OSError, TimeoutError):
            try:
                await self._exchange(client, h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES))
            except (OSError, TimeoutError):
                raise
            except Exception:  # a bug: the next request may be answered, and the run goes on in any case
                log.exception("telemetry.failed")

    async def _exchange(self, client: socket.socket, connection: h11.Connection) -> None:
        async with asyncio.timeout(self._deadlines.request):
            request = await self._request(client, connection)
        if (task := asyncio.current_task()) is not None:
            self._connections[task] = True
        is_head = isinstance(request, Request) and request.method == "HEAD"
        found = request if isinstance(request, Answer) else await self._answer(request)
        if found is None:
            return
        async with asyncio.timeout(self._deadlines.answer):
            await self._loop.sock_sendall(client, _encoded(found, is_head=is_head))
            client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_LINGER_SECONDS):  # closed with unread bytes, the system would take the answer back
            while await self._loop.sock_recv(client, _PIECE):
                pass

    async def _request(self, client: socket.socket, connection: h11.Connection) -> Request | Answer | None:
        """Return the head of the request, an answer if it cannot be read, or None if there is none."""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                return Answer(error.error_status_hint, f"{HTTPStatus(error.error_status_hint).phrase}\n".encode())
            match event:
                case h11.NEED_DATA:
                    connection.receive_data(await self._loop.sock_recv(client, _PIECE))
                case h11.Request():
                    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                    return Request(event.method.decode("latin-1"), event.target.decode("latin-1"), headers)
                case _:
                    return None

    async def _answer(self, request: Request | None) -> Answer | None:
        if request is None:
            return None
        if (refused := refusal(request, self._site)) is not None:
            return refused
        if asks_for_life(request):
            return answer(request, self._site, is_alive=await _is_alive(self._run, self._deadlines.alive))
        key, began = key_of(request), time.monotonic()
        if key not in self._kept or began >= self._kept[key][0]:
            made, ended = answer(request, self._site), time.monotonic()
            self._kept[key] = (ended + max(_KEPT_SECONDS, _KEPT_TIMES * (ended - began)), made)
        return self._kept[key][1]


class _Bucket:
    """How many connections are accepted: some at once, then so many a second."""

    def __init__(self, now: float) -> None:
        self._next = now

    def take(self, now: float) -> float:
        """Return how long to wait before the next connection."""
        self._next = max(self._next, now - _BURST / _PER_SECOND) + 1 / _PER_SECOND
        return max(self._next - now, 0.0)


async def _is_alive(run: asyncio.AbstractEventLoop, seconds: float) -> bool:
    """Return whether the event loop of the run does within `seconds` what is asked of it."""
    here = asyncio.get_running_loop()
    answered = asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # too late: the server has ended
            here.call_soon_threadsafe(answered.set)

    try:
        run.call_soon_threadsafe(tell)
        async with asyncio.timeout(seconds):
            await answered.wait()
    except (RuntimeError, TimeoutError):  # the loop is closed, or busy
        return False
    return True


def _encoded(found: Answer, *, is_head: bool) -> bytes:
    """Return an answer as it is sent; the length is that of the body, also where a HEAD leaves the body out."""
    named = {**_HEADERS, "content-type": found.content_type, "content-length": str(len(found.body)), **found.headers}
    lines = [f"HTTP/1.1 {found.status} {HTTPStatus(found.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in named.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if is_head else found.body)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
