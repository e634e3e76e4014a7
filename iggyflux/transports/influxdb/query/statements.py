"""Statements in the three languages: the query for a span, each name and value quoted for its language.

Pure text.  Names and values of a document reach a statement only through `LANGUAGES`; times are integer nanoseconds
everywhere.  Result columns are identified by position, not by name: a tag and a field may share one.
"""

# Statements are built from texts here, and every name and value in them is quoted.
# ruff: noqa: S608

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from iggyflux.records import Scalar
from iggyflux.values import tag_text

FIRST_TIME: Final = -(2**63) + 2
"""The earliest time that every product stores; the next is the end of the latest."""
END_OF_TIME: Final = 2**63 - 1

Where = Sequence[tuple[str, tuple[Scalar, ...]]]


@dataclass(frozen=True, slots=True)
class Language:
    """How names, texts and times are written.

    `texts` match quoted texts and comments: they hold no placeholder.  `more` match literals that are recognized only
    in some places or by some servers.
    """

    name: str
    identifier: Callable[[str], str]
    text: Callable[[str], str]
    time: Callable[[int], str]
    texts: Mapping[str, str]
    more: Mapping[str, str]


def _influxql_escaped(text: str, quote: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace(quote, "\\" + quote)
    return quote + escaped + quote


_FLUX_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "$": "\\x24"})


def _flux_text(text: str) -> str:
    # `${` would begin an expression inside a text; a dollar as a character code is right in every version.
    return '"' + text.translate(_FLUX_ESCAPES) + '"'


def _doubled(quote: str) -> Callable[[str], str]:
    return lambda text: quote + text.replace(quote, quote + quote) + quote


# Patterns of literals and comments.  The group with the name of the pattern matches the rest of the statement if the
# literal is not closed.
_SINGLE = r"'(?:(?:[^'\\]|\\.)*+'|(?P<single>.*+))"
_DOUBLE = r'"(?:(?:[^"\\]|\\.)*+"|(?P<double>.*+))'
_COMMENT = r"/\*(?:.*?\*/|(?P<comment>.*+))"
_REGEX = r"/(?:[^/\\\n]|\\.)*+/"
_COMPARED = rf"(?<=~)\s*+{_REGEX}"
# A division cannot follow these; `//` and `/*` begin a comment there.
_OPERAND = rf"(?<=[(,:=\[])\s*+(?!/[/*]){_REGEX}"
_AFTER_WORD = rf"(?:(?<=\bfrom)|(?<=\bselect)|(?<=\bby)|(?<=[^0-9]\.))\s*+(?!/[/*]){_REGEX}"
LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        "influxql": Language(
            "influxql",
            lambda name: _influxql_escaped(name, '"'),
            lambda text: _influxql_escaped(text, "'"),
            str,
            {"single": _SINGLE, "double": _DOUBLE, "line": r"--[^\n]*+", "comment": _COMMENT, "compared": _COMPARED},
            {"operand": _OPERAND, "after_word": f"(?i:{_AFTER_WORD})"},
        ),
        "sql": Language(
            "sql",
            _doubled('"'),
            _doubled("'"),
            "to_timestamp_nanos({})".format,
            {
                "single": r"'(?:[^']*+'|(?P<single>.*+))",
                "double": r'"(?:[^"]*+"|(?P<double>.*+))',
                "line": r"--[^\n]*+",
                "comment": _COMMENT,
            },
            {
                "escaped": r"(?<![\w$@#])[eE]'(?:(?:[^'\\]|\\.|'')*+'|(?P<escaped>.*+))",
                "dollar": r"(?<![\w$@#])\$(?!(?:start|stop)\$)(?P<tag>\w*+)\$(?:.*?\$(?P=tag)\$|(?P<dollar>.*+))",
                "backtick": r"`(?:[^`]*+`|(?P<backtick>.*+))",
            },
        ),
        "flux": Language(
            "flux",
            _flux_text,
            _flux_text,
            "time(v: {})".format,
            {"double": _DOUBLE, "line": r"//[^\n]*+", "compared": _COMPARED},
            {"operand": _OPERAND},
        ),
    }
)


