"""The data that modules exchange: messages, rows, positions, batches, and the results of plans.

Everything here is frozen plain data.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Final, TypeAlias, overload

import msgspec

from iggyflux import deflate

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


MakeMessage: TypeAlias = Callable[[int, bytes], Message]
"""Builds the message with this index and payload."""


class LazyMessages(Sequence[Message]):
    """A sequence of messages that `make(index, payload)` builds when they are used.

    A plan reads `payloads`, and coordinates only where the mapping uses them, so most messages are never built.

    `compact` is given where `make` holds other messages, with their own copies of the payloads.  It returns a function
    that builds the messages with the given indices, numbered from 0, and holds less.
    """

    __slots__ = ("_compact", "_ends", "_made", "_make", "_packed", "_payload_bytes", "_payloads")

    def __init__(
        self,
        payloads: list[bytes],
        make: MakeMessage,
        *,
        compact: Callable[[Sequence[int]], MakeMessage] | None = None,
    ) -> None:
        self._payloads: list[bytes] | None = payloads
        self._make = make
        self._compact = compact
        self._made: list[Message] | None = None
        self._packed: _Packed | None = None
        self._ends: tuple[Message, Message] | None = None
        self._payload_bytes: int | None = None

    @property
    def payloads(self) -> list[bytes]:
        """The payloads."""
        if (payloads := self._payloads) is None:
            payloads = self._payloads = [] if self._packed is None else self._packed.payloads()
        return payloads

    @property
    def payload_bytes(self) -> int:
        """The size of all payloads: source, plan and delivery ask for it."""
        if self._payload_bytes is None:
            self._payload_bytes = sum(map(len, self.payloads))
        return self._payload_bytes

    @property
    def is_packed(self) -> bool:
        """Whether they are kept compressed."""
        return self._payloads is None

    @property
    def memory(self) -> int:
        """About how many bytes the messages take now."""
        if self._payloads is None and self._packed is not None:
            return len(self._packed.block) + _OF_A_PACKED_MESSAGE * len(self)
        kept = self.payload_bytes + _OF_A_PAYLOAD * len(self)
        built = 0 if self._made is None else OF_A_BUILT_MESSAGE * len(self)
        return built + (kept if self._compact is None else 2 * kept + _OF_A_MESSAGE * len(self))

    def pack(self) -> None:
        """Keep the messages compressed until one is used that is neither the first nor the last.

        They may wait for long, for a server.  Any thread may call it, while another one uses the messages.
        """
        payloads, compact = self._payloads, self._compact
        if payloads is None:
            return
        self._ends = self._make(0, payloads[0]), self._make(len(payloads) - 1, payloads[-1])
        if compact is not None:
            self._make, self._compact = compact(range(len(payloads))), None
        self._packed = self._packed or _Packed(payloads)
        self._made = self._payloads = None

    def __len__(self) -> int:
        return len(self._packed.stops) if self._packed is not None else len(self.payloads)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        if (made := self._made) is not None:
            return made[index]
        indices = range(len(self))
        if isinstance(index, slice):
            return self._of(self.payloads[index], indices[index])
        at = indices[index]
        if self._payloads is None and self._ends is not None and at in (0, len(indices) - 1):
            return self._ends[at > 0]
        return self._make(at, self.payloads[at])

    def chosen(self, indices: Sequence[int]) -> Sequence[Message]:
        """Return the messages with these indices, which are not built for it."""
        return self._of([self.payloads[index] for index in indices], indices)

    def _of(self, payloads: list[bytes], indices: Sequence[int]) -> Sequence[Message]:
        make, compact = self._make, self._compact
        return LazyMessages(
            payloads,
            lambda number, payload: make(indices[number], payload),
            compact=None if compact is None else lambda numbers: compact([indices[number] for number in numbers]),
        )

    def __iter__(self) -> Iterator[Message]:
        if (made := self._made) is None:
            make = self._make
            made = self._made = [make(index, payload) for index, payload in enumerate(self.payloads)]
        return iter(made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:
        return repr(list(self))


_OF_A_PAYLOAD: Final = 60
"""The bytes that Python takes for a payload, beside its own, and for its places in lists."""

_OF_A_MESSAGE: Final = 240
"""The bytes of a message of Iggy's SDK beside its payload."""

OF_A_BUILT_MESSAGE: Final = 200
"""The bytes of a `Message` beside its payload: itself, and the numbers in it."""

_OF_A_PACKED_MESSAGE: Final = 48
"""Offset, times and id of a packed message, and where its payload ends."""


class _Packed:
    """Payloads as one compressed block."""

    __slots__ = ("block", "stops")

    def __init__(self, payloads: list[bytes]) -> None:
        self.stops = array("Q", accumulate(map(len, payloads)))
        self.block = deflate.compress(b"".join(payloads), 1)

    def payloads(self) -> list[bytes]:
        whole = deflate.decompress(self.block)
        return [whole[start:stop] for start, stop in pairwise([0, *self.stops])]


def payloads_of(messages: Sequence[Message]) -> list[bytes]:
    """Return the payloads, without building messages."""
    return messages.payloads if isinstance(messages, LazyMessages) else [message.payload for message in messages]


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
