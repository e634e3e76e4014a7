"""jsonschema's draft 2020-12, made safe for hostile documents and stricter about types.

It differs from the standard in four points.  Patterns run in RE2, in linear time.  An integer has no decimal point, and
true is not 1.  Keys beside `$ref` replace those of its target.  If a misspelt word selects no branch of `if`, the
branch that was probably meant is checked too.  A test keeps the schemas to forms in which this makes no invalid
document valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import re2
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from iggyflux.errors import closest
from iggyflux.records import JSON

Schema: TypeAlias = Mapping[str, Any]
_Errors: TypeAlias = Iterator[ValidationError]


class SchemaValidator:
    """One schema, ready to check trees."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._resolved: dict[int, Schema] = {}
        self._validator = validators.extend(_VALIDATOR, {"$ref": self._reference})(root)

    def errors(self, value: JSON, schema: Schema | None = None) -> list[ValidationError]:
        """Return the errors of `value` by the whole schema, or by `schema`, a part of it.

        Keys of objects are strings, and the depth of the tree and the length of its numbers are bounded: the readers of
        documents ensure it.
        """
        validator = self._validator if schema is None else self._validator.evolve(schema=schema)
        return list(validator.iter_errors(value))

    def resolved(self, schema: Schema) -> Schema:
        """Return the schema that `schema` refers to, with the keys beside `$ref` laid over it."""
        if "$ref" not in schema:
            return schema
        known = self._resolved.get(id(schema))
        if known is None:
            target: Any = self._root
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            beside = {key: item for key, item in schema.items() if key != "$ref"}
            known = self._resolved[id(schema)] = {**self.resolved(target), **beside}
        return known

    def _reference(self, validator: Any, _reference: str, value: JSON, schema: Schema) -> _Errors:
        yield from validator.descend(value, self.resolved(schema))

    @staticmethod
    def repeated(items: Sequence[JSON]) -> int:
        """Return the index of the first item that equals an earlier one, or -1."""
        seen: set[str] = set()
        for index, item in enumerate(items):
            text = json.dumps(item, sort_keys=True)
            if text in seen:
                return index
            seen.add(text)
        return -1


@cache
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern)


def matches(pattern: str, text: str) -> bool:
    """Return whether `text` matches; `$` is the end of the text, never the line break before it."""
    return _compiled(pattern).search(text.encode(errors="replace").decode()) is not None


def _pattern(_: Any, pattern: str, value: JSON, _schema: Schema) -> _Errors:
    if isinstance(value, str) and not matches(pattern, value):
        yield ValidationError("")


def _pattern_properties(validator: Any, patterns: Mapping[str, Schema], value: JSON, _schema: Schema) -> _Errors:
    if isinstance(value, dict):
        for pattern, schema in patterns.items():
            for key in (key for key in value if matches(pattern, key)):
                yield from validator.descend(value[key], schema, path=key)


def _additional_properties(validator: Any, allowed: Schema | bool, value: JSON, schema: Schema) -> _Errors:
    """Yield errors as the standard does, but one for each key, at the key."""
    if not isinstance(value, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", ())
    for key, item in value.items():
        if key in known or any(matches(pattern, key) for pattern in patterns):
            continue
        if allowed is False:
            yield ValidationError("", path=[key])
        elif isinstance(allowed, dict):
            yield from validator.descend(item, allowed, path=key)


def _unique_items(_: Any, wanted: bool, value: JSON, _schema: Schema) -> _Errors:
    if wanted and isinstance(value, list) and SchemaValidator.repeated(value) >= 0:
        yield ValidationError("")


def _all_of(validator: Any, branches: Sequence[Schema], value: JSON, _schema: Schema) -> _Errors:
    yield from Draft202012Validator.VALIDATORS["allOf"](validator, branches, value, _schema)
    if isinstance(value, dict) and all("if" in branch for branch in branches):
        yield from _of_meant_branch(validator, branches, value)


def _of_meant_branch(validator: Any, branches: Sequence[Schema], value: Mapping[str, JSON]) -> _Errors:
    """Yield the errors of the branch that was probably meant, if the word that selects it is missing or misspelt."""
    (key,) = {name for branch in branches for name in branch["if"]["required"]}
    branch_of = {}
    for branch in branches:
        test = branch["if"]["properties"][key]
        branch_of.update(dict.fromkeys(test.get("enum") or [test["const"]], branch["then"]))
    found = value.get(key)
    if isinstance(found, str) and found in branch_of:
        return
    misspelt = closest(key, list(value)) if key not in value else None
    near = closest(str(value[misspelt] if misspelt else found), list(branch_of))
    words = [near] if near else list(branch_of)
    # Without a word the key that is misspelt is one of the keys that may be meant.
    meant = [(branch_of[word], value if misspelt else {**value, key: word}) for word in words]
    yield from min((list(validator.descend(whole, branch)) for branch, whole in meant), key=len)


def _integer(_: Any, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_VALIDATOR = validators.create(
    Draft202012Validator.META_SCHEMA,
    {
        **Draft202012Validator.VALIDATORS,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
        "allOf": _all_of,
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _integer),
    applicable_validators=lambda schema: [("$ref", schema["$ref"])] if "$ref" in schema else schema.items(),
)
