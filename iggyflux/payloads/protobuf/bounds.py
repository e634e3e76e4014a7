"""How many values a payload may become, found before it is parsed: two bytes may be a message of a thousand fields.

Only payloads that could need more memory than `SAFE_BYTES` are looked through, and only as far as the bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

from iggyflux.payloads.format import too_many

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

SAFE_BYTES: Final = 128 << 20
_LEAST_BYTES: Final = 32
_FIELD_BYTES: Final = 8
_LEAST_ON_THE_WIRE: Final = 2
_FIXED: Final = {1: 8, 5: 4}

Kinds: TypeAlias = dict[int, tuple[int, Any]]
"""The fields of a type that are messages: how many values one is, and its own `Kinds`, by the number of the field."""


def spend(budget: list[int], count: int) -> None:
    """Take so many values from a budget; raise DecodeError if it has less."""
    budget[0] -= count
    if budget[0] < 0:
        raise too_many()


class Bounds:
    """The bound of one message type."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._found: dict[str, Kinds] = {}
        self._widest = 0
        self._kinds = self._kinds_of(descriptor)
        self.safe = SAFE_BYTES * _LEAST_ON_THE_WIRE // (_LEAST_BYTES + _FIELD_BYTES * self._widest)

    def _kinds_of(self, descriptor: Any) -> Kinds:
        if descriptor.full_name not in self._found:
            kinds = self._found[descriptor.full_name] = {}
            self._widest = max(self._widest, len(descriptor.fields))
            for field in descriptor.fields:
                if field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_GROUP):
                    inner = self._kinds_of(field.message_type)
                    kinds[field.number] = (1 + len(field.message_type.fields), inner)
        return self._found[descriptor.full_name]

    def check(self, payload: bytes, budget: list[int]) -> None:
        """Raise DecodeError if a payload has messages of more values than the budget; a fault ends the look."""
        if len(payload) > self.safe:
            left = list(budget)
            stack = [(0, len(payload), self._kinds)]
            try:
                while stack:
                    _look(payload, *stack.pop(), left, stack)
            except IndexError:
                pass


def _look(
    payload: bytes, at: int, end: int, kinds: Kinds, left: list[int], stack: list[tuple[int, int, Kinds]]
) -> None:
    """Count the messages in the fields of one message, and put their contents on `stack`."""
    around: list[Kinds] = []
    while at < end:
        tag, at = _varint(payload, at)
        wire = tag & 7
        if wire == 0:
            _, at = _varint(payload, at)
        elif wire in _FIXED:
            at += _FIXED[wire]
        elif wire == 4:
            kinds = around.pop()
        else:
            width, inner = kinds.get(tag >> 3, (0, None))
            if width:
                spend(left, width)
            if wire == 2:
                length, at = _varint(payload, at)
                if inner:
                    stack.append((at, min(at + length, end), inner))
                at += length
            else:  # a group, or a fault
                around.append(kinds)
                kinds = inner or {}


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = payload[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise IndexError
