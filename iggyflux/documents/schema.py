"""Checks a tree against a JSON Schema: jsonschema decides, and each of its errors becomes a problem with a place.

The schemas are plain draft 2020-12, so that editors can use them too. jsonschema's own messages are never shown: they
quote values, and a value may be a secret.

Annotations of iggyflux help to explain an error: `x-hint` (a hint by the kind of value found; `literal` is a date and
the like, `clock` is now()), `x-instead` (words of other tools for ours), `x-expected` (what a pattern means), `x-code`
(the code of the problem) and `x-unknown` (a hint for unknown keys).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pkgutil import get_data
from typing import TYPE_CHECKING, Any

from iggyflux.documents.nodes import Document, join_pointer, parent_of, split_pointer
from iggyflux.errors import Problem, closest, counted
from iggyflux.records import JSON

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

    from iggyflux.documents.validator import Schema, SchemaValidator

UNKNOWN_KEY = "IFX110"
MISSING_KEY = "IFX111"
WRONG_TYPE = "IFX112"
NOT_ALLOWED = "IFX113"
OUT_OF_BOUNDS = "IFX114"

LITERAL = re.compile(r"[-+]?[0-9][0-9A-Za-z_:.+-]*(?: [0-9:.]+)?")
"""A string that begins with a number: a date, a time, a number with its unit.  No expression begins like this."""

_SHOWN = 60
_NO_MERGE_KEYS = "YAML 1.2 has no merge keys: write out the keys"
_SPECIAL = {"literal": LITERAL, "clock": re.compile(r"(?:now|time|today|utcnow|timestamp|current_timestamp)\(\)")}
_NAMES = {"object": "an object", "array": "a list", "null": "null", "integer": "an integer"}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}
_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@cache
def load_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of documents of kind `name` ("mapping" or "pipeline"); it must not be changed."""
    schema: dict[str, Any] = json.loads(read_schema(name))
    return schema


def read_schema(name: str) -> bytes:
    """Return the text of the packaged JSON Schema of documents of kind `name`."""
    data = get_data("iggyflux", f"schemas/{name}-v1.schema.json")  # importlib.resources takes 20 ms to import
    if data is None:
        raise FileNotFoundError(f"the schema of a {name} is not in the package")
    return data


@cache
def _validator(name: str) -> SchemaValidator:
    from iggyflux.documents.validator import SchemaValidator  # jsonschema takes 80 ms to import

    return SchemaValidator(load_schema(name))


def check_schema(document: Document, name: str) -> list[Problem]:
    """Return every violation of the schema `name` in `document`, in the order of the text."""
    return _problems(document, _validator(name))


def check_tree(document: Document, schema: Schema) -> list[Problem]:
    """Return every violation of `schema` in `document`, in the order of the text."""
    from iggyflux.documents.validator import SchemaValidator

    return _problems(document, SchemaValidator(schema))


def _problems(document: Document, validator: SchemaValidator) -> list[Problem]:
    violations = _Translation(validator).violations(validator.errors(document.tree))
    problems = [
        document.problem(
            violation.code,
            violation.pointer,
            violation.message,
            key=violation.key,
            expected=violation.expected,
            found=violation.found,
            hint=(stray := _stray_hint(document, violation)) or violation.hint,
            instead=None if stray else _instead(document, violation),
        )
        for violation in violations
        if violation.pointer not in (document.broken_keys if violation.code == UNKNOWN_KEY else document.broken)
    ]
    return sorted(problems, key=lambda problem: (problem.location.line, problem.location.column))


def _stray_hint(document: Document, violation: Violation) -> str | None:
    """Return a hint for a key that was not meant as one: `<<`, or `b)`, which `{x: f(a, b)}` has without quotes."""
    if "<<" in split_pointer(violation.pointer):
        return _NO_MERGE_KEYS
    node = document.node(violation.pointer)
    name = violation.pointer.rpartition("/")[2]
    if node is not None and node.value is None and node.in_flow and re.search(r"[()'`|&=<>@]", name):
        return "inside { … } a comma ends the value: quote the whole expression"
    return None


def _instead(document: Document, violation: Violation) -> str | None:
    """Return the text that was probably meant in the place of a key or a word."""
    if violation.meant is None or violation.code not in (UNKNOWN_KEY, NOT_ALLOWED):
        return None
    if not violation.meant.isidentifier():
        return None
    return violation.meant if violation.key or document.format == "yaml" else f'"{violation.meant}"'


@dataclass(frozen=True, slots=True)
class Violation:
    """A problem before it has a place."""

    code: str
    pointer: str
    message: str
    key: bool = False
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    meant: str | None = None  # of a missing key its name, of an unknown key or word the one that was probably meant


