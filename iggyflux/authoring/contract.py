"""What writers write: measurements with their tags, fields and types; and what two of them write in two ways.

Two sources are put together: what a document declares (a constant measurement, a key, a `type`), and what its examples
render, which also shows computed measurements, `"*"` and `type: auto`.  InfluxDB gives a field one type and refuses all
others, so a field of a measurement must have one type in all documents that write to a database; and a name is a tag or
a field, not both.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast

from iggyflux.authoring.examples import render_examples
from iggyflux.authoring.names import type_name
from iggyflux.errors import Location, Problem
from iggyflux.lineprotocol import parse_line
from iggyflux.mapping import WriterMapping
from iggyflux.records import Rendered
from iggyflux.spec import Const, Source
from iggyflux.values import FieldType

TWO_TYPES = "IFX167"
PERHAPS_TWO_TYPES = "IFX168"
TAG_AND_FIELD = "IFX170"


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


@dataclass(frozen=True, slots=True)
class Database:
    """Where lines go: address, organization, bucket and so on.

    `unknown` are the parts with a variable that has no value: the same variable in another `pipeline` may have another
    one.
    """

    parts: tuple[str, ...]
    unknown: frozenset[int] = frozenset()
    pipeline: str = field(default="", compare=False)

    def is_for_certain(self, other: Database) -> bool:
        """Return whether both are one database."""
        return self == other and (not self.unknown or self.pipeline == other.pipeline)

    def may_be(self, other: Database) -> bool:
        """Return whether both may be one database."""
        if len(self.parts) != len(other.parts):
            return False
        unknown = self.unknown | other.unknown
        pairs = enumerate(zip(self.parts, other.parts, strict=True))
        return all(one == another or number in unknown for number, (one, another) in pairs)


Route: TypeAlias = tuple[WriterMapping, Database | None]
"""A mapping, and the database that it writes to; None if nothing says which."""


_OPEN: Final = frozenset({FieldType.AUTO.value, FieldType.PAYLOAD.value})
"""Types that the values decide."""


def columns_of(mapping: WriterMapping) -> list[Column]:
    """Return the tags and fields of each measurement, those that are declared before those that only examples show."""
    found: dict[tuple[str | None, str, str, str | None], Column] = {}
    for column in (*_declared(mapping), *_of_examples(mapping)):
        found.setdefault((column.measurement, column.kind, column.key, column.type), column)
    known = {(each.measurement, each.kind, each.key) for each in found.values() if each.type not in _OPEN}
    return [
        each
        for each in found.values()
        if each.type not in _OPEN or (each.measurement, each.kind, each.key) not in known
    ]


def stars_of(mapping: WriterMapping) -> Iterator[Column]:
    """Yield each `"*"` as a column of its name, such as `*` or `prefix_*`; a field's type is `auto` or what it says."""
    for point in mapping.writer.points:
        measurement = _constant(point.measurement)
        for star in point.tag_stars:
            yield Column(measurement, "tag", f"{star.prefix}*", None, star.pointer)
        for star in point.field_stars:
            yield Column(measurement, "field", f"{star.prefix}*", star.type.value, star.pointer)


def find_conflicts(routes: Sequence[Route]) -> list[tuple[WriterMapping, Problem]]:
    """Return the problems of columns that are not what they were before, with the mapping of each place.

    A field with another type is an error within one database, and a warning where a database is not known.  A name that
    is a tag in one place and a field in another one is a warning: only InfluxDB 3 refuses it.
    """
    first: dict[tuple[str, str], list[_Known]] = {}
    columns = {id(mapping): columns_of(mapping) for mapping, _ in routes}
    problems = []
    for mapping, database in routes:
        for column in columns[id(mapping)]:
            if column.measurement is None:
                continue
            one = _Known(mapping, database, column)
            known = first.setdefault((column.measurement, column.key), [])
            met = [each for each in known if each.may_meet(one)]
            for differs, conflict in ((_is_other_kind, _other_kind), (_is_other_type, _other_type)):
                other = next((each for each in met if differs(each.column, column)), None)
                if other is not None:
                    problems.append((mapping, conflict(one, other)))
            known.append(one)
    return list({(id(mapping), problem): (mapping, problem) for mapping, problem in problems}.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """A column of a mapping that writes to a database."""

    mapping: WriterMapping
    database: Database | None
    column: Column

    def may_meet(self, other: _Known) -> bool:
        """Return whether both columns may be in one database."""
        if self.mapping is other.mapping or self.database is None or other.database is None:
            return True
        return self.database.may_be(other.database)

    def meets(self, other: _Known) -> bool:
        """Return whether both columns are in one database for certain."""
        if self.mapping is other.mapping:
            return True
        one, another = self.database, other.database
        return one is not None and another is not None and one.is_for_certain(another)


def _is_other_kind(one: Column, other: Column) -> bool:
    return one.kind != other.kind


def _is_other_type(one: Column, other: Column) -> bool:
    types = {one.type, other.type}
    return one.kind == other.kind == "field" and len(types) > 1 and types.isdisjoint(_OPEN)


def _other_kind(one: _Known, other: _Known) -> Problem:
    column = one.column
    message = f"`{column.key}` of `{column.measurement}` is a {column.kind} here, and a {other.column.kind} at "
    hint = "write it to the same kind in both places, or under another name"
    return _conflict(one, other, TAG_AND_FIELD, message, hint, "warning")


def _other_type(one: _Known, other: _Known) -> Problem:
    column = one.column
    message = f"the field `{column.key}` of `{column.measurement}` is {column.type} here, and {other.column.type} at "
    hint = "declare the same `type` in both places, or write to another field"
    code, severity = (TWO_TYPES, "error") if one.meets(other) else (PERHAPS_TWO_TYPES, "warning")
    return _conflict(one, other, code, message, hint, severity)


def _conflict(one: _Known, other: _Known, code: str, message: str, hint: str, severity: str) -> Problem:
    same = None if one.mapping is other.mapping else one.mapping
    message += _place(other.mapping.locate(other.column.pointer), same)
    if not one.meets(other):
        message += ", if both write to one database"
        is_named = None not in (one.database, other.database)
        hint += "; " + ("set the variables of the pipeline" if is_named else "name the pipeline too") + _WHICH
    pointer, level = one.column.pointer, cast(Literal["error", "warning"], severity)
    return one.mapping.document.problem(code, pointer, message, severity=level, hint=hint)


_WHICH: Final = ", which says what the databases are"


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
    for number, rendered in render_examples(mapping, mapping.plan("reference")):
        pointer = f"/examples/{number}"
        for line in cast(Rendered, rendered).lines:
            point = parse_line(line)
            for key in point.tags:
                yield Column(point.measurement, "tag", key, None, pointer)
            for key, value in point.fields.items():
                yield Column(point.measurement, "field", key, type_name(value), pointer)
