"""What all formats share: the section `influxdb` of a pipeline, from the settings of other clients."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

from iggyflux.importing.configuration import Part
from iggyflux.importing.draft import Tree
from iggyflux.importing.names import duration

IGGY: Final[Tree] = {
    "address": "${IGGY_ADDRESS:-127.0.0.1:8090}",
    "username": "${IGGY_USERNAME:-iggy}",
    "password": "${IGGY_PASSWORD:-iggy}",
}
"""How Apache Iggy is reached: no configuration of another tool says it."""
IGGY_COMMENT: Final = "not in the configuration: set the variables, or write them here"


_ADDRESS: Final = "${INFLUX_URL:-http://127.0.0.1:8086}"
_TARGETS: Final = ("bucket", "database", "org")
_OF_A_SERVER: Final = ("flavor", "create")
"""Keys that a section without an address and a target is better without: the server is asked."""


def with_address(section: Tree) -> Tree:
    """Return a section without `url` with a variable as its address."""
    has_target = any(key in section for key in _TARGETS)
    kept = {key: value for key, value in section.items() if has_target or key not in _OF_A_SERVER}
    return {"url": _ADDRESS, **kept}


def lacking(section: Tree, route: Tree) -> list[str]:
    """Return what the section of a route, which may have its own, lacks for `iggyflux validate`."""
    from iggyflux.pipeline import InfluxSettings
    from iggyflux.secrets import Secret
    from iggyflux.transports.influxdb.flavors import misfits

    own: Tree = {**section, **route.get("influxdb", {})}
    names = ("flavor", "org", "bucket", "database", "retention_policy", "username", "no_sync")
    given: Tree = {key: own[key] for key in names if key in own}
    secrets: Tree = {key: Secret("x") for key in ("token", "password", "client_key") if key in own}
    return [f"`{each.key}`: {each.why}: {each.hint}" for each in misfits(InfluxSettings(**given, **secrets))]


def put_url(part: Part, key: str, section: Tree, url: str | None = None, after: str = "") -> None:
    """Put an address into `section`, without the login, the query and the fragment that it may have.

    `after` is the end of the variables that take the place of the login.
    """
    text = (part.text(key) if url is None else url).strip()
    if not text:
        return
    plain, has_login = without_login(text, expands=part.whole.expands)
    if plain is None:
        part.not_taken(key, "expected an address such as http://host:8086")
        return
    section["url"] = part.written(plain)
    if has_login and "token" in part:
        part.taken(key, "`influxdb.url`; the login in it is left out, since the token takes its place")
    elif has_login:
        section |= {"username": f"${{INFLUX_USERNAME{after}}}", "password": f"${{INFLUX_PASSWORD{after}}}"}
        part.taken(key, "`influxdb.url`; the login in it is not copied: set the variables of `username` and `password`")
    else:
        part.taken(key, "`influxdb.url`")


def without_login(url: str, *, expands: bool = False) -> tuple[str | None, bool]:
    """Return an address of HTTP without secrets, None if it is none, and whether it has a login.

    With `expands` it may be a variable.
    """
    if expands and url.startswith("$") and not any(each in url for each in "@?#"):
        return url, False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None, False
    if parts.scheme not in ("http", "https") or not host:
        return None, False
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")), "@" in parts.netloc


def put_text(part: Part, key: str, section: Tree, name: str) -> None:
    """Put a text into `section`."""
    text = part.text(key)
    if text:
        section[name] = part.written(text)
        part.taken(key, f"`influxdb.{name}`")


def put_duration(part: Part, key: str, section: Tree, name: str, where: str = "influxdb") -> None:
    """Put a duration into `section`."""
    text = part.text(key)
    if not text:
        return
    made = duration(text)
    if made is None:
        part.not_taken(key, "expected a duration such as 5s")
    else:
        section[name] = made
        part.taken(key, f"`{where}.{name}: {made}`")


def put_count(part: Part, key: str, section: Tree, name: str, where: str = "influxdb", most: int = 1_000_000) -> None:
    """Put a positive integer into `section`."""
    count = part.get(key, int)
    if count is None:
        return
    if 0 < count <= most:
        section[name] = count
        part.taken(key, f"`{where}.{name}`")
    else:
        part.not_taken(key, f"expected 1 to {most}")
