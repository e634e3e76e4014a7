"""The runner's table, row by row, with scripted transports; then random scripts of faults."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.retry import Policy
from iggyflux.delivery.verdicts import Accepted, Impossible, Refusal, Refused, TooLarge, Unavailable, Verdict
from iggyflux.errors import EndOfInput, NotConnected, Stopped
from iggyflux.mapping import OnError
from iggyflux.records import Batch, DeadLetter, Failure, Message, Partition, Position, Reason, Rendered
from iggyflux.runner import Route, RouteStatus, Status, Stop, Summary, run_routes
from iggyflux.runner.footprint import Footprint
from iggyflux.runner.ledger import Job, Share
from iggyflux.runner.requests import MOST_PAYLOAD_BYTES, LineRange, RequestBuilder
from iggyflux.runner.route import WriterPlan
from iggyflux.runner.series_guard import SeriesGuard, series_state
from iggyflux.runner.statistics import HISTOGRAMS
from iggyflux.runner.status import InputStatus, ReaderStatus
from iggyflux.runner.stop import StopRequested
from iggyflux.runner.writer_run import _ACK_INTERVAL_SECONDS, WriterRun, _worst
from iggyflux.transports.base import GroupState
from iggyflux.transports.local.memory import (
    CollectingDeadLetters,
    ImmediateClock,
    ScriptedSink,
    ScriptedSource,
    batch,
)


class EchoPlan(WriterPlan):
    """A plan whose payload says what happens: `bad…` fails, `skip…` skips, `none…` is empty, `two…` is two lines."""

    identity = "0123"

    def render(self, messages: Sequence[Message]) -> Rendered:
        lines: list[str] = []
        origins: list[int] = []
        failures: list[Failure] = []
        skipped: list[int] = []
        empty: list[int] = []
        for index, message in enumerate(messages):
            text = message.payload.decode()
            made = [f'm v="{text}" {message.partition}{message.offset:06d}']
            if text.startswith("skip"):
                skipped.append(index)
                continue
            if text.startswith("none"):
                empty.append(index)
                continue
            if text.startswith("bad"):
                failures.append(Failure(index, None, 0, "IFX301", "/points/0/fields/v", f"{text} is bad"))
                continue
            if text.startswith("two"):
                made.append(f'n v="{text}" {message.partition}{message.offset:06d}')
            lines += made
            origins += [index] * len(made)
        return Rendered(lines, origins, failures, skipped, empty)


class _PerSeries(WriterPlan):
    """A plan whose payloads are series."""

    def render(self, messages: Sequence[Message]) -> Rendered:
        lines = [f"{message.payload.decode()} v=1 {message.offset}" for message in messages]
        return Rendered(lines, range(len(lines)))


def expected_lines(batches: Iterable[Batch]) -> set[str]:
    return {line for each in batches for line in EchoPlan().render(each.messages).lines}


def route(
    source: ScriptedSource, sink: ScriptedSink, letters: CollectingDeadLetters | None = None, **more: object
) -> Route:
    values: dict[str, object] = {
        "name": "r",
        "source": source,
        "plan": EchoPlan(),
        "sink": sink,
        "dead_letters": letters or CollectingDeadLetters(),
        "mapping": "m",
        "policy": Policy(retry_backoff_seconds=0.1),
    }
    return Route(**{**values, **more})  # type: ignore[arg-type]


async def names_of_tasks() -> set[str]:
    """Return the functions of the tasks that are left when those that were cancelled have ended."""
    for _ in range(5):
        await asyncio.sleep(0)
    return {each.get_coro().__qualname__.rpartition("<locals>.")[2] for each in asyncio.all_tasks()}  # type: ignore[union-attr]


def run(
    *routes: Route,
    stop: Callable[[Stop], Awaitable[None]] | None = None,
    deadline: float = 30.0,
    clock: ImmediateClock | None = None,
    status: Status | None = None,
) -> Summary:
    async def main() -> Summary:
        wish = Stop()
        stopper = asyncio.ensure_future(stop(wish)) if stop else None
        try:
            return await run_routes(
                routes,
                stop=wish,
                status=status,
                clock=clock or ImmediateClock(),
                tick_seconds=None,
                shutdown_timeout_seconds=deadline,
            )
        finally:
            if stopper:
                await stopper
            assert await names_of_tasks() <= {"main", "ImmediateClock._wake", "wait_for"}

    return asyncio.run(asyncio.wait_for(main(), 20))


def payloads(count: int, text: str = "p") -> list[bytes]:
    return [f"{text}{index}".encode() for index in range(count)]


FIRST = batch(payloads(3))
SECOND = batch(payloads(3), offset=3)
HERE = Partition("s", "t", 0)


def test_every_batch_is_delivered_and_acknowledged_in_order() -> None:
    source, sink = ScriptedSource([FIRST, SECOND]), ScriptedSink()

    summary = run(route(source, sink))

    assert set(sink.stored) == expected_lines([FIRST, SECOND])
    assert source.settled == {HERE: 5}
    assert summary.exit_code == 0
    assert summary.routes[0].counters() | {"requests": 0} == {
        "read": 6, "points": 6, "delivered": 6, "skipped": 0, "empty": 0, "omitted": 0, "failed": 0, "refused": 0,
        "dead_letters": 0, "dropped": 0, "collisions": 0, "removed_replayed": 0, "removed_letters": 0, "implausible": 6,
        "too_old": 0, "fallbacks": 0, "undeclared": 0,
        "acknowledged": 6, "requests": 0, "retries": 0, "reconnects": 0, "read_bytes": 12, "sent_bytes": 0,
    }  # fmt: skip
    assert source.closed
    assert sink.closed


def test_small_batches_of_several_partitions_are_joined_into_one_request() -> None:
    """`given_multiple_messages_should_batch_into_single_request`, in the runner."""
    other = batch(payloads(3, "q"), partition=1)
    source, sink = ScriptedSource([FIRST, other, SECOND]), ScriptedSink()

    run(route(source, sink))

    assert len(sink.writes) == 1
    assert source.settled == {HERE: 5, Partition("s", "t", 1): 2}


def test_a_batch_without_lines_is_settled_without_a_request() -> None:
    source, sink = ScriptedSource([batch([b"skip", b"skip", b"none"]), batch([b"none"], offset=3)]), ScriptedSink()

    summary = run(route(source, sink))

    assert sink.writes == []
    assert source.settled == {HERE: 3}
    assert (summary.routes[0].skipped, summary.routes[0].empty) == (2, 2)


def test_batches_that_generated_code_could_not_render_are_counted() -> None:
    class Faulty(EchoPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            return dataclasses.replace(super().render(messages), fallback="ZeroDivisionError in line 3")

    summary = run(route(ScriptedSource([FIRST, SECOND]), ScriptedSink(), plan=Faulty()))

    assert summary.routes[0].fallbacks == 2


def test_values_that_were_left_out_are_counted() -> None:
    class Omitting(EchoPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            omitted = [Failure(0, None, 0, "IFX301", "/points/0/fields/w", "not a number")] * len(messages)
            return dataclasses.replace(super().render(messages), omitted=omitted)

    summary = run(route(ScriptedSource([FIRST, SECOND]), ScriptedSink(), plan=Omitting()))

    assert (summary.routes[0].omitted, summary.routes[0].delivered) == (6, 6)


def test_failures_to_connect_are_counted_from_the_last_connection() -> None:
    """`on_unavailable: stop` ends a server that stays away, not one that was away twice."""
    policy = Policy(retry_backoff_seconds=0.1, max_retries=2, on_unavailable="stop")
    away = [NotConnected("away")] * 2
    sink = ScriptedSink(connects=[*away, None, *away, None])  # type: ignore[list-item]
    source = ScriptedSource([FIRST, NotConnected("gone"), SECOND])  # type: ignore[list-item]

    summary = run(route(source, sink, policy=policy, until_end=True))

    assert summary.exit_code == 0
    assert set(sink.stored) == expected_lines([FIRST, SECOND])


def test_a_connection_that_fails_is_retried() -> None:
    source = ScriptedSource([FIRST], connects=[NotConnected("no")] * 3)
    sink = ScriptedSink(connects=[NotConnected("not yet")])

    summary = run(route(source, sink))

    assert source.settled == {HERE: 2}
    assert summary.routes[0].reconnects == 3


@pytest.mark.parametrize("where", ["source", "sink"])
def test_a_connection_that_needs_a_person_stops_the_route(where: str) -> None:
    fault = [Stopped("no such bucket", "make it", "IFX612")]
    source = ScriptedSource([FIRST], connects=fault if where == "source" else [])
    sink = ScriptedSink(connects=fault if where == "sink" else [])

    summary = run(route(source, sink))

    assert summary.exit_code == 3
    assert [error.code for error in summary.errors] == ["IFX612"]
    assert source.settled == {}
    assert source.closed


def test_a_poll_without_messages_does_not_end_the_route() -> None:
    source, sink = ScriptedSource([None, None, FIRST, None, SECOND, None]), ScriptedSink()

    run(route(source, sink))

    assert source.settled == {HERE: 5}


class _Watching(ScriptedSource):
    """A source that notes at each read what the status says, and what is acknowledged."""

    def __init__(self, script: Iterable[Batch | Exception | None], **more: Any) -> None:
        super().__init__(script, **more)
        self.status = Status()
        self.seen: list[tuple[str, int]] = []

    async def read(self) -> Batch | None:
        self.seen.append((self.status.routes[0].state, sum(self.settled.values())))
        return await super().read()


def test_what_is_settled_is_acknowledged_while_the_route_waits_for_more() -> None:
    """A process that is killed a day later must not read all of that day again."""
    source = _Watching([FIRST, *[None] * 20, SECOND, *[None] * 20])

    run(route(source, ScriptedSink(), linger_seconds=0.1), status=source.status)

    assert [settled for _, settled in source.seen[::20]] == [0, 2, 5]


def test_a_route_is_running_until_a_poll_brings_nothing_and_nothing_is_in_flight() -> None:
    gate = asyncio.Event()

    async def slow(lines: Sequence[str]) -> Verdict:
        await gate.wait()
        return Accepted()

    class Opening(_Watching):
        async def read(self) -> Batch | None:
            if len(self.seen) == 5:
                gate.set()
            return await super().read()

    source = Opening([FIRST, None, None, None, None, None, None, SECOND])

    run(route(source, ScriptedSink([slow]), batch_size=3), status=source.status)

    states = [state for state, _ in source.seen]
    assert states == [*["running"] * 6, "idle", "idle", "running"]


def test_a_quiet_source_is_polled_ever_less_often_until_messages_come() -> None:
    """A message after a quiet time waits for a quarter of a second at most, and nothing else wakes the process."""
    clock, source = ImmediateClock(), ScriptedSource([*[None] * 9, FIRST, *[None] * 3])

    run(route(source, ScriptedSink(), linger_seconds=0.0), clock=clock)

    assert clock.slept.count(_ACK_INTERVAL_SECONDS) <= 1
    waits = [seconds for seconds in clock.slept if seconds != _ACK_INTERVAL_SECONDS]
    assert waits == [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.25, 0.25, 0.005, 0.01, 0.02]


def test_the_status_shows_the_groups_of_the_source() -> None:
    class Member(ScriptedSource):
        groups = (GroupState("class", "s", "t", 7, (0, 1)),)

    summary = run(route(Member([FIRST]), ScriptedSink()))

    assert summary.routes[0].groups == Member.groups


def test_the_series_of_a_writer_with_a_limit_are_counted_and_kept_for_the_next_run(tmp_path: Path) -> None:
    """Also in one process: the first run has released what it locked."""
    counts = []
    for payload in (b"from", b"global", b"from"):
        guard = SeriesGuard("r", 9, "stop", series_state(tmp_path, "r"))
        source = ScriptedSource([batch([payload])])
        summary = run(route(source, ScriptedSink(), plan=_PerSeries(), series=guard))
        assert summary.exit_code == 0
        counts.append((summary.routes[0].series, summary.routes[0].series_limit))

    assert counts == [(1, 9), (2, 9), (2, 9)]


def test_what_lingers_is_sent_after_the_linger_time() -> None:
    """With more than `linger` between two reads the first batch goes out alone."""
    source, sink = ScriptedSource([FIRST, *[None] * 20, SECOND]), ScriptedSink()

    run(route(source, sink, linger_seconds=0.5))

    assert len(sink.writes) == 2


def test_without_a_linger_time_each_batch_is_sent_alone() -> None:
    source, sink = ScriptedSource([FIRST, SECOND, batch(payloads(3), offset=6)]), ScriptedSink()

    run(route(source, sink, linger_seconds=0.0))

    assert len(sink.writes) == 3


def test_what_lingers_is_sent_in_time_while_more_messages_arrive() -> None:
    clock = ImmediateClock()

    class SlowPlan(EchoPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            clock.now += 0.3
            return super().render(messages)

    source, sink = ScriptedSource([batch(payloads(1), offset=index) for index in range(9)]), ScriptedSink()

    run(route(source, sink, plan=SlowPlan(), linger_seconds=0.5), clock=clock)

    assert [len(lines) for lines in sink.writes] == [3, 3, 3]


def test_a_source_that_loses_its_connection_is_read_again_from_what_was_acknowledged() -> None:
    source, sink = ScriptedSource([FIRST, NotConnected("reset"), SECOND]), ScriptedSink()

    summary = run(route(source, sink))

    assert set(sink.stored) == expected_lines([FIRST, SECOND])
    assert source.settled == {HERE: 5}
    assert summary.routes[0].reconnects == 1


def test_what_was_read_before_a_fault_of_the_source_is_settled_first() -> None:
    """A damaged message must not keep those before it from being delivered, run after run."""
    fault = Stopped("damaged at s/t/0@6", "restore a backup", "IFX705")
    source, sink = ScriptedSource([FIRST, SECOND, fault]), ScriptedSink()

    summary = run(route(source, sink))

    assert set(sink.stored) == expected_lines([FIRST, SECOND])
    assert source.settled == {HERE: 5}
    assert [error.code for error in summary.errors] == ["IFX705"]
    assert summary.exit_code == 3


def test_what_was_read_before_a_fault_of_the_source_is_settled_although_the_connection_is_lost_meanwhile() -> None:
    fault = Stopped("damaged at s/t/0@3", "restore a backup", "IFX705")
    source = ScriptedSource([FIRST, fault, fault], acks=[NotConnected("reset")])

    summary = run(route(source, ScriptedSink()))

    assert source.settled == {HERE: 2}
    assert summary.errors == (fault,)


def test_a_fault_of_the_source_that_is_over_after_a_lost_connection_is_not_the_end_of_the_run() -> None:
    fault = Stopped("damaged at s/t/0@3", "restore a backup", "IFX705")
    source = ScriptedSource([FIRST, fault, SECOND], acks=[NotConnected("reset")])

    summary = run(route(source, ScriptedSink()))

    assert source.settled == {HERE: 5}
    assert (summary.errors, summary.exit_code, summary.routes[0].state) == ((), 0, "done")


@pytest.mark.parametrize(("read", "answer"), [(Stopped("damaged"), Accepted()), (None, Impossible("401"))])
def test_a_run_raises_what_stops_it(read: Stopped | None, answer: Verdict) -> None:
    given = route(ScriptedSource([FIRST, read]), ScriptedSink([answer]))

    with pytest.raises(Stopped, match="damaged" if read else "401"):
        asyncio.run(WriterRun(given, RouteStatus("r"), Stop(), ImmediateClock()).run())


def test_a_batch_whose_acknowledgement_fails_is_read_again() -> None:
    source, sink = ScriptedSource([FIRST, SECOND], acks=[NotConnected("reset")]), ScriptedSink()

    summary = run(route(source, sink))

    assert source.settled == {HERE: 5}
    assert set(sink.stored) == expected_lines([FIRST, SECOND])
    assert summary.routes[0].acknowledged == 6


def test_acknowledgements_are_a_tenth_of_a_second_apart_but_for_the_last_one() -> None:
    clock, times = ImmediateClock(), []

    class Noting(ScriptedSource):
        async def ack(self, positions: Sequence[Position]) -> None:
            times.append(clock.now)
            await super().ack(positions)

    source = Noting([batch([b"skip"], offset=offset) for offset in range(200)])

    run(route(source, ScriptedSink()), clock=clock)

    assert source.settled == {HERE: 199}
    assert len(times) > 5
    assert all(later - earlier >= _ACK_INTERVAL_SECONDS - 1e-9 for earlier, later in pairwise(times[:-1]))


RANKS = (KeyError("bug"), Stopped("401"), StopRequested(), NotConnected("reset"))


@given(
    st.recursive(
        st.sampled_from(RANKS),
        lambda errors: st.lists(errors, min_size=1, max_size=4).map(lambda some: BaseExceptionGroup("", some)),
    ).filter(lambda error: isinstance(error, BaseExceptionGroup))
)
def test_of_several_errors_a_bug_decides_before_what_stops_and_a_lost_connection_last(
    errors: BaseExceptionGroup[BaseException],
) -> None:
    assert _worst(errors) is next(each for each in RANKS if errors.subgroup(type(each)))


def test_failed_records_become_dead_letters_and_their_siblings_are_sent() -> None:
    bad = batch([b"one", b"bad", b"two"])
    source, sink, letters = ScriptedSource([bad]), ScriptedSink(), CollectingDeadLetters()

    summary = run(route(source, sink, letters))

    assert set(sink.stored) == expected_lines([bad])
    assert [letter.message for letter in letters.letters] == [bad.messages[1]]
    assert letters.letters[0].reasons == (Reason("IFX301", "bad is bad", "/points/0/fields/v", None, 0),)
    assert (letters.letters[0].mapping, letters.letters[0].plan) == ("m", "0123")
    assert source.settled == {HERE: 2}
    assert summary.routes[0].dead_letters == 1


def test_a_batch_of_failed_records_only_is_settled_when_they_are_kept() -> None:
    source, letters = ScriptedSource([batch([b"bad1", b"bad2"])]), CollectingDeadLetters()

    run(route(source, ScriptedSink(), letters))

    assert len(letters.letters) == 2
    assert source.settled == {HERE: 1}


def test_rule_21_skip_acknowledges_failed_records_and_counts_them() -> None:
    source, letters = ScriptedSource([batch([b"one", b"bad"])]), CollectingDeadLetters()

    summary = run(route(source, ScriptedSink(), letters, on_error=OnError.SKIP))

    assert letters.letters == []
    assert source.settled == {HERE: 1}
    assert summary.routes[0].dropped == 1


def test_rule_21_fail_stops_and_acknowledges_nothing_of_the_batch() -> None:
    source = ScriptedSource([batch([b"one", b"bad"])])

    summary = run(route(source, ScriptedSink(), on_error=OnError.FAIL))

    assert source.settled == {}
    assert summary.exit_code == 3
    assert summary.errors[0].code == "IFX620"
    assert "s/t/0@1: IFX301: bad is bad at /points/0/fields/v" in summary.errors[0].reason


def test_refused_lines_become_dead_letters_of_their_messages() -> None:
    source, letters = ScriptedSource([FIRST, SECOND]), CollectingDeadLetters()
    sink = ScriptedSink([Refused((Refusal(1, "no", 400), Refusal(4, "never", 422)), rest_stored=True)])

    summary = run(route(source, sink, letters))

    assert [letter.message.offset for letter in letters.letters] == [1, 4]
    assert letters.letters[1].reasons == (Reason("IFX601", "never", line='m v="p1" 0000004', status=422),)
    assert source.settled == {HERE: 5}
    assert (summary.routes[0].refused, summary.routes[0].delivered) == (2, 4)


def test_a_message_with_a_failure_and_a_refused_line_is_kept_once_with_both_reasons() -> None:
    class Half(WriterPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            return Rendered(["m v=1 1"], [0], [Failure(0, 1, 0, "IFX301", "/x", "half")])

    source, letters = ScriptedSource([batch([b"x"])]), CollectingDeadLetters()
    sink = ScriptedSink([Refused((Refusal(0, "no", 400),), rest_stored=True)])

    run(route(source, sink, letters, plan=Half()))

    assert [[reason.code for reason in letter.reasons] for letter in letters.letters] == [["IFX301", "IFX601"]]


@pytest.mark.parametrize("policy", [OnError.SKIP, OnError.FAIL])
def test_rule_21_holds_for_refused_lines_too(policy: OnError) -> None:
    source = ScriptedSource([FIRST])
    sink = ScriptedSink([Refused((Refusal(1, "no", 400),), rest_stored=True)])

    summary = run(route(source, sink, on_error=policy))

    assert source.settled == ({HERE: 2} if policy is OnError.SKIP else {})
    assert summary.exit_code == (0 if policy is OnError.SKIP else 3)
    assert summary.routes[0].dropped == (1 if policy is OnError.SKIP else 0)


@pytest.mark.parametrize(
    "verdict", [Unavailable("503", 503), Unavailable("reset", connection_died=True), TooLarge("413")]
)
def test_a_sink_that_is_unavailable_is_retried_until_it_accepts_everything(verdict: Verdict) -> None:
    source, sink = ScriptedSource([FIRST, SECOND]), ScriptedSink([verdict])

    run(route(source, sink))

    assert set(sink.stored) == expected_lines([FIRST, SECOND])
    assert source.settled == {HERE: 5}


def test_an_answer_that_needs_a_person_stops_and_nothing_in_flight_is_acknowledged() -> None:
    source, sink = ScriptedSource([FIRST]), ScriptedSink([Impossible("401", "renew the token")])

    summary = run(route(source, sink))

    assert source.settled == {}
    assert summary.errors[0].hint == "renew the token"


def test_a_dead_letter_store_that_is_full_stops_the_route() -> None:
    source, letters = ScriptedSource([batch([b"bad"])]), CollectingDeadLetters([Stopped("full", code="IFX715")])

    summary = run(route(source, ScriptedSink(), letters))

    assert source.settled == {}
    assert summary.errors[0].code == "IFX715"


@pytest.mark.parametrize("fault", [None, NotConnected("away"), Stopped("full", code="IFX715")])
def test_nothing_is_acknowledged_before_its_dead_letter_is_kept(fault: Exception | None) -> None:
    """However long that takes: an acknowledgement would be done meanwhile."""
    source, letters = ScriptedSource([batch([b"one", b"bad"])]), CollectingDeadLetters([fault])
    put, settled = letters.put, []

    async def slow(found: Sequence[DeadLetter]) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        settled.append(source.settled)
        await put(found)

    letters.put = slow  # type: ignore[method-assign]
    summary = run(route(source, ScriptedSink(), letters))

    assert settled == [{}] * (2 if isinstance(fault, NotConnected) else 1)
    is_kept = not isinstance(fault, Stopped)
    assert len(letters.letters) == is_kept
    assert source.settled == ({HERE: 1} if is_kept else {})
    assert summary.routes[0].reconnects == isinstance(fault, NotConnected)


def test_requests_overlap_up_to_the_limit_and_are_acknowledged_in_order() -> None:
    """The first request is answered last; until then nothing is acknowledged."""
    gate = asyncio.Event()
    batches = [batch(payloads(2), offset=2 * index) for index in range(10)]
    source = ScriptedSource(batches)
    seen: list[int] = []

    async def last(lines: Sequence[str]) -> Verdict:
        await gate.wait()
        return Accepted()

    async def note(lines: Sequence[str]) -> Verdict:
        seen.append(len(source.acked))
        if len(seen) == 6:
            gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        return Accepted()

    sink = ScriptedSink([last, *[note] * 9])

    run(route(source, sink, batch_size=2, max_in_flight=3))

    assert sink.most_at_once == 3
    assert seen[:6] == [0] * 6
    assert source.settled == {HERE: 19}


@pytest.mark.parametrize(("on_unavailable", "ends"), [("wait", 0), ("dead_letter", 0), ("stop", 3)])
def test_the_policy_decides_how_long_to_wait_for_a_sink(on_unavailable: str, ends: int) -> None:
    """Dead letters need a rendered line, and rendering needs the dialect of the server: so that policy waits, too."""
    sink = ScriptedSink(connects=[NotConnected("refused")] * 5)
    policy = Policy(max_retries=3, on_unavailable=on_unavailable)  # type: ignore[arg-type]

    summary = run(route(ScriptedSource([FIRST]), sink, policy=policy))

    assert summary.exit_code == ends
    assert set(sink.stored) == (set() if ends else expected_lines([FIRST]))
    if ends:
        (error,) = summary.errors
        assert (error.code, error.reason) == ("IFX606", "still unavailable after 3 retries: refused")


@pytest.mark.parametrize(("size", "given", "most"), [(10_000_000, None, 3), (80_000_000, None, 1), (10_000_000, 6, 6)])
def test_the_memory_of_requests_in_flight_is_bounded_where_their_number_is_adapted(
    size: int, given: int | None, most: int
) -> None:
    """However many the pace allows; a larger request goes alone.  A number that is given holds."""
    text = "x" * size  # one string: the test itself needs little memory

    class Large(WriterPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            return Rendered([text] * len(messages), range(len(messages)))

    async def slow(lines: Sequence[str]) -> Verdict:
        for _ in range(200):
            await asyncio.sleep(0)
        return Accepted()

    source = ScriptedSource([batch(payloads(1), offset=index) for index in range(10)])
    sink = ScriptedSink([slow] * 10)
    sink.in_flight = Bounds(8, 8, 16)

    run(route(source, sink, plan=Large(), batch_size=1, batch_bytes=10**9, count_collisions=False, max_in_flight=given))

    assert sink.most_at_once == most
    assert source.settled == {HERE: 9}


def test_a_slow_sink_slows_reading() -> None:
    gate = asyncio.Event()
    source = ScriptedSource([batch(payloads(2), offset=2 * index) for index in range(100)])
    reads = []

    async def slow(lines: Sequence[str]) -> Verdict:
        for _ in range(200):
            await asyncio.sleep(0)
        reads.append(source.reads)
        gate.set()
        return Accepted()

    run(route(source, ScriptedSink([slow, slow]), batch_size=2, max_in_flight=2))

    assert max(reads) <= 5  # two in flight, one that waits, one read ahead


def test_a_requested_stop_finishes_what_is_in_flight() -> None:
    source, sink = ScriptedSource([FIRST, *[None] * 100_000]), ScriptedSink()

    async def stop(wish: Stop) -> None:
        while not source.reads:
            await asyncio.sleep(0)
        wish.request()

    summary = run(route(source, sink), stop=stop)

    assert source.settled in ({HERE: 2}, {})
    assert set(sink.stored) == (expected_lines([FIRST]) if source.settled else set())
    assert summary.exit_code == 0


@pytest.mark.parametrize("while_rendering", [False, True])
def test_a_requested_stop_does_not_wait_for_a_poll_that_hangs(while_rendering: bool) -> None:
    class Quiet(ScriptedSource):
        async def read(self) -> Batch | None:
            if not self._script:
                await asyncio.Event().wait()
            return await super().read()

    class Stopping(EchoPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            if while_rendering:
                wishes[0].request()
            return super().render(messages)

    source, wishes = Quiet([FIRST]), []

    async def stop(wish: Stop) -> None:
        wishes.append(wish)
        while not source.settled:
            await asyncio.sleep(0)
        if not while_rendering:
            wish.request()

    summary = run(route(source, ScriptedSink(), plan=Stopping(), linger_seconds=0.0), stop=stop)

    assert (summary.interrupted, source.settled) == (False, {HERE: 2})


@pytest.mark.parametrize("asked_twice", [True, False], ids=["asked twice", "deadline"])
def test_a_requested_stop_while_the_sink_hangs_ends_without_acknowledging(asked_twice: bool) -> None:
    source = ScriptedSource([FIRST, *[None] * 100])
    arrived = asyncio.Event()

    async def hang(lines: Sequence[str]) -> Verdict:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(wish: Stop) -> None:
        await arrived.wait()
        wish.request()
        if asked_twice:
            wish.request()

    summary = run(route(source, ScriptedSink([hang]), linger_seconds=0), stop=stop)

    assert summary.interrupted
    assert summary.exit_code == 3
    assert source.settled == {}
    assert source.closed
    assert summary.routes[0].in_flight == 0


@pytest.mark.parametrize("until_end", [False, True])
def test_a_requested_stop_while_it_connects_ends_the_route(until_end: bool) -> None:
    class Hanging(ScriptedSink):
        async def connect(self) -> None:
            await asyncio.Event().wait()

    source = ScriptedSource([FIRST])

    async def stop(wish: Stop) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        wish.request()

    summary = run(route(source, Hanging(), until_end=until_end), stop=stop)

    assert summary.errors == ()
    assert summary.interrupted is until_end
    assert source.closed


class _Lagging(ScriptedSource):
    """A source that knows its lag."""

    left: dict[Partition, int]

    async def lag(self) -> dict[Partition, int]:
        return self.left


@pytest.mark.parametrize(("until_end", "count"), [(True, 2), (True, 0), (False, 2)])
def test_a_run_until_the_end_that_is_stopped_before_says_how_many_messages_are_left(
    until_end: bool, count: int
) -> None:
    """Without an end nothing is missing; and what has reached its end just now is done."""
    source = _Lagging([FIRST, *[None] * 1000])
    source.left = {HERE: count}

    async def stop(wish: Stop) -> None:
        while not source.settled:
            await asyncio.sleep(0)
        wish.request()

    summary = run(route(source, ScriptedSink(), until_end=until_end, linger_seconds=0.0), stop=stop)

    assert summary.routes[0].state == ("interrupted" if until_end and count else "done")
    assert summary.routes[0].lag == (source.left if until_end else {})


@pytest.mark.parametrize("left", [{HERE: 2}, {}], ids=["known", "unknown"])
def test_a_run_that_read_all_but_could_not_send_it_says_how_many_messages_are_left(left: dict[Partition, int]) -> None:
    source, sink, status = _Lagging([FIRST]), ScriptedSink([Unavailable("away")] * 1000), Status()
    source.left = left

    async def stop(wish: Stop) -> None:
        while not (status.routes and status.routes[0].retries > 1):
            await asyncio.sleep(0)
        assert status.routes[0].state == "finishing"
        wish.request()

    summary = run(route(source, sink, until_end=True), stop=stop, status=status)

    assert (summary.interrupted, summary.routes[0].lag) == (True, left)


def test_a_requested_stop_while_it_waits_to_connect_ends_the_route() -> None:
    source = ScriptedSource([FIRST], connects=[NotConnected("no")] * 1000)

    async def stop(wish: Stop) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        wish.request()

    summary = run(route(source, ScriptedSink()), stop=stop)

    assert summary.exit_code == 0
    assert summary.routes[0].reconnects < 5


def test_a_route_that_stops_leaves_the_others_running() -> None:
    broken = ScriptedSource([FIRST])
    source, sink = ScriptedSource([FIRST, SECOND]), ScriptedSink()

    summary = run(route(broken, ScriptedSink([Impossible("401")]), name="broken"), route(source, sink, name="fine"))

    assert [status.state for status in summary.routes] == ["stopped", "done"]
    assert source.settled == {HERE: 5}
    assert summary.exit_code == 3


def test_a_route_whose_sink_hangs_leaves_the_others_running() -> None:
    async def hang(lines: Sequence[str]) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError

    hung, fine = ScriptedSource([FIRST]), ScriptedSource([FIRST, SECOND])

    async def stop(wish: Stop) -> None:
        while fine.settled != {HERE: 5}:
            await asyncio.sleep(0)
        wish.request()
        wish.request()

    run(route(hung, ScriptedSink([hang]), name="hung"), route(fine, ScriptedSink(), name="fine"), stop=stop)

    assert fine.settled == {HERE: 5}
    assert hung.settled == {}


def test_a_bug_in_a_plan_stops_its_route_with_a_code_and_not_the_process() -> None:
    class Broken(WriterPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            raise ZeroDivisionError("oops")

    summary = run(route(ScriptedSource([FIRST]), ScriptedSink(), plan=Broken()))

    assert summary.errors[0].code == "IFX699"
    assert "oops" in summary.errors[0].reason


COLLISIONS = {
    "different times": (["m,a=1 v=1 1", "m,a=1 v=1 2"], 0),
    "different tags": (["m,a=1 v=1 1", "m,a=2 v=1 1"], 0),
    "one point twice with different values": (["m,a=1 v=1 1", "m,a=1 v=2 1"], 1),
    "one point twice with different fields": (["m,a=1 v=1 1", "m,a=1 w=2 1"], 0),
    "one point with a field of each of two": (["m v=1 1", "m w=2 1", "m x=1,w=3,v=4 1", "m y=1 1"], 1),
    "fields in strings and escaped names": (['m s="a,v=1",v\\,w=1 1', "m v=2 1", 'm w="\\",v=1" 1'], 0),
    "one point three times": (["m v=1 1", "m v=2 1", "m v=3 1"], 2),
    "the same line twice is no collision": (["m v=1 1", "m v=1 1"], 0),
    "escaped spaces in tags": (["m,a=x\\ y v=1 1", "m,a=x\\ z v=1 1"], 0),
    "spaces in strings": (['m v="a b" 1', 'm v="c d" 1'], 1),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "count"), COLLISIONS.values(), ids=COLLISIONS)
def test_rule_22_collisions_across_messages_are_counted(lines: list[str], count: int) -> None:
    assert Footprint(lines).collisions() == count


@given(
    times=st.lists(
        st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-(10**19), 10**19), st.integers(10**9, 10**10))
    ),
    unit=st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]),
)
def test_times_that_are_hardly_meant_are_found(times: list[int], unit: int) -> None:
    expected = [time for time in times if not 1990 <= 1970 + time * unit / 31_556_952_000_000_000 < 2100]
    near = [time for time in times if min(abs(time * unit / 31_556_952e9 - year) for year in (20, 130)) < 0.01]
    if not near:
        assert list(Footprint([f"m v=1 {time}" for time in times]).implausible_times(unit)) == expected


def test_times_that_are_hardly_meant_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    early = [f"m n={number} 1598846404000000" for number in range(3)]
    good = ["m n=1 1598846404000000000"]

    class AsTheyAre(WriterPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            lines = [line for message in messages for line in message.payload.decode().splitlines()]
            return Rendered(lines, [0] * len(lines))

    source = ScriptedSource([batch(["\n".join(early + good).encode()]), batch(["\n".join(early).encode()], offset=1)])
    summary = run(dataclasses.replace(route(source, ScriptedSink()), plan=AsTheyAre()))

    assert summary.routes[0].implausible == 6
    (event,) = [each.getMessage() for each in caplog.records if "times.implausible" in each.getMessage()]
    assert "1970-01-19" in event and "unix_ms" in event


OVERLAPS: dict[str, tuple[list[str], list[str], bool]] = {
    "other times": (["m v=1 1", "m v=1 2"], ["m v=1 3"], False),
    "other tags at one time": (["m,a=1 v=1 1"], ["m,a=2 v=1 1"], False),
    "one point": (["m v=1 1", "m v=1 2"], ["m v=5 3", "m v=5 2"], True),
    "one point with escapes": (["m,a=x\\ y v=1 1"], ["m,a=x\\ y w=1 1"], True),
    "times of several lengths": (["m v=1 100", "m v=1 7"], ["m v=12 7"], True),
    "a time that ends as another": (["m v=1 100", "m v=1 200"], ["m v=1 1200"], False),
    "a space where a time might begin": (["m v=1 100", 'm v="1 2" 5'], ["m v=3 5"], True),
}


@pytest.mark.parametrize(("one", "other", "expected"), OVERLAPS.values(), ids=OVERLAPS)
def test_requests_overlap_where_they_write_one_point(one: list[str], other: list[str], expected: bool) -> None:
    assert Footprint(one).overlapping({"other": Footprint(other)}) == ["other"] * expected
    assert Footprint(other).overlapping({"one": Footprint(one)}) == ["one"] * expected


def test_the_later_message_decides_a_point_that_is_written_twice() -> None:
    """The first request is answered late; requests that do not write the point are in flight at the same time."""

    class Same(EchoPlan):
        def render(self, messages: Sequence[Message]) -> Rendered:
            lines = [f"m v={message.offset} {message.payload.decode()}" for message in messages]
            return Rendered(lines, range(len(lines)))

    async def late(lines: Sequence[str]) -> Verdict:
        for _ in range(50):
            await asyncio.sleep(0)
        return Accepted()

    source = ScriptedSource([batch([time], offset=offset) for offset, time in enumerate([b"7", b"8", b"7", b"9"])])
    sink = ScriptedSink([late])

    run(route(source, sink, plan=Same(), batch_size=1, max_in_flight=4))

    assert [line for line in sink.stored if line.endswith(" 7")] == ["m v=0 7", "m v=2 7"]
    assert sink.most_at_once == 2
    assert source.settled == {HERE: 3}


@given(
    st.lists(st.lists(st.text("ab", max_size=8), max_size=12), max_size=6),
    st.integers(1, 10),
    st.integers(1, 60),
)
def test_requests_hold_every_line_once_in_order_within_their_bounds(
    batches: list[list[str]], max_lines: int, max_bytes: int
) -> None:
    builder = RequestBuilder(max_lines, max_bytes)
    jobs = [Job(FIRST, Rendered(lines, [0] * len(lines)), len(lines)) for lines in batches]

    requests = [
        request
        for job in jobs
        for request in builder.add(Share(job, job.rendered.lines, range(len(job.rendered.lines))))
    ]
    if len(builder):
        requests.append(builder.take())

    assert [line for request in requests for line in request.lines] == [line for lines in batches for line in lines]
    for request in requests:
        assert 1 <= len(request.lines) <= max_lines
        assert len(request.lines) == 1 or sum(len(line) + 1 for line in request.lines) <= max_bytes
        assert [line for each in request.ranges for line in each.share.job.rendered.lines[each.start : each.stop]] == [
            *request.lines
        ]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=9), st.sets(st.integers(0, 44)))
def test_each_refusal_is_told_to_its_batch_and_they_are_read_once(sizes: list[int], refused: set[int]) -> None:
    """However many batches share a request: each may have one line."""

    class Told(tuple[Refusal, ...]):
        reads = 0

        def __iter__(self) -> Iterator[Refusal]:
            type(self).reads += 1
            return super().__iter__()

    builder, names = RequestBuilder(100, 10**6), iter(range(100))
    jobs = [Job(FIRST, Rendered([f"m v={next(names)}" for _ in range(size)], [0] * size), size) for size in sizes]
    for job in jobs:
        assert not [*builder.add(Share(job, job.rendered.lines, range(len(job.rendered.lines))))]
    request = builder.take()
    told = Told(Refusal(line, "no") for line in sorted(refused) if line < len(request.lines))

    for lines, those in request.refusals_by_range(told):
        lines.share.answered(lines.start, lines.stop, those)

    assert Told.reads == 1
    assert {line for job in jobs for line in job.refused_lines.values()} == {f"m v={each.line}" for each in told}
    for job in jobs:
        assert job.refused_lines == {each.line: job.rendered.lines[each.line] for each in job.refusals}
        assert job.unsettled_lines == 0


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30), st.integers(0, 9_000_000)), max_size=6),
    st.integers(1, 40),
)
def test_the_payloads_of_a_request_are_bounded_too(batches: list[tuple[int, int, int]], max_lines: int) -> None:
    """A payload stays in memory until its lines are settled, however few of its bytes became lines."""
    builder = RequestBuilder(max_lines, 10**6)
    texts = {size: b"x" * size for _, _, size in batches}
    jobs = [
        Job(batch([texts[size]] * messages), Rendered(["m v=1 1"] * lines, [0] * lines), lines)
        for messages, lines, size in batches
    ]

    requests = [
        request
        for job in jobs
        for request in builder.add(Share(job, job.rendered.lines, range(len(job.rendered.lines))))
    ]
    if len(builder):
        requests.append(builder.take())

    assert sum(len(request.lines) for request in requests) == sum(lines for _, lines, _ in batches)
    sizes = [sum((each.stop - each.start) * of_a_line(each) for each in request.ranges) for request in requests]
    for request, size in zip(requests, sizes, strict=True):
        assert len(request.lines) == 1 or size <= MOST_PAYLOAD_BYTES + 1
    for before, size, after in zip(requests, sizes, requests[1:], strict=False):  # none was closed that had room
        most = max(map(of_a_line, (*before.ranges, *after.ranges)))
        assert len(before.lines) == max_lines or size + most > MOST_PAYLOAD_BYTES - 1


def of_a_line(lines: LineRange) -> float:
    return lines.share.job.payload_bytes / len(lines.share.indices)


@given(st.lists(st.integers(1, 400) | st.integers(190, 205), min_size=1, max_size=20))
def test_a_request_that_lacks_few_lines_takes_none_of_the_next_batch(sizes: list[int]) -> None:
    """A batch of which one message failed is then a request, as the others are."""
    builder = RequestBuilder(200, 10**6)
    jobs = [Job(FIRST, Rendered(["m v=1 1"] * size, [0] * size), size) for size in sizes]

    requests = [
        request
        for job in jobs
        for request in builder.add(Share(job, job.rendered.lines, range(len(job.rendered.lines))))
    ]

    assert all(196 <= len(request.lines) <= 200 for request in requests)
    assert len(builder) < 196
    if 196 <= sizes[0] <= 200:
        assert len(requests[0].lines) == sizes[0]


# --- Random scripts of faults ---

SOME_PAYLOADS = st.lists(st.sampled_from([b"one", b"two", b"bad", b"skip"]), min_size=1, max_size=4)
VERDICTS = st.sampled_from(
    [
        Accepted(),
        Unavailable("503", 503),
        Unavailable("reset", connection_died=True),
        TooLarge("413"),
        "refuse the first",
        "refuse all",
    ]
)


@st.composite
def scripts(draw: st.DrawFn) -> list[Batch | NotConnected | None]:
    """Batches of three partitions with faults and pauses between them."""
    ends = [0, 0, 0]
    script: list[Batch | NotConnected | None] = []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["batch", "batch", "batch", "nothing", "fault"]))
        if kind == "batch":
            partition, texts = draw(st.integers(0, 2)), draw(SOME_PAYLOADS)
            script.append(batch(texts, partition=partition, offset=ends[partition]))
            ends[partition] += len(texts)
        else:
            script.append(None if kind == "nothing" else NotConnected("reset"))
    return script


def answer(verdict: Verdict | str) -> Callable[[Sequence[str]], Awaitable[Verdict]]:
    async def write(lines: Sequence[str]) -> Verdict:
        await asyncio.sleep(0)
        if isinstance(verdict, str):
            count = 1 if verdict == "refuse the first" else len(lines)
            return Refused(tuple(Refusal(index, "no", 400) for index in range(count)), rest_stored=True)
        return verdict

    return write


class GuaranteedSource(ScriptedSource):
    """A source that notes every message that is acknowledged before it is stored or kept."""

    def __init__(
        self,
        script: Sequence[Batch | NotConnected | None],
        sink: ScriptedSink,
        letters: CollectingDeadLetters,
        **more: Any,
    ) -> None:
        super().__init__(script, **more)
        self.messages = [message for step in script if isinstance(step, Batch) for message in step.messages]
        self.sink, self.letters = sink, letters
        self.early: list[Message] = []

    async def ack(self, positions: Sequence[Position]) -> None:
        for position in positions:
            self.early += [
                message
                for message in self.messages
                if message.partition == position.partition.partition and message.offset <= position.offset
                if not self.is_settled(message)
            ]
        await super().ack(positions)

    def is_settled(self, message: Message) -> bool:
        """Every point of the message was accepted, or it was kept as a dead letter."""
        rendered = EchoPlan().render([message])
        is_kept = any(letter.message == message for letter in self.letters.letters)
        return is_kept or not (rendered.failures or set(rendered.lines) - set(self.sink.stored))


@settings(max_examples=300, deadline=None)
@given(
    scripts(),
    st.lists(VERDICTS, max_size=8),
    st.lists(st.sampled_from([None, NotConnected("reset")]), max_size=4),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_whatever_fails_every_message_is_settled_and_positions_move_without_gaps(
    script: list[Batch | NotConnected | None],
    verdicts: list[Verdict | str],
    acks: list[NotConnected | None],
    batch_size: int,
    max_in_flight: int,
) -> None:
    """Every line is stored or its message a dead letter; every failed record's message is one; all is acknowledged."""
    batches = [step for step in script if isinstance(step, Batch)]
    sink, letters = ScriptedSink(answer(verdict) for verdict in verdicts), CollectingDeadLetters()
    source = GuaranteedSource(script, sink, letters, acks=acks)

    summary = run(route(source, sink, letters, batch_size=batch_size, max_in_flight=max_in_flight))

    assert source.early == []
    kept = {(letter.message.partition, letter.message.offset) for letter in letters.letters}
    if summary.exit_code == 3:  # each line got 413 or a reset: whether another line would be accepted is unknown
        assert [error.code for error in summary.errors] == ["IFX610"]
        for message in (message for each in batches for message in each.messages):
            place = (message.partition, message.offset)
            is_stored = set(EchoPlan().render([message]).lines) <= set(sink.stored)
            is_acknowledged = message.offset <= source.settled.get(Partition("s", "t", message.partition), -1)
            assert is_stored or place in kept or not is_acknowledged
        return
    assert summary.exit_code == 0
    for each in batches:
        rendered = EchoPlan().render(each.messages)
        for line, origin in zip(rendered.lines, rendered.origins, strict=True):
            message = each.messages[origin]
            assert line in sink.stored or (message.partition, message.offset) in kept
        for failure in rendered.failures:
            message = each.messages[failure.index]
            assert (message.partition, message.offset) in kept
    assert set(sink.stored) <= expected_lines(batches)
    ends = {each.partition: each.last.offset for each in batches}
    assert source.settled == ends
    assert_monotone(source.acked)


