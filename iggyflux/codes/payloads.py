"""Payloads that do not decode (IFX4xx)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
    Code(
        "IFX401",
        "payload too large",
        meaning=(
            "A payload has more than 64,000,000 bytes. Of a longer line of a file or stdin the dead letter keeps the "
            "first 64,000,001; the event `files.line_too_long` says which line it is."
        ),
        fix="Split it where it is produced.",
    ),
    Code(
        "IFX402",
        "not UTF-8",
        meaning="A payload, or a string in it, is not valid UTF-8.",
        fix=("Correct the producer's encoding. Bytes that are no text belong in a `raw`, `msgpack` or `cbor` payload."),
        example="a JSON payload in Latin-1",
    ),
    Code(
        "IFX403",
        "nested too deeply",
        meaning="Lists and objects of a payload are nested more than 128 deep.",
        fix="Correct the producer: no measurement needs this.",
        example="[[[[…]]]]",
    ),
    Code(
        "IFX404",
        "not of the format",
        meaning=(
            "The payload is not what `from.payload` says: it is cut off, empty, followed by something else, "
            "or of another format."
        ),
        fix="Look at the payload (dead letters hold it), then correct the producer or `payload`.",
        example='{"a": 1',
    ),
    Code(
        "IFX405",
        "duplicate key",
        meaning=(
            "The mapping says `strict: true`, and an object of the payload has two equal keys. In a CSV header, two "
            "columns that are read have one name."
        ),
        fix="Correct the producer, or omit `strict`: then the last key wins.",
        example='{"a": 1, "a": 2}',
    ),
    Code(
        "IFX406",
        "number out of range",
        meaning=(
            "A number that the mapping reads is beyond the largest float, has thousands of digits, or is NaN "
            "or an infinity (msgpack, cbor)."
        ),
        fix="Send null, or leave the value out.",
        example='{"a": 1e400}',
    ),
    Code(
        "IFX407",
        "key that is not a string",
        meaning="An object of a msgpack or cbor payload has a key that is neither a string nor an integer.",
        fix="Use strings as keys.",
        example='{1.5: "a"} in msgpack',
    ),
    Code(
        "IFX408",
        "type without a JSON form",
        meaning=(
            "The mapping reads an extension type, a tag or `undefined` of a msgpack or cbor payload, or an object with "
            "bytes as a key. MessagePack's timestamp and CBOR's tags 0, 1, 4 and 1001 have a JSON form."
        ),
        fix="Send such values as strings or numbers: times as integers, for one.",
        example="a CBOR bignum (tag 2)",
    ),
    Code(
        "IFX410",
        "not a table",
        meaning=(
            "A row of a csv payload has more or fewer cells than there are columns, the first row with the "
            "names is missing, or a quote stands where none can be."
        ),
        fix="Correct the producer, or the options `header`, `delimiter` and `quote`.",
        example="the header a,b and the row 1,2,3",
    ),
    Code(
        "IFX411",
        "pattern not found",
        meaning="The `pattern` of a text payload is not found in it.",
        fix="Correct the pattern; make parts that may be missing optional.",
        example='pattern: "^(?P<level>[A-Z]+) " and "hello"',
    ),
    Code(
        "IFX420",
        "value that the format cannot hold",
        meaning=(
            "A reader's payload is of a kind that the format of `to.payload` does not have: a list in csv, "
            "NaN in json, a number in text."
        ),
        fix="Shape the value with the expression, or take another format.",
        example='payload: csv and {"a": [1]}',
    ),
)
