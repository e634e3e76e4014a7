"""`iggyflux state`: shows, checks and copies what is on disk, and a copy is what a rollback goes on from."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import ItemsView
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from iggyflux.cli import command_line
from iggyflux.cursors import CursorStore, StoredCursor, cursor_state
from iggyflux.delivery.windows import ReadPosition as Times
from iggyflux.errors import Stopped
from iggyflux.records import Message, Partition, Position
from iggyflux.state.copies import copy_databases
from iggyflux.state.sqlite import SqliteState
from iggyflux.transports.local.files import file_state
from iggyflux.transports.local.log import Consumption, Log
from iggyflux.transports.local.log_store import LogStore

HOUR = 3_600_000_000_000
PLACE = Partition("werk-7", "größe", 0)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command_line, ["state", *map(str, arguments)])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A state folder and a log with positions of each kind."""
    with closing(Log.open(tmp_path / "log", create=True)) as log:
        log.append(PLACE.stream, PLACE.topic, [Message(payload=b"{}") for _ in range(5)])
    consumption = Consumption(tmp_path / "log", "class")
    consumption.acquire()
    consumption.store([Position(PLACE, 3)])
    consumption.release()
    file = file_state(tmp_path / "state", "lambda")
    file.take()
    file.commit({"file": "x.ndjson", "position": 120, "line": 7, "sample": 0, "fingerprint": 0})
    file.close()
    store = CursorStore(cursor_state(tmp_path / "state", "räder"), "räder", {"measurement": "m"})
    store.take()
    store.replace(StoredCursor({"measurement": "m"}, Times(HOUR, 2 * HOUR, (0, HOUR))))
    store.close()
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_show_prints_what_each_file_holds(kept: Path) -> None:
    text = run("show", kept).stdout

    assert "werk-7/größe/0: offsets 0 to 4" in text
    assert "consumer class of a log" in text
    assert "werk-7/größe/0: settled to offset 3" in text
    assert "consumer lambda of x.ndjson" in text
    assert "settled to line 7, byte 120" in text
    assert "read to 1970-01-01T02:00:00Z, final to 1970-01-01T01:00:00Z" in text
    assert "backfill 1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z is not read yet" in text


def test_show_as_json_has_the_records(kept: Path) -> None:
    found = json.loads(run("show", kept / "state", kept / "log", "--format", "json").stdout)

    assert [(each["kind"], each.get("name")) for each in found] == [
        ("file-position", "lambda"),
        ("cursor", "räder"),
        ("log-positions", "class"),
        ("log", None),
    ]
    assert found[0]["record"]["position"] == 120
    assert found[3]["partitions"] == [{"stream": "werk-7", "topic": "größe", "partition": 0, "first": 0, "end": 5}]


def test_check_finds_everything_sound_and_changes_nothing(kept: Path) -> None:
    before = files(kept)

    result = run("check", kept)

    assert result.exit_code == 0
    assert result.stdout.count(": ok") == 4
    assert files(kept) == before


def test_show_shows_the_others_beside_damaged_ones(kept: Path) -> None:
    """Each damaged file is an error of its own, whatever the format."""
    for name in ("log/log.sqlite3", "state/lambda.sqlite"):
        (kept / name).write_bytes(b"\xff" * 5000)
    text, tree = run("show", kept), run("show", kept, "--format", "json")

    assert (text.exit_code, tree.exit_code) == (3, 3)
    for name in ("log/log.sqlite3", "state/lambda.sqlite"):
        assert f"{kept / name}" in text.stderr
    assert "reader räder" in text.stdout
    assert {each["kind"] for each in json.loads(tree.stdout)} == {"log-positions", "cursor"}


def test_a_backup_of_a_damaged_file_is_none_at_all(kept: Path, tmp_path: Path) -> None:
    (kept / "state" / "räder.cursor.sqlite").write_bytes(b"\xff" * 5000)

    assert run("backup", kept / "state", tmp_path / "copies" / "1").exit_code == 3
    assert list((tmp_path / "copies").iterdir()) == []


