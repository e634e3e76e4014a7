"""What one bad message in 5,000 costs a run from `log:` to InfluxDB 3.

Either the mapping cannot use it, or the server refuses its line.  Each is a dead letter, synced before its batch counts
as done.  Runs are taken in turns, and a ratio is the median of those of the rounds.  `python -m bench letters`; `python
-m bench.letters 300000 5` says how many messages and rounds.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.influx import Run, run, serving
from bench.run import BATCH, fill, messages
from bench.table import Figure, show
from iggyflux.records import Message

COUNT = 1_000_000
ROUNDS = 5
GOAL = 1.05


def with_a_bad_one(first: int) -> list[Message]:
    """Return a batch of readings, one of which has a text where the mapping has a number."""
    batch = messages(first)
    batch[BATCH // 2] = Message(batch[BATCH // 2].payload.replace(b'"celsius":', b'"celsius":"dry","before":'))
    return batch


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    with tempfile.TemporaryDirectory() as name, serving("good") as good_port, serving("bad") as bad_port:
        good, bad = Path(name) / "good", Path(name) / "bad"
        for folder, made in ((good, messages), (bad, with_a_bad_one)):
            folder.mkdir()
            fill(folder, count, made)
        kinds = (("none", good, good_port), ("fails", bad, good_port), ("is refused", good, bad_port))
        found: dict[str, list[Run]] = {kind: [] for kind, _, _ in kinds}
        for _ in range(rounds):
            for kind, folder, port in kinds:
                found[kind].append(run(folder, port, count))
        for folder in (good, bad):
            kept = sum(file.read_bytes().count(b"\n") for file in (folder / "dead-letters/env").glob("*.ndjson"))
            assert kept == count // BATCH, f"{kept} letters in {folder.name}"
    none = found["none"]
    figures = [
        Figure("no bad message", count / median(each.wall for each in none) / 1000, "k msg/s"),
        Figure("… CPU a message", median(each.cpu for each in none) * 1e6 / count, "µs"),
    ]

    def against(kind: str, of: Callable[[Run], float]) -> float:
        return median(of(each) / of(other) for each, other in zip(found[kind], none, strict=True))

    for kind in ("fails", "is refused"):
        wall, cpu = against(kind, lambda each: each.wall), against(kind, lambda each: each.cpu)
        rate = count / median(each.wall for each in found[kind]) / 1000
        requests = median(each.requests for each in found[kind])
        figures += [
            Figure(f"one in 5,000 {kind}", rate, "k msg/s", "time", wall, f"< {GOAL}", wall < GOAL),
            Figure("… CPU", median(each.cpu for each in found[kind]) * 1e6 / count, "µs", "none", cpu),
            Figure("… requests", requests, "", "none", requests / median(each.requests for each in none)),
        ]
    show(f"dead letters: {count:,} messages to InfluxDB 3, median of {rounds} rounds", figures)


if __name__ == "__main__":
    main()
