"""What the world knows of each message, and what must hold at every step and in the end.

| looked at         | what must hold                                                                              |
|-------------------|---------------------------------------------------------------------------------------------|
| an offset is      | each message up to it was stored as points, kept durably as a dead letter, omitted by       |
| stored            | `where`, or may be dropped (`on_error: skip`)                                               |
| points are stored | they are what a message that was polled becomes                                             |
| letters are kept  | they are of messages that cannot be delivered                                               |
| the end           | each message of the log is settled; of the lines of one point the last one is stored        |
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iggyflux.sim.store import Store
from iggyflux.transports.local.deadletters import decode_letter
from tests.simulation.scenario import RouteSpec
from tests.transports.fake_iggy_groups import Polled

FIRST_MS = 1_700_000_000_000
BLOCK = 30
"""So many messages of a partition in a row write to one point."""

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
  - measurement: {{const: last}}
    where: block
    tags: {{by: {{const: {name}}}, place: place}}
    fields: {{n: {{expr: n, type: integer}}}}
    timestamp: {{expr: block, format: unix_s}}
"""

Point = tuple[str, str, int, int]
"""Measurement, route, time and the number of the message."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was sent to a topic."""

    number: int
    place: str
    block: int
    """The time of the point that it shares with others; 0 for none."""

    @property
    def is_bad(self) -> bool:
        """Whether the mapping cannot read it."""
        return self.number % 41 == 7

    @property
    def is_odd(self) -> bool:
        """Whether the server has its field with another type."""
        return self.number % 53 == 11 and not self.is_bad

    @property
    def is_other(self) -> bool:
        """Whether the mapping omits it."""
        return self.number % 13 == 5 and not self.is_bad and not self.is_odd

    @property
    def is_good(self) -> bool:
        """Whether it becomes points."""
        return not (self.is_bad or self.is_odd or self.is_other)

    @property
    def is_twice(self) -> bool:
        """Whether it becomes a second point."""
        return self.number % 5 == 0 and self.is_good

    def payload(self) -> bytes:
        """Return the payload."""
        tree = {
            "what": "odd" if self.is_odd else "other" if self.is_other else "env",
            "is": f"d{self.number % 7}",
            "n": self.number,
            "warmth": "warm" if self.is_bad else self.number % 40 + 0.5,
            "twice": self.is_twice,
            "block": self.block if self.is_good else 0,
            "place": self.place,
            "at": FIRST_MS + self.number,
        }
        return json.dumps({key: value for key, value in tree.items() if value != 0 or key == "n"}).encode()

    def points(self, route: str) -> list[Point]:
        """Return the points that a route makes of it."""
        if not self.is_good:
            return []
        at = (FIRST_MS + self.number) * 10**6
        found = [("env", route, at, self.number)]
        if self.is_twice:
            found.append(("twice", route, at, self.number))
        if self.block:
            found.append(("last", route, self.block * 10**9, self.number))
        return found


@dataclass
class Known:
    """What is known of one route."""

    spec: RouteSpec
    polled: set[int] = field(default_factory=set)
    kept: dict[int, str] = field(default_factory=dict)
    """The messages that are durable dead letters, with their first reason."""
    left: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    """For each place the messages that no stored offset has passed, with their offsets, which ascend."""
    readers: dict[str, set[object]] = field(default_factory=lambda: defaultdict(set))
    """For each place the processes that have polled messages of it.

    A write of a process that lost the partition may arrive after those of the next one: a group has no fence.
    """
    hidden_to: dict[str, int] = field(default_factory=dict)
    """The stored offset of a place whose log lost messages below it: new ones get their offsets.

    Only a process that has read the old messages can see that the new ones are others.
    """

    def waiting(self, place: str, *, visible: bool) -> int:
        """Return how many messages of a place are left; with `visible` those that no stored offset hides."""
        left = self.left[place]
        if not visible or self.spec.kind == "single":
            return len(left)
        hidden_to = self.hidden_to.get(place, -1)
        return len(left) - (bisect_right(list(left.values()), hidden_to) if hidden_to >= 0 else 0)


_ALONE = ("max request size", "413", "too large", "on purpose")
"""The words of faults that reject a request: one of a single line is rejected for good."""


