"""HTTP to one server: one request, one answer or the words for why there is none.  The only file that knows urllib3.

It sends once, follows no redirect and keeps connections alive.  What it says about a failure never holds a credential:
every text that comes from outside goes through `Scrubber`.
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
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # it is there

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

from iggyflux.delivery.answers import Answer, plain_words
from iggyflux.delivery.verdicts import Impossible, Unavailable
from iggyflux.secrets import Scrubber

# An answer that repeats every line of a request fits; nothing larger is of use.
_MOST_BODY_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_CONNECT_SECONDS = 10.0
# A kept connection that was quiet for so long may just have been closed by the server, for being quiet.
STALE_SECONDS = 2.0

Failure: TypeAlias = Unavailable | Impossible


class AddressError(ValueError):
    """A URL that cannot be used; the text quotes nothing of it that may be secret."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: a URL without user, password, query and trailing slash.  `str` of it is fit to be seen."""

    scheme: str
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    @property
    def is_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Login:
    """User and password as they stood in a URL; never shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Login(***)"


def parse_address(url: str) -> tuple[Address, Login | None]:
    """The address in `url`, its path kept, and who is to log in, where the URL says so.

    Raises `AddressError`.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise AddressError("invalid host or port in the url") from None
    if parts.scheme not in _PORTS:
        raise AddressError("the url must begin with http:// or https://")
    if not parts.hostname:
        raise AddressError("the url has no host")
    if parts.query or parts.fragment:
        raise AddressError("the url must end with its path: no query and no fragment")
    if re.search(r"[\s\x00-\x1f\x7f]", parts.netloc + parts.path):
        raise AddressError("the url contains spaces or control characters")
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    address = Address(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port, path)
    if parts.username is None and parts.password is None:
        return address, None
    return address, Login(unquote(parts.username or ""), unquote(parts.password or ""))


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to trust and who we are; `domain` is the name to be found in the certificate, if not the address's."""

    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    verify: bool = True
    domain: str | None = None

    def context(self) -> ssl.SSLContext:
        """Raises `OSError` or `ssl.SSLError` where a file cannot be used."""
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            context.load_cert_chain(str(self.client_cert), str(self.client_key) if self.client_key else None)
        return context


class Ticket:
    """One exchange, so that another thread can end it: a deadline, or the end of the run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.connection: _Watched | None = None
        self.idle_seconds = 0.0
        self.is_cut = False

    def cut(self) -> None:
        """End the exchange now: whoever waits for the socket wakes up."""
        self.is_cut = True
        if self.connection is not None:
            self.connection.cut(self)


_current = threading.local()
_handing_over = threading.Lock()


class _Watched:
    """Mixed into urllib3's connections: tells the ticket which connection serves it, and how long it was quiet."""

    _sent = 0
    _heard = 0.0
    _ticket: Ticket | None = None
    sock: socket.socket | None
    timeout: float | None

    def connect(self) -> None:
        self._sent = 0
        ticket = getattr(_current, "ticket", None)
        if ticket is not None:
            with _handing_over:
                self._ticket, ticket.connection = ticket, self
        super().connect()  # type: ignore[misc]  # the connection that this is mixed into

    def request(self, *args: Any, **kwargs: Any) -> None:
        ticket: Ticket = _current.ticket
        with _handing_over:
            self._ticket, ticket.connection = ticket, self
        ticket.idle_seconds = time.monotonic() - self._heard if self.sock is not None and self._sent else 0.0
        if self.sock is None:
            self.connect()
        # Sending may take as long as the whole exchange; only connecting is bounded more tightly.
        self.timeout = ticket.seconds
        self._sent += 1
        super().request(*args, **kwargs)  # type: ignore[misc]

    def cut(self, ticket: Ticket) -> None:
        """End what `ticket` began, unless the connection serves another one by now."""
        with _handing_over, suppress(OSError):
            if self._ticket is ticket and self.sock is not None:
                # The plain method also for TLS: unwrapping is not thread-safe, and nobody reads on.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    @property
    def has_sent(self) -> bool:
        """Whether a request was begun on it."""
        return self._sent > 0

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        self._heard = time.monotonic()
        return response


class _PlainConnection(_Watched, HTTPConnection):
    pass


