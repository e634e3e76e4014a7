"""Members of consumer groups under faults, against a model of the server: starving partitions are reported."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import IggySettings, Start
from iggyflux.records import Batch, Partition, Position
from iggyflux.transports.base import Starving
from iggyflux.transports.iggy import wire
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from iggyflux.transports.iggy.groups import refuse_while_connected, regroup
from iggyflux.transports.iggy.member import LOOK_SECONDS, find_starving, watched_by
from iggyflux.transports.iggy.source import IggySource
from iggyflux.transports.iggy.watch import GRACE_SECONDS, STARVING_SECONDS, Look, Watch
from tests.transports.contract import drive
from tests.transports.fake_iggy_groups import _BINARY, STREAM, TOPIC, FakeClient, FakeGroups

GROUP = "lambda-größe"


def place(partition: int) -> Partition:
    return Partition(STREAM, TOPIC, partition)


class Worker:
    """A process of the group: it acknowledges each batch at once, and reconnects when it must."""

    def __init__(self, server: FakeGroups, *, kind: Literal["group", "single"] = "group", **more: Any) -> None:
        self.server = server
        self.source = IggySource(
            server.settings(),
            STREAM,
            [TOPIC],
            consumer=ConsumerId(kind, GROUP),
            monotonic=server.monotonic,
            connection=self.connect,
            **more,
        )
        self.newest_client: FakeClient | None = None
        self.seen: dict[int, set[int]] = {number: set() for number in server.numbers}
        self.is_connected = False
        self.reconnects = 0
        self.connected_at = 0.0

    def connect(self, settings: IggySettings) -> Connection:
        def client(_settings: IggySettings) -> FakeClient:
            self.newest_client = FakeClient(self.server)
            return self.newest_client

        return Connection(settings, client=client)

    @property
    def client(self) -> FakeClient | None:
        client = self.newest_client
        return client if client is not None and client.number in self.server.clients else None

    @property
    def seconds_of_membership(self) -> float:
        return self.server.now - self.connected_at if self.is_connected else 0.0

    async def turn(self, reads: int = 12) -> list[Batch]:
        """Read for a moment."""
        found = []
        try:
            if not self.is_connected:
                await self.source.connect()
                self.is_connected, self.connected_at = True, self.server.now
            for _ in range(reads):
                if batch := await self.source.read():
                    self.seen[batch.partition.partition] |= {each.offset for each in batch.messages}
                    await self.source.ack([batch.last])
                    found.append(batch)
        except NotConnected:
            self.reconnects += 1
            self.is_connected = False
        return found


async def pass_seconds(server: FakeGroups, workers: Sequence[Worker], seconds: int, busy: Sequence[int] = ()) -> None:
    """Let time pass: messages come to the partitions `busy`, workers work."""
    for _ in range(seconds):
        for partition in busy:
            server.send(partition, 3)
        for worker in workers:
            await worker.turn()
        server.tick(1.0)


@pytest.mark.parametrize("busy", [range(4), [1, 3], [0], [2, 3], []], ids=str)
def test_partitions_of_ghosts_are_reported_while_others_have_traffic(busy: Sequence[int]) -> None:
    server = FakeGroups(4)

    async def main() -> str:
        worker = Worker(server)
        await pass_seconds(server, [worker], 5, range(4))
        server.kill()
        await pass_seconds(server, [worker], 20, busy)
        return worker.source.waiting_for or ""

    words = drive(main())
    starving = [each for each in busy if server.holder(GROUP, each) not in server.live(GROUP)]
    assert [each for each in server.numbers if f"{place(each)} starves: member 0 holds it" in words] == starving
    assert ("run: iggyflux regroup" in words) == bool(starving)


@pytest.mark.parametrize("kind", ["group", "single"])
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=2, max_size=2), st.integers(0, 3))
def test_a_partition_is_replaced_if_another_message_or_none_has_the_offset_whoever_holds_it(
    kind: Literal["group", "single"], drawn: list[tuple[int, int]], back: int
) -> None:
    """`drawn` is how many messages each partition lost and got; the message asked for is `back` before the old end."""
    server = FakeGroups(2)
    for partition in server.numbers:
        server.send(partition, 5)
    offset = 4 - back
    read = {place(each): (offset, server.partitions[each].messages[offset]["timestamp"]) for each in server.numbers}

    async def main() -> list[list[Partition]]:
        workers = [Worker(server, kind=kind), Worker(server, kind=kind)]
        await pass_seconds(server, workers, 3)
        server.stop()
        for partition, (lost, new) in enumerate(drawn):
            server.lose_tail(TOPIC, partition, lost)
            server.send(partition, new)
        for worker in workers:
            await worker.source.connect()
        return [list(await worker.source.replaced({**read, place(9): (1, 1)})) for worker in workers]

    assert drive(main()) == [[place(each) for each, (lost, _) in enumerate(drawn) if lost > back]] * 2


@pytest.mark.parametrize("new", range(1, 7))
@pytest.mark.parametrize("saw_the_loss", [True, False])
def test_new_messages_at_the_offsets_of_lost_ones_are_reported_where_a_ghost_holds_them(
    new: int, saw_the_loss: bool
) -> None:
    """The stored offset is one of the lost log: nothing between the end and it would wait, by that count."""
    server = FakeGroups(2)

    async def main() -> str:
        worker = Worker(server)
        await pass_seconds(server, [worker], 2, range(2))
        server.kill()
        server.lose_tail(TOPIC, 0, 4)
        await pass_seconds(server, [worker] if saw_the_loss else [], 2)
        server.send(0, new)
        await pass_seconds(server, [worker], 20)
        return worker.source.waiting_for or ""

    assert f"{place(0)} starves: member 0 holds it" in drive(main())


@pytest.mark.parametrize("kind", ["group", "single"])
def test_a_start_beyond_the_end_is_waited_for_over_one_connection(kind: Any) -> None:
    server = FakeGroups(1)
    server.send(0, 3)

    async def main() -> Worker:
        worker = Worker(server, kind=kind, start=Start("offset", 9))
        await pass_seconds(server, [worker], 20)
        await pass_seconds(server, [worker], 3, [0])
        return worker

    worker = drive(main())
    assert (worker.seen[0], worker.reconnects) == ({9, 10, 11}, 0)


def settled_by(name: str, server: FakeGroups) -> int | None:
    stored = server.groups[GROUP].stored if name == "group" else server.partitions[0].offsets
    return stored.get(0 if name == "group" else GROUP)


@pytest.mark.parametrize("kind", ["group", "single"])
@pytest.mark.parametrize("old", [1, 2, 20])
@pytest.mark.parametrize("left", [0, 1, 7, 20])
@pytest.mark.parametrize("new", [1, 12, 40])
@pytest.mark.parametrize("how", ["restart", "restart and a look", "purge"])
def test_messages_with_offsets_that_were_read_before_are_read(
    kind: Any, old: int, left: int, new: int, how: str
) -> None:
    """After a lost tail or a purge, with more or fewer new messages, and with reconnects before anything is stored."""
    server = FakeGroups(1)
    server.append(TOPIC, 0, [b"old"] * old)
    seen: list[tuple[int, bytes]] = []

    async def main() -> None:
        worker = Worker(server, kind=kind)
        await worker.turn()
        if how == "purge":
            server.purge(TOPIC)
            server.tick(6.0)
            await worker.turn()
        else:
            server.stop()
            server.lose_tail(TOPIC, 0, max(old - left, 0))
            if "look" in how:
                await worker.turn()  # sees that the connection ended
                await worker.turn()
        server.append(TOPIC, 0, [b"new"] * new)
        if "look" in how:
            for batch in await worker.turn():
                seen.extend((each.offset, each.payload) for each in batch.messages)
        for _ in range(4):
            server.stop()
            await worker.turn(0)
            with suppress(NotConnected):
                await worker.source.connect()
                if batch := await worker.source.read():
                    seen.extend((each.offset, each.payload) for each in batch.messages)
        worker.is_connected = False
        for _ in range(3):
            server.tick(1.0)
            for batch in await worker.turn():
                seen.extend((each.offset, each.payload) for each in batch.messages)

    drive(main())
    log = server.partitions[0].messages
    assert {each["offset"] for each in log if each["payload"] == b"new"} <= {at for at, text in seen if text == b"new"}
    assert settled_by(kind, server) == log[-1]["offset"]


@pytest.mark.parametrize("kind", ["group", "single"])
def test_message_0_is_read_again_after_a_stored_offset_0_of_an_earlier_log(kind: Any) -> None:
    """A server that lost its log reports 0; the process has read message 0 of the new one, and not acknowledged it."""
    server = FakeGroups(1)

    async def main() -> list[int]:
        first = Worker(server, kind=kind)
        server.append(TOPIC, 0, [b"old"])
        await first.turn()
        await first.source.close()
        server.lose_tail(TOPIC, 0, 1, zero=True)
        server.append(TOPIC, 0, [b"new"])
        worker = Worker(server, kind=kind)
        await worker.source.connect()
        assert await worker.source.read() is not None
        await worker.source.connect()
        server.append(TOPIC, 0, [b"newer"])
        found = [await worker.source.read() for _ in range(4)]
        return [each.offset for batch in found if batch for each in batch.messages]

    assert drive(main())[:2] == [0, 1]


@pytest.mark.parametrize("kind", ["group", "single"])
@pytest.mark.parametrize("old", [1, 3])
@pytest.mark.parametrize("lost", [1, 3])
def test_a_process_that_starts_over_a_log_that_lost_messages_stays_connected(kind: Any, old: int, lost: int) -> None:
    """It never read what is missing: nothing is emptied before its eyes.  And it reads what comes then."""
    server = FakeGroups(1)

    async def main() -> Worker:
        first = Worker(server, kind=kind)
        server.send(0, old)
        await first.turn()
        await first.source.close()
        server.lose_tail(TOPIC, 0, lost)
        worker = Worker(server, kind=kind)
        await pass_seconds(server, [worker], 8)
        server.send(0, 1)
        await pass_seconds(server, [worker], 2)
        return worker

    worker = drive(main())
    assert worker.reconnects == 0
    assert server.partitions[0].end - 1 in worker.seen[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    moves=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 3), st.sampled_from([0.0, 0.01, 0.1, LOOK_SECONDS])),
        min_size=1,
        max_size=12,
    )
)
def test_a_partition_that_comes_back_is_read_after_what_other_members_stored(
    moves: list[tuple[int, int, float]],
) -> None:
    """Else lines that are older than the stored ones overwrite them.  Message 0 may be read twice.

    A member sees at the next look at the latest that it got a partition.
    """
    server = FakeGroups(1)

    async def main() -> None:
        workers = [Worker(server), Worker(server)]
        for worker in workers:
            await worker.turn()
        group = server.groups[GROUP]
        for owner, count, seconds in moves:
            for number, member in group.members.items():
                member.leaving.clear()
                member.partitions = [0] if number == owner else []
            group.generation += 1
            stored = group.stored.get(0, -1)
            server.send(0, count)
            server.tick(seconds)
            for worker in workers:
                read = [each.offset for batch in await worker.turn() for each in batch.messages]
                assert [offset for offset in read if 0 < offset <= stored] == []
            assert seconds < LOOK_SECONDS or group.stored.get(0, -1) == server.partitions[0].end - 1
            server.tick(0.02)

    drive(main())


def test_a_process_whose_group_was_deleted_joins_again() -> None:
    server = FakeGroups(2)

    async def main() -> Worker:
        worker = Worker(server)
        await pass_seconds(server, [worker], 5, range(2))
        del server.groups[GROUP]
        await pass_seconds(server, [worker], 10, range(2))
        return worker

    worker = drive(main())
    assert server.live(GROUP) == {0}
    assert [len(worker.seen[number]) for number in (0, 1)] == [45, 45]


# Whatever happens to a group


class Truth:
    """What a test knows of the partitions: since when each has messages waiting and no progress."""

    def __init__(self, server: FakeGroups) -> None:
        self.server = server
        self.since: dict[int, tuple[int, float]] = {}
        self.past: dict[int, tuple[float, float]] = {}
        self.held: dict[int, tuple[int | None, float]] = {}

    def observe(self) -> None:
        for partition in self.server.numbers:
            group = self.server.groups.get(GROUP)
            stored = group.stored.get(partition, -1) if group else -1
            holder = self.server.holder(GROUP, partition)
            if self.held.get(partition, (-1, 0.0))[0] != holder:
                self.held[partition] = (holder, self.server.now)
            known, begun = self.since.get(partition, (stored, self.server.now))
            if known != stored:
                self.past[partition] = (self.server.now, self.server.now - begun)
            if self.server.waiting(GROUP, partition) <= 0:
                self.since.pop(partition, None)
            elif self.since.get(partition, (None, 0.0))[0] != stored:
                self.since[partition] = (stored, self.server.now)

    def seconds(self, partition: int) -> float:
        return self.server.now - self.since[partition][1] if partition in self.since else 0.0

    def longest(self, partition: int) -> float:
        """As `seconds`, or the time until the last progress, if no look was taken since."""
        ended, seconds = self.past.get(partition, (0.0, 0.0))
        is_recent = self.server.now - ended <= LOOK_SECONDS
        return max(self.seconds(partition), seconds if is_recent else 0.0)

    def seconds_held(self, partition: int, holder: int | None) -> float:
        known, since = self.held[partition]
        return self.server.now - since if known == holder else 0.0


_STEPS = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 25)),
    st.tuples(st.just("busy"), st.sets(st.integers(0, 4), max_size=5)),
    st.tuples(st.just("send"), st.integers(0, 4)),
    st.tuples(st.sampled_from(["kill", "join", "leave", "die"]), st.just(0)),
)


class World:
    """A server, this process, other processes, and traffic; `do` is one step of a script."""

    def __init__(self, server: FakeGroups, start: Start) -> None:
        self.server, self.start = server, start
        self.truth = Truth(server)
        self.busy: set[int] = set()
        self.ours = Worker(server, start=start)
        self.others: list[Worker] = []

    async def do(self, what: str, value: Any) -> None:
        if what == "busy":
            self.busy = {each for each in value if each in self.server.numbers}
        elif what == "send":
            self.server.send(value % len(self.server.numbers), 2)
        elif what == "kill":
            self.server.kill()
        elif what == "join" and len(self.others) < 3:
            self.others.append(Worker(self.server, start=self.start))
        elif what == "leave" and self.others:
            await self.others.pop().source.close()
        elif what == "die" and self.others and (client := self.others.pop().client):
            self.server.disconnect(client)
        for _ in range(value if what == "pass" else 1):
            await self.second()

    async def second(self) -> None:
        for partition in self.busy:
            self.server.send(partition)
        self.truth.observe()
        for worker in [self.ours, *self.others]:
            await worker.turn()
        if self.ours.is_connected:
            self.check()
        self.server.tick(1.0)

    def check(self) -> None:
        (state,) = self.ours.source.groups
        reported = {each.partition.partition: each.holder for each in state.starving}
        group, client = self.server.groups[GROUP], self.ours.client
        if self.is_calm and client:
            assert state.member == group.number_of(client.number)
            assert list(state.partitions) == sorted(group.members[state.member].partitions)
        for partition in reported:
            assert self.truth.longest(partition) >= STARVING_SECONDS - LOOK_SECONDS, (partition, group)
        for partition in self.server.numbers if self.start.kind == "first" else ():
            holder = self.server.holder(GROUP, partition)
            if min(self.truth.seconds(partition), self.ours.seconds_of_membership) < 20:
                continue
            if self.truth.seconds_held(partition, holder) >= GRACE_SECONDS + LOOK_SECONDS:
                assert reported.get(partition, -1) == holder, (reported, group)

    @property
    def is_calm(self) -> bool:
        """Whether no member came or left since the last look."""
        workers = [self.ours, *self.others]
        self.generations = [*getattr(self, "generations", []), self.server.groups[GROUP].generation][-4:]
        return len(self.generations) == 4 and len(set(self.generations)) == 1 and all(w.is_connected for w in workers)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 5),
    st.lists(_STEPS, min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from([Start(), Start("last")]),
)
def test_exactly_what_starves_is_reported_in_time_with_its_holder(
    partitions: int, steps: list[tuple[str, Any]], tells_clients: bool, start: Start
) -> None:
    """Ghosts on any partitions, members that come, work, leave and die, traffic anywhere: our own part is known."""

    async def main() -> None:
        world = World(FakeGroups(partitions, tells_clients=tells_clients), start)
        for what, value in [*steps, ("pass", 25)]:
            await world.do(what, value)

    drive(main())


@given(st.lists(st.tuples(st.floats(0.1, 9.0), st.integers(0, 2) | st.none()), max_size=40))
def test_what_starves_starves_until_there_is_progress_whoever_holds_it(looks: list[tuple[float, int | None]]) -> None:
    """A ghost may hand a partition to the next one; a holder that got what did not starve has some time."""
    watch, now, starved, held = Watch(), 0.0, False, 0.0
    watch.observe(now, {place(0): Look(3, 7, 9)})
    for seconds, holder in [*looks, (1.0, 5)]:
        now += seconds
        before = watch.starving(now)
        held = now if holder != watch._watched[place(0)].look.holder else held
        watch.observe(now, {place(0): Look(3, 7, holder)})
        found = watch.starving(now)
        starved = starved or bool(before) or (now >= STARVING_SECONDS and now - held >= GRACE_SECONDS)
        assert bool(found) == starved
        assert not starved or found[place(0)].holder == holder
        assert not starved or found[place(0)].is_handed_over == (now - held < GRACE_SECONDS)
    watch.observe(now, {place(0): Look(3, 8, 5)})
    assert not watch.starving(now + GRACE_SECONDS + 1)


LOOKS = st.builds(Look, st.sampled_from([1, 5, 6, 0]), st.sampled_from([40, 40, 40, 41]), st.integers(0, 1) | st.none())
NAMES = [Partition("quay", "tides", 10), Partition("quay", "boats", 3), Partition("quay", "tides", 9)]


@given(st.lists(st.tuples(st.sampled_from([1, 2, 5, 10]), st.integers(0, 2), LOOKS), min_size=6, max_size=24))
def test_each_partition_is_judged_by_its_own_looks(drawn: list[tuple[int, int, Look]]) -> None:
    """From its last progress on, and from the last change of its holder on."""
    watch, now, looks = Watch(), 0, dict[Partition, list[tuple[int, Look]]]()

    def held_since(of: list[tuple[int, Look]]) -> int:
        return next((at for (_, a), (at, b) in reversed(list(pairwise(of))) if a.holder != b.holder), of[0][0])

    def starves(of: list[tuple[int, Look]], now: int) -> bool:
        if not of or now - of[0][0] < STARVING_SECONDS:
            return False
        changes = [n for n in range(1, len(of)) if of[n][1].holder != of[n - 1][1].holder]
        return now - held_since(of) >= GRACE_SECONDS or any(starves(of[:n], of[n][0]) for n in changes)

    for seconds, number, look in drawn:
        now += seconds
        seen = looks.setdefault(NAMES[number], [])
        if not look.waiting or (seen and seen[0][1].progress != look.progress):
            seen.clear()
        seen += [(now, look)] if look.waiting else []
        watch.observe(now, {NAMES[number]: look})
        for at in (now, now + 4, now + 5, now + 9, now + 10):
            expected = {
                name: Starving(name, of[-1][1].holder, of[-1][1].waiting, at - of[0][0], at - held_since(of) < 5)
                for name in (NAMES[1], NAMES[2], NAMES[0])
                if (of := looks.get(name, [])) and starves(of, at)
            }
            assert list(watch.starving(at).items()) == list(expected.items())
        assert all(watch.is_stuck(at) == any(of[0][0] <= at for of in looks.values() if of) for at in range(now + 1))


def test_a_live_member_that_writes_nothing_is_reported_a_slow_one_is_not() -> None:
    server = FakeGroups(2)

    async def main() -> tuple[list[str | None], str | None]:
        ours, other = Worker(server), Worker(server)
        await pass_seconds(server, [ours, other], 5)
        server.send(0, 500)
        server.send(1, 500)
        reported: list[str | None] = []
        theirs = next(iter(set(server.numbers) - set(ours.source.groups[0].partitions)))
        for offset in range(12):  # one message in five seconds
            await pass_seconds(server, [ours], 5, [1 - theirs])
            await other.source.ack([Position(place(theirs), offset)])
            reported.append(ours.source.waiting_for)
        await pass_seconds(server, [ours], 16, [1 - theirs])
        return reported, ours.source.waiting_for

    reported, in_the_end = drive(main())
    assert set(reported) == {None}
    assert "starves: member 1 holds it" in (in_the_end or "")


@pytest.mark.parametrize("tells_clients", [True, False])
@pytest.mark.parametrize("busy", [range(4), [1], [0, 2], []], ids=str)
def test_an_exclusive_member_rebuilds_its_group_and_loses_nothing(tells_clients: bool, busy: Sequence[int]) -> None:
    server = FakeGroups(4, tells_clients=tells_clients)

    async def main() -> Worker:
        worker = Worker(server, exclusive=True)
        await pass_seconds(server, [worker], 5, range(4))
        for _ in range(3):
            server.kill()
            await pass_seconds(server, [worker], 20, busy)
        return worker

    worker = drive(main())
    assert [server.waiting(GROUP, partition) for partition in server.numbers] == [0] * 4
    assert [worker.seen[number] for number in server.numbers] == [set(range(each.end)) for each in server.partitions]
    assert worker.source.waiting_for is None
    if busy or tells_clients:
        assert server.live(GROUP) == set(server.groups[GROUP].members) == {0}


@pytest.mark.parametrize("start", [Start(), Start("last"), Start("offset", 3)], ids=str)
@pytest.mark.parametrize(
    "broken", ["delete_consumer_group", "consumer_group", "get_consumer_group", "poll_messages", None]
)
def test_a_rebuild_that_breaks_off_anywhere_loses_nothing(broken: str | None, start: Start) -> None:
    server = FakeGroups(3)
    server.send(1, 5)

    async def main() -> tuple[Worker, list[int]]:
        worker = Worker(server, exclusive=True, start=start)
        await pass_seconds(server, [worker], 5, range(3))
        begun = [min(worker.seen[number]) for number in server.numbers]
        server.kill()
        server.fail_next = broken
        await pass_seconds(server, [worker], 25, range(3))
        return worker, begun

    worker, begun = drive(main())
    for number, (first, each) in enumerate(zip(begun, server.partitions, strict=True)):
        assert worker.seen[number] == set(range(first, each.end))
    assert [server.waiting(GROUP, partition) for partition in server.numbers] == [0] * 3


def test_an_acknowledgement_at_any_moment_of_a_rebuild_is_kept() -> None:
    numbers = set()
    for turns in range(60):
        server = FakeGroups(2)

        async def main(server: FakeGroups = server, turns: int = turns) -> None:
            worker, other = Worker(server, exclusive=True), Worker(server)
            await pass_seconds(server, [worker, other], 3, range(2))
            assert other.client
            server.make_ghost(other.client)
            server.send(0, 9)
            batch = None
            while batch is None:
                batch = await worker.source.read()
            server.tick(2.0)
            reading = asyncio.ensure_future(worker.source.read())
            for _ in range(turns):
                await asyncio.sleep(0)
            await worker.source.ack([batch.last])
            await reading
            await worker.turn()

        drive(main())
        numbers |= set(server.groups[GROUP].members)
        assert server.waiting(GROUP, 0) == 0, turns
    assert numbers == {0}


def test_a_read_that_is_cancelled_leaves_a_whole_group_behind() -> None:
    for turns in range(40):
        server = FakeGroups(3)

        async def main(server: FakeGroups = server, turns: int = turns) -> None:
            worker = Worker(server, exclusive=True)
            await pass_seconds(server, [worker], 3, range(3))
            server.kill()
            await worker.turn(0)  # finds out when it reads
            await worker.source.connect()
            reading = asyncio.ensure_future(worker.source.read())
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await worker.source.close()

        drive(main())
        assert server.groups[GROUP].stored == {0: 8, 1: 8, 2: 8}, turns


def test_an_exclusive_member_rebuilds_no_group_with_another_process() -> None:
    server = FakeGroups(2)

    async def main() -> str | None:
        ours, other = Worker(server, exclusive=True), Worker(server)
        await pass_seconds(server, [ours, other], 4)
        number = server.groups[GROUP].number
        await pass_seconds(server, [ours], 25, range(2))
        assert server.groups[GROUP].number == number
        return ours.source.waiting_for

    assert "despite `exclusive: true`" in (drive(main()) or "")


def test_what_a_member_owns_is_logged_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = FakeGroups(4)

    async def main() -> None:
        ours, other = Worker(server), Worker(server)
        await pass_seconds(server, [ours], 3)
        await pass_seconds(server, [ours, other], 3)
        await other.source.close()
        await pass_seconds(server, [ours], 3)

    drive(main())
    events = [each.getMessage().replace(f"group={GROUP} topic=s/t ", "") for each in caplog.records]
    assert [each for each in events if "partitions_" in each and "member=0" in each] == [
        "iggy.partitions_assigned member=0 partitions=0,1,2,3 holds=0,1,2,3",
        "iggy.partitions_revoked member=0 partitions=2,3 holds=0,1",
        "iggy.partitions_assigned member=0 partitions=2,3 holds=0,1,2,3",
    ]


@pytest.mark.parametrize(("busy", "expected"), [([0, 3], [0]), ([0, 1], [0, 1]), ([2, 3], []), ([], [])], ids=str)
def test_from_outside_it_is_seen_who_starves(busy: list[int], expected: list[int]) -> None:
    """As `check` asks: it joins nothing, and ends at once if nothing waits or all make progress."""
    server = FakeGroups(4)

    async def main() -> tuple[list[Starving], float]:
        worker = Worker(server)
        await pass_seconds(server, [worker], 5, range(4))
        server.kill()
        await pass_seconds(server, [worker], 3, busy)
        begun = server.now
        connection = server.connection(server.settings())
        await connection.open()

        async def work(seconds: float) -> None:
            await pass_seconds(server, [worker], round(seconds), busy)

        found = await find_starving(
            connection,
            ConsumerId("group", GROUP),
            STREAM,
            TOPIC,
            counts_all=True,
            monotonic=server.monotonic,
            sleep=work,
        )
        return found, server.now - begun

    found, seconds = drive(main())
    assert [(each.partition.partition, each.holder) for each in found] == [(number, 0) for number in expected]
    assert seconds <= (11 if expected else 2)
    assert set(server.groups[GROUP].members) == {0, 1}


@pytest.mark.parametrize(("tells_clients", "connected"), [(True, 1), (False, None)])
def test_connected_members_are_known_if_the_server_lists_them(tells_clients: bool, connected: int | None) -> None:
    server = FakeGroups(2, tells_clients=tells_clients)

    async def main() -> tuple[int, int | None]:
        worker, other = Worker(server), Worker(server)
        await pass_seconds(server, [worker, other], 2)
        assert other.client
        server.make_ghost(other.client)
        connection = server.connection(server.settings())
        await connection.open()
        members = await connection.members(STREAM, TOPIC, GROUP)
        return len(members), await connection.connected_members(STREAM, TOPIC, GROUP)

    assert drive(main()) == (2, connected)


@pytest.mark.parametrize("joining", range(5))
def test_a_member_that_joins_while_they_are_counted_hides_no_ghost(joining: int) -> None:
    """Up to this number of members join, each right before the connected ones are counted."""
    server = FakeGroups(8)

    async def main() -> tuple[int, int | None]:
        worker, ghost, *more = workers = [Worker(server) for _ in range(2 + joining)]
        await pass_seconds(server, [worker, ghost], 2)
        assert ghost.client
        server.make_ghost(ghost.client)
        connection = server.connection(server.settings())
        await connection.open()
        count = connection.connected_members

        async def joined_before(*where: str) -> int | None:
            if more:
                await pass_seconds(server, [worker, more.pop()], 2)
            return await count(*where)

        connection.connected_members = joined_before  # type: ignore[method-assign]
        members, connected = await connection.presence(STREAM, TOPIC, GROUP)
        assert len(members) == len(workers) - len(more)
        return len(members), connected

    members, connected = drive(main())
    assert connected == (members - 1 if joining < 3 else None)


@pytest.mark.parametrize("tells_clients", [True, False])
@pytest.mark.parametrize("members", ["none", "ghost", "living"])
def test_regroup_refuses_while_members_are_or_may_be_connected(members: str, tells_clients: bool) -> None:
    server = FakeGroups(2, tells_clients=tells_clients)

    async def main() -> None:
        worker = Worker(server)
        if members != "none":
            await pass_seconds(server, [worker], 2)
        if members == "ghost":
            server.kill()
        connection = server.connection(server.settings())
        await connection.open()
        await refuse_while_connected(connection, STREAM, TOPIC, GROUP)

    if members == "living" or (members == "ghost" and not tells_clients):
        with pytest.raises(Stopped, match="is in use") as refused:
            drive(main())
        assert (refused.value.code, "--yes" in (refused.value.hint or "")) == ("IFX769", True)
    else:
        drive(main())


@pytest.mark.parametrize("broken", ["delete_consumer_group", "consumer_group"])
def test_regroup_that_breaks_off_says_the_offsets(broken: str) -> None:
    server = FakeGroups(2)

    async def main() -> None:
        await pass_seconds(server, [Worker(server)], 3, range(2))
        server.kill()
        connection = server.connection(server.settings())
        await connection.open()
        server.fail_next = broken
        await regroup(connection, STREAM, TOPIC, GROUP)

    with pytest.raises(Stopped, match="was not rebuilt") as stopped:
        drive(main())
    assert (stopped.value.code, "{0: 8, 1: 8}" in (stopped.value.hint or "")) == ("IFX768", True)


def test_live_processes_rejoin_after_a_regroup_and_nothing_is_lost() -> None:
    server = FakeGroups(4)

    async def main() -> list[Worker]:
        workers = [Worker(server, start=Start("last")) for _ in range(2)]
        server.send(0, 3)
        await pass_seconds(server, workers, 5, range(4))
        connection = server.connection(server.settings())
        await connection.open()
        await regroup(connection, STREAM, TOPIC, GROUP)
        await connection.close()
        await pass_seconds(server, workers, 10, range(4))
        return workers

    workers = drive(main())
    for number in server.numbers:
        seen = set.union(*(worker.seen[number] for worker in workers))
        assert seen == set(range(min(seen), server.partitions[number].end))
    assert server.live(GROUP) == {0, 1}


@given(st.binary(max_size=80))
def test_any_answer_is_understood_or_a_value_error(answer: bytes) -> None:
    for parse in (wire.parse_assignment, wire.parse_clients, wire.parse_client_groups):
        with suppress(ValueError):
            parse(answer)


# Sharing evenly


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10), st.integers(2, 4), st.data())
def test_members_that_join_at_any_moment_share_evenly_in_the_end_and_lose_nothing(
    partitions: int, members: int, data: st.DataObject
) -> None:
    """Several join while what the first one polled is not stored: the server then shares unevenly, for good."""
    server = FakeGroups(partitions)
    busy = data.draw(st.sets(st.integers(0, partitions - 1)))
    workers = [Worker(server) for _ in range(members)]
    together = data.draw(st.integers(0, members))

    async def main() -> None:
        await pass_seconds(server, workers[: members - together], 3, range(partitions))
        group = server.groups.get(GROUP)
        for partition in data.draw(st.sets(st.integers(0, partitions - 1))) if group else ():
            group.polled[partition] = server.partitions[partition].end + 10  # as if it was not all stored yet
        for worker in workers:
            await worker.turn(1)
        await pass_seconds(server, workers, 80, sorted(busy))

    drive(main())
    sizes = [len(each.partitions) for each in server.groups[GROUP].members.values()]
    assert len(sizes) == members
    assert max(sizes) - min(sizes) <= 1
    assert sum(worker.reconnects for worker in workers) <= 1
    for partition in server.numbers:
        assert server.waiting(GROUP, partition) == 0 or not server.partitions[partition].end


# Large groups


@given(st.sets(st.integers(0, 300), min_size=1, max_size=60), st.integers(1, 600))
def test_each_partition_is_watched_by_a_member_that_does_not_hold_it(members: set[int], partitions: int) -> None:
    numbers = sorted(members)
    parts = {member: set(watched_by(member, members, range(partitions))) for member in numbers}
    for partition in range(partitions):
        assert sum(partition in part for part in parts.values()) >= min(4, len(members))
    if len(members) >= 4 * (partitions // 32 + 1):
        assert max(map(len, parts.values())) <= 32


def test_a_large_group_asks_the_server_little_for_each_member_and_misses_no_ghost() -> None:
    server = FakeGroups(160)
    calls = 0

    async def pass_time(workers: Sequence[Worker], seconds: int) -> None:
        for _ in range(seconds):
            for worker in workers:
                await worker.turn(3)
            server.tick(1.0)

    async def main() -> list[Worker]:
        nonlocal calls
        workers = [Worker(server) for _ in range(10)]
        await pass_time(workers, 6)
        ghost = workers.pop()
        assert ghost.client is not None
        server.make_ghost(ghost.client)
        asked = FakeClient._offset

        def count(client: FakeClient, body: bytes) -> bytes:
            nonlocal calls
            calls += 1
            return asked(client, body)

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(_BINARY, 120, count)
            for partition in server.numbers:
                server.send(partition, 3)
            await pass_time(workers, 20)
        return workers

    workers = drive(main())
    held = {each for each in server.numbers if server.holder(GROUP, each) not in server.live(GROUP)}
    found = {
        each.partition.partition for worker in workers for group in worker.source.groups for each in group.starving
    }
    assert found == held
    assert calls / 20 / len(workers) < 25


def test_partitions_of_other_members_are_polled_twenty_times_a_second_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    server, polls = FakeGroups(8), {True: 0, False: 0}
    poll = FakeClient.poll_messages

    async def count(client: FakeClient, stream: str, topic: str, *, partition_id: int, **more: Any) -> Any:
        number = server.groups[GROUP].number_of(client.number)
        polls[number == server.holder(GROUP, partition_id)] += 1
        return await poll(client, stream, topic, partition_id=partition_id, **more)

    async def main() -> None:
        workers = [Worker(server) for _ in range(2)]
        await pass_seconds(server, workers, 5)
        monkeypatch.setattr(FakeClient, "poll_messages", count)
        for _ in range(1000):
            for worker in workers:
                await worker.turn(1)
            server.tick(0.01)

    drive(main())
    assert 0 < polls[False] <= 2 * 10 * 20
    assert polls[True] > 2 * 10 * 100
