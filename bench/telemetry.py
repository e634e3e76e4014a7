"""What `run --listen` costs: the same run with and without it, in turns, while a client asks for all of it each second.

CPU is that of the run's process, and the least of several rounds counts, so that the ratio holds on a busy machine.
Prometheus asks four times a minute, and a page that is watched asks for `/status` each second.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from bench.run import BATCH, MAPPING, fill
from bench.table import Figure, best_seconds, show
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.records import Batch, DeadLetter, Partition, Reason
from iggyflux.runner.newest import with_newest
from iggyflux.runner.status import About, RouteStatus, Status
from iggyflux.telemetry.answers import Request, Site, answer
from iggyflux.telemetry.exposition import exposed
from iggyflux.transports.local.log import Log

COUNT = 500_000
ROUNDS = 5
ASKED_EVERY_SECONDS = 1.0
RUN = """\
import asyncio, json, logging, resource, sys, time
from iggyflux.pipeline import load_pipeline
from iggyflux.runner import run_pipeline
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
pipeline = load_pipeline(sys.argv[1])
wall, cpu = time.perf_counter(), time.process_time()
asyncio.run(run_pipeline(pipeline, until_end=True, listen=sys.argv[2] if len(sys.argv) > 2 else None))
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({"wall": wall, "cpu": cpu, "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def run(folder: Path, *, listens: bool) -> tuple[dict[str, float], int]:
    """Run the pipeline from the start; return what it measured, and how often it was asked."""
    shutil.rmtree(folder / "data" / ".consumers", ignore_errors=True)
    (folder / "out.lp").unlink(missing_ok=True)
    command = [sys.executable, "-c", RUN, str(folder / "p.yaml"), *(["127.0.0.1:0"] if listens else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    over, asked = threading.Event(), 0
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(url: str) -> None:
        nonlocal asked
        while not over.wait(ASKED_EVERY_SECONDS):
            try:
                for path in ("metrics", "status", "healthz", "readyz", ""):
                    opener.open(url + path, timeout=10).read()
                    asked += 1
            except OSError:  # the run has ended, or is not ready
                continue

    clients = []
    for line in process.stderr:
        if line.startswith("telemetry.listening"):
            clients.append(threading.Thread(target=ask, args=(line.partition("url=")[2].strip(),)))
            clients[0].start()
    output, _ = process.communicate()
    over.set()
    for client in clients:
        client.join()
    return json.loads(output), asked


def parts(folder: Path) -> list[Figure]:
    """Return the cost of what is always counted, and of one answer."""
    log = Log.open(folder / "data")
    messages = log.reader(Partition("factory", "readings", 0), 0).read(BATCH)
    batch = Batch(Partition("factory", "readings", 0), messages)
    mapping = parse_mapping(MAPPING)
    assert isinstance(mapping, WriterMapping)
    plan, status = mapping.plan(), RouteStatus("r", About())

    def count() -> None:
        status.read_bytes += batch.payload_bytes
        status.request_seconds.observe(0.02)
        status.request_size.observe(BATCH)
        status.acknowledge([], BATCH, [messages[0].timestamp_us], 1e9)

    routes = [RouteStatus(f"r{number}", lag={Partition("s", "t", at): at for at in range(16)}) for number in range(10)]
    tree = {"version": "v", "python": "p", **Status(routes).as_public()}
    letters = [DeadLetter(each, "m", "h", [Reason("IFX340", "expected a number", "/points")]) for each in messages[:10]]
    for route in routes:
        route.newest = with_newest((), letters, 1e9)
    site = Site(lambda: {"time_unix": 1e9, **tree, **Status(routes).as_public("payloads")})
    rendering, counting, answering, showing = best_seconds(
        [
            lambda: plan.render(messages),
            count,
            lambda: exposed(tree, as_openmetrics=True),
            lambda: answer(Request("GET", "/status"), site),
        ],
        30,
    )
    share = counting / rendering
    return [
        Figure(
            "count bytes, size, age of a batch", counting * 1e6, "µs", "its rendering", share, "< 0.01", share < 0.01
        ),
        Figure("/metrics of 10 routes, 160 partitions", answering * 1e3, "ms"),
        Figure("/status of them, 100 dead letters", showing * 1e3, "ms"),
    ]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, count)
        run(folder, listens=True)  # files are in the cache of the system now
        rounds = [(run(folder, listens=False)[0], *run(folder, listens=True)) for _ in range(ROUNDS)]
        figures = parts(folder)
    plain = min(off["cpu"] for off, _, _ in rounds)
    watched = min(on["cpu"] for _, on, _ in rounds)
    memory = min(on["kilobytes"] for _, on, _ in rounds) - min(off["kilobytes"] for off, _, _ in rounds)
    asked = sum(number for _, _, number in rounds)
    seconds = sum(on["wall"] for _, on, _ in rounds)
    ratio = watched / plain
    show(
        "telemetry",
        [
            Figure(f"run log: → file, {count:,}: CPU", plain / count * 1e6, "µs/msg"),
            Figure(
                "… and it listens, and is asked",
                watched / count * 1e6,
                "µs/msg",
                "without",
                ratio,
                "< 1.01",
                ratio < 1.01,
            ),
            Figure("… questions a second", asked / seconds, "1/s"),
            Figure("… memory more", memory / 1000, "MB", "", None, "< 10", memory < 10_000),
            *figures,
        ],
    )


if __name__ == "__main__":
    main()
