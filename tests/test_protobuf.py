"""Protobuf payloads: what the wire says against what is read, hostile bytes, framing, and the files of documents."""

from __future__ import annotations

import json
import math
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import event, given, settings
from hypothesis import strategies as st

from iggyflux import MappingError, Message, load_mapping, parse_mapping
from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.generate import generate_messages
from iggyflux.authoring.inference import Declared, Wishes, infer
from iggyflux.authoring.samples import SampleError
from iggyflux.errors import DecodeError, DocumentError, RecordError
from iggyflux.expressions import compile_expression
from iggyflux.mapping.members import _Walker
from iggyflux.payloads import FORMATS, MAX_DEPTH, OptionError, protobuf
from iggyflux.payloads.binary import is_plain
from iggyflux.payloads.places import Place, with_place
from iggyflux.payloads.protobuf import bounds, wire
from iggyflux.reads import Reads
from tests.binary_payloads import lines_run
from tests.protobuf_payloads import (
    DESCRIPTORS,
    DESCRIPTORS2,
    PROTO,
    compiled,
    firings,
    options,
    set_descriptors,
    struct_fields,
    tagged,
    varint,
)

OPTIONS = options()
FORM = FORMATS["protobuf"]


def decode(
    payload: bytes, chosen: dict[str, Any] = OPTIONS, reads: Reads | None = None, *, strict: bool = False
) -> Any:
    return FORM.decode(payload, chosen, reads, strict)


def refusal(payload: bytes, chosen: dict[str, Any] = OPTIONS, reads: Reads | None = None, **more: Any) -> DecodeError:
    with pytest.raises(DecodeError) as refused:
        decode(payload, chosen, reads, **more)
    return refused.value


def typed(value: Any) -> Any:
    """Return a value in which 1, 1.0 and True differ, and -0.0 and 0.0."""
    if isinstance(value, dict):
        return {key: typed(member) for key, member in value.items()}
    return [typed(each) for each in value] if isinstance(value, list) else repr(value)


# --- values ---


@settings(max_examples=250)
@given(firings())
def test_a_message_has_the_value_that_was_written(drawn: tuple[bytes, Any]) -> None:
    """Integers of 64 bits exactly, floats by their bits, and everything else by the rules of the page."""
    payload, value = drawn

    if value and not payload_is_unknown(payload):
        assert typed(decode(payload)) == typed(value)


def payload_is_unknown(payload: bytes) -> bool:
    try:
        decode(payload)
    except DecodeError as refused:
        return refused.code == "IFX442"
    return False


@settings(max_examples=150)
@given(firings(unknown=False))
def test_a_value_is_encoded_as_a_message_with_that_value(drawn: tuple[bytes, Any]) -> None:
    value = decode(drawn[0], options(defaults=False))

    for chosen in (OPTIONS, options(framing="confluent")):
        assert typed(decode(FORM.encode(value, chosen), chosen)) == typed(decode(drawn[0]))


names = st.sampled_from(
    ["aInt64", "aDouble", "phase", "probes", "byName", "byNumber", "extra", "other", "inner", "at", "mainProbe"]
)
wanted_parts = st.recursive(
    st.sampled_from([Reads.WHOLE, Reads.BARE]),
    lambda inner: st.builds(
        lambda keys, items: Reads(keys=keys, items=items),
        st.dictionaries(names | st.sampled_from(["label", "reading", "", "0", "@type", "value"]), inner, max_size=3),
        st.none() | inner,
    ),
    max_leaves=6,
)


@settings(max_examples=250)
@given(firings(unknown=False), wanted_parts)
def test_only_what_is_read_is_converted(drawn: tuple[bytes, Any], wanted: Reads) -> None:
    assert typed(decode(drawn[0], reads=wanted)) == typed(wanted.prune(drawn[1]))


def test_without_defaults_only_what_is_set_is_there() -> None:
    chosen = options(defaults=False)

    assert decode(b"", chosen) == {}
    assert decode(tagged(17, 0, b"\0") + tagged(22, 2, b""), chosen) == {"maybeInt": 0, "mainProbe": {}}
    assert repr(decode(tagged(12, 1, struct.pack("<d", -0.0)), chosen)) == "{'aDouble': -0.0}"
    assert decode(tagged(24, 2, b"\0\1") + tagged(13, 0, b"\1"), chosen) == {"lambda": True, "counts": [0, -1]}


def test_a_map_has_its_keys_in_order() -> None:
    """The library's order differs from process to process, and what is rendered must not."""
    keys = [f"k{number}" for number in range(40)]
    payload = b"".join(tagged(28, 2, tagged(1, 2, key.encode())) for key in reversed(keys))
    flags = tagged(30, 2, tagged(1, 0, b"\1")) + tagged(30, 2, tagged(1, 0, b"\0"))

    assert list(decode(payload)["byName"]) == sorted(keys)
    assert list(decode(flags)["byFlag"]) == ["false", "true"]
    assert list(decode(tagged(33, 2, struct_fields(dict.fromkeys(reversed(keys)))))["extra"]) == sorted(keys)


def test_names_and_enums_are_as_the_document_says() -> None:
    payload = tagged(16, 0, b"\1") + tagged(3, 0, b"\5") + tagged(26, 2, b"\0\1")
    chosen = options(names="proto", enums="number")

    assert {"phase": "HEATING", "aUint32": 5, "phases": ["COLD", "HEATING"]}.items() <= decode(payload).items()
    assert {"phase": 1, "a_uint32": 5, "phases": [0, 1]}.items() <= decode(payload, chosen).items()
    assert decode(FORM.encode({"a_uint32": 5, "phase": "FIRING"}, chosen), chosen)["phase"] == 1


def test_a_schema_of_proto2_has_defaults_groups_and_closed_enums() -> None:
    chosen = options(DESCRIPTORS2, "old.Sample")
    payload = tagged(3, 2, b"x") + tagged(4, 3, tagged(1, 0, b"\x05")) + tagged(4, 4, b"") + tagged(5, 0, b"\x09")

    assert decode(payload, chosen) == {"level": 7, "must": "x", "row": [{"cell": -3}]}
    assert decode(tagged(5, 0, b"\4"), options(DESCRIPTORS2, "old.Sample", defaults=False)) == {"kind": "SOME"}
    with pytest.raises(RecordError, match="must"):
        FORM.encode({"level": 1}, chosen)
    assert refusal(tagged(2, 2, b"\xff") + tagged(3, 2, b"x"), chosen).code == "IFX402"
    assert decode(tagged(2, 2, b"\xff") + tagged(3, 2, b"x"), chosen, Reads(keys={"must": Reads.WHOLE})) == {
        "must": "x"
    }


