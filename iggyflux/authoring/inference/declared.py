"""Samples in a format that the user declares, as `from.payload` of a mapping: no bytes say which schema they have."""

from __future__ import annotations

from collections.abc import Sequence

from iggyflux.authoring.declarations import declared_payload
from iggyflux.authoring.inference.recognition import UNKNOWN, Recognized, compressed, decoded
from iggyflux.authoring.samples import Coordinates, SampleError, read_samples
from iggyflux.documents import parse_document
from iggyflux.errors import DecodeError
from iggyflux.payloads import FORMATS, is_wide
from iggyflux.payloads.compression import recognized
from iggyflux.payloads.recognition import explained
from iggyflux.records import JSON


class Declared:
    """A format with its options; `file` is the path of the mapping, beside which files of schemas are."""

    def __init__(self, text: str, file: str) -> None:
        """Raise DocumentError unless `text` is a valid `from.payload`."""
        self._written: JSON = parse_document(text, format="yaml").tree
        self._file = file
        self._payload = declared_payload(self._written, file)

    def file(self, data: bytes, *, whole: bool) -> Recognized:
        """Return the payloads of a file: one if the format is binary.  Raise SampleError."""
        if whole or FORMATS[self._payload.format].binary or is_wide(self._payload.options):
            return self.payloads([data])
        form = self._payload.format
        read = [
            (sample.line, sample.message.payload)
            for sample in read_samples(data.splitlines(True), Coordinates(), form=form, options=self._payload.options)
        ]
        return self.payloads([payload for _, payload in read], [line for line, _ in read])

    def payloads(self, payloads: Sequence[bytes], lines: Sequence[int] = ()) -> Recognized:
        """Return payloads with their values, expanded if they are not of the format as they are.

        Raise SampleError with the first that is not of it.
        """
        numbers = list(lines) or list(range(1, len(payloads) + 1))
        try:
            return self._plain(payloads, numbers)
        except SampleError:
            ways = [recognized(payload) for payload in payloads]
            if set(ways) == {"none"}:
                raise
        return compressed(payloads, numbers, ways, self._plain)

    def _plain(self, payloads: Sequence[bytes], numbers: Sequence[int]) -> Recognized:
        form, options = self._payload.format, self._payload.options
        values = []
        for number, payload in zip(numbers, payloads, strict=True):
            try:
                values.append(decoded(form, payload, options))
            except DecodeError as error:
                told = explained(error, payload, form)
                raise SampleError(UNKNOWN, told.reason, number, told.hint or "correct --payload") from None
        written = self._written if isinstance(self._written, dict) else {}
        trees, has_non_finite = [tree for tree, _ in values], any(has for _, has in values)
        how = f"{form}, as --payload says{'; it has NaN or Infinity' * has_non_finite}"
        kept = {key: value for key, value in written.items() if key != "format"}
        return Recognized(
            form, list(payloads), trees, list(numbers), how, kept, has_non_finite=has_non_finite, file=self._file
        )
