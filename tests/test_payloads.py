"""Payload formats: one contract that each of them passes, then the details of each."""

from __future__ import annotations

import base64
import gc
import json
import math
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from random import Random
from types import MappingProxyType
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from iggyflux.codes import CODES
from iggyflux.documents import load_schema
from iggyflux.errors import DecodeError, PartlyDecoded, RecordError
from iggyflux.payloads import (
    FORMATS,
    MAX_PAYLOAD_BYTES,
    OptionError,
    check_json_bytes,
    is_wide,
)
from iggyflux.payloads.format import ENCODINGS
from iggyflux.payloads.json_ import find_duplicate_key, is_shallow
from iggyflux.payloads.recognition import WITH_ENCODING
from iggyflux.reads import Reads
from tests.binary_payloads import TREES, WRITERS, Pairs, evaluate
from tests.protobuf_payloads import options as protobuf_options

PLAIN = {dict, list, str, int, float, bool, type(None)}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
reads = st.recursive(
    st.sampled_from([Reads.WHOLE, Reads.BARE]),
    lambda inner: st.builds(
        lambda keys, items: Reads(keys=keys, items=items),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
        st.none() | inner,
    ),
    max_leaves=5,
)

# A schema of any object without integers beyond 64 bits.
AVRO_OF_JSON = {
    "type": "map",
    "values": [
        "null", "boolean", "long", "double", "string",
        {"type": "array", "items": ["null", "boolean", "long", "double", "string"]},
        {"type": "map", "values": {"type": "map", "values": "long"}},
    ],
}  # fmt: skip
# What each format gives back unchanged, with its options.
SAMPLES: dict[str, list[tuple[Any, Mapping[str, Any]]]] = {
    "json": [({"a": [1, 2.5, True, None, "é\n"], "b": {}}, {}), (2**70, {}), ("", {}), ([], {})],
    "msgpack": [({"a": [1, 2.5, True, None, "é\n", -7, 2**40, -(2**63), 2**64 - 1], "b": {}}, {}), ("x" * 300, {})],
    "cbor": [({"a": [1, 2.5, True, None, "é\n", -7, 2**40, -(2**63), 2**64 - 1], "b": {}}, {}), ("x" * 300, {})],
    "protobuf": [
        (
            {"aInt64": 2**53 + 1, "HasField": "é", "probes": [{"label": "x"}], "at": "2026-01-01T00:00:00.000000001Z"},
            {},
        ),
        ({"byNumber": {"-7": {"reading": 1.5}}, "extra": {"a": [None, True, -0.5]}}, {}),
        ([{"aDouble": 1.5}, {"maybeInt": 0}], {"framing": "delimited"}),
        ({"phase": -2}, {"framing": "confluent", "enums": "number", "names": "proto"}),
    ],
    "csv": [
        ([{"a": "1", "b": 'x"y,z\r\n'}, {"a": "", "b": "é"}], {}),
        ([{"a": "1", "b": "'x;\n"}], {"header": ["a", "b"], "delimiter": ";", "quote": "'"}),
        ([{"a": ""}], {"header": ["a"]}),
        ([{"Größe": "½ €"}], {"encoding": "windows-1252", "delimiter": "§"}),
        ([{"ширина": "7"}], {"encoding": "utf-16"}),
    ],
    "text": [("hé\0llo\n", {}), ("", {}), ("зал 3", {"encoding": "cp866"}), ("日本 é", {"encoding": "utf-16be"})],
    "xml": [
        ({"a": None}, {}),
        ({"a": {"@b": "1", "c": ["x", None, {"@d": "<é&>\n", "#text": "t"}], "e": "2"}}, {}),
        ({"a": {"_b": "1", "c": ["x"]}}, {"attribute_prefix": "_", "lists": ["c"]}),
        ({"m:a": {"@xmlns": {"m": "urn:x"}, "m:b": "1"}}, {"namespaces": {"urn:x": "m"}}),
    ],
    "logfmt": [
        ({"a": "1", "b.c-d/é": 'say "hi"\n=\\\0', "e": True, "f": "", "g": "x=y,z"}, {}),
        ({"level": "info"}, {}),
        ({"raum": "Küche"}, {"encoding": "iso-8859-15"}),
    ],
    "raw": [("", {}), ("AAEC/w==", {})],
    "influx": [
        (
            [
                {
                    "measurement": "m",
                    "tags": {"t": "a b"},
                    "fields": {"f": 1.5, "i": -3, "s": "x\ny", "b": True},
                    "time": -5,
                }
            ],
            {},
        ),
        ([{"measurement": "m", "tags": {}, "fields": {"f": 1.0}, "time": None}], {"dialect": "v3"}),
        ([{"measurement": "m", "tags": {}, "fields": {"f": 1.0}, "time": 2_000_000}], {"precision": "ms"}),
        ([], {}),
    ],
    "avro": [
        ({"a": [1, 2.5, True, None, "é\n", -7, 2**40, -(2**63), 2**63 - 1], "b": {}}, {"schema": AVRO_OF_JSON}),
        ({"a": "x" * 300, "b": {"c": {}}}, {"schema": AVRO_OF_JSON, "encoding": "single_object"}),
        ({"a": 1.5}, {"schemas": {"7": AVRO_OF_JSON}}),
        ([{"a": 1}, {"b": ["x"]}], {"schema": AVRO_OF_JSON, "encoding": "container"}),
    ],
}
LARGE: dict[str, Any] = {
    "json": [{"name": "x" * 200, "value": 1.5, "list": [1, 2, 3]}] * 85_000,
    "msgpack": [{"name": "x" * 2000, "value": 1.5, "list": [1, 2, 3]}] * 10_000,
    "cbor": [{"name": "x" * 2000, "value": 1.5, "list": [1, 2, 3]}] * 10_000,
    "protobuf": {"probes": [{"label": "x" * 2000, "reading": 1.5}] * 10_000, "notes": ["é"]},
    "csv": [{"a": "x" * 200, "b": 'quo"ted', "c": "y" * 200_000}] * 100,
    "text": "é" * 10_000_000,
    "xml": {"a": {"b": [{"@name": "x" * 2000, "value": "1.5", "list": ["1", "2", "3"]}] * 10_000}},
    "logfmt": {f"key{number}": 'qu"oted ' * 2000 for number in range(1300)},
    "raw": "AAEC" * 6_700_000,
    "influx": [{"measurement": "m", "tags": {}, "fields": {"s": "x\n" * 30_000}, "time": n} for n in range(340)],
    "avro": [{"a": "x" * 2000, "b": 1.5, "c": [1, 2, 3]}] * 10_000,
}
LARGE_OPTIONS: dict[str, Any] = {"avro": {"schema": {"type": "array", "items": AVRO_OF_JSON}}}


# Options that a format cannot do without.
REQUIRED: dict[str, Mapping[str, Any]] = {"protobuf": protobuf_options(defaults=False)}


