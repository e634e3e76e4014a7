"""SQL of the simulator: the reader's own statements are answered directly and as DataFusion does, all others by it.

The engine reads only the tables of its statement: no file is read or written, memory and time are bounded.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iggyflux.sim import SimServer
from iggyflux.sim.queries import QueryError, sql_engine
from iggyflux.sim.queries.sql_engine import run_statement
from iggyflux.sim.queries.sql_reads import parse_read, run_read
from iggyflux.transports.influxdb.query import statements
from tests.sim.client import Reply, call, needs_datafusion, sql, write

LINES = """
while,class=d1,if=a yield=21.5,from=3i,pass="ok",True=true,max=18446744073709551615u 1000
while,class=d2 yield=22,from=-9223372036854775808i 1000
while,class=d1 pass="a,\\"b" -5
while,class=d3,if=b yield=-0.5 1700000000123456789
"""
TAGS, FIELDS = ["class", "if"], ["yield", "from", "pass", "True", "max"]
TIMES = st.sampled_from(
    [statements.FIRST_TIME, -5, -4, 999, 1000, 1001, 1_700_000_000_123_456_790, statements.END_OF_TIME]
)


@pytest.fixture(scope="module")
def server() -> Iterator[SimServer]:
    with SimServer(3) as server:
        assert write(server, LINES.strip()).status == 204
        yield server


def ask(server: SimServer, statement: str) -> Reply:
    return call(server, "POST", "/api/v3/query_sql", json.dumps({"db": "test", "q": statement, "format": "jsonl"}))


def error_of(server: SimServer, statement: str) -> str:
    reply = ask(server, statement)
    assert reply.status == 500, reply
    return reply.text.removeprefix("query error: error while planning query: ")


# --- the reader's own statements ---


@st.composite
def own_statements(draw: st.DrawFn) -> str:
    """Every statement that the reader makes, over existing columns."""
    values = st.sampled_from(["a", "b", "d1", "d2", "it's", "nope"])
    where = draw(st.lists(st.tuples(st.sampled_from(TAGS), st.lists(values, max_size=3).map(tuple)), max_size=2))
    start, stop = draw(TIMES), draw(TIMES)
    if draw(st.booleans()):
        return statements.first_sql("while", where)
    tags = draw(st.lists(st.sampled_from(TAGS), unique=True))
    fields = draw(st.lists(st.sampled_from(FIELDS), unique=True, min_size=1))
    return statements.select_sql("while", tags, fields, where, start, stop, chosen=draw(st.booleans()))


@needs_datafusion
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(own_statements())
def test_an_own_statement_is_answered_as_datafusion_answers_it(server: SimServer, statement: str) -> None:
    database = server.store.databases["test"]
    read = parse_read(statement)
    assert read is not None, statement

    columns, rows = run_read(server.store, database, read)
    theirs, their_rows = run_statement(server.store, database, statement, {})

    assert columns == theirs
    assert sorted(map(repr, map(list, rows))) == sorted(map(repr, map(list, their_rows)))


def test_the_columns_of_a_table_and_its_first_time_are_answered_directly(
    server: SimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datafusion", None)

    found = {row["column_name"]: row["data_type"] for row in sql(server, statements.columns_sql("while"))}
    assert found == {
        "True": "Boolean",
        "class": "Dictionary(Int32, Utf8)",
        "from": "Int64",
        "if": "Dictionary(Int32, Utf8)",
        "max": "UInt64",
        "pass": "Utf8",
        "time": "Timestamp(Nanosecond, None)",
        "yield": "Float64",
    }
    assert sql(server, statements.columns_sql("no_such")) == []
    assert sql(server, statements.first_file_sql("while")) == [{"first": -5}]
    assert sql(server, statements.first_sql("while", [("class", ("d3",))])) == [{"first": 1_700_000_000_123_456_789}]
    assert sql(server, statements.first_sql("while", [("class", ("nope",))])) == [{}]
    many = [("class", tuple(f"d{number}" for number in range(1, 20_000)))]
    assert len(sql(server, statements.select_sql("while", TAGS, FIELDS, many, -5, 2**62, chosen=False))) == 4


def test_a_table_or_column_that_is_missing_is_named(server: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datafusion", None)

    missing = statements.select_sql("no_such", [], ["yield"], (), 0, 1, chosen=False)
    assert error_of(server, missing) == "Error during planning: table 'public.iox.no_such' not found"
    missing = statements.select_sql("while", [], ["no_such"], (), 0, 1, chosen=False)
    assert error_of(server, missing).startswith("Schema error: No field named no_such. Valid fields are while.")


OWN = 'SELECT cast("time" AS bigint) AS "time","f" FROM "m" WHERE "t" IN (\'a\') AND "time" >= to_timestamp_nanos(0)'
WORDS = """
SELECT cast ( min "time" AS bigint ) AS first time , "f" FROM m WHERE IN 'a' AND OR >= < = to_timestamp_nanos 1
- IS NOT NULL ORDER BY . ; * 'x information_schema columns column_name data_type table_name $p é -- /*"""


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["", OWN, OWN[:40], OWN[:90]]), st.lists(st.sampled_from(WORDS.split())))
@example(OWN, ["("] * 3_000)
@example("SELECT cast(min(time) AS bigint) AS first FROM system.parquet_files WHERE", ["time", "=", "'x'"])
@example("SELECT column_name, data_type FROM information_schema.columns WHERE", ["table_name", "IN", "('a', 'b')"])
@example("SELECT column_name, data_type FROM information_schema.columns WHERE", ["time", "<", "to_timestamp_nanos(5)"])
def test_what_is_not_an_own_statement_is_left_to_the_engine(server: SimServer, head: str, words: list[str]) -> None:
    """It is not misread: the parser only answers that it is not one of the reader's."""
    read = parse_read(" ".join((head, *words)))
    if read is not None:
        with contextlib.suppress(QueryError):
            run_read(server.store, server.store.databases["test"], read)


