"""The tags that a pipeline adds to the points of a mapping, for commands that render without a run."""

from __future__ import annotations

from pathlib import Path

import click

from iggyflux.cli.inputs import open_pipeline
from iggyflux.pipeline import Pipeline, RouteSettings


def tags_for(mapping: Path, pipeline: Path) -> dict[str, str]:
    """Return the tags of the routes of `mapping`.  Raise UsageError if there is no route, or if they differ."""
    loaded = open_pipeline(pipeline)
    routes = routes_of(mapping, loaded)
    if not routes:
        raise click.UsageError(f"{pipeline} has no route for {mapping}")
    if len({route.tags for route in routes}) > 1:
        lines = ", ".join(f"run[{loaded.routes.index(route)}]" for route in routes)
        raise click.UsageError(f"the routes of {mapping} in {pipeline} have different tags: {lines}")
    return dict(routes[0].tags)


def routes_of(mapping: Path, pipeline: Pipeline) -> list[RouteSettings]:
    """Return the routes of the mapping in this file."""
    return [route for route in pipeline.routes if route.mapping.resolve() == mapping.resolve()]
