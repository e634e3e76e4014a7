"""Which tags are none, as seen from the others: copies of another tag, and states that change within one source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iggyflux.authoring.inference.elements import Elements
from iggyflux.authoring.inference.places import values_at
from iggyflux.authoring.inference.roles import Place, Role, is_status_code, looks_random, names_a_source
from iggyflux.authoring.inference.words import (
    DIMENSIONS,
    IDENTITIES,
    NUMBERED,
    WORDS_OF_IDS,
    ends_with_word,
    has_word,
    words_of,
)
from iggyflux.records import JSON

CHANGING: Final = 0.5
"""A text is a state if it changes in more than this part of the sources that have several messages."""

_ADDRESSES: Final = frozenset({"eui", "mac", "imei", "sn"})
_SHORT: Final = {"dev": "device"}
"""`devEui` and `deviceName` are ids of one thing."""


def copies_among(elements: Elements, places: Sequence[Place]) -> dict[int, list[Role]]:
    """Return, by place, the role of tags that have the values of another one wherever they are: they say nothing."""
    copies: dict[int, list[Role]] = {}
    columns: list[tuple[Place, list[JSON]]] = []
    for place in sorted(places, key=_as_a_source, reverse=True):
        if place.expression.startswith("header("):
            continue
        column = list(values_at(elements, place))
        beside = [(other, values) for other, values in columns if other.scope == place.scope]
        same = next((other for other, values in beside if _is_in(column, values)), None)
        twin = next(
            (other for other, values in beside if _are_ids_of_one(place, other) and _are_one(column, values)), None
        )
        if same is not None:
            copies[id(place)] = [Role("unused", f"the same as {same.expression}", type="string")]
        elif twin is not None:
            reason = f"it changes only together with {twin.expression}: either tells the source"
            copies[id(place)] = [Role("unused", reason, type="string")]
        else:
            columns.append((place, column))
    return copies


def _as_a_source(place: Place) -> tuple[int, bool, bool, bool]:
    """Return how well a place tells the source: it is always there, by its name, by what it is in, and is readable."""
    around = [step for step in place.path[:-1] if isinstance(step, str)]
    is_in_source = any(has_word(step, IDENTITIES - WORDS_OF_IDS) for step in around)
    is_readable = all(isinstance(value, str) and not looks_random(value) for value in place.shape.distinct)
    return len(place.shape.scalars), names_a_source(place.name), is_in_source, is_readable


def _are_ids_of_one(place: Place, other: Place) -> bool:
    """Return whether both are ids of one thing by their names: `device_id` and `device_serial`, `id` and `name`."""
    named = [{_SHORT.get(word, word) for word in words_of(each.name)} for each in (place, other)]
    owners = [words - WORDS_OF_IDS - _ADDRESSES - NUMBERED for words in named]
    are_ids = all(not words.isdisjoint(WORDS_OF_IDS | _ADDRESSES) for words in named)
    return are_ids and place.path[:-1] == other.path[:-1] and owners[0] == owners[1]


def _are_one(column: Sequence[JSON], other: Sequence[JSON]) -> bool:
    """Return whether two columns with several values change only together."""
    pairs = {
        (str(one), str(two)) for one, two in zip(column, other, strict=True) if one is not None and two is not None
    }
    return len({one for one, _ in pairs}) == len({two for _, two in pairs}) == len(pairs) > 1


def states_among(elements: Elements, places: Sequence[Place]) -> dict[int, list[Role]]:
    """Return, by place, the role of texts that change while the source stays the same: states, not names."""
    states: dict[int, list[Role]] = {}
    sources = _sources_among(places)
    for place in places:
        is_dimension = place.is_label or has_word(place.name, DIMENSIONS | {"key"}) or is_status_code(place)
        if place in sources or not place.path or is_dimension:
            continue
        around = [list(values_at(elements, source)) for source in sources if source.scope == place.scope]
        values: dict[tuple[str, ...], list[JSON]] = {}
        for value, *names in zip(values_at(elements, place), *around, strict=True):
            if value is not None:
                values.setdefault(tuple(map(str, names)), []).append(value)
        repeated = [each for each in values.values() if len(each) > 1]
        changing = [each for each in repeated if len(set(map(str, each))) > 1]
        if around and len(changing) > CHANGING * len(repeated):
            reason = f"a state, which changes within one source: {place.different}"
            states[id(place)] = [Role("field", reason, "string", cast="integer" in place.shape.kinds)]
    return states


def _sources_among(places: Sequence[Place]) -> list[Place]:
    """Return the tags that name sources: by their names, else the one of each scope with the most values."""
    named = [place for place in places if ends_with_word(place.name, IDENTITIES) and place.path]
    if named:
        return named
    found = []
    for scope in {place.scope for place in places}:
        ordered = sorted((place for place in places if place.scope == scope and place.path), key=_variety, reverse=True)
        if len(ordered) > 1 and _variety(ordered[0]) > _variety(ordered[1]):
            found.append(ordered[0])
    return found


def _variety(place: Place) -> int:
    return len(place.shape.distinct)


def _is_in(column: Sequence[JSON], other: Sequence[JSON]) -> bool:
    """Return whether `other` has all values of a column, of which some differ."""
    filled = [(value, there) for value, there in zip(column, other, strict=True) if value is not None]
    return len(filled) > 1 and all(value == there for value, there in filled)
