"""Dialect 3: request to exact answer, as 3.6.0 Core gives it."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any, NamedTuple

import pytest

from iggyflux.sim import SimServer
from tests.sim.client import WRITES, call, needs_datafusion, sql, write

TARGET = WRITES[3]
FLOAT, STRING = "iox::column_type::field::float", "iox::column_type::field::string"
SPACE = "A generic parsing error occurred: TakeWhile1"
"""The message of versions before 3.10 for a line without fields."""


def line(number: int, message: str, shown: str) -> dict[str, Any]:
    return {"error_message": message, "line_number": number, "original_line": shown}


class Case(NamedTuple):
    name: str
    body: str
    errors: list[dict[str, Any]]
    stored: list[str]


CASES = [
    Case("good lines", "m,a=b f=1 1\nm,a=b g=2i 1", [], ["m,a=b f=1.0,g=2i 1"]),
    Case("a bad line among good ones", "m f=1 1\nbad\nm f=2 2", [line(2, SPACE, "bad")], ["m f=1.0 1", "m f=2.0 2"]),
    Case(
        "comments and blank lines do not count, and the text drifts",
        "# c\n\nm f=1 1\nbad",
        [line(2, SPACE, "")],
        ["m f=1.0 1"],
    ),
    Case(
        "another type than before",
        'm f=1 1\nm f="a string" 2',
        [line(2, f"invalid column type for column 'f', expected {FLOAT}, got {STRING}", "m f=a string 2")],
        ["m f=1.0 1"],
    ),
    Case(
        "the shown line is cut to twenty bytes",
        "measurement,tag=value",
        [line(1, SPACE, "measurement,tag=valu")],
        [],
    ),
    Case(
        "a tag where a field was",
        "m f=1 1\nm,f=x g=1 2",
        [line(2, f"invalid column type for column 'f', expected {FLOAT}, got iox::column_type::tag", "m,f=x g=1 2")],
        ["m f=1.0 1"],
    ),
    Case(
        "a field that comes twice",
        "m f=1,f=2 1",
        [line(1, "invalid line protocol - multiple instances of 'f' field found", "m f=1,f=2 1")],
        [],
    ),
    Case("time as a field of a new table", "m time=1 1", [line(1, "'time' is a reserved column", "m time=1 1")], []),
    Case(
        "a trailing backslash",
        "m,t=a\\\\ f=1",
        [line(1, "Measurements, tag keys and values, and field keys may not end with a backslash", "m,t=a\\\\ f=1")],
        [],
    ),
    Case("an empty tag value", "m,t= f=1", [line(1, "Tag Set Malformed", "m,t= f=1")], []),
    Case(
        "no digits after the point",
        "m f=1.",
        [line(1, "Could not parse entire line. Found trailing content: '.'", "m f=1.")],
        [],
    ),
    Case("no digits before the point", "m f=.5", [line(1, "No fields were provided", "m f=.5")], []),
    Case("not a number", "m f=NaN", [line(1, "No fields were provided", "m f=NaN")], []),
    Case(
        "an integer out of range",
        "m f=9223372036854775808i",
        [line(1, "Unable to parse integer value '9223372036854775808'", "m f=9223372036854775")],
        [],
    ),
    Case(
        "one backslash is one, two are one",
        "m,t=x\\\\y f=1 1\nm,t=x\\y f=2 2",
        [],
        ["m,t=x\\y f=1.0 1", "m,t=x\\y f=2.0 2"],
    ),
    Case("a newline in a string", 'm f="a\nb" 1', [], ['m f="a\nb" 1']),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_answers(v3: SimServer, case: Case) -> None:
    reply = write(v3, case.body)

    if case.errors:
        assert reply.status == 400
        assert reply.json == {"error": "partial write of line protocol occurred", "data": case.errors}
    else:
        assert (reply.status, reply.body) == (204, b"")
    assert v3.dump() == case.stored


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (
            f"{TARGET}&accept_partial=false",
            {"error": "parsing failed for write_lp endpoint", "data": line(2, SPACE, "bad")},
        ),
        ("/write?db=test", {"error": "parsing failed for write_lp endpoint", "data": line(2, SPACE, "bad")}),
        (
            "/api/v2/write?bucket=test",
            {"code": "invalid", "message": "write buffer error: parsing for line protocol failed"},
        ),
    ],
)
def test_all_or_nothing_routes_name_one_line_or_none(v3: SimServer, target: str, answer: dict[str, Any]) -> None:
    reply = call(v3, "POST", target, "m f=1 1\nbad\nworse")

    assert (reply.status, reply.json) == (400, answer)
    assert v3.dump() == []


@pytest.mark.parametrize(
    ("target", "body", "status", "answer"),
    [
        (TARGET, "", 400, "incoming write was empty"),
        (TARGET, "# only\n\n", 400, "incoming write was empty"),
        ("/api/v3/write_lp", "m f=1", 400, "missing query parameter 'db'"),
        ("/api/v3/write_lp?precision=ns", "m f=1", 400, "serde error: missing field `db`"),
        ("/api/v3/write_lp?db=", "m f=1", 400, '{"error":"db name cannot be empty"}'),
        ("/api/v3/write_lp?db=_x", "m f=1", 400, '{"error":"db name did not start with a number or letter"}'),
        ("/api/v2/write?bucket=", "m f=1", 400, '{"code":"invalid","message":"missing bucket value"}'),
        (
            "/api/v2/write?bucket=test",
            "",
            400,
            '{"code":"invalid","message":"write buffer error: incoming write was empty"}',
        ),
        ("/api/v2/query", "", 404, "not found"),
    ],
)
def test_refusals(v3: SimServer, target: str, body: str, status: int, answer: str) -> None:
    reply = call(v3, "POST", target, body)

    assert (reply.status, reply.text) == (status, answer)


def test_a_database_is_made_by_its_first_write(v3: SimServer) -> None:
    assert v3.store.databases == {}

    write(v3, "m f=1 1")

    assert list(v3.store.databases) == ["test"]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_too_large_a_body_is_a_500_in_plain_text(zipped: bool) -> None:
    with SimServer(3, max_body=1_000) as server:
        data = b"m f=1 1\n" * 200
        headers = {"Content-Encoding": "gzip"} if zipped else {}
        reply = call(server, "POST", TARGET, gzip.compress(data) if zipped else data, headers)
        old = call(server, "POST", "/api/v2/write?bucket=test", data)

        assert (reply.status, reply.text) == (500, "max request size (1000 bytes) exceeded")
        assert (old.status, old.json["code"]) == (413, "request too large")


@pytest.mark.parametrize(
    ("word", "time", "stored"),
    [
        ("ns", 7, 7),
        ("nanosecond", 7, 7),
        ("u", 7, 7_000),
        ("millisecond", 7, 7_000_000),
        ("s", 7, 7 * 10**9),
        ("auto", 1_700_000_000, 1_700_000_000 * 10**9),
        ("auto", 1_700_000_000_000, 1_700_000_000 * 10**9),
        ("auto", 1_700_000_000_000_000_001, 1_700_000_000_000_000_001),
    ],
)
def test_precisions(v3: SimServer, word: str, time: int, stored: int) -> None:
    assert call(v3, "POST", f"/api/v3/write_lp?db=test&precision={word}", f"m f=1 {time}").status == 204
    assert v3.dump() == [f"m f=1.0 {stored}"]


@needs_datafusion
def test_a_duplicate_tag_key_makes_the_table_unreadable(v3: SimServer) -> None:
    assert write(v3, "m,t=a,t=b f=1 1").status == 204

    reply = call(v3, "POST", "/api/v3/query_sql", json.dumps({"db": "test", "q": "SELECT * FROM m"}))

    assert reply.status == 500
    assert "all columns in a record batch must have the same length" in reply.text


def test_a_refused_line_may_already_have_made_columns(v3: SimServer) -> None:
    write(v3, 'm f=1 1\nm,new=x f="s" 2')

    names = [
        row["column_name"]
        for row in sql(v3, "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'm'")
    ]
    assert sorted(names) == ["f", "new", "time"]


def test_a_character_cut_in_the_shown_line_costs_only_the_answer(v3: SimServer) -> None:
    with pytest.raises(ConnectionError):
        write(v3, f"m f=1 1\nm{'ü' * 20} bad")

    assert v3.dump() == ["m f=1.0 1"]
    assert write(v3, "m f=2 2").status == 204


@needs_datafusion
def test_infinity_is_stored_and_breaks_the_old_query(v3: SimServer) -> None:
    assert write(v3, "m f=1e400 1").status == 204

    assert sql(v3, "SELECT cast(time as bigint) AS t, f FROM m") == [{"t": 1, "f": None}]
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        call(v3, "GET", "/query?db=test&q=SELECT+*+FROM+m")


def test_identity() -> None:
    with SimServer(3, token="secret") as server:
        reply = call(server, "GET", "/ping", headers={"Authorization": "Bearer secret"})
        assert reply.status == 200
        assert reply.headers["x-influxdb-version"] == "3.6.0"
        assert reply.headers["x-influxdb-build"] == "Core"
        assert sorted(reply.json) == ["process_id", "revision", "version"]

        assert call(server, "GET", "/ping").status == 401
        assert call(server, "GET", "/health").status == 401
        assert call(server, "POST", "/write?db=test&p=secret", "m f=1 1").status == 204
        malformed = call(server, "GET", "/ping", headers={"Authorization": "bearer secret"})
        assert malformed.status == 400
        assert malformed.json["error"].startswith("Authorization header was malformed")


def test_newer_versions_carry_their_cluster() -> None:
    with SimServer(3, version="3.10.1", token="secret") as server:
        refused = call(server, "POST", TARGET, "m f=1")

        assert refused.status == 401
        assert refused.json == {"error": "the request was not authenticated"}
        assert refused.headers["cluster-uuid"] == server.settings.process
        known = {"Authorization": "Token secret"}
        reply = call(server, "POST", f"{TARGET}&accept_partial=false", "bad", known)
        words = "Expected at least one space character, got end of input"
        assert reply.json == {"error": "line protocol parsing error", "data": line(1, words, "bad")}


def test_writes_are_answered_at_the_next_flush() -> None:
    with SimServer(3, wal_flush_seconds=0.05) as server:
        assert [write(server, f"m f=1 {number}").status for number in range(3)] == [204, 204, 204]
