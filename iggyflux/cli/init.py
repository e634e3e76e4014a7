"""`iggyflux init`: a starter document, which is a file of this package, and the JSON Schema that it refers to."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click

from iggyflux.authoring.samples import Coordinates
from iggyflux.cli.new_files import write_text
from iggyflux.cli.output import ExitCode, note, result, talk
from iggyflux.disk import named
from iggyflux.documents import read_document, read_schema, read_source
from iggyflux.errors import DocumentError
from iggyflux.escapes import escaped, json_text
from iggyflux.mapping import WriterMapping, load_mapping

STARTERS = Path(__file__).parent / "starters"

_ROUTES: Final = {
    "writer": ("from", "messages that failed are kept here; `iggyflux replay` sends them again"),
    "reader": ("to", "rows that failed are kept here; `iggyflux cursor set` reads them again"),
}
"""By the kind of the mapping: the end of its route that is a log, and what is kept as a dead letter."""
_ROUTE_END_WIDTH: Final = {"yaml": len("from: log:data"), "toml": len('from = "log:data"')}


_ENDINGS: Final = (".yaml", ".yml", ".toml", ".json")
_SAMPLES: Final = "samples/mapping.ndjson"
_CI_FILES: Final = {"github": ".github/workflows/iggyflux.yaml", "gitlab": ".gitlab-ci.yml"}


@click.command(name="init")
@click.argument("path", required=False, type=click.Path(allow_dash=True))
@click.option(
    "--pipeline", is_flag=True, help="Write a pipeline file (default for a PATH with `pipeline` in its name)."
)
@click.option(
    "--reader", is_flag=True, help="Write a reader (InfluxDB to Iggy) instead of a writer (Iggy to InfluxDB)."
)
@click.option("--mapping", metavar="FILE", help="The mapping of the pipeline (default mapping.yaml).")
@click.option("--toml", is_flag=True, help="Write TOML instead of YAML (default for a PATH that ends with .toml).")
@click.option("--ci", type=click.Choice([*_CI_FILES]), help="For a directory: the CI that checks it (default github).")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(
    path: str | None, pipeline: bool, reader: bool, mapping: str | None, toml: bool, ci: str | None, force: bool
) -> int:
    """Write a commented starter mapping or pipeline.

    PATH defaults to mapping.yaml (or mapping.toml); `-` prints the starter. A mapping validates and passes its own
    examples. A pipeline suits its mapping, if that exists: a writer or a reader. The JSON Schema for editors is written
    next to the file.

    A PATH without an extension is a directory: it gets a mapping, samples, a pipeline, a file for the CI and
    settings for editors. Files that exist are kept.

    \b
    Example:
      iggyflux init readings.yaml
      iggyflux test readings.yaml
      iggyflux init pipeline.yaml --mapping readings.yaml
      iggyflux init plant --ci gitlab
    """
    if path is not None and path != "-" and _is_directory(path):
        if pipeline or force or mapping is not None:
            raise click.UsageError(f"{path} is a directory; --pipeline, --mapping and --force are for files")
        return _write_directory(
            Path(path), "reader" if reader else "writer", "toml" if toml else "yaml", ci or "github"
        )
    if ci is not None:
        raise click.UsageError("--ci is for directories")
    return _write_file(None if path is None else Path(path), pipeline, reader, mapping, toml, force)


def _is_directory(path: str) -> bool:
    """Return whether a path is that of a directory.  Raise UsageError for another extension, which may be misspelt."""
    if path.endswith(("/", os.sep)) or Path(path).is_dir():
        return True
    if path.lower().endswith(_ENDINGS):
        return False
    if Path(path).suffix:
        files = ", ".join(_ENDINGS)
        raise click.UsageError(f"{path}: expected a file that ends with {files}, or a directory ({path}/)")
    return True


def _write_file(path: Path | None, pipeline: bool, reader: bool, mapping: str | None, toml: bool, force: bool) -> int:
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
    starter = "pipeline" if pipeline else "reader" if reader else "writer"
    is_printed = str(path) == "-"
    text = _starter(f"{starter}.{form}", path.with_name(f"{kind}.{form}") if is_printed else path, mapping)
    if is_printed:
        result(text)
        return ExitCode.OK
    write_text(path, text, force=force)
    talk(f"wrote {path}")
    write_schema(kind, path.parent / _schema(kind), force)
    if pipeline:
        _say_what_check_needs(path, path.parent / (mapping or f"mapping.{form}"), "SAMPLES")
    else:
        talk(f"try: iggyflux test {path}")
    return ExitCode.OK


def _say_what_check_needs(pipeline: Path, mapping: Path, samples: str) -> None:
    """Print what has to be done before `iggyflux check` finds no fault in a written pipeline."""
    talk(f"then: iggyflux check {pipeline}, which needs")
    talk("  export INFLUX_TOKEN=…   the token of your InfluxDB")
    if not _is_reader(mapping):
        talk(f"  {_append(pipeline.parent, mapping, samples)}")


def _append(folder: Path, mapping: Path, samples: str) -> str:
    """Return the command that puts samples into the log from which a written pipeline reads."""
    return f"iggyflux log append {shlex.quote(str(folder / 'data'))} {_topic_of(mapping)} {samples}"


def _starter(name: str, path: Path, mapping: str | None = None, *, in_folder: bool = False) -> str:
    """Return the starter `name` for the file `path`; `mapping` is that of a pipeline, as the file names it.

    `in_folder`: its commands are for the folder in which it lies, beside samples.
    """
    form = "toml" if name.endswith("toml") else "yaml"
    mapping = mapping or f"mapping.{form}"
    is_pipeline = name.startswith("pipeline")
    end, failed = _ROUTES["reader" if is_pipeline and _is_reader(path.parent / mapping) else "writer"]
    words = {
        "SCHEMA": f"./{_schema('pipeline' if is_pipeline else 'mapping')}",
        "MESSAGES": _messages_comment(path, mapping, in_folder=in_folder) if end == "from" else "",
        "MAPPING": json_text(mapping),
        "FILE": escaped(path.name if in_folder else str(path)),
        "ROUTE_END": (f"{end}: log:data" if form == "yaml" else f'{end} = "log:data"').ljust(_ROUTE_END_WIDTH[form]),
        "END": end,
        "FAILED": failed,
    } | ({"SAMPLES": _SAMPLES, "ROWS": _SAMPLES} if in_folder else {})
    return _filled(name, words)


def _filled(name: str, words: Mapping[str, str]) -> str:
    """Return the text of a file of this package with each of `words` replaced."""
    return re.sub("|".join(words), lambda found: words[found[0]], (STARTERS / name).read_text("utf-8"))


def _messages_comment(path: Path, mapping: str, *, in_folder: bool) -> str:
    """Return the lines of a pipeline's comment that say how its log gets messages."""
    append = _append(Path() if in_folder else path.parent, path.parent / mapping, _SAMPLES if in_folder else "SAMPLES")
    return f"#   {escaped(append)}\n#                                     messages for the log that is read\n"