class Truth:
    """The messages of a world, and what became of them."""

    def __init__(self, specs: Sequence[RouteSpec], store: Store, process_of: Callable[[], object]) -> None:
        self.process_of = process_of
        self.sent: dict[int, Sent] = {}
        self.by_arrival: dict[int, Sent] = {}
        """By the time of arrival, which no two share."""
        self.known = {spec.name: Known(spec) for spec in specs}
        self.stored: set[Point] = set()
        self.wrong: list[str] = []
        self.lost: set[int] = set()
        """The messages that the server lost."""
        self.remembers = True
        """Whether there is one process, which has run since the start."""
        self._read_to: dict[int, int] = defaultdict(int)
        self._write = store.write
        store.write = self._written  # type: ignore[method-assign]

    def message(self, place: str, offset: int, arrival: int) -> Sent:
        """Return a new message that arrives at a place."""
        number = len(self.sent)
        block = offset // BLOCK + 1_600_000_000 if number % 17 in (3, 4) else 0
        sent = Sent(number, place, block)
        self.sent[number] = self.by_arrival[arrival] = sent
        topic = place.rpartition("/")[0]
        for known in self.known.values():
            if topic in known.spec.topics and (offset > known.hidden_to.get(place, -1) or self.remembers):
                known.left[place][number] = offset
        return sent

    def forget(self) -> None:
        """A process that was started does not know what the one before it has read."""
        self.remembers = False
        for known in self.known.values():
            for place, hidden_to in known.hidden_to.items():
                left = known.left[place]
                known.left[place] = {number: offset for number, offset in left.items() if offset > hidden_to}

    def lose(self, place: str, arrivals: Iterable[int], stored: dict[str, int]) -> None:
        """Forget messages that the server lost; `stored` has the stored offsets of the place by consumer."""
        for name, offset in stored.items():
            known = self.known[name]
            known.hidden_to[place] = max(offset, known.hidden_to.get(place, -1))
        for arrival in arrivals:
            number = self.by_arrival[arrival].number
            self.lost.add(number)
            for known in self.known.values():
                known.left[place].pop(number, None)

    def polled(self, consumer: str, topic: str, partition: int, messages: Sequence[Polled]) -> None:
        """Note what a consumer polled."""
        if messages:
            self.known[consumer].readers[f"{topic}/{partition}"].add(self.process_of())
        self.known[consumer].polled.update(self.by_arrival[each.timestamp()].number for each in messages)

    def passed(self, consumer: str, place: str, offset: int) -> None:
        """Check that the messages up to a stored offset are settled."""
        known = self.known[consumer]
        left = known.left[place]
        new = [number for number, at in left.items() if at <= offset]
        missing = [number for number in new if not self.is_settled(known, self.sent[number])]
        if missing and offset <= known.hidden_to.get(place, -1):
            return  # a rebuilt group got its former offset, which is not trusted
        if missing:
            self.wrong.append(f"{consumer} acknowledged {place} to {offset} without {missing[:5]}")
        for number in new:
            del left[number]

    def is_settled(self, known: Known, sent: Sent) -> bool:
        """Whether a message may be acknowledged."""
        if sent.is_other or sent.number in known.kept:
            return True
        if sent.is_bad or sent.is_odd:
            return known.spec.on_error == "skip"
        return self.stored.issuperset(sent.points(known.spec.name))

    def created(self, inode: int) -> None:
        """Begin a new file of letters."""
        self._read_to.pop(inode, None)

    def synced(self, path: Path) -> None:
        """Read the letters of a file that became durable."""
        name = path.parent.name
        known, inode = self.known[name], path.stat().st_ino
        with path.open("rb") as file:
            file.seek(self._read_to[inode])
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to[inode] += len(whole)
        for line in whole.splitlines():
            letter = decode_letter(line)
            number = json.loads(letter.message.payload)["n"]
            known.kept.setdefault(number, letter.reasons[0].reason)
            sent = self.sent[number]
            if sent.is_other or (sent.is_good and not any(each in known.kept[number] for each in _ALONE)):
                self.wrong.append(f"{name} kept {number}, a good message: {letter.reasons[0].reason}")

    def _written(self, rows: Any) -> int:
        rows = list(rows)
        for series, time, fields in rows:
            tags = dict(series.tags)
            if (by := tags.get(b"by", b"").decode()) not in self.known:
                continue  # what was there before
            point = (series.measurement.name.decode(), by, time, fields.get(b"n", -1))
            self.stored.add(point)
            sent = self.sent.get(point[3])
            known = self.known[point[1]]
            if sent is None or sent.number not in known.polled or point not in sent.points(point[1]):
                self.wrong.append(f"{point} was stored, but no message that was polled becomes this point")
        return self._write(rows)

    def check_end(self, known: Known, log: Sequence[Sequence[int]], last: dict[tuple[str, int], int]) -> None:
        """Check the end of a route: `log` has the numbers in each partition, `last` what the shared points hold."""
        name = known.spec.name
        for numbers in log:
            blocks: dict[tuple[str, int], int] = {}
            for offset, number in enumerate(numbers):
                sent = self.sent[number]
                is_hidden = offset <= known.hidden_to.get(sent.place, -1) and not self.remembers
                if not is_hidden and not self.is_settled(known, sent):
                    self.wrong.append(f"{name}: message {number} at {sent.place} is neither stored nor kept")
                if sent.block and sent.is_good:
                    blocks[sent.place, sent.block] = number
            for block, number in blocks.items():
                if last.get(block) != number and not self.lost and len(known.readers[block[0]]) < 2:
                    found = last.get(block)
                    self.wrong.append(f"{name}: the point {block} has n={found}, the last message is {number}")
        bad = {number for numbers in log for number in numbers if self.sent[number].is_bad or self.sent[number].is_odd}
        if known.spec.on_error == "dead_letter" and bad - set(known.kept) and not self.lost:
            self.wrong.append(f"{name}: no dead letters of {sorted(bad - set(known.kept))[:5]}")
