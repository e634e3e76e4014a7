"""`run`, `check`, `replay` and `log` as processes and in this one: what they move, and how they end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from iggy_server import free_ports
from shell import iggyflux, process

DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points:
  measurement: {const: m}
  tags: [d]
  fields: {a: a}
  timestamp: {expr: ts, format: unix_s}
examples:
  - {message: {d: d1, a: 1.5, ts: 1}, points: ['m,d=d1 a=1.5 1000000000']}
"""
PIPELINE = "iggyflux: 1\nfrom: log:data\nto: file:points.lp\ndead_letters: dead\nrun: [{mapping: env.yaml}]\n"
GOOD = b'{"d": "d1", "a": 1, "ts": 1}\n'
BAD = b'{"d": "d1", "a": "x", "ts": 2}\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a mapping and a pipeline."""
    (tmp_path / "env.yaml").write_text(DOCUMENT, "utf-8")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(*lines: bytes) -> None:
    outcome = iggyflux("log", "append", "data", "s/t", stdin=b"".join(lines))
    assert outcome.code == 0, outcome.err


def points() -> list[str]:
    return Path("points.lp").read_text("utf-8").splitlines()


def test_a_second_run_has_nothing_to_do() -> None:
    """Positions are durable."""
    fill(GOOD, GOOD)

    first, second = (iggyflux("run", "pipeline.yaml", "--until-end") for _ in range(2))

    assert (first.code, second.code) == (0, 0)
    assert points() == ["m,d=d1 a=1.0 1000000000"] * 2
    assert "env  done: 2 messages, 2 points written, 2 acknowledged" in first.err
    assert "env  done: 0 messages" in second.err


def test_a_route_that_must_stop_exits_3_with_a_reason() -> None:
    """`on_error: fail` acknowledges nothing of what is in flight."""
    Path("env.yaml").write_text(DOCUMENT + "on_error: fail\n", "utf-8")
    fill(GOOD, BAD)

    outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet")

    assert outcome.code == 3
    assert "env  stopped: " in outcome.err
    assert "0 acknowledged" in outcome.err


@pytest.mark.parametrize("lines", [(GOOD,), (GOOD, BAD), (BAD, BAD, GOOD)], ids=len)
@pytest.mark.parametrize("on_error", ["dead_letter", "skip"])
@pytest.mark.parametrize(
    ("option", "counts"), [("dead-letters", ["dead_letter"]), ("failures", ["dead_letter", "skip"])]
)
def test_a_batch_job_may_fail_for_failed_messages(
    lines: tuple[bytes, ...], on_error: str, option: str, counts: list[str]
) -> None:
    """Everything is done as without the option; only the exit code and the last line differ."""
    Path("env.yaml").write_text(f"{DOCUMENT}on_error: {on_error}\n", "utf-8")
    fill(*lines)

    outcome = iggyflux("run", "pipeline.yaml", "--until-end", "--quiet", "--fail-on", option)

    bad = lines.count(BAD) if on_error in counts else 0
    assert outcome.code == (1 if bad else 0)
    assert (f"failed by --fail-on {option}: {bad} message" in outcome.err) == bool(bad)
    assert len(points()) == lines.count(GOOD)


def test_a_route_that_stopped_exits_3_whatever_it_may_fail_on() -> None:
    Path("env.yaml").write_text(DOCUMENT + "on_error: fail\n", "utf-8")
    fill(GOOD, BAD)

    assert iggyflux("run", "pipeline.yaml", "--until-end", "--fail-on", "failures").code == 3


def test_events_are_json_where_machines_read_and_the_status_file_is_kept() -> None:
    """One object a line; the counters of the end are in the file."""
    fill(GOOD, BAD)

    outcome = process("run", "pipeline.yaml", "--until-end", "--log-format", "json", "--status-file", "status.json")

    events = [json.loads(line) for line in outcome.err.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events][-1] == "route.done"
    status = json.loads(Path("status.json").read_text("utf-8"))
    assert status["routes"][0]["acknowledged"] == 2
    assert status["routes"][0]["dead_letters"] == 1


