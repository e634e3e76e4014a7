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


# --- exactly ---


class Steady:
    """Requests of a second each that wait only because of the number; `rate` gives lines a second by the number."""

    def __init__(self, pace: Pace, rate: Callable[[int], float], *, held: float = 1.0, took: float = 1.0) -> None:
        self.pace, self.rate, self.held, self.took = pace, rate, held, took
        self.now = 100.0

    def end(self, *, is_answered: bool = True, after: float | None = None) -> None:
        """End one request."""
        took = self.took if after is None else after
        self.now += took
        limit = self.pace.limit
        self.pace.held_up(self.held * took / limit)
        self.pace.ended(self.rate(limit) * took / limit, self.now - took, self.now, is_answered=is_answered)  # type: ignore[arg-type]

    def numbers(self, changes: int, most: int = 10_000) -> list[tuple[int, int]]:
        """Return the numbers one after another, each with how many requests ended before the next one."""
        found, count, limit = [], 0, self.pace.limit
        for _ in range(most):
            self.end()
            count += 1
            if self.pace.limit != limit:
                found.append((limit, count))
                count, limit = 0, self.pace.limit
            if len(found) == changes:
                return found
        return [*found, (limit, count)]


def test_the_number_grows_by_half_while_each_brings_more() -> None:
    """Each is measured for twice as many requests as are in flight, but for six; after the first ones of a number."""
    steady = Steady(Pace(Bounds(2, 1, 20)), lambda limit: 100.0 * limit)

    assert steady.numbers(7, most=500)[:-1] == [
        (2, 6),
        (3, 3 + 6),
        (5, 5 + 10),
        (8, 8 + 16),
        (12, 12 + 24),
        (18, 18 + 36),
    ]
    assert steady.pace.limit == 20


def test_a_measurement_takes_a_second_for_each_request_in_flight() -> None:
    steady = Steady(Pace(Bounds(2, 1, 20)), lambda limit: 100.0 * limit, took=0.125)

    assert steady.numbers(2) == [(2, 16), (3, 3 + 24)]


def test_what_gains_nothing_is_tried_ever_more_seldom() -> None:
    steady = Steady(Pace(Bounds(8, 8, 32)), lambda _: 100.0)
    kept = [8 + 16 * rest for rest in (8, 16, 32, 64, 128, 128, 128)]

    found = steady.numbers(15, most=20_000)

    assert found[::2] == [(8, 16), *((8, count) for count in kept)]
    assert found[1::2] == [(12, 12 + 24)] * 7


def test_what_gained_is_followed_by_other_trials_soon() -> None:
    """After a trial that gained nothing the patience is doubled, after one that gained it is the first one."""
    most = [100.0]
    steady = Steady(Pace(Bounds(8, 8, 64)), lambda limit: min(limit * 10.0, most[0]))
    steady.numbers(9, most=20_000)
    assert steady.pace.limit == 12
    most[0] = 150.0
    limits = steady.numbers(6, most=20_000)

    assert [limit for limit, _ in limits] == [12, 18, 27, 18, 27, 18]
    assert limits[3] == (18, 18 + 36 * 8)


@pytest.mark.parametrize(("gain", "is_kept"), [(1.11, True), (1.1001, True), (1.0999, False), (1.0, False)])
def test_more_requests_must_gain_a_tenth(gain: float, is_kept: bool) -> None:
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda limit: {8: 100.0, 12: 100.0 * gain}.get(limit, 200.0))

    assert [limit for limit, _ in steady.numbers(3)] == [8, 12, 18 if is_kept else 8]


@pytest.mark.parametrize(("left", "limits"), [(0.7, [8, 12, 8]), (0.69, [8, 6, 4])])
def test_where_the_throughput_falls_below_seven_tenths_fewer_are_tried(left: float, limits: list[int]) -> None:
    rate = [100.0]
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda _: rate[0])
    steady.numbers(2)
    assert steady.pace.limit == 8
    rate[0] *= left

    assert [limit for limit, _ in steady.numbers(3)] == limits


def test_where_more_are_not_allowed_a_throughput_that_falls_slowly_is_compared_with_the_first_one() -> None:
    rate = [100.0]
    steady = Steady(Pace(Bounds(4, 2, 4)), lambda _: rate[0])
    for rate[0] in (100.0, 80.0, 60.0):
        steady.numbers(1, most=200)

    assert steady.pace.limit < 4


def test_where_fewer_are_not_allowed_a_lower_throughput_delays_no_trial() -> None:
    rate = [100.0]
    steady = Steady(Pace(Bounds(8, 8, 32)), lambda _: rate[0])
    steady.numbers(2)
    rate[0] = 40.0

    assert steady.numbers(1) == [(8, 8 + 16 * 8)]


@pytest.mark.parametrize(("rate_of_6", "limits"), [(47.6, [9, 6, 4, 6]), (47.4, [9, 6, 9])])
def test_fewer_requests_may_lose_a_twentieth(rate_of_6: float, limits: list[int]) -> None:
    rate = [100.0]
    steady = Steady(Pace(Bounds(9, 2, 9)), lambda limit: {6: rate_of_6, 4: 10.0}.get(limit, rate[0]))
    steady.numbers(1, most=18 + 9 + 18)
    rate[0] = 50.0

    assert [limit for limit, _ in steady.numbers(len(limits), most=2_000)] == limits


@pytest.mark.parametrize(("held", "limit"), [(0.5, 12), (0.49, 8)])
def test_a_number_that_holds_requests_up_less_than_half_of_the_time_is_enough(held: float, limit: int) -> None:
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda limit: 100.0 * limit, held=held)
    for _ in range(16):
        steady.end()

    assert steady.pace.limit == limit


@pytest.mark.parametrize(("seconds", "limit"), [(4.9, 4), (5.0, 8)])
def test_a_server_that_answers_nothing_for_five_seconds_was_away(seconds: float, limit: int) -> None:
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda limit: 100.0 * limit)
    steady.end(is_answered=False)
    steady.end(is_answered=False, after=0.5)
    assert steady.pace.limit == 4
    steady.end(after=seconds - 0.5)

    assert steady.pace.limit == limit


def test_after_failures_the_number_grows_again_from_the_half_and_is_measured_anew() -> None:
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda limit: 100.0 * limit)
    for _ in range(15):
        steady.end()
    steady.end(is_answered=False)
    steady.end()

    assert steady.numbers(2) == [(4, 4 + 8), (6, 6 + 12)]


def test_what_ran_beside_another_number_says_nothing() -> None:
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda limit: 100.0 * limit)
    steady.numbers(1)
    began = steady.now - 0.5
    for _ in range(1_000):
        steady.pace.held_up(10.0)
        steady.pace.ended(1, began, steady.now + 10.0, is_answered=False)

    assert steady.numbers(1) == [(12, 12 + 24)]
