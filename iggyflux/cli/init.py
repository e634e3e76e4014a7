"""`iggyflux init`: a starter mapping, which is a file of this package."""

from __future__ import annotations

from pathlib import Path

import click

from iggyflux.cli.output import ExitCode, result, talk

STARTERS = Path(__file__).parent / "starters"


@click.command(name="init")
@click.argument("path", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--reader", is_flag=True, help="From InfluxDB to Iggy, instead of from Iggy to InfluxDB.")
@click.option("--toml", is_flag=True, help="TOML instead of YAML (also: a PATH that ends in .toml).")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(path: Path | None, reader: bool, toml: bool, force: bool) -> int:
    """Write a commented starter mapping.

    PATH is mapping.yaml (or mapping.toml) unless given; `-` prints it. The starter validates and passes its own
    examples, so change it bit by bit.

    \b
    Example:
      iggyflux init mappings/readings.yaml
      iggyflux test mappings/readings.yaml
    """
    form = "toml" if toml or (path is not None and path.suffix == ".toml") else "yaml"
    path = path or Path(f"mapping.{form}")
    if toml and path.suffix in (".yaml", ".yml"):
        raise click.UsageError(f"--toml writes TOML, but {path} has the ending of YAML")
    text = (STARTERS / f"{'reader' if reader else 'writer'}.{form}").read_text("utf-8")
    name = f"mapping.{form}" if str(path) == "-" else str(path)
    text = text.replace("FILE", name)
    if str(path) == "-":
        result(text)
        return ExitCode.OK
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        talk(f"{path} is there already; --force overwrites it")
        return ExitCode.PROBLEMS
    except FileNotFoundError as error:
        if path.parent.is_dir():
            raise
        raise click.UsageError(f"there is no folder {path.parent}") from error
    talk(f"wrote {path}")
    talk(f"try: iggyflux test {path}")
    return ExitCode.OK
