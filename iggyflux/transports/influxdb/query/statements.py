"""Statements in the three languages: what is asked for a span, each name and value quoted for its language.

Pure text.  No name and no value of a document reaches a statement but through `LANGUAGES`; times are integers of
nanoseconds all the way.  What comes back is told by position, not by name: a tag and a field may share one.
"""

# Statements are made of texts here, and every name and value in them is quoted.
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
"""The earliest time that every product holds, and the one after the latest."""
END_OF_TIME: Final = 2**63 - 1

Where = Sequence[tuple[str, tuple[Scalar, ...]]]


@dataclass(frozen=True, slots=True)
class Language:
    """How names, texts and times are written; `foreign` matches what a placeholder is not looked for in."""

    name: str
    identifier: Callable[[str], str]
    text: Callable[[str], str]
    time: Callable[[int], str]
    foreign: re.Pattern[str]


def _influxql_escaped(text: str, quote: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace(quote, "\\" + quote)
    return quote + escaped + quote


_FLUX_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "$": "\\x24"})


def _flux_text(text: str) -> str:
    # `${` would begin an expression inside a text; a dollar is written by its number, which is right in every version.
    return '"' + text.translate(_FLUX_ESCAPES) + '"'


def _doubled(quote: str) -> Callable[[str], str]:
    return lambda text: quote + text.replace(quote, quote + quote) + quote


# Quoted texts, comments, and for InfluxQL regular expressions, where one may stand.
_ESCAPED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_DOUBLED = r"""'[^']*'|"[^"]*\""""
LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        "influxql": Language(
            "influxql",
            lambda name: _influxql_escaped(name, '"'),
            lambda text: _influxql_escaped(text, "'"),
            str,
            re.compile(rf"{_ESCAPED}|--[^\n]*|/\*.*?\*/|(?<=~)\s*/(?:[^/\\\n]|\\.)*/", re.DOTALL),
        ),
        "sql": Language(
            "sql",
            _doubled('"'),
            _doubled("'"),
            "to_timestamp_nanos({})".format,
            re.compile(rf"{_DOUBLED}|--[^\n]*|/\*.*?\*/", re.DOTALL),
        ),
        "flux": Language(
            "flux",
            _flux_text,
            _flux_text,
            "time(v: {})".format,
            re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|(?<=~)\s*/(?:[^/\\\n]|\\.)*/', re.DOTALL),
        ),
    }
)


class StatementError(ValueError):
    """A statement that cannot be asked; the text says why."""


# --- statements of the user ---


def fill(statement: str, language: str, start: int, stop: int) -> str:
    """`statement` with `$start` and `$stop` as literals of its language, wherever they are no part of a text."""
    rules = LANGUAGES[language]
    bounds = {"start": rules.time(start), "stop": rules.time(stop)}
    pattern = re.compile(rf"(?P<foreign>{rules.foreign.pattern})|\$(?P<bound>start|stop)\b", re.DOTALL)

    def put(found: re.Match[str]) -> str:
        name = found["bound"]
        return found[0] if name is None else bounds[name]

    return pattern.sub(put, statement)


def check_statement(statement: str, language: str) -> None:
    """Raises `StatementError` unless `statement` is one statement that only reads and uses both bounds."""
    rules = LANGUAGES[language]
    bare = rules.foreign.sub(" ", statement).strip().rstrip(";").strip()
    for name in ("$start", "$stop"):
        if re.search(re.escape(name) + r"\b", bare) is None:
            raise StatementError(f"the statement does not use {name} outside of texts and comments")
    if language != "flux" and ";" in bare:
        raise StatementError("remove the text after the `;`: only one statement is allowed")
    if language == "influxql" and (re.match(r"select\b", bare, re.IGNORECASE) is None or _INTO.search(bare)):
        raise StatementError("only SELECT without INTO reads")
    if language == "sql" and re.match(r"(select|with)\b", bare, re.IGNORECASE) is None:
        raise StatementError("only SELECT reads")
    if language == "flux" and re.search(r"\bto\s*\(", bare):
        raise StatementError("`to()` writes; a reader only reads")


_INTO = re.compile(r"\binto\b", re.IGNORECASE)


def ordered_sql(statement: str, column: str, start: int, stop: int) -> str:
    """A statement of the user with its times as integers, in the order of its time."""
    name = LANGUAGES["sql"].identifier(column)
    inner = fill(statement, "sql", start, stop).strip().rstrip(";")
    # The line feed ends a comment that the statement may end with.
    return f"SELECT * REPLACE (cast({name} AS bigint) AS {name}) FROM (\n{inner}\n) AS asked ORDER BY {name}"


def first_of_sql(statement: str, column: str) -> str:
    """The first time that a statement of the user gives, as the column `first`."""
    name = LANGUAGES["sql"].identifier(column)
    inner = fill(statement, "sql", FIRST_TIME, END_OF_TIME).strip().rstrip(";")
    return f"SELECT cast(min({name}) AS bigint) AS first FROM (\n{inner}\n) AS asked"


def first_of_influxql(statement: str) -> str:
    """One row of what a statement of the user gives, the first."""
    inner = fill(statement, "influxql", FIRST_TIME, END_OF_TIME).strip().rstrip(";")
    return f"SELECT * FROM (\n{inner}\n) ORDER BY time LIMIT 1"


_FIRST_OF_FLUX = '\n  |> keep(columns: ["_time"])\n  |> group()\n  |> min(column: "_time")'


def first_of_flux(statement: str) -> str:
    """The first time that a statement of the user gives."""
    return fill(statement, "flux", FIRST_TIME, END_OF_TIME).rstrip() + _FIRST_OF_FLUX


