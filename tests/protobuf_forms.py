"""Payloads of protobuf with the shapes of products: types are drawn, and messages of them.

A writer of tests writes the wire format.  The value of a message is what its type and docs/protobuf.md say of it;
nothing is decoded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from google.protobuf import descriptor_pb2, timestamp_pb2

from iggyflux.lineprotocol import Unsigned
from tests.forms import DOUBLES, STRINGS, UNKNOWN, Form, Payload, as_base64, rows_of, vocabulary_of_value
from tests.independent_evaluation import Failed
from tests.payload_shapes import SHAPES, Members, Token, parse
from tests.protobuf_payloads import set_descriptors, tagged, varint, zigzag
from tests.schema_documents import is_one_in

_NUMBERS: dict[str, tuple[int, int, Callable[[Any], bytes], list[Any]]] = {
    "int64": (3, 0, varint, [2**63 - 1, -(2**63), 0]),
    "uint64": (4, 0, varint, [2**64 - 1, 0]),
    "sint64": (18, 0, lambda value: varint(zigzag(value)), [2**63 - 1, -(2**63), 0]),
    "fixed64": (6, 1, lambda value: struct.pack("<Q", value), [2**64 - 1, 0]),
    "sfixed64": (16, 1, lambda value: struct.pack("<q", value), [2**63 - 1, -(2**63), 0]),
    "int32": (5, 0, varint, [2**31 - 1, -(2**31), 0]),
    "uint32": (13, 0, varint, [2**32 - 1, 0]),
    "sint32": (17, 0, lambda value: varint(zigzag(value)), [2**31 - 1, -(2**31), 0]),
    "fixed32": (7, 5, lambda value: struct.pack("<I", value), [2**32 - 1, 0]),
    "sfixed32": (15, 5, lambda value: struct.pack("<i", value), [2**31 - 1, -(2**31), 0]),
}
_STATES = {0: "IDLE", 1: "FIRING", -2: "COOLING"}


@dataclass(frozen=True)
class _Kind:
    """A type of protobuf: its number, its wire type, what writes a value, what a value is, and other values."""

    number: int
    wire: int
    write: Callable[[Any], bytes]
    plain: Callable[[Any], Any]
    usual: Any
    others: Sequence[Any]
    default: Any = 0
    type_name: str = ""

    @property
    def is_packable(self) -> bool:
        return self.wire != 2


@dataclass(frozen=True)
class _Field:
    """A field: `label` is one of plain, optional, repeated, map; a message has `inner`."""

    number: int
    name: str
    label: str
    kind: _Kind | None
    inner: _Type | None = None


@dataclass(frozen=True)
class _Options:
    json_names: bool
    enum_names: bool
    defaults: bool


def _number_kind(token: str, random: Random) -> _Kind:
    value = int(token)
    fitting = [name for name, (_, _, _, most) in _NUMBERS.items() if min(most) <= value <= max(most)]
    name = random.choice(fitting)
    number, wire, write, others = _NUMBERS[name]
    plain = Unsigned if name.startswith(("u", "fixed")) else int
    return _Kind(number, wire, write, plain, value, others, plain(0))


def _float_kind(token: str, random: Random) -> _Kind:
    if is_one_in(2, random):
        return _Kind(1, 1, lambda value: struct.pack("<d", value), float, float(token), DOUBLES, 0.0)
    rounded = struct.unpack("<f", struct.pack("<f", float(token)))[0]
    return _Kind(2, 5, lambda value: struct.pack("<f", value), float, rounded, [0.0, -0.0, 1.5, 2.0**-149], 0.0)


_TEXT = _Kind(9, 2, str.encode, str, "x", STRINGS, "")


def _time(value: tuple[int, int]) -> bytes:
    return timestamp_pb2.Timestamp(seconds=value[0], nanos=value[1]).SerializeToString()


class _Type:
    """A message type made of the members of a tree."""

    def __init__(self, name: str, tree: Members, random: Random, is_root: bool = False) -> None:
        self.name = name
        self.fields: list[_Field] = []
        self._taken: set[str] = set()
        self._random = random
        members = {key: value for key, value in tree if re.fullmatch(r"[A-Za-z]\w*", key, re.ASCII)}
        self.rest = {key: str(value) for key, value in tree if key not in members and isinstance(value, str)}
        for key, value in members.items():
            self._add(key, value)
        if self.rest:
            self._field("other_members", "map", _TEXT)
        if is_root:
            state = _Kind(14, 0, varint, lambda value: value, 1, [0, -2, 9], 0, ".plant.State")
            self._field("the_state", random.choice(["plain", "optional", "repeated"]), state)
            self._field(
                "raw_bytes", random.choice(["plain", "optional"]), _Kind(12, 2, bytes, as_base64, b"\0\xff", [b""], "")
            )
            at = _Kind(
                11,
                2,
                _time,
                _as_time,
                (1_772_366_400, 1),
                [(0, 0), (-1, 999_999_999)],
                None,
                ".google.protobuf.Timestamp",
            )
            self._field("taken_at", random.choice(["optional", "repeated"]), at)
            self._field("some_count", "optional", _number_kind("7", random))

    def _field(self, name: str, label: str, kind: _Kind | None, inner: _Type | None = None) -> None:
        if camel(name).lower() not in self._taken:
            self._taken.add(camel(name).lower())
            number = self._random.choice([len(self.fields) + 1, len(self.fields) + 100])
            self.fields.append(_Field(number, name, label, kind, inner))

    def _add(self, name: str, value: Any, label: str = "") -> None:
        random = self._random
        if isinstance(value, Members):
            inner = _Type(f"M{len(self.fields)}", value, random)
            self._field(name, label or "optional", None, inner)
        elif isinstance(value, list):
            if (value and not isinstance(value[0], list)) or isinstance(value[0] if value else None, Members):
                self._add(name, value[0], "repeated")
        else:
            label = label or random.choice(["plain", "plain", "optional"])
            if isinstance(value, Token):
                whole = re.fullmatch(r"-?\d{1,18}", value)
                self._field(name, label, (_number_kind if whole else _float_kind)(value, random))
            elif isinstance(value, bool):
                self._field(name, label, _Kind(8, 0, varint, bool, value, [True, False], False))
            else:
                usual = "" if value is None else str(value)
                self._field(name, label, _Kind(9, 2, str.encode, str, usual, STRINGS, ""))

    def descriptor(self, into: Any, path: str) -> None:
        """Declare the type in `into`, a DescriptorProto, whose full name is `path`."""
        into.name = self.name
        for each in self.fields:
            label = 3 if each.label in ("repeated", "map") else 1
            field = into.field.add(name=each.name, number=each.number, label=label)
            if each.inner is not None:
                field.type, field.type_name = 11, f"{path}.{each.inner.name}"
                each.inner.descriptor(into.nested_type.add(), field.type_name)
            elif each.label == "map":
                entry = into.nested_type.add(name="".join(map(str.capitalize, each.name.split("_"))) + "Entry")
                entry.options.map_entry = True
                for number, name in ((1, "key"), (2, "value")):
                    entry.field.add(name=name, number=number, label=1, type=9)
                field.type, field.type_name = 11, f"{path}.{entry.name}"
            else:
                assert each.kind is not None
                field.type = each.kind.number
                if each.kind.type_name:
                    field.type_name = each.kind.type_name
                if each.label == "optional" and each.kind.number != 11:
                    field.proto3_optional, field.oneof_index = True, len(into.oneof_decl)
                    into.oneof_decl.add(name=f"_{each.name}")

    def made(self, options: _Options, random: Random | None) -> tuple[bytes, dict[str, Any]]:
        """Return a message and its value; the usual one without a `random`."""
        parts: list[bytes] = []
        value: dict[str, Any] = {}
        for each in self.fields:
            key = camel(each.name) if options.json_names else each.name
            wire, found, is_set = self._written(each, options, random)
            parts.append(wire)
            if is_set or (options.defaults and (each.label in ("plain", "repeated", "map"))):
                value[key] = found
        if random is not None and is_one_in(2, random):
            random.shuffle(parts)
        if random is not None and any(parts) and is_one_in(6, random):
            parts.insert(random.randint(0, len(parts)), tagged(4000, random.choice([2, 0]), b"\1"))
        return b"".join(parts), value

    def _written(self, field: _Field, options: _Options, random: Random | None) -> tuple[bytes, Any, bool]:
        """Return the bytes of a field, its value, and whether it is there in any case."""

        def one() -> tuple[bytes, Any]:
            if field.inner is not None:
                wire, value = field.inner.made(options, random)
                return wire, value
            assert field.kind is not None
            raw = field.kind.usual if random is None or not is_one_in(3, random) else random.choice(field.kind.others)
            plain = field.kind.plain(raw)
            if field.kind.type_name == ".plant.State":
                plain = _STATES.get(raw, raw) if options.enum_names else raw
            return field.kind.write(raw), plain

        wire_type = 2 if field.kind is None else field.kind.wire
        if field.label == "map":
            pairs = dict(self.rest)
            if random is not None and is_one_in(3, random):
                pairs = {key: random.choice(STRINGS) for key in [*self.rest, "", "new one"] if is_one_in(2, random)}
            wire = b"".join(
                tagged(field.number, 2, tagged(1, 2, key.encode()) + tagged(2, 2, text.encode()))
                for key, text in pairs.items()
            )
            return wire, dict(sorted(pairs.items())), bool(pairs)
        if field.label == "repeated":
            many = [one() for _ in range(1 if random is None else random.randint(0, 3))]
            values = [value for _, value in many]
            if many and field.kind is not None and field.kind.is_packable and (random is None or is_one_in(2, random)):
                return tagged(field.number, 2, b"".join(wire for wire, _ in many)), values, True
            return b"".join(tagged(field.number, wire_type, wire) for wire, _ in many), values, bool(values)
        if random is not None and is_one_in(4, random):
            default = None if field.kind is None else field.kind.default
            if field.kind is not None and field.kind.type_name == ".plant.State" and options.enum_names:
                default = _STATES[0]
            return b"", default, False
        wire, plain = one()
        parts = tagged(field.number, wire_type, wire)
        if random is not None and field.kind is not None and field.kind.number != 11 and is_one_in(6, random):
            parts = tagged(field.number, wire_type, field.kind.write(random.choice(field.kind.others))) + parts
        is_default = not any(wire) if wire_type != 0 else wire == b"\0"
        return parts, plain, field.label == "optional" or not is_default


_TIMES = {
    1_772_366_400: "2026-03-01T12:00:00.000000001Z",
    0: "1970-01-01T00:00:00.000000000Z",
    -1: "1969-12-31T23:59:59.999999999Z",
}


def _as_time(value: tuple[int, int]) -> str:
    return _TIMES[value[0]]


def camel(name: str) -> str:
    """Return the name of a field in protobuf's JSON."""
    return re.sub(r"_+(\w?)", lambda found: found[1].upper(), name)


