"""Documents: YAML or TOML text to a tree that knows the place of every node, and its check against a JSON Schema.

What cannot be used is a `DocumentError` with every problem that can be seen, each with its place, and never another
exception.  A fault that leaves a tree hides nothing: `read_document` gives the tree with it.  ruamel.yaml and tomllib
are known here only.  What a document means is for `mapping` and `pipeline` to say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

from iggyflux.documents.nodes import Document, Format, join_pointer, parent_of, split_pointer
from iggyflux.documents.schema import check_schema, load_schema, read_schema
from iggyflux.documents.source import has_mark, read_source
from iggyflux.documents.text import read_text
from iggyflux.errors import DocumentError, Problem
from iggyflux.secrets import Scrubber, secret_spans, suspected_secrets

__all__ = [
    "Document",
    "Format",
    "check_schema",
    "has_mark",
    "join_pointer",
    "load_schema",
    "parent_of",
    "parse_document",
    "read_document",
    "read_schema",
    "read_source",
    "split_pointer",
]


def parse_document(text: str | bytes, *, file: str | None = None, format: str | None = None) -> Document:  # noqa: A002
    """The document in `text`.

    `format` is "yaml" or "toml"; without it the ending of `file` says (`.toml` is TOML), and anything else is YAML,
    of which JSON is a part.  Raises DocumentError.
    """
    document = read_document(text, file=file, format=format)
    if document.faults:
        raise DocumentError(document.faults)
    return document


def read_document(text: str | bytes, *, file: str | None = None, format: str | None = None) -> Document:  # noqa: A002
    """As `parse_document`, but a document that has a tree in spite of its faults is given with them.

    The caller tells `faults` with whatever else is wrong, and uses nothing of the document.  Raises DocumentError where
    the text has no tree.
    """
    chosen = format_of(file) if format is None else format
    if chosen not in ("yaml", "toml"):
        raise ValueError(f"unknown format {format!r}: expected yaml or toml")
    try:
        return _read(text, file, chosen)
    except DocumentError as error:  # what kind of a document it was to be is not known: it may hold secrets
        raise DocumentError(map(_discreet, error.problems)) from error


def _discreet(problem: Problem) -> Problem:
    """The problem without what looks like a secret in its line."""
    line = problem.source or ""
    spans = secret_spans(line)
    scrub = Scrubber(suspected_secrets(line))
    hint = scrub(problem.hint) if problem.hint else None
    return replace(problem, message=scrub(problem.message), hint=hint).hiding(spans)


def _read(text: str | bytes, file: str | None, chosen: str) -> Document:
    clean = read_text(text, file)
    # Each reader is imported when a document needs it: ruamel.yaml takes longer to import than a TOML file to read.
    if chosen == "toml":
        from iggyflux.documents.toml_reader import read_toml

        clean, root, faults = read_toml(clean, file)
    else:
        from iggyflux.documents.yaml_reader import read_yaml

        clean, root, faults = read_yaml(clean, file)
    faults = tuple(map(_discreet, faults))
    return Document(tree=root.value, text=clean, file=file, format=cast(Format, chosen), root=root, faults=faults)


def format_of(file: str | None) -> Literal["yaml", "toml"]:
    """The format that a file's name tells."""
    return "toml" if file is not None and file.lower().endswith(".toml") else "yaml"
