"""What is said of a payload that is not in its declared format."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import time
import zlib

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux import Message, parse_mapping
from iggyflux.errors import DecodeError
from iggyflux.payloads import FORMATS
from iggyflux.payloads.recognition import explained

OBJECT = {"lambda": [1, {"straße": None}], "𝕏": "a,b"}
TEXT = json.dumps(OBJECT, ensure_ascii=False)
LOOKS = {
    "gzip": (gzip.compress(TEXT.encode()), "json", "gzip"),
    "zlib": (zlib.compress(TEXT.encode()), "json", "zlib"),
    "bzip2 for msgpack": (bz2.compress(TEXT.encode()), "msgpack", "bzip2"),
    "xz": (lzma.compress(TEXT.encode()), "json", "xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x00", "json", "zstd"),
    "UTF-16": (TEXT.encode("utf-16"), "json", "UTF-16"),
    "UTF-16LE": (TEXT.encode("utf-16-le"), "json", "UTF-16"),
    "UTF-16BE": (TEXT.encode("utf-16-be"), "json", "UTF-16"),
    "UTF-32": (TEXT.encode("utf-32-le"), "json", "UTF-32"),
    "UTF-16 for csv": ("für,a\n1,2\n".encode("utf-16"), "csv", "UTF-16"),
    "mark": (TEXT.encode("utf-8-sig"), "json", "byte order mark"),
    "base64": (base64.b64encode(TEXT.encode()), "json", "base64 of JSON"),
    "base64url": (base64.urlsafe_b64encode(TEXT.encode()).rstrip(b"="), "json", "base64 of JSON"),
    "base64 of gzip": (base64.b64encode(gzip.compress(TEXT.encode())), "json", "base64 of gzip"),
    "a mark and JSON": (b'\xef\xbb\xbf{"a": 1}', "json", "the rest is JSON"),
    "NaN and more": (b'{"a": NaN,}', "json", "and that is not all that is wrong with it"),
    "NaN and nan": (b'{"a": NaN, "b": nan}', "json", "JSON has no nan"),
    "NaN": (b'{"a": "\\"x: NaN", "if": [1, NaN]}', "json", "JSON has no NaN"),
    "-Infinity": (b'{"if": -Infinity}', "json", "JSON has no -Infinity"),
    "Python": (str(OBJECT).encode(), "json", "double quotes only"),
    "lines": (f"{TEXT}\n{TEXT}\n".encode(), "json", "several JSON documents"),
    "XML": (b"<?xml version='1.0'?><a/>", "json", "XML"),
    "registry": (b"\0\0\0\0\x09" + TEXT.encode(), "json", "schema registry"),
    "msgpack": (msgspec.msgpack.encode(OBJECT), "json", "MessagePack"),
    "cbor": (cbor2.dumps(OBJECT), "json", "CBOR"),
    "line protocol": (b"class,if=x for=1i 5\n", "json", "line protocol"),
    "csv": (b"for,if\n1,2\n", "json", "CSV"),
    "avro container": (b"Obj\1\0" + bytes(16), "json", "Avro container"),
    "avro single object": (b"\xc3\1" + bytes(9), "json", "single object of Avro"),
    "JSON for msgpack": (TEXT.encode(), "msgpack", "JSON"),
    "JSON for cbor": (TEXT.encode(), "cbor", "JSON"),
    "JSON for influx": (TEXT.encode(), "influx", "JSON"),
}


@pytest.mark.parametrize(("payload", "declared", "words"), LOOKS.values(), ids=list(LOOKS))
def test_the_reason_of_a_failure_says_what_the_payload_looks_like(payload: bytes, declared: str, words: str) -> None:
    """A dead letter alone says what the producer does wrong."""
    text = f"from: {{stream: s, topic: t, payload: {declared}}}\nfor_each: '@'\npoints: {{measurement: {{const: m}}}}"
    failures = parse_mapping(f"iggyflux: 1\nkind: writer\n{text}").plan().render([Message(payload)]).failures

    assert words in failures[0].reason
    assert [each.reason.count("looks like") for each in failures[1:]] == [0] * len(failures[1:])


@pytest.mark.parametrize("form", ["csv", "text", "logfmt", "json"])
@pytest.mark.parametrize(
    ("coded", "encoding"),
    [("cp1252", "windows-1252"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16le"), ("utf-16-be", "utf-16be")],
)
def test_the_hint_names_the_encoding_that_reads_the_payload(form: str, coded: str, encoding: str) -> None:
    """Where the format has that option: declared as the hint says, it is read."""
    payload = "flow=Zulauf müde=1".encode(coded)
    try:
        FORMATS[form].decode(payload, {}, None, False)
    except DecodeError as error:
        hint = explained(error, payload, form).hint or ""
    else:
        assert form == "text" and coded == "utf-16-le"  # zero bytes are characters too
        return

    assert (f"set `encoding: {encoding}` in `payload`" == hint) is (form != "json"), hint
    if form != "json" and form != "csv":
        assert "müde" in str(FORMATS[form].decode(payload, {"encoding": encoding}, None, False))


@given(st.binary() | st.text().map(str.encode) | st.sampled_from([each[0] for each in LOOKS.values()]), st.data())
def test_whatever_a_payload_is_it_can_be_explained(payload: bytes, data: st.DataObject) -> None:
    """A failure that is explained keeps its code and the start of its reason."""
    cut = payload[data.draw(st.integers(0, len(payload))) :]
    for declared in FORMATS:
        error = DecodeError("IFX404", "no", "/while")
        found = explained(error, cut, declared)

        assert (found.code, found.location, found.reason[:2]) == ("IFX404", "/while", "no")


@pytest.mark.parametrize("piece", [b'"\\', b"{'", b"[", b"\0a", b"a,\n", b'\\"', b": N", b"aaaa", b"m f=", b"\x81"])
def test_a_large_payload_is_explained_in_linear_time(piece: bytes) -> None:
    start = time.process_time()
    explained(DecodeError("IFX404", "no"), piece * (900_000 // len(piece)), "json")

    assert time.process_time() - start < 3
