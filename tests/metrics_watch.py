"""Watches the metrics of a run: what Prometheus calls a counter never goes down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from iggyflux.runner import Status
from iggyflux.telemetry.metrics import METRICS, Tree

Key = tuple[str, ...]


def numbers(tree: Tree) -> Iterator[tuple[Key, float]]:
    """Yield every number that must never go down, by the name of its metric and its labels."""
    for metric in METRICS:
        for labels, value in metric.samples(tree):
            if metric.type == "counter":
                assert isinstance(value, int | float)
                yield (metric.name, *labels), value
            elif metric.type == "histogram":
                assert not isinstance(value, int | float)
                yield (metric.name, *labels, "sum"), value["sum"]
                yield from (((metric.name, *labels, str(at)), count) for at, count in enumerate(value["counts"]))


def tree_of(status: Status) -> Tree:
    """Return the status as the server of a run sees it."""
    return {"version": "v", "python": "p", "time_unix": 0.0, **status.as_public()}


@dataclass
class Watch:
    """The highest numbers so far, and those that went down or away."""

    highest: dict[Key, float] = field(default_factory=dict)
    wrong: list[tuple[Key, float, float | None]] = field(default_factory=list)
    looks: int = 0

    def look(self, status: Status) -> None:
        """Compare the metrics with those of the last look."""
        found = dict(numbers(tree_of(status)))
        self.wrong += [(key, last, found.get(key)) for key, last in self.highest.items() if found.get(key, -1.0) < last]
        self.highest |= found
        self.looks += 1
