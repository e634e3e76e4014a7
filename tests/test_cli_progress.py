"""What a person sees of a run: the live table, and the summary."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import RATE, iggyflux
from wcwidth import wcswidth

from iggyflux import runner
from iggyflux.cli.live_display import _ENDS, Rates, live_display
from iggyflux.cli.live_lines import exact, live_lines, short
from iggyflux.cli.output import unstyled
from iggyflux.cli.progress import summary_lines
from iggyflux.delivery.windows import ReadPosition
from iggyflux.errors import Location, Problem, Stopped
from iggyflux.escapes import escaped
from iggyflux.records import Partition
from iggyflux.runner import RouteStatus, Status, Summary
from iggyflux.runner.events import emit
from iggyflux.runner.status import ReaderStatus

DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: m}, fields: {a: a}, timestamp: {expr: ts, format: unix_s}}
"""


def texts(routes: list[RouteStatus], columns: int = 120, rows: int = 24, **rates: float) -> list[str]:
    return [unstyled(line) for line in live_lines(routes, rates, columns, rows)]


def env_route() -> RouteStatus:
    route = RouteStatus("env", state="connecting", read=1000, delivered=2000, failed=3, refused=1, dead_letters=4)
    route.lag = {Partition("s", "t", 0): 5, Partition("s", "t", 1): 1200}
    route.waiting_for, route.backoff_seconds = "no connection to 127.0.0.1:8086", 3.2
    return route


def test_the_display_shows_the_state_of_each_route() -> None:
    """What it counts, what is behind, what it waits for and how long; at each width in the form that fits."""
    lags = ["      5 behind in s/t/0", "  1,200 behind in s/t/1"]
    below = ["  tries again in 4 s: no connection to 127.0.0.1:8086", *lags]

    assert texts([env_route()], 120, env=900.0) == [
        "route  state       messages  a second  points  sending  failed  dead letters  behind",
        "env    connecting     1,000       900   2,000        0       4             4   1,205",
        *below,
    ]
    assert texts([env_route()], 79, env=900.0) == [
        "route  state       messages  a second  points  behind",
        "env    connecting     1,000       900   2,000   1,205",
        "  4 failed, 4 dead letters",
        *below,
    ]
    assert texts([env_route()], 40) == [
        "env  connecting",
        "  1,000 messages, 0 a second",
        "  2,000 points, 4 failed, 4 dead letters",
        "  1,205 behind",
        "  tries again in 4 s: no connection to …",
        *lags,
    ]


def test_a_reader_and_a_route_that_stopped_have_their_own_lines() -> None:
    reader = RouteStatus("back", state="running", read=12_345_678_901, delivered=123_456_789_012)
    reader.reader = ReaderStatus(share=0.25, seconds_left=7200.0)
    reader.reader.position = ReadPosition(7_200 * 10**9, 7_200 * 10**9, (3_600 * 10**9, 7_000 * 10**9))
    stopped = RouteStatus("a", state="stopped", error=Stopped("the disk is full", "free space", "IFX704"))

    assert texts([reader, stopped], 54) == [
        "route  state    messages  a second  points",
        "back   running     12.3G         0    123G",
        "  backfill to 1970-01-01T01:00:00Z, 25%, 2.0 h left",
        "a      stopped         0         0       0",
        "  error[IFX704]: the disk is full",
    ]


def test_more_routes_than_rows_are_added_up_and_those_in_trouble_stay() -> None:
    routes = [RouteStatus(f"r{number}", state="idle", read=2_000_000) for number in range(40)]
    routes[37].state, routes[37].error = "stopped", Stopped("the disk is full", code="IFX704")
    routes[20].waiting_for = "influx"

    lines = texts(routes, 79, 10)

    assert [line.split()[0] for line in lines] == [
        "route", "r0", "r1", "r2", "r3", "r20", "waits:", "r37", "error[IFX704]:", "and"
    ]  # fmt: skip
    assert lines[-1] == "and 34 more routes: 34 idle, 68.0M messages, 0 a second"
    assert texts(routes, 79, 1) == ["40 routes: 39 idle, 1 stopped, 80.0M messages, 0 a second"]


def test_a_refused_change_is_the_first_line_until_it_is_corrected() -> None:
    """In one line, cut at its end; where one line is all, the routes have it."""
    problem = Problem("IFX203", "unknown function lenght()", Location("kilns.yaml", 9, 21))
    routes = [RouteStatus("env", state="running", read=7)]

    def lines(columns: int, rows: int) -> list[str]:
        return [unstyled(line) for line in live_lines(routes, {}, columns, rows, problem)]

    assert lines(79, 24) == [
        "change refused: error[IFX203]: kilns.yaml:9:21: unknown function lenght()",
        *texts(routes, 79),
    ]
    assert lines(60, 24)[0] == "change refused: error[IFX203]: kilns.yaml:9:21: unknown fun…"
    assert lines(79, 1) == texts(routes, 79, 1)
    assert len(lines(79, 2)) == 2


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.from_regex("[a-z]{,9}-[0-9]{1,30}\\Z")
NUMBERS = st.integers(0, 2000) | st.integers(0, 10**15)


