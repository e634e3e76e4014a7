"""What a person sees of a run: the live table, and the summary."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import click
from rich.console import Console
from shell import iggyflux

from iggyflux.cli.live_table import _Rates, route_table
from iggyflux.cli.output import unstyled
from iggyflux.cli.progress import summary_lines
from iggyflux.errors import Stopped
from iggyflux.records import Partition
from iggyflux.runner import RouteStatus, Summary

DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: m}, fields: {a: a}, timestamp: {expr: ts, format: unix_s}}
"""


def shown(routes: list[RouteStatus], rates: _Rates, now: float) -> str:
    console = Console(width=120, record=True, file=StringIO())
    console.print(route_table(routes, rates, now))
    return console.export_text()


def test_the_table_shows_the_state_of_each_route() -> None:
    """Counters, the rate of the last moments, what is behind, and what it waits for."""
    route = RouteStatus("env", state="connecting", read=1000, delivered=2000, failed=3, refused=1, dead_letters=4)
    route.lag = {Partition("s", "t", 0): 5, Partition("s", "t", 1): 1200}
    route.waiting_for = "no connection to 127.0.0.1:8086"
    rates = _Rates()

    shown([route], rates, 0.0)
    route.read = 4000
    text = shown([route], rates, 3.0)

    assert "connecting" in text
    for number in ("4,000", "1,000", "2,000", "1,205", "1,200", "s/t/0", "no connection to 127.0.0.1:8086"):
        assert number in text


def test_a_rate_forgets_what_is_long_ago() -> None:
    """A burst at the start does not linger."""
    rates = _Rates(smoothing_seconds=3.0)
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


def test_a_terminal_gets_the_table_and_a_clean_end(tmp_path: Path) -> None:
    """Live on a terminal, gone when it ends; the summary stays."""
    (tmp_path / "env.yaml").write_text(DOCUMENT, "utf-8")
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text("iggyflux: 1\nfrom: log:data\nto: file:points.lp\nrun: [{mapping: env.yaml}]\n", "utf-8")
    iggyflux("log", "append", tmp_path / "data", "s/t", stdin='{"a": 1, "ts": 1}\n{"a": "x", "ts": 1}\n')
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "iggyflux", "run", str(pipeline)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment) as running:
        os.close(child)
        text = ""
        while "idle" not in text:
            text += os.read(parent, 65536).decode()
        running.send_signal(signal.SIGINT)
        while part := _read(parent):
            text += part
        code = running.wait(60)
    os.close(parent)

    plain = click.unstyle(text)
    assert code == 0
    assert "dead letters" in plain
    assert "WARNING record.failed" in plain
    assert "env  done: 2 messages, 1 point written, 2 acknowledged" in plain
    assert "Traceback" not in plain


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode()
    except OSError:  # the process has closed it
        return ""
