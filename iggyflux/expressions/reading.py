"""Which places of a document a tree can look into, found by running it on places in the stead of values.

Sound, never exact: what is looked into is noted, whatever the data will be.  tests/test_expressions.py prunes random
documents to what is noted and finds the same results and the same failures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from iggyflux.expressions.syntax import Node
from iggyflux.reads import Reads

_DEEPEST: Final = 128
"""No payload is nested deeper (LANGUAGE 25), so what stands there is not told apart, and no path is too long for us."""


class _Place:
    """A place in a document, and what is read there so far."""

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


class _Seen:
    """What a value may be: any of these places, or a list of these elements, or an object of these members.

    What is none of the three was made of places that were read whole, or is a scalar.
    """

    __slots__ = ("elements", "members", "places")

    def __init__(
        self, places: tuple[_Place, ...] = (), elements: _Seen | None = None, members: dict[str, _Seen] | None = None
    ) -> None:
        self.places = places
        self.elements = elements
        self.members = members or {}

    def key(self, name: str) -> _Seen:
        found = _Seen(tuple(place.key(name) for place in self.places))
        return found.either(self.members[name]) if name in self.members else found

    def item(self) -> _Seen:
        found = _Seen(tuple(place.item() for place in self.places))
        return found.either(self.elements) if self.elements is not None else found

    def either(self, other: _Seen) -> _Seen:
        places = self.places + tuple(place for place in other.places if place not in self.places)
        members = dict(self.members)
        for name, seen in other.members.items():
            members[name] = members[name].either(seen) if name in members else seen
        if self.elements is None or other.elements is None:
            return _Seen(places, other.elements if self.elements is None else self.elements, members)
        return _Seen(places, self.elements.either(other.elements), members)

    def read(self, reads: Reads = Reads.WHOLE) -> _Seen:
        """Note that `reads` is read of it; what then comes of it needs nothing more."""
        for place in self.places:
            place.read(reads)
        if self.elements is not None and (reads.whole or reads.items is not None):
            self.elements.read(Reads.WHOLE if reads.whole else cast(Reads, reads.items))
        for name, seen in self.members.items():
            if reads.whole or name in reads.keys:
                seen.read(Reads.WHOLE if reads.whole else reads.keys[name])
        return _NOTHING


_NOTHING: Final = _Seen()


def find_reads(node: Node, result: Reads) -> tuple[Reads, Reads]:
    here, root = _Place(), _Place()
    _Tracer(_Seen((root,))).trace(node, _Seen((here,))).read(result)
    return here.freeze(), root.freeze()


class _Tracer:
    """Runs the tree on places in the stead of values, and notes which of them are looked into."""

    def __init__(self, root: _Seen) -> None:
        self.root = root

    def trace(self, node: Node, seen: _Seen) -> _Seen:
        step: Callable[[Node, _Seen], _Seen] = getattr(self, f"trace_{node['type']}")
        return step(node, seen)

    def trace_current(self, _: Node, seen: _Seen) -> _Seen:
        return seen

    trace_identity = trace_current

    def trace_field(self, node: Node, seen: _Seen) -> _Seen:
        return seen.key(node["value"])

    def trace_literal(self, _: Node, __: _Seen) -> _Seen:
        return _NOTHING

    def trace_index(self, _: Node, seen: _Seen) -> _Seen:
        return seen.item()

    def trace_slice(self, _: Node, seen: _Seen) -> _Seen:
        return _Seen(elements=seen.item())

    def trace_subexpression(self, node: Node, seen: _Seen) -> _Seen:
        for child in node["children"]:
            seen = self.trace(child, seen)
        return seen

    trace_index_expression = trace_subexpression
    trace_pipe = trace_subexpression

    def trace_projection(self, node: Node, seen: _Seen) -> _Seen:
        left, right = node["children"]
        return _Seen(elements=self.trace(right, self.trace(left, seen).item()))

    def trace_filter_projection(self, node: Node, seen: _Seen) -> _Seen:
        left, right, condition = node["children"]
        element = self.trace(left, seen).item()
        self.truth(condition, element)
        return _Seen(elements=self.trace(right, element))

    def trace_value_projection(self, node: Node, seen: _Seen) -> _Seen:
        left, right = node["children"]
        self.trace(left, seen).read()
        self.trace(right, _NOTHING).read()
        return _NOTHING

    def trace_flatten(self, node: Node, seen: _Seen) -> _Seen:
        element = self.trace(node["children"][0], seen).item()
        return _Seen(elements=element.either(element.item()))

    def trace_multi_select_list(self, node: Node, seen: _Seen) -> _Seen:
        element = _NOTHING
        for child in node["children"]:
            element = element.either(self.trace(child, seen))
        return _Seen(elements=element)

    def trace_multi_select_dict(self, node: Node, seen: _Seen) -> _Seen:
        return _Seen(members={child["value"]: self.trace(child["children"][0], seen) for child in node["children"]})

    def trace_comparator(self, node: Node, seen: _Seen) -> _Seen:
        left, right = (self.trace(child, seen) for child in node["children"])
        scalar = any(_is_scalar_literal(child) for child in node["children"])
        if node["value"] in ("eq", "ne") and not scalar:
            left.read()
            right.read()
        # else: what is not a scalar is unequal to one, and not ordered, whatever is in it
        return _NOTHING

    def truth(self, node: Node, seen: _Seen) -> _Seen:
        result = self.trace(node, seen)
        result.read()
        return result

    def trace_not_expression(self, node: Node, seen: _Seen) -> _Seen:
        self.truth(node["children"][0], seen)
        return _NOTHING

    def trace_or_expression(self, node: Node, seen: _Seen) -> _Seen:
        left, right = node["children"]
        return self.truth(left, seen).either(self.trace(right, seen))

    trace_and_expression = trace_or_expression

    def trace_function_expression(self, node: Node, seen: _Seen) -> _Seen:
        name, children = node["value"], node["children"]
        if name == "root":
            return self.root
        plain = [self.trace(child, seen) for child in children if child["type"] != "expref"]
        keys = [child["children"][0] for child in children if child["type"] == "expref"]
        found = [self.trace(key, argument.item()) for key in keys for argument in plain]
        if name in _THROUGH:
            return _THROUGH[name](plain, found)
        for each in (*plain, *found):
            each.read()
        return _NOTHING


def _either(plain: list[_Seen], _: list[_Seen]) -> _Seen:
    result = _NOTHING
    for argument in plain:
        result = result.either(argument)
    return result


def _ordered(plain: list[_Seen], _: list[_Seen]) -> _Seen:
    """The keys are numbers or texts, or the call fails for their kind: what has parts is never looked into."""
    return _Seen(elements=plain[0].item())


def _chosen(plain: list[_Seen], _: list[_Seen]) -> _Seen:
    return plain[0].item()


_KIND_ONLY: Final = ("type", "is_null", "is_boolean", "is_number", "is_string", "is_array", "is_object")
_THROUGH: Final[dict[str, Callable[[list[_Seen], list[_Seen]], _Seen]]] = {
    **dict.fromkeys(_KIND_ONLY, lambda _, __: _NOTHING),
    "not_null": _either,
    "coalesce": _either,
    "map": lambda _, found: _Seen(elements=found[0]),
    "sort_by": _ordered,
    "max_by": _chosen,
    "min_by": _chosen,
    "if": lambda plain, _: _either([seen for seen in plain[1:] if plain[0].read() is not None], []),
    "reverse": lambda plain, _: _Seen(elements=plain[0].item()),
    "enumerate": lambda plain, _: _Seen(elements=_Seen(members={"value": plain[0].item()})),
    "zip": lambda plain, _: _Seen(elements=_Seen(elements=_either([each.item() for each in plain], []))),
    "pair": lambda plain, _: _Seen(elements=_Seen(elements=plain[0].either(plain[1].item()))),
    "to_array": lambda plain, _: plain[0].either(_Seen(elements=plain[0])),
}
"""Functions that look at the kind of an argument only, or hand a part of one on: what is read is up to who gets it.
"""


def _is_scalar_literal(node: Node) -> bool:
    return node["type"] == "literal" and not isinstance(node["value"], (list, dict))
