"""`iggyflux completion`: the script of the shell, as click makes it."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from iggyflux.cli import command_line
from iggyflux.cli.output import result


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    Example:
      iggyflux completion bash > ~/.local/share/bash-completion/completions/iggyflux
      iggyflux completion zsh > ~/.zfunc/_iggyflux
      iggyflux completion fish > ~/.config/fish/completions/iggyflux.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  (the three that click brings)
    script = ShellComplete.source(kind(command_line, {}, "iggyflux", "_IGGYFLUX_COMPLETE"))
    result(script)
