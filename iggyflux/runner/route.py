"""What a route is made of: ends, plan, stores and limits.  `writer_run` and `reader_run` run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from iggyflux.cursors import CursorStore
from iggyflux.delivery.retry import Policy
from iggyflux.delivery.windows import WindowRules
from iggyflux.mapping import OnError
from iggyflux.records import Message, Rendered, RenderedMessages, Row
from iggyflux.runner.series_guard import SeriesGuard
from iggyflux.runner.settled_ledger import SettledLedger
from iggyflux.transports.base import DeadLetterSink, LineSink, MessageSink, RowSource, Source

if TYPE_CHECKING:
    from iggyflux.transports.registry import SchemaRegistry


class WriterPlan(Protocol):
    """What a writer's route needs of a plan.

    What may take long is rendered in a thread.
    """

    @property
    def identity(self) -> str:
        """The identity of the plan; empty if it has none."""
        return ""

    def may_take_long(self, messages: Sequence[Message]) -> bool:  # noqa: ARG002
        """Whether rendering `messages` may keep the event loop from its work for a time that can be felt."""
        return False

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return the lines of `messages`; pure, but for schemas that are asked for once.

        Raise `NotConnected` if what it needs is not there, and `Stopped` if the operator has to act.
        """

    def render_parts(self, messages: Sequence[Message]) -> Iterator[tuple[int, Rendered]]:
        """Yield the same in parts, each with its number of messages: none of them takes long, if it can be helped."""
        yield len(messages), self.render(messages)


class ReaderPlan(Protocol):
    """What a reader's route needs of a plan."""

    whole_windows: bool

    def render(self, rows: Sequence[Row], digests: Sequence[bytes] | None = None) -> RenderedMessages:
        """Return the messages of `rows`; pure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A writer's route.

    `max_in_flight` bounds the requests in flight; None adapts their number between the bounds that the sink gives.
    With `until_end` the run is to end by itself: stopped before, it is unfinished, and a server that was never reached
    is tried `policy.max_retries` times again.
    """

    name: str
    source: Source
    plan: WriterPlan
    sink: LineSink
    dead_letters: DeadLetterSink
    mapping: str = ""
    pipeline: str = ""
    """The name of the pipeline file, which dead letters keep."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """The tags of the pipeline, which the plan adds."""
    on_error: OnError = OnError.DEAD_LETTER
    policy: Policy = field(default_factory=Policy)
    batch_size: int = 5000
    batch_bytes: int = 5_000_000
    linger_seconds: float = 1.0
    max_in_flight: int | None = None
    count_collisions: bool = True
    until_end: bool = False
    unit_ns: int = 1
    """The unit of the times in lines."""
    bucket_sink: Callable[[str], LineSink] | None = None
    """The sink of a bucket or database, if points choose theirs."""
    usual_bucket: str = ""
    """The name of the bucket or database of `sink`, as points would choose it."""
    buckets: tuple[str, ...] = ()
    """The names, or globs of names, that points may choose."""
    series: SeriesGuard | None = None
    """The limit of series, if the mapping has one."""
    ledger: SettledLedger | None = None
    """Where settled offsets are written down, if the pipeline has a folder for them."""
    registry: SchemaRegistry | None = None
    """Whom the plan asks for schemas, if the mapping needs them."""

    @property
    def plan_identity(self) -> str:
        """The identity of the plan, which dead letters keep; known when the sink is connected."""
        return self.plan.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRoute:
    """A reader's route.

    `mark` names the header that marks a message as `late` or `changed`; None omits it.  `page_size` bounds the messages
    of one send.  With `rules.until_end` a server that was never reached is tried `max_retries` times again.
    """

    name: str
    source: RowSource
    plan: ReaderPlan
    sink: MessageSink
    store: CursorStore
    dead_letters: DeadLetterSink
    rules: WindowRules
    page_size: int = 5000
    max_retries: int = 3
    column: str = "time"
    mark: str | None = None
    mapping: str = ""
    pipeline: str = ""
    """The name of the pipeline file, which dead letters keep."""
    plan_identity: str = ""
    stream: str = ""
    topic: str = ""
    on_error: OnError = OnError.DEAD_LETTER


AnyRoute: TypeAlias = Route | ReaderRoute
