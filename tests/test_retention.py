"""Retention: read once where the server tells it, and points that are too old counted before their request."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transports.raw_server import PING_1, RawServer, http

from iggyflux.delivery.answers import Answer
from iggyflux.delivery.retention import MARGIN_SECONDS, Retention, parse_span
from iggyflux.delivery.verdicts import Accepted
from iggyflux.pipeline import InfluxSettings, Secret, parse_pipeline
from iggyflux.runner import Summary, run_pipeline
from iggyflux.runner.footprint import Footprint
from iggyflux.sim.server import SimServer
from iggyflux.transports.influxdb import admin
from iggyflux.transports.influxdb.flavors import FLAVORS
from iggyflux.transports.influxdb.write.sink import InfluxLineSink

HOUR = 3600
MAPPING = """\
iggyflux: 1
kind: writer
from: {stream: while, topic: def}
points:
  measurement: {const: lambda}
  fields: {class: class}
  timestamp: {expr: at, format: unix_s}
"""


def ask(settings: InfluxSettings) -> Retention:
    """Return what the sink says of the server."""

    async def main() -> Retention:
        sink = InfluxLineSink(settings)
        try:
            await sink.connect()
            return await sink.retention()
        finally:
            await sink.close()

    return asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.parametrize("seconds", [0, HOUR, 7 * 24 * HOUR])
@pytest.mark.parametrize("dialect", [1, 2])
def test_a_server_that_tells_is_asked(dialect, seconds):
    """The simulator answers as 1.x and 2.x do."""
    with SimServer(dialect, retention_seconds=seconds) as server:
        place = {"database": "test"} if dialect == 1 else {"bucket": "test", "org": "org"}
        found = ask(InfluxSettings(url=server.url, **place))

    assert found.seconds == seconds
    assert abs(found.ahead_seconds) < 30


@pytest.mark.parametrize("dialect", [1, 2, 3])
def test_a_token_that_may_only_write_is_enough(dialect):
    """Then the retention is unknown, with the reason; so it is of 3.x, which has no such request."""
    token = {1: "class:def", 2: "class", 3: "class"}[dialect]
    with SimServer(dialect, retention_seconds=HOUR, tokens={token: {"write"}}) as server:
        place = {2: {"bucket": "test", "org": "org"}}.get(dialect, {"database": "test"})
        login = {"username": "class", "password": Secret("def")} if dialect == 1 else {"token": Secret(token)}
        found = ask(InfluxSettings(url=server.url, **place, **login))

    assert found.seconds is None
    assert found.why
    assert str(found) == "unknown"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        "<html>",
        '{"results":[{"error":"unable to parse class"}]}',
        '{"results":[{"series":[{"columns":["name"]}]}]}',
    ],
)
def test_an_answer_of_another_kind_leaves_it_unknown(body):
    """A gateway need not know the statement."""
    with RawServer([http(200, body)], ping=PING_1) as server:
        assert ask(InfluxSettings(url=server.url, database="class")).seconds is None


_KEYS = [
    "results",
    "series",
    "columns",
    "values",
    "error",
    "message",
    "buckets",
    "orgs",
    "retentionRules",
    "everySeconds",
    "name",
    "duration",
]
_TREES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**330), 10**330),
        st.floats(),
        st.text(max_size=5),
        st.from_regex(r"[0-9]{1,25}w([0-9]{1,25}h)?", fullmatch=True),
    ),
    lambda trees: st.lists(trees, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), trees, max_size=3),
    max_leaves=8,
)
_TABLE = b'{"results":[{"series":[{"columns":["name","duration","default"],"values":[["while",%s,true]]}]}]}'
_SHAPES = [
    b"%s",
    b'{"results":%s}',
    b'{"results":[%s]}',
    b'{"results":[{"series":[%s]}]}',
    b'{"results":[{"series":[{"columns":["name"],"values":%s}]}]}',
    b'{"results":[{"error":%s}]}',
    _TABLE,
    b'{"buckets":%s,"orgs":%s}',
    b'{"buckets":[%s],"orgs":[%s]}',
    b'{"buckets":[{"name":%s}],"orgs":[{"id":%s,"name":""}]}',
    b'{"buckets":[{"retentionRules":%s}]}',
    b'{"buckets":[{"retentionRules":[{"everySeconds":%s}]}]}',
    b'{"message":%s,"error":%s}',
    b'[{"iox::database":%s}]',
]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Return a body that a server or a gateway may send: of the right form up to some depth, and then anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=20))
    shape = draw(st.sampled_from(_SHAPES))
    return shape % tuple(json.dumps(draw(_TREES)).encode() for _ in range(shape.count(b"%s")))


@pytest.mark.parametrize("flavor", ["v1", "v2", "v3"])
@given(body=bodies(), status=st.sampled_from([200, 200, 200, 401, 404, 500]), creates=st.booleans())
@example(body=b'{"results":[[]]}', status=200, creates=False)
@example(body=b'{"buckets":[1]}', status=200, creates=False)
@example(body=_TABLE % (b'"%sw"' % (b"9" * 320)), status=200, creates=False)
@example(body=_TABLE % (b'"%ss"' % (b"9" * 5000)), status=200, creates=False)
@example(body=b'{"buckets":[{"retentionRules":[{"everySeconds":%s}]}]}' % (b"9" * 320), status=200, creates=False)
@example(body=b'{"buckets":[{"retentionRules":[{"everySeconds":%d}]}]}' % (2**63 - 1), status=200, creates=False)
@example(body=b"[" * 100_000, status=200, creates=False)
def test_no_answer_ends_a_run_or_a_check(flavor: str, body: bytes, status: int, creates: bool) -> None:
    """An answer without a possible number of seconds leaves the retention unknown, with the reason."""
    organization = {"org": "while"} if flavor == "v2" else {}
    place = {"bucket": "def", **organization} if flavor == "v2" else {"database": "def"}
    settings = InfluxSettings(flavor=flavor, create=creates, **place)

    def answer(method: str, target: str, body_: bytes | None = None, **headers: str) -> Answer:
        return Answer(status, {}, body)

    found = admin.retention(FLAVORS[flavor], settings, answer)
    findings = admin.look(FLAVORS[flavor], settings, answer, Accepted)
    admin.bucket_name(InfluxSettings(flavor="v2", bucket="0" * 16, org="while"), answer)

    assert found.why if found.seconds is None else 0 <= found.seconds < 2**63
    assert str(found)
    assert (found.oldest_ns(1e9) is None) == (not found.seconds)
    assert all(each.text.encode() for each in findings)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("0", 0), ("604800", 604800), ("604800.0", None), ("true", None), ("-5", None), ("null", None), ('"7d"', None)],
)
def test_only_a_number_of_seconds_is_a_retention(said: str, seconds: int | None) -> None:
    """Else a limit would be taken for none."""
    body = f'{{"buckets":[{{"retentionRules":[{{"type":"expire","everySeconds":{said}}}]}}]}}'
    settings = InfluxSettings(flavor="v2", bucket="def", org="while")

    assert admin.retention(FLAVORS["v2"], settings, lambda *_, **__: Answer(200, {}, body.encode())).seconds == seconds


def test_a_server_that_does_not_answer_is_not_waited_for_long():
    """And it stops nothing: the sink is connected."""
    never = threading.Event()
    with RawServer([http(200, "{}", wait=never)], ping=PING_1) as server:
        found = ask(InfluxSettings(url=server.url, database="class", timeout_seconds=1.5))
        never.set()

    assert (found.seconds, "within 1.5 s" in found.why) == (None, True)


SECONDS = {"w": 7 * 24 * HOUR, "d": 24 * HOUR, "h": HOUR, "m": 60, "s": 1}


@given(st.dictionaries(st.sampled_from(list(SECONDS)), st.integers(0, 10_000), min_size=1))
def test_a_span_is_read_as_the_server_writes_it(parts):
    """The server writes hours, minutes and seconds."""
    text = "".join(f"{parts[unit]}{unit}" for unit in SECONDS if unit in parts)

    assert parse_span(text) == sum(number * SECONDS[unit] for unit, number in parts.items())


def test_a_span_is_at_most_what_a_number_of_seconds_may_be():
    assert (parse_span(f"{2**63 - 1}s"), parse_span(f"{2**63}s")) == (2**63 - 1, None)


@pytest.mark.parametrize("text", ["", "None", "1", "h", "-1h", "1h1h", "5s5h"])
def test_another_text_is_no_span(text):
    """It leaves the retention unknown."""
    assert parse_span(text) is None


@given(
    times=st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(10**18, 10**18 + 9), st.integers(0, 120))),
    first=st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(10**18, 10**18 + 9), st.integers(0, 120)),
)
def test_the_times_before_another_one_are_found(times, first):
    """Whatever their lengths and signs, in the order of the lines."""
    lines = [f"m v=1 {time}" for time in times]

    assert list(Footprint(lines).times_before(first)) == [time for time in times if time < first]


@given(st.integers(1, 10**9), st.floats(-1e5, 1e5), st.floats(0, 4e9))
def test_a_point_is_too_old_by_the_clock_of_the_server_and_by_a_margin(seconds, ahead, now):
    """No point that the server keeps is called too old, while the clocks differ by less than the margin."""
    oldest = Retention(seconds, ahead_seconds=ahead).oldest_ns(now)

    assert oldest == pytest.approx((now + ahead - seconds - MARGIN_SECONDS) * 1e9, abs=1e3)
    assert Retention(seconds).oldest_ns(now) == Retention(seconds, ahead_seconds=0.0).oldest_ns(now)
    assert Retention(0).oldest_ns(now) is None
    assert Retention(None).oldest_ns(now) is None


def transfer(folder: Path, server: SimServer, times: list[int], **more: str) -> Summary:
    """Run a file of messages with these times to its end."""
    (folder / "m.yaml").write_text(MAPPING)
    (folder / "in.ndjson").write_text("".join(f"{json.dumps({'class': n, 'at': at})}\n" for n, at in enumerate(times)))
    extra = "".join(f", {key}: {value}" for key, value in more.items())
    text = (
        f"iggyflux: 1\nfrom: file:in.ndjson\ninfluxdb: {{url: '{server.url}', bucket: test, org: org{extra}}}\n"
        "run: [{mapping: m.yaml, to: influxdb}]\n"
    )
    pipeline = parse_pipeline(text, file=folder / "p.yaml", environ={})
    return asyncio.run(asyncio.wait_for(run_pipeline(pipeline, until_end=True), 60))


@pytest.mark.parametrize("precision", ["ns", "s"])
def test_points_that_are_too_old_are_counted_and_sent(precision, tmp_path, caplog):
    """The server decides: what it refuses is a dead letter, what it keeps is stored.  The first one is in the log."""
    caplog.set_level(logging.INFO)
    now = int(time.time())
    old = [now - 3 * 24 * HOUR, now - 30 * 24 * HOUR]
    with SimServer(2, retention_seconds=24 * HOUR) as server:
        summary = transfer(tmp_path, server, [now, now - HOUR, *old, now - 23 * HOUR], precision=precision)

    (status,) = summary.routes
    assert (status.too_old, status.retention_seconds, status.points) == (2, 24 * HOUR, 5)
    assert (status.delivered, status.dead_letters) == (3, 2)
    events = [each.getMessage() for each in caplog.records if "times.too_old" in each.getMessage()]
    assert len(events) == 1
    assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(old[0])) in events[0]
    assert 'kept="for 1 day"' in events[0]


def test_an_unknown_retention_is_said_once_and_counts_nothing(tmp_path, caplog):
    """A token for writes alone is a usual one, which needs no warning."""
    caplog.set_level(logging.INFO)
    with SimServer(2, retention_seconds=HOUR, tokens={"yield": {"write"}}) as server:
        summary = transfer(tmp_path, server, [int(time.time()) - 30 * 24 * HOUR], token="yield")

    assert (summary.routes[0].too_old, summary.routes[0].retention_seconds) == (0, None)
    (event,) = [each for each in caplog.records if "server.retention" in each.getMessage()]
    assert event.levelno == logging.INFO
    assert "kept=unknown" in event.getMessage()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "unknown"),
        (0, "without limit"),
        (3600, "for 1 hour"),
        (7200, "for 2 hours"),
        (5400, "for 1.5 hours"),
        (86_400, "for 1 day"),
        (90_000, "for 25 hours"),
        (172_800, "for 2 days"),
    ],
)
def test_a_retention_is_said_in_days_or_hours_and_one_is_singular(seconds: int | None, words: str) -> None:
    assert str(Retention(seconds)) == words
