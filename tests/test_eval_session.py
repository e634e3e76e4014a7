"""`eval` without an expression: a session on a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iggyflux.disk import has_input
from tests.shell import Outcome, iggyflux

PATIENCE = 60
SAMPLES = '{"werk": {"ort": "köln"}, "gewicht": [1.5, 2]}\n{"werk": {"ort": "bonn"}, "gewicht": []}\n'


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("waage.ndjson").write_text(SAMPLES, "utf-8")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands take stdin for a terminal."""
    monkeypatch.setattr("iggyflux.cli.eval.stdin_is_terminal", lambda: True)


def typed(*lines: str, words: tuple[str, ...] = ("waage.ndjson",)) -> Outcome:
    return iggyflux("eval", *words, stdin="".join(f"{line}\n" for line in lines))


@pytest.mark.usefixtures("session")
def test_each_line_is_evaluated_on_the_sample_and_no_error_ends_the_session() -> None:
    outcome = typed(
        "werk.ort", "", "lenght(@)", "werk.", "to_integer('x')", "sum(werk)", ":9", ":0", ":x", "gewicht[1]"
    )

    assert outcome.code == 0
    assert [line for line in outcome.out.replace("> ", "").splitlines() if line] == ['"köln"', "2"]
    assert "did you mean" in outcome.err
    assert outcome.err.count("error") == 7
    assert "no sample 9; the last one is :2" in outcome.err


@pytest.mark.usefixtures("session")
def test_another_sample_is_chosen_by_its_number() -> None:
    outcome = typed("werk.ort", ":2", "werk.ort", ":1", "werk.ort")

    assert re.findall(r'"\w+"', outcome.out) == ['"köln"', '"bonn"', '"köln"']
    assert "waage.ndjson:2" in outcome.err


@pytest.mark.usefixtures("session")
def test_options_of_eval_hold_in_a_session() -> None:
    assert typed("werk.ort", words=("waage.ndjson", "--raw")).out == "> köln\n> "
    Path("m.ndjson").write_text('{"payload": {"v": 1}, "offset": 71}\n')
    assert typed("meta('offset')", words=("m.ndjson", "--envelope")).out == "> 71\n> "
    Path("t.csv").write_text("a\n")
    assert typed("@", words=("t.csv", "--payload", "text")).out.startswith("> ")


@pytest.mark.usefixtures("session")
def test_a_session_without_a_file_is_on_null() -> None:
    assert typed("`1`", "@", words=()).out == "> 1\n> null\n> "


@pytest.mark.usefixtures("session")
def test_a_session_with_a_mapping_is_on_the_samples_beside_it() -> None:
    Path("waage.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\ntables: {orte: {köln: K}}\n"
        "points: {measurement: {const: m}, tags: {ort: 'lookup(`\"orte\"`, werk.ort)'}, fields: {kg: 'gewicht[0]'}}\n",
        "utf-8",
    )
    outcome = typed("lookup('orte', werk.ort)", words=("--mapping", "waage.yaml", "--raw"))

    assert outcome.out == "> K\n> "


@pytest.mark.usefixtures("session")
def test_a_sample_that_cannot_be_read_is_reported_and_left_out() -> None:
    Path("waage.ndjson").write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    outcome = typed("a", ":2", "a")

    assert (outcome.code, re.findall(r"\d", outcome.out)) == (0, ["1", "3"])
    assert "waage.ndjson:2: error[IFX404]" in outcome.err
    Path("waage.ndjson").write_text("")
    assert typed("a").code == 2


def test_in_a_pipe_an_expression_is_needed_and_a_file_name_is_one() -> None:
    """Nothing changes for scripts."""
    assert iggyflux("eval", stdin="{}").code == 2
    outcome = iggyflux("eval", "waage", stdin='{"waage": 5}')
    assert outcome.out == "5\n"
    Path("waage").write_text("{}")
    assert iggyflux("eval", "waage", stdin='{"waage": 5}').out == "5\n"


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "iggyflux", *words]
        environment = {**os.environ, "TERM": "dumb", "INPUTRC": os.devnull}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def until(self, wanted: str, nudge: Callable[[], None] = lambda: None) -> None:
        """Read until `wanted` comes, and forget all up to it; call `nudge` for each second in which nothing comes."""
        end = time.monotonic() + PATIENCE
        while wanted not in self.seen:
            assert time.monotonic() < end, self.seen
            if has_input(self.master, 1):
                try:
                    self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
                except OSError:  # the process has ended
                    assert wanted in self.seen, self.seen
            else:
                nudge()
        self.seen = self.seen.partition(wanted)[2]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    running = Terminal("eval", "waage.ndjson")
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        os.close(running.master)


def test_a_session_on_a_terminal_has_a_history_and_completes_and_ends_with_the_end_of_input(terminal: Terminal) -> None:
    """Ctrl-C leaves a line, an arrow brings the last one back, a tab completes a member, Ctrl-D ends it."""
    terminal.until("Ctrl-D ends it")
    terminal.until("> ")
    terminal.type("werk.ort\r")
    terminal.until('"köln"')
    terminal.until("> ")
    terminal.type("\x1b[A\r")
    terminal.until('"köln"')
    terminal.until("> ")
    terminal.type("gewi\t[0]\r")
    terminal.until("1.5")
    terminal.until("> ")
    terminal.type("half a line")
    terminal.until("half a line")
    # A signal that comes just before Python waits for a key is seen with the next one.
    terminal.until("> ", lambda: os.killpg(terminal.process.pid, signal.SIGINT))
    terminal.type("gewicht[1]\r")
    terminal.until("2\r\n")
    terminal.until("> ")
    terminal.type("\x04")

    assert terminal.process.wait(PATIENCE) == 0
