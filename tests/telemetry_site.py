"""The telemetry endpoint of a run that is not there: its status is what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from iggyflux.telemetry.answers import Site
from iggyflux.telemetry.server import Deadlines, TelemetryServer, listener


@contextmanager
def serving(at: Site, **deadlines: float) -> Iterator[tuple[TelemetryServer, tuple[str, int]]]:
    """Serve beside an event loop that runs in no thread: nothing but `/healthz` needs it."""
    run = asyncio.new_event_loop()
    server = TelemetryServer(at, listening := listener("127.0.0.1", 0), run, Deadlines(**deadlines))
    place = listening.getsockname()
    server.start()
    try:
        yield server, place
    finally:
        server.close()
        run.close()
