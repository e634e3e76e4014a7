"""`iggyflux codes`: the registry of codes, for people."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

import click
from click.shell_completion import CompletionItem

from iggyflux.cli.output import ExitCode, Styled, json_text, result, result_line, talk
from iggyflux.codes import CODES
from iggyflux.errors import closest


class CodeName(click.ParamType[str]):
    """A code in upper or lower case, completed from the registry."""

    name = "code"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return str(value).upper()

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        found = (entry for code, entry in sorted(CODES.items()) if code.startswith(incomplete.upper()))
        return [CompletionItem(entry.code, help=entry.title) for entry in found]


@click.command(name="codes")
@click.argument("code", required=False, type=CodeName())
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(code: str | None, form: str) -> int:
    """List the codes of problems, or explain one.

    Every problem, failed record and stop has a code, whose meaning never changes. The beginning of a code lists all
    codes that begin with it.

    \b
    Example:
      iggyflux codes IFX101
    """
    entries = [CODES[key] for key in sorted(CODES) if key.startswith(code or "")]
    if not entries:
        near = closest(code or "", list(CODES))
        talk(f"no such code: {code}" + (f" (did you mean {near}?)" if near else ""))
        return ExitCode.PROBLEMS
    if form == "json":
        result(json_text([asdict(entry) for entry in entries], indent=True) + "\n")
    elif code not in CODES:
        for entry in entries:
            result_line(Styled(entry.code, bold=True), f"  {entry.title}")
    else:
        entry = entries[0]
        result_line(Styled(entry.code, bold=True), f": {entry.title}")
        for label, text in (("", entry.meaning), ("fix: ", entry.fix), ("example: ", entry.example)):
            if text:
                result_line("")
                for line in _paragraph(label, text).splitlines():
                    result_line(line)
    return ExitCode.OK


def _paragraph(label: str, text: str) -> str:
    """Return `text` wrapped; a text of several lines is part of a document and stays as it is."""
    if "\n" in text:
        return f"  {label.rstrip()}\n{textwrap.indent(text, '    ')}"
    return click.wrap_text(label + text, 100, initial_indent="  ", subsequent_indent="  ")
