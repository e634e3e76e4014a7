"""Starting: the time of whole processes until the first output."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.table import Figure, show

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).parent / "iggyflux"


def best_of(command: list[str], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    ready = sorted((ROOT / "mappings").glob("*.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(200):
            shutil.copy(ready[number % len(ready)], Path(folder) / f"{ready[number % len(ready)].stem}-{number}.yaml")
        python = best_of([sys.executable, "-c", "pass"], 7)
        figures = [Figure("python -c pass", python * 1000, "ms")]
        for name, arguments, limit, rounds in (
            ("iggyflux --version", ["--version"], 120, 7),
            ("validate one document", ["validate", str(ready[0])], 350, 7),
            ("validate 200 documents", ["validate", folder], 6000, 2),
        ):
            took = best_of([str(COMMAND), *arguments], rounds) * 1000
            ratio = took / (python * 1000)
            figures.append(Figure(name, took, "ms", "python -c pass", ratio, f"< {limit} ms", took < limit))
    show("starting", figures)


if __name__ == "__main__":
    main()
