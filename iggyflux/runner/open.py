"""From a pipeline to routes that can run: mappings loaded, transports built, nothing connected.

Two tables say which function builds which end; a transport is imported only when a route uses it.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iggyflux.delivery.retry import Policy
from iggyflux.delivery.windows import Rules
from iggyflux.errors import DocumentError, MappingError, PipelineError, Problem, closest
from iggyflux.mapping import Reader, ReaderMapping, Writer, WriterMapping, load_mapping
from iggyflux.pipeline import Endpoint, EndpointKind, IggySettings, InfluxSettings, Pipeline, TopicAddress
from iggyflux.pipeline import Route as Item
from iggyflux.plan import compile_plan
from iggyflux.records import JSON, Message, Rendered
from iggyflux.runner.reader_route import ReaderRoute
from iggyflux.runner.route import Route, WriterPlan
from iggyflux.transports.base import DeadLetterSink, LineSink, MessageSink, Source

if TYPE_CHECKING:
    from iggyflux.cursors import CursorStore

_DEAD_LETTERS = "dead-letters"
MOST_WINDOW_BYTES = 2**30
"""How large an answer to a reader's query may be; what is larger is asked for in parts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Opening:
    """One route while it is being built."""

    pipeline: Pipeline
    item: Item
    mapping: WriterMapping | ReaderMapping
    name: str
    until_end: bool

    @property
    def writer(self) -> Writer:
        """The document, of a writer."""
        assert self.mapping.kind == "writer"  # noqa: S101
        return self.mapping.writer

    @property
    def reader(self) -> Reader:
        """The document, of a reader."""
        assert self.mapping.kind == "reader"  # noqa: S101
        return self.mapping.reader

    @property
    def kind(self) -> str:
        """`writer` or `reader`."""
        return self.mapping.kind

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
        """How lines are sent: also to a file, whose requests have the same bounds; where a reader's rows are."""
        return self.item.influxdb or self.pipeline.influxdb or InfluxSettings()


def open_writers(pipeline: Pipeline, *, only: Sequence[str] = ()) -> list[Route]:
    """As `open_routes`, the writers; a reader that `only` names is a problem."""
    routes = open_routes(pipeline, only=only)
    wrong = [route.name for route in routes if only and isinstance(route, ReaderRoute)]
    if wrong:
        raise PipelineError([Problem("IFX813", f"{name!r} is a reader: this is for writers") for name in wrong])
    return [route for route in routes if isinstance(route, Route)]


def open_routes(pipeline: Pipeline, *, until_end: bool = False, only: Sequence[str] = ()) -> list[Route | ReaderRoute]:
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
        openings.append(Opening(pipeline, item, mapping, item.name or mapping.name, until_end))
    if problems:
        raise MappingError(problems)
    chosen = _chosen(pipeline, openings, only)
    ends = [(_end(opening, "from", problems), _end(opening, "to", problems)) for opening in chosen]
    problems += _shared_consumers(chosen, [source for source, _ in ends])
    if problems:
        raise PipelineError(problems)
    return [
        _open(opening, source, sink) if opening.kind == "writer" else _open_reader(opening, sink)
        for opening, (source, sink) in zip(chosen, ends, strict=True)
        if source and sink
    ]


class SinkPlan:
    """The compiled plan of a mapping, made when the sink is connected and knows its dialect."""

    def __init__(self, writer: Writer, sink: LineSink, precision: str) -> None:
        self._writer = writer
        self._sink = sink
        self._precision = precision
        self._plan: WriterPlan | None = None

    def render(self, messages: Sequence[Message]) -> Rendered:
        """As the plan's `render`."""
        if self._plan is None:
            self._plan = compile_plan(self._writer, dialect=self._sink.dialect, precision=self._precision)
        return self._plan.render(messages)


