"""A schema and those that it refers to as one schema: each named type is defined where it is used first.

Each definition in the result names its namespace, so it has the same meaning at any place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from iggyflux.payloads.avro.schema import NAMED, PRIMITIVES, SchemaError
from iggyflux.records import JSON

_NAMED: Final = NAMED | {"error"}
_INNER: Final = {"array": "items", "map": "values"}


def joined(schema: str, others: Sequence[str]) -> str:
    """Return `schema` with the definitions of types that only `others` define.

    Names that none defines stay, and so do other faults.  Raise SchemaError if one is not JSON, or nested too deep.
    """
    try:
        joiner = _Joiner()
        for other in others:
            joiner.collect(json.loads(other))
        return json.dumps(joiner.written(json.loads(schema), ""), ensure_ascii=False)
    except ValueError:
        raise SchemaError("it, or a schema that it refers to, is not JSON") from None
    except RecursionError:
        raise SchemaError("its types hold each other too deep") from None


@dataclass(slots=True)
class _Joiner:
    defined: dict[str, tuple[dict[str, JSON], str]] = field(default_factory=dict)
    """Definitions of others by full names, with the namespaces around them."""
    done: set[str] = field(default_factory=set)

    def collect(self, tree: JSON, space: str = "") -> None:
        """Note the types that are defined in a schema."""
        if isinstance(tree, list):
            for each in tree:
                self.collect(each, space)
        elif isinstance(tree, dict):
            if (name := _full_name(tree, space)) is not None:
                self.defined.setdefault(name, (tree, space))
                space = name.rpartition(".")[0]
            for each in _types_in(tree):
                self.collect(each, space)

    def written(self, tree: JSON, space: str) -> JSON:
        """Return a type as the result has it, within a namespace."""
        if isinstance(tree, str):
            names = (tree if "." in tree or not space else f"{space}.{tree}", tree)
            known = next((each for each in names if each in self.done or each in self.defined), None)
            if tree in PRIMITIVES or known is None:
                return tree
            if known in self.done:
                return known
            return self.written(*self.defined[known])
        if isinstance(tree, list):
            return [self.written(each, space) for each in tree]
        if not isinstance(tree, dict):
            return tree
        name = _full_name(tree, space)
        if name is not None:
            if name in self.done and name in self.defined:
                return name
            self.done.add(name)
            space, _, last = name.rpartition(".")
            tree = {**tree, "name": last, "namespace": space}
            fields = tree.get("fields")
            if isinstance(fields, list):
                tree["fields"] = [
                    {**each, "type": self.written(each["type"], space)}
                    if isinstance(each, dict) and "type" in each
                    else each
                    for each in fields
                ]
            return tree
        kind = tree.get("type")
        inner = _INNER.get(kind, "") if isinstance(kind, str) else ""
        key = inner or "type"
        return {**tree, key: self.written(tree[key], space)} if key in tree else tree


def _full_name(tree: dict[str, JSON], space: str) -> str | None:
    """Return the full name of the type that a tree defines; None if it defines none."""
    name, own = tree.get("name"), tree.get("namespace", space)
    kind = tree.get("type")
    if not isinstance(kind, str) or kind not in _NAMED or not isinstance(name, str):
        return None
    return name if "." in name or not own or not isinstance(own, str) else f"{own}.{name}"


def _types_in(tree: dict[str, JSON]) -> Iterator[JSON]:
    fields = tree.get("fields")
    for each in fields if isinstance(fields, list) else ():
        if isinstance(each, dict):
            yield each.get("type")
    yield from (tree.get(key) for key in ("type", "items", "values") if not isinstance(tree.get(key), str))
