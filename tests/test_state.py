"""State on disk: a commit is complete or absent, faults stop with a hint, and format 1 is rejected.

test_state_contract.py has what every state promises.
"""

from __future__ import annotations

import io
import os
import random
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from iggyflux.cursors import cursor_state
from iggyflux.errors import Stopped
from iggyflux.state import sqlite
from iggyflux.state.locks import Lock
from iggyflux.state.sqlite import FAULTS, SqliteState, connect, translate_errors
from iggyflux.state.store import FORMAT
from iggyflux.transports.local.files import file_state
from iggyflux.transports.local.log import Consumption, Log, consumer_state

DIGESTS = [bytes([number]) * 16 for number in range(200)]


def state_in(folder: Path, name: str = "größe.v2 'x'", **more: Any) -> SqliteState:
    return SqliteState(folder / "kept" / f"{name}.sqlite", "test", name, "the test", **more)


def stored(folder: Path, record: object = "first") -> SqliteState:
    """A locked state, with a record and a blob."""
    state = state_in(folder)
    state.take()
    state.commit(record, added={1: io.BytesIO(b"".join(DIGESTS))})
    return state


def stopped(work: Callable[[], object]) -> Stopped:
    with pytest.raises(Stopped) as found:
        work()
    return found.value


def test_files_are_private_and_only_a_commit_makes_them(tmp_path: Path) -> None:
    with closing(stored(tmp_path)) as state:
        modes = {path.name: path.stat().st_mode & 0o777 for path in state.path.parent.iterdir()}

        assert modes == {state.path.name: 0o600, state.path.with_suffix(".lock").name: 0o600}
        assert state.path.parent.stat().st_mode & 0o777 == 0o700


# --- crashes ---

