"""The live display of a run on a terminal: draws `live_lines` below the log four times a second.

It leaves nothing behind, however the run ends: the cursor stays visible, no mode of the terminal is changed, a style
ends in its own line, and a picture is one write.  Each picture begins with the removal of the one before, which takes
more rows where the terminal has become narrower.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Final

from iggyflux.cli.live_lines import live_lines, width
from iggyflux.cli.output import Line, Styled, attached, has_colours, unstyled, written
from iggyflux.runner import Status
from iggyflux.runner.events import TextFormatter

_EVERY_SECONDS: Final = 0.25
_FALLBACK: Final = (80, 24)
_ENDS: Final = {
    "configuration.accepted": ("configuration.refused",),
    "delivery.back": ("delivery.away", "route.not_connected", "server.no_answer"),
    "plan.changed": ("plan.waiting",),
    "route.connected": ("route.not_connected", "server.no_answer"),
    "server.answered": ("server.no_answer",),
}
"""By event: the warnings and errors whose state it ends."""


class Rates:
    """The smoothed rate of each route in messages per second; the caller passes the time."""

    def __init__(self, smoothing_seconds: float = 3.0) -> None:
        self._smoothing = smoothing_seconds
        self._last: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def of(self, name: str, count: int, now: float) -> float:
        """Return the rate after `count` messages at the time `now`."""
        then, before = self._last.get(name, (now, count))
        seconds = now - then
        if seconds > 0:
            weight = min(seconds / self._smoothing, 1.0)
            fresh = (count - before) / seconds
            self._rates[name] = self._rates.get(name, fresh) * (1 - weight) + fresh * weight
        self._last[name] = (now, count)
        return self._rates.get(name, 0.0)


@contextmanager
def live_display(status: Status) -> Iterator[None]:
    """Show the display on stderr and update it; print warnings, errors and their ends above it."""
    display = _Display(status)
    handler = _Above(display)
    handler.setFormatter(TextFormatter())
    try:
        with attached(handler, logging.INFO):
            display.start()
            yield
    finally:
        display.close()


class _Display:
    """Draws the lines of `status` from `start` to `close`, in a thread of its own."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._rates = Rates()
        self._shown: list[Line] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._draw_always, name="iggyflux-display", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Remove the display."""
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            self._replace([])

    def print(self, line: Line) -> None:
        """Print a line that stays, above the display."""
        with self._lock:
            self._replace([] if self._is_over.is_set() else self._shown, above=line)

    def _draw_always(self) -> None:
        while True:
            now, routes = monotonic(), list(self._status.routes)
            rates = {route.name: self._rates.of(route.name, route.read, now) for route in routes}
            columns, rows = _size()
            with self._lock:
                self._replace(live_lines(routes, rates, columns - 1, rows - 1, self._status.configuration.refused))
            if self._is_over.wait(_EVERY_SECONDS):
                return

    def _replace(self, lines: list[Line], above: Line | None = None) -> None:
        """Replace what is shown by `lines`, below a line that stays.  Nothing is raised where the terminal is gone."""
        if not (lines or self._shown or above):
            return
        columns, _ = _size()
        taken = sum(max(-(-width(unstyled(line)) // columns), 1) for line in self._shown)
        up = f"\x1b[{taken}A" if taken else ""
        text = "".join(f"{written(line, colour=has_colours())}\n" for line in (*filter(None, [above]), *lines))
        encoding = sys.stderr.encoding
        with suppress(OSError, ValueError):
            sys.stderr.write(f"\r{up}\x1b[J" + text.encode(encoding, "replace").decode(encoding))
            sys.stderr.flush()
        self._shown = lines


class _Above(logging.Handler):
    """Prints warnings and errors above a display, and the events that end the state of one that was printed."""

    def __init__(self, display: _Display) -> None:
        super().__init__(logging.INFO)
        self._display = display
        self._printed: set[tuple[str, object]] = set()
        """The events that were printed and have not ended, each with its route."""

    def emit(self, record: logging.LogRecord) -> None:
        event, route = getattr(record, "event", ""), getattr(record, "fields", {}).get("route")
        if record.levelno >= logging.WARNING:
            colour = "red" if record.levelno >= logging.ERROR else "yellow"
            self._printed.add((event, route))
        elif ended := self._printed & {(each, route) for each in _ENDS.get(event, ())}:
            colour = "green"
            self._printed -= ended
        else:
            return
        self._display.print((Styled(self.format(record), colour),))


def _size() -> tuple[int, int]:
    """Return columns and rows of the terminal; where it does not know, as the environment has them."""
    try:
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        columns, rows = 0, 0
    found = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    given = [int(text) if text.isdecimal() else 0 for text in found]
    return columns or given[0] or _FALLBACK[0], rows or given[1] or _FALLBACK[1]
