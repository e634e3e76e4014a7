"""How many requests are in flight: found by trying, against servers given by a formula."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.pace import Bounds, Pace

LINES = 5000


class Model:
    """A server whose latency depends on the requests in flight, and a source that always has messages."""

    def __init__(self, pace: Pace, latency: Callable[[int], float]) -> None:
        self.pace = pace
        self.latency = latency
        self.now = 0.0
        self.under_way: list[tuple[float, float]] = []
        self.stored = 0
        self.answers = True

    def run(self, seconds: float, *, busy: bool = True) -> None:
        until = self.now + seconds
        while self.now < until:
            while len(self.under_way) < (self.pace.limit if busy else 1):
                took = self.latency(len(self.under_way) + 1)
                heapq.heappush(self.under_way, (self.now + took, self.now))
            before = self.now
            self.now, began = heapq.heappop(self.under_way)
            if busy:
                self.pace.held_up(self.now - before)
            self.pace.ended(LINES, began, self.now, is_answered=self.answers)
            self.stored += LINES if self.answers else 0

    def rate(self, seconds: float) -> float:
        """Return lines a second from now on."""
        before, start = self.stored, self.now
        self.run(seconds)
        return (self.stored - before) / (self.now - start)


def flushing(most: float) -> Callable[[int], float]:
    """3.x: an answer a second, with at most `most` lines."""
    return lambda at_once: max(1.0, at_once * LINES / most)


def saturated(gain: float, most: float) -> Callable[[int], float]:
    """1.x and 2.x: one request has its own time, then the disk and the processors are the limit."""
    return lambda at_once: max(gain, at_once * LINES / most)


def test_a_server_that_answers_once_a_second_gets_many_requests() -> None:
    pace = Pace(Bounds(8, 2, 32))
    model = Model(pace, flushing(65_000))
    model.run(60)

    assert 12 <= pace.limit <= 18
    assert model.rate(60) > 55_000


@pytest.mark.parametrize("most", [20_000, 40_000, 500_000])
def test_any_such_server_is_used_nearly_to_its_limit_and_not_far_beyond(most: int) -> None:
    bounds = Bounds(8, 2, 32)
    pace = Pace(bounds)
    model = Model(pace, flushing(most))
    model.run(120)

    reachable = min(most, bounds.most * LINES)
    assert model.rate(120) > 0.8 * reachable
    assert pace.limit <= max(8, 1.6 * reachable / LINES)


def test_where_more_at_once_only_take_longer_few_stay_few() -> None:
    pace = Pace(Bounds(2, 1, 8))
    Model(pace, saturated(0.1, 60_000)).run(60)

    assert pace.limit <= 3


def test_what_brings_more_is_kept() -> None:
    pace = Pace(Bounds(2, 1, 8))
    Model(pace, saturated(0.4, 60_000)).run(60)

    assert 4 <= pace.limit <= 8


def test_a_slower_server_gets_fewer_and_a_recovered_one_gets_more() -> None:
    pace = Pace(Bounds(8, 2, 32))
    model = Model(pace, flushing(100_000))
    model.run(60)
    many = pace.limit
    model.latency = flushing(15_000)
    model.run(300)
    few = pace.limit
    model.latency = flushing(100_000)
    model.run(1000)

    assert many >= 16
    assert few <= many // 2
    assert pace.limit >= 16


def test_a_failing_server_gets_half_until_it_answers() -> None:
    pace = Pace(Bounds(8, 2, 32))
    model = Model(pace, flushing(100_000))
    model.run(60)
    limit, rate = pace.limit, model.rate(10)
    model.answers = False
    model.run(3)
    while_failing = pace.limit
    model.answers = True
    model.run(15)

    assert while_failing == limit // 2
    assert model.rate(10) > 0.75 * rate


def test_a_server_that_was_unreachable_gets_its_former_number_at_once() -> None:
    pace = Pace(Bounds(2, 1, 8))
    model = Model(pace, saturated(0.1, 60_000))
    model.run(60)
    limit = pace.limit
    model.answers = False
    model.run(60)
    while_away = pace.limit
    model.answers = True
    model.run(1)

    assert while_away == max(limit // 2, 1)
    assert pace.limit == limit


def test_a_source_that_is_slower_than_the_server_changes_nothing() -> None:
    pace = Pace(Bounds(8, 2, 32))
    Model(pace, lambda _: 0.01).run(60, busy=False)

    assert pace.limit == 8


def test_a_number_that_was_chosen_stays() -> None:
    pace = Pace(Bounds.exactly(3))
    model = Model(pace, flushing(100_000))
    model.run(30)
    model.answers = False
    model.run(30)

    assert pace.limit == 3


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 1000), st.integers(0, 10_000), st.booleans(), st.booleans()),
        max_size=200,
    )
)
def test_whatever_happens_the_number_stays_in_its_bounds(
    events: list[tuple[float, float, int, bool, bool]],
) -> None:
    pace = Pace(Bounds(4, 2, 16))
    for took, now, lines, answered, full in events:
        if full:
            pace.held_up(took)
        pace.ended(lines, now - took, now, is_answered=answered)
        assert 2 <= pace.limit <= 16
