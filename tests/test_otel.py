"""What OpenTelemetry's variables ask for, and what a collector gets of a run."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import Histogram, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.parser import text_string_to_metric_families

from iggyflux.errors import PipelineError
from iggyflux.runner import Summary, run_pipeline
from iggyflux.runner.exporting import MOST_FLUSH_SECONDS
from iggyflux.sim import SimServer
from iggyflux.telemetry.exposition import exposed
from iggyflux.telemetry.metrics import METRICS
from iggyflux.telemetry.otel_metrics import MetricSender, metrics_data, otel_name
from iggyflux.telemetry.otel_settings import Export, exports_of
from iggyflux.telemetry.otel_traces import MOST_LETTERS, MOST_LINKS, MOST_LOOKED_AT
from tests.iggy_server import free_ports
from tests.metrics_watch import tree_of
from tests.otlp_server import Collector, attributes, collecting
from tests.pages import blocks
from tests.test_telemetry import (
    ENVIRONMENT,
    MAPPING,
    PAYLOAD_CANARY,
    SECRET_PIPELINE,
    _write,
    full_status,
    garden,
    measured,
)

PLAIN = """\
iggyflux: 1
from: log:data
to: file:out.lp
run: [{mapping: env.yaml}]
"""
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES, METRICS_ = Export("traces", "otlp"), Export("metrics", "otlp")

# --- what is asked for ---


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_RESOURCE_ATTRIBUTES": "a=b", "OTEL_TRACES_SAMPLER": "nothing"}, []),
        ({ENDPOINT: "http://c:4318"}, [TRACES, METRICS_]),
        ({ENDPOINT: ""}, []),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": " TRUE "}, []),
        ({ENDPOINT: "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, [TRACES]),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c/x"}, [METRICS_]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console,otlp"}, [TRACES, Export("traces", "console")]),
        (
            {
                ENDPOINT: "c",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            },
            [Export("traces", "otlp", "grpc"), METRICS_],
        ),
        ({ENDPOINT: "c", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}, [TRACES, METRICS_]),
    ],
)
def test_what_the_variables_ask_for(environ: dict[str, str], expected: list[Export]) -> None:
    assert exports_of(environ) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "HTTP"),
        ("OTEL_TRACES_SAMPLER", "always"),
        ("OTEL_TRACES_SAMPLER_ARG", "1 %"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1m"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
    ],
)
def test_a_variable_that_is_not_understood_is_an_error_that_names_it(variable: str, value: str) -> None:
    environ = {ENDPOINT: "http://c:4318", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", variable: value}
    with pytest.raises(PipelineError) as caught:
        exports_of(environ)

    assert {problem.code for problem in caught.value.problems} == {"IFX823"}
    assert all(variable in problem.message and problem.hint for problem in caught.value.problems)


# --- metrics ---


def translated(name: str, unit: str, data: object) -> str:
    """Return the name that Prometheus gives a metric of OpenTelemetry."""
    base = name.replace(".", "_") + {"": "", "s": "_seconds", "By": "_bytes"}[unit]
    return f"{base}_total" if isinstance(data, Sum) else base


def samples_of(status: Any) -> dict[tuple[str, ...], float]:
    """Return the data as samples by the names and labels of Prometheus."""
    data = metrics_data(tree_of(status), Resource({}), InstrumentationScope("x"), 7_000_000_000)
    found: dict[tuple[str, ...], float] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        name = translated(metric.name, metric.unit or "", metric.data)
        for point in metric.data.data_points:
            given = dict(point.attributes or {})
            if isinstance(metric.data, Histogram):
                bounds = [*map(str, map(float, point.explicit_bounds)), "+Inf"]  # type: ignore[union-attr]
                counts = accumulate(point.bucket_counts)  # type: ignore[union-attr, arg-type]
                for bound, count in zip(bounds, counts, strict=True):
                    found[f"{name}_bucket", *_values({**given, "le": bound})] = count
                found[f"{name}_sum", *_values(given)] = point.sum  # type: ignore[union-attr]
                found[f"{name}_count", *_values(given)] = point.count  # type: ignore[union-attr]
            else:
                found[name, *_values(given)] = point.value  # type: ignore[union-attr]
    return found


def _values(labels: dict[str, Any]) -> list[str]:
    return [str(value) for _, value in sorted(labels.items())]


def scraped(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *_values(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def test_metrics_are_those_of_prometheus_with_the_same_values_and_bounds() -> None:
    """Every one, under a name that Prometheus translates back, so that one dashboard shows both."""
    status = full_status()

    assert samples_of(status) == scraped(exposed(tree_of(status), as_openmetrics=False)[0].decode())
    assert len({otel_name(metric) for metric in METRICS}) == len(METRICS)


class Exported:
    """An exporter that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.is_over = False

    def export(self, data: Any) -> None:
        self.sent.append(data)

    def shutdown(self) -> None:
        self.is_over = True


