"""Writes deploy/grafana/iggyflux.json, a dashboard, from the table of metrics.

`python deploy/dashboard.py` writes it; `python deploy/dashboard.py --check` fails if it is not current.

A query is made by a function that looks its metric up in the table, with its type and labels.  So no panel can name
what does not exist, or take the rate of a gauge.  The description of a panel is the help of its metrics.  A query says
nothing where there is no data: a process that is down must not look like one without faults.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from iggyflux.telemetry.metrics import METRICS, STATES, Metric

FILE: Final = Path(__file__).resolve().parent / "grafana" / "iggyflux.json"
PROCESS: Final = (
    ("process_cpu_seconds_total", "counter", "CPU time of the process."),
    ("process_resident_memory_bytes", "gauge", "Memory of the process that is in RAM."),
    ("process_open_fds", "gauge", "Open files and connections of the process."),
)
"""What prometheus_client tells of the process, where there is /proc."""
TABLE: Final = {metric.name: metric for metric in METRICS} | {
    name: Metric(name, kind, text, lambda _: (), of_route=False)  # type: ignore[arg-type]  # a word of the table above
    for name, kind, text in PROCESS
}

# --- queries ---


@dataclass(frozen=True)
class Query:
    """An expression of PromQL, the legend of its series, and the metrics that it reads."""

    expr: str
    legend: str
    metrics: tuple[Metric, ...]

    def then(self, more: str) -> Query:
        """Return the query with `more` after the expression."""
        return replace(self, expr=f"{self.expr} {more}")

    def named(self, word: str) -> Query:
        """Return the query with `word` before the legend."""
        return replace(self, legend=f"{word} {self.legend}".rstrip())

    def by(self, other: Query) -> Query:
        """Return the quotient of two queries that have the same labels."""
        return Query(f"{self.expr} / {other.expr}", self.legend, self.metrics + other.metrics)


def selected(name: str, kind: str, labels: Sequence[str], part: str = "") -> tuple[str, Metric]:
    """Return the selector of a metric, or of a `part` of a histogram; it must be a `kind` with these labels."""
    metric = TABLE[name]
    if metric.type != kind:
        raise ValueError(f"{name} is a {metric.type}, not a {kind}")
    if unknown := {*labels} - {*metric.all_labels, "instance"}:
        raise ValueError(f"{name} has no label {', '.join(sorted(unknown))}")
    of_route = ', route=~"$route"' if metric.of_route else ""
    return f'{name}{part}{{job=~"$job", instance=~"$instance"{of_route}}}', metric


def legend(labels: Sequence[str]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def grouped(function: str, labels: Sequence[str], inner: str) -> str:
    return f"{function} by ({', '.join(labels)}) ({inner})"


def rate(name: str, *labels: str) -> Query:
    """Return how much a counter grows in a second."""
    selector, metric = selected(name, "counter", labels)
    return Query(grouped("sum", labels, f"rate({selector}[$__rate_interval])"), legend(labels), (metric,))


def growth(name: str, *labels: str, window: str = "$__rate_interval") -> Query:
    """Return how much a counter grew in a window of time; `$__range` is what the dashboard shows."""
    selector, metric = selected(name, "counter", labels)
    return Query(grouped("sum", labels, f"increase({selector}[{window}])"), legend(labels), (metric,))


def gauge(name: str, *labels: str, function: str = "sum") -> Query:
    """Return the sum of a gauge, or its `max` or `min`."""
    selector, metric = selected(name, "gauge", labels)
    return Query(grouped(function, labels, selector), legend(labels), (metric,))


def quantile(part: float, name: str, *labels: str) -> Query:
    """Return a quantile of a histogram, estimated from its buckets."""
    selector, metric = selected(name, "histogram", labels, "_bucket")
    inner = grouped("sum", ("le", *labels), f"rate({selector}[$__rate_interval])")
    return Query(f"histogram_quantile({part}, {inner})", f"{part:.0%} {legend(labels)}", (metric,))


def mean(name: str, *labels: str) -> Query:
    """Return the mean of a histogram."""
    above, below = (
        grouped("sum", labels, f"rate({selected(name, 'histogram', labels, part)[0]}[$__rate_interval])")
        for part in ("_sum", "_count")
    )
    return Query(f"{above} / {below}", legend(labels), (TABLE[name],))


def states() -> Query:
    """Return the state of each route as its number in STATES."""
    selector, metric = selected("iggyflux_route_state", "gauge", ("route", "state"))
    numbered = (f'{selector[:-1]}, state="{state}"}} * {number}' for number, state in enumerate(STATES))
    labels = ("instance", "route")
    return Query(grouped("sum", labels, " or ".join(numbered)), legend(labels), (metric,))


def unconnected() -> Query:
    """Return how many routes are not connected."""
    selector, metric = selected("iggyflux_route_connected", "gauge", ())
    return Query(f"sum({selector} == bool 0)", "", (metric,))


# --- panels ---


@dataclass(frozen=True)
class Panel:
    """A panel: its queries, its kind and unit as Grafana names them, and colours from values on."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    steps: tuple[tuple[float, str], ...] = ()


