"""What status, log and `check` say of a partition that starves: which, held by whom, what is wrong, what to do.

The texts are written here once more and filled with what the world knows.  They are compared when nothing has changed
for some time: then all of them must know it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iggyflux.cli.check import CheckResult
from tests.simulation.iggy import Iggy
from tests.transports.fake_iggy_groups import STREAM

REMEDY = "iggyflux regroup 'a pipeline.yaml'"
_MORE = re.compile(r"; and \d+ more partitions")
_MOST_LISTED = 5


@dataclass(frozen=True, slots=True)
class Standstill:
    """A partition of a group, as long as nothing is stored and no member joins, leaves or loses its connection."""

    group: str
    topic: str
    partition: int
    stored: int | None
    holder: int | None
    members: tuple[tuple[int, int], ...]
    """Their numbers and clients."""
    connected: tuple[int, ...]
    """The clients of those that are connected."""

    @property
    def place(self) -> str:
        """The partition, for people."""
        return f"{STREAM}/{self.topic}/{self.partition}"

    @property
    def client(self) -> int | None:
        """The client of the holder."""
        return next((client for number, client in self.members if number == self.holder), None)

    @property
    def sentence(self) -> str:
        """What a status and `check` begin with."""
        holder = "no member holds it" if self.holder is None else f"member {self.holder} holds it"
        return f"{self.place} starves: {holder}, "

    @property
    def cause(self) -> str:
        """What the event and `check` say of the members."""
        members, connected = len(self.members), len(self.connected)
        if connected < members:
            return f"of {members} members {connected} are connected; the server kept the others from before its restart"
        return (
            "all members count as connected; the server notices a host that is gone after 36 to 66 s by default; "
            "else check the process of the holder and its sink"
        )


def standstill(iggy: Iggy, group: str, topic: str, partition: int) -> Standstill | None:
    """Return the state of a partition; None if the group does not exist, or has no members."""
    found = iggy.topics[topic].groups.get(group)
    if found is None or not found.members:
        return None
    holder = next((number for number, each in found.members.items() if partition in each.partitions), None)
    members = tuple((number, each.client) for number, each in found.members.items())
    connected = tuple(client for _, client in members if client in iggy.clients)
    return Standstill(group, topic, partition, found.stored.get(partition), holder, members, connected)


def names(status: str, place: str) -> bool:
    """Whether what a status waits for explains that a partition makes no progress."""
    return " starves: " not in status or f"{place} starves: " in status or _MORE.search(status) is not None


def wrong_in_status(still: Standstill, status: str, *, exclusive: bool) -> Iterator[str]:
    """Yield what a status says wrongly of a partition that starves."""
    is_listed = still.sentence in status
    if not is_listed and not (_MORE.search(status) and status.count(" starves: ") == _MOST_LISTED):
        yield f"it does not say {still.sentence!r}"
    remedies = ("the run rebuilds the group", "stop the other processes of the group: they are connected")
    if not any(each in status for each in (remedies if exclusive else (f"if its process has ended, run: {REMEDY}",))):
        yield "it does not say what to do"


def wrong_in_event(still: Standstill, event: str | None, *, is_recent: bool, exclusive: bool) -> Iterator[str]:
    """Yield what the last event of a process says wrongly; its cause is compared if it `is_recent`."""
    if event is None:
        yield "no event"
        return
    holder = "none" if still.holder is None else still.holder
    if f" group={still.group} topic={STREAM}/{still.topic} " not in event or f" member={holder} " not in event:
        yield f"it does not name the holder {holder}"
    if is_recent and still.cause not in event:
        yield f"it does not say {still.cause!r}"
    if not exclusive and REMEDY not in event:
        yield "it does not say what to do"


def wrong_in_check(still: Standstill, results: Sequence[CheckResult]) -> Iterator[str]:
    """Yield what `check` says wrongly."""
    found = next((each for each in results if each.text.startswith(still.sentence)), None)
    if found is None or found.ok is not False:
        yield f"it does not say {still.sentence!r}"
    elif found.hint != f"{still.cause}; if their processes have ended, run: {REMEDY}":
        yield f"its hint is {found.hint!r}, and not that {still.cause}"
