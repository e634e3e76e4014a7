"""One end of a range of messages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from iggyflux.errors import Stopped
from iggyflux.records import Message


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range: an offset, or a time of arrival in microseconds."""

    kind: Literal["offset", "timestamp"]
    value: int

    def takes(self, message: Message) -> bool:
        """Whether `message` is at the bound or after it."""
        return (message.offset if self.kind == "offset" else message.timestamp_us) >= self.value


def check_partition(partition: int | None, numbers: Collection[int]) -> None:
    """Raise `Stopped` where a partition is asked for that is not among `numbers`, those of the topics of a range."""
    if partition is not None and partition not in numbers:
        hint = f"there are {len(numbers):,}, from {min(numbers)} to {max(numbers)}" if numbers else "there is none yet"
        raise Stopped(f"there is no partition {partition}", hint, "IFX612")