def number(title: str, query: Query, unit: str = "short", **more: Any) -> Panel:
    """Return a panel with one number."""
    return Panel(title, (query,), unit, "stat", width=4, **more)


RED: Final = ((1.0, "red"),)
ORANGE: Final = ((1.0, "orange"),)
SINK: Final = ("route", "server")
PLACE: Final = ("route", "topic", "partition")

ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Overview": (
        number("Routes not connected", unconnected(), steps=RED),
        number("Sinks away", gauge("iggyflux_server_away"), steps=RED),
        number("Messages behind", gauge("iggyflux_lag_messages")),
        number("Dead letters", growth("iggyflux_dead_letters_total", window="$__range"), steps=ORANGE),
        number("Starving partitions", gauge("iggyflux_starving_partitions"), steps=RED),
        number("Last start", gauge("iggyflux_start_time_seconds", function="max").then("* 1000"), "dateTimeFromNow"),
        Panel("States", (states(),), kind="state-timeline", width=24),
    ),
    "Throughput": (
        Panel("Messages read", (rate("iggyflux_messages_read_total", "route"),), "mps"),
        Panel("Points accepted", (rate("iggyflux_points_written_total", *SINK),), "cps"),
        Panel(
            "Bytes",
            (
                rate("iggyflux_read_bytes_total", "route").named("read"),
                rate("iggyflux_sent_bytes_total", *SINK).named("sent"),
            ),
            "Bps",
        ),
        Panel("Messages settled", (rate("iggyflux_messages_acknowledged_total", "route"),), "mps"),
        Panel("Points made", (rate("iggyflux_points_rendered_total", "route"),), "cps"),
        Panel(
            "Messages without points",
            (
                rate("iggyflux_messages_skipped_total", "route").named("where"),
                rate("iggyflux_messages_empty_total", "route").named("no elements"),
            ),
            "mps",
        ),
    ),
    "Lag": (
        Panel("Lag by partition", (gauge("iggyflux_lag_messages", *PLACE),), width=12),
        Panel(
            "Age of messages when they are settled",
            (
                quantile(0.5, "iggyflux_message_age_seconds", "route"),
                quantile(0.99, "iggyflux_message_age_seconds", "route"),
            ),
            "s",
            width=12,
        ),
        Panel(
            "Partitions of the member", (gauge("iggyflux_group_partitions", "instance", "route", "topic"),), width=12
        ),
        Panel(
            "Messages that starve", (gauge("iggyflux_starving_messages", "group", "topic", function="max"),), width=12
        ),
    ),
    "Errors and dead letters": (
        Panel("Dead letters by reason", (rate("iggyflux_dead_letter_reasons_total", "route", "code"),), "mps"),
        Panel("Dead letters removed", (growth("iggyflux_dead_letters_removed_total", "route", "replayed"),)),
        Panel(
            "Records that could not be mapped, by reason",
            (rate("iggyflux_failure_reasons_total", "route", "code"),),
            "cps",
        ),
        Panel("Points refused, by reason", (rate("iggyflux_refusal_reasons_total", "route", "code"),), "cps"),
        Panel("Messages dropped, by reason", (rate("iggyflux_drop_reasons_total", "route", "code"),), "mps"),
        Panel(
            "Failures, of all reasons",
            (
                rate("iggyflux_records_failed_total", "route").named("not mapped"),
                rate("iggyflux_points_refused_total", "route").named("refused"),
                rate("iggyflux_messages_dropped_total", "route").named("dropped"),
            ),
            "cps",
        ),
        Panel(
            "Data that may be wrong",
            (
                rate("iggyflux_values_omitted_total", "route").named("values omitted"),
                rate("iggyflux_messages_undeclared_total", "route").named("with undeclared fields"),
                rate("iggyflux_collisions_total", "route").named("collisions"),
                rate("iggyflux_points_implausible_total", "route").named("implausible times"),
                rate("iggyflux_points_too_old_total", "route").named("beyond the retention"),
            ),
            "cps",
        ),
        Panel("Errors that stopped routes", (gauge("iggyflux_route_error", "instance", "route", "code"),), steps=RED),
        Panel(
            "Batches that generated code could not render", (growth("iggyflux_fallbacks_total", "route"),), steps=RED
        ),
        Panel(
            "Series, of their limit",
            (gauge("iggyflux_series_known", "route").by(gauge("iggyflux_series_limit", "route")),),
            "percentunit",
            steps=((0.8, "orange"), (1.0, "red")),
        ),
    ),
    "Requests": (
        Panel("Requests sent", (rate("iggyflux_requests_total", *SINK),), "reqps"),
        Panel(
            "Duration of requests",
            (
                quantile(0.5, "iggyflux_request_duration_seconds", *SINK),
                quantile(0.99, "iggyflux_request_duration_seconds", *SINK),
            ),
            "s",
        ),
        Panel("Points of a request", (mean("iggyflux_request_points", *SINK),)),
        Panel(
            "Requests sent again, of all",
            (rate("iggyflux_retries_total", *SINK).by(rate("iggyflux_requests_total", *SINK)),),
            "percentunit",
        ),
        Panel("Requests sent again, by reason", (rate("iggyflux_retry_reasons_total", *SINK, "reason"),), "reqps"),
        Panel("Requests in flight", (gauge("iggyflux_requests_in_flight", *SINK),)),
        Panel("Points written, by bucket", (rate("iggyflux_bucket_points_written_total", "route", "bucket"),), "cps"),
        Panel("Points refused, by bucket", (rate("iggyflux_bucket_points_refused_total", "route", "bucket"),), "cps"),
        Panel("Buckets that are away", (gauge("iggyflux_bucket_away", "route", "bucket", function="max"),), steps=RED),
        Panel("Requests that wait for a bucket", (gauge("iggyflux_bucket_requests_waiting", "route", "bucket"),)),
        Panel("How long servers keep points", (gauge("iggyflux_retention_seconds", *SINK, function="max"),), "s"),
        Panel("Connections lost or refused", (growth("iggyflux_reconnects_total", "route"),), width=12),
        Panel(
            "Time until the next attempt", (gauge("iggyflux_backoff_seconds", "route", function="max"),), "s", width=12
        ),
    ),
    "Readers": (
        Panel(
            "Time that is not read",
            (
                gauge("iggyflux_reader_behind_seconds", "route", function="max").named("in all"),
                gauge("iggyflux_reader_gap_seconds", "route", function="max").named("gap"),
            ),
            "s",
        ),
        Panel("Windows", (rate("iggyflux_reader_windows_total", "route"),), "cps"),
        Panel(
            "Duration of queries",
            (
                quantile(0.5, "iggyflux_query_duration_seconds", "route", "server"),
                quantile(0.99, "iggyflux_query_duration_seconds", "route", "server"),
            ),
            "s",
        ),
        Panel(
            "Rows seen again, late or changed",
            (
                rate("iggyflux_reader_rows_seen_again_total", "route").named("seen again"),
                rate("iggyflux_reader_rows_late_total", "route").named("late"),
                rate("iggyflux_reader_rows_changed_total", "route").named("changed"),
            ),
            "rowsps",
        ),
        Panel(
            "Read up to",
            (gauge("iggyflux_reader_position_timestamp_seconds", "route", function="max").then("* 1000"),),
            "dateTimeAsIso",
            "stat",
            width=24,
        ),
    ),
    "Changes of mappings": (
        Panel("Refused, and not corrected", (gauge("iggyflux_configuration_refused", "instance"),), steps=RED),
        Panel("Changes", (growth("iggyflux_configuration_changes_total", "instance", "result"),)),
        Panel("Routes that wait for messages in flight", (gauge("iggyflux_route_changing", "route"),)),
    ),
    "Process": (
        Panel("CPU, of one core", (rate("process_cpu_seconds_total", "instance"),), "percentunit"),
        Panel("Memory", (gauge("process_resident_memory_bytes", "instance"),), "bytes"),
        Panel("Open files and connections", (gauge("process_open_fds", "instance"),)),
        Panel(
            "CPU of workers, of one core",
            (rate("iggyflux_worker_cpu_seconds_total", "instance", "worker"),),
            "percentunit",
        ),
        Panel("Memory of workers", (gauge("iggyflux_worker_resident_memory_bytes", "instance", "worker"),), "bytes"),
        Panel("Workers that run", (gauge("iggyflux_worker_up", "instance"),)),
        Panel("Restarts of workers", (growth("iggyflux_worker_restarts_total", "instance", "worker"),)),
        Panel(
            "Routes",
            (gauge("iggyflux_route_info", "instance", "route", "kind", "mapping", "plan", "source", "sink"),),
            kind="table",
            width=16,
        ),
        Panel("Versions", (gauge("iggyflux_build_info", "instance", "version", "python"),), kind="table"),
    ),
}

