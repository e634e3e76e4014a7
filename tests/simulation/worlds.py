"""Run worlds: one seed, many of them, and what is left of a schedule of faults that finds something."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.scenario import Scenario, Size, draw
from tests.simulation.world import Result, World

_CHUNK = 10
_CHUNKS_A_PROCESS = 10  # what never finished in a world is kept until the end of the process


def run(scenario: Scenario, *, is_told: bool = False) -> Result:
    """Run a world; with `is_told` the result has its timeline."""
    folder = Path(tempfile.mkdtemp(prefix="iggyflux-world-"))
    try:
        return World(scenario, folder, is_told=is_told).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_seed(seed: int, size: Size) -> Result:
    """Run the world of a seed."""
    return run(draw(seed, size))


def shrunk(scenario: Scenario) -> Scenario:
    """Return a failing scenario without the faults that it fails without."""
    events = list(scenario.events)
    width = len(events)
    while width:
        start = 0
        while start < len(events):
            fewer = [*events[:start], *events[start + width :]]
            if len(fewer) < len(events) and run(dataclasses.replace(scenario, events=tuple(fewer))).wrong:
                events = fewer
            else:
                start += width
        width //= 2
    return dataclasses.replace(scenario, events=tuple(events))


@dataclass(frozen=True)
class Outcome:
    """What is left of a world in another process."""

    seed: int
    wrong: tuple[str, ...]
    seconds: float
    cpu_seconds: float
    counts: dict[str, int]


def outcomes(seeds: Sequence[int], size: Size, *, jobs: int, goes_on: Callable[[], bool]) -> Iterator[Outcome]:
    """Yield the outcomes of seeds as they come, from several processes, as long as `goes_on`."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    with ProcessPoolExecutor(jobs, max_tasks_per_child=_CHUNKS_A_PROCESS) as pool:
        pending, rest = set(), iter(chunks)
        for chunk in rest:
            pending.add(pool.submit(_outcomes, chunk, size))
            if len(pending) > 2 * jobs:
                done = next(as_completed(pending))
                pending.discard(done)
                yield from done.result()
                if not goes_on():
                    break
        for done in as_completed(pending):
            yield from done.result()


def _outcomes(seeds: Sequence[int], size: Size) -> list[Outcome]:
    found = []
    for seed in seeds:
        began = sum(os.times()[:2])
        result = run_seed(seed, size)
        cpu_seconds = sum(os.times()[:2]) - began
        found.append(Outcome(seed, tuple(result.wrong), result.seconds, cpu_seconds, dict(result.counts)))
    return found
