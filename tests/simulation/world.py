"""One world: servers, processes, messages and the faults of a scenario, from the start to the end of everything."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import dataclasses
import gc
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_iggy as sdk

from iggyflux.cli.check import CheckResult, check_group
from iggyflux.errors import NotConnected, Stopped
from iggyflux.mapping import OnError
from iggyflux.pipeline import IggySettings, InfluxSettings, Secret
from iggyflux.records import Message, Partition, Position, Rendered
from iggyflux.runner import Route, Status, Stop, Summary, run_routes, writer_run
from iggyflux.runner.build import policy_of
from iggyflux.runner.change import SETTLE_SECONDS
from iggyflux.runner.clock import SystemClock
from iggyflux.runner.lanes import MOST_WAITING
from iggyflux.runner.reload import Reload
from iggyflux.runner.route import AnyRoute, ReaderRoute, WriterPlan
from iggyflux.runner.status import RouteStatus
from iggyflux.sim.core import Exchange
from iggyflux.sim.exchange import Body, HttpResponse, request_of
from iggyflux.sim.faults import Fault, RequestFaults
from iggyflux.transports.iggy import connection as iggy_connection
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from iggyflux.transports.iggy.source import IggySource
from iggyflux.transports.iggy.topics import IggySink
from iggyflux.transports.local.deadletters import DirectoryDeadLetters
from tests.fault_rows import PASSING
from tests.simulation.disk import Disk
from tests.simulation.documents import Shelf, ShelfDocuments, mapping_of, plan_of
from tests.simulation.iggy import Iggy
from tests.simulation.influxdb import Influx, LineSink, Rows
from tests.simulation.loop import Deadlock, Endless, Process, VirtualLoop, bounded_steps, current_process
from tests.simulation.reader import (
    OUT,
    LedgerState,
    OutgoingBytes,
    ReaderState,
    ReaderTruth,
    WatchedLedger,
    cursor_of,
    reader_mapping,
    reader_plan,
    rules_of,
)
from tests.simulation.scenario import Event, ReaderSpec, RouteSpec, Scenario
from tests.simulation.truth import DEAD, FIRST_MS, SHORTEST_LINE, Truth
from tests.simulation.words import (
    REMEDY,
    Standstill,
    names,
    standstill,
    wrong_in_check,
    wrong_in_event,
    wrong_in_status,
)
from tests.transports.fake_iggy_groups import STREAM

EPOCH = 1_700_000_000.0
SHUTDOWN_SECONDS = 30.0
SESSION_BACKOFF_SECONDS = 30.0
STALLED_SECONDS = 15.0
"""After so long a message is stored, whatever another bucket does."""
SILENT_SECONDS = 20.0
"""A partition with messages makes no progress for so long, and nothing says why: a fault."""
SLOW_SECONDS = 12.0
"""How much later a status may say so if Iggy was slow meanwhile."""
HEARTBEAT_SECONDS = 10.0
"""A server that hears nothing from a client for so long may end its connection."""
IDLE_SECONDS = 5.0
"""A process that was asked to stop ends sooner, unless it waits for an answer."""
_LONG = [
    *({"kind": "drip", "bytes": 5, "seconds": seconds} for seconds in (0.1, 1.0)),
    {"kind": "drip", "bytes": 1, "seconds": 20.0},
    *({"kind": "status", "status": status, "retry_after": seconds} for status in (429, 503) for seconds in (3, 20)),
    *({"kind": "status", "status": 503, "retry_after": seconds, "retry_after_form": "date"} for seconds in (5, 20)),
]
"""Answers that take long, or make a client wait."""
_JUMPS = [sign * seconds for seconds in (5, 120, 3600, 4 * 3600) for sign in (-1, 1)]
"""By how many seconds the clock of a server jumps; the microseconds of messages stay different."""
_GRAVEYARD: list[object] = []
"""What never finished: its `finally` must not run when it is forgotten, not even at the end of the interpreter."""
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_GRAVEYARD))


_EXPECTED = {
    "IFX610": "all points are beyond the retention",
    "IFX700": "the disk",
    "IFX715": "the disk",
    "IFX720": "another product answers a write",
    "IFX729": "another product answers a ping",
    "IFX740": "another product answers a query",
}
"""The codes with which a route may stop, and what makes it stop."""


class Plan(WriterPlan):
    """The plan of a version of a route's mapping."""

    def __init__(self, spec: RouteSpec, sink: LineSink, version: int) -> None:
        self._spec = spec
        self._sink = sink
        self._version = version

    def _plan(self) -> WriterPlan:
        return plan_of(self._spec, self._version, self._sink.dialect)

    @property
    def identity(self) -> str:
        """The identity of the plan."""
        return mapping_of(self._spec, self._version).identity(dialect=self._sink.dialect)

    def may_take_long(self, messages: Sequence[Message]) -> bool:
        """Return True for some batches, which are then rendered in a thread."""
        return len(messages) % 2 == 0

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return what the compiled plan renders."""
        return self._plan().render(messages)

    def render_parts(self, messages: Sequence[Message]) -> Iterator[tuple[int, Rendered]]:
        """Return the same in parts, as if each message took long."""
        if len(messages) % 3:
            yield len(messages), self.render(messages)
            return
        for message in messages:
            yield 1, self.render([message])


@dataclass
class Incarnation:
    """A process that runs the routes, from its start to its end."""

    number: int
    process: Process
    status: Status
    stop: Stop
    task: asyncio.Task[Summary]
    reload: Reload
    is_terminated: bool = False


@dataclass
class Progress:
    """What a partition still has, and since when nothing of it was settled."""

    waiting: int = 0
    since: float = 0.0
    newest: int = 0
    """The member that joined last."""


@dataclass
class Result:
    """What a world found and did."""

    scenario: Scenario
    wrong: list[str]
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    timeline: list[str] = field(default_factory=list)


class World:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, folder: Path, *, is_told: bool = False) -> None:
        self.scenario = scenario
        self.has_buckets = scenario.dead_until is not None
        self.sent_at: dict[int, float] = {}
        self.loop = VirtualLoop()
        self.chance = random.Random(scenario.seed + 1)
        self.disk = Disk(folder)
        self.wall_offset = 0.0
        self.server_offset = 0.0
        self._latest_server_ns = 0
        self.influx = Influx(
            self.loop,
            random.Random(scenario.seed + 2),
            scenario.dialect,
            self.server_ns,
            retention_hours=scenario.retention_hours,
            retry_seconds=scenario.retry_backoff_seconds,
        )
        self.influx.is_stopping = self._is_stopping
        self.influx.retries.reconnects = self._reconnects
        self.iggy = Iggy(random.Random(scenario.seed + 3), scenario.partitions, scenario.topics)
        self.iggy.create(OUT, 2)
        if any(event.kind == "influxdb loses its last points" for event in scenario.events):
            self.influx.keep_journal()
        self.shelf = Shelf(scenario.routes)
        self.truth = Truth(
            scenario.routes,
            self.influx.store,
            self._number,
            oldest_ns=self._oldest_ns,
            refuses_large=scenario.most_bytes is not None,
            most_held=self._most_held(),
            has_buckets=self.has_buckets,
            may_use=self.shelf.good.__contains__,
            version_of=self.shelf.version_of,
        )
        if self.has_buckets:
            self.influx.store.create_database("warm", duration_ns=(scenario.retention_hours or 0) * 3600 * 10**9)
        self.iggy.on_poll, self.iggy.on_store = self.truth.polled, self._stored
        self.disk.on_sync, self.disk.on_new = self.truth.synced, self.truth.created
        self.reader = ReaderTruth(
            random.Random(scenario.seed + 4), self.true_ns, self.latest_server_ns, scenario.reader, self.truth.wrong
        )
        self.state = ReaderState(self.reader)
        self.ledgers: dict[tuple[int, str], LedgerState] = {}
        """The ledger of each route of each process, which its incarnations share."""
        self.iggy.on_receive = lambda topic, payload, number: self.reader.received(payload, number)
        self.running: dict[int, Incarnation] = {}
        self.progress: dict[tuple[str, str, int], Progress] = {}
        self.standstills: dict[tuple[str, str, int], tuple[Standstill | None, float]] = {}
        """The last state of each partition of a group, and since when it is the same."""
        self.starving: dict[tuple[str, str, str], tuple[float, str]] = {}
        """The last event that says so, by process, group and partition, and its time."""
        self.busy_at: dict[tuple[Process, str], float] = {}
        """When a process was frozen last, or a route of it waited for something else than members of its group."""
        self.checked: dict[tuple[str, str], float] = {}
        """When `check` was run for a group and a topic."""
        self.checking: list[asyncio.Task[None]] = []
        self.moved: dict[str, tuple[int, float]] = {}
        """By route: how many messages are not settled, and when they became fewer last."""
        self.slow_at = -1.0
        """When Iggy was slow last."""
        self.counts: Counter[str] = Counter()
        self.timeline: list[str] = []
        self.is_told = is_told
        self.active: Counter[str] = Counter()
        self.is_ending = False
        self.expects_stops_until = -1.0

    # The time

    def now(self) -> float:
        """Return the time of the wall clock, in seconds since the epoch."""
        return EPOCH + self.loop.time() + self.wall_offset

    def now_ns(self) -> int:
        """Return the same in nanoseconds."""
        return int(self.now() * 10**9)

    def true_ns(self) -> int:
        """Return the true time."""
        return int((EPOCH + self.loop.time()) * 10**9)

    def server_ns(self) -> int:
        """Return the time of the clock of InfluxDB."""
        return int((EPOCH + self.loop.time() + self.server_offset) * 10**9)

    def latest_server_ns(self) -> int:
        """Return the latest time of that clock until now."""
        return max(self._latest_server_ns, self.server_ns())

    def _oldest_ns(self) -> int:
        """Return the time before which InfluxDB may have refused points."""
        hours = self.scenario.retention_hours if self.scenario.dialect != 3 else None
        return -(2**63) if hours is None else self.latest_server_ns() - hours * 3600 * 10**9

    def tell(self, text: str) -> None:
        """Add a line to the timeline."""
        if self.is_told:
            self.timeline.append(f"{self.loop.time():10.3f}  {text}")

    # Processes

    def routes(self, number: int) -> list[AnyRoute]:
        """Return the routes of a process: the first one has all, the others share those of groups."""
        specs = [spec for spec in self.scenario.routes if number == 0 or spec.kind == "group"]
        reader = self.scenario.reader if number == 0 else None
        writers = [self._route(spec, number) for spec in specs]
        return [*writers, *([] if reader is None else [self._reader_route(reader)])]

    def _most_held(self) -> int:
        """Return how many messages a route may have read that are not stored yet.

        Those of all requests in flight, of one that is filled, of a batch that is rendered, and of one read ahead.
        Where a server rejects requests without a named line, some more are held until it accepts one.
        """
        scenario = self.scenario
        requests = self.influx.most_in_flight(scenario.max_in_flight) + 1
        if any(event.kind == "influxdb answers badly" for event in scenario.events):
            requests = 3 * requests
        if self.has_buckets:  # each of the three lanes has a queue, and one request being filled, besides
            requests = 3 * (requests + MOST_WAITING + 1)
        return requests * min(scenario.batch_size, scenario.batch_bytes // SHORTEST_LINE) + 2 * scenario.poll_size

    def _influx_settings(self) -> InfluxSettings:
        scenario = self.scenario
        return InfluxSettings(
            url="http://influxdb.example:8086",
            org=None if scenario.dialect != 2 else "org",
            bucket="test" if scenario.dialect == 2 else None,
            database=None if scenario.dialect == 2 else "test",
            accept_partial=not (scenario.is_strict and scenario.dialect == 3),
            batch_size=scenario.batch_size,
            batch_bytes=scenario.batch_bytes,
            linger_seconds=scenario.linger_seconds,
            timeout_seconds=scenario.timeout_seconds,
            retry_backoff_seconds=scenario.retry_backoff_seconds,
            max_retry_backoff_seconds=scenario.max_backoff_seconds,
            max_in_flight=scenario.max_in_flight,
            gzip="off",
        )

    def _iggy_settings(self) -> IggySettings:
        scenario = self.scenario
        return IggySettings(
            address="127.0.0.1:3000" if scenario.over_http else "127.0.0.1:8090",
            transport="http" if scenario.over_http else "tcp",
            username="u",
            password=Secret("p"),
            timeout_seconds=scenario.iggy_timeout_seconds,
            batch_size=scenario.poll_size,
            poll_interval_seconds=scenario.poll_interval_seconds,
        )

    def _connection(self, settings: IggySettings, *, reads: str | None = None) -> Connection:
        if reads is not None:
            self.truth.begin(reads)
        return Connection(settings, client=lambda _: self.iggy.client())

    def _reader_route(self, spec: ReaderSpec) -> ReaderRoute:
        mapping, settings = reader_mapping(), self._influx_settings()
        return ReaderRoute(
            name=mapping.name,
            source=Rows(settings, mapping.reader.source, self.influx, self.now),
            plan=reader_plan(),
            sink=IggySink(self._iggy_settings(), STREAM, OUT, connection=self._connection),
            store=cursor_of(self.state),
            dead_letters=DirectoryDeadLetters(self.disk.folder / mapping.name),
            rules=rules_of(spec),
            page_size=spec.page_size,
            mapping=mapping.name,
            plan_identity=mapping.identity(),
            stream=STREAM,
            topic=OUT,
        )

    def _ledger(self, spec: RouteSpec, number: int) -> WatchedLedger:
        """Return the ledger of a route, in which each new claim is checked."""
        state = self.ledgers.setdefault((number, spec.name), LedgerState(self.state, partial(self._claimed, spec.name)))
        return WatchedLedger(spec.name, OnError(spec.on_error), state)

    def _claimed(self, route: str, positions: Iterable[Position]) -> None:
        """Check offsets that a ledger claims for the first time."""
        for position in positions:
            place = position.partition
            self.truth.claimed(route, f"{place.topic}/{place.partition}", position.offset)
            self.counts["offsets in a ledger"] += 1

    def _route(self, spec: RouteSpec, number: int) -> Route:
        mapping, settings = mapping_of(spec), self._influx_settings()
        source = IggySource(
            self._iggy_settings(),
            STREAM,
            spec.topics,
            consumer=ConsumerId(spec.consumer, spec.name),
            exclusive=spec.kind == "exclusive",
            remedy=REMEDY,
            monotonic=self.loop.time,
            connection=partial(self._connection, reads=spec.name),
        )
        sink = LineSink(settings, self.influx, self.now, spec.name)
        return Route(
            name=spec.name,
            source=source,
            plan=Plan(spec, sink, self.shelf.version),
            sink=sink,
            dead_letters=DirectoryDeadLetters(self.disk.folder / spec.name),
            mapping=mapping.name,
            on_error=mapping.writer.on_error,
            policy=policy_of(settings),
            batch_size=settings.batch_size,
            batch_bytes=settings.batch_bytes,
            linger_seconds=settings.linger_seconds,
            max_in_flight=settings.max_in_flight,
            ledger=self._ledger(spec, number),
            bucket_sink=partial(self._bucket_sink, settings, spec) if self.has_buckets else None,
            buckets=("*",),
        )

    def _bucket_sink(self, settings: InfluxSettings, spec: RouteSpec, bucket: str) -> LineSink:
        key = "bucket" if self.scenario.dialect == 2 else "database"
        name = "" if bucket == DEAD else f"{spec.name} {bucket}"  # its backoff is long already when the server fails
        return LineSink(dataclasses.replace(settings, **{key: bucket}), self.influx, self.now, name)

    def _change(self, spec: RouteSpec, version: int) -> Callable[[Route], Route]:
        return lambda route: dataclasses.replace(route, plan=Plan(spec, route.sink, version))  # type: ignore[arg-type]

    def put_documents(self, *, is_broken: bool = False) -> None:
        """Replace the documents, and tell the processes unless they watch."""
        self.shelf.put(is_broken=is_broken)
        self.tell(f"version {self.shelf.version} of the documents" + (" is broken" if is_broken else ""))
        for found in self.running.values():
            found.reload.request()

    def start(self, number: int) -> None:
        """Start a process, unless it runs or has no routes."""
        if self.shelf.is_broken:  # it would not start
            self.put_documents()
        routes = self.routes(number)
        if number in self.running or not routes or self.is_ending:
            return
        if self.counts["starts"]:
            self.truth.forget()
        process, status, stop = Process(f"p{number}"), Status(), Stop()
        specs = [spec for spec in self.scenario.routes if any(spec.name == route.name for route in routes)]
        reload = Reload(ShelfDocuments(self.shelf, specs, self._change), watch=self.scenario.watches)
        process.on_death.append(lambda: self._died(number, process))
        run = run_routes(
            routes,
            stop=stop,
            status=status,
            reload=reload,
            clock=SystemClock(),
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
            tick_seconds=self.scenario.tick_seconds,
        )
        task = self.loop.spawn(process, run)
        self.running[number] = found = Incarnation(number, process, status, stop, task, reload)
        task.add_done_callback(lambda _: self._ended(found), context=contextvars.Context())
        for progress in self.progress.values():
            progress.since = self.loop.time()
        self.counts["starts"] += 1
        self.tell(f"process {number} starts")

    def _number(self) -> int | None:
        """Return the number of the process that runs now, the same for all its incarnations."""
        process = current_process()
        return None if process is None else int(process.name[1:])

    def _is_stopping(self, process: Process | None) -> bool:
        """Whether a process was asked to stop: it then makes one last attempt at once."""
        return any(found.process is process and found.stop.requested.is_set() for found in self.running.values())

    def _reconnects(self, process: Process | None) -> object:
        """Return what changes when a route of a process abandons its writes."""
        return [
            (each.reconnects, each.error, each.about.plan, found.process.freezes)
            for found in self.running.values()
            if found.process is process
            for each in found.status.routes
        ]

    def _died(self, number: int, process: Process) -> None:
        """Clean up after a process that vanished, as the system does, and start it again later."""
        self.disk.died(process)
        _GRAVEYARD.append((process, self.running.pop(number)))
        self.counts["crashes"] += 1
        self.tell(f"process {number} vanishes after {process.steps} steps")
        self._end_connections(process)
        for exchange in list(self.influx.exchanges):
            if exchange.process is process:
                self.influx.exchanges.pop(exchange)
        self.loop.call_later(self.chance.uniform(0.1, 5.0), self.start, number, context=contextvars.Context())

    def _end_connections(self, process: Process) -> None:
        """End the connections that a process leaves, as the system does."""
        for client in list(self.iggy.clients.values()):
            if getattr(client, "process", None) is process:
                self.iggy.end(client)  # type: ignore[arg-type]

    def _ended(self, found: Incarnation) -> None:
        """Start a process again that ended by itself or was terminated."""
        if self.running.get(found.number) is not found:
            return
        del self.running[found.number]
        self._end_connections(found.process)  # Iggy hung when it logged out
        if (error := found.task.exception()) is not None:
            self.truth.wrong.append(f"process {found.number} ended with {error!r}")
            return
        summary = found.task.result()
        self.tell(f"process {found.number} ends with {summary.exit_code}: {summary.errors}")
        for each in summary.errors:
            self._check_stop(each)
        if summary.exit_code != (3 if summary.errors or summary.interrupted else 0):
            self.truth.wrong.append(f"process {found.number} ended with {summary.exit_code}: {summary.as_dict()}")
        if not found.is_terminated and len(summary.errors) < len(summary.routes):
            self.truth.wrong.append(f"process {found.number} ended by itself: {summary.as_dict()}")
        self.loop.call_later(self.chance.uniform(0.1, 5.0), self.start, found.number, context=contextvars.Context())

    def _check_stop(self, error: Stopped) -> None:
        """Check that a route stopped for a reason that exists."""
        if self.loop.time() > self.expects_stops_until or error.code not in _EXPECTED:
            self.truth.wrong.append(f"a route stopped without a cause: {error.code} {error.reason}")

    # Messages

    def append(self, count: int) -> None:
        """Send messages to partitions."""
        for _ in range(count):
            if not self.iggy.is_up:
                return
            topic = self.chance.choice(self.scenario.topics)
            partition = self.chance.choice(self.iggy.topics[topic].numbers)
            place = self.iggy.topics[topic].partitions[partition]
            sent = self.truth.message(f"{topic}/{partition}", place.end, self.iggy.clock_us + 1)
            self.iggy.append(topic, partition, [sent.payload()])
            self.sent_at[sent.number] = self.loop.time()
            self.counts["messages"] += 1

    async def load(self) -> None:
        """Send messages all the time, sometimes in bursts, sometimes none for a while."""
        scenario, left = self.scenario, self.scenario.messages
        while left > 0 and self.loop.time() < scenario.seconds:
            count = min(left, self.chance.choice((1, 1, 2, 5, 30)))
            left -= count if self.iggy.is_up else 0
            self.append(count)
            await asyncio.sleep(self.chance.expovariate(scenario.messages / scenario.seconds / 8))
        self.append(max(left, 0))

    async def feed(self, spec: ReaderSpec) -> None:
        """Write points for the reader all the time."""
        if spec.history:
            self._write("\n".join(self.reader.history(spec.history, 7200.0)))
        while self.loop.time() < self.scenario.seconds:
            if self.influx.is_up and not self.influx.is_hanging:
                self._write("\n".join(self.reader.points(self.chance.choice((1, 3, 20)))))
            await asyncio.sleep(self.chance.expovariate(1 / 4))

    def _stored(self, consumer: str, topic: str, partition: int, offset: int) -> None:
        """Check an offset when it is stored."""
        self.truth.passed(consumer, f"{topic}/{partition}", offset)
        self.counts["acknowledgements"] += 1

    def unsettled(self, spec: RouteSpec, *, visible: bool = False) -> dict[tuple[str, int], int]:
        """Return how many messages of each partition of a route are not settled.

        With `visible` without those under offsets that are stored: other members cannot see that they wait.
        """
        known = self.truth.known[spec.name]
        return {
            (topic, number): known.waiting(f"{topic}/{number}", visible=visible)
            for topic in spec.topics
            for number in self.iggy.topics[topic].numbers
        }

    # Looking

    async def look(self) -> None:
        """Each second: hand partitions over, look whether all that makes no progress is explained, be the operator."""
        while True:
            await asyncio.sleep(1.0)
            self._is_alive()
            self.iggy.tick(1.0)
            if self.iggy.slow > 1:
                self.slow_at = self.loop.time()
            for spec in self.scenario.routes:
                waiting = self.unsettled(spec, visible=True)
                self._look_at(spec, waiting)
                if spec.kind != "single":
                    self._look_at_words(spec, waiting)
            for found in list(self.running.values()):
                if any(each.error for each in found.status.routes) and not found.stop.requested.is_set():
                    self.tell(f"the operator stops process {found.number}")
                    found.is_terminated = True
                    found.stop.request()
            allowed = self.influx.most_in_flight(self.scenario.max_in_flight)
            for name, most in self.influx.most_at_once.items():
                if most > allowed:
                    self.truth.wrong.append(f"{name} had {most} writes in flight, {allowed} are allowed")
            self.truth.wrong += self.influx.wrong
            self.influx.wrong.clear()
            if self.truth.wrong:
                return

    def _look_at(self, spec: RouteSpec, left: dict[tuple[str, int], int]) -> None:
        now = self.loop.time()
        statuses = self.statuses(spec)
        total, moved = self.moved.get(spec.name, (0, now))
        moved = now if sum(left.values()) < total else moved
        self.moved[spec.name] = (sum(left.values()), moved)
        for (topic, partition), waiting in left.items():
            known = self.progress.setdefault((spec.name, topic, partition), Progress(since=now))
            is_less = waiting < known.waiting or known.waiting == 0
            known.waiting = waiting
            newest = self._newest_member(spec.name, topic) if waiting else known.newest
            is_joined = newest != known.newest  # a new member begins to look at the group anew
            known.newest = newest
            is_explained = not statuses or self._is_explained(statuses, topic, partition)
            is_explained |= self.influx.is_slow and now - moved < SLOW_SECONDS  # one partition after the other
            if is_less or not waiting or is_joined or is_explained:
                known.since = now
            elif now - known.since > SILENT_SECONDS + (SLOW_SECONDS if self.slow_at >= known.since else 0):
                self.truth.wrong.append(
                    f"{spec.name} {topic}/{partition}: {waiting} messages wait for {now - known.since:.0f} s,"
                    f" and no status says why: {[each.as_dict() for each in statuses]}"
                )

    def _look_at_words(self, spec: RouteSpec, left: dict[tuple[str, int], int]) -> None:
        """Look whether status, log and `check` say the same of a partition of a group, and whether it is true."""
        now = self.loop.time()
        is_usable = self.iggy.is_up and self.iggy.awake.is_set() and self.iggy.slow == 1.0
        self._note_what_is_busy(spec)
        for (topic, partition), waiting in left.items():
            key = (spec.name, topic, partition)
            if not waiting or not is_usable:
                self.standstills.pop(key, None)
                continue
            still = standstill(self.iggy, spec.name, topic, partition)
            before, since = self.standstills.get(key, (None, now))
            if still is None or still != before:
                self.standstills[key] = still, now
                continue
            if now - since <= SILENT_SECONDS:
                continue
            self._compare_status(spec, still, since)
            if self.checked.get((spec.name, topic), -1.0) < since:
                self.checked[spec.name, topic] = now
                self.checking.append(asyncio.create_task(self._compare_check(spec.name, topic)))

    def _newest_member(self, group: str, topic: str) -> int:
        found = self.iggy.topics[topic].groups.get(group)
        return max((each.client for each in found.members.values()), default=0) if found is not None else 0

    def _note_what_is_busy(self, spec: RouteSpec) -> None:
        """Note the processes that do not look at the group now."""
        for found in self.running.values():
            for status in found.status.routes:
                text = status.waiting_for
                is_busy = found.process.frozen is not None or (text is not None and " starves: " not in text)
                if is_busy and status.name == spec.name:
                    self.busy_at[found.process, spec.name] = self.loop.time()

    def _compare_status(self, spec: RouteSpec, still: Standstill, since: float) -> None:
        exclusive = spec.kind == "exclusive"
        holder = getattr(self.iggy.clients.get(still.client or 0), "process", None)
        for found in self.running.values():
            process = found.process
            free_since = max(since, self.busy_at.get((process, spec.name), 0.0))
            if process is holder or self.loop.time() - free_since <= SILENT_SECONDS:
                continue
            for status in found.status.routes:
                if status.name != spec.name or (text := status.waiting_for) is None:
                    continue
                self._report(still, f"the status {text!r}", wrong_in_status(still, text, exclusive=exclusive))
                at, event = self.starving.get((process.name, still.group, still.place), (0.0, None))
                is_recent = at > since
                wrong = wrong_in_event(still, event, is_recent=is_recent, exclusive=exclusive)
                self._report(still, f"the event {event!r}", wrong)

    async def _compare_check(self, group: str, topic: str) -> None:
        before = self.loop.time() - SILENT_SECONDS
        try:
            results = await self._check(group, topic)
        except NotConnected:
            return
        for (name, where, partition), (still, since) in list(self.standstills.items()):
            is_same = still is not None and still == standstill(self.iggy, group, topic, partition)
            if still is not None and is_same and (name, where) == (group, topic) and since < before:
                self.counts["checks"] += 1
                self._report(still, "`check`", wrong_in_check(still, results))

    def _report(self, still: Standstill, what: str, wrong: Iterable[str]) -> None:
        self.truth.wrong += [f"{still.group} {still.place} starves: {what}: {each}" for each in wrong]

    def statuses(self, spec: RouteSpec) -> list[RouteStatus]:
        """Return the status of a route in each process that runs it, and is not frozen.

        Without one that ended as it was asked to: another one of its process may still finish.
        """
        awake = [found for found in self.running.values() if found.process.frozen is None]
        return [
            each
            for found in awake
            for each in found.status.routes
            if each.name == spec.name and not (found.stop.requested.is_set() and each.state == "done")
        ]

    def _is_explained(self, statuses: list[RouteStatus], topic: str, partition: int) -> bool:
        place = f"{STREAM}/{topic}/{partition}"
        return any(
            each.error is not None or (each.waiting_for is not None and names(each.waiting_for, place))
            for each in statuses
        )

    # Faults

    async def suffer(self, event: Event) -> None:
        """Have a fault."""
        await asyncio.sleep(event.at)
        self.counts["faults"] += 1
        self.counts[event.kind] += 1
        self.tell(f"FAULT {event.kind}" + (f", for {event.seconds:.1f} s" if event.seconds else ""))
        self.active[event.kind] += 1
        await _EVENTS[event.kind](self, event, random.Random(event.seed))
        self.active[event.kind] -= 1
        if event.seconds:
            self.tell(f"      {event.kind}: over")

    async def iggy_dies(self, event: Event, chance: random.Random) -> None:
        self.iggy.is_up = False
        self.iggy.kill()
        await asyncio.sleep(event.seconds)
        self.iggy.is_up = True

    async def iggy_stops(self, event: Event, chance: random.Random) -> None:
        self.iggy.is_up = False
        self.iggy.stop()
        await asyncio.sleep(event.seconds)
        self.iggy.is_up = True

    async def iggy_hangs(self, event: Event, chance: random.Random) -> None:
        self.iggy.awake.clear()
        await asyncio.sleep(event.seconds)
        if self.active["iggy hangs"] == 1:
            self.iggy.awake.set()

    async def iggy_is_slow(self, event: Event, chance: random.Random) -> None:
        self.iggy.slow = 100.0
        await asyncio.sleep(event.seconds)
        if self.active["iggy is slow"] == 1:
            self.iggy.slow = 1.0

    async def iggy_is_flaky(self, event: Event, chance: random.Random) -> None:
        self.iggy.flaky = 0.1
        await asyncio.sleep(event.seconds)
        self.iggy.flaky = 0.0

    async def iggy_loses_a_tail(self, event: Event, chance: random.Random) -> None:
        self.iggy.is_up = False
        self.iggy.kill()
        topic = chance.choice(self.scenario.topics)
        for partition in self.iggy.topics[topic].numbers:
            count = chance.randint(0, 20)
            place = self.iggy.topics[topic].partitions[partition]
            gone = place.messages[max(len(place.messages) - count, 0) :]
            stored = {
                name: group.stored[partition]
                for name, group in self.iggy.topics[topic].groups.items()
                if partition in group.stored
            }
            arrivals = [each["timestamp"] for each in gone]
            self.truth.lose(f"{topic}/{partition}", arrivals, {**place.offsets, **stored})
            self.iggy.lose_tail(topic, partition, count)
            if gone:
                for ledger in self.ledgers.values():
                    ledger.lose(Partition(STREAM, topic, partition), gone[0]["offset"])
        await asyncio.sleep(event.seconds)
        self.iggy.is_up = True

    async def a_connection_ends(self, event: Event, chance: random.Random) -> None:
        if self.iggy.clients:
            self.iggy.disconnect(chance.choice(list(self.iggy.clients.values())))

    async def a_member_is_a_ghost(self, event: Event, chance: random.Random) -> None:
        if self.iggy.clients:
            self.iggy.make_ghost(chance.choice(list(self.iggy.clients.values())))

    async def influxdb_dies(self, event: Event, chance: random.Random) -> None:
        self.influx.kill()
        await asyncio.sleep(event.seconds)
        self.influx.start()

    async def influxdb_loses_its_last_points(self, event: Event, chance: random.Random) -> None:
        lost, left = self.influx.lose(chance.uniform(0, 20))
        self.truth.lose_points(lost, left)
        self.reader.lose_points(lost, left)
        self.counts["points lost by influxdb"] += sum(len(each.rows) for each in lost)
        await asyncio.sleep(event.seconds)
        self.influx.start()

    async def influxdb_hangs(self, event: Event, chance: random.Random) -> None:
        self.influx.hang()
        await asyncio.sleep(event.seconds)
        self.influx.start()

    async def influxdb_is_slow(self, event: Event, chance: random.Random) -> None:
        self.influx.is_slow = True
        await asyncio.sleep(event.seconds)
        self.influx.is_slow = False

    async def influxdb_answers_badly(self, event: Event, chance: random.Random) -> None:
        drawn = [chance.choice(_LONG), *chance.sample(PASSING, chance.randint(0, 4))]
        rows = [{**row, "skip": chance.randrange(3)} for row in drawn]
        if self.scenario.most_bytes is not None:
            rows = [row for row in rows if row["kind"] != "too_large"]  # one bound at a time
        if self.scenario.reader is not None:
            kinds = ("write", "query", "any")
            rows = [row if _is_about_size(row) else {**row, "on": chance.choice(kinds)} for row in rows]
        may_drop = any(spec.on_error == "skip" for spec in self.scenario.routes)
        self.influx.core.faults.add(*(Fault(**row) for row in rows if not (may_drop and _is_about_size(row))))
        await asyncio.sleep(event.seconds)

    async def another_product_answers(self, event: Event, chance: random.Random) -> None:
        self.influx.is_another = True
        self.expects_stops_until = max(self.expects_stops_until, self.loop.time() + event.seconds + 120)
        await asyncio.sleep(event.seconds)
        self.influx.is_another = False

    async def the_disk_is_full(self, event: Event, chance: random.Random) -> None:
        self.disk.is_full = self.state.is_broken = True
        self.expects_stops_until = max(self.expects_stops_until, self.loop.time() + event.seconds + 120)
        await asyncio.sleep(event.seconds)
        self.disk.is_full = self.state.is_broken = False

    async def the_disk_is_read_only(self, event: Event, chance: random.Random) -> None:
        self.disk.is_read_only = True
        self.expects_stops_until = max(self.expects_stops_until, self.loop.time() + event.seconds + 120)
        await asyncio.sleep(event.seconds)
        self.disk.is_read_only = False

    async def the_letters_are_removed(self, event: Event, chance: random.Random) -> None:
        self.disk.remove(self.disk.folder / chance.choice(self.scenario.routes).name, chance.randrange(6))

    async def a_process_dies(self, event: Event, chance: random.Random) -> None:
        if self.running:
            found = chance.choice(list(self.running.values()))
            found.process.dies_at = found.process.steps + chance.randint(1, 300)

    async def a_process_dies_at_a_file(self, event: Event, chance: random.Random) -> None:
        if self.running:
            found = chance.choice(list(self.running.values()))
            self.disk.kill_at(found.process, chance.randrange(12))

    async def the_machine_crashes(self, event: Event, chance: random.Random) -> None:
        for found in list(self.running.values()):
            found.process.kill()
        self.disk.crash(chance)

    async def a_process_dies_at_a_commit(self, event: Event, chance: random.Random) -> None:
        if 0 in self.running:
            self.state.dies_at = (self.running[0].process, chance.random() < 0.5)

    async def a_process_is_stopped(self, event: Event, chance: random.Random) -> None:
        if not self.running:
            return
        found = chance.choice(list(self.running.values()))
        found.is_terminated = True
        found.stop.request()
        one_attempt = self.scenario.timeout_seconds + self.scenario.iggy_timeout_seconds
        left, idle = min(SHUTDOWN_SECONDS + 2, 2 * one_attempt + 4), 0.0
        while self.running.get(found.number) is found:
            await asyncio.sleep(0.25)
            if found.process.frozen is not None:
                continue
            left -= 0.25
            idle = 0.0 if self._may_be_busy(found.process) else idle + 0.25
            if left < 0:
                self.truth.wrong.append(f"process {found.number} did not end within its deadline")
                return
            if idle > IDLE_SECONDS:
                self.truth.wrong.append(f"process {found.number} does not end, and waits for no answer")
                return

    def _may_be_busy(self, process: Process) -> bool:
        """Whether a process may wait for an answer of a server."""
        is_quick = self.iggy.awake.is_set() and self.iggy.slow == 1.0 and not self.iggy.flaky
        return not is_quick or any(each.process is process for each in self.influx.exchanges)

    async def all_is_stopped(self, event: Event, chance: random.Random) -> None:
        self.influx.kill()
        await asyncio.sleep(event.seconds / 2)
        await self.a_process_is_stopped(event, chance)
        await asyncio.sleep(event.seconds / 2)
        self.influx.start()

    async def a_process_is_frozen(self, event: Event, chance: random.Random) -> None:
        awake = [found.process for found in self.running.values() if found.process.frozen is None]
        if not awake:
            return
        process = chance.choice(awake)
        process.freeze()
        await asyncio.sleep(event.seconds)
        if event.seconds > HEARTBEAT_SECONDS and chance.random() < 0.5:
            for client in list(self.iggy.clients.values()):
                if getattr(client, "process", None) is process:
                    self.iggy.disconnect(client)
        self._thaw(process)

    def _thaw(self, process: Process) -> None:
        process.thaw(self.loop)
        for progress in self.progress.values():
            progress.since = self.loop.time()

    async def a_process_dies_at_a_message(self, event: Event, chance: random.Random) -> None:
        if 0 in self.running:
            self.iggy.dies_at = (self.running[0].process, chance.randrange(4), chance.random() < 0.5)

    async def the_clock_jumps(self, event: Event, chance: random.Random) -> None:
        self.wall_offset += chance.uniform(-3600, 3600)

    async def the_clock_of_influxdb_jumps(self, event: Event, chance: random.Random) -> None:
        seconds = chance.choice(_JUMPS)
        if self.scenario.retention_hours is not None:
            self.expects_stops_until = max(self.expects_stops_until, self.loop.time() + event.seconds + 120)
        self._move_server_clock(seconds)
        await asyncio.sleep(event.seconds)
        self._move_server_clock(-seconds)

    def _move_server_clock(self, seconds: float) -> None:
        self._latest_server_ns = self.latest_server_ns()
        self.server_offset += seconds
        self.tell(f"the clock of influxdb is {self.server_offset:+.0f} s off")

    async def the_clock_of_iggy_jumps(self, event: Event, chance: random.Random) -> None:
        microseconds = chance.choice(_JUMPS) * 10**6
        self.iggy.clock_us += microseconds
        await asyncio.sleep(event.seconds)
        self.iggy.clock_us -= microseconds

    async def the_documents_change(self, event: Event, chance: random.Random) -> None:
        self.put_documents()

    async def the_documents_are_broken(self, event: Event, chance: random.Random) -> None:
        self.put_documents(is_broken=True)
        version = self.shelf.version
        await asyncio.sleep(event.seconds)
        if self.shelf.version == version:
            self.put_documents()

    # The whole

    def run(self) -> Result:
        """Run the world to its end."""
        random.seed(self.scenario.seed)
        is_collecting = gc.isenabled()
        writer_run.SETTLE_SECONDS = self.scenario.settle_seconds  # type: ignore[misc]
        gc.disable()  # it takes a third of the time
        try:
            with self.disk, self._time(), self._sdk(), self._log(), bounded_steps() as self._is_alive:
                try:
                    self.loop.run_until_complete(self._main())
                except (Deadlock, Endless) as error:
                    self.truth.wrong.append(str(error))
                finally:
                    _GRAVEYARD.append((self.loop, asyncio.all_tasks(self.loop)))
                    self.loop.close()
        finally:
            writer_run.SETTLE_SECONDS = SETTLE_SECONDS  # type: ignore[misc]
            if is_collecting:
                gc.enable()
        self._clear()
        self.counts["steps"] = self.loop.steps
        self.counts["requests"] = self.influx.answered
        return Result(self.scenario, self.truth.wrong, self.loop.time(), self.counts, self.timeline)

    def _clear(self) -> None:
        """Forget what is large: what never finished holds the rest."""
        self.influx.store.close()
        for topic in self.iggy.topics.values():
            topic.partitions.clear()
        for known in self.truth.known.values():
            known.polled.clear()
        self.truth.sent.clear()
        self.truth.by_arrival.clear()
        self.truth.stored.clear()

    async def _main(self) -> None:
        scenario = self.scenario
        first = f'odd,by=first warmth="text" {FIRST_MS}000000'
        self._write(first)
        if self.has_buckets:
            self._write(first, "warm")
        self._bound_requests()
        for number in range(scenario.processes):
            self.start(number)
        looking = asyncio.create_task(self.look())
        loading = [asyncio.create_task(self.load())]
        if scenario.reader is not None:
            loading.append(asyncio.create_task(self.feed(scenario.reader)))
        faults = [asyncio.create_task(self.suffer(event)) for event in scenario.events]
        if scenario.dead_until is not None:
            faults.append(asyncio.create_task(self._bury_and_mend(scenario.dead_until)))
        work = asyncio.gather(*loading, *faults)
        await asyncio.wait({looking, work}, return_when=asyncio.FIRST_COMPLETED)
        if not looking.done():
            await self._heal()
            await self._settle(looking)
        looking.cancel()
        if not self.truth.wrong:
            await self._finish()
            self._check_end()

    async def _bury_and_mend(self, until: float) -> None:
        """Let a bucket be missing until then; all that is for other buckets is stored meanwhile."""
        await asyncio.sleep(until)
        for spec in self.scenario.routes:
            known = self.truth.known[spec.name]
            # Iggy hands a partition over when all that was polled of it is stored, so a dead bucket delays that.
            may_hand_over = spec.kind != "single" and self.scenario.processes > 1
            late = [
                number
                for left in known.left.values()
                for number in left
                if self.truth.sent[number].bucket != DEAD
                and not self.truth.is_undeliverable(self.truth.sent[number])
                and (number in known.polled or not may_hand_over)
                and self.loop.time() - self.sent_at[number] > STALLED_SECONDS
                and not self.truth.is_settled(known, self.truth.sent[number])
            ]
            if late:
                self.truth.wrong.append(f"{spec.name}: {late[:5]} wait, though their bucket is there")
        duration = (self.scenario.retention_hours or 0) * 3600 * 10**9
        self.influx.store.create_database(DEAD, duration_ns=duration)
        self._write(f'odd,by=first warmth="text" {FIRST_MS}000000', DEAD)
        self.tell("the missing bucket is there")

    def _write(self, line: str, place: str = "test") -> None:
        target = {1: "/write?db=", 2: "/api/v2/write?org=org&bucket=", 3: "/api/v3/write_lp?db="}
        request = request_of("POST", target[self.scenario.dialect] + place, {}, Body.of(line.encode()))
        exchange = Exchange(request, RequestFaults(), "write")
        offset, self.server_offset = self.server_offset, 0.0  # else retention may refuse it
        answer = self.influx.core.finish(exchange)
        self.server_offset = offset
        assert isinstance(answer, HttpResponse) and answer.status in (200, 204), answer

    def _bound_requests(self) -> None:
        """Let InfluxDB refuse requests that are too large."""
        if self.scenario.most_bytes is not None:
            self.influx.core.faults.add(Fault("too_large", times=None, bytes=self.scenario.most_bytes))

    async def _heal(self) -> None:
        """End all faults."""
        self.tell("all faults are over")
        self.iggy.is_up, self.iggy.slow, self.iggy.flaky = True, 1.0, 0.0
        self.iggy.awake.set()
        self.iggy.dies_at = None
        self.influx.core.faults.clear()
        self._bound_requests()
        self.influx.is_slow = self.influx.is_another = False
        self.influx.start()
        self.disk.is_full = self.disk.is_read_only = self.state.is_broken = False
        self.state.dies_at = None
        for found in self.running.values():
            found.process.dies_at = None
            self._thaw(found.process)
        self.disk.forget_kills()

    async def _settle(self, looking: asyncio.Task[None]) -> None:
        """Wait until everything is settled; it must be within the largest backoff and some requests."""
        scenario = self.scenario
        bound = (
            max(scenario.max_backoff_seconds, SESSION_BACKOFF_SECONDS)
            + 2 * (scenario.timeout_seconds + scenario.iggy_timeout_seconds)
            + 60  # ghosts are named after 20 s, partitions handed over after 30 s
        )
        if scenario.reader is not None:
            bound += scenario.reader.settle + scenario.reader.overlap / 10 + 2 * scenario.reader.poll
            bound += scenario.reader.history / (scenario.reader.rate or 100.0)
        began, buried = self.loop.time(), None
        while self._is_unsettled() and not looking.done():
            await asyncio.sleep(0.5)
            now = self.loop.time()
            if buried is None and now > began + SESSION_BACKOFF_SECONDS + SILENT_SECONDS + 15:
                buried = now
                await self._check_ghosts()
                self.iggy.bury_ghosts()
                bound += now - began
                self.tell("the operator rebuilds the groups")
            if now > began + bound:
                left = {spec.name: self.unsettled(spec) for spec in scenario.routes}
                states = [status.as_dict() for found in self.running.values() for status in found.status.routes]
                missing = self.reader.missing()[:5] if scenario.reader is not None else []
                self.truth.wrong.append(
                    f"not settled {bound:.0f} s after the last fault: {left}, not sent: {missing}, {states}"
                )
                return

    def _is_unsettled(self) -> bool:
        if any(route.error for found in self.running.values() for route in found.status.routes):
            return True  # the operator will start it again
        if self._runs_old_documents():
            return True
        if self.scenario.reader is not None and self.reader.missing():
            return True
        return any(any(self.unsettled(spec).values()) for spec in self.scenario.routes)

    def _runs_old_documents(self) -> bool:
        """Whether a route does not have the documents that are there."""
        return any(
            status.is_changing or self.shelf.version_of(status.about.plan) != self.shelf.version
            for spec in self.scenario.routes
            for status in self.statuses(spec)
        )

    async def _check_ghosts(self) -> None:
        """What a ghost holds is named by some process that lives, and by `iggyflux check`."""
        for spec in self.scenario.routes:
            if spec.kind == "single":
                continue
            named = {
                (each.partition.topic, each.partition.partition)
                for status in self.statuses(spec)
                for group in status.groups
                for each in group.starving
            }
            reported = {topic: await self._check(spec.name, topic) for topic in spec.topics}
            for (topic, partition), waiting in self.unsettled(spec).items():
                group = self.iggy.topics[topic].groups.get(spec.name)
                ghosts = [
                    member
                    for member in (group.members.values() if group else ())
                    if member.client not in self.iggy.clients and partition in member.partitions
                ]
                is_visible = self.truth.known[spec.name].waiting(f"{topic}/{partition}", visible=True) > 0
                still = standstill(self.iggy, spec.name, topic, partition)
                if ghosts and is_visible and still is not None:
                    self._report(still, "`check`", wrong_in_check(still, reported[topic]))
                if waiting and ghosts and (topic, partition) not in named and self.statuses(spec):
                    states = [each.as_dict() for each in self.statuses(spec)]
                    self.truth.wrong.append(f"{spec.name} {topic}/{partition}: a ghost holds it, unnamed: {states}")

    async def _check(self, group: str, topic: str) -> list[CheckResult]:
        """Return what `iggyflux check` says of a group.  Raise `NotConnected`."""
        connection = self._connection(self._iggy_settings())
        await connection.open()
        try:
            found = check_group(
                connection, group, STREAM, topic, counts_all=True, remedy=REMEDY, monotonic=self.loop.time
            )
            return [each async for each in found]
        finally:
            await connection.close()

    async def _finish(self) -> None:
        """Stop all processes in order: each must end in time, with 0."""
        self.is_ending = True
        await asyncio.sleep(2.0)
        ending = list(self.running.values())
        for found in ending:
            found.is_terminated = True
            found.stop.request()
        if ending:
            await asyncio.wait([found.task for found in ending], timeout=SHUTDOWN_SECONDS + 2)
        for found in ending:
            if not found.task.done():
                self.truth.wrong.append(f"process {found.number} did not end")
                continue
            summary = found.task.result()
            states = [route.state for route in summary.routes]
            if summary.exit_code or set(states) != {"done"}:
                self.truth.wrong.append(f"process {found.number} ended with {summary.exit_code}: {summary.as_dict()}")

    def _check_end(self) -> None:
        from iggyflux.sim import export

        last: dict[str, dict[tuple[str, int, str], int]] = {}
        places = ("test", "warm", DEAD) if self.has_buckets else ("test",)
        found = [each for place in places for each in export.measurements(self.influx.store, place)]
        for measurement in found:
            if measurement.name == b"last":
                for point in self.influx.store.scan(measurement, 0, 2**63 - 1):
                    tags = dict(point.series.tags)
                    bucket = measurement.policy.database.name if self.has_buckets else ""
                    block = (tags[b"place"].decode(), point.time // 10**9, bucket)
                    last.setdefault(tags[b"by"].decode(), {})[block] = int(point.fields[b"n"])  # type: ignore[arg-type]
        for spec in self.scenario.routes:
            logs = [
                [self.truth.by_arrival[each["timestamp"]].number for each in place.messages]
                for topic in spec.topics
                for place in self.iggy.topics[topic].partitions
            ]
            self.truth.check_end(self.truth.known[spec.name], logs, last.get(spec.name, {}))

    @contextmanager
    def _sdk(self) -> Iterator[None]:
        """Let messages that are sent tell what they hold; no port of this machine is asked what it speaks."""
        real = sdk.SendMessage, sdk.Partitioning
        probes = iggy_connection.answers_http, iggy_connection.answers_tls
        iggy_connection.answers_http = iggy_connection.answers_tls = lambda _host, _port: False
        sdk.SendMessage = lambda payload, headers, number: OutgoingBytes(payload, headers, number)
        sdk.Partitioning = SimpleNamespace(partition_id=lambda number: number)
        try:
            yield
        finally:
            sdk.SendMessage, sdk.Partitioning = real
            iggy_connection.answers_http, iggy_connection.answers_tls = probes

    @contextmanager
    def _time(self) -> Iterator[None]:
        """Let the functions of `time` tell the time of the world."""
        real = time.time, time.time_ns, time.monotonic
        time.time, time.time_ns, time.monotonic = self.now, self.now_ns, self.loop.time
        try:
            yield
        finally:
            time.time, time.time_ns, time.monotonic = real

    @contextmanager
    def _log(self) -> Iterator[None]:
        """Put what the code logs into the timeline."""
        logger, handler, of_iggy = logging.getLogger("iggyflux"), _Handler(self), logging.getLogger("iggyflux.iggy")
        before = logger.level, logger.propagate, of_iggy.level
        of_iggy.setLevel(logging.INFO if self.is_told else logging.WARNING)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if self.is_told else logging.CRITICAL)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before[0])
            logger.propagate = before[1]
            of_iggy.setLevel(before[2])


def _is_about_size(row: dict[str, Any]) -> bool:
    """Whether a request of one line is rejected for good: a route that skips what fails then drops a good message."""
    return row.get("status") == 413 or row["kind"] == "too_large" or "request size" in row.get("text", "")


_STARVING = re.compile(r"iggy\.starving group=(\S+) topic=(\S+) partitions=(\S+) ")


class _Handler(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        process, message = current_process(), record.getMessage()
        if process is not None and (found := _STARVING.match(message)):
            group, topic, partitions = found.groups()
            for partition in partitions.split(","):
                event = self._world.loop.time(), message
                self._world.starving[process.name, group, f"{topic}/{partition}"] = event
        self._world.tell(f"{process.name if process else '-'} {record.levelname} {message}")


_EVENTS: dict[str, Callable[[World, Event, random.Random], Awaitable[None]]] = {
    "the documents change": World.the_documents_change,
    "the documents are broken": World.the_documents_are_broken,
    "iggy dies": World.iggy_dies,
    "iggy stops": World.iggy_stops,
    "iggy hangs": World.iggy_hangs,
    "iggy is slow": World.iggy_is_slow,
    "iggy is flaky": World.iggy_is_flaky,
    "iggy loses a tail": World.iggy_loses_a_tail,
    "a connection ends": World.a_connection_ends,
    "a member is a ghost": World.a_member_is_a_ghost,
    "influxdb dies": World.influxdb_dies,
    "influxdb loses its last points": World.influxdb_loses_its_last_points,
    "influxdb hangs": World.influxdb_hangs,
    "influxdb is slow": World.influxdb_is_slow,
    "influxdb answers badly": World.influxdb_answers_badly,
    "another product answers": World.another_product_answers,
    "the disk is full": World.the_disk_is_full,
    "the disk is read-only": World.the_disk_is_read_only,
    "the letters are removed": World.the_letters_are_removed,
    "a process dies": World.a_process_dies,
    "a process dies at a file": World.a_process_dies_at_a_file,
    "the machine crashes": World.the_machine_crashes,
    "a process dies at a commit": World.a_process_dies_at_a_commit,
    "a process is stopped": World.a_process_is_stopped,
    "all is stopped": World.all_is_stopped,
    "a process is frozen": World.a_process_is_frozen,
    "a process dies at a message": World.a_process_dies_at_a_message,
    "the clock jumps": World.the_clock_jumps,
    "the clock of influxdb jumps": World.the_clock_of_influxdb_jumps,
    "the clock of iggy jumps": World.the_clock_of_iggy_jumps,
}
