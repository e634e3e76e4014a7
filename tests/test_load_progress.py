"""What `iggyflux status` says of loads that run now: stored by each load, of all its workers together."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.archives import progress as progress_module
from iggyflux.archives.progress import KIND, LoadProgress, running_loads, storing_progress
from iggyflux.errors import Stopped
from iggyflux.runner import RouteStatus
from iggyflux.runner.merging import Part, after_end, merged_route
from iggyflux.runner.status import InputStatus
from iggyflux.sim import Fault, SimServer
from iggyflux.state.sqlite import SqliteState
from iggyflux.transports.base import Progress
from tests.archive_mapping import DOCUMENT
from tests.simulation.loop import VirtualLoop

SECONDS = 60.0
"""The time after which something that must happen has not happened."""
BEGAN = 1_700_000_000


def found(folder: Path) -> list[LoadProgress]:
    def failed(error: Stopped) -> None:
        raise error

    return [*running_loads(folder, "klima", failed)]


@given(
    loads=st.lists(
        st.tuples(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(1, 9_999)), min_size=1, max_size=4
    ),
    passed=st.integers(1, 99),
)
def test_workers_end_together_when_the_last_one_does(loads: list[tuple[int, int, int]], passed: int) -> None:
    """Each has read some before, and has a rate; what was read before it began counts as read, not as its rate."""
    parts, ends = [], []
    for number, (rest, before, seconds) in enumerate(loads):
        read = InputStatus()
        read.measure(Progress(0, 0), -77.0)  # its files are not found yet
        read.measure(Progress(before, before + rest), 0.0)
        now = min(rest * passed // seconds, rest)
        read.measure(Progress(before + now, before + rest), passed)
        parts.append(Part(number, RouteStatus("r", input=read)))
        ends.append(None if now == 0 else passed * (rest - now) / now)

    merged = merged_route(parts).input

    assert merged is not None
    assert merged.total == sum(rest + before for rest, before, _ in loads)
    if None in ends:
        assert merged.seconds_left is None
    else:
        assert merged.seconds_left == pytest.approx(max(each for each in ends if each is not None))


def test_a_worker_that_is_started_again_has_still_what_it_had_to_read() -> None:
    read = InputStatus(30, 100, 7.0)
    part = after_end(Part(0, RouteStatus("r", input=read)), again=True, failed=False)
    other = Part(1, RouteStatus("r", input=InputStatus(50, 50, 0.0)))

    merged = merged_route([part, other]).input

    assert merged is not None
    assert (merged.done, merged.total, merged.seconds_left) == (80, 150, None)


def test_what_is_stored_ends_at_the_time_that_a_steady_load_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In virtual time: 90 MB, a third of it read by an earlier load, at 1 MB a second."""
    loop = VirtualLoop()
    monkeypatch.setattr(progress_module.time, "time", lambda: BEGAN + loop.time())
    monkeypatch.setattr("iggyflux.state.sqlite.check_no_event_loop", lambda: None)  # its threads are greenlets
    read, stored = InputStatus(), []

    async def main() -> None:
        async with storing_progress(tmp_path, "klima", lambda: read):
            for second in range(60):
                read.measure(Progress((30 + second) * 10**6, 90 * 10**6), loop.time())
                await asyncio.sleep(1)
                stored.extend(found(tmp_path))

    with closing(loop):
        loop.run_until_complete(main())

    known = [each for each in stored if each.seconds_left is not None]
    assert len(stored) - len(known) <= 3
    assert [each.end_unix for each in known] == pytest.approx([BEGAN + 60] * len(known))
    assert all(second + 1 - (each.unix - BEGAN) <= 2 for second, each in enumerate(stored))
    assert (stored[-1].bytes, stored[-1].bytes_total, stored[-1].pid) == (88 * 10**6, 90 * 10**6, os.getpid())
    assert found(tmp_path) == []


# --- states of other releases, and damaged ones ---


