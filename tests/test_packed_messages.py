"""Messages that wait for a server are packed: they are the same afterwards, and what took much memory is gone."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.pace import Bounds, Pace
from iggyflux.delivery.verdicts import Refusal, Refused, Verdict
from iggyflux.records import Batch, LazyMessages, Message, Partition, Rendered
from iggyflux.runner import request_sender
from iggyflux.runner.deliver import SinkState
from iggyflux.runner.ledger import Job, Share
from iggyflux.runner.places import Place
from iggyflux.runner.request_sender import RequestSender
from iggyflux.runner.requests import Request, RequestBuilder, memory_of
from iggyflux.runner.status import RouteStatus
from iggyflux.transports.iggy.connection import lazy_messages
from iggyflux.transports.local.log import Log
from iggyflux.transports.local.memory import ImmediateClock, ScriptedSource
from tests.test_runner import route

HERE = Partition("harbour", "cranes", 3)
HERE_OF = (HERE.stream, HERE.topic, HERE.partition)


class Polled:
    """A message as the SDK returns it."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def payload(self) -> bytes:
        return self._message.payload

    def offset(self) -> int:
        return self._message.offset

    def timestamp(self) -> int:
        return self._message.timestamp_us

    def origin_timestamp(self) -> int:
        return self._message.origin_timestamp_us

    def id(self) -> int:
        return self._message.id

    def user_headers(self) -> dict[Any, Any] | None:
        return {Header(key): Header(value) for key, value in self._message.headers.items()} or None


class Header:
    """A header's key or value as the SDK returns it."""

    def __init__(self, value: Any) -> None:
        self.value = value


UINT64 = st.integers(0, 2**64 - 1)
MESSAGES = st.lists(
    st.builds(
        Message,
        st.binary(max_size=40) | st.sampled_from([b"", b"{}", b"\x00" * 300]),
        st.just(HERE.stream),
        st.just(HERE.topic),
        st.just(HERE.partition),
        UINT64,
        UINT64,
        UINT64,
        st.sampled_from([0, 1, 2**128 - 1]) | st.integers(0, 2**128 - 1),
        st.dictionaries(
            st.text(min_size=1, max_size=5),
            st.booleans() | st.integers(-(2**127), 2**127) | st.floats(allow_nan=False) | st.binary() | st.text(),
            max_size=2,
        ),
    ),
    min_size=1,
    max_size=12,
)


def polled(messages: Sequence[Message]) -> LazyMessages:
    return lazy_messages([Polled(each) for each in messages], HERE)


@given(MESSAGES, st.data())
def test_packed_messages_are_the_same(messages: list[Message], data: st.DataObject) -> None:
    """In whatever order they are packed, sliced, chosen and read."""
    lazy, expected = polled(messages), list(messages)
    for _ in range(data.draw(st.integers(1, 6))):
        step = data.draw(st.sampled_from(["pack", "slice", "choose", "one", "all", "payloads"]))
        if step == "pack":
            lazy.pack()
            assert lazy.is_packed
        elif step == "slice":
            start = data.draw(st.integers(0, len(expected) - 1))
            stop = data.draw(st.integers(start + 1, len(expected)))
            sliced, expected = lazy[start:stop], expected[start:stop]
            if not isinstance(sliced, LazyMessages):  # all were built before
                assert sliced == expected
                return
            lazy = sliced
        elif step == "choose":
            indices = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, unique=True).map(sorted))
            chosen = lazy.chosen(indices)
            assert isinstance(chosen, LazyMessages)
            lazy, expected = chosen, [expected[index] for index in indices]
        elif step == "one":
            index = data.draw(st.integers(-len(expected), len(expected) - 1))
            assert lazy[index] == expected[index]
        elif step == "all":
            assert list(lazy) == expected
        else:
            assert lazy.payloads == [each.payload for each in expected]
        assert len(lazy) == len(expected)
        assert lazy.payload_bytes == sum(len(each.payload) for each in expected)
        with pytest.raises(IndexError):
            lazy[len(expected)]


@given(MESSAGES)
def test_the_first_and_the_last_message_do_not_unpack_the_others(messages: list[Message]) -> None:
    """An acknowledgement reads these two of each batch."""
    lazy = polled(messages)
    lazy.pack()

    assert (lazy[0], lazy[-1]) == (messages[0], messages[-1])

    assert lazy.is_packed


