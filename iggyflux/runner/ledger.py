"""What is in flight and what is settled: acknowledgements in order, in whatever order the batches are finished.

Pure: no I/O, no clock.  A partition's position moves only over batches that are settled without a gap.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final

from iggyflux.delivery.settled import PlanInterval
from iggyflux.delivery.verdicts import Refusal
from iggyflux.records import (
    OF_A_BUILT_MESSAGE,
    Batch,
    LazyMessages,
    Message,
    Partition,
    Position,
    Rendered,
    is_part_of_file,
    place_in_file,
)
from iggyflux.telemetry.tracing import NO_TRACE, Trace


@dataclass(frozen=True, slots=True)
class WholeFile:
    """The place of a message that is a file: a line of its payload is one of the file, and worth telling."""

    place: str

    def __str__(self) -> str:
        return self.place


@dataclass(slots=True, eq=False, repr=False)  # payloads are not for a log, where an internal error would show them
class Job:
    """A batch in flight: its lines, how many of them are not settled, and which were refused."""

    batch: Batch
    rendered: Rendered
    unsettled_lines: int
    refusals: list[Refusal] = field(default_factory=list)
    refused_lines: dict[int, str] = field(default_factory=dict)
    """The lines of `refusals`, by their index."""
    trace: Trace = NO_TRACE
    payload_bytes: int = field(init=False)
    """Of its messages, which stay in memory until it is settled."""

    def __post_init__(self) -> None:
        self.payload_bytes = self.batch.payload_bytes

    def drop_lines(self) -> None:
        """Let its lines go, when each is in a request, or waits for one."""
        self.rendered = replace(self.rendered, lines=(), times=None)

    def message_of(self, refusal: Refusal) -> int:
        """Return the index of the message that a refused line was made of."""
        return self.rendered.origins[refusal.line]

    def place_of(self, message: int) -> Position | WholeFile | str:
        """Return the position of the message with this index: its own, as letters name it, or its file and line."""
        found = self.messages[message]
        if (line := place_in_file(found)) is not None:
            return line if is_part_of_file(found) else WholeFile(line)
        place = Partition(found.stream, found.topic, found.partition) if found.stream else self.batch.partition
        return Position(place, found.offset)

    @property
    def messages(self) -> Sequence[Message]:
        """The messages of the batch."""
        return self.batch.messages

    @property
    def memory(self) -> int:
        """About how many bytes its messages take now; found without a look at each."""
        messages = self.batch.messages
        if isinstance(messages, LazyMessages):
            return messages.memory
        return self.payload_bytes + OF_A_BUILT_MESSAGE * len(messages)


@dataclass(slots=True, eq=False)
class Share:
    """The lines of a batch that go to one bucket, with their times; `indices` says which of the batch they are.

    The lines and times are there until they are in requests.
    """

    job: Job
    lines: Sequence[str]
    indices: Sequence[int]
    times: Sequence[int] | None = None

    def drop_lines(self) -> None:
        """Let the lines and times go, when each is in a request, or waits for one."""
        self.lines, self.times = (), None

    def answered(self, start: int, stop: int, refused: Sequence[tuple[Refusal, str]]) -> None:
        """Settle the lines `[start, stop)` of this share; those that were refused count from `start`."""
        self.job.unsettled_lines -= stop - start
        for refusal, line in refused:
            index = self.indices[start + refusal.line]
            self.job.refusals.append(Refusal(index, refusal.reason, refusal.status, refusal.code))
            self.job.refused_lines[index] = line


_FEWEST_JOINED: Final = 1_000
"""So many entries of a partition are kept as they are."""


@dataclass(slots=True)
class _Entry:
    """What an acknowledgement needs of a batch: its messages and lines may go once it is settled."""

    last: Position | None
    messages: int
    arrivals: array[float]
    traces: list[Trace]
    payload_bytes: int
    is_settled: bool = False
    intervals: list[PlanInterval] = field(default_factory=list)

    def take_in(self, after: _Entry) -> None:
        """Become one entry with the next one; both are settled, and `after` has a position."""
        self.last = after.last
        self.messages += after.messages
        self.arrivals += after.arrivals
        self.traces += after.traces
        for plan, interval in after.intervals:
            before = self.intervals[-1] if self.intervals else None
            if before is not None and before[0] == plan and before[1].last + 1 == interval.first:
                self.intervals[-1] = plan, before[1].joined(interval)
            else:
                self.intervals.append((plan, interval))


@dataclass(frozen=True, slots=True)
class Settled:
    """What may be acknowledged: positions, the number of their messages, and what is known of their batches.

    `arrivals` are the times at which the first messages of the batches arrived, in microseconds since the epoch; 0 if
    it is not known.
    """

    positions: Sequence[Position]
    messages: int
    arrivals: Sequence[float]
    intervals: Sequence[tuple[Partition, PlanInterval]]
    traces: Sequence[Trace]


class Ledger:
    """The batches in flight, for each partition in the order in which they were read.

    Of one that is settled it keeps a few numbers: a source that is slow to acknowledge does not stop reading.  Where a
    batch is not settled for long (a bucket is dead), the settled ones after it become one entry.
    """

    def __init__(self) -> None:
        self._queues: dict[Partition, deque[_Entry]] = {}
        self._join_at: dict[Partition, int] = {}
        """The length of a queue at which settled entries are joined."""
        self._unsettled: dict[Job, _Entry] = {}
        self.unsettled_bytes = 0
        """The bytes of payloads of batches that are not settled."""

    def begin(self, job: Job) -> None:
        """Add a batch that was read."""
        traces = [] if job.trace is NO_TRACE else [job.trace]
        arrivals, size = array("d", [job.messages[0].timestamp_us]), job.payload_bytes
        entry = self._unsettled[job] = _Entry(job.batch.last, len(job.messages), arrivals, traces, size)
        self.unsettled_bytes += size
        self._queues.setdefault(job.batch.partition, deque()).append(entry)

    def settle(self, job: Job, intervals: Sequence[PlanInterval] = ()) -> None:
        """Settle a batch: every point of its messages was accepted, kept as a dead letter, or counted as dropped.

        `intervals` is what is written down of it after its acknowledgement.
        """
        entry = self._unsettled.pop(job)
        entry.is_settled, entry.intervals = True, list(intervals)
        self.unsettled_bytes -= entry.payload_bytes

    def take(self) -> Settled:
        """Return what may be acknowledged since the last call."""
        positions: list[Position] = []
        arrivals: list[float] = []
        intervals: list[tuple[Partition, PlanInterval]] = []
        traces: list[Trace] = []
        messages = 0
        for partition, queue in self._queues.items():
            settled, last = 0, None
            for number, entry in enumerate(takewhile(_is_settled, queue), 1):
                if entry.last is not None:
                    settled, last = number, entry.last
            for _ in range(settled):
                entry = queue.popleft()
                messages += entry.messages
                arrivals.extend(entry.arrivals)
                traces += entry.traces
                intervals += ((partition, each) for each in entry.intervals)
            if last is not None:
                positions.append(last)
            if len(queue) >= self._join_at.get(partition, _FEWEST_JOINED):
                self._queues[partition] = left = deque(_joined(queue))
                self._join_at[partition] = max(2 * len(left), _FEWEST_JOINED)
        return Settled(positions, messages, arrivals, intervals, traces)


def _joined(entries: Iterable[_Entry]) -> list[_Entry]:
    """Return the entries, settled ones that follow each other as one; an acknowledgement ends where it could before."""
    found: list[_Entry] = []
    for entry in entries:
        if found and found[-1].is_settled and entry.is_settled and entry.last is not None:
            found[-1].take_in(entry)
        else:
            found.append(entry)
    return found


def _is_settled(entry: _Entry) -> bool:
    return entry.is_settled
