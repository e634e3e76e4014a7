"""The result of one attempt to write lines.  A sink returns one of these; `delivery.machine` decides what follows.

A verdict states what is known, never what to do: it contains no policy.  Its texts are for people and hold no secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class SchemaConflict:
    """Two types for one field, by the names that iggyflux uses: `sent` is the type in the line, `stored` the server's.

    `measurement` or `field` is empty where the server did not name it.
    """

    measurement: str
    field: str
    sent: str
    stored: str

    def __str__(self) -> str:
        place = f" of measurement {self.measurement!r}" if self.measurement else ""
        return f"field {self.field!r}{place} is sent as {self.sent}, but stored as {self.stored}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that the server will never accept: `line` is its index in the request.

    `vague` holds the server's words if they name no line and no part of one.  Then the line was found by sending it
    alone, and the cause may be the whole connection (see `delivery.held`).
    """

    line: int
    reason: str
    status: int | None = None
    code: str = "IFX601"
    vague: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every line is stored."""

    status: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """These lines are rejected by name.  The others are stored if `rest_stored`, else they must be sent again."""

    refusals: tuple[Refusal, ...]
    rest_stored: bool
    conflicts: tuple[SchemaConflict, ...] = ()


@dataclass(frozen=True, slots=True)
class RefusedSome:
    """At least one line is rejected, and the server does not say which: send parts.  Some lines may be stored already.

    `suspects` are the indices of lines that fit the server's words best: a hint where to look first, never a proof.
    `blames_lines` says that the words are about lines, not about an address, a database or a setting.
    """

    reason: str
    status: int | None = None
    suspects: tuple[int, ...] = ()
    conflicts: tuple[SchemaConflict, ...] = ()
    code: str = "IFX601"
    blames_lines: bool = False


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request is too large: send halves by bytes."""

    reason: str
    limit_bytes: int | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Not now: send the same bytes again, after `retry_after_seconds` if the server gave it.

    `connection_died` says that the connection broke while or after the request was sent.  The request may have been too
    large, it may have been stored, and a line in it may have killed the server.  A connection that was never made did
    not die, nor did an idle one that the server had closed.  `suspicious` says that a line may be the cause: the server
    reported an error that is not known to be transient, or did not answer in time.
    """

    reason: str
    status: int | None = None
    retry_after_seconds: float | None = None
    connection_died: bool = False
    suspicious: bool = False


@dataclass(frozen=True, slots=True)
class Impossible:
    """The operator must act (credentials, a missing database, a wrong address): stop and acknowledge nothing."""

    reason: str
    hint: str | None = None
    status: int | None = None
    code: str = "IFX600"


def retry_reason(verdict: Unavailable | TooLarge) -> str:
    """Return why a request has to be sent again, as one of few words: for metrics, without words of a server.

    >>> retry_reason(Unavailable("status 503: try later", 503)), retry_reason(Unavailable("cannot connect"))
    ('http_503', 'unreachable')
    """
    if isinstance(verdict, TooLarge):
        return "too_large"
    if verdict.status is not None:
        return f"http_{verdict.status}"
    if verdict.connection_died:
        return "connection_lost"
    return "no_answer" if verdict.suspicious else "unreachable"


Verdict: TypeAlias = Accepted | Refused | RefusedSome | TooLarge | Unavailable | Impossible
