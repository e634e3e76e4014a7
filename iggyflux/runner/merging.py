"""The status of routes that several workers run: one status, made of those that the workers report.

Pure.  Counters and histograms are sums, also over the processes of a worker that have ended: they never fall.  What is
known by partition is that of the worker that has the partition.  Of states the one is shown that needs to be seen most,
of errors and waits the first one, with its worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, cast

from iggyflux.errors import Stopped
from iggyflux.records import JSON, Partition
from iggyflux.runner.configuration import Configuration
from iggyflux.runner.newest import MOST
from iggyflux.runner.statistics import HISTOGRAMS, DeliveryStatistics
from iggyflux.runner.status import InputStatus, RouteStatus, State, Status, Summary
from iggyflux.runner.supervisor import WorkerProcess
from iggyflux.transports.base import GroupState

_STATES: Final[tuple[State, ...]] = (
    "stopped",
    "interrupted",
    "connecting",
    "starting",
    "finishing",
    "running",
    "idle",
    "done",
)
"""The first one that a worker is in is that of the route."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker does of a route: `now` by its process, `past` by those before it."""

    worker: int
    now: RouteStatus
    past: RouteStatus | None = None


def after_end(part: Part, *, again: bool, failed: bool) -> Part:
    """Return the part of a worker whose process has ended: it is started `again`, or has `failed`."""
    now = part.now
    if again:
        read = None if now.input is None else InputStatus(now.input.done, now.input.total)
        return Part(part.worker, RouteStatus(now.name, now.about, input=read), past_of(now, part.past))
    if failed:
        return replace(part, now=replace(now, state="interrupted"))
    return replace(part, now=replace(now, state="done")) if now.state == "starting" else part


def summary_of_workers(status: Status, seconds: float, workers: Iterable[WorkerProcess]) -> Summary:
    """Return the summary of workers that have ended; a worker that ends with 3 and no error was interrupted."""
    summary = Summary(tuple(status.routes), seconds)
    unfinished = any(each.failed or (each.code == 3 and not summary.errors) for each in workers)
    return replace(summary, interrupted=unfinished or any(each.state == "interrupted" for each in status.routes))


def merged_route(parts: Sequence[Part]) -> RouteStatus:
    """Return the status of a route; there is at least one part."""
    now = [part.now for part in parts]
    lives = [*(part.past for part in parts if part.past is not None), *now]  # in this order: what is new counts
    made = RouteStatus(now[0].name)
    _add_up(made, lives)
    made.about = next((each.about for each in (*now, *lives) if each.about.plan), now[0].about)
    made.state = min((each.state for each in now), key=_STATES.index)
    made.in_flight = sum(each.in_flight for each in now)
    made.waiting_for = _first(parts, "waiting_for")
    made.waiting_briefly = _first(parts, "waiting_briefly") if made.waiting_for else None
    made.is_away = any(each.is_away for each in now)
    made.backoff_seconds = max((each.backoff_seconds for each in now if each.backoff_seconds is not None), default=None)
    made.lag, made.offsets = _by_partition(lives, "lag"), _by_partition(lives, "offsets")
    made.groups = _groups(now)
    made.is_changing = any(each.is_changing for each in now)
    made.error = next((_error(part) for part in parts if part.now.error is not None), None)
    made.buckets = _buckets(lives)
    for name in ("series", "series_limit", "retention_seconds", "reader"):
        setattr(made, name, next((found for each in now if (found := getattr(each, name)) is not None), None))
    made.input = merged_input([each.input for each in now if each.input is not None])
    newest = (letter for life in lives for letter in life.newest)
    made.newest = tuple(sorted(newest, key=attrgetter("unix"))[-MOST:])
    return made


def merged_input(found: Sequence[InputStatus]) -> InputStatus | None:
    """Return how much of their inputs several workers have read; the last one decides when all is read."""
    if not found:
        return None
    left = [each.seconds_left for each in found if each.done < each.total or each.seconds_left is not None]
    known = [each for each in left if each is not None]
    last = max(known) if known and len(known) == len(left) else None
    return InputStatus(sum(each.done for each in found), sum(each.total for each in found), last)


