"""Whatever the query is, a language answers or rejects it: it raises nothing but `QueryError`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iggyflux.sim import SimServer
from iggyflux.sim.queries import QueryError, flux, influxql
from iggyflux.sim.store import Store
from tests.sim.client import write

LINES = """
while,class=d1,if=a yield=21.5,from=3i,"in"="ok",is=true 1000
while,class=d2 yield=22 1000
def yield="text" 604800000000001
"""
NOW = 2 * 10**18
INFLUXQL = """
SELECT SHOW DELETE CREATE DROP DATABASE MEASUREMENTS FIELD TAG KEYS SERIES VALUES RETENTION POLICY POLICIES FROM WHERE
GROUP BY ORDER LIMIT OFFSET ASC DESC AND OR AS ON WITH DURATION INF SHARD DEFAULT time now count sum mean min max first
last while class yield from "in" def test "while" "" 'd1' '' 'x 1 -5 1.5 7d 1h 1h30m $p $q /./ /(/ * :: tag field
float integer string ( ) , ; . = != <> < <= > >= =~ !~ + - / true false 1970-01-01T00:00:00Z '1970-01-01T00:00:00Z' \\ é
99999999999999999999 '99999-01-01'
"""
FLUX = """
from( bucket: "test" "nope" ) |> range( start: 0 -1h stop: now() time( v: 5 "x" filter( fn: (r) => r._value r["class"]
== != < >= =~ /d1/ /(/ and or not exists keep( columns: ["_time"] ["_value","class"] [ ] drop( group( mode: "except"
pivot( rowKey: columnKey: ["_field"] valueColumn: "_value" "class" sort( desc: true limit( n: 1 offset: -3 yield( name:
first( last( min( max( count( sum( mean( column: "_time" x = x { } + import option 1.5 1d 1970-01-02T00:00:00Z , . é " -
9999-99-99 99999999999999999999 ( )
"""


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with SimServer(2) as server:
        assert write(server, LINES.strip()).status == 204
        yield server.store


def ask_influxql(store: Store, text: str) -> None:
    with contextlib.suppress(QueryError):
        for statement in influxql.parse(text, {"p": 1, "q": "d1"}, NOW):
            if not isinstance(statement, influxql.ChangeStatement):
                for frame in influxql.run(store, statement, "test"):
                    list(frame.rows)


def ask_flux(store: Store, text: str) -> None:
    with contextlib.suppress(QueryError):
        flux.run(flux.Context(store, NOW), text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
@given(
    st.sampled_from(["", "SELECT * FROM while WHERE", "SELECT", "SHOW", "DELETE"]),
    st.lists(st.sampled_from(INFLUXQL.split())),
)
@example("SELECT f FROM while WHERE", ["("] * 2_000)
@example("SELECT yield FROM while WHERE", ["class", "=", "'d1'", *["OR", "class", "=", "'d1'"] * 5_000])
@example("SELECT yield FROM while WHERE", ["class", "=~", "/(/"])
@example("SELECT yield FROM", ["/(/"])
@example("SELECT sum(*), min(*) FROM while", [])
@example('SELECT sum(yield), mean("in"), max(is) FROM /./', [])
@example("SELECT * FROM while WHERE", ["time", ">", "'99999-01-01'"])
@example("SELECT * FROM while WHERE", ["time", ">", "9" * 40])
def test_influxql_answers_or_refuses(store: Store, head: str, words: list[str]) -> None:
    ask_influxql(store, " ".join((head, *words)))


HEAD = 'from(bucket: "test") |> range(start: 1970-01-01T00:00:00Z, stop: 1971-01-01T00:00:00Z)'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
@given(
    st.sampled_from(["", HEAD, f"{HEAD} |> filter(fn: (r) => ", f"{HEAD} |>"]), st.lists(st.sampled_from(FLUX.split()))
)
@example(HEAD, ["("] * 2_000)
@example(HEAD, ["|> filter(fn: (r) =>", 'r.class == "d1"', *["or", 'r.class == "d1"'] * 5_000, ")"])
@example(HEAD, ["|> filter(fn: (", "a" * 5_000, ")"])
@example(HEAD, ["|> sum()"])
@example(HEAD, ["|> filter(fn: (r) => r.class =~ /(/)"])
@example(HEAD, ['|> filter(fn: (r) => r._value > "x")'])
@example(HEAD, ["|> filter(fn: (r) => r > 1)"])
@example(HEAD, ["|> filter(fn: (r) => -r.class == 1)"])
@example(HEAD, ["|> limit(n: 1, offset: -3)"])
@example(HEAD, ["|> range(start: 99999999999999999999)"])
@example(HEAD, ['|> pivot(rowKey: ["class"], columnKey: ["nope"], valueColumn: "nope")'])
def test_flux_answers_or_refuses(store: Store, head: str, words: list[str]) -> None:
    ask_flux(store, " ".join((head, *words)))


def test_each_pair_of_flux_functions_answers_or_refuses(store: Store) -> None:
    calls = [
        "keep(columns: [])",
        'keep(columns: ["_value"])',
        'drop(columns: ["_value"])',
        "group()",
        "count()",
        "sum()",
    ]
    calls += ["mean()", "min()", "last()", 'sort(columns: ["nope"])', "limit(n: 0)", 'group(columns: ["class"])']
    calls += ['pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")', 'yield(name: "x")']
    for pair in itertools.product(calls, repeat=2):
        ask_flux(store, " |> ".join((HEAD, *pair)))
