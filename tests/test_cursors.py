"""Cursors: after a crash the old one or the new one; seen rows are recognized, in bounded memory, in every window."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.cursors import CursorStore, StoredCursor, cursor_state, key_rows
from iggyflux.cursors.deduplicator import MEMORY_BYTES
from iggyflux.delivery.windows import Read, ReadPosition
from iggyflux.errors import Stopped
from iggyflux.plan.digests import digest_rows
from iggyflux.records import Row

QUERY: dict[str, Any] = {"measurement": "env", "where": {}}


def row(time: int, device: str = "d", value: object = 1, tags: tuple[str, ...] | None = ("device",)) -> Row:
    return Row({"time": time, "device": device, "value": value}, "env", None, tags)  # type: ignore[dict-item]


def read(start: int, stop: int, known: int, keep: int = 0) -> Read:
    return Read(start, stop, "tail", known, keep)


def select(
    store: CursorStore, span: Read, rows: list[Row], position: ReadPosition | None = None
) -> list[tuple[int, str]]:
    """Read and store one window; return what to publish of it, in chunks of 7 rows."""
    deduplicator = store.deduplicator(span, "time")
    chunks = [rows[first : first + 7] for first in range(0, len(rows), 7)]
    if deduplicator.needs_survey:
        for chunk in chunks:
            deduplicator.survey(chunk, digest_rows(chunk))
        deduplicator.compare()
    found: list[tuple[int, str]] = []
    for number, chunk in enumerate(chunks):
        found += [(7 * number + index, mark) for index, mark in deduplicator.select(chunk, digest_rows(chunk))]
    store.commit(position or ReadPosition(0, max(span.stop, span.known)), deduplicator)
    deduplicator.close()
    return found


def store_in(folder: Path, name: str = "r", *, marks: bool = False, memory_bytes: int = MEMORY_BYTES) -> CursorStore:
    return CursorStore(cursor_state(folder, name), name, QUERY, marks=marks, memory_bytes=memory_bytes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CursorStore]:
    made = store_in(tmp_path)
    assert made.open() is None
    yield made
    made.close()


def reopened(store: CursorStore, *, marks: bool = False) -> CursorStore:
    store.close()
    again = store_in(Path(store.place).parent, store.name, marks=marks)
    again.open()
    return again


def blobs(store: CursorStore) -> dict[int, bytes]:
    """Return the blobs in the database, whatever the record says."""
    with closing(sqlite3.connect(store.place)) as connection:
        return dict(connection.execute("SELECT number, digests FROM seen"))


def test_what_was_stored_is_read(tmp_path: Path) -> None:
    cursor = StoredCursor(QUERY, ReadPosition(5, 9, (1, 3)))
    store = store_in(tmp_path)
    store.take()
    store.replace(cursor)

    assert store.read() == store_in(tmp_path).read() == cursor
    assert store_in(tmp_path, "other").read() is None
    store.replace(None)
    assert store.read() is None
    store.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:5000],
        lambda data: data.replace(b'"done":100', b'"done":101'),
        lambda _: b"",
        lambda _: b"{}",
    ],
    ids=["cut", "changed", "empty", "other"],
)
def test_a_damaged_cursor_stops_and_is_not_guessed(store: CursorStore, spoil: Any) -> None:
    store.commit(ReadPosition(100, 100))
    store.close()
    path = Path(store.place)
    data = path.read_bytes()
    assert spoil(data) != data
    path.write_bytes(spoil(data))
    with pytest.raises(Stopped) as error:
        store.read()

    assert error.value.code == "IFX701"
    assert str(path) in error.value.reason


def test_what_was_seen_is_known_and_what_is_new_late_or_changed_is_not(store: CursorStore) -> None:
    rows = [row(number) for number in range(20)]
    assert [index for index, _ in select(store, read(0, 20, 0), rows)] == list(range(20))

    again = [*rows[:10], row(5, "late"), row(11, value=2), *rows[12:], row(20)]
    assert select(reopened(store), read(0, 21, 20), again) == [(10, "late"), (11, "late"), (20, "")]


def test_with_marks_a_changed_row_differs_from_a_late_one(tmp_path: Path) -> None:
    store = store_in(tmp_path, marks=True)
    store.open()
    rows = [row(number) for number in range(20)]
    select(store, read(0, 20, 0), rows)

    again = [*rows[:10], row(5, "late"), row(11, value=2), *rows[12:], row(20)]
    assert select(reopened(store, marks=True), read(0, 21, 20), again) == [(10, "late"), (11, "changed"), (20, "")]


def test_asking_for_marks_later_sends_the_overlap_once_more(store: CursorStore) -> None:
    """Digests without keys cannot show what changed."""
    rows = [row(number) for number in range(3)]
    select(store, read(0, 3, 0), rows)

    assert len(select(reopened(store, marks=True), read(0, 3, 3), rows)) == 3


def test_only_what_will_be_looked_at_again_is_remembered(store: CursorStore) -> None:
    rows = [row(number) for number in range(100)]
    select(store, read(0, 100, 0, keep=90), rows, ReadPosition(90, 100))

    cursor = store.read()
    assert cursor is not None
    assert [(each.start, each.stop, each.count) for each in cursor.slices] == [(90, 100, 10)]
    select(store, read(100, 200, 100, keep=200), [], ReadPosition(200, 200))
    assert blobs(store) == {}


def test_digests_that_nothing_names_any_more_are_removed(store: CursorStore) -> None:
    """Those of another width too, which are never compared again."""
    select(store, read(0, 3, 0), [row(1)])
    assert [len(data) for data in blobs(store).values()] == [16]
    again = reopened(store, marks=True)
    assert len(select(again, read(0, 3, 3), [row(1)])) == 1

    assert [len(data) for data in blobs(again).values()] == [32]
    assert select(again, read(0, 3, 3), [row(1)]) == []
    again.close()


def test_a_deduplicator_that_is_not_committed_leaves_nothing(store: CursorStore) -> None:
    deduplicator = store.deduplicator(read(0, 3, 0), "time")
    deduplicator.select([row(1)], digest_rows([row(1)]))
    deduplicator.close()
    store.commit(ReadPosition(0, 1))

    assert blobs(store) == {}
    assert [index for index, _ in select(store, read(0, 3, 0), [row(1)])] == [0]


@pytest.mark.parametrize(
    "spoil",
    [
        "DELETE FROM seen",
        "UPDATE seen SET digests = substr(digests, 1, 16)",
        "UPDATE seen SET digests = CAST(substr(digests, 1, 31) || 'x' AS BLOB)",
        "UPDATE seen SET digests = digests || digests",
    ],
    ids=["remove", "cut", "change", "more"],
)
def test_damaged_digests_stop_and_say_which(store: CursorStore, spoil: str) -> None:
    select(store, read(0, 3, 0), [row(1), row(2)])
    ((number, _),) = blobs(store).items()
    with closing(sqlite3.connect(store.place)) as connection, connection:
        connection.execute(spoil)
    again = reopened(store)
    with pytest.raises(Stopped) as error:
        select(again, read(0, 3, 3), [row(1)])

    assert error.value.code == "IFX641"
    assert f"{store.place}, number {number}" in error.value.reason
    again.close()


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from iggyflux.cursors import CursorStore, cursor_state\n"
        f"store = CursorStore(cursor_state(Path({str(tmp_path)!r}), 'r'), 'r', {{}})\n"
        "store.open(); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(Stopped) as error:
            store_in(tmp_path).open()
        holder.kill()
        holder.wait()

    assert error.value.code == "IFX702"
    assert str(holder.pid) in error.value.reason
    store_in(tmp_path).open()


def test_a_key_is_of_measurement_tags_and_time_whatever_the_fields_are() -> None:
    first = row(1, value=1)
    others = [row(1, value=2), row(1, value=None), row(2), row(1, "e"), row(1, tags=None)]

    keys = key_rows([first, *others], "time")
    assert keys[0] == keys[1] == keys[2]
    assert keys[5] == keys[0], "without names of tags every string counts as one"
    assert len(set(keys)) == 3
    assert key_rows([row(1, value="text")], "time") == keys[:1], "a string field is not a tag where the tags are known"


@given(st.integers(0, 2**32), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_two_passes_come_to_the_same_as_one(
    tmp_path_factory: pytest.TempPathFactory, seed: int, marks: bool, crowded: bool
) -> None:
    """Windows of all sizes and cuts, over values that come late, change and change back.

    Published is what differs from the last read, whatever the memory limit is.
    """
    chance = random.Random(seed)
    memory_bytes = 64 if crowded else MEMORY_BYTES
    store = store_in(tmp_path_factory.mktemp("c"), marks=marks, memory_bytes=memory_bytes)
    store.open()
    world: dict[tuple[int, str], int] = {}
    seen: dict[tuple[int, str], int] = {}
    done = 0
    try:
        for _ in range(12):
            for _ in range(chance.randrange(8)):
                world[chance.randrange(40), chance.choice("abc")] = chance.randrange(2)
            start = chance.randrange(0, done + 1)
            stop = start + chance.randrange(1, 20)
            rows = [row(time, device, value) for (time, device), value in world.items() if start <= time < stop]
            chance.shuffle(rows)
            found = select(store, read(start, stop, done), rows, ReadPosition(0, max(done, stop)))
            expected = []
            for index, each in enumerate(rows):
                key = (each.columns["time"], each.columns["device"])
                old = seen.get(key)  # type: ignore[arg-type]
                if old != each.columns["value"]:
                    late = "late" if key[0] < done else ""  # type: ignore[operator]
                    expected.append((index, "changed" if marks and old is not None else late))
            assert found == expected
            seen |= {(each.columns["time"], each.columns["device"]): each.columns["value"] for each in rows}  # type: ignore[misc]
            done = max(done, stop)
    finally:
        store.close()


MEMORY = """\
import sys
from pathlib import Path
from iggyflux.cursors import CursorStore, cursor_state
from iggyflux.delivery.windows import Read, ReadPosition
from iggyflux.plan.digests import digest_rows
from iggyflux.records import Row

