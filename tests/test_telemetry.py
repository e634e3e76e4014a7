"""What a run shows to machines: the table of metrics, the answers, the server and its clients, and no secret."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from required_servers import not_found
from shell import iggyflux

from iggyflux.codes import CODES
from iggyflux.delivery.windows import ReadPosition
from iggyflux.errors import Location, PipelineError, Problem, Stopped
from iggyflux.pipeline import Pipeline, load_pipeline, parse_pipeline
from iggyflux.pipeline.addresses import AddressFault, parse_listen
from iggyflux.records import DeadLetter, Message, Partition, Position, Reason
from iggyflux.runner import RouteStatus, Status, Stop, run_pipeline
from iggyflux.runner.newest import MOST as MOST_LETTERS
from iggyflux.runner.newest import MOST_CHARACTERS, with_newest
from iggyflux.runner.status import About, ReaderStatus, WorkerStatus
from iggyflux.secrets import Secret
from iggyflux.sim import SimServer
from iggyflux.telemetry.answers import Answer, Bounds, Request, Site, answer, refusal
from iggyflux.telemetry.exposition import exposed
from iggyflux.telemetry.metrics import METRICS, MOST_SAMPLES, OTHER
from iggyflux.telemetry.page import FILES
from iggyflux.telemetry.server import MOST_CONNECTIONS, MOST_HEAD_BYTES, TelemetryServer, listener
from iggyflux.transports.base import GroupState, Starving
from iggyflux.transports.local.log import Log
from tests.metrics_watch import tree_of
from tests.telemetry_site import serving

SECONDS = 90.0
"""The time after which something that must happen has not happened."""
HOME = {"host": "localhost:9273"}


def full_status() -> Status:
    """Return a status in which every metric has a value, and no two counters the same."""
    writer = RouteStatus('küche "1"\n\\', About("writer", "env", "0a1b", "iggy:8090", "http://influx:8086"), "running")
    reader = RouteStatus("zurück", About("reader", "back", "2c3d", "http://influx:8086"), "stopped")
    counters = [each for each in writer.counters() if each not in writer.reasons]
    for number, name in enumerate(counters):
        setattr(writer, name, 1000 + number)
    for number, name in enumerate(writer.reasons):
        writer.count(name, "IFX404", 2000 + number)
        writer.count(name, "IFX301", 1)
    here = Partition("werk", "halle/2", 3)
    for value in (0.004, 0.3, 99.0):
        writer.request_seconds.observe(value)
        writer.request_size.observe(value * 10)
    writer.acknowledge([Position(here, 41)], 0, [1_000_000, 0], 3.5)
    writer.lag, writer.series, writer.series_limit, writer.is_away = {here: 7}, 12, 100, True
    writer.retention_seconds, writer.too_old = 3600, 9
    writer.buckets = {"größe": {"delivered": 4, "refused": 1, "waiting": 2, "is_away": True, "failure": "http_404"}}
    writer.retry_at = 12.0
    writer.show_backoff(9.5)
    writer.groups = [GroupState("g", "werk", "halle/2", 1, (3, 4), (Starving(here, None, 5, 11.0),))]
    reader.error = Stopped("the words of a server", "do this", "IFX644")
    reader.reader = ReaderStatus(windows=3, seen_again=4, late=5, changed=6)
    reader.reader.position = _position(1_700_000_000_250_000_000, (5_000_000_000, 7_500_000_000))
    reader.reader.live_to = 1_700_000_003_250_000_000
    workers = [WorkerStatus(1, "running", 77, 3, -9, 5_000_000, 2.5, {"küche": "running"})]
    return Status([writer, reader], 5.0, 1_600_000_000.5, workers=workers)


def _position(done: int, gap: tuple[int, int] | None) -> ReadPosition:
    return ReadPosition(done, done, gap)


def parsed(status: Status, *, as_openmetrics: bool = False) -> dict[tuple[str, ...], float]:
    """Return the samples by name and labels, as Prometheus' parser reads them; names are those of the text format."""
    body, content_type = exposed(tree_of(status), as_openmetrics=as_openmetrics)
    assert content_type.startswith("application/openmetrics-text" if as_openmetrics else "text/plain; version=0.0.4")
    parse = openmetrics.text_string_to_metric_families if as_openmetrics else text_string_to_metric_families
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


