"""Signals at any moment of a command: Ctrl-C ends it, and Python prints nothing; a late signal changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.records import DeadLetter, Message, Reason
from iggyflux.sim import SimServer
from iggyflux.transports.local.deadletters import DirectoryDeadLetters
from iggyflux.transports.local.log import Log

MAPPING = """\
iggyflux: 1
kind: writer
from: {stream: harbour, topic: cranes}
points: {measurement: {const: lift}, fields: {tons: tons}, timestamp: {expr: at, format: unix_s}}
"""
PIPELINE = "iggyflux: 1\nfrom: log:data\nto: file:points.lp\ndead_letters: dead\nrun: [{mapping: crane.yaml}]\n"
COMMANDS = {
    "version": ["--version"],
    "validate": ["validate", "crane.yaml"],
    "status": ["status", "pipeline.yaml"],
    "run": ["run", "pipeline.yaml", "--until-end"],
}
SIGNALLED = """\
import atexit, os, pathlib, sys

made, at, number, file = -1, *map(int, os.environ["SIGNALLED"].split()[:2]), os.environ["SIGNALLED"].split()[2]

def count(event, arguments):
    global made
    if event == "import" and (made >= 0 or arguments[0] == "iggyflux.cli"):
        made += 1
        if made == at:
            os.kill(os.getpid(), number)

sys.addaudithook(count)
atexit.register(lambda: pathlib.Path(file).write_text(str(made)))
"""
WHOLE = 10**9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interrupts")
    (path / "crane.yaml").write_text(MAPPING, "utf-8")
    (path / "pipeline.yaml").write_text(PIPELINE, "utf-8")
    (path / "modules").mkdir()
    (path / "modules/sitecustomize.py").write_text(SIGNALLED, "utf-8")
    return path


def signalled_after(imports: int, command: list[str], folder: Path, number: int) -> tuple[int, str]:
    """Run a command that gets a signal at so many imports after that of the commands; return its code and stderr.

    The process sends it to itself, so the moment is the same on a busy machine.
    """
    done = subprocess.run(
        [sys.executable, "-m", "iggyflux", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "modules"), "SIGNALLED": f"{imports} {int(number)} imports"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupt_while_a_command_begins_is_silent(folder: Path, name: str) -> None:
    """Whatever is being imported, Ctrl-C ends with 130, and SIGTERM as the system has it; without output of Python."""
    signalled_after(WHOLE, COMMANDS[name], folder, signal.SIGINT)
    whole = int((folder / "imports").read_text())
    assert whole > 50

    @settings(max_examples=8)
    @given(st.integers(0, whole), st.sampled_from([signal.SIGINT, signal.SIGINT, signal.SIGTERM]))
    def holds(imports: int, number: int) -> None:
        code, said = signalled_after(imports, COMMANDS[name], folder, number)

        assert not re.search("Traceback|Interrupt|ignored|Error", said.replace("ERROR", "")), said
        if imports < whole * 0.8:  # later, a run has begun, and finishes what it does
            assert (code, said.strip()) == ({signal.SIGINT: 130, signal.SIGTERM: -15}[number], "")

    holds()


SLOW_TO_END = """\
import asyncio, sys, time

run = asyncio.run

def run_and_wait(coroutine):
    result = run(coroutine)
    print("over", file=sys.stderr, flush=True)
    time.sleep(1)
    return result

