"""Which list or map of a message is worth a `for_each`: the deepest one that holds most of what is measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from iggyflux.authoring.inference.shape import LEAST_LIKENESS, MOST_POSITIONS, Path, Shape, observe
from iggyflux.authoring.inference.words import IDENTITIES, PLACES, TIMES, ends_with_word, has_word
from iggyflux.records import JSON

_BARE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LITERALS: Final = ("null", "true", "false")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
NUMBERS: Final = "type(value) == 'number'"
ENOUGH_TO_CHANGE: Final = 10
"""What is measured changes within so many messages."""
MOST_HOPS: Final = 4
"""No payload is known that nests what it measures more deeply."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A step into the elements of a list, a map, or of lists side by side (`columns`); `path` leads to it."""

    kind: Literal["list", "map", "zip"]
    path: Path
    elements: Shape
    columns: tuple[Path, ...] = ()
    or_message: bool = False
    """Whether a message without the list is itself an element."""
    only: str = ""
    """The filter that omits elements of another kind."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of the lists that are walked."""
        return self.columns or (self.path,)

    @property
    def name(self) -> str:
        """The name of the list or map; an empty string if the message itself is it."""
        names = [step for step in self.path if isinstance(step, str)]
        return names[-1] if names else ""

    @property
    def expression(self) -> str:
        """The expression that returns the elements."""
        if self.kind == "zip":
            return f"zip({', '.join(map(expression_of, self.columns))})"
        place = expression_of(self.path)
        if self.or_message:
            return f"not_null({place}, [@])"
        place = f"items({place})" if self.kind == "map" else place
        return place + self.only if place != "@" or not self.only else self.only


def expression_of(path: Sequence[str | int], start: str = "") -> str:
    """Return the JMESPath expression of a path; `start` is what it begins with."""
    text = start
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            bare = _BARE.fullmatch(step) and step not in _LITERALS
            if not text and not any(char.isalnum() or char == "_" for char in step):
                text = "@"  # "=" alone is easily taken for a text
            text += ("." if text else "") + (step if bare else json.dumps(step, ensure_ascii=False))
    return text or "@"


@dataclass(frozen=True, slots=True)
class Passed:
    """A list or a map that is not entered, or the rest of one that is; `path` leads to it in its scope."""

    scope: int
    path: Path
    kind: Literal["list", "map", "rest"]
    reason: str
    values: int
    is_measured: bool
    only: str = ""
    """What comes after the path: the filter of the rest, and of a list whose elements are of several kinds."""


@dataclass(frozen=True)
class Elements:
    """The hops from the message to what points are made of, and the shape of the message.  Scope 0 is the message."""

    message: Shape
    hops: tuple[Hop, ...] = ()
    passed_over: tuple[Passed, ...] = field(default=())
    """Lists and maps that are not entered."""

    @property
    def shapes(self) -> list[Shape]:
        """The shape of the message and of the elements of each hop."""
        return [self.message, *(hop.elements for hop in self.hops)]

    @property
    def for_each(self) -> tuple[str, ...]:
        """The expressions of `for_each`, from the outer list to the inner one."""
        return tuple(hop.expression for hop in self.hops)

    def walk(self, scope: int) -> Iterator[tuple[Path, Shape]]:
        """Yield the places of a scope, without those that the next hop walks."""
        hop = self.hops[scope] if scope < len(self.hops) else None
        for path, place in self.shapes[scope].walk(without=frozenset(hop.paths if hop else ())):
            if not _is_beside(path, hop):
                yield path, place

    def from_root(self, scope: int, path: Path) -> str:
        """Return the names that lead to a place of a scope from the message."""
        names = [step for hop in self.hops[:scope] for step in hop.path if isinstance(step, str)]
        if scope and self.hops[scope - 1].kind == "zip" and path and isinstance(path[0], int):
            names, path = [*map(str, self.hops[scope - 1].columns[path[0]])], path[1:]
        return expression_of([*names, *(step for step in path if isinstance(step, str))])

    def start(self, scope: int) -> str:
        """Return the expression of the element of a scope, as points see it; an empty string for `@`."""
        around = len(self.hops) - scope
        if scope == 0:
            return "root()" if self.hops else ""
        return "" if not around else "parent()" if around == 1 else f"parent(`{around}`)"


