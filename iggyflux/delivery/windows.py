"""Which span of time a reader reads next: windows, the look back over late data, the backfill beside the live tail.

Pure: no I/O, no clock.  `next` says what to do.  The caller reports the result (`set_server_time`, `set_first_time`,
`read`, `too_much`), and stores `position` before the next call.  All times are integer nanoseconds of the server's
clock, all spans half-open `[start, stop)`; seconds are those of a clock that never goes backwards.

What is known of the time line at any moment, and kept in `ReadPosition`:

    … | gap: not read yet, for the backfill | read, final | read, looked at again | not read yet
                                                       checked                  done

What `next` returns, in this order:

| the reader is …                             | `next` returns        | and then                                       |
|---------------------------------------------|-----------------------|------------------------------------------------|
| new                                         | `AskTime`             | `start` says where to begin                    |
| new, `start: beginning`                     | `AskFirst`            | begins there; no point yet: `Wait`, asks again |
| at its end (see below)                      | `Finished`            | nothing more                                   |
| in a pass over the tail                     | `Read` of the tail    | `read`: on to the next window of the pass;     |
|                                             |                       | `too_much`: the same with a smaller window     |
| … whose one nanosecond was too much         | `GiveUp`              | the operator must act                          |
| due for a pass (poll interval; at once      | `AskTime`             | a pass: `[checked or done, now - settle)`;     |
| where the last one ended far behind)        |                       | far behind and no gap: what is final becomes   |
|                                             |                       | the gap, the tail jumps behind it              |
| with a gap, within its rate                 | `Read` of the gap     | as above; after each pass at least one         |
| none of these                               | `Wait`                | until the pass or the rate is due              |

- **Nothing is skipped.**  `done` moves only over what was read, and never past `now - settle`; the gap shrinks from its
  beginning; the two meet.
- **Every row that arrives within `overlap` of its time is read.**  A time `t` is final when it was read at
  `t + overlap + settle` or later; `checked` moves only over what is final, and a pass that looks back begins there.  A
  pass looks back when the last look back is a twentieth of `overlap` old, and on every poll if that is shorter.
  A gap contains only what is final when it is made, so the backfill reads everything once.
- **Windows adapt.**  The size doubles after a window with few rows that was not cut short, and halves after one with
  many.  After each `too_much` in a row it shrinks faster: to a half, then a quarter of that, then an eighth.  After a
  process that died in a large window the next one begins with half of it, so a reader that is killed faster than a
  window takes gets on.  With a `grid` the size is fixed: every window is one whole cell.
- **The end.**  With `end`: when the gap is closed and everything before `end` is final.  With `until_end`: when what
  was settled at the last pass is read, the look back included, and the gap is closed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

LIGHT_ROWS = 25_000
HEAVY_ROWS = 100_000
_LARGEST_NS = 7 * 86_400_000_000_000
_LOOKS = 20
_BURST_SECONDS = 10.0
_FAR_WINDOWS = 12
_FAR_OVERLAPS = 2

Lane: TypeAlias = Literal["tail", "backfill"]


@dataclass(frozen=True, slots=True)
class ReadPosition:
    """What was read: everything in `[…, done)` except the gap.  What is before `checked` is final."""

    checked: int
    done: int
    gap: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.checked > self.done or (self.gap and not self.gap[0] < self.gap[1] <= self.checked):
            raise ValueError(f"invalid position: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRules:
    """How reading progresses; spans in nanoseconds.

    `rows_per_second` bounds the backfill, and with `until_end` everything; it does not slow a live tail.
    """

    start: int | Literal["beginning", "now"] = "beginning"
    end: int | None = None
    settle: int = 10_000_000_000
    overlap: int = 60_000_000_000
    window: int = 300_000_000_000
    poll_seconds: float = 5.0
    rows_per_second: float | None = None
    grid: bool = False
    until_end: bool = False


@dataclass(frozen=True, slots=True)
class AskTime:
    """Ask the server for its time and report it with `set_server_time`."""


@dataclass(frozen=True, slots=True)
class AskFirst:
    """Ask for the time of the oldest point and report it with `set_first_time`."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read `[start, stop)` and report the result with `read` or `too_much`.

    What is before `known` was read before: publish only what is new or changed.  What is at `keep` or after will be
    read again: remember what was seen of it.
    """

    start: int
    stop: int
    lane: Lane
    known: int
    keep: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float
    reason: Literal["poll", "empty", "rate"] = "poll"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop: `[start, stop)` holds too much, and cannot be made smaller."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything up to the end is read."""


Action: TypeAlias = AskTime | AskFirst | Read | Wait | GiveUp | Finished


