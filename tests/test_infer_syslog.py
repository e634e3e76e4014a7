"""Lines of RFC 5424: what is in their header is stored, and `load` takes what `infer` wrote."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux import parse_mapping
from iggyflux.authoring.inference import infer, recognize_file
from iggyflux.authoring.inference.syslog import PATTERN, syslog_trees
from iggyflux.errors import DecodeError
from iggyflux.expressions import compile_expression
from iggyflux.lineprotocol import parse_lines
from iggyflux.mapping import WriterMapping
from iggyflux.payloads import FORMATS
from iggyflux.records import JSON
from iggyflux.transports.local.envelopes import bare_message
from tests.shell import iggyflux

LINES = """\
<165>1 2026-03-01T06:00:00.003Z edge-7.plant.example dnsmasq-dhcp 811 - - DHCPACK(br-lan) 192.168.1.23 lease=3600 mac=3c:22:fb:01:02:03
<165>1 2026-03-01T06:00:01.120Z edge-7.plant.example dnsmasq-dhcp 811 - - DHCPACK(br-lan) 192.168.1.24 lease=7200 mac=3c:22:fb:01:02:04
<30>1 2026-03-01T07:00:02+01:00 nas01 smartd 612 - - Device: /dev/sda [SAT], SMART Usage Attribute: 194 Temperature_Celsius changed from 60 to 61
<86>1 2026-03-01T06:11:00.5Z nas01 sshd 9912 ID47 [origin ip="192.0.2.4"][exampleSDID@32473 iut="3" eventSource="App \\"x\\]" eventID="1011"] Accepted publickey for ada
<14>1 2026-03-01T06:12:00Z 192.0.2.9 - - - -
"""  # noqa: E501


def test_the_header_of_syslog_is_stored_and_load_takes_the_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host, program, severity, facility and time are those of each line, and its text is kept."""
    monkeypatch.chdir(tmp_path)
    Path("edge.log").write_text(LINES)

    written = iggyflux("infer", "edge.log", "--output", "edge.yaml")
    proved, loaded = iggyflux("test", "edge.yaml"), iggyflux("load", "edge.yaml", "edge.log", "--dry-run")

    assert (written.code, proved.code, loaded.code) == (0, 0, 0), written.err + proved.err + loaded.err
    points = list(parse_lines(loaded.out.encode()))
    tags = [dict(point.tags) for point in points]
    fields = [dict(point.fields) for point in points]
    assert [(each.get("host"), each.get("app"), each["severity"], each["facility"]) for each in tags] == [
        *[("edge-7.plant.example", "dnsmasq-dhcp", "5", "20")] * 2,
        *[("nas01", "smartd", "6", "3"), ("nas01", "sshd", "6", "10")],
    ]
    assert [point.timestamp_ns for point in points][2] == 1772344802 * 10**9
    assert [each["message"] for each in fields] == [
        *[line.partition(" - - ")[2] for line in LINES.splitlines()[:3]],
        "Accepted publickey for ada",
    ]
    assert [each.get("lease") for each in fields[:3]] == [3600.0, 7200.0, None]
    assert (tags[3]["eventID"], fields[3]["ip"], fields[3]["iut"]) == ("1011", "192.0.2.4", 3.0)
    assert tags[3]["eventSource"] == 'App "x]'
    assert "1 skipped by `where`" in loaded.err  # the line without any value


WORD = st.text(alphabet="abzAZ09.-_:/@", min_size=1, max_size=8)
PART = st.none() | WORD.filter(lambda word: word != "-")
VALUE = st.text(alphabet='aé 1"\\]=', max_size=6)
DATA = st.none() | st.dictionaries(st.sampled_from(["q@1", "b@32473", "meta"]), VALUE, min_size=1)
TEXT = st.none() | st.text(alphabet="ab é[]\"'\\\n-<>1:", max_size=20)
TIMES = st.none() | st.integers(0, 10**9).map(lambda n: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=n))


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


