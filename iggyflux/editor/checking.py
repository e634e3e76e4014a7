"""Every problem of the text of a document, whatever it is: a mapping, a pipeline, or neither.

For a pipeline this looks at the machine as well: at variables and at files that it names.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from iggyflux.documents import Document, Format, kind_of, read_document
from iggyflux.editor.diagnostics import check_compiled
from iggyflux.editor.evidence import Samples
from iggyflux.errors import DocumentError, Location, MappingError, Problem
from iggyflux.mapping import ReaderMapping, WriterMapping
from iggyflux.pipeline import Pipeline, parse_pipeline

SamplesOf: TypeAlias = Callable[[WriterMapping | ReaderMapping], Samples]
"""Reads the samples for a mapping."""

NEITHER: Final = "IFX520"
A_PIPELINE: Final = "IFX522"
_OF_THE_ENVIRONMENT: Final = frozenset({"IFX733", "IFX802", "IFX803"})
"""Codes of problems that can be specific to this machine."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A checked file: `kind` is writer, reader, pipeline, or empty if it is unknown.

    `mapping` is that of a mapping that compiles, `document` that of a pipeline that can be read.
    """

    path: str
    kind: str
    problems: tuple[Problem, ...] = ()
    mapping: WriterMapping | ReaderMapping | None = field(default=None, repr=False, compare=False)
    document: Document | None = field(default=None, repr=False, compare=False)


def check_text(
    data: str | bytes, path: Path, samples: SamplesOf | None, *, form: Format | None = None, pipelines: bool = True
) -> tuple[CheckedFile, list[Path]]:
    """Return the file `path` with the content `data` and its problems, and the mapping files that it names.

    `form` is the format of the document, by default that of the file's extension."""
    name = str(path)
    try:
        document = read_document(data, file=name, format=form)
    except DocumentError as error:
        if are_samples(data):
            return CheckedFile(name, "", (Problem(NEITHER, _SAMPLES, Location(name, 1, 1), hint=_SAMPLES_HINT),)), []
        return CheckedFile(name, "", tuple(error.problems)), []
    kind = kind_of(document.tree)
    if kind == "pipeline" and not pipelines:
        hint = "`iggyflux validate` and `iggyflux lsp` check pipelines"
        return CheckedFile(name, kind, (document.problem(A_PIPELINE, "", "a pipeline, not a mapping", hint=hint),)), []
    if kind == "pipeline":
        return _check_pipeline(document, path)
    if kind == "mapping":
        return _check_mapping(document, path, samples), []
    message, hint = (
        "neither a mapping nor a pipeline",
        "a mapping has `kind: writer` or `kind: reader`, a pipeline has `run`",
    )
    if are_samples(data):
        message, hint = _SAMPLES, _SAMPLES_HINT
    problem = document.problem(NEITHER, "", message, hint=hint)
    return CheckedFile(name, "", (*document.faults, problem)), []


_SAMPLES: Final = "this is data in JSON, neither a mapping nor a pipeline"
_SAMPLES_HINT: Final = (
    "`iggyflux infer` writes a mapping for it; `validate MAPPING --samples FILE` checks one against it"
)


def are_samples(data: str | bytes) -> bool:
    """Return whether a document is JSON, or its first line is, without the key `iggyflux`."""
    text = data.encode("utf-8", "replace") if isinstance(data, str) else data
    for part in (text, text.lstrip().partition(b"\n")[0]):
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            tree = msgspec.json.decode(part)
            return isinstance(tree, (dict, list)) and "iggyflux" not in tree
    return False


def _check_mapping(document: Document, path: Path, samples: SamplesOf | None) -> CheckedFile:
    tree = document.tree if isinstance(document.tree, dict) else {}
    kind = tree.get("kind")
    problems, mapping = check_compiled(document, samples, now_ns=time.time_ns())
    return CheckedFile(str(path), kind if kind in ("writer", "reader") else "", tuple(problems), mapping)


def _check_pipeline(document: Document, path: Path) -> tuple[CheckedFile, list[Path]]:
    try:
        pipeline = parse_pipeline(document.text, file=path, format=document.format)
    except DocumentError as error:
        problems = tuple(_of_this_machine(error.problems))
        checked = CheckedFile(str(path), "pipeline", problems, document=document)
        return checked, list(_named_mappings(document.tree, path))
    problems = (*pipeline.warnings, *_of_this_machine(_misfits(pipeline)))
    checked = CheckedFile(str(path), "pipeline", problems, document=document)
    return checked, [route.mapping for route in pipeline.routes]


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
