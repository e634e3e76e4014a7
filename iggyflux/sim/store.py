"""Where the simulator keeps points: SQLite, in memory or in a file.

A point is known by (policy, measurement, tags, time); writing it again merges its fields, newest value first, as every
InfluxDB does.  What may be written is decided by the dialects; the store takes rows and gives rows.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from iggyflux.sim.plain import Fields, Value

DAY_NS = 86_400 * 10**9
WEEK_NS = 7 * DAY_NS
TAG = "tag"
TIME = "time"
"""What columns of 3.x are, beside the types of fields."""

_KINDS: dict[str, type] = {"float": float, "integer": int, "unsigned": list, "string": bytes, "boolean": bool}
KIND_NAMES: dict[type, str] = {kind: name for name, kind in _KINDS.items()}
"""The names of field types in InfluxQL, by the class that stands for them in the store."""

_TABLES = """
CREATE TABLE IF NOT EXISTS databases (id INTEGER PRIMARY KEY, name TEXT UNIQUE, default_policy TEXT);
CREATE TABLE IF NOT EXISTS policies (
  id INTEGER PRIMARY KEY, database INTEGER, name TEXT, duration INTEGER, shard INTEGER, UNIQUE (database, name));
CREATE TABLE IF NOT EXISTS measurements (id INTEGER PRIMARY KEY, policy INTEGER, name BLOB, poisoned INTEGER DEFAULT 0,
  UNIQUE (policy, name));
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, measurement INTEGER, key BLOB, tags BLOB, readable INTEGER,
  UNIQUE (measurement, key));
CREATE TABLE IF NOT EXISTS columns (measurement INTEGER, shard INTEGER, name BLOB, kind TEXT,
  PRIMARY KEY (measurement, shard, name));
CREATE TABLE IF NOT EXISTS points (measurement INTEGER, time INTEGER, series INTEGER, fields BLOB,
  PRIMARY KEY (measurement, time, series)) WITHOUT ROWID;
