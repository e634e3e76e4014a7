"""Statements: a text of a document is a name or a value, in every language, and never more than that.

The simulator's parsers read them back; `tests/servers` compares these with the real servers' parsers.
"""

from __future__ import annotations

import string
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from iggyflux.errors import PointError
from iggyflux.lineprotocol import Point
from iggyflux.sim import SimServer
from iggyflux.sim.queries.tokens import TokenCursor
from iggyflux.transports.influxdb.query import statements
from iggyflux.transports.influxdb.query.statements import LANGUAGES, StatementError, check_statement, fill
from tests.sim.client import flux, influxql, sql, write

START = 1_700_000_000_000_000_000
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
nasty = st.text("\"'\\$ {}\n\r\t/*-;,=ab§😀%`", max_size=12)
anything = texts | nasty


@given(anything)
@example("\\")
@example('"; DROP MEASUREMENT m; --')
def test_a_quoted_influxql_text_is_one_token_that_reads_as_it_was(text: str) -> None:
    for quoted in (LANGUAGES["influxql"].identifier(text), LANGUAGES["influxql"].text(text)):
        cursor = TokenCursor(quoted)
        assert cursor.next().value == text
        assert cursor.ended()


@given(anything)
@example("'")
def test_a_quoted_sql_text_is_one_token_that_reads_as_it_was(text: str) -> None:
    for quoted in (LANGUAGES["sql"].identifier(text), LANGUAGES["sql"].text(text)):
        cursor = TokenCursor(quoted, sql=True)
        assert cursor.next().value == text
        assert cursor.ended()


@given(anything)
@example("${r._value}")
@example('" + string(v: now()) + "')
def test_a_quoted_flux_text_holds_no_end_and_no_expression(text: str) -> None:
    quoted = LANGUAGES["flux"].text(text)

    inside = quoted[1:-1]
    assert "${" not in inside
    assert "\n" not in inside
    assert _unescaped_flux(inside) == text


def _unescaped_flux(inside: str) -> str:
    """As the Flux specification reads it; an unescaped quote fails."""
    result, position = "", 0
    while position < len(inside):
        character = inside[position]
        assert character != '"'
        if character != "\\":
            result, position = result + character, position + 1
            continue
        escaped = inside[position + 1]
        if escaped == "x":
            result, position = result + chr(int(inside[position + 2 : position + 4], 16)), position + 4
            continue
        result, position = result + {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}[escaped], position + 2
    return result


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, SimServer]]:
    with SimServer(1) as one, SimServer(2) as two, SimServer(3) as three:
        yield {1: one, 2: two, 3: three}


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\"'\\$ {},=/*;-"), min_size=1, max_size=8
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names, names, names, names)
@example('m"', "t'", "v${x}", "f\"'")
@example("m'", 't"', "v\\'x", "f$")
@example("m;--", "t/*", "v*/", "f//")
def test_names_and_values_find_their_point_and_no_other(
    servers: dict[int, SimServer], measurement: str, tag: str, value: str, field: str
) -> None:
    """Whatever they contain, in each language of each product."""
    assume(tag != field)
    for dialect, server in servers.items():
        try:
            points = [
                Point(name, {tag: other}, {field: 1.5}, START)
                for name, other in ((measurement, value), (measurement, f"{value}x"), (f"{measurement}x", value))
            ]
            lines = [point.encode(f"v{dialect}") for point in points]
        except PointError:
            continue
        server.reset()
        if write(server, "\n".join(lines)).status != 204:
            continue
        where = ((tag, (value,)),)
        span = (START, START + 1)
        if dialect < 3:
            asked = statements.select_influxql(measurement, [(field, "float")], where, *span)
            (series,) = influxql(server, asked)[0]["series"]
            assert (series["name"], series["tags"], series["values"]) == (measurement, {tag: value}, [[START, 1.5]])
        if dialect == 2:
            script = statements.select_flux("test", measurement, [field], where, *span)
            assert flux(server, script).count("\r\n,,0,") == 1
            assert flux(server, script).endswith(",1.5\r\n\r\n")
        if dialect == 3:
            found = sql(server, statements.select_sql(measurement, [tag], [field], where, *span, chosen=True))
            assert found == [{"time": START, tag: value, field: 1.5}]


