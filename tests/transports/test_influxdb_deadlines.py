"""Every request has one deadline, whatever it asks, and however slowly the answer comes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import pytest

from iggyflux.errors import NotConnected, TooMuch
from iggyflux.pipeline import InfluxSettings
from iggyflux.spec import Query
from iggyflux.transports.influxdb.query.source import InfluxRows
from iggyflux.transports.influxdb.write.sink import InfluxLineSink

TIMEOUT = 0.4
LONGEST = 30.0
"""Some requests follow each other in one call; each has its deadline.  Without one, an answer takes over an hour."""

PING = b"HTTP/1.1 204 X\r\nX-Influxdb-Version: v2.7.1\r\nX-Influxdb-Build: OSS\r\n\r\n"
UNKNOWN = b"HTTP/1.1 204 X\r\n\r\n"
SLOW: dict[str, bytes] = {
    "status": b"HTTP/1.1 200 " + b"x" * 100_000,
    "headers": b"HTTP/1.1 200 OK\r\nX-A: " + b"y" * 100_000,
    "body": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{" + b" " * 100_000,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n{\r\n" * 9999,
    "error": b"HTTP/1.1 500 X\r\nContent-Length: 100000\r\n\r\n{" + b" " * 100_000,
    "interim": b"HTTP/1.1 102 Processing\r\n\r\n" * 5000,
}  # fmt: skip


class SlowServer:
    """Answers requests by their target; what has no answer gets `slow`, a byte at a time."""

    def __init__(self, slow: bytes, answers: dict[str, bytes], *, at_once: bool = False) -> None:
        self._slow = slow
        self._answers = answers
        self._at_once = at_once
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_over = threading.Event()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._is_over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while not self._is_over.is_set():
                if self._at_once:
                    self._drip(sock)
                    return
                head = b""
                while b"\r\n\r\n" not in head:
                    received = sock.recv(65536)
                    if not received:
                        return
                    head += received
                target = head.split(b" ")[1].split(b"?")[0].decode()
                answer = next((answer for path, answer in self._answers.items() if target.endswith(path)), None)
                if answer is None:
                    self._drip(sock)
                    return
                sock.sendall(answer)

    def _drip(self, sock: socket.socket) -> None:
        for index in range(len(self._slow)):
            if self._is_over.wait(0.05):
                return
            sock.sendall(self._slow[index : index + 1])


@contextmanager
def slow_server(slow: bytes, answers: dict[str, bytes], *, at_once: bool = False) -> Iterator[str]:
    server = SlowServer(slow, answers, at_once=at_once)
    try:
        yield server.address
    finally:
        server.close()


def settings(url: str, flavor: str = "auto") -> InfluxSettings:
    return InfluxSettings(url=url, flavor=flavor, org="o", bucket="b", timeout_seconds=TIMEOUT)  # type: ignore[arg-type]


async def write(sink: InfluxLineSink) -> None:
    with suppress(NotConnected):
        await sink.connect()
    await sink.write(["m f=1 1"])


Request: TypeAlias = Callable[[InfluxLineSink], Awaitable[object]]
REQUESTS: dict[str, tuple[Request, dict[str, bytes]]] = {
    "ping": (InfluxLineSink.connect, {}),
    "health": (InfluxLineSink.connect, {"/ping": UNKNOWN}),
    "metrics": (InfluxLineSink.connect, {"/ping": UNKNOWN, "/health": UNKNOWN}),
    "probe of the write": (InfluxLineSink.connect, {"/ping": PING}),
    "write": (write, {"/ping": PING}),
    "check": (InfluxLineSink.check, {"/ping": PING}),
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def seconds(work: Callable[[], Awaitable[object]]) -> float:
    """Return how long `work` takes; failures are answers too."""

    async def main() -> None:
        with suppress(NotConnected, TooMuch):
            await asyncio.wait_for(work(), LONGEST * 3)

    began = time.monotonic()
    asyncio.run(main())
    return time.monotonic() - began


@pytest.mark.parametrize("where", SLOW)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_of_a_writer_ends_at_its_deadline(name: str, where: str) -> None:
    request, answers = REQUESTS[name]
    with slow_server(SLOW[where], answers) as address:

        async def work() -> None:
            sink = InfluxLineSink(settings(f"http://{address}"))
            try:
                await request(sink)
            finally:
                await sink.close()

        assert seconds(work) < LONGEST


@pytest.mark.parametrize("where", SLOW)
@pytest.mark.parametrize("language", ["influxql", "flux"])
def test_a_query_that_brings_nothing_within_the_timeout_ends(language: str, where: str) -> None:
    with slow_server(SLOW[where], {"/ping": PING}) as address:

        async def work() -> None:
            parts: dict[str, Any] = {"measurement": "m", "statement": None, "where": (), "fields": (), "tags": ()}
            asked = Query(language=language, **parts)  # type: ignore[arg-type]
            source = InfluxRows(settings(f"http://{address}"), asked, column="time", most_bytes=10**6)
            try:
                await source.connect()
                await source.fetch(0, 10**9)
            finally:
                await source.close()

        assert seconds(work) < LONGEST


@pytest.mark.parametrize("what", ["handshake", "proxy"])
def test_connecting_ends_at_its_deadline(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS handshake, or the answer of a proxy, can come a byte at a time too."""
    slow = b"\x16\x03\x03\x40\x00" + b"\x02" * 16384 if what == "handshake" else SLOW["headers"]
    with slow_server(slow, {}, at_once=what == "handshake") as address:
        if what == "proxy":
            monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        url = f"https://{address}" if what == "handshake" else "https://localhost:1"

        async def work() -> None:
            sink = InfluxLineSink(settings(url))
            try:
                await sink.connect()
            finally:
                await sink.close()

        assert seconds(work) < LONGEST
