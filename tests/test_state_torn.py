"""A crash of the machine leaves the last commit that returned, or the one that was in progress.

`torn_disk` has the model of the disk, and says how the product's own code is recorded.
"""

from __future__ import annotations

import errno
import io
import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from iggyflux.errors import Stopped
from iggyflux.records import Message, Partition
from iggyflux.state import sqlite
from iggyflux.state.copies import check_state
from iggyflux.state.sqlite import SqliteState
from iggyflux.transports.local.log_batches import OpenBatch
from iggyflux.transports.local.log_store import LogStore
from tests.torn_disk import RecordedDisk

NAME = "łan 7"
PLACES = (Partition("lambda", "é", 0), Partition("lambda", "class", 3))


def state_in(root: Path) -> SqliteState:
    return SqliteState(root / "kept" / "łan.sqlite", "pass", NAME, "the test")


def change_state(state: SqliteState, disk: RecordedDisk, seed: int, commits: int, before: Any = None) -> None:
    """Commit records with blobs of all sizes, in steps of the disk."""
    draw = random.Random(seed)
    record, blobs = before or (None, {})
    for number in range(commits):
        dropped = [each for each in blobs if draw.random() < 0.5]
        added = {seed * 100 + number: draw.randbytes(draw.choice((0, 16, 5_000, 60_000)))}
        record = {"yield": number, "pad": "ü" * draw.choice((0, 9_000)), "of": seed}
        blobs = {key: data for key, data in blobs.items() if key not in dropped} | added
        with disk.step((record, blobs)):
            state.commit(record, added={key: io.BytesIO(data) for key, data in added.items()}, dropped=dropped)


def stored_state(root: Path) -> Any:
    with closing(state_in(root)) as state:
        record = state.read()
        if record is None:
            return None
        check_state(state.path)
        with closing(sqlite.connect(state.path)) as connection:
            numbers = [number for (number,) in connection.execute("SELECT number FROM seen ORDER BY 1")]
        return record, {number: b"".join(state.blob(number)) for number in numbers}


def commit_again(root: Path) -> None:
    with closing(state_in(root)) as state:
        state.take()
        state.commit("again")
    assert stored_state(root)[0] == "again"


def change_log(log: LogStore, disk: RecordedDisk, seed: int, appends: int) -> None:
    draw = random.Random(seed)
    payloads: dict[Partition, list[bytes]] = {}
    for number in range(appends):
        parts = {
            place: [Message(draw.randbytes(draw.choice((0, 30, 40_000)))) for _ in range(draw.randint(1, 3))]
            for place in PLACES[: draw.randint(1, 2)]
        }
        payloads = {
            place: [*payloads.get(place, []), *(each.payload for each in parts.get(place, []))]
            for place in PLACES
            if place in payloads or place in parts
        }
        with disk.step(payloads):
            log.append(parts, 1_000_000 + number)


def stored_log(root: Path) -> dict[Partition, list[bytes]] | None:
    with closing(LogStore(root)) as log:
        found = {}
        for place in log.partitions() if log.exists() else ():
            payloads: list[bytes] = []
            while (stored := log.batch_at(place, len(payloads))) is not None and stored.end > len(payloads):
                batch = OpenBatch(stored)
                assert stored.first == len(payloads) and not batch.damaged
                payloads += batch.payloads
            assert log.bounds(place) == (0, len(payloads))
            found[place] = payloads
        return found or None


def append_again(root: Path) -> None:
    before = stored_log(root) or {}
    with closing(LogStore(root)) as log:
        for place in PLACES:
            assert log.append({place: [Message(b"again")]}, 9_000_000) == {place: len(before.get(place, [])) + 1}