@given(
    priority=st.integers(0, 191),
    time=TIMES,
    host=PART,
    app=PART,
    pid=PART,
    kind=PART,
    data=DATA,
    text=TEXT,
    bom=st.booleans(),
)
@settings(max_examples=200)
def test_every_line_of_the_grammar_is_taken_apart(
    priority: int,
    time: datetime | None,
    host: str | None,
    app: str | None,
    pid: str | None,
    kind: str | None,
    data: dict[str, str] | None,
    text: str | None,
    bom: bool,
) -> None:
    """As RFC 5424 writes it: a part that is nil is null, and a mark of UTF-8 is not of the text."""
    stamp = None if time is None else time.isoformat()
    elements = None if data is None else "".join(f'[{name} k="{escaped(value)}"]' for name, value in data.items())
    parts = ["-" if each is None else each for each in (stamp, host, app, pid, kind, elements)]
    line = f"<{priority}>1 {' '.join(parts)}" + ("" if text is None else f" {chr(0xFEFF) * bom}{text}")

    ([tree], _) = syslog_trees([line.encode()])

    assert isinstance(tree, dict)
    found = [tree[name] for name in ("time", "host", "app", "pid", "msgid", "data", "message")]
    assert found == [stamp, host, app, pid, kind, elements, text]
    assert (int(str(tree["facility"])) * 8) + int(str(tree["severity"])) == priority
    with pytest.raises(DecodeError):
        syslog_trees([line.encode(), line.replace(">1 ", ">2 ", 1).encode()])


@given(st.lists(VALUE, min_size=1, max_size=4))
def test_values_of_structured_data_are_without_the_escapes_of_their_line(values: list[str]) -> None:
    """A backslash before another character is one, as RFC 5424 has it."""
    lines = [f'<13>1 - - - - - [q@1 k="{escaped(value)}" l="a\\b"]'.encode() for value in values]
    trees, captures = syslog_trees(lines)
    reads = {name: compile_expression(captures[name]) for name in "kl"}

    assert [{name: tree[name] for name in "kl"} for tree in trees if isinstance(tree, dict)] == [
        {"k": value, "l": "a\\b"} for value in values
    ]
    for line, value in zip(lines, values, strict=True):
        parts = FORMATS["text"].decode(line, {"pattern": PATTERN}, None, False)
        assert {name: each.evaluate(parts) for name, each in reads.items()} == {"k": value, "l": "a\\b"}


@pytest.mark.parametrize("secret", ["user=ada password=kanarie7f3a", "token: kanarie7f3a"])
def test_a_text_with_a_secret_is_not_stored(secret: str) -> None:
    """Neither in a field nor in an example: it is said that it was left out."""
    lines = [f"<13>1 2026-03-01T06:00:0{n}Z nas01 cron 7{n} - - {secret if n else 'job 1 done'}" for n in range(3)]

    proposal = infer(recognize_file("\n".join(lines).encode()))

    assert "kanarie7f3a" not in proposal.text("yaml")
    assert "message" not in [field.key for field in proposal.fields]
    assert "message" in proposal.warnings[0]


@pytest.mark.parametrize(
    "secret", ["password='zeisig kanarie7f3a'", "password='zeisig \"x kanarie7f3a", 'api_key=zeisig"kanarie7f3a"']
)
def test_a_secret_with_quotes_inside_is_masked_whole_in_examples(secret: str) -> None:
    text = infer(recognize_file(f"lux=7 {secret}\nlux=8 {secret}\n".encode())).text("yaml")

    assert "examples:" in text
    assert "kanarie7f3a" not in text


@pytest.mark.parametrize("name", ["open", "phase", "connections", "oven", "token_count"])
@pytest.mark.parametrize(
    "line",
    [
        "hall,side=a {}={}i,lux=2.5 1700000000000000000",
        "[hall] {}={} lux=2.5",
        "<13>1 2026-03-01T06:00:00Z nas cron - - - hall {}={} lux=2.5",
        '{{"{}": "{}", "lux": 2.5}}',
    ],
)
def test_a_name_like_that_of_a_secret_hides_nothing(line: str, name: str) -> None:
    """Keys of a pipeline may be misspelt; names in data are what they are."""
    proposal = infer(recognize_file("\n".join(line.format(name, number) for number in (17, 18)).encode()))

    assert name in [each.key for each in (*proposal.fields, *proposal.tags)]
    assert (proposal.warnings, [each.form == "payload_base64" for each in proposal.examples]) == ((), [False])
    assert "***" not in proposal.text("yaml")


