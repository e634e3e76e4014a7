"""`iggyflux check`: connects to what a pipeline names, moves nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iggyflux.cli.inputs import MAPPING_FILE
from iggyflux.cli.output import ExitCode, plural, result_line, styled_problem, talk

if TYPE_CHECKING:
    from iggyflux.pipeline import Endpoint, Pipeline
    from iggyflux.runner.route import Route

_DEFAULTS = {"from": "iggy", "to": "influxdb"}


@click.command(name="check")
@click.argument("pipeline", type=MAPPING_FILE)
@click.option("--mapping", "only", multiple=True, metavar="NAME", help="Only the route of this name; may be repeated.")
def command(pipeline: Path, only: tuple[str, ...]) -> int:
    """Connect to what a pipeline file names, and verify it.

    Both ends of every route are connected and asked what they are; nothing is read, written or acknowledged.

    \b
    Example:
      iggyflux check pipeline.yaml
    """
    from iggyflux.pipeline import load_pipeline

    loaded = load_pipeline(pipeline)
    for problem in loaded.warnings:
        talk(styled_problem(problem))
    faults = asyncio.run(_check(loaded, only))
    talk(f"{plural(faults, 'fault')} found" if faults else "everything is there")
    return ExitCode.PROBLEMS if faults else ExitCode.OK


async def _check(pipeline: Pipeline, only: tuple[str, ...]) -> int:
    from iggyflux.runner.open import open_routes

    faults = 0
    items = {item.label: item for item in pipeline.routes}
    for route in open_routes(pipeline, only=only):
        item = items.get(route.name)
        result_line(click.style(route.name, bold=True))
        faults += await _check_route(route, item.source if item else None, item.sink if item else None)
    return faults


async def _check_route(route: Route, source: Endpoint | None, sink: Endpoint | None) -> int:
    try:
        faults = await _try("from", source, route.source)
        return faults + await _try("to", sink, route.sink)
    finally:
        for transport in (route.source, route.sink, route.dead_letters):
            await transport.close()


async def _try(key: str, end: Endpoint | None, transport: Any) -> int:
    """1 where the end is not there, after saying why."""
    from iggyflux.errors import IggyfluxError, Stopped

    about = getattr(transport, "about", None) or str(end or _DEFAULTS[key])
    try:
        await transport.connect()
    except IggyfluxError as error:
        reason = f"{error.reason} [{error.code}]" if isinstance(error, Stopped) else str(error)
        result_line(f"  {click.style('FAIL', fg='red', bold=True)} {key:<5} {about}: {reason}")
        if isinstance(error, Stopped) and error.hint:
            result_line(f"             {click.style('hint:', fg='cyan')} {error.hint}")
        return 1
    result_line(f"  {click.style('ok  ', fg='green')} {key:<5} {about}")
    return 0
