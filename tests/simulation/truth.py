"""What the world knows of each message, and what must hold at every step and in the end.

| looked at         | what must hold                                                                              |
|-------------------|---------------------------------------------------------------------------------------------|
| an offset is      | each message up to it was stored as points, kept durably as a dead letter, omitted by       |
| stored            | `where`, or may be dropped (`on_error: skip`)                                               |
| a ledger claims   | the same, of each offset that it claims for the first time                                  |
| points are stored | they are what a message that was polled becomes, by a version of the mapping that may be    |
|                   | used; each message is stored whole by one version before its offset is stored               |
| letters are kept  | they are of messages that cannot be delivered; their plan is that of their lines            |
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

from iggyflux.sim.plain import Fields
from iggyflux.sim.store import Series, Store
from iggyflux.transports.local.deadletters import decode_letter
from tests.simulation.influxdb import Written
from tests.simulation.scenario import RouteSpec
from tests.transports.fake_iggy_groups import Polled

FIRST_MS = 1_700_000_000_000
SHORTEST_LINE = 40
"""The bytes of the shortest line of a message, at least."""
BLOCK = 30
"""So many messages of a partition in a row write to one point."""

MAPPING = """\
iggyflux: 1
kind: writer
name: {name}
from: {{stream: s, topic: {topics}, payload: json}}
where: what != 'other'
on_error: {on_error}
{to}points:
  - measurement: what
    tags: {{by: {{const: {name}}}, is: is}}
    fields:
      n: {{expr: n, type: integer}}
      v: {{const: {version}, type: integer}}
      warmth: warmth
      pad: {{expr: pad, type: string}}
    timestamp: {{expr: at, format: unix_ms}}
  - measurement: {{const: twice}}
    where: twice
    tags: {{by: {{const: {name}}}}}
    fields: {{n: {{expr: n, type: integer}}, v: {{const: {version}, type: integer}}}}
    timestamp: {{expr: at, format: unix_ms}}
  - measurement: {{const: arrived}}
    where: undated
    tags: {{by: {{const: {name}}}}}
    fields: {{n: {{expr: n, type: integer}}, v: {{const: {version}, type: integer}}}}
  - measurement: {{const: last}}
    where: block
    tags: {{by: {{const: {name}}}, place: place}}
    fields: {{n: {{expr: n, type: integer}}, v: {{const: {version}, type: integer}}}}
    timestamp: {{expr: block, format: unix_s}}