class _Translation:
    """Translates errors of jsonschema to violations, with one method or function for each keyword."""

    def __init__(self, validator: SchemaValidator) -> None:
        self.validator = validator

    def violations(self, errors: Iterable[ValidationError], base: str = "") -> list[Violation]:
        """Return the violations that `errors` of the value at `base` mean, without consequences of other errors."""
        placed = [(_pointer(error, base), error) for error in errors]
        failed: dict[str, set[str]] = {}
        for pointer, error in placed:
            failed.setdefault(pointer, set()).add(str(error.validator))
        found: dict[Violation, None] = {}
        for pointer, error in placed:
            if failed[pointer].isdisjoint(_FOLLOWS_FROM.get(str(error.validator), ("type",))):
                found.update(dict.fromkeys(_TRANSLATE[str(error.validator)](self, error, pointer)))
        meant = {(parent_of(each.pointer), each.meant) for each in found if each.code == UNKNOWN_KEY}
        return [each for each in found if each.code != MISSING_KEY or (each.pointer, each.meant) not in meant]

    def wrong_type(self, error: ValidationError, pointer: str) -> Iterator[Violation]:
        schema: Schema = error.schema
        kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        expected = schema.get("x-expected") or schema.get("title") or _type_names(schema)
        hint = _hint(schema, error.instance) or (None if "pattern" in schema else _type_hint(kinds, error.instance))
        if not pointer:
            expected = "an object, such as iggyflux: 1 …"
        message, found = f"{_name(pointer)} has the wrong type", _describe(error.instance)
        yield Violation(schema.get("x-code", WRONG_TYPE), pointer, message, expected=expected, found=found, hint=hint)

    def unknown_key(self, error: ValidationError, pointer: str) -> Iterator[Violation]:
        schema, key = error.schema, error.relative_path[-1]
        properties = schema.get("properties", {})
        unknown = _unknown_key(schema, key, error.instance, pointer)
        yield unknown
        value = error.instance[key]
        if unknown.meant in properties and isinstance(value, (dict, list)):
            yield from self.violations(self.validator.errors(value, properties[unknown.meant]), pointer)

    def missing_keys(self, error: ValidationError, pointer: str) -> Iterator[Violation]:
        schema: Any = error.schema
        if error.validator == "required":
            needed = list(error.validator_value)
        else:
            needed = [
                other for key, others in error.validator_value.items() if key in error.instance for other in others
            ]
        for key in needed:
            if key in error.instance:
                continue
            member = self.validator.resolved(schema.get("properties", {}).get(key, {}))
            expected = " | ".join(map(str, _words(member))) if len(_words(member)) > 1 else None
            examples = [] if expected else member.get("examples", [])
            hint = f"for example {key}: {_inline(examples[0])}" if examples else None
            message = f"missing key `{key}`"
            yield Violation(MISSING_KEY, pointer, message, key=True, expected=expected, hint=hint, meant=key)

    def alternatives(self, error: ValidationError, pointer: str) -> Iterator[Violation]:
        """Yield the violations of the form that was probably meant: by its type, then the one with the fewest."""
        branches = [self.validator.resolved(branch) for branch in error.validator_value]
        errors: list[list[ValidationError]] = [[] for _ in branches]
        for child in error.context or ():
            errors[int(child.relative_schema_path[0])].append(child)
        fitting = [each for each in errors if not any(e.validator == "type" and not e.relative_path for e in each)]
        schema: Any = error.schema
        if not fitting:
            yield _no_branch(schema, branches, error.instance, pointer)
            return
        base = pointer.removesuffix(_pointer(error, ""))
        attempts = [self.violations(each, base) for each in fitting]
        if len(attempts) > 1 and all(each.pointer == pointer and not each.key for found in attempts for each in found):
            allowed = [str(word) for branch in branches for word in branch.get("enum", ())]
            yield _not_a_word(schema, allowed, error.instance, pointer)
        else:
            yield from min(attempts, key=len)


def _pointer(error: ValidationError, base: str) -> str:
    for part in error.absolute_path:
        base = join_pointer(base, part)
    return base


# --- one function for each keyword ---


def _enum(_: _Translation, error: ValidationError, pointer: str) -> Iterator[Violation]:
    schema: Any = error.schema
    words = [word if isinstance(word, str) else _show(word) for word in _words(schema)]
    yield _not_a_word(schema, words, error.instance, pointer, hint=_hint(schema, error.instance, "const"))


def _bounds(_: _Translation, error: ValidationError, pointer: str) -> Iterator[Violation]:
    schema: Any = error.schema
    expected = " and ".join(f"{words} {schema[keyword]}" for keyword, words in _BOUNDS.items() if keyword in schema)
    yield Violation(OUT_OF_BOUNDS, pointer, _not_taken(pointer), expected=expected, found=_show(error.instance))


