"""When to send again: how long a delivery is retried, and how often the same request has failed.

How long to wait is the server's outage (`outage`), which all deliveries to it share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from iggyflux.delivery.backoff import MAX_RETRY_AFTER_SECONDS
from iggyflux.delivery.outage import Outage
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
    max_retry_after_seconds: float = MAX_RETRY_AFTER_SECONDS
    on_unavailable: OnUnavailable = "wait"
    max_refused_requests: int = 400

    def still_away(self, reason: str) -> Stop:
        """Return the stop for `on_unavailable: stop` once the retries are used up."""
        return still_away(self.max_retries, reason)


def still_away(retries: int, reason: str) -> Stop:
    """Return the stop for a server that is unavailable after so many retries."""
    return Stop(
        f"still unavailable after {counted(retries, 'retry', 'retries')}: {reason}",
        "run again when the server is available: undelivered messages are read again",
        "IFX606",
    )


class Retry:
    """The retries of one delivery.  Times are seconds of the caller's clock."""

    def __init__(self, policy: Policy, outage: Outage) -> None:
        self._policy = policy
        self._outage = outage
        self.repeats = 0
        """Failures in a row of the same request with the same reason."""
        self.deaths = 0
        """Connections in a row that broke under a request."""
        self.must_probe = False
        """Whether the server must answer a probe before lines are sent: a connection broke under a request."""
        self._failure: object = None
        self._episode: int | None = None  # the outage in which this delivery failed
        self._steps_before = 0  # those that do not count for this delivery

    @property
    def is_retrying(self) -> bool:
        """Whether this delivery failed, and the server has not answered since."""
        return self._episode == self._outage.episode

    @property
    def attempts(self) -> int:
        """Failures in a row, those of other deliveries included since this one failed."""
        return self._outage.steps - self._steps_before if self.is_retrying else 0

    @property
    def is_used_up(self) -> bool:
        """Whether more attempts failed than the policy allows."""
        return self.attempts > self._policy.max_retries

    def seconds_to_wait(self, now: float) -> float:
        """Return how long nothing may be sent: 0 or less if it may be sent now."""
        until = self._outage.asked_until
        if self.is_retrying:
            until = max(until, self._outage.not_before)
        return until - now

    def answered(self, began: float) -> None:
        """Reset the counts: the server answered a request that began at `began`."""
        self.repeats = self.deaths = 0
        self._failure = self._episode = None
        self._outage.answered(began)

    def suspect_a_line(self) -> None:
        """Count the attempts anew."""
        self._steps_before = self._outage.steps
        self._outage.suspect_a_line()

    def blame_server(self) -> None:
        """Count all retries as used: no line causes the failures."""
        self._steps_before = self._outage.steps - self._policy.max_retries
        self._outage.blame_server(self._policy.max_retries)

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
        """Wait for the backoff of the server, and at least for the time that it asked for."""
        policy, outage = self._policy, self._outage
        first, cap = policy.retry_backoff_seconds, policy.max_backoff_seconds
        joined = not self.is_retrying
        outage.failed(verdict.reason, now, jitter, first=first, cap=cap)
        if verdict.retry_after_seconds is not None:
            asked = min(verdict.retry_after_seconds, policy.max_retry_after_seconds)
            outage.asked(now + asked, jitter * first, verdict.reason)
        if joined:
            self._episode = outage.episode
            self._steps_before = outage.steps - 1


def _failure_of(verdict: Unavailable) -> object:
    """Return what makes two failures the same; numbers in their texts are ignored."""
    if verdict.connection_died:
        return "died"
    if verdict.suspicious:
        return (verdict.status, _DIGITS.sub("0", verdict.reason))
    return None
