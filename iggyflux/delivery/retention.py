"""What a server keeps: points that are older are refused, or deleted soon after.

Pure.  No point is dropped by this: what a server stores of a shard group depends on its neighbours too, so only the
server refuses.  Points are counted, and the first one is reported, before the request that holds them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from iggyflux.errors import counted

MARGIN_SECONDS: Final = 60
"""A point is too old only if it is so by more: clocks drift after the server's clock was read."""
MOST_SECONDS: Final = 2**63 - 1
"""A larger number that a server gives does not count as one of seconds."""
_SPAN = re.compile("".join(rf"(?:([0-9]{{1,19}}){unit})?" for unit in "wdhms"))
_UNITS = (604_800, 86_400, 3_600, 60, 1)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a server keeps points: `seconds` is 0 without a limit, and None if it is unknown; `why` says why.

    `ahead_seconds` is how far the clock of the server is before ours, `retry_after_seconds` how long the server asks to
    wait instead of an answer.
    """

    seconds: int | None
    why: str = ""
    ahead_seconds: float = 0.0
    retry_after_seconds: float | None = None

    def oldest_ns(self, now: float) -> int | None:
        """Return the time before which points are too old at `now` (seconds since the epoch); None without a limit."""
        if not self.seconds:
            return None
        return int((now + self.ahead_seconds - self.seconds - MARGIN_SECONDS) * 1e9)

    def __str__(self) -> str:
        """Return the words: `for 7 days`, `without limit`, `unknown`."""
        if self.seconds is None:
            return "unknown"
        if not self.seconds:
            return "without limit"
        days, rest = divmod(self.seconds, 86_400)
        if not rest:
            return f"for {counted(days, 'day')}"
        return f"for {self.seconds / 3600:g} {'hour' if self.seconds == 3600 else 'hours'}"


def parse_span(text: str) -> int | None:
    """Return the seconds of a duration as 1.x writes it; None if it is none.

    >>> parse_span("168h0m0s"), parse_span("0s"), parse_span("inf")
    (604800, 0, None)
    """
    match = _SPAN.fullmatch(text)
    if match is None or not text:
        return None
    seconds = sum(int(number) * unit for number, unit in zip(match.groups(), _UNITS, strict=True) if number)
    return seconds if seconds <= MOST_SECONDS else None
