"""Both ends misbehave: a run of several routes between a fake Iggy and a simulated InfluxDB, under faults of a seed.

One process: the real routes, the SDK's client as `fake_iggy_groups` imitates it, and the simulator over real HTTP, on a
clock that runs 20 times as fast.  Three routes, three topics, 1 to 4 partitions; a group that is exclusive, one that is
not, and a single consumer.  A seed draws steps; each appends messages and has one fault of either end, or of both:

| fault of Iggy    | what the server does                    | what must hold, beside what always holds              |
|------------------|-----------------------------------------|-------------------------------------------------------|
| `kill`           | away for a while; then ghosts own       | `reconnects` grows; an exclusive group is rebuilt,    |
|                  | the partitions of groups                | another one names the partitions of ghosts            |
| `stop`           | away for a while                        | `reconnects` grows                                    |
| `drop`           | ends the connection of one route        | the same, for this route                              |
| `ghost`          | the same, and keeps its member          | as `drop`, and as `kill`                              |
| `hang`           | answers nothing, longer than `timeout`  | each route waits for something, by its status         |
| `slow`           | answers nothing, shorter than `timeout` | `reconnects` does not grow                            |
| `break a call`   | ends the connection before a call       | `reconnects` grows                                    |
| `lose an answer` | ends the connection after a call        | the same                                              |
| `lose a tail`    | restarts without the last messages; new | what the log has is delivered, though its offsets     |
|                  | ones, more or fewer, get their offsets  | were acknowledged before                              |
| `forget offsets` | the same; each stored offset becomes 0  | the same                                              |
| `purge`          | empties a topic, while nothing is in    | the same                                              |
|                  | flight; offsets begin at 0 again        |                                                       |
| `create again`   | deletes a topic, creates it later       | the same                                              |

| fault of InfluxDB | what the server does                   | what must hold, beside what always holds              |
|-------------------|----------------------------------------|-------------------------------------------------------|
| `answers`         | some rows of `fault_rows.PASSING`     | `reconnects` does not grow                            |
| `down`            | breaks every connection                | each route waits for something, by its status; `lag`  |
|                   |                                        | is what is not settled, where the route is connected  |
| `mute`            | answers no write in time               | the same                                              |

What always holds.  Whenever an offset is stored: each message up to it is stored as points, kept as a dead letter,
omitted by `where`, or counted by `on_error: skip`.  In the end: the same for each message in the log; there are no
other lines than those of messages that were polled; every offset is stored.  And the status of each route is right:

| in the status           | what the harness knows                                                             |
|-------------------------|------------------------------------------------------------------------------------|
| `read`                  | what its consumer polled                                                           |
| `points`                | the lines of these messages                                                        |
| `delivered` + `refused` | the same                                                                           |
| `failed`, `skipped`     | those of these messages that cannot be mapped, that `where` omits                  |
| `dropped`               | those that cannot be delivered, with `on_error: skip`; else 0                      |
| `dead_letters`          | the letters that were kept, exactly                                                |
| `acknowledged`          | the messages that its stored offsets passed                                        |
| `lag`                   | 0 in each partition                                                                |
| `reconnects`            | more than 0 if a connection of this route to Iggy broke, else 0                    |
| `waiting_for`, `error`  | None                                                                               |
| `groups`                | the partitions that the server assigned                                            |

What Prometheus calls a counter never goes down meanwhile.

These are exact where no connection to Iggy broke.  Else what was polled is an upper bound, and what is settled a lower
one: messages are polled again, and a connection may break between a call and its count.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from iggyflux.pipeline import load_pipeline
from iggyflux.records import Partition
from iggyflux.runner import Route, RouteStatus, Status, Stop, Summary, run_routes
from iggyflux.runner.open import open_writers
from iggyflux.sim import Fault, SimServer, export
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from iggyflux.transports.iggy.source import IggySource
from iggyflux.transports.local.memory import CollectingDeadLetters
from tests.fault_rows import PASSING
from tests.metrics_watch import Watch
from tests.transports.fake_iggy_groups import STREAM, FakeClient, FakeGroups, Polled

SPEED = 20.0
SECONDS = 20.0
"""The real time after which something that must happen has not happened."""
FIRST_MS = 1_700_000_000_000
TIMEOUT_SECONDS = 1.0
LOOK_SECONDS = 8.0
"""The time of the clock in which a route looks at its topics once, with some to spare."""


@dataclass(frozen=True)
class Spec:
    """A route of the run."""

    name: str
    topics: tuple[str, ...]
    consumer: str
    on_error: str = "dead_letter"

    @property
    def is_group(self) -> bool:
        return "group" in self.consumer

    @property
    def is_exclusive(self) -> bool:
        return "exclusive" in self.consumer


ROUTES = (
    Spec("lambda", ("while",), "{group: lambda, exclusive: true}"),
    Spec("yield", ("größe", "None"), "{group: yield}"),
    Spec("import", ("while",), "{single: import}", "skip"),
)
TOPICS = ("while", "größe", "None")
MAPPING = """\
iggyflux: 1
kind: writer
name: {name}
from: {{stream: s, topic: {topics}, payload: json}}
where: what != 'other'
on_error: {on_error}
points:
  - measurement: what
    tags: {{by: {{const: {name}}}, is: is}}
    fields: {{n: {{expr: n, type: integer}}, warmth: warmth}}
    timestamp: {{expr: at, format: unix_ms}}
  - measurement: {{const: twice}}
    where: twice
    tags: {{by: {{const: {name}}}}}
    fields: {{n: {{expr: n, type: integer}}}}
    timestamp: {{expr: at, format: unix_ms}}
