"""What is in flight and what is settled: acknowledgements in order, in whatever order the batches are finished.

Pure: no I/O, no clock.  A partition's position moves only over batches that are settled without a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from iggyflux.delivery.verdicts import Refusal
from iggyflux.records import Batch, Message, Partition, Position, Rendered
from iggyflux.telemetry.tracing import NO_TRACE, Trace


@dataclass(slots=True, eq=False)
class Job:
    """A batch in flight: its lines, how many of them are not settled, and which were refused."""

    batch: Batch
    rendered: Rendered
    unsettled_lines: int
    refusals: list[Refusal] = field(default_factory=list)
    is_settled: bool = False
    trace: Trace = NO_TRACE

    def answered(self, start: int, stop: int, refusals: Sequence[Refusal]) -> None:
        """Settle the lines `[start, stop)`; `refusals` count from `start`."""
        self.unsettled_lines -= stop - start
        self.refusals += (
            Refusal(start + refusal.line, refusal.reason, refusal.status, refusal.code) for refusal in refusals
        )

    def message_of(self, refusal: Refusal) -> int:
        """Return the index of the message that a refused line was made of."""
        return self.rendered.origins[refusal.line]

    def place_of(self, message: int) -> Position:
        """Return the position of the message with this index."""
        return Position(self.batch.partition, self.messages[message].offset)

    @property
    def messages(self) -> Sequence[Message]:
        """The messages of the batch."""
        return self.batch.messages


def _is_settled(job: Job) -> bool:
    return job.is_settled


class Ledger:
    """The batches in flight, for each partition in the order in which they were read."""

    def __init__(self) -> None:
        self._queues: dict[Partition, deque[Job]] = {}

    def begin(self, job: Job) -> None:
        """Add a batch that was read."""
        self._queues.setdefault(job.batch.partition, deque()).append(job)

    def settle(self, job: Job) -> None:
        """Settle a batch: every point of its messages was accepted, kept as a dead letter, or counted as dropped."""
        job.is_settled = True

    def take(self) -> tuple[list[Position], list[Job]]:
        """Return the positions that may be acknowledged since the last call, and the batches that they settle."""
        positions, jobs = [], []
        for queue in self._queues.values():
            settled, last = 0, None
            for number, job in enumerate(takewhile(_is_settled, queue), 1):
                if (position := job.batch.last) is not None:
                    settled, last = number, position
            jobs += [queue.popleft() for _ in range(settled)]
            if last is not None:
                positions.append(last)
        return positions, jobs