# --- DataFusion ---


@needs_datafusion
def test_types_are_those_of_influxdb_3(server: SimServer) -> None:
    found = sql(
        server, 'SELECT *, "max" - 1 AS less, upper(class) AS shout, "yield" * 2 AS twice FROM "while" WHERE "max" > 1'
    )

    assert found == [
        {
            "True": True,
            "class": "d1",
            "from": 3,
            "if": "a",
            "max": 2**64 - 1,
            "pass": "ok",
            "time": "1970-01-01T00:00:00.000001",
            "yield": 21.5,
            "less": 2**64 - 2,
            "shout": "D1",
            "twice": 43.0,
        }
    ]


@needs_datafusion
def test_statements_may_join_bin_and_aggregate(server: SimServer) -> None:
    binned = "SELECT date_bin(INTERVAL '1 hour', time) AS hour, count(*) AS n FROM \"while\" GROUP BY 1"
    assert sql(server, f"{binned} ORDER BY hour DESC LIMIT 1") == [{"hour": "2023-11-14T22:00:00", "n": 1}]
    joined = 'SELECT count(*) AS n FROM "while" AS a JOIN "while" AS b ON a.class = b.class'
    assert sql(server, joined) == [{"n": 6}]
    assert sql(server, "WITH x AS (SELECT 1 AS y) SELECT y, current_date() > '2020-01-01' AS late FROM x") == [
        {"y": 1, "late": True}
    ]
    assert sql(server, 'SELECT * FROM "while" WHERE false') == []


@needs_datafusion
@pytest.mark.parametrize(
    "statement",
    [
        "COPY \"while\" TO '{path}'",
        "COPY (SELECT 1) TO '{path}' STORED AS PARQUET",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{secret}'",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "CREATE DATABASE x",
        'DROP TABLE "while"',
        'INSERT INTO "while" SELECT * FROM "while"',
        'DELETE FROM "while"',
        "UPDATE \"while\" SET pass = ''",
        "SET datafusion.catalog.information_schema = true",
        "PREPARE x AS SELECT 1",
        "SELECT * FROM '{secret}'",
        'SELECT * FROM "{secret}"',
        'SELECT * FROM "file://{secret}"',
        "SELECT * FROM read_csv('{secret}')",
        "SELECT 1; COPY (SELECT 1) TO '{path}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}'",
        "SHOW TABLES",
        "SELECT * FROM information_schema.df_settings",
    ],
)
def test_a_statement_reads_its_tables_and_touches_no_file(server: SimServer, tmp_path: Path, statement: str) -> None:
    path, secret = tmp_path / "out.csv", tmp_path / "secret.csv"
    secret.write_text("s3cret\ns3cret\n")
    before = server.dump()

    reply = ask(server, statement.format(path=path, secret=secret))

    assert reply.status == 500, reply
    assert "s3cret\\n" not in reply.text
    assert [*tmp_path.iterdir()] == [secret]
    assert server.dump() == before


@needs_datafusion
@pytest.mark.parametrize(
    "function", ["date_bin_gapfill(INTERVAL '1 hour', time)", 'selector_last("yield", time)', "tz(time)"]
)
def test_functions_that_influxdb_adds_are_not_supported(server: SimServer, function: str) -> None:
    error = error_of(server, f'SELECT {function} FROM "while"')

    assert error.endswith(f"the function {function.partition('(')[0]}() is not supported by the simulator")


@needs_datafusion
def test_types_that_rows_do_not_have_are_not_supported(server: SimServer) -> None:
    assert "decimal128(5, 2) is not supported by the simulator" in error_of(server, "SELECT 1.5::decimal(5, 2) AS d")


@needs_datafusion
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT repeat('x', 2000000000) AS y",
        "SELECT array_agg(repeat('x', 1000)) AS y FROM generate_series(1, 10000000)",
        "SELECT value, repeat('x', 1000) AS y FROM generate_series(1, 10000000)",
    ],
)
def test_memory_is_bounded(server: SimServer, statement: str) -> None:
    assert error_of(server, statement).startswith("Resources exhausted: ")
    assert sql(server, 'SELECT count(*) AS n FROM "while"') == [{"n": 4}]


@needs_datafusion
def test_time_is_bounded(server: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_engine, "MAX_SECONDS", 1.0)

    assert "1 seconds" in error_of(server, "SELECT count(*) AS n FROM generate_series(1, 1000000000000)")


@needs_datafusion
def test_rows_of_a_table_are_bounded(server: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_engine, "MAX_ROWS", 3)

    assert "more than 3 rows is not supported by the simulator" in error_of(server, 'SELECT * FROM "while"')


@needs_datafusion
@pytest.mark.parametrize("name", ['a b"c', "Upper", "it's", "x.y", "ü😀", "select"])
def test_tables_are_found_by_odd_names(server: SimServer, name: str) -> None:
    assert write(server, f"{name.replace(' ', chr(92) + ' ')} f=1 1").status == 204
    quoted = '"' + name.replace('"', '""') + '"'

    assert sql(server, f"SELECT f FROM {quoted}") == [{"f": 1.0}]


def test_without_datafusion_an_error_says_how_to_install_it(server: SimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datafusion", None)

    assert error_of(server, "SELECT 1") == "a SQL statement of your own needs DataFusion: pip install 'iggyflux[sim]'"
