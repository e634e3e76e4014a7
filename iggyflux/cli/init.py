"""`iggyflux init`: a starter document, which is a file of this package, and the JSON Schema that it refers to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click

from iggyflux.cli.output import ExitCode, result, talk
from iggyflux.documents import read_document, read_schema, read_source
from iggyflux.errors import DocumentError
from iggyflux.escapes import escaped, json_text

STARTERS = Path(__file__).parent / "starters"

_ROUTES: Final = {
    "writer": ("from", "messages that failed are kept here; `iggyflux replay` sends them again"),
    "reader": ("to", "rows that failed are kept here; `iggyflux cursor set` reads them again"),
}
"""By the kind of the mapping: the end of its route that is a log, and what is kept as a dead letter."""
_ROUTE_END_WIDTH: Final = {"yaml": len("from: log:data"), "toml": len('from = "log:data"')}


@click.command(name="init")
@click.argument("path", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--pipeline", is_flag=True, help="Write a pipeline file (default for a PATH with `pipeline` in its name)."
)
@click.option(
    "--reader", is_flag=True, help="Write a reader (InfluxDB to Iggy) instead of a writer (Iggy to InfluxDB)."
)
@click.option("--mapping", metavar="FILE", help="The mapping of the pipeline (default mapping.yaml).")
@click.option("--toml", is_flag=True, help="Write TOML instead of YAML (default for a PATH that ends with .toml).")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def command(path: Path | None, pipeline: bool, reader: bool, mapping: str | None, toml: bool, force: bool) -> int:
    """Write a commented starter mapping or pipeline.

    PATH defaults to mapping.yaml (or mapping.toml); `-` prints the starter. A mapping validates and passes its own
    examples. A pipeline suits its mapping, if that exists: a writer or a reader. The JSON Schema for editors is written
    next to the file.

    \b
    Example:
      iggyflux init readings.yaml
      iggyflux test readings.yaml
      iggyflux init pipeline.yaml --mapping readings.yaml
    """
    form = "toml" if toml or (path is not None and path.suffix == ".toml") else "yaml"
    if toml and path is not None and path.suffix in (".yaml", ".yml"):
        raise click.UsageError(f"--toml writes TOML, but {path} has the extension of YAML")
    pipeline = pipeline or (not reader and path is not None and "pipeline" in path.stem)
    if pipeline and reader:
        raise click.UsageError("--reader is for mappings, not for pipelines")
    if mapping is not None and not pipeline:
        raise click.UsageError("--mapping is for pipelines")
    kind = "pipeline" if pipeline else "mapping"
    path = path or Path(f"{kind}.{form}")
    schema = f"{kind}-v1.schema.json"
    is_printed = str(path) == "-"
    text = (STARTERS / f"{'pipeline' if pipeline else 'reader' if reader else 'writer'}.{form}").read_text("utf-8")
    mapping = mapping or f"mapping.{form}"
    end, failed = _ROUTES["reader" if pipeline and _is_reader(path.parent / mapping) else "writer"]
    words = {
        "SCHEMA": f"./{schema}",
        "MAPPING": json_text(mapping),
        "FILE": f"{kind}.{form}" if is_printed else escaped(str(path)),
        "ROUTE_END": (f"{end}: log:data" if form == "yaml" else f'{end} = "log:data"').ljust(_ROUTE_END_WIDTH[form]),
        "END": end,
        "FAILED": failed,
    }
    text = re.sub("|".join(words), lambda found: words[found[0]], text)
    if is_printed:
        result(text)
        return ExitCode.OK
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        talk(f"{path} already exists; use --force to overwrite it")
        return ExitCode.PROBLEMS
    except FileNotFoundError as error:
        if path.parent.is_dir():
            raise
        raise click.UsageError(f"directory {path.parent} does not exist") from error
    talk(f"wrote {path}")
    write_schema(kind, path.parent / schema, force)
    talk(f"try: iggyflux {'check' if pipeline else 'test'} {path}")
    return ExitCode.OK


def _is_reader(path: Path) -> bool:
    """Return whether the file is a reader mapping, also one with problems."""
    try:
        tree = read_document(read_source(path), file=str(path)).tree
    except (OSError, DocumentError):
        return False
    return isinstance(tree, dict) and tree.get("kind") == "reader"


def write_schema(kind: str, path: Path, force: bool) -> None:
    """Write the schema beside the document; keep one that exists, which may be under version control."""
    if force or not path.exists():
        path.write_bytes(read_schema(kind))
        talk(f"wrote {path}, by which editors complete and explain it")
