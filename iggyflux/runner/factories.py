"""Build sources, sinks and stores of a route from its setup.  Nothing is connected.

The tables list which function builds which kind of end; a transport is imported only when a route uses it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from iggyflux.mapping import Reader, Writer
from iggyflux.pipeline import Endpoint, InfluxSettings, TopicAddress
from iggyflux.records import JSON
from iggyflux.runner.series_guard import SeriesGuard, series_state
from iggyflux.runner.settled_ledger import BUSY_SECONDS, SettledLedger, ledger_state, left_ledgers
from iggyflux.runner.setup import ReaderSetup, RouteSetup, WriterSetup
from iggyflux.transports.base import DeadLetterSink, LineSink, MessageSink, Source
from iggyflux.transports.share import ALONE

if TYPE_CHECKING:
    from iggyflux.cursors import CursorStore

_DEAD_LETTERS = "dead-letters"


# --- Sources of messages ---


def _log_source(setup: WriterSetup, end: Endpoint) -> Source:
    from iggyflux.transports.local.log import LogSource

    item, origin = setup.item, setup.writer.source
    return LogSource(
        end.path or Path(),
        origin.stream,
        origin.topics,
        consumer=setup.consumer,
        partitions=item.consumer.partitions,
        start=item.start,
        batch_size=setup.influxdb.batch_size,
        until_end=setup.until_end,
        share=setup.share,
    )


def _file_source(setup: WriterSetup, end: Endpoint) -> Source:
    from iggyflux.transports.local.files import FileSource, file_state

    stream, topic = coordinates_of(setup.writer)
    folder = setup.pipeline.state
    assert isinstance(folder, Path)  # noqa: S101  # `ends` has refused the other case
    return FileSource(
        end.path or Path(),
        state=file_state(folder, setup.consumer),
        stream=stream,
        topic=topic,
        envelope=end.envelope,
        start=setup.item.start,
        batch_size=setup.influxdb.batch_size,
        until_end=setup.until_end,
    )


def _stdin_source(setup: WriterSetup, end: Endpoint) -> Source:
    from iggyflux.transports.local.files import StdinSource

    stream, topic = coordinates_of(setup.writer)
    return StdinSource(stream=stream, topic=topic, envelope=end.envelope, batch_size=setup.influxdb.batch_size)


def _iggy_source(setup: WriterSetup, _end: Endpoint) -> Source:
    from iggyflux.transports.iggy.connection import ConsumerId
    from iggyflux.transports.iggy.source import IggySource

    item, origin = setup.item, setup.writer.source
    return IggySource(
        setup.iggy,
        origin.stream,
        origin.topics,
        consumer=ConsumerId(item.consumer.kind, setup.consumer),
        partitions=item.consumer.partitions,
        start=item.start,
        until_end=setup.until_end,
        exclusive=item.consumer.exclusive,
        remedy=setup.regroup_command,
        share=setup.share if item.consumer.kind == "single" else ALONE,  # Iggy shares the partitions of a group
    )


def coordinates_of(writer: Writer) -> tuple[str, str]:
    """Return stream and topic of messages without coordinates: those of the mapping, if it names one topic."""
    topic = writer.source.topics[0] if writer.source.topics else ""
    return writer.source.stream, "" if any(character in topic for character in "*?[") else topic


SOURCES: dict[str, Callable[[WriterSetup, Endpoint], Source]] = {
    "iggy": _iggy_source,
    "log": _log_source,
    "file": _file_source,
    "stdin": _stdin_source,
}


# --- Sinks of lines ---


def _file_sink(_setup: WriterSetup, end: Endpoint) -> LineSink:
    from iggyflux.transports.local.files import LineFileSink

    return LineFileSink(end.path or Path())


def _stdout_sink(_setup: WriterSetup, _end: Endpoint) -> LineSink:
    from iggyflux.transports.local.files import StdoutSink

    return StdoutSink()


def _influxdb_sink(setup: WriterSetup, _end: Endpoint) -> LineSink:
    from iggyflux.transports.influxdb.write.sink import InfluxLineSink

    return InfluxLineSink(setup.influxdb)


LINE_SINKS: dict[str, Callable[[WriterSetup, Endpoint], LineSink]] = {
    "influxdb": _influxdb_sink,
    "file": _file_sink,
    "stdout": _stdout_sink,
}


def make_bucket_sinks(setup: WriterSetup, sink: Endpoint) -> Callable[[str], LineSink] | None:
    """Return what makes the sink of a bucket or database, if the points of a mapping choose theirs."""
    if not setup.writer.chooses_bucket or sink.kind != "influxdb":
        return None

    def make(name: str) -> LineSink:
        from iggyflux.transports.influxdb.write.sink import InfluxLineSink

        return InfluxLineSink(settings_of(name, setup.influxdb))

    return make


def settings_of(bucket: str, settings: InfluxSettings) -> InfluxSettings:
    """Return the same settings for another bucket or database of the server."""
    if settings.database:
        return dataclasses.replace(settings, database=bucket)
    return dataclasses.replace(settings, bucket=bucket)


# --- Sinks of messages ---


def _message_topic_sink(setup: ReaderSetup, end: Endpoint) -> MessageSink:
    target = setup.reader.target
    return _topic_sink(setup, end, target.stream, target.topic)


def _topic_sink(setup: RouteSetup, end: Endpoint, stream: str, topic: str) -> MessageSink:
    """Return the sink of a topic of the Iggy server or the log that `end` names."""
    if end.kind == "iggy":
        from iggyflux.transports.iggy.topics import IggySink

        return IggySink(setup.iggy, stream, topic)
    from iggyflux.transports.local.log import LogSink

    return LogSink(end.path or Path(), stream, topic)


def _message_line_sink(setup: ReaderSetup, end: Endpoint) -> MessageSink:
    from iggyflux.transports.local.files import LineFileSink, StdoutSink
    from iggyflux.transports.local.message_files import MessageLines

    target = setup.reader.target
    lines = StdoutSink() if end.path is None else LineFileSink(end.path)
    return MessageLines(lines, target.stream, target.topic, payload=target.payload, envelope=end.envelope)


MESSAGE_SINKS: dict[str, Callable[[ReaderSetup, Endpoint], MessageSink]] = {
    "iggy": _message_topic_sink,
    "log": _message_topic_sink,
    "file": _message_line_sink,
    "stdout": _message_line_sink,
}


# --- Dead letters and positions ---


def make_dead_letters(setup: RouteSetup, messages: Endpoint) -> DeadLetterSink:
    """Return the sink of dead letters; their topic is on the same server or log as the end `messages`."""
    from iggyflux.transports.local.deadletters import DirectoryDeadLetters, TopicDeadLetters

    place = setup.item.dead_letters
    if isinstance(place, TopicAddress):
        return TopicDeadLetters(_topic_sink(setup, messages, place.stream, place.topic))
    folder = place or dead_letters_folder(setup)
    if setup.item.retention is None:
        return DirectoryDeadLetters(folder)
    from iggyflux.transports.local.letter_removal import RetainingDeadLetters

    return RetainingDeadLetters(folder, setup.item.retention)


def dead_letters_folder(setup: RouteSetup) -> Path:
    return setup.pipeline.folder / _DEAD_LETTERS / setup.name


def written_folders(setup: RouteSetup, source: Endpoint, sink: Endpoint) -> Iterator[tuple[str, Path, str]]:
    """Yield the folders on this machine in which a run of a route writes: what, where, and the key that names it."""
    item, state = setup.item, setup.pipeline.state
    if not isinstance(item.dead_letters, TopicAddress):
        yield "dead letters", item.dead_letters or dead_letters_folder(setup), "dead_letters"
    keeps_state = (
        setup.kind == "reader"
        or source.kind == "file"
        or _has_limits(setup)
        or (isinstance(setup, WriterSetup) and make_ledger(setup, source) is not None)
    )
    if isinstance(state, Path) and keeps_state:
        yield "positions", state, "state"
    if source.kind == "log" and source.path:
        yield "positions", source.path, "from"
    if sink.kind in ("file", "log") and sink.path:
        yield "output", sink.path.parent if sink.kind == "file" else sink.path, "to"
    if setup.kind == "reader":
        yield "temporary files", Path(gettempdir()), "TMPDIR of the environment"


def _has_limits(setup: RouteSetup) -> bool:
    return isinstance(setup, WriterSetup) and setup.writer.limits is not None


def make_cursor_store(setup: ReaderSetup, *, marks: bool) -> CursorStore:
    """Return the store of a reader's position: in the state folder, or in a topic."""
    from iggyflux.cursors import CursorStore, cursor_state

    state, query = setup.pipeline.state, query_of(setup.reader, setup.influxdb)
    if isinstance(state, TopicAddress):
        from iggyflux.cursors.topics import TopicState

        in_topic = TopicState(setup.iggy, state, setup.name)
        return CursorStore(in_topic, setup.name, query, marks=marks)
    return CursorStore(cursor_state(state, setup.name), setup.name, query, marks=marks)


