"""Pipeline files: what they may contain, every problem at once with its place, and secrets that are never shown."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.cli import command_line
from iggyflux.cli.check import READER_CHECKS, WRITER_CHECKS
from iggyflux.documents import load_schema
from iggyflux.errors import PipelineError, Problem
from iggyflux.pipeline import (
    Consumer,
    Endpoint,
    EndpointKind,
    IggySettings,
    InfluxSettings,
    Pipeline,
    RouteSettings,
    Secret,
    Start,
    TopicAddress,
    load_pipeline,
    parse_pipeline,
)
from iggyflux.pipeline.load import SINK_KINDS, SOURCE_KINDS
from iggyflux.runner.factories import LINE_SINKS, MESSAGE_SINKS, SOURCES
from iggyflux.runner.open import open_routes
from iggyflux.transports.influxdb.flavors import misfits

SMALLEST = """\
iggyflux: 1
from: log:data
to: file:out.lp
run:
  - mapping: m.yaml
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Pipeline]:
    """Read a pipeline beside a mapping `m.yaml`."""
    (tmp_path / "m.yaml").write_text("")

    def read(text: str, **environ: str) -> Pipeline:
        path = tmp_path / "p.yaml"
        path.write_text(text)
        return load_pipeline(path, environ=environ)

    return read


@pytest.fixture
def problems(read: Callable[..., Pipeline]) -> Callable[..., list[Problem]]:
    def problems(text: str, **environ: str) -> list[Problem]:
        with pytest.raises(PipelineError) as error:
            read(text, **environ)
        return list(error.value.problems)

    return problems


def test_the_smallest_pipeline_has_five_lines(read: Callable[..., Pipeline], tmp_path: Path) -> None:
    pipeline = read(SMALLEST)

    assert pipeline.routes == (
        RouteSettings(
            mapping=tmp_path / "m.yaml",
            source=Endpoint("log", tmp_path / "data"),
            sink=Endpoint("file", tmp_path / "out.lp"),
            pointer="/run/0",
        ),
    )
    assert pipeline.state == tmp_path / ".iggyflux"
    assert pipeline.warnings == ()


def test_yaml_and_toml_give_the_same_pipeline(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("")
    toml = tmp_path / "p.toml"
    toml.write_text('iggyflux = 1\nfrom = "log:data"\nto = "file:out.lp"\n[[run]]\nmapping = "m.yaml"\n')

    assert load_pipeline(toml).routes == parse_pipeline(SMALLEST, file=tmp_path / "p.yaml").routes


def test_every_setting_is_read(read: Callable[..., Pipeline], tmp_path: Path) -> None:
    pipeline = read(
        """\
iggyflux: 1
iggy: {address: "h:1", transport: quic, username: u, password: "${P}", tls: true, poll_interval: 10ms}
influxdb:
  url: https://influx.example.org:8086/
  flavor: v2
  org: acme
  bucket: plant
  token: "${T}"
  batch_size: 100
  batch_bytes: 1MiB
  linger: 250ms
  gzip: on
  timeout: 1m
  max_retries: 0
  retry_backoff: 0.5s
  max_in_flight: 8
  on_unavailable: stop
  ca_file: ca.pem
state: positions
shutdown_timeout: 5s
run:
  - mapping: m.yaml
    name: one
    dead_letters: {stream: s, topic: dead}
    consumer: {group: g, exclusive: true}
    start: {timestamp: "2026-01-01T00:00:00Z"}
  - mapping: m.yaml
    name: two
    from: {file: in.ndjson, envelope: true}
    to: stdout
    influxdb: {bucket: other, max_in_flight: auto}
    dead_letters: dead
    consumer: {single: me, partitions: [0, 2]}
    start: {offset: 7}
""",
        P="p",
        T="t",
    )

    assert pipeline.iggy == IggySettings(
        address="h:1", transport="quic", username="u", password=Secret("p"), tls=True, poll_interval_seconds=0.01
    )
    influxdb = InfluxSettings(
        url="https://influx.example.org:8086",
        flavor="v2",
        org="acme",
        bucket="plant",
        token=Secret("t"),
        batch_size=100,
        batch_bytes=2**20,
        linger_seconds=0.25,
        gzip="on",
        timeout_seconds=60.0,
        max_retries=0,
        retry_backoff_seconds=0.5,
        max_in_flight=8,
        on_unavailable="stop",
        ca_file=tmp_path / "ca.pem",
    )
    assert pipeline.influxdb == influxdb
    assert (pipeline.state, pipeline.shutdown_timeout_seconds) == (tmp_path / "positions", 5.0)
    one, two = pipeline.routes
    assert one == RouteSettings(
        mapping=tmp_path / "m.yaml",
        name="one",
        influxdb=influxdb,
        dead_letters=TopicAddress("s", "dead"),
        consumer=Consumer("group", "g", exclusive=True),
        start=Start("timestamp", 1767225600000000),
        pointer="/run/0",
    )
    assert two == RouteSettings(
        mapping=tmp_path / "m.yaml",
        name="two",
        source=Endpoint("file", tmp_path / "in.ndjson", envelope=True),
        sink=Endpoint("stdout"),
        influxdb=dataclasses.replace(influxdb, bucket="other", max_in_flight=None),
        dead_letters=tmp_path / "dead",
        consumer=Consumer("single", "me", (0, 2)),
        start=Start("offset", 7),
        pointer="/run/1",
    )


# Variables and secrets


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("a-${A}-${B:-c}", {"A": "x"}, "a-x-c"),
        ("${A:-d}", {"A": ""}, "d"),
        ("${A:-}", {}, ""),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$A", {"A": "x"}, "$A"),
        ("${A}", {"A": "${B}"}, "${B}"),
        ("${A}", {"A": 'x", bucket: "y'}, 'x", bucket: "y'),
    ],
    ids=["set", "default", "empty is unset", "empty default", "escaped", "not in braces", "once only", "no injection"],
)
def test_variables_are_replaced_after_parsing(
    read: Callable[..., Pipeline], text: str, environ: dict[str, str], expected: str
) -> None:
    pipeline = read(SMALLEST + f"influxdb: {{org: 'x{text}'}}\n", **environ)

    assert pipeline.influxdb
    assert pipeline.influxdb.org == "x" + expected


