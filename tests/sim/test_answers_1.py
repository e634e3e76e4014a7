"""Dialect 1: request to exact answer.  The facts are those of a real 1.6.7; `test_against_real` compares with it."""

from __future__ import annotations

import gzip
from typing import NamedTuple

import pytest

from iggyflux.sim import SimServer
from tests.sim.client import call, influxql, rows, write

WEEK = 7 * 86_400 * 10**9
START = 1_600_000_000 * 10**9
CONFLICT = (
    'partial write: field type conflict: input field "f" on measurement "m" is type string, '
    "already exists as type float dropped=1"
)


class Case(NamedTuple):
    name: str
    body: str
    status: int
    error: str | None = None
    before: str = ""
    target: str = "/write?db=test"


CASES = [
    Case("a good line", "m,a=b f=1 1", 204),
    Case("no line at all", "", 204),
    Case("comments and blank lines", "# x\n\n  # y\n", 204),
    Case(
        "every line malformed",
        "bad\nm f= 1",
        400,
        "unable to parse 'bad': missing fields\nunable to parse 'm f= 1': missing field value",
    ),
    Case(
        "some lines malformed",
        "m f=1 1\nbad\nm f=2 2",
        400,
        "partial write: unable to parse 'bad': missing fields dropped=0",
    ),
    Case(
        "another type than before",
        'm f="s" 2\nm f=2 3',
        400,
        CONFLICT,
        before="m f=1 1",
    ),
    Case("two types for a new field in one batch", 'm f=1 1\nm f="s" 2\nm g=1 3', 400, "field type conflict"),
    Case(
        "a conflict hides a malformed line",
        'm f="s" 2\nbad',
        400,
        CONFLICT,
        before="m f=1 1",
    ),
    Case(
        "a tag named time",
        "m,time=1 f=1 1",
        400,
        'partial write: invalid tag key: input tag "time" on measurement "m" is invalid dropped=1',
    ),
    Case(
        "a field named time, alone",
        "m time=1 1",
        400,
        'partial write: invalid field name: input field "time" on measurement "m" is invalid dropped=1',
    ),
    Case("a field named time beside another is stripped in silence", "m time=1,f=2 1", 204),
    Case("duplicate tags", "m,a=1,a=2 f=1", 400, "unable to parse 'm,a=1,a=2 f=1': duplicate tags"),
    Case("an empty tag value", "m,a= f=1", 400, "unable to parse 'm,a= f=1': missing tag value"),
    Case("a trailing backslash in a tag", "m,t=a\\ f=1", 400, "unable to parse 'm,t=a\\ f=1': invalid tag format"),
    Case("an unsigned integer", "m f=1u", 400, "unable to parse 'm f=1u': invalid number"),
    Case(
        "an integer out of range",
        "m f=9223372036854775808i",
        400,
        "unable to parse 'm f=9223372036854775808i': unable to parse integer 9223372036854775808: "
        'strconv.ParseInt: parsing "9223372036854775808": value out of range',
    ),
    Case("a float out of range", "m f=1e400", 400, "unable to parse 'm f=1e400': invalid float"),
    Case(
        "a time out of range",
        "m f=1 9223372036854775807",
        400,
        "unable to parse 'm f=1 9223372036854775807': time outside range -9223372036854775806 - 9223372036854775806",
    ),
    Case("carriage returns", "m f=1 1\r\n", 400, "unable to parse 'm f=1 1\r': bad timestamp"),
    Case("no database", "m f=1", 400, "database is required", target="/write?precision=n"),
    Case("an unknown database", "m f=1", 404, 'database not found: "nope"', target="/write?db=nope"),
    Case(
        "an unknown retention policy", "m f=1", 500, "retention policy not found: nope", target="/write?db=test&rp=nope"
    ),
    Case("a wrong consistency", "m f=1", 400, "invalid consistency level", target="/write?db=test&consistency=some"),
    Case(
        "what the storage engine cannot read, for ever",
        'm a\\\\="a=b" 1',
        500,
        'engine: unable to parse bool value "b\\"": strconv.ParseBool: parsing "b\\"": invalid syntax',
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_answers(v1: SimServer, case: Case) -> None:
    if case.before:
        write(v1, case.before)

    reply = call(v1, "POST", case.target, case.body)

    assert reply.status == case.status
    assert reply.headers["x-influxdb-version"] == "1.6.7~rc0"
    assert reply.headers["x-influxdb-build"] == "OSS"
    assert reply.headers["content-type"] == "application/json"
    if case.error is None:
        assert reply.body == b""
        assert "x-influxdb-error" not in reply.headers
    else:
        assert reply.json == {"error": case.error}
        assert reply.body.endswith(b"}\n")
        assert reply.headers["x-influxdb-error"] == case.error.replace("\n", " ").replace("\r", " ")[:1024]


def test_the_good_lines_of_a_partial_write_are_stored(v1: SimServer) -> None:
    write(v1, "m f=1 1\nbad\nm f=2 2")

    assert v1.dump() == ["m f=1.0 1", "m f=2.0 2"]


def test_dropped_is_what_one_shard_knows(v1: SimServer) -> None:
    """Twelve of fifteen points conflict, over three shards; the answer says four, and three are stored."""
    write(v1, "\n".join(f"m f=1 {START + week * WEEK}" for week in range(3)))
    lines = [f'm f="x" {START + week * WEEK + number}' for week in range(3) for number in range(1, 5)]
    lines += [f"m f=2 {START + 50}", f"m f=2 {START + WEEK + 50}", f"m f=2 {START + 2 * WEEK + 50}"]

    reply = write(v1, "\n".join(lines))

    assert reply.status == 400
    assert reply.json["error"].endswith("dropped=4")
    assert len(v1.dump()) == 6


def test_each_shard_has_types_of_its_own(v1: SimServer) -> None:
    values = ["1", "1i", '"x"']
    for week, value in enumerate(values):
        assert write(v1, f"m f={value} {START + week * WEEK}").status == 204

    assert rows(v1, "SELECT f FROM m") == [[START, 1], [START + WEEK, 1]]
    assert [row[1:] for row in rows(v1, "SELECT f::string FROM m")] == [["x"]]
    assert rows(v1, "SHOW FIELD KEYS") == [["f", "float"], ["f", "integer"], ["f", "string"]]


def test_points_beyond_retention_are_refused() -> None:
    with SimServer(1, retention_seconds=30 * 86_400) as server:
        old = server.settings.now_ns() - 31 * 86_400 * 10**9
        reply = write(server, f"m f=1 {old}")

        assert reply.status == 400
        assert reply.json == {"error": "partial write: points beyond retention policy dropped=1"}
        assert server.dump() == []


@pytest.mark.parametrize(
    ("word", "unit"),
    [
        ("n", 1),
        ("u", 10**3),
        ("ms", 10**6),
        ("s", 10**9),
        ("m", 60 * 10**9),
        ("h", 3_600 * 10**9),
        ("us", 1),
        ("xyz", 1),
    ],
)
def test_unknown_precisions_are_nanoseconds_in_silence(v1: SimServer, word: str, unit: int) -> None:
    reply = call(v1, "POST", f"/write?db=test&precision={word}", "m f=1 7")

    assert reply.status == 204
    assert v1.dump() == [f"m f=1.0 {7 * unit}"]


def test_1_8_refuses_an_unknown_precision_and_writes_all_the_same() -> None:
    with SimServer(1, version="1.8.10") as server:
        reply = call(server, "POST", "/write?db=test&precision=us", "m f=1 7")

        assert (reply.status, reply.json) == (400, {"error": 'invalid precision "us" (use n, u, ms, s, m or h)'})
        assert server.dump() == ["m f=1.0 7"]


def test_1_8_has_the_newer_route_and_1_6_has_not(v1: SimServer) -> None:
    assert call(v1, "POST", "/api/v2/write?bucket=test", "m f=1 1")[0::2] == (404, b"404 page not found\n")
    with SimServer(1, version="1.8.10") as server:
        assert call(server, "POST", "/api/v2/write?bucket=test/autogen&precision=us", "m f=1 7").status == 204
        assert server.dump() == ["m f=1.0 7000"]
        assert call(server, "GET", "/health").json["status"] == "pass"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "EOF"),
        (b"m f=1 1", "unexpected EOF"),
        (b"m f=1 1" * 9, "gzip: invalid header"),
        (gzip.compress(b"m f=1 1" * 50)[:-12], "unexpected EOF"),
        (gzip.compress(b"m f=1 1")[:-8] + bytes(8), "gzip: invalid checksum"),
    ],
    ids=["nothing", "short and plain", "plain", "cut", "checksum"],
)
def test_broken_gzip_is_a_400(v1: SimServer, body: bytes, error: str) -> None:
    reply = call(v1, "POST", "/write?db=test", body, {"Content-Encoding": "gzip"})

    assert (reply.status, reply.json) == (400, {"error": error})


