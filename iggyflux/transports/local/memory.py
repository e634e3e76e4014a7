"""Scripted sources and sinks in memory, for our tests and for those of packages that build on iggyflux.

A script lists in order what happens: batches, nothing, faults.  The fakes keep the contracts of `base`, and raise
`AssertionError` if the caller breaks them with an acknowledgement that goes backwards or past what was read.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

from iggyflux.delivery.pace import Bounds
from iggyflux.delivery.verdicts import Accepted, Refused, Verdict
from iggyflux.errors import EndOfInput, NotConnected
from iggyflux.records import Batch, DeadLetter, Message, OutgoingMessage, Partition, Position

ReadStep: TypeAlias = Batch | Exception | None
WriteStep: TypeAlias = "Verdict | Exception | Callable[[Sequence[str]], Awaitable[Verdict]]"


def batch(
    payloads: Iterable[bytes], *, stream: str = "s", topic: str = "t", partition: int = 0, offset: int = 0
) -> Batch:
    """Return a batch of payloads at `offset` and after."""
    messages = [
        Message(payload, stream, topic, partition, offset + index, 1_000_000 + offset + index)
        for index, payload in enumerate(payloads)
    ]
    return Batch(Partition(stream, topic, partition), messages)


class ScriptedSource:
    """A `Source` that returns the steps of `script`: a batch, None, or an exception to raise; then `EndOfInput`.

    After a raised exception, and on every `connect`, batches that were not acknowledged are returned again, as a server
    does.  `connects` and `acks` are scripts of exceptions (or None) for those calls; `acked` has every position.
    """

    waiting_for: str | None = None

    def __init__(
        self,
        script: Iterable[ReadStep],
        *,
        connects: Iterable[Exception | None] = (),
        acks: Iterable[Exception | None] = (),
    ) -> None:
        self._script: deque[ReadStep] = deque(script)
        self._connects = deque(connects)
        self._acks = deque(acks)
        self._given: list[Batch] = []
        self._settled: dict[Partition, int] = {}
        self._is_connected = False
        self.acked: list[Position] = []
        self.reads = 0
        self.closed = False

    @property
    def settled(self) -> dict[Partition, int]:
        """The last acknowledged offset, by partition."""
        return dict(self._settled)

    async def connect(self) -> None:
        if self._connects and (fault := self._connects.popleft()):
            raise fault
        self._is_connected = True
        again = [rest for given in self._given if (rest := self._unsettled(given))]
        self._given.clear()
        self._script.extendleft(reversed(again))

    async def read(self) -> Batch | None:
        if not self._is_connected:
            raise NotConnected("connect first")
        self.reads += 1
        await asyncio.sleep(0)
        step = self._script.popleft() if self._script else EndOfInput("the script has ended")
        if isinstance(step, Exception):
            self._is_connected = isinstance(step, EndOfInput)
            raise step
        if step is not None:
            self._given.append(step)
        return step

    async def ack(self, positions: Sequence[Position]) -> None:
        await _take_some_time()
        if self._acks and (fault := self._acks.popleft()):
            self._is_connected = False
            raise fault
        for position in positions:
            before = self._settled.get(position.partition, -1)
            given = max((b.messages[-1].offset for b in self._given if b.partition == position.partition), default=-1)
            assert position.offset > before, f"{position} after {before}"  # noqa: S101  # reports the caller's mistake
            assert position.offset <= given, f"{position} was not given"  # noqa: S101
            self._settled[position.partition] = position.offset
            self.acked.append(position)

    async def close(self) -> None:
        self.closed = True

    def _unsettled(self, given: Batch) -> Batch | None:
        settled = self._settled.get(given.partition, -1)
        rest = [message for message in given.messages if message.offset > settled]
        return Batch(given.partition, rest) if rest else None


class ScriptedSink:
    """A `LineSink` that answers with the steps of `script`, then accepts everything.

    A step is a verdict, or an async function of the lines that returns one (for example to delay it).  `stored` has the
    lines that the verdicts report as stored, `writes` every request.
    """

    dialect = "v2"
    in_flight: Bounds | None = None

    def __init__(self, script: Iterable[WriteStep] = (), *, connects: Iterable[Exception | None] = ()) -> None:
        self._script: deque[WriteStep] = deque(script)
        self._connects = deque(connects)
        self.stored: list[str] = []
        self.writes: list[list[str]] = []
        self.most_at_once = 0
        self.closed = False
        self._at_once = 0

    async def connect(self) -> None:
        if self._connects and (fault := self._connects.popleft()):
            raise fault

    async def write(self, lines: Sequence[str]) -> Verdict:
        self.writes.append(list(lines))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            step = self._script.popleft() if self._script else Accepted()
            await asyncio.sleep(0)
            if isinstance(step, Exception):
                raise step
            verdict = await step(lines) if callable(step) else step
        finally:
            self._at_once -= 1
        self._store(lines, verdict)
        return verdict

    async def close(self) -> None:
        self.closed = True

    def _store(self, lines: Sequence[str], verdict: Verdict) -> None:
        if isinstance(verdict, Accepted):
            self.stored += lines
        elif isinstance(verdict, Refused) and verdict.rest_stored:
            refused = {refusal.line for refusal in verdict.refusals}
            self.stored += [line for index, line in enumerate(lines) if index not in refused]


class CollectingDeadLetters:
    """A `DeadLetterSink` in memory; `faults` is a script of exceptions (or None) for `put`."""

    def __init__(self, faults: Iterable[Exception | None] = ()) -> None:
        self._faults = deque(faults)
        self.letters: list[DeadLetter] = []

    async def connect(self) -> None:
        """Do nothing."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        await _take_some_time()
        if self._faults and (fault := self._faults.popleft()):
            raise fault
        self.letters += letters

    async def close(self) -> None:
        """Do nothing."""


class CollectingMessages:
    """A `MessageSink` in memory; `faults` is a script of exceptions (or None) for `send`."""

    def __init__(self, faults: Iterable[Exception | None] = ()) -> None:
        self._faults = deque(faults)
        self.messages: list[OutgoingMessage] = []

    async def connect(self) -> None:
        """Do nothing."""

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        if self._faults and (fault := self._faults.popleft()):
            raise fault
        self.messages += messages

    async def close(self) -> None:
        """Do nothing."""


class ImmediateClock:
    """A clock on which every sleep ends at once: time jumps to the sleeper that is due first, and wakes it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._waker: asyncio.Task[None] | None = None

    def monotonic(self) -> float:
        """Return the seconds since the clock was made."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Return when all other tasks wait and this sleeper is due."""
        self.slept.append(seconds)
        self._count += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, future))
        if self._waker is None or self._waker.done():
            self._waker = asyncio.create_task(self._wake())
        await future

    async def _wake(self) -> None:
        while self._sleepers:
            for _ in range(_ROUNDS_TO_REST):
                await asyncio.sleep(0)
            due, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self.now = max(self.now, due)
                future.set_result(None)


async def _take_some_time() -> None:
    """Let other tasks run, as a wait for a disk or a server does."""
    for _ in range(3):
        await asyncio.sleep(0)


_ROUNDS_TO_REST = 20
