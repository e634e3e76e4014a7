"""Readers on the command line: check, dry-run, run, cursor, against a simulator."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.request
import zlib
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import Outcome, iggyflux

from iggyflux.sim import SimServer

START = 1_767_225_600  # 2026-01-01T00:00:00Z
TOKEN = "do-not-print-me"

MAPPING = """\
iggyflux: 1
kind: reader
name: back
from: {measurement: env}
cursor: {start: 2026-01-01T00:00:00Z, overlap: 20s}
messages: {payload: "{t: time, d: device, v: value}", key: device}
to: {stream: s, topic: back}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", TOKEN)
    Path("back.yaml").write_text(MAPPING)
    return tmp_path


@pytest.fixture
def server() -> Iterator[SimServer]:
    with SimServer(2, token=TOKEN) as running:
        write(running, *[(START + number, f"d{number % 2}", number) for number in range(10)])
        yield running


def write(server: SimServer, *points: tuple[float, str, float | str]) -> None:
    body = "\n".join(f"env,device={device} value={value} {int(when * 10**9)}" for when, device, value in points)
    headers = {"Authorization": f"Token {TOKEN}"}
    request = urllib.request.Request(f"{server.url}/api/v2/write?org=org&bucket=test", body.encode(), headers)
    urllib.request.urlopen(request).close()


def pipeline(server: SimServer, to: str = "to: log:data\n", more: str = "", **keys: str) -> str:
    given = {"url": f'"{server.url}"', "org": "org", "bucket": "test", "token": '"${TOKEN}"', **keys}
    section = ", ".join(f"{key}: {value}" for key, value in given.items() if value)
    text = f"iggyflux: 1\ninfluxdb: {{{section}, poll_interval: 100ms}}\n{to}run:\n  - mapping: back.yaml\n{more}"
    Path("p.yaml").write_text(text)
    return "p.yaml"


def sent(outcome: Outcome) -> list[dict[str, object]]:
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_a_reader_runs_from_a_server_into_a_log_and_goes_on_where_it_was(server: SimServer) -> None:
    path = pipeline(server)
    first = iggyflux("run", path, "--until-end")
    write(server, (time.time() - 15, "d9", 99))
    second = iggyflux("run", path, "--until-end")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "10 rows, 10 messages sent" in first.err
    assert "1 row, 1 message sent" in second.err
    tail = sent(iggyflux("log", "tail", "data", "s/back", "-n", "20"))
    assert [message["v"] for message in tail] == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9, 99]


@pytest.mark.parametrize("envelope", [False, True], ids=["payloads", "envelopes"])
def test_a_file_has_a_payload_or_a_whole_message_a_line(server: SimServer, envelope: bool) -> None:
    iggyflux("run", pipeline(server, f"to: {{file: out.ndjson, envelope: {str(envelope).lower()}}}\n"), "--until-end")
    (first, *rest) = [json.loads(line) for line in Path("out.ndjson").read_text().splitlines()]

    payload = {"t": START * 10**9, "d": "d0", "v": 0}
    assert len(rest) == 9
    if not envelope:
        assert first == payload
        return
    number = first.pop("id")
    assert number.isdigit()
    assert first == {"stream": "s", "topic": "back", "key": "d0", "payload": payload}
    point = "{measurement: {const: m}, timestamp: {expr: t, format: unix_ns}, fields: [v]}"
    Path("w.yaml").write_text(f"iggyflux: 1\nkind: writer\nfrom: {{stream: s, topic: back}}\npoints: {point}\n")
    again = iggyflux("dry-run", "w.yaml", "out.ndjson", "--envelope")
    assert again.out.startswith(f"m v=0.0 {START}000000000\n"), again.err


MISSING = {
    "measurement": (("measurement: env", "measurement: evn"), "measurement", "evn", "there is env"),
    "column": (("d: device", "d: devise"), "column", "devise", "the columns are device, value"),
    "fields": (("measurement: env", "measurement: env, fields: [class, value]"), "column", "class", "value, device"),
    "tag": (("measurement: env", "measurement: env, where: {while: x}"), "tag", "while", "the tags are device"),
}


