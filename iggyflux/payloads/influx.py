"""influx: a payload in line protocol, as a list of rows `{measurement, tags, fields, time}`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from iggyflux.errors import DecodeError, LineProtocolError, PartlyDecoded
from iggyflux.lineprotocol import Dialect, FieldValue, Point, Precision, Unsigned, parse_line, split_lines
from iggyflux.payloads.format import MALFORMED, Format, Options, decode_utf8, not_encodable
from iggyflux.reads import Reads
from iggyflux.records import JSON


def decode(
    payload: bytes,
    options: Options,
    reads: Reads | None = None,  # noqa: ARG001
    strict: bool = False,  # noqa: ARG001
    *,
    typed: bool = False,
) -> JSON:
    """Return a row for each line; `time` is in nanoseconds, or null if the line has none.

    Byte order marks before lines and carriage returns after them are ignored.  If `typed`, unsigned integers are
    `Unsigned`.  Raise PartlyDecoded for invalid lines.
    """
    text = decode_utf8(payload)
    dialect, precision = _dialect(options), _precision(options)
    rows: list[JSON] = []
    errors: list[DecodeError] = []
    for number, line in _written(text):
        try:
            rows.append(_row(parse_line(line, dialect, precision, line=number), typed))
        except LineProtocolError as exc:
            errors.append(DecodeError(MALFORMED, f"not line protocol: {exc}"))
    if errors:
        raise PartlyDecoded(rows, errors)
    return rows


def row_lines(payload: bytes, options: Options) -> list[int]:
    """Return the line of the payload at which each row begins that `decode` returns."""
    dialect, precision = _dialect(options), _precision(options)
    numbers: list[int] = []
    for number, line in _written(decode_utf8(payload)):
        with suppress(LineProtocolError):
            parse_line(line, dialect, precision)
            numbers.append(number)
    return numbers


def _written(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of points with their numbers."""
    for number, line in split_lines(text):
        written = line.lstrip("\ufeff").removesuffix("\r")
        if written.lstrip(" ") and not written.lstrip(" ").startswith("#"):
            yield number, written


def encode(value: JSON, options: Options | None = None) -> bytes:
    """Return a line for each row, or for the one row `value`; integers are written as `1i`."""
    options = options or {}
    rows = value if isinstance(value, list) else [value]
    lines = [_point(row).encode(_dialect(options), _precision(options)) for row in rows]
    return "\n".join(lines).encode()


def _row(point: Point, typed: bool) -> JSON:
    fields: dict[str, JSON] = {
        key: int(value) if type(value) is Unsigned and not typed else value for key, value in point.fields.items()
    }
    return {
        "measurement": point.measurement,
        "tags": dict(point.tags),
        "fields": fields,
        "time": point.timestamp_ns,
    }


def _point(row: JSON) -> Point:
    expected = "a row {measurement, tags, fields, time}"
    if not isinstance(row, dict) or not {"measurement", "fields"} <= row.keys() <= _ROW_KEYS:
        raise not_encodable("influx", expected, row)
    measurement, tags, fields, time = (row.get(key) for key in ("measurement", "tags", "fields", "time"))
    if not isinstance(measurement, str) or not isinstance(fields, dict):
        raise not_encodable("influx", expected, row)
    if not isinstance(tags, dict | None) or not (time is None or type(time) is int):
        raise not_encodable("influx", expected, row)
    texts: dict[str, str] = {}
    values: dict[str, FieldValue] = {}
    for key, text in (tags or {}).items():
        if text is not None and not isinstance(text, str):
            raise not_encodable("influx", "strings as tags", text)
        if text:
            texts[key] = text
    for key, field in fields.items():
        if isinstance(field, list | dict):
            raise not_encodable("influx", "scalars as fields", field)
        if field is not None:
            values[key] = field
    return Point(measurement, texts, values, time)


_ROW_KEYS = {"measurement", "tags", "fields", "time"}


def _dialect(options: Options) -> Dialect:
    return Dialect(options.get("dialect", "v2"))


def _precision(options: Options) -> Precision:
    return Precision(options.get("precision", "ns"))


FORMAT = Format(decode, encode, decode_typed=partial(decode, typed=True), row_lines=row_lines)