WRITE_FOR_EVER = """
import io, sys
from pathlib import Path
from iggyflux.state.sqlite import SqliteState
state = SqliteState(Path(sys.argv[1]), "test", "x", "it")
state.take()
last = (state.read() or {"number": 0})["number"]
for number in range(last + 1, 10**9):
    size = number * 7919 % 40_000
    state.commit(
        {"number": number, "padding": "x" * (number % 5000), "size": size},
        added={number: io.BytesIO(bytes([number % 256]) * size)},
        dropped=[number - 1],
    )
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_the_last_confirmed_commit_or_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    chance = random.Random(5)
    confirmed = 0
    for _ in range(8):
        command = [sys.executable, "-c", WRITE_FOR_EVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            for _ in range(chance.randrange(1, 25)):
                confirmed = int(writer.stdout.readline())
            writer.kill()
            rest = writer.stdout.read()
        confirmed = max([confirmed, *map(int, rest.split(b"\n")[:-1])])
        with closing(SqliteState(path, "test", "x", "it")) as state:
            record = state.read()
            number = record["number"]

            assert confirmed <= number <= confirmed + 1
            assert record["padding"] == "x" * (number % 5000)
            assert b"".join(state.blob(number)) == bytes([number % 256]) * record["size"]


def test_a_first_commit_that_was_cut_off_is_as_if_it_never_was(tmp_path: Path) -> None:
    with closing(state_in(tmp_path)) as state:
        state.take()
        left_over = state.path.with_name(f"{state.path.name}.new")
        left_over.write_bytes(b"half of a datab")
        left_over.with_name(f"{left_over.name}-journal").write_bytes(b"x")
        state.path.with_name(f"{state.path.name}-journal").write_bytes(b"x")
        assert state.read() is None
        state.commit(1)

        assert state.read() == 1
        assert not left_over.exists()


# --- damage ---


def test_every_damaged_byte_stops_or_changes_nothing(tmp_path: Path) -> None:
    """Bytes that SQLite does not use may change; what is read is what was committed."""
    state = stored(tmp_path, {"a": [1, 2, 3], "name": "x" * 50})
    record = state.read()
    state.close()
    whole = state.path.read_bytes()
    chance = random.Random(2)
    used = [at for at, byte in enumerate(whole) if byte]
    noticed = 0
    tried = {*range(100), *chance.sample(used, 1000), *chance.sample(range(len(whole)), 200)}
    for at in tried:
        data = bytearray(whole)
        data[at] ^= 1 << chance.randrange(8)
        state.path.write_bytes(data)
        again = state_in(tmp_path, busy_seconds=0.0)
        error = None
        try:
            found = (again.read(), b"".join(again.blob(1)))
        except Stopped as raised:
            error = raised
        again.close()
        if error is None:
            assert found == (record, b"".join(DIGESTS)), at
        else:
            noticed += 1
            assert error.code in ("IFX701", "IFX641"), error
            assert str(state.path) in error.reason
            assert error.hint
        for more in ("-wal", "-shm", "-journal"):
            state.path.with_name(state.path.name + more).unlink(missing_ok=True)
    assert noticed > len(tried) // 2


@pytest.mark.parametrize("cut", [0, 1, 20, 100, 4096, 5000])
def test_a_cut_database_stops(tmp_path: Path, cut: int) -> None:
    state = stored(tmp_path)
    state.close()
    state.path.write_bytes(state.path.read_bytes()[:cut])

    again = state_in(tmp_path)
    error = stopped(lambda: (again.read(), list(again.blob(1))))
    assert (error.code, str(state.path) in error.reason) == ("IFX701", True)
    again.take()
    assert stopped(lambda: again.commit("new")).code == "IFX701"
    again.replace("new")
    assert again.read() == "new"
    again.commit("newer")
    assert again.read() == "newer"
    again.close()


def test_a_state_of_another_owner_or_program_stops(tmp_path: Path) -> None:
    state = stored(tmp_path)
    state.close()
    other = SqliteState(state.path, "cursor", "y", "it")

    assert "it is of test" in stopped(other.read).reason
    other.close()
    state.path.unlink()
    with closing(sqlite3.connect(state.path)) as connection:
        connection.execute("CREATE TABLE record (content)")
    assert "not a state file of iggyflux" in stopped(state_in(tmp_path).read).reason


# --- other formats ---


def checkpoint(kind: str, content: bytes) -> bytes:
    """A file of format 1, byte for byte as the previous release wrote it."""
    head = b'{"iggyflux":"%s","version":1,"crc32":%d,"content":%s}\n'
    return head % (kind.encode(), zlib.crc32(content), content)


PREVIOUS: dict[str, tuple[Callable[[Path], SqliteState], str, bytes]] = {
    "log": (
        lambda folder: consumer_state(folder, "ünï/v1.2"),
        ".consumers/%C3%BCn%C3%AF%2Fv1.2.json",
        checkpoint("log-positions", b'[{"offset":4,"partition":0,"stream":"s","topic":"t"}]'),
    ),
    "file": (
        lambda folder: file_state(folder, "v1.2"),
        "v1.2.json",
        checkpoint("file-position", b'{"file":"a","fingerprint":1,"line":7,"position":90,"sample":90}'),
    ),
    "reader": (
        lambda folder: cursor_state(folder, "v1.2"),
        "v1.2.cursor.json",
        checkpoint(
            "cursor",
            b'{"checked":3,"done":5,"gap":null,"query":{},"reader":"v1.2","width":16,'
            b'"slices":[{"count":1,"crc32":1,"file":"00000001","is_cut":false,"start":3,"stop":5}]}',
        ),
    ),
}


@pytest.mark.parametrize("which", PREVIOUS)
def test_state_of_the_previous_release_is_rejected_never_read_as_empty(tmp_path: Path, which: str) -> None:
    make, name, data = PREVIOUS[which]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    state = make(tmp_path)
    state.take()

    for use in (state.read, lambda: state.commit([])):
        error = stopped(use)
        assert error.code == "IFX701"
        assert f"in {path}: they have format 1; this release reads format {FORMAT}" in error.reason
        assert ("cursor set" if which == "reader" else "move the file away") in (error.hint or "")
    assert path.read_bytes() == data
    path.rename(tmp_path / "away")
    assert state.read() is None
    state.commit([])
    (tmp_path / "away").rename(path)
    assert state.read() == [], "once there is a database, it counts"
    state.replace(None)
    assert (state.read(), path.exists()) == (None, False)
    state.close()


def test_consumers_of_a_log_in_the_previous_format_are_an_error(tmp_path: Path) -> None:
    log = Log.open(tmp_path, create=True)
    consumption = Consumption(tmp_path, "new")
    consumption.acquire()
    consumption.store([])
    consumption.release()
    assert set(log.consumers()) == {"new"}
    (tmp_path / ".consumers" / "old.json").write_bytes(checkpoint("log-positions", b"[]"))

    assert "format 1" in stopped(log.consumers).reason


# --- the table of faults ---


def test_busy(tmp_path: Path) -> None:
    """A program reads for longer than the timeout: the commit fails, and the next one succeeds."""
    stored(tmp_path).close()
    state = state_in(tmp_path, busy_seconds=0.1)
    state.take()
    with closing(sqlite3.connect(state.path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM record").fetchall()
        error = stopped(lambda: state.commit("second"))
        assert "another program keeps it locked" in error.reason
        other.execute("COMMIT")

    assert state.read() == "first"
    state.commit("second")
    assert state.read() == "second"
    state.close()


def test_a_reader_that_is_soon_done_is_waited_for(tmp_path: Path) -> None:
    import threading

    state = stored(tmp_path)
    with closing(sqlite3.connect(state.path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM record").fetchall()
        done = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        done.start()
        state.commit("second")
        done.join()

    assert state.read() == "second"
    state.close()


def test_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect_to_few_pages(path: Path, busy_seconds: float) -> sqlite3.Connection:
        connection = connect(path, busy_seconds)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    state = stored(tmp_path)
    state.close()
    state.take()
    monkeypatch.setattr(sqlite, "connect", connect_to_few_pages)
    error = stopped(lambda: state.commit("second", added={2: io.BytesIO(b"x" * 100_000)}))

    assert "the disk is full" in error.reason
    assert "free space" in (error.hint or "")
    assert state.read() == "first"
    assert stopped(lambda: list(state.blob(2))).code == "IFX641"
    state.close()


IOERR = """
import io, resource, sys
from pathlib import Path
from iggyflux.cursors import cursor_state
from iggyflux.errors import Stopped
from iggyflux.state.sqlite import SqliteState
state = SqliteState(Path(sys.argv[1]), "test", "x", "it")
state.take()
state.commit("first")
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    state.commit("second", added={1: io.BytesIO(b"x" * 100_000)})
except Stopped as error:
    print(error.code, error.reason)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
