"""Sort any number of points in bounded memory: sorted runs in an unnamed file, merged block by block.

A merge never looks at single points: of all runs, what is not after the least last entry of their blocks is taken at
once, and sorted by the sort that is fast for runs.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Final

import msgspec

from iggyflux.audit.points import Entry
from iggyflux.errors import Stopped

MOST_IN_MEMORY: Final = 250_000
_BLOCK: Final = 1000
_GAP_NS: Final = 3600 * 10**9
"""A window ends before a gap that is longer, so that it asks for no year between two points."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int, str, int, str]]).decode


@dataclass(slots=True)
class _Run:
    """A sorted run: blocks in the file, or one in memory."""

    blocks: list[tuple[int, int]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


class PointSorter:
    """Points by measurement; add all, then read them in order."""

    def __init__(self, most_in_memory: int = MOST_IN_MEMORY) -> None:
        self.count = 0
        self._most = most_in_memory
        self._held = 0
        self._pending: dict[str, list[Entry]] = {}
        self._runs: dict[str, list[_Run]] = {}
        self._file: IO[bytes] | None = None
        self._size = 0

    def add(self, measurement: str, entries: list[Entry]) -> None:
        """Add points of a measurement.  Raise `Stopped` (IFX746) if there is no room for them on disk."""
        pending = self._pending.get(measurement)
        if pending is None:
            self._pending[measurement] = list(entries)
        else:
            pending += entries
        self.count += len(entries)
        self._held += len(entries)
        if self._held >= self._most:
            try:
                self._spill()
            except OSError as error:
                hint = "free space in the directory for temporary files (TMPDIR), or audit a smaller range"
                raise Stopped(f"cannot sort the points: {error.strerror}", hint, "IFX746") from error

    def measurements(self) -> list[str]:
        """Return the names of the measurements, in order."""
        return sorted({*self._pending, *self._runs})

    def windows(self, measurement: str, most: int, unit_ns: int = 1) -> Iterator[list[Entry]]:
        """Yield the points of a measurement, sorted by time, series and message, about `most` at once.

        Points of one series and time are in one window.  A window ends at a gap of more than an hour.
        """
        gap = _GAP_NS // unit_ns
        pending: list[Entry] = []
        for chunk in self._sorted(measurement):
            pending += chunk
            while len(pending) > most and (cut := _cut(pending, most, gap)) < len(pending):
                yield pending[:cut]
                del pending[:cut]
        while pending:
            cut = _cut(pending, most, gap)
            yield pending[:cut]
            del pending[:cut]

    def close(self) -> None:
        """Remove the file; idempotent."""
        if self._file is not None:
            with suppress(OSError):  # what did not fit on disk is not needed any more
                self._file.close()
            self._file = None
        self._pending, self._runs = {}, {}

    def _sorted(self, measurement: str) -> Iterator[list[Entry]]:
        runs = list(self._runs.get(measurement, ()))
        if pending := self._pending.get(measurement):
            runs.append(_Run(entries=sorted(pending)))
        blocks = [self._blocks(run) for run in runs]
        heads = [block for run in blocks if (block := next(run, None)) is not None]
        if len(heads) == 1:
            yield from heads
            yield from (rest for run in blocks for rest in run)
            return
        while heads:
            bound = min(head[-1] for head in heads)
            taken: list[Entry] = []
            left, runs_left = [], []
            for head, run in zip(heads, blocks, strict=True):
                cut = bisect_right(head, bound)
                taken += head[:cut]
                rest = head[cut:] if cut < len(head) else next(run, None)
                if rest is not None:
                    left.append(rest)
                    runs_left.append(run)
            heads, blocks = left, runs_left
            taken.sort()
            yield taken

    def _blocks(self, run: _Run) -> Iterator[list[Entry]]:
        if run.entries:
            yield run.entries
        for position, size in run.blocks:
            assert self._file is not None  # noqa: S101
            self._file.seek(position)
            yield _decode(self._file.read(size))

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  `close` closes it
        for measurement, entries in self._pending.items():
            entries.sort()
            run = _Run()
            for start in range(0, len(entries), _BLOCK):
                data = _encode(entries[start : start + _BLOCK])
                self._file.write(data)
                run.blocks.append((self._size, len(data)))
                self._size += len(data)
            self._runs.setdefault(measurement, []).append(run)
        self._file.flush()
        self._pending, self._held = {}, 0


def _cut(entries: list[Entry], most: int, gap: int) -> int:
    """Return where the first window of `entries` ends."""
    end = min(most, len(entries))
    while end < len(entries) and entries[end][:2] == entries[end - 1][:2]:
        end += 1
    if entries[end - 1][0] - entries[0][0] > gap:
        for at in range(1, end):
            if entries[at][0] - entries[at - 1][0] > gap:
                return at
    return end
