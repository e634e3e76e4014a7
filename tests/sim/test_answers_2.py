"""Dialect 2: request to exact answer, as a real 2.9.1 gives it (versions differ where the test says so)."""

from __future__ import annotations

import gzip
import json
from typing import NamedTuple

import pytest

from iggyflux.sim import SimServer
from iggyflux.sim.dialects.v2 import identifier
from tests.sim.client import call, flux, influxql, rows, write

CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    422: "unprocessable entity",
    500: "internal error",
}
FAILURE = "failure writing points to database: partial write: "
CONFLICT = 'field type conflict: input field "f" on measurement "m" is type string, already exists as type float'
WEEK = 7 * 86_400 * 10**9
START = 1_600_000_000 * 10**9


class Case(NamedTuple):
    name: str
    body: str
    status: int
    message: str | None = None
    before: str = ""
    target: str = "/api/v2/write?org=org&bucket=test"


CASES = [
    Case("a good line", "m,a=b f=1 1", 204),
    Case("no line at all", "", 204),
    Case("comments only", "# x\n\n", 204),
    Case(
        "every bad line is named, nothing is stored",
        "m f=1 1\nbad\nm f=",
        400,
        "unable to parse 'bad': missing fields\nunable to parse 'm f=': missing field value",
    ),
    Case("another type than before", 'm f="s" 2\nm f=2 3', 422, f"{FAILURE}{CONFLICT} dropped=1", before="m f=1 1"),
    Case("two types for a new field in one batch", 'm f=1 1\nm f="s" 2', 422, f"{FAILURE}{CONFLICT} dropped=1"),
    Case("two types for one field in one line", 'm f=1,f="x" 1\nm z=1 2', 422, f"{FAILURE}{CONFLICT} dropped=1"),
    Case(
        "a parse error hides a conflict",
        'm f="s" 2\nbad',
        400,
        "unable to parse 'bad': missing fields",
        before="m f=1 1",
    ),
    Case(
        "a reserved tag key",
        "m,_field=x f=1",
        400,
        "unable to parse 'm,_field=x f=1': cannot use reserved tag key \"_field\"",
    ),
    Case(
        "a tag named time", "m,time=x f=1", 400, "unable to parse 'm,time=x f=1': cannot use reserved tag key \"time\""
    ),
    Case(
        "a field named time, alone",
        "m time=1 1",
        422,
        f'{FAILURE}invalid field name: input field "time" on measurement "m" is invalid dropped=1',
    ),
    Case("an unsigned integer", "m f=18446744073709551615u 1", 204),
    Case("an empty bucket name", "m f=1", 404, "bucket not found", target="/api/v2/write?org=org"),
    Case("an unknown bucket", "m f=1", 404, 'bucket "nope" not found', target="/api/v2/write?org=org&bucket=nope"),
    Case(
        "an unknown organisation",
        "m f=1",
        404,
        'organization name "nope" not found',
        target="/api/v2/write?org=nope&bucket=test",
    ),
    Case("no organisation", "m f=1", 400, "Please provide either orgID or org", target="/api/v2/write?bucket=test"),
    Case(
        "a wrong precision",
        "m f=1",
        400,
        "invalid precision; valid precision units are ns, us, ms, and s",
        target="/api/v2/write?org=org&bucket=test&precision=n",
    ),
    Case("the old route without a mapping", "m f=1", 404, "no dbrp mapping found", target="/write?db=nope"),
    Case("the old route without a database", "m f=1", 400, "missing db", target="/write?db="),
    Case("the old route", "m f=1 1", 204, target="/write?db=test"),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_answers(v2: SimServer, case: Case) -> None:
    if case.before:
        write(v2, case.before)

    reply = call(v2, "POST", case.target, case.body)

    assert reply.status == case.status
    assert reply.headers["x-influxdb-version"] == "v2.7.12"
    assert reply.headers["x-influxdb-build"] == "OSS"
    if case.message is None:
        assert reply.body == b""
    else:
        assert reply.json == {"code": CODES[case.status], "message": case.message}
        assert reply.headers["x-platform-error-code"] == CODES[case.status]
        assert reply.headers["content-type"] == "application/json; charset=utf-8"


def test_a_parse_error_stores_nothing_and_a_conflict_stores_the_rest(v2: SimServer) -> None:
    write(v2, "m f=1 1\nbad")
    assert v2.dump() == []

    write(v2, 'm f=1 1\nm f="x" 2\nm f=3 3')
    assert v2.dump() == ["m f=1.0 1", "m f=3.0 3"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize(
    "target", ["/api/v3/write_lp?db=test", "/write/", "//api/v2/write", "/prefix/api/v2/write", "/ping/"]
)
def test_unknown_paths_are_a_page_with_status_200_and_store_nothing(v2: SimServer, method: str, target: str) -> None:
    reply = call(v2, method, target, "m f=1 1")

    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<html" in reply.body
    assert v2.dump() == []


def test_without_pages_unknown_paths_are_404() -> None:
    with SimServer(2, assets=False) as server:
        assert call(server, "POST", "/api/v3/write_lp?db=test", "m f=1 1").status == 404


def test_a_trailing_slash_is_redirected(v2: SimServer) -> None:
    reply = call(v2, "POST", "/api/v2/write/?org=org&bucket=test", "m f=1 1")

    assert (reply.status, reply.headers["location"]) == (308, "/api/v2/write?org=org&bucket=test")


def test_2_9_reports_a_stripped_time_though_the_rest_is_stored() -> None:
    with SimServer(2, version="v2.9.1") as server:
        reply = write(server, "m time=1,z=2 1")

        words = 'invalid field name: input field "time" on measurement "m" is invalid. '
        words += 'Field "time" has been stripped from point.'
        place = f" for database: {identifier('test')} for retention policy: autogen"
        assert (reply.status, reply.json["message"]) == (422, f"{FAILURE}{words} dropped=0{place}")
        assert server.dump() == ["m z=2.0 1"]


def test_strings_over_one_mebibyte_are_dropped(v2: SimServer) -> None:
    reply = write(v2, f'm s="{"x" * 1_048_577}" 1\nm f=1 2')

    assert reply.status == 422
    assert reply.json["message"].endswith("is too long, 1048577 > 1048576 dropped=1")
    assert v2.dump() == ["m f=1.0 2"]


def test_a_retention_error_names_oldest_and_newest() -> None:
    with SimServer(2, retention_seconds=3_600) as server:
        reply = write(server, "m f=1 1\nm f=2 2")

        assert reply.status == 422
        message = reply.json["message"]
        assert message.startswith(
            f"{FAILURE}dropped 2 points outside retention policy of duration 1h0m0s - oldest point m at "
        )
        assert (
            "1970-01-01T00:00:00.000000001Z dropped because it violates a Retention Policy Lower Bound at " in message
        )
        assert message.endswith(f" dropped=2 for database: {identifier('test')} for retention policy: autogen")


@pytest.mark.parametrize(
    ("word", "time"), [("u", 7), ("n", 7), ("m", 7), ("us", 7_000), ("ms", 7_000_000), ("s", 7 * 10**9)]
)
def test_the_old_route_does_not_check_the_precision(v2: SimServer, word: str, time: int) -> None:
    assert call(v2, "POST", f"/write?db=test&precision={word}", "m f=1 7").status == 204
    assert v2.dump() == [f"m f=1.0 {time}"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"m f=1 1", 500, "An internal error has occurred - check server logs"),
        (b"", 500, "An internal error has occurred - check server logs"),
        (gzip.compress(b"m f=1 1" * 50)[:-12], 500, "unable to read data: unexpected EOF"),
        (gzip.compress(b"m f=1 1")[:-8] + bytes(8), 400, "unable to read data: gzip: invalid checksum"),
    ],
    ids=["plain", "empty", "cut", "checksum"],
)
def test_broken_gzip_is_mostly_a_500(v2: SimServer, body: bytes, status: int, message: str) -> None:
    reply = call(v2, "POST", CASES[0].target, body, {"Content-Encoding": "gzip"})

    assert (reply.status, reply.json["message"]) == (status, message)


