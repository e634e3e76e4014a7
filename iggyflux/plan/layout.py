"""What a compiled plan decodes of a payload, and how generated code accesses it.

There are two shapes.  `static`: every expression is a plain path, so a payload is decoded into msgspec structs that
hold only those paths, each leaf with the wanted type.  `dynamic`: something needs a whole value (a function, a filter,
a star), so a payload is decoded into dicts and lists, and paths are followed at run time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Annotated, Any

import msgspec

from iggyflux.lineprotocol import MAX_INTEGER, MIN_INTEGER

INT64 = msgspec.Meta(ge=MIN_INTEGER, le=MAX_INTEGER)
UINT63 = msgspec.Meta(ge=0, le=MAX_INTEGER)

LEAVES: dict[str, str] = {
    "float": "float | None",
    "integer": "Annotated[int, INT64] | None",
    "unsigned": "Annotated[int, UINT63] | None",
    "string": "str | None",
    "boolean": "bool | None",
    "scalar": "str | int | float | bool | None",
    "number": "int | float | str | None",
}
"""The type of a leaf by what it is wanted for; a payload with another type goes to the reference plan."""


NAMEABLE = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*')
"""The member names that msgspec accepts for a struct: those that JSON writes without escapes."""
MOST_NESTED = 32
"""The most members of a path that becomes classes."""


@dataclass(slots=True)
class PayloadNode:
    """A place in a payload: a leaf with what it is `wanted` for, an object with `children`, or a list of `items`."""

    wanted: set[str] = field(default_factory=set)
    children: dict[str, PayloadNode] = field(default_factory=dict)
    items: PayloadNode | None = None
    name: str = ""
    attribute: str = ""

    def at(self, path: tuple[str, ...]) -> PayloadNode:
        """Return the node at `path`, created if missing."""
        node = self
        for key in path:
            node = node.children.setdefault(key, PayloadNode())
        return node

    @property
    def missing(self) -> str:
        """The name of the empty object that replaces this one where a payload lacks it."""
        return f"NO_{self.name.upper()}"

    def is_nameable(self) -> bool:
        """Return whether structs can have these members: no name that JSON must escape."""
        inner = [*self.children.values(), *([self.items] if self.items else [])]
        return all(map(NAMEABLE.fullmatch, self.children)) and all(node.is_nameable() for node in inner)

    def is_sound(self) -> bool:
        """Return whether no place is wanted both as a leaf and as an object or list."""
        kinds = bool(self.children) + (self.items is not None) + bool(self.wanted - {"presence"})
        inner = [*self.children.values(), *([self.items] if self.items else [])]
        return kinds <= 1 and all(node.is_sound() for node in inner)

    def leaf_type(self) -> str:
        """Return the annotation of a leaf."""
        wanted = self.wanted - {"presence"}
        if not wanted or "any" in wanted:
            return "Any"
        return LEAVES[next(iter(wanted)) if len(wanted) == 1 else "scalar"]

    def leaf_kind(self) -> str:
        """Return the known kind of the decoded leaf; `any` if it must be checked."""
        wanted = self.wanted - {"presence"}
        return next(iter(wanted)) if len(wanted) == 1 else "any"


def name_structs(root: PayloadNode, title: str) -> Iterator[tuple[PayloadNode, str]]:
    """Name every object's class and every member's attribute; yield (node, source of its class), inner ones first.

    No name in the source comes from a key: keys appear only in `rename` and in comments.
    """
    yield from _structs(root, title, count(1), count(1))


def _structs(
    node: PayloadNode, title: str, classes: Iterator[int], attributes: Iterator[int]
) -> Iterator[tuple[PayloadNode, str]]:
    for child in node.children.values():
        child.attribute = f"m{next(attributes)}"
        inner = child.items if child.items is not None else child
        if inner.children or child.items is not None:
            yield from _structs(inner, f"Object{next(classes)}", classes, attributes)
    node.name = title
    renamed = {child.attribute: key for key, child in node.children.items()}
    rename = f", rename={renamed!r}" if renamed else ""
    lines = [f"class {node.name}(Struct, gc=False, frozen=True{rename}):"]
    for child in node.children.values():
        if child.items is not None:
            declared = f"list[{child.items.name}] | None = None"
        elif child.children:
            # Not optional: a null here goes to the reference plan, so generated code need not check.
            declared = f"{child.name} = {child.missing}"
        else:
            declared = f"{child.leaf_type()} = None"
        lines.append(f"    {child.attribute}: {declared}")
    if not node.children:
        lines.append("    pass")
    lines.append(f"{node.missing} = {node.name}()")
    yield node, "\n".join(lines)


NAMESPACE: dict[str, Any] = {
    "Annotated": Annotated,
    "Any": Any,
    "INT64": INT64,
    "Struct": msgspec.Struct,
    "UINT63": UINT63,
}
"""The names that the source of structs needs."""
