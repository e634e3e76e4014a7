"""Judge the points of one window by the rows of the store: the tables of the package, as code.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter

from iggyflux.audit.points import Entry, FieldReader, SeriesReader
from iggyflux.lineprotocol import FieldValue
from iggyflux.records import JSON, Partition, Row
from iggyflux.transports.influxdb.query.schema import Selection


class Class(Enum):
    """What became of a point."""

    THERE = "there"
    MISSING = "missing"
    DIFFERENT = "different"
    OVERWRITTEN = "overwritten"
    EXPIRED = "expired"
    DEAD_LETTERED = "dead_lettered"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one message makes of a point."""

    partition: Partition
    fields: Mapping[str, FieldValue]
    is_refused: bool
    """Whether the server refused it, and a dead letter has it."""


def judge_all(claims: Sequence[Claim], stored: Mapping[str, JSON]) -> list[dict[str, Class]]:
    """Return what became of each field of each claim, where some may have been refused.

    A refused claim overwrites nothing, unless it was replayed: then all is as it must be if it counts as the others.
    """
    found = judge(claims, stored)
    accepted = [claim for claim in claims if not claim.is_refused]
    is_right = not any(state in (Class.MISSING, Class.DIFFERENT) for states in found for state in states.values())
    if is_right or len(accepted) == len(claims):
        return found
    others = iter(judge(accepted, stored))
    return [dict.fromkeys(claim.fields, Class.DEAD_LETTERED) if claim.is_refused else next(others) for claim in claims]


def judge(claims: Sequence[Claim], stored: Mapping[str, JSON]) -> list[dict[str, Class]]:
    """Return what became of each field of each claim to one point; `claims` are in the order of their messages."""
    lasts: dict[str, dict[Partition, int]] = {}
    for number, claim in enumerate(claims):
        for name in claim.fields:
            lasts.setdefault(name, {})[claim.partition] = number
    found = [dict.fromkeys(claim.fields, Class.OVERWRITTEN) for claim in claims]
    for name, last in lasts.items():
        value = stored.get(name)
        equal = [number for number in last.values() if is_same(claims[number].fields[name], value)]
        if equal:
            verdict, numbers = Class.THERE, equal
        else:
            verdict, numbers = Class.MISSING if value is None else Class.DIFFERENT, list(last.values())
        for number in numbers:
            found[number][name] = verdict
    return found


_ORDER = (Class.DIFFERENT, Class.MISSING, Class.DEAD_LETTERED, Class.THERE, Class.OVERWRITTEN)


def class_of(fields: Mapping[str, Class]) -> Class:
    """Return what became of a point, by its fields, whatever retention says."""
    found = set(fields.values())
    return next(each for each in _ORDER if each in found)


def is_same(value: FieldValue, stored: JSON) -> bool:
    """Return whether the store gives a value back; answers tell 7, 7.0 and 7u apart no better than JSON does."""
    return (type(value) is bool) == (type(stored) is bool) and value == stored


@dataclass(frozen=True, slots=True)
class Suspect:
    """A point that is not simply there: its entry, its fields, what became of each, and what is stored."""

    entry: Entry
    fields: Mapping[str, FieldValue]
    states: Mapping[str, Class]
    stored: Mapping[str, JSON]


