"""Lines of several batches joined to requests of a good size, and each line's way back to its batch.

Pure.  Requests are bounded by lines and by bytes; the exact bound on bytes is the delivery's, which knows what the
server takes: here the size is counted in characters.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from iggyflux.delivery.verdicts import Refusal
from iggyflux.runner.ledger import Job


@dataclass(frozen=True, slots=True)
class Part:
    """The lines `[start, stop)` of a batch, inside a request."""

    job: Job
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent together."""

    parts: tuple[Part, ...]
    lines: Sequence[str]
    size: int
    """In characters, with the ends of the lines."""

    def shares(self, refusals: Sequence[Refusal]) -> Iterator[tuple[Part, list[Refusal]]]:
        """Each part with its refused lines, counted from the part's first line."""
        base = 0
        for part in self.parts:
            size = part.stop - part.start
            yield (
                part,
                [
                    Refusal(refusal.line - base, refusal.reason, refusal.status, refusal.code)
                    for refusal in refusals
                    if base <= refusal.line < base + size
                ],
            )
            base += size


class RequestBuilder:
    """Collects the lines of batches until a request is full."""

    def __init__(self, max_lines: int, max_bytes: int) -> None:
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._parts: list[Part] = []
        self._lines: Sequence[str] = ()
        self._size = 0

    def __len__(self) -> int:
        """How many lines wait."""
        return len(self._lines)

    def add(self, job: Job) -> Iterator[Request]:
        """Take the lines of a batch in; gives the requests that are full."""
        lines, start, total = job.rendered.lines, 0, len(job.rendered.lines)
        while start < total:
            room = self._max_lines - len(self._lines)
            chosen = lines if total <= room and not start else lines[start : start + room]
            size = sum(map(len, chosen)) + len(chosen)
            if self._size + size > self._max_bytes:
                fitting = bisect_right(list(accumulate(len(line) + 1 for line in chosen)), self._max_bytes - self._size)
                if not fitting and self._parts:
                    yield self.take()
                    continue
                chosen = chosen[: max(fitting, 1)]  # one line over the limit goes alone
                size = sum(map(len, chosen)) + len(chosen)
            self._parts.append(Part(job, start, start + len(chosen)))
            self._lines = [*self._lines, *chosen] if self._lines else chosen
            self._size += size
            start += len(chosen)
            if len(self._lines) >= self._max_lines or self._size >= self._max_bytes:
                yield self.take()

    def take(self) -> Request:
        """What waits, full or not."""
        request = Request(tuple(self._parts), self._lines, self._size)
        self._parts, self._lines, self._size = [], (), 0
        return request
