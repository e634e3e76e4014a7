"""From a pipeline to routes that can run: mappings loaded, transports built, nothing connected.

Two tables say which function builds which end; a transport is imported only when a route uses it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from iggyflux.delivery.machine import Policy
from iggyflux.errors import DocumentError, MappingError, PipelineError, Problem, closest
from iggyflux.mapping import Mapping, Writer, load_mapping
from iggyflux.pipeline import Endpoint, IggySettings, InfluxSettings, Pipeline, TopicAddress
from iggyflux.pipeline import Route as Item
from iggyflux.records import Message, Rendered
from iggyflux.runner.route import Route, WriterPlan
from iggyflux.transports.base import DeadLetterSink, LineSink, MessageSink, Source

_DEAD_LETTERS = "dead-letters"


@dataclasses.dataclass(frozen=True, slots=True)
class Opening:
    """One route while it is being built."""

    pipeline: Pipeline
    item: Item
    mapping: Mapping
    writer: Writer
    name: str
    until_end: bool

    @property
    def consumer(self) -> str:
        """The name under which positions are stored."""
        return self.item.consumer.name or self.name

    @property
    def iggy(self) -> IggySettings:
        """How to reach Iggy."""
        return self.pipeline.iggy or IggySettings()

    @property
    def influxdb(self) -> InfluxSettings:
        """How lines are sent: also to a file, whose requests have the same bounds."""
        return self.item.influxdb or self.pipeline.influxdb or InfluxSettings()


def open_routes(pipeline: Pipeline, *, until_end: bool = False, only: Sequence[str] = ()) -> list[Route]:
    """The routes of `pipeline`, or those that `only` names.

    Raises `MappingError` or `PipelineError` with the problems of all of them, before anything is opened.
    """
    problems: list[Problem] = []
    openings: list[Opening] = []
    broken: dict[Path, bool] = {}
    for item in pipeline.routes:
        try:
            mapping = load_mapping(item.mapping)
        except DocumentError as error:
            if item.mapping not in broken:
                problems += error.problems
            broken[item.mapping] = True
            continue
        if mapping.writer is None:
            problems.append(_wrong_kind(pipeline, item, mapping))
        else:
            openings.append(Opening(pipeline, item, mapping, mapping.writer, item.name or mapping.name, until_end))
    if problems:
        raise (MappingError if broken else PipelineError)(problems)
    chosen = _chosen(pipeline, openings, only)
    ends = [(_end(opening, "from", problems), _end(opening, "to", problems)) for opening in chosen]
    problems += _shared_consumers(chosen, [source for source, _ in ends])
    if problems:
        raise PipelineError(problems)
    return [
        _open(opening, source, sink) for opening, (source, sink) in zip(chosen, ends, strict=True) if source and sink
    ]


class SinkPlan:
    """The compiled plan of a mapping, made when the sink is connected and knows its dialect."""

    def __init__(self, mapping: Mapping, sink: LineSink, precision: str) -> None:
        self._mapping = mapping
        self._sink = sink
        self._precision = precision
        self._plan: WriterPlan | None = None

    def render(self, messages: Sequence[Message]) -> Rendered:
        """As the plan's `render`."""
        if self._plan is None:
            dialect = getattr(self._sink, "dialect", "v2")
            self._plan = self._mapping.plan(dialect=dialect, precision=self._precision)
        return self._plan.render(messages)


def _open(opening: Opening, source: Endpoint, sink: Endpoint) -> Route:
    settings = opening.influxdb
    line_sink = _SINKS[sink.kind](opening, sink)
    return Route(
        name=opening.name,
        source=_SOURCES[source.kind](opening, source),
        plan=SinkPlan(opening.mapping, line_sink, settings.precision),
        sink=line_sink,
        dead_letters=_dead_letters(opening, source),
        mapping=opening.mapping.name,
        mapping_hash=opening.mapping.hash,
        on_error=opening.writer.on_error,
        policy=policy_of(settings),
        batch_size=settings.batch_size,
        batch_bytes=settings.batch_bytes,
        linger_seconds=settings.linger_seconds,
        max_in_flight=settings.max_in_flight if sink.kind == "influxdb" else None,
    )