"""
PIPELINE = """\
iggyflux: 1
iggy: {{address: "127.0.0.1:1", username: u, password: p, timeout: {timeout}ms, poll_interval: 5ms, batch_size: 15}}
influxdb:
  url: {url}
  bucket: test
  org: org
  batch_size: {batch_size}
  linger: 20ms
  timeout: 200ms
  retry_backoff: 200ms
  max_retry_backoff: 2s
run:
{items}
"""


# --- The messages, and what must become of them ---


def is_bad(number: int) -> bool:
    """The mapping cannot read its number."""
    return number % 41 == 7


def is_odd(number: int) -> bool:
    """The server has its field with another type."""
    return number % 53 == 11


def is_other(number: int) -> bool:
    """The mapping omits it."""
    return number % 13 == 5 and not is_bad(number) and not is_odd(number)


def is_twice(number: int) -> bool:
    return number % 5 == 0


def payload(number: int) -> bytes:
    tree = {
        "what": "odd" if is_odd(number) else "other" if is_other(number) else "env",
        "is": f"d{number % 7}",
        "n": number,
        "warmth": "warm" if is_bad(number) else number % 40 + 0.5,
        "twice": is_twice(number) and not is_bad(number) and not is_odd(number),
        "at": FIRST_MS + number,
    }
    return json.dumps(tree).encode()


def lines(number: int, route: str) -> list[str]:
    """Return the stored points of a message, as the simulator dumps them."""
    if is_bad(number) or is_odd(number) or is_other(number):
        return []
    at = f"{FIRST_MS + number}000000"
    found = [f"env,by={route},is=d{number % 7} n={number}i,warmth={number % 40 + 0.5} {at}"]
    return [*found, f"twice,by={route} n={number}i {at}"] if is_twice(number) else found


class FastClock:
    """The time of this machine, faster."""

    def monotonic(self) -> float:
        return time.monotonic() * SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


# --- The world ---


@dataclass
class Known:
    """What the harness knows of a route."""

    spec: Spec
    letters: CollectingDeadLetters = field(default_factory=CollectingDeadLetters)
    polled: Counter[int] = field(default_factory=Counter)
    settled: set[int] = field(default_factory=set)
    passed: int = 0
    """How many messages its stored offsets have passed."""
    breaks: int = 0
    """How often its connection to Iggy broke."""
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    """The last stored offset by topic and partition."""
    clients: list[FakeClient] = field(default_factory=list)

    @property
    def kept(self) -> dict[int, str]:
        """The numbers of the messages that are dead letters, with their first reason."""
        return {json.loads(each.message.payload)["n"]: each.reasons[0].reason for each in self.letters.letters}


class World:
    """Both servers, the messages, and the routes between them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = FastClock()
        self.sim = SimServer(2)
        self.server = FakeGroups(self.chance.randint(1, 4), topics=TOPICS)
        self.server.on_poll, self.server.on_store = self.polled, self.stored
        self.known = {spec.name: Known(spec) for spec in ROUTES}
        self.numbers: dict[int, int] = {}
        """The number of each message by its time of arrival, which no two share."""
        self.faults: list[str] = []
        self.reused: set[Partition] = set()
        """The partitions that lost messages whose offsets are used again."""
        self.folder = folder
        self.status, self.stop, self.metrics = Status(), Stop(), Watch()
        self.wrong: list[str] = []
        self.is_away = self.maybe_broke = False

    def routes(self) -> list[Route]:
        for spec in ROUTES:
            words = {"name": spec.name, "topics": json.dumps(spec.topics), "on_error": spec.on_error}
            (self.folder / f"{spec.name}.yaml").write_text(MAPPING.format(**words), encoding="utf-8")
        items = "\n".join(f"  - {{mapping: {spec.name}.yaml, consumer: {spec.consumer}}}" for spec in ROUTES)
        batch_size, timeout = self.chance.choice((7, 40, 1000)), round(TIMEOUT_SECONDS * 1000)
        text = PIPELINE.format(url=self.sim.url, items=items, batch_size=batch_size, timeout=timeout)
        (self.folder / "p.yaml").write_text(text, encoding="utf-8")
        routes = open_writers(load_pipeline(self.folder / "p.yaml"))
        return [self.connected(route) for route in routes]

    def connected(self, route: Route) -> Route:
        """Return the route with the fake server and with dead letters in memory."""
        known, source = self.known[route.name], route.source
        assert isinstance(source, IggySource)

        def client(_: object) -> FakeClient:
            known.clients.append(client := FakeClient(self.server))
            return client

        fake = IggySource(
            source.settings,
            STREAM,
            known.spec.topics,
            consumer=source.consumer,
            exclusive=known.spec.is_exclusive,
            monotonic=self.clock.monotonic,
            connection=lambda settings: Connection(settings, client=client),
        )
        assert source.consumer == ConsumerId("group" if known.spec.is_group else "single", route.name)
        return replace(route, source=fake, dead_letters=known.letters)

    def write(self, line: str) -> None:
        """Write to InfluxDB without a route."""
        request = urllib.request.Request(f"{self.sim.url}/api/v2/write?org=org&bucket=test", line.encode())
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()

    # What the servers report

    def polled(self, consumer: str, _topic: str, _partition: int, messages: Sequence[Polled]) -> None:
        self.known[consumer].polled.update(self.numbers[each.timestamp()] for each in messages)

    def stored(self, consumer: str, topic: str, partition: int, offset: int) -> None:
        """Check that all messages up to a stored offset are settled."""
        known, place = self.known[consumer], self.server.topics[topic].partitions[partition]
        before, known.offsets[topic, partition] = known.offsets.get((topic, partition)), offset
        passed = {self.numbers[each["timestamp"]] for each in place.messages[: offset + 1]}
        new = passed - known.settled
        missing = {number for number in new if not self.is_settled(known, number)}
        is_reused = Partition(STREAM, topic, partition) in self.reused
        if missing and known.spec.is_exclusive and is_reused and offset in (before, 0):
            return  # a rebuilt group got its former offset, which is not trusted
        known.passed += len(new)
        if missing:
            self.wrong.append(f"{consumer} acknowledged {topic}/{partition} to {offset} without {sorted(missing)}")
        known.settled |= new

    def is_settled(self, known: Known, number: int) -> bool:
        if is_other(number) or number in known.kept:
            return True
        if is_bad(number) or is_odd(number):
            return known.spec.on_error == "skip"
        return set(lines(number, known.spec.name)) <= self.at(number)

    def at(self, number: int) -> set[str]:
        """Return the lines that InfluxDB has at the time of a message."""
        at = (FIRST_MS + number) * 10**6
        store = self.sim.store
        found = [point for each in export.measurements(store, "test") for point in store.scan(each, at, at + 1)]
        return set(map(export._line, found))

    # What the harness does

    def append(self, count: int, topic: str | None = None) -> None:
        for _ in range(count):
            chosen = topic or self.chance.choice(sorted(self.server.topics))
            partition = self.chance.choice(self.server.topics[chosen].numbers)
            number = len(self.numbers)
            self.numbers[self.server.clock_us + 1] = number
            self.server.append(chosen, partition, [payload(number)])

    def in_log(self, topics: Sequence[str]) -> set[int]:
        return {
            self.numbers[message["timestamp"]]
            for topic in topics
            for place in self.server.topics[topic].partitions
            for message in place.messages
        }

    def unsettled(self, spec: Spec) -> dict[Partition, int]:
        """Return the lag of a route by its stored offsets; what is stored beyond the end of a log is unsettled too."""
        found = {}
        for topic in set(spec.topics) & set(self.server.topics):
            for number, place in enumerate(self.server.topics[topic].partitions):
                group = self.server.topics[topic].groups.get(spec.name)
                stored = (group.stored if group else {}).get(number) if spec.is_group else place.offsets.get(spec.name)
                found[Partition(STREAM, topic, number)] = abs(
                    place.end - 1 - (-1 if stored is None else stored)
                ) * bool(place.end)
        return found

    def broke(self, clients: Sequence[FakeClient]) -> None:
        """Remember that connections broke: each of them belongs to a route."""
        for known in self.known.values():
            known.breaks += sum(client in known.clients for client in clients)

    def of(self, name: str) -> RouteStatus:
        return next(each for each in self.status.routes if each.name == name)

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, (
                what,
                self.faults,
                self.status.as_dict(),
                list(map(self.unsettled, ROUTES)),
            )
            assert not self.wrong, self.wrong
            await asyncio.sleep(0.01)

    # The faults of Iggy

    async def away(self, end: Callable[[], None], meanwhile: Callable[[], None] = lambda: None) -> None:
        """End all connections and be away for a while."""
        self.server.is_up = False
        self.broke(list(self.server.clients.values()))
        end()
        meanwhile()
        self.append(self.chance.randrange(30))
        await asyncio.sleep(self.chance.uniform(0.0, 0.2))
        self.server.is_up = True

    async def kill(self) -> None:
        await self.away(self.server.kill)

    async def orderly_stop(self) -> None:
        await self.away(self.server.stop)

    async def drop(self, end: Callable[[FakeClient], None] | None = None) -> None:
        if self.server.clients:
            client = self.chance.choice(list(self.server.clients.values()))
            self.broke([client])
            (end or self.server.disconnect)(client)

    async def ghost(self) -> None:
        await self.drop(self.server.make_ghost)

    async def hang(self) -> None:
        before = {name: self.of(name).reconnects for name in self.known}
        self.server.awake.clear()
        self.append(30)
        await self.until(lambda: all(self.of(name).waiting_for for name in self.known), "each route waits")
        self.broke([self.known[name].clients[-1] for name in before if self.of(name).reconnects > before[name]])
        self.maybe_broke = True  # a route may wait for InfluxDB, without a call to Iggy
        self.server.awake.set()

    async def slow(self) -> None:
        self.server.awake.clear()
        await asyncio.sleep(0.1)
        self.server.awake.set()

    async def break_a_call(self) -> None:
        self.server.fail_next = self.chance.choice(CALLS)
        self.append(30)

    async def lose_an_answer(self) -> None:
        self.server.lose_next = self.chance.choice(CALLS)
        self.append(30)

    async def lose_a_tail(self, *, zero: bool = False) -> None:
        topic = self.chance.choice(sorted(self.server.topics))

        def lose() -> None:
            for partition in self.server.topics[topic].numbers:
                self.reused.add(Partition(STREAM, topic, partition))
                self.server.lose_tail(topic, partition, self.chance.randint(0, 50), zero=zero)
            self.append(self.chance.choice((0, 5, 100)), topic)

        await self.away(self.server.stop, lose)

    async def forget_offsets(self) -> None:
        await self.lose_a_tail(zero=True)

    async def purge(self) -> None:
        """Empty a topic, and give the routes the time to see it: else later messages may hide it."""
        topic = self.chance.choice(sorted(self.server.topics))
        self.reused |= {Partition(STREAM, topic, number) for number in self.server.topics[topic].numbers}
        self.server.purge(topic)
        self.maybe_broke = True  # a route that sees it connects again
        await asyncio.sleep(LOOK_SECONDS / SPEED)
        self.append(self.chance.choice((3, 60)), topic)

    async def create_again(self) -> None:
        topic = self.chance.choice(sorted(self.server.topics))
        readers = [spec.name for spec in ROUTES if topic in spec.topics]
        before = {name: self.of(name).reconnects for name in readers}
        partitions = len(self.server.topics.pop(topic).partitions)
        await self.until(lambda: all(self.of(name).reconnects > before[name] for name in readers), "it is deleted")
        self.broke([self.known[name].clients[-1] for name in readers])
        self.server.create(topic, partitions)
        self.append(self.chance.choice((3, 60)), topic)

    # The faults of InfluxDB

    def answer_badly(self) -> None:
        self.sim.inject(Fault("latency", seconds=0.05, skip=self.chance.randrange(3)))  # requests end out of order
        for row in self.chance.sample(PASSING, self.chance.randint(1, 4)):
            seconds = {"seconds": row["seconds"] / 5} if "seconds" in row else {}
            self.sim.inject(Fault(**{**row, **seconds, "skip": self.chance.randrange(3)}))

    def go_down(self) -> None:
        self.is_away = True
        self.sim.inject(Fault("reset", when="before", on="any", times=None))

    def be_mute(self) -> None:
        self.is_away = True
        self.sim.inject(Fault("latency", seconds=0.3, times=None))

    async def come_back(self) -> None:
        """Check what the status says of an InfluxDB that is away, then end its faults."""
        if self.is_away:
            for topic in self.server.topics:
                self.append(20, topic)
            await self.until(lambda: all(self.of(name).waiting_for for name in self.known), "InfluxDB is away")
            await self.until(lambda: all(self.has_lag_of(spec) for spec in ROUTES), "the lag is known")
        self.is_away = False
        self.sim.faults.clear()

    def has_lag_of(self, spec: Spec) -> bool:
        """Whether the status has the lag of a route; without a connection the route cannot know it."""
        status, known = self.of(spec.name), self.unsettled(spec)
        if status.state == "connecting" or self.known[spec.name].clients[-1].number not in self.server.clients:
            return True
        return status.lag.keys() == known.keys() and all(
            lag == known[place] or self.is_possible_lag(spec, place, lag) for place, lag in status.lag.items()
        )

    def is_possible_lag(self, spec: Spec, place: Partition, lag: int) -> bool:
        """Whether a lag is right where offsets were used again: all is read again, or what is not settled."""
        log = self.server.topics[place.topic].partitions[place.partition].messages
        unsettled = {self.numbers[each["timestamp"]] for each in log} - self.known[spec.name].settled
        return place in self.reused and len(unsettled) <= lag <= len(log)

    # Ghosts, and the end

    def held_by_ghosts(self, spec: Spec) -> set[Partition]:
        """Return the partitions with messages that wait for a member without a connection."""
        found = set()
        for place, waiting in self.unsettled(spec).items():
            group = self.server.topics[place.topic].groups.get(spec.name)
            for member in group.members.values() if group else ():
                if waiting and place.partition in member.partitions and member.client not in self.server.clients:
                    found.add(place)
        return found

    async def heal(self) -> None:
        """Wait until a route names what ghosts hold, then remove them as an operator does."""
        for spec in ROUTES:
            if spec.is_group and not spec.is_exclusive:
                await self.until(lambda spec=spec: self.names_ghosts(spec), "what ghosts hold is named")  # type: ignore[misc]
        self.server.bury_ghosts()

    def names_ghosts(self, spec: Spec) -> bool:
        starving = {each.partition for group in self.of(spec.name).groups for each in group.starving}
        held = self.held_by_ghosts(spec)
        return held <= starving and (not held or self.of(spec.name).waiting_for is not None)

    async def step(self) -> None:
        """Have one fault of either end, or of both."""
        iggy = self.chance.choice([None, *IGGY_FAULTS])
        influx = self.chance.choice([None, *INFLUX_FAULTS])
        self.faults.append(f"{iggy} + {influx}")
        if iggy in ("purge", "create again"):  # what is in flight would be acknowledged under offsets of other messages
            await self.quiet()
            await IGGY_FAULTS[iggy](self)
        if influx:
            INFLUX_FAULTS[influx](self)
        self.append(self.chance.randrange(60))
        await asyncio.sleep(self.chance.uniform(0.0, 0.1))
        if iggy and iggy not in ("purge", "create again"):
            await IGGY_FAULTS[iggy](self)
        if influx:
            await self.come_back()
        if self.chance.random() < 0.3:
            await self.quiet()

    async def quiet(self) -> None:
        """Wait until everything that the log has is settled."""
        await self.heal()
        for spec in ROUTES:
            known = self.known[spec.name]
            await self.until(lambda s=spec, k=known: self.in_log(s.topics) <= k.settled, f"{spec.name} settles all")  # type: ignore[misc]
        await self.until(lambda: not any(any(self.unsettled(spec).values()) for spec in ROUTES), "all is stored")

    async def run(self, steps: int) -> Summary:
        routes = self.routes()
        ticking = asyncio.create_task(self.tick())
        running = asyncio.create_task(run_routes(routes, stop=self.stop, status=self.status, clock=self.clock))
        try:
            await self.until(lambda: [each.state for each in self.status.routes] == ["idle"] * len(ROUTES), "it starts")
            for _ in range(steps):
                await self.step()
                self.note_broken_calls()
            self.server.fail_next = self.server.lose_next = None
            self.sim.faults.clear()
            self.note_broken_calls()
            await self.quiet()
            await self.until(lambda: not any(any(each.lag.values()) for each in self.status.routes), "nothing lags")
            await self.until(lambda: not any(each.waiting_for for each in self.status.routes), "nothing is waited for")
            await self.until(lambda: all(self.has_groups_of(spec) for spec in ROUTES), "the groups are known")
            self.stop.request()
            return await asyncio.wait_for(running, SECONDS)
        finally:
            self.server.awake.set()
            ticking.cancel()
            running.cancel()
            await asyncio.gather(ticking, running, return_exceptions=True)

    async def tick(self) -> None:
        last, ticks = self.clock.monotonic(), 0
        while True:
            await asyncio.sleep(0.01)
            last, before, ticks = self.clock.monotonic(), last, ticks + 1
            self.server.tick(last - before)
            if not ticks % 10:
                self.metrics.look(self.status)

    def note_broken_calls(self) -> None:
        self.broke(self.server.broken)
        self.server.broken.clear()

    def has_groups_of(self, spec: Spec) -> bool:
        """Whether the status of a group's member lists the partitions that the server gave it."""
        groups = {each.topic: set(each.partitions) for each in self.of(spec.name).groups}
        if not spec.is_group:
            return not groups
        return groups == {topic: set(self.server.topics[topic].numbers) for topic in spec.topics}


