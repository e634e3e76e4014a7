"""`iggyflux load`: writes archives of messages to InfluxDB, as one run of a route that can be resumed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import click

from iggyflux.archives.avro import is_avro
from iggyflux.archives.files import Archive, NoFsspec, NotFound, find_archives
from iggyflux.archives.job import begin_again, load_route, state_folder
from iggyflux.archives.parquet import is_parquet
from iggyflux.archives.progress import storing_progress
from iggyflux.archives.source import ArchiveSource, Reading, RecordFile
from iggyflux.authoring.sample_bytes import SampleError
from iggyflux.authoring.samples import Sample, check_lines_can_hold
from iggyflux.cli.allocator import keep_freed_memory
from iggyflux.cli.dry_run import SampleRun
from iggyflux.cli.envelopes import check_whole
from iggyflux.cli.inputs import MAPPING_FILE, open_mapping, open_pipeline
from iggyflux.cli.live_lines import size_text
from iggyflux.cli.load_spread import WorkersLoad, input_of, load_with_ray, note_loaded, waits_of
from iggyflux.cli.output import ExitCode, leave_at_once, note, plural, show_stop, talk
from iggyflux.cli.progress import show_run, summary_lines, telling
from iggyflux.cli.run import Count, OneOf
from iggyflux.cli.send_again import ReportedFailures
from iggyflux.cli.tags import routes_of
from iggyflux.errors import NotConnected, Stopped
from iggyflux.mapping import WriterMapping
from iggyflux.payloads import is_text
from iggyflux.payloads.avro import encoding_of
from iggyflux.pipeline import Pipeline, RouteSettings
from iggyflux.plan.reads import reads_arrival
from iggyflux.records import DeadLetter
from iggyflux.runner import Status, Stop, Summary, run_routes, stopping_on_signals
from iggyflux.runner.events import emit
from iggyflux.runner.factories import coordinates_of
from iggyflux.runner.reporting import reporting
from iggyflux.runner.route import Route
from iggyflux.runner.stop import stopping_as_worker
from iggyflux.runner.workers import encoded, usable_cpus
from iggyflux.timestamps import TimestampError, parse_rfc3339
from iggyflux.transports.base import DeadLetterSink, Removed, Retains
from iggyflux.transports.local.envelopes import EnvelopeError
from iggyflux.transports.share import Share

_SHOWN_RECORDS: Final = 10
_PROGRESS_SECONDS: Final = 10.0

log = logging.getLogger("iggyflux.load")


@click.command(name="load")
@click.argument("mapping", type=MAPPING_FILE)
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("--pipeline", type=MAPPING_FILE, help="The pipeline file with the route of MAPPING.")
@click.option("--route", "name", metavar="NAME", help="The route, where MAPPING has several.")
@click.option("--envelope", is_flag=True, help="Records are messages with coordinates and headers, not plain payloads.")
@click.option("--whole", is_flag=True, help="Each file is one payload, such as an XML document over several lines.")
@click.option(
    "--message-time", metavar="TIME", help="When the first record arrived (RFC 3339); each later one, a µs after."
)
@click.option("--rate", type=click.FloatRange(min=0.1), metavar="N", help="Load at most N records a second.")
@click.option("--restart", is_flag=True, help="Load the files from their beginning; their dead letters are removed.")
@click.option(
    "--verify", is_flag=True, help="Read compressed files to their ends first; send nothing if one is damaged."
)
@click.option("--dry-run", is_flag=True, help="Print the lines of the first records without sending them.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="With --dry-run: how many records (default 10).")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="What does the work."
)
@click.option("--address", metavar="ADDRESS", help="With --engine ray: the cluster (default: one on this machine).")
@click.option("--workers", type=Count(), metavar="N|auto", default="1", help="Share the files among N processes.")
@click.option("--worker", "share", type=OneOf(), hidden=True)
@click.option("--only", type=click.Path(path_type=Path), hidden=True)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Print one line per event, also on a terminal.")
@click.option("--quiet", is_flag=True, help="Print warnings and errors only.")
def command(
    mapping: Path,
    paths: tuple[str, ...],
    pipeline: Path | None,
    name: str | None,
    envelope: bool,
    whole: bool,
    message_time: str | None,
    rate: float | None,
    restart: bool,
    verify: bool,
    dry_run: bool,
    limit: int | None,
    engine: str,
    address: str | None,
    workers: int | None,
    share: Share | None,
    only: Path | None,
    log_format: str | None,
    quiet: bool,
) -> int:
    """Load archives of messages into InfluxDB.

    PATH is a file, a glob, or a URL such as s3://bucket/2026/*.ndjson.gz. Files that end in .gz, .zst or .bz2 are
    expanded. Each line is a record, each row of a CSV file with its header, each row of a .parquet file, each record of
    an Avro container, or each JSON document over several lines; with --whole, each file.
    Records are rendered and delivered as by `run`, through the route of MAPPING in --pipeline.

    A load that ends before its end goes on there when it is called again; a file that was loaded is left out. What
    fails becomes a dead letter with its file and line, which `replay` sends again; the exit code is then 1. It is 3 if
    the load stopped or was interrupted.

    With --workers, N processes share the files; one that crashes is started again and goes on. With --engine ray, each
    file is a task of Ray, on this machine or on a cluster whose machines read the same paths.

    \b
    Example:
      iggyflux load mapping.yaml samples.ndjson --dry-run
      iggyflux load mapping.yaml 'archive/*.ndjson.gz' --pipeline pipeline.yaml
      iggyflux load mapping.yaml 'documents/*.json' --whole --pipeline pipeline.yaml
      iggyflux load mapping.yaml messages.ndjson --envelope --pipeline pipeline.yaml --rate 20000
    """
    check_whole(envelope, whole)
    _check_options(pipeline, dry_run, limit, engine, address, rate, workers)
    document = open_mapping(mapping)
    if not paths:
        raise click.UsageError(f"Missing argument 'PATH...': the files to load with {mapping}")
    if document.kind == "reader":
        raise click.UsageError(f"{mapping} is a reader; expected a writer, which makes points of messages")
    archives = _find(paths, notes=True) if only is None else _find_named(paths, json.loads(only.read_bytes()))
    reading = _reading(document, archives, envelope, whole, message_time)
    warns = share is None and not dry_run  # a worker has what its supervisor has
    loaded = None if pipeline is None else open_pipeline(pipeline, connects=not dry_run, warns=warns)
    item = None if loaded is None else _route_of(document.name, mapping, loaded, name)
    if verify and not _are_sound(archives, reading):
        return ExitCode.STOPPED
    if dry_run:
        return _dry_run(document, archives, reading, item, limit or _SHOWN_RECORDS)
    assert loaded is not None and item is not None  # noqa: S101, PT018
    count = min(usable_cpus() if workers is None else workers, len(archives))
    is_spread = count > 1 and share is None and engine == "local"
    if is_spread:
        _check_workers(document, item)
    if restart and (removed := begin_again(loaded, item, archives)):
        note(
            f"{plural(removed, 'dead letter')} of these files, kept before, {'was' if removed == 1 else 'were'} removed"
        )
    if engine == "ray":
        return load_with_ray(loaded, item, archives, reading, address, quiet=quiet)
    if is_spread:
        words = [*map(str, (mapping, *paths, "--pipeline", pipeline, "--route", item.name or document.name))]
        flags = {"--envelope": envelope, "--whole": whole, "--quiet": quiet}
        words += [flag for flag, is_given in flags.items() if is_given]
        load = WorkersLoad(loaded, item, reading, archives, count, words, rate)
        return load.run(log_format, quiet=quiet)
    return _load_here(loaded, item, archives, reading, rate, share, log_format, quiet=quiet)


def _load_here(
    pipeline: Pipeline,
    item: RouteSettings,
    archives: Sequence[Archive],
    reading: Reading,
    rate: float | None,
    share: Share | None,
    log_format: str | None,
    *,
    quiet: bool,
) -> int:
    """Load in this process; as a worker, its share of the files."""
    failed = ReportedFailures("failed")
    is_checked = share is not None  # by the supervisor
    route = load_route(pipeline, item, archives, reading, rate=rate, is_checked=is_checked)
    route = dataclasses.replace(route, dead_letters=_Reported(route.dead_letters, failed))
    source = route.source
    keep_freed_memory()
    loading = _load(route, pipeline, log_format if share is None else "json", share, quiet=quiet)
    summary, was_stopped = asyncio.run(loading)
    if share is None:
        if not quiet or summary.exit_code or failed.count:
            for line in (*summary_lines(summary), *failed.lines()):
                talk(*line)
        if isinstance(source, ArchiveSource) and source.complete:
            note_loaded(source.complete)
        code = summary.exit_code or (ExitCode.PROBLEMS if failed.count else ExitCode.OK)
    else:
        code = ExitCode(summary.exit_code)  # a supervisor takes 1 for a crash
    if was_stopped:  # a request that hangs, or a name that is not resolved, is not waited for
        leave_at_once(code)
    return code


def _check_options(
    pipeline: Path | None,
    dry_run: bool,
    limit: int | None,
    engine: str,
    address: str | None,
    rate: float | None,
    workers: int | None,
) -> None:
    """Raise UsageError for options that do not go together."""
    for is_wrong, message in (
        (limit is not None and not dry_run, "--limit needs --dry-run"),
        (address is not None and engine != "ray", "--address needs --engine ray"),
        (rate is not None and engine == "ray", "--rate is for this machine; it cannot be kept with --engine ray"),
        (workers != 1 and engine == "ray", "--workers is for this machine; a cluster has its own number of workers"),
        (
            pipeline is None and not dry_run,
            "add --pipeline: the file with the route of MAPPING and its `influxdb` section",
        ),
    ):
        if is_wrong:
            raise click.UsageError(message)


def _check_workers(document: WriterMapping, item: RouteSettings) -> None:
    """Raise UsageError for a route that several processes cannot share."""
    if item.sink is not None and item.sink.kind != "influxdb":
        raise click.UsageError(f"--workers needs a route to InfluxDB: one process writes to {item.sink}")
    if document.writer.limits is not None:
        raise click.UsageError("`limits` counts the series of all records: load without --workers")


# --- what is loaded ---


def _find(paths: Sequence[str], *, notes: bool) -> list[Archive]:
    again: list[str] = []
    try:
        found = find_archives(paths, again)
    except NotFound as error:
        raise click.BadParameter(str(error), param_hint="PATH") from error
    except NoFsspec as error:
        raise click.UsageError(str(error)) from error
    except NotConnected as error:
        hint = "check the login and the address of the store; for s3:// AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, region"
        raise Stopped(error.named, hint, "IFX611") from error
    if again and notes:
        note(
            f"{plural(len(again), 'name is', 'names are')} of files that are named before and loaded once: {again[0]}"
            + (", …" if again[1:] else "")
        )
    return found


def _are_sound(archives: Sequence[Archive], reading: Reading) -> bool:
    """Return whether no compressed file is damaged; print which are."""
    are_sound = True
    for archive in archives:
        if archive.is_compressed:
            file = RecordFile(archive, reading)
            try:
                file.verify()
            except Stopped as error:
                show_stop(error)
                are_sound = False
            finally:
                file.release()
    return are_sound


def _find_named(paths: Sequence[str], names: Sequence[str]) -> list[Archive]:
    """Return the files of these names; one that is not there any more cannot be read, and is left then (IFX710)."""
    found: dict[str, Archive] = {}
    for path in paths:
        with suppress(click.BadParameter):
            found |= {each.name: each for each in _find([path], notes=False)}
    return [found.get(name) or Archive(name, 0, "") for name in names]


def _reading(
    document: WriterMapping, archives: Sequence[Archive], envelope: bool, whole: bool, message_time: str | None
) -> Reading:
    """Return how the files are read.  Raise UsageError if the mapping cannot read such records."""
    writer = document.writer
    payload, needs_time = writer.source.payload, reads_arrival(writer)
    parquet = next((each.name for each in archives if is_parquet(each.name)), None)
    if parquet is not None and whole:
        raise click.UsageError(f"{parquet} has rows, and each is a message: load it without --whole")
    if parquet is not None and (payload.format, payload.compression, envelope) != ("json", "none", False):
        raise click.UsageError(f"{parquet} has rows, which become JSON: they need a mapping with `payload: json`")
    is_container = payload.format == "avro" and encoding_of(payload.options) == "container"
    is_cut = is_container and payload.compression in ("none", "auto") and not envelope
    avro = next((each.name for each in archives if is_avro(each.name)), None)
    if avro is not None and not is_cut:
        needed = "`payload: {format: avro, encoding: container}`"
        raise click.UsageError(f"{avro} is a container of Avro, which needs a mapping with {needed}")
    if not envelope and not whole and not is_cut:
        try:
            check_lines_can_hold(payload.format, payload.options, payload.compression)
        except SampleError as error:
            raise click.UsageError(
                f"{error.reason} (add --whole if each file is one of them, else --envelope)"
            ) from error
    if message_time is not None and envelope:
        raise click.UsageError("--message-time and --envelope are mutually exclusive: an envelope has a time")
    if message_time is not None and len(archives) > 1:
        raise click.UsageError("--message-time is for one file: the records of two would have the same times")
    if needs_time and message_time is None and not envelope:
        raise click.UsageError(
            f"{document.name} reads the time of the message, and a record of an archive has none: give the points a "
            "`timestamp` of the payload, or add --message-time TIME"
        )
    stream, topic = coordinates_of(writer)
    return Reading(
        form=payload.format,
        options=payload.options,
        stream=stream,
        topic=topic,
        envelope=envelope,
        whole=whole,
        is_text=is_text(payload),
        first_us=_microseconds(message_time),
        needs_time=needs_time,
    )


def _microseconds(time: str | None) -> int | None:
    if time is None:
        return None
    try:
        return parse_rfc3339(time) // 1000
    except TimestampError as error:
        raise click.BadParameter(f"expected a time: {error}", param_hint="--message-time") from error


def _route_of(usual: str, mapping: Path, pipeline: Pipeline, name: str | None) -> RouteSettings:
    """Return the route that loads; `usual` is the name of one that has none."""
    routes = {route.name or usual: route for route in routes_of(mapping, pipeline)}
    if name is not None:
        routes = {each: route for each, route in routes.items() if each == name}
    if not routes:
        raise click.UsageError(f"{pipeline.file} has no route {'' if name is None else f'{name!r} '}for {mapping}")
    if len(routes) > 1:
        raise click.UsageError(f"{pipeline.file} has several routes for {mapping}: add --route ({', '.join(routes)})")
    return next(iter(routes.values()))


# --- without sending ---


def _dry_run(
    document: WriterMapping, archives: Sequence[Archive], reading: Reading, item: RouteSettings | None, limit: int
) -> int:
    tags = {} if item is None else dict(item.tags)
    precision = "ns" if item is None or item.influxdb is None else item.influxdb.precision
    run = SampleRun(document, "compiled", "v2", precision, "text", tags)
    run(islice(_samples(archives, reading, limit), limit))
    return ExitCode.PROBLEMS if run.tally.failed or run.is_beyond_limit else ExitCode.OK


def _samples(archives: Sequence[Archive], reading: Reading, most: int) -> Iterator[Sample]:
    for archive in archives:
        file = RecordFile(archive, reading)
        try:
            file.begin(None)
            for offset, record in enumerate(file.take(most)):
                message = reading.message(archive, offset, record)
                yield Sample(record[0], message, f"{archive.name}:{record[0]}")
        except SampleError as error:
            raise file.fault(error) from error
        except EnvelopeError as error:
            raise Stopped(f"{archive.name}:{record[0]}: {error}", code="IFX711") from error
        finally:
            file.raw.release()


# --- sending ---


class _Reported(DeadLetterSink):
    """The dead letters of a route, which also counts them and keeps the first for the report."""

    def __init__(self, sink: DeadLetterSink, report: ReportedFailures) -> None:
        self._sink = sink
        self._report = report

    @property
    def removed(self) -> Removed:
        return self._sink.removed if isinstance(self._sink, Retains) else Removed()

    async def connect(self) -> None:
        await self._sink.connect()

    async def put(self, letters: Sequence[DeadLetter]) -> str | None:
        place = await self._sink.put(letters)
        await self._report.put(letters)
        return place

    async def close(self) -> None:
        await self._sink.close()


async def _load(
    route: Route, pipeline: Pipeline, log_format: str | None, share: Share | None, *, quiet: bool
) -> tuple[Summary, bool]:
    """Return the summary, and whether a signal stopped the run."""
    stop, status = Stop(), Status()
    progress = show_run(status, log_format, quiet=quiet, without="record.failed")
    stopping = stopping_on_signals(stop, for_good=True) if share is None else stopping_as_worker(stop)
    with progress, stopping:
        told = (
            storing_progress(state_folder(pipeline), route.name, lambda: input_of(status), lambda: waits_of(status))
            if share is None
            else reporting(lambda: encoded(status), stop.request)
        )
        async with telling(lambda: _tell(status), _PROGRESS_SECONDS), told:
            summary = await run_routes(
                [route], stop=stop, status=status, shutdown_timeout_seconds=pipeline.shutdown_timeout_seconds
            )
    return summary, stop.requested.is_set()


def _tell(status: Status) -> None:
    """Log how much is read."""
    for route in status.routes:
        if (read := route.input) is not None:
            left = None if read.seconds_left is None else f"{read.seconds_left:.0f}s"
            done = {"done": f"{read.share:.1%}", "of": size_text(read.total), "left": left}
            emit(log, logging.INFO, "load.progress", route=route.name, **done, messages=route.read)
