"""`iggyflux run` from a log on disk to a file: messages a second in one process, and its memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.plan import EIGHT, eight, messages
from bench.table import Figure, show
from iggyflux.transports.log import Log

COMMAND = Path(sys.executable).parent / "iggyflux"
COUNT = 1_000_000
PIPELINE = "iggyflux: 1\nrun:\n  - {mapping: m.yaml, from: 'log:data', to: 'file:out.lp'}\n"


def main() -> None:
    count = int(sys.argv[2]) if len(sys.argv) > 2 else COUNT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "m.yaml").write_text(EIGHT)
        (folder / "p.yaml").write_text(PIPELINE)
        batch = messages(eight, 10_000)
        log = Log.open(folder / "data", create=True)
        for _ in range(count // len(batch)):
            log.append("factory", "readings", batch, partition=0)
        log.close()
        start = time.perf_counter()
        subprocess.run([COMMAND, "run", folder / "p.yaml", "--until-end", "--quiet"], check=True, capture_output=True)
        took = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = sum(1 for _ in (folder / "out.lp").open("rb"))
        assert lines == count, (lines, count)
    rate, memory = count / took / 1000, used.ru_maxrss / 1024
    show(
        f"run: log to file, {count:,} messages",
        [
            Figure("messages", rate, "k/s", "", None, "≥ 200 k/s", rate >= 200),
            Figure("CPU a message", (used.ru_utime + used.ru_stime) * 1e6 / count, "µs"),
            Figure("largest RSS", memory, "MiB", "", None, "< 120 MiB", memory < 120),
        ],
    )
    print(json.dumps({"count": count}), file=sys.stderr)


if __name__ == "__main__":
    main()
