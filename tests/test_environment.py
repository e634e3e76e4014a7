"""Tests do not see the caller's environment variables that could change results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import environment

HOSTILE = {
    "INFLUX_TOKEN": "caller",
    "INFLUX_URL": "http://caller.example",
    "IGGY_PASSWORD": "caller",
    "IGGYFLUX_TRACEBACK": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "all_proxy": "http://127.0.0.1:9",
    "TZ": "Asia/Kathmandu",
    "LANG": "tr_TR.UTF-8",
    "NO_COLOR": "1",
    "FORCE_COLOR": "1",
    "COLUMNS": "40",
    "TERM": "dumb",
    "_IGGYFLUX_COMPLETE": "bash_source",
}

INNER = f"""
import os, time

SEEN = dict(os.environ)

def test_it():
    assert {set(HOSTILE) - set(environment.SET)!r} & {{*SEEN, *os.environ}} == set()
    assert (os.environ["COLUMNS"], time.tzname) == ("80", ("UTC", "UTC"))
"""


def test_only_what_is_listed_is_left() -> None:
    found = {**HOSTILE, "PATH": "/bin", "IGGYFLUX_TEST_IGGY": "127.0.0.1:1"}

    environment.clear(found)

    assert found == {"PATH": "/bin", "IGGYFLUX_TEST_IGGY": "127.0.0.1:1", "COLUMNS": "80", "TZ": "UTC"}


def test_a_run_of_the_tests_sees_nothing_else(tmp_path: Path) -> None:
    """Not when test modules are imported, nor in a test, nor in a worker or a process that it starts."""
    (tmp_path / "test_inner.py").write_text(INNER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "conftest", "-p", "no:cacheprovider"],
        env={**os.environ, **HOSTILE, "PYTHONPATH": str(Path(__file__).parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