@contextmanager
def held(folder: Path, record: dict[str, Any] | None) -> Iterator[Path]:
    """A state that a load has, with `record`; with None, in place of it a file of other content."""
    path = folder / ".iggyflux" / "archives" / "klima" / "running" / "0.sqlite"
    state = SqliteState(path, KIND, "klima", "a load")
    state.take()
    try:
        if record is None:
            path.write_bytes(b"no database")
        else:
            state.replace(record)
        yield path
    finally:
        state.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "klima.yaml").write_text(DOCUMENT, "utf-8")
    (tmp_path / "pipeline.yaml").write_text(
        "iggyflux: 1\nto: file:points.lp\nrun: [{mapping: klima.yaml, from: log:data}]\n", "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_record_of_a_later_release_is_shown_as_far_as_it_is_known(folder: Path) -> None:
    record = {"pid": 4711, "unix": BEGAN, "bytes": 250_000, "bytes_total": 10**6, "seconds_left": 90.0, "lane": [1]}
    with held(folder, record):
        shown, tree = iggyflux("status", "pipeline.yaml"), iggyflux("status", "pipeline.yaml", "--format", "json")

    line = "  load in process 4711: 25% of 1.0 MB, 90 s left, ends about 2023-11-14T22:14:50Z\n"
    assert (shown.code, shown.out) == (0, "klima  (writer, mapping klima)\n" + line)
    (load,) = json.loads(tree.out)[0]["running_loads"]
    assert load == {
        "pid": 4711,
        "bytes": 250_000,
        "bytes_total": 10**6,
        "seconds_left": 90.0,
        "end": "2023-11-14T22:14:50Z",
        "measured": "2023-11-14T22:13:20Z",
        "waiting_for": None,
    }
    assert "running" not in iggyflux("status", "pipeline.yaml").out
    assert json.loads(iggyflux("status", "pipeline.yaml", "--format", "json").out)[0]["running_loads"] == []


AFTER = "  no ledger: name a folder as `state` in the pipeline, and run the route\n"


def test_a_load_that_has_not_begun_to_read_is_shown(folder: Path) -> None:
    with held(folder, {"pid": 4711, "unix": BEGAN}):
        shown = iggyflux("status", "pipeline.yaml")

    assert "  load in process 4711: nothing is read yet\n" in shown.out


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (None, "it is not a database"),
        ({"pid": "x", "unix": BEGAN}, "Expected `int`, got `str` - at `$.pid`"),
        ({}, "Object missing required field `pid`"),
    ],
)
def test_a_progress_that_cannot_be_used_is_named(folder: Path, record: dict[str, Any] | None, why: str) -> None:
    """While its load runs; what one that was killed has left is not read, and the next load replaces it."""
    with held(folder, record) as path:
        shown = iggyflux("status", "pipeline.yaml")

    assert (shown.code, shown.out) == (3, "klima  (writer, mapping klima)\n" + AFTER)
    assert f"error[IFX701]: cannot use the positions in {path.relative_to(folder)}: {why}" in shown.err
    assert iggyflux("status", "pipeline.yaml").code == 0
    (folder / "a.ndjson").write_text('{"ort": "Ulm", "grad": 1, "zeit": 1700000000}\n', "utf-8")
    loaded = iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml")
    assert (loaded.code, "status.not_written" in loaded.err) == (0, False)


def test_a_load_goes_on_where_its_progress_cannot_be_stored(folder: Path) -> None:
    (folder / "a.ndjson").write_text('{"ort": "Ulm", "grad": 1, "zeit": 1700000000}\n', "utf-8")
    place = folder / ".iggyflux" / "archives" / "klima" / "running"
    place.parent.mkdir(parents=True)
    place.write_text("a file where the folder would be")

    loaded = iggyflux("load", "klima.yaml", "a.ndjson", "--pipeline", "pipeline.yaml")

    assert loaded.code == 0, loaded.err
    assert len(re.findall("status.not_written", loaded.err)) == 1
    assert (folder / "points.lp").read_text("utf-8") == "klima,ort=Ulm grad=1.0 1700000000000000000\n"


# --- real processes ---