class StatementError(ValueError):
    """A statement that cannot be used; the text says why."""


# --- statements of the user ---


_BOUND = re.compile(r"\$(start|stop)\b")


def fill(statement: str, language: str, start: int, stop: int) -> str:
    """Return `statement` with `$start` and `$stop` as literals of its language, except inside texts and comments."""
    rules = LANGUAGES[language]
    bounds = {"start": rules.time(start), "stop": rules.time(stop)}
    pieces = _pieces(statement, {**rules.texts, **rules.more})
    pieces[::2] = [_BOUND.sub(lambda found: bounds[found[1]], code) for code in pieces[::2]]
    return "".join(pieces)


def check_statement(statement: str, language: str) -> None:
    """Raise `StatementError` unless `statement` is one statement that only reads and uses both bounds."""
    rules = LANGUAGES[language]
    bare = _bare(statement, {**rules.texts, **rules.more})
    used = set(_BOUND.findall(bare))
    for name in ("start", "stop"):
        if name not in used:
            raise StatementError(f"the statement does not use ${name} outside of texts and comments")
    # Whether a server recognizes `more` or not, the statement only reads.
    _check_reading(bare, language)
    _check_reading(_bare(statement, rules.texts), language)


def _check_reading(bare: str, language: str) -> None:
    if language != "flux" and ";" in bare:
        raise StatementError("remove the text after the `;`: only one statement is allowed")
    if language == "influxql" and (re.match(r"select\b", bare, re.IGNORECASE) is None or _INTO.search(bare)):
        raise StatementError("only SELECT without INTO reads")
    if language == "sql" and re.match(r"(select|with)\b", bare, re.IGNORECASE) is None:
        raise StatementError("only SELECT reads")
    if language == "flux" and re.search(r"\bto\s*\(", bare):
        raise StatementError("`to()` writes; a reader only reads")


def _bare(statement: str, kinds: Mapping[str, str]) -> str:
    return " ".join(_pieces(statement, kinds)[::2]).strip().rstrip(";").strip()


def _pieces(statement: str, kinds: Mapping[str, str]) -> list[str]:
    """Return code and matches of `kinds` in turn.

    An opening that is not closed is code.  No later one of its kind is searched for: that would take quadratic time,
    and the server rejects the statement.
    """
    pieces: list[str] = []
    position, left = 0, dict(kinds)
    pattern = _any_of(left.values())
    while found := pattern.search(statement, position):
        if found.lastgroup in left:
            del left[found.lastgroup]
            pattern = _any_of(left.values())
        else:
            pieces += [statement[position : found.start()], found[0]]
            position = found.end()
    return [*pieces, statement[position:]]


def _any_of(kinds: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(kinds), re.DOTALL)


_INTO = re.compile(r"\binto\b", re.IGNORECASE)


def ordered_sql(statement: str, column: str, start: int, stop: int) -> str:
    """Return a user's statement with its times as integers, in the order of time."""
    name = LANGUAGES["sql"].identifier(column)
    inner = fill(statement, "sql", start, stop).strip().rstrip(";")
    # The line feed ends a comment at the end of the statement.
    return f"SELECT * REPLACE (cast({name} AS bigint) AS {name}) FROM (\n{inner}\n) AS asked ORDER BY {name}"


def first_of_sql(statement: str, column: str) -> str:
    """Return a query for the first time in a user's statement, as the column `first`."""
    name = LANGUAGES["sql"].identifier(column)
    inner = fill(statement, "sql", FIRST_TIME, END_OF_TIME).strip().rstrip(";")
    return f"SELECT cast(min({name}) AS bigint) AS first FROM (\n{inner}\n) AS asked"


def first_of_influxql(statement: str) -> str:
    """Return a query for the first row of a user's statement."""
    inner = fill(statement, "influxql", FIRST_TIME, END_OF_TIME).strip().rstrip(";")
    return f"SELECT * FROM (\n{inner}\n) ORDER BY time LIMIT 1"


