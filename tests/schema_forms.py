"""Payloads of Avro and protobuf with the shapes of products: schemas are drawn, and payloads of them.

fastavro writes Avro, and a writer of tests the wire format of protobuf.  The value of a payload is what its schema and
docs/avro.md, docs/protobuf.md say of what is written; nothing is decoded.
"""

from __future__ import annotations

import base64
import io
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import fastavro
import fastavro.schema
from google.protobuf import descriptor_pb2, timestamp_pb2

from iggyflux.lineprotocol import Unsigned
from tests.forms import UNKNOWN, Form, Payload, rows_of, vocabulary_of_value
from tests.independent_evaluation import Failed
from tests.payload_shapes import SHAPES, Members, Token, parse
from tests.protobuf_payloads import set_descriptors, tagged, varint, zigzag
from tests.schema_documents import is_one_in

_STRINGS = ["", "7", "-2.50", "true", " x ", 'say "hi"', "a,b=c d", "日本", "e\u0301", "\u2028", "x" * 70, "back\\"]
_DOUBLES = [0.0, -0.0, 1.5, 1e300, 5e-324, -7.0, 2.0**60]
_LONGS = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 1_700_000_000]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- avro ---


@dataclass(frozen=True)
class _Node:
    """A schema of Avro; `usual` and what is drawn are a value as fastavro takes it, with its plain value."""

    schema: Any
    usual: tuple[Any, Any]
    draw: Callable[[Random], tuple[Any, Any]]


def _of(schema: Any, usual: tuple[Any, Any], others: Sequence[tuple[Any, Any]]) -> _Node:
    return _Node(schema, usual, lambda random: random.choice([usual, *others]))