store = CursorStore(cursor_state(Path(sys.argv[1]), "r"), "r", {})
store.open()
def peak():  # that of `getrusage` would be that of the tests, before exec
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
base = peak()
def chunks(changed):
    for first in range(0, COUNT, 5000):
        yield [Row({"time": 5, "n": 10**9 if n == changed else n}, "m", None, ()) for n in range(first, first + 5000)]
COUNT = int(sys.argv[2])
for known, changed in ((0, -1), (10, 777)):
    deduplicator = store.deduplicator(Read(0, 10, "tail", known, 0), "time")
    if deduplicator.needs_survey:
        for rows in chunks(changed):
            deduplicator.survey(rows, digest_rows(rows))
        deduplicator.compare()
    found = sum(len(deduplicator.select(rows, digest_rows(rows))) for rows in chunks(changed))
    store.commit(ReadPosition(0, 10), deduplicator)
    deduplicator.close()
    print(found)
print((peak() - base) // 1024)
"""


def test_memory_is_bounded_whatever_a_window_holds(tmp_path: Path) -> None:
    """A million points of one nanosecond, read again: only a part of them is in memory."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), "1000000"], capture_output=True, text=True, check=True
    )
    first, again, megabytes = map(int, done.stdout.split())

    assert (first, again) == (1_000_000, 1)
    assert megabytes < 70
