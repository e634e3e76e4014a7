"""The reader's table, row by row, with a scripted database and sinks; then faults at every point, and random ones."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iggyflux.cursors import CursorStore, Deduplicator, cursor_state
from iggyflux.cursors.store import MEMORY_BYTES
from iggyflux.delivery.windows import Read, ReadPosition, WindowRules
from iggyflux.errors import NotConnected, Stopped, TooMuch
from iggyflux.mapping import OnError, parse_mapping
from iggyflux.records import JSON, OutgoingMessage, Row
from iggyflux.runner.prefetch import Prefetcher
from iggyflux.runner.reader_run import ReaderRun
from iggyflux.runner.route import ReaderRoute
from iggyflux.runner.status import RouteStatus
from iggyflux.runner.stop import Stop
from iggyflux.transports.base import Removed
from iggyflux.transports.local.memory import CollectingDeadLetters

S = 1_000_000_000
BASE = 1_700_000_000 * S
QUERY: dict[str, JSON] = {"measurement": "env"}
MAPPING = parse_mapping(
    """\
iggyflux: 1
kind: reader
name: back
from: {measurement: env}
messages: {payload: "{d: device, v: value, t: time}", key: device}
to: {stream: s, topic: t}
"""
)
WHOLE = parse_mapping(
    """\
iggyflux: 1
kind: reader
from: {measurement: env}
messages: {payload: "[].value", for_each: window}
to: {stream: s, topic: t}
""",
    name="back",
)


class Crash(Exception):
    """The process dies: what is not on disk is lost."""


@dataclasses.dataclass
class Point:
    """A value at a time, visible from `arrives` on."""

    time: int
    value: JSON
    device: str = "d"
    arrives: int = 0


class Clock:
    """A clock that moves only with sleeps; at `until` it requests a stop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.until: float | None = None
        self.stop = Stop()

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if self.until is not None and self.now >= self.until:
            self.stop.request()
        await asyncio.sleep(0)


class Faults:
    """Raises scripted errors at named moments: `before send`, `after store`, …"""

    def __init__(self, *script: tuple[str, int, Exception]) -> None:
        self.script = {(name, number): error for name, number, error in script}
        self.counts: Counter[str] = Counter()

    def at(self, name: str) -> None:
        self.counts[name] += 1
        if error := self.script.get((name, self.counts[name])):
            raise error


class Database:
    """A `RowSource` in memory, whose clock is the test's."""

    def __init__(self, points: Iterable[Point], clock: Clock, faults: Faults | None = None) -> None:
        self.points = list(points)
        self.clock = clock
        self.faults = faults or Faults()
        self.most_rows = 10**9
        self.fetched: list[tuple[int, int]] = []
        self.open_windows = 0
        self.fetching = 0
        self.closed = False

    async def connect(self) -> None:
        assert not self.fetching, "a query of the lost connection is still in flight"
        self.faults.at("connect")

    async def now(self) -> int:
        self.faults.at("now")
        return BASE + int(self.clock.monotonic() * S)

    async def first(self) -> int | None:
        self.faults.at("first")
        return min((point.time for point in self.visible()), default=None)

    def visible(self) -> list[Point]:
        now = BASE + int(self.clock.monotonic() * S)
        return [point for point in self.points if point.arrives <= now]

    async def fetch(self, start: int, stop: int) -> MemoryWindow:
        self.faults.at("fetch")
        self.fetching += 1
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            self.fetching -= 1
        found = {(p.time, p.device): p for p in self.visible() if start <= p.time < stop}
        if len(found) > self.most_rows:
            raise TooMuch(f"{len(found)} rows")
        self.fetched.append((start, stop))
        self.open_windows += 1
        rows = [
            Row({"time": p.time, "device": p.device, "value": p.value}, "env", (start, stop), ("device",))
            for p in found.values()
        ]
        return MemoryWindow(self, rows)

    async def close(self) -> None:
        self.closed = True


class MemoryWindow:
    def __init__(self, database: Database, found: list[Row]) -> None:
        self.database = database
        self.found = found
        self.is_open = True

    @property
    def rows(self) -> int | None:
        return len(self.found)

    @property
    def read_bytes(self) -> int:
        return 10 * len(self.found)

    async def chunks(self) -> AsyncIterator[Sequence[Row]]:
        for first in range(0, len(self.found), 3):
            self.database.faults.at("chunk")
            await asyncio.sleep(0)
            yield self.found[first : first + 3]

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.database.open_windows -= 1