def test_credentials() -> None:
    with SimServer(2, tokens={"all": {"read", "write"}, "reader": {"read"}, "writer": {"write"}}) as server:
        target = CASES[0].target

        def status(authorization: str | None, at: str = target) -> tuple[int, str]:
            reply = call(server, "POST", at, "m f=1 1", {"Authorization": authorization} if authorization else {})
            return reply.status, reply.json["message"] if reply.body else ""

        assert status(None) == (401, "unauthorized access")
        assert status("Token nope") == (401, "unauthorized access")
        assert status("Token reader") == (403, "insufficient permissions for write")
        assert status("token all") == (204, "")
        assert status("BEARER all") == (204, "")
        assert status("Token nope", "/write?db=test") == (401, "Unauthorized")
        assert status("Bearer all", "/write?db=test") == (401, "unauthorized access")
        assert status("Token anybody:all", "/write?db=test") == (204, "")
        assert call(server, "GET", "/ping").status == 204
        assert call(server, "GET", "/health").status == 200
        body = json.dumps({"query": 'from(bucket: "test") |> range(start: 0)'})
        hidden = call(server, "POST", "/api/v2/query?org=org", body, {"Authorization": "Token writer"})
        assert (hidden.status, hidden.json["code"]) == (404, "not found")


def test_buckets_and_organisations(v2: SimServer) -> None:
    bucket = call(v2, "GET", "/api/v2/buckets?name=test").json["buckets"][0]
    org = call(v2, "GET", "/api/v2/orgs?org=org").json["orgs"][0]

    assert (bucket["name"], bucket["orgID"]) == ("test", org["id"])
    assert bucket["retentionRules"] == [{"type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": 604_800}]
    assert call(v2, "GET", f"/api/v2/buckets/{bucket['id']}").json == bucket
    assert call(v2, "GET", "/api/v2/buckets?name=nope").json["buckets"] == []
    assert call(v2, "GET", "/api/v2/orgs?org=nope").status == 404
    assert call(v2, "GET", "/api/v2/nope").json == {"code": "not found", "message": "path not found"}


