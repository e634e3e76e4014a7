"""The ends of routes, and combinations that are not possible: all problems are found before anything is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from iggyflux.errors import PipelineError, Problem
from iggyflux.pipeline import Endpoint, EndpointKind, TopicAddress
from iggyflux.plan import precision_problems
from iggyflux.runner.factories import LINE_SINKS, MESSAGE_SINKS, SOURCES
from iggyflux.runner.setup import AnySetup, ReaderSetup, RouteSetup
from iggyflux.transports.schemas import asks_registry

_KNOWN: dict[tuple[str, str], tuple[str, ...]] = {
    ("writer", "from"): tuple(SOURCES),
    ("writer", "to"): tuple(LINE_SINKS),
    ("reader", "from"): ("influxdb",),
    ("reader", "to"): tuple(MESSAGE_SINKS),
}
_DEFAULTS: dict[tuple[str, str], tuple[EndpointKind, str]] = {
    ("writer", "from"): ("iggy", "from: log:data"),
    ("writer", "to"): ("influxdb", "to: file:points.lp"),
    ("reader", "from"): ("influxdb", ""),
    ("reader", "to"): ("iggy", "to: log:data"),
}
"""The default end of a route, if the pipeline has that section; and an example for the hint if it has not."""


def find_ends(setups: Sequence[AnySetup]) -> list[tuple[Endpoint, Endpoint]]:
    """Return source and sink of each route.  Raise `PipelineError` with the problems of all of them."""
    problems: list[Problem] = []
    ends = [(_find_end(setup, "from", problems), _find_end(setup, "to", problems)) for setup in setups]
    problems += _shared_consumers(setups, [source for source, _ in ends])
    if problems:
        raise PipelineError(problems)
    return [(source, sink) for source, sink in ends if source and sink]


def _find_end(setup: AnySetup, key: str, problems: list[Problem]) -> Endpoint | None:
    """Return an end of a route; by default the server whose section the pipeline has."""
    pipeline, item = setup.pipeline, setup.item
    given = item.source if key == "from" else item.sink
    usual, example = _DEFAULTS[setup.kind, key]
    section = pipeline.iggy if usual == "iggy" else item.influxdb or pipeline.influxdb
    if given is None and section is not None:
        given = Endpoint(usual)
    if given is None:
        hint = f"add `{example}`, or an `{usual}` section" if example else f"add an `{usual}` section"
        problems.append(pipeline.problem("IFX807", item, f"missing `{key}` of the route", hint=hint))
        return None
    known = _KNOWN[setup.kind, key]
    if given.kind not in known:
        message = f"a {setup.kind} mapping cannot use `{key}: {given}`"
        problems.append(pipeline.problem("IFX813", item, message, hint=f"use one of: {', '.join(sorted(known))}"))
        return None
    problems += _end_problems(setup, key, given)
    return given


def _end_problems(setup: AnySetup, key: str, given: Endpoint) -> Iterator[Problem]:
    pipeline, item = setup.pipeline, setup.item
    if key == "from" and setup.kind == "writer" and asks_registry(setup.writer) and not pipeline.schema_registry:
        hint = "add `schema_registry: {url: …}` to the pipeline file"
        yield pipeline.problem("IFX807", item, f"{setup.name!r} asks a schema registry, and there is none", hint=hint)
    has_messages = (key == "from") == (setup.kind == "writer")
    if has_messages and isinstance(item.dead_letters, TopicAddress) and given.kind not in ("log", "iggy"):
        message = f"dead letters cannot go to a topic: {given} has no topics"
        yield pipeline.problem("IFX813", item, message, hint="use a directory")
    in_topic = isinstance(pipeline.state, TopicAddress)
    if given.kind == "file" and key == "from" and in_topic:
        hint = "use a directory as `state`; a topic can store positions of readers only"
        yield pipeline.problem("IFX813", item, f"the position in {given} cannot be stored in a topic", hint=hint)
    if key == "to" and setup.kind == "reader" and in_topic and given.kind != "iggy":
        yield from _iggy_problems(setup)
    if given.kind == "influxdb":
        yield from _influxdb_problems(setup)
    if given.kind == "iggy":
        yield from _iggy_problems(setup)
    if key == "to" and setup.kind == "reader":
        yield from _target_problems(setup, given)
    elif key == "to" and given.envelope:
        yield pipeline.problem("IFX813", item, "lines of line protocol have no envelope", hint="remove `envelope`")
    if key == "to" and setup.kind == "writer":
        yield from precision_problems(setup.writer, setup.influxdb.precision)
        if setup.writer.chooses_bucket and given.kind != "influxdb":
            message = f"{setup.name!r} chooses buckets, and {given} has none"
            yield pipeline.problem(
                "IFX828", item, message, hint="send the route to influxdb, or remove `to` of the mapping"
            )


def _target_problems(setup: ReaderSetup, sink: Endpoint) -> Iterator[Problem]:
    """Yield what a reader's document asks for and the sink cannot do."""
    from iggyflux.payloads import FORMATS  # decoders, which only readers of files need here

    reader = setup.reader
    if sink.kind == "iggy":
        hint = "put the time into a header or the payload; the timestamp of a message is the time of its arrival"
        for spec in reader.messages:
            if spec.timestamp is not None:
                message = "a message cannot be sent to Iggy with a timestamp of its own"
                yield setup.mapping.document.problem("IFX776", f"{spec.pointer}/timestamp", message, hint=hint)
    elif sink.kind in ("file", "stdout") and not sink.envelope and FORMATS[reader.target.payload].binary:
        message = f"{reader.target.payload} payloads cannot be written as lines"
        hint = "use to: {file: PATH, envelope: true} for whole messages (`-` is stdout)"
        yield setup.pipeline.problem("IFX813", setup.item, message, hint=hint)


