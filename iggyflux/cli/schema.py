"""`iggyflux schema`: prints a JSON Schema of this package, or what a mapping writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from iggyflux.authoring.contract import Column, columns_of, stars_of
from iggyflux.cli.inputs import MAPPING_FILE, open_mapping
from iggyflux.cli.output import json_text, result, result_line
from iggyflux.documents import read_schema
from iggyflux.mapping import WriterMapping

_COMPUTED = "(computed)"


@click.command(name="schema")
@click.argument("kind", type=click.Choice(["mapping", "pipeline"]), required=False)
@click.option("--of", "mapping", type=MAPPING_FILE, help="Print what this writer writes instead.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="With --of.", show_default=True
)
def command(kind: str | None, mapping: Path | None, form: str) -> None:
    """Print the JSON Schema of a document, or with --of what a mapping writes.

    Editors use the JSON Schema for completion and documentation; `init` writes the line that refers to it.

    With --of, the measurements, tags, fields and types are printed that a writer declares, and those that its
    examples show: of computed measurements, of `"*"` and of `type: auto`. A `"*"` itself is in the list too, since
    it writes what no example shows.

    \b
    Example:
      iggyflux schema mapping > mapping-v1.schema.json
      iggyflux schema --of mapping.yaml
      iggyflux schema --of mapping.yaml --format json
    """
    if mapping is None:
        result(read_schema(kind or "mapping"))
        return
    if kind is not None:
        raise click.UsageError(f"--of is for a mapping; {kind!r} names a JSON Schema: write one of them")
    loaded = open_mapping(mapping)
    if not isinstance(loaded, WriterMapping):
        raise click.UsageError(f"{mapping} is a reader: it writes messages; `iggyflux explain` shows them")
    columns = sorted([*columns_of(loaded), *stars_of(loaded)], key=_order)
    if form == "json":
        result(_as_json(columns))
    else:
        _print_table(columns)


def _order(column: Column) -> tuple[bool, str, bool, str, str]:
    return column.measurement is None, column.measurement or "", column.kind == "field", column.key, column.type or ""


def _as_json(columns: Sequence[Column]) -> str:
    content: dict[str | None, dict[str, object]] = {}
    for each in columns:
        measurement = content.setdefault(each.measurement, {"measurement": each.measurement, "tags": [], "fields": []})
        entry = each.key if each.kind == "tag" else {"key": each.key, "type": each.type}
        measurement[f"{each.kind}s"].append(entry)  # type: ignore[attr-defined]
    return json_text(list(content.values()), indent=True) + "\n"


def _print_table(columns: Sequence[Column]) -> None:
    rows = [("measurement", "column", "name", "type")]
    rows += [(each.measurement or _COMPUTED, each.kind, each.key, each.type or "string") for each in columns]
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        result_line("  ".join([*cells, row[3]]))
