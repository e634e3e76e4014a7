"""What a reader sends of a window: pages until each is confirmed, each attempt counted; and which rows are of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.delivery.windows import Read
from iggyflux.errors import NotConnected, Stopped
from iggyflux.records import Message, OutgoingMessage, Row, Scalar
from iggyflux.runner.publish import MessageSender, Publisher, _check_times, _place_of
from iggyflux.runner.session import Session
from iggyflux.runner.status import RouteStatus
from iggyflux.runner.stop import Stop
from iggyflux.telemetry.tracing import Trace, Traces
from iggyflux.timestamps import parse_rfc3339
from iggyflux.transports.local.memory import ImmediateClock


class Headed(Trace):
    """A trace that messages go on with."""

    @property
    def headers(self) -> dict[str, Scalar]:
        return {"traceparent": "00-1", "both": "trace"}


class Link:
    """A sink whose calls end as scripted, then well; a send takes two seconds, and may arrive although it fails."""

    def __init__(self, script: Sequence[str]) -> None:
        self.script = list(script)
        self.calls: list[tuple[str, str, int]] = []
        self.confirmed: list[Sequence[OutgoingMessage]] = []
        self.is_connected = False
        self.clock, self.status, self.asked = ImmediateClock(), RouteStatus("class"), list[str]()
        self.traces = Traces()
        route: Any = SimpleNamespace(sink=self, page_size=3)
        session = Session("class", self.status, Stop(), self.clock, random=lambda: 1.0)
        self.sender = MessageSender(route, self.status, session, self.asking, self.clock.monotonic, self.traces)

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        self.asked.append(what)
        yield

    def _end(self, call: str, size: int) -> None:
        outcome = self.script.pop(0) if self.script else "good"
        self.calls.append((call, outcome, size))
        if outcome == "lost":
            self.is_connected = False
            raise NotConnected("away")
        if outcome == "stopped":
            raise Stopped("full")

    async def connect(self) -> None:
        assert not self.is_connected
        self._end("connect", 0)
        self.is_connected = True

    async def send(self, messages: Sequence[OutgoingMessage]) -> None:
        assert self.is_connected
        assert self.status.in_flight == 1
        self.clock.now += 2.0
        self._end("send", len(messages))
        self.confirmed.append(messages)


@given(st.integers(0, 10), st.lists(st.sampled_from(["good", "lost", "lost", "stopped"]), max_size=12), st.booleans())
def test_pages_are_confirmed_one_after_the_other_and_each_attempt_is_counted(
    count: int, script: list[str], has_trace: bool
) -> None:
    link = Link(script)
    if has_trace:
        link.traces.current = Headed()
    messages = [OutgoingMessage(b"x" * number, headers={"both": number}, id=number) for number in range(count)]
    with suppress(Stopped):
        asyncio.run(link.sender.send(messages))

    headers = {"traceparent": "00-1"} if has_trace else {}
    sent = [OutgoingMessage(each.payload, headers={**headers, **each.headers}, id=each.id) for each in messages]
    pages = [sent[first : first + 3] for first in range(0, count, 3)]
    is_stopped = any(outcome == "stopped" for _, outcome, _ in link.calls)
    assert link.confirmed == (pages[: len(link.confirmed)] if is_stopped else pages)
    attempts = [size for call, _, size in link.calls if call == "send"]
    status = link.status
    assert (status.requests, sum(status.request_size.counts), sum(status.request_seconds.counts)) == (
        len(attempts),
    ) * 3
    assert (status.request_size.sum, status.request_seconds.sum) == (sum(attempts), 2.0 * len(attempts))
    numbers = [number for page, (call, _, _) in zip_pages(link) if call == "send" for number in page]
    assert status.sent_bytes == sum(len(messages[number].payload) for number in numbers)
    assert (status.in_flight, status.delivered) == (0, sum(map(len, link.confirmed)))
    assert status.retries == sum(outcome == "lost" for _, outcome, _ in link.calls)
    assert link.asked == ["connecting" if call == "connect" else f"{size} messages" for call, _, size in link.calls]
    assert is_stopped or not status.is_away


def zip_pages(link: Link) -> Iterator[tuple[range, tuple[str, str, int]]]:
    """Yield each call with the numbers of the messages of its page."""
    first = 0
    for call in link.calls:
        yield range(first, first + call[2]), call
        if call[:2] == ("send", "good"):
            first += call[2]


@pytest.mark.parametrize("was_away", [False, True])
def test_a_sink_is_away_from_a_failure_to_connect_until_it_is_connected(was_away: bool) -> None:
    """Where connecting did not fail, a connection does not say that messages arrive again."""
    link = Link(["lost", "good"])
    with pytest.raises(NotConnected):
        asyncio.run(link.sender.connect())
    assert link.status.is_away
    asyncio.run(link.sender.connect())
    assert not link.status.is_away
    asyncio.run(link.sender.connect())
    assert len(link.calls) == 2

    other = Link([])
    other.status.is_away = was_away
    asyncio.run(other.sender.connect())
    assert other.status.is_away == was_away


S = 10**9


@given(st.lists(st.integers(-3, 8) | st.sampled_from(["no time", None]), max_size=4))
def test_rows_that_are_not_of_the_window_stop_the_reader(times: list[Any]) -> None:
    """`None` is a row without the column."""
    rows = [Row({"at": at * S if isinstance(at, int) else at} if at is not None else {"time": 1}) for at in times]
    read = Read(0, 5 * S, "tail", 0, 0)
    numbers = [at for at in times if isinstance(at, int)]
    if len(numbers) == len(times) and all(0 <= at < 5 for at in numbers):
        _check_times(rows, read, "at")
        return
    with pytest.raises(Stopped) as caught:
        _check_times(rows, read, "at")

    begin, _, found = caught.value.reason.partition(" has ")
    assert (caught.value.code, begin) == ("IFX644", "the answer for 1970-01-01T00:00:00Z to 1970-01-01T00:00:05Z")
    if None in times:
        assert found == "a row without the column 'at'"
        assert "cursor.column" in (caught.value.hint or "")
    else:
        assert "time < $stop" in (caught.value.hint or "")
        if "no time" in times:
            assert found == "a row whose column 'at' is not a time"
        else:
            span = found.removeprefix("rows of ").split(" to ")
            assert [parse_rfc3339(each) for each in span] == [min(numbers) * S, max(numbers) * S]


@pytest.mark.parametrize(
    ("columns", "tags", "place"),
    [
        ({"at": S, "yield": "b", "class": "a", "v": 1}, None, "env,class=a,yield=b@1970-01-01T00:00:01Z"),
        ({"at": S, "yield": "b", "class": "a"}, ("yield", "while"), "env,yield=b@1970-01-01T00:00:01Z"),
        ({"at": 0.5, "yield": "b"}, (), "env@0.5"),
        ({"at": S, "yield": "b" * 300}, None, f"env,yield={'b' * 193}@1970-01-01T00:00:01Z"),
    ],
)
def test_the_place_of_a_row_has_measurement_tags_and_time(columns: Any, tags: Any, place: str) -> None:
    assert _place_of(Row(columns, "env", None, tags), "at") == place


@pytest.mark.parametrize(("time", "timestamp_us"), [(7_500, 7), (-7_500, 0), (7.5, 0)])
def test_the_message_of_a_letter_is_the_row_and_has_its_time(time: Any, timestamp_us: int) -> None:
    route: Any = SimpleNamespace(column="at", stream="s", topic="t")
    publisher: Any = SimpleNamespace(_route=route)
    message = Publisher._letter(publisher, Row({"at": time, "é": [1]}), b"\x01\x02")

    assert json.loads(message.payload) == {"at": time, "é": [1]}
    assert message == Message(message.payload, "s", "t", 0, 0, timestamp_us, timestamp_us, 258)
