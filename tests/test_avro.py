"""Avro: what fastavro writes is read as fastavro reads it, other bytes fail, and documents name their schemas."""

from __future__ import annotations

import base64
import bz2
import io
import json
import lzma
import math
import struct
import tracemalloc
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import cramjam
import fastavro
import fastavro.schema
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from iggyflux import Message, load_mapping, parse_mapping
from iggyflux.cli import command_line
from iggyflux.codes import CODES
from iggyflux.errors import DecodeError, MappingError, RecordError
from iggyflux.payloads import FORMATS, OptionError, avro
from iggyflux.payloads.avro.container import write_container
from iggyflux.payloads.avro.references import joined
from iggyflux.payloads.avro.schema import SchemaError, canonical, fingerprint, parse
from iggyflux.payloads.avro.writing import long
from iggyflux.payloads.places import Place, with_place
from iggyflux.reads import Reads
from tests.binary_payloads import lines_run

AVRO = FORMATS["avro"]
MANY = 250

# --- schemas and values of them ---

PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "bytes": st.binary(max_size=6),
    "string": st.text(st.characters(codec="utf-8"), max_size=6),
}


@st.composite
def schemas(draw: st.DrawFn, names: Iterator[int], depth: int = 3, outer: tuple[str, ...] = ()) -> Any:
    """Return a schema whose named types have numbers of `names`; those of `outer` can be named again in a union."""
    kinds = ["primitive"] * 4 + (["record"] * 4 + ["array", "map", "union", "enum", "fixed"] * 2 if depth else [])
    kind = draw(st.sampled_from(kinds))
    deeper = lambda more=(): draw(schemas(names, depth - 1, (*outer, *more)))  # noqa: E731
    if kind == "primitive":
        name = draw(st.sampled_from(PRIMITIVES))
        return draw(st.sampled_from([name, {"type": name}]))
    if kind == "array":
        items = deeper()
        return {"type": "array", "items": ["null", "int"] if takes_nothing(items) else items}
    if kind == "map":
        return {"type": "map", "values": deeper()}
    if kind == "union":
        branches: dict[str, Any] = {}
        for branch in [deeper() for _ in range(draw(st.integers(1, 3)))] + draw(
            st.lists(st.sampled_from(outer), max_size=1) if outer else st.just([])
        ):
            key = name_of(branch)
            if key != "union":
                branches.setdefault(key, branch)
        return ["null", *(each for key, each in branches.items() if key != "null")]
    name = f"N{next(names)}"
    if kind == "enum":
        return {"type": "enum", "name": name, "symbols": draw(st.permutations(["A", "B", "C"]))}
    if kind == "fixed":
        return {"type": "fixed", "name": name, "size": draw(st.integers(1, 5))}
    fields = [{"name": f"f{at}", "type": deeper((name,))} for at in range(draw(st.integers(0, 3)))]
    return {"type": "record", "name": name, "fields": fields}


def name_of(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    return schema if isinstance(schema, str) else str(schema.get("name", schema["type"]))


def takes_nothing(schema: Any) -> bool:
    kind = schema if isinstance(schema, str) else "union" if isinstance(schema, list) else schema["type"]
    return kind == "null" or (kind == "record" and all(takes_nothing(each["type"]) for each in schema["fields"]))


def known_types(schema: Any, found: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema, list):
        for each in schema:
            known_types(each, found)
    elif isinstance(schema, dict):
        if "name" in schema:
            found[schema["name"]] = schema
        for each in (schema.get("items"), schema.get("values"), *(f["type"] for f in schema.get("fields", ()))):
            if each is not None:
                known_types(each, found)
    return found


@st.composite
def values(draw: st.DrawFn, schema: Any, known: Mapping[str, Any], depth: int = 5) -> tuple[Any, Any]:
    """Return a value as fastavro writes it, and the plain value it has by the rules."""
    if isinstance(schema, list):
        branch = draw(st.sampled_from(schema)) if depth > 0 else schema[0]
        written, plain = draw(values(branch, known, depth - 1))
        return ((name_of(branch), written) if isinstance(branch, dict) or branch in known else written), plain
    if isinstance(schema, str) and schema in known:
        schema = known[schema]
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind in LEAVES or kind == "fixed":
        value = draw(LEAVES[kind] if kind in LEAVES else st.binary(min_size=schema["size"], max_size=schema["size"]))
        return value, base64.b64encode(value).decode() if isinstance(value, bytes) else value
    if kind == "enum":
        symbol = draw(st.sampled_from(schema["symbols"]))
        return symbol, symbol
    if kind == "array":
        pairs = draw(st.lists(values(schema["items"], known, depth - 1), max_size=3))
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    named = (
        draw(st.dictionaries(st.text("ab\0é", max_size=2), values(schema["values"], known, depth - 1), max_size=3))
        if kind == "map"
        else {each["name"]: draw(values(each["type"], known, depth - 1)) for each in schema["fields"]}
    )
    return {key: pair[0] for key, pair in named.items()}, {key: pair[1] for key, pair in named.items()}


@st.composite
def written(draw: st.DrawFn) -> tuple[Any, Any, bytes]:
    """Return a schema, a plain value, and its bytes as fastavro writes them."""
    schema = draw(schemas(iter(range(1000))))
    schema = {"type": schema} if isinstance(schema, str) else schema
    known = known_types(schema, {})
    value, plain = draw(values(schema, known))
    return schema, plain, by_fastavro(schema, value)


def by_fastavro(schema: Any, value: Any) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), value)
    return file.getvalue()


