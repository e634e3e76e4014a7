"""The ledger of a route on disk, beside the route: when it is read and written, and what it claims meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iggyflux.delivery.settled import Interval, SettledBatch, SettledOffsets
from iggyflux.delivery.verdicts import Accepted, Refusal, Verdict
from iggyflux.errors import EndOfInput, NotConnected, Stopped
from iggyflux.mapping import OnError
from iggyflux.records import Batch, Failure, Message, Partition, Position, Rendered
from iggyflux.runner.clock import SystemClock
from iggyflux.runner.ledger import Job
from iggyflux.runner.settled_ledger import BUSY_SECONDS, SettledLedger, ledger_state
from iggyflux.runner.writer_run import WriterRun
from iggyflux.state.sqlite import SqliteState
from iggyflux.transports.local.memory import ScriptedSource, batch
from tests.test_change import Tried

HERE = Partition("coast", "gauges", 3)


def settled_in(folder: Path) -> list[tuple[int, int]]:
    with closing(ledger_state(folder, "r")) as state:
        found = SettledOffsets.of(state.read()).intervals()
    return [(each.first, each.last) for intervals in found.values() for each in intervals]


def ledger_in(folder: Path) -> SettledLedger:
    return SettledLedger("r", OnError.DEAD_LETTER, ledger_state(folder, "r", busy_seconds=BUSY_SECONDS))


def test_acknowledgements_do_not_wait_for_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, acknowledged, waited = ledger_in(tmp_path), threading.Event(), list[bool]()
    commit = SqliteState.commit

    def slow(state: SqliteState, record: object) -> None:
        waited.append(acknowledged.wait(20))
        commit(state, record)

    class Source(ScriptedSource):
        async def ack(self, positions: Sequence[Position]) -> None:
            await super().ack(positions)
            if self.acked[-1].offset == 5:
                acknowledged.set()

    monkeypatch.setattr(SqliteState, "commit", slow)
    source = Source([batch([b"1"], offset=offset) for offset in range(6)])

    async def answer(_: Sequence[str]) -> Verdict:
        for _ in range(300):  # several acknowledgements
            await asyncio.sleep(0)
        return Accepted()

    tried = Tried(source, [answer] * 6)
    tried.writer = WriterRun(dataclasses.replace(tried.route, ledger=ledger), tried.status, tried.stop, tried.clock)
    tried.run()

    assert len({position.offset for position in source.acked}) > 1
    assert waited
    assert all(waited)
    assert settled_in(tmp_path) == [(0, 5)]


def test_a_ledger_that_was_locked_is_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def try_it() -> None:
        ledger = ledger_in(tmp_path)
        await ledger.connect()
        for number, (now, is_locked) in enumerate([(0.0, False), (2.0, True), (8.0, True), (14.0, False)]):
            ledger.note([(HERE, ("p", Interval(number, number)))])
            with closing(sqlite3.connect(tmp_path / "r.ledger.sqlite", isolation_level=None)) as other:
                if is_locked:
                    other.execute("BEGIN IMMEDIATE")
                ledger.write(now)
                ledger.write(now)
                assert ledger._writing is not None
                await asyncio.wait({ledger._writing})
            ledger.write(now + 0.1)  # too early
            assert await asyncio.to_thread(settled_in, tmp_path) == [(0, 0 if number < 3 else 3)]
        await ledger.close()

    with closing(ledger_state(tmp_path, "r")) as state:
        state.take()
        state.commit(SettledOffsets().record())
    asyncio.run(try_it())
    assert [record.message.split(" ")[0] for record in caplog.records] == ["ledger.unusable"]


class Kept:
    """A state in memory, which may be locked."""

    place = "memory"
    record: Any = None
    is_locked = False

    def take(self) -> None:
        if self.is_locked:
            raise Stopped("locked")

    def read(self) -> Any:
        return json.loads(json.dumps(self.record))

    def commit(self, record: object, **_: Any) -> None:
        self.record = record

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Rewound:
    """A log of times of arrival, no two of them equal, that may lose its tail; the message at an offset is there."""

    arrivals: list[int]

    async def replaced(self, read: Mapping[Partition, tuple[int, int]]) -> list[Partition]:
        return [place for place, (offset, at) in read.items() if self.arrivals[offset : offset + 1] != [at]]


SMALL = st.integers(0, 6)
CONNECTIONS = st.lists(st.tuples(SMALL, SMALL, st.booleans(), st.booleans(), SMALL, SMALL), min_size=1, max_size=8)


@settings(deadline=None)
@given(CONNECTIONS)
def test_a_connected_ledger_claims_the_messages_of_the_log_that_it_settled_and_no_others(
    drawn: list[tuple[int, int, bool, bool, int, int]],
) -> None:
    """Before each connection the log loses messages and gets others; the route then reads from anywhere, as a member
    does that gets a partition of another one.  Some ledgers are of a new process, some are locked at first.
    """
    state, log, mine, times = Kept(), Rewound([]), set[int](), itertools.count(5)

    def new_ledger() -> SettledLedger:
        return SettledLedger("r", OnError.SKIP, state)  # type: ignore[arg-type]

    def claimed(ledger: SettledLedger) -> set[int]:
        found = ledger._settled
        return set() if found is None else {at for at in range(99) if found.claims(Position(HERE, at))}

    async def connect(ledger: SettledLedger, *, is_locked: bool) -> None:
        state.is_locked = is_locked
        await ledger.connect()
        await ledger.compare(log)
        state.is_locked = False
        ledger.write(9.0)
        if ledger._writing is not None:
            await asyncio.wait({ledger._writing})

    async def main() -> None:
        ledger = new_ledger()
        for lost, new, is_new, is_locked, begin, count in drawn:
            if is_new:
                await ledger.close()
                ledger = new_ledger()
            before = claimed(ledger) if not is_new else None
            del log.arrivals[max(len(log.arrivals) - lost, 0) :]
            log.arrivals += itertools.islice(times, new)
            await connect(ledger, is_locked=is_locked)
            found = claimed(ledger)
            assert all(at < len(log.arrivals) and log.arrivals[at] in mine for at in found)
            assert lost or before is None or found == before
            batch = [
                Message(b"", "coast", "gauges", 3, offset, log.arrivals[offset])
                for offset in range(begin, min(begin + count, len(log.arrivals)))
            ]
            if batch and ledger._settled is not None:
                ledger.cut({HERE: begin})
                ledger.note((HERE, ("p", each)) for each in SettledBatch(batch, ()).intervals())
                mine.update(each.timestamp_us for each in batch)
        await ledger.close()

    asyncio.run(main())


class Watched(Kept):
    """A state that counts what is asked of it, and may be locked at any time."""

    def __init__(self) -> None:
        self.reads = self.commits = 0

    def take(self) -> None:
        self.reads += 1
        super().take()

    def commit(self, record: object, **_: Any) -> None:
        self.commits += 1
        if self.is_locked:
            raise Stopped("locked")
        super().commit(record)


@dataclass
class Fickle:
    """A source that says that every partition was replaced, once, or that it is not connected."""

    is_away: bool = False
    is_replaced: bool = False

    async def replaced(self, read: Mapping[Partition, tuple[int, int]]) -> list[Partition]:
        assert read
        if self.is_away:
            raise NotConnected("away")
        is_replaced, self.is_replaced = self.is_replaced, False
        return list(read) if is_replaced else []


class WithoutThread:
    """A worker whose calls run in the event loop: many of them are fast."""

    async def call(self, function: Any, *args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    async def finish(self, function: Any) -> None:
        function()


class Tracked:
    """A ledger, and what it should know, have stored and have said."""

    def __init__(self, *, compares: bool, is_locked: bool, chance: Random) -> None:
        self.state, self.source, self.chance, self.compares = Watched(), Fickle(), chance, compares
        before = SettledOffsets()
        before.add(HERE, "p", Interval(4, 6))
        self.state.record, self.state.is_locked = before.record(), is_locked
        self.ledger = SettledLedger("r", OnError.SKIP, self.state)  # type: ignore[arg-type]
        self.ledger._worker = WithoutThread()  # type: ignore[assignment]
        self.known: set[int] | None = None
        self.stored, self.cuts = {4, 5, 6}, 99
        self.is_changed = self.is_reported = self.is_compared = self.is_writing = False
        self.now = self.due = 0.0
        self.offset, self.reads, self.commits, self.reports = 10, 0, 0, 0

    def _fails(self, again_at: float) -> None:
        self.is_changed, self.due = True, again_at
        self.reports += not self.is_reported
        self.is_reported = True

    def _is_read(self, *, is_replaced: bool) -> None:
        self.is_reported = False
        if self.is_compared and self.stored and self.source.is_away:
            return
        found = set() if self.is_compared and is_replaced else self.stored
        self.known = {at for at in found if at < self.cuts}
        self.is_changed |= self.known != self.stored

    async def note(self) -> None:
        self.offset += 1
        self.ledger.note([(HERE, ("p", Interval(self.offset, self.offset)))])
        if self.known is not None:
            self.known.add(self.offset)
            self.is_changed = True

    async def cut(self) -> None:
        at = self.chance.randint(3, self.offset + 2)
        self.ledger.cut({HERE: at})
        if self.known is None:
            self.cuts = min(self.cuts, at)
        else:
            gone = {each for each in self.known if each >= at}
            self.known -= gone
            self.is_changed |= bool(gone)

    async def write(self) -> None:
        begins = self.now >= self.due and (self.is_changed or self.known is None)
        is_replaced, self.is_writing = self.source.is_replaced, begins
        self.ledger.write(self.now)
        if not begins:
            return
        if self.chance.random() < 0.3:
            self.ledger.write(self.now + 99.0)  # it is busy
            await self.ledger.connect()
        assert self.ledger._writing is not None
        await asyncio.wait({self.ledger._writing})
        self.due = self.now + 1.0
        self.reads += self.known is None
        self.commits += self.known is not None
        if self.state.is_locked:
            self._fails(self.now + 5.0)
        elif self.known is None:
            self._is_read(is_replaced=is_replaced)
        else:
            self.stored, self.is_changed, self.is_reported = set(self.known), False, False

    async def connect(self) -> None:
        is_replaced = self.source.is_replaced
        await self.ledger.connect()
        if self.known is None and not self.is_writing and not self.is_compared:
            self.reads += 1
            if self.state.is_locked:
                self._fails(0.0)
            else:
                self._is_read(is_replaced=False)
        if self.compares:
            self.is_compared = True
            with suppress(NotConnected):
                await self.ledger.compare(self.source)
            if self.known and is_replaced and not self.source.is_away:
                self.known, self.is_changed = set(), True

    async def lock(self) -> None:
        self.state.is_locked = True

    async def unlock(self) -> None:
        self.state.is_locked = False

    async def replace(self) -> None:
        self.source.is_replaced = True

    async def go(self) -> None:
        self.source.is_away = not self.source.is_away

    async def close(self) -> None:
        await self.ledger.close()
        if self.known is not None and self.is_changed:
            self.commits += 1
            if self.state.is_locked:
                self._fails(0.0)
            else:
                self.stored = set(self.known)

    def check(self, told: Sequence[str]) -> None:
        """Compare the ledger with what it should be."""
        assert (self.state.reads, self.state.commits, len(told)) == (self.reads, self.commits, self.reports)
        assert self.ledger.is_unwritten == (self.is_changed or self.known is None)
        assert (None if self.ledger._settled is None else offsets_of(self.ledger._settled.record())) == self.known
        assert offsets_of(self.state.record) == self.stored


STEPS = st.lists(
    st.sampled_from(["note", "note", "cut", *["write"] * 4, "lock", "unlock", "connect", "replace", "go"]),
    min_size=12,
    max_size=40,
)
LATER = ["unlock", *["write"] * 8]


@settings(deadline=None)
@given(st.booleans(), st.booleans(), STEPS, st.randoms(use_true_random=False))
@example(True, False, ["connect", "lock", "note", *["write"] * 3, *LATER, "note", "lock", *["write"] * 4], Random(3))
@example(True, True, ["connect", *LATER, "note", "lock", *["write"] * 8], Random(4))
@example(True, True, ["write", "connect", *LATER], Random(5))
@example(True, False, ["connect", "note", "write", "replace", "connect", *["write"] * 4, "note", "lock"], Random(6))
@example(True, True, ["go", "connect", *LATER, "connect", *["write"] * 4], Random(7))
@example(True, True, ["connect", "replace", "cut", "cut", *LATER], Random(8))
@example(False, True, ["connect", "write", "connect", "cut", "cut", *LATER, "cut"], Random(9))
@example(False, False, ["connect", "connect", "note"], Random(10))
def test_a_ledger_asks_its_store_when_it_is_due_and_keeps_what_it_says(
    compares: bool, is_locked: bool, steps: list[str], chance: Random
) -> None:
    """What was read or written is exact, is tried again in time, and a failure is reported once until it is over."""
    told = list[str]()

    async def main() -> None:
        tracked = Tracked(compares=compares, is_locked=is_locked, chance=chance)
        for step in steps:
            tracked.now += chance.choice([0.0, 0.4, 1.0, 1.1, 4.9, 5.0])
            await getattr(tracked, step)()
            tracked.check(told)
        await tracked.close()
        assert (tracked.state.commits, len(told)) == (tracked.commits, tracked.reports)
        assert offsets_of(tracked.state.record) == tracked.stored

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iggyflux.runner.settled_ledger.emit", lambda _log, _level, event, **_: told.append(event))
        asyncio.run(main())
    assert set(told) <= {"ledger.unusable"}


def offsets_of(record: Any) -> set[int]:
    found = SettledOffsets.of(record)
    return {at for at in range(99) if found.claims(Position(HERE, at))}


def test_a_mistake_in_the_ledger_stops_the_route() -> None:
    class Broken(Kept):
        def commit(self, record: object, **_: Any) -> None:
            raise ZeroDivisionError

    async def main() -> None:
        ledger = SettledLedger("r", OnError.SKIP, Broken())  # type: ignore[arg-type]
        await ledger.connect()
        ledger.note([(HERE, ("p", Interval(1, 1)))])
        ledger.write(2.0)
        assert ledger._writing is not None
        await asyncio.wait({ledger._writing})
        with pytest.raises(ZeroDivisionError):
            ledger.write(3.0)

    asyncio.run(main())


def test_what_could_not_be_written_while_the_run_ended_is_written_once_more() -> None:
    gate, loops = threading.Event(), list[asyncio.AbstractEventLoop]()

    class Slow(Kept):
        tried = 0

        def commit(self, record: object, **_: Any) -> None:
            self.tried += 1
            if self.tried == 1:
                loops[0].call_soon_threadsafe(loops[0].call_later, 0.02, gate.set)
                assert gate.wait(60)
                raise Stopped("locked")
            super().commit(record)

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        ledger = SettledLedger("r", OnError.SKIP, state)  # type: ignore[arg-type]
        await ledger.connect()
        ledger.note([(HERE, ("p", Interval(1, 1)))])
        ledger.write(2.0)
        await asyncio.sleep(0)
        await ledger.close()

    state = Slow()
    asyncio.run(main())

    assert offsets_of(state.record) == {1}


KINDS = st.lists(
    st.tuples(st.sampled_from(["lines", "failed", "skipped", "empty"]), st.lists(st.booleans(), max_size=3)), min_size=1
)


@given(KINDS, st.booleans())
def test_what_is_noted_of_a_batch_is_what_became_of_each_message(
    drawn: list[tuple[str, list[bool]]], drops: bool
) -> None:
    """A message fails as a whole, or some of its lines are refused (true)."""
    lines = [(at, refused) for at, (kind, each) in enumerate(drawn) if kind in ("lines", "failed") for refused in each]
    rendered = Rendered(
        [f"m n={at}" for at, _ in lines],
        [at for at, _ in lines],
        [Failure(at, None, 0, "IFX301", "", "odd") for at, (kind, _) in enumerate(drawn) if kind == "failed"],
        [at for at, (kind, _) in enumerate(drawn) if kind == "skipped"],
        [at for at, (kind, _) in enumerate(drawn) if kind == "empty"],
    )
    messages = [Message(b"", "coast", "gauges", 3, 2 * at) for at in range(len(drawn))]
    refusals = [Refusal(line, "no", 400) for line, (_, refused) in enumerate(lines) if refused]
    job = Job(Batch(HERE, messages), rendered, 0, refusals)

    async def main() -> Sequence[tuple[str, Interval]]:
        ledger = SettledLedger("r", OnError.SKIP if drops else OnError.DEAD_LETTER, Kept())  # type: ignore[arg-type]
        ledger._worker = WithoutThread()  # type: ignore[assignment]
        await ledger.connect()
        return ledger.intervals_of(job, "slate")

    expected = []
    for at, (kind, refused) in enumerate(drawn):
        has_lines = kind in ("lines", "failed")
        fails = kind == "failed" or (has_lines and any(refused))
        counts = (refused.count(False) if has_lines else 0, fails and not drops, fails and drops, not has_lines)
        expected.append(("slate", Interval(2 * at, 2 * at, *map(int, counts))))
    assert asyncio.run(main()) == expected


def test_what_was_settled_last_is_written_though_nothing_follows(tmp_path: Path) -> None:
    class Source(ScriptedSource):
        async def read(self) -> Batch | None:
            try:
                return await super().read()
            except EndOfInput:
                while await asyncio.to_thread(settled_in, tmp_path) != [(0, 2)]:  # the test ends by its own limit
                    await asyncio.sleep(0.01)
                raise

    with closing(ledger_state(tmp_path, "r")) as state:
        state.take()
        state.commit(SettledOffsets().record())
    tried = Tried(Source([batch([b"1"], offset=offset) for offset in range(3)]), [])
    route = dataclasses.replace(tried.route, ledger=ledger_in(tmp_path))
    tried.writer = WriterRun(route, tried.status, tried.stop, SystemClock())
    tried.run()


@pytest.mark.parametrize("is_replaced", [True, False])
def test_offsets_that_are_used_again_are_not_claimed_before_they_are_settled(tmp_path: Path, is_replaced: bool) -> None:
    """The log was replaced, or its messages are read again."""

    class Source(ScriptedSource):
        async def replaced(self, read: Mapping[Partition, tuple[int, int]]) -> list[Partition]:
            compared.update(read)
            return list(read) if is_replaced else []

    compared = dict[Partition, tuple[int, int]]()

    def run(first: int, steps: Sequence[Any] = ()) -> None:
        source = Source([batch([b"1"], offset=offset) for offset in range(first, first + 3)])
        tried = Tried(source, steps)
        route = dataclasses.replace(tried.route, ledger=ledger)
        tried.writer = WriterRun(route, tried.status, tried.stop, tried.clock)
        tried.run()

    def claimed() -> set[int]:
        assert ledger._settled is not None
        return {at for at in range(20) if ledger._settled.claims(Position(Partition("s", "t", 0), at))}

    async def look(_: Sequence[str]) -> Verdict:
        seen.append(claimed())
        return Accepted()

    seen: list[set[int]] = []
    with closing(ledger_state(tmp_path, "r")) as state:
        state.take()
        before = SettledOffsets()
        before.add(Partition("s", "t", 0), "elder", Interval(0, 7, points=8, last_us=17))
        state.commit(before.record())
    ledger = ledger_in(tmp_path)
    run(5, [look])
    assert compared == {Partition("s", "t", 0): (7, 17)}
    assert seen == [set() if is_replaced else set(range(5))]
    assert settled_in(tmp_path) == ([(5, 7)] if is_replaced else [(0, 4), (5, 7)])
