"""A message log as the input of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iggyflux.transports.local.log import Log


def open_log(folder: Path) -> Log:
    """Return the log in a folder.  Raise UsageError if there is none."""
    if not folder.is_dir():
        raise click.UsageError(f"no log in {folder}; create it with iggyflux log append, or iggyflux log generate")
    return Log.open(folder)


class Origin(click.ParamType[str]):
    """`log:DIR` or `iggy`."""

    name = "log:DIR|iggy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text != "iggy" and not text.startswith("log:"):
            self.fail(f"expected log:DIR or iggy, found {value!r}", param, ctx)
        if text == "log:":
            self.fail("'log:' has no directory; write for example log:data", param, ctx)
        return text
