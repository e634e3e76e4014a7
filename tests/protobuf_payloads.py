"""A schema for tests with every kind of field, messages drawn with the value that they must give, and a wire writer.

The writer knows the wire format and not the library: it may write fields in any order, repeat them, pack or not, and
add fields that the schema does not declare.
"""

from __future__ import annotations

import base64
import math
import struct
from datetime import datetime, timedelta
from typing import Any

from google.protobuf import descriptor_pb2
from hypothesis import strategies as st

from iggyflux.payloads import FORMATS
from iggyflux.payloads.protobuf.protoc import descriptors_of

# Names that Python or JMESPath treat in a special way are among the fields.
PROTO = b"""
syntax = "proto3";
package works.kiln;  // not ; import "nothing.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import 'google/protobuf/timestamp.proto';
import "google/protobuf/wrappers.proto";

enum Phase { option allow_alias = true; COLD = 0; HEATING = 1; FIRING = 1; COOLING = -2; }

message Probe {
  string label = 1;
  double reading = 2;
  optional double offset_value = 3;
}

message Firing {
  int32 a_int32 = 1;
  int64 a_int64 = 2;
  uint32 a_uint32 = 3;
  uint64 a_uint64 = 4;
  sint32 a_sint32 = 5;
  sint64 a_sint64 = 6;
  fixed32 a_fixed32 = 7;
  fixed64 a_fixed64 = 8;
  sfixed32 a_sfixed32 = 9;
  sfixed64 a_sfixed64 = 10;
  float a_float = 11;
  double a_double = 12;
  bool lambda = 13;
  string HasField = 14;
  bytes raw_bytes = 15;
  Phase phase = 16;
  optional int32 maybe_int = 17;
  optional string maybe_text = 18;
  oneof choice { int64 number = 19; string words = 20; Probe probe_choice = 21; }
  Probe main_probe = 22;
  repeated Probe probes = 23;
  repeated sint64 counts = 24;
  repeated double curve = 25;
  repeated Phase phases = 26;
  repeated bytes blobs = 27;
  map<string, double> by_name = 28;
  map<int32, Probe> by_number = 29;
  map<bool, string> by_flag = 30;
  google.protobuf.Timestamp at = 31;
  google.protobuf.Duration took = 32;
  google.protobuf.Struct extra = 33;
  google.protobuf.DoubleValue wrapped = 34;
  google.protobuf.Any other = 35;
  Firing inner = 36;
  repeated string notes = 2000;
}
"""
PROTO2 = b"""
syntax = "proto2";
package old;
message Sample {
  optional int32 level = 1 [default = 7];
  optional string name = 2;
  required string must = 3;
  repeated group Row = 4 { optional sint32 cell = 1; }
  optional Kind kind = 5;
  enum Kind { NONE = 3; SOME = 4; }
  extensions 100 to 200;
}
extend Sample { optional int32 added = 100; }
"""


def compiled(text: bytes) -> bytes:
    """Return the descriptors of a .proto file."""
    found = descriptors_of("kiln.proto", lambda _name, _option: text)
    assert found is not None
    return found


DESCRIPTORS = compiled(PROTO)
DESCRIPTORS2 = compiled(PROTO2)


def options(descriptors: bytes = DESCRIPTORS, message: str = "works.kiln.Firing", **more: Any) -> dict[str, Any]:
    """Return the options of a document with this schema."""
    written = {"descriptor": "kiln.binpb", "message": message, **more}
    FORMATS["protobuf"].check(written)
    return dict(FORMATS["protobuf"].bind(written, lambda _name, _option: descriptors))


def varint(number: int) -> bytes:
    """Return a varint; a negative number has ten bytes, as the format requires."""
    number %= 2**64
    found = bytearray()
    while number > 0x7F:
        found.append(number % 128 + 128)
        number //= 128
    return bytes([*found, number])


def tagged(number: int, wire: int, content: bytes) -> bytes:
    """Return a field with its tag."""
    return varint(number * 8 + wire) + (varint(len(content)) if wire == 2 else b"") + content


def zigzag(number: int) -> int:
    return number * 2 if number >= 0 else -number * 2 - 1


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, 1, high - 1]))


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


_DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
_PHASES = {0: "COLD", 1: "HEATING", -2: "COOLING"}

