"""The folders in which a run writes: `check` tries each of them, and only the owner can read what is kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

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