def _open(opening: Opening, source: Endpoint, sink: Endpoint) -> Route:
    settings = opening.influxdb
    line_sink = _SINKS[sink.kind](opening, sink)
    return Route(
        name=opening.name,
        source=_SOURCES[source.kind](opening, source),
        plan=SinkPlan(opening.writer, line_sink, settings.precision),
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


def _open_reader(opening: Opening, sink: Endpoint) -> ReaderRoute:
    from iggyflux.transports.influxdb.query.source import InfluxRows

    reader, settings = opening.reader, opening.influxdb
    plan = compile_plan(reader)
    marks = reader.cursor.mark is not None and not plan.whole_windows
    return ReaderRoute(
        name=opening.name,
        source=InfluxRows(settings, reader.source, column=reader.cursor.column, most_bytes=MOST_WINDOW_BYTES),
        plan=plan,
        sink=_MESSAGE_SINKS[sink.kind](opening, sink),
        store=_cursor_store(opening, marks=marks),
        dead_letters=_dead_letters(opening, sink),
        rules=rules_of(reader, settings, until_end=opening.until_end),
        page_size=settings.page_size,
        column=reader.cursor.column,
        mark=reader.cursor.mark,
        mapping=opening.mapping.name,
        mapping_hash=opening.mapping.hash,
        stream=reader.target.stream,
        topic=reader.target.topic,
        on_error=reader.on_error,
    )


def _cursor_store(opening: Opening, *, marks: bool) -> CursorStore:
    from iggyflux.cursors import CursorStore, cursor_state

    state, query = opening.pipeline.state, query_of(opening.reader, opening.influxdb)
    if isinstance(state, TopicAddress):
        from iggyflux.cursors.topics import TopicState

        in_topic = TopicState(opening.iggy, state, opening.name)
        return CursorStore(in_topic, opening.name, query, marks=marks)
    return CursorStore(cursor_state(state, opening.name), opening.name, query, marks=marks)


def query_of(reader: Reader, settings: InfluxSettings) -> dict[str, JSON]:
    """Which rows are read, as far as a position says something about them and about no others."""
    query = reader.source
    return {
        "place": settings.bucket or settings.database,
        "measurement": query.measurement,
        "statement": query.statement,
        "where": {tag: list(values) for tag, values in query.where},
    }


def rules_of(reader: Reader, settings: InfluxSettings, *, until_end: bool) -> Rules:
    """How windows move on, by the document and the `influxdb` section."""
    cursor = reader.cursor
    return Rules(
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
    from iggyflux.transports.local.log import LogSource

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
    from iggyflux.transports.local.files import FileSource, file_state

    stream, topic = _coordinates(opening.writer)
    folder = opening.pipeline.state
    assert isinstance(folder, Path)  # noqa: S101  # `_end_problems` has seen to the other case
    return FileSource(
        end.path or Path(),
        state=file_state(folder, opening.consumer),
        stream=stream,
        topic=topic,
        envelope=end.envelope,
        start=opening.item.start,
        batch_size=opening.influxdb.batch_size,
        until_end=opening.until_end,
    )


def _stdin_source(opening: Opening, end: Endpoint) -> Source:
    from iggyflux.transports.local.files import StdinSource

    stream, topic = _coordinates(opening.writer)
    return StdinSource(stream=stream, topic=topic, envelope=end.envelope, batch_size=opening.influxdb.batch_size)


def _iggy_source(opening: Opening, _end: Endpoint) -> Source:
    from iggyflux.transports.iggy.connection import Reader
    from iggyflux.transports.iggy.source import IggySource

    item, origin = opening.item, opening.writer.source
    return IggySource(
        opening.iggy,
        origin.stream,
        origin.topics,
        reader=Reader(item.consumer.kind, opening.consumer),
        partitions=item.consumer.partitions,
        start=item.start,
        until_end=opening.until_end,
        exclusive=item.consumer.exclusive,
        remedy=f"iggyflux regroup {shlex.quote(opening.pipeline.file)} --mapping {shlex.quote(opening.name)}",
    )


def _file_sink(_opening: Opening, end: Endpoint) -> LineSink:
    from iggyflux.transports.local.files import LineFileSink

    return LineFileSink(end.path or Path())


def _stdout_sink(_opening: Opening, _end: Endpoint) -> LineSink:
    from iggyflux.transports.local.files import StdoutSink

    return StdoutSink()


def _influxdb_sink(opening: Opening, _end: Endpoint) -> LineSink:
    from iggyflux.transports.influxdb.write.sink import InfluxLineSink

    return InfluxLineSink(opening.influxdb)


def _message_iggy_sink(opening: Opening, _end: Endpoint) -> MessageSink:
    from iggyflux.transports.iggy.topics import IggySink

    target = opening.reader.target
    return IggySink(opening.iggy, target.stream, target.topic)


def _message_log_sink(opening: Opening, end: Endpoint) -> MessageSink:
    from iggyflux.transports.local.log import LogSink

    target = opening.reader.target
    return LogSink(end.path or Path(), target.stream, target.topic)


def _message_line_sink(opening: Opening, end: Endpoint) -> MessageSink:
    from iggyflux.transports.local.files import LineFileSink, StdoutSink
    from iggyflux.transports.local.message_files import MessageLines

    target = opening.reader.target
    lines = StdoutSink() if end.path is None else LineFileSink(end.path)
    return MessageLines(lines, target.stream, target.topic, payload=target.payload, envelope=end.envelope)


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
_MESSAGE_SINKS: dict[str, Callable[[Opening, Endpoint], MessageSink]] = {
    "iggy": _message_iggy_sink,
    "log": _message_log_sink,
    "file": _message_line_sink,
    "stdout": _message_line_sink,
}
_KNOWN: dict[tuple[str, str], tuple[str, ...]] = {
    ("writer", "from"): tuple(_SOURCES),
    ("writer", "to"): tuple(_SINKS),
    ("reader", "from"): ("influxdb",),
    ("reader", "to"): tuple(_MESSAGE_SINKS),
}
_DEFAULTS: dict[tuple[str, str], tuple[EndpointKind, str]] = {
    ("writer", "from"): ("iggy", "from: log:data"),
    ("writer", "to"): ("influxdb", "to: file:points.lp"),
    ("reader", "from"): ("influxdb", ""),
    ("reader", "to"): ("iggy", "to: log:data"),
}
"""Where a route goes whose file does not say, if there is such a section; and what could be written instead."""


def _dead_letters(opening: Opening, messages: Endpoint) -> DeadLetterSink:
    from iggyflux.transports.local.deadletters import DirectoryDeadLetters, TopicDeadLetters

    place = opening.item.dead_letters
    if isinstance(place, TopicAddress):
        return TopicDeadLetters(_topic_sink(opening, messages, place))
    return DirectoryDeadLetters(place or opening.pipeline.folder / _DEAD_LETTERS / opening.name)


def _topic_sink(opening: Opening, messages: Endpoint, place: TopicAddress) -> MessageSink:
    if messages.kind == "iggy":
        from iggyflux.transports.iggy.topics import IggySink

        return IggySink(opening.iggy, place.stream, place.topic)
    from iggyflux.transports.local.log import LogSink

    return LogSink(messages.path or Path(), place.stream, place.topic)


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
        if source is None or opening.kind == "reader" or source.kind not in ("log", "iggy"):
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
    usual, example = _DEFAULTS[opening.kind, key]
    section = pipeline.iggy if usual == "iggy" else item.influxdb or pipeline.influxdb
    if given is None and section is not None:
        given = Endpoint(usual)
    if given is None:
        hint = f"add `{example}`, or an `{usual}` section" if example else f"add an `{usual}` section"
        problems.append(pipeline.problem("IFX807", item, f"nothing says where to go `{key}`", hint=hint))
        return None
    known = _KNOWN[opening.kind, key]
    if given.kind not in known:
        message = f"a {opening.kind} mapping cannot go `{key}` {given}"
        problems.append(pipeline.problem("IFX813", item, message, hint=f"one of: {', '.join(sorted(known))}"))
        return None
    problems += _end_problems(opening, key, given)
    return given


def _end_problems(opening: Opening, key: str, given: Endpoint) -> Iterator[Problem]:
    pipeline, item = opening.pipeline, opening.item
    has_messages = (key == "from") == (opening.kind == "writer")
    if has_messages and isinstance(item.dead_letters, TopicAddress) and given.kind not in ("log", "iggy"):
        message = f"dead letters cannot go to a topic: {given} has none"
        yield pipeline.problem("IFX813", item, message, hint="name a directory")
    in_topic = isinstance(pipeline.state, TopicAddress)
    if given.kind == "file" and key == "from" and in_topic:
        hint = "name a directory as `state`; topics keep the positions of readers only"
        yield pipeline.problem("IFX813", item, f"the position in {given} cannot be kept in a topic", hint=hint)
    if key == "to" and opening.kind == "reader" and in_topic and given.kind != "iggy":
        yield from _iggy_problems(opening)
    if given.kind == "influxdb":
        yield from _influxdb_problems(opening)
    if given.kind == "iggy":
        yield from _iggy_problems(opening)
    if key == "to" and opening.kind == "reader":
        yield from _target_problems(opening, given)
    elif key == "to" and given.envelope:
        yield pipeline.problem("IFX813", item, "lines of line protocol have no envelope", hint="leave `envelope` out")


def _target_problems(opening: Opening, sink: Endpoint) -> Iterator[Problem]:
    """What a sink cannot do that a reader's document asks for."""
    from iggyflux.transports.local.message_files import LINE_FORMATS

    reader = opening.reader
    if sink.kind == "iggy":
        hint = "put the time into a header or the payload: Iggy gives messages the time of their arrival"
        for spec in reader.messages:
            if spec.timestamp is not None:
                message = "a message cannot be sent to Iggy with a timestamp of its own"
                yield opening.mapping.document.problem("IFX776", f"{spec.pointer}/timestamp", message, hint=hint)
    elif sink.kind in ("file", "stdout") and not sink.envelope and reader.target.payload not in LINE_FORMATS:
        message = f"payloads of {reader.target.payload} are no lines"
        hint = "to: {file: PATH, envelope: true} keeps whole messages (`-` is stdout)"
        yield opening.pipeline.problem("IFX813", opening.item, message, hint=hint)


def _influxdb_problems(opening: Opening) -> list[Problem]:
    """What the sink knows to be wrong with its settings, at the place of each."""
    from iggyflux.transports.influxdb.write.sink import settings_problems

    found = settings_problems(opening.influxdb)
    return [opening.pipeline.setting_problem(opening.item, "influxdb", each) for each in found]


def _iggy_problems(opening: Opening) -> list[Problem]:
    """What cannot work with these settings and this consumer, at the place of each."""
    from iggyflux.transports.iggy.settings import settings_problems

    consumer = dataclasses.replace(opening.item.consumer, name=opening.consumer) if opening.kind == "writer" else None
    found = settings_problems(opening.iggy, consumer)
    return [opening.pipeline.setting_problem(opening.item, "iggy", each) for each in found]
