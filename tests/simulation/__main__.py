"""Run worlds: one seed with its timeline, or many seeds in several processes."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter

from tests.simulation.planted import PLANTED, plant
from tests.simulation.scenario import SIZES, Size, draw


def main() -> int:
    """Run what the command line asks for; return 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="usual", help="time, messages and faults of each world")
    parser.add_argument("--seed", type=int, help="run this seed, and print its timeline")
    parser.add_argument("--shrink", action="store_true", help="first drop the faults that it fails without")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--minutes", type=float, help="run random seeds for so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--plant", choices=[each.name for each in PLANTED], help="plant a fault; stop when it is found")
    given = parser.parse_args()
    size = SIZES[given.size]
    if given.plant:
        plant(given.plant)
        return _find_planted(given.plant, given.first, given.seeds, size)
    if given.seed is not None:
        return _tell(given.seed, size, shrinks=given.shrink)
    first = given.first if given.minutes is None else random.SystemRandom().randrange(10**9)
    return _run_many(range(first, first + (given.seeds if given.minutes is None else 10**7)), size, given)


def _tell(seed: int, size: Size, *, shrinks: bool) -> int:
    from tests.simulation.worlds import run, shrunk

    scenario = draw(seed, size)
    result = run(shrunk(scenario) if shrinks else scenario, is_told=True)
    print(result.scenario, *result.scenario.events, "", *result.timeline, "", *result.wrong, sep="\n")
    print(dict(result.counts))
    return bool(result.wrong)


def _find_planted(name: str, first: int, seeds: int, size: Size) -> int:
    from tests.simulation.worlds import run_seed  # after the fault is planted

    for seed in range(first, first + seeds):
        if wrong := run_seed(seed, size).wrong:
            print(f"found after {seed - first + 1} seeds: {name}: {wrong[0][:200]}")
            return 1
    print(f"not found in {seeds} seeds: {name}")
    return 0


def _run_many(seeds: range, size: Size, given: argparse.Namespace) -> int:
    from tests.simulation.worlds import outcomes

    end = float("inf") if given.minutes is None else time.monotonic() + 60 * given.minutes
    total: Counter[str] = Counter()
    failed: list[int] = []
    seconds, cpu_seconds, count = 0.0, 0.0, 0
    for outcome in outcomes(seeds, size, jobs=given.jobs, goes_on=lambda: time.monotonic() < end):
        count += 1
        total.update(outcome.counts)
        seconds += outcome.seconds
        cpu_seconds += outcome.cpu_seconds
        if outcome.wrong:
            failed.append(outcome.seed)
            print(f"seed {outcome.seed}: {outcome.wrong[0][:300]}", flush=True)
    hours = seconds / 3600
    print(*(f"{number:>12,} {what}" for what, number in sorted(total.items(), key=lambda item: -item[1])), sep="\n")
    print(
        f"{count} seeds, {len(failed)} failed; {hours:,.1f} simulated hours in {cpu_seconds:,.0f} s of CPU:"
        f" {hours / cpu_seconds * 3600:,.0f} hours in one"
    )
    if failed:
        print(f"make simulate SEED={failed[0]} SIZE={given.size} prints the timeline of the first that failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