# --- InfluxQL ---


def select_influxql(measurement: str, columns: Iterable[tuple[str, str]], where: Where, start: int, stop: int) -> str:
    """The rows of `[start, stop)`, series by series.

    `columns` are fields with the type that they are read as; they come as `c0`, `c1` … after the time.
    """
    quoted = LANGUAGES["influxql"].identifier
    items = ",".join(f'{quoted(name)}::{kind} AS "c{number}"' for number, (name, kind) in enumerate(columns))
    return f"SELECT {items} FROM {quoted(measurement)} WHERE {_conditions_influxql(where, start, stop)} GROUP BY *"


def first_influxql(measurement: str, columns: Iterable[tuple[str, str]], where: Where) -> str:
    """The first row of all."""
    quoted = LANGUAGES["influxql"].identifier
    items = ",".join(f'{quoted(name)}::{kind} AS "c{number}"' for number, (name, kind) in enumerate(columns))
    condition = _conditions_influxql(where, FIRST_TIME, END_OF_TIME)
    return f"SELECT {items} FROM {quoted(measurement)} WHERE {condition} ORDER BY time LIMIT 1"


def one_value_influxql(
    measurement: str, name: str, where: Where, start: int, stop: int, *, last: bool, negative: bool
) -> str:
    """The first value of a field, or the last one, in the strongest of the types that it has in the shards of the span.

    `negative` takes only values that are negative as an integer, among them large unsigned ones.
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


def fields_influxql(measurement: str) -> str:
    """The fields of a measurement, each with its types."""
    return f"SHOW FIELD KEYS FROM {LANGUAGES['influxql'].identifier(measurement)}"


def tags_influxql(measurement: str) -> str:
    """The tag keys of a measurement."""
    return f"SHOW TAG KEYS FROM {LANGUAGES['influxql'].identifier(measurement)}"


def broken_tags_influxql(measurement: str, tags: Iterable[str]) -> str:
    """One series with a tag whose value no CSV of Flux holds: with a carriage return or a line feed."""
    quoted = LANGUAGES["influxql"].identifier
    condition = " OR ".join(f"{quoted(tag)} =~ /[\\r\\n]/" for tag in tags)
    return f"SHOW SERIES FROM {quoted(measurement)} WHERE {condition} LIMIT 1"


# --- SQL ---


def select_sql(
    measurement: str, tags: Iterable[str], fields: Sequence[str], where: Where, start: int, stop: int, *, chosen: bool
) -> str:
    """The rows of `[start, stop)` in the order of their time, which is `time` in nanoseconds.

    `chosen` says that `fields` are not all that there are: then only rows with a value in one of them are wanted.
    """
    rules = LANGUAGES["sql"]
    items = ",".join(['cast("time" AS bigint) AS "time"', *map(rules.identifier, [*tags, *fields])])
    table = rules.identifier(measurement)
    condition = _conditions_sql(where, start, stop)
    if chosen:
        condition += " AND (" + " OR ".join(f"{rules.identifier(name)} IS NOT NULL" for name in fields) + ")"
    return f'SELECT {items} FROM {table} WHERE {condition} ORDER BY "time"'


def first_sql(measurement: str, where: Where) -> str:
    """The time of the first row, as the column `first`; null without any."""
    table = LANGUAGES["sql"].identifier(measurement)
    condition = _conditions_sql(where, FIRST_TIME, END_OF_TIME)
    return f'SELECT cast(min("time") AS bigint) AS first FROM {table} WHERE {condition}'


def first_file_sql(measurement: str) -> str:
    """The earliest time that any file of a table may hold, as the column `first`; null without files."""
    name = LANGUAGES["sql"].text(measurement)
    return f"SELECT cast(min(min_time) AS bigint) AS first FROM system.parquet_files WHERE table_name = {name}"


def _conditions_sql(where: Where, start: int, stop: int) -> str:
    rules = LANGUAGES["sql"]
    conditions = [
        f"{rules.identifier(tag)} IN ({','.join(map(rules.text, texts_of(values)))})" for tag, values in where if values
    ]
    return " AND ".join([*conditions, f'"time" >= {rules.time(start)}', f'"time" < {rules.time(stop)}'])


def columns_sql(measurement: str) -> str:
    """The columns of a table, each with its type; none where there is no such table."""
    name = LANGUAGES["sql"].text(measurement)
    return (
        "SELECT column_name, data_type FROM information_schema.columns "
        f"WHERE table_schema = 'iox' AND table_name = {name}"
    )


# --- Flux ---


def select_flux(bucket: str, measurement: str, fields: Iterable[str], where: Where, start: int, stop: int) -> str:
    """The rows of `[start, stop)`, a table for each series; no fields are all of them."""
    return "\n  |> ".join(
        [
            *_source_flux(bucket, measurement, tuple(fields), where, start, stop),
            'drop(columns: ["_start", "_stop"])',
            'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        ]
    )


def first_flux(bucket: str, measurement: str, fields: Iterable[str], where: Where) -> str:
    """The time of the first row of all, as `_time`."""
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
    """The body of a request: annotations carry the types, so they are always asked for."""
    dialect = {"annotations": ["datatype", "group", "default"], "header": True, "delimiter": ","}
    return json.dumps({"query": script, "type": "flux", "dialect": dialect}).encode()


def texts_of(values: Iterable[Scalar]) -> list[str]:
    """The values of a tag as they are stored: as text."""
    return [text for value in values if (text := tag_text(value)) is not None]
