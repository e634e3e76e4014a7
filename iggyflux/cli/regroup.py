"""`iggyflux regroup`: a consumer group without its members, but with its offsets.

A server that was started again may keep the members of before as owners of their partitions: nobody reads those.  The
group is deleted and made anew, and the offsets that it had stored are stored again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from iggyflux.cli.inputs import MAPPING_FILE
from iggyflux.cli.output import ExitCode, plural, styled_problem, talk

if TYPE_CHECKING:
    from iggyflux.pipeline import Pipeline


@click.command(name="regroup")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--mapping", "name", required=True, metavar="NAME", help="The route whose consumer group it is.")
def command(pipeline: Path, name: str) -> int:
    """Forget the members of a consumer group of Apache Iggy, and keep its offsets.

    For a group whose partitions are held by members that are dead: a server that was started again may keep them
    (`iggy.starving` in the events of a run). Stop every process of the group first: one that runs would begin without
    offsets.

    \b
    Example:
      iggyflux regroup pipeline.yaml --mapping factory-env
    """
    from iggyflux.pipeline import load_pipeline

    loaded = load_pipeline(pipeline)
    for problem in loaded.warnings:
        talk(styled_problem(problem))
    return asyncio.run(_regroup(loaded, name))


async def _regroup(pipeline: Pipeline, name: str) -> int:
    from iggyflux.runner.open import open_writers
    from iggyflux.transports.iggy_groups import renew_group
    from iggyflux.transports.iggy_source import IggySource

    (route,) = open_writers(pipeline, only=[name])
    source = route.source
    if not isinstance(source, IggySource) or source.reader.kind != "group":
        raise click.UsageError(f"{name} is no member of a consumer group")
    for stream, topic in await source.places():
        renewed = await renew_group(source.settings, stream, topic, source.reader.name)
        members, offsets = plural(len(renewed.members), "member"), plural(len(renewed.offsets), "offset")
        talk(f"{stream}/{topic}: group {source.reader.name} forgot {members} and kept {offsets}")
        for partition, offset in sorted(renewed.offsets.items()):
            talk(f"  partition {partition}: {offset}")
    return ExitCode.OK
