"""A tree against a JSON Schema, told in problems: every one at once, each at its place, with what was meant.

The schemas are plain draft 2020-12, for editors.  They are read here by an interpreter of the keywords that we use:
a validator that answers valid or not says "not valid under any of the given schemas" where its reader needs to know
which of the forms he was writing, and importing it takes longer than all the rest of `validate`.  A test holds the
verdicts equal to jsonschema's, and another the keywords to those that are known here.

Annotations of our own help to tell a problem: `x-hint` (a hint by what was found; `literal` is a date and the like,
`clock` is now()), `x-instead` (words that people write, and what we call them), `x-expected` (what a pattern means),
`x-code` (a code of its own) and `x-unknown` (a hint for keys that are not known).
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pkgutil import get_data
from typing import Any, TypeAlias

from iggyflux.documents.nodes import Document, join_pointer, split_pointer
from iggyflux.errors import Problem, closest, counted
from iggyflux.records import JSON

UNKNOWN_KEY = "IFX110"
MISSING_KEY = "IFX111"
WRONG_TYPE = "IFX112"
NOT_ALLOWED = "IFX113"
OUT_OF_BOUNDS = "IFX114"

Schema: TypeAlias = Mapping[str, Any]

_SHOWN = 60
_NO_MERGE_KEYS = "YAML 1.2 has no merge keys: write the keys out"
LITERAL = re.compile(r"[-+]?[0-9][0-9A-Za-z_:.+-]*(?: [0-9:.]+)?")
"""A text that begins with a number: a date, a time, a number with its unit; no expression begins so."""
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_WORDS = {"object": "an object", "array": "a list", "null": "null", "integer": "an integer"}
_SPECIAL = {"literal": LITERAL, "clock": re.compile(r"(?:now|time|today|utcnow|timestamp|current_timestamp)\(\)")}
_BOUNDS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("minimum", "at least", operator.ge),
    ("maximum", "at most", operator.le),
    ("exclusiveMinimum", "more than", operator.gt),
    ("exclusiveMaximum", "less than", operator.lt),
)
ANNOTATIONS = frozenset(
    {"$schema", "$id", "$defs", "$comment", "title", "description", "examples", "default"}
    | {"x-hint", "x-code", "x-instead", "x-expected", "x-unknown"}
)
"""Keywords that say nothing about validity."""


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of documents of kind `name` ("mapping" or "pipeline"); not to be changed."""
    data = get_data("iggyflux", f"schemas/{name}-v1.schema.json")  # importlib.resources takes 20 ms to import
    if data is None:
        raise FileNotFoundError(f"the schema of a {name} is not in the package")
    schema: dict[str, Any] = json.loads(data)
    return schema


def check_schema(document: Document, name: str) -> list[Problem]:
    """Everything in which `document` is not what the schema `name` says, in the order of the text."""
    return _told(document, _checker(name))


def check_tree(document: Document, schema: Schema) -> list[Problem]:
    """The same with a schema that is given."""
    return _told(document, _Checker(schema))


@cache
def _checker(name: str) -> _Checker:
    return _Checker(load_schema(name))


def _told(document: Document, checker: _Checker) -> list[Problem]:
    findings = [each for each in checker.check(checker.root, document.tree, "") if not _is_told(document, each)]
    problems = [
        document.problem(
            finding.code,
            finding.pointer,
            finding.message,
            key=finding.key,
            expected=finding.expected,
            found=finding.found,
            hint=_stray_hint(document, finding) or finding.hint,
        )
        for finding in findings
    ]
    return sorted(problems, key=lambda problem: (problem.location.line, problem.location.column))


def _is_told(document: Document, finding: Finding) -> bool:
    """Whether a fault of the text says it already."""
    if finding.code == UNKNOWN_KEY:
        return finding.pointer in document.broken_keys
    return finding.pointer in document.broken


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem before it has a place."""

    code: str
    pointer: str
    message: str
    key: bool = False
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    meant: str | None = None  # of a missing key its name, of an unknown one the name it was probably meant to be


def describe(value: JSON) -> str:
    """What a document holds, in the words of a problem."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    kind = "the string" if isinstance(value, str) else "the boolean" if isinstance(value, bool) else "the number"
    return f"{kind} {show(value)}"


