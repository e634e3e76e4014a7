"""How benchmarks measure and what they print: best of several rounds, pairs interleaved so that noise affects both."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One row: `value` in `unit`, and the `ratio` to what `against` names; `goal` is the required ratio."""

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    goal: str = ""
    reached: bool | None = None


def best_seconds(
    runs: Sequence[Callable[[], object]], rounds: int = 7, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the best time of each run, taken in turns; with `time.process_time` the CPU time."""
    best = [float("inf")] * len(runs)
    for _ in range(rounds):
        for number, run in enumerate(runs):
            start = clock()
            run()
            best[number] = min(best[number], clock() - start)
    return best


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print a table on stderr, and each row as a JSON line on stdout."""
    width = max(len(figure.name) for figure in figures)
    print(f"\n{title}", file=sys.stderr)
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:8.2f} × {figure.against}"
        mark = {True: "reached", False: "MISSED", None: ""}[figure.reached]
        print(
            f"  {figure.name:<{width}}  {figure.value:10.3f} {figure.unit:<8} {ratio:<44} {figure.goal} {mark}",
            file=sys.stderr,
        )
    print(json.dumps({"benchmark": title, "figures": [asdict(figure) for figure in figures]}), flush=True)
