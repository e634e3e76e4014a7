"""What expressions see of the values of a schema: records with just their fields, under the names of that schema."""

from __future__ import annotations

from iggyflux.payloads.avro.schema import Node, walk
from iggyflux.structure import Structure

_DURATION = ("months", "days", "milliseconds")


def structure_of(root: Node, *, logical: bool) -> Structure:
    """Return the structure of a type; types may hold each other in circles."""
    made = {id(node): (node, Structure(node.title)) for node in walk(root)}
    for node, found in made.values():
        inner = tuple(made[id(each)][1] for each in node.inner)
        if node.kind == "record":
            found.members = {member.name: each for member, each in zip(node.members, inner, strict=True)}
            found.other_names = {alias: member.name for member in node.members for alias in member.aliases}
        elif node.kind == "array":
            (found.items,) = inner
        elif node.kind == "map":
            (found.values,) = inner
        elif node.kind == "union":
            found.branches = inner
        elif logical and node.logical == "duration":
            found.members = {name: Structure() for name in _DURATION}
    return made[id(root)][1]
