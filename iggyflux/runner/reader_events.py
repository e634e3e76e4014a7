"""The events of a reader: where it begins, how far it has read, what is unusual."""

from __future__ import annotations

import logging
import time

from iggyflux.delivery.windows import Read, ReadPosition
from iggyflux.errors import TooMuch
from iggyflux.runner.clock import Clock
from iggyflux.runner.events import emit
from iggyflux.runner.route import ReaderRoute
from iggyflux.runner.status import ReaderStatus, RouteStatus
from iggyflux.runner.stop import StopRequested
from iggyflux.timestamps import format_rfc3339

_CLOCK_AHEAD_SECONDS = 60.0
_PROGRESS_SECONDS = 10.0
"""How often progress is logged."""

log = logging.getLogger("iggyflux.runner")


class ReaderEvents:
    """Logs the events of one run."""

    def __init__(self, route: ReaderRoute, status: RouteStatus, progress: ReaderStatus, clock: Clock) -> None:
        self._route = route
        self._status = status
        self._progress = progress
        self._clock = clock
        self._progress_at = clock.monotonic()
        self._has_logged_empty = False
        self._has_logged_clock = False

    def opened(self, position: ReadPosition | None) -> None:
        """Log where the reader begins, or resumes."""
        self._progress_at = self._clock.monotonic()
        route = self._route
        if position is None:
            start = route.rules.start
            shown = start if isinstance(start, str) else format_rfc3339(start)
            emit(log, logging.INFO, "reader.begins", route=route.name, start=shown)
            return
        gap = None if position.gap is None else "/".join(map(format_rfc3339, position.gap))
        at = format_rfc3339(position.done)
        emit(log, logging.INFO, "reader.resumes", route=route.name, at=at, backfill=gap)

    def no_rows(self) -> None:
        """Log once that the measurement has no rows."""
        if not self._has_logged_empty:
            self._has_logged_empty = True
            emit(log, logging.WARNING, "reader.empty", route=self._route.name, reason="no rows yet")

    def asked_time(self, now: int) -> None:
        """Log once that the server's clock is ahead: times are then counted as read before they are written."""
        ahead = now / 1e9 - time.time()
        if ahead > _CLOCK_AHEAD_SECONDS and not self._has_logged_clock:
            self._has_logged_clock = True
            name, hint = self._route.name, "correct one of the clocks: points of the time between may be missed"
            emit(log, logging.WARNING, "reader.clock", route=name, ahead_seconds=round(ahead), hint=hint)

    def too_much(self, read: Read, error: TooMuch) -> None:
        """Log that a window is read in parts."""
        emit(log, logging.INFO, "reader.too_much", **self._window(read), reason=error)

    def window(self, read: Read, rows: int) -> None:
        """Log that a window was read, sent and stored; from time to time, the progress."""
        emit(log, logging.DEBUG, "reader.window", **self._window(read), rows=rows)
        now, progress = self._clock.monotonic(), self._progress
        if read.lane == "backfill" and progress.position is not None and progress.position.gap is None:
            until = format_rfc3339(read.stop)
            emit(log, logging.INFO, "reader.backfilled", route=self._route.name, until=until)
        elif progress.share is not None and now - self._progress_at >= _PROGRESS_SECONDS:
            self._progress_at = now
            emit(
                log,
                logging.INFO,
                "reader.progress",
                **self._window(read),
                done=f"{progress.share:.1%}",
                left=None if progress.seconds_left is None else f"{progress.seconds_left:.0f}s",
                messages=self._status.delivered,
            )

    def not_stored(self, error: StopRequested) -> None:
        """Log that the last position could not be stored."""
        emit(log, logging.WARNING, "reader.not_stored", route=self._route.name, reason=error.__cause__)

    def _window(self, read: Read) -> dict[str, object]:
        return {
            "route": self._route.name,
            "lane": read.lane,
            "start": format_rfc3339(read.start),
            "stop": format_rfc3339(read.stop),
        }