def test_gzip_with_several_members_is_one_body(v1: SimServer) -> None:
    body = gzip.compress(b"m f=1 1\n") + gzip.compress(b"m f=2 2")

    assert call(v1, "POST", "/write?db=test", body, {"Content-Encoding": "gzip"}).status == 204
    assert v1.dump() == ["m f=1.0 1", "m f=2.0 2"]


def test_credentials() -> None:
    tokens = {"ann:pw": {"read", "write"}, "bob:pw": {"read"}}
    with SimServer(1, version="1.8.10", tokens=tokens) as server:
        target = "/write?db=test"
        missing = call(server, "POST", target, "m f=1")
        wrong = call(server, "POST", f"{target}&u=ann&p=no", "m f=1")
        forbidden = call(server, "POST", f"{target}&u=bob&p=pw", "m f=1")
        bearer = call(server, "POST", target, "m f=1", {"Authorization": "Bearer x"})

        assert (missing.status, missing.json["error"]) == (401, "unable to parse authentication credentials")
        assert missing.headers["www-authenticate"] == 'Basic realm="InfluxDB"'
        assert "x-influxdb-error" not in missing.headers
        assert (wrong.status, wrong.json["error"]) == (401, "authorization failed")
        assert (forbidden.status, forbidden.json["error"]) == (
            403,
            '"bob" user is not authorized to write to database "test"',
        )
        assert bearer.status == 401
        assert call(server, "POST", target, "m f=1", {"Authorization": "Token ann:pw"}).status == 204
        assert call(server, "GET", "/ping").status == 204