print(state.read())
state.commit("third")
print(state.read())
"""


def test_ioerr(tmp_path: Path) -> None:
    """A write that the system rejects (here: a limit of the size of files)."""
    command = [sys.executable, "-c", IOERR, str(tmp_path / "x.sqlite")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert lines[0].startswith("IFX701 cannot store the positions in")
    assert "the disk failed" in lines[0]
    assert lines[1:] == ["first", "third"]


@pytest.mark.parametrize("how", ["remove", "replace"])
def test_readonly_where_the_file_was_removed_or_replaced_under_a_run(tmp_path: Path, how: str) -> None:
    """The file at the path is not what was committed, and must not be taken for it."""
    state = stored(tmp_path)
    assert state.read() == "first"
    copy = state.path.read_bytes()
    state.path.unlink()
    if how == "replace":
        state.path.write_bytes(copy)
    error = stopped(lambda: state.commit("second"))

    assert (error.code, "removed or replaced" in error.reason) == ("IFX701", True)
    assert state.read() == (None if how == "remove" else "first")
    state.close()


def test_cantopen(tmp_path: Path) -> None:
    state = state_in(tmp_path)
    state.path.mkdir(parents=True)

    assert "it cannot be opened" in stopped(state.read).reason


def test_corrupt(tmp_path: Path) -> None:
    state = stored(tmp_path)
    state.close()
    data = bytearray(state.path.read_bytes())
    data[4096:4104] = b"\xff" * 8
    state.path.write_bytes(data)

    assert "it is damaged" in stopped(state_in(tmp_path).read).reason


def test_notadb(tmp_path: Path) -> None:
    state = state_in(tmp_path)
    state.path.parent.mkdir()
    state.path.write_bytes(b"no database at all\n" * 100)

    assert "it is not a database" in stopped(state.read).reason


@pytest.mark.parametrize("code", FAULTS)
def test_every_row_of_the_table_stops_with_place_reason_and_help(code: int) -> None:
    """Extended codes too; and a programming error is not reported as a fault of the disk."""
    for extended in (code, code | (3 << 8)):
        raised = sqlite3.OperationalError("words")
        raised.sqlite_errorcode, raised.sqlite_errorname = extended, "SQLITE_X"
        with pytest.raises(Stopped) as error, translate_errors(Path("some/where"), "store"):
            raise raised

        assert error.value.code == "IFX701"
        assert error.value.reason.startswith(f"cannot store the positions in some/where: {FAULTS[code][0]} (words, ")
        assert error.value.hint
    with pytest.raises(sqlite3.ProgrammingError), translate_errors(Path(), "store"):
        raise sqlite3.ProgrammingError("a mistake")


def test_a_folder_that_cannot_be_made_stops(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")

    assert stopped(state_in(tmp_path).take).code == "IFX701"
    assert state_in(tmp_path).read() is None


# --- owners ---


def test_a_lock_is_free_again_when_its_owner_lets_go_or_dies(tmp_path: Path) -> None:
    path = tmp_path / "c.lock"
    code = f"""
import sys
from pathlib import Path
from iggyflux.state.locks import Lock
lock = Lock(Path({str(path)!r}), "it")
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"held\n"
        error = stopped(lambda: Lock(path, "it"))
        assert error.code == "IFX702"
        assert f"it is in use by process {owner.pid}" in error.reason
        owner.kill()
        owner.wait()
    lock = Lock(path, "it")
    with pytest.raises(Stopped, match=f"in use by process {os.getpid()}"):
        Lock(path, "it")
    lock.release()
    lock.release()
    Lock(path, "it").release()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_lock_that_was_removed_lets_one_process_commit_and_not_two(tmp_path: Path, how: str) -> None:
    first, second = state_in(tmp_path), state_in(tmp_path)
    first.take()
    first.commit("by the first")
    lock = first.path.with_suffix(".lock")
    lock.unlink()
    if how == "replaced":
        lock.write_text("1\n")
    second.take()
    second.commit("by the second")

    refused = stopped(lambda: first.commit("late"))

    assert refused.code == "IFX702"
    assert second.read() == "by the second"
    first.close()
    second.commit("again")
    assert second.read() == "again"
    second.close()


def test_a_process_without_the_lock_reads_while_another_commits(tmp_path: Path) -> None:
    with closing(stored(tmp_path)) as state, closing(state_in(tmp_path)) as reader:
        for number in range(50):
            state.commit(number)
            assert reader.read() == number
        assert stopped(reader.take).code == "IFX702"
