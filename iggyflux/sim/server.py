"""The simulator as a server: a thread for each connection, faults done to requests, and a record of them all.

A server has one store and one dialect.  It listens on loopback, in threads of its own, between `start` and `stop`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from iggyflux.lineprotocol import Point
from iggyflux.sim import export
from iggyflux.sim.admin import ADMIN, administer
from iggyflux.sim.classic import ServerKilled
from iggyflux.sim.dialects.base import ALL_RIGHTS, Dialect, Dropped, Settings, Tally
from iggyflux.sim.dialects.v1 import V1
from iggyflux.sim.dialects.v2 import V2
from iggyflux.sim.dialects.v3 import V3
from iggyflux.sim.faults import Chaos, Fault, Faults, Strike
from iggyflux.sim.record import Seen, Stats
from iggyflux.sim.store import Store
from iggyflux.sim.wire import (
    Answer,
    BadRequest,
    ConnectionGone,
    Request,
    TooLarge,
    Undecodable,
    Wire,
    gunzip,
    head_of,
    pieces_of,
    read_request,
)

log = logging.getLogger("iggyflux.sim")

DIALECTS: dict[int, tuple[type[Dialect], str]] = {
    1: (V1, "1.8.10"),
    2: (V2, "v2.7.12"),
    3: (V3, "3.6.0"),
}
"""Each dialect with the version that it is when none is asked for."""
_REMEMBERED = 10_000

Break: TypeAlias = Callable[[Wire], None]
"""A way to end a connection without an answer."""


class SimServer:
    """An InfluxDB stand-in on loopback.

    `dialect` is 1, 2 or 3; `port` 0 takes a free one.  `database` is the database or bucket that is there from the
    start.  `tokens` gives rights (`read`, `write`) to tokens (`user:password` for dialect 1); `token` is short for one
    with all of them; without any, everybody may do everything.  `db_file` keeps the points; else they are in memory.
    """

    def __init__(
        self,
        dialect: int = 2,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        version: str | None = None,
        database: str | None = "test",
        org: str = "org",
        token: str | None = None,
        tokens: Mapping[str, frozenset[str] | set[str]] | None = None,
        retention_seconds: int = 0,
        max_body: int | None = None,
        assets: bool = True,
        wal_flush_seconds: float = 0.0,
        db_file: Path | None = None,
    ) -> None:
        if dialect not in DIALECTS:
            raise ValueError(f"dialect: expected one of {', '.join(map(str, DIALECTS))}, found {dialect}")
        kind, usual = DIALECTS[dialect]
        rights = {name: frozenset(each) for name, each in (tokens or {}).items()}
        if token is not None:
            rights[token] = ALL_RIGHTS
        self.dialect = dialect
        self.store = Store(db_file)
        self.faults = Faults()
        self.settings = Settings(
            version=version or usual,
            database=database,
            org=org,
            retention_ns=retention_seconds * 10**9,
            tokens=rights,
            max_body=max_body,
            assets=assets,
            now_ns=time.time_ns,
        )
        self._api = kind(self.store, self.settings)
        self._host, self._port = host, port
        self._wal_flush = wal_flush_seconds
        self._stats = Stats()
        self._seen: deque[Seen] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()
        self._life = threading.RLock()  # held by who begins or ends to listen
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._reserved: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._workers: dict[threading.Thread, Wire] = {}
        self._waker: threading.Timer | None = None
        self._make_database()

    # --- life ---

    def start(self) -> Self:
        """Listen; returns when requests are taken.  Raises `OSError` where the port is not free."""
        self._stopping.clear()
        self._listen()
        return self

    def stop(self) -> None:
        """Take no more requests, end every connection, let go of the store; idempotent."""
        self._stopping.set()
        with self._life:
            waker, self._waker = self._waker, None
        if waker is not None:
            waker.cancel()
            waker.join()
        with self._life:
            self._silence()
            if self._reserved is not None:
                self._reserved.close()
                self._reserved = None
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.join(timeout=5)
        self.store.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self._host}:{self._port}"

    def down(self, seconds: float) -> None:
        """Break every connection and refuse new ones for a time; nothing, where it does so already."""
        with self._life:
            if self._stopping.is_set() or self._reserved is not None:
                return
            self._silence()
            self._reserved = self._reserve()
            self._waker = threading.Timer(seconds, self._wake)
            self._waker.daemon = True
            self._waker.start()

    # --- what happened ---

    @property
    def stats(self) -> Stats:
        """Counts up to now."""
        with self._lock:
            stats = self._stats
            copy = Stats(Counter(stats.requests), stats.broken, stats.lines, stats.stored, stats.refused)
            copy.faults = Counter(stats.faults)
        copy.points = self.store.count()
        copy.series = sum(len(each.series) for each in export.measurements(self.store))
        copy.overwritten = self.store.overwritten
        return copy

    @property
    def requests(self) -> list[Seen]:
        """The last requests, at most 10,000, the oldest first; those under `/__sim__/` are not among them."""
        with self._lock:
            return list(self._seen)

    def points(self, database: str | None = None) -> list[Point]:
        """All stored points in the order of `dump`."""
        return export.points(self.store, database)

    def dump(self, database: str | None = None) -> list[str]:
        """All stored points as canonical line protocol (tags and fields sorted, nanoseconds), sorted."""
        return export.dump(self.store, database)

    def inject(self, *faults: Fault | Chaos) -> None:
        """Arm faults."""
        for fault in faults:
            if isinstance(fault, Chaos):
                self.faults.unleash(fault)
            else:
                self.faults.add(fault)

    def reset(self) -> None:
        """Forget points, faults and counts, as if just started."""
        self.faults.clear()
        self.store.clear()
        with self._lock:
            self._stats = Stats()
            self._seen.clear()
        self._make_database()

    # --- sockets ---

    def _make_database(self) -> None:
        name = self.settings.database
        if name is not None and (self.dialect != 3 or self.settings.retention_ns):
            self.store.create_database(name, duration_ns=self.settings.retention_ns)

    def _listen(self) -> None:
        listener = self._reserve() if self._reserved is None else self._reserved
        self._reserved = None
        listener.listen(128)
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), name="iggyflux-sim", daemon=True)
        self._acceptor.start()

    def _reserve(self) -> socket.socket:
        """A socket that holds the port without listening, so that connections are refused and nobody takes it."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        holder = socket.socket(family, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((self._host, self._port))
        except OSError:
            holder.close()
            raise
        self._port = holder.getsockname()[1]
        return holder

    def _wake(self) -> None:
        with self._life:
            if not self._stopping.is_set():
                self._listen()

    def _silence(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        if self._acceptor is not None and self._acceptor is not threading.current_thread():
            self._acceptor.join(timeout=5)
        with self._lock:
            wires = list(self._workers.values())
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(connection)
            worker = threading.Thread(target=self._serve, args=(wire,), name="iggyflux-sim-connection", daemon=True)
            with self._lock:
                self._workers[worker] = wire
            worker.start()

    def _serve(self, wire: Wire) -> None:
        try:
            while not self._stopping.is_set():
                request = read_request(wire)
                if request is None or not self._handle(wire, request):
                    break
        except BadRequest:
            with contextlib.suppress(ConnectionGone):
                wire.send(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request"
                )
        except (ConnectionGone, Dropped):
            pass
        finally:
            wire.close()
            with self._lock:
                self._workers.pop(threading.current_thread(), None)

    # --- one request ---

    def _handle(self, wire: Wire, request: Request) -> bool:
        """Answer one request; False where the connection is over."""
        if request.path.startswith(ADMIN):
            return self._send(wire, request, administer(self, request), Strike())
        kind = self._api.kind(request)
        strike = self.faults.strike(kind, request.path)
        tally = Tally()
        try:
            outcome = self._suffer(request, strike, tally)
        except (ConnectionGone, BadRequest):
            self._record(request, None, tally, strike)
            raise
        if not isinstance(outcome, Answer):
            self._record(request, None, tally, strike)
            outcome(wire)
            return False
        self._record(request, outcome.status if strike.of("truncate") is None else None, tally, strike)
        if kind == "write" and self._wal_flush and outcome.status == 204:
            self._wait(self._wal_flush - time.monotonic() % self._wal_flush)
        return self._send(wire, request, outcome, strike)

    def _suffer(self, request: Request, strike: Strike, tally: Tally) -> Answer | Break:
        """What is answered under these faults, or how the connection is broken."""
        if fault := strike.of("latency"):
            self._wait(fault.seconds)
        if fault := strike.of("down"):
            return self._go_down(fault.seconds)
        reset, status = strike.of("reset"), strike.of("status")
        if reset is not None and reset.when != "after":
            if reset.when == "during":
                request.body.read_half()
            return Wire.reset
        if status is not None and status.early:
            return self._forced(status)
        if (large := strike.of("too_large")) is not None:
            try:
                request.body.read(large.bytes)
            except TooLarge:
                return self._api.too_large(request, large.bytes)
        if (killer := strike.of("killer")) is not None and killer.text.encode() in self._text(request):
            return self._die
        final = reset or status
        answer: Answer | Break = Wire.reset
        if final is None or final.stored:
            answer = self._apply(request, tally, twice=strike.of("duplicate") is not None)
        else:
            request.body.read()
        if status is not None:
            return self._forced(status)
        return Wire.reset if reset is not None else answer

    def _go_down(self, seconds: float) -> Break:
        def go(wire: Wire) -> None:
            self.down(seconds)  # first: who sees this connection end must find nobody
            wire.reset()

        return go

    def _apply(self, request: Request, tally: Tally, *, twice: bool) -> Answer | Break:
        try:
            if twice:
                request.body.read()
                self._api.answer(request, Tally())
            return self._api.answer(request, tally)
        except ServerKilled:
            return self._die
        except Dropped:
            return Wire.close

    def _die(self, wire: Wire) -> None:
        """What every client sees when the process ends: all connections break.  The stand-in is back at once."""
        with self._lock:
            wires = list(self._workers.values())
        for each in wires:
            if each is not wire:
                with contextlib.suppress(OSError):
                    each.socket.shutdown(socket.SHUT_RDWR)
        wire.close()

    def _text(self, request: Request) -> bytes:
        data = request.body.read()
        if "gzip" not in request.headers.get("content-encoding", ""):
            return data
        try:
            return gunzip(data)
        except Undecodable:
            return b""

    def _forced(self, fault: Fault) -> Answer:
        headers = dict(fault.headers)
        if fault.retry_after is not None:
            if fault.retry_after_form == "date":
                headers["Retry-After"] = formatdate(time.time() + fault.retry_after, usegmt=True)
            else:
                headers["Retry-After"] = f"{fault.retry_after:g}"
        text = fault.text or f"{fault.status}: a fault on purpose"
        if fault.body == "own":
            own = self._api.failure(fault.status, text)
            return Answer(fault.status, {**own.headers, **headers}, own.body, close=fault.early)
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
        return Answer(fault.status, headers, body.encode(), close=fault.early)

    def _send(self, wire: Wire, request: Request, answer: Answer, strike: Strike) -> bool:
        """Send an answer; False where the connection is over after it."""
        if fault := strike.of("splice"):
            answer = _spliced(answer, fault)
        close = answer.close or not request.keep_alive or not request.body.finished
        head = head_of(answer, close=close, method=request.method)
        pieces = iter(()) if request.method == "HEAD" else iter(pieces_of(answer))
        if fault := strike.of("truncate"):
            whole = head + b"".join(pieces)
            wire.send(whole[: min(fault.bytes or len(head) + (len(whole) - len(head)) // 2, len(whole) - 1)])
            self._hang_up(wire)
            return False
        if fault := strike.of("drip"):
            self._drip(wire, head + b"".join(pieces), fault)
            return not close
        first = next(pieces, b"")
        wire.send(head + first)
        for piece in pieces:
            wire.send(piece)
        if close:
            self._hang_up(wire)
        return not close

    def _drip(self, wire: Wire, data: bytes, fault: Fault) -> None:
        for start in range(0, len(data), fault.bytes):
            wire.send(data[start : start + fault.bytes])
            self._wait(fault.seconds)

    def _hang_up(self, wire: Wire) -> None:
        """End what is sent; take what still comes in for a moment, so that the answer is not lost to a reset."""
        with contextlib.suppress(OSError):
            wire.socket.shutdown(socket.SHUT_WR)
            wire.socket.settimeout(0.5)
            while wire.socket.recv(65_536):
                pass

    def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _record(self, request: Request, status: int | None, tally: Tally, strike: Strike) -> None:
        size = request.body.received
        seen = Seen(
            request.method, request.target, status, tally.lines, tally.stored, tally.refused, size, strike.names
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
            stats.faults.update(strike.names)
        log.debug(
            "sim.answered method=%s path=%s status=%s lines=%d faults=%s",
            request.method,
            request.path,
            status,
            tally.lines,
            ",".join(strike.names),
        )


def _spliced(answer: Answer, fault: Fault) -> Answer:
    """The answer with its body cut at a line's end and something else behind it."""
    body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    kept = body[: body.rfind(b"\n", 0, fault.bytes or len(body) // 2) + 1]
    return Answer(answer.status, answer.headers, (kept, fault.text.encode()), answer.close)