def find_elements(shape: Shape, most_hops: int = MOST_HOPS, *, has_rows: bool = False) -> Elements:
    """Return the hops that lead to most of what is measured; a message that `has_rows` is always entered."""
    hops: list[Hop] = []
    passed: list[Passed] = []
    here = shape
    while True:
        candidates = list(_candidates(here))
        best = max(candidates, key=lambda hop: _weight_of(hop, here), default=None)
        entered = frozenset(best.paths) if best is not None else frozenset[Path]()
        outside = sum(_own_weight(path, place) for path, place in here.walk(without=entered))
        is_entered = has_rows and not hops and best is not None and not best.path
        if best is None or len(hops) == most_hops or not (is_entered or _is_worth_it(best, outside, here)):
            passed += _passed_over(len(hops), here, candidates, None)
            return Elements(shape, tuple(hops), tuple(passed))
        either = _or_message(best, shape) if not hops else None
        if either is not None:
            shape, best = either
            here = shape
            candidates = list(_candidates(here))
        passed += _passed_over(len(hops), here, candidates, best)
        hops.append(best)
        here = best.elements


def _passed_over(scope: int, here: Shape, candidates: Sequence[Hop], entered: Hop | None) -> Iterator[Passed]:
    """Yield the lists and maps of a scope that are not entered, and what a filter omits of the one that is."""
    seen = set(entered.paths if entered is not None else ())
    for hop in candidates:
        for path in hop.paths:
            if path in seen and (entered is None or hop.kind == entered.kind or path in entered.columns):
                continue
            if entered is not None and entered.kind == "list" and path[: len(entered.path)] == entered.path != path:
                continue  # in the list that is entered, which always has this number of elements
            seen.add(path)
            place = _at(here, path)
            kind: Literal["list", "map"] = "map" if hop.kind == "map" else "list"
            reason = _why_not(hop, entered)
            yield Passed(
                scope, path, kind, reason, *_content(_inside(place, kind)), only="" if hop.columns else hop.only
            )
    for path, place in here.walk():
        if place.irregular:
            reason = "lists of another length, or with texts, beside those that are read by position"
            yield Passed(scope, path, "list", reason, *_content([*place.irregular]))
        if entered is not None and _is_beside(path, entered) and place.is_leaf:
            yield Passed(
                scope, path, "rest", "beside the objects of the map, whose fields are others", *_content(place.values)
            )
    if entered is not None and entered.only:
        omitted = [value for value in _inside(_at(here, entered.path), entered.kind) if not _is_of_kind(value, entered)]
        if omitted and entered.kind == "list":
            reason = "elements of another kind than most"
            opposite = entered.only.replace(" == ", " != ") if " == " in entered.only else ""
            yield Passed(scope, entered.path, "rest", reason, *_content(omitted), only=opposite)


def _is_beside(path: Path, hop: Hop | None) -> bool:
    """Return whether a place is in an object beside those of a map: it is an element too, without its own fields."""
    if hop is None or hop.kind != "map" or path[: len(hop.path)] != hop.path:
        return False
    return len(path) > len(hop.path) + 1


def _at(shape: Shape, path: Path) -> Shape:
    for step in path:
        shape = shape.members[step] if isinstance(step, str) else shape.positions[step]
    return shape


def _inside(place: Shape, kind: str) -> list[JSON]:
    """Return the elements of the lists at a place, or the values of its maps."""
    if kind == "map":
        return [entry["value"] for entry in (place.entries.values if place.entries else ()) if isinstance(entry, dict)]
    return [item for value in place.values if isinstance(value, list) for item in value]


def _is_of_kind(value: JSON, hop: Hop) -> bool:
    """Return whether the filter of a hop takes an element."""
    if "type(" not in hop.only:
        return value is not None or "null" not in hop.only
    return isinstance(value, dict) == ("object" in hop.only) and isinstance(value, list) == ("array" in hop.only)


def _content(values: Sequence[JSON]) -> tuple[int, bool]:
    """Return how many scalars there are in values, and whether some are numbers or flags."""
    count, is_measured = 0, False
    for value in values:
        if isinstance(value, dict | list):
            inner = list(value.values()) if isinstance(value, dict) else value
            more, measured = _content(inner)
            count, is_measured = count + more, is_measured or measured
        elif value is not None:
            count, is_measured = count + 1, is_measured or not isinstance(value, str) or bool(_NUMBER.fullmatch(value))
    return count, is_measured


def _or_message(hop: Hop, shape: Shape) -> tuple[Shape, Hop] | None:
    """Return the shape of the messages with a list, and a hop that takes the others as elements, if they look so."""
    if hop.kind != "list" or len(hop.path) != 1:
        return None
    [name] = hop.path
    messages = [value for value in shape.values if isinstance(value, dict)]
    if len(messages) < len(shape.values):
        return None
    alone = [value for value in messages if name not in value]
    batches: list[JSON] = [value for value in messages if name in value]
    items = hop.elements.members.keys()
    if not alone or not items or any(len(items & value.keys()) < LEAST_LIKENESS * len(items) for value in alone):
        return None
    elements = observe([*hop.elements.values, *alone])
    return observe(batches), Hop("list", hop.path, elements, or_message=True)


