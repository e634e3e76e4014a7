"""Documents: YAML or TOML text becomes a tree with the place of every node, which is checked against a JSON Schema.

Text that cannot be used raises `DocumentError`, never another exception, with every fault that can be seen and its
place.  If there is a tree in spite of the faults, `read_document` returns both. ruamel.yaml and tomllib are known only
here.  `mapping` and `pipeline` say what a document means.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal, cast

from iggyflux.documents.masking import (
    Mask,
    is_mapping,
    is_mapping_text,
    is_telling,
    mask_of,
    scrub_pointer,
    scrub_texts,
)
from iggyflux.documents.nodes import Document, Format, join_pointer, kind_of, parent_of, split_pointer
from iggyflux.documents.schema import check_schema, load_schema, read_schema
from iggyflux.documents.source import may_be_document, open_source, read_source
from iggyflux.documents.text import EditableText, check_size, has_version, read_text, with_plain_breaks, without_utf16
from iggyflux.errors import DocumentError, Problem
from iggyflux.secrets import Scrubber, login_spans, secret_spans, suspected_secrets

__all__ = [
    "Document",
    "EditableText",
    "Format",
    "Mask",
    "check_schema",
    "format_of",
    "has_version",
    "is_telling",
    "join_pointer",
    "kind_of",
    "load_schema",
    "mask_of",
    "may_be_document",
    "open_source",
    "parent_of",
    "parse_document",
    "read_document",
    "read_schema",
    "read_source",
    "split_pointer",
]


def parse_document(text: str | bytes, *, file: str | None = None, format: str | None = None) -> Document:  # noqa: A002
    """Return the document in `text`.

    `format` is "yaml" or "toml".  By default the extension of `file` decides: `.toml` is TOML, everything else is YAML,
    of which JSON is a part.  Raise DocumentError.
    """
    document = read_document(text, file=file, format=format)
    if document.faults:
        raise DocumentError(document.faults)
    return document


def read_document(text: str | bytes, *, file: str | None = None, format: str | None = None) -> Document:  # noqa: A002
    """Return the document in `text`; if it has a tree in spite of faults, with these as its `faults`.

    Otherwise as `parse_document`.  The caller reports the faults with all others that it finds, and does not use the
    document.  Raise DocumentError if the text has no tree.
    """
    chosen = format_of(file) if format is None else format
    if chosen not in ("yaml", "toml"):
        raise ValueError(f"unknown format {format!r}: expected yaml or toml")
    return _read(text, file, cast(Format, chosen))


def _read(text: str | bytes, file: str | None, chosen: Format) -> Document:
    check_size(text, file)
    text = without_utf16(text, file)
    # The mask, the reader and the places all count the lines of one text.
    text = with_plain_breaks(text, lone=chosen == "yaml")
    clean = text if isinstance(text, str) else text.decode("utf-8", "replace")
    try:
        clean = read_text(text, file)
        # Each reader is imported on demand: importing ruamel.yaml takes longer than reading a TOML file.
        if chosen == "toml":
            from iggyflux.documents.toml_reader import read_toml

            root, faults = read_toml(clean, file)
        else:
            from iggyflux.documents.yaml_reader import read_yaml

            root, faults = read_yaml(clean, file)
    except DocumentError as error:
        hide = _without_secrets if is_mapping_text(clean) else Mask(clean, by_line=True)
        raise DocumentError(map(hide, error.problems)) from error
    document = Document(tree=root.value, text=clean, file=file, format=chosen, root=root)
    if is_mapping(root.value):
        return replace(document, mask=_without_logins, faults=tuple(map(_without_secrets, faults)))
    mask = mask_of(root, clean, by_line=bool(faults))
    return replace(document, mask=mask, faults=tuple(map(mask, faults)))


def _without_secrets(problem: Problem) -> Problem:
    """Return a problem of a mapping without the parts of its line that look like a secret."""
    line = problem.source or ""
    scrub = Scrubber(suspected_secrets(line))
    hint = scrub(problem.hint) if problem.hint else None
    return replace(problem, message=scrub(problem.message), hint=hint).hiding(secret_spans(line))


def _without_logins(problem: Problem) -> Problem:
    """Return a problem of a mapping with user and password of each address in its line masked."""
    line = problem.source or ""
    # Where no host follows, `@` is that of an expression: {a: b, c: @}.
    spans = [(start, end) for start, end in login_spans(line) if _HOST.search(line, start)]
    if not spans:
        return problem
    scrub = Scrubber(line[start:end] for start, end in spans)
    return scrub_pointer(scrub_texts(problem, scrub), scrub).hiding(spans)


_HOST = re.compile(r"@(?:\w|\[[0-9A-Fa-f]*:)")


def format_of(file: str | None) -> Literal["yaml", "toml"]:
    """Return the format that the extension of `file` means."""
    return "toml" if file is not None and file.lower().endswith(".toml") else "yaml"
