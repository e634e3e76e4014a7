"""`run` from `log:` to a file, as a user runs it: messages a second, memory over many messages, and its parts alone.

The run is a process of its own, so that its memory is its own.  `python -m bench.run 5000000` measures in full.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.table import Figure, best_seconds, show
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.records import Message, Partition
from iggyflux.runner.footprint import Footprint
from iggyflux.transports.local.log import Log

COUNT = 1_000_000
BATCH = 5_000
MAPPING = """\
iggyflux: 1
kind: writer
name: env
from: {stream: factory, topic: readings, payload: json}
points:
  - measurement: {const: env}
    tags: {device: device.id, site: site}
    fields:
      temperature: celsius
      humidity: humidity
      count: {expr: count, type: integer}
      state: {expr: state, type: string}
      ok: {expr: ok, type: boolean}
    timestamp: {expr: ts, format: unix_ms}
"""
PIPELINE = "iggyflux: 1\nfrom: log:data\nto: file:out.lp\nrun:\n  - mapping: env.yaml\n"
RUN = """\
import asyncio, json, resource, sys, time
from iggyflux.cli.allocator import keep_freed_memory
from iggyflux.pipeline import load_pipeline
from iggyflux.runner import run_pipeline
keep_freed_memory()  # as `iggyflux run`
pipeline = load_pipeline(sys.argv[1])
wall, cpu = time.perf_counter(), time.process_time()
summary = asyncio.run(run_pipeline(pipeline, until_end=True))
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
route = summary.routes[0]
print(json.dumps({"read": route.acknowledged, "wall": wall, "cpu": cpu, "requests": route.requests}))
"""


def messages(first: int) -> list[Message]:
    """Return a batch of readings that are all different."""
    return [
        Message(
            b'{"device":{"id":"d%03d"},"site":"berlin","celsius":%d.25,"humidity":%d.5,"count":%d,"state":"ok","ok":true,'
            b'"ts":%d}' % (number % 200, number % 40, number % 100, number, 1_700_000_000_000 + number)
        )
        for number in range(first, first + BATCH)
    ]


def fill(folder: Path, count: int, made: Callable[[int], list[Message]] = messages) -> float:
    """Put `count` messages in two partitions of a log; return the seconds that appending took.

    `made` returns the batch that begins with a number.
    """
    (folder / "env.yaml").write_text(MAPPING)
    (folder / "p.yaml").write_text(PIPELINE)
    log = Log.open(folder / "data", create=True)
    log.create_topic("factory", "readings", 2)
    seconds = 0.0
    for first in range(0, count, BATCH):
        batch = made(first)
        start = time.perf_counter()
        log.append("factory", "readings", batch, partition=first // BATCH % 2)
        seconds += time.perf_counter() - start
    log.close()
    return seconds


def run(folder: Path) -> tuple[dict[str, float], list[int]]:
    """Run the pipeline in a process; return what it measured, and its resident megabytes twice a second."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder / "p.yaml")], stdout=subprocess.PIPE)
    sizes: list[int] = []
    over = threading.Event()

    def watch() -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not over.wait(0.5):
            try:
                sizes.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page // 2**20)
            except OSError:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    over.set()
    watcher.join()
    return json.loads(output), sizes


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        appended = fill(folder, count)
        log = Log.open(folder / "data")
        batch = log.reader(Partition("factory", "readings", 0), 0).read(BATCH)
        mapping = parse_mapping(MAPPING)
        assert isinstance(mapping, WriterMapping)
        plan = mapping.plan()
        rendered = plan.render(batch)
        reading, rendering, counting = best_seconds(
            [
                lambda: log.reader(Partition("factory", "readings", 0), 0).read(BATCH),
                lambda: plan.render(batch),
                lambda: Footprint(rendered.lines, rendered.times).collisions(),
            ],
            20,
            time.process_time,
        )
        measured, sizes = run(folder)
        written = sum(1 for _ in (folder / "out.lp").open("rb"))
    assert measured["read"] == written == count
    rate, largest = count / measured["wall"], max(sizes, default=0)
    figures = [
        Figure("append, 5,000 at once, fsynced", count / appended / 1e3, "k msg/s"),
        Figure("read from the log", BATCH / reading / 1e3, "k msg/s", "", None, "≥ 1500", BATCH / reading >= 1.5e6),
        Figure("render", BATCH / rendering / 1e3, "k msg/s"),
        Figure("count collisions", counting / BATCH * 1e6, "µs/msg", "the rendering", counting / rendering),
        Figure(f"run log: → file, {count:,}", rate / 1e3, "k msg/s", "", None, "≥ 200", rate >= 200_000),
        Figure("… its CPU", measured["cpu"] / count * 1e6, "µs/msg"),
        Figure("… largest resident memory", largest, "MB", "", None, "< 120", largest < 120),
        Figure("… and in the middle", sizes[len(sizes) // 2] if sizes else 0, "MB"),
    ]
    show("run on the embedded default", figures)


if __name__ == "__main__":
    main()
