"""`iggyflux functions`: lists the functions of expressions."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from iggyflux.cli.output import ExitCode, Styled, json_text, result, result_line, talk
from iggyflux.errors import closest
from iggyflux.functions import FUNCTIONS, Function


class FunctionName(click.ParamType[str]):
    """A function's name, completed from the table."""

    name = "function"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        return [CompletionItem(name, help=f.signature) for name, f in FUNCTIONS.items() if name.startswith(incomplete)]


@click.command(name="functions")
@click.argument("name", required=False, type=FunctionName())
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(name: str | None, form: str) -> int:
    """List the functions of expressions, or describe one.

    \b
    Example:
      iggyflux functions regex_capture
    """
    if name is not None:
        name = name.removesuffix("()")
    if name is not None and name not in FUNCTIONS:
        near = closest(name, list(FUNCTIONS))
        talk(f"no such function: {name}" + (f" (did you mean {near}?)" if near else ""))
        return ExitCode.PROBLEMS
    chosen = list(FUNCTIONS.values()) if name is None else [FUNCTIONS[name]]
    if form == "json":
        result(json_text([_as_dict(function) for function in chosen], indent=True) + "\n")
    elif name is None:
        _list(chosen)
    else:
        _describe(chosen[0])
    return ExitCode.OK


def _as_dict(function: Function) -> dict[str, object]:
    examples = [dict(zip(("expression", "document", "result"), each, strict=True)) for each in function.examples]
    return {
        "name": function.name,
        "group": function.group,
        "signature": function.signature,
        "description": function.description,
        "builtin": function.builtin,
        "examples": examples,
    }


def _list(functions: list[Function]) -> None:
    for group in dict.fromkeys(function.group for function in functions):
        result_line(Styled(f"{group}:", bold=True))
        for function in functions:
            if function.group == group:
                result_line(f"  {function.signature}")


def _describe(function: Function) -> None:
    result_line(Styled(function.signature, bold=True))
    result_line("")
    for line in click.wrap_text(function.description, 100, initial_indent="  ", subsequent_indent="  ").splitlines():
        result_line(line)
    for parameter in function.parameters:
        if parameter.description:
            result_line(f"  {parameter.name}: {parameter.description}")
    if function.examples:
        result_line("")
    for expression, document, outcome in function.examples:
        on = "" if document in ("{}", "null") else f"   on {document}"
        result_line(f"  {expression}{on}")
        result_line(f"    → {outcome}")
