"""Failed records and refused lines: log each kind once, and do what `on_error` says.

| `on_error`  | the route                                                   |
|-------------|-------------------------------------------------------------|
| dead_letter | keeps the message (a reader: the row) as a dead letter      |
| skip        | counts it as dropped                                        |
| fail        | stops (IFX620)                                              |
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from iggyflux.delivery.verdicts import Refusal
from iggyflux.errors import Stopped, counted
from iggyflux.mapping import OnError
from iggyflux.records import DeadLetter, Failure, Message, Reason
from iggyflux.runner.events import emit
from iggyflux.runner.newest import with_newest
from iggyflux.runner.route import AnyRoute
from iggyflux.runner.status import RouteStatus
from iggyflux.telemetry.tracing import NO_TRACE, Trace
from iggyflux.transports.base import Retains, forget_error

_MOST_LOGGED = 20
_MOST_REASONS = 200
_MOST_CHARACTERS = 1_000_000
_NUMBER_OF_LINES = re.compile(r" dropped=[0-9]+")

log = logging.getLogger("iggyflux.runner")


class FailureHandler:
    """Applies `on_error` in one run of a route."""

    def __init__(
        self,
        route: AnyRoute,
        status: RouteStatus,
        put: Callable[[Sequence[DeadLetter]], Awaitable[str | None]],
        *,
        record: str,
    ) -> None:
        """`put` keeps dead letters and says in which file; `record` names what fails: a message or a row."""
        self.route = route
        self._status = status
        self._put = put
        self._record = record
        self._logged: set[tuple[str, str]] = set()

    def report_failures(self, failures: Sequence[Failure], place: Callable[[int], object]) -> None:
        """Count failed records and log each kind once.  Raise `Stopped` if `on_error` is fail.

        `place` says where the record with an index came from.
        """
        for failure in failures:
            self._status.count("failed", failure.code, failure.count)
        for failure in failures:
            if self._stops or self._is_new(failure.code, failure.location):
                fields = self._event_fields(place(failure.index), reason_of_failure(failure))
                emit(log, logging.WARNING, "record.failed", **fields)

    def report_omitted(self, values: Sequence[Failure], place: Callable[[int], object]) -> None:
        """Count the values that `on_bad_value: omit` left out, and log each kind once."""
        self._status.omitted += sum(value.count for value in values)
        for value in values:
            if self._is_new(value.code, f"omitted {value.location}"):
                emit(
                    log, logging.WARNING, "value.omitted", **self._fields(place(value.index), reason_of_failure(value))
                )

    def report_refusals(self, refusals: Sequence[Refusal], place: Callable[[Refusal], object]) -> None:
        """Log each cause once, with the first line that it refused and the number of its lines here.

        Raise `Stopped` if `on_error` is fail.
        """
        lines = Counter(map(_cause, refusals))
        for refusal in refusals:
            cause = _cause(refusal)
            if self._stops or self._is_new(*cause):
                fields = self._event_fields(place(refusal), Reason(refusal.code, refusal.reason))
                emit(log, logging.WARNING, "line.refused", **fields, lines=lines[cause])

    async def keep(
        self, reasons: Mapping[int, Sequence[Reason]], message: Callable[[int], Message], trace: Trace = NO_TRACE
    ) -> None:
        """Keep the records with these indices as dead letters, or count them as dropped.

        `message` gives the message to keep for an index.  A cancellation does not stop what is being written: a letter
        that is kept is counted.
        """
        if not reasons:
            return
        if self.route.on_error is OnError.SKIP:
            for each in reasons.values():
                self._status.count("dropped", each[0].code)
            return
        route = self.route
        letters = [
            DeadLetter(message(index), route.mapping, route.plan_identity, bounded(given), trace.id, route.name)
            for index, given in sorted(reasons.items())
        ]
        putting = asyncio.ensure_future(self._put_and_count(letters, trace))
        putting.add_done_callback(forget_error)
        await asyncio.shield(putting)

    def refresh(self) -> None:
        """Copy what the sink of dead letters reports about itself to the status."""
        sink = self.route.dead_letters
        if isinstance(sink, Retains):
            self._status.removed_replayed, self._status.removed_letters = sink.removed.replayed, sink.removed.others

    async def _put_and_count(self, letters: Sequence[DeadLetter], trace: Trace) -> None:
        trace.dead_letters(letters, await self._put(letters))
        for letter in letters:
            self._status.count("dead_letters", letter.reasons[0].code)
        of_rows = self._status.about.kind == "reader"
        self._status.newest = with_newest(self._status.newest, letters, time.time(), of_rows=of_rows)

    @property
    def _stops(self) -> bool:
        """Whether a failure stops the route, also one of a kind that was logged before the mapping changed."""
        return self.route.on_error is OnError.FAIL

    def _is_new(self, code: str, subject: str) -> bool:
        """Return whether to log a failure of this kind; remember it."""
        if len(self._logged) >= _MOST_LOGGED or (code, subject) in self._logged:
            return False
        self._logged.add((code, subject))
        return True

    def _event_fields(self, place: object, reason: Reason) -> dict[str, object]:
        """Return the fields of the event.  Raise `Stopped` if `on_error` is fail."""
        if self._stops:
            where = f" at {reason.location}" if reason.location else ""
            hint = f"correct the mapping, or set `on_error: dead_letter`; the {self._record} is read again"
            line = _payload_line(place, reason)
            record = place if line is None else f"{place}, line {line}"
            raise Stopped(f"{record}: {reason.code}: {reason.reason}{where}, and on_error is fail", hint, "IFX620")
        return self._fields(place, reason)

    def _fields(self, place: object, reason: Reason) -> dict[str, object]:
        return {
            "route": self.route.name,
            "at": place,
            "code": reason.code,
            "reason": reason.reason,
            "location": reason.location or None,
            "payload_line": _payload_line(place, reason),
        }


def _payload_line(place: object, reason: Reason) -> int | None:
    """Return the line of the payload; None where `place` is the file and line of the record."""
    return None if isinstance(place, str) else reason.payload_line


def _cause(refusal: Refusal) -> tuple[str, str]:
    """Return what refusals of one cause share: the code, and the server's words without a number of lines."""
    return refusal.code, _NUMBER_OF_LINES.sub("", refusal.reason)


