"""`iggyflux lsp`: the language server, for editors."""

from __future__ import annotations

import click

from iggyflux.cli.output import ExitCode


@click.command(name="lsp")
def command() -> int:
    """Run the language server for editors, on stdin and stdout.

    It shows problems while you type, proposes keys, functions and members of the samples, explains them, and
    applies fixes. Samples of a mapping are the file that a comment `# samples: FILE` names, or NAME.ndjson or
    samples/NAME.ndjson beside it, and its examples. docs/editors.md says how editors start it. It needs
    `pip install iggyflux[editor]`.

    \b
    Example:
      iggyflux lsp
    """
    try:
        from iggyflux.cli.language_server import server  # pygls takes 300 ms, and is an extra
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise click.UsageError("the language server is not installed: pip install 'iggyflux[editor]'") from error
    server.start_io()
    return ExitCode.OK
