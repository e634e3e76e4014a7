"""A message log as the input of a command."""

from __future__ import annotations

from pathlib import Path

import click

from iggyflux.transports.local.log import Log


def open_log(folder: Path) -> Log:
    """Return the log in a folder.  Raise UsageError if there is none."""
    if not folder.is_dir():
        raise click.UsageError(f"no log in {folder}; create it with iggyflux log append, or iggyflux log generate")
    return Log.open(folder)
