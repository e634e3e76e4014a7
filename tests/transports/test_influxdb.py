"""The InfluxDB sink against a loopback server that sends exactly the bytes that a test wants."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gzip
import json
import logging
import ssl
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest

from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.retry import Policy
from iggyflux.delivery.verdicts import Accepted, Impossible, Refusal, Refused, TooLarge, Unavailable, Verdict
from iggyflux.errors import NotConnected, PipelineError, Stopped
from iggyflux.pipeline import InfluxSettings, Secret
from iggyflux.runner.clock import SystemClock
from iggyflux.runner.deliver import deliver
from iggyflux.secrets import Scrubber
from iggyflux.transports.influxdb.flavors import FLAVORS, Flavor
from iggyflux.transports.influxdb.write.sink import InfluxLineSink, compress, settings_problems
from iggyflux.transports.urls import AddressError, parse_address
from tests.transports.line_sinks import check as checked
from tests.transports.raw_server import NO_CONTENT, PING_1, PING_2, PING_3, RawServer, Reply, Request, Script, http

T = TypeVar("T")

TLS = Path(__file__).parent / "tls"
CANARY = "canary-t0ken/+==&%"
LINES = ["m,t=a f=1 1", "m,t=b f=2 2", "m,t=c f=3 3"]
BIG = [f"m,t=a f={number} {number}" for number in range(2000)]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, 120)

    return asyncio.run(bounded())


def settings(url: str, **given: Any) -> InfluxSettings:
    base = InfluxSettings(url=url, bucket="plant", token=Secret(CANARY), timeout_seconds=5.0)
    return dataclasses.replace(base, **given)


async def writing(given: InfluxSettings, *batches: list[str]) -> list[Verdict]:
    """Return the verdicts of writes one after another, by a sink that is connected and closed."""
    sink = InfluxLineSink(given)
    await sink.connect()
    try:
        return [await sink.write(batch) for batch in batches]
    finally:
        await sink.close()


def write(server: RawServer, lines: list[str] = LINES, **given: Any) -> Verdict:
    return drive(writing(settings(server.url, **given), lines))[0]


def answered(*script: Script, lines: list[str] = LINES, **given: Any) -> Verdict:
    """Return the verdict of a write that is answered by `script`."""
    with RawServer(script) as server:
        return write(server, lines, **given)


# --- what is sent ---


def test_given_empty_batch_should_skip_write() -> None:
    with RawServer() as server:
        assert write(server, []) == Accepted()

    assert server.writes == []


def test_given_multiple_messages_should_batch_into_single_request() -> None:
    with RawServer() as server:
        assert write(server) == Accepted()

    assert [request.text for request in server.writes] == ["\n".join(LINES)]


def test_given_gzip_enabled_should_compress_payload() -> None:
    with RawServer() as server:
        write(server, gzip="on")
    (request,) = server.writes

    assert request.headers["content-encoding"] == "gzip"
    assert gzip.decompress(request.body) == "\n".join(LINES).encode()


@pytest.mark.parametrize(
    ("mode", "lines", "compressed"), [("auto", LINES, False), ("auto", BIG, True), ("off", BIG, False)]
)
def test_gzip_auto_compresses_what_is_worth_it(mode: str, lines: list[str], compressed: bool) -> None:
    with RawServer() as server:
        write(server, lines, gzip=mode)
    (request,) = server.writes

    assert ("content-encoding" in request.headers) == compressed
    assert request.text == "\n".join(lines)


def test_compressed_bytes_are_those_of_gzip() -> None:
    assert gzip.decompress(compress(b"x" * 100_000)) == b"x" * 100_000


TARGETS = [
    ("v1", {"database": "plant"}, "/write", {"db": "plant", "precision": "n"}, "Bearer "),
    ("v1", {"bucket": "plant/week"}, "/write", {"db": "plant", "rp": "week", "precision": "n"}, "Bearer "),
    ("v1", {"retention_policy": "week"}, "/write", {"db": "plant", "rp": "week", "precision": "n"}, "Bearer "),
    ("v2", {"org": "a&b"}, "/api/v2/write", {"org": "a&b", "bucket": "plant", "precision": "ns"}, "Token "),
    ("v2", {"bucket": "ü b"}, "/api/v2/write", {"bucket": "ü b", "precision": "ns"}, "Token "),
    (
        "v3",
        {},
        "/api/v3/write_lp",
        {"db": "plant", "accept_partial": "true", "precision": "nanosecond"},
        "Bearer ",
    ),
    (
        "v3",
        {"accept_partial": False, "no_sync": True},
        "/api/v3/write_lp",
        {"db": "plant", "accept_partial": "false", "no_sync": "true", "precision": "nanosecond"},
        "Bearer ",
    ),
    ("victoriametrics", {"bucket": None}, "/write", {"precision": "ns"}, "Bearer "),
]


@pytest.mark.parametrize(("flavor", "given", "path", "query", "scheme"), TARGETS)
def test_each_flavor_has_its_route_and_authorization(
    flavor: str, given: dict[str, Any], path: str, query: dict[str, str], scheme: str
) -> None:
    with RawServer(ping=PING_3 if flavor == "v3" else PING_1) as server:
        write(server, flavor=flavor, **given)
    (request,) = server.writes
    target = urlsplit(request.target)

    assert request.method == "POST"
    assert target.path == path
    assert {key: value for key, (value,) in parse_qs(target.query).items()} == query
    assert request.headers["authorization"] == scheme + CANARY


@pytest.mark.parametrize("flavor", ["v1", "v2", "v3", "victoriametrics"])
@pytest.mark.parametrize("precision", ["ns", "us", "ms", "s"])
def test_the_precision_is_always_said_in_the_words_of_the_route(flavor: str, precision: str) -> None:
    words = {
        "v1": {"ns": "n", "us": "u", "ms": "ms", "s": "s"},
        "v2": {"ns": "ns", "us": "us", "ms": "ms", "s": "s"},
        "v3": {"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second"},
        "victoriametrics": {"ns": "ns", "us": "us", "ms": "ms", "s": "s"},
    }
    target = FLAVORS[flavor].write_target(settings("http://x", precision=precision))

    assert parse_qs(urlsplit(target).query)["precision"] == [words[flavor][precision]]


def test_1x_logs_in_with_user_and_password_never_in_the_query() -> None:
    with RawServer(ping=PING_1) as server:
        write(server, token=None, username="u", password=Secret("p:w"))
    (request,) = server.writes

    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"u:p:w").decode()
    assert "p%3Aw" not in request.target


def test_user_and_password_of_the_url_are_used_and_not_shown() -> None:
    with RawServer(ping=PING_1) as server:
        url = f"http://us%40er:p%40ss@127.0.0.1:{server.port}/"
        sink = InfluxLineSink(settings(url, token=None))
        drive(writing(settings(url, token=None), LINES))
    (request,) = server.writes

    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"us@er:p@ss").decode()
    assert repr(sink) == f"InfluxLineSink(http://127.0.0.1:{server.port}, auto)"


def test_the_path_of_the_url_is_kept() -> None:
    with RawServer() as server:
        drive(writing(settings(f"{server.url}//influx/eu//"), LINES))

    assert {urlsplit(request.target).path for request in server.requests} == {
        "/influx/eu/ping",
        "/influx/eu/api/v2/write",
    }


def test_connections_are_kept_alive() -> None:
    with RawServer() as server:
        drive(writing(settings(server.url), LINES, LINES, LINES, LINES))

    assert len(server.writes) == 4
    assert server.connections == 1


def test_writes_run_side_by_side() -> None:
    gate = threading.Event()
    with RawServer([Reply(NO_CONTENT.data, wait=gate), Reply(NO_CONTENT.data, wait=gate)]) as server:

        async def main() -> list[Verdict]:
            sink = InfluxLineSink(settings(server.url, max_in_flight=2))
            await sink.connect()
            writes = [asyncio.create_task(sink.write(LINES)) for _ in range(2)]
            while len(server.writes) < 2:
                await asyncio.sleep(0.005)
            gate.set()
            verdicts = await asyncio.gather(*writes)
            await sink.close()
            return list(verdicts)

        assert drive(main()) == [Accepted(), Accepted()]


@pytest.mark.parametrize("flavor", FLAVORS)
def test_the_flavor_says_how_many_writes_should_run_at_once(flavor: str) -> None:
    bounds = InfluxLineSink(settings("http://x", flavor=flavor)).in_flight

    assert bounds == FLAVORS[flavor].in_flight
    assert bounds.least <= bounds.first <= bounds.most
    assert InfluxLineSink(settings("http://x", flavor=flavor, max_in_flight=7)).in_flight == Bounds.exactly(7)


# --- the meaning of answers ---


def test_exactly_204_accepts() -> None:
    assert answered(http(204)) == Accepted()
    assert isinstance(answered(http(200, "<html>", "Content-Type: text/html")), Impossible)


def test_a_refused_line_is_named() -> None:
    body = json.dumps({"code": "invalid", "message": f"unable to parse '{LINES[1]}': bad number"})

    found = answered(http(400, body, "Content-Type: application/json"))

    assert isinstance(found, Refused)
    assert [(refusal.line, refusal.reason) for refusal in found.refusals] == [(1, "bad number")]


def test_an_answer_before_the_body_was_read_is_heard() -> None:
    lines = [f'm s="{number:032x}{"x" * 4000}" {number}' for number in range(3000)]

    found = answered(http(413, '{"error":"Request Entity Too Large"}', before_body=True), lines=lines, gzip="off")

    assert isinstance(found, TooLarge | Unavailable)
    if isinstance(found, Unavailable):  # where the reset overtook the answer
        assert found.connection_died


DEATHS = {
    "closed without an answer": Reply(b"", close=True),
    "reset without an answer": Reply(b"", reset=True),
    "reset before the body was read": Reply(b"", before_body=True, reset=True),
    "half a status line": Reply(b"HTTP/1.1 20", close=True),
    "half of the headers": Reply(b"HTTP/1.1 204 No Content\r\nX-A: b\r\nX", close=True),
    "not HTTP at all": Reply(b"hello, world\r\n", close=True),
}


@pytest.mark.parametrize("reply", DEATHS.values(), ids=DEATHS)
def test_a_connection_that_breaks_under_a_request_has_died(reply: Reply) -> None:
    with RawServer([http(204, close=True), reply]) as server:
        first, second = drive(writing(settings(server.url), LINES, LINES))

    assert first == Accepted()
    if second != Accepted():  # http.client may accept half of the headers of a 204
        assert isinstance(second, Unavailable)
        assert second.connection_died


@pytest.mark.parametrize(("stale_seconds", "died"), [(0.0, False), (60.0, True)])
def test_a_connection_that_was_quiet_may_have_been_closed_for_that(stale_seconds: float, died: bool) -> None:
    with RawServer([http(204), Reply(b"", close=True)]) as server:

        async def main() -> Verdict:
            sink = InfluxLineSink(settings(server.url), stale_seconds=stale_seconds)
            await sink.connect()
            assert await sink.write(LINES) == Accepted()
            verdict = await sink.write(LINES)
            await sink.close()
            return verdict

        found = drive(main())

    assert isinstance(found, Unavailable)
    assert found.connection_died == died


def test_a_truncated_answer_still_says_its_status() -> None:
    reply = Reply(b'HTTP/1.1 413 Too Large\r\nContent-Length: 500\r\n\r\n{"error":', close=True)

    assert isinstance(answered(reply), TooLarge)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400",
        b"HTTP/1.1 400 Bad Request\r\nContent-Ty",
        b'HTTP/1.1 400 Bad Request\r\nContent-Length: 500\r\n\r\n{"error":"database is required',
        b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    ],
)
def test_an_incomplete_answer_blames_no_line(data: bytes) -> None:
    found = answered(Reply(data, close=True))

    assert isinstance(found, Unavailable)
    assert found.reason.startswith("incomplete answer; the server answered 40")
    assert found.connection_died


def test_no_answer_in_time_is_not_a_death() -> None:
    found = answered(Reply(b"", wait=threading.Event()), timeout_seconds=1.5)

    assert isinstance(found, Unavailable)
    assert "within 1.5 s" in found.reason
    assert found.suspicious
    assert not found.connection_died


def test_a_line_that_gets_no_answer_is_found_and_the_others_are_stored() -> None:
    """The server is alive and answers others: the line is kept with what is known of it, after a bounded time."""
    never, lines = threading.Event(), [f"m,t=a f=1 {number}" for number in range(30)]
    stored, late = list[str](), list[bool]()

    def judge(request: Request) -> Reply:
        sent = request.text.split("\n")
        if lines[17] in sent:
            return Reply(b"", wait=never)
        late.append(sent[0] in stored)  # on a busy machine an answer may come too late, and they are sent again
        stored.extend(sent)
        return NO_CONTENT

    with RawServer([judge] * 600) as server:

        async def main() -> tuple[Refusal, ...]:
            sink = InfluxLineSink(settings(server.url, timeout_seconds=0.2))
            while True:
                with suppress(NotConnected):
                    await sink.connect()
                    break
            policy = Policy(retry_backoff_seconds=0.001, max_backoff_seconds=0.001)
            refusals = await deliver(sink, lines, policy, SystemClock())
            await sink.close()
            return refusals

        (refusal,) = drive(main())
        never.set()

    assert (refusal.line, refusal.code) == (17, "IFX607")
    assert "no complete answer" in refusal.reason
    assert {*stored} == {*lines} - {lines[17]}
    assert len(server.writes) - sum(late) <= 26


def test_an_answer_that_drips_is_cut_at_the_deadline() -> None:
    reply = Reply(b"HTTP/1.1 200 " + b"x" * 10_000, drip=True)

    found = answered(reply, timeout_seconds=1.5)

    assert isinstance(found, Unavailable)
    assert "no complete answer" in found.reason
    assert not found.connection_died


def test_closing_lets_go_of_a_connection_that_is_being_made() -> None:
    hanging = threading.Event()
    with RawServer(ping=Reply(PING_2.data, wait=hanging)) as server:

        async def main() -> None:
            of_other_tests = set(threading.enumerate())
            sink = InfluxLineSink(settings(server.url, timeout_seconds=60.0))
            connecting = asyncio.create_task(sink.connect())
            while not server.requests:
                await asyncio.sleep(0.005)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            started = set(threading.enumerate()) - of_other_tests
            (thread,) = [each for each in started if each.name.startswith("iggyflux-influxdb")]
            await sink.close()
            thread.join(60)
            assert not thread.is_alive()

        drive(main())
        hanging.set()


def test_a_cancelled_write_lets_its_thread_go() -> None:
    gate = threading.Event()
    with RawServer([Reply(b"", wait=gate)] * 2) as server:

        async def main() -> Verdict:
            sink = InfluxLineSink(settings(server.url, max_in_flight=1, timeout_seconds=60.0))
            await sink.connect()
            hanging = [asyncio.create_task(sink.write(LINES)) for _ in range(2)]
            while len(server.writes) < 2:
                await asyncio.sleep(0.005)
            for write in hanging:
                write.cancel()
            outcomes = await asyncio.gather(*hanging, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
            verdict = await asyncio.wait_for(sink.write(LINES), 60)
            await sink.close()
            return verdict

        assert drive(main()) == Accepted()


def test_retry_after_reaches_the_verdict() -> None:
    found = answered(http(429, "slow", "Retry-After: 17"))

    assert isinstance(found, Unavailable)
    assert found.retry_after_seconds == 17.0


def test_no_redirect_is_followed() -> None:
    with RawServer() as elsewhere:
        location = f"Location: http://u:{CANARY}@127.0.0.1:{elsewhere.port}/x?p={CANARY}"
        found = answered(http(307, "", location))

    assert isinstance(found, Impossible)
    assert found.code == "IFX725"
    assert f"127.0.0.1:{elsewhere.port}/x" in found.reason
    assert CANARY not in found.reason
    assert elsewhere.requests == []


def test_a_line_that_is_not_unicode_is_rejected_without_a_request() -> None:
    with RawServer() as server:
        found = write(server, ["m f=1 1", 'm s="\ud800" 2'])

    assert isinstance(found, Refused)
    assert [refusal.line for refusal in found.refusals] == [1]
    assert server.writes == []


def test_a_large_answer_is_read_whole() -> None:
    lines = [f"m,t={number:0100d} f=x {number}" for number in range(3000)]
    message = "\n".join(f"unable to parse '{line}': invalid boolean" for line in lines)

    found = answered(http(400, json.dumps({"message": message}), "Content-Type: application/json"), lines=lines)

    assert isinstance(found, Refused)
    assert len(found.refusals) == 3000


def test_a_compressed_answer_is_understood() -> None:
    body = gzip.compress(b'{"error":"database is required"}')

    found = answered(http(400, body, "Content-Encoding: gzip", "Content-Type: application/json"))  # type: ignore[arg-type]

    assert isinstance(found, Impossible)
    assert found.code == "IFX728"


# --- no connection ---


def unused_port() -> int:
    with RawServer() as server:
        return server.port


def test_a_refused_connection_is_not_a_death() -> None:
    with RawServer() as server:
        sink = InfluxLineSink(settings(server.url, flavor="v2"))

        async def main() -> Verdict:
            await sink.connect()
            server.__exit__(None, None, None)
            first = await sink.write(LINES)
            second = await sink.write(LINES)
            await sink.close()
            return second if isinstance(first, Unavailable) else first

        found = drive(main())

    assert isinstance(found, Unavailable)
    assert "refused" in found.reason.lower()
    assert not found.connection_died


@pytest.mark.parametrize("flavor", ["auto", "v1", "v2", "v3"])
def test_an_unreachable_server_is_not_connected(flavor: str) -> None:
    sink = InfluxLineSink(settings(f"http://127.0.0.1:{unused_port()}", flavor=flavor))

    with pytest.raises(NotConnected, match="Connection refused"):
        drive(sink.connect())


def test_a_name_that_does_not_resolve_is_not_connected() -> None:
    sink = InfluxLineSink(settings("http://influx.invalid"))

    with pytest.raises(NotConnected, match=r"'influx\.invalid' does not resolve"):
        drive(sink.connect())


@pytest.mark.parametrize(
    "reply", [http(503, "<html>", "Content-Type: text/html"), http(502), http(429), Reply(b"", close=True)]
)
def test_a_balancer_without_a_server_is_not_connected(reply: Reply) -> None:
    for flavor in ("auto", "v2"):
        with RawServer(ping=reply) as server, pytest.raises(NotConnected):
            drive(writing(settings(server.url, flavor=flavor), LINES))


# --- detection ---

DETECTED = [
    ("1.6", http(204, "", "X-Influxdb-Version: 1.6.7~rc0", "X-Influxdb-Build: OSS"), "v1", "1.6.7~rc0"),
    ("2.9", http(204, "", "X-Influxdb-Version: v2.9.1", "X-Influxdb-Build: OSS"), "v2", "2.9.1"),
    ("2.1, twice", http(204, "", "X-Influxdb-Version: 2.1.1", "x-influxdb-version: 2.1.1"), "v2", "2.1.1"),
    ("Cloud", http(204, "", "X-Influxdb-Build: cloud2"), "v2", ""),
    ("3.6 Core", PING_3, "v3", "3.6.0"),
    ("3.0", http(200, '{"version":"3.0.1","revision":"x"}'), "v3", "3.0.1"),
    ("3 behind a cluster", http(200, '{"product_name":"x"}', "cluster-uuid: abc"), "v3", ""),
]


@pytest.mark.parametrize(
    ("reply", "flavor", "version"), [row[1:] for row in DETECTED], ids=[row[0] for row in DETECTED]
)
def test_the_server_is_known_by_its_ping(reply: Reply, flavor: str, version: str) -> None:
    with RawServer(ping=reply) as server:

        async def main() -> tuple[str, str, str]:
            sink = InfluxLineSink(settings(server.url))
            await sink.connect()
            await sink.close()
            assert sink.detected is not None
            return sink.flavor.name, sink.detected.version, sink.dialect

        assert drive(main()) == (flavor, version, flavor)


def test_early_2x_is_known_by_its_health() -> None:
    health = http(200, '{"name":"influxdb","message":"ready","status":"pass","version":"2.0.4"}')
    with RawServer([health], ping=http(204)) as server:
        assert write(server) == Accepted()

    assert urlsplit(server.writes[0].target).path == "/api/v2/write"


def test_victoriametrics_is_known_by_its_metrics() -> None:
    metrics = http(200, 'vm_app_version{version="victoria-metrics-v1.79.5", short_version="v1.79.5"} 1\n')
    with RawServer([http(200, "OK"), metrics], ping=http(204)) as server:
        assert write(server) == Accepted()

    assert urlsplit(server.writes[0].target).path == "/write"


NOT_DETECTED = [
    (http(200, "<html>", "Content-Type: text/html"), "IFX729"),
    (http(404, "not found"), "IFX729"),
    (http(401, '{"error": "the request was not authenticated"}', "cluster-uuid: x"), "IFX721"),
    (http(403, "<html>"), "IFX722"),
    (http(301, "", "Location: https://x.example/"), "IFX725"),
    (http(407), "IFX726"),
]


@pytest.mark.parametrize(("reply", "code"), NOT_DETECTED)
def test_a_server_that_is_not_influxdb_stops_the_run(reply: Reply, code: str) -> None:
    with RawServer(ping=reply) as server, pytest.raises(Stopped) as stopped:
        drive(writing(settings(server.url), LINES))

    assert stopped.value.code == code
    assert stopped.value.hint


def test_a_pinned_flavor_needs_no_ping() -> None:
    with RawServer(ping=http(404, "no such page")) as server:
        assert write(server, flavor="v2") == Accepted()


def test_2x_is_not_written_to_as_3x_since_it_would_store_nothing() -> None:
    with RawServer(ping=PING_2) as server, pytest.raises(Stopped) as stopped:
        drive(writing(settings(server.url, flavor="v3"), LINES))

    assert stopped.value.code == "IFX729"


def test_settings_that_do_not_fit_what_was_detected_stop_the_run() -> None:
    with (
        RawServer(ping=PING_1) as server,
        pytest.raises(Stopped, match="does not support `org`") as stopped,
    ):
        drive(writing(settings(server.url, org="acme"), LINES))

    assert stopped.value.code == "IFX728"


MISFITS = [
    ({"flavor": "v1", "bucket": None}, "database"),
    ({"flavor": "v1", "org": "acme"}, "org"),
    ({"flavor": "v1", "no_sync": True}, "no_sync"),
    ({"flavor": "v1", "accept_partial": False}, "accept_partial"),
    ({"flavor": "v2", "bucket": None}, "bucket"),
    ({"flavor": "v2", "retention_policy": "x"}, "retention_policy"),
    ({"flavor": "v2", "token": None, "username": "u"}, "username"),
    ({"flavor": "v2", "no_sync": True}, "no_sync"),
    ({"flavor": "v3", "bucket": None}, "database"),
    ({"flavor": "v3", "bucket": "a/b"}, "retention_policy"),
    ({"flavor": "v3", "token": None, "password": Secret("x")}, "username"),
    ({"flavor": "victoriametrics", "create": True}, "create"),
    ({"flavor": "victoriametrics", "retention_policy": "x"}, "retention_policy"),
    ({"bucket": "a", "database": "b"}, "bucket"),
    ({"client_key": Path("x")}, "client_key"),
    ({"token": Secret("with a line end\n")}, "token"),
]


@pytest.mark.parametrize(("given", "key"), MISFITS)
def test_what_a_flavor_cannot_do_is_a_problem_with_a_hint(given: dict[str, Any], key: str) -> None:
    (problem,) = settings_problems(settings("http://x", **given))

    assert problem.code == "IFX728"
    assert problem.message.startswith(f"`{key}`: ")
    assert problem.hint


@pytest.mark.parametrize(
    "url",
    [
        "influx:8086",
        "ftp://x",
        "http://",
        "http://x:port",
        "http://x:99999",
        "http://x/?a=b",
        "http://a b/",
        "http://[::1",
    ],
)
def test_a_url_that_cannot_be_used_is_a_problem(url: str) -> None:
    with pytest.raises(PipelineError) as error:
        InfluxLineSink(settings(url))

    assert [problem.code for problem in error.value.problems] == ["IFX732"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8086/", "http://127.0.0.1:8086"),
        ("https://u:p@Host.example:443/a/b//", "https://host.example/a/b"),
        ("http://[::1]:8086", "http://[::1]:8086"),
    ],
)
def test_an_address_is_shown_without_user_and_slash(url: str, shown: str) -> None:
    assert str(parse_address(url)[0]) == shown


# --- credentials, databases, and what is created ---


REFUSALS = [
    (http(401, '{"code":"unauthorized","message":"unauthorized access"}'), "IFX721"),
    (http(403, '{"code":"forbidden","message":"insufficient permissions for write"}'), "IFX722"),
    (http(404, '{"code":"not found","message":"bucket \\"plant\\" not found"}'), "IFX723"),
    (http(500, '{"error":"retention policy not found: x"}'), "IFX724"),
]


@pytest.mark.parametrize(("reply", "code"), REFUSALS)
def test_what_would_reject_a_write_stops_the_run_before_a_read(reply: Reply, code: str) -> None:
    with RawServer(probe=reply) as server, pytest.raises(Stopped) as stopped:
        drive(writing(settings(server.url), LINES))

    assert stopped.value.code == code
    assert server.writes == []


def test_connecting_leaves_no_point_behind() -> None:
    with RawServer() as server:
        write(server, [])

    assert [request.body for request in server.requests if request.method == "POST"] == [b"# iggyflux"]


def test_once_connected_it_only_looks_whether_the_server_is_there() -> None:
    with RawServer() as server:

        async def main() -> None:
            sink = InfluxLineSink(settings(server.url))
            await sink.connect()
            before = len(server.requests)
            await sink.connect()
            assert [request.target for request in server.requests[before:]] == ["/ping"]
            server.ping = http(503)
            with pytest.raises(NotConnected):
                await sink.connect()
            await sink.close()
            await sink.close()

        drive(main())


def test_a_missing_database_of_1x_is_created_where_asked() -> None:
    missing = http(404, '{"error":"database not found: \\"pl\\"ant\\""}')
    created = http(200, '{"results":[{"statement_id":0}]}')
    with RawServer([missing, created], ping=PING_1, probe=None) as server:
        assert write(server, [], create=True, bucket='pl"ant') == Accepted()

    assert parse_qs(urlsplit(server.requests[2].target).query)["q"] == ['CREATE DATABASE "pl\\"ant"']


def test_a_missing_bucket_of_2x_is_created_where_asked() -> None:
    missing = http(404, '{"code":"not found","message":"bucket \\"plant\\" not found"}')
    orgs = http(200, '{"orgs":[{"id":"07","name":"acme"}]}')
    with RawServer([missing, orgs, http(201, "{}")], probe=None) as server:
        assert write(server, [], create=True, org="acme") == Accepted()

    assert json.loads(server.requests[3].body) == {"orgID": "07", "name": "plant", "retentionRules": []}


def test_what_may_not_be_created_stops_the_run() -> None:
    missing = http(404, '{"code":"not found","message":"bucket \\"plant\\" not found"}')
    for script, said in (
        ([missing, http(200, '{"orgs":[{"id":"07"}]}'), http(403, '{"message":"forbidden"}')], "created: forbidden"),
        ([missing, http(200, '{"orgs":[]}')], "sees no organization"),
    ):
        with RawServer(script, probe=None) as server, pytest.raises(Stopped, match=said):
            drive(writing(settings(server.url, create=True), []))


def findings(server: RawServer, **given: Any) -> dict[str, bool | None]:
    return {finding.topic: finding.ok for finding in checked(settings(server.url, **given)).findings}


def test_check_reports_product_retention_and_permission() -> None:
    buckets = http(200, '{"buckets":[{"name":"plant","retentionRules":[{"type":"expire","everySeconds":604800}]}]}')
    with RawServer([buckets]) as server:
        report = checked(settings(server.url, org="acme"))

    assert report.ok
    assert [finding.text for finding in report.findings] == [
        "InfluxDB OSS 2.7.1, used as v2",
        "bucket 'plant' keeps points for 7 days",
        "writes are allowed",
    ]


def test_check_of_1x_knows_the_retention_policy() -> None:
    rows = '[["autogen","0s","168h0m0s",1,true],["week","168h0m0s","24h0m0s",1,false]]'
    body = (
        '{"results":[{"series":[{"columns":["name","duration","shardGroupDuration","replicaN","default"],"values":'
        + rows
        + "}]}]}"
    )
    for policy, ok, said in (
        (None, True, "database 'plant', policy 'autogen' keeps points without limit"),
        ("week", True, "database 'plant', policy 'week' keeps points for 7 days"),
        ("year", False, "database 'plant' has no retention policy 'year'"),
    ):
        with RawServer([http(200, body)], ping=PING_1) as server:
            report = checked(settings(server.url, retention_policy=policy))

        assert (report.findings[1].ok, report.findings[1].text) == (ok, said)


@pytest.mark.parametrize(
    ("reply", "ok"),
    [
        (http(200, '{"results":[{"error":"database not found: plant"}]}'), False),
        (http(401, '{"error":"authorization failed"}'), False),
        (http(403, '{"error":"error authorizing query"}'), None),
    ],
)
def test_check_of_1x_reports_what_it_may_not_see(reply: Reply, ok: bool | None) -> None:
    with RawServer([reply], ping=PING_1) as server:
        assert findings(server)["database"] is ok


def test_check_of_2x_with_a_token_that_may_only_write_is_content() -> None:
    with RawServer([http(200, '{"buckets":[]}')]) as server:
        assert findings(server) == {"server": True, "database": None, "write": True}


def test_check_of_3x_does_not_make_a_database() -> None:
    known = http(200, '[{"iox::database":"_internal"},{"iox::database":"other"}]')
    with RawServer([known, known], ping=PING_3) as server:
        assert findings(server) == {"server": True, "database": None, "write": None}

    assert {request.method for request in server.requests} == {"GET"}


def test_check_of_3x_reports_an_unknown_token() -> None:
    with RawServer([http(401), http(401)], ping=http(401)) as server:
        assert findings(server, flavor="v3")["database"] is False


def test_check_of_3x_is_let_in_and_then_refused_for_having_no_points() -> None:
    known = http(200, '[{"iox::database":"plant"}]')
    with RawServer([known, known], ping=PING_3, probe=http(400, "incoming write was empty")) as server:
        assert findings(server) == {"server": True, "database": True, "write": True}


def test_check_says_what_to_correct_and_never_raises() -> None:
    with RawServer(probe=http(403, '{"message":"no"}')) as server:
        report = checked(settings(server.url))

    assert not report.ok
    assert [finding.code for finding in report.findings if finding.ok is False] == ["IFX722"]
    assert all(finding.hint for finding in report.findings if finding.ok is False)
    unreachable = checked(settings(f"http://127.0.0.1:{unused_port()}"))
    assert [(finding.topic, finding.ok, finding.code) for finding in unreachable.findings] == [
        ("server", False, "IFX730")
    ]


# --- TLS ---


def tls_server(certificate: str, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / certificate)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(TLS / "ca.pem")
    return context


def test_a_server_whose_authority_is_named_is_trusted() -> None:
    with RawServer(context=tls_server("server.pem")) as server:
        assert write(server, ca_file=TLS / "ca.pem") == Accepted()
        assert server.connections == 1


def test_an_untrusted_certificate_stops_the_run() -> None:
    with RawServer(context=tls_server("server.pem")) as server, pytest.raises(Stopped) as stopped:
        drive(writing(settings(server.url), LINES))

    assert stopped.value.code == "IFX727"
    assert "ca_file" in (stopped.value.hint or "")
    assert server.requests == []


def test_a_certificate_with_another_name_stops_the_run() -> None:
    with RawServer(context=tls_server("other.pem")) as server, pytest.raises(Stopped, match="not trusted") as stopped:
        drive(writing(settings(server.url, ca_file=TLS / "ca.pem"), LINES))

    assert stopped.value.code == "IFX727"


def test_the_name_in_the_certificate_can_be_configured() -> None:
    given = {"ca_file": TLS / "ca.pem", "domain": "other.example"}
    with RawServer(context=tls_server("other.pem")) as server:
        assert write(server, **given) == Accepted()
    with RawServer(context=tls_server("server.pem")) as server, pytest.raises(Stopped, match="not trusted"):
        write(server, **given)


def test_the_configured_name_is_the_name_that_is_verified() -> None:
    asked: list[str | None] = []
    context = tls_server("other.pem")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    for domain in ("other.example", None):
        with RawServer(context=context) as server:
            url = server.url.replace("127.0.0.1", "localhost")
            drive(writing(settings(url, verify=False, domain=domain), []))

    assert sorted(set(asked), key=str) == ["localhost", "other.example"]


def test_verify_off_trusts_everybody_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), RawServer(context=tls_server("other.pem")) as server:
        assert write(server, verify=False) == Accepted()

    assert [record.getMessage().split()[0] for record in caplog.records] == ["influxdb.not_verified"]


def test_a_client_certificate_is_shown_to_who_asks() -> None:
    context = tls_server("server.pem", client=True)
    with RawServer(context=context) as server:
        given = settings(server.url, ca_file=TLS / "ca.pem", client_cert=TLS / "client.pem")
        assert drive(writing(given, LINES)) == [Accepted()]


def test_a_server_that_wants_a_certificate_says_so() -> None:
    context = tls_server("server.pem", client=True)
    with RawServer(context=context) as server, pytest.raises((Stopped, NotConnected)) as error:
        drive(writing(settings(server.url, ca_file=TLS / "ca.pem"), LINES))

    # A reset may overtake the alert with the reason.
    assert isinstance(error.value, NotConnected) or error.value.code == "IFX727"


def test_https_to_a_port_without_tls_says_so() -> None:
    with RawServer() as server, pytest.raises(Stopped, match="does not use TLS") as stopped:
        drive(writing(settings(server.url.replace("http:", "https:")), LINES))

    assert stopped.value.code == "IFX727"


# --- proxies ---


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:pr%3Axy@127.0.0.1:{proxy.port}/")
        assert drive(writing(settings("http://influx.invalid:8086/x"), LINES)) == [Accepted()]

    (request,) = proxy.writes
    assert request.target.startswith("http://influx.invalid:8086/x/api/v2/write?")
    assert request.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:pr:xy").decode()


def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    with RawServer() as server:
        assert write(server) == Accepted()


def test_a_proxy_that_wants_credentials_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(ping=http(407), script=[http(407)]) as proxy:
        for name, url in (("HTTP_PROXY", "http://influx.invalid"), ("HTTPS_PROXY", "https://influx.invalid")):
            monkeypatch.setenv(name, f"127.0.0.1:{proxy.port}")
            with pytest.raises(Stopped) as stopped:
                drive(writing(settings(url), LINES))

            assert stopped.value.code == "IFX726"


def test_a_proxy_that_is_away_is_not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{unused_port()}")

    with pytest.raises(NotConnected, match="the proxy http://127"):
        drive(writing(settings("http://influx.invalid"), LINES))


def test_a_proxy_that_cannot_be_spoken_to_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"socks5://u:{CANARY.replace('/', '')}@127.0.0.1:1")

    with pytest.raises(Stopped, match="HTTP_PROXY") as stopped:
        drive(writing(settings("http://influx.invalid"), LINES))

    assert stopped.value.code == "IFX726"
    assert "canary" not in str(stopped.value)


# --- secrets ---

ECHOES = [
    http(status, f"no: {form} {{}}", *more)
    for form in (
        CANARY,
        json.dumps(CANARY).replace("&", "\\u0026"),
        "canary-t0ken%2F%2B%3D%3D%26%25",
        base64.b64encode(CANARY.encode()).decode(),
    )
    for status, more in (
        (200, ("Content-Type: text/html",)),
        (302, (f"Location: http://x:{form.replace('/', '')}@h/{form}",)),
        (400, ()),
        (401, ()),
        (403, ()),
        (404, ()),
        (413, ()),
        (418, ()),
        (429, ()),
        (500, ()),
    )
]


@pytest.mark.parametrize("reply", ECHOES)
def test_no_text_holds_a_secret_even_where_the_server_repeats_it(
    reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    texts = []
    with caplog.at_level(logging.DEBUG):
        with RawServer([reply]) as server:
            texts.append(repr(write(server, flavor="v2")))
        missing = http(404, '{"message":"bucket \\"plant\\" not found"}')
        orgs = http(200, '{"orgs":[{"id":"07"}]}')
        places: list[dict[str, Any]] = [
            {"ping": reply},
            {"probe": reply},
            {"script": [reply] * 4},
            {"script": [missing, reply, missing, orgs, reply] * 2, "probe": None},
            {"ping": http(204, "", f"X-Influxdb-Version: 2.{CANARY}", f"X-Influxdb-Build: {CANARY}")},
        ]
        for place in places:
            with RawServer(**place) as server:
                given = settings(server.url.replace("//", f"//us:{CANARY.replace('/', '')}@"), create=True)
                texts.append(repr(checked(given)))
                try:
                    drive(writing(given, LINES))
                except (Stopped, NotConnected) as error:
                    texts += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
                texts += [repr(InfluxLineSink(given)), repr(given.token)]
    texts += [record.getMessage() for record in caplog.records if record.name.startswith(("iggyflux", "urllib3"))]

    assert [text for text in texts if "canary" in text or "Y2FuYXJ5" in text] == []


def _cut(status: int, *headers: str, form: str = "{}", left_out: int = 0) -> Callable[[str], Reply]:
    """Return a reply with a text in its body; its end, of `left_out` bytes, never comes."""

    def reply(text: str) -> Reply:
        whole = http(status, form.replace("{}", text), *headers)
        return dataclasses.replace(whole, data=whole.data[: len(whole.data) - left_out], close=bool(left_out))

    return reply


ECHOING = {
    **{f"{status}": _cut(status) for status in (400, 401, 403, 404, 413, 418, 422, 429, 500, 503)},
    "json": _cut(400, form='{"message":"{}"}'),
    "a line by number": _cut(400, form='{"error":"partial write","data":{"line_number":1,"error_message":"{}"}}'),
    "a line by name": _cut(400, form="unable to parse '" + LINES[0] + "': {}"),
    "all lines dropped": _cut(400, form=f"{{}} dropped={len(LINES)}"),
    "a conflict": _cut(400, form='input field "{}" on measurement "m" is type float, already exists as type integer'),
    "a redirect": lambda text: http(302, "", f"Location: http://h/{text}"),
    "a header": lambda text: http(400, "", f"X-Influxdb-Error: {text}"),
    **{f"{left} bytes missing": _cut(400, form="{}", left_out=left) for left in (1, 3, 5, 8, 12)},
}


@pytest.mark.parametrize("echo", ECHOING.values(), ids=ECHOING)
@pytest.mark.parametrize("flavor", ["v2", "v3"])
def test_no_piece_of_a_secret_is_left_wherever_the_text_is_cut(echo: Callable[[str], Reply], flavor: str) -> None:
    secret = "Qj7KwVx2Lb9TzRf4YmHs"
    offsets = [*range(370, 405), *range(1575, 1605), 0, 4080, 4096, 8180, 8192]
    replies = [echo("-" * offset + secret) for offset in offsets]
    with RawServer(replies, ping=PING_2 if flavor == "v2" else PING_3) as server:
        given = settings(server.url, token=Secret(secret), flavor=flavor)
        texts = [repr(verdict) for verdict in drive(writing(given, *[LINES] * len(replies)))]

    pieces = {secret[start : start + 6] for start in range(len(secret) - 5)}
    assert [text for text in texts if any(piece in text for piece in pieces)] == []


def test_a_url_that_cannot_be_used_is_not_repeated() -> None:
    for url in (f"http://u:{CANARY}@h:x/", f"u:{CANARY}@host", f"http://h/?p={CANARY}"):
        with pytest.raises((PipelineError, AddressError)) as error:
            InfluxLineSink(settings(url))

        assert "canary" not in str(error.value)
        assert error.value.__cause__ is None


def test_a_scrubber_knows_every_form_of_a_secret() -> None:
    scrub = Scrubber(["s3cret/&", "pw", ""])

    assert scrub("a s3cret/& b s3cret%2F%26 c " + base64.b64encode(b"s3cret/&").decode()) == "a *** b *** c ***"
    assert scrub("pw is not in pwd, but in 'pw' and ?p=pw") == "pw is not in pwd, but in '***' and ?p=***"
    assert "s3cret" not in repr(scrub)
    assert Scrubber([])("text") == "text"


# --- the whole way ---


def test_one_bad_line_is_isolated_through_the_wire() -> None:
    lines = [f"m,t=a f={number} {number}" for number in range(500)]
    bad = lines[321]

    def judge(request: Any) -> Reply:
        sent = request.text.split("\n")
        if bad not in sent:
            return NO_CONTENT
        return http(422, json.dumps({"message": "failure writing points: partial write: strange"}))

    with RawServer([judge] * 100) as server:

        async def main() -> list[tuple[int, str]]:
            sink = InfluxLineSink(settings(server.url))
            await sink.connect()
            refusals = await deliver(sink, lines, Policy(), SystemClock())
            await sink.close()
            return [(refusal.line, refusal.reason) for refusal in refusals]

        assert drive(main()) == [(321, "failure writing points: partial write: strange")]
        assert len(server.writes) <= 26


# --- the page ---

PAGE = Path(__file__).parent.parent.parent / "docs" / "influxdb.md"


@pytest.mark.parametrize("flavor", FLAVORS.values(), ids=FLAVORS)
def test_the_page_knows_every_flavor_with_route_and_requests_at_once(flavor: Flavor) -> None:
    (row,) = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| `{flavor.name}` |")]

    assert f"| `{flavor.route}` |" in row
    assert row.endswith(f"| {flavor.in_flight.least} to {flavor.in_flight.most} |")