class Sink:
    """A `MessageSink` whose faults come before or after the messages have arrived."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.messages: list[OutgoingMessage] = []
        self.is_connected = False
        self.closed = False

    async def connect(self) -> None:
        self.faults.at("sink connect")
        self.is_connected = True

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        assert self.is_connected, "connect first"
        try:
            self.faults.at("before send")
            await asyncio.sleep(0)
            self.messages += messages
            self.faults.at("after send")
        except NotConnected:
            self.is_connected = False
            raise

    async def close(self) -> None:
        self.closed = True

    @property
    def values(self) -> list[tuple[int, str, JSON]]:
        found = [json.loads(message.payload) for message in self.messages]
        return [(each["t"], each["d"], each["v"]) for each in found]


class Store(CursorStore):
    """A store with faults before and after it stores."""

    faults = Faults()

    def commit(
        self, position: ReadPosition, deduplicator: Deduplicator | None = None, *, window: int | None = None
    ) -> None:
        self.faults.at("before store")
        super().commit(position, deduplicator, window=window)
        self.faults.at("after store")


class World:
    """What outlives a process: database, sink, state, clock."""

    def __init__(
        self, folder: Path, points: Iterable[Point] = (), *, faults: Faults | None = None, **rules: Any
    ) -> None:
        self.folder = folder
        self.clock = Clock()
        self.faults = faults or Faults()
        self.database = Database(points, self.clock, self.faults)
        self.sink = Sink(self.faults)
        self.letters = CollectingDeadLetters()
        self.rules = WindowRules(**{"start": BASE - 100 * S, "window": 60 * S, "poll_seconds": 5, **rules})
        self.status = RouteStatus("back")
        self.more: dict[str, Any] = {}
        self.query = QUERY
        self.memory_bytes = MEMORY_BYTES
        self.plan: Any = MAPPING.plan()
        self.reader: ReaderRun | None = None

    def route(self) -> ReaderRoute:
        store = Store(
            cursor_state(self.folder, "back"),
            "back",
            self.query,
            marks="mark" in self.more and not self.plan.whole_windows,
            memory_bytes=self.memory_bytes,
        )
        store.faults = self.faults
        return ReaderRoute(
            name="back",
            source=self.database,
            plan=self.plan,
            sink=self.sink,
            store=store,
            dead_letters=self.letters,
            rules=self.rules,
            mapping="back",
            stream="s",
            topic="t",
            **self.more,
        )

    async def _run(self, seconds: float | None) -> None:
        self.clock.stop, self.status = Stop(), RouteStatus("back")
        self.clock.until = None if seconds is None else self.clock.now + seconds
        self.reader = ReaderRun(self.route(), self.status, self.clock.stop, self.clock)
        await self.reader.run()

    def run(self, seconds: float | None = None) -> World:
        """Run one process until its end, or request a stop after so many seconds of the clock."""
        asyncio.run(asyncio.wait_for(self._run(seconds), 60))
        return self

    def run_through_crashes(self, seconds: float) -> int:
        """Start again after every crash, until a process lives so long."""
        crashes = 0
        while True:
            try:
                self.run(seconds)
            except Crash:
                crashes += 1
            else:
                return crashes


def points(count: int, *, step: int = S, first: int = BASE - 90 * S) -> list[Point]:
    return [Point(first + number * step, number, f"d{number % 3}") for number in range(count)]


def expected(of: Iterable[Point]) -> list[tuple[int, str, JSON]]:
    return sorted(((point.time, point.device, point.value) for point in of), key=str)


# --- the table ---


def test_everything_that_is_settled_is_sent_once_and_the_cursor_is_stored(tmp_path: Path) -> None:
    world = World(tmp_path, points(50), until_end=True).run()

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert world.status.state == "done"
    status = world.status
    assert (status.read, status.points, status.delivered, status.acknowledged) == (50, 50, 50, 50)
    cursor = CursorStore(cursor_state(tmp_path, "back"), "back", QUERY).read()
    assert cursor is not None
    assert cursor.position.done >= BASE - 10 * S
    assert world.database.open_windows == 0
    assert world.database.closed
    assert world.sink.closed
    world.run()
    assert len(world.sink.messages) == 50


def test_messages_have_key_and_the_same_id_whenever_a_row_is_read(tmp_path: Path) -> None:
    first = World(tmp_path / "a", points(5), until_end=True).run()
    second = World(tmp_path / "b", points(5), until_end=True, window=7 * S).run()

    assert [message.key for message in first.sink.messages] == ["d0", "d1", "d2", "d0", "d1"]
    assert {message.id for message in first.sink.messages} == {message.id for message in second.sink.messages}


@pytest.mark.parametrize("memory_bytes", [64, MEMORY_BYTES], ids=["more digests than memory", "usual"])
def test_late_and_changed_points_are_sent_and_what_was_seen_is_not(tmp_path: Path, memory_bytes: int) -> None:
    late = Point(BASE - 50 * S, "late", "x", arrives=BASE + 3 * S)
    changed = Point(BASE - 45 * S, "changed", "d0", arrives=BASE + 8 * S)
    world = World(tmp_path, [*points(50), late, changed])
    world.memory_bytes = memory_bytes
    world.run(60)

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert world.status.reader is not None
    assert world.status.reader.late == 2
    assert world.status.reader.seen_again > 100


def test_the_mark_header_distinguishes_late_from_changed(tmp_path: Path) -> None:
    late = Point(BASE - 50 * S, "late", "x", arrives=BASE + 3 * S)
    changed = Point(BASE - 45 * S, "changed", "d0", arrives=BASE + 8 * S)
    world = World(tmp_path, [*points(50), late, changed])
    world.more["mark"] = "why"
    counted = count_windows(world, 1, 60)

    assert counted["fallbacks"] == counted["windows"]
    assert world.status.reader is not None
    assert (world.status.reader.late, world.status.reader.changed) == (1, 1)
    assert world.status.reader.seen_again == world.status.read - world.status.points
    marks = {
        value[2]: dict(message.headers) for value, message in zip(world.sink.values, world.sink.messages, strict=True)
    }
    assert marks.pop("late") == {"why": "late"}
    assert marks.pop("changed") == {"why": "changed"}
    assert all(headers == {} for headers in marks.values())


def test_a_value_that_changes_back_is_sent_again(tmp_path: Path) -> None:
    """Rows are compared with the last value: otherwise the final value would be missing."""
    time = BASE - 30 * S
    world = World(
        tmp_path,
        [Point(time, "a"), Point(time, "b", arrives=BASE + 6 * S), Point(time, "a", arrives=BASE + 14 * S)],
    ).run(60)

    assert [value for *_, value in world.sink.values] == ["a", "b", "a"]


class Watched(Faults):
    """It keeps what the status says at each query and during each wait."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, list[tuple[str, str | None]]] = {}
        self.world: World | None = None

    def at(self, name: str) -> None:
        super().at(name)
        if self.world is not None:
            status = self.world.status
            self.shown.setdefault(name, []).append((status.state, status.waiting_for))


