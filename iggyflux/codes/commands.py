"""The command line, samples and examples (IFX5xx)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
    Code(
        "IFX500",
        "not an envelope",
        meaning="With --envelope every line is a JSON object with the payload and the coordinates of one message.",
        fix="Correct the line (`iggyflux log tail --envelope` shows such lines), or leave --envelope out.",
        example='{"payload": {"celsius": 21.5}, "ofset": 7}',
    ),
    Code(
        "IFX501",
        "binary payloads need envelopes",
        meaning="Payloads of this format are binary, and cannot be lines of a file.",
        fix='Give --envelope, and samples such as {"payload_base64": "gaFhAQ=="}.',
        example="iggyflux dry-run msgpack.yaml samples.ndjson",
    ),
    Code(
        "IFX502",
        "not a row",
        meaning="A sample of a reader is a row: an object of columns a line, or a line of a CSV with a header.",
        fix="Correct the line. `time` is an integer of nanoseconds, or RFC 3339.",
        example='{"time": 1.5, "device": "d1"}',
    ),
    Code(
        "IFX503",
        "sample too large",
        meaning="A line of samples, or the file that is one payload, has more than 96 MiB: no message is that large.",
        fix="Name a file of messages, one a line.",
        example="iggyflux dry-run mapping.yaml /dev/zero",
    ),
    Code(
        "IFX510",
        "other lines than the example says",
        meaning="A line of `points` is missing, differs, or was not expected. Lines are compared byte for byte.",
        fix="Correct the mapping; or, where what comes out is what you want, the example.",
        example="points: ['env temperature=21 0'] where temperature=21.0 comes out",
    ),
    Code(
        "IFX511",
        "a record of an example fails",
        meaning="The example expects no failure, and a record of its message fails.",
        fix="Correct the mapping or the message; or say `fails: CODE` where the failure is what you want.",
    ),
    Code(
        "IFX512",
        "other failures than the example says",
        meaning="`fails` names the codes of the records that fail, in order; what came is another list of codes.",
        fix="Correct the mapping, or the list.",
        example="fails: IFX340 for a message that fails with IFX345",
    ),
    Code(
        "IFX513",
        "the message of an example is not skipped",
        meaning="The example says `skipped: true`, but `where` is true for its message.",
        fix="Correct `where`, or say which `points` come of the message.",
    ),
    Code(
        "IFX514",
        "the message of an example has no bytes",
        meaning="The payload format cannot write the tree that `message` holds, or `payload_base64` is not base64.",
        fix="Correct the message, or give its bytes in `payload_base64`.",
        example="payload: csv and message: {a: 1}",
    ),
    Code(
        "IFX520",
        "neither mapping nor pipeline",
        meaning="The document has no key by which mappings (`kind`, `from`, `points`) or pipelines (`run`) are known.",
        fix="Correct the keys, or leave the file out.",
        example="iggyflux validate docker-compose.yaml",
    ),
    Code(
        "IFX521",
        "file not readable",
        meaning="The file may not be read, or is gone.",
        fix="Correct its permissions.",
    ),
    Code(
        "IFX530",
        "no message can be made up",
        meaning="`log generate` found no message that the mapping takes without a failure.",
        fix="Add an example with `points` to the document: messages are then made like its own.",
        example="payload: {format: text, pattern: …} without examples",
    ),
)