def test_nan_fails_where_it_is_read_and_may_be_kept() -> None:
    nan, inf = struct.pack("<d", float("nan")), struct.pack("<d", float("inf"))
    entry = tagged(28, 2, tagged(1, 2, b"k") + tagged(2, 1, nan))
    payloads = [
        (tagged(12, 1, inf), "aDouble"),
        (tagged(11, 5, struct.pack("<f", float("-inf"))), "aFloat"),
        (tagged(25, 1, nan), "curve"),
        (entry, "byName"),
        (tagged(34, 2, tagged(1, 1, nan)), "wrapped"),
        (tagged(23, 2, tagged(3, 1, nan)), "probes"),
        (tagged(33, 2, tagged(1, 2, tagged(1, 2, b"n") + tagged(2, 2, tagged(2, 1, nan)))), "extra"),
    ]
    for payload, name in payloads:
        for chosen in (OPTIONS, options(defaults=False)):
            assert refusal(payload, chosen).code == "IFX406"
            assert refusal(payload, chosen, Reads(keys={name: Reads.WHOLE})).code == "IFX406"
            assert decode(payload, chosen, Reads(keys={"inner": Reads.WHOLE})) == {}
            kept = FORM.decode_non_finite(payload, chosen, None, False)  # type: ignore[misc]
            assert "nan" in repr(kept) or "inf" in repr(kept)


def test_a_default_that_is_nan_fails_only_payloads_without_the_field() -> None:
    text = b'syntax = "proto2"; message Soil { optional double ph = 1 [default = nan]; optional int32 depth = 2; }'
    chosen = options(compiled(text), "Soil")

    assert decode(tagged(1, 1, struct.pack("<d", 6.5)), chosen) == {"ph": 6.5}
    assert refusal(tagged(2, 0, b"\4"), chosen).code == "IFX406"
    assert decode(tagged(2, 0, b"\4"), chosen, Reads(keys={"depth": Reads.WHOLE})) == {"depth": 4}
    with pytest.raises(DecodeError) as refused:
        FORM.decode_non_finite(tagged(9, 0, b"\4"), chosen, None, False)  # type: ignore[misc]
    assert refused.value.code == "IFX442"


@pytest.mark.parametrize(
    "value",
    [
        {"aInt32": 2**31},
        {"aInt32": 1.0},
        {"aInt32": True},
        {"aUint64": -1},
        {"aUint64": 2**64},
        {"aFloat": 1e39},
        {"aDouble": float("nan")},
        {"aDouble": "1"},
        {"lambda": 1},
        {"HasField": 1},
        {"HasField": "\ud800"},
        {"rawBytes": "?"},
        {"phase": "WARM"},
        {"phase": 2**31},
        {"unknown": 1},
        {"probes": {}},
        {"probes": [None]},
        {"mainProbe": 1},
        {"byName": []},
        {"byNumber": {"01": {}}},
        {"byNumber": {"x": {}}},
        {"byFlag": {"1": "x"}},
        {"at": "yesterday"},
        {"at": 1},
        {"took": "1s"},
        {"extra": {"a": 2**60 + 1}},
        {"extra": [1]},
        {"other": {"value": ""}},
        {"other": 1},
        [],
        None,
    ],
)
def test_a_value_that_the_type_cannot_hold_is_rejected(value: Any) -> None:
    with pytest.raises(RecordError) as refused:
        FORM.encode(value, OPTIONS)

    assert refused.value.code == "IFX420"


# --- hostile bytes ---


def assert_decodes_or_refuses(payload: bytes, options: dict[str, Any], reads: Reads | None, strict: bool) -> None:
    reason, value = "", None
    try:
        value = decode(payload, options, reads, strict=strict)
    except DecodeError as refused:
        reason = refused.reason
    assert len(reason) < 300
    assert is_plain(value)


@settings(max_examples=400)
@given(firings(), st.data())
def test_mutated_messages_give_a_plain_value_or_a_decode_error(drawn: tuple[bytes, Any], data: st.DataObject) -> None:
    payload = drawn[0]
    place, removed = data.draw(st.integers(0, len(payload))), data.draw(st.integers(0, 3))
    mutated = payload[:place] + data.draw(st.binary(max_size=3)) + payload[place + removed :]
    framing = data.draw(st.sampled_from(["none", "delimited", "confluent"]))
    lead = {"none": b"", "delimited": varint(len(mutated)), "confluent": b"\0\0\0\0\7\2\0"}[framing]
    chosen = options(framing=framing, defaults=data.draw(st.booleans()))

    for payload in (lead + mutated, mutated):
        for reads in (None, data.draw(wanted_parts)):
            assert_decodes_or_refuses(payload, chosen, reads, data.draw(st.booleans()))


DECLARED = [b"\x08\1", b"\x1a\1a", b"\x23\x08\2\x24"]
NOT_DECLARED = [tagged(90, 0, b"\1"), tagged(4, 2, b"x")]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(DECLARED + NOT_DECLARED), max_size=3), st.booleans())
def test_a_message_without_what_proto2_requires_is_one(fields: list[bytes], strict: bool) -> None:
    """The library refuses to write it, and to say how large it is."""
    chosen, payload = options(DESCRIPTORS2, "old.Sample"), b"".join(fields)
    is_undeclared = any(each in fields for each in NOT_DECLARED)

    assert_decodes_or_refuses(payload, chosen, None, strict)
    assert FORM.undeclared is not None
    assert FORM.undeclared([payload] * 3, chosen) == ([0, 1, 2] if is_undeclared else [])


# --- where it failed ---


def place_of(payload: bytes, chosen: dict[str, Any], reads: Reads | None = None, **more: Any) -> Place | None:
    error = refusal(payload, chosen, reads, **more)
    place: Place | None = error.find_place() if error.find_place is not None else None
    why = f": {place.why}" if place and place.why else ""
    assert with_place(error).reason == error.reason + (f"{why} ({place})" if place else "")
    return place


def is_path(path: tuple[str | int, ...], kind: Any) -> bool:
    """Return whether a message of a type may have a value at a path."""
    if not path or kind is None or kind.full_name.startswith("google."):
        return True
    field = next((each for each in kind.fields if each.json_name == path[0]), None)
    if field is None:
        return False
    inner, path = field.message_type, path[1:]
    if field.is_repeated and path:
        is_map = inner is not None and inner.GetOptions().map_entry
        if isinstance(path[0], int) is is_map:
            return False
        inner, path = (inner.fields_by_name["value"].message_type if is_map else inner), path[1:]
    return not path or (inner is not None and is_path(path, inner))


