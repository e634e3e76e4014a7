"""Membership in a consumer group: the partitions of this member, starving partitions, and when to rebuild the group.

Every two seconds, even while messages come from other partitions, a member looks at the group:

| it finds                                         | it does                                                          |
|--------------------------------------------------|------------------------------------------------------------------|
| another assignment than at the last look         | logs `iggy.partitions_assigned`, `iggy.partitions_revoked`       |
| that it is not a member (the group was deleted): | raises `CallFailed` (NO_MEMBER): the route connects again        |
| polls would stay empty, without an error         |                                                                  |
| a topic with more than `_MOST_WATCHED` partitions | watches a part of them, and other members the other parts       |
| a partition starves (see `watch`)                | logs `iggy.starving` with the partition and the member           |
| … it makes progress again                        | logs `iggy.starving_over`                                        |
| `exclusive`, and members without a connection,   | rebuilds the group with its offsets, logs `iggy.regrouped`; work |
| or a partition that starves                      | in flight stays valid: this member then has every partition      |
| … but other processes are connected              | leaves the group alone, logs `iggy.not_exclusive`                |
| the same uneven share for `UNEVEN_SECONDS`, and  | leaves and joins again, by `CallFailed` (NO_MEMBER): the server  |
| that it has the fewest partitions                | then deals all of them anew, and moves its share to it           |
| the connection breaks during the rebuild         | the source continues at the offsets, which are in the log too    |
| the read is cancelled during the rebuild         | the rebuild goes on; `finish` waits for it                       |
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from iggyflux.errors import IggyfluxError, counted
from iggyflux.records import Partition
from iggyflux.transports.base import GroupState, Starving
from iggyflux.transports.iggy.connection import Connection, ConsumerId, Membership, PartitionInfo
from iggyflux.transports.iggy.errors import CallFailed, Meaning
from iggyflux.transports.iggy.groups import renew
from iggyflux.transports.iggy.watch import STARVING_SECONDS, Look, Watch

LOOK_SECONDS = 2.0
UNEVEN_SECONDS = 40.0  # a server hands a partition over within 30 s
_EVEN_AGAIN_SECONDS = 600.0  # members without a process share unevenly for good
_OUTSIDE_SECONDS = 1.0
_MOST_WATCHED = 32
_MOST_LISTED = 5

log = logging.getLogger("iggyflux.iggy")


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """How far this member has read one of its partitions."""

    place: Partition
    position: int
    """The next expected offset."""
    came_empty: bool
    """Whether this member polled since the last look and got nothing."""
    counts_from: int | None
    """The offset from which messages count if nothing is stored; None: from the end at the first look."""
    trusts_stored: bool
    """Whether the stored offset is one of this log: else the server has lost messages, and all of the others count."""


class StoredOffsets:
    """The progress of a group's members by stored offsets; asks only for offsets that may have changed."""

    def __init__(self, consumer: ConsumerId) -> None:
        self._consumer = consumer
        self._known: dict[Partition, int] = {}

    async def look(
        self,
        connection: Connection,
        place: Partition,
        info: PartitionInfo,
        holder: int | None,
        *,
        begin: int,
        trusts_stored: bool = True,
    ) -> Look:
        """Return a look at one partition; if nothing is stored, messages count from `begin`.

        All of them count if the stored offset is not trusted.
        """
        stored = self._known.get(place)
        if stored is None or stored != info.end - 1:
            found = await connection.stored(self._consumer, place)
            if found is None:
                return Look(min(info.end - begin, info.messages), -1, holder)
            stored = self._known[place] = found.stored
        is_of_this_log = trusts_stored and stored < info.end
        behind = info.end - 1 - stored if is_of_this_log else info.end
        return Look(min(behind, info.messages), stored, holder)


