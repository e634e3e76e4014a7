"""`python -m bench.hosts`: the CPU time and the bytes that a message costs in each of the three places it passes.

A run of one process, from a real iggy-server into an InfluxDB 1.x (`influxd` on PATH), with short and long messages and
with large and small requests: the costs of a message, of a byte and of a request are the differences.  CPU is that of
each process, so the figures hold on a busy machine; they are the defaults of `bench.scaling`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import iggy
from bench.table import Figure, show
from iggyflux.records import OutgoingMessage, Partition
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from tests.iggy_server import IggyServer, find_server, free_ports

COUNT = 300_000
SHORT, LONG = 171, 1_000
BATCH, SMALL = 5_000, 500
ROUNDS = 3
SMALL_REQUESTS, CONNECTIONS = 8_000, 16
PIPELINE = """\
iggyflux: 1
iggy: {{address: "{tcp}", username: iggy, password: "${{IGGY_PASSWORD}}"}}
influxdb: {{url: "http://127.0.0.1:{port}", database: bench, flavor: v1, batch_size: {batch}}}
consumer: {{group: "{group}"}}
run: [{{mapping: env.yaml}}]
"""
PLACES = ("iggyflux", "Iggy", "InfluxDB")


def cpu_seconds(process: int) -> float:
    """Return the CPU time that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def influxd(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start an InfluxDB 1.x with the database `bench`; give its process and port."""
    port, rpc = free_ports(2)
    paths = {f"INFLUXDB_{key}": str(folder / key.lower()) for key in ("META_DIR", "DATA_DIR", "DATA_WAL_DIR")}
    own = {"INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{rpc}", "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}", **paths}
    quiet = {"INFLUXDB_REPORTING_DISABLED": "true", "INFLUXDB_HTTP_LOG_ENABLED": "false"}
    with (folder / "influxd.log").open("wb") as log:
        command = ["influxd", "run", "-config", os.devnull]
        process = subprocess.Popen(command, env={**os.environ, **own, **quiet}, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                query = urllib.request.Request(f"http://127.0.0.1:{port}/query", b"q=CREATE DATABASE bench")
                urllib.request.urlopen(query, timeout=5).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        process.wait(60)


async def fill(server: IggyServer, topic: str, size: int) -> None:
    connection = Connection(server.settings())
    await connection.open()
    pad = b" " * (size - SHORT)  # after the document: read and not decoded
    for first in range(0, COUNT, 1000):
        messages = [OutgoingMessage(iggy.payload(number) + pad) for number in range(first, first + 1000)]
        await connection.send("bench", topic, first // 1000 % iggy.PARTITIONS, messages)
    await connection.close()


async def small_requests(server: IggyServer, topic: str) -> None:
    """Ask for a stored offset over many connections at once, as members of a group do of each other's partitions."""

    async def ask(count: int) -> None:
        connection = Connection(server.settings())
        await connection.open()
        for _ in range(count):
            await connection.stored(ConsumerId("single", "nobody"), Partition("bench", topic, 0))
        await connection.close()

    await asyncio.gather(*[ask(SMALL_REQUESTS // CONNECTIONS) for _ in range(CONNECTIONS)])


def run(
    server: IggyServer, folder: Path, topic: str, batch: int, group: str, sink: tuple[int, int]
) -> dict[str, float]:
    """Run to the end; return µs of CPU a message in each place, and bytes a message to InfluxDB."""
    (folder / "env.yaml").write_text(iggy.MAPPING.replace("topic: readings", f"topic: {topic}"))
    path = folder / f"{group}.yaml"
    path.write_text(PIPELINE.format(tcp=server.tcp, port=sink[1], batch=batch, group=group))
    assert server.process is not None
    before = [cpu_seconds(each) for each in (server.process.pid, sink[0])]
    environment = {**os.environ, "IGGY_PASSWORD": "iggy"}
    command = [sys.executable, "-c", iggy.RUN, str(path), "0"]
    found = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    after = [cpu_seconds(each) for each in (server.process.pid, sink[0])]
    assert found["read"] == COUNT, found
    spent = [found["cpu"], *(late - early for early, late in zip(before, after, strict=True))]
    costs = {place: seconds / COUNT * 1e6 for place, seconds in zip(PLACES, spent, strict=True)}
    return {**costs, "sent": found["sent_bytes"] / COUNT}


def measure(server: IggyServer, folder: Path) -> list[Figure]:
    assert server.process is not None
    stored = {}
    for size in (SHORT, LONG):
        server.create_topic("bench", f"t{size}", iggy.PARTITIONS)
        before = cpu_seconds(server.process.pid)
        asyncio.run(fill(server, f"t{size}", size))
        stored[size] = (cpu_seconds(server.process.pid) - before) / COUNT * 1e6
    before = cpu_seconds(server.process.pid)
    asyncio.run(small_requests(server, f"t{SHORT}"))
    small = (cpu_seconds(server.process.pid) - before) / SMALL_REQUESTS * 1e6
    kinds = {"short": (SHORT, BATCH), "long": (LONG, BATCH), "small": (SHORT, SMALL)}
    best: dict[str, dict[str, float]] = {}
    with influxd(folder) as (process, port):
        for turn in range(ROUNDS):
            for kind, (size, batch) in kinds.items():
                costs = run(server, folder, f"t{size}", batch, f"{kind}-{turn}", (process.pid, port))
                known = best.setdefault(kind, costs)
                best[kind] = {place: min(cost, known[place]) for place, cost in costs.items()}
    figures = []
    for place in PLACES:
        more = stored[SHORT] if place == "Iggy" else 0.0
        longer = (best["long"][place] - best["short"][place]) / (LONG - SHORT)
        longer += (stored[LONG] - stored[SHORT]) / (LONG - SHORT) if place == "Iggy" else 0.0
        request = (best["small"][place] - best["short"][place]) / (1 / SMALL - 1 / BATCH)
        request = max(request, 0.0)
        figures += [
            Figure(f"{place}: a message of {SHORT} bytes", best["short"][place] - request / BATCH + more, "µs"),
            Figure(f"{place}: a request to InfluxDB", request, "µs"),
        ]
        if place != "InfluxDB":  # the values of a long message are those of a short one
            figures.append(Figure(f"{place}: a kB more", max(longer, 0) * 1000, "µs"))
    return [
        *figures,
        Figure("Iggy: of that, storing the message", stored[SHORT], "µs"),
        Figure("Iggy: a small request of a member", small, "µs"),
        Figure("to InfluxDB: a message", best["short"]["sent"], "bytes"),
    ]


def main() -> None:
    if shutil.which("influxd") is None:
        sys.exit("hosts: not measured: no influxd (1.x) on PATH")
    with tempfile.TemporaryDirectory() as name:
        server = find_server(Path(name))
        if isinstance(server, str) or server.process is None:
            sys.exit("hosts: not measured: no iggy-server on PATH")
        try:
            figures = measure(server, Path(name))
        finally:
            server.close()
        show(f"what a message costs in each place, {COUNT:,} messages, best of {ROUNDS}", figures)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
