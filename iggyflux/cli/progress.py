"""What a person sees of a run: a live table or a line for each event, and the summary at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Final

from iggyflux.cli.output import Line, Styled, attached, plural
from iggyflux.runner import RouteStatus, Status, Summary
from iggyflux.runner.events import JsonFormatter, TextFormatter
from iggyflux.runner.status import ReaderStatus
from iggyflux.timestamps import format_rfc3339


def show_progress(
    status: Status,
    *,
    live: bool = True,
    log_format: str = "text",
    level: int = logging.WARNING,
    without: str | None = None,
) -> AbstractContextManager[None]:
    """Return a context that shows a table on a terminal if `live`, else one line for each event of at least `level`.

    Events called `without` are not shown as lines.
    """
    if live and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from iggyflux.cli.live_display import live_display  # loads wcwidth, only for a terminal

        return live_display(status)
    return _logging_to_stderr(log_format, level, without)


def show_run(
    status: Status, log_format: str | None, *, quiet: bool, without: str | None = None
) -> AbstractContextManager[None]:
    """Return the context of `show_progress` for a command with the options `--log-format` and `--quiet`."""
    return show_progress(
        status,
        live=log_format is None and not quiet,
        log_format=log_format or "text",
        level=logging.WARNING if quiet else logging.INFO,
        without=without,
    )


@asynccontextmanager
async def telling(tell: Callable[[], None], every_seconds: float) -> AsyncIterator[None]:
    """Call `tell` from time to time inside the block."""

    async def always() -> None:
        while True:
            await asyncio.sleep(every_seconds)
            tell()

    task = asyncio.create_task(always(), name="telling")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def _logging_to_stderr(log_format: str, level: int, without: str | None) -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter({"text": TextFormatter, "json": JsonFormatter}[log_format]())
    if without is not None:
        handler.addFilter(lambda record: getattr(record, "event", None) != without)
    with attached(handler, level):
        yield


_WORDS: Final[tuple[tuple[str, str, str | None], ...]] = (  # of one, and of many where that is not the same
    ("skipped", "skipped by `where`", None),
    ("empty", "without elements", None),
    ("omitted", "value omitted", "values omitted"),
    ("undeclared", "with fields that the schema does not declare", None),
    ("failed", "failed", None),
    ("refused", "rejected by the server", None),
    ("dead_letters", "kept as dead letter", "kept as dead letters"),
    ("removed_letters", "dead letter removed by retention", "dead letters removed by retention"),
    ("removed_replayed", "replayed dead letter removed by retention", "replayed dead letters removed by retention"),
    ("dropped", "dropped (on_error: skip)", None),
    ("collisions", "overwrote a point of another message", None),
    ("implausible", "with a time before 1990 or after 2099", None),
    ("too_old", "older than the server keeps points", None),
    ("fallbacks", "batch rendered by the reference plan (a bug)", "batches rendered by the reference plan (a bug)"),
    ("retries", "time sent again", "times sent again"),
    ("reconnects", "connection lost or refused", "connections lost or refused"),
)


def _reader_words(reader: ReaderStatus) -> Iterator[str]:
    position = reader.position
    if position is not None:
        yield f"read to {format_rfc3339(position.done)}"
        if position.gap is not None:
            yield f"still to read {format_rfc3339(position.gap[0])} to {format_rfc3339(position.gap[1])}"
    for name, words in (("late", "came late"), ("changed", "changed"), ("seen_again", "read again and not sent again")):
        if count := getattr(reader, name):
            yield f"{count:,} {words}"


def _mark(route: RouteStatus) -> Line:
    """How a route ended, in colour."""
    if route.error:
        return (Styled("stopped", "red", bold=True),)
    if route.state != "interrupted":
        return (Styled(route.state, "green"),)
    left = sum(route.lag.values())
    of = f": {route.acknowledged:,} of {plural(route.acknowledged + left, 'message')}" if left else ""
    return Styled("interrupted", "yellow", bold=True), of


def summary_lines(summary: Summary) -> Iterator[Line]:
    """Yield the lines of a run's summary."""
    width = max((len(route.name) for route in summary.routes), default=0)
    for route in summary.routes:
        reads, counts = "message", f"{plural(route.read, 'message')}, {plural(route.delivered, 'point')} written"
        others = [plural(getattr(route, name), one, many or one) for name, one, many in _WORDS if getattr(route, name)]
        if route.reader is not None:
            reads, counts = "row", f"{plural(route.read, 'row')}, {plural(route.delivered, 'message')} sent"
            others = [*_reader_words(route.reader), *others]
        rate = ""
        if summary.seconds > 2 and route.read:
            rate = f", {plural(round(route.read / summary.seconds), reads)} a second"
        below = " " * (width + 2)
        yield f"{route.name:<{width}}  ", *_mark(route), f": {counts}, {route.acknowledged:,} acknowledged{rate}"
        if others:
            yield below, ", ".join(others)
        if route.error is not None:
            yield below, Styled("error", "red"), f"[{route.error.code}]: {route.error.reason}"
            if route.error.hint:
                yield below, "  ", Styled("hint:", "cyan"), f" {route.error.hint}"
    if summary.interrupted:
        yield (
            Styled("interrupted", "yellow"),
            ": not everything was finished; the next run goes on from what was acknowledged",
        )
    if not summary.routes:
        yield ("no routes",)
