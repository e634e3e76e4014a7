"""The metrics of a run: one table, from which `/metrics`, docs/metrics.md and the dashboard are made.

Pure.  A metric says how it is read from the status, as `/status` and `--status-file` show it, so no number is kept
twice.  Names follow Prometheus: base units, `_total` for counters, the unit before it.  Labels are few and bounded:
names of routes, topics and partitions, addresses of servers, codes of codes.toml.  Never a series, a payload or a text
of a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

Tree: TypeAlias = Mapping[str, Any]
Value: TypeAlias = "float | Tree"
"""A number, or of a histogram its bounds, counts and sum."""
Sample: TypeAlias = tuple[tuple[str, ...], Value]
"""The values of the labels, and the value."""

MOST_SAMPLES: Final = 500
"""The most samples of one metric and route; what is left is added up under the label value `other`."""
OTHER: Final = "other"
STATES: Final = ("starting", "connecting", "running", "idle", "finishing", "done", "interrupted", "stopped")
CONNECTED: Final = frozenset(("running", "idle", "finishing", "done"))


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: `read` returns its samples from the status of a route, or of the run if it is not `of_route`.

    `labels` are those besides `route`.  Samples that are `additive` are added up where there are too many, others left
    out.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    read: Callable[[Tree], Iterable[Sample]]
    labels: tuple[str, ...] = ()
    unit: str = ""
    of_route: bool = True
    additive: bool = True

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The names of all labels."""
        return ("route", *self.labels) if self.of_route else self.labels

    def samples(self, status: Tree) -> Iterator[Sample]:
        """Yield the samples of a run."""
        if not self.of_route:
            yield from self.read(status)
            return
        for route in status["routes"]:
            for labels, value in self._bounded(sorted(self.read(route), key=lambda sample: sample[0])):
                yield (route["name"], *labels), value

    def _bounded(self, samples: Sequence[Sample]) -> Iterator[Sample]:
        yield from samples[:MOST_SAMPLES]
        rest = [value for _, value in samples[MOST_SAMPLES:] if isinstance(value, int | float)]
        if rest and self.additive:
            yield (OTHER,) * len(self.labels), sum(rest)


# --- how metrics are read ---


def _of(*keys: str) -> Callable[[Tree], Iterator[Sample]]:
    """Read a number that may be missing."""

    def read(tree: Tree) -> Iterator[Sample]:
        found: Any = tree
        for key in keys:
            found = None if found is None else found.get(key)
        if found is not None:
            yield (), found

    return read


def _at_sink(read: Callable[[Tree], Iterable[Sample]]) -> Callable[[Tree], Iterator[Sample]]:
    """Put the address of the sink's server before the other labels."""
    return lambda route: (((route["about"]["sink"] or "", *labels), value) for labels, value in read(route))


def _by_reason(counter: str) -> Callable[[Tree], Iterator[Sample]]:
    return lambda route: (((reason,), number) for reason, number in route["reasons"][counter].items())


def _by_bucket(key: str) -> Callable[[Tree], Iterator[Sample]]:
    return lambda route: (((name,), int(each[key])) for name, each in route.get("buckets", {}).items())


def _by_partition(key: str) -> Callable[[Tree], Iterator[Sample]]:
    def read(route: Tree) -> Iterator[Sample]:
        for place, number in route[key].items():
            topic, _, partition = place.rpartition("/")
            yield (topic, partition), number

    return read


def _by_group(value: Callable[[Tree], float]) -> Callable[[Tree], Iterator[Sample]]:
    return lambda route: (((group["group"], group["topic"]), value(group)) for group in route["groups"])


def _by_worker(value: Callable[[Tree], float]) -> Callable[[Tree], Iterator[Sample]]:
    return lambda run: (((str(worker["worker"]),), value(worker)) for worker in run.get("workers", ()))


def _time(*keys: str) -> Callable[[Tree], Iterator[Sample]]:
    """Read an RFC 3339 time as seconds since the epoch; nanoseconds are cut to microseconds."""
    number = _of(*keys)

    def read(tree: Tree) -> Iterator[Sample]:
        for labels, text in number(tree):
            whole, _, rest = str(text).removesuffix("Z").partition(".")
            yield labels, datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{rest or 0}")

    return read


def _query_seconds(route: Tree) -> Iterator[Sample]:
    if "reader" in route:
        yield (route["about"]["source"] or "",), route["histograms"]["query_seconds"]


