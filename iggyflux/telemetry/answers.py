"""What a request is answered with.  Pure: a request and a site in, a status, headers and a body out.

| path       | answer                                                                               | token |
|------------|--------------------------------------------------------------------------------------|-------|
| `/metrics` | the metrics, as OpenMetrics or text                                                  | yes   |
| `/status`  | the status as JSON, as `--status-file` has it, without words of servers and payloads | yes   |
| `/`        | a page for people that reads `/status`, and its files                                | no    |
| `/healthz` | 200 if the event loop of the run answers, else 503                                   | no    |
| `/readyz`  | 200 if every route is connected and behind by less than the bounds, else 503         | no    |

A token is asked for where one is set.  On loopback a request must name this machine as its host, so that no web page
can read the answers by a name that it makes resolve to 127.0.0.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from iggyflux.errors import counted
from iggyflux.escapes import json_text
from iggyflux.pipeline.addresses import is_loopback
from iggyflux.secrets import Secret
from iggyflux.telemetry.exposition import OPENMETRICS, exposed
from iggyflux.telemetry.metrics import Tree, is_connected
from iggyflux.telemetry.page import FILES, HEADERS, content

TEXT = "text/plain; charset=utf-8"
_WITHOUT_TOKEN = ("/healthz", "/readyz", *FILES)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a route may be behind and still be ready; None is any distance."""

    max_lag: int | None = None
    """Messages of all its partitions."""
    max_behind_seconds: float | None = None
    """Of a reader, the time that is not read."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the server shows: `status` returns the status as JSON, without secrets."""

    status: Callable[[], Tree]
    token: Secret | None = None
    is_local: bool = True
    """Whether it listens on loopback."""
    bounds: Bounds = Bounds()


@dataclass(frozen=True, slots=True)
class Request:
    """A request; names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; the server adds the headers that all answers have, where `headers` has no other value."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(request: Request, site: Site) -> Answer | None:
    """Return why a request is not answered; None if it is."""
    if request.method not in ("GET", "HEAD"):
        return Answer(405, b"only GET and HEAD\n", headers={"allow": "GET, HEAD"})
    if request.headers.get("content-length", "0").strip("0") or "transfer-encoding" in request.headers:
        return Answer(413, b"a request has no body here\n")
    host = request.headers.get("host", "")
    if site.is_local and not is_loopback(_name_of(host)):
        return Answer(421, b"this server answers to 127.0.0.1 and localhost only\n")
    path = _path(request)
    if path not in _PAGES and path != "/healthz":
        return Answer(404, b"there are /metrics, /status, /healthz, /readyz and /\n")
    if site.token is not None and path not in _WITHOUT_TOKEN and not _has_token(request, site.token):
        return Answer(401, b"a token is needed: Authorization: Bearer ...\n", headers={"www-authenticate": "Bearer"})
    return None


def answer(request: Request, site: Site, *, is_alive: bool = True) -> Answer:
    """Return the answer to a request that is not refused; `is_alive` says whether the event loop of the run answers."""
    path = _path(request)
    if path == "/healthz":
        return Answer(200, b"ok\n") if is_alive else Answer(503, b"the event loop of the run does not answer\n")
    return _PAGES[path](request, site)


def asks_for_life(request: Request) -> bool:
    """Return whether the answer says if the run is alive."""
    return _path(request) == "/healthz"


def key_of(request: Request) -> tuple[str, bool]:
    """Return what two requests share that are answered alike: there are few such keys."""
    return _path(request), _wants_openmetrics(request)


def _wants_openmetrics(request: Request) -> bool:
    return OPENMETRICS in request.headers.get("accept", "")


def _path(request: Request) -> str:
    return request.target.partition("?")[0]


def _name_of(host: str) -> str:
    """Return the name in a header Host, without the port."""
    return host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _has_token(request: Request, token: Secret) -> bool:
    """Return whether a request has the token; blanks around either do not count: files and variables end with some."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    wanted = token.reveal().strip().encode()
    same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), wanted)  # in constant time
    return kind.lower() == "bearer" and same and wanted != b""


# --- pages ---


def _metrics(request: Request, site: Site) -> Answer:
    return Answer(200, *exposed(site.status(), as_openmetrics=_wants_openmetrics(request)))


def _status(_request: Request, site: Site) -> Answer:
    return Answer(200, f"{json_text(site.status(), indent=True)}\n".encode(), "application/json")


def _ready(_request: Request, site: Site) -> Answer:
    """Say how many routes are not ready, but not which: no token is asked for."""
    routes = site.status()["routes"]
    apart = sum(not is_connected(route) for route in routes)
    behind = sum(is_behind(route, site.bounds) for route in routes)
    if routes and not apart and not behind:
        return Answer(200, b"ready\n")
    reasons = [f"{apart} not connected"] * bool(apart) + [f"{behind} too far behind"] * bool(behind)
    text = f"not ready, of {counted(len(routes), 'route')}: {', '.join(reasons) or 'none has begun'}\n"
    return Answer(503, text.encode())


def is_behind(route: Tree, bounds: Bounds) -> bool:
    """Return whether a route is further behind than the bounds say."""
    lag, behind = sum(route["lag"].values()), (route.get("reader") or {}).get("behind_seconds")
    is_late = behind is not None and bounds.max_behind_seconds is not None and behind > bounds.max_behind_seconds
    return is_late or (bounds.max_lag is not None and lag > bounds.max_lag)


def _file(request: Request, _site: Site) -> Answer:
    path = _path(request)
    return Answer(200, content(path), FILES[path][1], HEADERS)


_PAGES: dict[str, Callable[[Request, Site], Answer]] = {
    **dict.fromkeys(FILES, _file),
    "/metrics": _metrics,
    "/readyz": _ready,
    "/status": _status,
}
