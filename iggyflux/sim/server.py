"""The simulator as a server: a thread for each connection, injected faults, and a record of all requests.

A server has one store and one dialect.  It listens on loopback, in threads of its own, between `start` and `stop`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from iggyflux.lineprotocol import Point
from iggyflux.sim import export
from iggyflux.sim.admin import ADMIN, Admin
from iggyflux.sim.core import Break, BrokenConnection, Core
from iggyflux.sim.dialects.base import ALL_RIGHTS, Dropped, ServerDialect, Settings
from iggyflux.sim.dialects.v1 import V1
from iggyflux.sim.dialects.v2 import V2
from iggyflux.sim.dialects.v3 import V3
from iggyflux.sim.exchange import ConnectionGone, HttpRequest, HttpResponse
from iggyflux.sim.faults import Chaos, Fault, RequestFaults
from iggyflux.sim.http import BadRequest, HttpConnection
from iggyflux.sim.record import RecordedRequest, Stats
from iggyflux.sim.store import Store

DIALECTS: dict[int, tuple[type[ServerDialect], str]] = {
    1: (V1, "1.8.10"),
    2: (V2, "v2.7.12"),
    3: (V3, "3.6.0"),
}
"""Each dialect with its default version."""


class SimServer:
    """An InfluxDB simulator on loopback.

    `dialect` is 1, 2 or 3; `port` 0 uses a free port.  `database` is the database or bucket that exists from the start.
    `tokens` gives rights (`read`, `write`) to tokens (`user:password` for dialect 1); `token` is short for one with all
    of them.  Without tokens every client has all rights.  `db_file` keeps the points; else they are in memory.
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
        self._core = Core(kind, self.store, self.settings)
        self.faults = self._core.faults
        self._admin = Admin(self._core, down=self._down_soon, reset=self.reset)
        self._host, self._port = host, port
        self._is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        self._wal_flush = wal_flush_seconds
        self._lock = threading.Lock()
        self._life = threading.RLock()  # held while listening begins or ends
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._reserved: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._workers: dict[threading.Thread, HttpConnection] = {}
        self._waker: threading.Timer | None = None
        self._make_database()

    # --- life ---

    def start(self) -> Self:
        """Listen; return when requests are accepted.  Raise `OSError` if the port is in use."""
        self._stopping.clear()
        self._listen()
        return self

    def stop(self) -> None:
        """Accept no more requests, end every connection, close the store; idempotent."""
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
        """The port that the server listens on."""
        return self._port

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self._host}:{self._port}"

    def down(self, seconds: float) -> None:
        """Break every connection and refuse new ones for a time; do nothing if the server is down already."""
        with self._life:
            if self._stopping.is_set() or self._reserved is not None:
                return
            self._silence()
            self._reserved = self._reserve()
            self._waker = threading.Timer(seconds, self._wake)
            self._waker.daemon = True
            self._waker.start()

    def _down_soon(self, seconds: float) -> None:
        """Call `down` after the response to the request for it."""
        threading.Timer(0.05, self.down, (seconds,)).start()

    # --- statistics ---

    @property
    def stats(self) -> Stats:
        """Return the counts up to now."""
        return self._core.stats

    @property
    def requests(self) -> list[RecordedRequest]:
        """Return the last requests, at most 10,000, the oldest first, without those under `/__sim__/`."""
        return self._core.requests

    def points(self, database: str | None = None) -> list[Point]:
        """Return all stored points in the order of `dump`."""
        return export.points(self.store, database)

    def dump(self, database: str | None = None) -> list[str]:
        """Return all stored points as canonical line protocol (tags and fields sorted, nanoseconds), sorted."""
        return export.dump(self.store, database)

    def inject(self, *faults: Fault | Chaos) -> None:
        """Arm faults."""
        for fault in faults:
            if isinstance(fault, Chaos):
                self.faults.unleash(fault)
            else:
                self.faults.add(fault)

    def reset(self) -> None:
        """Delete points, faults and counts, as at the start."""
        self._core.reset()
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
        """Return a socket that reserves the port without listening, so that connections are refused."""
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
        self._interrupt_all()

    def _interrupt_all(self) -> None:
        with self._lock:
            connections = list(self._workers.values())
        for connection in connections:
            connection.interrupt()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = HttpConnection(connection)
            worker = threading.Thread(target=self._serve, args=(client,), name="iggyflux-sim-connection", daemon=True)
            with self._lock:
                self._workers[worker] = client
            worker.start()

    # --- one request ---

    def _serve(self, connection: HttpConnection) -> None:
        try:
            while not self._stopping.is_set():
                request = connection.read_request()
                if request is None or not self._handle(connection, request):
                    break
        except BadRequest as error:
            with contextlib.suppress(ConnectionGone):
                connection.refuse(error.status)
        except (ConnectionGone, Dropped):  # a response may break off in its middle too
            pass
        finally:
            connection.close()
            with self._lock:
                self._workers.pop(threading.current_thread(), None)

    def _handle(self, connection: HttpConnection, request: HttpRequest) -> bool:
        """Answer one request; return False if the connection has ended."""
        refusal = self._core.refusal(request, any_host=not self._is_loopback)
        if refusal is not None or request.path.startswith(ADMIN):
            return self._send(connection, request, refusal or self._admin.answer(request), RequestFaults())
        exchange = self._core.begin(request)
        self._wait(exchange.delay)
        outcome = self._core.finish(exchange)
        if isinstance(outcome, BrokenConnection):
            self._break(connection, outcome)
            return False
        if exchange.kind == "write" and self._wal_flush and outcome.status == 204:
            self._wait(self._wal_flush - time.monotonic() % self._wal_flush)
        return self._send(connection, request, outcome, exchange.faults)

    def _break(self, connection: HttpConnection, broken: BrokenConnection) -> None:
        if broken.how is Break.DOWN:
            self.down(broken.seconds)  # first, so that a client that sees this connection end cannot connect
        if broken.how is Break.DIE:  # every client sees the process end; the simulator is back at once
            self._interrupt_all()
        if broken.how in (Break.DOWN, Break.RESET):
            connection.reset()
        connection.close()

    def _send(
        self, connection: HttpConnection, request: HttpRequest, answer: HttpResponse, faults: RequestFaults
    ) -> bool:
        """Send a response; return False if the connection ends after it."""
        pieces = connection.encode(request, answer)
        if fault := faults.of("truncate"):
            whole = b"".join(pieces)
            start = whole.index(b"\r\n\r\n") + 4
            connection.send(whole[: min(fault.bytes or start + (len(whole) - start) // 2, len(whole) - 1)])
            connection.hang_up()
            return False
        if fault := faults.of("drip"):
            data = b"".join(pieces)
            pieces = iter(data[start : start + fault.bytes] for start in range(0, len(data), fault.bytes))
        for piece in pieces:
            connection.send(piece)
            if fault is not None:
                self._wait(fault.seconds)
        if connection.is_over():
            connection.hang_up()
            return False
        return True

    def _wait(self, seconds: float) -> None:
        if seconds:
            self._stopping.wait(seconds)