def policy_of(settings: InfluxSettings) -> Policy:
    """How patient delivery is, by the `influxdb` section."""
    return Policy(
        max_lines=settings.batch_size,
        max_bytes=settings.batch_bytes,
        max_retries=settings.max_retries,
        retry_backoff_seconds=settings.retry_backoff_seconds,
        max_backoff_seconds=settings.max_retry_backoff_seconds,
        on_unavailable=settings.on_unavailable,
    )


# --- The ends ---


def _log_source(opening: Opening, end: Endpoint) -> Source:
    from iggyflux.transports.log import LogSource

    item, origin = opening.item, opening.writer.source
    return LogSource(
        end.path or Path(),
        origin.stream,
        origin.topics,
        consumer=opening.consumer,
        partitions=item.consumer.partitions,
        start=item.start,
        batch_size=opening.influxdb.batch_size,
        until_end=opening.until_end,
    )


def _file_source(opening: Opening, end: Endpoint) -> Source:
    from iggyflux.transports.files import FileSource

    stream, topic = _coordinates(opening.writer)
    return FileSource(
        end.path or Path(),
        state=opening.pipeline.state / f"{opening.consumer}.json",
        stream=stream,
        topic=topic,
        envelope=end.envelope,
        start=opening.item.start,
        batch_size=opening.influxdb.batch_size,
        until_end=opening.until_end,
    )


def _stdin_source(opening: Opening, end: Endpoint) -> Source:
    from iggyflux.transports.files import StdinSource

    stream, topic = _coordinates(opening.writer)
    return StdinSource(stream=stream, topic=topic, envelope=end.envelope, batch_size=opening.influxdb.batch_size)


def _iggy_source(opening: Opening, _end: Endpoint) -> Source:
    from iggyflux.transports.iggy import Reader
    from iggyflux.transports.iggy_source import IggySource

    item, origin = opening.item, opening.writer.source
    return IggySource(
        opening.iggy,
        origin.stream,
        origin.topics,
        reader=Reader(item.consumer.kind, opening.consumer),
        partitions=item.consumer.partitions,
        start=item.start,
        until_end=opening.until_end,
    )


def _file_sink(_opening: Opening, end: Endpoint) -> LineSink:
    from iggyflux.transports.files import LineFileSink

    return LineFileSink(end.path or Path())


def _stdout_sink(_opening: Opening, _end: Endpoint) -> LineSink:
    from iggyflux.transports.files import StdoutSink

    return StdoutSink()


def _influxdb_sink(opening: Opening, _end: Endpoint) -> LineSink:
    from iggyflux.transports.influxdb import InfluxLineSink

    return InfluxLineSink(opening.influxdb)


_SOURCES: dict[str, Callable[[Opening, Endpoint], Source]] = {
    "iggy": _iggy_source,
    "log": _log_source,
    "file": _file_source,
    "stdin": _stdin_source,
}
_SINKS: dict[str, Callable[[Opening, Endpoint], LineSink]] = {
    "influxdb": _influxdb_sink,
    "file": _file_sink,
    "stdout": _stdout_sink,
}
_DEFAULTS = {"from": "iggy", "to": "influxdb"}


def _dead_letters(opening: Opening, source: Endpoint) -> DeadLetterSink:
    from iggyflux.transports.deadletters import DirectoryDeadLetters, TopicDeadLetters

    place = opening.item.dead_letters
    if isinstance(place, TopicAddress):
        return TopicDeadLetters(_topic_sink(opening, source, place))
    return DirectoryDeadLetters(place or opening.pipeline.folder / _DEAD_LETTERS / opening.name)


def _topic_sink(opening: Opening, source: Endpoint, place: TopicAddress) -> MessageSink:
    if source.kind == "iggy":
        from iggyflux.transports.iggy_topics import IggySink

        return IggySink(opening.iggy, place.stream, place.topic)
    from iggyflux.transports.log import LogSink

    return LogSink(source.path or Path(), place.stream, place.topic)


def _coordinates(writer: Writer) -> tuple[str, str]:
    """The coordinates of messages that bring none: those that the mapping asks for, where it names one topic."""
    topic = writer.source.topics[0] if writer.source.topics else ""
    return writer.source.stream, "" if any(character in topic for character in "*?[") else topic


# --- What does not go together ---