def _length(_: _Translation, error: ValidationError, pointer: str) -> Iterator[Violation]:
    schema: Any = error.schema
    if not error.instance:
        hint = _hint(schema, error.instance, "empty")
        yield Violation(OUT_OF_BOUNDS, pointer, "the string is empty", expected=schema.get("title"), hint=hint)
        return
    expected = f"{_BOUND[str(error.validator)]} {counted(error.validator_value, 'character')}"
    yield Violation(
        OUT_OF_BOUNDS, pointer, f"the string has {counted(len(error.instance), 'character')}", expected=expected
    )


def _pattern(_: _Translation, error: ValidationError, pointer: str) -> Iterator[Violation]:
    schema: Any = error.schema
    expected = schema.get("x-expected") or f"a string that matches {error.validator_value}"
    hint, found = _hint(schema, error.instance, "pattern"), _show(error.instance)
    yield Violation(OUT_OF_BOUNDS, pointer, _not_taken(pointer), expected=expected, found=found, hint=hint)


def _list_length(_: _Translation, error: ValidationError, pointer: str) -> Iterator[Violation]:
    schema: Any = error.schema
    limit = error.validator_value
    message = f"the list has {counted(len(error.instance), 'item')}" if error.instance else "the list is empty"
    exact = schema.get("minItems") == schema.get("maxItems")
    expected = counted(limit, "item")
    expected = expected if exact else f"{_BOUND[str(error.validator)]} {expected}"
    yield Violation(OUT_OF_BOUNDS, pointer, message, expected=expected)


def _repeated(translation: _Translation, error: ValidationError, pointer: str) -> Iterator[Violation]:
    index = translation.validator.repeated(error.instance)
    place, message = join_pointer(pointer, index), f"duplicate item {_show(error.instance[index])}"
    yield Violation(OUT_OF_BOUNDS, place, message, hint="remove one of them")


def _object_length(_: _Translation, error: ValidationError, pointer: str) -> Iterator[Violation]:
    schema: Any = error.schema
    known = " | ".join(schema.get("properties", ()))
    most = "at least" if error.validator == "minProperties" else "only"
    message = f"the object has {counted(len(error.instance), 'key')}" if error.instance else "the object is empty"
    yield Violation(OUT_OF_BOUNDS, pointer, message, expected=f"{most} one of {known}" if known else None)


_BOUND = {"minLength": "at least", "maxLength": "at most", "minItems": "at least", "maxItems": "at most"}
_TRANSLATE: Mapping[str, Callable[[_Translation, ValidationError, str], Iterator[Violation]]] = {
    "type": _Translation.wrong_type,
    "additionalProperties": _Translation.unknown_key,
    "required": _Translation.missing_keys,
    "dependentRequired": _Translation.missing_keys,
    "anyOf": _Translation.alternatives,
    "enum": _enum,
    "const": _enum,
    **dict.fromkeys(_BOUNDS, _bounds),
    "minLength": _length,
    "maxLength": _length,
    "pattern": _pattern,
    "minItems": _list_length,
    "maxItems": _list_length,
    "uniqueItems": _repeated,
    "minProperties": _object_length,
    "maxProperties": _object_length,
}
_FOLLOWS_FROM: Mapping[str, tuple[str, ...]] = {
    "type": (),
    "pattern": ("type", "minLength", "maxLength"),
    "uniqueItems": ("type", "minItems", "maxItems"),
}
"""For each keyword, the errors of the same value that make its own error redundant; without an entry, `type`."""
ANNOTATIONS = frozenset(
    {"$schema", "$id", "$defs", "$comment", "title", "description", "examples", "default"}
    | {"x-hint", "x-code", "x-instead", "x-expected", "x-unknown"}
)
"""Keywords without effect on validity."""
KEYWORDS = ANNOTATIONS | {*_TRANSLATE, "$ref", "properties", "patternProperties", "items", "allOf", "if", "then"}
"""Every keyword that the packaged schemas may use: an error of another one would have no message."""


def _no_branch(schema: Schema, branches: Sequence[Schema], value: JSON, pointer: str) -> Violation:
    """Return the violation of a value whose type fits no form."""
    names = [branch.get("title") or _type_names(branch) for branch in branches]
    expected = schema.get("x-expected") or _alternatives(names)
    hint = next((found for sub in (schema, *branches) if (found := _hint(sub, value))), None)
    if hint is None and any(branch.get("type") == "string" and "pattern" not in branch for branch in branches):
        hint = _type_hint(["string"], value)
    if hint is None and value is None:
        hint = _type_hint([str(branch.get("type")) for branch in branches], value)
    code = next((sub["x-code"] for sub in (schema, *branches) if "x-code" in sub), WRONG_TYPE)
    message = f"{_name(pointer)} has the wrong type"
    return Violation(code, pointer, message, expected=expected, found=_describe(value), hint=hint)


