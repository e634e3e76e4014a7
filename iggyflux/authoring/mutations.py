"""Small changes of a mapping that its examples should notice: a dropped tag, another type or unit, a negated condition.

A change that no example notices is a mistake that `iggyflux test` would not find either.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from iggyflux.authoring.examples import run_examples
from iggyflux.documents import join_pointer, read_document, split_pointer
from iggyflux.errors import DocumentError, ExpressionError, Problem
from iggyflux.expressions.syntax import tokenize
from iggyflux.mapping import ReaderMapping, WriterMapping, compile_document

UNNOTICED: Final = "IFX516"
_OTHER_UNIT: Final = {"unix_s": "unix_ms", "unix_ms": "unix_s", "unix_us": "unix_ns", "unix_ns": "unix_us"}
_OTHER_TYPE: Final = {
    "integer": "float",
    "unsigned": "integer",
    "float": "integer",
    "string": "boolean",
    "boolean": "string",
}


@dataclass(frozen=True, slots=True)
class Mutation:
    """A changed document: the place of the change, what it does, and the tree."""

    pointer: str
    change: str
    tree: Any


@dataclass(frozen=True, slots=True)
class Mutated:
    """How many changes were tried, and a problem for each that no example notices."""

    tried: int
    unnoticed: tuple[Problem, ...]


def mutate(mapping: WriterMapping | ReaderMapping) -> Mutated:
    """Try each small change of a mapping whose examples pass."""
    tried, unnoticed = 0, []
    for mutation in mutations(mapping.document.tree):
        try:
            document = read_document(json.dumps(mutation.tree), file=mapping.document.file, format="yaml")
            changed = compile_document(replace(document, files=mapping.document.files), name=mapping.name)
        except DocumentError:
            continue  # no document: a change that validation would find
        tried += 1
        if all(result.passed for result in run_examples(changed)):
            message = f"no example fails when this {mutation.change}"
            unnoticed.append(mapping.document.problem(UNNOTICED, mutation.pointer, message, severity="warning"))
    return Mutated(tried, tuple(sorted(unnoticed, key=lambda each: (each.location.line, each.location.column))))


def mutations(tree: Any) -> Iterator[Mutation]:
    """Yield the changed documents; some of them may be invalid."""
    yield from _of_conditions(tree, "")
    points = tree.get("points")
    for pointer in ["/points"] if isinstance(points, dict) else [f"/points/{n}" for n in range(len(points or ()))]:
        yield from _of_point(tree, pointer)
    messages = tree.get("messages")
    for pointer in (
        ["/messages"] if isinstance(messages, dict) else [f"/messages/{n}" for n in range(len(messages or ()))]
    ):
        for part in ("payload", "headers"):
            yield from _of_members(tree, join_pointer(pointer, part))


def _of_point(tree: Any, pointer: str) -> Iterator[Mutation]:
    yield from _of_conditions(tree, pointer)
    for part in ("tags", "fields"):
        yield from _of_members(tree, f"{pointer}/{part}")
    for part in ("measurement", "timestamp"):
        yield from _of_options(tree, f"{pointer}/{part}")


def _of_conditions(tree: Any, pointer: str) -> Iterator[Mutation]:
    """Yield changes of what says for which messages or elements points are made."""
    lists = _at(tree, f"{pointer}/for_each")
    each = [f"{pointer}/for_each/{n}" for n in range(len(lists))] if isinstance(lists, list) else []
    for place in (f"{pointer}/where", *(each or [f"{pointer}/for_each"])):
        yield from _negated(tree, place)
        yield from _of_expression(tree, place)


def _of_members(tree: Any, pointer: str) -> Iterator[Mutation]:
    """Yield changes of an object or a list of tags, fields, headers or members of a payload."""
    members = _at(tree, pointer)
    if not isinstance(members, (dict, list)):
        return
    keys = list(members) if isinstance(members, dict) else list(range(len(members)))
    for key in keys:
        place = join_pointer(pointer, key)
        changed = copy.deepcopy(tree)
        _at(changed, pointer).pop(key)
        yield Mutation(place, "is dropped", changed)
        yield from _of_options(tree, place)
    if isinstance(members, dict):
        for one, other in pairwise(keys):
            if members[one] != members[other]:
                changed = copy.deepcopy(tree)
                inner = _at(changed, pointer)
                inner[one], inner[other] = inner[other], inner[one]
                yield Mutation(join_pointer(pointer, one), f"is swapped with {other}", changed)


def _of_options(tree: Any, pointer: str) -> Iterator[Mutation]:
    """Yield changes of `{expr: …, default: …}` and the like."""
    options = _at(tree, pointer)
    yield from _of_expression(tree, pointer)
    if not isinstance(options, dict):
        return
    yield from _of_expression(tree, join_pointer(pointer, "expr"))
    for key in ("default", "required", "cast", "on_bad_value", "spread", "flatten"):
        if key in options:
            changed = copy.deepcopy(tree)
            _at(changed, pointer).pop(key)
            yield Mutation(join_pointer(pointer, key), "is dropped", changed)
    others = [
        ("type", _OTHER_TYPE.get(str(options.get("type")))),
        ("format", _OTHER_UNIT.get(str(options.get("format")))),
    ]
    if "const" in options:
        others.append(("const", _other_constant(options["const"])))
    for key, other in others:
        if other is not None:
            changed = copy.deepcopy(tree)
            _at(changed, pointer)[key] = other
            yield Mutation(join_pointer(pointer, key), f"is {json.dumps(other)}", changed)


def _other_constant(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return f"{value}~" if isinstance(value, str) else value + 1


_OTHER_SIGN: Final = {"eq": "!=", "ne": "==", "lt": "<=", "lte": "<", "gt": ">=", "gte": ">"}


def _of_expression(tree: Any, pointer: str) -> Iterator[Mutation]:
    """Yield changes of the literals and comparisons in the expression at `pointer`."""
    text = _at(tree, pointer)
    if not isinstance(text, str):
        return
    try:
        tokens = tokenize(text)
    except ExpressionError:
        return
    for token in tokens:
        other = _OTHER_SIGN.get(token["type"])
        if token["type"] == "literal" and isinstance(token["value"], (str, int, float)):
            constant = _other_constant(token["value"])
            other = f"'{constant}'" if isinstance(constant, str) else f"`{json.dumps(constant)}`"
        if other is not None:
            changed = copy.deepcopy(tree)
            holder, _, key = pointer.rpartition("/")
            members = _at(changed, holder)
            place: Any = int(key) if isinstance(members, list) else next(split_pointer(f"/{key}"))
            members[place] = f"{text[: token['start']]}{other}{text[token['stop'] :]}"
            yield Mutation(pointer, f"has {other} for {text[token['start'] : token['stop']]}", changed)


def _negated(tree: Any, pointer: str) -> Iterator[Mutation]:
    condition = _at(tree, pointer)
    if isinstance(condition, str) and pointer.endswith("/where"):
        changed = copy.deepcopy(tree)
        _at(changed, pointer.rpartition("/")[0])["where"] = f"!({condition})"
        yield Mutation(pointer, "is negated", changed)
    if isinstance(condition, str):
        changed = copy.deepcopy(tree)
        holder, _, key = pointer.rpartition("/")
        members = _at(changed, holder)
        members.pop(int(key) if isinstance(members, list) else key)
        yield Mutation(pointer, "is dropped", changed)


def _at(tree: Any, pointer: str) -> Any:
    """Return the value at `pointer`, or None."""
    for part in split_pointer(pointer):
        if isinstance(tree, dict):
            tree = tree.get(part)
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return tree
