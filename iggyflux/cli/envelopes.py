"""The option `--envelope [auto]`: whether samples are messages with coordinates.

They are never taken so unasked, since a payload can have the same members: there is a note instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

import click

from iggyflux.authoring.samples import SampleFile
from iggyflux.cli.output import note

Envelope: TypeAlias = bool | Literal["auto"]
"""Whether samples are messages with coordinates; "auto": if the first one is."""

_NAMES: Final = ("--envelope", "--message")
_F = TypeVar("_F", bound=Callable[..., Any])


class SamplesCommand(click.Command):
    """A command whose option `--envelope` has a value only if the word `auto` follows it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_with_values(args)))


def _with_values(args: Sequence[str]) -> Iterator[str]:
    rest = deque(args)
    while rest:
        word = rest.popleft()
        if word in _NAMES:
            word += "=auto" if rest and rest[0] == "auto" else "=always"
            if word.endswith("auto"):
                rest.popleft()
        yield word


def envelope_option(text: str, *others: str) -> Callable[[_F], _F]:
    """Return the decorator that adds `--envelope [auto]` to a `SamplesCommand`: its help, and other names of it."""
    return click.option(
        "--envelope",
        *others,
        "envelope",
        type=click.Choice(["always", "auto"]),
        metavar="[auto]",
        callback=lambda _context, _parameter, value: "auto" if value == "auto" else value is not None,
        help=f"{text} With `auto`, only if the first one is.",
    )


def check_whole(envelope: Envelope, whole: bool) -> None:
    """Raise UsageError if samples are to be both messages with coordinates and one payload."""
    if whole and envelope:
        raise click.UsageError("--whole and --envelope are mutually exclusive: use one of them")


def check_sample_options(envelope: Envelope, whole: bool, *, has_samples: bool) -> None:
    """Raise UsageError for options of `--samples` that do not go together, or are without it."""
    if not has_samples and (envelope or whole):
        raise click.UsageError("--envelope and --whole need --samples")
    check_whole(envelope, whole)


def are_messages(lines: SampleFile, envelope: Envelope) -> bool:
    """Return whether `lines` are to be read as messages with coordinates; note where they only look like it."""
    if envelope is True:
        return True
    found = lines.begins_with_message()
    if found and not envelope:
        note("the samples look like messages with coordinates; add --envelope to read them as such")
    return found and envelope == "auto"
