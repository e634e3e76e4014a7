"""A message that renders well, and what may change in it.

The purpose of a value is found by trial: a leaf of the payload is changed, the plan renders it, and the change of the
points says whether the leaf is a time, a tag or a field.  So any expression may be between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import islice
from random import Random
from typing import Any, Final, NamedTuple

from iggyflux.authoring.generate.trial import PlanTrial, message_at, replace_payload
from iggyflux.authoring.generate.values import (
    NUMBER,
    Path,
    Setter,
    as_text,
    constant,
    next_number,
    numbered,
    other_value,
    walking,
)
from iggyflux.errors import RecordError
from iggyflux.records import JSON, Message
from iggyflux.timestamps import TimestampError, format_rfc3339, format_time, parse_pattern, parse_rfc3339

_MOST_LEAVES: Final = 200
_VARIANTS: Final = 4
_HOUR_NS: Final = 3_600_000_000_000


class Role(Enum):
    """The purpose of a leaf of a payload."""

    TIME = "time"
    TAG = "tag"
    FIELD = "field"
    FIXED = "fixed"


@dataclass(slots=True)
class Leaf:
    """A leaf that varies: `set` gives a new value; `values` are the values of a string."""

    path: Path
    role: Role
    value: JSON
    set: Setter
    values: list[JSON] = field(default_factory=list)


class _TextForm(NamedTuple):
    """A text format of times."""

    read: Callable[[str], int]
    write: Callable[[int], str]


class VaryingSample:
    """A message that renders well, with the leaves that may change in it."""

    def __init__(self, trial: PlanTrial, message: Message, tree: JSON) -> None:
        self._trial = trial
        self._message = message
        self._tree = tree
        points = trial.points([message])[0]
        assert points is not None  # noqa: S101  (that is how bases are chosen)
        self._points = points
        times = [point.timestamp_ns or 0 for point in points]
        self._base_ns = min(times)
        self.span_ns = max(times) - self._base_ns
        """The time from the first point of the message to the last."""
        self.leaves: list[Leaf] = []
        for path, value in islice(_walk(tree), _MOST_LEAVES):
            leaf = self._probe(path, value)
            if leaf is not None:
                self.leaves.append(leaf)

    def vary(self, random: Random, number: int, time_ns: int) -> Message:
        """Return a variation of the sample."""
        return self._made(self.leaves, random, number, time_ns)

    def plain(self, number: int, time_ns: int) -> Message:
        """Return the sample at another time; unchanged if that fails."""
        times = [leaf for leaf in self.leaves if leaf.role is Role.TIME]
        message = self._made(times, Random(number), number, time_ns)  # noqa: S311
        if self._trial.points([message])[0] is not None:
            return message
        return message_at(self._message, self._message.payload, number, self._message.timestamp_us)

    def _made(self, leaves: Sequence[Leaf], random: Random, number: int, time_ns: int) -> Message:
        payload = self._message.payload
        if leaves:
            tree = deepcopy(self._tree)
            for leaf in leaves:
                tree = _put(tree, leaf.path, leaf.set(random, number, time_ns))
            payload = self._trial.encode(tree)
        return message_at(self._message, payload, number, time_ns // 1000)

    # What a leaf is for

    def _probe(self, path: Path, value: JSON) -> Leaf | None:
        for candidate, setter in self._time_candidates(value):
            role, shift_ns = self._outcome(path, candidate)
            if role is Role.TIME and shift_ns > 0:
                return Leaf(path, role, value, setter(shift_ns))
        other = other_value(value)
        if other is None:
            return None
        role, _ = self._outcome(path, other)
        if role not in (Role.TAG, Role.FIELD):
            return None
        leaf = Leaf(path, role, value, constant(value))
        leaf.set = self._setter(leaf)
        return leaf

    def _outcome(self, path: Path, value: JSON) -> tuple[Role, int]:
        """Return what this value of the leaf changes in the points, and by how much it moves their times."""
        try:
            payload = self._trial.encode(_put(deepcopy(self._tree), path, value))
        except RecordError:
            return Role.FIXED, 0
        points = self._trial.points([replace_payload(self._message, payload)])[0]
        if points is None or len(points) != len(self._points):
            return Role.FIXED, 0
        pairs = list(zip(self._points, points, strict=True))
        if any(one.measurement != other.measurement for one, other in pairs):
            return Role.FIXED, 0
        shifts = {(other.timestamp_ns or 0) - (one.timestamp_ns or 0) for one, other in pairs} - {0}
        if shifts:
            return Role.TIME, shifts.pop()
        if any(one.tags != other.tags for one, other in pairs):
            return Role.TAG, 0
        return (Role.FIELD, 0) if any(one != other for one, other in pairs) else (Role.FIXED, 0)

    def _time_candidates(self, value: JSON) -> Iterator[tuple[JSON, Callable[[int], Setter]]]:
        """Yield values that are an hour (or one unit) later if the leaf is a time, each with its setter."""
        if isinstance(value, bool) or value is None:
            return
        if isinstance(value, (int, float)):
            yield value + 1, lambda shift_ns: self._number_time(value, shift_ns)
        elif isinstance(value, str):
            if NUMBER.fullmatch(value):
                number = float(value) if "." in value else int(value)
                yield next_number(value), lambda shift_ns: as_text(self._number_time(number, shift_ns))
            for form in self._text_forms():
                try:
                    ns = form.read(value)
                    yield form.write(ns + _HOUR_NS), partial(self._text_time, ns, form)
                except (TimestampError, OverflowError):
                    continue

    def _text_forms(self) -> Iterator[_TextForm]:
        yield _TextForm(parse_rfc3339, format_rfc3339)
        for timestamp in (point.timestamp for point in self._trial.writer.points):
            if timestamp.pattern is not None:
                pattern, zone = timestamp.pattern, timestamp.timezone
                yield _TextForm(
                    partial(parse_pattern, pattern=pattern, zone=zone), partial(format_time, pattern=pattern, zone=zone)
                )

    def _number_time(self, value: float, shift_ns: int) -> Setter:
        def set_time(_random: Random, _number: int, time_ns: int) -> JSON:
            moved = time_ns - self._base_ns
            if isinstance(value, int):  # exact, also in nanoseconds
                return value + moved // shift_ns
            return round(value + moved / shift_ns, 6)

        return set_time

    def _text_time(self, ns: int, form: _TextForm, _shift_ns: int) -> Setter:
        return lambda _random, _number, time_ns: form.write(ns + time_ns - self._base_ns)

    # What varies

    def _setter(self, leaf: Leaf) -> Setter:
        value = leaf.value
        if isinstance(value, bool):
            return lambda random, _number, _time: random.random() < 0.5
        if leaf.role is Role.TAG and self._has_siblings(leaf.path):
            return constant(value)  # it distinguishes the elements of a list
        if isinstance(value, (int, float)):
            if leaf.role is Role.TAG:
                return lambda random, _number, _time: value + random.randrange(_VARIANTS)
            return walking(leaf.path, value)
        assert isinstance(value, str)  # noqa: S101
        if NUMBER.fullmatch(value) and leaf.role is Role.FIELD:
            return as_text(walking(leaf.path, float(value) if "." in value else int(value)))
        leaf.values.append(value)
        if leaf.role is Role.TAG:
            leaf.values += numbered(value, _VARIANTS)
        return lambda random, _number, _time: random.choice(leaf.values)

    def _has_siblings(self, path: Path) -> bool:
        """Return whether a list above `path` has other elements."""
        node: Any = self._tree
        for part in path:
            if isinstance(part, int) and len(node) > 1:
                return True
            node = node[part]
        return False


def share_values(samples: Sequence[VaryingSample]) -> None:
    """Let a string have the values that it has in the other samples."""
    pools: dict[tuple[Path, Role], dict[JSON, None]] = {}
    leaves = [leaf for sample in samples for leaf in sample.leaves if leaf.values]
    for leaf in leaves:
        pools.setdefault((_shape(leaf.path), leaf.role), {}).update(dict.fromkeys(leaf.values))
    for leaf in leaves:
        leaf.values = list(pools[_shape(leaf.path), leaf.role])


def _shape(path: Path) -> Path:
    """Return the path with 0 for every list position."""
    return tuple(0 if isinstance(part, int) else part for part in path)


def _walk(tree: JSON, path: Path = ()) -> Iterator[tuple[Path, JSON]]:
    """Yield the leaves of a tree with their paths."""
    if isinstance(tree, dict):
        for key, child in tree.items():
            yield from _walk(child, (*path, key))
    elif isinstance(tree, list):
        for index, child in enumerate(tree):
            yield from _walk(child, (*path, index))
    else:
        yield path, tree


def _put(tree: Any, path: Path, value: JSON) -> JSON:
    """Change `tree` at `path` and return it."""
    if not path:
        return value
    parent = tree
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    return tree  # type: ignore[no-any-return]