@pytest.mark.parametrize(("change", "what", "name", "hint"), MISSING.values(), ids=MISSING)
def test_a_measurement_and_columns_that_are_not_there_are_reported(
    server: SimServer, change: tuple[str, str], what: str, name: str, hint: str
) -> None:
    """The reader sends nulls, or nothing, and its position moves."""
    Path("back.yaml").write_text(MAPPING.replace(*change))
    path = pipeline(server)
    checked = iggyflux("check", path)
    run = iggyflux("run", path, "--until-end")
    events = [line for line in run.err.splitlines() if "no_such_" in line]

    assert (checked.code, run.code) == (0, 0), checked.out + run.err
    assert f"{what} '{name}' not found" in checked.out
    assert hint in checked.out
    assert len(events) == 1
    assert f"influxdb.query.no_such_{what} name='{name}'" in events[0]
    assert hint in events[0]


def test_a_reader_whose_columns_are_there_has_no_warning(server: SimServer) -> None:
    path = pipeline(server)

    assert "not found" not in iggyflux("check", path).out
    assert "no_such" not in iggyflux("run", path, "--until-end").err


def test_stdout_takes_messages_too(server: SimServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "iggyflux", "run", pipeline(server, "to: stdout\n"), "--until-end"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert len(done.stdout.splitlines()) == 10


def test_dry_run_shows_the_newest_live_rows_and_stores_nothing(server: SimServer) -> None:
    write(server, *[(time.time() - 100 + number, "d", number) for number in range(50)])
    outcome = iggyflux(
        "dry-run", "back.yaml", "--from", "influxdb", "--last", "1h", "--limit", "3", "--pipeline", pipeline(server)
    )

    assert [message["payload"]["v"] for message in sent(outcome)] == [47, 48, 49]  # type: ignore[index]
    assert outcome.err == "3 rows: 3 messages\n"
    assert not Path(".iggyflux").exists()
    nothing = iggyflux("dry-run", "back.yaml", "--from", "influxdb", "--last", "1s", "--pipeline", "p.yaml")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no rows found in that time" in nothing.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--last", "1h"], "--last needs --from influxdb"),
        (["--from", "iggy"], "a reader needs --from influxdb"),
        (["--from", "influxdb"], "needs --pipeline"),
        (["--from", "influxdb", "--last", "soon", "--pipeline", "back.yaml"], "'soon' is not a duration"),
        (["rows.jsonl", "--from", "influxdb"], "--from and SAMPLES are mutually exclusive"),
    ],
    ids=["last-alone", "iggy", "no-pipeline", "span", "both"],
)
def test_options_of_a_live_dry_run_that_make_no_sense(options: list[str], words: str) -> None:
    outcome = iggyflux("dry-run", "back.yaml", *options)

    assert outcome.code == 2
    assert words in outcome.err


def test_check_asks_both_ends(server: SimServer) -> None:
    checked = iggyflux("check", pipeline(server))

    assert checked.code == 0, checked.out + checked.err
    assert "ok   from  influxdb: connected; rows are queried in" in checked.out
    assert "ok   from  influxdb: a window can be read" in checked.out
    assert "?    to    log:data" not in checked.out
    assert "the log does not exist yet" in checked.out
    assert not Path("data").exists()


WRONG = {
    "token": ({"token": "wrong"}, "401"),
    "bucket": ({"bucket": "tset"}, "tset"),
    "address": ({"url": '"http://127.0.0.1:1"'}, "Connection refused"),
}


@pytest.mark.parametrize(("keys", "words"), WRONG.values(), ids=WRONG)
def test_check_and_run_report_the_faults_of_a_server(server: SimServer, keys: dict[str, str], words: str) -> None:
    path = pipeline(server, **keys)
    checked = iggyflux("check", path)

    assert checked.code == 1
    assert words in checked.out
    assert "hint:" in checked.out
    if "url" not in keys:  # a server that is away is waited for
        ran = iggyflux("run", path)
        assert ran.code == 3
        assert words in ran.err
        assert TOKEN not in ran.err


