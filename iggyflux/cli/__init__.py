"""The command line: builds objects, calls them, prints results.

Each command is a module that is imported when the command is called, so that `--version` and a wrong option cost
nothing.  Results go to stdout, everything else to stderr.  What a command raises becomes an exit code here and nowhere
else; a traceback that a user sees is a bug.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, NoReturn, cast

import click

from iggyflux import __version__
from iggyflux.cli.output import ExitCode, exit_code_of, flush_results, leave_at_once, result_line, silence_closed_pipes
from iggyflux.errors import closest
from iggyflux.interrupts import INTERRUPT_CODE, leave_on_interrupt, raise_on_interrupt


@dataclass(frozen=True, slots=True)
class Entry:
    """A command's module, and its line in the overview (the first sentence of its help)."""

    module: str
    section: str
    summary: str
    attribute: str = "command"


_WRITE, _RUN, _LOOK = "Write a mapping", "Run it", "Reference"

COMMANDS: Final[dict[str, Entry]] = {
    "init": Entry("init", _WRITE, "Write a commented starter mapping or pipeline."),
    "infer": Entry("infer", _WRITE, "Write a commented mapping from sample messages."),
    "import": Entry("import_", _WRITE, "Convert the configuration of another tool, with a report."),
    "validate": Entry("validate", _WRITE, "Check mapping and pipeline files."),
    "dry-run": Entry("dry_run", _WRITE, "Show the lines that a mapping renders from sample messages."),
    "test": Entry("test", _WRITE, "Run the examples in mapping files."),
    "diff": Entry("diff", _WRITE, "Compare what two versions of a mapping make of the same messages."),
    "eval": Entry("eval", _WRITE, "Evaluate one expression on JSON documents."),
    "lsp": Entry("lsp", _WRITE, "Run the language server for editors, on stdin and stdout."),
    "playground": Entry("playground", _WRITE, "Write a mapping in the browser, and see what comes of samples."),
    "explain": Entry("explain", _WRITE, "Describe what a mapping reads and writes, and show its code."),
    "run": Entry("run", _RUN, "Run the routes of a pipeline file."),
    "load": Entry("load", _RUN, "Load archives of messages into InfluxDB."),
    "check": Entry("check", _RUN, "Check the connections and permissions of a pipeline file."),
    "status": Entry("status", _RUN, "Show what the routes of a pipeline have settled, also while none runs."),
    "audit": Entry("audit", _RUN, "Compare what a range of messages must have made with what InfluxDB holds."),
    "cursor": Entry("cursor", _RUN, "Show or change how far readers have read.", "cursor"),
    "state": Entry("state", _RUN, "Show, check or back up the state of routes on disk."),
    "dead-letters": Entry("dead_letters", _RUN, "Look at dead letters: how many, why, which; export and remove them."),
    "replay": Entry("replay", _RUN, "Send dead letters again."),
    "regroup": Entry("regroup", _RUN, "Rebuild an Apache Iggy consumer group without its members; keep its offsets."),
    "resend": Entry("resend", _RUN, "Send a range of messages of Apache Iggy again."),
    "log": Entry("log", _RUN, "Fill, read and inspect a message log on disk."),
    "sim": Entry("sim", _RUN, "Simulate an InfluxDB server, for tests and demos.", "sim"),
    "schema": Entry("schema", _LOOK, "Print the JSON Schema of a document, or with --of what a mapping writes."),
    "functions": Entry("functions", _LOOK, "List the functions of expressions, or describe one."),
    "codes": Entry("codes", _LOOK, "List the codes of problems, or explain one."),
    "completion": Entry("completion", _LOOK, "Print the script that completes commands in a shell."),
}


class CommandLine(click.Group):
    """The group of all commands: loads them one by one, and turns whatever they raise into an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(f"iggyflux.cli.{entry.module}"), entry.attribute)
        raise_on_interrupt()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = closest(args[0], list(COMMANDS))
            hint = f"did you mean {near!r}?" if near else "'iggyflux --help' lists the commands"
            raise click.UsageError(f"no such command {args[0]!r} ({hint})", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, COMMANDS))
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                rows = [(name.ljust(width), e.summary) for name, e in COMMANDS.items() if e.section == section]
                formatter.write_dl(rows)

    def main(  # type: ignore[override]  # never returns
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        """Run the command line and exit: 0 ok, 1 problems found, 2 usage, 3 the run stopped, 130 interrupted."""
        prog_name = prog_name or "iggyflux"
        self._main_shell_completion({}, prog_name, complete_var)
        extra.pop("standalone_mode", None)
        code: int = ExitCode.OK
        try:
            with self.make_context(prog_name, list(sys.argv[1:] if args is None else args), **extra) as ctx:
                code = self.invoke(ctx) or ExitCode.OK
            flush_results()
        except BaseException as error:  # the one place where everything ends
            code = exit_code_of(error)
        silence_closed_pipes()
        sys.exit(int(code))


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        result_line(f"iggyflux {__version__}")
        ctx.exit()


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 ok, 1 problems found, 2 wrong usage, 3 the run stopped.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def command_line() -> None:
    """Move data between Apache Iggy and InfluxDB as mapping documents say.

    \b
    Example:
      iggyflux init mapping.yaml
      iggyflux dry-run mapping.yaml samples.ndjson
    """


def main() -> NoReturn:
    """Run the `iggyflux` command as a process."""
    # jsonschema imports it where it is installed, which takes 0.8 s, for a check of formats that is not made here.
    sys.modules.setdefault("rfc3987_syntax", cast(Any, None))
    try:
        command_line.main()
    except KeyboardInterrupt:  # a second one, while the first ends the command
        leave_at_once(INTERRUPT_CODE)
    except SystemExit as leaving:
        leave_on_interrupt()
        if "apache_iggy" in sys.modules:  # its threads sometimes abort a process that shuts down
            leave_at_once(leaving.code if isinstance(leaving.code, int) else ExitCode.OK)
        raise
