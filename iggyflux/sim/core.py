"""The simulator without sockets and threads: requests go in, responses or broken connections come out.

`begin` draws the faults for a request.  The caller waits `delay` seconds and then calls `finish` for the result.  The
clock is an argument, so a test can run it in simulated time.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum

from iggyflux.sim import export
from iggyflux.sim.classic import ServerKilled
from iggyflux.sim.dialects.base import ALL_RIGHTS, Dropped, RequestTally, ServerDialect, Settings, tokens_of
from iggyflux.sim.exchange import (
    MAX_BODY,
    MAX_EXPANDED,
    BodyTooLarge,
    ConnectionGone,
    HttpRequest,
    HttpResponse,
    Undecodable,
    gunzip,
)
from iggyflux.sim.faults import Fault, Faults, RequestFaults
from iggyflux.sim.record import RecordedRequest, Stats
from iggyflux.sim.store import Store

log = logging.getLogger("iggyflux.sim")

_REMEMBERED = 10_000


class Break(Enum):
    """How a connection ends without a response: of this client, of all clients, or with the server down for a time."""

    CLOSE = "close"
    RESET = "reset"
    DIE = "die"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its faults; `delay` seconds pass before anything else happens."""

    request: HttpRequest
    faults: RequestFaults
    kind: str
    tally: RequestTally = field(default_factory=RequestTally)

    @property
    def delay(self) -> float:
        """The wait in seconds before the server acts."""
        fault = self.faults.of("latency")
        return fault.seconds if fault else 0.0


@dataclass(frozen=True, slots=True)
class BrokenConnection:
    """The connection ends without a response; with `Break.DOWN` the server is down for `seconds`."""

    how: Break
    seconds: float = 0.0