def bound(name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options as a document has them."""
    if name == "protobuf":
        return protobuf_options(**{"defaults": False, **options})
    FORMATS[name].check(options)
    return options


def encode(name: str, value: Any) -> bytes:
    return FORMATS[name].encode(value, REQUIRED.get(name, {}))


def decode(name: str, payload: bytes, *, strict: bool = False, reads: Reads | None = None, **options: Any) -> Any:
    return FORMATS[name].decode(payload, {**REQUIRED.get(name, {}), **options}, reads, strict)


def refusal(name: str, payload: bytes, **options: Any) -> DecodeError:
    with pytest.raises(DecodeError) as refused:
        decode(name, payload, **options)
    return refused.value


def assert_plain(value: Any) -> None:
    assert type(value) in PLAIN
    if type(value) is dict:
        assert all(type(key) is str for key in value)
    if type(value) is float:
        assert math.isfinite(value)
    for inner in value.values() if type(value) is dict else value if type(value) is list else ():
        assert_plain(inner)


def assert_decodes_or_refuses(
    name: str, payload: bytes, reads: Reads | None, strict: bool, options: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Check the contract: a plain value, or a `DecodeError` that can be printed."""
    try:
        value = FORMATS[name].decode(payload, bound(name, options), reads, strict)
    except DecodeError as refused:
        _assert_tellable(refused)
    else:
        assert_plain(value)


def _assert_tellable(refused: RecordError) -> None:
    assert refused.code in CODES
    assert len(refused.reason) < 400
    assert " object at 0x" not in refused.reason  # an address differs each time
    refused.reason.encode()


# --- the contract ---


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_needs_no_options_but_a_schema_and_has_samples(name: str) -> None:
    if name not in REQUIRED:
        FORMATS[name].check({})

    assert SAMPLES[name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_reads_what_it_wrote(name: str) -> None:
    for value, more in SAMPLES[name]:
        options = bound(name, more)
        payload = FORMATS[name].encode(value, options)

        back = FORMATS[name].decode(payload, options, None, True)

        assert back == value
        assert_plain(back)
        assert FORMATS[name].encode(back, options) == payload


@pytest.mark.parametrize("name", FORMATS)
def test_a_failure_does_not_keep_its_payload(name: str) -> None:
    """Not even until garbage is collected: a few large ones would be much."""
    refused = 0
    gc.disable()
    try:
        for value, more in SAMPLES[name]:
            decode_payload = FORMATS[name].bound(bound(name, more), None, True)
            good = FORMATS[name].encode(value, bound(name, more))
            for payload in [good[:size] for size in range(len(good))] + [good + b"\0", good + b"\xff", b"\xff" * 9]:
                before = sys.getrefcount(payload)
                try:
                    decode_payload(payload)
                except DecodeError:
                    refused += 1
                else:
                    continue
                assert sys.getrefcount(payload) == before, payload
    finally:
        gc.enable()
    assert refused or name == "raw"


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150)
@given(payload=st.binary(max_size=40), reads=st.none() | reads, strict=st.booleans(), data=st.data())
def test_any_bytes_give_a_plain_value_or_a_decode_error(
    name: str, payload: bytes, reads: Reads | None, strict: bool, data: st.DataObject
) -> None:
    options = data.draw(st.sampled_from([options for _, options in SAMPLES[name]]))

    assert_decodes_or_refuses(name, payload, reads, strict, options)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150)
@given(value=trees | st.lists(st.dictionaries(st.text(max_size=2), scalars, max_size=2), max_size=2), data=st.data())
def test_what_a_format_writes_it_reads(name: str, value: Any, data: st.DataObject) -> None:
    options = bound(name, data.draw(st.sampled_from([options for _, options in SAMPLES[name]])))
    try:
        payload = FORMATS[name].encode(value, options)
    except RecordError as refused:
        _assert_tellable(refused)
        return

    read = FORMATS[name].decode(payload, options, None, False)

    assert FORMATS[name].decode(FORMATS[name].encode(read, options), options, None, False) == read


@pytest.mark.parametrize("name", ["json", "msgpack", "cbor"])  # of protobuf: tests/test_protobuf.py
@settings(max_examples=150)
@given(value=trees, reads=st.none() | reads, data=st.data())
def test_mutated_payloads_give_a_plain_value_or_a_decode_error(
    name: str, value: Any, reads: Reads | None, data: st.DataObject
) -> None:
    payload = FORMATS[name].encode(value, {})
    position = data.draw(st.integers(0, len(payload)))
    removed = data.draw(st.integers(0, 3))

    assert_decodes_or_refuses(
        name, payload[:position] + data.draw(st.binary(max_size=3)) + payload[position + removed :], reads, False
    )


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_payload_gives_a_plain_value_or_a_decode_error(name: str) -> None:
    for value, options in SAMPLES[name]:
        payload = FORMATS[name].encode(value, bound(name, options))
        for end in range(len(payload)):
            assert_decodes_or_refuses(name, payload[:end], None, False, options)
            if options.get("encoding") == "container":
                continue  # a container may end after any block
            if name in ("msgpack", "cbor", "avro") or (name == "json" and payload[:1] in b'{["'):
                assert refusal(name, payload[:end], **options).code in ("IFX402", "IFX404", "IFX432")


@pytest.mark.parametrize("name", FORMATS)
def test_a_valid_payload_of_20_mb_is_accepted(name: str) -> None:
    value = LARGE[name]
    options = LARGE_OPTIONS.get(name, {})
    payload = FORMATS[name].encode(value, bound(name, options))

    assert len(payload) >= 20_000_000
    assert decode(name, payload, **options) == value


@pytest.mark.parametrize("name", FORMATS)
def test_a_payload_larger_than_any_message_is_rejected(name: str) -> None:
    assert refusal(name, b" " * (MAX_PAYLOAD_BYTES + 1)).code == "IFX401"


@pytest.mark.parametrize("name", ["json", "csv", "text", "influx", "logfmt"])
@pytest.mark.parametrize("payload", [b"\xff", b"\xc3", b"a\x80", b"\xed\xa0\x80", b"\xc0\x80", "é".encode("latin-1")])
def test_text_that_is_not_utf8_is_rejected_with_the_byte(name: str, payload: bytes) -> None:
    refused = refusal(name, payload)

    assert refused.code == "IFX402"
    assert f"at byte {payload.find(bytes([max(payload)]))}" in refused.reason


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", WITH_ENCODING)
@given(data=st.data())
@settings(max_examples=15)
def test_each_encoding_is_read_or_rejected_and_writes_what_it_reads(
    name: str, encoding: str, data: st.DataObject
) -> None:
    """What it has comes back; of bytes that it does not have the first is named; what it cannot hold is not written."""
    options = {"encoding": encoding}
    text = data.draw(st.text(alphabet="aZ09 _-éßñжЖλ€½┐ő", min_size=1, max_size=9))
    value: Any = text if name == "text" else [{"k": text}] if name == "csv" else {"k": text}
    if encodable(text, encoding):
        assert decode(name, FORMATS[name].encode(value, options), **options) == value
    else:
        with pytest.raises(RecordError, match=f"needs text that {encoding if encoding != 'utf-8' else 'UTF-8'} can"):
            FORMATS[name].encode(value, options)

    payload = data.draw(st.binary(max_size=12))
    fault = fault_of(payload, encoding)
    if fault is not None:
        refused = refusal(name, payload, **options)
        place = f" 0x{payload[fault]:02x} at byte {fault}"
        assert refused.code == "IFX402"
        assert place in refused.reason or "byte order mark" in refused.reason
    elif name == "text" and encoding != "utf-16":
        meant = payload.decode(encoding).removeprefix("\ufeff" if "16" in encoding else "")
        assert decode(name, payload, **options) == meant


def fault_of(payload: bytes, encoding: str) -> int | None:
    """Return the index of the first byte that the encoding does not have."""
    try:
        payload.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    return None


def encodable(text: str, encoding: str) -> bool:
    return text.encode(encoding, "replace").decode(encoding) == text


def test_lines_and_cells_are_found_in_bytes_of_every_encoding_but_utf_16() -> None:
    """`load` splits files before they are decoded: no byte of ASCII is another character, or a part of one."""
    narrow = [name for name in ENCODINGS if not is_wide({"encoding": name})]

    assert [name for name in ENCODINGS if name not in narrow] == ["utf-16", "utf-16le", "utf-16be"]
    for name in narrow:
        for byte in range(256):
            text = bytes([byte]).decode(name, "ignore")
            assert (text == chr(byte)) if byte < 128 else not text.isascii() or not text
    schema = load_schema("mapping")["$defs"]["text_encoding"]
    assert schema["enum"] == list(ENCODINGS)
    assert set(schema["x-instead"].values()) <= set(ENCODINGS)


def test_a_mark_says_the_order_of_utf_16_and_is_no_part_of_the_text() -> None:
    for order in ("little", "big"):
        marked = ("\ufeffzal;7".encode(f"utf-16{order[0]}e"), "zal;7")
        assert decode("text", marked[0], encoding="utf-16") == marked[1]
        assert decode("text", marked[0], encoding=f"utf-16{order[0]}e") == marked[1]
    assert decode("text", "\ufeff\ufeffzal".encode("utf-16le"), encoding="utf-16") == "\ufeffzal"  # the second one is
    assert "byte order mark" in refusal("text", "zal".encode("utf-16le"), encoding="utf-16").reason


