"""No control character of a message, a document, a file name or a server reaches a terminal, a log or a report."""

from __future__ import annotations

import ast
import json
import logging
import os
import pty
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.cli import COMMANDS
from iggyflux.cli.live_lines import live_lines
from iggyflux.cli.output import written
from iggyflux.errors import Location, Problem
from iggyflux.escapes import escaped, escaped_lines, json_escaped
from iggyflux.records import Partition
from iggyflux.runner import RouteStatus
from iggyflux.runner.events import JsonFormatter, TextFormatter, emit
from tests.transports.raw_server import RawServer, http

PACKAGE = Path(__file__).parent.parent / "iggyflux"

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""What no text may hold.  Written down here again: the list of the code may have a gap."""

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x85\r\x08\u202egnp\u2066x\u2028y\x7f"
FORGED = "ok\n12:00:00 ERROR forged.event route=x"

WRITERS = {
    "playground/worker.py": "answers to its own server, through a pipe",
    "cli/output.py": "is the writer",
    "cli/live_display.py": "draws below the log; `written` escapes its lines",
    "cli/progress.py": "asks whether stderr is a terminal, and gives it to the handler of the log",
    "cli/eval.py": "asks whether stdout is a terminal",
    "sim/queries/sql_worker.py": "answers the process that started it",
}
"""The modules that may write to the terminal or ask about it."""


WAYS = re.compile(
    r"print|pprint|Console|logging\.StreamHandler|traceback\.print_\w+|sys\.(?:__)?std(?:out|err)(?:__)?"
    r"|click\.(?:echo|secho|style|confirm|prompt|pause|progressbar|echo_via_pager|get_\w+_stream)"
)


def writes(path: Path) -> set[str]:
    """Return what a module uses to write to the terminal."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {ast.unparse(node) for node in nodes if isinstance(node, (ast.Attribute, ast.Name))}
    calls = [node for node in nodes if isinstance(node, ast.Call) and node.args]
    to_descriptors = {ast.unparse(call) for call in calls if ast.unparse(call.args[0]) in ("1", "2")}
    return {name for name in names if WAYS.fullmatch(name)} | {
        call for call in to_descriptors if call.startswith(("os.write", "write_whole", "open", "os.fdopen"))
    }


def test_only_the_writer_writes() -> None:
    """Everything else passes its texts to `cli/output.py`, where they are escaped."""
    found = {path.relative_to(PACKAGE).as_posix(): writes(path) for path in PACKAGE.rglob("*.py")}

    assert {name: uses for name, uses in found.items() if uses and name not in WRITERS} == {}
    assert [name for name in WRITERS if not found[name]] == []


@given(st.text(st.characters(), max_size=40))
@example(HOSTILE)
@example("\ud800\udfff")
def test_a_text_is_escaped_and_nothing_else(text: str) -> None:
    """A tab stays; letters of all scripts do; JSON keeps its meaning."""
    assert not UNSAFE.search(escaped(text))
    assert "\n" not in escaped(text)
    assert not UNSAFE.search(escaped_lines(text))
    assert escaped_lines(text).count("\n") == text.count("\n")
    assert json.loads(json_escaped(json.dumps(text, ensure_ascii=False))) == json.loads(json.dumps(text))
    assert not UNSAFE.search(json_escaped(json.dumps(text, ensure_ascii=False)))
    if text.isprintable():
        assert escaped(text) == text


def document(name: str, example: object = None) -> str:
    """A mapping with `name` wherever a name can be."""
    tree = {
        "iggyflux": 1,
        "kind": "writer",
        "name": "m",
        "from": {"stream": name, "topic": name},
        "points": {
            "measurement": {"const": name},
            "tags": {"site": {"const": name}},
            "fields": {name: json.dumps(name), "b": {"expr": "b", "type": "integer"}},
            "timestamp": {"expr": "ts", "format": "unix_s"},
        },
        "examples": [{"name": name, "message": {name: name, "b": name, "ts": 1}, "points": [f'm,site="{name}" x=1 1']}],
    }
    return json.dumps(tree)


def unsafe_of(*texts: str) -> list[str]:
    return [text for text in texts if UNSAFE.search(text)]


FORMS = {
    "validate": ["--format", "text", "json", "sarif", "github"],
    "test": ["--format", "text", "json", "junit"],
}


