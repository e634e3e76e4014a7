"""protobuf: messages of one type, which a descriptor or a .proto file declares; the file is read with the document.

What the schema does not declare is ignored, with `strict` it fails.  A payload of which the schema declares nothing
always fails, since nearly any bytes are a message of unknown fields.  Bytes become base64, a Timestamp RFC 3339 text,
a Duration its nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from iggyflux.errors import DecodeError
from iggyflux.payloads.format import (
    MAX_PAYLOAD_BYTES,
    MAX_VALUES,
    Format,
    OptionError,
    Options,
    ReadFile,
    ReadPayload,
    check_size,
    not_encodable,
)
from iggyflux.payloads.places import within
from iggyflux.reads import Reads
from iggyflux.records import JSON
from iggyflux.structure import Structure

if TYPE_CHECKING:
    from iggyflux.payloads.protobuf.schema import Schema

BAD_FRAME: Final = "IFX440"
NO_LIBRARY: Final = "IFX177"
COMPILED: Final = "compiled"
"""The key of what `bind` made of the options."""


def check(options: Options) -> None:
    """Raise OptionError unless there is one file of the schema."""
    if ("descriptor" in options) == ("proto" in options):
        raise OptionError("expected `descriptor` or `proto`, one of them", "proto" if "proto" in options else None)
    if "import_paths" in options and "proto" not in options:
        hint = "remove it: a descriptor has what it imports"
        raise OptionError("`import_paths` is of `proto`", "import_paths", hint=hint)


def bind(options: Options, read: ReadFile) -> Options:
    """Return the options with the schema of the file that they name; raise OptionError."""
    if not isinstance(options.get("message"), str):
        return options  # the schema of documents requires it
    if not _has_library():
        raise OptionError("protobuf payloads need a package", code=NO_LIBRARY, hint="pip install 'iggyflux[protobuf]'")
    from iggyflux.payloads.protobuf import protoc, schema

    if "proto" in options:
        given = options.get("import_paths", [])
        paths = [given] if isinstance(given, str) else list(map(str, given))
        content = protoc.descriptors_of(str(options["proto"]), read, paths)
    else:
        content = read(str(options["descriptor"]), "descriptor")
    if content is None:
        return options
    found = schema.schema_of(
        content,
        options["message"],
        file_option="proto" if "proto" in options else "descriptor",
        json_names=options.get("names", "json") == "json",
        enum_names=options.get("enums", "name") == "name",
        defaults=options.get("defaults", True) is True,
    )
    return {**options, COMPILED: found}


def _has_library() -> bool:
    try:
        return find_spec("google.protobuf") is not None
    except ModuleNotFoundError:
        return False


def decode(
    payload: bytes,
    options: Options,
    reads: Reads | None = None,
    strict: bool = False,
    *,
    non_finite: bool = False,
    typed: bool = False,
) -> JSON:
    """Return the message, or under `framing: delimited` the list of messages."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        check_size(payload)
    schema: Schema = options[COMPILED]
    framing = options.get("framing")
    if framing is None or framing == "none":
        return schema.converter(reads, strict, non_finite, typed)(payload, [MAX_VALUES])
    if framing == "confluent":
        start = _header(payload)
        try:
            return schema.converter(reads, strict, non_finite, typed)(payload[start:], [MAX_VALUES])
        except DecodeError as error:
            raise within(error, (), start) from None
    rows = Reads.WHOLE if reads is None or reads.whole else reads.items
    convert = schema.converter(rows or Reads.BARE, strict, non_finite, typed)
    budget = [MAX_VALUES]
    found: list[JSON] = []
    start = 0
    try:
        for start, part in _parts(payload):  # noqa: B007  (the failure names it)
            found.append(convert(part, budget))
    except DecodeError as error:
        raise within(error, (len(found),), 0 if error.code == BAD_FRAME else start) from None
    return [] if rows is None else found


def prepare(options: Options, reads: Reads | None, strict: bool, non_finite: bool, typed: bool) -> ReadPayload:
    """Return what decodes payloads as `decode` does."""
    if options.get("framing", "none") != "none":
        return partial(decode, options=options, reads=reads, strict=strict, non_finite=non_finite, typed=typed)
    schema: Schema = options[COMPILED]
    convert = schema.converter(reads, strict, non_finite, typed)

    def decode_message(payload: bytes) -> JSON:
        if len(payload) > MAX_PAYLOAD_BYTES:
            check_size(payload)
        return convert(payload, [MAX_VALUES])

    return decode_message