@pytest.mark.parametrize("options", [{"delimiter": "ж"}, {"quote": "„"}, {"comment": "№"}])
def test_an_option_that_the_encoding_does_not_have_is_rejected(options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="iso-8859-1 has no"):
        FORMATS["csv"].check({**options, "encoding": "iso-8859-1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("json", float("nan")),
        ("json", [float("inf")]),
        ("json", "\ud800"),
        ("msgpack", float("nan")),
        ("msgpack", 2**64),
        ("msgpack", {"a": "\ud800"}),
        ("cbor", float("-inf")),
        ("cbor", "\ud800"),
        ("csv", 1),
        ("csv", [{"a": [1]}]),
        ("csv", [{"a": "1"}, {"b": "1"}]),
        ("csv", [{"a": "\ud800"}]),
        ("text", 1),
        ("text", None),
        ("text", "\ud800"),
        ("raw", 1),
        ("raw", "é"),
        ("raw", "AAE"),
        ("xml", 1),
        ("xml", {}),
        ("xml", {"a": "1", "b": "2"}),
        ("xml", {"a b": "1"}),
        ("xml", {"a": "\0"}),
        ("xml", {"a": {"@b": None}}),
        ("xml", {"a": [{"b": {"@c": ["1"]}}]}),
        ("xml", {"a": {"@b": {"c": "1"}}}),
        ("xml", {"a": "\ud800"}),
        ("logfmt", "a=1"),
        ("logfmt", {}),
        ("logfmt", {"a": None}),
        ("logfmt", {"a b": "1"}),
        ("logfmt", {"a=b": "1"}),
        ("logfmt", {"a": [1]}),
        ("logfmt", {"a": "\ud800"}),
        ("influx", 1),
        ("influx", {"measurement": "m"}),
        ("influx", {"measurement": 1, "fields": {"f": 1.0}}),
        ("influx", {"measurement": "m", "fields": {"f": [1]}}),
        ("influx", {"measurement": "m", "fields": {"f": 1.0}, "tags": {"a": 1}}),
        ("influx", {"measurement": "m", "fields": {"f": 1.0}, "time": 1.0}),
        ("influx", {"measurement": "m", "fields": {"f": 1.0}, "extra": 1}),
        ("influx", {"measurement": "m=", "fields": {"f": 1.0}}),
        ("influx", {"measurement": "m", "fields": {"f": None}}),
        ("avro", {}),
    ],
)
def test_a_value_that_a_format_cannot_hold_is_rejected(name: str, value: Any) -> None:
    with pytest.raises(RecordError) as refused:
        FORMATS[name].encode(value, {})

    _assert_tellable(refused.value)
    assert not isinstance(value, dict | list) or repr(value) not in refused.value.reason  # it may be a whole record


@pytest.mark.parametrize("name", FORMATS)
def test_payloads_are_decoded_one_by_one(name: str) -> None:
    """Rule 24.  Parts that are valid only together are rejected, each by itself."""
    for part in (b'{"a":1,"x":[{}', b"{}]}", b'{"a":8},{"a":9}'):
        if name == "json":
            assert refusal(name, part).code == "IFX404"
        else:
            assert_decodes_or_refuses(name, part, None, False)


def test_libraries_are_imported_when_they_are_used() -> None:
    late = {"cbor2", "re2", "dateutil", "csv", "xmltodict", "pyexpat", "cramjam", "google.protobuf"}
    program = f"import sys, iggyflux.payloads; print(sorted({late} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


# --- json ---


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", "IFX404", "the payload is empty"),
        (b" \n", "IFX404", "the payload is empty"),
        (b"\xef\xbb\xbf{}", "IFX404", "byte order mark"),
        (b'{"a":1', "IFX404", "truncated"),
        (b'{"a":1}}', "IFX404", "trailing characters"),
        (b'{"a":1}{"a":2}', "IFX404", "trailing characters"),
        (b"{'a':1}", "IFX404", "not JSON"),
        (b'{"a":1,}', "IFX404", "not JSON"),
        (b'{"a":NaN}', "IFX404", "not JSON"),
        (b'{"a":Infinity}', "IFX404", "not JSON"),
        (b'{"a":-}', "IFX404", "not JSON"),
        (b'{"a":01}', "IFX404", "not JSON"),
        (b'{"a":1.}', "IFX404", "not JSON"),
        (b'{"a":+1}', "IFX404", "not JSON"),
        (b'{"a":"\x01"}', "IFX404", "not JSON"),
        (b'{"a":"\\x"}', "IFX404", "not JSON"),
        (b'{"a":"\\ud800"}', "IFX404", "surrogate"),
        (b'{"a":"\\udc00\\ud800"}', "IFX404", "surrogate"),
        (b'{"a":1e400}', "IFX406", "out of range (in $)"),
        (b'{"a":' + b"9" * 5000 + b"}", "IFX406", "out of range"),
        (b"\x00", "IFX404", "not JSON"),
    ],
)
def test_a_payload_that_is_not_json_is_rejected_with_a_reason(payload: bytes, code: str, reason: str) -> None:
    """Rule 25."""
    refused = refusal("json", payload)

    assert refused.code == code
    assert reason in refused.reason


def test_json_numbers_are_exact_and_keep_their_type() -> None:
    value = decode("json", b"[7, -0, 7.0, 1e3, 9007199254740993, 123456789012345678901234567890, 1e-400]")

    assert [repr(number) for number in value] == [
        "7", "0", "7.0", "1000.0", "9007199254740993", "123456789012345678901234567890", "0.0",
    ]  # fmt: skip


def test_a_value_that_is_not_read_is_checked_for_syntax_only() -> None:
    """Rule 25."""
    wanted = Reads(keys={"a": Reads(keys={"b": Reads.WHOLE}), "l": Reads(items=Reads(keys={"x": Reads.BARE}))})

    assert decode(
        "json", b'{"z":1e400,"a":{"b":[1],"c":1e400},"l":[{"x":1,"y":1e400},7,{"x":{"q":1e400}}],"y":1}', reads=wanted
    ) == {"a": {"b": [1]}, "l": [{"x": 1}, 7, {"x": {}}]}
    for payload in (b'{"z":01}', b'{"a":{"c":nul}}', b'{"z":1}x', b'{"z":[}'):
        assert refusal("json", payload, reads=wanted).code == "IFX404"
    for payload in (b'{"a":{"b":[1e400]}}', b'{"l":[{"x":1e400}]}'):
        assert refusal("json", payload, reads=wanted).code == "IFX406"
    assert refusal("json", b'{"l":[{"x":1},{"x":1e400}]}', reads=wanted).reason.endswith("(in $.l[1].x)")
    assert refusal("json", b'{"z":"\xff"}', reads=wanted).code == "IFX402"


@settings(max_examples=150)
@given(trees, reads)
def test_json_decodes_only_what_is_read(value: Any, wanted: Reads) -> None:
    """Rule 25."""
    payload = json.dumps(value).encode()

    assert decode("json", payload, reads=wanted) == wanted.prune(value)


@pytest.mark.parametrize(
    ("payload", "repeats"),
    [
        (b'{"a":1,"b":2}', False),
        (b'{"a":1,"a":2}', True),
        (b'{"a":1,"\\u0061":2}', True),
        (b'{"a/b":1,"a\\/b":2}', True),
        (b'{"a" : 1 , "a"\n:\t2}', True),
        (b'{"z":1,"z":2}', True),
        (b'{"o":{"p":1,"p":2}}', True),
        (b'{"o":{"z":1,"z":2}}', True),
        (b'{"z":{"a":1,"a":2}}', True),
        (b'{"l":[{"p":1},{"p":2}]}', False),
        (b'{"l":[{"p":1},{"p":2,"p":3}]}', True),
        (b'{"l":[{"z":1,"z":2}]}', True),
        (b'{"w":{"any":{"x":1,"x":2}}}', True),
        (b'{"w":[{"x":1},{"x":2}]}', False),
        (b'{"a":"a","b":"\\"a\\":"}', False),
        (b'{"a":":","b":["a",":"]}', False),
        (b'{"\xc3\xa9":1,"\\u00e9":2}', True),
        ('{"é":1,"é":2}'.encode(), True),
        (b'{"q\\"":1,"q\\"":2}', True),
        (b'{"q\\"":1,"q\\u0022":2}', True),
        (b'{"o":{"p":1},"o":{"p":2}}', True),
        (b'[{"a":1},{"a":2}]', False),
    ],
)
def test_of_duplicate_keys_the_last_wins_and_strict_rejects_them(payload: bytes, repeats: bool) -> None:
    """Rule 26.  Read or not, at any depth, compared after unescaping."""
    assert decode("json", payload) == json.loads(payload)
    assert (find_duplicate_key(payload) is not None) is repeats
    if repeats:
        with pytest.raises(DecodeError, match="duplicate key"):
            decode("json", payload, reads=Reads(keys={"x": Reads.WHOLE}), strict=True)
    else:
        assert decode("json", payload, strict=True) == json.loads(payload)


