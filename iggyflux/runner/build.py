"""Build routes from their setups and ends: plan, source, sink, stores and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from iggyflux.delivery.retry import Policy
from iggyflux.delivery.windows import WindowRules
from iggyflux.lineprotocol import Dialect, Precision
from iggyflux.mapping import Reader, WriterMapping
from iggyflux.pipeline import Endpoint, InfluxSettings
from iggyflux.plan import ReferencePlan, compile_plan
from iggyflux.plan.compiled import CompiledPlan
from iggyflux.plan.reads import columns_read
from iggyflux.records import Message, Rendered
from iggyflux.runner.factories import (
    LINE_SINKS,
    MESSAGE_SINKS,
    SOURCES,
    make_bucket_sinks,
    make_cursor_store,
    make_dead_letters,
    make_ledger,
    make_series_guard,
)
from iggyflux.runner.route import ReaderRoute, Route, WriterPlan
from iggyflux.runner.setup import ReaderSetup, WriterSetup
from iggyflux.transports.base import LineSink, RowSource
from iggyflux.transports.schemas import learn, looking_up, registry_of

if TYPE_CHECKING:
    from iggyflux.transports.registry import SchemaRegistry

MOST_WINDOW_BYTES = 2**30
"""The largest answer to a reader's query; what is larger is queried in parts."""


def build_writer(setup: WriterSetup, source: Endpoint, sink: Endpoint) -> Route:
    """Return a writer's route."""
    settings = setup.influxdb
    line_sink = LINE_SINKS[sink.kind](setup, sink)
    registry = registry_of(setup.mapping, setup.pipeline)
    return Route(
        name=setup.name,
        source=SOURCES[source.kind](setup, source),
        plan=SinkPlan(setup.mapping, line_sink, settings.precision, dict(setup.item.tags), registry),
        sink=line_sink,
        dead_letters=make_dead_letters(setup, source),
        mapping=setup.mapping.name,
        pipeline=setup.pipeline.file_name,
        tags=dict(setup.item.tags),
        on_error=setup.writer.on_error,
        policy=policy_of(settings),
        batch_size=settings.batch_size,
        batch_bytes=settings.batch_bytes,
        linger_seconds=settings.linger_seconds,
        max_in_flight=settings.max_in_flight if sink.kind == "influxdb" else None,
        until_end=setup.until_end,
        unit_ns=Precision(settings.precision).divisor,
        series=make_series_guard(setup),
        bucket_sink=make_bucket_sinks(setup, sink),
        usual_bucket=settings.database or settings.bucket or "",
        buckets=settings.buckets,
        ledger=make_ledger(setup, source),
        registry=registry,
    )


def changed_writer(setup: WriterSetup, route: Route) -> Route:
    """Return a running route with the mapping of another setup."""
    registry = registry_of(setup.mapping, setup.pipeline, route.registry)
    plan = SinkPlan(setup.mapping, route.sink, setup.influxdb.precision, dict(setup.item.tags), registry)
    return replace(route, plan=plan, on_error=setup.writer.on_error, registry=registry or route.registry)


