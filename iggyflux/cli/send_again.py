"""What `replay`, `resend` and `audit` share: routes that send again, and failures that are reported and not kept."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from iggyflux.cli.output import Line, Styled, plural
from iggyflux.cli.progress import show_progress
from iggyflux.records import DeadLetter, Message, Reason, is_part_of_file, place_in_file
from iggyflux.runner import Status, Stop, Summary, run_routes, stopping_on_signals
from iggyflux.runner.route import Route
from iggyflux.timestamps import TimestampError, parse_rfc3339
from iggyflux.transports.ranges import Bound

MOST_SHOWN: Final = 20
_PLACES: Final = re.compile(r"\b(byte|column|line) [0-9]+")
"""What differs between failures of one kind: where in its payload each was found."""


async def send_again(routes: Sequence[Route]) -> Summary:
    """Run the routes to the end of their sources, or until a signal stops them; show the progress."""
    stop, status = Stop(), Status()
    # A run of the route has the state of its limit, and what is sent again settles no offset.
    routes = [replace(route, series=None, ledger=None, until_end=True) for route in routes]
    # A failed record is in the report at the end.
    with show_progress(status, without="record.failed"), stopping_on_signals(stop, for_good=True):
        return await run_routes(routes, stop=stop, status=status)


def message_name(message: Message) -> str:
    """Return how reports call a message: by its file, as seen from here, and its line, if it is of an archive."""
    if (place := place_in_file(message)) is not None:
        return place.removeprefix(f"{Path.cwd()}{os.sep}")
    return f"{message.stream}/{message.topic}/{message.partition}@{message.offset}"


@dataclass(slots=True)
class _Kind:
    """Failures for one reason: where the first one is, its words, and how many there are."""

    place: str
    reason: str
    count: int = 1


def by_code(counts: Mapping[str, int]) -> str:
    """Return how many failures each code has, in words."""
    return ", ".join(f"{code} ×{count:,}" for code, count in sorted(counts.items()))


class ReportedFailures:
    """A `DeadLetterSink` that counts failures for the report, equal ones together; the messages are kept elsewhere."""

    def __init__(self, words: str = "failed again") -> None:
        self.count = 0
        self._words = words
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._others = 0
        """How many reasons are not among the kinds."""
        self._codes: Counter[str] = Counter()

    async def connect(self) -> None:
        """Do nothing: nothing is opened."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Count the letters."""
        self.count += len(letters)
        for letter in letters:
            for reason in letter.reasons:
                self._count(letter, reason)

    def _count(self, letter: DeadLetter, reason: Reason) -> None:
        self._codes[reason.code] += 1
        key = reason.code, _PLACES.sub(r"\1", reason.reason)
        kind = self._kinds.get(key)
        if kind is not None:
            kind.count += 1
        elif len(self._kinds) < MOST_SHOWN:
            line = None if is_part_of_file(letter.message) else reason.payload_line
            place = message_name(letter.message) + (f", line {line}" if line is not None else "")
            self._kinds[key] = _Kind(place, reason.reason)
        else:
            self._others += 1

    async def close(self) -> None:
        """Do nothing: nothing was opened."""

    def lines(self) -> Iterator[Line]:
        """Yield the failures and their number by code, as text."""
        for (code, _), kind in self._kinds.items():
            more = f"; and {plural(kind.count - 1, 'more failure')} for this reason" if kind.count > 1 else ""
            yield f"{kind.place}: ", Styled(f"error[{code}]", "red", bold=True), f": {kind.reason}{more}"
        if self._others:
            yield (f"… and {plural(self._others, 'more failure')} for other reasons",)
        if self.count:
            yield (f"{self._words}: {by_code(self._codes)}",)


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
