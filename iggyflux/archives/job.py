"""A load as one job: the route of a pipeline with files as its source, and the results of files that others loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from iggyflux.archives.files import Archive
from iggyflux.archives.source import ArchiveSource, Reading, position_state
from iggyflux.pipeline import Endpoint, Pipeline, RouteSettings, TopicAddress
from iggyflux.runner.open import prepare_routes
from iggyflux.runner.route import Route
from iggyflux.state.store import StateStore


def load_route(
    pipeline: Pipeline,
    item: RouteSettings,
    archives: Sequence[Archive],
    reading: Reading,
    *,
    state: Callable[[Archive], StateStore] | None = None,
    rate: float | None = None,
    restart: bool = False,
    is_checked: bool = False,
) -> Route:
    """Return the route `item` of a pipeline, which reads `archives` instead of its source.

    Positions are in the state folder of the pipeline, unless `state` says where.  Raise `PipelineError`.
    """
    letters = None if isinstance(item.dead_letters, TopicAddress) else item.dead_letters
    item = dataclasses.replace(item, source=Endpoint("stdin"), dead_letters=letters)
    (prepared,) = prepare_routes(dataclasses.replace(pipeline, routes=(item,)), until_end=True)
    route = prepared.build()
    assert isinstance(route, Route)  # noqa: S101  # of a writer's mapping
    source = ArchiveSource(
        archives,
        reading,
        state or (lambda archive: position_state(state_folder(pipeline), route.name, archive)),
        plan=lambda: route.plan_identity,
        batch_size=route.batch_size,
        rate=rate,
        restart=restart,
        is_checked=is_checked,
    )
    return dataclasses.replace(route, source=source)


def state_folder(pipeline: Pipeline) -> Path:
    """Return the folder of positions in files, also where the pipeline keeps those of readers in a topic."""
    return pipeline.folder / ".iggyflux" if isinstance(pipeline.state, TopicAddress) else pipeline.state