@st.composite
def some_route(draw: st.DrawFn, number: int) -> RouteStatus:
    route = RouteStatus(
        f"{draw(TEXTS)}x{number}", state=draw(st.sampled_from(["running", "connecting", "interrupted"]))
    )
    for counter in ("read", "delivered", "in_flight", "failed", "dead_letters", "retries"):
        setattr(route, counter, draw(NUMBERS))
    partitions = st.builds(Partition, TEXTS, TEXTS, st.integers(0, 99))
    route.lag = draw(st.dictionaries(partitions, NUMBERS, max_size=4))
    route.waiting_for, route.backoff_seconds = draw(st.none() | TEXTS), draw(st.none() | st.floats(0, 1e5))
    if draw(st.booleans()):
        route.error = Stopped(draw(TEXTS), code="IFX704")
    return route


def numbers_of(*found: str) -> set[str]:
    return {number for text in found for number in re.findall(r"\d+", text)}


def sources(route: RouteStatus, rate: float) -> set[str]:
    """Return the numbers in all that is said of a route."""
    counts = [*route.counters().values(), *route.lag.values(), sum(route.lag.values()), rate, route.in_flight]
    spoken = [route.name, route.waiting_for or "", *map(str, route.lag), f"{math.ceil(route.backoff_seconds or 0)}"]
    spoken += [f"{route.error.code} {route.error.reason}"] if route.error else []
    return numbers_of(*map(exact, counts), *map(short, counts), *map(escaped, spoken))


@given(st.data(), st.integers(1, 200), st.integers(0, 60))
def test_no_line_is_wider_than_the_terminal_and_every_number_is_whole(
    data: st.DataObject, columns: int, rows: int
) -> None:
    """Names of any script, rates of millions, any size: only words are cut."""
    routes = [data.draw(some_route(number)) for number in range(data.draw(st.integers(0, 4)))]
    rates = {route.name: data.draw(st.floats(0, 1e9)) for route in routes}
    refused = data.draw(st.none() | st.builds(Problem, st.just("IFX203"), TEXTS, st.builds(Location, TEXTS)))
    lines = [unstyled(line) for line in live_lines(routes, rates, columns, rows, refused)]

    rest = [line for line in lines if re.match(r"(and \d+ more|\d+) routes?: ", line)]
    assert len(lines) <= rows
    assert [line for line in lines if not 0 <= wcswidth(line) <= columns] == []
    assert [line for line in lines if not line.strip()] == []
    spoken = numbers_of(escaped(f"IFX203 {refused.location} {refused.message}")) if refused else set()
    known = spoken.union(*(sources(each, rates[each.name]) for each in routes))
    assert numbers_of(*lines) - numbers_of(*rest) <= known


@given(st.floats(0, 1e18))
def test_short_numbers_are_right_to_three_digits(number: float) -> None:
    text = short(number)
    unit = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}.get(text[-1], 1)

    assert len(text) <= 6
    assert float(text.rstrip("kMGTPE").replace(",", "")) * unit == pytest.approx(number, rel=0.0051, abs=0.51)


def test_a_rate_forgets_what_is_long_ago() -> None:
    """A burst at the start does not linger."""
    rates = Rates(smoothing_seconds=3.0)
    rates.of("env", 0, 0.0)

    burst = rates.of("env", 90_000, 1.0)
    later = [rates.of("env", 90_000, 1.0 + second) for second in range(1, 30)]

    assert burst == 90_000
    assert later == sorted(later, reverse=True)
    assert later[-1] < 10


def test_the_summary_names_what_went_wrong_and_what_helps() -> None:
    """A route that stopped, and a run that was not finished in time."""
    good = RouteStatus("env", state="done", read=1, delivered=1, acknowledged=1, retries=2)
    bad = RouteStatus("a", state="stopped", error=Stopped("the disk is full", "free space", "IFX704"))

    lines = [unstyled(line) for line in summary_lines(Summary((good, bad), 10.0, interrupted=True))]

    assert lines == [
        "env  done: 1 message, 1 point written, 1 acknowledged, 0 messages a second",
        "     2 times sent again",
        "a    stopped: 0 messages, 0 points written, 0 acknowledged",
        "     error[IFX704]: the disk is full",
        "       hint: free space",
        "interrupted: not everything was finished; the next run goes on from what was acknowledged",
    ]
    assert list(summary_lines(Summary((), 0.0))) == [("no routes",)]


def test_a_first_connection_is_not_reported_as_a_reconnect() -> None:
    """What was tried is said, and one of a kind in its own words."""
    away = RouteStatus("env", state="stopped", reconnects=4, error=Stopped("connection refused", code="IFX606"))
    once = RouteStatus("env", state="done", retries=1, reconnects=1, dead_letters=1)

    lines = [[unstyled(line) for line in summary_lines(Summary((route,), 0.0))][1] for route in (away, once)]

    assert lines == [
        "     4 connections lost or refused",
        "     1 kept as dead letter, 1 time sent again, 1 connection lost or refused",
    ]


