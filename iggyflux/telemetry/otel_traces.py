"""Spans of what routes tell, by OpenTelemetry's conventions.

A batch that was read is one trace (of a reader: a window), with a span for each step:

| span              | kind     | what it is                                               | conventions             |
|-------------------|----------|----------------------------------------------------------|-------------------------|
| `process TOPIC`   | consumer | a batch, from its poll until it is acknowledged          | messaging (development) |
| … `poll TOPIC`    | client   | the request for its messages                             | messaging               |
| … `render`        | internal | a part of it, made into lines                            | ours                    |
| … `POST`, `write` | client   | one request that carries lines of it; `write` to a file  | HTTP (stable)           |
| … `ack TOPIC`     | client   | the acknowledgement                                      | messaging               |
| `window`          | internal | a window of a reader, from its query until it is stored  | ours                    |
| … `query`         | client   | the query                                                | database (stable)       |
| … `render`        | internal | some rows, made into messages                            | ours                    |
| … `send TOPIC`    | client   | one request that publishes; producer if the messages     | messaging               |
|                   |          | carry this trace                                         |                         |
| … `store`         | internal | the position of the reader, stored                       | ours                    |

A request that repeats an earlier one, or sends a part of it, links to it.  A request or an acknowledgement of several
batches is a span of the first one, and links to the others.  Attributes hold names, numbers and codes: no payload, no
line, no word of a server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from iggyflux.delivery.verdicts import Accepted, Refused, TooLarge, Unavailable, Verdict, retry_reason
from iggyflux.errors import NotConnected, Stopped
from iggyflux.records import Batch, DeadLetter, Message, Rendered, Scalar
from iggyflux.telemetry.tracing import NO_TRACE, Answer, Requests, Trace, Traces, Tracing
from iggyflux.timestamps import format_rfc3339

MOST_LINKS: Final = 64
"""The most links of a batch to the traces of its messages."""
MOST_LOOKED_AT: Final = 256
"""How many of its messages, the first ones, are looked at for that."""
MOST_LETTERS: Final = 32
"""The most dead letters that have an event each, of those that are kept at once."""

Attributes: TypeAlias = Mapping[str, str | int]

_HEADER: Final = "traceparent"
_LONGEST_HEADER: Final = 256
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_STEPS: Final[Mapping[str, tuple[SpanKind, Attributes]]] = {
    "query": (SpanKind.CLIENT, {"db.system.name": "influxdb"}),
    "render": (SpanKind.INTERNAL, {}),
    "store": (SpanKind.INTERNAL, {}),
}


class OtelTracing(Tracing):
    """The traces of a run, as spans of `tracer`."""

    def __init__(self, tracer: api.Tracer, *, propagates: bool = False, now: Callable[[], int] = time.time_ns) -> None:
        """With `propagates`, messages of readers carry their trace."""
        self._tracer = tracer
        self._propagates = propagates
        self._now = now

    def route(self, name: str, source: str | None, sink: str | None, topic: str | None = None) -> Traces:
        """As `Tracing.route`."""
        about = _About(self._tracer, self._now, name, _server(source), _server(sink), topic, self._propagates)
        return OtelTraces(about)


@dataclass(frozen=True, slots=True)
class _About:
    """What all spans of a route share."""

    tracer: api.Tracer
    now: Callable[[], int]
    route: str
    source: Attributes
    """The server of the source; empty for files."""
    sink: Attributes
    topic: str | None
    """Where a reader sends to; None for a writer."""
    propagates: bool


class OtelTraces(Traces):
    """The traces of one route."""

    def __init__(self, about: _About) -> None:
        super().__init__()
        self._about = about
        self.open: dict[OtelTrace, None] = {}

    def now(self) -> int:
        """As `Traces.now`."""
        return self._about.now()

    def batch(self, batch: Batch, began: int) -> Trace:
        """As `Traces.batch`; nothing is kept of a batch that is not sampled."""
        about, first, last = self._about, batch.messages[0], batch.messages[-1]
        topic = f"{batch.partition.stream}/{batch.partition.topic}"
        place = _destination(topic, about.source) | {
            "messaging.destination.partition.id": str(batch.partition.partition)
        }
        given = {
            **place,
            **_operation("process", "process"),
            "messaging.batch.message_count": len(batch.messages),
            "iggyflux.route": about.route,
            "iggyflux.offset.first": first.offset,
            "iggyflux.offset.last": last.offset,
        }
        span = about.tracer.start_span(f"process {topic}", Context(), SpanKind.CONSUMER, given, start_time=began)
        if not span.is_recording():
            return NO_TRACE
        for context in _contexts(batch.messages):
            span.add_link(context)
        trace = OtelTrace(about, span, self.open, topic, place)
        trace.child(f"poll {topic}", SpanKind.CLIENT, {**place, **_operation("receive", "poll"), **about.source}, began)
        return trace

    @contextmanager
    def window(self, start: int, stop: int, began: int) -> Iterator[Trace]:
        """As `Traces.window`."""
        about = self._about
        times = {"iggyflux.window.start": format_rfc3339(start), "iggyflux.window.stop": format_rfc3339(stop)}
        given = {"iggyflux.route": about.route, **times}
        span = about.tracer.start_span("window", Context(), SpanKind.INTERNAL, given, start_time=began)
        if not span.is_recording():
            yield NO_TRACE
            return
        trace = self.current = OtelTrace(about, span, self.open, about.topic or "", {})
        try:
            yield trace
        except BaseException as error:
            _fail(span, _kind(error))
            raise
        finally:
            self.current = NO_TRACE
            trace.end()

    def abandon(self) -> None:
        """As `Traces.abandon`."""
        for trace in list(self.open):
            trace.abandon()


class OtelTrace(Trace):
    """The trace of one batch or window: its first span, which is the parent of the others."""

    def __init__(
        self, about: _About, span: Span, registry: dict[OtelTrace, None], topic: str, place: Attributes
    ) -> None:
        """`registry` has the traces that have not ended; `place` are the attributes of the topic that is read."""
        self.about = about
        self.context = span.get_span_context()
        self.id = api.format_trace_id(self.context.trace_id)
        self._span = span
        self._parent = api.set_span_in_context(span, Context())
        self._registry = registry
        self._topic = topic
        self._place = place
        self._parts = 1  # those that have not ended, and the batch itself while it is rendered
        self._letters = 0
        registry[self] = None

    @property
    def headers(self) -> dict[str, Scalar]:
        """As `Trace.headers`; empty unless the run propagates traces."""
        found: dict[str, Scalar] = {}
        if self.about.propagates:
            _PROPAGATOR.inject(found, self._parent)
        return found

    def rendered(self, began: int, part: Batch, rendered: Rendered) -> None:
        """As `Trace.rendered`."""
        self._parts += 1
        made = {
            "iggyflux.messages": len(part.messages),
            "iggyflux.points": len(rendered.lines),
            "iggyflux.failures": len(rendered.failures),
        }
        self.child("render", SpanKind.INTERNAL, made, began)

    def child(self, name: str, kind: SpanKind, attributes: Attributes, began: int) -> None:
        """Add a span that ends now."""
        self.begin(name, kind, attributes, began=began).end(self.about.now())

    def begin(
        self, name: str, kind: SpanKind, attributes: Attributes, links: Sequence[Link] = (), *, began: int = 0
    ) -> Span:
        """Return a span that began at `began`, or now."""
        began = began or self.about.now()
        return self.about.tracer.start_span(name, self._parent, kind, attributes, links, start_time=began)

    @contextmanager
    def step(self, name: str, began: int = 0) -> Iterator[Answer]:
        """As `Trace.step`."""
        kind, attributes = _STEPS[name]
        server = self.about.source if kind is SpanKind.CLIENT else {}
        with self.asking(self.begin(name, kind, {**attributes, **server}, began=began)) as answer:
            yield answer

    @contextmanager
    def asking(self, span: Span) -> Iterator[_Answer]:
        """Wait inside the block for what ends `span`."""
        answer = _Answer(span)
        try:
            yield answer
        except BaseException as error:
            answer.failure = _kind(error)
            raise
        finally:
            if answer.failure is not None:
                _fail(span, answer.failure)
            span.end(answer.moment or self.about.now())

    def requests(self, others: Sequence[Trace] = ()) -> Requests:
        """As `Trace.requests`."""
        return OtelRequests(self, self._topic, _links(self, others))

    def dead_letters(self, letters: Sequence[DeadLetter], place: str | None) -> None:
        """As `Trace.dead_letters`."""
        now = self.about.now()
        for letter in letters[:MOST_LETTERS]:
            message = letter.message
            at = f"{message.stream}/{message.topic}/{message.partition}@{message.offset}"
            given = {"iggyflux.message": at, "iggyflux.code": letter.reasons[0].code}
            self._span.add_event(
                "iggyflux.dead_letter", given if place is None else {**given, "iggyflux.file": place}, now
            )
        self._letters += len(letters)
        self._span.set_attribute("iggyflux.dead_letters", self._letters)

    @contextmanager
    def acknowledging(self, others: Sequence[Trace]) -> Iterator[object]:
        """As `Trace.acknowledging`."""
        given = {**self._place, **_operation("settle", "ack"), **self.about.source}
        span = self.begin(f"ack {self._topic}", SpanKind.CLIENT, given, _links(self, others))
        with self.asking(span):
            yield None
        for trace in (self, *others):
            trace.end()

    def end(self) -> None:
        """As `Trace.end`."""
        self._parts -= 1
        if not self._parts:
            self._end()

    def abandon(self) -> None:
        """End with all parts: they are read again."""
        _fail(self._span, "abandoned")
        self._end()

    def _end(self) -> None:
        if self._registry.pop(self, self) is None:
            self._span.end(self.about.now())


class _Answer(Answer):
    """What the span of a request ends with."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.failure: str | None = None
        self.moment = 0
        self.may_repeat = False
        """Whether the same request is sent again."""

    def received(self, verdict: Verdict) -> None:
        """As `Answer.received`."""
        status = verdict.refusals[0].status if isinstance(verdict, Refused) else verdict.status
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if isinstance(verdict, Refused):
            self._span.set_attribute("iggyflux.points.refused", len(verdict.refusals))
        self.may_repeat = isinstance(verdict, Unavailable)
        if not isinstance(verdict, Accepted):
            self.failure = _reason(verdict) if status is None else str(status)

    def ended(self, moment: int) -> None:
        """As `Answer.ended`."""
        self.moment = moment