def test_metrics_go_on_after_they_could_not_be_made(caplog: pytest.LogCaptureFixture) -> None:
    """And each outage is logged once."""
    script = iter([True, False, False, True, False])  # then all is well
    exporter, tree = Exported(), tree_of(full_status())

    def status() -> Any:
        if not next(script, True):
            raise RuntimeError("dictionary changed size during iteration")
        return tree

    sender = MetricSender(exporter, status, Resource({}), InstrumentationScope("x"), 0.01)  # type: ignore[arg-type]
    end = time.monotonic() + 60
    while len(exporter.sent) < 4 and time.monotonic() < end:
        time.sleep(0.01)
    sender.shutdown()

    assert len(exporter.sent) >= 4
    assert exporter.is_over
    assert [record.getMessage() for record in caplog.records] == ["otel.metrics_broken"] * 2


# --- a run and a collector ---


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Any:
    with collecting() as found:
        monkeypatch.setenv(ENDPOINT, found.url)
        yield found


def run(folder: Path, payloads: list[bytes], text: str = PLAIN, mapping: str = MAPPING) -> Summary:
    pipeline = garden(folder, payloads, text, mapping)
    return asyncio.run(asyncio.wait_for(run_pipeline(pipeline, until_end=True), 60))


def test_a_collector_gets_the_spans_and_the_last_metrics_of_a_run(tmp_path: Path, collector: Collector) -> None:
    summary = run(tmp_path, [*map(measured, range(300)), b"nothing"])

    roots = [span for span in collector.spans if not span.parent_span_id]
    assert {span.name for span in roots} == {"process garten/klima"}
    assert sum(attributes(span)["messaging.batch.message_count"] for span in roots) == 301
    assert {span.name for span in collector.spans} == {
        "process garten/klima", "poll garten/klima", "render", "write", "ack garten/klima",
    }  # fmt: skip
    (event,) = [event for span in roots for event in span.events]
    assert (tmp_path / "dead-letters/beete").as_posix() in attributes(event)["iggyflux.file"]
    (read,) = collector.last_metrics["iggyflux.messages_read"].sum.data_points
    assert (read.as_int, attributes(read)) == (summary.routes[0].read, {"route": "beete"}) == (301, {"route": "beete"})
    (points,) = collector.last_metrics["iggyflux.request_points"].histogram.data_points
    assert (points.sum, not points.HasField("min")) == (300, True)
    assert read.start_time_unix_nano < read.time_unix_nano
    for kind in ("traces", "metrics"):
        assert collector.resource(kind)["service.name"] == "iggyflux"


def test_the_standard_variables_reach_the_exporters(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OTEL_SERVICE_NAME": "beete",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=k",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_METRIC_EXPORT_INTERVAL": "20",
    }.items():
        monkeypatch.setenv(name, value)
    run(tmp_path, [*map(measured, range(300))])

    assert collector.spans == []
    assert {"service.name": "beete", "deployment.environment.name": "test"}.items() <= collector.resource(
        "metrics"
    ).items()
    assert {(each["x-key"], each["content-encoding"]) for each in collector.headers} == {("k", "gzip")}


@pytest.mark.parametrize("status", [503, None, "away"])
def test_a_collector_that_fails_costs_one_warning_and_no_message(tmp_path: Path, status: Any) -> None:
    """It refuses, hangs or is away: the run delivers the same, and says so in its own words."""
    with collecting(None if status == "away" else status) as found:
        port = free_ports(1)[0] if status == "away" else found.url.rpartition(":")[2]
        done = command(
            tmp_path,
            count=2_000,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://canary-user:canary-word@127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_HEADERS="authorization=canary-key,canary no header",
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
            OTEL_METRICS_EXPORTER="none",
            OTEL_BSP_SCHEDULE_DELAY="10",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",  # so that more than one export fails
        )

    assert done.returncode == 0
    assert len((tmp_path / "out.lp").read_bytes().splitlines()) == 2_000
    assert [line.split()[1:4] for line in done.stderr.splitlines()] == [
        ["WARNING", "otel.warning", "source=opentelemetry.util.re"],  # the header that is none
        ["WARNING", "otel.not_exported", "signal=traces"],
    ]
    assert "canary" not in done.stdout + done.stderr


@pytest.fixture
def _log_as_before() -> Iterator[None]:
    """A run that does not wait for its exporters keeps the SDK's log, and pytest would take that for its own."""
    yield
    foreign = logging.getLogger("opentelemetry")
    foreign.handlers.clear()
    foreign.propagate = True


@pytest.mark.usefixtures("_log_as_before")
def test_the_log_of_the_sdk_stays_out_of_that_of_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that runs a pipeline may log everything; the SDK's records quote addresses and headers."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "canary no header")
    with collecting(400) as found:
        monkeypatch.setenv(ENDPOINT, found.url)
        run(tmp_path, [measured(1)])

    assert "otel.not_exported" in caplog.text
    assert [record.name for record in caplog.records if record.name.startswith("opentelemetry")] == []
    assert "canary" not in caplog.text


