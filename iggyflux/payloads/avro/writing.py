"""Plain values to bytes of Avro: for examples, generated messages and tests.

Of a union the first branch is written that the value fits; a record fits if it has each field that has no default, and
no other member.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from math import isfinite
from typing import Any

from iggyflux.payloads.avro.schema import MISSING, Node
from iggyflux.payloads.avro.values import unconverted
from iggyflux.payloads.format import MAX_DEPTH
from iggyflux.records import JSON


class Misfit(ValueError):
    """A value that its type cannot hold."""


_BITS = {"int": 31, "long": 63}
_FAULTS = (ValueError, TypeError, OverflowError, AttributeError, KeyError, struct.error)


def write(node: Node, value: JSON, *, logical: bool = True, depth: int = 0) -> bytes:
    """Return `value` as bytes of the type `node`.  Raise Misfit."""
    if depth > 2 * MAX_DEPTH:
        raise Misfit("the value is nested too deeply")
    try:
        return b"".join(_parts(node, value, logical, depth))
    except Misfit:
        raise
    except _FAULTS as error:
        raise Misfit(f"expected {node.title}: {error}") from None


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
    match kind:
        case "union":
            return _branch(node, value, logical, depth)
        case "null" if value is None:
            return ()
        case "boolean" if type(value) is bool:
            return (b"\1" if value else b"\0",)
        case "int" | "long" if type(value) is not bool:
            number = unconverted(node if logical else Node(kind), value)
            if type(number) is int and -(1 << _BITS[kind]) <= number < 1 << _BITS[kind]:
                return (long(number),)
        case "float" | "double" if type(value) is float or (type(value) is int and value == float(value)):
            packed = struct.pack("<d" if kind == "double" else "<f", value)
            if kind == "double" or struct.unpack("<f", packed)[0] == value or not isfinite(value):
                return (packed,)
        case "string" if type(value) is str:
            text = value.encode()
            return (long(len(text)), text)
        case "bytes":
            raw = unconverted(node if logical else Node(kind), value)
            return (long(len(raw)), raw)
        case "fixed":
            raw = unconverted(node if logical else Node(kind), value)
            if len(raw) == node.size:
                return (raw,)
        case "enum" if value in node.symbols:
            return (long(node.symbols.index(value)),)
        case "array" if type(value) is list:
            items = [write(node.inner[0], each, logical=logical, depth=depth + 1) for each in value]
            return (*((long(len(items)), *items) if items else ()), b"\0")
        case "map" if type(value) is dict:
            pairs = []
            for name, each in value.items():
                key = name.encode()
                pairs += [long(len(key)), key, write(node.inner[0], each, logical=logical, depth=depth + 1)]
            return (*((long(len(value)), *pairs) if pairs else ()), b"\0")
        case "record" if type(value) is dict:
            return _record(node, value, logical, depth)
    raise Misfit(f"expected {node.title}")


def _record(node: Node, value: dict[str, Any], logical: bool, depth: int) -> Iterable[bytes]:
    unknown = value.keys() - {member.name for member in node.members}
    if unknown:
        raise Misfit(f"{node.title} has no field {min(unknown)[:60]!r}")
    parts = []
    for member in node.members:
        given = value.get(member.name, member.default)
        if given is MISSING:
            raise Misfit(f"{node.title} needs the field {member.name!r}")
        parts.append(write(member.type, given, logical=logical, depth=depth + 1))
    return parts


def _branch(node: Node, value: Any, logical: bool, depth: int) -> Iterable[bytes]:
    reasons = []
    for index, branch in enumerate(node.inner):
        try:
            return (long(index), write(branch, value, logical=logical, depth=depth + 1))
        except Misfit as error:
            reasons.append(str(error))
    raise Misfit(reasons[-1] if len(reasons) == 2 else f"no branch fits of {', '.join(each.title for each in node.inner)}")
