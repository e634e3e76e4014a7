"""The points of the simulator: SQLite, in memory or in a file.

A point is identified by (policy, measurement, tags, time).  Writing it again merges its fields, newest value first, as
every InfluxDB does.  The dialects decide what may be written; the store only reads and writes rows.
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
"""The kinds of columns of 3.x, beside the types of fields."""

_KINDS: dict[str, type] = {"float": float, "integer": int, "unsigned": list, "string": bytes, "boolean": bool}
KIND_NAMES: dict[type, str] = {kind: name for name, kind in _KINDS.items()}
"""The names of field types in InfluxQL, by the class that represents them in the store."""

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


class StoredPoint(NamedTuple):
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
    """A measurement of a policy.

    `columns[shard][name]` is the class of a field's values (`TAG` for a tag, 3.x only); 3.x has one shard, 0.
    `poisoned` says that the measurement cannot be read any more.
    """

    id: int
    name: bytes
    policy: RetentionPolicy
    columns: dict[int, dict[bytes, type | str]] = field(default_factory=dict)
    series: dict[int, Series] = field(default_factory=dict)
    poisoned: bool = False

    def kinds(self, shards: range | None = None) -> dict[bytes, set[type]]:
        """Return all types that each field has in any shard, or in `shards`, which are those that a statement reads."""
        found: dict[bytes, set[type]] = {}
        for number, columns in list(self.columns.items()):
            if shards is not None and number and number not in shards:
                continue
            for name, kind in list(columns.items()):
                if isinstance(kind, type):
                    found.setdefault(name, set()).add(kind)
        return found

    def tag_keys(self) -> list[bytes]:
        """Return all tag keys, sorted."""
        keys = {key for series in list(self.series.values()) for key, _ in series.tags}
        tables = list(self.columns.get(0, {}).items())
        keys |= {name for name, kind in tables if kind is TAG}
        return sorted(keys)


@dataclass(slots=True)
class RetentionPolicy:
    """A retention policy (1.x), or that of a bucket (2.x) or database (3.x); `duration_ns` 0 is without limit."""

    id: int
    name: str
    database: Database
    duration_ns: int
    shard_ns: int
    measurements: dict[bytes, Measurement] = field(default_factory=dict)
    known: dict[object, Series] = field(default_factory=dict)
    """Series by their text in requests: a cache shared by all requests."""


@dataclass(slots=True)
class Database:
    """A database (1.x, 3.x) or bucket (2.x)."""

    id: int
    name: str
    default: str
    policies: dict[str, RetentionPolicy] = field(default_factory=dict)

    def policy(self, name: str | None = None) -> RetentionPolicy | None:
        """Return the policy of this name; the default one for None or the empty name."""
        return self.policies.get(name or self.default)


NARROWEST_SHARD_NS = 3_600 * 10**9
"""The minimum width of a shard group, whatever was requested."""


def shard_length(duration_ns: int) -> int:
    """Return the width of shard groups that a server uses for a retention."""
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
        self.databases: dict[str, Database] = {}
        try:
            self._open(path)
        except sqlite3.Error as error:
            raise ValueError(f"cannot use {path} as a file of the simulator: {error}") from error

    def _open(self, path: Path | None) -> None:
        self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")  # a commit survives a kill of the process
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.executescript(_TABLES)
            self._connection.create_function("merge", 2, self._merge, deterministic=True)
            self._load()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file; idempotent."""
        with self.lock:
            self._connection.close()

    def clear(self) -> None:
        """Delete every database."""
        with self.lock:
            for name in list(self.databases):
                self.drop_database(name)
            self.overwritten = self.written = 0

    # --- databases and schemas ---

    def create_database(
        self, name: str, *, policy: str = "autogen", duration_ns: int = 0, shard_ns: int | None = None
    ) -> Database:
        """Return the database of this name; make a missing one, with one policy."""
        with self.lock:
            if name in self.databases:
                return self.databases[name]
            sql = "INSERT INTO databases (name, default_policy) VALUES (?, ?)"
            database = Database(self._insert(sql, name, policy), name, policy)
            self.databases[name] = database
            self.create_policy(database, policy, duration_ns, shard_ns)
            return database

    def create_policy(
        self, database: Database, name: str, duration_ns: int, shard_ns: int | None = None
    ) -> RetentionPolicy:
        """Return the policy of this name; make a missing one."""
        with self.lock:
            if name in database.policies:
                return database.policies[name]
            shard = shard_ns or shard_length(duration_ns)
            sql = "INSERT INTO policies (database, name, duration, shard) VALUES (?, ?, ?, ?)"
            policy = RetentionPolicy(
                self._insert(sql, database.id, name, duration_ns, shard), name, database, duration_ns, shard
            )
            database.policies[name] = policy
            return policy

    def set_default_policy(self, database: Database, name: str) -> None:
        """Make a policy the default for requests that name none."""
        with self.lock:
            database.default = name
            self._connection.execute("UPDATE databases SET default_policy = ? WHERE id = ?", (name, database.id))

    def drop_database(self, name: str) -> None:
        """Delete a database with its content, if it exists."""
        with self.lock:
            database = self.databases.pop(name, None)
            if database is None:
                return
            for policy in list(database.policies.values()):
                self.drop_policy(database, policy.name)
            self._connection.execute("DELETE FROM databases WHERE id = ?", (database.id,))

    def drop_policy(self, database: Database, name: str) -> None:
        """Delete a policy with its content, if it exists."""
        with self.lock:
            policy = database.policies.pop(name, None)
            if policy is None:
                return
            for measurement in list(policy.measurements.values()):
                self.drop_measurement(measurement)
            self._connection.execute("DELETE FROM policies WHERE id = ?", (policy.id,))

    def drop_measurement(self, measurement: Measurement) -> None:
        """Delete a measurement: its points, its series, the types of its fields."""
        with self.lock:
            policy = measurement.policy
            policy.measurements.pop(measurement.name, None)
            policy.known = {
                key: series for key, series in policy.known.items() if series.measurement is not measurement
            }
            for table in ("points", "series", "columns"):
                self._connection.execute(f"DELETE FROM {table} WHERE measurement = ?", (measurement.id,))  # noqa: S608
            self._connection.execute("DELETE FROM measurements WHERE id = ?", (measurement.id,))

    def measurement(self, policy: RetentionPolicy, name: bytes) -> Measurement:
        """Return the measurement of this name; make a missing one."""
        found = policy.measurements.get(name)
        if found is None:
            with self.lock:
                sql = "INSERT INTO measurements (policy, name) VALUES (?, ?)"
                found = policy.measurements[name] = Measurement(self._insert(sql, policy.id, name), name, policy)
        return found

    def series(self, measurement: Measurement, key: bytes, tags: Tags, *, readable: bool = True) -> Series:
        """Return the series of this key; make a missing one.  `tags` must be sorted."""
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
        """Store points, in order; return their number."""
        encode = self._encode
        packed = [(series.measurement.id, time, series.id, encode(fields)) for series, time, fields in rows]
        with self.lock:
            self._connection.execute("BEGIN")
            self._connection.executemany(_INSERT, packed)
            self._connection.execute("COMMIT")
            self.written += len(packed)
        return len(packed)

    def count(self, policy: RetentionPolicy | None = None) -> int:
        """Return the number of stored points."""
        with self.lock:
            if policy is None:
                return int(self._connection.execute("SELECT count(*) FROM points").fetchone()[0])
            sql = "SELECT count(*) FROM points WHERE measurement IN (SELECT id FROM measurements WHERE policy = ?)"
            return int(self._connection.execute(sql, (policy.id,)).fetchone()[0])

    def scan(
        self, measurement: Measurement, start: int, stop: int, *, descending: bool = False
    ) -> Iterator[StoredPoint]:
        """Return points of `[start, stop)` in the order of their times, in pieces, so that writes can run meanwhile."""
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
        """Delete points by time and series."""
        with self.lock:
            sql = "DELETE FROM points WHERE measurement = ? AND time = ? AND series = ?"
            self._connection.executemany(sql, [(measurement.id, time, series.id) for time, series in points])

    # --- inside ---

    def _point(self, measurement: Measurement, time: int, series: int, fields: bytes) -> StoredPoint:
        return StoredPoint(time, measurement.series[series], self._decode(fields))

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
        policies: dict[int, RetentionPolicy] = {}
        for number, database, name, duration, shard in execute(
            "SELECT id, database, name, duration, shard FROM policies"
        ):
            policy = policies[number] = RetentionPolicy(number, name, databases[database], duration, shard)
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