def undeclared(payloads: Sequence[bytes], options: Options) -> list[int]:
    """Return the indices of payloads with fields that the schema does not declare; all of them can be decoded."""
    schema: Schema = options[COMPILED]
    if options.get("framing", "none") == "none":
        return schema.undeclared.find(payloads)
    messages = [(index, each) for index, payload in enumerate(payloads) for each in _messages(payload, options)]
    found = schema.undeclared.find([each for _, each in messages])
    return sorted({messages[position][0] for position in found})


def undeclared_fields(payload: bytes, options: Options) -> dict[str, set[int]]:
    """Return the numbers of the fields of a payload that are not declared, by the type that does not declare them."""
    schema: Schema = options[COMPILED]
    found: dict[str, set[int]] = {}
    for message in _messages(payload, options):
        for name, numbers in schema.undeclared.fields(message).items():
            found.setdefault(name, set()).update(numbers)
    return found


def structure(options: Options) -> Structure | None:
    """Return what expressions see of payloads; None if the schema could not be read."""
    if COMPILED not in options:
        return None
    from iggyflux.payloads.protobuf.structure import structure_of

    schema: Schema = options[COMPILED]
    found = structure_of(schema.descriptor, json_names=schema.json_names)
    return Structure(items=found) if options.get("framing") == "delimited" else found


def _messages(payload: bytes, options: Options) -> Iterable[bytes]:
    """Return the messages in a payload."""
    framing = options.get("framing", "none")
    if framing == "delimited":
        return (part for _, part in _parts(payload))
    return (payload[_header(payload) :] if framing == "confluent" else payload,)


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    """Return the number at index `at`, of at most 64 bits, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(payload):
            break
        byte = payload[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise within(DecodeError(BAD_FRAME, "a length or an index is cut off or too long"), (), at)


def _parts(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of a delimited payload, and where each begins."""
    at = 0
    while at < len(payload):
        length, start = _varint(payload, at)
        at = start + length
        if at > len(payload):
            left = len(payload) - start
            reason = f"a message of {length} bytes is announced, and {left} are left"
            raise within(DecodeError(BAD_FRAME, reason), (), start)
        yield start, payload[start:at]


_ID_BYTES: Final = 5
_MOST_INDEXES: Final = 100  # messages are not declared in each other deeper


def _header(payload: bytes) -> int:
    """Return the length of the header that Confluent's serializers write: 0, an id of four bytes, indexes of a type."""
    if len(payload) <= _ID_BYTES or payload[0] != 0:
        raise DecodeError(BAD_FRAME, "the payload does not begin with a zero byte, a schema id and message indexes")
    count, at = _varint(payload, _ID_BYTES)
    if count & 1 or count >> 1 > _MOST_INDEXES:  # a ZigZag number
        raise DecodeError(BAD_FRAME, "the number of message indexes is not plausible")
    for _ in range(count >> 1):
        _, at = _varint(payload, at)
    return at


def _as_varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def encode(value: JSON, options: Options) -> bytes:
    """Return `value` as a message, or a list as messages under `framing: delimited`.

    The schema id of a Confluent header is 0.  Raise RecordError for what the type cannot hold.
    """
    from iggyflux.payloads.protobuf.writing import encoded

    schema: Schema = options[COMPILED]
    framing = options.get("framing", "none")
    if framing == "delimited":
        if not isinstance(value, list):
            raise not_encodable("protobuf with `framing: delimited`", "a list", value)
        parts = [encoded(schema, each) for each in value]
        return b"".join(_as_varint(len(part)) + part for part in parts)
    message = encoded(schema, value)
    if framing == "none":
        return message
    indexes = schema.indexes()
    numbers = [len(indexes), *indexes] if indexes != [0] else [0]
    return bytes(_ID_BYTES) + b"".join(_as_varint(2 * number) for number in numbers) + message


FORMAT = Format(
    decode,
    encode,
    binary=True,
    decode_non_finite=partial(decode, non_finite=True),
    decode_typed=partial(decode, typed=True),
    check=check,
    bind=bind,
    prepare=prepare,
    undeclared=undeclared,
    undeclared_fields=undeclared_fields,
    structure=structure,
)