async def find_starving(
    connection: Connection,
    consumer: ConsumerId,
    stream: str,
    topic: str,
    *,
    counts_all: bool,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Starving]:
    """Return the partitions that members of a group hold without progress; do not join the group.

    Return at once if no message waits, else when every member made progress, or after `STARVING_SECONDS`.
    Messages of a partition without a stored offset count if `counts_all`.  Raise `NotConnected`.
    """
    watch, offsets = Watch(), StoredOffsets(consumer)
    begun: float | None = None
    while True:
        held = await connection.members(stream, topic, consumer.name)
        owners = {partition: member for member, partitions in held.items() for partition in partitions}
        looks = {}
        for info in await connection.partitions(stream, topic) or []:
            if info.number in owners:
                place, begin = Partition(stream, topic, info.number), 0 if counts_all else info.end
                looks[place] = await offsets.look(connection, place, info, owners[info.number], begin=begin)
        now = monotonic()
        begun = now if begun is None else begun
        watch.observe(now, looks)
        if now - begun >= STARVING_SECONDS or not watch.is_stuck(begun):
            return list(watch.starving(now).values())
        await sleep(_OUTSIDE_SECONDS)


class GroupMember:
    """Membership of one group in the topics of one stream.

    `evens`: join again where partitions stay shared unevenly.  `remedy` is the command that rebuilds the group, for
    messages.  `storing` is held while an offset is stored: a rebuild must not run meanwhile.
    """

    def __init__(
        self,
        stream: str,
        group: str,
        *,
        exclusive: bool = False,
        evens: bool = True,
        remedy: str = "iggyflux regroup",
    ) -> None:
        self._stream = stream
        self._group = group
        self._exclusive = exclusive
        self._evens = evens and not exclusive
        self._remedy = remedy
        self.storing = asyncio.Lock()
        self._watch = Watch()
        self._look_at = 0.0
        self._states: dict[str, GroupState] = {}
        self._reported: dict[Partition, int | None] = {}
        self._stored = StoredOffsets(ConsumerId("group", group))
        self._ends: dict[Partition, int] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._is_shared = False
        self._uneven: dict[str, tuple[Mapping[int, tuple[int, ...]], float]] = {}
        self._even_at = 0.0

    @property
    def states(self) -> Sequence[GroupState]:
        """The last known state of each topic."""
        return tuple(self._states.values())

    @property
    def waiting_for(self) -> str | None:
        """The starving partitions, for people."""
        starving = [each for state in self._states.values() for each in state.starving]
        if not starving:
            return None
        listed = "; ".join(map(in_words, starving[:_MOST_LISTED]))
        more = f"; and {len(starving) - _MOST_LISTED} more partitions" if len(starving) > _MOST_LISTED else ""
        return f"{listed}{more}; {self._advice()}"

    def is_of_others(self, place: Partition) -> bool:
        """Whether this member did not hold a partition at the last look; False before the first one."""
        state = self._states.get(place.topic)
        return state is not None and place.partition not in state.partitions

    def begin(self, now: float) -> None:
        """Start with a new connection, of which nothing is known yet."""
        self._watch, self._look_at = Watch(), now
        self._states.clear()
        self._reported.clear()
        self._uneven.clear()

    async def finish(self) -> None:
        """Wait for a rebuild in progress; never raise."""
        if self._renewing is not None:
            await asyncio.wait({self._renewing})

    def is_due(self, now: float) -> bool:
        """Whether the next look is due."""
        return now >= self._look_at

    async def look(
        self,
        connection: Connection,
        monotonic: Callable[[], float],
        readings: Iterable[ReadProgress],
        keep: Callable[[Mapping[Partition, int]], None],
    ) -> bool:
        """Look at all topics; return True if a group was rebuilt: this member then has every partition.

        `keep` receives the offsets before a rebuild, which deletes them on the server.  Raise `NotConnected`.
        """
        now = monotonic()
        topics: dict[str, list[ReadProgress]] = {}
        for reading in readings:
            topics.setdefault(reading.place.topic, []).append(reading)
        renewed = False
        for topic, each in topics.items():
            membership = await connection.membership(self._stream, topic, self._group)
            if membership.own is None:
                doing = f"membership in group {self._group} of {self._stream}/{topic} was lost; joining again"
                raise CallFailed(doing, Meaning.NO_MEMBER)
            self._report_assignment(topic, membership)
            self._watch.observe(now, await self._looks(connection, topic, membership, each))
            starving = [each for place, each in self._watch.starving(now).items() if place.topic == topic]
            self._states[topic] = GroupState(
                self._group,
                self._stream,
                topic,
                membership.number,
                tuple(sorted(membership.own)),
                tuple(starving),
            )
            await self._report_starving(connection, topic, membership, starving)
            if self._evens and not starving:
                self._even(topic, membership, now)
            if self._exclusive and len(membership.held) > 1:
                renewed |= await self._rebuild(connection, topic, bool(starving), keep)
        # From the end of this look, so that a slow server has time for polls; a new assignment is reported at once.
        self._look_at = now if renewed else monotonic() + LOOK_SECONDS
        return renewed

    async def _looks(
        self, connection: Connection, topic: str, membership: Membership, readings: Sequence[ReadProgress]
    ) -> dict[Partition, Look]:
        infos = {info.number: info for info in await connection.partitions(self._stream, topic) or []}
        watched = watched_by(None if self._exclusive else membership.number, membership.held, infos.keys())
        looks = {}
        for reading in readings:
            place = reading.place
            info = infos.get(place.partition)
            if info is None:
                continue
            holder = membership.holder(place.partition)
            first_end = self._ends.setdefault(place, info.end)
            if membership.own and place.partition in membership.own:
                waiting = info.end - reading.position if reading.came_empty else 0
                looks[place] = Look(waiting, reading.position, holder)
            elif place.partition not in watched:
                looks[place] = Look(0, 0, holder)  # as if nothing waited
            else:
                begin = first_end if reading.counts_from is None else reading.counts_from
                looks[place] = await self._stored.look(
                    connection, place, info, holder, begin=begin, trusts_stored=reading.trusts_stored
                )
        return looks

    # Reporting

    def _report_assignment(self, topic: str, membership: Membership) -> None:
        known = self._states.get(topic)
        before = frozenset(known.partitions) if known else frozenset()
        own = membership.own or frozenset()
        about = (self._group, f"{self._stream}/{topic}", membership.number)
        holds = _listed(own) or "none"
        if gained := own - before:
            log.info(
                "iggy.partitions_assigned group=%s topic=%s member=%s partitions=%s holds=%s",
                *about,
                _listed(gained),
                holds,
            )
        if lost := before - own:
            log.info(
                "iggy.partitions_revoked group=%s topic=%s member=%s partitions=%s holds=%s",
                *about,
                _listed(lost),
                holds,
            )

    async def _report_starving(
        self, connection: Connection, topic: str, membership: Membership, starving: Sequence[Starving]
    ) -> None:
        """Log new starving partitions, once for each holder that had some time, and those that no longer starve."""
        current = {
            each.partition: self._reported.get(each.partition, each.holder) if each.is_handed_over else each.holder
            for each in starving
        }
        over = [place.partition for place in self._reported if place.topic == topic and place not in current]
        new = [each for each in starving if self._reported.get(each.partition, -1) != current[each.partition]]
        self._reported = {place: each for place, each in self._reported.items() if place.topic != topic} | current
        where = f"{self._stream}/{topic}"
        if over:
            log.info("iggy.starving_over group=%s topic=%s partitions=%s", self._group, where, _listed(over))
        if not new:
            return
        members, connected = await connection.presence(self._stream, topic, self._group)
        for holder in dict.fromkeys(each.holder for each in new):
            held = [each for each in new if each.holder == holder]
            log.warning(
                "iggy.starving group=%s topic=%s partitions=%s member=%s self=%s waiting=%d seconds=%d hint=%r",
                self._group,
                where,
                _listed(each.partition.partition for each in held),
                "none" if holder is None else holder,
                "unknown" if membership.number is None else membership.number,
                sum(each.waiting for each in held),
                max(each.seconds for each in held),
                f"{suspicion(len(members), connected)}; {self._advice()}",
            )

    def _advice(self) -> str:
        if self._is_shared:
            return "stop the other processes of the group: they are connected despite `exclusive: true`"
        if self._exclusive:
            return "the run rebuilds the group"
        return f"if its process has ended, run: {self._remedy}"

    # Sharing evenly

    def _even(self, topic: str, membership: Membership, now: float) -> None:
        """Raise `CallFailed` if this member has to join again, so that partitions are shared evenly.

        A server moves partitions to members that have none.  So where several join at the same moment, one may get two
        or more partitions less than others, and stays so until a member leaves.
        """
        held = membership.held
        before, since = self._uneven.get(topic, ({}, now))
        since = since if held == before else now
        self._uneven[topic] = (held, since)
        fewest = has_fewest(held)
        if now - since < UNEVEN_SECONDS or now < self._even_at or fewest is None or fewest != membership.number:
            return
        self._even_at = now + _EVEN_AGAIN_SECONDS
        sizes = ", ".join(str(len(each)) for each in held.values())
        doing = (
            f"members of group {self._group} of {self._stream}/{topic} hold {sizes} partitions; joining again to even"
        )
        raise CallFailed(doing, Meaning.NO_MEMBER)

    # Rebuilding

    async def _rebuild(
        self,
        connection: Connection,
        topic: str,
        starves: bool,
        keep: Callable[[Mapping[Partition, int]], None],
    ) -> bool:
        connected = await connection.connected_members(self._stream, topic, self._group)
        is_shared = connected is not None and connected > 1
        if is_shared and starves and not self._is_shared:
            hint = "stop the other processes of the group, or remove `exclusive`"
            log.error(
                "iggy.not_exclusive group=%s topic=%s/%s connected=%d hint=%r",
                self._group,
                self._stream,
                topic,
                connected,
                hint,
            )
        self._is_shared = is_shared and starves
        if is_shared or (connected is None and not starves):
            return False
        self._renewing = asyncio.ensure_future(self._renew(connection, topic, keep))
        self._renewing.add_done_callback(_forget)
        await asyncio.shield(self._renewing)
        return True

    async def _renew(self, connection: Connection, topic: str, keep: Callable[[Mapping[Partition, int]], None]) -> None:
        def log_and_keep(offsets: Mapping[int, int]) -> None:
            listed = ",".join(f"{number}:{offset}" for number, offset in sorted(offsets.items()))
            log.info(
                "iggy.regrouping group=%s topic=%s/%s offsets=%s", self._group, self._stream, topic, listed or "none"
            )
            keep({Partition(self._stream, topic, number): offset for number, offset in offsets.items()})

        async with self.storing:
            renewed = await renew(connection, self._stream, topic, self._group, keep=log_and_keep)
        log.warning(
            "iggy.regrouped group=%s topic=%s/%s removed=%d offsets=%d",
            self._group,
            self._stream,
            topic,
            len(renewed.members) - 1,
            len(renewed.offsets),
        )


