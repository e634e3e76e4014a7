"""The input and output of the simulator's core: a request, whose body is read on demand, and a response.

Nothing here knows sockets or InfluxDB.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_BODY = 100_000_000
MAX_EXPANDED = 25_000_000
"""The most bytes of a body, as sent and inflated, whatever a real server would accept."""


class ConnectionGone(Exception):
    """The client closed or broke the connection."""


class BodyTooLarge(Exception):
    """The body is longer than the limit, as sent or inflated."""


class Undecodable(Exception):
    """A gzip body that cannot be inflated, in the words of Go's gzip reader; `in_header`: it failed at the start."""

    def __init__(self, words: str, *, in_header: bool = False) -> None:
        self.in_header = in_header
        super().__init__(words)


class Body:
    """The body of a request.

    `more` returns the next bytes, b"" at the end, and raises `ConnectionGone`; `length` is None if the head does not
    give it.
    """

    def __init__(self, length: int | None, more: Callable[[], bytes]) -> None:
        self.length = length
        self.received = 0
        self._more = more
        self._bytes: bytes | None = b"" if length == 0 else None

    @classmethod
    def of(cls, data: bytes) -> Body:
        """Return a body that is complete already."""
        pieces = [data, b""]
        return cls(len(data), lambda: pieces.pop(0))

    @property
    def finished(self) -> bool:
        """Whether it was read to its end."""
        return self._bytes is not None

    def read(self, limit: int | None = None) -> bytes:
        """Return the whole body as sent.  Raise `BodyTooLarge` as soon as it exceeds `limit`, or `ConnectionGone`."""
        limit = MAX_BODY if limit is None else min(limit, MAX_BODY)
        if self._bytes is None:
            if self.length is not None and self.length > limit:
                raise BodyTooLarge
            pieces: list[bytes] = []
            while piece := self._more():
                pieces.append(piece)
                self.received += len(piece)
                if self.received > limit:
                    raise BodyTooLarge
            self._bytes = b"".join(pieces)
        if len(self._bytes) > limit:
            raise BodyTooLarge
        return self._bytes

    def read_half(self) -> None:
        """Read a part of the body."""
        while self.received * 2 < (self.length or 1) and (piece := self._more()):
            self.received += len(piece)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request: header names in lower case; `query` has the first value of each parameter."""

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response; an iterable body is sent in chunks."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""
    close: bool = False


def request_of(method: str, target: str, headers: Mapping[str, str], body: Body) -> HttpRequest:
    """Return the request with its target parsed.  Raise `ValueError` for an invalid target."""
    address = urlsplit(target)
    query: dict[str, str] = {}
    for name, value in parse_qsl(address.query, keep_blank_values=True, encoding="utf-8", errors="replace"):
        query.setdefault(name, value)
    return HttpRequest(method, target, unquote(address.path), query, headers, body)


def gunzip(data: bytes, limit: int, *, all_members: bool = True) -> bytes:
    """Return the inflated data.  Raise `Undecodable` in a Go server's words, `BodyTooLarge` beyond `limit` bytes."""
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
            pieces.append(inflater.decompress(data, limit + 1))
        except zlib.error as exc:
            words = "gzip: invalid checksum" if "check" in str(exc) else "flate: corrupt input before offset 0"
            raise Undecodable(words) from exc
        limit -= len(pieces[-1])
        if limit < 0:
            raise BodyTooLarge
        if not inflater.eof:
            raise Undecodable("unexpected EOF")
        data = inflater.unused_data
        if not all_members:
            break
    return b"".join(pieces)
