"""The differences between two JSON values; applied to the first they give the second.

Types count (1 is not 1.0, -0.0 is not 0.0), the order of an object's members does not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, TypeAlias

from iggyflux.records import JSON

Path: TypeAlias = tuple[str | int, ...]
_MOST_PAIRED = 64


@dataclass(frozen=True, slots=True)
class Change:
    """The value at one path before and after; None for a missing member."""

    kind: Literal["missing", "added", "changed", "order"]
    path: Path
    before: JSON = None
    after: JSON = None


def same(one: JSON, other: JSON) -> bool:
    """Return whether two values are equal in value and type."""
    return _key(one) == _key(other)


def changes(before: JSON, after: JSON, path: Path = ()) -> Iterator[Change]:
    """Yield the changes that turn `before` into `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name not in after:
                yield Change("missing", (*path, name), value)
            else:
                yield from changes(value, after[name], (*path, name))
        for name, value in after.items():
            if name not in before:
                yield Change("added", (*path, name), None, value)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        if sorted(map(repr, map(_key, before))) == sorted(map(repr, map(_key, after))):
            if not same(before, after):
                yield Change("order", path, before, after)
            return
        partners = _partners(before, after)
        for index, partner in enumerate(partners):
            yield from changes(before[index], after[partner], (*path, index))
        if partners != list(range(len(before))):
            yield Change("order", path, before, after)
    elif not same(before, after):
        yield Change("changed", path, before, after)


def most_alike(value: JSON, others: Sequence[JSON]) -> JSON:
    """Return which of `others` has the most leaves of `value`, by the last name of their paths; the first of equals."""
    return max(others, key=lambda other: _likeness(value, other), default=None)


def _likeness(one: JSON, other: JSON) -> int:
    """Return how many leaves two values have in common; numbers are compared by value, whatever their type."""
    there = {(_name(path), _number(value)) for path, value in leaves(other)}
    return sum((_name(path), _number(value)) in there for path, value in leaves(one))


def _name(path: Path) -> str | int | None:
    return path[-1] if path else None


def _number(value: JSON) -> object:
    return (type(value).__name__, repr(value)) if isinstance(value, (bool, str, list, dict)) or value is None else value


def _partners(before: Sequence[JSON], after: Sequence[JSON]) -> list[int]:
    """Return for each element the index of the one that it became: the most alike, and by place where none is.

    Long lists are paired by place.
    """
    if len(before) > _MOST_PAIRED:
        return list(range(len(before)))
    pairs = [
        (-_likeness(one, other), index != partner, index, partner)
        for index, one in enumerate(before)
        for partner, other in enumerate(after)
    ]
    found: dict[int, int] = {}
    for _, _, index, partner in sorted(pairs):
        if index not in found and partner not in found.values():
            found[index] = partner
    return [found[index] for index in range(len(before))]


def applied(before: JSON, found: Sequence[Change]) -> JSON:
    """Return `before` with the changes `found`."""
    value = deepcopy(before)
    for change in found:
        if not change.path:
            value = change.after
            continue
        *way, last = change.path
        place: JSON = value
        for step in way:
            place = place[step]  # type: ignore[index]  # a path leads through objects and lists
        if change.kind == "missing":
            del place[last]  # type: ignore[arg-type, union-attr]
        else:
            place[last] = change.after  # type: ignore[index]
    return value


def leaves(value: JSON, path: Path = ()) -> Iterator[tuple[Path, JSON]]:
    """Yield the scalars and the empty objects and lists of a value, with their paths."""
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from leaves(member, (*path, name))
    elif isinstance(value, list) and value:
        for index, element in enumerate(value):
            yield from leaves(element, (*path, index))
    else:
        yield path, value


def _key(value: JSON) -> object:
    if isinstance(value, dict):
        return "object", tuple(
            sorted(((name, _key(member)) for name, member in value.items()), key=lambda pair: pair[0])
        )
    if isinstance(value, list):
        return "list", tuple(map(_key, value))
    if isinstance(value, float):
        return "float", struct.pack(">d", value)
    return type(value).__name__, value
