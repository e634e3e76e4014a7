"""What commands print, and how they end: results go to stdout, messages to stderr; exit codes.

Texts are always styled here; click removes the colours if the stream is not a terminal or NO_COLOR is set.
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
    """The exit codes of the process."""

    OK = 0
    PROBLEMS = 1
    USAGE = 2
    STOPPED = 3
    INTERRUPTED = 130
    CLOSED_PIPE = 141


def result(text: str | bytes) -> None:
    """Write to stdout; text is encoded as UTF-8, and no line feed is added."""
    if sys.stdout is not None:  # the parent process can close it
        sys.stdout.buffer.write(text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace"))


def flush_results() -> None:
    """Flush stdout."""
    if sys.stdout is not None:
        sys.stdout.flush()


def result_line(text: str) -> None:
    """Write a line to stdout; colours survive on a terminal only."""
    click.echo(text)


def talk(text: str = "") -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)


def note(text: str) -> None:
    """Print a note on stderr."""
    talk(click.style("note: ", fg="cyan") + text)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    talk(click.style("warning: ", fg="yellow", bold=True) + text)


def json_text(value: Any, *, indent: bool = False) -> str:
    """Return `value` as JSON; only characters that UTF-8 cannot encode are escaped."""
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
    """Return the text of a `Problem`, with colours."""
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
    """Return the number of problems, for example `2 errors, 1 warning`."""
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
    """Report `error` to the user and return the exit code.  Raise nothing; show a traceback only if IGGYFLUX_TRACEBACK
    is set."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else ExitCode.OK if error.code is None else ExitCode.STOPPED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    try:
        if os.environ.get("IGGYFLUX_TRACEBACK") and not isinstance(error, click.ClickException):
            traceback.print_exception(error)
        return _report(error)
    except BrokenPipeError:
        return ExitCode.CLOSED_PIPE


def _report(error: BaseException) -> int:
    for kinds, report in _ENDINGS:
        if isinstance(error, kinds):
            return report(error)
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


def _document(error: Any) -> int:
    show_problems(error.problems)
    return ExitCode.PROBLEMS


def _stopped(error: Any) -> int:
    show_stop(error)
    return ExitCode.STOPPED


def _refused(error: Any) -> int:
    if hasattr(error, "code") and hasattr(error, "hint"):
        show_stop(error)
    else:
        talk(f"{click.style('error', fg='red', bold=True)}: {error}")
    return ExitCode.PROBLEMS


_ENDINGS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[Any], int]], ...] = (
    (click.ClickException, _usage),
    ((click.Abort, KeyboardInterrupt), _interrupted),
    (OSError, _operating_system),
    (DocumentError, _document),
    (Stopped, _stopped),
    (IggyfluxError, _refused),
)
"""How an exception is reported: the first kind that fits decides."""


def _bug(error: BaseException) -> int:
    """Report an unknown exception by type and place only: its text can contain data or a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}iggyflux{os.sep}" in frame.filename] or list(frames)
    place = f" in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    talk(
        f"{click.style('a bug in iggyflux', fg='red', bold=True)}: {type(error).__name__}{place}; please report it "
        "with the command (IGGYFLUX_TRACEBACK=1 shows the traceback)"
    )
    return ExitCode.STOPPED


def silence_closed_pipes() -> None:
    """Flush stdout and stderr, so that the interpreter reports no closed pipe at exit."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def leave_at_once(code: int) -> NoReturn:
    """Flush the output and end the process without the interpreter's shutdown."""
    silence_closed_pipes()
    logging.shutdown()
    os._exit(code)


@contextmanager
def attached(handler: logging.Handler, level: int) -> Iterator[None]:
    """Attach `handler` to the package's logger."""
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
    """Print a warning that generated code failed, if `fault` is not None."""
    if fault is not None:
        talk(f"warning: a bug in iggyflux: {fault}; the reference plan rendered this batch (please report it)")