def bound(options: Mapping[str, Any], files: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """Return the options as a plan gets them."""
    AVRO.check(options)
    return AVRO.bind(options, lambda name, _: (files or {})[name].encode())


def decode(payload: bytes, reads: Reads | None = None, strict: bool = False, **options: Any) -> Any:
    return AVRO.decode(payload, bound(options), reads, strict)


def refusal(payload: bytes, **options: Any) -> DecodeError:
    with pytest.raises(DecodeError) as refused:
        decode(payload, **options)
    assert refused.value.code in CODES
    assert len(refused.value.reason) < 400
    return refused.value


reads = st.recursive(
    st.sampled_from([Reads.WHOLE, Reads.BARE]),
    lambda inner: st.builds(
        lambda keys, items: Reads(keys=keys, items=items),
        st.dictionaries(st.sampled_from(["f0", "f1", "f2", "a", "b"]), inner, max_size=2),
        st.none() | inner,
    ),
    max_leaves=5,
)


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(written(), reads)
def test_what_fastavro_writes_is_read(case: tuple[Any, Any, bytes], wanted: Reads) -> None:
    """Whole, and in parts: what is not read may be missing, and nothing of what is read differs."""
    schema, plain, payload = case

    found = decode(payload, schema=schema)

    assert repr(found) == repr(plain)
    assert repr(wanted.prune(decode(payload, wanted, schema=schema))) == repr(wanted.prune(plain))


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(written())
def test_a_schema_has_the_fingerprint_that_fastavro_gives_it(case: tuple[Any, Any, bytes]) -> None:
    text = json.dumps(case[0])
    form = fastavro.schema.to_parsing_canonical_form(case[0])

    assert canonical(text) == form
    assert fingerprint(text).hex() == fastavro.schema.fingerprint(form, "CRC-64-AVRO")


def test_a_fingerprint_is_of_full_names_and_without_what_does_not_count() -> None:
    schema = {
        "type": "record", "name": "a.b.Reading", "doc": "x", "aliases": ["Old"],
        "fields": [
            {"name": "unit", "default": "K", "type": {"type": "enum", "name": "Unit", "symbols": ["K", "C"], "default": "K"}},
            {"name": "again", "type": "Unit", "doc": "y"},
            {"name": "raw", "type": {"type": "fixed", "name": "Raw", "namespace": "", "size": 2}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        ],
    }  # fmt: skip

    form = fastavro.schema.to_parsing_canonical_form(schema)

    assert canonical(json.dumps(schema)) == form
    assert fingerprint('"null"').hex() == "8a8f25cce724dd63"  # as the specification of Avro has it, 63dd24e7cc258f8a


@settings(max_examples=2 * MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(written(), st.data(), reads, st.booleans())
def test_damaged_bytes_fail_or_have_a_plain_value(
    case: tuple[Any, Any, bytes], data: st.DataObject, wanted: Reads, strict: bool
) -> None:
    schema, _, payload = case
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(payload)))
        end = min(len(payload), start + data.draw(st.integers(0, 2)))
        new = data.draw(st.binary(max_size=3) | st.sampled_from([b"\xff" * 9, long(2**60), long(-(2**63)), long(-1)]))
        payload = payload[:start] + new + payload[end:]
    for parts in (None, wanted):
        assert_plain_or_refused(payload, parts, strict, schema)


def assert_plain_or_refused(payload: bytes, parts: Reads | None, strict: bool, schema: Any) -> None:
    try:
        value = decode(payload, parts, strict, schema=schema)
    except DecodeError as error:
        event(error.code)
        refused = error
    else:
        json.dumps(value, allow_nan=False).encode()
        return
    assert refused.code in CODES
    assert len(refused.reason) < 400


@pytest.mark.parametrize(
    ("schema", "payload", "reason"),
    [
        ("long", b"\xff" * 20 + b"\1", "more than ten bytes"),
        ("long", b"\xff" * 9 + b"\x03", "more than 64 bits"),
        ("long", b"\xff", "ends in the middle"),
        ("int", long(2**31), "2147483648 is not an int"),
        ("boolean", b"\2", "found 2"),
        ("string", long(-2) + b"abc", "the length -2 is negative"),
        ("string", long(2**62) + b"abc", "3 bytes are left"),
        ("bytes", b"\x08ab", "2 bytes are left"),
        ("double", bytes(7), "ends in the middle"),
        ("float", bytes(5), "1 bytes are left after"),
        ("null", b"\0", "1 bytes are left after"),
        (["null", "long"], b"\1\0", "names number -1"),
        (["null", "long"], b"\4", "names number 2"),
        ({"type": "enum", "name": "e", "symbols": ["a"]}, b"\1", "names number -1"),
        ({"type": "fixed", "name": "e", "size": 3}, b"ab", "ends in the middle"),
        ({"type": "array", "items": "boolean"}, long(2**40), "is 1,099,511,627,776"),
        ({"type": "array", "items": "boolean"}, long(-1) + long(9) + b"\1\0", "a length is 9"),
        ({"type": "array", "items": "boolean"}, long(-1) + long(2) + b"\1\0\0", "block is not as long"),
        ({"type": "array", "items": "boolean"}, long(-(2**63)) + b"\0", "9,223,372,036,854,775,808"),
        ({"type": "map", "values": "null"}, long(2**60), "bytes are left"),
    ],
)  # fmt: skip
def test_bytes_that_no_writer_makes_fail(schema: Any, payload: bytes, reason: str) -> None:
    """fastavro reads some of these as a number, and never ends with others."""
    refused = refusal(payload, schema=schema if isinstance(schema, dict | list) else {"type": schema})

    assert refused.code == "IFX404"
    assert reason in refused.reason


def test_text_that_is_not_utf8_fails_where_it_is_read() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": "long"}]}

    assert refusal(b"\2\xff\4", schema=schema).code == "IFX402"
    assert decode(b"\2\xff\4", Reads(keys={"b": Reads.BARE}), schema=schema) == {"b": 2}


LIST = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}
SELF = {"type": "record", "name": "S", "fields": [{"name": "self", "type": "S"}]}
TREE = {"type": "record", "name": "T", "fields": [{"name": "of", "type": {"type": "array", "items": {"type": "map", "values": "T"}}}]}  # fmt: skip


@pytest.mark.parametrize(("schema", "part"), [(LIST, b"\2"), (SELF, b""), (TREE, b"\2\2\0")])
@pytest.mark.parametrize("wanted", [None, Reads.BARE])
def test_deep_nesting_fails(schema: Any, part: bytes, wanted: Reads | None) -> None:
    """100 kB of them end the process of fastavro."""
    assert refusal(part * 100_000 + b"\0", schema=schema).code == "IFX403"
    with pytest.raises(DecodeError, match="nested more than 128"):
        decode(part * 100_000 + b"\0", wanted, schema=schema)


@pytest.mark.parametrize("depth", [127, 128])
def test_nesting_is_counted_as_in_json(depth: int) -> None:
    payload = b"\2" * depth + b"\0"
    if depth == 128:
        assert refusal(payload, schema=LIST).code == "IFX403"
    else:
        text = json.dumps(decode(payload, schema=LIST))
        assert text.count("{") == 128
    schema: Any = "long"
    for _ in range(depth + 1):
        schema = {"type": "array", "items": schema}
    if depth == 127:
        assert decode(b"\2" * 128 + b"\2" + b"\0" * 128, schema=schema) is not None
    else:
        with pytest.raises(OptionError, match="nested more than 128"):
            bound({"schema": schema})


def test_memory_is_bounded_by_the_payload() -> None:
    schema = {"type": "array", "items": {"type": "array", "items": "int"}}
    payload = long(2**16) + b"\0" * 2**16 + b"\0"
    tracemalloc.start()
    try:
        assert len(decode(payload, schema=schema)) == 2**16
        assert tracemalloc.get_traced_memory()[1] < 100 * len(payload)
    finally:
        tracemalloc.stop()