def failures(
    disk: RecordedDisk,
    scratch: Path,
    stored: Callable[[Path], Any],
    again: Callable[[Path], None],
    *,
    seed: int,
    draws: int,
    before: Any = None,
) -> tuple[int, list[str]]:
    """Return how many different disks were opened up to the first that holds another value, and what was wrong."""
    seen: set[int] = set()
    wrong = []
    for number, contents, possible in disk.crashes(seed, draws, before):
        if wrong:
            break
        identity = hash((number if len(possible) > 1 else id(possible), tuple(sorted(contents.items()))))
        if identity in seen:
            continue
        seen.add(identity)
        disk.put(contents, scratch)
        try:
            found = stored(scratch)
            if found not in possible:
                wrong.append(f"call {number} of {len(disk.calls)}: another value")
            elif len(seen) % 10 == 0:
                again(scratch)
        except Stopped as error:
            wrong.append(f"call {number} of {len(disk.calls)}: {error}")
        except AssertionError as error:
            wrong.append(f"call {number} of {len(disk.calls)}: {error!r}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return len(seen), wrong


def crash_state(
    tmp_path: Path, seed: int, *, commits: int = 2, draws: int = 3, **options: Any
) -> tuple[int, list[str]]:
    root = tmp_path / f"state{seed}"
    root.mkdir()
    disk = RecordedDisk(root, **options)
    with disk.recording(), closing(state_in(root)) as state:
        state.take()
        change_state(state, disk, seed, commits)
    return failures(disk, tmp_path / "after", stored_state, commit_again, seed=seed, draws=draws)


def crash_log(tmp_path: Path, seed: int, *, appends: int = 3, draws: int = 3, **options: Any) -> tuple[int, list[str]]:
    root = tmp_path / f"log{seed}"
    root.mkdir()
    disk = RecordedDisk(root, **options)
    with disk.recording(), closing(LogStore(root)) as log:
        change_log(log, disk, seed, appends)
    return failures(disk, tmp_path / "after", stored_log, append_again, seed=seed, draws=draws)


CRASHES = {"state": crash_state, "log": crash_log}


@pytest.mark.parametrize("what", CRASHES)
def test_a_crash_leaves_the_last_commit_or_the_one_in_progress(tmp_path: Path, what: str) -> None:
    disks, wrong = CRASHES[what](tmp_path, 1)

    assert wrong == []
    assert disks > 100


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 32))
@pytest.mark.parametrize("what", CRASHES)
def test_crashes_of_many_seeds(tmp_path: Path, what: str, seed: int) -> None:
    _, wrong = CRASHES[what](tmp_path, seed, draws=12)

    assert wrong == []


# --- planted faults: each is found ---


def pragma(old: str, new: str) -> Callable[[str], str]:
    return lambda statement: statement.replace(old, new)


REWRITTEN = {
    "nothing is synced": pragma("synchronous=EXTRA", "synchronous=OFF"),
    "a deleted journal is not synced": pragma("synchronous=EXTRA", "synchronous=FULL"),
    "the journal is in memory": pragma("journal_mode=DELETE", "journal_mode=MEMORY"),
    "there is no journal": pragma("journal_mode=DELETE", "journal_mode=OFF"),
}


@pytest.mark.parametrize("what", CRASHES)
@pytest.mark.parametrize("fault", REWRITTEN)
def test_a_weaker_setting_is_found(tmp_path: Path, what: str, fault: str) -> None:
    _, wrong = CRASHES[what](tmp_path, 1, draws=3, rewrite=REWRITTEN[fault])

    assert wrong


def test_an_append_in_several_transactions_is_found(tmp_path: Path) -> None:
    _, wrong = crash_log(
        tmp_path, 1, rewrite=lambda each: "SELECT 1" if each in ("BEGIN IMMEDIATE", "COMMIT") else each
    )

    assert wrong


def test_a_first_commit_without_a_sync_of_its_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "sync_folder", lambda folder: None)
    _, wrong = crash_state(tmp_path, 1)

    assert wrong


def test_blobs_that_are_written_after_the_record_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(state: Any, connection: Any, content: bytes, added: Any, dropped: Any, **more: Any) -> None:
        whole(state, connection, content, {}, dropped, **more)
        for number, file in added.items():
            sqlite._insert(connection, number, file)

    whole = SqliteState._write
    monkeypatch.setattr(SqliteState, "_write", write)
    _, wrong = crash_state(tmp_path, 1)

    assert wrong


# --- replacing a state after a crash within a commit ---


