"""What every `StateStore` must do, wherever it keeps its state: in a database on disk, or in a topic of Iggy."""

from __future__ import annotations

import asyncio
import io
import itertools
import sqlite3
from abc import abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transports.fake_iggy import FakeIggy

from iggyflux.cursors.topics import TopicState
from iggyflux.errors import NotConnected, Stopped
from iggyflux.pipeline import TopicAddress
from iggyflux.state.sqlite import SqliteState
from iggyflux.state.store import CHUNK_BYTES, FORMAT, StateStore

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
NUMBERS = st.integers(1, 4)
BLOBS = st.dictionaries(NUMBERS, st.binary(max_size=40), max_size=2)
STEPS = st.lists(
    st.tuples(st.just("commit"), JSON.filter(lambda record: record is not None), BLOBS, st.sets(NUMBERS, max_size=2))
    | st.tuples(st.just("replace"), JSON)
    | st.tuples(st.just("next run")),
    min_size=1,
    max_size=8,
)
NAMES = (f"größe.v2 'x' {number}" for number in itertools.count())


def stopped(work: Callable[[], object]) -> Stopped:
    with pytest.raises(Stopped) as found:
        work()
    return found.value


def files(blobs: dict[int, bytes]) -> dict[int, io.BytesIO]:
    return {number: io.BytesIO(data) for number, data in blobs.items()}


class StateContract:
    """Subclass it and define how a state is made, read from outside, and broken."""

    has_lock: bool

    @abstractmethod
    def state(self, name: str) -> StateStore:
        """Return a new one in the same place, as another run makes it."""

    @abstractmethod
    def content(self, name: str) -> bytes:
        """Return everything that is kept in the place."""

    @abstractmethod
    def change(self, name: str, spoil: Callable[[bytes], bytes]) -> None:
        """Change the bytes that hold the record and the blobs."""

    @abstractmethod
    def set_version(self, name: str, version: int) -> None:
        """Make it one of another format, as another release writes it."""

    @abstractmethod
    def fail(self, state: StateStore) -> None:
        """Let the next commit fail."""

    @abstractmethod
    def repair(self) -> None:
        """Let commits succeed again."""

    # The suite

    @pytest.mark.slow
    @given(STEPS)
    @settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.differing_executors])
    def test_whatever_is_done_the_state_is_that_of_a_dictionary(self, steps: list[Any]) -> None:
        name = next(NAMES)
        record: Any = None
        blobs: dict[int, bytes] = {}
        state = self.state(name)
        state.take()
        for step in steps:
            match step:
                case ("commit", record, added, dropped):
                    state.commit(record, added=files(added), dropped=dropped)
                    blobs = {number: data for number, data in blobs.items() if number not in dropped} | added
                case ("replace", record):
                    state.replace(record)
                    blobs = {}
                case _:
                    state.close()
                    state = self.state(name)
                    state.take()
        for each in (state, self.state(name)):
            for number in range(1, 5):
                if number in blobs:
                    assert b"".join(each.blob(number)) == blobs[number]
                else:
                    assert stopped(lambda number=number, each=each: list(each.blob(number))).code == "IFX641"  # type: ignore[misc]
            assert each.read() == record
            each.close()

    def test_nothing_stored_is_none_and_reading_stores_nothing(self) -> None:
        with closing(self.state("n")) as state:
            assert state.read() is None
        assert self.content("n") == b""

    def test_a_large_blob_comes_in_bounded_pieces(self) -> None:
        data = bytes(range(256)) * 5_000
        with closing(self.state("n")) as state:
            state.take()
            state.commit(1, added=files({7: data}))
            pieces = list(state.blob(7))

        assert b"".join(pieces) == data
        assert max(map(len, pieces)) <= CHUNK_BYTES < len(data)

    def test_a_process_without_the_lock_changes_nothing(self) -> None:
        with closing(self.state("n")) as state:
            for change in (lambda: state.commit(1), lambda: state.replace(1)):
                with pytest.raises(RuntimeError, match="taken"):
                    change()
        assert self.content("n") == b""

    def test_of_two_who_take_it_one_commits(self) -> None:
        """A lock rejects the second run at once; without a lock, the run whose commit came last goes on."""
        first, second = self.state("n"), self.state("n")
        first.take()
        first.commit("by the first")
        if self.has_lock:
            assert stopped(second.take).code == "IFX702"
            first.commit("again")
            first.close()
            second.take()
        else:
            second.take()
        second.read()
        second.commit("by the second")
        if not self.has_lock:
            assert stopped(lambda: first.commit("again")).code == "IFX702"
        for each in (first, second):
            each.close()
        with closing(self.state("n")) as state:
            assert state.read() == "by the second"

    def test_a_commit_that_failed_is_all_or_nothing_and_can_be_made_again(self) -> None:
        with closing(self.state("n")) as state:
            state.take()
            state.commit("first", added=files({1: b"one"}))
            state.read()
            self.fail(state)
            with pytest.raises((Stopped, NotConnected)):
                state.commit("second", added=files({2: b"x" * 100_000}), dropped=[1])
            self.repair()
            with closing(self.state("n")) as other:
                assert other.read() == "first"
                assert b"".join(other.blob(1)) == b"one"
                assert stopped(lambda: list(other.blob(2))).code == "IFX641"
            state.commit("second", added=files({2: b"two"}), dropped=[1])
            assert state.read() == "second"
            assert b"".join(state.blob(2)) == b"two"

    @pytest.mark.parametrize("version", [FORMAT - 1, FORMAT + 1, 99])
    def test_another_format_is_refused_with_its_version_and_never_changed(self, version: int) -> None:
        with closing(self.state("n")) as state:
            state.take()
            state.commit("first", added=files({1: b"one"}))
        self.set_version("n", version)
        before = self.content("n")
        with closing(self.state("n")) as state:
            state.take()
            for use in (state.read, lambda: list(state.blob(1)), lambda: state.commit("second")):
                error = stopped(use)
                assert error.code == "IFX701"
                assert f"format {version}; this release reads format {FORMAT}" in error.reason
                assert "release" in (error.hint or "")
        assert self.content("n") == before

    def test_damage_is_reported_and_can_be_replaced(self) -> None:
        with closing(self.state("n")) as state:
            state.take()
            state.commit({"key": "abcdefgh"}, added=files({1: b"one"}))
        self.change("n", lambda data: data.replace(b"abcdefgh", b"abcdefgi"))
        with closing(self.state("n")) as state:
            state.take()
            error = stopped(state.read)
            assert (error.code, state.place in error.reason) == ("IFX701", True)
            assert error.hint
            state.replace("new")
            assert state.read() == "new"
            state.commit("newer")
        with closing(self.state("n")) as state:
            assert state.read() == "newer"

    def test_an_event_loop_is_never_blocked(self) -> None:
        with closing(self.state("n")) as state:
            state.take()
            state.commit("first")

            async def main() -> None:
                for call in (state.read, lambda: state.commit(2)):
                    with pytest.raises(RuntimeError, match="event loop"):
                        call()

            asyncio.run(main())
            assert state.read() == "first"

    def test_to_close_it_twice_is_to_close_it(self) -> None:
        state = self.state("n")
        state.take()
        state.commit(1)
        state.close()
        state.close()
        with closing(self.state("n")) as again:
            again.take()
            assert again.read() == 1