def _same(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [(value, value) for value in values]


_DAY = "2026-03-01"
_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
# a schema, then values: what is stored, what it is with logical types, with `decimals: number`, and without
_LOGICAL: list[tuple[Any, list[tuple[Any, Any, Any, Any]]]] = [
    *(
        ({"type": "long", "logicalType": f"{local}timestamp-{unit}"}, [
            (1_772_366_400 * n + 1, *[f"{_DAY}T12:00:00.{10**9 // n:09}{z}"] * 2, 1_772_366_400 * n + 1),
            (-1, *[f"1969-12-31T23:59:59.{10**9 - 10**9 // n:09}{z}"] * 2, -1),
        ])
        for local, z in (("", "Z"), ("local-", ""))
        for unit, n in (("millis", 10**3), ("micros", 10**6), ("nanos", 10**9))
    ),
    ({"type": "int", "logicalType": "date"}, [(20_513, _DAY, _DAY, 20_513), (-1, "1969-12-31", "1969-12-31", -1)]),
    ({"type": "int", "logicalType": "time-millis"}, [(43_200_001, *["12:00:00.001000000"] * 2, 43_200_001)]),
    ({"type": "long", "logicalType": "time-micros"}, [(1, *["00:00:00.000001000"] * 2, 1)]),
    (_DECIMAL, [(b"\5", "0.05", 0.05, "BQ=="), (b"\xff\x38", "-2.00", -2.0, "/zg="), (b"\0", "0.00", 0.0, "AA==")]),
    ({"type": "bytes", "logicalType": "decimal", "precision": 30}, [
        ((2**64).to_bytes(9, "big"), str(2**64), 2**64, _base64((2**64).to_bytes(9, "big"))), (b"\7", "7", 7, "Bw=="),
    ]),
    ({"type": "fixed", "name": "Worth", "size": 3, "logicalType": "decimal", "precision": 6, "scale": 4}, [
        (b"\0\0\7", "0.0007", 0.0007, "AAAH"), (b"\xff\xff\xff", "-0.0001", -0.0001, "////"),
    ]),
    ({"type": "string", "logicalType": "uuid"}, [("not checked", *["not checked"] * 3)]),
    ({"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}, [
        (bytes(range(16)), *["00010203-0405-0607-0809-0a0b0c0d0e0f"] * 2, _base64(bytes(range(16)))),
    ]),
    ({"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"}, [
        (struct.pack("<III", 1, 2, 2**32 - 1), *[{"months": 1, "days": 2, "milliseconds": 2**32 - 1}] * 2,
         _base64(struct.pack("<III", 1, 2, 2**32 - 1))),
    ]),
    ({"type": "string", "logicalType": "timestamp-millis"}, [("x", *["x"] * 3)]),
    ({"type": "bytes"}, [(b"\0\xff", *["AP8="] * 3), (b"", *[""] * 3)]),
    ({"type": "enum", "name": "Mode", "symbols": ["ON", "OFF"]}, [("ON", *["ON"] * 3), ("OFF", *["OFF"] * 3)]),
]  # fmt: skip
_PLAIN_SCALARS = ["null", "boolean", "long", "double", "string"]


class _Schemas:
    """Makes nodes of trees; named types get numbers."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._count = 0

    def node(self, tree: Any) -> _Node:
        made = self._bare(tree)
        is_null = made.schema == "null" or isinstance(made.schema, list)
        if is_null or not is_one_in(4, self.random):
            return made
        union = [made.schema, "null"] if is_one_in(2, self.random) else ["null", made.schema]
        return _Node(union, made.usual, lambda random: (None, None) if is_one_in(3, random) else made.draw(random))

    def _bare(self, tree: Any) -> _Node:
        random = self.random
        if isinstance(tree, Members):
            return self._object(tree)
        if isinstance(tree, list):
            inner = self.node(tree[0] if tree else None)
            inner = _of(_PLAIN_SCALARS, ("x", "x"), _same(["", None, 7])) if inner.schema == "null" else inner

            def several(random: Random) -> tuple[Any, Any]:
                found = [inner.draw(random) for _ in range(random.randint(0, 3))]
                return [raw for raw, _ in found], [plain for _, plain in found]

            return _Node({"type": "array", "items": inner.schema}, ([inner.usual[0]], [inner.usual[1]]), several)
        if isinstance(tree, Token):
            if re.fullmatch(r"-?\d{1,9}", tree) and is_one_in(2, random):
                return _of("int", (int(tree), int(tree)), _same([0, 2**31 - 1, -(2**31)]))
            if re.fullmatch(r"-?\d{1,18}", tree):
                return _of("long", (int(tree), int(tree)), _same(_LONGS))
            if is_one_in(3, random):
                rounded = struct.unpack("<f", struct.pack("<f", float(tree)))[0]
                return _of("float", (rounded, rounded), _same([0.0, -0.0, 1.5, 2.0**-149]))
            return _of("double", (float(tree), float(tree)), _same(_DOUBLES))
        if isinstance(tree, bool):
            return _of("boolean", (tree, tree), _same([True, False]))
        return _of("string", (str(tree), str(tree)), _same(_STRINGS)) if tree is not None else _of(
            ["null", "string"], (None, None), _same(["x"])
        )  # fmt: skip

    def _object(self, tree: Members) -> _Node:
        members = {key: value for key, value in tree if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII)}
        if len(members) < len(tree):
            return self._map(tree)
        nodes = {key: self.node(value) for key, value in members.items()}
        self._count += 1
        fields = [{"name": key, "type": node.schema} for key, node in nodes.items()]
        schema = {"type": "record", "name": f"R{self._count}", "fields": fields}

        def all_of(pairs: dict[str, tuple[Any, Any]]) -> tuple[Any, Any]:
            return {key: raw for key, (raw, _) in pairs.items()}, {key: plain for key, (_, plain) in pairs.items()}

        def draw(random: Random) -> tuple[Any, Any]:
            return all_of(
                {key: node.draw(random) if is_one_in(3, random) else node.usual for key, node in nodes.items()}
            )

        return _Node(schema, all_of({key: node.usual for key, node in nodes.items()}), draw)

    def _map(self, tree: Members) -> _Node:
        usual = {key: _scalar(value) for key, value in tree}

        def draw(random: Random) -> tuple[Any, Any]:
            more = {
                key: random.choice([None, True, 7, 2.5, "x"]) for key in [*usual, "new one"] if is_one_in(3, random)
            }
            return {**usual, **more}, {**usual, **more}

        return _Node({"type": "map", "values": _PLAIN_SCALARS}, (usual, usual), draw)

    def logical(self, options: dict[str, Any]) -> dict[str, _Node]:
        """Return nodes of logical types by names."""
        column = 3 if options.get("logical_types") is False else 2 if options.get("decimals") == "number" else 1
        chosen = self.random.sample(range(len(_LOGICAL)), 3)
        made = {}
        for number in chosen:
            schema, rows = _LOGICAL[number]
            pairs = [(row[0], row[column]) for row in rows]
            made[f"l{number}"] = _of(schema, pairs[0], pairs)
        return made


def _scalar(value: Any) -> Any:
    if isinstance(value, Token):
        return int(value) if re.fullmatch(r"-?\d{1,18}", value) else float(value)
    return value if isinstance(value, str | bool | None) else "inner"


@dataclass(frozen=True)
class _Change:
    """What the reader's schema makes of a field: `name` None omits it."""

    name: str | None
    schema: Any
    convert: Callable[[Any], Any] = lambda plain: plain


def _changes(fields: dict[str, _Node], random: Random) -> dict[str, _Change]:
    made = {}
    for name, node in fields.items():
        kind = random.choice(["keep", "keep", "omit", "rename", "promote"])
        change = _Change(name, node.schema)
        if kind == "omit":
            change = _Change(None, None)
        elif kind == "rename":
            change = _Change(f"{name}_new", node.schema)
        elif kind == "promote" and node.schema == "int":
            change = random.choice([_Change(name, "double", float), _Change(name, ["null", "long"])])
        elif kind == "promote" and node.schema == "string":
            change = _Change(name, "bytes", lambda plain: _base64(plain.encode()))
        elif kind == "promote" and node.schema == "float":
            change = _Change(name, "double")
        made[name] = change
    return made


def avro(shape: str, random: Random) -> Form:
    """Return records of a schema in one of the four encodings, half of them read by another schema."""
    options: dict[str, Any] = {"format": "avro"}
    if is_one_in(3, random):
        options["logical_types"] = random.choice([True, False])
    if is_one_in(3, random):
        options["decimals"] = random.choice(["text", "number"])
    tree = parse(SHAPES[shape])
    schemas = _Schemas(random)
    inner = schemas.node(tree if isinstance(tree, Members) else Members([("rows", tree)]))
    if not isinstance(inner.schema, dict) or inner.schema["type"] != "record":
        inner = schemas._object(Members([("all", tree)]))
    known = inner.schema["fields"]
    extra = schemas.logical(options)
    schema = {**inner.schema, "fields": [*known, *({"name": key, "type": node.schema} for key, node in extra.items())]}
    fields = {each["name"]: _Node(each["type"], (None, None), lambda _: (None, None)) for each in schema["fields"]}
    changes = {name: _Change(name, None) for name in fields}
    added: dict[str, Any] = {}
    if is_one_in(2, random):
        changes = _changes(fields, random)
        wanted = [
            {"name": change.name, "type": change.schema, "aliases": [name]}
            for name, change in changes.items()
            if change.name is not None
        ]
        random.shuffle(wanted)
        added = {"added": random.choice([7, -1])}
        options["reader_schema"] = {
            **schema,
            "fields": [*wanted, {"name": "added", "type": "long", "default": added["added"]}],
        }

    def record(random: Random | None) -> tuple[Any, Any]:
        raw, plain = inner.usual if random is None else inner.draw(random)
        more = {key: node.usual if random is None else node.draw(random) for key, node in extra.items()}
        plain = {**plain, **{key: found for key, (_, found) in more.items()}}
        read = {change.name: change.convert(plain[name]) for name, change in changes.items() if change.name is not None}
        return {**raw, **{key: found for key, (found, _) in more.items()}}, {**read, **added}

    return _ENCODINGS[random.choice(sorted(_ENCODINGS))](schema, options, record, random)


def _by_fastavro(schema: Any, value: Any) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), value)
    return file.getvalue()


