"""What is in flight: what may be acknowledged, when, and what is kept of it until then."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.delivery.settled import Interval
from iggyflux.records import Batch, Message, Partition, Position, Rendered
from iggyflux.runner import ledger as ledgers
from iggyflux.runner.ledger import Job, Ledger
from iggyflux.telemetry.tracing import NO_TRACE, Trace

HERE = Partition("s", "t", 0)


@pytest.mark.parametrize("end", [None, 5_000])
def test_parts_of_a_batch_move_the_position_only_where_the_source_has_one(end: int | None) -> None:
    """A file counts bytes: it has a position after the whole batch only."""
    whole = Batch(HERE, [Message(b"", offset=offset) for offset in range(10, 20)], end)
    ledger = Ledger()
    jobs = [Job(whole.part(start, stop), Rendered(), 0) for start, stop in ((0, 3), (3, 4), (4, 10))]
    taken = []
    for job in jobs:
        ledger.begin(job)
    for job in jobs:
        ledger.settle(job)
        taken.append(ledger.take())

    positions = [[position.offset for position in each.positions] for each in taken]
    assert positions == ([[12], [13], [19]] if end is None else [[], [], [end]])
    assert [each.messages for each in taken] == ([3, 1, 6] if end is None else [0, 0, 10])


class _Lines(list[str]):
    """Lines that can be looked for."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_what_is_settled_is_not_kept_until_it_is_acknowledged() -> None:
    """A source that acknowledges slowly is read on, however much that is."""
    ledger, kept = Ledger(), weakref.WeakSet[_Lines]()
    ledger.begin(Job(Batch(HERE, [Message(b"", offset=0)]), Rendered(), 0))
    for offset in range(1, 9):
        job = Job(Batch(HERE, [Message(b"", offset=offset)]), Rendered(_Lines(["m n=1"])), 1)
        kept.add(job.rendered.lines)
        ledger.begin(job)
        ledger.settle(job)
    del job
    gc.collect()

    assert len(kept) == 0


@dataclass(frozen=True)
class Drawn:
    """A batch, by what of it counts here; `intervals` have a plan, a first offset and a number of messages."""

    partition: int
    messages: int
    has_position: bool
    is_traced: bool
    intervals: list[tuple[str, int, int]]


@dataclass
class Modelled:
    """What the model knows of a batch."""

    job: Job
    noted: list[tuple[str, Interval]]
    is_settled: bool = False


def joined(noted: list[tuple[str, Interval]]) -> list[tuple[str, Interval]]:
    """Return intervals in which those of one plan are one that follow each other and have no gap between them."""
    found: list[tuple[str, Interval]] = []
    for plan, each in noted:
        if found and found[-1][0] == plan and found[-1][1].last + 1 == each.first:
            found[-1] = plan, found[-1][1].joined(each)
        else:
            found.append((plan, each))
    return found


SMALL = st.integers(0, 3)
DRAWN = st.builds(
    Drawn,
    st.sampled_from([3, 3, 4]),
    st.integers(1, 4),
    st.sampled_from([True, True, False]),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(["slate", "chalk"]), SMALL, st.integers(1, 3)), max_size=3),
)
SETTLES = st.sampled_from([(), (-1,), (-1,), (-1, -2), (1,), (0, 2)])
"""Which of the batches in flight are settled."""


