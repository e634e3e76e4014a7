"""What a route is built from: the pipeline, its item of `run`, and the mapping.  Nothing is opened.

`ends` checks a setup, `factories` builds its sources and sinks, `build` the route.
"""

from __future__ import annotations

import shlex
from abc import ABC
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from iggyflux.mapping import Reader, ReaderMapping, Writer, WriterMapping
from iggyflux.pipeline import IggySettings, InfluxSettings, Pipeline, RouteSettings
from iggyflux.transports.share import ALONE, Share


@dataclass(frozen=True)
class RouteSetup(ABC):
    """The setup of a writer or a reader."""

    pipeline: Pipeline
    item: RouteSettings
    mapping: WriterMapping | ReaderMapping
    until_end: bool
    share: Share = field(default=ALONE, kw_only=True)
    """What of the route this process does."""
    kind: ClassVar[Literal["writer", "reader"]]

    @property
    def name(self) -> str:
        """The route's name."""
        return self.item.name or self.mapping.name

    @property
    def consumer(self) -> str:
        """The name under which positions are stored."""
        return self.item.consumer.name or self.name

    @property
    def iggy(self) -> IggySettings:
        """How to reach Iggy."""
        return self.pipeline.iggy or IggySettings()

    @property
    def influxdb(self) -> InfluxSettings:
        """How lines are sent, also to a file (its requests have the same bounds); where a reader's rows are."""
        return self.item.influxdb or self.pipeline.influxdb or InfluxSettings()

    @property
    def regroup_command(self) -> str:
        """The command that rebuilds the route's consumer group."""
        return f"iggyflux regroup {shlex.quote(self.pipeline.file)} --mapping {shlex.quote(self.name)}"


@dataclass(frozen=True)
class WriterSetup(RouteSetup):
    """A route of messages to points."""

    mapping: WriterMapping
    kind: ClassVar[Literal["writer"]] = "writer"

    @property
    def writer(self) -> Writer:
        """The document."""
        return self.mapping.writer


@dataclass(frozen=True)
class ReaderSetup(RouteSetup):
    """A route of rows to messages."""

    mapping: ReaderMapping
    kind: ClassVar[Literal["reader"]] = "reader"

    @property
    def reader(self) -> Reader:
        """The document."""
        return self.mapping.reader


AnySetup: TypeAlias = WriterSetup | ReaderSetup


def make_setup(
    pipeline: Pipeline, item: RouteSettings, mapping: WriterMapping | ReaderMapping, until_end: bool
) -> AnySetup:
    """Return the setup of one item of `run`."""
    if mapping.kind == "writer":
        return WriterSetup(pipeline, item, mapping, until_end)
    return ReaderSetup(pipeline, item, mapping, until_end)
