"""One contract for every product: the same lines, the same answers, the same points read back.

The simulator is tested like the servers that it replaces.  `products.LACKS` has what a product does not support.
Every test has a measurement of its own, so that all of them share a database.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from shell import iggyflux

from iggyflux.delivery.retry import Policy
from iggyflux.delivery.verdicts import Refusal
from iggyflux.errors import PointError, Stopped
from iggyflux.lineprotocol import MAX_INTEGER, MAX_UNSIGNED, MIN_INTEGER, FieldValue, Point, Unsigned
from iggyflux.pipeline import InfluxSettings, Secret
from iggyflux.runner.clock import SystemClock
from iggyflux.runner.deliver import deliver
from iggyflux.transports.influxdb.admin import CheckReport
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
from tests.servers.http import as_stored, read, write_line
from tests.servers.products import Server
from tests.servers.proxy import Trouble, in_front_of

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., None])

START = 1_700_000_000_000_000_000
POLICY = Policy(retry_backoff_seconds=0.002, max_backoff_seconds=0.02, max_retry_after_seconds=0.02)
_numbers = itertools.count(time.time_ns())


def needs(*abilities: str) -> Callable[[Test], Test]:
    """The test is for products that support this."""

    def mark(test: Test) -> Test:
        test.needed = frozenset(abilities)  # type: ignore[attr-defined]
        return test

    return mark


@pytest.fixture
def measurement() -> str:
    """A name that no other test and no other run has."""
    return f"m{next(_numbers)}"


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, 60)

    return asyncio.run(bounded())


def send(
    server: Server, lines: Sequence[str], policy: Policy = POLICY, settings: InfluxSettings | None = None, **more: Any
) -> tuple[Refusal, ...]:
    """Deliver lines to the server as a run does; return those that it rejected."""
    if settings is None:
        _use_shards(server, lines)

    async def main() -> tuple[Refusal, ...]:
        sink = InfluxLineSink(settings or server.settings(**more))
        await sink.connect()
        try:
            assert sink.flavor.name == server.flavor
            return await deliver(sink, lines, policy, SystemClock())
        finally:
            await sink.close()

    return drive(main())


def _use_shards(server: Server, lines: Sequence[str]) -> None:
    """Write a point into each shard of the default database that these lines are for, if none is known to be there.

    InfluxDB 1.x and 2.x free the caches of idle shards every 10 seconds.  A point that they receive for an idle shard
    in between is acknowledged, and no query returns it.  A shard whose cache has a point is not idle.
    """
    if server.flavor not in ("v1", "v2") or server.name.startswith("simulator"):
        return
    for day in {int(time) // _DAY_NS for line in lines if (time := line.rpartition(" ")[2]).lstrip("-").isdigit()}:
        if day not in server.used_days:
            assert write_line(server, f"used x=1 {day * _DAY_NS}").status == 204
            server.used_days.add(day)


_DAY_NS = 86_400 * 10**9
"""A shard begins and ends at midnight."""


def check(server: Server, **more: Any) -> CheckReport:
    async def main() -> CheckReport:
        sink = InfluxLineSink(server.settings(**more))
        try:
            return await sink.check()
        finally:
            await sink.close()

    return drive(main())


def lines_of(server: Server, points: Sequence[Point], precision: str = "ns") -> list[str]:
    return [point.encode(server.dialect, precision) for point in points]


def some(measurement: str, count: int, **fields: FieldValue) -> list[Point]:
    return [
        Point(measurement, {"t": f"v{number % 10}"}, {"f": number + 0.5, **fields}, START + number * 1_000_000)
        for number in range(count)
    ]


def test_a_single_point(server: Server, measurement: str) -> None:
    point = Point(measurement, {"site": "berlin"}, {"celsius": 21.5}, START)

    assert send(server, lines_of(server, [point])) == ()

    assert read(server, measurement) == as_stored(server, [point])


def test_a_batch(server: Server, measurement: str) -> None:
    points = some(measurement, 5000)

    assert send(server, lines_of(server, points)) == ()

    assert read(server, measurement) == as_stored(server, points)


TYPES: dict[str, list[FieldValue]] = {
    "floats": [0.5, -0.25, 1.0, 1e300, -1e-300, 0.1, 123456789.123],
    "integers": [0, 1, -1, MAX_INTEGER, MIN_INTEGER, 2**53 + 1],
    "booleans": [True, False],
    "words": ["x", "a b", 'quo"te', "back\\slash", "comma, equals=", "ä€😀", "x" * 1000],
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_value_of_a_type(server: Server, measurement: str, kind: str) -> None:
    values = TYPES[kind]
    if "types" in server.lacks and kind == "integers":
        values = [value for value in values if isinstance(value, int) and abs(value) < 2**53]
    points = [
        Point(measurement, {"t": f"{number}"}, {"value": value, "beside": 1.0}, START + number * 10**9)
        for number, value in enumerate(values)
    ]

    assert send(server, lines_of(server, points)) == ()

    found = read(server, measurement)
    assert found == as_stored(server, points)
    types = {type(fields["value"]) for fields in found.values() if "value" in fields}
    assert "types" in server.lacks or types == {type(values[0])}


@needs("unsigned")
def test_unsigned_integers(server: Server, measurement: str) -> None:
    points = [
        Point(measurement, {}, {"value": Unsigned(value)}, START + number)
        for number, value in enumerate((0, 1, 2**63, MAX_UNSIGNED))
    ]

    assert send(server, lines_of(server, points)) == ()

    assert read(server, measurement) == as_stored(server, points)


@needs("unsigned", "words", "types")
def test_every_type_of_field_in_one_point(server: Server, measurement: str) -> None:
    fields: dict[str, FieldValue] = {"d": 1.5, "i": -7, "u": Unsigned(7), "s": "seven", "b": True}
    point = Point(measurement, {"x": "1", "y": "2", "z": "3"}, fields, START)

    assert send(server, lines_of(server, [point])) == ()

    found = read(server, measurement)
    assert found == as_stored(server, [point])
    assert {key: type(value) for key, value in next(iter(found.values())).items()} == {
        "d": float,
        "i": int,
        "u": Unsigned,
        "s": str,
        "b": bool,
    }


@pytest.mark.parametrize(("gzip", "encoding"), [("on", "gzip"), ("off", ""), ("auto", "gzip")])
def test_gzip(server: Server, measurement: str, gzip: str, encoding: str) -> None:
    points = some(measurement, 200)

    with in_front_of(server.url) as proxy:
        assert send(server, lines_of(server, points), url=proxy.url, gzip=gzip) == ()

    assert proxy.encodings == [encoding]
    assert read(server, measurement) == as_stored(server, points)


@pytest.mark.parametrize(("precision", "unit"), [("ns", 1), ("us", 10**3), ("ms", 10**6), ("s", 10**9)])
def test_each_precision(server: Server, measurement: str, precision: str, unit: int) -> None:
    times = [START + 123_456_789, -START // 10 if server.flavor != "victoriametrics" else START, START + 999_999_999]
    points = [Point(measurement, {"n": f"{number}"}, {"f": 1.0}, at) for number, at in enumerate(times)]

    assert send(server, lines_of(server, points, precision), precision=precision) == ()

    floored = [Point(measurement, {"n": f"{number}"}, {"f": 1.0}, at // unit * unit) for number, at in enumerate(times)]
    assert read(server, measurement) == as_stored(server, floored)


TROUBLES = {
    "500": [Trouble(500)] * 2,
    "500, stored": [Trouble(500, stored=True)],
    "502 page": [Trouble(502, body=b"<html>Bad Gateway</html>")] * 3,
    "503": [Trouble(503)] * 5,
    "504, stored": [Trouble(504, stored=True)] * 2,
    "429": [Trouble(429)],
    "broken off": [Trouble(0)],
    "broken off, stored": [Trouble(0, stored=True)],
}


@pytest.mark.parametrize("troubles", TROUBLES.values(), ids=TROUBLES)
def test_a_write_that_fails_is_sent_again(server: Server, measurement: str, troubles: list[Trouble]) -> None:
    """However often it was stored, each point is there once."""
    points = some(measurement, 50)
    with in_front_of(server.url) as proxy:
        proxy.troubles += troubles
        assert send(server, lines_of(server, points), url=proxy.url) == ()

    assert len(proxy.encodings) == len(troubles) + 1
    assert read(server, measurement) == as_stored(server, points)


ODD = [
    "a b",
    "a,b",
    "a=b",
    'a"b',
    "'a'",
    "a\\b",
    "a\\\\b",
    "a\\ b",
    "ä€😀",
    "日本",
    "\u00a0",
    "x/y.z:w",
    "-1",
    "1i",
    "true",
    "a\tb",
    "{}[]()",
    "%41&+",
    "SELECT",
    "null",
    "e\u0301",
]


@needs("words")
def test_odd_names_and_values_come_back_byte_for_byte(server: Server, measurement: str) -> None:
    """In every place of a point; what the encoder rejects never reaches a server."""
    points = []
    for number, odd in enumerate(ODD):
        at = START + number
        for tags, fields in (
            ({"t": odd}, {"f": 1.0}),
            ({f"k{odd}": "v"}, {"f": 2.0}),
            ({"u": "v"}, {f"g{odd}": 3.0}),
            ({"u": "w"}, {"s": odd}),
            ({"u": "x"}, {"s": f"{odd}\nline"}),
        ):
            if (point := _point(server, measurement, tags, fields, at)) is not None:
                points.append(point)
    assert len(points) > 4 * len(ODD)

    assert send(server, lines_of(server, points)) == ()

    assert read(server, measurement) == as_stored(server, points)


def _point(
    server: Server, measurement: str, tags: dict[str, str], fields: dict[str, FieldValue], at: int
) -> Point | None:
    """Return a point, or None if its line would not be returned unchanged."""
    try:
        point = Point(measurement, tags, fields, at)
        point.encode(server.dialect)
    except PointError:
        return None
    return point


@pytest.mark.parametrize("odd", ["a b", "a,b", "ä€", 'a"b', "x.y-z/w"])
def test_a_measurement_of_an_odd_name(server: Server, measurement: str, odd: str) -> None:
    point = Point(f"{measurement} {odd}", {"t": "x"}, {"f": 1.5}, START)

    assert send(server, lines_of(server, [point])) == ()

    assert read(server, f"{measurement} {odd}") == as_stored(server, [point])


@needs("merge")
def test_what_is_sent_again_is_there_once(server: Server, measurement: str) -> None:
    points = some(measurement, 100)
    for _ in range(3):
        assert send(server, lines_of(server, points)) == ()

    assert read(server, measurement) == as_stored(server, points)


@needs("merge")
def test_the_newest_value_of_a_field_stays_and_other_fields_too(server: Server, measurement: str) -> None:
    first = Point(measurement, {"t": "x"}, {"a": 1.0, "b": 1.0}, START)
    second = Point(measurement, {"t": "x"}, {"b": 2.0, "c": 2.0}, START)
    for point in (first, second):
        assert send(server, lines_of(server, [point])) == ()

    assert read(server, measurement) == {((("t", "x"),), START): {"a": 1.0, "b": 2.0, "c": 2.0}}


@needs("refuses")
@pytest.mark.parametrize("bad", [[0], [1733], [4999], [7, 8, 2500]], ids=str)
def test_a_field_of_another_type_costs_its_own_line(server: Server, measurement: str, bad: list[int]) -> None:
    first = Point(measurement, {"t": "first"}, {"f": 1.5}, START)
    assert send(server, lines_of(server, [first])) == ()
    points = some(measurement, 5000)
    for index in bad:
        points[index] = Point(measurement, {"t": "bad"}, {"f": "text"}, START + index)

    refusals = send(server, lines_of(server, points))

    assert [(refusal.line, refusal.code) for refusal in refusals] == [(index, "IFX609") for index in bad]
    good = [point for index, point in enumerate(points) if index not in bad]
    assert read(server, measurement) == as_stored(server, [first, *good])


@needs("refuses")
@pytest.mark.parametrize("rubbish", ["{m}", "{m} f=", "{m},t= f=1 1", "{m} f=1x 1", "{m} f=1 1 1", '{m} f="open 1'])
def test_an_invalid_line_costs_only_itself(server: Server, measurement: str, rubbish: str) -> None:
    """The encoder makes none; `replay --as-is` may."""
    points = some(measurement, 100)
    lines = lines_of(server, points)
    # Last, because an unclosed string swallows the lines after it.
    lines.append(rubbish.format(m=measurement))

    refusals = send(server, lines)

    assert [refusal.line for refusal in refusals] == [100]
    assert read(server, measurement) == as_stored(server, points)


@needs("retention")
def test_what_is_older_than_the_retention_is_refused_and_the_rest_stored(server: Server, measurement: str) -> None:
    name = f"iggyflux_{measurement}"
    server.make_database(name, 7200)
    now = time.time_ns() // 10**9 * 10**9
    key = "bucket" if server.flavor == "v2" else "database"
    points = [
        Point(measurement, {}, {"f": float(number)}, now - (30 * 86_400 * 10**9 if number % 4 == 0 else number * 10**9))
        for number in range(1, 13)
    ]
    try:
        refusals = send(server, lines_of(server, points), **{key: name})
        found = read(server, measurement, name)
        report = check(server, **{key: name})
    finally:
        server.drop_database(name)

    assert [refusal.line for refusal in refusals] == [3, 7, 11]
    assert found == as_stored(server, [point for index, point in enumerate(points) if index % 4 != 3])
    (kept,) = [finding.text for finding in report.findings if finding.topic == "database"]
    assert "2 hours" in kept or "2h" in kept


@needs("database")
def test_a_database_that_is_missing_stops(server: Server, measurement: str) -> None:
    key = "bucket" if server.flavor == "v2" else "database"

    with pytest.raises(Stopped) as stopped:
        send(server, [f"{measurement} f=1 1"], **{key: f"no_{measurement}"})

    assert stopped.value.code == "IFX723"
    assert stopped.value.hint


@needs("create")
def test_a_database_that_is_missing_is_made_where_asked(server: Server, measurement: str) -> None:
    key, name = "bucket" if server.flavor == "v2" else "database", f"iggyflux_{measurement}"
    point = Point(measurement, {}, {"f": 1.0}, START)
    try:
        assert send(server, lines_of(server, [point]), create=True, **{key: name}) == ()
        assert read(server, measurement, name) == as_stored(server, [point])
    finally:
        server.drop_database(name)


@needs("auth")
def test_wrong_credentials_stop_and_are_shown_nowhere(server: Server, measurement: str) -> None:
    if server.wrong is None:
        pytest.skip(f"{server.name}: the server at this address asks for no credentials")
    with pytest.raises(Stopped) as stopped:
        send(server, [f"{measurement} f=1 1"], settings=InfluxSettings(url=server.url, **server.wrong))
    report = check(server, **server.wrong)

    assert stopped.value.code == "IFX721"
    assert not report.ok
    assert "wrong" not in f"{stopped.value} {stopped.value.hint} {report}".replace("what is wrong", "")
    assert read(server, measurement) == {}


def test_a_body_that_is_too_large_is_sent_in_parts(server: Server, measurement: str) -> None:
    """3.x answers 500 to more than 10 MiB; whatever a product accepts, all of it is there."""
    points = [
        Point(measurement, {"n": f"{number}"}, {"f": 1.0, "s": "x" * 60_000}, START + number * 10**6)
        for number in range(200)
    ]

    assert send(server, lines_of(server, points), replace(POLICY, max_bytes=12_000_000)) == ()

    assert read(server, measurement) == as_stored(server, points)


def test_check_names_the_product_finds_no_fault_and_writes_no_point(server: Server, measurement: str) -> None:
    send(server, [f"{measurement} f=1 {START}"])

    report = check(server)

    assert report.ok, report
    assert report.flavor == server.flavor
    assert report.product
    assert [finding.ok for finding in report.findings if finding.topic == "write"] == [True]
    assert len(read(server, measurement)) == 1


# --- a whole run ---

MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {{stream: s, topic: t}}
points:
  - measurement: {{const: {measurement}}}
    tags: [device]
    fields: {{value: {value}}}
    timestamp: {{expr: ts, format: unix_ms}}
"""


