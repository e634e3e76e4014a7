"""`iggyflux dry-run` of a reader: prints the messages that would be sent for rows of a file or of a server."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import click

from iggyflux.authoring.examples import example_rows
from iggyflux.authoring.samples import SampleRow, read_rows
from iggyflux.cli.failures import show_failure
from iggyflux.cli.inputs import open_input, open_pipeline
from iggyflux.cli.output import ExitCode, Styled, flush_results, json_text, note, plural, result, talk, warn_of_fallback
from iggyflux.cli.sample_files import is_csv
from iggyflux.editor.preview import message_dict
from iggyflux.errors import TooMuch
from iggyflux.mapping import Mapping, ReaderMapping
from iggyflux.mapping.times import read_duration
from iggyflux.pipeline import InfluxSettings
from iggyflux.records import Row

_FIRST_SPAN_NS: Final = 10_000_000_000


def dry_run_reader(
    mapping: ReaderMapping, samples: str | None, *, form: str, limit: int | None, rows: str | None
) -> int:
    """Print the messages made of rows, one per line; failures and a summary go to stderr."""
    return _print(mapping, list(islice(_rows(mapping, samples, rows), limit)), form)


def dry_run_live(mapping: ReaderMapping, pipeline: Path | None, last: str, *, form: str, limit: int) -> int:
    """Do the same with the newest rows of the server within the time `last`."""
    if not (span := read_duration(last, 0)):
        raise click.BadParameter(f"{last!r} is not a duration such as 1h", param_hint="--last")
    if pipeline is None:
        raise click.UsageError("--from influxdb needs --pipeline: a file with an `influxdb` section")
    return _print(mapping, asyncio.run(_newest(mapping, pipeline, span, limit)), form)


async def _newest(mapping: ReaderMapping, path: Path, span: int, limit: int) -> list[SampleRow]:
    """Return the newest rows, oldest first; query backwards in windows that grow while they hold few rows."""
    from iggyflux.transports.influxdb.query.source import InfluxRows  # 70 ms, only with --from influxdb

    column = mapping.reader.cursor.column
    source = InfluxRows(_settings(mapping, path), mapping.reader.source, column=column)
    found: list[Row] = []
    try:
        await source.connect()
        now = await source.now()
        stop, size = now, min(_FIRST_SPAN_NS, span)
        while stop > now - span and len(found) < limit:
            start = max(stop - size, now - span)
            try:
                window = await source.fetch(start, stop)
            except TooMuch:
                if size == 1:
                    raise
                size = max(size // 2, 1)
                continue
            try:
                async for rows in window.chunks():
                    found = heapq.nlargest(limit, [*found, *rows], key=lambda row: row.columns[column])  # type: ignore[arg-type, return-value]
            finally:
                window.close()
            stop, size = start, size * 2
    finally:
        await source.close()
    if not found:
        note("no rows found in that time; use --last to read further back")
    return [SampleRow(number, row) for number, row in enumerate(reversed(found), 1)]


def _settings(mapping: Mapping, path: Path) -> InfluxSettings:
    """Return the `influxdb` section of the mapping's route, or else of the pipeline."""
    pipeline = open_pipeline(path)
    file = Path(mapping.document.file or "")
    for route in pipeline.routes:
        if route.influxdb is not None and route.mapping.exists() and route.mapping.samefile(file):
            return route.influxdb
    if pipeline.influxdb is None:
        raise click.UsageError(f"{path} has no `influxdb` section")
    return pipeline.influxdb


def _print(mapping: ReaderMapping, chosen: list[SampleRow], form: str) -> int:
    plan = mapping.plan()
    rendered = plan.render([sample.row for sample in chosen])
    warn_of_fallback(rendered.fallback)
    for message, origin in zip(rendered.messages, rendered.origins, strict=True):
        line = message_dict(mapping, message)
        result(json_text({"sample": chosen[origin].line, **line} if form == "json" else line) + "\n")
    flush_results()
    for failure in rendered.failures:
        show_failure(mapping, Styled(f"row {chosen[failure.index].line}", bold=True), failure)
    summary = {"rows": len(chosen), "messages": len(rendered.messages), "failures": len(rendered.failures)}
    if form == "json":
        result(json_text({"summary": summary}) + "\n")
    else:
        failed = f", {plural(len(rendered.failures), 'failure')}" if rendered.failures else ""
        talk(f"{plural(len(chosen), 'row')}: {plural(len(rendered.messages), 'message')}{failed}")
    return ExitCode.PROBLEMS if rendered.failures else ExitCode.OK


def _rows(mapping: ReaderMapping, samples: str | None, form: str | None) -> Iterator[SampleRow]:
    measurement = mapping.reader.source.measurement or ""
    if samples is None:
        yield from _example_rows(mapping, measurement)
        return
    path = Path(samples)
    with open_input(path) as lines:
        chosen = form or ("csv" if is_csv(path) else "jsonl")
        yield from read_rows(lines, form=chosen, measurement=measurement)


def _example_rows(mapping: ReaderMapping, measurement: str) -> Iterator[SampleRow]:
    if not mapping.examples:
        raise click.UsageError(f"{mapping.document.file} has no examples; name a file of rows, or - for stdin")
    note(f"no rows given: using the document's {plural(len(mapping.examples), 'example')}")
    for number, tree in enumerate(mapping.examples, 1):
        for row in example_rows(tree, measurement):
            yield SampleRow(number, row)
