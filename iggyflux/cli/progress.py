"""What a person sees of a run: a live table on a terminal, and the summary at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

import click

from iggyflux.cli.output import attached, plural

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from iggyflux.delivery.windows import ReadPosition
    from iggyflux.runner import RouteStatus, Status, Summary
    from iggyflux.runner.status import ReaderStatus

_REFRESH_PER_SECOND: Final = 4
_MOST_PARTITIONS: Final = 16
_STATE_STYLES: Final = {"running": "green", "done": "green", "stopped": "bold red", "connecting": "yellow"}


class _Rates:
    """Messages a second of each route, over the last moments; the clock is the caller's."""

    def __init__(self, smoothing_seconds: float = 3.0) -> None:
        self._smoothing = smoothing_seconds
        self._last: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def of(self, name: str, count: int, now: float) -> float:
        """The rate, given that `count` were read up to `now`."""
        then, before = self._last.get(name, (now, count))
        seconds = now - then
        if seconds > 0:
            share = min(seconds / self._smoothing, 1.0)
            fresh = (count - before) / seconds
            self._rates[name] = self._rates.get(name, fresh) * (1 - share) + fresh * share
        self._last[name] = (now, count)
        return self._rates.get(name, 0.0)


@contextmanager
def live_display(status: Status) -> Iterator[None]:
    """The table on stderr, kept up to date; events above it from warnings on."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from iggyflux.runner.events import TextFormatter

    console = Console(stderr=True)
    rates = _Rates()

    class Above(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            style = "red" if record.levelno >= logging.ERROR else "yellow"
            console.print(Text(self.format(record), style=style), soft_wrap=True)

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
    """One row a route, and under it one a partition that is behind, as long as they are few."""
    from rich.table import Table
    from rich.text import Text

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
            route.name,
            Text(route.state, style=_STATE_STYLES.get(route.state, "")),
            f"{route.read:,}",
            f"{rates.of(route.name, route.read, now):,.0f}",
            f"{route.delivered:,}",
            f"{route.in_flight:,}",
            Text(f"{route.failed + route.refused:,}", style=bad),
            f"{route.dead_letters:,}",
            behind,
            Text(route.waiting_for or (plural(route.retries, "retry", "retries") if route.retries else "")),
        )
        if route.reader is not None and route.reader.position is not None:
            table.add_row(*_reader_row(route.reader, route.reader.position), *[""] * 7)
        if 1 < len(route.lag) <= _MOST_PARTITIONS:
            for partition, count in sorted(route.lag.items(), key=lambda item: str(item[0])):
                if count:
                    table.add_row(Text(f"  {partition}", style="dim"), *[""] * 7, Text(f"{count:,}", style="dim"), "")
    return table


def _reader_row(reader: ReaderStatus, position: ReadPosition) -> tuple[Text | str, RenderableType]:
    """Under a reader: how far it is; a bar and the time left, as long as it is behind."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    from iggyflux.timestamps import format_rfc3339

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
    """`3 s`, `12 min`, `4.5 h`: a person plans with it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


_WORDS: Final[tuple[tuple[str, str, str | None], ...]] = (  # of one, and of many where that is not the same
    ("skipped", "skipped by `where`", None),
    ("empty", "without elements", None),
    ("failed", "failed", None),
    ("refused", "rejected by the server", None),
    ("dead_letters", "kept as dead letter", "kept as dead letters"),
    ("dropped", "dropped (on_error: skip)", None),
    ("collisions", "overwrote a point of another message", None),
    ("fallbacks", "batch rendered by the reference plan (a bug)", "batches rendered by the reference plan (a bug)"),
    ("retries", "time sent again", "times sent again"),
    ("reconnects", "connection lost or refused", "connections lost or refused"),
)


def _reader_words(reader: ReaderStatus) -> Iterator[str]:
    from iggyflux.timestamps import format_rfc3339

    position = reader.position
    if position is not None:
        yield f"read to {format_rfc3339(position.done)}"
        if position.gap is not None:
            yield f"still to read {format_rfc3339(position.gap[0])} to {format_rfc3339(position.gap[1])}"
    for name, words in (("late", "came late"), ("changed", "changed"), ("seen_again", "read again and not sent again")):
        if count := getattr(reader, name):
            yield f"{count:,} {words}"


def summary_lines(summary: Summary) -> Iterator[str]:
    """What a run came to, for people."""
    width = max((len(route.name) for route in summary.routes), default=0)
    for route in summary.routes:
        mark = click.style("stopped", fg="red", bold=True) if route.error else click.style(route.state, fg="green")
        reads, counts = "messages", f"{plural(route.read, 'message')}, {plural(route.delivered, 'point')} written"
        others = [plural(getattr(route, name), one, many or one) for name, one, many in _WORDS if getattr(route, name)]
        if route.reader is not None:
            reads, counts = "rows", f"{plural(route.read, 'row')}, {plural(route.delivered, 'message')} sent"
            others = [*_reader_words(route.reader), *others]
        rate = f", {route.read / summary.seconds:,.0f} {reads} a second" if summary.seconds > 2 and route.read else ""
        yield f"{route.name:<{width}}  {mark}: {counts}, {route.acknowledged:,} acknowledged{rate}"
        if others:
            yield f"{'':<{width}}  {', '.join(others)}"
        if route.error is not None:
            yield f"{'':<{width}}  {click.style('error', fg='red')}[{route.error.code}]: {route.error.reason}"
            if route.error.hint:
                yield f"{'':<{width}}    {click.style('hint:', fg='cyan')} {route.error.hint}"
    if summary.interrupted:
        yield (
            click.style("interrupted", fg="yellow")
            + ": some messages were not finished in time; the next run reads them again"
        )
    if not summary.routes:
        yield "no routes"
