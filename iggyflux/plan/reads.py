"""What a plan reads of each payload: the union of what its expressions read, as one tree from the payload's root."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from iggyflux.expressions import Expression, Reads
from iggyflux.expressions.syntax import Node, children_in_order
from iggyflux.spec import PointSpec, Reader, Writer


def payload_reads(writer: Writer) -> Reads:
    """Return what any expression of `writer` can read of a payload; of the rest only the syntax is checked."""
    levels = _Levels()
    for point in writer.points:
        lists = writer.lists_of(point)
        for expression in point_expressions(point):
            levels.add(len(lists), expression.reads, expression.root_reads, expression.parent_reads)
        for level in range(len(lists), len(writer.for_each), -1):
            levels.add(level - 1, *lists[level - 1].reads_for(Reads(items=levels.take(level))))
    for level in range(len(writer.for_each), 0, -1):
        levels.add(level - 1, *writer.for_each[level - 1].reads_for(Reads(items=levels.take(level))))
    if writer.where is not None:
        levels.add(0, writer.where.reads, writer.where.root_reads, {})
    return levels.take(0)


class _Levels:
    """What is read of the message (level 0), and of the elements of each list that leads further in."""

    def __init__(self) -> None:
        self._reads: dict[int, Reads] = {}

    def add(self, level: int, here: Reads, root: Reads, parents: Mapping[int, Reads]) -> None:
        """Add what an expression reads that is evaluated on an element of `level`."""
        found = [(level, here), (0, root), *((level - up, reads) for up, reads in parents.items())]
        for place, reads in found:
            self._reads[place] = self._reads.get(place, Reads.BARE).union(reads)

    def take(self, level: int) -> Reads:
        """Return what is read of the elements of `level`, and forget it."""
        return self._reads.pop(level, Reads.BARE)


def writer_expressions(writer: Writer) -> Iterator[Expression]:
    """Yield every expression of a writer."""
    if writer.where is not None:
        yield writer.where
    yield from writer.for_each
    for point in writer.points:
        yield from point.for_each
        yield from point_expressions(point)


def point_expressions(point: PointSpec) -> Iterator[Expression]:
    """Yield every expression that is evaluated on what one item of `points` is made of."""
    sources: list[object] = [point.where, point.measurement, point.timestamp.source]
    sources += [] if point.to is None else [point.to.source]
    sources += [tag.source for tag in point.tags]
    sources += [field.source for field in point.fields]
    sources += [star.source for star in (*point.tag_stars, *point.field_stars)]
    for source in sources:
        if isinstance(source, Expression):
            yield source


def reads_arrival(writer: Writer) -> bool:
    """Return whether lines can depend on when a message arrived."""
    times = (point.timestamp for point in writer.points)
    return any(time.source is None or time.default_message for time in times) or any(
        _reads_time(expression.node) for expression in writer_expressions(writer)
    )


def _reads_time(node: Node) -> bool:
    children = children_in_order(node)
    if node["type"] == "function_expression" and node["value"] == "meta":
        return any(child.get("value") not in _TIMELESS for child in children)
    return any(map(_reads_time, children))


_TIMELESS: Final = ("stream", "topic", "partition", "offset", "id")
"""What `meta` gives besides times."""


def columns_read(reader: Reader) -> frozenset[str]:
    """Return the columns that expressions of `reader` name, where `@` is a row."""
    names: set[str] = set()
    for spec in reader.messages:
        sources = (spec.payload, spec.key, spec.timestamp, *(source for _, source in spec.headers))
        for source in sources:
            if isinstance(source, Expression) and spec.for_each == "row":
                names.update(source.reads.keys)
    return frozenset(names)