def assert_monotone(acked: Sequence[Position]) -> None:
    last: dict[Partition, int] = {}
    for position in acked:
        assert position.offset > last.get(position.partition, -1)
        last[position.partition] = position.offset


def test_the_status_has_a_json_form_with_every_counter() -> None:
    tree = RouteStatus("r").as_dict()

    fields = {field.name for field in dataclasses.fields(RouteStatus)}
    inner = {"waiting_briefly", "retry_at", "newest", *HISTOGRAMS}
    fields = fields - inner | {"histograms", "newest_dead_letters"}
    assert set(tree) == fields - {"reader", "series", "series_limit", "buckets", "input"}, (
        "only readers, loads, and writers with a limit or with buckets, have these"
    )
    assert set(tree["histograms"]) == set(HISTOGRAMS)
    full = RouteStatus("r", reader=ReaderStatus(), series=0, buckets={"a": {}}, input=InputStatus())
    assert set(full.as_dict()) == fields


class _InParts(WriterPlan):
    """A plan whose parts have one message each; `hook` is called with the number of each part."""

    def __init__(self, hook: Callable[[int], None]) -> None:
        self._hook = hook
        self._parts = 0

    def render(self, messages: Sequence[Message]) -> Rendered:
        return Rendered([f"m n={message.offset} 1700000000000000000" for message in messages], range(len(messages)))

    def render_parts(self, messages: Sequence[Message]) -> Iterator[tuple[int, Rendered]]:
        for message in messages:
            self._parts += 1
            self._hook(self._parts)
            yield 1, self.render([message])


