"""HTTP/1.1 on a socket by h11, whose output can be cut, slowed or broken on purpose.

The head of a request is read first, so that the server can respond, or break the connection, before, within or after
the body.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus

import h11

from iggyflux.sim.exchange import Body, ConnectionGone, HttpRequest, HttpResponse, request_of

_MAX_HEAD = 65_536
_PIECE = 65_536
_HANG_UP_SECONDS = 0.5
_NO_HEADER_TEXT = re.compile("[\0\r\n\v\f]")


class BadRequest(Exception):
    """The received bytes are not HTTP; `status` says what is wrong with them."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


class HttpConnection:
    """One connection of a client."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)

    def read_request(self) -> HttpRequest | None:
        """Return the next request; None if the connection ended.  Raise `BadRequest`, `ConnectionGone`."""
        event = self._next_event()
        if not isinstance(event, h11.Request):
            return None
        headers: dict[str, str] = {}
        for name, value in event.headers:
            headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        length = None if "transfer-encoding" in headers else int(headers.get("content-length", "0"))
        try:
            return request_of(
                event.method.decode("latin-1"), event.target.decode("latin-1"), headers, Body(length, self._more)
            )
        except ValueError as error:
            raise BadRequest(400) from error

    def _more(self) -> bytes:
        """Return the next bytes of the body; b"" at its end."""
        if self._http.they_are_waiting_for_100_continue:
            self.send(self._http.send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue")) or b"")
        while True:
            event = self._next_event()
            if isinstance(event, h11.EndOfMessage):
                return b""
            if not isinstance(event, h11.Data):
                raise ConnectionGone
            if event.data:
                return bytes(event.data)

    def _next_event(self) -> object:
        while True:
            try:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self._http.receive_data(self._socket.recv(_PIECE))
            except h11.RemoteProtocolError as error:
                if self._http.their_state is h11.SEND_BODY or "incomplete message" in str(error):
                    raise ConnectionGone from error
                raise BadRequest(error.error_status_hint) from error
            except OSError as error:
                raise ConnectionGone from error

    def encode(self, request: HttpRequest, answer: HttpResponse) -> Iterator[bytes]:
        """Yield the bytes of a response, the head with the first part of its body."""
        if request.body.length == 0 and self._http.their_state is h11.SEND_BODY:
            self._next_event()  # the end of an empty body
        whole = answer.body if isinstance(answer.body, bytes) else None
        may_have_body = answer.status not in (204, 304)
        has_body = may_have_body and request.method != "HEAD"
        headers = [(name.encode(), _header(value)) for name, value in answer.headers.items()]
        headers.append((b"Date", formatdate(usegmt=True).encode()))
        if whole is not None and may_have_body and (has_body or whole):
            headers.append((b"Content-Length", b"%d" % len(whole)))
        if answer.close or not request.body.finished:
            headers.append((b"Connection", b"close"))
        head = self._send(h11.Response(status_code=answer.status, headers=headers, reason=_reason(answer.status)))
        if isinstance(answer.body, bytes) or not has_body:
            body = self._send(h11.Data(data=whole)) if whole and has_body else b""
            yield head + body + self._send(h11.EndOfMessage())
            return
        for piece in answer.body:
            yield head + self._send(h11.Data(data=piece))
            head = b""
        yield head + self._send(h11.EndOfMessage())

    def refuse(self, status: int) -> None:
        """Respond to bytes that are not HTTP."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            text = f"{status} {_reason(status)}".encode()
            headers = [(b"Content-Type", b"text/plain"), (b"Connection", b"close")]
            headers.append((b"Content-Length", b"%d" % len(text)))
            response = h11.Response(status_code=status, headers=headers, reason=_reason(status))
            self.send(self._send(response) + self._send(h11.Data(data=text)) + self._send(h11.EndOfMessage()))
            self.hang_up()

    def is_over(self) -> bool:
        """Whether the connection ends after the response; else it is ready for the next request."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return False
        return True

    def send(self, data: bytes) -> None:
        """Send bytes unchanged.  Raise `ConnectionGone`."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionGone from error

    def hang_up(self) -> None:
        """Stop sending; read what still arrives for a moment, so that a reset does not destroy the response."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.settimeout(_HANG_UP_SECONDS)
            while self._socket.recv(_PIECE):
                pass

    def interrupt(self) -> None:
        """End the connection from another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection at once, so that the client sees a reset."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """End the connection; idempotent."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _send(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""


def _header(value: str) -> bytes:
    """Return a header's value without characters that HTTP does not allow in one."""
    return _NO_HEADER_TEXT.sub(" ", value).strip().encode("utf-8", "surrogateescape")


def _reason(status: int) -> str:
    if status == 413:
        return "Request Entity Too Large"  # Go's wording
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status code {status}"