CALLS = ("poll_messages", "get_topic", "send_binary_request", "store_offset", "get_consumer_group", "consumer_group")
IGGY_FAULTS: dict[str, Callable[[World], Awaitable[None]]] = {
    "kill": World.kill,
    "stop": World.orderly_stop,
    "drop": World.drop,
    "ghost": World.ghost,
    "hang": World.hang,
    "slow": World.slow,
    "break a call": World.break_a_call,
    "lose an answer": World.lose_an_answer,
    "lose a tail": World.lose_a_tail,
    "forget offsets": World.forget_offsets,
    "purge": World.purge,
    "create again": World.create_again,
}
INFLUX_FAULTS: dict[str, Callable[[World], None]] = {
    "answers": World.answer_badly,
    "down": World.go_down,
    "mute": World.be_mute,
}


# --- What must hold in the end ---


def rendered(number: int) -> int:
    """Return how many lines a message becomes, accepted or not."""
    return 1 if is_odd(number) and not is_bad(number) else len(lines(number, "x"))


def check(world: World, summary: Summary) -> None:
    assert world.wrong == []
    assert (summary.errors, summary.interrupted) == ((), False)
    dump = world.sim.dump("test")
    for spec in ROUTES:
        known, status = world.known[spec.name], world.of(spec.name)
        check_lines(world, known, [line for line in dump if f",by={spec.name}" in line.partition(" ")[0]])
        check_status(world, known, status)