class Core:
    """One simulated server, for any number of threads at once."""

    def __init__(self, api: Callable[[Store, Settings], ServerDialect], store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.faults = Faults()
        self._api = api(store, settings)
        self._stats = Stats()
        self._seen: deque[RecordedRequest] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    # --- one request ---

    def begin(self, request: HttpRequest) -> Exchange:
        """Draw the faults for a request."""
        kind = self._api.kind(request)
        return Exchange(request, self.faults.draw_for(kind, request.path), kind)

    def finish(self, exchange: Exchange) -> HttpResponse | BrokenConnection:
        """Apply a request, and return the response under its faults, or how the connection breaks.

        Raise `ConnectionGone` if its body breaks off.
        """
        try:
            outcome = self._suffer(exchange)
        except ConnectionGone:
            self._record(exchange, None)
            raise
        if isinstance(outcome, BrokenConnection):
            self._record(exchange, None)
            return outcome
        self._record(exchange, None if exchange.faults.of("truncate") else outcome.status)
        fault = exchange.faults.of("splice")
        return _spliced(outcome, fault) if fault else outcome

    def _suffer(self, exchange: Exchange) -> HttpResponse | BrokenConnection:
        request, faults = exchange.request, exchange.faults
        if fault := faults.of("down"):
            return BrokenConnection(Break.DOWN, fault.seconds)
        reset, status = faults.of("reset"), faults.of("status")
        if reset is not None and reset.when != "after":
            if reset.when == "during":
                request.body.read_half()
            return BrokenConnection(Break.RESET)
        if status is not None and status.early:
            return self._forced(status)
        try:
            if (large := faults.of("too_large")) is not None:
                request.body.read(large.bytes)
            if (killer := faults.of("killer")) is not None and killer.text.encode() in _text(request):
                return BrokenConnection(Break.DIE)
            final = reset or status
            answer: HttpResponse | BrokenConnection = BrokenConnection(Break.RESET)
            if final is None or final.stored:
                answer = self._apply(exchange, twice=faults.of("duplicate") is not None)
            else:
                request.body.read()
        except BodyTooLarge:
            return self._api.too_large(request, large.bytes if large else MAX_BODY)
        if status is not None:
            return self._forced(status)
        return BrokenConnection(Break.RESET) if reset is not None else answer

    def _apply(self, exchange: Exchange, *, twice: bool) -> HttpResponse | BrokenConnection:
        try:
            if twice:
                exchange.request.body.read()
                self._api.answer(exchange.request, RequestTally())
            return self._api.answer(exchange.request, exchange.tally)
        except ServerKilled:
            return BrokenConnection(Break.DIE)
        except Dropped:
            return BrokenConnection(Break.CLOSE)

    def _forced(self, fault: Fault) -> HttpResponse:
        headers = dict(fault.headers)
        if fault.retry_after is not None:
            if fault.retry_after_form == "date":
                now = self.settings.now_ns() / 10**9
                headers["Retry-After"] = formatdate(now + fault.retry_after, usegmt=True)
            else:
                headers["Retry-After"] = f"{fault.retry_after:g}"
        text = fault.text or f"{fault.status}: a fault on purpose"
        if fault.body == "own":
            own = self._api.failure(fault.status, text)
            return HttpResponse(fault.status, {**own.headers, **headers}, own.body, close=fault.early)
        content, body = {
            "text": ("text/plain; charset=utf-8", text + "\n"),
            "json": ("application/json", json.dumps({"error": text})),
            "html": (
                "text/html",
                f"<html><head><title>{fault.status}</title></head><body><h1>{text}</h1></body></html>\n",
            ),
            "empty": ("", ""),
        }[fault.body]
        if content:
            headers.setdefault("Content-Type", content)
        return HttpResponse(fault.status, headers, body.encode(), close=fault.early)

    # --- access ---

    def refusal(self, request: HttpRequest, *, any_host: bool) -> HttpResponse | None:
        """Return the rejection of a request that names another host than loopback, as one from a web page may."""
        if any_host or _is_loopback(request.headers.get("host", "")):
            return None
        text = "421 Misdirected Request: the simulator listens on loopback and answers to its names only\n"
        return HttpResponse(421, {"Content-Type": "text/plain; charset=utf-8"}, text.encode(), close=True)

    def may_administer(self, request: HttpRequest) -> int:
        """Return 200 if a request has a token with all rights, else the status of its rejection."""
        if not self.settings.tokens:
            return 200
        found = [self._api.rights(token) for token in tokens_of(request.headers.get("authorization", ""))]
        rights = next((each for each in found if each is not None), None)
        return 401 if rights is None else 200 if rights == ALL_RIGHTS else 403

    # --- statistics ---

    @property
    def stats(self) -> Stats:
        """Return the counts up to now."""
        with self._lock:
            stats = self._stats
            copy = Stats(Counter(stats.requests), stats.broken, stats.lines, stats.stored, stats.refused)
            copy.faults = Counter(stats.faults)
        copy.points = self.store.count()
        copy.series = sum(len(each.series) for each in export.measurements(self.store))
        copy.overwritten = self.store.overwritten
        return copy

    @property
    def requests(self) -> list[RecordedRequest]:
        """Return the last requests, at most 10,000, the oldest first."""
        with self._lock:
            return list(self._seen)

    def reset(self) -> None:
        """Delete points, faults and counts."""
        self.faults.clear()
        self.store.clear()
        with self._lock:
            self._stats = Stats()
            self._seen.clear()

    def _record(self, exchange: Exchange, status: int | None) -> None:
        request, tally, faults = exchange.request, exchange.tally, exchange.faults
        size = request.body.received
        seen = RecordedRequest(
            request.method, request.target, status, tally.lines, tally.stored, tally.refused, size, faults.names
        )
        with self._lock:
            stats = self._stats
            self._seen.append(seen)
            if status is None:
                stats.broken += 1
            else:
                stats.requests[status] += 1
            stats.lines += tally.lines
            stats.stored += tally.stored
            stats.refused += tally.refused
            stats.faults.update(faults.names)
        log.debug(
            "sim.answered method=%s path=%s status=%s lines=%d faults=%s",
            request.method,
            request.path,
            status,
            tally.lines,
            ",".join(faults.names),
        )


def _text(request: HttpRequest) -> bytes:
    data = request.body.read()
    if "gzip" not in request.headers.get("content-encoding", ""):
        return data
    try:
        return gunzip(data, MAX_EXPANDED)
    except Undecodable:
        return b""


def _spliced(answer: HttpResponse, fault: Fault) -> HttpResponse:
    """Return the response with its body cut at a line end and other bytes after it."""
    body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    kept = body[: body.rfind(b"\n", 0, fault.bytes or len(body) // 2) + 1]
    return HttpResponse(answer.status, answer.headers, (kept, fault.text.encode()), answer.close)


def _is_loopback(host: str) -> bool:
    """Return whether a Host header names this machine by loopback."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
