"""The number of requests in flight that a run finds by itself, beside fixed numbers, on a real server.

A log is written once to warm up, and then with each number in turn, for some rounds; points are the same each time.  A
rate is the median of those of its rounds.  *Found* is the moment from which on the run was as fast as 95 % of the best
fixed number.  `python -m bench.pace --url http://127.0.0.1:8181 --token …`; `--help` has the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.run import fill
from bench.table import Figure, show

GOAL = 0.95
FOUND_SECONDS = 10.0
_PIPELINE = """\
iggyflux: 1
from: log:data
influxdb: {{url: '{url}', flavor: {flavor}, {name}: {place}, {more}max_in_flight: {number}}}
run: [{{mapping: env.yaml}}]
"""
_TOKEN = "BENCH_PACE_TOKEN"
_RUN = """\
import asyncio, json, sys, time
from iggyflux.cli.allocator import keep_freed_memory
from iggyflux.pipeline import load_pipeline
from iggyflux.runner import run_pipeline
from iggyflux.runner.status import Status
keep_freed_memory()
async def main():
    status, seen, began = Status(), [], time.perf_counter()
    running = asyncio.ensure_future(run_pipeline(load_pipeline(sys.argv[1]), until_end=True, status=status))
    while not running.done():
        await asyncio.wait([running], timeout=0.1)
        if status.routes:
            seen.append((time.perf_counter() - began, status.routes[0].read, status.routes[0].delivered))
    print(json.dumps({"delivered": running.result().routes[0].delivered, "seen": seen}))
asyncio.run(main())
"""


@dataclass(frozen=True)
class Run:
    """A run: its lines a second, and how many lines were stored after how many seconds."""

    rate: float
    seen: Sequence[tuple[float, int]]

    def found(self, rate: float) -> float:
        """Return the seconds after which the rest was stored with at least this many lines a second; infinity if never.

        >>> Run(0, [(1.0, 10), (2.0, 20), (3.0, 60), (4.0, 100)]).found(40)
        2.0
        """
        end, total = self.seen[-1]
        rest = ((at, (total - stored) / (end - at)) for at, stored in self.seen[:-1])
        return next((at for at, of_rest in rest if of_rest >= rate), float("inf"))


def run(folder: Path, pipeline: str, count: int, token: str) -> Run:
    """One run over the whole log, from its beginning."""
    for file in (folder / "data/.consumers").glob("*"):
        file.unlink()
    (folder / "p.yaml").write_text(pipeline)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, folder / "p.yaml"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, _TOKEN: token},
    )
    measured = json.loads(done.stdout)
    assert measured["delivered"] == count, measured
    # Neither the connection nor the end of the run is a part of the rate.
    began = max((at for at, read, _ in measured["seen"] if not read), default=0.0)
    end = next(at for at, _, stored in measured["seen"] if stored == count)
    seen = [(at - began, stored) for at, _, stored in measured["seen"] if began <= at <= end]
    return Run(count / (end - began), seen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pace", description=__doc__)
    parser.add_argument("--url", required=True, help="the server's address")
    parser.add_argument("--token", default="", help="its token, if it needs one")
    parser.add_argument("--flavor", default="v3", choices=("v1", "v2", "v3"))
    parser.add_argument("--database", default="bench", help="the database, or the bucket of 2.x")
    parser.add_argument("--org", default="", help="of 2.x")
    parser.add_argument("--messages", type=int, default=300_000, help="how many, in thousands of 5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fixed", type=int, nargs="+", default=[4, 8, 16, 32], help="the numbers to compare with")
    given = parser.parse_args()
    more = f"token: '${{{_TOKEN}}}', " * bool(given.token) + f"org: '{given.org}', " * bool(given.org)
    name = "bucket" if given.flavor == "v2" else "database"
    numbers = ["auto", *map(str, given.fixed)]
    found: dict[str, list[Run]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fill(folder, given.messages)
        for number in [*numbers[-1:], *numbers * given.rounds]:
            text = _PIPELINE.format(
                url=given.url, flavor=given.flavor, name=name, place=given.database, more=more, number=number
            )
            found[number].append(run(folder, text, given.messages, given.token))
    del found[numbers[-1]][0]  # the first one of a server also makes series and files
    rates = {number: median(each.rate for each in runs) for number, runs in found.items()}
    best = max(numbers[1:], key=lambda number: rates[number])
    figures = [Figure(f"{number} in flight", rates[number] / 1000, "k lines/s") for number in numbers[1:]]
    ratio = rates["auto"] / rates[best]
    at_least = f"≥ {GOAL}"
    figures.append(
        Figure("auto", rates["auto"] / 1000, "k lines/s", f"{best} in flight", ratio, at_least, ratio >= GOAL)
    )
    seconds = median(each.found(GOAL * rates[best]) for each in found["auto"])
    is_found = seconds <= FOUND_SECONDS
    figures.append(Figure("… found after", seconds, "s", "", None, f"≤ {FOUND_SECONDS:.0f} s", is_found))
    show(f"requests in flight: {given.messages:,} messages to {given.url}, median of {given.rounds} rounds", figures)


if __name__ == "__main__":
    main()