class Windows:
    """The state machine; `position` is None for a reader that never ran."""

    def __init__(
        self, rules: WindowRules, position: ReadPosition | None = None, *, unfinished: int | None = None
    ) -> None:
        """`unfinished` is the span of the window in which the process before died: windows begin with half of it."""
        self.rules = rules
        self.position = position
        self._now: int | None = None  # the server's time at the last pass
        self._asked: int | None = None  # the server's time, reported and not used yet
        self._at = 0  # where the pass is
        self._target: int | None = None  # where the pass ends; None: there is none
        self._looks_back = False
        self._next_pass = 0.0
        self._last_look: float | None = None
        self._looking_since = 0.0
        self._is_empty = False  # `start: beginning`, and the server has no point
        self._backfill_turn = False
        self._held: dict[Lane, float] = {"tail": 0.0, "backfill": 0.0}  # when the rate allows the next window
        self._given_at = 0.0
        self._rates: dict[Lane, float | None] = {
            "tail": rules.rows_per_second if rules.until_end else None,
            "backfill": rules.rows_per_second,
        }
        first = rules.window if unfinished is None else max(unfinished // 2, 1)
        self._sizes: dict[Lane, _WindowSize] = {
            lane: _WindowSize(first, adapts=not rules.grid, rows_per_second=rate or HEAVY_ROWS)
            for lane, rate in self._rates.items()
        }
        self._given: Read | None = None
        self._hopeless: Read | None = None

    @property
    def live_to(self) -> int | None:
        """The time up to which the tail could be read at the last pass: `done` behind it is lag."""
        return None if self._now is None else self._upper(self._now)

    def next(self, seconds: float) -> Action:
        """Return what to do now.  Without a reported result, another call returns the same, or what is due by then."""
        if self._hopeless is not None:
            return GiveUp(self._hopeless.start, self._hopeless.stop)
        if self.position is None:
            return self._open(seconds)
        if self._is_finished(self.position):
            return Finished()
        backfill_is_due = self._backfill_is_due(self.position, seconds)
        if self._target is not None and not backfill_is_due and seconds >= self._held["tail"]:
            return self._give(self._tail_window(self.position, self._target), seconds)
        if self._target is None and seconds >= self._next_pass and not backfill_is_due:
            return AskTime()
        if self.position.gap is not None and seconds >= self._held["backfill"]:
            return self._give(self._backfill_window(self.position.gap), seconds)
        return self._wait(self.position, seconds)

    def set_server_time(self, now: int, seconds: float) -> None:
        """Take the server's time, asked at `seconds`."""
        self._asked = now
        position = self.position
        if position is None:
            if self.rules.start != "beginning":
                self._begin(now if self.rules.start == "now" else self.rules.start)
            return
        self._next_pass = seconds + self.rules.poll_seconds
        self._start_pass(position, now, seconds)

    def set_first_time(self, first: int | None, seconds: float) -> None:
        """Take the time of the oldest point, or None if the server has none."""
        if first is None or self._asked is None:
            self._next_pass = seconds + self.rules.poll_seconds
            self._asked = None
            self._is_empty = True
            return
        # An older point may still arrive, within the overlap of its time.
        self._begin(min(first, self._final(self._asked)))

    def read(self, rows: int, seconds: float) -> None:
        """Take that the last returned span was read, published and confirmed; `position` is to be stored now."""
        given, position = self._given, self.position
        if given is None or position is None:
            raise ValueError("no window was requested")
        self._given = None
        self._sizes[given.lane].taken(given.stop - given.start, rows)
        if rate := self._rates[given.lane]:
            self._held[given.lane] = self._given_at + rows / rate
        if given.lane == "backfill":
            assert position.gap is not None  # noqa: S101  # it was given from there
            rest = (given.stop, position.gap[1])
            self.position = replace(position, gap=rest if rest[0] < rest[1] else None)
            self._backfill_turn = False
            return
        done, checked = max(position.done, given.stop), position.checked
        if given.start <= checked:
            checked = max(checked, min(given.stop, given.keep))
        self.position = replace(position, done=done, checked=checked)
        self._at = given.stop
        self._backfill_turn = True
        if self._target is not None and self._at >= self._target:
            self._end_pass(seconds)

    def foresee(self, rows: int, seconds: float) -> Read | None:
        """Return the span after the last returned one, if that holds `rows` rows; None if it is not certain.

        Only a span that will not be looked at again: reading it early then gives the same rows.
        """
        then = copy.deepcopy(self)
        then.read(rows, seconds)
        action = then.next(seconds)
        return action if isinstance(action, Read) and action.keep >= action.stop else None

    def too_much(self) -> None:
        """Take that the last returned span holds too much to be read at once."""
        given = self._given
        if given is None:
            raise ValueError("no window was requested")
        self._given = None
        if not self._sizes[given.lane].refuse(given.stop - given.start):
            self._hopeless = given

    # --- opening ---

    def _open(self, seconds: float) -> Action:
        if self._is_empty:
            if self.rules.until_end:
                return Finished()
            if seconds < self._next_pass:
                return Wait(self._next_pass - seconds, "empty")
        return AskTime() if self._asked is None else AskFirst()

    def _begin(self, start: int) -> None:
        if self.rules.end is not None:
            start = min(start, self.rules.end)
        self.position = ReadPosition(start, start)

    # --- passes over the tail ---

    def _upper(self, now: int) -> int:
        """Return the time up to which data may be read at `now`."""
        upper = self._floor(now - self.rules.settle)
        end = self.rules.end
        # The end cuts the last cell of a grid.
        return upper if end is None or now - self.rules.settle < end else end

    def _final(self, now: int) -> int:
        """Return the time before which everything is final after a read at `now`."""
        return self._floor(now - self.rules.settle - self.rules.overlap)

    def _floor(self, time: int) -> int:
        return time // self.rules.window * self.rules.window if self.rules.grid else time

    def _start_pass(self, position: ReadPosition, now: int, seconds: float) -> None:
        self._now = now
        upper, final = self._upper(now), self._final(now)
        end, is_bounded = self.rules.end, self.rules.until_end
        far = max(_FAR_WINDOWS * self.rules.window, _FAR_OVERLAPS * self.rules.overlap)
        may_jump = position.gap is None and not is_bounded and (end is None or end > final)
        is_far = may_jump and final - position.done > far
        if is_far and position.checked == position.done:
            position = self.position = ReadPosition(final, final, (position.done, final))
            is_far = False
        interval = max(self.rules.poll_seconds, self.rules.overlap / 1e9 / _LOOKS)
        self._looks_back = (
            is_far or self._last_look is None or seconds - self._last_look >= interval or self._is_closing(position)
        )
        self._at = position.checked if self._looks_back else position.done
        self._target = position.done if is_far else max(upper, position.done)
        if self._looks_back:
            self._looking_since = seconds
        if self._at >= self._target:
            self._end_pass(seconds)

    def _is_closing(self, position: ReadPosition) -> bool:
        """Whether only a look back is left to do."""
        return self.rules.end is not None and position.done >= self.rules.end

    def _end_pass(self, seconds: float) -> None:
        if self._looks_back:
            self._last_look = self._looking_since
        is_behind = self.position is not None and self.live_to is not None and self.position.done < self.live_to
        if is_behind:  # this pass only looked back, before the tail jumps
            self._next_pass = seconds
        self._target = None

    def _tail_window(self, position: ReadPosition, target: int) -> Read:
        assert self._now is not None  # noqa: S101  # a pass has a time
        stop = self._cut(self._at, self._sizes["tail"].ns, target)
        return Read(self._at, stop, "tail", position.done, min(self._final(self._now), stop))

    # --- the backfill ---

    def _backfill_is_due(self, position: ReadPosition, seconds: float) -> bool:
        return self._backfill_turn and position.gap is not None and seconds >= self._held["backfill"]

    def _backfill_window(self, gap: tuple[int, int]) -> Read:
        stop = self._cut(gap[0], self._sizes["backfill"].ns, gap[1])
        return Read(gap[0], stop, "backfill", gap[0], stop)

    def _cut(self, start: int, size: int, most: int) -> int:
        """Return the end of the window at `start`."""
        if self.rules.grid:
            return min(self._floor(start) + self.rules.window, most)
        return min(start + size, most)

    def _give(self, read: Read, seconds: float) -> Read:
        self._given, self._given_at = read, seconds
        return read

    def _wait(self, position: ReadPosition, seconds: float) -> Wait:
        """Return the wait until the next pass or the next window that the rate allows."""
        if self._target is not None:
            return Wait(self._held["tail"] - seconds, "rate")
        if position.gap is not None and self._held["backfill"] < self._next_pass:
            return Wait(self._held["backfill"] - seconds, "rate")
        return Wait(self._next_pass - seconds)

    # --- the end ---

    def _is_finished(self, position: ReadPosition) -> bool:
        if position.gap is not None:
            return False
        end = self.rules.end
        if end is not None and position.checked >= end:
            return True
        if not self.rules.until_end or self.live_to is None or self._target is not None:
            return False
        return position.done >= self.live_to


class _WindowSize:
    """The size of the windows of a lane, in nanoseconds."""

    def __init__(self, first: int, *, adapts: bool, rows_per_second: float = HEAVY_ROWS) -> None:
        self.ns = first
        self._adapts = adapts
        # A window holds at most what its rate allows in some seconds: its rows are read in one burst.
        self._light = min(LIGHT_ROWS, rows_per_second * _BURST_SECONDS / 4)
        self._heavy = min(HEAVY_ROWS, rows_per_second * _BURST_SECONDS)
        self._largest = max(first, _LARGEST_NS)
        self._refusals = 0

    def taken(self, span: int, rows: int) -> None:
        """Adapt the size after a window of `span` with `rows` rows."""
        self._refusals = 0
        if not self._adapts:
            return
        if rows > self._heavy:
            self.ns = max(span // 2, 1)
        elif rows < self._light and span >= self.ns:
            self.ns = min(self.ns * 2, self._largest)

    def refuse(self, span: int) -> bool:
        """Shrink the size after a window of `span` was too much; return False if it cannot be made smaller."""
        self._refusals += 1
        if span <= 1 or not self._adapts:
            return False
        self.ns = max(span >> self._refusals, 1)
        return True
