"""`python -m bench sink`: us and the InfluxDB sink of Iggy's connectors, in turns, from one topic to a null server.

It runs where `iggy-server`, `iggy-connectors` and the library of the sink (`IGGYFLUX_TEST_IGGY_SINK`, its path) are
found; else it says what is missing.  The two do not make the same lines: the sink writes each payload as one text
field.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.iggy import COUNT, PARTITIONS, Bench, fill
from bench.table import Figure, show
from tests.iggy_connectors import connectors, missing, sink_configuration
from tests.iggy_server import IggyServer, find_server

TURNS = 3
MOST_SECONDS = 300.0
SINK = """\
type = "sink"
key = "influxdb"
enabled = true
[[streams]]
stream = "bench"
topics = ["readings"]
schema = "json"
batch_length = 5000
poll_interval = "1ms"
consumer_group = "{group}"
[plugin_config]
version = "v2"
url = "http://127.0.0.1:{port}"
org = "bench"
bucket = "bench"
token = "bench"
measurement = "env"
precision = "ns"
batch_size = 5000
payload_format = "json"
"""


def counted(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/counted", timeout=10) as answer:
        found: dict[str, int] = json.load(answer)
    return found


def run_sink(server: IggyServer, folder: Path, port: int) -> dict[str, float]:
    """Run the connectors until all lines have arrived; the time from the first to the last one."""
    counted(port)
    with connectors(server, folder, sink_configuration(SINK.format(port=port, group=folder.name))) as process:
        lines = size = 0
        began = last = 0.0
        until = time.monotonic() + MOST_SECONDS
        while lines < COUNT:
            time.sleep(0.02)
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the sink wrote {lines:,} lines:\n{(folder / 'log').read_text()[-2000:]}")
            found = counted(port)
            lines, size = lines + found["lines"], size + found["bytes"]
            if found["lines"]:
                began, last = began or time.perf_counter(), time.perf_counter()
        ticks = (Path("/proc") / str(process.pid) / "stat").read_text().rpartition(")")[2].split()[11:13]
        cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return {"wall": last - began, "cpu": cpu, "sent_bytes": size}


def compare(server: IggyServer, folder: Path) -> Sequence[Figure]:
    server.create_topic("bench", "readings", PARTITIONS)
    asyncio.run(fill(server, COUNT))
    null = subprocess.Popen([sys.executable, "-m", "bench.null_server"], stdout=subprocess.PIPE)
    assert null.stdout is not None
    try:
        port = int(null.stdout.readline())
        bench = Bench(server, folder, port)
        ours, theirs = [], []
        for turn in range(TURNS):
            ours.append(bench.run(f"ours-{turn}"))
            theirs.append(run_sink(server, folder / f"sink-{turn}", port))
    finally:
        null.terminate()
        null.communicate()
    figures = []
    for name, turns in (("iggyflux", ours), ("the sink of Iggy", theirs)):
        figures += [
            Figure(f"{name}: rate", COUNT / statistics.median(found["wall"] for found in turns) / 1000, "k msg/s"),
            Figure(f"{name}: CPU", statistics.median(found["cpu"] for found in turns) / COUNT * 1e6, "µs/msg"),
            Figure(f"{name}: sent", statistics.median(found["sent_bytes"] for found in turns) / COUNT, "bytes/msg"),
        ]
    pairs = list(zip(ours, theirs, strict=True))
    share = statistics.median(mine["cpu"] / other["cpu"] for mine, other in pairs)
    return [
        *figures,
        Figure("our CPU, theirs is 1", share, "times", goal="≤ 1/2", reached=share <= 1 / 2),
        Figure("our rate, theirs is 1", statistics.median(b["wall"] / a["wall"] for a, b in pairs), "times"),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        reason = missing()
        server = find_server(Path(name)) if reason is None else reason
        if isinstance(server, str):
            print(f"sink: not measured: {server}", file=sys.stderr)
            return
        try:
            load = os.getloadavg()[0]
            figures = compare(server, Path(name))
        finally:
            with suppress(OSError):
                server.close()
        show(f"beside Iggy's InfluxDB sink: {COUNT:,} messages of 171 bytes, load {load:.1f} before", figures)


if __name__ == "__main__":
    main()
