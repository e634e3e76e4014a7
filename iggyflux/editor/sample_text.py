"""Samples as text for a mapping: messages for a writer, rows for a reader, each with its line.

The document says what a line is.  Only where it has errors, a writer of the same payload format takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from itertools import islice
from typing import Final, Literal, TypeAlias

from iggyflux.authoring.samples import (
    NEEDS_ENVELOPE,
    Coordinates,
    Sample,
    SampleError,
    SampleFile,
    SampleRow,
    read_rows,
    samples_for,
)
from iggyflux.documents import Format, read_document
from iggyflux.editor.evidence import MOST_SAMPLES, Samples
from iggyflux.errors import DocumentError
from iggyflux.mapping import ReaderMapping, WriterMapping, compile_document
from iggyflux.payloads import FORMATS, OptionError, text_encoding

LinedSamples: TypeAlias = Sequence[Sample] | Sequence[SampleRow]

_PAYLOAD: Final = re.compile(
    rf"(?:payload|format)[\"']?[ \t]*[:=][ \t]*(?:\{{[ \t]*format[ \t]*[:=][ \t]*)?[\"']?({'|'.join(FORMATS)})\b"
)
_STAND_IN: Final = (
    "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t, payload: %s}\npoints: {measurement: {const: m}}\n"
)


def read_for(
    mapping: WriterMapping | ReaderMapping,
    lines: SampleFile,
    *,
    envelope: bool = False,
    whole: bool = False,
    rows: Literal["csv", "jsonl"] = "jsonl",
) -> LinedSamples:
    """Return the first samples for a mapping.

    `envelope`: lines are messages with coordinates.  `whole`: the text is one payload.  `rows` is the form of a
    reader's rows.  Raise SampleError if they cannot be read.
    """
    if isinstance(mapping, ReaderMapping):
        measurement = mapping.reader.source.measurement or ""
        return list(islice(read_rows(lines, form=rows, measurement=measurement), MOST_SAMPLES))
    source = mapping.writer.source
    coordinates = Coordinates.of(source)
    found = samples_for(lines, source.payload, coordinates, envelope=envelope, whole=whole)
    return list(islice(found, MOST_SAMPLES))


def read_pasted(mapping: WriterMapping | ReaderMapping, text: str) -> LinedSamples:
    """Return the first samples in a text without a name.

    Messages with coordinates are recognized.  A table (CSV without the option `header`, annotated CSV of Flux) is one
    payload, else a line of text is one.  Raise SampleError if they cannot be read.
    """
    data = text.encode("utf-8", "replace")
    if not data.strip():
        return []
    envelope = begins_with_message(data)
    if isinstance(mapping, ReaderMapping):
        return read_for(mapping, _file(data), rows="jsonl" if data.lstrip()[:1] in (b"{", b"") else "csv")
    payload = mapping.writer.source.payload
    is_compressed = payload.compression not in ("none", "auto")
    if not envelope and (is_compressed or FORMATS[payload.format].binary):
        hint = 'give messages with coordinates, one a line, such as {"payload_base64": "…"}'
        what = payload.compression if is_compressed else payload.format
        raise SampleError(NEEDS_ENVELOPE, f"{what} payloads are binary, and not lines of text", 0, hint)
    if not envelope:
        data = text.encode(text_encoding(payload.options), "replace")
    has_header = payload.format == "csv" and "header" not in payload.options
    return read_for(mapping, _file(data), envelope=envelope, whole=has_header and not envelope)


def _file(data: bytes) -> SampleFile:
    return SampleFile(BytesIO(data))


def plain(samples: LinedSamples) -> Samples:
    """Return the messages or rows of samples."""
    rows = [sample.row for sample in samples if isinstance(sample, SampleRow)]
    return rows or [sample.message for sample in samples if isinstance(sample, Sample)]


def mapping_or_stand_in(text: str, *, format: Format) -> WriterMapping | ReaderMapping:  # noqa: A002
    """Return the mapping in `text`; if it has errors, a writer of the same payload format."""
    try:
        return compile_document(read_document(text, format=format))
    except DocumentError:
        return stand_in(text)


def stand_in(text: str) -> WriterMapping | ReaderMapping:
    """Return a writer of the payload format that `text` seems to have; of another binary one if that needs a schema."""
    found = _PAYLOAD.search(text)
    form = found[1] if found else "json"
    try:
        FORMATS[form].check({})
    except OptionError:
        form = "cbor"
    return compile_document(read_document(_STAND_IN % form, format="yaml"))


def begins_with_message(data: bytes) -> bool:
    """Return whether a text begins with a message with coordinates, by the rule of `--envelope auto`."""
    return SampleFile(BytesIO(data.lstrip())).begins_with_message()