@pytest.mark.parametrize("text", ["\\ud83d", "a\\udc00b", "\\ud83d\\ud83d", "\\ud83dx", "\\uDFFF"])
def test_an_unpaired_surrogate_fails_only_where_it_is_read(text: str) -> None:
    """Rule 25.  RFC 8259 allows it, and JSON.stringify writes it; UTF-8 cannot."""
    payload = f'{{"lambda":1,"note":"{text}","more":{{"{text}":[1e400,"{text}"]}}}}'.encode()
    read = Reads(keys={"lambda": Reads.WHOLE})

    assert decode("json", payload, reads=read) == {"lambda": 1}
    assert decode("json", payload, reads=read, strict=True) == {"lambda": 1}
    for keys in ({"note": Reads.BARE}, {"more": Reads.WHOLE}):
        failed = refusal("json", payload, reads=Reads(keys=keys))
        assert failed.code == "IFX404"
        assert "surrogate" in failed.reason
    assert refusal("json", payload[:-1], reads=read).code == "IFX404"
    assert refusal("json", payload.replace(b"1e400", b"NaN"), reads=read).code == "IFX404"


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            ['"a":1', '"b":{"a":1}', '"a":{"b":1,"b":2}', '"\\u0061":[]', '"c":"a\\":"', '"b":":"', '"b" :"\\ud800"']
        ),
        max_size=4,
    ),
    reads,
)
def test_duplicate_keys_are_read_as_by_json_of_python(members: list[str], wanted: Reads) -> None:
    """Rule 26.  The last wins; strict rejects exactly the payloads with fewer members than keys."""
    payload = ("{" + ",".join(members) + "}").encode()
    tree = json.loads(payload)

    assert (find_duplicate_key(payload) is not None) is _repeats(members)
    if b"ud800" not in payload:
        assert decode("json", payload, reads=wanted) == wanted.prune(tree)


def _repeats(members: list[str]) -> bool:
    names = [json.loads(member.partition(":")[0]) for member in members]
    return len(set(names)) < len(names) or any('"b":1,"b":2' in member for member in members)


def test_depth_is_counted_outside_of_strings() -> None:
    assert decode("json", b"[" * 128 + b"]" * 128)
    assert decode("json", b'{"a":' * 128 + b"1" + b"}" * 128)
    assert decode("json", b'["' + b"[" * 1000 + b'\\"{{"]')
    assert decode("json", b"[" + b"[]," * 1000 + b"[]]")
    for payload in (
        b"[" * 129 + b"]" * 129,
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'["x",' * 129 + b"1" + b"]" * 129,
    ):
        assert refusal("json", payload).code == "IFX403"
        assert refusal("json", payload, reads=Reads.BARE).code == "IFX403"


def test_checking_hostile_bytes_takes_linear_time() -> None:
    for payload in (
        b'"' + b'\\"' * 2_000_000,
        b"\\" * 4_000_000,
        b'["' * 2_000_000,
        b'[\\"' * 1_000_000,
        b"]" * 3_000_000,
    ):
        try:
            check_json_bytes(payload)
        except DecodeError as refused:
            _assert_tellable(refused)


# --- msgpack and cbor ---


def _msgpack(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ("80", {}),
        ("7f", 127),
        ("e0", -32),
        ("cc07", 7),
        ("cd0007", 7),
        ("cf0000000000000007", 7),
        ("d3ffffffffffffffff", -1),
        ("ca3fc00000", 1.5),
        ("ca3dcccccd", 0.10000000149011612),
        ("d90161", "a"),
        ("db0000000161", "a"),
        ("dc000101", [1]),
        ("de0001a16101", {"a": 1}),
        ("c403000102", "AAEC"),
        ("82a16101a16202", {"a": 1, "b": 2}),
    ],
)
def test_msgpack_accepts_every_encoding_of_a_value(payload: str, value: Any) -> None:
    assert decode("msgpack", _msgpack(payload)) == value


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("", "IFX404"),
        ("c1", "IFX404"),
        ("0101", "IFX404"),
        ("c0c0", "IFX404"),
        ("a2ffff", "IFX402"),
        ("a3eda080", "IFX402"),
        ("81c001", "IFX407"),
        ("819001", "IFX407"),
        ("81c4016101", "IFX408"),
        ("d60000000001", "IFX408"),
        ("d5ff0001", "IFX408"),
        ("c70cff3b9aca000000000000000001", "IFX408"),
        ("c70cff000000007fffffffffffffff", "IFX408"),
        ("81d6ff0000000101", "IFX408"),
        ("c70305010203", "IFX408"),
        ("cb7ff8000000000000", "IFX406"),
        ("cb7ff0000000000000", "IFX406"),
        ("caff800000", "IFX406"),
        ("91" * 129 + "c0", "IFX403"),
        ("81a161" * 129 + "c0", "IFX403"),
        ("91" * 100_000, "IFX403"),
        ("ddffffffff", "IFX404"),
        ("dbffffffff61", "IFX404"),
    ],
    ids=lambda value: value[:20],
)
def test_msgpack_rejects_values_that_json_does_not_have(payload: str, code: str) -> None:
    assert refusal("msgpack", _msgpack(payload)).code == code


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ("a0", {}),
        ("1807", 7),
        ("1b0000000000000007", 7),
        ("3bffffffffffffffff", -(2**64)),
        ("1bffffffffffffffff", 2**64 - 1),
        ("f93e00", 1.5),
        ("fa3fc00000", 1.5),
        ("fb3ff8000000000000", 1.5),
        ("7f61616162ff", "ab"),
        ("5f41004101ff", "AAE="),
        ("43000102", "AAEC"),
        ("9f0102ff", [1, 2]),
        ("bf616101ff", {"a": 1}),
        ("d9d9f701", 1),
        ("f6", None),
    ],
)
def test_cbor_accepts_every_encoding_of_a_value(payload: str, value: Any) -> None:
    assert decode("cbor", bytes.fromhex(payload)) == value


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("", "IFX404"),
        ("0101", "IFX404"),
        ("ff", "IFX404"),
        ("1c", "IFX404"),
        ("1f", "IFX404"),
        ("fc", "IFX404"),
        ("9f01", "IFX404"),
        ("7f4161ff", "IFX404"),
        ("7f7fffff", "IFX404"),
        ("62ffff", "IFX402"),
        ("7f61c361a9ff", "IFX402"),
        ("a1f601", "IFX407"),
        ("a1416101", "IFX408"),
        ("c001", "IFX408"),
        ("c04161", "IFX408"),
        ("c1f5", "IFX408"),
        ("c16161", "IFX408"),
        ("c1c101", "IFX408"),
        ("c1f97e00", "IFX406"),
        ("c48101", "IFX408"),
        ("c482f501", "IFX408"),
        ("c4821a7fffffff01", "IFX406"),
        ("d903e9a0", "IFX408"),
        ("d903e9a1016131", "IFX408"),
        ("d903e9a201012b01", "IFX408"),
        ("d903e9a3010122012801", "IFX408"),
        ("d903e9a20101221903e8", "IFX408"),
        ("d903e9a1011b7fffffffffffffff", "IFX408"),
        ("a1c10101", "IFX408"),
        ("c24101", "IFX408"),
        ("c249010000000000000000", "IFX408"),
        ("d81c81d81d00", "IFX408"),
        ("d9d9f7d9d9f701", "IFX408"),
        ("f7", "IFX408"),
        ("e0", "IFX408"),
        ("f820", "IFX408"),
        ("f97e00", "IFX406"),
        ("f97c00", "IFX406"),
        ("fb7ff0000000000000", "IFX406"),
        ("81" * 129 + "01", "IFX403"),
        ("9f" * 129, "IFX403"),
        ("81" * 100_000, "IFX403"),
        ("9bffffffffffffffff", "IFX404"),
        ("7bffffffffffffffff61", "IFX404"),
        ("bf6161ff", "IFX404"),
    ],
    ids=lambda value: value[:20],
)
def test_cbor_rejects_values_that_json_does_not_have(payload: str, code: str) -> None:
    assert refusal("cbor", bytes.fromhex(payload)).code == code