def test_the_status_says_what_a_reader_waits_for_until_it_reads(tmp_path: Path) -> None:
    watched = Watched()
    late = [dataclasses.replace(each, arrives=BASE + 22 * S) for each in points(20)]
    world = World(tmp_path, late, faults=watched, start="beginning", until_end=False)
    watched.world = world
    world.run(60)

    assert watched.shown["first"] == [("connecting", None), *[("idle", "the first point")] * 5]
    assert set(watched.shown["fetch"]) == {("running", None)}
    assert sorted(world.sink.values, key=str) == expected(late)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("connect", "db: no answer to connecting"),
        ("now", "db: no answer to a query for the time"),
        ("first", "db: no answer to a query for the first row"),
        ("fetch", "db: no answer to a query"),
        ("sink connect", "log: no answer to connecting"),
        ("send", "log: no answer to 3 messages"),
        ("store", "state: no answer to a commit of the position"),
    ],
    ids=lambda text: text.replace(" ", "-"),
)
def test_whatever_call_hangs_the_status_names_the_server_and_the_log_warns_once(
    tmp_path: Path, where: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        world = World(tmp_path, points(3), start="beginning" if where == "first" else BASE - 100 * S)
        run = ReaderRun(world.route(), world.status, world.clock.stop, world.clock)
        ends = {"db": run.route.source, "log": run.route.sink, "state": run.route.store}
        for name, end in ends.items():
            end.server = name  # type: ignore[union-attr]
        hangs, goes_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        async def hang(*_: object) -> None:
            hangs.set()
            await asyncio.Event().wait()

        def block(*_: object, **__: object) -> None:
            loop.call_soon_threadsafe(hangs.set)
            goes_on.wait(20)

        end = ends[what.partition(":")[0]]
        method = {"store": "commit"}.get(where, where.rpartition(" ")[2])
        setattr(end, method, block if where == "store" else hang)
        running, hanging = asyncio.create_task(run.run()), asyncio.create_task(hangs.wait())
        await asyncio.wait({running, hanging}, return_when=asyncio.FIRST_COMPLETED)
        assert hangs.is_set()
        shown = []
        for seconds in (4.9, 0.1, 9.9, 0.1, 1.0):
            world.clock.now += seconds
            run.refresh()
            shown.append((world.status.waiting_for or "").rpartition(" for ")[0])
            warnings.append(sum("server.no_answer" in each.getMessage() for each in caplog.records))
        goes_on.set()
        running.cancel()
        await asyncio.wait({running})
        assert shown == ["", *[what] * 4]

    warnings: list[int] = []
    asyncio.run(asyncio.wait_for(main(), 30))

    assert warnings == [0, 0, 0, 1, 1]


def stored(folder: Path) -> ReadPosition | None:
    cursor = CursorStore(cursor_state(folder, "back"), "back", QUERY).read()
    return None if cursor is None else cursor.position


def test_the_position_of_empty_windows_is_stored_once_a_second_and_in_the_end(tmp_path: Path) -> None:
    """A commit for each of thousands of empty windows would take longer than reading them."""
    rules = {"start": BASE - 3_000 * S, "window": 10 * S, "grid": True, "until_end": True}
    world = World(tmp_path, **rules)
    fetch = world.database.fetch

    async def slow(start: int, stop: int) -> MemoryWindow:
        world.clock.now += 0.05
        return await fetch(start, stop)

    world.database.fetch = slow  # type: ignore[method-assign]
    world.run()

    assert world.status.reader is not None
    assert world.status.reader.windows > 250
    assert stored(tmp_path) == world.status.reader.position
    assert world.clock.now - 2 < world.faults.counts["after store"] < world.clock.now + 4


def test_where_a_reader_begins_and_where_it_resumes_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for start in (BASE - 100 * S, BASE - 7 * S):
        World(tmp_path, start=start, until_end=True, settle=0, overlap=0).run()

    events = [each.getMessage() for each in caplog.records if "reader.begins" in each.getMessage()]
    events += [each.getMessage() for each in caplog.records if "reader.resumes" in each.getMessage()]
    assert [event.split(" ")[0] for event in events] == ["reader.begins", "reader.resumes"]
    assert "start=2023-11-14T22:11:40Z" in events[0]
    assert "at=2023-11-14T22:13:20Z" in events[1]


@pytest.mark.parametrize("start", ["now", "beginning"])
def test_where_a_new_reader_begins_is_stored_before_its_first_window(tmp_path: Path, start: str) -> None:
    """Else one that dies in it begins later the next time."""
    world = World(tmp_path, points(3), start=start, faults=Faults(("fetch", 1, Crash())))
    with pytest.raises(Crash):
        world.run(60)

    position = stored(tmp_path)
    assert position is not None
    assert position.done <= (BASE if start == "now" else world.database.points[0].time)


@pytest.mark.parametrize("until_end", [True, False])
def test_only_a_run_until_the_end_gives_up_a_database_that_it_never_reached(tmp_path: Path, until_end: bool) -> None:
    faults = Faults(*[("connect", number, NotConnected("away")) for number in range(1, 1000)])
    world = World(tmp_path, faults=faults, until_end=until_end)
    if not until_end:
        assert world.run(3_000).status.reconnects > 50
        return
    with pytest.raises(Stopped) as error:
        world.run()

    assert (error.value.code, world.status.reconnects) == ("IFX606", 3)


def test_queries_and_the_bytes_of_their_answers_are_measured(tmp_path: Path) -> None:
    world = World(tmp_path, points(9), faults=Faults(("fetch", 1, NotConnected("reset"))), until_end=True)
    status = world.run().status
    assert sum(status.query_seconds.counts) == len(world.database.fetched) + 1
    assert status.read_bytes == 10 * status.read > 0


@pytest.mark.parametrize("away", ["connect", "sink connect"])
def test_a_sink_that_was_never_reached_is_away_until_it_is(tmp_path: Path, away: str) -> None:
    """The alarm of a sink that is away reads it; the database is not the sink."""
    world = World(tmp_path, faults=Faults(*[(away, number, NotConnected("away")) for number in range(1, 5)]))
    shown: set[tuple[str, bool]] = set()
    connect = world.database.connect

    async def connecting() -> None:
        shown.add((world.status.state, world.status.is_away))
        await connect()

    world.database.connect = connecting  # type: ignore[method-assign]
    assert world.run(300).status.reconnects == 4
    assert ("connecting", True) in shown if away == "sink connect" else shown == {("connecting", False)}
    assert not world.status.is_away


def test_a_clock_of_the_server_that_is_ahead_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: BASE / S - 100)
    World(tmp_path).run(30)

    (line,) = [each.getMessage() for each in caplog.records if "reader.clock" in each.getMessage()]
    assert "ahead_seconds=100" in line


