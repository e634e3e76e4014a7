"""The interfaces between the runner and transports.

A transport speaks to one system and translates its errors; it never retries and never maps.  All calls are made from
one event loop; a transport that blocks gives its work to a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.retention import Retention
from iggyflux.delivery.verdicts import Verdict
from iggyflux.records import Batch, DeadLetter, OutgoingMessage, Partition, Position, Row

P = ParamSpec("P")
T = TypeVar("T")


class Source(Protocol):
    """Where messages come from.

    Reading and acknowledging are separate.  `read` moves a position in memory, so that the next batch can be read while
    earlier ones are in flight.  Only what was acknowledged survives a restart.
    """

    @property
    def waiting_for(self) -> str | None:
        """Why no messages come though the source is connected; None if nothing holds them back."""

    async def connect(self) -> None:
        """Open or reopen; idempotent.  Reading starts after the last acknowledged position of each partition.

        Raise `NotConnected` (call again, with backoff) or `Stopped` (the operator must act).
        """

    async def read(self) -> Batch | None:
        """Return the next messages of one partition, or None if there are none now.

        Raise `EndOfInput` if there will never be more.  Raise `NotConnected` if `connect` must be called again: reading
        then starts after the last acknowledged position, so batches in flight are read again.
        """

    async def ack(self, positions: Sequence[Position]) -> None:
        """Store durably that these positions, and all before them in their partitions, are settled.

        Called only after every point of every message up to there was accepted, or the message was kept as a dead
        letter.  A position never moves backwards.  Return when it would survive a crash.  Raise `NotConnected`.
        """

    async def close(self) -> None:
        """Release everything; idempotent; loses nothing that was acknowledged."""


@runtime_checkable
class Lagging(Protocol):
    """A source that knows its lag."""

    async def lag(self) -> Mapping[Partition, int]:
        """Return how many messages of each partition are not settled yet; with an end, of those before the end.

        May be called while `read` runs.
        """


@runtime_checkable
class Comparing(Protocol):
    """A source whose log may be replaced: its offsets are used again by other messages."""

    async def replaced(self, read: Mapping[Partition, tuple[int, int]]) -> Collection[Partition]:
        """Return the partitions in which the message that was read is not there any more.

        `read` is the offset of a message, and when it arrived, in microseconds since the epoch.  One that has expired
        is there, as long as a later one is.  A partition that other members have is compared too.  May be called while
        `read` runs.  Raise `NotConnected`.
        """


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of an input with an end is read, in bytes."""

    done: int
    total: int


@runtime_checkable
class Measured(Protocol):
    """A source that knows how much there is to read."""

    @property
    def progress(self) -> Progress:
        """How much is read; in memory, at any time."""


@runtime_checkable
class Bounded(Protocol):
    """A source that may have to wait for acknowledgements before it can give more."""

    @property
    def is_full(self) -> bool:
        """Whether `read` returns None until something is acknowledged; in memory, at any time."""


@dataclass(frozen=True, slots=True)
class Starving:
    """A partition whose messages wait, without progress, for the group member `holder`; None if no member holds it.

    `is_handed_over` says that it starved already when the holder got it, a moment ago.
    """

    partition: Partition
    holder: int | None
    waiting: int
    seconds: float
    is_handed_over: bool = False


@dataclass(frozen=True, slots=True)
class GroupState:
    """What a member of a consumer group knows of one topic: its number, its partitions, and those that starve."""

    group: str
    stream: str
    topic: str
    member: int | None = None
    partitions: tuple[int, ...] = ()
    starving: tuple[Starving, ...] = ()


@runtime_checkable
class Grouped(Protocol):
    """A source that may be a member of consumer groups."""

    @property
    def groups(self) -> Sequence[GroupState]:
        """The groups of this source, in their last known state."""


@runtime_checkable
class Counting(Protocol):
    """A sink that counts what it sends."""

    @property
    def sent_bytes(self) -> int:
        """The bytes of all bodies since the start, compressed if they were."""


@runtime_checkable
class Remote(Protocol):
    """A transport to a server."""

    @property
    def server(self) -> str:
        """The address of the server, without credentials."""


def server_of(transport: object) -> str | None:
    """Return the address of the server that `transport` speaks to; None for files."""
    return transport.server if isinstance(transport, Remote) else None


