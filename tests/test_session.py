"""The session's table, row by row: how writers and readers connect, wait, connect again, stop and close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iggyflux.errors import NotConnected, Stopped
from iggyflux.runner.session import Session, closing_all, connect_all
from iggyflux.runner.status import RouteStatus
from iggyflux.runner.stop import Stop, StopRequested
from iggyflux.transports.local.memory import ImmediateClock

Step: TypeAlias = Literal["not connected", "lost at once", "lost after progress", "lost after a minute"]
FIRST, CAP = 0.5, 30.0


class Scripted:
    """A session whose connections fail as scripted; then the work returns."""

    def __init__(
        self, *script: Step, error: Exception | None = None, max_retries: int | None = None, is_patient: bool = True
    ) -> None:
        self.script = list(script)
        self.error = error or NotConnected("reset")
        self.clock, self.stop, self.status = ImmediateClock(), Stop(), RouteStatus("None")
        self.session = Session(
            "None",
            self.status,
            self.stop,
            self.clock,
            max_retries=max_retries,
            is_patient=is_patient,
            random=lambda: 1.0,
        )
        self.progress = 0
        self.connects = 0

    async def connect(self) -> None:
        self.connects += 1
        if self.script[:1] == ["not connected"]:
            self.script.pop(0)
            raise self.error

    async def work(self) -> None:
        assert self.status.state == "connecting"
        if self.script:
            step = self.script.pop(0)
            self.progress += step == "lost after progress"
            self.clock.now += 60 * (step == "lost after a minute")
            raise self.error

    async def run(self) -> None:
        await self.session.run(self.connect, self.work, lambda: self.progress)


def drive(work: Coroutine[Any, Any, object]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 60)

    asyncio.run(bounded())


STEPS: list[Step] = ["not connected", "lost at once", "lost after progress", "lost after a minute"]


@given(st.lists(st.sampled_from(STEPS), max_size=20))
@example(["not connected", "lost at once"] * 10)
@example(["lost at once", "not connected", "lost at once"])
@example(["not connected", "lost at once", "lost after progress", "not connected", "lost at once"])
def test_waits_double_up_to_the_cap_and_start_anew_after_progress(script: list[Step]) -> None:
    """Once also when it is connected after it could not be: what was connected before the other end may be gone."""
    scripted = Scripted(*script)
    drive(scripted.run())

    expected, failures, before, has_returned = [], 0, "", False
    for step in script:
        is_good = step in ("lost after progress", "lost after a minute")
        is_back = step == "lost at once" and before == "not connected" and not has_returned
        has_returned = not is_good and (has_returned or is_back)
        failures, before = 1 if is_good or is_back else failures + 1, step
        expected.append(min(FIRST * 2 ** (failures - 1), CAP))
    assert scripted.clock.slept == expected
    assert scripted.status.reconnects == len(script)
    assert scripted.connects == len(script) + 1


def test_a_cancelled_run_ends_though_a_connection_is_lost_at_the_same_moment() -> None:
    """A task group whose parent is cancelled raises the error of a child alone."""
    scripted = Scripted()

    async def lose_connection() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise NotConnected("reset")

    async def work() -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(lose_connection())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def main() -> None:
        running = asyncio.create_task(scripted.session.run(scripted.connect, work, lambda: 0))
        while not scripted.connects:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running}, timeout=60)
        assert running.cancelled()

    drive(main())
    assert scripted.connects == 1


def test_what_a_lost_connection_waits_for_is_kept_while_it_waits() -> None:
    """While the state is another, the route overwrites it with what its source waits for."""
    scripted = Scripted("lost at once")
    states = []

    async def sleep(_: float) -> None:
        states.append((scripted.status.state, scripted.status.waiting_for))

    scripted.clock.sleep = sleep  # type: ignore[method-assign]

    async def work() -> None:
        scripted.status.state = "running"
        if scripted.script:
            scripted.script.pop()
            raise scripted.error

    drive(scripted.session.run(scripted.connect, work, lambda: 0))
    assert states == [("connecting", "reset")]


def test_the_wait_is_the_one_that_the_server_asked_for() -> None:
    scripted = Scripted("not connected", error=NotConnected("busy", retry_after_seconds=7.0))
    drive(scripted.run())

    assert scripted.clock.slept == [7.0 + FIRST]


def test_the_status_says_what_is_waited_for_and_until_when_until_it_is_connected() -> None:
    scripted = Scripted("not connected", "not connected")
    seen: list[tuple[str | None, float | None]] = []
    sleep = scripted.clock.sleep

    async def noting(seconds: float) -> None:
        until = scripted.status.retry_at
        seen.append((scripted.status.waiting_for, until and until - scripted.clock.monotonic()))
        await sleep(seconds)

    async def work() -> None:
        seen.append((scripted.status.waiting_for, scripted.status.retry_at))

    scripted.clock.sleep = noting  # type: ignore[method-assign]
    scripted.work = work  # type: ignore[method-assign]
    drive(scripted.run())

    assert seen == [("reset", 0.5), ("reset", 1.0), (None, None)]


def test_the_third_failure_in_a_row_is_logged_with_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "iggyflux.runner"):
        drive(Scripted(*["not connected"] * 4).run())

    lines = [record.getMessage() for record in caplog.records if "route.not_connected" in record.getMessage()]
    assert ["hint=" in line for line in lines] == [False, False, True, False]


def test_a_long_outage_is_logged_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "iggyflux.runner"):
        drive(Scripted(*["not connected"] * 40).run())

    logged = [record.fields["attempt"] for record in caplog.records if "attempt" in getattr(record, "fields", {})]
    assert logged == [1, 2, 3, 4, 8, 16, 32]


def test_the_hint_says_how_often_the_route_tries(caplog: pytest.LogCaptureFixture) -> None:
    """As often as it then does: the limit holds until it was connected once."""
    first = Scripted(*["not connected"] * 5, max_retries=4)
    later = Scripted("lost after progress", *["not connected"] * 5, max_retries=4)
    unknown = Scripted(*["not connected"] * 3, is_patient=False)
    with pytest.raises(Stopped, match="after 4 retries"):
        drive(first.run())
    assert first.connects == 5
    drive(later.run())
    drive(unknown.run())

    hints = [record.fields["hint"] for record in caplog.records if "hint" in getattr(record, "fields", {})]
    assert [each.partition(";")[0] for each in hints] == [
        "the route stops after 4 retries",
        "the route retries until it succeeds",
        "run `iggyflux check` for details",
    ]


@pytest.mark.parametrize("where", ["not connected", "lost at once"])
def test_an_error_that_needs_a_person_ends_the_session(where: Step) -> None:
    scripted = Scripted(where, error=Stopped("no such bucket"))

    with pytest.raises(Stopped, match="no such bucket"):
        drive(scripted.run())
    assert scripted.clock.slept == []


async def forever() -> None:
    await asyncio.Event().wait()


def stopped_before(scripted: Scripted) -> None:
    scripted.stop.request()


def stopped_while_it_connects(scripted: Scripted) -> None:
    async def connect() -> None:
        scripted.connects += 1
        scripted.stop.request()
        await forever()

    scripted.connect = connect  # type: ignore[method-assign]


def stopped_while_it_waits(scripted: Scripted) -> None:
    async def sleep(seconds: float) -> None:
        scripted.stop.request()
        await forever()

    scripted.script[:] = ["not connected"]
    scripted.clock.sleep = sleep  # type: ignore[method-assign]


def stopped_when_the_connection_is_lost(scripted: Scripted) -> None:
    async def work() -> None:
        scripted.stop.request()
        raise NotConnected("reset")

    scripted.work = work  # type: ignore[method-assign]


def stopped_by_the_work(scripted: Scripted) -> None:
    async def work() -> None:
        scripted.stop.request()
        await scripted.session.unless_stopped(forever())

    scripted.work = work  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("moment", "connects"),
    [
        (stopped_before, 0),
        (stopped_while_it_connects, 1),
        (stopped_while_it_waits, 1),
        (stopped_when_the_connection_is_lost, 1),
        (stopped_by_the_work, 1),
    ],
)
def test_a_requested_stop_ends_the_session_at_any_time(moment: Callable[[Scripted], None], connects: int) -> None:
    scripted = Scripted()
    moment(scripted)
    drive(scripted.run())

    assert scripted.connects == connects
    assert scripted.clock.slept == []


# --- sending ---


def sending(failures: int, *, stop_at: int | None = None) -> tuple[Scripted, int, BaseException | None]:
    """Send with so many failures; a stop is requested during the attempt with this number.

    The limit of retries is one of the first connection only.
    """
    scripted, attempts = Scripted(max_retries=1), 0

    async def send() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == stop_at:
            scripted.stop.request()
        if attempts <= failures:
            raise NotConnected(f"away {attempts}")

    try:
        drive(scripted.session.until_confirmed(send))
    except StopRequested as error:
        return scripted, attempts, error.__cause__
    return scripted, attempts, None


@pytest.mark.parametrize("failures", [1, 3])
def test_a_send_is_repeated_until_it_is_confirmed(failures: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "iggyflux.runner"):
        scripted, attempts, _ = sending(failures)

    assert attempts == failures + 1
    assert scripted.status.retries == failures
    assert scripted.clock.slept == [0.5, 1.0, 2.0][:failures]
    assert scripted.status.waiting_for is None
    assert caplog.records[-1].getMessage() == "delivery.back route=None"


@pytest.mark.parametrize("is_away", [False, True])
def test_the_status_says_that_the_sink_is_away_from_the_first_failure_to_send_until_it_is_back(is_away: bool) -> None:
    """Who connects the sink says it of a failure to connect: the sink may be there and the source not."""
    scripted, shown = Scripted("not connected"), list[bool]()
    scripted.status.is_away = is_away
    sleep = scripted.clock.sleep

    async def noting(seconds: float) -> None:
        shown.append(scripted.status.is_away)
        await sleep(seconds)

    async def send() -> None:
        shown.append(scripted.status.is_away)
        if len(shown) < 5:
            raise NotConnected("away")

    async def work() -> None:
        await scripted.session.until_confirmed(send)
        shown.append(scripted.status.is_away)

    scripted.clock.sleep = noting  # type: ignore[method-assign]
    scripted.work = work  # type: ignore[method-assign]
    drive(scripted.run())
    assert shown == [is_away, is_away, True, True, True, True, False]


def test_a_send_that_is_confirmed_at_once_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "iggyflux.runner"):
        scripted, attempts, _ = sending(0)

    assert (attempts, scripted.status.retries, caplog.records) == (1, 0, [])


@pytest.mark.parametrize(("failures", "attempts"), [(0, 1), (1, 1), (9, 1)])
def test_after_a_requested_stop_one_attempt_to_send_is_made(failures: int, attempts: int) -> None:
    """A window that is being sent is finished if the sink is there, else abandoned with the reason."""
    scripted, made, cause = sending(failures, stop_at=1)

    assert made == attempts
    assert (str(cause) if cause else None) == ("away 1" if failures else None)
    assert scripted.clock.slept == []


# --- closing ---


def test_everything_is_closed_in_order_although_closing_fails() -> None:
    closed: list[str] = []

    def close(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def closing() -> None:
            closed.append(name)
            if name == "in":
                raise OSError("broken")

        return closing

    async def main() -> None:
        async with closing_all(close("class"), close("in"), close("lambda")):
            closed.append("work")

    with pytest.raises(OSError, match="broken"):
        drive(main())
    assert closed == ["work", "class", "in", "lambda"]


@pytest.mark.parametrize("asked", [None, 2.0])
@pytest.mark.parametrize("away", [[], ["class"], ["class", "lambda"]])
def test_each_end_is_connected_although_others_are_away(away: list[str], asked: float | None) -> None:
    """One error of several has the names of all, and waits as long as any of them asks for."""
    tried: list[str] = []
    errors = {name: NotConnected("reset", retry_after_seconds=asked and asked + len(name)) for name in away}
    for name, error in errors.items():
        error.server = name

    async def connect(name: str) -> None:
        tried.append(name)
        if name in errors:
            raise errors[name]

    names = ["class", "while", "lambda"]
    with pytest.raises(NotConnected) if away else nullcontext() as raised:
        drive(connect_all(*(partial(connect, name) for name in names)))

    assert tried == names
    if raised is not None:
        assert raised.value.named == "; ".join(f"{name}: reset" for name in away)
        assert raised.value.retry_after_seconds == (asked and asked + len(away[-1]))
        assert (raised.value is errors[away[0]]) == (len(away) == 1)


def test_what_needs_a_person_is_found_although_another_end_is_away() -> None:
    async def away() -> None:
        raise NotConnected("away")

    async def refused() -> None:
        raise Stopped("wrong token")

    with pytest.raises(Stopped, match="wrong token"):
        drive(connect_all(away, refused))
