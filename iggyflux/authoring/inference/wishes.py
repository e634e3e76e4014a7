"""What the person who asks has decided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wishes:
    """The decisions of a person: places are named by their path, such as device.id."""

    stream: str = "stream"
    topic: str = "messages"
    measurement: str | None = None
    tags: tuple[str, ...] = ()
    time: str | None = None
    time_format: str | None = None
    timezone: str | None = None
    topic_per_type: bool = False
