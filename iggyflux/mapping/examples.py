"""Checks `examples` of a document: each must be something that `iggyflux test` can run and compare."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Final

from iggyflux.documents import join_pointer
from iggyflux.errors import LineProtocolError
from iggyflux.lineprotocol import parse_lines
from iggyflux.mapping.reading import Reading, items_of, texts_of
from iggyflux.records import JSON
from iggyflux.spec import Payload

BAD_EXAMPLE = "IFX129"
TEXT_OF_JSON = "IFX154"
_BINARY = frozenset({"msgpack", "cbor", "protobuf"})


def check_writer_examples(reading: Reading, payload: Payload) -> None:
    """Check that each example has a message in one form, and an expected result."""
    for tree, pointer in _examples(reading):
        _exactly_one(reading, tree, pointer, ("message", "message_json", "payload_base64"), "message")
        _at_least_one(reading, tree, pointer, ("points", "fails", "skipped"))
        if tree.get("skipped") is True:
            for key in ("points", "fails"):
                if tree.get(key):
                    place = join_pointer(pointer, key)
                    reading.report(BAD_EXAMPLE, place, f"`{key}` is not allowed with `skipped`", key=True)
        if "message_json" in tree and payload.format in _BINARY:
            place = join_pointer(pointer, "message_json")
            hint = "use `message`, which is encoded, or `payload_base64` for raw bytes"
            reading.report(BAD_EXAMPLE, place, f"{payload.format} payloads are not text", key=True, hint=hint)
        message = tree.get("message")
        if payload.format == "json" and isinstance(message, str) and message.lstrip().startswith(("{", "[")):
            hint = "write the tree without quotes, or the raw text as `message_json`"
            place = join_pointer(pointer, "message")
            reading.warn(TEXT_OF_JSON, place, "the message is a JSON string, not the JSON inside it", hint=hint)
        _check_base64(reading, tree.get("payload_base64"), join_pointer(pointer, "payload_base64"))
        _check_codes(reading, tree.get("fails"), join_pointer(pointer, "fails"))
        for index, line in enumerate(texts_of(tree.get("points"))):
            _check_line(reading, line, join_pointer(join_pointer(pointer, "points"), index))


def check_reader_examples(reading: Reading) -> None:
    """Check that each example has a row or rows, and an expected result."""
    for tree, pointer in _examples(reading):
        _exactly_one(reading, tree, pointer, ("row", "rows"), "rows")
        _at_least_one(reading, tree, pointer, ("messages", "fails"))
        _check_codes(reading, tree.get("fails"), join_pointer(pointer, "fails"))


def _examples(reading: Reading) -> Iterator[tuple[Mapping[str, JSON], str]]:
    examples = reading.tree.get("examples")
    return items_of(examples if isinstance(examples, list) else None, "/examples")


def _exactly_one(reading: Reading, tree: Mapping[str, JSON], pointer: str, keys: tuple[str, ...], what: str) -> None:
    given = [key for key in keys if key in tree]
    if not given and pointer not in reading.misspelt:
        reading.report(BAD_EXAMPLE, pointer, f"the example has no {what}", expected=" | ".join(keys))
    for key in given[1:]:
        message = f"`{given[0]}` and `{key}` are mutually exclusive"
        reading.report(BAD_EXAMPLE, join_pointer(pointer, key), message, key=True, hint="remove one of them")


def _at_least_one(reading: Reading, tree: Mapping[str, JSON], pointer: str, keys: tuple[str, ...]) -> None:
    if not any(key in tree for key in keys) and pointer not in reading.misspelt:
        message = "missing expected result of the example"
        reading.report(BAD_EXAMPLE, pointer, message, expected=" | ".join(keys), hint=_UPDATE)


_UPDATE: Final = "`iggyflux test --update` writes what comes of it into the file"


def _check_base64(reading: Reading, value: JSON, pointer: str) -> None:
    if isinstance(value, str):
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            reading.report(BAD_EXAMPLE, pointer, "this is not base64")


def _check_codes(reading: Reading, value: JSON, pointer: str) -> None:
    from iggyflux.codes import CODES  # the table takes 15 ms to load, and few documents name a code

    for index, code in enumerate(texts_of(value)):
        place = pointer if isinstance(value, str) else join_pointer(pointer, index)
        if code not in CODES and place not in reading.reported:
            hint = "docs/errors.md lists all codes"
            reading.report(BAD_EXAMPLE, place, f"unknown code {code}", hint=hint)


def _check_line(reading: Reading, line: str, pointer: str) -> None:
    try:
        count = len(parse_lines(line))
    except LineProtocolError as error:
        before = line.split("\n")[: error.line]
        offset = sum(len(part) + 1 for part in before[:-1])
        offset += len((before[-1] if before else "").encode()[: error.column - 1].decode("utf-8", "replace"))
        unquoted = "expected a number, a boolean or a string, found"
        hint = 'write strings in double quotes: state="ok"' if error.reason.startswith(unquoted) else None
        reading.report(BAD_EXAMPLE, pointer, f"invalid line protocol: {error.reason}", offset=offset, hint=hint)
    else:
        if count != 1:
            reading.report(BAD_EXAMPLE, pointer, f"expected one line, found {count}", hint="write one line per item")