asyncio.run = run_and_wait
"""
LATE = [
    (["run", "pipeline.yaml", "--until-end"], signal.SIGTERM),
    (["run", "pipeline.yaml", "--until-end"], signal.SIGHUP),
    (["run", "pipeline.yaml", "--until-end", "--workers", "2"], signal.SIGTERM),
    (["run", "pipeline.yaml", "--until-end", "--workers", "2"], signal.SIGHUP),
    (["load", "crane.yaml", "lifts.ndjson", "--pipeline", "pipeline.yaml"], signal.SIGTERM),
    (["load", "crane.yaml", "lifts.ndjson", "--pipeline", "pipeline.yaml", "--workers", "2"], signal.SIGTERM),
    (["replay", "dead", "--pipeline", "pipeline.yaml"], signal.SIGTERM),
]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Path]:
    """A folder to run in, where a process says "over" when its work is, and takes a second to end."""
    lift = '{"tons": 3, "at": 1}'
    (tmp_path / "lifts.ndjson").write_text(f"{lift}\n" * 20, "utf-8")
    (tmp_path / "crane.yaml").write_text(MAPPING, "utf-8")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/sitecustomize.py").write_text(SLOW_TO_END, "utf-8")
    letter = DeadLetter(Message(lift.encode(), "harbour", "cranes"), "crane", "", (Reason("IFX340", "too heavy"),))
    asyncio.run(DirectoryDeadLetters(tmp_path / "dead").put([letter]))
    log = Log.open(tmp_path / "data", create=True)
    log.create_topic("harbour", "cranes", 2)
    for partition in range(2):
        log.append("harbour", "cranes", [Message(lift.encode())] * 5, partition=partition)
    log.close()
    with SimServer(1, database="port") as server:
        influxdb = f"influxdb: {{url: {server.url}, flavor: v1, database: port}}\n"
        (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace("to: file:points.lp\n", influxdb), "utf-8")
        yield tmp_path


def started(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "iggyflux", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "modules")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@pytest.mark.parametrize(("arguments", "number"), LATE)
def test_a_signal_after_the_work_does_not_change_the_exit_code(
    slow: Path, arguments: list[str], number: signal.Signals
) -> None:
    with started(arguments, slow) as running:
        assert running.stderr is not None
        said = []
        for line in running.stderr:
            said.append(line)
            if line == "over\n":
                running.send_signal(number)
        code = running.wait(60)

    assert code == 0, said
    assert "over\n" in said


AT_EACH_LINE = """\
import asyncio, os, signal, sys
from asyncio import unix_events
from iggyflux.runner import stop

def leave(block, number, at):
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename not in (stop.__file__, unix_events.__file__):
            return None
        lines += event == "line"
        if event == "line" and lines == at:
            os.kill(os.getpid(), number)
        return trace

    async def main():
        with block:
            sys.settrace(trace)
        sys.settrace(None)

    asyncio.run(main())
    return lines

name, number = sys.argv[1], signal.Signals[sys.argv[2]]
for at in range(1, 1000):
    pid = os.fork()
    if not pid:
        given = (stop.Stop() if name != "calling_on_hangup" else print,)
        block = getattr(stop, name)(*given, **({} if name == "stopping_as_worker" else {"for_good": True}))
        os._exit(9 if leave(block, number, at) < at else 7)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 9:
        break
    print(code)
"""


@pytest.mark.parametrize(
    ("block", "number"),
    [("stopping_on_signals", "SIGTERM"), ("stopping_as_worker", "SIGTERM"), ("calling_on_hangup", "SIGHUP")],
)
def test_a_signal_at_any_line_of_the_end_of_the_work_ends_no_process(block: str, number: str) -> None:
    """Each line of ours and of the event loop: a busy system may hold the process up there for as long as it likes."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EACH_LINE, block, number], capture_output=True, text=True, timeout=60, check=True
    )

    codes = done.stdout.split()
    assert len(codes) > 3
    assert set(codes) == {"7"}


def test_workers_that_are_signalled_before_their_supervisor_leave_it_well(slow: Path) -> None:
    """It passes the signal on to workers whose work is over: they end with 0 all the same."""
    arguments = ["run", "pipeline.yaml", "--workers", "2", "--log-format", "json"]
    with started(arguments, slow) as running:
        assert running.stderr is not None
        pids: dict[int, int] = {}
        connected, over = set(), set()
        for line in running.stderr:
            event = json.loads(line) if line.startswith("{") else {}
            worker = event.get("worker")
            if event.get("event") == "worker.started":
                pids[worker] = event["pid"]
            elif event.get("event") == "route.connected":
                connected.add(worker)
                if len(connected) == 2:
                    for pid in pids.values():
                        os.kill(pid, signal.SIGTERM)
            elif event.get("event") == "worker.said" and event["line"] == "over":
                over.add(worker)
                if len(over) == 2:
                    break
        running.send_signal(signal.SIGTERM)
        rest = running.stderr.read()
        code = running.wait(60)

    assert len(over) == 2
    assert code == 0, rest