_FIRST_OF_FLUX = '\n  |> keep(columns: ["_time"])\n  |> group()\n  |> min(column: "_time")'


def first_of_flux(statement: str) -> str:
    """Return a query for the first time in a user's statement."""
    return fill(statement, "flux", FIRST_TIME, END_OF_TIME).rstrip() + _FIRST_OF_FLUX


# --- InfluxQL ---


def select_influxql(measurement: str, columns: Iterable[tuple[str, str]], where: Where, start: int, stop: int) -> str:
    """Return a query for the rows of `[start, stop)`, series by series.

    `columns` are fields with the type to read them as; they are returned as `c0`, `c1` … after the time.
    """
    quoted = LANGUAGES["influxql"].identifier
    items = ",".join(f'{quoted(name)}::{kind} AS "c{number}"' for number, (name, kind) in enumerate(columns))
    return f"SELECT {items} FROM {quoted(measurement)} WHERE {_conditions_influxql(where, start, stop)} GROUP BY *"


def first_influxql(measurement: str, columns: Iterable[tuple[str, str]], where: Where) -> str:
    """Return a query for the first row of all."""
    quoted = LANGUAGES["influxql"].identifier
    items = ",".join(f'{quoted(name)}::{kind} AS "c{number}"' for number, (name, kind) in enumerate(columns))
    condition = _conditions_influxql(where, FIRST_TIME, END_OF_TIME)
    return f"SELECT {items} FROM {quoted(measurement)} WHERE {condition} ORDER BY time LIMIT 1"


def one_value_influxql(
    measurement: str, name: str, where: Where, start: int, stop: int, *, last: bool, negative: bool
) -> str:
    """Return a query for the first or last value of a field.

    The value has the strongest of the types that the field has in the shards of the span.  `negative` selects only
    values that are negative as an integer, among them large unsigned ones.
    """
    quoted = LANGUAGES["influxql"].identifier
    condition = _conditions_influxql(where, start, stop)
    if negative:
        condition += f" AND {quoted(name)}::integer < 0"
    order = " ORDER BY time DESC" if last else ""
    return f'SELECT {quoted(name)}::field AS "c0" FROM {quoted(measurement)} WHERE {condition}{order} LIMIT 1'


def _conditions_influxql(where: Where, start: int, stop: int) -> str:
    rules = LANGUAGES["influxql"]
    conditions = [
        "(" + " OR ".join(f"{rules.identifier(tag)}::tag = {rules.text(value)}" for value in texts_of(values)) + ")"
        for tag, values in where
        if values
    ]
    return " AND ".join([*conditions, f"time >= {start}", f"time < {stop}"])


MEASUREMENTS_INFLUXQL: Final = "SHOW MEASUREMENTS"
TABLES_SQL: Final = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'"


def fields_influxql(measurement: str) -> str:
    """Return a query for the fields of a measurement, each with its types."""
    return f"SHOW FIELD KEYS FROM {LANGUAGES['influxql'].identifier(measurement)}"


def tags_influxql(measurement: str) -> str:
    """Return a query for the tag keys of a measurement."""
    return f"SHOW TAG KEYS FROM {LANGUAGES['influxql'].identifier(measurement)}"


def broken_tags_influxql(measurement: str, tags: Iterable[str]) -> str:
    """Return a query for one series with a carriage return or line feed in a tag: Flux's CSV cannot hold it."""
    quoted = LANGUAGES["influxql"].identifier
    condition = " OR ".join(f"{quoted(tag)} =~ /[\\r\\n]/" for tag in tags)
    return f"SHOW SERIES FROM {quoted(measurement)} WHERE {condition} LIMIT 1"


# --- SQL ---