"""

DEAD = "dead"
"""The bucket that is missing for some time."""

Point = tuple[str, str, int, int]
"""Measurement, route, time and the number of the message."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was sent to a topic."""

    number: int
    place: str
    block: int
    """The time of the point that it shares with others; 0 for none."""
    arrival: int
    """By the clock of Iggy, in microseconds."""
    bucket: str = ""
    """Where its points go, if messages choose it."""

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

    @property
    def is_undated(self) -> bool:
        """Whether it becomes a point without a time of its own: it has that of the message."""
        return self.number % 11 == 4 and self.is_good

    @property
    def is_large(self) -> bool:
        """Whether its line is larger than the requests that some servers accept."""
        return self.number % 37 == 9 and self.is_good

    def payload(self) -> bytes:
        """Return the payload."""
        tree = {
            "what": "odd" if self.is_odd else "other" if self.is_other else "env",
            "is": f"d{self.number % 7}",
            "n": self.number,
            "warmth": "warm" if self.is_bad else self.number % 40 + 0.5,
            "twice": self.is_twice,
            "undated": self.is_undated,
            "pad": "ü" * 1500 if self.is_large else 0,
            "block": self.block if self.is_good else 0,
            "place": self.place,
            "at": FIRST_MS + self.number,
            "in": self.bucket or 0,
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
        if self.is_undated:
            found.append(("arrived", route, self.arrival * 1000, self.number))
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
_RETENTION = "retention policy"


class Truth:
    """The messages of a world, and what became of them."""

    def __init__(
        self,
        specs: Sequence[RouteSpec],
        store: Store,
        process_of: Callable[[], object],
        *,
        oldest_ns: Callable[[], int],
        refuses_large: bool,
        most_held: int,
        has_buckets: bool = False,
        may_use: Callable[[int], bool] = lambda version: not version,
        version_of: Callable[[str], int | None] = lambda identity: 0,
    ) -> None:
        """`oldest_ns` returns the time before which the server may have refused points.

        A route may have `most_held` messages that it has read and that are not settled.  `may_use` says whether a
        version of the mappings was good, and `version_of` which one has an identity.
        """
        self.may_use, self.version_of = may_use, version_of
        self.most_held = most_held
        self.has_buckets = has_buckets
        self._held: dict[tuple[str, object], set[int]] = defaultdict(set)
        self.process_of = process_of
        self.oldest_ns = oldest_ns
        self.refuses_large = refuses_large
        self.sent: dict[int, Sent] = {}
        self.by_arrival: dict[int, Sent] = {}
        """By the time of arrival, which no two share."""
        self.known = {spec.name: Known(spec) for spec in specs}
        self.stored: set[tuple[Point, int]] = set()
        """The points that were stored, with the version of their mapping.

        Those that the server lost without having acknowledged them are none.
        """
        self.gone: set[tuple[Point, int]] = set()
        """The points that the server acknowledged and lost, and that were not stored again since."""
        self.newest = 0
        """The newest version that was used."""
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
        block = offset // BLOCK + FIRST_MS // 1000 - 1000 if number % 17 in (3, 4) else 0
        sent = Sent(number, place, block, arrival, bucket_of(number) if self.has_buckets else "")
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
        """Note what a consumer polled, and check that it does not read on and on."""
        if not messages:
            return
        known, process = self.known[consumer], self.process_of()
        known.readers[f"{topic}/{partition}"].add(process)
        sent = [self.by_arrival[each.timestamp()] for each in messages]
        known.polled.update([each.number for each in sent])
        held = self._held[consumer, process]
        held.update([each.number for each in sent if each.is_good])
        if len(held) > self.most_held and known.spec.on_error == "skip":  # what was dropped left no trace
            held.difference_update([number for number in held if self.is_settled(known, self.sent[number])])
        if len(held) > self.most_held:
            self.wrong.append(f"{consumer} has read {len(held)} messages, and stored none of them")

    def begin(self, consumer: str) -> None:
        """Note that a route connects: it abandons what it has read."""
        self._held[consumer, self.process_of()].clear()

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
        self._held[consumer, self.process_of()].difference_update(new)

    def claimed(self, consumer: str, place: str, offset: int) -> None:
        """Check that the message at an offset that a ledger claims now is settled."""
        known = self.known[consumer]
        for number, at in known.left[place].items():
            if at == offset and not self.is_settled(known, self.sent[number]):
                self.wrong.append(f"the ledger of {consumer} claims {place}@{offset}, and {number} is not settled")

    def is_settled(self, known: Known, sent: Sent) -> bool:
        """Whether a message may be acknowledged."""
        if sent.is_other or sent.number in known.kept:
            return True
        skips = known.spec.on_error == "skip"
        if self.is_undeliverable(sent):
            return skips
        points = sent.points(known.spec.name)
        versions = {version for version in range(self.newest + 1) if (points[0], version) in self.stored}
        if any(all((point, version) in self.stored for point in points) for version in versions):
            return True
        missing = [point for point in points if not any((point, version) in self.stored for version in versions)]
        return skips and bool(missing) and all(time < self.oldest_ns() for _, _, time, _ in missing)

    def is_undeliverable(self, sent: Sent) -> bool:
        """Whether the mapping or the server refuses a message, whenever it is sent."""
        return sent.is_bad or sent.is_odd or (sent.is_large and self.refuses_large)

    def lose_points(self, lost: Iterable[Written], left: Iterable[Written]) -> None:
        """The server lost writes: those that it had not acknowledged are to be stored again."""
        acknowledged = self._points(each for each in lost if each.is_acknowledged)
        self.gone |= acknowledged
        self.stored -= self._points(lost) - acknowledged - self._points(left)

    def _points(self, writes: Iterable[Written]) -> set[tuple[Point, int]]:
        rows = (row for each in writes for row in each.rows)
        found = ((_point_of(series, time, fields), _version_of(fields)) for series, time, fields in rows)
        return {each for each in found if each[0][1] in self.known}

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
            self._held[name, self.process_of()].discard(number)
            sent = self.sent[number]
            version, line = self.version_of(letter.plan), letter.reasons[0].line
            if version is None or not self.may_use(version):
                self.wrong.append(f"{name} kept {number} with the plan {letter.plan}, which may not be used")
            elif line is not None and f"v={version}i" not in line:
                self.wrong.append(f"{name} kept {number} with a line of another version than {version}: {line[:200]}")
            if sent.is_other or (sent.is_good and not self._may_be_kept(known, sent)):
                self.wrong.append(f"{name} kept {number}, a good message: {letter.reasons[0].reason}")

    def _may_be_kept(self, known: Known, sent: Sent) -> bool:
        reason = known.kept[sent.number]
        if _RETENTION in reason:
            return any(time < self.oldest_ns() for _, _, time, _ in sent.points(known.spec.name))
        return any(each in reason for each in _ALONE)

    def _written(self, rows: Any) -> int:
        rows, process = list(rows), self.process_of()
        for series, time, fields in rows:
            point = _point_of(series, time, fields)
            if point[1] not in self.known:
                continue  # what was there before
            version = _version_of(fields)
            self.newest = max(self.newest, version)
            self.stored.add((point, version))
            self.gone.discard((point, version))
            if not self.may_use(version):
                self.wrong.append(f"{point} was stored by version {version} of its mapping, which was refused")
            self._held[point[1], process].discard(point[3])
            sent = self.sent.get(point[3])
            known = self.known[point[1]]
            if sent is None or sent.number not in known.polled or point not in sent.points(point[1]):
                self.wrong.append(f"{point} was stored, but no message that was polled becomes this point")
            elif self.has_buckets and (bucket := series.measurement.policy.database.name) != sent.bucket:
                self.wrong.append(f"{point} was stored in {bucket!r}, its message goes to {sent.bucket!r}")
        return self._write(rows)

    def check_end(self, known: Known, log: Sequence[Sequence[int]], last: dict[tuple[str, int, str], int]) -> None:
        """Check the end of a route: `log` has the numbers in each partition, `last` what the shared points hold."""
        name = known.spec.name
        for numbers in log:
            blocks: dict[tuple[str, int, str], int] = {}
            for offset, number in enumerate(numbers):
                sent = self.sent[number]
                is_hidden = offset <= known.hidden_to.get(sent.place, -1) and not self.remembers
                if not is_hidden and not self.is_settled(known, sent):
                    self.wrong.append(f"{name}: message {number} at {sent.place} is neither stored nor kept")
                if sent.block and sent.is_good:
                    blocks[sent.place, sent.block, sent.bucket] = number
            for block, number in blocks.items():
                shared = ("last", name, block[1] * 10**9, number)
                is_gone = any((shared, version) in self.gone for version in range(self.newest + 1))
                is_refused = block[1] * 10**9 < self.oldest_ns()
                is_certain = not (self.lost or is_gone or is_refused) and len(known.readers[block[0]]) < 2
                if last.get(block) != number and is_certain:
                    found = last.get(block)
                    self.wrong.append(f"{name}: the point {block} has n={found}, the last message is {number}")
        bad = {number for numbers in log for number in numbers if self.is_undeliverable(self.sent[number])}
        if known.spec.on_error == "dead_letter" and bad - set(known.kept) and not self.lost:
            self.wrong.append(f"{name}: no dead letters of {sorted(bad - set(known.kept))[:5]}")


def bucket_of(number: int) -> str:
    """Return where the points of a message go: its place has one bucket, so that shared points are of one."""
    return DEAD if number % 8 == 3 else "warm" if number % 3 else "test"


def _point_of(series: Series, time: int, fields: Fields) -> Point:
    by = dict(series.tags).get(b"by", b"").decode()
    return series.measurement.name.decode(), by, time, fields.get(b"n", -1)  # type: ignore[return-value]


def _version_of(fields: Fields) -> int:
    return fields.get(b"v", 0)  # type: ignore[return-value]
