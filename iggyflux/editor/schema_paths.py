"""Which parts of the schema are about a place of a document: they have the keys and words that are possible."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

from iggyflux.documents import load_schema, split_pointer
from iggyflux.documents.validator import Schema, SchemaValidator, matches
from iggyflux.records import JSON

Kind = Literal["mapping", "pipeline"]


@cache
def _validator(kind: Kind) -> SchemaValidator:
    return SchemaValidator(load_schema(kind))


def schemas_at(kind: Kind, tree: JSON, pointer: str) -> list[Schema]:
    """Return the schemas of the value at `pointer` in a document of `kind`, without references, the nearest first.

    `tree` selects the branches that apply; where a word that selects one is missing, all of them do.
    """
    validator = _validator(kind)
    found = list(_expanded(validator, load_schema(kind), tree))
    value = tree
    for part in split_pointer(pointer):
        value = _child(value, part)
        found = [
            inner for schema in found for step in _below(schema, part) for inner in _expanded(validator, step, value)
        ]
    return found


def is_expression(schemas: list[Schema]) -> bool:
    """Return whether the value may be an expression."""
    return any(schema.get("title") == "an expression" for schema in schemas)


def _expanded(validator: SchemaValidator, schema: Schema, value: JSON) -> Iterator[Schema]:
    """Yield a schema and those that it applies to the same value."""
    schema = validator.resolved(schema)
    yield schema
    for keyword in ("allOf", "anyOf", "oneOf"):
        for branch in schema.get(keyword, ()):
            yield from _expanded(validator, branch, value)
    if "if" in schema:
        (key,) = schema["if"]["required"]
        word = value.get(key) if isinstance(value, dict) else None
        if word is None or not validator.errors(value, schema["if"]):
            yield from _expanded(validator, schema["then"], value)


def _below(schema: Schema, part: str) -> Iterator[Schema]:
    patterns = [inner for pattern, inner in schema.get("patternProperties", {}).items() if matches(pattern, part)]
    if part in schema.get("properties", {}):
        yield schema["properties"][part]
    elif patterns:
        yield from patterns
    elif isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"]
    if part.isdigit() and "items" in schema:
        yield schema["items"]


def _child(value: JSON, part: str) -> JSON:
    if isinstance(value, dict):
        return value.get(part)
    return value[int(part)] if isinstance(value, list) and part.isdigit() and int(part) < len(value) else None