def _influxdb_problems(setup: RouteSetup) -> list[Problem]:
    """Return the problems of the settings of InfluxDB, each with its place."""
    from iggyflux.transports.influxdb.connection import certificate_problems, settings_problems

    found = settings_problems(setup.influxdb) or certificate_problems(setup.influxdb)
    return [setup.pipeline.setting_problem(setup.item, "influxdb", each) for each in found]


def _iggy_problems(setup: RouteSetup) -> list[Problem]:
    """Return the problems of the settings of Iggy and of the consumer, each with its place."""
    from iggyflux.transports.iggy.settings import certificate_problems, settings_problems

    consumer = dataclasses.replace(setup.item.consumer, name=setup.consumer) if setup.kind == "writer" else None
    found = settings_problems(setup.iggy, consumer) or certificate_problems(setup.iggy)
    return [setup.pipeline.setting_problem(setup.item, "iggy", each) for each in found]


def _shared_consumers(setups: Sequence[AnySetup], sources: Sequence[Endpoint | None]) -> list[Problem]:
    """Return routes that read one source as the same consumer: each would get only a part of the messages."""
    problems: list[Problem] = []
    seen: dict[tuple[str, ...], RouteSetup] = {}
    for setup, source in zip(setups, sources, strict=True):
        if source is None or setup.kind == "reader" or source.kind not in ("log", "iggy"):
            continue
        origin, item = setup.writer.source, setup.item
        place: tuple[str, ...] = (str(source), setup.consumer)
        if source.kind == "iggy":
            place += (origin.stream, *sorted(origin.topics), str(item.consumer.partitions))
        first = seen.setdefault(place, setup)
        if first is not setup:
            message = f"routes {first.name!r} and {setup.name!r} read with the same consumer, {setup.consumer!r}"
            hint = "use another `consumer` for one of them; otherwise each gets only a part of the messages"
            problems.append(setup.pipeline.problem("IFX811", item, message, hint=hint))
    return problems
