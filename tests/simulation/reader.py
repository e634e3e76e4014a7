"""A reader in the world: the points that it reads, its state, and what must hold of its messages.

| looked at         | what must hold                                                                           |
|-------------------|------------------------------------------------------------------------------------------|
| a message is sent | it is what a row that is or was stored becomes, and that has settled; equal rows have    |
|                   | equal ids                                                                                |
| the end           | the last value of each point was sent, also one that the point has again since the       |
|                   | server lost the value that was sent; not if only a process that vanished before it       |
|                   | stored its position knew that the lost value was sent                                    |
"""

from __future__ import annotations

import copy
import json
import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

from iggyflux.cursors import CursorStore
from iggyflux.delivery.settled import SettledOffsets
from iggyflux.delivery.windows import WindowRules
from iggyflux.errors import Stopped
from iggyflux.mapping import ReaderMapping, parse_mapping
from iggyflux.plan import compile_plan
from iggyflux.records import Partition, Position
from iggyflux.runner.route import ReaderPlan
from iggyflux.runner.settled_ledger import SettledLedger
from iggyflux.state.store import NOTHING
from tests.simulation.influxdb import Written
from tests.simulation.loop import Process, current_process, pause, vanish
from tests.simulation.scenario import ReaderSpec

S = 1_000_000_000
OUT = "out"
"""The topic of the reader's messages."""
NAME = "global"

MAPPING = """\
iggyflux: 1
kind: reader
name: global
from: {measurement: sensor}
messages: {payload: "{d: where, v: value, t: time}", key: where}
to: {stream: s, topic: out}
"""


@lru_cache(maxsize=1)
def reader_mapping() -> ReaderMapping:
    """Return the mapping of the reader."""
    found = parse_mapping(MAPPING)
    assert isinstance(found, ReaderMapping)
    return found


def reader_plan() -> ReaderPlan:
    """Return its plan, compiled for each process: ids must not depend on the process."""
    return compile_plan(reader_mapping().reader)


def rules_of(spec: ReaderSpec) -> WindowRules:
    """Return the rules of a reader."""
    return WindowRules(
        start="beginning",
        settle=int(spec.settle * S),
        overlap=int(spec.overlap * S),
        window=int(spec.window * S),
        poll_seconds=spec.poll,
        rows_per_second=spec.rate,
    )


class State:
    """A `StateStore` that survives its processes: a commit is durable when it returns, and may be when it does not."""

    place = "the state of the world"

    def __init__(self) -> None:
        self.record: object = None
        self.blobs: dict[int, bytes] = {}
        self.owner: Process | None = None
        self.commits = 0
        self.is_broken = False
        self.dies_at: tuple[Process, bool] | None = None
        """A process that vanishes at its next commit, before or after it."""

    def take(self) -> None:
        """As `StateStore.take`; the lock of a process that vanished is free."""
        process = current_process()
        if self.owner is not None and self.owner is not process and self.owner.is_alive:
            raise Stopped("another process has the state", "stop it", "IFX702")
        self.owner = process

    def read(self) -> Any:
        """As `StateStore.read`."""
        return copy.deepcopy(self.record)

    def blob(self, number: int) -> Iterator[bytes]:
        """As `StateStore.blob`."""
        yield self.blobs[number]

    def commit(
        self, record: object, *, added: Mapping[int, IO[bytes]] = NOTHING, dropped: Collection[int] = ()
    ) -> None:
        """As `StateStore.commit`."""
        pause(0.001)
        if self.is_broken:
            raise Stopped("cannot store the position: the disk is full", "free space", "IFX700")
        self._die(is_after=False)
        self.commits += 1
        self.record = copy.deepcopy(record)
        for number in dropped:
            self.blobs.pop(number, None)
        for number, file in added.items():
            file.seek(0)
            self.blobs[number] = file.read()
        self._die(is_after=True)

    def replace(self, record: object | None) -> None:
        """As `StateStore.replace`."""
        self.record, self.blobs = copy.deepcopy(record), {}

    def close(self) -> None:
        """As `StateStore.close`."""
        if self.owner is current_process():
            self.owner = None

    def _die(self, *, is_after: bool) -> None:
        if self.dies_at == (current_process(), is_after):
            self.dies_at = None
            vanish()