_Record = Callable[[Random | None], tuple[Any, Any]]
_OTHER = {"type": "record", "name": "Other", "fields": [{"name": "none", "type": "long"}]}


def _framed(schema: Any, options: dict[str, Any], head: bytes, record: _Record, unknown: Sequence[bytes]) -> Form:
    """Return payloads of one record after `head`; those that begin with `unknown` fail."""

    def payload(random: Random | None) -> Payload:
        raw, plain = record(random)
        return Payload(head + _by_fastavro(schema, raw), plain)

    def draw(random: Random) -> Payload:
        made = payload(random)
        if is_one_in(12, random):
            return Payload(made.data[: random.randrange(len(made.data))], Failed())
        if is_one_in(12, random):
            return Payload(made.data + b"\0", Failed())
        if unknown and is_one_in(12, random):
            return Payload(random.choice(unknown) + made.data[len(head) :], Failed())
        return made

    return Form(options, vocabulary_of_value(record(None)[1]), None, lambda _: payload(None), draw)


def _raw(schema: Any, options: dict[str, Any], record: _Record, random: Random) -> Form:
    more = {"encoding": "raw"} if is_one_in(2, random) else {}
    return _framed(schema, {**options, **more, "schema": schema}, b"", record, [])


def _single_object(schema: Any, options: dict[str, Any], record: _Record, random: Random) -> Form:
    form = fastavro.schema.to_parsing_canonical_form(schema)
    head = b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(form, "CRC-64-AVRO"))
    listed = {"schema": schema} if "reader_schema" in options or is_one_in(2, random) else {"schemas": [_OTHER, schema]}
    return _framed(
        schema, {**options, "encoding": "single_object", **listed}, head, record, [b"\xc3\x01" + bytes(8), b"\xc3"]
    )


