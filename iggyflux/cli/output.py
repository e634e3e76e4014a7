"""What commands print, and how they end: results as bytes on stdout, talk on stderr, exit codes.

Colours are given freely here; click takes them away where the stream is no terminal or NO_COLOR is set.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import click

from iggyflux.errors import DocumentError, IggyfluxError, Stopped, counted

plural = counted


class ExitCode(IntEnum):
    """What the process says to its caller."""

    OK = 0
    PROBLEMS = 1
    USAGE = 2
    STOPPED = 3
    INTERRUPTED = 130
    CLOSED_PIPE = 141


def result(text: str | bytes) -> None:
    """Write to stdout, byte for byte: text in UTF-8, nothing added."""
    if sys.stdout is not None:  # closed by whoever started us
        sys.stdout.buffer.write(text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace"))


def flush_results() -> None:
    """Let the reader of stdout see what was written so far."""
    if sys.stdout is not None:
        sys.stdout.flush()


def result_line(text: str) -> None:
    """Write a line to stdout; colours survive on a terminal only."""
    click.echo(text)


def talk(text: str = "") -> None:
    """Say a line on stderr."""
    click.echo(text, err=True)


def note(text: str) -> None:
    """Say on stderr what was assumed or is worth knowing."""
    talk(click.style("note: ", fg="cyan") + text)


def warn(text: str) -> None:
    """Warn on stderr."""
    talk(click.style("warning: ", fg="yellow", bold=True) + text)


def json_text(value: Any, *, indent: bool = False) -> str:
    """`value` as JSON in UTF-8; only what UTF-8 has no bytes for is escaped."""
    options: dict[str, Any] = {"indent": 2} if indent else {"separators": (",", ":")}
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value, ensure_ascii=True, **options)
    return text


# --- problems ---

_SEVERITY_COLOURS = {"error": "red", "warning": "yellow"}


def styled_problem(problem: Any) -> str:
    """The text form of a `Problem`, with colours."""
    head, *rest = problem.render().split("\n")
    if problem.location.file is None and not problem.location.line:
        head = head.removeprefix("<document>: ")
    colour = _SEVERITY_COLOURS[problem.severity]
    place, mark, message = head.partition(f": {problem.severity}[{problem.code}]: ")
    if mark:
        head = f"{click.style(place, bold=True)}: {click.style(mark[2:-2], fg=colour, bold=True)}: {message}"
    return "\n".join((head, *(_styled_detail(line, colour) for line in rest)))


def _styled_detail(line: str, colour: str) -> str:
    stripped = line.strip()
    if stripped.endswith("^") and set(stripped) <= set("| \t^"):
        return line.replace("^", "\0", 1).replace("\0", click.style("^", fg=colour), 1)
    if stripped.startswith("hint: "):
        return line.replace("hint:", click.style("hint:", fg="cyan"), 1)
    return line


def count_problems(problems: Sequence[Any]) -> str:
    """`2 errors, 1 warning`."""
    kinds = ("error", "warning")
    counts = {kind: sum(problem.severity == kind for problem in problems) for kind in kinds}
    return ", ".join(plural(count, kind) for kind, count in counts.items() if count) or "no problems"


def show_problems(problems: Iterable[Any]) -> None:
    """Print problems on stderr, and their number."""
    problems = list(problems)
    for problem in problems:
        talk(styled_problem(problem))
    talk(count_problems(problems))


def show_stop(error: Any) -> None:
    """Print an error that has a code, a reason and a hint (`Stopped`, and those of commands) on stderr."""
    talk(click.style(f"error[{error.code}]", fg="red", bold=True) + f": {error.reason}")
    if error.hint:
        talk(f"    {click.style('hint:', fg='cyan')} {error.hint}")


# --- the end ---


def exit_code_of(error: BaseException) -> int:
    """Tell the user what `error` means for them, and give the exit code.  Never raises, never shows a traceback,
    unless IGGYFLUX_TRACEBACK is set."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else ExitCode.OK if error.code is None else ExitCode.STOPPED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    try:
        if os.environ.get("IGGYFLUX_TRACEBACK") and not isinstance(error, click.ClickException):
            traceback.print_exception(error)
        return _told(error)
    except BrokenPipeError:
        return ExitCode.CLOSED_PIPE


def _told(error: BaseException) -> int:
    for kinds, tell in _ENDINGS:
        if isinstance(error, kinds):
            return tell(error)

    if isinstance(error, DocumentError):
        show_problems(error.problems)
        return ExitCode.PROBLEMS
    if isinstance(error, Stopped):
        show_stop(error)
        return ExitCode.STOPPED
    if isinstance(error, IggyfluxError) and hasattr(error, "code") and hasattr(error, "hint"):
        show_stop(error)
        return ExitCode.PROBLEMS
    if isinstance(error, IggyfluxError):
        talk(f"{click.style('error', fg='red', bold=True)}: {error}")
        return ExitCode.PROBLEMS
    return _bug(error)


def _usage(error: Any) -> int:
    error.show()
    return int(error.exit_code)


def _interrupted(_error: BaseException) -> int:
    talk()
    return ExitCode.INTERRUPTED


def _operating_system(error: Any) -> int:
    if error.errno == errno.EPIPE:
        return ExitCode.CLOSED_PIPE
    place = f"{error.filename}: " if error.filename is not None else ""
    talk(f"{click.style('error', fg='red', bold=True)}: {place}{error.strerror or error}")
    return ExitCode.STOPPED


_ENDINGS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[Any], int]], ...] = (
    (click.ClickException, _usage),
    ((click.Abort, KeyboardInterrupt), _interrupted),
    (OSError, _operating_system),
)


def _bug(error: BaseException) -> int:
    """The text of an unknown exception may quote data or a secret: its kind and place are enough for a report."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}iggyflux{os.sep}" in frame.filename] or list(frames)
    place = f" in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    talk(
        f"{click.style('a bug in iggyflux', fg='red', bold=True)}: {type(error).__name__}{place}; please report it "
        "with the command (IGGYFLUX_TRACEBACK=1 shows the traceback)"
    )
    return ExitCode.STOPPED


def silence_closed_pipes() -> None:
    """Keep the interpreter from complaining about a closed stdout or stderr when it exits."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def leave_at_once(code: int) -> NoReturn:
    """End the process without the interpreter's shutdown: commands have closed what they had; the rest is flushed."""
    silence_closed_pipes()
    logging.shutdown()
    os._exit(code)


@contextmanager
def attached(handler: logging.Handler, level: int) -> Iterator[None]:
    """`handler` on the logger of the package."""
    logger = logging.getLogger("iggyflux")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def warn_of_fallback(fault: str | None) -> None:
    """Say that generated code failed, where `fault` is not None."""
    if fault is not None:
        talk(f"warning: a bug in iggyflux: {fault}; the reference plan rendered this batch (please report it)")
