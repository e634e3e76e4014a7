"""What one attempt to write lines came to.  A sink returns one of these; `delivery.machine` decides what follows.

A verdict says what is known, never what to do: it holds no policy.  Texts in it are for people and hold no secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class SchemaConflict:
    """Two types for one field, in the server's words turned into ours: `sent` is what the line had, `stored` what the
    server has.  `measurement` or `field` may be empty where the server did not name it."""

    measurement: str
    field: str
    sent: str
    stored: str

    def __str__(self) -> str:
        place = f" of measurement {self.measurement!r}" if self.measurement else ""
        return f"field {self.field!r}{place} is sent as {self.sent}, but stored as {self.stored}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that the server will never take: `line` is its index in what was sent.

    `vague` holds the server's words where they name no line and nothing of a line: the line was found by sending it
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


@dataclass(frozen=True, slots=True)
class Refused:
    """These lines are refused by name; the others are stored if `rest_stored`, else they must be sent again."""

    refusals: tuple[Refusal, ...]
    rest_stored: bool
    conflicts: tuple[SchemaConflict, ...] = ()


@dataclass(frozen=True, slots=True)
class RefusedSome:
    """At least one line is refused, nobody says which: send parts until each is alone.  Some may be stored already.

    `suspects` are indices of lines that the server's words fit best: a hint where to look first, never a proof.
    `blames_lines` says that the words are about lines, and not about an address, a database or a setting.
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
    """Not now: send the same bytes again, after `retry_after_seconds` where the server said so.

    `connection_died` says that the connection broke while or after the request was sent: it may have been too large,
    it may have been stored, and a line in it may have killed the server.  A connection that was never made, or an idle
    one that the server had closed, did not die.  `suspicious` says that a line in it may be the cause of the answer (an
    error of the server that nobody knows as passing), or of there being none in time.
    """

    reason: str
    status: int | None = None
    retry_after_seconds: float | None = None
    connection_died: bool = False
    suspicious: bool = False


@dataclass(frozen=True, slots=True)
class Impossible:
    """A person must act (credentials, a missing database, a wrong address): stop, acknowledge nothing."""

    reason: str
    hint: str | None = None
    status: int | None = None
    code: str = "IFX600"


Verdict: TypeAlias = Accepted | Refused | RefusedSome | TooLarge | Unavailable | Impossible
