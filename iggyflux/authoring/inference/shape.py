"""What samples look like: for each place in them, the values that were found there.

The places of a list's elements are one place, and so are those of an object's members where its keys are data, such as
the names of sensors (a *map*).  Nothing is decided here but which objects are maps.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeAlias

from iggyflux.records import JSON

Step: TypeAlias = str | int
Path: TypeAlias = tuple[Step, ...]

MOST_POSITIONS: Final = 4
"""A short list of scalars is a tuple such as [longitude, latitude]: its positions mean something."""
LEAST_LIKENESS: Final = 0.5
"""Objects are alike if they share this part of their members; then the keys that lead to them are data."""
MANY_KEYS: Final = 8
"""From so many keys on, one kind of keys such as EUR, GBP, USD may be data rather than names of fields."""
MOST_MEMBERS: Final = 2_000
"""An object has no more members that each are a place of their own: what has more is a map."""

_KINDS: Final = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "list",
    dict: "object",
}


@dataclass(frozen=True)
class Shape:
    """One place: its `values`, without those that are missing, in the order of the samples.

    `members` are places below the objects among the
    values, `entries` the place of the values of maps, `items` that of the elements of lists, and `positions` those of
    tuples.
    """

    values: Sequence[JSON] = ()
    members: dict[str, Shape] = field(default_factory=dict)
    entries: Shape | None = None
    items: Shape | None = None
    positions: tuple[Shape, ...] = ()

    @cached_property
    def kinds(self) -> Counter[str]:
        """How many values there are of each kind."""
        return Counter(_KINDS[each] for each in map(type, self.values))

    @cached_property
    def scalars(self) -> list[str | int | float | bool]:
        """The values that are neither null nor objects nor lists."""
        return [value for value in self.values if value is not None and not isinstance(value, (dict, list))]

    @cached_property
    def distinct(self) -> Counter[str | int | float | bool]:
        """How often each scalar occurs."""
        return Counter(self.scalars)

    @property
    def is_leaf(self) -> bool:
        """Whether scalars were found here."""
        return bool(self.scalars)

    @cached_property
    def numbers(self) -> int:
        """How many numbers there are here and below."""
        below = [*self.members.values(), *self.positions, *(each for each in (self.entries, self.items) if each)]
        return self.kinds["integer"] + self.kinds["float"] + sum(each.numbers for each in below)

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Shape]]:
        """Yield the places of one element: this one and those below it, but not those in lists and maps."""
        yield path, self
        for name, member in self.members.items():
            yield from member.walk((*path, name))
        for position, each in enumerate(self.positions):
            yield from each.walk((*path, position))


def observe(values: Sequence[JSON]) -> Shape:
    """Return the shape of the values at one place."""
    objects = [value for value in values if type(value) is dict]
    lists = [value for value in values if type(value) is list]
    found: dict[str, list[JSON]] = {}
    for value in objects:
        for key, member in value.items():
            found.setdefault(key, []).append(member)
    data = _keys_that_are_data(found)
    tuples = [value for value in lists if _is_tuple(value)]
    is_tuple = bool(tuples) and (len(tuples) > len(lists) / 2 or len({len(value) for value in lists}) == 1)
    of_items = [item for value in lists for item in value]
    entries = [{"key": key, "value": value[key]} for value in objects for key in value if key in data] if data else []
    return Shape(
        values=values,
        members={key: observe(members) for key, members in found.items() if key not in data},
        entries=observe(entries) if entries else None,
        items=observe(of_items) if of_items and not is_tuple else None,
        positions=tuple(_columns(tuples)) if is_tuple else (),
    )


def _columns(tuples: Sequence[list[JSON]]) -> Iterator[Shape]:
    for position in range(max(map(len, tuples))):
        yield observe([value[position] for value in tuples if len(value) > position])


def _is_tuple(value: list[JSON]) -> bool:
    return 2 <= len(value) <= MOST_POSITIONS and not any(isinstance(item, (dict, list)) for item in value)


def _keys_that_are_data(found: dict[str, list[JSON]]) -> frozenset[str]:
    """Return the keys that name what is measured rather than how: those of a map, which is worth a `for_each`.

    Either they lead to objects that are alike, or to numbers and look like numbered or coded names.
    """
    nested = [key for key, members in found.items() if all(type(member) is dict for member in members)]
    coded = [key for key in nested if _CODE.fullmatch(key)]
    if len(coded) > 1 and len(coded) >= len(nested) / 2:
        return frozenset(coded)
    if len(nested) > 1 and (_look_like_data(nested) or _are_alike([found[key] for key in nested])):
        return frozenset(nested)
    numbers = [key for key, members in found.items() if all(type(member) in (int, float) for member in members)]
    if len(numbers) == len(found) > 1 and (_look_like_data(numbers) or _are_codes(numbers)):
        return frozenset(numbers)
    return frozenset(found) if len(found) > MOST_MEMBERS else frozenset()


_DIGITS: Final = re.compile(r"[0-9]+")
_CODE: Final = re.compile(r"[0-9]+|[0-9A-Fa-f]{8,}|[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){3,}|.*[:/]\s*[0-9]+")
_UPPER: Final = re.compile(r"[A-Z]{2,6}")


def _look_like_data(keys: Sequence[str]) -> bool:
    """Return whether all keys are codes such as 17, switch:0 or 00:1b:…, or one name with other numbers."""
    return all(map(_CODE.fullmatch, keys)) or (
        all(_DIGITS.search(key) for key in keys) and len({_DIGITS.sub("0", key) for key in keys}) == 1
    )


def _are_codes(keys: Sequence[str]) -> bool:
    return len(keys) >= MANY_KEYS and all(map(_UPPER.fullmatch, keys)) and len(set(map(len, keys))) == 1


def _are_alike(members: Sequence[list[JSON]]) -> bool:
    """Return whether the objects under all keys share most of their members, which are of one kind."""
    names = [
        frozenset(
            (key, isinstance(each, str), isinstance(each, (dict, list)))
            for value in values
            for key, each in value.items()
        )
        for values in ([value for value in each if isinstance(value, dict)] for each in members)
    ]
    common, every = frozenset.intersection(*names), frozenset.union(*names)
    return len(common) >= max(2, LEAST_LIKENESS * len(every))