# --- the table ---


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_texts_of_metrics_follow_the_conventions(metric: Any) -> None:
    base = metric.name.removesuffix("_total")

    assert re.fullmatch(r"iggyflux_[a-z]+(_[a-z]+)*", metric.name)
    assert (metric.name.endswith("_total")) == (metric.type == "counter")
    assert metric.unit in ("", "seconds", "bytes")
    assert base.endswith(f"_{metric.unit}") if metric.unit else not re.search("seconds|bytes|_ms$|_ns$", base)
    assert re.fullmatch(r"[A-Z0-9][^\n]*\.", metric.help)
    assert all(re.fullmatch("[a-z]+", label) for label in metric.all_labels)


def test_every_metric_can_be_read_by_prometheus_in_both_formats_with_the_same_values() -> None:
    text, modern = parsed(full_status()), parsed(full_status(), as_openmetrics=True)

    names = {key[0] for key in text}
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    expected = {f"{each.name}{part}" for each in METRICS for part in parts.get(each.type, ("",))}
    assert names == expected
    assert len({each.name for each in METRICS}) == len(METRICS)
    assert text == modern


def test_every_counter_of_a_route_is_a_metric_with_its_value() -> None:
    """A counter that is added to the statistics and forgotten in the table fails here."""
    status = full_status()
    writer = status.routes[0]

    found = list(parsed(status).values())
    missing = {name: value for name, value in writer.counters().items() if found.count(value) < 1}
    assert missing == {}
    assert len(set(writer.counters().values())) == len(writer.counters())


def test_values_that_are_made_of_several_are_right() -> None:
    found = parsed(full_status())
    name, server = 'küche "1"\n\\', "http://influx:8086"

    values = {key[0]: value for key, value in found.items() if len(key) > 1}
    assert values["iggyflux_acknowledged_offset"] == 41
    assert values["iggyflux_backoff_seconds"] in (0.0, 2.5)
    assert values["iggyflux_starving_messages"] == 5
    assert values["iggyflux_reader_gap_seconds"] == 2.5
    assert values["iggyflux_reader_behind_seconds"] == 5.5
    assert values["iggyflux_reader_position_timestamp_seconds"] == 1_700_000_000.25
    assert values["iggyflux_message_age_seconds_sum"] in (0.0, 2.5)
    shown = {key[1:]: value for key, value in found.items() if key[0] == "iggyflux_retry_reasons_total"}
    escaped_name = name.replace("\n", "\\n")
    assert shown == {("IFX404", escaped_name, server): 2004, ("IFX301", escaped_name, server): 1}
    buckets = {key[1]: value for key, value in found.items() if key[0] == "iggyflux_request_duration_seconds_bucket"}
    assert {key[1] for key in found if key[0] == "iggyflux_route_error"} == {"IFX644"}
    assert buckets["+Inf"] in (0.0, 3.0)


def test_labels_are_bounded_and_sums_stay_whole() -> None:
    """Ten thousand partitions make five hundred samples and one for the rest; answers of a server make no more."""
    route = RouteStatus("r")
    route.lag = {Partition("s", "t", number): number for number in range(10_000)}
    route.offsets = dict(route.lag)
    for status in range(1_000):
        route.count("retries", f"http_{status}", status)
    found = parsed(Status([route]))

    lags = {key: value for key, value in found.items() if key[0] == "iggyflux_lag_messages"}
    reasons = {key: value for key, value in found.items() if key[0] == "iggyflux_retry_reasons_total"}
    assert (len(lags), sum(lags.values())) == (MOST_SAMPLES + 1, sum(range(10_000)))
    assert (len(reasons), sum(reasons.values())) == (MOST_SAMPLES + 1, sum(range(1_000)))
    assert any(OTHER in key for key in lags)
    assert len([key for key in found if key[0] == "iggyflux_acknowledged_offset"]) == MOST_SAMPLES


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        not_found("prometheus", "no promtool on PATH (Debian package `prometheus`; `make servers`)")
    body, _ = exposed(tree_of(full_status()), as_openmetrics=False)

    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# --- answers ---


def site(status: Status | None = None, **more: Any) -> Site:
    return Site(lambda: tree_of(status or full_status()), **more)


def asked(request: Request, at: Site, *, is_alive: bool = True) -> Answer:
    return refusal(request, at) or answer(request, at, is_alive=is_alive)


