"""What a schema says of the values of payloads, as expressions see them, whatever language the schema is written in.

A format makes it of its schema; checks of member names read nothing else.  It may allow more than the schema does, but
never less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(slots=True, eq=False)
class Structure:
    """The values at one place; without anything set they are scalars.  Schemas may be circles, so this is a graph."""

    title: str = ""
    """What messages call it, such as `record plant.Reading`."""
    members: Mapping[str, Structure] | None = None
    """Of an object: all the members that it can have."""
    other_names: Mapping[str, str] = field(default_factory=dict)
    """Of an object: what its members are called elsewhere (an alias, a name in the schema), and how expressions do."""
    values: Structure | None = None
    """Of an object with any names: each of its values."""
    items: Structure | None = None
    """Of a list: each of its elements."""
    branches: tuple[Structure, ...] = ()
    """Of a union: one of these."""
    is_open: bool = False
    """Whether it can be anything."""


ANYTHING: Final = Structure(is_open=True)
