"""`make bench-iggy`: from a real Iggy to a null HTTP server, as a user runs it; the cost of commits and of idling.

CPU is that of the run's process, from the loaded pipeline to the last acknowledgement, so the figure holds on a busy
machine; what of it is starting and ending, a run without a message shows.  Messages a second do not hold: they share
the machine with the server, the null server and other processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.table import Figure, show
from iggyflux.records import OutgoingMessage, Partition
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from tests.iggy_server import IggyServer, find_server

COUNT = 1_000_000
PARTITIONS = 2
MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {stream: bench, topic: readings}
points:
  - measurement: {const: env}
    tags: {device: device}
    fields: {a: a, b: b, c: c, n: {expr: n, type: integer}, state: {expr: state, type: string}}
    timestamp: {expr: ts, format: unix_us}
"""
PIPELINE = """\
iggyflux: 1
iggy: {{address: "{tcp}", username: iggy, password: "${{IGGY_PASSWORD}}"}}
influxdb: {{url: "http://127.0.0.1:{port}", database: bench, flavor: {flavor}, gzip: {gzip}}}
consumer: {{group: "{group}"}}
run:
  - mapping: env.yaml
"""
RUN = """\
import asyncio, json, os, sys, time
from iggyflux.cli.allocator import keep_freed_memory
from iggyflux.cli.sdk_threads import run_sdk_on_one_thread
from iggyflux.pipeline import load_pipeline
from iggyflux.runner import Stop, run_pipeline
keep_freed_memory()  # as `iggyflux run` does
run_sdk_on_one_thread()
pipeline, seconds = load_pipeline(sys.argv[1]), float(sys.argv[2])
settled = []
async def main():
    stop, loop = Stop(), asyncio.get_running_loop()
    if seconds:
        loop.call_later(2, lambda: settled.append(time.process_time()))
        loop.call_later(2 + seconds, lambda: (settled.append(time.process_time()), stop.request()))
    return await run_pipeline(pipeline, until_end=not seconds, stop=stop)
wall, cpu, began = time.perf_counter(), time.process_time(), time.thread_time()
summary = asyncio.run(main())
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
rss = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
route = summary.routes[0]
found = {"read": route.acknowledged, "wall": wall, "cpu": cpu, "rss": rss, "sent_bytes": route.sent_bytes}
parts = {part: sum(times) for part, times in globals().get("spent", {}).items()}
if parts:
    parts["reading, in the thread of the SDK"] = cpu - time.thread_time() + began - parts[
        "joining, gzip and HTTP, in threads of the sink"]
found["parts"] = parts
found["idle"] = (settled[1] - settled[0]) / seconds if seconds else 0.0
print(json.dumps(found), flush=True)
os._exit(summary.exit_code)
"""

PARTS = """\
import functools, time
from iggyflux.plan.compiled import CompiledPlan
from iggyflux.runner.footprint import Footprint
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
spent = {}
def measure(part, owner, name):
    function, found = getattr(owner, name), spent.setdefault(part, [])
    @functools.wraps(function)
    def call(*args, **named):
        since = time.thread_time()
        try:
            return function(*args, **named)
        finally:
            found.append(time.thread_time() - since)
    setattr(owner, name, call)
measure("rendering", CompiledPlan, "_render_in_chunks")
measure("finding points that overwrite each other", Footprint, "__init__")
measure("finding points that overwrite each other", Footprint, "overlapping")
measure("joining, gzip and HTTP, in threads of the sink", InfluxLineSink, "_write")
"""
"""Put before `RUN`, it measures parts by the clocks of their threads; reading beside them is the SDK's own thread."""


def payload(number: int) -> bytes:
    """171 bytes, five values, a tag and a time."""
    text = json.dumps(
        {
            "device": f"device-{number % 200:03d}",
            "a": 21.5 + number % 7,
            "b": number % 1000 / 8,
            "c": number % 97 * 0.25,
            "n": number,
            "state": "running",
            "ts": 1_700_000_000_000_000 + number,
            "note": "",
        }
    )
    return (text[:-2] + "x" * (171 - len(text)) + '"}').encode()


async def fill(server: IggyServer, count: int) -> None:
    connection = Connection(server.settings())
    await connection.open()
    for first in range(0, count, 1000):
        messages = [OutgoingMessage(payload(number)) for number in range(first, first + 1000)]
        await connection.send("bench", "readings", first // 1000 % PARTITIONS, messages)
    await connection.close()


class Bench:
    """A folder with a pipeline to a null server."""

    def __init__(self, server: IggyServer, folder: Path, port: int) -> None:
        self.server, self.folder, self.port = server, folder, port
        (folder / "env.yaml").write_text(MAPPING)

    def start(
        self, group: str, *, gzip: str = "auto", seconds: float = 0, before: str = "", flavor: str = "v1"
    ) -> subprocess.Popen[bytes]:
        path = self.folder / f"{group}.yaml"
        path.write_text(PIPELINE.format(tcp=self.server.tcp, port=self.port, group=group, gzip=gzip, flavor=flavor))
        command = [sys.executable, "-c", before + RUN, str(path), str(seconds)]
        environ = {**os.environ, "IGGY_PASSWORD": "iggy"}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as for a user
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=environ)

    def run(self, group: str, **more: object) -> dict[str, Any]:
        return finish(self.start(group, **more))  # type: ignore[arg-type]


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    output, _ = process.communicate()
    found: dict[str, Any] = json.loads(output)
    return found


