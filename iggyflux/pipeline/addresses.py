"""Addresses of servers: host and port of Iggy, and which hosts are this machine.  No text quotes a login."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

Transport: TypeAlias = Literal["tcp", "quic", "http", "websocket"]

PORTS: dict[Transport, int] = {"tcp": 8090, "quic": 8080, "http": 3000, "websocket": 8092}
"""The port of each transport of Iggy, by default."""

_SCHEMES: dict[str, tuple[Transport | None, bool | None]] = {
    "iggy": (None, None),
    "iggy+tcp": ("tcp", None),
    "iggy+quic": ("quic", None),
    "iggy+http": ("http", None),
    "iggy+ws": ("websocket", None),
    "tcp": ("tcp", None),
    "quic": ("quic", None),
    "http": ("http", False),
    "https": ("http", True),
    "ws": ("websocket", False),
    "wss": ("websocket", True),
}
"""The transport that a scheme means, and whether it means encryption; None if it leaves that open."""


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


class AddressFault(ValueError):
    """An address that cannot be used."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        self.hint = hint
        super().__init__(reason)


def parse_iggy_address(text: str, transport: Transport, *, tls: bool) -> str:
    """Return host and port of an address, as the SDK takes them; the port is by default that of the transport.

    Raise `AddressFault`.

    >>> parse_iggy_address("tcp://::1", "tcp", tls=False)
    '[::1]:8090'
    """
    scheme, separator, rest = text.strip().rpartition("://")
    if "@" in rest:
        hint = "use the keys `username` and `password`, or write the whole address as `connection_string`"
        raise AddressFault("the address contains a user name or password", hint)
    if separator:
        _check_scheme(scheme.lower(), transport, tls)
    rest = rest.removesuffix("/")
    if re.search(r"[\s\x00-\x1f\x7f,/?#\\]", rest):
        raise AddressFault("the address is more than a host and a port", f"for example 127.0.0.1:{PORTS[transport]}")
    host, port = _split(rest, transport)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """A connection string of Iggy, completed as far as only one thing can be meant; `text` is a secret."""

    text: str
    host: str
    is_encrypted: bool

    def __repr__(self) -> str:
        return f"ConnectionString({self.host})"


def parse_listen(text: str) -> tuple[str, int]:
    """Return the host and the port of an address to listen on; 0 is any free port.  Raise `AddressFault`.

    >>> parse_listen("[::1]:9273")
    ('::1', 9273)
    """
    host, separator, port = text.strip().rpartition(":")
    if not separator or not re.fullmatch(r"[0-9]{1,9}", port):
        raise AddressFault("it is not a host and a port", "for example 127.0.0.1:9273")
    if int(port) > 65535:
        raise AddressFault(f"{text!r} has a port above 65535", "a port is at most 65535; for example 127.0.0.1:9273")
    if not host:
        raise AddressFault(
            "the address has no host", f"127.0.0.1:{port} is for this machine only, 0.0.0.0:{port} for all"
        )
    is_version_6 = host.startswith("[") and host.endswith("]") and _is_version_6(host[1:-1])
    if not is_version_6 and not (_HOST.fullmatch(host) and (not re.fullmatch(r"[0-9.]+", host) or _is_version_4(host))):
        raise AddressFault("invalid host name", f"for example 127.0.0.1:{port}, or [::1]:{port}")
    return host.strip("[]"), int(port)


def parse_connection_string(text: str) -> ConnectionString:
    """Return the parts of a connection string of Iggy: `iggy://USER:PASSWORD@HOST:PORT?OPTIONS`, or with a token.

    Raise `AddressFault`, where the SDK says only that it is invalid.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator or scheme not in _STRINGS:
        raise AddressFault("the connection string has an unknown scheme", f"begin it with one of: {_list(_STRINGS)}")
    login, at, place = rest.rpartition("@")
    if not at or not login:
        raise AddressFault("the connection string has no login", f"write {scheme}://USER:PASSWORD@HOST:PORT")
    address, question, options = place.partition("?")
    transport = _STRINGS[scheme]
    whole = parse_iggy_address(address, transport, tls=False)
    if whole.startswith("["):
        hint = "use the keys `address`, `username` and `password` instead"
        raise AddressFault("the SDK accepts no IPv6 address in a connection string", hint)
    is_encrypted = transport == "quic" or "tls=true" in options.split("&")
    return ConnectionString(f"{scheme}://{login}@{whole}{question}{options}", whole.rpartition(":")[0], is_encrypted)


_STRINGS: dict[str, Transport] = {
    scheme: transport or "tcp" for scheme, (transport, _) in _SCHEMES.items() if scheme.startswith("iggy")
}


def _list(schemes: Iterable[str]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes)


def _check_scheme(scheme: str, transport: Transport, tls: bool) -> None:
    if scheme not in _SCHEMES:
        raise AddressFault("the address has an unknown scheme", "write only host and port: HOST:PORT")
    meant, encrypted = _SCHEMES[scheme]
    if meant not in (None, transport):
        hint = f"set `transport: {meant}`, or write the address of {transport}, for example HOST:{PORTS[transport]}"
        raise AddressFault(f"{scheme}:// contradicts `transport: {transport}`", hint)
    if encrypted not in (None, tls):
        raise AddressFault(f"{scheme}:// contradicts `tls: {str(tls).lower()}`", f"set `tls: {str(not tls).lower()}`")


def _split(rest: str, transport: Transport) -> tuple[str, int]:
    """Return the host, without brackets, and the port."""
    usual = PORTS[transport]
    port: str | None
    if bracketed := re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", rest):
        host, port = bracketed[1], bracketed[2]
        if not _is_version_6(host):
            raise AddressFault("the brackets contain no IPv6 address", f"for example [::1]:{usual}")
    elif rest.count(":") > 1:
        host, port = rest, None
        if not _is_version_6(host):
            raise AddressFault("invalid IPv6 address", f"for example [::1]:{usual}")
        before, _, last = rest.rpartition(":")
        if _is_version_6(before) and last.isdecimal():
            hint = f"write [{before}]:{last}, or [{rest}]:{usual}"
            raise AddressFault("it is unclear where the IPv6 address ends and the port begins", hint)
    else:
        host, separator, after = rest.partition(":")
        host, port = host.removesuffix("."), after if separator else None  # the SDK accepts no dot at the end
        if not host:
            raise AddressFault("the address has no host", f"for example 127.0.0.1:{usual}")
        if not _HOST.fullmatch(host):
            raise AddressFault("invalid host name", f"for example 127.0.0.1:{usual}")
        if re.fullmatch(r"[0-9.]+", host) and not _is_version_4(host):
            raise AddressFault(f"{host!r} is neither a host name nor an IPv4 address", f"for example 127.0.0.1:{usual}")
    if port is None:
        return host, usual
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise AddressFault("the port is not a number from 1 to 65535", f"the usual port of {transport} is {usual}")
    return host, int(port)


def _is_version_6(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).scope_id is None  # the SDK accepts no zone
    except ValueError:
        return False


def _is_version_4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def same_url(text: str) -> str:
    """Return the one spelling of the URL of a server; what is not a URL is returned as it is.

    It has no login, no default port, no slash at the end, and no capitals in the host.

    >>> same_url("HTTP://Pi.local:80/")
    'http://pi.local'
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return text
    if not host:
        return text.strip().rstrip("/")
    shown = f"[{host}]" if ":" in host else host.removesuffix(".")
    place = shown if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f"{shown}:{port}"
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), parts.query, ""))


_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_loopback(host: str) -> bool:
    """Return whether what is sent to `host`, a name or an IP address, stays on this machine."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
