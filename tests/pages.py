"""Pages of the documentation as a reader follows them: files are written and commands run in order, in one folder.

In a page, `<!-- file: NAME -->` before a block makes a file of it.  A `console` block is a transcript: each line after
`$ ` is a command, and the lines after it are its output on both streams.  `…` at the end of a line matches anything, a
line `…` any number of lines.  A command that ends in ` &` runs until the page ends; it prints one line.  Port 8086 is a
free port here, also where a pipeline of `init` has it as the default of INFLUX_URL.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner
from iggy_server import free_ports
from shell import RATE, keeping_signals

from iggyflux.cli import command_line

PORT = "8086"
TIMEOUT_SECONDS = 120
ELLIPSES = {"…\n": r"(?:.*\n)*", "…": ".*"}
BLOCK = re.compile(
    r"(?:<!-- (?:file: (?P<file>\S+)|runs: (?P<runs>\S+)) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)

PARTS = re.compile(
    r"(?:(?P<before>sed (?:'[^']*'|\"[^\"]*\"|[^'\";&|])*)(?:;| &&) )?"
    r"(?:echo (?P<stdin>'[^']*') \| )?"
    r"(?P<simple>iggyflux .*?)(?: 2>(?P<errors>/dev/null|&1))?(?: \| (?P<end>(?:head|tail) -\d+))?"
)
"""A command of iggyflux, with what may be around it where it runs in this process."""


def blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text("utf-8")))


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a transcript with what it prints."""
    for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = step.partition("\n")
        yield command, printed


def _some_lines(text: str, end: str | None) -> str:
    """Return what `end` (`head -1`, `tail -4`, or nothing) leaves of a text."""
    if end is None:
        return text
    which, number = end.split(" -")
    lines = text.splitlines(keepends=True)
    return "".join(lines[: int(number)] if which == "head" else lines[-int(number) :])


@dataclass
class Terminal:
    """Run commands in `folder`, with `environment`; `in_process` runs iggyflux here, which is ten times as fast."""

    folder: Path
    environment: dict[str, str]
    in_process: bool = True
    until: ExitStack = field(default_factory=ExitStack)
    port: str = field(default_factory=lambda: str(free_ports(1)[0]))

    def __post_init__(self) -> None:
        self.environment["INFLUX_URL"] = f"http://127.0.0.1:{self.port}"

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(PORT, self.port), "utf-8")

    def transcript(self, text: str) -> str:
        """Run a transcript; return it with its current output, keeping the `…` of `text` where they match."""
        return "".join(self._step(command, expected) for command, expected in commands(text))

    def _step(self, command: str, expected: str) -> str:
        printed = RATE.sub("", self.run(command))
        pieces = re.split(r"(^…\n|…(?=\n|$))", expected, flags=re.MULTILINE)
        pattern = "".join(ELLIPSES.get(piece) or re.escape(piece) for piece in pieces)
        return f"$ {command}\n{expected if re.fullmatch(pattern, printed) else printed}"

    def run(self, command: str) -> str:
        """Return what a command prints on both streams."""
        return self._run(command.replace(PORT, self.port)).replace(self.port, PORT)

    def _run(self, command: str) -> str:
        if command.startswith("export "):
            self.environment |= dict(each.split("=", 1) for each in shlex.split(command)[1:])
            return ""
        if command.endswith(" &"):
            return self._start(command.removesuffix(" &"))
        parts = PARTS.fullmatch(command)
        outside_quotes = re.sub(r"'[^']*'|\"[^\"$`]*\"", "", parts["simple"]) if parts else ""
        if not self.in_process or parts is None or re.search(r"[|<>&;$\\]", outside_quotes):
            return self._shell(command)
        before = self._shell(parts["before"]) if parts["before"] else ""
        stdin = "".join(shlex.split(parts["stdin"])) + "\n" if parts["stdin"] else ""
        words = shlex.split(parts["simple"], comments=True)[1:]
        with keeping_signals():
            result = CliRunner().invoke(command_line, words, input=stdin, env=self.environment, prog_name="iggyflux")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if parts["end"] and not parts["errors"]:
            return before + result.stderr + _some_lines(result.stdout, parts["end"])
        printed = result.stdout if parts["errors"] == "/dev/null" else result.output
        return before + _some_lines(printed, parts["end"])

    def _shell(self, command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        ).stdout

    def _start(self, command: str) -> str:
        """Start a command that runs until the page ends; return its first line."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.until.callback(process.communicate, timeout=TIMEOUT_SECONDS)
        self.until.callback(process.terminate)
        assert process.stdout is not None
        return process.stdout.readline()
