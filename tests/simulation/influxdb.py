"""InfluxDB in the world: the core of the simulator behind an HTTP client that waits in virtual time.

The client returns what `HttpClient` returns for the same end of an exchange (`transports/influxdb/http.py`):

| what happens                                       | the client returns                                     |
|----------------------------------------------------|--------------------------------------------------------|
| nothing listens                                    | Unavailable, "cannot connect"                          |
| the answer comes in time                           | Answer                                                 |
| the connection ends before the answer              | Unavailable, `connection_died`                         |
| no answer within the ticket's time, or it is cut   | Unavailable, `suspicious`                              |
| the answer breaks off                              | Answer, not whole                                      |
"""

from __future__ import annotations

import contextvars
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from iggyflux.delivery.answers import Answer, parse_http_date
from iggyflux.delivery.retention import Retention
from iggyflux.delivery.verdicts import Unavailable
from iggyflux.pipeline import InfluxSettings
from iggyflux.sim.core import Break, BrokenConnection, Core
from iggyflux.sim.dialects.base import Settings
from iggyflux.sim.exchange import Body, request_of
from iggyflux.sim.plain import Fields
from iggyflux.sim.server import DIALECTS
from iggyflux.sim.store import Series, Store
from iggyflux.spec import Query
from iggyflux.transports.influxdb.flavors import FLAVORS
from iggyflux.transports.influxdb.http import Failure, Ticket
from iggyflux.transports.influxdb.query.source import InfluxRows
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
from tests.simulation.loop import Process, VirtualLoop, Wait, current_process

WHERE = "influxdb.example:8086"
_WORLD = contextvars.Context()
_BUSY = (408, 425, 429)
_PIECE_BYTES = 64 * 1024


Row = tuple[Series, int, Fields]


@dataclass
class Written:
    """Points that were written at a time."""

    at: float
    rows: list[Row]
    is_acknowledged: bool = False
    """Whether the client got the answer."""


class Influx:
    """One server: up, down or hanging."""

    def __init__(
        self,
        loop: VirtualLoop,
        chance: random.Random,
        dialect: int,
        now_ns: Callable[[], int],
        *,
        retention_hours: int | None,
        retry_seconds: float,
    ) -> None:
        kind, version = DIALECTS[dialect]
        self.loop = loop
        self.chance = chance
        self.store = Store()
        self.core = Core(kind, self.store, Settings(version=version, database="test", now_ns=now_ns))
        if dialect != 3:
            self.store.create_database("test", duration_ns=(retention_hours or 0) * 3600 * 10**9)
        self.retention_seconds = None if dialect == 3 else (retention_hours or 0) * 3600
        self.is_up = True
        self.is_hanging = False
        self.is_slow = False
        self.is_another = False
        """Whether another product answers at the address."""
        self.is_stopping: Callable[[Process | None], bool] = lambda _: False
        """Whether a process was asked to stop."""
        self.exchanges: dict[_Exchange, None] = {}
        self._flavor = FLAVORS[f"v{dialect}"]
        self.most_at_once: Counter[str] = Counter()
        """The largest number of writes at once of each sink."""
        self.wrong: list[str] = []
        self.retries = Retries(self, 0.5 + retry_seconds)
        self.asked: dict[Process | None, tuple[float, float]] = {}
        """Until when a process was asked to write nothing, and since when it knows: all its routes obey."""
        self.answered = 0
        self._journal: list[Written] | None = None
        self._store_rows = self.store.write

    def kill(self) -> None:
        """End every connection and be down."""
        self.is_up = False
        for each in list(self.exchanges):
            each.break_off()

    def keep_journal(self) -> None:
        """Remember all writes from now on, so that `lose` can undo the last ones."""
        self._journal = []
        self.store.write = self._write_journaled  # type: ignore[method-assign]

    def _write_journaled(self, rows: Iterable[Row]) -> int:
        assert self._journal is not None
        written = Written(self.loop.time(), list(rows))
        self._journal.append(written)
        return self._store_rows(written.rows)

    def journaled(self, start: int = 0) -> list[Written]:
        """Return the writes that are remembered, from the number `start` on."""
        return [] if self._journal is None else self._journal[start:]

    def lose(self, seconds: float) -> tuple[list[Written], list[Written]]:
        """Be killed, and lose the writes of the last `seconds`; return those that are lost, and those that are left.

        The write-ahead log of 2.x may lose its end, with points that were acknowledged (github.com/influxdata/influxdb:
        a torn record is not truncated before the next write).
        """
        self.kill()
        since = max(self.loop.time() - seconds, 0.0)  # what was there at the start stays
        lost = [each for each in self.journaled() if each.at > since]
        left = self._journal = [each for each in self.journaled() if each.at <= since]
        places = {(series.id, time): series for each in lost for series, time, _ in each.rows}
        for (_, time), series in places.items():
            self.store.delete(series.measurement, [(time, series)])
        for each in left:
            self._store_rows([row for row in each.rows if (row[0].id, row[1]) in places])
        return lost, left

    def start(self) -> None:
        """Be up, and answer."""
        self.is_up, self.is_hanging = True, False
        for each in list(self.exchanges):
            each.wake()

    def hang(self) -> None:
        """Answer nothing until `start`."""
        self.is_hanging = True

    def most_in_flight(self, configured: int | None) -> int:
        """Return how many writes a route may have in flight."""
        return configured or self._flavor.in_flight.most

    def latency(self) -> float:
        """Return the time of one way."""
        return self.chance.expovariate(1 / (0.5 if self.is_slow else 0.004))


