"""The parts of a document with their names and places, as an editor lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from iggyflux.documents import Format, read_document
from iggyflux.documents.nodes import Node
from iggyflux.errors import DocumentError
from iggyflux.records import JSON


@dataclass(frozen=True, slots=True)
class Symbol:
    """A part of a document: `start` to `end` is all of it, `name_start` to `name_end` its name in the text."""

    name: str
    detail: str
    start: int
    end: int
    name_start: int
    name_end: int
    children: tuple[Symbol, ...] = ()


_NAMED = ("name", "measurement", "mapping")
"""The keys whose value names an item of a list."""


def outline(text: str, *, format: Format = "yaml") -> list[Symbol]:  # noqa: A002
    """Return the parts of the document in `text`; none if it cannot be read."""
    try:
        document = read_document(text, format=format)
    except DocumentError:
        return []
    return list(_symbols(document.root))


def _symbols(node: Node) -> Iterator[Symbol]:
    if isinstance(node.value, dict):
        for key, child in node.children.items():
            start, end = node.keys.get(str(key), (child.start, child.start))
            yield Symbol(str(key), _detail(child), start, max(child.end, end), start, end, tuple(_symbols(child)))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.children.values()):
            name = _name(child.value) or str(index + 1)
            yield Symbol(name, _detail(child), child.start, child.end, child.start, child.start, tuple(_symbols(child)))


def _name(value: JSON) -> str | None:
    """Return what names an item of a list: its name, its measurement, or itself."""
    if isinstance(value, str):
        return value.partition("\n")[0]
    for key in _NAMED:
        found = value.get(key) if isinstance(value, dict) else None
        if isinstance(found, dict):
            found = found.get("const", found.get("expr"))
        if isinstance(found, str) and found:
            return found
    return None


def _detail(node: Node) -> str:
    value = node.value
    if isinstance(value, dict):
        value = value.get("expr", value.get("const"))
    return "" if isinstance(value, (dict, list)) or value is None else str(value).partition("\n")[0]