@pytest.mark.parametrize("name", [HOSTILE, FORGED, "\ud800", "a\x1b[8mb"], ids=["all", "line", "surrogate", "style"])
@pytest.mark.parametrize("command", ["validate", "test", "explain", "dry-run"])
def test_no_report_of_a_document_has_a_control_character(command: str, name: str, tmp_path: Path) -> None:
    """In its path, its names, its values, its examples and the messages."""
    folder = tmp_path / f"d{name}".replace("/", "").replace("\ud800", "\udcff")
    folder.mkdir()
    file = folder / "m.yaml"
    file.write_text(document(name), "utf-8")
    samples = folder / "s.ndjson"
    broken = f'{{"b": "{name}'.encode("utf-8", "replace").decode().replace("\n", " ")
    samples.write_text(json.dumps({name: name, "b": name, "ts": 1}) + f"\n{broken}\n", "utf-8")
    option, *forms = FORMS.get(command, ["", ""])
    for form in forms:
        args = [
            command,
            str(file),
            *([str(samples)] if command == "dry-run" else []),
            *([option, form] if form else []),
        ]
        outcome = iggyflux(*args)

        assert "a bug in iggyflux" not in outcome.err
        assert unsafe_of(outcome.out, outcome.err) == []
        for line in (outcome.out + outcome.err).splitlines():
            assert not line.startswith("12:00:00 ERROR forged")
        if form in ("json", "sarif"):
            json.loads(outcome.out)
        if form == "junit":
            ElementTree.fromstring(outcome.out)


