"""`iggyflux regroup`: rebuild a consumer group without its members, but with its offsets.

After a restart, a server can keep former members as owners of partitions, which then no member reads.  The command
deletes the group, creates it again, and stores its offsets again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from iggyflux.cli.inputs import MAPPING_FILE, open_pipeline
from iggyflux.cli.output import ExitCode, plural, talk
from iggyflux.pipeline import Pipeline
from iggyflux.runner.open import open_writers
from iggyflux.transports.iggy.connection import Connection
from iggyflux.transports.iggy.groups import RebuiltGroup, refuse_while_connected, regroup
from iggyflux.transports.iggy.source import IggySource


@click.command(name="regroup")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--mapping", "name", required=True, metavar="NAME", help="The route with the consumer group.")
@click.option("--yes", is_flag=True, help="Continue even if members are, or may be, connected.")
def command(pipeline: Path, name: str, yes: bool) -> int:
    """Rebuild an Apache Iggy consumer group without its members; keep its offsets.

    Use it if ended processes still hold partitions of the group, as after a restart of the server (`iggy.starving` in
    the events of a run). It refuses while members are connected. With --yes it continues: running processes join again
    within seconds, and messages that they have in flight are read twice.

    \b
    Example:
      iggyflux regroup pipeline.yaml --mapping factory-env
    """
    return asyncio.run(_regroup(open_pipeline(pipeline), name, yes))


async def _regroup(pipeline: Pipeline, name: str, yes: bool) -> int:
    (route,) = open_writers(pipeline, only=[name])
    source = route.source
    if not isinstance(source, IggySource) or source.consumer.kind != "group":
        raise click.UsageError(f"{name} does not use a consumer group")
    group, places = source.consumer.name, await source.places()
    connection = Connection(source.settings)
    await connection.open()
    try:
        if not yes:
            for stream, topic in places:
                await refuse_while_connected(connection, stream, topic, group)
        for stream, topic in places:
            _show(stream, topic, group, await regroup(connection, stream, topic, group))
    finally:
        await connection.close()
    return ExitCode.OK


def _show(stream: str, topic: str, group: str, renewed: RebuiltGroup) -> None:
    members, offsets = plural(len(renewed.members), "member"), plural(len(renewed.offsets), "offset")
    talk(f"{stream}/{topic}: group {group} was rebuilt without {members}, with {offsets}")
    for partition, offset in sorted(renewed.offsets.items()):
        talk(f"  partition {partition}: {offset}")
