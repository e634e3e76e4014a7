"""`iggyflux resend`: renders and sends a range of a topic again, also while the route runs.

A server that crashes can lose points that it had accepted.  Sending them again is safe: the same message makes the
same points.  No offset is changed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import click

from iggyflux.cli.inputs import MAPPING_FILE, open_pipeline
from iggyflux.cli.output import ExitCode, plural, show_stop, talk, warn
from iggyflux.cli.send_again import ReportedFailures, bounds, send_again
from iggyflux.mapping import OnError
from iggyflux.pipeline import IggySettings, Pipeline
from iggyflux.runner.open import open_writers
from iggyflux.transports.iggy.source import IggySource
from iggyflux.transports.iggy.topics import IggyRange
from iggyflux.transports.ranges import Bound


@click.command(name="resend")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--mapping", "name", required=True, metavar="NAME", help="The route with the messages.")
@click.option("--from", "since", metavar="OFFSET|TIME", help="The first message: an offset, or a time (RFC 3339).")
@click.option("--to", "until", metavar="OFFSET|TIME", help="The end, exclusive (default: the current end).")
@click.option("--partition", type=click.IntRange(min=0), metavar="P", help="Only this partition.")
def command(pipeline: Path, name: str, since: str | None, until: str | None, partition: int | None) -> int:
    """Send a range of messages of Apache Iggy again.

    The messages are read, rendered and delivered as by `run`, also while the writer runs. No offset is stored,
    and existing points are overwritten by equal points. Messages that fail are reported and counted; no dead letters
    are kept. The exit code is 1 if a message failed.

    \b
    Example:
      iggyflux resend pipeline.yaml --mapping factory-env --from 2026-01-31T12:00:00Z --to 2026-01-31T13:00:00Z
      iggyflux resend pipeline.yaml --mapping factory-env --from 120000 --to 125000 --partition 1
    """
    loaded = open_pipeline(pipeline)
    return asyncio.run(_resend(loaded, name, bounds(since, until), partition))


async def _resend(pipeline: Pipeline, name: str, ends: tuple[Bound | None, Bound | None], partition: int | None) -> int:
    (route,) = open_writers(pipeline, only=[name])
    if not isinstance(route.source, IggySource):
        advice = "a consumer of another name, `consumer: {group: NEW}`, reads its source again, from `start` on"
        raise click.UsageError(f"{name} does not read from Apache Iggy; {advice}")
    settings = pipeline.iggy or IggySettings()
    since, until = ends
    places = await route.source.places()
    source = IggyRange(settings, places, since=since, until=until, partition=partition)
    failed = ReportedFailures()
    summary = await send_again(
        [dataclasses.replace(route, source=source, dead_letters=failed, on_error=OnError.DEAD_LETTER)]
    )
    (status,) = summary.routes
    counts = f"{plural(status.read, 'message')} read, {plural(status.delivered, 'point')} sent again"
    talk(f"{name}: {counts}, {status.dead_letters:,} failed; no offset was changed")
    if status.state == "interrupted":
        warn("stopped before the end of the range: send it again")
    for error in summary.errors:
        show_stop(error)
    for line in failed.lines():
        talk(*line)
    return max(summary.exit_code, ExitCode.PROBLEMS if failed.count else ExitCode.OK)
