"""What all dialects share: settings, rights, and the interface to the server."""

from __future__ import annotations

import base64
import binascii
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from iggyflux.sim.exchange import HttpRequest, HttpResponse
from iggyflux.sim.store import Store

READ, WRITE = "read", "write"
ALL_RIGHTS = frozenset((READ, WRITE))


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of a simulator.

    `tokens` gives the rights of each token (`user:password` for 1.x); without tokens every client has all rights.
    `max_body` None uses the dialect's own limit.  With `assets` False 2.x answers unknown paths as a build without UI.
    """

    version: str
    database: str | None = None
    org: str = "org"
    retention_ns: int = 0
    tokens: Mapping[str, frozenset[str]] = field(default_factory=dict)
    max_body: int | None = None
    assets: bool = True
    now_ns: Callable[[], int] = lambda: 0
    process: str = field(default_factory=lambda: str(uuid.uuid4()))

    def newer(self, *version: int) -> bool:
        """Return whether the version is at least this one."""
        own = tuple(int(part) for part in self.version.lstrip("v").split("~")[0].split("-")[0].split("."))
        return own >= version


class Dropped(Exception):
    """The server breaks this connection, without a response or in the middle of one."""


@dataclass(slots=True)
class RequestTally:
    """The counts of one request, for the statistics."""

    lines: int = 0
    stored: int = 0
    refused: int = 0


class ServerDialect(ABC):
    """An InfluxDB API.  `answer` may be called from many threads at once."""

    write_paths: frozenset[str]
    query_paths: frozenset[str]

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings

    @abstractmethod
    def answer(self, request: HttpRequest, tally: RequestTally) -> HttpResponse:
        """Execute a request and return the server's response; read the body when the server reads it.

        Raise `exchange.ConnectionGone`, `exchange.BodyTooLarge`; `Dropped` if a real server breaks the connection, and
        `classic.ServerKilled` if it dies.
        """

    @abstractmethod
    def failure(self, status: int, message: str) -> HttpResponse:
        """Return a response with this status in the dialect's own form, for injected faults."""

    @abstractmethod
    def too_large(self, request: HttpRequest, limit: int) -> HttpResponse:
        """Return the server's response to a body over its limit."""

    def kind(self, request: HttpRequest) -> str:
        """Return `write`, `query` or `other`."""
        path = request.path.rstrip("/")
        if path in self.write_paths:
            return "write"
        return "query" if path in self.query_paths else "other"

    def rights(self, token: str | None) -> frozenset[str] | None:
        """Return the rights of a token, None for an unknown one."""
        if not self.settings.tokens:
            return ALL_RIGHTS
        return self.settings.tokens.get(token) if token is not None else None


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Return user and password of a Basic authorization header."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def tokens_of(header: str) -> list[str]:
    """Return the tokens that an authorization header may mean.

    For `Token` and `Bearer` that is the text; for `Basic` the user with the password, as for 1.x, or the password.
    """
    scheme, _, text = header.partition(" ")
    if scheme.lower() in ("token", "bearer"):
        return [text.strip()]
    credentials = basic_credentials(header)
    return [":".join(credentials), credentials[1]] if credentials else []
