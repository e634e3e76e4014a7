"""An Avro schema as a graph of nodes: what it says is checked here, once, and no decoder looks at JSON.

Names are full names, and a name that a schema uses leads to the node that defines it, so a graph may have circles.
Logical types that do not fit their type are ignored, as the specification of Avro demands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from iggyflux.payloads.format import MAX_DEPTH
from iggyflux.records import JSON

MAX_NODES: Final = 10_000
MAX_FOREIGN_NODES: Final = 5_000
"""A schema of a container or a registry is a stranger's: compiling one of so many types takes a second."""
MAX_BRANCHES: Final = 500
MAX_PRECISION: Final = 1000

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED: Final = frozenset({"record", "enum", "fixed"})

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
_LOGICAL: Final = {
    "date": {"int"},
    "time-millis": {"int"},
    "time-micros": {"long"},
    "timestamp-millis": {"long"},
    "timestamp-micros": {"long"},
    "timestamp-nanos": {"long"},
    "local-timestamp-millis": {"long"},
    "local-timestamp-micros": {"long"},
    "local-timestamp-nanos": {"long"},
    "decimal": {"bytes", "fixed"},
    "uuid": {"string", "fixed"},
    "duration": {"fixed"},
}
_SIZES: Final = {"uuid": 16, "duration": 12}

MISSING: Final = object()
"""The default of a field that has none."""


class SchemaError(ValueError):
    """A schema that cannot be used, with the place in it."""


@dataclass(slots=True, eq=False)
class Member:
    """A field of a record."""

    name: str
    type: Node
    default: object
    aliases: frozenset[str]


@dataclass(slots=True, eq=False)
class Node:
    """A type.  `inner` are the types in it: of a record's fields, of items or values, or the branches of a union."""

    kind: str
    name: str = ""
    aliases: frozenset[str] = frozenset()
    members: tuple[Member, ...] = ()
    inner: tuple[Node, ...] = ()
    symbols: tuple[str, ...] = ()
    default: str | None = None
    size: int = 0
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    uses: int = 1
    """How often the schema names this type."""

    @property
    def title(self) -> str:
        """The type as a message names it."""
        return f"{self.kind} {self.name}" if self.name else self.logical or self.kind

    @property
    def last_name(self) -> str:
        """The name without its namespace."""
        return self.name.rpartition(".")[2]


