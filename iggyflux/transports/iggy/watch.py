"""Which partitions of a consumer group starve: messages wait in them, and whoever holds them does not get on.

Pure: looks and times go in.  Each partition is judged by itself, whatever the others do:

| what a look finds                                    | what it means                                              |
|------------------------------------------------------|------------------------------------------------------------|
| nothing waits                                        | it cannot starve; the time begins anew                     |
| progress since the last look                         | its holder works; the time begins anew                     |
| another holder than at the last look                 | it has `GRACE_SECONDS` at least                            |
| no progress for `STARVING_SECONDS`, held by another  | it starves: a ghost of a server that was started again, or |
|                                                      | a member that lives and cannot write                       |
| … held by us, and not on its way to another          | it starves only if we asked and got nothing: what we have  |
|                                                      | read and not yet written counts as progress                |
| … held by us, on its way to another                  | it starves: we have not written what we read of it         |
| … held by nobody                                     | it starves                                                 |
| we lost the connection, or are a member no more      | nothing is known: all times begin anew                     |

Progress of a partition of ours is where we read, of any other what is stored.
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
    """What was found of a partition: how many messages wait, how far somebody got, and who holds it."""

    waiting: int
    progress: int
    holder: int | None


@dataclass(slots=True)
class _Watched:
    look: Look
    since: float
    held_since: float


class Watch:
    """The partitions of which a look was taken, since when nothing moves in each."""

    def __init__(self) -> None:
        self._watched: dict[Partition, _Watched] = {}

    def observe(self, now: float, looks: Mapping[Partition, Look]) -> None:
        """Take a look at some partitions; what it does not hold stays as it was."""
        for place, look in looks.items():
            before = self._watched.get(place)
            if look.waiting <= 0:
                self._watched.pop(place, None)
            elif before is None or look.progress != before.look.progress:
                self._watched[place] = _Watched(look, now, now)
            else:
                held_since = before.held_since if look.holder == before.look.holder else now
                self._watched[place] = _Watched(look, before.since, held_since)

    def is_stuck(self, since: float) -> bool:
        """Whether messages wait in some partition that made no progress after `since`."""
        return any(each.since <= since for each in self._watched.values())

    def starving(self, now: float) -> dict[Partition, Starving]:
        """The partitions that starve, in order."""
        return {
            place: Starving(place, each.look.holder, each.look.waiting, now - each.since)
            for place, each in sorted(self._watched.items(), key=lambda item: (item[0].topic, item[0].partition))
            if now - each.since >= STARVING_SECONDS and now - each.held_since >= GRACE_SECONDS
        }
