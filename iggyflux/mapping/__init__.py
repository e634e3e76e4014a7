"""Mapping documents: text to frozen types, checked, with every problem reported at once.

Only this package converts a document's tree to the types of `spec`.  `Mapping.plan` imports `plan` when it is called,
so that a command that only checks documents does not load it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from iggyflux.documents import Document, read_document, read_source
from iggyflux.errors import DocumentError, Location, MappingError, Problem
from iggyflux.mapping.files import paths_of
from iggyflux.mapping.identity import digests_of, plan_identity
from iggyflux.mapping.reader import read_reader
from iggyflux.mapping.reading import Reading
from iggyflux.mapping.variables import warn_of_variables
from iggyflux.mapping.writer import read_writer
from iggyflux.records import JSON
from iggyflux.spec import (
    Collisions,
    Const,
    CursorSpec,
    Field,
    From,
    MessageSpec,
    OnError,
    Payload,
    PointSpec,
    Query,
    Reader,
    Source,
    Star,
    Tag,
    Target,
    Timestamp,
    TimestampFormat,
    Writer,
)
from iggyflux.values import FieldType

if TYPE_CHECKING:
    from iggyflux.plan import ReferencePlan, ReferenceReaderPlan
    from iggyflux.plan.compiled import CompiledPlan
    from iggyflux.plan.reader_compiled import CompiledReaderPlan

__all__ = [
    "Collisions",
    "Const",
    "CursorSpec",
    "Field",
    "FieldType",
    "From",
    "Mapping",
    "MappingError",
    "MessageSpec",
    "OnError",
    "Payload",
    "PointSpec",
    "Query",
    "Reader",
    "ReaderMapping",
    "Source",
    "Star",
    "Tag",
    "Target",
    "Timestamp",
    "TimestampFormat",
    "Writer",
    "WriterMapping",
    "compile_document",
    "load_mapping",
    "parse_mapping",
]

_NO_TAGS: MappingABC[str, str] = MappingProxyType({})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, eq=False)
class Mapping(ABC):
    """A mapping document that compiles: a `WriterMapping` or a `ReaderMapping`.

    Immutable, so threads may share it; it pickles as its document.  `warnings` are problems that do not prevent its
    use.
    """

    name: str
    document: Document = field(repr=False)
    warnings: tuple[Problem, ...] = field(repr=False)
    kind: ClassVar[Literal["writer", "reader"]]

    @property
    def examples(self) -> Sequence[dict[str, JSON]]:
        """The document's own tests, as they are written; their form is checked."""
        tree = self.document.tree
        found = tree.get("examples", []) if isinstance(tree, dict) else []
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits that identify the whole content of the document; see `identity` for what it renders."""
        text = json.dumps(self.document.tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if self.document.files:
            text += json.dumps(digests_of(self.document.files), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @abstractmethod
    def plan(
        self, kind: Literal["compiled", "reference"] = "compiled", *, dialect: str = "v2", precision: str = "ns"
    ) -> CompiledPlan | ReferencePlan | CompiledReaderPlan | ReferenceReaderPlan:
        """Return the plan of this document, which converts batches of messages to lines, or of rows to messages."""

    def identity(self, *, dialect: str = "v2", precision: str = "ns", tags: MappingABC[str, str] = _NO_TAGS) -> str:
        """Return the identity of a plan: 12 hexadecimal digits.

        Plans of one identity make the same bytes of a message with its coordinates.  `tags` are those that the
        pipeline adds; like dialect and precision they have no effect on a reader.
        """
        lines: dict[str, JSON] = {"dialect": dialect, "precision": precision, "tags": {**tags}}
        if self.kind == "reader":
            lines = {}
        return plan_identity(self.document.tree, self.name, lines, digests_of(self.document.files))

    @property
    def files(self) -> Sequence[Path]:
        """The files that the document names, such as the schema of its payloads; they are a part of it."""
        return paths_of(self.document, self.document.files)

    def locate(self, pointer: str) -> Location:
        """Return the place of the node at `pointer`, such as the `location` of a failure."""
        return self.document.locate(pointer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and (self.name, self.hash) == (other.name, other.hash)

    def __hash__(self) -> int:
        return hash((self.name, self.hash))

    def __reduce__(self) -> tuple[Callable[..., Mapping], tuple[Any, ...]]:
        document = self.document
        return _restore, (document.text, self.name, document.format, document.file, dict(document.files))


@dataclass(frozen=True, eq=False)
class WriterMapping(Mapping):
    """A writer document: messages become points."""

    writer: Writer
    kind: ClassVar[Literal["writer"]] = "writer"

    def plan(
        self,
        kind: Literal["compiled", "reference"] = "compiled",
        *,
        dialect: str = "v2",
        precision: str = "ns",
        tags: MappingABC[str, str] = _NO_TAGS,
    ) -> CompiledPlan | ReferencePlan:
        """Return the plan that converts batches of messages to lines; points get those of `tags` that they lack."""
        from iggyflux.plan import compile_plan

        return compile_plan(self.writer, kind, dialect=dialect, precision=precision, tags=tags)


@dataclass(frozen=True, eq=False)
class ReaderMapping(Mapping):
    """A reader document: rows become messages."""

    reader: Reader
    kind: ClassVar[Literal["reader"]] = "reader"

    def plan(
        self, kind: Literal["compiled", "reference"] = "compiled", *, dialect: str = "v2", precision: str = "ns"
    ) -> CompiledReaderPlan | ReferenceReaderPlan:
        """Return the plan that converts batches of rows to messages; `dialect` and `precision` have no effect."""
        from iggyflux.plan import compile_plan

        return compile_plan(self.reader, kind, dialect=dialect, precision=precision)


def load_mapping(path: str | os.PathLike[str]) -> WriterMapping | ReaderMapping:
    """Return the mapping in the file at `path`.

    Raise MappingError with all its problems.
    """
    file = os.fspath(path)
    try:
        data = read_source(Path(file))
    except OSError as error:
        message = f"cannot read the file: {(error.strerror or str(error)).lower()}"
        raise MappingError([Problem("IFX100", message, Location(file=str(file)))]) from error
    except DocumentError as error:
        raise MappingError(error.problems) from error
    return parse_mapping(data, file=str(file))


def parse_mapping(
    text: str | bytes,
    *,
    name: str | None = None,
    format: str | None = None,  # noqa: A002  # the word of LANGUAGE 33
    file: str | None = None,
) -> WriterMapping | ReaderMapping:
    """Return the mapping in `text`.

    `name` is its name if the document has none; it defaults to the stem of `file`.  `file` is the file name in
    problems.  `format` is "yaml" or "toml"; by default the extension of `file` decides, and YAML is the last resort.
    Raise MappingError with all its problems.
    """
    try:
        document = read_document(text, file=file, format=format)
    except DocumentError as error:
        raise MappingError(error.problems) from error
    return compile_document(document, name=name)


def compile_document(document: Document, *, name: str | None = None) -> WriterMapping | ReaderMapping:
    """Return the mapping of a document that was read; its faults are reported with all other problems.

    `name` is as for `parse_mapping`.  Raise MappingError.
    """
    tree = document.tree if isinstance(document.tree, dict) else {}
    kind: Literal["writer", "reader"] = "reader" if _is_reader(tree) else "writer"
    reading = Reading(document, kind)
    chosen = _name_of(reading, tree, _stem(document.file) if name is None else name)
    spec = read_writer(reading, chosen) if kind == "writer" else read_reader(reading, chosen)
    warn_of_variables(reading)
    if reading.problems:
        raise MappingError(in_order([*reading.problems, *reading.warnings]), paths_of(document, reading.named))
    if reading.files != document.files:
        document = replace(document, files=reading.files)
    warnings = tuple(in_order(reading.warnings))
    if isinstance(spec, Writer):
        return WriterMapping(chosen, document, warnings, spec)
    return ReaderMapping(chosen, document, warnings, spec)


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems in the order of the text."""
    return sorted(problems, key=lambda problem: (problem.location.line, problem.location.column))


def _is_reader(tree: dict[str, JSON]) -> bool:
    """Return whether a document is meant to be a reader, also if `kind` is missing or misspelt."""
    kind = tree.get("kind")
    if kind in ("writer", "reader"):
        return kind == "reader"
    return "points" not in tree and ("to" in tree or "messages" in tree or "cursor" in tree)


def _name_of(reading: Reading, tree: dict[str, JSON], given: str | None) -> str:
    name = tree.get("name")
    if isinstance(name, str):
        return name
    if given is None:
        return "mapping"
    if _NAME.fullmatch(given) is None:
        hint = "add `name:` to the document"
        reading.report("IFX114", "", f"the file name {given!r} is not a valid name of a mapping", hint=hint)
    return given


def _stem(file: str | None) -> str | None:
    """Return the stem of a file's name; None for a name of a stream, such as `-` or `<stdin>`."""
    return None if file is None or file == "-" or file.startswith("<") else Path(file).stem


def _restore(text: str, name: str, format: str, file: str | None, files: dict[str, bytes]) -> Mapping:  # noqa: A002
    document = read_document(text, file=file, format=format)
    return compile_document(replace(document, files=files), name=name)