def past_of(now: RouteStatus, before: RouteStatus | None) -> RouteStatus:
    """Return what stays of the process of a worker that has ended, and of those `before` it."""
    made = merged_route([Part(0, now, before)])
    kept = RouteStatus(now.name, made.about, lag=made.lag, offsets=made.offsets, newest=made.newest)
    kept.buckets = {
        name: {**each, "waiting": 0, "is_away": False, "failure": None} for name, each in _trees(made.buckets)
    }
    _add_up(kept, [made])
    return kept


def merged_configuration(found: Sequence[Configuration]) -> Configuration:
    """Return whether the run uses the documents on disk; a change that several workers took, or refused, is one."""
    refused = [each for each in found if each.refused is not None]
    shown = max(refused or found, key=attrgetter("since_unix"), default=Configuration())
    most = {key: max((each.changes[key] for each in found), default=0) for key in Configuration().changes}
    return replace(shown, is_checking=any(each.is_checking for each in found), changes=most)


def _add_up(made: DeliveryStatistics, lives: Iterable[DeliveryStatistics]) -> None:
    for life in lives:
        for name, number in life.counters().items():
            setattr(made, name, getattr(made, name) + number)
        for counter, by_reason in life.reasons.items():
            for reason, number in by_reason.items():
                made.reasons[counter][reason] = made.reasons[counter].get(reason, 0) + number
        for name in HISTOGRAMS:
            total, each = getattr(made, name), getattr(life, name)
            total.counts = [a + b for a, b in zip(total.counts, each.counts, strict=True)]
            total.sum += each.sum


def _first(parts: Sequence[Part], name: str) -> str | None:
    found = ((part.worker, getattr(part.now, name)) for part in parts)
    return next((f"worker {worker}: {text}" for worker, text in found if text), None)


def _error(part: Part) -> Stopped | None:
    error = part.now.error
    return None if error is None else Stopped(f"worker {part.worker}: {error.reason}", error.hint, error.code)


def _by_partition(lives: Sequence[RouteStatus], name: str) -> dict[Partition, int]:
    """Return a number of each partition as the worker that has it knows it, else as the last one does.

    A member of a group sees the lag of other members' partitions, and remembers offsets of those that it had.
    """
    found: dict[Partition, int] = {}
    for life in lives:
        found |= getattr(life, name)
    for life in lives:
        known: Mapping[Partition, int] = getattr(life, name)
        for group in life.groups:
            places = (Partition(group.stream, group.topic, number) for number in group.partitions)
            found |= {place: known[place] for place in places if place in known}
    return found


def _groups(now: Sequence[RouteStatus]) -> tuple[GroupState, ...]:
    """Return one state for each group and topic: the partitions of all workers, and those that starve."""
    found: dict[tuple[str, str, str], GroupState] = {}
    for group in (group for each in now for group in each.groups):
        key = group.group, group.stream, group.topic
        before = found.get(key, replace(group, partitions=(), starving=()))
        starving = {each.partition: each for each in (*before.starving, *group.starving)}
        partitions = tuple(sorted({*before.partitions, *group.partitions}))
        found[key] = replace(before, partitions=partitions, starving=tuple(starving.values()))
    return tuple(found.values())


def _buckets(lives: Iterable[RouteStatus]) -> dict[str, JSON]:
    made: dict[str, dict[str, Any]] = {}
    for life in lives:
        for name, each in _trees(life.buckets):
            before = made.get(name, {})
            sums = {key: before.get(key, 0) + each[key] for key in _SUMS}
            known = {key: value for key, value in each.items() if value is not None}
            is_away = each["is_away"] or before.get("is_away", False)
            failure = (each["failure"] or before.get("failure")) if is_away else None
            made[name] = {**each, **before, **known, **sums, "is_away": is_away, "failure": failure}
    return dict(made)


_SUMS: Final = ("delivered", "refused", "waiting")


def _trees(buckets: Mapping[str, JSON]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from cast("Mapping[str, dict[str, Any]]", buckets).items()
