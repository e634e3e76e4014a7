"""What a route counts.

Each counter is kept only here: routes and deliveries increment it, status and logs read it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class DeliveryStatistics:
    """The counters of one route since the start of the run.  Repeated work is counted each time.

    A reader counts rows instead of messages, and messages instead of lines.
    """

    read: int = 0
    """Messages read."""
    points: int = 0
    """Lines made of them."""
    delivered: int = 0
    """Lines that the sink accepted."""
    skipped: int = 0
    """Messages that `where` omitted."""
    empty: int = 0
    """Messages whose `for_each` had no element."""
    omitted: int = 0
    """Values that `on_bad_value: omit` left out of their points."""
    failed: int = 0
    """Records that could not be mapped."""
    refused: int = 0
    """Lines that the server refused."""
    dead_letters: int = 0
    """Messages kept as dead letters."""
    dropped: int = 0
    """Messages with failed records or refused lines that `on_error: skip` acknowledged."""
    collisions: int = 0
    """Points that overwrote one of another message in the same request."""
    implausible: int = 0
    """Lines whose time is before 1990 or after 2099: the declared format may be wrong."""
    fallbacks: int = 0
    """Batches that the reference plan rendered because generated code failed: a bug that costs time but no data."""
    acknowledged: int = 0
    """Messages settled, durably."""
    requests: int = 0
    """Requests sent."""
    retries: int = 0
    """Requests that had to be sent again."""
    reconnects: int = 0
    """Failed attempts to connect, and connections that were lost."""

    def counters(self) -> dict[str, int]:
        """Return every counter by name."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(DeliveryStatistics)}
