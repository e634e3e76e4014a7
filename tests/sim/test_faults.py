"""Faults: what a client sees, on raw sockets where it matters, and what is stored all the same."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

import pytest

from iggyflux.sim import Chaos, Fault, ScenarioError, SimServer
from iggyflux.sim.faults import KINDS, Faults, parse_fault, read_faults, read_scenario
from tests.iggy_server import free_ports
from tests.sim.client import WRITES, call, influxql, post, raw, write

GOOD = b"m f=1 1"


def send(server: SimServer, body: bytes = GOOD) -> bytes:
    return raw(server, post(WRITES[server.dialect], body))


def test_a_status_for_the_next_requests_and_then_none(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("status", status=503, times=2))

    assert [write(any_dialect, GOOD).status for _ in range(3)] == [503, 503, 204]
    assert any_dialect.stats.faults == {"status": 2}


def test_some_requests_pass_before_a_fault(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("status", status=500, skip=1))

    assert [write(any_dialect, GOOD).status for _ in range(3)] == [204, 500, 204]


def test_a_fault_applies_to_its_kind_of_request(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("status", on="other", path="/ping", status=418))

    assert write(any_dialect, GOOD).status == 204
    assert call(any_dialect, "GET", "/ping").status == 418
    assert call(any_dialect, "GET", "/ping").status in (200, 204)


def test_own_bodies_have_the_form_of_the_dialect() -> None:
    forms = {1: {"error": "no"}, 2: {"code": "unavailable", "message": "no"}, 3: {"error": "no"}}
    for dialect, form in forms.items():
        with SimServer(dialect) as server:
            server.inject(Fault("status", status=503, text="no"))
            assert write(server, GOOD).json == form


@pytest.mark.parametrize(
    ("body", "content_type", "start"),
    [
        ("text", "text/plain; charset=utf-8", b"no"),
        ("json", "application/json", b'{"error"'),
        ("html", "text/html", b"<html>"),
        ("empty", None, b""),
    ],
)
def test_bodies_of_others(v2: SimServer, body: str, content_type: str | None, start: bytes) -> None:
    v2.inject(Fault("status", status=502, body=body, text="no"))

    reply = write(v2, GOOD)

    assert reply.headers.get("content-type") == content_type
    assert reply.body.startswith(start)


def test_retry_after_as_seconds_and_as_a_date(v2: SimServer) -> None:
    v2.inject(
        Fault("status", status=429, retry_after=1.5),
        Fault("status", status=503, retry_after=60, retry_after_form="date"),
    )

    assert write(v2, GOOD).headers["retry-after"] == "1.5"
    moment = parsedate_to_datetime(write(v2, GOOD).headers["retry-after"])
    assert 50 < moment.timestamp() - time.time() < 61


def test_a_status_may_come_though_the_lines_are_stored(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("status", status=500, stored=True))

    assert write(any_dialect, GOOD).status == 500
    assert any_dialect.dump() == ["m f=1.0 1"]


def test_an_early_status_comes_before_the_body_was_sent(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("status", status=413, early=True))
    head = post(WRITES[any_dialect.dialect], b"x" * 1_000_000).partition(b"\r\n\r\n")[0]

    answer = raw(any_dialect, head + b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert any_dialect.dump() == []


@pytest.mark.parametrize(
    ("when", "stored", "dump"),
    [("before", False, []), ("during", False, []), ("after", False, []), ("after", True, ["m f=1.0 1"])],
)
def test_resets(any_dialect: SimServer, when: str, stored: bool, dump: list[str]) -> None:
    any_dialect.inject(Fault("reset", when=when, stored=stored))

    assert send(any_dialect) == b"RESET"
    assert any_dialect.dump() == dump
    assert any_dialect.requests[0].status is None
    assert write(any_dialect, GOOD).status == 204


def test_a_truncated_answer_ends_in_the_middle_though_the_lines_are_stored(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("truncate", bytes=20))

    answer = send(any_dialect)

    assert answer == b"HTTP/1.1 204 No Cont"
    assert any_dialect.dump() == ["m f=1.0 1"]


def test_a_truncated_query_ends_without_its_last_chunk(v1: SimServer) -> None:
    write(v1, "\n".join(f"m f={number} {number}" for number in range(100)))
    v1.inject(Fault("truncate", on="query"))

    answer = raw(v1, b"GET /query?db=test&q=SELECT+*+FROM+m HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert not answer.endswith(b"0\r\n\r\n")


def test_a_spliced_answer_ends_cleanly_with_something_else(v2: SimServer) -> None:
    write(v2, "m f=1 1\nm f=2 2\nm f=3 3")
    script = json.dumps({"query": 'from(bucket: "test") |> range(start: 0)'})
    whole = call(v2, "POST", "/api/v2/query?org=org", script).text.splitlines()
    v2.inject(Fault("splice", on="query", text="\r\n,error,reference\r\n,boom,\r\n"))

    cut = call(v2, "POST", "/api/v2/query?org=org", script).text.splitlines()

    assert cut[-3:] == ["", ",error,reference", ",boom,"]
    assert cut[0] == whole[0]
    assert len(cut) - 3 < len(whole) - 1


def test_a_slow_answer_arrives_whole(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("drip", bytes=7, seconds=0.001))

    assert send(any_dialect).endswith(b"\r\n\r\n")


def test_latency_is_felt_and_nothing_else(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("latency", seconds=0.05))
    begun = time.monotonic()

    assert write(any_dialect, GOOD).status == 204
    assert time.monotonic() - begun >= 0.05


def test_latency_and_a_status_apply_together(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("latency", seconds=0.001, times=None), Fault("status", status=503))

    assert [write(any_dialect, GOOD).status for _ in range(2)] == [503, 204]
    assert any_dialect.stats.faults == {"latency": 2, "status": 1}


def test_too_large_by_size_in_the_form_of_the_dialect(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("too_large", bytes=10, times=None))

    assert write(any_dialect, b"m f=1 1\nm f=2 2").status == (500 if any_dialect.dialect == 3 else 413)
    assert write(any_dialect, GOOD).status == 204


def test_duplicate_delivery_changes_nothing_but_the_count(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("duplicate"))

    assert write(any_dialect, GOOD).status == 204
    assert any_dialect.dump() == ["m f=1.0 1"]
    assert any_dialect.stats.overwritten == 1


def test_a_killer_line_kills_every_time_and_its_request_is_not_stored(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("killer", text="poison", times=None))

    for _ in range(3):
        assert send(any_dialect, b"m f=1 1\npoison f=1 1") in (b"", b"RESET")
    assert any_dialect.dump() == []
    assert write(any_dialect, GOOD).status == 204


def test_down_refuses_connections_and_comes_back(any_dialect: SimServer) -> None:
    any_dialect.inject(Fault("down", seconds=0.2))
    begun = time.monotonic()

    assert send(any_dialect) in (b"", b"RESET")
    while True:
        try:
            assert write(any_dialect, GOOD).status == 204
            break
        except ConnectionError:
            assert time.monotonic() < begun + 60
    assert time.monotonic() - begun >= 0.2
    assert any_dialect.dump() == ["m f=1.0 1"]


def test_open_connections_end_when_the_server_goes_down(v1: SimServer) -> None:
    with socket.create_connection(("127.0.0.1", v1.port), timeout=60) as idle:
        idle.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(1_000).startswith(b"HTTP/1.1 204")
        v1.down(0)

        assert idle.recv(1_000) == b""


def test_a_stop_during_many_faults_leaves_nothing_behind() -> None:
    """No thread, no socket (an open one would be reported now), and the port is free."""
    before = set(threading.enumerate())
    for number in range(30):
        with SimServer(1, *free_ports(1), database="plant") as server:
            server.inject(Fault("down", seconds=0.001 * (number % 3), times=None))
            clients = [threading.Thread(target=_fail, args=(server,)) for _ in range(4)]
            for client in clients:
                client.start()
            if number % 2:
                clients[0].join()
        for client in clients:
            client.join()
        with socket.create_server(("127.0.0.1", server.port)):
            pass
    gc.collect()

    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert set(threading.enumerate()) <= before


def _fail(server: SimServer) -> None:
    for _ in range(3):
        with suppress(OSError):
            send(server)


def test_random_faults_are_the_same_for_the_same_seed() -> None:
    def strikes(seed: int) -> list[tuple[str, ...]]:
        faults = Faults()
        faults.unleash(Chaos(seed=seed, rate=0.5))
        return [faults.draw_for("write", "/write").names for _ in range(200)]

    assert strikes(1) == strikes(1) != strikes(2)
    assert {name for names in strikes(1) for name in names} == set(Chaos().kinds)


def test_random_faults_end_after_their_number() -> None:
    faults = Faults()
    faults.unleash(Chaos(rate=1, times=3))

    assert sum(bool(faults.draw_for("write", "/write").faults) for _ in range(10)) == 3
    assert faults.draw_for("query", "/query").faults == ()


def test_the_admin_endpoint_arms_shows_and_clears(any_dialect: SimServer) -> None:
    armed = call(any_dialect, "POST", "/__sim__/faults", json.dumps({"kind": "status", "status": 507, "times": 2}))
    assert (armed.status, armed.json[0]["status"]) == (200, 507)
    assert write(any_dialect, GOOD).status == 507
    assert call(any_dialect, "GET", "/__sim__/faults").json[0]["times"] == 1
    assert call(any_dialect, "DELETE", "/__sim__/faults").json == []
    assert write(any_dialect, GOOD).status == 204
    assert call(any_dialect, "GET", "/__sim__/dump").text == "m f=1.0 1\n"
    assert call(any_dialect, "GET", "/__sim__/stats").json["points"] == 1
    assert [seen["status"] for seen in call(any_dialect, "GET", "/__sim__/requests").json] == [507, 204]
    assert call(any_dialect, "POST", "/__sim__/reset").json["points"] == 0
    assert call(any_dialect, "POST", "/__sim__/nope").status == 404
    wrong = call(any_dialect, "POST", "/__sim__/faults", json.dumps({"kind": "statu"}))
    assert (wrong.status, wrong.json["code"]) == (400, "IFX750")


def test_the_admin_endpoint_takes_a_scenario(v2: SimServer) -> None:
    scenario = {"faults": [{"kind": "status", "status": 500}], "random": {"seed": 3, "rate": 0}}
    assert call(v2, "POST", "/__sim__/faults", json.dumps(scenario)).status == 200

    assert [write(v2, GOOD).status for _ in range(2)] == [500, 204]


def test_faults_are_read_from_a_flag() -> None:
    assert parse_fault("duplicate") == Fault("duplicate")
    assert parse_fault("status:status=429,retry_after=0.5,times=null,body=html") == Fault(
        "status", status=429, retry_after=0.5, times=None, body="html"
    )
    assert parse_fault("reset:when=during,skip=3") == Fault("reset", when="during", skip=3)


def test_every_kind_of_fault_round_trips_through_a_scenario() -> None:
    extra = {"killer": {"text": "x"}, "too_large": {"bytes": 5}, "drip": {"bytes": 5}}
    faults = [Fault(kind, **extra.get(kind, {})) for kind in KINDS]

    assert read_faults([fault.as_dict() for fault in faults]) == faults


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"kind": "statu"}, "did you mean 'status'?"),
        ({"kind": "status", "statsu": 1}, "did you mean 'status'?"),
        ({"kind": "status", "seconds": 1}, "expected one of"),
        ({"kind": "status", "status": "503"}, "status: found '503'"),
        ({"kind": "status", "status": 99}, "expected 200 to 599"),
        ({"kind": "reset", "when": "later"}, "before, during, after"),
        ({"kind": "latency", "seconds": -1}, "cannot be negative"),
        ({"kind": "killer"}, "expected `text`"),
        ({"kind": "latency", "times": True}, "times: found True"),
        ({}, "expected `kind`"),
        ("status", "expected an object"),
    ],
)
def test_faults_that_make_no_sense_are_refused(tree: object, words: str) -> None:
    with pytest.raises(ScenarioError, match=r"faults\[0\]") as caught:
        read_faults([tree])

    assert words in str(caught.value)


def test_scenarios_that_make_no_sense_are_refused() -> None:
    for tree in ([], {"fault": []}, {"random": {"rate": 2}}, {"random": {"kinds": ["killer"]}}, {"random": []}):
        with pytest.raises(ScenarioError):
            read_scenario(tree)


# --- the wire itself ---


def test_a_connection_is_kept_for_many_requests(any_dialect: SimServer) -> None:
    request = post(WRITES[any_dialect.dialect], GOOD).replace(b"Connection: close\r\n", b"")

    answers = raw(any_dialect, request * 3 + post(WRITES[any_dialect.dialect], GOOD))

    assert answers.count(b"HTTP/1.1 204 No Content\r\n") == 4


def test_chunked_bodies_and_100_continue(any_dialect: SimServer) -> None:
    head = f"POST {WRITES[any_dialect.dialect]} HTTP/1.1\r\nHost: localhost\r\n"
    head += "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"

    answer = raw(any_dialect, head.encode() + b"Connection: close\r\n\r\n3\r\nm f\r\n4;x=y\r\n=1 1\r\n0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n")
    assert any_dialect.dump() == ["m f=1.0 1"]


def test_a_request_in_single_bytes_is_a_request(any_dialect: SimServer) -> None:
    with socket.create_connection(("127.0.0.1", any_dialect.port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(WRITES[any_dialect.dialect], GOOD):
            connection.sendall(bytes((byte,)))
        assert connection.recv(100).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / SPDY/3\r\n\r\n"])
def test_bytes_that_are_not_http_are_a_400(any_dialect: SimServer, data: bytes) -> None:
    assert raw(any_dialect, data).startswith(b"HTTP/1.1 400 Bad Request")


def test_a_body_that_breaks_off_stores_nothing(any_dialect: SimServer) -> None:
    raw(any_dialect, post(WRITES[any_dialect.dialect], GOOD)[:-2], wait=False)

    assert write(any_dialect, b"m f=2 2").status == 204
    assert any_dialect.dump() == ["m f=2.0 2"]


def test_a_large_chunked_answer_is_read_whole(v1: SimServer) -> None:
    write(v1, "\n".join(f"m f={number} {number}" for number in range(25_000)))

    assert len(influxql(v1, "SELECT f FROM m")[0]["series"][0]["values"]) == 25_000


def test_a_port_in_use_is_an_error_at_once(v1: SimServer) -> None:
    second = SimServer(1, port=v1.port)
    with pytest.raises(OSError, match="in use"):
        second.start()
    second.stop()
