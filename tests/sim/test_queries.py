"""Reading back: each language returns what was written, and reports in its own form what it does not support."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from iggyflux.sim import SimServer
from tests.sim.client import call, flux, influxql, needs_datafusion, rows, sql, write

LINES = """
env,device=d1,site=a celsius=21.5,count=3i,state="ok" 1000
env,device=d2 celsius=22,count=4i 1000
env,device=d1,site=a celsius=23,on=true 2000
env,device=d3,site=b state="a,\\"b" 3000
other value=1 500
"""


@pytest.fixture
def env(any_dialect: SimServer) -> SimServer:
    assert write(any_dialect, LINES.strip()).status == 204
    return any_dialect


@pytest.fixture
def env1(v1: SimServer) -> SimServer:
    assert write(v1, LINES.strip()).status == 204
    return v1


@pytest.fixture
def env2(v2: SimServer) -> SimServer:
    assert write(v2, LINES.strip()).status == 204
    return v2


@pytest.fixture
def env3(v3: SimServer) -> SimServer:
    assert write(v3, LINES.strip()).status == 204
    return v3


# --- InfluxQL, the same in all dialects ---

SELECTS: list[tuple[str, list[str], list[list[Any]]]] = [
    ("SELECT celsius FROM env WHERE device = 'd1'", ["time", "celsius"], [[1000, 21.5], [2000, 23]]),
    ("SELECT celsius, device FROM env WHERE time > 1000", ["time", "celsius", "device"], [[2000, 23, "d1"]]),
    ("SELECT celsius FROM env WHERE time >= 1000 AND time < 2000 AND site = ''", ["time", "celsius"], [[1000, 22]]),
    ("SELECT celsius FROM env WHERE site != 'a'", ["time", "celsius"], [[1000, 22]]),
    ('SELECT state FROM env WHERE state =~ /b$/ OR "count" > 3', ["time", "state"], [[3000, 'a,"b']]),
    ("SELECT on FROM env WHERE on = true", ["time", "on"], [[2000, True]]),
    ("SELECT celsius FROM env ORDER BY time DESC LIMIT 1", ["time", "celsius"], [[2000, 23]]),
    ("SELECT celsius FROM env WHERE device = 'd1' LIMIT 1 OFFSET 1", ["time", "celsius"], [[2000, 23]]),
    ("SELECT celsius AS c FROM env WHERE time = 2000", ["time", "c"], [[2000, 23]]),
    ("SELECT count(celsius), max(celsius) FROM env", ["time", "count", "max"], [[0, 3, 23]]),
    ("SELECT first(celsius) FROM env WHERE device = 'd1'", ["time", "first"], [[1000, 21.5]]),
    ("SELECT celsius FROM env WHERE time >= '1970-01-01T00:00:00.000002Z'", ["time", "celsius"], [[2000, 23]]),
    ("SELECT celsius FROM env WHERE time >= 1u AND time < 2u AND device = 'd2'", ["time", "celsius"], [[1000, 22]]),
    ("SELECT value FROM other", ["time", "value"], [[500, 1]]),
]


@pytest.mark.parametrize(("statement", "columns", "values"), SELECTS, ids=[statement for statement, _, _ in SELECTS])
def test_select(env: SimServer, statement: str, columns: list[str], values: list[list[Any]]) -> None:
    series = influxql(env, statement)[0]["series"]

    assert len(series) == 1
    assert (series[0]["columns"], series[0]["values"]) == (columns, values)


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("SHOW MEASUREMENTS", [["env"], ["other"]]),
        ("SHOW TAG KEYS FROM env", [["device"], ["site"]]),
        ("SHOW FIELD KEYS FROM other", [["value", "float"]]),
        (
            "SHOW FIELD KEYS FROM env",
            [["celsius", "float"], ["count", "integer"], ["on", "boolean"], ["state", "string"]],
        ),
        ("SHOW SERIES FROM env WHERE site = 'a'", [["env,device=d1,site=a"]]),
        ("SHOW MEASUREMENTS LIMIT 1 OFFSET 1", [["other"]]),
    ],
)
def test_show(env: SimServer, statement: str, values: list[list[str]]) -> None:
    assert rows(env, statement) == values


def test_group_by_all_tags_gives_each_series_in_order(env1: SimServer) -> None:
    series = influxql(env1, "SELECT *::field FROM env GROUP BY *")[0]["series"]

    assert [(each["tags"], len(each["values"])) for each in series] == [
        ({"device": "d1", "site": "a"}, 2),
        ({"device": "d2", "site": ""}, 1),
        ({"device": "d3", "site": "b"}, 1),
    ]
    assert series[0]["columns"] == ["time", "celsius", "count", "on", "state"]


def test_tags_alone_or_unknown_names_are_an_empty_result_and_no_error(env: SimServer) -> None:
    for statement in ("SELECT device FROM env", "SELECT nope FROM env", "SELECT * FROM nope"):
        assert influxql(env, statement) == [{"statement_id": 0}]


def test_casts_convert_numbers_and_select_types(env1: SimServer) -> None:
    assert rows(env1, "SELECT celsius::integer FROM env WHERE device = 'd1'") == [[1000, 21], [2000, 23]]
    assert rows(env1, "SELECT celsius::string FROM env") == []


def test_chunks_say_whether_more_follows(env1: SimServer) -> None:
    query = urlencode(
        {"q": "SELECT celsius FROM env", "db": "test", "chunked": "true", "chunk_size": "2", "epoch": "ns"}
    )

    chunks = [json.loads(line) for line in call(env1, "GET", f"/query?{query}").body.splitlines()]

    assert [len(chunk["results"][0]["series"][0]["values"]) for chunk in chunks] == [2, 1]
    assert [chunk["results"][0].get("partial", False) for chunk in chunks] == [True, False]
    assert [chunk["results"][0]["series"][0].get("partial", False) for chunk in chunks] == [True, False]


@pytest.mark.parametrize(
    ("epoch", "time"), [("ns", -5), ("u", 0), ("ms", 0), ("xyz", -5), ("", "1969-12-31T23:59:59.999999995Z")]
)
def test_epochs_cut_towards_zero_and_unknown_ones_are_nanoseconds(v1: SimServer, epoch: str, time: object) -> None:
    write(v1, "m f=1 -5")

    assert influxql(v1, "SELECT f FROM m", epoch=epoch)[0]["series"][0]["values"] == [[time, 1]]


def test_parameters_are_bound(env1: SimServer) -> None:
    found = influxql(env1, "SELECT celsius FROM env WHERE device = $d AND time > $t", params='{"d": "d1", "t": 1000}')

    assert found[0]["series"][0]["values"] == [[2000, 23]]


def test_forms_are_taken_from_the_body(env1: SimServer) -> None:
    body = urlencode({"q": "SHOW DATABASES", "db": "test"})
    reply = call(env1, "POST", "/query", body, {"Content-Type": "application/x-www-form-urlencoded"})

    assert reply.json["results"][0]["series"][0] == {"name": "databases", "columns": ["name"], "values": [["test"]]}


def test_csv(env1: SimServer) -> None:
    query = urlencode({"q": "SELECT celsius, state FROM env GROUP BY device", "db": "test"})

    text = call(env1, "GET", f"/query?{query}", headers={"Accept": "application/csv"}).text

    assert text.splitlines()[:2] == ["name,tags,time,celsius,state", "env,device=d1,1000,21.5,ok"]
    assert text.splitlines()[-1] == 'env,device=d3,3000,,"a,""b"'


def test_msgpack_keeps_the_difference_between_integers_and_floats(v1: SimServer) -> None:
    import msgspec

    write(v1, "m f=1,i=1i 1700000000123456789")
    query = urlencode({"q": "SELECT f, i FROM m", "db": "test"})

    reply = call(v1, "GET", f"/query?{query}", headers={"Accept": "application/x-msgpack"})

    time, number, integer = msgspec.msgpack.decode(reply.body)["results"][0]["series"][0]["values"][0]
    assert (time.code, int.from_bytes(time.data[:8], "big"), int.from_bytes(time.data[8:], "big")) == (
        5,
        1_700_000_000,
        123_456_789,
    )
    assert (type(number), type(integer)) == (float, int)


def test_databases_and_policies_are_made_and_dropped(v1: SimServer) -> None:
    for statement in (
        "CREATE DATABASE more WITH DURATION 7d NAME week",
        'CREATE RETENTION POLICY "long" ON more DURATION 52w REPLICATION 1 DEFAULT',
    ):
        assert influxql(v1, statement) == [{"statement_id": 0}]
    assert rows(v1, "SHOW RETENTION POLICIES ON more") == [
        ["week", "168h0m0s", "24h0m0s", 1, False],
        ["long", "8736h0m0s", "168h0m0s", 1, True],
    ]
    assert influxql(v1, "DROP DATABASE more") == [{"statement_id": 0}]
    assert influxql(v1, "SHOW RETENTION POLICIES ON more")[0]["error"] == "database not found: more"


def test_points_are_deleted_by_measurement_tag_and_time(env1: SimServer) -> None:
    influxql(env1, "DELETE FROM other")
    influxql(env1, "DELETE FROM env WHERE device = 'd3'")
    influxql(env1, "DELETE FROM env WHERE time < 2000 AND device = 'd1'")

    assert env1.dump() == ["env,device=d1,site=a celsius=23.0,on=true 2000", "env,device=d2 celsius=22.0,count=4i 1000"]


def test_errors_have_the_form_of_the_dialect() -> None:
    expected = {1: (400, "error"), 2: (400, "message")}
    for dialect, (status, key) in expected.items():
        with SimServer(dialect) as server:
            reply = call(server, "GET", "/query?db=test&q=SELECTX")
            assert reply.status == status
            assert "found SELECTX, expected SELECT, DELETE, SHOW, CREATE, DROP" in reply.json[key]
            assert influxql(server, "SELECT * FROM m", db="nope")[0]["error"] == "database not found: nope"


def test_a_failing_second_statement_hides_its_cause_in_2(v2: SimServer) -> None:
    results = influxql(v2, "SHOW MEASUREMENTS; CREATE DATABASE x; SHOW MEASUREMENTS")

    assert results == [{"statement_id": 0}, {"statement_id": 1, "error": "not executed"}]


UNSUPPORTED = {
    "SELECT mean(f) FROM m GROUP BY time(1m)": "GROUP BY time()",
    "SELECT f FROM m GROUP BY /t/": "GROUP BY a regular expression",
    "SELECT f FROM (SELECT g FROM m)": "a subquery other than SELECT * FROM (…) ORDER BY time",
    "SELECT * FROM (SELECT f FROM m) WHERE f > 1": "a subquery other than SELECT * FROM (…) ORDER BY time",
    "SELECT median(f) FROM m": "the function median()",
    "SELECT max(f * 2) FROM m": "an expression in max()",
    "SELECT f + 1 FROM m": "an expression in the select list",
    "SELECT 2 * f FROM m": "an expression in the select list",
    "SELECT f INTO n FROM m": "INTO",
    "SELECT f FROM m, n": "a select from several measurements by name",
    "SELECT f FROM m GROUP BY * fill(none)": "FILL",
    "SELECT f FROM m GROUP BY * LIMIT 1 SLIMIT 2": "SLIMIT",
    "SELECT f FROM m tz('Europe/Oslo')": "TZ",
    "SHOW TAG VALUES WITH KEY = t": "SHOW TAG VALUES",
    "SHOW MEASUREMENTS WITH MEASUREMENT =~ /m/": "SHOW MEASUREMENTS WITH",
    "DROP MEASUREMENT m": "DROP MEASUREMENT",
    "DROP SERIES FROM m": "DROP SERIES",
    "CREATE USER anna": "CREATE USER",
    "EXPLAIN SELECT f FROM m": "EXPLAIN",
}


@pytest.mark.parametrize("statement", UNSUPPORTED)
def test_influxql_that_is_not_supported_is_named(any_dialect: SimServer, statement: str) -> None:
    write(any_dialect, "m f=1 1")
    reply = call(any_dialect, "GET", "/query?" + urlencode({"q": statement, "db": "test"}))

    assert reply.status >= 400
    assert f"{UNSUPPORTED[statement]} is not supported by the simulator" in reply.text


def test_the_order_of_ties_depends_on_the_query(v1: SimServer) -> None:
    """A client must not page by OFFSET over points that share a time."""
    write(v1, "\n".join(f"m,t={number} f={number} {time}" for time in range(5) for number in range(20)))

    seen = {
        tuple(row[1] for row in rows(v1, f"SELECT f FROM m WHERE time >= {start} AND time < 5")[-20:])
        for start in range(5)
    }

    assert len(seen) > 1
    assert {tuple(sorted(each)) for each in seen} == {tuple(range(20))}


# --- SQL: statements other than the reader's own go to DataFusion ---


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "SELECT celsius, device FROM env WHERE time >= '1970-01-01T00:00:00.000002Z' AND celsius IS NOT NULL",
            [{"celsius": 23.0, "device": "d1"}],
        ),
        (
            (
                'SELECT cast(time as bigint) AS t, "count" FROM "env" '
                "WHERE device IN ('d1', 'd2') ORDER BY time, device LIMIT 2"
            ),
            [{"t": 1000, "count": 3}, {"t": 1000, "count": 4}],
        ),
        (
            "SELECT time, state FROM env ORDER BY time DESC LIMIT 1",
            [{"time": "1970-01-01T00:00:00.000003", "state": 'a,"b'}],
        ),
        (
            "SELECT count(*) AS n, min(time) AS a, max(celsius) AS m FROM env",
            [{"n": 4, "a": "1970-01-01T00:00:00.000001", "m": 23.0}],
        ),
        ("SELECT DISTINCT site FROM env WHERE site IS NOT NULL ORDER BY site", [{"site": "a"}, {"site": "b"}]),
        (
            "SELECT site, count(*) AS n FROM env GROUP BY site ORDER BY site",
            [{"site": "a", "n": 2}, {"site": "b", "n": 1}, {"n": 1}],
        ),
        ("SELECT celsius FROM env WHERE NOT (device = 'd1') AND celsius > 1.5", [{"celsius": 22.0}]),
        (
            (
                "SELECT column_name, data_type FROM information_schema.columns "
                "WHERE table_name = 'other' ORDER BY column_name"
            ),
            [
                {"column_name": "time", "data_type": "Timestamp(Nanosecond, None)"},
                {"column_name": "value", "data_type": "Float64"},
            ],
        ),
        ("SELECT 1 AS one", [{"one": 1}]),
        (
            (
                "SELECT celsius FROM env WHERE time >= to_timestamp_nanos(2000) "
                "AND time < TIMESTAMP '1970-01-01T00:00:01Z' AND celsius > 0"
            ),
            [{"celsius": 23.0}],
        ),
        (
            "SELECT celsius FROM env WHERE celsius BETWEEN 21 AND 22 ORDER BY celsius DESC",
            [{"celsius": 22.0}, {"celsius": 21.5}],
        ),
    ],
)
@needs_datafusion
def test_sql(env3: SimServer, statement: str, expected: list[dict[str, Any]]) -> None:
    assert sql(env3, statement) == expected


@needs_datafusion
def test_sql_parameters(env3: SimServer) -> None:
    found = sql(
        env3,
        "SELECT celsius FROM env WHERE time >= $a AND time < $b",
        a="1970-01-01T00:00:00.000002",
        b="1970-01-01T00:00:00.000003",
    )

    assert found == [{"celsius": 23.0}]


@needs_datafusion
def test_sql_formats(env3: SimServer) -> None:
    def ask(name: str) -> tuple[str, str]:
        query = urlencode({"db": "test", "q": "SELECT * FROM other", "format": name})
        reply = call(env3, "GET", f"/api/v3/query_sql?{query}")
        return reply.headers["content-type"], reply.text

    assert ask("json") == ("application/json", '[{"time":"1970-01-01T00:00:00.000000500","value":1.0}]')
    assert ask("jsonl") == ("application/jsonl", '{"time":"1970-01-01T00:00:00.000000500","value":1.0}\n')
    assert ask("csv") == ("text/csv", "time,value\n1970-01-01T00:00:00.000000500,1.0\n")
    assert ask("pretty")[1].startswith("+------")


@needs_datafusion
def test_sql_errors(env3: SimServer) -> None:
    def ask(statement: str, database: str = "test") -> tuple[int, str]:
        reply = call(env3, "POST", "/api/v3/query_sql", json.dumps({"db": database, "q": statement}))
        return reply.status, reply.text

    assert ask("SELECT 1", "nope") == (404, '{"error":"query error: database not found: nope"}')
    prefix = "query error: error while planning query: "
    assert ask("SELECT * FROM nope") == (500, f"{prefix}Error during planning: table 'public.iox.nope' not found")
    assert ask("SELECT nope FROM env")[1].startswith(f"{prefix}Schema error: No field named nope.")
    assert ask("DELETE FROM env")[1] == f"{prefix}Error during planning: DML not supported: Delete"


@needs_datafusion
def test_rows_without_an_order_are_not_in_that_of_time(v3: SimServer) -> None:
    write(v3, "\n".join(f"m f={number} {number}" for number in range(10)))

    found = [row["f"] for row in sql(v3, "SELECT f FROM m")]

    assert sorted(found) == list(range(10)) != found


def test_influxql_over_the_newer_route_carries_the_measurement(env3: SimServer) -> None:
    body = json.dumps({"db": "test", "q": "SELECT value FROM other", "format": "json"})

    assert call(env3, "POST", "/api/v3/query_influxql", body).json == [
        {"iox::measurement": "other", "time": "1970-01-01T00:00:00.000000500", "value": 1.0}
    ]


# --- Flux ---

HEAD = 'from(bucket: "test") |> range(start: 0, stop: 1970-01-02T00:00:00Z)'
BOUNDS = "1970-01-01T00:00:00Z,1970-01-02T00:00:00Z"


def test_flux_gives_a_table_for_each_series_and_field(env2: SimServer) -> None:
    text = flux(env2, f'{HEAD} |> filter(fn: (r) => r._measurement == "env" and r._field == "celsius")')

    assert text == (
        "#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string,string,string\r\n"
        "#group,false,false,true,true,false,false,true,true,true,true\r\n"
        "#default,_result,,,,,,,,,\r\n"
        ",result,table,_start,_stop,_time,_value,_field,_measurement,device,site\r\n"
        f",,0,{BOUNDS},1970-01-01T00:00:00.000001Z,21.5,celsius,env,d1,a\r\n"
        f",,0,{BOUNDS},1970-01-01T00:00:00.000002Z,23,celsius,env,d1,a\r\n"
        "\r\n"
        "#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string,string\r\n"
        "#group,false,false,true,true,false,false,true,true,true\r\n"
        "#default,_result,,,,,,,,\r\n"
        ",result,table,_start,_stop,_time,_value,_field,_measurement,device\r\n"
        f",,1,{BOUNDS},1970-01-01T00:00:00.000001Z,22,celsius,env,d2\r\n"
        "\r\n"
    )


def test_flux_without_annotations_names_the_result_in_each_row(env2: SimServer) -> None:
    script = f'{HEAD} |> filter(fn: (r) => r._measurement == "other") |> keep(columns: ["_time", "_value"])'
    reply = call(env2, "POST", "/api/v2/query?org=org", script, {"Content-Type": "application/vnd.flux"})

    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.text == ",result,table,_time,_value\r\n,_result,0,1970-01-01T00:00:00.0000005Z,1\r\n\r\n"


@pytest.mark.parametrize(
    ("pipe", "last"),
    [
        (
            (
                '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
                ' |> filter(fn: (r) => r.device == "d3")'
            ),
            f',,0,{BOUNDS},1970-01-01T00:00:00.000003Z,env,d3,b,"a,""b"',
        ),
        (
            (
                '|> filter(fn: (r) => r._field == "count") |> group() |> sort(columns: ["_value"], desc: true)'
                ' |> limit(n: 1) |> keep(columns: ["_value"])'
            ),
            ",,0,4",
        ),
        ('|> filter(fn: (r) => r._field == "celsius") |> group() |> count()', f",,0,{BOUNDS},3"),
        (
            '|> filter(fn: (r) => r._field == "celsius" and r._value > 22.5) |> keep(columns: ["_value", "device"])',
            ",,0,23,d1",
        ),
        (
            '|> filter(fn: (r) => r._field == "state" and r.device =~ /^d3$/) |> drop(columns: ["_start", "_stop"])',
            ',,0,1970-01-01T00:00:00.000003Z,"a,""b",state,env,d3,b',
        ),
        (
            (
                '|> filter(fn: (r) => exists r.site and r._field == "count") |> last() |> yield(name: "x")'
                ' |> keep(columns: ["_value"])'
            ),
            ",,0,3",
        ),
    ],
)
def test_flux_pipes(env2: SimServer, pipe: str, last: str) -> None:
    text = flux(env2, f'{HEAD} |> filter(fn: (r) => r._measurement == "env") {pipe}')

    assert text.endswith("\r\n\r\n")
    assert text.splitlines()[-2] == last


def test_flux_ranges_are_half_open(env2: SimServer) -> None:
    def count(start: str, stop: str) -> int:
        text = flux(env2, f'from(bucket: "test") |> range(start: {start}, stop: {stop})')
        return sum(line.startswith(",,") for line in text.splitlines())

    assert count("time(v: 500)", "time(v: 1000)") == 1
    assert count("time(v: 501)", "time(v: 1000)") == 0
    assert count("1969-12-31T23:59:59Z", "1970-01-01T00:00:00.000000501Z") == 1


def test_flux_strings_lose_what_real_servers_lose(v2: SimServer) -> None:
    """LF becomes CRLF, a lone CR goes."""
    write(v2, 'm s="a\nb\rc" 1')

    text = flux(v2, f'{HEAD} |> keep(columns: ["_value"])')

    assert text.endswith(',,0,"a\r\nbc"\r\n\r\n')


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        (
            'from(bucket: "nope") |> range(start: 0)',
            404,
            'failed to initialize execute state: could not find bucket "nope"',
        ),
        (
            'from(bucket: "test")',
            400,
            "cannot submit unbounded read to \"test\"; try bounding 'from' with a call to 'range'",
        ),
        ('from(bucket: "test") |> range(start: 5, stop: 4)', 400, "cannot query an empty range"),
        ('from(bucket: "test") |> rang(start: 0)', 400, "error @1:25-1:29: undefined identifier rang"),
        ('from(bucket: "test") |> range(start: 0) |> ', 400, "pipe destination must be a function call"),
        (
            'from(bucket: "test") |> range(start: 0) |> group(columns: []) |> keep(columns: ["_value"])',
            400,
            'schema collision detected: column "_value" is both of type',
        ),
        ("", 400, "request body requires either query or AST"),
    ],
)
def test_flux_errors(env2: SimServer, script: str, status: int, words: str) -> None:
    reply = call(env2, "POST", "/api/v2/query?org=org", json.dumps({"query": script}))

    assert reply.status == status
    assert words in reply.json["message"]


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ('import "strings"\nfrom(bucket: "test")', "import"),
        ('option now = () => 2020-01-01T00:00:00Z\nfrom(bucket: "test")', "option"),
        (f"{HEAD} |> filter(fn: (r) => r._value * 2.0 > 1.0)", "arithmetic"),
        (f"{HEAD} |> map(fn: (r) => ({{r with x: 1}}))", "undefined identifier map, or"),
        (f"{HEAD} |> drop(fn: (column) => column =~ /^_/)", "a row as a value"),
        (f'{HEAD} |> filter(fn: (r) => true, onEmpty: "keep")', "the argument onEmpty of filter()"),
        (f"{HEAD} |> aggregateWindow(every: 1m, fn: mean)", "undefined identifier aggregateWindow, or"),
    ],
)
def test_flux_that_is_not_supported_is_named(env2: SimServer, script: str, what: str) -> None:
    reply = call(env2, "POST", "/api/v2/query?org=org", json.dumps({"query": script}))

    assert reply.status == 400
    assert what in reply.json["message"]
    assert "not supported by the simulator" in reply.json["message"]
