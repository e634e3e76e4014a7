"""avro: records by a schema, with what says which schema it is.

| encoding | before a record | the schema it was written with |
|---|---|---|
| `raw` | nothing | `schema` |
| `single_object` | C3 01 and a fingerprint | that one of `schema` and `schemas` |
| `confluent` | 0 and an id of four bytes | that of `schemas`, or of the registry of the pipeline |
| `container` | a header, then blocks of many records | in the header |

`reader_schema` is what the mapping reads: records of other schemas are resolved to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from iggyflux.errors import DecodeError
from iggyflux.payloads.avro.container import blocks, read_header, write_container
from iggyflux.payloads.avro.known import Refused, Schema
from iggyflux.payloads.avro.reading import Read, compile_reader
from iggyflux.payloads.avro.schema import MAX_FOREIGN_NODES, MAX_NODES, SchemaError, fingerprint, parse
from iggyflux.payloads.avro.structure import structure_of
from iggyflux.payloads.avro.writing import Misfit, write
from iggyflux.payloads.format import (
    MALFORMED,
    MAX_VALUES,
    Format,
    OptionError,
    Options,
    ReadFile,
    ReadPayload,
    check_size,
    too_many,
)
from iggyflux.payloads.format import not_encodable as _not_encodable
from iggyflux.payloads.places import path_text, within
from iggyflux.reads import Reads
from iggyflux.records import JSON
from iggyflux.structure import Structure

BAD_SCHEMA: Final = "IFX430"
UNKNOWN_SCHEMA: Final = "IFX431"
NOT_FRAMED: Final = "IFX432"
_UNUSABLE: Final = "IFX171"
_UNRESOLVED: Final = "IFX172"

_SINGLE: Final = b"\xc3\x01"
_Compile = Callable[..., Read]


def prepare(
    options: Options,
    reads: Reads | None,
    strict: bool,
    non_finite: bool,
    typed: bool = False,  # noqa: ARG001  (all integers have a sign)
) -> ReadPayload:
    """Return what decodes payloads."""
    reader = _text(options.get("reader_schema"))
    logical = options.get("logical_types") is not False
    numbers = options.get("decimals") == "number"

    def compiled(schema: str, most: int = MAX_NODES) -> Read:
        node = None if reader is None else parse(reader)
        wanted = reads or Reads.WHOLE
        if encoding == "container" and not wanted.whole:
            wanted = wanted.items or Reads.BARE
        read, _ = compile_reader(
            parse(schema, most), node, wanted, strict=strict, non_finite=non_finite, logical=logical, numbers=numbers
        )
        return read

    encoding = encoding_of(options)
    return _BINDERS[encoding](options, compiled, reads)


@lru_cache(maxsize=32)
def _whole(options: str, strict: bool, non_finite: bool) -> ReadPayload:
    return prepare(json.loads(options), None, strict, non_finite)


def decode(
    payload: bytes, options: Options, reads: Reads | None = None, strict: bool = False, *, non_finite: bool = False
) -> JSON:
    """Return the record of a payload, or the list of records of a container."""
    if reads is None or reads.whole:
        return _whole(json.dumps(dict(options), sort_keys=True), strict, non_finite)(payload)
    return prepare(options, reads, strict, non_finite)(payload)


def encoding_of(options: Options) -> str:
    """Return the encoding: without one `raw` with a `schema`, `confluent` with `schemas`, else `container`."""
    encoding = options.get("encoding")
    if isinstance(encoding, str):
        return encoding
    by_id = options.keys() & {"schemas", "schema_registry"}
    return "raw" if "schema" in options else "confluent" if by_id else "container"


# encodings


def _raw(options: Options, compiled: _Compile, _reads: Reads | None) -> ReadPayload:
    read = compiled(_text(options.get("schema")) or '"null"')

    def decode_raw(payload: bytes) -> JSON:
        return _whole_value(payload, read, 0)

    return decode_raw


def _whole_value(payload: bytes, read: Read, start: int) -> JSON:
    check_size(payload)
    value: JSON
    value, end = read(payload, start, [MAX_VALUES])
    if end != len(payload):
        left = len(payload) - end
        reason = f"not Avro of this schema: {left:,} bytes are left after the value"
        raise within(DecodeError(MALFORMED, reason), (), end)
    return value


def _single_object(options: Options, compiled: _Compile, _reads: Reads | None) -> ReadPayload:
    by_fingerprint = {fingerprint(text): compiled(text) for text in _listed(options)}

    def decode_single(payload: bytes) -> JSON:
        if not payload.startswith(_SINGLE) or len(payload) < 10:
            raise DecodeError(NOT_FRAMED, "not a single object of Avro: it does not begin with c3 01 and a fingerprint")
        read = by_fingerprint.get(payload[2:10])
        if read is None:
            raise DecodeError(UNKNOWN_SCHEMA, f"no schema of the mapping has the fingerprint {payload[2:10].hex()}")
        return _whole_value(payload, read, 10)

    return decode_single


def _confluent(options: Options, compiled: _Compile, _reads: Reads | None) -> ReadPayload:
    schemas: dict[int, Schema] = {int(number): text for number, text in _by_id(options).items()}
    registry: Mapping[int, Schema] | None = options.get("known")
    readers: dict[int, Read] = {}
    asks = options.get("schema_registry") is True

    def reader_of(number: int, schema: Schema | None) -> Read:
        if schema is None or isinstance(schema, Refused):
            if schema is None:
                hint = "no schema registry was asked: name a pipeline file with one"
                where = "the mapping" if registry is None else "the mapping or of its registry"
                reason = f"no schema of {where} has the id {number}"
                raise DecodeError(UNKNOWN_SCHEMA, reason, hint=hint if asks and registry is None else None)
            raise DecodeError(UNKNOWN_SCHEMA if schema.is_unknown else BAD_SCHEMA, schema.reason)
        try:
            return compiled(schema, MAX_NODES if number in schemas else MAX_FOREIGN_NODES)
        except SchemaError as error:
            raise DecodeError(BAD_SCHEMA, f"the schema {number} of the registry cannot be used: {error}") from None

    def decode_confluent(payload: bytes) -> JSON:
        if not payload.startswith(b"\0") or len(payload) < 5:
            raise DecodeError(NOT_FRAMED, "it does not begin with 0 and the id of a schema, as Confluent's format does")
        number = int.from_bytes(payload[1:5], "big")
        read = readers.get(number)
        if read is None:
            read = readers[number] = reader_of(number, schemas.get(number) or (registry or {}).get(number))
        return _whole_value(payload, read, 5)

    return decode_confluent


def _container(_options: Options, compiled: _Compile, reads: Reads | None) -> ReadPayload:
    are_read = reads is None or reads.whole or reads.items is not None

    @lru_cache(maxsize=16)
    def of_schema(text: str) -> Read:
        try:
            return compiled(text, MAX_FOREIGN_NODES)
        except SchemaError as error:
            raise DecodeError(BAD_SCHEMA, f"the schema in the container cannot be used: {error}") from None

    last: tuple[bytes, Read, str, bytes] | None = None
    """A header with what it says: the records of an archive have the same."""

    def decode_container(payload: bytes) -> JSON:
        nonlocal last
        check_size(payload)
        if last is None or not payload.startswith(last[0]):
            schema, codec, sync, start = read_header(payload)
            last = payload[:start], of_schema(schema), codec, sync
        header, read, codec, sync = last
        rows: list[JSON] = []
        budget = [MAX_VALUES]
        first = 0
        for block, (count, data) in enumerate(blocks(payload, codec, sync, len(header)), 1):
            at = index = 0
            budget[0] -= count
            if budget[0] < 0:
                raise too_many()
            try:
                for index in range(count):  # noqa: B007  (the failure names it)
                    row, at = read(data, at, budget)
                    if are_read:
                        rows.append(row)
            except DecodeError as error:
                raise within(error, (first + index,), block=block) from None
            first += count
            if at != len(data):
                reason = "a block of the container is longer than its records"
                raise within(DecodeError(MALFORMED, reason), (), at, block)
        return rows

    return decode_container


_BINDERS: Final[Mapping[str, Callable[[Options, _Compile, Reads | None], ReadPayload]]] = {
    "raw": _raw,
    "single_object": _single_object,
    "confluent": _confluent,
    "container": _container,
}


# options

_NEEDED: Final = {
    "raw": ("schema", "the schema that payloads are written with"),
    "confluent": ("schemas", "the schemas by their ids, or `schema_registry: true`"),
}


def check(options: Options) -> None:
    """Raise OptionError unless the encoding has the schemas it needs."""
    encoding = encoding_of(options)
    needed, what = _NEEDED.get(encoding, ("", ""))
    if options.get("schema_registry") and encoding != "confluent":
        raise OptionError(f"the encoding {encoding} asks no schema registry", "schema_registry")
    if needed and needed not in options and not options.get("schema_registry"):
        raise OptionError(f"the encoding {encoding} needs `{needed}`: {what}", "encoding")
    if encoding == "single_object" and not options.keys() & {"schema", "schemas"}:
        raise OptionError("the encoding single_object needs `schema` or `schemas`", "encoding")
    if encoding == "confluent" and "schema" in options:
        raise OptionError("the encoding confluent has its schemas by their ids, in `schemas`", "schema")
    schemas = options.get("schemas")
    if "schemas" in options and isinstance(schemas, dict) is not (encoding == "confluent"):
        wanted = "an object of ids and schemas" if encoding == "confluent" else "a list"
        raise OptionError(f"for the encoding {encoding}, `schemas` is {wanted}", "schemas")
    for number in schemas if isinstance(schemas, dict) else ():
        if not (number.isascii() and number.isdigit() and str(int(number[:11])) == number and int(number) < 2**32):
            raise OptionError(f"expected the id of a schema, a number of 32 bits, found {number[:20]!r}", "schemas")


def bind(options: Options, read: ReadFile) -> Options:
    """Return the options with each schema as a JSON text; a string of the document is the name of a file.

    Raise OptionError unless all schemas can be used, and together.
    """
    missing: list[str] = []

    def loaded(value: JSON, pointer: str) -> str:
        content: bytes | None = read(value, pointer) if isinstance(value, str) else json.dumps(value).encode()
        if content is None:
            missing.append(pointer)
            return '"null"'
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise _unusable(value, "it is not UTF-8", pointer) from None
        try:
            parse(text)
        except SchemaError as error:
            raise _unusable(value, str(error), pointer) from None
        return text

    made = {key: loaded(value, key) if key in ("schema", "reader_schema") else value for key, value in options.items()}
    schemas = made.get("schemas")
    if isinstance(schemas, dict):
        made["schemas"] = {number: loaded(each, f"schemas/{number}") for number, each in schemas.items()}
    elif isinstance(schemas, list):
        made["schemas"] = [loaded(each, f"schemas/{index}") for index, each in enumerate(schemas)]
    reader = made.get("reader_schema")
    if isinstance(reader, str) and not missing:
        for _, text in _all(made):
            try:
                compile_reader(parse(text), parse(reader))
            except SchemaError as error:
                reason = f"the two schemas do not resolve: {error}"
                raise OptionError(reason, "reader_schema", code=_UNRESOLVED) from None
    return made


def structure(options: Options) -> Structure | None:
    """Return what expressions see of payloads; None if only their writers, or a registry, know it."""
    encoding, reader = encoding_of(options), _text(options.get("reader_schema"))
    if reader is None and (encoding == "container" or options.get("schema_registry") is True):
        return None
    texts = _listed(options) if reader is None else [reader]
    is_logical = options.get("logical_types") is not False
    found = Structure(branches=tuple(structure_of(parse(text), logical=is_logical) for text in texts))
    return Structure(items=found) if encoding == "container" else found


def _unusable(schema: JSON, reason: str, pointer: str) -> OptionError:
    what = f"the schema {schema!r}" if isinstance(schema, str) else "this schema"
    return OptionError(f"{what} cannot be used: {reason}", pointer, code=_UNUSABLE)


def _text(schema: JSON) -> str | None:
    """Return the JSON text of a schema; what is a text is one already."""
    return schema if schema is None or isinstance(schema, str) else json.dumps(schema)


def _all(options: Options) -> list[tuple[str, str]]:
    """Return pointer and text of each schema that payloads may be written with."""
    found = [("schema", options.get("schema"))]
    schemas = options.get("schemas")
    if isinstance(schemas, dict):
        found += [(f"schemas/{number}", each) for number, each in schemas.items()]
    elif isinstance(schemas, list):
        found += [(f"schemas/{index}", each) for index, each in enumerate(schemas)]
    return [(pointer, text) for pointer, schema in found if (text := _text(schema)) is not None]


def _listed(options: Options) -> list[str]:
    return [text for _, text in _all(options)]


def _by_id(options: Options) -> dict[str, str]:
    schemas = options.get("schemas")
    return {number: _text(each) or "" for number, each in schemas.items()} if isinstance(schemas, dict) else {}


# back


def encode(value: JSON, options: Options | None = None) -> bytes:
    """Return the payload of a value, written with `schema`, or the first of `schemas`."""
    options = options or {}
    listed = _all(options)
    if not listed:
        raise _not_encodable("avro", "a schema in the mapping", value)
    pointer, text = listed[0]
    encoding = encoding_of(options)
    logical = options.get("logical_types") is not False

    def written(record: Any) -> bytes:
        try:
            return write(parse(text), record, logical=logical)
        except Misfit as error:
            place = f"{path_text(error.path)}: " if error.path else ""
            reason = f"a value of its schema ({place}{error.reason[:150]})"
            raise _not_encodable("avro", reason, error.value) from None

    if encoding == "container":
        return write_container(text, [written(each) for each in (value if isinstance(value, list) else [value])])
    if encoding == "single_object":
        return _SINGLE + fingerprint(text) + written(value)
    if encoding == "confluent":
        return b"\0" + int(pointer.rpartition("/")[2]).to_bytes(4, "big") + written(value)
    return written(value)


FORMAT = Format(
    decode,
    encode,
    binary=True,
    decode_non_finite=lambda payload, options, reads, strict: decode(payload, options, reads, strict, non_finite=True),
    check=check,
    bind=bind,
    prepare=prepare,
    structure=structure,
)