def test_a_last_position_that_cannot_be_stored_is_logged_and_the_reader_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults(*[("before store", number, NotConnected("the topic is away")) for number in range(2, 99)])
    world = World(tmp_path, faults=faults, window=600 * S).run(9.5)

    assert world.status.state == "done"
    (line,) = [each.getMessage() for each in caplog.records if "reader.not_stored" in each.getMessage()]
    assert "the topic is away" in line


def test_the_status_says_when_a_reader_tries_to_connect_again(tmp_path: Path) -> None:
    world = World(tmp_path, faults=Faults(("connect", 1, NotConnected("away", retry_after_seconds=60.0))))
    run = ReaderRun(world.route(), world.status, world.clock.stop, world.clock)
    shown: list[float | None] = []

    async def sleep(seconds: float) -> None:
        for share in (0.0, 0.5):
            world.clock.now += share * seconds
            run.refresh()
            shown.append((world.status.backoff_seconds or 0.0) / seconds)
        world.clock.now += 0.5 * seconds
        world.clock.stop.request()

    world.clock.sleep = sleep  # type: ignore[method-assign]
    asyncio.run(asyncio.wait_for(run.run(), 20))

    assert shown == pytest.approx([1.0, 0.5])
    assert world.status.backoff_seconds is None


def test_the_status_says_how_much_of_a_backlog_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rules = {"start": BASE - 5_000 * S, "until_end": True, "rows_per_second": 1.0}
    world = World(tmp_path, points(100, step=40 * S, first=BASE - 4_900 * S), **rules).run(30)
    status = world.status.reader

    assert (world.status.state, world.status.waiting_for) == ("interrupted", "the limit `backfill_rate`")
    assert status is not None
    assert status.share is not None
    assert 0.2 < status.share < 0.4
    assert status.seconds_left == pytest.approx(world.clock.now * (1 - status.share) / status.share)
    logged = [each.getMessage() for each in caplog.records if "reader.progress" in each.getMessage()]
    assert len(logged) == 2, "every ten seconds"
    assert all("done=" in line and "left=" in line for line in logged)


def test_what_was_seen_survives_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path, points(50))
    for _ in range(3):
        world.run(12)

    assert sorted(world.sink.values, key=str) == expected(world.database.points)


def test_thousands_of_points_of_one_time_are_sent_once(tmp_path: Path) -> None:
    ties = [Point(BASE - 20 * S, number, f"d{number}") for number in range(4_000)]
    world = World(tmp_path, ties)
    world.run(20).run(20)

    assert sorted(world.sink.values, key=str) == expected(ties)