def check_lines(world: World, known: Known, found: Sequence[str]) -> None:
    """What the log has is stored or kept; nothing else is stored."""
    name, log = known.spec.name, world.in_log(known.spec.topics)
    blamed = {number for number, reason in known.kept.items() if not is_bad(number) and not is_odd(number)}
    # a single line that a fault rejects is rejected like any other; no other good line may be kept
    assert {known.kept[number] for number in blamed if "on purpose" not in known.kept[number]} == set(), name
    bad = {number for number in log if is_bad(number) or is_odd(number)}
    assert (bad - set(known.kept) == set()) == (known.spec.on_error == "dead_letter" or not bad)
    possible = {line for number in known.polled for line in lines(number, name)}
    assert set(found) - possible == set()
    assert {line for number in log - blamed for line in lines(number, name)} - set(found) == set()


def check_status(world: World, known: Known, status: RouteStatus) -> None:
    """The status is what the harness knows; exactly, unless a connection broke."""
    polled = known.polled
    bad = Counter({number: count for number, count in polled.items() if is_bad(number)})
    lost = Counter({number: count for number, count in polled.items() if is_bad(number) or is_odd(number)})
    is_kept = known.spec.on_error == "dead_letter"
    once = set(known.settled)
    exact = known.breaks == 0 and not world.maybe_broke
    bounds = {
        "read": (len(once), polled.total()),
        "points": (sum(map(rendered, once)), sum(rendered(number) * count for number, count in polled.items())),
        "failed": (len(once & set(bad)), bad.total()),
        "skipped": (sum(map(is_other, once)), sum(is_other(number) * count for number, count in polled.items())),
        "dropped": (0, 0) if is_kept else (len(once & set(lost)), lost.total()),
        "acknowledged": (0, known.passed if exact else status.read),
    }
    for name, (least, most) in bounds.items():
        value = getattr(status, name)
        assert (most if exact else least) <= value <= most, (known.spec.name, name, value, least, most, world.faults)
    answered = status.delivered + status.refused
    assert (status.points if exact else sum(map(rendered, once))) <= answered <= status.points, (answered, world.faults)
    assert status.dead_letters == len(known.letters.letters)
    if exact:
        assert polled.total() == len(polled) == known.passed
        assert status.reconnects == 0
    elif known.breaks:
        assert status.reconnects > 0
    assert (status.state, status.waiting_for, status.error, status.in_flight) == ("done", None, None, 0)
    assert status.fallbacks == 0


def survive(folder: Path, seed: int, steps: int) -> list[str]:
    """Run the script of a seed; return its faults."""

    async def main() -> list[str]:
        world = World(folder, seed)
        with world.sim:
            world.write(f'odd,by=first warmth="text" {FIRST_MS}000000')
            summary = await world.run(steps)
            check(world, summary)
            world.metrics.look(world.status)
            assert (world.metrics.wrong, world.metrics.looks > 1) == ([], True), world.faults
        return world.faults

    return asyncio.run(asyncio.wait_for(main(), 280))


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_and_the_status_is_right_whatever_both_ends_do(tmp_path: Path, seed: int) -> None:
    survive(tmp_path, seed, 6)


@pytest.mark.long
def test_the_same_with_two_hundred_seeds(tmp_path: Path) -> None:
    for seed in range(100, 300):
        survive(tmp_path, seed, 12)
