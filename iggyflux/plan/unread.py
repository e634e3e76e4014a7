"""Members that a mapping does not read, decoded just far enough to know that they are there.

That no key stands twice is proved by counting: a batch that holds no more keys than it has members repeats none.  That
takes knowing every member of it, also those that nobody reads; messages of one topic mostly have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from iggyflux.plan.layout import NAMEABLE

_MOST_NAMES = 8  # beyond that, counting the keys that are read costs less
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Unread:
    """A decoder of payloads that also keeps members of certain names, undecoded."""

    def __init__(self, payload_type: type[msgspec.Struct], names: Sequence[str]) -> None:
        fields = [
            (f"unread{number}", msgspec.Raw, msgspec.field(default=None, name=name))
            for number, name in enumerate(names)
        ]
        extended = msgspec.defstruct("Payload", fields, bases=(payload_type,), gc=False, frozen=True)
        self._members = [attrgetter(name) for name, *_ in fields]
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(extended).decode

    def count(self, roots: Sequence[Any]) -> int | None:
        """How many members of these names the payloads have; None where one lacks a name, so that nobody knows."""
        if any(None in map(member, roots) for member in self._members):
            return None
        return len(self._members) * len(roots)


def learn_unread(payload_type: type[msgspec.Struct], payload: bytes) -> Unread | None:
    """What payloads like this one hold beside what is read; None where that is nothing, much, or has keys itself."""
    try:
        members = _members.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    read = set(payload_type.__struct_encode_fields__)
    names = [name for name in members if name not in read]
    if not 0 < len(names) <= _MOST_NAMES or any(b'":' in bytes(members[name]) for name in names):
        return None
    if not all(map(NAMEABLE.fullmatch, names)):
        return None
    return Unread(payload_type, names)
