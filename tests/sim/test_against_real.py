"""The same requests to real servers and the simulator: where they differ, the simulator is wrong.

InfluxDB 1.x runs as a process where `influxd` is found; IGGYFLUX_TEST_INFLUXDB2=URL,ORG,BUCKET,TOKEN and
IGGYFLUX_TEST_INFLUXDB3=URL,DB,TOKEN name a 2.x and a 3.x.
Statuses, headers, bodies of writes, and what every query then reads, must be equal byte for byte.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import pytest
from required_servers import not_found

from iggyflux.sim import SimServer
from tests.iggy_server import free_ports
from tests.sim.client import Reply, call

WEEK = 7 * 86_400 * 10**9
START = 1_600_000_000 * 10**9
NAMES = [
    "a\\b",
    "a\\\\b",
    "a\\,b",
    "a\\ b",
    "a\\=b",
    'a"b',
    'a\\"b',
    "#m",
    "\\#m",
    "a=b",
    "ü",
    "a\tb",
    "a\\",
    "a\\\\",
    "a\\\\,b",
]
NUMBERS = [
    "1.",
    ".5",
    "-.5",
    "01",
    "007i",
    "-0i",
    "+1",
    "NaN",
    "Inf",
    "0x1",
    "1e",
    "1_0",
    "1.5i",
    "1e400",
    "1e-400",
    "1u",
]
NUMBERS += [
    "9223372036854775807i",
    "9223372036854775808i",
    "-9223372036854775808i",
    "-",
    "i",
    "1i2",
    "1.1.1",
    "",
    "tru",
    "'x'",
]
NUMBERS += ['"x', '"x"y', "1e+5", "123456789012345678901234567890", "1ee5", "1e21", "1e-7", "0.1", "TRUE", "F"]


class Send(NamedTuple):
    """Return a request to `/write` of the database of the case, or to `path`."""

    body: bytes | str = b""
    query: str = ""
    path: str | None = None
    method: str = "POST"
    encoding: str | None = None


BOTH: dict[str, list[Send]] = {
    "a line": [Send("m,a=b f=1 1")],
    "nothing": [Send("")],
    "comments": [Send("# x\n\n  # y")],
    "all bad": [Send("bad\nm f= 1")],
    "some bad": [Send("m f=1 1\nbad\nm,x f=1\nm f=2 2")],
    "conflict": [Send("m f=1 1"), Send('m f="s" 2\nm f=2 3')],
    "conflict in a batch": [Send('m f=1 1\nm f="s" 2\nm g=1 3')],
    "conflict and a bad line": [Send("m f=1 1"), Send('m f="s" 2\nbad\nm f=2 3')],
    "three shards": [
        Send("\n".join(f"m f=1 {START + week * WEEK}" for week in range(3))),
        Send("\n".join(f'm f="x" {START + week * WEEK + number}' for week in range(3) for number in range(1, 5))),
    ],
    "a type a shard": [Send(f"m f=1 {START}"), Send(f"m f=1i {START + WEEK}"), Send(f'm f="x" {START + 2 * WEEK}')],
    "duplicate field": [Send("m f=1,f=2 1")],
    "duplicate field, two types": [Send('m f=1,f="x" 1\nm g=1 2')],
    "duplicate tag": [Send("m,a=1,b=2,a=3 f=1 1")],
    "unsorted tags": [Send("m,b=1,a=2 f=1 1\nm,a=2,b=1 g=1 1")],
    "tag time": [Send("m,time=1 f=1 1\nm f=2 2")],
    "field time": [Send("m time=1 1"), Send("m time=1,f=2 1")],
    "one name": [Send("m,x=1 x=2 1")],
    "a newline in a tag": [Send("m,t=a\nb f=1 1")],
    "a newline in a string": [Send('m f="a\nb" 1'), Send('m f="a\\nb" 2')],
    "line ends": [Send("m f=1 1\r\nm f=2 2\r\n"), Send("  m f=1 1  "), Send("m  f=1  1"), Send("m f=1\t1")],
    "stray text": [Send("m f=1 1 2"), Send("m f=1 x"), Send("m f=1 1.5"), Send("m f=1 -1"), Send("m f=1, g=2 1")],
    "missing parts": [
        Send(text) for text in ("m,t= f=1", "m,=a f=1", "m,t f=1", ",a=b f=1", "m ", "m f", "m ,f=1", "m f=1,=2")
    ],
    "extreme times": [
        Send("m f=1 9223372036854775806"),
        Send("m f=2 -9223372036854775806"),
        Send("m f=3 9223372036854775807"),
        Send("m f=4 99999999999999999999"),
    ],
    "bytes that are no text": [Send(b'm,t=\xff\xfe f="\xff" 1\nbad\xff')],
    "markup": [Send('m,t=<&> f="<&>" 1\n<bad&>')],
    "long keys": [Send("m,t=" + "x" * 65_600 + " f=1 1"), Send("m,t=" + "x" * 65_500 + " f=1 1")],
    "for ever a 500": [Send('m a\\\\="a=b" 1\nm f=1 2')],
    "beside the crash": [Send('m a\\\\="=",b=1 1')],
    "gzip": [Send(gzip.compress(b"m f=1 1\n") + gzip.compress(b"m f=2 2"), encoding="gzip")],
    "gzip, plain": [Send(b"m f=1 1" * 20, encoding="gzip")],
    "gzip, empty": [Send(b"", encoding="gzip")],
    "gzip, cut": [Send(gzip.compress(b"m f=1 1" * 100)[:-12], encoding="gzip")],
    "gzip, checksum": [Send(gzip.compress(b"m f=1 1")[:-8] + bytes(8), encoding="gzip")],
    "deflate, plain": [Send(b"m f=1 1", encoding="deflate")],
    **{f"number {text}": [Send(f"m f={text} 1"), Send(f"m f={text},g=1 2")] for text in NUMBERS},
    **{f"measurement {text}": [Send(f"{text} f=1 1"), Send(f"{text},t=v f=2 2")] for text in NAMES},
    **{f"tag value {text}": [Send(f"m,t={text} f=1 1"), Send(f"m,t={text},u=v f=2 2")] for text in NAMES},
    **{f"tag key {text}": [Send(f"m,{text}=x f=1 1"), Send(f"m,a=v,{text}=x f=2 2")] for text in NAMES},
    **{f"field key {text}": [Send(f"m {text}=1 1"), Send(f"m g=2,{text}=1,h=1 2")] for text in NAMES},
    **{f"string {text}": [Send(f'm f="{text}" 1'), Send(f'm f="{text}",g=1 2')] for text in NAMES},
}
ONLY_1: dict[str, list[Send]] = {
    **{
        f"precision {word}": [Send("m f=1 1600000", f"&precision={word}")]
        for word in ("n", "u", "ms", "s", "m", "h", "us", "xyz", "")
    },
    "precision, out of range": [Send("m f=1 9223372036854775807\nm f=2 1", "&precision=s")],
    "retention policy": [Send("m f=1 1", "&rp=nope")],
    "consistency": [Send("m f=1 1", "&consistency=nope"), Send("m f=1 1", "&consistency=all")],
    "no database": [
        Send("m f=1", path="/write?db=nope"),
        Send("m f=1", path="/write?x=1"),
        Send("m f=1", path="/write?db="),
    ],
    "methods": [Send(method="GET"), Send(method="PUT")],
    "paths": [Send(path=path) for path in ("/nope", "/api/v2/write?bucket=t", "/api/v3/write_lp?db=t", "/write/?db=t")],
    "ping": [Send(path="/ping", method="GET"), Send(path="/ping", method="HEAD"), Send(path="/health", method="GET")],
}
QUERIES = (
    "SELECT * FROM m",
    "SELECT *::field FROM m GROUP BY *",
    "SELECT f::float, f::integer, f::string, f::boolean FROM m",
    "SELECT f, t FROM m",
    "SELECT t FROM m",
    "SHOW FIELD KEYS",
    "SHOW TAG KEYS",
    "SHOW MEASUREMENTS",
    "SHOW SERIES",
    "SELECT * FROM /.*/",
    "SELECT * FROM m ORDER BY time DESC LIMIT 1",
    "SELECT count(f), max(g) FROM m",
    "SELECT first(*), last(*) FROM m GROUP BY *",
    "SELECT min(*), max(*) FROM m",
    "SELECT sum(*), mean(*) FROM m",
    "SELECT sum(f) FROM m",
    "SELECT max(f) FROM m",
    "SELECT f, mean(f) FROM m",
    "SELECT f FROM m WHERE f > 1 OR t = 'x' OR f =~ /x/",
    "SELECT * FROM (SELECT f FROM m) ORDER BY time LIMIT 1",
    "SHOW SERIES FROM m WHERE t =~ /[\\r\\n]/ LIMIT 1",
)
ALWAYS = "|> range(start: 1677-09-22T00:00:00Z, stop: 2262-01-01T00:00:00Z)"
SINCE_1970 = "|> range(start: 1970-01-01T00:00:00Z, stop: 2262-01-01T00:00:00Z)"
"""Aggregates that the storage of 2.x makes itself name 1970 as the start of every earlier range."""
FLUX = (
    ALWAYS,
    f'{ALWAYS} |> filter(fn: (r) => r._field == "f") |> group()',
    f'{SINCE_1970} |> filter(fn: (r) => r._field == "g" or exists r.t) |> first()',
    f'{ALWAYS} |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
    f'{SINCE_1970} |> filter(fn: (r) => r._field == "f") |> sum()',
    f"{SINCE_1970} |> count()",
)
CHANGING = ("date", "request-id", "x-request-id", "connection", "content-length", "transfer-encoding")


def port_of(url: str) -> int:
    return urlsplit(url).port or 80


def seen(
    server: SimServer | int, method: str, target: str, body: bytes | str = b"", **headers: str
) -> tuple[object, ...]:
    """Return a reply without what changes from one request to the next."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        reply = call(server, method, target, body, named)
    except (http.client.HTTPException, OSError):
        return ("broken",)
    kept = {name: value for name, value in reply.headers.items() if name not in CHANGING}
    if "allow" in kept:  # the order is not defined
        kept["allow"] = ", ".join(sorted(kept["allow"].split(", ")))
    return reply.status, kept, reply.body