def _is_worth_it(hop: Hop, outside: int, here: Shape) -> bool:
    inside = _weight_of(hop, here)
    is_only_thing = not any(place.is_leaf for _, place in here.walk())
    return is_only_thing or (inside > 0 and inside >= outside)


def _why_not(hop: Hop, entered: Hop | None) -> str:
    what = "map" if hop.kind == "map" else "list"
    if entered is not None:
        return f"a {what} beside {entered.name or 'the one of for_each'}"
    return f"a {what} with fewer numbers than what is around it"


def _weight_of(hop: Hop, here: Shape) -> int:
    """Return the weight of the elements of a hop: none of a list that is the same in all messages, such as a schema."""
    values = _at(here, hop.path).values
    if len(values) >= ENOUGH_TO_CHANGE and all(value == values[0] for value in values):
        return 0
    return weight(hop.elements)


def weight(shape: Shape, name: str = "") -> int:
    """Return how many values below look measured: numbers, numbers in strings and booleans; no ids and no times."""
    below = sum(weight(member, key) for key, member in shape.members.items())
    below += sum(weight(each, name) for each in shape.positions)
    items = shape.items if not shape.positions else None
    below += sum(weight(each, name) for each in (shape.entries, items) if each is not None)
    return below + _own_weight((name,), shape)


def _own_weight(path: Path, place: Shape) -> int:
    name = next((step for step in reversed(path) if isinstance(step, str)), "")
    if has_word(name, TIMES | PLACES) or ends_with_word(name, IDENTITIES):
        return 0
    kinds = place.kinds
    strings = sum(_NUMBER.fullmatch(value) is not None for value in place.scalars if isinstance(value, str))
    return kinds["integer"] + kinds["float"] + kinds["boolean"] + strings


# --- candidates ---


def _candidates(shape: Shape) -> Iterator[Hop]:
    for path, place in shape.walk():
        zipped = _side_by_side(path, place)
        if zipped is not None:
            yield zipped
        if place.items is not None and (zipped is None or path not in zipped.columns):
            yield Hop("list", path, place.items, only=_filter(place))
        if place.entries is not None:
            yield Hop("map", path, place.entries, only=_filter_of_map(place.entries) if place.members else "")


def _filter(place: Shape) -> str:
    """Return the filter for a place that is not always a list, or for a list whose elements are not all of one kind."""
    kinds = place.items.kinds if place.items is not None else place.kinds
    all_of_a_list = "" if set(place.kinds) <= {"list", "null"} else "[*]"
    if len(kinds) <= 1 or set(kinds) <= {"integer", "float"}:
        return all_of_a_list
    if kinds["object"] or kinds["list"]:
        kind = "object" if kinds["object"] >= kinds["list"] else "array"
        return f"[?type(@) == '{kind}']"
    return "[?@ != `null`]" if kinds["null"] else all_of_a_list


def _filter_of_map(entries: Shape) -> str:
    kinds = entries.members["value"].kinds
    named = [f"type(value) == '{name}'" for name, kind in (("object", "object"), ("array", "list")) if kinds[kind]]
    return f"[?{' || '.join(named) or NUMBERS}]"


def _side_by_side(path: Path, place: Shape) -> Hop | None:
    """Return a hop into lists of scalars of one object that have the same lengths: columns of a table."""
    columns = {
        name: member
        for name, member in place.members.items()
        if set(member.kinds) == {"list"} and member.values and (member.items or member.positions)
    }
    of_scalars = {
        name: [len(value) for value in member.values if isinstance(value, list)]
        for name, member in columns.items()
        if not (member.items and (member.items.kinds["object"] or member.items.kinds["list"]))
    }
    by_sizes: dict[tuple[int, ...], list[str]] = {}
    for name, sizes in of_scalars.items():
        by_sizes.setdefault(tuple(sizes), []).append(name)
    names = max(by_sizes.values(), key=len, default=[])
    if len(names) < 2:
        return None
    sizes = of_scalars[names[0]]
    first_kinds = {_kind_of_items(columns[name]) for name in names}
    if max(sizes) <= MOST_POSITIONS and len(set(sizes)) == 1 and len(first_kinds) == 1:
        return None
    rows: list[JSON] = []
    for cells in zip(*(columns[name].values for name in names), strict=True):
        rows += [list(row) for row in zip(*(cell for cell in cells if isinstance(cell, list)), strict=False)]
    positions = tuple(observe([row[index] for row in rows if isinstance(row, list)]) for index in range(len(names)))
    elements = Shape(values=rows, positions=positions)
    return Hop("zip", path, elements, tuple((*path, name) for name in names))


def _kind_of_items(column: Shape) -> str:
    scalars = [item for value in column.values if isinstance(value, list) for item in value if item is not None]
    kinds = observe(scalars).kinds
    return "text" if kinds["string"] else "number"
