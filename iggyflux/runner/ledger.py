"""What is in flight and what is settled: acknowledgements in order, whatever order the work finishes in.

Pure: no I/O, no clock.  A partition's position moves only over batches that are settled without a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from iggyflux.delivery.verdicts import Refusal
from iggyflux.records import Batch, Message, Partition, Position, Rendered


@dataclass(slots=True, eq=False)
class Job:
    """A batch on its way: what was made of it, how many of its lines are not settled, and which were refused."""

    batch: Batch
    rendered: Rendered
    unsettled_lines: int
    refusals: list[Refusal] = field(default_factory=list)
    is_settled: bool = False

    def refused(self, first: int, refusals: Sequence[Refusal]) -> None:
        """Note refusals of a request that held the lines from `first` on."""
        self.refusals += (
            Refusal(first + refusal.line, refusal.reason, refusal.status, refusal.code) for refusal in refusals
        )

    def message_of(self, refusal: Refusal) -> int:
        """The index of the message that a refused line was made of."""
        return self.rendered.origins[refusal.line]

    @property
    def messages(self) -> Sequence[Message]:
        """The messages of the batch."""
        return self.batch.messages


class Ledger:
    """The batches in flight, per partition in the order in which they were read."""

    def __init__(self) -> None:
        self._queues: dict[Partition, deque[Job]] = {}

    def begin(self, job: Job) -> None:
        """A batch was read."""
        self._queues.setdefault(job.batch.partition, deque()).append(job)

    def settle(self, job: Job) -> None:
        """Every point of every message of the batch was accepted, kept as a dead letter, or counted as skipped."""
        job.is_settled = True

    def take(self) -> tuple[list[Position], int]:
        """The positions that may be acknowledged now and were not before, and the number of their messages."""
        positions, messages = [], 0
        for queue in self._queues.values():
            last = None
            while queue and queue[0].is_settled:
                last = queue.popleft()
                messages += len(last.messages)
            if last is not None:
                positions.append(last.batch.last)
        return positions, messages
