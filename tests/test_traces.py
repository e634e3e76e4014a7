"""Spans of routes: which there are for what happens, and what holds of them in any world."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode, format_span_id

from iggyflux.delivery.retry import Policy
from iggyflux.delivery.verdicts import (
    Accepted,
    Impossible,
    Refusal,
    Refused,
    RefusedSome,
    TooLarge,
    Unavailable,
    Verdict,
)
from iggyflux.errors import NotConnected
from iggyflux.records import Batch, Message, Partition
from iggyflux.runner import Route, Stop, run_routes
from iggyflux.runner.reader_run import ReaderRun
from iggyflux.telemetry.otel_traces import MOST_LETTERS, MOST_LINKS, MOST_LOOKED_AT, OtelTracing
from iggyflux.transports.local.deadletters import DirectoryDeadLetters, dead_letter_files, read_dead_letters
from iggyflux.transports.local.memory import CollectingDeadLetters, ImmediateClock, ScriptedSink, ScriptedSource, batch
from tests.simulation import world as worlds
from tests.simulation.scenario import SIZES, draw
from tests.simulation.worlds import run as run_world
from tests.test_reader_route import BASE, Faults, Point, S, World
from tests.test_runner import payloads, route


class Numbers(IdGenerator):
    """Ids in order: the random ones would come from the random numbers that a simulated world uses."""

    def __init__(self) -> None:
        self.last = 0

    def generate_span_id(self) -> int:
        self.last += 1
        return self.last

    generate_trace_id = generate_span_id


class Open(SpanProcessor):
    """The spans that have begun and not ended."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()
        self.ended = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.names[span.name] += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.names[span.name] -= 1
        self.ended += 1