TOKEN = "Gh2-kLm9"
WITH_TOKEN = {**HOME, "authorization": f"Bearer {TOKEN}"}

ANSWERS: list[tuple[str, Request, dict[str, Any], int]] = [
    ("the page", Request("GET", "/", HOME), {}, 200),
    ("a query is ignored", Request("GET", "/metrics?name[]=x", HOME), {}, 200),
    ("IPv6", Request("GET", "/status", {"host": "[::1]:9273"}), {}, 200),
    ("no port", Request("GET", "/status", {"host": "127.0.0.1"}), {}, 200),
    (
        "a name that is made to resolve to loopback",
        Request("GET", "/status", {"host": "127.0.0.1.evil.example"}),
        {},
        421,
    ),
    ("the same for health", Request("GET", "/healthz", {"host": "evil.example"}), {}, 421),
    ("no host", Request("GET", "/status"), {}, 421),
    ("another machine has any name", Request("GET", "/status", {"host": "evil.example"}), {"is_local": False}, 200),
    ("POST", Request("POST", "/status", HOME), {}, 405),
    ("a body", Request("GET", "/status", {**HOME, "content-length": "1"}), {}, 413),
    ("a body in chunks", Request("GET", "/status", {**HOME, "transfer-encoding": "chunked"}), {}, 413),
    ("no body", Request("GET", "/status", {**HOME, "content-length": "0"}), {}, 200),
    ("another path", Request("GET", "/metrics/", HOME), {}, 404),
    ("a folder above", Request("GET", "/../etc/passwd", HOME), {}, 404),
    ("no token", Request("GET", "/metrics", HOME), {"token": Secret(TOKEN)}, 401),
    ("the token", Request("GET", "/metrics", WITH_TOKEN), {"token": Secret(TOKEN)}, 200),
    (
        "another token",
        Request("GET", "/status", {**WITH_TOKEN, "authorization": "Bearer x"}),
        {"token": Secret(TOKEN)},
        401,
    ),
    (
        "a start of it",
        Request("GET", "/status", {**WITH_TOKEN, "authorization": "Bearer Gh2"}),
        {"token": Secret(TOKEN)},
        401,
    ),
    (
        "another kind",
        Request("GET", "/status", {**HOME, "authorization": f"Basic {TOKEN}"}),
        {"token": Secret(TOKEN)},
        401,
    ),
    (
        "letters beyond ASCII",
        Request("GET", "/status", {**HOME, "authorization": "Bearer é"}),
        {"token": Secret(TOKEN)},
        401,
    ),
    ("a token that ends with a line", Request("GET", "/status", WITH_TOKEN), {"token": Secret(f" {TOKEN}\n")}, 200),
    (
        "as the bytes of UTF-8",
        Request("GET", "/status", {**HOME, "authorization": "Bearer " + "tök".encode().decode("latin-1")}),
        {"token": Secret("tök")},
        200,
    ),
    (
        "a token of blanks",
        Request("GET", "/status", {**HOME, "authorization": "Bearer  "}),
        {"token": Secret(" \n")},
        401,
    ),
    ("health needs none", Request("GET", "/healthz", HOME), {"token": Secret(TOKEN)}, 200),
    ("nor does readiness", Request("GET", "/readyz", HOME), {"token": Secret(TOKEN)}, 503),
]


@pytest.mark.parametrize(
    ("request_", "more", "status"), [each[1:] for each in ANSWERS], ids=[each[0] for each in ANSWERS]
)
def test_who_may_ask_for_what(request_: Request, more: dict[str, Any], status: int) -> None:
    assert asked(request_, site(**more)).status == status


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "ready\n"),
        ({"state": "connecting"}, "not ready, of 1 route: 1 not connected\n"),
        ({"state": "stopped"}, "not ready, of 1 route: 1 not connected\n"),
        ({"state": "done"}, "ready\n"),
        ({"is_away": True}, "not ready, of 1 route: 1 not connected\n"),
        ({"lag": {Partition("s", "t", 0): 6, Partition("s", "t", 1): 5}}, "not ready, of 1 route: 1 too far behind\n"),
        ({"lag": {Partition("s", "t", 0): 5, Partition("s", "t", 1): 5}}, "ready\n"),
    ],
)
def test_a_run_is_ready_while_its_routes_are_connected_and_not_too_far_behind(
    change: dict[str, Any], words: str
) -> None:
    route = RouteStatus("r", state="running")
    for name, value in change.items():
        setattr(route, name, value)

    found = asked(Request("GET", "/readyz", HOME), site(Status([route]), bounds=Bounds(10, 60.0)))
    assert (found.body.decode(), found.status) == (words, 200 if words == "ready\n" else 503)


