"""What a mapping document says, as frozen types.

`mapping` builds them from the document's tree and checks every value; `plan` compiles them and never checks again.
Every node that can fail carries the JSON pointer of its place in the document, which is what a failure reports.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, TypeAlias

from iggyflux.documents import Document
from iggyflux.expressions import Expression
from iggyflux.records import JSON, Scalar
from iggyflux.values import FieldType


@dataclass(frozen=True, slots=True)
class Const:
    """`{const: value}`: a value that needs no message."""

    value: Scalar


Source: TypeAlias = Expression | Const


class OnError(Enum):
    """What the runner does with a record that failed (LANGUAGE 21)."""

    DEAD_LETTER = "dead_letter"
    FAIL = "fail"
    SKIP = "skip"


class Collisions(Enum):
    """What happens to two points of one message with one (measurement, tags, timestamp) (LANGUAGE 22)."""

    ERROR = "error"
    MERGE = "merge"
    KEEP_LAST = "keep_last"


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of one key."""

    key: str
    source: Source
    default: Scalar | None
    required: bool
    pointer: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field of one key.  `default` is already of the field's type."""

    key: str
    source: Source
    type: FieldType
    cast: bool
    default: Scalar | None
    required: bool
    pointer: str


@dataclass(frozen=True, slots=True)
class Star:
    """`"*"` or `"prefix_*"`: the members of an object, each a tag or a field (LANGUAGE 16).

    `used` are the top-level keys of the object that other parts of the point use, left out here; `include` and
    `exclude` are globs on the resulting name; `flatten` is the separator or None.  `type` and `cast` mean nothing for
    tags.
    """

    prefix: str
    source: Source
    flatten: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    used: frozenset[str]
    type: FieldType
    cast: bool
    pointer: str


class TimestampFormat(Enum):
    """How a timestamp is written; PATTERN is strptime's."""

    UNIX_S = "unix_s"
    UNIX_MS = "unix_ms"
    UNIX_US = "unix_us"
    UNIX_NS = "unix_ns"
    RFC3339 = "rfc3339"
    FLEXIBLE = "flexible"
    PATTERN = "pattern"


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Where a point's time comes from.  `source` None is the message's own timestamp.

    `default_message` takes the message's timestamp where the value is null; `spread_offset` adds offset mod 1000 ns.
    `timezone` is an IANA name, for patterns and `flexible` without an offset.
    """

    source: Source | None
    format: TimestampFormat
    pattern: str | None
    timezone: str | None
    default_message: bool
    spread_offset: bool
    pointer: str


@dataclass(frozen=True, slots=True)
class PointSpec:
    """One item of `points`.  Tags and fields are in the order of their keys' bytes, stars in the document's order."""

    measurement: Source
    tags: tuple[Tag, ...]
    tag_stars: tuple[Star, ...]
    fields: tuple[Field, ...]
    field_stars: tuple[Star, ...]
    timestamp: Timestamp
    where: Expression | None
    pointer: str


@dataclass(frozen=True, slots=True)
class Payload:
    """`from.payload`: the format's name and its own options (csv header, text pattern …), already checked."""

    format: str
    options: MappingABC[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class From:
    """Which messages a writer takes: `topics` are names or globs."""

    stream: str
    topics: tuple[str, ...]
    payload: Payload
    strict: bool


@dataclass(frozen=True, slots=True)
class Writer:
    """A writer document.  Two are equal if they say the same, whatever their text."""

    name: str
    document: Document = field(repr=False, compare=False)
    source: From
    where: Expression | None
    for_each: Expression | None
    points: tuple[PointSpec, ...]
    collisions: Collisions
    on_error: OnError
    invalid_names: Literal["fail", "replace"]
    tables: MappingABC[str, MappingABC[str, JSON]]


@dataclass(frozen=True, slots=True)
class Query:
    """What a reader reads: a measurement, for which the statement is made, or a statement with `$start` and `$stop`.

    `where` are tags with the values that are taken; `fields` and `tags` are the columns, all of them where empty.
    """

    measurement: str | None
    statement: str | None
    language: Literal["auto", "sql", "influxql", "flux"]
    where: tuple[tuple[str, tuple[Scalar, ...]], ...]
    fields: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where reading begins and how it moves on; spans and times in nanoseconds.  `end_ns` is exclusive.

    `mark` is the header that tells late and changed rows, None asks for none.
    """

    column: str = "time"
    start: int | Literal["beginning", "now"] = "beginning"
    end_ns: int | None = None
    settle_ns: int = 10_000_000_000
    overlap_ns: int = 60_000_000_000
    window_ns: int = 300_000_000_000
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class MessageSpec:
    """One item of `messages`.  A template of a payload is one expression by now.

    `for_each` says what `@` is: a row, or the list of the rows of a series or of a window.  `timestamp` gives an
    integer of nanoseconds.
    """

    payload: Source
    key: Source | None
    headers: tuple[tuple[str, Source], ...]
    timestamp: Expression | None
    for_each: Literal["row", "series", "window"]
    pointer: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a reader's messages go; `payload` is the name of the format."""

    stream: str
    topic: str
    payload: str


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader document.  Two are equal if they say the same, whatever their text."""

    name: str
    document: Document = field(repr=False, compare=False)
    source: Query
    cursor: Cursor
    messages: tuple[MessageSpec, ...]
    target: Target
    on_error: OnError
    tables: MappingABC[str, MappingABC[str, JSON]]
