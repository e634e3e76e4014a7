"""The seams of the runner.  A transport speaks to one system and translates its errors; it never retries, never maps.

All calls are made from one event loop; a transport that blocks hands its work to a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.verdicts import Verdict
from iggyflux.records import Batch, DeadLetter, OutgoingMessage, Partition, Position, Row

P = ParamSpec("P")
T = TypeVar("T")


class Source(Protocol):
    """Where messages come from.

    Reading and acknowledging are separate: `read` moves a position of its own, in memory, so that the next batch can
    be read while earlier ones are in flight; what survives a restart is only what was acknowledged.
    """

    @property
    def waiting_for(self) -> str | None:
        """What keeps messages from coming though the source is connected; None if nothing does."""

    async def connect(self) -> None:
        """Open or open again; idempotent.  Starts after the last acknowledged position of each partition.

        Raises `NotConnected` (call again, with backoff) or `Stopped` (a person must act).
        """

    async def read(self) -> Batch | None:
        """The next messages of one partition, or None where nothing is there just now.

        Raises `EndOfInput` where there will never be more, `NotConnected` where `connect` must be called again: reading
        then starts after the last acknowledged position, so batches that are in flight come again.
        """

    async def ack(self, positions: Sequence[Position]) -> None:
        """Store durably that these positions, and all before them in their partitions, are settled.

        Called only when every point of every message up to there was accepted or kept as a dead letter; never goes
        backwards.  Returns when it would survive a crash.  Raises `NotConnected`.
        """

    async def close(self) -> None:
        """Let go of everything; idempotent; loses nothing that was acknowledged."""


@runtime_checkable
class Lagging(Protocol):
    """A source that knows how far behind it is."""

    async def lag(self) -> Mapping[Partition, int]:
        """How many messages of each partition are not settled yet.  May be called while `read` runs."""


@dataclass(frozen=True, slots=True)
class Starving:
    """A partition whose messages wait for a member of the group that does not get on; `holder` None is nobody."""

    partition: Partition
    holder: int | None
    waiting: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GroupState:
    """What a member of a consumer group knows of one topic: which member it is, what it owns, what starves."""

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
        """Its groups, as they were found last."""


class LineSink(Protocol):
    """Where line protocol goes."""

    @property
    def dialect(self) -> str:
        """How lines are written: "v1", "v2" or "v3".  Known when the sink is connected."""

    @property
    def in_flight(self) -> Bounds | None:
        """How many writes may be under way at once; None for the route's default.  Known when it is connected."""

    async def connect(self) -> None:
        """Open and verify; idempotent.  Raises `NotConnected` or `Stopped`."""

    async def write(self, lines: Sequence[str]) -> Verdict:
        """Send `lines` once, in one request, and say what the other side answered.  Never raises for an answer,
        a refusal, a timeout or a broken connection: those are verdicts.  May be called again while a call runs."""

    async def close(self) -> None:
        """Let go; idempotent."""


class MessageSink(Protocol):
    """Where messages go (the reader's other end)."""

    async def connect(self) -> None:
        """Open and verify; idempotent.  Raises `NotConnected` or `Stopped`."""

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        """Send; returns when they are confirmed.

        Raises `NotConnected` (nothing, some or all may have arrived) or `Stopped`.
        """

    async def close(self) -> None:
        """Let go; idempotent."""


class RowSource(Protocol):
    """Where rows come from: a query that can be asked for any span of time, as often as wanted.

    It holds no position: what was read, and what is to be read next, is the runner's.  All times are integer
    nanoseconds since the epoch, all spans are half-open `[start, stop)`.
    """

    async def connect(self) -> None:
        """Open, find out what the server is and how it is asked; idempotent.  Raises `NotConnected` or `Stopped`."""

    async def now(self) -> int:
        """The server's clock, never later than it is (a clock of whole seconds is rounded down)."""

    async def first(self) -> int | None:
        """The time of the oldest row; None where there is none.  Raises `NotConnected` or `Stopped`."""

    async def fetch(self, start: int, stop: int) -> Window:
        """All rows of the span, taken whole and found complete; who calls closes it.

        Raises `NotConnected` (nothing is known of the span: ask again), `TooMuch` (ask for less of it) or `Stopped`.
        """

    async def close(self) -> None:
        """Let go; idempotent."""


class Window(Protocol):
    """The rows of one span, here and complete; memory does not grow with their number."""

    @property
    def rows(self) -> int | None:
        """How many, where that is known."""

    def chunks(self) -> AsyncIterator[Sequence[Row]]:
        """The rows, some thousands at a time, in the order of the answer; may be asked for again."""

    def close(self) -> None:
        """Let go of what is kept; idempotent."""


class DeadLetterSink(Protocol):
    """Where messages are kept that could not be delivered."""

    async def connect(self) -> None:
        """Make ready what has to be there before a letter is put; idempotent.  Raises `NotConnected` or `Stopped`."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Keep durably; returns when they would survive a crash.

        Never drops: raises `NotConnected` where it may work later (their messages come again), else `Stopped`.
        """

    async def close(self) -> None:
        """Let go; idempotent."""


class Worker:
    """The one thread of a transport that blocks: calls run in the order in which they are made."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"iggyflux-{name}")
        self._is_finished = False

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `function`, run in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def finish(self, function: Callable[[], None] = lambda: None) -> None:
        """Run `function` as the last call and let the thread go; idempotent."""
        if not self._is_finished:
            self._is_finished = True
            await self.call(function)
            self._executor.shutdown(wait=False)
