"""How long to wait before attempt N: the one formula, for whoever retries."""

from __future__ import annotations


def backoff_seconds(attempt: int, jitter: float, *, first: float, cap: float) -> float:
    """Seconds to wait after attempt number `attempt` (from 1): exponential, capped, with full jitter.

    Full jitter (`jitter` drawn evenly from [0, 1)) spreads the clients of a server that comes back.

    >>> [backoff_seconds(attempt, 1.0, first=1.0, cap=30.0) for attempt in (1, 2, 3, 6, 2000)]
    [1.0, 2.0, 4.0, 30.0, 30.0]
    >>> backoff_seconds(3, 0.25, first=1.0, cap=30.0)
    1.0
    """
    doublings = min(max(attempt - 1, 0), 60)
    return jitter * min(cap, first * 2.0**doublings)