def test_workers_that_leave_requests_behind_are_interrupted_while_status_says_what_they_wait_for(
    folder: Path,
) -> None:
    """The exit code was that of a load that is done, and the time left that of a server that answers."""
    for name in ("a", "b"):
        rows = (f'{{"ort": "{name}", "grad": 1, "zeit": {1700000000 + number}}}\n' for number in range(5000))
        (folder / f"{name}.ndjson").write_text("".join(rows), "utf-8")
    with SimServer(1, database="werk") as server:
        keys = f"influxdb: {{url: '{server.url}', database: werk, linger: 100ms}}\nshutdown_timeout: 200ms"
        route = "{mapping: klima.yaml, from: log:data}"
        (folder / "pipeline.yaml").write_text(f"iggyflux: 1\n{keys}\nrun: [{route}]\n", "utf-8")
        with loading("a.ndjson", "b.ndjson", "--workers", "2", "--rate", "20") as running:
            deadline = time.monotonic() + SECONDS
            while {line[:11] for line in server.dump()} != {"klima,ort=a", "klima,ort=b"}:
                assert time.monotonic() < deadline, server.dump()
                time.sleep(0.1)
            server.inject(Fault("latency", seconds=20, times=None))
            while "waits for worker" not in (shown := iggyflux("status", "pipeline.yaml").out):
                assert time.monotonic() < deadline, shown
                time.sleep(0.1)
            running.send_signal(signal.SIGTERM)
            code = running.wait(SECONDS)

    assert f"{server.url}: no answer to a write of " in shown
    assert "ends about" not in shown
    assert code == 3


@contextmanager
def loading(*args: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "iggyflux", "load", "klima.yaml", *args, "--pipeline", "pipeline.yaml", "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                running.kill()


def shown(wanted: int) -> list[dict[str, Any]]:
    """Return the loads as `status` shows them, when there are so many, and the end of each is known."""
    deadline = time.monotonic() + SECONDS
    while True:
        loads = json.loads(iggyflux("status", "pipeline.yaml", "--format", "json").out)[0]["running_loads"]
        if len(loads) == wanted and all(each["end"] for each in loads):
            return list(loads)
        assert time.monotonic() < deadline, loads
        time.sleep(0.1)


def test_loads_are_shown_while_they_run_and_not_after_a_kill(folder: Path) -> None:
    """Two loads of other files at once; the estimate of one that keeps a rate is that of the rate."""
    row = b'{"ort": "Ulm", "grad": 1, "zeit": 1700000000}\n'
    for name in ("a", "b"):
        (folder / f"{name}.ndjson").write_bytes(row * 100_000)
    began = time.time()
    with loading("a.ndjson", "--rate", "1000") as first, loading("b.ndjson", "--rate", "1000") as second:
        both = shown(2)
        first.send_signal(signal.SIGKILL)
        first.wait()
        (left,) = shown(1)
        second.send_signal(signal.SIGTERM)
        second.wait()
        assert shown(0) == []

    assert {each["pid"] for each in both} == {first.pid, second.pid}
    assert left["pid"] == second.pid
    for each in (*both, left):
        assert each["bytes_total"] == len(row) * 100_000
        assert 0 < each["bytes"] < each["bytes_total"]
        measured, end = (datetime.fromisoformat(each[key]) for key in ("measured", "end"))
        assert began - 1 <= measured.timestamp() <= time.time() + 1
        rest = (1 - each["bytes"] / each["bytes_total"]) * 100
        assert (end - measured.astimezone(UTC)).total_seconds() >= rest * 0.9  # a rate is not exceeded


def test_workers_of_a_load_are_shown_as_one(folder: Path) -> None:
    row = b'{"ort": "Ulm", "grad": 1, "zeit": 1700000000}\n'
    for name in ("a", "b"):
        (folder / f"{name}.ndjson").write_bytes(row * 50_000)
    with SimServer(1, database="werk") as server:
        text = f"iggyflux: 1\ninfluxdb: {{url: '{server.url}', database: werk}}\n"
        text += "run: [{mapping: klima.yaml, from: log:data}]\n"
        (folder / "pipeline.yaml").write_text(text, "utf-8")
        with loading("a.ndjson", "b.ndjson", "--rate", "2000", "--workers", "2") as process:
            (load,) = shown(1)
            process.send_signal(signal.SIGTERM)
            process.wait()

    assert load["pid"] == process.pid
    assert load["bytes_total"] == 2 * len(row) * 50_000
    assert load["seconds_left"] >= (1 - load["bytes"] / load["bytes_total"]) * 50 * 0.9