class _TlsConnection(_Watched, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        # As urllib3 does, without its warning at each request: that verification is off was said once, loudly.
        if conn.is_closed:
            conn.connect()


class HttpClient:
    """Exchanges with one server.  Safe to be used by several threads at once."""

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
        """Raises `AddressError` for a proxy that cannot be used, `OSError` and `ssl.SSLError` for certificate files."""
        self.address = address
        self._where = f"{address.host}:{address.port}"
        self._scrub = scrub
        self._stale_seconds = stale_seconds
        self._timeout_seconds = timeout_seconds
        options: dict[str, Any] = {"maxsize": connections, "block": False, "retries": False}
        if address.scheme == "https":
            tls = tls or Tls()
            options["ssl_context"] = tls.context()
            if tls.domain:
                options["server_hostname"] = tls.domain
        proxy = _proxy_for(address)
        self._pools: urllib3.PoolManager
        if proxy is None:
            self._pools = urllib3.PoolManager(1, **options)
        else:
            self._pools = urllib3.ProxyManager(str(proxy.address), 1, proxy_headers=proxy.headers(), **options)
        self._pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        self.proxy = proxy.address if proxy else None
        self._under_way: set[Ticket] = set()

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        ticket: Ticket | None = None,
    ) -> Answer | Failure:
        """Send one request to `target` (a path with a query) and read the answer.  Blocks; no failure is raised.

        A caller with a `ticket` cuts it at the deadline; without one only each step on the socket is bounded.
        """
        ticket = ticket or Ticket(self._timeout_seconds)
        began = time.monotonic()

        def take(response: urllib3.BaseHTTPResponse) -> Answer | Failure:
            answer = _read(response, ticket, began)
            if ticket.is_cut and not answer.whole and answer.status != 204:
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
        """As `exchange`, but the body of a 200 goes to `into`, piece by piece, and its length has no bound.

        Each step on the socket is bounded, the whole is not: an answer may take as long as it keeps coming.  Whether it
        came to its end says `whole`.  What `into` raises, but for `OSError`, comes through.
        """
        began = time.monotonic()

        def take(response: urllib3.BaseHTTPResponse) -> Answer | Failure:
            return _read(response, ticket, began) if response.status != 200 else _pass_on(response, ticket, into)

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
        """Send a request once and `take` its response; the ticket can be cut as long as this lasts."""
        _current.ticket = ticket
        self._under_way.add(ticket)
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
            taken = take(response)
            return replace(taken, scrub=self._scrub) if isinstance(taken, Answer) else taken
        except (HTTPError, OSError, http.client.HTTPException) as error:
            return self._failure(error, ticket)
        finally:
            self._under_way.discard(ticket)
            _current.ticket = None

    def close(self) -> None:
        """Let go of the connections; what is under way is cut."""
        for ticket in tuple(self._under_way):
            ticket.cut()
        self._pools.clear()

    def _failure(self, error: Exception, ticket: Ticket) -> Failure:
        failed = _Failed(error, self._where, ticket, self._scrub, str(self.proxy or ""), self._stale_seconds)
        explain = next((explain for kind, explain in _FAILURES if isinstance(error, kind)), _broken)
        return explain(failed)


def _read(response: urllib3.BaseHTTPResponse, ticket: Ticket, began: float) -> Answer:
    """The answer; one that breaks off is taken as far as it came, since the status already decides much."""
    body = bytearray()
    whole = False
    try:
        while len(body) < _MOST_BODY_BYTES and not ticket.is_cut and time.monotonic() - began < 2 * ticket.seconds:
            chunk = response.read(_CHUNK_BYTES)
            if not chunk:
                whole = True
                break
            body += chunk
    except (HTTPError, DecodeError, OSError, http.client.HTTPException):
        pass
    if len(body) >= _MOST_BODY_BYTES:
        whole = True  # enough of it; the rest is left unread
        response.close()
    elif whole:
        response.release_conn()
    else:
        response.close()
    headers = _headers(response)
    return Answer(response.status, headers, bytes(body), whole and not _ends_early(response, headers))


def _pass_on(response: urllib3.BaseHTTPResponse, ticket: Ticket, into: Callable[[bytes], None]) -> Answer:
    """The answer without its body, which `into` has got."""
    headers = _headers(response)
    whole = False
    try:
        while not ticket.is_cut:
            try:
                piece = response.read(_CHUNK_BYTES)
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
    """Names in lower case, the first of several."""
    headers: dict[str, str] = {}
    for key, value in response.headers.items():
        headers.setdefault(key.lower(), value.split(",")[0] if key.lower() == "x-influxdb-version" else value)
    return headers


def _ends_early(response: urllib3.BaseHTTPResponse, headers: Mapping[str, str]) -> bool:
    """Whether the end of the connection ended the answer, though nothing said that it would: headers may be missing."""
    if response.status == 204 or response.version < 11:
        return False
    said = headers.get("connection", "").lower()
    return not (headers.keys() & {"content-length", "transfer-encoding"} or "close" in said)


# --- proxies ---


@dataclass(frozen=True, slots=True)
class _Proxy:
    address: Address
    login: Login | None

    def headers(self) -> dict[str, str]:
        if self.login is None:
            return {}
        return urllib3.make_headers(proxy_basic_auth=f"{self.login.username}:{self.login.password}")