def test_a_reader_is_ready_while_the_time_that_is_not_read_is_short() -> None:
    route = RouteStatus("r", state="idle", reader=ReaderStatus())
    assert route.reader is not None
    route.reader.position, route.reader.live_to = _position(0, None), 61_000_000_000
    asks = Request("GET", "/readyz", HOME)

    assert asked(asks, site(Status([route]), bounds=Bounds(None, 60.0))).status == 503
    assert asked(asks, site(Status([route]), bounds=Bounds(None, 62.0))).status == 200
    assert asked(asks, site(Status())).body == b"not ready, of 0 routes: none has begun\n"


# --- the server ---


def exchange(place: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(place, SECONDS) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(65536), b""))


GET = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
RAW: list[tuple[str, bytes, bytes]] = [
    ("a request", GET, b"HTTP/1.1 200 OK"),
    (
        "a head that is too large",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (2 * MOST_HEAD_BYTES),
        b"HTTP/1.1 431 ",
    ),
    ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"HTTP/1.1 400 "),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: a\r\n\r\n", b"HTTP/1.1 400 "),
    ("a body", b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 405 "),
    ("a second request", GET + GET, b"HTTP/1.1 200 OK"),
]


def test_whatever_clients_send_is_answered_and_the_next_one_too() -> None:
    status = Status([RouteStatus("r", state="running")])
    with serving(site(status)) as (_, place):
        found = {name: exchange(place, data) for name, data, _ in RAW}

        assert {name: text[:12] for name, text in found.items()} == {name: start[:12] for name, _, start in RAW}
        assert all(text.count(b"HTTP/1.1") == 1 for text in found.values())
        assert exchange(place, GET).endswith(b"\r\n\r\nready\n")


def test_head_has_the_headers_of_get_and_no_body() -> None:
    with serving(site(Status([RouteStatus("r", state="running")]))) as (_, place):
        get, head = exchange(place, GET), exchange(place, GET.replace(b"GET", b"HEAD"))

    assert head == get.partition(b"ready")[0]
    assert b"content-length: 6\r\n" in head


def test_clients_that_send_nothing_keep_nobody_out() -> None:
    """More of them than there are places: each newcomer takes the place of the one that has waited longest."""
    with serving(site(Status([RouteStatus("r", state="running")])), request=600.0) as (_, place):
        slow = [socket.create_connection(place, SECONDS) for _ in range(MOST_CONNECTIONS + 4)]
        try:
            for client in slow:
                client.sendall(b"GET /metr")

            assert exchange(place, GET).endswith(b"ready\n")
            with suppress(ConnectionResetError):  # where it ended before its bytes were read
                assert slow[0].recv(1) == b""
        finally:
            for client in slow:
                client.close()


def test_a_client_that_is_slow_is_left_after_a_deadline() -> None:
    with serving(site(), request=0.05) as (_, place), socket.create_connection(place, SECONDS) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")

        assert client.recv(1) == b""


def test_a_bug_in_an_answer_is_logged_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[dict[str, Any]] = iter([{}, tree_of(Status([RouteStatus("r", state="running")]))])
    with serving(Site(lambda: next(answers))) as (_, place):
        assert exchange(place, GET) == b""
        assert exchange(place, GET).endswith(b"ready\n")

    assert [record.getMessage() for record in caplog.records] == ["telemetry.failed"]


def test_an_event_loop_that_does_not_answer_is_not_healthy() -> None:
    asks = GET.replace(b"readyz", b"healthz")
    with serving(site(), alive=0.05) as (_, place):
        assert exchange(place, asks).startswith(b"HTTP/1.1 503 ")

    async def main() -> bytes:
        server = TelemetryServer(site(), listening := listener("127.0.0.1", 0), asyncio.get_running_loop())
        server.start()
        try:
            return await asyncio.to_thread(exchange, listening.getsockname(), asks)
        finally:
            server.close()

    assert asyncio.run(main()).endswith(b"\r\n\r\nok\n")