@lru_cache(maxsize=128)
def parse(text: str, most: int = MAX_NODES) -> Node:
    """Return the type that a schema's JSON text describes, of at most so many types.  Raise SchemaError."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise SchemaError(f"it is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError):
        raise SchemaError("it is not JSON") from None
    try:
        return _Reader(most).read(tree)
    except RecursionError:  # types that are not nested may be named by each other
        raise SchemaError("its types hold each other too deep") from None


@dataclass(slots=True)
class _Reader:
    most: int
    names: dict[str, Node] = field(default_factory=dict)
    count: int = 0

    def read(self, tree: JSON) -> Node:
        root = self.type(tree, "", "", 0)
        known: dict[int, bool] = {}
        for node in walk(root):
            if node.kind == "array" and _takes_no_bytes(node.inner[0], known):
                # Five bytes can say that there are 2**60 of them.
                raise SchemaError(f"the elements of an array of {node.inner[0].title} take no bytes")
        return root

    def type(self, tree: JSON, space: str, place: str, depth: int) -> Node:
        self.count += 1
        if self.count > self.most:
            raise SchemaError(f"it has more than {self.most:,} types")
        if depth > MAX_DEPTH:
            raise SchemaError(f"its types are nested more than {MAX_DEPTH} deep")
        if isinstance(tree, str):
            return self.known(tree, space, place)
        if isinstance(tree, list):
            return self.union(tree, space, place, depth)
        if not isinstance(tree, dict):
            raise _at(place, "expected the name of a type, an object or a list")
        kind = tree.get("type")
        if isinstance(kind, str) and kind in PRIMITIVES:
            return _with_logical(Node(str(kind)), tree)
        if kind in ("record", "error", "enum", "fixed"):
            return self.named("record" if kind == "error" else str(kind), tree, space, place, depth)
        if kind in ("array", "map"):
            key = "items" if kind == "array" else "values"
            if key not in tree:
                raise _at(place, f"missing `{key}`")
            return Node(str(kind), inner=(self.type(tree[key], space, f"{place}.{key}", depth + 1),))
        if kind is None:
            raise _at(place, "missing `type`")
        return self.type(kind, space, place, depth + 1)

    def known(self, name: str, space: str, place: str) -> Node:
        """Return the type with a name."""
        if name in PRIMITIVES:
            return Node(name)
        known = self.names.get(name if "." in name or not space else f"{space}.{name}") or self.names.get(name)
        if known is None:
            raise _at(place, f"unknown type {name[:60]!r}")
        known.uses += 1
        return known

    def union(self, tree: list[JSON], space: str, place: str, depth: int) -> Node:
        if len(tree) > MAX_BRANCHES:
            raise _at(place, f"a union of more than {MAX_BRANCHES} types")
        branches = tuple(self.type(each, space, f"{place}[{i}]", depth + 1) for i, each in enumerate(tree))
        if not branches:
            raise _at(place, "a union without types")
        seen: set[str] = set()
        for branch in branches:
            what = branch.name or branch.kind
            if what == "union" or what in seen:
                raise _at(place, f"a union holds {what} twice" if what in seen else "a union in a union")
            seen.add(what)
        return Node("union", inner=branches)

    def named(self, kind: str, tree: Mapping[str, JSON], space: str, place: str, depth: int) -> Node:
        name = tree.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _at(place, f"a {kind} needs a `name` of letters, digits and _")
        own = tree.get("namespace", space)
        full = name if "." in name or not own or not isinstance(own, str) else f"{own}.{name}"
        if full in self.names or full in PRIMITIVES:
            raise _at(place, f"the name {full} is taken")
        space = full.rpartition(".")[0]
        aliases = frozenset(each if "." in each or not space else f"{space}.{each}" for each in _texts(tree, "aliases"))
        node = self.names[full] = Node(kind, name=full, aliases=aliases)
        place = f"{place}.{node.last_name}" if place else node.last_name
        if kind == "record":
            node.members = tuple(self.members(tree, space, place, depth))
            node.inner = tuple(member.type for member in node.members)
        elif kind == "enum":
            node.symbols = _texts(tree, "symbols")
            if not node.symbols or len(set(node.symbols)) < len(node.symbols):
                raise _at(place, "expected `symbols`, a list of different names")
            default = tree.get("default")
            if default is not None and default not in node.symbols:
                raise _at(place, "the default of an enum is none of its symbols")
            node.default = default if isinstance(default, str) else None
        else:
            size = tree.get("size")
            if type(size) is not int or size < 0:
                raise _at(place, "expected `size`, a number of bytes")
            node.size = size
            _with_logical(node, tree)
        return node

    def members(self, tree: Mapping[str, JSON], space: str, place: str, depth: int) -> Iterator[Member]:
        fields = tree.get("fields")
        if not isinstance(fields, list):
            raise _at(place, "expected `fields`, a list")
        seen: set[str] = set()
        for each in fields:
            name = each.get("name") if isinstance(each, dict) else None
            if not isinstance(each, dict) or not isinstance(name, str) or not name or "type" not in each:
                raise _at(place, "a field needs a `name` and a `type`")
            if name in seen:
                raise _at(place, f"two fields are named {name[:60]!r}")
            seen.add(name)
            kind = self.type(each["type"], space, f"{place}.{name[:60]}", depth + 1)
            yield Member(name, kind, each.get("default", MISSING), frozenset(_texts(each, "aliases")))


def _at(place: str, reason: str) -> SchemaError:
    return SchemaError(f"{place.lstrip('.')}: {reason}" if place else reason)


def _texts(tree: Mapping[str, JSON], key: str) -> tuple[str, ...]:
    value = tree.get(key)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _with_logical(node: Node, tree: Mapping[str, JSON]) -> Node:
    logical = tree.get("logicalType")
    if not isinstance(logical, str) or node.kind not in _LOGICAL.get(logical, ()):
        return node
    if node.kind == "fixed" and node.size != _SIZES.get(logical, node.size):
        return node
    if logical == "decimal":
        precision, scale = tree.get("precision"), tree.get("scale", 0)
        if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision <= MAX_PRECISION:
            return node
        if not precision:
            return node
        node.precision, node.scale = precision, scale
    node.logical = logical
    return node


def walk(root: Node) -> Iterator[Node]:
    """Yield each node once."""
    seen, waiting = {id(root)}, [root]
    while waiting:
        node = waiting.pop()
        yield node
        for each in node.inner:
            if id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)


def _takes_no_bytes(node: Node, known: dict[int, bool]) -> bool:
    """Return whether some value of `node` may take no bytes; `known` has the answers so far."""
    if id(node) not in known:
        known[id(node)] = True  # a record that holds itself
        known[id(node)] = (
            all(_takes_no_bytes(each, known) for each in node.inner)
            if node.kind == "record"
            else node.kind == "null" or (node.kind == "fixed" and not node.size)
        )
    return known[id(node)]


# fingerprints


def fingerprint(text: str) -> bytes:
    """Return the CRC-64-AVRO of the parsing canonical form of a schema, as a single object begins with it."""
    code = _EMPTY
    for byte in canonical(text).encode():
        code = (code >> 8) ^ _CRC[(code ^ byte) & 0xFF]
    return code.to_bytes(8, "little")


_EMPTY: Final = 0xC15D213AA4D7A795


def _crc(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_EMPTY & -(byte & 1))
    return byte


_CRC: Final = tuple(map(_crc, range(256)))


def canonical(text: str) -> str:
    """Return the parsing canonical form of a schema that `parse` accepts."""
    parse(text)
    return _canonical(json.loads(text), "")


def _canonical(tree: Any, space: str) -> str:
    if isinstance(tree, str):
        return json.dumps(tree if tree in PRIMITIVES or "." in tree or not space else f"{space}.{tree}")
    if isinstance(tree, list):
        return "[" + ",".join(_canonical(each, space) for each in tree) + "]"
    kind = tree["type"]
    if kind not in NAMED and kind not in ("array", "map", "error"):
        return _canonical(kind, space)
    parts = []
    if kind not in ("array", "map"):
        name, own = str(tree["name"]), tree.get("namespace", space)
        full = name if "." in name or not own else f"{own}.{name}"
        space = full.rpartition(".")[0]
        parts.append(f'"name":{json.dumps(full)}')
    parts.append(f'"type":"{kind}"')
    if kind in ("record", "error"):
        fields = [
            f'{{"name":{json.dumps(each["name"], ensure_ascii=False)},"type":{_canonical(each["type"], space)}}}'
            for each in tree["fields"]
        ]
        parts.append(f'"fields":[{",".join(fields)}]')
    elif kind == "enum":
        parts.append(
            f'"symbols":{json.dumps(list(_texts(tree, "symbols")), separators=(",", ":"), ensure_ascii=False)}'
        )
    elif kind == "fixed":
        parts.append(f'"size":{tree["size"]}')
    else:
        key = "items" if kind == "array" else "values"
        parts.append(f'"{key}":{_canonical(tree[key], space)}')
    return "{" + ",".join(parts) + "}"
