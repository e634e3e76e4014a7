"""`dry-run --watch`: what was saved is rendered, whatever way an editor saves it."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.cli.watch import POLL_SECONDS, look, wait_for_change
from tests.shell import iggyflux

MAPPING = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: NAME}, fields: {kg: gewicht}, timestamp: {expr: zeit, format: unix_s}}
"""
PATIENCE = 60


class Watching:
    """A running `dry-run --watch`, and the lines that it prints on both streams."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "iggyflux", "dry-run", *words, "--watch"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as printed:
            for line in printed:
                self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def until(self, wanted: str) -> list[str]:
        """The lines up to the first that contains `wanted`."""
        found: list[str] = []
        while not found or wanted not in found[-1]:
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, found
            found.append(line)
        return found

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(MAPPING.replace("NAME", "one"))
    Path("samples").write_text('{"gewicht": 1, "zeit": 5}\n')
    running = Watching("m.yaml", "samples")
    try:
        running.until("Ctrl-C ends it")
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        running.reader.join()


def test_every_save_is_rendered_and_nothing_else_ends_it_but_an_interrupt(watching: Watching) -> None:
    """In place, by a rename, by removing it first; the mapping or the samples; a broken document in between."""
    Path("m.yaml").write_text(MAPPING.replace("NAME", "two"))
    assert "two kg=1.0 5000000000" in watching.until("two kg")

    Path("new").write_text(MAPPING.replace("NAME", "three"))
    Path("new").replace("m.yaml")
    watching.until("three kg=1.0 5000000000")

    Path("samples").unlink()
    Path("samples").write_text('{"gewicht": 2, "zeit": 6}\n')
    watching.until("three kg=2.0 6000000000")

    Path("m.yaml").write_text(MAPPING.replace("gewicht", "lenght(gewicht)"))
    watching.until("error[IFX20")
    Path("m.yaml").write_text("kind: [")
    watching.until("error[IFX101]")
    Path("m.yaml").write_text(MAPPING.replace("NAME", "four"))
    watching.until("four kg=2.0 6000000000")

    assert watching.interrupt() == 130


def test_what_a_watch_prints_clears_nothing(watching: Watching) -> None:
    """There is no control character in it, and each round is printed whole."""
    Path("m.yaml").write_text(MAPPING.replace("NAME", "two"))
    printed = "\n".join(watching.until("lines")[:-1])

    assert "note: m.yaml: saved" in printed  # and not the samples, which are as they were
    assert all(character.isprintable() or character == "\n" for character in printed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m.yaml", "-"], "--watch needs a file"),
        (["m.yaml", "--from", "iggy"], "--watch needs a file"),
        (["m.yaml", "missing"], "cannot read missing"),
        (["m.yaml"], "has no examples"),
    ],
)
def test_what_cannot_be_watched_is_a_wrong_usage(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(MAPPING)

    outcome = iggyflux("dry-run", *words, "--watch")

    assert (outcome.code, said in outcome.err) == (2, True)


def test_a_closed_pipe_ends_a_watch(tmp_path: Path) -> None:
    """As it ends every other command: not at the next save, but at the next line."""
    (tmp_path / "m.yaml").write_text(MAPPING)
    (tmp_path / "samples").write_text('{"gewicht": 1, "zeit": 5}\n' * 50_000)
    command = f"{sys.executable} -m iggyflux dry-run m.yaml samples --watch 2>/dev/null | head -1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, timeout=PATIENCE, check=False
    )

    assert done.returncode == 141


STEPS: dict[str, Callable[[Path], object]] = {
    "write": lambda file: file.write_text("x" * (1 + file.stat().st_size if file.exists() else 1)),
    "remove": lambda file: file.unlink(missing_ok=True),
    "touch": lambda file: file.exists() and os.utime(file, ns=(1, file.stat().st_mtime_ns + 1_000)),
    "nothing": lambda file: None,
}


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(sorted(STEPS))), max_size=8))
def test_a_change_is_seen_when_it_is_complete_and_not_before(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    """A model of an editor acts between two looks; the wait ends at the second look that finds the same new files."""
    folder = tmp_path_factory.mktemp("files")
    files = [folder / "a", folder / "b"]
    for file in files:
        file.write_text("begin")
    before = look(files)
    waiting = [*steps, (0, "write"), (1, "write"), (0, "nothing")]
    looks = [before]

    def act(seconds: float) -> None:
        assert seconds == POLL_SECONDS >= 0.2
        number, kind = waiting.pop(0)
        STEPS[kind](files[number])
        looks.append(look(files))

    assert wait_for_change(files, before, act) == looks[-1]

    assert looks[-1] == looks[-2] != before
    assert None not in looks[-1]
    assert not any(one == other != before and None not in other for one, other in pairwise(looks[:-1]))
