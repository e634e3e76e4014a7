"""What a run has done and does: counters for people and machines.

The routes count, everybody else reads: the live display, the status file and the summary at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from iggyflux.delivery.windows import ReadPosition
from iggyflux.errors import Stopped
from iggyflux.records import JSON, Partition
from iggyflux.runner.events import emit
from iggyflux.runner.statistics import DeliveryStatistics
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.base import GroupState

log = logging.getLogger("iggyflux.runner")

_REPORT = "the reference plan renders these batches, more slowly; please report this"
State: TypeAlias = Literal["starting", "connecting", "running", "idle", "finishing", "done", "stopped"]
_CAUGHT_UP_NS = 120_000_000_000


@dataclass(slots=True)
class ReaderStatus:
    """What a reader knows beside what every route counts; times are integer nanoseconds."""

    windows: int = 0
    """Windows read, sent and stored."""
    seen_again: int = 0
    """Rows that were read again, and had been sent."""
    late: int = 0
    """Rows that came after their time had been read."""
    changed: int = 0
    """Rows with another value than was sent; told only where marks are asked for."""
    position: ReadPosition | None = None
    """How far it is."""
    live_to: int | None = None
    """Up to where the tail may read, by the server's clock."""
    share: float | None = None
    """How much of what was there at the start of the run is read, 0 to 1; None where it is caught up."""
    seconds_left: float | None = None
    """How long the rest will take, at the rate of this run so far."""
    _began: tuple[float, int] | None = None

    @property
    def behind_ns(self) -> int | None:
        """How much time is not read: what the tail lacks, and the gap."""
        if self.position is None or self.live_to is None:
            return None
        gap = self.position.gap
        return max(self.live_to - self.position.done, 0) + (0 if gap is None else gap[1] - gap[0])

    def measure(self, seconds: float) -> None:
        """Work out share and time left; `seconds` is the clock's."""
        behind = self.behind_ns
        if behind is None:
            return
        if self._began is None:
            self._began = (seconds, behind)
        since, total = self._began
        self.share = self.seconds_left = None
        if behind > _CAUGHT_UP_NS and total:
            self.share = max(1 - behind / total, 0.0)
            if self.share > 0 and seconds > since:
                self.seconds_left = (seconds - since) * (1 - self.share) / self.share

    def as_dict(self) -> dict[str, JSON]:
        """The JSON form."""
        position, behind = self.position, self.behind_ns
        return {
            "windows": self.windows,
            "seen_again": self.seen_again,
            "late": self.late,
            "changed": self.changed,
            "done": None if position is None else format_rfc3339(position.done),
            "final": None if position is None else format_rfc3339(position.checked),
            "backfill": None if position is None or position.gap is None else [*map(format_rfc3339, position.gap)],
            "behind_seconds": None if behind is None else round(behind / 1e9, 3),
            "share": None if self.share is None else round(self.share, 4),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
        }


@dataclass(slots=True)
class RouteStatus(DeliveryStatistics):
    """One route: its statistics, and what it does now."""

    name: str
    state: State = "starting"
    in_flight: int = 0
    """Requests under way now."""
    waiting_for: str | None = None
    """Why the route waits, where it does."""
    lag: Mapping[Partition, int] = field(default_factory=dict)
    """Messages behind the end, by partition, where the source knows."""
    groups: Sequence[GroupState] = ()
    """The consumer groups that the source is a member of, one for each topic."""
    error: Stopped | None = None
    reader: ReaderStatus | None = None
    """Of a reader, how far it is."""

    def count_fallback(self, mapping: str, fault: str | None) -> None:
        """Count a batch that generated code could not render, where `fault` is not None, and log the first."""
        if fault is None:
            return
        if not self.fallbacks:
            emit(log, logging.ERROR, "plan.fallback", route=self.name, mapping=mapping, fault=fault, hint=_REPORT)
        self.fallbacks += 1

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
            "groups": [_group(each) for each in self.groups],
            **({} if self.reader is None else {"reader": self.reader.as_dict()}),
            "error": None if error is None else {"code": error.code, "reason": error.reason, "hint": error.hint},
        }


def _group(state: GroupState) -> dict[str, JSON]:
    starving: list[JSON] = [
        {
            "partition": each.partition.partition,
            "held_by": each.holder,
            "waiting": each.waiting,
            "seconds": round(each.seconds, 1),
        }
        for each in state.starving
    ]
    return {
        "group": state.group,
        "topic": f"{state.stream}/{state.topic}",
        "member": state.member,
        "partitions": list(state.partitions),
        "starving": starving,
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
