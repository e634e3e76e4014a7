"""The proxy of the environment: which one is used for a server, and which servers need none."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.request import getproxies_environment

import urllib3

from iggyflux.transports.urls import Address, AddressError, Login, parse_address

_Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and the variable that names it.  `str` of it holds no secret."""

    address: Address
    login: Login | None
    variable: str

    def __str__(self) -> str:
        return f"{self.address} ({self.variable})"

    def headers(self) -> dict[str, str]:
        """Return the headers with its login."""
        if self.login is None:
            return {}
        return urllib3.make_headers(proxy_basic_auth=f"{self.login.username}:{self.login.password}")


def proxy_for(address: Address) -> Proxy | None:
    """Return the proxy for `address` from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).

    Raise `AddressError`.
    """
    proxies = getproxies_environment()
    kind = address.scheme if proxies.get(address.scheme) else "all"
    url = proxies.get(kind)
    if not url or is_excepted(address.host, address.port, proxies.get("no", "")):
        return None
    variable = _variable(f"{kind}_proxy")
    try:
        return Proxy(*parse_address(url if "://" in url else f"http://{url}"), variable)
    except AddressError as error:
        raise AddressError(f"the proxy that {variable} names cannot be used: {error}") from None


def _variable(name: str) -> str:
    """Return the name of a variable as it is written; of several spellings the one in lower case counts."""
    return max((each for each in os.environ if each.lower() == name), default=name.upper())


def proxy_secrets(address: Address) -> list[str]:
    """Return the secrets in the environment's proxy settings."""
    try:
        proxy = proxy_for(address)
    except AddressError:
        return []
    return [proxy.login.password, f"{proxy.login.username}:{proxy.login.password}"] if proxy and proxy.login else []


# --- NO_PROXY ---


def is_excepted(host: str, port: int, exceptions: str) -> bool:
    """Return whether `exceptions`, the text of `NO_PROXY`, excepts a host from the proxy.

    It is a list of names with all names below them, addresses and networks (CIDR), each with or without a port; `*` is
    every host.  Host names are not resolved.

    >>> is_excepted("10.1.2.3", 8086, "localhost, .example.org, 10.0.0.0/8")
    True
    """
    name = host.lower().rstrip(".")
    addresses = _addresses(host)
    return any(_matches(each, name, addresses, port) for each in re.split(r"[,\s]+", exceptions.lower()) if each)


def _matches(exception: str, name: str, addresses: Sequence[_Ip], port: int) -> bool:
    if exception == "*":
        return True
    place, wanted = _split(exception)
    if wanted not in ("", str(port)):
        return False
    network = _network(place)
    if network is not None:
        return any(address in network for address in addresses)  # of the other version none is
    suffix = place.removeprefix("*").strip(".")
    return not addresses and suffix != "" and (name == suffix or name.endswith(f".{suffix}"))


def _split(exception: str) -> tuple[str, str]:
    """Return what is excepted and its port, which may be empty: of `[::1]:80`, `[fd00::/8]:80`, `10.0.0.0/8:80`."""
    if found := re.fullmatch(r"\[([^\[\]]*)\](/[0-9]+)?(?::([^:]*))?", exception):
        return found[1] + (found[2] or ""), found[3] or ""
    place, _, port = exception.rpartition(":")
    return (place, port) if place and ":" not in place else (exception, "")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _addresses(host: str) -> tuple[_Ip, ...]:
    """Return the address that a host is, and the IPv4 address in it; empty for a name."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return ()
    mapped = getattr(address, "ipv4_mapped", None)
    return (address, mapped) if mapped is not None else (address,)