class _AtOnce(ScriptedSource):
    """A source that answers without letting other tasks run."""

    async def read(self) -> Batch | None:
        step = self._script.popleft() if self._script else EndOfInput("the script has ended")
        if isinstance(step, Exception):
            raise step
        if step is not None:
            self._given.append(step)
        return step


@pytest.mark.parametrize("number", range(1, 10))
def test_a_stop_between_the_parts_of_a_batch_acknowledges_nothing_after_them(number: int) -> None:
    stop = Stop()
    batches = [batch(payloads(3), offset=offset) for offset in (0, 3, 6)]
    source, sink = _AtOnce(batches), ScriptedSink()
    plan = _InParts(lambda part: stop.request() if part == number else None)
    given = dataclasses.replace(route(source, sink), plan=plan, linger_seconds=0.05, count_collisions=False)

    asyncio.run(asyncio.wait_for(run_routes([given], stop=stop), 20))

    stored = {int(line.split("n=")[1].split()[0]) for line in sink.stored}
    assert set(range(source.settled.get(HERE, -1) + 1)) <= stored


def test_a_source_that_stops_is_reported_also_if_the_run_is_stopped_while_the_sink_is_away() -> None:
    stop = Stop()
    source = ScriptedSource([FIRST, Stopped("message 3 is damaged", "restore a backup", "IFX705")])
    sink = ScriptedSink([Unavailable("away")] * 1000)
    given = dataclasses.replace(
        route(source, sink), policy=Policy(retry_backoff_seconds=0.01, max_backoff_seconds=0.01)
    )
    status = Status()

    async def main() -> Summary:
        running = asyncio.create_task(run_routes([given], stop=stop, status=status))
        while not (status.routes and status.routes[0].error):
            await asyncio.sleep(0.01)
        stop.request()
        return await running

    summary = asyncio.run(asyncio.wait_for(main(), 20))

    assert (summary.exit_code, summary.routes[0].error and summary.routes[0].error.code) == (3, "IFX705")
    assert source.settled == {}