STATEMENTS = {
    "no-language": ("SELECT * FROM env WHERE time >= $start AND time < $stop GRUP BY x", "IFX742"),
    "shifted": ("SELECT * FROM env WHERE time >= $start - 1d AND time < $stop + 1d", "IFX644"),
}


@pytest.mark.parametrize(("statement", "code"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_wrong_statement_stops_with_its_place(server: SimServer, statement: str, code: str) -> None:
    Path("back.yaml").write_text(
        MAPPING.replace("{measurement: env}", f'{{language: influxql, statement: "{statement}"}}')
    )
    outcome = iggyflux("run", pipeline(server), "--until-end")

    assert outcome.code == 3
    assert code in outcome.err


def test_given_json_response_should_parse_into_messages() -> None:
    with SimServer(1) as server:
        body = f"env,device=d1 value=21.5,n=9007199254740993i,ok=true {START}000000001".encode()
        urllib.request.urlopen(f"{server.url}/write?db=test", body).close()
        Path("back.yaml").write_text(
            MAPPING.replace('{payload: "{t: time, d: device, v: value}", key: device}', "{payload: '@'}")
        )
        path = pipeline(server, "to: file:out.ndjson\n", org="", bucket="", token="", database="test")
        ran = iggyflux("run", path, "--until-end")

    assert ran.code == 0, ran.err
    (line,) = Path("out.ndjson").read_text().splitlines()
    found = {"time": START * 10**9 + 1, "device": "d1", "value": 21.5, "n": 9007199254740993, "ok": True}
    assert json.loads(line) == found


def test_given_empty_response_should_return_empty_vec(server: SimServer) -> None:
    Path("back.yaml").write_text(MAPPING.replace("measurement: env", "measurement: nothing"))
    ran = iggyflux("run", pipeline(server, "to: file:out.ndjson\n"), "--until-end")

    assert (ran.code, Path("out.ndjson").read_text()) == (0, "")


def test_given_watermark_should_query_from_last_position(server: SimServer) -> None:
    """What is final is not asked for again."""
    path = pipeline(server)
    iggyflux("run", path, "--until-end")
    final = json.loads(iggyflux("cursor", "show", path, "--format", "json").out)["final"]
    write(server, (START + 1000, "older", 1), (time.time() - 15, "newer", 2))
    iggyflux("run", path, "--until-end")

    assert final > "2026-01-02"
    devices = [message["d"] for message in sent(iggyflux("log", "tail", "data", "s/back", "-n", "20"))]
    assert ("newer" in devices, "older" in devices) == (True, False)


def test_given_v3_detected_should_use_sql_query() -> None:
    with SimServer(3) as server:
        body = f"env,device=d1 value=1 {START}000000000".encode()
        urllib.request.urlopen(f"{server.url}/api/v3/write_lp?db=test", body).close()
        checked = iggyflux("check", pipeline(server, org="", bucket="", token="", database="test"))

    assert "rows are queried in sql" in checked.out


def test_given_v2_detected_should_use_flux_query(server: SimServer) -> None:
    assert "rows are queried in flux" in iggyflux("check", pipeline(server)).out


def test_a_run_uses_influxql_and_reports_it_if_flux_would_change_rows(server: SimServer) -> None:
    write(server, (START + 10**7, "d1", '"a text"'))
    path = pipeline(server)
    checked, ran = iggyflux("check", path), iggyflux("run", path, "--until-end")

    assert "rows are queried in influxql" in checked.out
    assert "Flux would change the rows:" in ran.err


def test_rows_that_fail_are_dead_letters_that_dry_run_reads_again(server: SimServer) -> None:
    """Their payload is the row; `replay` says how they are read again, since they are not messages."""
    Path("back.yaml").write_text(MAPPING.replace("v: value", "v: add(value, device)"))
    ran = iggyflux("run", pipeline(server), "--until-end")
    assert ran.code == 0, ran.err
    assert "10 kept as dead letters" in ran.err
    assert "env,device=d0@2026-01-01T00:00:00Z" in ran.err

    letters = [json.loads(line) for line in Path("dead-letters/back/00000001.ndjson").read_text().splitlines()]
    Path("rows.jsonl").write_bytes(b"".join(b64decode(letter["payload_base64"]) + b"\n" for letter in letters))
    Path("back.yaml").write_text(MAPPING)
    again = sent(iggyflux("dry-run", "back.yaml", "rows.jsonl"))
    assert sorted(message["payload"]["v"] for message in again) == list(range(10))  # type: ignore[index]
    replayed = iggyflux("replay", "dead-letters/back", "--pipeline", "p.yaml")
    assert replayed.code == 1
    assert "`iggyflux cursor set p.yaml --mapping back --at TIME` reads them again" in replayed.err
    rendered = iggyflux("replay", "dead-letters/back", "--mapping", "back.yaml", "--dry-run")
    assert rendered.code == 2
    assert "back.yaml is a reader" in rendered.err


def test_cursor_shows_sets_and_resets_and_asks_before(server: SimServer) -> None:
    path = pipeline(server)
    assert "nothing is stored" in iggyflux("cursor", "show", path).out
    iggyflux("run", path, "--until-end")

    shown = json.loads(iggyflux("cursor", "show", path, "--format", "json").out)
    assert shown["query"] == {"place": "test", "measurement": "env", "statement": None, "where": {}}
    assert (shown["fits"], shown["backfill"]) == (True, None)
    asked = iggyflux("cursor", "reset", path, "--mapping", "back", stdin="y\n")
    assert asked.code == 2
    assert "add --yes" in asked.err
    at = "2026-01-01T00:00:05Z"
    moved = iggyflux("cursor", "set", path, "--mapping", "back", "--at", at, "--yes")
    assert f"read to     {at}" in moved.out
    assert "5 rows, 5 messages sent" in iggyflux("run", path, "--until-end").err
    assert iggyflux("cursor", "reset", path, "--mapping", "back", "--yes").code == 0
    assert "10 rows, 10 messages sent" in iggyflux("run", path, "--until-end").err


def test_a_cursor_that_is_damaged_can_be_set_and_reset(server: SimServer) -> None:
    path = pipeline(server)
    iggyflux("run", path, "--until-end")
    file = Path(".iggyflux/back.cursor.sqlite")
    file.write_bytes(file.read_bytes()[:5000])

    assert "IFX701" in iggyflux("run", path, "--until-end").err
    assert iggyflux("cursor", "show", path).code == 3
    assert iggyflux("cursor", "reset", path, "--mapping", "back", "--yes").code == 0
    assert "10 rows" in iggyflux("run", path, "--until-end").err


def test_a_cursor_of_the_release_before_is_refused_and_its_time_goes_on(server: SimServer) -> None:
    path = pipeline(server)
    Path(".iggyflux").mkdir()
    content = b'{"checked":5,"done":1767225605000000000,"gap":null,"query":{},"reader":"back","slices":[],"width":16}'
    old = Path(".iggyflux/back.cursor.json")
    old.write_bytes(b'{"iggyflux":"cursor","version":1,"crc32":%d,"content":%s}\n' % (zlib.crc32(content), content))
    refused = [iggyflux("run", path, "--until-end"), iggyflux("cursor", "show", path)]

    assert [each.code for each in refused] == [3, 3]
    assert all("they have format 1; this release reads format 2" in each.err for each in refused), refused
    assert "cursor set" in refused[0].err
    iggyflux("cursor", "set", path, "--mapping", "back", "--at", "2026-01-01T00:00:05Z", "--yes")
    assert "5 rows" in iggyflux("run", path, "--until-end").err
    assert old.exists(), "the release before can go on with it"


def test_the_cursor_of_a_reader_that_runs_is_not_moved(server: SimServer) -> None:
    path = pipeline(server)
    with subprocess.Popen([sys.executable, "-m", "iggyflux", "run", path], stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        while b"route.connected" not in running.stderr.readline():
            pass
        moved = iggyflux("cursor", "set", path, "--mapping", "back", "--at", "2026-01-01T00:00:05Z", "--yes")
        running.send_signal(signal.SIGTERM)
        running.communicate()

    assert (moved.code, "IFX702" in moved.err, str(running.pid) in moved.err) == (3, True, True)
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("name", "words"), [("bcak", "did you mean back"), ("w", "'w' is a writer")], ids=["misspelt", "writer"]
)
def test_only_readers_have_cursors(server: SimServer, name: str, words: str) -> None:
    Path("w.yaml").write_text(
        "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\npoints: {measurement: {const: m}, fields: [v]}\n"
    )
    path = pipeline(server, "", "    to: log:data\n  - {mapping: w.yaml, from: log:data, to: file:x.lp}\n")
    outcome = iggyflux("cursor", "reset", path, "--mapping", name, "--yes")

    assert outcome.code != 0
    assert words in outcome.err


ENDS = {
    "from-log": ("    from: log:data\n    to: log:out\n", "IFX813"),
    "to-influxdb": ("    to: influxdb\n", "IFX813"),
    "nowhere": ("", "IFX807"),
    "letters-in-no-topic": ("    to: file:x\n    dead_letters: {stream: s, topic: t}\n", "IFX813"),
}


@pytest.mark.parametrize(("more", "code"), ENDS.values(), ids=ENDS)
def test_ends_that_no_reader_has_are_reported_before_the_start(server: SimServer, more: str, code: str) -> None:
    outcome = iggyflux("validate", pipeline(server, "", more))

    assert outcome.code == 1
    assert code in outcome.err + outcome.out


@pytest.mark.parametrize(
    ("change", "to", "code"),
    [
        (("key: device}", "key: device, timestamp: time}"), "iggy", "IFX776"),
        (("topic: back}", "topic: back, payload: msgpack}"), "file:x", "IFX813"),
    ],
    ids=["timestamp-to-iggy", "binary-lines"],
)
def test_what_a_sink_cannot_do_is_reported_before_the_start(
    server: SimServer, change: tuple[str, str], to: str, code: str
) -> None:
    Path("back.yaml").write_text(MAPPING.replace(*change))
    path = pipeline(server, f"to: {to}\niggy: {{username: u, password: p}}\n")
    outcome = iggyflux("validate", path)

    assert outcome.code == 1
    assert code in outcome.err + outcome.out


def test_a_reader_whose_server_is_away_stalls_no_other(server: SimServer) -> None:
    Path("away.yaml").write_text(MAPPING.replace("name: back", "name: away"))
    more = '  - {mapping: away.yaml, to: "file:away.ndjson", influxdb: {url: "http://127.0.0.1:1"}}\n'
    path = pipeline(server, "to: file:out.ndjson\n", more)
    with subprocess.Popen(
        [sys.executable, "-m", "iggyflux", "run", path, "--status-file", "st.json"], stderr=subprocess.PIPE
    ) as running:
        until, states = time.monotonic() + 60, dict[str, Any]()
        while not (
            states
            and "refused" in (states["away"]["waiting_for"] or "")
            and states["back"]["delivered"] == 10
            and (states["back"]["reader"]["done"] or "").startswith("20")
        ):
            assert time.monotonic() < until, states
            time.sleep(0.05)
            if Path("st.json").exists():
                states = {route["name"]: route for route in json.loads(Path("st.json").read_text())["routes"]}
        written = Path("out.ndjson").read_text().splitlines()
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate()

    assert running.returncode == 0, err.decode()
    assert len(written) == 10


def test_a_terminal_sees_how_far_a_backfill_is(server: SimServer) -> None:
    """A bar, the time that is reached, and what is left."""
    Path("back.yaml").write_text(MAPPING.replace("overlap: 20s", "overlap: 20s, window: 1s"))
    write(server, *[(START + number / 10, f"e{number % 7}", number) for number in range(3_000)])
    path = pipeline(server, backfill_rate="100")
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen([sys.executable, "-m", "iggyflux", "run", path], stderr=child, env=env) as running:
        os.close(child)
        seen, until = b"", time.monotonic() + 60
        while b" left" not in seen and time.monotonic() < until:
            seen += os.read(parent, 65536)
        running.send_signal(signal.SIGTERM)
        running.wait(60)
    os.close(parent)

    assert b"backfill to 2026-01-01T00:0" in seen
    assert b" left" in seen
