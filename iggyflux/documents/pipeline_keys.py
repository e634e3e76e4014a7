"""What the schema of pipelines says of keys: where they may stand, and whether their values may be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from iggyflux.documents.schema import load_schema
from iggyflux.errors import closest
from iggyflux.secrets import is_secret_key

Schema: TypeAlias = Mapping[str, Any]


def expanded(schemas: Iterable[Schema]) -> list[Schema]:
    """Return the schemas with those that they refer to."""
    found: list[Schema] = []
    waiting = list(schemas)
    while waiting:
        schema = waiting.pop()
        if "$ref" in schema:
            waiting.append(load_schema("pipeline")["$defs"][schema["$ref"].rpartition("/")[2]])
        for keyword in ("anyOf", "oneOf", "allOf"):
            waiting += schema.get(keyword, ())
        waiting += [schema[keyword] for keyword in ("then", "else") if keyword in schema]
        found.append(schema)
    return found


def schemas_inside(schemas: Sequence[Schema], key: str | int) -> list[Schema]:
    """Return the schemas of a member or an item."""
    if isinstance(key, int):
        return expanded(schema["items"] for schema in schemas if "items" in schema)
    known = [schema["properties"][key] for schema in schemas if key in schema.get("properties", {})]
    of_users = [schema.get("additionalProperties") for schema in schemas]  # their names are those of the user
    return expanded(known or [each for each in of_users if isinstance(each, Mapping)])


def is_key(schemas: Sequence[Schema], key: object) -> bool:
    """Return whether one of the schemas names the key."""
    return any(key in schema.get("properties", {}) for schema in schemas)


def means_known_key(schemas: Sequence[Schema], key: object) -> bool:
    """Return whether an unknown key is that of a mapping, or a misspelt one of these schemas that is not secret."""
    if not isinstance(key, str) or is_secret_key(key) or "key" in key.lower():  # the text of a key may be given
        return False
    if key in load_schema("mapping")["properties"]:
        return True
    known = sorted({name for schema in schemas for name in schema.get("properties", {})})
    meant = closest(key, known, likeness=_LIKE_ITSELF) if len(key) >= _LONG_KEY else None
    return meant is not None and not is_secret_key(meant) and meant in vocabulary().scalars


_LONG_KEY: Final = 5
"""A shorter key is near to many words, and may be that of another program: pin, psk, pwd."""
_LIKE_ITSELF: Final = 0.85
"""What is less like a word may be the name of something else."""


def is_plain(value: object) -> bool:
    """Return whether a value tells nothing under whatever key: a word of the schema, true, null, or a few digits."""
    if value is None or isinstance(value, bool):
        return True
    return str(value) in vocabulary().words or (isinstance(value, int) and abs(value) < _FEW)


_FEW: Final = 1000


def takes_scalars(schema: Schema) -> bool:
    """Return whether a value that is neither an object nor a list may be valid."""
    kinds = schema.get("type", ())
    return (
        "const" in schema
        or "enum" in schema
        or not {"object", "array"}.issuperset([kinds] if isinstance(kinds, str) else kinds)
    )


class Vocabulary(NamedTuple):
    """The words of the schema; `scalars` and `collections` are keys with such values, without the keys of secrets."""

    words: frozenset[str]
    scalars: frozenset[str]
    collections: frozenset[str]
    top_keys: frozenset[str]


@cache
def vocabulary() -> Vocabulary:
    """Return the words of the schema of pipelines."""
    words: set[str] = {"true", "false", "null", "yaml", "toml", "mapping", "pipeline", "writer", "reader"}
    scalars: set[str] = set()
    collections: set[str] = set()

    def walk(schema: Schema) -> None:
        words.update(str(word) for word in (*schema.get("enum", ()), schema.get("const", "")))
        for key, child in schema.get("properties", {}).items():
            words.add(key)
            if not is_secret_key(key):
                schemas = expanded([child])
                if any(map(takes_scalars, schemas)):
                    scalars.add(key)
                if any("properties" in each or "items" in each for each in schemas):
                    collections.add(key)
            walk(child)
        for child in (*schema.get("$defs", {}).values(), *([schema["items"]] if "items" in schema else ())):
            walk(child)

    schema = load_schema("pipeline")
    walk(schema)
    return Vocabulary(frozenset(words), frozenset(scalars), frozenset(collections), frozenset(schema["properties"]))