# --- 1.x ---


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real InfluxDB 1.x."""
    binary = shutil.which("influxd")
    if binary is None:
        not_found("influxd", "no influxd on PATH (package influxdb)")
    version = subprocess.run([binary, "version"], capture_output=True, text=True, check=False).stdout
    if "v1." not in version:
        not_found("influxd", f"influxd on PATH is not 1.x: {version.strip()}")
    folder = tmp_path_factory.mktemp("influxd")
    port, rpc = free_ports(2)
    settings = {
        "REPORTING_DISABLED": "true",
        "BIND_ADDRESS": f"127.0.0.1:{rpc}",
        "HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
        "HTTP_LOG_ENABLED": "false",
        "MONITOR_STORE_ENABLED": "false",
        "META_DIR": str(folder / "meta"),
        "DATA_DIR": str(folder / "data"),
        "DATA_WAL_DIR": str(folder / "wal"),
    }
    environment = {**os.environ, **{f"INFLUXDB_{name}": value for name, value in settings.items()}}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "run", "-config", os.devnull], env=environment, stdout=log, stderr=log)
    try:
        until(lambda: call(port, "GET", "/ping"), folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def until(ask: object, log: Path) -> None:
    assert callable(ask)
    deadline = time.monotonic() + 120
    while True:
        try:
            ask()
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()[-2_000:]
            time.sleep(0.1)


@pytest.fixture(scope="module")
def double(influxd: int) -> Iterator[SimServer]:
    """A simulator of the version of the real one."""
    version = call(influxd, "GET", "/ping").headers["x-influxdb-version"]
    with SimServer(1, version=version, database=None) as server:
        yield server


@pytest.mark.parametrize("name", [*BOTH, *ONLY_1])
def test_1_x_answers_and_reads_the_same(influxd: int, double: SimServer, name: str) -> None:
    for server in (double, influxd):
        for statement in ("DROP DATABASE t", "CREATE DATABASE t"):
            call(server, "POST", "/query?" + urlencode({"q": statement}))

    for send in {**BOTH, **ONLY_1}[name]:
        headers = {"Content_Encoding": send.encoding} if send.encoding else {}
        target = send.path or f"/write?db=t{send.query}"
        theirs = seen(influxd, send.method, target, send.body, **headers)
        assert seen(double, send.method, target, send.body, **headers) == theirs
    for query in QUERIES:
        target = "/query?" + urlencode({"q": query, "db": "t", "epoch": "ns"})
        assert seen(double, "GET", target) == seen(influxd, "GET", target), query


def test_1_x_chunks_the_same(influxd: int, double: SimServer) -> None:
    for server in (double, influxd):
        for statement in ("DROP DATABASE t", "CREATE DATABASE t"):
            call(server, "POST", "/query?" + urlencode({"q": statement}))
        call(server, "POST", "/write?db=t", "\n".join(f"m,t={number % 3} f={number} {number}" for number in range(100)))

    for query in ("SELECT f FROM m GROUP BY *", "SELECT f FROM m", "SELECT f FROM nope", "SELECT f FROM m LIMIT 7"):
        for size in ("1", "7", "33", "34", "1000"):
            target = "/query?" + urlencode({"q": query, "db": "t", "chunked": "true", "chunk_size": size})
            assert seen(double, "GET", target) == seen(influxd, "GET", target), (query, size)


# --- 2.x ---


class Real(NamedTuple):
    """A real 2.x: its port, the token, the organization and its id."""

    port: int
    token: str
    org: str
    org_id: str


@pytest.fixture(scope="module")
def influxd2() -> Real:
    named = os.environ.get("IGGYFLUX_TEST_INFLUXDB2")
    if not named:
        not_found("influxdb2", "IGGYFLUX_TEST_INFLUXDB2=URL,ORG,BUCKET,TOKEN is not set")
    url, org, _, token = named.split(",")
    if urlsplit(url).scheme != "http" or urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
        pytest.skip("IGGYFLUX_TEST_INFLUXDB2 is not on this host")
    port = port_of(url)
    found = call(port, "GET", f"/api/v2/orgs?org={quote(org)}", headers={"Authorization": f"Token {token}"})
    return Real(port, token, org, found.json["orgs"][0]["id"])


@pytest.fixture(scope="module")
def double2(influxd2: Real) -> Iterator[SimServer]:
    version = call(influxd2.port, "GET", "/ping").headers["x-influxdb-version"]
    with SimServer(2, version=version, database=None, org=influxd2.org, token=influxd2.token) as server:
        yield server


def test_2_x_answers_and_reads_the_same(influxd2: Real, double2: SimServer) -> None:
    differences = [found for name in BOTH for found in compare_2(influxd2, double2, name)]

    assert differences == []


def compare_2(real: Real, double: SimServer, name: str) -> Iterator[tuple[object, ...]]:
    """Return the differences in a case."""
    bucket = f"t{time.time_ns()}"
    headers = {"Authorization": f"Token {real.token}"}
    made = call(real.port, "POST", "/api/v2/buckets", json.dumps({"orgID": real.org_id, "name": bucket}), headers)
    double.store.create_database(bucket)
    org, ids = quote(real.org), re.compile(rb"\b[0-9a-f]{16}\b")

    def both(method: str, target: str, body: bytes | str = b"", **more: str) -> Iterator[tuple[object, ...]]:
        own, theirs = (seen(server, method, target, body, **headers, **more) for server in (double, real.port))
        own, theirs = (
            tuple(ids.sub(b"ID", part) if isinstance(part, bytes) else part for part in each) for each in (own, theirs)
        )
        if own != theirs:
            yield name, body or target, own, theirs

    for send in BOTH[name]:
        more = {"Content_Encoding": send.encoding} if send.encoding else {}
        yield from both("POST", f"/api/v2/write?org={org}&bucket={bucket}", send.body, **more)
    for query in QUERIES:
        yield from both("GET", "/query?" + urlencode({"q": query, "db": bucket, "epoch": "ns"}))
    for pipe in FLUX:
        dialect = {"annotations": ["datatype", "group", "default"]}
        script = json.dumps({"query": f'from(bucket: "{bucket}") {pipe}', "dialect": dialect})
        yield from both("POST", f"/api/v2/query?org={org}", script, Content_Type="application/json")
    call(real.port, "DELETE", f"/api/v2/buckets/{made.json['id']}", headers=headers)
    double.store.drop_database(bucket)


def test_replies_are_compared_whole() -> None:
    """The comparison itself finds a difference."""
    with SimServer(1, version="1.6.7") as one, SimServer(1, version="1.6.7") as other:
        assert seen(one, "POST", "/write?db=test", "bad") == seen(other, "POST", "/write?db=test", "bad")
        assert seen(one, "POST", "/write?db=test", "bad") != seen(other, "POST", "/write?db=test", "worse")
    assert isinstance(Reply(204, {}, b""), tuple)


# --- 3.x ---

SQL = (
    "SELECT *, cast(time as bigint) AS nanoseconds FROM m ORDER BY time",
    "SELECT count(*) AS n, min(time) AS a, max(time) AS b FROM m",
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'm' ORDER BY column_name",
)
SOME_3 = (
    "a line",
    "all bad",
    "some bad",
    "conflict",
    "conflict in a batch",
    "field time",
    "one name",
    "unsorted tags",
    "markup",
)
SOME_3 += ("a newline in a string", "line ends", "stray text", "gzip", "gzip, plain", "deflate, plain")
SOME_3 += tuple(name for name in BOTH if name.startswith(("number", "tag value")))


def test_3_x_answers_and_reads_the_same() -> None:
    """One database, a table for each case: 3.x Core has few databases, and deletes none at once."""
    named = os.environ.get("IGGYFLUX_TEST_INFLUXDB3")
    if not named:
        not_found("influxdb3", "IGGYFLUX_TEST_INFLUXDB3=URL,DB,TOKEN is not set")
    url, database, token = named.split(",")
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
        pytest.skip("IGGYFLUX_TEST_INFLUXDB3 is not on this host")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    version = call(port_of(url), "GET", "/ping", headers=headers).headers["x-influxdb-version"]
    run = f"t{time.time_ns()}_"

    with SimServer(3, version=version, database=None) as double:
        differences = [
            found
            for number, name in enumerate(SOME_3)
            for found in compare_3(double, port_of(url), database, headers, name, f"{run}{number}")
        ]

    assert differences == []


def compare_3(
    double: SimServer, port: int, database: str, headers: dict[str, str], name: str, table: str
) -> Iterator[tuple[object, ...]]:
    """Return the differences in a case; the lines go to a table of their own."""

    def both(target: str, body: bytes | str, **more: str) -> Iterator[tuple[object, ...]]:
        own, theirs = (seen(server, "POST", target, body, **headers, **more) for server in (double, port))
        if own != theirs:
            yield name, body, own, theirs

    def renamed(body: bytes | str) -> bytes | str:
        if isinstance(body, bytes):
            return body
        return re.sub(r"^(\s*)m(?=[ ,\t]|$)", rf"\1{table}", body, flags=re.MULTILINE)

    for send in BOTH[name]:
        more = {"Content_Encoding": send.encoding} if send.encoding else {}
        yield from both(f"/api/v3/write_lp?db={database}&precision=nanosecond", renamed(send.body), **more)
        yield from both(f"/write?db={database}", renamed(send.body), **more)
    for query in SQL:
        for form in ("jsonl", "csv"):
            statement = query.replace("FROM m", f'FROM "{table}"').replace("'m'", f"'{table}'")
            yield from both("/api/v3/query_sql", json.dumps({"db": database, "q": statement, "format": form}))