# --- pipelines and runs ---

MAPPING = """\
iggyflux: 1
kind: writer
name: beete
from: {stream: garten, topic: klima}
points:
  measurement: art
  tags: {beet: beet}
  fields: {feuchte: {expr: feuchte, type: string}}
  timestamp: {expr: um, format: unix_s}
"""
PIPELINE = """\
iggyflux: 1
from: log:data
to: file:out.lp
telemetry: {listen: "127.0.0.1:0"}
run: [{mapping: env.yaml}]
"""


def garden(folder: Path, payloads: Sequence[bytes], text: str = PIPELINE, mapping: str = MAPPING) -> Pipeline:
    (folder / "env.yaml").write_text(mapping, "utf-8")
    (folder / "p.yaml").write_text(text, "utf-8")
    log = Log.open(folder / "data", create=True)
    log.append("garten", "klima", [Message(each) for each in payloads])
    log.close()
    return load_pipeline(folder / "p.yaml", environ=ENVIRONMENT)


def measured(number: int) -> bytes:
    return b'{"art": "boden", "beet": "b%d", "feuchte": "%d %%", "um": 17000%05d}' % (number % 7, number, number)


class Running:
    """A run in this event loop, and its clients."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.stop, self.status, self._log = Stop(), Status(), caplog

    @property
    def place(self) -> tuple[str, int]:
        urls = [re.search(r"url=http://([0-9.]+):([0-9]+)/", record.getMessage()) for record in self._log.records]
        found = next(filter(None, urls))
        return found[1], int(found[2])

    async def until(self, task: asyncio.Task[Any], holds: Callable[[RouteStatus], object]) -> None:
        """Wait until it holds of every route."""
        deadline = time.monotonic() + SECONDS
        while not self.status.routes or not all(map(holds, self.status.routes)):
            assert time.monotonic() < deadline and not task.done(), self.status.as_dict()
            await asyncio.sleep(0.01)

    async def get(self, path: str, *headers: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
        return await asyncio.to_thread(exchange, self.place, "\r\n".join(lines).encode())


def test_the_metrics_of_a_run_are_those_of_its_status_file_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And all that clients do meanwhile changes nothing."""
    caplog.set_level(logging.INFO)
    pipeline = garden(tmp_path, [*map(measured, range(3_000)), b"nothing", b'{"art": 1}'])
    running = Running(caplog)

    async def main() -> tuple[bytes, bytes]:
        options: Any = {"stop": running.stop, "status": running.status, "status_file": tmp_path / "status.json"}
        task = asyncio.create_task(run_pipeline(pipeline, **options))
        await running.until(task, lambda route: route.state in ("running", "idle"))
        hostile = [socket.create_connection(running.place, SECONDS) for _ in range(MOST_CONNECTIONS)]
        for client, (_, data, _) in zip(hostile, RAW * 3, strict=False):
            client.sendall(data[:-1])
        await running.until(task, lambda route: route.acknowledged == 3_002)
        found = await running.get("/metrics"), await running.get("/status")
        running.stop.request()
        await asyncio.wait_for(task, SECONDS)
        for client in hostile:
            client.close()
        return found

    metrics, status = (each.partition(b"\r\n\r\n")[2].decode() for each in asyncio.run(main()))

    at_end = json.loads((tmp_path / "status.json").read_text())
    same = {
        "messages_read": "read",
        "points_written": "delivered",
        "dead_letters": "dead_letters",
        "requests": "requests",
    }
    samples = {s.name: s.value for family in text_string_to_metric_families(metrics) for s in family.samples}
    route, shown = at_end["routes"][0], json.loads(status)["routes"][0]
    assert {name: samples[f"iggyflux_{name}_total"] for name in same} == {
        name: route[key] for name, key in same.items()
    }
    assert (route["read"], route["dead_letters"], route["reasons"]["dead_letters"]) == (
        3_002,
        2,
        {"IFX344": 1, "IFX404": 1},
    )
    moving = {"state", "lag", "in_flight", "newest_dead_letters"}  # the file has the words of the last one
    assert {key: value for key, value in shown.items() if key not in moving} == {
        key: value for key, value in route.items() if key not in moving
    }
    assert (samples["iggyflux_sent_bytes_total"], samples["iggyflux_request_points_sum"]) == (
        (tmp_path / "out.lp").stat().st_size,
        3_000,
    )


