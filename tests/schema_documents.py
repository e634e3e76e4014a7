"""Documents drawn through the JSON Schema of mappings: a key is drawn from the day it is in the schema.

What a schema cannot say (what an expression is, which names the payload has) comes from `Vocabulary`.  A `Random` makes
the choices: one with a seed is fast, and with one of Hypothesis it can reduce a document that fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from iggyflux.documents.schema import load_schema

SCHEMA: Mapping[str, Any] = load_schema("mapping")
_OPERATORS = [
    "{0}", "{0}", "{0}", "{0}", "{0}", "@", "{0} || {1}", "not_null({0}, {1})", "{0} == {1}", "type({0})",
    "length(to_string({0}))", "keys(@)[0]", "[{0}, {1}][0]", "{0}[0]", "{0}[]", "{0}[*]", "to_number({0})",
    "root().{0}", "meta('offset')", "index()", "header('k')", "{0}[?@ != `null`]", "items(@)", "`7`", "'text'",
    "{{a: {0}, b: {1}}}", "values(@)[0]", "@.{0}", "{0} | @", "upper(to_string({0}))",
]  # fmt: skip
_NAMES = [
    "v", "class", "lambda", "self", "payload", "x_or_default", "Drehzahl [1/min]", "e\u0301", "\u202eabc", "日本",
    "\u2028", "a=b", "a,b c", "time", "_field", "table", "\\x", "tag\\", "#", "", "n" * 300, "None",
]  # fmt: skip
_PATTERNS = ["%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M", r"^(?P<v>\S+) (?P<w>\d+)", "(a+)+$", "("]


_TEXTS = ["class", "x", "A" * 128, "7.b-c_d", "10s", "250ms", "3h", "90d", "1us", "IFX340"]
"""Texts for keys with a pattern: those that match it."""


@dataclass
class Vocabulary:
    """What documents are made of besides their schema; `seen` gathers each place of the schema that was drawn."""

    paths: Sequence[str]
    members: Sequence[str]
    seen: set[str] = field(default_factory=set)

    def expression(self, random: Random) -> str:
        paths = self.paths or ["@"]
        text = random.choice(_OPERATORS).format(random.choice(paths), random.choice(paths))
        return re.sub(r"(@|\(\))\.([@\[])", r"\1 | \2", text)  # a path may begin with either

    def name(self, random: Random) -> str:
        return random.choice(self.members or ["v"]) if is_one_in(2, random) else random.choice(_NAMES)


def is_one_in(count: int, random: Random) -> bool:
    """Return True for one of `count` choices."""
    return random.randrange(count) == 0


def document_of(
    kind: str, vocabulary: Vocabulary, random: Random, payload: Any = "json", for_each: str | None = None
) -> dict[str, Any]:
    """Return a document of a kind; most, not all, are valid.

    A writer reads payloads of the format `payload`.  Two of three writers are such that most messages give points, by
    `for_each`; two of three readers read a measurement.
    """
    document: dict[str, Any] = node_of(SCHEMA["$defs"][kind], vocabulary, f"/{kind}", random)
    if kind == "writer":
        document["from"] = _without(document["from"], "payload")
        if payload != "json":
            document["from"]["payload"] = payload
        if not is_one_in(3, random):
            _ease(document)
            if for_each is not None:
                points = document["points"] if isinstance(document["points"], list) else [document["points"]]
                for holder in points if is_one_in(4, random) else [document]:
                    holder["for_each"] = random.choice([for_each, for_each, [for_each], [for_each, "[@]"]])
                document["collisions"] = random.choice(["error", "merge", "keep_last"])
    elif not is_one_in(3, random):
        document["from"] = {"measurement": "m", **_without(document["from"], "statement", "language")}
    return _without(document, "tables", "examples")


def _without(tree: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in keys}


def _ease(document: dict[str, Any]) -> None:
    """Remove what fails most messages: conditions, lists that are none, measurements and fields of other types."""
    for key in ("where", "for_each"):
        document.pop(key, None)
    points = document["points"]
    for point in points if isinstance(points, list) else [points]:
        for key in ("where", "for_each"):
            point.pop(key, None)
        point["measurement"] = {"const": "m"}
        point.pop("timestamp", None)
        fields = point["fields"] = named if isinstance(named := point.get("fields"), dict) and named else {"*": "@"}
        for key, field_ in fields.items():
            if isinstance(field_, str):
                field_ = fields[key] = {"expr": field_}
            if "expr" in field_:
                field_["type"] = "auto"
            if "*" in key:
                field_ |= {"expr": "@", "flatten": "_"}
    document["invalid_names"] = "replace"


def node_of(node: Mapping[str, Any], vocabulary: Vocabulary, place: str, random: Random) -> Any:
    """Return a tree that the schema `node`, which is at `place`, describes."""
    vocabulary.seen.add(place)
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in ("expression", "condition"):
            return vocabulary.expression(random)
        if name == "member":
            return vocabulary.name(random)
        return node_of(SCHEMA["$defs"][name], vocabulary, f"/{name}", random)
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return random.choice(node["enum"])
    for keyword in ("anyOf", "oneOf"):
        if keyword in node:
            return node_of(random.choice(node[keyword]), vocabulary, place, random)
    if branches := [branch["then"] for branch in node.get("allOf", ()) if "then" in branch]:
        return node_of(random.choice(branches), vocabulary, place, random)
    kinds = node.get("type", "any")
    return _KINDS[random.choice(kinds) if isinstance(kinds, list) else kinds](node, vocabulary, place, random)


def _object(node: Mapping[str, Any], vocabulary: Vocabulary, place: str, random: Random) -> dict[str, Any]:
    required = set(node.get("required", ()))
    optional = [key for key in node.get("properties", {}) if key not in required]
    chosen = random.sample(optional, random.randint(0, min(4, len(optional))))
    for key in chosen:
        required.update(node.get("dependentRequired", {}).get(key, ()))
    tree = {
        key: node_of(child, vocabulary, f"{place}/{key}", random)
        for key, child in node.get("properties", {}).items()
        if key in required or key in chosen
    }
    for pattern, child in node.get("patternProperties", {}).items():
        has_star = "*" in pattern.removeprefix("^[^*]*")
        for _ in range(random.randint(0, 2)):
            name = random.choice(["*", "p_*"]) if has_star else vocabulary.name(random)
            tree[name] = node_of(child, vocabulary, f"{place}/{pattern}", random)
    if isinstance(more := node.get("additionalProperties"), Mapping):
        for _ in range(random.randint(node.get("minProperties", 0), 3)):
            tree[vocabulary.name(random)] = node_of(more, vocabulary, f"{place}/+", random)
    return tree


def _array(node: Mapping[str, Any], vocabulary: Vocabulary, place: str, random: Random) -> list[Any]:
    count = random.randint(node.get("minItems", 0), node.get("maxItems", 3))
    items = [node_of(node.get("items", {}), vocabulary, f"{place}/-", random) for _ in range(count)]
    return list({json.dumps(item): item for item in items}.values()) if node.get("uniqueItems") else items


def _string(node: Mapping[str, Any], vocabulary: Vocabulary, _place: str, random: Random) -> str:
    if node.get("pattern") == "%":
        return random.choice(_PATTERNS)
    if "pattern" in node:
        texts = [text for text in _TEXTS if re.search(node["pattern"], text)]
        if not texts:
            raise LookupError(f"no text matches {node['pattern']}: add one to _TEXTS")
        return random.choice(texts)
    least, most = node.get("minLength", 0), node.get("maxLength", 300)
    words = ["UTC", "Europe/Berlin", "_", ".", *_PATTERNS]
    text = vocabulary.name(random) if is_one_in(2, random) else random.choice(words)
    return text[:most] if len(text) >= least else "_"


def _number(node: Mapping[str, Any], _vocabulary: Vocabulary, _place: str, random: Random) -> Any:
    if node.get("type") == "integer":
        least, most = node.get("minimum", -(2**63)), node.get("maximum", 2**63)
        return random.choice([least, most, min(max(1, least), most), random.randint(least, most)])
    return random.choice([0, -7, 2.5, 1e300, 2**53 + 1, 2**64, -0.0])


_KINDS: dict[str, Any] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _number,
    "boolean": lambda *given: is_one_in(2, given[-1]),
    "any": lambda *given: given[-1].choice([None, True, False, 0, -7, 2**64, "", "\U0001d518", "x y"]),
}
