"""The plan of a reader document: rows to messages, one at a time.

Pure, like every plan: the same rows make the same messages, ids included, so that what is read again can be told from
what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from iggyflux.errors import EvaluationError, RecordError
from iggyflux.expressions import Expression
from iggyflux.mapping import Mapping, MessageSpec, Reader, Source
from iggyflux.payloads import FORMATS
from iggyflux.records import JSON, Failure, OutgoingMessage, RenderedMessages, Row, Scalar
from iggyflux.values import WRONG_TYPE, describe, tag_text

_encoder = msgspec.json.Encoder(order="sorted")


class ReaderPlan:
    """A reader document as a pure function from rows to messages.  Thread-safe: holds no state between calls."""

    def __init__(self, mapping: Mapping) -> None:
        if mapping.reader is None:
            raise TypeError(f"{mapping.name} is a writer; a reader plan needs a reader document")
        self.mapping = mapping
        self.reader: Reader = mapping.reader
        self._format = FORMATS[mapping.reader.target.payload]

    def render(self, rows: Sequence[Row]) -> RenderedMessages:
        """Messages, origins and failures of `rows`: by item of `messages` within a row, in the order of the rows.

        A message of a series or of a window is made of the rows of this call; its origin is the first of them.  Never
        raises for what a row holds.
        """
        made: list[tuple[int, int, OutgoingMessage]] = []
        failures: list[Failure] = []
        for number, spec in enumerate(self.reader.messages):
            for origin, row, value in _GROUPS[spec.for_each](self.reader, rows):
                try:
                    made.append((origin, number, self._message(spec, number, row, value)))
                except RecordError as error:
                    failures.append(Failure(origin, None, number, error.code, error.location, error.reason))
        made.sort(key=lambda entry: entry[:2])
        failures.sort(key=lambda failure: (failure.index, failure.point or 0))
        return RenderedMessages([message for *_, message in made], [origin for origin, *_ in made], failures)

    def _message(self, spec: MessageSpec, number: int, row: Row, value: JSON) -> OutgoingMessage:
        pointer = spec.pointer
        payload = _evaluate(spec.payload, value, row, f"{pointer}/payload")
        try:
            encoded = self._format.encode(payload, {})
        except RecordError as error:
            raise error.at(f"{pointer}/payload") from None
        headers = dict(_headers(spec, value, row))
        key = None if spec.key is None else _text(spec.key, value, row, f"{pointer}/key")
        timestamp_ns = None
        if spec.timestamp is not None:
            timestamp_ns = _time(_evaluate(spec.timestamp, value, row, f"{pointer}/timestamp"), f"{pointer}/timestamp")
        return OutgoingMessage(encoded, key, headers, timestamp_ns, self._id(number, row, value))

    def _id(self, number: int, row: Row, value: JSON) -> int:
        """128 bits of what the message is made of: the mapping, the item, the measurement, the values."""
        digest = blake2b(_encoder.encode([self.mapping.name, number, row.measurement, value]), digest_size=16)
        return int.from_bytes(digest.digest(), "big")


def _evaluate(source: Source, value: JSON, row: Row, pointer: str) -> JSON:
    if not isinstance(source, Expression):
        return source.value
    try:
        return source.evaluate(value, row)
    except EvaluationError as error:
        raise error.at(pointer) from None


def _text(source: Source, value: JSON, row: Row, pointer: str) -> str | None:
    try:
        return tag_text(_evaluate(source, value, row, pointer))
    except RecordError as error:
        raise RecordError(error.code, error.reason.replace("a tag is", "a key is"), error.location or pointer) from None


def _headers(spec: MessageSpec, value: JSON, row: Row) -> Iterator[tuple[str, Scalar]]:
    """The headers that are not null."""
    for name, source in spec.headers:
        pointer = f"{spec.pointer}/headers/{name.replace('~', '~0').replace('/', '~1')}"
        found = _evaluate(source, value, row, pointer)
        if isinstance(found, (list, dict)):
            raise RecordError(WRONG_TYPE, f"a header is a string, number or boolean, got {describe(found)}", pointer)
        if found is not None:
            yield name, found


def _time(found: JSON, pointer: str) -> int | None:
    if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
        raise RecordError(WRONG_TYPE, f"a timestamp is an integer of nanoseconds, got {describe(found)}", pointer)
    return found


# --- what a message is made of ---


def _rows(_reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[int, Row, JSON]]:
    for index, row in enumerate(rows):
        yield index, row, dict(row.columns)


def _series(reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[int, Row, JSON]]:
    """Rows of one measurement and the same tags: those that the query names, else all columns of text."""
    tags = reader.source.tags

    def series_of(row: Row) -> object:
        return (
            row.measurement,
            row.window,
            frozenset(
                (name, value)
                for name, value in row.columns.items()
                if (name in tags if tags else isinstance(value, str)) and isinstance(value, (str, int, float))
            ),
        )

    return _grouped(rows, series_of)


def _window(_reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[int, Row, JSON]]:
    return _grouped(rows, lambda row: row.window)


def _grouped(rows: Sequence[Row], key_of: Callable[[Row], object]) -> Iterator[tuple[int, Row, JSON]]:
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(key_of(row), []).append(index)
    for indices in groups.values():
        yield indices[0], rows[indices[0]], [dict(rows[index].columns) for index in indices]


_GROUPS = {"row": _rows, "series": _series, "window": _window}
