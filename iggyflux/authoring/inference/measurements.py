"""Where the measurement is: a member that says the type of a message, else the topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final

from iggyflux.authoring.inference.elements import Elements
from iggyflux.authoring.inference.places import place_named, values_at
from iggyflux.authoring.inference.proposal import Measurement
from iggyflux.authoring.inference.roles import Place
from iggyflux.authoring.inference.shape import Path
from iggyflux.authoring.inference.wishes import Wishes
from iggyflux.authoring.inference.words import (
    IDENTITIES,
    NAMES_OF_TYPES,
    STATES,
    SURE_NAMES_OF_TYPES,
    has_word,
    words_of,
)
from iggyflux.authoring.samples import SampleError
from iggyflux.errors import PointError
from iggyflux.lineprotocol import check_measurement
from iggyflux.records import JSON

MOST_MEASUREMENTS: Final = 20
"""A member with more values says which source a message is from, not which type it has."""
LEAST_REPEATED: Final = 2
"""A text is the type of a message only if each of its values occurs so often on the average."""
MOST_ALIKE: Final = 0.5
"""Messages are of different types if they share at most this part of their numbers and flags."""


def choose_measurement(elements: Elements, places: Sequence[Place], wishes: Wishes) -> tuple[Measurement, Place | None]:
    """Return the measurement, and the place that it is read from."""
    if wishes.measurement is not None:
        try:
            place = place_named(elements, places, wishes.measurement, "--measurement")
        except SampleError:
            if "." in wishes.measurement:
                raise  # a path, which no sample has
            return Measurement(wishes.measurement, True, "chosen"), None
        return Measurement(place.expression, False, "chosen"), place
    if wishes.topic_per_type:
        return Measurement("meta('topic')", False, "each topic has one type of message"), None
    for name in NAMES_OF_TYPES:
        for place in reversed(places):
            most_deep = 2 if name in SURE_NAMES_OF_TYPES else 1
            if place.depth <= most_deep and " ".join(words_of(place.name)) == name and _can_be_type(place, name):
                return _type(place), place
    for place in places:
        if _tells_types_apart(elements, place):
            return _type(place), place
    return Measurement(
        _plain_name(wishes.topic), True, "the name of the topic; no member says the type of a message"
    ), None


def _type(place: Place) -> Measurement:
    return Measurement(place.expression, False, f"the type of a message: {place.different}; or a constant")


def _can_be_type(place: Place, name: str = "") -> bool:
    """Return whether a place has a valid name of a type in each element."""
    values = place.shape.distinct
    if not place.is_complete or not all(isinstance(value, str) and _is_valid(value) for value in values):
        return False
    if name in NAMES_OF_TYPES and name not in SURE_NAMES_OF_TYPES and len(values) == len(place.shape.scalars) > 2:
        return False
    return (1 if name in SURE_NAMES_OF_TYPES else 2) <= len(values) <= MOST_MEASUREMENTS


def _tells_types_apart(elements: Elements, place: Place) -> bool:
    """Return whether a text decides what else an element has; `name` does so beside `tags` and `fields`."""
    innermost = len(elements.hops)
    if place.scope != innermost or place.depth > 2 or not place.path or not _can_be_type(place):
        return False
    shape = elements.shapes[innermost]
    if place.name == "__name__" or (place.path == ("name",) and {"tags", "fields"} <= shape.members.keys()):
        return True
    count, different = len(place.shape.scalars), len(place.shape.distinct)
    if has_word(place.name, IDENTITIES | STATES) or count < LEAST_REPEATED * different:
        return False
    having: dict[JSON, set[Path]] = {value: set() for value in place.shape.distinct}
    column = list(values_at(elements, place))
    for path, each in elements.walk(innermost):
        if not set(each.kinds) & {"integer", "float", "boolean"}:
            continue
        for value, found in zip(column, values_at(elements, replace(place, path=path)), strict=True):
            if found is not None and isinstance(value, str):
                having[value].add(path)
    pairs = [(one, other) for one, other in combinations(having.values(), 2) if one and other]
    alike = [len(one & other) / len(one | other) for one, other in pairs]
    return bool(alike) and sum(alike) / len(alike) <= MOST_ALIKE


def _is_valid(name: str) -> bool:
    try:
        check_measurement(name)
    except PointError:
        return False
    return len(name) <= 64


def _plain_name(topic: str) -> str:
    kept = "".join(char if char.isalnum() or char in "_-." else "_" for char in topic)
    return kept.strip("_") or "messages"


def constant_type(places: Sequence[Place]) -> str | None:
    """Return the member that names the type of messages, if all samples have one type: others may come."""
    for place in places:
        is_type = place.scope == 0 and place.depth == 1 and " ".join(words_of(place.name)) in NAMES_OF_TYPES
        if is_type and place.is_complete and len(place.shape.distinct) == 1 and place.path:
            return place.expression
    return None