class TestSqlite(StateContract):
    """A database on disk."""

    has_lock = True

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "kept"

    def state(self, name: str) -> SqliteState:
        return SqliteState(self.path(name), "test", name, "the test", busy_seconds=0.05)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.sqlite"

    def content(self, name: str) -> bytes:
        return self.path(name).read_bytes() if self.path(name).exists() else b""

    def change(self, name: str, spoil: Callable[[bytes], bytes]) -> None:
        self.path(name).write_bytes(spoil(self.content(name)))

    def set_version(self, name: str, version: int) -> None:
        with closing(sqlite3.connect(self.path(name))) as connection:
            connection.execute(f"PRAGMA user_version = {version}")

    def fail(self, state: StateStore) -> None:
        """Let another program hold the database."""
        self.other_program = sqlite3.connect(state.place, isolation_level=None)
        self.other_program.execute("BEGIN IMMEDIATE")

    def repair(self) -> None:
        self.other_program.close()


class TestTopic(StateContract):
    """A topic of Iggy."""

    has_lock = False

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with FakeIggy() as self.fake:
            self.fake.create("werk", "lambda")
            yield

    def state(self, name: str) -> TopicState:
        return TopicState(self.fake.settings(), TopicAddress("werk", "lambda"), name)

    def content(self, name: str) -> bytes:
        return b"".join(b64decode(message["payload"]) for message in self.messages)

    def change(self, name: str, spoil: Callable[[bytes], bytes]) -> None:
        self.messages[-1]["payload"] = b64encode(spoil(b64decode(self.messages[-1]["payload"]))).decode()

    def set_version(self, name: str, version: int) -> None:
        self.change(
            name, lambda data: data.replace(b"\xa7version" + bytes([FORMAT]), b"\xa7version" + bytes([version]))
        )

    def fail(self, state: StateStore) -> None:
        self.fake.faults = ["error"] * 10

    def repair(self) -> None:
        self.fake.faults = []

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.fake.topics["werk", "lambda"][0].messages


def test_stores_have_one_interface() -> None:
    """No caller asks a state where it is kept."""
    names = {name for name in vars(StateStore) if not name.startswith("_")}

    assert names == {"blob", "close", "commit", "place", "read", "replace", "take"}
    for kind in (TopicState, SqliteState):
        assert {name for name in vars(kind) if not name.startswith("_")} == names