class ReaderState(State):
    """The state of the reader, which tells the truth what a process knows of what was sent."""

    def __init__(self, truth: ReaderTruth) -> None:
        super().__init__()
        self._truth = truth

    def take(self) -> None:
        """As `State.take`."""
        is_new = self.owner is not current_process()
        super().take()
        if is_new:
            self._truth.forget()

    def commit(
        self, record: object, *, added: Mapping[int, IO[bytes]] = NOTHING, dropped: Collection[int] = ()
    ) -> None:
        """As `State.commit`."""
        super().commit(record, added=added, dropped=dropped)
        self._truth.remember()


class LedgerState(State):
    """The state of a ledger, on the disk of another; `claimed` gets the offsets that a commit claims first.

    Offsets that the server lost are claimed anew from the next time on that the route is connected.
    """

    def __init__(self, beside: State, claimed: Callable[[Iterable[Position]], None]) -> None:
        super().__init__()
        self._beside = beside
        self._claimed = claimed
        self._known: set[Position] = set()
        self._lasts: dict[tuple[Partition, int], int] = {}
        self._lost: dict[Partition, int] = {}
        """Where partitions ended that lost messages."""

    def lose(self, place: Partition, end: int) -> None:
        """The server lost the messages from `end` on."""
        self._lost[place] = min(end, self._lost.get(place, end))

    def compared(self, settled: SettledOffsets) -> None:
        """The route is connected: it claims no message that came since."""
        self._claimed(filter(self._is_lost, _offsets(settled)))
        self._known = {each for each in self._known if not self._is_lost(each)}
        self._lasts = {key: last for key, last in self._lasts.items() if key[0] not in self._lost}
        self._lost.clear()

    def _is_lost(self, position: Position) -> bool:
        """Whether the server lost the message since the route was connected."""
        end = self._lost.get(position.partition)
        return end is not None and position.offset >= end

    def commit(
        self, record: object, *, added: Mapping[int, IO[bytes]] = NOTHING, dropped: Collection[int] = ()
    ) -> None:
        """As `State.commit`."""
        new: list[Position] = []
        for (place, _), intervals in SettledOffsets.of(record).intervals().items():
            for each in intervals:
                since = self._lasts.get((place, each.first), each.first - 1) + 1
                new += (Position(place, offset) for offset in range(since, each.last + 1))
                self._lasts[place, each.first] = each.last
        self._claimed([each for each in new if each not in self._known and not self._is_lost(each)])
        self._known.update(new)
        self.is_broken = self._beside.is_broken
        super().commit(record, added=added, dropped=dropped)


class WatchedLedger(SettledLedger):
    """The real ledger, which tells its state when it was compared with the log."""

    async def _forget_replaced(self, settled: SettledOffsets) -> None:
        await super()._forget_replaced(settled)
        if self._source is not None:
            self._store.compared(settled)  # type: ignore[attr-defined]


def _offsets(settled: SettledOffsets) -> Iterator[Position]:
    for (place, _), intervals in settled.intervals().items():
        yield from (Position(place, at) for each in intervals for at in range(each.first, each.last + 1))


def cursor_of(state: State) -> CursorStore:
    """Return the cursor of the reader."""
    return CursorStore(state, NAME, {"measurement": "sensor"})


Place = tuple[str, int]
"""Series and time of a point."""
Row = tuple[str, int, int]
"""Series, time and value."""


def _values_of(writes: Iterable[Written]) -> dict[Place, int]:
    """Return the last value of each of the reader's points."""
    return {
        (dict(series.tags)[b"where"].decode(), time): fields[b"value"]  # type: ignore[misc]
        for each in writes
        for series, time, fields in each.rows
        if series.measurement.name == b"sensor"
    }


