"""The plan of a reader document: rows to messages, one at a time.

Pure, like every plan: the same rows make the same messages, ids included, so that a repeated message is recognised by
its id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence

from iggyflux.errors import EvaluationError, RecordError
from iggyflux.expressions import Expression, static_path
from iggyflux.lineprotocol import MAX_UNSIGNED, MIN_INTEGER
from iggyflux.payloads import FORMATS, MAX_PAYLOAD_BYTES
from iggyflux.payloads.format import encode_utf8
from iggyflux.plan.digests import digest_of_many, digest_rows, id_salt
from iggyflux.records import JSON, Failure, OutgoingMessage, RenderedMessages, Row, Scalar
from iggyflux.spec import MessageSpec, Reader, Source
from iggyflux.values import OUT_OF_RANGE, WRONG_TYPE, describe, tag_text

TOO_LARGE = "IFX352"

_MAX_TEXT_BYTES = 255
"""The most bytes of a key, and of a header's value."""
_SURELY_SHORT = _MAX_TEXT_BYTES // 4
"""So many characters are never too many bytes."""


class ReferenceReaderPlan:
    """A reader document as a pure function from rows to messages; thread-safe, without state between calls.

    `whole_windows` says how rows may be passed.  If false, every message is made of one row, so the rows of a window
    can be rendered in chunks of any size, with the same result.  If true, a message is made of all rows of a series or
    of the window, so one call must get all rows of a window, and memory grows with the window.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.whole_windows = any(spec.for_each != "row" for spec in reader.messages)
        self._format = FORMATS[reader.target.payload]
        self.salts = [id_salt(reader.name, number) for number in range(len(reader.messages))]

    def render(self, rows: Sequence[Row], digests: Sequence[bytes] | None = None) -> RenderedMessages:
        """Return messages, origins and failures of `rows`, in the order of the rows, then of the items.

        `digests` are those of `digest_rows(rows)`, if the caller has them already.  A message of a series or of a
        window is made of the rows of this call; its origin is the first of them.  Never raises for what a row contains.
        """
        if digests is None:
            digests = digest_rows(rows)
        made: list[tuple[int, int, OutgoingMessage]] = []
        failures: list[Failure] = []
        for number, spec in enumerate(self.reader.messages):
            for indices, value in groups_of(self.reader, spec, rows):
                origin = indices[0]
                try:
                    message_id = self._id(number, [digests[index] for index in indices], spec)
                    group = [rows[index] for index in indices]
                    made.append((origin, number, self._message(spec, group, value, message_id)))
                except RecordError as error:
                    failures.append(
                        Failure(origin, None, number, error.code, error.location, error.reason, hint=error.hint)
                    )
        made.sort(key=lambda entry: entry[:2])
        failures.sort(key=lambda failure: (failure.index, failure.point or 0))
        return RenderedMessages([message for *_, message in made], [origin for origin, *_ in made], failures)

    def members(self, rows: Sequence[Row], rendered: RenderedMessages) -> list[Sequence[int]]:
        """Return the indices of the rows that each message of `rendered`, which was made of `rows`, was made of."""
        failed = {(failure.index, failure.point) for failure in rendered.failures}
        found = [
            (indices[0], number, indices)
            for number, spec in enumerate(self.reader.messages)
            for indices, _ in groups_of(self.reader, spec, rows)
            if (indices[0], number) not in failed
        ]
        return [indices for *_, indices in sorted(found, key=lambda entry: entry[:2])]

    def sends_rows_as_points(self, spec: MessageSpec) -> bool:
        """Return whether the payload is the row, or the rows, unchanged in line protocol."""
        is_whole = isinstance(spec.payload, Expression) and static_path(spec.payload) == ("@", ())
        return is_whole and self.reader.target.payload == "influx"

    def _message(self, spec: MessageSpec, rows: Sequence[Row], value: JSON, message_id: int) -> OutgoingMessage:
        pointer, row = spec.pointer, rows[0]
        payload = _evaluate(spec.payload, value, row, f"{pointer}/payload")
        try:
            if self.sends_rows_as_points(spec):
                payload = [point_of(self.reader, each) for each in rows]
            encoded = self._format.encode(payload, {})
            check_size(encoded)
        except RecordError as error:
            raise error.at(f"{pointer}/payload") from None
        headers = dict(_headers(spec, value, row))
        key = timestamp_ns = None
        if spec.key is not None:
            place = f"{pointer}/key"
            try:
                key = key_text(_evaluate(spec.key, value, row, place))
            except RecordError as error:
                raise error.at(place) from None
        if spec.timestamp is not None:
            place = f"{pointer}/timestamp"
            try:
                timestamp_ns = time_of(_evaluate(spec.timestamp, value, row, place))
            except RecordError as error:
                raise error.at(place) from None
        return OutgoingMessage(encoded, key, headers, timestamp_ns, message_id)

    def _id(self, number: int, digests: Sequence[bytes], spec: MessageSpec) -> int:
        """Return 128 bits of the mapping, the item and the content of the rows (see `digests`)."""
        digest = digests[0] if spec.for_each == "row" else digest_of_many(digests)
        return int.from_bytes(digest, "big") ^ self.salts[number]


def _evaluate(source: Source, value: JSON, row: Row, pointer: str) -> JSON:
    if not isinstance(source, Expression):
        return source.value
    try:
        return source.evaluate(value, row)
    except EvaluationError as error:
        raise error.at(pointer) from None


def _headers(spec: MessageSpec, value: JSON, row: Row) -> Iterator[tuple[str, Scalar]]:
    """Yield the headers that are not null."""
    for name, source in spec.headers:
        pointer = f"{spec.pointer}/headers/{name.replace('~', '~0').replace('/', '~1')}"
        try:
            found = header_scalar(_evaluate(source, value, row, pointer))
        except RecordError as error:
            raise error.at(pointer) from None
        if found is not None:
            yield name, found


def point_of(reader: Reader, row: Row) -> JSON:
    """Return a row as line protocol needs it; columns that are neither tags nor the time are fields."""
    time = reader.cursor.column
    tags = _tags_of(reader, row)
    texts: dict[str, JSON] = {name: tag_text(value) for name, value in row.columns.items() if name in tags}
    fields = {name: value for name, value in row.columns.items() if name not in tags and name != time}
    return {"measurement": row.measurement, "tags": texts, "fields": fields, "time": row.columns.get(time)}


def check_size(payload: bytes) -> None:
    """Raise RecordError unless Iggy accepts the payload: it has 1 byte to 64 MB."""
    if not 0 < len(payload) <= MAX_PAYLOAD_BYTES:
        hint = "use smaller windows, or one message per row" if payload else None
        reason = f"expected a payload of 1 to {MAX_PAYLOAD_BYTES} bytes, found {len(payload)}"
        raise RecordError(TOO_LARGE, reason, hint=hint)


def key_text(found: JSON) -> str | None:
    """Return the text of a key, as of a tag; None for null and the empty string."""
    if isinstance(found, (list, dict)):
        raise RecordError(WRONG_TYPE, f"expected a string, number or boolean as key, found {describe(found)}")
    text = tag_text(found)
    if text is not None and not (len(text) <= _SURELY_SHORT and text.isascii()):
        _check_text(text, "a key")
    return text


def header_scalar(found: JSON) -> Scalar | None:
    """Return what a header can hold; None for null and the empty string, which make no header."""
    if isinstance(found, (list, dict)):
        raise RecordError(WRONG_TYPE, f"expected a string, number or boolean as header, found {describe(found)}")
    if isinstance(found, str) and not (len(found) <= _SURELY_SHORT and found.isascii()):
        _check_text(found, "a header")
    if isinstance(found, float) and not math.isfinite(found):
        raise RecordError(OUT_OF_RANGE, f"expected a finite number as header, found {found!r}")
    if isinstance(found, int) and not MIN_INTEGER <= found <= MAX_UNSIGNED:
        raise RecordError(OUT_OF_RANGE, f"expected a header within int64 or uint64, found {describe(found)}")
    return None if found == "" else found


def time_of(found: JSON) -> int | None:
    """Return nanoseconds since the epoch, or None."""
    if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
        raise RecordError(WRONG_TYPE, f"expected an integer of nanoseconds as timestamp, found {describe(found)}")
    return found


def _check_text(text: str, what: str) -> None:
    size = len(encode_utf8(text, what))
    if size > _MAX_TEXT_BYTES:
        raise RecordError(TOO_LARGE, f"{what} has {size} bytes, more than {_MAX_TEXT_BYTES}")


# --- the rows that a message is made of: their indices, and `@` ---


def _rows(_reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[Sequence[int], JSON]]:
    for index, row in enumerate(rows):
        yield (index,), dict(row.columns)


def _series(reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[Sequence[int], JSON]]:
    """Yield the rows of one measurement with the same tags.

    Tags are the columns that the server names as tags; else those that the query names; else all columns of strings.
    """

    def series_of(row: Row) -> object:
        tags = _tags_of(reader, row)
        return (
            row.measurement,
            row.window,
            frozenset(
                (name, value)
                for name, value in row.columns.items()
                if name in tags and isinstance(value, (str, int, float))
            ),
        )

    return _grouped(rows, series_of)


def _tags_of(reader: Reader, row: Row) -> Container[str]:
    """Return the names of the tag columns."""
    if row.tags is not None:
        return row.tags
    if reader.source.tags:
        return reader.source.tags
    return {name for name, value in row.columns.items() if isinstance(value, str)}


def _window(_reader: Reader, rows: Sequence[Row]) -> Iterator[tuple[Sequence[int], JSON]]:
    return _grouped(rows, lambda row: row.window)


def _grouped(rows: Sequence[Row], key_of: Callable[[Row], object]) -> Iterator[tuple[Sequence[int], JSON]]:
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(key_of(row), []).append(index)
    for indices in groups.values():
        yield indices, [dict(rows[index].columns) for index in indices]


_GROUPS = {"row": _rows, "series": _series, "window": _window}


def groups_of(reader: Reader, spec: MessageSpec, rows: Sequence[Row]) -> Iterator[tuple[Sequence[int], JSON]]:
    """Yield, for each message that `spec` makes of `rows`, the indices of its rows and what its expressions see."""
    return _GROUPS[spec.for_each](reader, rows)
