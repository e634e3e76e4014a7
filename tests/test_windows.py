"""Which span is read next: no nanosecond is skipped, and a row that arrives within `overlap` of its time is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.delivery.windows import (
    HEAVY_ROWS,
    LIGHT_ROWS,
    AskFirst,
    AskTime,
    Finished,
    GiveUp,
    Read,
    ReadPosition,
    Wait,
    WindowRules,
    Windows,
)

S = 1_000_000_000
BASE = 1_700_000_000 * S


@dataclass(frozen=True)
class Write:
    """A value at `time` that is visible from `arrives` on."""

    arrives: int
    time: int
    key: int
    value: int


@dataclass
class World:
    """A server with a clock, the machine, and the simplest memory of what was published."""

    rules: WindowRules
    writes: list[Write] = field(default_factory=list)
    position: ReadPosition | None = None
    seconds: float = 0.0
    read_seconds: float = 0.01
    most_rows: int | None = None
    reads: list[Read] = field(default_factory=list)
    published: list[tuple[int, int, int]] = field(default_factory=list)
    seen: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.machine = Windows(self.rules, self.position)

    @property
    def now(self) -> int:
        return BASE + int(self.seconds * S)

    def rows(self, start: int, stop: int) -> dict[tuple[int, int], int]:
        found = {}
        for write in sorted(self.writes, key=lambda each: each.arrives):
            if write.arrives <= self.now and start <= write.time < stop:
                found[write.time, write.key] = write.value
        return found

    def step(self) -> bool:
        """Do what the machine says; return False when it is finished."""
        match self.machine.next(self.seconds):
            case AskTime():
                self.machine.set_server_time(self.now, self.seconds)
            case AskFirst():
                there = [write.time for write in self.writes if write.arrives <= self.now]
                self.machine.set_first_time(min(there, default=None), self.seconds)
            case Wait(seconds):
                self.seconds += max(seconds, 0.001)
            case Read() as read:
                self.take(read)
            case GiveUp() as action:
                raise AssertionError(action)
            case Finished():
                return False
        return True

    def take(self, read: Read) -> None:
        rows = self.rows(read.start, read.stop)
        self.seconds += self.read_seconds
        if self.most_rows is not None and len(rows) > self.most_rows:
            self.machine.too_much()
            return
        self.reads.append(read)
        for (time, key), value in rows.items():
            if time < read.known and self.seen.get((time, key)) == value:
                continue
            self.published.append((time, key, value))
            if time >= read.keep:
                self.seen[time, key] = value
        self.machine.read(len(rows), self.seconds)

    def run(self, until_seconds: float, most_steps: int = 50_000) -> None:
        for _ in range(most_steps):
            if self.seconds >= until_seconds or not self.step():
                return
        raise AssertionError("too many steps")

    def restart(self) -> None:
        """Restart as a new process: only the position and the digests survive."""
        self.machine = Windows(self.rules, self.machine.position)


def covered(reads: list[Read]) -> list[tuple[int, int]]:
    """Return the union of what was read, as spans."""
    spans: list[tuple[int, int]] = []
    for start, stop in sorted((read.start, read.stop) for read in reads):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((start, stop))
    return spans


def expected(position: ReadPosition, start: int) -> list[tuple[int, int]]:
    """Return what must have been read at this position."""
    if position.gap is None:
        return [(start, position.done)] if start < position.done else []
    found = [(start, position.gap[0]), (position.gap[1], position.done)]
    return [span for span in found if span[0] < span[1]]


RULES = st.builds(
    WindowRules,
    start=st.integers(-900, 20).map(lambda seconds: BASE + seconds * S),
    settle=st.integers(0, 20).map(lambda seconds: seconds * S),
    overlap=st.integers(0, 120).map(lambda seconds: seconds * S),
    window=st.sampled_from([7 * S, 60 * S]),
    poll_seconds=st.sampled_from([2.0, 5.0, 30.0]),
    grid=st.booleans(),
)
WRITES = st.lists(
    st.tuples(st.integers(-900, 150), st.integers(0, 120), st.integers(0, 2), st.integers(0, 2)), max_size=30
)


@settings(max_examples=80, deadline=None)
@given(RULES, WRITES, st.lists(st.integers(0, 300), max_size=4), st.sampled_from([None, 3, 10]))
def test_rule_30_all_that_arrives_within_overlap_is_published(
    rules: WindowRules, writes: list[tuple[int, int, int, int]], restarts: list[int], most_rows: int | None
) -> None:
    """Rule 30, for any rules, arrivals, restarts and windows that hold too much."""
    made = [
        Write(BASE + time * S + min(late * S, rules.overlap), BASE + time * S, key, value)
        for time, late, key, value in writes
    ]
    world = World(rules, made, most_rows=None if rules.grid else most_rows)
    for moment in sorted(restarts):
        world.run(moment)
        world.restart()
    world.run(400)
    position = world.machine.position

    assert position is not None
    assert isinstance(rules.start, int)
    assert covered(world.reads) == expected(position, rules.start)
    assert position.gap is None
    assert position.done >= world.now - rules.settle - 40 * S - (rules.window if rules.grid else 0)
    final: dict[tuple[int, int], int] = {}
    for write in sorted(made, key=lambda each: each.arrives):
        final[write.time, write.key] = write.value
    for (time, key), value in final.items():
        if rules.start <= time < position.checked:
            last = [found for found in world.published if found[:2] == (time, key)]
            assert last[-1:] == [(time, key, value)]
    written = {(write.time, write.key, write.value) for write in made}
    assert set(world.published) <= written


@given(RULES, WRITES)
@settings(max_examples=50, deadline=None)
def test_without_a_crash_nothing_is_published_twice_unless_it_changed(
    rules: WindowRules, writes: list[tuple[int, int, int, int]]
) -> None:
    """The digests of a row are kept as long as it is read again."""
    made = [Write(BASE + time * S + late * S, BASE + time * S, key, 0) for time, late, key, _ in writes]
    world = World(rules, made)
    world.run(600)

    assert len(world.published) == len(set(world.published))


def test_a_fresh_reader_asks_for_the_time_then_for_the_first_point() -> None:
    world = World(WindowRules(), [Write(0, BASE - 100 * S, 0, 0)])

    assert world.machine.next(0.0) == AskTime()
    world.machine.set_server_time(BASE, 0.0)
    assert world.machine.next(0.0) == AskFirst()
    world.machine.set_first_time(BASE - 100 * S, 0.0)
    assert world.machine.position == ReadPosition(BASE - 100 * S, BASE - 100 * S)


def test_beginning_waits_for_a_first_point_however_old_it_is() -> None:
    """A user who starts a reader and then writes gets what was written."""
    world = World(WindowRules(poll_seconds=5))
    world.run(20)
    assert world.machine.position is None

    world.writes.append(Write(0, BASE - 86_400 * 365 * S, 0, 0))
    world.run(30)

    assert (world.writes[0].time, 0, 0) in world.published


def test_beginning_has_room_for_an_older_point_that_is_late() -> None:
    """The first point may not be the oldest: one that arrives within overlap of its time may be older."""
    world = World(WindowRules(), [Write(0, BASE - 5 * S, 0, 1), Write(BASE + 3 * S, BASE - 20 * S, 0, 2)])
    world.run(60)

    assert world.published == [(BASE - 20 * S, 0, 2), (BASE - 5 * S, 0, 1)]


def test_beginning_of_nothing_ends_at_once_where_the_end_is_wanted() -> None:
    world = World(WindowRules(until_end=True))
    world.run(20)

    assert world.machine.next(world.seconds) == Finished()
    assert world.machine.position is None


def test_now_reads_only_what_is_written_after_the_start() -> None:
    world = World(WindowRules(start="now"), [Write(0, BASE - S, 0, 0), Write(BASE + S, BASE + S, 0, 1)])
    world.run(120)

    assert world.published == [(BASE + S, 0, 1)]


@pytest.mark.parametrize("end", [None, BASE + 10 * S])
def test_reading_stays_behind_the_servers_clock(end: int | None) -> None:
    world = World(WindowRules(start=BASE - 100 * S, end=end, settle=10 * S))
    for _ in range(200):
        world.step()
        assert all(read.stop <= world.now - 10 * S for read in world.reads)


@pytest.mark.parametrize("end", [None, BASE + 86_400 * S])
def test_far_behind_the_tail_goes_first_and_the_backfill_follows_beside_it(end: int | None) -> None:
    start = BASE - 86_400 * S
    world = World(WindowRules(start=start, end=end, window=60 * S), read_seconds=1.0)
    world.run(60)
    lanes = [read.lane for read in world.reads]

    assert lanes[0] == "tail"
    assert world.reads[0].stop > BASE - 120 * S
    assert lanes.count("backfill") > 3
    assert all(read.known == read.start for read in world.reads if read.lane == "backfill")
    tails = [read.stop for read in world.reads if read.lane == "tail"]
    assert max(tails) >= world.now - 20 * S


def test_a_busy_tail_leaves_every_other_window_to_the_backfill() -> None:
    world = World(WindowRules(start=BASE - 10**9 * S, window=S, overlap=60 * S, poll_seconds=1), read_seconds=3.0)
    world.run(400)
    lanes = [read.lane for read in world.reads]

    assert lanes.count("backfill") >= lanes.count("tail") - 1
    assert lanes.count("tail") > 10


def test_a_backfill_keeps_to_its_rate_and_the_tail_does_not_wait_for_it() -> None:
    writes = [Write(0, BASE - 5_000 * S + number * S, 0, number) for number in range(1_000)]
    rules = WindowRules(start=BASE - 5_000 * S, window=60 * S, overlap=S, poll_seconds=1, rows_per_second=10.0)
    world = World(rules, writes)
    world.run(60)
    backfilled = [found for found in world.published if found[0] < BASE - 1000 * S]

    assert 400 <= len(backfilled) <= 700
    assert max(read.stop for read in world.reads if read.lane == "tail") >= world.now - 12 * S


def test_with_until_end_the_rate_bounds_everything() -> None:
    writes = [Write(0, BASE - 5_000 * S + number * S, 0, number) for number in range(1_000)]
    rules = WindowRules(start=BASE - 5_000 * S, window=60 * S, until_end=True, rows_per_second=10.0)
    world = World(rules, writes)
    world.run(10_000)

    assert world.machine.next(world.seconds) == Finished()
    assert len(world.published) == 1_000
    assert [read.start for read in world.reads[1:]] == [read.stop for read in world.reads[:-1]]
    assert 80 <= world.seconds <= 101


def test_both_positions_survive_a_restart() -> None:
    world = World(WindowRules(start=BASE - 10**7 * S, window=60 * S), read_seconds=1.0)
    world.run(30)
    before = world.machine.position
    assert before is not None
    assert before.gap is not None
    world.restart()
    world.run(60)

    backfill = [read for read in world.reads if read.lane == "backfill"]
    assert [read.start for read in backfill[1:]] == [read.stop for read in backfill[:-1]]


def test_windows_grow_over_empty_time_and_shrink_under_load() -> None:
    world = World(WindowRules(start=BASE - 365 * 86_400 * S, end=BASE - 86_400 * S))
    world.run(1_000)

    assert len(world.reads) < 80
    assert covered(world.reads) == [(BASE - 365 * 86_400 * S, BASE - 86_400 * S)]
    machine = Windows(WindowRules(start=S, end=10**18, window=1000))
    machine.set_server_time(BASE, 0.0)
    machine.set_server_time(BASE, 0.0)
    sizes = []
    for rows in (HEAVY_ROWS + 1, HEAVY_ROWS, LIGHT_ROWS, LIGHT_ROWS - 1, LIGHT_ROWS - 1):
        read = machine.next(0.0)
        assert isinstance(read, Read)
        sizes.append(read.stop - read.start)
        machine.read(rows, 0.0)
    read = machine.next(0.0)
    assert isinstance(read, Read)
    assert [*sizes, read.stop - read.start] == [1000, 500, 500, 500, 1000, 2000]


@pytest.mark.parametrize(("window", "expected"), [(1 << 12, [4096, 2048, 512, 64, 4, 1]), (2, [2, 1])])
def test_too_much_shrinks_a_window_ever_faster_down_to_one_nanosecond(window: int, expected: list[int]) -> None:
    machine = Windows(WindowRules(start=0, end=10**18, window=window))
    machine.set_server_time(BASE, 0.0)
    machine.set_server_time(BASE, 0.0)
    sizes = []
    while not isinstance(read := machine.next(0.0), GiveUp):
        assert isinstance(read, Read)
        sizes.append(read.stop - read.start)
        machine.too_much()
        assert len(sizes) < 100

    assert sizes == expected
    assert read == GiveUp(0, 1)


@pytest.mark.parametrize("report", [lambda machine: machine.read(1, 0.0), lambda machine: machine.too_much()])
def test_a_result_is_taken_once_and_only_of_a_window_that_was_requested(report: Callable[[Windows], None]) -> None:
    new, opened = Windows(WindowRules()), Windows(WindowRules(), ReadPosition(BASE - 900 * S, BASE - 900 * S))
    opened.set_server_time(BASE, 0.0)
    for machine in (new, opened):
        with pytest.raises(ValueError, match="no window was requested"):
            report(machine)
    assert isinstance(opened.next(0.0), Read)
    report(opened)
    with pytest.raises(ValueError, match="no window was requested"):
        report(opened)


def test_a_grid_has_whole_cells_only() -> None:
    """The messages of a window are the same in every run."""
    rules = WindowRules(start=BASE + 3 * S, window=7 * S, overlap=20 * S, grid=True)
    world = World(rules)
    world.run(300)

    assert world.reads
    for read in world.reads:
        assert read.stop % (7 * S) == 0
        assert read.start % (7 * S) == 0 or read.start == rules.start
        assert read.stop - read.start <= 7 * S


def test_a_cell_that_is_too_much_cannot_be_made_smaller() -> None:
    machine = Windows(WindowRules(start=0, window=1000, grid=True))
    machine.set_server_time(BASE, 0.0)
    machine.set_server_time(BASE, 0.0)
    read = machine.next(0.0)
    assert isinstance(read, Read)
    machine.too_much()

    assert machine.next(0.0) == GiveUp(read.start, read.stop)


def test_the_end_is_reached_when_nothing_can_come_any_more() -> None:
    """A point that arrives within overlap of its time, just before the end, is still published."""
    end = BASE + 50 * S
    world = World(WindowRules(start=BASE, end=end, overlap=60 * S, settle=10 * S), [Write(end + 58 * S, end - S, 0, 7)])
    world.run(10_000)

    assert world.machine.next(world.seconds) == Finished()
    assert world.published == [(end - S, 0, 7)]
    assert end + 70 * S <= world.now <= end + 80 * S
    assert world.machine.position == ReadPosition(end, end)
    assert max(read.stop for read in world.reads) == end
    world.restart()
    assert world.machine.next(0.0) == Finished()


def test_until_end_reads_what_is_settled_now_in_order_and_ends() -> None:
    world = World(WindowRules(start=BASE - 10**6 * S, until_end=True), [Write(0, BASE - 11 * S, 0, 1)])
    world.run(10_000)

    assert world.machine.next(world.seconds) == Finished()
    assert world.seconds < 2
    assert [read.start for read in world.reads[1:]] == [read.stop for read in world.reads[:-1]]
    assert world.published == [(BASE - 11 * S, 0, 1)]


@pytest.mark.parametrize("end", [None, BASE + 86_400 * S])
def test_a_long_overlap_is_not_read_again_on_every_poll(end: int | None) -> None:
    """A look back happens every twentieth of it at most: a row is read some twenty times, not hundreds."""
    hour = 3_600 * S
    world = World(WindowRules(start=BASE, end=end, overlap=hour, poll_seconds=5))
    world.run(3 * 3_600)
    looks = [read for read in world.reads if read.start < read.known]

    assert 40 <= len(looks) <= 80


@settings(max_examples=40, deadline=None)
@given(RULES)
def test_what_is_foreseen_is_final_and_changes_nothing(rules: WindowRules) -> None:
    """It may be fetched early, since it is not read again; and asking for it leaves the machine unchanged."""
    world = World(rules, [Write(0, BASE - 800 * S + number * S, 0, number) for number in range(100)])
    for _ in range(300):
        action = world.machine.next(world.seconds)
        foreseen: Read | None = None
        if isinstance(action, Read):
            rows = len(world.rows(action.start, action.stop))
            foreseen = world.machine.foresee(rows, world.seconds + world.read_seconds)
            assert world.machine.next(world.seconds) == action
        if not world.step():
            break
        if foreseen is not None:
            assert foreseen.stop <= world.now - rules.settle - rules.overlap
            assert world.machine.next(world.seconds) == foreseen


@pytest.mark.parametrize(
    "wrong", [(2, 1, None), (5, 5, (1, 1)), (5, 5, (3, 1)), (5, 6, (1, 6))], ids=["order", "empty", "turned", "over"]
)
def test_a_position_that_makes_no_sense_is_refused(wrong: tuple[int, int, tuple[int, int] | None]) -> None:
    with pytest.raises(ValueError, match="invalid position"):
        ReadPosition(*wrong)


# --- passes, and what is asked when ---


def test_the_time_is_asked_right_before_the_pass_over_the_tail() -> None:
    """A window of the backfill between them would make the time old, and the tail end further back than it must."""
    world = World(WindowRules(start=BASE - 10**9 * S, window=S, overlap=60 * S, poll_seconds=1), read_seconds=3.0)
    asked = 0
    for _ in range(400):
        action = world.machine.next(world.seconds)
        world.step()
        if action == AskTime() and world.machine.position is not None:
            following = world.machine.next(world.seconds)
            asked += isinstance(following, Read)
            assert not isinstance(following, Read) or following.lane == "tail"

    assert asked > 10


def test_a_reader_that_was_away_for_long_jumps_to_the_tail_right_after_its_look_back() -> None:
    """It reads again what was not final, then makes the rest the gap, without a poll interval between them."""
    done = BASE - 10**6 * S
    world = World(WindowRules(start=BASE, poll_seconds=300), position=ReadPosition(done - 60 * S, done))
    world.run(10)

    assert (world.reads[0].start, world.reads[0].known) == (done - 60 * S, done)
    assert max(read.stop for read in world.reads if read.lane == "tail") >= BASE - 10 * S
    assert covered(world.reads)[0][0] == done - 60 * S


def test_the_end_does_not_wait_for_the_next_look_back() -> None:
    """With a long overlap a look back is rare; what is final at the end is read when it is."""
    hour, end = 3_600 * S, BASE + 50 * S
    world = World(WindowRules(start=BASE, end=end, overlap=hour, settle=10 * S))
    world.run(10_000)

    assert world.machine.next(world.seconds) == Finished()
    assert end + hour + 10 * S <= world.now <= end + hour + 20 * S


def test_a_server_without_a_point_is_asked_for_its_time_again() -> None:
    """An old time would make the reader begin too early."""
    machine = Windows(WindowRules(poll_seconds=5))
    for seconds in (0.0, 5.0):
        assert machine.next(seconds) == AskTime()
        machine.set_server_time(BASE + int(seconds) * S, seconds)
        assert machine.next(seconds) == AskFirst()
        machine.set_first_time(None, seconds)
        assert machine.next(seconds) == Wait(5.0, "empty")


def test_a_window_that_was_read_ends_the_row_of_those_that_were_too_much() -> None:
    machine = Windows(WindowRules(start=0, end=10**18, window=1 << 12))
    machine.set_server_time(BASE, 0.0)
    machine.set_server_time(BASE, 0.0)
    sizes = []
    for is_too_much in (True, False, True, True, False):
        read = machine.next(0.0)
        assert isinstance(read, Read)
        sizes.append(read.stop - read.start)
        if is_too_much:
            machine.too_much()
        else:
            machine.read(LIGHT_ROWS, 0.0)

    assert sizes == [4096, 2048, 2048, 1024, 256]


@pytest.mark.parametrize("away_seconds", [10**3, 10**4, 10**5])
def test_a_tail_that_is_far_behind_does_not_jump_while_there_is_a_gap(away_seconds: int) -> None:
    """A process that was away with an open gap: the second gap would replace the first, which is not read yet."""
    start, done = BASE - 10**6 * S, BASE - away_seconds * S
    world = World(WindowRules(start=start), position=ReadPosition(done, done, (start, done - 500 * S)))
    world.run(200)
    spans = covered(world.reads)

    assert world.machine.position is not None
    assert world.machine.position.gap is None
    assert (spans[0][0], spans[0][1]) == (start, done - 500 * S)
    assert [span[0] for span in spans[1:]] == [done]


def test_a_clock_that_jumps_ahead_after_a_look_back_causes_another() -> None:
    """The tail is far behind at once: before it jumps, what is not final is read again, although that was just done."""
    hour = 3_600 * S
    machine = Windows(WindowRules(overlap=hour, poll_seconds=5), ReadPosition(BASE - hour, BASE - 20 * S))
    machine.set_server_time(BASE, 0.0)
    while isinstance(machine.next(0.0), Read):
        machine.read(0, 0.0)
    assert machine.next(0.0) == Wait(5.0)
    before = machine.position
    assert before is not None

    machine.set_server_time(BASE + 10 * hour, 5.0)
    read = machine.next(5.0)

    assert isinstance(read, Read)
    assert read.start == before.checked < before.done


def test_until_end_includes_the_look_back_of_a_reader_that_has_read_everything() -> None:
    position = ReadPosition(BASE - 70 * S, BASE - 10 * S)
    machine = Windows(WindowRules(until_end=True), position)
    machine.set_server_time(BASE, 0.0)

    read = machine.next(0.0)
    assert isinstance(read, Read)
    assert (read.start, read.stop) == (position.checked, position.done)
    machine.read(0, 0.0)
    assert machine.next(0.0) == Finished()


def test_a_wait_for_the_rate_ends_exactly_when_it_said() -> None:
    rules = WindowRules(start=BASE - 10**6 * S, poll_seconds=100, rows_per_second=1.0)
    machine = Windows(rules)
    for _ in range(2):
        machine.set_server_time(BASE, 0.0)
    while not isinstance(action := machine.next(0.0), Wait):
        assert isinstance(action, Read)
        machine.read(8 * (action.lane == "backfill"), 0.0)

    assert action == Wait(8.0, "rate")
    assert machine.next(7.5) == Wait(0.5, "rate")
    assert isinstance(machine.next(8.0), Read)


# --- how large a window is ---


def opened(machine: Windows, now: int = BASE) -> Windows:
    """Return a machine whose first pass begins at `now`."""
    if machine.position is None:
        machine.set_server_time(now, 0.0)
    machine.set_server_time(now, 0.0)
    return machine


@pytest.mark.parametrize(("unfinished", "span"), [(1_000, 500), (2, 1), (1, 1), (None, 60 * S)])
def test_a_process_that_died_in_a_window_begins_with_half_of_it(unfinished: int | None, span: int) -> None:
    position = ReadPosition(BASE - 200 * S, BASE - 200 * S)
    machine = opened(Windows(WindowRules(window=60 * S), position, unfinished=unfinished))

    read = machine.next(0.0)

    assert isinstance(read, Read)
    assert read.stop - read.start == span


def test_a_window_that_was_cut_short_says_nothing_about_its_size() -> None:
    """A reader that follows the tail reads a few seconds each time; after a pause its window is not enormous."""
    machine = opened(Windows(WindowRules(start=BASE - 100 * S, settle=0, overlap=0, window=60 * S)))
    spans = []
    for now in (0, 5, 10, 15, 20, 25, 620):
        machine.set_server_time(BASE + now * S, float(now))
        while isinstance(read := machine.next(float(now)), Read):
            spans.append((read.stop - read.start) // S)
            machine.read(0, float(now))

    assert spans == [60, 40, 5, 5, 5, 5, 5, 120, 240, 235]


@pytest.mark.parametrize(("rows", "span"), [(101, 30), (100, 60), (25, 60), (24, 120)])
def test_a_window_holds_at_most_what_its_rate_allows_in_ten_seconds(rows: int, span: int) -> None:
    rules = WindowRules(start=BASE - 10_000 * S, window=60 * S, until_end=True, rows_per_second=10.0)
    machine = opened(Windows(rules))
    assert isinstance(machine.next(0.0), Read)
    machine.read(rows, 0.0)

    read = machine.next(100.0)

    assert isinstance(read, Read)
    assert read.stop - read.start == span * S


def test_a_pass_that_waits_for_its_rate_goes_on_where_it_was() -> None:
    """It takes longer than a poll interval, and nothing of it is final yet: no span is read twice for that."""
    writes = [Write(0, BASE - 3_000 * S + number * 30 * S, 0, number) for number in range(90)]
    rules = WindowRules(start=BASE - 3_000 * S, overlap=3_600 * S, window=60 * S, until_end=True, rows_per_second=1.0)
    world = World(rules, writes)
    world.run(1_000)

    assert world.machine.next(world.seconds) == Finished()
    assert [read.start for read in world.reads[1:]] == [read.stop for read in world.reads[:-1]]
    assert len(world.published) == 90