MARK = "end of what was written for the old width"


class Screen:
    """What a terminal shows: it wraps lines at its width, and wraps them anew when that changes, as most do."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lines, self.at = columns, [""], 0

    def show(self, text: str) -> None:
        """Follow an output of lines, line starts, `ESC[nA` and `ESC[J`; styles take no room."""
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
            if part == "\n":
                self.at += 1
                self.lines += [""] * (self.at + 1 - len(self.lines))
            elif part.endswith("A") and part[0] == "\x1b":
                self._up(int(part[2:-1]))
            elif part == "\x1b[J":
                del self.lines[self.at :]
                self.lines.append("")
            elif part[0] not in "\r\x1b":
                self.lines[self.at] += part
            else:
                assert part == "\r" or part.endswith("m"), f"{part!r} changes what stays when the run has ended"

    def _up(self, rows: int) -> None:
        while rows > 0:
            self.at -= 1
            rows -= max(-(-wcswidth(self.lines[self.at]) // self.columns), 1)
        assert rows == 0, "else a part of a line stays"


@pytest.mark.parametrize(
    ("begin", "end"), [(begin, end) for end, begins in _ENDS.items() for begin in begins], ids=lambda event: event
)
def test_the_end_of_what_was_printed_is_printed_once(begin: str, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the same route, and not where nothing was printed before."""
    log = logging.getLogger("iggyflux.runner")
    with live_display(Status()):
        emit(log, logging.INFO, end, route="kiln")
        emit(log, logging.WARNING, begin, route="kiln")
        emit(log, logging.INFO, end, route="oven")
        emit(log, logging.INFO, "route.done", route="kiln")
        emit(log, logging.INFO, end, route="kiln")
        emit(log, logging.INFO, end, route="kiln")

    printed = re.findall(r"(?:WARNING|INFO) [^\x1b\n]*", capsys.readouterr().err)
    assert printed == [f"WARNING {begin} route=kiln", f"INFO {end} route=kiln"]


def test_what_ends_on_a_terminal_is_an_event() -> None:
    """An event that has another name by now would never be printed."""
    folder = Path(runner.__file__).parent
    sources = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    assert [each for end, begins in _ENDS.items() for each in (end, *begins) if f'"{each}"' not in sources] == []


@pytest.mark.parametrize("setting", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["plain", "no colour", "dumb"])
def test_a_terminal_gets_the_table_and_a_clean_end(tmp_path: Path, setting: dict[str, str]) -> None:
    """Live on a terminal, gone when it ends, also after it has become narrower; the summary stays."""
    (tmp_path / "env.yaml").write_text(DOCUMENT, "utf-8")
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text("iggyflux: 1\nfrom: log:data\nto: file:points.lp\nrun: [{mapping: env.yaml}]\n", "utf-8")
    iggyflux("log", "append", tmp_path / "data", "s/t", stdin='{"a": 1, "ts": 1e9}\n{"a": "x", "ts": 1e9}\n')
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "iggyflux", "run", str(pipeline)]
    environment = {**os.environ, "TERM": "xterm", **setting}
    is_live, screen = setting.get("TERM") != "dumb", Screen(90)
    resize(child, 90)
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment) as running, ended(running):
        raw = ""
        while not all(words in raw for words in ("record.failed", *["a second"] * is_live)):
            raw += os.read(parent, 65536).decode()
        running.send_signal(signal.SIGSTOP)  # else it may go on to write for the old width
        os.waitid(os.P_PID, running.pid, os.WSTOPPED)
        os.write(child, MARK.encode())
        while MARK not in raw:
            raw += os.read(parent, 65536).decode()
        raw = raw.replace(MARK, "")
        screen.show(raw)
        shown = "\n".join(screen.lines)
        resize(child, 50)
        screen.columns = 50
        os.close(child)
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGCONT)
        while part := _read(parent):
            raw += part
            screen.show(part)
        code = running.wait(60)
    os.close(parent)

    assert code == 0
    assert ("a second" in shown) == is_live
    assert bool(re.search(r"\x1b\[[0-9;]*m", raw)) == (setting == {})
    assert is_live or "\x1b" not in raw
    lines = [line for line in screen.lines if line]
    assert [line for line in lines if "messages  a second" in line] == []
    if is_live:
        assert re.search("WARNING record.failed .* code=IFX340 ", lines[0])
        assert [RATE.sub("", line) for line in lines[1:]] == [
            "env  done: 2 messages, 1 point written, 2 acknowledged",
            "     1 failed, 1 kept as dead letter",
        ]


@contextmanager
def ended(running: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process where the test fails: it would run on, and be waited for."""
    try:
        yield
    except BaseException:
        running.kill()
        raise


def resize(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode()
    except OSError:  # the process has closed it
        return ""