KILLS = """
import itertools, json, os, pathlib, sys
from iggyflux.errors import Stopped
from iggyflux.state.copies import check_state, copy_databases, find_files

live, target = map(pathlib.Path, sys.argv[1:])
names = {path: pathlib.Path(path.stem[0], path.name) for path in live.glob("*.sqlite")}
is_there = target.exists()


def copy(kill_at):
    left = kill_at

    def count(event, arguments):
        nonlocal left
        if event.startswith(("os.", "sqlite3.connect", "shutil.", "fcntl.")) or ".unfinished" in str(arguments):
            left -= 1
            if left == 0:
                os._exit(9)

    sys.addaudithook(count)
    copy_databases(names, target)
    os._exit(0)


found = []
code = 9
for kill_at in itertools.count(1):
    child = os.fork()
    if child == 0:
        copy(kill_at)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    errors = []
    there = find_files(target, errors.append) if target.exists() else []
    found.append((code, [check_state(path).name for path in there], [str(error) for error in errors]))
    if there:
        target.rename(target.with_name(f"kept-{kill_at}"))
        if is_there:
            target.mkdir()
    if code != 9:
        break
print(json.dumps([found, sorted(str(path) for path in target.parent.rglob(".*"))]))
"""


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "empty"])
def test_a_backup_that_is_killed_at_any_step_is_whole_or_known_to_be_unfinished(
    kept: Path, tmp_path: Path, is_there: bool
) -> None:
    """The next one to the same folder replaces what a killed one left."""
    target = tmp_path / "copies" / "1"
    (target if is_there else target.parent).mkdir(parents=True)
    arguments = [sys.executable, "-c", KILLS, kept / "state", target]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    (*killed, last), left = json.loads(done.stdout)

    whole = ["lambda", "räder"]
    assert len(killed) > 10
    assert last == [0, whole, []]
    assert all(code == 9 and names in ([], whole) for code, names, _ in killed)
    assert all("unfinished" in error for _, _, errors in killed for error in errors)
    assert any(errors for *_, errors in killed)
    assert left == []


def test_an_unfinished_backup_is_not_taken_for_a_state(kept: Path) -> None:
    (kept / "state" / ".unfinished").touch()

    for command in ("show", "check", "backup"):
        done = run(command, kept / "state", *[kept / "copy"] * (command == "backup"))
        assert done.exit_code == (1 if command == "check" else 3)
        assert "unfinished backup" in done.stderr
        assert "räder" not in done.stdout
    assert run("backup", kept / "log", kept / "state").exit_code == 2  # it did not make these files
    assert len(list((kept / "state").glob("*.sqlite"))) == 2


