"""Plain values to bytes of Avro: for examples, generated messages and tests.

Of a union the first branch is written that the value fits; a record fits if it has each field that has no default, and
no other member.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from iggyflux.payloads.avro.schema import MISSING, Node
from iggyflux.payloads.avro.values import unconverted
from iggyflux.payloads.format import MAX_DEPTH
from iggyflux.payloads.places import Step
from iggyflux.records import JSON


class Misfit(ValueError):
    """A value that its type cannot hold; `path` leads to it."""

    def __init__(self, reason: str, value: JSON) -> None:
        super().__init__(reason)
        self.reason, self.value = reason, value
        self.path: tuple[Step, ...] = ()


_BITS = {"int": 31, "long": 63}
_FAULTS = (ValueError, TypeError, OverflowError, AttributeError, KeyError, struct.error)


def write(node: Node, value: JSON, *, logical: bool = True, depth: int = 0) -> bytes:
    """Return `value` as bytes of the type `node`.  Raise Misfit."""
    if depth > 2 * MAX_DEPTH:
        raise Misfit("the value is nested too deeply", value)
    try:
        return b"".join(_parts(node, value, logical, depth))
    except Misfit:
        raise
    except _FAULTS as error:
        raise Misfit(f"expected {node.title}: {error}", value) from None


def long(value: int) -> bytes:
    """Return an integer of 64 bits, as Avro writes all of them."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _parts(node: Node, value: Any, logical: bool, depth: int) -> Iterable[bytes]:
    kind = node.kind
    if kind in ("int", "long", "bytes", "fixed"):
        stored = _stored(node, unconverted(node if logical else Node(kind), value))
        if stored is None:
            raise Misfit(f"expected {node.title}", value)
        return stored
    if kind in _NESTED:
        return _nested(node, value, logical, depth)
    match kind:
        case "null" if value is None:
            return ()
        case "boolean" if type(value) is bool:
            return (b"\1" if value else b"\0",)
        case "double" if type(value) is float or (type(value) is int and value == float(value)):
            return (struct.pack("<d", value),)
        case "float" if type(value) in (int, float):
            packed = struct.pack("<f", value)
            if struct.unpack("<f", packed)[0] == value or not isfinite(value):
                return (packed,)
        case "string" if type(value) is str:
            text = value.encode()
            return (long(len(text)), text)
        case "enum" if value in node.symbols:
            return (long(node.symbols.index(value)),)
    raise Misfit(f"expected {node.title}", value)


def _stored(node: Node, value: Any) -> Iterable[bytes] | None:
    """Return the parts of an integer or of bytes; None for what the type cannot hold."""
    if node.kind in _BITS and type(value) is int and -(1 << _BITS[node.kind]) <= value < 1 << _BITS[node.kind]:
        return (long(value),)
    if node.kind == "bytes" and type(value) is bytes:
        return (long(len(value)), value)
    if node.kind == "fixed" and type(value) is bytes and len(value) == node.size:
        return (value,)
    return None


_NESTED = ("union", "record", "array", "map")
_PYTHON: Mapping[str, Any] = {"record": dict, "array": list, "map": dict}


def _nested(node: Node, value: Any, logical: bool, depth: int) -> Iterable[bytes]:
    if node.kind == "union":
        return _branch(node, value, logical, depth)
    if type(value) is not _PYTHON[node.kind]:
        raise Misfit(f"expected {node.title}", value)
    if node.kind == "record":
        return _record(node, value, logical, depth)
    of = node.inner[0]
    if node.kind == "array":
        items = [_inner(of, each, index, logical, depth) for index, each in enumerate(value)]
    else:
        keys = [name.encode() for name in value]
        pairs = zip(keys, value.items(), strict=True)
        items = [long(len(key)) + key + _inner(of, each, name, logical, depth) for key, (name, each) in pairs]
    return (*((long(len(value)), *items) if items else ()), b"\0")


def _record(node: Node, value: dict[str, Any], logical: bool, depth: int) -> Iterable[bytes]:
    unknown = value.keys() - {member.name for member in node.members}
    if unknown:
        raise Misfit(f"{node.title} has no field {min(unknown)[:60]!r}", value)
    parts = []
    for member in node.members:
        given = value.get(member.name, member.default)
        if given is MISSING:
            raise Misfit(f"{node.title} needs the field {member.name!r}", value)
        parts.append(_inner(member.type, given, member.name, logical, depth))
    return parts


def _inner(node: Node, value: Any, step: Step, logical: bool, depth: int) -> bytes:
    try:
        return write(node, value, logical=logical, depth=depth + 1)
    except Misfit as error:
        error.path = (step, *error.path)
        raise


def _branch(node: Node, value: Any, logical: bool, depth: int) -> Iterable[bytes]:
    refused: list[Misfit] = []
    for index, branch in enumerate(node.inner):
        try:
            return (long(index), write(branch, value, logical=logical, depth=depth + 1))
        except Misfit as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[1]
    raise Misfit(f"no branch fits of {', '.join(each.title for each in node.inner)}", value)
