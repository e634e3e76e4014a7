"""What a form of payloads is: bytes with the value that they have by the rules, and what expressions can name."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.payload_shapes import SHAPES, Members, containers, parse, paths
from tests.schema_documents import Vocabulary

UNKNOWN = object()
"""The value of a payload of which only a part may be readable: rules that the independent evaluation does not know."""

STRINGS = ["", "7", "-2.50", "true", " x ", 'say "hi"', "a,b=c d", "日本", "e\u0301", "\u2028", "x" * 70, "back\\"]
DOUBLES = [0.0, -0.0, 1.5, 1e300, 5e-324, -7.0, 2.0**60]
"""Values of texts and doubles, some of which something may change."""


@dataclass(frozen=True)
class Payload:
    """The bytes of a payload and its value, `Failed` if it cannot be decoded; `bad_lines` of it fail by themselves."""

    data: bytes
    value: Any
    bad_lines: int = 0


@dataclass(frozen=True)
class Form:
    """Payloads of a format and a shape.

    `payload` is what `from` says of them, `vocabulary` what expressions can name, `for_each` goes over their rows.
    `files` are those that `payload` names.
    """

    payload: Any
    vocabulary: Vocabulary
    for_each: str | None
    ordinary: Callable[[Random], Payload]
    mutated: Callable[[Random], Payload]
    files: dict[str, bytes] | None = None


def vocabulary_of(tree: Any) -> Vocabulary:
    """Return the paths and members of a tree, most often those of scalars."""
    found = list(paths(tree))
    leaves = [path for path in found if not any(other.startswith((f"{path}.", f"{path}[")) for other in found)]
    return Vocabulary(
        [*leaves, *leaves, *leaves, *found],
        sorted({path.rpartition(".")[2].strip('"') for path in found if '"' in path}),
    )


def vocabulary_of_value(value: Any) -> Vocabulary:
    """Return the paths and members of a plain value."""
    return vocabulary_of(parse(json.dumps(value)))


def rows_of(names: Sequence[str], prefix: str, others: Sequence[str] = ()) -> Vocabulary:
    """Return the vocabulary of rows: mostly paths in a row, some in the list of rows."""
    found = [f"{prefix}{json.dumps(name, ensure_ascii=False)}" for name in names] + list(others)
    return Vocabulary([*found * 4, *(f"[0].{path}" for path in found), "@", "[]"], list(names))


def leaves_of(shape: str) -> dict[str, Any]:
    """Return the scalars of a shape by the name of their member; the last of a name counts."""
    return {
        key: value
        for tree in containers(parse(SHAPES[shape]))
        if isinstance(tree, Members)
        for key, value in tree
        if isinstance(value, str | bool)
    }


def as_base64(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()
