"""When to send again: how long a delivery is retried, and how often the same request has failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from iggyflux.delivery.backoff import backoff_seconds
from iggyflux.delivery.verdicts import Unavailable
from iggyflux.errors import counted

OnUnavailable: TypeAlias = Literal["wait", "stop", "dead_letter"]

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Stop:
    """The run cannot go on; nothing of this delivery may be acknowledged."""

    reason: str
    hint: str | None
    code: str


@dataclass(frozen=True, slots=True)
class Policy:
    """How long delivery is retried, and how large a request may be.

    After `max_retries` retries `on_unavailable` decides: `wait` goes on at the capped backoff, `stop` ends the run,
    `dead_letter` rejects the remaining lines.

    `max_refused_requests` bounds the search for rejected lines.  When so many requests of one delivery were rejected,
    the schema is wrong, and every line that is not yet settled is rejected.  Where each answer names a line, the bound
    is that number or half the number of lines, whichever is larger.  The lines become dead letters, which can be
    replayed.
    """

    max_lines: int = 5_000
    max_bytes: int = 4 * 1024 * 1024
    max_retries: int = 3
    retry_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 30.0
    max_retry_after_seconds: float = 600.0
    on_unavailable: OnUnavailable = "wait"
    max_refused_requests: int = 400

    def still_away(self, reason: str) -> Stop:
        """Return the stop for `on_unavailable: stop` once the retries are used up."""
        return Stop(
            f"still unavailable after {counted(self.max_retries, 'retry', 'retries')}: {reason}",
            "run again when the server is available: undelivered messages are read again",
            "IFX606",
        )


class Retry:
    """The retries of one delivery.  Times are seconds of the caller's clock."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.attempts = 0
        """Failures in a row."""
        self.repeats = 0
        """Failures in a row of the same request with the same reason."""
        self.deaths = 0
        """Connections in a row that broke under a request."""
        self.must_probe = False
        """Whether the server must answer a probe before lines are sent: a connection broke under a request."""
        self.not_before = 0.0
        self.reason = ""
        self._failure: object = None

    @property
    def is_used_up(self) -> bool:
        """Whether more attempts failed than the policy allows."""
        return self.attempts > self._policy.max_retries

    def answered(self) -> None:
        """Reset the counts: the server answered."""
        self.attempts = self.repeats = self.deaths = 0
        self._failure = None

    def failed(self, verdict: Unavailable) -> None:
        """Count a failure."""
        failure = _failure_of(verdict)
        if failure is not None:
            self.repeats = self.repeats + 1 if failure == self._failure else 1
            self._failure = failure
        if verdict.connection_died:
            self.deaths += 1
            self.must_probe = True

    def pause(self, verdict: Unavailable, now: float, jitter: float) -> None:
        """Set when the next attempt may be made: after the backoff, or after the time that the server asked for."""
        policy = self._policy
        self.attempts += 1
        self.reason = verdict.reason
        seconds = backoff_seconds(
            self.attempts, jitter, first=policy.retry_backoff_seconds, cap=policy.max_backoff_seconds
        )
        if verdict.retry_after_seconds is not None:
            asked = min(verdict.retry_after_seconds, policy.max_retry_after_seconds)
            seconds = max(seconds, asked + jitter * policy.retry_backoff_seconds)
        self.not_before = now + seconds


def _failure_of(verdict: Unavailable) -> object:
    """Return what makes two failures the same; numbers in their texts are ignored."""
    if verdict.connection_died:
        return "died"
    if verdict.suspicious:
        return (verdict.status, _DIGITS.sub("0", verdict.reason))
    return None