def test_a_statement_is_bounded_by_integers_of_nanoseconds() -> None:
    for text in (
        statements.select_influxql("m", [("f", "float")], (), -5, 2**62 + 1),
        statements.select_sql("m", [], ["f"], (), -5, 2**62 + 1, chosen=False),
        statements.select_flux("b", "m", [], (), -5, 2**62 + 1),
    ):
        assert "-5" in text
        assert str(2**62 + 1) in text


@pytest.mark.parametrize(
    ("language", "text", "filled"),
    [
        ("influxql", "WHERE time >= $start AND time < $stop", "WHERE time >= 1 AND time < 2"),
        ("influxql", "'$start' \"$stop\" -- $start\n/* $stop */ =~ /$start/ $stop", None),
        ("influxql", "'it\\'s $start' $stop", "'it\\'s $start' 2"),
        ("influxql", "$started $start_ $start", "$started $start_ 1"),
        ("sql", "'it''s $start' \"a\"\"$stop\" $start", "'it''s $start' \"a\"\"$stop\" to_timestamp_nanos(1)"),
        ("sql", "'\\' $start --$stop", "'\\' to_timestamp_nanos(1) --$stop"),
        (
            "flux",
            'range(start: $start, stop: $stop) // "$start',
            'range(start: time(v: 1), stop: time(v: 2)) // "$start',
        ),
        ("flux", '"\\"$start" =~ /$stop/ $stop', '"\\"$start" =~ /$stop/ time(v: 2)'),
    ],
)
def test_bounds_are_put_where_they_are_no_part_of_a_text(language: str, text: str, filled: str | None) -> None:
    found = fill(text, language, 1, 2)

    assert found == (filled if filled is not None else text.removesuffix("$stop") + "2")


@pytest.mark.parametrize(
    ("language", "text", "why"),
    [
        ("influxql", "SELECT f FROM m WHERE time >= $start", "does not use $stop"),
        ("influxql", "SELECT f FROM m WHERE x = '$start $stop'", "does not use $start"),
        ("influxql", "SELECT f FROM m WHERE time >= $start AND time < $stop; DROP MEASUREMENT m", "one statement"),
        ("influxql", "DROP SERIES FROM m WHERE time >= $start AND time < $stop", "only SELECT"),
        ("influxql", "SELECT f INTO n FROM m WHERE time >= $start AND time < $stop", "without INTO"),
        ("sql", "DELETE FROM m WHERE time >= $start AND time < $stop", "only SELECT"),
        ("sql", "SELECT 1; SELECT $start, $stop", "one statement"),
        ("flux", 'from(bucket: "b") |> range(start: $start, stop: $stop) |> to(bucket: "c")', "writes"),
    ],
)
def test_a_statement_that_does_more_than_read_a_span_is_refused(language: str, text: str, why: str) -> None:
    with pytest.raises(StatementError, match=why.replace("$", r"\$")):
        check_statement(text, language)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("influxql", "select f from m where time >= $start and time < $stop;"),
        ("influxql", "SELECT f FROM m WHERE s = 'a; into b' AND time >= $start AND time < $stop -- the end"),
        ("sql", "WITH x AS (SELECT * FROM m) SELECT * FROM x WHERE time >= $start AND time < $stop"),
        ("flux", 'from(bucket: "to (b)") |> range(start: $start, stop: $stop)'),
    ],
)
def test_a_statement_that_reads_a_span_is_accepted(language: str, text: str) -> None:
    check_statement(text, language)


@given(st.integers(min_value=statements.FIRST_TIME, max_value=statements.END_OF_TIME))
def test_a_time_is_written_exactly(time: int) -> None:
    for language in LANGUAGES.values():
        digits = "".join(character for character in language.time(time) if character in string.digits + "-")
        assert int(digits) == time
