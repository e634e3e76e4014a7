"""How InfluxDB 1.x and 2.x store the points of one request: shard by shard, and the first failure is reported.

Types of fields are known by shard.  A point beyond retention is dropped only if no other point opened its shard group.
The number of dropped points in a response is that of one shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from iggyflux.sim.classic import go_quote, kind_of, read_series
from iggyflux.sim.plain import BrokenValue, Fields, Parsed, RawFields, TwoTypes
from iggyflux.sim.store import DAY_NS, KIND_NAMES, Measurement, RetentionPolicy, Series, Store

ZERO_TIME_NS = 719_162 * DAY_NS
"""From the year 1, to which shard groups are aligned, to 1970."""
MAX_STRING = 1_048_576


@dataclass(frozen=True, slots=True)
class StoreRules:
    """The differences between versions.

    `immediate`: a new field has its type from its first point on (2.x); else from the end of the batch, where a
    contradiction fails the whole shard (1.x).  `quoted`: names in messages are written as Go's %q.
    `says_stripped`: the server reports a field `time` beside others (2.9).
    """

    immediate: bool
    quoted: bool
    says_stripped: bool = False
    max_string: int | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """Some points of a shard were dropped, the others are stored.  `located`: the message names database and policy."""

    reason: str
    dropped: int
    located: bool = False

    def __str__(self) -> str:
        return f"partial write: {self.reason} dropped={self.dropped}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """New fields of one batch have contradicting types: nothing of the shard is stored."""

    def __str__(self) -> str:
        return "field type conflict"


@dataclass(frozen=True, slots=True)
class EngineFailure:
    """The storage engine failed on a value: nothing of the shard is stored."""

    reason: str

    def __str__(self) -> str:
        return f"engine: {self.reason}"


ShardFailure: TypeAlias = Partial | Conflict | EngineFailure


@dataclass(frozen=True, slots=True)
class Outcome:
    """The number of stored points, the failure that the server reports, and the points beyond retention."""

    stored: int
    trouble: ShardFailure | None = None
    beyond: tuple[tuple[bytes, int], ...] = ()


@dataclass(slots=True)
class _Shard:
    rows: list[tuple[Series, int, Fields]] = field(default_factory=list)
    new: list[tuple[Measurement, bytes, type]] = field(default_factory=list)
    reason: str = ""
    dropped: int = 0
    stripped: str = ""
    broken: str | None = None
    trouble: ShardFailure | None = None


def write(store: Store, policy: RetentionPolicy, points: Sequence[Parsed], rules: StoreRules, now_ns: int) -> Outcome:
    """Store the points that the server would store, with times in nanoseconds; return what it would report."""
    with store.lock:
        return _write(store, policy, points, rules, now_ns)


def _write(store: Store, policy: RetentionPolicy, points: Sequence[Parsed], rules: StoreRules, now_ns: int) -> Outcome:
    width = policy.shard_ns
    opened = None
    if policy.duration_ns:
        cutoff = now_ns - policy.duration_ns
        opened = {(time + ZERO_TIME_NS) // width for _, _, time in points if time is not None and time >= cutoff}
    shards: dict[int, _Shard] = {}
    beyond: list[tuple[bytes, int]] = []
    known = policy.known
    for key, fields, time in points:
        assert time is not None  # noqa: S101 (the dialect has filled it in)
        number = (time + ZERO_TIME_NS) // width
        if opened is not None and number not in opened:
            beyond.append((key, time))
            continue
        shard = shards.get(number)
        if shard is None:
            shard = shards[number] = _Shard()
        series = known.get(key)
        if series is None:
            series = _new_series(store, policy, key, shard, in_memory=not rules.immediate)
            if series is None:
                continue
        columns = series.measurement.columns.get(number)
        if columns is not None:
            for name, value in fields.items():
                if columns.get(name) is not type(value):
                    break
            else:
                if len(fields) > 0 and b"time" not in fields:
                    shard.rows.append((series, time, fields))  # type: ignore[arg-type]  # types of columns are plain
                    continue
        _take(store, shard, number, series, time, fields, rules)
    stored = [row for shard in shards.values() for row in _settle(store, shard, shards, rules)]
    store.write(stored)
    trouble = next((shard.trouble for shard in shards.values() if shard.trouble is not None), None)
    return Outcome(len(stored), trouble, tuple(beyond))


def _new_series(store: Store, policy: RetentionPolicy, key: bytes, shard: _Shard, *, in_memory: bool) -> Series | None:
    read = read_series(key, in_memory=in_memory)
    if any(name == b"time" for name, _ in read.tags):
        _drop(shard, f'invalid tag key: input tag "time" on measurement "{_text(read.measurement)}" is invalid')
        return None
    measurement = store.measurement(policy, read.measurement)
    return store.series(measurement, key, read.tags, readable=read.readable)


def _take(
    store: Store, shard: _Shard, number: int, series: Series, time: int, fields: RawFields, rules: StoreRules
) -> None:
    """Check one point against the types of its shard, with all reasons: the slow path."""
    measurement = series.measurement
    name = _text(measurement.name)
    if b"time" in fields:
        fields = {key: value for key, value in fields.items() if key != b"time"}
        if not fields:
            _drop(shard, f'invalid field name: input field "time" on measurement "{name}" is invalid')
            return
        if rules.says_stripped:
            shard.stripped = (
                f'invalid field name: input field "time" on measurement "{name}" is invalid. '
                'Field "time" has been stripped from point.'
            )
    columns = measurement.columns.get(number, {})
    new: list[tuple[Measurement, bytes, type]] = []
    for key, value in fields.items():
        if rules.max_string and isinstance(value, bytes) and len(value) > rules.max_string:
            words = f"is too long, {len(value)} > {rules.max_string}"
            _drop(shard, f"input field {go_quote(key)} on measurement {go_quote(measurement.name)} {words}")
            return
        kinds = (value.first, value.second) if isinstance(value, TwoTypes) else (kind_of(value),)
        for kind in kinds:
            before = columns.get(key)
            if before is None:
                new.append((measurement, key, kind))
                if rules.immediate:
                    store.add_column(measurement, number, key, kind)
                    columns = measurement.columns[number]
            elif before is not kind:
                _drop(shard, _conflict(key, measurement, kind, before, rules))  # type: ignore[arg-type]
                return
    shard.new.extend(new)
    shard.rows.append((series, time, fields))  # type: ignore[arg-type]  # what is broken is not stored
    shard.broken = shard.broken or next(
        (value.reason for value in fields.values() if isinstance(value, BrokenValue)), None
    )


def _settle(
    store: Store, shard: _Shard, shards: dict[int, _Shard], rules: StoreRules
) -> list[tuple[Series, int, Fields]]:
    """Return the rows of a shard that are stored, and record its failure."""
    if shard.dropped:
        shard.trouble = Partial(shard.reason, shard.dropped)
    elif shard.stripped:
        shard.trouble = Partial(shard.stripped, 0, located=True)
    if not rules.immediate:
        number = next(key for key, value in shards.items() if value is shard)
        for measurement, key, kind in shard.new:
            before = measurement.columns.get(number, {}).get(key)
            if before is None:
                store.add_column(measurement, number, key, kind)
            elif before is not kind:
                shard.trouble = Conflict()
                return []
    if shard.broken is not None:
        shard.trouble = EngineFailure(shard.broken)
        return []
    return shard.rows


def _drop(shard: _Shard, reason: str) -> None:
    shard.dropped += 1
    shard.reason = shard.reason or reason


def _conflict(key: bytes, measurement: Measurement, new: type, old: type, rules: StoreRules) -> str:
    quote = go_quote if rules.quoted else _plain_quote
    return (
        f"field type conflict: input field {quote(key)} on measurement {quote(measurement.name)} "
        f"is type {KIND_NAMES[new]}, already exists as type {KIND_NAMES[old]}"
    )


def _plain_quote(text: bytes) -> str:
    return f'"{_text(text)}"'


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