def in_words(each: Starving) -> str:
    """Return a starving partition, for people."""
    holder = "no member holds it" if each.holder is None else f"member {each.holder} holds it"
    return f"{each.partition} starves: {holder}, {counted(each.waiting, 'message')} pending"


def has_fewest(held: Mapping[int, Sequence[int]]) -> int | None:
    """Return the first member that holds at least two partitions less than another; None if all share evenly."""
    fewest = min(held, key=lambda member: (len(held[member]), member), default=None)
    if fewest is None or max(map(len, held.values())) - len(held[fewest]) < 2:
        return None
    return fewest


def watched_by(member: int | None, members: Iterable[int], partitions: Collection[int]) -> Collection[int]:
    """Return those of a topic's `partitions` that a member watches: each is watched by four members at least.

    A large group shares them: if every member asked for every offset, the server would do little else.
    """
    numbers = sorted(members)
    parts = min(-(-len(partitions) // _MOST_WATCHED), len(numbers) // 4)
    if parts < 2 or member not in numbers:
        return partitions
    rank = numbers.index(member)
    return {partition for partition in partitions if (partition + rank) % parts == 0}


def suspicion(members: int, connected: int | None) -> str:
    """Return what may be wrong with a member that makes no progress."""
    if connected is None:
        return "a restarted server may keep old members"
    if connected < members:
        return f"of {members} members {connected} are connected; the server kept the others from before its restart"
    return (
        "all members count as connected; the server notices a host that is gone after 36 to 66 s by default; "
        "else check the process of the holder and its sink"
    )


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and isinstance(error := task.exception(), IggyfluxError):
        log.debug("iggy.regroup_failed reason=%r", str(error))