def test_a_log_and_a_source_of_iggy_pack_to_less_than_a_third(tmp_path: Path) -> None:
    log = Log.open(tmp_path)
    texts = [
        json.dumps(
            {
                "crane": f"c-{number % 9}",
                "load_kg": number * 7.5,
                "wind": 3,
                "driver": "on the way to quay 7, which is closed until noon",
                "n": [1, 2, 3],
            }
        ).encode()
        for number in range(999)
    ]
    log.append(HERE.stream, HERE.topic, [Message(text) for text in texts], partition=0)
    read = log.reader(Partition(HERE.stream, HERE.topic, 0), 0).read(999)
    known = list(read)

    for lazy in (read, polled(known)):
        before = lazy.memory
        lazy.pack()
        assert lazy.memory < before / 3
        assert [each.payload for each in lazy] == texts
        assert [each.offset for each in lazy] == list(range(999))


def test_messages_that_were_built_count_until_they_are_packed() -> None:
    lazy = polled([Message(b"x" * 99, *HERE_OF, offset) for offset in range(300)])
    before = lazy.memory

    assert len(list(lazy)) == 300

    assert lazy.memory > before + 300 * sys.getsizeof(lazy[0])
    lazy.pack()
    assert lazy.memory < before


class Unread(list[Message]):
    """Messages of which none may be read any more."""

    is_read = True

    def __iter__(self) -> Iterator[Message]:
        assert self.is_read
        return super().__iter__()


@pytest.mark.parametrize("is_lazy", [True, False])
def test_the_memory_of_requests_is_found_without_a_look_at_each_message(is_lazy: bool) -> None:
    """It is asked for when each request begins.  A batch counts once, in however many requests its lines are."""
    made = Unread(Message(b"y" * 50, *HERE_OF, offset) for offset in range(10))
    lines = [f"m v=1 {offset}" for offset in range(10)]
    job = Job(Batch(HERE, polled(made) if is_lazy else made), Rendered(lines, range(10)), 10)
    requests = list(RequestBuilder(2, 10**6).add(Share(job, lines, range(10))))
    made.is_read = False

    of_lines = sum(each.memory for each in requests)

    assert len(requests) == 5
    assert memory_of(requests) - of_lines == memory_of(requests[:1]) - requests[0].memory == job.memory
    assert 10 * 50 < job.memory < 10 * 1000


def test_messages_of_the_sdk_are_freed_when_they_are_packed_also_those_of_a_part() -> None:
    found = [Polled(Message(b"x" * number, offset=number)) for number in range(9)]
    gone = weakref.WeakSet(found)
    whole = lazy_messages(found, HERE)
    parts = [whole[:4], whole[4:]]
    del found, whole

    for part in parts:
        assert isinstance(part, LazyMessages)
        part.pack()

    gc.collect()
    assert not gone
    assert [each.offset for part in parts for each in part] == list(range(9))


def test_a_thread_packs_while_another_one_reads() -> None:
    messages = [Message(f"{number}".encode(), *HERE_OF, number) for number in range(500)]
    for _ in range(30):
        lazy = polled(messages)
        thread = Thread(target=lambda lazy=lazy: [lazy.pack() for _ in range(20)])
        thread.start()
        for index in range(0, 500, 7):
            assert lazy[index] == messages[index]
        assert list(lazy) == messages
        thread.join()


class SlowSink:
    """A sink that answers when the test says so, and refuses the second line of each request."""

    dialect, in_flight = "v3", None

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def connect(self) -> None: ...

    async def write(self, lines: Sequence[str]) -> Verdict:
        await self.may_answer.wait()
        return Refused((Refusal(1, "no", 400),), rest_stored=True)

    async def close(self) -> None: ...


