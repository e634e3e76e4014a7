"""The schema of a measurement, and what follows from it for the query: columns, their names, the language.

Pure: lists of keys and types go in.  The schema of a measurement changes while it is read, so the caller compares the
schema before and after a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from iggyflux.spec import Query
from iggyflux.transports.influxdb.query.rows import NUMBERS, AnswerColumn

FLUX_NAMES: Final = frozenset(
    {"_time", "_value", "_start", "_stop", "_field", "_measurement", "table", "result", "error"}
)
"""Names of tags with which Flux fails, or mixes up columns."""
"""Names of tags with which Flux fails, or confuses columns."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of a measurement, each with the types that it has in some shard, and its tag keys."""

    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


class NamesClash(ValueError):
    """A tag and a field have one name, and the tag's other name is taken too."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a schema to query.

    `tags` are the names in rows by key: a tag that shares its name with a field becomes `NAME_tag`.  `mixed` are the
    fields that have different numeric types in different shards, with these types.
    """

    fields: Mapping[str, tuple[str, ...]]
    tags: Mapping[str, str]
    renamed: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[AnswerColumn, ...]:
        """A column for each type of each field."""
        return tuple(AnswerColumn(name, kind) for name, kinds in self.fields.items() for kind in kinds)

    @property
    def mixed(self) -> Mapping[str, frozenset[str]]:
        numeric = {name: frozenset(kinds) & frozenset(NUMBERS) for name, kinds in self.fields.items()}
        return {name: kinds for name, kinds in numeric.items() if len(kinds) > 1}


def choose(schema: Schema, query: Query) -> Selection:
    """Return the columns of the schema that `query` asks for.  Raise `NamesClash`."""
    fields = {name: kinds for name, kinds in schema.fields.items() if not query.fields or name in query.fields}
    tags: dict[str, str] = {}
    renamed = []
    for key in schema.tags:
        if query.tags and key not in query.tags:
            continue
        name = key
        if key in fields:
            name = f"{key}_tag"
            renamed.append(key)
            if name in fields or name in schema.tags:
                raise NamesClash(
                    f"{key!r} is a tag and a field, so the tag is read as {name!r}, but another column has that name"
                )
        tags[key] = name
    return Selection(fields, tags, tuple(renamed))


def missing_names(schema: Schema, query: Query, reads: Iterable[str]) -> list[str]:
    """Return the columns that the query names, or that `reads` names of its rows, and that are not in the schema."""
    known = {*schema.fields, *schema.tags}
    asked = [name for name in (*query.fields, *query.tags, *(tag for tag, _ in query.where)) if name not in known]
    chosen = choose(schema, query)
    columns = {"time", *chosen.fields, *chosen.tags.values(), *asked}
    return list(dict.fromkeys([*asked, *(name for name in sorted(reads) if name not in columns)]))


def unfaithful(schema: Schema, query: Query) -> str | None:
    """Return why Flux would not return the rows as they are stored, as far as the schema shows; None if it would."""
    fields = choose(schema, query).fields
    for name, kinds in fields.items():
        if len(kinds) > 1:
            return f"field {name!r} has several types ({', '.join(kinds)}), of which Flux returns only one"
        if kinds == ("string",):
            return f"field {name!r} is a string, and Flux changes line breaks and drops empty strings"
    for key in schema.tags:
        if key in FLUX_NAMES:
            return f"tag {key!r} has a name that is reserved in Flux"
        if key in fields:
            return f"{key!r} is a tag and a field, which Flux cannot return together"
    return next((f"field {name!r} has a name that is reserved in Flux" for name in fields if name in FLUX_NAMES), None)


def read_field_keys(rows: Iterable[Sequence[object]]) -> dict[str, tuple[str, ...]]:
    """Return fields with their types, in the order of names."""
    found: dict[str, set[str]] = {}
    for name, kind, *_ in rows:
        found.setdefault(str(name), set()).add(str(kind))
    return {name: tuple(sorted(kinds)) for name, kinds in sorted(found.items())}


_KINDS_3 = {"Float64": "float", "Int64": "integer", "UInt64": "unsigned", "Utf8": "string", "Boolean": "boolean"}


def read_columns(columns: Iterable[Mapping[str, object]]) -> Schema:
    """Return the schema in rows of `information_schema.columns`."""
    fields: dict[str, tuple[str, ...]] = {}
    tags = []
    for column in columns:
        name, kind = str(column.get("column_name")), str(column.get("data_type"))
        if name == "time":
            continue
        if kind.startswith("Dictionary"):
            tags.append(name)
        else:
            fields[name] = (_KINDS_3.get(kind, "any"),)
    return Schema(dict(sorted(fields.items())), tuple(sorted(tags)))