def _chosen(pipeline: Pipeline, openings: list[Opening], only: Sequence[str]) -> list[Opening]:
    names = [opening.name for opening in openings]
    problems = [
        pipeline.problem(
            "IFX811",
            opening.item,
            f"two routes are called {opening.name!r}: they would share positions",
            hint="give one of them a `name`",
        )
        for index, opening in enumerate(openings)
        if opening.name in names[:index]
    ]
    for name in only:
        if name not in names:
            near = closest(name, names)
            hint = f"did you mean {near}?" if near else f"there is: {', '.join(names)}"
            problems.append(Problem("IFX815", f"no route is called {name!r}", hint=hint))
    if problems:
        raise PipelineError(problems)
    return [opening for opening in openings if not only or opening.name in only]


def _shared_consumers(openings: Sequence[Opening], sources: Sequence[Endpoint | None]) -> list[Problem]:
    """Routes that read one place under one name: a log lets only one in, and a group would give each a part only."""
    problems: list[Problem] = []
    seen: dict[tuple[str, ...], Opening] = {}
    for opening, source in zip(openings, sources, strict=True):
        if source is None or source.kind not in ("log", "iggy"):
            continue
        origin, item = opening.writer.source, opening.item
        place: tuple[str, ...] = (str(source), opening.consumer)
        if source.kind == "iggy":
            place += (origin.stream, *sorted(origin.topics), str(item.consumer.partitions))
        first = seen.setdefault(place, opening)
        if first is not opening:
            message = f"routes {first.name!r} and {opening.name!r} read as one consumer, {opening.consumer!r}"
            hint = "give one of them another `consumer`: each would get a part of the messages only"
            problems.append(opening.pipeline.problem("IFX811", item, message, hint=hint))
    return problems


def _end(opening: Opening, key: str, problems: list[Problem]) -> Endpoint | None:
    """The route's end; where the file does not say, the server whose section it has."""
    pipeline, item = opening.pipeline, opening.item
    given = item.source if key == "from" else item.sink
    section = pipeline.iggy if key == "from" else item.influxdb or pipeline.influxdb
    if given is None and section is not None:
        given = Endpoint(_DEFAULTS[key])  # type: ignore[arg-type]  # both are endpoint kinds
    if given is None:
        examples = {"from": "from: log:data", "to": "to: file:points.lp"}
        hint = f"add `{examples[key]}`, or an `{_DEFAULTS[key]}` section"
        problems.append(pipeline.problem("IFX807", item, f"nothing says where to go `{key}`", hint=hint))
        return None
    table: dict[str, object] = dict(_SOURCES) if key == "from" else dict(_SINKS)
    if given.kind not in table:
        message = f"a writer mapping cannot go `{key}` {given}"
        problems.append(pipeline.problem("IFX813", item, message, hint=f"one of: {', '.join(sorted(table))}"))
        return None
    if key == "from" and isinstance(item.dead_letters, TopicAddress) and given.kind not in ("log", "iggy"):
        message = f"dead letters cannot go to a topic: {given} has none"
        problems.append(pipeline.problem("IFX813", item, message, hint="name a directory"))
    if given.kind == "influxdb":
        problems += _influxdb_problems(opening)
    if given.kind == "iggy":
        problems += _iggy_problems(opening)
    return given


def _influxdb_problems(opening: Opening) -> list[Problem]:
    """What the sink knows to be wrong with its settings, at the route's place."""
    from iggyflux.transports.influxdb import settings_problems

    found = settings_problems(opening.influxdb)
    return [opening.pipeline.problem(each.code, opening.item, each.message, hint=each.hint) for each in found]


def _iggy_problems(opening: Opening) -> list[Problem]:
    """What cannot work with these settings and this consumer, at the route's place."""
    from iggyflux.transports.iggy_settings import settings_problems

    found = settings_problems(opening.iggy, dataclasses.replace(opening.item.consumer, name=opening.consumer))
    return [opening.pipeline.problem(each.code, opening.item, each.message, hint=each.hint) for each in found]


def _wrong_kind(pipeline: Pipeline, item: Item, mapping: Mapping) -> Problem:
    message = f"{mapping.name!r} is a {mapping.kind} mapping: only writers can be run"
    return pipeline.problem("IFX813", item, message, hint="try it with `iggyflux dry-run`")
