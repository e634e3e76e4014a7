"""What to send next: a state machine without I/O, clock or randomness.

The caller asks `next`, does what it says, and tells the outcome with `receive` or `probed`; time and jitter are
arguments.  A line leaves the machine in one of two ways: it was in an accepted request, or it is in `Done.refusals`.
The machine always sends a prefix of what is still to do, so that two lines of one point keep their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from iggyflux.delivery.backoff import backoff_seconds
from iggyflux.delivery.limit import ByteLimit
from iggyflux.delivery.lines import line_bytes, point_key
from iggyflux.delivery.verdicts import (
    Accepted,
    Impossible,
    Refusal,
    Refused,
    RefusedSome,
    TooLarge,
    Unavailable,
    Verdict,
)
from iggyflux.errors import counted

OnUnavailable: TypeAlias = Literal["wait", "stop", "dead_letter"]

# A server that dies this often, with no answer in between, is not killed by one line.
_MAX_DEATHS = 40
# Two deaths of the same request, with a server that was seen alive between them, are no accident.
_DEATHS_OF_A_KILLER = 2
# With so many in a row nobody waits for a witness any more: no line is sent for ever.
_DEATHS_ENOUGH = 12
# So many more, after nothing that was sent survived, and it is looked for again.
_DEATHS_OF_THE_SICK = 5
# So many lines that fail alone, and nothing accepted: the server is sick, whatever is sent.
_MAX_HELD = 3
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Stop:
    """The run cannot go on: nothing of this delivery may be acknowledged."""

    reason: str
    hint: str | None
    code: str


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient delivery is.

    After `max_retries` the policy `on_unavailable` holds: go on for ever at the capped pace, stop, or refuse what is
    left.  `max_refused_requests` bounds the search for refused lines: when that many requests of one delivery were
    refused (where each answer names a line: that many, or half as many as there are lines), the schema is wrong, and
    every line not yet settled is refused as it is.  None of them is lost: they go where refused lines go, and come back
    with a replay.
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
        """What ends the run where the retries are used up and nobody wants to wait."""
        return Stop(
            f"still not available after {counted(self.max_retries, 'retry', 'retries')}: {reason}",
            "start again when the server is back; nothing was acknowledged",
            "IFX606",
        )


@dataclass(frozen=True, slots=True)
class Send:
    """Send the lines with these indices, in this order, in one request; then call `receive`."""

    lines: Sequence[int]


@dataclass(frozen=True, slots=True)
class Probe:
    """See whether the server is there (no lines); then call `probed`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing before `seconds` have passed.  `attempt` counts from 1; `away` says that the retries are used up."""

    seconds: float
    attempt: int
    reason: str
    away: bool


@dataclass(frozen=True, slots=True)
class Done:
    """Every line is stored but for these, in the order of their indices."""

    refusals: tuple[Refusal, ...]


Action: TypeAlias = Send | Probe | Wait | Done | Stop


class Machine:
    """The delivery of one sequence of lines."""

    def __init__(
        self, lines: Sequence[str], policy: Policy, *, size: int | None = None, limit: ByteLimit | None = None
    ) -> None:
        """`size` is the number of characters, with the ends of the lines, where it is known; `limit` what other
        deliveries learnt."""
        self._lines = lines
        # Four bytes a character is the most that UTF-8 needs: the usual request is not measured line by line.
        self._most_bytes = 4 * (sum(map(len, lines)) + len(lines) if size is None else size)
        self._policy = policy
        self._todo: Sequence[int] = range(len(lines))
        self._refusals: list[Refusal] = []
        self._end: Done | Stop | None = None
        # The search: the first `_suspect` lines to do hold a refused one; `_window` bounds the next request.
        self._suspect = 0
        self._window: int | None = None
        self._width = 0
        self._refused_requests = 0
        # What is not available: attempts in a row; equal failures in a row of the same request.
        self._attempts = 0
        self._strikes = 0
        self._failure: object = None
        self._reason = ""
        self._not_before = 0.0
        self._probing = False
        self._deaths = 0
        # Lines that alone got an unknown server error, while nothing else was accepted that would lay it on them.
        self._held: list[int] = []
        self._witness = False
        self._answered = False
        self._accepted_line: int | None = None
        self._calling_witness = False
        self._sick = False
        self._limit = limit or ByteLimit(policy.max_bytes)

    def next(self, now: float) -> Action:
        """What to do at `now`; asking again changes nothing."""
        if self._end is not None:
            return self._end
        if not self._todo and self._held:
            self._todo, self._held = self._held, []
        if not self._todo:
            self._end = Done(tuple(sorted(self._refusals, key=lambda refusal: refusal.line)))
            return self._end
        if now < self._not_before:
            away = self._attempts > self._policy.max_retries
            return Wait(self._not_before - now, self._attempts, self._reason, away)
        if self._probing:
            return Probe()
        if not self._width:
            self._width = self._fitting()
        return Send(self._todo[: self._width])

    def receive(self, verdict: Verdict, now: float, jitter: float) -> None:
        """What the last `Send` came to; `jitter` is drawn from [0, 1)."""
        width = self._width
        self._width = 0
        if self._limit.is_lowered and isinstance(verdict, Accepted | Refused | RefusedSome):
            self._limit.accepted(self._bytes(width))
        if not isinstance(verdict, Unavailable):
            self._attempts = self._strikes = self._deaths = 0
            self._failure = None
            self._answered = True
        if self._calling_witness and not isinstance(verdict, Impossible):
            self._hear_witness(verdict, now, jitter)
            return
        _RECEIVE[type(verdict)](self, verdict, width, now, jitter)

    @property
    def wants_to_be_alone(self) -> bool:
        """Whether the next `Send` should be the only request under way: only then a death tells what caused it."""
        return self._deaths > 0

    def probed(self, reason: str | None, now: float, jitter: float) -> None:
        """What the last `Probe` came to: None where the server is there, else why not."""
        if reason is None:
            self._probing = False
        else:
            self._wait(Unavailable(reason), now, jitter)

    # --- answers, one method a verdict ---

    def _accepted(self, _verdict: Accepted, width: int, _now: float, _jitter: float) -> None:
        self._accepted_line = self._todo[width - 1]
        self._todo = self._todo[width:]
        self._sick = False
        self._witness = True
        if self._suspect > width:
            self._suspect -= width
            self._window = max(self._suspect // 2, 1)
        else:
            self._suspect = 0
            self._window = self._window * 2 if self._window else None
        if self._held:
            self._todo = [*self._held, *self._todo]
            self._held = []
            self._suspect = self._window = 1

    def _refused(self, verdict: Refused, width: int, now: float, jitter: float) -> None:
        named = {refusal.line: refusal for refusal in verdict.refusals if 0 <= refusal.line < width}
        if not named:
            self._refused_some(RefusedSome("the server refused a line without naming it"), width, now, jitter)
            return
        sent = self._todo[:width]
        self._refusals.extend(
            Refusal(sent[line], refusal.reason, refusal.status, refusal.code) for line, refusal in named.items()
        )
        if verdict.rest_stored:
            self._todo = self._todo[width:]
            other = next((line for line in reversed(range(width)) if line not in named), None)
            if other is not None:
                self._witness = True
                self._accepted_line = sent[other]
        else:
            self._todo = [*(index for line, index in enumerate(sent) if line not in named), *self._todo[width:]]
        self._suspect = 0
        self._window = None
        if not verdict.rest_stored:
            first = next(iter(named.values()))
            self._count_refused_request(first.reason, first.status, is_vague=False, named=True)

    def _refused_some(self, verdict: RefusedSome, width: int, _now: float, _jitter: float) -> None:
        if width == 1:
            self._refuse_first(verdict.reason, verdict.status, verdict.code, is_vague=not verdict.blames_lines)
        elif not self._look_at(verdict.suspects, width):
            self._halve(width)
        self._count_refused_request(verdict.reason, verdict.status, is_vague=not verdict.blames_lines)

    def _too_large(self, verdict: TooLarge, width: int, _now: float, _jitter: float) -> None:
        if width == 1:
            is_vague = verdict.limit_bytes is None or verdict.limit_bytes >= self._bytes(width)
            self._refuse_first(verdict.reason, verdict.status, "IFX602", is_vague=is_vague)
            self._count_refused_request(verdict.reason, verdict.status, is_vague=is_vague)
            return
        self._limit.refused(self._bytes(width), verdict.limit_bytes)

    def _impossible(self, verdict: Impossible, _width: int, _now: float, _jitter: float) -> None:
        self._end = Stop(verdict.reason, verdict.hint, verdict.code)

    def _unavailable(self, verdict: Unavailable, width: int, now: float, jitter: float) -> None:
        failure = _failure_of(verdict)
        if failure is not None:
            self._strikes = self._strikes + 1 if failure == self._failure else 1
            self._failure = failure
        if verdict.connection_died:
            self._died(verdict, width)
        elif verdict.suspicious and not self._sick:
            self._failed_alike(verdict, width)
        if self._end is None:
            self._wait(verdict, now, jitter)

    # --- what follows ---

    def _died(self, verdict: Unavailable, width: int) -> None:
        """The connection broke under a request: after two such deaths look for the line that does it."""
        self._probing = True
        self._deaths += 1
        if self._deaths > _MAX_DEATHS:
            self._end = Stop(
                f"the connection died {self._deaths} times in a row while lines were sent: {verdict.reason}",
                "look at the server's log, and at what stands between here and there",
                "IFX608",
            )
        elif self._sick:
            if self._strikes >= _DEATHS_OF_THE_SICK:  # whoever is well by now may yet be killed by a line
                self._sick = False
                self._strikes = 0
        elif self._strikes >= (1 if self._suspect and width > 1 else _DEATHS_OF_A_KILLER):
            reason = f"the connection died each time this line was sent alone: {verdict.reason}"
            lived = self._suspect > 0 and self._answered
            is_proved = lived or len(self._lines) == 1 or self._deaths >= _DEATHS_ENOUGH
            self._accuse(width, reason, None, "IFX603", is_proved=is_proved)

    def _failed_alike(self, verdict: Unavailable, width: int) -> None:
        """An error that nobody knows as passing, again and again: look whether a line does it."""
        if self._strikes >= (1 if self._suspect and width > 1 else self._policy.max_retries + 1):
            reason = f"the server fails each time this line is sent alone: {verdict.reason}"
            self._accuse(width, reason, verdict.status, "IFX607", is_proved=False)

    def _accuse(self, width: int, reason: str, status: int | None, code: str, *, is_proved: bool) -> None:
        """One of these lines may be what the server fails on.

        The blame needs a witness, another request that was accepted since: else the server itself is sick.
        """
        if not self._suspect:
            self._witness = self._answered = False
        if width > 1:
            self._halve(width)
        elif self._witness or is_proved:
            self._refuse_first(reason, status, code, is_vague=True)
        elif self._can_be_held():
            self._held.append(self._todo[0])
            self._todo = self._todo[1:]
            self._suspect = 0
            self._window = None
        elif self._accepted_line is not None:
            # Nothing is left to send: a line that is stored already is as good a witness, and changes nothing.
            self._todo = [self._accepted_line, *self._held, *self._todo]
            self._held = []
            self._window = 1
            self._calling_witness = True
        else:
            self._fall_sick()
        self._strikes = 0

    def _can_be_held(self) -> bool:
        """Whether the first line to do can be sent after the others: none of them writes its point."""
        if len(self._held) >= _MAX_HELD or len(self._todo) < 2:
            return False
        key = point_key(self._lines[self._todo[0]])
        return all(point_key(self._lines[index]) != key for index in self._todo[1:])

    def _hear_witness(self, verdict: Verdict, now: float, jitter: float) -> None:
        self._calling_witness = False
        self._todo = self._todo[1:]
        self._witness = isinstance(verdict, Accepted)
        self._suspect = self._window = 1
        if not self._witness:
            self._fall_sick()
        if isinstance(verdict, Unavailable):
            self._wait(verdict, now, jitter)

    def _fall_sick(self) -> None:
        """The server fails, whatever is sent: no line is to blame, and all of them wait."""
        self._todo = [*self._held, *self._todo]
        self._held = []
        self._sick = True
        self._suspect = 0
        self._window = None
        self._attempts = self._policy.max_retries

    def _halve(self, width: int) -> None:
        self._suspect = width
        self._window = width // 2
        self._attempts = 0

    def _refuse_first(self, reason: str, status: int | None, code: str, *, is_vague: bool) -> None:
        self._refusals.append(Refusal(self._todo[0], reason, status, code, reason if is_vague else None))
        self._todo = self._todo[1:]
        self._suspect = 0
        self._attempts = 0
        self._witness = self._answered = False
        # Look at as many lines next as there were to a refused one so far: few requests where few or most are refused.
        settled = len(self._lines) - len(self._todo) - len(self._held)
        found = len(self._refusals)
        self._window = None if found == 1 else max(settled // found, 1)

    def _look_at(self, suspects: Sequence[int], width: int) -> bool:
        """Put the suspects of the last request first, where that cannot change which of two equal points comes last."""
        chosen = [line for line in dict.fromkeys(suspects) if 0 <= line < width]
        if not chosen:
            return False
        sent = self._todo[:width]
        first = [sent[line] for line in chosen]
        if len(chosen) == width:  # all of them, but now with those together that may share a fate
            if not _keeps_order(chosen, [self._lines[index] for index in sent]):
                return False
            self._todo = [*first, *self._todo[width:]]
            self._halve(width)
            return True
        among = frozenset(chosen)
        others = [index for line, index in enumerate(sent) if line not in among]
        keys = {point_key(self._lines[index]) for index in first}
        if any(point_key(self._lines[index]) in keys for index in others):
            return False
        self._todo = [*first, *others, *self._todo[width:]]
        self._suspect = 0
        self._window = len(first)
        return True

    def _count_refused_request(self, reason: str, status: int | None, *, is_vague: bool, named: bool = False) -> None:
        self._refused_requests += 1
        most = self._policy.max_refused_requests
        if self._refused_requests >= (max(most, len(self._lines) // 2) if named else most):
            count = self._refused_requests
            self._refuse_rest(
                f"not told apart: the server refused {count} requests with lines of this batch, last: {reason}",
                status,
                "IFX604",
                reason if is_vague else None,
            )

    def _refuse_rest(self, reason: str, status: int | None, code: str, vague: str | None = None) -> None:
        self._refusals.extend(Refusal(index, reason, status, code, vague) for index in (*self._held, *self._todo))
        self._todo = ()
        self._held = []

    def _wait(self, verdict: Unavailable, now: float, jitter: float) -> None:
        policy = self._policy
        self._attempts += 1
        self._reason = verdict.reason
        if self._attempts > policy.max_retries and policy.on_unavailable != "wait" and self._todo:
            end = policy.still_away(verdict.reason)
            if policy.on_unavailable == "stop":
                self._end = end
            else:
                self._refuse_rest(end.reason, verdict.status, "IFX605")
            return
        seconds = backoff_seconds(
            self._attempts, jitter, first=policy.retry_backoff_seconds, cap=policy.max_backoff_seconds
        )
        if verdict.retry_after_seconds is not None:
            asked = min(verdict.retry_after_seconds, policy.max_retry_after_seconds)
            seconds = max(seconds, asked + jitter * policy.retry_backoff_seconds)
        self._not_before = now + seconds

    def _fitting(self) -> int:
        """How many of the lines to do go into the next request: at least one."""
        width = min(self._window or len(self._todo), len(self._todo), self._policy.max_lines)
        if self._most_bytes <= self._limit.bytes:
            return width
        size = 0
        for count in range(width):
            size += line_bytes(self._lines[self._todo[count]]) + 1
            if size - 1 > self._limit.bytes:
                return max(count, 1)
        return width

    def _bytes(self, width: int) -> int:
        """The size of a request with the next `width` lines."""
        return sum(line_bytes(self._lines[index]) + 1 for index in self._todo[:width])


def _keeps_order(permutation: Sequence[int], lines: Sequence[str]) -> bool:
    """Whether lines of one point stay in their order."""
    last: dict[tuple[str, str], int] = {}
    for line in permutation:
        key = point_key(lines[line])
        if last.get(key, -1) > line:
            return False
        last[key] = line
    return True


def _failure_of(verdict: Unavailable) -> object:
    """What makes two failures the same one: numbers in their texts do not count."""
    if verdict.connection_died:
        return "died"
    if verdict.suspicious:
        return (verdict.status, _DIGITS.sub("0", verdict.reason))
    return None


_RECEIVE: dict[type, Callable[[Machine, Any, int, float, float], None]] = {
    Accepted: Machine._accepted,  # noqa: SLF001  (the machine's own table)
    Refused: Machine._refused,  # noqa: SLF001
    RefusedSome: Machine._refused_some,  # noqa: SLF001
    TooLarge: Machine._too_large,  # noqa: SLF001
    Unavailable: Machine._unavailable,  # noqa: SLF001
    Impossible: Machine._impossible,  # noqa: SLF001
}
