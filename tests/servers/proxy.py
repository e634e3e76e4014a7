"""A proxy with faults: it forwards requests, records them, and answers some of the writes itself."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")


@dataclass(frozen=True)
class Trouble:
    """One answer instead of the server's; `stored` forwards the write all the same.  Status 0 breaks off."""

    status: int
    stored: bool = False
    body: bytes = b""


@dataclass
class Proxy:
    url: str
    troubles: list[Trouble] = field(default_factory=list)
    """For the next writes of lines, one each."""
    encodings: list[str] = field(default_factory=list)
    """The `Content-Encoding` of each write."""
    received: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request, with names in lower case."""


@contextmanager
def in_front_of(url: str) -> Iterator[Proxy]:
    """A proxy on loopback that forwards to `url`."""
    target = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            proxy.received.append({key.lower(): value for key, value in self.headers.items()})
            is_write = "/write" in self.path and self.command == "POST" and not body.startswith(b"#")
            trouble = None
            if is_write:
                proxy.encodings.append(self.headers.get("content-encoding", ""))
                trouble = proxy.troubles.pop(0) if proxy.troubles else None
            if trouble is None or trouble.stored:
                status, headers, text = self.forward(body)
                assert trouble is None or status == 204
            if trouble is not None:
                status, headers, text = trouble.status, [], trouble.body
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            if status != 204:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            upstream = http.client.HTTPConnection(target.hostname or "", target.port or 80, timeout=30)
            try:
                given = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
                upstream.request(self.command, self.path, body or None, given)
                answer = upstream.getresponse()
                kept = [(key, value) for key, value in answer.getheaders() if key.lower() not in _HOP]
                return answer.status, kept, answer.read()
            finally:
                upstream.close()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