def test_cbor_follows_no_other_tag() -> None:
    """Shared values and string references would expand without limit."""
    for tag in (2, 3, *range(5, 1001), *range(1002, 1200), 43000, 55800, 2**16, 2**32, 2**64 - 1):
        head = cbor2.dumps(cbor2.CBORTag(tag, 0))[:-1]
        for body in (b"\x00", b"\x80", b"\x41a", b"\x61a", b"\x82\x01\x02"):
            assert refusal("cbor", head + body).code == "IFX408"
    laughs = b"\xd8\x1c\x81\x61a"
    for level in range(60):
        laughs = b"\xd8\x1c\x82" + laughs + b"\xd8\x1d" + cbor2.dumps(level)
    assert refusal("cbor", laughs).code == "IFX408"


@pytest.mark.parametrize(
    ("name", "payload"),
    [("msgpack", bytes.fromhex("82a17a01a17a02")), ("cbor", bytes.fromhex("a2617a01617a02"))],
)
def test_of_duplicate_keys_of_msgpack_and_cbor_the_last_wins(name: str, payload: bytes) -> None:
    """Rule 26."""
    wanted = Reads(keys={"a": Reads.WHOLE})

    assert decode(name, payload) == {"z": 2}
    assert wanted.prune(decode(name, payload, reads=wanted)) == {}
    assert refusal(name, payload, strict=True).code == "IFX405"
    assert refusal(name, payload, reads=wanted, strict=True).code == "IFX405"
    tagged = b"\xa1\x61z\xc6" + payload
    if name == "cbor":
        assert wanted.prune(decode(name, tagged, reads=wanted)) == {}
        assert refusal(name, tagged, reads=wanted, strict=True).code == "IFX405"


_MSGPACK_FAULTS = [
    "cb7ff8000000000000",
    "caff800000",
    "d60000000001",
    "c70305010203",
    "d8ff" + "00" * 16,
    "81a16bd40000",
    "d5ff0001",
    "c70cff3b9aca000000000000000001",
    "81d6ff0000000101",
    "81c001",
    "81c4016101",
]
_CBOR_FAULTS = [
    "f97e00",
    "fb7ff0000000000000",
    "c1f97e00",
    "c001",
    "c4821a7fffffff01",
    "d903e9a0",
    "a1c10101",
    "f7",
    "f820",
    "c28101",
]


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("msgpack", fault) for fault in _MSGPACK_FAULTS), *(("cbor", fault) for fault in _CBOR_FAULTS)],
)
def test_a_value_that_json_does_not_have_fails_only_where_it_is_read(name: str, value: str) -> None:
    """The other members are read; truncated bytes fail in any case."""
    head, key = ("83", "a1") if name == "msgpack" else ("a3", "61")
    payload = bytes.fromhex(f"{head}{key}6901{key}6e{value}{key}6202")

    found = decode(name, payload, reads=Reads(keys={"i": Reads.WHOLE, "b": Reads.WHOLE}))

    assert isinstance(found, dict)
    assert (found["i"], found["b"]) == (1, 2)
    assert refusal(name, payload).code in ("IFX406", "IFX407", "IFX408")
    for size in range(len(payload)):
        assert refusal(name, payload[:size], reads=Reads(keys={"i": Reads.WHOLE})).code == "IFX404"


_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


@given(st.integers(_FIRST_SECOND, _LAST_SECOND), st.integers(0, 999_999_999))
@example(_FIRST_SECOND, 1)
@example(_LAST_SECOND, 999_999_999)
def test_a_time_is_a_string_with_nine_digits(seconds: int, nanoseconds: int) -> None:
    """Rule 27.  Compared with arithmetic."""
    msgpack_forms = [b"\xc7\x0c\xff" + struct.pack(">Iq", nanoseconds, seconds)]
    if 0 <= seconds < 2**34:
        msgpack_forms.append(b"\xd7\xff" + struct.pack(">Q", nanoseconds << 34 | seconds))
    if 0 <= seconds < 2**32 and nanoseconds == 0:
        msgpack_forms.append(b"\xd6\xff" + struct.pack(">I", seconds))
    tagged = b"\xd9\x03\xe9" + cbor2.dumps({1: seconds, -9: nanoseconds})

    texts = {decode("msgpack", form) for form in msgpack_forms} | {decode("cbor", tagged)}

    assert len(texts) == 1
    day, _, clock = texts.pop().partition("T")
    hour, minute, second = clock.removesuffix("Z").split(":")
    days = date.fromisoformat(day).toordinal() - date(1970, 1, 1).toordinal()
    assert days * 86_400 + int(hour) * 3600 + int(minute) * 60 + int(second.split(".")[0]) == seconds
    assert second.split(".")[1] == f"{nanoseconds:09}"


@given(st.integers(-(2**64), 2**64 - 1), st.integers(-1000, 1000))
def test_a_decimal_of_cbor_is_an_exact_string(digits: int, exponent: int) -> None:
    """Rule 27."""
    text = decode("cbor", b"\xc4" + cbor2.dumps([exponent, digits]))

    assert Fraction(text) == digits * Fraction(10) ** exponent
    assert "E" not in text


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ("c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
        ("c11a514b67b0", 1363896240),
        ("c120", -1),
        ("c1fb41d452d9ec200000", 1363896240.5),
        ("c48221196ab3", "273.15"),
        ("d903e9a20101220c", "1970-01-01T00:00:01.012000000Z"),
        ("d903e9a20101250c", "1970-01-01T00:00:01.000012000Z"),
        ("d903e9a10120", "1969-12-31T23:59:59.000000000Z"),
    ],
)
def test_tags_of_cbor_that_have_a_json_form(payload: str, value: Any) -> None:
    """Rule 27."""
    found = decode("cbor", bytes.fromhex(payload))

    assert (type(found), found) == (type(value), value)


@given(st.lists(st.tuples(st.integers(-(2**63), 2**64 - 1) | st.sampled_from(["1", "-1", "class"]), st.integers(0, 9))))
def test_integer_keys_become_strings_and_count_as_duplicates(members: list[tuple[int | str, int]]) -> None:
    """Rule 27.  Of a key and its string the last wins; strict rejects them."""
    wanted = {str(key): value for key, value in members}
    for name, head, encode in (
        ("msgpack", b"\xdf" + struct.pack(">I", len(members)), msgspec.msgpack.encode),
        ("cbor", b"\xba" + struct.pack(">I", len(members)), cbor2.dumps),
    ):
        payload = head + b"".join(encode(part) for member in members for part in member)

        assert decode(name, payload) == wanted
        if len(wanted) < len(members):
            assert refusal(name, payload, strict=True).code == "IFX405"
        else:
            assert decode(name, payload, strict=True) == wanted


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("msgpack", "83a16bcb7ff8000000000000a16b07a16a01"),
        ("msgpack", "83a16bd60000000001a16b07a16a01"),
        ("msgpack", "8301cb7ff8000000000000a13107a16a01"),
        ("cbor", "a3616bf97e00616b07616a01"),
        ("cbor", "a3616bc28101616b07616a01"),
        ("cbor", "a301f7613107616a01"),
        ("cbor", "bf616b81f7616b07616a01ff"),
    ],
)
def test_a_value_that_a_later_duplicate_key_replaces_is_not_read(name: str, payload: str) -> None:
    """Rule 26."""
    found = decode(name, bytes.fromhex(payload))

    assert list(found.values()) == [7, 1]
    assert refusal(name, bytes.fromhex(payload), strict=True).code == "IFX405"


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("msgpack", "820107c308"),
        ("msgpack", "820107cb3ff000000000000008"),
        ("cbor", "a20107f508"),
        ("cbor", "a2f5080107"),
    ],
)
def test_keys_that_are_equal_in_python_are_separate_keys(name: str, payload: str) -> None:
    """Rule 27. 1, 1.0 and true: the last two are not keys of JSON, and not duplicates of the first."""
    assert refusal(name, bytes.fromhex(payload)).code == "IFX407"
    assert refusal(name, bytes.fromhex(payload), strict=True).code == "IFX407"
    unread = bytes.fromhex("82a16907a161" if name == "msgpack" else "a2616907 6161") + bytes.fromhex(payload)
    assert decode(name, unread, reads=Reads(keys={"i": Reads.WHOLE}), strict=True) == {"i": 7}


