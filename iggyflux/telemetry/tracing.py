"""What routes report of their work, for traces.  The classes here keep nothing: they are what a run has without traces.

A route knows no more of tracing than this file.  It reports when a batch (of a reader: a window) arrived, what was
made of it, each request that carries its lines, and when it is acknowledged.  `otel_traces` makes spans of that.

| a route calls         | when                                                                              |
|-----------------------|-----------------------------------------------------------------------------------|
| `Traces.batch`        | a batch was read: its trace begins                                                |
| `Traces.window`       | a window of a reader is read, sent and stored inside the block                    |
| `Trace.rendered`      | a part of the batch was rendered; it ends with `Trace.end`                        |
| `Trace.step`          | something else is done inside the block                                           |
| `requests_of`         | lines of some batches become a request                                            |
| `Requests.attempt`    | the request is sent once inside the block, which reports the answer              |
| `Trace.dead_letters`  | messages of the batch were kept                                                   |
| `acknowledging`       | parts are acknowledged inside the block, and then end                             |
| `Trace.end`           | a part was acknowledged, or the last part was rendered                            |
| `Traces.abandon`      | what is in flight is given up: all its traces end                                 |
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from iggyflux.delivery.verdicts import Verdict
from iggyflux.records import Batch, DeadLetter, Rendered, Scalar


class Answer:
    """What a request or a step ends with."""

    def received(self, verdict: Verdict) -> None:
        """Tell the verdict on a request."""

    def ended(self, moment: int) -> None:
        """Tell that it ended at `moment`, before the end of the block."""


class Requests:
    """The requests for the same lines: the first one, and each one that repeats it or a part of it."""

    def attempt(self, count: int) -> AbstractContextManager[Answer]:  # noqa: ARG002
        """Send `count` lines or messages once inside the block."""
        return _NO_ANSWER


class Trace:
    """The trace of one batch or window."""

    id: str | None = None
    """The id of the trace in hexadecimal digits; None if nothing is kept of it."""

    @property
    def headers(self) -> dict[str, Scalar]:
        """The headers by which others go on with this trace."""
        return {}

    def rendered(self, began: int, part: Batch, rendered: Rendered) -> None:
        """Tell what a part of the batch became; rendering began at `began`."""

    def step(self, name: str, began: int = 0) -> AbstractContextManager[Answer]:  # noqa: ARG002
        """Do what `name` says inside the block, or since `began`."""
        return _NO_ANSWER

    def requests(self, others: Sequence[Trace] = ()) -> Requests:  # noqa: ARG002
        """Return what reports the requests for lines of this batch, and of the batches of `others`."""
        return NO_REQUESTS

    def dead_letters(self, letters: Sequence[DeadLetter], place: str | None) -> None:
        """Tell which messages were kept in the file `place`."""

    def acknowledging(self, others: Sequence[Trace]) -> AbstractContextManager[object]:  # noqa: ARG002
        """Acknowledge parts of this batch, and of those of `others`, inside the block."""
        return _NO_ANSWER

    def end(self) -> None:
        """End a part; the trace ends with its last part."""


class Traces:
    """The traces of one route."""

    current: Trace
    """The trace of a reader's window that is in progress."""

    def __init__(self) -> None:
        self.current = NO_TRACE

    def now(self) -> int:
        """Return the time for spans, in nanoseconds since the epoch; 0 where nothing is kept."""
        return 0

    def batch(self, batch: Batch, began: int) -> Trace:  # noqa: ARG002
        """Return the trace of a batch whose read began at `began`."""
        return NO_TRACE

    def window(self, start: int, stop: int, began: int) -> AbstractContextManager[Trace]:  # noqa: ARG002
        """Read, send and store a window of a reader inside the block; its query began at `began`."""
        return _NO_WINDOW

    def abandon(self) -> None:
        """End the traces that have not ended."""


class Tracing:
    """The traces of a run."""

    def route(self, name: str, source: str | None, sink: str | None, topic: str | None = None) -> Traces:  # noqa: ARG002
        """Return the traces of a route; `source` and `sink` are the servers of its ends, `topic` a reader's target."""
        return Traces()


class _NoAnswer(Answer):
    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


_NO_ANSWER: Final = _NoAnswer()
NO_REQUESTS: Final = Requests()
NO_TRACE: Final = Trace()
_NO_WINDOW: Final = nullcontext(NO_TRACE)
NO_TRACING: Final = Tracing()


def requests_of(traces: Sequence[Trace]) -> Requests:
    """Return what reports the requests for lines of some batches: they belong to the first trace of which is kept."""
    first, *others = _kept(traces) or (NO_TRACE,)
    return first.requests(others)


def acknowledging(traces: Sequence[Trace]) -> AbstractContextManager[object]:
    """Acknowledge parts of batches inside the block."""
    first, *others = _kept(traces) or (NO_TRACE,)
    return first.acknowledging(others)


def _kept(traces: Sequence[Trace]) -> list[Trace]:
    return [trace for trace in traces if trace is not NO_TRACE]