@pytest.mark.parametrize(
    "text",
    [
        'hall,side=a lux=2.5,password="zeisig ka\\"narie" 1700000000000000000',
        "hall,side=a,token=zeisig\\ ka lux=2.5 1700000000000000000",
        'hall,side=a lux=2.5,note="password=zeisig" 1700000000000000000',
        '{"lux": 2.5, "password": "zeisig", "token_count": "7"}',
        '{"lux": 2.5, "password": "zeisig", "low": NaN}',
        "[hall] lux=2.5 user=ada password=zeisig",
        {"lux": 2.5, "password": "zeisig"},
    ],
)
def test_a_secret_is_in_no_form_of_an_example(text: str | dict[str, JSON]) -> None:
    """Nor in the bytes of one, as of Avro."""
    proposal = infer(recognize_file(f"{text}\n".encode() if isinstance(text, str) else container_of(text)))

    assert ("password" in str(proposal.warnings) or "token" in str(proposal.warnings)) == ("note=" not in text)
    written = proposal.text("yaml")
    for each in re.findall(r"payload_base64: '([^']*)'", written):
        written += b64decode(each).decode("utf-8", "replace")
    assert "lux" in written
    assert "zeisig" not in written


def container_of(row: dict[str, JSON]) -> bytes:
    fields = [{"name": name, "type": "string" if isinstance(each, str) else "double"} for name, each in row.items()]
    file = io.BytesIO()
    fastavro.writer(file, {"type": "record", "name": "R", "fields": fields}, [row])
    return file.getvalue()


def test_words_beside_pairs_are_not_left_out_without_a_word() -> None:
    """The comment says it; lines of nothing but pairs have none."""
    beside = "2026-03-01T06:00:00Z [hall] lux=7 door=open\n2026-03-01T06:01:00Z [hall] lux=8 door=shut\n"
    only = "\n".join(line.partition("] ")[2] for line in beside.splitlines())

    assert "CHECK: other words are not stored" in infer(recognize_file(beside.encode())).text("yaml")
    assert "CHECK" not in recognize_file(only.encode()).how
    assert json.dumps(recognize_file(only.encode()).trees[0]) == '{"lux": "7", "door": "open"}'


@given(
    lines=st.lists(
        st.tuples(st.sampled_from(["dhcpd", "smartd", "sshd"]), st.sampled_from("ab"), st.integers(0, 191)),
        min_size=1,
        max_size=150,
    )
)
@settings(max_examples=30)
def test_severity_and_facility_are_tags_whatever_their_values_are(lines: list[tuple[str, str, int]]) -> None:
    """Also where they change within one program, and where one has the values of the other."""
    text = "".join(
        f"<{priority}>1 2026-03-01T06:{n // 60:02}:{n % 60:02}Z nas0{host} {app} {n} - - spindle speed {n}\n"
        for n, (app, host, priority) in enumerate(lines)
    )

    samples = recognize_file(text.encode())
    proposal = infer(samples)

    tags = [tag.key for tag in proposal.tags]
    assert {"severity", "facility", "host", "app"} <= set(tags)
    mapping = parse_mapping(proposal.text())
    assert isinstance(mapping, WriterMapping)
    rendered = mapping.plan().render([bare_message(each, n) for n, each in enumerate(samples.payloads)])
    points = [dict(point.tags) for line in rendered.lines for point in parse_lines(line)]
    assert [(each["severity"], each["facility"]) for each in points] == [(str(p % 8), str(p // 8)) for _, _, p in lines]


@pytest.mark.parametrize("priority", [9 * 4, 9 * 7])
def test_a_facility_with_the_values_of_the_severity_is_a_tag_too(priority: int) -> None:
    lines = [f"<{priority}>1 2026-03-01T06:00:{n}Z nas01 cron 7 - - speed {n}" for n in range(10, 40)]
    tags = [tag.key for tag in infer(recognize_file("\n".join(lines).encode())).tags]
    assert {"severity", "facility"} <= set(tags)