ENVIRONMENT = {
    "CANARY_TOKEN": "canary-7fQ2xW-influx",
    "CANARY_HEADER": "canary-9dKpLm-header",
    "CANARY_TELEMETRY": "canary-3RtYv8-telemetry",
}
SECRET_PIPELINE = """\
iggyflux: 1
from: log:data
to: influxdb
influxdb:
  url: {url}
  org: org
  bucket: test
  flavor: v2
  token: "${{CANARY_TOKEN}}"
  headers: {{X-Api-Key: "${{CANARY_HEADER}}"}}
  linger: 0s
telemetry: {{listen: "127.0.0.1:0", token: "${{CANARY_TELEMETRY}}", show: {show}}}
run:
  - mapping: env.yaml
  - {{mapping: env.yaml, name: other, to: "file:out.lp"}}  # it goes on where the first one stops
"""
PAYLOAD_CANARY = "canary-Zx81-boden"


@pytest.mark.parametrize(
    ("end", "show"),
    [
        ("on_error: fail", "codes"),
        ("on_error: fail", "payloads"),
        *(("on_error: dead_letter", show) for show in ("codes", "words", "payloads")),
    ],
)
def test_no_answer_holds_a_secret_or_a_part_of_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end: str, show: str
) -> None:
    """Also where the server quotes a message in its refusal, and the route stops with these words.

    A dead letter that was asked for is shown, and nothing else.
    """
    caplog.set_level(logging.INFO)
    running = Running(caplog)
    token = f"Authorization: Bearer {ENVIRONMENT['CANARY_TELEMETRY']}"
    wrong = json.dumps({"art": PAYLOAD_CANARY, "beet": "x", "feuchte": PAYLOAD_CANARY, "um": 1_700_000_000}).encode()

    async def main() -> tuple[list[bytes], str]:
        with SimServer(2, token=ENVIRONMENT["CANARY_TOKEN"]) as sim:
            good = f"{PAYLOAD_CANARY},beet=x feuchte=1.5 1700000000000000000"
            _write(sim, good)
            text = SECRET_PIPELINE.format(url=sim.url, show=show)
            pipeline = garden(tmp_path, [wrong], text, MAPPING + f"{end}\n")
            task = asyncio.create_task(run_pipeline(pipeline, stop=running.stop, status=running.status))
            await running.until(task, lambda route: route.error or route.dead_letters or route.name == "other")
            known = json.dumps(running.status.as_dict())
            paths = ("/", "/metrics", "/status", "/healthz", "/readyz", "/nothing")
            found = [await running.get(path, *headers) for path in paths for headers in ((), (token,))]
            found.append(await running.get("/metrics", token, "Accept: application/openmetrics-text"))
            found.append(await running.get("/status", "Authorization: Bearer canary-of-a-client"))
            running.stop.request()
            await asyncio.wait_for(task, SECONDS)
            return found, known + json.dumps(running.status.as_dict())

    found, known = asyncio.run(main())

    assert [each[9:12] for each in found[:6]] == [b"200", b"200", b"401", b"200", b"401", b"200"]
    is_shown = show != "codes" and "dead_letter" in end
    assert [number for number, each in enumerate(found) if b"canary" in each] == [5] * is_shown
    assert not [each for each in found for secret in ENVIRONMENT.values() if secret.encode() in each]
    assert PAYLOAD_CANARY in known, "without the words in the status the test shows nothing"
    assert not [secret for secret in ENVIRONMENT.values() if secret in known + caplog.text]


def _write(sim: SimServer, lines: str) -> None:
    """Store points as another client does."""
    headers = {"Authorization": f"Token {ENVIRONMENT['CANARY_TOKEN']}"}
    request = urllib.request.Request(f"{sim.url}/api/v2/write?org=org&bucket=test", lines.encode(), headers)
    urllib.request.urlopen(request, timeout=SECONDS).close()


def test_words_of_servers_stay_out_of_what_others_see() -> None:
    route = RouteStatus("r")
    route.wait_for("influx:8086: status 500: cannot parse geheim", briefly="influx:8086: http_500")
    route.error = Stopped("geheim,beet=x", "look at geheim", "IFX620")

    assert "geheim" in json.dumps(route.as_dict())
    assert "geheim" not in json.dumps(route.as_public())
    assert route.as_public()["waiting_for"] == "influx:8086: http_500"
    route.waiting_for, route.waiting_briefly = "geheim", None
    assert "geheim" not in json.dumps(route.as_public())


