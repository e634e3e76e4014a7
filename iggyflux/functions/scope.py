"""Functions that read more than `@`: the message, the whole payload, the element's position, the document's tables."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import Any

from iggyflux.functions.table import ANY, ConstantError, Function, Parameter, Scope
from iggyflux.records import JSON, Message, Row

_MESSAGE: dict[str, Callable[[Message], JSON]] = {
    "stream": lambda message: message.stream,
    "topic": lambda message: message.topic,
    "partition": lambda message: message.partition,
    "offset": lambda message: message.offset,
    "timestamp": lambda message: message.timestamp_us,
    "origin_timestamp": lambda message: message.origin_timestamp_us,
    "id": lambda message: message.id,
}
_ROW: dict[str, Callable[[Row], JSON]] = {
    "measurement": lambda row: row.measurement,
    "window": lambda row: None if row.window is None else {"start": row.window[0], "stop": row.window[1]},
}

META_NAMES: dict[str, tuple[str, ...]] = {"writer": tuple(_MESSAGE), "reader": tuple(_ROW)}
"""The names that `meta` knows, by the kind of the document."""


def _meta(scope: Scope, name: str) -> JSON:
    message = scope.message
    if message is None:
        return None
    if isinstance(message, Row):
        return _ROW[name](message) if name in _ROW else None
    return _MESSAGE[name](message) if name in _MESSAGE else None


def _header(scope: Scope, name: str) -> JSON:
    message = scope.message
    if message is None or isinstance(message, Row):
        return None
    return header_value(message.headers.get(name))


def header_value(value: object) -> JSON:
    """Return a header as expressions see it: scalars as they are, raw bytes as base64, null if it is missing."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b2a_base64(value, newline=False).decode("ascii")
    for kind in (str, int, float):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)  # exact classes only
    return str(value)


def _root(scope: Scope) -> JSON:
    return scope.root


def _index(scope: Scope) -> JSON:
    return scope.index


def _parent(scope: Scope, level: int = 1) -> JSON:
    return scope.parents[-level] if level <= len(scope.parents) else None


def _parent_level(constants: Mapping[str, Any], _: int) -> Mapping[str, Any]:
    level = constants.get("level", 1)
    if type(level) is not int or level < 1:
        raise ConstantError("level", "the level is a whole number from 1", "parent(`1`) is the same as parent()")
    return {"level": level}


def table_key(key: Any) -> str | None:
    """Return the key under which a value is looked up: numbers and booleans as in tags; None for null."""
    if key is None or isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    return repr(key)


def _lookup(table: Mapping[str, JSON], key: Any, default: JSON = None) -> JSON:
    text = table_key(key)
    found = None if text is None else table.get(text)
    return default if found is None else found


SCOPE: tuple[Function, ...] = (
    Function(
        "meta",
        "message",
        "A coordinate of the message: stream, topic, partition, offset, timestamp and origin_timestamp (µs, as in "
        "Iggy), id; of a row: measurement, window (`{start, stop}` in ns). Null without a message.",
        (Parameter("name", ("string",), "which coordinate", constant=True),),
        ANY,
        _meta,
        (("meta('topic')", "{}", '"readings"'), ("meta('offset')", "{}", "7")),
        scoped=True,
        accepts_null=True,
    ),
    Function(
        "header",
        "message",
        "A header of the message; scalars keep their type, raw bytes become base64. Null if the header is missing.",
        (Parameter("name", ("string",), "the header's key", constant=True),),
        ("null", "boolean", "number", "string"),
        _header,
        (("header('tenant')", "{}", '"acme"'), ("header('nothing')", "{}", "null")),
        scoped=True,
        accepts_null=True,
    ),
    Function(
        "root",
        "message",
        "The whole payload; under `for_each`, `@` is the element and `root()` still the payload.",
        (),
        ANY,
        _root,
        (("a[*].{x: x, unit: root().unit}", '{"unit": "C", "a": [{"x": 1}]}', '[{"x": 1, "unit": "C"}]'),),
        scoped=True,
        accepts_null=True,
    ),
    Function(
        "index",
        "message",
        "The position of the element in the result of `for_each`, from 0; of a nested one in the innermost list. Null "
        "outside `for_each`.",
        (),
        ("number", "null"),
        _index,
        (("index()", "{}", "null"),),
        scoped=True,
        accepts_null=True,
    ),
    Function(
        "parent",
        "message",
        "Under nested `for_each`, the element of the outer list that this one is inside of; ``parent(`2`)`` is the one "
        "around that. The outermost element has none: `root()` is the message.",
        (Parameter("level", ("number",), "how many lists further out, from 1", optional=True, constant=True),),
        ANY,
        _parent,
        (("parent().rack", "{}", '"r1"'), ("parent(`2`)", "{}", "null")),
        scoped=True,
        accepts_null=True,
        prepare=_parent_level,
    ),
    Function(
        "lookup",
        "values",
        "The value under `key` in a table of the document (`tables:`), else `default`. Numbers and booleans are looked "
        "up by their text as a tag value; null is never found.",
        (
            Parameter("table", ("string",), "the table's name", constant=True),
            Parameter("key", ("string", "number", "boolean", "null"), "the key to look up"),
            Parameter("default", ANY, "the result if the table does not have the key", optional=True),
        ),
        ANY,
        _lookup,
        (
            ("lookup('sites', a)", '{"a": "b1"}', '"Berlin"'),
            ("lookup('sites', a, 'unknown')", '{"a": "zz"}', '"unknown"'),
        ),
        accepts_null=True,
    ),
)