@pytest.fixture
def folder(server: Server, measurement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a mapping and a pipeline to the server, its secrets in the environment."""
    monkeypatch.chdir(tmp_path)
    keys = ""
    for key, value in server.given.items():
        if isinstance(value, Secret):
            monkeypatch.setenv(f"TEST_{key.upper()}", value.reveal())
            value = f"${{TEST_{key.upper()}}}"
        keys += f"  {key}: {value}\n"
    sending = f"  url: {server.url}\n  linger: 20ms\n  retry_backoff: 5ms\n"
    pipeline = f"iggyflux: 1\nfrom: log:data\ninfluxdb:\n{sending}{keys}run:\n  - mapping: env.yaml\n"
    Path("pipeline.yaml").write_text(pipeline)
    Path("env.yaml").write_text(MAPPING.format(measurement=measurement, value="value"))
    return tmp_path


@needs("refuses")
def test_a_run_keeps_rejected_messages_and_a_replay_delivers_them(
    server: Server, measurement: str, folder: Path
) -> None:
    """Rejected by the server, a dead letter, the mapping corrected, replayed, stored; again, and nothing changes."""
    first = Point(measurement, {"device": "d"}, {"value": 0.5}, START)
    send(server, lines_of(server, [first]))
    wrong = "{expr: to_string(value), type: string}"  # valid, but the server has the field as a number
    Path("env.yaml").write_text(MAPPING.format(measurement=measurement, value=wrong))
    start = START // 10**6
    iggyflux("log", "append", "data", "s/t", stdin=f'{{"device": "d", "value": 7.5, "ts": {start + 1}}}\n')

    refused = iggyflux("run", "pipeline.yaml", "--until-end")
    Path("env.yaml").write_text(MAPPING.format(measurement=measurement, value="value"))
    dry = iggyflux("replay", "dead-letters/env", "--pipeline", "pipeline.yaml", "--dry-run")
    again = [iggyflux("replay", "dead-letters/env", "--pipeline", "pipeline.yaml") for _ in range(2)]

    assert (refused.code, "1 kept as dead letter" in refused.err) == (0, True), refused
    assert dry.out == f"{measurement},device=d value=7.5 {START + 10**6}\n"
    assert [outcome.code for outcome in again] == [0, 0], again
    second = Point(measurement, {"device": "d"}, {"value": 7.5}, START + 10**6)
    assert read(server, measurement) == as_stored(server, [first, second])


def test_a_run_of_the_command_stores_every_point(server: Server, measurement: str, folder: Path) -> None:
    start = START // 10**6
    messages = [
        f'{{"device": "d{number % 5}", "value": {number}.25, "ts": {start + number}}}\n' for number in range(3000)
    ]
    iggyflux("log", "append", "data", "s/t", stdin="".join(messages))

    checked = iggyflux("check", "pipeline.yaml")
    outcome = iggyflux("run", "pipeline.yaml", "--until-end")

    assert checked.code == 0, checked
    assert outcome.code == 0, outcome
    points = [
        Point(measurement, {"device": f"d{number % 5}"}, {"value": number + 0.25}, START + number * 10**6)
        for number in range(3000)
    ]
    assert read(server, measurement) == as_stored(server, points)


def test_reading_back_notices_a_difference(server: Server, measurement: str) -> None:
    """The comparison itself finds a difference."""
    send(server, lines_of(server, some(measurement, 3)))

    assert read(server, measurement) != as_stored(server, some(measurement, 2))
    assert read(server, measurement) != as_stored(server, some(measurement, 4))
    assert read(server, f"no_{measurement}") == {}
