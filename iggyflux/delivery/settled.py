"""Which offsets a route has settled, as intervals with counts: small, since neighbours merge.

Pure.  An interval claims each of its offsets: every point of that message was accepted, or the message was kept as a
dead letter, dropped by `on_error: skip`, or left out by `where`.  It is added after the settling, so what is stored may
lack what was settled last and never claims more.  Intervals belong to the plan that rendered the messages; a message
that is settled again by the same plan counts once.

Offsets that are read again may belong to other messages now: `cut` removes them, of all plans.  An interval that is cut
keeps its counts in proportion, rounded down; what was settled where is not known.

A log may also be replaced and not read again here.  So an interval knows when its last message arrived: if another
message has that offset, no offset of the partition is claimed any more.  One that was cut does not know it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, TypeAlias

from iggyflux.records import Message, Partition, Position

MOST_INTERVALS: Final = 1000
"""Of one partition; beyond that the oldest are forgotten: of the plan that settled longest ago, the lowest offsets."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Settled messages with the offsets `first` to `last`, without a gap.

    `points` were accepted.  `skipped` messages made no record.  A message can count as a dead letter and have points.
    `last_us` is when the message `last` arrived, in microseconds since the epoch; 0 if that is not known.  `undeclared`
    messages have fields that their schema does not declare.
    """

    first: int
    last: int
    points: int = 0
    dead_letters: int = 0
    dropped: int = 0
    skipped: int = 0
    last_us: int = 0
    undeclared: int = 0

    @property
    def messages(self) -> int:
        """The number of messages."""
        return self.last - self.first + 1

    def joined(self, after: Interval) -> Interval:
        """Return this interval with the one that begins right after it."""
        return Interval(
            self.first,
            after.last,
            self.points + after.points,
            self.dead_letters + after.dead_letters,
            self.dropped + after.dropped,
            self.skipped + after.skipped,
            after.last_us,
            self.undeclared + after.undeclared,
        )

    def before(self, offset: int) -> Interval:
        """Return the part before `offset`, which is in this interval but not its first."""
        return Interval(self.first, offset - 1, **self._share(offset - self.first))

    def since(self, offset: int) -> Interval:
        """Return the part from `offset` on, which is in this interval."""
        return Interval(offset, self.last, last_us=self.last_us, **self._share(self.last - offset + 1))

    def _share(self, messages: int) -> dict[str, int]:
        return {name: getattr(self, name) * messages // self.messages for name in _COUNTS}


PlanInterval: TypeAlias = tuple[str, Interval]
"""An interval, and the identity of the plan that rendered its messages."""


_COUNTS: Final = ("points", "dead_letters", "dropped", "skipped", "undeclared")
_NUMBERS: Final = attrgetter("first", "last", "points", "dead_letters", "dropped", "skipped", "last_us")
"""What is stored of each interval; after it `undeclared`, if that is not 0."""


@dataclass(frozen=True, slots=True)
class SettledBatch:
    """What became of the messages of a batch: the message of each accepted line, and the other messages by index."""

    messages: Sequence[Message]
    accepted: Sequence[int]
    dead_letters: Collection[int] = ()
    dropped: Collection[int] = ()
    skipped: Sequence[int] = ()
    undeclared: Sequence[int] = ()

    def intervals(self) -> Iterator[Interval]:
        """Yield the batch as one interval, or as several where offsets are missing between its messages."""
        first, last = self.messages[0].offset, self.messages[-1]
        if last.offset - first + 1 == len(self.messages):
            counts = len(self.accepted), len(self.dead_letters), len(self.dropped), len(self.skipped)
            yield Interval(first, last.offset, *counts, last.timestamp_us, len(self.undeclared))
            return
        yield from self.intervals_of(range(len(self.messages)))

    def intervals_of(self, indexes: Iterable[int]) -> Iterator[Interval]:
        """Yield the messages with these ascending indexes as intervals."""
        points, skipped, undeclared = Counter(self.accepted), frozenset(self.skipped), frozenset(self.undeclared)
        before: Interval | None = None
        for index in indexes:
            message = self.messages[index]
            offset = message.offset
            dead_letters, dropped = int(index in self.dead_letters), int(index in self.dropped)
            counts = points[index], dead_letters, dropped, int(index in skipped)
            here = Interval(offset, offset, *counts, message.timestamp_us, int(index in undeclared))
            if before is not None and before.last + 1 != offset:
                yield before
                before = None
            before = here if before is None else before.joined(here)
        if before is not None:
            yield before


class SettledOffsets:
    """The settled intervals of a route, by partition and plan."""

    def __init__(self) -> None:
        self._places: dict[Partition, dict[str, list[Interval]]] = {}
        """By partition and plan; the plan that settled last is the last one."""
        self.forgotten = 0
        """Intervals that are not kept any more: there were too many of them."""

    def new(self, partition: Partition, plan: str, batch: SettledBatch) -> list[Interval]:
        """Return a settled batch as intervals, without messages that this plan has settled before."""
        known = self._places.get(partition, {}).get(plan, ())
        found = list(batch.intervals())
        if not any(_covered(known, each.first, each.last) for each in found):
            return found
        offsets = [message.offset for message in batch.messages]
        return list(batch.intervals_of(index for index, at in enumerate(offsets) if not _covered(known, at, at)))

    def add(self, partition: Partition, plan: str, interval: Interval) -> None:
        """Add an interval; one that overlaps another is left out, since it would count messages twice."""
        plans = self._places.setdefault(partition, {})
        known = plans[plan] = plans.pop(plan, [])
        if not _covered(known, interval.first, interval.last):
            _insert(known, interval)
        for _ in range(sum(map(len, plans.values())) - MOST_INTERVALS):
            oldest = next(iter(plans))
            del plans[oldest][0]
            self.forgotten += 1
            if not plans[oldest]:
                del plans[oldest]

    def cut(self, partition: Partition, offset: int) -> bool:
        """Remove `offset` and all after it, of all plans; return whether some was there."""
        plans, is_cut = self._places.get(partition, {}), False
        for plan, known in tuple(plans.items()):
            if known[-1].last < offset:
                continue
            is_cut = True
            at = bisect_left(known, offset, key=attrgetter("first"))
            if at and known[at - 1].last >= offset:
                known[at - 1] = known[at - 1].before(offset)
            del known[at:]
            if not known:
                del plans[plan]
        return is_cut

    def lasts(self) -> dict[Partition, tuple[int, int]]:
        """Return the last claimed offset of each partition, and when its message arrived (0 if that is not known)."""
        lasts = (
            (place, max(((each[-1].last, each[-1].last_us) for each in plans.values()), default=None))
            for place, plans in self._places.items()
        )
        return {place: last for place, last in lasts if last is not None}

    def intervals(self) -> Mapping[tuple[Partition, str], Sequence[Interval]]:
        """Return the intervals of each partition and plan, in the order of offsets."""
        return {(place, plan): tuple(each) for place, plans in self._places.items() for plan, each in plans.items()}

    def claims(self, position: Position) -> bool:
        """Return whether the message at `position` is in an interval, of whatever plan."""
        plans = self._places.get(position.partition, {})
        return any(_covered(found, position.offset, position.offset) for found in plans.values())

    def joined(self, other: SettledOffsets) -> SettledOffsets:
        """Return what this or the other one claims: two processes kept them, and may have settled a message both.

        Such a message counts once; the counts of an interval that overlaps are kept in proportion, rounded down.
        """
        made = SettledOffsets()
        for place in {**self._places, **other._places}:
            ours, theirs = self._places.get(place, {}), other._places.get(place, {})
            plans = {plan: _joined((*ours.get(plan, ()), *theirs.get(plan, ()))) for plan in {**ours, **theirs}}
            made._places[place] = plans
        made.forgotten = self.forgotten + other.forgotten
        return made

    def copy(self) -> SettledOffsets:
        """Return a copy, cheaply: its `record` takes long, and may be made in another thread."""
        made = SettledOffsets()
        made._places = {
            place: {plan: found.copy() for plan, found in plans.items()} for place, plans in self._places.items()
        }
        made.forgotten = self.forgotten
        return made

    def record(self) -> dict[str, Any]:
        """Return the plain values to store."""
        return {
            "forgotten": self.forgotten,
            "intervals": [
                {
                    "stream": place.stream,
                    "topic": place.topic,
                    "partition": place.partition,
                    "plan": plan,
                    "settled": list(map(_stored, found)),
                }
                for place, plans in self._places.items()
                for plan, found in plans.items()
            ],
        }

    @classmethod
    def of(cls, record: Any) -> SettledOffsets:
        """Return the intervals of a stored record; None is an empty one."""
        made = cls()
        for each in () if record is None else record["intervals"]:
            place = Partition(each["stream"], each["topic"], each["partition"])
            made._places.setdefault(place, {})[each["plan"]] = [Interval(*numbers) for numbers in each["settled"]]
        made.forgotten = 0 if record is None else record["forgotten"]
        return made


def _stored(interval: Interval) -> tuple[int, ...]:
    numbers: tuple[int, ...] = _NUMBERS(interval)
    return (*numbers, interval.undeclared) if interval.undeclared else numbers


def gaps(intervals: Iterable[Interval]) -> list[tuple[int, int]]:
    """Return the offsets between intervals, of whatever plan, as pairs of the first and the last one."""
    found, reached = [], None
    for each in sorted(intervals, key=attrgetter("first")):
        if reached is not None and each.first > reached + 1:
            found.append((reached + 1, each.first - 1))
        reached = each.last if reached is None else max(reached, each.last)
    return found


def count_of_others(
    found: Mapping[tuple[Partition, str], Sequence[Interval]], plan: str, place: Partition, first: int, last: int
) -> int:
    """Return how many offsets of `[first, last]` were settled by other plans and not by `plan`."""
    here = {name: intervals for (other, name), intervals in found.items() if other == place}
    ours = _size(here.get(plan, ()), first, last)
    return _size([each for intervals in here.values() for each in intervals], first, last) - ours


def _size(intervals: Iterable[Interval], first: int, last: int) -> int:
    """Return how many offsets of `[first, last]` some interval has."""
    count, reached = 0, first - 1
    for each in sorted(intervals, key=attrgetter("first")):
        until = min(each.last, last)
        count += max(until - max(reached, each.first - 1), 0)
        reached = max(reached, until)
    return count


def _joined(intervals: Iterable[Interval]) -> list[Interval]:
    """Return intervals in order that claim the same offsets, none twice."""
    found: list[Interval] = []
    for each in sorted(intervals, key=attrgetter("first")):
        reached = found[-1].last if found else each.first - 1
        if each.last <= reached:
            continue
        rest = each.since(max(reached + 1, each.first))
        if found and rest.first == reached + 1:
            found[-1] = found[-1].joined(rest)
        else:
            found.append(rest)
    return found


def _covered(known: Sequence[Interval], first: int, last: int) -> bool:
    """Return whether some offset of `[first, last]` is in an interval."""
    at = bisect_right(known, last, key=attrgetter("first"))
    return at > 0 and known[at - 1].last >= first


def _insert(known: list[Interval], new: Interval) -> None:
    """Insert an interval that overlaps none; merge it with its neighbours."""
    at = bisect_left(known, new.first, key=attrgetter("first"))
    if at < len(known) and known[at].first == new.last + 1:
        new = new.joined(known.pop(at))
    if at > 0 and known[at - 1].last + 1 == new.first:
        known[at - 1] = known[at - 1].joined(new)
    else:
        known.insert(at, new)