# --- Grafana ---

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
HEIGHTS: Final = {"stat": 4, "state-timeline": 6, "table": 7, "timeseries": 8}
COLORS: Final = {
    "starting": "blue",
    "connecting": "orange",
    "running": "green",
    "idle": "super-light-green",
    "finishing": "light-blue",
    "done": "purple",
    "interrupted": "dark-orange",
    "stopped": "red",
}
COLUMNS: Final = 24

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "stat": {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
    "state-timeline": {"mergeValues": True, "showValue": "auto", "legend": {"showLegend": False}},
    "table": {"showHeader": True},
    "timeseries": {
        "legend": {
            "calcs": ["lastNotNull", "max"],
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
}
HIDDEN_COLUMNS: Final = {"organize": {"excludeByName": {"Time": True, "Value": True}}}


def panel_of(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """Return a panel as Grafana stores it."""
    at_once = panel.kind in ("stat", "table")
    steps = [{"color": "green", "value": None}, *({"color": color, "value": value} for value, color in panel.steps)]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        defaults |= {"color": {"mode": "palette-classic"}, "min": 0}
        shown = "dashed" if panel.steps else "off"
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never", "thresholdsStyle": {"mode": shown}}
    if panel.kind == "state-timeline":
        words = {str(at): {"text": state, "color": COLORS[state], "index": at} for at, state in enumerate(STATES)}
        defaults["mappings"] = [{"type": "value", "options": words}]
    targets = [
        {
            "datasource": SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "refId": chr(ord("A") + at),
            "instant": at_once,
            "range": not at_once,
            **({"format": "table"} if panel.kind == "table" else {}),
        }
        for at, query in enumerate(panel.queries)
    ]
    helps = dict.fromkeys(metric.help for query in panel.queries for metric in query.metrics)
    tables = [{"id": name, "options": value} for name, value in HIDDEN_COLUMNS.items()]
    return {
        "id": number,
        "title": panel.title,
        "description": " ".join(helps),
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHTS[panel.kind]},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": OPTIONS[panel.kind],
        "targets": targets,
        **({"transformations": tables} if panel.kind == "table" else {}),
    }


def panels() -> list[dict[str, Any]]:
    """Return the rows with their panels, each from left to right."""
    found: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        at = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        found.append(
            {"id": len(found) + 1, "title": title, "type": "row", "collapsed": False, "gridPos": at, "panels": []}
        )
        x, y, height = 0, y + 1, 0
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            found.append(panel_of(panel, len(found) + 1, x, y))
            x, height = x + panel.width, max(height, HEIGHTS[panel.kind])
        y += height
    return found


def variable(label: str, *of: str) -> dict[str, Any]:
    """Return a choice among the values of a label, within the choices `of`."""
    inside = ", ".join(f'{each}=~"${each}"' for each in of)
    name = "iggyflux_route_info"
    if label not in (*TABLE[name].all_labels, "instance", "job"):
        raise ValueError(f"{name} has no label {label}")
    query = f"label_values({name}{{{inside}}}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }


def dashboard() -> dict[str, Any]:
    """Return the whole dashboard."""
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}
    return {
        "uid": "iggyflux",
        "title": "iggyflux",
        "description": "Runs of iggyflux: docs/metrics.md. Made by deploy/dashboard.py: change that, not this file.",
        "tags": ["iggyflux"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [source, variable("job"), variable("instance", "job"), variable("route", "job", "instance")]
        },
        "annotations": {"list": []},
        "panels": panels(),
    }


def main() -> int:
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        FILE.write_text(text, "utf-8")
        return 0
    is_stale = not FILE.exists() or FILE.read_text("utf-8") != text
    if is_stale:
        print(f"not up to date: {FILE.name} (python deploy/dashboard.py)", file=sys.stderr)
    return int(is_stale)


if __name__ == "__main__":
    sys.exit(main())