def test_a_window_with_too_many_rows_is_read_in_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path, points(80, step=S // 10), until_end=True)
    world.database.most_rows = 7
    with caplog.at_level(logging.INFO):
        world.run()

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert "reader.too_much" in caplog.text
    assert world.status.reader is not None
    assert world.status.reader.windows == len(world.database.fetched)


def test_a_position_that_does_not_move_is_not_stored_again(tmp_path: Path) -> None:
    """The time of the server is asked more often than there is a window."""
    world = World(tmp_path, start="now").run(30)

    assert world.status.reader is not None
    assert world.status.reader.windows < world.faults.counts["now"]
    assert world.faults.counts["after store"] == 1 + world.status.reader.windows


def test_the_next_window_of_the_past_is_fetched_while_one_is_sent(tmp_path: Path) -> None:
    """Server and sink work at the same time; what was fetched in vain is closed."""
    world = World(tmp_path, points(80, first=BASE - 5_000 * S, step=60 * S), start=BASE - 5_000 * S, until_end=True)
    open_at_send: list[int] = []
    send = world.sink.send

    async def counting(messages: Sequence[OutgoingMessage]) -> None:
        await asyncio.sleep(0)
        open_at_send.append(world.database.open_windows)
        await send(messages)

    world.sink.send = counting  # type: ignore[method-assign]
    world.run()

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert max(open_at_send) == 2
    assert world.database.open_windows == 0
    assert len(set(world.database.fetched)) == len(world.database.fetched), "each window once"


class Slow(Database):
    """A database that needs a second and a half for a query."""

    async def fetch(self, start: int, stop: int) -> MemoryWindow:
        window = await super().fetch(start, stop)
        self.clock.now += 1.5
        return window


class Fetches:
    """A `Prefetcher`, with a model of what it fetches: of each source the spans, and how many queries ended."""

    def __init__(self, failing: set[int]) -> None:
        """The queries with these numbers fail."""
        self.clock = Clock()
        self.clock.now = 100.0
        self.failing, self.number = failing, 0
        self.faults = Faults(*(("fetch", number, NotConnected("reset")) for number in failing))
        self.sources = [Slow(points(3, step=1, first=0), self.clock, self.faults)]
        self.spans: list[list[tuple[int, int]]] = [[]]
        self.took: list[float] = []
        now = itertools.count(1).__next__
        self.prefetcher = Prefetcher(self.sources[0], self.clock.monotonic, self.took.append, now)
        self.ahead: Read | None = None
        self.is_new = False
        """Whether nothing ran since what is ahead was asked for."""

    async def prefetch(self, read: Read) -> None:
        self.prefetcher.prefetch(read)
        self.prefetcher.prefetch(None)
        if self.ahead is None:
            self.ahead, self.is_new = read, True
            self.begin(read)

    async def fetch(self, read: Read) -> None:
        fetch = await self.prefetcher.fetch(read)
        if self.ahead is not None and (self.ahead.start, self.ahead.stop) == (read.start, read.stop):
            self.ahead = None
        else:
            if self.ahead is not None and self.ahead.lane == read.lane:
                self.drop()
            self.begin(read)
        assert fetch.task.done() or fetch.ended == 0
        with contextlib.suppress(NotConnected):
            window = await fetch.task
            assert [row.columns["time"] for row in window.found] == [read.start]
            window.close()
        await self.rest()
        assert 0 < fetch.began < fetch.ended

    async def cancel(self, _: Read) -> None:
        await self.prefetcher.cancel()
        self.drop()

    async def use(self, _: Read) -> None:
        if self.ahead is None:
            self.sources.append(Slow(self.sources[0].points, self.clock, self.faults))
            self.spans.append([])
            self.prefetcher.use(self.sources[-1])

    async def rest(self, _: Read | None = None) -> None:
        for _ in range(9):
            await asyncio.sleep(0)
        self.is_new = False
        assert sum(each.open_windows + each.fetching for each in self.sources) <= (self.ahead is not None)

    def begin(self, read: Read) -> None:
        self.number += 1
        if self.number not in self.failing:
            self.spans[-1].append((read.start, read.stop))

    def drop(self) -> None:
        if self.ahead is not None and self.is_new:
            if self.number not in self.failing:
                self.spans[-1].pop()
            self.number -= 1
        self.ahead = None


READS = st.builds(
    lambda time, lane: Read(time, time + 1, lane, 0, 9), st.integers(0, 2), st.sampled_from(["tail", "backfill"])
)
CALLS = st.lists(st.tuples(st.sampled_from(["prefetch", "fetch", "cancel", "use", "rest"]), READS), max_size=16)


@given(CALLS, st.sets(st.integers(1, 8)))
@example([(call, Read(0, 1, "tail", 0, 9)) for call in ("prefetch", "rest")], set())
def test_one_window_is_fetched_ahead_once_and_closed_if_it_was_in_vain(
    calls: list[tuple[str, Read]], failing: set[int]
) -> None:
    """The window of another lane stays; what is cancelled before its end says nothing of how long queries take."""
    fetches = Fetches(failing)

    async def main() -> None:
        for call, read in calls:
            await getattr(fetches, call)(read)
        await fetches.prefetcher.cancel()
        fetches.drop()
        await fetches.rest()

    asyncio.run(main())
    assert [each.fetched for each in fetches.sources] == fetches.spans
    assert len(fetches.took) == fetches.number
    assert set(fetches.took) <= {0.0, 1.5, 3.0}


def test_what_is_fetched_ahead_is_cancelled_when_the_connection_is_lost(tmp_path: Path) -> None:
    faults = Faults(("chunk", 1, NotConnected("reset")))
    world = World(tmp_path, points(9, first=BASE - 5_000 * S), faults=faults, start=BASE - 5_000 * S, until_end=True)
    fetch, calls = world.database.fetch, 0

    async def hanging(start: int, stop: int) -> MemoryWindow:
        nonlocal calls
        calls += 1
        world.database.fetching += 1
        try:
            if calls == 2:
                await asyncio.Event().wait()
        finally:
            world.database.fetching -= 1
        return await fetch(start, stop)

    world.database.fetch = hanging  # type: ignore[method-assign]
    world.run()

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert world.status.reconnects == 1


@pytest.mark.parametrize(
    ("rules", "place", "remedy"),
    [
        ({}, "one nanosecond has more rows than can be read at once: 2023-11-14T22:13:00Z", "filter by tag"),
        ({"grid": True, "window": 60 * S}, "one window has more rows", "use a smaller `cursor.window`"),
        ({"grid": True, "window": 1, "start": BASE - 20 * S}, "one nanosecond has more rows", "`cursor.window`"),
    ],
    ids=["any window", "fixed windows", "the smallest windows"],
)
def test_too_many_rows_of_one_time_stop_the_reader_with_a_hint(
    tmp_path: Path, rules: dict[str, Any], place: str, remedy: str
) -> None:
    world = World(tmp_path, [Point(BASE - 20 * S, 1, f"d{number}") for number in range(5)], **rules)
    world.database.most_rows = 4
    with pytest.raises(Stopped) as error:
        world.run()

    assert error.value.code == "IFX642"
    assert place in error.value.reason
    assert remedy in (error.value.hint or "")


@pytest.mark.parametrize("for_each", ["row", "window"])
def test_rows_outside_of_the_window_stop_the_reader(tmp_path: Path, for_each: str) -> None:
    """A statement that does not keep to its window would repeat and lose rows."""

    class Wrong(Database):
        async def fetch(self, start: int, stop: int) -> MemoryWindow:
            return await super().fetch(start - 100 * S, stop)

    world = World(tmp_path, points(50), start=BASE - 60 * S, grid=True)
    world.plan = WHOLE.plan() if for_each == "window" else world.plan
    world.database = Wrong(world.database.points, world.clock)
    with pytest.raises(Stopped) as error:
        world.run(60)

    assert error.value.code == "IFX644"
    assert world.sink.messages == []


@pytest.mark.parametrize(
    "where",
    ["connect", "sink connect", "now", "first", "fetch", "chunk", "before send"],
    ids=lambda text: text.replace(" ", "-"),
)
def test_unavailable_servers_are_retried_and_nothing_is_sent_twice(tmp_path: Path, where: str) -> None:
    faults = Faults(*[(where, number, NotConnected("away")) for number in (1, 2, 3)])
    start = "beginning" if where == "first" else BASE - 100 * S
    world = World(tmp_path, points(50), faults=faults, until_end=True, start=start).run()

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert world.status.reconnects == 3
    assert world.clock.slept
    assert all(0 < seconds <= 30 for seconds in world.clock.slept)


def test_what_was_not_confirmed_is_sent_again_with_the_same_ids_and_no_more(tmp_path: Path) -> None:
    faults = Faults(("after send", 3, NotConnected("no answer")))
    world = World(tmp_path, points(50), faults=faults, until_end=True).run()

    ids = Counter(message.id for message in world.sink.messages)
    assert len(ids) == 50
    assert sorted(ids.values()) == [1] * 47 + [2] * 3
    assert world.status.retries == 1


@pytest.mark.parametrize("where", ["now", "fetch", "before send", "sink connect"])
def test_a_stop_stops_and_nothing_of_the_window_is_stored(tmp_path: Path, where: str) -> None:
    world = World(tmp_path, points(50), faults=Faults((where, 1, Stopped("no right", "get one", "IFX700"))))
    with pytest.raises(Stopped, match="no right"):
        world.run()
    cursor = CursorStore(cursor_state(tmp_path, "back"), "back", QUERY).read()

    assert cursor is None or cursor.position.done == BASE - 100 * S
    world.run(20)
    assert sorted(world.sink.values, key=str) == expected(world.database.points)


def test_no_more_messages_are_sent_at_once_than_a_page_has(tmp_path: Path) -> None:
    world = World(tmp_path, points(50), until_end=True)
    world.more["page_size"] = 2
    sizes: list[int] = []
    send = world.sink.send

    async def counting(messages: Sequence[OutgoingMessage]) -> None:
        sizes.append(len(messages))
        await send(messages)

    world.sink.send = counting  # type: ignore[method-assign]
    world.run()

    assert sorted(world.sink.values, key=str) == expected(world.database.points)
    assert max(sizes) == 2


def test_a_send_that_stops_in_the_middle_of_a_window_skips_no_row(tmp_path: Path) -> None:
    world = World(tmp_path, points(50), faults=Faults(("before send", 9, Stopped("full"))))
    with pytest.raises(Stopped):
        world.run()
    world.run(20)

    assert set(world.sink.values) == set(expected(world.database.points))


def test_what_is_being_sent_is_cancelled_if_the_rest_of_its_window_cannot_be_read(tmp_path: Path) -> None:
    world = World(tmp_path, points(6), faults=Faults(("chunk", 2, Stopped("gone"))), until_end=True)
    ended: list[bool] = []

    async def hang(_: Sequence[OutgoingMessage]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ended.append(world.database.closed)

    world.sink.send = hang  # type: ignore[method-assign]
    with pytest.raises(Stopped, match="gone"):
        world.run()
    assert ended == [False]


def test_a_requested_stop_while_the_sink_is_unavailable_abandons_the_window(tmp_path: Path) -> None:
    faults = Faults(*[("before send", number, NotConnected("away")) for number in range(1, 100)])
    world = World(tmp_path, points(50), faults=faults).run(30)

    assert world.sink.messages == []
    assert world.status.state == "done"
    world.faults.script.clear()
    world.run(20)
    assert sorted(world.sink.values, key=str) == expected(world.database.points)


def with_a_row_that_fails(world: World) -> World:
    """The fifth of nine rows has a key that is not a string."""
    times = [BASE - 90 * S + number * S for number in range(9)]
    rows = [
        Row({"time": time, "device": ["no key"] if number == 4 else "d", "value": number}, "env", None, ())
        for number, time in enumerate(times)
    ]

    async def fetch(start: int, stop: int) -> MemoryWindow:
        world.database.open_windows += 1
        return MemoryWindow(world.database, [row for row in rows if start <= row.columns["time"] < stop])  # type: ignore[operator]

    world.database.fetch = fetch  # type: ignore[method-assign]
    return world


def test_a_row_that_cannot_be_mapped_becomes_a_dead_letter_with_its_place(tmp_path: Path) -> None:
    world = with_a_row_that_fails(World(tmp_path, until_end=True))
    world.letters.removed = Removed(6, 2)  # type: ignore[attr-defined]
    world.run()

    (letter,) = world.letters.letters
    assert (world.status.removed_replayed, world.status.removed_letters) == (6, 2)
    assert json.loads(letter.message.payload)["value"] == 4
    assert (letter.message.stream, letter.message.topic, letter.mapping) == ("s", "t", "back")
    assert letter.reasons[0].location == "/messages/key"
    assert len(world.sink.messages) == 8
    assert (world.status.failed, world.status.dead_letters) == (1, 1)


@pytest.mark.parametrize(("on_error", "code"), [(OnError.SKIP, None), (OnError.FAIL, "IFX620")])
def test_a_row_that_cannot_be_mapped_is_dropped_or_stops_the_reader(
    tmp_path: Path, on_error: OnError, code: str | None
) -> None:
    world = with_a_row_that_fails(World(tmp_path, until_end=True))
    world.more["on_error"] = on_error
    if code is None:
        assert world.run().status.dropped == 1
        assert len(world.sink.messages) == 8
        return
    with pytest.raises(Stopped) as error:
        world.run()

    assert error.value.code == code
    assert "env@2023-11-14T22:11:54Z" in error.value.reason


def test_a_dead_letter_that_cannot_be_kept_now_is_kept_later(tmp_path: Path) -> None:
    """The window goes on with it: nothing is sent twice."""
    world = with_a_row_that_fails(World(tmp_path, until_end=True))
    world.letters = CollectingDeadLetters([NotConnected("away"), NotConnected("away")])
    world.run()

    assert len(world.letters.letters) == 1
    assert len(world.sink.messages) == 8
    assert (world.status.retries, world.status.failed, world.status.dead_letters) == (2, 1, 1)


def test_the_cursor_of_another_query_is_refused(tmp_path: Path) -> None:
    World(tmp_path, points(5), until_end=True).run()
    world = World(tmp_path, points(5), until_end=True)
    world.query = {"measurement": "air"}
    with pytest.raises(Stopped) as error:
        world.run()

    assert error.value.code == "IFX640"
    assert "measurement was 'env' and is 'air'" in error.value.reason


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    store = CursorStore(cursor_state(tmp_path, "back"), "back", QUERY)
    store.open()
    with pytest.raises(Stopped) as error:
        World(tmp_path).run()
    store.close()

    assert error.value.code == "IFX702"


def count_windows(world: World, runs: int, seconds: float = 12) -> Counter[str]:
    """Run several times; return what the status counts, and of what is rendered windows, rows and results."""
    render, counted = world.plan.render, Counter[str]()

    def rendering(rows: Sequence[Row], digests: Sequence[bytes]) -> Any:
        made = render(rows, digests)
        counted.update(windows=1, rows=len(rows), rendered=len(made.messages) + len(made.failures))
        return dataclasses.replace(made, fallback="odd")

    world.plan.render = rendering
    for _ in range(runs):
        status = world.run(seconds).status
        assert status.reader is not None
        counted.update(read=status.read, points=status.points, delivered=status.delivered, fallbacks=status.fallbacks)
        counted.update(changed=status.reader.changed, seen_again=status.reader.seen_again)
    return counted


def test_a_plan_of_whole_windows_gets_all_rows_of_a_window_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, points(50), until_end=True, grid=True, window=20 * S)
    world.plan = WHOLE.plan()
    world.run()

    found = [json.loads(message.payload) for message in world.sink.messages]
    assert max(map(len, found)) == 20
    assert [number for part in found for number in part] == list(range(sum(map(len, found))))


@pytest.mark.parametrize("mark", ["why", None])
def test_a_window_in_which_something_changed_is_sent_again_as_a_whole(tmp_path: Path, mark: str | None) -> None:
    """A consumer of whole windows uses the last message of each."""
    late = Point(BASE - 35 * S, "late", "x", arrives=BASE + 8 * S)
    world = World(tmp_path, [*points(60), late], grid=True, window=10 * S)
    world.plan = WHOLE.plan()
    world.more["mark"] = mark
    counted = count_windows(world, 4)
    found = [(json.loads(message.payload), dict(message.headers)) for message in world.sink.messages]

    assert len({message.id for message in world.sink.messages}) == len(found), "no window twice as it was"
    assert counted["read"] == counted["rows"]
    assert (counted["points"], counted["delivered"], counted["changed"]) == (len(found), len(found), 1)
    assert counted["seen_again"] == counted["rendered"] - len(found)
    assert counted["fallbacks"] == counted["windows"]
    changed = [50, 51, 52, 53, 54, 55, "late", 56, 57, 58, 59]
    assert [each for each in found if each[1] or each[0] == changed] == [(changed, {mark: "changed"} if mark else {})]
    assert found.count(([50, 51, 52, 53, 54, 55, 56, 57, 58, 59], {})) == 1


def test_what_fails_in_a_whole_window_is_kept_once(tmp_path: Path) -> None:
    mapping = parse_mapping(
        """\
iggyflux: 1
kind: reader
from: {measurement: env}
messages: {payload: "sum([].value)", for_each: series}
to: {stream: s, topic: t}
""",
        name="back",
    )
    world = World(tmp_path, [*points(60), Point(BASE - 35 * S, "text", "x")], grid=True, window=10 * S)
    world.plan = mapping.plan()
    counted = count_windows(world, 3)

    (letter,) = world.letters.letters
    assert json.loads(letter.message.payload)["device"] == "x"
    assert len(world.sink.messages) == 18, "three series in six windows"
    assert counted["seen_again"] == counted["rendered"] - 19


# --- faults at every point ---

MOMENTS = ("now", "fetch", "chunk", "before send", "after send", "before store", "after store")

BETWEEN_WINDOWS = ("now", "fetch", "after store")


def check(world: World, crashes: int) -> None:
    """Check that every final value was sent, nothing else was, and repeats have the same id."""
    final = {(p.time, p.device): p.value for p in sorted(world.database.points, key=lambda p: p.arrives)}
    sent = world.sink.values
    last = {(time, device): value for time, device, value in sent}
    assert last == final
    assert set(sent) <= {(p.time, p.device, p.value) for p in world.database.points}
    ids = {value: message.id for value, message in zip(sent, world.sink.messages, strict=True)}
    assert len(set(ids.values())) == len(ids)
    for value, message in zip(sent, world.sink.messages, strict=True):
        assert ids[value] == message.id
    if not crashes:
        assert len(sent) == len(set(sent))


def lively() -> list[Point]:
    """On time, late, overwritten, and many at one time."""
    return [
        *points(60),
        *[Point(BASE - 40 * S, number, f"tie{number}") for number in range(10)],
        *[Point(BASE - 45 * S + n * S, f"late{n}", "l", arrives=BASE + n * S) for n in range(0, 30, 3)],
        *[Point(BASE - 35 * S + n * S, f"new{n}", f"d{(55 + n) % 3}", arrives=BASE + (n + 2) * S) for n in range(5)],
        *[Point(BASE + n * S, n, "live", arrives=BASE + n * S) for n in range(40)],
    ]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda text: text.replace(" ", "-"))
