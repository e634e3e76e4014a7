"""The metrics of a status in the formats of Prometheus: the only file that knows prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from iggyflux.escapes import escaped
from iggyflux.telemetry.metrics import METRICS, Metric, Tree

_FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}


OPENMETRICS = "application/openmetrics-text"
_ACCEPT = f"{OPENMETRICS}; version=1.0.0"  # and never what a client wrote, of which a part would be in the answer


def exposed(status: Tree, *, as_openmetrics: bool) -> tuple[bytes, str]:
    """Return the metrics of a status as OpenMetrics or as Prometheus' text, and the content type."""
    encode, content_type = choose_encoder(_ACCEPT if as_openmetrics else "")
    registry = CollectorRegistry()
    registry.register(_Collector(status))
    ProcessCollector(registry=registry)  # memory, CPU and files of the process, where /proc tells them
    return encode(registry), content_type


class _Collector(Collector):
    def __init__(self, status: Tree) -> None:
        self._status = status

    def collect(self) -> Iterable[Family]:
        return map(self._family, METRICS)

    def _family(self, metric: Metric) -> Family:
        if metric.type == "histogram":
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.all_labels, unit=metric.unit)
            for labels, value in metric.samples(self._status):
                if isinstance(value, Mapping):
                    bounds = [*map(str, map(float, value["bounds"])), "+Inf"]
                    buckets = zip(bounds, accumulate(value["counts"]), strict=True)
                    histogram.add_metric(list(map(escaped, labels)), list(buckets), value["sum"])
            return histogram
        name = metric.name.removesuffix("_total")
        family = _FAMILIES[metric.type](name, metric.help, labels=metric.all_labels, unit=metric.unit)
        for labels, value in metric.samples(self._status):
            if not isinstance(value, Mapping):
                family.add_metric(list(map(escaped, labels)), value)
        return family
