"""Whether a writer document is static, and the tree of what is then decoded.

Static means that every expression is a plain path, a function of values at plain paths, or reads something other
than the payload.  Everything else needs the whole payload decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from iggyflux.expressions import Expression, scope_call, static_path
from iggyflux.expressions.lowering import Path, Start, is_path, on_inputs
from iggyflux.plan.layout import MOST_NESTED, PayloadNode
from iggyflux.plan.reads import point_expressions
from iggyflux.plan.reference import UNITS
from iggyflux.spec import Field, Writer
from iggyflux.values import FieldType


@dataclass(slots=True)
class Shape:
    """How payloads are decoded.

    `root` is the tree of the payload.  `levels` are, for each item of `points`, the trees of what its expressions see:
    the payload, and the elements of each list of `for_each` that leads further in.  `list_paths` are the paths of
    these lists from the level before; None if one of them must be evaluated.
    """

    root: PayloadNode = field(default_factory=PayloadNode)
    levels: list[list[PayloadNode]] = field(default_factory=list)
    list_paths: list[tuple[tuple[str, ...], ...] | None] = field(default_factory=list)
    is_static: bool = False


def find_shape(writer: Writer) -> Shape:
    """Return the shape of `writer`."""
    shape = Shape()
    for spec in writer.points:
        paths = tuple(path for each in writer.lists_of(spec) if (path := _list_path(each)) is not None)
        shape.list_paths.append(paths if len(paths) == len(writer.lists_of(spec)) else None)
    shape.is_static = _enter_all(shape, writer)
    return shape


def _enter_all(shape: Shape, writer: Writer) -> bool:
    """Enter every path into the trees; return False if a payload must be decoded whole."""
    if writer.source.payload.format != "json":
        return False
    if any(spec.tag_stars or spec.field_stars for spec in writer.points):
        return False
    if writer.where is not None and not _enter_condition([shape.root], writer.where):
        return False
    for spec, paths in zip(writer.points, shape.list_paths, strict=True):
        if paths is None or max(map(len, paths), default=0) > MOST_NESTED:
            return False
        levels = [shape.root]
        for path in paths:
            node = levels[-1].at(path)
            node.items = node.items or PayloadNode()
            levels.append(node.items)
        shape.levels.append(levels)
        if spec.where is not None and not _enter_condition(levels, spec.where):
            return False
        wanted = {id(item.source): _wanted(item) for item in spec.fields}
        wanted[id(spec.measurement)] = "string"
        if spec.timestamp.source is not None:
            wanted[id(spec.timestamp.source)] = "number" if spec.timestamp.format in UNITS else "string"
        for expression in point_expressions(spec):
            if expression is not spec.where and not _enter(levels, expression, wanted.get(id(expression), "scalar")):
                return False
    return bool(shape.root.children) and shape.root.is_sound() and shape.root.is_nameable()


def _enter(levels: Sequence[PayloadNode], expression: Expression, wanted: str) -> bool:
    if scope_call(expression) is not None:
        return True
    path = static_path(expression)
    if path is not None:
        return _enter_path(levels, path, wanted)
    of = on_inputs(expression)
    return of is not None and all(_enter_path(levels, each, "any") for each in of.inputs or () if is_path(each))


def _enter_path(levels: Sequence[PayloadNode], path: Path, wanted: str) -> bool:
    start, names = path
    if not 0 < len(names) <= MOST_NESTED:
        return False
    level_of(levels, start).at(names).wanted.add(wanted)
    return True


def level_of(levels: Sequence[PayloadNode], start: Start) -> PayloadNode:
    """Return the tree of the value at which a path starts."""
    return levels[0] if start == "root" else levels[-1] if start == "@" else levels[-1 - start]


def _enter_condition(levels: Sequence[PayloadNode], expression: Expression) -> bool:
    condition = find_condition(expression)
    if condition is None:
        return _enter(levels, expression, "any")
    if len(condition.path) > MOST_NESTED:
        return False
    levels[-1].at(condition.path).wanted.add("presence" if condition.literal is None else "scalar")
    return True


def _wanted(item: Field) -> str:
    return "scalar" if item.cast or item.type in (FieldType.AUTO, FieldType.PAYLOAD) else item.type.value


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition `path == literal`, `path != literal`, or the truth of `path`; a literal is null or a string."""

    path: tuple[str, ...]
    operator: str
    literal: str | None

    def source(self, node: PayloadNode) -> str:
        """Return the source of the condition for `value`, a struct of `node`."""
        chain = "value"
        for key in self.path:
            node = node.children[key]
            chain = f"{chain}.{node.attribute}"
        if self.operator == "true":
            return f"truth({chain})"
        if self.literal is not None:
            return f"{chain} {self.operator} {self.literal!r}"
        missing = node.missing if node.children else "None"
        return f"{chain} {'is' if self.operator == '==' else 'is not'} {missing}"


def find_condition(expression: Expression) -> Condition | None:
    """Return `expression` as a condition that generated code can test itself, or None."""
    node: dict[str, Any] = expression.node
    if node["type"] == "comparator" and node["value"] in ("eq", "ne"):
        left, right = node["children"]
        path = _member_path(left)
        if path and right["type"] == "literal" and (right["value"] is None or type(right["value"]) is str):
            return Condition(path, "==" if node["value"] == "eq" else "!=", right["value"])
    return None


def _list_path(expression: Expression) -> tuple[str, ...] | None:
    """Return the members that lead to the list of `a.b`, `a.b[]` or `a.b[*]`, or None."""
    node: dict[str, Any] = expression.node
    if node["type"] == "projection" and node["children"][1]["type"] == "identity":
        node = node["children"][0]
        if node["type"] == "flatten":
            node = node["children"][0]
    return _member_path(node)


def _member_path(node: dict[str, Any]) -> tuple[str, ...] | None:
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] == "subexpression":
        parts = [_member_path(child) for child in node["children"]]
        return tuple(chain.from_iterable(part for part in parts if part)) if all(parts) else None
    return None