def test_a_variable_may_be_a_number_or_a_switch_where_expected(read: Callable[..., Pipeline]) -> None:
    text = SMALLEST + 'influxdb: {batch_size: "${N}", verify: "${V}", org: "${O}", max_in_flight: "${M}"}\n'

    settings = read(text, N="12", V="false", O="5", M="auto").influxdb

    assert settings
    assert (settings.batch_size, settings.verify, settings.org, settings.max_in_flight) == (12, False, "5", None)


def test_a_variable_that_is_set_but_empty_is_called_empty(problems: Callable[..., list[Problem]]) -> None:
    (problem,) = problems(SMALLEST + 'influxdb: {org: "${ORG}"}\n', ORG="")

    assert (problem.code, problem.message) == ("IFX802", "the environment variable ORG is empty")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("start: earliest", "first, last, {offset: …} or {timestamp: …}"),
        ("consumer: {single: x, partitions: every}", "all, or a list of partitions"),
        ("influxdb: {max_in_flight: many}", "auto, or a number"),
    ],
)
def test_a_wrong_word_is_answered_with_the_words_that_are_expected(
    problems: Callable[..., list[Problem]], line: str, expected: str
) -> None:
    """Never with a regular expression, which is for programs."""
    (problem,) = problems(SMALLEST + line + "\n")

    assert problem.expected == expected


def test_routes_that_are_not_a_list_are_told_how_to_be_one(problems: Callable[..., list[Problem]]) -> None:
    (problem,) = problems("iggyflux: 1\ninfluxdb: {org: a}\nrun:\n  mapping: lambda.yaml\n")

    assert problem.hint == "write a list: - mapping: …"


@pytest.mark.parametrize("secret", ["secret", "the", "file", "VARIABLE"])
def test_a_secret_that_is_a_word_of_the_warning_does_not_hide_it(read: Callable[..., Pipeline], secret: str) -> None:
    (warning,) = read(SMALLEST + f"influxdb: {{token: {secret}}}\n").warnings

    assert (warning.message, warning.hint) == ("the file contains a secret", "write ${VARIABLE} or file:PATH instead")
    assert secret not in (warning.source or "").partition("token")[2]


