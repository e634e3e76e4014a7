"""How many requests are in flight: found by trying, against servers given by a formula."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.pace import Bounds, Pace
from iggyflux.transports.influxdb.flavors import FLAVORS

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


Latency = Callable[[int], float]

SATURATING = st.one_of(
    st.builds(lambda most: ("3.x", flushing(most)), st.floats(30_000, 130_000)),  # beyond, the source is the limit
    st.builds(lambda gain, most: ("1.x", saturated(gain, most)), st.floats(0.02, 0.5), st.floats(20_000, 150_000)),
    st.just(("1.x", lambda _: 0.001)),
)
THRASHING = st.builds(
    lambda gain, most, loss: ("1.x", thrashing(gain, most, loss)),
    st.floats(0.02, 0.5),
    st.floats(40_000, 150_000),
    st.floats(0.01, 0.1),
)


def thrashing(gain: float, most: float, loss: float) -> Latency:
    """Each request beside others makes all of them slower."""
    return lambda at_once: saturated(gain, most)(at_once) * (1 + loss * at_once)


def steady_rate(latency: Latency, number: int) -> float:
    """Return the lines a second with always `number` requests in flight, from a source of 300,000 lines a second."""
    return min(number * LINES / latency(number), 300_000)


class Jittery(Model):
    """A server whose requests take up to `jitter` more or less, and a source that renders a request in 17 ms."""

    def __init__(self, pace: Pace, latency: Latency, chance: random.Random, jitter: float) -> None:
        super().__init__(pace, lambda at_once: latency(at_once) * (1 + jitter * chance.uniform(-1, 1)))
        self.ready = 0.0
        self.most = 0

    def run(self, seconds: float, *, busy: bool = True) -> None:
        until = self.now + seconds
        while self.now < until:
            if len(self.under_way) < self.pace.limit and (not self.under_way or self.ready <= self.under_way[0][0]):
                now = max(self.now, self.ready)
                self.pace.held_up(now - self.ready)
                self.ready, self.now = now + LINES / 300_000, now
                heapq.heappush(self.under_way, (now + self.latency(len(self.under_way) + 1), now))
                self.most = max(self.most, len(self.under_way))
            else:
                self.now, began = heapq.heappop(self.under_way)
                self.pace.ended(LINES, began, self.now, is_answered=True)
                self.stored += LINES


@pytest.mark.parametrize(("servers", "part"), [(SATURATING, 0.95), (THRASHING, 0.8)], ids=["saturating", "thrashing"])
def test_within_ten_seconds_the_number_is_nearly_as_good_as_the_best_one(
    servers: st.SearchStrategy[tuple[str, Latency]], part: float
) -> None:
    """That which is kept, by its true throughput; what was measured has noise.  One beyond the bounds is never used."""

    @given(servers, st.floats(0, 0.2), st.integers(0, 999))
    def check(server: tuple[str, Latency], jitter: float, seed: int) -> None:
        flavor, latency = server
        bounds = FLAVORS["v3" if flavor == "3.x" else "v1"].in_flight
        model = Jittery(Pace(bounds), latency, random.Random(seed), jitter)
        model.run(10)
        rates = {number: steady_rate(latency, number) for number in range(bounds.least, bounds.most + 1)}
        kept = model.pace._kept.limit if model.pace._kept else model.pace.limit

        assert rates[kept] >= part * max(rates.values()), f"{kept}, of {rates}"
        assert model.most <= bounds.most

    check()


def test_three_hundred_thousand_lines_go_to_a_3_6_nearly_as_fast_as_with_the_best_number() -> None:
    """Its measured throughput: 8 in flight 40,000 lines a second, 16 65,000, 32 no more."""

    def seconds(bounds: Bounds) -> float:
        """Return the median of several runs."""
        ends = []
        for seed in range(5):
            model = Jittery(Pace(bounds), flushing(65_000), random.Random(seed), 0.1)
            while model.stored < 300_000:
                model.run(0.1)
            ends.append(model.now)
        return median(ends)

    best = min(seconds(Bounds.exactly(number)) for number in range(8, 33, 2))

    assert best >= 0.9 * seconds(FLAVORS["v3"].in_flight)


@given(st.floats(30_000, 60_000), st.floats(1.3, 2.0), st.integers(0, 999))
def test_a_server_that_changes_is_used_to_its_limit_again(most: float, factor: float, seed: int) -> None:
    """Slower and faster again: what was kept tells the change, and other numbers are tried."""
    bounds, chance = FLAVORS["v3"].in_flight, random.Random(seed)
    model = Jittery(Pace(bounds), flushing(most * factor), chance, 0.1)
    model.run(30)
    for now in (most, most * factor):
        model.latency = flushing(now)
        model.run(30)

        assert model.rate(20) >= 0.8 * now  # a trial may fall into these seconds


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


def test_the_number_is_doubled_while_that_brings_more() -> None:
    """Each is measured for as many requests as are in flight, but for six; after those that were added for it."""
    steady = Steady(Pace(Bounds(2, 1, 20)), lambda limit: 100.0 * limit)

    assert steady.numbers(5, most=500) == [
        (2, 2 + 6),
        (4, 2 + 6),
        (8, 4 + 8),
        (16, 8 + 16),
        (20, 4 + 20),
    ]
    assert steady.pace.limit == 14  # whether fewer are as good


def test_a_measurement_takes_a_second_for_each_request_in_flight() -> None:
    steady = Steady(Pace(Bounds(2, 1, 20)), lambda limit: 100.0 * limit, took=0.125)

    assert steady.numbers(2) == [(2, 2 + 16), (4, 2 + 32)]


def test_more_that_gain_nothing_and_fewer_that_lose_are_tried_ever_more_seldom() -> None:
    """A trial ends after six requests where it is hopeless; one of 1.4 times as many needs all."""
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda limit: {16: 101.0, 11: 101.0, 6: 60.0}.get(limit, 100.0))
    kept = [8 * 16, *(2 + 8 * rest for rest in (32, 64, 128, 128))]  # after 6, two are added

    found = steady.numbers(3 + 3 * 5, most=20_000)

    assert found[:4] == [(8, 8 + 8), (16, 8 + 16), (6, 6), (11, 5 + 11)]
    assert found[4::3] == [(8, count) for count in kept]
    assert found[5::3] == [(11, 3 + 11)] * 5
    assert found[6::3] == [(6, 6)] * 4


def test_what_gained_is_followed_by_other_trials_soon() -> None:
    """After trials that gained nothing the patience is doubled, after one that gained it is the first one."""
    most = [100.0]
    steady = Steady(Pace(Bounds(8, 8, 64)), lambda limit: min(limit * 10.0, most[0]))
    while steady.pace._patience < 128:
        steady.end()
    assert steady.pace.limit == 11
    most[0] = 130.0

    found = steady.numbers(5)

    assert [limit for limit, _ in found] == [11, 15, 21, 11, 15]
    assert found[-1][1] == 4 + 15 * 16


@pytest.mark.parametrize(("gain", "is_kept"), [(1.06, True), (1.0501, True), (1.0499, False), (1.0, False)])
def test_more_requests_must_gain_a_twentieth(gain: float, is_kept: bool) -> None:
    steady = Steady(Pace(Bounds(8, 8, 32)), lambda limit: {8: 100.0, 16: 100.0 * gain}.get(limit, 200.0))

    assert [limit for limit, _ in steady.numbers(3)] == [8, 16, 32 if is_kept else 11]


@pytest.mark.parametrize(("rate", "is_kept"), [(98.0, True), (97.01, True), (96.99, False), (10.0, False)])
def test_fewer_requests_may_lose_a_thirtieth(rate: float, is_kept: bool) -> None:
    steady = Steady(Pace(Bounds(8, 2, 8)), lambda limit: {8: 100.0, 6: rate}.get(limit, 10.0))

    assert [limit for limit, _ in steady.numbers(3)] == [8, 6, 4 if is_kept else 8]


def test_fewer_and_fewer_are_compared_with_the_highest_throughput() -> None:
    steady = Steady(Pace(Bounds(20, 2, 20)), lambda limit: {20: 100.0, 14: 98.0, 10: 96.0}.get(limit, 90.0))

    assert [limit for limit, _ in steady.numbers(3)] == [20, 14, 10]
    assert steady.pace.limit == 14


def test_where_a_request_takes_long_fewer_are_tried_first() -> None:
    for took, first in ((2.1, 11), (1.9, 32)):
        steady = Steady(Pace(Bounds(16, 2, 32)), lambda _: 100.0, took=took)
        steady.numbers(1)

        assert steady.pace.limit == first


@pytest.mark.parametrize(
    ("part", "limits"), [(0.81, [8, 11]), (0.79, [8, 6]), (1.24, [8, 11]), (1.26, [8, 16])], ids=lambda each: f"{each}"
)
def test_a_throughput_that_changed_begins_other_trials(part: float, limits: list[int]) -> None:
    """Where it fell, fewer are tried first; without a change the next trial is 1.4 times as many."""
    rate = [100.0]
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda limit: rate[0] * (0.5 if limit < 8 else 1.0))
    steady.numbers(4)
    assert steady.pace.limit == 8
    rate[0] *= part

    found = steady.numbers(1)
    assert [found[0][0], steady.pace.limit] == limits
    assert (found[0][1] == 8) is (limits[1] != 11)


def test_a_throughput_that_falls_slowly_is_no_change() -> None:
    """What is known of the kept number follows what is measured."""
    rate = [100.0]
    steady = Steady(Pace(Bounds(8, 8, 11)), lambda _: rate[0])
    steady.numbers(2)
    for _ in range(60):
        rate[0] *= 0.99
        before = steady.pace.limit
        steady.numbers(1, most=8)

        assert steady.pace.limit in (before, 11, 8)
    steady.numbers(4)

    assert 40 <= steady.pace._kept.rate <= 80  # type: ignore[union-attr]


@pytest.mark.parametrize(("held", "limit"), [(0.5, 16), (0.49, 8)])
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

    assert steady.numbers(2) == [(4, 4 + 6), (8, 4 + 8)]


def test_what_ran_beside_another_number_says_nothing() -> None:
    steady = Steady(Pace(Bounds(8, 2, 32)), lambda limit: 100.0 * limit)
    steady.numbers(1)
    began = steady.now - 0.5
    for _ in range(1_000):
        steady.pace.held_up(10.0)
        steady.pace.ended(1, began, steady.now + 10.0, is_answered=False)

    assert steady.numbers(1) == [(16, 8 + 16)]