"""
_INSERT = """
INSERT INTO points VALUES (?, ?, ?, ?)
ON CONFLICT (measurement, time, series) DO UPDATE SET fields = merge(fields, excluded.fields)
"""

Tags = tuple[tuple[bytes, bytes], ...]


class Point(NamedTuple):
    """A stored point."""

    time: int
    series: Series
    fields: Fields


@dataclass(slots=True)
class Series:
    """A measurement with one tag set, tags sorted by key."""

    id: int
    measurement: Measurement
    tags: Tags
    readable: bool = True


@dataclass(slots=True)
class Measurement:
    """A measurement of a policy.  `columns[shard][name]` is the class of a field's values (`TAG` for a tag, 3.x only);
    3.x knows one shard, 0.  `poisoned` is the reason why it cannot be read any more."""

    id: int
    name: bytes
    policy: Policy
    columns: dict[int, dict[bytes, type | str]] = field(default_factory=dict)
    series: dict[int, Series] = field(default_factory=dict)
    poisoned: bool = False

    def kinds(self, shards: range | None = None) -> dict[bytes, set[type]]:
        """All types that each field has in any shard, or in those of `shards`: a statement sees no others."""
        found: dict[bytes, set[type]] = {}
        for number, columns in list(self.columns.items()):
            if shards is not None and number and number not in shards:
                continue
            for name, kind in list(columns.items()):
                if isinstance(kind, type):
                    found.setdefault(name, set()).add(kind)
        return found

    def tag_keys(self) -> list[bytes]:
        """All tag keys, sorted."""
        keys = {key for series in list(self.series.values()) for key, _ in series.tags}
        tables = list(self.columns.get(0, {}).items())
        keys |= {name for name, kind in tables if kind is TAG}
        return sorted(keys)


@dataclass(slots=True)
class Policy:
    """A retention policy (1.x), the one policy of a bucket (2.x) or database (3.x); `duration_ns` 0 keeps for ever."""

    id: int
    name: str
    database: Database
    duration_ns: int
    shard_ns: int
    measurements: dict[bytes, Measurement] = field(default_factory=dict)
    known: dict[object, Series] = field(default_factory=dict)
    """Series by the text under which a request named them: a cache, shared by all requests."""


@dataclass(slots=True)
class Database:
    """A database (1.x, 3.x) or bucket (2.x)."""

    id: int
    name: str
    default: str
    policies: dict[str, Policy] = field(default_factory=dict)

    def policy(self, name: str | None = None) -> Policy | None:
        """The policy of this name, the default one for None or the empty name."""
        return self.policies.get(name or self.default)


NARROWEST_SHARD_NS = 3_600 * 10**9
"""No shard group is narrower, whatever was asked for."""


def shard_length(duration_ns: int) -> int:
    """The width of a shard group that a server takes for a retention."""
    if duration_ns == 0 or duration_ns > 180 * DAY_NS:
        return WEEK_NS
    return DAY_NS if duration_ns >= 2 * DAY_NS else NARROWEST_SHARD_NS


class Store:
    """All databases of a simulator.  Every method may be called from any thread."""

    def __init__(self, path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.overwritten = 0
        self.written = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode
        self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")  # what was committed outlives a kill of the process
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_TABLES)
        self._connection.create_function("merge", 2, self._merge, deterministic=True)
        self.databases: dict[str, Database] = {}
        self._load()

    def close(self) -> None:
        """Let go of the file; idempotent."""
        with self.lock:
            self._connection.close()

    def clear(self) -> None:
        """Forget every database."""
        with self.lock:
            for name in list(self.databases):
                self.drop_database(name)
            self.overwritten = self.written = 0

    # --- databases and schemas ---

    def create_database(
        self, name: str, *, policy: str = "autogen", duration_ns: int = 0, shard_ns: int | None = None
    ) -> Database:
        """The database of this name, made with one policy where it is missing."""
        with self.lock:
            if name in self.databases:
                return self.databases[name]
            sql = "INSERT INTO databases (name, default_policy) VALUES (?, ?)"
            database = Database(self._insert(sql, name, policy), name, policy)
            self.databases[name] = database
            self.create_policy(database, policy, duration_ns, shard_ns)
            return database

    def create_policy(self, database: Database, name: str, duration_ns: int, shard_ns: int | None = None) -> Policy:
        """The policy of this name, made where it is missing."""
        with self.lock:
            if name in database.policies:
                return database.policies[name]
            shard = shard_ns or shard_length(duration_ns)
            sql = "INSERT INTO policies (database, name, duration, shard) VALUES (?, ?, ?, ?)"
            policy = Policy(
                self._insert(sql, database.id, name, duration_ns, shard), name, database, duration_ns, shard
            )
            database.policies[name] = policy
            return policy

    def set_default_policy(self, database: Database, name: str) -> None:
        """Make a policy the one that requests without a name mean."""
        with self.lock:
            database.default = name
            self._connection.execute("UPDATE databases SET default_policy = ? WHERE id = ?", (name, database.id))

    def drop_database(self, name: str) -> None:
        """Forget a database with everything in it; nothing happens where there is none."""
        with self.lock:
            database = self.databases.pop(name, None)
            if database is None:
                return
            for policy in list(database.policies.values()):
                self.drop_policy(database, policy.name)
            self._connection.execute("DELETE FROM databases WHERE id = ?", (database.id,))

    def drop_policy(self, database: Database, name: str) -> None:
        """Forget a policy with everything in it; nothing happens where there is none."""
        with self.lock:
            policy = database.policies.pop(name, None)
            if policy is None:
                return
            for measurement in list(policy.measurements.values()):
                self.drop_measurement(measurement)
            self._connection.execute("DELETE FROM policies WHERE id = ?", (policy.id,))

    def drop_measurement(self, measurement: Measurement) -> None:
        """Forget a measurement: its points, its series, the types of its fields."""
        with self.lock:
            policy = measurement.policy
            policy.measurements.pop(measurement.name, None)
            policy.known = {
                key: series for key, series in policy.known.items() if series.measurement is not measurement
            }
            for table in ("points", "series", "columns"):
                self._connection.execute(f"DELETE FROM {table} WHERE measurement = ?", (measurement.id,))  # noqa: S608
            self._connection.execute("DELETE FROM measurements WHERE id = ?", (measurement.id,))

    def measurement(self, policy: Policy, name: bytes) -> Measurement:
        """The measurement of this name, made where it is missing."""
        found = policy.measurements.get(name)
        if found is None:
            with self.lock:
                sql = "INSERT INTO measurements (policy, name) VALUES (?, ?)"
                found = policy.measurements[name] = Measurement(self._insert(sql, policy.id, name), name, policy)
        return found

    def series(self, measurement: Measurement, key: bytes, tags: Tags, *, readable: bool = True) -> Series:
        """The series of this key, made where it is missing; `tags` must be sorted."""
        found = measurement.policy.known.get(key)
        if found is None:
            with self.lock:
                sql = "INSERT INTO series (measurement, key, tags, readable) VALUES (?, ?, ?, ?)"
                number = self._insert(sql, measurement.id, key, self._encode(tags), readable)
                found = Series(number, measurement, tags, readable)
                measurement.policy.known[key] = found
                measurement.series[number] = found
        return found

    def add_column(self, measurement: Measurement, shard: int, name: bytes, kind: type | str) -> None:
        """Fix the type of a field in a shard."""
        with self.lock:
            measurement.columns.setdefault(shard, {})[name] = kind
            text = KIND_NAMES[kind] if isinstance(kind, type) else kind
            sql = "INSERT OR REPLACE INTO columns VALUES (?, ?, ?, ?)"
            self._connection.execute(sql, (measurement.id, shard, name, text))

    def poison(self, measurement: Measurement) -> None:
        """Make every later query of the measurement fail."""
        with self.lock:
            measurement.poisoned = True
            self._connection.execute("UPDATE measurements SET poisoned = 1 WHERE id = ?", (measurement.id,))

    # --- points ---

    def write(self, rows: Iterable[tuple[Series, int, Fields]]) -> int:
        """Store points, in order; returns how many came."""
        encode = self._encode
        packed = [(series.measurement.id, time, series.id, encode(fields)) for series, time, fields in rows]
        with self.lock:
            self._connection.execute("BEGIN")
            self._connection.executemany(_INSERT, packed)
            self._connection.execute("COMMIT")
            self.written += len(packed)
        return len(packed)

    def count(self, policy: Policy | None = None) -> int:
        """The number of points that are stored."""
        with self.lock:
            if policy is None:
                return int(self._connection.execute("SELECT count(*) FROM points").fetchone()[0])
            sql = "SELECT count(*) FROM points WHERE measurement IN (SELECT id FROM measurements WHERE policy = ?)"
            return int(self._connection.execute(sql, (policy.id,)).fetchone()[0])

    def scan(self, measurement: Measurement, start: int, stop: int, *, descending: bool = False) -> Iterator[Point]:
        """Points of `[start, stop)` in the order of their times, in pieces, so that writes go on meanwhile."""
        order = "DESC" if descending else "ASC"
        beyond = "<" if descending else ">"
        sql = (
            "SELECT time, series, fields FROM points WHERE measurement = ? AND time >= ? AND time < ?"  # noqa: S608
            f" AND (time, series) {beyond} (?, ?) ORDER BY time {order}, series {order} LIMIT 5000"
        )
        last = (2**63 - 1, 2**63 - 1) if descending else (-(2**63), -(2**63))
        low, high = max(start, -(2**63)), min(stop, 2**63 - 1)
        while True:
            with self.lock:
                rows = self._connection.execute(sql, (measurement.id, low, high, *last)).fetchall()
            yield from (self._point(measurement, *row) for row in rows)
            if len(rows) < 5000:
                return
            last = rows[-1][:2]

    def delete(self, measurement: Measurement, points: Iterable[tuple[int, Series]]) -> None:
        """Remove points by time and series."""
        with self.lock:
            sql = "DELETE FROM points WHERE measurement = ? AND time = ? AND series = ?"
            self._connection.executemany(sql, [(measurement.id, time, series.id) for time, series in points])

    # --- inside ---

    def _point(self, measurement: Measurement, time: int, series: int, fields: bytes) -> Point:
        return Point(time, measurement.series[series], self._decode(fields))

    def _merge(self, old: bytes, new: bytes) -> bytes:
        self.overwritten += 1
        if old == new:
            return old
        merged: dict[bytes, Value] = self._decode(old)
        merged.update(self._decode(new))
        return self._encode(merged)

    def _insert(self, sql: str, *values: object) -> int:
        return self._connection.execute(sql, values).lastrowid or 0

    def _load(self) -> None:
        """Read the schemas of a file that an earlier simulator left."""
        execute = self._connection.execute
        databases: dict[int, Database] = {}
        for number, name, default in execute("SELECT id, name, default_policy FROM databases"):
            databases[number] = self.databases[name] = Database(number, name, default)
        policies: dict[int, Policy] = {}
        for number, database, name, duration, shard in execute(
            "SELECT id, database, name, duration, shard FROM policies"
        ):
            policy = policies[number] = Policy(number, name, databases[database], duration, shard)
            databases[database].policies[name] = policy
        measurements: dict[int, Measurement] = {}
        for number, owner, key, poisoned in execute("SELECT id, policy, name, poisoned FROM measurements"):
            measurement = Measurement(number, key, policies[owner], poisoned=bool(poisoned))
            measurements[number] = policies[owner].measurements[key] = measurement
        for number, shard, name, kind in execute("SELECT measurement, shard, name, kind FROM columns"):
            measurements[number].columns.setdefault(shard, {})[name] = _KINDS.get(kind, TIME if kind == TIME else TAG)
        for number, owner, key, tags, readable in execute("SELECT id, measurement, key, tags, readable FROM series"):
            measurement = measurements[owner]
            pairs = tuple((name, value) for name, value in self._decode(tags))
            series = Series(number, measurement, pairs, bool(readable))
            measurement.series[number] = measurement.policy.known[key] = series
