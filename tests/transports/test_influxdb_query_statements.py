"""Statements: a text of a document is a name or a value, in every language, and never more than that.

The simulator's parsers read them back; `tests/servers` compares these with the real servers' parsers.
"""

from __future__ import annotations

import re
import string
import time
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


# Texts, comments and regular expressions of the three languages, as plain patterns of quadratic time.
_LITERALS = {
    "influxql": r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|--[^\n]*|/\*.*?\*/|(?<=~)\s*/(?:[^/\\\n]|\\.)*/""",
    "sql": r"""'[^']*'|"[^"]*"|--[^\n]*|/\*.*?\*/""",
    "flux": r""""(?:[^"\\]|\\.)*"|//[^\n]*|(?<=~)\s*/(?:[^/\\\n]|\\.)*/""",
}
_WRITES = {"influxql": r";|\binto\b", "sql": ";", "flux": r"\bto\s*\("}
_TOKENS = [
    "'",
    '"',
    "\\",
    "--",
    "/*",
    "*/",
    "/",
    "//",
    "~",
    "\n",
    " ",
    "a",
    "; ",
    "into ",
    "to(b)",
    "$start ",
    "$stop ",
]
_MORE_TOKENS = ["(", ",", ":", "=", ".", "from ", "select", "by", "$$", "$q$", "E'", "`", "''", "1", "to ("]


def _code(text: str, language: str) -> str:
    return re.sub(_LITERALS[language], " ", text, flags=re.DOTALL).strip().rstrip(";").strip()


def _written_by(tokens: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(tokens), max_size=14).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(LANGUAGES)), _written_by(_TOKENS))
@example("sql", "'$start ")
@example("flux", '"\\"to(b)')
@example("influxql", "~/*a/ $stop ~/*/")
def test_what_is_not_closed_is_code(language: str, text: str) -> None:
    """As plain patterns have it, which look for each closing again."""
    pattern = rf"{_LITERALS[language]}|\$(start|stop)\b"
    bounds = {name: LANGUAGES[language].time(ns) for name, ns in (("start", 1), ("stop", 2))}

    expected = re.sub(pattern, lambda found: bounds.get(found[1], found[0]), text, flags=re.DOTALL)

    assert fill(text, language, 1, 2) == expected
    code = _code(f"SELECT f {text}", language)
    refused = re.search(_WRITES[language], code) or {"$start", "$stop"} - set(re.findall(r"\$(?:start|stop)\b", code))
    assert _is_refused(f"SELECT f {text}", language) == bool(refused)


def _is_refused(statement: str, language: str) -> bool:
    try:
        check_statement(statement, language)
    except StatementError:
        return True
    return False


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(LANGUAGES)), _written_by([*_TOKENS, *_MORE_TOKENS]), st.booleans())
@example("influxql", r'FROM /"\\/ "/; into x; "', True)
@example("sql", "$a$ $$ $a$ ; a; $a$ $$ $a$", True)
def test_no_literal_hides_a_writing_statement(language: str, text: str, is_first: bool) -> None:
    bounds = "$start , $stop "
    statement = f"SELECT {bounds}{text}" if is_first else f"SELECT f {text} {bounds}"

    assert _is_refused(statement, language) or re.search(_WRITES[language], _code(statement, language)) is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        (
            "flux",
            'from(bucket: b) |> range(start: $start, stop: $stop) |> f(r: /a"b/, v: r._m) |> to(bucket: b)',
        ),
        ("sql", "SELECT * FROM m WHERE time >= $start AND time < $stop AND x = $$it's$$; DROP TABLE cpu"),
        ("sql", "SELECT * FROM m WHERE time >= $start AND time < $stop AND x = E'it\\'s'; DROP TABLE cpu"),
        ("sql", "SELECT * FROM m WHERE time >= $start AND time < $stop AND `it's` > 0; DROP TABLE cpu"),
        ("influxql", "SELECT f INTO n FROM /it's/ WHERE time >= $start AND time < $stop"),
        ("influxql", "SELECT f FROM /it's/ WHERE time >= $start AND time < $stop; DROP SERIES FROM 'm'"),
    ],
)
def test_a_quote_in_a_literal_hides_no_write(language: str, text: str) -> None:
    with pytest.raises(StatementError, match="only"):
        check_statement(text, language)


_SPAN = "time >= $start AND time < $stop"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        *(
            ("influxql", each.replace("§", _SPAN))
            for each in (
                r"SELECT f FROM /cpu\/*/ WHERE §",
                "SELECT f FROM /it's.*/ WHERE § AND x = 'y'",
                'SELECT /a"b/ FROM "m" WHERE §',
                'select mean(/a"b/) from "m", /it\'s/ where § group by /x"/, "y"',
                'SELECT f FROM "d"."r"./it\'s/ WHERE § AND x = \'y\'',
                "SELECT a / 2, f(a) / 3 FROM m WHERE x =~ /it's/ AND § AND y = 'z'",
                "SELECT /* it's */ f FROM m WHERE § AND y = 'z'",
            )
        ),
        *(
            ("sql", each.replace("§", _SPAN))
            for each in (
                "SELECT * FROM m WHERE x = $$it's$$ AND § AND y = 'z'",
                "SELECT * FROM m WHERE x = $q$it's $$ $q$ AND § AND y = 'z'",
                r"SELECT * FROM m WHERE x = E'it\'s' AND §",
                r"SELECT * FROM m WHERE x = e'it''s\'' AND § AND y = 'z'",
                "SELECT `it's` FROM m WHERE § AND y = 'z'",
                "SELECT * FROM m WHERE time >= $start AND time < $stop",
            )
        ),
        *(
            ("flux", f'import "regexp" {each} from(bucket: "b") |> range(start: $start, stop: $stop)')
            for each in (
                'p = /a"b/',
                'p = f(r: /a"b/, v: "c")',
                'p = [/a"/, /b/]',
                'p = f( // a "quoted" word, and an open one: "\n r: 1)',
                "p = (1 + 2) / 3 / 4",
            )
        ),
    ],
)
def test_a_quote_in_a_literal_hides_no_bound(language: str, text: str) -> None:
    check_statement(text, language)
    filled = fill(text, language, 1, 2)
    assert "$start" not in filled
    assert "$stop" not in filled


@pytest.mark.parametrize("language", list(LANGUAGES))
@pytest.mark.parametrize("part", ["\\'", '\\"', "/*", "~/*a/", "E''b'", "$a$b", "$$ ", "` '", "(/a", "from /", "~ "])
def test_an_open_text_takes_linear_time(language: str, part: str) -> None:
    text = "'\"" + part * 20_000
    start = time.thread_time()
    fill(text, language, 1, 2)
    fill(text[1:], language, 1, 2)
    fill(text[2:], language, 1, 2)

    assert time.thread_time() - start < 1


@given(st.integers(min_value=statements.FIRST_TIME, max_value=statements.END_OF_TIME))
def test_a_time_is_written_exactly(time: int) -> None:
    for language in LANGUAGES.values():
        digits = "".join(character for character in language.time(time) if character in string.digits + "-")
        assert int(digits) == time
