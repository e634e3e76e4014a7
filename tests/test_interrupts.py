"""Ctrl-C at any moment of a command: it ends, and Python prints nothing."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
IMPORT = re.compile(r"import time: .*\n")
FIRST = re.compile(r"import time: .* iggyflux\.interrupts\n")
WHOLE = 10**9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interrupts")
    (path / "crane.yaml").write_text(MAPPING, "utf-8")
    (path / "pipeline.yaml").write_text(PIPELINE, "utf-8")
    return path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, what it said, and how many imports it reported after `iggyflux.interrupts`."""

    code: int
    said: str
    imports: int


def interrupted_after(imports: int, command: list[str], folder: Path, number: int) -> Ended:
    """Run a command, and send it a signal when it has made so many imports after `iggyflux.interrupts`."""
    made, said = -1, ""
    # Python reports each import at once, so the moment is the same on a slow machine.
    started = [sys.executable, "-X", "importtime", "-m", "iggyflux", *command]
    with subprocess.Popen(
        started, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if not IMPORT.fullmatch(line):
                said += line
            elif made >= 0 or FIRST.fullmatch(line):
                made += 1
                if made == imports:
                    running.send_signal(number)
        code = running.wait(60)
    return Ended(code, said, made)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupt_while_a_command_begins_is_silent(folder: Path, name: str) -> None:
    """Whatever is being imported, Ctrl-C ends with 130, and SIGTERM as the system has it; without output of Python."""
    whole = interrupted_after(WHOLE, COMMANDS[name], folder, signal.SIGINT).imports
    assert whole > 50

    @settings(max_examples=8)
    @given(st.integers(1, whole), st.sampled_from([signal.SIGINT, signal.SIGINT, signal.SIGTERM]))
    def holds(imports: int, number: int) -> None:
        ended = interrupted_after(imports, COMMANDS[name], folder, number)

        assert not re.search("Traceback|Interrupt|ignored|Error", ended.said.replace("ERROR", "")), ended.said
        if imports < whole * 0.8:  # later, a run has begun, and finishes what it does
            assert (ended.code, ended.said.strip()) == ({signal.SIGINT: 130, signal.SIGTERM: -15}[number], "")

    holds()
