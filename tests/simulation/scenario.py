"""What a seed draws: topology, configuration, load, and a schedule of faults.

Each event has randomness of its own, so that removing one event from the schedule changes no other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

FAULTS: dict[str, tuple[str, float]] = {
    "iggy dies": ("kill -9: all connections end, members stay as ghosts", 8.0),
    "iggy stops": ("an orderly stop: all connections end, members leave", 8.0),
    "iggy hangs": ("no call is answered", 20.0),
    "iggy is slow": ("each call takes 100 times as long", 20.0),
    "iggy is flaky": ("some calls end their connection", 10.0),
    "iggy loses a tail": ("kill -9, and the last messages are gone; their offsets are used again", 5.0),
    "a connection ends": ("one connection to Iggy ends", 0.0),
    "a member is a ghost": ("one connection ends, and the server keeps its member", 0.0),
    "influxdb dies": ("every connection breaks, nothing listens", 15.0),
    "influxdb loses its last points": ("kill -9, and the last points are gone, also those that it acknowledged", 5.0),
    "influxdb hangs": ("nothing is answered", 25.0),
    "influxdb is slow": ("each way takes half a second", 20.0),
    "influxdb answers badly": ("some rows of the answer table", 5.0),
    "another product answers": ("404 as HTML", 3.0),
    "the disk is full": ("ENOSPC", 6.0),
    "the disk is read-only": ("EROFS", 6.0),
    "the letters are removed": ("somebody removes the folder of dead letters", 0.0),
    "a process dies": ("kill -9 between two steps", 0.0),
    "a process dies at a file": ("kill -9 before or after a call that changes a file", 0.0),
    "the machine crashes": ("all processes die, and what was not synced may be lost", 0.0),
    "a process dies at a commit": ("kill -9 before or after the reader stores its position", 0.0),
    "a process is stopped": ("SIGTERM, and a new start", 0.0),
    "all is stopped": ("InfluxDB is stopped, and a process later: SIGTERM, and a new start", 30.0),
    "a process is frozen": ("SIGSTOP, and SIGCONT later", 25.0),
    "a process dies at a message": ("kill -9 before or after the reader sends messages", 0.0),
    "the clock jumps": ("the wall clock, by up to an hour", 0.0),
    "the clock of influxdb jumps": ("by seconds or hours, until somebody corrects it", 30.0),
    "the clock of iggy jumps": ("by seconds or hours, until somebody corrects it", 30.0),
}
"""Each kind of fault: what happens, and for how many seconds on average."""

CHANGES: dict[str, tuple[str, float]] = {
    "the documents change": ("another good version, and SIGHUP, or the processes watch", 0.0),
    "the documents are broken": ("a version whose examples fail, for so long", 10.0),
}
"""What happens to mapping documents; drawn apart, so that it changes no other draw."""

ConsumerKind = Literal["single", "group", "exclusive"]


@dataclass(frozen=True)
class RouteSpec:
    """A writer's route."""

    name: str
    topics: tuple[str, ...]
    kind: ConsumerKind
    on_error: Literal["dead_letter", "skip"]
    has_buckets: bool = False
    """Whether its messages choose their bucket."""

    @property
    def consumer(self) -> Literal["single", "group"]:
        """The kind of its consumer."""
        return "single" if self.kind == "single" else "group"


@dataclass(frozen=True)
class ReaderSpec:
    """How a reader goes through time, in seconds; `history` points are there before, `rate` rows a second are read."""

    settle: float
    overlap: float
    window: float
    poll: float
    page_size: int
    history: int
    rate: float | None


@dataclass(frozen=True)
class Event:
    """A fault that begins at a time; `seed` is its own randomness."""

    at: float
    kind: str
    seconds: float
    seed: int

    def __str__(self) -> str:
        return f"{self.at:9.3f} s  {self.kind}" + (f", for {self.seconds:.1f} s" if self.seconds else "")


@dataclass(frozen=True)
class Scenario:
    """One world."""

    seed: int
    dialect: int
    is_strict: bool
    """Whether InfluxDB 3 is asked to store nothing of a request of which it rejects a line."""
    retention_hours: int | None
    """After how many hours InfluxDB deletes points."""
    most_bytes: int | None
    """The largest request that InfluxDB accepts; the line of a large message is larger."""
    over_http: bool
    """Whether Iggy is spoken to over HTTP, which has no groups."""
    topics: tuple[str, ...]
    partitions: int
    routes: tuple[RouteSpec, ...]
    processes: int
    seconds: float
    messages: int
    batch_size: int
    batch_bytes: int
    poll_size: int
    linger_seconds: float
    timeout_seconds: float
    iggy_timeout_seconds: float
    retry_backoff_seconds: float
    max_backoff_seconds: float
    max_in_flight: int | None
    poll_interval_seconds: float
    tick_seconds: float
    reader: ReaderSpec | None
    events: tuple[Event, ...] = field(repr=False)
    dead_until: float | None = None
    """Points choose their bucket, and one bucket is missing until then; None if all points go to one."""
    watches: bool = False
    """Whether processes watch the documents, or are sent a signal."""
    settle_seconds: float = 30.0
    """How long a route waits for what is in flight before it takes a change."""


