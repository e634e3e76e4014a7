"""Lines of several batches joined to requests, and each line's way back to its batch.

Pure.  Requests are bounded by lines and by bytes.  The exact bound on bytes is the delivery's, which knows what the
server accepts: here the size is counted in characters.  The payloads of its messages stay in memory until a request is
settled, since each may become a dead letter; so they are bounded too.  A request that lacks few lines is full: so lines
of one batch stay together.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter
from typing import Final

from iggyflux.delivery.lines import RequestLines
from iggyflux.delivery.verdicts import Refusal
from iggyflux.runner.ledger import Job, Share
from iggyflux.telemetry.tracing import NO_REQUESTS, Requests, requests_of

MOST_PAYLOAD_BYTES: Final = 4_000_000
"""The most bytes of the payloads of a request, but for a single line."""

_ROOM: Final = 50
"""A request is full that lacks at most a fiftieth of its lines."""

_OF_A_LINE: Final = 60
"""The bytes that Python takes for a line and its time, beside its text."""

_OF_A_TIME: Final = 8
"""The same without the line."""


@dataclass(frozen=True, slots=True)
class LineRange:
    """The lines `[start, stop)` of a batch, or of its share."""

    share: Share
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Request:
    """Lines that are sent together."""

    ranges: tuple[LineRange, ...]
    lines: RequestLines
    size: int
    """In characters, line feeds included."""
    times: Sequence[int] | None = None
    """As `Rendered.times`."""
    traced: Requests = field(default=NO_REQUESTS, compare=False)
    """What is informed each time that it is sent."""

    @property
    def memory(self) -> int:
        """About how many bytes it takes now, without its batches: as lines, which become a body too, or as that."""
        kept, lines = self.lines.kept_bytes, len(self.lines)
        return 2 * self.size + _OF_A_LINE * lines if kept is None else kept + _OF_A_TIME * lines

    def refusals_by_range(self, refusals: Sequence[Refusal]) -> Iterator[tuple[LineRange, list[tuple[Refusal, str]]]]:
        """Yield each range with its refused lines, counted from the first line of the range, and their texts."""
        base, left = 0, deque(sorted(refusals, key=attrgetter("line")))
        for lines in self.ranges:
            found, end = [], base + lines.stop - lines.start
            while left and left[0].line < end:
                each = left.popleft()
                refusal = Refusal(each.line - base, each.reason, each.status, each.code)
                found.append((refusal, self.lines[each.line]))
            yield lines, found
            base = end


def jobs_of(requests: Iterable[Request]) -> set[Job]:
    """Return the batches of the lines of requests."""
    return {lines.share.job for each in requests for lines in each.ranges}


def memory_of(requests: Collection[Request]) -> int:
    """Return about how many bytes requests and the messages of their batches take now."""
    return sum(each.memory for each in requests) + sum(job.memory for job in jobs_of(requests))


class RequestBuilder:
    """Collects the lines of batches until a request is full."""

    def __init__(self, max_lines: int, max_bytes: int) -> None:
        self._max_lines = max_lines
        self._enough_lines = max_lines - max_lines // _ROOM
        self._max_bytes = max_bytes
        self._ranges: list[LineRange] = []
        self._lines: Sequence[str] = ()
        self._times: array[int] | None = array("q")
        self._size = 0
        self._payload_bytes = 0.0

    def __len__(self) -> int:
        """Return the number of lines that wait for a request."""
        return len(self._lines)

    def add(self, share: Share) -> Iterator[Request]:
        """Add the lines of a batch, or a share of them; yield the requests that are full."""
        lines, start, total = share.lines, 0, len(share.lines)
        of_a_line = share.job.payload_bytes / max(len(share.job.rendered.lines), 1)
        while start < total:
            free = self._max_lines - len(self._lines)
            if self._payload_bytes + (total - start) * of_a_line > MOST_PAYLOAD_BYTES:
                fitting = int((MOST_PAYLOAD_BYTES - self._payload_bytes) / of_a_line)
                if not fitting and self._ranges:
                    yield self.take()
                    continue
                free = min(free, max(fitting, 1))
            added = lines if total <= free and not start else lines[start : start + free]
            size = sum(map(len, added)) + len(added)
            if self._size + size > self._max_bytes:
                fitting = bisect_right(list(accumulate(len(line) + 1 for line in added)), self._max_bytes - self._size)
                if not fitting and self._ranges:
                    yield self.take()
                    continue
                added = added[: max(fitting, 1)]  # one line over the limit goes alone
                size = sum(map(len, added)) + len(added)
            self._ranges.append(LineRange(share, start, start + len(added)))
            self._lines = [*self._lines, *added] if self._lines else added
            self._add_times(share, start, start + len(added))
            self._size += size
            self._payload_bytes += len(added) * of_a_line
            start += len(added)
            is_full = len(self._lines) >= self._enough_lines or self._size >= self._max_bytes
            if is_full or self._payload_bytes >= MOST_PAYLOAD_BYTES:
                yield self.take()
        share.drop_lines()

    def _add_times(self, share: Share, start: int, stop: int) -> None:
        if self._times is not None and share.times is not None:
            self._times.extend(share.times[start:stop])
        else:
            self._times = None

    def take(self) -> Request:
        """Return the request, full or not, and begin the next one."""
        traced = requests_of([lines.share.job.trace for lines in self._ranges])
        request = Request(tuple(self._ranges), RequestLines(self._lines), self._size, self._times, traced)
        self._ranges, self._lines, self._size, self._payload_bytes = [], (), 0, 0.0
        self._times = array("q")
        return request