@pytest.mark.parametrize("name", ["msgpack", "cbor"])
def test_deep_payloads_that_need_the_careful_way_take_little_memory(name: str) -> None:
    """A copy of the content for each of 126 levels would be 250 MB."""
    size = 2_000_000
    if name == "msgpack":
        payload = b"\x81\x01" * 126 + b"\x92\xc6" + struct.pack(">I", size) + bytes(size) + b"\xca\x7f\x80\0\0"
    else:
        payload = b"\xa2\x01\x01\x01" * 126 + b"\x82\x5a" + struct.pack(">I", size) + bytes(size) + b"\xf9\x7e\0"

    tracemalloc.start()
    try:
        assert refusal(name, payload).code == "IFX406"
        assert tracemalloc.get_traced_memory()[1] < 20 * len(payload)
    finally:
        tracemalloc.stop()


names = st.sampled_from(["a", "b", "c", "class", "1", "-7", "18446744073709551615", "", "é"])
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats()
binary_trees = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8"), max_size=4) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), max_size=4).map(Pairs),
    max_leaves=10,
)


@st.composite
def binary_payloads(draw: st.DrawFn, name: str) -> bytes:
    """Return a payload as another producer writes it, every second one damaged in a place or two."""
    payload = WRITERS[name](draw(binary_trees), Random(draw(st.integers(0, 2**32))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        start = draw(st.integers(0, len(payload)))
        end = min(len(payload), start + draw(st.integers(0, 2)))
        new = draw(st.one_of(st.binary(max_size=2), st.just(payload[start:]), st.just(b"\x81" * 130)))
        payload = payload[:start] + new + payload[end:]
    return payload


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("examples", [400, pytest.param(100_000, marks=pytest.mark.long, id="long")])
@pytest.mark.parametrize("name", ["msgpack", "cbor"])
def test_msgpack_and_cbor_agree_with_a_simple_decoder_on_any_bytes(name: str, examples: int) -> None:
    """Rules 26 and 27.  The same payloads are accepted, with the same values; others are rejected."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(binary_payloads(name) | st.binary(max_size=12), st.none() | reads, st.booleans())
    def agree(payload: bytes, wanted: Reads | None, strict: bool) -> None:
        whole = Reads.WHOLE if wanted is None else wanted
        try:
            expected = whole.prune(evaluate(TREES[name](payload), whole, strict))
        except ValueError as exc:
            event(f"refused: {type(exc).__name__}")
            _assert_tellable(refusal(name, payload, reads=wanted, strict=strict))
            return
        event("taken")

        assert repr(whole.prune(decode(name, payload, reads=wanted, strict=strict))) == repr(expected)

    agree()


def test_floats_of_msgpack_and_cbor_are_exact() -> None:
    for number in (0.1, 5e-324, 1.7976931348623157e308, -0.0):
        packed = struct.pack(">d", number)

        assert repr(decode("msgpack", b"\xcb" + packed)) == repr(decode("cbor", b"\xfb" + packed)) == repr(number)


# --- csv ---


@pytest.mark.parametrize(
    ("text", "options", "rows"),
    [
        ("a,b\n1,2\n", {}, [{"a": "1", "b": "2"}]),
        ("a,b\r\n1,2\r\n3,4", {}, [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ("\ufeffa,b\n1,2", {}, [{"a": "1", "b": "2"}]),
        ("a,b\n\n1,2\n\n", {}, [{"a": "1", "b": "2"}]),
        ('a,b\n"1,\n""x""", 2 ', {}, [{"a": '1,\n"x"', "b": " 2 "}]),
        ("a,b\n1,\n,", {}, [{"a": "1", "b": ""}, {"a": "", "b": ""}]),
        ("a\n1\r2", {}, [{"a": "1"}, {"a": "2"}]),
        ("a,b", {}, []),
        ("", {"header": ["a"]}, []),
        ("1,2", {"header": ["a", "b"]}, [{"a": "1", "b": "2"}]),
        ("\ufeff1", {"header": ["a"]}, [{"a": "\ufeff1"}]),
        ("1\t'2'\t3", {"header": ["a", "b", "c"], "delimiter": "\t", "quote": "'"}, [{"a": "1", "b": "2", "c": "3"}]),
        ('1|"2', {"header": ["a", "b"], "delimiter": "|", "quote": ""}, [{"a": "1", "b": '"2'}]),
        ("1^2", {"header": ["a", "b"], "delimiter": "^"}, [{"a": "1", "b": "2"}]),
        ('""', {"header": ["a"]}, [{"a": ""}]),
        (' a ;"b" \n 1\t; " 2" \n', {"delimiter": ";", "trim": True}, [{"a": "1", "b": " 2"}]),
        ("a\t b\n1 \t2\n", {"delimiter": "\t", "trim": True}, [{"a": "1", "b": "2"}]),
        ("a,b\n  \n1,2\n\t", {"trim": True}, [{"a": "1", "b": "2"}]),
        ("#x\na,b\r\n#,,\r\n1,#2\n#", {"comment": "#"}, [{"a": "1", "b": "#2"}]),
        ("  // x\n a\n1\n", {"comment": "//", "trim": True}, [{"a": "1"}]),
        ('a,b\n"#1",2\n', {"comment": "#"}, [{"a": "#1", "b": "2"}]),
        ('Plant "7"\r\n\r\na,b\n1,2\n', {"skip": 2}, [{"a": "1", "b": "2"}]),
        ("x\n", {"skip": 3}, None),
        ("a,b\n°C,%\n1,2\n", {"units_row": True}, [{"a": "1", "b": "2"}]),
        ("°C,%\n1,2\n", {"units_row": True, "header": ["a", "b"]}, [{"a": "1", "b": "2"}]),
        ("#\n\n x\na\n\n#y\n kWh \n1\n", {"units_row": True, "comment": "#", "skip": 3}, [{"a": "1"}]),
    ],
)
def test_csv_is_a_list_of_rows_of_strings(text: str, options: dict[str, Any], rows: Any) -> None:
    """Rule 27."""
    FORMATS["csv"].check(options)
    if rows is None:
        assert refusal("csv", text.encode(), **options).reason == "missing header row"
        return

    assert decode("csv", text.encode(), **options) == rows
    if rows:
        assert decode("csv", FORMATS["csv"].encode(rows, options), **options) == rows


@pytest.mark.parametrize(
    ("text", "options", "code", "reason", "line"),
    [
        ("", {}, "IFX410", "missing header row", None),
        ("\n\n", {}, "IFX410", "missing header row", None),
        ("a,b\n1\n", {}, "IFX410", "the row has 1 cell, but the header has 2 columns", 2),
        ("a,b\n\n1,2\n1,2,3\n", {}, "IFX410", "the row has 3 cells", 4),
        ('a,b\n1,"2', {}, "IFX410", "a misplaced or unclosed quote", 2),
        ('a,b\n1,"2"x\n', {}, "IFX410", "a misplaced or unclosed quote", 2),
        ('a,b\n"1\n2",3\n1,2"\n', {}, "IFX410", "a misplaced or unclosed quote", 4),
        ("a,a\n1,2", {}, "IFX405", "duplicate key 'a'", None),
    ],
)
def test_csv_that_is_not_a_table_is_rejected_with_its_line(
    text: str, options: dict[str, Any], code: str, reason: str, line: int | None
) -> None:
    refused = refusal("csv", text.encode(), **options)

    assert (refused.code, refused.payload_line) == (code, line)
    assert reason in refused.reason


def test_columns_with_duplicate_names_fail_where_they_are_read() -> None:
    """Rule 26."""
    wanted = Reads(items=Reads(keys={"a": Reads.BARE}))

    assert decode("csv", b"a,z,z\n1,2,3", reads=wanted) == [{"a": "1", "z": "3"}]
    assert refusal("csv", b"a,a\n1,2", reads=wanted).code == "IFX405"
    assert refusal("csv", b"a,z,z\n1,2,3", reads=wanted, strict=True).code == "IFX405"


@given(st.lists(st.sampled_from(["1,2", "1", "1,2,3", "", '"x\ny",2'])), st.booleans())
def test_ragged_rows_fail_alone(lines: list[str], is_closed: bool) -> None:
    """Rule 20.  What a row lacks does not take its neighbours; after a quote that is open nothing is certain."""
    text = "\n".join(["a,b", *lines, *([] if is_closed else ['"', "3,4"])])
    ragged = sum(line in ("1", "1,2,3") for line in lines)
    good = [line for line in lines if line in ("1,2", '"x\ny",2')]
    rows = [{"a": "1" if line == "1,2" else "x\ny", "b": "2"} for line in good]
    if not ragged and is_closed:
        assert decode("csv", text.encode()) == rows
        return
    with pytest.raises(PartlyDecoded) as refused:
        decode("csv", text.encode())

    assert refused.value.value == rows
    assert len(refused.value.errors) == ragged + (not is_closed)
    assert {each.code for each in refused.value.errors} == {"IFX410"}


