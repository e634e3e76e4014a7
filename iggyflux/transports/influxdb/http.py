"""HTTP to one server: send a request once and return the response, or why there is none.  Only this file knows urllib3.

It sends once, follows no redirect and keeps connections alive.  Its texts about failures never contain a credential:
every text from outside goes through `Scrubber`.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from iggyflux.delivery.answers import Answer, plain_words, proxy_hint
from iggyflux.delivery.verdicts import Impossible, Unavailable
from iggyflux.secrets import Scrubber
from iggyflux.transports.certificates import Tls
from iggyflux.transports.influxdb.deadlines import Deadlines
from iggyflux.transports.probes import answers_http, answers_tls
from iggyflux.transports.proxies import Proxy, proxy_for
from iggyflux.transports.urls import Address

# A response that echoes every line of a request fits; a larger one is of no use.
_MOST_BODY_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_PIECE_BYTES = 64 * 1024
_CONNECT_SECONDS = 10.0
# The server may have closed a kept connection that was idle for so long.
STALE_SECONDS = 2.0

Failure: TypeAlias = Unavailable | Impossible


class Ticket:
    """One exchange, or several in a row, so that another thread can end it: at a deadline, or at the end of the run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = float("inf")
        self.connection: _WatchedConnection | None = None
        self.idle_seconds = 0.0
        self.is_cut = False
        self.is_expired = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be read."""
        return self.is_cut or self.is_expired

    def begin(self) -> None:
        """Set the deadline of an exchange, or of the next piece of its answer."""
        self.deadline = time.monotonic() + self.seconds
        self.is_expired = False

    def cut(self) -> None:
        """End the exchange now, and let no other follow: the thread that waits for the socket wakes up."""
        self.is_cut = True
        self._wake()

    def expire(self) -> None:
        """End the exchange because its deadline has passed."""
        self.is_expired = True
        self._wake()

    def _wake(self) -> None:
        if self.connection is not None:
            self.connection.cut(self)


_current = threading.local()
_handing_over = threading.Lock()


class _FinalResponse(http.client.HTTPResponse):
    """The first response that is not interim: http.client skips 100, but not 102 and 103."""

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment]  # as before the first head
            super().begin()


class _WatchedConnection:
    """A mixin for urllib3's connections: gives itself to the ticket, and measures how long it was idle."""

    _sent = 0
    _heard = 0.0
    _ticket: Ticket | None = None
    _connecting: socket.socket | None = None
    sock: socket.socket | None
    timeout: float | None

    def connect(self) -> None:
        self._sent = 0
        ticket = getattr(_current, "ticket", None)
        if ticket is not None:
            with _handing_over:
                self._ticket, ticket.connection = ticket, self
        try:
            super().connect()  # type: ignore[misc]  # the connection that this is mixed into
        finally:
            with _handing_over:
                connecting, self._connecting = self._connecting, None
            if connecting is not None:
                connecting.close()
        if ticket is not None and ticket.is_over:
            raise TimeoutError

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._connecting = sock.dup()  # a TLS handshake detaches the socket, which then cannot be shut down
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        ticket: Ticket = _current.ticket
        with _handing_over:
            self._ticket, ticket.connection = ticket, self
        ticket.idle_seconds = time.monotonic() - self._heard if self.sock is not None and self._sent else 0.0
        if self.sock is None:
            self.connect()
        # Sending may take as long as the whole exchange; only connecting has a shorter limit.
        self.timeout = ticket.seconds
        self._sent += 1
        super().request(*args, **kwargs)  # type: ignore[misc]

    def cut(self, ticket: Ticket) -> None:
        """End the exchange of `ticket`, unless the connection serves another one by now."""
        with _handing_over, suppress(OSError):
            sock = self._connecting or self.sock
            if self._ticket is ticket and sock is not None:
                # The plain method for TLS too: unwrapping is not thread-safe, and no thread reads on.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    @property
    def has_sent(self) -> bool:
        """Whether a request was started on it."""
        return self._sent > 0

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        self._heard = time.monotonic()
        return response


class _PlainConnection(_WatchedConnection, HTTPConnection):
    response_class = _FinalResponse