@pytest.mark.usefixtures("_log_as_before")
def test_the_end_of_a_run_waits_for_no_collector_longer_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20")
    with collecting(None) as found:
        monkeypatch.setenv(ENDPOINT, found.url)
        pipeline = garden(tmp_path, [measured(1)], PLAIN.replace("run:", "shutdown_timeout: 200ms\nrun:"))
        began = time.monotonic()
        summary = asyncio.run(run_pipeline(pipeline, until_end=True))
        seconds = time.monotonic() - began

    assert summary.exit_code == 0
    assert seconds - summary.seconds < 15, "the exporter itself would wait for 20 s, and the SDK for 30 s"
    assert MOST_FLUSH_SECONDS < 7


PAGE = Path(__file__).parent.parent / "docs" / "tracing.md"


def test_the_commands_of_the_page_send_to_a_collector(tmp_path: Path) -> None:
    """docs/tracing.md, with the pipeline and the port of this test."""
    (block,) = [block for block in blocks(PAGE) if block["runs"]]
    install, export, _run = block["text"].splitlines()
    name, _, url = export.removeprefix("export ").partition("=")
    with collecting() as found:
        assert (install, url) == ("pip install 'iggyflux[otel]'", "http://localhost:4318")
        done = command(tmp_path, **{name: found.url})

    assert (done.returncode, done.stderr) == (0, "")
    assert found.spans and found.metrics


def test_the_page_names_the_bounds_of_the_code() -> None:
    text = " ".join(PAGE.read_text("utf-8").split())

    assert f"at most {MOST_LINKS}, of the first {MOST_LOOKED_AT} messages" in text
    assert f"The first {MOST_LETTERS} of a batch" in text
    assert f"at most {MOST_FLUSH_SECONDS:.0f} s" in text


# --- secrets ---


@pytest.mark.parametrize("end", ["on_error: fail", "on_error: dead_letter"])
def test_no_span_and_no_metric_holds_a_secret_or_a_part_of_a_message(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    """Also where the server quotes a message in its refusal, and the route stops with these words."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=canary-of-the-collector")
    wrong = json.dumps({"art": PAYLOAD_CANARY, "beet": "x", "feuchte": PAYLOAD_CANARY, "um": 1_700_000_000}).encode()
    broken = b"canary-no-json"
    with SimServer(2, token=ENVIRONMENT["CANARY_TOKEN"]) as sim:
        _write(sim, f"{PAYLOAD_CANARY},beet=x feuchte=1.5 1700000000000000000")
        summary = run(
            tmp_path, [wrong, broken], SECRET_PIPELINE.format(url=sim.url, show="payloads"), MAPPING + f"{end}\n"
        )

    assert summary.routes[0].requests or "fail" in end
    assert any(span.name == "POST" for span in collector.spans) or "fail" in end
    assert collector.traces and collector.metrics
    assert not [body for body in collector.bodies if b"canary" in body]
    assert "canary-of-the-collector" not in caplog.text


# --- what is not installed, and what is not asked for ---

RUN = """\
import sys
{before}
from iggyflux.cli import main
import atexit
foreign = ("opentelemetry", "google")
atexit.register(lambda: print("loaded:", *[name for name in sys.modules if name.startswith(foreign)]))
sys.argv = ["iggyflux", "run", "p.yaml", "--until-end", "--quiet"]
main()
"""


def command(folder: Path, before: str = "", count: int = 1, **environ: str) -> subprocess.CompletedProcess[str]:
    garden(folder, [*map(measured, range(count))], PLAIN)
    return subprocess.run(
        [sys.executable, "-c", RUN.format(before=before)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "environ", [{}, {"OTEL_SERVICE_NAME": "x"}, {ENDPOINT: "http://c:1", "OTEL_SDK_DISABLED": "true"}]
)
def test_a_run_that_sends_nothing_loads_nothing_of_opentelemetry(tmp_path: Path, environ: dict[str, str]) -> None:
    done = command(tmp_path, **environ)

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "loaded:", "")


def test_without_the_extra_a_run_that_should_send_says_what_to_install(tmp_path: Path) -> None:
    done = command(tmp_path, "sys.modules['opentelemetry'] = None", **{ENDPOINT: "http://c:1"})

    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "error[IFX824]")
    assert "pip install 'iggyflux[otel]'" in done.stderr
    assert not (tmp_path / "out.lp").exists()


def test_grpc_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)
    monkeypatch.setenv(ENDPOINT, "http://c:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(PipelineError) as caught:
        run(tmp_path, [measured(1)])

    (problem,) = caught.value.problems
    assert (problem.code, "pip install opentelemetry-exporter-otlp-proto-grpc" in str(problem.hint)) == ("IFX824", True)
