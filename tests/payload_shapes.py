"""Payloads as products write them, after their documentation, and mutations of them.

Each is JSON text of one message, so that duplicate keys, number tokens and escapes stay as they are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.schema_documents import is_one_in

SHAPES: dict[str, str] = {
    file.stem: file.read_text("utf-8") for file in sorted((Path(__file__).parent / "cases" / "shapes").glob("*.json"))
}
"""The text of a message by the product that writes it."""

_VALUES = [
    "null", "true", "false", "0", "7", "-1", "2.50", "1e3", "1E-7", "9007199254740993", "18446744073709551616",
    '""', '"x"', '"7"', '"true"', "{}", "[]", '{"a":{"b":1}}', "[1,2]", '[{"v":1},null]', '"e\\u0301"',
    '"2024-02-29T23:59:59.123456789+05:30"', '"2023-02-29T00:00:00Z"', '"2024-01-01T00:00:60Z"', '"1e3"', '" 7"',
    '"-0"', "-0", "-0.0", '"2024-01-01t00:00:00z"', '"9007199254740993.0"', "9007199254740993.0",
    "9007199254740992.5", "0.1e1",
    '"\\u2028"', '"\\ud83d"', '"\\ud83d\\ude00"', '"\\u0000"', "1e400", "123.0", "NaN",
    "-Infinity",
]  # fmt: skip


class Members(list[tuple[str, Any]]):
    """The members of an object, in order and with duplicates."""


class Token(str):
    """The text of a number, or of a value that a mutation put in."""

    __slots__ = ()


def parse(text: str) -> Any:
    """Return JSON text as a tree of `Members`, lists, strings, booleans, None and `Token`s."""
    return json.loads(text, object_pairs_hook=Members, parse_int=Token, parse_float=Token)


def write(tree: Any, *, spell: bool = False) -> str:
    """Return a tree as JSON text; with `spell` each letter of a key is an escape."""
    if isinstance(tree, Members):
        return "{" + ",".join(f"{_key(key, spell)}:{write(value, spell=spell)}" for key, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(write(value, spell=spell) for value in tree) + "]"
    return str(tree) if isinstance(tree, Token) else json.dumps(tree, ensure_ascii=False)


def _key(key: str, spell: bool) -> str:
    if spell and all(ord(letter) < 0x10000 for letter in key):
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in key) + '"'
    return json.dumps(key, ensure_ascii=False)


def containers(tree: Any) -> Iterator[Members | list[Any]]:
    """Yield every object and list of a tree that is not empty."""
    if isinstance(tree, list):
        if tree:
            yield tree
        for child in tree:
            yield from containers(child[1] if isinstance(tree, Members) else child)


def paths(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the path of each member and element of a tree, as an expression of JMESPath."""
    if isinstance(tree, Members):
        for key, value in tree:
            path = f"{prefix}.{json.dumps(key, ensure_ascii=False)}".lstrip(".")
            yield path
            yield from paths(value, path)
    elif isinstance(tree, list) and tree and prefix:
        yield f"{prefix}[0]"
        yield from paths(tree[0], f"{prefix}[0]")


def mutated(shape: str, random: Random) -> str:
    """Return a payload of a shape after zero to four mutations: of type, loss, duplication, nesting, escapes."""
    tree = parse(SHAPES[shape])
    for _ in range(random.choice([0, 0, 1, 1, 2, 4])):
        mutate(tree, random)
        if not tree:
            break
    return write(tree, spell=is_one_in(10, random))


def mutate(tree: Any, random: Random) -> None:
    """Change a member or an element of a tree that has some."""
    found = random.choice(list(containers(tree)))
    at = random.randrange(len(found))
    key, value = found[at] if isinstance(found, Members) else (None, found[at])
    kind = random.choice(["type", "type", "loss", "twice", "nest", "list"])
    if kind == "loss":
        del found[at]
        return
    new: Any = Token(random.choice(_VALUES))
    if kind == "nest":
        new = Members([(random.choice(["value", "", "a.b", "n" * 200]), value)])
    elif kind == "list":
        new = [value, value]
    if kind == "twice" and key is not None:
        found.insert(random.randint(0, len(found)), (key, new))
    else:
        found[at] = new if key is None else (key, new)
