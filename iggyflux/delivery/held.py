"""Decide whether rejected lines are at fault or the whole connection, before any rejection is settled.

A server at a wrong address, or with a setting that it does not accept, rejects every line without naming one.
Bisecting then blames each line in turn.  So a line with such a *vague* reason becomes a dead letter only after the
server has accepted another line.  Until then its request is *held*: neither kept as dead letter, nor counted, nor
acknowledged.

What happens when a request of a route ends (the smaller requests that search for a rejected line are part of it):

| the request ended with                          | no line was accepted yet    | a line was accepted before      |
|-------------------------------------------------|-----------------------------|---------------------------------|
| an accepted line, whatever was rejected         | settle it and the held ones | settle it and the held ones     |
| no accepted line, no vague rejection            | settle it                   | settle it and the held ones     |
| no accepted line, all vague and for one reason  | hold it                     | hold it, settle the held ones   |
|                                                 |                             | of another reason               |
| no accepted line, other vague rejections        | hold it                     | settle it and the held ones     |
| no accepted line, as the third request in a row | stop                        | stop                            |
| since one is held                               |                             |                                 |
| none began for the largest backoff since then   | send the held ones again    | send the held ones again        |
| there is no further request                     | stop where one is held      | settle the held ones            |
| the source lost its connection                  | forget the held ones        | forget the held ones            |

- *Settle*: apply `on_error`.  *Forget*: drop the request; the source reads its messages again.
- *One reason*: the same status and the same words, ignoring numbers, ids and times.
- *In a row* and *the held ones* refer to the order in which requests began, since requests overlap: the end of a
  request says nothing about those that began later.
- *Send again*: as the same requests, so that none counts twice towards a row.  The server, its clock or its retention
  may have been put right meanwhile, and the route may have nothing else to send.
- A line that is too large (IFX602) is vague only until a line was accepted.
- At most two requests are held for each request in flight, and two more.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from iggyflux.delivery.retry import Stop
from iggyflux.delivery.verdicts import Refusal

T = TypeVar("T")
Reason: TypeAlias = tuple[int | None, str]

_ROW_THAT_STOPS = 3
_CHANGING = re.compile(r"(?<!\S)(?=\S*\d)\S+|\b[0-9a-f]{8,}\b", re.IGNORECASE)
_HINT = "check `url`, `flavor`, the database and `precision`; if the lines are wrong, correct the mapping"


@dataclass(frozen=True, slots=True)
class EndedRequest(Generic[T]):
    """A request that ended, with its rejected lines."""

    request: T
    refusals: tuple[Refusal, ...]


class HeldRequests(Generic[T]):
    """The requests of one route whose rejected lines are in doubt."""

    def __init__(self) -> None:
        self._begun = 0
        self._held: dict[int, EndedRequest[T]] = {}
        # Requests that count towards a row, the held ones included: number → reason.  None of their lines was accepted.
        self._row: dict[int, Reason | None] = {}
        self._row_ended_at = 0
        self._has_accepted = False
        self._words = ""

    @property
    def words(self) -> str | None:
        """The server's message about the held requests; None if none is held."""
        return self._words if self._held else None

    def begin(self) -> int:
        """Return the number of the next request, which begins now; report its end with `ended`."""
        self._begun += 1
        return self._begun

    def ended(self, number: int, request: T, lines: int, refusals: Sequence[Refusal]) -> list[EndedRequest[T]] | Stop:
        """Return the requests to settle after a request of `lines` lines ended: none while it is held."""
        this = EndedRequest(request, tuple(refusals))
        if len(refusals) < lines:
            self._has_accepted = True
            return self._settle(number, this)
        vague = [refusal for refusal in refusals if self._is_vague(refusal)]
        reasons = {_reason_of(refusal) for refusal in vague}
        reason = reasons.pop() if len(reasons) == 1 and len(vague) == lines else None
        if self._has_accepted and (reason is None or number < self._row_ended_at):
            return self._settle(number, this)
        settled: list[EndedRequest[T]] = []
        if vague:
            if self._has_accepted:
                settled = self._release(number, other_than=reason)
            self._held[number] = this
            self._words = _words_of(vague[-1])
        else:
            settled = [this]
        if self._held:
            self._row[number] = reason
        return self._stop("of three requests in a row") if self._is_in_row(number) else settled

    def again(self) -> list[tuple[int, T]]:
        """Return and drop the held requests with their numbers, to send them again; report each end with `ended`."""
        again = [(number, self._held[number].request) for number in sorted(self._held)]
        self._held.clear()
        for number, _ in again:
            del self._row[number]
        return again

    def finished(self) -> list[EndedRequest[T]] | Stop:
        """Return the requests to settle when no request will follow."""
        if self._held and not self._has_accepted:
            return self._stop("since the start")
        return self._release(self._begun + 1)

    def forget(self) -> None:
        """Drop the held requests: the source reads their messages again."""
        self._held.clear()
        self._row.clear()

    def _settle(self, number: int, this: EndedRequest[T]) -> list[EndedRequest[T]]:
        """Return the held requests that began before this one, and this one, which ends the row."""
        self._row_ended_at = max(self._row_ended_at, number)
        return [*self._release(number), this]

    def _release(self, before: int, *, other_than: Reason | None = None) -> list[EndedRequest[T]]:
        """Return and drop the held requests that began before `before`, except those for the reason `other_than`."""
        numbers = [number for number in sorted(self._row) if number < before]
        numbers = [number for number in numbers if other_than is None or self._row[number] != other_than]
        for number in numbers:
            del self._row[number]
        return [self._held.pop(number) for number in numbers if number in self._held]

    def _is_in_row(self, number: int) -> bool:
        """Whether `number` is one of three consecutive requests in the row; after an accepted line, for one reason."""
        for first in range(number - _ROW_THAT_STOPS + 1, number + 1):
            row = range(first, first + _ROW_THAT_STOPS)
            if all(each in self._row for each in row):
                reasons = {self._row[each] for each in row}
                if not self._has_accepted or len(reasons) == 1:
                    return True
        return False

    def _is_vague(self, refusal: Refusal) -> bool:
        return refusal.vague is not None and not (refusal.code == "IFX602" and self._has_accepted)

    def _stop(self, which: str) -> Stop:
        return Stop(
            f"the server rejected every line {which}, and its answer names no line: {self._words}", _HINT, "IFX610"
        )


def _words_of(refusal: Refusal) -> str:
    words = refusal.vague or ""
    status = str(refusal.status) if refusal.status is not None else ""
    return words if status in words else f"{status}: {words}"


def _reason_of(refusal: Refusal) -> Reason:
    return one_reason(refusal.status, refusal.vague or "")


def one_reason(status: int | None, words: str) -> Reason:
    """Return what equal answers have in common: the status, and the words without changing parts.

    >>> one_reason(400, "Request 7f01 was refused at 12:00:01")
    (400, 'request # was refused at #')
    """
    return status, " ".join(_CHANGING.sub("#", words).lower().split())