def _confluent(schema: Any, options: dict[str, Any], record: _Record, random: Random) -> Form:
    number = random.choice([1, 7, 2**31 - 1])
    listed = {"encoding": "confluent", "schemas": {str(number): schema}}
    head = b"\0" + number.to_bytes(4, "big")
    return _framed(schema, {**options, **listed}, head, record, [b"\0\0\0\1\0", b"\1" + head[1:]])


def _container(schema: Any, options: dict[str, Any], record: _Record, random: Random) -> Form:
    codec = random.choice(["null", "deflate", "bzip2", "xz", "snappy"])

    def payload(rows: Sequence[tuple[Any, Any]], interval: int = 16_000) -> Payload:
        file = io.BytesIO()
        raw = [each for each, _ in rows]
        fastavro.writer(
            file, fastavro.parse_schema(schema), raw, codec=codec, sync_interval=interval, sync_marker=b"s" * 16
        )
        return Payload(file.getvalue(), [plain for _, plain in rows])

    def draw(random: Random) -> Payload:
        made = payload([record(random) for _ in range(random.randint(0, 3))], random.choice([1, 16_000]))
        if is_one_in(12, random):
            return Payload(made.data[:-1], Failed())
        if is_one_in(12, random):
            return Payload(b"Obj\2" + made.data[4:], Failed())
        return made

    usual = record(None)[1]
    vocabulary = rows_of(list(usual), "", [f"{path}" for path in vocabulary_of_value(usual).paths])
    return Form({**options, "encoding": "container"}, vocabulary, "@", lambda _: payload([record(None)] * 2), draw)


_ENCODINGS = {"raw": _raw, "single_object": _single_object, "confluent": _confluent, "container": _container}

# --- protobuf ---

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
        return _Kind(1, 1, lambda value: struct.pack("<d", value), float, float(token), _DOUBLES, 0.0)
    rounded = struct.unpack("<f", struct.pack("<f", float(token)))[0]
    return _Kind(2, 5, lambda value: struct.pack("<f", value), float, rounded, [0.0, -0.0, 1.5, 2.0**-149], 0.0)


_TEXT = _Kind(9, 2, str.encode, str, "x", _STRINGS, "")


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
                "raw_bytes", random.choice(["plain", "optional"]), _Kind(12, 2, bytes, _base64, b"\0\xff", [b""], "")
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
                self._field(name, label, _Kind(9, 2, str.encode, str, usual, _STRINGS, ""))

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
                pairs = {key: random.choice(_STRINGS) for key in [*self.rest, "", "new one"] if is_one_in(2, random)}
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


FORMS = {"avro": avro, "protobuf": protobuf}