@pytest.mark.parametrize(
    ("text", "value"),
    [("$${", "${"), ("$${ORG}", "${ORG}"), ("x$${ORG", "x${ORG"), ("$$$${a", "$$${a"), ("$ORG", "$ORG")],
)
def test_two_dollars_and_a_brace_are_the_text_of_a_variable(
    read: Callable[..., Pipeline], text: str, value: str
) -> None:
    settings = read(SMALLEST + f'influxdb: {{org: "{text}"}}\n', ORG="lambda").influxdb

    assert settings and settings.org == value


@pytest.mark.parametrize("text", ["${ORG", "a${ORG}b${", "${ORG:-${B}}", "${ORG:-{}", "${ORG\\n}${"])
def test_a_variable_that_is_not_closed_is_a_problem(problems: Callable[..., list[Problem]], text: str) -> None:
    """The text was kept, and a server rejected `${TOKEN` as a token."""
    found = problems(SMALLEST + f'influxdb: {{org: "{text}"}}\n', ORG="lambda", B="x")

    assert {each.code for each in found} == {"IFX802"}
    assert "not closed" in found[-1].message


@pytest.mark.parametrize("content", [b"\xef\xbb\xbftok\n", b"tok\r\n", b"  tok \n\n", b"\xef\xbb\xbf tok"])
def test_a_mark_and_blanks_around_a_secret_in_a_file_are_not_part_of_it(
    read: Callable[..., Pipeline], tmp_path: Path, content: bytes
) -> None:
    """Editors write them."""
    (tmp_path / "lambda").write_bytes(content)
    settings = read(SMALLEST + "influxdb: {token: file:lambda}\n").influxdb

    assert settings and settings.token and settings.token.reveal() == "tok"


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("a b", "a space, after 1 character"),
        ("ab\ncd", "a line break, after 2"),
        ("ü", "U+00FC"),
        ("a\u200b", "U+200B"),
    ],
)
def test_a_token_that_no_header_can_hold_is_reported_by_its_character(token: str, kind: str) -> None:
    [found] = misfits(InfluxSettings(url="http://h", database="d", token=Secret(token)))

    assert kind in found.why


def test_a_variable_that_is_not_set_is_a_problem_at_its_place(problems: Callable[..., list[Problem]]) -> None:
    (problem,) = problems(SMALLEST + 'influxdb:\n  org: "${ORG}"\n')

    assert (problem.code, problem.location.line, problem.location.pointer) == ("IFX802", 7, "/influxdb/org")
    assert "ORG is not set" in problem.message
    assert "${ORG:-…}" in (problem.hint or "")


def test_an_unknown_key_is_reported_though_its_variable_is_not_set(problems: Callable[..., list[Problem]]) -> None:
    found = problems(SMALLEST + 'influxdb: {tokn: "${NOPE}", timeout: "${NOPE}"}\n')

    assert [(each.code, each.location.pointer) for each in found] == [
        ("IFX110", "/influxdb/tokn"),
        ("IFX802", "/influxdb/tokn"),
        ("IFX802", "/influxdb/timeout"),
    ]


def test_a_value_that_is_not_yaml_is_reported_once(problems: Callable[..., list[Problem]]) -> None:
    """Its substitute, with which the rest is read, is not reported."""
    found = problems("iggyflux: 1\nrun:\n  - mapping: m.yaml\n    from: -\n    to: stdout\n")

    assert [(each.code, each.location.line) for each in found] == [("IFX109", 4)]


