"""What expressions see of the messages of a type: objects with its fields, under the names that the document takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iggyflux.payloads.protobuf.reading import ANY, MESSAGES, TREES, is_map, is_special
from iggyflux.structure import ANYTHING, Structure

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor


def structure_of(root: Descriptor, *, json_names: bool) -> Structure:
    """Return the structure of a message type; types may hold each other in circles."""
    made: dict[str, Structure] = {}
    waiting: list[tuple[Descriptor, Structure]] = []

    def of(descriptor: Descriptor) -> Structure:
        name = descriptor.full_name
        if name in TREES or name == ANY:
            return ANYTHING
        if is_special(name):
            return Structure()
        if name not in made:
            made[name] = Structure(f"message {name}")
            waiting.append((descriptor, made[name]))
        return made[name]

    def of_field(field: Any) -> Structure:
        if is_map(field):
            return Structure(values=of_field(field.message_type.fields_by_name["value"]))
        single = of(field.message_type) if field.type in MESSAGES else Structure()
        return Structure(items=single) if field.is_repeated else single

    found = of(root)
    while waiting:  # not by recursion: chains of types may be long
        descriptor, structure = waiting.pop()
        members: dict[str, Structure] = {}
        others: dict[str, str] = {}
        for field in descriptor.fields:
            names = (field.json_name, field.name) if json_names else (field.name, field.json_name)
            members[names[0]] = ANYTHING if names[0] in members else of_field(field)
            others[names[1]] = names[0]
        structure.members, structure.other_names = members, others
    return found