def test_many_ragged_rows_are_counted() -> None:
    with pytest.raises(PartlyDecoded) as refused:
        decode("csv", b"a,b\n1,2\n" + b"1\n" * 5000)

    assert (len(refused.value.errors), refused.value.value) == (101, [{"a": "1", "b": "2"}])
    assert refused.value.errors[-1].reason == "4,900 more rows without a cell for each column"


cells = st.text(st.sampled_from("a1é,;\"'\r\n |\t") | st.characters(codec="utf-8"), max_size=5)


@settings(max_examples=150)
@given(
    st.lists(st.lists(cells, min_size=2, max_size=2), max_size=4),
    st.sampled_from(",;\t|^"),
    st.sampled_from("\"'"),
    st.sampled_from([{}, {"trim": True}, {"comment": "1"}, {"skip": 2, "units_row": True}]),
)
def test_csv_reads_every_cell_that_it_wrote(
    rows: list[list[str]], delimiter: str, quote: str, more: dict[str, Any]
) -> None:
    options = {"header": ["a", "b"], "delimiter": delimiter, "quote": quote, **more}
    table = [dict(zip("ab", row, strict=True)) for row in rows]

    assert decode("csv", FORMATS["csv"].encode(table, options), **options) == table  # type: ignore[arg-type]


def test_csv_writes_scalars_as_tags_do() -> None:
    row: dict[str, Any] = {"a": 1, "b": 2.5, "c": True, "d": None, "e": "x y"}

    assert FORMATS["csv"].encode(row, {}) == b"a,b,c,d,e\n1,2.5,true,,x y\n"
    assert FORMATS["csv"].encode({"a": None}, {"header": ["a"]}) == b'""\n'


# --- xml, logfmt ---


@pytest.mark.parametrize(
    ("text", "options", "value"),
    [
        ("<a/>", {}, {"a": None}),
        ("<a> 1 <!-- x --><?y z?></a>", {}, {"a": "1"}),
        ('<a b="1">t<c/>u</a>', {}, {"a": {"@b": "1", "c": None, "#text": "tu"}}),
        ("<a><b>1</b><b>2</b></a>", {}, {"a": {"b": ["1", "2"]}}),
        ("<a><b>1</b></a>", {"lists": ["b"]}, {"a": {"b": ["1"]}}),
        ('<a b="1"/>', {"attribute_prefix": ""}, {"a": {"b": "1"}}),
        ("<a>&lt;&#233;<![CDATA[<&]]></a>", {}, {"a": "<é<&"}),
        ('<m:a xmlns:m="urn:x"><m:b>1</m:b></m:a>', {}, {"m:a": {"@xmlns:m": "urn:x", "m:b": "1"}}),
        (
            '<a xmlns="urn:x"><b xmlns="urn:y">1</b></a>',
            {"namespaces": {"urn:x": "", "urn:y": "q"}},
            {"a": {"@xmlns": {"": "urn:x"}, "q:b": {"@xmlns": {"": "urn:y"}, "#text": "1"}}},
        ),
        ("<!DOCTYPE a><a>1</a>", {}, {"a": "1"}),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>", {}, {"a": "é"}),
    ],
)
def test_xml_is_an_object_of_its_root(text: str, options: dict[str, Any], value: Any) -> None:
    """Rule 27."""
    payload = text.encode("latin-1" if "8859" in text else "utf-8")

    assert decode("xml", payload, **options) == value
    assert decode("xml", text.replace("ISO-8859-1", "UTF-16").encode("utf-16"), **options) == value


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
DECLARED = {
    "a bomb of entities": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>',
    "one large entity": f'<!DOCTYPE a [<!ENTITY x "{"x" * 9999}">]><a>{"&x;" * 999}</a>',
    "an external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "an external set of declarations": '<!DOCTYPE a SYSTEM "x.dtd"><a>1&x;2</a>',
    "an attribute with an entity": '<!DOCTYPE a PUBLIC "x" "x.dtd"><a b="&x;"/>',
    "an entity of parameters": '<!DOCTYPE a [<!ENTITY % x SYSTEM "x.dtd"> %x;]><a/>',
}
HOSTILE_XML = {
    **{name: (text, "IFX404", "has declarations") for name, text in DECLARED.items()},
    "an unknown entity": ("<a>&x;</a>", "IFX404", "undefined entity"),
    "deep elements": ("<a>" * 65 + "</a>" * 65, "IFX403", "more than 64 deep"),
    "very deep elements": ("<a>" * 3_000_000, "IFX403", "more than 64 deep"),
    "an attribute twice": ("<a b='1' b='2'/>", "IFX404", "duplicate attribute"),
    "two roots": ("<a/><b/>", "IFX404", "not XML: junk after document element"),
    "an encoding that is none": ("<?xml version='1.0' encoding='rot13'?><a/>", "IFX404", "not XML"),
    "an encoding that nobody knows": ("<?xml version='1.0' encoding='klingon'?><a/>", "IFX404", "not XML"),
    "an encoding of several bytes": ("<?xml version='1.0' encoding='shift_jis'?><a/>", "IFX404", "not XML"),
    "a namespace without an address": ("<x:a/>", "IFX404", "not XML: unbound prefix"),
    "nothing": ("", "IFX404", "not XML: no element found"),
}


@pytest.mark.parametrize(("text", "code", "reason"), HOSTILE_XML.values(), ids=list(HOSTILE_XML))
def test_hostile_xml_fails_and_opens_nothing(text: str, code: str, reason: str) -> None:
    refused = refusal("xml", text.encode(), **({"namespaces": {}} if "x:" in text else {}))

    assert refused.code == code
    assert reason in refused.reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16le", "utf-16be"])
@pytest.mark.parametrize("text", ["\ufeff", "\ufeffküche", "\ufeff\ufeff1"])
def test_a_text_that_begins_with_the_sign_of_a_mark_comes_back(text: str, encoding: str) -> None:
    assert decode("text", FORMATS["text"].encode(text, {"encoding": encoding}), encoding=encoding) == text


def test_xml_of_a_namespace_that_the_options_do_not_name_is_read_but_not_written() -> None:
    options: dict[str, Any] = {"namespaces": {"urn:x": "m"}}
    value = decode("xml", b'<n:a xmlns:n="urn:y"><n:b>1</n:b></n:a>', **options)

    assert value == {"urn:y:a": {"@xmlns": {"n": "urn:y"}, "urn:y:b": "1"}}
    with pytest.raises(RecordError, match="names of XML"):
        FORMATS["xml"].encode(value, options)


def test_elements_may_be_nested_64_deep() -> None:
    payload = b"<a><a/>" * 63 + b"<a>1</a>" + b"</a>" * 63

    assert_plain(decode("xml", payload))


_XML_PARTS = st.sampled_from(
    [
        "<a>", "</a>", "<b c='1'>", "</b>", "<d/>", "x", " ", "&lt;", "&e;", "<!--", "-->", "<![CDATA[", "]]>", "é",
        "<n:a xmlns:n='u'>", "<!DOCTYPE a [", "]>", "<!ENTITY e 'x'>",
        "<?xml version='1.0' encoding='", "utf-16", "cp037", "unicode_escape", "'?>",
    ]
).map(str.encode)  # fmt: skip


@settings(max_examples=300)
@given(
    st.lists(_XML_PARTS | st.binary(max_size=2), max_size=12),
    st.sampled_from([{}, {"namespaces": {"u": ""}}, {"lists": ["a"]}]),
)
def test_any_xml_gives_a_plain_value_or_a_decode_error(parts: list[bytes], options: dict[str, Any]) -> None:
    try:
        value = decode("xml", b"".join(parts), **options)
    except DecodeError as refused:
        _assert_tellable(refused)
    else:
        assert_plain(value)


_REFERENCES = st.sampled_from(["&lt;", "&amp;", "&quot;", "&#9;", "&#10;", "&#13;", "&#x85;", "&#x2028;", "&#x10FFFF;"])
_TEXTS = st.lists(st.sampled_from(["1", "é", " ", "\r\n", "]]&gt;"]) | _REFERENCES, max_size=6).map("".join)
_ATTRIBUTES = st.dictionaries(st.sampled_from(["b", "_b", "kind"]), _TEXTS, max_size=2)