class _TlsConnection(_WatchedConnection, HTTPSConnection):
    response_class = _FinalResponse


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        # As urllib3 does, but without its warning at each request: one warning was logged already.
        if conn.is_closed:
            conn.connect()


class HttpClient:
    """Exchanges with one server.  Safe to use from several threads."""

    def __init__(
        self,
        address: Address,
        *,
        tls: Tls | None,
        timeout_seconds: float,
        scrub: Scrubber,
        connections: int,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Raise `AddressError` for an unusable proxy, `CertificateFault` for a file of TLS."""
        self.address = address
        self._scrub = scrub
        self._stale_seconds = stale_seconds
        self._timeout_seconds = timeout_seconds
        options: dict[str, Any] = {"maxsize": connections, "block": False, "retries": False}
        if address.scheme == "https":
            tls = tls or Tls()
            options["ssl_context"] = tls.context()
            if tls.domain:
                options["server_hostname"] = tls.domain
        self.proxy = proxy = proxy_for(address)
        self._where = f"{address.host}:{address.port}" + (f" through the proxy {proxy}" if proxy else "")
        self._pools: urllib3.PoolManager
        if proxy is None:
            self._pools = urllib3.PoolManager(1, **options)
        else:
            self._pools = urllib3.ProxyManager(str(proxy.address), 1, proxy_headers=proxy.headers(), **options)
        self._pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        self._under_way: set[Ticket] = set()
        self._deadlines = Deadlines()
        self._was_answered = False

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        ticket: Ticket | None = None,
    ) -> Answer | Failure:
        """Send one request to `target` (a path with a query) and return the response.  Blocks; returns failures.

        All of it has one deadline.  A caller with a `ticket` can cut it before.
        """
        ticket = ticket or Ticket(self._timeout_seconds)

        def take(response: urllib3.BaseHTTPResponse) -> Answer | Failure:
            answer = _read(response, ticket)
            if ticket.is_over and not answer.whole and answer.status != 204:
                return _no_answer(self._where, ticket)
            return answer

        return self._send(method, target, headers, body, ticket, take)

    def download(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        into: Callable[[bytes], None],
        *,
        ticket: Ticket,
    ) -> Answer | Failure:
        """As `exchange`, but pass the body of a 200 to `into`, piece by piece; its length has no bound.

        The head of the response has a deadline, and then each piece of 64 KiB: the whole may take longer.
        `Answer.whole` says whether it came to its end.  Exceptions of `into`, except `OSError`, are not caught.
        """

        def take(response: urllib3.BaseHTTPResponse) -> Answer | Failure:
            return _read(response, ticket) if response.status != 200 else _pass_on(response, ticket, into)

        return self._send(method, target, headers, body, ticket, take)

    def _send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        ticket: Ticket,
        take: Callable[[urllib3.BaseHTTPResponse], Answer | Failure],
    ) -> Answer | Failure:
        """Send a request once and return what `take` makes of the response; meanwhile the ticket can be cut."""
        _current.ticket = ticket
        self._under_way.add(ticket)
        ticket.begin()
        self._deadlines.watch(ticket)
        try:
            response = self._pools.urlopen(
                method,
                str(self.address) + target,
                body=body,
                headers=dict(headers),
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, ticket.seconds), read=ticket.seconds),
            )
            self._was_answered = True
            taken = take(response)
            if not isinstance(taken, Answer):
                return taken
            # Over https the proxy only forwards bytes: the answer is the server's.
            proxy = str(self.proxy) if self.proxy and self.address.scheme == "http" else ""
            return replace(taken, scrub=self._scrub, proxy=proxy)
        except (HTTPError, OSError, http.client.HTTPException) as error:
            return self._failure(error, ticket)
        finally:
            self._deadlines.forget(ticket)
            self._under_way.discard(ticket)
            _current.ticket = None

    def close(self) -> None:
        """Close the connections and cut the exchanges in progress."""
        for ticket in tuple(self._under_way):
            ticket.cut()
        self._deadlines.close()
        self._pools.clear()

    def _failure(self, error: Exception, ticket: Ticket) -> Failure:
        failed = _FailedExchange(error, self.address, self._where, ticket, self._scrub, self.proxy, self._stale_seconds)
        explain = next((explain for kind, explain in _FAILURES if isinstance(error, kind)), _broken)
        failure = explain(failed)
        if isinstance(failure, Unavailable) and not isinstance(error, NewConnectionError) and not ticket.is_cut:
            return self._wrong_scheme() or failure
        return failure

    def _wrong_scheme(self) -> Impossible | None:
        """Return that the server speaks the other of http and https, if it does and never answered."""
        if self._was_answered or self.proxy is not None:
            return None
        if self.address.scheme == "http":
            return _uses_tls(self._where) if answers_tls(self.address.host, self.address.port) else None
        return _uses_no_tls(self._where) if answers_http(self.address.host, self.address.port) else None


def _read(response: urllib3.BaseHTTPResponse, ticket: Ticket) -> Answer:
    """Return the response.  One that breaks off is returned as far as it came: the status already decides much."""
    body = bytearray()
    whole = False
    try:
        while len(body) < _MOST_BODY_BYTES and not ticket.is_over:
            chunk = response.read(_CHUNK_BYTES)
            if not chunk:
                whole = True
                break
            body += chunk
    except (HTTPError, DecodeError, OSError, http.client.HTTPException):
        pass
    if len(body) >= _MOST_BODY_BYTES:
        whole = True  # large enough; the rest stays unread
        response.close()
    elif whole:
        response.release_conn()
    else:
        response.close()
    headers = _headers(response)
    return Answer(response.status, headers, bytes(body), whole and not _ends_early(response, headers))


def _pass_on(response: urllib3.BaseHTTPResponse, ticket: Ticket, into: Callable[[bytes], None]) -> Answer:
    """Return the response without its body, which goes to `into`."""
    headers = _headers(response)
    whole = False
    try:
        while not ticket.is_over:
            ticket.begin()
            try:
                piece = response.read(_PIECE_BYTES)
            except (HTTPError, DecodeError, OSError, http.client.HTTPException):
                break
            if not piece:
                whole = True
                break
            into(piece)
    finally:
        if whole:
            response.release_conn()
        else:
            response.close()
    return Answer(200, headers, b"", whole and not _ends_early(response, headers))


def _headers(response: urllib3.BaseHTTPResponse) -> dict[str, str]:
    """Return the headers with names in lower case, the first of duplicates."""
    headers: dict[str, str] = {}
    for key, value in response.headers.items():
        headers.setdefault(key.lower(), value.split(",")[0] if key.lower() == "x-influxdb-version" else value)
    return headers


def _ends_early(response: urllib3.BaseHTTPResponse, headers: Mapping[str, str]) -> bool:
    """Whether the end of the connection ended the response without an announcement: headers may be missing."""
    if response.status == 204 or response.version < 11:
        return False
    said = headers.get("connection", "").lower()
    return not (headers.keys() & {"content-length", "transfer-encoding"} or "close" in said)


# --- what failures mean ---


@dataclass(frozen=True, slots=True)
class _FailedExchange:
    error: Exception
    address: Address
    where: str
    ticket: Ticket
    scrub: Scrubber
    proxy: Proxy | None
    stale_seconds: float

    @property
    def cause(self) -> BaseException:
        """The innermost exception: the message of the operating system or of TLS."""
        error: BaseException = self.error
        while True:
            inner = next((item for item in error.args if isinstance(item, BaseException)), None)
            inner = inner or getattr(error, "original_error", None) or error.__cause__
            if inner is None or inner is error:
                return error
            error = inner

    @property
    def words(self) -> str:
        cause = self.cause
        text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
        return plain_words(text, self.scrub)


def _timed_out(failed: _FailedExchange) -> Failure:
    return _no_answer(failed.where, failed.ticket)


def _no_answer(where: str, ticket: Ticket) -> Unavailable:
    """Return that no answer came in time: as a rule the server is slow, but what was sent may be the cause."""
    return Unavailable(f"no complete answer from {where} within {ticket.seconds:g} s", suspicious=_has_sent(ticket))


def _unresolved(failed: _FailedExchange) -> Failure:
    return Unavailable(f"the host name {failed.address.host!r} does not resolve: {failed.words}")


def _no_connection(failed: _FailedExchange) -> Failure:
    return Unavailable(f"cannot connect to {failed.where}: {failed.words}")


def _late_connection(failed: _FailedExchange) -> Failure:
    return Unavailable(f"cannot connect to {failed.where} within {min(_CONNECT_SECONDS, failed.ticket.seconds):g} s")


def _proxy_failed(failed: _FailedExchange) -> Failure:
    """Return what is wrong with the proxy itself: it was not reached, or it refuses CONNECT."""
    if failed.ticket.is_over or isinstance(failed.cause, TimeoutError):
        return _timed_out(failed)
    refused = _TUNNEL.match(failed.words)
    if refused is None:
        return Unavailable(f"cannot connect to the proxy {failed.proxy}: {failed.words}")
    status = int(refused[1])
    place = f"{failed.address.host}:{failed.address.port}"
    reason = f"the proxy {failed.proxy} answered {status} to CONNECT {place}: {refused[2]}"
    if status in (408, 425, 429, 500, 502, 503, 504):
        return Unavailable(reason, status)
    return Impossible(reason, proxy_hint(status), status, "IFX726")


_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3}) ?(.*)")


_TLS_ALERT = "\x15\x03"  # what 3.x answers to http on its TLS port
_UNKNOWN_AUTHORITY = (
    "set `ca_file` to the authority that signed it (and `url` to the name in it); "
    "`verify: false` accepts any certificate"
)
_DATES = "renew the certificate of the server, and check the clock of this machine"
_NAMES = "set `url` or `domain` to a name in the certificate; `verify: false` accepts any certificate"
_VERIFY_HINTS = {9: _DATES, 10: _DATES, 62: _NAMES, 64: _NAMES}  # X509_V_ERR_… of OpenSSL: dates, host, address
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})


def _tls_failed(failed: _FailedExchange) -> Failure:
    cause = failed.cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = plain_words(cause.verify_message or str(cause), failed.scrub)
        hint = _VERIFY_HINTS.get(cause.verify_code, _UNKNOWN_AUTHORITY)
        return Impossible(f"the certificate of {failed.where} is not trusted: {why}", hint, code="IFX727")
    reason = (getattr(cause, "reason", None) or "") if isinstance(cause, ssl.SSLError) else ""
    if reason in _NOT_TLS:
        return _uses_no_tls(failed.where)
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return Impossible(
            f"{failed.where} rejects the client certificate: {reason.lower().replace('_', ' ')}",
            "set `client_cert` and `client_key` to a certificate that the server trusts",
            code="IFX727",
        )
    return _broken(failed)


def _uses_tls(where: str) -> Impossible:
    return Impossible(f"{where} uses TLS", "write https:// instead of http:// in `url`", code="IFX727")


def _uses_no_tls(where: str) -> Impossible:
    return Impossible(f"{where} does not use TLS", "write http:// instead of https:// in `url`", code="IFX727")


def _broken(failed: _FailedExchange) -> Failure:
    """Return that the connection broke, while it was made or after something was sent on it."""
    ticket = failed.ticket
    if ticket.is_over or isinstance(failed.cause, TimeoutError):
        return _timed_out(failed)
    if isinstance(failed.cause, http.client.BadStatusLine) and str(failed.cause).startswith(_TLS_ALERT):
        return _uses_tls(failed.where)
    if isinstance(failed.error, SSLError) and ticket.connection is not None and not _has_sent(ticket):
        return Unavailable(f"the TLS handshake with {failed.where} broke off: {failed.words}")
    return Unavailable(
        f"the connection to {failed.where} broke before the answer: {failed.words}",
        connection_died=_has_sent(ticket) and ticket.idle_seconds <= failed.stale_seconds,
    )


def _has_sent(ticket: Ticket) -> bool:
    return ticket.connection is not None and ticket.connection.has_sent


_FAILURES: tuple[tuple[type[Exception], Callable[[_FailedExchange], Failure]], ...] = (
    (NameResolutionError, _unresolved),
    (NewConnectionError, _no_connection),
    (ConnectTimeoutError, _late_connection),
    (ReadTimeoutError, _timed_out),
    (ProxyError, _proxy_failed),
    (SSLError, _tls_failed),
)
