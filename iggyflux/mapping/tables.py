"""Finds the `tables` of a document that no expression uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iggyflux.documents import join_pointer
from iggyflux.mapping.reading import Reading

UNUSED = "IFX151"


def warn_unused_tables(reading: Reading) -> None:
    """Warn of each table that no `lookup` names, if every expression could be read."""
    if reading.problems:
        return
    used = {name for expression in reading.expressions for name in _looked_up(expression.node)}
    for name in reading.tables:
        if name not in used:
            hint = f"use it with lookup('{name}', KEY), or remove it"
            reading.warn(UNUSED, join_pointer("/tables", name), f"unused table `{name}`", key=True, hint=hint)


def _looked_up(node: dict[str, Any]) -> Iterator[str]:
    children = [child for child in node.get("children", ()) if isinstance(child, dict)]
    if node["type"] == "function_expression" and node["value"] == "lookup" and children:
        name = children[0].get("value")
        if isinstance(name, str):
            yield name
    for child in children:
        yield from _looked_up(child)