@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("marks", [False, True], ids=["plain", "marked"])
def test_a_crash_at_any_point_loses_nothing(tmp_path: Path, moment: str, number: int, marks: bool) -> None:
    world = World(tmp_path, lively(), faults=Faults((moment, number, Crash())))
    if marks:
        world.more["mark"] = "why"
    assert world.run_through_crashes(70) == 1
    check(world, 0 if moment in BETWEEN_WINDOWS else 1)


@given(
    crashes=st.lists(st.tuples(st.sampled_from(MOMENTS), st.integers(1, 40), st.booleans()), max_size=8),
    window=st.sampled_from([7 * S, 60 * S]),
    overlap=st.sampled_from([60 * S, 90 * S]),
    most_rows=st.sampled_from([11, 10**9]),
    marks=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_random_crashes_and_outages_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    crashes: list[tuple[str, int, bool]],
    window: int,
    overlap: int,
    most_rows: int,
    marks: bool,
) -> None:
    script = [
        (moment, number, Crash() if dies or "store" in moment or moment == "chunk" else NotConnected("away"))
        for moment, number, dies in crashes
    ]
    world = World(
        tmp_path_factory.mktemp("w"), lively(), faults=Faults(*script), window=window, overlap=overlap, poll_seconds=5
    )
    world.database.most_rows = most_rows
    if marks:
        world.more["mark"] = "why"
    world.run_through_crashes(90)
    check(world, len(crashes))