def _xml_element(name: str, attributes: Mapping[str, str], content: list[str]) -> str:
    named = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<{name}{named}>{''.join(content)}</{name}>"


_XML_ELEMENTS = st.recursive(
    _TEXTS,
    lambda inner: st.builds(_xml_element, st.sampled_from(["b", "_b", "x"]), _ATTRIBUTES, st.lists(inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=300)
@given(_ATTRIBUTES, st.lists(_XML_ELEMENTS, max_size=4), st.sampled_from(["@", "_", "-"]))
@example({}, ["r", "<_i/>"], "_")
def test_xml_that_is_written_is_what_was_read(attributes: dict[str, str], content: list[str], prefix: str) -> None:
    """Where the name of an element begins like that of an attribute, it may be refused, but never changed."""
    value = decode("xml", _xml_element("r", attributes, content).encode(), attribute_prefix=prefix)
    try:
        written = FORMATS["xml"].encode(value, {"attribute_prefix": prefix})
    except RecordError:
        assert prefix == "_", value
    else:
        assert decode("xml", written, attribute_prefix=prefix) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1 b=x", {"a": "1", "b": "x"}),
        ('level=info msg="it is \\"hot\\"\\n" took=3ms\n', {"level": "info", "msg": 'it is "hot"\n', "took": "3ms"}),
        ("  a=1\t b \r\n", {"a": "1", "b": True}),
        ('a= b=""', {"a": "", "b": ""}),
        ("a=1 a=2", {"a": "2"}),
        ("url=/x?y=z&q=1 größe=7", {"url": "/x?y=z&q=1", "größe": "7"}),
        ('m="two\nlines"', {"m": "two\nlines"}),
    ],
)
def test_logfmt_is_an_object_of_strings(text: str, value: Any) -> None:
    """Rule 27."""
    assert decode("logfmt", text.encode()) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the payload is empty"),
        ("a=1\nb=2", "several lines"),
        ("=1", "at '=1'"),
        ('a="x', "unclosed quote"),
        ('a="x"y', "misplaced"),
        ('a=x"y"', "misplaced"),
        ('a="\\x"', "invalid escape"),
        ('a="\\ud800"', "invalid escape"),
    ],
)
def test_what_is_not_logfmt_is_rejected(text: str, reason: str) -> None:
    refused = refusal("logfmt", text.encode())

    assert (refused.code, reason in refused.reason) == ("IFX404", True)


def test_a_key_of_logfmt_that_is_there_twice_is_rejected_if_strict() -> None:
    with pytest.raises(DecodeError) as refused:
        decode("logfmt", b"a=1 a=1", strict=True)
    assert refused.value.code == "IFX405"


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=4),
        st.booleans() | st.text(st.characters(codec="utf-8"), max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_logfmt_reads_every_value_that_it_wrote(value: dict[str, Any]) -> None:
    try:
        payload = FORMATS["logfmt"].encode(value, {})
    except RecordError:
        assert any(set(key) & set(' "=') or not key.isprintable() for key in value)
        return
    assert decode("logfmt", payload) == {key: "false" if each is False else each for key, each in value.items()}


# --- text, raw, influx ---


def test_text_is_one_string_or_the_named_groups_of_a_pattern() -> None:
    """Rule 27."""
    pattern = r"^(?P<level>[A-Z]+)(?: (?P<user>\w+))?: (?P<text>.*)$"

    assert decode("text", b"WARN: hot") == "WARN: hot"
    assert decode("text", "WARN bob: heiß".encode(), pattern=pattern) == {
        "level": "WARN",
        "user": "bob",
        "text": "heiß",
    }
    assert decode("text", b"WARN: hot", pattern=pattern) == {"level": "WARN", "user": None, "text": "hot"}
    assert refusal("text", b"hot", pattern=pattern).code == "IFX411"


def test_patterns_of_text_run_in_linear_time() -> None:
    """Rule 8."""
    assert refusal("text", b"a" * 100_000 + b"!", pattern="^(?P<x>(a+)+)$").code == "IFX411"


@pytest.mark.parametrize(
    ("name", "options", "option"),
    [
        ("text", {"pattern": "(?P<a>x"}, "pattern"),
        ("text", {"pattern": "x+"}, "pattern"),
        ("text", {"pattern": r"(?P<a>x)\1"}, "pattern"),
        ("text", {"pattern": "(?P<a>\ud800)"}, "pattern"),
        ("csv", {"delimiter": ""}, "delimiter"),
        ("csv", {"delimiter": ";;"}, "delimiter"),
        ("csv", {"delimiter": "\n"}, "delimiter"),
        ("csv", {"quote": "''"}, "quote"),
        ("csv", {"quote": ","}, "quote"),
        ("csv", {"comment": ",x"}, "comment"),
        ("csv", {"comment": '"'}, "comment"),
        ("csv", {"comment": "#\n"}, "comment"),
        ("csv", {"header": []}, "header"),
        ("csv", {"header": ["a", "a"]}, "header"),
    ],
)
def test_an_invalid_option_is_an_error_of_the_document(name: str, options: dict[str, Any], option: str) -> None:
    with pytest.raises(OptionError) as refused:
        FORMATS[name].check(options)

    assert refused.value.option == option


def test_raw_bytes_are_base64() -> None:
    """Rule 27."""
    assert decode("raw", bytes(range(256)) * 2) == base64.b64encode(bytes(range(256)) * 2).decode()


def test_influx_is_a_list_of_rows() -> None:
    """Rule 27."""
    payload = b'# c\nm,a=b f=1.5,i=7i,u=18446744073709551615u,s="x",t=T 17\n\nn g=1'

    assert decode("influx", payload) == [
        {
            "measurement": "m",
            "tags": {"a": "b"},
            "fields": {"f": 1.5, "i": 7, "u": 18446744073709551615, "s": "x", "t": True},
            "time": 17,
        },
        {"measurement": "n", "tags": {}, "fields": {"g": 1.0}, "time": None},
    ]
    assert decode("influx", b"m f=1 -2", precision="s")[0]["time"] == -2_000_000_000
    assert decode("influx", b"m,t=a\\\\b f=1", dialect="v3")[0]["tags"] == {"t": "a\\b"}
    assert "line 2, column 5" in refusal("influx", b"m f=1\nm f=x").reason


@pytest.mark.parametrize("name", ["msgpack", "cbor"])
@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, [{"a": 2**70}], {"a": [-(2**70)]}])
def test_integers_beyond_64_bits_fail_in_formats_without_them(name: str, value: object) -> None:
    """No payload is written that could not be read again."""
    with pytest.raises(RecordError, match="needs a JSON value that it can hold"):
        FORMATS[name].encode(value, {})  # type: ignore[arg-type]


def exact_depth(text: str) -> int:
    """The depth of a JSON text, character by character."""
    deepest = depth = 0
    in_string = is_escaped = False
    for character in text:
        if in_string:
            in_string = is_escaped or character != '"'
            is_escaped = not is_escaped and character == "\\"
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


NASTY = st.text(alphabet='[]{}"\\,:a', max_size=6)
NASTY_TREES = st.recursive(
    st.one_of(NASTY, st.integers(0, 9), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NASTY, inner, max_size=3)),
    max_leaves=30,
)


@settings(max_examples=600)
@given(NASTY_TREES, st.integers(0, 6))
def test_a_payload_that_is_called_shallow_is_so(tree: Any, most: int) -> None:
    """Whatever brackets, quotes and backslashes its strings have."""
    text = json.dumps(tree)

    if is_shallow(text.encode(), most):
        assert exact_depth(text) <= most
    else:
        strings_have_brackets = any(each in json.dumps(word) for word in words_of(tree) for each in "[]{}")
        assert strings_have_brackets or exact_depth(text) > most


def test_a_tower_of_brackets_is_counted() -> None:
    """Looking at its levels one after the other took half a second for 2 MB, on the event loop, and ten times that for
    20 MB; each level is all that is left."""
    assert is_shallow(b"[" * 10 + b"]" * 10, 128)
    assert not is_shallow(b"[" * 100 + b"]" * 100, 128)
    assert not is_shallow(b'"' + b"[" * 10_000 + b'"', 128)


def words_of(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    if isinstance(tree, dict):
        return [*tree, *(word for value in tree.values() for word in words_of(value))]
    return [word for value in tree for word in words_of(value)] if isinstance(tree, list) else []