def boundaries(payload: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield number, beginning and end of each field of a message without groups."""
    end = 0
    while (begin := end) < len(payload):
        tag, end = number_at(payload, begin)
        if tag & 7 in (0, 2):
            size, end = number_at(payload, end)
        end += {0: 0, 1: 8, 2: size if tag & 7 == 2 else 0, 5: 4}[tag & 7]
        yield tag >> 3, begin, end


def number_at(payload: bytes, at: int) -> tuple[int, int]:
    end = next(end for end in range(at, len(payload)) if payload[end] < 128) + 1
    return sum((byte & 127) << 7 * place for place, byte in enumerate(payload[at:end])), end


@settings(max_examples=250)
@given(firings(), st.data())
def test_a_payload_that_ends_too_early_is_told_with_the_field_that_is_not_whole(
    drawn: tuple[bytes, Any], data: st.DataObject
) -> None:
    payload = drawn[0]
    size = data.draw(st.integers(0, len(payload)))
    number, begin, _ = next((each for each in boundaries(payload) if each[1] < size < each[2]), (None, 0, 0))
    if number is not None:
        place = place_of(payload[:size], OPTIONS)

        assert place is not None
        assert place.byte == begin
        known = OPTIONS["compiled"].descriptor.fields_by_number.get(number)
        assert place.path in ((), () if known is None else (known.json_name,))  # perhaps its tag is not whole


@settings(max_examples=400)
@given(firings(), st.data())
def test_a_failure_has_a_place_of_the_schema_and_of_the_payload(drawn: tuple[bytes, Any], data: st.DataObject) -> None:
    payload = drawn[0]
    at, removed = data.draw(st.integers(0, len(payload))), data.draw(st.integers(0, 3))
    nan = tagged(2, 1, struct.pack("<d", math.nan))
    new = data.draw(
        st.binary(max_size=3) | st.sampled_from([b"\xff" * 11, tagged(23, 2, nan), nan, tagged(36, 2, nan)])
    )
    mutated = payload[:at] + new + payload[at + removed :]
    framing = data.draw(st.sampled_from(["none", "delimited", "confluent"]))
    before = varint(len(payload)) + payload
    lead = {"none": b"", "delimited": before + varint(len(mutated)), "confluent": b"\0\0\0\0\7\2\0"}[framing]
    chosen, strict = options(framing=framing), data.draw(st.booleans())
    for reads in (None, data.draw(wanted_parts)):
        with suppress(DecodeError):
            decode(lead + mutated, chosen, reads, strict=strict)
            continue
        event(refusal(lead + mutated, chosen, reads, strict=strict).code)
        if (place := place_of(lead + mutated, chosen, reads, strict=strict)) is None:
            assert refusal(lead + mutated, chosen, reads, strict=strict).code in ("IFX403", "IFX441", "IFX442")
            continue
        path = place.path
        if framing == "delimited":
            assert path[0] in (0, 1)
            path = path[1:]
        assert place.byte is None or 0 <= place.byte <= len(lead + mutated)
        assert bool(place.why) == (refusal(lead + mutated, chosen, reads, strict=strict).code in ("IFX404", "IFX441"))
        assert is_path(path, chosen["compiled"].descriptor)


NAN = struct.pack("<d", math.nan)
BAD_PROBE, PROBE = tagged(1, 2, b"x") + tagged(2, 1, NAN), "mainProbe.reading"


@pytest.mark.parametrize(
    ("part", "at", "place"),
    [
        (tagged(12, 1, NAN), 0, "aDouble"),
        (tagged(14, 2, b"\xff"), 0, "HasField"),
        (tagged(22, 2, BAD_PROBE), 3 + 3, PROBE),
        (tagged(23, 2, b"") * 3 + tagged(23, 2, BAD_PROBE), 9 + 6, "probes[3].reading"),
        (tagged(23, 2, b"") + tagged(23, 2, tagged(1, 2, b"\xff")), 3 + 3, "probes[1].label"),
        (tagged(25, 2, bytes(16) + NAN), 3 + 16, "curve[2]"),
        (tagged(25, 1, bytes(8)) + tagged(25, 1, NAN), 10, "curve[1]"),
        (tagged(24, 2, b"\2\2\xff"), 0, "counts"),
        (tagged(28, 2, tagged(1, 2, b"a.b") + tagged(2, 1, NAN)), 0, 'byName."a.b"'),
        (tagged(29, 2, tagged(2, 2, BAD_PROBE) + tagged(1, 0, varint(-7))), 3 + 2 + 3, 'byNumber."-7".reading'),
        (tagged(29, 2, tagged(2, 2, tagged(1, 2, b"\xff")) + tagged(1, 0, b"\7")), 3 + 2, 'byNumber."7".label'),
        (tagged(31, 2, tagged(1, 0, varint(2**60))), 0, "at"),
        (tagged(34, 2, tagged(1, 1, NAN)), 0, "wrapped"),
        (tagged(33, 2, struct_fields({"a": math.nan})), 0, "extra"),
        (tagged(36, 2, tagged(36, 2, tagged(16, 0, b"\1") + tagged(22, 2, BAD_PROBE))), 15, f"inner.inner.{PROBE}"),
        (tagged(35, 2, tagged(1, 2, b"t/works.kiln.Probe") + tagged(2, 2, tagged(2, 1, NAN))), 0, "other.reading"),
        (tagged(36, 2, tagged(40, 3, b"\7")), 3 + 2, "inner"),
        (b"\x0e", 0, "aInt32"),
        (b"\7", 0, ""),
        (b"\x88\x80\x80\x80\x80\0\1", 0, ""),
        (b"\x08" + b"\xff" * 10 + b"\1", 0, "aInt32"),
        (tagged(25, 2, bytes(9)), 0, "curve"),
        (tagged(40, 3, b"\x08\1") + tagged(41, 4, b""), 4, ""),
    ],
)  # fmt: skip
def test_a_place_is_the_path_of_the_value_and_where_its_field_begins(part: bytes, at: int, place: str) -> None:
    """In each framing; what follows, and what a later field replaces, does not count."""
    lead = tagged(1, 0, b"\7") + tagged(12, 1, bytes(8))
    delimited = varint(len(lead)) + lead + varint(len(lead + part)) + lead + part
    header = b"\0\0\0\0\7\2\0"

    def said(begin: int, path: str = place) -> str:
        return f"{path}, byte {begin + len(lead) + at}" if path else f"byte {begin + len(lead) + at}"

    assert str(place_of(lead + part, OPTIONS)) == said(0)
    assert str(place_of(header + lead + part, options(framing="confluent"))) == said(len(header))
    start = len(delimited) - len(lead + part)
    assert str(place_of(delimited, options(framing="delimited"))) == said(start, f"[1].{place}".removesuffix("."))


ENDLESS = b"\xff" * 10 + b"\1"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\x88", "the number of a field is cut off"),
        (ENDLESS, "the number of a field has more than 10 bytes"),
        (b"\x88\x80\x80\x80\x80\0\1", "the number of a field has more than 5 bytes or 32 bits"),
        (b"\xff\xff\xff\xff\x7f", "the number of a field has more than 5 bytes or 32 bits"),
        (b"\2\0", "a field has the number 0"),
        (b"\x0e", "there is no wire type 6"),
        (tagged(90, 7, b""), "there is no wire type 7"),
        (b"\x08\xff", "an integer is cut off"),
        (b"\x08" + ENDLESS, "an integer has more than 10 bytes"),
        (tagged(12, 1, bytes(7)), "a value of 8 bytes is cut off: the message has 7 more"),
        (tagged(90, 5, b""), "a value of 4 bytes is cut off: the message has 0 more"),
        (b"\x72", "a length is cut off"),
        (b"\x72" + ENDLESS, "a length has more than 10 bytes"),
        (b"\x72\xac\2secret", "a length is 300, and the message has 6 more bytes"),
        (tagged(22, 2, b"\x0a\5abc") + tagged(1, 0, b"\1"), "a length is 5, and the message has 3 more bytes"),
        (tagged(14, 2, b"secret \xff"), "a string is not UTF-8"),
        (tagged(28, 2, tagged(1, 2, b"secret \xff")), "a string is not UTF-8"),
        (tagged(24, 2, b"\2\2\xff"), "an integer is cut off"),
        (tagged(25, 2, bytes(9)), "a list of values of 8 bytes has 9 bytes"),
        (tagged(40, 3, b"\x08\1"), "a group has no end"),
        (tagged(40, 3, b"\x08\1") + tagged(41, 4, b""), "a group ends that did not begin"),
        (tagged(40, 4, b""), "a group ends that did not begin"),
        (tagged(35, 2, tagged(1, 2, b"t/works.kiln.Probe") + tagged(2, 2, b"\x0a\5abc")),
            "a length is 5, and the message has 3 more bytes"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_message_are_told_why(payload: bytes, why: str) -> None:
    """Without what is in them."""
    error = refusal(payload)
    reason = with_place(error).reason

    assert error.code == "IFX404"
    assert reason.startswith(f"{error.reason}: {why} (")
    assert "secret" not in reason


def test_a_message_that_is_an_any_is_told_why() -> None:
    part = tagged(1, 2, b"t/works.kiln.Probe") + tagged(2, 2, b"\x0a\5abc")
    error = with_place(refusal(part, options(message="google.protobuf.Any")))
    assert error.reason == "not protobuf of the type works.kiln.Probe: a length is 5, and the message has 3 more bytes"


def test_messages_that_are_nested_too_deeply_are_told_why() -> None:
    assert ": messages are nested more than 100 deep (" in with_place(refusal(nested(36, 150))).reason


def test_a_field_that_is_not_declared_has_its_place_under_strict() -> None:
    payload = tagged(1, 0, b"\7") + tagged(22, 2, tagged(1, 2, b"a") + tagged(9, 0, b"\1"))

    def said(of: bytes) -> str:
        return with_place(refusal(of, strict=True)).reason.partition(" declare: ")[2]

    assert said(payload) == "field 9 (mainProbe, byte 8)"
    assert said(payload[:2] + tagged(90, 0, b"\1")) == "field 90 (byte 2)"
    assert said(payload[:2] + tagged(14, 0, b"\1")) == "field 14 with wire type 0, not 2 (byte 2)"


def test_a_frame_that_is_not_whole_is_named() -> None:
    chosen = options(framing="delimited")

    assert str(place_of(b"\2\x08\1\5\x08", chosen)) == "[1], byte 4"
    assert str(place_of(b"\2\x08\1\xff", chosen)) == "[1], byte 4"


def test_the_look_for_a_place_ends_soon() -> None:
    """However large the payload is, and however deep."""
    hostile = [
        tagged(1, 0, b"\1") * 2_000_000 + b"\x0e",
        tagged(24, 2, b"\1" * 5_000_000) + b"\x0e",
        tagged(23, 2, b"") * 1_000_000 + b"\x0e",
        tagged(40, 3, b"") * 90 + tagged(41, 0, b"\1") * 1_000_000,
        nested(36, 90, tagged(1, 0, b"\1") * 1_000_000 + b"\x0e"),
        tagged(28, 2, tagged(3, 0, b"\1") * 1_000_000) + b"\x0e",  # an entry of a map with a late key, or none
    ]
    for payload in hostile:
        error = refusal(payload)
        assert error.find_place is not None
        assert lines_run(error.find_place) < 120 * wire.MOST_FIELDS
        assert with_place(error).reason == error.reason


def nested(number: int, depth: int, innermost: bytes = b"") -> bytes:
    content = innermost
    for _ in range(depth):
        content = tagged(number, 2, content)
    return content


def test_a_message_that_is_nested_too_deeply_is_rejected() -> None:
    any_of_any = b""
    for _ in range(20):
        any_of_any = tagged(1, 2, b"x/google.protobuf.Any") + tagged(2, 2, any_of_any)

    assert refusal(nested(36, 5000)).code in ("IFX403", "IFX404")
    assert refusal(tagged(35, 2, any_of_any)).code == "IFX403"
    value = decode(nested(36, 90, tagged(1, 0, b"\3")))
    for _ in range(90):
        value = value["inner"]
    assert value["aInt32"] == 3


def test_values_are_nested_at_most_as_deep_as_those_of_other_formats() -> None:
    """A list and an object are two levels for one of the wire."""
    tree = compiled(b'syntax = "proto3"; package t; message N { repeated N in = 1; }')
    chosen = options(tree, "t.N")

    assert refusal(nested(1, 80), chosen).code == "IFX403"
    assert decode(nested(1, MAX_DEPTH // 2 - 1), chosen)


def test_a_payload_of_many_values_is_rejected_before_they_are_made() -> None:
    """Two bytes of the wire may be an object with all members of a type."""
    payload = tagged(23, 2, b"") * 200_000  # too small for a look at the wire

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protobuf, "MAX_VALUES", 500_000)
        assert refusal(payload).code == "IFX401"
        assert refusal(b"\0" * 300_000, options(framing="delimited")).code == "IFX401"
        assert decode(payload, reads=Reads(keys={"aInt64": Reads.WHOLE})) == {"aInt64": 0}


def test_a_payload_of_wide_messages_is_rejected_before_it_is_parsed(monkeypatch) -> None:
    """The library makes messages of their full size: 3 GB of these 4 MB."""
    fields = "".join(f"double f{number} = {number}; " for number in range(2, 200))
    text = f'syntax = "proto2"; package w; message Wide {{ repeated Wide xs = 1; {fields} }}'
    text += "message Top { repeated Wide xs = 1; repeated group G = 2 { repeated Wide xs = 3; } optional bytes b = 4; }"
    schema = compiled(text.replace(" double", " optional double").replace("{ double", "{ optional double").encode())
    wide = tagged(1, 2, b"")
    hostile = [
        wide * 2_000_000,
        tagged(4, 2, wide * 2_000_000) + wide * 100_000,
        tagged(1, 2, wide * 100_000),
        tagged(2, 3, b"") + tagged(3, 2, b"") * 100_000 + tagged(2, 4, b""),
    ]
    for payload in hostile:
        chosen = options(schema, "w.Top")
        with monkeypatch.context() as patch:
            patch.setattr(bounds, "SAFE_BYTES", 1 << 20)
            patch.setattr(chosen["compiled"], "parse", lambda _: pytest.fail("it was parsed"))
            assert refusal(payload, chosen, Reads(keys={"b": Reads.WHOLE})).code == "IFX401"
    assert decode(tagged(4, 2, wide * 2_000_000), options(schema, "w.Top"))["b"].startswith("CgAKAAoA")


@settings(max_examples=200)
@given(firings(), st.data())
def test_the_look_for_many_values_changes_nothing(drawn: tuple[bytes, Any], data: st.DataObject) -> None:
    """Valid or not: a payload within the bound is left to the library."""
    place, removed = data.draw(st.integers(0, len(drawn[0]))), data.draw(st.integers(0, 2))
    payload = drawn[0][:place] + data.draw(st.binary(max_size=2)) + drawn[0][place + removed :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "SAFE_BYTES", 0)
        looked = outcome_of(payload, options(defaults=False, names="proto"))

    assert looked == outcome_of(payload, options(defaults=False, names="proto"))


def outcome_of(payload: bytes, chosen: dict[str, Any]) -> Any:
    chosen["compiled"]._converters.clear()
    try:
        return typed(decode(payload, chosen))
    except DecodeError as refused:
        return refused.code, refused.reason


def test_a_payload_of_another_kind_is_rejected() -> None:
    """Text is often a message of unknown fields, and its values would all be zero."""
    assert refusal(b'{"a":1}').code in ("IFX404", "IFX442")
    assert refusal(tagged(900, 2, b"x")).code == "IFX442"
    assert refusal(tagged(900, 2, b"x"), reads=Reads(keys={"aInt64": Reads.WHOLE})).code == "IFX442"
    assert decode(tagged(900, 2, b"x") + tagged(2, 0, b"\0")) == decode(b"")  # a declared 0 that was sent
    assert refusal(tagged(12, 0, b"\1")).code == "IFX442"  # of a wire type that the field does not have
    assert decode(tagged(900, 2, b"x") + tagged(17, 0, b"\0"))["maybeInt"] == 0
    assert decode(b"")["aInt32"] == 0


def test_strict_rejects_fields_that_are_not_declared() -> None:
    known = tagged(22, 2, tagged(1, 2, b"x"))
    for unknown in (known + tagged(900, 0, b"\1"), tagged(22, 2, tagged(1, 2, b"x") + tagged(9, 0, b"\1"))):
        assert decode(unknown)["mainProbe"]["label"] == "x"
        assert refusal(unknown, strict=True).code == "IFX441"
    assert decode(known, strict=True)["mainProbe"]["label"] == "x"


TRAYS = """
syntax = "proto3";
package oven;
message Loaf { double weight = 1; optional Loaf slice = 2; }
message Choice { oneof of { Loaf loaf = 1; Loaf crumb = 2; } }
message Tray {
  repeated Loaf loaves = 1;
  Loaf best = 2;
  map<string, int32> sizes = 3;
  Tray under = 4;
  repeated Choice choices = 5;
  MORE
}
"""
MORE = ["", "Choice one = 6;", "map<string, Loaf> kept = 7;"]
SCHEMAS = [options(compiled(TRAYS.replace("MORE", more).encode()), "oven.Tray") for more in MORE]
"""Of the first, messages are looked at together; of the others, each alone."""


@st.composite
def trays(draw: Any, depth: int = 2) -> tuple[bytes, set[tuple[str, int]]]:
    """Return a message, and which fields in it no schema declares, by type."""

    def with_unknown(name: str, known: bytes) -> tuple[bytes, set[tuple[str, int]]]:
        number = draw(st.sampled_from([0] * 12 + [30, 500]))
        return (known + tagged(number, 0, b"\1"), {(name, number)}) if number else (known, set())

    def loaf(levels: int = 1) -> tuple[bytes, set[tuple[str, int]]]:
        inner, unknown = loaf(levels - 1) if levels and draw(st.booleans()) else (b"", set())
        known, more = with_unknown("oven.Loaf", tagged(1, 1, bytes(8)) + (tagged(2, 2, inner) if inner else b""))
        return known, unknown | more

    parts, unknown = [tagged(3, 2, tagged(1, 2, b"k") + tagged(2, 0, b"\5"))], set()
    for number in draw(st.lists(st.sampled_from([1, 1, 2, 4, 5, 6, 7]), max_size=3, unique=True)):
        if number == 4 and not depth:
            continue
        inner, found = draw(trays(depth - 1)) if number == 4 else loaf()
        if number in (5, 6):
            inner, more = with_unknown("oven.Choice", tagged(draw(st.sampled_from([1, 2])), 2, inner))
            found = found | more
        parts.append(tagged(number, 2, tagged(1, 2, b"k") + tagged(2, 2, inner) if number == 7 else inner))
        unknown |= found
    known, more = with_unknown("oven.Tray", b"".join(parts))
    return known, unknown | more


@pytest.mark.parametrize("which", range(3))
@settings(max_examples=80)
@given(st.lists(trays(), max_size=40))
def test_messages_with_fields_that_are_not_declared_are_found_among_others(which, drawn) -> None:
    schema, lacks = SCHEMAS[which], {6, 7} - ({6} if which == 1 else {7} if which == 2 else set())
    payloads = [payload for payload, _ in drawn]

    found = FORM.undeclared(payloads, schema)

    assert found == [index for index, payload in enumerate(payloads) if FORM.undeclared([payload], schema)]
    for index, (payload, unknown) in enumerate(drawn):
        fields = FORM.undeclared_fields(payload, schema)
        named = {(name, number) for name, numbers in fields.items() for number in numbers}
        assert (index in found) == bool(named)
        if not named & {("oven.Tray", number) for number in lacks}:
            assert named == unknown


def test_what_a_later_message_would_replace_is_looked_at() -> None:
    loaf, odd = tagged(1, 1, bytes(8)), tagged(9, 0, b"\1")
    choices = [tagged(6, 2, tagged(number, 2, loaf + more)) for number, more in ((1, odd), (2, b""))]
    entries = [tagged(7, 2, tagged(1, 2, b"k") + tagged(2, 2, loaf + more)) for more in (odd, b"")]

    assert FORM.undeclared(choices, SCHEMAS[1]) == [0]
    assert FORM.undeclared([tagged(4, 2, each) for each in choices], SCHEMAS[1]) == [0]
    assert FORM.undeclared(entries, SCHEMAS[2]) == [0]


def test_fields_that_are_not_declared_are_found_in_each_framing() -> None:
    known, unknown = tagged(1, 0, b"\1"), tagged(1, 0, b"\1") + tagged(900, 0, b"\1")
    stream = b"".join(varint(len(each)) + each for each in (known, unknown, known))
    fine = b"".join(varint(len(each)) + each for each in (known, known))

    assert FORM.undeclared([stream, fine, stream], options(framing="delimited")) == [0, 2]
    assert FORM.undeclared_fields(stream, options(framing="delimited")) == {"works.kiln.Firing": {900}}
    head = b"\0\0\0\0\7\0"
    assert FORM.undeclared([head + known, head + unknown], options(framing="confluent")) == [1]


def test_a_plan_says_which_messages_have_fields_that_are_not_declared(write, tmp_path) -> None:
    """Also of those that fail, and that the reference plan renders; not of those that cannot be decoded."""
    (tmp_path / "kiln.binpb").write_bytes(DESCRIPTORS)
    new = tagged(900, 0, b"\1")
    payloads = [
        PAYLOAD,
        PAYLOAD + new,
        new,
        PAYLOAD + tagged(12, 1, struct.pack("<d", float("nan"))) + new,
        new + b"\xff",
    ]
    payloads += [PAYLOAD, tagged(31, 2, new) + new, PAYLOAD.replace(b"\x80", b"\x80") + tagged(22, 2, new)]
    messages = [Message(payload, offset=number) for number, payload in enumerate(payloads)]
    text = DOCUMENT.replace("topic: t", "topic: t, on_bad_value: omit")

    for kind in ("compiled", "reference"):
        assert list(load_mapping(write("descriptor: kiln.binpb", text)).plan(kind).render(messages).undeclared) == [
            1,
            3,
            6,
            7,
        ]
        strict = load_mapping(write("descriptor: kiln.binpb", text.replace("topic: t", "topic: t, strict: true")))
        assert list(strict.plan(kind).render(messages).undeclared) == []


# --- framing ---


def test_a_delimited_stream_is_a_list() -> None:
    chosen = options(framing="delimited")
    first, second = tagged(1, 0, b"\1"), tagged(14, 2, b"y" * 200)
    payload = b"".join(varint(len(part)) + part for part in (first, second, b""))

    rows = decode(payload, chosen)

    assert [(row["aInt32"], row["HasField"]) for row in rows] == [(1, ""), (0, "y" * 200), (0, "")]
    assert decode(b"", chosen) == []
    assert FORM.encode(decode(payload, options(framing="delimited", defaults=False)), chosen) == payload
    assert decode(payload, chosen, Reads(items=Reads(keys={"aInt32": Reads.BARE}))) == [
        {"aInt32": n} for n in (1, 0, 0)
    ]
    assert decode(payload, chosen, Reads.BARE) == []
    for broken in (payload[:-5], b"\x80", b"\xff" * 12, b"\5abc"):
        assert refusal(broken, chosen, Reads.BARE).code == "IFX440"


def test_a_confluent_header_is_skipped() -> None:
    chosen = options(framing="confluent")
    message = tagged(1, 0, b"\7")

    for indexes in (b"\0", b"\2\2", b"\4\0\x80\2"):
        assert decode(b"\0\0\0\1\2" + indexes + message, chosen)["aInt32"] == 7
    assert FORM.encode({"aInt32": 7}, chosen) == b"\0\0\0\0\0\2\2" + message
    assert FORM.encode({}, options(message="works.kiln.Probe", framing="confluent")) == b"\0\0\0\0\0\0"
    too_many = b"\0\0\0\1\2" + varint(2 * 200) + bytes(200)
    for broken in (
        too_many + message,
        b"",
        b"\1\0\0\1\2\0",
        b"\0\0\0\1\2",
        b"\0\0\0\1\2\1",
        b"\0\0\0\1\2\x80",
        b"\0\0\0\1\2\4\0",
        message,
    ):
        assert refusal(broken, chosen).code == "IFX440"


# --- files and documents ---

DOCUMENT = """
iggyflux: 1
kind: writer
from: {stream: s, topic: t, payload: {format: protobuf, FILE, message: works.kiln.Firing}}
points:
  measurement: {const: kiln}
  tags: {phase: phase}
  fields: {heat: {expr: aDouble}, n: {expr: aInt64, type: integer}}
  timestamp: {expr: at, format: rfc3339}
"""
PAYLOAD = (
    tagged(16, 0, b"\1")
    + tagged(12, 1, struct.pack("<d", 1210.5))
    + tagged(2, 0, varint(2**53 + 1))
    + tagged(31, 2, tagged(1, 0, varint(1_700_000_000)) + tagged(2, 0, varint(7)))
)
LINE = "kiln,phase=HEATING heat=1210.5,n=9007199254740993i 1700000000000000007"


def codes_of(path: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(MappingError) as refused:
        load_mapping(path)
    return [(each.code, each.location.pointer, each.message) for each in refused.value.problems]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a document with this file option, and returns its path."""

    def write(file, text=DOCUMENT):
        (tmp_path / "kiln.yaml").write_text(text.replace("FILE", file))
        return tmp_path / "kiln.yaml"

    return write


@pytest.mark.parametrize("file", ["descriptor: kiln.binpb", "proto: schemas/kiln.proto"])
def test_a_mapping_has_the_schema_with_it(write, tmp_path, file):
    """It renders, also in another process that has no such file; another schema is another identity."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/kiln.proto").write_bytes(PROTO)
    (tmp_path / "kiln.binpb").write_bytes(DESCRIPTORS)
    mapping = load_mapping(write(file))
    identity, copied = mapping.identity(), pickle.dumps(mapping)
    named = tmp_path / file.partition(": ")[2]
    assert list(mapping.files) == [named]
    named.write_bytes(named.read_bytes() + (b"// more" if file.startswith("proto") else b"\xa2\x3f\0"))
    assert load_mapping(tmp_path / "kiln.yaml").identity() != identity
    named.unlink()

    found = pickle.loads(copied)

    assert (found.identity(), found) == (identity, mapping)
    for kind in ("compiled", "reference"):
        assert list(found.plan(kind).render([Message(PAYLOAD, offset=1)]).lines) == [LINE]


def test_imports_are_found_beside_the_file(write, tmp_path):
    (tmp_path / "api/units").mkdir(parents=True)
    (tmp_path / "api/main.proto").write_text(
        'syntax = "proto3"; /* import "absent.proto"; */ package works.kiln; import public "units/heat.proto";\n'
        'message Firing { double a_double = 12; Heat heat = 1; string text = 2; } // import "absent.proto";\n'
    )
    (tmp_path / "api/units/heat.proto").write_text(
        'syntax = "proto3"; import "google/protobuf/empty.proto"; package works.kiln;'
        "message Heat { double kelvin = 1; }"
    )
    text = DOCUMENT.replace("aDouble}, n: {expr: aInt64, type: integer", "heat.kelvin").replace(
        "{phase: phase}", "{t: text}"
    )
    mapping = load_mapping(write("proto: api/main.proto", text.replace("expr: at, format: rfc3339", "spread: offset")))

    assert sorted(path.name for path in mapping.files) == ["heat.proto", "main.proto"]
    payload = tagged(1, 2, tagged(1, 1, struct.pack("<d", 300.0)))
    assert mapping.plan().render([Message(payload)]).lines[0].startswith("kiln heat=300.0 ")


@pytest.mark.parametrize("kind", ["compiled", "reference"])
@pytest.mark.parametrize("omits", ["", ", on_bad_value: omit"])
def test_a_field_may_have_the_type_of_the_schema(write, tmp_path, kind, omits) -> None:
    (tmp_path / "kiln.binpb").write_bytes(DESCRIPTORS)
    names = ["aInt64", "aUint32", "aUint64", "aFixed64", "aSint32", "aFloat", "lambda"]
    fields = ", ".join(f"{name}: {{expr: {name}, type: payload}}" for name in names)
    text = DOCUMENT.replace("{heat: {expr: aDouble}, n: {expr: aInt64, type: integer}}", f"{{{fields}}}")
    plan = load_mapping(write("descriptor: kiln.binpb", text.replace("topic: t", f"topic: t{omits}"))).plan(kind)
    payload = PAYLOAD + tagged(4, 0, varint(2**64 - 1)) + tagged(8, 1, struct.pack("<Q", 2**63))

    [line] = plan.render([Message(payload)]).lines

    assert line == (
        "kiln,phase=HEATING aFixed64=9223372036854775808u,aFloat=0.0,aInt64=9007199254740993i,aSint32=0i,aUint32=0u,"
        "aUint64=18446744073709551615u,lambda=false 1700000000000000007"
    )


@pytest.fixture
def tree(tmp_path):
    """Files that write imports from the folder `api`, and one that writes them from `vendor`."""
    folders = {
        "api/ovens/kiln.proto": ["ovens/heat.proto", "units.proto"],
        "api/ovens/heat.proto": [],
        "vendor/units.proto": [],
    }
    for name, imports in folders.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f'import "{each}";' for each in imports)
        stem = name.rpartition("/")[2].partition(".")[0]
        body = (
            "message Firing { double a_double = 12; works.heat.T h = 1; }"
            if imports
            else "message T { double kelvin = 1; }"
        )
        (tmp_path / name).write_text(f'syntax = "proto3"; package works.{stem}; {lines} {body}')
    return tmp_path


PLAIN = (
    DOCUMENT.replace(", n: {expr: aInt64, type: integer}", "")
    .replace("{phase: phase}", "{}")
    .replace("expr: at, format: rfc3339", "spread: offset")
)


def test_imports_are_found_from_the_folders_that_are_named(write, tree):
    """Imported files are a part of the document: of its identity, and of it in another process."""
    path = write("proto: api/ovens/kiln.proto, import_paths: [api, vendor]", PLAIN)
    mapping = load_mapping(path)
    identity, copied = mapping.identity(), pickle.dumps(mapping)

    assert [str(each.relative_to(tree)) for each in sorted(mapping.files)] == [
        "api/ovens/heat.proto",
        "api/ovens/kiln.proto",
        "vendor/units.proto",
    ]
    (tree / "api/units.proto").write_text((tree / "vendor/units.proto").read_text())
    assert load_mapping(path).identity() != identity  # the first folder has it now
    assert pickle.loads(copied).identity() == identity
    (tree / "api/units.proto").unlink()
    (tree / "vendor/units.proto").write_text(
        'syntax = "proto3"; package works.units; message T { double rankine = 1; }'
    )
    assert load_mapping(path).identity() != identity
    (tree / "api/ovens/units.proto").write_text('syntax = "proto3";')
    assert load_mapping(write("proto: api/ovens/kiln.proto, import_paths: api", PLAIN))


def test_an_import_that_is_missing_is_reported_with_what_to_do(write, tree):
    def refused(file):
        with pytest.raises(MappingError) as error:
            load_mapping(write(f"proto: api/ovens/kiln.proto{file}", PLAIN))
        [problem] = error.value.problems
        assert (problem.code, problem.location.pointer) == ("IFX175", "/from/payload/proto")
        return problem.message, problem.hint, set(error.value.files)

    message, hint, _ = refused("")
    assert message == "'kiln.proto' imports 'ovens/heat.proto', and no such file can be read in 'api/ovens'"
    assert hint == "set `import_paths: api`"
    message, hint, looked_for = refused(", import_paths: api")
    assert message == "'ovens/kiln.proto' imports 'units.proto', and no such file can be read in 'api', 'api/ovens'"
    assert "name the folder" in hint
    assert {tree / "api/units.proto", tree / "api/ovens/units.proto"} <= looked_for  # a watch sees it come


def test_folders_of_imports_need_a_proto_file(write, tmp_path):
    (tmp_path / "kiln.binpb").write_bytes(DESCRIPTORS)

    [(code, pointer, _)] = codes_of(write("descriptor: kiln.binpb, import_paths: api"))

    assert (code, pointer) == ("IFX118", "/from/payload/import_paths")


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('syntax = "proto3";\nmessage {', "IFX175", "it does not compile: kiln.proto:2:9: Expected message name."),
        ('syntax = "proto3"; import "a/b.proto";', "IFX175", "imports 'a/b.proto'"),
        ('syntax = "proto3"; import "../b.proto";', "IFX175", "cannot follow the import of '../b.proto'"),
        ('syntax = "proto3"; import "/etc/b.proto";', "IFX175", "cannot follow the import"),
        ('syntax = "proto3"; message Firing {}', "IFX176", "no message type 'works.kiln.Firing' is declared"),
    ],
)
def test_a_proto_file_that_cannot_be_used_is_reported(write, tmp_path, text, code, message):
    (tmp_path / "kiln.proto").write_text(text)

    [(found, pointer, said)] = codes_of(write("proto: kiln.proto"))

    assert (found, message in said, str(tmp_path) in said.replace(str(tmp_path / "a"), "")) == (code, True, False)
    assert pointer == ("/from/payload/message" if code == "IFX176" else "/from/payload/proto")


def test_a_descriptor_that_cannot_be_used_is_reported(write, tmp_path):
    path = write("descriptor: kiln.binpb")
    without_import = descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["b.proto"])
    wrong = descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["a.proto"])
    missing_type = descriptor_pb2.FileDescriptorProto(name="a.proto", package="p")
    missing_type.message_type.add(name="M").field.add(name="f", number=1, type=11, type_name=".p.No", label=1)
    for content, code in [
        (b"", "IFX175"),
        (PROTO, "IFX175"),
        (DESCRIPTORS[:-3], "IFX175"),
        (set_descriptors(without_import), "IFX175"),
        (set_descriptors(wrong), "IFX175"),
        (set_descriptors(missing_type), "IFX175"),
        (DESCRIPTORS2, "IFX176"),
    ]:
        (tmp_path / "kiln.binpb").write_bytes(content)

        assert [code_of[0] for code_of in codes_of(path)] == [code]


@settings(max_examples=150)
@given(st.data())
def test_any_bytes_are_a_schema_or_an_error_of_the_option(data):
    place, removed = data.draw(st.integers(0, len(DESCRIPTORS))), data.draw(st.integers(0, 3))
    content = DESCRIPTORS[:place] + data.draw(st.binary(max_size=3)) + DESCRIPTORS[place + removed :]
    try:
        found = options(content)
    except OptionError:
        return
    with suppress(DecodeError):
        decode(PAYLOAD, found)


def test_a_schema_of_a_document_without_its_options_is_reported(write):
    assert {code for code, _, _ in codes_of(write("strict: true"))} == {"IFX110", "IFX118"}
    assert codes_of(write("names: proto"))[0][:2] == ("IFX118", "/from/payload")
    assert codes_of(write("proto: a.proto, descriptor: b"))[0][:2] == ("IFX118", "/from/payload/proto")
    assert codes_of(write("descriptor: absent.binpb"))[0][:2] == ("IFX100", "/from/payload/descriptor")
    with pytest.raises(MappingError) as refused:
        parse_mapping(DOCUMENT.replace("FILE", "descriptor: kiln.binpb"))
    assert [each.code for each in refused.value.problems] == ["IFX100"]


@pytest.mark.parametrize(
    ("blocked", "file", "extra"),
    [("google.protobuf", "descriptor: kiln.binpb", "protobuf"), ("grpc_tools", "proto: kiln.proto", "protoc")],
)
def test_without_its_package_the_document_says_what_to_install(write, tmp_path, blocked, file, extra):
    (tmp_path / "kiln.binpb").write_bytes(DESCRIPTORS)
    (tmp_path / "kiln.proto").write_bytes(PROTO)
    program = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {blocked!r} else find(name, package)
from iggyflux.__main__ import main
sys.argv[1:] = ["validate", {str(write(file))!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert "IFX177" in done.stdout + done.stderr
    assert f"pip install 'iggyflux[{extra}]'" in done.stdout + done.stderr


def test_two_documents_may_give_one_name_to_different_types(write, tmp_path):
    for number, kind in ((1, "int64"), (2, "string")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "kiln.proto").write_text(f'syntax = "proto3"; package works.kiln; message Firing {{ {kind} x = 1; }}')
        text = DOCUMENT.replace("FILE", "proto: kiln.proto").partition("points:")[0]
        (folder / "kiln.yaml").write_text(
            text
            + "points: {measurement: {const: m}, timestamp: {spread: offset},"
            + " fields: {x: {expr: x, type: string, cast: true}}}"
        )

    first, second = (load_mapping(tmp_path / str(number) / "kiln.yaml").plan() for number in (1, 2))

    assert first.render([Message(tagged(1, 0, b"\5"))]).lines[0].startswith('m x="5"')
    assert second.render([Message(tagged(1, 2, b"ab"))]).lines[0].startswith('m x="ab"')


def test_generate_and_infer_know_the_schema(write, tmp_path):
    """Generated messages render, and a mapping that is inferred of them is valid beside the schema."""
    (tmp_path / "kiln.binpb").write_bytes(DESCRIPTORS)
    example = {"phase": "FIRING", "aDouble": 1210.5, "aInt64": 2**53 + 1, "at": "2026-01-01T00:00:00Z"}
    line = "kiln,phase=HEATING heat=1210.5,n=9007199254740993i 1767225600000000000"
    text = f"{DOCUMENT}examples: {json.dumps([{'message': example, 'points': [line]}])}"
    mapping = load_mapping(write("descriptor: kiln.binpb", text))
    messages = list(islice(generate_messages(mapping, seed=3, start_ns=10**18, interval_ns=10**9), 30))
    source = "{format: protobuf, descriptor: kiln.binpb, message: works.kiln.Firing, names: proto}"
    samples = Declared(source, str(tmp_path / "inferred.yaml")).payloads([message.payload for message in messages])
    (tmp_path / "inferred.yaml").write_text(infer(samples, Wishes("works", "kilns")).text("yaml"))
    inferred = load_mapping(tmp_path / "inferred.yaml")

    assert list(mapping.plan().render(messages).failures) == []
    assert len(set(mapping.plan().render(messages).lines)) == 30
    assert inferred.writer.source.payload.options["names"] == "proto"
    assert [result for result in run_examples(inferred) if result.differences] == []
    assert "a_double" in inferred.plan().render(messages).lines[0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{format: protobuf, descriptor: kiln.binpb, message: Firing}", "IFX176"),
        ("{format: protobuf, descriptor: absent, message: Firing}", "IFX100"),
        ("protobuf", "IFX113"),
    ],
)
def test_a_declared_format_that_is_not_valid_is_reported_as_an_option(tmp_path, text, code):
    (tmp_path / "kiln.binpb").write_bytes(DESCRIPTORS)

    with pytest.raises(DocumentError) as refused:
        Declared(text, str(tmp_path / "inferred.yaml"))

    assert [(problem.code, problem.location.file) for problem in refused.value.problems] == [(code, "--payload")]


def test_a_declared_sample_that_does_not_decode_is_named(tmp_path):
    (tmp_path / "kiln.binpb").write_bytes(DESCRIPTORS)
    declared = Declared(
        "{format: protobuf, descriptor: kiln.binpb, message: works.kiln.Firing}", str(tmp_path / "x.yaml")
    )

    with pytest.raises(SampleError, match="it looks like JSON") as refused:
        declared.payloads([PAYLOAD, b'{"a": 1}'])
    assert (refused.value.line, declared.file(PAYLOAD, whole=False).payloads) == (2, [PAYLOAD])
    assert Declared("csv", "x.yaml").file(b"a,b\n1,2\n", whole=True).trees == [[{"a": "1", "b": "2"}]]


# --- what expressions may name ---


def paths(value: Any, path: str = "@") -> list[str]:
    """Return the paths of a value and of what is in it."""
    inner: list[str] = []
    if isinstance(value, dict):
        inner = [each for key, member in value.items() for each in paths(member, f"{path}.{json.dumps(key)}")]
    if isinstance(value, list):
        inner = [each for index, element in enumerate(value) for each in paths(element, f"{path}[{index}]")]
    return [path, *inner]


def missing(path: str, chosen: dict[str, Any]) -> list[str]:
    """Return the members that are warned of."""
    structure = FORM.structure(chosen)
    assert structure is not None
    walker = _Walker((structure,))
    walker.visit(compile_expression(path).node, (structure,))
    return [str(node["value"]) for node, _ in walker.missing]


@settings(max_examples=50)
@given(message=firings(), names=st.sampled_from(["json", "proto"]), framing=st.sampled_from(["none", "delimited"]))
def test_a_member_that_a_message_has_is_never_warned_of(message: tuple[bytes, Any], names: str, framing: str) -> None:
    wire, _ = message
    chosen = options(names=names, framing=framing)
    value = decode(varint(len(wire)) + wire if framing == "delimited" else wire, chosen)

    for path in paths(value):
        assert missing(path, chosen) == []


@pytest.mark.parametrize(
    ("path", "names", "lacks"),
    [
        ("a_int32", "json", ["a_int32"]),
        ("aInt32", "proto", ["aInt32"]),
        ("mainProbe.label || mainProbe.labl", "json", ["labl"]),
        ("byNumber.x.labl", "json", ["labl"]),
        ("inner.inner.probes[0].offset_value", "json", ["offset_value"]),
        ("inner.inner.probes[0].offset_value", "proto", []),
        ("[extra.x.y, other.x.y, byName.x, at.seconds, wrapped.value]", "json", []),
    ],
)
def test_a_member_that_no_message_has_is_warned_of(path: str, names: str, lacks: list[str]) -> None:
    assert missing(path, options(names=names)) == lacks


def test_the_other_spelling_is_the_hint() -> None:
    chosen = {"format": "protobuf", "descriptor": "kiln.binpb", "message": "works.kiln.Firing"}
    structure = FORM.structure(options())
    assert structure is not None and structure.other_names["a_int32"] == "aInt32"
    assert FORM.structure(chosen) is None  # the file could not be read
