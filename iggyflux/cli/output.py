"""The one writer of the command line: results go to stdout, messages to stderr; and how commands end.

No other module writes to the terminal.  A line consists of plain texts and `Styled` ones.  Both are escaped
here, so that only styles become control characters; these are omitted if the stream is not a terminal, TERM is dumb or
NO_COLOR is set.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import click

from iggyflux.disk import named, remedy
from iggyflux.errors import DocumentError, IggyfluxError, NotConnected, Problem, Stopped, counted
from iggyflux.escapes import escaped, escaped_lines, json_text
from iggyflux.interrupts import INTERRUPT_CODE

__all__ = [
    "ExitCode",
    "Line",
    "Styled",
    "ask",
    "attached",
    "count_problems",
    "exit_code_of",
    "flush_results",
    "has_colours",
    "json_text",
    "leave_at_once",
    "note",
    "plural",
    "problem_lines",
    "read_line",
    "result",
    "result_line",
    "show_problem",
    "show_problems",
    "show_stop",
    "silence_closed_pipes",
    "talk",
    "unstyled",
    "warn",
    "warn_of_fallback",
    "written",
]

plural = counted
_STDOUT = "standard output"


class ExitCode(IntEnum):
    """The exit codes of the process."""

    OK = 0
    PROBLEMS = 1
    USAGE = 2
    STOPPED = 3
    INTERRUPTED = INTERRUPT_CODE
    CLOSED_PIPE = 141


@dataclass(frozen=True, slots=True)
class Styled:
    """A text with a colour, or in bold."""

    text: str
    colour: str | None = None
    bold: bool = False


Line: TypeAlias = tuple[str | Styled, ...]
"""A line of text without its end."""


def unstyled(line: Line) -> str:
    """Return the text of a line without styles."""
    return "".join(part if isinstance(part, str) else part.text for part in line)


def written(line: Line, *, colour: bool = True) -> str:
    """Return a line as it is printed: escaped, then styled."""
    return "".join(
        escaped(part)
        if isinstance(part, str)
        else click.style(escaped(part.text), fg=part.colour, bold=part.bold or None)
        if colour
        else escaped(part.text)
        for part in line
    )


def result(text: str | bytes) -> None:
    """Write data to stdout: as it is for a pipe or a file, escaped for a terminal.  No line feed is added."""
    if sys.stdout is None:  # the parent process can close it
        return
    if sys.stdout.isatty():
        text = escaped_lines(text if isinstance(text, str) else text.decode("utf-8", "backslashreplace"))
    with named(_STDOUT):
        sys.stdout.buffer.write(text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace"))


def flush_results() -> None:
    """Flush stdout, unless it is closed: the language server closes it at the end of a session."""
    if sys.stdout is not None and not sys.stdout.closed:
        with named(_STDOUT):
            sys.stdout.flush()


def result_line(*line: str | Styled) -> None:
    """Print a line on stdout."""
    _print(line)


def talk(*line: str | Styled) -> None:
    """Print a line on stderr."""
    _print(line, err=True)


def _print(line: Line, *, err: bool = False) -> None:
    with named("standard error" if err else _STDOUT):
        click.echo(written(line), err=err, color=None if has_colours() else False)


def has_colours() -> bool:
    """Return whether the user wants colours, and the terminal may have them."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def note(text: str) -> None:
    """Print a note on stderr."""
    talk(Styled("note: ", "cyan"), text)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    talk(Styled("warning: ", "yellow", bold=True), text)


def read_line(prompt: str) -> str | None:
    """Return a line that the user types on the terminal, without its end; None where the input ends."""
    flush_results()
    try:
        return input(prompt)
    except EOFError:
        return None


def ask(question: str) -> None:
    """Ask a question on the terminal.  Raise Abort if the answer is not yes."""
    click.confirm(escaped(question), abort=True, err=True)


# --- problems ---

_SEVERITY_COLOURS = {"error": "red", "warning": "yellow"}


def problem_lines(problem: Problem) -> list[Line]:
    """Return the lines of a problem."""
    head, *rest = problem.render().split("\n")
    if problem.location.file is None and not problem.location.line:
        head = head.removeprefix("<document>: ")
    colour = _SEVERITY_COLOURS[problem.severity]
    place, mark, message = head.partition(f": {problem.severity}[{problem.code}]: ")
    first: Line = (head,)
    if mark:
        first = (Styled(place, bold=True), ": ", Styled(mark[2:-2], colour, bold=True), ": ", message)
    return [first, *(_styled_detail(line, colour) for line in rest)]


