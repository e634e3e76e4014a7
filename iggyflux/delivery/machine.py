"""What to send next: a state machine without I/O, clock or randomness.

The caller asks `next`, executes the action, and reports the outcome with `receive` or `probed`; time and jitter are
arguments.  A line leaves the machine in one of two ways: it was in an accepted request, or it is in `Done.refusals`.
The machine always sends a prefix of the lines that remain, so that two lines of one point keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from iggyflux.delivery.limit import ByteLimit
from iggyflux.delivery.lines import line_bytes, point_key
from iggyflux.delivery.outage import Outage
from iggyflux.delivery.retry import Policy, Retry, Stop
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

# If a server dies more often, with no answer in between, the cause is not one line.
_MAX_DEATHS = 40
# After two deaths of the same request, with a server that was seen alive between them, its lines are suspected.
_DEATHS_OF_A_KILLER = 2
# A line that is sent alone is blamed after three: only three accidents in a row blame an innocent line.
_DEATHS_ALONE = 3
# After so many deaths in a row a line is blamed without a witness, so that no line is sent without end.
_DEATHS_ENOUGH = 12
# A failing server dies so many times more before a line is suspected again.
_DEATHS_WHILE_FAILING = 5
# If so many lines fail alone and none was accepted, the server fails on everything.
_MAX_HELD = 3


class Phase(Enum):
    """What is known about the lines that are still to be sent."""

    DELIVERING = "delivering"
    """No line is suspected: each request is as large as it may be."""
    SEARCHING = "searching"
    """One of the first lines to send is rejected, or makes the server fail: they are sent in halves."""
    CALLING_WITNESS = "calling witness"
    """A line that is stored already is sent again, to see whether the server or the suspected line is at fault."""
    FAILING = "failing"
    """The server fails on everything: no line is suspected."""


TRANSITIONS: Mapping[Phase, Mapping[Phase, str]] = {
    Phase.DELIVERING: {
        Phase.SEARCHING: "a request was refused without a named line, or failed again and again; or all that is left "
        "are lines that failed alone",
        Phase.CALLING_WITNESS: "a single line fails again and again, and nothing else is left to send",
        Phase.FAILING: "a single line fails again and again, and nothing was ever accepted",
    },
    Phase.SEARCHING: {
        Phase.DELIVERING: "the line was found, or put behind the others, or every suspect was accepted",
        Phase.CALLING_WITNESS: "a line fails alone, and nothing else is left to send",
        Phase.FAILING: "lines fail alone, and nothing was ever accepted",
    },
    Phase.CALLING_WITNESS: {
        Phase.SEARCHING: "the witness was accepted: the line is sent again, and blamed if it fails",
        Phase.FAILING: "the witness was not accepted",
    },
    Phase.FAILING: {
        Phase.DELIVERING: "the server answered, or died often enough to suspect a line again",
        Phase.SEARCHING: "the server refused a request without naming a line",
    },
}
"""Which phase may follow which, and why; staying in a phase is always possible."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send the lines with these indices, in this order, in one request; then call `receive`."""

    lines: Sequence[int]


@dataclass(frozen=True, slots=True)
class Probe:
    """Check whether the server answers, without lines; then call `probed`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for `seconds`.  `attempt` counts from 1; `away` says that the retries are used up."""

    seconds: float
    attempt: int
    reason: str
    away: bool


@dataclass(frozen=True, slots=True)
class Done:
    """Every line is stored except these, in the order of their indices."""

    refusals: tuple[Refusal, ...]


Action: TypeAlias = Send | Probe | Wait | Done | Stop