class LineSink(Protocol):
    """Where line protocol is written."""

    @property
    def dialect(self) -> str:
        """The dialect of the lines: "v1", "v2" or "v3".  Known after `connect`."""

    @property
    def in_flight(self) -> Bounds | None:
        """How many writes may be in flight at once; None for the route's default.  Known after `connect`."""

    async def connect(self) -> None:
        """Open and verify; idempotent.  Raise `NotConnected` or `Stopped`."""

    async def write(self, lines: Sequence[str]) -> Verdict:
        """Send `lines` once, in one request, and return the verdict.

        A response, a rejection, a timeout and a broken connection are verdicts, never exceptions.  Calls may overlap.
        """

    async def close(self) -> None:
        """Release everything; idempotent."""


@runtime_checkable
class Retaining(Protocol):
    """A line sink whose server may tell how long it keeps points."""

    async def retention(self) -> Retention:
        """Ask the server, after `connect`; never raise."""


class MessageSink(Protocol):
    """Where messages are sent: the target of a reader."""

    async def connect(self) -> None:
        """Open and verify; idempotent.  Raise `NotConnected` or `Stopped`."""

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        """Send the messages; return when they are confirmed.

        Raise `NotConnected` (none, some or all may have arrived) or `Stopped`.
        """

    async def close(self) -> None:
        """Release everything; idempotent."""


class RowSource(Protocol):
    """Where rows come from: a query that can be repeated for any span of time.

    It has no position: the runner knows what was read and what is next.  All times are integer nanoseconds since the
    epoch, all spans are half-open `[start, stop)`.
    """

    async def connect(self) -> None:
        """Open, detect the server and choose the language; idempotent.  Raise `NotConnected` or `Stopped`."""

    async def now(self) -> int:
        """Return the server's time, rounded down if its clock shows whole seconds."""

    async def first(self) -> int | None:
        """Return the time of the oldest row; None if there is none.  Raise `NotConnected` or `Stopped`."""

    async def fetch(self, start: int, stop: int) -> Window:
        """Return all rows of the span, received and found complete; the caller closes the window.

        Raise `NotConnected` (nothing is known of the span: ask again), `TooMuch` (ask for a shorter span) or `Stopped`.
        """

    async def close(self) -> None:
        """Release everything; idempotent."""


class Window(Protocol):
    """The rows of one span, received and complete; memory does not grow with their number."""

    @property
    def rows(self) -> int | None:
        """The number of rows, if it is known."""

    @property
    def read_bytes(self) -> int:
        """The size of the answers, as they are stored."""

    def chunks(self) -> AsyncIterator[Sequence[Row]]:
        """Return the rows, some thousands at a time, in the order of the answer; may be called again."""

    def close(self) -> None:
        """Release what is kept; idempotent."""


class DeadLetterSink(Protocol):
    """Where messages that could not be delivered are kept."""

    async def connect(self) -> None:
        """Make what must exist before a letter is put; idempotent.  Raise `NotConnected` or `Stopped`."""

    async def put(self, letters: Sequence[DeadLetter]) -> str | None:
        """Keep the letters durably; return when they would survive a crash: the file they are in, or None.

        Never drop one: raise `NotConnected` if a retry may help (the messages are then read again), else `Stopped`.
        """

    async def close(self) -> None:
        """Release everything; idempotent."""


@dataclass(slots=True)
class Removed:
    """What retention removed: letters that were replayed, and others."""

    replayed: int = 0
    others: int = 0


@runtime_checkable
class Retains(Protocol):
    """A `DeadLetterSink` that removes old letters, because the pipeline says so."""

    @property
    def removed(self) -> Removed:
        """What was removed since the start."""


def forget_error(future: asyncio.Future[Any]) -> None:
    """Take the error of a call that is not waited for any more: a callback for `add_done_callback`."""
    if not future.cancelled():
        future.exception()


class Worker:
    """One thread for what blocks: calls run in the order in which they are made."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"iggyflux-{name}")
        self._is_finished = False

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of `function`, run in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def finish(self, function: Callable[[], None] = lambda: None) -> None:
        """Run `function` as the last call and end the thread; idempotent."""
        if not self._is_finished:
            self._is_finished = True
            await self.call(function)
            self._executor.shutdown(wait=False)

    async def abandon(self) -> None:
        """End the thread after the call in progress, without waiting for it; idempotent."""
        self._is_finished = True
        self._executor.shutdown(wait=False, cancel_futures=True)
