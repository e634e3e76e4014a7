"""What other hosts can do to a simulator: nothing without the token, nothing from a web page, and nothing large."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from iggyflux.sim import SimServer
from tests.sim.client import WRITES, call, post, raw, write

OPEN_FILES = Path("/proc/self/fd")
TOKENS = {1: "user:geheim", 2: "geheim", 3: "geheim"}
ADMIN = [
    ("GET", "stats", ""),
    ("GET", "requests", ""),
    ("GET", "dump", ""),
    ("GET", "faults", ""),
    ("POST", "faults", '{"kind": "status"}'),
    ("POST", "reset", ""),
    ("POST", "down", '{"seconds": 0}'),
    ("DELETE", "faults", ""),
    ("GET", "nothing", ""),
]


@pytest.fixture(params=[1, 2, 3], ids=["1.x", "2.x", "3.x"])
def guarded(request: pytest.FixtureRequest) -> Iterator[SimServer]:
    tokens = {TOKENS[request.param]: {"read", "write"}, "u:half": {"read"}, "half": {"write"}}
    with SimServer(request.param, tokens=tokens) as server:
        yield server


def authorization(server: SimServer, token: str | None = None) -> dict[str, str]:
    token = TOKENS[server.dialect] if token is None else token
    if server.dialect == 1:
        import base64

        return {"Authorization": "Basic " + base64.b64encode(token.encode()).decode()}
    return {"Authorization": f"{'Token' if server.dialect == 2 else 'Bearer'} {token}"}


@pytest.mark.parametrize(("method", "name", "body"), ADMIN)
def test_admin_requests_need_a_token_with_all_rights(guarded: SimServer, method: str, name: str, body: str) -> None:
    half = authorization(guarded, "u:half" if guarded.dialect == 1 else "half")

    for headers in ({}, authorization(guarded, "wrong:wrong"), {"Authorization": "Token"}, half):
        reply = call(guarded, method, f"/__sim__/{name}", body, headers)

        assert reply.status == (403 if headers is half else 401)
        assert "geheim" not in reply.text
    assert guarded.faults.pending() == []


@pytest.mark.parametrize(("method", "name", "body"), ADMIN[:-1])
def test_admin_requests_with_the_token_are_answered(guarded: SimServer, method: str, name: str, body: str) -> None:
    assert call(guarded, method, f"/__sim__/{name}", body, authorization(guarded)).status == 200


FOREIGN = [
    "evil.example",
    "evil.example:8086",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "10.0.0.1",
    "x@localhost",
]


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("target", ["/ping", "/__sim__/dump"])
def test_a_page_that_binds_its_own_name_to_loopback_is_refused(any_dialect: SimServer, host: str, target: str) -> None:
    answer = raw(any_dialect, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 421 ")
    assert any_dialect.requests == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8086", "127.9.9.9", "[::1]:8086", "[::1]"])
def test_loopback_by_any_name_is_answered(any_dialect: SimServer, host: str) -> None:
    answer = raw(any_dialect, f"GET /ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 20")


def test_a_server_that_listens_everywhere_has_any_name() -> None:
    """A container is called by the name of its service."""
    with SimServer(2, host="0.0.0.0") as server:
        answer = raw(server, b"GET /ping HTTP/1.1\r\nHost: influxdb:8086\r\nConnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("members", [1, 20])
def test_a_body_is_bounded_when_it_is_expanded(any_dialect: SimServer, members: int) -> None:
    """400 MB of one letter are 400 kB of gzip; also in several members."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = b"m f=1 1\n" * 125_000
    member = b"".join(compressor.compress(piece) for _ in range(400 // members)) + compressor.flush()
    bomb = member * members
    tracemalloc.start()
    try:
        reply = call(any_dialect, "POST", WRITES[any_dialect.dialect], bomb, {"Content-Encoding": "gzip"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reply.status in (400, 413, 500)
    assert any_dialect.dump() == []
    assert peak < 150_000_000


def test_a_body_that_is_announced_as_huge_is_rejected_before_it_arrives(any_dialect: SimServer) -> None:
    head = post(WRITES[any_dialect.dialect], b"").replace(b"Content-Length: 0", b"Content-Length: 900000000000")

    assert raw(any_dialect, head, wait=True).startswith(b"HTTP/1.1 ")
    assert write(any_dialect, b"m f=1 1").status == 204


@pytest.mark.parametrize(
    "data",
    [
        b"GET /ping HTTP/1.1\r\n" + b"X-A: b\r\n" * 100_000 + b"\r\n",
        b"GET /ping HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_heads_that_are_too_large_or_wrong_are_refused(any_dialect: SimServer, data: bytes) -> None:
    answer = raw(any_dialect, data)

    assert answer == b"RESET" or answer.split(b" ")[1:2] in ([b"400"], [b"431"])
    assert write(any_dialect, b"m f=1 1").status == 204


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("down", '{"seconds": "soon"}'),
        ("down", '{"seconds": -1}'),
        ("down", '{"seconds": 1e999}'),
        ("down", '{"seconds": null}'),
        ("down", "[]"),
        ("faults", "{"),
        ("faults", "\udcff"),
        ("faults", "[" * 100_000),
        ("faults", '{"kind": "status", "status": 1' + "0" * 5_000 + "}"),
        ("faults", '{"kind": "latency", "seconds": NaN}'),
        ("faults", '{"kind": "latency", "seconds": Infinity}'),
        ("faults", "17"),
        ("faults", '{"faults": 3}'),
        ("faults", '{"random": {"kinds": [1]}}'),
        ("faults", '{"random": {"seed": "x"}}'),
    ],
)
def test_admin_bodies_that_make_no_sense_are_a_400_with_the_reason(v2: SimServer, name: str, body: str) -> None:
    reply = call(v2, "POST", f"/__sim__/{name}", body.encode("utf-8", "surrogateescape"))

    assert reply.status == 400
    assert json.loads(reply.text)["error"]
    assert write(v2, b"m f=1 1").status == 204


def test_an_admin_body_is_bounded(v2: SimServer) -> None:
    assert call(v2, "POST", "/__sim__/faults", b" " * 20_000_000).status in (400, 413)


def test_a_real_gzip_body_is_still_taken(any_dialect: SimServer) -> None:
    body = gzip.compress(b"\n".join(b"m f=%d %d" % (number, number) for number in range(5_000)))

    assert call(any_dialect, "POST", WRITES[any_dialect.dialect], body, {"Content-Encoding": "gzip"}).status == 204


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="no /proc/self/fd on this system")
def test_a_connection_that_has_ended_leaves_no_file_open(any_dialect: SimServer) -> None:
    def connect() -> None:
        write(any_dialect, "a b=1 1")
        call(any_dialect, "GET", "/ping")

    connect()  # what is opened once
    before = len(list(OPEN_FILES.iterdir()))
    for _ in range(20):
        connect()
    end = time.monotonic() + 30
    while len(list(OPEN_FILES.iterdir())) > before + 5 and time.monotonic() < end:
        time.sleep(0.01)  # the server notices the end of the last ones
    assert len(list(OPEN_FILES.iterdir())) <= before + 5
