"""The table of metrics as OpenTelemetry's data: what `/metrics` shows, under names that Prometheus translates back.

| Prometheus                          | OpenTelemetry              | unit  |
|-------------------------------------|----------------------------|-------|
| `iggyflux_messages_read_total`      | `iggyflux.messages_read`   |       |
| `iggyflux_sent_bytes_total`         | `iggyflux.sent`            | `By`  |
| `iggyflux_request_duration_seconds` | `iggyflux.request_duration`| `s`   |

The data are made of the table each time they are sent, and not by the SDK's instruments: what is counted is counted
already, and an instrument that is asked has no histograms.  Sums count from the start of the run (cumulative).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OtelMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from iggyflux.escapes import escaped
from iggyflux.telemetry.metrics import METRICS, Metric, Tree, Value

_UNITS: Final = {"": "", "seconds": "s", "bytes": "By"}
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE


class MetricSender:
    """Sends the metrics of `status` to `exporter` in a thread of its own: every so often, and at the end."""

    def __init__(
        self,
        exporter: MetricExporter,
        status: Callable[[], Tree],
        resource: Resource,
        scope: InstrumentationScope,
        seconds: float,
    ) -> None:
        """Begin to send, every `seconds`."""
        self._exporter = exporter
        self._status = status
        self._resource = resource
        self._scope = scope
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="iggyflux-otel-metrics", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Send the last metrics and end; this takes as long as the collector does."""
        self._over.set()
        self._thread.join()
        self._exporter.shutdown()

    def _send_all(self) -> None:
        while not self._over.wait(self._seconds):
            self._send()
        self._send()

    def _send(self) -> None:
        self._exporter.export(metrics_data(self._status(), self._resource, self._scope, time.time_ns()))


def metrics_data(status: Tree, resource: Resource, scope: InstrumentationScope, now: int) -> MetricsData:
    """Return the metrics of a status; `now` is in nanoseconds since the epoch."""
    start = int(status["started_unix"] * 1e9)
    metrics = [found for metric in METRICS if (found := _metric(metric, status, start, now)) is not None]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])


def otel_name(metric: Metric) -> str:
    """Return a metric's name in OpenTelemetry: the first word is a namespace, the unit is not in it."""
    base = metric.name.removesuffix("_total")
    return (base.removesuffix(f"_{metric.unit}") if metric.unit else base).replace("_", ".", 1)


def _metric(metric: Metric, status: Tree, start: int, now: int) -> OtelMetric | None:
    samples = [
        (dict(zip(metric.all_labels, map(escaped, labels), strict=True)), value)
        for labels, value in metric.samples(status)
    ]
    if not samples:
        return None
    data: Sum | Gauge | Histogram
    if metric.type == "histogram":
        data = Histogram([_buckets(labels, value, start, now) for labels, value in samples], _CUMULATIVE)
    elif metric.type == "counter":
        data = Sum([_number(labels, value, start, now) for labels, value in samples], _CUMULATIVE, is_monotonic=True)
    else:
        data = Gauge([_number(labels, value, 0, now) for labels, value in samples])
    return OtelMetric(otel_name(metric), metric.help, _UNITS[metric.unit], data)


def _number(labels: Mapping[str, str], value: Value, start: int, now: int) -> NumberDataPoint:
    assert not isinstance(value, Mapping)  # noqa: S101  # only histograms are
    return NumberDataPoint(labels, start, now, value)


def _buckets(labels: Mapping[str, str], value: Value, start: int, now: int) -> HistogramDataPoint:
    assert isinstance(value, Mapping)  # noqa: S101  # of a histogram it is
    counts = value["counts"]
    least: Any = None  # as the largest value, it is not known; then OTLP omits both
    return HistogramDataPoint(labels, start, now, sum(counts), value["sum"], counts, value["bounds"], least, least)
