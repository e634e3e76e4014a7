"""What a run says to the service manager that started it: systemd's protocol, one datagram to the socket NOTIFY_SOCKET.

Everything is sent by the event loop of the run, so a loop that hangs is silent, and systemd starts the process again
(`WatchdogSec`).  Without NOTIFY_SOCKET nothing is sent, and a manager that does not listen stops no run.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from iggyflux.errors import counted
from iggyflux.runner.clock import first_of
from iggyflux.runner.status import Status
from iggyflux.runner.stop import Stop

_TICK_SECONDS: Final = 1.0
_SIGNS_OF_LIFE: Final = 3
"""In one interval of the watchdog: one that comes late is not the last one."""
_NONE_FREE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""The process or the system has nothing left for a socket: it may have later."""


class ServiceManager:
    """The receiver of what a run says.  `environ` is that of the process; no method waits or raises."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = address.replace("@", "\0", 1) if address.startswith("@") else address  # an abstract one
        self._unsent: list[bytes] = []
        self._status = ""
        watchdog = environ.get("WATCHDOG_USEC", "") if environ.get("WATCHDOG_PID") in (None, str(os.getpid())) else ""
        self._watchdog_seconds = int(watchdog) / 1e6 if watchdog.isdecimal() and int(watchdog) else None

    @property
    def is_listening(self) -> bool:
        """Whether the process was started by a manager that wants to know."""
        return self._address[:1] in ("/", "\0")

    @property
    def tick_seconds(self) -> float:
        """The time between two signs of life."""
        return min(_TICK_SECONDS, (self._watchdog_seconds or _TICK_SECONDS) / _SIGNS_OF_LIFE)

    def ready(self) -> None:
        """Say that the run has begun, or that a reload has ended."""
        self._say("READY=1")

    def reloading(self) -> None:
        """Say that files are read again; `ready` must follow, whether or not they were good."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the run finishes what is in flight, and ends."""
        self._say("STOPPING=1")

    def alive(self, status: str) -> None:
        """Say that the event loop works, and in one line what it does."""
        lines = ["WATCHDOG=1"] if self._watchdog_seconds else []
        if status != self._status:
            lines.append(f"STATUS={status}")
        if not lines or not self._flush():
            return
        self._unsent.append("\n".join(lines).encode())
        if self._flush():
            self._status = status
        self._unsent.clear()  # the next one is newer

    def _say(self, text: str) -> None:
        self._unsent.append(text.encode())
        self._flush()

    def _flush(self) -> bool:
        """Send what is waiting, in its order; keep what the socket has no room for, and return whether all was sent."""
        if not self.is_listening:
            self._unsent.clear()
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.setblocking(False)
                while self._unsent:
                    to.sendto(self._unsent[0], self._address)
                    del self._unsent[0]
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NONE_FREE:
                return False
            self._unsent.clear()  # it is gone, or was never there
        return True


@asynccontextmanager
async def notifying(manager: ServiceManager, status: Status, stop: Stop) -> AsyncIterator[None]:
    """Keep `manager` up to date inside the block: ready, signs of life with the states of routes, stopping."""
    if not manager.is_listening:
        yield
        return
    is_told = False

    async def keep_up_to_date() -> None:
        nonlocal is_told
        while not stop.requested.is_set():
            manager.alive(states(status))
            await first_of(stop.requested.wait(), asyncio.sleep(manager.tick_seconds))
        is_told = True
        manager.stopping()
        while True:
            manager.alive(states(status))
            await asyncio.sleep(manager.tick_seconds)

    manager.ready()
    task = asyncio.create_task(keep_up_to_date(), name="service manager")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not is_told:  # it ends by itself, or at once after a stop was requested
            manager.stopping()


def states(status: Status) -> str:
    """Return how many routes are in which state, in one line."""
    found = Counter(route.state for route in status.routes)
    return f"{counted(len(status.routes), 'route')}: {', '.join(f'{count} {state}' for state, count in found.items())}"
