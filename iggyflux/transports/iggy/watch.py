"""Which partitions of a consumer group starve: messages wait in them, and their holders make no progress.

Pure: looks and times go in.  Each partition is judged by itself:

| what a look finds                                    | what it means                                              |
|------------------------------------------------------|------------------------------------------------------------|
| no message waits                                     | it cannot starve; the time is reset                        |
| progress since the last look                         | its holder works; the time is reset                        |
| another holder than at the last look                 | it has `GRACE_SECONDS` at least; what starved starves on   |
| no progress for `STARVING_SECONDS`, held by another  | it starves: its holder is gone since a restart of the      |
|                                                      | server, or is alive and cannot write                       |
| … held by this member, and not being handed over     | it starves only if polls returned nothing: messages that   |
|                                                      | were read and not yet written count as progress            |
| … held by this member, being handed over             | it starves: messages that were read are not written        |
| … without a holder                                   | it starves                                                 |
| the connection was lost, or the membership           | nothing is known: all times are reset                      |

The progress of a partition of this member is its read position, of any other its stored offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iggyflux.records import Partition
from iggyflux.transports.base import Starving

STARVING_SECONDS = 10.0
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was found of a partition: the number of waiting messages, the progress, and the holder."""

    waiting: int
    progress: int
    holder: int | None


@dataclass(slots=True)
class _WatchedPartition:
    look: Look
    since: float
    held_since: float
    has_starved: bool = False
    """Whether it starved with a former holder."""

    def starves(self, now: float) -> bool:
        """Whether it starves with any holder."""
        return now - self.since >= STARVING_SECONDS and (self.has_starved or not self.is_new(now))

    def is_new(self, now: float) -> bool:
        """Whether its holder got it a moment ago."""
        return now - self.held_since < GRACE_SECONDS


class Watch:
    """The partitions that were looked at, and since when each makes no progress."""

    def __init__(self) -> None:
        self._watched: dict[Partition, _WatchedPartition] = {}

    def observe(self, now: float, looks: Mapping[Partition, Look]) -> None:
        """Take a look at some partitions; the others keep their state."""
        for place, look in looks.items():
            before = self._watched.get(place)
            if look.waiting <= 0:
                self._watched.pop(place, None)
            elif before is None or look.progress != before.look.progress:
                self._watched[place] = _WatchedPartition(look, now, now)
            elif look.holder == before.look.holder:
                before.look = look
            else:
                self._watched[place] = _WatchedPartition(look, before.since, now, before.starves(now))

    def is_stuck(self, since: float) -> bool:
        """Whether messages wait in some partition that made no progress after `since`."""
        return any(each.since <= since for each in self._watched.values())

    def starving(self, now: float) -> dict[Partition, Starving]:
        """Return the partitions that starve, in order."""
        return {
            place: Starving(place, each.look.holder, each.look.waiting, now - each.since, each.is_new(now))
            for place, each in sorted(self._watched.items(), key=lambda item: (item[0].topic, item[0].partition))
            if each.starves(now)
        }