def reasons_by_record(failures: Sequence[Failure]) -> dict[int, list[Reason]]:
    """Return the reasons of failed records by the index of the record."""
    reasons: dict[int, list[Reason]] = {}
    for failure in failures:
        reasons.setdefault(failure.index, []).append(reason_of_failure(failure))
    return reasons


def reason_of_failure(failure: Failure) -> Reason:
    """Return the reason that a dead letter gives for a failed record."""
    place = failure.location, failure.element, failure.point
    inner, line = failure.elements, failure.payload_line
    return Reason(failure.code, failure.reason_and_hint, *place, elements=inner, payload_line=line)


def bounded(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """Return the reasons that one dead letter keeps: the first ones, and a last one that counts the others.

    So a dead letter is never larger than its message and a constant.
    """
    kept: list[Reason] = []
    characters = 0
    for reason in reasons:
        characters += len(reason.reason) + len(reason.location) + len(reason.line or "")
        if len(kept) == _MOST_REASONS or characters > _MOST_CHARACTERS:
            break
        kept.append(reason)
    rest = reasons[len(kept) :]
    if rest:
        codes = ", ".join(f"{count:,} {code}" for code, count in sorted(Counter(each.code for each in rest).items()))
        words = f"and {counted(len(rest), 'more reason')}, not kept here, nor their lines: {codes}"
        kept.append(Reason(rest[0].code, words, rest[0].location, status=rest[0].status))
    return tuple(kept)
