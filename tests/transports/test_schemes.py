"""http to a server of TLS, https to a server without: whatever such a server answers, the right scheme is suggested."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import InfluxSettings
from iggyflux.secrets import Secret
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
from tests.transports.raw_server import PING_2

TLS = Path(__file__).parent / "tls"
HANDSHAKE = 0x16


def close(sock: socket.socket) -> None:
    pass


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang(sock: socket.socket) -> None:
    sock.settimeout(4)
    with suppress(OSError):
        while sock.recv(4096):
            pass


def says(data: bytes) -> Callable[[socket.socket], None]:
    def say(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(data)

    return say


def page(text: str, status: str = "400 Bad Request", kind: str = "text/html") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return says((head + text).encode())


# What servers of TLS do with a request without it.
TLS_SERVERS = {
    "Go": says(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
    "nginx": page("<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"),
    "Apache": page("<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.</p>"),
    "Tomcat": page("This combination of host and port requires TLS.", kind="text/plain"),
    "an alert": says(b"\x15\x03\x03\x00\x02\x02\x46"),
    "another alert": says(b"\x15\x03\x01\x00\x02\x02\x16"),
    "half an alert": says(b"\x15\x03"),
    "close": close,
    "reset": reset,
    "hang": hang,
}
# What servers without TLS do with the start of a handshake.
PLAIN_SERVERS = {
    "a page": page("<html>400"),
    "a line": says(b"HTTP/1.0 400 Bad request\r\n\r\n"),
    "close": close,
    "reset": reset,
    "hang": hang,
}


class Server:
    """Speaks HTTP with or without TLS; `otherwise` treats a connection that begins with the other."""

    def __init__(self, *, tls: bool | None, otherwise: Callable[[socket.socket], None]) -> None:
        self.tls = tls
        self.otherwise = otherwise
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(TLS / "server.pem")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.requests = b""

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self.one, args=(sock,), daemon=True).start()

    def one(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            is_handshake = sock.recv(1, socket.MSG_PEEK)[:1] == bytes([HANDSHAKE])
            if self.tls is None or is_handshake is not self.tls:
                self.otherwise(sock)
                return
            with self.context.wrap_socket(sock, server_side=True) if self.tls else sock as stream:
                while piece := stream.recv(65536):
                    self.requests += piece
                    stream.sendall(PING_2.data)


@contextmanager
def serving(*, tls: bool | None, otherwise: Callable[[socket.socket], None]) -> Iterator[Server]:
    server = Server(tls=tls, otherwise=otherwise)
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        with suppress(OSError):
            server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def connect(url: str, flavor: str = "auto") -> None:
    async def main() -> None:
        given = InfluxSettings(url=url, bucket="b", token=Secret("t0ken"), timeout_seconds=1.0, flavor=flavor)  # type: ignore[arg-type]
        sink = InfluxLineSink(given)
        try:
            await sink.connect()
        finally:
            await sink.close()

    asyncio.run(main())


@pytest.mark.parametrize("flavor", ["auto", "v1", "v3"])
@pytest.mark.parametrize("kind", TLS_SERVERS)
def test_https_is_suggested_for_a_server_of_tls(kind: str, flavor: str) -> None:
    with serving(tls=True, otherwise=TLS_SERVERS[kind]) as server, pytest.raises(Stopped) as stopped:
        connect(f"http://127.0.0.1:{server.port}", flavor)

    assert stopped.value.code == "IFX727"
    assert "https:// instead of http://" in (stopped.value.hint or "")


@pytest.mark.parametrize("kind", PLAIN_SERVERS)
def test_http_is_suggested_for_a_server_without_tls(kind: str) -> None:
    with serving(tls=False, otherwise=PLAIN_SERVERS[kind]) as server, pytest.raises(Stopped) as stopped:
        connect(f"https://127.0.0.1:{server.port}")

    assert stopped.value.code == "IFX727"
    assert "http:// instead of https://" in (stopped.value.hint or "")
    assert b"t0ken" not in server.requests


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("otherwise", [close, reset, hang], ids=lambda each: each.__name__)
def test_nothing_is_suggested_where_neither_is_spoken(scheme: str, otherwise: Callable[[socket.socket], None]) -> None:
    with serving(tls=None, otherwise=otherwise) as server, pytest.raises(NotConnected) as error:
        connect(f"{scheme}://127.0.0.1:{server.port}")

    assert "instead of" not in str(error.value)


def test_a_server_that_answered_once_is_not_suspected() -> None:
    """A connection that breaks later is a fault of the network or of a request."""

    async def main(url: str) -> None:
        given = InfluxSettings(url=url, bucket="b", token=Secret("t"), timeout_seconds=1.0, flavor="v2")
        sink = InfluxLineSink(given)
        await sink.connect()
        server.tls = True
        server.otherwise = reset
        sink._client._pools.clear()  # type: ignore[union-attr]
        try:
            with pytest.raises(NotConnected):
                await sink.connect()
        finally:
            await sink.close()

    with serving(tls=False, otherwise=close) as server:
        asyncio.run(main(f"http://127.0.0.1:{server.port}"))