def _gap_seconds(route: Tree) -> Iterator[Sample]:
    gap = (route.get("reader") or {}).get("backfill")
    if "reader" in route:
        begin, end = (_only(_time("at")({"at": text})) for text in gap) if gap else (0.0, 0.0)
        yield (), end - begin


def _only(samples: Iterable[Sample]) -> float:
    return next(value for _, value in samples if isinstance(value, int | float))


def _states(route: Tree) -> Iterator[Sample]:
    return (((state,), int(route["state"] == state)) for state in STATES)


def is_connected(route: Tree) -> bool:
    """Return whether a route has both of its ends: the source is connected, and the sink is not away."""
    return route["state"] in CONNECTED and not route["is_away"]


def _error(route: Tree) -> Iterator[Sample]:
    if route["error"] is not None:
        yield (route["error"]["code"],), 1


def _about(route: Tree) -> Iterator[Sample]:
    yield tuple(route["about"][key] or "" for key in _ABOUT), 1


_ABOUT = ("kind", "mapping", "plan", "source", "sink")


# --- the table ---

METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "iggyflux_build_info",
        "gauge",
        "The versions of iggyflux and Python; always 1.",
        lambda run: [((run["version"], run["python"]), 1)],
        ("version", "python"),
        of_route=False,
    ),
    Metric(
        "iggyflux_start_time_seconds",
        "gauge",
        "When the run began, since the epoch.",
        _of("started_unix"),
        unit="seconds",
        of_route=False,
    ),
    Metric(
        "iggyflux_configuration_refused",
        "gauge",
        "Whether the last change of a document was refused: the run goes on with other documents than those on disk.",
        lambda run: [((), int(run["configuration"]["refused"] is not None))],
        of_route=False,
    ),
    Metric(
        "iggyflux_configuration_changes_total",
        "counter",
        "Changes of documents during the run, by what came of them: accepted or refused.",
        lambda run: [((result,), number) for result, number in run["configuration"]["changes"].items()],
        ("result",),
        of_route=False,
    ),
    # workers, of a run that has several
    Metric(
        "iggyflux_worker_up",
        "gauge",
        "Whether the process of a worker runs; only with `run --workers`.",
        _by_worker(lambda worker: int(worker["state"] == "running")),
        ("worker",),
        of_route=False,
    ),
    Metric(
        "iggyflux_worker_restarts_total",
        "counter",
        "How often a worker was started again, after a crash.",
        _by_worker(lambda worker: worker["restarts"]),
        ("worker",),
        of_route=False,
    ),
    Metric(
        "iggyflux_worker_resident_memory_bytes",
        "gauge",
        "The resident memory of the process of a worker.",
        _by_worker(lambda worker: worker["resident_bytes"]),
        ("worker",),
        unit="bytes",
        of_route=False,
    ),
    Metric(
        "iggyflux_worker_cpu_seconds_total",
        "counter",
        "The CPU time of the processes of a worker.",
        _by_worker(lambda worker: worker["cpu_seconds"]),
        ("worker",),
        unit="seconds",
        of_route=False,
    ),
    Metric(
        "iggyflux_route_info",
        "gauge",
        "What the route is: its kind, mapping, plan (its identity), and the servers of its ends; 1.",
        _about,
        _ABOUT,
    ),
    # the state of a route
    Metric("iggyflux_route_state", "gauge", "1 for the state that the route is in, 0 for others.", _states, ("state",)),
    Metric(
        "iggyflux_route_changing",
        "gauge",
        "Whether a changed mapping waits until what is in flight is settled.",
        lambda route: [((), int(route["is_changing"]))],
    ),
    Metric(
        "iggyflux_route_connected",
        "gauge",
        "Whether both ends of the route are connected, and the sink is not away.",
        lambda route: [((), int(is_connected(route)))],
    ),
    Metric("iggyflux_route_error", "gauge", "The code of the error that stopped the route; 1.", _error, ("code",)),
    Metric(
        "iggyflux_reconnects_total",
        "counter",
        "Attempts to connect that failed, and connections that were lost.",
        _of("reconnects"),
    ),
    Metric(
        "iggyflux_backoff_seconds",
        "gauge",
        "How long the route waits until it tries a server again; 0 if it does not wait.",
        lambda route: [((), route["backoff_seconds"] or 0.0)],
        unit="seconds",
    ),
    # what is read
    Metric("iggyflux_messages_read_total", "counter", "Messages read; of a reader, rows.", _of("read")),
    Metric(
        "iggyflux_read_bytes_total",
        "counter",
        "Bytes of the payloads read; of a reader, of the answers to its queries, expanded.",
        _of("read_bytes"),
        unit="bytes",
    ),
    Metric(
        "iggyflux_messages_acknowledged_total",
        "counter",
        "Messages (of a reader, rows) settled, durably.",
        _of("acknowledged"),
    ),
    Metric("iggyflux_messages_skipped_total", "counter", "Messages that `where` omitted.", _of("skipped")),
    Metric("iggyflux_messages_empty_total", "counter", "Messages whose `for_each` had no element.", _of("empty")),
    Metric(
        "iggyflux_messages_undeclared_total",
        "counter",
        "Messages with fields that their schema does not declare: of protobuf, without `strict`.",
        _of("undeclared"),
    ),
    Metric(
        "iggyflux_lag_messages",
        "gauge",
        "Messages of a partition that are not settled.",
        _by_partition("lag"),
        ("topic", "partition"),
    ),
    Metric(
        "iggyflux_acknowledged_offset",
        "gauge",
        "The offset of a partition that was acknowledged last by this run; of a file, the position in bytes.",
        _by_partition("offsets"),
        ("topic", "partition"),
        additive=False,
    ),
    Metric(
        "iggyflux_message_age_seconds",
        "histogram",
        "How long ago the first message of a batch had arrived when the batch was acknowledged.",
        _of("histograms", "age_seconds"),
        unit="seconds",
    ),
    # what could not be delivered
    Metric("iggyflux_records_failed_total", "counter", "Records that could not be mapped.", _of("failed")),
    Metric(
        "iggyflux_failure_reasons_total",
        "counter",
        "Records that could not be mapped, by code.",
        _by_reason("failed"),
        ("code",),
    ),
    Metric("iggyflux_values_omitted_total", "counter", "Values that `on_bad_value: omit` left out.", _of("omitted")),
    Metric("iggyflux_points_refused_total", "counter", "Points that the server refused.", _of("refused")),
    Metric(
        "iggyflux_refusal_reasons_total",
        "counter",
        "Points that the server refused, by code.",
        _by_reason("refused"),
        ("code",),
    ),
    Metric("iggyflux_dead_letters_total", "counter", "Messages kept as dead letters.", _of("dead_letters")),
    Metric(
        "iggyflux_dead_letter_reasons_total",
        "counter",
        "Messages kept as dead letters, by the code of their first reason.",
        _by_reason("dead_letters"),
        ("code",),
    ),
    Metric(
        "iggyflux_dead_letters_removed_total",
        "counter",
        "Dead letters that retention removed, by whether they had been replayed.",
        lambda route: [(("no",), route["removed_letters"]), (("yes",), route["removed_replayed"])],
        ("replayed",),
    ),
    Metric("iggyflux_messages_dropped_total", "counter", "Messages that `on_error: skip` dropped.", _of("dropped")),
    Metric(
        "iggyflux_drop_reasons_total",
        "counter",
        "Messages that `on_error: skip` dropped, by the code of their first reason.",
        _by_reason("dropped"),
        ("code",),
    ),
    # what is written
    Metric("iggyflux_points_rendered_total", "counter", "Points made; of a reader, messages.", _of("points")),
    Metric(
        "iggyflux_points_written_total",
        "counter",
        "Points that the sink accepted; of a reader, messages.",
        _at_sink(_of("delivered")),
        ("server",),
    ),
    Metric(
        "iggyflux_sent_bytes_total",
        "counter",
        "Bytes of the bodies sent, compressed if they were; of a reader, of payloads. Repeated ones count each time.",
        _at_sink(_of("sent_bytes")),
        ("server",),
        unit="bytes",
    ),
    Metric("iggyflux_requests_total", "counter", "Requests sent.", _at_sink(_of("requests")), ("server",)),
    Metric(
        "iggyflux_retries_total",
        "counter",
        "Requests that had to be sent again.",
        _at_sink(_of("retries")),
        ("server",),
    ),
    Metric(
        "iggyflux_retry_reasons_total",
        "counter",
        "Requests sent again, by reason: http_503 and the like, too_large, connection_lost, no_answer, unreachable.",
        _at_sink(_by_reason("retries")),
        ("server", "reason"),
    ),
    Metric("iggyflux_requests_in_flight", "gauge", "Requests under way.", _at_sink(_of("in_flight")), ("server",)),
    Metric(
        "iggyflux_server_away",
        "gauge",
        "Whether the sink's server failed, and has not answered since.",
        _at_sink(lambda route: [((), int(route["is_away"]))]),
        ("server",),
    ),
    Metric(
        "iggyflux_request_duration_seconds",
        "histogram",
        "How long requests took until their answer, or until there was none.",
        _at_sink(_of("histograms", "request_seconds")),
        ("server",),
        unit="seconds",
    ),
    Metric(
        "iggyflux_request_points",
        "histogram",
        "Points of a request; of a reader, messages.",
        _at_sink(_of("histograms", "request_size")),
        ("server",),
    ),
    Metric(
        "iggyflux_bucket_points_written_total",
        "counter",
        "Points that a bucket accepted, where points choose their bucket.",
        _by_bucket("delivered"),
        ("bucket",),
    ),
    Metric(
        "iggyflux_bucket_points_refused_total",
        "counter",
        "Points that a bucket refused, where points choose their bucket.",
        _by_bucket("refused"),
        ("bucket",),
    ),
    Metric(
        "iggyflux_bucket_away",
        "gauge",
        "Whether a bucket is missing, full, forbidden or not reached, where points choose their bucket.",
        _by_bucket("is_away"),
        ("bucket",),
        additive=False,
    ),
    Metric(
        "iggyflux_bucket_requests_waiting",
        "gauge",
        "Full requests in the queue of a bucket; at 4 reading pauses.",
        _by_bucket("waiting"),
        ("bucket",),
    ),
    Metric(
        "iggyflux_collisions_total",
        "counter",
        "Points that overwrote a field of one of another message in the same request.",
        _of("collisions"),
    ),
    Metric(
        "iggyflux_points_implausible_total",
        "counter",
        "Points whose time is before 1990 or after 2099.",
        _of("implausible"),
    ),
    Metric(
        "iggyflux_points_too_old_total",
        "counter",
        "Points beyond the retention of the server, counted before they are sent.",
        _of("too_old"),
    ),
    Metric(
        "iggyflux_retention_seconds",
        "gauge",
        "How long the sink's server keeps points; 0 without a limit, not there if the server does not tell.",
        _at_sink(_of("retention_seconds")),
        ("server",),
        unit="seconds",
    ),
    Metric(
        "iggyflux_fallbacks_total", "counter", "Batches that generated code could not render: a bug.", _of("fallbacks")
    ),
    Metric("iggyflux_series_known", "gauge", "Known series of a writer with `limits.series`.", _of("series")),
    Metric("iggyflux_series_limit", "gauge", "The most series of a writer with `limits.series`.", _of("series_limit")),
    # groups
    Metric(
        "iggyflux_group_partitions",
        "gauge",
        "Partitions of a topic that this member of the consumer group has.",
        _by_group(lambda group: len(group["partitions"])),
        ("group", "topic"),
    ),
    Metric(
        "iggyflux_starving_partitions",
        "gauge",
        "Partitions whose messages wait for a member that does not read them.",
        _by_group(lambda group: len(group["starving"])),
        ("group", "topic"),
    ),
    Metric(
        "iggyflux_starving_messages",
        "gauge",
        "Messages that wait in such partitions.",
        _by_group(lambda group: sum(each["waiting"] for each in group["starving"])),
        ("group", "topic"),
    ),
    # readers
    Metric("iggyflux_reader_windows_total", "counter", "Windows read, sent and stored.", _of("reader", "windows")),
    Metric(
        "iggyflux_query_duration_seconds",
        "histogram",
        "How long a reader waited for the rows of a window, or until there was no answer.",
        _query_seconds,
        ("server",),
        unit="seconds",
    ),
    Metric(
        "iggyflux_reader_rows_seen_again_total",
        "counter",
        "Rows read again that had been sent.",
        _of("reader", "seen_again"),
    ),
    Metric(
        "iggyflux_reader_rows_late_total",
        "counter",
        "Rows that arrived after their time was read.",
        _of("reader", "late"),
    ),
    Metric(
        "iggyflux_reader_rows_changed_total",
        "counter",
        "Rows with another value than the one sent; only with `mark`.",
        _of("reader", "changed"),
    ),
    Metric(
        "iggyflux_reader_position_timestamp_seconds",
        "gauge",
        "Up to which time the tail is read, since the epoch.",
        _time("reader", "done"),
        unit="seconds",
    ),
    Metric(
        "iggyflux_reader_behind_seconds",
        "gauge",
        "The span of time that is not read: after the tail, and in the gap.",
        _of("reader", "behind_seconds"),
        unit="seconds",
    ),
    Metric(
        "iggyflux_reader_gap_seconds",
        "gauge",
        "The span of time that the backfill has not read; 0 without a gap.",
        _gap_seconds,
        unit="seconds",
    ),
)
