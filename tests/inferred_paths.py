"""The paths that expressions of a mapping read, as the keys of tests/inference write them: `readings[].celsius`.

An expression is interpreted on places instead of values: `for_each` gives the place of its elements, `items(x)` the
members of a map with their names, `zip` and `pair` places side by side.  What makes a number or text of one place, such
as `parse_number(x)`, is that place.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import jmespath.parser

from iggyflux.expressions import Expression
from iggyflux.mapping import Const, Source, WriterMapping


@dataclass(frozen=True)
class Text:
    """A constant, such as a pattern, a coordinate or a header, whose text is its path."""

    text: str = ""


@dataclass(frozen=True)
class ListOf:
    element: Place


@dataclass(frozen=True)
class Tuple:
    parts: tuple[Place, ...]


@dataclass(frozen=True)
class Record:
    members: tuple[tuple[str, Place], ...]


Place: TypeAlias = "str | Text | ListOf | Tuple | Record"


def paths_of(mapping: WriterMapping, source: Source | None) -> list[str]:
    """Return the paths that a source reads, an empty list for a constant."""
    if source is None or isinstance(source, Const):
        return []
    assert isinstance(source, Expression)
    return paths_of_text(mapping, source.text)


def paths_of_text(mapping: WriterMapping, text: str) -> list[str]:
    """Return the paths that the text of an expression reads in a point of a mapping."""
    elements = elements_of(mapping)
    place = _Reading(elements).read(_parse(text), elements[-1])
    return _texts(place.element if isinstance(place, ListOf) else place)


def elements_of(mapping: WriterMapping) -> list[Place]:
    """Return the places of the message and of the elements of each list of `for_each`, the innermost last."""
    places: list[Place] = [""]
    for each in mapping.writer.for_each:
        places.append(_element(_Reading(places).read(_parse(each.text), places[-1])))
    return places


def each_paths(mapping: WriterMapping) -> list[str]:
    """Return the paths of what `for_each` walks: several for lists side by side."""
    *outer, place = elements_of(mapping)
    if isinstance(place, Record):
        place = dict(place.members)["value"]
    return [*_texts(place), *(text for part in outer for text in _texts(part))]


def _parse(text: str) -> Any:
    return jmespath.parser.Parser().parse(text).parsed


def _texts(place: Place) -> list[str]:
    if isinstance(place, str):
        return [place]
    if isinstance(place, Tuple):
        return [text for part in place.parts for text in _texts(part)]
    if isinstance(place, Text) and place.text:
        return [place.text]
    return []


def _element(place: Place) -> Place:
    if isinstance(place, ListOf):
        return place.element
    return f"{place}[]" if isinstance(place, str) else Text()


def _member(place: Place, name: str) -> Place:
    if isinstance(place, Record):
        return dict(place.members).get(name, Text())
    if not isinstance(place, str):
        return Text()
    written = name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name, ensure_ascii=False)
    return f"{place}.{written}" if place else written


def _position(place: Place, index: int) -> Place:
    if isinstance(place, Tuple):
        return place.parts[index]
    if isinstance(place, ListOf):
        return place.element
    return f"{place}[{index}]" if isinstance(place, str) else Text()


@dataclass(frozen=True)
class _Reading:
    elements: list[Place]

    def read(self, node: Any, here: Place) -> Place:
        kind, value, children = node["type"], node.get("value"), node["children"]
        if kind in ("identity", "current"):
            return here
        if kind == "field":
            return _member(here, value)
        if kind == "index":
            return _position(here, value)
        if kind in ("subexpression", "index_expression", "pipe"):
            for child in children:
                here = self.read(child, here)
            return here
        if kind in ("projection", "filter_projection"):
            left = self.read(children[0], here)
            if kind == "filter_projection" and (by := _equality(children[2])):
                return ListOf(self.read(children[1], f"{left}{by}" if isinstance(left, str) else _element(left)))
            return ListOf(self.read(children[1], _element(left)))
        if kind == "flatten":
            inner = self.read(children[0], here)
            element = _element(inner)
            return element if isinstance(element, ListOf) else ListOf(element)
        if kind == "multi_select_list":
            return Tuple(tuple(self.read(child, here) for child in children))
        if kind == "literal":
            return Text()
        if kind == "function_expression":
            return self.call(value, [self.read(child, here) for child in children], children)
        return Text()

    def call(self, name: str, places: list[Place], nodes: list[Any]) -> Place:
        if name == "root":
            return ""
        if name == "parent":
            return self.elements[-1 - (nodes[0]["value"] if nodes else 1)]
        if name in ("header", "meta"):
            return Text(f"{name}('{nodes[0]['value']}')" if name == "header" else "")
        if name == "items":
            where = places[0]
            return ListOf(
                Record((("key", f"{where}.*~key" if where else "*~key"), ("value", f"{where}.*" if where else "*")))
            )
        if name == "zip":
            return ListOf(Tuple(tuple(map(_element, places))))
        if name == "pair":
            return ListOf(Tuple((places[0], _element(places[1]))))
        if name == "if":
            return places[1]
        if name == "regex_capture" and places[0] == "":
            found = re.search(r"([\w.]+)=[^=]*$", nodes[1]["value"])
            return found[1] if found else Text()
        if name in ("not_null", "coalesce"):
            found = [place for place in places if not isinstance(place, (Text, Tuple))]
            return found[0] if len(found) == 1 else Tuple(tuple(found))
        found = [place for place in places if not isinstance(place, Text)]
        return found[0] if found else Text()


def _equality(node: Any) -> str:
    """Return the step for `[?key == 'a']`; an empty text for another filter."""
    if node["type"] != "comparator" or node.get("value") != "eq":
        return ""
    left, right = node["children"]
    if left["type"] == "field" and right["type"] == "literal" and isinstance(right["value"], str):
        return f"[?{left['value']} == '{right['value']}']"
    return ""