def show(value: JSON) -> str:
    """A value as a document writes it, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _stray_hint(document: Document, finding: Finding) -> str | None:
    """`{x: f(a, b)}` without quotes is the key `x` and the key `b)`: say so at the second; and what `<<` is not."""
    if "<<" in split_pointer(finding.pointer):
        return _NO_MERGE_KEYS
    node = document.node(finding.pointer)
    name = finding.pointer.rpartition("/")[2]
    if node is not None and node.value is None and node.in_flow and re.search(r"[()'`|&=<>@]", name):
        return "a comma ends a value inside of { … }: quote the whole expression"
    return None


class _Checker:
    """Interprets one schema."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.references: dict[int, Schema] = {}

    def check(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        schema = self.resolved(schema)
        wrong = _check_type(schema, value, pointer)
        if wrong is not None:
            return [wrong]
        findings: list[Finding] = []
        for keywords, check in _CHECKS:
            if not keywords.isdisjoint(schema):
                findings += check(self, schema, value, pointer)
        meant = {finding.meant for finding in findings if finding.meant and finding.code == UNKNOWN_KEY}
        return [finding for finding in findings if finding.code != MISSING_KEY or finding.meant not in meant]

    def resolved(self, schema: Schema) -> Schema:
        """The schema with what it refers to under it: the keys beside `$ref` win."""
        if "$ref" not in schema:
            return schema
        known = self.references.get(id(schema))
        if known is None:
            target: Any = self.root
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            beside = {key: item for key, item in schema.items() if key != "$ref"}
            known = self.references[id(schema)] = {**self.resolved(target), **beside}
        return known

    # objects

    def check_members(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        if not isinstance(value, dict):
            return []
        findings: list[Finding] = []
        properties = schema.get("properties", {})
        patterns = [(_pattern(text), sub) for text, sub in schema.get("patternProperties", {}).items()]
        rest = schema.get("additionalProperties", True)
        for key, member in value.items():
            place = join_pointer(pointer, key)
            schemas = [properties[key]] if key in properties else []
            schemas += [sub for pattern, sub in patterns if pattern.search(key)]
            if schemas or isinstance(rest, dict):
                for sub in schemas or [rest]:
                    findings += self.check(sub, member, place)
            elif rest is False:
                unknown = _unknown_key(schema, key, value, place)
                findings.append(unknown)
                if unknown.meant in properties and isinstance(member, (dict, list)):
                    findings += self.check(properties[unknown.meant], member, place)
        return findings

    def check_required(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        if not isinstance(value, dict):
            return []
        missing = [key for key in schema.get("required", ()) if key not in value]
        for key, needed in schema.get("dependentRequired", {}).items():
            missing += [other for other in needed if key in value and other not in value]
        return [self.missing(schema, key, pointer) for key in missing]

    def missing(self, schema: Schema, key: str, pointer: str) -> Finding:
        sub = self.resolved(schema.get("properties", {}).get(key, {}))
        examples = sub.get("examples", [])
        hint = f"such as {key}: {_inline(examples[0])}" if examples else None
        return Finding(MISSING_KEY, pointer, f"the key `{key}` is missing", key=True, hint=hint, meant=key)

    def check_sizes(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        least, most = schema.get("minProperties", 0), schema.get("maxProperties")
        if not isinstance(value, dict) or (len(value) >= least and (most is None or len(value) <= most)):
            return []
        known = " | ".join(schema.get("properties", ()))
        expected = f"{'at least' if len(value) < least else 'only'} one of {known}" if known else None
        message = "the object is empty" if not value else f"the object has {counted(len(value), 'key')}"
        return [Finding(OUT_OF_BOUNDS, pointer, message, expected=expected)]

    # lists

    def check_items(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        if not isinstance(value, list):
            return []
        findings: list[Finding] = []
        for index, item in enumerate(value):
            findings += self.check(schema["items"], item, join_pointer(pointer, index))
        return findings

    # alternatives

    def check_any(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        branches = [self.resolved(branch) for branch in schema.get("anyOf") or schema["oneOf"]]
        chosen = self.discriminated(branches, value, pointer)
        if chosen is not None:
            return chosen
        fitting = [branch for branch in branches if _check_type(branch, value, pointer) is None]
        if not fitting:
            return [self.no_branch(schema, branches, value, pointer)]
        attempts = [(self.check(branch, value, pointer), branch) for branch in fitting]
        findings = min((found for found, _ in attempts), key=len)
        if findings and len(attempts) > 1 and all(_is_scalar_finding(found, pointer) for found, _ in attempts):
            return [self.no_value(schema, branches, value, pointer)]
        return findings

    def discriminated(self, branches: Sequence[Schema], value: JSON, pointer: str) -> list[Finding] | None:
        """Where one key tells the branches apart (`kind`, `format`), it chooses, and a wrong one is told once."""
        key = _discriminator(branches)
        if key is None or not isinstance(value, dict):
            return None
        allowed = [word for branch in branches for word in _words(branch["properties"][key])]
        if value.get(key) in allowed:
            branch = next(branch for branch in branches if value[key] in _words(branch["properties"][key]))
            return self.check(branch, value, pointer)
        own = join_pointer(pointer, key)
        expected = " | ".join(str(word) for word in allowed)
        if key not in value:
            told = Finding(MISSING_KEY, pointer, f"the key `{key}` is missing", key=True, expected=expected, meant=key)
        else:
            instead = branches[0]["properties"][key].get("x-instead", {})
            told = Finding(
                NOT_ALLOWED,
                own,
                _not_taken(own),
                expected=expected,
                found=show(value[key]),
                hint=_did_you_mean(value[key], [str(word) for word in allowed], instead),
            )
        attempts = [
            [
                found
                for found in self.check(branch, value, pointer)
                if found.pointer != own and not _misses(found, key, pointer)
            ]
            for branch in branches
        ]
        near = closest(str(value.get(key, "")), [str(word) for word in allowed])
        for branch, attempt in zip(branches, attempts, strict=True):
            if near in _words(branch["properties"][key]):
                return [told, *attempt]
        return [told, *min(attempts, key=len)]

    def no_branch(self, schema: Schema, branches: Sequence[Schema], value: JSON, pointer: str) -> Finding:
        """A value of a type that no branch takes."""
        names = [branch.get("title") or _type_words(branch) for branch in branches]
        expected = schema.get("x-expected") or _alternatives(names)
        hint = next((found for sub in (schema, *branches) if (found := _hint(sub, value))), None)
        if hint is None and any(branch.get("type") == "string" and "pattern" not in branch for branch in branches):
            hint = _general_hint(["string"], value)
        code = next((sub["x-code"] for sub in (schema, *branches) if "x-code" in sub), WRONG_TYPE)
        return Finding(code, pointer, _wrong_type(pointer), expected=expected, found=describe(value), hint=hint)

    def no_value(self, schema: Schema, branches: Sequence[Schema], value: JSON, pointer: str) -> Finding:
        """A string that is none of the words of any branch."""
        allowed = [str(word) for branch in branches for word in branch.get("enum", ())]
        expected = schema.get("x-expected") or " | ".join(allowed)
        hint = _did_you_mean(value, allowed, schema.get("x-instead", {})) or _hint(schema, value)
        return Finding(NOT_ALLOWED, pointer, _not_taken(pointer), expected=expected, found=show(value), hint=hint)

    def check_all(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        return [finding for branch in schema["allOf"] for finding in self.check(branch, value, pointer)]

    # scalars

    def check_enum(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        allowed = _words(schema)
        if any(_same(value, word) for word in allowed):
            return []
        words = [word if isinstance(word, str) else show(word) for word in allowed]
        hint = _hint(schema, value, "const") or _did_you_mean(value, words, schema.get("x-instead", {}))
        expected = " | ".join(words)
        return [Finding(NOT_ALLOWED, pointer, _not_taken(pointer), expected=expected, found=show(value), hint=hint)]

    def check_bounds(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return []
        bounds = [(word, test, schema[keyword]) for keyword, word, test in _BOUNDS if keyword in schema]
        if all(test(value, bound) for _, test, bound in bounds):
            return []
        expected = " and ".join(f"{word} {bound}" for word, _, bound in bounds)
        return [Finding(OUT_OF_BOUNDS, pointer, _not_taken(pointer), expected=expected, found=show(value))]

    def check_text(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        if not isinstance(value, str):
            return []
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if not value and least:
            return [
                Finding(
                    OUT_OF_BOUNDS,
                    pointer,
                    "the text is empty",
                    expected=schema.get("title"),
                    hint=_hint(schema, value, "empty"),
                )
            ]
        if len(value) < least or (most is not None and len(value) > most):
            expected = (
                f"at least {counted(least, 'character')}"
                if len(value) < least
                else f"at most {counted(most or 0, 'character')}"
            )
            return [
                Finding(
                    OUT_OF_BOUNDS,
                    pointer,
                    f"the text has {len(value)} character{'' if len(value) == 1 else 's'}",
                    expected=expected,
                )
            ]
        if "pattern" in schema and _pattern(schema["pattern"]).search(value) is None:
            expected = schema.get("x-expected") or f"a text that matches {schema['pattern']}"
            hint = _hint(schema, value, "pattern")
            return [
                Finding(OUT_OF_BOUNDS, pointer, _not_taken(pointer), expected=expected, found=show(value), hint=hint)
            ]
        return []

    def check_list(self, schema: Schema, value: JSON, pointer: str) -> list[Finding]:
        if not isinstance(value, list):
            return []
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if len(value) < least or (most is not None and len(value) > most):
            message = "the list is empty" if not value else f"the list has {counted(len(value), 'item')}"
            bound = f"at least {least}" if len(value) < least else f"at most {most}"
            expected = counted(least, "item") if least == most else bound
            return [Finding(OUT_OF_BOUNDS, pointer, message, expected=expected)]
        if schema.get("uniqueItems"):
            texts = [json.dumps(item, sort_keys=True) for item in value]
            for index, text in enumerate(texts):
                if text in texts[:index]:
                    place = join_pointer(pointer, index)
                    return [
                        Finding(OUT_OF_BOUNDS, place, f"{show(value[index])} is here twice", hint="keep one of them")
                    ]
        return []


_CHECKS: tuple[tuple[frozenset[str], Callable[[_Checker, Schema, Any, str], list[Finding]]], ...] = tuple(
    (frozenset(keywords), check)
    for keywords, check in (
        (("required", "dependentRequired"), _Checker.check_required),
        (("properties", "patternProperties", "additionalProperties"), _Checker.check_members),
        (("minProperties", "maxProperties"), _Checker.check_sizes),
        (("items",), _Checker.check_items),
        (("minItems", "maxItems", "uniqueItems"), _Checker.check_list),
        (("enum", "const"), _Checker.check_enum),
        (("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _Checker.check_bounds),
        (("minLength", "maxLength", "pattern"), _Checker.check_text),
        (("anyOf", "oneOf"), _Checker.check_any),
        (("allOf",), _Checker.check_all),
    )
)
KEYWORDS = ANNOTATIONS | {"$ref", "type"} | {keyword for keywords, _ in _CHECKS for keyword in keywords}
"""Every keyword that a schema of ours may use."""


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of JSON Schema, where a last `$` is the end of the text and not the line break before it."""
    return re.compile(text.removesuffix("$") + r"\Z" if text.endswith("$") else text)


# --- types ---


def _check_type(schema: Schema, value: JSON, pointer: str) -> Finding | None:
    kinds = schema.get("type")
    if kinds is None:
        return None
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if any(_is(value, kind) for kind in kinds):
        return None
    expected = schema.get("x-expected") or schema.get("title") or _type_words(schema)
    code = schema.get("x-code", WRONG_TYPE)
    hint = _hint(schema, value) or (None if "pattern" in schema else _general_hint(kinds, value))
    if not pointer:
        expected = "an object, such as iggyflux: 1 …"
    return Finding(code, pointer, _wrong_type(pointer), expected=expected, found=describe(value), hint=hint)


def _is(value: JSON, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _type_words(schema: Schema) -> str:
    kinds = schema.get("type", "a value")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    words = [_WORDS.get(kind, f"a {kind}") for kind in kinds]
    if "enum" in schema:
        return " | ".join(str(word) for word in schema["enum"])
    return "true or false" if words == ["a boolean"] else _alternatives(words)


def _general_hint(kinds: Sequence[str], value: JSON) -> str | None:
    if "boolean" in kinds and isinstance(value, str):
        word = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}.get(
            value.lower()
        )
        return f"write {word or 'true or false, without quotes'}"
    if kinds == ["string"] and isinstance(value, (bool, int, float)):
        return f'a text that looks like this has quotes: "{show(value)}"'
    if {"integer", "number"} & set(kinds) and isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value):
        return f"write it without quotes: {value}"
    if kinds == ["array"] and isinstance(value, (str, int)) and not isinstance(value, bool):
        return f"a list of one: [{show(value)}]"
    return None


# --- words ---


def _name(pointer: str) -> str:
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    if not parts:
        return "the document"
    if parts[-1].isdigit() and len(parts) > 1:
        return f"item {parts[-1]} of `{parts[-2]}`"
    return f"`{parts[-1]}`"


def _wrong_type(pointer: str) -> str:
    return f"{_name(pointer)} has a value of the wrong type"


def _not_taken(pointer: str) -> str:
    return f"{_name(pointer)} has a value that it does not take"


def _hint(schema: Schema, value: JSON, kind: str | None = None) -> str | None:
    hints = schema.get("x-hint", {})
    special = next((name for name, form in _SPECIAL.items() if isinstance(value, str) and form.fullmatch(value)), None)
    template = hints.get(special if special in hints else kind or _kind(value))
    if template is None:
        return None
    text = value if isinstance(value, str) and len(value) <= _SHOWN else show(value)
    return str(template).replace("{value}", show(value) if kind != "pattern" else text).replace("{text}", text)


def _kind(value: JSON) -> str:
    return next(kind for kind in ("null", "boolean", "number", "string", "array", "object") if _is(value, kind))


def _did_you_mean(value: JSON, words: Sequence[str], instead: Mapping[str, str]) -> str | None:
    text = value if isinstance(value, str) else show(value)
    near = instead.get(text.lower()) or closest(text, words)
    return f"did you mean `{near}`?" if near else None


def _unknown_key(schema: Schema, key: str, value: Mapping[str, JSON], place: str) -> Finding:
    known = [name for name in schema.get("properties", {}) if name not in value]
    expected = " | ".join(known) or None
    message = f"unknown key `{key if len(key) <= _SHOWN else key[:_SHOWN] + '…'}`"
    instead = schema.get("x-instead", {}).get(key.lower())
    near = closest(key, known)
    if key == "<<":
        return Finding(UNKNOWN_KEY, place, message, key=True, hint=_NO_MERGE_KEYS)
    if instead is not None:
        hint = instead if " " in instead else f"did you mean `{instead}`?"
        return Finding(UNKNOWN_KEY, place, message, key=True, hint=hint, meant=instead)
    if near is not None:
        return Finding(UNKNOWN_KEY, place, message, key=True, hint=f"did you mean `{near}`?", meant=near)
    return Finding(UNKNOWN_KEY, place, message, key=True, expected=expected, hint=schema.get("x-unknown"))


def _inline(value: JSON) -> str:
    """A value in one line, as YAML that TOML's readers understand too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", value):
        return value
    return f"'{value}'" if isinstance(value, str) and "'" not in value else json.dumps(value, ensure_ascii=False)


def _alternatives(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    return " or ".join([", ".join(unique[:-1]), unique[-1]] if len(unique) > 1 else unique)


# --- alternatives ---


def _is_scalar_finding(findings: Sequence[Finding], pointer: str) -> bool:
    return all(finding.pointer == pointer and not finding.key for finding in findings)


def _misses(finding: Finding, key: str, pointer: str) -> bool:
    return finding.code == MISSING_KEY and finding.pointer == pointer and finding.meant == key


def _discriminator(branches: Sequence[Schema]) -> str | None:
    """The key of which every branch takes other values than the rest."""
    for key, schema in branches[0].get("properties", {}).items():
        if not ("const" in schema or "enum" in schema):
            continue
        words = [word for branch in branches for word in map(str, _words(branch.get("properties", {}).get(key, {})))]
        complete = all(_words(branch.get("properties", {}).get(key, {})) for branch in branches)
        if complete and len(branches) > 1 and len(set(words)) == len(words):
            return str(key)
    return None


def _words(schema: Schema) -> list[JSON]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _same(value: JSON, word: JSON) -> bool:
    return value == word and type(value) is type(word)
