"""What one attempt to write lines came to.  A sink returns one of these; `delivery` decides what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that the server will never take: `line` is its index in what was sent."""

    line: int
    reason: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every line is stored."""


@dataclass(frozen=True, slots=True)
class Refused:
    """These lines are refused by name; the others are stored if `rest_stored`, else they must be sent again."""

    refusals: tuple[Refusal, ...]
    rest_stored: bool


@dataclass(frozen=True, slots=True)
class RefusedSome:
    """At least one line is refused, nobody says which: send parts until each is alone.  Some may be stored already."""

    reason: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request is too large: send halves by bytes."""

    reason: str
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Not now: send the same bytes again, after `retry_after_seconds` where the server said so.

    `connection_died` says that the connection broke while or after the request was sent: it may have been too large,
    it may have been stored, and a line in it may have killed the server.
    """

    reason: str
    status: int | None = None
    retry_after_seconds: float | None = None
    connection_died: bool = False


@dataclass(frozen=True, slots=True)
class Impossible:
    """A person must act (credentials, a missing database, a wrong address): stop, acknowledge nothing."""

    reason: str
    hint: str | None = None
    status: int | None = None


Verdict: TypeAlias = Accepted | Refused | RefusedSome | TooLarge | Unavailable | Impossible