# --- windows that are larger than what a process lives to send ---


@pytest.mark.parametrize("sends", [2, 3, 5])
@pytest.mark.parametrize("rows", [20, 101])
def test_a_reader_that_is_killed_faster_than_a_window_takes_still_gets_on(
    tmp_path: Path, sends: int, rows: int
) -> None:
    """Every process dies after some sends; the windows shrink until one is finished before."""
    points = [Point(BASE - 90 * S + number * S // 4, number, f"d{number}") for number in range(rows)]
    world = World(tmp_path, points, until_end=True, overlap=0)
    world.more = {"page_size": 2}
    crashes = 0
    while True:
        world.faults.script = {("before send", world.faults.counts["before send"] + sends): Crash()}
        try:
            world.run()
            break
        except Crash:
            crashes += 1
        assert crashes < 80, "it never gets on"

    assert {value for _, _, value in world.sink.values} == set(range(rows))


def test_a_window_that_was_finished_is_no_reason_to_shrink(tmp_path: Path) -> None:
    points = [Point(BASE - 90 * S + number * S, number, f"d{number}") for number in range(20)]
    world = World(tmp_path, points, until_end=True)
    world.more = {"page_size": 2}
    world.run()
    first = world.database.fetched[0]
    (tmp_path / "back.cursor.sqlite").rename(tmp_path / "away")
    again = World(tmp_path, points, until_end=True)
    again.run()

    assert again.database.fetched[0] == first
    store = CursorStore(cursor_state(tmp_path, "back"), "back", QUERY)
    cursor = store.read()
    assert cursor is not None
    assert cursor.window is None


# --- marks ---


def test_a_new_tag_or_field_makes_no_row_of_the_overlap_late(tmp_path: Path) -> None:
    """The server names the tags of all series with each row: one that a row lacks says nothing about it."""

    class Widening(Database):
        tags: tuple[str, ...] = ("device",)

        async def fetch(self, start: int, stop: int) -> MemoryWindow:
            window = await super().fetch(start, stop)
            window.found = [Row(row.columns, row.measurement, row.window, self.tags) for row in window.found]
            return window

    points = [Point(BASE - 20 * S, 1, "a"), Point(BASE - 20 * S, 1, "b")]
    world = World(tmp_path, points, until_end=True, overlap=120 * S)
    world.more = {"mark": "del"}
    world.database = Widening(points, world.clock, world.faults)
    world.run()
    world.clock.now += 60
    world.database.tags = ("class", "device", "zz")
    world.database.points.append(Point(BASE - 19 * S, 2, "a"))
    world.run()

    assert [(device, value) for _, device, value in world.sink.values] == [("a", 1), ("b", 1), ("a", 2)]
