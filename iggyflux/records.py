"""The data that modules exchange: messages, rows, positions, batches, and the results of plans.

Everything here is frozen plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, overload

import msgspec

Scalar: TypeAlias = str | int | float | bool
JSON: TypeAlias = "None | bool | int | float | str | list[JSON] | dict[str, JSON]"


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message with its coordinates.

    `timestamp_us` is the time at which the server received it, `origin_timestamp_us` the producer's time, both in
    microseconds since the epoch.  `id` is an integer of 128 bits.  A header is a str, int, float, bool or raw bytes.
    """

    payload: bytes
    stream: str = ""
    topic: str = ""
    partition: int = 0
    offset: int = 0
    timestamp_us: int = 0
    origin_timestamp_us: int = 0
    id: int = 0
    headers: Mapping[str, Scalar | bytes] = {}


FILE_HEADER: Final = "iggyflux-file"
"""The header of a message that names the archive that it was read of."""
LINE_HEADER: Final = "iggyflux-line"
"""The header of a message with the number of its first line there, from 1; a message that is the file has none."""


def place_in_file(message: Message) -> str | None:
    """Return `FILE:LINE` of a message that was read of an archive."""
    file = message.headers.get(FILE_HEADER)
    return None if file is None else f"{file!s}:{message.headers.get(LINE_HEADER, 1)!s}"


def is_part_of_file(message: Message) -> bool:
    """Return whether a message is a line or row of an archive: the lines of its payload are not those of the file."""
    return LINE_HEADER in message.headers


