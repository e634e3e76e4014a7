"""The content of a mapping document, as frozen types.

`mapping` builds them from the document's tree and checks every value; `plan` compiles them without further checks.
Each node that can fail has the JSON pointer of its place in the document, which a failure reports.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

from iggyflux.documents import Document
from iggyflux.expressions import Expression
from iggyflux.records import JSON, Scalar
from iggyflux.values import Cast, FieldType, OnBadValue


@dataclass(frozen=True, slots=True)
class Const:
    """`{const: value}`: a value that does not depend on the message."""

    value: Scalar


Source: TypeAlias = Expression | Const

Compression: TypeAlias = Literal["none", "auto", "gzip", "zlib", "zstd", "lz4", "snappy"]


class OnError(Enum):
    """What the runner does with a failed record (LANGUAGE 21)."""

    DEAD_LETTER = "dead_letter"
    FAIL = "fail"
    SKIP = "skip"


OnLimit: TypeAlias = Literal["warn", "stop", "dead_letter"]
"""What happens to a point of a series beyond the limit."""


class Collisions(Enum):
    """What happens to two points of one message with the same measurement, tags and timestamp (LANGUAGE 22)."""

    ERROR = "error"
    MERGE = "merge"
    KEEP_LAST = "keep_last"


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag with its key."""

    key: str
    source: Source
    default: Scalar | None
    required: bool
    pointer: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field with its key; `default` already has the field's type.

    `on_bad_value: omit` takes a value that fails for null (LANGUAGE 17).
    """

    key: str
    source: Source
    type: FieldType
    cast: Cast
    default: Scalar | None
    required: bool
    pointer: str
    on_bad_value: OnBadValue = "fail"


@dataclass(frozen=True, slots=True)
class Star:
    """`"*"` or `"prefix_*"`: the members of an object, each a tag or a field (LANGUAGE 16).

    `used` holds the paths in the object that other parts of the point use; what is there is omitted here.  A step of a
    path is a name, an index, or None for every element of a list.  `include` and `exclude` are globs on the resulting
    name.  `flatten` is the separator, or None.  `type`, `cast` and `on_bad_value` have no effect on tags.
    """

    prefix: str
    source: Source
    flatten: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    used: frozenset[tuple[str | int | None, ...]]
    type: FieldType
    cast: Cast
    pointer: str
    on_bad_value: OnBadValue = "fail"

    def is_used(self, path: tuple[str | int, ...]) -> bool:
        """Return whether other parts of the point use the value at `path`, or a value that contains it."""
        return any(
            len(used) <= len(path)
            and all(step == at or (step is None and isinstance(at, int)) for step, at in zip(used, path, strict=False))
            for used in self.used
        )


class TimestampFormat(Enum):
    """How a timestamp is written; PATTERN is a strptime pattern."""

    UNIX_S = "unix_s"
    UNIX_MS = "unix_ms"
    UNIX_US = "unix_us"
    UNIX_NS = "unix_ns"
    RFC3339 = "rfc3339"
    FLEXIBLE = "flexible"
    PATTERN = "pattern"


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Where the time of a point comes from.

    If `source` is None, the time is the message's timestamp.  `default_message` uses it where the value is null.
    `spread` adds nanoseconds that keep equal times apart; `partitions` is the number of partitions that it tells apart.
    `timezone` is an IANA name, for patterns and for `flexible` times without an offset.  `dayfirst` says which of two
    numbers in a `flexible` time is the day; without it such a time fails.
    """

    source: Source | None
    format: TimestampFormat
    pattern: str | None
    timezone: str | None
    default_message: bool
    spread: Literal["offset", "index"] | None
    pointer: str
    dayfirst: bool | None = None
    partitions: int = 1


@dataclass(frozen=True, slots=True)
class Destination:
    """The bucket or database of a point, chosen for each."""

    source: Source
    pointer: str


