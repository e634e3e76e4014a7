"""The tags that a pipeline adds to the points of a mapping, for commands that render without a run."""

from __future__ import annotations

from pathlib import Path

import click

from iggyflux.pipeline import Pipeline, RouteSettings


def tags_for(mapping: Path, pipeline: Pipeline) -> dict[str, str]:
    """Return the tags of the routes of `mapping`.  Raise UsageError if there is no route, or if they differ."""
    routes = routes_of(mapping, pipeline)
    if not routes:
        raise click.UsageError(f"{pipeline.file} has no route for {mapping}")
    if len({route.tags for route in routes}) > 1:
        lines = ", ".join(f"run[{pipeline.routes.index(route)}]" for route in routes)
        raise click.UsageError(f"the routes of {mapping} in {pipeline.file} have different tags: {lines}")
    return dict(routes[0].tags)


def routes_of(mapping: Path, pipeline: Pipeline) -> list[RouteSettings]:
    """Return the routes of the mapping in this file."""
    return [route for route in pipeline.routes if route.mapping.resolve() == mapping.resolve()]
