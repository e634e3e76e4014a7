"""Members that expressions name, compared with the schema of payloads: what no record of it can have is warned of.

A value is a list of the structures that it may have; without any it is always null.  What a function gives may be
anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from iggyflux.errors import closest
from iggyflux.expressions import Expression
from iggyflux.expressions.syntax import Node
from iggyflux.mapping.reading import Reading
from iggyflux.plan.reads import point_expressions
from iggyflux.spec import Writer
from iggyflux.structure import ANYTHING, Structure

UNKNOWN_MEMBER: Final = "IFX173"

_Given: TypeAlias = tuple[Structure, ...]
_ANY: Final[_Given] = (ANYTHING,)
_MOST: Final = 1000
"""A value that may have more structures may be anything."""


def warn_unknown_members(reading: Reading, writer: Writer, root: Structure) -> None:
    """Warn of each member that the payloads of `writer`, which are as `root` says, never have."""
    message: _Given = (root,)
    if writer.where is not None:
        _warn(reading, writer.where, message, message)
    outer = _elements(reading, writer.for_each, message, message)
    for point in writer.points:
        inner = _elements(reading, point.for_each, outer, message)
        for expression in point_expressions(point):
            _warn(reading, expression, inner, message)


def _elements(reading: Reading, lists: Sequence[Expression], given: _Given, root: _Given) -> _Given:
    for each in lists:
        given = _items(_warn(reading, each, given, root))
    return given


def _warn(reading: Reading, expression: Expression, given: _Given, root: _Given) -> _Given:
    walker = _Walker(root)
    found = walker.visit(expression.node, given)
    if not walker.missing:
        return found
    spans = {id(part.node): (part.start, part.stop) for part in expression.trace([])}
    for node, records in walker.missing:
        name = str(node["value"])
        start, stop = spans.get(id(node), (0, len(expression.text)))
        names = [other for record in records for other in record.members or ()]
        near = next((record.other_names[name] for record in records if name in record.other_names), None)
        near = near or closest(name, names)
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        reading.warn(
            UNKNOWN_MEMBER,
            expression.location,
            f"{records[0].title or 'the schema'} has no member {name!r}",
            offset=start,
            length=stop - start,
            hint=f"did you mean {near}?" if near else f"it has {shown}" if names else None,
        )
    return found


class _Walker:
    """Evaluates a tree on structures instead of values, and notes the members that are not there."""

    def __init__(self, root: _Given) -> None:
        self.root = root
        self.missing: list[tuple[Node, _Given]] = []

    def visit(self, node: Node, given: _Given) -> _Given:
        """Return what the value of `node` may be."""
        step: Callable[[list[Node], _Given], _Given] | None = getattr(self, f"of_{node['type']}", None)
        children = [child for child in node["children"] if isinstance(child, dict)]
        if node["type"] in ("field", "function_expression"):
            return self.field(node, given) if node["type"] == "field" else self.call(node, children, given)
        if step is not None:
            return step(children, given)
        for child in children:  # of a comparison, or a literal
            self.visit(child, given)
        return _ANY

    def of_current(self, _: list[Node], given: _Given) -> _Given:
        return given

    of_identity = of_current

    def of_subexpression(self, children: list[Node], given: _Given) -> _Given:
        for child in children:
            given = self.visit(child, given)
        return given

    of_pipe = of_subexpression
    of_index_expression = of_subexpression

    def of_index(self, _: list[Node], given: _Given) -> _Given:
        return _items(given)

    def of_slice(self, _: list[Node], given: _Given) -> _Given:
        return _list(_items(given))

    def of_projection(self, children: list[Node], given: _Given) -> _Given:
        element = _items(self.visit(children[0], given))
        for condition in children[2:]:
            self.visit(condition, element)
        return _list(self.visit(children[1], element))

    of_filter_projection = of_projection

    def of_value_projection(self, children: list[Node], given: _Given) -> _Given:
        return _list(self.visit(children[1], _values(self.visit(children[0], given))))

    def of_flatten(self, children: list[Node], given: _Given) -> _Given:
        found = _items(self.visit(children[0], given))
        return _list(tuple(inner for each in _flat(found) for inner in (_items((each,)) or (each,))))

    def of_or_expression(self, children: list[Node], given: _Given) -> _Given:
        return tuple(each for child in children for each in self.visit(child, given))

    of_and_expression = of_or_expression

    def of_multi_select_list(self, children: list[Node], given: _Given) -> _Given:
        return _list(self.of_or_expression(children, given))

    def of_multi_select_dict(self, children: list[Node], given: _Given) -> _Given:
        found = {str(each["value"]): Structure(branches=self.visit(each["children"][0], given)) for each in children}
        return (Structure("the object", members=found),)

    def field(self, node: Node, given: _Given) -> _Given:
        found: list[Structure] = []
        records: list[Structure] = []
        for each in _flat(given):
            if each.is_open:
                return _ANY
            if each.values is not None:
                found.append(each.values)
            elif each.members is not None:
                records.append(each)
                found += [each.members[node["value"]]] if node["value"] in each.members else []
        if records and not found:
            self.missing.append((node, tuple(records)))
        return tuple(found)

    def call(self, node: Node, children: Sequence[Node], given: _Given) -> _Given:
        if node["value"] == "root":
            return self.root
        plain = [self.visit(child, given) for child in children if child["type"] != "expref"]
        for child in children:
            if child["type"] == "expref":
                self.visit(child["children"][0], tuple(each for argument in plain for each in _items(argument)) or _ANY)
        return _ANY


def _flat(given: _Given) -> Iterator[Structure]:
    """Yield the structures without unions; `ANYTHING` in place of too many."""
    seen: set[int] = set()
    waiting = list(given)
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if len(seen) > _MOST:
            yield ANYTHING
            return
        if each.branches:
            waiting += each.branches
        else:
            yield each


def _list(items: _Given) -> _Given:
    return (Structure(items=Structure(branches=items)),)  # without any it is like a scalar, without members


def _items(given: _Given) -> _Given:
    found = list(_flat(given))
    if any(each.is_open for each in found):
        return _ANY
    return tuple(each.items for each in found if each.items is not None)


def _values(given: _Given) -> _Given:
    found = list(_flat(given))
    if any(each.is_open for each in found):
        return _ANY
    values = [each.values for each in found if each.values is not None]
    return (*values, *(member for each in found for member in (each.members or {}).values()))
