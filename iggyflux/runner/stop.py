"""Requests to stop a run: the first one to finish what is in flight, the second one to stop at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
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
def calling_on_hangup(reload: Callable[[], None], *, for_good: bool = False) -> Iterator[None]:
    """Call `reload` on SIGHUP inside the block; ignore SIGHUP after it if this is `for_good`.

    Outside of the blocks below, an event loop that waits may notice it late.
    """
    with _calling({signal.SIGHUP: reload}, for_good=for_good):
        yield


@contextmanager
def stopping_on_signals(stop: Stop, *, for_good: bool = False) -> Iterator[None]:
    """Request `stop` on SIGTERM and SIGINT inside the block; ignore SIGTERM after it if this is `for_good`.

    That is for a process which ends after the block: SIGTERM would only replace its exit code.
    """
    with _calling({signal.SIGTERM: stop.request, signal.SIGINT: stop.request}, for_good=for_good):
        yield


@contextmanager
def stopping_as_worker(stop: Stop) -> Iterator[None]:
    """Request `stop` once on SIGTERM inside the block, however often it comes; on SIGINT stop at once.

    A service manager may send SIGTERM to all processes, and the supervisor sends it too.  After the block SIGTERM is
    ignored: a worker that it ends there would look as if its work was not done.
    """

    def once() -> None:
        if not stop.requested.is_set():
            stop.request()

    def at_once() -> None:
        stop.request()
        stop.request()

    with _calling({signal.SIGTERM: once, signal.SIGINT: at_once}, for_good=True):
        yield


@contextmanager
def _calling(handlers: Mapping[signal.Signals, Callable[[], None]], *, for_good: bool) -> Iterator[None]:
    """Call the handlers inside the block; after it restore the earlier ones, or ignore all but SIGINT `for_good`.

    The event loop handles only SIGINT itself, which also lets it wake up for the others: when it gives a handler up,
    the signal would end the process until the next statement.
    """
    loop = asyncio.get_running_loop()

    def call(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(handlers[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if number == signal.SIGINT:
            loop.add_signal_handler(number, handler)
        else:
            signal.signal(number, call)
    try:
        yield
    finally:
        for number, earlier in before.items():
            if number == signal.SIGINT:
                loop.remove_signal_handler(number)
            after = signal.SIG_IGN if for_good and number != signal.SIGINT else earlier
            signal.signal(number, after or signal.SIG_DFL)  # None is a handler that is not of Python