class Window:
    """The points of one measurement in a span of time, which rows of the store confirm one after the other."""

    def __init__(
        self,
        entries: Sequence[Entry],
        selection: Selection | None,
        *,
        unit_ns: int,
        series: SeriesReader,
        fields: FieldReader,
    ) -> None:
        self._entries = entries
        self._fields = fields.read([entry[3] for entry in entries])
        tags = selection.tags if selection is not None else {}
        self._names = tuple(tags.values())
        self._strict = _mistakable(selection, fields)
        keys = _keys(entries, tuple(tags), unit_ns, series)
        self._index = dict(zip(keys, range(len(keys)), strict=True))
        self._is_there = bytearray(len(entries))
        self._stored: dict[int, dict[str, JSON]] = {}
        self._shared = _shared(keys) if len(self._index) < len(keys) else {}

    def take(self, rows: Iterable[Row]) -> None:
        """Compare rows of the store; rows of others are ignored."""
        left: Sequence[Mapping[str, JSON]] = [row.columns for row in rows]
        if self._fields.names and not self._shared and not self._strict:
            left = self._take_equal(left)
        find, names, fields, there = self._index.get, self._names, self._fields, self._is_there
        for columns in left:
            at = find((columns["time"], *map(columns.get, names)))
            if at is None:
                continue
            if at not in self._shared and all(
                is_same(value, columns.get(name)) for name, value in fields.at(at).items()
            ):
                there[at] = 1
            else:
                self._stored.setdefault(at, {}).update(columns)

    def _take_equal(self, found: Sequence[Mapping[str, JSON]]) -> Sequence[Mapping[str, JSON]]:
        """Confirm the points whose rows have all tags, and all fields with their values; return the other rows."""
        rows, there = self._fields.rows, self._is_there
        try:
            keys = list(map(itemgetter("time", *self._names), found))
            values = list(map(itemgetter(*self._fields.names), found))
        except KeyError:
            return found
        if not self._names:
            keys = [(key,) for key in keys]
        if len(self._fields.names) == 1:
            values = [(value,) for value in values]
        left = []
        for number, at in enumerate(map(self._index.get, keys)):
            if at is None:
                continue
            if rows[at] == values[number]:
                there[at] = 1
            else:
                left.append(found[number])
        return left

    def there(self) -> int:
        """Return how many points are there, and no other message of the range makes them."""
        return sum(self._is_there)

    def suspects(
        self, partition_of: Callable[[int], Partition], is_refused: Callable[[Entry], bool]
    ) -> Iterable[Suspect]:
        """Yield all other points.

        `partition_of` returns the partition of a message by its number, `is_refused` whether a dead letter has a line.
        """
        for at, found in enumerate(self._is_there):
            if found or (at in self._shared and self._shared[at][-1] != at):
                continue
            group = self._shared.get(at, (at,))
            stored = {name: value for name, value in self._stored.get(at, {}).items() if name != "time"}
            # Claims are in the order of their messages, since entries are sorted by number.
            claims = [
                Claim(partition_of(entry[2]), self._fields.at(each), is_refused(entry))
                for each in group
                for entry in (self._entries[each],)
            ]
            for each, states in zip(group, judge_all(claims, stored), strict=True):
                yield Suspect(self._entries[each], self._fields.at(each), states, stored)


def _keys(
    entries: Sequence[Entry], tags: tuple[str, ...], unit_ns: int, series: SeriesReader
) -> list[tuple[object, ...]]:
    """Return what identifies each point, as rows have it: the time in nanoseconds and the values of all tags."""
    known: dict[str, tuple[str | None, ...] | None] = {}
    keys: list[tuple[object, ...]] = []
    for time, text, _, _ in entries:
        if text not in known:
            found = series.read(text)[1]
            known[text] = tuple(map(found.get, tags)) if found.keys() <= set(tags) else None
        values = known[text]
        # No row has a tag that the store does not know.
        keys.append((text, time) if values is None else (time * unit_ns, *values))
    return keys


def _shared(keys: Sequence[object]) -> dict[int, tuple[int, ...]]:
    """Return the groups of points that several messages make: by each index the indexes of all of its group."""
    groups: dict[object, list[int]] = {}
    for at, key in enumerate(keys):
        groups.setdefault(key, []).append(at)
    return {at: tuple(group) for group in groups.values() if len(group) > 1 for at in group}


def _mistakable(selection: Selection | None, fields: FieldReader) -> frozenset[str]:
    """Return the fields that may be boolean in a line and a number in the store, or the other way round.

    Python takes True for 1.
    """
    stored = {} if selection is None else selection.fields
    surely = {name for name, kinds in stored.items() if kinds == ("boolean",)} - fields.others
    perhaps = {name for name, kinds in stored.items() if not {"boolean", "any"}.isdisjoint(kinds)}
    return frozenset((perhaps | fields.booleans) - surely)