@dataclass(frozen=True, slots=True)
class PointSpec:
    """One item of `points`.

    Tags and fields are in the byte order of their keys, stars in the order of the document.  `for_each` is as in
    `Writer`; the first of its expressions is evaluated on what the document's `for_each` gives.
    """

    measurement: Source
    tags: tuple[Tag, ...]
    tag_stars: tuple[Star, ...]
    fields: tuple[Field, ...]
    field_stars: tuple[Star, ...]
    timestamp: Timestamp
    where: Expression | None
    pointer: str
    for_each: tuple[Expression, ...] = ()
    to: Destination | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """`from.payload`: the name of the format and its own options (csv header, text pattern …), already checked.

    `compression` is how payloads are compressed.  The options also have what the format made of files that they name.
    """

    format: str
    options: MappingABC[str, Any] = field(default_factory=dict)
    compression: Compression = "none"


@dataclass(frozen=True, slots=True)
class From:
    """The messages that a writer reads; `topics` are names or globs.

    `on_bad_value` is for fields that do not say it themselves.
    """

    stream: str
    topics: tuple[str, ...]
    payload: Payload
    strict: bool
    on_bad_value: OnBadValue = "fail"


@dataclass(frozen=True, slots=True)
class Limits:
    """`limits` of a writer: the most series that it may write, and what happens to points of others."""

    series: int
    on_limit: OnLimit = "dead_letter"


@dataclass(frozen=True, slots=True)
class Writer:
    """A writer document.  Two are equal if they have the same content, whatever their text.

    `for_each` gives the lists whose elements become points, from the outer list to the inner one; each of its
    expressions is evaluated on the elements of the one before.  Without any, the message is what points are made of.
    """

    name: str
    document: Document = field(repr=False, compare=False)
    source: From
    where: Expression | None
    for_each: tuple[Expression, ...]
    points: tuple[PointSpec, ...]
    collisions: Collisions
    on_error: OnError
    invalid_names: Literal["fail", "replace"]
    tables: MappingABC[str, MappingABC[str, JSON]]
    limits: Limits | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether a message may give more points than there are items of `points`."""
        return bool(self.for_each) or any(point.for_each for point in self.points)

    @property
    def keeps_types(self) -> bool:
        """Whether a field has the type that its value has in the payload."""
        kinds = {each.type for point in self.points for each in point.fields}
        return FieldType.PAYLOAD in kinds.union(each.type for point in self.points for each in point.field_stars)

    @property
    def chooses_bucket(self) -> bool:
        """Whether a point may go to another bucket than that of the pipeline."""
        return any(point.to is not None for point in self.points)

    def lists_of(self, point: PointSpec) -> tuple[Expression, ...]:
        """Return the lists that lead to the elements of an item of `points`, from the outer one to the inner one."""
        return (*self.for_each, *point.for_each)


@dataclass(frozen=True, slots=True)
class Query:
    """What a reader reads: a measurement, for which a statement is generated, or a statement with `$start` and `$stop`.

    `where` holds tags with their accepted values.  `fields` and `tags` are columns; all of them if empty.
    """

    measurement: str | None
    statement: str | None
    language: Literal["auto", "sql", "influxql", "flux"]
    where: tuple[tuple[str, tuple[Scalar, ...]], ...]
    fields: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CursorSpec:
    """Where reading begins and how it advances; spans and times are in nanoseconds.

    `end_ns` is exclusive.  `mark` is the header that marks late and changed rows; None if there is none.
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
    """One item of `messages`; a template of a payload is compiled to one expression.

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
    """Where the messages of a reader go; `payload` is the name of the format."""

    stream: str
    topic: str
    payload: str


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader document.  Two are equal if they have the same content, whatever their text."""

    name: str
    document: Document = field(repr=False, compare=False)
    source: Query
    cursor: CursorSpec
    messages: tuple[MessageSpec, ...]
    target: Target
    on_error: OnError
    tables: MappingABC[str, MappingABC[str, JSON]]
