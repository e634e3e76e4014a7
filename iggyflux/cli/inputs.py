"""What commands read: lines of a file or of stdin, a mapping or a pipeline file, an expression in an argument."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import click

from iggyflux.authoring.sample_bytes import NoZstd, expanded
from iggyflux.authoring.samples import SampleError, SampleFile
from iggyflux.cli.output import show_problem
from iggyflux.documents import kind_of, open_source, read_document, read_source
from iggyflux.documents.nodes import Lines
from iggyflux.documents.text import MAX_BYTES
from iggyflux.errors import DocumentError, ExpressionError, Location, Problem
from iggyflux.mapping import ReaderMapping, WriterMapping, load_mapping
from iggyflux.pipeline import Pipeline, load_pipeline

STDIN = Path("-")
INPUT_FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


class _DocumentFile(click.Path):
    """The path of a mapping or pipeline file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            if Path(value).suffix.lower() in _SUFFIXES:
                raise
            more = "it is a YAML or TOML file; `iggyflux eval` evaluates an expression"
            raise click.BadParameter(f"{error.message} ({more})", ctx, param) from None


_SUFFIXES = (".yaml", ".yml", ".toml", ".json")
_DATA = re.compile(r"\.(ndjson|jsonl|csv|tsv|lp|log|xml|parquet|gz|zst|bz2)$", re.IGNORECASE)
"""Names of data: a document may have any other one, and then its mistakes are shown."""
MAPPING_FILE = _DocumentFile(exists=True, dir_okay=False, path_type=Path)


@contextmanager
def open_input(path: Path) -> Iterator[SampleFile]:
    """Yield the lines of a file, expanded if its name ends in `.gz`, `.zst` or `.bz2`, or those of stdin for `-`.

    Raise UsageError if the file cannot be opened.  Raise DocumentError if it is a pipe that nothing writes to, and
    instead of a SampleError of the caller's block.
    """
    file: AbstractContextManager[IO[bytes]]
    try:
        file = nullcontext(_stdin()) if path == STDIN else open_source(path)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
    with file as lines:
        try:
            yield SampleFile(lines if path == STDIN else expanded(lines, path.name))
        except NoZstd as error:
            raise click.UsageError(f"{path} needs a package to be expanded: pip install 'iggyflux[zstd]'") from error
        except SampleError as error:
            place = Location(input_name(path), error.line, 1 if error.line else 0)
            raise DocumentError([Problem(error.code, error.reason, place, hint=error.hint)]) from error


def _stdin() -> IO[bytes]:
    return sys.stdin.buffer if sys.stdin is not None else BytesIO()


def read_stdin() -> bytes:
    """Return the document on stdin, or so much of it that it is too large."""
    return _stdin().read(MAX_BYTES + 1)


_TOML = re.compile(rb"^(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[ \t]*+iggyflux[ \t]*+=", re.MULTILINE)


def is_toml(document: bytes) -> bool:
    """Return whether a document without a name is TOML: a `=` follows its key `iggyflux`."""
    return _TOML.search(document.replace(b"\0", b"")) is not None  # UTF-16 has them between letters


def input_name(path: Path) -> str:
    """Return the name of the input in messages."""
    return "<stdin>" if path == STDIN else str(path)


def stdin_is_terminal() -> bool:
    """Return whether stdin is a terminal, or closed."""
    return sys.stdin is None or sys.stdin.isatty()


def open_mapping(path: Path) -> WriterMapping | ReaderMapping:
    """Return the mapping in a file and print its warnings.  Raise MappingError with all its problems."""
    try:
        mapping = load_mapping(path)
    except DocumentError:
        if kind_of_file(path) == "pipeline":
            raise click.UsageError(f"{path} is a pipeline; expected a mapping (its `run` lists some)") from None
        _refuse_data(path, "mapping")
        raise
    for problem in mapping.warnings:
        show_problem(problem)
    return mapping


def open_pipeline(path: Path, *, connects: bool = True, warns: bool = False) -> Pipeline:
    """Return the pipeline in a file.  Raise PipelineError with all its problems.

    If nothing `connects` with it, the variables and secrets of connections may be missing.  Its warnings are about
    the file, so commands that check it or run it print them (`warns`), and not each one that reads it.
    """
    try:
        pipeline = load_pipeline(path, connects=connects)
    except DocumentError:
        if kind_of_file(path) == "mapping":
            hint = f"write a pipeline file with run: [{{mapping: {path}}}]"
            raise click.UsageError(f"{path} is a mapping; expected a pipeline ({hint})") from None
        _refuse_data(path, "pipeline")
        raise
    for problem in pipeline.warnings if warns else ():
        show_problem(problem)
    return pipeline


def _refuse_data(path: Path, kind: str) -> None:
    """Raise UsageError for a file of data, by its name, that is not a document: an argument is missing."""
    if path.is_file() and _DATA.search(path.name) and not kind_of_file(path):
        expected = f"expected the file of a {kind} (YAML or TOML); is it missing before {path.name}?"
        raise click.UsageError(f"{path} is no {kind}; {expected}") from None


def kind_of_file(path: Path) -> str:
    """Return the kind of a document, also of one that does not compile; an empty string if it is none."""
    if not path.is_file():  # a pipe gives its content once
        return ""
    try:
        return kind_of(read_document(read_source(path), file=str(path)).tree)
    except (DocumentError, OSError):
        return ""


def expression_problem(error: ExpressionError) -> Problem:
    """Return the problem in an expression of the command line."""
    lines = Lines(error.text)
    return lines.problem(error.code, error.message, error.position, error.length, file="<expression>", hint=error.hint)
