"""What a plan reads of each payload: the union of what its expressions read, as one tree from the payload's root."""

from __future__ import annotations

from collections.abc import Iterator

from iggyflux.expressions import Expression, Reads
from iggyflux.spec import PointSpec, Reader, Writer


def payload_reads(writer: Writer) -> Reads:
    """Return what any expression of `writer` can read of a payload; of the rest only the syntax is checked."""
    elements = Reads.BARE
    root = Reads.BARE
    for point in writer.points:
        for expression in point_expressions(point):
            elements = elements.union(expression.reads)
            root = root.union(expression.root_reads)
    if writer.where is not None:
        root = root.union(writer.where.reads, writer.where.root_reads)
    if writer.for_each is None:
        return root.union(elements)
    return root.union(*writer.for_each.reads_for(Reads(items=elements)))


def point_expressions(point: PointSpec) -> Iterator[Expression]:
    """Yield every expression of one item of `points`."""
    sources: list[object] = [point.where, point.measurement, point.timestamp.source]
    sources += [tag.source for tag in point.tags]
    sources += [field.source for field in point.fields]
    sources += [star.source for star in (*point.tag_stars, *point.field_stars)]
    for source in sources:
        if isinstance(source, Expression):
            yield source


def columns_read(reader: Reader) -> frozenset[str]:
    """Return the columns that expressions of `reader` name, where `@` is a row."""
    names: set[str] = set()
    for spec in reader.messages:
        sources = (spec.payload, spec.key, spec.timestamp, *(source for _, source in spec.headers))
        for source in sources:
            if isinstance(source, Expression) and spec.for_each == "row":
                names.update(source.reads.keys)
    return frozenset(names)
