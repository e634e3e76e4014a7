"""`iggyflux schema`: prints a JSON Schema of this package."""

from __future__ import annotations

import click

from iggyflux.cli.output import result
from iggyflux.documents import read_schema


@click.command(name="schema")
@click.argument("kind", type=click.Choice(["mapping", "pipeline"]), default="mapping")
def command(kind: str) -> None:
    """Print the JSON Schema of a document.

    Editors use it for completion and documentation; `init` writes the line that refers to it.

    \b
    Example:
      iggyflux schema mapping > mapping-v1.schema.json
    """
    result(read_schema(kind))
