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
from iggyflux.values import stands_for_none

Step: TypeAlias = str | int
Path: TypeAlias = tuple[Step, ...]

MOST_POSITIONS: Final = 4
"""A short list of numbers is a tuple such as [longitude, latitude]: its positions mean something."""
MOST_COLUMNS: Final = 64
"""The longest tuple: a row of a table, written as a list."""
LEAST_LIKENESS: Final = 0.5
"""Objects are alike if they share this part of their members; then the keys that lead to them are data."""
LEAST_ALIKE: Final = 3
"""Beside scalars, so many objects that are alike are a map: two may be the values before and after a change."""
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
    tuples; lists that always have one object have both.
    """

    values: Sequence[JSON] = ()
    members: dict[str, Shape] = field(default_factory=dict)
    entries: Shape | None = None
    items: Shape | None = None
    positions: tuple[Shape, ...] = ()
    irregular: Sequence[list[JSON]] = ()
    """Lists at a place of tuples that are none: `positions` say nothing of them."""

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

    def walk(self, path: Path = (), without: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, Shape]]:
        """Yield the places of one element: this one and those below it, but not those in lists and maps.

        The positions of the lists at the paths `without` are left out, since a `for_each` walks them.
        """
        yield path, self
        for name, member in self.members.items():
            yield from member.walk((*path, name), without)
        for position, each in enumerate(self.positions if path not in without else ()):
            yield from each.walk((*path, position), without)


def observe(values: Sequence[JSON], *, in_list: bool = False) -> Shape:
    """Return the shape of the values at one place; `in_list` says that they are the elements of a list."""
    objects = [value for value in values if type(value) is dict]
    lists = [value for value in values if type(value) is list]
    found: dict[str, list[JSON]] = {}
    for value in objects:
        for key, member in value.items():
            found.setdefault(key, []).append(member)
    data = _keys_that_are_data(found)
    singles = _singles(lists)
    tuples = singles or _tuples(lists, in_list)
    items = [item for value in lists for item in value] if singles or not tuples else []
    entries = [{"key": key, "value": value[key]} for value in objects for key in value if key in data] if data else []
    return Shape(
        values=values,
        members={key: observe(members) for key, members in found.items() if key not in data},
        entries=observe(entries) if entries else None,
        items=observe(items, in_list=True) if items else None,
        positions=tuple(_columns(tuples)) if tuples else (),
        irregular=[value for value in lists if not _is_tuple(value)] if len(lists) > len(tuples) > 0 else (),
    )


def _singles(lists: Sequence[list[JSON]]) -> Sequence[list[JSON]]:
    """Return the lists of a place where all of several have exactly one element, an object: `relays[0]` is its name."""
    return lists if len(lists) > 1 and all(len(v) == 1 and isinstance(v[0], dict) for v in lists) else []


def _columns(tuples: Sequence[list[JSON]]) -> Iterator[Shape]:
    for position in range(max(map(len, tuples))):
        yield observe([value[position] for value in tuples if len(value) > position])


def _tuples(lists: Sequence[list[JSON]], in_list: bool) -> Sequence[list[JSON]]:
    """Return the lists whose positions mean something, if the lists at a place are such.

    They are short lists of numbers, lists of one length whose positions have kinds of their own, such as
    [time, name, {…}], or rows in a list that agree in what their columns are.
    """
    sizes = {len(value) for value in lists}
    is_even = len(sizes) == 1 and 2 <= max(sizes) <= MOST_COLUMNS
    if is_even and (_has_kinds_of_its_own(lists) or (in_list and len(lists) > 1 and all(map(_is_row, lists)))):
        return lists
    if in_list and _are_rows(lists):
        return lists
    short = [value for value in lists if _is_tuple(value)]
    return short if len(short) > len(lists) / 2 or (short and len(sizes) == 1) else []


def _is_tuple(value: list[JSON]) -> bool:
    return 2 <= len(value) <= MOST_POSITIONS and all(map(_is_number, value))


def _has_kinds_of_its_own(lists: Sequence[list[JSON]]) -> bool:
    kinds = [{_family(value) for value in column} - {"null"} for column in zip(*lists, strict=True)]
    return all(len(each) <= 1 for each in kinds) and len(set().union(*kinds)) > 1 and {"number"} in kinds


def _are_rows(lists: Sequence[list[JSON]]) -> bool:
    """Return whether lists are rows of one table: texts or numbers, also in strings, in each of their columns.

    What says that there is no value agrees with either.  The last columns of a few rows may be missing, if the others
    differ in kind: numbers alone may be lists of any length.
    """
    sizes = Counter(map(len, lists))
    width = max(sizes, default=0)
    if len(lists) < 2 or not 2 <= width <= MOST_COLUMNS or sizes[width] <= len(lists) / 2 or min(sizes) == 0:
        return False
    columns = [{_cell(row[column]) for row in lists if len(row) > column} - {""} for column in range(width)]
    families = {family for each in columns for family in each}
    if any(len(each) > 1 for each in columns) or not {"number"} <= families <= {"number", "string", "boolean"}:
        return False
    return len(sizes) == 1 or len(families) > 1


def _cell(value: JSON) -> str:
    """Return what a cell of a row is; an empty string if it says that there is no value."""
    if value is None or (isinstance(value, str) and stands_for_none(value)):
        return ""
    return "number" if isinstance(value, str) and _NUMERIC.fullmatch(value) else _family(value)


_NUMERIC: Final = re.compile(r"[-+]?[0-9]++(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?", re.ASCII)


def _family(value: JSON) -> str:
    return "number" if _is_number(value) and value is not None else _KINDS[type(value)]


def _is_number(value: JSON) -> bool:
    return value is None or type(value) in (int, float)


def _is_row(value: list[JSON]) -> bool:
    return any(type(item) in (int, float) for item in value) and not any(isinstance(i, (dict, list)) for i in value)


def _keys_that_are_data(found: dict[str, list[JSON]]) -> frozenset[str]:
    """Return the keys that name what is measured rather than how: those of a map, which is worth a `for_each`.

    Either they lead to objects, or lists of objects, that are alike, or to numbers and look like codes.
    """
    nested = {key: inner for key, members in found.items() if (inner := _objects_in(members))}
    coded = [key for key in nested if _CODE.fullmatch(key)]
    if len(coded) > 1 and len(coded) >= len(nested) / 2:
        return frozenset(coded)
    is_mixed = any(not isinstance(value, (dict, list)) for members in found.values() for value in members)
    enough = LEAST_ALIKE if is_mixed else 2  # `before` and `after` beside other members are names
    if len(nested) > 1 and (_look_like_data([*nested]) or (len(nested) >= enough and _are_alike([*nested.values()]))):
        return frozenset(nested)
    numbers = [key for key, members in found.items() if all(type(member) in (int, float) for member in members)]
    if len(numbers) == len(found) > 1 and (_look_like_data(numbers) or _are_codes(numbers)):
        return frozenset(numbers)
    return frozenset(found) if len(found) > MOST_MEMBERS else frozenset()


def _objects_in(members: Sequence[JSON]) -> list[dict[str, JSON]]:
    """Return the objects at a place, or those in the lists there; nothing if there is something else."""
    inner = [item for value in members if isinstance(value, list) for item in value] or members
    return [value for value in inner if isinstance(value, dict)] if all(isinstance(v, dict) for v in inner) else []


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


def _are_alike(members: Sequence[list[dict[str, JSON]]]) -> bool:
    """Return whether the objects under all keys share most of their members, of which at least two are not texts.

    With one, such as {value, unit}, the objects only wrap a value that has a name of its own.
    """
    names = [
        frozenset(
            (key, isinstance(each, str), isinstance(each, (dict, list)))
            for value in values
            for key, each in value.items()
        )
        for values in members
    ]
    common, every = frozenset.intersection(*names), frozenset.union(*names)
    return len(common) >= LEAST_LIKENESS * len(every) and sum(not is_text for _, is_text, _ in common) > 1