def _not_a_word(
    schema: Schema, words: Sequence[str], value: JSON, pointer: str, *, hint: str | None = None
) -> Violation:
    """Return the violation of a value that is none of the allowed words."""
    text = value if isinstance(value, str) else _show(value)
    near = schema.get("x-instead", {}).get(text.lower()) or closest(text, words)
    hint = hint or (f"did you mean `{near}`?" if near else _hint(schema, value))
    expected = schema.get("x-expected") or " | ".join(words)
    return Violation(
        NOT_ALLOWED, pointer, _not_taken(pointer), expected=expected, found=_show(value), hint=hint, meant=near
    )


def _unknown_key(schema: Schema, key: str, value: Mapping[str, JSON], place: str) -> Violation:
    known = [name for name in schema.get("properties", {}) if name not in value]
    expected = " | ".join(known) or None
    message = f"unknown key `{key if len(key) <= _SHOWN else key[:_SHOWN] + '…'}`"
    instead = schema.get("x-instead", {}).get(key.lower())
    near = closest(key, known)
    if key == "<<":
        return Violation(UNKNOWN_KEY, place, message, key=True, hint=_NO_MERGE_KEYS)
    if instead is not None:
        hint = instead if " " in instead else f"did you mean `{instead}`?"
        return Violation(UNKNOWN_KEY, place, message, key=True, hint=hint, meant=instead)
    if near is not None:
        return Violation(UNKNOWN_KEY, place, message, key=True, hint=f"did you mean `{near}`?", meant=near)
    return Violation(UNKNOWN_KEY, place, message, key=True, expected=expected, hint=schema.get("x-unknown"))


# --- texts ---


def _describe(value: JSON) -> str:
    """Return a value of a document as messages describe it."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    kind = "the string" if isinstance(value, str) else "the boolean" if isinstance(value, bool) else "the number"
    return f"{kind} {_show(value)}"


def _show(value: JSON) -> str:
    """Return a value as a document writes it, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _name(pointer: str) -> str:
    parts = list(split_pointer(pointer))
    if not parts:
        return "the document"
    if parts[-1].isdigit() and len(parts) > 1:
        return f"item {parts[-1]} of `{parts[-2]}`"
    return f"`{parts[-1]}`"


def _not_taken(pointer: str) -> str:
    return f"invalid value for {_name(pointer)}"


def _type_names(schema: Schema) -> str:
    kinds = schema.get("type", "a value")
    names = [_NAMES.get(kind, f"a {kind}") for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return "true or false" if names == ["a boolean"] else _alternatives(names)


def _type_hint(kinds: Sequence[str], value: JSON) -> str | None:
    if value is None and {"object", "array"} & set(kinds):
        return "indent the lines that belong to this key, or omit the key"
    if "boolean" in kinds and isinstance(value, str):
        return f"write {_BOOLEANS.get(value.lower(), 'true or false, without quotes')}"
    if kinds == ["string"] and isinstance(value, (bool, int, float)):
        return f'quote it: "{_show(value)}"'
    if {"integer", "number"} & set(kinds) and isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value):
        return f"write it without quotes: {value}"
    if kinds == ["array"] and isinstance(value, (str, int)) and not isinstance(value, bool):
        return f"write a list: [{_show(value)}]"
    return None


def _hint(schema: Schema, value: JSON, kind: str | None = None) -> str | None:
    hints = schema.get("x-hint", {})
    special = next((name for name, form in _SPECIAL.items() if isinstance(value, str) and form.fullmatch(value)), None)
    template = hints.get(special if special in hints else kind or _kind(value))
    if template is None:
        return None
    text = value if isinstance(value, str) and len(value) <= _SHOWN else _show(value)
    return str(template).replace("{value}", _show(value) if kind != "pattern" else text).replace("{text}", text)


def _kind(value: JSON) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {type(None): "null", int: "number", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _words(schema: Schema) -> list[JSON]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _inline(value: JSON) -> str:
    """Return a value on one line, as YAML that users of TOML understand too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", value):
        return value
    return f"'{value}'" if isinstance(value, str) and "'" not in value else json.dumps(value, ensure_ascii=False)


def _alternatives(names: Iterable[str]) -> str:
    parts = (part for name in names for part in (re.split(", | or ", name) if " or " in name else [name]))
    unique = list(dict.fromkeys(parts))
    return " or ".join([", ".join(unique[:-1]), unique[-1]] if len(unique) > 1 else unique)
