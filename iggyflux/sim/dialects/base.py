"""What all dialects share: settings, rights, and the seam to the server."""

from __future__ import annotations

import base64
import binascii
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from iggyflux.sim.exchange import Answer, Request
from iggyflux.sim.store import Store

READ, WRITE = "read", "write"
ALL_RIGHTS = frozenset((READ, WRITE))


@dataclass(frozen=True, slots=True)
class Settings:
    """How a simulator is set up.

    `tokens` gives the rights of each token (`user:password` for 1.x); without any, everybody may do everything.
    `max_body` None takes the dialect's own limit.  `assets` False answers unknown paths of 2.x as a build without UI.
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
        """Whether the version is at least this one."""
        own = tuple(int(part) for part in self.version.lstrip("v").split("~")[0].split("-")[0].split("."))
        return own >= version


class Dropped(Exception):
    """The server breaks this connection, without an answer or in the middle of one."""


@dataclass(slots=True)
class Tally:
    """What one request did, for the statistics."""

    lines: int = 0
    stored: int = 0
    refused: int = 0


class Dialect(ABC):
    """An InfluxDB API.  `answer` may be called from many threads at once."""

    write_paths: frozenset[str]
    query_paths: frozenset[str]

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings

    @abstractmethod
    def answer(self, request: Request, tally: Tally) -> Answer:
        """Do what the request asks and say what the server would say.  Reads the body where the server reads it.

        Raises `exchange.ConnectionGone`, `exchange.TooLarge`, `Dropped` where a real server breaks the connection, and
        `classic.ServerKilled` where it dies.
        """

    @abstractmethod
    def failure(self, status: int, message: str) -> Answer:
        """An answer with this status in the dialect's own form, for faults on purpose."""

    @abstractmethod
    def too_large(self, request: Request, limit: int) -> Answer:
        """What the server says of a body over its limit."""

    def kind(self, request: Request) -> str:
        """`write`, `query` or `other`."""
        path = request.path.rstrip("/")
        if path in self.write_paths:
            return "write"
        return "query" if path in self.query_paths else "other"

    def rights(self, token: str | None) -> frozenset[str] | None:
        """The rights of a token, None for one that is not known."""
        if not self.settings.tokens:
            return ALL_RIGHTS
        return self.settings.tokens.get(token) if token is not None else None


def basic_credentials(header: str) -> tuple[str, str] | None:
    """User and password of a Basic authorization header."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def tokens_of(header: str) -> list[str]:
    """The tokens that an authorization header may mean: of `Token` and `Bearer` the text; of `Basic` the user with the
    password, as for 1.x, or the password."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() in ("token", "bearer"):
        return [text.strip()]
    credentials = basic_credentials(header)
    return [":".join(credentials), credentials[1]] if credentials else []