def _proxy_for(address: Address) -> _Proxy | None:
    """The proxy that the environment names for `address` (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`)."""
    proxies = getproxies_environment()
    url = proxies.get(address.scheme) or proxies.get("all")
    if not url or proxy_bypass_environment(f"{address.host}:{address.port}", proxies):
        return None
    try:
        return _Proxy(*parse_address(url if "://" in url else f"http://{url}"))
    except AddressError as error:
        name = f"{address.scheme}_proxy".upper()
        raise AddressError(f"the proxy that {name} (or ALL_PROXY) names cannot be used: {error}") from None


def proxy_secrets(address: Address) -> list[str]:
    """What of the environment's proxy must not be seen."""
    try:
        proxy = _proxy_for(address)
    except AddressError:
        return []
    return [proxy.login.password, f"{proxy.login.username}:{proxy.login.password}"] if proxy and proxy.login else []


# --- what failures mean ---


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception
    where: str
    ticket: Ticket
    scrub: Scrubber
    proxy: str
    stale_seconds: float

    @property
    def cause(self) -> BaseException:
        """The innermost exception: what the operating system or TLS said."""
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


def _timed_out(failed: _Failed) -> Failure:
    return _no_answer(failed.where, failed.ticket)


def _no_answer(where: str, ticket: Ticket) -> Unavailable:
    """Too slow, as a rule; but it may be what was sent that keeps the server from answering."""
    return Unavailable(f"no complete answer from {where} within {ticket.seconds:g} s", suspicious=_has_sent(ticket))


def _unresolved(failed: _Failed) -> Failure:
    host = failed.where.rpartition(":")[0]
    return Unavailable(f"the host name {host!r} does not resolve: {failed.words}")


def _no_connection(failed: _Failed) -> Failure:
    return Unavailable(f"cannot connect to {failed.where}: {failed.words}")


def _late_connection(failed: _Failed) -> Failure:
    return Unavailable(f"cannot connect to {failed.where} within {min(_CONNECT_SECONDS, failed.ticket.seconds):g} s")


def _proxy_failed(failed: _Failed) -> Failure:
    words = failed.words
    if "407" in words:
        return Impossible(
            f"the proxy {failed.proxy} requires credentials: {words}",
            "put them into HTTPS_PROXY or HTTP_PROXY, or name this host in NO_PROXY",
            407,
            "IFX726",
        )
    return Unavailable(f"the proxy {failed.proxy} cannot connect to {failed.where}: {words}")


_TLS_ALERT = "\x15\x03"  # what 3.x answers where it speaks TLS and gets http
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})


def _tls_failed(failed: _Failed) -> Failure:
    cause = failed.cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = plain_words(cause.verify_message or str(cause), failed.scrub)
        return Impossible(
            f"the certificate of {failed.where} is not trusted: {why}",
            "set `ca_file` to the authority that signed it (and `url` to the name in it); "
            "`verify: false` accepts any certificate",
            code="IFX727",
        )
    reason = (getattr(cause, "reason", None) or "") if isinstance(cause, ssl.SSLError) else ""
    if reason in _NOT_TLS:
        return Impossible(
            f"{failed.where} does not use TLS", "write http:// instead of https:// in `url`", code="IFX727"
        )
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return Impossible(
            f"{failed.where} rejects the client certificate: {reason.lower().replace('_', ' ')}",
            "set `client_cert` and `client_key` to a certificate that the server trusts",
            code="IFX727",
        )
    return _broken(failed)


def _broken(failed: _Failed) -> Failure:
    """The connection broke: while it was made, or after something was sent on it."""
    ticket = failed.ticket
    if ticket.is_cut or isinstance(failed.cause, TimeoutError):
        return _timed_out(failed)
    if isinstance(failed.cause, http.client.BadStatusLine) and str(failed.cause).startswith(_TLS_ALERT):
        return Impossible(f"{failed.where} uses TLS", "write https:// instead of http:// in `url`", code="IFX727")
    if isinstance(failed.error, SSLError) and ticket.connection is not None and not _has_sent(ticket):
        return Unavailable(f"the TLS handshake with {failed.where} broke off: {failed.words}")
    return Unavailable(
        f"the connection to {failed.where} broke before the answer: {failed.words}",
        connection_died=_has_sent(ticket) and ticket.idle_seconds <= failed.stale_seconds,
    )


def _has_sent(ticket: Ticket) -> bool:
    return ticket.connection is not None and ticket.connection.has_sent


_FAILURES: tuple[tuple[type[Exception], Callable[[_Failed], Failure]], ...] = (
    (NameResolutionError, _unresolved),
    (NewConnectionError, _no_connection),
    (ConnectTimeoutError, _late_connection),
    (ReadTimeoutError, _timed_out),
    (ProxyError, _proxy_failed),
    (SSLError, _tls_failed),
)
