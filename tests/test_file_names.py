"""A name in a document never leaves its folder: files are named after consumers, routes and readers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.cursors.store import cursor_state
from iggyflux.disk import file_name
from iggyflux.state.sqlite import SqliteState
from iggyflux.transports.local.files import file_state
from iggyflux.transports.local.log import consumer_state

HOSTILE = [
    "../../evil", "/abs", "..", ".", "a/b", "a\\b", "~", "~root/x", "a\nb", "a\0b", "\x1b[2J", "n" * 400, "é" * 200,
    "-rf", "con:", "%2e%2e", " ", "a" * 90 + "/../" * 40, ".hidden", "x.sqlite", "*", "$HOME", "{0}", "\u202egnp",
]  # fmt: skip
MAPPING = {
    "iggyflux": 1, "kind": "writer", "from": {"stream": "s", "topic": "t"},
    "points": {"measurement": {"const": "m"}, "fields": ["v"], "timestamp": {"expr": "ts", "format": "unix_s"}},
}  # fmt: skip


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("name", HOSTILE, ids=[ascii(name)[:30] for name in HOSTILE])
def test_no_file_is_made_outside_the_folders_of_a_pipeline(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consumers of logs and files, routes, streams, topics, and dead letters: all with the hostile name."""
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    (home / "m.yaml").write_text(json.dumps(MAPPING | {"name": "m"}))
    hostile = MAPPING | {"name": name, "from": {"stream": name, "topic": name}}
    (home / "hostile.yaml").write_text(json.dumps(hostile))
    (home / "samples").write_text('{"v": 1, "ts": 1}\n{"v": "x", "ts": 1}\n')
    target = f"{name.replace('/', '')}/{name}"
    for topic in (target, "s/t"):
        iggyflux("log", "append", "data", topic, "samples")
    runs = 0
    for number, consumer in enumerate(({"group": name}, {"single": name})):
        for source, file in product(("log:data", "file:samples"), ("m.yaml", "hostile.yaml")):
            pipeline = {
                "iggyflux": 1, "from": source, "to": "file:out", "consumer": consumer, "state": f"state{number}",
                "dead_letters": "letters", "run": [{"mapping": file, "name": name}],
            }  # fmt: skip
            (home / "p.yaml").write_text(json.dumps(pipeline))
            for command in (["validate", "p.yaml"], ["check", "p.yaml"], ["run", "p.yaml", "--until-end"],
                            ["state", "show", "."], ["state", "backup", "state0", "copies"]):  # fmt: skip
                if command[0] != "state" or Path(command[2]).exists():
                    outcome = iggyflux(*command)
                    assert "a bug in iggyflux" not in outcome.err
                    assert "IFX699" not in outcome.err
                    runs += "route.done" in outcome.err
    allowed = ("a/b/c/data/", "a/b/c/state0/", "a/b/c/state1/", "a/b/c/letters/", "a/b/c/copies/")
    mine = {"a/b/c/hostile.yaml", "a/b/c/m.yaml", "a/b/c/p.yaml", "a/b/c/samples", "a/b/c/out"}

    assert runs >= 4
    assert [made for made in files(tmp_path) - mine if not made.startswith(allowed)] == []


STATES: dict[str, Callable[[Path, str], SqliteState]] = {
    "file": file_state, "reader": cursor_state, "log": consumer_state
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
@given(
    names=st.lists(
        st.text(min_size=1, max_size=300).filter(lambda text: text.isprintable()), min_size=2, unique=True, max_size=3
    )
)
@example(names=["../../evil", "..%2F..%2Fevil"])
@example(names=["n" * 300, "n" * 301])
@settings(max_examples=50, deadline=None)
def test_a_state_is_in_its_folder_and_its_own(kind: str, names: list[str]) -> None:
    """Different names have different files, and the record says whose it is."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "x" / "state"
        for number, name in enumerate(names):
            state = STATES[kind](folder, name)
            state.take()
            state.commit({"position": number})
            state.close()
        for number, name in enumerate(names):
            state = STATES[kind](folder, name)

            assert state.read() == {"position": number}
            state.close()
        assert [made for made in files(Path(place)) if not made.startswith("x/state/")] == []


@given(st.text(min_size=1))
@example("factory-env v1.2_ü:a@b")
def test_an_ordinary_name_is_the_name_of_its_file(name: str) -> None:
    """What is usual stays readable, and the files of earlier versions are found."""
    made = file_name(name)

    assert "/" not in made
    assert made not in (".", "..", "")
    assert len(os.fsencode(made.encode("utf-8", "replace").decode())) <= 200
    if name.replace("-", "").isalnum() and len(name) < 60:
        assert made == name