EXACT = {"time_unix", "code", "status", "reasons"}
SAID = {"location", "reason", "line"}


@given(st.data())
def test_what_is_shown_of_dead_letters_is_asked_for_and_bounded(data: st.DataObject) -> None:
    """However many there are and whatever they hold: the newest ones, each no longer than a few lines."""
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda each: f"geheim{each}" * 99)
    reason = st.builds(Reason, st.sampled_from(["IFX344", "X"]), text, text, line=st.none() | text, status=st.none())
    message = st.builds(Message, st.binary().map(lambda each: b"geheim" + each * 2000), offset=st.integers(0, 2**63))
    letter = st.builds(DeadLetter, message, st.just("m"), st.just("h"), st.lists(reason, min_size=1, max_size=3))
    batches = data.draw(st.lists(st.lists(letter, max_size=2 * MOST_LETTERS), max_size=4))
    route = RouteStatus("r")
    for batch in batches:
        route.newest = with_newest(route.newest, batch, 1.5)
    letters = [each for batch in batches for each in batch]

    for show, more in (("codes", set()), ("words", SAID), ("payloads", SAID | {"payload"})):
        shown: Any = route.as_public(show)["newest_dead_letters"]  # type: ignore[arg-type]
        assert [each["at"] for each in shown] == [f"//0@{each.message.offset}" for each in letters[-MOST_LETTERS:]]
        assert [set(each) for each in shown] == [EXACT | {"at"} | more] * len(shown)
        assert all(len(value) <= MOST_CHARACTERS for each in shown for value in each.values() if isinstance(value, str))
        assert ("geheim" in json.dumps(shown)) == bool(shown and more)


@pytest.mark.parametrize("show", ["codes", "words", "payloads"])
def test_a_refused_change_shows_its_place_and_its_words_only_where_they_are_asked_for(show: Any) -> None:
    status = Status()
    status.configuration.refused = Problem("IFX203", "geheim", Location("/etc/x/kilns.yaml", 9, 21), hint="geheim 2")
    public: Any = status.as_public(show)["configuration"]
    words = {"reason": "geheim", "hint": "geheim 2"}

    assert public["refused"] == {
        "code": "IFX203",
        "place": "kilns.yaml:9:21",
        **(words if show != "codes" else {"reason": CODES["IFX203"].title, "hint": None}),
    }
    whole: Any = status.as_dict()["configuration"]
    assert whole["refused"] == {"code": "IFX203", "place": "/etc/x/kilns.yaml:9:21", **words}


def test_codes_among_the_reasons_are_explained() -> None:
    route = RouteStatus("r")
    route.count("dead_letters", "IFX609")
    route.count("retries", "http_503")

    assert Status([route]).as_public()["titles"] == {"IFX609": CODES["IFX609"].title}


