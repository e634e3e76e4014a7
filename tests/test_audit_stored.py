"""How an audit asks a store: as often as the pipeline says, in parts where it is too much, a measurement at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iggyflux.audit import stored
from iggyflux.audit.points import Entry
from iggyflux.audit.stored import StoredPoints, StoreFacts
from iggyflux.delivery.retention import Retention
from iggyflux.errors import NotConnected, Stopped, TooMuch
from iggyflux.lineprotocol import Dialect
from iggyflux.pipeline import InfluxSettings


class Rows:
    """A store of the points at `times`, which answers with at most `most`; each call fails as scripted before."""

    def __init__(self, times: list[int], most: int = 10**9, script: list[NotConnected | None] | None = None) -> None:
        self.times, self.most, self.script = times, most, script or []
        self.calls: list[tuple[str, str]] = []
        self.slept: list[float] = []
        self.kept: int | None = None
        self.flavor = SimpleNamespace(dialect=Dialect.V2)

    def made(self, _settings: object, query: Any) -> Any:
        of = query.measurement
        return SimpleNamespace(
            flavor=self.flavor,
            connect=lambda: self.call("connect", of),
            close=lambda: self.call("close", of, fails=False),
            fetch=lambda start, stop: self.fetch(of, start, stop),
            retention=lambda: self.call("retention", of, Retention(self.kept)),
            now=lambda: self.call("now", of, 100 * 10**9),
        )

    async def call(self, name: str, of: str, answer: Any = None, *, fails: bool = True) -> Any:
        self.calls.append((name, of))
        if fails and self.script and (error := self.script.pop(0)):
            raise error
        return answer

    async def fetch(self, of: str, start: int, stop: int) -> Any:
        found = sum(start <= time < stop for time in self.times)
        await self.call("fetch", of)
        if found > self.most:
            raise TooMuch(f"{found} rows")
        return found

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@contextmanager
def asking(rows: Rows, unit_ns: int = 1, **settings: Any) -> Iterator[StoredPoints]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "InfluxRows", rows.made)
        patch.setattr(stored, "asyncio", SimpleNamespace(sleep=rows.sleep))
        yield StoredPoints(InfluxSettings(**settings), unit_ns)


def entries_at(times: list[int]) -> list[Entry]:
    return [(time, "lambda", number, "f=1") for number, time in enumerate(times)]


@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=12).map(sorted), st.integers(1, 4), st.sampled_from([1, 10**9])
)
@example([3, 3], 1, 10**9)
@example([0, 1], 1, 1)
def test_a_window_that_is_too_much_is_asked_for_in_parts_down_to_one_time(
    times: list[int], most: int, unit_ns: int
) -> None:
    """Each part is answered for the span of its points."""
    rows, entries = Rows([time * unit_ns for time in times], most), entries_at(times)

    async def ask() -> list[tuple[list[Entry], int]]:
        return [(part, answer) async for part, answer in store.of("class", entries)]  # type: ignore[misc]

    with asking(rows, unit_ns) as store:
        if max(Counter(times).values()) > most:
            with pytest.raises(Stopped) as caught:
                asyncio.run(ask())
            assert caught.value.code == "IFX642"
            return
        found = asyncio.run(ask())
    assert [entry for part, _ in found for entry in part] == entries
    assert [answer for _, answer in found] == [len(part) for part, _ in found]
    assert len(found) == 1 or len(times) > most
    assert sum(name == "fetch" for name, _ in rows.calls) == 2 * len(found) - 1, "halves, each asked for once"


def test_one_measurement_is_asked_at_a_time_over_one_connection() -> None:
    rows = Rows([1])

    async def ask() -> None:
        for names in (("class", "class", "while"), ("while",)):
            for name in names:
                assert [answer async for _, answer in store.of(name, entries_at([1]))] == [1]
            await store.close()
            await store.close()

    with asking(rows) as store:
        asyncio.run(ask())
    last = [(call, "while") for call in ("connect", "fetch", "close")]
    assert rows.calls == [*((call, "class") for call in ("connect", "fetch", "fetch", "close")), *last, *last]


@given(st.lists(st.sampled_from([None, 0.25, 7.0]), max_size=6), st.integers(0, 5))
def test_a_call_is_repeated_with_backoff_as_often_as_the_pipeline_says(asked: list[float | None], most: int) -> None:
    rows = Rows([1], script=[NotConnected("away", retry_after_seconds=each) for each in asked])
    settings = {"max_retries": most, "retry_backoff_seconds": 0.5, "max_retry_backoff_seconds": 3.0}

    async def ask() -> None:
        async for _ in store.of("class", entries_at([1])):
            pass

    with asking(rows, **settings) as store, nullcontext() if len(asked) <= most else pytest.raises(NotConnected):
        asyncio.run(ask())
    waits = zip((0.5, 1.0, 2.0, 3.0, 3.0, 3.0), asked, strict=False)
    assert rows.slept == [max(wait, each or 0.0) for wait, each in waits][:most]
    assert len(rows.calls) == min(len(asked), most) + 1 + (len(asked) <= most)


@pytest.mark.parametrize(("kept", "oldest_ns"), [(None, None), (0, None), (30, 70 * 10**9)])
def test_what_is_expired_is_known_by_the_retention_and_the_clock_of_the_server(
    kept: int | None, oldest_ns: int | None
) -> None:
    """Both are asked for again while the server is away."""
    away = NotConnected("away")
    rows = Rows([], script=[away, None, away, None, away, None])
    rows.kept = kept
    with asking(rows, 10**9) as store:
        assert asyncio.run(store.facts()) == StoreFacts("v2", kept, oldest_ns)
