"""How a run is told to stop: once to finish what is in flight, twice to leave at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """A wish to stop, made by a signal or by whoever started the run."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.at_once = asyncio.Event()

    def request(self) -> None:
        """Finish what is in flight and stop; asked a second time: stop now."""
        if self.requested.is_set():
            self.at_once.set()
        self.requested.set()


@contextmanager
def stopping_on_signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT ask `stop`, as long as this lasts."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.request)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