@dataclass(frozen=True)
class Size:
    """How large a world is: its simulated time, its messages, its faults, and crashes beside these.

    Polls of a partition without messages, and reads without rows, are most steps of a world: the longer it is, the
    longer their intervals.
    """

    seconds: float
    messages: int
    faults: int
    crashes: int = 0
    polls: tuple[float, ...] = (0.05, 0.5, 1.0, 2.0)
    reads: tuple[float, ...] = (1.0, 5.0)
    has_buckets: bool = False
    """Whether points choose their bucket; one of the buckets is missing at first, and faults begin when it is there."""


SIZES = {
    "short": Size(60, 80, 4),
    "buckets": Size(60, 80, 4, has_buckets=True),
    "usual": Size(300, 400, 8, polls=(0.2, 0.5, 1.0, 2.0)),
    "hour": Size(3600, 10_000, 20, 4, polls=(1.0, 2.0, 5.0), reads=(5.0, 20.0)),
}
_CRASHES = ("a process dies", "a process dies at a file", "the machine crashes")


def draw(seed: int, size: Size) -> Scenario:
    """Return the scenario of a seed."""
    seconds = size.seconds
    chance = random.Random(seed)
    topics = ("while", "größe")[: chance.randint(1, 2)]
    specs = []
    over_http = chance.random() < 0.15
    for name in ("lambda", "yield", "import")[: chance.randint(1, 3)]:
        read = topics if chance.random() < 0.6 else (chance.choice(topics),)
        kind = "single" if over_http else chance.choice(("single", "group", "exclusive"))
        specs.append(RouteSpec(name, read, kind, "skip" if chance.random() < 0.2 else "dead_letter"))
    known = sorted(FAULTS)
    kinds = chance.sample(known, chance.randint(1, len(known)))
    reader = None
    if chance.random() < 0.4:
        reader = ReaderSpec(
            settle=chance.choice((1.0, 5.0)),
            overlap=chance.choice((10.0, 60.0)),
            window=chance.choice((20.0, 300.0)),
            poll=chance.choice(size.reads),
            page_size=chance.choice((3, 50, 5000)),
            history=chance.choice((0, 100, 300)),
            rate=chance.choice((None, 1.0, 3.0)),
        )
    events = []
    for number in range(size.faults + size.crashes):
        kind = chance.choice(kinds if number < size.faults else _CRASHES)
        mean = FAULTS[kind][1]
        length = chance.expovariate(1 / mean) if mean else 0.0
        at = chance.uniform(0, 10 if chance.random() < 0.2 else seconds)
        events.append(Event(round(at, 3), kind, round(min(length, 90.0), 3), chance.getrandbits(32)))
    scenario = Scenario(
        seed=seed,
        dialect=chance.choice((1, 2, 2, 3)),
        is_strict=chance.random() < 0.5,
        retention_hours=chance.choice((None, None, 2)),
        most_bytes=chance.choice((None, None, 3000)),
        over_http=over_http,
        topics=topics,
        partitions=chance.randint(1, 4),
        routes=tuple(specs),
        processes=chance.choice((1, 1, 2, 3)),
        seconds=seconds,
        messages=size.messages,
        batch_size=chance.choice((7, 40, 1000)),
        batch_bytes=chance.choice((500, 10_000_000)),
        poll_size=chance.choice((5, 50, 1000)),
        linger_seconds=chance.choice((0.02, 0.2, 1.0)),
        timeout_seconds=chance.choice((2.0, 10.0, 30.0)),
        iggy_timeout_seconds=chance.choice((2.0, 10.0)),
        retry_backoff_seconds=chance.choice((0.2, 1.0)),
        max_backoff_seconds=chance.choice((2.0, 30.0, 60.0)),
        max_in_flight=chance.choice((None, 1, 2, 8)),
        poll_interval_seconds=chance.choice(size.polls),
        tick_seconds=chance.choice((1.0, 5.0, 5.0)),
        reader=reader,
        events=tuple(sorted([*events, *_changes(seed, seconds, events)], key=lambda event: event.at)),
        watches=seed % 2 == 0,
        settle_seconds=1.0 if seed % 3 else 30.0,
    )
    return _with_buckets(scenario, chance) if size.has_buckets else scenario


def _with_buckets(scenario: Scenario, chance: random.Random) -> Scenario:
    """Return a scenario in which a bucket is missing for some time, without another fault until it is there."""
    until = chance.uniform(0.3, 0.8) * scenario.seconds
    later = 1 - until / scenario.seconds
    events = tuple(replace(event, at=round(until + 1 + event.at * later, 3)) for event in scenario.events)
    dialect = scenario.dialect if scenario.dialect != 3 else 2  # 3.x makes a database that is missing
    routes = tuple(replace(route, has_buckets=True) for route in scenario.routes)
    return replace(scenario, dialect=dialect, routes=routes, dead_until=round(until, 3), events=events)


def _changes(seed: int, seconds: float, faults: Sequence[Event]) -> Iterator[Event]:
    """Yield changes of the documents: none in every third world, in others up to four, half of them within a fault."""
    chance = random.Random(f"changes {seed}")
    for _ in range(0 if chance.random() < 1 / 3 else chance.randint(1, 4)):
        kind = chance.choice(sorted(CHANGES))
        mean = CHANGES[kind][1]
        length = round(min(chance.expovariate(1 / mean), 60.0), 3) if mean else 0.0
        fault = chance.choice(faults)
        within = fault.at + chance.uniform(0, fault.seconds + 1.0)
        at = within if chance.random() < 0.5 else chance.uniform(0, seconds)
        yield Event(round(at, 3), kind, length, chance.getrandbits(32))