@pytest.mark.parametrize(("size", "is_packed"), [(9_000, True), (90, False)])
def test_the_messages_of_requests_in_flight_are_packed_where_they_take_much_memory(size: int, is_packed: bool) -> None:
    """A line that is refused later finds its message."""
    sink, state = SlowSink(), SinkState()
    state.pace = Pace(Bounds.exactly(64))
    lazy = [
        polled([Message(b"%d " % offset + b"y" * size, *HERE_OF, offset) for offset in range(first, first + 50)])
        for first in range(0, 1000, 50)
    ]
    refused: list[bytes] = []

    async def settle(job: Job) -> None:
        refused.extend(job.messages[job.message_of(refusal)].payload for refusal in job.refusals)

    async def main() -> None:
        made: Any = route(ScriptedSource([]), sink)  # type: ignore[arg-type]
        sender = RequestSender(
            made, RouteStatus("r"), ImmediateClock(), asyncio.Event(), Place(made.sink, state), settle
        )
        builder = RequestBuilder(50, 10**7)
        async with asyncio.TaskGroup() as tasks:
            for first, messages in enumerate(lazy):
                lines = [f"m v=1 {50 * first + at}" for at in range(50)]
                job = Job(Batch(HERE, messages), Rendered(lines, range(50)), 50)
                for request in builder.add(Share(job, lines, range(50))):
                    await sender.send(request, tasks)
            waited = 0.0
            while not any(each.is_packed for each in lazy) and waited < (20 if is_packed else 0.2):
                await asyncio.sleep(0.01)
                waited += 0.01
            assert any(each.is_packed for each in lazy) == is_packed
            sink.may_answer.set()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert sorted(refused, key=lambda payload: int(payload.split()[0])) == [
        b"%d " % (first + 1) + b"y" * size for first in range(0, 1000, 50)
    ]


@pytest.mark.parametrize(("room", "more"), [(1, 100_000), (2, 1_000)])
def test_messages_in_flight_are_packed_until_the_next_request_has_room(
    monkeypatch: pytest.MonkeyPatch, room: int, more: int
) -> None:
    """Also those of one that is alone, as where each of many buckets has few lines of a batch, and of one that began
    while others were packed."""
    requests = large_requests(room + 1)
    size, may_pack, pack = memory_of(requests[:1]), Event(), request_sender._pack_all
    monkeypatch.setattr(request_sender, "_MOST_BYTES", room * size + more)
    monkeypatch.setattr(request_sender, "_PACKED_ABOVE_BYTES", size // 2)
    monkeypatch.setattr(request_sender, "_ONE_PACKED_ABOVE_BYTES", size // 2)
    monkeypatch.setattr(request_sender, "_pack_all", lambda found: pack(found) if may_pack.wait(30) else None)

    def started(in_flight: int) -> None:
        if in_flight == room:
            may_pack.set()

    send_all(requests, started)


def test_packing_is_not_tried_again_where_it_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as for a lack of memory: messages stay as they are, and are delivered; it is logged once."""
    tried: list[int] = []

    def fail(found: Sequence[LazyMessages]) -> None:
        tried.append(len(found))
        raise MemoryError

    monkeypatch.setattr(request_sender, "_ONE_PACKED_ABOVE_BYTES", 1)
    monkeypatch.setattr(request_sender, "_PACKED_ABOVE_BYTES", 1)
    monkeypatch.setattr(request_sender, "_pack_all", fail)

    send_all(large_requests(4), lambda _: time.sleep(0.05))

    assert tried == [1]
    (logged,) = [each.getMessage() for each in caplog.records if "messages.not_packed" in each.getMessage()]
    assert "route=r reason=MemoryError()" in logged


def large_requests(count: int) -> list[Request]:
    requests = []
    for first in range(count):
        messages = polled([Message(b"y" * 2_000, *HERE_OF, 100 * first + at) for at in range(100)])
        lines = [f"m v=1 {100 * first + at}" for at in range(100)]
        job = Job(Batch(HERE, messages), Rendered(lines, range(100)), 100)
        requests += RequestBuilder(100, 10**7).add(Share(job, lines, range(100)))
    return requests


def send_all(requests: Sequence[Request], started: Callable[[int], None]) -> None:
    """Send the requests, and answer none before all are in flight; `started` is called with their number after each."""
    state = SinkState()
    state.pace = Pace(Bounds.exactly(64))

    async def settle(job: Job) -> None: ...

    async def main() -> None:
        sink = SlowSink()
        made: Any = route(ScriptedSource([]), sink)  # type: ignore[arg-type]
        place = Place(made.sink, state)
        sender = RequestSender(made, RouteStatus("r"), ImmediateClock(), asyncio.Event(), place, settle)
        async with asyncio.TaskGroup() as tasks:
            for request in requests:
                await sender.send(request, tasks)
                started(sender.in_flight)
                await asyncio.sleep(0)
            assert sender.in_flight == len(requests)
            sink.may_answer.set()

    asyncio.run(asyncio.wait_for(main(), 20))