def test_a_type_that_is_named_often_is_compiled_once() -> None:
    """Written out, this schema has 2**40 types."""
    schema: Any = "int"
    for level in range(40):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"R{level - 1}" if level else "int"}]
        schema = {"type": "record", "name": f"R{level}", "fields": fields, "default": {}}

    assert refusal(b"", schema=schema).code == "IFX404"
    assert refusal(b"", schema=schema, reader_schema=schema).code == "IFX404"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("kind", "code"), [("float", "<f"), ("double", "<d")])
def test_numbers_that_json_does_not_have_fail_unless_they_are_asked_for(kind: str, code: str, number: float) -> None:
    payload = struct.pack(code, number)
    options = {"schema": {"type": kind}}

    assert refusal(payload, **options).code == "IFX406"
    assert AVRO.decode_non_finite is not None
    assert repr(AVRO.decode_non_finite(payload, options, None, False)) == repr(number)


def test_duplicate_keys_of_a_map_count_as_in_other_formats() -> None:
    schema = {"type": "map", "values": "long"}
    payload = b"\4\2a\2\2a\4\0"

    assert decode(payload, schema=schema) == {"a": 2}
    with pytest.raises(DecodeError, match="duplicate key 'a'"):
        decode(payload, None, True, schema=schema)


# --- logical types ---


def logical(kind: str, of: str, /, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": of, **more}


MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
FIXED = {"name": "F", "size": 16}


@pytest.mark.parametrize(
    ("schema", "value", "plain"),
    [
        (logical("int", "date"), date(2026, 3, 1), "2026-03-01"),
        (logical("int", "date"), date(1, 1, 1), "0001-01-01"),
        (logical("int", "time-millis"), time(1, 2, 3, 4000), "01:02:03.004000000"),
        (logical("long", "time-micros"), time(23, 59, 59, 999_999), "23:59:59.999999000"),
        (logical("long", "timestamp-millis"), MOMENT.replace(microsecond=123_000), "2026-03-01T12:00:00.123000000Z"),
        (logical("long", "timestamp-micros"), MOMENT, "2026-03-01T12:00:00.123456000Z"),
        (logical("long", "timestamp-micros"), datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000000Z"),
        (logical("long", "timestamp-nanos"), 1_772_366_400_123_456_789, "2026-03-01T12:00:00.123456789Z"),
        (logical("long", "timestamp-nanos"), -1, "1969-12-31T23:59:59.999999999Z"),
        (logical("long", "local-timestamp-millis"), MOMENT.replace(microsecond=0, tzinfo=None), "2026-03-01T12:00:00.000000000"),
        (logical("long", "local-timestamp-micros"), MOMENT.replace(tzinfo=None), "2026-03-01T12:00:00.123456000"),
        (logical("bytes", "decimal", precision=6, scale=2), Decimal("-0.05"), "-0.05"),
        (logical("bytes", "decimal", precision=40, scale=10), Decimal("123456789012345678901234567890.0123456789"), "123456789012345678901234567890.0123456789"),
        (logical("fixed", "decimal", precision=9, scale=0, **FIXED), Decimal(-7), "-7"),
        (logical("string", "uuid"), uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (logical("fixed", "uuid", **FIXED), uuid.UUID(int=2**127).bytes, "80000000-0000-0000-0000-000000000000"),
    ],
)  # fmt: skip
def test_logical_types_are_exact_texts(schema: Any, value: Any, plain: Any) -> None:
    payload = by_fastavro(schema, value)

    assert decode(payload, schema=schema) == plain
    assert AVRO.encode(plain, {"schema": schema}) == payload
    stored = decode(payload, schema=schema, logical_types=False)
    bare = {key: each for key, each in schema.items() if key not in ("logicalType", "precision", "scale")}
    assert stored == decode(payload, schema=bare)
    assert AVRO.encode(stored, {"schema": schema, "logical_types": False}) == payload


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (logical("int", "date"), long(2**31 - 1)),
        (logical("int", "time-millis"), long(86_400_000)),
        (logical("long", "time-micros"), long(-1)),
        (logical("long", "timestamp-millis"), long(2**62)),
        (logical("long", "local-timestamp-micros"), long(-(2**63))),
        (logical("bytes", "decimal", precision=2), b"\2\x64"),
    ],
)
def test_a_value_outside_its_logical_type_fails_where_it_is_read(schema: Any, payload: bytes) -> None:
    record = {"type": "record", "name": "R", "fields": [{"name": "a", "type": schema}, {"name": "b", "type": "int"}]}

    assert refusal(payload, schema=schema).code in ("IFX406", "IFX408")
    assert decode(payload + b"\2", Reads(keys={"b": Reads.BARE}), schema=record) == {"b": 1}
    assert decode(payload, schema=schema, logical_types=False) is not None


@given(st.integers(1, 40), st.data())
def test_a_decimal_keeps_every_digit(precision: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, precision))
    unscaled = data.draw(st.integers(-(10**precision) + 1, 10**precision - 1))
    schema = logical("bytes", "decimal", precision=precision, scale=scale)
    raw = unscaled.to_bytes(20, "big", signed=True)

    text = decode(long(len(raw)) + raw, schema=schema)

    assert Decimal(text) == Decimal((0 if unscaled >= 0 else 1, [*map(int, str(abs(unscaled)))], -scale))
    assert "E" not in text
    assert decode(long(len(raw)) + raw, schema=schema, decimals="number") == (float(text) if scale else unscaled)


def test_a_logical_type_that_does_not_fit_its_type_is_ignored() -> None:
    for schema in (
        logical("string", "timestamp-millis"), logical("bytes", "decimal"), logical("int", "colour"),
        logical("bytes", "decimal", precision=2, scale=3), logical("fixed", "uuid", name="F", size=2),
    ):  # fmt: skip
        assert parse(json.dumps(schema)).logical is None


# --- the schema of the reader ---