@settings(deadline=None)
@given(st.sampled_from([1, 3, 1000]), st.lists(st.tuples(DRAWN, SETTLES, st.booleans()), min_size=9, max_size=24))
def test_what_may_be_acknowledged_is_what_is_settled_without_a_gap_up_to_a_position(
    fewest: int, drawn: list[tuple[Drawn, tuple[int, ...], bool]]
) -> None:
    """Whether settled entries are joined meanwhile changes nothing.  In the end everything is settled."""
    ledger, queues, offsets = Ledger(), dict[Partition, list[Modelled]](), dict[int, int]()
    in_flight: list[Modelled] = []

    def settle(at: int) -> None:
        done = in_flight.pop(at)
        ledger.settle(done.job, done.noted)
        done.is_settled = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "_FEWEST_JOINED", fewest)
        for batch, settles, takes in drawn:
            here, first = Partition("quay", "logs", batch.partition), offsets.get(batch.partition, 0)
            offsets[batch.partition] = first + batch.messages
            read = Batch(here, [message(first + at) for at in range(batch.messages)], has_position=batch.has_position)
            job = Job(read, Rendered(), 0, trace=Trace() if batch.is_traced else NO_TRACE)
            noted = [(plan, Interval(first + at, first + at + n - 1, n)) for plan, at, n in batch.intervals]
            ledger.begin(job)
            in_flight.append(Modelled(job, noted))
            queues.setdefault(here, []).append(in_flight[-1])
            for at in settles:
                if -len(in_flight) <= at < len(in_flight):
                    settle(at)
            if takes:
                assert_taken(ledger, queues)
            assert ledger.unsettled_bytes == sum(each.job.batch.payload_bytes for each in in_flight)
        while in_flight:
            settle(0)
        assert_taken(ledger, queues)
        assert ledger.unsettled_bytes == 0


def message(offset: int) -> Message:
    return Message(b"x" * (offset % 7), offset=offset, timestamp_us=900 + offset)


def assert_taken(ledger: Ledger, queues: dict[Partition, list[Modelled]]) -> None:
    """Take what may be acknowledged and compare it with the model, from which it is removed."""
    taken = ledger.take()
    positions, messages, arrivals, traces = list[Position](), 0, list[float](), list[Trace]()
    for here, queue in queues.items():
        settled = next((at for at, each in enumerate(queue) if not each.is_settled), len(queue))
        ends = [at for at, each in enumerate(queue[:settled], 1) if each.job.batch.last is not None]
        gone, queue[:] = queue[: ends[-1] if ends else 0], queue[ends[-1] if ends else 0 :]
        for each in gone:
            messages += len(each.job.messages)
            arrivals.append(each.job.messages[0].timestamp_us)
            traces += [each.job.trace] if each.job.trace is not NO_TRACE else []
        if gone and (last := gone[-1].job.batch.last) is not None:
            positions.append(last)
        noted = [interval for place, interval in taken.intervals if place == here]
        assert joined(noted) == joined([interval for each in gone for interval in each.noted])
    assert (taken.positions, taken.messages, taken.arrivals) == (positions, messages, arrivals)
    assert list(map(id, taken.traces)) == list(map(id, traces))
    assert {place for place, _ in taken.intervals} <= set(queues)


def test_a_dead_bucket_for_a_day_does_not_fill_the_memory() -> None:
    """One batch is not settled; of all after it there is one entry, with a number for each batch."""
    ledger = Ledger()
    ledger.begin(Job(Batch(HERE, [Message(b"", offset=0)]), Rendered(), 1))
    for offset in range(1, 20_000):
        job = Job(Batch(HERE, [Message(b"", offset=offset)]), Rendered(), 0)
        ledger.begin(job)
        ledger.settle(job, [("p", Interval(offset, offset))])
        assert ledger.take().messages == 0

    (queue,) = ledger._queues.values()
    assert len(queue) <= 1001
    assert sum(len(entry.intervals) for entry in queue) <= 1001


def test_entries_that_cannot_be_joined_are_not_looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a queue that grows, each entry is looked at a few times in all."""
    looked: list[int] = []
    join = ledgers._joined

    def counting(entries: Any) -> Any:
        looked.append(len(entries))
        return join(entries)

    monkeypatch.setattr(ledgers, "_joined", counting)
    ledger = Ledger()
    for offset in range(6_000):
        job = Job(Batch(HERE, [Message(b"", offset=offset)]), Rendered(), 1)
        ledger.begin(job)
        if offset % 2:
            ledger.settle(job)
        ledger.take()

    assert looked
    assert sum(looked) < 3 * 6_000


@pytest.mark.parametrize("stream", ["", "jetty"])
def test_a_message_is_named_by_its_own_coordinates_if_it_has_them(stream: str) -> None:
    """Those of a file have none; those of one read may be of several topics."""
    job = Job(Batch(HERE, [Message(b""), Message(b"", stream, "cranes", 6, 71)]), Rendered(), 0)

    assert job.place_of(1) == Position(Partition("jetty", "cranes", 6) if stream else HERE, 71)