class ReaderTruth:
    """The points of the reader's measurement, and the messages that were made of them."""

    def __init__(
        self,
        chance: random.Random,
        now_ns: Callable[[], int],
        latest_ns: Callable[[], int],
        spec: ReaderSpec | None,
        wrong: list[str],
    ) -> None:
        """`now_ns` is the clock of those who write points; `latest_ns` the latest time of the server's until now."""
        self.chance = chance
        self.now_ns = now_ns
        self.latest_ns = latest_ns
        self.settle_ns = int(spec.settle * S) if spec else 0
        self.late_ns = int(spec.overlap * 0.6 * S) if spec else 0
        """How late a row may be that must be sent."""
        self.wrong = wrong
        self.rows: dict[Row, None] = {}
        self.unsent: dict[Place, int] = {}
        """The last value of each point that was not sent yet."""
        self._values: dict[Place, int] = {}
        self._restored: set[Place] = set()
        """The points that have a former value again."""
        self._sent: dict[Place, int] = {}
        """The value of each point that was sent last."""
        self._passing: set[Place] = set()
        """The points that were sent since the reader stored its position."""
        self._forgotten: set[Place] = set()
        """Those that the process before this one had sent when it vanished, and this one did not send."""
        self._latest: deque[Place] = deque(maxlen=20)
        self.ids: dict[Row, int] = {}
        self._number = 0

    def history(self, count: int, seconds: float) -> list[str]:
        """Return lines of the time before the start."""
        lines = []
        for _ in range(count):
            place = f"r{self.chance.randrange(4)}", self.now_ns() - int(self.chance.uniform(60, seconds) * S)
            lines.append(self._write(place))
            self.unsent[place] = self._number
        return lines

    def points(self, count: int) -> list[str]:
        """Return lines to write now: new points, late ones, and values that change."""
        lines = []
        for _ in range(count):
            now = self.now_ns()
            late = self.chance.choice((0, 0, S, self.late_ns))
            place = f"r{self.chance.randrange(4)}", now - int(late * self.chance.random())
            near = [each for each in self._latest if each[1] > now - self.late_ns]
            if near and self.chance.random() < 0.2:
                place = self.chance.choice(near)
            self._latest.append(place)
            lines.append(self._write(place))
            self._demand(place)
        return lines

    def _write(self, place: Place) -> str:
        self._number += 1
        self.rows[(*place, self._number)] = None
        self._values[place] = self._number
        return f"sensor,where={place[0]} value={self._number}i {place[1]}"

    def _demand(self, place: Place) -> None:
        """Expect that the value of a point is sent, unless the server's clock was too far ahead."""
        if place[1] > self.latest_ns() - self.late_ns:
            self.unsent[place] = self._values[place]
        else:
            self.unsent.pop(place, None)

    def lose_points(self, lost: Iterable[Written], left: Iterable[Written]) -> None:
        """The server lost writes: some points have a former value again."""
        places = _values_of(lost).keys()
        values = _values_of(left) if places else {}
        for place in places:
            self._restored.add(place)
            self.unsent.pop(place, None)
            if place not in values:
                self._values.pop(place, None)
                continue
            self._values[place] = values[place]
            if self._sent.get(place) != values[place] and place not in self._forgotten:
                self._demand(place)

    def remember(self) -> None:
        """The reader stored its position, and with it what it sent."""
        self._forgotten -= self._passing
        self._passing.clear()

    def forget(self) -> None:
        """Another process reads: what was sent since the position was stored is not known to it."""
        for place in self._passing & self._restored:
            self.unsent.pop(place, None)
        self._forgotten |= self._passing
        self._passing.clear()

    def received(self, payload: bytes, number: int) -> None:
        """Check a message of the reader."""
        tree = json.loads(payload)
        place, value = (tree["d"], tree["t"]), tree["v"]
        row = (*place, value)
        if row not in self.rows:
            self.wrong.append(f"the reader sent {payload!r}, which no row becomes")
            return
        if place[1] > (until := self.latest_ns() - self.settle_ns):
            self.wrong.append(f"the reader sent {payload!r}, {(place[1] - until) / S:.3f} s before it had settled")
        if self.ids.setdefault(row, number) != number:
            self.wrong.append(f"the reader sent {payload!r} with the ids {self.ids[row]} and {number}")
        self._sent[place] = value
        self._passing.add(place)
        if self._values.get(place) == value:
            self.unsent.pop(place, None)
        elif place in self._restored and place in self._values:
            self._demand(place)

    def missing(self) -> list[Row]:
        """Return the points whose last value was not sent."""
        return [(series, time, value) for (series, time), value in self.unsent.items()]


@dataclass(frozen=True)
class OutgoingBytes:
    """What `sdk.SendMessage` holds: its own does not tell."""

    payload: bytes
    headers: object
    number: int | None


@dataclass(frozen=True)
class Confirmation:
    """The partition that the server has confirmed."""

    partition_id: int


@dataclass(frozen=True)
class Confirmed:
    """The answer to a batch."""

    confirmations: Sequence[Confirmation]