class Retries:
    """What each process knows of the server: after the first failure since an answer it tries again soon.

    Only failures to connect count, while nothing else is in flight: they cannot be the doing of a line.
    """

    def __init__(self, server: Influx, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._failures: Counter[Process | None] = Counter()
        self._failed_at: dict[Process | None, float] = {}
        self._due: dict[Process | None, _Waiting] = {}
        self.reconnects: Callable[[Process | None], object] = lambda _: None
        """Returns what changes when a process abandons its writes."""

    def begin(self, exchange: _Exchange) -> None:
        """Check when a write or a ping begins; others than those that failed may send once."""
        now, process = self._server.loop.time(), exchange.process
        waiting = self._due.get(process)
        if waiting is None or exchange.client not in waiting.clients:
            return
        del self._due[process]
        is_excused = self._server.is_stopping(process) or self.reconnects(process) != waiting.reconnects
        if now > waiting.until and not is_excused:
            self._server.wrong.append(
                f"the first attempt after a failure was made {now - waiting.until:.1f} s too late"
            )

    def end(self, exchange: _Exchange, found: Answer | Failure) -> None:
        """Note how it ended."""
        now, process = self._server.loop.time(), exchange.process
        if isinstance(found, Answer) and found.status < 300:
            if exchange.began > self._failed_at.get(process, -1.0):
                self._failures[process] = 0
                self._due.pop(process, None)
            return
        if isinstance(found, Answer) and 400 <= found.status < 500 and found.status not in _BUSY:
            return  # about lines
        self._failures[process] += 1
        self._failed_at[process] = now
        if not isinstance(found, Unavailable) or found.connection_died or found.suspicious:
            self._due.pop(process, None)
            return
        is_alone = not any(
            each.is_write and each.process is process and each is not exchange for each in self._server.exchanges
        )
        if is_alone and self._failures[process] == 1:
            self._due[process] = _Waiting(now + self._seconds, self.reconnects(process), {exchange.client})
        elif process in self._due:
            self._due[process].clients.add(exchange.client)


@dataclass
class _Waiting:
    until: float
    reconnects: object
    clients: set[Client | None]
    """The clients that failed."""


class _Exchange:
    """One exchange: what a ticket can cut, and what ends when the server is killed."""

    def __init__(self, server: Influx, ticket: Ticket) -> None:
        self.server = server
        self.ticket = ticket
        self.process = current_process()
        self.began = server.loop.time()
        self.deadline = self.began + ticket.seconds
        self.is_broken = False
        self.has_sent = False
        self.is_write = False
        self.size = 0
        """The bytes of a write; those of a single line count up to the limit."""
        self.client: Client | None = None
        self._wait: Wait | None = None

    def cut(self, _ticket: Ticket) -> None:
        self.wake()

    def break_off(self) -> None:
        self.is_broken = True
        self.wake()

    def wake(self) -> None:
        if self._wait is not None:
            self._wait.end()

    @property
    def is_over(self) -> bool:
        return self.is_broken or self.ticket.is_over or self.server.loop.time() >= self.deadline

    def pause(self, seconds: float) -> bool:
        """Wait, while the server hangs longer; return whether the exchange goes on."""
        until = self.server.loop.time() + seconds
        while not self.is_over:
            now = self.server.loop.time()
            if now >= until and not self.server.is_hanging:
                return True
            end = self.deadline if self.server.is_hanging else min(until, self.deadline)
            self._wait = Wait(self.server.loop)
            self._wait.wait(max(end - now, 0.0))
            self._wait = None
        return False

    def failure(self) -> Unavailable:
        """Return why there is no answer."""
        if self.is_broken:
            return Unavailable(f"the connection to {WHERE} broke before the answer: reset", connection_died=True)
        return Unavailable(f"no complete answer from {WHERE} within {self.ticket.seconds:g} s", suspicious=True)


class Client:
    """As `HttpClient`, for the code of a transport."""

    def __init__(self, server: Influx, settings: InfluxSettings, name: str = "") -> None:
        self._server = server
        self._max_lines, self._max_bytes = settings.batch_size, settings.batch_bytes
        self._name = name
        self._most_at_once = server.most_in_flight(settings.max_in_flight)
        self._timeout_seconds = settings.timeout_seconds
        self._ended_at = float("-inf")
        self._under_way: dict[Ticket, None] = {}
        self.retention_seconds = server.retention_seconds

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        ticket: Ticket | None = None,
    ) -> Answer | Failure:
        """As `HttpClient.exchange`."""
        ticket = ticket or Ticket(self._timeout_seconds)
        server, exchange = self._server, _Exchange(self._server, ticket)
        ticket.connection = exchange  # type: ignore[assignment]
        self._under_way[ticket] = None
        server.exchanges[exchange] = None
        self._check_begin(exchange, target, body or b"")
        try:
            found = self._exchange(exchange, method, target, headers, body)
            if self._name:
                server.retries.end(exchange, found)
            return found
        finally:
            server.exchanges.pop(exchange, None)
            self._under_way.pop(ticket, None)
            self._ended_at = server.loop.time()

    def download(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        into: Callable[[bytes], None],
        *,
        ticket: Ticket,
    ) -> Answer | Failure:
        """As `HttpClient.download`."""
        answer = self.exchange(method, target, headers, body, ticket=ticket)
        if not isinstance(answer, Answer) or answer.status != 200:
            return answer
        for start in range(0, len(answer.body), _PIECE_BYTES):
            into(answer.body[start : start + _PIECE_BYTES])
        return Answer(200, answer.headers, b"", answer.whole)

    def close(self) -> None:
        """As `HttpClient.close`."""
        for ticket in tuple(self._under_way):
            ticket.cut()

    def _check_begin(self, exchange: _Exchange, target: str, body: bytes) -> None:
        """Check that no more is in flight than may be, and that the server is left alone as it asked."""
        exchange.is_write, exchange.client = "write" in target, self
        if self._name:
            self._server.retries.begin(exchange)
            self._check_asked(exchange, has_lines=exchange.is_write and body[:1] not in (b"", b"#"))
        if not exchange.is_write:
            return
        server = self._server
        at_once = sum(each.client is self and each.is_write and not each.ticket.is_over for each in server.exchanges)
        server.most_at_once[self._name] = max(server.most_at_once[self._name], at_once)
        lines = body.count(b"\n") + 1
        exchange.size = len(body) if lines > 1 else min(len(body), self._max_bytes)
        self._check_bytes(exchange.process)
        if lines > 1 and (len(body) > self._max_bytes or lines > self._max_lines):
            server.wrong.append(f"a write has {lines} lines and {len(body)} bytes")

    def _check_asked(self, exchange: _Exchange, *, has_lines: bool) -> None:
        """Check that no route asks a server that asked for no requests; one that is connecting asks on."""
        server, now = self._server, self._server.loop.time()
        until, known_at = server.asked.get(exchange.process, (0.0, 0.0))
        is_known = now > known_at  # not in the moment in which the answer ends
        if not has_lines and now - self._ended_at < 0.001:
            return  # the next one of several requests, the first of which began before
        if is_known and now < until and not server.is_stopping(exchange.process):
            server.wrong.append(f"a request at {now:.3f} s, not before {until:.3f} s, as the server asked")

    def _check_bytes(self, process: Process | None) -> None:
        """Check the sum of the bytes that a process has in flight, over its routes and their writes."""
        writes = [each for each in self._server.exchanges if each.is_write and each.process is process]
        size = sum(each.size for each in writes if not each.ticket.is_over)
        allowed = len({each.client for each in writes}) * self._most_at_once * self._max_bytes
        if size > allowed:
            self._server.wrong.append(f"{size} bytes are in flight, {allowed} are allowed")

    def _exchange(
        self, exchange: _Exchange, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer | Failure:
        server = self._server
        if not exchange.pause(server.latency()):
            return exchange.failure()
        if not server.is_up:
            return Unavailable(f"cannot connect to {WHERE}: Connection refused")
        exchange.has_sent = True
        if server.is_another:
            return Answer(404, {"content-type": "text/html", "server": "nginx"}, b"<html>not found</html>", True)
        begun = server.core.begin(request_of(method, target, headers, Body.of(body or b"")))
        if begun.delay and not exchange.pause(begun.delay):
            return exchange.failure()
        before = len(server.journaled())
        found = server.core.finish(begun)
        written = server.journaled(before)
        if isinstance(found, BrokenConnection):
            return self._broken(exchange, found)
        server.answered += 1
        if not exchange.pause(server.latency()):
            return exchange.failure()
        names = {name.lower(): value for name, value in found.headers.items()}
        asked = found.status in (429, 503) and "retry-after" in names
        until = server.loop.time() + self._asked_seconds(names["retry-after"]) if asked else 0.0
        if "date" not in names:
            names["date"] = _http_date(server.core.settings.now_ns())
        whole = found.body if isinstance(found.body, bytes) else b"".join(found.body)
        drip = begun.faults.of("drip")
        if drip is not None and not exchange.pause(len(whole) / drip.bytes * drip.seconds):
            return exchange.failure()
        if self._name and until > server.asked.get(exchange.process, (0.0, 0.0))[0]:
            server.asked[exchange.process] = (
                until,
                server.loop.time(),
            )  # known when the client has the whole answer
        cut = begun.faults.of("truncate")
        for each in written:  # of a 204 the status is enough
            each.is_acknowledged = begun.faults.of("status") is None and (cut is None or found.status == 204)
        if cut is not None:
            return Answer(found.status, names, whole[: cut.bytes], False)
        names.setdefault("content-length", str(len(whole)))
        return Answer(found.status, names, whole, True)

    def _asked_seconds(self, retry_after: str) -> float:
        """Return how long the server asks to wait: a date is of its own clock."""
        if retry_after.isdigit():
            return float(retry_after)
        date = parse_http_date(retry_after)
        return 0.0 if date is None else date - self._server.core.settings.now_ns() / 10**9

    def _broken(self, exchange: _Exchange, found: BrokenConnection) -> Failure:
        server = self._server
        exchange.is_broken = True
        if found.how in (Break.DIE, Break.DOWN):
            server.kill()
            server.loop.call_later(found.seconds or server.chance.uniform(0.2, 5.0), server.start, context=_WORLD)
        return exchange.failure()


def _http_date(now_ns: int) -> str:
    from email.utils import formatdate

    return formatdate(now_ns // 10**9, usegmt=True)


class LineSink(InfluxLineSink):
    """The real sink over the client of the world."""

    def __init__(self, settings: InfluxSettings, server: Influx, now: Callable[[], float], name: str) -> None:
        super().__init__(settings, now=now)
        self._simulated = Client(server, settings, name)

    def _http(self) -> Client:  # type: ignore[override]
        return self._simulated

    async def retention(self) -> Retention:
        """Return what the server keeps, without a request: 3.x does not tell, and kept seeds stay the same worlds."""
        return Retention(self._simulated.retention_seconds)


class Rows(InfluxRows):
    """The real source of rows over the client of the world."""

    def __init__(self, settings: InfluxSettings, query: Query, server: Influx, now: Callable[[], float]) -> None:
        super().__init__(settings, query, now=now)
        self._simulated = Client(server, settings)

    def _http(self) -> Client:  # type: ignore[override]
        return self._simulated