class OtelRequests(Requests):
    """The requests for the same lines or messages; each links to the one before it."""

    def __init__(self, trace: OtelTrace, topic: str, batches: Sequence[Link]) -> None:
        self._trace = trace
        self._topic = topic
        self._batches = batches
        self._before: SpanContext | None = None
        self._is_repeated = False
        self._resends = 0

    @contextmanager
    def attempt(self, count: int) -> Iterator[Answer]:
        """As `Requests.attempt`."""
        links = list(self._batches)
        if self._before is not None:
            links.append(Link(self._before, {"iggyflux.link": "retry" if self._is_repeated else "rest"}))
        span = self._begin(count, links)
        self._before = span.get_span_context()
        try:
            with self._trace.asking(span) as answer:
                yield answer
        except NotConnected:
            answer.may_repeat = True
            raise
        finally:
            self._is_repeated = answer.may_repeat
            self._resends = self._resends + 1 if answer.may_repeat else 0

    def _begin(self, count: int, links: Sequence[Link]) -> Span:
        about = self._trace.about
        if about.topic is not None:
            kind = SpanKind.PRODUCER if about.propagates else SpanKind.CLIENT
            given = {**_destination(self._topic, about.sink), **_operation("send", "send"), **about.sink}
            return self._trace.begin(
                f"send {self._topic}", kind, given | {"messaging.batch.message_count": count}, links
            )
        if not about.sink:
            return self._trace.begin("write", SpanKind.INTERNAL, {"iggyflux.points": count}, links)
        given = {"http.request.method": "POST", "iggyflux.points": count, **about.sink}
        if self._resends:
            given["http.request.resend_count"] = self._resends
        return self._trace.begin("POST", SpanKind.CLIENT, given, links)