def protobuf(shape: str, random: Random) -> Form:
    """Return messages of a type in proto3, with each framing."""
    tree = parse(SHAPES[shape])
    root = _Type("Reading", tree if isinstance(tree, Members) else Members([("rows", tree)]), random, is_root=True)
    file = descriptor_pb2.FileDescriptorProto(name="plant.proto", package="plant", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.message_type.add(name="Unused")
    root.descriptor(file.message_type.add(), ".plant.Reading")
    states = file.enum_type.add(name="State")
    for number, name in _STATES.items():
        states.value.add(name=name, number=number)
    times = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(times)
    options: dict[str, Any] = {"format": "protobuf", "descriptor": "plant.binpb", "message": "plant.Reading"}
    for key, values in (("names", ["json", "proto"]), ("enums", ["name", "number"]), ("defaults", [True, False])):
        if is_one_in(2, random):
            options[key] = random.choice(values)
    framing = random.choice(["", "none", "delimited", "confluent"])
    options |= {"framing": framing} if framing else {}
    chosen = _Options(
        options.get("names") != "proto", options.get("enums") != "number", options.get("defaults", True) is True
    )
    head = b"\0\0\0\0\7\2\2" if framing == "confluent" else b""

    def payload(random: Random | None) -> Payload:
        if framing == "delimited":
            many = [root.made(chosen, random) for _ in range(2 if random is None else random.randint(0, 3))]
            return Payload(b"".join(varint(len(wire)) + wire for wire, _ in many), [value for _, value in many])
        wire, value = root.made(chosen, random)
        return Payload(head + wire, value)

    def draw(random: Random) -> Payload:
        made = payload(random)
        if is_one_in(12, random):
            bad = [made.data + b"\7", tagged(4000, 0, b"\1"), made.data + tagged(1, 3, b"")]
            return Payload(b"\xff" if framing else random.choice(bad), Failed())
        if is_one_in(12, random):
            return Payload(made.data[: random.randint(0, len(made.data))], UNKNOWN)
        return made

    usual = root.made(chosen, None)[1]
    vocabulary = vocabulary_of_value(usual)
    if framing == "delimited":
        vocabulary = rows_of(list(usual), "", vocabulary.paths)
    files = {"plant.binpb": set_descriptors(times, file)}
    for_each = "@" if framing == "delimited" else None
    return Form(options, vocabulary, for_each, lambda _: payload(None), draw, files)