def test_a_folder_that_is_there_is_filled_and_not_replaced(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be the current folder or a mount point, where `lost+found` is."""
    target = tmp_path / "ready"
    (target / "lost+found").mkdir(parents=True)
    target.chmod(0o750)
    before = target.stat()
    monkeypatch.chdir(target)

    assert run("backup", kept / "state", ".").exit_code == 0
    assert (target.stat().st_ino, target.stat().st_mode) == (before.st_ino, before.st_mode)
    assert sorted(path.name for path in target.iterdir()) == sorted(["lost+found", *files(kept / "state")])
    assert run("check", ".").exit_code == 0


def test_a_folder_with_any_name_is_copied(kept: Path, tmp_path: Path) -> None:
    for name in ("jobs.unfinished", ".jobs.unfinished", "lost+found"):
        shutil.copytree(kept / "log", kept / "state" / name)

    assert run("backup", kept / "state", tmp_path / "copy").exit_code == 0
    assert set(files(tmp_path / "copy")) == set(files(kept / "state"))


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "empty"])
def test_backups_at_once_to_one_folder_do_not_disturb_each_other(kept: Path, tmp_path: Path, is_there: bool) -> None:
    target = tmp_path / "copies"
    if is_there:
        target.mkdir()
    second: list[Stopped] = []

    class Names(dict[Path, Path]):
        """Begins another backup within the first."""

        def items(self) -> ItemsView[Path, Path]:
            with pytest.raises(Stopped) as refused:
                copy_databases(dict(self), target)
            second.append(refused.value)
            return super().items()

    copy_databases(Names({path: Path(path.name) for path in (kept / "state").glob("*.sqlite")}), target)

    assert ["another backup" in str(error) for error in second] == [True]
    assert set(files(target)) == set(files(kept / "state"))


@pytest.mark.parametrize("which", ["log/log.sqlite3", "state/räder.cursor.sqlite", "state/lambda.sqlite"])
def test_check_finds_damage_and_still_looks_at_the_others(kept: Path, which: str) -> None:
    path = kept / which
    data = bytearray(path.read_bytes())
    marker = b"{}" if which.startswith("log/") else b"checked" if "cursor" in which else b"fingerprint"
    place = data.rindex(marker)
    data[place] ^= 0x08
    path.write_bytes(data)

    result = run("check", kept)

    assert result.exit_code == 1
    assert result.stdout.count(": ok") == 3
    assert str(path) in result.stderr


def test_a_copy_is_whole_private_and_never_replaces(kept: Path, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "first"

    assert run("backup", kept / "state", target).exit_code == 0

    assert run("check", target).exit_code == 0
    assert set(files(target)) == set(files(kept / "state"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*") if path.is_file()} == {0o600}
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    before = files(target)
    assert run("backup", kept / "state", target).exit_code == 2
    assert files(target) == before


def test_a_copy_never_replaces_a_file_that_came_meanwhile(kept: Path, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    (target / "x.sqlite").write_bytes(b"of another program")

    with pytest.raises(Stopped) as refused:
        copy_databases({kept / "state" / "lambda.sqlite": Path("lambda.sqlite")}, target)

    assert refused.value.code == "IFX709"
    assert files(target) == {"x.sqlite": b"of another program"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "state", "there"]


def test_a_copy_of_a_live_log_is_one_moment_of_it(tmp_path: Path) -> None:
    """Every commit appends to two topics: in each copy both have as many messages."""
    ended = threading.Event()

    def append() -> None:
        Log.open(tmp_path / "live", create=True).close()
        with closing(LogStore(tmp_path / "live")) as store:
            for number in range(400):
                batch = [Message(payload=b"x" * 3_000) for _ in range(3)]
                store.append({Partition("a", "b", 0): batch, Partition("a", "c", 0): batch}, number)
                if ended.is_set():
                    return

    with closing(Log.open(tmp_path / "live", create=True)) as log:
        log.append("a", "b", [])
    appending = threading.Thread(target=append)
    appending.start()
    try:
        for number in range(5):
            copy = tmp_path / f"copy-{number}"
            assert run("backup", tmp_path / "live", copy).exit_code == 0
            with closing(Log.open(copy)) as log:
                ends = {str(place): log.end(place) for place in log.partitions("a")}
            assert len(set(ends.values())) <= 1
            assert run("check", copy).exit_code == 0
    finally:
        ended.set()
        appending.join()


def test_an_upgrade_is_refused_until_the_copy_is_put_back(kept: Path, tmp_path: Path) -> None:
    """Release N+1 changed the format: N refuses its files, changes no byte of them, and goes on from the copy."""
    copy = tmp_path / "before"
    assert run("backup", kept / "state", copy).exit_code == 0
    for path in (kept / "state").glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as later:
            later.execute("PRAGMA user_version = 3")
            later.execute("CREATE TABLE more (x)")
    after_upgrade = files(kept / "state")

    result = run("check", kept / "state")
    shown = run("show", kept / "state")
    state = file_state(kept / "state", "lambda")

    with pytest.raises(Stopped) as refused:
        state.read()
    state.close()

    assert (result.exit_code, shown.exit_code) == (1, 3)
    assert "format 3; this release reads format 2" in refused.value.reason
    assert "restore the backup" in (refused.value.hint or "")
    assert files(kept / "state") == after_upgrade
    for name in files(copy):
        (copy / name).replace(kept / "state" / name)
    assert run("check", kept / "state").exit_code == 0
    assert file_state(kept / "state", "lambda").read()["position"] == 120


def test_a_place_without_state_is_said_so(tmp_path: Path) -> None:
    result = run("show", tmp_path)

    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing is stored" in result.stderr


def test_a_state_that_is_written_meanwhile_can_be_shown(kept: Path) -> None:
    writer: SqliteState = file_state(kept / "state", "lambda")
    writer.take()
    writer.commit({"file": "y", "position": 1, "line": 1, "sample": 0, "fingerprint": 0})

    assert "consumer lambda of y" in run("show", kept / "state").stdout
    writer.close()


FORMAT_1 = {
    "state/räder.v1.cursor.json": b'{"iggyflux":"cursor","version":1,"crc32":1,"content":{}}\n',
    "log/.consumers/class.json": b'{"iggyflux":"log-positions","version":1,"crc32":1,"content":[]}\n',
    "log/werk-7/import/0/00000000000000000000.log": b"segments",
}


@pytest.mark.parametrize("name", FORMAT_1)
def test_what_a_release_with_other_files_stored_is_never_taken_for_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "old" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(FORMAT_1[name])

    shown, checked = run("show", tmp_path / "old"), run("check", tmp_path / "old")
    copied = run("backup", tmp_path / "old", tmp_path / "copy")

    assert (shown.exit_code, checked.exit_code, copied.exit_code) == (3, 1, 3)
    for each in (shown, checked, copied):
        assert "format" in each.stderr
        assert "nothing is stored" not in each.stderr
        assert str(path.parents[3] if path.suffix == ".log" else path) in each.stderr
    assert path.read_bytes() == FORMAT_1[name]