def record(*fields: Any, name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def a_field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


RESOLVED: list[tuple[Any, Any, Any]] = [
    ({"type": "int"}, {"type": "long"}, 7),
    ({"type": "long"}, {"type": "double"}, -7),
    ({"type": "float"}, {"type": "double"}, 0.1),
    ({"type": "string"}, {"type": "bytes"}, "é"),
    ({"type": "bytes"}, {"type": "string"}, b"abc"),
    ({"type": "int"}, ["null", "string", "double"], 7),
    (["null", "int"], {"type": "long"}, 7),
    (["null", "int"], {"type": "long"}, None),
    (["null", "int"], ["string", "long", "null"], None),
    (["int", "string"], ["null", "string", "long"], "x"),
    ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, {"type": "enum", "name": "E", "symbols": ["b", "c"], "default": "c"}, "a"),
    ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, {"type": "enum", "name": "E", "symbols": ["b"]}, "b"),
    ({"type": "fixed", "name": "E", "size": 2}, {"type": "fixed", "name": "x.E", "size": 2}, b"ab"),
    ({"type": "array", "items": "int"}, {"type": "array", "items": ["null", "float"]}, [1, 2]),
    ({"type": "map", "values": "int"}, {"type": "map", "values": "double"}, {"a": 1}),
    (record(a_field("a", "int"), a_field("b", "string")), record(a_field("b", "string")), {"a": 1, "b": "x"}),
    (record(a_field("a", "int")), record(a_field("c", "string", default="é"), a_field("a", "long")), {"a": 1}),
    (record(a_field("a", "int")), record(a_field("z", "double", aliases=["a"])), {"a": 1}),
    (record(a_field("a", "int"), name="Old"), record(a_field("a", "int"), name="New", aliases=["Old"]), {"a": 1}),
    (record(a_field("a", "int")), record(a_field("u", ["null", "int"], default=None), a_field("m", {"type": "map", "values": "int"}, default={"k": 1}), a_field("l", {"type": "array", "items": "string"}, default=["x"])), {"a": 1}),
    (LIST, record(a_field("next", ["null", "L"]), a_field("n", "int", default=1), name="L"), {"next": {"next": None}}),
    (record(a_field("x", ["null", record(a_field("q", "int"), name="Q")])), record(a_field("x", ["null", record(a_field("q", "long"), a_field("w", "int", default=5), name="Q")])), {"x": {"q": 1}}),
]  # fmt: skip


@pytest.mark.parametrize(("writer", "reader", "value"), RESOLVED)
def test_a_record_of_another_schema_is_resolved_as_fastavro_does(writer: Any, reader: Any, value: Any) -> None:
    payload = by_fastavro(writer, value)
    wanted = fastavro.schemaless_reader(
        io.BytesIO(payload), fastavro.parse_schema(writer), fastavro.parse_schema(reader)
    ) if not (value is None and reader == {"type": "long"}) else None  # fmt: skip

    if wanted is None and value is None and reader == {"type": "long"}:
        assert "wants long" in refusal(payload, schema=writer, reader_schema=reader).reason
        return
    found = decode(payload, schema=writer, reader_schema=reader)

    assert found == plain_of(wanted)
    names = Reads(keys=dict.fromkeys("bxzu", Reads.WHOLE))
    assert names.prune(decode(payload, names, schema=writer, reader_schema=reader)) == names.prune(found)


def test_a_default_of_the_reader_is_what_a_written_value_would_be() -> None:
    """fastavro leaves the text of bytes, and records without their own defaults, as the schema has them."""
    reader = record(
        a_field("r", record(a_field("i", "int", default=3), a_field("j", "int"), name="In"), default={"j": 4}),
        a_field("b", "bytes", default="\xff\0"),
        a_field("d", logical("bytes", "decimal", precision=4, scale=2), default="\x01\x00"),
        a_field("t", logical("long", "timestamp-millis"), default=1),
    )

    found = decode(b"", schema=record(), reader_schema=reader)

    assert found == {"r": {"i": 3, "j": 4}, "b": "/wA=", "d": "2.56", "t": "1970-01-01T00:00:00.001000000Z"}


def plain_of(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: plain_of(each) for key, each in value.items()}
    return [plain_of(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ({"type": "long"}, {"type": "int"}),
        ({"type": "string"}, {"type": "long"}),
        ({"type": "long"}, ["null", "string"]),
        ({"type": "fixed", "name": "E", "size": 2}, {"type": "fixed", "name": "E", "size": 3}),
        (record(a_field("a", "int")), record(a_field("b", "int"))),
        (record(a_field("a", "int")), record(a_field("a", "int"), name="S")),
        (record(a_field("a", "int")), record(a_field("b", "int", default="x"))),
    ],
)
def test_schemas_that_never_resolve_are_an_error_of_the_document(writer: Any, reader: Any) -> None:
    with pytest.raises(OptionError) as refused:
        bound({"schema": writer, "reader_schema": reader})

    assert (refused.value.option, refused.value.code) == ("reader_schema", "IFX172")


def test_what_is_written_says_what_a_number_means() -> None:
    """Where the reader says nothing, or something else."""
    millis, micros = logical("long", "timestamp-millis"), logical("long", "timestamp-micros")

    for writer, reader in ((millis, {"type": "long"}), ({"type": "long"}, millis), (millis, micros)):
        assert decode(long(1), schema=writer, reader_schema=reader) == "1970-01-01T00:00:00.001000000Z"


def test_a_promotion_never_changes_a_number() -> None:
    options = {"schema": {"type": "long"}, "reader_schema": {"type": "double"}}

    assert decode(long(2**53), **options) == 2.0**53
    assert refusal(long(2**53 + 1), **options).code == "IFX406"
    assert decode(long(2**63 - 1), schema={"type": "long"}) == 2**63 - 1


# --- schemas that cannot be used ---


def wide_union(branches: int) -> list[Any]:
    return ["null", *[{"type": "fixed", "name": f"F{number}", "size": 1} for number in range(branches - 1)]]


def chain(length: int, last: Any = "int") -> dict[str, Any]:
    """Return a schema of records that are not nested; each holds the one before, and an array holds the last."""
    records = [record(a_field("of", f"R{n - 1}" if n else last), name=f"R{n}") for n in range(length)]
    fields = [a_field(f"r{number}", each) for number, each in enumerate(records)]
    return record(*fields, a_field("all", {"type": "array", "items": f"R{length - 1}"}), name="All")


def test_a_union_of_many_types_is_compiled() -> None:
    union = wide_union(499)
    again: Any = "int"
    for _ in range(6):  # in each other
        again = [*["null", *[each["name"] for each in union[1:]]], {"type": "array", "items": again}]
    schema = record(a_field("a", union), a_field("b", again))

    assert decode(b"\0" + long(499) + b"\2\0\0", schema=schema) == {"a": None, "b": [None]}


def test_a_long_chain_of_types_is_compiled() -> None:
    """Whatever is read of it, and when a plan is made."""
    schema = chain(250)
    options = {"encoding": "container"}
    for wanted in (Reads(items=Reads(keys={"all": Reads.WHOLE})), Reads.WHOLE):
        assert FORMATS["avro"].decode(write_container(json.dumps(schema), []), options, wanted, False) == []
    assert FORMATS["avro"].prepare(bound({"schema": schema}), None, False, False)


@pytest.mark.parametrize("kind", ["R", ["R", "null"], {"type": "array", "items": "R"}])
def test_a_default_that_holds_itself_is_refused(kind: Any) -> None:
    default: Any = [{}] if isinstance(kind, dict) else {}
    inner = record(a_field("again", kind, default=default))
    reader = record(a_field("a", inner, default={}), name="Out")

    with pytest.raises(OptionError, match="the default") as refused:
        bound({"schema": record(name="Out"), "reader_schema": reader})

    assert refused.value.code == "IFX172"


