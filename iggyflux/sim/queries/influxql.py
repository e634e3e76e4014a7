"""InfluxQL: statements that read a store, list its schema, create and drop databases, and delete points.

`influxql_rows` and `influxql_aggregates` answer SELECT, `influxql_schema` answers SHOW.
"""

from __future__ import annotations

from collections.abc import Iterator

from iggyflux.sim.queries import QueryError
from iggyflux.sim.queries.influxql_conditions import compile_condition, split_time
from iggyflux.sim.queries.influxql_rows import database_of, find_measurements, run_select
from iggyflux.sim.queries.influxql_schema import POLICY_COLUMNS, run_show
from iggyflux.sim.queries.influxql_statements import ChangeStatement, Frame, Select, Show, Statement, parse
from iggyflux.sim.queries.points import look_up, tag_names
from iggyflux.sim.store import NARROWEST_SHARD_NS, Measurement, Store, StoredPoint

__all__ = ["POLICY_COLUMNS", "ChangeStatement", "Frame", "Select", "Show", "Statement", "parse", "run"]


def run(store: Store, statement: Statement, database: str, policy: str = "") -> Iterator[Frame]:
    """Return the result of a statement, series by series.  Raise `QueryError`, before the first frame if possible."""
    if isinstance(statement, Select):
        return run_select(store, statement, database, policy)
    if isinstance(statement, Show):
        return iter(run_show(store, statement, database))
    _change(store, statement, database)
    return iter(())


def _change(store: Store, change: ChangeStatement, database: str) -> None:
    shard_ns = change.shard_ns and max(change.shard_ns, NARROWEST_SHARD_NS)
    if change.what == "CREATE DATABASE":
        policy, duration_ns = change.policy or "autogen", change.duration_ns or 0
        store.create_database(change.name, policy=policy, duration_ns=duration_ns, shard_ns=shard_ns)
    elif change.what == "CREATE RETENTION POLICY":
        owner = database_of(store, change.database or "")
        if change.duration_ns is not None and 0 < change.duration_ns < NARROWEST_SHARD_NS:
            raise QueryError("retention policy duration must be at least 1h0m0s")
        store.create_policy(owner, change.name, change.duration_ns or 0, shard_ns)
        if change.is_default:
            store.set_default_policy(owner, change.name)
    elif change.what == "DROP DATABASE":
        store.drop_database(change.name)
    else:
        for each in database_of(store, database).policies.values():
            for measurement in find_measurements(each, change.source):
                _delete(store, measurement, change)


def _delete(store: Store, measurement: Measurement, change: ChangeStatement) -> None:
    """Delete the points of a span in the series that meet the condition."""
    start, stop, rest = split_time(change.condition)
    is_wanted = compile_condition(rest, tag_names(measurement))
    chosen = {each.id for each in measurement.series.values() if is_wanted(look_up(StoredPoint(0, each, {})))}
    found = [point for point in store.scan(measurement, start, stop) if point.series.id in chosen]
    store.delete(measurement, [(point.time, point.series) for point in found])