@pytest.mark.parametrize("path", FILES)
def test_a_file_of_the_page_needs_no_token_and_nothing_from_elsewhere(path: str) -> None:
    found = asked(Request("GET", path, HOME), site(token=Secret(TOKEN)))
    text = found.body.decode()

    assert (found.status, found.headers["content-security-policy"].partition(";")[0]) == (200, "default-src 'none'")
    assert "unsafe" not in found.headers["content-security-policy"]
    assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.-]+\.\w|@import|url\(", text.replace("// ", ""))
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|localStorage", text)
    assert not re.findall(r"<(?:style|script)>|\s(?:on\w+|style)=", text)
    assert {each for each in re.findall(r'(?:href|src)="([^"]+)"|from "([^"]+)"', text) if each} <= {
        pair for name, _ in FILES.values() for pair in ((name, ""), ("", f"./{name}"))
    }


@pytest.mark.parametrize(
    ("section", "code", "pointer"),
    [
        ("{listen: 9273}", "IFX112", "/telemetry/listen"),
        ('{listen: ":9273"}', "IFX809", "/telemetry/listen"),
        ('{listen: "http://127.0.0.1:9273"}', "IFX809", "/telemetry/listen"),
        ('{listen: "127.0.0.1:99999"}', "IFX809", "/telemetry/listen"),
        ('{listen: "::1:9273"}', "IFX809", "/telemetry/listen"),
        ('{listen: "0.0.0.0:9273"}', "IFX820", "/telemetry/listen"),
        ('{listen: "[::]:9273", token: ""}', None, None),
        ('{listen: "0.0.0.0:9273", token: "t", show: words}', "IFX822", "/telemetry/listen"),
        ('{listen: "127.0.0.1:9273", show: everything}', "IFX113", "/telemetry/show"),
        ('{listen: "127.0.0.1:9273", max_behind: soon}', "IFX804", "/telemetry/max_behind"),
        ("{}", None, None),
    ],
)
def test_a_section_that_is_wrong_is_reported_at_its_place(section: str, code: str | None, pointer: str | None) -> None:
    text = f"iggyflux: 1\nfrom: stdin\nto: stdout\ntelemetry: {section}\nrun: [{{mapping: x.yaml}}]\n"
    with pytest.raises(PipelineError) as error:
        parse_pipeline(text, environ={})

    found = [problem for problem in error.value.problems if problem.location.pointer.startswith("/telemetry")]
    assert found
    if code is not None:
        assert [(each.code, each.location.pointer) for each in found] == [(code, pointer)]


def test_a_port_that_is_too_high_is_quoted_with_the_highest() -> None:
    with pytest.raises(AddressFault, match=r"'127\.0\.0\.1:65536' has a port above 65535"):
        parse_listen("127.0.0.1:65536")

    assert parse_listen("127.0.0.1:65535") == ("127.0.0.1", 65535)


def test_an_address_for_all_machines_needs_a_token() -> None:
    section = 'telemetry: {listen: "0.0.0.0:9273", token: "${T}"}'
    text = f"iggyflux: 1\nfrom: stdin\nto: stdout\n{section}\nrun: [{{mapping: p.yaml}}]\n"
    with pytest.raises(PipelineError) as error:  # of the mapping, which is missing
        parse_pipeline(text, environ={"T": "x"})

    assert [problem.code for problem in error.value.problems] == ["IFX808"]


@pytest.mark.parametrize(
    ("address", "code"), [("127.0.0.1:{port}", "IFX821"), ("0.0.0.0:{port}", "IFX820"), ("{port}", "IFX809")]
)
def test_an_address_that_cannot_be_used_ends_the_command_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, code: str
) -> None:
    garden(tmp_path, [measured(1)])
    monkeypatch.chdir(tmp_path)
    with closing(listener("127.0.0.1", 0)) as taken:
        outcome = iggyflux("run", "p.yaml", "--until-end", "--listen", address.format(port=taken.getsockname()[1]))

    assert (outcome.code, outcome.err.partition(":")[0]) == (1, f"error[{code}]")
    assert "hint:" in outcome.err
    assert not (tmp_path / "out.lp").exists()


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("127.0.0.1:0", 0, "ok   listen 127.0.0.1:0: the address is free"),
        ("127.0.0.1:{port}", 0, "?    listen 127.0.0.1:"),
        ("host.invalid:9273", 1, "FAIL listen host.invalid:9273"),
    ],
)
def test_check_tries_the_address_of_telemetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, code: int, words: str
) -> None:
    """One that is in use may be that of the run of this pipeline, so it does not count as a fault."""
    garden(tmp_path, [measured(1)])
    monkeypatch.chdir(tmp_path)
    with closing(listener("127.0.0.1", 0)) as taken:
        place = address.format(port=taken.getsockname()[1])
        section = f"telemetry: {{listen: '{place}', token: 'seed'}}"
        text = re.sub("^telemetry:.*", section, Path("p.yaml").read_text(), flags=re.MULTILINE)
        Path("p.yaml").write_text(text)
        outcome = iggyflux("check", "p.yaml", "--local")

    assert (outcome.code, words in outcome.out) == (code, True), outcome


def test_a_run_without_an_address_loads_nothing_of_it() -> None:
    loaded = "[name for name in sys.modules if name.startswith(('prometheus', 'h11'))]"
    code = f"import sys, iggyflux.cli.run, iggyflux.runner.listening; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_statistics_have_no_other_kind_of_field() -> None:
    """Counters, their reasons and histograms are what the table and the status know to read."""
    kinds = {str(each.type) for each in fields(RouteStatus("r").__class__.__bases__[0])}

    assert kinds == {"int", "dict[str, dict[str, int]]", "Histogram"}