def test_a_secret_comes_from_a_file_without_its_line_end(read: Callable[..., Pipeline], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("canary-1\n")

    pipeline = read(SMALLEST + "influxdb: {token: 'file:token'}\n")

    assert pipeline.influxdb
    assert pipeline.influxdb.token == Secret("canary-1")
    assert "canary" not in repr(pipeline)


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff"], ids=["missing", "empty", "blank", "not UTF-8"])
def test_an_empty_or_unreadable_secret_file_is_a_problem(
    problems: Callable[..., list[Problem]], tmp_path: Path, content: str | bytes | None
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content if isinstance(content, bytes) else content.encode())

    (problem,) = problems(SMALLEST + "influxdb: {token: 'file:token'}\n")

    assert problem.code == "IFX803"


def test_a_secret_in_the_file_works_and_causes_a_warning(read: Callable[..., Pipeline]) -> None:
    pipeline = read(SMALLEST + "influxdb: {token: canary-2}\n")

    assert pipeline.influxdb
    assert pipeline.influxdb.token
    assert pipeline.influxdb.token.reveal() == "canary-2"
    (warning,) = pipeline.warnings
    assert (warning.code, warning.severity) == ("IFX814", "warning")
    assert "canary" not in warning.render()
    assert "***" in (warning.source or "")


LEAKS = {
    "misspelt key": "influxdb: {tokn: canary}",
    "wrong type": "influxdb: {token: [canary]}",
    "beside another problem": "influxdb: {token: canary, batchsize: 1}",
    "in the address": "influxdb: {url: 'http://me:canary@h'}",
    "in the address of another key": "iggy: {address: 'iggy://me:canary@h', addres: 1}",
    "from a variable": 'influxdb: {token: "${CANARY}", tocken: "${CANARY}", batchsize: 1}',
    "password without user": "iggy: {password: canary}",
    "beside a variable": 'influxdb: {token: "canary${USER}", batchsize: 1}',
    "as a default": 'influxdb: {token: "${NOT_SET:-canary}", batchsize: 1}',
    "beside a variable that is not set": 'influxdb: {token: "canary-${NOT_SET}"}',
    "in the query of the address": "influxdb: {url: 'http://h:8086/?token=canary&x=1'}",
    "in the query of an address that is none": "influxdb: {url: 'h:8086?token=canary', batchsize: 1}",
    "in an object": "influxdb: {token: {value: canary}}",
    "of several lines": "influxdb:\n  token: >-\n    canary\n    more\n  batchsize: 1",
    "without quotes": "influxdb: {token: @canary}",
    "on a line that is not YAML": "influxdb: {url: [, token: canary}",
    "in a quote that is never closed": "influxdb:\n  token: 'canary",
    "given twice": "influxdb: {token: one-token, token: canary, batchsize: 1}",
    "misspelt on a line that is not YAML": "influxdb: {tokn: @canary}",
}


@pytest.mark.parametrize("line", LEAKS.values(), ids=LEAKS)
def test_no_problem_shows_a_secret(problems: Callable[..., list[Problem]], line: str) -> None:
    found = problems(SMALLEST + line + "\n", CANARY="canary")

    for problem in found:
        assert "canary" not in problem.render()
        assert "canary" not in json.dumps(problem.as_dict())


@pytest.mark.parametrize(
    ("written", "hidden"),
    [
        (r'"canary\u002d2"', "canary"),
        ("'canary''2'", "canary"),
        ("|-\n    canary\n    two", "canary"),
        ("60137", "60137"),
        ("0x60137", "60137"),
        ("6.0137", "6.0137"),
        ("[60137]", "60137"),
    ],
)
def test_a_secret_is_masked_however_it_is_written(
    problems: Callable[..., list[Problem]], written: str, hidden: str
) -> None:
    found = problems(f"{SMALLEST}influxdb:\n  batchsize: 1\n  token: {written}\n")

    for problem in found:
        assert hidden not in json.dumps(problem.as_dict())
        assert hidden not in problem.render()


@pytest.mark.parametrize("command", ["validate", "run", "check", "test", "dry-run", "explain"])
@pytest.mark.parametrize("line", LEAKS.values(), ids=LEAKS)
def test_no_command_shows_a_secret(line: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a command that expects a mapping and gets a pipeline, or an invalid one."""
    monkeypatch.setenv("CANARY", "canary")
    for text in (SMALLEST + line, f"iggyflux: 1\n{line}"):
        path = tmp_path / "p.yaml"
        path.write_text(text + "\n")

        said = CliRunner().invoke(command_line, [command, str(path)])

        assert "canary" not in said.output
        assert said.exit_code in (0, 1, 2)


@pytest.mark.parametrize("secret", ["x", "canary", "a-very-long-canary-of-many-letters"])
def test_no_problem_shows_the_length_of_a_secret(read: Callable[..., Pipeline], secret: str) -> None:
    """Three stars with three carets replace it; what follows on its line is marked where it is shown."""
    (warning,) = read(SMALLEST + f"influxdb: {{token: {secret}, batch_size: 1}}\n").warnings

    assert warning.render().splitlines()[1:3] == [
        "  6 | influxdb: {token: ***, batch_size: 1}",
        "    |                   ^^^",
    ]
    assert warning.as_dict()["length"] == 3


def test_a_place_after_a_secret_is_marked_where_it_is_shown(problems: Callable[..., list[Problem]]) -> None:
    (problem, *_) = problems(SMALLEST + "influxdb: {token: a-long-canary, batchsize: 1}\n")

    assert problem.location.column == 34
    assert problem.render().splitlines()[1:3] == [
        "  6 | influxdb: {token: ***, batchsize: 1}",
        "    |                        ^^^^^^^^^",
    ]


def test_a_short_secret_is_hidden_only_as_a_value(problems: Callable[..., list[Problem]]) -> None:
    """Its letters are parts of many words."""
    (problem,) = problems(SMALLEST + "influxdb: {token: a, linger: 1a}\n")

    assert problem.message == "invalid duration: '1a'"
    assert problem.source == "influxdb: {token: ***, linger: 1a}"


def test_a_warning_does_not_show_a_secret_with_escapes(read: Callable[..., Pipeline]) -> None:
    (warning,) = read(SMALLEST + r'influxdb: {token: "canary\u002d2"}' + "\n").warnings

    assert warning.code == "IFX814"
    assert "canary" not in warning.render()


def test_a_secret_is_never_printed() -> None:
    secret = Secret("canary")

    assert f"{secret} {secret!r} {[secret]} %s" % secret == "*** *** [***] ***"
    assert secret.reveal() == "canary"
    assert secret == Secret("canary") != Secret("other")
    with pytest.raises(TypeError):
        pickle.dumps(secret)


# Problems


PROBLEMS: dict[str, tuple[str, str, str, str]] = {
    "not a duration": ("influxdb: {linger: 10s ago}", "IFX804", "/influxdb/linger", "invalid duration: '10s ago'"),
    "not a size": ("influxdb: {batch_bytes: 5 mega}", "IFX805", "/influxdb/batch_bytes", "invalid size: '5 mega'"),
    "invalid address": ("influxdb: {url: localhost}", "IFX809", "/influxdb/url", "invalid address: 'localhost'"),
    "port of an address": ("influxdb: {url: 'http://h:x'}", "IFX809", "/influxdb/url", "invalid address"),
    "token and password": (
        'influxdb: {token: "${T}", username: u, password: "${T}"}',
        "IFX810",
        "/influxdb",
        "both `token` and `password`",
    ),
    "key without certificate": ("influxdb: {client_key: k}", "IFX810", "/influxdb", "`client_key` without"),
    "exclusive without a group": (
        "consumer: {single: c, exclusive: true}",
        "IFX810",
        "/consumer/exclusive",
        "`exclusive` with `single`",
    ),
}


@pytest.mark.parametrize(("line", "code", "pointer", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_wrong_value_has_code_place_and_message(
    problems: Callable[..., list[Problem]], line: str, code: str, pointer: str, words: str
) -> None:
    (problem,) = problems(SMALLEST + line + "\n", T="canary")

    assert (problem.code, problem.location.pointer) == (code, pointer)
    assert problem.location.line == 6
    assert words in problem.message


ENDS: dict[str, tuple[str, str, str, str | None]] = {
    "misspelt": ("from: logs:data", "IFX806", "/from", "did you mean `log:DIR`?"),
    "without its path": ("from: log", "IFX806", "/from", "did you mean `log:DIR`?"),
    "a dash to read from": ("from: '-'", "IFX806", "/from", "did you mean `stdin`?"),
    "with a path too many": ("from: stdin:x", "IFX806", "/from", "did you mean `stdin`?"),
    "a sink as a source": ("from: stdout", "IFX806", "/from", None),
    "no section": ("from: iggy", "IFX807", "/run/0", "add `iggy: {…}` to the file"),
}


@pytest.mark.parametrize(("line", "code", "pointer", "hint"), ENDS.values(), ids=ENDS)
def test_a_wrong_end_has_code_place_and_hint(
    problems: Callable[..., list[Problem]], line: str, code: str, pointer: str, hint: str | None
) -> None:
    (problem,) = problems(f"iggyflux: 1\n{line}\nto: stdout\nrun:\n  - mapping: m.yaml\n")

    assert (problem.code, problem.location.pointer) == (code, pointer)
    if hint:
        assert problem.hint == hint


def test_every_problem_of_a_file_is_reported_at_once(problems: Callable[..., list[Problem]]) -> None:
    found = problems(
        """\
iggyflux: 1
from: logs:x
influxdb: {url: nowhere, linger: 1, token: "file:none"}
run:
  - mapping: n.yaml
    to: influx
  - mapping: m.yaml
    start: {timestamp: yesterday}
"""
    )

    assert sorted({problem.code for problem in found}) == [
        "IFX803",
        "IFX804",
        "IFX806",
        "IFX808",
        "IFX809",
        "IFX812",
    ]
    assert len(found) == len(set(found))
    by_code = {problem.code: problem for problem in found}
    assert by_code["IFX808"].hint == "did you mean `m.yaml`?"
    assert by_code["IFX804"].hint == 'did you mean "1s"?'


TOPIC_STATE = """\
iggyflux: 1
iggy: {username: u, password: "${P}"}
state: {stream: s, topic: cursors}
from: log:data
to: file:out.lp
run: [{mapping: m.yaml}]
"""


def test_positions_are_kept_in_a_directory_or_a_topic(read: Callable[..., Pipeline]) -> None:
    assert read(TOPIC_STATE, P="x").state == TopicAddress("s", "cursors")


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("{stream: s}", "IFX111", "topic"),
        ("{stream: s, topic: t, name: n}", "IFX110", "name"),
        ("iggy:s/t", "IFX806", "{stream: S, topic: T}"),
        ("[a]", "IFX112", ""),
    ],
)
def test_invalid_values_of_state_are_problems(
    problems: Callable[..., list[Problem]], state: str, code: str, words: str
) -> None:
    (problem,) = problems(TOPIC_STATE.replace("{stream: s, topic: cursors}", state), P="x")

    assert (problem.code, problem.location.line) == (code, 3)
    assert words in f"{problem.message} {problem.hint}"


def test_positions_in_a_topic_need_an_iggy_section(problems: Callable[..., list[Problem]]) -> None:
    (problem,) = problems(TOPIC_STATE.replace('iggy: {username: u, password: "${P}"}\n', ""))

    assert (problem.code, problem.location.pointer) == ("IFX807", "/state")


def test_a_problem_of_one_key_hides_no_other(problems: Callable[..., list[Problem]]) -> None:
    """A duplicate key, a wrong type and unknown keys: the others are still checked."""
    found = problems(
        "iggyflux: 1\nnonsense: 3\nstate: 5\n1: x\n"
        "influxdb: {url: http://a, url: b, batch_size: many, adress: c, linger: 1x}\n"
        "run: [{mapping: nothing.yaml, frm: iggy, to: influx}, {mapping: [m.yaml]}]\nshutdown_timeout: 3\n"
    )

    assert [(each.code, each.location.line) for each in found] == [
        ("IFX110", 2),
        ("IFX112", 3),
        ("IFX106", 4),
        ("IFX105", 5),
        ("IFX112", 5),
        ("IFX110", 5),
        ("IFX804", 5),
        ("IFX808", 6),
        ("IFX110", 6),
        ("IFX806", 6),
        ("IFX112", 6),
        ("IFX804", 7),
    ]


def test_an_unknown_key_is_a_problem_with_a_suggestion(problems: Callable[..., list[Problem]]) -> None:
    (problem,) = problems(SMALLEST + "influxdb: {batchsize: 1}\n")

    assert problem.location.line == 6
    assert "batch_size" in (problem.hint or "")


def test_a_setting_that_the_server_lacks_is_reported_at_its_key(tmp_path: Path) -> None:
    """In the section of the route if it has the key, else in that of the file."""
    (tmp_path / "m.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\npoints: {measurement: {const: m}}\n"
    )
    path = tmp_path / "p.yaml"
    path.write_text(
        "iggyflux: 1\nfrom: iggy\niggy:\n  username: me\n  client_cert: m.yaml\n"
        "influxdb: {flavor: v3, bucket: b,\n  retention_policy: x}\n"
        "run:\n  - mapping: m.yaml\n  - mapping: m.yaml\n    name: n\n    influxdb: {retention_policy: y}\n"
    )

    with pytest.raises(PipelineError) as caught:
        open_routes(load_pipeline(path, environ={}))

    assert sorted({(each.code, each.location.pointer, each.location.line) for each in caught.value.problems}) == [
        ("IFX728", "/influxdb/retention_policy", 7),
        ("IFX728", "/run/1/influxdb/retention_policy", 12),
        ("IFX760", "/iggy/client_cert", 5),
        ("IFX760", "/iggy/username", 4),
    ]


def test_every_end_has_a_word_a_factory_and_a_check() -> None:
    """A new source or sink is in all tables, or in none."""
    writers = {*(("from", kind) for kind in SOURCES), *(("to", kind) for kind in LINE_SINKS)}
    readers = {("from", "influxdb"), *(("to", kind) for kind in MESSAGE_SINKS)}
    words = {("from", word.partition(":")[0]) for word in SOURCE_KINDS} | {
        ("to", word.partition(":")[0]) for word in SINK_KINDS
    }

    assert set(WRITER_CHECKS) == writers
    assert set(READER_CHECKS) == readers | {("state", "iggy")}
    assert words == writers | readers
    assert {kind for _, kind in words} == set(get_args(EndpointKind))


def test_routes_are_named_by_their_mappings_not_by_files(tmp_path: Path) -> None:
    """Two files of the same name in two folders are two routes, if the mappings have names of their own."""
    for folder, name in (("nord", "lambda"), ("süd", "class")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "in.yaml").write_text(
            f"iggyflux: 1\nkind: writer\nname: {name}\nfrom: {{stream: s, topic: t}}\npoints: {{measurement: a}}\n"
        )
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        SMALLEST.replace("m.yaml", "nord/in.yaml") + "  - {mapping: süd/in.yaml, consumer: {group: g}}\n", "utf-8"
    )

    assert [route.name for route in open_routes(load_pipeline(path, environ={}))] == ["lambda", "class"]


@pytest.mark.parametrize("text", ["", "[]", "iggyflux: 1", "iggyflux: 2\nrun: [{mapping: m.yaml}]", "a: [", "run: {}"])
def test_a_file_that_is_not_a_pipeline_has_problems(problems: Callable[..., list[Problem]], text: str) -> None:
    assert problems(text)


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as error:
        load_pipeline(tmp_path / "none.yaml")
    assert error.value.problems[0].code == "IFX801"


KEYS = [
    "iggyflux",
    "run",
    "from",
    "to",
    "mapping",
    "influxdb",
    "iggy",
    "token",
    "url",
    "start",
    "consumer",
    "file",
    "offset",
    "timestamp",
    "partitions",
    "single",
    "group",
    "exclusive",
    "linger",
    "dead_letters",
    "x",
]
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["log:x", "${A}", "10s", "file:x", "stdout", "x"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            children,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(TREES, st.booleans())
def test_any_tree_is_a_pipeline_or_a_pipeline_error(tree: Any, is_nearly_right: bool) -> None:
    if is_nearly_right and isinstance(tree, dict):
        tree = {**tree, "iggyflux": 1}
    try:
        pipeline = parse_pipeline(json.dumps(tree), environ={})
    except PipelineError as error:
        assert error.problems  # noqa: PT017  # either is right
    else:
        assert pipeline.routes


# The schema


def schema_nodes(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Yield every property of the schema, with its path."""
    found = []
    for key, child in (node.get("properties") or {}).items():
        found.append((f"{path}/{key}", child))
        found += schema_nodes(child, f"{path}/{key}")
    for key, child in (node.get("$defs") or {}).items():
        found.append((f"{path}/{key}", child))
        found += schema_nodes(child, f"{path}/{key}")
    return found


def test_every_key_of_the_schema_has_a_description_and_examples() -> None:
    for path, node in schema_nodes(load_schema("pipeline")):
        if "$ref" not in node:
            assert node.get("description"), path
            assert node.get("examples") or "const" in node or "enum" in node, path


@pytest.mark.parametrize(("section", "kind"), [("influxdb", InfluxSettings), ("iggy", IggySettings)])
def test_schema_and_settings_have_the_same_keys_and_defaults(section: str, kind: type[Any]) -> None:
    properties = load_schema("pipeline")["$defs"][section]["properties"]
    fields = {field.name.removesuffix("_seconds"): field.name for field in dataclasses.fields(kind)}

    assert set(properties) == set(fields)
    text = json.dumps(
        {
            "iggyflux": 1,
            section: {key: node["default"] for key, node in properties.items() if "default" in node},
            "run": [],
        }
    )
    with pytest.raises(PipelineError):
        parse_pipeline(text)  # no routes
    filled = parse_pipeline(text.replace('"run": []', '"run": [{"mapping": "README.md"}]'), file=Path("README.md"))
    assert getattr(filled, section) == kind()


def test_every_example_of_the_schema_is_valid() -> None:
    import jsonschema

    schema = load_schema("pipeline")
    for _, node in schema_nodes(schema):
        for example in node.get("examples", ()):
            if not (isinstance(example, str) and example.startswith("${")):
                alone = {**schema, "properties": {"x": node}, "required": ["x"], "additionalProperties": False}
                jsonschema.Draft202012Validator(alone).validate({"x": example})


MAPPING = "{iggyflux: 1, kind: writer, from: {stream: s, topic: t}, points: {measurement: {const: a}, fields: [v]}}"


def test_a_problem_of_a_route_quotes_its_line_without_secrets(tmp_path: Path) -> None:
    """A line can hold a route and a secret."""
    (tmp_path / "m.yaml").write_text(MAPPING)
    text = "{iggyflux: 1, influxdb: {url: 'http://h', database: d, token: lambdalambda}, run: [{mapping: m.yaml}]}\n"
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PipelineError) as caught:
        open_routes(load_pipeline(tmp_path / "p.yaml"))
    [problem] = caught.value.problems

    assert problem.code == "IFX807"
    assert problem.source and "mapping: m.yaml" in problem.source
    assert "lambda" not in problem.render()


# --- a pipeline that nothing connects with ---

CLOSED = """\
iggyflux: 1
from: iggy
iggy: {address: "${ICE}:8090", username: "${U}", password: "file:none", ca_file: "${U}/ca"}
influxdb:
  {url: "https://${U}@lake", database: "${U}", token: "${ICE}", headers: {X-Key: "${ICE}"}}
schema_registry: {url: "https://${U}", username: u, password: "${ICE}"}
telemetry: {listen: "0.0.0.0:9100", token: "${ICE}"}
tags: {lake: "${LAKE:-como}"}
run:
  - {mapping: "m.yaml", influxdb: {precision: "${P:-s}", url: "${U}"}}
"""
LAKE = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points: {measurement: {const: depth}, fields: [m], timestamp: {expr: "`1`", format: unix_s}}
examples: [{message: {m: 3}, points: []}]
"""


def test_variables_and_secrets_of_connections_are_needed_where_something_connects(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").touch()
    (tmp_path / "p.yaml").write_text(CLOSED)
    with pytest.raises(PipelineError) as refused:
        load_pipeline(tmp_path / "p.yaml", environ={})
    (route,) = load_pipeline(tmp_path / "p.yaml", environ={}, connects=False).routes

    assert {each.code for each in refused.value.problems} == {"IFX802", "IFX803"}
    assert route.tags == (("lake", "como"),)
    assert route.influxdb is not None and route.influxdb.precision == "s"


@pytest.mark.parametrize("unset", ["${P:-s}", "${LAKE:-como}", "m.yaml"])
def test_what_lines_are_made_of_is_needed_everywhere(tmp_path: Path, unset: str) -> None:
    with pytest.raises(PipelineError) as refused:
        parse_pipeline(CLOSED.replace(unset, "${NONE}"), file=tmp_path / "p.yaml", environ={}, connects=False)

    assert "IFX802" in {each.code for each in refused.value.problems}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["dry-run", "m.yaml", "--pipeline", "p.yaml"], 0),
        (["explain", "m.yaml", "--pipeline", "p.yaml"], 0),
        (["load", "m.yaml", "s.ndjson", "--pipeline", "p.yaml", "--dry-run"], 0),
        (["load", "m.yaml", "s.ndjson", "--pipeline", "p.yaml"], 1),
        (["dry-run", "m.yaml", "--pipeline", "p.yaml", "--from", "iggy"], 1),
        (["check", "p.yaml"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands_that_send_nothing_need_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"m.yaml": LAKE, "p.yaml": CLOSED, "s.ndjson": '{"m": 3}\n'}.items():
        (tmp_path / name).write_text(text)
    done = CliRunner().invoke(command_line, arguments, env={"ICE": None, "U": None, "LAKE": None, "P": None})

    assert done.exit_code == code, done.output
    assert ("IFX802" in done.output) == bool(code)
    assert ("como" in done.output) == (not code)
