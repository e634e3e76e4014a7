"""How several processes read one source: each partition belongs to one of them.

The rule needs no agreement between the processes: the partitions of a topic go to them in turn, beginning for each
topic with another one, so that topics of one partition are spread too.  Where the pipeline lists partitions, those of
the list are taken in turn.  A consumer group needs no such rule: Iggy shares its partitions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from iggyflux.records import Partition


@dataclass(frozen=True, slots=True)
class Share:
    """The share of the process number `worker`, from 0, of `workers`."""

    worker: int = 0
    workers: int = 1

    def has(self, place: Partition, listed: Collection[int] | None = None) -> bool:
        """Return whether a partition is one of this share; `listed` are those that are read at all, None is all."""
        if listed is not None and place.partition not in listed:
            return False
        number = place.partition if listed is None else sorted(listed).index(place.partition)
        return (crc32(place.topic.encode("utf-8", "surrogatepass")) + number) % self.workers == self.worker


ALONE: Final = Share()
"""The share of a process that reads all partitions."""
