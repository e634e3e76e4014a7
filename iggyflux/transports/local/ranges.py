"""Ranges of messages of a log or a file, read beside the consumer that owns a position: no lock, no acknowledgement."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from iggyflux.errors import EndOfInput
from iggyflux.records import Batch, Partition, Position
from iggyflux.state.store import NOTHING
from iggyflux.transports.base import Worker
from iggyflux.transports.local.files import FileSource
from iggyflux.transports.local.input_lines import InputLines
from iggyflux.transports.local.log import Log
from iggyflux.transports.ranges import Bound

_BATCH = 5000


class LogRange:
    """The messages of a log between two bounds, the second one exclusive; acknowledges nothing.

    `ends` are the offsets at which partitions end earlier; one that is not in it has no messages.  `total` is the
    number of messages and `unsettled` that of messages which `ends` leaves out, both known after `connect`.
    """

    waiting_for: str | None = None

    def __init__(
        self,
        folder: Path,
        stream: str,
        topics: Sequence[str],
        *,
        since: Bound | None = None,
        until: Bound | None = None,
        partition: int | None = None,
        ends: Mapping[Partition, int] | None = None,
    ) -> None:
        self._log = Log(folder)
        self._stream, self._topics = stream, tuple(topics)
        self._since, self._until = since, until
        self._partition = partition
        self._ends = ends
        self._left: list[tuple[Partition, int, int]] = []
        self._worker = Worker("log-range")
        self.total = self.unsettled = 0

    async def connect(self) -> None:
        """Find the ends.  Raise `Stopped` if there is no log."""
        await self._worker.call(self._connect)

    async def read(self) -> Batch | None:
        """Return the next messages, partition by partition.  Raise `EndOfInput` after the last, or `Stopped`."""
        return await self._worker.call(self._read)

    async def ack(self, positions: Sequence[Position]) -> None:
        """Do nothing: no position is stored."""

    async def close(self) -> None:
        """Release everything; idempotent."""
        await self._worker.finish(self._log.close)

    def _connect(self) -> None:
        Log.open(self._log.folder)
        for place in self._log.partitions(self._stream, self._topics):
            if self._partition not in (None, place.partition):
                continue
            last = self._log.end(place)
            last = min(last, self._at(place, self._until, last))
            end = last if self._ends is None else min(last, self._ends.get(place, 0))
            begin = max(self._at(place, self._since, 0), self._log.first(place))
            self.unsettled += max(last - max(begin, end), 0)
            if begin < end:
                self._left.append((place, begin, end))
                self.total += end - begin

    def _at(self, place: Partition, bound: Bound | None, otherwise: int) -> int:
        if bound is None:
            return otherwise
        return bound.value if bound.kind == "offset" else self._log.offset_at(place, bound.value)

    def _read(self) -> Batch:
        while self._left:
            place, begin, end = self._left.pop(0)
            reader = self._log.reader(place, begin)
            messages = reader.read(min(_BATCH, end - begin))
            if not messages:
                continue
            if reader.offset < end:
                self._left.insert(0, (place, reader.offset, end))
            return Batch(place, messages)
        raise EndOfInput("the end of the range is reached")


class FileRange(FileSource):
    """The messages of a file between two bounds, the second one exclusive; acknowledges nothing.

    `end` is the byte at which it ends earlier.
    """

    def __init__(
        self,
        path: Path,
        *,
        stream: str,
        topic: str,
        envelope: bool,
        since: Bound | None = None,
        until: Bound | None = None,
        end: int | None = None,
    ) -> None:
        super().__init__(path, state=_Unkept(), stream=stream, topic=topic, envelope=envelope, until_end=True)
        self._since, self._until = since, until
        self._end = end
        self.total = self.unsettled = 0

    async def read(self) -> Batch | None:
        """Return the next messages.  Raise `EndOfInput`."""
        while batch := await super().read():
            kept = [
                each
                for each in batch.messages
                if (self._since is None or self._since.takes(each))
                and not (self._until is not None and self._until.takes(each))
            ]
            if kept:
                return Batch(batch.partition, kept, batch.end)
        return None

    def _next_bytes(self, lines: InputLines) -> bytes | None:
        data = super()._next_bytes(lines)
        return data if data is None or self._end is None else data[: max(self._end - lines.end, 0)]


class _Unkept:
    """A `StateStore` of nothing."""

    place = "nowhere"

    def take(self) -> None:
        """Lock nothing."""

    def read(self) -> Any:
        """Return None: nothing is stored."""
        return None

    def blob(self, number: int) -> Iterator[bytes]:
        """As `StateStore.blob`: there is none."""
        raise LookupError(number)

    def commit(
        self, record: object, *, added: Mapping[int, IO[bytes]] = NOTHING, dropped: Collection[int] = ()
    ) -> None:
        """Keep nothing."""

    def replace(self, record: object | None) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Do nothing."""
