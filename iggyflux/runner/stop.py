"""Requests to stop a run: the first one to finish what is in flight, the second one to stop at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StopRequested(Exception):
    """A stop was requested while a server was not available: the work is abandoned."""


class Stop:
    """The request to stop a run, made by a signal or by the caller."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.at_once = asyncio.Event()

    def request(self) -> None:
        """Finish what is in flight and stop; the second time: stop at once."""
        if self.requested.is_set():
            self.at_once.set()
        self.requested.set()


@contextmanager
def calling_on_hangup(reload: Callable[[], None]) -> Iterator[None]:
    """Call `reload` on SIGHUP inside the block."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


@contextmanager
def stopping_on_signals(stop: Stop) -> Iterator[None]:
    """Request `stop` on SIGTERM and SIGINT inside the block."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.request)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
