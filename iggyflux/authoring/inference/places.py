"""The places that can become parts of a point: where they are, what they are called, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from iggyflux.authoring.inference.elements import Elements, expression_of
from iggyflux.authoring.inference.names import key_of
from iggyflux.authoring.inference.proposal import Input
from iggyflux.authoring.inference.roles import Place
from iggyflux.authoring.inference.shape import Path, Shape, observe
from iggyflux.authoring.inference.words import LABELS, words_of
from iggyflux.authoring.samples import SampleError
from iggyflux.errors import listed
from iggyflux.records import JSON

_LIST_MARK: Final = re.compile(r"\[(?:\*|[0-9]*)\]")
NO_SUCH_PLACE: Final = "IFX544"


def find_places(elements: Elements, source: Input, headers: Sequence[Mapping[str, JSON]]) -> list[Place]:
    """Return all places with scalars, those of the message first."""
    found = []
    for scope, shape in enumerate(elements.shapes):
        start = elements.start(scope)
        here = dict(elements.walk(scope))
        for path, place in here.items():
            if place.is_leaf:
                name = next((step for step in reversed(path) if isinstance(step, str)), "")
                key = key_of(path)
                if scope and elements.hops[scope - 1].kind == "zip" and path and isinstance(path[0], int):
                    column = elements.hops[scope - 1].columns[path[0]]
                    name, key = str(column[-1]), key_of(column[-1:])
                depth = len([step for step in path if step != "value"])
                expression = source.captures.get(name) or expression_of(path, start)
                found.append(
                    Place(
                        key=key,
                        name=name,
                        expression=expression,
                        shape=place,
                        of=len(shape.values),
                        scope=scope,
                        depth=depth,
                        path=path,
                        from_root=elements.from_root(scope, path),
                        is_label=_is_label(here, path),
                        in_list=any(here[path[:end]].items is not None for end in range(len(path))),
                        is_new_each=len(elements.message.values) > 1,
                    )
                )
    names = dict.fromkeys(name for each in headers for name in each)
    for name in names:
        values = [each[name] for each in headers if name in each]
        place = observe(values)
        if place.is_leaf:
            expression = f"header({_quoted(name)})"
            found.append(Place(key_of((name,)), name, expression, place, len(headers)))
    return found


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _is_label(here: Mapping[Path, Shape], path: Path) -> bool:
    """Return whether a place is a member of an object such as `labels` whose members are all texts."""
    if len(path) < 2 or not isinstance(path[-2], str) or words_of(path[-2])[-1:] not in {(word,) for word in LABELS}:
        return False
    return all(set(member.kinds) <= {"string", "null"} for member in here[path[:-1]].members.values())


def values_at(elements: Elements, place: Place) -> Iterator[JSON]:
    """Yield the value at a place of each message or element, null where there is none."""
    for value in elements.shapes[place.scope].values:
        found = value
        for step in place.path:
            if isinstance(step, str):
                found = found.get(step) if isinstance(found, dict) else None
            else:
                found = found[step] if isinstance(found, list) and len(found) > step else None
        yield found


def place_named(elements: Elements, places: Sequence[Place], name: str, option: str) -> Place:
    """Return the place that a person named, as in an expression or as seen from the message: `tanks[].level`.

    Raise SampleError if there is none.
    """
    plain = name.removeprefix("root().")
    without_marks = _LIST_MARK.sub("", plain)
    for wanted in (name, plain):
        for place in reversed(places):
            if wanted in (place.expression, place.expression.removeprefix("root()."), place.key, place.name):
                return place
    for place in places:
        if place.from_root == without_marks:
            return place
    for passed in elements.passed_over:
        around = elements.from_root(passed.scope, passed.path)
        if around and without_marks.startswith(f"{around}."):
            reason = f"{option}: {name} is in the {passed.kind} {around}, which the mapping does not walk"
            hint = "a mapping of its own can read it, with a for_each: infer one from messages that have only this list"
            raise SampleError(NO_SUCH_PLACE, reason, 0, hint)
    known = listed({place.expression for place in places}, name)
    raise SampleError(NO_SUCH_PLACE, f"{option}: no sample has a value at {name}", 0, f"there is {known}")