def _styled_detail(line: str, colour: str) -> Line:
    stripped = line.strip()
    if stripped.endswith("^") and set(stripped) <= set("| \t^"):
        before, caret, after = line.partition("^")
        return before, Styled(caret, colour), after
    if stripped.startswith("hint: "):
        before, label, after = line.partition("hint:")
        return before, Styled(label, "cyan"), after
    return (line,)


def show_problem(problem: Problem, *before: str | Styled) -> None:
    """Print a problem on stderr, with `before` at the start of its first line."""
    first, *rest = problem_lines(problem)
    for line in ((*before, *first), *rest):
        talk(*line)


def count_problems(problems: Sequence[Problem]) -> str:
    """Return the number of problems, for example `2 errors, 1 warning`."""
    kinds = ("error", "warning")
    counts = {kind: sum(problem.severity == kind for problem in problems) for kind in kinds}
    return ", ".join(plural(count, kind) for kind, count in counts.items() if count) or "no problems"


def show_problems(problems: Iterable[Problem]) -> None:
    """Print problems on stderr, and their number."""
    problems = list(problems)
    for problem in problems:
        show_problem(problem)
    talk(count_problems(problems))


def show_stop(error: Any) -> None:
    """Print an error that has a code, a reason and a hint (`Stopped`, and those of commands) on stderr."""
    talk(Styled(f"error[{error.code}]", "red", bold=True), f": {error.reason}")
    if error.hint:
        talk("    ", Styled("hint:", "cyan"), f" {error.hint}")


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
            for line in "".join(traceback.format_exception(error)).splitlines():
                talk(line)
        return _report(error)
    except BrokenPipeError:
        return ExitCode.CLOSED_PIPE


def _report(error: BaseException) -> int:
    for kinds, report in _ENDINGS:
        if isinstance(error, kinds):
            return report(error)
    return _bug(error)


def _usage(error: click.ClickException) -> int:
    """Report a wrong usage with the words of click."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a group without a command
        for line in error.format_message().splitlines():
            talk(line)
        return ExitCode.USAGE
    if context is not None:
        for line in context.get_usage().splitlines():
            talk(line)
        if context.command.get_help_option(context) is not None:
            option = max(context.command.get_help_option_names(context), key=len)
            talk(f"Try '{context.command_path} {option}' for help.")
        talk()
    message = error.format_message()
    lines = message.splitlines() if isinstance(error, click.MissingParameter) else [message]  # its own lines
    for line in (f"Error: {lines[0]}", *lines[1:]):
        talk(line)
    return error.exit_code


def _interrupted(_error: BaseException) -> int:
    talk()
    return ExitCode.INTERRUPTED


def _operating_system(error: Any) -> int:
    if error.errno == errno.EPIPE:
        return ExitCode.CLOSED_PIPE
    place = f"{error.filename}: " if error.filename is not None else ""
    talk(Styled("error", "red", bold=True), f": {place}{error.strerror or error}")
    if hint := remedy(error):
        talk("    ", Styled("hint:", "cyan"), f" {hint}")
    return ExitCode.STOPPED


def _document(error: Any) -> int:
    show_problems(error.problems)
    return ExitCode.PROBLEMS


def _stopped(error: Any) -> int:
    show_stop(error)
    return ExitCode.STOPPED


def _not_connected(error: Any) -> int:
    return _stopped(Stopped(error.named, "start the server, or correct its address", "IFX611"))


def _refused(error: Any) -> int:
    if hasattr(error, "code") and hasattr(error, "hint"):
        show_stop(error)
    else:
        talk(Styled("error", "red", bold=True), f": {error}")
    return ExitCode.PROBLEMS


_ENDINGS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[Any], int]], ...] = (
    (click.ClickException, _usage),
    ((click.Abort, KeyboardInterrupt), _interrupted),
    (OSError, _operating_system),
    (DocumentError, _document),
    (Stopped, _stopped),
    (NotConnected, _not_connected),
    (IggyfluxError, _refused),
)
"""How an exception is reported: the first kind that fits decides."""


def _bug(error: BaseException) -> int:
    """Report an unknown exception by type and place only: its text can contain data or a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}iggyflux{os.sep}" in frame.filename] or list(frames)
    place = f" in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    advice = "please report it with the command (IGGYFLUX_TRACEBACK=1 shows the traceback)"
    talk(Styled("a bug in iggyflux", "red", bold=True), f": {type(error).__name__}{place}; {advice}")
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
