"""A loopback server that answers with bytes from a script, also such that no correct server would send."""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

_LINGER_OFF = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Request:
    """A received request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body, inflated if it is gzip."""
        body = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        return body.decode()


@dataclass(frozen=True)
class Reply:
    """Bytes to send, and when.

    `before_body` answers as soon as the head of the request was read; `reset` ends with RST instead of FIN; `drip`
    sends byte by byte until the client disconnects; `wait` delays the answer until the event.
    """

    data: bytes
    close: bool = False
    before_body: bool = False
    reset: bool = False
    drip: bool = False
    wait: threading.Event | None = None


Script: TypeAlias = Reply | Callable[[Request], Reply]


def http(
    status: int, body: bytes | str = b"", *headers: str, reason: str = "X", close: bool = False, **how: object
) -> Reply:
    """Return a well-formed reply."""
    data = body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status} {reason}", *headers]
    if status != 204:
        head.append(f"Content-Length: {len(data)}")
    if close:
        head.append("Connection: close")
    return Reply("\r\n".join([*head, "", ""]).encode() + data, close=close, **how)  # type: ignore[arg-type]


NO_CONTENT = http(204)
PING_1 = http(204, b"", "X-Influxdb-Version: 1.8.10", "X-Influxdb-Build: OSS")
PING_2 = http(204, b"", "X-Influxdb-Version: v2.7.1", "X-Influxdb-Build: OSS")
PING_3 = http(
    200, b'{"version":"3.6.0","revision":"x","process_id":"y"}', "x-influxdb-version: 3.6.0", "x-influxdb-build: Core"
)


@dataclass
class RawServer:
    """Serves the script, one reply a request, then 204 without end.

    Not from the script: `/ping` is answered by `ping`, a write of only a comment by `probe`, unless these are None.
    """

    script: Sequence[Script] = ()
    ping: Reply | None = PING_2
    probe: Reply | None = NO_CONTENT
    context: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._replies: Iterator[Script] = iter(self.script)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http{'s' if self.context else ''}://127.0.0.1:{self.port}"

    @property
    def writes(self) -> list[Request]:
        """The requests that carried lines."""
        return [request for request in self.requests if "write" in request.target and not request.body.startswith(b"#")]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for step in self.script:
            if isinstance(step, Reply) and step.wait is not None:
                step.wait.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._open)
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _accept(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                sock, _address = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                thread.start()
                threads.append(thread)
        for thread in threads:
            thread.join(5)

    def _serve(self, sock: socket.socket) -> None:
        with self._tracked(sock), suppress(OSError, ValueError, zlib.error):
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            with self._tracked(sock), sock.makefile("rb") as reader:
                if reader.peek(1)[:1] == b"\x16":  # TLS, which this server does not support: answer as web servers do
                    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    return
                while self._one(sock, reader.readline, reader.read):
                    pass

    @contextmanager
    def _tracked(self, sock: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _one(self, sock: socket.socket, readline: Callable[[], bytes], read: Callable[[int], bytes]) -> bool:
        """Serve one request; return whether the connection stays open."""
        first = readline().decode().split()
        if len(first) != 3:
            return False
        headers: dict[str, str] = {}
        while line := readline().strip():
            key, _, value = line.decode("latin-1").partition(":")
            headers[key.strip().lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        head = Request(first[0], first[1], headers, b"")
        if head.target.partition("?")[0].endswith("/ping") and self.ping:
            reply, request = self.ping, head
        elif length == len(b"# iggyflux") and self.probe:
            reply, request = self.probe, Request(first[0], first[1], headers, read(length))
        else:
            with self._lock:
                step = next(self._replies, NO_CONTENT)
            early = isinstance(step, Reply) and step.before_body
            request = head if early else Request(first[0], first[1], headers, read(length))
            reply = step if isinstance(step, Reply) else step(request)
        self.requests.append(request)
        return self._answer(sock, reply)

    def _answer(self, sock: socket.socket, reply: Reply) -> bool:
        if reply.wait is not None:
            reply.wait.wait(60)
        if reply.drip:
            never = threading.Event()
            for index in range(len(reply.data)):
                sock.sendall(reply.data[index : index + 1])
                never.wait(0.02)
        else:
            sock.sendall(reply.data)
        if reply.reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        return not (reply.close or reply.reset or reply.before_body)
