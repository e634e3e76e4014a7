"""The live table of a run on a terminal.  This module loads rich, so it is imported only when the table is shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from iggyflux.cli.output import attached, plural
from iggyflux.delivery.windows import ReadPosition
from iggyflux.escapes import escaped
from iggyflux.runner import RouteStatus, Status
from iggyflux.runner.events import TextFormatter
from iggyflux.runner.status import ReaderStatus
from iggyflux.timestamps import format_rfc3339

_REFRESH_PER_SECOND: Final = 4
_MOST_PARTITIONS: Final = 16
_STATE_STYLES: Final = {"running": "green", "done": "green", "stopped": "bold red", "connecting": "yellow"}


class _Rates:
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
    """Show the table on stderr and update it; print warnings and errors above it."""
    console = Console(stderr=True)
    rates = _Rates()

    class Above(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            style = "red" if record.levelno >= logging.ERROR else "yellow"
            console.print(_cell(self.format(record), style), soft_wrap=True)

    handler = Above(logging.WARNING)
    handler.setFormatter(TextFormatter())
    live = Live(
        get_renderable=lambda: route_table(status.routes, rates, monotonic()),
        console=console,
        refresh_per_second=_REFRESH_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with attached(handler, logging.WARNING), live:
        yield


def route_table(routes: list[RouteStatus], rates: _Rates, now: float) -> Table:
    """Return a table with a row for each route and, if they are few, one for each partition with a lag."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("route", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("messages", "a second", "points", "sending", "failed", "dead letters", "behind"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", style="yellow", overflow="ellipsis", no_wrap=True)
    for route in routes:
        bad = "red" if route.failed or route.refused else ""
        behind = f"{sum(route.lag.values()):,}" if route.lag else ""
        table.add_row(
            _cell(route.name),
            _cell(route.state, _STATE_STYLES.get(route.state, "")),
            f"{route.read:,}",
            f"{rates.of(route.name, route.read, now):,.0f}",
            f"{route.delivered:,}",
            f"{route.in_flight:,}",
            Text(f"{route.failed + route.refused:,}", style=bad),
            f"{route.dead_letters:,}",
            behind,
            _cell(route.waiting_for or (plural(route.retries, "retry", "retries") if route.retries else "")),
        )
        if route.reader is not None and route.reader.position is not None:
            table.add_row(*_reader_row(route.reader, route.reader.position), *[""] * 7)
        if 1 < len(route.lag) <= _MOST_PARTITIONS:
            for partition, count in sorted(route.lag.items(), key=lambda item: str(item[0])):
                if count:
                    table.add_row(_cell(f"  {partition}", "dim"), *[""] * 7, Text(f"{count:,}", style="dim"), "")
    return table


def _cell(text: str, style: str = "") -> Text:
    """Return `text` escaped, and never as rich's markup."""
    return Text(escaped(text), style=style)


def _reader_row(reader: ReaderStatus, position: ReadPosition) -> tuple[Text | str, RenderableType]:
    """Return the cells below a reader: its position and, while it is behind, a bar and the time left."""
    at = position.done if position.gap is None else position.gap[0]
    when = format_rfc3339(at // 1_000_000_000 * 1_000_000_000)
    if reader.share is None:
        return Text(f"  read to {when}", style="dim"), ""
    left = "" if reader.seconds_left is None else f", {_span(reader.seconds_left)} left"
    bar = ProgressBar(total=1.0, completed=reader.share, width=12)
    return Text(f"  {'backfill' if position.gap else 'read'} to {when}, {reader.share:.0%}{left}", style="dim"), Group(
        bar
    )


def _span(seconds: float) -> str:
    """Return a duration such as `3 s`, `12 min` or `4.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
