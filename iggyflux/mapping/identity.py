"""Plan identity: what decides, besides a message and its coordinates, what comes of the message.

An identity is the hash of one JSON text: the document without what does not render (`description`, `examples`), its
name, the content of the files that it names, and of a writer the tags that its pipeline adds, the dialect and the
precision of its lines.  Comments, layout, the order of keys and the language (YAML, TOML) do not count.  The order of
members counts only where a message shows it: in `tables`, and in a reader's payloads and headers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from iggyflux.records import JSON

DIGITS: Final = 12
_NOT_RENDERED: Final = ("description", "examples")


def plan_identity(tree: JSON, name: str, lines: Mapping[str, JSON], files: Mapping[str, JSON]) -> str:
    """Return the identity of a plan: 12 hexadecimal digits.

    `tree` is the document, `name` its name also where it has none of its own, `lines` what else decides how a writer's
    lines look (empty for a reader), and `files` the digests of the files that the document names.
    """
    document = tree if isinstance(tree, dict) else {}
    kept = {key: _canonical(key, value) for key, value in document.items() if key not in _NOT_RENDERED}
    whole: dict[str, JSON] = {"document": {**kept, "name": name}, "lines": {**lines}}
    if files:
        whole["files"] = {**files}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def digests_of(files: Mapping[str, bytes]) -> dict[str, JSON]:
    """Return the SHA-256 of each file."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _canonical(key: str, value: JSON) -> JSON:
    """Return the value of a key of the document so that sorting its keys loses nothing that counts."""
    if key == "tables":
        return _ordered(value)
    if key != "messages":
        return value
    if isinstance(value, dict):
        return {each: _ordered(member) if each in ("payload", "headers") else member for each, member in value.items()}
    return [_canonical(key, item) for item in value] if isinstance(value, list) else value


def _ordered(value: JSON) -> JSON:
    """Return a value whose objects are lists of their members, in their order."""
    if isinstance(value, dict):
        return ["{}", *([key, _ordered(member)] for key, member in value.items())]
    return ["[]", *map(_ordered, value)] if isinstance(value, list) else value