class Ticks:
    """A time in nanoseconds that is another one whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


@dataclass
class Recorder:
    """A provider that keeps every span in memory."""

    sampler: Sampler = ALWAYS_ON
    now: Callable[[], int] = field(default_factory=Ticks)
    propagates: bool = False

    def __post_init__(self) -> None:
        self.exporter, self.open = InMemorySpanExporter(), Open()
        provider = TracerProvider(self.sampler, id_generator=Numbers(), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        provider.add_span_processor(self.open)
        self.tracing = OtelTracing(provider.get_tracer("test"), propagates=self.propagates, now=self.now)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name, in the order in which they began."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start_time or 0)

    def tree(self) -> list[Any]:
        """Return the names of spans: each root with those below it, in the order in which they began."""
        below: dict[int, list[str]] = {}
        for span in sorted(self.spans, key=lambda span: span.start_time or 0):
            if span.parent is not None:
                below.setdefault(span.parent.span_id, []).append(span.name)
        roots = sorted((span for span in self.spans if span.parent is None), key=lambda span: span.start_time or 0)
        return [(root.name, below.get(root.context.span_id, [])) for root in roots]

    def check(self) -> None:
        """Hold what holds of all spans of a run that ended, with whatever end."""
        assert +self.open.names == Counter(), "spans that have not ended"
        known = {span.context.span_id: span for span in self.spans}
        assert len(known) == len(self.spans) == self.open.ended
        for span in self.spans:
            assert span.start_time is not None and span.end_time is not None and 0 < span.start_time <= span.end_time
            if span.parent is not None:
                parent = known[span.parent.span_id]
                assert parent.parent is None and parent.context.trace_id == span.context.trace_id
                assert parent.start_time is not None and parent.start_time <= span.start_time
            for link in span.links:
                assert (
                    link.attributes is None or "iggyflux.link" not in link.attributes or link.context.span_id in known
                )
            failed = span.status.status_code is StatusCode.ERROR
            assert failed == ("error.type" in attributes(span))
            assert span.status.description is None


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def links(span: ReadableSpan) -> list[tuple[int, Any]]:
    return [(link.context.span_id, (link.attributes or {}).get("iggyflux.link")) for link in span.links]


def run(
    *routes: Route, recorder: Recorder | None = None, stop: Callable[[Stop], Any] | None = None, deadline: float = 30.0
) -> Recorder:
    """Run routes; hold what holds of all spans."""
    recorder = recorder or Recorder()

    async def main() -> None:
        wish = Stop()
        if stop is not None:
            asyncio.get_running_loop().call_soon(stop, wish)
        await run_routes(
            routes,
            stop=wish,
            clock=ImmediateClock(),
            tick_seconds=None,
            shutdown_timeout_seconds=deadline,
            tracing=recorder.tracing,
        )

    asyncio.run(asyncio.wait_for(main(), 20))
    recorder.check()
    return recorder


class Server(ScriptedSink):
    """A sink that has an address, as InfluxDB."""

    server = "http://influx.garten:8086"


class Broker(ScriptedSource):
    """A source that has an address, as Iggy."""

    server = "iggy.garten:8090"


HERE = ("process s/t", ["poll s/t", "render", "POST", "ack s/t"])
ALONE = {"batch_size": 3}
"""Each batch is a request of its own."""


# --- one batch ---


def test_a_batch_is_one_trace_with_a_span_for_each_step() -> None:
    found = run(route(Broker([batch(payloads(3), offset=5)]), Server([Accepted(204)])))

    assert found.tree() == [HERE]
    root, poll, render, post, ack = (found.named(name)[0] for name in ("process s/t", *HERE[1]))
    assert (root.kind, poll.kind, post.kind) == (SpanKind.CONSUMER, SpanKind.CLIENT, SpanKind.CLIENT)
    topic = {
        "messaging.system": "iggy",
        "messaging.destination.name": "s/t",
        "messaging.destination.partition.id": "0",
    }
    broker = {"server.address": "iggy.garten", "server.port": 8090}
    assert attributes(root) == {
        **topic,
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.batch.message_count": 3,
        "iggyflux.route": "r",
        "iggyflux.offset.first": 5,
        "iggyflux.offset.last": 7,
    }
    assert attributes(poll) == {
        **topic,
        **broker,
        "messaging.operation.type": "receive",
        "messaging.operation.name": "poll",
    }
    assert attributes(ack) == {
        **topic,
        **broker,
        "messaging.operation.type": "settle",
        "messaging.operation.name": "ack",
    }
    assert attributes(render) == {"iggyflux.messages": 3, "iggyflux.points": 3, "iggyflux.failures": 0}
    assert attributes(post) == {
        "http.request.method": "POST",
        "server.address": "influx.garten",
        "server.port": 8086,
        "http.response.status_code": 204,
        "iggyflux.points": 3,
    }
    assert root.start_time == poll.start_time
    assert root.end_time is not None and ack.end_time is not None and root.end_time > ack.end_time


def test_files_have_no_conventions_of_servers() -> None:
    found = run(route(ScriptedSource([batch(payloads(3))]), ScriptedSink()))

    assert found.tree() == [("process s/t", ["poll s/t", "render", "write", "ack s/t"])]
    assert attributes(found.named("write")[0]) == {"iggyflux.points": 3}
    assert attributes(found.named("process s/t")[0])["messaging.system"] == "file"


def test_a_batch_without_lines_is_rendered_and_acknowledged() -> None:
    found = run(route(Broker([batch(payloads(2, "skip"))]), Server()))

    assert found.tree() == [("process s/t", ["poll s/t", "render", "ack s/t"])]


# --- requests ---


def test_a_retry_links_to_the_attempt_before_it_and_counts() -> None:
    found = run(route(Broker([batch(payloads(3))]), Server([Unavailable("later: geheim", 503)] * 2)))

    first, second, third = found.named("POST")
    assert found.tree() == [("process s/t", ["poll s/t", "render", "POST", "POST", "POST", "ack s/t"])]
    assert [links(each) for each in (first, second, third)] == [
        [],
        [(first.context.span_id, "retry")],
        [(second.context.span_id, "retry")],
    ]
    assert [attributes(each).get("http.request.resend_count") for each in (first, second, third)] == [None, 1, 2]
    assert [attributes(each).get("error.type") for each in (first, second, third)] == ["503", "503", None]
    assert [attributes(each).get("http.response.status_code") for each in (first, second)] == [503, 503]


def test_an_outage_is_a_chain_of_attempts_without_an_answer() -> None:
    away = Unavailable("cannot connect to geheim")
    found = run(route(Broker([batch(payloads(2))]), Server([away, away])))

    assert [attributes(each).get("error.type") for each in found.named("POST")] == ["unreachable", "unreachable", None]
    assert "http.response.status_code" not in attributes(found.named("POST")[0])


def test_the_parts_of_a_request_that_was_refused_link_to_it(tmp_path: Path) -> None:
    """The server refuses one line of four, and does not say which: halves are sent, none is a repetition."""

    async def judge(lines: Sequence[str]) -> Verdict:
        return RefusedSome("geheim", 400) if any("p2" in line for line in lines) else Accepted(204)

    sink = Server([judge] * 20)
    found = run(route(Broker([batch(payloads(4))]), sink, DirectoryDeadLetters(tmp_path / "letters")))  # type: ignore[arg-type]

    posts = found.named("POST")
    assert len(posts) == len(sink.writes) > 2
    assert [links(each) for each in posts[1:]] == [[(before.context.span_id, "rest")] for before in posts[:-1]]
    assert not any("http.request.resend_count" in attributes(each) for each in posts)
    assert attributes(posts[0])["iggyflux.points"] == 4


def test_a_request_of_several_batches_is_a_span_of_the_first_one_and_links_to_the_others() -> None:
    source = Broker([batch(payloads(2), offset=2 * number) for number in range(3)])
    found = run(route(source, Server()))

    first, *others = found.named("process s/t")
    (post,) = found.named("POST")
    assert post.parent is not None and post.parent.span_id == first.context.span_id
    assert links(post) == [(other.context.span_id, "batch") for other in others]
    for ack in found.named("ack s/t"):
        assert ack.parent is not None
        assert ack.parent.span_id not in [number for number, _ in links(ack)]


def test_parts_of_one_batch_are_one_trace() -> None:
    """A batch that is rendered in parts has a span for each, and ends with the last one."""
    parts = route(Broker([batch(payloads(6))]), Server())
    plan = parts.plan

    class Parts(type(plan)):  # type: ignore[misc]
        def render_parts(self, messages: Sequence[Message]) -> Any:
            for start in range(0, len(messages), 2):
                yield 2, self.render(messages[start : start + 2])

    found = run(route(Broker([batch(payloads(6))]), Server(), plan=Parts()))

    ((name, below),) = found.tree()
    assert name == "process s/t"
    assert Counter(below)["render"] == 3


# --- dead letters ---


def test_a_dead_letter_is_an_event_with_its_place_and_carries_the_trace(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    refused = Refused((Refusal(0, "the words of geheim", 400, "IFX605"),), rest_stored=True)
    source = Broker([batch([b"p0", b"bad1", b"p2"], offset=10)])
    found = run(route(source, Server([refused]), DirectoryDeadLetters(folder)))  # type: ignore[arg-type]

    (root,), (post,) = found.named("process s/t"), found.named("POST")
    (file,) = dead_letter_files(folder)
    assert [(event.name, dict(event.attributes or {})) for event in root.events] == [
        (
            "iggyflux.dead_letter",
            {"iggyflux.message": f"s/t/0@{offset}", "iggyflux.code": code, "iggyflux.file": str(file)},
        )
        for offset, code in ((10, "IFX605"), (11, "IFX301"))
    ]
    assert attributes(root)["iggyflux.dead_letters"] == 2
    assert attributes(post) | {"iggyflux.points.refused": 1, "error.type": "400"} == attributes(post)
    ids = {letter.trace_id for letter in read_dead_letters(folder)}
    assert ids == {f"{root.context.trace_id:032x}"}


def test_events_of_dead_letters_are_bounded_and_all_are_counted() -> None:
    found = run(route(Broker([batch(payloads(MOST_LETTERS + 9, "bad"))]), Server()))

    (root,) = found.named("process s/t")
    assert len(root.events) == MOST_LETTERS
    assert attributes(root)["iggyflux.dead_letters"] == MOST_LETTERS + 9


# --- ends ---


def test_what_is_given_up_ends_with_an_error_and_is_another_trace_when_it_is_read_again() -> None:
    source = Broker([batch(payloads(3)), NotConnected("the connection to geheim broke")])
    found = run(route(source, Server(), **ALONE))

    roots = found.named("process s/t")
    assert {attributes(root)["iggyflux.offset.first"] for root in roots} == {0}
    assert attributes(roots[-1]).get("error.type") is None
    assert all(attributes(root)["error.type"] == "abandoned" for root in roots[:-1])


def test_a_request_that_is_cut_off_ends_as_cancelled() -> None:
    """The deadline of a stop passes while the server does not answer."""

    async def never(_lines: Sequence[str]) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError

    async def later(wish: Stop, recorder: Recorder) -> None:
        while not recorder.open.names["POST"]:
            await asyncio.sleep(0)
        wish.request()
        wish.request()

    recorder, tasks = Recorder(), []
    found = run(
        route(Broker([batch(payloads(3))]), Server([never]), **ALONE),
        recorder=recorder,
        stop=lambda wish: tasks.append(asyncio.ensure_future(later(wish, recorder))),
    )

    assert [attributes(span)["error.type"] for span in found.named("POST")] == ["cancelled"]
    assert [attributes(span)["error.type"] for span in found.named("process s/t")] == ["abandoned"]


def test_an_answer_that_stops_the_route_is_a_code() -> None:
    found = run(route(Broker([batch(payloads(3))]), Server([Impossible("token geheim", status=401, code="IFX721")])))

    assert [attributes(span)["error.type"] for span in found.named("POST")] == ["401"]


def test_nothing_is_kept_of_a_batch_that_is_not_sampled() -> None:
    source, letters = ScriptedSource([batch(payloads(3)), batch([b"bad"], offset=3)]), CollectingDeadLetters()
    found = run(route(source, Server(), letters), recorder=Recorder(ALWAYS_OFF))

    assert found.spans == ()
    assert source.settled == {Partition("s", "t", 0): 3}
    assert [letter.trace_id for letter in letters.letters] == [None], "it would name a trace that is nowhere"


# --- W3C ---

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033{:02x}-01"


def headed(headers: Iterable[dict[str, Any]]) -> Batch:
    messages = [Message(b"p", "s", "t", 0, number, headers=each) for number, each in enumerate(headers)]
    return Batch(Partition("s", "t", 0), messages)


def test_a_batch_links_to_the_traces_of_its_messages() -> None:
    given = [PARENT.format(1), PARENT.format(1).encode(), PARENT.format(2), "", "00-xyz", "x" * 999, 7, b"\xff"]
    found = run(route(Broker([headed([*({"traceparent": each} for each in given), {}])]), Server()))

    (root,) = found.named("process s/t")
    assert [format_span_id(link.context.span_id)[-2:] for link in root.links] == ["01", "02"]
    assert {link.context.trace_id for link in root.links} == {0x0AF7651916CD43DD8448EB211C80319C}


@pytest.mark.parametrize(("first", "count"), [(0, MOST_LINKS), (MOST_LOOKED_AT - 3, 3), (MOST_LOOKED_AT, 0)])
def test_links_to_messages_are_bounded(first: int, count: int) -> None:
    none: list[dict[str, Any]] = [{}] * first
    found = run(route(Broker([headed([*none, *({"traceparent": PARENT.format(n + 1)} for n in range(99))])]), Server()))

    assert len(found.named("process s/t")[0].links) == count


# --- readers ---


def read(world: World, recorder: Recorder, seconds: float | None = None) -> Recorder:
    """Run a reader; hold what holds of all spans."""
    world.clock.until = None if seconds is None else world.clock.now + seconds
    traces = recorder.tracing.route("back", "http://influx.garten:8086", "iggy.garten:8090", "s/t")
    reading = ReaderRun(world.route(), world.status, world.clock.stop, world.clock, traces=traces)
    asyncio.run(asyncio.wait_for(reading.run(), 60))
    recorder.check()
    return recorder


def test_a_window_is_one_trace_from_its_query_to_its_cursor(tmp_path: Path) -> None:
    world = World(tmp_path, [Point(BASE - 80 * S, 1)], until_end=True)
    found = read(world, Recorder())

    assert ("window", ["query", "render", "send s/t", "store"]) in found.tree()
    (send,), query = found.named("send s/t"), found.named("query")[0]
    assert (send.kind, query.kind) == (SpanKind.CLIENT, SpanKind.CLIENT)
    assert attributes(send) == {
        "messaging.system": "iggy",
        "messaging.destination.name": "s/t",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.batch.message_count": 1,
        "server.address": "iggy.garten",
        "server.port": 8090,
    }
    assert attributes(query) == {"db.system.name": "influxdb", "server.address": "influx.garten", "server.port": 8086}
    first = found.named("window")[0]
    assert attributes(first)["iggyflux.window.start"] == "2023-11-14T22:11:40Z"
    assert world.sink.messages[0].headers == {}


def test_a_query_ends_when_its_answer_is_there_and_not_when_it_is_used(tmp_path: Path) -> None:
    """The next window is fetched while one is sent and stored; a busy machine may do it later, but not each time."""

    def is_early(folder: Path) -> bool:
        folder.mkdir()
        world = World(folder, [Point(BASE - at * S, at) for at in range(10, 90)], until_end=True, window=5 * S)
        found = read(world, Recorder())
        ends = {each.context.span_id: each.end_time or 0 for each in found.named("window") if each.context}
        ended = [(each.end_time or 0, ends[each.parent.span_id]) for each in found.named("query") if each.parent]
        assert len(ended) > 3
        return any(query < before for (_, before), (query, _) in pairwise(ended))

    assert any(is_early(tmp_path / str(number)) for number in range(10))


def test_a_reader_that_has_to_send_again_links_to_the_first_time(tmp_path: Path) -> None:
    faults = Faults(("after send", 1, NotConnected("geheim")), ("before send", 2, NotConnected("geheim")))
    found = read(World(tmp_path, [Point(BASE - 80 * S, 1)], faults=faults, until_end=True), Recorder())

    first, second, third = found.named("send s/t")
    assert [links(each) for each in (second, third)] == [
        [(first.context.span_id, "retry")],
        [(second.context.span_id, "retry")],
    ]
    assert [attributes(each).get("error.type") for each in (first, second, third)] == ["not_connected"] * 2 + [None]


def test_a_query_that_fails_is_a_window_that_failed(tmp_path: Path) -> None:
    faults = Faults(("fetch", 1, NotConnected("geheim")))
    found = read(World(tmp_path, [Point(BASE - 80 * S, 1)], faults=faults, until_end=True), Recorder())

    assert attributes(found.named("window")[0])["error.type"] == "not_connected"
    assert attributes(found.named("query")[0])["error.type"] == "not_connected"
    assert "error.type" not in attributes(found.named("window")[1])


def test_messages_of_readers_carry_the_trace_only_where_it_is_asked_for(tmp_path: Path) -> None:
    world = World(tmp_path, [Point(BASE - 80 * S, 1)], until_end=True)
    found = read(world, Recorder(propagates=True))

    (send,), root = found.named("send s/t"), found.named("window")
    window = next(span for span in root if send.parent is not None and span.context.span_id == send.parent.span_id)
    assert send.kind is SpanKind.PRODUCER
    assert world.sink.messages[0].headers == {
        "traceparent": f"00-{window.context.trace_id:032x}-{window.context.span_id:016x}-01"
    }


# --- any world ---

VERDICTS = st.sampled_from(
    [
        Accepted(204),
        Unavailable("x", 503),
        Unavailable("x", connection_died=True),
        TooLarge("x", status=413),
        RefusedSome("x", 400),
        Refused((Refusal(0, "x", 400),), rest_stored=False),
    ]
)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["batch", "bad", "nothing", "lost"]), min_size=1, max_size=8),
    st.lists(VERDICTS, max_size=12),
    st.lists(st.sampled_from([None, NotConnected("x"), None]), max_size=4),
    st.integers(1, 4),
)
def test_every_span_ends_and_has_its_parent_whatever_happens(
    steps: list[str], verdicts: list[Verdict], acks: list[Exception | None], size: int
) -> None:
    script: list[Any] = []
    for step in steps:
        offset = sum(len(each.messages) for each in script if isinstance(each, Batch))
        made = {"batch": batch(payloads(3), offset=offset), "bad": batch([b"bad", b"p"], offset=offset)}
        script.append(made.get(step, NotConnected("x") if step == "lost" else None))
    found = run(
        route(
            Broker(script, acks=acks),
            Server(verdicts),
            policy=Policy(retry_backoff_seconds=0.1, max_retries=2),
            batch_size=size,
            max_in_flight=2,
        )
    )

    roots = [span for span in found.spans if span.parent is None]
    settled = [span for span in roots if "error.type" not in attributes(span)]
    acknowledged = {
        link for ack in found.named("ack s/t") if "error.type" not in attributes(ack) for link, _ in links(ack)
    }
    acknowledged |= {ack.parent.span_id for ack in found.named("ack s/t") if ack.parent is not None}
    assert {span.context.span_id for span in settled} <= acknowledged


def test_traces_change_nothing_in_simulated_worlds_and_every_span_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed leaves its spans, as it leaves everything; one that ends leaves none."""
    found: list[Recorder] = []

    async def traced(routes: Sequence[Any], **more: Any) -> Any:
        loop = asyncio.get_running_loop()
        recorder = Recorder(now=lambda: 1 + int(loop.time() * 1e9))
        summary = await run_routes(routes, **more, tracing=recorder.tracing)
        recorder.check()
        found.append(recorder)
        return summary

    for seed in range(8):
        scenario = draw(seed, SIZES["short"])
        plain = run_world(scenario)
        with monkeypatch.context() as patch:
            patch.setattr(worlds, "run_routes", traced)
            watched = run_world(scenario)
        assert (watched.wrong, watched.seconds, watched.counts) == (plain.wrong, plain.seconds, plain.counts)

    errors = Counter(attributes(span).get("error.type") for each in found for span in each.spans)
    assert len(found) > 8
    assert {"abandoned", "unreachable", "not_connected", "422", "413"} <= set(errors)
