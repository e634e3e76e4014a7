"""What a run has done and does: counters for people and machines.

The routes count, everybody else reads: the live display, the status file and the summary at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from iggyflux.errors import Stopped
from iggyflux.records import JSON, Partition

State: TypeAlias = Literal["starting", "connecting", "running", "idle", "finishing", "done", "stopped"]
_COUNTERS = (
    "read",
    "points",
    "delivered",
    "skipped",
    "empty",
    "failed",
    "refused",
    "dead_letters",
    "dropped",
    "collisions",
    "acknowledged",
    "requests",
    "retries",
    "reconnects",
)


@dataclass(slots=True)
class RouteStatus:
    """One route.  All counters are since the start of the run, and count repeated work again."""

    name: str
    state: State = "starting"
    read: int = 0
    """Messages read."""
    points: int = 0
    """Lines made of them."""
    delivered: int = 0
    """Lines that the sink accepted."""
    skipped: int = 0
    """Messages that `where` left out."""
    empty: int = 0
    """Messages whose `for_each` had no element."""
    failed: int = 0
    """Records that could not be mapped."""
    refused: int = 0
    """Lines that the server refused."""
    dead_letters: int = 0
    """Messages kept as dead letters."""
    dropped: int = 0
    """Messages with failed records or refused lines that `on_error: skip` acknowledged all the same."""
    collisions: int = 0
    """Points that overwrote one of another message in the same request."""
    acknowledged: int = 0
    """Messages settled, durably."""
    requests: int = 0
    """Requests sent."""
    retries: int = 0
    """Requests that had to be sent again."""
    reconnects: int = 0
    """Times that the source had to be connected again."""
    in_flight: int = 0
    """Requests under way now."""
    waiting_for: str | None = None
    """Why the route waits, where it does."""
    lag: Mapping[Partition, int] = field(default_factory=dict)
    """Messages behind the end, by partition, where the source knows."""
    error: Stopped | None = None

    def counters(self) -> dict[str, int]:
        """Every counter by name."""
        return {name: getattr(self, name) for name in _COUNTERS}

    def as_dict(self) -> dict[str, JSON]:
        """The JSON form."""
        error = self.error
        return {
            "name": self.name,
            "state": self.state,
            **self.counters(),
            "in_flight": self.in_flight,
            "waiting_for": self.waiting_for,
            "lag": {str(partition): count for partition, count in self.lag.items()},
            "error": None if error is None else {"code": error.code, "reason": error.reason, "hint": error.hint},
        }


@dataclass(slots=True)
class Status:
    """A run: its routes, filled in when they are known."""

    routes: list[RouteStatus] = field(default_factory=list)
    seconds: float = 0.0
    """How long the run runs."""

    def as_dict(self) -> dict[str, JSON]:
        """The JSON form, as `--status-file` has it."""
        return {"seconds": round(self.seconds, 3), "routes": [route.as_dict() for route in self.routes]}


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to."""

    routes: tuple[RouteStatus, ...]
    seconds: float
    interrupted: bool = False
    """Whether it was told to stop and could not finish in time; what was in flight comes again."""

    @property
    def errors(self) -> tuple[Stopped, ...]:
        """Why routes stopped, where they did."""
        return tuple(route.error for route in self.routes if route.error is not None)

    @property
    def exit_code(self) -> int:
        """0 where every route ended well, else 3."""
        return 3 if self.errors or self.interrupted else 0

    def as_dict(self) -> dict[str, JSON]:
        """The JSON form."""
        status = Status(list(self.routes), self.seconds).as_dict()
        return {**status, "interrupted": self.interrupted, "exit_code": self.exit_code}