def throughput(bench: Bench) -> list[Figure]:
    figures = []
    for gzip in ("off", "auto"):
        best = min((bench.run(f"one-{gzip}-{turn}", gzip=gzip) for turn in range(3)), key=lambda found: found["cpu"])
        assert best["read"] == COUNT, best
        name = f"one process, gzip {gzip}"
        rate, cost = best["read"] / best["wall"], best["cpu"] / best["read"] * 1e6
        nothing = bench.run(f"one-{gzip}-0", gzip=gzip)
        assert nothing["read"] == 0, nothing
        once = nothing["cpu"] / best["read"] * 1e6
        figures += [
            Figure(name, rate / 1000, "k msg/s", goal="≥ 300", reached=rate >= 300_000),
            Figure(f"{name}: our CPU", cost, "µs/msg", goal="≤ 2.2", reached=cost <= 2.2),
            Figure("… of which starting and ending", once, "µs/msg"),
            Figure(f"{name}: memory", best["rss"], "MiB"),
        ]
    return figures


def parts(bench: Bench) -> list[Figure]:
    """Return where the time of the cheapest of three runs went."""
    best = min((bench.run(f"parts-{turn}", before=PARTS) for turn in range(3)), key=lambda found: found["cpu"])
    nothing = bench.run("parts-0")
    found = best["parts"] | {"starting and ending": nothing["cpu"]}
    found["the rest: payloads, requests, the event loop"] = best["cpu"] - sum(found.values())
    return [
        Figure(f"parts of {best['cpu'] / best['read'] * 1e6:.2f} µs: {part}", seconds / best["read"] * 1e6, "µs/msg")
        for part, seconds in found.items()
    ]


def two_processes(bench: Bench) -> list[Figure]:
    """Two members of a group; each ends when all messages are settled, by either."""
    both = [finish(process) for process in [bench.start("two") for _ in range(2)]]
    shares = sorted(found["read"] / COUNT for found in both)
    return [
        Figure(
            "two processes, together", sum(f["read"] for f in both) / max(f["wall"] for f in both) / 1000, "k msg/s"
        ),
        Figure("two processes: the smaller share", shares[0], "of all"),
    ]


def idling(bench: Bench) -> list[Figure]:
    """Ten seconds of a run over a topic without new messages, after its start."""
    bench.run("idle")
    share = bench.run("idle", seconds=10)["idle"] * 100
    return [Figure("polling an idle topic", share, "% of CPU", goal="< 1", reached=share < 1)]


async def commits(server: IggyServer) -> list[Figure]:
    """Return the cost of storing an offset, by each way."""
    connection = Connection(server.settings())
    await connection.open()
    await connection.join("bench", "readings", "commits")
    place, turns = Partition("bench", "readings", 0), 300
    single, group = ConsumerId("single", "commits"), ConsumerId("group", "commits")

    async def cost(call: Callable[[int], Awaitable[object]]) -> float:
        start = time.perf_counter()
        for turn in range(1, turns + 1):
            await call(turn)
        return (time.perf_counter() - start) / turns * 1e6

    figures = [
        Figure("store: group's handle", await cost(lambda n: connection.store(group, place, n)), "µs"),
        Figure("store: request 121", await cost(lambda n: connection.store(single, place, n)), "µs"),
        Figure("ask: request 120", await cost(lambda _: connection.stored(single, place)), "µs"),
    ]
    connection._speaks_wire = False  # noqa: SLF001  # the fallback over http
    polled = await cost(lambda n: connection.store(single, place, n))
    figures.append(Figure("store: polling it again", polled, "µs"))
    await connection.close()
    return figures


def run_on(server: IggyServer, folder: Path) -> Sequence[Figure]:
    server.create_topic("bench", "readings", PARTITIONS)
    asyncio.run(fill(server, COUNT))
    null = subprocess.Popen([sys.executable, "-m", "bench.null_server"], stdout=subprocess.PIPE)
    assert null.stdout is not None
    try:
        bench = Bench(server, folder, int(null.stdout.readline()))
        return [*asyncio.run(commits(server)), *throughput(bench), *parts(bench), *two_processes(bench), *idling(bench)]
    finally:
        null.terminate()
        null.communicate()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        server = find_server(Path(name))
        if isinstance(server, str):
            print(f"iggy: not measured: {server}", file=sys.stderr)
            return
        try:
            load = os.getloadavg()[0]
            figures = run_on(server, Path(name))
        finally:
            with suppress(OSError):
                server.close()
        show(f"iggy → null HTTP, {COUNT:,} messages of 171 bytes, 2 partitions, load {load:.1f} before", figures)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
