"""The command line as tests call it: in this process, or as a process of its own; exit code and whole output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from iggyflux.cli import command_line

TIMEOUT_SECONDS = 120


RATE = re.compile(r"(?<=acknowledged), [\d,]+ (?:message|row)s? a second\b")
"""What the summary of a run says only if it took more than two seconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str


def iggyflux(*args: str | Path, stdin: str | bytes = "", env: dict[str, str] | None = None) -> Outcome:
    """Run a command in this process."""
    texts = [str(arg) for arg in args]
    with keeping_signals():
        result = CliRunner().invoke(command_line, texts, input=stdin, env=env, prog_name="iggyflux")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@contextmanager
def keeping_signals() -> Iterator[None]:
    """Restore the handlers after the block: a command that ran ignores signals, since its process ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def process(
    *args: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None
) -> Outcome:
    """Run a command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "iggyflux", *(str(arg) for arg in args)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=TIMEOUT_SECONDS,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
