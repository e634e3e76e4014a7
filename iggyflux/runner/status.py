"""What a run has done and does: counters for people and machines.

The routes write the status; the live display, the status file and the summary at the end read it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from iggyflux.codes import CODES
from iggyflux.delivery.windows import ReadPosition
from iggyflux.errors import Stopped
from iggyflux.records import JSON, Partition, Position
from iggyflux.runner.configuration import Configuration
from iggyflux.runner.events import emit
from iggyflux.runner.newest import Newest, Show
from iggyflux.runner.statistics import DeliveryStatistics
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.base import GroupState, Progress

log = logging.getLogger("iggyflux.runner")

_REPORT = "the reference plan renders these batches, more slowly; please report this"
State: TypeAlias = Literal["starting", "connecting", "running", "idle", "finishing", "done", "interrupted", "stopped"]
_CAUGHT_UP_NS = 120_000_000_000


@dataclass(slots=True)
class ReaderStatus:
    """The part of a status that only readers have; times are integer nanoseconds."""

    windows: int = 0
    """Windows read, sent and stored."""
    seen_again: int = 0
    """Rows that were read again and had been sent before."""
    late: int = 0
    """Rows that arrived after their time had been read."""
    changed: int = 0
    """Rows with another value than the one sent; counted only with `mark`."""
    position: ReadPosition | None = None
    """How far the reader is."""
    live_to: int | None = None
    """The end of what the tail may read, by the server's clock."""
    share: float | None = None
    """How much of the backlog at the start of the run is read, 0 to 1; None when there is no backlog."""
    seconds_left: float | None = None
    """The time for the rest, at the rate of this run so far."""
    _began: tuple[float, int] | None = None

    @property
    def behind_ns(self) -> int | None:
        """The span of time that is not read: after the tail, and in the gap."""
        if self.position is None or self.live_to is None:
            return None
        gap = self.position.gap
        return max(self.live_to - self.position.done, 0) + (0 if gap is None else gap[1] - gap[0])

    def measure(self, seconds: float) -> None:
        """Update share and time left; `seconds` is the time of the clock."""
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
        """Return the JSON form."""
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
class InputStatus:
    """The part of a status that a route has whose input has an end: how much of it is read, in bytes."""

    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    """The time for the rest, at the rate of this run so far; None if it is not known."""
    _began: tuple[float, int] | None = None

    def measure(self, progress: Progress, seconds: float) -> None:
        """Update it; `seconds` is the time of the clock."""
        self.done, self.total = progress.done, progress.total
        if not self.total:  # what was read before this run is not known yet
            return
        self._began = self._began or (seconds, self.done)
        since, before = self._began
        if self.done > before and seconds > since:
            self.seconds_left = (seconds - since) * max(self.total - self.done, 0) / (self.done - before)

    @property
    def share(self) -> float:
        """How much is read, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 1.0

    def as_dict(self) -> dict[str, JSON]:
        """Return the JSON form."""
        left = self.seconds_left
        return {
            "bytes": self.done,
            "bytes_total": self.total,
            "seconds_left": None if left is None else round(left, 1),
        }


@dataclass(frozen=True, slots=True)
class About:
    """What a route is, for labels."""

    kind: Literal["writer", "reader"] = "writer"
    mapping: str = ""
    plan: str = ""
    """The identity of the plan; empty until the route is connected."""
    source: str | None = None
    """The address of the server that is read, without a login; None for files."""
    sink: str | None = None
    """The address of the server that is written to."""

    def as_dict(self) -> dict[str, JSON]:
        """Return the JSON form."""
        return dataclasses.asdict(self)


@dataclass(slots=True)
class RouteStatus(DeliveryStatistics):
    """One route: its statistics, and what it does now."""

    name: str
    about: About = About()
    state: State = "starting"
    in_flight: int = 0
    """Requests under way now."""
    waiting_for: str | None = None
    """What the route waits for; it may hold words of a server."""
    waiting_briefly: str | None = None
    """The same in our own words alone, for what is shown to others; set by `wait_for`."""
    is_away: bool = False
    """Whether the sink's server failed, and has not answered since."""
    retry_at: float | None = None
    """When the session tries again, by the clock of the run."""
    backoff_seconds: float | None = None
    """How long the route waits until it tries again; None if it does not wait for that."""
    lag: Mapping[Partition, int] = field(default_factory=dict)
    """Messages behind the end, by partition, if the source knows."""
    offsets: dict[Partition, int] = field(default_factory=dict)
    """The offset that was acknowledged last, by partition; of a file, the position in bytes."""
    groups: Sequence[GroupState] = ()
    """The consumer groups that the source is a member of, one for each topic."""
    is_changing: bool = False
    """Whether a changed mapping waits until what is in flight is settled."""
    error: Stopped | None = None
    series: int | None = None
    """The known series of a writer with `limits.series`."""
    series_limit: int | None = None
    """The most series of such a writer."""
    buckets: Mapping[str, JSON] = field(default_factory=dict)
    """What is known of each bucket, of a writer whose points choose theirs."""
    retention_seconds: int | None = None
    """How long the sink's server keeps points: 0 without a limit, None if it is not known."""
    reader: ReaderStatus | None = None
    """The progress of a reader."""
    input: InputStatus | None = None
    """How much of an input with an end is read."""
    newest: tuple[Newest, ...] = ()
    """The newest dead letters, the last one at the end."""

    def wait_for(self, text: str | None, *, briefly: str | None = None) -> None:
        """Show what the route waits for: `text`, and without words of a server `briefly`."""
        self.waiting_for, self.waiting_briefly = text, briefly

    def show_plan(self, identity: str) -> None:
        """Show the plan that renders now."""
        self.about = dataclasses.replace(self.about, plan=identity)

    def show_backoff(self, now: float, sink_until: float | None = None) -> None:
        """Update the time until the next attempt: of the session, or of the sink's server, until `sink_until`."""
        until = [each for each in (self.retry_at, sink_until) if each is not None]
        self.backoff_seconds = max(max(until) - now, 0.0) if until else None

    def acknowledge(self, positions: Sequence[Position], messages: int, arrivals: Sequence[float], now: float) -> None:
        """Count `messages` that were acknowledged up to `positions`.

        `arrivals` are the times at which the first messages of the batches arrived, in microseconds since the epoch; 0
        is none.  `now` is the time in seconds since the epoch.
        """
        self.acknowledged += messages
        for position in positions:
            self.offsets[position.partition] = position.offset
        for arrival in arrivals:
            if arrival:
                self.age_seconds.observe(max(now - arrival / 1e6, 0.0))

    def count_fallback(self, mapping: str, fault: str | None) -> None:
        """Count a batch that generated code could not render (`fault` is not None); log the first one."""
        if fault is None:
            return
        if not self.fallbacks:
            emit(log, logging.ERROR, "plan.fallback", route=self.name, mapping=mapping, fault=fault, hint=_REPORT)
        self.fallbacks += 1

    def as_dict(self, show: Show = "words") -> dict[str, JSON]:
        """Return the JSON form; `show` says what of dead letters."""
        error, series = self.error, self.series
        backoff = self.backoff_seconds
        return {
            "name": self.name,
            "about": self.about.as_dict(),
            "state": self.state,
            **self.counters(),
            **self.details(),
            "in_flight": self.in_flight,
            "waiting_for": self.waiting_for,
            "is_away": self.is_away,
            "is_changing": self.is_changing,
            "backoff_seconds": None if backoff is None else round(backoff, 3),
            "lag": {str(partition): count for partition, count in self.lag.items()},
            "offsets": {str(partition): offset for partition, offset in self.offsets.copy().items()},
            "groups": [_group(each) for each in self.groups],
            **({} if series is None else {"series": series, "series_limit": self.series_limit}),
            "retention_seconds": self.retention_seconds,
            **({"buckets": dict(self.buckets)} if self.buckets else {}),
            **({} if self.reader is None else {"reader": self.reader.as_dict()}),
            **({} if self.input is None else {"input": self.input.as_dict()}),
            "newest_dead_letters": [each.as_dict(show) for each in self.newest],
            "error": None if error is None else {"code": error.code, "reason": error.reason, "hint": error.hint},
        }

    def as_public(self, show: Show = "codes") -> dict[str, JSON]:
        """Return the JSON form for others than who reads the log: without words that may quote a message or a server.

        An error is its code with what the table of codes says of it.  `show` says what of dead letters.
        """
        entry = None if self.error is None else CODES.get(self.error.code)
        waits = None if self.waiting_for is None else self.waiting_briefly or "see the log, or --status-file"
        error: JSON = None if self.error is None else {"code": self.error.code, "reason": "", "hint": None}
        if entry is not None:
            error = {"code": entry.code, "reason": entry.title, "hint": entry.fix}
        return {**self.as_dict(show), "waiting_for": waits, "error": error}


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


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One process of a run that has several; `routes` are the states of what it runs."""

    worker: int
    state: Literal["running", "waiting", "ended"]
    pid: int | None
    restarts: int
    exit_code: int | None
    """That of its last process that has ended; -N is signal N."""
    resident_bytes: int
    cpu_seconds: float
    """Of all its processes."""
    routes: Mapping[str, State]
    read: int = 0
    """The messages and rows that all its processes have read."""
    partitions: Sequence[str] = ()
    """Those that it has acknowledged messages of, or is given by a group, now."""

    def as_dict(self) -> dict[str, JSON]:
        """Return the JSON form."""
        return {
            **dataclasses.asdict(self),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "partitions": list(self.partitions),
        }


@dataclass(slots=True)
class Status:
    """The status of a run; the routes are filled in at the start."""

    routes: list[RouteStatus] = field(default_factory=list)
    seconds: float = 0.0
    """The time since the start of the run."""
    started_unix: float = 0.0
    """When the run began, in seconds since the epoch."""
    configuration: Configuration = field(default_factory=Configuration)
    workers: Sequence[WorkerStatus] = ()
    """The processes of a run that has several."""

    def as_dict(self) -> dict[str, JSON]:
        """Return the JSON form, as in `--status-file`."""
        return {**self._of_run(), "routes": [route.as_dict() for route in self.routes]}

    def as_public(self, show: Show = "codes") -> dict[str, JSON]:
        """Return the JSON form for others than who reads the log; `show` says what of dead letters and refused changes.

        `titles` says what the codes among the reasons mean.
        """
        routes: list[JSON] = [route.as_public(show) for route in self.routes]
        found = {code for route in self.routes for by_code in list(route.reasons.values()) for code in by_code.copy()}
        titles: dict[str, JSON] = {code: CODES[code].title for code in sorted(found) if code in CODES}
        return {**self._of_run(show), "titles": titles, "routes": routes}

    def _of_run(self, public: Show | None = None) -> dict[str, JSON]:
        is_changing = any(route.is_changing for route in self.routes)
        return {
            "started_unix": round(self.started_unix, 3),
            "seconds": round(self.seconds, 3),
            "configuration": self.configuration.as_dict(is_changing=is_changing, public=public),
            **({"workers": [each.as_dict() for each in self.workers]} if self.workers else {}),
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a run."""

    routes: tuple[RouteStatus, ...]
    seconds: float
    interrupted: bool = False
    """Whether a stop was requested before the end of an `until_end` run, or messages in flight were not finished."""

    @property
    def errors(self) -> tuple[Stopped, ...]:
        """The errors of the routes that stopped."""
        return tuple(route.error for route in self.routes if route.error is not None)

    @property
    def exit_code(self) -> int:
        """0 if every route ended well, else 3."""
        return 3 if self.errors or self.interrupted else 0

    def as_dict(self) -> dict[str, JSON]:
        """Return the JSON form."""
        status = Status(list(self.routes), self.seconds).as_dict()
        return {**status, "interrupted": self.interrupted, "exit_code": self.exit_code}