class Machine:
    """The delivery of one sequence of lines."""

    def __init__(
        self,
        lines: Sequence[str],
        policy: Policy,
        *,
        size: int | None = None,
        limit: ByteLimit | None = None,
        outage: Outage | None = None,
    ) -> None:
        """`size` is the number of characters with line ends, if known.

        `limit` and `outage` are what the deliveries to one server know of it.
        """
        self._lines = lines
        # UTF-8 needs at most four bytes a character, so the usual request need not be measured line by line.
        self._most_bytes = 4 * (sum(map(len, lines)) + len(lines) if size is None else size)
        self._policy = policy
        self._limit = limit or ByteLimit(policy.max_bytes)
        self._todo: Sequence[int] = range(len(lines))
        self._held: list[int] = []  # lines that failed alone and wait behind the others
        self._refusals: list[Refusal] = []
        self._refused_requests = 0
        self._end: Done | Stop | None = None
        self._outage = outage or Outage()
        self._retry = Retry(policy, self._outage)
        self._status: int | None = None  # that of the last failure
        self._width = 0  # lines of the request in flight
        # The phase; how many of the first remaining lines are suspected; a bound of the next request.
        self._phase = Phase.DELIVERING
        self._suspects = 0
        self._window: int | None = None
        self._is_of_failing = False  # whether the suspects make the server fail, or are rejected
        # A sign since the failures that the server works, it accepted a line; and a line that it stored.
        self._has_accepted = False
        self._stored_line: int | None = None

    def next(self, now: float) -> Action:
        """Return what to do at `now`; asking again changes nothing but what time and other deliveries change."""
        self._give_up_if_used_up()
        if self._end is not None:
            return self._end
        if not self._todo and self._held:
            self._todo, self._held = self._held, []
        if not self._todo:
            self._end = Done(tuple(sorted(self._refusals, key=lambda refusal: refusal.line)))
            return self._end
        if (seconds := self._retry.seconds_to_wait(now)) > 0:
            return Wait(seconds, self._retry.attempts, self._outage.reason, self._retry.is_used_up)
        if self._retry.must_probe:
            return Probe()
        if not self._width:
            self._width = self._fitting()
        return Send(self._todo[: self._width])

    def receive(self, verdict: Verdict, now: float, jitter: float, *, began: float | None = None) -> None:
        """Take the outcome of the last `Send`, which began at `began`; `jitter` is drawn from [0, 1)."""
        width = self._width
        self._width = 0
        if self._limit.is_lowered and isinstance(verdict, Accepted | Refused | RefusedSome):
            self._limit.accepted(self._bytes(width))
        if not isinstance(verdict, Unavailable):
            self._retry.answered(now if began is None else began)
        if self._phase is Phase.CALLING_WITNESS and not isinstance(verdict, Impossible):
            self._hear_witness(verdict, now, jitter)
            return
        _RECEIVE[type(verdict)](self, verdict, width, now, jitter)

    @property
    def phase(self) -> Phase:
        """What is known about the lines that are still to be sent."""
        return self._phase

    @property
    def wants_to_be_alone(self) -> bool:
        """Whether the next `Send` should be the only request in flight: only then a death shows its cause."""
        return self._retry.deaths > 0

    @property
    def is_retrying(self) -> bool:
        """Whether this delivery failed, and the server has not answered since: one of these tries at a time."""
        return self._retry.is_retrying

    def probed(self, failure: Unavailable | None, now: float, jitter: float) -> None:
        """Take the outcome of the last `Probe`: None if the server answered as it should."""
        if failure is None:
            self._retry.must_probe = False
        else:
            self._wait(failure, now, jitter)

    def _enter(
        self, phase: Phase, *, suspects: int = 0, window: int | None = None, is_of_failing: bool = False
    ) -> None:
        if phase is not self._phase and phase not in TRANSITIONS[self._phase]:
            raise AssertionError(f"{phase} never follows {self._phase}")
        self._phase, self._suspects, self._window, self._is_of_failing = phase, suspects, window, is_of_failing

    # --- answers, one method a verdict ---

    def _accepted(self, _verdict: Accepted, width: int, _now: float, _jitter: float) -> None:
        self._stored_line = self._todo[width - 1]
        self._has_accepted = True
        self._todo = self._todo[width:]
        if self._held:
            self._todo = [*self._held, *self._todo]
            self._held = []
            self._enter(Phase.SEARCHING, suspects=1, window=1, is_of_failing=True)
        elif self._suspects > width:
            left = self._suspects - width
            self._enter(Phase.SEARCHING, suspects=left, window=max(left // 2, 1), is_of_failing=self._is_of_failing)
        else:
            self._enter(Phase.DELIVERING, window=self._window * 2 if self._window else None)

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
                self._stored_line = sent[other]
        else:
            self._todo = [*(index for line, index in enumerate(sent) if line not in named), *self._todo[width:]]
        self._enter(Phase.DELIVERING)
        if not verdict.rest_stored:
            first = next(iter(named.values()))
            self._count_refused_request(first.reason, first.status, is_vague=False, named=True)

    def _refused_some(self, verdict: RefusedSome, width: int, _now: float, _jitter: float) -> None:
        if width == 1:
            self._refuse_first(verdict.reason, verdict.status, verdict.code, is_vague=not verdict.blames_lines)
        elif not self._look_at(verdict.suspects, width):
            self._halve(width, is_of_failing=False)
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
        self._retry.failed(verdict)
        if verdict.connection_died:
            self._died(verdict, width)
        elif verdict.suspicious and self._phase is not Phase.FAILING:
            self._failed_alike(verdict, width)
        if self._end is None:
            self._wait(verdict, now, jitter)

    # --- failures: is it a line, or the server? ---

    def _died(self, verdict: Unavailable, width: int) -> None:
        """Handle a connection that broke under a request: after some deaths, search for the line that causes them."""
        retry = self._retry
        if retry.deaths > _MAX_DEATHS:
            self._end = Stop(
                f"the connection broke {retry.deaths} times in a row while lines were sent: {verdict.reason}",
                "check the server's log, and proxies and firewalls on the way",
                "IFX608",
            )
        elif self._phase is Phase.FAILING:
            if retry.repeats >= _DEATHS_WHILE_FAILING:
                retry.repeats = 0
                self._enter(Phase.DELIVERING)
        elif retry.repeats >= self._repeats_needed(width, _DEATHS_OF_A_KILLER if width > 1 else _DEATHS_ALONE):
            reason = f"the connection broke each time this line was sent alone: {verdict.reason}"
            is_proved = len(self._lines) == 1 or retry.deaths >= _DEATHS_ENOUGH
            self._accuse(width, reason, None, "IFX603", is_proved=is_proved)

    def _failed_alike(self, verdict: Unavailable, width: int) -> None:
        """Handle an error that is not known to be transient: after some repeats, search for the line that causes it."""
        if self._retry.repeats >= self._repeats_needed(width, self._policy.max_retries + 1):
            reason = f"the server fails each time this line is sent alone: {verdict.reason}"
            self._accuse(width, reason, verdict.status, "IFX607", is_proved=False)

    def _repeats_needed(self, width: int, usually: int) -> int:
        """Return how often a failure must repeat before a line is suspected; while halving, once is enough."""
        return 1 if self._phase is Phase.SEARCHING and width > 1 else usually

    def _accuse(self, width: int, reason: str, status: int | None, code: str, *, is_proved: bool) -> None:
        """Suspect that one of the first `width` lines makes the server fail.

        A line is blamed only with a witness, another request that was accepted since: else the server itself fails.
        """
        if not self._is_of_failing:
            self._has_accepted = False
        if width > 1:
            self._halve(width, is_of_failing=True)
        elif self._has_accepted or is_proved:
            self._refuse_first(reason, status, code, is_vague=True)
        elif self._can_be_held():
            self._held.append(self._todo[0])
            self._todo = self._todo[1:]
            self._enter(Phase.DELIVERING)
        elif self._stored_line is not None:
            self._todo = [self._stored_line, *self._held, *self._todo]
            self._held = []
            self._enter(Phase.CALLING_WITNESS, window=1)
        else:
            self._blame_server()
        self._retry.repeats = 0

    def _can_be_held(self) -> bool:
        """Whether the first remaining line can be sent after the others: none of them writes its point."""
        if len(self._held) >= _MAX_HELD or len(self._todo) < 2:
            return False
        key = point_key(self._lines[self._todo[0]])
        return all(point_key(self._lines[index]) != key for index in self._todo[1:])

    def _hear_witness(self, verdict: Verdict, now: float, jitter: float) -> None:
        self._todo = self._todo[1:]
        self._has_accepted = isinstance(verdict, Accepted)
        if self._has_accepted:
            self._enter(Phase.SEARCHING, suspects=1, window=1, is_of_failing=True)
        else:
            self._blame_server()
        if isinstance(verdict, Unavailable):
            self._wait(verdict, now, jitter)
        elif not self._has_accepted:
            self._stored_line = None  # it is refused now, for example beyond the retention: no witness any more

    def _blame_server(self) -> None:
        self._todo = [*self._held, *self._todo]
        self._held = []
        self._enter(Phase.FAILING)
        self._retry.blame_server()

    # --- what is sent next ---

    def _halve(self, width: int, *, is_of_failing: bool) -> None:
        self._enter(Phase.SEARCHING, suspects=width, window=width // 2, is_of_failing=is_of_failing)
        self._retry.suspect_a_line()

    def _refuse_first(self, reason: str, status: int | None, code: str, *, is_vague: bool) -> None:
        self._refusals.append(Refusal(self._todo[0], reason, status, code, reason if is_vague else None))
        self._todo = self._todo[1:]
        self._retry.suspect_a_line()
        # Next send as many lines as there were for each rejected one so far: few requests if few or most are rejected.
        settled = len(self._lines) - len(self._todo) - len(self._held)
        found = len(self._refusals)
        self._enter(Phase.DELIVERING, window=None if found == 1 else max(settled // found, 1))

    def _look_at(self, suspects: Sequence[int], width: int) -> bool:
        """Put the suspects of the last request first, unless that changes which of two equal points is last."""
        chosen = [line for line in dict.fromkeys(suspects) if 0 <= line < width]
        if not chosen:
            return False
        sent = self._todo[:width]
        first = [sent[line] for line in chosen]
        if len(chosen) == width:  # all of them, but in an order that puts similar lines together
            if not _keeps_order(chosen, [self._lines[index] for index in sent]):
                return False
            self._todo = [*first, *self._todo[width:]]
            self._halve(width, is_of_failing=False)
            return True
        among = frozenset(chosen)
        others = [index for line, index in enumerate(sent) if line not in among]
        keys = {point_key(self._lines[index]) for index in first}
        if any(point_key(self._lines[index]) in keys for index in others):
            return False
        self._todo = [*first, *others, *self._todo[width:]]
        self._enter(Phase.DELIVERING, window=len(first))
        return True

    def _count_refused_request(self, reason: str, status: int | None, *, is_vague: bool, named: bool = False) -> None:
        self._refused_requests += 1
        most = self._policy.max_refused_requests
        if self._refused_requests >= (max(most, len(self._lines) // 2) if named else most):
            count = self._refused_requests
            self._refuse_rest(
                f"the server rejected {count} requests with lines of this batch; search ended, last answer: {reason}",
                status,
                "IFX604",
                reason if is_vague else None,
            )

    def _refuse_rest(self, reason: str, status: int | None, code: str, vague: str | None = None) -> None:
        self._refusals.extend(Refusal(index, reason, status, code, vague) for index in (*self._held, *self._todo))
        self._todo = ()
        self._held = []

    def _wait(self, verdict: Unavailable, now: float, jitter: float) -> None:
        self._retry.pause(verdict, now, jitter)
        self._status = verdict.status

    def _give_up_if_used_up(self) -> None:
        """End as `on_unavailable` says once the retries are used up; those of other deliveries count too."""
        policy = self._policy
        if self._end is None and self._todo and policy.on_unavailable != "wait" and self._retry.is_used_up:
            end = policy.still_away(self._outage.reason)
            if policy.on_unavailable == "stop":
                self._end = end
            else:
                self._refuse_rest(end.reason, self._status, "IFX605")

    def _fitting(self) -> int:
        """Return how many of the remaining lines go into the next request: at least one."""
        width = min(self._window or len(self._todo), len(self._todo), self._policy.max_lines)
        if self._most_bytes <= self._limit.bytes:
            return width
        size = 0
        for count in range(width):
            size += line_bytes(self._lines[self._todo[count]]) + 1
            if size - 1 > self._limit.bytes:
                return max(count, 1)
        if width == len(self._lines):  # so they are not read again: they may be kept as the body by now
            self._most_bytes = size - 1
        return width

    def _bytes(self, width: int) -> int:
        """Return the size of a request with the next `width` lines."""
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


_RECEIVE: dict[type, Callable[[Machine, Any, int, float, float], None]] = {
    Accepted: Machine._accepted,  # noqa: SLF001  (the machine's own table)
    Refused: Machine._refused,  # noqa: SLF001
    RefusedSome: Machine._refused_some,  # noqa: SLF001
    TooLarge: Machine._too_large,  # noqa: SLF001
    Unavailable: Machine._unavailable,  # noqa: SLF001
    Impossible: Machine._impossible,  # noqa: SLF001
}
