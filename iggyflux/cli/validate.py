"""`iggyflux validate`: reports every problem of every document, in one of several formats."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from iggyflux.authoring.contract import Database, Route, find_conflicts
from iggyflux.cli.documents import DOCUMENTS_OR_STDIN, find_documents, skip_others, unreadable
from iggyflux.cli.envelopes import Envelope, SamplesCommand, check_sample_options, envelope_option
from iggyflux.cli.inputs import INPUT_FILE, STDIN, input_name, is_toml, read_stdin
from iggyflux.cli.output import ExitCode, count_problems, note, plural, result, talk
from iggyflux.cli.reports import FORMS, print_text, sorted_problems
from iggyflux.cli.sample_files import samples_of_file
from iggyflux.disk import replace_file
from iggyflux.documents import EditableText, read_source
from iggyflux.editor.checking import CheckedFile, SamplesOf, check_text
from iggyflux.editor.evidence import Samples
from iggyflux.editor.fixes import fix_all
from iggyflux.errors import DocumentError, Problem
from iggyflux.mapping import ReaderMapping, WriterMapping
from iggyflux.pipeline.addresses import same_url
from iggyflux.pipeline.variables import filled


@click.command(name="validate", cls=SamplesCommand)
@click.argument("paths", nargs=-1, required=True, type=DOCUMENTS_OR_STDIN)
@click.option("--format", "form", type=click.Choice(["text", *FORMS]), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@click.option("--samples", type=INPUT_FILE, help="Check the mapping against these messages too (for a reader: rows).")
@envelope_option("Samples are messages with coordinates and headers, not plain payloads.")
@click.option("--whole", is_flag=True, help="The samples are one payload, for example a csv file with its header.")
@skip_others
@click.option(
    "--fix", is_flag=True, help="Rewrite the files with the fixes that are certain; comments and layout stay."
)
def command(
    paths: tuple[Path, ...],
    form: str,
    strict: bool,
    samples: Path | None,
    envelope: Envelope,
    whole: bool,
    skip_others: bool,
    fix: bool,
) -> int:
    """Check mapping and pipeline files.

    PATHS are files or directories; in a directory, every .yaml, .yml and .toml file with the key `iggyflux`; `-` is a
    document on stdin. No server is contacted. The mappings of a pipeline are checked too; missing variables,
    secret files and files of TLS are warnings. A mapping is also checked against its examples, and against
    --samples: members that none has, conditions that are always or never true, values that fail, times of another
    unit.

    \b
    Example:
      iggyflux validate mappings/ pipeline.yaml
      iggyflux validate mapping.yaml --samples samples.ndjson --fix
      iggyflux validate - < mapping.yaml
      iggyflux validate --format sarif mappings/ > problems.sarif
    """
    check_sample_options(envelope, whole, has_samples=samples is not None)
    files, others = find_documents(paths, named_too=skip_others)
    if samples is not None and len(files) != 1:
        raise click.UsageError("--samples needs one mapping file")
    if STDIN in files and (fix or samples == STDIN):
        raise click.UsageError(
            "the document is on stdin: " + ("--fix needs a file" if fix else "--samples needs a file")
        )
    look = None if samples is None else _reader_of(samples, envelope=envelope, whole=whole)
    if fix:
        for file in files:
            _fix(file, look)
    checked = _check_all(files, look)
    problems = sorted_problems(checked)
    if strict:
        checked = [replace(file, problems=tuple(map(_as_error, file.problems))) for file in checked]
        problems = sorted_problems(checked)
    if form == "text":
        print_text(checked)
    else:
        result(FORMS[form](checked))
    if others:
        note(f"{plural(len(others), 'other file')} ignored: no key `iggyflux`")
    if not checked:
        talk("no documents found")
        return ExitCode.OK if skip_others else ExitCode.PROBLEMS
    talk(f"{plural(len(checked), 'document')}: {count_problems(problems)}")
    return ExitCode.PROBLEMS if any(problem.severity == "error" for problem in problems) else ExitCode.OK


def _reader_of(path: Path, *, envelope: Envelope, whole: bool) -> SamplesOf:
    """Return what reads the samples of a file, or once those of stdin."""
    found: list[Samples] = []

    def read(mapping: WriterMapping | ReaderMapping) -> Samples:
        if not found or path != STDIN:
            found[:] = [samples_of_file(mapping, path, envelope=envelope, whole=whole)]
        return found[0]

    return read


def _as_error(problem: Problem) -> Problem:
    return replace(problem, severity="error")


def _fix(path: Path, samples: SamplesOf | None) -> None:
    """Rewrite a file with the fixes that are certain, and say how many."""
    try:
        text = EditableText.of(read_source(path))
    except (OSError, DocumentError):
        return  # the check that follows says why
    if text is None:
        note(f"{path} is not fixed: lone carriage returns break its lines")
        return
    fixed, count = fix_all(text.text, lambda each: check_text(each, path, samples)[0].problems)
    if count:
        try:
            replace_file(path, text.with_text(fixed))
        except OSError as error:
            raise click.UsageError(f"cannot write {path}: {error.strerror}") from error
        note(f"{path}: {plural(count, 'problem')} fixed")


def _check_all(files: Sequence[Path], samples: SamplesOf | None) -> list[CheckedFile]:
    """Check each file, and the mappings of pipelines, once."""
    checked: dict[Path, CheckedFile] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop(0)
        key = path.resolve()
        if key not in checked:
            checked[key], named = check_file(path, samples)
            waiting += named
    return _with_conflicts(checked)


def _with_conflicts(checked: Mapping[Path, CheckedFile]) -> list[CheckedFile]:
    """Return the files with what their writers write in two ways."""
    mappings = {
        path: file.mapping
        for path, file in checked.items()
        if isinstance(file.mapping, WriterMapping) and not any(each.severity == "error" for each in file.problems)
    }
    routes: list[Route] = []
    for path, file in checked.items():
        if file.document is not None:
            routes += _routes_of(file.document.tree, path, mappings)
    named = {id(mapping) for mapping, _ in routes}
    routes += [(each, None) for each in mappings.values() if id(each) not in named]
    found: dict[int, list[Problem]] = {}
    for mapping, problem in find_conflicts(routes):
        found.setdefault(id(mapping), []).append(problem)
    return [
        replace(file, problems=(*file.problems, *found.get(id(mappings.get(path)), ())))
        for path, file in checked.items()
    ]


_DATABASE: Final = ("url", "org", "bucket", "database", "retention_policy")
"""The keys of `influxdb` that say where lines go; their variables may have no value here."""


def _routes_of(tree: object, path: Path, mappings: Mapping[Path, WriterMapping]) -> Iterator[Route]:
    """Yield the writers of a pipeline with the databases that they write to."""
    content = tree if isinstance(tree, dict) else {}
    items = content.get("run")
    for item in items if isinstance(items, list) else ():
        named, sink = (
            (item.get("mapping"), item.get("to", content.get("to"))) if isinstance(item, dict) else (None, None)
        )
        mapping = mappings.get(Path(os.path.realpath(path.parent / named))) if isinstance(named, str) else None
        if mapping is not None and sink not in (None, "influxdb"):
            yield mapping, Database((str(path), str(sink)))  # no database: a place of its own
        elif mapping is not None:
            layers = [each for each in (content.get("influxdb"), item.get("influxdb")) if isinstance(each, dict)]
            settings = {key: value for layer in layers for key, value in layer.items()}
            yield mapping, _database({key: str(settings[key]) for key in _DATABASE if key in settings}, path)


def _database(settings: Mapping[str, str], pipeline: Path) -> Database:
    """Return the database that settings of a pipeline name, as they are written: one URL has many spellings."""
    parts, unknown = [], set()
    for number, key in enumerate(_DATABASE):
        written = settings.get(key, "")
        text = filled(written, os.environ)
        if text is None:
            unknown.add(number)
        parts.append(same_url(written if text is None else text) if key == "url" else text or written)
    return Database(tuple(parts), frozenset(unknown), str(pipeline))


def check_file(path: Path, samples: SamplesOf | None = None) -> tuple[CheckedFile, list[Path]]:
    """Return a file with its problems, and the mapping files that it names."""
    if path == STDIN:
        data = read_stdin()
        return check_text(data, Path(input_name(STDIN)), samples, form="toml" if is_toml(data) else "yaml")
    try:
        data = read_source(path)
    except OSError as error:
        return CheckedFile(str(path), "", (unreadable(path, error),)), []
    except DocumentError as error:
        return CheckedFile(str(path), "", tuple(error.problems)), []
    return check_text(data, path, samples)