# name -> number, wire type, values, their bytes, and what they become
SCALARS: dict[str, tuple[int, int, st.SearchStrategy[Any], Any, Any]] = {
    "aInt32": (1, 0, _integers(32, signed=True), varint, int),
    "aInt64": (2, 0, _integers(64, signed=True), varint, int),
    "aUint32": (3, 0, _integers(32, signed=False), varint, int),
    "aUint64": (4, 0, _integers(64, signed=False), varint, int),
    "aSint32": (5, 0, _integers(32, signed=True), lambda x: varint(zigzag(x)), int),
    "aSint64": (6, 0, _integers(64, signed=True), lambda x: varint(zigzag(x)), int),
    "aFixed32": (7, 5, _integers(32, signed=False), lambda x: struct.pack("<I", x), int),
    "aFixed64": (8, 1, _integers(64, signed=False), lambda x: struct.pack("<Q", x), int),
    "aSfixed32": (9, 5, _integers(32, signed=True), lambda x: struct.pack("<i", x), int),
    "aSfixed64": (10, 1, _integers(64, signed=True), lambda x: struct.pack("<q", x), int),
    "aFloat": (
        11,
        5,
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        lambda x: struct.pack("<f", x),
        float32,
    ),
    "aDouble": (12, 1, _DOUBLES, lambda x: struct.pack("<d", x), float),
    "lambda": (13, 0, st.booleans(), varint, bool),
    "HasField": (14, 2, _TEXTS, str.encode, str),
    "rawBytes": (15, 2, st.binary(max_size=5), bytes, lambda x: base64.b64encode(x).decode()),
    "phase": (16, 0, st.sampled_from([0, 1, -2, 5]), varint, lambda x: _PHASES.get(x, x)),
}
ABSENT = {"aFloat": 0.0, "aDouble": 0.0, "lambda": False, "HasField": "", "rawBytes": "", "phase": "COLD"}
DEFAULTS: dict[str, Any] = {
    **{name: ABSENT.get(name, 0) for name in SCALARS},
    **{name: [] for name in ("probes", "counts", "curve", "phases", "blobs", "notes")},
    **{name: {} for name in ("byName", "byNumber", "byFlag")},
}


def as_time(seconds: int, nanoseconds: int) -> str:
    return f"{(datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()}.{nanoseconds:09}Z"  # noqa: DTZ001  (it is written as UTC)


@st.composite
def probes(draw: Any) -> tuple[bytes, dict[str, Any]]:
    label, reading = draw(_TEXTS), draw(_DOUBLES)
    wire = tagged(1, 2, label.encode()) + tagged(2, 1, struct.pack("<d", reading))
    value = {"label": label, "reading": reading}
    if draw(st.booleans()):
        value["offsetValue"] = draw(_DOUBLES)
        wire += tagged(3, 1, struct.pack("<d", value["offsetValue"]))
    return wire, value


_TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), _DOUBLES, _TEXTS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=4,
)


def struct_value(value: Any) -> bytes:
    """Return a google.protobuf.Value."""
    if value is None:
        return tagged(1, 0, b"\0")
    if isinstance(value, bool):
        return tagged(4, 0, varint(value))
    if isinstance(value, float):
        return tagged(2, 1, struct.pack("<d", value))
    if isinstance(value, str):
        return tagged(3, 2, value.encode())
    if isinstance(value, list):
        return tagged(6, 2, b"".join(tagged(1, 2, struct_value(each)) for each in value))
    return tagged(5, 2, struct_fields(value))


def struct_fields(value: dict[str, Any]) -> bytes:
    """Return a google.protobuf.Struct."""
    return b"".join(
        tagged(1, 2, tagged(1, 2, key.encode()) + tagged(2, 2, struct_value(member))) for key, member in value.items()
    )


