"""The one formula for the wait before a retry."""

from __future__ import annotations

MAX_RETRY_AFTER_SECONDS = 600.0
"""The longest wait that a server can ask for with `Retry-After`."""


def backoff_seconds(attempt: int, jitter: float, *, first: float, cap: float) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 1): exponential, capped, with full jitter.

    `jitter` is drawn evenly from [0, 1).  Full jitter spreads the clients of a server that has restarted.

    >>> [backoff_seconds(attempt, 1.0, first=1.0, cap=30.0) for attempt in (1, 2, 3, 6, 2000)]
    [1.0, 2.0, 4.0, 30.0, 30.0]
    >>> backoff_seconds(3, 0.25, first=1.0, cap=30.0)
    1.0
    """
    doublings = min(max(attempt - 1, 0), 60)
    return jitter * min(cap, first * 2.0**doublings)