def test_a_run_that_follows_ends_well_on_sigterm() -> None:
    """What is in flight is finished, and the exit code is 0."""
    fill(GOOD)
    command = [sys.executable, "-m", "iggyflux", "run", "pipeline.yaml", "--log-format", "text"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert "route.connected" in running.stderr.readline()
        running.send_signal(signal.SIGTERM)
        said = running.stderr.read()
        code = running.wait(60)

    assert code == 0
    assert "Traceback" not in said
    assert "env  done: " in said


@pytest.mark.parametrize("timeouts", ["shutdown_timeout: 200ms\n", ""])
def test_a_server_that_never_answers_holds_up_no_end(timeouts: str) -> None:
    """When stopped, it does not wait for a request's own timeout: here it hangs at the first."""
    fill(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        to = f"influxdb: {{url: '{url}', database: d, timeout: 5m}}\n"
        Path("hangs.yaml").write_text(f"iggyflux: 1\nfrom: log:data\n{timeouts}{to}run: [{{mapping: env.yaml}}]\n")
        command = [sys.executable, "-m", "iggyflux", "run", "hangs.yaml", "--log-format", "text"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(100).startswith(b"GET /ping")
                running.send_signal(signal.SIGTERM)
                code = running.wait(120)

    assert code == 0


def test_replay_sends_what_was_corrected() -> None:
    """Mend the mapping, replay, and every point is there; the letters stay."""
    fill(GOOD, BAD)
    iggyflux("run", "pipeline.yaml", "--until-end")
    Path("env.yaml").write_text(DOCUMENT.replace("{a: a}", '{a: {expr: "parse_number(a, `0`)"}}'), "utf-8")

    shown = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml", "--dry-run")
    sent = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml")

    assert (shown.code, shown.out) == (0, "m,d=d1 a=0.0 2000000000\n")
    assert sent.code == 0
    assert "env: 1 message, 1 point written, 0 failed again" in sent.err
    assert [outcome.err.count("warning[IFX718]") for outcome in (shown, sent)] == [1, 1]
    assert points() == ["m,d=d1 a=1.0 1000000000", "m,d=d1 a=0.0 2000000000"]
    assert len(list(Path("dead").glob("*"))) >= 1


def test_letters_of_two_pipelines_in_one_folder_are_not_mixed_up() -> None:
    """Routes of one name: each file sends its own letters, and marks no other ones, unless a route is named."""
    fill(GOOD, BAD)
    for name in ("prod", "trial"):
        text = PIPELINE.replace("points.lp", f"{name}.lp").replace("run:", f"consumer: {{group: {name}}}\nrun:")
        Path(f"{name}.yaml").write_text(text, "utf-8")
        assert iggyflux("run", f"{name}.yaml", "--until-end").code == 0
    Path("env.yaml").write_text(DOCUMENT.replace("{a: a}", '{a: {expr: "parse_number(a, `0`)"}}'), "utf-8")

    trial = iggyflux("replay", "dead", "--pipeline", "trial.yaml")
    again = iggyflux("replay", "dead", "--pipeline", "trial.yaml")
    prod = iggyflux("replay", "dead", "--pipeline", "prod.yaml")
    named = iggyflux("replay", "dead", "--pipeline", "trial.yaml", "--route", "env", "--again")

    assert trial.code == again.code == 1
    assert "env: 1 message, 1 point written" in trial.err
    assert "1 letter of mapping 'env', kept by route 'env' of prod.yaml, which may have another server" in trial.err
    assert "written" not in again.err
    assert (prod.code, Path("prod.lp").read_text().splitlines()[1:]) == (0, ["m,d=d1 a=0.0 2000000000"])
    assert (named.code, "env: 2 messages, 2 points written" in named.err) == (0, True)
    assert "route     env of prod.yaml" in iggyflux("dead-letters", "show", "dead", "s/t/0@1").out


def test_letters_of_older_versions_are_sent_by_any_pipeline() -> None:
    """They name no file: such folders are replayed as before."""
    fill(BAD)
    assert iggyflux("run", "pipeline.yaml", "--until-end").code == 0
    (letters,) = Path("dead").glob("*.ndjson")
    kept = letters.read_text("utf-8")
    assert '"pipeline":"pipeline.yaml",' in kept
    letters.write_text(kept.replace('"pipeline":"pipeline.yaml",', ""), "utf-8")
    Path("env.yaml").write_text(DOCUMENT.replace("{a: a}", '{a: {expr: "parse_number(a, `0`)"}}'), "utf-8")
    Path("pipeline.yaml").rename("renamed.yaml")

    sent = iggyflux("replay", "dead", "--pipeline", "renamed.yaml")

    assert (sent.code, "env: 1 message, 1 point written" in sent.err) == (0, True)


def test_a_replay_ends_where_the_server_cannot_be_reached() -> None:
    """It says what was not sent, and how many failures it does not show."""
    fill(GOOD, *[BAD] * 25)
    iggyflux("run", "pipeline.yaml", "--until-end")
    failed = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml")
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    to = f"influxdb: {{url: '{url}', database: d, max_retries: 1}}\n"
    Path("away.yaml").write_text(f"iggyflux: 1\nfrom: log:data\n{to}run: [{{mapping: env.yaml}}]\n")
    away = iggyflux("replay", "dead", "--pipeline", "away.yaml", "--route", "env")

    assert (failed.code, failed.err.count("error[IFX340]")) == (1, 1)
    assert "; and 24 more failures for this reason\n" in failed.err
    assert away.code == 3
    assert "25 letters not sent yet: replay again" in away.err
    assert "IFX606" in away.err


def test_what_a_replay_logs_names_the_message_of_the_letter() -> None:
    """Letters of many places are sent together, and none of them is where they are read from."""
    fill(GOOD, BAD)
    iggyflux("run", "pipeline.yaml", "--until-end")
    omits = DOCUMENT.replace("{a: a}", "{a: {expr: a, on_bad_value: omit}, t: {expr: ts, type: integer}}")
    Path("env.yaml").write_text(omits.split("examples")[0], "utf-8")
    sent = process("replay", "dead", "--pipeline", "pipeline.yaml")

    assert "value.omitted route=env at=s/t/0@1 " in sent.err, sent.err
    assert "dead-letters/replay" not in sent.err


def test_replay_does_not_warn_of_letters_of_the_same_plan_or_of_an_older_version() -> None:
    """Those of older versions had the hash of a mapping, and no plan."""
    fill(BAD)
    iggyflux("run", "pipeline.yaml", "--until-end")
    Path("env.yaml").write_text("# changed\n" + DOCUMENT, "utf-8")
    (file,) = Path("dead").glob("*.ndjson")
    same = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml", "--dry-run")
    letter = json.loads(file.read_text())
    assert len(letter.pop("plan")) == 12
    file.write_text(json.dumps({**letter, "mapping_hash": "8e8ca247f05c4c2c"}) + "\n")
    older = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml", "--dry-run")

    assert "IFX718" not in same.err + older.err
    assert older.err == same.err


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 2),
        (["--reason", "ifx340"], 1),
        (["--reason", "IFX404", "--reason", "IFX340"], 2),
        (["--mapping-name", "other"], 0),
        (["--since", "2100-01-01T00:00:00Z"], 0),
        (["--until", "2100-01-01T00:00:00Z"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_replay_takes_the_letters_that_are_meant(options: list[str], count: int) -> None:
    """By code, by time of arrival, by mapping."""
    fill(GOOD, BAD, b'{"a":\n')
    iggyflux("run", "pipeline.yaml", "--until-end")

    outcome = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml", "--dry-run", *options)

    assert outcome.err.startswith(f"{count} dead letter")


def test_replay_names_letters_without_a_route() -> None:
    """A pipeline that does not have the mapping cannot send them."""
    fill(BAD)
    iggyflux("run", "pipeline.yaml", "--until-end")
    Path("env.yaml").rename("other.yaml")
    Path("pipeline.yaml").write_text(PIPELINE.replace("env.yaml", "other.yaml"), "utf-8")

    outcome = iggyflux("replay", "dead", "--pipeline", "pipeline.yaml")

    assert outcome.code == 1
    assert (
        "cannot replay 1 letter of mapping 'env': pipeline.yaml has no route for it (its routes: other)" in outcome.err
    )


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a simulated InfluxDB 2."""
    command = [sys.executable, "-m", "iggyflux", "sim", "--port", "0", "--bucket", "plant", "--org", "acme"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        match = re.search(r"http://[\w.:]+", running.stdout.readline())
        assert match
        yield match[0]
        running.send_signal(signal.SIGINT)
        running.wait(60)


def test_check_and_run_with_a_server(server: str) -> None:
    """`check` says what is there, `run` writes it, and a token never shows."""
    text = f"influxdb: {{url: '{server}', org: acme, bucket: plant, token: \"${{TOKEN}}\"}}\n"
    Path("pipeline.yaml").write_text(PIPELINE.replace("to: file:points.lp\n", text), "utf-8")
    fill(GOOD, GOOD)
    env = {"TOKEN": "do-not-print-me"}

    checked = iggyflux("check", "pipeline.yaml", env=env)
    ran = iggyflux("run", "pipeline.yaml", "--until-end", env=env)
    again = iggyflux("check", "pipeline.yaml", env=env)

    assert (checked.code, ran.code, again.code) == (0, 0, 0), checked.out + ran.err
    assert "ok   from  log:data: 2 messages in 1 partition of s/t" in checked.out
    assert f"at {server}" in checked.out
    assert "2 points written, 2 acknowledged" in ran.err
    assert "do-not-print-me" not in checked.out + checked.err + ran.out + ran.err


@pytest.mark.parametrize(
    ("command", "is_warned"),
    [
        (("validate", "pipeline.yaml"), True),
        (("check", "--local", "pipeline.yaml"), True),
        (("run", "--until-end", "pipeline.yaml"), True),
        (("load", "env.yaml", "m.ndjson", "--pipeline", "pipeline.yaml"), True),
        (("load", "env.yaml", "m.ndjson", "--pipeline", "pipeline.yaml", "--dry-run"), False),
        (("dry-run", "env.yaml", "m.ndjson", "--pipeline", "pipeline.yaml"), False),
        (("explain", "env.yaml", "--pipeline", "pipeline.yaml"), False),
        (("status", "pipeline.yaml"), False),
    ],
    ids=str,
)
def test_a_secret_in_a_pipeline_file_is_named_by_what_checks_or_runs_it(
    command: tuple[str, ...], is_warned: bool
) -> None:
    fill(GOOD)
    Path("m.ndjson").write_bytes(GOOD)
    Path("pipeline.yaml").write_text(f"{PIPELINE}influxdb: {{url: 'http://127.0.0.1:9', token: plain}}\n", "utf-8")

    outcome = iggyflux(*command)

    assert outcome.code == 0, outcome.err
    assert (outcome.out + outcome.err).count("IFX814") == is_warned


def test_check_finds_every_fault() -> None:
    """A topic that is not there, a folder that is not there, a server that is away."""
    fill(GOOD)
    Path("env.yaml").write_text(DOCUMENT.replace("topic: t", "topic: u"), "utf-8")
    Path("pipeline.yaml").write_text(PIPELINE.replace("file:points.lp", "file:nowhere/points.lp"), "utf-8")

    outcome = iggyflux("check", "pipeline.yaml")

    assert outcome.code == 1
    assert "FAIL from  log:data: topic s/u not found" in outcome.out
    assert "FAIL to    file:" in outcome.out
    assert "2 faults found" in outcome.err


# --- log ---


def test_keys_keep_messages_of_one_key_in_one_partition() -> None:
    """`--key` chooses the partition."""
    lines = [b'{"d": "d%d", "a": 1, "ts": %d}\n' % (number % 5, number) for number in range(40)]

    outcome = iggyflux("log", "append", "data", "s/t", "--partitions", "4", "--key", "d", stdin=b"".join(lines))

    assert outcome.code == 0
    shown = iggyflux("log", "tail", "data", "s/t", "-n", "100", "--envelope").out.splitlines()
    places: dict[str, set[int]] = {}
    for envelope in map(json.loads, shown):
        places.setdefault(envelope["payload"]["d"], set()).add(envelope["partition"])
    assert len(shown) == 40
    assert all(len(partitions) == 1 for partitions in places.values())


def test_what_tail_prints_is_what_append_and_dry_run_read() -> None:
    """Envelopes carry headers, ids and times through, and payloads of any bytes."""
    envelopes = (
        b'{"payload": {"d":  "x", "a": 1, "ts": 1}, "headers": {"k": 1.5, "b": {"base64": "AAE="}}, "id": "7"}\n'
        b'{"payload_text": "{broken", "timestamp_us": 1700000000000000}\n'
        b'{"payload_base64": "AAEK"}\n'
    )
    iggyflux("log", "append", "data", "s/t", "--envelope", stdin=envelopes)

    shown = iggyflux("log", "tail", "data", "s/t", "--envelope").out
    iggyflux("log", "append", "copy", "s/t", "--envelope", stdin=shown)

    assert iggyflux("log", "tail", "copy", "s/t", "--envelope").out == shown
    trees = [json.loads(line) for line in shown.splitlines()]
    assert '"payload":{"d":  "x", "a": 1, "ts": 1}' in shown
    assert trees[0]["headers"] == {"k": 1.5, "b": {"base64": "AAE="}}
    assert trees[1]["timestamp_us"] == 1700000000000000
    assert trees[2]["payload_base64"] == "AAEK"
    assert iggyflux("dry-run", "env.yaml", "-", "--envelope", stdin=shown).out == "m,d=x a=1.0 1000000000\n"


def test_payloads_that_are_no_lines_are_shown_escaped() -> None:
    """So that a line is a message; a note says how to see them whole."""
    iggyflux("log", "append", "data", "s/t", "--envelope", stdin=b'{"payload_base64": "AAEK"}\n')

    outcome = iggyflux("log", "tail", "data", "s/t")

    assert outcome.out == "b'\\x00\\x01\\n'\n"
    assert "use --envelope to print them unchanged" in outcome.err


def test_tail_follows_what_is_appended() -> None:
    """Until it is interrupted."""
    fill(GOOD)
    command = [sys.executable, "-m", "iggyflux", "log", "tail", "data", "s/t", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        first = running.stdout.readline()
        fill(BAD)
        second = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        code = running.wait(60)

    assert [first, second] == [GOOD, BAD]
    assert code == 130


def test_generated_messages_of_a_seed_are_equal_and_run_without_failure() -> None:
    """Into a log or to stdout, the same payloads."""
    printed = iggyflux("log", "generate", "env.yaml", "--count", "30", "--seed", "7").out
    iggyflux("log", "generate", "env.yaml", "--count", "30", "--seed", "7", "--into", "data", "--partitions", "1")

    assert iggyflux("log", "tail", "data", "s/t", "-n", "100").out == printed
    assert iggyflux("log", "generate", "env.yaml", "--count", "30", "--seed", "8").out != printed
    outcome = iggyflux("dry-run", "env.yaml", "-", stdin=printed)
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 30
    assert "collisions" not in outcome.err


def test_generated_messages_go_to_the_topics_of_their_examples() -> None:
    """A mapping of several topics is filled in all that its examples name."""
    text = DOCUMENT.replace("topic: t}", "topic: 't-*'}").replace("{message:", "{meta: {topic: t-a}, message:")
    more = "  - {meta: {topic: t-b}, message: {d: d1, a: 1.5, ts: 1}, points: ['m,d=d1 a=1.5 1000000000']}\n"
    Path("env.yaml").write_text(text + more, "utf-8")

    outcome = iggyflux("log", "generate", "env.yaml", "--count", "40", "--into", "data")

    counts = {line.split()[4]: int(line.split()[1]) for line in outcome.err.splitlines() if line.startswith("appended")}
    assert set(counts) == {"s/t-a", "s/t-b"}
    assert sum(counts.values()) == 40
    for topic, count in counts.items():
        assert len(iggyflux("log", "tail", "data", topic, "-n", "100").out.splitlines()) == count


def test_a_rate_makes_messages_of_now() -> None:
    """With times from now on."""
    outcome = iggyflux("log", "generate", "env.yaml", "--rate", "1000", "--count", "3", "--envelope")

    times = [json.loads(line)["timestamp_us"] for line in outcome.out.splitlines()]
    assert times[0] > 1_750_000_000_000_000
    assert [time - times[0] for time in times] == [0, 1000, 2000]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "env.yaml", "--start", "yesterday"], "--start"),
        (["append", "data", "s/t", "--key", "d[", "x.ndjson"], "IFX201"),
        (["append", "data", "s/t", "--key", "d", "--partition", "1"], "mutually exclusive"),
        (["append", "data", "s", "x.ndjson"], "expected STREAM/TOPIC"),
        (["append", "data", "s/t", "nowhere.ndjson"], "cannot read nowhere.ndjson"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_what_log_cannot_do_is_said(arguments: list[str], words: str) -> None:
    """Never a traceback."""
    outcome = iggyflux("log", *arguments)

    assert outcome.code in (1, 2)
    assert words in outcome.err


def test_what_resend_cannot_read_again_a_consumer_of_another_name_does() -> None:
    fill(GOOD, GOOD)
    assert iggyflux("run", "pipeline.yaml", "--until-end").code == 0
    refused = iggyflux("resend", "pipeline.yaml", "--mapping", "env")
    advised = re.search(r"`(consumer: .*?)`", refused.err)
    assert refused.code == 2
    assert advised is not None
    Path("pipeline.yaml").write_text(f"{PIPELINE}{advised[1]}\n", "utf-8")
    again = iggyflux("run", "pipeline.yaml", "--until-end")
    assert (again.code, "2 messages" in again.err) == (0, True)
