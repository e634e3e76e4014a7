"""What writers write: measurements with their tags, fields and types; and fields that two of them write with two types.

Two sources are put together: what a document declares (a constant measurement, a key, a `type`), and what its examples
render, which also shows computed measurements, `"*"` and `type: auto`.  InfluxDB gives a field one type and refuses all
others, so a field of a measurement must have one type in all documents that write to a database.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from iggyflux.authoring.examples import example_message
from iggyflux.authoring.names import type_name
from iggyflux.errors import Location, Problem, RecordError
from iggyflux.lineprotocol import parse_line
from iggyflux.mapping import WriterMapping
from iggyflux.spec import Const, Source
from iggyflux.values import FieldType

TWO_TYPES = "IFX167"
PERHAPS_TWO_TYPES = "IFX168"


@dataclass(frozen=True, slots=True)
class Column:
    """A tag or a field of a measurement.

    `measurement` is None where it is computed, and no example shows it.  `type` is that of a field, None for a tag;
    `auto` where it is the payload's.  `pointer` is the place in the document that says so: of the tag or the field, or
    of an example.
    """

    measurement: str | None
    kind: Literal["tag", "field"]
    key: str
    type: str | None
    pointer: str


Route: TypeAlias = tuple[WriterMapping, Hashable]
"""A mapping, and the database that it writes to; None if that is not known."""


def columns_of(mapping: WriterMapping) -> list[Column]:
    """Return the tags and fields of each measurement, those that are declared before those that only examples show."""
    found: dict[tuple[str | None, str, str, str | None], Column] = {}
    for column in (*_declared(mapping), *_of_examples(mapping)):
        found.setdefault((column.measurement, column.kind, column.key, column.type), column)
    known = {(each.measurement, each.kind, each.key) for each in found.values() if each.type != FieldType.AUTO.value}
    return [
        each
        for each in found.values()
        if each.type != FieldType.AUTO.value or (each.measurement, each.kind, each.key) not in known
    ]


def find_conflicts(routes: Sequence[Route]) -> list[tuple[WriterMapping, Problem]]:
    """Return a problem for each field that is written with another type than before, with the mapping of the place.

    It is an error within one database, and a warning where a database is not known.
    """
    first: dict[tuple[str, str], list[tuple[WriterMapping, Hashable, Column]]] = {}
    problems = []
    for mapping, database in routes:
        for column in columns_of(mapping):
            if column.kind != "field" or column.measurement is None or column.type == FieldType.AUTO.value:
                continue
            known = first.setdefault((column.measurement, column.key), [])
            others = [each for each in known if each[2].type != column.type and _may_meet(each, mapping, database)]
            if others:
                problems.append((mapping, _conflict(mapping, column, *others[0], database=database)))
            known.append((mapping, database, column))
    return list({(id(mapping), problem): (mapping, problem) for mapping, problem in problems}.values())


def _may_meet(known: tuple[WriterMapping, Hashable, Column], mapping: WriterMapping, database: Hashable) -> bool:
    other, its_database, _ = known
    return other is mapping or its_database == database or None in (its_database, database)


def _conflict(
    mapping: WriterMapping,
    column: Column,
    other: WriterMapping,
    its_database: Hashable,
    its_column: Column,
    *,
    database: Hashable,
) -> Problem:
    is_certain = other is mapping or (database is not None and database == its_database)
    message = (
        f"the field `{column.key}` of `{column.measurement}` is {column.type} here, and {its_column.type} at "
        f"{_place(other.locate(its_column.pointer), None if other is mapping else mapping)}"
    )
    hint = "declare the same `type` in both places, or write to another field"
    if is_certain:
        return mapping.document.problem(TWO_TYPES, column.pointer, message, hint=hint)
    message += ", if both write to one database"
    hint += "; name the pipeline too, which says what the databases are"
    return mapping.document.problem(PERHAPS_TWO_TYPES, column.pointer, message, severity="warning", hint=hint)


def _place(place: Location, other: WriterMapping | None) -> str:
    at = f"{place.line}:{place.column}"
    return f"line {at}" if other is None else f"{place.file}:{at}"


# --- the two sources ---


def _declared(mapping: WriterMapping) -> Iterator[Column]:
    for point in mapping.writer.points:
        measurement = _constant(point.measurement)
        for tag in point.tags:
            yield Column(measurement, "tag", tag.key, None, tag.pointer)
        for each in point.fields:
            kind = each.type.value
            if each.type is FieldType.AUTO and isinstance(each.source, Const):
                value = each.source.value
                kind = "float" if isinstance(value, int) and not isinstance(value, bool) else type_name(value)
            yield Column(measurement, "field", each.key, kind, each.pointer)


def _constant(source: Source) -> str | None:
    return str(source.value) if isinstance(source, Const) else None


def _of_examples(mapping: WriterMapping) -> Iterator[Column]:
    plan = mapping.plan("reference")
    for number, tree in enumerate(mapping.examples):
        try:
            rendered = plan.render([example_message(mapping, tree, number)])
        except RecordError:
            continue
        pointer = f"/examples/{number}"
        for line in rendered.lines:
            point = parse_line(line)
            for key in point.tags:
                yield Column(point.measurement, "tag", key, None, pointer)
            for key, value in point.fields.items():
                yield Column(point.measurement, "field", key, type_name(value), pointer)