@st.composite
def firings(draw: Any, depth: int = 2, unknown: bool = True) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a message, and the value that it has by the rules of docs/language.md."""
    parts: list[bytes] = []
    value: dict[str, Any] = {
        name: type(each)(each) if isinstance(each, (list, dict)) else each for name, each in DEFAULTS.items()
    }
    for name in draw(st.lists(st.sampled_from(sorted(SCALARS)), max_size=5, unique=True)):
        number, wire, values, write, becomes = SCALARS[name]
        drawn = draw(values)
        if draw(st.integers(0, 5)) == 0:  # the last one wins
            parts.append(tagged(number, wire, write(draw(values))))
        parts.append(tagged(number, wire, write(drawn)))
        value[name] = becomes(drawn)
    if draw(st.booleans()):
        value["maybeInt"] = draw(st.sampled_from([0, -1]))
        parts.append(tagged(17, 0, varint(value["maybeInt"])))
    choice = draw(st.sampled_from(["", "number", "words", "probeChoice"]))
    if choice == "number":
        value[choice] = draw(st.sampled_from([0, 2**62 + 1]))
        parts.append(tagged(19, 0, varint(value[choice])))
    elif choice == "words":
        value[choice] = draw(_TEXTS)
        parts.append(tagged(20, 2, value[choice].encode()))
    elif choice:
        wire_bytes, value[choice] = draw(probes())
        parts.append(tagged(21, 2, wire_bytes))
    more = draw(st.lists(st.sampled_from(sorted(_MORE)), max_size=4, unique=True))
    for name in more:
        wire_bytes, value[name] = draw(_MORE[name])
        parts.append(wire_bytes)
    if depth and draw(st.integers(0, 3)) == 0:
        wire_bytes, value["inner"] = draw(firings(depth - 1, unknown))
        parts.append(tagged(36, 2, wire_bytes))
    if unknown and parts and draw(st.integers(0, 3)) == 0:
        parts.insert(draw(st.integers(0, len(parts))), tagged(draw(st.sampled_from([40, 1999])), 2, b"?"))
    return b"".join(parts), value


def _one(number: int, of: st.SearchStrategy[tuple[bytes, Any]]) -> st.SearchStrategy[tuple[bytes, Any]]:
    return of.map(lambda pair: (tagged(number, 2, pair[0]), pair[1]))


def _many(number: int, of: st.SearchStrategy[tuple[bytes, Any]]) -> st.SearchStrategy[tuple[bytes, Any]]:
    return st.lists(of, min_size=1, max_size=3).map(
        lambda pairs: (b"".join(tagged(number, 2, wire) for wire, _ in pairs), [value for _, value in pairs])
    )


def _packed(number: int, wire: int, write: Any, becomes: Any, values: st.SearchStrategy[Any]) -> Any:
    def of(drawn: tuple[list[Any], bool]) -> tuple[bytes, Any]:
        found, is_packed = drawn
        if is_packed:
            return tagged(number, 2, b"".join(map(write, found))), [becomes(each) for each in found]
        return b"".join(tagged(number, wire, write(each)) for each in found), [becomes(each) for each in found]

    return st.tuples(st.lists(values, min_size=1, max_size=4), st.booleans()).map(of)


def _map(number: int, keys: st.SearchStrategy[Any], key: Any, text: Any, values: Any) -> Any:
    def of(pairs: list[tuple[Any, tuple[bytes, Any]]]) -> tuple[bytes, Any]:
        wire = b"".join(tagged(number, 2, key(each) + content) for each, (content, _) in pairs)
        return wire, {text(each): value for each, (_, value) in sorted(pairs, key=lambda pair: str(text(pair[0])))}

    return st.lists(st.tuples(keys, values), min_size=1, max_size=3, unique_by=lambda pair: pair[0]).map(of)


_SECONDS = st.integers(-62_135_596_800, 253_402_300_799)
_NANOSECONDS = st.integers(0, 999_999_999)
_MORE: dict[str, st.SearchStrategy[tuple[bytes, Any]]] = {
    "mainProbe": _one(22, probes()),
    "probes": _many(23, probes()),
    "counts": _packed(24, 0, lambda x: varint(zigzag(x)), int, _integers(64, signed=True)),
    "curve": _packed(25, 1, lambda x: struct.pack("<d", x), float, _DOUBLES),
    "phases": _packed(26, 0, varint, lambda x: _PHASES.get(x, x), st.sampled_from([0, 1, -2, 9])),
    "blobs": _many(27, st.binary(max_size=4).map(lambda x: (x, base64.b64encode(x).decode()))),
    "byName": _map(
        28,
        _TEXTS,
        lambda x: tagged(1, 2, x.encode()),
        str,
        _DOUBLES.map(lambda x: (tagged(2, 1, struct.pack("<d", x)), x)),
    ),
    "byNumber": _map(29, _integers(32, signed=True), lambda x: tagged(1, 0, varint(x)), str, _one(2, probes())),
    "byFlag": _map(
        30,
        st.booleans(),
        lambda x: tagged(1, 0, varint(x)),
        lambda x: str(x).lower(),
        _TEXTS.map(lambda x: (tagged(2, 2, x.encode()), x)),
    ),
    "at": st.tuples(_SECONDS, _NANOSECONDS).map(
        lambda x: (tagged(31, 2, tagged(1, 0, varint(x[0])) + tagged(2, 0, varint(x[1]))), as_time(*x))
    ),
    "took": st.tuples(st.integers(-315_576_000_000, 315_576_000_000), _NANOSECONDS).map(
        lambda x: (
            tagged(32, 2, tagged(1, 0, varint(x[0])) + tagged(2, 0, varint(int(math.copysign(x[1], x[0]))))),
            x[0] * 10**9 + int(math.copysign(x[1], x[0])),
        )
    ),
    "extra": st.dictionaries(_TEXTS, _TREES, max_size=3).map(lambda x: (tagged(33, 2, struct_fields(x)), x)),
    "wrapped": _DOUBLES.map(lambda x: (tagged(34, 2, tagged(1, 1, struct.pack("<d", x))), x)),
    "other": st.one_of(
        probes().map(
            lambda x: (
                tagged(35, 2, tagged(1, 2, b"type.googleapis.com/works.kiln.Probe") + tagged(2, 2, x[0])),
                {"@type": "type.googleapis.com/works.kiln.Probe", **x[1]},
            )
        ),
        st.binary(max_size=4).map(
            lambda x: (
                tagged(35, 2, tagged(1, 2, b"a/not.Known") + tagged(2, 2, x)),
                {"@type": "a/not.Known", "value": base64.b64encode(x).decode()},
            )
        ),
        st.tuples(_SECONDS, _NANOSECONDS).map(
            lambda x: (
                tagged(
                    35,
                    2,
                    tagged(1, 2, b"x/google.protobuf.Timestamp")
                    + tagged(2, 2, tagged(1, 0, varint(x[0])) + tagged(2, 0, varint(x[1]))),
                ),
                {"@type": "x/google.protobuf.Timestamp", "value": as_time(*x)},
            )
        ),
    ),
    "notes": _many(2000, _TEXTS.map(lambda x: (x.encode(), x))),
}


def set_descriptors(*files: descriptor_pb2.FileDescriptorProto) -> bytes:
    return bytes(descriptor_pb2.FileDescriptorSet(file=files).SerializeToString())
