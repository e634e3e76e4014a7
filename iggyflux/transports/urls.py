"""The address of a server or of a proxy: a URL, without what is secret in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit


class AddressError(ValueError):
    """A URL that cannot be used; the text quotes no part that may be secret."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server: a URL without user, password, query and trailing slash.  `str` of it holds no secret."""

    scheme: str
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Login:
    """User and password from a URL; never shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Login(***)"


def parse_address(url: str) -> tuple[Address, Login | None]:
    """Return the address in `url`, with its path, and the login if the URL has one.

    Raise `AddressError`.
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