@pytest.mark.parametrize(("asked", "given"), [(86_400, 86_400), (5400, 5400), (60, 3600)])
def test_a_bucket_has_the_requested_shards_and_influxql_reports_a_week(v2: SimServer, asked: int, given: int) -> None:
    """As measured with 2.9.1."""
    rule = {"type": "expire", "everySeconds": 2_592_000, "shardGroupDurationSeconds": asked}
    made = call(v2, "POST", "/api/v2/buckets", json.dumps({"name": "b", "retentionRules": [rule]}))

    assert made.json["retentionRules"][0]["shardGroupDurationSeconds"] == given
    assert rows(v2, "SHOW RETENTION POLICIES ON b") == [["autogen", "0s", "168h0m0s", 1, True]]


def test_a_number_is_cast_as_cursors_do(v2: SimServer) -> None:
    """As measured with 2.9.1: a value too large for a type becomes another number in it."""
    write(v2, f"m f=-1i {START}\nm f=18446744073709551615u {START + WEEK}\nm f=1e300 {START + 2 * WEEK}")

    assert [row[1:] for row in rows(v2, "SELECT f::integer, f::unsigned FROM m")] == [
        [-1, 2**64 - 1],
        [-1, 2**64 - 1],
        [-(2**63), 2**63],
    ]
    assert len(rows(v2, "SELECT f FROM m WHERE f::integer < 0")) == 3


def test_a_killer_line_breaks_the_connection_and_stores_nothing(v2: SimServer) -> None:
    with pytest.raises(ConnectionError):
        write(v2, 'm f=1 1\nm a\\\\="="')

    assert v2.dump() == []
    assert write(v2, "m f=1 1").status == 204


@pytest.mark.parametrize("name", ["a\\=b", "a\\\\,b"])
def test_points_of_a_measurement_with_invalid_escapes_are_lost(v2: SimServer, name: str) -> None:
    assert write(v2, f"{name} f=1 1").status == 204

    listed = rows(v2, "SHOW MEASUREMENTS")
    assert len(listed) == 1
    assert influxql(v2, 'SELECT * FROM "{}"'.format(listed[0][0].replace("\\", "\\\\"))) == [{"statement_id": 0}]
    assert flux(v2, 'from(bucket: "test") |> range(start: 0)') == "\r\n"


def test_flux_ends_a_field_at_the_first_shard_of_another_type(v2: SimServer) -> None:
    """All later shards are silently lost, other series too; InfluxQL returns all numbers."""
    write(v2, f"m,t=a f=1i {START}\nm,t=b f=2 {START + WEEK}\nm,t=a f=3i {START + 2 * WEEK}")

    text = flux(v2, 'from(bucket: "test") |> range(start: 2020-01-01T00:00:00Z)')

    assert text.count("\r\n,,") == 1
    assert [row[1] for row in rows(v2, "SELECT f FROM m")] == [1, 2, 3]


def test_a_poisonous_tag_key_is_a_panic_only_for_flux(v2: SimServer) -> None:
    write(v2, "m,_value=x f=1 1")
    body = json.dumps({"query": 'from(bucket: "test") |> range(start: 0)'})

    reply = call(v2, "POST", "/api/v2/query?org=org", body)

    assert (reply.status, reply.json["code"]) == (500, "internal error")
    assert "panic" in reply.json["message"]
    assert rows(v2, "SELECT * FROM m") == [[1, "x", 1]]


@pytest.mark.parametrize(
    ("statement", "result"),
    [
        ("SHOW MEASUREMENTS", {}),
        ("SHOW TAG KEYS", {"error": "default retention policy not set for: nope"}),
        ("SHOW FIELD KEYS", {"error": "database not found: nope"}),
        ("DELETE FROM m", {"error": "no dbrp mappings found: db=nope, rp=, please check to make sure db and rp exist"}),
        ("CREATE DATABASE x", {"error": "not implemented: CREATE DATABASE"}),
        (
            "SHOW RETENTION POLICIES",
            {"series": [{"columns": ["name", "duration", "shardGroupDuration", "replicaN", "default"]}]},
        ),
    ],
)
def test_each_statement_has_its_own_words_for_a_missing_database(
    v2: SimServer, statement: str, result: dict[str, object]
) -> None:
    assert influxql(v2, statement, db="nope") == [{"statement_id": 0, **result}]
