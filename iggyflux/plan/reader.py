"""The plan of a reader document: rows to messages, one at a time.

Pure, like every plan: the same rows make the same messages, ids included, so that what is read again can be told from
what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from iggyflux.errors import EvaluationError, RecordError
from iggyflux.expressions import Expression
from iggyflux.mapping import Mapping, MessageSpec, Reader, Source
from iggyflux.payloads import FORMATS
from iggyflux.plan.digests import digest_of_many, digest_rows, id_salt
from iggyflux.records import JSON, Failure, OutgoingMessage, RenderedMessages, Row, Scalar
from iggyflux.values import WRONG_TYPE, describe, tag_text


class ReaderPlan:
    """A reader document as a pure function from rows to messages.  Thread-safe: holds no state between calls.

    `whole_windows` says how rows may be handed over.  False: every message is made of one row, so the rows of a window
    can be rendered in chunks, in any sizes, with the same result.  True: a message is made of all rows of a series or
    of the window, so all rows of a window that are to be published must be in one call: memory grows with the window.
    """

    def __init__(self, mapping: Mapping) -> None:
        if mapping.reader is None:
            raise TypeError(f"{mapping.name} is a writer; a reader plan needs a reader document")
        self.mapping = mapping
        self.reader: Reader = mapping.reader
        self.whole_windows = any(spec.for_each != "row" for spec in mapping.reader.messages)
        self._format = FORMATS[mapping.reader.target.payload]
        self._salts = [id_salt(mapping.name, number) for number in range(len(mapping.reader.messages))]

    def render(self, rows: Sequence[Row], digests: Sequence[bytes] | None = None) -> RenderedMessages:
        """Messages, origins and failures of `rows`: by item of `messages` within a row, in the order of the rows.

        `digests` are those that `digest_rows` gives for `rows`, where the caller has them already.  A message of a
        series or of a window is made of the rows of this call; its origin is the first of them.  Never raises for
        what a row holds.
        """
        if digests is None:
            digests = digest_rows(rows)
        made: list[tuple[int, int, OutgoingMessage]] = []
        failures: list[Failure] = []
        for number, spec in enumerate(self.reader.messages):
            for indices, value in _GROUPS[spec.for_each](self.reader, rows):
                origin = indices[0]
                try:
                    message_id = self._id(number, [digests[index] for index in indices], spec)
                    made.append((origin, number, self._message(spec, rows[origin], value, message_id)))
                except RecordError as error:
                    failures.append(Failure(origin, None, number, error.code, error.location, error.reason))
        made.sort(key=lambda entry: entry[:2])
        failures.sort(key=lambda failure: (failure.index, failure.point or 0))
        return RenderedMessages([message for *_, message in made], [origin for origin, *_ in made], failures)

    def _message(self, spec: MessageSpec, row: Row, value: JSON, message_id: int) -> OutgoingMessage:
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
        return OutgoingMessage(encoded, key, headers, timestamp_ns, message_id)

    def _id(self, number: int, digests: Sequence[bytes], spec: MessageSpec) -> int:
        """128 bits of the mapping, the item and what the rows hold (see `digests`)."""
        digest = digests[0] if spec.for_each == "row" else digest_of_many(digests)
        return int.from_bytes(digest, "big") ^ self._salts[number]


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


# --- what a message is made of: the indices of its rows, and what `@` is ---


def _rows(_reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[Sequence[int], JSON]]:
    for index, row in enumerate(rows):
        yield (index,), dict(row.columns)


def _series(reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[Sequence[int], JSON]]:
    """Rows of one measurement and the same tags: the columns that the server tells to be tags.

    Where it does not tell, the tags that the query names, and where it names none all columns of text.
    """
    named = frozenset(reader.source.tags) or None

    def series_of(row: Row) -> object:
        tags = named if row.tags is None else row.tags
        return (
            row.measurement,
            row.window,
            frozenset(
                (name, value)
                for name, value in row.columns.items()
                if (isinstance(value, str) if tags is None else name in tags and isinstance(value, (str, int, float)))
            ),
        )

    return _grouped(rows, series_of)


def _window(_reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[Sequence[int], JSON]]:
    return _grouped(rows, lambda row: row.window)


def _grouped(rows: Sequence[Row], key_of: Callable[[Row], object]) -> Iterator[tuple[Sequence[int], JSON]]:
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(key_of(row), []).append(index)
    for indices in groups.values():
        yield indices, [dict(rows[index].columns) for index in indices]


_GROUPS = {"row": _rows, "series": _series, "window": _window}