def make_series_guard(setup: WriterSetup) -> SeriesGuard | None:
    """Return the limit of a writer's series, if it has one; its state is in the state folder."""
    limits, state = setup.writer.limits, setup.pipeline.state
    if limits is None or isinstance(state, TopicAddress):  # `prepare_routes` refuses the topic
        return None
    return SeriesGuard(setup.name, limits.series, limits.on_limit, series_state(state, setup.name))


def make_ledger(setup: WriterSetup, source: Endpoint) -> SettledLedger | None:
    """Return the ledger of a writer: where the pipeline names a folder as `state`, and messages have offsets."""
    state = setup.pipeline.state
    has_offsets = source.kind in ("iggy", "log") or (source.kind == "file" and not source.envelope)
    if not setup.pipeline.names_state or isinstance(state, TopicAddress) or not has_offsets:
        return None
    worker, workers = setup.share.worker, setup.share.workers
    store = ledger_state(state, setup.name, worker, busy_seconds=BUSY_SECONDS)
    if worker:
        return SettledLedger(setup.name, setup.writer.on_error, store)
    return SettledLedger(setup.name, setup.writer.on_error, store, partial(left_ledgers, state, setup.name, workers))


def query_of(reader: Reader, settings: InfluxSettings) -> dict[str, JSON]:
    """Return what identifies the rows that a position is about."""
    query = reader.source
    return {
        "place": settings.bucket or settings.database,
        "measurement": query.measurement,
        "statement": query.statement,
        "where": {tag: list(values) for tag, values in query.where},
    }
