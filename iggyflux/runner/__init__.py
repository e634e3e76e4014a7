"""The runner: read, plan, deliver, acknowledge.  `writer_run` is the page to read first."""

from __future__ import annotations

from iggyflux.runner.route import ReaderRoute, Route
from iggyflux.runner.run import run_pipeline, run_routes
from iggyflux.runner.status import RouteStatus, Status, Summary
from iggyflux.runner.stop import Stop, stopping_on_signals

__all__ = [
    "ReaderRoute",
    "Route",
    "RouteStatus",
    "Status",
    "Stop",
    "Summary",
    "run_pipeline",
    "run_routes",
    "stopping_on_signals",
]
