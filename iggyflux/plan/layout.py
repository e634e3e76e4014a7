"""What a compiled plan decodes of a payload, and how generated code reaches it.

Two shapes.  `static`: every expression is a plain path, so a payload is decoded into msgspec structs that hold only
those paths, each leaf with the type that is wanted of it.  `dynamic`: something needs a value as a whole (a function, a
filter, a star), so a payload is decoded into dicts and lists and paths are followed at run time.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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
"""The type of a leaf by what it is wanted for; a payload that holds something else goes to the reference plan."""


@dataclass(slots=True)
class Node:
    """A place in a payload: a leaf with what it is `wanted` for, an object with `children`, or a list of `items`."""

    wanted: set[str] = field(default_factory=set)
    children: dict[str, Node] = field(default_factory=dict)
    items: Node | None = None
    name: str = ""
    attribute: str = ""

    def at(self, path: tuple[str, ...]) -> Node:
        """The node at `path`, made where there is none."""
        node = self
        for key in path:
            node = node.children.setdefault(key, Node())
        return node

    def is_sound(self) -> bool:
        """Whether no place is wanted both as a leaf and as something to look into."""
        kinds = bool(self.children) + (self.items is not None) + bool(self.wanted - {"presence"})
        inner = [*self.children.values(), *([self.items] if self.items else [])]
        return kinds <= 1 and all(node.is_sound() for node in inner)

    def leaf_type(self) -> str:
        """The annotation of a leaf."""
        wanted = self.wanted - {"presence"}
        if len(wanted) == 1:
            return LEAVES[next(iter(wanted))]
        return LEAVES["scalar"] if wanted else "Any"

    def leaf_kind(self) -> str:
        """What the decoded leaf is known to be; `any` where it must be looked at."""
        wanted = self.wanted - {"presence"}
        return next(iter(wanted)) if len(wanted) == 1 else "any"


def name_structs(root: Node, title: str) -> Iterator[tuple[Node, str]]:
    """Give every object a class name and every member an attribute; yields (node, source of its class), inner first."""
    taken: set[str] = set()
    yield from _structs(root, title, taken)


def _structs(node: Node, title: str, taken: set[str]) -> Iterator[tuple[Node, str]]:
    attributes: set[str] = set()
    for key, child in node.children.items():
        child.attribute = identifier(key, attributes)
        inner = child.items if child.items is not None else child
        if inner.children or child.items is not None:
            yield from _structs(inner, identifier(key, taken).title().replace("_", "") or "Member", taken)
    node.name = _unique(title, taken)
    lines = []
    renamed = {child.attribute: key for key, child in node.children.items() if child.attribute != key}
    rename = f", rename={renamed!r}" if renamed else ""
    lines.append(f"class {node.name}(Struct, gc=False, frozen=True{rename}):")
    for child in node.children.values():
        if child.items is not None:
            lines.append(f"    {child.attribute}: list[{child.items.name}] | None = None")
        elif child.children:
            # Not optional: a null in its place goes to the reference plan, and nobody has to ask.
            lines.append(f"    {child.attribute}: {child.name} = NO_{child.name.upper()}")
        else:
            lines.append(f"    {child.attribute}: {child.leaf_type()} = None")
    if not node.children:
        lines.append("    pass")
    lines.append(f"NO_{node.name.upper()} = {node.name}()")
    yield node, "\n".join(lines)


_SPOKEN_FOR = {"self", "cls", "bool", "float", "int", "list", "str"}
"""What stands in annotations: an attribute of that name would be taken for it.  The others begin with a capital."""


def identifier(key: str, taken: set[str]) -> str:
    """A Python name for `key` that is not in `taken`, which then has it."""
    name = re.sub(r"\W", "_", key, flags=re.ASCII).strip("_") or "member"
    if name[0].isdigit():
        name = f"n{name}"
    elif name[0].isupper() or name in _SPOKEN_FOR or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        name = f"{name}_"
    return _unique(name, taken)


def _unique(name: str, taken: set[str]) -> str:
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}{number}", number + 1
    taken.add(unique)
    return unique


def keys(node: Node) -> Iterator[tuple[str, Node]]:
    """Every member's key below `node`, with its node; those of list items too."""
    for key, child in node.children.items():
        yield key, child
        yield from keys(child)
        if child.items is not None:
            yield from keys(child.items)


NAMESPACE: dict[str, Any] = {
    "Annotated": Annotated,
    "Any": Any,
    "INT64": INT64,
    "Struct": msgspec.Struct,
    "UINT63": UINT63,
}
"""What the source of structs needs."""
