"""Finds what a tree can read of a document, by running it on places instead of values.

The result may name too much, but never too little, whatever the data. tests/test_expressions.py prunes random documents
to it and gets the same results and the same failures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from iggyflux.expressions.syntax import Node
from iggyflux.reads import Reads

_DEEPEST: Final = 128
"""No payload is nested deeper (LANGUAGE 25), so parts of places at this depth are one place, and paths are bounded."""


class _Place:
    """A place in a document, and what is read of it so far."""

    __slots__ = ("depth", "items", "keys", "whole")

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.whole = depth >= _DEEPEST
        self.keys: dict[str, _Place] = {}
        self.items: _Place | None = None

    def key(self, name: str) -> _Place:
        if self.depth >= _DEEPEST:
            return self
        return self.keys.setdefault(name, _Place(self.depth + 1))

    def item(self) -> _Place:
        if self.depth >= _DEEPEST:
            return self
        if self.items is None:
            self.items = _Place(self.depth + 1)
        return self.items

    def read(self, reads: Reads) -> None:
        self.whole = self.whole or reads.whole
        for name, inner in reads.keys.items():
            self.key(name).read(inner)
        if reads.items is not None:
            self.item().read(reads.items)

    def freeze(self) -> Reads:
        if self.whole:
            return Reads.WHOLE
        keys = {name: place.freeze() for name, place in self.keys.items()}
        return Reads(keys=keys, items=None if self.items is None else self.items.freeze())


_LARGEST: Final = 1000
"""Where a value may come from is followed up to this number of parts; `[@, @] | [@, @] | …` doubles it at each step."""


class _Origin:
    """Where a value may come from: any of these places, or a list of these elements, or an object of these members.

    A value that is none of the three was made of places that were read whole, or is a scalar.  `size` counts the parts;
    one that is used twice counts twice.
    """

    __slots__ = ("elements", "members", "places", "size")

    def __init__(
        self,
        places: tuple[_Place, ...] = (),
        elements: _Origin | None = None,
        members: dict[str, _Origin] | None = None,
    ) -> None:
        self.places = places
        self.elements = elements
        self.members = members or {}
        self.size: int = 1 + sum(origin.size for origin in self.members.values())
        if elements is not None:
            self.size += elements.size

    def key(self, name: str) -> _Origin:
        found = _Origin(tuple(place.key(name) for place in self.places))
        return found.either(self.members[name]) if name in self.members else found

    def item(self) -> _Origin:
        found = _Origin(tuple(place.item() for place in self.places))
        return found.either(self.elements) if self.elements is not None else found

    def either(self, other: _Origin) -> _Origin:
        places = self.places + tuple(place for place in other.places if place not in self.places)
        members = dict(self.members)
        for name, origin in other.members.items():
            members[name] = members[name].either(origin) if name in members else origin
        if self.elements is None or other.elements is None:
            return _Origin(places, other.elements if self.elements is None else self.elements, members)
        return _Origin(places, self.elements.either(other.elements), members)

    def read(self, reads: Reads = Reads.WHOLE) -> _Origin:
        """Note that `reads` is read of the value; what is made of it then needs no further notes."""
        for place in self.places:
            place.read(reads)
        if self.elements is not None and (reads.whole or reads.items is not None):
            self.elements.read(Reads.WHOLE if reads.whole else cast(Reads, reads.items))
        for name, origin in self.members.items():
            if reads.whole or name in reads.keys:
                origin.read(Reads.WHOLE if reads.whole else reads.keys[name])
        return _NOTHING


_NOTHING: Final = _Origin()


def find_reads(node: Node, result: Reads) -> tuple[Reads, Reads, dict[int, Reads]]:
    """Return what `node` reads of `@`, of `root()`, of `parent()` by its level, if `result` is read of its value."""
    here, root = _Place(), _Place()
    tracer = _Tracer(_Origin((root,)))
    tracer.trace(node, _Origin((here,))).read(result)
    return here.freeze(), root.freeze(), {level: place.freeze() for level, place in tracer.parents.items()}


class _Tracer:
    """Runs the tree on places instead of values, and notes which of them are read."""

    def __init__(self, root: _Origin) -> None:
        self.root = root
        self.parents: dict[int, _Place] = {}

    def trace(self, node: Node, origin: _Origin) -> _Origin:
        step: Callable[[Node, _Origin], _Origin] = getattr(self, f"trace_{node['type']}")
        found = step(node, origin)
        return found if found.size <= _LARGEST else found.read()

    def trace_current(self, _: Node, origin: _Origin) -> _Origin:
        return origin

    trace_identity = trace_current

    def trace_field(self, node: Node, origin: _Origin) -> _Origin:
        return origin.key(node["value"])

    def trace_literal(self, _: Node, __: _Origin) -> _Origin:
        return _NOTHING

    def trace_index(self, _: Node, origin: _Origin) -> _Origin:
        return origin.item()

    def trace_slice(self, _: Node, origin: _Origin) -> _Origin:
        return _Origin(elements=origin.item())

    def trace_subexpression(self, node: Node, origin: _Origin) -> _Origin:
        for child in node["children"]:
            origin = self.trace(child, origin)
        return origin

    trace_index_expression = trace_subexpression
    trace_pipe = trace_subexpression

    def trace_projection(self, node: Node, origin: _Origin) -> _Origin:
        left, right = node["children"]
        return _Origin(elements=self.trace(right, self.trace(left, origin).item()))

    def trace_filter_projection(self, node: Node, origin: _Origin) -> _Origin:
        left, right, condition = node["children"]
        element = self.trace(left, origin).item()
        self.truth(condition, element)
        return _Origin(elements=self.trace(right, element))

    def trace_value_projection(self, node: Node, origin: _Origin) -> _Origin:
        left, right = node["children"]
        self.trace(left, origin).read()
        self.trace(right, _NOTHING).read()
        return _NOTHING

    def trace_flatten(self, node: Node, origin: _Origin) -> _Origin:
        element = self.trace(node["children"][0], origin).item()
        return _Origin(elements=element.either(element.item()))

    def trace_multi_select_list(self, node: Node, origin: _Origin) -> _Origin:
        element = _NOTHING
        for child in node["children"]:
            element = element.either(self.trace(child, origin))
        return _Origin(elements=element)

    def trace_multi_select_dict(self, node: Node, origin: _Origin) -> _Origin:
        return _Origin(members={child["value"]: self.trace(child["children"][0], origin) for child in node["children"]})

    def trace_comparator(self, node: Node, origin: _Origin) -> _Origin:
        left, right = (self.trace(child, origin) for child in node["children"])
        scalar = any(_is_scalar_literal(child) for child in node["children"])
        if node["value"] in ("eq", "ne") and not scalar:
            left.read()
            right.read()
        # else: a list or an object is unequal to a scalar, and not ordered, whatever it contains
        return _NOTHING

    def truth(self, node: Node, origin: _Origin) -> _Origin:
        result = self.trace(node, origin)
        result.read()
        return result

    def trace_not_expression(self, node: Node, origin: _Origin) -> _Origin:
        self.truth(node["children"][0], origin)
        return _NOTHING

    def trace_or_expression(self, node: Node, origin: _Origin) -> _Origin:
        left, right = node["children"]
        return self.truth(left, origin).either(self.trace(right, origin))

    trace_and_expression = trace_or_expression

    def trace_function_expression(self, node: Node, origin: _Origin) -> _Origin:
        name, children = node["value"], node["children"]
        if name == "root":
            return self.root
        if name == "parent":
            return _Origin((self.parents.setdefault(node["constants"][0], _Place()),))
        plain = [self.trace(child, origin) for child in children if child["type"] != "expref"]
        keys = [child["children"][0] for child in children if child["type"] == "expref"]
        found = [self.trace(key, argument.item()) for key in keys for argument in plain]
        if name in _THROUGH:
            return _THROUGH[name](plain, found)
        for each in (*plain, *found):
            each.read()
        return _NOTHING


def _either(plain: list[_Origin], _: list[_Origin]) -> _Origin:
    result = _NOTHING
    for argument in plain:
        result = result.either(argument)
    return result


def _ordered(plain: list[_Origin], _: list[_Origin]) -> _Origin:
    """Return the elements as they are: keys are numbers or strings, else the call fails, so nothing in them is read."""
    return _Origin(elements=plain[0].item())


def _one_element(plain: list[_Origin], _: list[_Origin]) -> _Origin:
    return plain[0].item()


_KIND_ONLY: Final = ("type", "is_null", "is_boolean", "is_number", "is_string", "is_array", "is_object")
_THROUGH: Final[dict[str, Callable[[list[_Origin], list[_Origin]], _Origin]]] = {
    **dict.fromkeys(_KIND_ONLY, lambda _, __: _NOTHING),
    "not_null": _either,
    "coalesce": _either,
    "map": lambda _, found: _Origin(elements=found[0]),
    "sort_by": _ordered,
    "max_by": _one_element,
    "min_by": _one_element,
    "if": lambda plain, _: _either([origin for origin in plain[1:] if plain[0].read() is not None], []),
    "reverse": lambda plain, _: _Origin(elements=plain[0].item()),
    "enumerate": lambda plain, _: _Origin(elements=_Origin(members={"value": plain[0].item()})),
    "zip": lambda plain, _: _Origin(elements=_Origin(elements=_either([each.item() for each in plain], []))),
    "pair": lambda plain, _: _Origin(elements=_Origin(elements=plain[0].either(plain[1].item()))),
    "to_array": lambda plain, _: plain[0].either(_Origin(elements=plain[0])),
}
"""Functions that read an argument's kind only, or return a part of it: then the use of the result decides."""


def _is_scalar_literal(node: Node) -> bool:
    return node["type"] == "literal" and not isinstance(node["value"], (list, dict))