@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize("name", [HOSTILE.replace("/", ""), FORGED, "\udcff\udcfe"], ids=["all", "line", "bytes"])
def test_no_complaint_about_an_argument_has_a_control_character(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a command says about a file that is not there, or an option that it does not know."""
    monkeypatch.chdir(tmp_path)  # `init` writes files
    for args in ([name], [name, name], [f"--{name}"], ["--format", name], [name, "--format", "json"]):
        outcome = iggyflux(command, *args, stdin=b"")

        assert "a bug in iggyflux" not in outcome.err
        assert unsafe_of(outcome.out, outcome.err) == []


@pytest.mark.parametrize("value", [HOSTILE, FORGED, "\ud800"], ids=["all", "line", "surrogate"])
def test_no_line_of_the_log_has_a_control_character(value: str) -> None:
    """Text and JSON, in events and in the messages of libraries."""
    logger = logging.Logger("iggyflux.test")  # noqa: LOG001  # pytest cannot report surrogates of a shared one
    for formatter in (TextFormatter(), JsonFormatter()):
        stream = StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        try:
            emit(logger, logging.ERROR, "some.event", reason=value, topic=Partition(value, value, 1))
            logger.error("plain message %s", value)
            try:
                raise ValueError(value)
            except ValueError:
                logger.exception("broken")
        finally:
            logger.removeHandler(handler)
        lines = stream.getvalue().splitlines()

        assert len(lines) == 3
        assert unsafe_of(*lines) == []
        if isinstance(formatter, JsonFormatter):
            assert json.loads(lines[0])["reason"] == value


@pytest.mark.parametrize("columns", [40, 4000])
def test_the_live_display_shows_names_without_control_characters(columns: int) -> None:
    partitions = {Partition(HOSTILE, FORGED, number): 3 for number in range(2)}
    route = RouteStatus(f"[red]{HOSTILE}", waiting_for=HOSTILE, lag=partitions)
    lines = [written(line, colour=False) for line in live_lines([route], {}, columns, 24)]

    assert unsafe_of(*lines) == []
    assert len(lines) > 3
    assert columns == 40 or "[red]" in lines[1]


def test_a_problem_is_escaped_wherever_it_is_rendered() -> None:
    """Its file, its line, its message and its hints; `str()` gives the same."""
    problem = Problem("IFX100", HOSTILE, Location(HOSTILE, 1, 2, f"/{HOSTILE}"), HOSTILE, HOSTILE, HOSTILE, HOSTILE)

    assert unsafe_of(*problem.render().split("\n")) == []


@pytest.mark.parametrize("status", [400, 401, 404, 422, 503])
@pytest.mark.parametrize("command", ["check", "run"])
def test_no_word_of_a_server_reaches_the_terminal_raw(command: str, status: int, tmp_path: Path) -> None:
    """Its version, its reason, its headers: in the log, the summary, the report of `check`, and in dead letters."""
    words = json.dumps({"code": "invalid", "message": HOSTILE, "error": HOSTILE}, ensure_ascii=False)
    answer = http(status, words, "Content-Type: application/json", "X-Influxdb-Error: \u202eevil", reason="\u202e\x9bB")
    hello = http(204, "", "X-Influxdb-Version: v2.7\x9b31m\u202eevil", "X-Influxdb-Build: OSS")
    (tmp_path / "m.yaml").write_text(document("s").replace('"b": {"expr": "b", "type": "integer"}', '"b": "b"'))
    iggyflux("log", "append", tmp_path / "data", "s/s", stdin='{"s": 1, "b": 2, "ts": 1}\n{"s": 1, "b": 2, "ts": 2}\n')
    with RawServer([answer] * 50, ping=hello, probe=answer) as server:
        (tmp_path / "p.yaml").write_text(
            "iggyflux: 1\nfrom: log:data\ndead_letters: letters\nrun: [{mapping: m.yaml}]\n"
            f"influxdb: {{url: '{server.url}', org: o, bucket: b, token: t0k3n, max_retries: 1, retry_backoff: 1ms}}\n"
        )
        options = ["--until-end", "--status-file", str(tmp_path / "status.json")] if command == "run" else []
        outcome = iggyflux(command, tmp_path / "p.yaml", *options)
    written = [path.read_text() for path in (*tmp_path.rglob("*.ndjson"), *tmp_path.glob("status.json"))]

    assert "owned" in outcome.out + outcome.err or "evil" in outcome.out + outcome.err
    assert unsafe_of(outcome.out, outcome.err, *written) == []


def on_a_terminal(*args: str, cwd: Path) -> bytes:
    """Return what a command writes to a terminal, on stdout and stderr."""
    ours, its = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "iggyflux", *args], stdout=its, stderr=its, stdin=its, cwd=cwd)
    os.close(its)
    written = b""
    try:
        while data := os.read(ours, 65536):
            written += data
    except OSError:  # the end of a pseudo terminal
        pass
    process.wait(60)
    os.close(ours)
    return written


@pytest.mark.parametrize("command", ["dry-run", "tail", "eval", "run"])
def test_results_are_escaped_on_a_terminal_and_whole_in_a_pipe(command: str, tmp_path: Path) -> None:
    """Line protocol, payloads and strings are data for the next program; a terminal is a person."""
    value = "\x1b]0;owned\x07\u202eevil"
    (tmp_path / "m.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\n"
        "points:\n  measurement: {const: m}\n  fields: {v: {expr: v, type: string}}\n"
        "  timestamp: {expr: ts, format: unix_s}\n"
    )
    (tmp_path / "p.yaml").write_text("iggyflux: 1\nfrom: log:data\nto: stdout\nrun: [{mapping: m.yaml}]\n")
    payload = json.dumps({"v": value, "ts": 1}, ensure_ascii=False)
    (tmp_path / "s.ndjson").write_text(payload + "\n")
    iggyflux("log", "append", tmp_path / "data", "s/t", tmp_path / "s.ndjson")
    args = {
        "dry-run": ["dry-run", "m.yaml", "s.ndjson"],
        "tail": ["log", "tail", "data", "s/t"],
        "eval": ["eval", "v", "s.ndjson", "--raw"],
        "run": ["run", "p.yaml", "--until-end", "--log-format", "text"],
    }[command]

    shown = on_a_terminal(*args, cwd=tmp_path)
    with (tmp_path / "p.yaml").open("a") as file:
        file.write("consumer: {group: another}\n")
    piped = subprocess.run(
        [sys.executable, "-m", "iggyflux", *args], capture_output=True, cwd=tmp_path, timeout=60
    ).stdout
    ours = re.compile(rb"\x1b\[[0-9;]*[mKAJGH]|\x1b\[\?(?:25|2026)[hl]")  # styles, and what draws the live table

    assert b"evil" in shown
    assert not UNSAFE.search(ours.sub(b"", shown).decode().replace("\r\n", "\n").replace("\r", ""))
    assert (payload if command == "tail" else value).encode() in piped
