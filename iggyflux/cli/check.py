"""`iggyflux check`: checks that the sources and sinks of a pipeline exist; reads, writes and acknowledges nothing.

It joins no group and takes no lock, so a pipeline can be checked while it runs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

import click

from iggyflux.authoring.contract import TAG_AND_FIELD, Column, columns_of
from iggyflux.authoring.examples import render_examples
from iggyflux.authoring.generate import GenerateError, generate_messages
from iggyflux.cli.inputs import MAPPING_FILE, open_pipeline
from iggyflux.cli.output import ExitCode, Styled, plural, result_line, talk
from iggyflux.disk import FULL, remedy, try_writing
from iggyflux.errors import NotConnected, PipelineError, Stopped, listed
from iggyflux.mapping import From, Reader, ReaderMapping, Writer, WriterMapping
from iggyflux.pipeline import Endpoint, Pipeline, TopicAddress
from iggyflux.pipeline.addresses import parse_listen
from iggyflux.plan.reads import columns_read
from iggyflux.runner.factories import settings_of, written_folders
from iggyflux.runner.open import prepare_routes
from iggyflux.runner.setup import AnySetup, WriterSetup
from iggyflux.spec import Query
from iggyflux.telemetry.server import listener
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.iggy.connection import Connection, ConsumerId
from iggyflux.transports.iggy.member import find_starving, in_words, suspicion
from iggyflux.transports.influxdb.query.source import InfluxRows
from iggyflux.transports.influxdb.write.sink import InfluxLineSink
from iggyflux.transports.local.log import Log
from iggyflux.transports.schemas import registry_of
from iggyflux.values import FieldType


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check; `ok` is None if it is unknown."""

    ok: bool | None
    text: str
    hint: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """One end of a route, and its settings."""

    setup: AnySetup
    endpoint: Endpoint


@click.command(name="check")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--mapping", "only", multiple=True, metavar="NAME", help="Only the route of this name; can be repeated.")
@click.option(
    "--status-file", type=click.Path(dir_okay=False, path_type=Path), help="The status file of `run`: check its folder."
)
@click.option("--local", is_flag=True, help="Check what is on this machine only; connect to no server.")
def command(pipeline: Path, only: tuple[str, ...], status_file: Path | None, local: bool) -> int:
    """Check the connections and permissions of a pipeline file.

    For every route, check that source and sink exist and that `run` has the permissions it needs. In each folder in
    which `run` writes, a test file is written and removed. No message is read, acknowledged or sent, and no point is
    written, so the pipeline can run at the same time. Run it as the user of `run`.

    \b
    Example:
      iggyflux check pipeline.yaml
      iggyflux check pipeline.yaml --local --status-file status.json
    """
    loaded = open_pipeline(pipeline, warns=True)
    faults = asyncio.run(_check(loaded, only, status_file, local=local))
    talk(f"{plural(faults, 'fault')} found" if faults else "no faults found")
    return ExitCode.PROBLEMS if faults else ExitCode.OK


async def _check(pipeline: Pipeline, only: tuple[str, ...], status_file: Path | None, *, local: bool) -> int:
    routes = prepare_routes(pipeline, only=only)
    for route in routes:
        route.build()  # raises where a transport refuses its settings
    faults = 0
    for route in routes:
        setup = route.setup
        result_line(Styled(setup.name, bold=True))
        if (fault := _find_fault(setup.mapping)) is not None:
            _show("plan", setup.item.mapping, fault)
            faults += 1
        if not local and (finding := await _find_registry(setup)) is not None:
            _show("schemas", "schema_registry", finding)
            faults += finding.ok is False
        ends = [("from", route.source), ("to", route.sink)]
        if setup.kind == "reader" and isinstance(pipeline.state, TopicAddress):
            ends.append(("state", Endpoint("iggy")))
        for key, endpoint in ends:
            if local and endpoint.kind in ("iggy", "influxdb"):
                continue
            async for finding in _find(key, End(setup, endpoint)):
                _show(key, endpoint, finding)
                faults += finding.ok is False
        folders = {(what, folder): key for what, folder, key in written_folders(setup, route.source, route.sink)}
        for (what, folder), key in folders.items():
            faults += _check_folder(what, folder, f"set `{key}` to a folder in which this user may write")
    if status_file is not None or pipeline.telemetry.listen is not None:
        result_line(Styled("run", bold=True))
    if status_file is not None:
        faults += _check_folder("the status file", status_file.parent, "choose another `--status-file`")
    if pipeline.telemetry.listen is not None:
        faults += _check_address(pipeline.telemetry.listen)
    return faults


