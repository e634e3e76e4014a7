"""A load as one job: the route of a pipeline with files as its source, and the results of files that others loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from iggyflux.archives.files import Archive
from iggyflux.archives.source import ArchiveSource, Reading, position_state
from iggyflux.pipeline import Endpoint, Pipeline, RouteSettings, TopicAddress
from iggyflux.records import FILE_HEADER, DeadLetter
from iggyflux.runner.open import prepare_routes
from iggyflux.runner.route import Route
from iggyflux.state.store import StateStore
from iggyflux.transports.local.deadletters import DirectoryDeadLetters
from iggyflux.transports.local.letter_removal import remove_letters

_FORGOTTEN_TOGETHER: Final = 200
"""Files whose letters are removed together: each has an open lock meanwhile, and all letters are read."""


def load_route(
    pipeline: Pipeline,
    item: RouteSettings,
    archives: Sequence[Archive],
    reading: Reading,
    *,
    state: Callable[[Archive], StateStore] | None = None,
    rate: float | None = None,
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
        is_checked=is_checked,
    )
    return dataclasses.replace(route, source=source)


def begin_again(pipeline: Pipeline, item: RouteSettings, archives: Sequence[Archive]) -> int:
    """Forget what was loaded of `archives`, and remove the dead letters that the route kept of them.

    Letters go after the positions, so that no record is neither loaded, nor kept, nor still to be loaded, and no other
    load has the files meanwhile: it would keep letters of them.  Return how many letters there were.

    Raise `PipelineError`, and `Stopped`, among others if another load has a file (IFX702).
    """
    route = load_route(pipeline, item, [], Reading())
    sink = route.dead_letters
    assert isinstance(sink, DirectoryDeadLetters)  # noqa: S101
    folder, count = sink.path, 0

    def remove(names: set[str]) -> int:
        def goes(letter: DeadLetter) -> bool:
            is_own = (letter.route, letter.pipeline) == (route.name, route.pipeline)
            return is_own and letter.message.headers.get(FILE_HEADER) in names

        return remove_letters(folder, goes, f'"{FILE_HEADER}":'.encode())

    for at in range(0, len(archives), _FORGOTTEN_TOGETHER):
        with ExitStack() as until:
            taken = []
            for archive in archives[at : at + _FORGOTTEN_TOGETHER]:
                state = position_state(state_folder(pipeline), route.name, archive)
                until.callback(state.close)
                state.take()
                taken.append((archive.name, state))
            forgotten: set[str] = set()
            try:
                for name, state in taken:
                    state.replace(None)
                    forgotten.add(name)
            finally:
                count += remove(forgotten)
    return count


def state_folder(pipeline: Pipeline) -> Path:
    """Return the folder of positions in files, also where the pipeline keeps those of readers in a topic."""
    return pipeline.folder / ".iggyflux" if isinstance(pipeline.state, TopicAddress) else pipeline.state
