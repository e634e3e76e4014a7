"""`iggyflux validate`: reports every problem of every document, in one of several formats."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from iggyflux.cli.documents import DOCUMENTS, find_documents, kind_of, unreadable
from iggyflux.cli.output import ExitCode, count_problems, note, plural, result, talk
from iggyflux.cli.reports import FORMS, CheckedFile, print_text, sorted_problems
from iggyflux.documents import Document, read_document, read_source
from iggyflux.errors import DocumentError, MappingError, Problem
from iggyflux.mapping import compile_document
from iggyflux.pipeline import Pipeline, parse_pipeline

NEITHER: Final = "IFX520"
_OF_THE_ENVIRONMENT: Final = frozenset({"IFX733", "IFX802", "IFX803"})
"""Codes of problems that can be specific to this machine."""


@click.command(name="validate")
@click.argument("paths", nargs=-1, required=True, type=DOCUMENTS)
@click.option("--format", "form", type=click.Choice(["text", *FORMS]), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
def command(paths: tuple[Path, ...], form: str, strict: bool) -> int:
    """Check mapping and pipeline files.

    PATHS are files or directories; in a directory, every .yaml, .yml and .toml file with the key `iggyflux`. No server
    is contacted. The mappings of a pipeline are checked too; missing variables, secret files and files of
    TLS are warnings.

    \b
    Example:
      iggyflux validate mappings/ pipeline.yaml
      iggyflux validate --format sarif mappings/ > problems.sarif
    """
    files, others = find_documents(paths)
    checked = _check_all(files)
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
        return ExitCode.PROBLEMS
    talk(f"{plural(len(checked), 'document')}: {count_problems(problems)}")
    return ExitCode.PROBLEMS if any(problem.severity == "error" for problem in problems) else ExitCode.OK


def _as_error(problem: Problem) -> Problem:
    return replace(problem, severity="error")


def _check_all(files: Sequence[Path]) -> list[CheckedFile]:
    """Check each file, and the mappings of pipelines, once."""
    checked: dict[Path, CheckedFile] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop(0)
        key = path.resolve()
        if key not in checked:
            checked[key], named = check_file(path)
            waiting += named
    return list(checked.values())


def check_file(path: Path) -> tuple[CheckedFile, list[Path]]:
    """Return a file with its problems, and the mapping files that it names."""
    name = str(path)
    try:
        document = read_document(read_source(path), file=name)
    except OSError as error:
        return CheckedFile(name, "", (unreadable(path, error),)), []
    except DocumentError as error:
        return CheckedFile(name, "", tuple(error.problems)), []
    kind = kind_of(document.tree)
    if kind == "pipeline":
        return _check_pipeline(document, path)
    if kind == "mapping":
        return _check_mapping(document, path), []
    hint = "a mapping has `kind: writer` or `kind: reader`, a pipeline has `run`"
    problem = document.problem(NEITHER, "", "neither a mapping nor a pipeline", hint=hint)
    return CheckedFile(name, "", (*document.faults, problem)), []


def _check_mapping(document: Document, path: Path) -> CheckedFile:
    try:
        mapping = compile_document(document)
    except DocumentError as error:
        tree = document.tree if isinstance(document.tree, dict) else {}
        kind = tree.get("kind")
        return CheckedFile(str(path), kind if kind in ("writer", "reader") else "", tuple(error.problems))
    return CheckedFile(str(path), mapping.kind, tuple(mapping.warnings))


def _check_pipeline(document: Document, path: Path) -> tuple[CheckedFile, list[Path]]:
    try:
        pipeline = parse_pipeline(document.text, file=path)
    except DocumentError as error:
        problems = tuple(_of_this_machine(error.problems))
        return CheckedFile(str(path), "pipeline", problems), list(_named_mappings(document.tree, path))
    problems = (*pipeline.warnings, *_of_this_machine(_misfits(pipeline)))
    return CheckedFile(str(path), "pipeline", problems), [route.mapping for route in pipeline.routes]


def _misfits(pipeline: Pipeline) -> Sequence[Problem]:
    """Return the problems that `run` would find in routes; those of a mapping are reported with its file."""
    from iggyflux.runner.open import open_routes  # 130 ms, only for pipelines

    try:
        open_routes(pipeline)
    except MappingError:
        return ()
    except DocumentError as error:
        return error.problems
    return ()


def _of_this_machine(problems: Sequence[Problem]) -> Iterator[Problem]:
    """Yield the problems of a pipeline; those of this machine are warnings, and problems caused by them are omitted."""
    missing = {problem.location.pointer for problem in problems if problem.code in _OF_THE_ENVIRONMENT}
    for problem in problems:
        if problem.code in _OF_THE_ENVIRONMENT:
            yield replace(problem, severity="warning")
        elif (
            problem.code == "IFX110" or problem.location.pointer not in missing
        ):  # an unknown key is one with any value
            yield problem


def _named_mappings(tree: object, path: Path) -> Iterator[Path]:
    """Yield the mapping files of a pipeline that does not compile."""
    routes = tree.get("run") if isinstance(tree, dict) else None
    for route in routes if isinstance(routes, list) else ():
        named = route.get("mapping") if isinstance(route, Mapping) else None
        if isinstance(named, str) and os.path.isfile(path.parent / named):  # noqa: PTH113  # False also without permission
            yield path.parent / named
