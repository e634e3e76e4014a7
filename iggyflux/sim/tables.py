"""How InfluxDB 3 stores the lines of one request: each against the one schema of its table, which has no shards.

The type of a column never changes.  A rejected line has already made the columns before its fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from iggyflux.sim.modern import Line, NumberedRejection, Plain, SentSeries, cut, format_line, read_series
from iggyflux.sim.plain import Fields, Value
from iggyflux.sim.store import TAG, TIME, Measurement, RetentionPolicy, Series, Store

MAX_COLUMNS, MAX_TAGS = 500, 250
RESERVED = (b"time", b"__chunk_order")
TYPE_NAMES: dict[type | str, str] = {
    float: "iox::column_type::field::float",
    int: "iox::column_type::field::integer",
    list: "iox::column_type::field::uinteger",
    bytes: "iox::column_type::field::string",
    bool: "iox::column_type::field::boolean",
    TAG: "iox::column_type::tag",
    TIME: "iox::column_type::timestamp",
}
_GUESSES = ((5, 10**9), (5_000, 10**6), (5_000_000, 10**3))


@dataclass(slots=True)
class _Batch:
    """The changes of a request; nothing is changed before it is certain that all may be."""

    store: Store
    policy: RetentionPolicy
    columns: dict[bytes, dict[bytes, type | str]] = field(default_factory=dict)
    rows: list[tuple[Series, int, Fields]] = field(default_factory=list)
    poisoned: set[bytes] = field(default_factory=set)


class LineRejected(Exception):
    """Why the schema rejects a line."""


def write(
    store: Store,
    policy: RetentionPolicy,
    lines: Sequence[Plain | Line],
    unit: int | None,
    now_ns: int,
    *,
    partial: bool,
) -> tuple[int, list[NumberedRejection]]:
    """Store the lines that the server would store; return their number, and the lines that the schema rejects.

    `unit` None guesses the precision of each time.  Without `partial` one rejected line rejects all.
    """
    with store.lock:
        if not partial and (refused := check(store, policy, lines, unit, now_ns)):
            return 0, refused
        batch = _Batch(store, policy)
        bad: list[NumberedRejection] = []
        for line in lines:
            number, series, time = line[0], line[1], line[3]
            try:
                _take(batch, series, line[2], time, unit, now_ns)
            except LineRejected as reason:
                bad.append(_bad(number, reason, line))
        _commit(batch)
        return store.write(batch.rows), bad


def check(
    store: Store, policy: RetentionPolicy, lines: Sequence[Plain | Line], unit: int | None, now_ns: int
) -> list[NumberedRejection]:
    """Return the first line that the schema would reject, if any; nothing is changed."""
    with store.lock:
        batch = _Batch(store, policy)
        for line in lines:
            try:
                if _known(policy, line[1], line[2]) is not None:
                    _nanoseconds(line[3], unit, now_ns)
                    continue
                series = line[1] if isinstance(line[1], SentSeries) else read_series(line[1])
                _check(batch, series, list(line[2].items()) if isinstance(line[2], dict) else line[2])
                _nanoseconds(line[3], unit, now_ns)
            except LineRejected as reason:
                return [_bad(line[0], reason, line)]
        return []


def _bad(number: int, reason: LineRejected, line: Plain | Line) -> NumberedRejection:
    series = line[1] if isinstance(line[1], SentSeries) else read_series(line[1])
    fields = list(line[2].items()) if isinstance(line[2], dict) else line[2]
    return NumberedRejection(number, str(reason), cut(format_line(series, fields, line[3])))


def _take(
    batch: _Batch,
    key: bytes | SentSeries,
    fields: Fields | list[tuple[bytes, Value]],
    time: int | None,
    unit: int | None,
    now_ns: int,
) -> None:
    known = _known(batch.policy, key, fields)
    if known is not None:
        assert isinstance(fields, dict)  # noqa: S101 (only plain lines are known)
        batch.rows.append((known, _nanoseconds(time, unit, now_ns), fields))
        return
    series = key if isinstance(key, SentSeries) else read_series(key)
    pairs = list(fields.items()) if isinstance(fields, dict) else fields
    _check(batch, series, pairs)
    at = _nanoseconds(time, unit, now_ns)
    batch.rows.append((_stored_series(batch, key, series), at, dict(pairs)))


def _known(
    policy: RetentionPolicy, key: bytes | SentSeries, fields: Fields | list[tuple[bytes, Value]]
) -> Series | None:
    """Return the series of a line without new tags, fields or types."""
    known = policy.known.get(key)
    if known is None or not isinstance(fields, dict):
        return None
    columns = known.measurement.columns.get(0)
    if columns is None:
        return None
    for name, value in fields.items():
        if columns.get(name) is not type(value):
            return None
    return known


def _check(batch: _Batch, series: SentSeries, fields: list[tuple[bytes, Value]]) -> None:
    """Make the columns of a line, one after another, up to its fault."""
    table = series.measurement
    if table not in batch.columns:
        present = batch.policy.measurements.get(table)
        batch.columns[table] = dict(present.columns.get(0, {})) if present is not None else {}
    columns = batch.columns[table]
    for name, _ in series.tags:
        _make(columns, name, TAG)
    if len({name for name, _ in series.tags}) != len(series.tags):
        batch.poisoned.add(table)
    seen = set()
    for name, value in fields:
        _make(columns, name, type(value))
        if name in seen:
            raise LineRejected(f"invalid line protocol - multiple instances of '{_text(name)}' field found")
        seen.add(name)
    columns.setdefault(b"time", TIME)


def _make(columns: dict[bytes, type | str], name: bytes, kind: type | str) -> None:
    before = columns.get(name)
    if before is kind:
        return
    text = _text(name)
    if before is not None:
        names = f"expected {TYPE_NAMES[before]}, got {TYPE_NAMES[kind]}"
        raise LineRejected(f"invalid column type for column '{text}', {names}")
    if any(character < " " or "\x7f" <= character < "\xa0" for character in text):
        word = "tag" if kind is TAG else "field"
        raise LineRejected(f"invalid configuration provided: {word} key cannot contain control characters")
    if kind is TAG and sum(each is TAG for each in columns.values()) >= MAX_TAGS:
        raise LineRejected(f"Update to schema would exceed number of tag columns per table limit of {MAX_TAGS} columns")
    if len(columns) >= MAX_COLUMNS:
        raise LineRejected(f"Update to schema would exceed number of columns per table limit of {MAX_COLUMNS} columns")
    if name in RESERVED:
        raise LineRejected(f"'{text}' is a reserved column")
    columns[name] = kind


def _nanoseconds(time: int | None, unit: int | None, now_ns: int) -> int:
    if time is None:
        return now_ns if unit is None else now_ns // unit * unit
    scale = _guess(time) if unit is None else unit
    found = time * scale
    if not -(2**63) <= found < 2**63:
        names = {None: "Auto", 1: "Nanosecond", 10**3: "Microsecond", 10**6: "Millisecond", 10**9: "Second"}
        raise LineRejected(f"timestamp, {time}, out of range for precision: {names[unit]}")
    return found


def _guess(time: int) -> int:
    size = abs(time) // 10**9
    return next((unit for limit, unit in _GUESSES if size < limit), 1)


def _stored_series(batch: _Batch, key: bytes | SentSeries, series: SentSeries) -> Series:
    measurement = batch.store.measurement(batch.policy, series.measurement)
    tags = tuple(sorted(dict(series.tags).items()))
    name = b"\x00".join((series.measurement, *(b"\x01".join(tag) for tag in tags)))
    stored = batch.store.series(measurement, name, tags)
    batch.policy.known[key] = stored
    return stored


def _commit(batch: _Batch) -> None:
    for table, columns in batch.columns.items():
        measurement: Measurement = batch.store.measurement(batch.policy, table)
        present = measurement.columns.setdefault(0, {})
        for name, kind in columns.items():
            if name not in present:
                batch.store.add_column(measurement, 0, name, kind)
        if table in batch.poisoned:
            batch.store.poison(measurement)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
