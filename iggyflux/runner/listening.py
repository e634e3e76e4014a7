"""A run that answers requests: the server of `telemetry`, given the status of the run."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager

from iggyflux import __version__
from iggyflux.errors import PipelineError, Problem
from iggyflux.pipeline import TelemetrySettings
from iggyflux.pipeline.addresses import is_loopback, parse_listen
from iggyflux.pipeline.load import fault_of_listen
from iggyflux.records import JSON
from iggyflux.runner.events import emit
from iggyflux.runner.newest import Show
from iggyflux.runner.status import Status

log = logging.getLogger("iggyflux.runner")


@contextmanager
def listening(settings: TelemetrySettings, status: Status, listen: str | None = None) -> Iterator[None]:
    """Answer requests inside the block, at `listen` or at the address of the settings; without one, do nothing.

    Raise `PipelineError` if that is impossible.
    """
    settings = settings if listen is None else dataclasses.replace(settings, listen=listen)
    if settings.listen is None:
        yield
        return
    if (fault := fault_of_listen(settings)) is not None:
        raise PipelineError([Problem(fault[0], fault[1], hint=fault[2])])
    from iggyflux.telemetry.answers import Bounds, Site
    from iggyflux.telemetry.server import TelemetryServer, listener

    host, port = parse_listen(settings.listen)
    bounds = Bounds(settings.max_lag, settings.max_behind_seconds)
    site = Site(lambda: public_tree(status, settings.show), settings.token, is_local=is_loopback(host), bounds=bounds)
    server = TelemetryServer(site, listener(host, port), asyncio.get_running_loop())
    server.start()
    emit(log, logging.INFO, "telemetry.listening", url=server.url)
    try:
        yield
    finally:
        server.close()


def public_tree(status: Status, show: Show = "codes") -> dict[str, JSON]:
    """Return the status as others may see it, with the time and the version."""
    now: dict[str, JSON] = {
        "time_unix": round(time.time(), 3),
        "version": __version__,
        "python": platform.python_version(),
    }
    return {**now, **status.as_public(show)}
