"""Payloads of Avro with the shapes of products: schemas are drawn, and records of them.

fastavro writes them.  The value of a record is what its schema and docs/avro.md say of it; nothing is decoded.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import fastavro
import fastavro.schema

from tests.forms import DOUBLES, STRINGS, Form, Payload, as_base64, rows_of, vocabulary_of_value
from tests.independent_evaluation import Failed
from tests.payload_shapes import SHAPES, Members, Token, parse
from tests.schema_documents import is_one_in

_LONGS = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 1_700_000_000]


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
        ((2**64).to_bytes(9, "big"), str(2**64), 2**64, as_base64((2**64).to_bytes(9, "big"))), (b"\7", "7", 7, "Bw=="),
    ]),
    ({"type": "fixed", "name": "Worth", "size": 3, "logicalType": "decimal", "precision": 6, "scale": 4}, [
        (b"\0\0\7", "0.0007", 0.0007, "AAAH"), (b"\xff\xff\xff", "-0.0001", -0.0001, "////"),
    ]),
    ({"type": "string", "logicalType": "uuid"}, [("not checked", *["not checked"] * 3)]),
    ({"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}, [
        (bytes(range(16)), *["00010203-0405-0607-0809-0a0b0c0d0e0f"] * 2, as_base64(bytes(range(16)))),
    ]),
    ({"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"}, [
        (struct.pack("<III", 1, 2, 2**32 - 1), *[{"months": 1, "days": 2, "milliseconds": 2**32 - 1}] * 2,
         as_base64(struct.pack("<III", 1, 2, 2**32 - 1))),
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
            return _of("double", (float(tree), float(tree)), _same(DOUBLES))
        if isinstance(tree, bool):
            return _of("boolean", (tree, tree), _same([True, False]))
        return _of("string", (str(tree), str(tree)), _same(STRINGS)) if tree is not None else _of(
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
            change = _Change(name, "bytes", lambda plain: as_base64(plain.encode()))
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
