"""One contract for reading: every product returns what was written, in each language that it supports.

Types are compared as well: 1 is not 1.0, and not True.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from iggyflux.errors import PointError, Stopped
from iggyflux.lineprotocol import MAX_INTEGER, MAX_UNSIGNED, MIN_INTEGER, FieldValue, Point, Unsigned
from iggyflux.mapping import Query
from iggyflux.records import Row, Scalar
from iggyflux.transports.influxdb.query.source import InfluxRows
from tests.servers.products import Server
from tests.servers.test_contract import START, drive, lines_of, measurement, needs, send, some

__all__ = ["measurement"]

SPOKEN = {"v1": ("auto", "influxql"), "v2": ("auto", "influxql", "flux"), "v3": ("auto", "sql", "influxql")}
WEEK = 7 * 86_400 * 10**9
EARLY, LATE = START - 10**15, START + 10**18


@dataclass
class Read:
    """The result of a query: rows, the language that was used, the first time, the server's clock."""

    rows: list[Row]
    language: str
    first: int | None
    now: int
    counted: list[int | None] = field(default_factory=list)

    @property
    def found(self) -> list[str]:
        return sorted(_shown(row.columns) for row in self.rows)


def _shown(columns: Any) -> str:
    return repr(sorted(columns.items()))


def query(
    measurement: str | None,
    *,
    language: str = "auto",
    statement: str | None = None,
    where: dict[str, tuple[Scalar, ...]] | None = None,
    fields: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> Query:
    chosen: Any = language
    return Query(measurement, statement, chosen, tuple((where or {}).items()), tuple(fields), tuple(tags))


def ask(
    server: Server, asked: Query, spans: Sequence[tuple[int, int]] = ((EARLY, LATE),), column: str = "time", **more: Any
) -> Read:
    async def main() -> Read:
        source = InfluxRows(server.settings(**more), asked, column=column)
        await source.connect()
        try:
            found = Read([], source.language, await source.first(), await source.now())
            for span in spans:
                window = await source.fetch(*span)
                try:
                    found.counted.append(window.rows)
                    async for chunk in window.chunks():
                        assert {row.window for row in chunk} == {span}
                        found.rows += chunk
                finally:
                    window.close()
            found.language = source.language
            return found
        finally:
            await source.close()

    return drive(main())


def stored(points: Sequence[Point]) -> list[str]:
    return sorted(_shown({"time": point.timestamp_ns, **point.tags, **_plain(point.fields)}) for point in points)


def _plain(fields: Any) -> dict[str, FieldValue]:
    return {key: int(value) if isinstance(value, Unsigned) else value for key, value in fields.items()}


@needs("queries")
def test_numbers_and_booleans_come_back_in_their_types(server: Server, measurement: str) -> None:
    fields: list[dict[str, FieldValue]] = [
        {"f": 1.0, "i": 1, "b": True},
        {"f": -0.25, "i": MAX_INTEGER, "b": False},
        {"f": 1e300, "i": MIN_INTEGER},
        {"f": 1e-300, "i": 2**53 + 1},
        {"f": 0.1},
        {"i": -7},
        {"b": True},
        {"f": float(2**60)},
        {"f": -0.0},
    ]
    points = [
        Point(measurement, {"n": f"{number}", **({"odd": "yes"} if number % 2 else {})}, each, START + number)
        for number, each in enumerate(fields)
    ]
    assert send(server, lines_of(server, points)) == ()

    for language in SPOKEN[server.flavor]:
        read = ask(server, query(measurement, language=language))

        assert read.found == stored(points), language
        assert read.first == START
        assert {row.measurement for row in read.rows} == {measurement}
        assert {row.tags for row in read.rows} == {("n", "odd")}
        assert all(next(iter(row.columns)) == "time" for row in read.rows)


@needs("queries", "unsigned")
def test_integers_without_a_sign_come_back(server: Server, measurement: str) -> None:
    points = [
        Point(measurement, {}, {"u": Unsigned(value)}, START + number)
        for number, value in enumerate((0, 1, 2**63, MAX_UNSIGNED))
    ]
    assert send(server, lines_of(server, points)) == ()

    for language in SPOKEN[server.flavor]:
        assert ask(server, query(measurement, language=language)).found == stored(points), language


TEXTS = [
    "x",
    "",
    "a b",
    'quo"te',
    "'",
    "back\\slash",
    "comma, equals=",
    "ä€😀",
    "line\nfeed",
    "tab\t",
    "null",
    "true",
    "$x",
    "${x}",
]


@needs("queries", "words")
def test_texts_come_back_byte_for_byte(server: Server, measurement: str) -> None:
    """Also empty ones, for which `auto` must not use Flux."""
    points = [Point(measurement, {}, {"s": text}, START + number) for number, text in enumerate(TEXTS)]
    assert send(server, lines_of(server, points)) == ()

    for language in SPOKEN[server.flavor]:
        if language != "flux":
            assert ask(server, query(measurement, language=language)).found == stored(points), language


ODD = [
    "a b",
    "a,b",
    "a=b",
    'a"b',
    "'a'",
    "a\\b",
    "ä€😀",
    "日本",
    "x/y.z:w",
    "-1",
    "true",
    "a\tb",
    "%41&+",
    "SELECT",
    "$v",
    "${v}",
    "{}[]()",
]


@needs("queries")
def test_odd_names_and_values_come_back_and_can_be_asked_for(server: Server, measurement: str) -> None:
    for number, odd in enumerate(ODD):
        try:
            point = Point(f"{measurement} {odd}", {f"k{odd}": f"v{odd}"}, {f"f{odd}": 1.5}, START + number)
            line = point.encode(server.dialect)
        except PointError:
            continue
        other = Point(point.measurement, {f"k{odd}": "other"}, {f"f{odd}": 2.5}, START + number)
        assert send(server, [line, other.encode(server.dialect)]) == ()

        for language in SPOKEN[server.flavor]:
            where: dict[str, tuple[Scalar, ...]] = {f"k{odd}": (f"v{odd}",)}
            some_of = query(point.measurement, language=language, where=where, fields=[f"f{odd}"], tags=[f"k{odd}"])
            assert ask(server, some_of).found == stored([point]), (language, odd)
            assert ask(server, query(point.measurement, language=language)).found == stored([point, other]), language


@needs("queries")
def test_ties_at_window_edges_are_read_once(server: Server, measurement: str) -> None:
    points = [
        Point(measurement, {"n": f"{number}"}, {"f": float(number)}, START + time)
        for time in (-1, 0, 1, 999, 1000, 1001)
        for number in range(50)
    ]
    assert send(server, lines_of(server, points)) == ()

    for language in SPOKEN[server.flavor]:
        spans = [(START - 5, START), (START, START + 1), (START + 1, START + 1000), (START + 1000, START + 1001)]
        read = ask(server, query(measurement, language=language), spans)

        expected = [point for point in points if point.timestamp_ns != START + 1001]
        assert read.found == stored(expected), language


@needs("queries")
def test_times_are_exact_before_and_after_1970(server: Server, measurement: str) -> None:
    times = [-(10**18) - 1, -1, 0, 1, 999_999_999, START + 123_456_789, 4 * 10**18 + 7]
    points = [Point(measurement, {"n": f"{number}"}, {"f": 0.5}, at) for number, at in enumerate(times)]
    assert send(server, lines_of(server, points)) == ()

    for language in SPOKEN[server.flavor]:
        read = ask(server, query(measurement, language=language), [(-(10**18) - 1, 4 * 10**18 + 8)])

        assert read.found == stored(points), language
        assert read.first == times[0]


@needs("queries")
def test_a_choice_of_tags_and_fields(server: Server, measurement: str) -> None:
    points = [
        Point(measurement, {"site": site, "n": f"{number}"}, {"f": float(number), "g": 1.0}, START + number)
        for number, site in enumerate(["a", "b", "c"])
    ]
    alone = Point(measurement, {"site": "a"}, {"h": 1.0}, START + 10)
    assert send(server, lines_of(server, [*points, alone])) == ()

    for language in SPOKEN[server.flavor]:
        chosen = query(measurement, language=language, where={"site": ("a", "c")}, fields=["f", "no_such"], tags=["n"])
        read = ask(server, chosen)

        wanted = [Point(measurement, {"n": f"{number}"}, {"f": float(number)}, START + number) for number in (0, 2)]
        assert read.found == stored(wanted), language
        assert {row.tags for row in read.rows} == {("n",)}
        assert ask(server, query(measurement, language=language, where={"no_such": ("a",)})).rows == []


@needs("queries")
def test_a_measurement_that_is_not_there_is_empty_and_no_error(server: Server, measurement: str) -> None:
    assert send(server, lines_of(server, some(measurement, 1))) == ()

    for language in SPOKEN[server.flavor]:
        read = ask(server, query(f"no_{measurement}", language=language))
        assert (read.rows, read.first) == ([], None), language
        assert ask(server, query(measurement, language=language), [(START + 10**12, START + 10**13)]).rows == []


@needs("queries")
@pytest.mark.slow
def test_many_rows_come_whole_and_in_pieces(server: Server, measurement: str) -> None:
    points = some(measurement, 12_345, i=7, b=True)
    assert send(server, lines_of(server, points)) == ()

    for language in SPOKEN[server.flavor]:
        read = ask(server, query(measurement, language=language))

        assert read.found == stored(points), language
        assert read.counted in ([None], [len(points)])


@needs("queries")
def test_the_schema_may_change_between_windows(server: Server, measurement: str) -> None:
    """A new tag and a new field are in the window in which they appear."""
    first = Point(measurement, {"a": "x"}, {"f": 1.0}, START)
    second = Point(measurement, {"a": "x", "b": "y"}, {"f": 2.0, "g": 7}, START + 10)
    for language in SPOKEN[server.flavor]:
        name = f"{measurement}_{language}"
        one, two = (Point(name, point.tags, point.fields, point.timestamp_ns) for point in (first, second))

        async def main(name: str, language: str, one: Point, two: Point) -> list[Row]:
            source = InfluxRows(server.settings(), query(name, language=language))
            await source.connect()
            rows: list[Row] = []
            for point in (one, two):
                await asyncio.to_thread(send, server, lines_of(server, [point]))
                assert point.timestamp_ns is not None
                window = await source.fetch(point.timestamp_ns, point.timestamp_ns + 1)
                async for chunk in window.chunks():
                    rows += chunk
                window.close()
            await source.close()
            return rows

        found = drive(main(name, language, one, two))
        assert sorted(_shown(row.columns) for row in found) == stored([one, two]), language


@needs("queries", "several types")
def test_a_field_of_several_types_keeps_the_type_of_each_point(server: Server, measurement: str) -> None:
    """Each week is a shard, and a shard has its own type; an integral float stays a float."""
    values: list[FieldValue] = [7, 7.0, "seven", True, 2**53 + 1, 7.5, -1]
    for number, value in enumerate(values):
        at = START + 2 * number * WEEK
        points = [
            Point(measurement, {"n": f"{number}", "c": f"{copy}"}, {"f": value, "beside": 0.5}, at + copy)
            for copy in range(3)
        ]
        assert send(server, lines_of(server, points)) == ()
    everything = [
        Point(
            measurement,
            {"n": f"{number}", "c": f"{copy}"},
            {"f": value, "beside": 0.5},
            START + 2 * number * WEEK + copy,
        )
        for number, value in enumerate(values)
        for copy in range(3)
    ]

    for language in ("auto", "influxql"):
        assert ask(server, query(measurement, language=language)).found == stored(everything)
    if "flux" in SPOKEN[server.flavor]:
        with pytest.raises(Stopped) as stopped:
            ask(server, query(measurement, language="flux"))
        assert stopped.value.code == "IFX745"


@needs("queries", "several types")
def test_a_tag_and_a_field_of_one_name_are_both_there(server: Server, measurement: str) -> None:
    points = [
        Point(measurement, {"x": "tag", "n": "0"}, {"y": 1.0}, START),
        Point(measurement, {"n": "1"}, {"x": 2.0}, START),
    ]
    assert send(server, lines_of(server, points)) == ()
    renamed = [
        Point(measurement, {"x_tag": "tag", "n": "0"}, {"y": 1.0}, START),
        Point(measurement, {"n": "1"}, {"x": 2.0}, START),
    ]

    read = ask(server, query(measurement))

    assert read.found == stored(renamed)
    assert {row.tags for row in read.rows} == {("n", "x_tag")}


def test_auto_says_which_language_it_speaks_and_why(
    server: Server, measurement: str, caplog: pytest.LogCaptureFixture
) -> None:
    if server.flavor != "v2":
        return
    send(server, lines_of(server, [Point(measurement, {"t": "x"}, {"f": 1.0}, START)]))
    send(server, lines_of(server, [Point(f"{measurement}_s", {"t": "x"}, {"f": "text"}, START)]))
    send(server, [f"{measurement}_t,t=a\rb f=1 {START}"])

    with caplog.at_level(logging.INFO, "iggyflux.influxdb"):
        spoken = [ask(server, query(f"{measurement}{suffix}")).language for suffix in ("", "_s", "_t")]

    assert spoken == ["flux", "influxql", "influxql"]
    connected = [record.getMessage() for record in caplog.records if "query.connected" in record.getMessage()]
    for reason, text in zip(["unchanged", "is a string", "line break"], connected, strict=True):
        assert reason in text


def test_auto_leaves_flux_when_a_window_shows_that_it_is_not_faithful(server: Server, measurement: str) -> None:
    if server.flavor != "v2":
        return
    first = Point(measurement, {"t": "x"}, {"f": 1.0}, START)
    send(server, lines_of(server, [first]))

    async def main() -> tuple[list[str], list[Row]]:
        source = InfluxRows(server.settings(), query(measurement))
        await source.connect()
        spoken, rows = [source.language], []
        await asyncio.to_thread(send, server, [f"{measurement},t=a\rb f=2 {START + 1}"])
        window = await source.fetch(START, START + 10)
        async for chunk in window.chunks():
            rows += chunk
        spoken.append(source.language)
        await source.close()
        return spoken, rows

    spoken, rows = drive(main())

    assert spoken == ["flux", "influxql"]
    assert sorted(_shown(row.columns) for row in rows) == sorted(
        _shown(columns) for columns in ({"time": START, "t": "x", "f": 1.0}, {"time": START + 1, "t": "a\rb", "f": 2.0})
    )


STATEMENTS = {
    "v1": {"influxql": 'SELECT "f", "g" FROM "{m}" WHERE time >= $start AND time < $stop -- of {m}'},
    "v2": {
        "influxql": 'SELECT "f", "g" FROM "{m}" WHERE time >= $start AND time < $stop;',
        "flux": 'from(bucket: "{b}") |> range(start: $start, stop: $stop) |> filter(fn: (r) => r._measurement == "{m}")'
        ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value") |> drop(columns: ["t"]) // $start',
    },
    "v3": {
        "influxql": 'SELECT "f", "g" FROM "{m}" WHERE time >= $start AND time < $stop',
        "sql": 'SELECT "time", "f", "g" FROM "{m}" WHERE "time" >= $start AND "time" < $stop -- of {m}',
    },
}


@needs("queries", "statements")
def test_a_statement_of_the_users_is_asked_for_each_window(server: Server, measurement: str) -> None:
    points = [Point(measurement, {"t": "x"}, {"f": n + 0.5, "g": n}, START + n) for n in range(10)]
    assert send(server, lines_of(server, points)) == ()
    bare = [Point(measurement, {}, point.fields, point.timestamp_ns) for point in points]

    for language, text in STATEMENTS[server.flavor].items():
        statement = text.format(m=measurement, b=server.database)
        read = ask(
            server,
            query(None, statement=statement, language=language),
            [(START, START + 4), (START + 4, START + 9)],
        )

        assert read.found == stored(bare[:9]), language
        assert read.first == START


BY_TIME = {
    "influxql": 'SELECT mean("f") AS "f" FROM "{m}" WHERE time >= $start AND time < $stop GROUP BY time(10s), "t"',
    "flux": 'from(bucket: "{b}") |> range(start: $start, stop: $stop) |> filter(fn: (r) => r._measurement == "{m}")'
    ' |> aggregateWindow(every: 10s, fn: mean, timeSrc: "_start")'
    ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
}


@needs("queries", "windows")
def test_a_statement_may_aggregate_by_time(server: Server, measurement: str) -> None:
    points = [Point(measurement, {"t": "x"}, {"f": n + 0.25}, START + n * 10**9) for n in range(20)]
    assert send(server, lines_of(server, points)) == ()
    means = [Point(measurement, {"t": "x"}, {"f": mean}, START + at * 10**9) for at, mean in ((0, 4.75), (10, 14.75))]

    for language in set(BY_TIME) & set(SPOKEN[server.flavor]):
        statement = BY_TIME[language].format(m=measurement, b=server.database)

        async def main(asked: Query) -> list[Row]:
            source = InfluxRows(server.settings(), asked)
            await source.connect()
            window = await source.fetch(START, START + 20 * 10**9)
            rows = [row async for chunk in window.chunks() for row in chunk]
            window.close()
            await source.close()
            return rows

        rows = drive(main(query(None, statement=statement, language=language)))
        assert sorted(_shown(row.columns) for row in rows) == stored(means), language


@needs("queries")
def test_a_statement_that_is_wrong_stops_and_says_so(server: Server, measurement: str) -> None:
    assert send(server, lines_of(server, some(measurement, 1))) == ()
    for language in SPOKEN[server.flavor]:
        if language == "auto":
            continue
        statement = "SELECT FROM WHERE $start $stop" if language != "flux" else "from(bucket: $start $stop"
        with pytest.raises(Stopped) as stopped:
            ask(server, query(None, statement=statement, language=language))
        assert stopped.value.code in ("IFX742", "IFX749"), language
        assert stopped.value.hint


@needs("queries", "auth")
def test_wrong_credentials_stop_a_reader_and_are_shown_nowhere(server: Server, measurement: str) -> None:
    if server.wrong is None:
        pytest.skip(f"{server.name}: the server at this address asks for no credentials")
    with pytest.raises(Stopped) as stopped:
        ask(server, query(measurement), **server.wrong)

    assert stopped.value.code == "IFX721"
    assert "wrong" not in f"{stopped.value} {stopped.value.hint}".replace("wrong or missing", "")


@needs("queries", "database")
def test_a_database_that_is_missing_stops_a_reader(server: Server, measurement: str) -> None:
    key = "bucket" if server.flavor == "v2" else "database"
    with pytest.raises(Stopped) as stopped:
        ask(server, query(measurement), **{key: f"no_{measurement}"})

    assert stopped.value.code == "IFX723"


def test_a_language_that_is_not_spoken_stops(server: Server, measurement: str) -> None:
    wrong = {"v1": "sql", "v2": "sql", "v3": "flux", "victoriametrics": "auto"}[server.flavor]
    with pytest.raises(Stopped) as stopped:
        ask(server, query(measurement, language=wrong))

    assert stopped.value.code == "IFX743"
