"""The folders in which a run writes: `check` tries each of them, and only the owner can read what is kept."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iggyflux.disk import replace_file
from iggyflux.sim import SimServer
from tests.shell import iggyflux

WRITER = "{iggyflux: 1, kind: writer, from: {stream: s, topic: t}, points: {measurement: {const: class}, fields: [v]}}"
READER = """
iggyflux: 1
kind: reader
from: {measurement: class}
cursor: {start: 2000-01-01T00:00:00Z, end: 2000-01-01T00:00:10Z}
to: {stream: s, topic: u}
"""
PLACES = {
    "dead letters": ("dead_letters: PLACE", "set `dead_letters`"),
    "positions": ("state: PLACE", "set `state`"),
    "the status file": ("", "choose another `--status-file`"),
    "output": ("to: file:PLACE/lambda", "directory PLACE not found"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("while.yaml").write_text(WRITER)
    Path("from.yaml").write_text(READER)
    Path("samples").write_text('{"v": 1}\n{"v": "x"}\n')
    umask = os.umask(0)
    yield
    os.umask(umask)


def pipeline(more: str = "", routes: str = "- {mapping: while.yaml, from: file:samples}") -> str:
    to = "" if "to:" in more else "to: file:out.lp\n"
    Path("p.yaml").write_text(f"iggyflux: 1\n{to}{more}\nrun:\n  {routes}\n")
    return "p.yaml"


@pytest.mark.parametrize(("what", "where"), [(key, None) for key in PLACES] + [(key, "a/b/c") for key in PLACES])
def test_check_reports_each_folder_in_which_a_run_cannot_write(what: str, where: str | None) -> None:
    """A file is in the place of the folder, or of one above it; this holds for root too."""
    line, words = PLACES[what]
    place = where or "place"
    Path(Path(place).parts[0]).write_text("")
    path = pipeline(line.replace("PLACE", place))
    status = f"{place}/s.json" if what == "the status file" else "s.json"
    before = sorted(Path().rglob("*"))
    outcome = iggyflux("check", path, "--local", "--status-file", status)

    assert outcome.code == 1, outcome.out
    assert "FAIL" in outcome.out
    if what != "output":
        assert words in outcome.out
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("what", PLACES)
def test_check_leaves_nothing_and_a_run_can_write_where_it_found_no_fault(what: str) -> None:
    line, _ = PLACES[what]
    Path("place").mkdir()
    path = pipeline(line.replace("PLACE", "place"))
    before = sorted(Path().rglob("*"))
    checked = iggyflux("check", path, "--status-file", "place/s.json")

    assert checked.code == 0, checked.out
    assert sorted(Path().rglob("*")) == before
    assert iggyflux("run", path, "--until-end", "--status-file", "place/s.json").code == 0


def test_what_is_kept_is_for_its_owner_whatever_the_umask() -> None:
    """Dead letters, positions and the status hold data of messages."""
    with SimServer(2, token="abc") as server:
        section = f'influxdb: {{url: "{server.url}", org: org, bucket: test, token: abc}}\n'
        reader = "\n  - {mapping: from.yaml, to: log:data}"
        routes = f"- {{mapping: while.yaml, from: file:samples, dead_letters: deep/letters}}{reader}"
        path = pipeline(f"{section}state: kept/state", routes)
        outcome = iggyflux("run", path, "--until-end", "--status-file", "status.json")

    assert outcome.code == 0, outcome.err
    kept = [each for name in ("deep", "kept", "status.json", "data") for each in (Path(name), *Path(name).rglob("*"))]
    modes = {str(each): stat.S_IMODE(each.stat().st_mode) for each in kept if each.exists()}
    assert modes == {name: 0o700 if Path(name).is_dir() else 0o600 for name in modes}
    assert len([name for name in modes if name.startswith(("deep/letters/", "kept/state/"))]) >= 3


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Let the system refuse to make a file longer; like that of a full disk, its error names no file."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def letters() -> Path:
    iggyflux("run", pipeline(), "--until-end", "--quiet")
    return Path("dead-letters/while")


EXPORT = ["dead-letters", "export", "dead-letters/while"]


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (["init", "x.yaml"], "x.yaml"),
        (["init", "y"], "y/mapping.yaml"),
        (["infer", "numbers", "--output", "x.yaml"], "x.yaml"),
        ([*EXPORT, "x.ndjson"], "x.ndjson"),
        ([*EXPORT, "z", "--as", "payloads"], "z/000001_"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_what_cannot_be_written_is_named_with_what_to_do(command: list[str], file: str) -> None:
    letters()
    Path("numbers").write_text('{"v": 1.5}\n{"v": 2.5}\n')
    with longest_file(0):
        outcome = iggyflux(*command)

    assert outcome.code == 3, outcome
    assert f"error: {file}" in outcome.err
    assert "File too large\n    hint: raise the limit of the size of a file" in outcome.err


@pytest.mark.parametrize(
    ("command", "exists", "remedy"),
    [
        (["init", "x.yaml"], "x.yaml", "choose another name, or replace it with --force"),
        (["infer", "numbers", "--output", "x.yaml"], "x.yaml", "choose another name, or replace it with --force"),
        ([*EXPORT, "x"], "x", "choose another name"),
        ([*EXPORT, "x", "--as", "letters"], "x", "choose another name"),
        ([*EXPORT, "x", "--as", "payloads"], "x", "choose another name"),
        ([*EXPORT, "z", "--as", "payloads"], "z/000001_", "choose another name"),
        ([*EXPORT, "x", "--as", "log"], "x", "choose another name"),
        ([*EXPORT, "none/x"], None, "directory none does not exist"),
        (["init", "none/x.yaml"], None, "directory none does not exist"),
        (["infer", "numbers", "-o", "none/x.yaml"], None, "directory none does not exist"),
    ],
)
def test_a_file_that_exists_is_kept_and_named_with_what_to_do(
    command: list[str], exists: str | None, remedy: str
) -> None:
    """In every command that writes a file, this is wrong usage."""
    letters()
    Path("numbers").write_text('{"v": 1.5}\n{"v": 2.5}\n')
    if exists == "z/000001_":
        assert iggyflux(*command).code == 0
        (exists,) = map(str, Path("z").iterdir())
    if exists is not None:
        Path(exists).write_text("mine")
    before = sorted(Path().rglob("*"))
    outcome = iggyflux(*command)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1] == f"Error: {f'{exists} already exists: ' if exists else ''}{remedy}"
    assert sorted(Path().rglob("*")) == before
    assert exists is None or Path(exists).read_text() == "mine"


def test_a_document_that_cannot_be_replaced_is_named() -> None:
    with longest_file(0), pytest.raises(OSError, match=r"'while\.yaml'"):
        replace_file(Path("while.yaml"), b"x")


@pytest.mark.parametrize("call", ["ftruncate", "pwrite", "open"])
def test_a_lock_that_a_full_disk_refuses_names_the_folder(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Space for the name of a file may be left where none is for what is in it."""
    real = getattr(os, call)

    def refuse(first: object, *more: object, **others: object) -> object:
        if call != "open" or str(first).endswith(".lock"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(first, *more, **others)

    path = pipeline("state: kept")
    with monkeypatch.context() as patched:
        patched.setattr(f"iggyflux.state.locks.os.{call}", refuse)
        outcome = iggyflux("run", path, "--until-end", "--quiet")

    assert outcome.code == 3, outcome.err
    assert "error[IFX701]: cannot keep positions in kept: No space left on device\n" in outcome.err
    assert "hint: free space on its disk, or set `state`" in outcome.err
    assert iggyflux("run", path, "--until-end", "--quiet").code == 0


def test_check_asks_for_space_where_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("iggyflux.cli.check.try_writing", refuse)
    outcome = iggyflux("check", pipeline("state: kept"), "--local")

    assert "free space on its disk, or set `state` to a folder" in outcome.out
    assert outcome.code == 1


def test_a_backup_that_cannot_be_written_names_its_folder() -> None:
    assert iggyflux("run", pipeline("state: kept"), "--until-end", "--quiet").code == 0
    with longest_file(4096):
        outcome = iggyflux("state", "backup", "kept", "copied")

    assert outcome.code == 3
    assert f"error[IFX701]: cannot write the positions in {Path('copied').absolute()}/" in outcome.err
    assert not Path("copied").exists()