@contextmanager
def interrupted(root: Path) -> Iterator[Any]:
    """Leave a commit half written, with its journal, in the folder; give the value before it."""
    root.mkdir()
    disk = RecordedDisk(root)
    with disk.recording(), closing(state_in(root)) as state:
        state.take()
        change_state(state, disk, 3, 2)
        before = disk.calls[-1].value
        with disk.step("never"):
            state.commit("never", added={7: io.BytesIO(bytes(200_000))}, dropped=list(before[1]))
    for number, contents, possible in disk.crashes(3, 2):
        shutil.rmtree(root, ignore_errors=True)
        disk.put(contents, root)
        journal = root / "kept" / "łan.sqlite-journal"
        if possible[-1] == "never" and journal.exists() and number % 7 == 0 and needs(journal, root, before):
            break
    else:
        pytest.fail("no crash left a commit half written")
    yield before


def needs(journal: Path, root: Path, before: Any) -> bool:
    """Return whether the database in the folder has another value without its journal."""
    copy = root.with_name("without")
    shutil.copytree(root, copy)
    (copy / journal.relative_to(root)).unlink()
    try:
        return bool(stored_state(copy) != before)
    except Stopped:
        return True
    finally:
        shutil.rmtree(copy)


@pytest.mark.parametrize("record", [None, "raise"])
def test_a_crash_while_a_state_is_replaced_leaves_the_old_one_or_the_new(tmp_path: Path, record: str | None) -> None:
    with interrupted(tmp_path / "root") as before:
        disk = RecordedDisk(tmp_path / "root")
        with disk.recording(), closing(state_in(tmp_path / "root")) as state:
            state.take()
            with disk.step(None if record is None else (record, {})):
                state.replace(record)
        _, wrong = failures(disk, tmp_path / "after", stored_state, commit_again, seed=5, draws=8, before=before)

    assert wrong == []


# --- a disk that fails ---


def fail_each_call(
    root: Path, number: int, work: Callable[[RecordedDisk], None]
) -> Iterator[tuple[RecordedDisk, int, Stopped]]:
    """Do the work anew for each of its calls, which fails with the errno `number`."""
    for failing in itertools.count():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        disk = RecordedDisk(root)
        calls = itertools.count()
        disk.fail = lambda call, calls=calls, failing=failing: number if next(calls) == failing else None
        with disk.recording():
            try:
                work(disk)
            except Stopped as error:
                stopped = error
            else:
                if next(calls) <= failing:
                    return
                continue  # SQLite needs no success of this call
        yield disk, failing, stopped


def possible_at_the_end(disk: RecordedDisk) -> list[Any]:
    possible: list[Any] = [None]
    for call in disk.calls:
        if call.kind in ("begin", "end"):
            possible = [*possible, call.value] if call.kind == "begin" else [call.value]
    return possible


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("what", CRASHES)
def test_a_call_that_fails_stops_and_keeps_what_was_stored(tmp_path: Path, what: str, number: int) -> None:
    root = tmp_path / "root"

    def work(disk: RecordedDisk) -> None:
        if what == "log":
            with closing(LogStore(root)) as log:
                change_log(log, disk, 1, 2)
        else:
            with closing(state_in(root)) as state:
                state.take()
                change_state(state, disk, 1, 2)

    failed = 0
    for disk, failing, stopped in fail_each_call(root, number, work):
        assert stopped.code == ("IFX704" if what == "log" else "IFX701"), failing
        stored, again = (stored_log, append_again) if what == "log" else (stored_state, commit_again)
        assert stored(root) in possible_at_the_end(disk), failing
        again(root)
        failed += 1
    assert failed > 20


@pytest.mark.parametrize("what", CRASHES)
def test_a_read_only_file_stops_and_keeps_what_was_stored(tmp_path: Path, what: str) -> None:
    disk = RecordedDisk(tmp_path)
    with disk.recording():
        for read_only in (False, True):
            disk.read_only = read_only
            if what == "log":
                with closing(LogStore(tmp_path)) as log:
                    if read_only:
                        with pytest.raises(Stopped) as found:
                            log.append({PLACES[0]: [Message(b"del")]}, 5)
                    else:
                        change_log(log, disk, 1, 2)
            else:
                with closing(state_in(tmp_path)) as state:
                    state.take()
                    if read_only:
                        with pytest.raises(Stopped) as found:
                            state.commit("del")
                    else:
                        change_state(state, disk, 1, 2)

    assert found.value.code == ("IFX704" if what == "log" else "IFX701")
    stored = stored_log if what == "log" else stored_state
    assert possible_at_the_end(disk) == [stored(tmp_path)]
