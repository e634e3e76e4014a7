"""A path that cannot be used is an error with its place, in every command; other files are still checked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from shell import Outcome, iggyflux

from iggyflux.transports.local.log import Log

MAPPING = (
    "iggyflux: 1\nkind: writer\nname: m\nfrom: {stream: s, topic: t}\n"
    "points: {measurement: {const: m}, fields: [v], timestamp: {expr: ts, format: unix_s}}\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a mapping, samples, a log, and things at paths that cannot be used."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(MAPPING)
    (tmp_path / "samples").write_text('{"v": 1, "ts": 1}\n')
    iggyflux("log", "append", "data", "s/t", "samples")
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "not-utf8").write_bytes(b"iggyflux: \xff\n")
    (tmp_path / "empty").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff\xfe.yaml")).write_text(MAPPING)
    return tmp_path


PATHS = {
    "missing": "nothing-here",
    "a folder": "a-folder",
    "a dangling link": "dangling",
    "a link to itself": "loop",
    "binary": "garbage",
    "not UTF-8": "not-utf8",
    "empty": "empty",
    "a name that is not UTF-8": os.fsdecode(b"n\xff\xfe.yaml"),
    "a missing name that is not UTF-8": os.fsdecode(b"gone\xff.yaml"),
    "below a file": "samples/x",
    "a name of 5,000 characters": "n" * 5000,
    "a user that does not exist": "~nosuchuser/x",
    "endless": "/dev/zero",
    "unreadable": "/proc/self/mem",
    "a full device": "/dev/full",
}
ENDLESS = ("/dev/zero", "/dev/full")
COMMANDS = [
    ("validate", "{}"), ("validate", "{}", "m.yaml"), ("validate", "{}", "--format", "sarif"),
    ("validate", "{}", "--format", "json"), ("validate", "{}", "--format", "github"), ("test", "{}"),
    ("test", "{}", "--format", "json"), ("test", "{}", "--format", "junit"), ("test", "--round-trip", "{}", "m.yaml"),
    ("test", "--round-trip", "m.yaml", "m.yaml", "{}"), ("explain", "{}"), ("dry-run", "{}", "samples"),
    ("dry-run", "m.yaml", "{}"), ("dry-run", "m.yaml", "log:{}"), ("eval", "v", "{}"), ("eval", "v", "--mapping", "{}"),
    ("check", "{}"), ("run", "{}", "--until-end"), ("replay", "{}"),
    ("replay", "{}", "--dry-run", "--mapping", "m.yaml"),
    ("replay", "data", "--pipeline", "{}"), ("state", "show", "{}"), ("state", "check", "{}"),
    ("state", "backup", "{}", "copies"), ("state", "backup", "data", "{}"), ("log", "info", "{}"),
    ("log", "tail", "{}", "s/t"), ("log", "append", "{}", "s/t", "samples"), ("log", "append", "data", "s/t", "{}"),
    ("log", "generate", "{}", "--count", "1"), ("log", "generate", "m.yaml", "--count", "1", "--into", "{}"),
    ("init", "{}"), ("init", "pipeline.yaml", "--mapping", "{}"), ("cursor", "show", "{}"), ("regroup", "{}"),
    ("resend", "{}"), ("sim", "--port", "0", "--seconds", "0", "--db-file", "{}"),
    ("sim", "--port", "0", "--seconds", "0", "--scenario", "{}"),
]  # fmt: skip


def is_clear(outcome: Outcome) -> bool:
    text = outcome.out + outcome.err
    return "a bug in iggyflux" not in text and "Traceback" not in text and outcome.code in (0, 1, 2, 3)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_no_command_takes_a_broken_path_for_a_fault_of_its_own(path: str, folder: Path) -> None:
    """Every command that takes a path; with the kinds of files that only these have."""
    wrong = {}
    for command in COMMANDS:
        if path in ENDLESS and command[0] in ("dry-run", "eval", "log"):
            continue  # samples are read to their end
        args = [arg.replace("{}", path) for arg in command]
        outcome = iggyflux(*args)
        if not is_clear(outcome):
            wrong[" ".join(command)] = outcome.err.strip().splitlines()[-1][:200]

    assert wrong == {}


SERVER = "url: 'https://127.0.0.1:1', bucket: b, org: o, max_retries: 0"
KEYS = {
    "from a file": "from: 'file:{}'\nto: stdout\nrun: [{{mapping: m.yaml}}]",
    "from a log": "from: 'log:{}'\nto: stdout\nrun: [{{mapping: m.yaml}}]",
    "to a file": "from: log:data\nto: 'file:{}'\nrun: [{{mapping: m.yaml}}]",
    "dead letters": "from: log:data\nto: stdout\ndead_letters: '{}'\nrun: [{{mapping: m.yaml}}]",
    "state": "from: file:samples\nto: stdout\nstate: '{}'\nrun: [{{mapping: m.yaml}}]",
    "mapping": "from: log:data\nto: stdout\nrun: [{{mapping: '{}'}}]",
    "token": f"from: log:data\ninfluxdb: {{{{token: 'file:{{}}', {SERVER}}}}}\nrun: [{{{{mapping: m.yaml}}}}]",
    "certificates": f"from: log:data\ninfluxdb: {{{{ca_file: '{{}}', {SERVER}}}}}\nrun: [{{{{mapping: m.yaml}}}}]",
}


@pytest.mark.parametrize("path", [path for path in PATHS.values() if path.isprintable()])
@pytest.mark.parametrize("key", KEYS)
def test_no_pipeline_takes_a_broken_path_for_a_fault_of_its_own(key: str, path: str, folder: Path) -> None:
    """Each key that holds a path."""
    commands = [["validate", "p.yaml"], ["check", "p.yaml"], ["run", "p.yaml", "--until-end"]]
    if path in ENDLESS and key == "from a file":
        commands.pop()  # messages are read to their end
    (folder / "p.yaml").write_text(f"iggyflux: 1\n{KEYS[key].format(path)}\n")
    wrong = {}
    for command in commands:
        outcome = iggyflux(*command)
        if not is_clear(outcome) or "IFX699" in outcome.err:
            wrong[command[0]] = outcome.err.strip().splitlines()[-1][:200]

    assert wrong == {}


@pytest.mark.parametrize("command", ["validate", "test"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_one_unreadable_file_does_not_hide_the_others(command: str, form: str, folder: Path) -> None:
    """A directory may hold a link to nowhere, or a file without permission."""
    for number in range(3):
        (folder / "a-folder" / f"{number}.yaml").write_text(MAPPING.replace("[v]", "[") if number == 2 else MAPPING)
    (folder / "a-folder" / "b.yaml").symlink_to("/proc/self/mem")
    (folder / "a-folder" / "c.yaml").symlink_to(folder / "nowhere")
    outcome = iggyflux(command, "a-folder", "--format", form)

    assert is_clear(outcome)
    assert outcome.code == 1
    shown = outcome.out + outcome.err
    assert "2.yaml" in shown
    assert "b.yaml" in shown
    if form == "json":
        json.loads(outcome.out)


@pytest.mark.parametrize("content", [b"\xff", b"\xfftoken", b"to\0ken", b"a\nb"])
def test_a_token_that_no_request_can_carry_is_a_problem(
    content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file, and from a variable."""
    (folder / "secret").write_bytes(content)
    if b"\0" not in content:
        monkeypatch.setenv("TOKEN", os.fsdecode(content))
    for value in ("file:secret", "${TOKEN}"):
        (folder / "p.yaml").write_text(f"iggyflux: 1\n{KEYS['token'].format('x').replace('file:x', value)}\n")
        for command in (["validate", "p.yaml"], ["check", "p.yaml"], ["run", "p.yaml", "--until-end"]):
            outcome = iggyflux(*command)

            assert is_clear(outcome)
            assert "IFX699" not in outcome.err