def test_a_broken_schema_file_is_named_with_its_line() -> None:
    with pytest.raises(OptionError, match=r"'r.avsc' cannot be used: .*line 2, column 8: ") as refused:
        bound({"schema": "r.avsc"}, {"r.avsc": '{"type":\n "long"; }'})

    assert (refused.value.option, refused.value.code) == ("schema", "IFX171")


_ANY_TREE = st.recursive(
    st.none() | st.integers(-2, 3) | st.sampled_from(["int", "record", "R", "a.R", "enum", "array", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "fields", "items", "values", "namespace"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@settings(max_examples=MANY, deadline=None)
@given(_ANY_TREE, st.lists(_ANY_TREE, max_size=2))
def test_anything_can_be_what_a_schema_refers_to(tree: Any, others: list[Any]) -> None:
    """What is a schema without others is the same schema with them, as long as they do not define its names."""
    text = json.dumps(tree)
    made = joined(text, [json.dumps(each) for each in others])
    with suppress(SchemaError):
        alone = canonical(text)
        if '"name"' not in json.dumps(others):
            assert canonical(made) == alone


def test_a_name_is_of_the_own_namespace_before_that_of_a_schema_referred_to() -> None:
    own = record(a_field("kept", "long"), name="Y")
    text = json.dumps({**record(a_field("x", own), a_field("y", "Y")), "namespace": "a"})

    assert canonical(joined(text, [json.dumps(record(a_field("other", "string"), name="Y"))])) == canonical(text)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strng"}, "unknown type 'strng'"),
        (record(a_field("a", "X")), "R.a: unknown type 'X'"),
        (record(a_field("a", {"type": "array"})), "R.a: missing `items`"),
        (record(a_field("a", "int"), a_field("a", "int")), "two fields are named 'a'"),
        ({"type": "record", "name": "R"}, "expected `fields`"),
        ({"type": "record", "fields": []}, "needs a `name`"),
        (record(a_field("a", record(name="R"))), "the name R is taken"),
        (["int", "int"], "holds int twice"),
        (["int", ["null"]], "a union in a union"),
        ({"type": "enum", "name": "E", "symbols": []}, "expected `symbols`"),
        ({"type": "enum", "name": "E", "symbols": ["a"], "default": "b"}, "none of its symbols"),
        ({"type": "fixed", "name": "E", "size": -1}, "expected `size`"),
        ({"type": "array", "items": "null"}, "take no bytes"),
        ({"type": "array", "items": record()}, "take no bytes"),
        ({"type": "array", "items": {"type": "fixed", "name": "E", "size": 0}}, "take no bytes"),
        (wide_union(501), "a union of more than 500 types"),
        (record(*[a_field(f"a{number}", {"type": "int"}) for number in range(10_000)]), "more than 10,000 types"),
        (chain(2_000), "hold each other too deep"),
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_with_its_place(schema: Any, reason: str) -> None:
    with pytest.raises(OptionError) as refused:
        bound({"schema": schema})

    assert (refused.value.option, refused.value.code) == ("schema", "IFX171")
    assert reason in refused.value.reason


@settings(max_examples=MANY, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([*PRIMITIVES, "record", "R", "a", "enum"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "name", "fields", "items", "values", "symbols", "size", "default", "aliases", "namespace", "logicalType", "precision", "scale"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_anything_in_the_place_of_a_schema_is_one_or_an_error(tree: Any) -> None:
    text = json.dumps(tree)
    try:
        bound({"schema": "a file", "reader_schema": "a file"}, {"a file": text})
    except OptionError as error:
        refused = error
    else:
        assert canonical(text)
        return
    assert refused.code in ("IFX171", "IFX172")


# --- encodings ---

READING = record(a_field("device", "string"), a_field("celsius", "double"), name="Reading", namespace="plant")
NEWER = record(a_field("device", "string"), a_field("celsius", "double"), a_field("site", "string", default="?"), name="Reading", namespace="plant")  # fmt: skip
ONE = {"device": "d1", "celsius": 21.5}


def test_a_single_object_names_its_schema_by_fingerprint() -> None:
    payload = AVRO.encode(ONE, {"encoding": "single_object", "schema": READING})

    assert payload[:10].hex() == "c301" + fastavro.schema.fingerprint(
        fastavro.schema.to_parsing_canonical_form(READING), "CRC-64-AVRO"
    )
    options = {"encoding": "single_object", "schemas": [READING, NEWER], "reader_schema": NEWER}
    assert decode(payload, **options) == {**ONE, "site": "?"}
    newer = AVRO.encode({**ONE, "site": "x"}, {"encoding": "single_object", "schema": NEWER})
    assert decode(newer, **options) == {**ONE, "site": "x"}
    assert refusal(newer, encoding="single_object", schema=READING).code == "IFX431"
    assert refusal(payload[2:], **options).code == "IFX432"
    assert refusal(payload[:9], **options).code == "IFX432"
    assert refusal(payload + b"x", **options).code == "IFX404"


def test_the_format_of_confluent_names_its_schema_by_id() -> None:
    options = {"schemas": {"7": READING, "4000000000": NEWER}, "reader_schema": NEWER}
    payload = b"\0" + (7).to_bytes(4, "big") + by_fastavro(READING, ONE)
    newer = b"\0" + (4_000_000_000).to_bytes(4, "big") + by_fastavro(NEWER, {**ONE, "site": "x"})

    assert decode(payload, **options) == {**ONE, "site": "?"}
    assert decode(newer, **options) == {**ONE, "site": "x"}
    assert refusal(newer, schemas={"7": READING}).code == "IFX431"
    assert refusal(payload[4:], **options).code == "IFX432"
    assert refusal(payload[:4], **options).code == "IFX432"
    assert AVRO.encode(ONE, options) == payload


def container(codec: str, rows: list[Any], schema: Any = READING, **more: Any) -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, fastavro.parse_schema(schema), rows, codec=codec, **more)
    return file.getvalue()


ROWS = [{"device": f"d{number}", "celsius": number / 4} for number in range(500)]


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy", "zstandard"])
def test_a_container_is_a_list_of_its_records(codec: str) -> None:
    payload = container(codec, ROWS, sync_interval=2000)

    assert decode(payload) == ROWS
    assert decode(payload, reader_schema=NEWER) == [{**row, "site": "?"} for row in ROWS]
    wanted = Reads(items=Reads(keys={"celsius": Reads.BARE}))
    assert decode(payload, wanted) == [{"celsius": row["celsius"]} for row in ROWS]
    assert decode(payload, Reads.BARE) == []
    for end in range(0, len(payload) - 1, 37):
        assert rows_or_code(payload[:end]) in (*CODES, *[len(ROWS[:count]) for count in range(len(ROWS))])
    for at in range(0, len(payload), 11):
        assert rows_or_code(payload[:at] + bytes([payload[at] ^ 0x41]) + payload[at + 1 :]) is not None


def rows_or_code(payload: bytes) -> int | str:
    """Return how many records a container has, or the code of its failure."""
    try:
        return len(decode(payload))
    except DecodeError as refused:
        return refused.code


ZEROS = bytes(64_000_100)


def _snappy_bomb() -> bytes:
    return bytes(cramjam.snappy.compress_raw(ZEROS)) + zlib.crc32(ZEROS).to_bytes(4, "big")


def _deflated() -> bytes:
    stream = zlib.compressobj(1, zlib.DEFLATED, -15)
    return b"".join([stream.compress(ZEROS) for _ in range(4)]) + stream.flush()


@pytest.mark.parametrize(
    ("codec", "bomb"),
    [
        ("deflate", _deflated),
        ("bzip2", lambda: bz2.compress(ZEROS)),
        ("xz", lambda: lzma.compress(ZEROS, preset=0)),
        ("snappy", _snappy_bomb),
        ("zstandard", lambda: bytes(cramjam.zstd.compress(ZEROS))),
    ],
)
def test_a_bomb_is_a_failed_message(codec: str, bomb: Any) -> None:
    blank = container(codec, [])
    sync = blank[-16:]
    data = bomb()
    payload = blank + long(1) + long(len(data)) + data + sync
    tracemalloc.start()
    try:
        assert refusal(payload).code == "IFX401"
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()


WIDE = record(*[a_field(f"n{number}", "null") for number in range(900)], a_field("a", "int"), name="W")
NARROW = record(a_field("a", "int"), name="W")


@pytest.mark.parametrize(
    ("schema", "part", "count", "options"),
    [
        (NARROW, b"\2", 50_000, {}),
        ("int", b"\2", 250_000, {}),
        (WIDE, b"\2", 1_000, {}),
        (NARROW, b"\2", 1_000, {"reader_schema": record(*[{**each, "default": None} for each in WIDE["fields"][:-1]], name="W")}),
        ({"type": "array", "items": NARROW}, long(1000) + b"\2" * 1000 + b"\0", 50, {}),
        ({"type": "array", "items": "int"}, long(1000) + b"\2" * 1000 + b"\0", 250, {}),
        ({"type": "map", "values": WIDE}, b"\2\2a\2\0", 1_000, {}),
        (record(a_field("a", "int"), a_field("b", ["null", WIDE]), name="Out"), b"\0\2\0", 1_000, {}),
        (record(a_field("a", "int"), a_field("b", ["null", "Self"]), name="Self"), b"\0\2" * 100 + b"\0\0", 500, {}),
    ],
)  # fmt: skip
def test_values_are_counted_before_they_are_made(schema: Any, part: bytes, count: int, options: Any) -> None:
    """4 kB may expand to 4,000,000 records."""
    blank = container("deflate", [], schema)
    stream = zlib.compressobj(wbits=-15)
    data = stream.compress(part * count) + stream.flush()
    payload = blank + long(count) + long(len(data)) + data + blank[-16:]
    assert len(decode(payload, **options)) == count
    tracemalloc.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(avro, "MAX_VALUES", 200_000)
            assert refusal(payload, **options).code == "IFX401"
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()


def test_values_that_are_not_there_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optional record that is null, fields that are not read, and the payloads before take nothing."""
    monkeypatch.setattr(avro, "MAX_VALUES", 2_000)
    schema = record(a_field("a", "int"), a_field("b", ["null", WIDE]), name="Out")
    payload = container("null", [{"a": number, "b": None} for number in range(200)], schema)
    wide = container("null", [dict.fromkeys([f"n{n}" for n in range(900)]) | {"a": n} for n in range(200)], WIDE)

    for _ in range(3):
        assert len(decode(payload)) == 200
        assert len(decode(wide, Reads(items=Reads(keys={"a": Reads.BARE})))) == 200
        assert decode(wide, Reads.BARE) == []
    assert refusal(wide).code == "IFX401"


def test_the_schema_of_a_stranger_has_fewer_types() -> None:
    schema = record(*[a_field(f"a{number}", {"type": "int"}) for number in range(5_000)])

    assert refusal(container("null", [], schema)).reason.endswith("more than 5,000 types")
    assert bound({"schema": schema})


def test_a_length_that_snappy_declares_is_not_believed() -> None:
    data = b"\xff\xff\xff\xff\x0f" + b"\0" * 10
    payload = container("snappy", [])

    assert refusal(payload + long(1) + long(len(data)) + data + payload[-16:]).code == "IFX401"
    assert refusal(payload + long(1) + long(2**40)).code == "IFX404"


def test_a_container_with_a_schema_or_codec_that_cannot_be_used_fails() -> None:
    good = container("null", ROWS[:1])

    assert refusal(good.replace(b'"double"', b'"dooble"')).code == "IFX430"
    assert refusal(good, reader_schema=record(a_field("x", "int"))).code == "IFX430"
    assert refusal(good.replace(b"null", b"nuxl")).code == "IFX433"
    assert refusal(b"").code == "IFX404"
    assert refusal(b"Obj\1").code == "IFX404"
    assert refusal(b"Obj\1" + long(2**40)).code == "IFX404"


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"encoding": "raw"}, "encoding"),
        ({"encoding": "confluent"}, "encoding"),
        ({"encoding": "single_object"}, "encoding"),
        ({"encoding": "single_object", "schemas": {"7": READING}}, "schemas"),
        ({"schemas": [READING]}, "schemas"),
        ({"encoding": "confluent", "schemas": {"7": READING}, "schema": READING}, "schema"),
        ({"schemas": {"7": {"type": "x"}}}, "schemas/7"),
        *[
            ({"schemas": {number: READING}}, "schemas")
            for number in ("", "x", "07", "-1", "²", "4294967296", "9" * 5000)
        ],
    ],
)
def test_an_encoding_without_its_schemas_is_an_error_of_the_document(options: Any, option: str) -> None:
    with pytest.raises(OptionError) as refused:
        bound(options)

    assert refused.value.option == option


# --- where it failed ---

Path_ = tuple[str | int, ...]


def segments(schema: Any, known: Mapping[str, Any], payload: bytes, at: int, path: Path_) -> Iterator[tuple[Any, ...]]:
    """Yield what is read in turn of a sound payload: its path, where it begins and ends, how many bytes must be there.

    The value is where the next one begins.
    """

    def number() -> int:
        nonlocal at
        start, at = at, next(end for end in range(at, len(payload)) if payload[end] < 128) + 1
        value = sum((byte & 127) << 7 * place for place, byte in enumerate(payload[start:at]))
        return (value >> 1) ^ -(value & 1)

    start = at
    if isinstance(schema, list):
        branch = schema[number()]
        yield path, start, at, at
        return (yield from segments(branch, known, payload, at, path))
    schema = known.get(schema, schema) if isinstance(schema, str) else schema
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        for field in schema["fields"]:
            at = yield from segments(field["type"], known, payload, at, (*path, field["name"]))
        return at
    if kind in ("array", "map"):
        first = 0
        while True:
            start, total = at, number()
            yield path, start, at, at + total
            if not total:
                return at
            for index in range(first, first + total):
                step: str | int = index
                if kind == "map":
                    start, size = at, number()
                    at += size
                    yield path, start, at, at
                    step = payload[at - size : at].decode()
                at = yield from segments(
                    schema["items" if kind == "array" else "values"], known, payload, at, (*path, step)
                )
            first += total
    if kind in ("bytes", "string"):
        size = number()
        at += size
    elif kind in ("int", "long", "enum"):
        number()
    else:
        at += {"null": 0, "boolean": 1, "float": 4, "double": 8}.get(kind) or schema["size"] if kind != "null" else 0
    yield path, start, at, at
    return at


def place_of(payload: bytes, parts: Reads | None, strict: bool, **options: Any) -> tuple[DecodeError, Place | None]:
    with pytest.raises(DecodeError) as refused:
        decode(payload, parts, strict, **options)
    error = refused.value
    place = error.find_place() if error.find_place is not None else None
    assert with_place(error).reason == error.reason + (f" ({place})" if place else "")
    return error, place


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(written(), st.data(), reads)
def test_a_payload_that_ends_too_early_is_told_with_the_value_that_is_not_whole(
    case: tuple[Any, Any, bytes], data: st.DataObject, wanted: Reads
) -> None:
    """Read or not, in any part of it."""
    schema, _, payload = case
    if not payload:
        return
    found = list(segments(schema, known_types(schema, {}), payload, 0, ()))
    assert found[-1][2] == len(payload)
    size = data.draw(st.integers(0, len(payload) - 1))
    path, start = next((path, start) for path, start, _, least in found if least > size)

    for parts in (None, wanted):
        _, place = place_of(payload[:size], parts, False, schema=schema)
        assert place == Place(path, start)


def is_path(schemas: list[Any], known: Mapping[str, Any], path: Path_) -> bool:
    """Return whether a value of one of the schemas may have a part with a path."""
    alternatives = [
        known.get(branch, branch) if isinstance(branch, str) else branch
        for each in schemas
        for branch in (each if isinstance(each, list) else [each])
    ]
    if not path:
        return True
    inner = []
    for each in alternatives:
        kind = each if isinstance(each, str) else each["type"]
        if kind in ("array", "map") and isinstance(path[0], int) is (kind == "array"):
            inner.append(each["items" if kind == "array" else "values"])
        if kind == "record":
            inner += [field["type"] for field in each["fields"] if field["name"] == path[0]]
    return bool(inner) and is_path(inner, known, path[1:])


@settings(max_examples=2 * MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(written(), st.data(), reads, st.booleans())
def test_a_failure_has_a_place_of_the_schema_and_of_the_payload(
    case: tuple[Any, Any, bytes], data: st.DataObject, wanted: Reads, strict: bool
) -> None:
    schema, _, payload = case
    at = data.draw(st.integers(0, len(payload)))
    new = data.draw(st.binary(max_size=2) | st.sampled_from([b"\xff" * 9, long(2**60), long(-(2**63)), long(-1)]))
    payload = payload[:at] + new + payload[at + data.draw(st.integers(0, 2)) :]
    for parts in (None, wanted):
        with suppress(DecodeError):
            decode(payload, parts, strict, schema=schema)
            continue
        error, place = place_of(payload, parts, strict, schema=schema)
        event(error.code)
        assert place is not None
        assert 0 <= place.byte <= len(payload)
        assert is_path([schema], known_types(schema, {}), place.path)
        assert decodes_until(payload[: place.byte], schema, parts)


def decodes_until(payload: bytes, schema: Any, parts: Reads | None) -> bool:
    """Return whether nothing is wrong with the beginning of a payload but that it ends."""
    try:
        decode(payload, parts, schema=schema)
    except DecodeError as error:
        # The last is of a block that is longer than it says: its place is where it ends.
        return any(words in error.reason for words in ("ends in the middle", "bytes are left", "a block is not as"))
    return True


@pytest.mark.parametrize(
    ("schema", "payload", "place"),
    [
        (record(a_field("a", "int"), a_field("b", {"type": "array", "items": record(a_field("c d", "boolean"), name="I")})), b"\2\4\1\2\0", 'b[1]."c d", byte 3'),
        (record(a_field("a", {"type": "map", "values": "boolean"})), b"\2\4x.\2\0", 'a."x.", byte 4'),
        (record(a_field("a", {"type": "map", "values": "boolean"})), b"\2\4\xff.\1\0", "a, byte 1"),
        (record(a_field("a", ["null", "string"])), b"\2\4\xff.", "a, byte 1"),
        (record(a_field("a", logical("int", "date"))), long(2**31 - 1), "a, byte 0"),
        ({"type": "array", "items": "boolean"}, long(-1) + long(2) + b"\1\0\0", "byte 3"),
        (record(a_field("a", {"type": "array", "items": "long"})), long(-2) + long(2) + b"\2\2" + b"\2" + b"\xff" * 11, "a[2], byte 5"),
        ({"type": "long"}, b"\2\2\2", "byte 1"),
    ],
)  # fmt: skip
def test_a_place_is_written_as_an_expression_has_it(schema: Any, payload: bytes, place: str) -> None:
    assert str(place_of(payload, None, True, schema=schema)[1]) == place


def test_a_place_is_of_the_whole_payload_in_each_encoding() -> None:
    """In a container, of the block and the record; a record is an element of the list."""
    short = by_fastavro(READING, ONE)[:-1]
    single = b"\xc3\1" + fingerprint(json.dumps(READING)) + short
    payload = container("deflate", ROWS[:3])
    sync = payload[-16:]
    data = b"".join(by_fastavro(READING, row) for row in ROWS[:2]) + short
    broken = zlib.compress(data)[2:-4]

    assert str(place_of(single, None, False, encoding="single_object", schema=READING)[1]) == "celsius, byte 13"
    assert str(place_of(b"\0\0\0\0\7" + short, None, False, schemas={"7": READING})[1]) == "celsius, byte 8"
    for parts in (None, Reads.BARE):
        block = payload + long(3) + long(len(broken)) + broken + sync
        assert str(place_of(block, parts, False)[1]) == f"[5].celsius, byte {len(data) - 7} of block 2"
    assert str(place_of(payload + long(3) + long(1), None, False)[1]) == f"byte {len(payload)}"
    assert str(place_of(payload[:30], None, False)[1]).startswith("byte ")


def test_a_place_takes_little_more_than_the_payload() -> None:
    """Of a long path it has the beginning and the end; of a long payload the second pass is one pass."""
    payload = b"\2" * 120
    error, _ = place_of(payload, None, False, schema=LIST)
    assert with_place(error).reason.endswith("next.next.next, byte 120)")
    assert len(with_place(error).reason) < 250

    rows = {"type": "array", "items": "boolean"}
    sizes = [20_000, 80_000]
    steps = []
    for size in sizes:
        payload = long(size) + b"\1" * (size - 1) + b"\2\0"
        error, _ = place_of(payload, None, False, schema=rows)
        steps.append(lines_run(error.find_place))
    assert steps[1] < 4.5 * steps[0]


# --- documents ---

DOCUMENT = """
iggyflux: 1
kind: writer
name: plant
from: {{stream: s, topic: t, payload: {payload}}}
points:
  - measurement: {{const: env}}
    tags: [device]
    fields: [celsius]
"""


def test_a_document_names_a_file_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "reading.avsc").write_text(json.dumps(READING))
    path = tmp_path / "m.yaml"
    path.write_text(DOCUMENT.format(payload="{format: avro, schema: reading.avsc}"))
    mapping = load_mapping(path)
    message = Message(by_fastavro(READING, ONE), stream="s", topic="t", offset=1)

    assert list(mapping.files) == [tmp_path / "reading.avsc"]
    for plan in ("compiled", "reference"):
        (line,) = mapping.plan(plan).render([message]).lines
        assert line.startswith("env,device=d1 celsius=21.5 ")
    before = mapping.identity()
    (tmp_path / "reading.avsc").write_text(json.dumps(NEWER))
    assert load_mapping(path).identity() != before
    import pickle

    again = pickle.loads(pickle.dumps(mapping))
    (tmp_path / "reading.avsc").unlink()
    assert again.identity() == before
    assert again.plan().render([message]).lines == mapping.plan().render([message]).lines


@pytest.mark.parametrize(
    ("payload", "code", "pointer"),
    [
        ("{format: avro, schema: none.avsc}", "IFX100", "/from/payload/schema"),
        ("{format: avro, schema: {type: x}}", "IFX171", "/from/payload/schema"),
        ("{format: avro, schemas: {'7': none.avsc}}", "IFX100", "/from/payload/schemas/7"),
        ("{format: avro, encoding: raw}", "IFX118", "/from/payload/encoding"),
        ("{format: avro, encoding: bare}", "IFX113", "/from/payload/encoding"),
        ("{format: avro, schema: {type: long}, reader_schema: {type: string}}", "IFX172", "/from/payload/reader_schema"),
    ],
)  # fmt: skip
def test_a_fault_of_a_schema_has_its_place_in_the_document(
    tmp_path: Path, payload: str, code: str, pointer: str
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(DOCUMENT.format(payload=payload))

    with pytest.raises(MappingError) as refused:
        load_mapping(path)

    (problem,) = [each for each in refused.value.problems if each.severity == "error"]
    assert (problem.code, problem.location.pointer) == (code, pointer)
    assert problem.location.line == 5


def test_a_container_without_for_each_is_warned_of() -> None:
    mapping = parse_mapping(DOCUMENT.format(payload="avro"))

    assert "IFX153" in [problem.code for problem in mapping.warnings]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(command_line, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_mapping_is_inferred_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "rows.avro").write_bytes(container("deflate", ROWS[:40]))
    mapping = tmp_path / "m.yaml"

    run("infer", str(tmp_path / "rows.avro"), "--output", str(mapping))

    text = mapping.read_text()
    assert "payload: avro" in text
    assert "for_each: '@'" in text
    assert "1 passed" in run("test", str(mapping))
    assert len(run("dry-run", str(mapping), "--whole", str(tmp_path / "rows.avro")).splitlines()) >= 40


def test_messages_are_generated_of_the_examples(tmp_path: Path) -> None:
    mapping = tmp_path / "m.yaml"
    examples = (
        "examples: [{message: {device: d1, celsius: 21.5}, points: ['env,device=d1 celsius=21.5 946684800000000000']}]"
    )
    mapping.write_text(DOCUMENT.format(payload=f"{{format: avro, schema: {json.dumps(READING)}}}") + examples)
    assert "1 passed" in run("test", str(mapping))

    run("log", "generate", str(mapping), "--into", str(tmp_path / "log"), "--count", "10")

    lines = run("dry-run", str(mapping), f"log:{tmp_path / 'log'}").splitlines()
    assert len([line for line in lines if line.startswith("env,device=")]) == 10


# --- writing ---


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(written(), st.sampled_from(["raw", "single_object", "container"]))
def test_a_value_that_was_written_is_read_again(case: tuple[Any, Any, bytes], encoding: str) -> None:
    """Of a union, perhaps as another branch that the value fits."""
    schema, plain, _ = case
    options = {"schema": schema, "encoding": encoding}
    value = [plain, plain] if encoding == "container" else plain

    assert decode(AVRO.encode(value, options), **options) == value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "int"}, 2**31), ({"type": "long"}, 2**63), ({"type": "long"}, True), ({"type": "long"}, 1.0),
        ({"type": "float"}, 0.1), ({"type": "double"}, 2**53 + 1), ({"type": "string"}, "\ud800"), ({"type": "bytes"}, "é"),
        ({"type": "bytes"}, 7), (READING, {"device": "d"}), (READING, {**ONE, "x": 1}), (["null", "int"], "x"),
        (logical("long", "timestamp-millis"), "yesterday"), (logical("bytes", "decimal", precision=2), "100"),
        ({"type": "array", "items": "int"}, {}),
    ],
)  # fmt: skip
def test_a_value_that_its_schema_cannot_hold_is_not_written(schema: Any, value: Any) -> None:
    with pytest.raises(RecordError) as refused:
        AVRO.encode(value, {"schema": schema})

    assert refused.value.code == "IFX420"
    refused.value.reason.encode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": [{"b": 1.5}, {"b": "x"}]}, "a[1].b: expected double), found string 'x'"),
        ({"a": [{"b": 1.5}, {"c": 2}]}, "a[1]: record I has no field 'c'), found an object"),
        ({"a": [{}]}, "a[0]: record I needs the field 'b'), found an object"),
        ({"a": [], "m": {"k l": {"b": [1]}}}, 'm."k l".b: expected double), found a list'),
        ({"a": [], "f": "AAAA"}, "f: expected fixed F), found string 'AAAA'"),
        ([7], "expected record R), found a list"),
    ],
)
def test_a_value_that_does_not_fit_is_named_and_no_record_is_quoted(value: Any, reason: str) -> None:
    inner = record(a_field("b", "double"), name="I")
    fixed = {"type": "fixed", "name": "F", "size": 2}
    schema = record(
        a_field("a", {"type": "array", "items": inner}),
        a_field("m", ["null", {"type": "map", "values": "I"}], default=None),
        a_field("f", ["null", fixed], default=None),
    )

    with pytest.raises(RecordError) as refused:
        AVRO.encode(value, {"schema": schema})

    assert refused.value.reason == f"avro needs a value of its schema ({reason}"
