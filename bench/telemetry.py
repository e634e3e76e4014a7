"""What telemetry costs: the same run with and without it, in turns.

`run --listen`: while a client asks for all of it each second.  OpenTelemetry: every batch, or one of a hundred, to a
collector that takes everything, in a process of its own.

CPU is that of the run's process, and the least of several rounds counts, so that the ratio holds on a busy machine.
Prometheus asks four times a minute, and a page that is watched asks for `/status` each second.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from bench.run import BATCH, MAPPING, fill
from bench.table import Figure, best_seconds, show
from iggyflux.delivery.verdicts import Accepted
from iggyflux.mapping import WriterMapping, parse_mapping
from iggyflux.records import Batch, DeadLetter, Partition, Reason, Rendered
from iggyflux.runner.newest import with_newest
from iggyflux.runner.status import About, RouteStatus, Status
from iggyflux.telemetry.answers import Request, Site, answer
from iggyflux.telemetry.exposition import exposed
from iggyflux.telemetry.otel_metrics import metrics_data
from iggyflux.telemetry.otel_traces import OtelTracing
from iggyflux.telemetry.tracing import Traces, acknowledging, requests_of
from iggyflux.transports.local.log import Log

COUNT = 500_000
ROUNDS = 5
ASKED_EVERY_SECONDS = 1.0
RUN = """\
import asyncio, json, logging, os, resource, sys, time
from iggyflux.pipeline import load_pipeline
from iggyflux.runner import run_pipeline
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
pipeline = load_pipeline(sys.argv[1])
load = time.process_time()
if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:  # which costs the same, however long the run is
    import iggyflux.telemetry.otel_export
    import opentelemetry.exporter.otlp.proto.http.metric_exporter
    import opentelemetry.exporter.otlp.proto.http.trace_exporter
load = time.process_time() - load
wall, cpu = time.perf_counter(), time.process_time()
asyncio.run(run_pipeline(pipeline, until_end=True, listen=sys.argv[2] if len(sys.argv) > 2 else None))
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"wall": wall, "cpu": cpu, "load": load, "kilobytes": kilobytes}))
"""


COLLECTOR = """\
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def collector() -> Iterator[str]:
    """Return the address of a collector that runs inside the block."""
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.communicate()


def otel(endpoint: str, share: float) -> dict[str, str]:
    """Return the variables that send traces of a share of the batches, and metrics at the end."""
    sampler = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(share)}
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **sampler}


def run(folder: Path, *, listens: bool = False, environ: Mapping[str, str] = {}) -> tuple[dict[str, float], int]:
    """Run the pipeline from the start; return what it measured, and how often it was asked."""
    shutil.rmtree(folder / "data" / ".consumers", ignore_errors=True)
    (folder / "out.lp").unlink(missing_ok=True)
    command = [sys.executable, "-c", RUN, str(folder / "p.yaml"), *(["127.0.0.1:0"] if listens else [])]
    environ = {**os.environ, **environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
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


class Nowhere(SpanExporter):
    """Takes spans, and drops them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


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

    provider = TracerProvider(TraceIdRatioBased(0.01))
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    every = TracerProvider()
    every.add_span_processor(BatchSpanProcessor(Nowhere()))

    def telling(traces: Traces) -> Callable[[], None]:
        """Return what a route does for each batch."""

        def tell() -> None:
            trace = traces.batch(batch, traces.now())
            trace.rendered(traces.now(), batch, Rendered())
            with requests_of([trace]).attempt(BATCH) as answer:
                answer.received(Accepted())
            trace.end()
            with acknowledging([trace]):
                pass

        return tell

    traced = [OtelTracing(each.get_tracer("bench")).route("r", None, "http://h:1") for each in (every, provider)]

    routes = [RouteStatus(f"r{number}", lag={Partition("s", "t", at): at for at in range(16)}) for number in range(10)]
    tree = {"version": "v", "python": "p", **Status(routes).as_public()}
    letters = [DeadLetter(each, "m", "h", [Reason("IFX340", "expected a number", "/points")]) for each in messages[:10]]
    for route in routes:
        route.newest = with_newest((), letters, 1e9)
    site = Site(lambda: {"time_unix": 1e9, **tree, **Status(routes).as_public("payloads")})
    resource, scope = Resource({}), InstrumentationScope("")
    rendering, counting, answering, showing, sending, *told = best_seconds(
        [
            lambda: plan.render(messages),
            count,
            lambda: exposed(tree, as_openmetrics=True),
            lambda: answer(Request("GET", "/status"), site),
            lambda: encode_metrics(metrics_data({**tree}, resource, scope, 1)).SerializeToString(),
            *map(telling, (Traces(), *traced)),
        ],
        30,
    )
    names = "without OpenTelemetry", "to OpenTelemetry", "to OpenTelemetry, 1% kept"
    share = counting / rendering
    return [
        Figure(
            "count bytes, size, age of a batch", counting * 1e6, "µs", "its rendering", share, "< 0.01", share < 0.01
        ),
        *(
            Figure(
                f"tell of a batch, {name}",
                seconds * 1e6,
                "µs",
                "its rendering",
                seconds / rendering,
                "< 0.05",
                seconds / rendering < 0.05,
            )
            for name, seconds in zip(names, told, strict=True)
        ),
        Figure("the same metrics for OTLP", sending * 1e3, "ms"),
        Figure("/metrics of 10 routes, 160 partitions", answering * 1e3, "ms"),
        Figure("/status of them, 100 dead letters", showing * 1e3, "ms"),
    ]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory() as name, collector() as endpoint:
        folder = Path(name)
        fill(folder, count)
        run(folder, listens=True)  # files are in the cache of the system now
        rounds, traced, loads = [], dict[float, list[float]](), list[float]()
        for _ in range(ROUNDS):
            rounds.append((run(folder)[0], *run(folder, listens=True)))
            for share in (1.0, 0.01):
                measured, _ = run(folder, environ=otel(endpoint, share))
                traced.setdefault(share, []).append(measured["cpu"])
                loads.append(measured["load"])
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
            *(
                Figure(
                    f"… OpenTelemetry, {share:.0%} of the batches",
                    min(cpu) / count * 1e6,
                    "µs/msg",
                    "without",
                    min(cpu) / plain,
                )
                for share, cpu in traced.items()
            ),
            Figure("… OpenTelemetry, loaded: CPU", min(loads) * 1e3, "ms"),
            Figure("… questions a second", asked / seconds, "1/s"),
            Figure("… memory more", memory / 1000, "MB", "", None, "< 10", memory < 10_000),
            *figures,
        ],
    )


if __name__ == "__main__":
    main()
