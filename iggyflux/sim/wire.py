"""HTTP/1.1 on a socket, small and in full view: what a stand-in needs to misbehave on purpose.

Requests are read head first, so that an answer can be given, or the connection broken, before, in the middle of or
after the body.  Nothing here knows of InfluxDB.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_HEAD = 65_536
_PIECE = 65_536


class ConnectionGone(Exception):
    """The other side closed or broke the connection."""


class BadRequest(Exception):
    """What came is not HTTP."""


class TooLarge(Exception):
    """The body is longer than was asked for."""


class Undecodable(Exception):
    """A gzip body that cannot be inflated, in the words of Go's gzip reader; `in_header`: it failed at the start."""

    def __init__(self, words: str, *, in_header: bool = False) -> None:
        self.in_header = in_header
        super().__init__(words)


class Wire:
    """A connection with a buffer."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def read_head(self) -> bytes | None:
        """The next request's head; None where the connection ended before one began."""
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise BadRequest("head too long")
            piece = self._receive()
            if not piece:
                if self._buffer.strip():
                    raise ConnectionGone
                return None
            self._buffer += piece
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes.  Raises `ConnectionGone`."""
        pieces = [self._buffer[:size]]
        self._buffer = self._buffer[size:]
        missing = size - len(pieces[0])
        while missing:
            piece = self._receive(missing)
            if not piece:
                raise ConnectionGone
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def read_line(self) -> bytes:
        """A line without its CRLF."""
        while b"\r\n" not in self._buffer:
            piece = self._receive()
            if not piece or len(self._buffer) > MAX_HEAD:
                raise ConnectionGone
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def send(self, data: bytes) -> None:
        """Raises `ConnectionGone`."""
        try:
            self.socket.sendall(data)
        except OSError as exc:
            raise ConnectionGone from exc

    def reset(self) -> None:
        """End the connection at once, so that the other side sees a reset."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """End the connection; idempotent."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def _receive(self, size: int = _PIECE) -> bytes:
        try:
            return self.socket.recv(min(size, _PIECE))
        except OSError as exc:
            raise ConnectionGone from exc


@dataclass(slots=True)
class Body:
    """The body of a request, read when it is asked for.  `length` is None for a chunked one."""

    wire: Wire
    length: int | None
    expects_continue: bool = False
    finished: bool = False
    received: int = 0
    _bytes: bytes | None = None

    def read(self, limit: int | None = None) -> bytes:
        """The whole body as sent.  Raises `TooLarge` as soon as it is longer than `limit`, `ConnectionGone`."""
        if self._bytes is None:
            if limit is not None and self.length is not None and self.length > limit:
                raise TooLarge
            self._start()
            self._bytes = self._read_chunks(limit) if self.length is None else self._read(self.length)
            self.finished = True
        if limit is not None and len(self._bytes) > limit:
            raise TooLarge
        return self._bytes

    def read_half(self) -> None:
        """Take some of the body and leave the rest."""
        self._start()
        if self.length is None:
            size = int(self.wire.read_line().split(b";")[0], 16)
            self._read(size // 2)
        else:
            self._read(self.length // 2)

    def _start(self) -> None:
        if self.expects_continue:
            self.expects_continue = False
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read(self, size: int) -> bytes:
        data = self.wire.read(size)
        self.received += len(data)
        return data

    def _read_chunks(self, limit: int | None) -> bytes:
        pieces: list[bytes] = []
        while True:
            try:
                size = int(self.wire.read_line().split(b";")[0], 16)
            except ValueError as exc:
                raise BadRequest("chunk size") from exc
            if size == 0:
                while self.wire.read_line():
                    pass
                return b"".join(pieces)
            if limit is not None and self.received + size > limit:
                raise TooLarge
            pieces.append(self._read(size))
            self.wire.read_line()


@dataclass(frozen=True, slots=True)
class Request:
    """A request: header names in lower case; `query` holds the first value of each parameter."""

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    keep_alive: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back; an iterable body goes out in chunks."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""
    close: bool = False


def read_request(wire: Wire) -> Request | None:
    """The next request; None where the connection ended.  Raises `BadRequest`, `ConnectionGone`."""
    head = wire.read_head()
    if head is None:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("request line")
    headers: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest("header line")
        headers.setdefault(name.strip().lower(), value.strip())
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    try:
        length = None if chunked else int(headers.get("content-length", "0"))
    except ValueError as exc:
        raise BadRequest("content length") from exc
    address = urlsplit(parts[1])
    query: dict[str, str] = {}
    for name, value in parse_qsl(address.query, keep_blank_values=True, encoding="utf-8", errors="replace"):
        query.setdefault(name, value)
    connection = headers.get("connection", "").lower()
    body = Body(wire, length, expects_continue=headers.get("expect", "").lower() == "100-continue")
    body.finished = length == 0
    keep_alive = connection != "close" if parts[2] == "HTTP/1.1" else connection == "keep-alive"
    return Request(parts[0], parts[1], unquote(address.path), query, headers, body, keep_alive)


def head_of(answer: Answer, *, close: bool, method: str = "GET") -> bytes:
    """Status line and headers."""
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "status code " + str(answer.status)
    if answer.status == 413:
        phrase = "Request Entity Too Large"
    lines = [f"HTTP/1.1 {answer.status} {phrase}"]
    lines += [f"{name}: {_one_line(value)}" for name, value in answer.headers.items()]
    lines.append(f"Date: {formatdate(usegmt=True)}")
    if isinstance(answer.body, bytes):
        if answer.status not in (204, 304) and not (method == "HEAD" and not answer.body):
            lines.append(f"Content-Length: {len(answer.body)}")
    else:
        lines.append("Transfer-Encoding: chunked")
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def pieces_of(answer: Answer) -> Iterable[bytes]:
    """The body as it goes over the wire."""
    if isinstance(answer.body, bytes):
        if answer.body:
            yield answer.body
        return
    for piece in answer.body:
        if piece:
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def gunzip(data: bytes, *, all_members: bool = True) -> bytes:
    """Inflate; raises `Undecodable` with the words that a Go server has for it."""
    if not data:
        raise Undecodable("EOF", in_header=True)
    pieces = []
    while data:
        if len(data) < 10:
            raise Undecodable("unexpected EOF", in_header=True)
        if data[:3] != b"\x1f\x8b\x08":
            raise Undecodable("gzip: invalid header", in_header=True)
        inflater = zlib.decompressobj(wbits=31)
        try:
            pieces.append(inflater.decompress(data))
        except zlib.error as exc:
            words = "gzip: invalid checksum" if "check" in str(exc) else "flate: corrupt input before offset 0"
            raise Undecodable(words) from exc
        if not inflater.eof:
            raise Undecodable("unexpected EOF")
        data = inflater.unused_data
        if not all_members:
            break
    return b"".join(pieces)


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")
