"""One end of a range of messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iggyflux.records import Message


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range: an offset, or a time of arrival in microseconds."""

    kind: Literal["offset", "timestamp"]
    value: int

    def takes(self, message: Message) -> bool:
        """Whether `message` is at the bound or after it."""
        return (message.offset if self.kind == "offset" else message.timestamp_us) >= self.value
