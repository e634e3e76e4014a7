"""What `replay`, `resend` and `audit` share: routes that send again, and failures that are reported and not kept."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from iggyflux.cli.output import Line, Styled, plural
from iggyflux.cli.progress import show_progress
from iggyflux.records import DeadLetter, Message, is_part_of_file, place_in_file
from iggyflux.runner import Status, Stop, Summary, run_routes, stopping_on_signals
from iggyflux.runner.route import Route
from iggyflux.timestamps import TimestampError, parse_rfc3339
from iggyflux.transports.ranges import Bound

MOST_SHOWN: Final = 20


async def send_again(routes: Sequence[Route]) -> Summary:
    """Run the routes to the end of their sources, or until a signal stops them; show the progress."""
    stop, status = Stop(), Status()
    # A run of the route has the state of its limit, and what is sent again settles no offset.
    routes = [replace(route, series=None, ledger=None, until_end=True) for route in routes]
    # A failed record is in the report at the end.
    with show_progress(status, without="record.failed"), stopping_on_signals(stop):
        return await run_routes(routes, stop=stop, status=status)


def message_name(message: Message) -> str:
    """Return how reports call a message: by its file, as seen from here, and its line, if it is of an archive."""
    if (place := place_in_file(message)) is not None:
        return place.removeprefix(f"{Path.cwd()}{os.sep}")
    return f"{message.stream}/{message.topic}/{message.partition}@{message.offset}"


class ReportedFailures:
    """A `DeadLetterSink` that counts failures and keeps the first for the report; the messages are stored elsewhere."""

    def __init__(self, words: str = "failed again") -> None:
        self.count = 0
        self._words = words
        self._first: list[DeadLetter] = []
        self._codes: Counter[str] = Counter()

    async def connect(self) -> None:
        """Do nothing: nothing is opened."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Count the letters."""
        self.count += len(letters)
        self._first += letters[: MOST_SHOWN - len(self._first)]
        self._codes.update(reason.code for letter in letters for reason in letter.reasons)

    async def close(self) -> None:
        """Do nothing: nothing was opened."""

    def lines(self) -> Iterator[Line]:
        """Yield the failures and their number by code, as text."""
        for letter in self._first:
            for reason in letter.reasons:
                mark = Styled(f"error[{reason.code}]", "red", bold=True)
                line = None if is_part_of_file(letter.message) else reason.payload_line
                place = message_name(letter.message) + (f", line {line}" if line is not None else "")
                yield f"{place}: ", mark, f": {reason.reason}"
        if (more := self.count - len(self._first)) > 0:
            yield (f"… and {plural(more, 'more message')}",)
        if self.count:
            kinds = ", ".join(f"{code} ×{count:,}" for code, count in sorted(self._codes.items()))
            yield (f"{self._words}: {kinds}",)


def bounds(since: str | None, until: str | None) -> tuple[Bound | None, Bound | None]:
    """Return the ends of the range that `--from` and `--to` give.  Raise `click.UsageError`."""
    first, end = _bound(since, "--from"), _bound(until, "--to")
    if first is not None and end is not None and first.kind == end.kind and first.value >= end.value:
        raise click.UsageError(f"no message is from {since} to {until}: --to is the end of the range, exclusive")
    return first, end


def _bound(text: str | None, option: str) -> Bound | None:
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,20}", text):
        return Bound("offset", int(text))
    try:
        return Bound("timestamp", -(-parse_rfc3339(text) // 1000))
    except TimestampError as error:
        raise click.BadParameter(f"expected an offset or a time: {error}", param_hint=option) from error