class LazyMessages(Sequence[Message]):
    """A sequence of messages that `make(index)` builds when they are used.

    A plan reads `payloads`, and coordinates only where the mapping uses them, so most messages are never built.
    """

    __slots__ = ("_made", "_make", "_payload_bytes", "payloads")

    def __init__(self, payloads: list[bytes], make: Callable[[int], Message]) -> None:
        self.payloads = payloads
        self._make = make
        self._made: list[Message] | None = None
        self._payload_bytes: int | None = None

    @property
    def payload_bytes(self) -> int:
        """The size of all payloads: source, plan and delivery ask for it."""
        if self._payload_bytes is None:
            self._payload_bytes = sum(map(len, self.payloads))
        return self._payload_bytes

    def __len__(self) -> int:
        return len(self.payloads)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        if self._made is not None:
            return self._made[index]
        if isinstance(index, int):
            return self._make(range(len(self.payloads))[index])
        return self._of(self.payloads[index], range(len(self.payloads))[index])

    def chosen(self, indices: Sequence[int]) -> Sequence[Message]:
        """Return the messages with these indices, which are not built for it."""
        return self._of([self.payloads[index] for index in indices], indices)

    def _of(self, payloads: list[bytes], indices: Sequence[int]) -> Sequence[Message]:
        make = self._make
        return LazyMessages(payloads, lambda number: make(indices[number]))

    def __iter__(self) -> Iterator[Message]:
        if self._made is None:
            self._made = [self._make(index) for index in range(len(self.payloads))]
        return iter(self._made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:
        return repr(list(self))


def payload_bytes(messages: Sequence[Message]) -> int:
    """Return the size of all payloads."""
    if isinstance(messages, LazyMessages):
        return messages.payload_bytes
    return sum([len(message.payload) for message in messages])


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row of a query result: typed columns, `time` in integer nanoseconds, and its window `[start, stop)`.

    A column without a value is omitted.  `tags` names the tag columns; None if the server does not name them.
    """

    columns: Mapping[str, JSON]
    measurement: str = ""
    window: tuple[int, int] | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic: one sequence of offsets."""

    stream: str
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.stream}/{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a partition: the message at `offset` and all messages before it."""

    partition: Partition
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one partition in the order of their offsets, as one read returned them; never empty.

    `end` is the source's own position after the batch, if that is not the offset of the last message (a file counts
    bytes).  `has_position` is false if the source has no position after the batch, which is a part of another one.
    """

    partition: Partition
    messages: Sequence[Message]
    end: int | None = None
    has_position: bool = True

    @property
    def last(self) -> Position | None:
        """The position that is reached when every message of the batch is settled; None if there is none."""
        if not self.has_position:
            return None
        return Position(self.partition, self.messages[-1].offset if self.end is None else self.end)

    @property
    def payload_bytes(self) -> int:
        """The size of all payloads."""
        return payload_bytes(self.messages)

    def part(self, start: int, stop: int) -> Batch:
        """Return the batch of the messages `[start, stop)`."""
        count = len(self.messages)
        if start == 0 and stop == count:
            return self
        is_last = stop == count
        has_position = self.has_position and (is_last or self.end is None)
        return Batch(self.partition, self.messages[start:stop], self.end if is_last else None, has_position)


@dataclass(frozen=True, slots=True)
class Failure:
    """A record of a batch that did not become a point, and why.

    `index` is the index of the message in the batch.  `element` is the index in the result of `for_each`, of a nested
    one among all elements of the innermost list in the message; None without `for_each`, or if the message failed
    before it; `elements` are then the indices in the nested lists, from the outer one to the inner one.  `point` is the
    index in `points`; None if the failure does not belong to one point.  `location` is a JSON pointer into the mapping
    document.  `count` is the number of failed records of one code and location that this failure represents.  `hint`
    says what would help, in this document.  `payload_line` is the line of the (expanded) payload where the failed row
    begins, counted from 1 as editors do, in formats that have rows.
    """

    index: int
    element: int | None
    point: int | None
    code: str
    location: str
    reason: str
    count: int = 1
    hint: str | None = None
    elements: tuple[int, ...] = ()
    payload_line: int | None = None

    @property
    def shown_element(self) -> str:
        """`line 7`, `element 2`, or in nested lists `element 0.2`; empty if the message failed as a whole."""
        return shown_element(self)

    @property
    def reason_and_hint(self) -> str:
        """The reason, and in parentheses the hint: what is kept and logged."""
        return f"{self.reason} ({self.hint})" if self.hint else self.reason


@dataclass(frozen=True, slots=True)
class Rendered:
    """The result of a writer plan for a batch of messages.

    `origins[i]` is the index of the message of `lines[i]`.  `skipped` holds the indices of messages for which `where`
    was not true, `empty` those whose `for_each` gave no element.  Every message has lines, failures or both, or is in
    `skipped` or `empty`.  `fallback` names a fault of generated code, after which the reference plan rendered the
    batch; None if there was none.  `omitted` says which bad values are missing in `lines` because of
    `on_bad_value: omit`, and why.  `times[i]` is the time at the end of `lines[i]`; None if they were not kept.
    `buckets[i]` is the bucket or database of `lines[i]`, "" the one of the pipeline; None if the mapping leaves all of
    them to the pipeline.  `undeclared` holds the indices of messages with fields that their schema does not declare.
    """

    lines: Sequence[str] = ()
    origins: Sequence[int] = ()
    failures: Sequence[Failure] = ()
    skipped: Sequence[int] = ()
    empty: Sequence[int] = ()
    fallback: str | None = None
    omitted: Sequence[Failure] = ()
    times: Sequence[int] | None = field(default=None, compare=False)
    buckets: Sequence[str] | None = None
    undeclared: Sequence[int] = ()

    def without(self, lines: Sequence[int], failures: Sequence[Failure]) -> Rendered:
        """Return the same without the lines of these indices, and with `failures` besides its own."""
        hidden = frozenset(lines)
        kept = [index for index in range(len(self.lines)) if index not in hidden]
        return replace(
            self,
            lines=[self.lines[index] for index in kept],
            origins=[self.origins[index] for index in kept],
            times=None,
            buckets=None if self.buckets is None else [self.buckets[index] for index in kept],
            failures=[*self.failures, *failures],
        )


@dataclass(frozen=True, slots=True)
class RenderedMessages:
    """The result of a reader plan for a batch of rows.

    `origins[i]` is the index of the row of `messages[i]`.  `fallback` is as in `Rendered`.
    """

    messages: Sequence[OutgoingMessage] = ()
    origins: Sequence[int] = ()
    failures: Sequence[Failure] = ()
    fallback: str | None = None


class OutgoingMessage(msgspec.Struct, frozen=True, gc=False):
    """A message to send.

    `key` chooses the partition.  `id` is the same each time the same row is read.
    """

    payload: bytes
    key: str | None = None
    headers: Mapping[str, Scalar] = {}
    timestamp_ns: int | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason for a dead letter: a failed record, or a line that the server rejected.

    `line` is the line as it was sent and `status` the server's status; both are None for a record that never became a
    line.  `element`, `elements`, `point` and `payload_line` are those of the `Failure`.  `bucket` is where the line
    went, if its mapping chooses that.
    """

    code: str
    reason: str
    location: str = ""
    element: int | None = None
    point: int | None = None
    line: str | None = None
    status: int | None = None
    elements: tuple[int, ...] = ()
    bucket: str | None = None
    payload_line: int | None = None


def shown_element(record: Failure | Reason) -> str:
    """Return `line 7` of the payload for a row of it, or else `element 2`; empty for the message as a whole."""
    elements = record.elements or (() if record.element is None else (record.element,))
    line = [] if record.payload_line is None else [f"line {record.payload_line}"]
    inner = elements if not line or len(elements) > 1 else ()  # one list alone gives the rows
    return ", ".join(line + ([f"element {'.'.join(map(str, inner))}"] if inner else []))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be delivered completely, with everything needed to replay it.

    `kept_us` is when it was kept, in microseconds since the epoch; 0 if that is not known.  Letters that differ only in
    it are equal.
    """

    message: Message
    mapping: str
    plan: str
    """The identity of the plan that rendered it; empty in letters of older versions."""
    reasons: Sequence[Reason] = field(default_factory=tuple)
    trace_id: str | None = None
    """The trace of the batch that the message was read in; None if nothing is kept of it."""
    route: str = ""
    """The name of the route that kept it; empty in letters of older versions."""
    pipeline: str = ""
    """The name of the pipeline file of that route, without its folder; empty in letters of older versions."""
    kept_us: int = field(default=0, compare=False)