def test_too_large_a_body_is_refused_before_it_is_read() -> None:
    with SimServer(1, max_body=100) as server:
        reply = call(server, "POST", "/write?db=test", "m f=1 1\n" * 50)

        assert (reply.status, reply.json) == (413, {"error": "Request Entity Too Large"})
        assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "target", "status", "body"),
    [
        ("GET", "/ping", 204, b""),
        ("HEAD", "/ping", 204, b""),
        ("GET", "/health", 404, b"404 page not found\n"),
        ("GET", "/write?db=test", 405, b"Method Not Allowed\n"),
        ("POST", "/write/?db=test", 404, b"404 page not found\n"),
        ("POST", "/api/v3/write_lp?db=test", 404, b"404 page not found\n"),
    ],
)
def test_other_routes(v1: SimServer, method: str, target: str, status: int, body: bytes) -> None:
    reply = call(v1, method, target)

    assert (reply.status, reply.body) == (status, body)


def test_a_measurement_with_a_backslash_is_listed_and_never_found(v1: SimServer) -> None:
    write(v1, "a\\\\,b f=1 1")

    assert rows(v1, "SHOW MEASUREMENTS") == [["a,b"]]
    assert influxql(v1, 'SELECT * FROM "a,b"') == [{"statement_id": 0}]