def test_a_stray_file_in_a_log_is_reported_by_name(folder: Path) -> None:
    """In the folder of a log, and in that of its consumers."""
    (folder / "p.yaml").write_text(f"iggyflux: 1\n{KEYS['from a log'].format('data')}\n")
    iggyflux("run", "p.yaml", "--until-end")
    places = [folder / "data", folder / "data" / ".consumers"]
    for place in places:
        (place / "stray.txt").write_text("x")
        (place / "stray.sqlite").write_bytes(b"\xff" * 100)
        (place / "stray").mkdir()
        (place / "folder.sqlite").mkdir()
        (place / os.fsdecode(b"\xff.sqlite")).write_bytes(b"")
    for command in (
        ["log", "info", "data"], ["log", "info", "data", "--format", "json"], ["log", "tail", "data", "s/t"],
        ["state", "show", "data"], ["state", "check", "data"], ["run", "p.yaml", "--until-end"],
        ["log", "append", "data", "s/t", "samples"], ["check", "p.yaml"], ["state", "backup", "data", "copies"],
    ):  # fmt: skip
        outcome = iggyflux(*command)

        assert is_clear(outcome), (command, outcome.err)


def test_a_path_with_u0000_is_a_problem(folder: Path) -> None:
    (folder / "p.yaml").write_text('iggyflux: 1\nfrom: "file:a\\u0000b"\nto: stdout\nrun: [{mapping: m.yaml}]\n')
    outcome = iggyflux("validate", "p.yaml")

    assert "IFX818" in outcome.out


def test_open_partitions_of_a_log_are_those_it_was_given(folder: Path) -> None:
    assert [place.partition for place in Log.open(folder / "data").partitions("s", ["t"])] == [0]
