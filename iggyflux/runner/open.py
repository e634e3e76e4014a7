"""Make the routes of a pipeline: mappings loaded, ends checked, transports built, nothing connected."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from iggyflux.errors import DocumentError, MappingError, PipelineError, Problem, closest, listed
from iggyflux.mapping import load_mapping
from iggyflux.pipeline import Endpoint, Pipeline, TopicAddress
from iggyflux.plan.tags import fields_of_that_name
from iggyflux.runner.build import build_reader, build_writer
from iggyflux.runner.ends import find_ends
from iggyflux.runner.factories import dead_letters_folder
from iggyflux.runner.route import ReaderRoute, Route
from iggyflux.runner.setup import AnySetup, WriterSetup, make_setup
from iggyflux.transports.share import ALONE, Share


@dataclass(frozen=True, slots=True)
class PreparedRoute:
    """What a route is built from, checked."""

    setup: AnySetup
    source: Endpoint
    sink: Endpoint

    def build(self) -> Route | ReaderRoute:
        """Return the route."""
        if isinstance(self.setup, WriterSetup):
            return build_writer(self.setup, self.source, self.sink)
        return build_reader(self.setup, self.sink)

    @property
    def alone_because(self) -> str | None:
        """Why one process runs the route, whatever the number of workers; None if they share its partitions."""
        return next((reason for is_so, reason in _ALONE if is_so(self)), None)

    def of(self, share: Share) -> PreparedRoute | None:
        """Return what a worker with this share runs of the route; None if it is nothing."""
        if self.alone_because is None:
            return replace(self, setup=replace(self.setup, share=share))
        return None if share.worker else self


_ALONE: Final[tuple[tuple[Callable[[PreparedRoute], bool], str], ...]] = (
    (lambda route: route.setup.kind == "reader", "a reader has one position"),
    (lambda route: route.source.kind not in ("iggy", "log"), "its source has no partitions"),
    (lambda route: route.sink.kind != "influxdb", "one process writes to its sink"),
    (lambda route: _has_limits(route.setup), "`limits` counts the series of all messages"),
    (lambda route: route.setup.item.consumer.exclusive, "`exclusive` says that no other process is a member"),
)


def _has_limits(setup: AnySetup) -> bool:
    return isinstance(setup, WriterSetup) and setup.writer.limits is not None


def open_writers(pipeline: Pipeline, *, only: Sequence[str] = ()) -> list[Route]:
    """Return the writers of `pipeline`, or those that `only` names.  Raise `PipelineError` if `only` names a reader."""
    routes = open_routes(pipeline, only=only)
    wrong = [route.name for route in routes if only and isinstance(route, ReaderRoute)]
    if wrong:
        raise PipelineError([Problem("IFX813", f"{name!r} is a reader; expected a writer") for name in wrong])
    return [route for route in routes if isinstance(route, Route)]


def open_routes(pipeline: Pipeline, *, until_end: bool = False, only: Sequence[str] = ()) -> list[Route | ReaderRoute]:
    """Return the routes of `pipeline`, or those that `only` names.

    Raise `MappingError` or `PipelineError` with the problems of all of them, before anything is opened.
    """
    return [route.build() for route in prepare_routes(pipeline, until_end=until_end, only=only)]


def prepare_routes(
    pipeline: Pipeline, *, until_end: bool = False, only: Sequence[str] = (), share: Share = ALONE
) -> list[PreparedRoute]:
    """Return the routes of `pipeline`, or those that `only` names, not yet built; of them what `share` has.

    Raise as `open_routes` does.
    """
    setups = _choose(pipeline, _load_mappings(pipeline, until_end), only)
    prepared = [PreparedRoute(setup, *ends) for setup, ends in zip(setups, find_ends(setups), strict=True)]
    return [found for each in prepared if (found := each.of(share)) is not None]


def _load_mappings(pipeline: Pipeline, until_end: bool) -> list[AnySetup]:
    """Return the setup of each route.  Raise `MappingError` with the problems of all mappings, each file's once."""
    setups: list[AnySetup] = []
    problems: dict[Path, Sequence[Problem]] = {}
    files: set[Path] = set()
    for item in pipeline.routes:
        try:
            setups.append(make_setup(pipeline, item, load_mapping(item.mapping), until_end))
        except DocumentError as error:
            problems[item.mapping] = error.problems
            files.update(error.files if isinstance(error, MappingError) else ())
    if problems:
        raise MappingError([problem for found in problems.values() for problem in found], files)
    return setups


def _choose(pipeline: Pipeline, setups: list[AnySetup], only: Sequence[str]) -> list[AnySetup]:
    """Return the routes that `only` names, or all of them.  Raise `PipelineError` where names clash or are unknown."""
    names = [setup.name for setup in setups]
    problems = [
        pipeline.problem(
            "IFX811",
            setup.item,
            f"two routes have the name {setup.name!r} and would share positions",
            hint="add a `name` to one of them",
        )
        for index, setup in enumerate(setups)
        if setup.name in names[:index]
    ]
    for name in only:
        if name not in names:
            near = closest(name, names)
            hint = f"did you mean {near}?" if near else f"the routes are: {listed(names, name)}"
            problems.append(Problem("IFX815", f"no route {name!r}", hint=hint))
    if isinstance(pipeline.state, TopicAddress):
        hint = "set `state` to a folder: a topic is made for positions"
        problems += [
            pipeline.problem("IFX819", setup.item, f"{setup.name!r} has `limits`, and `state` is a topic", hint=hint)
            for setup in setups
            if _has_limits(setup)
        ]
    problems += [
        pipeline.problem(
            "IFX826",
            setup.item,
            f"{field.key!r} is a tag of the pipeline and a field of {setup.name!r}",
            hint="rename one of them: no point may have both",
        )
        for setup in setups
        if isinstance(setup, WriterSetup)
        for field in fields_of_that_name(setup.writer, dict(setup.item.tags))
    ]
    problems += _clashes_of_retention(pipeline, setups)
    hint = "list what is allowed: influxdb: {buckets: [NAME, …]}"
    problems += [
        pipeline.problem(
            "IFX827", setup.item, f"{setup.name!r} chooses buckets, and the pipeline allows none", hint=hint
        )
        for setup in setups
        if isinstance(setup, WriterSetup) and setup.writer.chooses_bucket and not setup.influxdb.buckets
    ]
    if problems:
        raise PipelineError(problems)
    return [setup for setup in setups if not only or setup.name in only]


def _clashes_of_retention(pipeline: Pipeline, setups: Sequence[AnySetup]) -> Iterator[Problem]:
    """Yield the routes that share a folder of dead letters with one before them, and keep letters otherwise."""
    first: dict[str, AnySetup] = {}
    for setup in setups:
        if isinstance(setup.item.dead_letters, TopicAddress):
            continue
        folder = setup.item.dead_letters or dead_letters_folder(setup)
        other = first.setdefault(os.path.realpath(folder), setup)
        if other.item.retention != setup.item.retention:
            message = f"{setup.name!r} and {other.name!r} share the dead letters in {folder} with different retentions"
            hint = (
                "give both the same `keep` and `max_bytes`, or one of them another `path`: each removes letters of both"
            )
            yield pipeline.problem("IFX829", setup.item, message, hint=hint)
