"""`run --workers`: the CPU of a message with one process and with two, supervisor included, and what two of them move.

From a log of four partitions to a null HTTP server.  What a run costs without messages (to start Python, to compile) is
measured beside it and taken off, and the least of several rounds counts, so the ratio holds on a busy machine.  What
is moved is measured where at least 6 CPUs are free: the workers, the null server and the system must not share one.
`python -m bench.workers 4000000` measures in full.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.run import BATCH, MAPPING, messages
from bench.table import Figure, show
from iggyflux.runner.workers import usable_cpus
from iggyflux.transports.local.log import Log

COUNT = 1_000_000
PARTITIONS = 4
ROUNDS = 5
WORKERS = (1, 2)
FREE_CPUS = 6
PIPELINE = """\
iggyflux: 1
from: log:{log}
influxdb: {{url: "http://127.0.0.1:{port}", database: bench, flavor: v1}}
run:
  - mapping: env.yaml
"""


class Cost(NamedTuple):
    """What a run took, in seconds, and the resident memory of its largest process in MB."""

    cpu: float
    wall: float
    megabytes: float


def fill(folder: Path, count: int) -> None:
    """Put `count` messages in a log, and none in the same topic of another one."""
    (folder / "env.yaml").write_text(MAPPING)
    for name, number in (("full", count), ("empty", 0)):
        log = Log.open(folder / name, create=True)
        log.create_topic("factory", "readings", PARTITIONS)
        for first in range(0, number, BATCH):
            log.append("factory", "readings", messages(first), partition=first // BATCH % PARTITIONS)
        log.close()


def run(folder: Path, log: str, workers: int, port: int) -> Cost:
    """Run to the end as a user does; the CPU is that of all its processes."""
    shutil.rmtree(folder / log / ".consumers", ignore_errors=True)
    (folder / "p.yaml").write_text(PIPELINE.format(log=log, port=port))
    command = [sys.executable, "-m", "iggyflux", "run", "p.yaml", "--until-end", "--status-file", "status.json"]
    wall = time.perf_counter()
    process = subprocess.Popen([*command, "--quiet", "--workers", str(workers)], cwd=folder)
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = code
    wall = time.perf_counter() - wall
    (route,) = json.loads((folder / "status.json").read_text())["routes"]
    assert code == 0
    assert log == "empty" or route["acknowledged"] == route["delivered"] > 0
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    server = subprocess.Popen([sys.executable, "-m", "bench.null_server"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    free = max(usable_cpus() - os.getloadavg()[0], 0.0)
    try:
        port = int(server.stdout.readline())
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill(folder, count)
            kinds = [(log, workers) for log in ("full", "empty") for workers in WORKERS]
            found: dict[tuple[str, int], list[Cost]] = {kind: [] for kind in kinds}
            for _ in range(ROUNDS):
                for kind, costs in found.items():
                    costs.append(run(folder, *kind, port))
    finally:
        server.terminate()
        server.wait()
    cpu = {kind: min(cost.cpu for cost in costs) for kind, costs in found.items()}
    wall = {kind: min(cost.wall for cost in costs) for kind, costs in found.items()}
    one, two = ((cpu["full", workers] - cpu["empty", workers]) / count * 1e6 for workers in WORKERS)
    slow, fast = (count / (wall["full", workers] - wall["empty", workers]) for workers in WORKERS)
    figures = [
        Figure("CPU of a message, one process", one, "µs/msg"),
        Figure("… two workers", two, "µs/msg", "one process", two / one, "≤ 1.1", two / one <= 1.1),
        Figure("CPU to start and to end, one process", cpu["empty", 1], "s"),
        Figure("… two workers and their supervisor", cpu["empty", 2], "s"),
        Figure("largest process of two workers", max(cost.megabytes for cost in found["full", 2]), "MB"),
    ]
    if free >= FREE_CPUS:
        ratio = fast / slow
        figures.append(Figure("messages, one process", slow / 1e3, "k msg/s"))
        figures.append(Figure("… two workers", fast / 1e3, "k msg/s", "one", ratio, "≥ 1.8", ratio >= 1.8))
    else:
        figures.append(Figure(f"messages a second: NOT RUN, {FREE_CPUS} free CPUs are needed; here", free, "CPUs"))
    show("run --workers", figures)


if __name__ == "__main__":
    main()
