"""What is at a position: documentation of a key, a word or a function, and the value of an expression on samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from iggyflux.documents import Document, Format, join_pointer, kind_of, read_document
from iggyflux.documents.nodes import Node
from iggyflux.documents.offsets import source_offsets
from iggyflux.documents.validator import Schema
from iggyflux.editor.completion import as_code, describe_function
from iggyflux.editor.evidence import Samples, places_at, tables_of
from iggyflux.editor.schema_paths import is_expression, schemas_at
from iggyflux.errors import DocumentError, ExpressionError
from iggyflux.expressions import Part, compile_expression
from iggyflux.functions import FUNCTIONS
from iggyflux.records import JSON

_MOST_VALUES: Final = 3
_LONGEST_VALUE: Final = 400


@dataclass(frozen=True, slots=True)
class Hover:
    """What to show for the characters from `start` to `end`, as Markdown."""

    text: str
    start: int
    end: int


def hover(
    text: str,
    offset: int,
    samples: Samples = (),
    *,
    format: Format = "yaml",  # noqa: A002
    file: str | None = None,
) -> Hover | None:
    """Return what is at `offset` of `text`, whose path is `file`; None if nothing is known of it."""
    try:
        document = read_document(text, file=file, format=format)
    except DocumentError:
        return None
    kind: Literal["mapping", "pipeline"] = "pipeline" if kind_of(document.tree) == "pipeline" else "mapping"
    pointer, node, key = _node_at(document, offset)
    if key is not None:
        start, end = node.keys[key]
        schemas = schemas_at(kind, document.tree, join_pointer(pointer, key))
        return _described(schemas[:1], start, end, title=key)
    if not isinstance(node.value, str) or not pointer:
        return None
    schemas = schemas_at(kind, document.tree, pointer)
    if kind == "mapping" and is_expression(schemas):
        found = _in_expression(document, pointer, node, offset, samples)
        if found is not None:
            return found
    return _described(schemas[:1], node.start, node.end, title=node.value)


def _node_at(document: Document, offset: int) -> tuple[str, Node, str | None]:
    """Return the innermost node that contains `offset`, with its pointer, or the object and the key there."""
    pointer, node = "", document.root
    while True:
        for key, (start, end) in node.keys.items():
            if start <= offset < end:
                return pointer, node, key
        inner = next(((key, child) for key, child in node.children.items() if child.start <= offset < child.end), None)
        if inner is None:
            return pointer, node, None
        pointer, node = join_pointer(pointer, inner[0]), inner[1]


def _described(schemas: Sequence[Schema], start: int, end: int, *, title: str) -> Hover | None:
    lines = []
    for schema in schemas:
        if described := schema.get("description"):
            lines.append(str(described))
        if "default" in schema:
            lines.append(f"Default: `{json.dumps(schema['default'])}`")
        if examples := schema.get("examples"):
            shown = " · ".join(as_code(json.dumps(each, ensure_ascii=False)) for each in list(examples)[:_MOST_VALUES])
            lines.append(f"For example {shown}")
    return Hover("\n\n".join([f"**{title}**", *lines]), start, end) if lines else None


# --- expressions ---


def _in_expression(document: Document, pointer: str, node: Node, offset: int, samples: Samples) -> Hover | None:
    value = str(node.value)
    offsets = source_offsets(document.text[node.start : node.end], node.style, value)
    inside = [index for index, at in enumerate(offsets or ()) if node.start + at <= offset]
    if not offsets or not inside:
        return None
    position = inside[-1]
    try:
        expression = compile_expression(value, tables=tables_of(document), parents=None)
    except ExpressionError:
        return None
    parts = expression.trace(places_at(document, pointer, samples))
    named = [
        part for part in parts if part.start <= position < part.stop and part.kind in ("field", "function_expression")
    ]
    part = named[-1] if named else parts[0]
    start, stop = (part.start, part.stop) if named else (0, len(value))
    lines = list(_lines(part, value))
    if not lines:
        return None
    return Hover("\n\n".join(lines), node.start + offsets[start], node.start + offsets[stop - 1] + 1)


def _lines(part: Part, text: str) -> Iterator[str]:
    if part.kind == "function_expression":
        yield describe_function(FUNCTIONS[part.node["value"]])
    elif part.kind == "field":
        yield f"member **{part.node['value']}**"
    else:
        yield as_code(text)
    distinct = list(dict.fromkeys(_shown(value) for value in part.found))
    if distinct:
        more = f"\n\n… and {len(distinct) - _MOST_VALUES:,} other values" if len(distinct) > _MOST_VALUES else ""
        yield "in the samples:\n" + "\n".join(f"- {as_code(value)}" for value in distinct[:_MOST_VALUES]) + more


def _shown(value: JSON) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"
