"""Requests to a server without iggyflux, and typed points from it: by InfluxQL, SQL or VictoriaMetrics' export."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import urlencode

from iggyflux.lineprotocol import FieldValue, Point, Unsigned

if TYPE_CHECKING:
    from tests.servers.products import Server

Key: TypeAlias = tuple[tuple[tuple[str, str], ...], int]
Stored: TypeAlias = dict[Key, dict[str, FieldValue]]
"""The points of a measurement by tags and nanoseconds."""
_TYPES: Mapping[str, type] = {"float": float, "integer": int, "unsigned": Unsigned, "string": str, "boolean": bool}
_READS = itertools.count()
_TYPES_3: Mapping[str, type] = {"Float64": float, "Int64": int, "UInt64": Unsigned, "Utf8": str, "Boolean": bool}


class Reply(NamedTuple):
    status: int
    body: bytes

    @property
    def tree(self) -> Any:
        return json.loads(self.body)


def ask(server: Server, method: str, target: str, body: object = None) -> Reply:
    """Send one request, with the credentials of the tests and without a proxy."""
    headers = dict(server.headers)
    if more := headers.pop("X-Query", ""):
        target += ("&" if "?" in target else "?") + more
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    if data is not None and not isinstance(body, bytes):
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(server.url + target, data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return Reply(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read())


def write_line(server: Server, line: str) -> Reply:
    """Write a line, with its time in nanoseconds, into the default database of a 1.x or 2.x."""
    names = ("org", "bucket") if server.flavor == "v2" else ("database",)
    given = {"db" if name == "database" else name: server.given[name] for name in names}
    return ask(
        server, "POST", ("/api/v2/write?" if server.flavor == "v2" else "/write?") + urlencode(given), line.encode()
    )


def influxql(server: Server, statement: str, **more: str) -> list[dict[str, Any]]:
    """Return the series of a statement."""
    method = "GET" if statement.startswith(("SELECT", "SHOW")) else "POST"
    reply = ask(server, method, "/query?" + urlencode({"q": statement, **more}))
    assert reply.status == 200, reply
    (result,) = reply.tree["results"]
    assert "error" not in result, result
    return list(result.get("series", []))


def read(server: Server, measurement: str, database: str | None = None) -> Stored:
    """Return every point of a measurement."""
    reader = {"v3": _read_3, "victoriametrics": _read_metrics}.get(server.flavor, _read_influxql)
    return reader(server, measurement, database or server.database)


def as_stored(server: Server, points: list[Point]) -> Stored:
    """Return what must be read after `points` are written: without what the product cannot store."""
    found: Stored = {}
    for point in points:
        assert point.timestamp_ns is not None
        kept = dict(point.fields)
        if "types" in server.lacks:
            kept = {key: 0.0 if isinstance(value, str) else float(value) for key, value in kept.items()}
        time = point.timestamp_ns // 10**6 * 10**6 if "nanoseconds" in server.lacks else point.timestamp_ns
        found.setdefault((tuple(sorted(point.tags.items())), time), {}).update(kept)
    return found


def _read_influxql(server: Server, measurement: str, database: str) -> Stored:
    name = measurement.replace("\\", "\\\\").replace('"', '\\"')
    types: dict[str, type] = {}
    for series in influxql(server, f'SHOW FIELD KEYS FROM "{name}"', db=database):
        types |= {key: _TYPES[word] for key, word in series["values"]}
    found: Stored = {}
    for series in influxql(server, f'SELECT *::field FROM "{name}" GROUP BY *', db=database, epoch="ns"):
        tags = tuple(sorted((key, value) for key, value in series.get("tags", {}).items() if value != ""))
        for row in series["values"]:
            fields = dict(zip(series["columns"], row, strict=True))
            time = fields.pop("time")
            found[tags, time] = {key: types[key](value) for key, value in fields.items() if value is not None}
    return found


def _read_3(server: Server, measurement: str, database: str) -> Stored:
    columns = _sql(
        server,
        database,
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '"
        + measurement.replace("'", "''")
        + "'",
    )
    if not columns:
        return {}
    types = {row["column_name"]: _TYPES_3.get(row["data_type"]) for row in columns}
    table, names = _quoted(measurement), ",".join(_quoted(name) for name in types if name != "time")
    found: Stored = {}
    span = f'"time" >= to_timestamp_nanos({-(2**63) + 2}) AND "time" < to_timestamp_nanos({2**63 - 1})'
    statement = f'SELECT cast("time" AS bigint) AS "time",{names} FROM {table} WHERE {span} ORDER BY "time"'
    for row in _sql(server, database, statement):
        time = row.pop("time")
        tags = tuple(sorted((key, value) for key, value in row.items() if types[key] is None))
        fields = {key: kind(value) for key, value in row.items() if (kind := types[key]) is not None}
        found[tags, time] = fields
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sql(server: Server, database: str, statement: str) -> list[dict[str, Any]]:
    reply = ask(server, "POST", "/api/v3/query_sql", {"db": database, "q": statement, "format": "jsonl"})
    if reply.status == 404:  # a database is made by its first write
        return []
    assert reply.status == 200, reply
    return [
        {key: value for key, value in json.loads(line).items() if value is not None} for line in reply.body.splitlines()
    ]


def _read_metrics(server: Server, measurement: str, database: str) -> Stored:
    ask(server, "GET", "/internal/force_flush")
    # What matches a filter is cached for seconds, also after this: the same filter misses new series.
    matching = f'{{__name__!="",read_{next(_READS)}!="x"}}'
    reply = ask(server, "GET", "/api/v1/export?" + urlencode({"match[]": matching}))
    assert reply.status == 200, reply
    found: Stored = {}
    for line in reply.body.splitlines():
        series = json.loads(line)
        name = series["metric"].pop("__name__")
        tags = tuple(sorted((key, value) for key, value in series["metric"].items() if key != "db"))
        if name.startswith(f"{measurement}_"):
            for value, time in zip(series["values"], series["timestamps"], strict=True):
                found.setdefault((tags, time * 10**6), {})[name.removeprefix(f"{measurement}_")] = float(value)
    return found
