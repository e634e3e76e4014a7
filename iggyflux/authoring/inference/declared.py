"""Samples in a format that the user declares, as `from.payload` of a mapping: no bytes say which schema they have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from iggyflux.authoring.inference.recognition import UNKNOWN, Recognized
from iggyflux.authoring.samples import Coordinates, SampleError, read_samples
from iggyflux.documents import parse_document
from iggyflux.errors import DecodeError, DocumentError, Location, MappingError
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.payloads import FORMATS
from iggyflux.payloads.recognition import explained
from iggyflux.records import JSON
from iggyflux.spec import Payload

_REST: Final = {
    "points": {"measurement": {"const": "m"}, "fields": {"x": {"const": 1}}, "timestamp": {"spread": "offset"}}
}


class Declared:
    """A format with its options, `payload`; `file` is the path of the mapping, beside which files of schemas are."""

    def __init__(self, text: str, file: str) -> None:
        """Raise DocumentError unless `text` is a valid `from.payload`."""
        self._written: JSON = parse_document(text, format="yaml").tree
        self._file = file
        self.payload = self._read()

    def _read(self) -> Payload:
        source = {"stream": "s", "topic": "t", "payload": self._written}
        document = {"iggyflux": 1, "kind": "writer", "name": "declared", "from": source, **_REST}
        try:
            mapping = parse_mapping(json.dumps(document), format="yaml", file=self._file)
        except MappingError as error:
            place = Location("--payload")
            wrong = [each for each in error.problems if each.severity == "error"]
            raise DocumentError([replace(each, location=place) for each in wrong]) from None
        assert isinstance(mapping, WriterMapping)  # noqa: S101  (its kind is written)
        return mapping.writer.source.payload

    def file(self, data: bytes, *, whole: bool) -> Recognized:
        """Return the payloads of a file: one if the format is binary.  Raise SampleError."""
        if whole or FORMATS[self.payload.format].binary:
            return self.payloads([data])
        form = self.payload.format
        read = [
            (sample.line, sample.message.payload)
            for sample in read_samples(data.splitlines(True), Coordinates(), form=form)
        ]
        return self.payloads([payload for _, payload in read], [line for line, _ in read])

    def payloads(self, payloads: Sequence[bytes], lines: Sequence[int] = ()) -> Recognized:
        """Return payloads with their values.  Raise SampleError with the first that is not of the format."""
        form, options = self.payload.format, self.payload.options
        numbers = list(lines) or list(range(1, len(payloads) + 1))
        trees = []
        for number, payload in zip(numbers, payloads, strict=True):
            try:
                trees.append(FORMATS[form].decode(payload, options, None, False))
            except DecodeError as error:
                told = explained(error, payload, form)
                raise SampleError(UNKNOWN, told.reason, number, told.hint or "correct --payload") from None
        written = self._written if isinstance(self._written, dict) else {}
        how = f"{form}, as --payload says"
        kept = {key: value for key, value in written.items() if key != "format"}
        return Recognized(form, list(payloads), trees, numbers, how, kept, file=self._file)
