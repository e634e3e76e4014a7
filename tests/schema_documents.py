"""Documents drawn through the JSON Schema of mappings: a key is drawn from the day it is in the schema.

What a schema cannot say (what an expression is, which names the payload has) comes from `Vocabulary`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

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


@dataclass
class Vocabulary:
    """What documents are made of besides their schema; `seen` gathers each place of the schema that was drawn."""

    paths: Sequence[str]
    members: Sequence[str]
    seen: set[str] = field(default_factory=set)

    def expressions(self) -> st.SearchStrategy[str]:
        path = st.sampled_from(self.paths or ["@"])
        return st.builds(lambda form, a, b: form.format(a, b), st.sampled_from(_OPERATORS), path, path)

    def names(self) -> st.SearchStrategy[str]:
        return st.one_of(st.sampled_from(self.members or ["v"]), st.sampled_from(_NAMES))


@st.composite
def documents(draw: Any, kind: str, vocabulary: Vocabulary, form: str = "json") -> dict[str, Any]:
    """A document of a kind whose payloads have the format `form`; most, not all, are valid."""
    document: dict[str, Any] = draw(node_of(SCHEMA["$defs"][kind], vocabulary, f"/{kind}"))
    document["from"] = {key: value for key, value in document["from"].items() if key != "payload"}
    if kind == "writer":
        if form != "json":
            document["from"]["payload"] = form
        if draw(st.integers(0, 2)):
            _ease(document)
    return {key: value for key, value in document.items() if key not in ("tables", "examples")}


def _ease(document: dict[str, Any]) -> None:
    """Remove what fails most messages: conditions, lists that are none, measurements and fields of other types."""
    for key in ("where", "for_each"):
        document.pop(key, None)
    points = document["points"]
    for point in points if isinstance(points, list) else [points]:
        point.pop("where", None)
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


@st.composite
def node_of(draw: Any, node: Mapping[str, Any], vocabulary: Vocabulary, place: str) -> Any:
    """A tree that the schema `node`, which is at `place`, describes."""
    vocabulary.seen.add(place)
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in ("expression", "condition"):
            return draw(vocabulary.expressions())
        if name == "member":
            return draw(vocabulary.names())
        return draw(node_of(SCHEMA["$defs"][name], vocabulary, f"/{name}"))
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return draw(st.sampled_from(node["enum"]))
    for keyword in ("anyOf", "oneOf"):
        if keyword in node:
            return draw(node_of(draw(st.sampled_from(node[keyword])), vocabulary, place))
    if branches := [branch["then"] for branch in node.get("allOf", ()) if "then" in branch]:
        return draw(node_of(draw(st.sampled_from(branches)), vocabulary, place))
    kinds = node.get("type", "any")
    kind = draw(st.sampled_from(kinds)) if isinstance(kinds, list) else kinds
    return draw(_KINDS[kind](node, vocabulary, place))


@st.composite
def _object(draw: Any, node: Mapping[str, Any], vocabulary: Vocabulary, place: str) -> dict[str, Any]:
    required = set(node.get("required", ()))
    optional = [key for key in node.get("properties", {}) if key not in required]
    chosen = draw(st.lists(st.sampled_from(optional), unique=True, max_size=4)) if optional else []
    for key in chosen:
        required.update(node.get("dependentRequired", {}).get(key, ()))
    tree = {
        key: draw(node_of(child, vocabulary, f"{place}/{key}"))
        for key, child in node.get("properties", {}).items()
        if key in required or key in chosen
    }
    for pattern, child in node.get("patternProperties", {}).items():
        names = vocabulary.names() if "*" not in pattern.removeprefix("^[^*]*") else st.sampled_from(["*", "p_*"])
        for name in draw(st.lists(names, max_size=2, unique=True)):
            tree[name] = draw(node_of(child, vocabulary, f"{place}/{pattern}"))
    if isinstance(more := node.get("additionalProperties"), Mapping):
        for name in draw(st.lists(vocabulary.names(), min_size=node.get("minProperties", 0), max_size=3, unique=True)):
            tree[name] = draw(node_of(more, vocabulary, f"{place}/+"))
    return tree


@st.composite
def _array(draw: Any, node: Mapping[str, Any], vocabulary: Vocabulary, place: str) -> list[Any]:
    least, most = node.get("minItems", 0), node.get("maxItems", 3)
    by = json.dumps if node.get("uniqueItems") else None
    items = node_of(node.get("items", {}), vocabulary, f"{place}/-")
    return draw(st.lists(items, min_size=least, max_size=most, unique_by=by))  # type: ignore[no-any-return]


def _string(node: Mapping[str, Any], vocabulary: Vocabulary, _place: str) -> st.SearchStrategy[str]:
    if "pattern" in node:
        if node["pattern"] == "%":
            return st.sampled_from(_PATTERNS)
        return st.from_regex(re.compile(node["pattern"], re.ASCII), fullmatch=True).filter(
            lambda text: "\n" not in text
        )
    least, most = node.get("minLength", 0), node.get("maxLength", 300)
    words = st.one_of(vocabulary.names(), st.sampled_from(["UTC", "Europe/Berlin", "_", ".", *_PATTERNS]))
    return words.filter(lambda text: least <= len(text) <= most)


def _number(node: Mapping[str, Any], _vocabulary: Vocabulary, _place: str) -> st.SearchStrategy[Any]:
    if node.get("type") == "integer":
        return st.integers(node.get("minimum", -(2**63)), node.get("maximum", 2**63))
    return st.sampled_from([0, -7, 2.5, 1e300, 2**53 + 1, 2**64, -0.0])


_KINDS: dict[str, Any] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _number,
    "boolean": lambda *_: st.booleans(),
    "any": lambda *_: st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
}
