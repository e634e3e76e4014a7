"""How commands end: exit codes, streams, colours; no traceback and no secret, whatever happens."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from shell import iggyflux, process

from iggyflux.cli import COMMANDS, command_line
from iggyflux.cli.output import exit_code_of
from iggyflux.errors import DocumentError, IggyfluxError, Problem, Stopped

DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: m}, fields: {a: a}, timestamp: {expr: ts, format: unix_s}}
"""


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "env.yaml"
    path.write_text(DOCUMENT, "utf-8")
    return path


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DocumentError([Problem("IFX101", "broken")]), 1, "error[IFX101]: broken\n1 error"),
        (IggyfluxError("no"), 1, "error: no"),
        (
            Stopped("the disk is full", "free space", "IFX704"),
            3,
            "error[IFX704]: the disk is full\n    hint: free space",
        ),
        (click.UsageError("what?"), 2, "Error: what?"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (
            PermissionError(13, "Permission denied", "x"),
            3,
            "error: x: Permission denied\n    hint: correct the permissions",
        ),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (SystemExit(3), 3, ""),
        (click.exceptions.Exit(2), 2, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_end_has_its_code_and_its_words(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 ok, 1 problems found, 2 usage, 3 the run stopped, 130 interrupted, 141 stdout is closed."""
    assert exit_code_of(error) == code
    assert capsys.readouterr().err.strip() == words.strip()


def test_a_bug_is_one_line_without_what_the_exception_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception's text may hold data or a secret; its kind and place are enough to report."""
    try:
        {}["my-secret-token"]
    except KeyError as error:
        code = exit_code_of(error)
    said = capsys.readouterr().err

    assert code == 3
    assert said.startswith("a bug in iggyflux: KeyError in test_cli_ends.py:")
    assert "please report it" in said
    assert "secret" not in said
    assert "Traceback" not in said


def test_a_bug_shows_its_traceback_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """IGGYFLUX_TRACEBACK=1 shows it to developers."""
    monkeypatch.setenv("IGGYFLUX_TRACEBACK", "1")

    exit_code_of(RuntimeError("why"))

    assert "RuntimeError: why" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_result_and_a_wrong_option_is_usage(name: str) -> None:
    """Help goes to stdout with 0, a wrong option to stderr with 2."""
    asked, wrong = iggyflux(name, "--help"), iggyflux(name, "--nonsense")

    assert (asked.code, asked.err) == (0, "")
    assert COMMANDS[name].summary in asked.out
    assert (wrong.code, wrong.out) == (2, "")


def test_no_command_at_all_shows_the_overview_as_usage() -> None:
    """As click does: 2, and what there is."""
    assert iggyflux().code == 2


def test_results_and_talk_go_to_their_own_streams(mapping: Path) -> None:
    """A pipe gets lines and nothing else."""
    outcome = process("dry-run", mapping, "-", stdin=b'{"a": 1, "ts": 1}\n')

    assert outcome.code == 0
    assert outcome.out == "m a=1.0 1000000000\n"
    assert "messages" in outcome.err


def test_lines_are_written_byte_for_byte(mapping: Path) -> None:
    """UTF-8 and a line feed after each line, whatever the locale says."""
    mapping.write_text(DOCUMENT.replace("fields: {a: a}", "fields: {a: {expr: a, type: string}}"), "utf-8")
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}

    outcome = process("dry-run", mapping, "-", stdin='{"a": "grün ☀", "ts": 1}\r\n'.encode(), env=env)

    assert outcome.out == 'm a="grün ☀" 1000000000\n'


def test_a_closed_pipe_ends_quietly(mapping: Path, tmp_path: Path) -> None:
    """`iggyflux … | head -1` says nothing of broken pipes."""
    samples = tmp_path / "samples.ndjson"
    samples.write_text('{"a": 1, "ts": 1}\n' * 20_000, "utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "iggyflux", "dry-run", mapping, samples], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        said = running.stderr.read().decode()
        code = running.wait(60)

    assert code == 141
    assert "roken" not in said
    assert "Traceback" not in said


def test_an_interrupt_ends_with_130(mapping: Path, tmp_path: Path) -> None:
    """Ctrl-C while input is waited for."""
    with subprocess.Popen(
        [sys.executable, "-m", "iggyflux", "dry-run", mapping, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        # Two documents, so that the second is waited for when the first came out.
        running.stdin.write(b'{"a": 1, "ts": 1}\n' * 500)
        running.stdin.flush()
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        code = running.wait(60)
        said = running.stderr.read().decode()

    assert (code, said) == (130, "\n")  # the command itself ended, and removed its temporary files


def on_a_terminal(*args: str, env: dict[str, str] | None = None) -> str:
    """What a command writes to a terminal."""
    parent, child = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | (env or {})
    with subprocess.Popen(
        [sys.executable, "-m", "iggyflux", *args], stdin=child, stdout=child, stderr=child, env=environment
    ) as running:
        running.wait(60)
        os.close(child)
        parts = []
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
    os.close(parent)
    return b"".join(parts).decode()


def test_colours_are_for_terminals_and_no_color_is_honoured(tmp_path: Path) -> None:
    """A pipe gets none; a terminal does unless NO_COLOR is set."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(DOCUMENT.replace("fields", "feilds"), "utf-8")

    assert "\x1b[" in on_a_terminal("validate", str(broken))
    assert "\x1b[" not in on_a_terminal("validate", str(broken), env={"NO_COLOR": "1"})
    assert "\x1b[" not in process("validate", broken).out


def test_eval_is_indented_on_a_terminal_only(tmp_path: Path) -> None:
    """A person reads it there."""
    document = tmp_path / "a.json"
    document.write_text('{"a": 1}', "utf-8")

    assert '{\r\n  "a": 1\r\n}' in on_a_terminal("eval", "@", str(document))
    assert iggyflux("eval", "@", document).out == '{"a":1}\n'


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_calls_the_command(shell: str) -> None:
    """For bash, zsh and fish."""
    assert "_IGGYFLUX_COMPLETE" in iggyflux("completion", shell).out


def test_a_shell_completes_commands_codes_and_functions() -> None:
    """As the script asks: the words so far, and which of them is under way."""

    def completed(words: str) -> set[str]:
        env = {"_IGGYFLUX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        return {line.split(",")[1] for line in process(env=env).out.split()}

    assert completed("iggyflux va") == {"validate"}
    assert "IFX510" in completed("iggyflux codes IFX51")
    assert completed("iggyflux functions coal") == {"coalesce"}


def test_a_secret_is_never_printed(tmp_path: Path, mapping: Path) -> None:
    """Not by validate, check or run, not where the file is wrong."""
    secret = "do-not-print-me"
    pipeline = tmp_path / "pipeline.yaml"
    text = (
        f"iggyflux: 1\ninfluxdb: {{url: 'http://127.0.0.1:9', org: o, bucket: b, token: {secret}}}\n"
        "from: log:data\nrun: [{mapping: env.yaml}]\n"
    )
    said = ""
    for content in (text, text + "x: 1\n", text.replace("token", "tokn"), text.replace("http:", f"http://u:{secret}@")):
        pipeline.write_text(content, "utf-8")
        commands = ["validate", "check"] if content == text else ["validate", "check", "run"]  # run would wait for it
        for command in commands:
            outcome = iggyflux(command, pipeline)
            assert "a bug" not in outcome.err
            said += outcome.out + outcome.err

    assert said
    assert secret not in said


@pytest.mark.parametrize("group", ["cursor", "state", "log", "dead-letters"])
def test_a_group_without_a_command_shows_its_help(group: str) -> None:
    outcome = iggyflux(group)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == iggyflux(group, "--help").out
    assert "Error" not in outcome.err


def test_the_group_keeps_its_name_in_usage() -> None:
    """The name does not depend on how the command is started."""
    assert process("--help").out.startswith("Usage: iggyflux ")
    assert command_line.name == "command-line" or command_line.name


@pytest.mark.parametrize("precision", ["ns", "us", "ms", "s"])
def test_the_summary_of_dry_run_shows_from_when_to_when(mapping: Path, precision: str) -> None:
    """A wrong unit of time shows as a wrong century."""
    outcome = iggyflux(
        "dry-run", mapping, "-", "--precision", precision, stdin='{"a":1,"ts":-1}\n{"a":1,"ts":1700000000}\n'
    )

    assert "lines             2   from 1969-12-31T23:59:59Z to 2023-11-14T22:13:20Z\n" in outcome.err


def test_dry_run_shows_what_no_sample_has(mapping: Path) -> None:
    """A missing tag does not fail, so a misspelt path or a forgotten {const: …} would not be noticed."""
    mapping.write_text(
        DOCUMENT.replace("{a: a}", "{a: a, b: b.c, d: {expr: d, default: 1}}, tags: {site: berlin, x: x}")
    )

    text = iggyflux("dry-run", mapping, "-", stdin='{"a":1,"ts":1}\n{"a":1,"x":1,"ts":2}\n').err

    assert re.findall(r"no sample has a member (\w+)", text) == ["b", "berlin"]
    assert "for a fixed text write {const: berlin}" in text


def test_dry_run_does_not_call_missing_what_a_sample_has(mapping: Path) -> None:
    """A value that failed is there."""
    mapping.write_text(DOCUMENT.replace("{a: a}", "{a: a, halle: halle, lambda: lambda, no: 'no'}"))

    told = iggyflux("dry-run", mapping, "-", stdin='{"a":1,"ts":1}\n{"a":1,"halle":{"x":1},"lambda":1,"ts":2}\n').err

    assert re.findall(r"no sample has a member (\w+)", told) == ["no"]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("root.klass", "root() is the whole payload"),
        ("gateways.class", "for an element write [0].class, for all of them [].class"),
        ("root().klass", None),
        ('"a-b".c', None),
    ],
)
def test_dry_run_says_what_a_path_to_nothing_probably_lacks(mapping: Path, path: str, advice: str | None) -> None:
    mapping.write_text(DOCUMENT.replace("{a: a}", f"{{a: a, b: '{path}'}}"))

    told = iggyflux("dry-run", mapping, "-", stdin='{"a":1,"ts":1,"gateways":[{"class":1}]}\n').err

    assert "IFX157" in told
    assert advice is None or f"hint: {advice}\n" in told


def test_dry_run_takes_a_file_as_one_payload_with_whole(tmp_path: Path) -> None:
    """A csv with its header is one payload of several lines; a binary payload is a file of its own."""
    (tmp_path / "m.csv").write_text("a,ts\n1,1\n2,2\n")
    path = tmp_path / "m.yaml"
    path.write_text(
        DOCUMENT.replace("topic: t", "topic: t, payload: csv")
        .replace("fields: {a: a}", "fields: {a: {expr: a, cast: true}}")
        .replace("points:", "for_each: '@'\npoints:")
    )

    assert iggyflux("dry-run", path, tmp_path / "m.csv", "--whole").out == "m a=1.0 1000000000\nm a=2.0 2000000000\n"
    assert iggyflux("dry-run", path, tmp_path / "m.csv", "--whole", "--envelope").code == 2


@pytest.mark.parametrize("part", ["tags: {t: \"meta('topic')\"}", "tags: {t: \"header('k')\"}", "where: index()", ""])
def test_dry_run_notes_default_coordinates_if_lines_depend_on_them(tmp_path: Path, part: str) -> None:
    """Elsewhere it would be noise."""
    path = tmp_path / "m.yaml"
    time = "timestamp: {expr: ts, format: unix_s" + (", default: message}" if not part else "}")
    path.write_text(DOCUMENT.replace("timestamp: {expr: ts, format: unix_s}", ", ".join(filter(None, [part, time]))))

    text = iggyflux("dry-run", path, "-", stdin='{"a":1,"ts":1}').err
    assert ("note: samples are plain payloads" in text) == (part != "where: index()")


def test_a_mapping_where_a_pipeline_is_wanted_is_said_in_one_line(tmp_path: Path, mapping: Path) -> None:
    """And the other way round: not a list of all keys that the other kind does not have."""
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text("iggyflux: 1\nfrom: log:data\nto: stdout\nrun: [{mapping: env.yaml}]\n", "utf-8")

    for command in ("run", "check"):
        outcome = iggyflux(command, mapping)
        assert outcome.code == 2
        assert f"Error: {mapping} is a mapping; expected a pipeline" in outcome.err
    for command in ("dry-run", "explain"):
        outcome = iggyflux(command, pipeline)
        assert outcome.code == 2
        assert f"Error: {pipeline} is a pipeline; expected a mapping" in outcome.err


def test_the_beginning_of_a_code_lists_those_that_begin_so() -> None:
    """A whole code is explained."""
    assert [line.split()[0] for line in iggyflux("codes", "ifx50").out.splitlines()] == [
        "IFX500",
        "IFX501",
        "IFX502",
        "IFX503",
        "IFX504",
        "IFX505",
    ]
    assert iggyflux("codes", "IFX500").out.startswith("IFX500: invalid envelope\n")


def test_an_example_of_a_code_keeps_its_lines() -> None:
    """What is YAML in the registry is YAML on the screen."""
    assert iggyflux("codes", "IFX101").out.endswith("  example:\n    points:\n    - measurement: {const: env\n")