class SinkPlan(WriterPlan):
    """The plan of a mapping, compiled when the sink is connected and its dialect is known.

    Schemas that it lacks are asked for in the thread that renders.
    """

    def __init__(
        self,
        mapping: WriterMapping,
        sink: LineSink,
        precision: str,
        tags: Mapping[str, str],
        registry: SchemaRegistry | None = None,
    ) -> None:
        self._mapping = looking_up(mapping, registry)
        self._registry = registry
        self._payload = mapping.writer.source.payload
        self._tags = tags
        self._sink = sink
        self._precision = precision
        self._plan: CompiledPlan | ReferencePlan | None = None

    @property
    def identity(self) -> str:
        """Return the identity of the plan."""
        return self._identity(self._sink.dialect)

    def identities(self) -> frozenset[str]:
        """Return the identities that the plan can have: the dialect is not known before the sink is connected."""
        return frozenset(self._identity(dialect.value) for dialect in Dialect)

    def _identity(self, dialect: str) -> str:
        return self._mapping.identity(dialect=dialect, precision=self._precision, tags=self._tags)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return what the plan renders."""
        learn(self._registry, messages, self._payload)
        return self._compiled().render(messages)

    def may_take_long(self, messages: Sequence[Message]) -> bool:
        """Return what the plan says."""
        return self._compiled().may_take_long(messages)

    def render_parts(self, messages: Sequence[Message]) -> Iterator[tuple[int, Rendered]]:
        """Return what the plan renders, in parts."""
        parts = self._compiled().render_parts(messages)
        if self._registry is None:
            return parts
        return self._after_learning(self._registry, messages, parts)

    def _after_learning(
        self, registry: SchemaRegistry, messages: Sequence[Message], parts: Iterator[tuple[int, Rendered]]
    ) -> Iterator[tuple[int, Rendered]]:
        learn(registry, messages, self._payload)
        yield from parts

    def _compiled(self) -> CompiledPlan | ReferencePlan:
        if self._plan is None:
            dialect, precision = self._sink.dialect, self._precision
            self._plan = compile_plan(self._mapping.writer, dialect=dialect, precision=precision, tags=self._tags)
        return self._plan


def policy_of(settings: InfluxSettings) -> Policy:
    """Return the delivery policy of the `influxdb` section."""
    return Policy(
        max_lines=settings.batch_size,
        max_bytes=settings.batch_bytes,
        max_retries=settings.max_retries,
        retry_backoff_seconds=settings.retry_backoff_seconds,
        max_backoff_seconds=settings.max_retry_backoff_seconds,
        on_unavailable=settings.on_unavailable,
    )


def build_reader(setup: ReaderSetup, sink: Endpoint) -> ReaderRoute:
    """Return a reader's route."""
    reader, settings = setup.reader, setup.influxdb
    plan = compile_plan(reader)
    marks = reader.cursor.mark is not None and not plan.whole_windows
    return ReaderRoute(
        name=setup.name,
        source=_rows_of(reader, settings),
        plan=plan,
        sink=MESSAGE_SINKS[sink.kind](setup, sink),
        store=make_cursor_store(setup, marks=marks),
        dead_letters=make_dead_letters(setup, sink),
        rules=rules_of(reader, settings, until_end=setup.until_end),
        page_size=settings.page_size,
        max_retries=settings.max_retries,
        column=reader.cursor.column,
        mark=reader.cursor.mark,
        mapping=setup.mapping.name,
        pipeline=setup.pipeline.file_name,
        plan_identity=setup.mapping.identity(),
        stream=reader.target.stream,
        topic=reader.target.topic,
        on_error=reader.on_error,
    )


def changed_reader(setup: ReaderSetup, route: ReaderRoute) -> ReaderRoute:
    """Return a running route with the mapping of another setup; its source asks for the columns that it reads."""
    reader = setup.reader
    source, identity = _rows_of(reader, setup.influxdb), setup.mapping.identity()
    return replace(route, plan=compile_plan(reader), source=source, plan_identity=identity, on_error=reader.on_error)


def _rows_of(reader: Reader, settings: InfluxSettings) -> RowSource:
    from iggyflux.transports.influxdb.query.source import InfluxRows

    return InfluxRows(
        settings,
        reader.source,
        column=reader.cursor.column,
        reads=columns_read(reader),
        most_bytes=MOST_WINDOW_BYTES,
    )


def rules_of(reader: Reader, settings: InfluxSettings, *, until_end: bool) -> WindowRules:
    """Return how a reader goes through time, by the document and the `influxdb` section."""
    cursor = reader.cursor
    return WindowRules(
        start=cursor.start,
        end=cursor.end_ns,
        settle=cursor.settle_ns,
        overlap=cursor.overlap_ns,
        window=cursor.window_ns,
        poll_seconds=settings.poll_interval_seconds,
        rows_per_second=settings.backfill_rate,
        grid=any(spec.for_each != "row" for spec in reader.messages),
        until_end=until_end,
    )
