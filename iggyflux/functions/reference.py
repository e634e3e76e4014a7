"""The table of functions as a page of the reference, and the message and tables of its examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from iggyflux.functions import FUNCTIONS, GROUPS, Function
from iggyflux.records import JSON, Message

EXAMPLE_MESSAGE: Final = Message(
    payload=b"",
    stream="factory",
    topic="readings",
    partition=2,
    offset=7,
    timestamp_us=1_700_000_000_000_001,
    origin_timestamp_us=1_700_000_000_000_000,
    id=42,
    headers={"tenant": "acme"},
)
EXAMPLE_PARENTS: Final[tuple[JSON, ...]] = ({"rack": "r1"},)
EXAMPLE_TABLES: Final[dict[str, dict[str, JSON]]] = {"sites": {"b1": "Berlin", "7": "Oslo"}}

_INTRODUCTION: Final = """\
# Functions

The functions of JMESPath, as jmespath.py 1.1 has them, are marked *standard*; the others are added by iggyflux. All are
pure: no clock, no random values, no network. `[name: type]` is optional, `name...` accepts any number of arguments.

A standard function fails on null, as the JMESPath specification says. An added function returns null if one of its
arguments is null or missing, as a plain path does, unless its description says otherwise.

The examples with `meta` and `header` run with a message of the topic `readings` at offset 7, those with `lookup` with
`tables: {sites: {b1: Berlin, "7": Oslo}}`, those with `parent` on an element inside `{"rack": "r1"}`. `IFX…` is the
[code](errors.md) of a failure.
"""


def render_reference(functions: Iterable[Function] = FUNCTIONS.values()) -> str:
    """Return docs/functions.md: every function by its group, with its examples."""
    listed = list(functions)
    return "\n".join([_INTRODUCTION, *(_render_group(group, listed) for group in GROUPS)])


def _render_group(group: str, functions: list[Function]) -> str:
    members = [function for function in functions if function.group == group]
    return f"## {group.capitalize()}\n\n" + "\n".join(_render(function) for function in members)


def _render(function: Function) -> str:
    standard = " *(standard)*" if function.builtin else ""
    lines = [f"### `{function.name}`{standard}", "", f"`{function.signature}`", "", function.description, ""]
    parameters = [parameter for parameter in function.parameters if parameter.description or parameter.constant]
    for parameter in parameters:
        literal = "a literal" if parameter.constant else ""
        lines.append(f"- `{parameter.name}`: {', '.join(word for word in (parameter.description, literal) if word)}")
    if parameters:
        lines.append("")
    lines += ["| expression | on | gives |", "|---|---|---|"]
    for expression, document, result in function.examples:
        lines.append(f"| {_cell(expression)} | {_cell(document)} | {_cell(result)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return code for a cell of a table: bars are escaped, and more backticks surround it than it contains."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
