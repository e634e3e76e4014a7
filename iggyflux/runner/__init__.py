"""The runner: read, plan, deliver, acknowledge.  `route` is the page to read first."""

from __future__ import annotations

from iggyflux.runner.reader_route import ReaderRoute, ReaderRun
from iggyflux.runner.route import Route, RouteRun
from iggyflux.runner.run import run_pipeline, run_routes
from iggyflux.runner.status import RouteStatus, Status, Summary
from iggyflux.runner.stop import Stop, stopping_on_signals

__all__ = [
    "ReaderRoute",
    "ReaderRun",
    "Route",
    "RouteRun",
    "RouteStatus",
    "Status",
    "Stop",
    "Summary",
    "run_pipeline",
    "run_routes",
    "stopping_on_signals",
]
