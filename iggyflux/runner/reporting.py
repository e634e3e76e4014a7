"""What a worker tells its supervisor: once a second and at its end a report, through a pipe that it inherits.

A report is bytes, with their length before them.  Nothing waits for the supervisor: while the pipe is full, no new
report is made.  A closed pipe means that the supervisor has died.
"""

from __future__ import annotations

import asyncio
import os
import select
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final

VARIABLE: Final = "IGGYFLUX_REPORTS"
"""The variable of the environment with the number of the pipe's descriptor."""
LENGTH: Final = "!I"
_EVERY_SECONDS: Final = 1.0
_LAST_SECONDS: Final = 5.0
"""How long the last report waits for the supervisor."""


class Reports:
    """The worker's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unsent = b""
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)

    def send(self, make: Callable[[], bytes]) -> None:
        """Send what `make` returns, if the report before it is sent.  Raise `BrokenPipeError`."""
        if not self._unsent:
            report = make()
            self._unsent = struct.pack(LENGTH, len(report)) + report
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[os.write(self._descriptor, self._unsent) :]

    def send_last(self, make: Callable[[], bytes]) -> None:
        """Send the rest of the last report and a new one; wait some seconds for the supervisor, no longer."""
        until = monotonic() + _LAST_SECONDS
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        for made in (lambda: b"", make) if self._unsent else (make,):
            self.send(made)
            while self._unsent and monotonic() < until:
                room.poll(max(1000 * (until - monotonic()), 0))
                self.send(made)


@asynccontextmanager
async def reporting(
    make: Callable[[], bytes], orphaned: Callable[[], None], environ: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Report what `make` returns inside the block and at its end; call `orphaned` once if the supervisor has died.

    Without the variable in `environ` nothing is reported.
    """
    descriptor = os.environ.pop(VARIABLE, None) if environ is None else environ.get(VARIABLE)
    if descriptor is None:
        yield
        return
    reports = Reports(int(descriptor))
    task = asyncio.create_task(_report(reports, make, orphaned), name="reports")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(BrokenPipeError):
            reports.send_last(make)


async def _report(reports: Reports, make: Callable[[], bytes], orphaned: Callable[[], None]) -> None:
    try:
        while True:
            reports.send(make)
            await asyncio.sleep(_EVERY_SECONDS)
    except BrokenPipeError:
        orphaned()