def _destination(topic: str, server: Attributes) -> dict[str, str | int]:
    return {"messaging.system": "iggy" if server else "file", "messaging.destination.name": topic}


def _operation(kind: str, name: str) -> Attributes:
    return {"messaging.operation.type": kind, "messaging.operation.name": name}


def _server(address: str | None) -> Attributes:
    """Return host and port of an address.

    >>> _server("http://influx:8086"), _server("[::1]:8090"), _server(None)
    ({'server.address': 'influx', 'server.port': 8086}, {'server.address': '::1', 'server.port': 8090}, {})
    """
    if address is None:
        return {}
    parts = urlsplit(address if "://" in address else f"//{address}")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return {"server.address": parts.hostname or address, **({} if port is None else {"server.port": port})}


def _contexts(messages: Sequence[Message]) -> list[SpanContext]:
    """Return the traces that the first messages belong to, by W3C's header; not more than a few."""
    found: dict[tuple[int, int], SpanContext] = {}
    for number in range(min(len(messages), MOST_LOOKED_AT)):  # an iteration would make all messages
        given = messages[number].headers.get(_HEADER)
        text = given.decode("latin-1") if isinstance(given, bytes) else given
        if isinstance(text, str) and len(text) <= _LONGEST_HEADER:
            context = api.get_current_span(_PROPAGATOR.extract({_HEADER: text}, Context())).get_span_context()
            if context.is_valid:
                found.setdefault((context.trace_id, context.span_id), context)
                if len(found) == MOST_LINKS:
                    break
    return list(found.values())


def _links(trace: OtelTrace, others: Sequence[Trace]) -> list[Link]:
    """Return links to other batches."""
    distinct = dict.fromkeys(other for other in others if other is not trace)
    return [Link(other.context, {"iggyflux.link": "batch"}) for other in distinct if isinstance(other, OtelTrace)]


def _fail(span: Span, reason: str) -> None:
    span.set_attribute("error.type", reason)
    span.set_status(StatusCode.ERROR)


def _reason(verdict: Verdict) -> str:
    """Return why a request failed, as a word or a code."""
    if isinstance(verdict, TooLarge | Unavailable):
        return retry_reason(verdict)
    if isinstance(verdict, Refused):
        return verdict.refusals[0].code
    return getattr(verdict, "code", "")


def _kind(error: BaseException) -> str:
    """Return what an error is, as a word or a code: its text may quote a server."""
    match error:
        case NotConnected():
            return "not_connected"
        case Stopped():
            return error.code
        case asyncio.CancelledError():
            return "cancelled"
        case _:
            return type(error).__name__