def select_sql(
    measurement: str, tags: Iterable[str], fields: Sequence[str], where: Where, start: int, stop: int, *, chosen: bool
) -> str:
    """Return a query for the rows of `[start, stop)` in the order of `time`, in nanoseconds.

    `chosen` says that `fields` are not all fields: then only rows with a value in one of them are wanted.
    """
    rules = LANGUAGES["sql"]
    items = ",".join(['cast("time" AS bigint) AS "time"', *map(rules.identifier, [*tags, *fields])])
    table = rules.identifier(measurement)
    condition = _conditions_sql(where, start, stop)
    if chosen:
        condition += " AND (" + " OR ".join(f"{rules.identifier(name)} IS NOT NULL" for name in fields) + ")"
    return f'SELECT {items} FROM {table} WHERE {condition} ORDER BY "time"'


def first_sql(measurement: str, where: Where) -> str:
    """Return a query for the time of the first row, as the column `first`; null if there is none."""
    table = LANGUAGES["sql"].identifier(measurement)
    condition = _conditions_sql(where, FIRST_TIME, END_OF_TIME)
    return f'SELECT cast(min("time") AS bigint) AS first FROM {table} WHERE {condition}'


def first_file_sql(measurement: str) -> str:
    """Return a query for the earliest time in the files of a table, as the column `first`; null without files."""
    name = LANGUAGES["sql"].text(measurement)
    return f"SELECT cast(min(min_time) AS bigint) AS first FROM system.parquet_files WHERE table_name = {name}"


def _conditions_sql(where: Where, start: int, stop: int) -> str:
    rules = LANGUAGES["sql"]
    conditions = [
        f"{rules.identifier(tag)} IN ({','.join(map(rules.text, texts_of(values)))})" for tag, values in where if values
    ]
    return " AND ".join([*conditions, f'"time" >= {rules.time(start)}', f'"time" < {rules.time(stop)}'])


def columns_sql(measurement: str) -> str:
    """Return a query for the columns of a table, each with its type; empty if there is no such table."""
    name = LANGUAGES["sql"].text(measurement)
    return (
        "SELECT column_name, data_type FROM information_schema.columns "
        f"WHERE table_schema = 'iox' AND table_name = {name}"
    )


# --- Flux ---


def select_flux(bucket: str, measurement: str, fields: Iterable[str], where: Where, start: int, stop: int) -> str:
    """Return a query for the rows of `[start, stop)`, a table for each series; empty `fields` are all of them."""
    return "\n  |> ".join(
        [
            *_source_flux(bucket, measurement, tuple(fields), where, start, stop),
            'drop(columns: ["_start", "_stop"])',
            'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        ]
    )


def first_flux(bucket: str, measurement: str, fields: Iterable[str], where: Where) -> str:
    """Return a query for the time of the first row of all, as `_time`."""
    source = _source_flux(bucket, measurement, tuple(fields), where, FIRST_TIME, END_OF_TIME)
    return "\n  |> ".join([*source, "first()"]) + _FIRST_OF_FLUX


def _source_flux(
    bucket: str, measurement: str, fields: Sequence[str], where: Where, start: int, stop: int
) -> list[str]:
    rules = LANGUAGES["flux"]
    conditions = [f'r["_measurement"] == {rules.text(measurement)}']
    if fields:
        conditions.append("(" + " or ".join(f'r["_field"] == {rules.text(name)}' for name in fields) + ")")
    for tag, values in where:
        if values:
            found = (f"r[{rules.text(tag)}] == {rules.text(value)}" for value in texts_of(values))
            conditions.append("(" + " or ".join(found) + ")")
    return [
        f"from(bucket: {rules.text(bucket)})",
        f"range(start: {rules.time(start)}, stop: {rules.time(stop)})",
        f"filter(fn: (r) => {' and '.join(conditions)})",
    ]


def flux_body(script: str) -> bytes:
    """Return the body of a request; annotations are always requested, since they carry the types."""
    dialect = {"annotations": ["datatype", "group", "default"], "header": True, "delimiter": ","}
    return json.dumps({"query": script, "type": "flux", "dialect": dialect}).encode()


def texts_of(values: Iterable[Scalar]) -> list[str]:
    """Return the values of a tag as they are stored: as strings."""
    return [text for value in values if (text := tag_text(value)) is not None]
