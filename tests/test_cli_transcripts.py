"""What people read, as transcripts: each file of cases/cli is a session, with its commands, output and exit codes.

A session begins with the files of cases/cli/files in an empty folder.  `--update-cases` rewrites the transcripts.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from shell import RATE, Outcome, iggyflux

CASES = Path(__file__).parent / "cases" / "cli"
_CHANGING = (
    (re.compile(r"\b\d\d:\d\d:\d\d (?=INFO|WARNING|ERROR)"), "TIME "),
    (RATE, ""),
)


@pytest.mark.parametrize("case", sorted(CASES.glob("*.txt")), ids=lambda path: path.stem)
def test_a_session_reads_as_its_transcript(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update_cases: bool
) -> None:
    """Commands say exactly this, and end with exactly this code."""
    expected = case.read_text("utf-8")
    shutil.copytree(CASES / "files", tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")

    actual = "\n".join(replay(line) for line in expected.split("\n") if line.startswith("$ "))
    if update_cases:
        case.write_text(actual, "utf-8")
        expected = actual

    assert expected == actual


def replay(line: str) -> str:
    """A command's part of the transcript."""
    words = shlex.split(line.removeprefix("$ "))
    stdin = b""
    if words[-2:-1] == ["<"]:
        stdin = Path(words[-1]).read_bytes()
        words = words[:-2]
    if words[0] == "cat":
        return transcript(line, Outcome(0, Path(words[1]).read_text("utf-8"), ""))
    assert words[0] == "iggyflux"
    return transcript(line, iggyflux(*words[1:], stdin=stdin))


def transcript(line: str, outcome: Outcome) -> str:
    parts = [line]
    for mark, text in (("", outcome.out), ("! ", outcome.err)):
        for pattern, word in _CHANGING:
            text = pattern.sub(word, text)
        parts += [f"{mark}{each}".rstrip() for each in text.removesuffix("\n").split("\n") if text]
    if outcome.code:
        parts.append(f"[exit {outcome.code}]")
    return "\n".join(parts) + "\n"