def _check_address(listen: str) -> bool:
    """Listen at the address of `telemetry` for a moment, show the result, and return whether that is impossible.

    An address in use does not count as a fault, since a pipeline can be checked while it runs.
    """
    try:
        listener(*parse_listen(listen)).close()
    except PipelineError as error:
        (problem,) = error.problems
        is_in_use = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
        _show("listen", listen, CheckResult(None if is_in_use else False, problem.message, problem.hint, problem.code))
        return not is_in_use
    _show("listen", listen, CheckResult(True, "the address is free"))
    return False


def _check_folder(what: str, folder: Path, hint: str) -> bool:
    """Write a test file, show the result, and return whether it failed."""
    try:
        try_writing(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            hint = f"{remedy(error)}, or {hint}"
        _show("write", folder, CheckResult(False, f"no file can be written for {what}: {reason}", hint))
        return True
    _show("write", folder, CheckResult(True, f"{what}: a file can be written"))
    return False


def _find_fault(mapping: WriterMapping | ReaderMapping) -> CheckResult | None:
    """Return the fault of the compiled plan of `mapping` if every batch falls back to the reference plan, else None.

    The batches are the document's examples and, for writers, generated messages.
    """
    faults = [rendered.fallback for _, rendered in render_examples(mapping, mapping.plan())]
    if mapping.kind == "writer":
        with suppress(GenerateError):
            messages = generate_messages(mapping, start_ns=1_700_000_000_000_000_000, interval_ns=1_000_000_000)
            faults.append(mapping.plan().render(list(islice(messages, _TRIED_MESSAGES))).fallback)
    if not faults or None in faults:
        return None
    return CheckResult(
        False,
        f"generated code fails: {faults[0]}",
        "messages are rendered by the reference plan; please report this bug",
        "IFX699",
    )


_TRIED_MESSAGES = 10


async def _find(key: str, end: End) -> AsyncIterator[CheckResult]:
    place = (key, end.endpoint.kind)
    if isinstance(end.setup, WriterSetup):
        findings = WRITER_CHECKS[place](end, end.setup.writer)
    else:
        findings = READER_CHECKS[place](end, end.setup.reader)
    try:
        async for finding in findings:
            yield finding
    except Stopped as error:
        yield CheckResult(False, error.reason, error.hint, error.code)
    except PermissionError as error:
        yield CheckResult(False, f"{error.filename}: {error.strerror}", "correct the permissions")
    except NotConnected as error:
        hint = "check that the server is running and that its address is correct"
        if error.retry_after_seconds:
            hint = f"the server asks to wait {error.retry_after_seconds:g} s; then try again"
        yield CheckResult(False, str(error), hint)


async def _find_registry(setup: AnySetup) -> CheckResult | None:
    """Return whether the schema registry answers, if the route asks one; it knows no schema with the id 0."""
    registry = registry_of(setup.mapping, setup.pipeline) if isinstance(setup, WriterSetup) else None
    if registry is None:
        return None
    try:
        await asyncio.to_thread(registry.learn, {0})
    except Stopped as error:
        return CheckResult(False, error.reason, error.hint, error.code)
    except NotConnected as error:
        return CheckResult(False, error.named, "check `url` of `schema_registry`, and that the registry is running")
    finally:
        registry.close()
    return CheckResult(True, f"{registry.server} answers")


_MARKS = {True: ("ok  ", "green"), False: ("FAIL", "red"), None: ("?   ", "yellow")}


def _show(key: str, endpoint: object, finding: CheckResult) -> None:
    word, colour = _MARKS[finding.ok]
    code = f" [{finding.code}]" if finding.code else ""
    mark = Styled(word, colour, bold=finding.ok is False)
    result_line("  ", mark, f" {key:<5} {endpoint}: {finding.text}{code}")
    if finding.hint and finding.ok is not True:
        result_line("             ", Styled("hint:", "cyan"), f" {finding.hint}")


# --- the ends ---


async def _from_log(end: End, writer: Writer) -> AsyncIterator[CheckResult]:
    wanted = writer.source
    log = Log.open(end.endpoint.path or Path())
    infos = [
        info
        for info in await asyncio.to_thread(log.info)
        if info.partition.stream == wanted.stream and _takes(wanted, info.partition.topic)
    ]
    if not infos:
        known = listed(["/".join(topic) for topic in log.topics()], _named(wanted))
        hint = f"the log has the topics: {known}" if known else "the log has no topics"
        yield CheckResult(False, f"topic {_named(wanted)} not found", hint)
    else:
        messages = sum(info.end - info.first for info in infos)
        yield CheckResult(
            True, f"{plural(messages, 'message')} in {plural(len(infos), 'partition')} of {_named(wanted)}"
        )


async def _from_iggy(end: End, writer: Writer) -> AsyncIterator[CheckResult]:
    wanted, stream = writer.source, writer.source.stream
    connection = Connection(end.setup.iggy)
    try:
        await connection.open()
        yield CheckResult(True, "connected and logged in")
        topics = await connection.topics(stream)
        chosen = [topic for topic in topics or () if _takes(wanted, topic)]
        if topics is None:
            known = listed(await connection.streams(), stream)
            hint = "create it, or correct `from.stream` in the mapping" + (
                f"; the streams are: {known}" if known else ""
            )
            yield CheckResult(False, f"stream {stream} not found", hint)
        elif not chosen:
            yield CheckResult(
                False,
                f"topic {_named(wanted)} not found",
                f"the stream has the topics: {listed(topics, wanted.topics[0])}"
                if topics
                else "create it, or correct `from.topic` in the mapping; the stream has no topics",
            )
        for topic in chosen:
            partitions = await connection.partitions(stream, topic) or []
            count = sum(each.messages for each in partitions)
            yield CheckResult(
                True, f"{plural(count, 'message')} in {plural(len(partitions), 'partition')} of {stream}/{topic}"
            )
            if end.setup.item.consumer.kind == "group":
                counts_all, remedy = end.setup.item.start.kind == "first", end.setup.regroup_command
                async for finding in check_group(
                    connection, end.setup.consumer, stream, topic, counts_all=counts_all, remedy=remedy
                ):
                    yield finding
        async for finding in _letters_in_iggy(end, connection):
            yield finding
    finally:
        await connection.close()


async def check_group(
    connection: Connection,
    group: str,
    stream: str,
    topic: str,
    *,
    counts_all: bool,
    remedy: str,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[CheckResult]:
    """Check that the members of a group process their messages; look twice before reporting a starving partition.

    Messages of a partition without a stored offset count if `counts_all`.  `remedy` is the command that rebuilds the
    group.  Raise `NotConnected`.
    """
    members, connected = await connection.presence(stream, topic, group)
    if not members:
        return
    starving = await find_starving(
        connection, ConsumerId("group", group), stream, topic, counts_all=counts_all, monotonic=monotonic
    )
    hint = f"{suspicion(len(members), connected)}; if their processes have ended, run: {remedy}"
    for each in starving:
        yield CheckResult(False, in_words(each), hint)
    if starving:
        return
    summary = f"group {group} has {plural(len(members), 'member')}"
    if connected is not None and connected < len(members):
        yield CheckResult(None, f"{summary}, of which {connected} are connected", hint)
    else:
        yield CheckResult(True, summary)


async def _letters_in_iggy(end: End, connection: Connection) -> AsyncIterator[CheckResult]:
    letters = end.setup.item.dead_letters
    if isinstance(letters, TopicAddress):
        yield await _topic_in_iggy(end, connection, letters, "dead letters")


async def _topic_in_iggy(end: End, connection: Connection, address: TopicAddress, what: str) -> CheckResult:
    """Check that a topic exists to which `run` sends."""
    place = f"{address.stream}/{address.topic}"
    if await connection.partitions(address.stream, address.topic) is not None:
        return CheckResult(True, f"topic {place} for {what} exists")
    if end.setup.iggy.create:
        return CheckResult(None, f"topic {place} for {what} does not exist yet; `run` creates it")
    return CheckResult(False, f"topic {place} for {what} not found", "create it, or set `iggy.create`")


async def _to_iggy(end: End, reader: Reader) -> AsyncIterator[CheckResult]:
    target = reader.target
    connection = Connection(end.setup.iggy)
    try:
        await connection.open()
        yield CheckResult(True, "connected and logged in")
        yield await _topic_in_iggy(end, connection, TopicAddress(target.stream, target.topic), "messages")
        async for finding in _letters_in_iggy(end, connection):
            yield finding
    finally:
        await connection.close()


async def _state_in_iggy(end: End, _reader: Reader) -> AsyncIterator[CheckResult]:
    state = end.setup.pipeline.state
    assert isinstance(state, TopicAddress)  # noqa: S101
    connection = Connection(end.setup.iggy)
    try:
        await connection.open()
        yield await _topic_in_iggy(end, connection, state, "positions")
    finally:
        await connection.close()


async def _to_log(end: End, _reader: Reader) -> AsyncIterator[CheckResult]:
    path = end.endpoint.path or Path()
    place = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not place.is_dir():
        yield CheckResult(False, f"{place} is not a directory")
    elif not _may(place, os.W_OK):
        yield CheckResult(False, f"{place} is not writable")
    else:
        yield CheckResult(True, "writable" if path.exists() else "the log does not exist yet; `run` creates it")


async def _from_influxdb(end: End, reader: Reader) -> AsyncIterator[CheckResult]:
    rows = InfluxRows(end.setup.influxdb, reader.source, column=reader.cursor.column, reads=columns_read(reader))
    try:
        await rows.connect()
        yield CheckResult(True, f"connected; rows are queried in {rows.language}")
        missing = await rows.missing()
        for what, hint in missing:
            yield CheckResult(None, f"{what} not found", hint)
        start = await rows.now() - 1_000_000_000
        if reader.cursor.start == "beginning":
            first = await rows.first()
            what = reader.source.measurement or "the statement"
            if first is None and not missing:
                yield CheckResult(None, f"no rows found in {what}", "check the spelling of the measurement")
            elif first is not None:
                yield CheckResult(True, f"the oldest row in {what} is at {format_rfc3339(first)}")
                start = first
        window = await rows.fetch(start, start + 1)
        window.close()
        yield CheckResult(True, "a window can be read")
    finally:
        await rows.close()


def _may(path: Path, access: int) -> bool:
    """Return whether this process has this access, with the rights that it has now."""
    return os.access(path, access, effective_ids=os.access in os.supports_effective_ids)


async def _from_file(end: End, _writer: Writer) -> AsyncIterator[CheckResult]:
    path = end.endpoint.path or Path()
    if not path.is_file():
        yield CheckResult(False, "file not found")
    elif not _may(path, os.R_OK):
        yield CheckResult(False, "no permission to read it")
    else:
        yield CheckResult(True, plural(path.stat().st_size, "byte"))


async def _to_file(end: End, _spec: Writer | Reader) -> AsyncIterator[CheckResult]:
    path = end.endpoint.path or Path()
    place = path if path.exists() else path.parent
    if path.is_dir():
        yield CheckResult(False, f"{path} is a directory")
    elif path.exists() and not path.is_file():
        yield CheckResult(False, f"{path} is not a regular file")
    elif not place.exists():
        yield CheckResult(False, f"directory {place} not found")
    elif not _may(place, os.W_OK):
        yield CheckResult(False, f"{place} is not writable")
    else:
        yield CheckResult(True, "writable")


async def _standard(_end: End, _spec: Writer | Reader) -> AsyncIterator[CheckResult]:
    yield CheckResult(None, "checked when the route runs")


async def _to_influxdb(end: End, writer: Writer) -> AsyncIterator[CheckResult]:
    settings = end.setup.influxdb
    others = [name for name in settings.buckets if writer.chooses_bucket and not set(name) & set("*?[")]
    is_fine = True
    for place in (settings, *(settings_of(name, settings) for name in others)):
        sink = InfluxLineSink(place)
        try:
            report = await sink.check()
        finally:
            await sink.close()
        if place is settings and report.product is not None:
            yield CheckResult(True, f"{report.product} at {report.url}")
        for found in report.findings:
            is_fine = is_fine and found.ok is not False
            if place is settings or found.topic != "server" or found.ok is False:
                code = found.code if found.ok is False else None
                yield CheckResult(found.ok, f"{found.topic}: {found.text}", found.hint, code)
    if isinstance(end.setup, WriterSetup) and is_fine:
        async for result in _compare_types(end.setup):
            yield result


async def _compare_types(setup: WriterSetup) -> AsyncIterator[CheckResult]:
    """Compare tags, and fields with their types, with those that are stored: the server refuses others."""
    found: dict[str, list[Column]] = {}
    for column in columns_of(setup.mapping):
        if column.measurement is not None:
            found.setdefault(column.measurement, []).append(column)
    if not found:
        return
    rows = InfluxRows(setup.influxdb, Query(min(found), None, "auto", (), (), ()))
    conflicts = compared = 0
    try:
        await rows.connect()
        for measurement, columns in sorted(found.items()):
            stored = await rows.schema(measurement)
            for column in columns:
                kinds = stored.fields.get(column.key, ())
                if (column.kind == "field" and column.key in stored.tags) or (column.kind == "tag" and kinds):
                    conflicts += 1
                    yield _kind_conflict(setup.mapping, column, is_refused=rows.language == "sql")
                if column.kind == "tag" or column.type in (FieldType.AUTO.value, FieldType.PAYLOAD.value):
                    continue
                compared += bool(kinds)
                if kinds and column.type not in kinds and "any" not in kinds:
                    conflicts += 1
                    yield _type_conflict(setup.mapping, column, kinds)
    except (NotConnected, Stopped) as error:
        yield CheckResult(None, f"types: not compared with what is stored: {error}")
    else:
        if compared and not conflicts:
            yield CheckResult(True, f"types: {plural(compared, 'field')} as they are stored")
    finally:
        await rows.close()


def _kind_conflict(mapping: WriterMapping, column: Column, *, is_refused: bool) -> CheckResult:
    """Return the finding for a tag that is stored as a field, or the other way round; InfluxDB 3 refuses it."""
    other = "field" if column.kind == "tag" else "tag"
    place = mapping.locate(column.pointer)
    text = f"types: {column.key} of {column.measurement} is a {column.kind} at {place}, and stored as a {other}"
    why = "the server refuses the points" if is_refused else "queries of that name find only one of them"
    hint = f"write it as a {other}, or under another name: {why}"
    return CheckResult(False if is_refused else None, text, hint, TAG_AND_FIELD)


def _type_conflict(mapping: WriterMapping, column: Column, kinds: Sequence[str]) -> CheckResult:
    """Return the finding for a field that is stored with other types."""
    place = mapping.locate(column.pointer)
    text = f"types: field {column.key} of {column.measurement} is {column.type} at {place}, and stored as "
    hint = "declare the stored `type`, or write to another field: the server refuses the points"
    return CheckResult(False, text + " and ".join(kinds), hint, "IFX609")


WRITER_CHECKS: dict[tuple[str, str], Callable[[End, Writer], AsyncIterator[CheckResult]]] = {
    ("from", "iggy"): _from_iggy,
    ("from", "log"): _from_log,
    ("from", "file"): _from_file,
    ("from", "stdin"): _standard,
    ("to", "influxdb"): _to_influxdb,
    ("to", "file"): _to_file,
    ("to", "stdout"): _standard,
}
READER_CHECKS: dict[tuple[str, str], Callable[[End, Reader], AsyncIterator[CheckResult]]] = {
    ("from", "influxdb"): _from_influxdb,
    ("to", "iggy"): _to_iggy,
    ("to", "log"): _to_log,
    ("to", "file"): _to_file,
    ("to", "stdout"): _standard,
    ("state", "iggy"): _state_in_iggy,
}


def _takes(messages: From, topic: str) -> bool:
    return any(fnmatchcase(topic, pattern) for pattern in messages.topics)


def _named(messages: From) -> str:
    return f"{messages.stream}/{','.join(messages.topics)}"
