"""Fields that the schema does not declare: which messages have some, and which fields they are.

Messages in a row are one message to protobuf, which keeps the unknown fields of all of them; so many are parsed at
once, in a fraction of the time of their decoding, and looked at in smaller groups only if one has such fields.  Each is
parsed alone if what follows may replace a part of it: a member of a `oneof`, or a value of a map, that is a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.unknown_fields import UnknownFieldSet

from iggyflux.payloads.protobuf.reading import is_map

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

_GROUPS: Final = 16
"""In how many groups messages are split of which one has such fields."""
_MOST_BYTES: Final = 1 << 20


class Undeclared:
    """What looks for such fields in messages of one type, of which `safe` bytes at once take little memory."""

    def __init__(self, descriptor: Descriptor, message_class: Any, safe: int) -> None:
        self._parse = message_class.FromString
        self._is_flat = all(_inner_type(field) is None for field in descriptor.fields)
        self._together = not _may_replace(descriptor, set())
        self._most_bytes = min(safe, _MOST_BYTES)

    def find(self, messages: Sequence[bytes]) -> list[int]:
        """Return the indices of messages, all of which can be parsed, that have such fields at any depth."""
        found: list[int] = []
        everything = range(len(messages))
        waiting = [everything] if self._together else _split(everything, 1)
        while waiting:
            part = waiting.pop()
            if len(part) <= 1:
                found += [index for index in part if self.is_in(self._parse(messages[index]))]
                continue
            joined = b"".join(messages[part.start : part.stop])
            if len(joined) > self._most_bytes or _shrinks(self._parse(joined)):
                waiting += _split(part, -(-len(part) // _GROUPS))
        return sorted(found)

    def is_in(self, message: Any) -> bool:
        """Return whether a parsed message has such fields; it loses some of them."""
        return bool(UnknownFieldSet(message)) or (not self._is_flat and _shrinks(message))

    def fields(self, message: bytes) -> dict[str, set[int]]:
        """Return the numbers of such fields by the name of the type that does not declare them."""
        found: dict[str, set[int]] = {}
        waiting = [self._parse(message)]
        while waiting:
            each = waiting.pop()
            unknown: Any = UnknownFieldSet(each)
            for field in unknown:
                found.setdefault(each.DESCRIPTOR.full_name, set()).add(field.field_number)
            for field, value in each.ListFields():
                if _inner_type(field) is not None:
                    waiting += value.values() if is_map(field) else value if field.is_repeated else [value]
        return found


def _shrinks(message: Any) -> bool:
    """Return whether a message has such fields, and remove them; in one with a thousand of them this is faster."""
    size = size_of(message)
    message.DiscardUnknownFields()
    return size_of(message) != size


def size_of(message: Any) -> int:
    """Return the bytes that a message takes; its own `ByteSize` raises if a field that proto2 requires is missing."""
    return len(message.SerializePartialToString())


def _split(part: range, width: int) -> list[range]:
    return [part[at : at + width] for at in range(0, len(part), width)]


def _inner_type(field: Any) -> Descriptor | None:
    """Return the type of messages that are the values of a field or map."""
    inner: Descriptor | None = field.message_type
    return _inner_type(inner.fields_by_name["value"]) if inner is not None and is_map(field) else inner


def _may_replace(descriptor: Descriptor, seen: set[str]) -> bool:
    """Whether a message that follows another may replace, and not only merge, a message in it."""
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        inner, choice = _inner_type(field), field.containing_oneof
        if inner is None or (field.is_repeated and not is_map(field)):  # elements are only added
            continue
        if is_map(field) or (choice is not None and len(choice.fields) > 1):
            return True
        if inner.full_name not in seen and _may_replace(inner, seen):
            return True
    return False
