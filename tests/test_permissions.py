"""A path that permissions close, and a pipe without a writer, is an error with its place, in every command.

Commands run without the rights of the superuser, in a folder of their own.
"""

from __future__ import annotations

import codecs
import importlib
import json
import os
import pkgutil
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
from shell import iggyflux
from test_broken_paths import COMMANDS, KEYS, MAPPING, is_clear

import iggyflux as package
from iggyflux.documents import open_source, read_source

NOBODY = 65534


@contextmanager
def without_rights() -> Iterator[None]:
    """Take the rights of the superuser from this process."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Import every module: without rights their files may be closed too."""
    codecs.lookup("utf-8-sig")
    for module in pkgutil.walk_packages(package.__path__, "iggyflux."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a mapping, samples, a log, and things that may not be read, written, listed or searched."""
    place = Path(tempfile.mkdtemp())  # that of pytest cannot be searched by others
    monkeypatch.chdir(place)
    for function in (read_source, open_source):
        monkeypatch.setitem(function.__kwdefaults__, "pipe_seconds", 0.05)
    try:
        if os.geteuid() == 0:
            os.chown(place, NOBODY, NOBODY)
        with without_rights():
            make(place)
            yield place
    finally:
        for path in [place, *place.iterdir()]:
            path.chmod(0o700)
        shutil.rmtree(place)


def make(place: Path) -> None:
    (place / "m.yaml").write_text(MAPPING)
    (place / "samples").write_text('{"v": 1, "ts": 1}\n')
    (place / "p.yaml").write_text(f"iggyflux: 1\n{KEYS['from a log'].format('data')}\n")
    iggyflux("log", "append", "data", "s/t", "samples")
    iggyflux("run", "p.yaml", "--until-end")
    for name, mode in {"unsearchable": 0, "unlisted": 0o300, "unwritable": 0o500}.items():
        shutil.copytree("data", name)
        for file in ("m.yaml", "samples"):
            shutil.copy(file, name)
        Path(name).chmod(mode)
    for name, mode in {"unreadable.yaml": 0, "read-only.yaml": 0o400}.items():
        shutil.copy("m.yaml", name)
        Path(name).chmod(mode)
    for file in Path(shutil.copytree("data", "closed")).rglob("*"):
        if file.is_file():
            file.chmod(0)
    os.mkfifo("pipe")


PATHS = {
    "an unreadable file": "unreadable.yaml",
    "a file that cannot be written": "read-only.yaml",
    "a file in a folder that cannot be searched": "unsearchable/m.yaml",
    "a missing file in a folder that cannot be searched": "unsearchable/none",
    "a folder that cannot be searched": "unsearchable",
    "a folder that cannot be listed": "unlisted",
    "a new file in a folder that cannot be written": "unwritable/new",
    "a folder that cannot be written": "unwritable",
    "a folder of unreadable files": "closed",
    "a pipe without a writer": "pipe",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_no_command_takes_a_closed_path_for_a_fault_of_its_own(path: str, folder: Path) -> None:
    """Every command that takes a path, and each key of a pipeline that holds one."""
    pipelines = {key: f"iggyflux: 1\n{text.format(path)}\n" for key, text in KEYS.items()}
    wrong = {}
    for command in COMMANDS:
        outcome = iggyflux(*(arg.replace("{}", path) for arg in command))
        if not is_clear(outcome):
            wrong[" ".join(command)] = outcome.err[-200:]
    for (key, text), command in product(pipelines.items(), (["validate"], ["check"], ["run", "--until-end"])):
        Path("p.yaml").write_text(text)
        outcome = iggyflux(*command, "p.yaml")
        if not is_clear(outcome) or "IFX699" in outcome.err or outcome.err.startswith("error: "):
            wrong[f"{key}: {command[0]}"] = outcome.err[-200:]

    assert wrong == {}


@pytest.mark.parametrize("path", ["unsearchable", "unlisted", "pipe"])
@pytest.mark.parametrize(
    "command",
    [
        ("state", "show", "{}"),
        ("state", "check", "{}"),
        ("state", "backup", "{}", "copies"),
        ("replay", "{}", "--dry-run", "--mapping", "m.yaml"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_read_is_not_taken_for_empty(command: tuple[str, ...], path: str, folder: Path) -> None:
    outcome = iggyflux(*(arg.replace("{}", path) for arg in command))

    assert outcome.code in (1, 3)
    assert re.search(rf"error\[IFX7\d\d\]: cannot (use|read) .*{path}", outcome.err)
    assert not Path("copies").exists()


def test_a_closed_folder_does_not_hide_the_rest_of_a_state(folder: Path) -> None:
    """`lost+found` of a file system belongs to the superuser; it is not a part of the state."""
    shutil.copytree("data", "volume")
    for name, code in {"lost+found": 0, "jobs": 3}.items():
        Path("volume", name).mkdir(0)
        shown, copied = iggyflux("state", "show", "volume"), iggyflux("state", "backup", "volume", f"copy {name}")
        Path("volume", name).chmod(0o700)  # so that it can be removed

        assert (shown.code, copied.code) == (code, code)
        for outcome in (shown, copied):
            assert ("error[IFX701]: cannot use the positions in volume/jobs" in outcome.err) == bool(code)
            assert "lost+found" not in outcome.err
        assert "copied 2 files" in copied.err
        assert "log.sqlite3" in shown.out
        Path("volume", name).rmdir()


def test_a_backup_needs_no_rights_beside_a_folder_that_is_there(folder: Path) -> None:
    Path("volumes/ready").mkdir(parents=True)
    Path("volumes").chmod(0o500)
    outcome = iggyflux("state", "backup", "data", "volumes/ready")
    Path("volumes").chmod(0o700)

    assert (outcome.code, len(list(Path("volumes/ready").rglob("*.sqlite*")))) == (0, 2)


@pytest.mark.parametrize("command", ["validate", "test"])
@pytest.mark.parametrize("path", ["unsearchable", "unlisted", "unreadable.yaml"])
def test_a_closed_path_does_not_hide_other_files(command: str, path: str, folder: Path) -> None:
    """Named itself, and in a folder that is searched."""
    Path("broken.yaml").write_text(MAPPING.replace("[v]", "["))
    for paths in ([path, "broken.yaml"], ["."]):
        outcome = iggyflux(command, *paths)

        assert outcome.code == 1
        assert "broken.yaml" in outcome.out + outcome.err
        assert re.search(rf"{path}: error\[IFX\d+\]|{path}: .*Permission", outcome.out + outcome.err)


def test_a_glob_does_not_leave_out_what_is_closed(folder: Path) -> None:
    """Files of a folder that cannot be listed were not loaded, without a word; so was a link whose target is away."""
    Path("open").mkdir()
    shutil.copy("samples", "open")
    Path("open/away").symlink_to("nowhere")
    Path("open/lost+found").mkdir(0)

    told = {
        "*/samples": "cannot look into unsearchable: Permission denied",
        "**/samples": "cannot look into unsearchable: Permission denied",
        "**/*": "cannot look into unlisted: Permission denied",
        "un*d/*": "cannot look into unlisted: Permission denied",
        "unlisted/s*": "cannot look into unlisted: Permission denied",
        "unsea*": "no file matches 'unsea*'",
        "open/*": "cannot read open/away: No such file",
        "open/*/*": "cannot look into open/away: No such file",
        "open/a*/samples": "cannot look into open/away: No such file",
        "open/away/s*": "cannot look into open/away: No such file",
        "open/l*/*": "no file matches 'open/l*/*'",
        "open/s*": "",
        f"{folder}/op*/samples": "",
    }
    outcomes = {glob: iggyflux("load", "m.yaml", glob, "--dry-run") for glob in told}

    Path("open/lost+found").chmod(0o700)  # so that it can be removed
    for glob, words in told.items():
        assert (outcomes[glob].code, words in outcomes[glob].err) == (2 if words else 0, True), outcomes[glob].err


def test_other_files_are_shown_beside_a_closed_one(folder: Path) -> None:
    shutil.copytree("data", "mixed")
    shutil.copy("mixed/.consumers/m.sqlite", "mixed/.consumers/a.sqlite")
    Path("mixed/.consumers/a.sqlite").chmod(0)
    text, tree = iggyflux("state", "show", "mixed"), iggyflux("state", "show", "mixed", "--format", "json")

    assert (text.code, tree.code) == (3, 3)
    assert text.err.count("IFX701") == 1
    assert "mixed/.consumers/a.sqlite" in text.err
    assert [each["file"] for each in json.loads(tree.out)] == ["mixed/.consumers/m.sqlite", "mixed/log.sqlite3"]


def test_a_secret_in_a_pipe_without_a_writer_is_a_problem_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(read_source.__kwdefaults__, "pipe_seconds", 60.0)
    Path("p.yaml").write_text(f"iggyflux: 1\n{KEYS['token'].format('pipe')}\n")
    started = time.monotonic()
    outcomes = [iggyflux(*command, "p.yaml") for command in (["validate"], ["check"], ["run", "--until-end"])]

    assert time.monotonic() - started < 30
    assert [each.code for each in outcomes] == [0, 1, 1]
    assert all("cannot read the secret in pipe: " in each.out + each.err for each in outcomes)