def _schema(kind: str) -> str:
    return f"{kind}-v1.schema.json"


def _write_directory(folder: Path, kind: str, form: str, ci: str) -> int:
    """Write what a repository of mappings begins with; a file that exists is kept."""
    inside = _place_in_repository(folder)
    mapping, pipeline = folder / f"mapping.{form}", folder / f"pipeline.{form}"
    made: list[tuple[Path, Callable[[], str]]] = [
        (mapping, lambda: _starter(f"{kind}.{form}", mapping, in_folder=True)),
        (folder / _SAMPLES, lambda: (STARTERS / f"{kind}.ndjson").read_text("utf-8")),
        (pipeline, lambda: _starter(f"pipeline.{form}", pipeline, in_folder=True)),
        (folder / _schema("mapping"), lambda: read_schema("mapping").decode()),
        (folder / _schema("pipeline"), lambda: read_schema("pipeline").decode()),
        (folder / _CI_FILES[ci], lambda: _ci(ci, mapping.name, inside)),
        (folder / ".vscode" / "settings.json", lambda: (STARTERS / "vscode.json").read_text("utf-8")),
    ]
    for path, text in made:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with named(path), path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text())
        except (FileExistsError, NotADirectoryError) as error:
            if not path.is_file():
                raise click.UsageError(f"cannot write {path}: {error.filename} is in the way") from error
            talk(f"kept {path}, which exists")
        else:
            talk(f"wrote {path}")
    talk(f"try: iggyflux dry-run {mapping} {folder / _SAMPLES}")
    _say_what_check_needs(pipeline, mapping, shlex.quote(str(folder / _SAMPLES)))
    if inside is not None:
        note(f"{folder / _CI_FILES[ci]} has no effect there: {_MOVES[ci].replace('FOLDER', inside.as_posix())}")
    return ExitCode.OK


_MOVES: Final = {
    "github": "move it to .github/workflows at the root of the repository",
    "gitlab": "add `include: FOLDER/.gitlab-ci.yml` to .gitlab-ci.yml at the root of the repository",
}
"""What has to be done with the file for the CI in a folder below the root of a repository."""


def _place_in_repository(folder: Path) -> Path | None:
    """Return the path of a folder from the root of its git repository; None for the root, and outside of one."""
    whole = Path(os.path.realpath(folder))  # also of a link to itself, which writing then reports
    root = next((above for above in (whole, *whole.parents) if (above / ".git").exists()), whole)
    return None if root == whole else whole.relative_to(root)


def _ci(ci: str, mapping: str, inside: Path | None) -> str:
    """Return the file for the CI; `inside` is the folder of the mappings below the root of the repository, if any."""
    folder = "" if inside is None else inside.as_posix()
    words = {"MAPPING": mapping, "REPORT": json_text(f"{folder}/iggyflux.xml") if folder else "iggyflux.xml"}
    words |= dict.fromkeys(("PLACE", "FOLDER"), "")
    if folder:
        words["PLACE"] = f"# {_MOVES[ci][0].upper()}{_MOVES[ci][1:]}.\n".replace("FOLDER", escaped(folder))
        words["FOLDER"] = (
            _IN_FOLDER[ci].replace("FOLDER", json_text(folder)).replace("CD", json_text(f"cd {shlex.quote(folder)}"))
        )
    return _filled(f"{ci}.yaml", words)


_IN_FOLDER: Final = {"github": "defaults: {run: {working-directory: FOLDER}}\n", "gitlab": "    - CD\n"}


def _topic_of(mapping: Path) -> str:
    """Return the first topic that a mapping reads, as STREAM/TOPIC; that of the starter if it cannot be read."""
    try:
        loaded = load_mapping(mapping)
    except DocumentError:
        return "factory/readings"
    if not isinstance(loaded, WriterMapping):
        return "factory/readings"
    coordinates = Coordinates.of(loaded.writer.source)
    return shlex.quote(f"{coordinates.stream}/{coordinates.topic}")


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
        with named(path):
            path.write_bytes(read_schema(kind))
        talk(f"wrote {path}, by which editors complete and explain it")
