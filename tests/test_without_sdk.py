"""Where the SDK of Apache Iggy cannot be installed everything but Iggy works, and Iggy says why it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 60
WITHOUT = "import sys; sys.modules['apache_iggy'] = None; from iggyflux.cli import main; main()"
MAPPING = """\
iggyflux: 1
kind: writer
name: kilns
from: {stream: plant, topic: kilns}
points: {measurement: {const: kiln}, fields: {heat: heat}, timestamp: {expr: at, format: unix_s}}
"""
FROM_LOG = "iggyflux: 1\nfrom: log:data\nto: file:out.lp\nrun: [{mapping: kilns.yaml}]\n"
FROM_IGGY = FROM_LOG.replace("from: log:data", "iggy: {address: 'localhost:1', username: u, password: '${PW}'}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kilns.yaml").write_text(MAPPING)
    (tmp_path / "log.yaml").write_text(FROM_LOG)
    (tmp_path / "iggy.yaml").write_text(FROM_IGGY)
    return tmp_path


def without_sdk(folder: Path, *arguments: str, stdin: str = "") -> tuple[int, str]:
    """Run a command in a Python that cannot import the SDK; return its exit code and both streams."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        cwd=folder,
        env={"PW": "lambda"},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def test_what_needs_no_iggy_works(folder: Path) -> None:
    appended = without_sdk(folder, "log", "append", "data", "plant/kilns", stdin='{"heat": 1.5, "at": 7}\n')
    checked = without_sdk(folder, "check", "log.yaml")
    ran = without_sdk(folder, "run", "log.yaml", "--until-end")

    assert (appended[0], checked[0], ran[0]) == (0, 0, 0), (appended, checked, ran)
    assert (folder / "out.lp").read_text() == "kiln heat=1.5 7000000000\n"


@pytest.mark.parametrize(
    ("command", "code"), [("check", 1), ("run", 3), ("regroup", 3)], ids=["check", "run", "regroup"]
)
def test_what_needs_iggy_says_why_it_cannot(folder: Path, command: str, code: int) -> None:
    options = {"regroup": ["--mapping", "kilns"]}.get(command, [])
    left, printed = without_sdk(folder, command, "iggy.yaml", *options)

    assert left == code, printed
    assert "IFX765" in printed
    assert "the SDK of Apache Iggy (package apache-iggy) is not installed for Python 3." in printed
    assert "Traceback" not in printed
